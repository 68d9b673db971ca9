//! What several workers, a zombie, a lost connection and a restart do to each other.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pagehand::queue::{Outcome, Queue, QueueError, Renewal, Settled, WorkerIdentity};
use pagehand::record::StepRecord;
use pagehand::task::{NewTask, TaskStatus};
use serde_json::json;
use tokio::sync::Barrier;

use database::TestDb;
use tasks::*;

#[path = "support/database.rs"]
mod database;
#[path = "support/tasks.rs"]
mod tasks;

/// What must come comes long before.
const LIMIT: Duration = Duration::from_secs(20);

async fn expire(db: &TestDb) {
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 second' WHERE lease_owner IS NOT NULL")
        .execute(&db.pool)
        .await
        .unwrap();
}

/// All rows of all tables, as text.
async fn everything(db: &TestDb) -> Vec<String> {
    let mut rows = Vec::new();
    for query in [
        "SELECT t::text FROM tasks t ORDER BY id",
        "SELECT a::text FROM attempts a ORDER BY id",
        "SELECT s::text FROM steps s ORDER BY attempt_id, seq",
        "SELECT f::text FROM artifacts f ORDER BY attempt_id, name",
    ] {
        rows.extend(sqlx::query_scalar::<_, String>(query).fetch_all(&db.pool).await.unwrap());
    }
    rows
}

#[tokio::test]
async fn two_claimers_never_get_the_same_task() {
    let db = TestDb::new().await;
    enqueue(&db.queue().await, 600).await;
    let start = Arc::new(Barrier::new(8));
    let claimers = (0..8).map(|_| {
        let (start, url) = (start.clone(), db.url.clone());
        tokio::spawn(async move {
            let queue = Queue::connect(&url, 1).await.unwrap();
            start.wait().await;
            let mut taken = Vec::new();
            loop {
                let claimed = claim(&queue, 5).await;
                if claimed.is_empty() && queue.live().await.unwrap().pending == 0 {
                    return taken;
                }
                taken.extend(claimed.into_iter().map(|one| (one.task.id, one.fence)));
            }
        })
    });
    let taken: Vec<_> = futures::future::try_join_all(claimers).await.unwrap().concat();
    assert_eq!(taken.len(), 600);
    assert_eq!(taken.iter().map(|(id, _)| id).collect::<HashSet<_>>().len(), 600);
    assert_eq!(taken.iter().map(|(_, fence)| fence).collect::<HashSet<_>>().len(), 600);
}

