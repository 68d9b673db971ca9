//! Dates in one field or three.

use super::super::forms::{Field, FieldFacts, split_identifier};
use super::super::look::FrameView;

const YEAR: &[&str] = &[
    "year", "jahr", "annee", "ano", "anno", "jaar", "rok", "год", "рік", "yil", "ar", "yyyy", "yy", "jjjj", "aaaa",
    "年", "년", "سنة",
];
const MONTH: &[&str] = &[
    "month",
    "monat",
    "mois",
    "mes",
    "mese",
    "maand",
    "miesiac",
    "месяц",
    "місяць",
    "ay",
    "manad",
    "mm",
    "月",
    "월",
    "شهر",
];
const DAY: &[&str] = &[
    "day", "tag", "jour", "dia", "giorno", "dag", "dzien", "день", "gun", "den", "dd", "tt", "jj", "gg", "日", "일",
    "يوم",
];

/// What goes into one of the `count` fields that ask for the date `iso` (`YYYY-MM-DD`); None where it can't be told.
pub(super) fn part(frame: &FrameView, field: &Field, count: usize, iso: &str) -> Option<String> {
    let facts = frame.page.fields.iter().find(|facts| facts.h == field.handle)?;
    let mut parts = iso.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if count == 1 {
        return Some(whole(facts, year, month, day));
    }
    let words = words_of(facts);
    let says = |known: &[&str]| words.split_whitespace().any(|word| known.contains(&word));
    // The number of entries says it in every language.
    match facts.option_count {
        12 | 13 => return Some(month.to_owned()),
        31 | 32 => return Some(day.to_owned()),
        33.. => return Some(year.to_owned()),
        _ => {}
    }
    if says(YEAR) {
        Some(year.to_owned())
    } else if says(MONTH) {
        Some(month.to_owned())
    } else if says(DAY) {
        Some(day.to_owned())
    } else {
        None
    }
}

/// The date as the field wants it: its own format for a date input, else that of its placeholder.
fn whole(facts: &FieldFacts, year: &str, month: &str, day: &str) -> String {
    if facts.kind == "date" {
        return format!("{year}-{month}-{day}");
    }
    let hint = format!(
        "{} {} {}",
        facts.placeholder,
        facts.title,
        facts.labels.iter().map(|label| label.text.as_str()).collect::<Vec<_>>().join(" ")
    )
    .to_lowercase();
    let at = |names: &[&str]| names.iter().filter_map(|name| hint.find(name)).min();
    let (y, m, d) = (at(&["yyyy", "jjjj", "aaaa", "гггг"]), at(&["mm", "мм"]), at(&["dd", "tt", "jj/", "дд", "gg"]));
    let between = ['/', '.', '-'].into_iter().find(|sign| hint.contains(*sign)).unwrap_or('-');
    let (Some(y), Some(m), Some(d)) = (y, m, d) else { return format!("{year}-{month}-{day}") };
    let mut order = [(y, year), (m, month), (d, day)];
    order.sort_by_key(|(place, _)| *place);
    order.map(|(_, value)| value).join(&between.to_string())
}

fn words_of(facts: &FieldFacts) -> String {
    let labels = facts.labels.iter().map(|label| label.text.as_str());
    let own = [&facts.name, &facts.id, &facts.placeholder, &facts.aria, &facts.autocomplete];
    let options = facts.options.first().map(String::as_str);
    own.into_iter().map(String::as_str).chain(labels).chain(options).map(split_identifier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_field(placeholder: &str) -> FieldFacts {
        FieldFacts { kind: "text".into(), placeholder: placeholder.into(), ..FieldFacts::default() }
    }

    #[test]
    fn a_date_is_written_as_its_field_wants_it() {
        assert_eq!(whole(&text_field("TT.MM.JJJJ"), "1990", "05", "17"), "17.05.1990");
        assert_eq!(whole(&text_field("mm/dd/yyyy"), "1990", "05", "17"), "05/17/1990");
        assert_eq!(whole(&text_field("born"), "1990", "05", "17"), "1990-05-17");
        assert_eq!(
            whole(&FieldFacts { kind: "date".into(), ..FieldFacts::default() }, "1990", "05", "17"),
            "1990-05-17"
        );
    }
}
