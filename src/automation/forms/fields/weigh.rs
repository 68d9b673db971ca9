//! How much speaks for each role of a field: its attributes and what is said of it, source by source.

use std::collections::BTreeMap;

use super::super::description::FieldFacts;
use super::super::dictionary::{Dictionary, Words};
use super::super::kinds::Weights;
use super::Role;

/// How much speaks for each role, and what.
pub(super) fn weigh(facts: &FieldFacts) -> (BTreeMap<Role, f64>, Vec<String>) {
    let weights = Weights::standard();
    let mut scores: BTreeMap<Role, f64> = BTreeMap::new();
    let mut reasons = Vec::new();
    let autocomplete = weights.source("autocomplete");
    let mut add = |role: Role, weight: f64, why: String| {
        if weight > 0.0 && (role.fits(facts) || (facts.tag == "input" && weight >= autocomplete)) {
            *scores.entry(role).or_default() += weight;
            reasons.push(format!("{why} → {} {weight:+.1}", role.as_str()));
        }
    };

    for token in facts.autocomplete.split_whitespace() {
        // On a line that shows what is typed the token of a password only keeps the browser from filling it.
        let shown = |role: &Role| *role == Role::Password && facts.kind != "password";
        if let Some(role) = weights.autocomplete.get(token).filter(|role| !shown(role)) {
            add(*role, autocomplete, format!("autocomplete {token}"));
        }
    }
    let typed = match facts.kind.as_str() {
        "email" => Some(Role::Email),
        "password" => Some(Role::Password),
        "tel" => Some(Role::Phone),
        "url" => Some(Role::Website),
        _ => None,
    };
    if let (Some(role), "input") = (typed, facts.tag.as_str()) {
        // Sites take the type of telephone numbers for the digits on the keyboard, too.
        let source = if role == Role::Phone { "type_tel" } else { "type" };
        add(role, weights.source(source), format!("type {}", facts.kind));
    }
    if facts.inputmode == "email" {
        add(Role::Email, weights.source("type") / 2.0, "inputmode email".to_owned());
    }
    if matches!(facts.tag.as_str(), "textarea" | "editable") {
        add(Role::Body, weights.source("tag"), facts.tag.clone());
    }

    let dictionary = Dictionary::standard();
    let line = facts.tag == "input";
    for (source, identifier) in
        [("name", &facts.name), ("id", &facts.id), ("class", &facts.class), ("data", &facts.data)]
    {
        let words = Words::of_identifier(identifier);
        let found = Role::SPOKEN.map(|role| (role, dictionary.in_name(&format!("role.{}", role.as_str()), &words)));
        let longest = found.iter().map(|(_, (letters, _))| *letters).max().unwrap_or(0);
        for (role, (letters, whole)) in found.into_iter().filter(|(_, (letters, _))| *letters > 0) {
            // `text`, `content` and the like stand in the names of all sorts of fields.
            if line && role == Role::Body {
                continue;
            }
            let weight = if whole { weights.source(source) } else { weights.source(&format!("{source}_inside")) };
            add(role, weight * (letters as f64 / longest as f64).powi(2), format!("{source} `{identifier}`"));
        }
    }

    let own = [("placeholder", &facts.placeholder), ("aria", &facts.aria), ("title", &facts.title)];
    let labels = facts.labels.iter().map(|label| (label.via.as_str(), &label.text));
    for (source, text) in own.into_iter().chain(labels) {
        // The beginning of an address, put before the line that takes the rest: `https://example.org/` is no website.
        let words = if source == "before" && text.contains("://") {
            let rest: Vec<&str> = text.split_whitespace().filter(|word| !is_address(word)).collect();
            Words::of_text(&rest.join(" "))
        } else {
            Words::of_text(text)
        };
        let box_to_tick = matches!(facts.kind.as_str(), "checkbox" | "radio");
        // A sentence has many words in it that are not meant; what a box says is always a sentence.
        let plain = if box_to_tick { 1.0 } else { (7.0 / words.count().max(1) as f64).min(1.0) };
        let mut found = Role::SPOKEN.map(|role| (role, dictionary.in_text(&format!("role.{}", role.as_str()), &words)));
        read_together(&words, &mut found);
        let longest = found.iter().map(|(_, letters)| *letters).max().unwrap_or(0);
        for (role, letters) in found.into_iter().filter(|(_, letters)| *letters > 0) {
            let weight = weights.source(source) * plain * (letters as f64 / longest as f64).powi(2);
            add(role, weight, format!("{source} `{}`", text.chars().take(40).collect::<String>()));
        }
        if asks_a_sum(text) {
            add(Role::Captcha, weights.source(source) * 2.0, format!("{source} asks a sum"));
        }
    }
    masked(facts, &mut scores, &mut reasons);
    (scores, reasons)
}

