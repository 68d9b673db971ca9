//! The worker: claim → attempt → record → settle, until told to stop.
//!
//! [`Worker::run`] is the whole flow on one screen. Beside it, in the same process, [`heartbeat`] renews the leases and
//! stops what lost its own, and [`reaper`] takes back what other workers lost. An attempt is one file,
//! [`attempt`]; what becomes of the task afterwards is decided by one pure function, [`verdict::decide`].
//!
//! A worker that can't reach Postgres, can't write its runs directory or can't start Chrome stays up, claims nothing,
//! says so, and tries again with growing waits. What it has finished meanwhile is kept beside the runs, [`outcomes`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::automation::Registry;
use crate::browser::{BrowserError, BrowserPool, Tab, TabOptions, ThirdParties, UpstreamProxy};
use crate::config::{self, SecretRef};
use crate::cost::{Budget, Prices};
use crate::failure::{Failure, FailureReason};
use crate::otlp::Exporter;
use crate::queue::wake::Wake;
use crate::queue::{Claimed, ProxyId, Queue, QueueError, WorkerIdentity};
use crate::retry::{Reconnect, RetryPolicy};
use crate::task::Lease;
use crate::telemetry::RunsDir;

mod attempt;
mod enrolment;
mod gatekeeper;
mod heartbeat;
mod metrics;
mod outage;
mod outcomes;
mod reaper;
mod robots;
mod spending;
mod support;
mod trace;
mod verdict;

use attempt::{Before, attempt};
use enrolment::KnownSites;
use heartbeat::{Heartbeat, Held};
pub use metrics::Metrics;
use outage::Outage;
use robots::KnownRobots;
use trace::Trace;
use verdict::Ended;

/// Launches in a row that may fail before the worker pauses.
const LAUNCH_FAILURES: u32 = 5;
/// Most tasks taken in one claim.
const LARGEST_CLAIM: usize = 64;
/// How long attempts that were told to stop may take to record and settle.
const STOP_GRACE: Duration = Duration::from_secs(20);

/// How long the last try to deliver outcomes may take.
const LAST_DELIVERY: Duration = Duration::from_secs(8);

/// What a worker is made of. All parts are handles; the caller owns the processes behind them.
pub struct Worker {
    /// Where tasks come from and results go.
    pub queue: Queue,
    /// Who claims.
    pub identity: WorkerIdentity,
    /// Where the record goes.
    pub runs: RunsDir,
    /// Chrome.
    pub browsers: BrowserPool,
    /// Which automations this worker knows.
    pub registry: Registry,
    /// How it works.
    pub settings: Settings,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    state: State,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tasks at once.
    pub concurrency: u32,
    /// How long a task stays ours without a renewal.
    pub lease: Duration,
    /// How long running tasks may go on after a stop was asked for.
    pub drain: Duration,
    /// The longest an attempt may take.
    pub task_timeout: Duration,
    /// How often the queue is looked at when no wake-up comes.
    pub poll: Duration,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// What Chrome says of itself.
    pub user_agent: String,
    /// Whether Chrome's sandbox is on; goes on every record.
    pub sandbox: bool,
    /// A site is stopped after so many attempts in a row that were blocked; 0: never.
    pub stop_after_blocked: u32,
    /// What pages may load from hosts that are not enrolled, and most bytes of an attempt.
    pub egress: (ThirdParties, u64),
    /// What things cost.
    pub prices: Arc<Prices>,
    /// What may be spent.
    pub budget: Budget,
    /// Asked where the classifier finds no form.
    pub assistant: Option<Arc<crate::llm::Client>>,
    /// Where traces go.
    pub traces: Option<Exporter>,
    /// The mailbox of sites whose profile names none.
    pub mailbox: config::Mailbox,
}

/// When [`Worker::run`] ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Only when told to stop.
    Stopped,
    /// Also when nothing is pending or running any more, waiting retries included.
    Drained,
}

/// Tells a worker to stop; cancelled twice over: first politely, then at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No new claims; running tasks may go on for [`Settings::drain`].
    pub politely: CancellationToken,
    /// Running tasks are given back now.
    pub at_once: CancellationToken,
}

/// What the worker knows of itself.
#[derive(Default)]
struct State {
    launch_failures: AtomicU32,
    /// Rounds of the loop and of the heartbeat: both must grow for the watchdog to be fed.
    rounds: AtomicU64,
    beats: AtomicU64,
    attempts: AtomicU64,
    attempt_ended: Notify,
    sites: KnownSites,
    robots: KnownRobots,
    /// An outcome waits beside the runs.
    outcome_kept: Notify,
    /// Held while final results that are due are written: whoever ends waits for what another has begun.
    writing_records: Mutex<()>,
    outage: Outage,
}

