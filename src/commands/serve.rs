//! `pagehand serve`: the HTTP API and the dashboard.

use super::worker::stop_on_signals;
use crate::cli::ServeArgs;
use crate::config::Config;
use crate::web::{self, WebSettings};

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// The settings can't be used, the address can't be had, or there is no database with the schema of this version.
pub async fn run(config: Config, args: ServeArgs) -> anyhow::Result<()> {
    // Before the database is opened: what is wrong with the settings is said at once.
    let settings = WebSettings::from_config(&config, args.listen)?;
    settings.check()?;
    let database = super::Database::open(&config).await?;
    let stop = stop_on_signals()?;
    let served = web::serve(settings, database.queue.clone(), config.runs.dir.clone(), stop.politely).await;
    database.close().await;
    Ok(served?)
}
