//! What a field wants: evidence of every source, weighed, and then the company it is in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::description::FieldFacts;
use super::dictionary::{Dictionary, Words};
use super::kinds::{FormKind, Weights};

/// What a field wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The name a comment is signed with.
    Author,
    /// A mail address.
    Email,
    /// The same once more.
    EmailConfirm,
    /// A web address.
    Website,
    /// The comment or message itself.
    Body,
    /// A name to log in with.
    Username,
    /// A password.
    Password,
    /// The same once more.
    PasswordConfirm,
    /// Given name.
    FirstName,
    /// Family name.
    LastName,
    /// Both.
    FullName,
    /// Telephone number.
    Phone,
    /// Date of birth, or a part of it.
    Birthdate,
    /// Company.
    Company,
    /// Street, city, state.
    Address,
    /// Country.
    Country,
    /// Postal code.
    PostalCode,
    /// A box that has to be ticked: terms, privacy.
    Consent,
    /// A box that is left alone: newsletter, notifications.
    NewsletterOptIn,
    /// A trap: never filled.
    Honeypot,
    /// A code from a mail or message.
    OneTimeCode,
    /// The answer to a CAPTCHA: never filled.
    Captcha,
    /// Anything else.
    Other,
}

impl Role {
    /// The name in data and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Author => "author",
            Self::Email => "email",
            Self::EmailConfirm => "email_confirm",
            Self::Website => "website",
            Self::Body => "body",
            Self::Username => "username",
            Self::Password => "password",
            Self::PasswordConfirm => "password_confirm",
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::FullName => "full_name",
            Self::Phone => "phone",
            Self::Birthdate => "birthdate",
            Self::Company => "company",
            Self::Address => "address",
            Self::Country => "country",
            Self::PostalCode => "postal_code",
            Self::Consent => "consent",
            Self::NewsletterOptIn => "newsletter_opt_in",
            Self::Honeypot => "honeypot",
            Self::OneTimeCode => "one_time_code",
            Self::Captcha => "captcha",
            Self::Other => "other",
        }
    }

    /// The roles that words can speak for.
    const SPOKEN: [Role; 23] = [
        Self::Author,
        Self::Email,
        Self::EmailConfirm,
        Self::Website,
        Self::Body,
        Self::Username,
        Self::Password,
        Self::PasswordConfirm,
        Self::FirstName,
        Self::LastName,
        Self::FullName,
        Self::Phone,
        Self::Birthdate,
        Self::Company,
        Self::Address,
        Self::Country,
        Self::PostalCode,
        Self::Consent,
        Self::NewsletterOptIn,
        Self::Honeypot,
        Self::OneTimeCode,
        Self::Captcha,
        Self::Other,
    ];

    /// Whether a control of this type can have the role at all.
    fn fits(self, facts: &FieldFacts) -> bool {
        use Role as R;
        match (facts.tag.as_str(), facts.kind.as_str()) {
            ("textarea" | "editable", _) => matches!(self, R::Body | R::Address | R::Honeypot | R::Captcha),
            ("select", _) => matches!(self, R::Country | R::Birthdate | R::Address | R::Phone | R::Other),
            (_, "checkbox") => matches!(self, R::Consent | R::NewsletterOptIn | R::Honeypot),
            (_, "radio" | "file" | "range" | "color" | "search") => false,
            (_, "password") => {
                matches!(self, R::Password | R::PasswordConfirm | R::OneTimeCode | R::Honeypot | R::Other)
            }
            (_, "email") => matches!(self, R::Email | R::EmailConfirm | R::Username | R::Honeypot),
            (_, "url") => matches!(self, R::Website | R::Honeypot),
            (_, "tel") => {
                matches!(self, R::Phone | R::OneTimeCode | R::PostalCode | R::Honeypot | R::Captcha | R::Other)
            }
            (_, "number") => {
                matches!(
                    self,
                    R::Phone | R::OneTimeCode | R::PostalCode | R::Birthdate | R::Honeypot | R::Captcha | R::Other
                )
            }
            (_, "date" | "month") => matches!(self, R::Birthdate),
            _ => !matches!(self, R::Consent | R::NewsletterOptIn),
        }
    }
}

/// A field with what is thought of it so far.
#[derive(Debug, Clone)]
pub(super) struct Guess<'a> {
    pub facts: &'a FieldFacts,
    pub role: Role,
    pub score: f64,
    pub scores: BTreeMap<Role, f64>,
    pub reasons: Vec<String>,
    /// A person sees it.
    pub seen: bool,
    /// Seen, and can be filled.
    pub usable: bool,
}

