//! Commits how attempts ended; what Postgres does not take now is kept beside the runs and delivered later.
//!
//! An attempt is over when its outcome is on *some* disk: its slot is free then, whatever Postgres does. Each kept outcome
//! is sent again until it is answered, by this process, by its next life, or by any worker with the same runs directory.
//! That is safe in any order and any number: a settlement is fenced, and one that has been committed already is found so
//! by its attempt's id.
//!
//! How it can go wrong:
//! * *The process dies before the outcome is kept.* Then `final_result.json` has it, and whoever takes the task back settles
//!   it from there ([`super::reaper`]).
//! * *The lease is given away meanwhile* by a worker that can't see these files. The fence refuses the outcome; the intent
//!   on record keeps the next attempt from submitting again.
//! * *The disk takes nothing either.* Then the attempt keeps its slot and tries on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Worker;
use crate::fault;
use crate::queue::{Lapsed, Settled, Settlement, SettlementRecord};
use crate::retry::Reconnect;
use crate::telemetry::{Journal, Kept};

/// How often outcomes are looked for that another life, or another process, has kept.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Longest wait between two tries. The reaper waits longer after an outage, so that whoever has an outcome comes first.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// An outcome whose attempt is not in this database, and has not come to be for so long, is given up.
const KEEP_STRANGERS: Duration = Duration::from_secs(7 * 24 * 3600);

/// An outcome as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    process: String,
    /// Name of the automation; not in those that earlier versions have kept.
    #[serde(default)]
    task_type: String,
    settlement: SettlementRecord,
}

/// Commits how an attempt at a task of that type ended, or keeps it; None: it is kept.
pub(super) async fn settle(worker: &Worker, task_type: &str, settlement: Settlement) -> Option<Settled> {
    let record = SettlementRecord::from(&settlement);
    let mut waits = Reconnect::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let problem = match send(worker, std::slice::from_ref(&record)).await {
            Ok(settled) => {
                let settled = settled.first().copied();
                worker.metrics.answered(task_type, &record, settled);
                return settled;
            }
            Err(problem) => problem,
        };
        worker.state.outage.failed("an outcome is kept until it can be committed", &problem);
        let task_id = settlement.lease.task_id.0;
        if !fault::guard!("outcome.keep") {
            return None;
        }
        match keep(worker, task_type, record.clone()).await {
            Ok(()) => {
                tracing::info!(event = "outcome.kept", task_id, "the outcome waits for postgres beside the runs");
                worker.state.outcome_kept.notify_one();
                return None;
            }
            Err(error) => {
                tracing::warn!(event = "outcome.not_kept", task_id, error = %error, "the outcome can't be kept either");
            }
        }
        tokio::time::sleep(waits.next_wait()).await;
    }
}

/// Delivers kept outcomes for ever. Ends when dropped.
pub(super) async fn deliver_for_ever(worker: &Worker) {
    let mut waits = Reconnect::new(Duration::from_millis(200), LONGEST_WAIT);
    loop {
        let wait = match deliver(worker).await {
            Ok(()) => {
                waits.reset();
                LOOK_EVERY
            }
            Err(problem) => {
                worker.state.outage.failed("kept outcomes can't be delivered", problem);
                waits.next_wait().min(LONGEST_WAIT)
            }
        };
        let _ = tokio::time::timeout(wait, worker.state.outcome_kept.notified()).await;
    }
}

/// Delivers what is kept; each outcome is forgotten when it is answered.
pub(super) async fn deliver(worker: &Worker) -> Result<(), String> {
    let journal = worker.runs.journal();
    let kept = blocking(journal.clone(), |journal| journal.entries()).await?;
    if kept.is_empty() {
        return Ok(());
    }
    let mut entries: Vec<(Kept, Entry)> = Vec::new();
    for one in kept {
        match serde_json::from_value(one.entry.clone()) {
            Ok(entry) => entries.push((one, entry)),
            Err(error) => {
                // Of another version of this program: it stays for that one.
                tracing::debug!(file = one.name, %error, "a kept outcome of another form");
            }
        }
    }
    let attempts: Vec<Lapsed> = entries
        .iter()
        .map(|(_, entry)| Lapsed {
            lease: entry.settlement.lease(),
            incarnation: entry.process.clone(),
            task_type: entry.task_type.clone(),
        })
        .collect();
    let known = worker.queue.known(&attempts).await.map_err(|error| error.to_string())?;
    let (ours, strangers): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(_, entry)| known.contains(&entry.settlement.lease()));
    for (kept, entry) in strangers {
        if kept.age > KEEP_STRANGERS {
            let task_id = entry.settlement.lease().task_id.0;
            tracing::warn!(
                event = "outcome.given_up",
                task_id,
                "an outcome of an attempt that is not in this database"
            );
            blocking(journal.clone(), move |journal| journal.forget(&kept)).await?;
        }
    }
    for (kept, entry) in ours {
        let lease = entry.settlement.lease();
        let settled = send(worker, std::slice::from_ref(&entry.settlement)).await?;
        let (task_id, attempt) = (lease.task_id.0, lease.fence.0);
        worker.metrics.answered(&entry.task_type, &entry.settlement, settled.first().copied());
        match settled.first() {
            Some(Settled::Done) => {
                tracing::info!(event = "outcome.delivered", task_id, attempt, "a kept outcome is committed");
            }
            Some(Settled::Fenced) | None => {
                tracing::warn!(event = "lease.lost", task_id, attempt, "a kept outcome was refused by the fence");
            }
            // The queue has logged why. The lease runs out.
            Some(Settled::Refused) => {}
        }
        blocking(journal.clone(), move |journal| journal.forget(&kept)).await?;
    }
    Ok(())
}

/// Whether more outcomes can be kept: where not, nothing more should be begun.
pub(super) fn check_room(worker: &Worker) -> Result<(), String> {
    match worker.runs.journal().is_full() {
        Ok(false) => Ok(()),
        Ok(true) => Err("too many outcomes wait for Postgres beside the runs".to_owned()),
        Err(error) => Err(format!("the outcomes kept beside the runs can't be read: {error}")),
    }
}

async fn send(worker: &Worker, records: &[SettlementRecord]) -> Result<Vec<Settled>, String> {
    // Shorter than a lease: an outcome that waits is better off on the disk.
    let tried = tokio::time::timeout(worker.settings.lease, worker.queue.settle_records(records)).await;
    match tried {
        Ok(Ok(settled)) => {
            worker.state.outage.over();
            Ok(settled)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn keep(worker: &Worker, task_type: &str, settlement: SettlementRecord) -> Result<(), String> {
    let fence = settlement.lease().fence;
    let (process, task_type) = (worker.identity.incarnation.clone(), task_type.to_owned());
    let entry = Entry { process, task_type, settlement };
    let text = serde_json::to_value(&entry).map_err(|error| error.to_string())?;
    blocking(worker.runs.journal(), move |journal| journal.keep(fence, &entry.process, &text)).await
}

/// A disk that does not answer is an error like others.
async fn blocking<T: Send + 'static>(
    journal: Journal,
    work: impl FnOnce(&Journal) -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let work = tokio::task::spawn_blocking(move || work(&journal));
    match tokio::time::timeout(Duration::from_secs(15), work).await {
        Ok(Ok(done)) => done.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the disk did not answer in time".to_owned()),
    }
}
