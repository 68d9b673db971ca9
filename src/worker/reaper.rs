//! Takes back what other workers lost, and writes the records that are due. Every worker has one; none is needed in
//! particular.
//!
//! An attempt that had finished and died before its settlement arrived is not taken back but settled, from its own
//! `final_result.json`, where this worker can see that file. The settlement is fenced like any other: of two that come at
//! the same time, one does it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Worker;
use super::verdict::Ended;
use crate::fault;
use crate::queue::{
    Lapsed, Outcome, OwedEnd, OwedRecord, QueueError, Settled, Settlement, SettlementRecord, WorkerIdentity,
};
use crate::retry::Reconnect;
use crate::task::Fence;
use crate::telemetry::{EndedAttempt, Finished, Recovered, finished_run, recover_run};

/// Tasks taken back in one round.
const BATCH: u32 = 100;
/// So often a final result is tried: with the waits between, for most of a working day.
const MOST_TRIES: u32 = 60;
/// After Postgres was away many leases have run out at once, also of workers that live and have outcomes to deliver. They
/// are given this long to do so. Longer than they wait between two tries.
const DELIVERY: Duration = Duration::from_secs(8);

/// Takes back expired leases for ever. Ends when dropped.
pub(super) async fn reap_for_ever(worker: &Worker) {
    let mut waits = Reconnect::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut was_away = false;
    loop {
        let wait = match round(worker, &mut was_away).await {
            Ok(()) => {
                waits.reset();
                interval(worker.settings.lease)
            }
            Err(error) => {
                was_away = true;
                worker.state.outage.failed("expired leases can't be looked for", error);
                waits.next_wait()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn round(worker: &Worker, was_away: &mut bool) -> Result<(), QueueError> {
    if *was_away {
        worker.queue.now().await?;
        worker.state.outage.over();
        *was_away = false;
        tokio::time::sleep(DELIVERY).await;
    }
    // The previous life's as well: the connection of a dead process takes a moment to go.
    take_back(worker, Some(&worker.identity)).await
}

/// Takes back at once what an earlier process of this worker's name held when it died.
pub(super) async fn reap_previous_life(worker: &Worker) {
    if let Err(error) = take_back(worker, Some(&worker.identity)).await {
        worker.state.outage.failed("own earlier tasks can't be looked for", error);
    }
}

/// A sixth of the lease, so that a lost task restarts within lease and a sixth; at most 5 s.
fn interval(lease: Duration) -> Duration {
    (lease / 6).clamp(Duration::from_millis(200), Duration::from_secs(5))
}

async fn take_back(worker: &Worker, earlier: Option<&WorkerIdentity>) -> Result<(), QueueError> {
    let lapsed = worker.queue.lapsed(BATCH, earlier).await?;
    let mut lost_attempts = Vec::new();
    for attempt in lapsed {
        if !adopt(worker, &attempt).await? {
            lost_attempts.push(attempt);
        }
    }
    for lost in worker.queue.reap_lapsed(&lost_attempts, earlier).await? {
        let task_type = lapsed_type(&lost_attempts, lost.fence);
        worker.metrics.lost(task_type, &lost);
        tracing::warn!(
            event = "task.worker_lost",
            task_id = lost.task_id.0,
            attempt = lost.fence.0,
            retry_count = lost.retry_count,
            worker = lost.worker,
            dead = lost.dead(),
            "a worker was lost with this task"
        );
    }
    write_records(worker).await
}

fn lapsed_type(attempts: &[Lapsed], fence: Fence) -> &str {
    attempts.iter().find(|attempt| attempt.lease.fence == fence).map_or("", |attempt| attempt.task_type.as_str())
}

/// Writes the final results that are due: of attempts that were taken back, now or by a worker that died over it, and of
/// those that ended while nothing could be written. One that can't be put on record keeps back none of the others.
pub(super) async fn write_records(worker: &Worker) -> Result<(), QueueError> {
    let _one_at_a_time = worker.state.writing_records.lock().await;
    for owed in worker.queue.claim_records_due(BATCH).await? {
        let (lease, tries) = (owed.lease, owed.tries);
        let settled = match fault::guard!("record.due") {
            true => write_record(worker, owed).await,
            false => continue,
        };
        match settled {
            Ok(true) => {}
            Ok(false) if tries < MOST_TRIES => {}
            Ok(false) => {
                tracing::error!(
                    event = "record.given_up",
                    task_id = lease.task_id.0,
                    attempt = lease.fence.0,
                    tries,
                    "the final result of an attempt can't be written; see what is wrong with its directory"
                );
                worker.queue.record_settled(lease).await?;
            }
            Err(error) if error.is_transient() || !fault::guard!("record.others") => return Err(error),
            Err(error) => tracing::error!(
                event = "record.not_stored",
                task_id = lease.task_id.0,
                attempt = lease.fence.0,
                error = %error,
                "postgres can't store what a lost attempt left"
            ),
        }
    }
    Ok(())
}

/// Whether the final result is on the disk now.
async fn write_record(worker: &Worker, owed: OwedRecord) -> Result<bool, QueueError> {
    let lease = owed.lease;
    let mut meta = Map::new();
    meta.insert("worker".to_owned(), owed.worker.into());
    let (failure, details) = match owed.end {
        OwedEnd::Lost => (Some(Ended::worker_lost()), Map::new()),
        OwedEnd::Cancelled => (Some(Ended::Cancelled.failure()), Map::new()),
        OwedEnd::Failed(failure) => (Some(failure), Map::new()),
        OwedEnd::Succeeded(Value::Object(details)) => (None, details),
        OwedEnd::Succeeded(_) => (None, Map::new()),
    };
    let attempt = EndedAttempt {
        task_id: lease.task_id,
        fence: lease.fence,
        retry_count: owed.retry_count,
        started_at: owed.started_at,
        completed_at: owed.finished_at,
        execution_time: owed.execution_time,
        failure,
        details,
        meta,
    };
    fault::point!("reaper.recover.before");
    match recover_run(&worker.runs, attempt).await {
        // What it had done and not sent is on record as well, where its files can be seen; also where the result was written
        // before, by a worker that died or lost Postgres over it.
        Recovered::Written { steps, artifacts } | Recovered::Finished { steps, artifacts, .. } => {
            worker.queue.complete_lost(lease, &steps, &artifacts).await?;
        }
        // It is due again later.
        Recovered::Unwritable => return Ok(false),
    }
    fault::point!("reaper.recover.after");
    worker.queue.record_settled(lease).await?;
    Ok(true)
}

/// Settles an attempt as its final result says, if it has one; whether it is settled.
async fn adopt(worker: &Worker, attempt: &Lapsed) -> Result<bool, QueueError> {
    let lease = attempt.lease;
    if !fault::guard!("reaper.adopt") {
        return Ok(false);
    }
    let finished = finished_run(&worker.runs, lease.task_id, lease.fence).await;
    // A runs directory may have been that of another database, where the same numbers meant something else.
    let finished = finished
        .filter(|finished| finished.decided.process == attempt.incarnation || !fault::guard!("reaper.same_process"));
    let Some((outcome, finished)) = finished.and_then(|finished| Some((outcome(&finished)?, finished))) else {
        return Ok(false);
    };
    let Finished { execution_time, steps, artifacts, .. } = finished;
    let settlement = Settlement { lease, outcome, execution_time, steps, artifacts };
    let record = SettlementRecord::from(&settlement);
    let settled = worker.queue.settle_records(std::slice::from_ref(&record)).await?;
    let done = settled.first() == Some(&Settled::Done);
    if done {
        worker.metrics.answered(&attempt.task_type, &record, Some(Settled::Done));
        tracing::info!(
            event = "outcome.adopted",
            task_id = lease.task_id.0,
            attempt = lease.fence.0,
            "a worker was lost after it had finished; its result is committed"
        );
    }
    Ok(done)
}

/// What the attempt was about to settle.
fn outcome(finished: &Finished) -> Option<Outcome> {
    let failure = finished.failure.clone();
    let delay = finished.decided.delay_seconds.unwrap_or_default();
    Some(match finished.decided.outcome.as_str() {
        "completed" if failure.is_none() => Outcome::Completed { result: Value::Object(finished.details.clone()) },
        "retry" => Outcome::Retry { failure: failure?, delay: Duration::try_from_secs_f64(delay).ok()? },
        "dead" => Outcome::Dead { failure: failure? },
        "cancelled" => Outcome::Cancelled,
        "released" => Outcome::Released { failure: failure? },
        _ => return None,
    })
}
