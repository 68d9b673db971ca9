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
            ("select", _) => matches!(self, R::Country | R::Birthdate | R::Address | R::Other),
            (_, "checkbox") => matches!(self, R::Consent | R::NewsletterOptIn | R::Honeypot),
            (_, "radio" | "file" | "range" | "color" | "search") => false,
            (_, "password") => {
                matches!(self, R::Password | R::PasswordConfirm | R::OneTimeCode | R::Honeypot | R::Other)
            }
            (_, "email") => matches!(self, R::Email | R::EmailConfirm | R::Username | R::Honeypot),
            (_, "url") => matches!(self, R::Website | R::Honeypot),
            (_, "tel") => {
                matches!(
                    self,
                    R::Phone
                        | R::OneTimeCode
                        | R::PostalCode
                        | R::Birthdate
                        | R::Username
                        | R::Honeypot
                        | R::Captcha
                        | R::Other
                )
            }
            (_, "number") => {
                matches!(
                    self,
                    R::Phone | R::OneTimeCode | R::PostalCode | R::Birthdate | R::Honeypot | R::Captcha | R::Other
                )
            }
            (_, "date" | "month") => matches!(self, R::Birthdate),
            // What shows as it is typed is no password, whatever is said around it.
            _ => !matches!(self, R::Consent | R::NewsletterOptIn | R::Password | R::PasswordConfirm),
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
        // A word in a class or data attribute says little where the site tells the browser what to fill in.
        let enough = if declared(facts) { Weights::standard().source("trap_though_declared") } else { 0.0 };
        let called_a_trap = scores.get(&Role::Honeypot).is_some_and(|score| *score > enough);
        // A password out of sight waits for the next step: traps ask for what robots like to give. A line that offers a
        // list is drawn by a script around it.
        let later = declared(facts) || facts.kind == "password" || facts.role == "combobox";
        if !seen && (called_a_trap || (by_trick(facts) && !later)) {
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

/// Whether the site tells the browser what to fill in. A trap that does would catch the people whose browser obeys.
fn declared(facts: &FieldFacts) -> bool {
    let known = &Weights::standard().autocomplete;
    let fitting = |token| known.get(token).is_some_and(|role: &Role| facts.tag == "input" || role.fits(facts));
    facts.autocomplete.split_whitespace().any(fitting)
}

/// Whether a person can't see the field. A box to tick that is drawn by its label counts as seen, and so does what is only
/// out of the tab order but has a purpose of its own: a list that a script dresses up, a field the browser may fill.
fn hidden(facts: &FieldFacts) -> bool {
    let drawn_by_label = matches!(facts.kind.as_str(), "checkbox" | "radio") && facts.label_shown;
    let purpose = facts.tag == "select" || declared(facts);
    facts.hidden.iter().any(|why| match why.as_str() {
        "tabindex" if facts.hidden.len() == 1 => !purpose,
        "tiny" | "transparent" | "clipped" | "off_screen" => !drawn_by_label,
        _ => true,
    })
}

/// Whether a field that can't be filled in now belongs to what a person will fill in all the same: the form is folded away as a
/// whole, the site tells the browser what to fill in, it is a password, or the form has more that is not drawn yet.
pub(super) fn later(guess: &Guess<'_>, all: &[Guess<'_>], kind: FormKind) -> bool {
    if matches!(guess.role, Role::Honeypot | Role::Other | Role::Captcha) {
        return false;
    }
    if guess.seen {
        // It can't be typed into yet.
        return !guess.usable;
    }
    let undrawn = |f: &Guess<'_>| f.facts.hidden.iter().all(|why| matches!(why.as_str(), "not_rendered" | "folded"));
    if declared(guess.facts) || guess.facts.role == "combobox" {
        return true;
    }
    match kind {
        FormKind::Comment if all.iter().all(|f| !f.seen) => undrawn(guess),
        FormKind::Comment | FormKind::Contact | FormKind::Newsletter | FormKind::Search => false,
        FormKind::Signup | FormKind::Login | FormKind::Other => {
            let known = |f: &&Guess<'_>| undrawn(f) && !matches!(f.role, Role::Honeypot | Role::Other);
            guess.facts.kind == "password" || (undrawn(guess) && all.iter().filter(known).count() >= 2)
        }
    }
}

