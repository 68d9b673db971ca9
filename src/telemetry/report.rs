//! `report.html`: one attempt as a page that opens from disk, without server or script.
//!
//! First the verdict in a sentence and the picture that shows it; then the steps on one time axis, the other
//! attempts, and the files. Every text on it may come from a hostile page: `maud` escapes them, and the page's own
//! policy lets nothing run and nothing be fetched but the pictures that lie beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};

use super::archive::read_json;
use super::dir::Dir;
use super::run::{INIT, RESULT, STEPS};
use super::snapshot::Saved;
use super::steps::{Logged, parse};
use crate::failure::Failure;
use crate::record::{PageLog, StepRecord, place_of_failure};
use crate::task::{Fence, TaskId};

mod index;
mod log;
mod timeline;

pub use index::{Index, write_index};
use timeline::timeline;

/// Largest `steps.jsonl` whose earlier attempts are shown.
const STEPS_LIMIT: u64 = 8 << 20;
/// Most attempts that are listed.
const ATTEMPTS_LIMIT: usize = 50;

const POLICY: &str = "default-src 'none'; img-src 'self' data: file:; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

/// What the page shows. Texts are redacted already.
pub(super) struct Report<'a> {
    pub(super) task_id: TaskId,
    pub(super) fence: Fence,
    pub(super) retry_count: u32,
    pub(super) meta: &'a Map<String, Value>,
    pub(super) started_at: DateTime<Utc>,
    pub(super) completed_at: DateTime<Utc>,
    pub(super) execution_time: Duration,
    pub(super) failure: Option<&'a Failure>,
    pub(super) result: &'a Map<String, Value>,
    pub(super) steps: &'a [StepRecord],
    pub(super) saved: &'a [Saved],
    /// What the page said and asked for.
    pub(super) page_log: &'a PageLog,
    /// What the last snapshot lacks, and why.
    pub(super) missing: &'a [(&'a str, &'a str)],
    pub(super) earlier: Vec<Earlier>,
}

/// An attempt before this one, as its files tell of it.
pub(super) struct Earlier {
    /// Its directory under `attempts/`.
    place: String,
    started_at: Option<DateTime<Utc>>,
    retry_count: u64,
    /// None: it left no final result.
    result: Option<Value>,
    steps: Vec<StepRecord>,
}

/// The lines of `steps.jsonl` that can be read, and whether all could.
pub(super) fn logged_steps(dir: &Dir) -> (Vec<Logged>, bool) {
    let Some(content) = dir.read(STEPS, STEPS_LIMIT) else { return (Vec::new(), false) };
    let content = String::from_utf8_lossy(&content);
    let lines: Vec<Option<Logged>> = content.lines().map(parse).collect();
    let whole = lines.iter().all(Option::is_some);
    (lines.into_iter().flatten().collect(), whole)
}

/// The attempts in `attempts/`, oldest first.
pub(super) fn earlier_attempts(dir: &Dir, current: Fence) -> Vec<Earlier> {
    let Ok(attempts) = dir.child("attempts") else { return Vec::new() };
    let mut steps: BTreeMap<(Option<i64>, u64), Vec<StepRecord>> = BTreeMap::new();
    for logged in logged_steps(dir).0.into_iter().filter(|logged| logged.attempt != Some(current.0)) {
        steps.entry((logged.attempt, logged.retry_count)).or_default().push(logged.step);
    }
    let mut earlier: Vec<Earlier> = attempts
        .names()
        .unwrap_or_default()
        .into_iter()
        .take(ATTEMPTS_LIMIT)
        .filter_map(|place| {
            let dir = attempts.child(&place).ok()?;
            let (init, result) = (read_json(&dir, INIT), read_json(&dir, RESULT));
            let either = init.as_ref().or(result.as_ref())?;
            let retry_count =
                either.pointer("/meta/retry_count").or(either.pointer("/result/retry_count"))?.as_u64()?;
            let attempt = either.get("attempt").and_then(Value::as_i64);
            let started_at = DateTime::parse_from_rfc3339(either.get("started_at")?.as_str()?).ok();
            Some(Earlier {
                started_at: started_at.map(|time| time.to_utc()),
                retry_count,
                steps: steps.remove(&(attempt, retry_count)).unwrap_or_default(),
                result,
                place,
            })
        })
        .collect();
    earlier.sort_by_key(|earlier| (earlier.started_at, earlier.retry_count));
    earlier
}

/// The head of a page that opens from disk, with `css` beside the report's own.
fn head(title: &str, css: &'static str) -> Markup {
    html! {
        head {
            meta http-equiv="Content-Security-Policy" content=(POLICY);
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="referrer" content="no-referrer";
            title { (title) }
            link rel="icon" href="data:,";
            style { (PreEscaped(include_str!("report/report.css"))) (PreEscaped(css)) }
        }
    }
}

