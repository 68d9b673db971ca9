//! `pagehand serve`: the HTTP API and the dashboard.

use std::net::SocketAddr;

use sd_notify::NotifyState;

use super::worker::stop_on_signals;
use super::{Database, Usage, no_core_dumps};
use crate::cli::ServeArgs;
use crate::config::Config;
use crate::otlp::metrics::Exporter;
use crate::web::{Server, WebSettings};

/// How long the last metrics may take.
const LAST_METRICS: std::time::Duration = std::time::Duration::from_secs(6);

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// The settings can't be used, the address can't be had, or there is no database with the schema of this version.
pub async fn run(config: Config, args: ServeArgs) -> anyhow::Result<()> {
    // Before the database is opened: what is wrong with the settings is said at once.
    let settings = web_settings(&config, args.listen)?;
    let stop = stop_on_signals()?;
    no_core_dumps();
    let database = Database::open(&config).await?;
    if database.queue.keys().current().is_none() {
        tracing::warn!(
            event = "secrets.none",
            "passwords of tasks are stored in the clear; set secrets.key to have them encrypted"
        );
    }
    let served = match Server::bind(settings, database.queue.clone(), config.runs.dir.clone()).await {
        Ok(server) => {
            // Err: no systemd, or one that does not listen.
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            let watchdog = tokio::spawn(feed_watchdog());
            let metrics = config.metrics.endpoint.clone().map(|endpoint| {
                let every = config.metrics.interval_seconds.duration();
                Exporter::start(endpoint, format!("web {}", server.address()), every, server.metrics())
            });
            server.run(stop.politely).await;
            if let Some(metrics) = metrics {
                metrics.flush(LAST_METRICS).await;
            }
            watchdog.abort();
            Ok(())
        }
        Err(error) => Err(error),
    };
    database.close().await;
    Ok(served?)
}

/// What the configuration says of the server, and that it can be used.
///
/// # Errors
/// A [`Usage`] that names the setting.
pub(super) fn web_settings(config: &Config, listen: Option<SocketAddr>) -> anyhow::Result<WebSettings> {
    let settings = WebSettings::from_config(config, listen).map_err(|error| Usage(error.to_string()))?;
    settings.check().map_err(|error| Usage(error.to_string()))?;
    Ok(settings)
}

/// Tells systemd that this process still schedules its work.
async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    loop {
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(limit / 4).await;
    }
}
