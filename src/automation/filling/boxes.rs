//! Boxes to tick: terms and privacy are agreed to, news and reminders left alone.

use serde::Deserialize;
use serde_json::json;

use super::super::forms::{Field, Form, Role};
use super::super::look::FrameView;
use super::super::{Context, failed};
use super::fields::says_consent;
use crate::browser::ElementRef;
use crate::failure::Failure;

/// A box that a script draws.
#[derive(Deserialize)]
struct Drawn {
    handle: u32,
    text: String,
    required: bool,
}

/// The boxes of a form that have to be ticked, and may be.
pub(super) async fn to_tick(ctx: &Context, frame: &FrameView, form: &Form) -> Result<Vec<ElementRef>, Failure> {
    const DRAWN: &str = r"(ph, n) => {
      const form = ph.get(n);
      if (!form) return [];
      const boxes = ph.deepQueryAll('[role=checkbox],[role=switch]', form).filter(box => box.localName !== 'input' && box.getAttribute('aria-checked') !== 'true' && box.checkVisibility({ visibilityProperty: true }));
      const text = box => box.innerText?.trim() || box.getAttribute('aria-label') || document.getElementById(box.getAttribute('aria-labelledby'))?.innerText || box.parentElement?.innerText || '';
      return boxes.slice(0, 8).map(box => ({ handle: ph.keep(box), text: text(box).slice(0, 300).toWellFormed(), required: box.getAttribute('aria-required') === 'true' }));
    }";
    let native = form.fields.iter().filter(|field| wants_consent(field)).map(|field| frame.element(field.handle));
    let drawn: Vec<Drawn> =
        ctx.tab.call(&frame.frame.id, DRAWN, &[json!(form.handle)], ctx.limits.look).await.map_err(failed)?;
    let drawn = drawn.into_iter().filter(|one| one.required || says_consent(&one.text));
    Ok(native.chain(drawn.map(|one| frame.element(one.handle))).collect())
}

fn wants_consent(field: &Field) -> bool {
    let said = field
        .reasons
        .iter()
        .any(|reason| !reason.starts_with("name") && !reason.starts_with("id") && !reason.starts_with("class"));
    field.role == Role::Consent && field.usable && !field.filled && (field.required || said)
}
