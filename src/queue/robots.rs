//! What workers have fetched of sites' robots.txt, for all of them.

use std::time::Duration;

use super::{Queue, QueueError, clean, is_transient, repeated};

/// A robots.txt as it was last known. Ages are by Postgres' clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRobots {
    /// Since it was last asked for.
    pub asked: Duration,
    /// Whether that was answered.
    pub answered: bool,
    /// What it says; None: the site has none.
    pub body: Option<String>,
    /// Since the last answer; None: there never was one.
    pub fetched: Option<Duration>,
}

impl Queue {
    /// What is known of an origin's robots.txt.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn robots(&self, origin: &str) -> Result<Option<KeptRobots>, QueueError> {
        let row = repeated(is_transient, || {
            sqlx::query!(
                r#"SELECT extract(epoch FROM clock_timestamp() - asked_at)::float8 AS "asked!", answered, body,
                          extract(epoch FROM clock_timestamp() - fetched_at)::float8 AS fetched
                   FROM robots_txt WHERE origin = $1"#,
                origin,
            )
            .fetch_optional(&self.pool)
        });
        let age = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        Ok(row.await?.map(|row| KeptRobots {
            asked: age(row.asked),
            answered: row.answered,
            body: row.body,
            fetched: row.fetched.map(age),
        }))
    }

    /// Notes an answer: what it says, or that there is none.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn keep_robots(&self, origin: &str, body: Option<&str>) -> Result<(), QueueError> {
        let body = body.map(clean::text);
        let kept = repeated(is_transient, || {
            sqlx::query!(
                "INSERT INTO robots_txt (origin, asked_at, answered, body, fetched_at)
                 VALUES ($1, clock_timestamp(), true, $2, clock_timestamp())
                 ON CONFLICT (origin) DO UPDATE SET
                     asked_at = excluded.asked_at, answered = true, body = excluded.body, fetched_at = excluded.fetched_at",
                origin,
                body.as_deref(),
            )
            .execute(&self.pool)
        });
        kept.await?;
        Ok(())
    }

    /// Notes that there was no answer; the last one stays.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn robots_unanswered(&self, origin: &str) -> Result<(), QueueError> {
        let kept = repeated(is_transient, || {
            sqlx::query!(
                "INSERT INTO robots_txt (origin, asked_at, answered) VALUES ($1, clock_timestamp(), false)
                 ON CONFLICT (origin) DO UPDATE SET asked_at = excluded.asked_at, answered = false",
                origin,
            )
            .execute(&self.pool)
        });
        kept.await?;
        Ok(())
    }
}
