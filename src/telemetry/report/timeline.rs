//! Steps on one time axis: a bar for each that took time, a mark for each instant.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use super::{day_and_time, human};
use crate::record::StepRecord;

/// Most steps that are drawn; the rest is in `steps.jsonl`.
const SHOWN: usize = 500;
/// Most marks on the axis beside its beginning.
const MARKS: f64 = 6.0;

/// Where the steps lie in time, milliseconds.
struct Axis {
    start: DateTime<Utc>,
    span: f64,
}

impl Axis {
    fn of(steps: &[StepRecord]) -> Option<Axis> {
        let start = steps.iter().map(|step| step.started_at).min()?;
        let end = steps.iter().map(|step| step.finished_at).max()?;
        Some(Axis { start, span: ((end - start).num_microseconds()? as f64 / 1e3).max(1.0) })
    }

    /// Share of the axis, in percent, before `time`.
    fn place(&self, time: DateTime<Utc>) -> f64 {
        let after = (time - self.start).num_microseconds().unwrap_or_default() as f64 / 1e3;
        (after / self.span * 100.0).clamp(0.0, 100.0)
    }

    /// Round times to mark, milliseconds.
    fn marks(&self) -> Vec<f64> {
        let rough = self.span / MARKS;
        let power = 10_f64.powf(rough.log10().floor());
        let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
        let distance = factor * power;
        (0..)
            .map(|n| f64::from(n) * distance)
            .take(2 * MARKS as usize)
            .take_while(|mark| *mark <= self.span * 0.97)
            .collect()
    }
}

/// The steps, in their order, on a shared axis; `open` is unfolded.
pub(super) fn timeline(steps: &[StepRecord], open: Option<&StepRecord>) -> Markup {
    let shown = &steps[..steps.len().min(SHOWN)];
    let Some(axis) = Axis::of(shown) else { return html! { p.dim { "No step is on record." } } };
    let marks = axis.marks();
    html! {
        div.timeline {
            div.axis aria-hidden="true" {
                @for mark in &marks {
                    span style=(format!("left:{:.2}%", mark / axis.span * 100.0)) { (mark_text(*mark)) }
                }
            }
            ol {
                @for step in shown { (row(step, &axis, &marks, open.is_some_and(|open| open.seq == step.seq && !open.ok))) }
            }
        }
        @if steps.len() > shown.len() { p.dim { (steps.len() - shown.len()) " more in steps.jsonl" } }
    }
}

fn row(step: &StepRecord, axis: &Axis, marks: &[f64], open: bool) -> Markup {
    let left = axis.place(step.started_at);
    let width = axis.place(step.finished_at) - left;
    let timed = !step.duration.is_zero();
    let style = if timed { format!("left:{left:.2}%;width:{width:.2}%") } else { format!("left:{left:.2}%") };
    let after = (step.started_at - axis.start).to_std().unwrap_or_default();
    html! {
        li class=(if step.ok { "row" } else { "row bad" }) {
            details open[open] {
                summary {
                    span.name { (step.name) }
                    span.track aria-hidden="true" {
                        @for mark in marks { i style=(format!("left:{:.2}%", mark / axis.span * 100.0)) {} }
                        b class=(if timed { "bar" } else { "instant" }) style=(style) {}
                    }
                    span.time {
                        @if timed { (human(step.duration)) } @else { span.dim { "+" (human(after)) } }
                    }
                }
                div.more {
                    @if let Some(error) = &step.error { p.error { (error) } }
                    p.dim {
                        "step " (step.seq) " · began at +" (human(after)) " · " (day_and_time(step.started_at))
                        @if step.tokens > 0 { " · " (step.tokens) " tokens" }
                        @if step.cost_usd > 0.0 { " · $" (format!("{:.6}", step.cost_usd)) }
                    }
                    (meta(&step.meta))
                }
            }
        }
    }
}

/// What a step noted beside its times.
fn meta(meta: &Value) -> Markup {
    let fields = meta.as_object().into_iter().flatten().filter(|(key, _)| *key != "retry_count" && *key != "error");
    html! {
        dl.facts {
            @for (key, value) in fields {
                dt { (key) }
                dd { @match value { Value::String(text) => (text), other => code { (other.to_string()) } } }
            }
        }
    }
}

fn mark_text(mark: f64) -> String {
    match mark {
        0.0 => "0".to_owned(),
        _ if mark < 1_000.0 => format!("{mark} ms"),
        _ => format!("{} s", mark / 1e3),
    }
}
