//! Keeps the leases of this process alive, and stops each attempt that lost its own.
//!
//! One statement renews all leases at a third of their length. Every attempt also has a deadline on this process' own
//! monotonic clock, counted from *before* the renewal was sent and shorter than the lease by a margin: if (and only if)
//! it passes, the attempt is stopped here, before Postgres can give the task to anybody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::outage::Outage;
use super::verdict::Ended;
use crate::fault;
use crate::queue::{Queue, Renewal};
use crate::record::StepRecord;
use crate::task::Lease;
use crate::telemetry::Run;

/// All leases that this process holds.
pub(super) struct Heartbeat {
    queue: Queue,
    lease: Duration,
    held: Mutex<HashMap<Lease, Entry>>,
}

struct Entry {
    /// After this the lease may be somebody else's.
    deadline: Instant,
    stop: watch::Sender<Option<Ended>>,
    run: Option<Run>,
    /// Steps taken from the run that the database does not have yet.
    backlog: Vec<StepRecord>,
}

/// An attempt's side of its lease. Dropping it ends the renewals.
pub(super) struct Held {
    heartbeat: Arc<Heartbeat>,
    lease: Lease,
    stop: watch::Receiver<Option<Ended>>,
}

impl Held {
    /// Waits until the attempt has to end before it is done.
    pub(super) async fn stopped(&self) -> Ended {
        let mut stop = self.stop.clone();
        let ended = stop.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| ended.clone()).unwrap_or(Ended::LeaseLost)
    }

    /// Waits until the lease is lost, whatever else the attempt was told before.
    pub(super) async fn lease_lost(&self) {
        let mut stop = self.stop.clone();
        // Err: the heartbeat is gone, and nobody renews.
        let _ = stop.wait_for(|ended| matches!(ended, Some(Ended::LeaseLost))).await;
    }

    /// Whether the lease is known to be ours now.
    pub(super) fn is_ours(&self) -> bool {
        let held = self.heartbeat.lock();
        if !fault::guard!("heartbeat.is_ours") {
            return true;
        }
        let in_time = held.get(&self.lease).is_some_and(|entry| entry.deadline > Instant::now());
        in_time && !matches!(*self.stop.borrow(), Some(Ended::LeaseLost))
    }

    /// The lease was renewed outside of the heartbeat, by a statement sent at `sent`.
    pub(super) fn renewed(&self, sent: Instant) {
        self.heartbeat.extend(self.lease, sent);
    }

    /// The lease was found lost outside of the heartbeat.
    pub(super) fn lost(&self) {
        self.heartbeat.stop(self.lease, &Ended::LeaseLost);
    }

    /// A person was found to have called the task off, outside of the heartbeat.
    pub(super) fn cancelled(&self) {
        self.heartbeat.stop(self.lease, &Ended::Cancelled);
    }

    /// From now on a lost lease also ends the writing of this record, and its steps reach the database as they happen.
    pub(super) fn attach(&self, run: &Run) {
        if let Some(entry) = self.heartbeat.lock().get_mut(&self.lease) {
            entry.run = Some(run.clone());
        }
        if !self.is_ours() {
            run.revoke();
        }
    }

    /// Steps that the database does not have yet.
    pub(super) fn take_backlog(&self) -> Vec<StepRecord> {
        let mut held = self.heartbeat.lock();
        let Some(entry) = held.get_mut(&self.lease) else { return Vec::new() };
        let mut steps = std::mem::take(&mut entry.backlog);
        if let Some(run) = &entry.run {
            steps.extend(run.take_steps());
        }
        steps
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.heartbeat.lock().remove(&self.lease);
    }
}

impl Heartbeat {
    pub(super) fn new(queue: Queue, lease: Duration) -> Arc<Self> {
        Arc::new(Self { queue, lease, held: Mutex::default() })
    }

    /// Begins to renew a lease that was claimed by a statement sent at `sent`.
    pub(super) fn hold(self: &Arc<Self>, lease: Lease, sent: Instant) -> Held {
        let (stop, receiver) = watch::channel(None);
        let entry = Entry { deadline: self.deadline(sent), stop, run: None, backlog: Vec::new() };
        self.lock().insert(lease, entry);
        Held { heartbeat: self.clone(), lease, stop: receiver }
    }

