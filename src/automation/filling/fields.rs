//! Puts values into fields, and sees that they stay there.

use std::time::Duration;

use serde_json::json;

use super::super::forms::{Dictionary, Field, Form, Role, Words};
use super::super::look::FrameView;
use super::super::{Context, failed};
use super::dates;
use crate::browser::{BrowserError, ElementRef, Entry};
use crate::failure::{Failure, FailureReason};

/// So long after filling a page may take to put a field back.
pub(super) const SETTLES: Duration = Duration::from_millis(150);
/// So long a form may take to say what it thinks of what was filled in.
const CHECKS: Duration = Duration::from_secs(3);
/// How often fields that were put back are filled again.
const AGAIN: u32 = 3;

/// Fills the fields in their order; what was put into which.
pub(super) async fn fill_all(
    ctx: &Context,
    frame: &FrameView,
    todo: &[(&Field, &str)],
) -> Result<Vec<(u32, Role, String)>, Failure> {
    let dates: Vec<&Field> =
        todo.iter().filter(|(field, _)| field.role == Role::Birthdate).map(|(field, _)| *field).collect();
    let mut values = Vec::new();
    for (field, value) in todo {
        let value = if field.role == Role::Birthdate {
            match dates::part(frame, field, dates.len(), value) {
                Some(part) => part,
                None => continue,
            }
        } else {
            (*value).to_owned()
        };
        fill(ctx, frame, field, &value).await?;
        values.push((field.handle, field.role, value));
    }
    Ok(values)
}

/// Waits `settles`, then fills again what no longer holds its value.
///
/// # Errors
/// `dom.stale` where the field itself is another by now; `dom.not_filled` where the page keeps putting it back.
pub(super) async fn keep(
    ctx: &Context,
    frame: &FrameView,
    form: &Form,
    values: &[(u32, Role, String)],
    settles: Duration,
) -> Result<(), Failure> {
    const CHANGED: &str =
        "(ph, filled) => { const changed = ph.changed(filled); return changed.length ? changed : null; }";
    let filled = json!(values.iter().map(|(handle, _, value)| json!([handle, value])).collect::<Vec<_>>());
    for _ in 0..AGAIN {
        let changed: Option<Vec<u32>> =
            ctx.tab.wait_for(&frame.frame.id, CHANGED, std::slice::from_ref(&filled), settles).await.map_err(failed)?;
        let Some(changed) = changed else { return Ok(()) };
        ctx.note("fields_put_back", json!({ "fields": changed.len() }));
        for (handle, _, value) in values.iter().filter(|(handle, ..)| changed.contains(handle)) {
            let Some(field) = form.fields.iter().find(|field| field.handle == *handle) else { continue };
            fill(ctx, frame, field, value).await?;
        }
    }
    Ok(())
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
        "select" => select(ctx, frame, field, &element, value).await,
        "listbox" => {
            let entry = match field.role {
                Role::Birthdate => Entry::OfDate(value.trim_start_matches('0')),
                _ => Entry::Named(value),
            };
            match ctx.tab.choose(&element, entry, ctx.limits.action).await {
                // A script may have set it back in that moment.
                Err(BrowserError::NotFilled { .. }) => ctx.tab.choose(&element, entry, ctx.limits.action).await,
                chosen => chosen,
            }
        }
        _ => ctx.tab.fill(&element, value, ctx.limits.action).await,
    };
    done.map_err(|error| {
        let failure = failed(error);
        Failure {
            message: format!("the field “{}” ({}): {}", field.label, field.selector, failure.message), ..failure
        }
    })?;
    choose_suggestion(ctx, frame, field, value).await
}

