//! The list of runs. Everything that it shows follows from its address.

use std::collections::HashMap;

use maud::{Markup, html};

use super::{Place, badge, format, layout};
use crate::failure::FailureReason;
use crate::queue::{Cursor, RunFilter, RunPage, RunSummary, StatusCounts};
use crate::task::{TASK_TYPES, TaskStatus};
use crate::telemetry::shown_url;
use crate::web::auth::Caller;
use crate::web::input::as_query;
use crate::web::thumbnail::Size;

/// What to show.
pub struct List<'a> {
    pub filter: &'a RunFilter,
    pub runs: &'a RunPage,
    /// Names of the screenshots that say most, by run.
    pub screenshots: &'a HashMap<i64, String>,
    /// None if counting took too long.
    pub counts: Option<StatusCounts>,
    pub limit: Option<u32>,
    pub cursor: Option<Cursor>,
}

/// The page.
pub fn page(caller: &Caller, list: &List) -> Markup {
    let main = html! {
        h1 class="sr" { "Runs" }
        (filters(list))
        (chosen(list))
        (tabs(list))
        div data-live="list" id="list" {
            @if list.runs.runs.is_empty() { (empty(list)) } @else { (table(caller, list)) }
        }
        (pager(list))
    };
    layout("Runs", Place::Runs, Some(caller), &main)
}

/// Filters that have a field of their own in the form, or a tab.
const FIELDS: [&str; 11] = [
    "status",
    "q",
    "failure_reason",
    "failure_code",
    "task_type",
    "site",
    "failed_step",
    "stuck_at",
    "min_retries",
    "since",
    "until",
];

fn filters(list: &List) -> Markup {
    let filter = list.filter;
    html! {
        form class="filters" method="get" action="/runs" role="search" {
            @if let Some(status) = filter.status { input type="hidden" name="status" value=(status); }
            @if let Some(limit) = list.limit { input type="hidden" name="limit" value=(limit); }
            div class="search" {
                input type="search" name="q" id="q" value=[filter.q.as_deref()] maxlength="300"
                    placeholder="Number, address, error or code" aria-label="Search runs" autocomplete="off";
                button class="primary" { "Search" }
            }
            // What has no field here stays chosen all the same.
            @for (name, value) in pairs(filter).iter().filter(|(name, _)| !FIELDS.contains(&name.as_str())) {
                input type="hidden" name=(name) value=(value);
            }
            details {
                summary { "Filters" }
                div class="fields" {
                    label { "Reason"
                        select name="failure_reason" {
                            option value="" { "any" }
                            @for reason in FailureReason::ALL {
                                option value=(reason) selected[filter.failure_reason == Some(reason)] { (reason) }
                            }
                        }
                    }
                    label { "Code" input name="failure_code" value=[filter.failure_code.as_deref()] placeholder="nav.timeout"; }
                    label { "Type"
                        select name="task_type" {
                            option value="" { "any" }
                            @for name in TASK_TYPES {
                                option value=(name) selected[filter.task_type.as_deref() == Some(name)] { (name) }
                            }
                        }
                    }
                    label { "Site" input name="site" value=[filter.site.as_deref()] placeholder="https://example.org"; }
                    label { "Failed at step" input name="failed_step" value=[filter.failed_step.as_deref()] placeholder="find_form"; }
                    label { "Died at step" input name="stuck_at" value=[filter.stuck_at.as_deref()] placeholder="submit_form"; }
                    label { "Retries, at least" input name="min_retries" inputmode="numeric" value=[filter.min_retries] placeholder="1"; }
                    label { "Enqueued since" input name="since" value=[filter.since.map(crate::record::rfc3339)] placeholder="24h, 7d or 2024-01-15"; }
                    label { "and before, or by the end of" input name="until" value=[filter.until.map(crate::record::rfc3339)] placeholder="24h or 2024-01-31"; }
                    div class="actions" {
                        button { "Apply" }
                    }
                }
            }
        }
    }
}

/// The filter as names and values of the address.
fn pairs(filter: &RunFilter) -> Vec<(String, String)> {
    url::form_urlencoded::parse(as_query(filter).as_bytes()).into_owned().collect()
}

