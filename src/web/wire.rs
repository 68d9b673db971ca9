//! The shapes of answers about runs: the contract with whoever scripts against the API, apart from what the queue has.
//! Secrets that a payload carries become `***` here, whatever depth they are at.

use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::queue;
use crate::record::rfc3339;
use crate::telemetry::shown_url;

/// The filters that every list of runs has, and its export, and a retry of many; `Fields::filter` reads them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is written down for the OpenAPI document; the fields are read with their own errors")]
pub struct FilterParams {
    /// One of the eleven.
    failure_reason: Option<String>,
    /// For example `nav.timeout`.
    failure_code: Option<String>,
    /// `comment` or `registration`.
    task_type: Option<String>,
    /// An origin, for example `https://example.org`.
    site: Option<String>,
    /// Enqueued at or after: RFC 3339, a day in UTC, or `24h`, `7d` ago.
    since: Option<String>,
    /// Enqueued before: RFC 3339, a day in UTC, all of which is in, or `24h`, `7d` ago.
    until: Option<String>,
    /// A number, or a part of address, error or code. As whatever no index knows (a code, a step, what is not to be), it is looked
    /// for in a number of runs at a time: a page may have few, or none, and lead on all the same.
    q: Option<String>,
    /// With at least so many attempts before the latest.
    #[param(maximum = 1_000_000)]
    min_retries: Option<u32>,
    /// In one of whose attempts the step of this name failed.
    failed_step: Option<String>,
    /// In one of whose attempts that ended a step of this name was taken; with `min_retries` in one after so many others.
    step: Option<String>,
    /// Dead letters that failed at this step; `none`: of which no step says where.
    stuck_at: Option<String>,
    /// `executed`: an attempt has ended. `wasted`: money was spent on attempts that did not succeed. `ready`, `scheduled`:
    /// pending, and could be taken at once or waits for its time.
    only: Option<String>,
    /// In none of these, with commas between them.
    not_status: Option<String>,
    /// None of these reasons.
    not_failure_reason: Option<String>,
    /// None of these codes.
    not_failure_code: Option<String>,
    /// None of these task types.
    not_task_type: Option<String>,
    /// None of these origins.
    not_site: Option<String>,
}

/// How a list is paged.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "as FilterParams")]
pub struct PageParams {
    /// 1 to 200; 50 where nothing is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of runs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunPage {
    pub runs: Vec<Run>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// A run in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Run {
    pub id: i64,
    pub task_type: String,
    /// `pending`, `running`, `completed`, `failed` or `cancelled`.
    pub status: String,
    pub url: String,
    /// Origin of `url`.
    pub site: String,
    pub campaign_id: Option<i64>,
    pub priority: i16,
    /// Attempts before the next one, or before the latest.
    pub retry_count: i32,
    pub max_retries: i32,
    /// Of the latest failure; null once it has succeeded.
    pub failure_reason: Option<String>,
    pub failure_code: Option<String>,
    pub last_error: Option<String>,
    pub created_at: String,
    /// Not before this time.
    pub run_at: String,
    /// Of the latest attempt.
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    /// Of the latest attempt that ended, seconds.
    pub execution_time: Option<f64>,
    /// Over all attempts that ended.
    pub tokens: i64,
    /// Over all attempts that ended.
    pub cost_usd: f64,
}

/// A run with everything on record.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunDetail {
    #[serde(flatten)]
    pub run: Run,
    /// What was to be typed; secrets are `***`.
    pub payload: Value,
    /// What the latest attempt gave, if it succeeded.
    pub result: Option<Value>,
    /// The latest failure with its causes.
    pub error: Option<Value>,
    pub dedupe_key: Option<String>,
    /// A person has called it off while it runs.
    pub cancel_requested: bool,
    pub traceparent: Option<String>,
    /// Of the request that enqueued it.
    pub request_id: Option<String>,
    /// From the first to the latest.
    pub attempts: Vec<Attempt>,
    /// What was done by hand, the oldest first.
    pub trail: Vec<TrailEntry>,
}

