//! Tasks through their lives: what each call of the queue does, on a real Postgres.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::time::Duration;

use chrono::Utc;
use pagehand::failure::FailureReason;
use pagehand::queue::{Outcome, QueueError, Renewal, RunFilter, Settled};
use pagehand::record::{ArtifactRecord, StepRecord};
use pagehand::task::{NewTask, TaskId, TaskStatus};
use serde_json::{Value, json};

use database::TestDb;
use tasks::*;

#[path = "support/database.rs"]
mod database;
#[path = "support/tasks.rs"]
mod tasks;

async fn expire(db: &TestDb) {
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 second' WHERE status = 'running'")
        .execute(&db.pool)
        .await
        .unwrap();
}

async fn status(queue: &pagehand::queue::Queue, id: TaskId) -> String {
    queue.run(id).await.unwrap().run.status
}

fn step(seq: i32, tokens: i64) -> StepRecord {
    StepRecord {
        seq,
        name: format!("step_{seq}"),
        ok: true,
        started_at: Utc::now(),
        finished_at: Utc::now(),
        duration: Duration::from_millis(12),
        tokens,
        cost_usd: 0.25,
        error: None,
        meta: json!({"n": seq}),
    }
}

#[tokio::test]
async fn a_task_is_claimed_with_everything_that_was_enqueued_and_ends_completed() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let new = NewTask {
        campaign_id: Some(7),
        max_retries: Some(5),
        priority: -3,
        traceparent: Some(trace.to_owned()),
        request_id: Some("r-1".to_owned()),
        ..task()
    };
    let id = add(&queue, std::slice::from_ref(&new)).await[0];

    let claimed = claim_one(&queue).await;
    let task = &claimed.task;
    assert_eq!((task.id, task.retry_count, task.failures, task.max_retries), (id, 0, 0, 5));
    assert_eq!((&task.url, &task.site, &task.payload), (&new.url, &new.site, &new.payload));
    assert_eq!((task.campaign_id, task.priority), (Some(7), -3));
    assert_eq!((task.traceparent.as_deref(), task.request_id.as_deref()), (Some(trace), Some("r-1")));
    assert_eq!(claimed.lease_expires_at - claimed.locked_at, chrono::TimeDelta::seconds(60));
    assert_eq!(claimed.open_intent, None);

    let artifact = ArtifactRecord { name: "screenshot.png".to_owned(), kind: "screenshot", bytes: 12 };
    let mut end = settlement(claimed.lease(), completed());
    end.steps = vec![step(1, 10), step(2, 5)];
    end.artifacts = vec![artifact];
    assert_eq!(queue.settle(&[end]).await.unwrap(), [Settled::Done]);

    let shown = serde_json::to_value(queue.run(id).await.unwrap()).unwrap();
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["failure_reason"], Value::Null);
    assert_eq!((&shown["tokens"], &shown["cost_usd"]), (&json!(15), &json!(0.5)));
    assert_eq!(shown["execution_time"], json!(1.5));
    assert_eq!(shown["result"], json!({"outcome": "posted"}));
    let attempt = &shown["attempts"][0];
    assert_eq!((&attempt["status"], &attempt["worker"]), (&json!("succeeded"), &json!("w")));
    assert_eq!(attempt["steps"][1]["name"], "step_2");
    assert_eq!(attempt["steps"][1]["status"], "ok");
    assert_eq!(attempt["artifacts"], json!([{"name": "screenshot.png", "kind": "screenshot", "bytes": 12}]));
}

#[tokio::test]
async fn nothing_is_claimed_before_run_at() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let later = queue.now().await.unwrap() + Duration::from_secs(3600);
    let id = add(&queue, &[NewTask { run_at: Some(later), ..task() }]).await[0];
    assert!(claim(&queue, 10).await.is_empty());
    sqlx::query("UPDATE tasks SET run_at = now()").execute(&db.pool).await.unwrap();
    assert_eq!(claim_one(&queue).await.task.id, id);
}

