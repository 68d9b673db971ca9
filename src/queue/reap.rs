//! Taking tasks back from workers that are gone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::attempt::step_row;
use super::settle::artifact_row;
use super::{Queue, QueueError, WorkerIdentity, count, exposed, is_rolled_back, is_transient, repeated};
use crate::record::{ArtifactRecord, StepRecord};
use crate::task::{Fence, Lease, TaskId, TaskStatus};

/// An attempt whose lease ran out, or whose worker is gone. It may have finished all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lapsed {
    /// Which attempt.
    pub lease: Lease,
    /// The process that made it.
    pub incarnation: String,
    /// Name of the automation.
    pub task_type: String,
}

/// Most tasks taken back where no limit is given.
const LARGEST: u32 = 10_000;

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
        self.take_back(limit, None, None).await
    }

    /// Takes back at once what an earlier process of the same worker name held, where that process is provably gone: its
    /// [`super::Presence`] is free. What another live process of that name holds stays with it.
    ///
    /// # Errors
    /// As for [`Queue::reap`].
    pub async fn reap_previous_life(&self, worker: &WorkerIdentity) -> Result<Vec<Reaped>, QueueError> {
        self.take_back(LARGEST, Some(worker), None).await
    }

    /// Up to `limit` attempts that could be taken back now: those of expired leases and, if `worker` is given, those of
    /// earlier processes of its name that are provably gone. Nothing is changed.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn lapsed(&self, limit: u32, worker: Option<&WorkerIdentity>) -> Result<Vec<Lapsed>, QueueError> {
        let rows = repeated(is_rolled_back, || {
            sqlx::query!(
                r#"SELECT id AS "id!", fence AS "fence!", lease_incarnation AS "incarnation!", task_type AS "task_type!"
                   FROM lapsed_tasks($1, $2, $3, NULL)"#,
                i32::try_from(limit).unwrap_or(i32::MAX),
                worker.map(|worker| worker.name.as_str()),
                worker.map(|worker| worker.incarnation.as_str()),
            )
            .fetch_all(&self.pool)
        })
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Lapsed {
                lease: Lease { task_id: TaskId(row.id), fence: Fence(row.fence) },
                incarnation: row.incarnation,
                task_type: row.task_type,
            })
            .collect())
    }

    /// As [`Queue::reap`], of these attempts only: one that has been renewed or settled meanwhile is left alone.
    ///
    /// # Errors
    /// As for [`Queue::reap`].
    pub async fn reap_lapsed(
        &self,
        lapsed: &[Lapsed],
        worker: Option<&WorkerIdentity>,
    ) -> Result<Vec<Reaped>, QueueError> {
        if lapsed.is_empty() {
            return Ok(Vec::new());
        }
        let fences: Vec<i64> = lapsed.iter().map(|one| one.lease.fence.0).collect();
        self.take_back(LARGEST, worker, Some(&fences)).await
    }

    /// Which of these attempts, each with the process that made it, this database knows: numbers alone say little where
    /// several databases have had the same runs directory.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn known(&self, attempts: &[Lapsed]) -> Result<Vec<Lease>, QueueError> {
        let tasks: Vec<i64> = attempts.iter().map(|one| one.lease.task_id.0).collect();
        let fences: Vec<i64> = attempts.iter().map(|one| one.lease.fence.0).collect();
        let incarnations: Vec<String> = attempts.iter().map(|one| one.incarnation.clone()).collect();
        let rows = repeated(is_transient, || {
            sqlx::query!(
                "SELECT a.task_id, a.id FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS k (task_id, id, incarnation)
                 JOIN attempts a ON a.id = k.id AND a.task_id = k.task_id AND a.incarnation = k.incarnation",
                &tasks,
                &fences,
                &incarnations,
            )
            .fetch_all(&self.pool)
        })
        .await?;
        Ok(rows.into_iter().map(|row| Lease { task_id: TaskId(row.task_id), fence: Fence(row.id) }).collect())
    }

    /// Adds what an attempt that was taken back has left on its disk: steps that are not on record yet, and files. Only of
    /// an attempt that is lost; what its own worker recorded stays as it is.
    ///
    /// # Errors
    /// Postgres can't be reached or can't store them.
    pub async fn complete_lost(
        &self,
        lease: Lease,
        steps: &[StepRecord],
        artifacts: &[ArtifactRecord],
    ) -> Result<(), QueueError> {
        let steps: Value = steps.iter().map(|step| step_row(lease, step)).collect();
        let artifacts: Value = artifacts.iter().map(|file| artifact_row(lease, file)).collect();
        repeated(is_transient, || {
            sqlx::query!(
                "SELECT complete_lost_attempt($1, $2, $3, $4)",
                lease.task_id.0,
                lease.fence.0,
                steps,
                artifacts,
            )
            .fetch_one(&self.pool)
        })
        .await?;
        Ok(())
    }

    async fn take_back(
        &self,
        limit: u32,
        worker: Option<&WorkerIdentity>,
        fences: Option<&[i64]>,
    ) -> Result<Vec<Reaped>, QueueError> {
        let rows = repeated(is_rolled_back, || {
            let sent = sqlx::query!(
                r#"SELECT task_id AS "task_id!", fence AS "fence!", retry_count AS "retry_count!", worker AS "worker!",
                          site AS "site!", status::text AS "status!", started_at AS "started_at!",
                          execution_time AS "execution_time!"
                   FROM reap_tasks($1, $2, $3, $4)"#,
                i32::try_from(limit).unwrap_or(i32::MAX),
                worker.map(|worker| worker.name.as_str()),
                worker.map(|worker| worker.incarnation.as_str()),
                fences,
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
