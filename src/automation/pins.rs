//! Applies what an operator has pinned for the site: to each look at the page, before the form is looked for, after it is
//! filled, and to what the site says.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::filling::Filled;
use super::forms::{Control, FormKind, Role};
use super::look::View;
use super::verdict::{Needle, Shown, said};
use super::{Context, Success, failed};
use crate::browser::{ElementRef, Entry, FrameId};
use crate::failure::{Failure, FailureReason};
use crate::site::profile::{Extra, FormProfile, Step};

/// The elements that selectors find in a frame, as handles; `A >>> B` is B in the open shadow root of A.
const FIND: &str = r"(ph, selectors) => selectors.map(css => {
  let scope = document, found = null;
  for (const part of css.split('>>>')) {
    found = scope?.querySelector(part.trim()) ?? null;
    scope = found?.shadowRoot ?? null;
  }
  return found ? ph.keep(found) : null;
})";

/// Waits for one of them.
const WAIT: &str = r"(ph, css) => {
  let scope = document, found = null;
  for (const part of css.split('>>>')) {
    found = scope?.querySelector(part.trim()) ?? null;
    scope = found?.shadowRoot ?? null;
  }
  return found ? ph.keep(found) : null;
}";

fn pinned(ctx: &Context) -> Option<(&FormProfile, FormKind)> {
    let kind = match ctx.task.task_type.as_str() {
        "comment" => FormKind::Comment,
        "registration" => FormKind::Signup,
        _ => return None,
    };
    Some((ctx.support.form(&ctx.task.task_type)?, kind))
}

/// Lays what is pinned over what was understood of the page.
///
/// # Errors
/// A frame that was looked into can't be asked any more.
pub(super) async fn apply(ctx: &Context, view: &mut View) -> Result<(), Failure> {
    if ctx.support.profile.tester.captcha_passes {
        for frame in &mut view.frames {
            frame.page.captchas.clear();
        }
    }
    let Some((profile, kind)) = pinned(ctx) else { return Ok(()) };
    if !profile.pins() && profile.extra.is_empty() {
        return Ok(());
    }
    let roles: Vec<(Role, &str)> = profile
        .fields
        .iter()
        .filter_map(|(role, css)| Some((serde_json::from_value(json!(role)).ok()?, css.as_str())))
        .collect();
    let mut selectors: Vec<&str> = roles.iter().map(|(_, css)| *css).collect();
    selectors.extend(profile.extra.iter().map(|extra| extra.selector.as_str()));
    selectors.push(profile.form.as_deref().unwrap_or("pagehand-none"));
    selectors.push(profile.submit.as_deref().unwrap_or("pagehand-none"));
    for frame in &mut view.frames {
        let found: Vec<Option<u32>> =
            ctx.tab.call(&frame.frame.id, FIND, &[json!(selectors)], ctx.limits.look).await.map_err(failed)?;
        let (fields, rest) = found.split_at(roles.len().min(found.len()));
        let (extras, ends) = rest.split_at(profile.extra.len().min(rest.len()));
        let [form_handle, submit_handle] = ends else { continue };
        let holds =
            |form: &super::forms::Form| form.fields.iter().filter(|field| fields.contains(&Some(field.handle))).count();
        let chosen = match (&profile.form, form_handle) {
            (Some(_), Some(handle)) => frame.forms.iter().position(|form| form.handle == *handle),
            (Some(_), None) => None,
            (None, _) => {
                let best = frame.forms.iter().enumerate().max_by_key(|(_, form)| holds(form));
                best.filter(|(_, form)| holds(form) > 0).map(|(i, _)| i)
            }
        };
        let Some(form) = chosen.and_then(|i| frame.forms.get_mut(i)) else { continue };
        (form.kind, form.confidence, form.seen) = (kind, 1.0, true);
        form.reasons.insert(0, "profile".to_owned());
        for ((role, _), handle) in roles.iter().zip(fields) {
            let Some(handle) = handle else { continue };
            for field in &mut form.fields {
                if field.handle == *handle {
                    (field.role, field.score) = (*role, 10.0);
                    field.usable = field.hidden.is_empty() && *role != Role::Honeypot;
                    field.reasons.insert(0, "profile".to_owned());
                } else if field.role == *role {
                    field.role = Role::Other;
                }
            }
        }
        for handle in extras.iter().flatten() {
            // It is filled with its own value later, so nobody has to know what it is.
            for field in form.fields.iter_mut().filter(|field| field.handle == *handle) {
                (field.role, field.required) = (Role::Other, false);
            }
        }
        if let (Some(css), Some(handle)) = (&profile.submit, submit_handle) {
            let text = form.submit.as_ref().map(|button| button.text.clone()).unwrap_or_default();
            form.submit = Some(Control { selector: css.clone(), handle: *handle, text, disabled: false });
        }
    }
    Ok(())
}

/// Does what the profile says before the form is looked for.
///
/// # Errors
/// `profile.step`, with the number of the step and its selector; a page that does not come.
pub(super) async fn take_steps(ctx: &Context) -> Result<(), Failure> {
    let Some((profile, _)) = pinned(ctx) else { return Ok(()) };
    for (i, step) in profile.steps.iter().enumerate() {
        match step {
            Step::Open(address) => {
                let url = same_site(&ctx.task.url, address).ok_or_else(|| {
                    let message =
                        format!("step {} of the profile opens {address}, which is not the task's site", i + 1);
                    Failure::terminal(FailureReason::Unknown, "profile.step", message)
                })?;
                let landed = ctx.open("profile_step", &url).await?;
                if let Some(failure) = super::obstacles::refused_by_status(&landed) {
                    return Err(failure);
                }
            }
            Step::Click(css) | Step::WaitFor(css) => {
                let press = matches!(step, Step::Click(_));
                let meta = json!({ "selector": css, "does": if press { "click" } else { "wait_for" } });
                ctx.step("profile_step", meta, one_step(ctx, i, css, press)).await?;
            }
        }
    }
    Ok(())
}