/// Why no tasks are claimed just now.
enum NotClaiming {
    Postgres(QueueError),
    /// They could not be carried out, or not be recorded.
    Unfit(String),
}

/// A proxy that an attempt was given.
pub(crate) struct GivenProxy {
    pub(crate) id: ProxyId,
    pub(crate) upstream: UpstreamProxy,
}

impl Worker {
    /// Puts a worker together; nothing runs yet.
    pub fn new(
        queue: Queue,
        identity: WorkerIdentity,
        runs: RunsDir,
        browsers: BrowserPool,
        registry: Registry,
        settings: Settings,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        Self { queue, identity, runs, browsers, registry, settings, metrics, state: State::default() }
    }

    /// Claims and works off tasks until `until` or `stop`; returns the number of attempts made.
    pub async fn run(self: Arc<Self>, until: Until, stop: Stop) -> u64 {
        let heartbeat = Heartbeat::new(self.queue.clone(), self.settings.lease);
        let helpers = self.start_helpers(&heartbeat);
        let mut wake = self.queue.listen();
        let slots = Arc::new(Semaphore::new(self.settings.concurrency as usize));
        let attempts = TaskTracker::new();
        let mut trouble = Reconnect::new(Duration::from_millis(200), Duration::from_secs(60));
        // First what is known of them, then what is not.
        if let Err(problem) = outcomes::deliver(&self).await {
            self.state.outage.failed("kept outcomes can't be delivered", problem);
        }
        reaper::reap_previous_life(&self).await;

        while !stop.politely.is_cancelled() {
            let started = Instant::now();
            let wait = match self.claim(&slots, &heartbeat).await {
                Ok(found) => {
                    trouble.reset();
                    let nothing = found.is_empty();
                    for (claimed, held, before) in found {
                        let before = Before { started, ..before };
                        // One is free for each: only this loop takes them, and it claimed no more than there were.
                        let slot = slots.clone().try_acquire_owned().ok();
                        attempts.spawn(self.clone().work_off(claimed, before, held, slot));
                    }
                    if nothing && until == Until::Drained && self.is_drained(&attempts).await {
                        break;
                    }
                    // Only an empty claim says that there is nothing more.
                    if nothing || slots.available_permits() == 0 { self.settings.poll } else { Duration::ZERO }
                }
                Err(NotClaiming::Postgres(error)) => {
                    self.state.outage.failed("no tasks are claimed", error);
                    trouble.next_wait()
                }
                Err(NotClaiming::Unfit(problem)) => {
                    let wait = trouble.next_wait();
                    tracing::warn!(event = "worker.not_claiming", problem = %problem, wait_ms = wait.as_millis() as u64, "not claiming");
                    wait
                }
            };
            self.tell_systemd(attempts.len());
            self.wait_for_work(wait, &slots, &mut wake, &stop).await;
        }

        self.drain(&attempts, &heartbeat, &stop).await;
        helpers.cancel();
        self.state.attempts.load(Ordering::Relaxed)
    }

    async fn work_off(
        self: Arc<Self>,
        claimed: Claimed,
        before: Before,
        held: Held,
        slot: Option<OwnedSemaphorePermit>,
    ) {
        let (task, trace) = (&claimed.task, before.trace);
        let span = tracing::info_span!(
            "attempt",
            task_id = task.id.0,
            attempt = claimed.fence.0,
            retry_count = task.retry_count,
            task_type = task.task_type,
            site = task.site,
            request_id = task.request_id.as_deref(),
            trace_id = trace.trace_id(),
            span_id = trace.span_id(),
        );
        attempt(&self, claimed, before, held).instrument(span).await;
        drop(slot);
        self.state.attempt_ended.notify_one();
    }

    /// Takes as many tasks as there are free slots.
    async fn claim(
        &self,
        slots: &Semaphore,
        heartbeat: &Arc<Heartbeat>,
    ) -> Result<Vec<(Claimed, Held, Before)>, NotClaiming> {
        self.state.rounds.fetch_add(1, Ordering::Relaxed);
        let free = slots.available_permits().min(LARGEST_CLAIM);
        if free == 0 {
            return Ok(Vec::new());
        }
        self.fit_to_work().map_err(NotClaiming::Unfit)?;
        let free = self.affordable(free).await.map_err(NotClaiming::Unfit)?;
        let sent = Instant::now();
        let claimed = self.queue.claim(&self.identity, free as u32, self.settings.lease).await;
        let claimed = claimed.map_err(NotClaiming::Postgres)?;
        self.state.outage.over();
        let locked = Instant::now();
        self.state.attempts.fetch_add(claimed.len() as u64, Ordering::Relaxed);
        let hold = |claimed: Claimed| {
            let lease = Lease { task_id: claimed.task.id, fence: claimed.fence };
            let trace = Trace::of(claimed.task.traceparent.as_deref());
            (claimed, heartbeat.hold(lease, sent), Before { started: sent, locking: sent, locked, trace })
        };
        Ok(claimed.into_iter().map(hold).collect())
    }

