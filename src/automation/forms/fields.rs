//! What a field wants: evidence of every source, weighed, and then the company it is in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::description::FieldFacts;
use super::dictionary::{Dictionary, Words};
use super::kinds::{FormKind, Weights};

mod settle;
mod weigh;

pub(super) use settle::{compare, settle};
use weigh::weigh;

/// What a field wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The name a comment is signed with, or that others see beside the one to log in with.
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
            ("select" | "listbox", _) => matches!(self, R::Country | R::Birthdate | R::Address | R::Other),
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
        if role == Role::Consent && !facts.required && only_named(facts) {
            role = Role::Other;
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

/// Whether nothing but the attributes of a box calls it one to agree to terms, though a sentence stands beside it: what may be
/// kept of the guest in a cookie, for example.
fn only_named(facts: &FieldFacts) -> bool {
    let dictionary = Dictionary::standard();
    let bound = |via: &str| matches!(via, "for" | "wrap" | "labelledby" | "after");
    let labels = facts.labels.iter().filter(|label| bound(&label.via)).map(|label| &label.text);
    let texts: Vec<Words> = labels.chain([&facts.aria, &facts.title]).map(|text| Words::of_text(text)).collect();
    let sentence = texts.iter().any(|words| words.count() >= 3);
    sentence && texts.iter().all(|words| dictionary.in_text("role.consent", words) == 0)
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
    let purpose = facts.is_list() || declared(facts);
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
    // The line of a list that is searched by typing.
    let dictionary = Dictionary::standard();
    let searches = |name: &String| dictionary.in_name("kind.search", &Words::of_identifier(name)).0 >= 5;
    if [&guess.facts.name, &guess.facts.id].into_iter().any(searches) {
        return false;
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
    !facts.is_list()
        && facts.hidden.iter().any(|why| match why.as_str() {
            "aria_hidden" | "tabindex" => true,
            "off_screen" | "clipped" | "transparent" | "tiny" => !box_to_tick,
            _ => false,
        })
}
