//! A problem, for a person.

use maud::{Markup, html};

use super::{Place, layout};
use crate::web::problem::Problem;

/// The page in place of the one that was asked for. It is shown to strangers too, so it has no menu of its own.
pub fn page(problem: &Problem, request_id: &str, path: &str) -> Markup {
    // The run that a part or an action of it was asked for.
    let run = path.strip_prefix("/runs/").and_then(|rest| rest.split_once('/')).map(|(id, _)| id);
    let run = run.filter(|id| id.parse::<u32>().is_ok());
    let main = html! {
        div class="notice bad" role="alert" {
            h1 { (problem.title()) }
            p { (sentence(&problem.detail)) }
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

/// With a capital and a full stop: a message is a part of a sentence where programs read it.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
    let stop = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{stop}", rest.as_str())
}
