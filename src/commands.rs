//! What each command does. Data goes to standard output, everything else to standard error.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage.

use std::fmt;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{Cell, Color, Table};
use rustix::process::{Resource, Rlimit, setrlimit};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::devdb::DevDb;
use crate::observability::{self, LogSettings};
use crate::queue::{Queue, QueueError};
use crate::record::is_hidden;
use crate::retry::Reconnect;
use crate::seal::Keys;

pub mod demo;
pub mod doctor;
pub mod enqueue;
pub mod inspect;
pub mod map_failure;
pub mod migrate;
mod profile;
pub mod proxy;
pub mod runs;
pub mod serve;
pub mod site;
pub mod top;
pub mod worker;

/// An error in how a command was called: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Who reads the log lines of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogReader {
    /// An operator, later: what the configuration says.
    Operator,
    /// The person who waits for the command: errors only, unless the configuration says otherwise.
    Caller,
}

/// Of each thread of the runtime. Only what is used of it takes memory.
const STACK: usize = 8 << 20;

/// Loads the configuration, starts logging and a runtime, and runs `command` to its end.
///
/// # Errors
/// A [`Usage`] where the configuration can't be used, else what `command` returns.
pub fn run<F, Fut>(config: Option<&Path>, reader: LogReader, command: F) -> anyhow::Result<()>
where
    F: FnOnce(Config) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let config = Config::load(config).map_err(|error| Usage(error.to_string()))?;
    // One provider for every TLS connection; a second one would panic at run time. Err: it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = match reader {
        LogReader::Caller if config.logs.filter == LogSettings::default().filter => "error",
        LogReader::Caller | LogReader::Operator => &config.logs.filter,
    };
    let settings = LogSettings {
        dir: config.logs.dir.clone(),
        filter: filter.to_owned(),
        keep_days: config.logs.keep_days,
        json: false,
    };
    let _logs = observability::init(&settings).context("logging can't be set up")?;
    for advice in &config.advice {
        match reader {
            LogReader::Caller => eprintln!("warning: {advice}"),
            LogReader::Operator => tracing::warn!(event = "config.advice", advice, "the environment may be misspelt"),
        }
    }
    // An attempt is one deep future; unoptimised, two megabytes are close to what it takes.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build()?;
    let result = runtime.block_on(command(config));
    // Blocking work that hangs (a dead disk) must not keep a command from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

/// Prints the error, if any, and turns the result into an exit status.
pub fn finish(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if reader_is_gone(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", chain(&error));
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Whether the output could not be written because whoever read it has read enough.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let kind = kind.or_else(|| cause.downcast_ref::<serde_json::Error>()?.io_error_kind());
        kind == Some(std::io::ErrorKind::BrokenPipe)
    })
}

/// The error and its causes, without those that the one before has said already.
pub fn chain(error: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.last().is_some_and(|last| last.contains(&cause)) {
            said.push(cause);
        }
    }
    said.join(": ")
}

/// A connected queue, and the private Postgres behind it where there is one.
pub struct Database {
    /// The queue.
    pub queue: Queue,
    private: Option<Private>,
}

/// The private Postgres, and what starts it again when it was killed.
struct Private {
    server: Arc<DevDb>,
    keeper: JoinHandle<()>,
}

/// How often it is looked whether the private Postgres still runs.
const LOOK_AT_PRIVATE: Duration = Duration::from_secs(1);

impl Database {
    /// Connects to the configured Postgres, or starts the private one and brings its schema up to date.
    ///
    /// # Errors
    /// Postgres can't be reached or started, or its schema is not that of this version.
    pub async fn open(config: &Config) -> anyhow::Result<Database> {
        let keys = keys(config)?;
        let mut database = Self::open_unchecked(config).await?;
        database.queue = database.queue.with_keys(keys);
        match database.private {
            Some(_) => database.queue.migrate().await.context("the private database can't be migrated")?,
            None => database.queue.check_schema().await.map_err(with_remedy)?,
        }
        Ok(database)
    }

    /// As [`Database::open`], whatever the schema is.
    ///
    /// # Errors
    /// Postgres can't be reached or started.
    pub async fn open_unchecked(config: &Config) -> anyhow::Result<Database> {
        if let Some(url) = config.database_url().context("database.url")? {
            let queue = Queue::connect(url.expose_secret(), config.database.max_connections).await;
            let queue = queue.context("can't connect to Postgres; check DATABASE_URL or database.url")?;
            return Ok(Database { queue, private: None });
        }
        Self::start_private(config).await
    }

    /// The private Postgres with its schema up to date, whatever else is configured.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn private(config: &Config) -> anyhow::Result<Database> {
        let keys = keys(config)?;
        let mut database = Self::start_private(config).await?;
        database.queue = database.queue.with_keys(keys);
        database.queue.migrate().await.context("the private database can't be migrated")?;
        Ok(database)
    }

    async fn start_private(config: &Config) -> anyhow::Result<Database> {
        let private = DevDb::start(&config.data.dir).await?;
        let queue = Queue::connect(&private.url(), config.database.max_connections).await;
        let queue = queue.context("can't connect to the private Postgres")?;
        let server = Arc::new(private);
        let keeper = tokio::spawn(keep_up(server.clone()));
        Ok(Database { queue, private: Some(Private { server, keeper }) })
    }

    /// Closes all connections; stops the private Postgres if nobody else uses it.
    pub async fn close(self) {
        self.queue.close().await;
        let Some(Private { server, keeper }) = self.private else { return };
        keeper.abort();
        // Err: it was aborted.
        let _ = keeper.await;
        if let Some(server) = Arc::into_inner(server) {
            server.stop().await;
        }
    }
}

