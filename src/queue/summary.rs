//! What a time range came to: runs, success, latency, tokens, cost, by step and by failure.
//!
//! A run belongs to the range in which it was enqueued, with every attempt that was made at it since and has ended: so each
//! number here is that of the runs that `GET /runs?since=…` lists. Of few runs the rows are read and every number is exact.
//! Of more, whole hours and days come from counts ([`super::rollups`]): sums are the same, a percentile is within 1 %.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::rollups::{Reading, floor};
use super::{Queue, QueueError, is_transient, repeated};
use crate::record::serialize_time;

/// Fewest samples that a 95th percentile is worth giving for.
pub const MIN_SAMPLES: i64 = 20;
/// Up to so many runs the rows themselves are read.
pub const EXACT_RUNS: i64 = 5_000;
/// Most steps listed; the names come from the code of the automations.
const MAX_STEPS: usize = 200;
/// Ratio of the bounds of a bucket; `duration_bucket` in the schema has the same.
const GROWTH: f64 = 1.01 / 0.99;
/// The bucket of what took no time.
const NO_TIME: i16 = i16::MIN;

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
    /// Of everything that was spent; None if none completed.
    pub cost_usd_per_success: Option<f64>,
    /// Of the last attempt of each run that completed or failed; None if there are none.
    pub avg_latency_ms: Option<f64>,
    /// As the average; None under [`MIN_SAMPLES`] runs.
    pub p95_latency_ms: Option<f64>,
    /// How many runs the latencies are of.
    pub latency_samples: i64,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Part {
    /// When it begins; the first one begins before the period, the last one ends after it.
    #[serde(serialize_with = "serialize_time")]
    #[schema(value_type = String)]
    pub at: DateTime<Utc>,
    /// Completed.
    pub completed: i64,
    /// Dead letters.
    pub failed: i64,
    /// In any other status.
    pub other: i64,
    /// The dead letters by reason.
    pub failures: BTreeMap<String, i64>,
}

/// What the runs of a period came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Over all of it.
    pub totals: Totals,
    /// The dead letters by reason, the most frequent first.
    pub failures: Vec<FailureCount>,
    /// In parts that begin at whole multiples of their length, UTC; the oldest first.
    pub series: Vec<Part>,
    /// Whether the percentile is exact, not within 1 %.
    pub exact: bool,
}

/// A row of counts: of an hour, of a day or of a part of an hour.
#[derive(Debug)]
struct Counted {
    at: DateTime<Utc>,
    state: String,
    reason: Option<String>,
    n: i64,
    executed: i64,
    tokens: i64,
    cost_usd: f64,
    wasted_usd: f64,
    timed: i64,
    ms: f64,
    buckets: Option<Vec<i16>>,
    counts: Option<Vec<i64>>,
}

/// How often each bucket of duration occurred.
#[derive(Debug, Default)]
struct Histogram(BTreeMap<i16, i64>);

impl Histogram {
    fn add(&mut self, buckets: &[i16], counts: &[i64]) {
        for (bucket, n) in buckets.iter().zip(counts) {
            *self.0.entry(*bucket).or_default() += n;
        }
    }

    /// The 95th percentile within 1 %; None under [`MIN_SAMPLES`].
    fn p95(&self) -> Option<f64> {
        let n: i64 = self.0.values().sum();
        if n < MIN_SAMPLES {
            return None;
        }
        let rank = (0.95 * (n - 1) as f64).round() as i64;
        let mut before = 0;
        let found = self.0.iter().find(|(_, count)| {
            before += **count;
            before > rank
        });
        found.map(|(bucket, _)| match *bucket {
            NO_TIME => 0.0,
            bucket => 2.0 * GROWTH.powi(i32::from(bucket)) / (GROWTH + 1.0),
        })
    }
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

