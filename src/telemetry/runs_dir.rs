//! The root of all run directories.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::dir::Dir;
use super::reserve::RESERVE;
use crate::task::TaskId;

/// A clock that tests set.
pub(super) type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Largest DOM file, in bytes, where nothing else is said.
const DOM_LIMIT: usize = 5_000_000;

/// The root of all run directories. Cheap to clone.
#[derive(Clone)]
pub struct RunsDir {
    root: Arc<PathBuf>,
    pub(super) dom_limit: usize,
    pub(super) clock: Option<Clock>,
    /// How much of the disk is held back, in bytes.
    pub(super) reserve: u64,
}

impl fmt::Debug for RunsDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunsDir").field("root", &self.root).field("dom_limit", &self.dom_limit).finish_non_exhaustive()
    }
}

impl RunsDir {
    /// Opens `root`, making it (mode 0750) where it is missing. One that is there keeps its mode: it may be a place
    /// that the operator shares; the run directories in it are closed to others in any case.
    ///
    /// # Errors
    /// It can't be made, is no directory, or can't be written to; the message says which path and how to mend it.
    pub fn open(root: &Path) -> io::Result<RunsDir> {
        let explain = |error: io::Error| {
            let root = root.display();
            let message = format!(
                "the runs directory {root} can't be used: {error}; make it a directory that this user may write to, or name another in TELEMETRY_RUNS_DIR"
            );
            io::Error::new(error.kind(), message)
        };
        make(root).map_err(explain)?;
        let root = root.canonicalize().map_err(explain)?;
        let opened = RunsDir { root: Arc::new(root), dom_limit: DOM_LIMIT, clock: None, reserve: RESERVE };
        opened.check_writable().map_err(explain)?;
        Ok(opened)
    }

    /// The same directory with another bound on the size of a DOM file, in bytes (5,000,000 by default).
    #[must_use]
    pub fn with_dom_limit(self, bytes: usize) -> RunsDir {
        RunsDir { dom_limit: bytes, ..self }
    }

    /// The same directory with another clock than the machine's, for tests.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>) -> RunsDir {
        RunsDir { clock: Some(clock), ..self }
    }

    /// The same directory with another reserve than 64 MiB, in bytes; 0: none.
    #[must_use]
    pub fn with_reserve_of(self, bytes: u64) -> RunsDir {
        RunsDir { reserve: bytes, ..self }
    }

    /// The root, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the run of a task is recorded.
    pub fn run_path(&self, task_id: TaskId) -> PathBuf {
        self.root.join(task_id.to_string())
    }

    /// Writes and removes a small file, and takes the reserve if it was given up: whether a run could be recorded now.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// What stands in the way, for example `ENOSPC` or `EROFS`.
    pub fn check_writable(&self) -> io::Result<()> {
        let root = self.dir()?;
        root.sweep()?;
        // An empty file finds room even on a full disk.
        root.temp(&[&[b'.'; 4096]]).map(drop)?;
        self.hold_reserve(&root)
    }

    /// Bytes that are free on the file system to this user.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        Dir::open(&self.root)?.free_bytes()
    }

    /// Opens a task's directory, making it where it is missing.
    pub(super) fn run_dir(&self, task_id: TaskId) -> io::Result<Dir> {
        let root = self.dir()?;
        let (dir, made) = root.child_or_new(&task_id.to_string())?;
        if made {
            root.sync()?;
        }
        Ok(dir)
    }

    /// A task's directory, if there is one.
    pub(super) fn existing_run_dir(&self, task_id: TaskId) -> Option<Dir> {
        self.dir().ok()?.child(&task_id.to_string()).ok()
    }

    /// The root as it is now: somebody may have tidied it away since it was opened.
    pub(super) fn dir(&self) -> io::Result<Dir> {
        Dir::open(&self.root).or_else(|_| {
            make(&self.root)?;
            Dir::open(&self.root)
        })
    }
}

fn make(root: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(root)
}
