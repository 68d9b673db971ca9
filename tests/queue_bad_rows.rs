//! One bad row harms only itself: in the claim, the renewal, the settlement, the taking back and the adding.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::collections::HashSet;
use std::time::Duration;

use pagehand::queue::{Outcome, OwedEnd, Renewal, Settled};
use pagehand::task::{Lease, TaskId};
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/tasks.rs"]
mod tasks;

use database::TestDb;
use tasks::{LEASE, add, claim, completed, enqueue, failure, retry, settle, settlement, task, worker};

/// Rows as nobody should write them, each beside one that is good.
async fn bad_rows(db: &TestDb) -> Vec<i64> {
    let deep = format!("{}{}", "[".repeat(400), "]".repeat(400));
    let mut ids = Vec::new();
    for (task_type, url, payload, retry_count) in [
        ("comment", "https://example.org/", deep.as_str(), 0),
        ("comment", "https://example.org/", "{\"n\": 1e9999}", 0),
        ("comment", "https://example.org/", "null", 0),
        ("no such thing", "", "{}", 0),
        ("comment", "javascript:alert(1)", "{}", i32::MAX),
    ] {
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO tasks (task_type, url, site, payload, retry_count, ready)
             VALUES ($1, $2, 'https://example.org', $3::jsonb, $4, true) RETURNING id",
        )
        .bind(task_type)
        .bind(url)
        .bind(payload)
        .bind(retry_count)
        .fetch_one(&db.pool)
        .await
        .unwrap();
        ids.push(id);
    }
    ids
}

#[tokio::test]
async fn rows_that_nobody_can_read_are_claimed_renewed_settled_and_taken_back_beside_the_good_ones() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let good = enqueue(&queue, 2).await;
    let bad = bad_rows(&db).await;
    let claimed = claim(&queue, 20).await;
    let ids: HashSet<i64> = claimed.iter().map(|one| one.task.id.0).collect();
    assert_eq!(ids, good.iter().map(|id| id.0).chain(bad.iter().copied()).collect());
    let unread = |id: i64| claimed.iter().find(|one| one.task.id.0 == id).unwrap().task.payload == Value::Null;
    assert!(bad[..3].iter().all(|id| unread(*id)), "what can't be read is null, and refused as bad input");

    let leases: Vec<Lease> = claimed.iter().map(|one| one.lease()).collect();
    let renewed = queue.renew(&leases, LEASE).await.unwrap();
    assert!(renewed.iter().all(|(_, renewal)| *renewal == Renewal::Held));

    let settlements: Vec<_> = leases.iter().map(|lease| settlement(*lease, retry())).collect();
    let settled = queue.settle(&settlements).await.unwrap();
    let refused: Vec<TaskId> = leases
        .iter()
        .zip(&settled)
        .filter(|(_, settled)| **settled != Settled::Done)
        .map(|(lease, _)| lease.task_id)
        .collect();
    assert_eq!(refused, [TaskId(bad[4])], "only the one that can't be counted on");

    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 hour' WHERE fence IS NOT NULL")
        .execute(&db.pool)
        .await
        .unwrap();
    let reaped = queue.reap(10).await.unwrap();
    assert_eq!(
        reaped.iter().map(|one| one.task_id.0).collect::<Vec<_>>(),
        [bad[4]],
        "and it does not stay running for ever"
    );
    assert_eq!(claim(&queue, 20).await.len(), 7);
}

#[tokio::test]
async fn an_attempt_is_only_taken_back_or_settled_by_its_own_number_and_its_own_process() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 2).await;
    let claimed = claim(&queue, 2).await;
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 hour'").execute(&db.pool).await.unwrap();
    let lapsed = queue.lapsed(10, None).await.unwrap();
    assert_eq!(lapsed.len(), 2);
    assert!(lapsed.iter().all(|one| one.incarnation == worker("w").incarnation));
    assert_eq!(queue.known(&lapsed).await.unwrap().len(), 2);
    let mut strange = lapsed.clone();
    strange[0].incarnation = "another database".to_owned();
    assert_eq!(queue.known(&strange).await.unwrap(), [lapsed[1].lease]);

    // One finishes after all, between the look and the taking back.
    assert_eq!(settle(&queue, claimed[0].lease(), completed()).await, Settled::Done);
    let reaped = queue.reap_lapsed(&lapsed, None).await.unwrap();
    assert_eq!(reaped.iter().map(|one| one.fence).collect::<Vec<_>>(), [claimed[1].fence]);
    assert_eq!(settle(&queue, claimed[1].lease(), completed()).await, Settled::Fenced);
    // One that is renewed meanwhile is not taken either.
    let again = claim(&queue, 1).await.pop().unwrap();
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 hour' WHERE fence IS NOT NULL")
        .execute(&db.pool)
        .await
        .unwrap();
    let lapsed = queue.lapsed(10, None).await.unwrap();
    queue.renew(&[again.lease()], LEASE).await.unwrap();
    assert!(queue.reap_lapsed(&lapsed, None).await.unwrap().is_empty());
}

