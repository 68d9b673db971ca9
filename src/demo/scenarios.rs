//! One task for each outcome, and what must come of it.

use serde_json::{Value, json};

use crate::failure::FailureReason;

/// What must come of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// The task ends completed.
    Success,
    /// The task ends as a dead letter.
    Failure {
        /// For this reason.
        reason: FailureReason,
        /// With this code, where it is certain.
        code: Option<&'static str>,
    },
}

/// A task for the demo site and its expected end.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Short and unique, for tables: `comment-posted`.
    pub name: &'static str,
    /// An enqueue line whose `url` is only a path: see [`Scenario::line`].
    pub task: Value,
    /// How it must end.
    pub expected: Expectation,
    /// What is special about the page, for a person.
    pub note: &'static str,
}

impl Scenario {
    /// The enqueue line for the site at `origin`, for example `http://127.0.0.1:40123`.
    pub fn line(&self, origin: &str) -> Value {
        let mut line = self.task.clone();
        line["url"] = Value::String(format!("{origin}{}", self.path()));
        line
    }

    /// The page it acts on.
    pub fn path(&self) -> &str {
        self.task["url"].as_str().unwrap_or("/")
    }
}

fn fails(reason: FailureReason) -> Expectation {
    Expectation::Failure { reason, code: None }
}

fn fails_with(reason: FailureReason, code: &'static str) -> Expectation {
    Expectation::Failure { reason, code: Some(code) }
}

/// A comment on `slug`. Each scenario has an author and a text of its own: the site takes nothing twice.
fn comment(name: &'static str, slug: &str, max_retries: u32, expected: Expectation, note: &'static str) -> Scenario {
    let task = json!({
        "task_type": "comment",
        "url": format!("/articles/{slug}"),
        "campaign_id": 1,
        "max_retries": max_retries,
        "payload": {
            "author": "Frida Holm",
            "email": format!("frida+{name}@example.org"),
            "body": format!("Read this twice on the ferry and sent it to my sister.\n\nShe says hello — naïve, 東京, 🌊 and all. ({slug})"),
        },
    });
    Scenario { name, task, expected, note }
}

fn registration(name: &'static str, path: &str, username: &str, expected: Expectation, note: &'static str) -> Scenario {
    let task = json!({
        "task_type": "registration",
        "url": path,
        "campaign_id": 2,
        "max_retries": 1,
        "payload": {
            "username": username,
            "email": format!("{username}@example.org"),
            "password": "low-water 04:52 & rising",
            "first_name": "Frida",
            "last_name": "Holm",
        },
    });
    Scenario { name, task, expected, note }
}

/// A task that fails with a time-out as often as it may be repeated, and succeeds when a person retries it.
pub fn failed_run() -> Scenario {
    let note = "half a page and silence three times, then fine";
    comment("comment-after-silence", "late-ferry", 2, fails_with(FailureReason::Timeout, "nav.timeout"), note)
}

