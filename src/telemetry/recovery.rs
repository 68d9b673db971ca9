//! What a crash, or an earlier attempt, left in a run directory.
//!
//! Two rules. What is valid is never touched: a torn last line is moved to `steps.jsonl.torn`, not deleted, and an earlier
//! attempt's files are moved to a directory of their own, never over others. And of two processes that come at the
//! same time (the reaper that buries an attempt, the worker that begins the next) either may be first: who comes
//! second finds the files where the first has put them.

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::archive::{ATTEMPTS, JSON_LIMIT, Owner, archive, free_place, mend, place_names, read_json, send_home};
use super::bounds::clean_meta;
use super::dir::Dir;
use super::errors::Errors;
use super::report::{self, Report};
use super::result::{Document, listed, result_fields, seconds};
use super::run::{INIT, Init, REPORT, RESULT, STEPS, TAKEOVER_PATIENCE, json_file};
use super::snapshot::saved_since;
use super::steps::{RESULT_FAILED, append, last_step, line};
use super::{Redactor, RunsDir};
use crate::failure::Failure;
use crate::fault;
use crate::record::{ArtifactRecord, PageLog, StepRecord, rfc3339};
use crate::task::{Fence, TaskId};

/// An attempt that ended without its final result, as the queue knows it.
#[derive(Debug, Clone)]
pub struct EndedAttempt {
    /// Number of the task and of its run.
    pub task_id: TaskId,
    /// Id of the attempt.
    pub fence: Fence,
    /// Attempts before it.
    pub retry_count: u32,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended: was settled, or taken back.
    pub completed_at: DateTime<Utc>,
    /// How long it took, or was held.
    pub execution_time: Duration,
    /// Why it failed, `infra.worker_lost` where its worker is gone; None where it succeeded.
    pub failure: Option<Failure>,
    /// More fields of `result`.
    pub details: Map<String, Value>,
    /// `meta` of `init.json`, used where the attempt died before it could write its own.
    pub meta: Map<String, Value>,
}

impl EndedAttempt {
    /// `result` of its `final_result.json`.
    fn fields(&self, steps: &[StepRecord]) -> Map<String, Value> {
        let details = clean_meta(&Redactor::default(), &Value::Object(self.details.clone()));
        result_fields(self.failure.as_ref(), self.execution_time, self.retry_count, steps, details)
    }
}

/// What was found of an attempt without a final result.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered {
    /// Its final result was there already: its own, or written by somebody who died before it was known.
    Finished {
        /// The whole of `final_result.json`.
        result: Value,
        /// All steps of the attempt that are in `steps.jsonl`.
        steps: Vec<StepRecord>,
        /// The files it left.
        artifacts: Vec<ArtifactRecord>,
    },
    /// Its final result was written now, from these steps and files.
    Written {
        /// All steps of the attempt that are in `steps.jsonl`, the last of them added now.
        steps: Vec<StepRecord>,
        /// The files it left.
        artifacts: Vec<ArtifactRecord>,
    },
    /// Its final result could not be written; counted and logged.
    Unwritable,
}

/// Mends the directory of an attempt and writes the final result that it could not write itself. From then on that
/// attempt's worker, should it still live, writes nothing there any more. Does no harm when called twice, or after the
/// next attempt has begun.
pub async fn recover_run(dir: &RunsDir, lost: EndedAttempt) -> Recovered {
    let (runs, errors) = (dir.clone(), Errors::new(lost.task_id));
    let job = move || {
        recover(&runs, &lost, &errors).unwrap_or_else(|error| {
            errors.note("result", &error);
            Recovered::Unwritable
        })
    };
    tokio::task::spawn_blocking(job).await.unwrap_or(Recovered::Unwritable)
}

