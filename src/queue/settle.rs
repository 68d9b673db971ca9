//! Ending attempts: one statement for a batch, fenced, and safe to send again.
//!
//! A settlement that Postgres can't store must not hold up the others of its batch, nor may the task stay running because
//! of a step that can't be stored. So after an error that no repetition mends, the batch goes row by row; a row that
//! fails by itself goes once more without its steps and files; if that fails too it is [`Settled::Refused`].

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attempt::step_row;
use super::{Queue, QueueError, clean, exposed, is_transient, repeated};
use crate::failure::{Failure, FailureReason};
use crate::fault;
use crate::record::{ArtifactRecord, StepRecord};
use crate::task::{Fence, Lease, TaskId};

/// Most settlements in one statement.
const BATCH: usize = 500;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done.
    Completed {
        /// What there is to say of it; stored with the task.
        result: Value,
    },
    /// Back to pending, not before `delay` from now (Postgres' clock); uses up one of `max_retries`. If none is left it is
    /// a dead letter all the same.
    Retry {
        /// Why.
        failure: Failure,
        /// How long to wait.
        delay: Duration,
    },
    /// A dead letter.
    Dead {
        /// Why.
        failure: Failure,
    },
    /// Cancelled while it ran.
    Cancelled,
    /// Given back by a shutdown: charged to no budget, ready at once, `retry_count` unchanged.
    Released {
        /// What to note of this attempt.
        failure: Failure,
    },
}

/// Everything that is committed, in one statement, when an attempt ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// Which attempt.
    pub lease: Lease,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, by the worker's monotonic clock.
    pub execution_time: Duration,
    /// Steps that are not on record yet.
    pub steps: Vec<StepRecord>,
    /// Files of the run directory.
    pub artifacts: Vec<ArtifactRecord>,
}

/// A settlement as it is sent, for whoever has to keep it until Postgres is back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettlementRecord {
    task_id: TaskId,
    fence: Fence,
    settlement: Value,
    steps: Vec<Value>,
    artifacts: Vec<Value>,
}

impl SettlementRecord {
    /// Which attempt it ends.
    pub fn lease(&self) -> Lease {
        Lease { task_id: self.task_id, fence: self.fence }
    }

    /// `completed`, `retry`, `dead`, `cancelled` or `released`.
    pub fn outcome(&self) -> &str {
        self.settlement["outcome"].as_str().unwrap_or_default()
    }

    /// One of the eleven, of an attempt that failed.
    pub fn failure_reason(&self) -> Option<FailureReason> {
        self.settlement["reason"].as_str()?.parse().ok()
    }

