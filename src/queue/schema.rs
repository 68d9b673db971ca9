//! Whether the schema is the one that this program was written for.

use super::{Queue, QueueError, bounded};

impl Queue {
    /// Checks that the schema is up to date.
    ///
    /// # Errors
    /// [`QueueError::Conflict`] with how to mend it where the schema is missing, older or newer; or Postgres can't be reached.
    pub async fn check_schema(&self) -> Result<(), QueueError> {
        let migrated = sqlx::query_scalar::<_, bool>("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
        let newest = if bounded(migrated.fetch_one(&self.pool)).await? {
            let newest =
                sqlx::query_scalar::<_, Option<i64>>("SELECT max(version) FROM _sqlx_migrations WHERE success");
            bounded(newest.fetch_one(&self.pool)).await?
        } else {
            None
        };
        let ours = sqlx::migrate!().iter().map(|migration| migration.version).max();
        match newest.cmp(&ours) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(QueueError::Conflict(
                "the database has not the schema of this version; run `pagehand migrate`".into(),
            )),
            std::cmp::Ordering::Greater => {
                Err(QueueError::Conflict("the database has the schema of a newer version; install that version".into()))
            }
        }
    }

    /// Makes the roles of worker and web server, and gives each what its processes need (`scripts/roles.sql`).
    ///
    /// # Errors
    /// This connection may not make roles, or does not own the tables; or Postgres can't be reached.
    pub async fn grant_roles(&self) -> Result<(), QueueError> {
        bounded(sqlx::raw_sql(include_str!("../../scripts/roles.sql")).execute(&self.pool)).await?;
        Ok(())
    }
}
