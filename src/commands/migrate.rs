//! `pagehand migrate`.

use anyhow::Context;

use super::Database;
use crate::config::Config;

/// Brings the schema up to date.
///
/// # Errors
/// Postgres can't be reached, or a migration fails; then nothing of it was done.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let database = Database::open_unchecked(&config).await?;
    let migrated = database.queue.migrate().await.context("the schema can't be brought up to date");
    database.close().await;
    migrated?;
    eprintln!("the schema is up to date");
    Ok(())
}
