//! How the queue stands now, and what the last day, week or month came to.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::chart::{Chart, Series, stacked};
use super::{Place, format, layout, workers};
use crate::queue::{FailureCount, MIN_SAMPLES, Standing, StepSummary, Totals, WorkerNow};
use crate::web::auth::Caller;
use crate::web::summary_api::{Range, Summary};

/// Reasons that have a colour of their own; the others share one.
const COLOURS: [&str; 5] = ["c1", "c2", "c3", "c4", "c5"];

/// The runs that averages and sums over attempts are of.
const EXECUTED: &str = "&only=executed";
/// Those that are over, and of these those that took any time.
const ENDED: &str = "&not_status=pending,running,cancelled";
const TIMED: &str = "&not_status=pending,running,cancelled&only=executed";

/// The page.
pub fn page(caller: &Caller, range: Range, summary: &Summary, standing: Standing, workers: &[WorkerNow]) -> Markup {
    let main = html! {
        div class="head" {
            h1 { "Dashboard" }
            nav class="tabs compact" aria-label="Time range" {
                @for other in Range::ALL {
                    a href={ "/dashboard?range=" (other.as_str()) } aria-current=[(other == range).then_some("page")] { (other.as_str()) }
                }
            }
        }
        div data-live="numbers" id="numbers" {
            h2 class="part" { "Now" }
            (now(standing, workers))
            h2 class="part" {
                "The last " (range.in_words()) " "
                span class="quiet" { "runs enqueued in it, with all that was done for them since; compared with the " (range.in_words()) " before" }
            }
            (tiles(range, &summary.totals, &summary.previous))
            div class="columns even" { (runs(summary, range)) (reasons(summary, range)) }
            div class="columns" {
                (failures(range, summary))
                (steps(range, &summary.steps))
            }
        }
    };
    layout("Dashboard", Place::Dashboard, Some(caller), &main)
}

fn tile(name: &str, value: &Markup, note: &Markup, href: Option<&str>) -> Markup {
    html! {
        div class="tile" {
            span class="name" { (name) }
            @match href {
                Some(href) => { a class="value" href=(href) { (value) } }
                None => { span class="value" { (value) } }
            }
            span class="note" { (note) }
        }
    }
}

fn now(standing: Standing, workers: &[WorkerNow]) -> Markup {
    let alive: Vec<&WorkerNow> = workers.iter().filter(|worker| worker.alive).collect();
    let lost = workers.iter().filter(|worker| worker.is_lost()).count();
    let seconds = |seconds: f64| format::duration((seconds * 1e3).max(0.0));
    html! {
        div class="tiles" {
            (tile("Ready to be taken", &html! { (format::number(standing.ready)) }, &html! {
                @match standing.oldest_ready_seconds {
                    Some(age) => { "the oldest for " (seconds(age)) }
                    None => { "nothing waits for a worker" }
                }
            }, Some("/runs?status=pending&only=ready")))
            (tile("Waiting for their time", &html! { (format::number(standing.scheduled)) }, &html! {
                @match standing.next_in_seconds {
                    Some(next) => { "the next in " (seconds(next)) }
                    None => { "no retry and no later start" }
                }
            }, Some("/runs?status=pending&only=scheduled")))
            (tile("Running", &html! { (format::number(standing.running)) }, &html! {
                @let busy = alive.iter().filter(|worker| !worker.tasks.is_empty()).count();
                @if busy == 1 { "on one worker" } @else if busy > 1 { "on " (busy) " workers" } @else { "no worker is at work" }
            }, Some("/runs?status=running")))
            (tile("Workers", &html! { (alive.len()) }, &html! {
                @if alive.is_empty() { span class="bad" { "none: nothing is worked off" } }
                @else { "seen within 20 s" }
                @if lost > 0 { ", " a class="bad" href="/workers" { (lost) " lost" } " within the hour" }
            }, Some("/workers")))
        }
        @if standing.running > 0 { (workers::doing(workers)) }
    }
}

