//! Creates an account, and says what the site made of it: it is there, or it waits for a mailed link.
//!
//! After a crash behind the gate nothing is sent again: the attempt looks whether the account is there, see
//! [`super::recovery`].

use std::time::Duration;

use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::comment::{exchange_meta, nothing_sent};
use super::filling::{Filled, Plan, Sent, carry_through, is_answered, unanswered, uncertain};
use super::forms::{FormKind, Role};
use super::gate::{Submission, fingerprint};
use super::look::View;
use super::verdict::{Shown, refusal, refused_by_answer, said, saying};
use super::{Automation, Context, Success, confirmation, obstacles, pins, recovery};
use crate::browser::{Exchange, SubmitReport};
use crate::failure::mapper::map_status;
use crate::failure::{Failure, FailureReason};
use crate::fault;
use crate::task::{Payload, RegistrationPayload};
use crate::telemetry::SnapshotKind;

/// The automation for `task_type` registration.
#[derive(Debug, Clone, Copy)]
pub struct Registration;

impl Automation for Registration {
    fn task_type(&self) -> &'static str {
        "registration"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Success, Failure>> {
        Box::pin(async move {
            let Payload::Registration(payload) = &ctx.payload else {
                let message = "the payload is not a registration's; enqueue it as the task type it is for";
                return Err(Failure::terminal(FailureReason::Unknown, "input.invalid_payload", message));
            };
            let success = register(ctx, payload).await?;
            ctx.snapshot(SnapshotKind::Final).await;
            Ok(success)
        })
    }
}

async fn register(ctx: &Context, payload: &RegistrationPayload) -> Result<Success, Failure> {
    if let Some(result) = confirmation::resume(ctx, payload).await {
        return result;
    }
    let landed = ctx.open("open_page", &ctx.task.url).await?;
    let opened = Instant::now();
    ctx.first_snapshot().await?;
    if let Some(failure) = obstacles::refused(ctx, &landed).await {
        return Err(failure);
    }
    pins::take_steps(ctx).await?;
    let first = payload.first_name.as_deref().unwrap_or_default();
    let last = payload.last_name.as_deref().unwrap_or_default();
    let full = [first, last].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let full = if full.is_empty() { payload.username.as_str() } else { full.as_str() };
    let password = payload.password.expose_secret();
    let birthdate = payload.birthdate.map(|date| date.to_string()).unwrap_or_default();
    let plan = Plan {
        kind: FormKind::Signup,
        values: vec![
            (Role::FirstName, first),
            (Role::LastName, last),
            (Role::FullName, full),
            (Role::Username, &payload.username),
            (Role::Author, &payload.username),
            (Role::Email, &payload.email),
            (Role::EmailConfirm, &payload.email),
            (Role::Password, password),
            (Role::PasswordConfirm, password),
            (Role::Phone, payload.phone.as_deref().unwrap_or_default()),
            (Role::Birthdate, &birthdate),
            (Role::Country, payload.country.as_deref().unwrap_or_default()),
        ],
        needed: &[&[Role::Email, Role::Username]],
        missing: no_signup_form,
    };
    confirmation::check_mailbox(ctx, payload).await?;
    let since = chrono::Utc::now();
    if ctx.open_intent.as_ref().is_some_and(|intent| intent.let_go) && fault::guard!("look.registration") {
        // On the heap: it fills two forms, and futures of that size in one another overflow a thread's stack.
        let look = Box::pin(recovery::find_account(ctx, payload, &plan));
        return ctx.step("look_for_earlier_submission", json!({}), look).await;
    }
    let sent = carry_through(ctx, &plan, |filled| submission(ctx, payload, filled), opened).await;
    let Sent { filled, before, report, .. } = sent.map_err(as_registration)?;
    let result = ctx.step("verify_registration", exchange_meta(&report), verify(ctx, &filled, &before, &report)).await;
    let result = confirmation::with_mailbox(ctx, payload, result).await;
    if is_answered(&report, result.as_ref().map(drop)) {
        let outcome = match &result {
            Ok(success) => Value::Object(success.details.clone()),
            Err(failure) => json!({ "failure_code": failure.code }),
        };
        ctx.gate.outcome(outcome).await;
    }
    confirmation::carry_on(ctx, payload, result, since).await
}

fn submission(ctx: &Context, payload: &RegistrationPayload, filled: &Filled) -> Submission {
    let password = payload.password.expose_secret();
    let values = [
        (Role::Username, payload.username.as_str()),
        (Role::Email, payload.email.as_str()),
        (Role::Password, password),
    ];
    Submission {
        kind: "registration",
        site: ctx.task.site.clone(),
        page_url: filled.frame.page.url.clone(),
        action: filled.form.is_form.then(|| {
            if filled.form.action.is_empty() { filled.frame.page.url.clone() } else { filled.form.action.clone() }
        }),
        main: None,
        beside: values
            .into_iter()
            .filter(|(role, _)| filled.roles.contains(role))
            .map(|(_, value)| value.to_owned())
            .collect(),
        fingerprint: fingerprint(&[&payload.username, &payload.email]),
    }
}

