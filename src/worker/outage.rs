//! Says that Postgres is away, and that it is back, once for all parts of a worker that notice.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// While it lasts, it is said again this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Whether Postgres answers, as the parts of one worker see it.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<Away>>);

#[derive(Debug)]
struct Away {
    since: Instant,
    said: Instant,
    failures: u64,
}

impl Outage {
    /// `what` could not be done because Postgres could not be asked.
    pub(super) fn failed(&self, what: &str, problem: impl std::fmt::Display) {
        let now = Instant::now();
        let mut away = self.lock();
        let first = away.is_none();
        let away = away.get_or_insert(Away { since: now, said: now, failures: 0 });
        away.failures += 1;
        if first || now - away.said >= SAY_EVERY {
            away.said = now;
            tracing::warn!(
                event = "postgres.away",
                failures = away.failures,
                seconds = (now - away.since).as_secs(),
                problem = %problem,
                "postgres can't be used: {what}; trying again with growing waits"
            );
        }
    }

    /// Postgres has answered.
    pub(super) fn over(&self) {
        if let Some(away) = self.lock().take() {
            let (seconds, failures) = (away.since.elapsed().as_secs(), away.failures);
            tracing::info!(event = "postgres.back", seconds, failures, "postgres answers again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Away>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
