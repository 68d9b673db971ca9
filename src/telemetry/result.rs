//! The end of an attempt: `report.html`, then `final_result.json`, so that whoever finds the second finds everything.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Run;
use super::archive::archive;
use super::bounds::{clean_meta, clean_text};
use super::dir::Dir;
use super::finished::Decided;
use super::report::{self, Report};
use super::run::{Attempt, INIT, REPORT, RESULT, STEPS, json_file};
use super::snapshot::{LATEST_DOM, LATEST_SCREENSHOT, Saved, all_written};
use crate::failure::Failure;
use crate::record::{ArtifactRecord, StepRecord, rfc3339};
use crate::task::{Fence, TaskId};

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct FinalResult {
    /// When, by [`Run::now`].
    pub completed_at: DateTime<Utc>,
    /// How long it took, by the monotonic clock.
    pub execution_time: Duration,
    /// None where it succeeded.
    pub failure: Option<Failure>,
    /// More fields of `result`, for example `outcome` or `comment_url`.
    pub details: Map<String, Value>,
    /// What is about to be settled, for whoever has to do it in our place; None where nobody may.
    pub decided: Option<Decided>,
}

/// `final_result.json`. `result` holds the fixed fields and the details of the automation.
#[derive(Serialize)]
pub(super) struct Document {
    pub(super) task_id: TaskId,
    pub(super) attempt: Fence,
    pub(super) started_at: String,
    pub(super) completed_at: String,
    pub(super) execution_time: f64,
    pub(super) result: Map<String, Value>,
    pub(super) artifacts: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decided: Option<Decided>,
}

/// Writes `report.html`, then `final_result.json`; both whole and on the disk when this returns. Gives the files that
/// the attempt leaves, for the table `artifacts`; none of a run that was revoked.
pub async fn finalize_run(run: &Run, result: FinalResult) -> Vec<ArtifactRecord> {
    all_written(run).await;
    let attempt = run.0.clone();
    run.0.blocking("result", move || finalize(&attempt, &result)).await.unwrap_or_default()
}

fn finalize(attempt: &Arc<Attempt>, result: &FinalResult) -> Vec<ArtifactRecord> {
    attempt.catch_up();
    let Some(disk) = attempt.disk() else { return Vec::new() };
    if attempt.with_state(|state| state.unarchived) {
        // What stood in the way may be gone by now. If not, the earlier evidence stays and ours is in the database.
        let moved = attempt.commit_result(|disk, state| {
            archive(&disk.dir, attempt.retry_count)?;
            state.unarchived = false;
            Ok(())
        });
        if moved.is_none() {
            return Vec::new();
        }
    }
    if disk.dir.identity(INIT).is_none() {
        // There was no room for it at the beginning.
        attempt.commit_result(|disk, _| attempt.write_init(&disk.dir));
    }
    if let Some(steps) = disk.steps.get()
        && let Err(error) = steps.sync_all()
    {
        attempt.errors.note("steps", &error);
    }

    let (steps, saved, page_log) =
        attempt.with_state(|state| (state.steps.clone(), state.saved.clone(), state.page_log.clone()));
    let failure = result.failure.as_ref().map(|failure| Failure {
        message: clean_text(&attempt.redactor(), &failure.message),
        causes: failure.causes.iter().take(20).map(|cause| clean_text(&attempt.redactor(), cause)).collect(),
        ..failure.clone()
    });
    let fields = result_fields(
        failure.as_ref(),
        result.execution_time,
        attempt.retry_count,
        &steps,
        clean_meta(&attempt.redactor(), &Value::Object(result.details.clone())),
    );
    let missing = attempt.with_state(|state| state.missing.clone());
    let missing: Vec<(&str, &str)> = missing.iter().map(|(what, (_, _, cause))| (*what, cause.as_str())).collect();
    let page = report::page(&Report {
        task_id: attempt.task_id,
        fence: attempt.fence,
        retry_count: attempt.retry_count,
        meta: &attempt.meta,
        started_at: attempt.started_at,
        completed_at: result.completed_at,
        execution_time: result.execution_time,
        failure: failure.as_ref(),
        result: &fields,
        steps: &steps,
        saved: &saved,
        page_log: &page_log,
        missing: &missing,
        earlier: report::earlier_attempts(&disk.dir, attempt.fence),
    });
    put(attempt, &disk.dir, REPORT, "report", page.as_bytes());

    let document = Document {
        task_id: attempt.task_id,
        attempt: attempt.fence,
        started_at: rfc3339(attempt.started_at),
        completed_at: rfc3339(result.completed_at),
        execution_time: seconds(result.execution_time),
        result: fields,
        artifacts: artifacts(attempt, &disk.dir, &saved),
        decided: result.decided.clone(),
    };
    match json_file(&document) {
        Ok(text) => put(attempt, &disk.dir, RESULT, "result", &text),
        Err(error) => attempt.errors.note("result", &error),
    }
    // Of somebody who stopped while he mended this directory, and may go on: then it is too late. Fenced: what belongs to the
    // next attempt is still being written.
    attempt.commit("result", |disk, _| disk.dir.sweep());
    if let Err(error) = disk.dir.sync() {
        attempt.errors.note("result", &error);
    }
    if attempt.disk().is_some() { listed(&disk.dir, &saved) } else { Vec::new() }
}