/// One execution of a task by one worker.
#[derive(Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// The attempt's id, never used twice.
    pub fence: i64,
    pub retry_count: i32,
    /// `running`, `succeeded`, `failed`, `lost`, `released` or `cancelled`.
    pub status: String,
    pub worker: String,
    pub started_at: String,
    pub finished_at: Option<String>,
    /// Seconds.
    pub execution_time: Option<f64>,
    pub failure_reason: Option<String>,
    pub failure_code: Option<String>,
    pub error: Option<String>,
    /// What it was about to submit.
    pub intent: Option<Value>,
    /// When that request was let go.
    pub let_go_at: Option<String>,
    /// What the site answered.
    pub submit_outcome: Option<Value>,
    pub tokens: i64,
    pub cost_usd: f64,
    pub steps: Vec<Step>,
    pub artifacts: Vec<Artifact>,
}

/// A step of an attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    /// Position in the attempt, from 1.
    pub seq: i32,
    pub name: String,
    /// `ok` or `failed`.
    pub status: &'static str,
    pub started_at: String,
    pub finished_at: String,
    pub duration_ms: f64,
    pub tokens: i64,
    pub cost_usd: f64,
    pub retry_count: i32,
    pub error: Option<String>,
    pub meta: Value,
}

/// A file of the run directory: `GET /runs/{id}/artifacts/{name}`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Artifact {
    pub name: String,
    /// `screenshot`, `dom`, `console`, `network`, `result`, `steps`, `init` or `report`.
    pub kind: String,
    pub bytes: i64,
}

/// Something that a person did to a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrailEntry {
    pub at: String,
    /// Name of a token, or `local`, or the user of the command line.
    pub who: String,
    /// For example `run.retry`.
    pub action: String,
    pub details: Value,
}

/// Something that a person did.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    pub id: i64,
    /// On what: a run's number, an origin, `runs`.
    pub subject: String,
    #[serde(flatten)]
    pub entry: TrailEntry,
}

impl From<queue::AuditEntry> for AuditEntry {
    fn from(entry: queue::AuditEntry) -> AuditEntry {
        AuditEntry { id: entry.id, subject: entry.subject.clone(), entry: entry.into() }
    }
}

/// What became of a task to enqueue.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enqueued {
    pub id: i64,
    /// A live task with the same dedupe key was there already: this is its number.
    pub deduplicated: bool,
}

/// What a change has made of a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct Changed {
    pub id: i64,
    /// Now. `running` after a cancel: its worker has been asked.
    pub status: &'static str,
}

/// What became of the dead letters that were to be retried.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkReport {
    /// Pending again.
    pub retried: u64,
    /// Left as they are.
    pub skipped: Skipped,
    /// Those named by id that were left as they are, and why.
    pub details: Vec<SkippedRun>,
}

/// Why runs were left as they are, counted.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Skipped {
    /// They may have been done already: send `confirm_uncertain` once somebody has looked.
    pub need_confirmation: u64,
    /// A live task has the same dedupe key.
    pub conflicts: u64,
    /// Only named by id: not `failed`.
    pub not_failed: u64,
    /// Only named by id: there is none.
    pub not_found: u64,
}

/// A run that was left as it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SkippedRun {
    pub id: i64,
    pub why: String,
}

/// How many dead letters a retry with the same filter would take.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkPreview {
    pub matching: i64,
    /// There are more than were counted.
    pub more: bool,
}

impl From<queue::RunPage> for RunPage {
    fn from(page: queue::RunPage) -> RunPage {
        RunPage {
            runs: page.runs.into_iter().map(Run::from).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
        }
    }
}

impl From<queue::RunSummary> for Run {
    fn from(run: queue::RunSummary) -> Run {
        Run {
            id: run.id,
            task_type: run.task_type,
            status: run.status,
            url: shown_url(&run.url).into_owned(),
            site: run.site,
            campaign_id: run.campaign_id,
            priority: run.priority,
            retry_count: run.retry_count,
            max_retries: run.max_retries,
            failure_reason: run.failure_reason,
            failure_code: run.failure_code,
            last_error: run.last_error,
            created_at: rfc3339(run.created_at),
            run_at: rfc3339(run.run_at),
            started_at: run.started_at.map(rfc3339),
            finished_at: run.finished_at.map(rfc3339),
            execution_time: run.execution_time,
            tokens: run.tokens,
            cost_usd: run.cost_usd,
        }
    }
}

