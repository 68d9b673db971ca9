//! From "check your mail" to a confirmed address: waits for the mail, opens its link in the same browsing context or types
//! its code, and goes on until the site says that the address is confirmed.
//!
//! An opened link is not yet a confirmation: there may be a button to press, a password to set, a code to type. Success
//! is only what the site says in so many words.
//!
//! How it can go wrong, and what comes of it: the mail is late, or the process dies meanwhile. The sign-up's answer is on
//! record by then, so the next attempt goes on here ([`resume`]) and signs nothing up. Where not even the answer is on
//! record, a mail to the address proves that the sign-up arrived.
//!
//! A mail is hostile, as anybody may send one: only links to enrolled sites are opened, and nothing is pressed or typed on
//! a page that is not one of an enrolled site, wherever redirects have led.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::comment::see;
use super::verdict::said;
use super::{Context, Success, failed, obstacles};
use crate::failure::{Failure, FailureReason};
use crate::mailbox::{Letter, Mailbox, Watch};
use crate::task::RegistrationPayload;
use crate::telemetry::Usage;

mod page;
mod rounds;

/// Time that is kept for what comes after the mail.
const RESERVE: Duration = Duration::from_secs(30);
/// The mailbox is asked for so long, before a sign-up, whether it can be used.
const CHECK_LIMIT: Duration = Duration::from_secs(15);

/// What a mail gave.
#[derive(Debug)]
enum Key {
    /// A link to an enrolled site.
    Link(Url),
    /// A code to type.
    Code(String),
}

/// The outcome under which a sign-up waits for its mail; the queue carries such an intent on.
pub(super) const WAITING: &str = "needs_email_confirmation";

fn failure(code: &'static str, message: impl Into<String>) -> Failure {
    Failure::terminal(FailureReason::EmailVerificationFailed, code, message)
}

/// The mailbox in which mails to the account's address arrive.
fn mailbox<'a>(ctx: &'a Context, payload: &RegistrationPayload) -> Option<&'a Mailbox> {
    ctx.support.mailbox.as_ref().filter(|mailbox| mailbox.serves(&payload.email))
}

/// Makes sure that the mailbox can be used, before an account is created that could not be confirmed. Only for a mailbox
/// that the site's own profile names: other sites may need none.
///
/// # Errors
/// As [`Mailbox::check`].
pub(super) async fn check_mailbox(ctx: &Context, payload: &RegistrationPayload) -> Result<(), Failure> {
    if !ctx.support.profile.mailbox.serves(&payload.email) {
        return Ok(());
    }
    let Some(mailbox) = mailbox(ctx, payload) else { return Ok(()) };
    ctx.step("checking_mailbox", json!({}), mailbox.check(&payload.email, CHECK_LIMIT)).await
}

/// What the site said of the sign-up, seen with the mailbox in hand: an account that sleeps until its address is
/// confirmed is no failure then.
pub(super) async fn with_mailbox(
    ctx: &Context,
    payload: &RegistrationPayload,
    result: Result<Success, Failure>,
) -> Result<Success, Failure> {
    if mailbox(ctx, payload).is_none() {
        return result;
    }
    let success = match result {
        Err(failure) if failure.code == "mail.no_mailbox" => {
            let words = failure.message.split("; no mailbox").next().unwrap_or_default();
            Success::new(WAITING).with("evidence", words)
        }
        result => result?,
    };
    if !waits(&success) {
        return Ok(success);
    }
    // Where a code is to be typed if this attempt does not get to it. What an address may carry in its query stays out.
    let page = see(ctx).await.map(|shown| shown.url).unwrap_or_default();
    let page = page.split(['?', '#']).next().unwrap_or_default().to_owned();
    Ok(success.with("page", page))
}

fn waits(success: &Success) -> bool {
    success.details.get("outcome").and_then(Value::as_str) == Some(WAITING)
}

/// Goes on where the sign-up waits for its mail; any other result, and one without a mailbox, is left as it is.
///
/// # Errors
/// `email_verification_failed`, with a code `mail.…`; what can't be carried on from the mail is not retryable.
pub(super) async fn carry_on(
    ctx: &Context,
    payload: &RegistrationPayload,
    result: Result<Success, Failure>,
    since: DateTime<Utc>,
) -> Result<Success, Failure> {
    let success = result?;
    match mailbox(ctx, payload) {
        Some(mailbox) if waits(&success) => {
            let asked = page::asks_for_code(&ctx.look().await?);
            let confirmed = confirm(ctx, payload, mailbox, since, Place::Here { asked }).await?;
            ctx.gate.outcome(Value::Object(confirmed.details.clone())).await;
            Ok(confirmed)
        }
        _ => Ok(success),
    }
}

