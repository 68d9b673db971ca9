//! What goes on now: which workers there are and what each is doing, and attempts as they begin and end.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Queue, QueueError, WorkerIdentity, is_transient, repeated};
use crate::record::{serialize_optional_time, serialize_time};

/// Most workers and tasks listed.
const MAX_ROWS: i64 = 1_000;

/// A worker process.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkerNow {
    /// Its name, the same after a restart.
    pub name: String,
    /// New with each process.
    pub incarnation: String,
    /// Of the program.
    pub version: String,
    /// When the process began.
    #[serde(serialize_with = "serialize_time")]
    #[schema(value_type = String)]
    pub started_at: DateTime<Utc>,
    /// When it last showed that it lives.
    #[serde(serialize_with = "serialize_time")]
    #[schema(value_type = String)]
    pub seen_at: DateTime<Utc>,
    /// Whether that was within the last 20 seconds and it has not ended since.
    pub alive: bool,
    /// When it ended as it was told to. One that is not alive and has not is lost.
    #[serde(serialize_with = "serialize_optional_time")]
    #[schema(value_type = Option<String>)]
    pub stopped_at: Option<DateTime<Utc>>,
    /// What it is doing.
    pub tasks: Vec<WorkerTask>,
}

/// A task that a worker holds.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkerTask {
    /// Its number.
    pub id: i64,
    /// Name of the automation.
    pub task_type: String,
    /// The page.
    pub url: String,
    /// Attempts before this one.
    pub retry_count: i32,
    /// When the attempt began.
    #[serde(serialize_with = "serialize_time")]
    #[schema(value_type = String)]
    pub started_at: DateTime<Utc>,
    /// The latest step on record; a worker hands its steps over at each renewal of its lease.
    pub step: Option<String>,
}

/// An attempt that has begun or ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttemptNews {
    /// Its id.
    pub attempt: i64,
    /// The run.
    pub id: i64,
    /// Name of the automation.
    pub task_type: String,
    /// The page.
    pub url: String,
    /// Attempts before this one.
    pub retry_count: i32,
    /// Name of the worker.
    pub worker: String,
    /// Of the attempt: `running`, `succeeded`, `failed`, `lost`, `released` or `cancelled`.
    pub status: String,
    /// Of the run, now.
    pub run_status: String,
    /// When it began.
    #[serde(serialize_with = "serialize_time")]
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(serialize_with = "serialize_optional_time")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Seconds.
    pub execution_time: Option<f64>,
    /// Of its failure.
    pub failure_code: Option<String>,
    /// For a person.
    pub error: Option<String>,
}

impl WorkerNow {
    /// Neither alive nor told to stop.
    pub fn is_lost(&self) -> bool {
        !self.alive && self.stopped_at.is_none()
    }
}

impl Queue {
    /// The workers that were there within the last hour or hold a task, those alive first, then the lost, by name, each with what it is doing.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn workers(&self) -> Result<Vec<WorkerNow>, QueueError> {
        let workers = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT name, incarnation, version, started_at, seen_at, stopped_at,
                          stopped_at IS NULL AND seen_at > clock_timestamp() - interval '20 seconds' AS "alive!"
                   FROM workers w
                   WHERE seen_at > clock_timestamp() - interval '1 hour'
                      OR EXISTS (SELECT 1 FROM tasks t WHERE t.lease_owner IS NOT NULL AND t.lease_incarnation = w.incarnation)
                   ORDER BY 7 DESC, stopped_at NULLS FIRST, name, started_at DESC LIMIT $1"#,
                MAX_ROWS
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let tasks = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT t.lease_incarnation AS "incarnation!", t.id, t.task_type, t.url, t.retry_count,
                          t.started_at AS "started_at!",
                          (SELECT s.name FROM steps s WHERE s.attempt_id = t.fence ORDER BY s.seq DESC LIMIT 1) AS step
                   FROM tasks t WHERE t.lease_owner IS NOT NULL ORDER BY t.started_at LIMIT $1"#,
                MAX_ROWS
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let doing = |incarnation: &str| {
            let its = tasks.iter().filter(|task| task.incarnation == incarnation);
            its.map(|task| WorkerTask {
                id: task.id,
                task_type: task.task_type.clone(),
                url: task.url.clone(),
                retry_count: task.retry_count,
                started_at: task.started_at,
                step: task.step.clone(),
            })
            .collect()
        };
        Ok(workers
            .into_iter()
            .map(|row| WorkerNow {
                tasks: doing(&row.incarnation),
                name: row.name,
                incarnation: row.incarnation,
                version: row.version,
                started_at: row.started_at,
                seen_at: row.seen_at,
                alive: row.alive,
                stopped_at: row.stopped_at,
            })
            .collect())
    }

    /// The attempts after `attempt`, and those with one of the ids of `running`, in the order of their beginning.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn attempts_after(&self, attempt: i64, running: &[i64]) -> Result<Vec<AttemptNews>, QueueError> {
        let news = repeated(is_transient, || {
            sqlx::query_as!(
                AttemptNews,
                r#"SELECT a.id AS attempt, t.id, t.task_type, t.url, a.retry_count, a.worker, a.status::text AS "status!",
                          t.status::text AS "run_status!", a.started_at, a.finished_at, a.execution_time, a.failure_code,
                          a.error
                   FROM attempts a JOIN tasks t ON t.id = a.task_id
                   WHERE a.id > $1 OR a.id = ANY ($2) ORDER BY a.id LIMIT $3"#,
                attempt,
                running,
                MAX_ROWS,
            )
            .fetch_all(&self.pool)
        });
        Ok(news.await?)
    }
}

/// Says that a worker lives; forgets those that have not for a day.
pub(super) async fn show_alive(
    connection: impl sqlx::PgExecutor<'_>,
    worker: &WorkerIdentity,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH gone AS (DELETE FROM workers WHERE seen_at < clock_timestamp() - interval '1 day')
         INSERT INTO workers (incarnation, name, version) VALUES ($1, $2, $3)
         ON CONFLICT (incarnation) DO UPDATE SET seen_at = clock_timestamp()",
        worker.incarnation,
        worker.name,
        env!("CARGO_PKG_VERSION"),
    )
    .execute(connection)
    .await
    .map(|_| ())
}

/// Says that a worker has ended as it was told to.
pub(super) async fn show_stopped(
    connection: impl sqlx::PgExecutor<'_>,
    worker: &WorkerIdentity,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE workers SET seen_at = clock_timestamp(), stopped_at = clock_timestamp() WHERE incarnation = $1",
        worker.incarnation,
    )
    .execute(connection)
    .await
    .map(|_| ())
}
