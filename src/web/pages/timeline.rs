//! The steps of an attempt on one axis: where the time went, and where it went wrong.

use chrono::Utc;
use maud::{Markup, html};

use super::format;
use crate::queue::{Attempt, Step};
use crate::record::{PageLog, REPORTING_STEPS};
use crate::web::wire::without_secrets;

/// Width of the axis in its own units.
const AXIS: f64 = 1000.0;
/// Least width of a bar: a step that took no time is still seen.
const TICK: f64 = 4.0;

/// The table of steps; what failed on the page while a step ran stands beside it.
pub fn table(attempt: &Attempt, log: &PageLog) -> Markup {
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
                @for part in parts(&attempt.steps) {
                    @match part {
                        Part::Step(n, step) => {
                            // The steps after the one that failed report the same error, and so does the attempt: it is told once.
                            @let reported = REPORTING_STEPS.contains(&step.name.as_str()) && step.error == attempt.error;
                            @let told = step.error.is_some()
                                && (reported || attempt.steps[..n].iter().any(|before| before.error == step.error));
                            (row(attempt, step, total, told, &troubles(step, log)))
                        }
                        Part::Marks(marks) => { (folded(attempt, marks)) }
                    }
                }
                @if attempt.status == "running" { (under_way(attempt, total)) }
            }
        }
    }
}

/// Steps that are shown as one row.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    /// One, and its place.
    Step(usize, &'a Step),
    /// Several in a row that only mark a moment, and went well.
    Marks(&'a [Step]),
}

/// Most marks in a row that are shown one by one.
const FEW_MARKS: usize = 2;

fn parts(steps: &[Step]) -> Vec<Part<'_>> {
    let is_mark = |step: &Step| step.status == "ok" && step.duration_ms < 0.05 && step.cost_usd <= 0.0;
    let mut parts = Vec::new();
    let mut at = 0;
    while at < steps.len() {
        let marks = steps[at..].iter().take_while(|step| is_mark(step)).count();
        if marks > FEW_MARKS {
            parts.push(Part::Marks(&steps[at..at + marks]));
            at += marks;
        } else {
            let few = marks.max(1);
            parts.extend((at..at + few).map(|n| Part::Step(n, &steps[n])));
            at += few;
        }
    }
    parts
}

/// Marks in a row: their names in one line, and each with its time and details when it is opened.
fn folded(attempt: &Attempt, marks: &[Step]) -> Markup {
    let (Some(first), Some(last)) = (marks.first(), marks.last()) else { return html! {} };
    html! {
        tr class="moment marks" {
            td class="num" { (first.seq) }
            td colspan="5" {
                details {
                    summary { (first.name) " … " (last.name) span class="quiet" { ", " (marks.len()) " marks" } }
                    ol start=(first.seq) {
                        @for mark in marks {
                            li { (mark.name) " " span class="quiet" { "at " (format::duration(offset(attempt, mark))) } (meta(mark)) }
                        }
                    }
                }
            }
        }
    }
}

fn meta(step: &Step) -> Markup {
    html! {
        @if step.meta.as_object().is_some_and(|meta| !meta.is_empty()) {
            details class="meta" {
                summary { span class="sr" { "Details of " (step.name) } }
                pre { (pretty(&without_secrets(step.meta.clone()))) }
            }
        }
    }
}

/// From the beginning of the attempt to the end of whatever ended last; to now while it runs.
fn total_ms(attempt: &Attempt) -> f64 {
    let ends = attempt.steps.iter().map(|step| offset(attempt, step) + step.duration_ms);
    let whole = match attempt.status.as_str() {
        "running" => Utc::now().signed_duration_since(attempt.started_at).num_milliseconds() as f64,
        _ => attempt.execution_time.unwrap_or(0.0) * 1e3,
    };
    ends.fold(whole, f64::max).max(1.0)
}

fn offset(attempt: &Attempt, step: &Step) -> f64 {
    let since = step.started_at.signed_duration_since(attempt.started_at);
    (since.num_microseconds().unwrap_or(0) as f64 / 1e3).max(0.0)
}

/// `2 failed requests`, `1 console error`: what the page had trouble with between the beginning and the end of a step.
fn troubles(step: &Step, log: &PageLog) -> Vec<String> {
    if step.duration_ms <= 0.0 {
        return Vec::new();
    }
    let within = |at| step.started_at <= at && at <= step.finished_at;
    let requests = log.network.requests.iter().filter(|request| request.failed() && within(request.at)).count();
    let errors = log.console.lines.iter().filter(|line| line.is_error() && within(line.at)).count();
    let counted = [(requests, "failed request"), (errors, "console error")];
    let some = counted.into_iter().filter(|(n, _)| *n > 0);
    some.map(|(n, what)| format!("{n} {what}{}", if n == 1 { "" } else { "s" })).collect()
}

fn row(attempt: &Attempt, step: &Step, total: f64, told: bool, troubles: &[String]) -> Markup {
    let failed = step.status == "failed";
    let from = (offset(attempt, step) / total * AXIS).clamp(0.0, AXIS - TICK);
    let width = (step.duration_ms / total * AXIS).clamp(TICK, AXIS - from);
    html! {
        tr class={ @if failed { "failed" } @else if step.duration_ms < 0.05 { "moment" } } {
            td class="num" { (step.seq) }
            td class="name" {
                @if failed { span class="mark" aria-label="failed" { "✕" } " " }
                (format::name(&step.name))
                @for trouble in troubles { " " span class="badge bad small" { (trouble) } }
                (meta(step))
                @if let Some(error) = step.error.as_ref().filter(|_| !told) { p class="error" { (error) } }
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

/// What goes on since the last step ended. Its name is known when it is over.
fn under_way(attempt: &Attempt, total: f64) -> Markup {
    let since = attempt.steps.iter().map(|step| offset(attempt, step) + step.duration_ms).fold(0.0, f64::max);
    let from = (since / total * AXIS).clamp(0.0, AXIS - TICK);
    html! {
        tr class="now" {
            td class="num" { "…" }
            td class="name" { "under way" }
            td class="axis" {
                svg class="bar" viewBox={ "0 0 " (AXIS) " 10" } preserveAspectRatio="none" aria-hidden="true" {
                    rect class="busy" x=(format!("{from:.1}")) y="0" width=(format!("{:.1}", AXIS - from)) height="10" {}
                }
            }
            td class="num" data-label="took" { (format::duration(total - since)) " so far" }
            td {} td {}
        }
    }
}

/// JSON on several lines.
pub fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_a_row_are_one_row_and_what_failed_or_took_time_never_is_in_it() {
        let now = Utc::now();
        let step = |(n, (status, duration_ms)): (usize, &(&'static str, f64))| Step {
            seq: n as i32 + 1,
            name: "x".to_owned(),
            status,
            started_at: now,
            finished_at: now,
            duration_ms: *duration_ms,
            tokens: 0,
            cost_usd: 0.0,
            retry_count: 0,
            error: None,
            meta: serde_json::Value::Null,
        };
        let (mark, timed, failed) = (("ok", 0.0), ("ok", 5.0), ("failed", 0.0));
        let steps: Vec<Step> =
            [mark, mark, mark, timed, mark, mark, failed, mark].iter().enumerate().map(step).collect();
        let shown: Vec<usize> = parts(&steps)
            .iter()
            .map(|part| match part {
                Part::Step(..) => 1,
                Part::Marks(marks) => marks.len(),
            })
            .collect();
        assert_eq!(shown, [3, 1, 1, 1, 1, 1]);
    }
}
