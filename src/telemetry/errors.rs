//! What could not be written. Telemetry never hurts a task: a write that fails is counted here, by what it was and by
//! the error's name, logged once a run, and the task goes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::failure::{Failure, FailureReason};
use crate::task::TaskId;

/// Failed writes of one kind with one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteError {
    /// What was being written: `directory`, `archive`, `init`, `steps`, `dom`, `screenshot`, `console`, `network`, `report` or `result`.
    pub kind: &'static str,
    /// Name of the error number, for example `ENOSPC`; `other` where it has none.
    pub errno: &'static str,
    /// How often.
    pub count: u64,
    /// The first of them, for a person.
    pub message: String,
}

/// The failed writes of one run, an entry a kind and cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteErrors(pub Vec<WriteError>);

impl WriteErrors {
    /// Whether the disk is full, or the user's quota of it.
    pub fn disk_full(&self) -> bool {
        self.any(&["ENOSPC", "EDQUOT"])
    }

    /// Whether the directory takes no writes: mounted read-only, or not ours.
    pub fn read_only(&self) -> bool {
        self.any(&["EROFS", "EACCES", "EPERM"])
    }

    fn any(&self, errnos: &[&str]) -> bool {
        self.0.iter().any(|error| errnos.contains(&error.errno))
    }
}

/// The failed writes of this process since it began, for the metric
/// `pagehand_artifact_write_errors_total{kind,errno}`.
pub fn write_errors_total() -> Vec<WriteError> {
    locked(&TOTAL).entries().0
}

static TOTAL: Mutex<Tally> = Mutex::new(Tally(BTreeMap::new()));

#[derive(Debug, Default)]
struct Tally(BTreeMap<(&'static str, &'static str), (u64, String)>);

impl Tally {
    fn add(&mut self, kind: &'static str, errno: &'static str, message: &str) {
        self.0.entry((kind, errno)).or_insert_with(|| (0, message.to_owned())).0 += 1;
    }

    fn entries(&self) -> WriteErrors {
        let entry = |(&(kind, errno), (count, message)): (&(&'static str, &'static str), &(u64, String))| WriteError {
            kind,
            errno,
            count: *count,
            message: message.clone(),
        };
        WriteErrors(self.0.iter().map(entry).collect())
    }
}

/// The failed writes of one run as they are counted.
#[derive(Debug)]
pub(super) struct Errors {
    task_id: TaskId,
    state: Mutex<(Tally, Option<Failure>)>,
}

impl Errors {
    pub(super) fn new(task_id: TaskId) -> Self {
        Self { task_id, state: Mutex::default() }
    }

    /// Counts one; logs it if it is the run's first.
    pub(super) fn note(&self, kind: &'static str, error: &io::Error) {
        let (errno, message) = (errno_name(error), error.to_string());
        locked(&TOTAL).add(kind, errno, &message);
        let mut state = locked(&self.state);
        state.0.add(kind, errno, &message);
        if state.1.is_none() {
            state.1 = Some(failure(kind, errno, &message));
            tracing::warn!(
                event = "artifact.write_failed",
                task_id = self.task_id.0,
                kind,
                errno,
                err.msg = message,
                "a part of the run's record could not be written; the task goes on, further failures of this run are only counted"
            );
        }
    }

    pub(super) fn entries(&self) -> WriteErrors {
        locked(&self.state).0.entries()
    }

    pub(super) fn first_as_failure(&self) -> Option<Failure> {
        locked(&self.state).1.clone()
    }

    /// The cause of the first failed write of `kind`.
    pub(super) fn cause_of(&self, kind: &str) -> Option<String> {
        let state = locked(&self.state);
        state
            .0
            .0
            .iter()
            .find(|((of, _), _)| *of == kind)
            .map(|((_, errno), (_, message))| format!("{errno}: {message}"))
    }
}

fn failure(kind: &str, errno: &str, message: &str) -> Failure {
    let (code, advice, retryable) = match errno {
        "ELOOP" | "ENOTDIR" | "EISDIR" => {
            ("policy.path", "something else is in the place of the run directory; move it away", false)
        }
        "ENOSPC" | "EDQUOT" => ("infra.disk_full", "make room on the file system of the runs directory", true),
        "EIO" => ("infra.io_error", "check the disk of the runs directory", true),
        "EMFILE" | "ENFILE" | "ENOMEM" => ("infra.resources", "raise the limit on open files or memory", true),
        _ => ("infra.artifact_write", "check owner, mode and mount of the runs directory", true),
    };
    let message = format!("the run's record could not be written ({kind}: {message}); {advice}");
    if retryable {
        Failure::retryable(FailureReason::Unknown, code, message)
    } else {
        Failure::terminal(FailureReason::Unknown, code, message)
    }
}

fn errno_name(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    if error.kind() == io::ErrorKind::TimedOut {
        return "ETIMEDOUT";
    }
    let names = [
        (Errno::NOSPC, "ENOSPC"),
        (Errno::DQUOT, "EDQUOT"),
        (Errno::ROFS, "EROFS"),
        (Errno::ACCESS, "EACCES"),
        (Errno::PERM, "EPERM"),
        (Errno::IO, "EIO"),
        (Errno::LOOP, "ELOOP"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NOENT, "ENOENT"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NFILE, "ENFILE"),
        (Errno::NOMEM, "ENOMEM"),
        (Errno::FBIG, "EFBIG"),
        (Errno::STALE, "ESTALE"),
        (Errno::AGAIN, "EAGAIN"),
    ];
    let code = error.raw_os_error();
    names.iter().find(|(errno, _)| code == Some(errno.raw_os_error())).map_or("other", |(_, name)| name)
}

/// A lock whose holder panicked is still good here: every change under it is complete in itself.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