/// What is chosen, each with a way to drop it; the status has its tabs.
fn chosen(list: &List) -> Markup {
    let all = pairs(list.filter);
    let without = |name: &str| {
        let kept = all.iter().filter(|(other, _)| other != name);
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).finish()
    };
    let shown: Vec<_> = all.iter().filter(|(name, _)| name != "status").collect();
    html! {
        @if !shown.is_empty() {
            ul class="chosen" aria-label="Chosen filters" {
                @for (name, value) in &shown {
                    li {
                        span { (in_words(name)) " " strong { (value_in_words(value)) } }
                        a href={ "/runs?" (without(name)) } aria-label={ "Drop: " (in_words(name)) " " (value) } { "✕" }
                    }
                }
                li class="all" { a href="/runs" { "Clear all" } }
            }
        }
    }
}

/// A time to the minute, everything else as it is.
fn value_in_words(value: &str) -> String {
    match chrono::DateTime::parse_from_rfc3339(value) {
        Ok(time) => time.to_utc().format("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => value.to_owned(),
    }
}

fn in_words(name: &str) -> &'static str {
    match name {
        "failure_reason" => "reason",
        "failure_code" => "code",
        "task_type" => "type",
        "site" => "site",
        "since" => "since",
        "until" => "before",
        "q" => "with the text",
        "min_retries" => "retries, at least",
        "failed_step" => "failed at step",
        "step" => "took the step",
        "stuck_at" => "died at step",
        "only" => "only",
        "not_status" => "status not",
        "not_failure_reason" => "reason not",
        "not_failure_code" => "code not",
        "not_task_type" => "type not",
        "not_site" => "site not",
        _ => "other",
    }
}

fn tabs(list: &List) -> Markup {
    let tab = |status: Option<TaskStatus>| {
        let filter = RunFilter { status, ..list.filter.clone() };
        let name = status.map_or("all", TaskStatus::as_str);
        let count = list.counts.as_ref().map(|counts| status.map_or(counts.all(), |status| counts.of(status)));
        html! {
            a href={ "/runs?" (as_query(&filter)) } aria-current=[(list.filter.status == status).then_some("page")] {
                (name) @if let Some(count) = count { " " span class="n" { (format::number(count)) } }
            }
        }
    };
    let cut = list.counts.as_ref().and_then(|counts| counts.cut);
    html! {
        nav class="tabs" aria-label="Status" id="tabs" data-live="tabs" {
            (tab(None))
            @for status in TaskStatus::ALL { (tab(Some(status))) }
            span class="window" {
                @if let Some(most) = cut { "of the newest " (format::number(most)) @if list.filter.reach().is_some() { " looked through" } }
                @else if list.filter.since.is_some() || list.filter.until.is_some() { "enqueued in the chosen time" }
                @else { "of all times" }
            }
        }
    }
}

fn empty(list: &List) -> Markup {
    html! {
        div class="empty" {
            @if *list.filter == RunFilter::default() {
                p { strong { "No runs yet." } }
                p { "Enrol a site and enqueue a task: " code { "pagehand enqueue --file tasks.jsonl" } ", or see it all with "
                    code { "pagehand demo" } "." }
            } @else {
                @if list.runs.next.is_some() && let Some(reach) = list.filter.reach() {
                    p { strong { "None of " (format::number(reach)) " runs matches." } } p { "Older ones were not looked at yet." }
                }
                @else { p { strong { "No runs match." } } }
                p { a href="/runs" { "Clear the filters" } }
            }
        }
    }
}

