//! The workers, and what each is doing.

use maud::{Markup, html};

use super::{Place, format, layout};
use crate::queue::{WorkerNow, WorkerTask};
use crate::web::auth::Caller;

/// The page.
pub fn page(caller: &Caller, workers: &[WorkerNow]) -> Markup {
    let alive = workers.iter().filter(|worker| worker.alive).count();
    let lost = workers.iter().filter(|worker| worker.is_lost()).count();
    let stopped = workers.len() - alive - lost;
    let main = html! {
        div class="head" {
            h1 { "Workers" }
            p class="quiet" {
                (alive) " alive"
                @if lost > 0 { ", " span class="bad" { (lost) " lost" } }
                @if stopped > 0 { ", " (stopped) " stopped" }
                @if lost + stopped > 0 { " within the last hour" }
            }
        }
        div data-live="workers" id="workers" data-progress {
            @if workers.is_empty() {
                div class="empty" {
                    p { strong { "No worker was here within the last hour." } }
                    p { "Tasks wait until one comes: " code { "pagehand worker" } }
                }
            } @else {
                ul class="groups" { @for worker in workers { li { (card(worker)) } } }
            }
        }
    };
    layout("Workers", Place::Workers, Some(caller), &main)
}

fn card(worker: &WorkerNow) -> Markup {
    html! {
        article class="worker" {
            header {
                h2 { (worker.name) }
                @if worker.alive { span class="badge good" { "alive" } }
                @else if let Some(stopped_at) = worker.stopped_at { span class="badge" { "stopped " (format::ago(stopped_at)) } }
                @else { span class="badge bad" { "lost, last seen " (format::ago(worker.seen_at)) } }
                span class="quiet" { "began " (format::ago(worker.started_at)) " · version " (worker.version) }
            }
            @if worker.tasks.is_empty() { @if worker.alive { p class="quiet" { "Idle." } } }
            @else { (table(false, worker.tasks.iter().map(|task| (None, task)))) }
        }
    }
}

/// What all of them are doing, in one table.
pub fn doing(workers: &[WorkerNow]) -> Markup {
    let tasks: Vec<_> =
        workers.iter().flat_map(|worker| worker.tasks.iter().map(|task| (Some(worker.name.as_str()), task))).collect();
    html! {
        @if !tasks.is_empty() {
            section class="doing" aria-label="What the workers are doing" { (table(true, tasks.into_iter())) }
        }
    }
}

/// `named`: with the worker of each.
fn table<'a>(named: bool, tasks: impl Iterator<Item = (Option<&'a str>, &'a WorkerTask)>) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Tasks under way" {
            table class="plain" {
                thead {
                    tr {
                        th scope="col" { "Run" } th scope="col" { "Page" } th scope="col" { "Latest step" }
                        th scope="col" class="num" { "Attempt" } th scope="col" { "Begun" } @if named { th scope="col" { "Worker" } }
                    }
                }
                tbody {
                    @for (worker, task) in tasks {
                        tr {
                            td { a href={ "/runs/" (task.id) } { "#" (task.id) } " " span class="quiet" { (task.task_type) } }
                            td class="url" { (task.url) }
                            td { (task.step.as_deref().unwrap_or(format::NONE)) }
                            td class="num" { (task.retry_count + 1) }
                            td { (format::ago(task.started_at)) }
                            @if let Some(worker) = worker { td { (worker) } }
                        }
                    }
                }
            }
        }
    }
}
