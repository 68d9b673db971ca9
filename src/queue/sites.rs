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
    task_types: Option<Vec<String>>,
    stopped_at: Option<DateTime<Utc>>,
    stopped_why: Option<String>,
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
            "max_concurrency": site.max_concurrency, "per_minute": site.per_minute, "task_types": site.task_types,
        });
        let authorized_by = clean::text(&site.authorized_by);
        let added = repeated(is_transient, || {
            sqlx::query!(
                "WITH added AS (
                     INSERT INTO sites (origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute,
                                        task_types)
                     VALUES ($1, $2, $3, $4, $5, $6, $8)
                     ON CONFLICT (origin) DO UPDATE SET
                         authorized_by = excluded.authorized_by, authorized_until = excluded.authorized_until,
                         allow_private = excluded.allow_private, max_concurrency = excluded.max_concurrency,
                         per_minute = excluded.per_minute, task_types = excluded.task_types, updated_at = now(),
                         removed_at = NULL
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
                site.task_types.as_deref(),
            )
            .execute(&self.pool)
        });
        added.await?;
        Ok(())
    }

    /// Ends an enrolment, and notes that in the audit. False if there was none. Tasks of the site that are waiting are
    /// refused when they are claimed; attempts under way submit nothing any more.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn remove_site(&self, origin: &Origin, who: &str) -> Result<bool, QueueError> {
        let who = clean::text(who);
        let removed = repeated(is_transient, || {
            sqlx::query!(
                "WITH removed AS (
                     UPDATE sites SET removed_at = now(), updated_at = now() WHERE origin = $1 AND removed_at IS NULL
                     RETURNING origin
                 )
                 INSERT INTO audit (who, action, subject) SELECT $2, 'site.remove', origin FROM removed",
                origin.as_str(),
                who.as_ref(),
            )
            .execute(&self.pool)
        });
        Ok(removed.await?.rows_affected() == 1)
    }

    /// Has all workers begin nothing on a site any more, and attempts under way submit nothing; its tasks wait. Noted in
    /// the audit. False if the site is not enrolled, or is stopped already.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn stop_site(&self, origin: &Origin, who: &str, why: &str) -> Result<bool, QueueError> {
        let (who, why) = (clean::text(who), clean::text(why));
        let stopped = repeated(is_transient, || {
            sqlx::query!(
                "WITH stopped AS (
                     UPDATE sites SET stopped_at = now(), stopped_by = $2, stopped_why = $3, updated_at = now()
                     WHERE origin = $1 AND removed_at IS NULL AND stopped_at IS NULL
                     RETURNING origin
                 )
                 INSERT INTO audit (who, action, subject, details)
                 SELECT $2, 'site.stop', origin, jsonb_build_object('why', $3::text) FROM stopped",
                origin.as_str(),
                who.as_ref(),
                why.as_ref(),
            )
            .execute(&self.pool)
        });
        Ok(stopped.await?.rows_affected() == 1)
    }

    /// Undoes [`Queue::stop_site`], and notes it in the audit. False if the site was not stopped.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn resume_site(&self, origin: &Origin, who: &str) -> Result<bool, QueueError> {
        let who = clean::text(who);
        let resumed = repeated(is_transient, || {
            sqlx::query!(
                "WITH resumed AS (
                     UPDATE sites SET stopped_at = NULL, stopped_by = NULL, stopped_why = NULL,
                         resumed_at = clock_timestamp(), updated_at = now()
                     WHERE origin = $1 AND stopped_at IS NOT NULL
                     RETURNING origin
                 )
                 INSERT INTO audit (who, action, subject) SELECT $2, 'site.resume', origin FROM resumed",
                origin.as_str(),
                who.as_ref(),
            )
            .execute(&self.pool)
        });
        Ok(resumed.await?.rows_affected() == 1)
    }

    /// Stops a site whose latest `run` attempts that ended have all been blocked. True if this call did it.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn stop_if_blocked(&self, origin: &Origin, who: &str, run: u32) -> Result<bool, QueueError> {
        let blocked = repeated(is_transient, || {
            sqlx::query_scalar!(
                r#"SELECT count(*) = $2 AND bool_and(latest.failure_reason IS NOT DISTINCT FROM 'blocked') AS "blocked!"
                   FROM (SELECT a.failure_reason FROM attempts a JOIN sites s ON s.origin = a.site
                         WHERE a.site = $1 AND a.status IN ('succeeded', 'failed')
                           AND a.started_at > coalesce(s.resumed_at, '-infinity')
                         ORDER BY a.started_at DESC LIMIT $2) latest"#,
                origin.as_str(),
                i64::from(run),
            )
            .fetch_one(&self.pool)
        });
        let why = format!("the latest {run} attempts were all blocked");
        Ok(blocked.await? && self.stop_site(origin, who, &why).await?)
    }

    /// Tasks that wait for a stopped site.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn waiting_for_stopped_sites(&self) -> Result<u64, QueueError> {
        let waiting = repeated(is_transient, || {
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "n!" FROM sites s JOIN tasks t ON t.site = s.origin
                   WHERE s.stopped_at IS NOT NULL AND s.removed_at IS NULL AND t.status = 'pending'"#
            )
            .fetch_one(&self.pool)
        });
        Ok(waiting.await?.unsigned_abs())
    }

    /// All sites that were not removed, by origin; also those whose authorisation has ended.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn sites(&self) -> Result<Vec<Enrolment>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, task_types,
                        stopped_at, stopped_why, created_at, removed_at
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
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, task_types,
                        stopped_at, stopped_why, created_at, removed_at
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
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, task_types,
                        stopped_at, stopped_why, created_at, removed_at
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
        task_types: row.task_types,
        stopped_at: row.stopped_at,
        stopped_why: row.stopped_why,
        created_at: row.created_at,
        removed_at: row.removed_at,
    })
}