#[tokio::test]
async fn in_a_bulk_a_task_whose_key_is_taken_keeps_out_no_other() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let keyed = |key: &str| pagehand::task::NewTask { dedupe_key: Some(key.to_owned()), ..task() };
    let first = add(&queue, &[keyed("a")]).await[0];
    let nul = pagehand::task::NewTask { payload: json!({"body": "a\0b"}), ..keyed("c") };
    let added = queue.enqueue(&[keyed("b"), keyed("a"), nul, task()], 3).await.unwrap();
    assert_eq!(added.iter().map(|one| one.deduplicated).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!(added[1].id, first);
    // And when dead letters come back, a key that is taken keeps back that one only.
    let claimed = claim(&queue, 10).await;
    for one in &claimed {
        let dead = Outcome::Dead { failure: failure() };
        settle(&queue, one.lease(), dead).await;
    }
    add(&queue, &[keyed("a")]).await;
    let filter = pagehand::queue::RunFilter::default();
    let retried = queue.retry_all(&filter, false).await.unwrap();
    assert_eq!((retried.retried, retried.conflicts), (3, 1));
    assert!(queue.claim(&worker("w"), 10, Duration::from_secs(5)).await.unwrap().len() >= 4);
}

#[tokio::test]
async fn only_a_lost_attempt_is_completed_from_its_disk_and_what_it_recorded_itself_stays() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 1).await;
    let lease = claim(&queue, 1).await[0].lease();
    let step = |seq: i32, name: &str| pagehand::record::StepRecord {
        seq,
        name: name.to_owned(),
        ok: true,
        started_at: chrono::Utc::now(),
        finished_at: chrono::Utc::now(),
        duration: Duration::ZERO,
        tokens: 0,
        cost_usd: 0.0,
        error: None,
        meta: json!({}),
    };
    let names = async || -> Vec<String> {
        let names = sqlx::query_scalar("SELECT name FROM steps WHERE attempt_id = $1 ORDER BY seq").bind(lease.fence.0);
        names.fetch_all(&db.pool).await.unwrap()
    };
    queue.record_steps(lease, &[step(1, "mine")]).await.unwrap();
    queue.complete_lost(lease, &[step(2, "too early")], &[]).await.unwrap();
    assert_eq!(names().await, ["mine"], "it still runs");
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 hour'").execute(&db.pool).await.unwrap();
    assert_eq!(queue.reap(10).await.unwrap().len(), 1);
    queue.complete_lost(lease, &[step(1, "not mine"), step(2, "result_failed")], &[]).await.unwrap();
    assert_eq!(names().await, ["mine", "result_failed"]);
}

#[tokio::test]
async fn a_record_is_due_until_somebody_has_written_it() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 3).await;
    let claimed = claim(&queue, 3).await;
    let [lost, done, running] = [0, 1, 2].map(|n: usize| claimed[n].lease());
    queue.owe_record(done).await.unwrap();
    queue.owe_record(running).await.unwrap();
    settle(&queue, done, Outcome::Completed { result: json!({"outcome": "posted"}) }).await;
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 hour' WHERE id = $1")
        .bind(lost.task_id.0)
        .execute(&db.pool)
        .await
        .unwrap();
    assert_eq!(queue.reap(10).await.unwrap().len(), 1);

    let due = queue.claim_records_due(10).await.unwrap();
    let ends: Vec<_> = due.iter().map(|owed| (owed.lease, owed.end.clone())).collect();
    let posted = OwedEnd::Succeeded(json!({"outcome": "posted"}));
    assert_eq!(ends, [(lost, OwedEnd::Lost), (done, posted)], "one that runs writes its own");
    assert_eq!(queue.claim_records_due(10).await.unwrap(), [], "somebody is about it");

    queue.record_settled(done).await.unwrap();
    sqlx::query("UPDATE records_due SET due_at = now()").execute(&db.pool).await.unwrap();
    let again = queue.claim_records_due(10).await.unwrap();
    assert_eq!(again.iter().map(|owed| owed.lease).collect::<Vec<_>>(), [lost]);
}
