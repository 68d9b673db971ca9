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
    let gone = workers.len() - alive.len();
    let seconds = |seconds: f64| format::duration((seconds * 1e3).max(0.0));
    html! {
        div class="tiles" {
            (tile("Ready to be taken", &html! { (format::number(standing.ready)) }, &html! {
                @match standing.oldest_ready_seconds {
                    Some(age) => { "the oldest for " (seconds(age)) }
                    None => { "nothing waits for a worker" }
                }
            }, Some("/runs?status=pending")))
            (tile("Waiting for their time", &html! { (format::number(standing.scheduled)) }, &html! {
                @match standing.next_in_seconds {
                    Some(next) => { "the next in " (seconds(next)) }
                    None => { "no retry and no later start" }
                }
            }, Some("/runs?status=pending")))
            (tile("Running", &html! { (format::number(standing.running)) }, &html! {
                @let busy = alive.iter().filter(|worker| !worker.tasks.is_empty()).count();
                @if busy == 1 { "on one worker" } @else if busy > 1 { "on " (busy) " workers" } @else { "no worker is at work" }
            }, Some("/runs?status=running")))
            (tile("Workers", &html! { (alive.len()) }, &html! {
                @if alive.is_empty() { span class="bad" { "none: nothing is worked off" } }
                @else { "seen within 20 s" }
                @if gone > 0 { ", " (gone) " gone within the hour" }
            }, Some("/workers")))
        }
        @if standing.running > 0 { (workers::doing(workers)) }
    }
}

fn tiles(range: Range, now: &Totals, before: &Totals) -> Markup {
    let since = format!("/runs?since={}", range.as_str());
    let of = |status: &str| format!("{since}&status={status}");
    let text = |value: Option<f64>, shown: fn(f64) -> String| html! { (value.map_or(format::NONE.to_owned(), shown)) };
    let number = |n: f64| format::number(n.round() as i64);
    let count = |name: &str, n: i64, was: i64, href: &str| {
        let (n, was) = (Some(n as f64), Some(was as f64));
        tile(name, &text(n, number), &change(n, was, number), Some(href))
    };
    html! {
        div class="tiles" {
            (count("Runs", now.total_runs, before.total_runs, &since))
            (tile("Success rate", &text(now.success_rate, format::percent), &html! {
                (format::number(now.completed)) " of " (format::number(now.completed + now.failed))
                @if let Some(was) = before.success_rate { ", was " (format::percent(was)) }
            }, Some(&of("completed"))))
            (count("Dead letters", now.failed, before.failed, &of("failed")))
            (tile("Cost", &text(Some(now.total_cost_usd), format::dollars), &html! {
                @if now.wasted_cost_usd > 0.0 { (format::dollars(now.wasted_cost_usd)) " wasted on failures" }
                @else { "nothing wasted" }
            }, Some(&since)))
            (tile("Average duration", &text(now.avg_latency_ms, format::duration),
                &change(now.avg_latency_ms, before.avg_latency_ms, format::duration), Some(&since)))
            (tile("95th percentile", &text(now.p95_latency_ms, format::duration), &html! {
                @if now.p95_latency_ms.is_none() { "needs " (MIN_SAMPLES) " runs, has " (now.latency_samples) }
                @else { (change(now.p95_latency_ms, before.p95_latency_ms, format::duration)) }
            }, Some(&since)))
            (tile("Tokens per run", &text(now.avg_tokens_per_run, number),
                &change(now.avg_tokens_per_run, before.avg_tokens_per_run, number), Some(&since)))
            (tile("Cost per run", &text(now.avg_cost_usd_per_run, format::dollars), &html! {
                @if let Some(cost) = now.cost_usd_per_success { (format::dollars(cost)) " per success" } @else { "\u{a0}" }
            }, Some(&since)))
        }
    }
}

/// What a number was in the period before, and by how much it has changed; blank where there is nothing to compare with.
fn change(now: Option<f64>, before: Option<f64>, shown: fn(f64) -> String) -> Markup {
    html! {
        @if let (Some(now), Some(before)) = (now, before) && before > 0.0 {
            @let percent = (now - before) / before * 100.0;
            "was " (shown(before)) " ("
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
                                td class="num quiet" { (format::number(before.get(failure.failure_reason.as_str()).copied().unwrap_or(0))) }
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
                        ul class="marks" { @for mark in marks { li { (mark.name) " " span class="quiet" { (format::number(mark.n)) } } } }
                    }
                }
            }
        }
    }
}

fn row(range: Range, step: &StepSummary) -> Markup {
    html! {
        tr {
            th scope="row" { (format::name(&step.name)) }
            td class="num" { (format::number(step.n)) }
            td class="num" { (format::took(step.avg_ms)) }
            td class="num" { @if let Some(p95) = step.p95_ms { (format::took(p95)) } }
            td class="num" {
                @if step.failure_rate > 0.0 {
                    a class="bad" href={ "/runs?failed_step=" (step.name) "&since=" (range.as_str()) } { (format::percent(step.failure_rate)) }
                }
            }
            td class="num" { @if step.retries > 0 { (format::number(step.retries)) } }
            td class="num" { @if step.tokens > 0 { (format::number(step.tokens)) } }
            td class="num" { @if step.cost_usd > 0.0 { (format::dollars(step.cost_usd)) } }
        }
    }
}