/// The tasks of `pagehand demo`: success of both types, and every failure reason a page can cause.
///
/// A page that never ends (`endless-page`) costs the whole time limit for loading a page: keep that to a few seconds.
pub fn scenarios() -> Vec<Scenario> {
    use Expectation::Success;
    use FailureReason as Reason;
    vec![
        comment(
            "comment-posted",
            "harbour-lights",
            1,
            Success,
            "a form below an article; 303 to the page with the comment",
        ),
        comment("comment-held", "night-market", 1, Success, "held for moderation"),
        comment("comment-by-fetch", "slow-trains", 1, Success, "sent by fetch(), the page stays"),
        comment("comment-in-frame", "salt-roads", 1, Success, "the form is in a frame of the same origin"),
        comment("comment-in-shadow", "tide-clocks", 1, Success, "the form is in an open shadow root"),
        comment(
            "comment-among-traps",
            "paper-boats",
            1,
            Success,
            "decoys and honeypots; filling one is a false success",
        ),
        comment(
            "comment-after-consent",
            "fog-signals",
            1,
            Success,
            "a cookie dialog lies over the form until it is declined",
        ),
        comment("comment-after-503", "spring-tide", 3, Success, "503 twice, then fine: the third attempt succeeds"),
        registration("account-created", "/join", "frida.holm", Success, "password twice, terms to accept"),
        registration("account-by-mail", "/join/by-mail", "frida.mail", Success, "created; a mailed link confirms it"),
        registration(
            "account-name-taken",
            "/join",
            "harbourmaster",
            fails(Reason::RegistrationFailed),
            "the name exists",
        ),
        registration(
            "account-needs-code",
            "/join/code",
            "frida.code",
            fails(Reason::EmailVerificationFailed),
            "a mailed code activates it, and there is no mailbox to read it from",
        ),
        registration(
            "account-behind-captcha",
            "/join/guarded",
            "frida.guarded",
            fails(Reason::CaptchaPresent),
            "a CAPTCHA in the sign-up form",
        ),
        comment("captcha-in-form", "ask-the-editor", 1, fails(Reason::CaptchaPresent), "a CAPTCHA in the comment form"),
        comment(
            "captcha-refused",
            "reader-poll",
            1,
            fails(Reason::CaptchaFailed),
            "looks plain; the answer says the CAPTCHA was wrong or missing",
        ),
        comment("comments-closed", "closed-season", 1, fails(Reason::CommentFormNotFound), "comments are closed"),
        comment("members-only", "members-letter", 1, fails(Reason::CommentFormNotFound), "only for those logged in"),
        comment("access-denied", "archive-1911", 0, fails_with(Reason::Blocked, "http.403"), "403 from the edge"),
        comment(
            "rate-limited",
            "opening-day",
            1,
            fails_with(Reason::Blocked, "http.429"),
            "429 with Retry-After: 2, each time",
        ),
        comment("endless-page", "long-exposure", 0, fails(Reason::Timeout), "half a page, then silence"),
        comment(
            "wall",
            "subscribers-only",
            0,
            fails(Reason::PopupBlocking),
            "a wall over the page that can't be closed",
        ),
        comment(
            "frame-refused",
            "second-opinion",
            0,
            fails(Reason::IframeMissed),
            "the form's frame forbids being framed",
        ),
        comment(
            "frame-dead",
            "dead-letter-office",
            0,
            fails(Reason::IframeMissed),
            "nobody listens where the form's frame comes from",
        ),
        comment("button-missing", "broken-press", 0, fails(Reason::ElementNotFound), "a form that has lost its button"),
        comment(
            "field-unknown",
            "wine-notes",
            0,
            fails(Reason::ElementNotFound),
            "a required number that the task does not have",
        ),
        comment("server-error", "misprint", 1, fails_with(Reason::Unknown, "http.500"), "500 each time"),
        comment(
            "connection-cut",
            "cut-cable",
            1,
            fails(Reason::Unknown),
            "the server closes the connection without an answer",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::task::NewTask;

    #[test]
    fn every_scenario_is_a_task_that_enqueue_takes() {
        for scenario in scenarios() {
            let line = scenario.line("http://127.0.0.1:40123");
            if let Err(errors) = NewTask::from_value(&line) {
                panic!("{}: {errors:?}", scenario.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_no_two_comments_come_from_one_address() {
        let all = scenarios();
        let names: BTreeSet<_> = all.iter().map(|scenario| scenario.name).collect();
        let addresses: BTreeSet<_> = all.iter().map(|scenario| scenario.task["payload"]["email"].to_string()).collect();
        assert_eq!((names.len(), addresses.len()), (all.len(), all.len()));
    }

    #[test]
    fn success_of_both_types_and_every_failure_reason_are_covered() {
        let all = scenarios();
        for task_type in ["comment", "registration"] {
            let succeeds = |s: &Scenario| s.expected == Expectation::Success && s.task["task_type"] == task_type;
            assert!(all.iter().any(succeeds), "no {task_type} succeeds");
        }
        for reason in FailureReason::ALL {
            let has = |s: &Scenario| matches!(s.expected, Expectation::Failure { reason: r, .. } if r == reason);
            assert!(all.iter().any(has), "{reason} is not covered");
        }
    }
}