fn tiles(range: Range, now: &Totals, before: &Totals) -> Markup {
    let (since, earlier) = (format!("/runs?since={}", range.as_str()), format!("/runs?{}", range.before()));
    let text = |value: Option<f64>, shown: fn(f64) -> String| html! { (value.map_or(format::NONE.to_owned(), shown)) };
    let number = |n: f64| format::number(n.round() as i64);
    // `of`: which of the runs of either period the number is about.
    let compared = |name: &str, n: Option<f64>, was: Option<f64>, shown: fn(f64) -> String, of: &str| {
        let earlier = format!("{earlier}{of}");
        tile(name, &text(n, shown), &change(n, was, shown, &earlier), Some(&format!("{since}{of}")))
    };
    let count = |name: &str, n: i64, was: i64, of: &str| compared(name, Some(n as f64), Some(was as f64), number, of);
    html! {
        div class="tiles" {
            (count("Runs", now.total_runs, before.total_runs, ""))
            (tile("Success rate", &text(now.success_rate, format::percent), &html! {
                (number_of(now.completed, &format!("{since}&status=completed"))) " of "
                (number_of(now.completed + now.failed, &format!("{since}{ENDED}")))
                @if let Some(was) = before.success_rate { ", was " a href={ (earlier) (ENDED) } { (format::percent(was)) } }
            }, Some(&format!("{since}{ENDED}"))))
            (count("Dead letters", now.failed, before.failed, "&status=failed"))
            (tile("Cost", &text(Some(now.total_cost_usd), format::dollars), &html! {
                @if now.wasted_cost_usd > 0.0 {
                    a href={ (since) "&only=wasted" } { (format::dollars(now.wasted_cost_usd)) } " wasted on failures"
                } @else { "nothing wasted" }
            }, Some(&format!("{since}{EXECUTED}"))))
            (compared("Average duration", now.avg_latency_ms, before.avg_latency_ms, format::duration, TIMED))
            (tile("95th percentile", &text(now.p95_latency_ms, format::duration), &html! {
                @if now.p95_latency_ms.is_none() {
                    "needs " (MIN_SAMPLES) " runs, has " (number_of(now.latency_samples, &format!("{since}{TIMED}")))
                } @else { (change(now.p95_latency_ms, before.p95_latency_ms, format::duration, &format!("{earlier}{TIMED}"))) }
            }, Some(&format!("{since}{TIMED}"))))
            (compared("Tokens per run", now.avg_tokens_per_run, before.avg_tokens_per_run, number, EXECUTED))
            (tile("Cost per run", &text(now.avg_cost_usd_per_run, format::dollars), &html! {
                @if let Some(cost) = now.cost_usd_per_success {
                    a href={ (since) "&status=completed" } { (format::dollars(cost)) } " per success"
                } @else { "\u{a0}" }
            }, Some(&format!("{since}{EXECUTED}"))))
        }
    }
}

fn number_of(n: i64, href: &str) -> Markup {
    html! { a href=(href) { (format::number(n)) } }
}

/// What a number was in the period before, and by how much it has changed; blank where there is nothing to compare with.
fn change(now: Option<f64>, before: Option<f64>, shown: fn(f64) -> String, earlier: &str) -> Markup {
    html! {
        @if let (Some(now), Some(before)) = (now, before) && before > 0.0 {
            @let percent = (now - before) / before * 100.0;
            "was " a href=(earlier) { (shown(before)) } " ("
            @if percent.abs() < 0.5 { "unchanged" }
            @else if percent > 999.0 { "× " (format!("{:.0}", now / before)) }
            @else { (if percent > 0.0 { "+" } else { "−" }) (format!("{:.0}", percent.abs())) " %" }
            ")"
        } @else { "\u{a0}" }
    }
}

fn runs(summary: &Summary, range: Range) -> Markup {
    let series = |name: &str, class, query: Option<&str>, counts| Series {
        name: name.to_owned(),
        class,
        query: query.map(str::to_owned),
        counts,
    };
    let parts = &summary.series;
    stacked(&Chart {
        title: "Runs",
        unit: range.part_in_words(),
        length: range.part(),
        parts: parts.iter().map(|part| part.at).collect(),
        series: vec![
            series(
                "completed",
                "completed",
                Some("status=completed"),
                parts.iter().map(|part| part.completed).collect(),
            ),
            series("failed", "failed", Some("status=failed"), parts.iter().map(|part| part.failed).collect()),
            series(
                "other",
                "other",
                Some("not_status=completed,failed"),
                parts.iter().map(|part| part.other).collect(),
            ),
        ],
    })
}

fn reasons(summary: &Summary, range: Range) -> Markup {
    let (main, rest) = summary.failures.split_at(summary.failures.len().min(COLOURS.len()));
    let count = |reason: &FailureCount| {
        summary.series.iter().map(|part| part.failures.get(&reason.failure_reason).copied().unwrap_or(0)).collect()
    };
    let mut series: Vec<Series> = main
        .iter()
        .zip(COLOURS)
        .map(|(reason, class)| Series {
            name: reason.failure_reason.clone(),
            class,
            query: Some(format!("status=failed&failure_reason={}", reason.failure_reason)),
            counts: count(reason),
        })
        .collect();
    if !rest.is_empty() {
        let main: Vec<&str> = main.iter().map(|reason| reason.failure_reason.as_str()).collect();
        let others: Vec<Vec<i64>> = rest.iter().map(count).collect();
        series.push(Series {
            name: "other reasons".to_owned(),
            class: "c6",
            query: Some(format!("status=failed&not_failure_reason={}", main.join(","))),
            counts: (0..summary.series.len()).map(|n| others.iter().map(|counts| counts[n]).sum()).collect(),
        });
    }
    stacked(&Chart {
        title: "Dead letters",
        unit: range.part_in_words(),
        length: range.part(),
        parts: summary.series.iter().map(|part| part.at).collect(),
        series,
    })
}

