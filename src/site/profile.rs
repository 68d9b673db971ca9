//! What an operator pins for one site, in a TOML file: selectors, fields with constant values, steps to take first,
//! texts of success and failure, the site's mailbox, and the way through that the site gives its testers.
//!
//! Everything is checked when the file is read: unknown keys, selectors that are none, roles nobody knows, secrets that
//! are written out. `config/site-profile.toml` shows every key.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::selector::check_selector;
use crate::config::{Mailbox, SecretRef};

/// The most characters of a file.
pub const MAX_PROFILE_BYTES: usize = 256 << 10;

/// The roles that a field may be pinned to.
pub const ROLES: [&str; 21] = [
    "author",
    "email",
    "email_confirm",
    "website",
    "body",
    "username",
    "password",
    "password_confirm",
    "first_name",
    "last_name",
    "full_name",
    "phone",
    "birthdate",
    "company",
    "address",
    "country",
    "postal_code",
    "consent",
    "newsletter_opt_in",
    "honeypot",
    "one_time_code",
];

/// What is pinned for a site. Empty: everything is found out from the page.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteProfile {
    /// For comments.
    pub comment: FormProfile,
    /// For sign-ups.
    pub registration: FormProfile,
    /// The mailbox of this site's sign-ups, in place of the configuration's.
    pub mailbox: Mailbox,
    /// The way through for testers.
    pub tester: Tester,
}

/// What is pinned for one kind of form.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FormProfile {
    /// What to do before the form is looked for, in order.
    pub steps: Vec<Step>,
    /// Selector of the form.
    pub form: Option<String>,
    /// Selector of the button that sends it.
    pub submit: Option<String>,
    /// Selectors of fields, by role.
    pub fields: BTreeMap<String, String>,
    /// Fields of the form that always get the same value.
    pub extra: Vec<Extra>,
    /// Texts that say the site took it.
    pub success: Vec<String>,
    /// Texts that say it waits: for a moderator (a comment), for a mailed confirmation (a sign-up).
    pub waiting: Vec<String>,
    /// Texts that say the site refused it.
    pub failure: Vec<String>,
}

/// One thing to do before the form is looked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Opens an address of the same site: absolute, or from its root.
    Open(String),
    /// Presses the element of this selector.
    Click(String),
    /// Waits until there is an element of this selector.
    WaitFor(String),
}

/// A field that always gets the same value.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extra {
    /// Its selector.
    pub selector: String,
    /// What is typed or chosen.
    pub value: Option<String>,
    /// The same, where it is a secret: a key for testers, an invitation.
    pub secret: Option<SecretRef>,
    /// Whether the box is ticked.
    pub checked: Option<bool>,
}

/// The way through that a site gives its testers. Sent to the site's origin only, and kept out of every record.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tester {
    /// Headers by name, on every request to the site's origin.
    pub headers: BTreeMap<String, SecretRef>,
    /// Cookies by name, set for the site's host.
    pub cookies: BTreeMap<String, SecretRef>,
    /// Whether the site's CAPTCHA lets testers through: then its presence stops nothing, and it is not touched.
    pub captcha_passes: bool,
    /// Requests to the origin are signed with it (RFC 9421, hmac-sha256), so that the site knows its own checks.
    pub signing_key: Option<SecretRef>,
    /// By what the site knows the key; `pagehand` where nothing is said.
    pub signing_key_id: Option<String>,
}

/// Why a profile can't be used: one line a problem, each naming its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ProfileError(pub Vec<String>);

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl SiteProfile {
    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// Every problem that can be told at once, with its key and what may stand there. Never repeats a value that may be
    /// a secret.
    pub fn parse(text: &str) -> Result<SiteProfile, ProfileError> {
        if text.len() > MAX_PROFILE_BYTES {
            let problem = format!("has {} bytes; at most {MAX_PROFILE_BYTES} are taken", text.len());
            return Err(ProfileError(vec![problem]));
        }
        let profile: SiteProfile = toml::from_str(text).map_err(|error| ProfileError(vec![located(text, &error)]))?;
        let mut problems = Vec::new();
        for (name, form) in [("comment", &profile.comment), ("registration", &profile.registration)] {
            form.check(name, &mut problems);
        }
        if let Err((key, problem)) = profile.mailbox.check() {
            problems.push(format!("mailbox.{key}: {problem}"));
        }
        profile.tester.check(&mut problems);
        if problems.is_empty() { Ok(profile) } else { Err(ProfileError(problems)) }
    }

    /// What is pinned for tasks of this type; nothing for a type that has no forms of its own.
    pub fn form(&self, task_type: &str) -> Option<&FormProfile> {
        match task_type {
            "comment" => Some(&self.comment),
            "registration" => Some(&self.registration),
            _ => None,
        }
    }

    /// Every secret that the profile refers to, but the mailbox's.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        let extra = [&self.comment, &self.registration].into_iter().flat_map(|form| &form.extra);
        let tester = self.tester.headers.values().chain(self.tester.cookies.values()).chain(&self.tester.signing_key);
        extra.filter_map(|extra| extra.secret.as_ref()).chain(tester).collect()
    }
}

impl FormProfile {
    /// Whether an element of the page is pinned.
    pub fn pins(&self) -> bool {
        self.form.is_some() || self.submit.is_some() || !self.fields.is_empty()
    }

