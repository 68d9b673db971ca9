//! Reading the record: a page of runs, and one run with its attempts, steps and artifacts, in the shapes of the HTTP API.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;
use sqlx::QueryBuilder;

use super::filter::{RunFilter, conditions, plain_conditions, within_reach};
use super::{Queue, QueueError, is_transient, repeated};
use crate::record::{StepRecord, serialize_optional_time, serialize_time};
use crate::task::TaskId;

/// Most runs on a page.
pub const MAX_PAGE: u32 = 500;

/// Where the next page begins; opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub(super) i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Cursor).map_err(|_| "is no cursor; use the `next` of the page before".to_owned())
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A page of runs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Where the next page begins; null on the last one.
    pub next: Option<Cursor>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow)]
pub struct RunSummary {
    /// Number of the task and of its run.
    pub id: i64,
    /// Name of the automation.
    pub task_type: String,
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// The page.
    pub url: String,
    /// Its origin.
    pub site: String,
    /// The operator's own grouping.
    pub campaign_id: Option<i64>,
    /// Higher goes first.
    pub priority: i16,
    /// Attempts before the next one, or before the latest.
    pub retry_count: i32,
    /// How often a failed attempt may be repeated.
    pub max_retries: i32,
    /// One of the eleven, of the latest failure; null once it has succeeded.
    pub failure_reason: Option<String>,
    /// Finer than the reason.
    pub failure_code: Option<String>,
    /// For a person.
    pub last_error: Option<String>,
    /// When it was enqueued.
    #[serde(serialize_with = "serialize_time")]
    pub created_at: DateTime<Utc>,
    /// Not before this time.
    #[serde(serialize_with = "serialize_time")]
    pub run_at: DateTime<Utc>,
    /// When the latest attempt began.
    #[serde(serialize_with = "serialize_optional_time")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the task ended.
    #[serde(serialize_with = "serialize_optional_time")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Of the latest attempt that ended, seconds.
    pub execution_time: Option<f64>,
    /// Over all attempts that ended.
    pub tokens: i64,
    /// Over all attempts that ended, US dollars.
    pub cost_usd: f64,
}

/// The columns of [`RunSummary`], from whatever has those of `tasks`.
const SUMMARY: &str = "SELECT id, task_type, status::text, url, site, campaign_id, priority, retry_count, max_retries, \
     failure_reason::text, failure_code, last_error, created_at, run_at, started_at, finished_at, execution_time, \
     tokens, cost_usd FROM ";
/// The same as they are in `tasks`.
const RAW: &str = "SELECT id, task_type, status, url, site, campaign_id, priority, retry_count, max_retries, \
     failure_reason, failure_code, last_error, created_at, run_at, started_at, finished_at, execution_time, \
     tokens, cost_usd, stuck_at FROM tasks";

/// Looks where the numbers of tasks pass a time, by halves: numbers follow time but for transactions that overlap.
const END_OF_TIME: &str = "
    WITH RECURSIVE halves (low, high, n) AS (
        SELECT min(id), max(id), 0 FROM tasks
        UNION ALL
        SELECT CASE WHEN at < $1 THEN middle ELSE low END, CASE WHEN at < $1 THEN high ELSE middle END, n + 1
        FROM (SELECT low, high, n, middle,
                     (SELECT created_at FROM tasks WHERE id <= middle ORDER BY id DESC LIMIT 1) AS at
              FROM (SELECT low, high, n, low + (high - low) / 2 AS middle FROM halves) h) half
        WHERE high - low > 1 AND n < 64
    )
    SELECT high FROM halves ORDER BY n DESC LIMIT 1";
/// So many tasks may have been added while a transaction was open that adds one with an earlier time.
const OUT_OF_ORDER: i64 = 50_000;

