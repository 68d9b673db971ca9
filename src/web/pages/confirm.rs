//! What a person is asked before, and told after, something that is hard to take back.

use maud::{Markup, html};

use super::{Place, format, layout};
use crate::queue::{Cursor, RunFilter, StatusCounts};
use crate::task::{TaskId, TaskStatus};
use crate::web::auth::Caller;
use crate::web::bulk::SoFar;
use crate::web::input::as_query;
use crate::web::wire::BulkReport;

/// A retry of a run that may have been done already.
pub fn uncertain(caller: &Caller, id: TaskId) -> Markup {
    let main = html! {
        div class="notice warn" {
            h1 { "Run " (id) " may have been done already" }
            p {
                "Its request was let go and the answer was lost, so the comment or the account may exist. "
                strong { "Look at the site first." } " If you retry and it does exist, it will be there twice."
            }
            form method="post" action={ "/runs/" (id) "/retry" } {
                label class="check" {
                    input type="checkbox" name="confirm_uncertain" value="true" required;
                    "I have looked: it is not there."
                }
                p class="actions" {
                    button class="danger" { "Retry all the same" }
                    a class="button" href={ "/runs/" (id) } { "Back to the run" }
                }
            }
        }
    };
    layout(&format!("Retry run {id}?"), Place::Runs, Some(caller), &main)
}

/// A retry of everything that matches.
pub fn bulk(caller: &Caller, filter: &RunFilter, counts: &StatusCounts) -> Markup {
    let n = counts.of(TaskStatus::Failed);
    let query = as_query(filter);
    let main = html! {
        div class="notice" {
            h1 {
                @if n == 0 { "Nothing to retry" }
                @else { "Retry " (format::number(n)) @if counts.cut.is_some() { " or more" } " failed " (runs(n)) "?" }
            }
            p { "These are the dead letters " (in_words(filter)) "." }
            @if n > 0 && caller.may_operate() {
                p class="quiet" {
                    "Each goes back into the queue at once, with a fresh budget of retries, at its site's pace. Those that may "
                    "have been done already are left as they are: look at each of them."
                }
                form method="post" action="/runs/retry" {
                    @for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
                        input type="hidden" name=(name) value=(value);
                    }
                    input type="hidden" name="of" value=(n);
                    p class="actions" {
                        button class="primary" { "Retry " (format::number(n)) " " (runs(n)) }
                        a class="button" href={ "/runs?" (query) } { "Look at them first" }
                    }
                }
            } @else {
                p class="actions" { a class="button" href={ "/runs?" (query) } { "Back" } }
            }
        }
    };
    layout("Retry", Place::Failures, Some(caller), &main)
}

/// How far a retry of many is, and what goes on with it: the script at once, without it a button.
pub fn progress(caller: &Caller, filter: &RunFilter, so_far: &SoFar, next: Cursor) -> Markup {
    let seen = so_far.retried + so_far.need_confirmation + so_far.conflicts;
    let of = so_far.of.max(seen);
    let shown = |n: u64| format::number(n.cast_signed());
    let main = html! {
        div class="notice" role="status" {
            h1 { "Retrying: " (shown(seen)) " of " (shown(of)) }
            progress value=(seen) max=(of) aria-label="How far it is" {}
            p {
                (shown(so_far.retried)) " back in the queue"
                @if so_far.need_confirmation > 0 { ", " (shown(so_far.need_confirmation)) " left because they may have been done already" }
                @if so_far.conflicts > 0 { ", " (shown(so_far.conflicts)) " left because of their dedupe key" }
                "."
            }
            form method="post" action="/runs/retry" data-continue {
                @for (name, value) in url::form_urlencoded::parse(as_query(filter).as_bytes()) {
                    input type="hidden" name=(name) value=(value);
                }
                @for (name, value) in so_far.fields() { input type="hidden" name=(name) value=(value); }
                input type="hidden" name="after" value=(next);
                p class="actions" {
                    button class="primary" { "Go on" }
                    a class="button" href={ "/runs?" (as_query(filter)) } { "Stop here" }
                }
            }
        }
    };
    layout("Retrying", Place::Failures, Some(caller), &main)
}

/// What a retry of many came to.
pub fn report(caller: &Caller, filter: &RunFilter, report: &BulkReport) -> Markup {
    let skipped = &report.skipped;
    let left = [
        (skipped.need_confirmation, "may have been done already; open each and confirm it there"),
        (skipped.conflicts, "have the dedupe key of a task that is pending or running"),
        (skipped.not_failed, "are not failed"),
        (skipped.not_found, "do not exist"),
    ];
    let main = html! {
        div class="notice good" role="status" {
            h1 { (format::number(report.retried.cast_signed())) " " (runs(report.retried.cast_signed())) " back in the queue" }
            @for (n, why) in left.into_iter().filter(|(n, _)| *n > 0) {
                p { strong { (format::number(n.cast_signed())) " left as they are: " } "they " (why) "." }
            }
            p class="actions" {
                a class="button primary" href="/runs?status=pending" { "See what is pending" }
                a class="button" href={ "/runs?" (as_query(filter)) } { "What is still failed" }
            }
        }
    };
    layout("Retried", Place::Failures, Some(caller), &main)
}

fn runs(n: i64) -> &'static str {
    if n == 1 { "run" } else { "runs" }
}

/// A filter as a part of a sentence.
fn in_words(filter: &RunFilter) -> Markup {
    let query = as_query(filter);
    let parts: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "status").collect();
    html! {
        @if parts.is_empty() { "of all sites and all times" }
        @for (n, (name, value)) in parts.iter().enumerate() {
            @if n > 0 { ", " }
            @match name.as_ref() {
                "failure_reason" => { "with the reason " }
                "failure_code" => { "with the code " }
                "task_type" => { "of the type " }
                "site" => { "on " }
                "since" => { "enqueued since " }
                "until" => { "enqueued before " }
                "failed_step" => { "with a failed step " }
                "step" => { "that took the step " }
                "stuck_at" => { "that died at the step " }
                "only" => { "only those " }
                "min_retries" => { "with a number of retries of at least " }
                "not_failure_reason" => { "without the reason " }
                "not_failure_code" => { "without the code " }
                "not_task_type" => { "not of the type " }
                "not_site" => { "not on " }
                "not_status" => { "not in the status " }
                _ => { "with the text " }
            }
            strong { (value) }
        }
    }
}
