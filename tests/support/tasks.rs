//! Tasks, sites, workers and settlements for tests of the queue.
#![allow(dead_code, reason = "not every test file uses everything")]
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::time::Duration;

use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::{Claimed, Outcome, Queue, Settled, Settlement, WorkerIdentity};
use pagehand::site::NewEnrolment;
use pagehand::task::{Lease, NewTask, TaskId};
use serde_json::json;

pub const SITE: &str = "https://example.org";
pub const LEASE: Duration = Duration::from_secs(60);

pub fn worker(name: &str) -> WorkerIdentity {
    WorkerIdentity { name: name.to_owned(), incarnation: format!("{name}-1") }
}

/// A task on [`SITE`].
pub fn task() -> NewTask {
    task_on(SITE)
}

pub fn task_on(site: &str) -> NewTask {
    NewTask {
        task_type: "comment".to_owned(),
        url: format!("{site}/post"),
        site: site.to_owned(),
        campaign_id: None,
        payload: json!({"author": "Ann", "email": "ann@example.org", "body": "Hello"}),
        max_retries: None,
        priority: 0,
        run_at: None,
        dedupe_key: None,
        traceparent: None,
        request_id: None,
    }
}

/// Adds `n` tasks on [`SITE`].
pub async fn enqueue(queue: &Queue, n: usize) -> Vec<TaskId> {
    add(queue, &vec![task(); n]).await
}

pub async fn add(queue: &Queue, tasks: &[NewTask]) -> Vec<TaskId> {
    queue.enqueue(tasks, 3).await.unwrap().into_iter().map(|added| added.id).collect()
}

/// A site with these limits.
pub fn site(origin: &str, max_concurrency: Option<u32>, per_minute: Option<u32>) -> NewEnrolment {
    let site = NewEnrolment::new(origin.parse().unwrap(), "the tests");
    NewEnrolment { allow_private: true, max_concurrency, per_minute, ..site }
}

pub async fn claim(queue: &Queue, limit: u32) -> Vec<Claimed> {
    queue.claim(&worker("w"), limit, LEASE).await.unwrap()
}

pub async fn claim_one(queue: &Queue) -> Claimed {
    claim(queue, 1).await.pop().expect("a task is ready")
}

pub fn settlement(lease: Lease, outcome: Outcome) -> Settlement {
    let execution_time = Duration::from_millis(1_500);
    Settlement { lease, outcome, execution_time, steps: Vec::new(), artifacts: Vec::new() }
}

pub fn completed() -> Outcome {
    Outcome::Completed { result: json!({"outcome": "posted"}) }
}

pub fn failure() -> Failure {
    Failure::retryable(FailureReason::Timeout, "nav.timeout", "the page did not load")
}

pub fn retry() -> Outcome {
    Outcome::Retry { failure: failure(), delay: Duration::ZERO }
}

pub fn dead() -> Outcome {
    Outcome::Dead { failure: failure() }
}

pub async fn settle(queue: &Queue, lease: Lease, outcome: Outcome) -> Settled {
    queue.settle(&[settlement(lease, outcome)]).await.unwrap()[0]
}