    /// Whether a task taken now could be carried out and recorded.
    fn fit_to_work(&self) -> Result<(), String> {
        self.runs.check_writable().map_err(|error| format!("the runs directory can't be written: {error}"))?;
        outcomes::check_room(self)?;
        if self.state.launch_failures.load(Ordering::Relaxed) >= LAUNCH_FAILURES {
            // One task tries again after the wait.
            self.state.launch_failures.store(LAUNCH_FAILURES - 1, Ordering::Relaxed);
            return Err("Chrome could not be started several times in a row; `pagehand doctor` says why".to_owned());
        }
        Ok(())
    }

    async fn wait_for_work(&self, wait: Duration, slots: &Semaphore, wake: &mut Wake, stop: &Stop) {
        tokio::select! {
            () = stop.politely.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
            () = wake.woken(), if slots.available_permits() > 0 => {}
            // A free slot, here or at a site with a limit, is filled at once.
            () = self.state.attempt_ended.notified() => {}
        }
    }

    async fn is_drained(&self, attempts: &TaskTracker) -> bool {
        if !attempts.is_empty() {
            return false;
        }
        let Ok(live) = self.queue.live().await else { return false };
        // What waits for a person to resume its site is not waited for.
        let waits =
            live.pending == 0 || self.queue.waiting_for_stopped_sites().await.is_ok_and(|n| n >= live.pending as u64);
        live.running == 0 && waits
    }

