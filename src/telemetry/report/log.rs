//! The page's console and network, in the report: folded, what went wrong marked.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::Report;
use crate::record::PageLog;

/// Most rows of each; the files beside the report have all.
const SHOWN: usize = 200;

pub(super) fn sections(report: &Report<'_>) -> Markup {
    let PageLog { console, network } = report.page_log;
    let failed = network.requests.iter().filter(|request| request.failed()).count();
    let errors = console.lines.iter().filter(|line| line.is_error()).count();
    html! {
        @if !network.requests.is_empty() || !console.lines.is_empty() {
            section {
                h2 { "What the page asked for and said" }
                @if !network.requests.is_empty() {
                    details {
                        summary { "Network: " (network.requests.len()) " requests" @if failed > 0 { span.wrong { ", " (failed) " failed" } } }
                        table.log {
                            thead { tr { th { "At" } th { "Request" } th { "Answer" } } }
                            tbody {
                                @for request in network.requests.iter().take(SHOWN) {
                                    tr.wrong[request.failed()] {
                                        td { (offset(report, request.at)) }
                                        td { (request.method) " " (request.url) " " span.dim { (request.resource) } }
                                        td {
                                            @if request.failed() { "✕ " }
                                            @if let Some(status) = request.status { (status) " " }
                                            @if let Some(error) = &request.error { (error) }
                                        }
                                    }
                                }
                            }
                        }
                        (rest(network.requests.len(), network.not_kept))
                    }
                }
                @if !console.lines.is_empty() {
                    details {
                        summary { "Console: " (console.lines.len()) " lines" @if errors > 0 { span.wrong { ", " (errors) " errors" } } }
                        table.log {
                            thead { tr { th { "At" } th { "Level" } th { "Text" } } }
                            tbody {
                                @for line in console.lines.iter().take(SHOWN) {
                                    tr.wrong[line.is_error()] { td { (offset(report, line.at)) } td { (line.level) } td { (line.text) } }
                                }
                            }
                        }
                        (rest(console.lines.len(), console.not_kept))
                    }
                }
                p.files { @for saved in report.saved.iter().filter(|saved| saved.kind == "page") { a href=(saved.name) { (saved.name) } } }
            }
        }
    }
}

fn rest(kept: usize, not_kept: u64) -> Markup {
    html! {
        @if kept > SHOWN { p.dim { (kept - SHOWN) " more are in the file." } }
        @if not_kept > 0 { p.dim { (not_kept) " more were not kept." } }
    }
}

fn offset(report: &Report<'_>, at: DateTime<Utc>) -> String {
    super::human((at - report.started_at).to_std().unwrap_or_default())
}