/// Gives a form that checks what is typed the time to say what it thinks of it; whether it holds itself back then.
pub(super) async fn holds_back(ctx: &Context, frame: &FrameView, form: &Form, filled: &[u32]) -> Result<bool, Failure> {
    const HELD: &str = r"(ph, form, filled, button) => {
      const el = ph.get(form), sends = button === null ? null : ph.get(button);
      const signs = '[role=alert],[role=status],[aria-live],[data-remote],[data-val-remote],[hx-get],[hx-post],[class*=feedback i],[class*=validation i],[class*=error i],[class*=availab i],[class*=checking i]';
      const busy = '[aria-busy=true],[class*=checking i],[class*=validating i],[class*=pending i]';
      ph.filledAt ??= performance.now();
      const waited = performance.now() - ph.filledAt;
      const wrong = filled.map(n => ph.get(n)).some(one => one?.getAttribute('aria-invalid') === 'true');
      const off = sends && (sends.matches(':disabled') || sends.getAttribute('aria-disabled') === 'true');
      const said = [...(el?.querySelectorAll('[role=alert],[aria-live],[class*=error i],[class*=feedback i]') ?? [])].some(one => one.checkVisibility({ visibilityProperty: true }) && one.innerText?.trim());
      if ((wrong || off) && said) return true;
      const checks = el?.querySelector(signs) || off;
      return !checks || (waited > 700 && !off && !el.querySelector(busy)) ? false : null;
    }";
    let button = form.submit.as_ref().map(|button| button.handle);
    let args = [json!(form.handle), json!(filled), json!(button)];
    let limit = CHECKS.min(ctx.limits.action);
    let held: Option<bool> = ctx.tab.wait_for(&frame.frame.id, HELD, &args, limit).await.map_err(failed)?;
    Ok(held.unwrap_or(false))
}

async fn select(
    ctx: &Context,
    frame: &FrameView,
    field: &Field,
    element: &ElementRef,
    value: &str,
) -> Result<(), BrowserError> {
    if field.role != Role::Birthdate {
        return ctx.tab.select(element, value, ctx.limits.action).await;
    }
    const ENTRY: &str = r"(ph, n, wanted) => {
      const options = [...(ph.get(n)?.options ?? [])].filter(option => !option.disabled && (option.value || option.text).trim());
      return ph.dateEntry(options, wanted)?.value ?? wanted;
    }";
    let args = [json!(field.handle), json!(value.trim_start_matches('0'))];
    let entry: String = ctx.tab.call(&frame.frame.id, ENTRY, &args, ctx.limits.look).await?;
    ctx.tab.select(element, &entry, ctx.limits.action).await
}

/// A field that offers entries while one types takes only one of them.
async fn choose_suggestion(ctx: &Context, frame: &FrameView, field: &Field, value: &str) -> Result<(), Failure> {
    const OPTION: &str = r"(ph, n, wanted) => {
      const el = ph.get(n);
      if (!el || !(el.getAttribute('role') === 'combobox' || el.getAttribute('aria-haspopup') === 'listbox')) return 0;
      const list = (el.getAttribute('aria-controls') ?? el.getAttribute('aria-owns') ?? '').split(/\s+/).map(id => document.getElementById(id)).find(Boolean);
      const plain = text => text.replace(/\s+/g, ' ').trim().toLowerCase();
      const options = ph.deepQueryAll('[role=option]', list ?? document).filter(option => option.checkVisibility({ visibilityProperty: true }) && option.getClientRects().length);
      const found = options.find(option => plain(option.innerText) === plain(wanted) || option.dataset.value === wanted) ?? options.find(option => plain(option.innerText).includes(plain(wanted)));
      return found ? ph.keep(found) : null;
    }";
    if field.tag != "input" {
        return Ok(());
    }
    let args = [json!(field.handle), json!(value)];
    let limit = Duration::from_secs(2).min(ctx.limits.action);
    let option: Option<u32> = ctx.tab.wait_for(&frame.frame.id, OPTION, &args, limit).await.map_err(failed)?;
    match option {
        Some(0) | None => Ok(()),
        Some(handle) => ctx.tab.click(&frame.element(handle), limit).await.map_err(failed),
    }
}

/// Whether a text says that a box is about terms that have to be agreed to, and nothing else.
pub(super) fn says_consent(text: &str) -> bool {
    let words = Words::of_text(text);
    let dictionary = Dictionary::standard();
    dictionary.in_text("role.consent", &words) > 0 && dictionary.in_text("role.newsletter_opt_in", &words) == 0
}
