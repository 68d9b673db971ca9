//! What a request says: parameters of the address and fields of the body. Every mistake is named, all at once; what nobody
//! knows is a mistake too, so that a misspelt filter never means "everything".

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use chrono::Utc;
use http::request::Parts;
use http::{StatusCode, header};
use serde_json::Value;

use super::problem::Problem;
use crate::queue::{RunFilter, Without, time_from, time_to};
use crate::record::rfc3339;
use crate::task::{FieldError, TaskId};

/// Longest text to look for, and longest other parameter, in characters.
const MAX_TEXT: usize = 300;
/// Numbers of runs: the one field that may be given more than once.
const IDS: &str = "ids";
/// Names of the filters, in the order in which links write them.
pub const FILTERS: [&str; 18] = [
    "status",
    "failure_reason",
    "failure_code",
    "task_type",
    "site",
    "since",
    "until",
    "q",
    "min_retries",
    "failed_step",
    "step",
    "stuck_at",
    "only",
    "not_status",
    "not_failure_reason",
    "not_failure_code",
    "not_task_type",
    "not_site",
];

/// Parameters of the address.
#[derive(Debug, Clone, Default)]
pub struct Query(pub Fields);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Query(Fields::of(url::form_urlencoded::parse(query.as_bytes()).into_owned())))
    }
}

/// The body of a request.
#[derive(Debug)]
pub enum Input {
    /// None.
    Empty,
    /// `application/json`.
    Json(Value),
    /// `application/x-www-form-urlencoded`: from a page of ours.
    Form(Fields),
}

impl<S: Send + Sync> FromRequest<S> for Input {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Input, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is larger than this address takes")
            } else {
                Problem::new(StatusCode::BAD_REQUEST, "incomplete-body", "the body could not be read to its end")
            }
        })?;
        match kind.as_str() {
            _ if body.is_empty() => Ok(Input::Empty),
            "application/x-www-form-urlencoded" => {
                Ok(Input::Form(Fields::of(url::form_urlencoded::parse(&body).into_owned())))
            }
            kind if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) => {
                serde_json::from_slice(&body).map(Input::Json).map_err(|error| {
                    Problem::new(StatusCode::BAD_REQUEST, "invalid-json", format!("the body is not JSON: {error}"))
                })
            }
            _ => Err(Problem::not_json()),
        }
    }
}

impl Input {
    /// The members of a JSON object, or the fields of a form; none if there is no body.
    pub fn into_fields(self) -> Result<Fields, Problem> {
        match self {
            Input::Empty => Ok(Fields::default()),
            Input::Form(fields) => Ok(fields),
            Input::Json(Value::Object(members)) => {
                let mut fields = Fields::default();
                for (name, value) in members {
                    let empty = value.as_array().is_some_and(Vec::is_empty);
                    match scalar(&value) {
                        // Said as nothing it would mean everything.
                        Ok(_) if empty && name != IDS && !name.starts_with("not_") => {
                            fields.errors.push(FieldError::new(shown(&name), "is an empty list; leave it out"));
                        }
                        Ok(text) => fields.add(name, text),
                        Err(problem) => fields.errors.push(FieldError::new(shown(&name), problem)),
                    }
                }
                Ok(fields)
            }
            Input::Json(_) => Err(Problem::fields(vec![FieldError::new("body", "must be a JSON object")])),
        }
    }
}

/// A value as a form would have it; a list of numbers with commas.
fn scalar(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(scalar).collect();
            Ok(items?.join(","))
        }
        Value::Object(_) => Err("must not be an object"),
    }
}