#[tokio::test]
async fn a_zombie_can_change_nothing_after_its_lease_was_given_away() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    // Given away in each of the ways there are: to the next attempt, to nobody yet, to the dead letters.
    for reaps in 1..=3 {
        enqueue(&queue, 1).await;
        let zombie = claim_one(&queue).await.lease();
        queue.commit_intent(zombie, &json!({"n": 1}), LEASE).await.unwrap();
        for _ in 1..reaps {
            expire(&db).await;
            queue.reap(10).await.unwrap();
            claim_one(&queue).await;
        }
        expire(&db).await;
        queue.reap(10).await.unwrap();
        if reaps == 1 {
            claim_one(&queue).await;
        }

        let before = everything(&db).await;
        assert_eq!(queue.renew(&[zombie], LEASE).await.unwrap(), [(zombie, Renewal::Lost)]);
        let intent = queue.commit_intent(zombie, &json!({"n": 2}), LEASE).await;
        assert!(matches!(intent, Err(QueueError::LeaseLost(_))));
        assert!(matches!(queue.mark_let_go(zombie).await, Err(QueueError::LeaseLost(_))));
        assert!(matches!(queue.record_submit_outcome(zombie, &json!({})).await, Err(QueueError::LeaseLost(_))));
        let now = queue.now().await.unwrap();
        let step = StepRecord {
            seq: 1,
            name: "late".to_owned(),
            ok: true,
            started_at: now,
            finished_at: now,
            duration: Duration::ZERO,
            tokens: 1,
            cost_usd: 1.0,
            error: None,
            meta: json!({}),
        };
        assert_eq!(queue.record_steps(zombie, std::slice::from_ref(&step)).await.unwrap(), Settled::Fenced);
        for outcome in [completed(), retry(), dead(), Outcome::Cancelled, Outcome::Released { failure: failure() }] {
            let mut end = settlement(zombie, outcome);
            end.steps = vec![step.clone()];
            assert_eq!(queue.settle(&[end]).await.unwrap(), [Settled::Fenced]);
        }
        assert_eq!(everything(&db).await, before);
        sqlx::query("DELETE FROM tasks").execute(&db.pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_and_was_not_given_away_can_still_be_settled() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 1).await;
    let lease = claim_one(&queue).await.lease();
    expire(&db).await;
    assert_eq!(settle(&queue, lease, completed()).await, Settled::Done);
    assert!(queue.reap(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_claim_that_picks_what_was_taken_back_meanwhile_begins_after_it() {
    let db = TestDb::new().await;
    let (queue, other) = (db.queue().await, db.queue().await);
    let (first, then) = ("https://a.example", "https://b.example");
    add(&queue, &[task_on(then)]).await;
    let lost = claim_one(&queue).await.fence;
    expire(&db).await;
    add(&queue, &[task_on(first), task_on(then)]).await;
    // The claim is held up at its first task.
    let mut gate = db.pool.begin().await.unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
         CREATE TRIGGER hold_up BEFORE INSERT ON attempts FOR EACH ROW WHEN (NEW.site = 'https://a.example')
             EXECUTE FUNCTION hold_up()",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();
    let claiming = tokio::spawn(async move { claim(&queue, 2).await });
    let held_up = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let waits = async {
        while sqlx::query_scalar::<_, i64>(held_up).fetch_one(&db.pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, waits).await.expect("the claim is held up");
    assert_eq!(other.reap(10).await.unwrap().len(), 1);
    gate.rollback().await.unwrap();
    let claimed = claiming.await.unwrap();
    assert_eq!(claimed.len(), 2);
    let follows: bool = sqlx::query_scalar(
        "SELECT bool_and(a.started_at >= l.finished_at AND t.started_at = a.started_at
             AND t.lease_expires_at = a.started_at + interval '60 seconds')
         FROM attempts l JOIN attempts a ON a.task_id = l.task_id AND a.id <> l.id JOIN tasks t ON t.fence = a.id
         WHERE l.id = $1",
    )
    .bind(lost.0)
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert!(follows, "the next attempt began before the lost one was over");
}

#[tokio::test]
async fn of_a_settlement_and_a_reaper_exactly_one_wins() {
    let db = TestDb::new().await;
    let (queue, other) = (db.queue().await, db.queue().await);
    enqueue(&queue, 60).await;
    let claimed = claim(&queue, 60).await;
    expire(&db).await;
    let ends: Vec<_> = claimed.iter().map(|one| settlement(one.lease(), completed())).collect();
    let reap = async {
        let mut reaped = Vec::new();
        loop {
            let some = other.reap(3).await.unwrap();
            if some.is_empty() && other.live().await.unwrap().running == 0 {
                return reaped;
            }
            reaped.extend(some.into_iter().map(|one| one.fence));
        }
    };
    let settle = async {
        let mut settled = Vec::new();
        for end in ends.rchunks(4) {
            let answers = queue.settle(end).await.unwrap();
            settled.extend(
                end.iter().zip(answers).filter(|(_, answer)| *answer == Settled::Done).map(|(end, _)| end.lease.fence),
            );
        }
        settled
    };
    let (reaped, settled) = tokio::join!(reap, settle);
    assert_eq!(reaped.len() + settled.len(), 60);
    assert!(reaped.iter().all(|fence| !settled.contains(fence)));
}

#[tokio::test]
async fn renewals_settlements_and_claims_of_the_same_tasks_do_not_block_each_other_for_good() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 200).await;
    let claimed = claim(&queue, 200).await;
    let leases: Vec<_> = claimed.iter().map(|one| one.lease()).collect();
    let backwards: Vec<_> = leases.iter().rev().copied().collect();
    let renewing = async {
        for _ in 0..20 {
            queue.renew(&backwards, LEASE).await.unwrap();
        }
    };
    let settling = async {
        for lease in leases.chunks(20) {
            let ends: Vec<_> = lease.iter().map(|lease| settlement(*lease, retry())).collect();
            assert_eq!(queue.settle(&ends).await.unwrap(), [Settled::Done; 20]);
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(renewing, settling) }).await.unwrap();
}

#[tokio::test]
async fn a_restarted_worker_takes_back_at_once_what_its_dead_life_held() {
    let db = TestDb::new().await;
    let (old, new) = (worker("w"), WorkerIdentity { name: "w".to_owned(), incarnation: "w-2".to_owned() });
    let first = db.queue().await;
    let presence = first.be_present(&old).await.unwrap();
    enqueue(&first, 3).await;
    first.claim(&old, 2, LEASE).await.unwrap();
    first.claim(&worker("other"), 1, LEASE).await.unwrap();

    let second = db.queue().await;
    assert!(second.reap_previous_life(&new).await.unwrap().is_empty(), "it is alive: a namesake, not an earlier life");
    drop(presence);
    let back = tokio::time::timeout(LIMIT, async {
        loop {
            let back = second.reap_previous_life(&new).await.unwrap();
            if !back.is_empty() {
                return back;
            }
        }
    });
    assert_eq!(back.await.unwrap().len(), 2, "and nothing of another worker's");
    assert_eq!(second.live().await.unwrap().running, 1);
}

#[tokio::test]
async fn an_incarnation_is_one_process() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let _presence = queue.be_present(&worker("w")).await.unwrap();
    let other = db.queue().await;
    assert!(matches!(other.be_present(&worker("w")).await, Err(QueueError::Conflict(_))));
}

