//! One run: first the verdict and what the page looked like, then one tab an attempt, the latest first.

use maud::{Markup, html};

use super::{Place, badge, compare, format, layout, page_log, timeline, verdict};
use crate::queue::{Artifact, Attempt, AuditEntry, RunDetail};
use crate::record::PageLog;
use crate::telemetry::shown_url;
use crate::web::auth::Caller;
use crate::web::thumbnail::Size;
use crate::web::wire::without_secrets;

/// Attempts that one is offered to be compared with.
const MOST_COMPARED: usize = 8;

/// Which attempts are shown, by their ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct View {
    /// None: the latest.
    pub attempt: Option<i64>,
    /// The one that it is compared with.
    pub compare: Option<i64>,
}

/// The attempt that the page shows.
pub fn shown(run: &RunDetail, view: View) -> Option<&Attempt> {
    find(run, view.attempt).or(run.attempts.last())
}

fn find(run: &RunDetail, fence: Option<i64>) -> Option<&Attempt> {
    run.attempts.iter().find(|attempt| Some(attempt.fence) == fence)
}

/// The page; `log` is that of the attempt shown.
pub fn page(caller: &Caller, run: &RunDetail, trail: &[AuditEntry], view: View, log: &PageLog) -> Markup {
    let id = run.run.id;
    let shown = shown(run, view);
    let main = html! {
        div data-live="run" id="run" data-progress[run.run.status == "running"] {
            p class="crumbs" { a href="/runs" { "Runs" } " / #" (id) }
            (top(caller, run))
            (facts(run))
            @if let Some(shown) = shown {
                section class="attempts" id="attempts" aria-label="Attempts" {
                    (tabs(run, shown))
                    @if let Some(other) = find(run, view.compare).filter(|other| other.fence != shown.fence) {
                        @let (earlier, later) = if other.fence < shown.fence { (other, shown) } else { (shown, other) };
                        (compare::table(earlier, later))
                    }
                    (section(run, shown, log))
                }
            }
            (rest(run, trail))
        }
    };
    layout(&format!("Run {id}"), Place::Runs, Some(caller), &main)
}

/// One tab an attempt, the latest first; beside them what the shown one can be compared with.
fn tabs(run: &RunDetail, shown: &Attempt) -> Markup {
    let id = run.run.id;
    html! {
        @if run.attempts.len() > 1 {
            nav class="tabs" aria-label="Attempts" {
                @for attempt in run.attempts.iter().rev() {
                    a href={ "/runs/" (id) "?attempt=" (attempt.fence) "#attempts" } aria-current=[(attempt.fence == shown.fence).then_some("page")] {
                        "Attempt " (attempt.retry_count + 1) " " (badge(&attempt.status))
                    }
                }
                span class="window" {
                    "Compare with "
                    @for other in run.attempts.iter().rev().filter(|other| other.fence != shown.fence).take(MOST_COMPARED) {
                        a href={ "/runs/" (id) "?attempt=" (shown.fence) "&compare=" (other.fence) "#compare" }
                            aria-label={ "Compare with attempt " (other.retry_count + 1) } { (other.retry_count + 1) }
                        " "
                    }
                }
            }
        }
    }
}

fn top(caller: &Caller, run: &RunDetail) -> Markup {
    let verdict = verdict::of(run);
    let shot = run.attempts.iter().rev().find_map(telling_screenshot);
    let summary = &run.run;
    html! {
        section class={ "verdict " (verdict.tone) } {
            div class="text" {
                p class="kind" { (badge(&summary.status)) " " (summary.task_type) " on " strong { (summary.site) } }
                h1 { (format::name(&verdict.what)) }
                @if let Some(why) = &verdict.why { p class="why" { (why) } }
                @if let Some(reason) = &summary.failure_reason {
                    p { code { (reason) } @if let Some(code) = &summary.failure_code { " " code { (code) } } }
                }
                p class="next" {
                    (verdict.next)
                    @if summary.status == "pending" { " (" (format::ago(summary.run_at)) ")." }
                }
                (actions(caller, run))
            }
            @if let Some(name) = shot {
                a class="shot" href={ "/runs/" (summary.id) "/artifacts/" (name) } {
                    img src=(Size::Large.of(summary.id, name)) alt="The page as it was then" width="640" height="400";
                }
            }
        }
    }
}

/// The screenshot that says most: that of the error, else the last one.
fn telling_screenshot(attempt: &Attempt) -> Option<&str> {
    let shots = || snapshots(attempt, "screenshot");
    let error = shots().filter(|artifact| artifact.name.starts_with("error_")).last();
    let last = || shots().filter(|artifact| artifact.name.starts_with("final_")).last();
    // While it runs there is only what it began with.
    let first = || shots().last().filter(|_| attempt.status == "running");
    error.or_else(last).or_else(first).map(|shot| shot.name.as_str())
}

