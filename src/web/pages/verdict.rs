//! What became of a run, in a sentence, and what happens next. Pure.

use crate::failure::FailureReason;
use crate::queue::{Attempt, RunDetail, RunSummary, Step};
use crate::record;
use crate::web::pages::format;

/// The first thing that somebody who opens a run should read.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happened, where, in which attempt.
    pub what: String,
    /// Why, in the words of whoever saw it.
    pub why: Option<String>,
    /// What happens now, or what to do.
    pub next: String,
    /// `good`, `bad`, `warn`, `busy` or `wait`.
    pub tone: &'static str,
}

/// The verdict on a run.
pub fn of(detail: &RunDetail) -> Verdict {
    let run = &detail.run;
    let ended = detail.attempts.iter().rev().find(|attempt| attempt.status != "running");
    let reason = run.failure_reason.as_deref().unwrap_or("unknown");
    match run.status.as_str() {
        "completed" => {
            let next = after_success(outcome(detail).unwrap_or_default());
            Verdict { what: completed(detail), why: None, next: next.to_owned(), tone: "good" }
        }
        "failed" => Verdict {
            what: format!("Failed{}: {}", place(ended), in_words(run)),
            why: run.last_error.clone(),
            next: after_failure(reason, run.failure_code.as_deref().unwrap_or_default()).to_owned(),
            tone: "bad",
        },
        "running" => Verdict {
            what: detail.attempts.last().map_or("Running".to_owned(), under_way),
            why: run.last_error.as_ref().map(|error| format!("the attempt before it failed: {error}")),
            next: while_it_runs(detail).to_owned(),
            tone: "busy",
        },
        "pending" if run.failure_reason.is_some() => Verdict {
            what: format!("Failed{}: {}", place(ended), in_words(run)),
            why: run.last_error.clone(),
            next: "It goes back to work by itself".to_owned(),
            tone: "warn",
        },
        "pending" => Verdict {
            what: "Waiting for a worker".to_owned(),
            why: None,
            next: "It is taken when its time has come, a worker is free and its site's pace allows it".to_owned(),
            tone: "wait",
        },
        _ => Verdict {
            what: "Cancelled by a person".to_owned(),
            why: run.last_error.clone(),
            next: "Nothing more is done.".to_owned(),
            tone: "wait",
        },
    }
}

/// What the site made of it, in the automation's word.
fn outcome(detail: &RunDetail) -> Option<&str> {
    detail.result.as_ref()?.get("outcome")?.as_str()
}

fn after_success(outcome: &str) -> &'static str {
    match outcome {
        "needs_email_confirmation" => {
            "The account is not open before the mail that the site has sent is confirmed; no mailbox is set up to do that."
        }
        "held_for_moderation" => "It is seen on the site once somebody there has approved it.",
        _ => "Nothing is left to do.",
    }
}

/// How far an attempt has come that has not ended.
fn under_way(attempt: &Attempt) -> String {
    let step = attempt.steps.last().map_or(String::new(), |step| format!(", past step {}", step.name));
    format!("Attempt\u{a0}{} is running{step}", attempt.retry_count + 1)
}

fn while_it_runs(detail: &RunDetail) -> &'static str {
    let attempt = detail.attempts.last();
    let awaits_answer = attempt.is_some_and(|a| a.let_go_at.is_some() && a.submit_outcome.is_none());
    match (detail.cancel_requested, awaits_answer) {
        (true, _) => "It has been asked to stop.",
        (false, true) => {
            "Its request has left and the site's answer is awaited: whoever cancels it now has to look what became of it."
        }
        (false, false) => "It ends by itself, or is stopped when its time runs out.",
    }
}

fn completed(detail: &RunDetail) -> String {
    let outcome = outcome(detail).map_or(String::new(), |outcome| format!(" ({})", outcome.replace('_', " ")));
    let took = format::seconds(detail.run.execution_time);
    match detail.attempts.iter().filter(|attempt| attempt.status != "succeeded").count() {
        0 => format!("Completed in {took}{outcome}"),
        1 => format!("Completed in {took}{outcome}, after one attempt that failed"),
        n => format!("Completed in {took}{outcome}, after {n} attempts that failed"),
    }
}

/// The reason, as a part of a sentence; as it stands where it is none of the eleven.
fn in_words(run: &RunSummary) -> String {
    let reason = run.failure_reason.as_deref().unwrap_or("unknown");
    let code = run.failure_code.as_deref().unwrap_or_default();
    reason.parse().map_or_else(|_| reason.to_owned(), |reason: FailureReason| reason.in_words(code).to_owned())
}

/// ` at step fill_form in attempt 3`.
fn place(attempt: Option<&Attempt>) -> String {
    let Some(attempt) = attempt else { return " before its first attempt".to_owned() };
    let step = place_of_failure(attempt).map_or(String::new(), |step| format!(" at step {}", step.name));
    format!("{step} in attempt\u{a0}{}", attempt.retry_count + 1)
}

/// Where an attempt went wrong.
pub fn place_of_failure(attempt: &Attempt) -> Option<&Step> {
    record::place_of_failure(&attempt.steps, |step| {
        (step.name.as_str(), step.status != "failed", step.duration_ms > 0.0)
    })
}

fn after_failure(reason: &str, code: &str) -> &'static str {
    match (reason, code) {
        (_, "outcome.uncertain") => {
            "It may have been submitted already. Look at the site; if it is not there, retry and confirm that."
        }
        (_, "policy.not_enrolled") => "Enrol the site with `pagehand site add`, then retry.",
        (_, "input.invalid_payload") => "Its payload can't be used: enqueue it anew with the right one.",
        (_, "infra.worker_lost") => "It lost its worker three times. See what the workers' log says before you retry.",
        ("captcha_present" | "captcha_failed", _) => "A person has to do this one; no robot of ours solves a CAPTCHA.",
        ("blocked", _) => "The site turned us away. Ask whoever enrolled it before you retry.",
        ("comment_form_not_found" | "element_not_found" | "iframe_missed", _) => {
            "Look at the screenshot: has the page changed, or is it the wrong one? A retry helps once that is mended."
        }
        ("registration_failed", _) => {
            "The site refused the account; its words are in the error. Mend the payload and enqueue anew."
        }
        _ => "No further attempt is made. Retry it once the cause is mended.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncertain_outcome_is_never_answered_with_a_plain_retry() {
        assert!(after_failure("unknown", "outcome.uncertain").contains("Look at the site"));
        assert!(after_failure("timeout", "nav.timeout").contains("Retry it"));
    }
}
