//! Enrolments as rows.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Queue, QueueError, clean, count, is_transient, repeated};
use crate::site::{Enrolment, NewEnrolment, Origin};

struct Row {
    origin: String,
    authorized_by: String,
    authorized_until: Option<DateTime<Utc>>,
    allow_private: bool,
    max_concurrency: Option<i32>,
    per_minute: Option<i32>,
    created_at: DateTime<Utc>,
    removed_at: Option<DateTime<Utc>>,
}

impl Queue {
    /// Enrols a site, or replaces what an earlier enrolment said, and notes that in the audit. Whether its address may be
    /// enrolled is checked by the caller ([`crate::site::check_public`]).
    ///
    /// # Errors
    /// Postgres can't be reached, or `authorized_by` is blank or a limit is 0.
    pub async fn add_site(&self, site: &NewEnrolment) -> Result<(), QueueError> {
        let limit = |limit: Option<u32>| limit.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        let details = json!({
            "authorized_until": site.authorized_until, "allow_private": site.allow_private,
            "max_concurrency": site.max_concurrency, "per_minute": site.per_minute,
        });
        let authorized_by = clean::text(&site.authorized_by);
        let added = repeated(is_transient, || {
            sqlx::query!(
                "WITH added AS (
                     INSERT INTO sites (origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute)
                     VALUES ($1, $2, $3, $4, $5, $6)
                     ON CONFLICT (origin) DO UPDATE SET
                         authorized_by = excluded.authorized_by, authorized_until = excluded.authorized_until,
                         allow_private = excluded.allow_private, max_concurrency = excluded.max_concurrency,
                         per_minute = excluded.per_minute, updated_at = now(), removed_at = NULL
                     RETURNING origin, authorized_by
                 )
                 INSERT INTO audit (who, action, subject, details) SELECT authorized_by, 'site.add', origin, $7 FROM added",
                site.origin.as_str(),
                authorized_by.as_ref(),
                site.authorized_until,
                site.allow_private,
                limit(site.max_concurrency),
                limit(site.per_minute),
                details,
            )
            .execute(&self.pool)
        });
        added.await?;
        Ok(())
    }

    /// Ends an enrolment. False if there was none. Tasks of the site that are waiting are refused when they are claimed.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn remove_site(&self, origin: &Origin) -> Result<bool, QueueError> {
        let removed = repeated(is_transient, || {
            sqlx::query!(
                "UPDATE sites SET removed_at = now(), updated_at = now() WHERE origin = $1 AND removed_at IS NULL",
                origin.as_str(),
            )
            .execute(&self.pool)
        });
        Ok(removed.await?.rows_affected() == 1)
    }

    /// All sites that were not removed, by origin; also those whose authorisation has ended.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn sites(&self) -> Result<Vec<Enrolment>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, created_at,
                        removed_at
                 FROM sites WHERE removed_at IS NULL ORDER BY origin"
            )
            .fetch_all(&self.pool)
        });
        Ok(rows.await?.into_iter().filter_map(enrolment).collect())
    }

    /// The sites that may be acted on now, by Postgres' clock.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn active_sites(&self) -> Result<Vec<Enrolment>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, created_at,
                        removed_at
                 FROM sites WHERE removed_at IS NULL AND (authorized_until IS NULL OR authorized_until > clock_timestamp())"
            )
            .fetch_all(&self.pool)
        });
        Ok(rows.await?.into_iter().filter_map(enrolment).collect())
    }

    /// What is on record of a site, removed or not, with Postgres' clock to hold it against; None if it never was enrolled.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn enrolment(&self, origin: &str) -> Result<Option<(Enrolment, DateTime<Utc>)>, QueueError> {
        let row = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, created_at,
                        removed_at
                 FROM sites WHERE origin = $1",
                origin,
            )
            .fetch_optional(&self.pool)
        });
        match row.await?.and_then(enrolment) {
            Some(enrolment) => Ok(Some((enrolment, self.now().await?))),
            None => Ok(None),
        }
    }
}

/// A row that somebody wrote by hand may have an origin that is none; it matches no task.
fn enrolment(row: Row) -> Option<Enrolment> {
    Some(Enrolment {
        origin: row.origin.parse().ok()?,
        authorized_by: row.authorized_by,
        authorized_until: row.authorized_until,
        allow_private: row.allow_private,
        max_concurrency: row.max_concurrency.map(count),
        per_minute: row.per_minute.map(count),
        created_at: row.created_at,
        removed_at: row.removed_at,
    })
}
