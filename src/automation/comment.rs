//! Leaves a comment, and proves it: the text stands on the page, or the site says that it waits for approval.
//!
//! After a crash behind the gate the attempt only looks: see [`super::recovery`].

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::filling::{Filled, Plan, Sent, carry_through, is_answered, unanswered, uncertain};
use super::forms::{Dictionary, FormKind, Role};
use super::gate::{Submission, fingerprint};
use super::verdict::{Needle, Shown, invalid_fields, refusal, refused_by_answer, said, saying};
use super::{Automation, Context, Success, obstacles, pins, recovery};
use crate::browser::{Exchange, SubmitReport};
use crate::failure::mapper::map_status;
use crate::failure::{Failure, FailureReason};
use crate::fault;
use crate::task::{CommentPayload, Payload};
use crate::telemetry::SnapshotKind;

/// The automation for `task_type` comment.
#[derive(Debug, Clone, Copy)]
pub struct Comment;

impl Automation for Comment {
    fn task_type(&self) -> &'static str {
        "comment"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Success, Failure>> {
        Box::pin(async move {
            let Payload::Comment(payload) = &ctx.payload else {
                let message = "the payload is not a comment's; enqueue it as the task type it is for";
                return Err(Failure::terminal(FailureReason::Unknown, "input.invalid_payload", message));
            };
            let success = leave(ctx, payload).await?;
            ctx.snapshot(SnapshotKind::Final).await;
            Ok(success)
        })
    }
}

async fn leave(ctx: &Context, payload: &CommentPayload) -> Result<Success, Failure> {
    let landed = ctx.open("open_page", &ctx.task.url).await?;
    let opened = Instant::now();
    ctx.first_snapshot().await?;
    if let Some(failure) = obstacles::refused(ctx, &landed).await {
        return Err(failure);
    }
    let needle = Needle::new(&payload.body);
    if ctx.open_intent.as_ref().is_some_and(|intent| intent.let_go) && fault::guard!("look.comment") {
        return ctx
            .step("look_for_earlier_submission", json!({}), Box::pin(recovery::find_comment(ctx, payload)))
            .await;
    }

    pins::take_steps(ctx).await?;
    let plan = Plan {
        kind: FormKind::Comment,
        values: vec![
            (Role::Author, &payload.author),
            (Role::FirstName, payload.author.split_whitespace().next().unwrap_or_default()),
            (Role::LastName, payload.author.split_whitespace().last().unwrap_or_default()),
            (Role::Email, &payload.email),
            (Role::EmailConfirm, &payload.email),
            (Role::Website, payload.website.as_deref().unwrap_or_default()),
            (Role::Body, &payload.body),
        ],
        needed: &[&[Role::Body]],
        missing: obstacles::no_comment_form,
    };
    let sent =
        carry_through(ctx, &plan, |filled| submission(ctx, payload, filled), opened).await.map_err(as_comment)?;
    let report = &sent.report;
    let result = ctx.step("verify_comment", exchange_meta(report), verify(ctx, payload, &needle, &sent)).await;
    let result = result.map_err(as_comment);
    if is_answered(report, result.as_ref().map(drop)) {
        let outcome = match &result {
            Ok(success) => Value::Object(success.details.clone()),
            Err(failure) => json!({ "failure_code": failure.code }),
        };
        ctx.gate.outcome(outcome).await;
    }
    result
}

fn submission(ctx: &Context, payload: &CommentPayload, filled: &Filled) -> Submission {
    let values = [(Role::Author, &payload.author), (Role::Email, &payload.email)];
    Submission {
        kind: "comment",
        site: ctx.task.site.clone(),
        page_url: filled.frame.page.url.clone(),
        action: (filled.form.is_form && !filled.form.action.is_empty()).then(|| filled.form.action.clone()),
        main: Some(payload.body.clone()),
        beside: values
            .into_iter()
            .filter(|(role, _)| filled.roles.contains(role))
            .map(|(_, value)| value.clone())
            .collect(),
        fingerprint: fingerprint(&[&payload.author, &payload.body]),
    }
}

/// The page now: what it shows and says.
pub(super) async fn see(ctx: &Context) -> Result<Shown, Failure> {
    let view = ctx.look().await?;
    Ok(Shown::new(&view, ctx.read_text().await?))
}

/// What is worth recording of the exchange with the site.
pub(super) fn exchange_meta(report: &SubmitReport) -> Value {
    let brief = |exchange: &Exchange| json!({ "method": exchange.method, "url": exchange.url.split('?').next(), "status": exchange.status, "error": exchange.error });
    json!({
        "submission": report.admitted.as_ref().map(brief), "refused": report.refused, "landed": report.landed.as_ref().map(|landed| without_query(&landed.url)),
        "landed_status": report.landed.as_ref().and_then(|landed| landed.status), "others": report.others.len(),
    })
}

