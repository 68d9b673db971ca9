//! Taking tasks back from workers that are gone.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Queue, QueueError, WorkerIdentity, count, exposed, is_rolled_back, repeated};
use crate::task::{Fence, TaskId, TaskStatus};

/// An attempt that was taken back from its worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaped {
    /// The task, no longer running.
    pub task_id: TaskId,
    /// The attempt, now `lost` with `infra.worker_lost`.
    pub fence: Fence,
    /// Of that attempt.
    pub retry_count: u32,
    /// Name of the worker that was lost.
    pub worker: String,
    /// Origin of the task's page.
    pub site: String,
    /// What became of the task: pending, or failed at the third loss, or cancelled if that was asked for.
    pub status: TaskStatus,
    /// When that attempt had begun (Postgres' clock).
    pub started_at: DateTime<Utc>,
    /// From then until now, by Postgres' clock.
    pub execution_time: Duration,
}

impl Reaped {
    /// Whether the task is a dead letter now.
    pub fn dead(&self) -> bool {
        self.status == TaskStatus::Failed
    }
}

impl Queue {
    /// Takes back up to `limit` tasks whose leases ran out: pending again (`retry_count` and `losses` one more), or dead
    /// with `infra.worker_lost` at the third loss.
    ///
    /// # Errors
    /// Postgres can't be reached. They may have been taken back all the same; then nobody is told of them.
    pub async fn reap(&self, limit: u32) -> Result<Vec<Reaped>, QueueError> {
        self.take_back(limit, None).await
    }

    /// Takes back at once what an earlier process of the same worker name held, where that process is provably gone: its
    /// [`super::Presence`] is free. What another live process of that name holds stays with it.
    ///
    /// # Errors
    /// As for [`Queue::reap`].
    pub async fn reap_previous_life(&self, worker: &WorkerIdentity) -> Result<Vec<Reaped>, QueueError> {
        self.take_back(10_000, Some(worker)).await
    }

    async fn take_back(&self, limit: u32, worker: Option<&WorkerIdentity>) -> Result<Vec<Reaped>, QueueError> {
        let rows = repeated(is_rolled_back, || {
            let sent = sqlx::query!(
                r#"SELECT task_id AS "task_id!", fence AS "fence!", retry_count AS "retry_count!", worker AS "worker!",
                          site AS "site!", status::text AS "status!", started_at AS "started_at!",
                          execution_time AS "execution_time!"
                   FROM reap_tasks($1, $2, $3)"#,
                i32::try_from(limit).unwrap_or(i32::MAX),
                worker.map(|worker| worker.name.as_str()),
                worker.map(|worker| worker.incarnation.as_str()),
            )
            .fetch_all(&self.pool);
            exposed("reap", sent)
        })
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Reaped {
                task_id: TaskId(row.task_id),
                fence: Fence(row.fence),
                retry_count: count(row.retry_count),
                worker: row.worker,
                site: row.site,
                status: super::status(&row.status),
                started_at: row.started_at,
                execution_time: Duration::try_from_secs_f64(row.execution_time).unwrap_or_default(),
            })
            .collect())
    }
}
