//! Attempts that ended without a final result on any disk, and who writes it: a debt that outlives every process.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Queue, QueueError, count, is_rolled_back, is_transient, repeated};
use crate::failure::{Failure, FailureReason};
use crate::task::{Fence, Lease, TaskId};

/// How an attempt without a record ended, by its row.
#[derive(Debug, Clone, PartialEq)]
pub enum OwedEnd {
    /// Its worker was lost.
    Lost,
    /// A person called it off.
    Cancelled,
    /// It failed, or was given back, for this reason.
    Failed(Failure),
    /// It succeeded; what there is to say of it.
    Succeeded(Value),
}

/// An attempt that ended and has no final result yet.
#[derive(Debug, Clone, PartialEq)]
pub struct OwedRecord {
    /// Which attempt.
    pub lease: Lease,
    /// Attempts before it.
    pub retry_count: u32,
    /// Name of its worker.
    pub worker: String,
    /// When it began, by Postgres' clock.
    pub started_at: DateTime<Utc>,
    /// When it ended, by Postgres' clock.
    pub finished_at: DateTime<Utc>,
    /// How long it took.
    pub execution_time: Duration,
    /// How it ended.
    pub end: OwedEnd,
    /// How often it has been due, this time included.
    pub tries: u32,
}

impl Queue {
    /// Notes that this attempt ends, or has ended, without a final result on disk.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn owe_record(&self, lease: Lease) -> Result<(), QueueError> {
        repeated(is_transient, || {
            sqlx::query!(
                "INSERT INTO records_due (attempt_id) SELECT id FROM attempts WHERE id = $1 AND task_id = $2
                 ON CONFLICT DO NOTHING",
                lease.fence.0,
                lease.task_id.0,
            )
            .execute(&self.pool)
        })
        .await?;
        Ok(())
    }

    /// Up to `limit` attempts whose final result is due, for this caller alone until it is due again: in 5 s after the
    /// first try, twice as long after each further one, at most ten minutes.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn claim_records_due(&self, limit: u32) -> Result<Vec<OwedRecord>, QueueError> {
        let rows = repeated(is_rolled_back, || {
            sqlx::query!(
                r#"SELECT task_id AS "task_id!", fence AS "fence!", retry_count AS "retry_count!", worker AS "worker!",
                          status::text AS "status!", started_at AS "started_at!", finished_at AS "finished_at!",
                          execution_time AS "execution_time!", failure_reason::text AS failure_reason, failure_code,
                          error, failure, result, tries AS "tries!"
                   FROM claim_records_due($1)"#,
                i32::try_from(limit).unwrap_or(i32::MAX),
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let owed = rows.into_iter().map(|row| OwedRecord {
            lease: Lease { task_id: TaskId(row.task_id), fence: Fence(row.fence) },
            retry_count: count(row.retry_count),
            worker: row.worker,
            started_at: row.started_at,
            finished_at: row.finished_at,
            execution_time: Duration::try_from_secs_f64(row.execution_time).unwrap_or_default(),
            tries: count(row.tries),
            end: match row.status.as_str() {
                "lost" => OwedEnd::Lost,
                "cancelled" => OwedEnd::Cancelled,
                "succeeded" => OwedEnd::Succeeded(row.result.unwrap_or_default()),
                _ => OwedEnd::Failed(failure(
                    row.failure_reason.as_deref(),
                    row.failure_code.unwrap_or_default(),
                    row.error.unwrap_or_default(),
                    &row.failure.unwrap_or_default(),
                )),
            },
        });
        Ok(owed.collect())
    }

    /// The final result of this attempt is on a disk, or is given up: it is not due any more.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn record_settled(&self, lease: Lease) -> Result<(), QueueError> {
        repeated(is_transient, || {
            sqlx::query!("DELETE FROM records_due WHERE attempt_id = $1", lease.fence.0).execute(&self.pool)
        })
        .await?;
        Ok(())
    }
}

fn failure(reason: Option<&str>, code: String, message: String, more: &Value) -> Failure {
    let causes = more["causes"].as_array().into_iter().flatten();
    Failure {
        reason: reason.and_then(|reason| reason.parse().ok()).unwrap_or(FailureReason::Unknown),
        code: code.into(),
        message,
        retryable: more["retryable"].as_bool().unwrap_or(false),
        retry_after: None,
        causes: causes.filter_map(|cause| cause.as_str().map(str::to_owned)).collect(),
    }
}
