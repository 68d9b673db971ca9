//! What stands below an article: the comments so far, and the form in its many forms.

use maud::{Markup, html};
use serde::Deserialize;

use super::layout::long_date;
use super::prose::EARLIER;
use super::visitor::Visitor;
use super::{Fields, field};
use crate::demo::articles::{Article, Discussion};
use crate::demo::ledger::{Comment, CommentState};
use crate::demo::site::Site;

/// Comments on one page of a thread.
const PAGE: usize = 20;

/// What the address asks to see of a thread.
#[derive(Debug, Default, Deserialize)]
pub(in crate::demo) struct Wish {
    /// Page of the thread, from 1; the newest by default.
    cpage: Option<usize>,
    /// Number of a held comment that its author was sent to.
    unapproved: Option<u64>,
    /// Proof of being that author.
    #[serde(rename = "moderation-hash")]
    moderation_hash: Option<String>,
}

/// The part of a thread that one visitor sees, and what the form needs to know.
#[derive(Debug, Default)]
pub(super) struct Thread {
    total: usize,
    page: usize,
    pages: usize,
    comments: Vec<Comment>,
    preview: Option<Comment>,
    token: String,
    /// A sentence above the form: why the last submission was refused.
    pub refusal: Option<String>,
    /// What the last submission said.
    pub refill: Fields,
}

impl Thread {
    pub(super) fn of(site: &Site, article: &Article, visitor: &Visitor, wish: &Wish) -> Thread {
        Self::bound_to(site, article, &visitor.id, wish)
    }

    /// For a frame of another site, where browsers keep cookies away.
    pub(super) fn without_cookie(site: &Site, article: &Article, wish: &Wish) -> Thread {
        Self::bound_to(site, article, "", wish)
    }

    fn bound_to(site: &Site, article: &Article, visitor: &str, wish: &Wish) -> Thread {
        let path = article.path();
        let records = site.ledger.lock();
        let here = |comment: &&Comment| comment.page == path;
        let published = || records.comments.iter().filter(here).filter(|c| c.state == CommentState::Published);
        let total = published().count();
        let pages = total.div_ceil(PAGE).max(1);
        let page = wish.cpage.unwrap_or(pages).clamp(1, pages);
        let comments = published().skip((page - 1) * PAGE).take(PAGE).cloned().collect();
        let preview = wish
            .unapproved
            .filter(|id| wish.moderation_hash.as_deref() == Some(&moderation_hash(site, *id)))
            .and_then(|id| records.comments.iter().chain(&records.trapped).filter(here).find(|c| c.id == id))
            .cloned();
        let token = site.token(&purpose(article), visitor);
        Thread { total, page, pages, comments, preview, token, ..Thread::default() }
    }
}

/// What the hidden token of an article's form stands for.
pub(super) fn purpose(article: &Article) -> String {
    format!("comment on {}", article.slug)
}

/// Proof that somebody is the author of a held comment.
pub(super) fn moderation_hash(site: &Site, id: u64) -> String {
    site.token("preview", &id.to_string())
}

/// The page of the thread on which a published comment stands, whatever has been said since.
pub(super) fn page_of(site: &Site, path: &str, id: u64) -> usize {
    let records = site.ledger.lock();
    let published = records.comments.iter().filter(|c| c.page == path && c.state == CommentState::Published);
    published.filter(|c| c.id <= id).count().div_ceil(PAGE).max(1)
}

/// The discussion below an article.
pub(super) fn section(site: &Site, article: &Article, thread: &Thread) -> Markup {
    let inside = match article.discussion {
        Discussion::Frame => {
            html! { iframe.thread title="Comments" src={ "/embed/" (article.slug) } width="100%" height="1180" {} }
        }
        Discussion::ForeignFrame | Discussion::RefusingFrame => html! {
            h2 { "Discussion" }
            iframe.thread title="Comments" src={ (site.widget_origin) "/threads/" (article.slug) } width="100%" height="1180" {}
        },
        Discussion::DeadFrame => html! {
            h2 { "Discussion" }
            iframe.thread title="Comments" src={ (site.refused_origin) "/threads/" (article.slug) } width="100%" height="480" {}
        },
        Discussion::Shadow => html! {
            reader-comments {
                template shadowrootmode="open" {
                    link rel="stylesheet" href="/assets/paper.css";
                    (list(thread))
                    (respond(article, thread))
                }
            }
        },
        _ => html! { (list(thread)) (respond(article, thread)) },
    };
    html! { section #comments .discussion aria-label="Comments" { (inside) } }
}

/// The same, alone in a frame; its form posts to `action`.
pub(super) fn framed(article: &Article, thread: &Thread, action: &str) -> Markup {
    html! {
        section #comments .discussion { (list(thread))
            div #respond {
                h2 { "Join the conversation" }
                form.comment-form action=(action) method="post" {
                    (text_field(thread)) (person_fields(thread))
                    input type="hidden" name="nonce" value=(thread.token);
                    button.primary type="submit" { "Post comment" }
                }
            }
        }
        script defer src="/assets/frame.js" data-article=(article.slug) {}
    }
}