#[tokio::test]
async fn a_row_written_by_hand_is_claimed_like_any_other() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    sqlx::query(
        r#"INSERT INTO tasks (task_type, url, site, payload) VALUES
               ('nonsense', 'no url', 'no site', '{"n": 1e400}'), ('comment', 'x', 'y', '[]')"#,
    )
    .execute(&db.pool)
    .await
    .unwrap();
    let claimed = claim(&queue, 10).await;
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().any(|one| one.task.payload == Value::Null), "what we can't read is null");
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_after_its_delay_until_its_retries_are_used_up() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = add(&queue, &[NewTask { max_retries: Some(2), ..task() }]).await[0];
    for retry_count in 0..2 {
        let claimed = claim_one(&queue).await;
        assert_eq!((claimed.task.retry_count, claimed.task.failures), (retry_count, retry_count));
        let later = Outcome::Retry { failure: failure(), delay: Duration::from_secs(3600) };
        assert_eq!(settle(&queue, claimed.lease(), later).await, Settled::Done);
        assert!(claim(&queue, 1).await.is_empty(), "not before its delay");
        sqlx::query("UPDATE tasks SET run_at = now()").execute(&db.pool).await.unwrap();
    }
    let last = claim_one(&queue).await;
    settle(&queue, last.lease(), retry()).await;
    let run = queue.run(id).await.unwrap();
    assert_eq!((run.run.status.as_str(), run.run.retry_count), ("failed", 2));
    assert_eq!(run.run.failure_reason.as_deref(), Some("timeout"));
    assert_eq!(run.run.failure_code.as_deref(), Some("nav.timeout"));
    assert_eq!(run.error.unwrap()["error"], "the page did not load");
    let counts: Vec<i32> = run.attempts.iter().map(|attempt| attempt.retry_count).collect();
    assert_eq!(counts, [0, 1, 2]);
}

#[tokio::test]
async fn a_dead_letter_that_is_retried_counts_on_with_a_fresh_budget() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    settle(&queue, claim_one(&queue).await.lease(), dead()).await;
    assert_eq!(status(&queue, id).await, "failed");
    queue.retry(id, false).await.unwrap();
    let again = claim_one(&queue).await;
    assert_eq!((again.task.retry_count, again.task.failures), (1, 0));
    settle(&queue, again.lease(), completed()).await;
    let run = queue.run(id).await.unwrap();
    assert_eq!((run.run.status.as_str(), run.run.failure_code), ("completed", None));
}

#[tokio::test]
async fn only_a_dead_letter_can_be_retried() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    assert!(matches!(queue.retry(TaskId(99), false).await, Err(QueueError::NoSuchTask(_))));
    assert!(matches!(queue.retry(id, false).await, Err(QueueError::Conflict(text)) if text.contains("pending")));
    let claimed = claim_one(&queue).await;
    assert!(matches!(queue.retry(id, false).await, Err(QueueError::Conflict(text)) if text.contains("running")));
    settle(&queue, claimed.lease(), completed()).await;
    assert!(matches!(queue.retry(id, false).await, Err(QueueError::Conflict(text)) if text.contains("completed")));
}

#[tokio::test]
async fn an_uncertain_outcome_is_retried_only_with_a_second_confirmation_and_then_looks_no_more() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    let lease = claim_one(&queue).await.lease();
    queue.commit_intent(lease, &json!({"body": "Hello"}), LEASE).await.unwrap();
    queue.mark_let_go(lease).await.unwrap();
    let uncertain =
        pagehand::failure::Failure::terminal(FailureReason::Unknown, "outcome.uncertain", "it can't be told");
    settle(&queue, lease, Outcome::Dead { failure: uncertain }).await;
    assert!(matches!(queue.retry(id, false).await, Err(QueueError::NeedsConfirmation(_))));
    let bulk = queue.retry_all(&RunFilter::default(), false).await.unwrap();
    assert_eq!((bulk.retried, bulk.need_confirmation), (0, 1));
    queue.retry(id, true).await.unwrap();
    assert_eq!(claim_one(&queue).await.open_intent, None);
}

#[tokio::test]
async fn a_pending_task_is_cancelled_at_once_and_a_running_one_when_its_worker_hears_of_it() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let ids = enqueue(&queue, 2).await;
    let running = claim_one(&queue).await;
    let pending = *ids.iter().find(|id| **id != running.task.id).unwrap();
    assert_eq!(queue.cancel(pending).await.unwrap(), TaskStatus::Cancelled);
    assert_eq!(queue.cancel(pending).await.unwrap(), TaskStatus::Cancelled, "also when sent again");
    assert!(claim(&queue, 10).await.is_empty());

    assert_eq!(queue.cancel(running.task.id).await.unwrap(), TaskStatus::Running);
    let lease = running.lease();
    assert_eq!(queue.renew(&[lease], LEASE).await.unwrap(), [(lease, Renewal::CancelRequested)]);
    let intent = queue.commit_intent(lease, &json!({}), LEASE).await;
    assert!(matches!(intent, Err(QueueError::CancelRequested(_))), "nothing is submitted any more");
    assert_eq!(settle(&queue, lease, Outcome::Cancelled).await, Settled::Done);
    assert_eq!(status(&queue, running.task.id).await, "cancelled");
    assert!(matches!(queue.cancel(TaskId(99)).await, Err(QueueError::NoSuchTask(_))));
}

