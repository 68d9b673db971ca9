//! What operators have pinned for sites, as they wrote it.

use serde_json::json;

use super::{Queue, QueueError, clean, is_transient, repeated};
use crate::site::Origin;

impl Queue {
    /// Stores the profile of a site in place of an earlier one, and notes that in the audit; an empty one removes it. The
    /// text is checked by the caller ([`crate::site::profile::SiteProfile::parse`]).
    ///
    /// # Errors
    /// Postgres can't be reached, or the text is longer than it takes.
    pub async fn set_profile(&self, origin: &Origin, source: &str, who: &str) -> Result<(), QueueError> {
        let (source, who) = (clean::text(source), clean::text(who));
        let details = json!({ "bytes": source.len() });
        let stored = repeated(is_transient, || {
            sqlx::query!(
                "WITH stored AS (
                     INSERT INTO site_profiles (origin, source) VALUES ($1, $2)
                     ON CONFLICT (origin) DO UPDATE SET source = excluded.source, updated_at = now()
                     RETURNING origin
                 )
                 INSERT INTO audit (who, action, subject, details) SELECT $3, 'site.profile', origin, $4 FROM stored",
                origin.as_str(),
                source.as_ref(),
                who.as_ref(),
                details,
            )
            .execute(&self.pool)
        });
        stored.await?;
        Ok(())
    }

    /// The profile of a site, if one is stored.
    ///
    /// # Errors
    /// Postgres can't be reached.
    pub async fn profile(&self, origin: &str) -> Result<Option<String>, QueueError> {
        let source = repeated(is_transient, || {
            sqlx::query_scalar!("SELECT source FROM site_profiles WHERE origin = $1", origin).fetch_optional(&self.pool)
        });
        Ok(source.await?)
    }
}
