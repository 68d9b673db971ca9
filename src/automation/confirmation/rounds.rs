//! What comes after the mail: page by page, until the site says that the address is confirmed.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::Instant;

use super::page::{Asked, Says, asked, code_fields, says};
use super::{check_place, failure, link_refused};
use crate::automation::forms::{Form, FormKind, Role};
use crate::automation::look::{FrameView, View};
use crate::automation::verdict::{Shown, said};
use crate::automation::{Context, Success, failed, obstacles};
use crate::browser::ElementRef;
use crate::failure::Failure;
use crate::task::RegistrationPayload;

/// So many pages are gone through at most.
const MOST_ROUNDS: usize = 5;

/// What has been done so far.
#[derive(Default)]
struct Done {
    password: bool,
    code: bool,
    /// Buttons that were pressed, by selector.
    pressed: Vec<String>,
}

/// Goes on from the page that is open, until the site says that the address is confirmed. `by`: `link` or `code`.
pub(super) async fn go(
    ctx: &Context,
    payload: &RegistrationPayload,
    code: Option<String>,
    by: &str,
) -> Result<Success, Failure> {
    let mut done = Done::default();
    let mut before = Shown::default();
    // After the code page nothing that was said before the code counts.
    if by == "code" {
        before = crate::automation::comment::see(ctx).await?;
    }
    for _ in 0..MOST_ROUNDS {
        let (view, after) = settled(ctx, &before, &done, code.is_some()).await?;
        check_place(ctx, &after.url).await?;
        let view = obstacles::clear_overlays(ctx, view, FormKind::Other).await?;
        let judged = says(&before, &after, done.password);
        match asked(&view, code.is_some() && !done.code) {
            Asked::Password(frame, form) if !done.password => {
                ctx.step("setting_password", json!({ "form": form.selector }), set_password(ctx, payload, frame, form))
                    .await?;
                done.password = true;
                before = after;
            }
            _ if matches!(judged, Says::Confirmed(_)) => {
                let Says::Confirmed(words) = judged else { continue };
                return Ok(Success::new("registered")
                    .with("email_verified", true)
                    .with("verified_by", by)
                    .with("password_set", done.password)
                    .with("evidence", said(&words)));
            }
            _ if matches!(judged, Says::Refused(_)) => {
                let Says::Refused(words) = judged else { continue };
                return Err(link_refused(&words));
            }
            Asked::Code(frame, form) => {
                let code = code.as_deref().unwrap_or_default();
                ctx.step("typing_code", json!({ "form": form.selector }), type_code(ctx, code, frame, form)).await?;
                done.code = true;
                before = after;
            }
            Asked::Confirm(frame, button) if !done.pressed.contains(&button.css) => {
                let element = frame.element(button.h);
                ctx.step("confirming_address", json!({ "button": button.text }), press(ctx, &element)).await?;
                done.pressed.push(button.css.clone());
                before = after;
            }
            _ => break,
        }
    }
    let what = if by == "code" { "the code was typed" } else { "the mailed link was opened" };
    Err(failure(
        "mail.unconfirmed",
        format!("{what}, and no page says that the address is confirmed; look at the last page of the run"),
    ))
}

/// The page once it says or asks something, or the time for an answer is over.
async fn settled(ctx: &Context, before: &Shown, done: &Done, code: bool) -> Result<(View, Shown), Failure> {
    let deadline = Instant::now() + ctx.limits.answer;
    loop {
        let late = Instant::now() >= deadline;
        match (ctx.look().await, ctx.read_text().await) {
            (Ok(view), Ok(text)) => {
                let after = Shown::new(&view, text);
                let told = !matches!(says(before, &after, done.password), Says::Nothing);
                let wanted = match asked(&view, code && !done.code) {
                    Asked::Password(..) => !done.password,
                    Asked::Code(..) => true,
                    Asked::Confirm(_, button) => !done.pressed.contains(&button.css),
                    Asked::Nothing => false,
                };
                if told || wanted || late {
                    return Ok((view, after));
                }
                let length = after.text.encode_utf16().count() as u64;
                ctx.text_changes(&ctx.tab.main_frame(), length, Duration::from_millis(700)).await;
            }
            // A page that is being replaced can't be looked at for a moment.
            (Err(failure), _) | (_, Err(failure)) if late => return Err(failure),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn press(ctx: &Context, element: &ElementRef) -> Result<(), Failure> {
    ctx.tab.click(element, ctx.limits.action).await.map_err(failed)?;
    left(ctx).await;
    Ok(())
}

/// Gives a page that was sent the time to go: what it still shows for a moment is no answer.
async fn left(ctx: &Context) {
    const GONE: &str = "(ph) => null";
    // Fails as soon as the document is replaced; a page that answers in place keeps its document.
    let _: Result<Option<bool>, _> =
        ctx.tab.wait_for(&ctx.tab.main_frame(), GONE, &[], Duration::from_millis(1500)).await;
}

/// Types our own password over whatever a page has put there, and sends it.
async fn set_password(
    ctx: &Context,
    payload: &RegistrationPayload,
    frame: &FrameView,
    form: &Form,
) -> Result<(), Failure> {
    let password = payload.password.expose_secret();
    for field in
        form.fields.iter().filter(|field| field.usable && matches!(field.role, Role::Password | Role::PasswordConfirm))
    {
        ctx.tab.fill(&frame.element(field.handle), password, ctx.limits.action).await.map_err(failed)?;
    }
    send(ctx, frame, form).await
}

async fn type_code(ctx: &Context, code: &str, frame: &FrameView, form: &Form) -> Result<(), Failure> {
    let fields = code_fields(form);
    let single = fields.len() > 1 && fields.len() == code.chars().count();
    if single {
        for (field, character) in fields.iter().zip(code.chars()) {
            let text = character.to_string();
            ctx.tab.fill(&frame.element(field.handle), &text, ctx.limits.action).await.map_err(failed)?;
        }
    } else if let Some(field) = fields.first() {
        ctx.tab.fill(&frame.element(field.handle), code, ctx.limits.action).await.map_err(failed)?;
    }
    match send(ctx, frame, form).await {
        // Some send themselves with the last digit.
        Err(failure) if failure.code == "dom.stale" => Ok(()),
        result => result,
    }
}

/// Presses what sends the form. A button that stays disabled wants a box ticked that came up meanwhile: that a password
/// is weak, that one agrees.
async fn send(ctx: &Context, frame: &FrameView, form: &Form) -> Result<(), Failure> {
    const SEND: &str = r"(ph, form, button) => {
      const el = ph.get(form), pressed = ph.get(button);
      if (pressed) {
        if (pressed.disabled) for (const box of el?.querySelectorAll('input[type=checkbox]:not(:checked)') ?? []) if (box.checkVisibility({ visibilityProperty: true })) { box.click(); break; }
        return true;
      }
      if (el instanceof HTMLFormElement) { el.requestSubmit(); return false; }
      return null;
    }";
    let button = form.submit.as_ref().map_or(0, |button| button.handle);
    let args = [json!(form.handle), json!(button)];
    let found: Option<bool> = ctx.tab.call(&frame.frame.id, SEND, &args, ctx.limits.look).await.map_err(failed)?;
    match found {
        Some(true) => press(ctx, &frame.element(button)).await,
        Some(false) => {
            left(ctx).await;
            Ok(())
        }
        None => Err(failure("mail.unconfirmed", format!("the form {} has no button that sends it", form.selector))),
    }
}