#[tokio::test]
async fn a_cancelled_task_is_brought_back_by_nothing() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 3).await;
    let mut claimed = claim(&queue, 3).await;
    for one in &claimed {
        queue.cancel(one.task.id).await.unwrap();
    }
    settle(&queue, claimed.pop().unwrap().lease(), retry()).await;
    settle(&queue, claimed.pop().unwrap().lease(), Outcome::Released { failure: failure() }).await;
    expire(&db).await;
    assert_eq!(queue.reap(10).await.unwrap()[0].status, TaskStatus::Cancelled);
    let filter = RunFilter { status: Some(TaskStatus::Cancelled), ..RunFilter::default() };
    assert_eq!(queue.runs(&filter, None, 10).await.unwrap().runs.len(), 3);
    assert!(claim(&queue, 3).await.is_empty());
}

#[tokio::test]
async fn a_task_given_back_by_a_shutdown_is_charged_nothing_and_ready_at_once() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    for _ in 0..5 {
        let claimed = claim_one(&queue).await;
        assert_eq!((claimed.task.id, claimed.task.retry_count, claimed.task.failures), (id, 0, 0));
        settle(&queue, claimed.lease(), Outcome::Released { failure: failure() }).await;
    }
    let attempts = queue.run(id).await.unwrap().attempts;
    assert!(attempts.iter().all(|attempt| attempt.status == "released"));
}

#[tokio::test]
async fn a_task_that_lost_its_worker_three_times_is_a_dead_letter() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    for loss in 0..3 {
        let claimed = claim_one(&queue).await;
        assert_eq!(claimed.task.retry_count, loss);
        assert!(queue.reap(10).await.unwrap().is_empty(), "not while the lease lasts");
        expire(&db).await;
        let reaped = queue.reap(10).await.unwrap();
        assert_eq!((reaped[0].task_id, reaped[0].fence, reaped[0].retry_count), (id, claimed.fence, loss));
        assert_eq!((reaped[0].dead(), reaped[0].worker.as_str()), (loss == 2, "w"));
    }
    let run = queue.run(id).await.unwrap();
    assert_eq!(run.run.status, "failed");
    assert_eq!(run.run.failure_code.as_deref(), Some("infra.worker_lost"));
    assert!(run.attempts.iter().all(|attempt| attempt.status == "lost"));
}

#[tokio::test]
async fn a_retry_by_hand_gives_back_the_three_lives() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    for _ in 0..3 {
        claim_one(&queue).await;
        expire(&db).await;
        queue.reap(10).await.unwrap();
    }
    queue.retry(id, false).await.unwrap();
    claim_one(&queue).await;
    expire(&db).await;
    assert!(!queue.reap(10).await.unwrap()[0].dead());
}

#[tokio::test]
async fn a_settlement_whose_answer_was_lost_is_done_when_sent_again() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 4).await;
    for outcome in [completed(), retry(), dead(), Outcome::Released { failure: failure() }] {
        let lease = claim_one(&queue).await.lease();
        let mut end = settlement(lease, outcome);
        end.steps = vec![step(1, 3)];
        let ends = [end];
        assert_eq!(queue.settle(&ends).await.unwrap(), [Settled::Done]);
        let before = queue.run(lease.task_id).await.unwrap();
        assert_eq!(queue.settle(&ends).await.unwrap(), [Settled::Done]);
        assert_eq!(queue.run(lease.task_id).await.unwrap(), before, "and changes nothing");
        if before.run.status == "pending" {
            queue.cancel(lease.task_id).await.unwrap();
        }
    }
}

#[tokio::test]
async fn one_settlement_that_can_not_be_stored_does_not_harm_the_others() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 3).await;
    let claimed = claim(&queue, 3).await;
    let mut ends: Vec<_> = claimed.iter().map(|one| settlement(one.lease(), completed())).collect();
    ends[1].steps = vec![step(0, 1)];
    assert_eq!(queue.settle(&ends).await.unwrap(), [Settled::Done; 3]);
    for one in claimed {
        assert_eq!(status(&queue, one.task.id).await, "completed", "the bad step is left out, not the outcome");
    }
}

#[tokio::test]
async fn texts_with_nul_are_stored_without_it() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let payload = json!({"author": "A\0nn", "email": "a@example.org", "body": "\0"});
    let id = add(&queue, &[NewTask { payload, ..task() }]).await[0];
    let claimed = claim_one(&queue).await;
    assert_eq!(claimed.task.payload["author"], "Ann");
    let bad = pagehand::failure::Failure::terminal(FailureReason::Unknown, "x.y", "a\0b");
    settle(&queue, claimed.lease(), Outcome::Dead { failure: bad }).await;
    assert_eq!(queue.run(id).await.unwrap().run.last_error.as_deref(), Some("ab"));
}

