//! What the queue holds: tasks, their payloads and the leases on them. Pure: no I/O.
//!
//! Everything that comes from outside (a line of a file, a request body, a row somebody wrote by hand) passes through
//! [`NewTask::from_value`] or [`Payload::parse`], which say of each wrong field what is wrong and how to mend it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

mod payload;

pub use payload::{CommentPayload, Payload, RegistrationPayload, SECRET_FIELDS, TASK_TYPES};

/// Largest payload, in bytes of its JSON text. The schema has the same bound as a CHECK.
pub const MAX_PAYLOAD_BYTES: usize = 1_000_000;
/// Longest URL, in bytes. Chrome itself stops at 2 MB; nothing a person wrote is longer than this.
pub const MAX_URL_BYTES: usize = 8_192;

/// The number of a task and of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub i64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(TaskId)
    }
}

/// The id of an attempt, never used twice: it stands in the predicate of every write the attempt makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub i64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A worker's right to a task: which one, and by which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The task that is held.
    pub task_id: TaskId,
    /// The attempt that holds it.
    pub fence: Fence,
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waiting for a worker, for its `run_at` or for a retry.
    Pending,
    /// Held by a worker under a lease.
    Running,
    /// Done.
    Completed,
    /// A dead letter: out of retries, or not worth one.
    Failed,
    /// Called off by a person.
    Cancelled,
}

impl TaskStatus {
    /// All statuses, in the order of a task's life.
    pub const ALL: [TaskStatus; 5] = [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name in rows, files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TaskStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no status; use pending, running, completed, failed or cancelled"))
    }
}

/// A task as a worker receives it.
#[derive(Debug, Clone)]
pub struct Task {
    /// Number of the task and of its run.
    pub id: TaskId,
    /// Name of the automation, as enqueued: may be one that this worker does not know.
    pub task_type: String,
    /// The page to act on, as enqueued: not yet checked by this worker.
    pub url: String,
    /// Origin of `url`, for example `https://example.org`.
    pub site: String,
    /// The operator's own grouping.
    pub campaign_id: Option<i64>,
    /// What to type, unchecked: see [`Payload::parse`].
    pub payload: Value,
    /// Attempts before this one.
    pub retry_count: u32,
    /// How often a failed attempt may be repeated.
    pub max_retries: u32,
    /// Attempts that failed since the task was enqueued or last retried by hand: what `max_retries` bounds.
    pub failures: u32,
    /// Higher goes first.
    pub priority: i16,
    /// When it was enqueued (Postgres' clock).
    pub created_at: DateTime<Utc>,
    /// W3C trace context of whoever enqueued it.
    pub traceparent: Option<String>,
    /// Id of the HTTP request that enqueued it.
    pub request_id: Option<String>,
}

/// A task to enqueue, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// One of [`TASK_TYPES`].
    pub task_type: String,
    /// Absolute http or https URL.
    pub url: String,
    /// Origin of `url`.
    pub site: String,
    /// The operator's own grouping.
    pub campaign_id: Option<i64>,
    /// Payload of `task_type`, checked by [`Payload::parse`].
    pub payload: Value,
    /// None: the configuration's `retry.max_retries`.
    pub max_retries: Option<u32>,
    /// Higher goes first; 0 by default.
    pub priority: i16,
    /// Not before this time; at once by default.
    pub run_at: Option<DateTime<Utc>>,
    /// At most one live (pending or running) task has this key.
    pub dedupe_key: Option<String>,
    /// W3C trace context, stored with the task.
    pub traceparent: Option<String>,
    /// Id of the HTTP request that brought it.
    pub request_id: Option<String>,
}

/// One field of the input that can't be taken, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field, for example `payload.email`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl FieldError {
    /// An error of `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

const FIELDS: [&str; 8] =
    ["task_type", "url", "campaign_id", "payload", "max_retries", "priority", "run_at", "dedupe_key"];