/// The whole page.
pub(super) fn page(report: &Report<'_>) -> String {
    let verdict = verdict(report);
    let tone = if report.failure.is_some() { "bad" } else { "good" };
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(&format!("Run {}: {}", report.task_id, if report.failure.is_some() { "failed" } else { "completed" }), ""))
            body {
                main {
                    header class={ "verdict " (tone) } {
                        div.said {
                            p.where { (origin(report)) }
                            h1 { (verdict) }
                            @if let Some(failure) = report.failure {
                                p.message { (failure.message) }
                                p.chips {
                                    span.chip.strong { (failure.reason) }
                                    span.chip { code { (failure.code) } }
                                    span.chip { (if failure.retryable { "a retry may mend it" } else { "no retry mends it" }) }
                                }
                                @if !failure.causes.is_empty() {
                                    details { summary { "Causes" } ol.causes { @for cause in &failure.causes { li { (cause) } } } }
                                }
                            }
                        }
                        (picture(report))
                        (facts(report))
                    }
                    section {
                        h2 { "Steps" }
                        (timeline(report.steps, failed_step(report.steps)))
                    }
                    (snapshots(report))
                    (log::sections(report))
                    (attempts(report))
                    (files(report))
                }
                footer { "Recorded by Pagehand " (env!("CARGO_PKG_VERSION")) ". Times are UTC." }
            }
        }
    }
    .into_string()
}

/// What happened, in one sentence.
fn verdict(report: &Report<'_>) -> Markup {
    let attempt = attempt_of(report);
    let time = human(report.execution_time);
    match (report.failure, failed_step(report.steps)) {
        (None, _) => html! { "Completed in " (time) ", on " (attempt) "." },
        (Some(failure), Some(step)) => html! {
            "Failed at " span.step { (step.name) } ": " (failure.reason.in_words(&failure.code)) ", on " (attempt) ", after " (time) "."
        },
        (Some(failure), None) => {
            html! { "Failed: " (failure.reason.in_words(&failure.code)) ", on " (attempt) ", after " (time) "." }
        }
    }
}

/// The step at which the attempt went wrong.
fn failed_step(steps: &[StepRecord]) -> Option<&StepRecord> {
    place_of_failure(steps, |step| (step.name.as_str(), step.ok, !step.duration.is_zero()))
}

/// "attempt 2 of 4".
fn attempt_of(report: &Report<'_>) -> String {
    let number = u64::from(report.retry_count) + 1;
    let count = |key: &str| report.meta.get(key).and_then(Value::as_u64);
    match count("max_retries") {
        Some(max) => {
            let failures = count("failures").unwrap_or_else(|| report.retry_count.into());
            format!("attempt {number} of {}", number + max.saturating_sub(failures))
        }
        None => format!("attempt {number}"),
    }
}

fn origin(report: &Report<'_>) -> Markup {
    let text = |key: &str| report.meta.get(key).and_then(Value::as_str);
    html! {
        "Run " (report.task_id)
        @if let Some(task_type) = text("task_type") { " · " (task_type) }
        @if let Some(site) = text("site").or(text("url")) { " · " span.url { (site) } }
    }
}

/// What the automation found out, where and when.
fn facts(report: &Report<'_>) -> Markup {
    const FIXED: [&str; 10] = [
        "success",
        "failure_reason",
        "failure_code",
        "error",
        "execution_time",
        "retry_count",
        "tokens",
        "cost_usd",
        "retryable",
        "causes",
    ];
    const FROM_META: [&str; 5] = ["url", "campaign_id", "worker", "proxy", "user_agent"];
    let found = report.result.iter().filter(|(key, _)| !FIXED.contains(&key.as_str()));
    let known = report.meta.iter().filter(|(key, _)| FROM_META.contains(&key.as_str()));
    let number = |key: &str| report.result.get(key).and_then(Value::as_f64).unwrap_or_default();
    html! {
        dl.facts {
            @for (key, value) in found.chain(known).filter(|(_, value)| !value.is_null()) {
                dt { (key.replace('_', " ")) } dd { (value.as_str().map_or_else(|| value.to_string(), str::to_owned)) }
            }
            dt { "started" } dd { (day_and_time(report.started_at)) }
            dt { "ended" } dd { (day_and_time(report.completed_at)) }
            @if number("tokens") > 0.0 { dt { "tokens" } dd { (number("tokens")) } }
            @if number("cost_usd") > 0.0 { dt { "cost" } dd { (format!("${:.6}", number("cost_usd"))) } }
        }
    }
}

