//! Logging in and out by cookie, for people with a browser.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{Caller, Peer};
use super::input::{Input, Query};
use super::negotiate::Wanted;
use super::problem::{Problem, ProblemBody};
use super::{Shared, hosts, pages, session};
use crate::config::Role;

/// What `POST /login` takes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is written down for the OpenAPI document; the fields are read with their own errors")]
pub struct LogIn {
    /// One of the tokens of `web.tokens`.
    token: String,
    /// Where to go afterwards: a path of this server.
    next: Option<String>,
}

/// Who has logged in.
#[derive(Serialize, ToSchema)]
pub struct LoggedIn {
    /// The token's name.
    name: String,
    /// `read` or `operate`.
    #[schema(value_type = String)]
    role: Role,
}

/// `GET /login`
#[utoipa::path(get, path = "/login", tag = "people", security(()),
    params(("next" = Option<String>, Query, description = "where to go afterwards: a path of this server")),
    responses(
        (status = 200, description = "a form for a token", body = String, content_type = "text/html"),
        (status = 303, description = "no token is needed here"),
    ))]
pub async fn page(State(app): State<Shared>, Query(mut fields): Query) -> Result<Response, Problem> {
    let next = fields.text("next");
    fields.finish().map_err(Problem::parameters)?;
    let next = local_path(next);
    if app.auth.is_open() {
        return Ok(Redirect::to(&next).into_response());
    }
    Ok(pages::login::page(&next, None).into_response())
}

/// `POST /login`
#[utoipa::path(post, path = "/login", tag = "people", security(()),
    request_body(content((LogIn = "application/json"), (LogIn = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "a cookie, for twelve hours", body = LoggedIn),
        (status = 303, description = "the same to a browser; or no token is needed here"),
        (status = 401, description = "none of the tokens", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "a field can't be taken", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "too many log-ins failed", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn log_in(
    State(app): State<Shared>,
    Peer(address): Peer,
    wanted: Wanted,
    headers: HeaderMap,
    input: Input,
) -> Result<Response, Problem> {
    let mut fields = input.into_fields()?;
    let (token, next) = (fields.text("token").unwrap_or_default(), local_path(fields.text("next")));
    fields.finish().map_err(Problem::fields)?;
    if app.auth.is_open() {
        return Ok(Redirect::to(&next).into_response());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let loopback = hosts::is_loopback(text(header::HOST));
    if !loopback && text(header::ORIGIN).starts_with("http://") {
        let detail = "this page was reached over plain http, where others can read the token; put a proxy with TLS in \
                      front, or come through a tunnel to 127.0.0.1";
        return Err(Problem::new(StatusCode::FORBIDDEN, "plain-http", detail));
    }
    let now = Instant::now();
    if let Err(seconds) = app.auth.may_try(address, now) {
        app.metrics.refused("login_rate");
        let detail = format!("too many failed log-ins; try again in {seconds} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-failures", detail);
        return Err(Problem { retry_after: Some(seconds), ..problem });
    }
    let Some(place) = app.auth.token(token.trim()) else {
        app.auth.failed(address, now);
        app.metrics.refused("login");
        tracing::warn!(event = "web.login_failed", %address, "a log-in failed");
        let detail = "that is none of the tokens of web.tokens";
        return Err(match wanted {
            Wanted::Html => {
                let page = pages::login::page(&next, Some(detail));
                return Ok((StatusCode::UNAUTHORIZED, page).into_response());
            }
            Wanted::Json => Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail),
        });
    };
    // Whoever has put a cookie here before gains nothing: a log-in always gets a new number.
    if let Some(old) = session::number_in(text(header::COOKIE)) {
        app.auth.sessions.close(old);
    }
    let caller = app.auth.caller(place, true).ok_or_else(Problem::internal)?;
    let cookie = app.auth.sessions.open(place, is_secure(&headers), now);
    tracing::info!(event = "web.logged_in", who = caller.name, "logged in");
    let answer = match wanted {
        Wanted::Html => Redirect::to(&next).into_response(),
        Wanted::Json => Json(LoggedIn { name: caller.name, role: caller.role }).into_response(),
    };
    Ok(([(header::SET_COOKIE, cookie)], answer).into_response())
}

/// `POST /logout`
#[utoipa::path(post, path = "/logout", tag = "people", responses((status = 303, description = "the cookie is void")))]
pub async fn log_out(State(app): State<Shared>, _: Caller, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(number) = session::number_in(text(header::COOKIE)) {
        app.auth.sessions.close(number);
    }
    let cookie = session::no_cookie(is_secure(&headers));
    ([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response()
}

/// Whether the browser must not send the cookie over plain HTTP: it came by TLS, as it or a proxy in front says, or from another
/// machine, which it could only do by TLS.
fn is_secure(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text("origin").starts_with("https://")
        || text("x-forwarded-proto").eq_ignore_ascii_case("https")
        || !hosts::is_loopback(text("host"))
}

/// An address on this server; anything else is the front page.
fn local_path(next: Option<String>) -> String {
    let local = |next: &String| {
        let mut chars = next.chars();
        chars.next() == Some('/')
            && !matches!(chars.next(), Some('/' | '\\'))
            && next.chars().all(|c| c.is_ascii_graphic() && c != '\\')
    };
    next.filter(local).unwrap_or_else(|| "/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_leads_nowhere_but_to_this_server() {
        assert_eq!(local_path(Some("/runs?status=failed".to_owned())), "/runs?status=failed");
        for foreign in ["//evil.example", "/\\evil.example", "https://evil.example", "runs", "", "/a\r\nb", "/\t/evil"]
        {
            assert_eq!(local_path(Some(foreign.to_owned())), "/", "{foreign}");
        }
    }
}
