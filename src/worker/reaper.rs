//! Takes back what other workers lost. Every worker has one; none is needed in particular.

use std::time::Duration;

use chrono::Utc;
use serde_json::Map;

use super::Worker;
use super::verdict::Ended;
use crate::fault;
use crate::queue::Reaped;
use crate::telemetry::{LostAttempt, recover_run};

/// Tasks taken back in one round.
const BATCH: u32 = 100;

/// Takes back expired leases for ever. Ends when dropped.
pub(super) async fn reap_for_ever(worker: &Worker) {
    let mut every = tokio::time::interval(interval(worker.settings.lease));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        // Also here: the connection of a dead process takes a moment to go.
        reap_previous_life(worker).await;
        match worker.queue.reap(BATCH).await {
            Ok(reaped) => mend(worker, reaped).await,
            Err(error) => tracing::warn!(event = "reaper.failed", error = %error, "expired leases not looked for"),
        }
    }
}

/// Takes back at once what an earlier process of this worker's name held when it died.
pub(super) async fn reap_previous_life(worker: &Worker) {
    match worker.queue.reap_previous_life(&worker.identity).await {
        Ok(reaped) => mend(worker, reaped).await,
        Err(error) => tracing::warn!(event = "reaper.failed", error = %error, "own earlier tasks not looked for"),
    }
}

/// A sixth of the lease, so that a lost task restarts within lease and a sixth; at most 5 s.
fn interval(lease: Duration) -> Duration {
    (lease / 6).clamp(Duration::from_millis(200), Duration::from_secs(5))
}

async fn mend(worker: &Worker, reaped: Vec<Reaped>) {
    for lost in reaped {
        tracing::warn!(
            event = "task.worker_lost",
            task_id = lost.task_id.0,
            attempt = lost.fence.0,
            retry_count = lost.retry_count,
            worker = lost.worker,
            dead = lost.dead(),
            "a worker was lost with this task"
        );
        let mut meta = Map::new();
        meta.insert("worker".to_owned(), lost.worker.into());
        let attempt = LostAttempt {
            task_id: lost.task_id,
            fence: lost.fence,
            retry_count: lost.retry_count,
            started_at: lost.started_at,
            completed_at: Utc::now(),
            execution_time: lost.execution_time,
            failure: Ended::worker_lost(),
            meta,
        };
        fault::point!("reaper.recover.before");
        recover_run(&worker.runs, attempt).await;
        fault::point!("reaper.recover.after");
    }
}
