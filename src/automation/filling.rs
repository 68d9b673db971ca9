//! Brings a form on the page, fills it, and sends it through the gate: what comments and sign-ups have in common.
//!
//! A form may be split over steps. Each press is watched by a gate of its own, since any of them may send what can't be
//! taken back; as soon as one request was let go the intent stays open until the end, so a crash between two steps is
//! found out and nothing is sent again.

use std::time::Duration;

use serde_json::json;

use super::comment::see;
use super::forms::{Field, Form, FormKind, Role};
use super::gate::{Gate, Submission};
use super::look::{FrameView, View};
use super::verdict::Shown;
use super::{Context, changed_under_us, failed, fallback, obstacles, pins};
use crate::browser::{ActionCheck, BrowserError, ElementRef, SubmitReport};
use crate::failure::{Failure, FailureReason};

mod boxes;
mod dates;
mod fields;
mod find;
mod password;
mod steps;

pub use steps::{Sent, carry_through};

/// How often a form is looked for and filled again because the document changed under us.
const TRIES: u32 = 3;

/// A form that is filled and ready to be sent.
#[derive(Debug)]
pub struct Filled {
    /// The frame it is in.
    pub frame: FrameView,
    /// The form.
    pub form: Form,
    /// What sends it: a button, or the form itself.
    pub trigger: ElementRef,
    /// The roles that were filled, in this step or an earlier one.
    pub roles: Vec<Role>,
    /// What was put into which field of this step.
    pub(super) values: Vec<(u32, Role, String)>,
}

/// What to do with a form of one kind.
pub struct Plan<'a> {
    /// The kind.
    pub kind: FormKind,
    /// What goes into which role; a role that the form lacks is passed over.
    pub values: Vec<(Role, &'a str)>,
    /// Roles of which the form must have at least one of each group.
    pub needed: &'static [&'static [Role]],
    /// Why there is no form of the kind on this page.
    pub missing: fn(&View) -> Failure,
}

/// Finds the form and fills it; from the start again while the document changes under us. `done`: roles that earlier steps
/// have filled.
///
/// # Errors
/// No form, something in the way, a field that is required and unknown, a value that the form does not take.
pub(super) async fn prepare(ctx: &Context, plan: &Plan<'_>, done: &[Role]) -> Result<Filled, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match prepare_once(ctx, plan, done, tries - 1).await {
            Err(failure) if tries < TRIES && changed_under_us(&failure) => continue,
            result => return result,
        }
    }
}

