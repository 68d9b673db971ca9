//! Taking comments: the rules are those of WordPress, with its texts and status codes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;
use http::StatusCode;
use http::header::RETRY_AFTER;
use maud::html;
use serde_json::json;

use super::discussion::{self, Thread, Wish};
use super::visitor::Visitor;
use super::{Fields, article, field, is_email, layout};
use crate::demo::articles::{Article, Discussion, Manners};
use crate::demo::ledger::{Comment, CommentState};
use crate::demo::site::Site;

/// Nobody comments twice within this time.
const FLOOD_INTERVAL: Duration = Duration::from_secs(15);
/// Longest text, in bytes.
const MAX_BODY: usize = 65_525;

/// Why a comment is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    ExpiredToken,
    Closed,
    MembersOnly,
    MissingField,
    BadEmail,
    NoText,
    TooLong,
    NoSuchSubscriber,
    Captcha,
    Duplicate,
    Flood,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::ExpiredToken | Self::Closed | Self::MembersOnly => StatusCode::FORBIDDEN,
            Self::Duplicate => StatusCode::CONFLICT,
            Self::Flood => StatusCode::TOO_MANY_REQUESTS,
            // WordPress answers these with an error page and 200.
            Self::MissingField
            | Self::BadEmail
            | Self::NoText
            | Self::TooLong
            | Self::NoSuchSubscriber
            | Self::Captcha => StatusCode::OK,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::ExpiredToken => "The link you followed has expired. Please reload the page and try again.",
            Self::Closed => "Sorry, comments are closed for this item.",
            Self::MembersOnly => "Sorry, you must be logged in to comment.",
            Self::MissingField => "Error: Please fill the required fields.",
            Self::BadEmail => "Error: Please enter a valid email address.",
            Self::NoText => "Error: Please type your comment text.",
            Self::TooLong => "Error: Your comment is too long.",
            Self::NoSuchSubscriber => "Error: We know no subscriber with this number.",
            Self::Captcha => "Incorrect or missing CAPTCHA. Your comment was not posted.",
            Self::Duplicate => "Duplicate comment detected; it looks as though you’ve already said that!",
            Self::Flood => "You are posting comments too quickly. Slow down.",
        }
    }
}

/// What the sender is told, and shown.
#[derive(Debug, Clone, Copy)]
struct Receipt {
    id: u64,
    held: bool,
}

/// `POST /articles/{slug}/comments`
pub(in crate::demo) async fn submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Form(fields): Form<Fields>,
) -> Response {
    let Some(article) = Article::find(&slug) else { return article::not_found().await.into_response() };
    match take(&site, article, &visitor.id, fields.clone()) {
        Ok(receipt) => Redirect::to(&address(&site, article, &article.path(), receipt)).into_response(),
        Err(refusal @ Refusal::Captcha) => {
            let mut thread = Thread::of(&site, article, &visitor, &Wish::default());
            thread.refusal = Some(refusal.text().to_owned());
            thread.refill = fields;
            (refusal.status(), article::page(&site, article, &thread)).into_response()
        }
        Err(refusal) => failure_page(refusal, &article.path()),
    }
}

/// `POST /embed/{slug}`
pub(in crate::demo) async fn submit_embed(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Form(fields): Form<Fields>,
) -> Response {
    submit_framed(&site, &slug, Discussion::Frame, &visitor.id, "/embed", fields).await
}

/// `POST /threads/{slug}` at the widgets' origin
pub(in crate::demo) async fn submit_widget(
    State(site): State<Arc<Site>>,
    Path(slug): Path<String>,
    Form(fields): Form<Fields>,
) -> Response {
    submit_framed(&site, &slug, Discussion::ForeignFrame, "", "/threads", fields).await
}

async fn submit_framed(
    site: &Site,
    slug: &str,
    discussion: Discussion,
    visitor: &str,
    folder: &str,
    fields: Fields,
) -> Response {
    let Some(article) = Article::find(slug).filter(|article| article.discussion == discussion) else {
        return article::not_found().await.into_response();
    };
    let path = format!("{folder}/{slug}");
    match take(site, article, visitor, fields) {
        Ok(receipt) => Redirect::to(&address(site, article, &path, receipt)).into_response(),
        Err(refusal) => failure_page(refusal, &path),
    }
}

/// `POST /api/articles/{slug}/comments`: an object of texts, answered with JSON.
pub(in crate::demo) async fn submit_json(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Json(object): Json<std::collections::BTreeMap<String, String>>,
) -> Response {
    let Some(article) = Article::find(&slug).filter(|article| article.discussion == Discussion::Fetch) else {
        return (StatusCode::NOT_FOUND, Json(json!({"error": "There is no such thread."}))).into_response();
    };
    match take(&site, article, &visitor.id, object.into_iter().collect()) {
        Ok(receipt) => (StatusCode::CREATED, Json(json!({"id": receipt.id, "status": "published"}))).into_response(),
        Err(refusal) => {
            let status =
                if refusal.status() == StatusCode::OK { StatusCode::UNPROCESSABLE_ENTITY } else { refusal.status() };
            with_delay(refusal, (status, Json(json!({"error": refusal.text()}))).into_response())
        }
    }
}

