//! Brings a form on the page, fills it, and sends it through the gate: what comments and sign-ups have in common.

use std::time::Duration;

use serde_json::json;

use super::forms::{ButtonFacts, Dictionary, Field, Form, FormKind, Role, Words};
use super::gate::{Gate, Submission};
use super::look::{FrameView, View, scroll_down, wait_for_fields};
use super::{Context, changed_under_us, failed, fallback, obstacles};
use crate::browser::{ActionCheck, BrowserError, ElementRef, SubmitReport};
use crate::failure::{Failure, FailureReason};

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
    /// The roles that were filled.
    pub roles: Vec<Role>,
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

/// Finds the form and fills it; from the start again while the document changes under us.
///
/// # Errors
/// No form, something in the way, a field that is required and unknown, a value that the form does not take.
pub async fn prepare(ctx: &Context, plan: &Plan<'_>) -> Result<Filled, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match prepare_once(ctx, plan, tries - 1).await {
            Err(failure) if tries < TRIES && changed_under_us(&failure) => continue,
            result => return result,
        }
    }
}

async fn prepare_once(ctx: &Context, plan: &Plan<'_>, retries: u32) -> Result<Filled, Failure> {
    let meta = json!({ "kind": plan.kind.as_str(), "step_retries": retries });
    let view = match ctx.step("find_form", meta, find(ctx, plan)).await {
        Err(missing) if fallback::may_help(ctx, &missing) => {
            ctx.step("ask_model", json!({ "kind": plan.kind.as_str() }), fallback::suggest(ctx, plan, missing)).await?
        }
        found => found?,
    };
    let (frame, form) = view.best(plan.kind).ok_or_else(|| (plan.missing)(&view))?;
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
    if let Some(group) = plan.needed.iter().find(|group| group.iter().all(|role| form.field(*role).is_none())) {
        let names: Vec<&str> = group.iter().map(|role| role.as_str()).collect();
        let message = format!("the {} form has no field for {}", plan.kind.as_str(), names.join(" or "));
        return Err(Failure::terminal(FailureReason::ElementNotFound, "form.field_missing", message));
    }
    refuse_unknown(form, plan)?;

    let trigger = match &form.submit {
        Some(button) => frame.element(button.handle),
        None if sent_by_enter(form) => frame.element(form.handle),
        None => {
            let message = format!("the {} form has no button that sends it", plan.kind.as_str());
            return Err(Failure::terminal(FailureReason::ElementNotFound, "form.no_submit", message));
        }
    };

    let mut todo: Vec<(&Field, &str)> = Vec::new();
    for (role, value) in &plan.values {
        if let Some(field) = form.field(*role).filter(|_| !value.is_empty()) {
            todo.push((field, value));
        }
    }
    let boxes: Vec<&Field> = form.fields.iter().filter(|field| wants_consent(field)).collect();
    let handles: Vec<u32> =
        todo.iter().map(|(field, _)| field.handle).chain(form.submit.as_ref().map(|button| button.handle)).collect();
    let traps = clear_of_overlays(ctx, plan.kind, frame, &handles).await?;
    let essential = |role: Role| plan.needed.iter().any(|group| group.contains(&role));
    todo.retain(|(field, _)| !traps.contains(&field.handle) || essential(field.role));

    let meta = json!({ "roles": todo.iter().map(|(field, _)| field.role.as_str()).collect::<Vec<_>>(), "boxes": boxes.len(), "step_retries": retries });
    ctx.step("fill_form", meta, async {
        for (field, value) in &todo {
            fill(ctx, frame, field, value).await?;
        }
        for field in &boxes {
            let element = frame.element(field.handle);
            ctx.tab.set_checked(&element, true, ctx.limits.action).await.map_err(failed)?;
        }
        Ok(())
    })
    .await?;

    let roles = todo.iter().map(|(field, _)| field.role).collect();
    let form = form.clone();
    let id = frame.frame.id.clone();
    let frame = view.frames.into_iter().find(|view| view.frame.id == id);
    let Some(frame) = frame else { unreachable!("the form's frame is one of the view's") };
    Ok(Filled { frame, form, trigger, roles })
}

