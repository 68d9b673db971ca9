//! Small numbers for looking at: how many runs each status has, how deep the queue is, whether anything has changed, and
//! the dead letters in groups.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::QueryBuilder;
use utoipa::ToSchema;

use super::filter::{plain_conditions, slow_conditions};
use super::{AuditEntry, Queue, QueueError, RunFilter, is_transient, repeated};
use crate::record::serialize_time;
use crate::task::{TaskId, TaskStatus};

/// Most runs that are counted for [`Queue::status_counts`].
pub const MAX_COUNTED: i64 = 100_000;
/// The same where runs lie far apart and are each looked at, and where each is looked up among the failed steps.
const MAX_COUNTED_APART: i64 = 25_000;
const MAX_COUNTED_BY_STEP: i64 = 10_000;
/// The same where the time ends before now: as many again may be looked at in vain, which lie too near to its end to be told from it.
const MAX_COUNTED_BEFORE: i64 = 50_000;
/// What is counted, and what is looked at for it.
const COUNTED: &str = "SELECT id, status, url, last_error, failure_reason, failure_code, task_type, site, retry_count, execution_time, \
                       stuck_at FROM tasks";
/// Most groups of dead letters that are listed.
pub const MAX_GROUPS: i64 = 150;
/// Days of a group's trend, today included.
pub const TREND_DAYS: i32 = 14;

/// How many of the runs that match are in each status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StatusCounts {
    /// In the order of [`TaskStatus::ALL`].
    pub counts: [i64; 5],
    /// There may be more: only so many of the newest were counted, or looked through for a text.
    pub cut: Option<i64>,
}

impl StatusCounts {
    /// Runs in any status.
    pub fn all(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// Runs in this status.
    pub fn of(&self, status: TaskStatus) -> i64 {
        TaskStatus::ALL.iter().zip(self.counts).find(|(known, _)| **known == status).map_or(0, |(_, n)| n)
    }
}

/// What changes whenever something in the queue does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pulse {
    /// Waiting for a worker, a `run_at` or a retry.
    pub pending: i64,
    /// Held by a worker.
    pub running: i64,
    /// Id of the newest task.
    pub newest_run: i64,
    /// Id of the newest attempt.
    pub newest_attempt: i64,
}

/// How the queue stands now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Standing {
    /// Could be taken at once, but for the pace of their sites.
    pub ready: i64,
    /// Wait for their time, or for a retry.
    pub scheduled: i64,
    /// Held by a worker.
    pub running: i64,
    /// How long the one that has been ready for longest waits, seconds; None if none is.
    pub oldest_ready_seconds: Option<f64>,
    /// Until the next of those that wait has its time, seconds; None if none waits.
    pub next_in_seconds: Option<f64>,
}

/// How many tasks of a type are in a status that somebody may have to look after.
#[derive(Debug, Clone, PartialEq)]
pub struct Depth {
    /// Name of the automation.
    pub task_type: String,
    /// Waiting, for whatever.
    pub pending: i64,
    /// Held by a worker.
    pub running: i64,
    /// Dead letters.
    pub failed: i64,
    /// How long the one that has been ready for longest waits, seconds; 0 if none is.
    pub oldest_ready_seconds: f64,
}

/// Dead letters that failed in the same way at the same step on the same site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailureGroup {
    /// One of the eleven.
    pub failure_reason: String,
    /// Finer than the reason.
    pub failure_code: String,
    /// Where it went wrong: the step that failed, else the last one before the failure; null where no step says it.
    pub step: Option<String>,
    /// The origin.
    pub site: String,
    /// How many.
    pub n: i64,
    /// When the first of them failed.
    #[serde(serialize_with = "serialize_time")]
    #[schema(value_type = String)]
    pub first_seen: DateTime<Utc>,
    /// When the latest of them failed.
    #[serde(serialize_with = "serialize_time")]
    #[schema(value_type = String)]
    pub last_seen: DateTime<Utc>,
    /// How many of them failed on each of the last [`TREND_DAYS`] days, UTC, the oldest first, today last.
    pub trend: Vec<i64>,
    /// The newest of them.
    pub sample: i64,
    /// What it said.
    pub sample_error: Option<String>,
    /// Its newest screenshot of the failure.
    pub sample_screenshot: Option<String>,
}