#[tokio::test]
async fn at_most_one_live_task_has_a_dedupe_key() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let keyed = |key: &str| NewTask { dedupe_key: Some(key.to_owned()), ..task() };
    let added = queue.enqueue(&[keyed("a"), task(), keyed("a"), keyed("b")], 3).await.unwrap();
    assert_eq!(added.iter().map(|one| one.deduplicated).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!(added[0].id, added[2].id);
    assert!(added[0].id < added[1].id && added[1].id < added[3].id, "in order");

    let again = queue.enqueue(&[keyed("a")], 3).await.unwrap();
    assert_eq!((again[0].id, again[0].deduplicated), (added[0].id, true));
    let claimed = claim(&queue, 10).await;
    assert!(queue.enqueue(&[keyed("a")], 3).await.unwrap()[0].deduplicated, "also while it runs");
    for one in claimed {
        settle(&queue, one.lease(), dead()).await;
    }
    let fresh = queue.enqueue(&[keyed("a")], 3).await.unwrap();
    assert!(!fresh[0].deduplicated, "a task that has ended frees its key");
    let retried = queue.retry(added[0].id, false).await;
    assert!(matches!(retried, Err(QueueError::Conflict(text)) if text.contains("dedupe key")));
    let bulk = queue.retry_all(&RunFilter::default(), false).await.unwrap();
    assert_eq!((bulk.retried, bulk.conflicts), (2, 1), "the conflict keeps out that one only");
}

#[tokio::test]
async fn a_bulk_keeps_its_order_over_the_limits_of_a_statement() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let ids = enqueue(&queue, 12_001).await;
    assert_eq!(ids.len(), 12_001);
    assert!(ids.is_sorted());
    assert_eq!(queue.live().await.unwrap().pending, 12_001);
}

#[tokio::test]
async fn the_outcome_of_a_submission_is_seen_by_the_next_attempt_if_nobody_judged_it() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 1).await;
    let first = claim_one(&queue).await;
    let lease = first.lease();
    assert!(matches!(queue.mark_let_go(lease).await, Err(QueueError::LeaseLost(_))), "not without an intent");
    queue.commit_intent(lease, &json!({"body": "Hello"}), LEASE).await.unwrap();
    settle(&queue, lease, Outcome::Released { failure: failure() }).await;

    let second = claim_one(&queue).await;
    let open = second.open_intent.clone().unwrap();
    assert_eq!((open.fence, open.let_go, open.outcome), (first.fence, false, None));
    assert_eq!(open.intent, json!({"body": "Hello"}));
    queue.commit_intent(second.lease(), &json!({"body": "Hello"}), LEASE).await.unwrap();
    queue.mark_let_go(second.lease()).await.unwrap();
    queue.record_submit_outcome(second.lease(), &json!({"status": 200})).await.unwrap();
    expire(&db).await;
    queue.reap(1).await.unwrap();

    let third = claim_one(&queue).await;
    let open = third.open_intent.clone().unwrap();
    assert_eq!((open.fence, open.let_go, open.outcome), (second.fence, true, Some(json!({"status": 200}))));
    queue.commit_intent(third.lease(), &json!({"body": "Hello"}), LEASE).await.unwrap();
    queue.mark_let_go(third.lease()).await.unwrap();
    queue.record_submit_outcome(third.lease(), &json!({"status": 429})).await.unwrap();
    settle(&queue, third.lease(), retry()).await;
    assert_eq!(claim_one(&queue).await.open_intent, None, "the third attempt has judged its own outcome");
}

#[tokio::test]
async fn steps_are_recorded_while_the_attempt_runs_and_counted_once() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let id = enqueue(&queue, 1).await[0];
    let lease = claim_one(&queue).await.lease();
    assert_eq!(queue.record_steps(lease, &[step(1, 10), step(2, 10)]).await.unwrap(), Settled::Done);
    assert_eq!(queue.record_steps(lease, &[step(2, 10), step(3, 10)]).await.unwrap(), Settled::Done);
    let mut end = settlement(lease, completed());
    end.steps = vec![step(3, 10), step(4, 10)];
    queue.settle(&[end]).await.unwrap();
    let run = queue.run(id).await.unwrap();
    assert_eq!(run.attempts[0].steps.len(), 4);
    assert_eq!((run.run.tokens, run.attempts[0].tokens), (40, 40));
}