/// The picture of the end, or why there is none.
fn picture(report: &Report<'_>) -> Markup {
    let newest = report.saved.iter().rfind(|saved| saved.what == "screenshot");
    let missing = report.missing.iter().find(|(what, _)| *what == "screenshot").map(|(_, cause)| *cause);
    html! {
        figure.picture {
            @match newest {
                Some(saved) => {
                    a href=(saved.name) { img src=(saved.name) alt=(format!("The page at the {} snapshot", saved.kind)); }
                    figcaption {
                        (caption(saved.kind)) ", " (offset(report, saved.stamp))
                        @if let Some(cause) = missing { ". No later picture: " (cause) }
                    }
                }
                None => {
                    div.none { "No picture" }
                    figcaption { (missing.unwrap_or("the attempt ended before a page was open")) }
                }
            }
        }
    }
}

fn caption(kind: &str) -> &'static str {
    match kind {
        "error" => "The page when it failed",
        "final" => "The page at the end",
        _ => "The page after it had loaded",
    }
}

fn offset(report: &Report<'_>, stamp: i64) -> String {
    let after = stamp - report.started_at.timestamp_millis();
    format!("at {}", human(Duration::from_millis(after.max(0).unsigned_abs())))
}

fn snapshots(report: &Report<'_>) -> Markup {
    let mut moments: BTreeMap<i64, (&str, [Option<&Saved>; 2])> = BTreeMap::new();
    for saved in report.saved.iter().filter(|saved| saved.kind != "page") {
        let moment = moments.entry(saved.stamp).or_insert((saved.kind, [None, None]));
        moment.1[usize::from(saved.what == "dom")] = Some(saved);
    }
    html! {
        @if !moments.is_empty() {
            section {
                h2 { "Snapshots" }
                ul.snapshots {
                    @for (stamp, (kind, [screenshot, dom])) in moments {
                        li {
                            @match screenshot {
                                Some(saved) => a href=(saved.name) { img src=(saved.name) loading="lazy" alt=(caption(kind)); },
                                None => div.none { "No picture" },
                            }
                            p { strong { (kind) } " " span.dim { (offset(report, stamp)) } }
                            p {
                                @match dom {
                                    Some(dom) => { a href=(dom.name) { "DOM" } " " span.dim { (size(dom.bytes)) ", inert" } },
                                    None => span.dim { "no DOM" },
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn attempts(report: &Report<'_>) -> Markup {
    html! {
        @if !report.earlier.is_empty() {
            section {
                h2 { "Earlier attempts" }
                @for earlier in &report.earlier {
                    details.attempt {
                        summary {
                            span.name { "Attempt " (earlier.retry_count + 1) }
                            (earlier_verdict(earlier))
                            @if let Some(started_at) = earlier.started_at { span.dim { (day_and_time(started_at)) } }
                        }
                        @if let Some(error) = earlier.result.as_ref().and_then(|result| result.pointer("/result/error")?.as_str()) {
                            p.message { (error) }
                        }
                        p {
                            a href={ "attempts/" (earlier.place) "/" (INIT) } { (INIT) } " "
                            @if earlier.result.is_some() { a href={ "attempts/" (earlier.place) "/" (RESULT) } { (RESULT) } }
                        }
                        (timeline(&earlier.steps, None))
                    }
                }
            }
        }
    }
}

fn earlier_verdict(earlier: &Earlier) -> Markup {
    let field = |key: &str| earlier.result.as_ref()?.pointer(key)?.as_str();
    let time = earlier.result.as_ref().and_then(|result| result.get("execution_time")?.as_f64());
    let time = time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(human);
    html! {
        @match (&earlier.result, field("/result/failure_reason")) {
            (None, _) => span.chip { "left no result" },
            (_, None) => span.chip.good { "completed" },
            (_, Some(reason)) => {
                span.chip.strong { (reason) }
                @if let Some(code) = field("/result/failure_code") { " " span.chip { code { (code) } } }
            }
        }
        @if let Some(time) = time { " " span.dim { (time) } }
    }
}

fn files(report: &Report<'_>) -> Markup {
    let meta = serde_json::to_string_pretty(report.meta).unwrap_or_default();
    let result = serde_json::to_string_pretty(report.result).unwrap_or_default();
    html! {
        section {
            h2 { "Record" }
            p.files {
                @for name in [INIT, STEPS, RESULT] { a href=(name) { (name) } }
                span.dim { "attempt id " (report.fence) }
            }
            details { summary { "Result" } pre { (result) } }
            details { summary { "What was known at the start" } pre { (meta) } }
        }
    }
}

/// A duration for a person: 820 ms, 12.3 s, 2 min 5 s.
fn human(duration: Duration) -> String {
    match duration.as_millis() {
        0..1_000 => format!("{} ms", duration.as_millis()),
        1_000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{} min {} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

fn day_and_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000 { format!("{} kB", bytes.div_ceil(1_000)) } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}
