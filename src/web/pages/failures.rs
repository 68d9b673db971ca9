//! Dead letters in groups: those that failed in the same way on the same site, and what one of them looked like.

use maud::{Markup, html};

use super::{Place, format, layout};
use crate::queue::FailureGroup;
use crate::web::auth::Caller;

/// The page.
pub fn page(caller: &Caller, groups: &[FailureGroup]) -> Markup {
    let total: i64 = groups.iter().map(|group| group.n).sum();
    let main = html! {
        div class="head" {
            h1 { "Failures" }
            p class="quiet" {
                (format::number(total)) " dead letters in " (groups.len()) " groups, of all times: grouped by reason, code and site"
            }
        }
        div data-live="groups" id="groups" {
            @if groups.is_empty() {
                div class="empty" {
                    p { strong { "No dead letters." } }
                    p { "A task comes here when it is out of retries, or when a retry can't help." }
                }
            }
            ul class="groups" { @for group in groups { li { (card(caller, group)) } } }
        }
    };
    layout("Failures", Place::Failures, Some(caller), &main)
}

fn card(caller: &Caller, group: &FailureGroup) -> Markup {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("failure_reason", &group.failure_reason).append_pair("failure_code", &group.failure_code);
    let query = query.append_pair("site", &group.site).finish();
    html! {
        article class="group" {
            a class="shot" href={ "/runs/" (group.sample) } {
                @if let Some(name) = &group.sample_screenshot {
                    img src={ "/runs/" (group.sample) "/artifacts/" (name) } alt={ "The page when run " (group.sample) " failed" }
                        loading="lazy" width="240" height="150";
                } @else {
                    span class="quiet" { "no screenshot" }
                }
            }
            div class="what" {
                h2 { (group.failure_reason) " " code { (group.failure_code) } }
                p class="site" { (group.site) }
                @if let Some(error) = &group.sample_error { p class="error clamp" { (error) } }
                p class="quiet" {
                    "first " (format::ago(group.first_seen)) ", last " (format::ago(group.last_seen)) ", for example "
                    a href={ "/runs/" (group.sample) } { "run " (group.sample) }
                }
            }
            div class="count" {
                a class="big" href={ "/runs?status=failed&" (query) } { (format::number(group.n)) }
                span class="quiet" { @if group.n == 1 { "run" } @else { "runs" } }
                @if caller.may_operate() { a class="button" href={ "/runs/retry?" (query) } { "Retry…" } }
            }
        }
    }
}
