//! The record of one attempt while it runs.
//!
//! What makes it safe to write: under one lock, right before each change that others can see (a file getting its name,
//! a line being appended), it is checked that the attempt still owns the directory. It does if (and only if)
//!
//! * nobody called [`Run::revoke`], and
//! * `init.json` and `final_result.json` are the files that this attempt wrote itself, or found when it began.
//!
//! The next attempt replaces the first, the reaper writes the second; so a worker that slept through the end of its
//! lease changes nothing any more, even before it learns of that from the database. A lock on the directory keeps the
//! check and the change together across processes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::archive::{archive, mend};
use super::dir::{Dir, Identity};
use super::errors::{Errors, locked};
use super::recovery::is_of_a_later_attempt;
use super::snapshot::{Saved, newest_stamp};
use super::steps::{append, line};
use super::{Redactor, RunsDir, StepGuard, WriteErrors, bounds};
use crate::failure::Failure;
use crate::fault;
use crate::record::{PageLog, StepRecord, rfc3339};
use crate::task::{Fence, TaskId};

pub(super) const INIT: &str = "init.json";
pub(super) const STEPS: &str = "steps.jsonl";
pub(super) const RESULT: &str = "final_result.json";
pub(super) const REPORT: &str = "report.html";

/// How long a task waits for the disk before it goes on without.
const DISK_PATIENCE: Duration = Duration::from_secs(15);
/// How long the beginning of an attempt waits for the end of what an earlier one has under way.
pub(super) const TAKEOVER_PATIENCE: Duration = Duration::from_secs(3);
/// How long a write waits for somebody who takes the directory over, or mends it.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);

/// What is known when an attempt starts.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// Number of the task and of its run.
    pub task_id: TaskId,
    /// Id of the attempt.
    pub fence: Fence,
    /// Attempts before this one.
    pub retry_count: u32,
    /// When the attempt started, by this machine's clock.
    pub started_at: DateTime<Utc>,
    /// `meta` of `init.json`: `task_type`, `campaign_id`, `url`, `worker`, …; `retry_count` is added. The report
    /// says "attempt n of m" if it has `max_retries`, counted from the last retry by hand if it also has `failures`.
    /// `locked_at`, by Postgres' clock, keeps an attempt that slept from taking the directory of a later one.
    pub meta: Map<String, Value>,
    /// What must not appear in any file: the account's password, the proxy's.
    pub secrets: Vec<SecretString>,
}

/// The record of one attempt while it runs. Cheap to clone. None of its methods fails: what can't be written is
/// counted, logged once, and the task goes on.
#[derive(Clone)]
pub struct Run(pub(super) Arc<Attempt>);

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("task_id", &self.0.task_id).field("fence", &self.0.fence).finish_non_exhaustive()
    }
}

pub(super) struct Attempt {
    pub(super) task_id: TaskId,
    pub(super) fence: Fence,
    pub(super) retry_count: u32,
    pub(super) started_at: DateTime<Utc>,
    /// Redacted and bounded.
    pub(super) meta: Map<String, Value>,
    /// What is kept out of the record, and what takes it out.
    hidden: Mutex<(Vec<SecretString>, Redactor)>,
    pub(super) runs: RunsDir,
    pub(super) errors: Errors,
    /// The machine's clock when the run began, and when that was by the monotonic one.
    base: (DateTime<Utc>, Instant),
    state: Mutex<State>,
}

