//! Proxies: which to use next for a site, and which to leave alone for a while.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Queue, QueueError, clean, count, is_transient, repeated};
use crate::record::serialize_optional_time;
use crate::site::Origin;

/// The number of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ProxyId(pub i64);

/// A proxy to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProxy {
    /// `http://host:port` or `socks5://host:port`, without user and password.
    pub url: String,
    /// Whom to log in as.
    pub username: Option<String>,
    /// Where the password is: `env:NAME` or `file:PATH`.
    pub password_ref: Option<String>,
    /// For this site only; None: for every site.
    pub site: Option<Origin>,
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proxy {
    /// Its number.
    pub id: ProxyId,
    /// `http://host:port` or `socks5://host:port`.
    pub url: String,
    /// Whom to log in as.
    pub username: Option<String>,
    /// Where the password is: `env:NAME` or `file:PATH`.
    pub password_ref: Option<String>,
    /// For this site only; None: for every site.
    pub site: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// Not used before this time.
    #[serde(serialize_with = "serialize_optional_time")]
    pub resting_until: Option<DateTime<Utc>>,
    /// When it was last given to a task.
    #[serde(serialize_with = "serialize_optional_time")]
    pub last_used_at: Option<DateTime<Utc>>,
    /// What its latest failure was.
    pub last_error: Option<String>,
}

struct Row {
    id: i64,
    url: String,
    username: Option<String>,
    password_ref: Option<String>,
    site: Option<String>,
    failures: i32,
    resting_until: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    last_error: Option<String>,
}

impl From<Row> for Proxy {
    fn from(row: Row) -> Self {
        Proxy {
            id: ProxyId(row.id),
            url: row.url,
            username: row.username,
            password_ref: row.password_ref,
            site: row.site,
            failures: count(row.failures),
            resting_until: row.resting_until,
            last_used_at: row.last_used_at,
            last_error: row.last_error,
        }
    }
}

impl Queue {
    /// Adds a proxy; one with the same address, user and site only gets the new password reference.
    ///
    /// # Errors
    /// Postgres can't be reached, or the password reference is none.
    pub async fn add_proxy(&self, proxy: &NewProxy) -> Result<ProxyId, QueueError> {
        let id = repeated(is_transient, || {
            sqlx::query_scalar!(
                "INSERT INTO proxies (url, username, password_ref, site) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (url, username, site) DO UPDATE SET
                     password_ref = excluded.password_ref, failures = 0, resting_until = NULL
                 RETURNING id",
                proxy.url,
                proxy.username,
                proxy.password_ref,
                proxy.site.as_ref().map(Origin::as_str),
            )
            .fetch_one(&self.pool)
        });
        Ok(ProxyId(id.await?))
    }

    /// All proxies, by number.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn proxies(&self) -> Result<Vec<Proxy>, QueueError> {
        let rows = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "SELECT id, url, username, password_ref, site, failures, resting_until, last_used_at, last_error
                 FROM proxies ORDER BY id"
            )
            .fetch_all(&self.pool)
        });
        Ok(rows.await?.into_iter().map(Proxy::from).collect())
    }

    /// Removes a proxy. False if there was none of that number.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn remove_proxy(&self, id: ProxyId) -> Result<bool, QueueError> {
        let removed =
            repeated(is_transient, || sqlx::query!("DELETE FROM proxies WHERE id = $1", id.0).execute(&self.pool));
        Ok(removed.await?.rows_affected() == 1)
    }

    /// The proxy for the next task of a site: one of its own before one for every site, then the one that was not used
    /// for the longest time. None that rests is taken; [`Queue::proxy_rest`] tells "none" from "all rest".
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn take_proxy(&self, site: &str) -> Result<Option<Proxy>, QueueError> {
        let row = repeated(is_transient, || {
            sqlx::query_as!(
                Row,
                "WITH next AS MATERIALIZED (
                     SELECT id FROM proxies
                     WHERE (site IS NULL OR site = $1) AND (resting_until IS NULL OR resting_until <= now())
                     ORDER BY site IS NULL, last_used_at NULLS FIRST, id LIMIT 1 FOR UPDATE
                 )
                 UPDATE proxies p SET last_used_at = clock_timestamp() FROM next WHERE p.id = next.id
                 RETURNING p.id, url, username, password_ref, site, failures, resting_until, last_used_at, last_error",
                site,
            )
            .fetch_optional(&self.pool)
        });
        Ok(row.await?.map(Proxy::from))
    }

    /// If the site has proxies and all of them rest: when the first is back. A task of that site has to wait until then; to
    /// send it out without a proxy would show an address that was meant to be hidden.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn proxy_rest(&self, site: &str) -> Result<Option<DateTime<Utc>>, QueueError> {
        let back = repeated(is_transient, || {
            sqlx::query_scalar!(
                "SELECT min(coalesce(resting_until, '-infinity')) FROM proxies WHERE site IS NULL OR site = $1
                 HAVING min(coalesce(resting_until, '-infinity')) > now()",
                site,
            )
            .fetch_optional(&self.pool)
        });
        Ok(back.await?.flatten())
    }

    /// Notes that a proxy failed: it rests for 30 seconds, twice as long with each further failure in a row, at most an
    /// hour. `error` must not carry its password.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn proxy_failed(&self, id: ProxyId, error: &str) -> Result<(), QueueError> {
        let error = clean::text(error);
        let noted = super::bounded(
            sqlx::query!(
                "UPDATE proxies SET failures = failures + 1, last_error = $2,
                     resting_until = clock_timestamp() + least(interval '1 hour', interval '30 s' * 2 ^ least(failures, 10))
                 WHERE id = $1",
                id.0,
                error.as_ref(),
            )
            .execute(&self.pool),
        );
        noted.await?;
        Ok(())
    }

    /// Notes that a proxy worked.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn proxy_worked(&self, id: ProxyId) -> Result<(), QueueError> {
        let noted = repeated(is_transient, || {
            sqlx::query!("UPDATE proxies SET failures = 0, resting_until = NULL WHERE id = $1 AND failures > 0", id.0)
                .execute(&self.pool)
        });
        noted.await?;
        Ok(())
    }
}
