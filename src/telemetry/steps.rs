//! Steps: each is a line of `steps.jsonl` and a record for the database, with the same number.
//!
//! A line is appended with one call and not synced: a step costs microseconds, also on an async thread, and a crash of
//! the process loses nothing of it. A power cut may; the file is synced when the attempt ends. A line that the disk did
//! not take comes before the next one, so that a record that ends early has no gap before its end.
//!
//! `timestamp` is when the line became true: the instant of a step without duration, the end of one with, whose
//! beginning is in `started_at`. So the timestamps of an attempt don't go back from line to line.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::bounds::{self, clean_meta, clean_text};
use super::run::json_file;
use super::{Redactor, Run};
use crate::failure::Failure;
use crate::fault;
use crate::record::{StepRecord, rfc3339};

/// Most steps that one attempt records; a loop in an automation must not fill the disk.
const MAX_STEPS: usize = 10_000;

/// The step that ends every attempt that failed.
pub(super) const RESULT_FAILED: &str = "result_failed";

/// What a step used up.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens of a language model.
    pub tokens: i64,
    /// US dollars.
    pub cost_usd: f64,
}

/// Notes that `step` happens now. It counts as failed if (and only if) `meta.failure_reason` is there and not null;
/// `meta.error` is its error then. `retry_count` is added to `meta`.
pub fn log_step(run: &Run, step: &str, meta: Value) {
    log_step_at(run, step, run.now(), meta);
}

/// Notes that `step` happened at `at`, by this machine's clock; otherwise as [`log_step`].
pub fn log_step_at(run: &Run, step: &str, at: DateTime<Utc>, meta: Value) {
    let meta = clean_meta(&run.redactor(), &meta);
    let ok = meta.get("failure_reason").is_none_or(Value::is_null);
    let error = if ok { None } else { meta.get("error").and_then(Value::as_str).map(str::to_owned) };
    let times = Times { started_at: at, finished_at: at, duration: Duration::ZERO };
    record(run, step, ok, times, Usage::default(), error, meta);
}

/// Notes that `step` reports `failure` now: adds `failure_reason`, `failure_code`, `retryable` and, where there are
/// any, `causes` to `meta`, and sets the step's error.
pub fn log_failure(run: &Run, step: &str, failure: &Failure, meta: Value) {
    let now = run.now();
    let times = Times { started_at: now, finished_at: now, duration: Duration::ZERO };
    let (error, meta) = failed(&run.redactor(), failure, &meta);
    record(run, step, false, times, Usage::default(), Some(error), meta);
}

/// A step under way; see [`Run::start_step`].
#[must_use = "a step that is dropped counts as failed"]
pub struct StepGuard {
    /// None once its line is written.
    open: Option<OpenStep>,
}

struct OpenStep {
    run: Run,
    name: String,
    meta: Value,
    started_at: DateTime<Utc>,
    begun: Instant,
}

impl std::fmt::Debug for StepGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepGuard").field("name", &self.open.as_ref().map(|open| &open.name)).finish()
    }
}

impl StepGuard {
    pub(super) fn new(run: Run, name: &str, meta: Value) -> StepGuard {
        let started_at = run.now();
        StepGuard { open: Some(OpenStep { run, name: name.to_owned(), meta, started_at, begun: Instant::now() }) }
    }

    /// Adds a field to the step's meta.
    pub fn note(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            match &mut open.meta {
                Value::Object(fields) => {
                    fields.insert(key.to_owned(), value.into());
                }
                meta => {
                    let mut fields = Map::from_iter([(key.to_owned(), value.into())]);
                    if !meta.is_null() {
                        fields.insert("value".to_owned(), meta.take());
                    }
                    *meta = Value::Object(fields);
                }
            }
        }
    }

    /// Ends the step and writes its line.
    pub fn finish(mut self, outcome: Result<(), &Failure>, usage: Usage) {
        if let Some(open) = self.open.take() {
            open.end(outcome, usage);
        }
    }
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            let failure = Failure::retryable(
                crate::failure::FailureReason::Unknown,
                "step.unfinished",
                "the attempt ended in the middle of this step",
            );
            open.end(Err(&failure), Usage::default());
        }
    }
}