    /// Whether the period has so few runs that their rows are read.
    async fn is_small(&self, period: Period) -> Result<bool, QueueError> {
        let n = repeated(is_transient, || {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "n!" FROM
                   (SELECT 1 AS one FROM tasks WHERE created_at >= $1 AND created_at < $2 LIMIT $3) counted"#,
                period.since,
                period.until,
                EXACT_RUNS + 1,
            )
            .fetch_one(&self.pool)
        });
        Ok(n.await? <= EXACT_RUNS)
    }

    /// Numbers over the runs enqueued in the period, and over its parts of the length `part`: some whole hours.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn numbers(&self, period: Period, part: TimeDelta) -> Result<Numbers, QueueError> {
        let exact = self.is_small(period).await?;
        let by_day = part >= TimeDelta::days(1);
        let reading = match exact {
            true => Reading::of_rows(period),
            false => Reading::of_counts(period, self.now().await?, by_day),
        };
        let rows = self.counted(reading).await?;
        let p95 = if exact { self.exact_p95(period).await? } else { p95_of(&rows) };
        Ok(Numbers {
            totals: totals(&rows, p95),
            failures: failures(&rows),
            series: series(&rows, period, part),
            exact,
        })
    }

    async fn counted(&self, reading: Reading) -> Result<Vec<Counted>, QueueError> {
        let Reading { rows, hours, days } = reading;
        let counted = repeated(is_transient, || {
            sqlx::query_as!(
                Counted,
                r#"SELECT at AS "at!", state AS "state!", reason, n AS "n!", executed AS "executed!", tokens AS "tokens!",
                          cost_usd AS "cost_usd!", wasted_usd AS "wasted_usd!", timed AS "timed!", ms AS "ms!", buckets,
                          counts
                   FROM (
                       SELECT * FROM runs_by_hour($1, $2) WHERE $1::timestamptz < $2
                       UNION ALL
                       SELECT * FROM runs_by_hour($3, $4) WHERE $3::timestamptz < $4
                       UNION ALL
                       SELECT * FROM rollup_runs
                       WHERE grain = 'hour' AND ((at >= $5 AND at < $6) OR (at >= $7 AND at < $8))
                       UNION ALL
                       SELECT * FROM rollup_runs WHERE grain = 'day' AND at >= $9 AND at < $10
                   ) counted"#,
                rows[0].0,
                rows[0].1,
                rows[1].0,
                rows[1].1,
                hours[0].0,
                hours[0].1,
                hours[1].0,
                hours[1].1,
                days.0,
                days.1,
            )
            .fetch_all(&self.pool)
        });
        Ok(counted.await?)
    }

    async fn exact_p95(&self, period: Period) -> Result<Option<f64>, QueueError> {
        let row = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT count(execution_time) AS "n!",
                          percentile_cont(0.95) WITHIN GROUP (ORDER BY execution_time) * 1e3 AS p95
                   FROM tasks WHERE created_at >= $1 AND created_at < $2 AND status IN ('completed', 'failed')"#,
                period.since,
                period.until,
            )
            .fetch_one(&self.pool)
        })
        .await?;
        Ok(row.p95.filter(|_| row.n >= MIN_SAMPLES))
    }

    /// The steps of all ended attempts of the runs enqueued in the period, in the order in which they are usually taken: at
    /// most 200.
    ///
    /// # Errors
    /// Postgres can't be reached or takes too long.
    pub async fn step_summaries(&self, period: Period) -> Result<Vec<StepSummary>, QueueError> {
        let exact = self.is_small(period).await?;
        let reading = match exact {
            true => Reading::of_rows(period),
            false => Reading::of_counts(period, self.now().await?, true),
        };
        let Reading { rows, hours, days } = reading;
        let counted = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT name AS "name!", n AS "n!", failed AS "failed!", retries AS "retries!", tokens AS "tokens!",
                          cost_usd AS "cost_usd!", position AS "position!", ms AS "ms!", buckets AS "buckets!",
                          counts AS "counts!"
                   FROM (
                       SELECT * FROM steps_by_hour($1, $2) WHERE $1::timestamptz < $2
                       UNION ALL
                       SELECT * FROM steps_by_hour($3, $4) WHERE $3::timestamptz < $4
                       UNION ALL
                       SELECT * FROM rollup_steps
                       WHERE grain = 'hour' AND ((at >= $5 AND at < $6) OR (at >= $7 AND at < $8))
                       UNION ALL
                       SELECT * FROM rollup_steps WHERE grain = 'day' AND at >= $9 AND at < $10
                   ) counted"#,
                rows[0].0,
                rows[0].1,
                rows[1].0,
                rows[1].1,
                hours[0].0,
                hours[0].1,
                hours[1].0,
                hours[1].1,
                days.0,
                days.1,
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let mut found: BTreeMap<String, (StepSummary, f64, i64, i64, Histogram)> = BTreeMap::new();
        for row in counted {
            let empty = StepSummary {
                name: row.name.clone(),
                n: 0,
                avg_ms: 0.0,
                p95_ms: None,
                failure_rate: 0.0,
                retries: 0,
                tokens: 0,
                cost_usd: 0.0,
            };
            let (step, ms, failed, position, histogram) =
                found.entry(row.name).or_insert((empty, 0.0, 0, 0, Histogram::default()));
            step.n += row.n;
            step.retries += row.retries;
            step.tokens += row.tokens;
            step.cost_usd += row.cost_usd;
            *ms += row.ms;
            *failed += row.failed;
            *position += row.position;
            histogram.add(&row.buckets, &row.counts);
        }
        let exact_p95s = if exact { self.exact_step_p95s(period).await? } else { BTreeMap::new() };
        let mut steps: Vec<(f64, StepSummary)> = found
            .into_values()
            .map(|(step, ms, failed, position, histogram)| {
                let n = step.n.max(1) as f64;
                let p95_ms = match exact {
                    true => exact_p95s.get(&step.name).copied().filter(|_| step.n >= MIN_SAMPLES),
                    false => histogram.p95(),
                };
                let step = StepSummary { avg_ms: ms / n, p95_ms, failure_rate: failed as f64 / n, ..step };
                (position as f64 / n, step)
            })
            .collect();
        steps.sort_by(|left, right| left.0.total_cmp(&right.0).then_with(|| left.1.name.cmp(&right.1.name)));
        steps.truncate(MAX_STEPS);
        Ok(steps.into_iter().map(|(_, step)| step).collect())
    }

    async fn exact_step_p95s(&self, period: Period) -> Result<BTreeMap<String, f64>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT s.name, percentile_cont(0.95) WITHIN GROUP (ORDER BY s.duration_ms) AS "p95!"
                   FROM tasks t JOIN attempts a ON a.task_id = t.id JOIN steps s ON s.attempt_id = a.id
                   WHERE t.created_at >= $1 AND t.created_at < $2 AND a.status <> 'running' GROUP BY s.name"#,
                period.since,
                period.until,
            )
            .fetch_all(&self.pool)
        });
        Ok(rows.await?.into_iter().map(|row| (row.name, row.p95)).collect())
    }
}

