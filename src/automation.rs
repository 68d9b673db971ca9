//! Carries tasks out in a page. One [`Automation`] a task type; the worker builds the [`Context`], calls
//! [`Automation::run`] and records what comes back.
//!
//! The order is the same for all: open the page, look at it, get obstacles out of the way, find the form, fill it, send it
//! through the submit gate, and see what the site made of it. Up to the gate everything may be repeated; behind it
//! nothing is: see [`gate`].
//!
//! A failure is made where it is seen and travels up unchanged. The worker takes the `error` snapshot and logs it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tracing::Instrument;

use crate::browser::{BrowserError, Landed, Tab};
use crate::failure::{Failure, FailureReason};
use crate::task::{Payload, Task};
use crate::telemetry::{Dom, Run, Snapshot, SnapshotKind, StepGuard, Usage, save_snapshot_meanwhile};

pub mod comment;
mod confirmation;
mod fallback;
mod filling;
pub mod forms;
pub mod gate;
pub mod inspect;
mod look;
mod meter;
pub mod obstacles;
mod pins;
mod recovery;
pub mod registration;
mod support;
mod verdict;

pub use meter::Meter;
pub use support::{Sites, Support};

/// The code for one `task_type`.
pub trait Automation: Send + Sync {
    /// The name it is enqueued under.
    fn task_type(&self) -> &'static str;

    /// Carries the task out. Takes the `initial` and `final` snapshots itself.
    ///
    /// # Errors
    /// Why the task could not be carried out, by the reasons of [`FailureReason`].
    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Success, Failure>>;
}

/// The automations that a worker knows, by task type.
#[derive(Clone, Default)]
pub struct Registry {
    automations: BTreeMap<&'static str, Arc<dyn Automation>>,
}

impl Registry {
    /// The automations that are built in: `comment` and `registration`.
    pub fn standard() -> Registry {
        let mut registry = Registry::default();
        registry.register(Arc::new(comment::Comment));
        registry.register(Arc::new(registration::Registration));
        registry
    }

    /// Adds an automation, in place of an earlier one of the same task type.
    pub fn register(&mut self, automation: Arc<dyn Automation>) {
        self.automations.insert(automation.task_type(), automation);
    }

    /// The automation for a task type.
    pub fn get(&self, task_type: &str) -> Option<Arc<dyn Automation>> {
        self.automations.get(task_type).cloned()
    }

    /// The task types that are known, sorted.
    pub fn task_types(&self) -> Vec<&'static str> {
        self.automations.keys().copied().collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.automations.keys()).finish()
    }
}

/// What the worker does while a submission is held. The calls come in this order, `commit` and `let_go` once for each press
/// of a form that is split over steps, `outcome` at most once an attempt.
pub trait GateKeeper: Send + Sync {
    /// Renews the lease and commits the intent under the fence.
    fn commit<'a>(&'a self, intent: Value) -> BoxFuture<'a, Result<(), Failure>>;
    /// Notes under the fence that the request is let go now: the last thing before it leaves.
    fn let_go<'a>(&'a self) -> BoxFuture<'a, Result<(), Failure>>;
    /// Notes what came of it. Best effort: by now the site has decided.
    fn outcome<'a>(&'a self, outcome: Value) -> BoxFuture<'a, ()>;
    /// Whether the request was let go: from then on the attempt must not end before the site has answered.
    fn has_let_go(&self) -> bool {
        false
    }
}

/// What an earlier attempt left behind at the gate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpenIntent {
    /// The intent it committed.
    pub intent: Value,
    /// Whether the request was let go. False: it never left.
    pub let_go: bool,
    /// When it was committed, by Postgres' clock.
    pub committed_at: Option<DateTime<Utc>>,
    /// What the site made of it, if that is on record.
    pub outcome: Option<Value>,
}

/// How long each part of an attempt may take.
#[derive(Debug, Clone, Copy)]
pub struct StepLimits {
    /// Loading a page.
    pub navigation: Duration,
    /// Looking at a page: one call into one frame.
    pub look: Duration,
    /// Waiting for a form that is drawn late.
    pub appear: Duration,
    /// Clicking, filling, choosing: one element.
    pub action: Duration,
    /// From the click that submits to the site's answer.
    pub submit: Duration,
    /// Waiting for the answer to show on the page.
    pub answer: Duration,
    /// A snapshot: DOM and picture each.
    pub snapshot: Duration,
    /// A form that is on the page for less than this is not sent yet.
    pub least_before_submit: Duration,
    /// The same for a form that notes when it was opened: it does so to refuse what comes too soon after.
    pub least_before_submit_stamped: Duration,
}

impl Default for StepLimits {
    fn default() -> Self {
        Self {
            navigation: Duration::from_secs(30),
            look: Duration::from_secs(10),
            appear: Duration::from_secs(10),
            action: Duration::from_secs(10),
            submit: Duration::from_secs(30),
            answer: Duration::from_secs(5),
            snapshot: Duration::from_secs(6),
            least_before_submit: Duration::ZERO,
            least_before_submit_stamped: Duration::from_secs(6),
        }
    }
}

