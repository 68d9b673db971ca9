//! Wake-ups: a hint that there may be something to claim, by `LISTEN/NOTIFY`.
//!
//! Nothing depends on them. A notification can be lost (a broken connection, a pooler in between) and a task whose
//! `run_at` comes sends none, so whoever waits here also looks by itself every second or so. The listener has a connection
//! of its own, asks it for a sign of life when it has been quiet, and opens a new one when that fails; it wakes whoever
//! waits after each new connection, because of what may have been missed.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Executor, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Queue, bounded};
use crate::retry::Reconnect;

/// The channel; the payload is empty.
const CHANNEL: &str = "pagehand_tasks";
/// A connection that was quiet for this long is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(15);

/// Says when it is worth looking for tasks. Dropping it ends the listening.
#[derive(Debug)]
pub struct Wake {
    signal: watch::Receiver<u64>,
    listener: JoinHandle<()>,
}

impl Wake {
    /// Waits for the next hint; several that came in the meantime are one. Cancelling loses none.
    pub async fn woken(&mut self) {
        if self.signal.changed().await.is_err() {
            // The runtime is shutting down: there will be no more hints.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Queue {
    /// Begins to listen, in the background. It works, without hints, also while Postgres is away.
    pub fn listen(&self) -> Wake {
        let (sender, signal) = watch::channel(0);
        let options = (*self.pool.connect_options()).clone().application_name("pagehand listener");
        let listener = tokio::spawn(async move {
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(Duration::from_secs(5))
                .connect_lazy_with(options);
            let mut waits = Reconnect::new(Duration::from_millis(100), Duration::from_secs(10));
            loop {
                if let Ok(mut listener) = PgListener::connect_with(&pool).await
                    && bounded(listener.listen(CHANNEL)).await.is_ok()
                {
                    waits.reset();
                    hint(&sender);
                    while let Ok(()) = next(&mut listener).await {
                        hint(&sender);
                    }
                }
                tokio::time::sleep(waits.next_wait()).await;
            }
        });
        Wake { signal, listener }
    }
}

fn hint(sender: &watch::Sender<u64>) {
    sender.send_modify(|n| *n = n.wrapping_add(1));
}

/// Waits for a notification on a connection that is alive.
async fn next(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    loop {
        match tokio::time::timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(_))) => return Ok(()),
            Ok(Ok(None)) => return Err(sqlx::Error::WorkerCrashed),
            Ok(Err(error)) => return Err(error),
            Err(_) => bounded(listener.execute("SELECT 1")).await.map(drop)?,
        }
    }
}

/// Sends a hint when the transaction commits.
pub(super) async fn notify(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_notify($1, '')", CHANNEL).execute(connection).await.map(drop)
}
