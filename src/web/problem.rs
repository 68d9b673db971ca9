//! What is answered when something can't be done: `application/problem+json` (RFC 9457), or a page saying the same.
//!
//! Nothing of the inside goes out: an unforeseen error is logged with its causes under the request's id, and the answer has
//! the id only.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::queue::QueueError;
use crate::task::FieldError;

/// A problem to answer.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    /// What kind of problem, for programs: the end of `type`.
    pub kind: &'static str,
    /// For a person: what is wrong, and how to mend it.
    pub detail: String,
    pub errors: Vec<FieldError>,
    /// In the terms of the queue's failures, where there is one.
    pub code: Option<&'static str>,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u64>,
}

/// Its shape in an answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// What kind of problem: `urn:pagehand:problem:KIND`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and how to mend it.
    pub detail: String,
    /// Which fields or parameters can't be taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// For example `policy.not_enrolled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The same as in the header `X-Request-Id` and in the log.
    pub request_id: String,
}

/// A field or parameter that can't be taken.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldProblem {
    /// Its path, for example `payload.email`.
    pub field: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, kind, detail: detail.into(), errors: Vec::new(), code: None, retry_after: None }
    }

    /// Parameters of the address that can't be taken.
    pub fn parameters(errors: Vec<FieldError>) -> Problem {
        let detail = format!("the query can't be taken: {}", listed(&errors));
        Problem { errors, ..Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail) }
    }

    /// Fields of the body that can't be taken.
    pub fn fields(errors: Vec<FieldError>) -> Problem {
        let detail = format!("the body can't be taken: {}", listed(&errors));
        Problem { errors, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", detail) }
    }

    /// A body of another kind than JSON.
    pub fn not_json() -> Problem {
        let detail = "send the body as JSON, with the header `content-type: application/json`";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
    }

    pub fn not_found(what: impl std::fmt::Display) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", format!("there is no {what}"))
    }

    pub fn conflict(kind: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, kind, detail)
    }

    /// Something that should not happen. The cause is in the log only.
    pub fn internal() -> Problem {
        let detail = "something went wrong here; the log has the cause under this request's id";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub fn unavailable(detail: &str) -> Problem {
        Problem { retry_after: Some(2), ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail) }
    }

    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Problem {
        self.code = Some(code);
        self
    }

    /// The status in words.
    pub fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Problem")
    }

    /// As it is sent to a program.
    pub fn body(&self, request_id: &str) -> ProblemBody {
        let field = |error: &FieldError| FieldProblem { field: error.field.clone(), problem: error.problem.clone() };
        ProblemBody {
            kind: format!("urn:pagehand:problem:{}", self.kind),
            title: self.title().to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.iter().map(field).collect(),
            code: self.code,
            request_id: request_id.to_owned(),
        }
    }
}

fn listed(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Problem {
        match &error {
            QueueError::NoSuchTask(id) => Problem::not_found(format_args!("run {id}")),
            QueueError::Conflict(detail) => Problem::conflict("conflict", detail.clone()),
            QueueError::NeedsConfirmation(_) => Problem::conflict(
                "needs-confirmation",
                format!(
                    "{error} by sending {{\"confirm_uncertain\":true}}; it would be done twice if it was done before"
                ),
            )
            .with_code("outcome.uncertain"),
            QueueError::NoKey(_) => {
                tracing::error!(event = "web.no_key", error = %error, "a task with a password was refused");
                let detail = "passwords are encrypted here, and this server has no key; its operator sets secrets.key";
                Problem::unavailable(detail).with_code("secrets.no_key")
            }
            _ if error.is_transient() => {
                tracing::warn!(event = "web.database_unavailable", error = %error, "postgres did not answer");
                Problem::unavailable(
                    "the database does not answer, or takes too long; try again, or ask for less at once",
                )
            }
            _ => {
                tracing::error!(event = "web.internal_error", error = %error, "a request failed");
                Problem::internal()
            }
        }
    }
}

/// The body is written further out, where the request's id and the wanted form are known (`request_id.rs`).
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Box::new(self));
        response
    }
}