    /// How long the attempt took.
    pub fn execution_time(&self) -> Duration {
        let seconds = self.settlement["execution_time"].as_f64().unwrap_or_default();
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

impl From<&Settlement> for SettlementRecord {
    fn from(settlement: &Settlement) -> Self {
        let lease = settlement.lease;
        SettlementRecord {
            task_id: lease.task_id,
            fence: lease.fence,
            settlement: row(settlement),
            steps: settlement.steps.iter().map(|step| step_row(lease, step)).collect(),
            artifacts: settlement.artifacts.iter().map(|file| artifact_row(lease, file)).collect(),
        }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Committed now, or already by an earlier try of the same settlement whose answer got lost.
    Done,
    /// The lease had been lost: nothing was changed.
    Fenced,
    /// Postgres can't store it (logged). The lease runs out and the task is taken back as if its worker had been lost.
    Refused,
}

impl Queue {
    /// Ends attempts; the answers are in the order of `settlements`.
    ///
    /// # Errors
    /// Postgres can't be reached. Which of them were committed is then unknown; send the same again.
    pub async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, QueueError> {
        let records: Vec<SettlementRecord> = settlements.iter().map(SettlementRecord::from).collect();
        self.settle_records(&records).await
    }

    /// As [`Queue::settle`], of settlements that were kept.
    ///
    /// # Errors
    /// As for [`Queue::settle`].
    pub async fn settle_records(&self, records: &[SettlementRecord]) -> Result<Vec<Settled>, QueueError> {
        let mut answers = Vec::with_capacity(records.len());
        for batch in records.chunks(BATCH) {
            match self.settle_batch(batch, true).await {
                Ok(settled) => answers.extend(settled),
                Err(error) if is_transient(&error) => return Err(error.into()),
                Err(error) if !fault::guard!("settle.one_by_one") => return Err(error.into()),
                Err(_) => {
                    for one in batch {
                        answers.push(self.settle_one(one).await?);
                    }
                }
            }
        }
        Ok(answers)
    }

    async fn settle_one(&self, record: &SettlementRecord) -> Result<Settled, sqlx::Error> {
        let one = std::slice::from_ref(record);
        for with_record in [true, false] {
            match self.settle_batch(one, with_record).await {
                Ok(settled) => return Ok(settled.first().copied().unwrap_or(Settled::Fenced)),
                Err(error) if is_transient(&error) => return Err(error),
                Err(error) => tracing::error!(
                    task_id = record.task_id.0,
                    with_record,
                    %error,
                    "postgres can't store the end of an attempt"
                ),
            }
        }
        Ok(Settled::Refused)
    }

    async fn settle_batch(&self, batch: &[SettlementRecord], with_record: bool) -> Result<Vec<Settled>, sqlx::Error> {
        let all = |rows: fn(&SettlementRecord) -> &[Value]| {
            let rows: Vec<Value> = batch.iter().filter(|_| with_record).flat_map(rows).cloned().collect();
            (!rows.is_empty()).then_some(Value::Array(rows))
        };
        let settlements: Value = batch.iter().map(|record| record.settlement.clone()).collect();
        let steps = all(|record| &record.steps);
        let artifacts = all(|record| &record.artifacts);
        let answers = repeated(is_transient, || {
            let sent = sqlx::query!(
                r#"SELECT settled_fence AS "fence!", settled AS "settled!" FROM settle_attempts($1, $2, $3)"#,
                settlements,
                steps,
                artifacts,
            )
            .fetch_all(&self.pool);
            exposed("settle", sent)
        })
        .await?;
        let settled: HashMap<i64, bool> = answers.into_iter().map(|row| (row.fence, row.settled)).collect();
        let answer = |record: &SettlementRecord| match settled.get(&record.fence.0) {
            Some(true) => Settled::Done,
            _ => Settled::Fenced,
        };
        Ok(batch.iter().map(answer).collect())
    }
}

/// A settlement as `settle_attempts` reads it.
fn row(settlement: &Settlement) -> Value {
    let mut row = json!({
        "task_id": settlement.lease.task_id.0,
        "fence": settlement.lease.fence.0,
        "execution_time": clean::seconds(settlement.execution_time),
    });
    let (outcome, failure) = match &settlement.outcome {
        Outcome::Completed { result } => {
            row["result"] = clean::json(result);
            ("completed", None)
        }
        Outcome::Retry { failure, delay } => {
            row["delay_seconds"] = json!(clean::seconds(*delay));
            ("retry", Some(failure))
        }
        Outcome::Dead { failure } => ("dead", Some(failure)),
        Outcome::Cancelled => ("cancelled", None),
        Outcome::Released { failure } => ("released", Some(failure)),
    };
    row["outcome"] = json!(outcome);
    if let Some(failure) = failure {
        let message = clean::text(&failure.message);
        row["reason"] = json!(failure.reason);
        row["code"] = json!(clean::text(&failure.code));
        row["message"] = json!(message);
        row["failure"] = clean::json(&json!({
            "failure_reason": failure.reason,
            "failure_code": failure.code,
            "error": failure.message,
            "retryable": failure.retryable,
            "retry_after": failure.retry_after.map(|wish| wish.as_secs_f64()),
            "causes": failure.causes,
        }));
    }
    row
}

pub(super) fn artifact_row(lease: Lease, file: &ArtifactRecord) -> Value {
    json!({"fence": lease.fence.0, "name": clean::text(&file.name), "kind": file.kind, "bytes": file.bytes.max(0)})
}