/// Nothing was sent: the page itself, or the browser, did not take what was filled in. Safe to say so, nothing has left.
pub(super) async fn nothing_sent(ctx: &Context, filled: &Filled, before: &Shown, report: &SubmitReport) -> Failure {
    let Ok(after) = see(ctx).await else {
        let message = "the form was not sent, and the page can't be looked at any more";
        return Failure::retryable(FailureReason::Unknown, "form.not_sent", message);
    };
    if let Some(failure) = refusal(before, &after, false) {
        return failure;
    }
    let ours = |css: &str| filled.form.fields.iter().any(|field| field.selector == css);
    if let Some(fields) = invalid_fields(&after, ours) {
        let message = format!("the browser does not send the form: {fields}");
        return Failure::terminal(FailureReason::Unknown, "form.invalid", message);
    }
    let status = report.others.iter().find_map(|other| {
        other.status.filter(|status| *status >= 400).and_then(|status| map_status(status, other.retry_after))
    });
    status.unwrap_or_else(|| {
        let message = "the button was pressed and no request followed that carries what was filled in";
        Failure::retryable(FailureReason::Unknown, "form.not_sent", message)
    })
}

async fn verify(
    ctx: &Context,
    payload: &CommentPayload,
    needle: &Needle,
    Sent { filled, untouched, before, report }: &Sent,
) -> Result<Success, Failure> {
    // A page that shows what is being typed shows the text before it is sent: what counts is the page before that.
    let already = needle.count(&untouched.text);
    let Some(sent) = &report.admitted else { return Err(nothing_sent(ctx, filled, before, report).await) };
    if sent.status.is_none() && report.landed.is_none() {
        let error = sent.error.as_deref().unwrap_or("no answer came");
        return Err(unanswered(error));
    }
    let deadline = Instant::now() + ctx.limits.answer;
    let mut verdict = Verdict::Silent;
    loop {
        // A page that is being replaced can't be looked at for a moment; until the limit that is no answer.
        if let Ok(after) = see(ctx).await {
            if let Some(said) = pins::verdict(ctx, before, &after) {
                return said;
            }
            verdict =
                judge(needle, already, before, &after, sent, report.landed.as_ref().and_then(|landed| landed.status));
            if !matches!(verdict, Verdict::Silent) || Instant::now() >= deadline {
                break;
            }
            let length = after.text.encode_utf16().count() as u64;
            ctx.text_changes(&ctx.tab.main_frame(), length, Duration::from_millis(700)).await;
        } else if Instant::now() >= deadline {
            break;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    match verdict {
        Verdict::Posted => Ok(Success::new("posted").with("comment_url", address(ctx, needle, payload).await)),
        Verdict::Held(words) => {
            let here = ctx.tab.title_and_url().await.map(|(_, url)| url).unwrap_or_default();
            let mut success = Success::new("held_for_moderation").with("evidence", words);
            if here.contains("#comment-") {
                success = success.with("comment_url", without_query(&here));
            }
            Ok(success)
        }
        Verdict::Refused(failure) => Err(failure),
        Verdict::Accepted(_) | Verdict::Silent => look_again(ctx, payload, needle, already, verdict).await,
    }
}

/// The page does not show the comment by itself: load it anew, which changes nothing, and look there and on its further
/// pages.
async fn look_again(
    ctx: &Context,
    payload: &CommentPayload,
    needle: &Needle,
    already: usize,
    verdict: Verdict,
) -> Result<Success, Failure> {
    let again = ctx.tab.goto(&ctx.task.url, ctx.limits.navigation).await.is_ok();
    // What was there before proves nothing, so it has to be one more on the same page. A site that says that it took it is
    // not gone through.
    let shown = match (again, &verdict) {
        (true, Verdict::Silent) if already == 0 => {
            recovery::look_for_comment(ctx, payload).await.ok().and_then(|(found, _)| found)
        }
        (true, _) if ctx.read_text().await.is_ok_and(|page| needle.count(&page.text) > already) => {
            Some(Success::new("posted").with("comment_url", address(ctx, needle, payload).await))
        }
        _ => None,
    };
    if let Some(shown) = shown {
        return Ok(shown);
    }
    match verdict {
        Verdict::Accepted(words) => Ok(Success::new("held_for_moderation").with("evidence", words)),
        _ => Err(uncertain(
            "the submission was sent and answered, and the page neither shows the comment nor says anything about it",
        )),
    }
}

/// What became of the comment.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// It is on the page.
    Posted,
    /// It waits for approval: the site's words.
    Held(String),
    /// The site says it took it and does not show it: its words.
    Accepted(String),
    /// The site did not take it.
    Refused(Failure),
    /// Nothing can be told yet.
    Silent,
}

fn judge(
    needle: &Needle,
    already: usize,
    before: &Shown,
    after: &Shown,
    sent: &Exchange,
    landed: Option<u16>,
) -> Verdict {
    let status = landed.or(sent.status);
    let answer = sent.body_excerpt.as_deref().unwrap_or_default();
    if let Some(failure) =
        status.filter(|status| *status >= 400).and_then(|status| map_status(status, sent.retry_after))
    {
        let own_words = refusal(before, after, landed.is_some());
        let own_words = own_words
            .or_else(|| crate::failure::mapper::map_text(answer, Some(crate::failure::mapper::TextKind::Page)));
        return Verdict::Refused(match own_words {
            // The words say more than the number, the number's wish when to come back stays.
            Some(said) if said.code != "form.rejected" => {
                Failure { retry_after: failure.retry_after.or(said.retry_after), ..said }
            }
            Some(said) => Failure { message: said.message, ..failure },
            None => failure,
        });
    }
    let news = after.news(before);
    // On the page it was sent from, a preview may still show it.
    let already = if landed.is_some() { already } else { already.max(needle.count(&before.text)) };
    let shown = needle.count(&after.text) > already;
    let held_by_address = after.url.contains("unapproved=");
    let held = saying(&news, "sign.moderation").map(said);
    match (held, held_by_address, shown) {
        (Some(words), _, _) => return Verdict::Held(words),
        (None, true, _) => return Verdict::Held("the address the site sent us to says unapproved".to_owned()),
        (None, false, true) => return Verdict::Posted,
        (None, false, false) => {}
    }
    if sent.status == Some(202) || Dictionary::standard().says("sign.moderation", answer) {
        return Verdict::Held("the answer to the submission says that it is held".to_owned());
    }
    if let Some(words) = saying(&news, "sign.comment_accepted") {
        return Verdict::Accepted(said(words));
    }
    match refusal(before, after, false).or_else(|| refused_by_answer(answer)) {
        Some(failure) => Verdict::Refused(failure),
        None => Verdict::Silent,
    }
}

/// What the mapper knows as a fault of some sign-up is, here, a fault of the comment's form.
fn as_comment(failure: Failure) -> Failure {
    if failure.reason != FailureReason::RegistrationFailed {
        return failure;
    }
    let code = if failure.code == "form.login_failed" { failure.code } else { "form.invalid".into() };
    Failure { reason: FailureReason::Unknown, code, ..failure }
}

/// The address of the comment: that of the page with the fragment of the element that holds the text.
pub(super) async fn address(ctx: &Context, needle: &Needle, payload: &CommentPayload) -> String {
    const FRAGMENT: &str = r"(ph, text) => {
      const squeeze = t => t.normalize('NFKC').toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '');
      const wanted = squeeze(text).slice(0, 80);
      if (!wanted) return { url: location.href, id: null };
      let found = null;
      for (const el of ph.deepQueryAll('[id]')) {
        if (el.matches('form,textarea,input,body,main,article') || !squeeze(el.innerText ?? '').includes(wanted)) continue;
        if (!found || found.contains(el)) found = el;
        else if (!el.contains(found)) found = el;
      }
      return { url: location.href, id: found && /\d/.test(found.id) ? found.id : null };
    }";
    #[derive(serde::Deserialize)]
    struct Found {
        url: String,
        id: Option<String>,
    }
    debug_assert!(needle.count(&payload.body) > 0, "the needle is the payload's");
    let found = ctx.tab.call::<Found>(&ctx.tab.main_frame(), FRAGMENT, &[json!(payload.body)], ctx.limits.look).await;
    match found {
        Ok(Found { url, .. }) if url.contains("#comment") => without_query_marks(&url),
        Ok(Found { url, id: Some(id) }) => format!("{}#{id}", url.split('#').next().unwrap_or_default()),
        Ok(Found { url, id: None }) => url,
        Err(_) => ctx.task.url.clone(),
    }
}

/// The address without its query: what a site puts there for the author of a held comment is a key to it.
fn without_query(url: &str) -> String {
    let (page, fragment) = url.split_once('#').unwrap_or((url, ""));
    let page = page.split('?').next().unwrap_or_default();
    if fragment.is_empty() { page.to_owned() } else { format!("{page}#{fragment}") }
}

fn without_query_marks(url: &str) -> String {
    if url.contains("unapproved=") || url.contains("moderation-hash") { without_query(url) } else { url.to_owned() }
}

#[cfg(test)]
mod tests;
