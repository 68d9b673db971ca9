//! Ending attempts: one statement for a batch, fenced, and safe to send again.
//!
//! A settlement that Postgres can't store must not hold up the others of its batch, nor may the task stay running because
//! of a step that can't be stored. So after an error that no repetition mends, the batch goes row by row; a row that
//! fails by itself goes once more without its steps and files; if that fails too it is [`Settled::Refused`].

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::attempt::step_row;
use super::{Queue, QueueError, clean, exposed, is_transient, repeated};
use crate::failure::Failure;
use crate::record::{ArtifactRecord, StepRecord};
use crate::task::Lease;

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
        let mut answers = Vec::with_capacity(settlements.len());
        for batch in settlements.chunks(BATCH) {
            match self.settle_batch(batch, true).await {
                Ok(settled) => answers.extend(settled),
                Err(error) if is_transient(&error) => return Err(error.into()),
                Err(_) => {
                    for one in batch {
                        answers.push(self.settle_one(one).await?);
                    }
                }
            }
        }
        Ok(answers)
    }

    async fn settle_one(&self, settlement: &Settlement) -> Result<Settled, sqlx::Error> {
        let one = std::slice::from_ref(settlement);
        for with_record in [true, false] {
            match self.settle_batch(one, with_record).await {
                Ok(settled) => return Ok(settled.first().copied().unwrap_or(Settled::Fenced)),
                Err(error) if is_transient(&error) => return Err(error),
                Err(error) => tracing::error!(
                    task_id = settlement.lease.task_id.0,
                    with_record,
                    %error,
                    "postgres can't store the end of an attempt"
                ),
            }
        }
        Ok(Settled::Refused)
    }

    async fn settle_batch(&self, batch: &[Settlement], with_record: bool) -> Result<Vec<Settled>, sqlx::Error> {
        let rows: Value = batch.iter().map(row).collect();
        let mut steps = Vec::new();
        let mut artifacts = Vec::new();
        if with_record {
            for settlement in batch {
                steps.extend(settlement.steps.iter().map(|step| step_row(settlement.lease, step)));
                artifacts.extend(settlement.artifacts.iter().map(|file| artifact_row(settlement.lease, file)));
            }
        }
        let steps = (!steps.is_empty()).then_some(Value::Array(steps));
        let artifacts = (!artifacts.is_empty()).then_some(Value::Array(artifacts));
        let answers = repeated(is_transient, || {
            let sent = sqlx::query!(
                r#"SELECT settled_fence AS "fence!", settled AS "settled!" FROM settle_attempts($1, $2, $3)"#,
                rows,
                steps,
                artifacts,
            )
            .fetch_all(&self.pool);
            exposed("settle", sent)
        })
        .await?;
        let settled: HashMap<i64, bool> = answers.into_iter().map(|row| (row.fence, row.settled)).collect();
        let answer = |settlement: &Settlement| match settled.get(&settlement.lease.fence.0) {
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

fn artifact_row(lease: Lease, file: &ArtifactRecord) -> Value {
    json!({"fence": lease.fence.0, "name": clean::text(&file.name), "kind": file.kind, "bytes": file.bytes.max(0)})
}