fn p95_of(rows: &[Counted]) -> Option<f64> {
    let mut histogram = Histogram::default();
    for row in rows {
        if let (Some(buckets), Some(counts)) = (&row.buckets, &row.counts) {
            histogram.add(buckets, counts);
        }
    }
    histogram.p95()
}

fn totals(rows: &[Counted], p95_latency_ms: Option<f64>) -> Totals {
    let sum = |of: fn(&Counted) -> i64| rows.iter().map(of).sum::<i64>();
    let dollars = |of: fn(&Counted) -> f64| rows.iter().map(of).fold(0.0, |sum, dollars| sum + dollars);
    let in_state = |state: &str| rows.iter().filter(|row| row.state == state).map(|row| row.n).sum::<i64>();
    let (completed, failed) = (in_state("completed"), in_state("failed"));
    let (executed, tokens, timed) = (sum(|row| row.executed), sum(|row| row.tokens), sum(|row| row.timed));
    let total_cost_usd = dollars(|row| row.cost_usd);
    Totals {
        total_runs: sum(|row| row.n),
        completed,
        failed,
        executed,
        success_rate: ratio(completed as f64, completed + failed),
        tokens,
        total_cost_usd,
        wasted_cost_usd: dollars(|row| row.wasted_usd),
        avg_tokens_per_run: ratio(tokens as f64, executed),
        avg_cost_usd_per_run: ratio(total_cost_usd, executed),
        cost_usd_per_success: ratio(total_cost_usd, completed),
        avg_latency_ms: ratio(dollars(|row| row.ms), timed),
        p95_latency_ms,
        latency_samples: timed,
    }
}

fn failures(rows: &[Counted]) -> Vec<FailureCount> {
    let mut by_reason: BTreeMap<&str, i64> = BTreeMap::new();
    for row in rows {
        if let Some(reason) = &row.reason {
            *by_reason.entry(reason).or_default() += row.n;
        }
    }
    let mut counts: Vec<FailureCount> =
        by_reason.into_iter().map(|(reason, n)| FailureCount { failure_reason: reason.to_owned(), n }).collect();
    counts.sort_by_key(|count| -count.n);
    counts
}

fn series(rows: &[Counted], period: Period, length: TimeDelta) -> Vec<Part> {
    let first = floor(period.since, length);
    let begins = std::iter::successors(Some(first), |at| Some(*at + length)).take_while(|at| *at < period.until);
    let empty = |at| Part { at, completed: 0, failed: 0, other: 0, failures: BTreeMap::new() };
    let mut parts: Vec<Part> = begins.take(1_000).map(empty).collect();
    for row in rows {
        let index = (row.at - first).num_seconds() / length.num_seconds().max(1);
        let Some(part) = usize::try_from(index).ok().and_then(|index| parts.get_mut(index)) else { continue };
        match row.state.as_str() {
            "completed" => part.completed += row.n,
            "failed" => part.failed += row.n,
            _ => part.other += row.n,
        }
        if let Some(reason) = &row.reason {
            *part.failures.entry(reason.clone()).or_default() += row.n;
        }
    }
    parts
}

fn ratio(of: f64, n: i64) -> Option<f64> {
    (n > 0).then(|| of / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(ms: f64) -> i16 {
        (ms.ln() / GROWTH.ln()).ceil() as i16
    }

    #[test]
    fn the_middle_of_a_bucket_is_within_one_per_cent_of_what_is_in_it() {
        for ms in [0.002, 0.5, 1.0, 12.345, 999.0, 120_000.0] {
            let mut histogram = Histogram::default();
            histogram.add(&[bucket(ms)], &[20]);
            let p95 = histogram.p95().unwrap();
            assert!((p95 / ms - 1.0).abs() < 0.0101, "{ms}: {p95}");
        }
    }

    #[test]
    fn a_percentile_of_few_samples_is_not_given() {
        let mut histogram = Histogram::default();
        histogram.add(&[bucket(5.0)], &[MIN_SAMPLES - 1]);
        assert_eq!(histogram.p95(), None);
        histogram.add(&[NO_TIME], &[100]);
        assert_eq!(histogram.p95().map(|ms| ms < 6.0), Some(true));
    }
}
