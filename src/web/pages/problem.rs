//! A problem, for a person.

use maud::{Markup, html};

use super::{Place, layout};
use crate::web::problem::Problem;

/// The page in place of the one that was asked for. It is shown to strangers too, so it has no menu of its own.
pub fn page(problem: &Problem, request_id: &str, path: &str) -> Markup {
    let run =
        path.strip_prefix("/runs/").and_then(|rest| rest.split('/').next()).filter(|id| id.parse::<u32>().is_ok());
    let main = html! {
        div class="notice bad" role="alert" {
            h1 { (problem.title()) }
            p { (problem.detail) }
            @if problem.errors.len() > 1 {
                ul { @for error in &problem.errors { li { code { (error.field) } " " (error.problem) } } }
            }
        }
        p class="actions" {
            @if let Some(id) = run { a class="button" href={ "/runs/" (id) } { "Run " (id) } }
            a class="button" href="/runs" { "All runs" }
        }
        p class="quiet" { "Request " code { (request_id) } }
    };
    layout(problem.title(), Place::Elsewhere, None, &main)
}
