//! Answers of servers that are down, cross or rude.

use std::future;
use std::sync::PoisonError;

use axum::body::Body;
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use maud::html;

use super::layout;
use crate::demo::articles::{Article, Manners};
use crate::demo::site::Site;

/// Marks an answer that is never sent: the connection closes instead.
#[derive(Debug, Clone, Copy)]
pub(in crate::demo) struct HangUp;

/// How often an article that recovers answers 503 before it does, and one that stalls at first gives half of itself.
const OUTAGES: u32 = 2;
const STALLS: u32 = 3;

/// What `article` answers instead of itself; None: itself.
pub(super) async fn instead(site: &Site, article: &'static Article) -> Option<Response> {
    match article.manners {
        Manners::Serves => None,
        Manners::Forbids => Some((StatusCode::FORBIDDEN, denied(article)).into_response()),
        Manners::Throttles => Some(
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "2")], plain("Too many requests", "Please slow down."))
                .into_response(),
        ),
        Manners::Stalls => Some(stalled(article)),
        Manners::StallsAtFirst => (times(site, article) <= STALLS).then(|| stalled(article)),
        Manners::Ignores => future::pending().await,
        Manners::Recovers => (times(site, article) <= OUTAGES).then(|| {
            let page = plain("Service unavailable", "We are back in a moment. Thank you for your patience.");
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], page).into_response()
        }),
        Manners::Fails => Some(
            (StatusCode::INTERNAL_SERVER_ERROR, plain("Internal server error", "The request could not be completed."))
                .into_response(),
        ),
        Manners::HangsUp => {
            let mut response = Response::default();
            response.extensions_mut().insert(HangUp);
            Some(response)
        }
    }
}

/// How often the article has been asked for, this time included.
fn times(site: &Site, article: &'static Article) -> u32 {
    let mut outages = site.outages.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = outages.entry(article.slug).or_default();
    *asked += 1;
    *asked
}

fn plain(title: &str, text: &str) -> Html<String> {
    Html(layout::bare(title, html! { h1 { (title) } p { (text) } hr; p.server { "tidewater-edge/2.4" } }).into_string())
}

fn denied(article: &Article) -> Html<String> {
    let page = layout::bare(
        "Access denied",
        html! {
            h1 { "Access denied" }
            p { "You don’t have permission to view " code { (article.path()) } " on this server." }
            p { "If you believe this is a mistake, write to the site’s owner and quote the reference below." }
            hr;
            p.server { "Reference 18.5d3c1402.1779091200.2f0e6c1" }
        },
    );
    Html(page.into_string())
}

/// The head and the first lines of a page whose rest never comes.
fn stalled(article: &Article) -> Response {
    let page = layout::magazine(article.title, html! { h1 { (article.title) } p { (article.standfirst) } });
    let mut text = page.into_string();
    if let Some(end) = text.find("<footer") {
        text.truncate(end);
    }
    let body = stream::once(future::ready(Ok::<_, std::io::Error>(Bytes::from(text)))).chain(stream::pending());
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], Body::from_stream(body)).into_response()
}