    /// Stops every attempt, for example because the time to drain is over.
    pub(super) fn stop_all(&self, ended: &Ended) {
        let leases: Vec<Lease> = self.lock().keys().copied().collect();
        for lease in leases {
            self.stop(lease, ended);
        }
    }

    /// Renews for ever, reporting each completed round to `progress`. Ends when dropped.
    pub(super) async fn renew_for_ever(&self, outage: &Outage, progress: impl Fn()) {
        let mut every = tokio::time::interval(self.lease / 3);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if self.renew_once(outage).await {
                self.flush_steps().await;
            }
            progress();
        }
    }

    /// Stops, for ever, whatever passed its deadline. Apart from the renewals, which may hang on a dead connection.
    pub(super) async fn fence_for_ever(&self) {
        let longest = (self.lease / 10).min(Duration::from_millis(250));
        loop {
            let now = Instant::now();
            let late: Vec<Lease> =
                self.lock().iter().filter(|(_, entry)| entry.deadline <= now).map(|(lease, _)| *lease).collect();
            for lease in late.into_iter().filter(|_| fault::guard!("heartbeat.self_fence")) {
                self.stop(lease, &Ended::LeaseLost);
            }
            tokio::time::sleep(longest).await;
        }
    }

    /// False: Postgres could not be asked.
    async fn renew_once(&self, outage: &Outage) -> bool {
        let leases: Vec<Lease> = self.lock().keys().copied().collect();
        if leases.is_empty() {
            return true;
        }
        let sent = Instant::now();
        let renewals = match tokio::time::timeout(self.lease / 3, self.queue.renew(&leases, self.lease)).await {
            Ok(Ok(renewals)) => renewals,
            Ok(Err(error)) => {
                outage.failed("leases are not renewed", error);
                return false;
            }
            Err(_) => {
                outage.failed("leases are not renewed", "no answer");
                return false;
            }
        };
        outage.over();
        for (lease, renewal) in renewals {
            match renewal {
                Renewal::Held => self.extend(lease, sent),
                Renewal::CancelRequested => {
                    self.extend(lease, sent);
                    self.stop(lease, &Ended::Cancelled);
                }
                Renewal::Lost => self.stop(lease, &Ended::LeaseLost),
            }
        }
        true
    }

    async fn flush_steps(&self) {
        let waiting: Vec<(Lease, Vec<StepRecord>)> = {
            let mut held = self.lock();
            held.iter_mut()
                .map(|(lease, entry)| {
                    if let Some(run) = &entry.run {
                        entry.backlog.extend(run.take_steps());
                    }
                    (*lease, entry.backlog.clone())
                })
                .filter(|(_, steps)| !steps.is_empty())
                .collect()
        };
        for (lease, steps) in waiting {
            let recorded = tokio::time::timeout(self.lease / 3, self.queue.record_steps(lease, &steps)).await;
            // What was not recorded goes with the next round or with the settlement; a step sent twice is kept once.
            if matches!(recorded, Ok(Ok(_)))
                && let Some(entry) = self.lock().get_mut(&lease)
            {
                entry.backlog.retain(|step| !steps.iter().any(|sent| sent.seq == step.seq));
            }
        }
    }

    fn extend(&self, lease: Lease, sent: Instant) {
        if let Some(entry) = self.lock().get_mut(&lease) {
            entry.deadline = entry.deadline.max(self.deadline(sent));
        }
    }

    fn stop(&self, lease: Lease, ended: &Ended) {
        let held = self.lock();
        let Some(entry) = held.get(&lease) else { return };
        let lost = matches!(ended, Ended::LeaseLost);
        if lost && let Some(run) = &entry.run {
            run.revoke();
        }
        entry.stop.send_if_modified(|current| {
            let news = current.is_none() || lost && !matches!(current, Some(Ended::LeaseLost));
            if news {
                *current = Some(ended.clone());
            }
            news
        });
    }

    /// A fifth of the lease is left for clocks that differ in speed and for what is under way to end.
    fn deadline(&self, sent: Instant) -> Instant {
        sent + self.lease * 4 / 5
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Lease, Entry>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