async fn one_step(ctx: &Context, i: usize, css: &str, press: bool) -> Result<(), Failure> {
    let element = wait_for(ctx, &ctx.tab.main_frame(), css).await?.ok_or_else(|| {
        let message = format!("step {} of the profile: nothing on the page matches `{css}`", i + 1);
        Failure::terminal(FailureReason::ElementNotFound, "profile.step", message)
    })?;
    if press {
        ctx.tab.click(&element, ctx.limits.action).await.map_err(failed)?;
        // What it brings is waited for where it is looked for.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}

async fn wait_for(ctx: &Context, frame: &FrameId, css: &str) -> Result<Option<ElementRef>, Failure> {
    let handle: Option<u32> = ctx.tab.wait_for(frame, WAIT, &[json!(css)], ctx.limits.appear).await.map_err(failed)?;
    Ok(handle.map(|handle| ElementRef { frame: frame.clone(), handle }))
}

/// `address` as a whole, where it is of the same origin as `page`.
fn same_site(page: &str, address: &str) -> Option<String> {
    let page = url::Url::parse(page).ok()?;
    let url = page.join(address).ok()?;
    (url.origin() == page.origin()).then(|| url.to_string())
}

/// Fills the fields that always get the same value.
///
/// # Errors
/// `profile.field`, with the selector; a secret that can't be had.
pub(super) async fn fill_extra(ctx: &Context, filled: &Filled) -> Result<(), Failure> {
    let Some((profile, _)) = pinned(ctx) else { return Ok(()) };
    if profile.extra.is_empty() {
        return Ok(());
    }
    let selectors: Vec<&str> = profile.extra.iter().map(|extra| extra.selector.as_str()).collect();
    let work = async {
        for extra in &profile.extra {
            fill_one(ctx, &filled.frame.frame.id, extra).await?;
        }
        Ok(())
    };
    ctx.step("fill_profile_fields", json!({ "selectors": selectors }), work).await
}

async fn fill_one(ctx: &Context, frame: &FrameId, extra: &Extra) -> Result<(), Failure> {
    const TAG: &str = "(ph, n) => { const el = ph.get(n); return el && el.localName !== 'select' && ph.lists.drawn(el) ? 'listbox' : el?.localName ?? ''; }";
    let css = &extra.selector;
    let element = wait_for(ctx, frame, css).await?.ok_or_else(|| {
        let message = format!("the profile fills `{css}`, and nothing on the page matches that");
        Failure::terminal(FailureReason::ElementNotFound, "profile.field", message)
    })?;
    if let Some(checked) = extra.checked {
        return ctx.tab.set_checked(&element, checked, ctx.limits.action).await.map_err(failed);
    }
    let secret = extra.secret.as_ref().map(|reference| reference.resolve());
    let secret = secret.transpose().map_err(|error| {
        let message = format!("the secret for `{css}` can't be had: {error}");
        Failure::retryable(FailureReason::Unknown, "profile.secret", message)
    })?;
    let value = secret.as_ref().map(|secret| secret.expose_secret()).or(extra.value.as_deref()).unwrap_or_default();
    let tag: String = ctx.tab.call(frame, TAG, &[json!(element.handle)], ctx.limits.look).await.map_err(failed)?;
    let done = match tag.as_str() {
        "select" => ctx.tab.select(&element, value, ctx.limits.action).await,
        "listbox" => ctx.tab.choose(&element, Entry::Named(value), ctx.limits.action).await,
        _ => ctx.tab.fill(&element, value, ctx.limits.action).await,
    };
    done.map_err(failed)
}

/// What the site says in the words that the profile names; None where it says none of them.
pub(super) fn verdict(ctx: &Context, before: &Shown, after: &Shown) -> Option<Result<Success, Failure>> {
    let (profile, kind) = pinned(ctx)?;
    let new = |text: &&String| {
        let needle = Needle::new(text);
        needle.count(&after.text) > needle.count(&before.text)
    };
    if let Some(words) = profile.failure.iter().find(new) {
        let reason = match kind {
            FormKind::Signup => FailureReason::RegistrationFailed,
            _ => FailureReason::Unknown,
        };
        return Some(Err(Failure::terminal(reason, "form.rejected", said(words))));
    }
    let (done, waits) = match kind {
        FormKind::Signup => ("registered", super::confirmation::WAITING),
        _ => ("posted", "held_for_moderation"),
    };
    let success =
        |outcome: &str, words: &str| Some(Ok(Success::new(outcome).with("evidence", Value::from(said(words)))));
    if let Some(words) = profile.waiting.iter().find(new) {
        return success(waits, words);
    }
    profile.success.iter().find(new).and_then(|words| success(done, words))
}

#[cfg(test)]
mod tests {
    use super::same_site;

    #[test]
    fn a_step_stays_on_the_site() {
        let page = "https://s.example/a/b";
        assert_eq!(same_site(page, "/join").as_deref(), Some("https://s.example/join"));
        assert_eq!(same_site(page, "https://s.example/x").as_deref(), Some("https://s.example/x"));
        assert_eq!(same_site(page, "https://evil.example/x"), None);
        assert_eq!(same_site(page, "//evil.example/x"), None);
    }
}
