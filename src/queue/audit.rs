//! Who did what by hand, and when.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use super::{Queue, QueueError, clean, is_transient, repeated};

/// Something that a person did to the queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Grows with time.
    pub id: i64,
    /// When, by Postgres' clock.
    pub at: DateTime<Utc>,
    /// Who: a token's name, or the user of the command line.
    pub who: String,
    /// What, for example `site.add`, `run.retry`.
    pub action: String,
    /// On what: an origin, a task's number.
    pub subject: String,
    /// Everything else, without secrets.
    pub details: Value,
}

impl Queue {
    /// Notes that `who` did `action` to `subject`.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn note(&self, who: &str, action: &str, subject: &str, details: &Value) -> Result<(), QueueError> {
        let (who, subject, details) = (clean::text(who), clean::text(subject), clean::json(details));
        super::bounded(
            sqlx::query!(
                "INSERT INTO audit (who, action, subject, details) VALUES ($1, $2, $3, $4)",
                who.as_ref(),
                action,
                subject.as_ref(),
                details,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// As [`Queue::note`], unless the same was noted of this site (`details.site`) within a day.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn note_daily(
        &self,
        who: &str,
        action: &str,
        subject: &str,
        details: &Value,
        site: &str,
    ) -> Result<(), QueueError> {
        let (who, subject, details) = (clean::text(who), clean::text(subject), clean::json(details));
        super::bounded(
            sqlx::query!(
                "SELECT note_daily($1, $2, $3, $4, $5)",
                who.as_ref(),
                action,
                subject.as_ref(),
                details,
                site,
            )
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// The latest `limit` entries, newest first.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn audit(&self, limit: u32) -> Result<Vec<AuditEntry>, QueueError> {
        let entries = repeated(is_transient, || {
            sqlx::query_as!(
                AuditEntry,
                "SELECT id, at, who, action, subject, details FROM audit ORDER BY id DESC LIMIT $1",
                i64::from(limit),
            )
            .fetch_all(&self.pool)
        });
        Ok(entries.await?)
    }
}