/// Checks a submission and, if it is good, enters it into the ledger.
fn take(site: &Site, article: &Article, visitor: &str, fields: Fields) -> Result<Receipt, Refusal> {
    let serves = matches!(article.manners, Manners::Serves | Manners::Recovers | Manners::StallsAtFirst);
    if article.discussion == Discussion::Closed || !serves {
        return Err(Refusal::Closed);
    }
    if article.discussion == Discussion::MembersOnly {
        return Err(Refusal::MembersOnly);
    }
    let token = site.token(&discussion::purpose(article), visitor);
    if field(&fields, "nonce") != token {
        return Err(Refusal::ExpiredToken);
    }
    let decoys = article.discussion == Discussion::Decoys;
    let (text_name, mail_name) =
        if decoys { discussion::real_names(&token) } else { ("comment".to_owned(), "email".to_owned()) };
    let (author, email, body) = (field(&fields, "author"), field(&fields, &mail_name), field(&fields, &text_name));
    if decoys && discussion::TRAPS.iter().any(|trap| !field(&fields, trap).is_empty()) {
        let text = if body.is_empty() { field(&fields, "comment") } else { body };
        return Ok(pretend(site, comment(article, author, email, text, CommentState::Held, &fields)));
    }
    if author.is_empty() || email.is_empty() {
        return Err(Refusal::MissingField);
    }
    if !is_email(email) {
        return Err(Refusal::BadEmail);
    }
    if body.is_empty() {
        return Err(Refusal::NoText);
    }
    if body.len() > MAX_BODY {
        return Err(Refusal::TooLong);
    }
    match article.discussion {
        Discussion::SubscriberNumber => return Err(Refusal::NoSuchSubscriber),
        Discussion::CaptchaShown | Discussion::CaptchaInvisible => return Err(Refusal::Captcha),
        _ => {}
    }
    let state = if article.discussion == Discussion::Moderated { CommentState::Held } else { CommentState::Published };
    enter(site, comment(article, author, email, body, state, &fields))
}

/// Takes the comment unless it was said before or follows too quickly; all under one lock, so that of two at once one loses.
fn enter(site: &Site, mut comment: Comment) -> Result<Receipt, Refusal> {
    let mut records = site.ledger.lock();
    let by_the_same = |other: &&Comment| other.email.eq_ignore_ascii_case(&comment.email);
    if records.comments.iter().filter(by_the_same).any(|other| other.page == comment.page && other.body == comment.body)
    {
        return Err(Refusal::Duplicate);
    }
    let recent = |other: &Comment| {
        (comment.received_at - other.received_at).to_std().is_ok_and(|passed| passed < FLOOD_INTERVAL)
    };
    if records.comments.iter().rev().filter(by_the_same).any(recent) {
        return Err(Refusal::Flood);
    }
    comment.id = records.next_id();
    let receipt = Receipt { id: comment.id, held: comment.state == CommentState::Held };
    records.comments.push(comment);
    Ok(receipt)
}

/// A trap was filled: the sender sees his comment as if it were held, and nobody else ever will.
fn pretend(site: &Site, mut comment: Comment) -> Receipt {
    let mut records = site.ledger.lock();
    comment.id = records.next_id();
    let id = comment.id;
    records.trapped.push(comment);
    Receipt { id, held: true }
}

fn comment(article: &Article, author: &str, email: &str, body: &str, state: CommentState, fields: &Fields) -> Comment {
    Comment {
        id: 0,
        page: article.path(),
        author: author.to_owned(),
        email: email.to_owned(),
        website: Some(field(fields, "url").to_owned())
            .filter(|url| url.starts_with("http://") || url.starts_with("https://")),
        body: body.replace("\r\n", "\n"),
        state,
        received_at: Utc::now(),
        fields: fields.clone(),
    }
}

/// Where the sender finds his comment.
fn address(site: &Site, article: &Article, path: &str, receipt: Receipt) -> String {
    let id = receipt.id;
    if receipt.held {
        return format!(
            "{path}?unapproved={id}&moderation-hash={}#comment-{id}",
            discussion::moderation_hash(site, id)
        );
    }
    // Also for the first page: without a number the newest one is shown, which it may no longer be.
    let page = discussion::page_of(site, &article.path(), id);
    format!("{path}?cpage={page}#comment-{id}")
}

fn failure_page(refusal: Refusal, back: &str) -> Response {
    let page = layout::bare(
        "Comment Submission Failure",
        html! { div.wp-die-message { p { (refusal.text()) } } p { a href=(back) { "« Back" } } },
    );
    with_delay(refusal, (refusal.status(), page).into_response())
}

fn with_delay(refusal: Refusal, mut response: Response) -> Response {
    if refusal == Refusal::Flood {
        response.headers_mut().insert(RETRY_AFTER, FLOOD_INTERVAL.as_secs().into());
    }
    response
}
