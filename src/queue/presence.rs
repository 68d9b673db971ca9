//! Proof that a process is alive: an advisory lock, held by a connection of its own for as long as the process lives.
//!
//! Two workers may carry the same name by mistake, and then a restart of one must not take the tasks of the other. A
//! process that was killed loses its connection, and with it the lock, at once. So an earlier life of the same name is
//! taken to be over if (and only if) the lock of its incarnation is free. A process whose connection breaks while it lives
//! hears of that at once and takes the lock again on a new one; in between, some milliseconds, it can lose its tasks to a
//! namesake, which costs it an attempt and nothing else, because every write is fenced.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::task::JoinHandle;

use super::watch::{show_alive, show_stopped};
use super::{Queue, QueueError, WorkerIdentity, bounded};
use crate::retry::Reconnect;

/// How often a connection that is quiet is asked for a sign of life.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Held by a worker process while it lives; dropping it is dying.
#[derive(Debug)]
pub struct Presence {
    holder: JoinHandle<()>,
    pool: sqlx::PgPool,
    worker: WorkerIdentity,
}

impl Presence {
    /// Ends it, and says so: whoever looks sees a worker that stopped, not one that was lost.
    pub async fn end(self) {
        self.holder.abort();
        // What shows it to people is not worth more than a try.
        let _ = bounded(show_stopped(&self.pool, &self.worker)).await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.holder.abort();
    }
}

impl Queue {
    /// Shows that this incarnation is alive, until the returned value is dropped.
    ///
    /// # Errors
    /// Postgres can't be reached, or a live process has the same incarnation.
    pub async fn be_present(&self, worker: &WorkerIdentity) -> Result<Presence, QueueError> {
        let incarnation = worker.incarnation.clone();
        let options = (*self.pool.connect_options()).clone().application_name("pagehand presence");
        let pool =
            PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5)).connect_lazy_with(options);
        let Some(mut lock) = lock_presence(&pool, &incarnation).await? else {
            return Err(QueueError::Conflict(format!("another live process has the incarnation {incarnation}")));
        };
        // What shows it to people is not worth more than a try.
        let _ = bounded(show_alive(&mut lock, worker)).await;
        let (shared, shown) = (self.pool.clone(), worker.clone());
        let worker = worker.clone();
        let holder = tokio::spawn(async move {
            let mut waits = Reconnect::new(Duration::from_millis(20), Duration::from_secs(5));
            loop {
                hold(&mut lock, &worker).await;
                tracing::debug!("the connection that shows this worker to be alive was lost");
                drop(lock);
                lock = loop {
                    match lock_presence(&pool, &incarnation).await {
                        Ok(Some(fresh)) => break fresh,
                        // Postgres has not noticed yet that the old connection is gone, or is away itself.
                        Ok(None) | Err(_) => tokio::time::sleep(waits.next_wait()).await,
                    }
                };
                waits.reset();
            }
        });
        Ok(Presence { holder, pool: shared, worker: shown })
    }
}

/// Returns when the connection, and with it the lock, is lost.
async fn hold(lock: &mut PgListener, worker: &WorkerIdentity) {
    loop {
        match tokio::time::timeout(PROBE_EVERY, lock.try_recv()).await {
            // Nobody notifies us: whatever comes says that the connection is no more.
            Ok(_) => return,
            Err(_) if bounded(show_alive(&mut *lock, worker)).await.is_ok() => {}
            Err(_) => return,
        }
    }
}

/// The lock on a connection that also hears at once when it breaks. None: a connection that lives has it.
async fn lock_presence(pool: &sqlx::PgPool, incarnation: &str) -> Result<Option<PgListener>, sqlx::Error> {
    let mut connection = bounded(PgListener::connect_with(pool)).await?;
    connection.eager_reconnect(false);
    let locked = bounded(
        sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock(hashtextextended('pagehand worker ' || $1, 0)) AS "locked!""#,
            incarnation,
        )
        .fetch_one(&mut connection),
    )
    .await?;
    Ok(locked.then_some(connection))
}
