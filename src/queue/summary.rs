//! What a time range came to: runs, success, latency, tokens, cost, by step and by failure.
//!
//! A run belongs to the range in which it was enqueued, with everything that was done for it since: so each number here is
//! that of the runs that `GET /runs?since=…` lists. Read straight from the rows.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Queue, QueueError, is_transient, repeated};

/// Fewest samples that a 95th percentile is worth giving for.
pub const MIN_SAMPLES: i64 = 20;
/// Most steps listed; the names come from the code of the automations.
const MAX_STEPS: i64 = 200;

/// From when to when: up to, not including, `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// First instant.
    pub since: DateTime<Utc>,
    /// End.
    pub until: DateTime<Utc>,
}

impl Period {
    /// The period of the same length that ends where this one begins.
    pub fn before(self) -> Period {
        Period { since: self.since - (self.until - self.since), until: self.since }
    }

    /// The period in `n` equal parts, as seconds each.
    fn part_seconds(self, parts: i32) -> f64 {
        (self.until - self.since).as_seconds_f64() / f64::from(parts.max(1))
    }
}

/// Sums over the runs of a period.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct Totals {
    /// Runs enqueued in the period, in any status.
    pub total_runs: i64,
    /// Of these, completed.
    pub completed: i64,
    /// Of these, dead letters.
    pub failed: i64,
    /// Of these, with at least one attempt that ended: what the averages are over.
    pub executed: i64,
    /// Completed of those that completed or failed, 0 to 1; None if there are none.
    pub success_rate: Option<f64>,
    /// Tokens of all their attempts.
    pub tokens: i64,
    /// US dollars of all their attempts.
    pub total_cost_usd: f64,
    /// US dollars of the attempts among them that did not succeed.
    pub wasted_cost_usd: f64,
    /// None if none was executed.
    pub avg_tokens_per_run: Option<f64>,
    /// None if none was executed.
    pub avg_cost_usd_per_run: Option<f64>,
    /// Of the last attempt of each run that completed or failed; None if there are none.
    pub avg_latency_ms: Option<f64>,
    /// As the average; None under [`MIN_SAMPLES`] runs.
    pub p95_latency_ms: Option<f64>,
}

/// One step name over all attempts of the runs of a period.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StepSummary {
    /// What it is called.
    pub name: String,
    /// How often it was taken.
    pub n: i64,
    /// Milliseconds.
    pub avg_ms: f64,
    /// Milliseconds; None under [`MIN_SAMPLES`].
    pub p95_ms: Option<f64>,
    /// 0 to 1.
    pub failure_rate: f64,
    /// How often it was taken in an attempt other than the first.
    pub retries: i64,
    /// Language-model tokens.
    pub tokens: i64,
    /// US dollars.
    pub cost_usd: f64,
}

/// How many dead letters a reason has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailureCount {
    /// One of the eleven.
    pub failure_reason: String,
    /// Runs.
    pub n: i64,
}

/// The runs of one part of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Part {
    /// Completed.
    pub completed: i64,
    /// Dead letters.
    pub failed: i64,
    /// In any other status.
    pub other: i64,
}