/// What two meanings in one short text say together: given and family name are the whole name, and the address that mail
/// goes to is no street.
fn read_together(words: &Words, found: &mut [(Role, usize)]) {
    let of = |role: Role| found.iter().find(|(r, _)| *r == role).map_or(0, |(_, letters)| *letters);
    let (first, last, full, email) = (of(Role::FirstName), of(Role::LastName), of(Role::FullName), of(Role::Email));
    let mut put = |role: Role, letters: usize| {
        found.iter_mut().filter(|(r, _)| *r == role).for_each(|(_, n)| *n = letters);
    };
    if words.count() > 6 {
        return;
    }
    // Where the one is part of the other, only one of them is meant.
    if first > 0 && last > 0 && (0.5..=1.0).contains(&(words.share(first) + words.share(last))) {
        put(Role::FullName, full.max(first + last));
        put(Role::FirstName, 0);
        put(Role::LastName, 0);
    }
    if email > 0 {
        put(Role::Address, 0);
    }
}

/// A line of text that a script shows as dots: called a password in its attributes and in what is said of it, and nothing
/// else.
fn masked(facts: &FieldFacts, scores: &mut BTreeMap<Role, f64>, reasons: &mut Vec<String>) {
    let dictionary = Dictionary::standard();
    let told = |role: &str| {
        let named = [&facts.name, &facts.id].into_iter().any(|value| dictionary.names(role, value));
        let texts = facts.labels.iter().map(|label| &label.text).chain([&facts.placeholder, &facts.aria]);
        let said = |text: &String| {
            let words = Words::of_text(text);
            words.share(dictionary.in_text(role, &words)) > 0.7
        };
        named && texts.filter(|text| !text.is_empty()).any(said)
    };
    if facts.tag != "input" || facts.kind != "text" || !scores.values().all(|score| *score < 2.0) {
        return;
    }
    for (role, name) in [(Role::PasswordConfirm, "role.password_confirm"), (Role::Password, "role.password")] {
        if told(name) {
            let weight = Weights::standard().source("type");
            scores.insert(role, weight);
            reasons.push(format!("called nothing but a password → {} {weight:+.1}", role.as_str()));
            return;
        }
    }
}

/// `https://example.org/`; not `https://` alone.
fn is_address(word: &str) -> bool {
    word.split_once("://").is_some_and(|(_, rest)| rest.contains('.'))
}

/// `3 + 4 = ?`, `what is 3 plus 4`.
pub(super) fn asks_a_sum(text: &str) -> bool {
    static SUM: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| {
        regex::Regex::new(
            // `2-6` alone is a range, not a sum.
            r"(?i)\b\d{1,3}\s*(?:[+*×x÷]|plus|minus|times|mal|fois|más|più|mais|плюс|минус)\s*\d{1,3}\s*(?:=|\?|$)|\b\d{1,3}\s*[\-−–]\s*\d{1,3}\s*[=?]",
        )
        .expect("valid")
    });
    SUM.is_match(text)
}