fn failures(range: Range, summary: &Summary) -> Markup {
    let most = summary.failures.iter().map(|failure| failure.n).max().unwrap_or(1).max(1);
    let before: BTreeMap<&str, i64> =
        summary.previous_failures.iter().map(|failure| (failure.failure_reason.as_str(), failure.n)).collect();
    html! {
        section {
            h2 { "Dead letters by reason" }
            @if summary.failures.is_empty() { p class="quiet" { "None in this time." } }
            @else {
                table class="plain" {
                    thead {
                        tr {
                            th scope="col" { "Reason" } th scope="col" class="num" { "Runs" } th scope="col" class="num" { "Before" }
                            th scope="col" class="axis" { span class="sr" { "Share" } }
                        }
                    }
                    tbody {
                        @for failure in &summary.failures {
                            tr {
                                th scope="row" { (format::name(&failure.failure_reason)) }
                                td class="num" {
                                    a href={ "/runs?status=failed&failure_reason=" (failure.failure_reason) "&since=" (range.as_str()) } { (format::number(failure.n)) }
                                }
                                @let was = before.get(failure.failure_reason.as_str()).copied().unwrap_or(0);
                                td class="num quiet" {
                                    @if was == 0 { "0" }
                                    @else { a href={ "/runs?status=failed&failure_reason=" (failure.failure_reason) "&" (range.before()) } { (format::number(was)) } }
                                }
                                td class="axis" {
                                    svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                                        rect class="failed" x="0" y="0" height="10" width=(failure.n * 1000 / most) {}
                                    }
                                }
                            }
                        }
                    }
                }
                p { a href="/failures" { "Failures in groups, with what they looked like" } }
            }
        }
    }
}

fn steps(range: Range, steps: &[StepSummary]) -> Markup {
    let (timed, marks): (Vec<_>, Vec<_>) = steps.iter().partition(|step| step.avg_ms >= 0.05 || step.cost_usd > 0.0);
    html! {
        section {
            h2 { "Steps" }
            @if steps.is_empty() { p class="quiet" { "None in this time." } }
            @else {
                div class="scroll" tabindex="0" role="region" aria-label="Steps" {
                    table class="plain" {
                        thead {
                            tr {
                                th scope="col" { "Step" } th scope="col" class="num" { "Taken" } th scope="col" class="num" { "Average" }
                                th scope="col" class="num" { abbr title={ "95th percentile; blank under " (MIN_SAMPLES) " samples" } { "p95" } }
                                th scope="col" class="num" { "Failed" } th scope="col" class="num" { "In retries" }
                                th scope="col" class="num" { "Tokens" } th scope="col" class="num" { "Cost" }
                            }
                        }
                        tbody { @for step in timed { (row(range, step)) } }
                    }
                }
                @if !marks.is_empty() {
                    details class="more" {
                        summary { "Marks, which take no time " span class="quiet" { (marks.len()) } }
                        ul class="marks" { @for mark in marks { li { (mark.name) " " (number_of(mark.n, &taken(range, mark))) } } }
                    }
                }
            }
        }
    }
}

/// The runs in which a step was taken.
fn taken(range: Range, step: &StepSummary) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("step", &step.name).finish();
    format!("/runs?{query}&since={}", range.as_str())
}

fn row(range: Range, step: &StepSummary) -> Markup {
    let taken = taken(range, step);
    let failed = taken.replace("?step=", "?failed_step=");
    html! {
        tr {
            th scope="row" { (format::name(&step.name)) }
            td class="num" { (number_of(step.n, &taken)) }
            td class="num" { @if step.avg_ms >= 0.05 { a href=(taken) { (format::took(step.avg_ms)) } } }
            td class="num" { @if let Some(p95) = step.p95_ms && p95 >= 0.05 && step.avg_ms >= 0.05 { a href=(taken) { (format::took(p95)) } } }
            td class="num" {
                @if step.failure_rate > 0.0 { a class="bad" href=(failed) { (format::percent(step.failure_rate)) } }
            }
            td class="num" { @if step.retries > 0 { (number_of(step.retries, &format!("{taken}&min_retries=1"))) } }
            td class="num" { @if step.tokens > 0 { (number_of(step.tokens, &taken)) } }
            td class="num" { @if step.cost_usd > 0.0 { a href=(taken) { (format::dollars(step.cost_usd)) } } }
        }
    }
}