#[tokio::test]
async fn one_row_that_can_not_be_taken_back_does_not_keep_the_others() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    enqueue(&queue, 3).await;
    let claimed = claim(&queue, 3).await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON attempts FOR EACH ROW WHEN (old.id = 2) EXECUTE FUNCTION refuse()",
    )
    .execute(&db.pool)
    .await
    .unwrap();
    expire(&db).await;
    let reaped: HashSet<i64> = queue.reap(10).await.unwrap().iter().map(|one| one.fence.0).collect();
    assert_eq!(reaped, HashSet::from([1, 3]));
    let refused = claimed.iter().find(|one| one.fence.0 == 2).unwrap();
    assert_eq!(settle(&queue, refused.lease(), completed()).await, Settled::Refused);
}

#[tokio::test]
async fn many_who_enqueue_the_same_keys_add_each_once() {
    let db = TestDb::new().await;
    let enqueuers = (0..6).map(|n: usize| {
        let url = db.url.clone();
        tokio::spawn(async move {
            let queue = Queue::connect(&url, 1).await.unwrap();
            let mut tasks: Vec<NewTask> =
                (0..50).map(|key| NewTask { dedupe_key: Some(format!("key {key}")), ..task() }).collect();
            // Against each other's order.
            tasks.rotate_left(n * 7);
            if n % 2 == 1 {
                tasks.reverse();
            }
            queue.enqueue(&tasks, 3).await.unwrap().iter().filter(|added| !added.deduplicated).count()
        })
    });
    let added: usize = futures::future::try_join_all(enqueuers).await.unwrap().iter().sum();
    assert_eq!(added, 50);
    assert_eq!(db.queue().await.live().await.unwrap().pending, 50);
}

#[tokio::test]
async fn whoever_waits_is_woken_by_new_tasks_and_by_tasks_that_come_back() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut wake = queue.listen();
    let mut woken = async || tokio::time::timeout(LIMIT, wake.woken()).await.unwrap();
    woken().await;
    let id = enqueue(&queue, 1).await[0];
    woken().await;
    settle(&queue, claim_one(&queue).await.lease(), dead()).await;
    queue.retry(id, false).await.unwrap();
    woken().await;
    settle(&queue, claim_one(&queue).await.lease(), Outcome::Released { failure: failure() }).await;
    woken().await;
    claim_one(&queue).await;
    expire(&db).await;
    assert_eq!(queue.reap(1).await.unwrap()[0].status, TaskStatus::Pending);
    woken().await;
}

#[tokio::test]
async fn a_listener_whose_connection_is_cut_listens_again() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut wake = queue.listen();
    let mut woken = async || tokio::time::timeout(LIMIT, wake.woken()).await.unwrap();
    woken().await;
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pagehand listener'")
        .execute(&db.pool)
        .await
        .unwrap();
    // Once for the new connection, because of what may have been missed; then for what comes.
    woken().await;
    enqueue(&queue, 1).await;
    woken().await;
}

#[tokio::test]
async fn calls_go_on_when_all_connections_are_cut() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let presence = queue.be_present(&worker("w")).await.unwrap();
    enqueue(&queue, 20).await;
    let cutting = async {
        for _ in 0..10 {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name LIKE 'pagehand%' AND datname = current_database()",
            )
            .execute(&db.pool)
            .await
            .unwrap();
            tokio::task::yield_now().await;
        }
    };
    let working = async {
        let mut done = 0;
        while done < 20 {
            for one in claim(&queue, 3).await {
                let lease = one.lease();
                assert_eq!(queue.renew(&[lease], LEASE).await.unwrap(), [(lease, Renewal::Held)]);
                assert_eq!(settle(&queue, lease, completed()).await, Settled::Done);
                done += 1;
            }
        }
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(cutting, working) }).await.unwrap();
    drop(presence);
}

#[tokio::test]
async fn a_claim_that_is_cut_in_the_middle_takes_nothing_and_the_next_one_everything() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    queue.add_site(&site(SITE, Some(5), None)).await.unwrap();
    enqueue(&queue, 5).await;
    let mut holder = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM sites FOR UPDATE").execute(&mut *holder).await.unwrap();
    let cutting = async {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(cut).fetch_one(&db.pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
    };
    let (claimed, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(claim(&queue, 5), cutting) }).await.unwrap();
    assert!(claimed.is_empty());
    holder.rollback().await.unwrap();
    assert_eq!(claim(&queue, 5).await.len(), 5);
}

#[tokio::test]
async fn what_two_workers_note_at_the_same_time_is_in_the_audit_once() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let mut first = db.pool.begin().await.unwrap();
    let details = json!({"site": SITE});
    sqlx::query("SELECT note_daily('v', 'egress.denied', 'https://elsewhere.example', $1, $2)")
        .bind(&details)
        .bind(SITE)
        .execute(&mut *first)
        .await
        .unwrap();
    let second = queue.note_daily("w", "egress.denied", "https://elsewhere.example", &details, SITE);
    let committing = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&db.pool).await.unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        first.commit().await.unwrap();
    };
    let (noted, ()) = tokio::time::timeout(LIMIT, async { tokio::join!(second, committing) }).await.unwrap();
    noted.unwrap();
    let noted = queue.audit(10).await.unwrap();
    assert_eq!(noted.iter().map(|entry| entry.who.as_str()).collect::<Vec<_>>(), ["v"]);
}