/// Named texts, taken out one by one; what is left over is unknown.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    values: BTreeMap<String, String>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Fields {
    fn of(pairs: impl Iterator<Item = (String, String)>) -> Fields {
        let mut fields = Fields::default();
        pairs.for_each(|(name, value)| fields.add(name, value));
        fields
    }

    fn add(&mut self, name: String, value: String) {
        if name == IDS {
            // A form has a box for each run. None at all is not the same as nothing said, which means all.
            let ids = self.values.entry(name).or_default();
            *ids = if ids.is_empty() { value } else { format!("{ids},{value}") };
            return;
        }
        // A form sends its empty fields too: they say nothing.
        if !value.is_empty() && self.values.insert(name.clone(), value).is_some() {
            self.errors.push(FieldError::new(shown(&name), "is given twice; give it once"));
        }
    }

    /// These and those of `other`.
    #[must_use]
    pub fn and(mut self, other: Fields) -> Fields {
        self.errors.extend(other.errors);
        other.values.into_iter().for_each(|(name, value)| self.add(name, value));
        self
    }

    /// The text of a field, if it is given.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let value = self.values.remove(name)?;
        if value.chars().count() > MAX_TEXT || value.contains('\0') {
            self.fail(name, format!("must have at most {MAX_TEXT} characters and no NUL"));
            return None;
        }
        Some(value)
    }

    /// The value of a field, if it is given and can be read.
    pub fn read<T, E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        read(&text).map_err(|problem| self.fail(name, problem.to_string())).ok()
    }

    /// Whether a box is ticked: `true`, `on`, `yes` or `1`.
    pub fn flag(&mut self, name: &'static str) -> bool {
        let read = |text: &str| match text {
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err("must be true or false"),
        };
        self.read(name, read).unwrap_or(false)
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &'static str, bounds: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let problem = format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
        self.read(name, |text| text.parse().ok().filter(|number| bounds.contains(number)).ok_or(problem))
    }

    /// Numbers of runs, with commas between them; None if the field is not given.
    pub fn ids(&mut self, name: &'static str, most: usize) -> Option<Vec<TaskId>> {
        self.known.push(name);
        let text = self.values.remove(name)?;
        let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
        let ids: Result<Vec<TaskId>, _> = ids.map(TaskId::from_str).collect();
        match ids {
            Ok(ids) if ids.len() <= most => Some(ids),
            Ok(_) => {
                self.fail(name, format!("are more than {most}; send them in parts, or use a filter"));
                None
            }
            Err(_) => {
                self.fail(name, "must be numbers of runs, for example [1,2,3]".to_owned());
                None
            }
        }
    }

    /// Up to ten values with commas between them.
    fn list<T, E: std::fmt::Display>(&mut self, name: &'static str, read: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
        let values = self.read(name, |text| {
            let values = text.split(',').map(str::trim).filter(|value| !value.is_empty());
            let values: Vec<T> =
                values.map(|value| read(value).map_err(|error| error.to_string())).collect::<Result<_, _>>()?;
            if values.len() <= 10 { Ok(values) } else { Err("must be ten values at most".to_owned()) }
        });
        values.unwrap_or_default()
    }

    /// The filter of `GET /runs`.
    pub fn filter(&mut self) -> RunFilter {
        let now = Utc::now();
        let filter = RunFilter {
            status: self.read("status", str::parse),
            failure_reason: self.read("failure_reason", str::parse),
            failure_code: self.text("failure_code"),
            task_type: self.text("task_type"),
            site: self
                .read("site", |text| text.parse::<crate::site::Origin>().map(|origin| origin.as_str().to_owned())),
            since: self.read("since", |text| time_from(text, now)),
            until: self.read("until", |text| time_to(text, now)),
            q: self.text("q"),
            min_retries: self.number("min_retries", 0..=1_000_000),
            failed_step: self.text("failed_step"),
            step: self.text("step"),
            stuck_at: self.text("stuck_at"),
            only: self.read("only", str::parse),
            without: Without {
                status: self.list("not_status", str::parse),
                failure_reason: self.list("not_failure_reason", str::parse),
                failure_code: self.list("not_failure_code", |text| Ok::<_, String>(text.to_owned())),
                task_type: self.list("not_task_type", |text| Ok::<_, String>(text.to_owned())),
                site: self.list("not_site", |text| {
                    text.parse::<crate::site::Origin>().map(|origin| origin.as_str().to_owned())
                }),
            },
        };
        if let (Some(since), Some(until)) = (filter.since, filter.until)
            && since >= until
        {
            self.fail("until", "must be later than `since`".to_owned());
        }
        filter
    }

    fn fail(&mut self, name: &str, problem: String) {
        self.errors.push(FieldError::new(name, problem));
    }

    /// Every mistake, the fields that nobody asked for included.
    pub fn finish(mut self) -> Result<(), Vec<FieldError>> {
        let known = if self.known.is_empty() { "none is".to_owned() } else { self.known.join(", ") };
        for name in self.values.into_keys() {
            self.errors.push(FieldError::new(shown(&name), format!("is unknown; known are {known}")));
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }
}

