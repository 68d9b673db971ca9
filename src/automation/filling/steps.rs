//! Forms that are split over steps or pages.

use std::time::Duration;

use tokio::time::Instant;

use super::super::forms::{Dictionary, Form, FormKind, Role, Words};
use super::super::verdict::refusal;
use super::find::{asks_for_more, chosen};
use super::{Context, Filled, Plan, Shown, Submission, failed, fields, pins, prepare, see, send};
use crate::browser::SubmitReport;
use crate::failure::Failure;

/// Most steps of one form.
const MOST_STEPS: usize = 8;
/// So long the next step may take to be drawn.
const NEXT_STEP: Duration = Duration::from_millis(1500);

/// A form that was sent, its last step.
pub struct Sent {
    /// What was filled in last.
    pub filled: Filled,
    /// The page before the first value was put in.
    pub untouched: Shown,
    /// The page right before it was sent.
    pub before: Shown,
    /// What came of the press.
    pub report: SubmitReport,
}

/// Finds the form, fills it and sends it, step by step. `submission` says what the request looks like that can't be taken
/// back, once the form is filled.
///
/// # Errors
/// As [`prepare`] and [`send`].
pub async fn carry_through(
    ctx: &Context,
    plan: &Plan<'_>,
    submission: impl Fn(&Filled) -> Submission,
    opened: Instant,
) -> Result<Sent, Failure> {
    let untouched = see(ctx).await?;
    let mut done: Vec<Role> = Vec::new();
    let mut again = true;
    let mut steps = 0;
    loop {
        steps += 1;
        let filled = prepare(ctx, plan, &done).await?;
        pins::fill_extra(ctx, &filled).await?;
        let handles: Vec<u32> = filled.values.iter().map(|(handle, ..)| *handle).collect();
        let held =
            plan.kind == FormKind::Signup && fields::holds_back(ctx, &filled.frame, &filled.form, &handles).await?;
        let before = see(ctx).await?;
        // What the site says of a name or an address while it is typed is its answer: there is nothing to send.
        if let Some(failure) = held.then(|| refusal(&untouched, &before, false)).flatten() {
            return Err(failure);
        }
        let report = send(ctx, &filled, submission(&filled), plan.kind, opened).await?;
        let earlier = std::mem::replace(&mut done, filled.roles.clone());
        let rest = plan.values.iter().any(|(role, value)| !value.is_empty() && !done.contains(role));
        if rest && steps < MOST_STEPS && goes_further(ctx, plan, &filled, &report, &done).await? {
            // What the next step asks the site while it is filled is no late submission of this one.
            ctx.tab.unseal();
            continue;
        }
        // The page emptied the fields at the last moment, and the browser did not send them: nothing has left.
        if report.admitted.is_none() && report.landed.is_none() && again && was_emptied(ctx, &filled).await? {
            (again, done) = (false, earlier);
            continue;
        }
        return Ok(Sent { filled, untouched, before, report });
    }
}

/// Whether the form has a button to go on with rather than one to send it.
pub(super) fn goes_on(form: &Form) -> bool {
    let dictionary = Dictionary::standard();
    let says_next = |text: &str| {
        let words = Words::of_text(text);
        words.count() <= 4 && dictionary.in_text("sign.next", &words) > 0
    };
    form.submit.as_ref().is_some_and(|button| says_next(&button.text))
        && form.fields.iter().any(|field| field.usable && field.role != Role::Other)
}

/// Whether the press brought a further step of the form: one with fields for what is not filled yet. The same fields
/// once more are not a step but a refusal.
async fn goes_further(
    ctx: &Context,
    plan: &Plan<'_>,
    filled: &Filled,
    report: &SubmitReport,
    done: &[Role],
) -> Result<bool, Failure> {
    // What was sent as a whole is no step, whatever the next page asks for.
    let whole = plan.needed.iter().all(|group| group.iter().any(|role| done.contains(role)));
    if report.admitted.is_some() && whole && !goes_on(&filled.form) {
        return Ok(false);
    }
    let deadline = Instant::now() + if goes_on(&filled.form) { NEXT_STEP } else { Duration::ZERO };
    loop {
        if let Ok(view) = ctx.look().await
            && chosen(&view, plan, done).is_some_and(|(_, form)| {
                let same = form.fields.iter().any(|field| {
                    field.usable && !field.filled && filled.values.iter().any(|(handle, ..)| *handle == field.handle)
                });
                !same && asks_for_more(form, plan, done) > 0 && (form.kind == plan.kind || form.submit.is_some())
            })
        {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn was_emptied(ctx: &Context, filled: &Filled) -> Result<bool, Failure> {
    const CHANGED: &str = "(ph, filled) => ph.changed(filled).length > 0";
    let values = filled.values.iter().map(|(handle, _, value)| serde_json::json!([handle, value])).collect::<Vec<_>>();
    let args = [serde_json::Value::from(values)];
    ctx.tab.call(&filled.frame.frame.id, CHANGED, &args, ctx.limits.look).await.map_err(failed)
}