impl<'a> Guess<'a> {
    pub(super) fn of(facts: &'a FieldFacts) -> Guess<'a> {
        let (scores, reasons) = weigh(facts);
        let best = scores.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(role, score)| (*role, *score));
        let threshold = Weights::standard().source("threshold");
        let (mut role, score) = best.filter(|(_, score)| *score >= threshold).unwrap_or((Role::Other, 0.0));
        let seen = !hidden(facts);
        if !seen && (by_trick(facts) || scores.get(&Role::Honeypot).is_some_and(|score| *score > 0.0)) {
            role = Role::Honeypot;
        }
        let usable = seen && !facts.disabled && !facts.readonly && role != Role::Honeypot;
        Guess { facts, role, score, scores, reasons, seen, usable }
    }

    /// A field for longer texts.
    pub(super) fn is_area(&self) -> bool {
        matches!(self.facts.tag.as_str(), "textarea" | "editable")
    }

    /// Whether one of its texts says `meaning`.
    pub(super) fn says(&self, meaning: &str) -> bool {
        let dictionary = Dictionary::standard();
        let own = [&self.facts.placeholder, &self.facts.aria, &self.facts.title];
        let labels = self.facts.labels.iter().filter(|label| label.via != "describedby").map(|label| &label.text);
        own.into_iter().chain(labels).any(|text| {
            let words = Words::of_text(text);
            words.count() <= 12 && dictionary.in_text(meaning, &words) > 0
        })
    }
}

/// Whether a person can't see the field. A box to tick that is drawn by its label counts as seen.
fn hidden(facts: &FieldFacts) -> bool {
    let drawn_by_label = matches!(facts.kind.as_str(), "checkbox" | "radio") && facts.label_shown;
    facts.hidden.iter().any(|why| match why.as_str() {
        "tiny" | "transparent" | "clipped" | "off_screen" => !drawn_by_label,
        _ => true,
    })
}

/// Hidden in a way that honest pages have no use for.
fn by_trick(facts: &FieldFacts) -> bool {
    let box_to_tick = matches!(facts.kind.as_str(), "checkbox" | "radio");
    facts.hidden.iter().any(|why| match why.as_str() {
        "aria_hidden" | "tabindex" => true,
        "off_screen" | "clipped" | "transparent" | "tiny" => !box_to_tick,
        _ => false,
    })
}

/// How much speaks for each role, and what.
fn weigh(facts: &FieldFacts) -> (BTreeMap<Role, f64>, Vec<String>) {
    let weights = Weights::standard();
    let mut scores: BTreeMap<Role, f64> = BTreeMap::new();
    let mut reasons = Vec::new();
    let mut add = |role: Role, weight: f64, why: String| {
        if weight > 0.0 && role.fits(facts) {
            *scores.entry(role).or_default() += weight;
            reasons.push(format!("{why} → {} {weight:+.1}", role.as_str()));
        }
    };

    for token in facts.autocomplete.split_whitespace() {
        if let Some(role) = weights.autocomplete.get(token) {
            add(*role, weights.source("autocomplete"), format!("autocomplete {token}"));
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
        add(role, weights.source("type"), format!("type {}", facts.kind));
    }
    if facts.inputmode == "email" {
        add(Role::Email, weights.source("type") / 2.0, "inputmode email".to_owned());
    }
    if matches!(facts.tag.as_str(), "textarea" | "editable") {
        add(Role::Body, weights.source("tag"), facts.tag.clone());
    }

    let dictionary = Dictionary::standard();
    for (source, identifier) in
        [("name", &facts.name), ("id", &facts.id), ("class", &facts.class), ("data", &facts.data)]
    {
        let words = Words::of_identifier(identifier);
        let found = Role::SPOKEN.map(|role| (role, dictionary.in_name(&format!("role.{}", role.as_str()), &words)));
        let longest = found.iter().map(|(_, (letters, _))| *letters).max().unwrap_or(0);
        for (role, (letters, whole)) in found.into_iter().filter(|(_, (letters, _))| *letters > 0) {
            let weight = if whole { weights.source(source) } else { weights.source(&format!("{source}_inside")) };
            add(role, weight * (letters as f64 / longest as f64).powi(2), format!("{source} `{identifier}`"));
        }
    }

    let own = [("placeholder", &facts.placeholder), ("aria", &facts.aria), ("title", &facts.title)];
    let labels = facts.labels.iter().map(|label| (label.via.as_str(), &label.text));
    for (source, text) in own.into_iter().chain(labels) {
        let words = Words::of_text(text);
        let box_to_tick = matches!(facts.kind.as_str(), "checkbox" | "radio");
        // A sentence has many words in it that are not meant; what a box says is always a sentence.
        let plain = if box_to_tick { 1.0 } else { (7.0 / words.count().max(1) as f64).min(1.0) };
        let found = Role::SPOKEN.map(|role| (role, dictionary.in_text(&format!("role.{}", role.as_str()), &words)));
        let longest = found.iter().map(|(_, letters)| *letters).max().unwrap_or(0);
        for (role, letters) in found.into_iter().filter(|(_, letters)| *letters > 0) {
            let weight = weights.source(source) * plain * (letters as f64 / longest as f64).powi(2);
            add(role, weight, format!("{source} `{}`", text.chars().take(40).collect::<String>()));
        }
        if asks_a_sum(text) {
            add(Role::Captcha, weights.source(source) * 2.0, format!("{source} asks a sum"));
        }
    }
    (scores, reasons)
}

/// `3 + 4 = ?`, `what is 3 plus 4`.
pub(super) fn asks_a_sum(text: &str) -> bool {
    static SUM: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| {
        regex::Regex::new(
            r"(?i)\b\d{1,3}\s*(?:[+\-−–*×x÷]|plus|minus|times|mal|fois|más|più|mais|плюс|минус)\s*\d{1,3}\s*(?:=|\?|$)",
        )
        .expect("valid")
    });
    SUM.is_match(text)
}