/// The filter as parameters of an address, without the leading `?`.
pub fn as_query(filter: &RunFilter) -> String {
    let values = [
        filter.status.map(|status| status.to_string()),
        filter.failure_reason.map(|reason| reason.to_string()),
        filter.failure_code.clone(),
        filter.task_type.clone(),
        filter.site.clone(),
        filter.since.map(rfc3339),
        filter.until.map(rfc3339),
        filter.q.clone(),
        filter.min_retries.map(|least| least.to_string()),
        filter.failed_step.clone(),
        filter.step.clone(),
        filter.stuck_at.clone(),
        filter.only.map(|only| only.as_str().to_owned()),
        joined(&filter.without.status),
        joined(&filter.without.failure_reason),
        joined(&filter.without.failure_code),
        joined(&filter.without.task_type),
        joined(&filter.without.site),
    ];
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in FILTERS.iter().zip(values) {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    query.finish()
}

fn joined<T: ToString>(values: &[T]) -> Option<String> {
    (!values.is_empty()).then(|| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
}

/// A text from outside, short and plain enough for a message.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(query: &str) -> Fields {
        Fields::of(url::form_urlencoded::parse(query.as_bytes()).into_owned())
    }

    #[test]
    fn a_filter_survives_being_written_into_an_address() {
        let query = "status=failed&failure_reason=timeout&failure_code=nav.timeout&task_type=comment\
                     &site=https%3A%2F%2Fexample.org&min_retries=2&failed_step=find_form&step=open_page&stuck_at=none&only=wasted&not_status=failed,pending&not_failure_reason=timeout\
                     &not_failure_code=a.b,c.d&not_site=https%3A%2F%2Fother.example&since=2024-01-15&until=2024-02-01T00%3A00%3A00Z&q=a%26b%25+c";
        let mut first = fields(query);
        let filter = first.filter();
        assert_eq!(first.finish(), Ok(()));
        let mut again = fields(&as_query(&filter));
        assert_eq!(again.filter(), filter);
        assert_eq!(again.finish(), Ok(()));
    }

    #[test]
    fn every_wrong_parameter_is_named_at_once() {
        let mut fields = fields("status=broken&since=yesterday&limit=1000000000&site=nowhere&stauts=failed&q=a&q=b");
        fields.filter();
        fields.number("limit", 1..=200);
        let mut named: Vec<String> = fields.finish().unwrap_err().into_iter().map(|error| error.field).collect();
        named.sort();
        assert_eq!(named, ["limit", "q", "since", "site", "status", "stauts"]);
    }

    #[test]
    fn boxes_that_are_ticked_name_the_runs() {
        let mut fields = fields("ids=3&ids=5&ids=8");
        let ids: Vec<i64> = fields.ids("ids", 3).unwrap().iter().map(|id| id.0).collect();
        assert_eq!((ids, fields.finish()), (vec![3, 5, 8], Ok(())));
    }

    #[test]
    fn no_box_that_is_ticked_names_no_run_which_is_not_all_of_them() {
        assert_eq!(fields("ids=").ids("ids", 3), Some(Vec::new()));
        assert_eq!(fields("ids=&ids=7").ids("ids", 3), Some(vec![TaskId(7)]));
        assert_eq!(fields("").ids("ids", 3), None);
    }

    #[test]
    fn from_a_day_until_the_same_day_is_that_whole_day() {
        let mut day = fields("since=2024-01-15&until=2024-01-15");
        let filter = day.filter();
        assert_eq!(day.finish(), Ok(()));
        assert_eq!(as_query(&filter), "since=2024-01-15T00%3A00%3A00.000Z&until=2024-01-16T00%3A00%3A00.000Z");
    }

    proptest::proptest! {
        #[test]
        fn no_query_makes_the_reader_panic(query in ".{0,300}") {
            let mut fields = fields(&query);
            fields.filter();
            let _ = fields.finish();
        }
    }
}
