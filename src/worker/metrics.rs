//! What this worker counts, for Prometheus: served by [`Metrics::serve`] where the configuration says so.
//!
//! Labels come from closed lists: a task type that no automation has is `other`, and so is a step beyond the first hundred
//! names. What the queue holds is not counted here: each worker would count the same rows.
//!
//! How attempts end is counted when it is committed, by whoever commits it: their own worker, one that delivers what another
//! kept, or one that takes back what another lost. So the sums over all workers are what the rows say. What an attempt has
//! done (its steps, their time, tokens and cost) is counted where it was done; of a worker that is killed it is lost with
//! the worker.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use http::{Method, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;

use crate::browser::{Denial, DenialKind, PoolStats};
use crate::failure::FailureReason;
use crate::observability::exposition::by_accept;
use crate::queue::{Reaped, Settled, SettlementRecord};
use crate::record::StepRecord;
use crate::task::{TASK_TYPES, Task, TaskStatus};
use crate::telemetry::write_errors_total;

/// Names of steps that become a label.
const MAX_STEP_NAMES: usize = 100;
/// A scraper that is slower is cut off.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How an attempt ends, as its row says it.
const OUTCOMES: [&str; 5] = ["succeeded", "failed", "lost", "released", "cancelled"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    task_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    task_type: &'static str,
    outcome: &'static str,
    failure_reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    task_type: &'static str,
    failure_reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeAndOutcome {
    task_type: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    step: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepName {
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unwritten {
    kind: &'static str,
    errno: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Denied {
    kind: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Dollars = Counter<f64, AtomicU64>;

/// The counters of one worker process.
pub struct Metrics {
    registry: Registry,
    received: Family<Type, Counter>,
    attempts: Family<Attempt, Counter>,
    dead_lettered: Family<Failed, Counter>,
    retries: Family<Failed, Counter>,
    steps: Family<Step, Counter>,
    lease_lost: Counter,
    denied: Family<Denied, Counter>,
    tokens: Family<Type, Counter>,
    cost: Family<Type, Dollars>,
    durations: Histograms<TypeAndOutcome>,
    step_durations: Histograms<StepName>,
    waits: Histograms<Type>,
    in_flight: Gauge,
    last_success: Family<Type, Gauge<f64, AtomicU64>>,
    step_names: Mutex<BTreeSet<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters at 0, with every label that is known beforehand, so that a rate has something to begin from.
    pub fn new() -> Metrics {
        let seconds = || Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]);
        let mut metrics = Metrics {
            registry: Registry::default(),
            received: Family::default(),
            attempts: Family::default(),
            dead_lettered: Family::default(),
            retries: Family::default(),
            steps: Family::default(),
            lease_lost: Counter::default(),
            denied: Family::default(),
            tokens: Family::default(),
            cost: Family::default(),
            durations: Family::new_with_constructor(seconds),
            step_durations: Family::new_with_constructor(seconds),
            waits: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            last_success: Family::default(),
            step_names: Mutex::default(),
        };
        for task_type in TASK_TYPES.into_iter().chain(["other"]) {
            drop(metrics.received.get_or_create(&Type { task_type }));
            drop(metrics.tokens.get_or_create(&Type { task_type }));
            drop(metrics.cost.get_or_create(&Type { task_type }));
            drop(metrics.waits.get_or_create(&Type { task_type }));
            for outcome in OUTCOMES {
                drop(metrics.durations.get_or_create(&TypeAndOutcome { task_type, outcome }));
                if outcome == "lost" {
                    let failure_reason = FailureReason::Unknown.as_str();
                    drop(metrics.attempts.get_or_create(&Attempt { task_type, outcome, failure_reason }));
                } else if outcome != "failed" {
                    drop(metrics.attempts.get_or_create(&Attempt { task_type, outcome, failure_reason: "" }));
                }
            }
            for reason in FailureReason::ALL {
                let failure_reason = reason.as_str();
                drop(metrics.attempts.get_or_create(&Attempt { task_type, outcome: "failed", failure_reason }));
                drop(metrics.dead_lettered.get_or_create(&Failed { task_type, failure_reason }));
                drop(metrics.retries.get_or_create(&Failed { task_type, failure_reason }));
            }
        }
        for (_, kind) in DenialKind::ALL {
            drop(metrics.denied.get_or_create(&Denied { kind }));
        }
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("pagehand_tasks_received", "Tasks claimed", self.received.clone());
        registry.register("pagehand_task_attempts", "Attempts whose end this worker committed", self.attempts.clone());
        registry.register("pagehand_tasks_dead_lettered", "Tasks that failed for good", self.dead_lettered.clone());
        registry.register("pagehand_task_retries_scheduled", "Attempts to be repeated", self.retries.clone());
        registry.register("pagehand_steps", "Steps that ended", self.steps.clone());
        registry.register(
            "pagehand_lease_lost",
            "Attempts abandoned because their lease was lost",
            self.lease_lost.clone(),
        );
        registry.register("pagehand_egress_denied", "Requests and connections kept from pages", self.denied.clone());
        registry.register("pagehand_tokens", "Language-model tokens", self.tokens.clone());
        registry.register("pagehand_cost_usd", "US dollars, by the price table", self.cost.clone());
        registry.register_with_unit(
            "pagehand_task_duration",
            "Time of an attempt",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register_with_unit(
            "pagehand_step_duration",
            "Time of a step",
            Unit::Seconds,
            self.step_durations.clone(),
        );
        registry.register_with_unit(
            "pagehand_queue_wait",
            "From enqueueing to the first attempt",
            Unit::Seconds,
            self.waits.clone(),
        );
        registry.register("pagehand_tasks_in_flight", "Attempts under way", self.in_flight.clone());
        registry.register_with_unit(
            "pagehand_last_success_timestamp",
            "When a task last succeeded",
            Unit::Seconds,
            self.last_success.clone(),
        );
    }

    /// Counts the beginning of an attempt; when what is returned is dropped, it has ended.
    pub(super) fn received(&self, task: &Task) -> InFlight {
        let label = Type { task_type: known(&task.task_type) };
        self.received.get_or_create(&label).inc();
        if task.retry_count == 0 {
            let waited = (Utc::now() - task.created_at).to_std().unwrap_or_default();
            self.waits.get_or_create(&label).observe(waited.as_secs_f64());
        }
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts how an attempt ended, if Postgres has it now.
    pub(super) fn answered(&self, task_type: &str, record: &SettlementRecord, settled: Option<Settled>) {
        match settled {
            Some(Settled::Done) => {}
            Some(Settled::Fenced) | None => return self.lease_lost(),
            // It ends when its lease does, as lost.
            Some(Settled::Refused) => return,
        }
        let task_type = known(task_type);
        let failure_reason = record.failure_reason().map_or("", FailureReason::as_str);
        let (outcome, failure_reason) = match record.outcome() {
            "completed" => ("succeeded", ""),
            "cancelled" => ("cancelled", ""),
            "released" => ("released", ""),
            _ => ("failed", failure_reason),
        };
        self.ended(Attempt { task_type, outcome, failure_reason }, record.execution_time());
        match record.outcome() {
            "completed" => {
                let now = Utc::now().timestamp_millis() as f64 / 1e3;
                self.last_success.get_or_create(&Type { task_type }).set(now);
            }
            "retry" => self.retry(task_type, failure_reason),
            "dead" => self.dead_letter(task_type, failure_reason),
            _ => {}
        }
    }

    /// Counts an attempt that was taken back from another worker.
    pub(super) fn lost(&self, task_type: &str, reaped: &Reaped) {
        let (task_type, failure_reason) = (known(task_type), FailureReason::Unknown.as_str());
        self.ended(Attempt { task_type, outcome: "lost", failure_reason }, reaped.execution_time);
        match reaped.status {
            TaskStatus::Pending => self.retry(task_type, failure_reason),
            TaskStatus::Failed => self.dead_letter(task_type, failure_reason),
            _ => {}
        }
    }

    /// Counts an attempt of this worker whose lease was lost: nothing of it is committed.
    pub(super) fn lease_lost(&self) {
        self.lease_lost.inc();
    }

    fn retry(&self, task_type: &'static str, failure_reason: &'static str) {
        self.retries.get_or_create(&Failed { task_type, failure_reason }).inc();
    }

    fn dead_letter(&self, task_type: &'static str, failure_reason: &'static str) {
        self.dead_lettered.get_or_create(&Failed { task_type, failure_reason }).inc();
    }

    fn ended(&self, attempt: Attempt, took: Duration) {
        let label = TypeAndOutcome { task_type: attempt.task_type, outcome: attempt.outcome };
        self.durations.get_or_create(&label).observe(took.as_secs_f64());
        self.attempts.get_or_create(&attempt).inc();
    }

    /// Counts what was kept from a page.
    pub(super) fn denied(&self, denials: &[Denial]) {
        for denial in denials {
            let name = DenialKind::ALL.iter().find(|(kind, _)| *kind == denial.kind).map_or("other", |(_, name)| name);
            self.denied.get_or_create(&Denied { kind: name }).inc_by(denial.count.into());
        }
    }

    /// Counts the steps of an attempt that ended.
    pub(super) fn steps(&self, task: &Task, steps: &[StepRecord]) {
        let label = Type { task_type: known(&task.task_type) };
        for step in steps {
            let name = self.step_name(&step.name);
            let outcome = if step.ok { "ok" } else { "failed" };
            self.steps.get_or_create(&Step { step: name.clone(), outcome }).inc();
            if step.finished_at != step.started_at {
                self.step_durations.get_or_create(&StepName { step: name }).observe(step.duration.as_secs_f64());
            }
            self.tokens.get_or_create(&label).inc_by(step.tokens.unsigned_abs());
            self.cost.get_or_create(&label).inc_by(step.cost_usd);
        }
    }

    fn step_name(&self, name: &str) -> String {
        let mut names = self.step_names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(name) || names.len() < MAX_STEP_NAMES {
            names.insert(name.to_owned());
            return name.to_owned();
        }
        "other".to_owned()
    }

    /// All of it as OpenMetrics text, with what the browsers and the disk say now.
    pub fn text(&self, browsers: &PoolStats) -> String {
        let mut registry = Registry::default();
        let gauge = |value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            gauge
        };
        let counter = |value: u64| {
            let counter: Counter = Counter::default();
            counter.inc_by(value);
            counter
        };
        registry.register("pagehand_chrome_processes", "Browsers alive", gauge(browsers.pids.len() as u64));
        registry.register("pagehand_chrome_rss_bytes", "Memory of all their processes", gauge(browsers.rss_bytes));
        registry.register("pagehand_browser_launches", "Browsers started", counter(browsers.launches));
        registry.register("pagehand_browser_crashes", "Browsers that ended unasked", counter(browsers.crashes));
        let unwritten = Family::<Unwritten, Counter>::default();
        for kind in
            ["directory", "archive", "init", "steps", "dom", "screenshot", "console", "network", "report", "result"]
        {
            drop(unwritten.get_or_create(&Unwritten { kind, errno: "ENOSPC" }));
        }
        for error in write_errors_total() {
            unwritten.get_or_create(&Unwritten { kind: error.kind, errno: error.errno }).inc_by(error.count);
        }
        registry.register("pagehand_artifact_write_errors", "Writes to run directories that failed", unwritten);
        let (mut now, mut counted) = (String::new(), String::new());
        // Writing to a text can't fail.
        let _ = encode(&mut now, &registry);
        let _ = encode(&mut counted, &self.registry);
        let mut text = now.trim_end().trim_end_matches("# EOF").to_owned();
        let _ = text.write_str(&counted);
        text
    }

    /// Answers `GET /metrics`, for ever.
    pub async fn serve(&self, listener: TcpListener, browsers: impl Fn() -> PoolStats) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let answer = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let found = request.method() == Method::GET && request.uri().path() == "/metrics";
                let (status, (kind, body)) = match found {
                    true => (StatusCode::OK, by_accept(request.headers(), self.text(&browsers()))),
                    false => (
                        StatusCode::NOT_FOUND,
                        ("text/plain; charset=utf-8", "there is only GET /metrics\n".to_owned()),
                    ),
                };
                let mut response = Response::new(http_body_util::Full::<bytes::Bytes>::from(body));
                *response.status_mut() = status;
                response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_LIMIT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // One scraper at a time, and each within its time.
            let _ = tokio::time::timeout(HEADER_LIMIT * 2, connection).await;
        }
    }
}

/// An attempt under way.
pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn known(task_type: &str) -> &'static str {
    TASK_TYPES.into_iter().find(|known| *known == task_type).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_that_is_known_is_there_from_the_beginning_and_no_other_can_be_made() {
        let metrics = Metrics::new();
        for n in 0..1_000 {
            metrics.step_name(&format!("step {n}"));
        }
        assert_eq!(metrics.step_name("step 7"), "step 7");
        assert_eq!(metrics.step_name("step 999"), "other");
        assert_eq!(known("x\" } evil"), "other");
        let text = metrics.text(&PoolStats::default());
        for line in [
            "pagehand_task_attempts_total{task_type=\"comment\",outcome=\"succeeded\",failure_reason=\"\"} 0",
            "pagehand_tasks_dead_lettered_total{task_type=\"other\",failure_reason=\"popup_blocking\"} 0",
            "pagehand_lease_lost_total 0",
            "pagehand_egress_denied_total{kind=\"private_address\"} 0",
            "pagehand_artifact_write_errors_total{kind=\"steps\",errno=\"ENOSPC\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