/// Settles the roles of a form's fields among themselves, now that its kind is known.
pub(super) fn settle(fields: &mut [Guess<'_>], kind: FormKind) {
    let alone = |fields: &[Guess<'_>], role: Role| !fields.iter().any(|f| f.usable && f.role == role);
    match kind {
        FormKind::Comment | FormKind::Contact => {
            one_body(fields);
            if alone(fields, Role::Author) {
                let named = [Role::FullName, Role::Username, Role::FirstName];
                let splits = !alone(fields, Role::FirstName) && !alone(fields, Role::LastName);
                let found = fields.iter().position(|f| f.usable && named.contains(&f.role));
                if let (Some(i), false) = (found, splits) {
                    fields[i].role = Role::Author;
                }
            }
        }
        FormKind::Signup | FormKind::Other => {
            let new_name = if alone(fields, Role::FullName) { Role::FullName } else { Role::Username };
            for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                field.role = if field.scores.get(&Role::Username).is_some_and(|s| *s > field.score * 0.6) {
                    Role::Username
                } else {
                    new_name
                };
            }
        }
        FormKind::Login => {
            for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                field.role = Role::Username;
            }
            // Whatever it looks like: it is the name one logs in with.
            if alone(fields, Role::Username)
                && let Some(field) = fields.iter_mut().find(|f| f.usable && f.role == Role::Email)
            {
                field.role = Role::Username;
            }
        }
        FormKind::Newsletter | FormKind::Search => {}
    }
    twice(fields, Role::Password, Role::PasswordConfirm);
    twice(fields, Role::Email, Role::EmailConfirm);
    keep_best(fields);
    unmask(fields);
}

/// Of several text areas that a person sees, the one with most speaking for it holds the text.
fn one_body(fields: &mut [Guess<'_>]) {
    let best = (0..fields.len()).filter(|&i| fields[i].is_area() && fields[i].usable).max_by(|&a, &b| {
        let (x, y) = (&fields[a], &fields[b]);
        let score = |f: &Guess<'_>| f.scores.get(&Role::Body).copied().unwrap_or(0.0);
        score(x).total_cmp(&score(y)).then(y.facts.at.cmp(&x.facts.at))
    });
    for (i, field) in fields.iter_mut().enumerate() {
        if Some(i) == best {
            field.role = Role::Body;
        } else if field.role == Role::Body && best.is_some() && field.usable {
            field.role = Role::Other;
        }
    }
}

/// Of two fields with one role the second repeats the first, where a role for that exists.
fn twice(fields: &mut [Guess<'_>], first: Role, second: Role) {
    let found: Vec<usize> = (0..fields.len()).filter(|&i| fields[i].usable && fields[i].role == first).collect();
    let repeated = fields.iter().any(|f| f.usable && f.role == second);
    match (found.as_slice(), repeated) {
        ([_, again], false) => fields[*again].role = second,
        ([], true) => {
            if let Some(field) = fields.iter_mut().find(|f| f.usable && f.role == second) {
                field.role = first;
            }
        }
        _ => {}
    }
}

/// A role that only one field can have goes to the one with most speaking for it.
fn keep_best(fields: &mut [Guess<'_>]) {
    for role in [Role::Author, Role::Website, Role::Username, Role::FullName, Role::FirstName, Role::LastName] {
        let mut same: Vec<usize> = (0..fields.len()).filter(|&i| fields[i].usable && fields[i].role == role).collect();
        same.sort_by(|&a, &b| fields[b].score.total_cmp(&fields[a].score).then(a.cmp(&b)));
        for &i in same.iter().skip(1) {
            fields[i].role = Role::Other;
        }
    }
}

/// A field that is not rendered and asks for what another asks for in sight of all is a trap, not a later step.
fn unmask(fields: &mut [Guess<'_>]) {
    let asked: Vec<Role> = fields.iter().filter(|f| f.usable).map(|f| f.role).collect();
    for field in fields.iter_mut().filter(|f| !f.seen) {
        if field.role != Role::Other && asked.contains(&field.role) {
            field.role = Role::Honeypot;
        }
    }
}
