//! What was spent, US dollars.

use super::{Queue, QueueError, is_transient, repeated};
use crate::task::TaskId;

/// What all workers of this database have spent today.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spending {
    /// By attempts that began since midnight, UTC, as far as it is on record.
    pub today_usd: f64,
    /// Attempts under way: what they cost is not all on record yet.
    pub running: i64,
}

impl Queue {
    /// What was spent today.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn spent_today(&self) -> Result<Spending, QueueError> {
        let spending = repeated(is_transient, || {
            sqlx::query_as!(
                Spending,
                r#"SELECT (SELECT coalesce(sum(cost_usd), 0) FROM attempts
                           WHERE started_at >= date_trunc('day', clock_timestamp(), 'UTC')) AS "today_usd!",
                          (SELECT count(*) FROM tasks WHERE lease_owner IS NOT NULL) AS "running!""#
            )
            .fetch_one(&self.pool)
        });
        Ok(spending.await?)
    }

    /// What the task has cost so far, over all its attempts that ended.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn spent_on(&self, task: TaskId) -> Result<f64, QueueError> {
        let spent = repeated(is_transient, || {
            sqlx::query_scalar!("SELECT cost_usd FROM tasks WHERE id = $1", task.0).fetch_optional(&self.pool)
        });
        Ok(spent.await?.unwrap_or_default())
    }
}
