//! What the page said on its console and asked of the network: counts first, what went wrong marked.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::format;
use crate::queue::Attempt;
use crate::record::{ConsoleLine, PageLog, RequestLine};

/// Most rows of each; the files have all.
const SHOWN: usize = 150;

/// Both, folded.
pub fn sections(run: i64, attempt: &Attempt, log: &PageLog) -> Markup {
    html! { (network(run, attempt, log)) (console(run, attempt, log)) }
}

fn network(run: i64, attempt: &Attempt, log: &PageLog) -> Markup {
    let requests = &log.network.requests;
    let failed = requests.iter().filter(|request| request.failed()).count();
    let bytes: u64 = requests.iter().map(|request| request.bytes).sum();
    let shown = most_telling(requests, RequestLine::failed);
    html! {
        @if !requests.is_empty() {
            details class="more" id={ "network-" (attempt.fence) } {
                summary {
                    "Network: " (requests.len()) @if requests.len() == 1 { " request" } @else { " requests" }
                    @if failed > 0 { span class="bad" { ", " (failed) " failed" } }
                    " " span class="quiet" { (format::bytes(bytes.cast_signed())) }
                }
                div class="scroll" tabindex="0" role="region" aria-label="Requests" {
                    table class="plain log" {
                        thead {
                            tr {
                                th scope="col" class="num" { "At" } th scope="col" { "Request" } th scope="col" { "Answer" }
                                th scope="col" { "Type" } th scope="col" class="num" { "Size" } th scope="col" class="num" { "Took" }
                            }
                        }
                        tbody { @for request in &shown { (request_row(attempt, request)) } }
                    }
                }
                (left_out(run, attempt, "network", requests.len() - shown.len(), log.network.not_kept, "after these"))
            }
        }
    }
}

fn request_row(attempt: &Attempt, request: &RequestLine) -> Markup {
    html! {
        tr class=[request.failed().then_some("failed")] {
            td class="num quiet" { (offset(attempt, request.at)) }
            td class="url" { strong { (request.method) } " " (request.url) }
            td {
                @if request.failed() { span class="mark" aria-label="failed" { "✕" } " " }
                @if let Some(status) = request.status { (status) " " }
                @if let Some(error) = &request.error { (error) }
                @if request.status.is_none() && request.error.is_none() { span class="quiet" { "no answer yet" } }
            }
            td class="quiet" { (request.resource) }
            td class="num" { @if request.bytes > 0 { (format::bytes(request.bytes.cast_signed())) } }
            td class="num" { @if let Some(ms) = request.duration_ms { (format::duration(ms)) } }
        }
    }
}

fn console(run: i64, attempt: &Attempt, log: &PageLog) -> Markup {
    let lines = &log.console.lines;
    let errors = lines.iter().filter(|line| line.is_error()).count();
    let shown = most_telling(lines, ConsoleLine::is_error);
    html! {
        @if !lines.is_empty() {
            details class="more" id={ "console-" (attempt.fence) } {
                summary {
                    "Console: " (lines.len()) @if lines.len() == 1 { " line" } @else { " lines" }
                    @if errors > 0 { span class="bad" { ", " (errors) @if errors == 1 { " error" } @else { " errors" } } }
                }
                div class="scroll" tabindex="0" role="region" aria-label="Console" {
                    table class="plain log" {
                        thead { tr { th scope="col" class="num" { "At" } th scope="col" { "Level" } th scope="col" { "Text" } } }
                        tbody {
                            @for line in &shown {
                                tr class=[line.is_error().then_some("failed")] {
                                    td class="num quiet" { (offset(attempt, line.at)) }
                                    td { @if line.is_error() { span class="mark" aria-hidden="true" { "✕ " } } (line.level) }
                                    td class="said" { (line.text) @if !line.url.is_empty() { " " span class="quiet" { (line.url) } } }
                                }
                            }
                        }
                    }
                }
                (left_out(run, attempt, "console", lines.len() - shown.len(), log.console.not_kept, "before these"))
            }
        }
    }
}

/// At most [`SHOWN`] in their order: all that are wrong, as far as they fit, and the first of the others.
fn most_telling<T>(all: &[T], wrong: fn(&T) -> bool) -> Vec<&T> {
    let mut room = SHOWN.saturating_sub(all.iter().filter(|one| wrong(one)).count());
    let kept = all.iter().filter(|one| {
        let others = !wrong(one) && room > 0;
        room -= usize::from(others);
        others || wrong(one)
    });
    kept.take(SHOWN).collect()
}

fn left_out(run: i64, attempt: &Attempt, kind: &str, not_shown: usize, not_kept: u64, when: &str) -> Markup {
    let file = attempt.artifacts.iter().find(|artifact| artifact.kind == kind);
    html! {
        p class="quiet" {
            @if not_shown > 0 { (format::number(not_shown as i64)) " more are in the file. " }
            @if not_kept > 0 { (format::number(not_kept.cast_signed())) " came " (when) " and were not kept. " }
            @if let Some(file) = file { a href={ "/runs/" (run) "/artifacts/" (file.name) } { (file.name) } }
        }
    }
}

/// Since the beginning of the attempt.
fn offset(attempt: &Attempt, at: DateTime<Utc>) -> String {
    format::duration((at - attempt.started_at).num_milliseconds().max(0) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_shown_however_much_went_well() {
        let all: Vec<u32> = (0..1_000).collect();
        let shown = most_telling(&all, |n| n % 100 == 99);
        assert_eq!(
            (shown.len(), *shown[SHOWN - 1], shown.iter().filter(|n| **n % 100 == 99).count()),
            (SHOWN, 999, 10)
        );
    }
}
