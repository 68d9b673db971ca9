//! Dates in one field or three.

use super::super::forms::{Dictionary, Field, FieldFacts, Words};
use super::super::look::FrameView;

/// What goes into one of the `count` fields that ask for the date `iso` (`YYYY-MM-DD`); None where it can't be told.
pub(super) fn part(frame: &FrameView, field: &Field, count: usize, iso: &str) -> Option<String> {
    let facts = frame.page.fields.iter().find(|facts| facts.h == field.handle)?;
    let mut parts = iso.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if count == 1 {
        return Some(whole(facts, year, month, day));
    }
    let says = |part: &str| says_part(facts, part);
    // The number of entries says it in every language.
    match facts.option_count {
        12 | 13 => return Some(month.to_owned()),
        31 | 32 => return Some(day.to_owned()),
        33.. => return Some(year.to_owned()),
        _ => {}
    }
    if says("sign.year") {
        Some(year.to_owned())
    } else if says("sign.month") {
        Some(month.to_owned())
    } else if says("sign.day") {
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

/// Whether a field says of itself that it takes `part` of a date.
fn says_part(facts: &FieldFacts, part: &str) -> bool {
    let dictionary = Dictionary::standard();
    let named = [&facts.name, &facts.id, &facts.autocomplete].into_iter();
    let labels = facts.labels.iter().map(|label| &label.text);
    let texts = [&facts.placeholder, &facts.aria].into_iter().chain(labels).chain(facts.options.first());
    named.map(|name| Words::of_identifier(name)).any(|words| dictionary.in_text(part, &words) > 0)
        || texts.map(|text| Words::of_text(text)).any(|words| dictionary.in_text(part, &words) > 0)
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
