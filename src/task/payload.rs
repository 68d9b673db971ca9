//! What each task type needs to be told.

use chrono::{Datelike, NaiveDate, Utc};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{FieldError, MAX_PAYLOAD_BYTES};

/// The task types of this version, by the names that `enqueue` takes.
pub const TASK_TYPES: [&str; 2] = ["comment", "registration"];

/// Fields of payloads that are secret, whatever the task type.
pub const SECRET_FIELDS: [&str; 1] = ["password"];

/// The checked payload of a task.
#[derive(Debug, Clone)]
pub enum Payload {
    /// `task_type` comment.
    Comment(CommentPayload),
    /// `task_type` registration.
    Registration(RegistrationPayload),
}

/// What a comment says, and who says it.
#[derive(Debug, Clone)]
pub struct CommentPayload {
    /// Name to sign with.
    pub author: String,
    /// Address to leave.
    pub email: String,
    /// Address of a web page to leave, http or https.
    pub website: Option<String>,
    /// The text, any Unicode but NUL, several lines allowed.
    pub body: String,
}

/// The account to create.
#[derive(Debug, Clone)]
pub struct RegistrationPayload {
    /// Name to log in with.
    pub username: String,
    /// Address of the account.
    pub email: String,
    /// Password of the account.
    pub password: SecretString,
    /// Given name, where the site asks for one.
    pub first_name: Option<String>,
    /// Family name, where the site asks for one.
    pub last_name: Option<String>,
    /// Telephone number, as the site wants it.
    pub phone: Option<String>,
    /// Date of birth; written into one field or three, as the site asks for it.
    pub birthdate: Option<NaiveDate>,
    /// Country, by the name or code in the site's own list.
    pub country: Option<String>,
}

impl Payload {
    /// Checks the payload of a task of type `task_type`.
    ///
    /// # Errors
    /// Every field that is missing, unknown, of a wrong type, empty or too long, as `payload.NAME`.
    pub fn parse(task_type: &str, value: &Value) -> Result<Payload, Vec<FieldError>> {
        let Value::Object(object) = value else {
            return Err(vec![FieldError::new("payload", "must be a JSON object")]);
        };
        let size = value.to_string().len();
        if size > MAX_PAYLOAD_BYTES {
            let problem = format!("has {size} bytes; at most {MAX_PAYLOAD_BYTES} are taken");
            return Err(vec![FieldError::new("payload", problem)]);
        }
        let mut reader = Reader { object, known: Vec::new(), errors: Vec::new() };
        let payload = match task_type {
            "comment" => Payload::Comment(CommentPayload {
                author: reader.required("author", 245),
                email: reader.email(),
                website: reader.website(),
                body: reader.text("body", 65_525),
            }),
            "registration" => Payload::Registration(RegistrationPayload {
                username: reader.required("username", 60),
                email: reader.email(),
                password: reader.required("password", 256).into(),
                first_name: reader.optional("first_name", 200),
                last_name: reader.optional("last_name", 200),
                phone: reader.phone(),
                birthdate: reader.birthdate(),
                country: reader.optional("country", 100),
            }),
            other => {
                let problem = format!("`{}` is unknown; use {}", shown(other), TASK_TYPES.join(" or "));
                return Err(vec![FieldError::new("task_type", problem)]);
            }
        };
        reader.finish(payload)
    }
}

/// Takes fields out of a payload and keeps what was wrong with them.
struct Reader<'a> {
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    fn optional(&mut self, name: &'static str, max_chars: usize) -> Option<String> {
        self.known.push(name);
        let problem = match self.object.get(name) {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) if text.contains('\0') => "holds a NUL character; take it out".to_owned(),
            Some(Value::String(text)) if text.chars().count() > max_chars => {
                format!("has {} characters; at most {max_chars} are taken", text.chars().count())
            }
            Some(Value::String(text)) => return Some(text.clone()),
            Some(_) => "must be a text".to_owned(),
        };
        self.fail(name, problem);
        None
    }

    /// A text that must be there and not be blank; line breaks allowed.
    fn text(&mut self, name: &'static str, max_chars: usize) -> String {
        let failed_before = self.errors.len();
        let text = self.optional(name, max_chars).unwrap_or_default();
        if text.trim().is_empty() && self.errors.len() == failed_before {
            let problem = if self.object.contains_key(name) { "is empty" } else { "is missing" };
            self.fail(name, problem.to_owned());
        }
        text
    }

    /// As `text`, on one line.
    fn required(&mut self, name: &'static str, max_chars: usize) -> String {
        let text = self.text(name, max_chars);
        if text.chars().any(char::is_control) {
            self.fail(name, "holds a line break or control character; take it out".to_owned());
        }
        text
    }

    fn email(&mut self) -> String {
        let failed_before = self.errors.len();
        let email = self.required("email", 254);
        let plausible = email
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
            && !email.contains(char::is_whitespace);
        if !plausible && self.errors.len() == failed_before {
            self.fail("email", format!("`{}` is no address like ann@example.org", shown(&email)));
        }
        email
    }

    fn phone(&mut self) -> Option<String> {
        let phone = self.optional("phone", 40).filter(|phone| !phone.is_empty())?;
        let digits = phone.chars().filter(char::is_ascii_digit).count();
        let plain = |c: char| c.is_ascii_digit() || " +-().".contains(c);
        if !phone.chars().all(plain) || digits < 4 {
            self.fail("phone", format!("`{}` is no number like +49 30 123456", shown(&phone)));
        }
        Some(phone)
    }

    fn birthdate(&mut self) -> Option<NaiveDate> {
        let text = self.optional("birthdate", 40).filter(|text| !text.is_empty())?;
        let parsed = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().filter(|_| text.len() == 10);
        let problem = match parsed {
            None => format!("`{}` is no date like 1990-05-17", shown(&text)),
            Some(date) if date.year() < 1900 => format!("{date} is before 1900"),
            Some(date) if date > Utc::now().date_naive() => format!("{date} is yet to come"),
            Some(date) => return Some(date),
        };
        self.fail("birthdate", problem);
        None
    }

    fn website(&mut self) -> Option<String> {
        let website = self.optional("website", 200)?;
        if website.is_empty() {
            return None;
        }
        if let Err(problem) = super::check_url(&website) {
            self.fail("website", problem);
        }
        Some(website)
    }

    fn fail(&mut self, name: &str, problem: String) {
        self.errors.push(FieldError::new(format!("payload.{name}"), problem));
    }

    fn finish(mut self, payload: Payload) -> Result<Payload, Vec<FieldError>> {
        for key in self.object.keys().filter(|key| !self.known.contains(&key.as_str())) {
            self.errors.push(unknown_field(&format!("payload.{}", shown(key)), key, &self.known));
        }
        if self.errors.is_empty() { Ok(payload) } else { Err(self.errors) }
    }
}

/// An error for a field that nobody knows, with the known name it resembles, else all known names.
pub(super) fn unknown_field(path: &str, name: &str, known: &[&str]) -> FieldError {
    let distance = |candidate: &str| if name.len() > 40 { usize::MAX } else { strsim::levenshtein(name, candidate) };
    let problem = match known.iter().min_by_key(|candidate| distance(candidate)) {
        Some(candidate) if distance(candidate) <= 2 => format!("is unknown; did you mean `{candidate}`?"),
        _ => format!("is unknown; known are {}", known.join(", ")),
    };
    FieldError::new(shown(path), problem)
}

/// A text from outside, short enough and plain enough for an error message.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}
