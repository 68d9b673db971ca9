//! Dead letters in groups: those that failed in the same way at the same step on the same site, and what one of them looked like.

use maud::{Markup, html};

use super::{Place, chart, format, layout};
use crate::queue::{FailureGroup, MAX_GROUPS, NOWHERE, TREND_DAYS};
use crate::web::auth::Caller;
use crate::web::thumbnail::Size;

/// The page.
pub fn page(caller: &Caller, groups: &[FailureGroup]) -> Markup {
    let total: i64 = groups.iter().map(|group| group.n).sum();
    let main = html! {
        div class="head" {
            h1 { "Failures" }
            @if !groups.is_empty() { p class="quiet" {
                (format::number(total)) @if total == 1 { " dead letter in " } @else { " dead letters in " }
                @if groups.len() as i64 == MAX_GROUPS { "the " (MAX_GROUPS) " largest groups" }
                @else if groups.len() == 1 { "one group" }
                @else { (groups.len()) " groups" }
                ", of all times: the same reason, code, step and site"
            } }
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
    query.append_pair("stuck_at", group.step.as_deref().unwrap_or(NOWHERE));
    let query = query.append_pair("site", &group.site).finish();
    let today = group.trend.last().copied().unwrap_or(0);
    html! {
        article class="group" {
            a class="shot" href={ "/runs/" (group.sample) } {
                @if let Some(name) = &group.sample_screenshot {
                    img src=(Size::Small.of(group.sample, name)) alt={ "The page when run " (group.sample) " failed" }
                        loading="lazy" width="192" height="120";
                } @else {
                    span class="quiet" { "no screenshot" }
                }
            }
            div class="what" {
                h2 { (format::name(&group.failure_reason)) " " code { (format::name(&group.failure_code)) } }
                p class="site" {
                    (group.site)
                    @if let Some(step) = &group.step { span class="quiet" { " at " } (format::name(step)) }
                }
                @if let Some(error) = &group.sample_error { p class="error clamp" { (error.chars().take(300).collect::<String>()) } }
                p class="quiet" {
                    "first " (format::ago(group.first_seen)) ", last " (format::ago(group.last_seen)) ", for example "
                    a href={ "/runs/" (group.sample) } { "run " (group.sample) }
                }
            }
            div class="trend" {
                (chart::sparkline(&group.trend, &format!("By day, the last {TREND_DAYS} days: {}", in_words(&group.trend))))
                span class="quiet" { (TREND_DAYS) " days, " (format::number(today)) " today" }
            }
            div class="count" {
                a class="big" href={ "/runs?status=failed&" (query) } {
                    (format::number(group.n)) span class="sr" { @if group.n == 1 { " run" } @else { " runs" } }
                }
                @if caller.may_operate() {
                    a class="button small" href={ "/runs/retry?" (query) }
                        aria-label={ "Retry all of " (group.failure_reason) " at " (group.step.as_deref().unwrap_or("no step")) " on " (group.site) } { "Retry…" }
                }
            }
        }
    }
}

fn in_words(counts: &[i64]) -> String {
    counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