/// A run with everything on record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunDetail {
    /// As in a list.
    #[serde(flatten)]
    pub run: RunSummary,
    /// What was to be typed, without passwords.
    pub payload: Value,
    /// What the latest attempt gave, if it succeeded.
    pub result: Option<Value>,
    /// The latest failure with its causes.
    pub error: Option<Value>,
    /// At most one live task has this key.
    pub dedupe_key: Option<String>,
    /// Whether a person has called it off while it runs.
    pub cancel_requested: bool,
    /// Trace context of whoever enqueued it.
    pub traceparent: Option<String>,
    /// Id of the HTTP request that enqueued it.
    pub request_id: Option<String>,
    /// From the first to the latest.
    pub attempts: Vec<Attempt>,
}

/// One execution of a task by one worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// The attempt's id, never used twice.
    pub fence: i64,
    /// Attempts before this one.
    pub retry_count: i32,
    /// `running`, `succeeded`, `failed`, `lost`, `released` or `cancelled`.
    pub status: String,
    /// Name of the worker.
    pub worker: String,
    /// When it began.
    #[serde(serialize_with = "serialize_time")]
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(serialize_with = "serialize_optional_time")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Seconds.
    pub execution_time: Option<f64>,
    /// One of the eleven.
    pub failure_reason: Option<String>,
    /// Finer than the reason.
    pub failure_code: Option<String>,
    /// For a person.
    pub error: Option<String>,
    /// What it was about to submit.
    pub intent: Option<Value>,
    /// When that request was let go.
    #[serde(serialize_with = "serialize_optional_time")]
    pub let_go_at: Option<DateTime<Utc>>,
    /// What the site answered.
    pub submit_outcome: Option<Value>,
    /// Language-model tokens.
    pub tokens: i64,
    /// US dollars.
    pub cost_usd: f64,
    /// In their order.
    pub steps: Vec<Step>,
    /// By name.
    pub artifacts: Vec<Artifact>,
}

/// A step of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Position in the attempt, from 1.
    pub seq: i32,
    /// What it was.
    pub name: String,
    /// `ok` or `failed`.
    pub status: &'static str,
    /// When it began.
    #[serde(serialize_with = "serialize_time")]
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(serialize_with = "serialize_time")]
    pub finished_at: DateTime<Utc>,
    /// By the worker's monotonic clock, milliseconds.
    pub duration_ms: f64,
    /// Language-model tokens.
    pub tokens: i64,
    /// US dollars.
    pub cost_usd: f64,
    /// Of its attempt.
    pub retry_count: i32,
    /// What went wrong.
    pub error: Option<String>,
    /// Everything else.
    pub meta: Value,
}

impl Step {
    /// A step that is not a row yet.
    pub fn of_attempt(retry_count: i32, step: StepRecord) -> Step {
        Step {
            seq: step.seq,
            name: step.name,
            status: if step.ok { "ok" } else { "failed" },
            started_at: step.started_at,
            finished_at: step.finished_at,
            duration_ms: step.duration.as_secs_f64() * 1e3,
            tokens: step.tokens,
            cost_usd: step.cost_usd,
            retry_count,
            error: step.error,
            meta: step.meta,
        }
    }
}

/// A file of the run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// File name, relative to the run directory.
    pub name: String,
    /// `screenshot`, `dom`, `console`, `network`, `result`, `steps`, `init` or `report`.
    pub kind: String,
    /// Size in bytes.
    pub bytes: i64,
}