/// Most runs of these that are counted.
fn most_counted(filter: &RunFilter) -> i64 {
    let timed = filter.since.is_some() || filter.until.is_some();
    match filter {
        _ if filter.failed_step.is_some() => MAX_COUNTED_BY_STEP,
        _ if filter.failure_reason.is_some() && timed => MAX_COUNTED_APART,
        _ if filter.until.is_some() => MAX_COUNTED_BEFORE,
        _ => MAX_COUNTED,
    }
}

impl Queue {
    /// How many of the runs that match `filter`, whose status is not looked at, are in each status.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn status_counts(&self, filter: &RunFilter) -> Result<StatusCounts, QueueError> {
        let filter = RunFilter { status: None, ..filter.clone() };
        let below = self.end_of_time(&filter).await?;
        // One more than is counted says that there are more; of those looked through, that there were as many as that.
        let reach = filter.reach();
        let limit = reach.unwrap_or_else(|| most_counted(&filter) + 1);
        let rows: Vec<(String, i64, i64)> = repeated(is_transient, || async {
            let mut query = QueryBuilder::new("SELECT status::text, count(*)");
            if reach.is_some() {
                query.push(" FILTER (WHERE true");
                slow_conditions(&mut query, &filter, "newest");
                query.push(")");
            }
            query.push(", count(*) FROM (").push(COUNTED);
            plain_conditions(&mut query, &filter, below);
            query.push(" ORDER BY id DESC LIMIT ").push_bind(limit).push(") newest GROUP BY status");
            query.build_query_as().fetch_all(&self.pool).await
        })
        .await?;
        let mut found = StatusCounts::default();
        for (status, count) in TaskStatus::ALL.iter().zip(&mut found.counts) {
            *count = rows.iter().find(|(name, ..)| name == status.as_str()).map_or(0, |(_, n, _)| *n);
        }
        let looked_at: i64 = rows.iter().map(|(.., n)| n).sum();
        found.cut = (looked_at >= limit).then(|| reach.unwrap_or(limit - 1));
        Ok(found)
    }

    /// What to compare with an earlier one, to know whether to look again.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn pulse(&self) -> Result<Pulse, QueueError> {
        let pulse = repeated(is_transient, || {
            sqlx::query_as!(
                Pulse,
                r#"SELECT (SELECT count(*) FROM tasks WHERE ready)
                        + (SELECT count(*) FROM tasks WHERE status = 'pending' AND NOT ready) AS "pending!",
                          (SELECT count(*) FROM tasks WHERE lease_owner IS NOT NULL) AS "running!",
                          (SELECT coalesce(max(id), 0) FROM tasks) AS "newest_run!",
                          (SELECT coalesce(max(id), 0) FROM attempts) AS "newest_attempt!""#
            )
            .fetch_one(&self.pool)
        });
        Ok(pulse.await?)
    }

    /// How the queue stands now.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn standing(&self) -> Result<Standing, QueueError> {
        let standing = repeated(is_transient, || {
            sqlx::query_as!(
                Standing,
                r#"SELECT ready.n + due.n AS "ready!", later.n AS "scheduled!",
                          (SELECT count(*) FROM tasks WHERE lease_owner IS NOT NULL) AS "running!",
                          extract(epoch FROM clock_timestamp() - least(ready.since, due.since))::float8
                              AS oldest_ready_seconds,
                          extract(epoch FROM later.next - clock_timestamp())::float8 AS next_in_seconds
                   FROM (SELECT count(*) AS n, min(run_at) AS since FROM tasks WHERE ready) ready,
                        (SELECT count(*) AS n, min(run_at) AS since
                         FROM tasks WHERE status = 'pending' AND NOT ready AND run_at <= clock_timestamp()) due,
                        (SELECT count(*) AS n, min(run_at) AS next
                         FROM tasks WHERE status = 'pending' AND NOT ready AND run_at > clock_timestamp()) later"#
            )
            .fetch_one(&self.pool)
        });
        Ok(standing.await?)
    }

    /// The depth of the queue by task type.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        let depths = repeated(is_transient, || {
            sqlx::query_as!(
                Depth,
                r#"SELECT task_type AS "task_type!", sum(pending)::bigint AS "pending!", sum(running)::bigint AS "running!",
                          sum(failed)::bigint AS "failed!",
                          greatest(0, coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0))::float8
                              AS "oldest_ready_seconds!"
                   FROM (
                       SELECT task_type, count(*) AS pending, 0 AS running, 0 AS failed, min(run_at) AS since
                       FROM tasks WHERE ready GROUP BY task_type
                       UNION ALL
                       SELECT task_type, count(*), 0, 0, min(run_at) FILTER (WHERE run_at <= clock_timestamp())
                       FROM tasks WHERE status = 'pending' AND NOT ready GROUP BY task_type
                       UNION ALL
                       SELECT task_type, 0, count(*), 0, NULL FROM tasks WHERE lease_owner IS NOT NULL GROUP BY task_type
                       UNION ALL
                       SELECT task_type, 0, 0, n, NULL FROM dead_letters()
                   ) parts GROUP BY task_type ORDER BY task_type"#
            )
            .fetch_all(&self.pool)
        });
        Ok(depths.await?)
    }

    /// The dead letters, grouped by reason, code, step and site, the largest group first: at most [`MAX_GROUPS`].
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn failure_groups(&self) -> Result<Vec<FailureGroup>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT g.failure_reason::text AS "failure_reason!", g.failure_code AS "failure_code!",
                          g.stuck_at AS "step?", g.site AS "site!",
                          g.n AS "n!", g.first_seen AS "first_seen!", g.last_seen AS "last_seen!", g.sample AS "sample!",
                          g.trend AS "trend!", t.last_error AS sample_error, shot.name AS "sample_screenshot?"
                   FROM failure_groups($1, $2) g
                   JOIN tasks t ON t.id = g.sample
                   LEFT JOIN LATERAL (
                       SELECT f.name FROM attempts a JOIN artifacts f ON f.attempt_id = a.id
                       WHERE a.task_id = g.sample AND f.kind = 'screenshot' AND f.name LIKE 'error\_%'
                       ORDER BY a.id DESC, f.name DESC LIMIT 1
                   ) shot ON true
                   ORDER BY g.n DESC, g.sample DESC"#,
                MAX_GROUPS,
                TREND_DAYS,
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let groups = rows.into_iter().map(|row| FailureGroup {
            failure_reason: row.failure_reason,
            failure_code: row.failure_code,
            step: row.step,
            site: row.site,
            n: row.n,
            first_seen: row.first_seen,
            last_seen: row.last_seen,
            trend: row.trend,
            sample: row.sample,
            sample_error: row.sample_error,
            sample_screenshot: row.sample_screenshot,
        });
        Ok(groups.collect())
    }

    /// What was done by hand to one run, the oldest first, at most 100 entries.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn trail(&self, id: TaskId) -> Result<Vec<AuditEntry>, QueueError> {
        let entries = repeated(is_transient, || {
            sqlx::query_as!(
                AuditEntry,
                "SELECT id, at, who, action, subject, details FROM audit
                 WHERE subject = $1 AND action LIKE 'run.%' ORDER BY id LIMIT 100",
                id.to_string(),
            )
            .fetch_all(&self.pool)
        });
        Ok(entries.await?)
    }
}
