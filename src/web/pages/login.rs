//! Logging in.

use maud::{Markup, html};

use super::{Place, layout};

/// The form; `next` is where it leads, `problem` why it is shown again.
pub fn page(next: &str, problem: Option<&str>) -> Markup {
    let main = html! {
        form class="login" method="post" action="/login" {
            h1 { "Log in" }
            @if let Some(problem) = problem { p class="error" role="alert" { (problem) } }
            input type="hidden" name="next" value=(next);
            label for="token" { "Token" }
            input id="token" name="token" type="password" autocomplete="current-password" required autofocus;
            p class="quiet" { "One of those that the operator has set in " code { "web.tokens" } "." }
            button class="primary" { "Log in" }
        }
    };
    layout("Log in", Place::Elsewhere, None, &main)
}
