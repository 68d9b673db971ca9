//! The queue: tasks, leases and fences in Postgres. All SQL of the program is in this module and in `migrations/`.
//!
//! A worker *claims* tasks, which opens an attempt of each. The attempt's id is the *fence*: it is never used twice and
//! stands, with the task's id and the status `running`, in the predicate of every write that the attempt makes. The
//! right to the task is a *lease* until a time by Postgres' clock; it is *renewed* while the work goes on, and the attempt
//! ends when it is *settled*. A worker that is gone does not renew: whoever looks next *reaps* its task, and from then on
//! nothing that the old attempt sends changes anything, because its fence is not the task's any more.
//!
//! How it can go wrong, and what is done about it:
//! - An answer is lost after the commit. Every write can be sent again: a settlement finds its own attempt settled and
//!   says [`Settled::Done`], a claim finds what it took by its number, the others write the same values again. They are
//!   sent again here, within [`RETRY_FOR`]; after that the error is the caller's.
//! - A row can't be written. A batch is then sent row by row, so that the others are not held up by it.
//! - The connection is dead and nobody says so. Every statement has a deadline on both sides.
//! - A notification is lost. They are hints: a worker polls as well ([`wake`]).
//!
//! Considered and rejected: holding a transaction open while the browser works (it pins the horizon, and a lost
//! connection would give the task away unfenced); counting a site's slots in a column (a crash leaks them).

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use tokio::time::Instant;

use crate::fault;
use crate::retry::Reconnect;
use crate::seal::Keys;
use crate::task::{Fence, Lease, Task, TaskId, TaskStatus};

mod attempt;
mod audit;
mod claim;
mod clean;
mod counts;
mod enqueue;
mod filter;
mod idempotency;
mod operate;
mod presence;
mod profiles;
mod proxies;
mod reap;
mod records;
mod robots;
mod rollups;
mod runs;
mod schema;
mod sealing;
mod settle;
mod sites;
mod spending;
mod summary;
pub mod wake;
mod watch;

pub use audit::AuditEntry;
pub use counts::{Depth, FailureGroup, MAX_COUNTED, MAX_GROUPS, Pulse, Standing, StatusCounts, TREND_DAYS};
pub use filter::{NOWHERE, Only, REACH, RunFilter, Without, instant_from, instant_to, time_from, time_to};
pub use idempotency::{Once, RequestKey};
pub use operate::BulkRetry;
pub use presence::Presence;
pub use proxies::{NewProxy, Proxy, ProxyId};
pub use reap::{Lapsed, Reaped};
pub use records::{OwedEnd, OwedRecord};
pub use robots::KeptRobots;
pub use runs::{Artifact, Attempt, Cursor, RunDetail, RunPage, RunSummary, Step};
pub use sealing::{Kept, Resealed};
pub use settle::{Outcome, Settled, Settlement, SettlementRecord};
pub use spending::Spending;
pub use summary::{EXACT_RUNS, FailureCount, MIN_SAMPLES, Numbers, Part, Period, StepSummary, Totals};
pub use watch::{AttemptNews, WorkerNow, WorkerTask};

/// How long a statement is sent again after a fault that may pass, before the error goes to the caller.
pub const RETRY_FOR: Duration = Duration::from_secs(5);
/// Longest time that any one statement may take, its way there and back included.
const STATEMENT_LIMIT: Duration = Duration::from_secs(35);
/// How long a change of the schema may take; on a big table that is long.
const MIGRATE_LIMIT: Duration = Duration::from_secs(3600);
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A handle to the queue; cheap to clone, all clones share their connections.
#[derive(Debug, Clone)]
pub struct Queue {
    pub(crate) pool: PgPool,
    /// The site that this process served last: the next claim begins at the one after it.
    turn: Arc<Mutex<String>>,
    /// Seals what tasks keep secret.
    keys: Arc<Keys>,
}

/// Errors of the queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Postgres can't be reached, or refuses; see [`QueueError::is_transient`].
    #[error("postgres: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date, or is newer than this program.
    #[error("the schema could not be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The task has been given to another attempt, has ended or is gone.
    #[error("the lease on task {} was lost", .0.task_id)]
    LeaseLost(Lease),
    /// The task is still ours, and a person has called it off.
    #[error("task {} is being cancelled", .0.task_id)]
    CancelRequested(Lease),
    /// Its site may not be acted on any more: the enrolment was removed or ran out, or somebody stopped the site.
    #[error("{}", .0.as_str())]
    SiteRefused(SiteRefusal),
    /// The secrets of this queue are sealed, and this process has no key to do so.
    #[error(
        "this queue keeps passwords encrypted (key {0}) and this process has no key; set secrets.key, for example to \
         file:/etc/pagehand/secrets_key"
    )]
    NoKey(String),
    /// No such task.
    #[error("there is no task {0}")]
    NoSuchTask(TaskId),
    /// The task is not in a state in which this can be done; the text says how to mend that.
    #[error("{0}")]
    Conflict(String),
    /// Retrying needs a second confirmation, because the task may have been done already.
    #[error("task {0} may have been submitted already; look at the site, then confirm the retry")]
    NeedsConfirmation(TaskId),
}