impl Queue {
    /// The runs that match, newest first: at most `limit` (cut to [`MAX_PAGE`], at least 1), after `cursor` if given. What no
    /// index knows is looked for in so many runs at a time as [`RunFilter::reach`] says: a page may have few runs, or none, and
    /// lead on all the same.
    ///
    /// # Errors
    /// Postgres can't be reached, or takes too long to find what `q` asks for.
    pub async fn runs(&self, filter: &RunFilter, cursor: Option<Cursor>, limit: u32) -> Result<RunPage, QueueError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let below = cursor.map_or(i64::MAX, |cursor| cursor.0).min(self.end_of_time(filter).await?);
        let mut runs: Vec<RunSummary> = repeated(is_transient, || async {
            let mut query = QueryBuilder::new(SUMMARY);
            within_reach(&mut query, RAW, filter, below);
            query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit) + 1);
            query.build_query_as().fetch_all(&self.pool).await
        })
        .await?;
        let more = runs.len() > limit as usize;
        runs.truncate(limit as usize);
        let next = match more {
            true => runs.last().map(|run| run.id),
            false => self.end_of_reach(filter, below).await?,
        };
        Ok(RunPage { next: next.map(Cursor), runs })
    }

    /// A number above all that were given before `filter.until`: what is newer is not even looked at. [`i64::MAX`] where it does
    /// not say.
    pub(super) async fn end_of_time(&self, filter: &RunFilter) -> Result<i64, QueueError> {
        let Some(until) = filter.until else { return Ok(i64::MAX) };
        let found: Option<i64> =
            repeated(is_transient, || sqlx::query_scalar(END_OF_TIME).bind(until).fetch_one(&self.pool)).await?;
        Ok(found.map_or(i64::MAX, |id| id.saturating_add(OUT_OF_ORDER)))
    }

    /// The last run that was looked at, if there are others after it.
    pub(super) async fn end_of_reach(&self, filter: &RunFilter, below: i64) -> Result<Option<i64>, QueueError> {
        let Some(reach) = filter.reach() else { return Ok(None) };
        let last = repeated(is_transient, || async {
            let mut query = QueryBuilder::new("SELECT id FROM tasks");
            plain_conditions(&mut query, filter, below);
            query.push(" ORDER BY id DESC OFFSET ").push_bind(reach - 1).push(" LIMIT 1");
            query.build_query_scalar().fetch_optional(&self.pool).await
        });
        Ok(last.await?)
    }

    /// The screenshot that says most of each of these runs, by the run's number: of its latest attempt that has one, that of
    /// the error, else the last one. At most [`MAX_PAGE`] runs are looked at.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn screenshots(&self, ids: &[i64]) -> Result<HashMap<i64, String>, QueueError> {
        let ids = &ids[..ids.len().min(MAX_PAGE as usize)];
        let rows = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT DISTINCT ON (a.task_id) a.task_id, f.name
                   FROM attempts a JOIN artifacts f ON f.attempt_id = a.id
                   WHERE a.task_id = ANY ($1) AND f.kind = 'screenshot' AND f.name LIKE '%\_screenshot\_%'
                   ORDER BY a.task_id, a.id DESC, f.name LIKE 'error\_%' DESC, f.name LIKE 'final\_%' DESC, f.name DESC"#,
                ids
            )
            .fetch_all(&self.pool)
        });
        Ok(rows.await?.into_iter().map(|row| (row.task_id, row.name)).collect())
    }

    /// Ids of the tasks that match, from the newest below `below`.
    pub(super) async fn matching(&self, filter: &RunFilter, below: i64, limit: i64) -> Result<Vec<i64>, QueueError> {
        let ids = repeated(is_transient, || async {
            let mut query = QueryBuilder::new("SELECT id FROM tasks");
            conditions(&mut query, filter, below, limit);
            query.build_query_scalar().fetch_all(&self.pool).await
        });
        Ok(ids.await?)
    }

    /// A run with all its attempts.
    ///
    /// # Errors
    /// [`QueueError::NoSuchTask`], or Postgres can't be reached.
    pub async fn run(&self, id: TaskId) -> Result<RunDetail, QueueError> {
        let run: Option<RunSummary> = repeated(is_transient, || async {
            let mut query = QueryBuilder::new(SUMMARY);
            query.push("tasks WHERE id = ").push_bind(id.0);
            query.build_query_as().fetch_optional(&self.pool).await
        })
        .await?;
        let rest = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT shown_payload(id) AS "payload!", result::text, error::text, dedupe_key, cancel_requested,
                          traceparent::text, request_id
                   FROM tasks WHERE id = $1"#,
                id.0
            )
            .fetch_optional(&self.pool)
        })
        .await?;
        let (Some(run), Some(rest)) = (run, rest) else { return Err(QueueError::NoSuchTask(id)) };
        Ok(RunDetail {
            run,
            payload: value(&rest.payload),
            result: rest.result.as_deref().map(value),
            error: rest.error.as_deref().map(value),
            dedupe_key: rest.dedupe_key,
            cancel_requested: rest.cancel_requested,
            traceparent: rest.traceparent,
            request_id: rest.request_id,
            attempts: self.attempts(id).await?,
        })
    }

    async fn attempts(&self, id: TaskId) -> Result<Vec<Attempt>, QueueError> {
        let attempts = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT id, retry_count, status::text AS "status!", worker, started_at, finished_at, execution_time,
                          failure_reason::text, failure_code, error, intent::text, let_go_at, submit_outcome::text,
                          tokens, cost_usd
                   FROM attempts WHERE task_id = $1 ORDER BY id"#,
                id.0
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let fences: Vec<i64> = attempts.iter().map(|attempt| attempt.id).collect();
        let mut steps = self.steps(&fences).await?;
        let mut artifacts = self.artifacts(&fences).await?;
        Ok(attempts
            .into_iter()
            .map(|row| Attempt {
                fence: row.id,
                retry_count: row.retry_count,
                status: row.status,
                worker: row.worker,
                started_at: row.started_at,
                finished_at: row.finished_at,
                execution_time: row.execution_time,
                failure_reason: row.failure_reason,
                failure_code: row.failure_code,
                error: row.error,
                intent: row.intent.as_deref().map(value),
                let_go_at: row.let_go_at,
                submit_outcome: row.submit_outcome.as_deref().map(value),
                tokens: row.tokens,
                cost_usd: row.cost_usd,
                steps: steps.remove(&row.id).unwrap_or_default(),
                artifacts: artifacts.remove(&row.id).unwrap_or_default(),
            })
            .collect())
    }

    async fn steps(&self, fences: &[i64]) -> Result<HashMap<i64, Vec<Step>>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT attempt_id, seq, name, ok, started_at, finished_at, duration_ms, tokens, cost_usd, retry_count,
                          error, meta::text AS "meta!"
                   FROM steps WHERE attempt_id = ANY ($1) ORDER BY attempt_id, seq"#,
                fences
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let mut steps: HashMap<i64, Vec<Step>> = HashMap::new();
        for row in rows {
            steps.entry(row.attempt_id).or_default().push(Step {
                seq: row.seq,
                name: row.name,
                status: if row.ok { "ok" } else { "failed" },
                started_at: row.started_at,
                finished_at: row.finished_at,
                duration_ms: row.duration_ms,
                tokens: row.tokens,
                cost_usd: row.cost_usd,
                retry_count: row.retry_count,
                error: row.error,
                meta: value(&row.meta),
            });
        }
        Ok(steps)
    }

    async fn artifacts(&self, fences: &[i64]) -> Result<HashMap<i64, Vec<Artifact>>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query!(
                "SELECT attempt_id, name, kind, bytes FROM artifacts WHERE attempt_id = ANY ($1) ORDER BY attempt_id, name",
                fences
            )
            .fetch_all(&self.pool)
        })
        .await?;
        let mut artifacts: HashMap<i64, Vec<Artifact>> = HashMap::new();
        for row in rows {
            let artifact = Artifact { name: row.name, kind: row.kind, bytes: row.bytes };
            artifacts.entry(row.attempt_id).or_default().push(artifact);
        }
        Ok(artifacts)
    }
}

/// JSON that Postgres holds and we may be unable to is shown as its text.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
