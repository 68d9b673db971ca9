//! Who did what by hand, and what workers kept pages from.

use maud::{Markup, html};
use serde_json::Value;

use super::{Place, format, layout};
use crate::queue::AuditEntry;
use crate::web::auth::Caller;
use crate::web::wire::without_secrets;

/// The page.
pub fn page(caller: &Caller, entries: &[AuditEntry], limit: u32) -> Markup {
    let main = html! {
        div class="head" {
            h1 { "Audit" }
            p class="quiet" {
                "what people have changed, and what workers kept pages from; "
                @if entries.len() < limit as usize { "all of it, the newest first" } @else { "the newest " (limit) }
            }
        }
        div data-live="audit" id="audit" {
            @if entries.is_empty() {
                div class="empty" {
                    p { strong { "Nothing yet." } }
                    p { "Retries, cancellations, changes to sites and proxies, and addresses that pages were refused are written down here." }
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
    layout("Audit", Place::Audit, Some(caller), &main)
}

fn row(entry: &AuditEntry) -> Markup {
    let run = entry.subject.parse::<i64>().is_ok();
    html! {
        tr {
            td class="when" { (format::exact(entry.at)) }
            td class="who-did" { (entry.who) }
            td { code { (entry.action) } }
            td class="url" { @if run { a href={ "/runs/" (entry.subject) } { "run " (entry.subject) } } @else { (entry.subject) } }
            td class="details" { (details(entry)) }
        }
    }
}

/// The members of the details that say something, as words.
fn details(entry: &AuditEntry) -> Markup {
    let shown = without_secrets(entry.details.clone());
    let mut said = Vec::new();
    members(&shown, &mut said);
    html! {
        @for (n, (name, value)) in said.iter().enumerate() {
            @if n > 0 { ", " }
            span class="quiet" { (name.replace('_', " ")) " " }
            @match value {
                Value::String(text) => { (text) }
                Value::Bool(_) => { "yes" }
                other => { (other) }
            }
        }
    }
}

/// Those of objects within objects too, which the names alone tell apart.
fn members<'a>(details: &'a Value, said: &mut Vec<(&'a str, &'a Value)>) {
    for (name, value) in details.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => members(value, said),
            Value::Null | Value::Bool(false) => {}
            Value::String(text) if text.is_empty() => {}
            value => said.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_nothing_is_left_out_at_any_depth() {
        let details =
            json!({"allow_private": true, "manners": {"contact": null, "robots": "respect"}, "note": "", "off": false});
        let mut said = Vec::new();
        members(&details, &mut said);
        assert_eq!(said, [("allow_private", &json!(true)), ("robots", &json!("respect"))]);
    }
}
