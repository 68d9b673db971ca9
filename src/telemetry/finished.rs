//! Reads the end of an attempt back from its run directory, for whoever has to settle it in its place.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RunsDir;
use super::archive::read_json;
use super::report::logged_steps;
use super::result::{FIXED_FIELDS, listed};
use super::run::RESULT;
use super::snapshot::saved_since;
use crate::failure::{Failure, FailureReason};
use crate::record::{ArtifactRecord, StepRecord};
use crate::task::{Fence, TaskId};

/// What a worker had decided to settle when it wrote `final_result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// `completed`, `retry`, `dead`, `cancelled` or `released`.
    pub outcome: String,
    /// How long to wait before the retry, in seconds.
    pub delay_seconds: Option<f64>,
    /// The process that decided.
    pub process: String,
}

/// The end of an attempt as its run directory has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What was to be settled.
    pub decided: Decided,
    /// How long the attempt took.
    pub execution_time: Duration,
    /// None where it succeeded.
    pub failure: Option<Failure>,
    /// What else its result says.
    pub details: Map<String, Value>,
    /// All its steps.
    pub steps: Vec<StepRecord>,
    /// Its files.
    pub artifacts: Vec<ArtifactRecord>,
}

/// The end of this attempt, if it was written down; None also for one that somebody else wrote in its place.
pub async fn finished_run(dir: &RunsDir, task_id: TaskId, fence: Fence) -> Option<Finished> {
    let runs = dir.clone();
    tokio::task::spawn_blocking(move || read(&runs, task_id, fence)).await.ok().flatten()
}

fn read(runs: &RunsDir, task_id: TaskId, fence: Fence) -> Option<Finished> {
    let dir = runs.existing_run_dir(task_id)?;
    let document = read_json(&dir, RESULT)?;
    if document.get("attempt").and_then(Value::as_i64) != Some(fence.0) {
        return None;
    }
    let decided: Decided = serde_json::from_value(document.get("decided")?.clone()).ok()?;
    let mut details = document.get("result")?.as_object()?.clone();
    let execution_time = details.get("execution_time").and_then(Value::as_f64);
    let failure = failure(&details);
    details.retain(|field, _| !FIXED_FIELDS.contains(&field.as_str()));
    let started_at = chrono::DateTime::parse_from_rfc3339(document.get("started_at")?.as_str()?).ok()?;
    let saved = saved_since(&dir, &dir.names().ok()?, started_at.timestamp_millis());
    let steps = logged_steps(&dir).0.into_iter().filter(|logged| logged.attempt == Some(fence.0));
    Some(Finished {
        decided,
        execution_time: Duration::try_from_secs_f64(execution_time?).ok()?,
        failure,
        details,
        steps: steps.map(|logged| logged.step).filter(|step| step.seq > 0).collect(),
        artifacts: listed(&dir, &saved),
    })
}

fn failure(result: &Map<String, Value>) -> Option<Failure> {
    let text = |field: &str| result.get(field).and_then(Value::as_str).map(str::to_owned);
    let causes = result.get("causes").and_then(Value::as_array);
    let causes = causes.into_iter().flatten().filter_map(|cause| cause.as_str().map(str::to_owned));
    Some(Failure {
        reason: text("failure_reason")?.parse().unwrap_or(FailureReason::Unknown),
        code: text("failure_code")?.into(),
        message: text("error").unwrap_or_default(),
        retryable: result.get("retryable").and_then(Value::as_bool).unwrap_or(false),
        retry_after: None,
        causes: causes.collect(),
    })
}
