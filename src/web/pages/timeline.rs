//! The steps of an attempt on one axis: where the time went, and where it went wrong.

use maud::{Markup, html};

use super::format;
use crate::queue::{Attempt, Step};
use crate::web::wire::without_secrets;

/// Width of the axis in its own units.
const AXIS: f64 = 1000.0;
/// Least width of a bar: a step that took no time is still seen.
const TICK: f64 = 4.0;

/// The table of steps.
pub fn table(attempt: &Attempt) -> Markup {
    let total = total_ms(attempt);
    html! {
        table class="steps" {
            thead {
                tr {
                    th scope="col" class="num" { "#" }
                    th scope="col" { "Step" }
                    th scope="col" class="axis" {
                        div class="scale" {
                            span { "0" } span { (format::duration(total / 2.0)) } span { (format::duration(total)) }
                        }
                    }
                    th scope="col" class="num" { "Took" }
                    th scope="col" class="num" { "Tokens" }
                    th scope="col" class="num" { "Cost" }
                }
            }
            tbody {
                @for (n, step) in attempt.steps.iter().enumerate() {
                    // The steps after the one that failed report the same error: it is told once.
                    @let told = step.error.is_some() && attempt.steps[..n].iter().any(|before| before.error == step.error);
                    (row(attempt, step, total, told))
                }
            }
        }
    }
}

/// From the beginning of the attempt to the end of whatever ended last.
fn total_ms(attempt: &Attempt) -> f64 {
    let ends = attempt.steps.iter().map(|step| offset(attempt, step) + step.duration_ms);
    let whole = attempt.execution_time.unwrap_or(0.0) * 1e3;
    ends.fold(whole, f64::max).max(1.0)
}

fn offset(attempt: &Attempt, step: &Step) -> f64 {
    let since = step.started_at.signed_duration_since(attempt.started_at);
    (since.num_microseconds().unwrap_or(0) as f64 / 1e3).max(0.0)
}

fn row(attempt: &Attempt, step: &Step, total: f64, told: bool) -> Markup {
    let failed = step.status == "failed";
    let from = (offset(attempt, step) / total * AXIS).clamp(0.0, AXIS - TICK);
    let width = (step.duration_ms / total * AXIS).clamp(TICK, AXIS - from);
    let has_meta = step.meta.as_object().is_some_and(|meta| !meta.is_empty());
    html! {
        tr class={ @if failed { "failed" } @else if step.duration_ms <= 0.0 { "moment" } } {
            td class="num" { (step.seq) }
            td class="name" {
                @if failed { span class="mark" aria-label="failed" { "✕" } " " }
                (step.name)
                @if let Some(error) = step.error.as_ref().filter(|_| !told) { p class="error" { (error) } }
                @if has_meta {
                    details class="meta" {
                        summary { span class="sr" { "Details of " (step.name) } }
                        pre { (pretty(&without_secrets(step.meta.clone()))) }
                    }
                }
            }
            td class="axis" {
                svg class="bar" viewBox={ "0 0 " (AXIS) " 10" } preserveAspectRatio="none" aria-hidden="true" {
                    rect class=(if failed { "failed" } else { "ok" }) x=(format!("{from:.1}")) y="0" width=(format!("{width:.1}")) height="10" {}
                }
            }
            td class="num" data-label="took" { (format::took(step.duration_ms)) }
            td class="num" data-label="tokens" { @if step.tokens > 0 { (format::number(step.tokens)) } }
            td class="num" data-label="cost" { @if step.cost_usd > 0.0 { (format::dollars(step.cost_usd)) } }
        }
    }
}

/// JSON on several lines.
pub fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