impl NewTask {
    /// Reads one line of `enqueue --file`, or the body of `POST /runs`.
    ///
    /// # Errors
    /// Every field that is missing, unknown, of a wrong type or out of bounds, all at once.
    pub fn from_value(value: &Value) -> Result<NewTask, Vec<FieldError>> {
        let Value::Object(object) = value else {
            return Err(vec![FieldError::new("task", "is not a JSON object like {\"task_type\":\"comment\",…}")]);
        };
        let mut errors: Vec<FieldError> = object
            .keys()
            .filter(|key| !FIELDS.contains(&key.as_str()))
            .map(|key| payload::unknown_field(key, key, &FIELDS))
            .collect();

        let task_type = read_task_type(object.get("task_type"), &mut errors);
        let url = read_url(object.get("url"), &mut errors);
        let payload = match (object.get("payload"), task_type) {
            (None | Some(Value::Null), _) => {
                errors.push(FieldError::new("payload", "is missing; it holds what to type"));
                Value::Null
            }
            (Some(value), Some(task_type)) => match Payload::parse(task_type, value) {
                Ok(_) => value.clone(),
                Err(found) => {
                    errors.extend(found);
                    Value::Null
                }
            },
            (Some(_), None) => Value::Null,
        };
        let campaign_id = read(object.get("campaign_id"), "campaign_id", "a whole number", &mut errors);
        let max_retries: Option<u32> =
            read(object.get("max_retries"), "max_retries", "a whole number from 0 to 100", &mut errors);
        if max_retries.is_some_and(|n| n > 100) {
            errors.push(FieldError::new("max_retries", "must be a whole number from 0 to 100"));
        }
        let priority = read(object.get("priority"), "priority", "a whole number from -32768 to 32767", &mut errors);
        let run_at = read(object.get("run_at"), "run_at", "a time like \"2024-01-15T10:30:00Z\"", &mut errors);
        let dedupe_key: Option<String> = read(object.get("dedupe_key"), "dedupe_key", "a text", &mut errors);
        if dedupe_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 200 || key.contains('\0')) {
            errors.push(FieldError::new("dedupe_key", "must have 1 to 200 bytes and no NUL; leave it out if unused"));
        }

        match (errors.is_empty(), task_type, url) {
            (true, Some(task_type), Some(url)) => Ok(NewTask {
                task_type: task_type.to_owned(),
                site: url.origin().ascii_serialization(),
                url: url.into(),
                campaign_id,
                payload,
                max_retries,
                priority: priority.unwrap_or(0),
                run_at,
                dedupe_key,
                traceparent: None,
                request_id: None,
            }),
            _ => Err(errors),
        }
    }
}

fn read_task_type<'a>(value: Option<&'a Value>, errors: &mut Vec<FieldError>) -> Option<&'a str> {
    let known = TASK_TYPES.join(" or ");
    match value {
        Some(Value::String(name)) if TASK_TYPES.contains(&name.as_str()) => return Some(name),
        Some(Value::String(name)) => {
            errors.push(FieldError::new("task_type", format!("`{}` is unknown; use {known}", payload::shown(name))));
        }
        Some(Value::Null) | None => {
            errors.push(FieldError::new("task_type", format!("is missing; use {known}")));
        }
        Some(_) => errors.push(FieldError::new("task_type", format!("must be a text: {known}"))),
    }
    None
}

