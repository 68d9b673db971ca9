//! Boxes to tick: terms and privacy are agreed to, news and reminders left alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::super::forms::{Dictionary, Field, FieldFacts, Form, Role};
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
    let native = form.fields.iter().filter(|field| wants_consent(field)).map(|field| field.handle);
    let native = native.chain(agreements(frame, form)).map(|handle| frame.element(handle));
    let drawn: Vec<Drawn> =
        ctx.tab.call(&frame.frame.id, DRAWN, &[json!(form.handle)], ctx.limits.look).await.map_err(failed)?;
    let drawn = drawn.into_iter().filter(|one| one.required || says_consent(&one.text));
    Ok(native.chain(drawn.map(|one| frame.element(one.handle))).collect())
}

/// Of each group of radio buttons that has to be answered and asks whether one agrees: the one that does.
pub(super) fn agreements(frame: &FrameView, form: &Form) -> Vec<u32> {
    let dictionary = Dictionary::standard();
    let facts = |field: &Field| frame.page.fields.iter().find(|facts| facts.h == field.handle);
    let mut groups: BTreeMap<&str, Vec<(&Field, &FieldFacts)>> = BTreeMap::new();
    for field in form.fields.iter().filter(|field| field.kind == "radio" && field.usable) {
        if let Some(facts) = facts(field) {
            groups.entry(&facts.name).or_default().push((field, facts));
        }
    }
    let own = |facts: &FieldFacts, says: &dyn Fn(&str) -> bool| {
        let bound =
            facts.labels.iter().filter(|label| matches!(label.via.as_str(), "for" | "wrap" | "labelledby" | "after"));
        bound.map(|label| label.text.as_str()).chain([facts.aria.as_str()]).any(says)
    };
    let refuses = |text: &str| dictionary.says_mostly("button.decline", text);
    let agrees = |text: &str| (says_consent(text) || dictionary.says_mostly("button.accept", text)) && !refuses(text);
    let open = |group: &[(&Field, &FieldFacts)]| {
        group.iter().any(|(field, _)| field.required) && !group.iter().any(|(field, _)| field.filled)
    };
    let groups = groups.into_values().filter(|group| open(group));
    let found = groups.filter_map(|group| {
        let mut yes = group.iter().filter(|(_, facts)| own(facts, &agrees) && !own(facts, &refuses));
        let terms = group.iter().any(|(_, facts)| own(facts, &says_consent));
        match (yes.next(), yes.next()) {
            (Some((field, _)), None) if terms => Some(field.handle),
            _ => None,
        }
    });
    found.collect()
}

fn wants_consent(field: &Field) -> bool {
    let said = field
        .reasons
        .iter()
        .any(|reason| !reason.starts_with("name") && !reason.starts_with("id") && !reason.starts_with("class"));
    field.role == Role::Consent && field.usable && !field.filled && (field.required || said)
}