impl OpenStep {
    fn end(self, outcome: Result<(), &Failure>, usage: Usage) {
        let duration = self.begun.elapsed();
        // By the monotonic clock, so that a clock that was set back can't end a step before it began.
        let finished_at = self.started_at + TimeDelta::from_std(duration).unwrap_or_default();
        let times = Times { started_at: self.started_at, finished_at, duration };
        let redactor = &self.run.redactor();
        let (error, meta) = match outcome {
            Ok(()) => (None, clean_meta(redactor, &self.meta)),
            Err(failure) => {
                let (error, meta) = failed(redactor, failure, &self.meta);
                (Some(error), meta)
            }
        };
        record(&self.run, &self.name, outcome.is_ok(), times, usage, error, meta);
    }
}

/// The last step of an attempt that could not write it itself.
pub(super) fn last_step(seq: i32, at: DateTime<Utc>, failure: &Failure, retry_count: u32) -> StepRecord {
    let (error, mut meta) = failed(&Redactor::default(), failure, &Value::Null);
    meta.insert("retry_count".to_owned(), retry_count.into());
    meta.insert("recovered".to_owned(), true.into());
    StepRecord {
        seq,
        name: RESULT_FAILED.to_owned(),
        ok: false,
        started_at: at,
        finished_at: at,
        duration: Duration::ZERO,
        tokens: 0,
        cost_usd: 0.0,
        error: Some(error),
        meta: Value::Object(meta),
    }
}

/// Error and meta of a step that reports `failure`.
fn failed(redactor: &Redactor, failure: &Failure, meta: &Value) -> (String, Map<String, Value>) {
    let mut meta = clean_meta(redactor, meta);
    meta.insert("failure_reason".to_owned(), failure.reason.as_str().into());
    meta.insert("failure_code".to_owned(), failure.code.as_ref().into());
    meta.insert("retryable".to_owned(), failure.retryable.into());
    if !failure.causes.is_empty() {
        let causes = failure.causes.iter().take(20).map(|cause| clean_text(redactor, cause).into());
        meta.insert("causes".to_owned(), Value::Array(causes.collect()));
    }
    (clean_text(redactor, &failure.message), meta)
}

#[derive(Clone, Copy)]
struct Times {
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
    duration: Duration,
}

/// A line of `steps.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    step: &'a str,
    meta: &'a Value,
    attempt: i64,
    seq: i32,
    status: &'static str,
    started_at: String,
    duration_ms: f64,
    tokens: i64,
    cost_usd: f64,
    error: Option<&'a str>,
}

fn record(
    run: &Run,
    name: &str,
    ok: bool,
    times: Times,
    usage: Usage,
    error: Option<String>,
    mut meta: Map<String, Value>,
) {
    meta.insert("retry_count".to_owned(), run.retry_count().into());
    let mut step = StepRecord {
        seq: 0,
        name: bounds::cut(name, 200).replace('\0', "\u{fffd}"),
        ok,
        started_at: times.started_at,
        finished_at: times.finished_at,
        duration: times.duration,
        tokens: usage.tokens,
        cost_usd: if usage.cost_usd.is_finite() { usage.cost_usd } else { 0.0 },
        error,
        meta: Value::Object(meta),
    };
    let mut logged = step.clone();
    fault::point!("step.{name}.before");
    run.0.add_step(MAX_STEPS, |seq| {
        step.seq = seq;
        logged.seq = seq;
        step
    });
    fault::point!("step.{name}.after");
    log(run, &logged);
}