/// Goes on where an earlier attempt left a sign-up; None where there is none to go on with.
pub(super) async fn resume(ctx: &Context, payload: &RegistrationPayload) -> Option<Result<Success, Failure>> {
    let intent = ctx.open_intent.as_ref().filter(|intent| intent.let_go)?;
    let told = |key: &str| intent.outcome.as_ref().and_then(|outcome| outcome.get(key)).and_then(Value::as_str);
    let since = intent.committed_at.unwrap_or(ctx.task.created_at);
    let page = told("page").map(str::to_owned);
    match (told("outcome"), mailbox(ctx, payload)) {
        // The site said so, and the attempt was lost before it could say it.
        (Some(outcome @ "registered"), _) | (Some(outcome @ WAITING), None) => {
            let mut success = Success::new(outcome).with("recovered", true);
            for key in ["evidence", "email_verified"] {
                if let Some(value) = intent.outcome.as_ref().and_then(|outcome| outcome.get(key)) {
                    success = success.with(key, value.clone());
                }
            }
            Some(Ok(success))
        }
        // Without an answer on record, a mail proves that the sign-up arrived.
        (Some(WAITING) | None, Some(mailbox)) if told("failure_code").is_none() => {
            let confirmed = confirm(ctx, payload, mailbox, since, Place::Elsewhere { page }).await;
            Some(confirmed.map(|success| success.with("recovered", true)))
        }
        _ => None,
    }
}

/// Where the browsing context is when the mail comes.
enum Place {
    /// On the page that followed the sign-up.
    Here {
        /// Whether that page asks for a code.
        asked: bool,
    },
    /// Nowhere yet: an earlier attempt signed up.
    Elsewhere {
        /// The page that followed the sign-up, as far as it is on record.
        page: Option<String>,
    },
}

async fn confirm(
    ctx: &Context,
    payload: &RegistrationPayload,
    mailbox: &Mailbox,
    since: DateTime<Utc>,
    place: Place,
) -> Result<Success, Failure> {
    let code_asked = matches!(place, Place::Here { asked: true });
    let (key, letter) = wait_for_key(ctx, payload, mailbox, since, code_asked).await?;
    ctx.note(
        "email_received",
        json!({ "from": letter.from, "subject": letter.subject, "received_at": crate::record::rfc3339(letter.received_at),
            "links": letter.content.links.len(), "code": letter.content.code.is_some(),
            "used": match &key { Key::Link(_) => "link", Key::Code(_) => "code" } }),
    );
    let fresh = matches!(place, Place::Elsewhere { .. });
    match (key, place) {
        (Key::Link(link), _) => {
            open_link(ctx, &link, fresh).await?;
            rounds::go(ctx, payload, letter.content.code, "link").await
        }
        (Key::Code(code), Place::Here { .. }) => rounds::go(ctx, payload, Some(code), "code").await,
        (Key::Code(code), Place::Elsewhere { page: Some(page) }) => {
            let landed = ctx.open("opening_code_page", &page).await?;
            ctx.first_snapshot().await?;
            if obstacles::refused_by_status(&landed).is_some() || !page::asks_for_code(&ctx.look().await?) {
                return Err(failure(
                    "mail.code_page_gone",
                    format!(
                        "a code came by mail, and {page} does not ask for it any more; confirm the account by hand"
                    ),
                ));
            }
            rounds::go(ctx, payload, Some(code), "code").await
        }
        (Key::Code(_), Place::Elsewhere { page: None }) => Err(failure(
            "mail.code_page_gone",
            "a code came by mail, and the page that asked for it is not on record; confirm the account by hand",
        )),
    }
}