fn recover(runs: &RunsDir, lost: &EndedAttempt, errors: &Errors) -> io::Result<Recovered> {
    let dir = runs.run_dir(lost.task_id)?;
    let lock = dir.lock(true, TAKEOVER_PATIENCE);
    let owner = Owner::of(&dir);
    let archived = match owner {
        Some(owner) if owner.is(lost) => None,
        _ => places_of(&dir, lost)?.into_iter().next(),
    };
    if archived.is_some() || owner.is_some_and(|owner| owner.is_after(lost)) {
        // The next attempt has begun, or died while it began. Its directory is not to be mended under its hands.
        drop(lock);
        return bury_in_archive(&dir, archived, lost);
    }
    if lock.is_some()
        && let Err(error) = mend(&dir)
    {
        errors.note("archive", &error);
    }
    send_home(&dir)?;
    if !Owner::of(&dir).is_some_and(|owner| owner.is(lost)) {
        archive(&dir, lost.retry_count)?;
        init_of(lost, &lost_meta(lost)).write(&dir)?;
    }
    let init: Value = read_json(&dir, INIT).unwrap_or_default();
    let own = own_result(&dir, lost);
    if let Some(result) = own.clone().filter(|result| agrees(result, lost)) {
        let saved = saved_since(&dir, &dir.names()?, started_at(&init, lost).timestamp_millis());
        return Ok(Recovered::Finished { result, steps: steps_of(&dir, lost), artifacts: listed(&dir, &saved) });
    }
    // The successor died between the two moves of [`archive`], which takes the result first. The next one moves the rest.
    let moved = |place: &Dir| own_result(place, lost).is_some_and(|it| it.get("started_at") == init.get("started_at"));
    if own.is_none()
        && let Some(place) = places_of(&dir, lost)?.into_iter().find(moved)
    {
        return bury_in_archive(&dir, Some(place), lost);
    }
    put_aside(&dir, lost)?;
    // Its worker may live after all: another file of the same content in place of its own, and it writes nothing more,
    // whatever comes of what follows.
    if let Some(content) = dir.read(INIT, JSON_LIMIT) {
        dir.put(dir.temp(&[&content])?, INIT)?;
    }
    bury(&dir, lost, &init, errors)
}

/// Writes report and final result of a lost attempt from what it left on the disk.
fn bury(dir: &Dir, lost: &EndedAttempt, init: &Value, errors: &Errors) -> io::Result<Recovered> {
    // This process can sleep at any line, so long that the next attempt does not wait for it any more.
    let ours = || !fault::guard!("recovery.owner") || Owner::of(dir).is_some_and(|owner| owner.is(lost));
    let in_archive = || bury_in_archive(dir, places_of(dir, lost)?.into_iter().next(), lost);
    if !ours() {
        return in_archive();
    }
    let started_at = started_at(init, lost);
    let mut steps = steps_of(dir, lost);
    let lost_worker = lost.failure.as_ref().is_some_and(|failure| failure.code == "infra.worker_lost");
    let none_written = steps.is_empty() && !lost_worker;
    if let Err(error) = end_steps(dir, lost, &mut steps) {
        errors.note("steps", &error);
    }
    let saved = saved_since(dir, &dir.names()?, started_at.timestamp_millis());
    let fields = lost.fields(&steps);
    let gone = "none was written before the attempt ended";
    let mut artifacts = Map::new();
    let mut missing = Vec::new();
    for what in ["dom", "screenshot"] {
        let part = match saved.iter().rfind(|saved| saved.what == what) {
            Some(saved) => json!({"status": "ok", "name": saved.name, "bytes": saved.bytes}),
            None => {
                missing.push((what, gone));
                json!({"status": "unavailable", "cause": gone})
            }
        };
        artifacts.insert(what.to_owned(), part);
    }
    // Numbers that are not there were given to lines that could not be written.
    let missing_steps = steps.iter().map(|step| i64::from(step.seq)).max().unwrap_or(0) - steps.len() as i64;
    if missing_steps > 0 || none_written {
        let cause = "they could not be written, and their worker did not live to say why";
        artifacts.insert("steps".to_owned(), json!({"status": "incomplete", "missing": missing_steps, "cause": cause}));
    }
    let meta = init.get("meta").and_then(Value::as_object).cloned().unwrap_or_default();
    let page = report::page(&Report {
        task_id: lost.task_id,
        fence: lost.fence,
        retry_count: lost.retry_count,
        meta: &meta,
        started_at,
        completed_at: lost.completed_at,
        execution_time: lost.execution_time,
        failure: lost.failure.as_ref(),
        result: &fields,
        steps: &steps,
        saved: &saved,
        page_log: &PageLog::default(),
        missing: &missing,
        earlier: report::earlier_attempts(dir, lost.fence),
    });
    let report = dir.temp(&[page.as_bytes()]);
    let result = dir.temp(&[&json_file(&document(lost, started_at, fields, artifacts))?])?;
    if !ours() {
        return in_archive();
    }
    if let Err(error) = report.and_then(|temp| dir.put(temp, REPORT)) {
        errors.note("report", &error);
    }
    if !ours() {
        return in_archive();
    }
    dir.put(result, RESULT)?;
    dir.sync()?;
    Ok(Recovered::Written { steps, artifacts: listed(dir, &saved) })
}