    fn check(&self, name: &str, problems: &mut Vec<String>) {
        let mut selector = |key: String, css: &str| {
            if let Err(problem) = check_selector(css) {
                problems.push(format!("{name}.{key}: `{css}` is no CSS selector: {problem}"));
            }
        };
        for (key, css) in [("form", &self.form), ("submit", &self.submit)] {
            if let Some(css) = css {
                selector(key.to_owned(), css);
            }
        }
        for (role, css) in &self.fields {
            selector(format!("fields.{role}"), css);
        }
        for (i, extra) in self.extra.iter().enumerate() {
            selector(format!("extra[{i}].selector"), &extra.selector);
        }
        for (i, step) in self.steps.iter().enumerate() {
            if let Step::Click(css) | Step::WaitFor(css) = step {
                selector(format!("steps[{i}]"), css);
            }
        }
        for role in self.fields.keys().filter(|role| !ROLES.contains(&role.as_str())) {
            let known = ROLES.join(", ");
            problems.push(format!("{name}.fields.{role}: there is no such role; known are {known}"));
        }
        for (i, extra) in self.extra.iter().enumerate() {
            let given = [extra.value.is_some(), extra.secret.is_some(), extra.checked.is_some()];
            if given.iter().filter(|given| **given).count() != 1 {
                problems.push(format!("{name}.extra[{i}]: give exactly one of value, secret and checked"));
            }
        }
        for (i, step) in self.steps.iter().enumerate() {
            if let Step::Open(address) = step
                && !(address.starts_with('/') || address.starts_with("http://") || address.starts_with("https://"))
            {
                problems.push(format!("{name}.steps[{i}]: `{address}` is no address; write /path or https://…"));
            }
        }
        for (key, texts) in [("success", &self.success), ("waiting", &self.waiting), ("failure", &self.failure)] {
            if texts.iter().any(|text| !text.chars().any(char::is_alphanumeric)) {
                problems.push(format!("{name}.{key}: a text without a letter or digit says nothing; take it out"));
            }
        }
    }
}

impl Tester {
    /// Whether requests are changed for it.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.cookies.is_empty() && self.signing_key.is_none()
    }

    fn check(&self, problems: &mut Vec<String>) {
        let plain = |id: &String| id.chars().all(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'));
        if self.signing_key_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > 100 || !plain(id)) {
            problems
                .push("tester.signing_key_id: must have 1 to 100 printable ASCII characters and no quotes".to_owned());
        }
        if self.signing_key_id.is_some() && self.signing_key.is_none() {
            problems.push(
                "tester.signing_key: is missing; it refers to the key that tester.signing_key_id names".to_owned(),
            );
        }
        let token = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        const TAKEN: [&str; 9] = [
            "cookie",
            "host",
            "content-length",
            "connection",
            "transfer-encoding",
            "user-agent",
            "content-type",
            "origin",
            "referer",
        ];
        for name in self.headers.keys() {
            if !token(name) {
                problems.push(format!("tester.headers.{name}: is no name of a header"));
            } else if TAKEN.contains(&name.to_ascii_lowercase().as_str()) {
                problems.push(format!(
                    "tester.headers.{name}: this header is the browser's own; use another, or tester.cookies"
                ));
            }
        }
        for name in self.cookies.keys().filter(|name| !token(name)) {
            problems.push(format!("tester.cookies.{name}: is no name of a cookie"));
        }
    }
}

/// The message with its line. Not the line itself, which may hold a secret that should not be there.
fn located(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    line.map_or_else(|| error.message().to_owned(), |line| format!("line {line}: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        SiteProfile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_example_is_taken() {
        let profile = SiteProfile::parse(include_str!("../../config/site-profile.toml")).unwrap();
        assert!(profile.registration.fields.contains_key("email"));
        assert_eq!(profile.registration.steps.len(), 3);
        assert!(!profile.tester.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key() {
        assert!(problems("[registration]\nfrom = \"#f\"").contains("`from`"));
        assert!(problems("[registration]\nform = \"#f[\"").contains("registration.form: `#f[`"));
        assert!(problems("[comment.fields]\nmail = \"#m\"").contains("comment.fields.mail"));
        assert!(problems("[comment.fields]\nemail = \"input[\"").contains("comment.fields.email"));
        assert!(problems("[[comment.extra]]\nselector = \"#a\"").contains("comment.extra[0]"));
        assert!(problems("[comment]\nsteps = [{ click = \"##\" }]").contains("comment.steps[0]"));
        assert!(problems("[comment]\nsteps = [{ open = \"ftp://x\" }]").contains("comment.steps[0]"));
        assert!(problems("[mailbox]\nhost = \"h\"").contains("mailbox.user"));
        assert!(problems("[tester.headers]\nCookie = \"env:X\"").contains("tester.headers.Cookie"));
        assert!(problems("[comment]\nsuccess = [\"…\"]").contains("comment.success"));
    }

    #[test]
    fn several_problems_are_told_at_once_and_no_secret_is_repeated() {
        assert_eq!(problems("[comment]\nform = \"[\"\nsubmit = \"]\"").lines().count(), 2);
        let secret = problems("[tester.headers]\nX-Key = \"hunter2\"");
        assert!(secret.contains("env:NAME") && secret.contains("line 2") && !secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn a_selector_may_step_into_a_shadow_root() {
        assert!(SiteProfile::parse("[comment]\nform = \"my-app >>> form\"").is_ok());
        assert!(problems("[comment]\nform = \"my-app >>> \"").contains("comment.form"));
    }
}
