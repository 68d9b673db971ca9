//! What the worker does while a submission is held at the gate: no lease, no submission.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::heartbeat::Held;
use super::verdict::Ended;
use crate::automation::GateKeeper;
use crate::failure::{Failure, FailureReason};
use crate::queue::{Queue, QueueError, SiteRefusal};
use crate::task::Lease;
use crate::telemetry::{Run, log_step};

/// Commits the intent of one attempt under its fence.
pub(super) struct Gate {
    pub(super) queue: Queue,
    pub(super) run: Run,
    pub(super) lease: Lease,
    pub(super) length: Duration,
    pub(super) held: Arc<Held>,
    /// From here on the site may have acted: the attempt is no longer given back or called off.
    pub(super) let_go: AtomicBool,
    /// What the site made of it is known.
    pub(super) answered: AtomicBool,
}

impl Gate {
    /// Whether a submission has left and its answer is not known.
    pub(super) fn is_open(&self) -> bool {
        self.let_go.load(Ordering::SeqCst) && !self.answered.load(Ordering::SeqCst)
    }

    async fn commit_intent(&self, intent: Value) -> Result<(), Failure> {
        if !self.held.is_ours() {
            return Err(lease_lost());
        }
        // Nobody acts on what it says; the page's address may hold what the task keeps secret.
        let intent = self.run.redactor().value(&intent);
        let (sent, step) = (Instant::now(), intent.clone());
        // The request is held meanwhile; a page waits that long, and no longer than the lease allows.
        let committed =
            tokio::time::timeout(self.length / 2, self.queue.commit_intent(self.lease, &intent, self.length));
        match committed.await {
            Ok(Ok(())) => {
                self.held.renewed(sent);
                log_step(&self.run, "submit_intent_committed", step);
                Ok(())
            }
            Ok(Err(QueueError::LeaseLost(_))) => {
                self.held.lost();
                Err(lease_lost())
            }
            Ok(Err(QueueError::CancelRequested(_))) => {
                self.held.cancelled();
                Err(Ended::Cancelled.failure())
            }
            Ok(Err(QueueError::SiteRefused(refusal))) => Err(refused(refusal)),
            Ok(Err(error)) => Err(not_recorded(&error.to_string())),
            Err(_) => Err(not_recorded("no answer from postgres")),
        }
    }

    async fn mark_let_go(&self) -> Result<(), Failure> {
        let marked = tokio::time::timeout(self.length / 2, self.queue.mark_let_go(self.lease)).await;
        let refused = match marked {
            Ok(Ok(())) if self.held.is_ours() => {
                self.let_go.store(true, Ordering::SeqCst);
                log_step(&self.run, "submit_let_go", json!({}));
                return Ok(());
            }
            Ok(Ok(()) | Err(QueueError::LeaseLost(_))) => {
                self.held.lost();
                return Err(lease_lost());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer from postgres".to_owned(),
        };
        Err(not_recorded(&refused))
    }
}

impl GateKeeper for Gate {
    fn commit(&self, intent: Value) -> BoxFuture<'_, Result<(), Failure>> {
        self.commit_intent(intent).boxed()
    }

    fn has_let_go(&self) -> bool {
        self.let_go.load(Ordering::SeqCst)
    }

    fn let_go(&self) -> BoxFuture<'_, Result<(), Failure>> {
        self.mark_let_go().boxed()
    }

    fn outcome(&self, outcome: Value) -> BoxFuture<'_, ()> {
        if !self.let_go.load(Ordering::SeqCst) {
            // Nothing left, so there is nothing whose answer could be noted.
            return futures::future::ready(()).boxed();
        }
        self.answered.store(true, Ordering::SeqCst);
        // The site's own words may repeat what the task keeps secret.
        let outcome = self.run.redactor().value(&outcome);
        async move {
            let recorded =
                tokio::time::timeout(self.length / 2, self.queue.record_submit_outcome(self.lease, &outcome)).await;
            if !matches!(recorded, Ok(Ok(()))) {
                // The settlement says the same; without either, the next attempt looks at the site first.
                tracing::warn!(
                    event = "submit.outcome_not_recorded",
                    task_id = self.lease.task_id.0,
                    "outcome not recorded"
                );
            }
        }
        .boxed()
    }
}

fn lease_lost() -> Failure {
    Failure::retryable(FailureReason::Unknown, "infra.lease_lost", "the lease was lost before the submission")
}

fn refused(refusal: SiteRefusal) -> Failure {
    let message = format!("nothing was submitted: {}", refusal.as_str());
    match refusal {
        SiteRefusal::Removed => Failure::terminal(FailureReason::Unknown, "policy.not_enrolled", message),
        SiteRefusal::Expired => Failure::terminal(FailureReason::Unknown, "policy.expired", message),
        SiteRefusal::Stopped => Failure::retryable(FailureReason::Unknown, "policy.stopped", message),
    }
}

fn not_recorded(why: &str) -> Failure {
    let message = format!("the intent to submit could not be put on record, so nothing was submitted: {why}");
    Failure::retryable(FailureReason::Unknown, "infra.database", message)
}