/// A step that took time is a line of the log. What it failed of is said once, by the worker, when the attempt ends.
fn log(run: &Run, step: &StepRecord) {
    if step.finished_at == step.started_at {
        return;
    }
    let text = |key: &str| step.meta.get(key).and_then(Value::as_str);
    tracing::info!(
        event = "step.finished",
        action = if step.ok { "step_completed" } else { "step_failed" },
        run_id = run.0.task_id.0,
        step = step.name,
        step_seq = step.seq,
        duration_ms = (step.duration.as_secs_f64() * 1e6).round() / 1e3,
        tokens = step.tokens,
        cost_usd = step.cost_usd,
        retry_count = run.0.retry_count,
        failure_reason = text("failure_reason"),
        failure_code = text("failure_code"),
        "step finished"
    );
}

pub(super) fn line(step: &StepRecord, attempt: i64) -> io::Result<Vec<u8>> {
    json_file(&Line {
        timestamp: rfc3339(step.finished_at),
        step: &step.name,
        meta: &step.meta,
        attempt,
        seq: step.seq,
        status: if step.ok { "ok" } else { "failed" },
        started_at: rfc3339(step.started_at),
        duration_ms: (step.duration.as_secs_f64() * 1e6).round() / 1e3,
        tokens: step.tokens,
        cost_usd: step.cost_usd,
        error: step.error.as_deref(),
    })
}

/// Appends `line`, or nothing: what a full disk took of it is taken back.
pub(super) fn append(mut file: &File, line: &[u8]) -> io::Result<()> {
    fault::may_fail!("file.append")?;
    let written = file.write(line)?;
    if written < line.len()
        && let Err(error) = file.write_all(&line[written..])
    {
        let length = file.metadata()?.len();
        let _ = file.set_len(length.saturating_sub(written as u64));
        return Err(error);
    }
    Ok(())
}

/// A line of `steps.jsonl` as it is read back: the attempt that wrote it, its `retry_count`, and the step.
pub(super) struct Logged {
    pub(super) attempt: Option<i64>,
    pub(super) retry_count: u64,
    pub(super) step: StepRecord,
}

/// The steps of an attempt of which `lines` of `steps.jsonl` tell; what is damaged is left out.
pub fn steps_of(fence: i64, lines: &str) -> Vec<StepRecord> {
    let logged = lines.lines().filter_map(parse).filter(|logged| logged.attempt == Some(fence));
    logged.map(|logged| logged.step).collect()
}

/// Reads a line of `steps.jsonl`; None for one that is damaged. Everything but `timestamp` and `step` may be missing.
pub(super) fn parse(line: &str) -> Option<Logged> {
    let line: Value = serde_json::from_str(line).ok()?;
    let time = |key: &str| Some(DateTime::parse_from_rfc3339(line.get(key)?.as_str()?).ok()?.to_utc());
    let finished_at = time("timestamp")?;
    let number = |key: &str| line.get(key).and_then(Value::as_f64).filter(|number| *number >= 0.0).unwrap_or_default();
    let meta = line.get("meta").cloned().unwrap_or_default();
    Some(Logged {
        attempt: line.get("attempt").and_then(Value::as_i64),
        retry_count: meta.get("retry_count").and_then(Value::as_u64).unwrap_or_default(),
        step: StepRecord {
            seq: line.get("seq").and_then(Value::as_i64).and_then(|seq| i32::try_from(seq).ok()).unwrap_or_default(),
            name: line.get("step")?.as_str()?.to_owned(),
            ok: line.get("status").and_then(Value::as_str) != Some("failed"),
            started_at: time("started_at").unwrap_or(finished_at),
            finished_at,
            duration: Duration::try_from_secs_f64(number("duration_ms") / 1e3).unwrap_or_default(),
            tokens: line.get("tokens").and_then(Value::as_i64).unwrap_or_default(),
            cost_usd: number("cost_usd"),
            error: line.get("error").and_then(Value::as_str).map(str::to_owned),
            meta,
        },
    })
}
