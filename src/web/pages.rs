//! The pages: HTML made on the server, usable without a script. Everything that comes from a task, a worker or a site is
//! escaped by `maud`; nothing is ever put in unescaped.

use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::auth::Caller;

pub mod audit;
mod chart;
mod compare;
pub mod confirm;
pub mod dashboard;
pub mod failures;
mod format;
pub mod login;
mod page_log;
pub mod problem;
pub mod run;
pub mod runs;
mod timeline;
mod verdict;
pub mod workers;

/// Which entry of the menu a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Runs,
    Failures,
    Dashboard,
    Workers,
    Audit,
    Elsewhere,
}

/// A whole page.
fn layout(title: &str, place: Place, caller: Option<&Caller>, main: &Markup) -> Markup {
    let version = assets::VERSION.as_str();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Pagehand" }
                link rel="icon" type="image/svg+xml" href={ (assets::ICON) "?v=" (version) };
                link rel="stylesheet" href={ (assets::STYLE) "?v=" (version) };
                script src={ (assets::SCRIPT) "?v=" (version) } defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to content" }
                header class="top" {
                    div class="inner" {
                        a class="brand" href="/runs" { img src={ (assets::ICON) "?v=" (version) } alt="" width="22" height="22"; "Pagehand" }
                        @if let Some(caller) = caller {
                            nav aria-label="Main" {
                                (entry("/runs", "Runs", place == Place::Runs))
                                (entry("/failures", "Failures", place == Place::Failures))
                                (entry("/dashboard", "Dashboard", place == Place::Dashboard))
                                (entry("/workers", "Workers", place == Place::Workers))
                                (entry("/audit", "Audit", place == Place::Audit))
                            }
                            div class="who" {
                                span class="live" id="live" hidden {}
                                @if caller.by_cookie {
                                    span { (caller.name) @if !caller.may_operate() { " · read only" } }
                                    form method="post" action="/logout" { button class="plain" { "Log out" } }
                                }
                            }
                        }
                    }
                }
                main id="main" tabindex="-1" { (main) }
            }
        }
    }
}

fn entry(href: &str, name: &str, current: bool) -> Markup {
    html! { a href=(href) aria-current=[current.then_some("page")] { (name) } }
}

/// A status as a coloured word; the colour never stands alone.
fn badge(status: &str) -> Markup {
    let class = match status {
        "completed" | "succeeded" | "ok" => "badge good",
        "failed" | "lost" => "badge bad",
        "running" => "badge busy",
        "pending" => "badge wait",
        _ => "badge",
    };
    html! { span class=(class) { (status) } }
}