/// Waits for a mail that holds something to go on with: for as long as the mailbox says, and no longer than the attempt has
/// time for.
async fn wait_for_key(
    ctx: &Context,
    payload: &RegistrationPayload,
    mailbox: &Mailbox,
    since: DateTime<Utc>,
    code_asked: bool,
) -> Result<(Key, Letter), Failure> {
    let now = Instant::now();
    let left = ctx.deadline.saturating_duration_since(now);
    let wait = mailbox.patience().min(left.saturating_sub(RESERVE.min(left / 2)));
    let mut guard = ctx.run.start_step(
        "waiting_for_email",
        json!({ "address": payload.email, "since": crate::record::rfc3339(since), "wait_seconds": wait.as_secs_f64() }),
    );
    let mut watch = mailbox.watch(&payload.email, since);
    let mut mails = 0;
    let found = find_key(ctx, &mut watch, now + wait, code_asked, &mut mails).await;
    guard.note("mails", mails);
    let result = found.and_then(|found| found.ok_or_else(|| nothing_came(payload, mails, wait)));
    guard.finish(result.as_ref().map(|_| ()), Usage::default());
    result
}

fn nothing_came(payload: &RegistrationPayload, mails: u32, wait: Duration) -> Failure {
    let (code, what) = match mails {
        0 => ("mail.timeout", "no mail".to_owned()),
        n => ("mail.no_link", format!("{n} mails, none of them with a link or code that confirms the address,")),
    };
    let message =
        format!("{what} came to {} within {} s; the next attempt goes on waiting", payload.email, wait.as_secs());
    // So long nothing is asked again: a late mail is on its way.
    let pause = wait.min(Duration::from_secs(30));
    Failure::retryable(FailureReason::EmailVerificationFailed, code, message).after(Some(pause))
}

async fn find_key(
    ctx: &Context,
    watch: &mut Watch,
    end: Instant,
    code_asked: bool,
    mails: &mut u32,
) -> Result<Option<(Key, Letter)>, Failure> {
    while let Some(letter) = watch.next(end).await? {
        *mails += 1;
        if let Some(code) = letter.content.code.clone().filter(|_| code_asked || letter.content.links.is_empty()) {
            return Ok(Some((Key::Code(code), letter)));
        }
        let mut refused = None;
        for link in &letter.content.links {
            let origin = link.url.origin().ascii_serialization();
            match ctx.support.sites.check(&origin).await {
                Ok(()) => return Ok(Some((Key::Link(link.url.clone()), letter))),
                Err(refusal) if refusal.code.starts_with("policy.") => refused = refused.or(Some(refusal.message)),
                Err(unknown) => return Err(unknown),
            }
        }
        if let Some(why) = refused {
            let message =
                format!("the mail's link leads to a site that may not be acted on: {why}, then retry the run");
            return Err(failure("mail.link_not_enrolled", message));
        }
    }
    Ok(None)
}

/// Opens the link. Its address is a secret until it has been used: the record has it without query and tokens.
async fn open_link(ctx: &Context, link: &Url, fresh: bool) -> Result<(), Failure> {
    let shown = without_tokens(link);
    let landed = ctx
        .step("opening_verification_link", json!({ "url": shown }), async {
            ctx.tab.goto(link.as_str(), ctx.limits.navigation).await.map_err(failed)
        })
        .await?;
    if fresh {
        ctx.first_snapshot().await?;
    }
    match obstacles::refused_by_status(&landed) {
        None => Ok(()),
        Some(refused) => Err(Failure {
            reason: FailureReason::EmailVerificationFailed,
            message: format!("the mailed link was answered with status {}", landed.status.unwrap_or_default()),
            ..refused
        }),
    }
}

/// Origin and path, long runs of letters and digits left out.
fn without_tokens(link: &Url) -> String {
    let path: Vec<&str> = link
        .path()
        .split('/')
        .map(|part| if part.len() >= 16 && part.bytes().any(|byte| byte.is_ascii_digit()) { "…" } else { part })
        .collect();
    format!("{}{}", link.origin().ascii_serialization(), path.join("/"))
}

/// Nothing may be pressed or typed on a page that is not one of an enrolled site.
async fn check_place(ctx: &Context, address: &str) -> Result<(), Failure> {
    let origin = Url::parse(address).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    ctx.support.sites.check(&origin).await.map_err(|refusal| match refusal.code.starts_with("policy.") {
        true => failure(
            "mail.link_not_enrolled",
            format!("the mailed link led on to a site that may not be acted on: {}", refusal.message),
        ),
        false => refusal,
    })
}

fn link_refused(words: &str) -> Failure {
    failure("mail.link_refused", said(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_recorded_without_what_makes_it_a_key() {
        let link = Url::parse("https://s.example/confirm/9f8e7d6c5b4a39281706/go?token=abc&x=1#f").unwrap();
        assert_eq!(without_tokens(&link), "https://s.example/confirm/…/go");
    }
}
