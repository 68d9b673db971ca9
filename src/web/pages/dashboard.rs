//! What the last day, week or month came to.

use maud::{Markup, html};

use super::{Place, format, layout};
use crate::queue::{MIN_SAMPLES, Part, Pulse, Totals};
use crate::web::auth::Caller;
use crate::web::summary_api::{Range, Summary};

/// Size of the chart in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 160.0;

/// The page.
pub fn page(caller: &Caller, range: Range, summary: &Summary, pulse: Pulse) -> Markup {
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
            p class="quiet" {
                "Runs enqueued in the last " (range.as_str()) ", with all that was done for them since. Changes are against the "
                (range.as_str()) " before. Now: "
                a href="/runs?status=pending" { (format::number(pulse.pending)) " pending" } ", "
                a href="/runs?status=running" { (format::number(pulse.running)) " running" } "."
            }
            (tiles(range, &summary.totals, &summary.previous))
            (chart(summary))
            div class="columns" {
                (failures(range, summary))
                (steps(summary))
            }
        }
    };
    layout("Dashboard", Place::Dashboard, Some(caller), &main)
}

fn tiles(range: Range, now: &Totals, before: &Totals) -> Markup {
    let since = format!("/runs?since={}", range.as_str());
    let tile = |name: &str, value: String, note: Markup, href: Option<String>| {
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
    };
    let ms = |value: Option<f64>| value.map_or(format::NONE.to_owned(), format::duration);
    let too_few = now.p95_latency_ms.is_none();
    let per_success = (now.completed > 0).then(|| now.total_cost_usd / now.completed as f64);
    html! {
        div class="tiles" {
            (tile("Runs", format::number(now.total_runs), change(Some(now.total_runs as f64), Some(before.total_runs as f64)), Some(since.clone())))
            (tile("Success rate", now.success_rate.map_or(format::NONE.to_owned(), format::percent),
                html! { (format::number(now.completed)) " of " (format::number(now.completed + now.failed)) " ended" },
                Some(format!("{since}&status=completed"))))
            (tile("Failed", format::number(now.failed), change(Some(now.failed as f64), Some(before.failed as f64)),
                Some(format!("{since}&status=failed"))))
            (tile("Average duration", ms(now.avg_latency_ms), change(now.avg_latency_ms, before.avg_latency_ms), None))
            (tile("95th percentile", ms(now.p95_latency_ms), html! {
                @if too_few { "needs " (MIN_SAMPLES) " runs" } @else { (change(now.p95_latency_ms, before.p95_latency_ms)) }
            }, None))
            (tile("Tokens per run", now.avg_tokens_per_run.map_or(format::NONE.to_owned(), |n| format::number(n.round() as i64)),
                change(now.avg_tokens_per_run, before.avg_tokens_per_run), None))
            (tile("Cost per run", now.avg_cost_usd_per_run.map_or(format::NONE.to_owned(), format::dollars),
                html! { (per_success.map_or(format::NONE.to_owned(), format::dollars)) " per success" }, None))
            (tile("Cost", format::dollars(now.total_cost_usd), html! { (format::dollars(now.wasted_cost_usd)) " wasted" }, None))
        }
    }
}

/// How much a number has changed, in per cent; blank where there is nothing to compare with.
fn change(now: Option<f64>, before: Option<f64>) -> Markup {
    html! {
        @if let (Some(now), Some(before)) = (now, before) && before > 0.0 {
            @let percent = (now - before) / before * 100.0;
            @if percent.abs() < 0.5 { "unchanged" }
            @else if percent > 999.0 { "× " (format!("{:.0}", now / before)) }
            @else { (if percent > 0.0 { "+" } else { "−" }) (format!("{:.0}", percent.abs())) " %" }
        } @else { "\u{a0}" }
    }
}