async fn prepare_once(ctx: &Context, plan: &Plan<'_>, done: &[Role], retries: u32) -> Result<Filled, Failure> {
    let looking = json!({ "kind": plan.kind.as_str(), "step_retries": retries });
    let view = match ctx.step("find_form", looking, find::find(ctx, plan, done)).await {
        Err(missing) if fallback::may_help(ctx, &missing) => {
            ctx.step("ask_model", json!({ "kind": plan.kind.as_str() }), fallback::suggest(ctx, plan, missing)).await?
        }
        found => found?,
    };
    let (frame, form) = find::chosen(&view, plan, done).ok_or_else(|| (plan.missing)(&view))?;
    ctx.note(
        "form_found",
        json!({
            "kind": form.kind.as_str(), "confidence": (form.confidence * 1000.0).round() / 1000.0, "form": form.selector, "frame": frame.page.url,
            "fields": form.fields.iter().map(|field| json!({"role": field.role.as_str(), "selector": field.selector, "usable": field.usable})).collect::<Vec<_>>(),
            "submit": form.submit.as_ref().map(|button| &button.selector), "reasons": form.reasons,
        }),
    );
    if let Some(kind) = obstacles::captcha_of(&frame.page, form) {
        return Err(obstacles::captcha_present(&kind));
    }
    let lacks = |group: &&&[Role]| group.iter().all(|role| form.field(*role).is_none() && !done.contains(role));
    if let Some(group) = plan.needed.iter().find(lacks).filter(|_| !steps::goes_on(form)) {
        let names: Vec<&str> = group.iter().map(|role| role.as_str()).collect();
        let message = format!("the {} form has no field for {}", plan.kind.as_str(), names.join(" or "));
        return Err(Failure::terminal(FailureReason::ElementNotFound, "form.field_missing", message));
    }
    let boxes = boxes::to_tick(ctx, frame, form).await?;
    refuse_unknown(ctx, frame, form, plan).await?;

    let trigger = match &form.submit {
        Some(button) => frame.element(button.handle),
        None if sent_by_enter(form) => frame.element(form.handle),
        None => {
            let message = format!("the {} form has no button that sends it", plan.kind.as_str());
            return Err(Failure::terminal(FailureReason::ElementNotFound, "form.no_submit", message));
        }
    };

    let mut todo: Vec<(&Field, &str)> = Vec::new();
    for (role, value) in plan.values.iter().filter(|(_, value)| !value.is_empty()) {
        let fields = form.fields.iter().filter(|field| field.usable && field.role == *role);
        // A date may be asked for in three fields, anything else in one.
        todo.extend(fields.take(if *role == Role::Birthdate { 3 } else { 1 }).map(|field| (field, *value)));
    }
    let handles: Vec<u32> =
        todo.iter().map(|(field, _)| field.handle).chain(form.submit.as_ref().map(|button| button.handle)).collect();
    let traps = clear_of_overlays(ctx, plan.kind, frame, &handles).await?;
    let essential = |role: Role| plan.needed.iter().any(|group| group.contains(&role));
    todo.retain(|(field, _)| !traps.contains(&field.handle) || essential(field.role));
    for (field, value) in todo.iter().filter(|(field, _)| field.role == Role::Password) {
        password::check(ctx, frame, field, value).await?;
    }

    let meta = json!({ "roles": todo.iter().map(|(field, _)| field.role.as_str()).collect::<Vec<_>>(), "boxes": boxes.len(), "step_retries": retries });
    let values = ctx
        .step("fill_form", meta, async {
            let values = fields::fill_all(ctx, frame, &todo).await?;
            for element in &boxes {
                ctx.tab.set_checked(element, true, ctx.limits.action).await.map_err(failed)?;
            }
            fields::keep(ctx, frame, form, &values, fields::SETTLES).await?;
            Ok(values)
        })
        .await?;

    let mut roles = done.to_vec();
    roles.extend(todo.iter().map(|(field, _)| field.role).filter(|role| !done.contains(role)));
    let form = form.clone();
    let id = frame.frame.id.clone();
    let frame = view.frames.into_iter().find(|view| view.frame.id == id);
    let Some(frame) = frame else { unreachable!("the form's frame is one of the view's") };
    Ok(Filled { frame, form, trigger, roles, values })
}

fn name_of(frame: &FrameView, handle: u32) -> Option<&str> {
    frame.page.fields.iter().find(|facts| facts.h == handle).map(|facts| facts.name.as_str())
}

/// A form without a button that the enter key sends: browsers do that where it has one line to fill and no more.
fn sent_by_enter(form: &Form) -> bool {
    let lines =
        form.fields.iter().filter(|field| field.tag == "input" && !matches!(field.kind.as_str(), "checkbox" | "radio"));
    form.is_form && lines.count() == 1
}

/// A field that the site insists on, that is empty, and that we have nothing for.
async fn refuse_unknown(ctx: &Context, frame: &FrameView, form: &Form, plan: &Plan<'_>) -> Result<(), Failure> {
    // One answer is enough for a group.
    let answered: Vec<&str> =
        boxes::agreements(frame, form).iter().filter_map(|handle| name_of(frame, *handle)).collect();
    let known = |field: &Field| {
        let group = name_of(frame, field.handle).filter(|_| field.kind == "radio");
        group.is_some_and(|group| answered.contains(&group))
            || plan.values.iter().any(|(role, value)| *role == field.role && !value.is_empty())
            || (matches!(field.role, Role::Consent) && field.kind == "checkbox")
    };
    let unknown = form.fields.iter().find(|field| field.usable && field.required && !field.filled && !known(field));
    let Some(field) = unknown else { return Ok(()) };
    let mut label = field.label.clone();
    if field.kind == "radio" {
        const GROUP: &str = "(ph, n) => { const group = ph.get(n)?.closest('fieldset,[role=radiogroup],[role=group]'); \
             const text = group?.querySelector('legend')?.innerText || group?.getAttribute('aria-label') || document.getElementById(group?.getAttribute('aria-labelledby'))?.innerText || ''; \
             return text.trim().slice(0, 80).toWellFormed(); }";
        let group: Result<String, _> =
            ctx.tab.call(&frame.frame.id, GROUP, &[json!(field.handle)], ctx.limits.look).await;
        label = group.ok().filter(|group| !group.is_empty()).map_or(label.clone(), |group| format!("{group}: {label}"));
    }
    let message = format!(
        "the form insists on a field that nothing is known for: “{label}” ({}, taken for {})",
        field.selector,
        field.role.as_str()
    );
    Err(Failure::terminal(FailureReason::ElementNotFound, "form.unknown_field", message))
}

