//! What may still be spent, and keeping count of what was.

use std::time::Duration;

use super::{Worker, database};
use crate::failure::{Failure, FailureReason};
use crate::queue::Queue;
use crate::task::TaskId;

/// Hours counted anew at once, and how often is looked for some. The web server does the same, more often.
const HOURS_AT_ONCE: u32 = 24;
const ROLL_UP_EVERY: Duration = Duration::from_secs(60);

impl Worker {
    /// How many of `free` tasks may be taken so that the day's budget holds.
    pub(super) async fn affordable(&self, free: usize) -> Result<usize, String> {
        let budget = self.settings.budget;
        if budget.day_usd.is_none() {
            return Ok(free);
        }
        let spent = self.queue.spent_today().await.map_err(|error| format!("postgres: {error}"))?;
        let most = budget.affordable(spent.today_usd, spent.running);
        match usize::try_from(most).unwrap_or(0).min(free) {
            0 => Err(format!(
                "${:.4} were spent today by {} tasks under way and those before; the rest of budget.day_usd (${:.4}) pays for \
                 no further one until midnight, UTC",
                spent.today_usd,
                spent.running,
                budget.day_usd.unwrap_or_default()
            )),
            some => Ok(some),
        }
    }

    /// US dollars that an attempt at the task may cost; None: any amount.
    ///
    /// # Errors
    /// `budget.exceeded`: nothing is left of the task's budget.
    pub(super) async fn left_for(&self, task: TaskId) -> Result<Option<f64>, Failure> {
        let Some(budget) = self.settings.budget.task_usd else { return Ok(None) };
        let spent = self.queue.spent_on(task).await.map_err(database)?;
        if spent < budget {
            return Ok(Some(budget - spent));
        }
        let message = format!(
            "the attempts so far have cost ${spent:.6}, and the task may cost ${budget:.6}; raise budget.task_usd, then \
             retry it"
        );
        Err(Failure::terminal(FailureReason::Unknown, "budget.exceeded", message))
    }
}

/// Counts anew the hours in which something has changed, so that their notes don't pile up where no web server runs.
pub(super) async fn roll_up_for_ever(queue: Queue) {
    loop {
        tokio::time::sleep(ROLL_UP_EVERY).await;
        while let Ok(Some(1..)) = queue.roll_up(HOURS_AT_ONCE).await {}
    }
}
