//! Enrolments as rows.

use chrono::{DateTime, NaiveTime, Utc};
use serde_json::json;

use super::{Queue, QueueError, clean, count, is_transient, repeated};
use crate::site::{Enrolment, Manners, NewEnrolment, Origin, QuietHours, Robots};

struct Row {
    origin: String,
    authorized_by: String,
    authorized_until: Option<DateTime<Utc>>,
    allow_private: bool,
    max_concurrency: Option<i32>,
    per_minute: Option<i32>,
    task_types: Option<Vec<String>>,
    contact: Option<String>,
    quiet_from: Option<NaiveTime>,
    quiet_to: Option<NaiveTime>,
    quiet_zone: Option<String>,
    obeys_robots: bool,
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
    /// Postgres can't be reached, or `authorized_by` is blank, a limit is 0, or it knows no such time zone.
    pub async fn add_site(&self, site: &NewEnrolment) -> Result<(), QueueError> {
        let limit = |limit: Option<u32>| limit.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        let details = json!({
            "authorized_until": site.authorized_until, "allow_private": site.allow_private,
            "max_concurrency": site.max_concurrency, "per_minute": site.per_minute, "task_types": site.task_types,
            "manners": site.manners,
        });
        let authorized_by = clean::text(&site.authorized_by);
        let Manners { contact, quiet_hours, robots } = &site.manners;
        let quiet = quiet_hours.as_ref();
        let added = repeated(is_transient, || {
            sqlx::query!(
                "WITH added AS (
                     INSERT INTO sites (origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute,
                                        task_types, contact, quiet_from, quiet_to, quiet_zone, obeys_robots)
                     VALUES ($1, $2, $3, $4, $5, $6, $8, $9, $10, $11, $12, $13)
                     ON CONFLICT (origin) DO UPDATE SET
                         authorized_by = excluded.authorized_by, authorized_until = excluded.authorized_until,
                         allow_private = excluded.allow_private, max_concurrency = excluded.max_concurrency,
                         per_minute = excluded.per_minute, task_types = excluded.task_types, contact = excluded.contact,
                         quiet_from = excluded.quiet_from, quiet_to = excluded.quiet_to, quiet_zone = excluded.quiet_zone,
                         obeys_robots = excluded.obeys_robots, updated_at = now(),
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
                contact.as_deref(),
                quiet.map(|hours| hours.from),
                quiet.map(|hours| hours.to),
                quiet.map(|hours| hours.zone.as_str()),
                *robots == Robots::Respect,
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
                        contact, quiet_from, quiet_to, quiet_zone, obeys_robots, stopped_at, stopped_why, created_at, removed_at
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
                        contact, quiet_from, quiet_to, quiet_zone, obeys_robots, stopped_at, stopped_why, created_at, removed_at
                 FROM sites WHERE removed_at IS NULL AND (authorized_until IS NULL OR authorized_until > clock_timestamp())"
            )
            .fetch_all(&self.pool)
        });
        Ok(rows.await?.into_iter().filter_map(enrolment).collect())
    }

    /// What is on record of the site that an origin belongs to, removed or not, with Postgres' clock to hold it against; None
    /// if nothing ever was enrolled. Of several, its own or a wildcard's, the closest that may be acted on.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn enrolment(&self, origin: &str) -> Result<Option<(Enrolment, DateTime<Utc>)>, QueueError> {
        let names = match origin.parse::<Origin>() {
            Ok(origin) => origin.enrolled_as(),
            Err(_) => vec![origin.to_owned()],
        };
        let rows = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "SELECT origin, authorized_by, authorized_until, allow_private, max_concurrency, per_minute, task_types,
                        contact, quiet_from, quiet_to, quiet_zone, obeys_robots, stopped_at, stopped_why, created_at, removed_at
                 FROM sites WHERE origin = ANY ($1)",
                &names,
            )
            .fetch_all(&self.pool)
        });
        let mut found: Vec<Enrolment> = rows.await?.into_iter().filter_map(enrolment).collect();
        if found.is_empty() {
            return Ok(None);
        }
        let now = self.now().await?;
        let rank = |site: &Enrolment| names.iter().position(|name| name == site.origin.as_str());
        found.sort_by_key(|site| (site.check_active(now).is_err(), rank(site)));
        Ok(found.into_iter().next().map(|closest| (closest, now)))
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
        manners: Manners {
            contact: row.contact,
            quiet_hours: match (row.quiet_from, row.quiet_to, row.quiet_zone) {
                (Some(from), Some(to), Some(zone)) => Some(QuietHours { from, to, zone }),
                _ => None,
            },
            robots: if row.obeys_robots { Robots::Respect } else { Robots::Ignore },
        },
        stopped_at: row.stopped_at,
        stopped_why: row.stopped_why,
        created_at: row.created_at,
        removed_at: row.removed_at,
    })
}