/// What changes in the course of an attempt.
#[derive(Default)]
pub(super) struct State {
    revoked: bool,
    /// None until the directory is open; for good if it can't be opened.
    disk: Option<Arc<Disk>>,
    owned: Owned,
    /// An earlier attempt's files could not be moved away: they are not overwritten.
    pub(super) unarchived: bool,
    /// Stamp of the newest snapshot, milliseconds since 1970.
    pub(super) last_stamp: i64,
    pub(super) steps: Vec<StepRecord>,
    /// How many of `steps` the database was given.
    handed: usize,
    /// How many of `steps` are lines of `steps.jsonl`.
    logged: usize,
    /// Steps beyond the most that an attempt records.
    excess: usize,
    /// Files of snapshots, in the order of their stamps.
    pub(super) saved: Vec<Saved>,
    /// What the page said and asked for, without secrets.
    pub(super) page_log: PageLog,
    /// Snapshots that are being written on their own.
    pub(super) pending: Vec<JoinHandle<()>>,
    /// For `dom` and `screenshot`: stamp, kind of the snapshot, and why it has none.
    pub(super) missing: BTreeMap<&'static str, (i64, &'static str, String)>,
}

pub(super) struct Disk {
    pub(super) dir: Dir,
    /// Empty until it can be opened.
    pub(super) steps: OnceLock<File>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Owned {
    init: Option<Identity>,
    result: Option<Identity>,
}

impl State {
    /// Steps that are not in `steps.jsonl`.
    pub(super) fn missing_steps(&self) -> usize {
        self.excess + self.steps.len() - self.logged
    }
}

impl Attempt {
    pub(super) fn redactor(&self) -> Redactor {
        locked(&self.hidden).1.clone()
    }
}

impl Owned {
    fn of(dir: &Dir) -> Owned {
        Owned { init: dir.identity(INIT), result: dir.identity(RESULT) }
    }
}

/// `init.json`.
#[derive(Serialize)]
pub(super) struct Init<'a> {
    pub(super) task_id: TaskId,
    pub(super) started_at: String,
    pub(super) attempt: Fence,
    pub(super) meta: &'a Map<String, Value>,
}

impl Init<'_> {
    pub(super) fn write(&self, dir: &Dir) -> io::Result<()> {
        dir.put(dir.temp(&[&json_file(self)?])?, INIT)?;
        dir.sync()
    }
}

/// Begins the record of an attempt: opens or makes `runs/{task_id}/`, mends what a crash left there, moves the init and
/// final result of the attempt before to `attempts/`, and writes `init.json`. Evidence that is there is kept whatever
/// it is.
pub async fn init_run(dir: &RunsDir, start: RunStart) -> Run {
    let runs = dir.clone();
    let base = (runs.clock.as_ref().map_or_else(Utc::now, |clock| clock()), Instant::now());
    let redactor = Redactor::new(&start.secrets);
    let mut meta = bounds::clean_meta(&redactor, &Value::Object(start.meta));
    meta.insert("retry_count".to_owned(), start.retry_count.into());
    let run = Run(Arc::new(Attempt {
        task_id: start.task_id,
        fence: start.fence,
        retry_count: start.retry_count,
        started_at: start.started_at,
        meta,
        hidden: Mutex::new((start.secrets, redactor)),
        runs,
        errors: Errors::new(start.task_id),
        base,
        state: Mutex::default(),
    }));
    let attempt = run.0.clone();
    run.0.blocking("directory", move || attempt.begin()).await;
    run
}

impl Run {
    /// Number of the task and of its run.
    pub fn task_id(&self) -> TaskId {
        self.0.task_id
    }

    /// Attempts before this one.
    pub fn retry_count(&self) -> u32 {
        self.0.retry_count
    }

    /// The time of this run's clock: the machine's when the run began, carried on by the monotonic clock, so that it
    /// does not jump while the attempt lasts.
    pub fn now(&self) -> DateTime<Utc> {
        self.at(Instant::now())
    }

    /// What [`Run::now`] was, or would have been, at that instant.
    pub fn at(&self, instant: Instant) -> DateTime<Utc> {
        let (began, then) = self.0.base;
        let since = |later: Instant, earlier| TimeDelta::from_std(later.duration_since(earlier)).unwrap_or_default();
        match &self.0.runs.clock {
            Some(clock) => clock(),
            None if instant < then => began - since(then, instant),
            None => began + since(instant, then),
        }
    }

    /// Takes the run's secrets out of texts for rows, logs and answers.
    pub fn redactor(&self) -> Redactor {
        self.0.redactor()
    }

