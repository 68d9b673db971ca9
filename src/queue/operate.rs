//! What a person does to tasks: calling them off, and giving dead letters another chance.

use super::{Cursor, Queue, QueueError, RunFilter, is_transient, repeated, status};
use crate::task::{TaskId, TaskStatus};

/// Dead letters retried in one statement.
const CHUNK: i64 = 1_000;

/// What became of the dead letters that matched a filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct BulkRetry {
    /// Pending again.
    pub retried: u64,
    /// Left as they are, because each of them needs its own confirmation ([`QueueError::NeedsConfirmation`]).
    pub need_confirmation: u64,
    /// Left as they are, because a live task has the same dedupe key.
    pub conflicts: u64,
}

impl Queue {
    /// Calls a task off. A pending one is cancelled at once; a running one when its worker next renews, or when it is
    /// taken back. The answer is the status now: `running` means that the worker has been asked.
    ///
    /// # Errors
    /// [`QueueError::NoSuchTask`], [`QueueError::Conflict`] if it has ended already, or Postgres can't be reached.
    pub async fn cancel(&self, id: TaskId) -> Result<TaskStatus, QueueError> {
        let row = repeated(is_transient, || {
            sqlx::query!(
                r#"WITH found AS MATERIALIZED (SELECT id, status FROM tasks WHERE id = $1 FOR UPDATE),
                   asked AS (
                       UPDATE tasks t SET
                           status = CASE found.status WHEN 'pending' THEN 'cancelled' ELSE t.status END,
                           ready = false,
                           finished_at = CASE found.status WHEN 'pending' THEN clock_timestamp() END,
                           cancel_requested = found.status = 'running'
                       FROM found WHERE t.id = found.id AND found.status IN ('pending', 'running')
                       RETURNING t.id, t.status
                   )
                   SELECT asked.status::text AS asked, found.status::text AS "found!"
                   FROM found LEFT JOIN asked ON asked.id = found.id"#,
                id.0,
            )
            .fetch_optional(&self.pool)
        })
        .await?;
        let row = row.ok_or(QueueError::NoSuchTask(id))?;
        match row.asked {
            Some(now) => Ok(status(&now)),
            // Also when this call is the second try of itself.
            None if row.found == "cancelled" => Ok(TaskStatus::Cancelled),
            None => Err(QueueError::Conflict(format!(
                "task {id} is {}; only a pending or running task can be cancelled",
                row.found
            ))),
        }
    }

    /// Gives a dead letter another chance: pending, ready at once, with fresh budgets; `retry_count` goes on counting.
    ///
    /// # Errors
    /// [`QueueError::NoSuchTask`]; [`QueueError::Conflict`] unless it is `failed`, or if a live task has its dedupe key;
    /// [`QueueError::NeedsConfirmation`] if its code is `outcome.uncertain` and `confirm_uncertain` is not given; or
    /// Postgres can't be reached.
    pub async fn retry(&self, id: TaskId, confirm_uncertain: bool) -> Result<(), QueueError> {
        let chunk = self.retry_chunk(&[id.0], confirm_uncertain).await?;
        if chunk.retried == 1 {
            return Ok(());
        }
        let found = repeated(is_transient, || {
            sqlx::query!(r#"SELECT status::text AS "status!", failure_code FROM tasks WHERE id = $1"#, id.0)
                .fetch_optional(&self.pool)
        })
        .await?;
        let found = found.ok_or(QueueError::NoSuchTask(id))?;
        if found.status != "failed" {
            let problem = format!("task {id} is {}; only a failed task can be retried", found.status);
            return Err(QueueError::Conflict(problem));
        }
        if chunk.need_confirmation == 1 {
            return Err(QueueError::NeedsConfirmation(id));
        }
        Err(QueueError::Conflict(format!(
            "a live task has the dedupe key of task {id}; wait until that one has ended, or cancel it"
        )))
    }

    /// Retries all dead letters that match `filter` (its status is taken as `failed`), in chunks that each commit.
    ///
    /// # Errors
    /// Postgres can't be reached; the chunks before stay retried.
    pub async fn retry_all(&self, filter: &RunFilter, confirm_uncertain: bool) -> Result<BulkRetry, QueueError> {
        self.retry_all_reporting(filter, confirm_uncertain, |_| {}).await
    }

    /// As [`Queue::retry_all`]; `progress` is told the sums after each chunk.
    ///
    /// # Errors
    /// As for [`Queue::retry_all`].
    pub async fn retry_all_reporting(
        &self,
        filter: &RunFilter,
        confirm_uncertain: bool,
        mut progress: impl FnMut(&BulkRetry),
    ) -> Result<BulkRetry, QueueError> {
        let mut total = BulkRetry::default();
        let mut after = None;
        loop {
            let (chunk, next) = self.retry_part(filter, confirm_uncertain, after, CHUNK).await?;
            total.retried += chunk.retried;
            total.need_confirmation += chunk.need_confirmation;
            total.conflicts += chunk.conflicts;
            progress(&total);
            if next.is_none() {
                return Ok(total);
            }
            after = next;
        }
    }

    /// Retries at most `most` (cut to 1,000) of the dead letters that match `filter` (its status is taken as `failed`): the
    /// newest, or those that come after `after`. Also says where the next part begins; None if none is left.
    ///
    /// # Errors
    /// Postgres can't be reached; then nothing of this part is changed.
    pub async fn retry_part(
        &self,
        filter: &RunFilter,
        confirm_uncertain: bool,
        after: Option<Cursor>,
        most: i64,
    ) -> Result<(BulkRetry, Option<Cursor>), QueueError> {
        let filter = RunFilter { status: Some(TaskStatus::Failed), ..filter.clone() };
        let most = most.clamp(1, CHUNK);
        let ids = self.matching(&filter, after.map_or(i64::MAX, |cursor| cursor.0), most).await?;
        let Some(last) = ids.last() else { return Ok((BulkRetry::default(), None)) };
        let next = (ids.len() as i64 == most).then_some(Cursor(*last));
        Ok((self.retry_chunk(&ids, confirm_uncertain).await?, next))
    }

    async fn retry_chunk(&self, ids: &[i64], confirm_uncertain: bool) -> Result<BulkRetry, QueueError> {
        let row = super::bounded(
            sqlx::query!(
                r#"SELECT retried AS "retried!", need_confirmation AS "need_confirmation!", conflicts AS "conflicts!"
                   FROM retry_tasks($1, $2)"#,
                ids,
                confirm_uncertain,
            )
            .fetch_one(&self.pool),
        )
        .await?;
        Ok(BulkRetry {
            retried: row.retried.unsigned_abs(),
            need_confirmation: row.need_confirmation.unsigned_abs(),
            conflicts: row.conflicts.unsigned_abs(),
        })
    }
}