/// Hidden in a way that honest pages have no use for.
fn by_trick(facts: &FieldFacts) -> bool {
    let box_to_tick = matches!(facts.kind.as_str(), "checkbox" | "radio");
    // Scripts dress up lists and hide the real ones; nobody sets a trap with one.
    facts.tag != "select"
        && facts.hidden.iter().any(|why| match why.as_str() {
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
    masked(facts, &mut scores, &mut reasons);
    (scores, reasons)
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

/// What the fields of a form say of each other, whatever its kind.
pub(super) fn compare(fields: &mut [Guess<'_>]) {
    one_digit_each(fields);
    card_codes(fields);
    parts_of_a_date(fields);
}

/// Settles the roles of a form's fields among themselves, now that its kind is known.
pub(super) fn settle(fields: &mut [Guess<'_>], kind: FormKind) {
    // Nobody leaves it to the guest whether an account has a name.
    let optional = |f: &Guess<'_>| {
        let mut texts = f.facts.labels.iter().map(|label| &label.text).chain([&f.facts.placeholder, &f.facts.aria]);
        texts.any(|text| Dictionary::standard().says("sign.optional", text))
    };
    for field in fields.iter_mut().filter(|f| f.role == Role::Username && optional(f)) {
        field.role = Role::Other;
    }
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
            if kind == FormKind::Contact && alone(fields, Role::FullName) {
                // A letter has no author's name that others see.
                for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                    field.role = Role::FullName;
                }
            }
        }
        FormKind::Signup | FormKind::Other => {
            // Whatever the browser is told to keep it as: the new account's address.
            if alone(fields, Role::Email)
                && let Some(field) =
                    fields.iter_mut().find(|f| f.usable && f.role == Role::Username && f.facts.kind == "email")
            {
                field.role = Role::Email;
            }
            if kind == FormKind::Signup {
                accounts_address(fields);
            }
            let new_name = if alone(fields, Role::FullName) { Role::FullName } else { Role::Username };
            for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                // `name` alone says little: what else is said decides.
                let says = |role: &Role| field.scores.get(role).copied().unwrap_or(0.0);
                let other = [Role::Username, Role::FirstName, Role::LastName];
                let best = other.into_iter().max_by(|a, b| says(a).total_cmp(&says(b)));
                field.role = best.filter(|role| says(role) > field.score * 0.5).unwrap_or(new_name);
            }
        }
        FormKind::Login => {
            name_before_password(fields);
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
        FormKind::Newsletter | FormKind::Search => {
            for field in fields.iter_mut().filter(|f| f.role == Role::Author) {
                field.role = Role::FullName;
            }
        }
    }
    if !matches!(kind, FormKind::Other | FormKind::Contact) {
        mail_addresses(fields);
    }
    twice(fields, Role::Password, Role::PasswordConfirm);
    twice(fields, Role::Email, Role::EmailConfirm);
    keep_best(fields);
    unmask(fields);
}

/// A sign-up has an address to write to; and whoever gives away addresses of their own asks for a name, not a street.
fn accounts_address(fields: &mut [Guess<'_>]) {
    let score = |field: &Guess<'_>, role: Role| field.scores.get(&role).copied().unwrap_or(0.0);
    let has = |fields: &[Guess<'_>], role: Role| fields.iter().any(|f| f.usable && f.role == role);
    if !has(fields, Role::Email)
        && let Some(field) =
            fields.iter_mut().find(|f| f.usable && f.role == Role::Username && score(f, Role::Email) > f.score * 0.5)
    {
        field.role = Role::Email;
    }
    if !has(fields, Role::Username)
        && !has(fields, Role::PostalCode)
        && let Some(field) =
            fields.iter_mut().find(|f| f.usable && f.role == Role::Address && score(f, Role::Username) > f.score * 0.4)
    {
        field.role = Role::Username;
    }
}

/// Of a log-in's lines the one before the password is the name one logs in with, whatever the site calls it.
fn name_before_password(fields: &mut [Guess<'_>]) {
    let known = |f: &Guess<'_>| matches!(f.role, Role::Username | Role::Email);
    let line = |f: &Guess<'_>| {
        f.usable
            && f.facts.tag == "input"
            && matches!(f.facts.kind.as_str(), "text" | "tel" | "number" | "search" | "email" | "")
    };
    let Some(password) = fields.iter().position(|f| f.usable && f.role == Role::Password) else { return };
    if fields.iter().any(|f| f.usable && known(f)) {
        return;
    }
    let optional = |f: &Guess<'_>| f.says("sign.optional");
    if let Some(field) = fields[..password].iter_mut().rev().find(|f| line(f) && !optional(f)) {
        let told = matches!(field.role, Role::Captcha | Role::OneTimeCode);
        if !told {
            field.role = Role::Username;
        }
    }
}

/// `Address` alone, on a field that is named for mail: no street.
fn mail_addresses(fields: &mut [Guess<'_>]) {
    for field in fields.iter_mut().filter(|f| f.role == Role::Address) {
        let score = |role: Role| field.scores.get(&role).copied().unwrap_or(0.0);
        if score(Role::Email) > field.score * 0.4 {
            field.role = Role::Email;
        }
    }
}

/// Four or more lines of one character each, side by side, are one code.
fn one_digit_each(fields: &mut [Guess<'_>]) {
    let digit = |f: &Guess<'_>| {
        let named = f.scores.contains_key(&Role::OneTimeCode) && f.facts.kind != "password";
        f.role != Role::Honeypot && f.facts.tag == "input" && (f.facts.max == Some(1) || named)
    };
    if fields.iter().filter(|f| digit(f)).count() >= 4 {
        for field in fields.iter_mut().filter(|f| digit(f)) {
            field.role = Role::OneTimeCode;
        }
    }
}

/// Beside a card's number the security code is the card's.
fn card_codes(fields: &mut [Guess<'_>]) {
    let dictionary = Dictionary::standard();
    let card = fields.iter().any(|f| {
        f.facts.autocomplete.contains("cc-")
            || dictionary.names("sign.card", &f.facts.name)
            || dictionary.names("sign.card", &f.facts.id)
            || f.says("sign.card")
    });
    for field in fields.iter_mut().filter(|f| card && f.role == Role::OneTimeCode) {
        field.role = Role::Other;
    }
}

/// Lists of days, months and years without a name: two or more of them in a form are a date.
fn parts_of_a_date(fields: &mut [Guess<'_>]) {
    let part = |f: &Guess<'_>| {
        let numbers: Vec<u32> = f.facts.options.iter().filter_map(|option| option.trim().parse().ok()).collect();
        let years = numbers.iter().filter(|n| (1900..2100).contains(*n)).count();
        let days = (31..=32).contains(&f.facts.option_count) && numbers.len() >= 8;
        let months = (12..=13).contains(&f.facts.option_count);
        match f.facts.tag.as_str() {
            "select" if years >= 8 && f.facts.option_count >= 50 => 3,
            "select" if days => 2,
            "select" if months => 1,
            _ => 0,
        }
    };
    let found: Vec<u8> = fields.iter().map(part).collect();
    let has = |what: u8| found.contains(&what);
    // A card has a month and few years.
    if has(3) && (has(1) || has(2)) {
        for (field, part) in fields.iter_mut().zip(found) {
            // What says that it is something else is no part of it.
            if part > 0 && field.role == Role::Other && !field.scores.contains_key(&Role::Other) {
                field.role = Role::Birthdate;
            }
        }
    }
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
    for role in [Role::Author, Role::Website, Role::Username] {
        let mut same: Vec<usize> = (0..fields.len()).filter(|&i| fields[i].usable && fields[i].role == role).collect();
        same.sort_by(|&a, &b| fields[b].score.total_cmp(&fields[a].score).then(a.cmp(&b)));
        for &i in same.iter().skip(1) {
            let score = |role: Role| fields[i].scores.get(&role).copied().unwrap_or(0.0);
            let named = role == Role::Username && score(Role::Author).max(score(Role::FullName)) >= 3.0;
            let free = !fields.iter().any(|f| f.usable && f.role == Role::FullName);
            fields[i].role = if named && free { Role::FullName } else { Role::Other };
        }
    }
}

/// A field that is not rendered and asks for what another asks for in sight of all is a trap, not a later step.
fn unmask(fields: &mut [Guess<'_>]) {
    let asked: Vec<Role> = fields.iter().filter(|f| f.usable).map(|f| f.role).collect();
    // Long forms have steps and variants.
    if fields.iter().filter(|f| f.facts.kind != "checkbox").count() > 12 {
        return;
    }
    let imitated = |role: Role| {
        matches!(
            role,
            Role::Author
                | Role::Email
                | Role::Website
                | Role::Body
                | Role::Username
                | Role::FirstName
                | Role::LastName
                | Role::FullName
                | Role::Phone
                | Role::Company
        )
    };
    for field in fields.iter_mut().filter(|f| !f.seen && !declared(f.facts)) {
        if imitated(field.role) && asked.contains(&field.role) {
            field.role = Role::Honeypot;
        }
    }
}
