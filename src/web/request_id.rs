//! The outermost layer: a request's id, its log line, its count, its deadline, and the form of its problem.
//!
//! The id is the client's where that is sane, else a new one. It is in the answer's `X-Request-Id`, in the span that all log
//! lines of the request are in, and in the row of a task that the request enqueues.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;

use super::negotiate::Wanted;
use super::problem::Problem;
use super::{Shared, pages};

/// Where the id is, in requests and in answers.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest time that a request may take, its body included. What it has done by then stays done.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const MAX_ID_BYTES: usize = 128;

/// The id of the request.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Gives the request its id and everything that goes by it.
pub async fn layer(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let id = given(request.headers()).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let wanted = Wanted::by(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));

    let span = tracing::info_span!("request", request_id = %id, method = %method, path = %shown(&path));
    let started = Instant::now();
    let work = async {
        let answered = AssertUnwindSafe(tokio::time::timeout(REQUEST_LIMIT, next.run(request))).catch_unwind().await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Problem::unavailable("this took too long; ask for less at once").into_response(),
            Err(panic) => {
                let cause = panic.downcast_ref::<&str>().copied().unwrap_or("no text");
                tracing::error!(event = "web.panicked", cause, "a request panicked");
                Problem::internal().into_response()
            }
        };
        let mut response = in_words(response, wanted, &id, &path).await;
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        let (status, took) = (response.status().as_u16(), started.elapsed());
        app.metrics.answered(&route, &method, status, took);
        log(&route, &method, status, took);
        response
    };
    work.instrument(span).await
}

/// Whether somebody asks for this every few seconds, or each page for it anew: its answers would hide the others.
fn is_routine(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz" | "/metrics" | "/events" | "/favicon.ico") || route.starts_with("/assets/")
}

fn log(route: &str, method: &Method, status: u16, took: Duration) {
    let duration_ms = took.as_secs_f64() * 1e3;
    if method.is_safe() && status < 400 && is_routine(route) {
        tracing::debug!(event = "web.request", status, duration_ms, "answered");
    } else {
        tracing::info!(event = "web.request", status, duration_ms, "answered");
    }
}

/// The client's id, if it is one that can stand in a log and a header.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let sane = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+' | '=' | '@');
    (!id.is_empty() && id.len() <= MAX_ID_BYTES && id.chars().all(sane)).then(|| id.to_owned())
}

/// A path for the log: without control characters, which a client could write lines with, and not longer than one.
fn shown(path: &str) -> String {
    path.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Writes the problem of an answer that has one, and gives one to an answer of the router's own that has none.
async fn in_words(response: Response, wanted: Wanted, id: &str, path: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let is_error = parts.status.is_client_error() || parts.status.is_server_error();
    let problem = match parts.extensions.remove::<Box<Problem>>() {
        Some(problem) => *problem,
        None if is_error && !parts.headers.contains_key(header::CONTENT_TYPE) => unforeseen(parts.status),
        None => return Response::from_parts(parts, body),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = match wanted {
        Wanted::Html => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            pages::problem::page(&problem, id, path).into_string()
        }
        Wanted::Json => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
            serde_json::to_string(&problem.body(id)).unwrap_or_default()
        }
    };
    Response::from_parts(parts, body.into())
}

fn unforeseen(status: StatusCode) -> Problem {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(status, "method-not-allowed", "this address takes other methods; see the header `allow`")
        }
        StatusCode::NOT_FOUND => Problem::not_found("such page; /openapi.json lists what there is"),
        _ => Problem::new(status, "refused", "this request can't be taken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        let with = |id: &'static str| given(&HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(id))]));
        assert_eq!(with("0190f0aa-1.2"), Some("0190f0aa-1.2".to_owned()));
        for bad in ["", "a b", "a\tb", "\"x\"", "<script>"] {
            assert_eq!(with(bad), None, "{bad}");
        }
        let long: &'static str = "x".repeat(MAX_ID_BYTES + 1).leak();
        assert_eq!(with(long), None);
    }
}