fn chart(summary: &Summary) -> Markup {
    let all = |part: &Part| part.completed + part.failed + part.other;
    let most = summary.series.iter().map(all).max().unwrap_or(0).max(1) as f64;
    let slot = WIDTH / summary.series.len().max(1) as f64;
    let bar = |n: usize, from: i64, count: i64, class: &str| {
        let (y, height) = (HEIGHT - (from + count) as f64 / most * HEIGHT, count as f64 / most * HEIGHT);
        html! {
            @if count > 0 {
                rect class=(class) x=(format!("{:.1}", n as f64 * slot + slot * 0.1)) y=(format!("{y:.1}"))
                    width=(format!("{:.1}", slot * 0.8)) height=(format!("{height:.1}")) {}
            }
        }
    };
    let unit = match summary.range {
        "24h" => "hour",
        "7d" => "quarter of a day",
        _ => "day",
    };
    html! {
        figure class="chart" {
            figcaption {
                "Runs by the " (unit) " "
                span class="key" {
                    span class="k completed" {} "completed " span class="k failed" {} "failed " span class="k other" {} "other"
                }
                span class="quiet" { "most in one " (unit) ": " (format::number(most as i64)) }
            }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ "Runs by the " (unit) } {
                @for (n, part) in summary.series.iter().enumerate() {
                    g {
                        title { (part.at.format("%Y-%m-%d %H:%M UTC")) ": " (part.completed) " completed, " (part.failed) " failed, " (part.other) " other" }
                        (bar(n, 0, part.completed, "completed"))
                        (bar(n, part.completed, part.failed, "failed"))
                        (bar(n, part.completed + part.failed, part.other, "other"))
                    }
                }
            }
            details class="more" {
                summary { "As a table" }
                table class="plain" {
                    thead { tr { th scope="col" { "When" } th scope="col" class="num" { "Completed" } th scope="col" class="num" { "Failed" } th scope="col" class="num" { "Other" } } }
                    tbody {
                        @for part in summary.series.iter().rev() {
                            tr { td { (part.at.format("%Y-%m-%d %H:%M UTC")) } td class="num" { (part.completed) } td class="num" { (part.failed) } td class="num" { (part.other) } }
                        }
                    }
                }
            }
        }
    }
}

fn failures(range: Range, summary: &Summary) -> Markup {
    let most = summary.failures.iter().map(|failure| failure.n).max().unwrap_or(1).max(1);
    html! {
        section {
            h2 { "Dead letters by reason" }
            @if summary.failures.is_empty() { p class="quiet" { "None in this time." } }
            @else {
                table class="plain" {
                    thead { tr { th scope="col" { "Reason" } th scope="col" class="num" { "Runs" } th scope="col" class="axis" { span class="sr" { "Share" } } } }
                    tbody {
                        @for failure in &summary.failures {
                            tr {
                                td { a href={ "/runs?status=failed&failure_reason=" (failure.failure_reason) "&since=" (range.as_str()) } { (failure.failure_reason) } }
                                td class="num" { (format::number(failure.n)) }
                                td class="axis" {
                                    svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
                                        rect class="failed" x="0" y="0" height="10" width=(failure.n * 1000 / most) {}
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn steps(summary: &Summary) -> Markup {
    html! {
        section {
            h2 { "Steps" }
            @if summary.steps.is_empty() { p class="quiet" { "None in this time." } }
            @else {
                div class="scroll" tabindex="0" role="region" aria-label="Steps" {
                    table class="plain" {
                        thead {
                            tr {
                                th scope="col" { "Step" } th scope="col" class="num" { "n" } th scope="col" class="num" { "Average" }
                                th scope="col" class="num" { abbr title={ "95th percentile; blank under " (MIN_SAMPLES) " samples" } { "p95" } }
                                th scope="col" class="num" { "Failed" } th scope="col" class="num" { "In retries" }
                                th scope="col" class="num" { "Tokens" } th scope="col" class="num" { "Cost" }
                            }
                        }
                        tbody {
                            @for step in &summary.steps {
                                tr {
                                    td { (step.name) }
                                    td class="num" { (format::number(step.n)) }
                                    td class="num" { (format::duration(step.avg_ms)) }
                                    td class="num" { @if let Some(p95) = step.p95_ms { (format::duration(p95)) } }
                                    td class={ "num" @if step.failure_rate > 0.0 { " bad" } } { (format::percent(step.failure_rate)) }
                                    td class="num" { (format::number(step.retries)) }
                                    td class="num" { (format::number(step.tokens)) }
                                    td class="num" { (format::dollars(step.cost_usd)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