#[tokio::test]
async fn runs_are_listed_newest_first_page_by_page_and_by_filter() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut ids = enqueue(&queue, 7).await;
    add(&queue, &[task_on("https://other.example")]).await;
    for one in claim(&queue, 2).await {
        settle(&queue, one.lease(), dead()).await;
    }
    let on_site = RunFilter { site: Some(SITE.to_owned()), ..RunFilter::default() };
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = queue.runs(&on_site, cursor, 3).await.unwrap();
        seen.extend(page.runs.iter().map(|run| TaskId(run.id)));
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            break;
        }
    }
    ids.reverse();
    assert_eq!(seen, ids);

    let found = async |filter: RunFilter| queue.runs(&filter, None, 100).await.unwrap().runs.len();
    let filter = RunFilter::default;
    assert_eq!(found(RunFilter { failure_reason: Some(FailureReason::Timeout), ..filter() }).await, 2);
    assert_eq!(found(RunFilter { status: Some(TaskStatus::Failed), ..filter() }).await, 2);
    assert_eq!(found(RunFilter { task_type: Some("registration".to_owned()), ..filter() }).await, 0);
    assert_eq!(found(RunFilter { q: Some("OTHER.example".to_owned()), ..filter() }).await, 1);
    assert_eq!(found(RunFilter { q: Some("nav.time".to_owned()), ..filter() }).await, 2);
    assert_eq!(found(RunFilter { q: Some("%".to_owned()), ..filter() }).await, 0);
    assert_eq!(found(RunFilter { q: Some(ids[0].to_string()), ..filter() }).await, 1);
    let now = queue.now().await.unwrap();
    assert_eq!(found(RunFilter { since: Some(now), ..filter() }).await, 0);
    assert_eq!(found(RunFilter { until: Some(now), ..filter() }).await, 8);
}

#[tokio::test]
async fn a_password_in_a_payload_is_shown_to_nobody() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let payload = json!({"username": "ann", "email": "a@example.org", "password": "hunter2"});
    let id = add(&queue, &[NewTask { task_type: "registration".to_owned(), payload, ..task() }]).await[0];
    let shown = serde_json::to_string(&queue.run(id).await.unwrap()).unwrap();
    assert!(!shown.contains("hunter2") && shown.contains("ann"), "{shown}");
}

#[tokio::test]
async fn a_task_deleted_by_hand_is_a_lost_lease_and_nothing_worse() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 1).await;
    let lease = claim_one(&queue).await.lease();
    sqlx::query("DELETE FROM tasks").execute(&db.pool).await.unwrap();
    assert_eq!(queue.renew(&[lease], LEASE).await.unwrap(), [(lease, Renewal::Lost)]);
    assert_eq!(settle(&queue, lease, completed()).await, Settled::Fenced);
}

#[tokio::test]
async fn the_schema_keeps_impossible_states_out() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 1).await;
    for statement in [
        "UPDATE tasks SET status = 'running'",
        "UPDATE tasks SET fence = 1",
        "UPDATE tasks SET status = 'failed', finished_at = now()",
        "UPDATE tasks SET status = 'completed'",
        "UPDATE tasks SET status = 'completed', finished_at = now()",
        "UPDATE tasks SET finished_at = now()",
        "UPDATE tasks SET cancel_requested = true",
        "UPDATE tasks SET traceparent = 'x'",
        "UPDATE tasks SET payload = to_jsonb(repeat('x', 1100000))",
        "INSERT INTO attempts (task_id, site, retry_count, worker, incarnation, claim, started_at) VALUES (99, 's', 0, 'w', 'i', 1, now())",
        "INSERT INTO sites (origin, authorized_by) VALUES ('https://a', ' ')",
        "INSERT INTO proxies (url, password_ref) VALUES ('http://a', 'hunter2')",
    ] {
        let refused = sqlx::query(statement).execute(&db.pool).await;
        assert!(refused.is_err(), "{statement}");
    }
}

#[tokio::test]
async fn the_names_of_statuses_and_reasons_are_those_of_the_schema() {
    let db = TestDb::new().await;
    let names = async |kind: &str| -> Vec<String> {
        sqlx::query_scalar("SELECT enumlabel::text FROM pg_enum JOIN pg_type t ON t.oid = enumtypid WHERE typname = $1 ORDER BY enumsortorder")
            .bind(kind)
            .fetch_all(&db.pool)
            .await
            .unwrap()
    };
    assert_eq!(names("task_status").await, TaskStatus::ALL.map(TaskStatus::as_str));
    assert_eq!(names("failure_reason").await, FailureReason::ALL.map(FailureReason::as_str));
}
