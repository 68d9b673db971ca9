//! The cookie by which the site knows a visitor again. Hidden tokens in forms are bound to it.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{COOKIE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

/// Who asks, as far as cookies tell.
#[derive(Debug)]
pub(in crate::demo) struct Visitor {
    /// Bound into tokens; new with the first request of a browsing context.
    pub id: String,
    is_new: bool,
    cookies: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let cookies: HeaderMap = parts.headers.get_all(COOKIE).iter().map(|value| (COOKIE, value.clone())).collect();
        let known = cookie_in(&cookies, "visitor");
        let is_new = known.is_none();
        Ok(Self { id: known.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())), is_new, cookies })
    }
}

impl Visitor {
    /// The value of another cookie.
    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        cookie_in(&self.cookies, name)
    }

    /// The answer, with the cookie if the visitor has none yet.
    pub(super) fn answer(&self, answer: impl IntoResponse) -> Response {
        let response = answer.into_response();
        if self.is_new { set_cookie(response, "visitor", &self.id) } else { response }
    }
}

/// The answer with one more cookie, for this session. `value` must be made of token characters.
pub(super) fn set_cookie(mut response: Response, name: &str, value: &str) -> Response {
    if let Ok(header) = HeaderValue::try_from(format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax")) {
        response.headers_mut().append(SET_COOKIE, header);
    }
    response
}

fn cookie_in(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}