    /// From now on this is kept out of the record as well: something secret that was not known when it began.
    pub fn hide(&self, secret: SecretString) {
        if !fault::guard!("run.hide") {
            return;
        }
        let mut hidden = locked(&self.0.hidden);
        hidden.0.push(secret);
        hidden.1 = Redactor::new(&hidden.0);
    }

    /// Begins a timed step. Its line is written when the guard is finished, or dropped: then as failed.
    pub fn start_step(&self, name: &str, meta: Value) -> StepGuard {
        StepGuard::new(self.clone(), name, meta)
    }

    /// The steps that the database has not been given yet, in order. Each is given once.
    pub fn take_steps(&self) -> Vec<StepRecord> {
        let mut state = locked(&self.0.state);
        let new = state.steps[state.handed..].to_vec();
        state.handed = state.steps.len();
        new
    }

    /// All steps so far, in order.
    pub fn steps(&self) -> Vec<StepRecord> {
        locked(&self.0.state).steps.clone()
    }

    /// The lease is lost: from when this returns nothing of this attempt is written any more, not even a snapshot
    /// that is under way.
    pub fn revoke(&self) {
        if fault::guard!("run.revoke") {
            locked(&self.0.state).revoked = true;
        }
    }

    /// Whether the run was revoked, by its worker or because another attempt has taken the directory over.
    pub fn is_revoked(&self) -> bool {
        locked(&self.0.state).revoked
    }

    /// The first failed write as a failure of the task (`policy.path`, `infra.disk_full`, `infra.io_error`,
    /// `infra.resources`, `infra.artifact_write`), for a worker that does not act without evidence.
    pub fn failure_of_writing(&self) -> Option<Failure> {
        self.0.errors.first_as_failure()
    }

    /// What could not be written so far.
    pub fn write_errors(&self) -> WriteErrors {
        self.0.errors.entries()
    }
}

impl Attempt {
    fn begin(&self) {
        if let Err(error) = self.open() {
            self.errors.note("directory", &error);
        }
    }

    /// Tries once more what could not be written so far: the directory that could not be opened, the lines that a disk did
    /// not take.
    pub(super) fn catch_up(&self) {
        if self.with_state(|state| !state.revoked && state.disk.is_none()) {
            self.begin();
        }
        let mut state = locked(&self.state);
        if state.missing_steps() > state.excess {
            self.log_steps(&mut state);
        }
    }

    fn open(&self) -> io::Result<()> {
        let dir = self.runs.run_dir(self.task_id)?;
        let lock = dir.lock(true, TAKEOVER_PATIENCE);
        if is_of_a_later_attempt(&dir, self.fence, &self.meta) {
            // This process slept between the claim and here, and its task went to somebody else.
            locked(&self.state).revoked = true;
            self.note_takeover();
            return Ok(());
        }
        if lock.is_some()
            && let Err(error) = mend(&dir)
        {
            self.errors.note("archive", &error);
        }
        let archived = archive(&dir, self.retry_count);
        let unarchived = archived.is_err();
        match archived {
            Ok(()) => {
                if let Err(error) = self.write_init(&dir) {
                    self.errors.note("init", &error);
                }
            }
            Err(error) => self.errors.note("archive", &error),
        }
        let steps = dir.append(STEPS).map_err(|error| self.errors.note("steps", &error));
        let last_stamp = dir.names().map_or(0, |names| newest_stamp(&names));
        let owned = Owned::of(&dir);
        drop(lock);

        let mut state = locked(&self.state);
        state.unarchived = unarchived;
        state.last_stamp = state.last_stamp.max(last_stamp);
        state.owned = owned;
        state.disk = Some(Arc::new(Disk { dir, steps: steps.map(OnceLock::from).unwrap_or_default() }));
        Ok(())
    }

    pub(super) fn write_init(&self, dir: &Dir) -> io::Result<()> {
        let (task_id, attempt, started_at) = (self.task_id, self.fence, rfc3339(self.started_at));
        Init { task_id, started_at, attempt, meta: &self.meta }.write(dir)
    }