/// When the attempt's record began, or else the attempt.
fn started_at(init: &Value, lost: &EndedAttempt) -> DateTime<Utc> {
    let text = init.get("started_at").and_then(Value::as_str);
    text.and_then(|text| DateTime::parse_from_rfc3339(text).ok()).map_or(lost.started_at, |time| time.to_utc())
}

/// The attempt's lines of `steps.jsonl`.
fn steps_of(dir: &Dir, lost: &EndedAttempt) -> Vec<StepRecord> {
    let own = |attempt: Option<i64>, retry_count| {
        attempt.map_or(retry_count == u64::from(lost.retry_count), |attempt| attempt == lost.fence.0)
    };
    let (steps, _) = report::logged_steps(dir);
    steps.into_iter().filter(|logged| own(logged.attempt, logged.retry_count)).map(|logged| logged.step).collect()
}

/// Appends the step that ends the attempt, unless its worker got so far.
fn end_steps(dir: &Dir, lost: &EndedAttempt, steps: &mut Vec<StepRecord>) -> io::Result<()> {
    let Some(failure) = lost.failure.as_ref().filter(|_| steps.last().is_none_or(|step| step.name != RESULT_FAILED))
    else {
        return Ok(());
    };
    let seq = steps.iter().map(|step| step.seq).max().unwrap_or(0) + 1;
    // A clock that was set back must not have the last step before the one that it ends.
    let at =
        steps.iter().map(|step| step.finished_at).max().map_or(lost.completed_at, |last| last.max(lost.completed_at));
    let step = last_step(seq, at, failure, lost.retry_count);
    let file = dir.append(STEPS)?;
    append(&file, &line(&step, lost.fence.0)?)?;
    file.sync_all()?;
    steps.push(step);
    Ok(())
}

/// Where files of this attempt were moved to, if they were; more than one place only where attempts of another database
/// have the same ids.
fn places_of(dir: &Dir, lost: &EndedAttempt) -> io::Result<Vec<Dir>> {
    let attempts = match dir.child(ATTEMPTS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        attempts => attempts?,
    };
    let places = attempts.names()?.into_iter().filter_map(|name| attempts.child(&name).ok());
    Ok(places.filter(|place| Owner::of(place).is_some_and(|owner| owner.is(lost))).collect())
}

/// Completes the archived files of a lost attempt whose successor has begun already.
fn bury_in_archive(dir: &Dir, archived: Option<Dir>, lost: &EndedAttempt) -> io::Result<Recovered> {
    let (attempts, _) = dir.child_or_new(ATTEMPTS)?;
    let place = match archived {
        Some(place) => place,
        None => {
            let place = free_place(&attempts, &place_names(Some(lost.retry_count.into()), None), &[INIT, RESULT])?;
            init_of(lost, &lost_meta(lost)).write(&place)?;
            place
        }
    };
    let steps = steps_of(dir, lost);
    if let Some(result) = own_result(&place, lost).filter(|result| agrees(result, lost)) {
        return Ok(Recovered::Finished { result, steps, artifacts: Vec::new() });
    }
    put_aside(&place, lost)?;
    let document = document(lost, lost.started_at, lost.fields(&steps), Map::new());
    place.put(place.temp(&[&json_file(&document)?])?, RESULT)?;
    place.sync()?;
    attempts.sync()?;
    Ok(Recovered::Written { steps, artifacts: Vec::new() })
}

fn document(
    lost: &EndedAttempt,
    started_at: DateTime<Utc>,
    result: Map<String, Value>,
    artifacts: Map<String, Value>,
) -> Document {
    Document {
        task_id: lost.task_id,
        attempt: lost.fence,
        started_at: rfc3339(started_at),
        completed_at: rfc3339(lost.completed_at),
        execution_time: seconds(lost.execution_time),
        result,
        artifacts,
        decided: None,
    }
}

fn lost_meta(lost: &EndedAttempt) -> Map<String, Value> {
    let mut meta = clean_meta(&Redactor::default(), &Value::Object(lost.meta.clone()));
    meta.insert("retry_count".to_owned(), lost.retry_count.into());
    meta.insert("locked_at".to_owned(), rfc3339(lost.started_at).into());
    meta.insert("recovered".to_owned(), true.into());
    meta
}

fn init_of<'a>(lost: &EndedAttempt, meta: &'a Map<String, Value>) -> Init<'a> {
    Init { task_id: lost.task_id, started_at: rfc3339(lost.started_at), attempt: lost.fence, meta }
}