impl OpenIntent {
    /// Whether the site's answer is on record and says that the account waits for a mailed confirmation.
    pub fn awaits_mail(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome["outcome"] == "needs_email_confirmation")
    }
}

impl QueueError {
    /// Whether the same call can succeed later without anybody changing anything: a lost connection, a restart, a
    /// deadlock, a time-out, a full pool.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database(error) if is_transient(error))
    }

    /// Whether Postgres refuses because this user has not the right to do it.
    pub fn lacks_rights(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code == "42501")
    }
}

/// Why a site may not be acted on any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteRefusal {
    /// The enrolment was removed.
    Removed,
    /// The authorisation ran out.
    Expired,
    /// The site was stopped.
    Stopped,
}

impl SiteRefusal {
    /// What happened, and how to mend it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "the site's enrolment was removed meanwhile; `pagehand site add` enrols it again",
            Self::Expired => "the site's authorisation ran out meanwhile; `pagehand site add … --until DATE` renews it",
            Self::Stopped => "the site was stopped meanwhile; `pagehand site resume` lets its tasks go on",
        }
    }
}

/// Who claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// Stable over restarts: `--instance`, by default host name and process id.
    pub name: String,
    /// New with each process.
    pub incarnation: String,
}

/// A task that is ours until `lease_expires_at` unless renewed.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What is to be done.
    pub task: Task,
    /// The attempt's id.
    pub fence: Fence,
    /// Postgres' clock.
    pub locked_at: DateTime<Utc>,
    /// Postgres' clock.
    pub lease_expires_at: DateTime<Utc>,
    /// A submit intent of an earlier attempt that nobody has judged, or that waits for a mailed confirmation.
    pub open_intent: Option<OpenIntent>,
}

impl Claimed {
    /// The lease on the task.
    pub fn lease(&self) -> Lease {
        Lease { task_id: self.task.id, fence: self.fence }
    }
}

/// What an earlier attempt was about to submit (see [`Queue::commit_intent`]) when it ended without a judgement of it.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenIntent {
    /// The attempt that committed it.
    pub fence: Fence,
    /// Its `retry_count`.
    pub retry_count: u32,
    /// When, by Postgres' clock.
    pub committed_at: DateTime<Utc>,
    /// Whether the request may have left: false means that it surely did not.
    pub let_go: bool,
    /// As given to [`Queue::commit_intent`].
    pub intent: Value,
    /// The site's answer, if it was put on record before the worker was lost: the attempt may have succeeded.
    pub outcome: Option<Value>,
}

/// What a renewal says of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Still ours, for another lease.
    Held,
    /// Still ours, and a person has called the task off.
    CancelRequested,
    /// No longer ours: stop at once, write nothing.
    Lost,
}

/// How many tasks there are in each status that can still change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Live {
    /// Waiting for a worker, a `run_at` or a retry.
    pub pending: i64,
    /// Held by a worker.
    pub running: i64,
}

/// What became of a task to enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Its number, or that of the live task with the same dedupe key.
    pub id: TaskId,
    /// A live task with the same dedupe key was there already.
    pub deduplicated: bool,
}

impl Queue {
    /// Opens a pool of up to `max_connections` connections; connects once, so that a wrong address is seen here.
    ///
    /// # Errors
    /// `database_url` is none, or nobody answers there within ten seconds.
    pub async fn connect(database_url: &str, max_connections: u32) -> Result<Queue, QueueError> {
        let options = connect_options(database_url)?;
        // By itself first: a pool tries for long, and then does not say why.
        let first = bounded(options.connect()).await?;
        let _ = sqlx::Connection::close(first).await;
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(Duration::from_secs(10))
            .idle_timeout(Duration::from_secs(600))
            .max_lifetime(Duration::from_secs(3600))
            .connect_with(options)
            .await?;
        Ok(Queue { pool, turn: Arc::default(), keys: Arc::default() })
    }

    /// The same queue over connections of its own, on which Postgres gives up a statement after `limit`.
    pub fn with_statement_limit(&self, limit: Duration) -> Queue {
        let options = (*self.pool.connect_options()).clone();
        let options = options.options([("statement_timeout", limit.as_millis().to_string())]);
        let pool = PgPoolOptions::new()
            .max_connections(self.pool.options().get_max_connections())
            .acquire_timeout(Duration::from_secs(10))
            .idle_timeout(Duration::from_secs(600))
            .max_lifetime(Duration::from_secs(3600))
            .connect_lazy_with(options);
        Queue { pool, turn: self.turn.clone(), keys: self.keys.clone() }
    }