    /// Lets running tasks end; what is left after the time for it is given back, uncharged.
    async fn drain(&self, attempts: &TaskTracker, heartbeat: &Heartbeat, stop: &Stop) {
        attempts.close();
        if !attempts.is_empty() {
            tracing::info!(event = "worker.draining", tasks = attempts.len(), "draining");
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tokio::select! {
            () = attempts.wait() => return self.settle_up().await,
            () = tokio::time::sleep(self.settings.drain) => {}
            () = stop.at_once.cancelled() => {}
        }
        heartbeat.stop_all(&Ended::Shutdown);
        if tokio::time::timeout(STOP_GRACE, attempts.wait()).await.is_err() {
            tracing::error!(event = "worker.tasks_abandoned", tasks = attempts.len(), "tasks left to the reaper");
        }
        self.settle_up().await;
    }

    /// One last try to deliver what is kept and to write what is due. What fails stays for the next life of this worker.
    async fn settle_up(&self) {
        let tried = tokio::time::timeout(LAST_DELIVERY, outcomes::deliver(self)).await;
        if !matches!(tried, Ok(Ok(()))) {
            tracing::warn!(event = "outcome.left", "outcomes wait beside the runs for the next worker");
        }
        let tried = tokio::time::timeout(LAST_DELIVERY, reaper::write_records(self)).await;
        if !matches!(tried, Ok(Ok(()))) {
            tracing::warn!(event = "record.left", "final results of lost attempts are left to the next worker");
        }
    }

    /// Heartbeat, fence, reaper and watchdog, until the token is cancelled.
    fn start_helpers(self: &Arc<Self>, heartbeat: &Arc<Heartbeat>) -> CancellationToken {
        let done = CancellationToken::new();
        let (worker, beat) = (self.clone(), heartbeat.clone());
        let renewals = async move {
            beat.renew_for_ever(&worker.state.outage, || {
                worker.state.beats.fetch_add(1, Ordering::Relaxed);
            })
            .await;
        };
        let (worker, beat) = (self.clone(), heartbeat.clone());
        let fence = async move { beat.fence_for_ever().await };
        let reaper = async move { reaper::reap_for_ever(&worker).await };
        tokio::spawn(done.clone().run_until_cancelled_owned(spending::roll_up_for_ever(self.queue.clone())));
        let worker = self.clone();
        let outcomes = async move { outcomes::deliver_for_ever(&worker).await };
        let worker = self.clone();
        let watchdog = async move { worker.feed_watchdog().await };
        tokio::spawn(done.clone().run_until_cancelled_owned(renewals));
        tokio::spawn(done.clone().run_until_cancelled_owned(fence));
        tokio::spawn(done.clone().run_until_cancelled_owned(reaper));
        tokio::spawn(done.clone().run_until_cancelled_owned(outcomes));
        tokio::spawn(done.clone().run_until_cancelled_owned(watchdog));
        done
    }

    /// Tells systemd's watchdog that we live, if (and only if) the loop and the heartbeat both went on since last time.
    async fn feed_watchdog(&self) {
        let Some(limit) = sd_notify::watchdog_enabled() else { return };
        let mut seen = (0, 0);
        loop {
            let now = (self.state.rounds.load(Ordering::Relaxed), self.state.beats.load(Ordering::Relaxed));
            if now.0 != seen.0 && now.1 != seen.1 {
                seen = now;
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            tokio::time::sleep(limit / 4).await;
        }
    }

    fn tell_systemd(&self, running: usize) {
        let status = if running == 0 { "idle".to_owned() } else { format!("{running} tasks running") };
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);
    }

    async fn open_tab(&self, options: TabOptions) -> Result<Tab, Failure> {
        let opened = self.browsers.open(options).await;
        match &opened {
            Ok(_) => self.state.launch_failures.store(0, Ordering::Relaxed),
            Err(BrowserError::LaunchFailed { .. }) => {
                self.state.launch_failures.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        opened.map_err(|error| error.to_failure())
    }

    async fn take_proxy(&self, site: &str) -> Result<Option<GivenProxy>, Failure> {
        let Some(proxy) = self.queue.take_proxy(site).await.map_err(database)? else {
            return self.no_proxy(site).await;
        };
        let refuse = |problem: String| {
            let message = format!("the password of proxy {} can't be had: {problem}", proxy.id.0);
            Failure::retryable(FailureReason::Unknown, "proxy.auth", message)
        };
        let password: Option<SecretString> = match &proxy.password_ref {
            None => None,
            Some(text) => {
                let reference: SecretRef =
                    text.parse().map_err(|error: crate::config::SecretRefError| refuse(error.to_string()))?;
                Some(reference.resolve().map_err(|error| refuse(error.to_string()))?)
            }
        };
        let url = proxy.url.parse().map_err(|error| refuse(format!("its address is no URL: {error}")))?;
        let upstream = UpstreamProxy { url, username: proxy.username.clone(), password };
        Ok(Some(GivenProxy { id: proxy.id, upstream }))
    }

    /// Without a proxy a task goes out directly, unless the site has some and all of them rest.
    async fn no_proxy(&self, site: &str) -> Result<Option<GivenProxy>, Failure> {
        let Some(back) = self.queue.proxy_rest(site).await.map_err(database)? else { return Ok(None) };
        let now = self.queue.now().await.map_err(database)?;
        let message = format!("all proxies for {site} rest after failures; `pagehand proxy ls` says which and why");
        let failure = Failure::retryable(FailureReason::Unknown, "proxy.resting", message);
        Err(failure.after((back - now).to_std().ok()))
    }

    /// Notes how the proxy did; a failing one rests for a while, and so does the task if there is no other.
    async fn return_proxy<T>(
        &self,
        proxy: &GivenProxy,
        site: &str,
        result: Result<T, (Ended, bool)>,
    ) -> Result<T, (Ended, bool)> {
        let (noted, result) = match result {
            Err((Ended::Failed(failure), panicked)) if failure.code.starts_with("proxy.") => {
                let noted = self.queue.proxy_failed(proxy.id, &failure.message).await;
                let rests = self.no_proxy(site).await.err().and_then(|resting| resting.retry_after);
                let failure = Failure { retry_after: failure.retry_after.max(rests), ..failure };
                (noted, Err((Ended::Failed(failure), panicked)))
            }
            result => (self.queue.proxy_worked(proxy.id).await, result),
        };
        if let Err(error) = noted {
            tracing::warn!(event = "proxy.not_noted", proxy_id = proxy.id.0, error = %error, "result of the proxy not noted");
        }
        result
    }
}

fn database(error: QueueError) -> Failure {
    Failure::retryable(FailureReason::Unknown, "infra.database", "postgres could not be asked").caused_by(&error)
}

/// Who we are: product and version, and whom to ask.
pub fn user_agent(contact: Option<&str>) -> String {
    let product = concat!("pagehand/", env!("CARGO_PKG_VERSION"));
    contact.map_or_else(|| product.to_owned(), |contact| format!("{product} (+{contact})"))
}
