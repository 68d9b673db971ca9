//! What becomes of a task after an attempt. Pure: the result and the budgets in, the outcome out.
//!
//! Three budgets: failures (`max_retries`), lost workers (counted by the queue's reaper), shutdowns (free).

use serde_json::{Map, Value};

use crate::failure::{Failure, FailureReason};
use crate::queue::Outcome;
use crate::retry::RetryPolicy;
use crate::task::Task;

/// Why an attempt ended without success.
#[derive(Debug, Clone)]
pub(super) enum Ended {
    /// It failed.
    Failed(Failure),
    /// A person called the task off.
    Cancelled,
    /// The worker shuts down and the task was not done in time.
    Shutdown,
    /// The lease is somebody else's now, or soon will be: nothing may be written any more.
    LeaseLost,
}

impl Ended {
    /// The failure that goes on record; a lost lease has one too, though nobody writes it down but the log.
    pub(super) fn failure(&self) -> Failure {
        let unknown = |code: &'static str, message: &str| Failure::retryable(FailureReason::Unknown, code, message);
        match self {
            Self::Failed(failure) => failure.clone(),
            Self::Cancelled => Failure::terminal(FailureReason::Unknown, "task.cancelled", "cancelled by a person"),
            Self::Shutdown => unknown("infra.shutdown", "the worker was shut down before the task was done"),
            Self::LeaseLost => unknown("infra.lease_lost", "the lease was lost before the task was done"),
        }
    }

    /// What is put on record of an attempt whose worker is gone; the queue writes the same into the row.
    pub(super) fn worker_lost() -> Failure {
        let message = "the worker was lost before the task was done";
        Failure::retryable(FailureReason::Unknown, "infra.worker_lost", message)
    }
}

/// What is known of submissions of the task when an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Submission {
    /// None left, or the site's answer is known.
    Settled,
    /// One left and its answer is not known: the next attempt has to look first.
    Open,
}

/// Decides what is committed; None where nothing may be.
pub(super) fn decide(
    task: &Task,
    result: Result<Map<String, Value>, Ended>,
    submission: Submission,
    policy: &RetryPolicy,
) -> Option<Outcome> {
    let failure = match result {
        Ok(details) => return Some(Outcome::Completed { result: Value::Object(details) }),
        Err(Ended::LeaseLost) => return None,
        Err(Ended::Cancelled) => return Some(Outcome::Cancelled),
        Err(ended @ Ended::Shutdown) => return Some(Outcome::Released { failure: ended.failure() }),
        Err(Ended::Failed(failure)) => failure,
    };
    let failures = task.failures + 1;
    if failure.retryable && failures <= task.max_retries {
        let delay = policy.delay(failures, failure.retry_after);
        Some(Outcome::Retry { failure, delay })
    } else if submission == Submission::Open {
        Some(Outcome::Dead { failure: uncertain(failure) })
    } else {
        Some(Outcome::Dead { failure })
    }
}

/// A dead letter whose submission may have arrived: a person must look before it is retried.
fn uncertain(failure: Failure) -> Failure {
    let message = format!("{}; whether the submission arrived is not known", failure.message);
    let mut causes = vec![format!("{} ({})", failure.message, failure.code)];
    causes.extend(failure.causes);
    Failure { causes, ..Failure::terminal(FailureReason::Unknown, "outcome.uncertain", message) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::TaskId;

    const POLICY: RetryPolicy = RetryPolicy { initial: Duration::from_secs(10), max: Duration::from_secs(600) };

    fn task(failures: u32, max_retries: u32) -> Task {
        Task {
            id: TaskId(1),
            task_type: "comment".into(),
            url: "https://example.org/".into(),
            site: "https://example.org".into(),
            campaign_id: None,
            payload: Value::Null,
            retry_count: 9,
            max_retries,
            failures,
            priority: 0,
            created_at: chrono::Utc::now(),
            traceparent: None,
            request_id: None,
        }
    }

    fn outcome(failures: u32, max_retries: u32, failure: Failure) -> Outcome {
        decide(&task(failures, max_retries), Err(Ended::Failed(failure)), Submission::Settled, &POLICY).unwrap()
    }

    fn timeout() -> Failure {
        Failure::retryable(FailureReason::Timeout, "nav.timeout", "too slow")
    }

    #[test]
    fn what_can_get_better_is_repeated_until_the_budget_is_used_up() {
        assert!(matches!(outcome(0, 3, timeout()), Outcome::Retry { .. }));
        assert!(matches!(outcome(2, 3, timeout()), Outcome::Retry { .. }));
        assert!(matches!(outcome(3, 3, timeout()), Outcome::Dead { .. }));
        assert!(matches!(outcome(0, 0, timeout()), Outcome::Dead { .. }));
    }

    #[test]
    fn what_cannot_get_better_is_a_dead_letter_at_once() {
        let failure = Failure::terminal(FailureReason::CaptchaPresent, "captcha.recaptcha", "a person has to look");
        assert!(matches!(outcome(0, 3, failure), Outcome::Dead { .. }));
    }

    #[test]
    fn a_site_that_names_a_time_is_not_visited_before_it() {
        let wish = Duration::from_secs(300);
        match outcome(0, 3, timeout().after(Some(wish))) {
            Outcome::Retry { delay, .. } => assert!(delay >= wish),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_shutdown_charges_nothing_and_a_lost_lease_commits_nothing() {
        let ended = |ended| decide(&task(3, 3), Err(ended), Submission::Settled, &POLICY);
        assert!(matches!(ended(Ended::Shutdown), Some(Outcome::Released { .. })));
        assert!(ended(Ended::LeaseLost).is_none());
        assert!(matches!(ended(Ended::Cancelled), Some(Outcome::Cancelled)));
    }

    #[test]
    fn a_dead_letter_whose_submission_may_have_arrived_says_so() {
        let ended = |failures| decide(&task(failures, 3), Err(Ended::Failed(timeout())), Submission::Open, &POLICY);
        assert!(matches!(ended(0), Some(Outcome::Retry { .. })), "the next attempt looks first");
        match ended(3) {
            Some(Outcome::Dead { failure }) => {
                assert_eq!(failure.code, "outcome.uncertain");
                assert!(failure.causes[0].contains("nav.timeout"));
            }
            other => panic!("{other:?}"),
        }
    }
}