    /// Brings the schema up to date. Several programs may do so at once; one does it, the others wait.
    ///
    /// # Errors
    /// Postgres refuses, or the schema is of a newer version of this program.
    pub async fn migrate(&self) -> Result<(), QueueError> {
        let options = (*self.pool.connect_options()).clone();
        let unbounded = options.options([("statement_timeout", "0"), ("lock_timeout", "0")]);
        let mut connection = bounded(sqlx::ConnectOptions::connect(&unbounded)).await?;
        let migrated = tokio::time::timeout(MIGRATE_LIMIT, sqlx::migrate!().run(&mut connection)).await;
        migrated.map_err(|_| {
            let problem = "it took too long; see what holds locks on the tables, end that and try again";
            sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, problem))
        })??;
        bounded(sqlx::Connection::close(connection)).await?;
        Ok(())
    }

    /// Closes all connections, waiting a little for calls that are under way; calls after it fail.
    pub async fn close(&self) {
        // Those that do not end in time are dropped with the pool.
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.pool.close()).await;
    }

    /// Postgres' clock.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn now(&self) -> Result<DateTime<Utc>, QueueError> {
        let now = repeated(is_transient, || {
            sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool)
        });
        Ok(now.await?)
    }

    /// How many tasks are pending and running.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn live(&self) -> Result<Live, QueueError> {
        let live = repeated(is_transient, || {
            sqlx::query_as!(
                Live,
                r#"SELECT (SELECT count(*) FROM tasks WHERE ready)
                        + (SELECT count(*) FROM tasks WHERE status = 'pending' AND NOT ready) AS "pending!",
                          (SELECT count(*) FROM tasks WHERE lease_owner IS NOT NULL) AS "running!""#
            )
            .fetch_one(&self.pool)
        });
        Ok(live.await?)
    }
}

/// How every connection of the program is set up.
fn connect_options(database_url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| database_url.starts_with(scheme)) {
        let problem = "the address of Postgres must begin with postgres:// or postgresql://";
        return Err(sqlx::Error::Configuration(problem.into()));
    }
    let options: PgConnectOptions = database_url.parse()?;
    Ok(options.application_name("pagehand").options([
        ("statement_timeout", "30s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "60s"),
        ("default_transaction_isolation", "read committed"),
        // Compiling a statement takes longer than any of ours runs.
        ("jit", "off"),
        // That a table is there already is news to nobody.
        ("client_min_messages", "warning"),
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "30000"),
    ]))
}

/// Whether the cause of an error may pass by itself. After some of these it is unknown whether the statement took effect.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // 08: connection; 40: rolled back, try again; 53: out of resources; 55P03, 57014: time-outs; 57P: restarts.
            ["08", "40", "53", "57P"].iter().any(|class| code.starts_with(class))
                || ["55P03", "57014", "25006"].contains(&code.as_ref())
        }),
        _ => false,
    }
}

/// Whether the statement surely had no effect and can succeed when sent again.
fn is_rolled_back(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("40") || code == "55P03"))
}

/// Runs a statement, and again with growing waits while `passes` says of its error that it may pass, for [`RETRY_FOR`].
/// Only for statements that may take effect twice, or with [`is_rolled_back`].
async fn repeated<T, F, S>(passes: fn(&sqlx::Error) -> bool, statement: S) -> Result<T, sqlx::Error>
where
    S: Fn() -> F,
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let until = Instant::now() + RETRY_FOR;
    let mut waits = Reconnect::new(Duration::from_millis(20), Duration::from_secs(1));
    loop {
        match bounded(statement()).await {
            Err(error) if passes(&error) && Instant::now() < until => {
                tracing::debug!(%error, "sending a statement again");
                tokio::time::sleep(waits.next_wait()).await;
            }
            result => return result,
        }
    }
}

/// A statement between two places where tests lose the process or the connection (see [`fault`]): before it is sent, and
/// after it was committed.
async fn exposed<T>(
    name: &'static str,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    fault::may_fail!("db.{name}.before")?;
    let done = statement.await?;
    fault::may_fail!("db.{name}.after")?;
    Ok(done)
}

/// A statement with a deadline on our side: a connection whose other end is gone may stay silent for ever.
async fn bounded<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(STATEMENT_LIMIT, statement).await.unwrap_or_else(|_| {
        let problem = format!("no answer for {} s", STATEMENT_LIMIT.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, problem)))
    })
}

/// A count from a row, where the schema keeps it from being negative.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// A status from a row.
fn status(name: &str) -> TaskStatus {
    // The enum type of the schema has the same five names (`tests/queue.rs` holds the two together).
    name.parse().unwrap_or(TaskStatus::Failed)
}