    /// The open directory, for what nobody can see yet.
    pub(super) fn disk(&self) -> Option<Arc<Disk>> {
        let state = locked(&self.state);
        if state.revoked { None } else { state.disk.clone() }
    }

    /// The state, for what touches no file.
    pub(super) fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut locked(&self.state))
    }

    /// Carries `change` out if the attempt still owns the directory, so that no other attempt's change comes between.
    /// None: it does not, or the directory could not be opened, or the change failed, which is counted under `kind`.
    pub(super) fn commit<T>(
        &self,
        kind: &'static str,
        change: impl FnOnce(&Disk, &mut State) -> io::Result<T>,
    ) -> Option<T> {
        self.change(&mut locked(&self.state), kind, change)
    }

    /// Numbers a step and appends its line, so that the two orders are the same.
    pub(super) fn add_step(&self, limit: usize, make: impl FnOnce(i32) -> StepRecord) {
        let mut state = locked(&self.state);
        if state.revoked {
            return;
        }
        let Some(seq) = i32::try_from(state.steps.len() + 1).ok().filter(|_| state.steps.len() < limit) else {
            state.excess += 1;
            return;
        };
        state.steps.push(make(seq));
        self.log_steps(&mut state);
    }

    /// Appends the lines of all steps that have none yet: one that the disk did not take comes before the next one, so
    /// that none is missing in the middle.
    fn log_steps(&self, state: &mut State) {
        self.change(state, "steps", |disk, state| {
            if disk.steps.get().is_none() {
                let _ = disk.steps.set(disk.dir.append(STEPS)?);
            }
            let Some(file) = disk.steps.get() else { return Ok(()) };
            let from = if fault::guard!("steps.catch_up") { state.logged } else { state.steps.len().saturating_sub(1) };
            for step in state.steps.iter().skip(from) {
                append(file, &line(step, self.fence.0)?)?;
                state.logged += 1;
            }
            Ok(())
        });
    }

    fn change<T>(
        &self,
        state: &mut State,
        kind: &'static str,
        change: impl FnOnce(&Disk, &mut State) -> io::Result<T>,
    ) -> Option<T> {
        if state.revoked {
            return None;
        }
        let disk = state.disk.clone()?;
        let Some(_lock) = disk.dir.lock(false, WRITE_PATIENCE) else {
            let held = io::Error::new(io::ErrorKind::TimedOut, "somebody else holds the run directory");
            self.errors.note(kind, &held);
            return None;
        };
        if fault::guard!("run.owner") && Owned::of(&disk.dir) != state.owned {
            state.revoked = true;
            self.note_takeover();
            return None;
        }
        match change(&disk, state) {
            Ok(done) => Some(done),
            Err(error) => {
                self.errors.note(kind, &error);
                None
            }
        }
    }

    fn note_takeover(&self) {
        tracing::warn!(
            event = "run.taken_over",
            task_id = self.task_id.0,
            attempt = self.fence.0,
            "another attempt has taken the run directory over; this one writes nothing any more"
        );
    }

    /// As [`Attempt::commit`], for a change that replaces `final_result.json`.
    pub(super) fn commit_result(&self, change: impl FnOnce(&Disk, &mut State) -> io::Result<()>) -> Option<()> {
        self.commit("result", |disk, state| {
            let done = change(disk, state);
            state.owned = Owned::of(&disk.dir);
            done
        })
    }

    /// Runs `job` off the async threads. A disk that does not answer is an error like others, counted under `kind`;
    /// the job goes on when it does answer, as far as the attempt is still allowed to.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        kind: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let error = match tokio::time::timeout(DISK_PATIENCE, tokio::task::spawn_blocking(job)).await {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => io::Error::other(error),
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "the disk did not answer in time"),
        };
        self.errors.note(kind, &error);
        None
    }
}

/// A document as it stands in a file: one line of JSON with a line feed.
pub(super) fn json_file(document: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    Ok(text)
}