fn put(attempt: &Attempt, dir: &Dir, name: &str, kind: &'static str, content: &[u8]) {
    // The reserve is for the last word alone.
    let temp = match name {
        RESULT => attempt.runs.with_reserve(|| dir.temp(&[content])),
        _ => dir.temp(&[content]),
    };
    match temp {
        Ok(temp) => {
            attempt.commit_result(|_, _| dir.put(temp, name));
        }
        Err(error) => attempt.errors.note(kind, &error),
    }
}

/// What `result_fields` says of every attempt.
pub(super) const FIXED_FIELDS: &[&str] = &[
    "success",
    "failure_reason",
    "failure_code",
    "error",
    "execution_time",
    "retry_count",
    "tokens",
    "cost_usd",
    "retryable",
    "causes",
];

/// `result` of `final_result.json`. The fixed fields win over details of the same name.
pub(super) fn result_fields(
    failure: Option<&Failure>,
    execution_time: Duration,
    retry_count: u32,
    steps: &[StepRecord],
    details: Map<String, Value>,
) -> Map<String, Value> {
    let mut fields = details;
    let mut set = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    set("success", failure.is_none().into());
    set("failure_reason", failure.map(|failure| failure.reason.as_str()).into());
    set("failure_code", failure.map(|failure| failure.code.as_ref()).into());
    set("error", failure.map(|failure| failure.message.as_str()).into());
    set("execution_time", seconds(execution_time).into());
    set("retry_count", retry_count.into());
    set("tokens", steps.iter().map(|step| step.tokens).sum::<i64>().into());
    set("cost_usd", steps.iter().fold(0.0, |sum, step| sum + step.cost_usd).into());
    if let Some(failure) = failure {
        set("retryable", failure.retryable.into());
        if !failure.causes.is_empty() {
            set("causes", failure.causes.clone().into());
        }
    }
    fields
}

/// What there is of each part of the record, and why not where it is missing.
fn artifacts(attempt: &Attempt, dir: &Dir, saved: &[Saved]) -> Map<String, Value> {
    let missing = attempt.with_state(|state| state.missing.clone());
    let lost_steps = attempt.with_state(|state| state.missing_steps());
    let mut parts = Map::new();
    for what in ["dom", "screenshot"] {
        let newest = saved.iter().rfind(|saved| saved.what == what);
        let part = match (missing.get(what), newest) {
            (Some((_, snapshot, cause)), _) => json!({"status": "unavailable", "snapshot": snapshot, "cause": cause}),
            (None, Some(saved)) => json!({"status": "ok", "name": saved.name, "bytes": saved.bytes}),
            (None, None) => json!({"status": "unavailable", "cause": "the attempt ended before a page was open"}),
        };
        parts.insert(what.to_owned(), part);
    }
    if lost_steps > 0 {
        let cause = attempt.errors.cause_of("steps").unwrap_or_else(|| "more steps than are recorded".to_owned());
        parts.insert("steps".to_owned(), json!({"status": "incomplete", "missing": lost_steps, "cause": cause}));
    }
    for (kind, name) in [("init", INIT), ("report", REPORT)] {
        if let Some(cause) = attempt.errors.cause_of(kind).filter(|_| dir.identity(name).is_none()) {
            parts.insert(kind.to_owned(), json!({"status": "unavailable", "cause": cause}));
        }
    }
    parts
}

/// The files of an attempt as rows.
pub(super) fn listed(dir: &Dir, saved: &[Saved]) -> Vec<ArtifactRecord> {
    let has = |what: &str| saved.iter().any(|saved| saved.what == what);
    let fixed = [
        (INIT, "init", true),
        (STEPS, "steps", true),
        (LATEST_DOM, "dom", has("dom")),
        (LATEST_SCREENSHOT, "screenshot", has("screenshot")),
        (REPORT, "report", true),
        (RESULT, "result", true),
    ];
    let fixed = fixed.into_iter().filter(|(_, _, there)| *there).map(|(name, kind, _)| (name, kind));
    let stamped = saved.iter().map(|saved| (saved.name.as_str(), saved.what));
    fixed
        .chain(stamped)
        .filter_map(|(name, kind)| Some(ArtifactRecord { name: name.to_owned(), kind, bytes: dir.size(name)? }))
        .collect()
}

/// Seconds with milliseconds.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}