fn list(thread: &Thread) -> Markup {
    let total = thread.total + EARLIER.len();
    html! {
        h2.comments-title { (total) " comments" }
        @if thread.pages > 1 {
            nav.comment-pages aria-label="Pages of comments" {
                @if thread.page > 1 { a href={ "?cpage=" (thread.page - 1) "#comments" } { "← Older" } }
                span { "Page " (thread.page) " of " (thread.pages) }
                @if thread.page < thread.pages { a href={ "?cpage=" (thread.page + 1) "#comments" } { "Newer →" } }
            }
        }
        ol.comment-list {
            @if thread.page == 1 {
                @for comment in &EARLIER {
                    li.comment id={ "comment-" (comment.id) } {
                        (byline(comment.author, None, comment.date, &long_date(comment.date)))
                        div.comment-content { p { (comment.body) } }
                    }
                }
            }
            @for comment in &thread.comments { (entry(comment, false)) }
            @if let Some(comment) = &thread.preview { (entry(comment, true)) }
        }
    }
}

fn entry(comment: &Comment, preview: bool) -> Markup {
    let time = comment.received_at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let shown = comment.received_at.format("%-d %B %Y, %H:%M").to_string();
    html! {
        li.comment.preview[preview] id={ "comment-" (comment.id) } {
            (byline(&comment.author, comment.website.as_deref(), &time, &shown))
            @if preview {
                p.comment-awaiting-moderation { "Your comment is awaiting moderation. This is a preview; your comment will be visible after it has been approved." }
            }
            div.comment-content { @for part in comment.body.split("\n\n") { p { (lines(part)) } } }
        }
    }
}

fn lines(text: &str) -> Markup {
    html! { @for (index, line) in text.lines().enumerate() { @if index > 0 { br; } (line) } }
}

fn byline(author: &str, website: Option<&str>, time: &str, shown: &str) -> Markup {
    let initial = author.chars().next().unwrap_or('?').to_uppercase().to_string();
    html! {
        div.comment-meta {
            span.avatar aria-hidden="true" { (initial) }
            @match website {
                Some(url) => a.comment-author href=(url) rel="nofollow ugc" { (author) },
                None => span.comment-author { (author) },
            }
            time datetime=(time) { (shown) }
        }
    }
}