fn read_url(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Option<Url> {
    let problem = match value {
        Some(Value::String(text)) => match check_url(text) {
            Ok(url) => return Some(url),
            Err(problem) => problem,
        },
        Some(Value::Null) | None => "is missing; give the address of the page".to_owned(),
        Some(_) => "must be a text".to_owned(),
    };
    errors.push(FieldError::new("url", problem));
    None
}

/// Parses the address of a page to act on.
///
/// # Errors
/// What is wrong with it and how to mend it: not a URL, another scheme than http or https, user info, too long.
pub fn check_url(text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!("has {} bytes; at most {MAX_URL_BYTES} are taken", text.len()));
    }
    let url = Url::parse(text).map_err(|error| {
        format!("`{}` is no URL ({error}); write it like https://example.org/page", payload::shown(text))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "has the scheme `{}`; only http and https pages are acted on",
            payload::shown(url.scheme())
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host; write it like https://example.org/page".to_owned());
    }
    if url.host_str().is_some_and(|host| host.contains('*')) {
        return Err(
            "names no one host: `*` stands for many where a site is enrolled, and for none in an address".to_owned()
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("carries a user name or password; take it out of the address".to_owned());
    }
    Ok(url)
}

fn read<T: serde::de::DeserializeOwned>(
    value: Option<&Value>,
    field: &str,
    expected: &str,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    let value = value.filter(|value| !value.is_null())?;
    match T::deserialize(value) {
        Ok(parsed) => Some(parsed),
        Err(_) => {
            errors.push(FieldError::new(field, format!("must be {expected}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn comment() -> Value {
        json!({"task_type": "comment", "url": "https://Example.org:443/post?a=1",
               "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}})
    }

    fn fields(value: &Value) -> Vec<String> {
        NewTask::from_value(value).unwrap_err().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn a_good_line_is_taken_and_its_site_is_the_origin() {
        let task = NewTask::from_value(&comment()).unwrap();
        assert_eq!(task.site, "https://example.org");
        assert_eq!(task.priority, 0);
        assert_eq!(task.max_retries, None);
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let mut line = comment();
        line["url"] = json!("file:///etc/passwd");
        line["priority"] = json!("high");
        line["pririty"] = json!(1);
        line["payload"]["emial"] = json!("x");
        line["payload"].as_object_mut().unwrap().remove("body");
        let mut found = fields(&line);
        found.sort();
        assert_eq!(found, ["payload.body", "payload.emial", "priority", "pririty", "url"]);
    }

    #[test]
    fn a_date_of_birth_is_a_date_of_the_past_and_a_phone_number_has_digits() {
        let line = |phone: &str, birthdate: &str| {
            json!({"task_type": "registration", "url": "https://example.org/", "payload": {"username": "ann",
                "email": "ann@example.org", "password": "s3cret!", "phone": phone, "birthdate": birthdate}})
        };
        for (phone, birthdate) in [("+49 (30) 123-456", "1990-05-17"), ("0301234", "2000-02-29"), ("", "")] {
            NewTask::from_value(&line(phone, birthdate)).unwrap();
        }
        for birthdate in ["17.05.1990", "1990-5-7", "1990-02-30", "2999-01-01", "1899-12-31", "1990-05-17T00:00"] {
            assert_eq!(fields(&line("0301234", birthdate)), ["payload.birthdate"], "{birthdate}");
        }
        for phone in ["call me", "12", "+49\n30", "030-12345;ext=5"] {
            assert_eq!(fields(&line(phone, "1990-05-17")), ["payload.phone"], "{phone}");
        }
    }

    #[test]
    fn a_misspelt_field_is_answered_with_the_right_name() {
        let mut line = comment();
        line["dedupekey"] = json!("x");
        let errors = NewTask::from_value(&line).unwrap_err();
        assert!(errors[0].problem.contains("`dedupe_key`"), "{errors:?}");
    }

    #[test]
    fn only_http_and_https_addresses_without_user_info_are_taken() {
        for bad in [
            "FILE:///etc/passwd",
            "javascript:alert(1)",
            "data:text/html,x",
            "view-source:http://a/",
            "chrome://version",
            "//example.org",
            "example.org",
            "http://",
            "http://user:pw@example.org/",
            "https://*.example.org/",
            "",
        ] {
            let mut line = comment();
            line["url"] = json!(bad);
            assert_eq!(fields(&line), ["url"], "{bad}");
        }
    }

    #[test]
    fn an_unknown_task_type_names_the_known_ones() {
        let mut line = comment();
        line["task_type"] = json!("coment");
        let errors = NewTask::from_value(&line).unwrap_err();
        assert_eq!(errors[0].field, "task_type");
        assert!(errors[0].problem.contains("comment or registration"), "{errors:?}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let _ = NewTask::from_value(&value);
            }
            let _ = check_url(&text);
        }
    }
}
