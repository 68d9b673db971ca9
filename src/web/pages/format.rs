//! Numbers and times as people read them.

use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};

/// What stands where there is no value.
pub const NONE: &str = "–";

/// A moment, as how long ago it was, with the exact time behind it.
pub fn ago(time: DateTime<Utc>) -> Markup {
    moment(time, &distance(Utc::now().signed_duration_since(time).num_seconds()))
}

/// A moment, exactly.
pub fn exact(time: DateTime<Utc>) -> Markup {
    moment(time, &time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn moment(time: DateTime<Utc>, text: &str) -> Markup {
    html! {
        time datetime=(time.to_rfc3339_opts(SecondsFormat::Millis, true)) title=(time.format("%Y-%m-%d %H:%M:%S UTC")) { (text) }
    }
}

fn distance(seconds: i64) -> String {
    let n = seconds.abs();
    let (n, unit) = match n {
        0..5 => return "just now".to_owned(),
        5..60 => (n, "s"),
        60..3_600 => (n / 60, "min"),
        3_600..86_400 => (n / 3_600, "h"),
        _ => (n / 86_400, "d"),
    };
    if seconds < 0 { format!("in {n} {unit}") } else { format!("{n} {unit} ago") }
}

/// A name of words with underscores or dots, or a sentence with such names, which may be broken after each of them.
pub fn name(name: &str) -> Markup {
    html! { @for (n, part) in words(name).iter().enumerate() { @if n > 0 { wbr; } (part) } }
}

/// `fill_form` → `fill_`, `form`; `nav.timeout` → `nav.`, `timeout`; a dot in a number or at the end is none of these.
fn words(name: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut from = 0;
    for (at, character) in name.char_indices() {
        let rest = &name[at + character.len_utf8()..];
        if (character == '_' && !rest.is_empty()) || (character == '.' && rest.starts_with(char::is_alphabetic)) {
            words.push(&name[from..=at]);
            from = at + 1;
        }
    }
    words.push(&name[from..]);
    words
}

/// A length of time in milliseconds: `0.4 ms`, `120 ms`, `4.2 s`, `2 min 5 s`.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 0.05 => "0 ms".to_owned(),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_950.0 => format!("{:.2} s", ms / 1e3),
        ms if ms < 59_950.0 => format!("{:.1} s", ms / 1e3),
        ms => {
            let seconds = (ms / 1e3).round();
            format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
        }
    }
}

/// How long a step took; blank for one that only marks a moment.
pub fn took(ms: f64) -> String {
    if ms >= 0.05 { duration(ms) } else { String::new() }
}

/// As [`duration`], from seconds that may be missing.
pub fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or(NONE.to_owned(), |seconds| duration(seconds * 1e3))
}

/// US dollars: to the cent when there are dollars, else as many digits as small amounts need; all small ones the same.
pub fn dollars(amount: f64) -> String {
    match amount.abs() {
        n if n < 5e-7 => "$0".to_owned(),
        n if n < 0.01 => format!("${amount:.6}"),
        n if n < 1.0 => format!("${amount:.3}"),
        _ => format!("${amount:.2}"),
    }
}

/// A whole number with thin spaces between thousands.
pub fn number(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = if n < 0 { "−".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// A share from 0 to 1 in per cent; 100 % and 0 % only where nothing is missing from it.
pub fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    let text = match text.as_str() {
        "100.0" if share < 1.0 => "99.9",
        "0.0" if share > 0.0 => "0.1",
        exact => exact.trim_end_matches(".0"),
    };
    format!("{text} %")
}

/// A size: `512 B`, `12.3 kB`, `4.5 MB`.
pub fn bytes(n: i64) -> String {
    let n = n as f64;
    match n {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{:.1} kB", n / 1e3),
        n => format!("{:.1} MB", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_keep_about_three_digits() {
        let shown: Vec<String> =
            [0.0, 0.42, 42.4, 999.6, 4_216.0, 45_670.0, 59_960.0, 125_000.0].into_iter().map(duration).collect();
        assert_eq!(shown, ["0 ms", "0.4 ms", "42 ms", "1.00 s", "4.22 s", "45.7 s", "1 min 0 s", "2 min 5 s"]);
    }

    #[test]
    fn names_are_broken_between_their_words_and_numbers_are_not() {
        let broken = words("Completed in 5.91 s at look_for_form: net.dns_failed.");
        assert_eq!(broken, ["Completed in 5.91 s at look_", "for_", "form: net.", "dns_", "failed."]);
        assert_eq!(words("ferry_🌊"), ["ferry_", "🌊"]);
    }

    #[test]
    fn small_costs_are_not_rounded_away() {
        let shown: Vec<String> = [0.0, 0.0004, 0.000_012, 0.25, 12.5].into_iter().map(dollars).collect();
        assert_eq!(shown, ["$0", "$0.000400", "$0.000012", "$0.250", "$12.50"]);
    }

    #[test]
    fn a_share_is_whole_only_if_it_is() {
        let shown: Vec<String> = [0.0, 0.0001, 0.5, 0.876, 0.9999, 1.0].into_iter().map(percent).collect();
        assert_eq!(shown, ["0 %", "0.1 %", "50 %", "87.6 %", "99.9 %", "100 %"]);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(number(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(number(-999), "−999");
    }
}
