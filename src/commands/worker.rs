//! `pagehand worker`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{Database, Usage, no_core_dumps};
use crate::automation::Registry;
use crate::browser::{BrowserPool, BrowserSettings, ThirdParties};
use crate::cli::WorkerArgs;
use crate::config::Config;
use crate::llm::Client;
use crate::otlp::{Exporter, metrics};
use crate::queue::{Presence, Queue, QueueError, WorkerIdentity};
use crate::retry::Reconnect;
use crate::telemetry::RunsDir;
use crate::worker::{Settings, Stop, Until, Worker, user_agent};

/// How often it is said that Postgres can't be reached.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long the last traces may take, and the last metrics.
const LAST_TRACES: Duration = Duration::from_secs(6);
/// How long the first Chrome may take before the worker says that something is wrong.
const WARM_UP: Duration = Duration::from_secs(30);

/// Works off tasks until a signal comes or, with `--drain`, until there are none.
///
/// # Errors
/// The runs directory or Chrome can't be used at the start, or Postgres refuses us or has another schema. A Postgres that
/// can't be reached is waited for, unless the worker is to drain; later troubles are waited out.
pub async fn run(config: Config, args: WorkerArgs) -> anyhow::Result<()> {
    let stop = stop_on_signals()?;
    no_core_dumps();
    let runs = open_runs(&config)?;
    // One that drains has somebody who waits for it; the daemon waits itself.
    let database = match args.drain {
        true => Database::open(&config).await?,
        false => match open_patiently(&config, &stop).await? {
            Some(database) => database,
            None => return Ok(()),
        },
    };
    let browsers = BrowserPool::new(browser_settings(&config));
    let started = start(&database.queue, &config, args, runs, browsers.clone()).await;
    let worked = match started {
        Ok((worker, until, presence)) => {
            tracing::info!(event = "worker.started", worker_id = worker.identity.name, "worker started");
            let traces = worker.settings.traces.clone();
            let metrics = export_metrics(&worker, &config);
            let attempts = worker.run(until, stop).await;
            if let Some(traces) = traces {
                traces.flush(LAST_TRACES).await;
            }
            if let Some(metrics) = metrics {
                metrics.flush(LAST_TRACES).await;
            }
            presence.end().await;
            tracing::info!(event = "worker.stopped", attempts, "worker stopped");
            Ok(())
        }
        Err(error) => Err(error),
    };
    browsers.shutdown().await;
    database.close().await;
    worked
}

/// Waits for a Postgres that can't be reached just now; None: told to stop meanwhile.
async fn open_patiently(config: &Config, stop: &Stop) -> anyhow::Result<Option<Database>> {
    let mut waits = Reconnect::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut said: Option<Instant> = None;
    loop {
        let error = match Database::open(config).await {
            Ok(database) => return Ok(Some(database)),
            Err(error) => error,
        };
        let passes = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<QueueError>().is_some_and(QueueError::is_transient)
        };
        if !error.chain().any(passes) {
            return Err(error);
        }
        if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            said = Some(Instant::now());
            let problem = super::chain(&error);
            tracing::warn!(event = "postgres.away", problem, "waiting for Postgres");
        }
        tokio::select! {
            () = stop.politely.cancelled() => return Ok(None),
            () = tokio::time::sleep(waits.next_wait()) => {}
        }
    }
}

async fn start(
    queue: &Queue,
    config: &Config,
    args: WorkerArgs,
    runs: RunsDir,
    browsers: BrowserPool,
) -> anyhow::Result<(Arc<Worker>, Until, Presence)> {
    let warm = tokio::time::timeout(WARM_UP, browsers.warm_up()).await;
    let warm = warm.context("Chrome did not start in time; `pagehand doctor` says why")?;
    warm.context("Chrome can't be started; `pagehand doctor` says why")?;
    check_chrome(config, &browsers).await?;
    check_keys(queue).await?;
    let identity = identity(args.instance)?;
    let presence = queue.be_present(&identity).await.context("the worker can't show that it is alive")?;
    crate::observability::name_worker(&identity.name);
    let traces = config.traces.endpoint.clone().map(|endpoint| Exporter::start(endpoint, identity.name.clone()));
    let settings = Settings { assistant: assistant(config)?, traces, ..settings(config, args.concurrency) };
    let worker = Worker::new(queue.clone(), identity, runs, browsers, Registry::standard(), settings);
    serve_metrics(&worker, config.worker.metrics_listen).await?;
    Ok((Arc::new(worker), if args.drain { Until::Drained } else { Until::Stopped }, presence))
}

/// Whether this worker can open the passwords that the queue keeps sealed.
async fn check_keys(queue: &Queue) -> anyhow::Result<()> {
    let (known, missing): (Vec<_>, Vec<_>) =
        queue.sealing_keys().await?.into_iter().partition(|key| queue.keys().has(key));
    let missing = missing.join(", ");
    anyhow::ensure!(
        missing.is_empty() || !known.is_empty(),
        "this queue keeps passwords encrypted (key {missing}) and this worker does not have the key; set secrets.key to it, \
         or name it in secrets.older_keys"
    );
    if !missing.is_empty() {
        tracing::warn!(
            event = "secrets.key_missing",
            keys = missing,
            "passwords may be encrypted with keys that this worker lacks; name them in secrets.older_keys"
        );
    }
    Ok(())
}