impl Queue {
    /// The period of this length that ends now, by Postgres' clock.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn last(&self, length: TimeDelta) -> Result<Period, QueueError> {
        let until = self.now().await?;
        Ok(Period { since: until - length, until })
    }

    /// Sums over the runs enqueued in the period.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn totals(&self, period: Period) -> Result<Totals, QueueError> {
        let row = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT count(*) AS "total!", count(*) FILTER (WHERE status = 'completed') AS "completed!",
                          count(*) FILTER (WHERE status = 'failed') AS "failed!", count(execution_time) AS "executed!",
                          coalesce(sum(tokens), 0)::bigint AS "tokens!", coalesce(sum(cost_usd), 0) AS "cost!",
                          count(execution_time) FILTER (WHERE status IN ('completed', 'failed')) AS "timed!",
                          avg(execution_time) FILTER (WHERE status IN ('completed', 'failed')) AS average,
                          percentile_cont(0.95) WITHIN GROUP (ORDER BY execution_time)
                              FILTER (WHERE status IN ('completed', 'failed')) AS p95
                   FROM tasks WHERE created_at >= $1 AND created_at < $2"#,
                period.since,
                period.until,
            )
            .fetch_one(&self.pool)
        })
        .await?;
        let wasted = repeated(is_transient, || {
            sqlx::query_scalar!(
                r#"SELECT coalesce(sum(a.cost_usd), 0) AS "wasted!"
                   FROM tasks t JOIN attempts a ON a.task_id = t.id
                   WHERE t.created_at >= $1 AND t.created_at < $2 AND a.status NOT IN ('running', 'succeeded')"#,
                period.since,
                period.until,
            )
            .fetch_one(&self.pool)
        })
        .await?;
        let ended = row.completed + row.failed;
        Ok(Totals {
            total_runs: row.total,
            completed: row.completed,
            failed: row.failed,
            executed: row.executed,
            success_rate: ratio(row.completed as f64, ended),
            tokens: row.tokens,
            total_cost_usd: row.cost,
            wasted_cost_usd: wasted,
            avg_tokens_per_run: ratio(row.tokens as f64, row.executed),
            avg_cost_usd_per_run: ratio(row.cost, row.executed),
            avg_latency_ms: row.average.map(|seconds| seconds * 1e3),
            p95_latency_ms: row.p95.filter(|_| row.timed >= MIN_SAMPLES).map(|seconds| seconds * 1e3),
        })
    }

    /// The steps of all attempts of the runs enqueued in the period, in the order in which they are usually taken.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn step_summaries(&self, period: Period) -> Result<Vec<StepSummary>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT s.name, count(*) AS "n!", avg(s.duration_ms) AS "average!",
                          percentile_cont(0.95) WITHIN GROUP (ORDER BY s.duration_ms) AS p95,
                          count(*) FILTER (WHERE NOT s.ok) AS "failed!",
                          count(*) FILTER (WHERE s.retry_count > 0) AS "retries!",
                          sum(s.tokens)::bigint AS "tokens!", sum(s.cost_usd) AS "cost!"
                   FROM tasks t JOIN attempts a ON a.task_id = t.id JOIN steps s ON s.attempt_id = a.id
                   WHERE t.created_at >= $1 AND t.created_at < $2
                   GROUP BY s.name ORDER BY avg(s.seq), s.name LIMIT $3"#,
                period.since,
                period.until,
                MAX_STEPS,
            )
            .fetch_all(&self.pool)
        })
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| StepSummary {
                name: row.name,
                n: row.n,
                avg_ms: row.average,
                p95_ms: row.p95.filter(|_| row.n >= MIN_SAMPLES),
                failure_rate: ratio(row.failed as f64, row.n).unwrap_or(0.0),
                retries: row.retries,
                tokens: row.tokens,
                cost_usd: row.cost,
            })
            .collect())
    }

    /// The dead letters among the runs enqueued in the period, by reason, the most frequent first.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn failure_counts(&self, period: Period) -> Result<Vec<FailureCount>, QueueError> {
        let counts = repeated(is_transient, || {
            sqlx::query_as!(
                FailureCount,
                r#"SELECT failure_reason::text AS "failure_reason!", count(*) AS "n!" FROM tasks
                   WHERE status = 'failed' AND created_at >= $1 AND created_at < $2
                   GROUP BY failure_reason ORDER BY count(*) DESC, failure_reason"#,
                period.since,
                period.until,
            )
            .fetch_all(&self.pool)
        });
        Ok(counts.await?)
    }

    /// The runs of the period in `parts` equal parts of it, the oldest first.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn parts(&self, period: Period, parts: i32) -> Result<Vec<Part>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT least(floor(extract(epoch FROM created_at - $1)::float8 / $3::float8)::integer, $4::integer - 1) AS "part!",
                          count(*) FILTER (WHERE status = 'completed') AS "completed!",
                          count(*) FILTER (WHERE status = 'failed') AS "failed!",
                          count(*) FILTER (WHERE status NOT IN ('completed', 'failed')) AS "other!"
                   FROM tasks WHERE created_at >= $1 AND created_at < $2 GROUP BY 1"#,
                period.since,
                period.until,
                period.part_seconds(parts),
                parts,
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let mut all = vec![Part::default(); usize::try_from(parts).unwrap_or(0)];
        for row in rows {
            if let Some(part) = usize::try_from(row.part).ok().and_then(|n| all.get_mut(n)) {
                *part = Part { completed: row.completed, failed: row.failed, other: row.other };
            }
        }
        Ok(all)
    }
}

fn ratio(of: f64, n: i64) -> Option<f64> {
    (n > 0).then(|| of / n as f64)
}