/// A database that is there and has no use for this user is the one error that names no remedy by itself.
fn with_remedy(error: QueueError) -> anyhow::Error {
    let lacks_rights = error.lacks_rights();
    let error = anyhow::Error::new(error);
    if lacks_rights { error.context(LACKS_RIGHTS) } else { error }
}

const LACKS_RIGHTS: &str = "this user of Postgres may not use Pagehand's tables; grant it pagehand_worker or pagehand_web, \
                            which `pagehand migrate --roles` makes";

/// The keys under which passwords are sealed, as the configuration refers to them.
///
/// # Errors
/// One can't be had, or is none; or there are older keys and none that replaced them.
pub fn keys(config: &Config) -> anyhow::Result<Keys> {
    let secrets = &config.secrets;
    let older = secrets.older_keys.iter().map(|key| key.resolve()).collect::<Result<Vec<_>, _>>();
    let older = older.context("secrets.older_keys")?;
    let Some(key) = &secrets.key else {
        anyhow::ensure!(older.is_empty(), "secrets.older_keys are given, but no secrets.key that replaced them");
        return Ok(Keys::default());
    };
    let key = key.resolve().context("secrets.key")?;
    Keys::new(&key, &older).context("what secrets.key or secrets.older_keys refer to")
}

/// Keys, tokens and passwords are in memory, and a core dump would write them out.
fn no_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(event = "process.core_dumps_on", %error, "core dumps can't be turned off");
    }
}

/// Starts the private Postgres again whenever it has ended under us.
async fn keep_up(server: Arc<DevDb>) {
    let mut waits = Reconnect::new(LOOK_AT_PRIVATE, Duration::from_secs(60));
    loop {
        let wait = match server.revive().await {
            Ok(revived) => {
                if revived {
                    tracing::warn!(event = "postgres.revived", "the private Postgres had ended; it was started again");
                }
                waits.reset();
                LOOK_AT_PRIVATE
            }
            Err(error) => {
                tracing::warn!(event = "postgres.not_revived", %error, "the private Postgres has ended and can't be started");
                waits.next_wait()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Prints one JSON document and a line break.
///
/// # Errors
/// Standard output can't be written.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print_line(json_line(value)?)
}

/// A value as JSON on one line, in which nothing but signs is left as it is: JSON allows more than a terminal should see.
///
/// # Errors
/// It has a key that is no text.
pub fn json_line(value: &impl serde::Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    if !text.contains(is_hidden) {
        return Ok(text);
    }
    let escaped = |c: char| if is_hidden(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Ok(text.chars().map(escaped).collect())
}

/// Prints a line.
///
/// # Errors
/// Standard output can't be written, for example because whoever read it has gone.
pub fn print_line(line: impl fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// A text from outside, safe to show on a terminal: what is no sign of its own is replaced.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// A table without frames, as wide as it needs to be. On a terminal it is cut to that, and states have colours unless `NO_COLOR`
/// is set.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let terminal = std::io::stdout().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    drawn(header, rows, terminal, colours)
}

fn drawn(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, fits: bool, colours: bool) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(header);
    if colours {
        table.enforce_styling();
    }
    for row in rows {
        table.add_row(row.iter().map(|text| match colour(text).filter(|_| colours) {
            Some(colour) => Cell::new(plain(text)).fg(colour),
            None => Cell::new(plain(text)),
        }));
    }
    if fits {
        table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    }
    table.trim_fmt()
}

/// Of a state of a task, an attempt or a worker; None for every other text.
fn colour(text: &str) -> Option<Color> {
    match text {
        "completed" | "succeeded" | "up" => Some(Color::Green),
        "failed" | "lost" => Some(Color::Red),
        "pending" | "released" => Some(Color::Yellow),
        "running" => Some(Color::Blue),
        "cancelled" | "stopped" => Some(Color::DarkGrey),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_shown_and_not_sent() {
        let hostile = "a\u{1b}[31m\r\n\u{7f}\u{9b}2J\u{2028}\u{202e}\u{2066}b";
        let shown = plain(hostile);
        assert!(shown.starts_with('a') && shown.ends_with('b') && !shown.contains(is_hidden), "{shown:?}");
        let line = json_line(&serde_json::json!({"title": hostile, "ü": "😀"})).unwrap();
        assert!(!line.contains(is_hidden) && line.contains("ü") && line.contains("😀"), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["title"], hostile);
        let rows = table(&["A"], [vec![hostile.to_owned()]]);
        assert!(!rows.replace('\n', "").contains(is_hidden), "{rows:?}");
    }

    #[test]
    fn states_have_colours_on_a_terminal_only_and_no_text_of_a_site_does() {
        let rows = || [vec!["completed".to_owned(), "failed".to_owned(), "failed it has".to_owned()]];
        assert!(!drawn(&["A", "B", "C"], rows(), false, false).contains('\u{1b}'));
        let coloured = drawn(&["A", "B", "C"], rows(), false, true);
        assert_eq!(coloured.matches("\u{1b}[38;5;").count(), 2, "{coloured:?}");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = std::io::Error::from(ErrorKind::BrokenPipe);
        assert!(reader_is_gone(&anyhow::Error::from(gone).context("printing")));
        let gone = serde_json::Error::io(ErrorKind::BrokenPipe.into());
        assert!(reader_is_gone(&anyhow::Error::from(gone)));
        assert!(!reader_is_gone(&anyhow::Error::from(std::io::Error::from(ErrorKind::StorageFull))));
    }
}