/// The language model to ask, where one is configured.
fn assistant(config: &Config) -> anyhow::Result<Option<Arc<Client>>> {
    let llm = &config.llm;
    let Some(url) = llm.url.clone() else { return Ok(None) };
    let key = llm.key.as_ref().map(|key| key.resolve()).transpose().context("llm.key")?;
    let timeout = llm.timeout_seconds.duration();
    Ok(Some(Arc::new(Client::new(url, llm.model.clone(), key, timeout, llm.max_output_tokens))))
}

/// Serves the worker's counters as long as the process lives, where that is asked for.
async fn serve_metrics(worker: &Worker, address: Option<std::net::SocketAddr>) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("can't listen on {address}; choose another worker.metrics_listen"))?;
    tracing::info!(event = "worker.metrics_listening", address = %listener.local_addr()?, "serving metrics");
    let (metrics, browsers) = (worker.metrics.clone(), worker.browsers.clone());
    tokio::spawn(async move { metrics.serve(listener, || browsers.stats()).await });
    Ok(())
}

/// Sends the worker's counters to a collector, where the configuration names one.
fn export_metrics(worker: &Worker, config: &Config) -> Option<metrics::Exporter> {
    let endpoint = config.metrics.endpoint.clone()?;
    let (counted, browsers) = (worker.metrics.clone(), worker.browsers.clone());
    let read = move || std::future::ready(counted.text(&browsers.stats()));
    let every = config.metrics.interval_seconds.duration();
    Some(metrics::Exporter::start(endpoint, worker.identity.name.clone(), every, read))
}

/// Whether Chrome is fit for pages that mean harm.
async fn check_chrome(config: &Config, browsers: &BrowserPool) -> anyhow::Result<()> {
    let max_days = config.browser.max_age_days;
    if let Ok(Some(age)) = browsers.program_age()
        && age.as_secs() / 86_400 > max_days
    {
        let days = age.as_secs() / 86_400;
        tracing::warn!(event = "browser.old", days, max_days, "Chrome was built long ago; bring it up to date");
    }
    if config.browser.endpoint.is_some() {
        return Ok(());
    }
    if !config.browser.sandbox {
        tracing::warn!(
            event = "browser.no_sandbox",
            "Chrome runs without its sandbox, as browser.sandbox = false says"
        );
        return Ok(());
    }
    let looked = tokio::time::timeout(WARM_UP, browsers.check_sandbox()).await;
    let report = looked.context("Chrome's sandbox could not be looked at in time")??;
    anyhow::ensure!(
        report.is_sandboxed(),
        "Chrome runs without its sandbox here (seccomp {}, user namespace of its own: {}); `pagehand doctor` says how to mend that",
        report.seccomp,
        report.own_user_namespace
    );
    Ok(())
}

/// The runs directory of the configuration, created where it is missing.
///
/// # Errors
/// It can't be created or written.
pub fn open_runs(config: &Config) -> anyhow::Result<RunsDir> {
    let dir = &config.runs.dir;
    RunsDir::open(dir).with_context(|| {
        format!("the runs directory {} can't be used; make it writable or set runs.dir", dir.display())
    })
}

/// How Chrome is run, by the configuration.
pub fn browser_settings(config: &Config) -> BrowserSettings {
    let browser = &config.browser;
    BrowserSettings {
        executable: browser.executable.clone(),
        endpoint: browser.endpoint.clone(),
        sandbox: browser.sandbox,
        state_dir: absolute(&config.data.dir),
        recycle_after_tasks: browser.recycle_after_tasks,
        recycle_above_bytes: browser.recycle_above_mib << 20,
        viewport: (1280, 800),
    }
}

/// How the worker works, by the configuration.
pub fn settings(config: &Config, concurrency: Option<u32>) -> Settings {
    let worker = &config.worker;
    Settings {
        concurrency: concurrency.unwrap_or(worker.concurrency),
        lease: worker.lease_seconds.duration(),
        drain: worker.drain_seconds.duration(),
        task_timeout: worker.task_timeout_seconds.duration(),
        poll: worker.poll_seconds.duration(),
        retry: config.retry_policy(),
        prices: Arc::new(config.prices.clone()),
        budget: config.budget,
        assistant: None,
        traces: None,
        user_agent: user_agent(worker.contact.as_deref()),
        sandbox: config.browser.sandbox,
        stop_after_blocked: worker.stop_after_blocked,
        egress: egress_limits(config),
        mailbox: config.mailbox.clone(),
    }
}

/// What pages may load from hosts that are not enrolled, and most bytes of an attempt.
pub fn egress_limits(config: &Config) -> (ThirdParties, u64) {
    let third_parties = match config.egress.third_parties {
        crate::config::ThirdParties::Strict => ThirdParties::Strict,
        crate::config::ThirdParties::Assets => ThirdParties::Assets,
    };
    (third_parties, config.egress.max_mib_per_task << 20)
}

fn identity(instance: Option<String>) -> anyhow::Result<WorkerIdentity> {
    let name = match instance {
        Some(name) if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) => {
            return Err(Usage("--instance must have 1 to 100 printable characters".into()).into());
        }
        Some(name) => name,
        None => {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("{host}-{}", std::process::id())
        }
    };
    Ok(new_life(name))
}

/// An identity of this process under a name that earlier processes may have had.
pub fn new_life(name: String) -> WorkerIdentity {
    WorkerIdentity { name, incarnation: format!("{:032x}", rand::random::<u128>()) }
}

/// The first SIGTERM or SIGINT stops politely, the second at once.
///
/// # Errors
/// The signals can't be listened to.
pub fn stop_on_signals() -> anyhow::Result<Stop> {
    let stop = Stop::default();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        for token in [&told.politely, &told.at_once] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(stop)
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