/// Looks for the form: behind overlays, behind a button that brings it, and a little later.
async fn find(ctx: &Context, plan: &Plan<'_>) -> Result<View, Failure> {
    let deadline = tokio::time::Instant::now() + ctx.limits.appear;
    let mut view = obstacles::clear_overlays(ctx, ctx.look().await?, plan.kind).await?;
    let mut pressed: Vec<String> = Vec::new();
    loop {
        if view.best(plan.kind).is_some() {
            return Ok(view);
        }
        let missing = (plan.missing)(&view);
        let hopeless = matches!(missing.reason, FailureReason::Blocked | FailureReason::CaptchaPresent);
        let said_no = missing.reason == FailureReason::CommentFormNotFound && missing.code != "comments.no_form";
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        if hopeless || said_no || left.is_zero() {
            return Err(missing);
        }
        if plan.kind == FormKind::Comment {
            if let Some((element, css)) = reveal_button(&view, &pressed) {
                pressed.push(css);
                // A button that can't be pressed is not the way; the form may still come by itself.
                let _ = ctx.tab.click(&element, Duration::from_secs(2)).await;
            } else {
                scroll_down(&ctx.tab).await;
            }
        }
        wait_for_fields(&ctx.tab, &view, left.min(Duration::from_millis(1500))).await;
        view = ctx.look().await?;
    }
}

/// A button that says it brings the comments.
fn reveal_button(view: &View, pressed: &[String]) -> Option<(ElementRef, String)> {
    let dictionary = Dictionary::standard();
    let page = &view.main().page;
    let reveals = |button: &&ButtonFacts| {
        let leads_away = button.tag == "a"
            && !(button.href.starts_with('#') || button.href.is_empty() || button.href.starts_with("javascript:"));
        let words = Words::of_text(if button.text.is_empty() { &button.label } else { &button.text });
        let letters = dictionary.in_text("sign.reveal_comments", &words);
        button.hidden.is_empty()
            && button.form.is_none()
            && !leads_away
            && letters > 0
            && words.count() <= 6
            && !pressed.contains(&button.css)
    };
    let button = page.buttons.iter().find(reveals)?;
    Some((view.main().element(button.h), button.css.clone()))
}

/// A form without a button that the enter key sends: browsers do that where it has one line to fill and no more.
fn sent_by_enter(form: &Form) -> bool {
    let lines =
        form.fields.iter().filter(|field| field.tag == "input" && !matches!(field.kind.as_str(), "checkbox" | "radio"));
    form.is_form && lines.count() == 1
}

/// A box that has to be ticked, and may be.
fn wants_consent(field: &Field) -> bool {
    let said = field
        .reasons
        .iter()
        .any(|reason| !reason.starts_with("name") && !reason.starts_with("id") && !reason.starts_with("class"));
    field.role == Role::Consent && field.usable && !field.filled && (field.required || said)
}

/// A field that the site insists on, that is empty, and that we have nothing for.
fn refuse_unknown(form: &Form, plan: &Plan<'_>) -> Result<(), Failure> {
    let known = |field: &Field| {
        plan.values.iter().any(|(role, value)| *role == field.role && !value.is_empty())
            || (matches!(field.role, Role::Consent) && field.kind == "checkbox")
    };
    let unknown = form.fields.iter().find(|field| field.usable && field.required && !field.filled && !known(field));
    let Some(field) = unknown else { return Ok(()) };
    let message = format!(
        "the form insists on a field that nothing is known for: “{}” ({}, taken for {})",
        field.label,
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

async fn fill(ctx: &Context, frame: &FrameView, field: &Field, value: &str) -> Result<(), Failure> {
    // A maxlength counts UTF-16 units, and a line break in a text area as one.
    let units = value.replace("\r\n", "\n").encode_utf16().count();
    if let Some(max) = field.max.filter(|max| units > *max as usize) {
        let message = format!(
            "the field “{}” takes at most {max} characters; the {} has {units}",
            field.label,
            field.role.as_str()
        );
        return Err(Failure::terminal(FailureReason::Unknown, "input.too_long", message));
    }
    let element = frame.element(field.handle);
    let done = match field.tag.as_str() {
        "select" => ctx.tab.select(&element, value, ctx.limits.action).await,
        _ => ctx.tab.fill(&element, value, ctx.limits.action).await,
    };
    done.map_err(|error| {
        let failure = failed(error);
        Failure {
            message: format!("the field “{}” ({}): {}", field.label, field.selector, failure.message), ..failure
        }
    })
}

/// Sends the form through the gate. An overlay that comes up at the last moment is removed once; as long as nothing was let go that
/// is safe.
///
/// # Errors
/// The button can't be pressed; the keeper denied the submission; the browser failed. If it was let go before that, the
/// failure is [`unanswered`].
pub async fn send(
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
