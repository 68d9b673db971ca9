//! The headers that every answer has.
//!
//! No script but ours and no inline script or style; nothing from elsewhere; nobody frames us; nothing is kept in caches
//! unless an answer says otherwise; no other site may read anything (there are no CORS headers at all). `Referrer-Policy`
//! is not `no-referrer`, under which Chromium posts our own forms with `Origin: null`.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// A captured page: nothing runs, nothing is fetched, no form is sent; only our own pages may frame it.
pub const CAPTURE_POLICY: &str = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline' data:; \
     font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Adds what the answer does not have yet.
pub async fn layer(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let defaults: [(HeaderName, &'static str); 9] = [
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "Accept, Cookie, Authorization"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