/// What the article has instead of, or as, its form.
fn respond(article: &Article, thread: &Thread) -> Markup {
    let form = match article.discussion {
        Discussion::Closed => return html! { p.no-comments { "Comments are closed." } },
        Discussion::MembersOnly => {
            return html! {
                p.must-log-in { "You must be " a href={ "/login?next=" (article.path()) } { "logged in" } " to post a comment." }
            };
        }
        Discussion::Fetch => html! {
            form.comment-form #reply data-endpoint={ "/api" (article.path()) "/comments" } data-token=(thread.token) novalidate {
                (text_field(thread)) (person_fields(thread))
                p.form-error #reply-error role="alert" hidden {}
                button.primary type="submit" { "Send reply" }
                p.form-done #reply-done role="status" hidden {}
            }
        },
        Discussion::Decoys => decoys(article, thread),
        Discussion::NoButton => html! {
            form.comment-form action={ (article.path()) "/comments" } method="post" onsubmit="return false" {
                (text_field(thread)) (person_fields(thread))
                div.submit-slot data-upgrade="submit-button" {}
            }
        },
        discussion => html! {
            form #commentform .comment-form action={ (article.path()) "/comments" } method="post" {
                p.comment-notes { "Your email address will not be published. Required fields are marked *" }
                (text_field(thread)) (person_fields(thread))
                @if discussion == Discussion::SubscriberNumber {
                    p { label for="subscriber" { "Subscriber number *" } input #subscriber name="subscriber_no" type="text" inputmode="numeric" pattern="[0-9]{8}" title="The eight digits on your delivery label" required; }
                    p { label for="edition" { "Edition you receive *" }
                        select #edition name="edition" required { option value="" { "Choose…" } option { "North" } option { "South" } option { "Islands" } } }
                }
                @if discussion == Discussion::CaptchaShown { (captcha()) }
                p.comment-form-cookies-consent {
                    input #wp-comment-cookies-consent name="wp-comment-cookies-consent" type="checkbox" value="yes";
                    label for="wp-comment-cookies-consent" { "Save my name, email and website in this browser for the next time I comment." }
                }
                input type="hidden" name="nonce" value=(thread.token);
                p.form-submit { input #submit .primary name="submit" type="submit" value="Post comment"; }
            }
        },
    };
    html! { div #respond { h2 { "Leave a reply" } (form) } }
}

fn text_field(thread: &Thread) -> Markup {
    html! { p { label for="comment" { "Comment *" } textarea #comment name="comment" rows="6" maxlength="65525" required { (field(&thread.refill, "comment")) } } }
}

fn person_fields(thread: &Thread) -> Markup {
    html! {
        div.row {
            p { label for="author" { "Name *" } input #author name="author" type="text" maxlength="245" autocomplete="name" value=(field(&thread.refill, "author")) required; }
            p { label for="email" { "Email *" } input #email name="email" type="email" maxlength="100" autocomplete="email" value=(field(&thread.refill, "email")) required; }
        }
        p { label for="url" { "Website" } input #url name="url" type="url" maxlength="200" autocomplete="url" value=(field(&thread.refill, "url")); }
    }
}

fn captcha() -> Markup {
    html! {
        div.g-recaptcha data-sitekey="6LdTidewaterReviewDemo0000000000000000AA" {
            iframe title="reCAPTCHA" name="a-tidewater" src="/recaptcha/api2/anchor?ar=1&k=6LdTidewaterReviewDemo0000000000000000AA&size=normal" width="304" height="78" {}
            textarea #g-recaptcha-response .g-recaptcha-response name="g-recaptcha-response" hidden {}
        }
    }
}

/// The names of the real fields of a form with decoys, as its token makes them: text and address.
pub(super) fn real_names(token: &str) -> (String, String) {
    (format!("c_{}", &token[..8]), format!("m_{}", &token[8..16]))
}

/// The names of the traps: nobody who looks at the page fills them.
pub(super) const TRAPS: [&str; 5] = ["comment", "email", "phone", "homepage", "edit"];

fn decoys(article: &Article, thread: &Thread) -> Markup {
    let (text, mail) = real_names(&thread.token);
    html! {
        form.edit-comment action={ (article.path()) "/comments" } method="post" {
            input type="hidden" name="edit" value="384";
            label for="edit-text" { "Edit your comment" }
            textarea #edit-text name="edit_text" { (EARLIER[1].body) }
            button type="submit" { "Save changes" }
        }
        form #commentform .comment-form.reordered action={ (article.path()) "/comments" } method="post" {
            input type="hidden" name="nonce" value=(thread.token);
            p.trap-offscreen aria-hidden="true" { label for="comment" { "Comment" } textarea #comment name="comment" tabindex="-1" autocomplete="off" {} }
            p.field-text { label for=(text) { "Comment *" } textarea id=(text) name=(text) rows="6" required {} }
            p.form-submit { button.primary type="submit" { "Post comment" } }
            p.field-name { label for="author" { "Name *" } input #author name="author" type="text" required; }
            p.field-alt { input name="email" type="email" placeholder="Email address" tabindex="-1" autocomplete="off"; }
            p.field-mail { label for=(mail) { "Email *" } input id=(mail) name=(mail) type="email" placeholder="Email address" required; }
            p.trap-offscreen aria-hidden="true" { label for="phone" { "Phone" } input #phone name="phone" type="tel" tabindex="-1" autocomplete="off"; }
            p.trap-covered aria-hidden="true" { input name="homepage" type="text" placeholder="Homepage" tabindex="-1" autocomplete="off"; span {} }
        }
    }
}