impl RunDetail {
    /// Of a run and what was done to it by hand.
    pub fn new(detail: queue::RunDetail, trail: Vec<queue::AuditEntry>) -> RunDetail {
        RunDetail {
            run: detail.run.into(),
            payload: without_secrets(detail.payload),
            result: detail.result.map(without_secrets),
            error: detail.error.map(without_secrets),
            dedupe_key: detail.dedupe_key,
            cancel_requested: detail.cancel_requested,
            traceparent: detail.traceparent,
            request_id: detail.request_id,
            attempts: detail.attempts.into_iter().map(Attempt::from).collect(),
            trail: trail.into_iter().map(TrailEntry::from).collect(),
        }
    }
}

impl From<queue::Attempt> for Attempt {
    fn from(attempt: queue::Attempt) -> Attempt {
        Attempt {
            fence: attempt.fence,
            retry_count: attempt.retry_count,
            status: attempt.status,
            worker: attempt.worker,
            started_at: rfc3339(attempt.started_at),
            finished_at: attempt.finished_at.map(rfc3339),
            execution_time: attempt.execution_time,
            failure_reason: attempt.failure_reason,
            failure_code: attempt.failure_code,
            error: attempt.error,
            intent: attempt.intent.map(without_secrets),
            let_go_at: attempt.let_go_at.map(rfc3339),
            submit_outcome: attempt.submit_outcome.map(without_secrets),
            tokens: attempt.tokens,
            cost_usd: attempt.cost_usd,
            steps: attempt.steps.into_iter().map(Step::from).collect(),
            artifacts: attempt.artifacts.into_iter().map(Artifact::from).collect(),
        }
    }
}

impl From<queue::Step> for Step {
    fn from(step: queue::Step) -> Step {
        Step {
            seq: step.seq,
            name: step.name,
            status: step.status,
            started_at: rfc3339(step.started_at),
            finished_at: rfc3339(step.finished_at),
            duration_ms: step.duration_ms,
            tokens: step.tokens,
            cost_usd: step.cost_usd,
            retry_count: step.retry_count,
            error: step.error,
            meta: without_secrets(step.meta),
        }
    }
}

impl From<queue::Artifact> for Artifact {
    fn from(artifact: queue::Artifact) -> Artifact {
        Artifact { name: artifact.name, kind: artifact.kind, bytes: artifact.bytes }
    }
}

impl From<queue::AuditEntry> for TrailEntry {
    fn from(entry: queue::AuditEntry) -> TrailEntry {
        TrailEntry {
            at: rfc3339(entry.at),
            who: entry.who,
            action: entry.action,
            details: without_secrets(entry.details),
        }
    }
}

/// The value with `***` in place of every member that is named like a secret.
pub fn without_secrets(mut value: Value) -> Value {
    hide(&mut value);
    value
}

fn hide(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.to_ascii_lowercase();
                // `tokens` is a number of them, not one.
                let secret =
                    ["password", "passwd", "secret", "cookie", "authorization"].iter().any(|word| name.contains(word))
                        || name == "token"
                        || name.ends_with("_token");
                if secret && !member.is_null() {
                    *member = Value::String("***".to_owned());
                } else {
                    hide(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_at_any_depth_and_nothing_else_is() {
        let shown = without_secrets(json!({
            "username": "ann", "password": "x", "Password_Confirm": 1, "tokens": 12,
            "deep": [{"api_token": "y", "client_secret": {"a": 1}, "body": "my password is"}], "secret": null,
        }));
        let expected = json!({
            "username": "ann", "password": "***", "Password_Confirm": "***", "tokens": 12,
            "deep": [{"api_token": "***", "client_secret": "***", "body": "my password is"}], "secret": null,
        });
        assert_eq!(shown, expected);
    }
}
