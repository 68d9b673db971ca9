//! Who did what by hand.

use maud::{Markup, html};

use super::{Place, format, layout};
use crate::queue::AuditEntry;
use crate::web::auth::Caller;
use crate::web::wire::without_secrets;

/// The page.
pub fn page(caller: &Caller, entries: &[AuditEntry], limit: u32) -> Markup {
    let main = html! {
        div class="head" {
            h1 { "Done by hand" }
            p class="quiet" {
                @if entries.len() < limit as usize { "everything that a person has changed, the newest first" }
                @else { "the newest " (limit) " changes that a person has made" }
            }
        }
        div data-live="audit" id="audit" {
            @if entries.is_empty() {
                div class="empty" {
                    p { strong { "Nothing was done by hand yet." } }
                    p { "Retries, cancellations, and changes to sites and proxies are written down here." }
                }
            } @else {
                div class="card scroll" tabindex="0" role="region" aria-label="Changes" {
                    table class="plain audit" {
                        thead {
                            tr {
                                th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "On" }
                                th scope="col" { "Details" }
                            }
                        }
                        tbody { @for entry in entries { (row(entry)) } }
                    }
                }
            }
        }
    };
    layout("Done by hand", Place::Audit, Some(caller), &main)
}

fn row(entry: &AuditEntry) -> Markup {
    let run = entry.subject.parse::<i64>().is_ok();
    html! {
        tr {
            td class="when" { (format::exact(entry.at)) }
            td { (entry.who) }
            td { code { (entry.action) } }
            td class="url" { @if run { a href={ "/runs/" (entry.subject) } { "run " (entry.subject) } } @else { (entry.subject) } }
            td class="details" { (details(entry)) }
        }
    }
}

/// The members of the details that say something, as words.
fn details(entry: &AuditEntry) -> Markup {
    let shown = without_secrets(entry.details.clone());
    let members = shown.as_object().cloned().unwrap_or_default();
    let blank = |value: &serde_json::Value| {
        value.is_null() || *value == serde_json::Value::Bool(false) || value.as_str().is_some_and(str::is_empty)
    };
    html! {
        @for (n, (name, value)) in members.iter().filter(|(_, value)| !blank(value)).enumerate() {
            @if n > 0 { ", " }
            span class="quiet" { (name.replace('_', " ")) " " }
            @match value {
                serde_json::Value::String(text) => { (text) }
                serde_json::Value::Bool(_) => { "yes" }
                other => { (other) }
            }
        }
    }
}