/// Snapshots of a kind, the oldest first; not the two names that stand for the newest of the whole run.
fn snapshots<'a>(attempt: &'a Attempt, kind: &str) -> impl Iterator<Item = &'a Artifact> + use<'a> {
    let taken = attempt.artifacts.iter().filter(|artifact| artifact.kind == kind);
    let mut stamped: Vec<(&str, &'a Artifact)> =
        taken.filter_map(|artifact| Some((stamp(&artifact.name)?, artifact))).collect();
    stamped.sort_by_key(|(stamp, artifact)| (*stamp, !artifact.name.starts_with("initial_")));
    stamped.into_iter().map(|(_, artifact)| artifact)
}

/// `20240115T103000123Z` of `error_dom_20240115T103000123Z.html`.
fn stamp(name: &str) -> Option<&str> {
    let (_, stamp) = name.split_once('.')?.0.rsplit_once('_')?;
    stamp.contains('T').then_some(stamp)
}

fn actions(caller: &Caller, run: &RunDetail) -> Markup {
    let id = run.run.id;
    let uncertain = run.run.failure_code.as_deref() == Some("outcome.uncertain");
    html! {
        div class="actions" {
            @if caller.may_operate() {
                @if run.run.status == "failed" {
                    form method="post" action={ "/runs/" (id) "/retry" } {
                        button class="primary" id="retry" { "Retry" @if uncertain { "…" } }
                    }
                }
                @if matches!(run.run.status.as_str(), "pending" | "running") && !run.cancel_requested {
                    details class="ask" {
                        summary class="button" { "Cancel…" }
                        form method="post" action={ "/runs/" (id) "/cancel" } {
                            button class="danger" { "Really cancel this task" }
                        }
                    }
                }
            }
            a class="button" href={ "/runs/" (id) "/export" } { "Download its record" }
        }
    }
}

fn facts(run: &RunDetail) -> Markup {
    let summary = &run.run;
    let wasted: f64 =
        run.attempts.iter().filter(|a| !matches!(a.status.as_str(), "succeeded" | "running")).map(|a| a.cost_usd).sum();
    let running = run.attempts.last().filter(|attempt| attempt.status == "running");
    let so_far = running.map_or((0, 0.0), |attempt| (attempt.tokens, attempt.cost_usd));
    let (tokens, cost) = (summary.tokens + so_far.0, summary.cost_usd + so_far.1);
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    html! {
        dl class="facts" {
            div class="wide" { dt { "Page" } dd { a href=(shown_url(&summary.url)) rel="noreferrer noopener" { (shown_url(&summary.url)) } } }
            (fact("Enqueued", format::exact(summary.created_at)))
            @if let Some(time) = summary.finished_at { (fact("Ended", format::exact(time))) }
            (fact("Attempts", html! { (run.attempts.len()) span class="quiet" { ", at most " (summary.max_retries) @if summary.max_retries == 1 { " retry" } @else { " retries" } } }))
            @match running {
                Some(attempt) => { (fact("Worker", html! { (attempt.worker) })) }
                None => { (fact("Last attempt", html! { (format::seconds(summary.execution_time)) })) }
            }
            @if tokens > 0 { (fact("Tokens", html! { (format::number(tokens)) @if running.is_some() { span class="quiet" { " so far" } } })) }
            (fact("Cost", html! {
                (format::dollars(cost))
                @if running.is_some() { span class="quiet" { " so far" } }
                @if wasted > 0.0 && wasted >= cost { span class="quiet" { ", all wasted" } }
                @else if wasted > 0.0 { span class="quiet" { ", " (format::dollars(wasted)) " wasted" } }
            }))
            @if let Some(campaign) = summary.campaign_id { (fact("Campaign", html! { (campaign) })) }
            @if let Some(key) = &run.dedupe_key { (fact("Dedupe key", html! { code { (key) } })) }
            @if let Some(id) = &run.request_id { (fact("Request", html! { code { (id) } })) }
        }
    }
}

fn section(run: &RunDetail, attempt: &Attempt, log: &PageLog) -> Markup {
    let latest = run.attempts.last().is_some_and(|last| last.fence == attempt.fence);
    html! {
        section class="attempt" id={ "attempt-" (attempt.retry_count) } {
            header {
                h2 { "Attempt " (attempt.retry_count + 1) }
                (badge(&attempt.status))
                @if let Some(reason) = &attempt.failure_reason {
                    span class="reason" { (reason) @if let Some(code) = &attempt.failure_code { " " code { (code) } } }
                }
                span class="quiet" {
                    @if let Some(time) = attempt.execution_time { (format::seconds(Some(time))) " · " }
                    @if attempt.execution_time.is_some() || attempt.cost_usd > 0.0 { (format::dollars(attempt.cost_usd)) " · " }
                    @if attempt.tokens > 0 { (format::number(attempt.tokens)) " tokens · " }
                    "begun " (format::ago(attempt.started_at)) " on " (attempt.worker)
                }
            }
            @if let Some(error) = &attempt.error { p class="error" { (error) } }
            @if attempt.steps.is_empty() { p class="quiet" { "No steps on record yet." } } @else { (timeline::table(attempt, log)) }
            (page_log::sections(run.run.id, attempt, log))
            (submission(attempt))
            (seen(run.run.id, attempt))
            (files(run, attempt, latest))
        }
    }
}

fn submission(attempt: &Attempt) -> Markup {
    html! {
        @if let Some(intent) = &attempt.intent {
            details class="more" {
                summary {
                    "What it submitted"
                    @match attempt.let_go_at {
                        Some(time) => { ", let go " (format::exact(time)) }
                        None => { ": held back, it did not leave" }
                    }
                }
                pre { (timeline::pretty(&without_secrets(intent.clone()))) }
                @if let Some(outcome) = &attempt.submit_outcome {
                    p { "What the site answered" }
                    pre { (timeline::pretty(&without_secrets(outcome.clone()))) }
                }
            }
        }
    }
}

/// Screenshots, and the markup of each in a frame in which nothing runs.
fn seen(id: i64, attempt: &Attempt) -> Markup {
    html! {
        ul class="shots" {
            @for shot in snapshots(attempt, "screenshot") {
                li {
                    a href={ "/runs/" (id) "/artifacts/" (shot.name) } {
                        img src=(Size::Small.of(id, &shot.name)) alt="" loading="lazy" width="192" height="120";
                        span { (label(&shot.name)) }
                    }
                }
            }
        }
        @for dom in snapshots(attempt, "dom") {
            details class="more" {
                summary { "Markup: " (label(&dom.name)) " " span class="quiet" { (format::bytes(dom.bytes)) } }
                p class="quiet" {
                    "As it was captured; nothing in it runs or is fetched. "
                    a href={ "/runs/" (id) "/artifacts/" (dom.name) "?download=true" } { "Download" }
                }
                iframe class="dom" title=(label(&dom.name)) sandbox="" loading="lazy" referrerpolicy="no-referrer"
                    src={ "/runs/" (id) "/artifacts/" (dom.name) } {}
            }
        }
    }
}

/// `error_dom_20240115T103000123Z.html` → `error, 10:30:00`.
fn label(name: &str) -> String {
    let kind = name.split('_').next().unwrap_or(name);
    match name.split('T').nth(1).and_then(|time| Some((time.get(..2)?, time.get(2..4)?, time.get(4..6)?))) {
        Some((hours, minutes, seconds)) => format!("{kind}, {hours}:{minutes}:{seconds}"),
        None => kind.to_owned(),
    }
}

/// The other files. The run's own hold what is newest; those of an earlier attempt were moved aside.
fn files(run: &RunDetail, attempt: &Attempt, latest: bool) -> Markup {
    let id = run.run.id;
    let fixed = |kind: &str| matches!(kind, "init" | "result" | "steps" | "report");
    html! {
        p class="files" {
            @for file in attempt.artifacts.iter().filter(|file| fixed(&file.kind)) {
                @let moved = !latest && matches!(file.kind.as_str(), "init" | "result");
                @if latest || moved {
                    @let folder = if moved { format!("attempts/{}/", attempt.retry_count) } else { String::new() };
                    a href={ "/runs/" (id) "/artifacts/" (folder) (file.name) } { (file.name) }
                    " " span class="quiet" { (format::bytes(file.bytes)) } "  "
                }
            }
        }
    }
}

fn rest(run: &RunDetail, trail: &[AuditEntry]) -> Markup {
    html! {
        section class="rest" {
            details class="more" open[run.attempts.is_empty()] {
                summary { "Payload" }
                pre { (timeline::pretty(&without_secrets(run.payload.clone()))) }
            }
            @if let Some(result) = &run.result {
                details class="more" open { summary { "Result" } pre { (timeline::pretty(&without_secrets(result.clone()))) } }
            }
            @if let Some(error) = &run.error {
                details class="more" { summary { "Failure with its causes" } pre { (timeline::pretty(&without_secrets(error.clone()))) } }
            }
            @if !trail.is_empty() {
                details class="more" open {
                    summary { "Done by hand" }
                    ul { @for entry in trail { li { (format::exact(entry.at)) " " strong { (entry.who) } " " code { (entry.action) } } } }
                }
            }
        }
    }
}
