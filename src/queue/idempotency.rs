//! Enqueuing once, however often the request for it is sent: by a key that the client chose.
//!
//! The key and the task are written in one transaction, under a lock on the key: of two requests with the same key at the
//! same time, the second waits and finds what the first has added. A key is forgotten after a day.

use super::enqueue::Columns;
use super::{Enqueued, Queue, QueueError, bounded, clean, is_rolled_back, repeated, wake};
use crate::task::{NewTask, TaskId};

/// Old keys removed with each new one, so that there are never many more than a day brings.
const FORGET: i64 = 20;

/// By what a request is known again.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey<'a> {
    /// Whose key it is.
    pub who: &'a str,
    /// As the client gave it.
    pub key: &'a str,
    /// Of what was asked for.
    pub fingerprint: &'a [u8],
}

/// What became of a request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// It was the first with its key.
    Added(Enqueued),
    /// The same was asked for before, and this task came of it.
    Again(TaskId),
    /// The key was used before, for something else.
    Mismatch,
}

impl Queue {
    /// Adds a task unless a request with the same key has done so within the last day.
    ///
    /// # Errors
    /// Postgres can't be reached or can't store the task. It is safe to send the same again.
    pub async fn enqueue_once(
        &self,
        task: &NewTask,
        default_max_retries: u32,
        request: RequestKey<'_>,
    ) -> Result<Once, QueueError> {
        self.check_sealing(std::slice::from_ref(task)).await?;
        let payloads = [clean::json(&task.payload).to_string()];
        let (who, key) = (clean::text(request.who), clean::text(request.key));
        let added = repeated(is_rolled_back, || async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query!(
                "SELECT pg_advisory_xact_lock(hashtextextended('pagehand request ' || $1 || ' ' || $2, 0))",
                who.as_ref(),
                key.as_ref(),
            )
            .execute(&mut *transaction)
            .await?;
            let before = sqlx::query!(
                "SELECT fingerprint, task_id FROM idempotency_keys
                 WHERE who = $1 AND key = $2 AND created_at > now() - interval '1 day'",
                who.as_ref(),
                key.as_ref(),
            )
            .fetch_optional(&mut *transaction)
            .await?;
            if let Some(before) = before {
                let same = before.fingerprint == request.fingerprint;
                return Ok(if same { Once::Again(TaskId(before.task_id)) } else { Once::Mismatch });
            }
            let columns = Columns::new(std::slice::from_ref(task), &payloads, default_max_retries);
            let answers = columns.insert(&self.keys, &mut transaction).await?;
            let added = *answers.first().ok_or(sqlx::Error::RowNotFound)?;
            sqlx::query!(
                "INSERT INTO idempotency_keys (who, key, fingerprint, task_id) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (who, key) DO UPDATE SET
                     fingerprint = excluded.fingerprint, task_id = excluded.task_id, created_at = excluded.created_at",
                who.as_ref(),
                key.as_ref(),
                request.fingerprint,
                added.id.0,
            )
            .execute(&mut *transaction)
            .await?;
            if !added.deduplicated {
                wake::notify(&mut transaction).await?;
            }
            transaction.commit().await?;
            Ok(Once::Added(added))
        })
        .await?;
        self.forget_old_requests().await;
        Ok(added)
    }

    /// Outside the transaction above: it must not wait for, or fail with, what this does.
    async fn forget_old_requests(&self) {
        let forgotten = sqlx::query!(
            "DELETE FROM idempotency_keys WHERE (who, key) IN (
                 SELECT who, key FROM idempotency_keys WHERE created_at < now() - interval '1 day'
                 ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
            FORGET,
        );
        if let Err(error) = bounded(forgotten.execute(&self.pool)).await {
            tracing::debug!(%error, "old request keys stay for now");
        }
    }
}