/// Why a page has no sign-up form for us.
fn no_signup_form(view: &View) -> Failure {
    if let Some(failure) = obstacles::turned_away(view) {
        return failure;
    }
    for line in view.main().page.text.lines().filter(|line| line.len() < 400) {
        let said_no = crate::failure::mapper::map_text(line, Some(crate::failure::mapper::TextKind::Page));
        if let Some(failure) = said_no.filter(|failure| failure.reason == FailureReason::RegistrationFailed) {
            return Failure { message: said(line), ..failure };
        }
    }
    if let Some(failure) = obstacles::missed_frame(view, "kind.signup", "sign-up form") {
        return failure;
    }
    let seen = obstacles::forms_seen(view);
    Failure::terminal(
        FailureReason::RegistrationFailed,
        "registration.no_form",
        format!("the page has no sign-up form; {seen}"),
    )
}

/// What the mapper knows as a fault of some form is, here, the site's refusal to create the account.
fn as_registration(failure: Failure) -> Failure {
    let of_form = failure.code.starts_with("form.") || failure.code.starts_with("comments.");
    let general = matches!(failure.reason, FailureReason::Unknown | FailureReason::CommentFormNotFound);
    if of_form && general { Failure { reason: FailureReason::RegistrationFailed, ..failure } } else { failure }
}

async fn verify(ctx: &Context, filled: &Filled, before: &Shown, report: &SubmitReport) -> Result<Success, Failure> {
    let Some(sent) = &report.admitted else {
        let failure = nothing_sent(ctx, filled, before, report).await;
        let silent = failure.code == "form.not_sent";
        return Err(if silent { failure } else { as_registration(failure) });
    };
    if sent.status.is_none() && report.landed.is_none() {
        let error = sent.error.as_deref().unwrap_or("no answer came");
        return Err(unanswered(error));
    }
    let deadline = Instant::now() + ctx.limits.answer;
    let mut after = Shown::default();
    let mut form_left = true;
    let mut code_asked = false;
    loop {
        // A page that is being replaced can't be looked at for a moment; until the limit that is no answer.
        match (ctx.look().await, ctx.read_text().await) {
            (Ok(view), Ok(text)) => {
                form_left = view.best(FormKind::Signup).is_some();
                code_asked = view
                    .frames
                    .iter()
                    .flat_map(|frame| &frame.forms)
                    .any(|form| form.field(Role::OneTimeCode).is_some());
                after = Shown::new(&view, text);
                let landed = report.landed.as_ref().and_then(|landed| landed.status);
                let verdict =
                    pins::verdict(ctx, before, &after).or_else(|| judge(before, &after, sent, landed, code_asked));
                match verdict {
                    Some(result) => return result,
                    None if Instant::now() >= deadline => break,
                    None => {}
                }
                let length = after.text.encode_utf16().count() as u64;
                ctx.text_changes(&ctx.tab.main_frame(), length, Duration::from_millis(700)).await;
            }
            _ if Instant::now() >= deadline => break,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    let moved = after.url.split(['?', '#']).next() != before.url.split(['?', '#']).next();
    if moved && !form_left && !code_asked {
        let evidence =
            format!("the site took the form and went on to {}", after.url.split('?').next().unwrap_or_default());
        return Ok(Success::new("registered").with("evidence", evidence));
    }
    Err(uncertain("the sign-up was sent and answered, and the page does not say what came of it"))
}

/// What the page says about the account; None where it says nothing yet.
fn judge(
    before: &Shown,
    after: &Shown,
    sent: &Exchange,
    landed: Option<u16>,
    code_asked: bool,
) -> Option<Result<Success, Failure>> {
    let status = landed.or(sent.status);
    if let Some(failure) =
        status.filter(|status| *status >= 400).and_then(|status| map_status(status, sent.retry_after))
    {
        let own_words = refusal(before, after, landed.is_some());
        let answer = sent.body_excerpt.as_deref().unwrap_or_default();
        let own_words = own_words
            .or_else(|| crate::failure::mapper::map_text(answer, Some(crate::failure::mapper::TextKind::Page)));
        // 400, 409 and 422 are how interfaces say that a value was not taken.
        let refused = matches!(status, Some(400 | 409 | 422));
        return Some(Err(match own_words {
            Some(said) if said.code == "form.rejected" && !refused => Failure { message: said.message, ..failure },
            Some(said) => as_registration(Failure { retry_after: said.retry_after.or(failure.retry_after), ..said }),
            None if refused => Failure {
                reason: FailureReason::RegistrationFailed,
                code: "form.rejected".into(),
                retryable: false,
                ..failure
            },
            None => failure,
        }));
    }
    let news = after.news(before);
    let answer = sent.body_excerpt.as_deref().unwrap_or_default();
    if let Some(failure) = refusal(before, after, false).or_else(|| refused_by_answer(answer)) {
        return Some(Err(as_registration(failure)));
    }
    let no_mailbox = |words: &str| {
        let message = format!("{}; no mailbox is set up to take the mail from", said(words));
        Failure::terminal(FailureReason::EmailVerificationFailed, "mail.no_mailbox", message)
    };
    if let Some(words) = saying(&news, "sign.inactive") {
        return Some(Err(no_mailbox(words)));
    }
    if let Some(words) = saying(&news, "sign.code_wanted").filter(|_| code_asked) {
        return Some(Err(no_mailbox(words)));
    }
    if code_asked {
        return Some(Err(no_mailbox("a code is asked for")));
    }
    if let Some(words) = saying(&news, "sign.check_mail") {
        return Some(Ok(Success::new("needs_email_confirmation").with("evidence", said(words))));
    }
    if let Some(words) = saying(&news, "sign.registered").or_else(|| saying(&news, "sign.logged_in")) {
        return Some(Ok(Success::new("registered").with("evidence", said(words))));
    }
    None
}

#[cfg(test)]
mod tests;
