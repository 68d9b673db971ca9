//! Logs: one JSON object a line to stderr, where journald or a container's runtime takes it up; text for a person where
//! stderr is a terminal; and, if a directory is named, daily files with the same JSON.
//!
//! A line has `ts`, `level`, `msg` (constant, so that lines can be grouped by it), `event` (for example `task.failed`),
//! `service.name`, `service.version`, `pid`, `worker_id` where there is one, and the fields of the event and of the
//! spans around it (`task_id`, `attempt`, `failure_reason`, `duration_ms`, …; the innermost wins).
//!
//! A log that can't be written loses lines, never a task: writing to a file happens on a thread of its own behind a
//! bounded queue, and errors of stderr are ignored.

use std::fs::DirBuilder;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub mod exposition;
mod json;

use json::JsonLines;

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Daily files `pagehand.YYYY-MM-DD.log` go here, beside stderr; None: no files.
    pub dir: Option<PathBuf>,
    /// How many of the daily files are kept; at least one.
    pub keep_days: usize,
    /// Which events, in the notation of `tracing-subscriber`, for example `info,pagehand::queue=debug`.
    pub filter: String,
    /// JSON also where stderr is a terminal.
    pub json: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { dir: None, keep_days: 14, filter: "info".to_owned(), json: false }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be read.
    #[error("the log filter `{filter}` can't be read: {source}; write it like `info` or `info,pagehand::queue=debug`")]
    Filter {
        /// As configured.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The directory can't be made or written to.
    #[error("logs can't be written to {}: {source}; make it a directory that this user may write to, or unset logs.dir", .dir.display())]
    Directory {
        /// As configured.
        dir: PathBuf,
        /// What stands in the way.
        source: io::Error,
    },
    /// Something in this process logs already.
    #[error("logging is set up already")]
    AlreadySet,
}

/// Names the worker that this process is: `worker_id` on every further line. The first name stays.
pub fn name_worker(name: &str) {
    json::name_worker(name);
}

/// Keeps the log files being written; dropped, it writes what is still waiting.
#[derive(Debug)]
#[must_use = "when it is dropped, no more is written to the log files"]
pub struct Guard {
    _file: Option<WorkerGuard>,
}

/// Sets up logging for the process.
///
/// # Errors
/// See [`LogError`]. Nothing has been set up then.
pub fn init(settings: &LogSettings) -> Result<Guard, LogError> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|source| LogError::Filter { filter: settings.filter.clone(), source })?;
    let for_a_person = !settings.json && io::stderr().is_terminal();
    let mut writers = Vec::new();
    if !for_a_person {
        writers.push(BoxMakeWriter::new(io::stderr));
    }
    let mut file = None;
    if let Some((appender, guard)) = daily_files(settings)? {
        writers.push(BoxMakeWriter::new(appender));
        file = Some(guard);
    }
    let text =
        for_a_person.then(|| tracing_subscriber::fmt::layer().compact().with_target(false).with_writer(io::stderr));
    let lines = (!writers.is_empty()).then(|| JsonLines::new(writers));
    tracing_subscriber::registry().with(filter).with(text).with(lines).try_init().map_err(|_| LogError::AlreadySet)?;
    if !for_a_person {
        std::panic::set_hook(Box::new(log_panic));
    }
    Ok(Guard { _file: file })
}

fn daily_files(
    settings: &LogSettings,
) -> Result<Option<(tracing_appender::non_blocking::NonBlocking, WorkerGuard)>, LogError> {
    let Some(dir) = &settings.dir else { return Ok(None) };
    let refused = |source| LogError::Directory { dir: dir.clone(), source };
    DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(refused)?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("pagehand")
        .filename_suffix("log")
        .max_log_files(settings.keep_days.max(1))
        .build(dir)
        .map_err(|error| refused(io::Error::other(error)))?;
    Ok(Some(tracing_appender::non_blocking(appender)))
}

/// A panic as a line like any other. A formatted message may hold what a task was given, so only a constant one is
/// written; the place tells the rest.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>().copied();
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(
        event = "process.panic",
        err.msg = message.unwrap_or("(a formatted message, withheld)"),
        code.location = place.as_deref().unwrap_or_default(),
        thread.name = thread.name().unwrap_or_default(),
        "a part of the program panicked"
    );
}