/// Checks that the controls can be hit; gets rid of what came up meanwhile. Gives the fields that are traps.
async fn clear_of_overlays(
    ctx: &Context,
    kind: FormKind,
    frame: &FrameView,
    handles: &[u32],
) -> Result<Vec<u32>, Failure> {
    let blocked = match obstacles::check_clear(ctx, frame, handles).await {
        Err(failure) if failure.reason == FailureReason::PopupBlocking => failure,
        result => return result,
    };
    obstacles::clear_overlays(ctx, ctx.look().await?, kind).await?;
    obstacles::check_clear(ctx, frame, handles)
        .await
        .map_err(|failure| if failure.reason == FailureReason::PopupBlocking { blocked } else { failure })
}

/// Sends the form through the gate. An overlay that comes up at the last moment is removed once; as long as nothing was let go that
/// is safe.
///
/// # Errors
/// The button can't be pressed; the keeper denied the submission; the browser failed. If it was let go before that, the
/// failure is [`unanswered`].
async fn send(
    ctx: &Context,
    filled: &Filled,
    submission: Submission,
    kind: FormKind,
    opened: tokio::time::Instant,
) -> Result<SubmitReport, Failure> {
    let stamped = filled.frame.page.forms.get(filled.form.index).is_some_and(|facts| facts.stamped);
    let least = if stamped { ctx.limits.least_before_submit_stamped } else { ctx.limits.least_before_submit };
    if opened.elapsed() < least {
        let pause = async {
            tokio::time::sleep_until(opened + least).await;
            Ok(())
        };
        ctx.step("pause_before_submit", json!({ "stamped": stamped }), pause).await?;
    }
    if let Some(button) = &filled.form.submit {
        clear_of_overlays(ctx, kind, &filled.frame, &[button.handle]).await?;
    }
    fields::keep(ctx, &filled.frame, &filled.form, &filled.values, Duration::ZERO).await?;
    let gate = Gate::new(submission, ctx.gate.clone());
    let button = filled.form.submit.as_ref().map(|button| button.selector.clone());
    ctx.step("submit_form", json!({ "button": button, "form": filled.form.selector }), async {
        let mut report = ctx.tab.submit(&filled.trigger, &gate, ctx.limits.submit).await;
        if let Err(BrowserError::NotActionable { check: ActionCheck::ReceivesEvents, .. }) = &report
            && !gate.let_go()
        {
            obstacles::clear_overlays(ctx, ctx.look().await?, kind).await?;
            report = ctx.tab.submit(&filled.trigger, &gate, ctx.limits.submit).await;
        }
        if let Some(denied) = gate.denied() {
            return Err(denied);
        }
        report.map_err(|error| match error {
            error if gate.let_go() => unanswered(&error.to_string()).caused_by(&error),
            BrowserError::NotActionable { covering: Some(over), .. } => {
                obstacles::popup_blocking(&over.css, &over.text)
            }
            error => failed(error),
        })
    })
    .await
}

/// The submission was let go, and no answer came. The intent stays open, so whoever tries next looks before it acts.
pub fn unanswered(why: &str) -> Failure {
    let message = format!("the submission was let go, then: {why}");
    Failure::retryable(FailureReason::Unknown, "submit.unanswered", message)
}

/// Whether what the site did with the submission is known. A fault of the server is no answer: it may have come after the
/// comment or account was made.
pub fn is_answered(report: &SubmitReport, result: Result<(), &Failure>) -> bool {
    let fault = report.admitted.as_ref().and_then(|sent| sent.status).is_some_and(|status| status >= 500);
    match result {
        Ok(()) => true,
        Err(failure) => !fault && !matches!(failure.code.as_ref(), "submit.unanswered" | "outcome.uncertain"),
    }
}

/// The submission was let go, and what came of it can't be told.
pub fn uncertain(why: &str) -> Failure {
    let message = format!("{why}; whether the site took it can't be told, so look before retrying");
    Failure::terminal(FailureReason::Unknown, "outcome.uncertain", message)
}