fn table(caller: &Caller, list: &List) -> Markup {
    let failed = list.counts.as_ref().map_or(0, |counts| counts.of(TaskStatus::Failed));
    let bulk = RunFilter { status: Some(TaskStatus::Failed), ..list.filter.clone() };
    let offers_bulk =
        caller.may_operate() && failed > 1 && matches!(list.filter.status, None | Some(TaskStatus::Failed));
    let any_failed = list.runs.runs.iter().any(|run| run.status == "failed");
    html! {
        @if any_failed && caller.may_operate() {
            form id="picked" method="post" action="/runs/retry" { input type="hidden" name="ids" value=""; }
        }
        table class="runs" {
            thead {
                tr {
                    th scope="col" class="pick" { span class="sr" { "Pick" } }
                    th scope="col" { "Run" }
                    th scope="col" class="thumb" { span class="sr" { "What it looked like" } }
                    th scope="col" { "Status" }
                    th scope="col" { "Page" }
                    th scope="col" class="num" { "Attempts" }
                    th scope="col" class="num" { "Duration" }
                    th scope="col" class="num" { "Cost" }
                    th scope="col" { "Enqueued" }
                    th scope="col" class="do" {
                        @if any_failed && caller.may_operate() { button class="small picked" form="picked" { "Retry those picked" } " " }
                        @if offers_bulk {
                            a class="button small" href={ "/runs/retry?" (as_query(&bulk)) } { "Retry all " (format::number(failed)) "…" }
                        } @else { span class="sr" { "Actions" } }
                    }
                }
            }
            tbody { @for run in &list.runs.runs { (row(caller, run, list.screenshots.get(&run.id))) } }
        }
    }
}

fn row(caller: &Caller, run: &RunSummary, screenshot: Option<&String>) -> Markup {
    let url = shown_url(&run.url);
    let (host, path) = split(&url, &run.site);
    // The attempt under way is one more than those before it; a waiting task has made as many as it counts.
    let attempts = if run.status == "pending" { run.retry_count } else { run.retry_count + 1 };
    let attempts = if run.started_at.is_none() { 0 } else { attempts };
    html! {
        tr data-run=(run.id) {
            td class="pick" {
                @if run.status == "failed" && caller.may_operate() {
                    input type="checkbox" name="ids" value=(run.id) form="picked" aria-label={ "Pick run " (run.id) };
                }
            }
            td class="id" { a href={ "/runs/" (run.id) } { "#" (run.id) } span class="type" { (run.task_type) } }
            td class="thumb" {
                @if let Some(name) = screenshot {
                    a href={ "/runs/" (run.id) } tabindex="-1" aria-hidden="true" {
                        img src=(Size::Small.of(run.id, name)) alt="" loading="lazy" width="72" height="45";
                    }
                }
            }
            td class="status" { (badge(&run.status)) }
            td class="page" {
                a class="url" href={ "/runs/" (run.id) } tabindex="-1" { strong { (host) } (path) }
                @if let Some(reason) = &run.failure_reason {
                    span class="why" {
                        span class="reason" { (reason) }
                        @if let Some(error) = &run.last_error { span class="error" { (error) } }
                    }
                }
            }
            td class="num" data-label="attempts" { (attempts) }
            td class="num" data-label="took" { (format::seconds(run.execution_time)) }
            td class="num" data-label="" { (format::dollars(run.cost_usd)) }
            td class="when" { (format::ago(run.created_at)) }
            td class="do" {
                @if run.status == "failed" && caller.may_operate() {
                    form method="post" action={ "/runs/" (run.id) "/retry" } {
                        button class="small" aria-label={ "Retry run " (run.id) } { "Retry" }
                    }
                }
            }
        }
    }
}

/// The host and what comes after it.
fn split<'a>(url: &'a str, site: &str) -> (&'a str, &'a str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = site.split_once("://").map_or(site, |(_, host)| host);
    match rest.get(..host.len()) {
        Some(start) if start == host => rest.split_at(host.len()),
        _ => (rest, ""),
    }
}

fn pager(list: &List) -> Markup {
    let query = as_query(list.filter);
    let limit = list.limit.map_or(String::new(), |limit| format!("&limit={limit}"));
    html! {
        nav class="pager" aria-label="Pages" id="pager" data-live="pager" {
            @if list.cursor.is_some() { a class="button" href={ "/runs?" (query) (limit) } { "← Newest" } }
            @if let Some(next) = list.runs.next { a class="button" rel="next" href={ "/runs?" (query) (limit) "&cursor=" (next) } { "Older →" } }
            @if !list.runs.runs.is_empty() {
                span class="export quiet" {
                    "All that match: "
                    a href={ "/runs/export?format=csv&" (query) } { "CSV" } ", "
                    a href={ "/runs/export?format=jsonl&" (query) } { "JSON lines" }
                }
            }
        }
    }
}