impl Owner {
    /// Ids of attempts are never used twice in one database; another one's may be the same, of another time. A directory
    /// without one is from elsewhere: then the count decides.
    fn is(&self, lost: &EndedAttempt) -> bool {
        match self.attempt {
            Some(attempt) => {
                let locked_at = lost.started_at.timestamp_millis();
                attempt == lost.fence.0 && self.locked_at.is_none_or(|theirs| theirs == locked_at)
            }
            None => self.retry_count == Some(lost.retry_count.into()),
        }
    }

    fn is_after(&self, lost: &EndedAttempt) -> bool {
        match self.attempt {
            Some(attempt) => attempt > lost.fence.0,
            None => self.retry_count.is_some_and(|count| count > lost.retry_count.into()),
        }
    }
}

/// Whether the directory belongs to an attempt after this one, or to this one whose worker was given up. Ids alone don't
/// say so: it may be the run of the same number from another database, which was locked earlier.
pub(super) fn is_of_a_later_attempt(dir: &Dir, fence: Fence, meta: &Map<String, Value>) -> bool {
    let Some(init) = read_json(dir, INIT) else { return false };
    let time = |meta: Option<&Value>| DateTime::parse_from_rfc3339(meta?.as_str()?).ok();
    let times = (time(init.pointer("/meta/locked_at")), time(meta.get("locked_at")));
    let (Some(attempt), (Some(theirs), Some(ours))) = (init.get("attempt").and_then(Value::as_i64), times) else {
        return false;
    };
    fault::guard!("run.later") && ((attempt > fence.0 && theirs > ours) || (attempt == fence.0 && theirs == ours))
}

fn own_result(dir: &Dir, lost: &EndedAttempt) -> Option<Value> {
    let result = read_json(dir, RESULT)?;
    let own = match result.get("attempt").and_then(Value::as_i64) {
        Some(attempt) => attempt == lost.fence.0,
        None => result.pointer("/result/retry_count").and_then(Value::as_u64) == Some(lost.retry_count.into()),
    };
    (own && result.get("result").is_some_and(Value::is_object)).then_some(result)
}

/// Whether a final result says of the attempt what its row says. The attempt may have been given up just as it wrote
/// another verdict.
fn agrees(result: &Value, lost: &EndedAttempt) -> bool {
    let code = result.pointer("/result/failure_code").and_then(Value::as_str);
    code == lost.failure.as_ref().map(|failure| failure.code.as_ref())
}

/// Keeps a final result beside the one that takes its place: a verdict that was never settled, or what can't be read.
fn put_aside(dir: &Dir, lost: &EndedAttempt) -> io::Result<()> {
    if dir.identity(RESULT).is_none() {
        return Ok(());
    }
    let kept = if own_result(dir, lost).is_some() { "unsettled" } else { "damaged" };
    // One that is there already is the first that was put aside, and says more.
    match dir.move_new(RESULT, dir, &format!("{RESULT}.{kept}")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureReason;

    fn lost(retry_count: u32, fence: i64) -> EndedAttempt {
        EndedAttempt {
            task_id: TaskId(1),
            fence: Fence(fence),
            retry_count,
            started_at: DateTime::from_timestamp_millis(1_705_314_600_000 + fence).expect("a time"),
            completed_at: DateTime::from_timestamp_millis(1_705_314_660_000 + fence).expect("a time"),
            execution_time: Duration::from_secs(60),
            failure: Some(Failure::retryable(FailureReason::Unknown, "infra.worker_lost", "the worker was lost")),
            details: Map::new(),
            meta: Map::new(),
        }
    }

    #[test]
    fn who_sleeps_until_the_next_attempt_has_begun_writes_nothing_into_its_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let runs = RunsDir::open(root.path()).expect("it opens");
        let dir = runs.run_dir(TaskId(1)).expect("it opens");
        let (first, second) = (lost(0, 7), lost(1, 8));
        init_of(&first, &lost_meta(&first)).write(&dir).expect("it is written");
        let init = read_json(&dir, INIT).expect("it is there");
        archive(&dir, 1).expect("it is moved");
        init_of(&second, &lost_meta(&second)).write(&dir).expect("it is written");
        let buried = bury(&dir, &first, &init, &Errors::new(TaskId(1))).expect("it is buried");
        assert!(matches!(buried, Recovered::Written { .. }));
        assert!(dir.identity(RESULT).is_none() && dir.identity(REPORT).is_none() && dir.identity(STEPS).is_none());
        let place = places_of(&dir, &first).expect("it can be read").remove(0);
        assert!(own_result(&place, &first).is_some());
    }
}