/// Everything an automation works with, for one attempt.
pub struct Context {
    /// The task.
    pub task: Task,
    /// Its payload, checked.
    pub payload: Payload,
    /// The browsing context with its page.
    pub tab: Tab,
    /// The record of the attempt.
    pub run: Run,
    /// Asked before the one request that can't be taken back.
    pub gate: Arc<dyn GateKeeper>,
    /// What an earlier attempt left at the gate, if one got that far.
    pub open_intent: Option<OpenIntent>,
    /// End of the attempt.
    pub deadline: Instant,
    /// How long each part may take.
    pub limits: StepLimits,
    /// What the attempt uses and costs. [`Meter::report`] takes what an automation has used.
    pub meter: Meter,
    /// Asked where the classifier finds no form.
    pub assistant: Option<Arc<crate::llm::Client>>,
    /// What belongs to the site beside the task.
    pub support: Support,
}

/// A task that was carried out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Success {
    /// What came of it: `outcome` (`posted`, `held_for_moderation`, `registered`, `needs_email_confirmation`) and, where
    /// they apply, `comment_url`, `recovered`, `evidence`.
    pub details: Map<String, Value>,
}

impl Success {
    /// A success with its outcome.
    pub fn new(outcome: &str) -> Success {
        let mut success = Success::default();
        success.details.insert("outcome".to_owned(), outcome.into());
        success
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Success {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

impl Context {
    /// Runs `work` as a timed step, for no longer than the attempt lasts.
    ///
    /// # Errors
    /// What `work` fails with, or `task.deadline`.
    pub async fn step<T>(
        &self,
        name: &str,
        meta: Value,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut guard = self.run.start_step(name, meta);
        let result = self.within_deadline(name, work).instrument(tracing::info_span!("step", step = name)).await;
        let usage = self.charge(&mut guard);
        guard.finish(result.as_ref().map(|_| ()), usage);
        result
    }

    async fn within_deadline<T>(
        &self,
        name: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        let free = self.gate.has_let_go();
        if !free {
            self.meter.afford(0.0)?;
        }
        let paid_until = self.meter.ends_at().filter(|_| !free).filter(|end| *end < self.deadline);
        let done = match paid_until {
            Some(end) => match tokio::time::timeout_at(end, &mut work).await {
                // What has left can't be called back: what came of it is worth more than it costs to learn.
                Err(_) if self.gate.has_let_go() => tokio::time::timeout_at(self.deadline, work).await,
                Err(_) => return Err(self.meter.exceeded()),
                done => done,
            },
            None => tokio::time::timeout_at(self.deadline, work).await,
        };
        done.unwrap_or_else(|_| {
            let message = format!("the task's time was over during the step {name}");
            Err(Failure::retryable(FailureReason::Timeout, "task.deadline", message))
        })
    }

    /// Charges what was used since the last charge to the step.
    fn charge(&self, step: &mut StepGuard) -> Usage {
        let (sent, received) = self.tab.traffic();
        let (usage, used) = self.meter.charge(sent + received);
        if let Some(used) = used {
            step.note("usage", used);
        }
        usage
    }

    /// Charges what was used since the last step ended, as a step of its own.
    pub fn charge_rest(&self) {
        let mut step = self.run.start_step("usage_charged", json!({}));
        let usage = self.charge(&mut step);
        step.finish(Ok(()), usage);
    }

    /// Notes what was found out, as a step that takes no time.
    pub fn note(&self, name: &str, meta: Value) {
        crate::telemetry::log_step(&self.run, name, meta);
    }

    /// Records what the page looks like now. Never fails the task.
    pub async fn snapshot(&self, kind: SnapshotKind) {
        let dom = self.tab.dom(self.limits.snapshot).await;
        let dom =
            dom.map(|capture| Dom { full_bytes: capture.truncated.then_some(capture.full_bytes), html: capture.html });
        let png = self.tab.screenshot(self.limits.snapshot).await;
        let snapshot =
            Snapshot { dom: dom.map_err(|error| error.to_string()), png: png.map_err(|error| error.to_string()) };
        save_snapshot_meanwhile(&self.run, kind, snapshot).await;
    }

    /// Records the first page that has loaded.
    ///
    /// # Errors
    /// `page.hung`: the page had to be stopped before it could be looked at. What it shows then is not what its visitors
    /// see.
    pub async fn first_snapshot(&self) -> Result<(), Failure> {
        self.snapshot(SnapshotKind::Initial).await;
        if self.tab.counters().scripts_stopped == 0 {
            return Ok(());
        }
        let message = "a script of the page never ends; it was stopped to take the page's picture";
        Err(Failure::retryable(FailureReason::Timeout, "page.hung", message))
    }

    /// Opens the task's page, or another one, as a timed step.
    ///
    /// # Errors
    /// The page did not come. A status that says no is no error here: see [`obstacles::refused_by_status`].
    pub async fn open(&self, step: &str, url: &str) -> Result<Landed, Failure> {
        let mut guard = self.run.start_step(step, json!({ "url": url }));
        let going = async { self.tab.goto(url, self.limits.navigation).await.map_err(failed) };
        let result = self.within_deadline(step, going).instrument(tracing::info_span!("step", step)).await;
        if let Ok(landed) = &result {
            guard.note("status", json!(landed.status));
            guard.note("landed", landed.url.as_str());
            guard.note("loaded", landed.loaded);
        }
        let usage = self.charge(&mut guard);
        guard.finish(result.as_ref().map(|_| ()), usage);
        result
    }
}

/// What a fault of the browser means for the task.
pub(crate) fn failed(error: BrowserError) -> Failure {
    error.to_failure()
}

/// Whether the document changed while we worked on it, so that the same work may go well on the new one.
fn changed_under_us(failure: &Failure) -> bool {
    matches!(failure.code.as_ref(), "dom.stale" | "dom.not_stable" | "browser.target_closed" | "script.exception")
        && failure.retryable
}
