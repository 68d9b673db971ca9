//! Whether a site may be acted on, and what that means for where its pages' traffic may go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Worker, database};
use crate::browser::{Denial, EgressPolicy};
use crate::failure::{Failure, FailureReason};
use crate::queue::Queue;
use crate::site::{Enrolment, Origin, Origins, check_public_spelling, not_enrolled};
use crate::task::Task;

/// So old the list of all sites may be. A task's own site is looked up anew each time.
const FRESH: Duration = Duration::from_secs(2);
/// So many denials of an attempt go into the audit.
const MOST_AUDITED: usize = 8;

/// All active enrolments, as they were a moment ago.
#[derive(Default)]
pub(super) struct KnownSites(Mutex<Option<(Instant, Known)>>);

#[derive(Clone, Default)]
struct Known {
    all: Arc<Origins>,
    private: Arc<Origins>,
}

/// The enrolment under which pages of `origin` may be acted on now.
pub(super) async fn check_enrolment(queue: &Queue, origin: &Origin) -> Result<Enrolment, Failure> {
    let policy = |code: &'static str, message: String| Failure::terminal(FailureReason::Unknown, code, message);
    let Some((enrolment, now)) = queue.enrolment(origin.as_str()).await.map_err(database)? else {
        return Err(policy("policy.not_enrolled", not_enrolled(origin.as_str())));
    };
    enrolment.check_active(now).map_err(|problem| {
        let code = if enrolment.removed_at.is_some() { "policy.not_enrolled" } else { "policy.expired" };
        policy(code, problem)
    })?;
    if !enrolment.allow_private {
        check_public_spelling(origin).map_err(|problem| policy("policy.url_denied", problem))?;
    }
    Ok(enrolment)
}

impl Worker {
    /// Where the traffic of a task on this site may go: the main frame and what is written to any enrolled site. A page of
    /// a public site reaches no private one, though that be enrolled too.
    pub(super) async fn egress_policy(&self, own: &Enrolment) -> Result<EgressPolicy, Failure> {
        let known = self.known_sites().await?;
        let (third_parties, max_bytes) = self.settings.egress;
        let private = if own.allow_private { known.private } else { Arc::default() };
        Ok(EgressPolicy { enrolled: Some(known.all), third_parties, private, max_bytes })
    }

    async fn known_sites(&self) -> Result<Known, Failure> {
        let lock = || self.state.sites.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, known)| known.clone());
        if let Some(known) = kept {
            return Ok(known);
        }
        let sites = self.queue.active_sites().await.map_err(database)?;
        let private = sites.iter().filter(|site| site.allow_private).map(|site| &site.origin).collect();
        let all = sites.iter().map(|site| &site.origin).collect();
        let known = Known { all: Arc::new(all), private: Arc::new(private) };
        *lock() = Some((Instant::now(), known.clone()));
        Ok(known)
    }

    /// Stops the task's site if it keeps us out: its latest attempts have all been blocked.
    pub(super) async fn stop_if_blocked(&self, task: &Task) {
        let run = self.settings.stop_after_blocked;
        let Ok(origin) = task.site.parse::<Origin>() else { return };
        match self.queue.stop_if_blocked(&origin, &self.identity.name, run).await {
            Ok(true) => tracing::warn!(
                event = "site.stopped",
                site = task.site,
                blocked = run,
                "site stopped after a run of blocked attempts; `pagehand site resume` lets its tasks go on"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(event = "site.not_stopped", site = task.site, error = %error, "can't tell whether to stop");
            }
        }
    }

    /// Has an operator learn what a page tried: a line in the log and in the audit for each target. What pages of every day
    /// try, such as telling third parties of a visit, is in the audit once a day.
    pub(super) async fn report_denials(&self, task: &Task, denials: &[Denial]) {
        let (worth_a_look, ordinary): (Vec<_>, Vec<_>) = denials.iter().partition(|denial| denial.kind.is_suspicious());
        for denial in worth_a_look.into_iter().take(MOST_AUDITED).chain(ordinary.into_iter().take(MOST_AUDITED)) {
            let Denial { kind, target, count } = denial;
            let details = json!({"task_id": task.id, "site": task.site, "kind": kind, "count": count});
            let noted = if kind.is_suspicious() {
                tracing::warn!(
                    event = "egress.denied",
                    task_id = task.id.0,
                    site = task.site,
                    kind = kind.code(),
                    target,
                    count,
                    "a page was kept from going where it may not"
                );
                self.queue.note(&self.identity.name, "egress.denied", target, &details).await
            } else {
                self.queue.note_daily(&self.identity.name, "egress.denied", target, &details, &task.site).await
            };
            if let Err(error) = noted {
                tracing::warn!(event = "audit.not_written", task_id = task.id.0, error = %error, "denial not in the audit");
            }
        }
    }
}
