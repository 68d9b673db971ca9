//! `GET /metrics`: counters of this server, and gauges of the queue, for Prometheus.
//!
//! Only this program gives the gauges of the queue: workers would each count the same rows. Labels come from closed lists:
//! a route is its pattern, a task type that no automation has is `other`.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Shared;
use super::problem::Problem;
use crate::observability::exposition::by_accept;
use crate::task::TASK_TYPES;

/// How long the gauges may take.
const QUEUE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    method: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeAndStatus {
    task_type: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    task_type: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// All that this server counts.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram, fn() -> Histogram>,
    refusals: Family<Refusal, Counter>,
    retries: Family<Source, Counter>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let buckets = || Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        let metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(buckets),
            refusals: Family::default(),
            retries: Family::default(),
        };
        for kind in ["host", "cross_site", "credentials", "role", "login", "login_rate"] {
            metrics.refusals.get_or_create(&Refusal { kind }).inc_by(0);
        }
        for source in ["api", "ui"] {
            metrics.retries.get_or_create(&Source { source }).inc_by(0);
        }
        metrics.registered()
    }

    fn registered(mut self) -> Metrics {
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        let registry = &mut self.registry;
        registry.register("pagehand_http_requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "pagehand_http_request_duration",
            "Time to the first byte of the answer",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("pagehand_auth_failures", "Requests refused, by why", self.refusals.clone());
        registry.register("pagehand_manual_retries", "Dead letters that a person retried", self.retries.clone());
        registry.register("pagehand_build_info", "Always 1; the version is the label", build);
        self
    }

    /// Counts an answer.
    pub fn answered(&self, route: &str, method: &Method, status: u16, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            _ => "other",
        };
        let labels = Request { route: route.to_owned(), method, code: status };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&Route { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// Counts a refused request.
    pub fn refused(&self, kind: &'static str) {
        self.refusals.get_or_create(&Refusal { kind }).inc();
    }

    /// Counts retries by hand.
    pub fn retried(&self, source: &'static str, n: u64) {
        self.retries.get_or_create(&Source { source }).inc_by(n);
    }
}

/// `GET /metrics`
#[utoipa::path(get, path = "/metrics", tag = "watching", responses(
    (status = 200, description = "Prometheus' text 0.0.4; OpenMetrics 1.0.0 to whoever prefers it", content(
        (String = "text/plain"), (String = "application/openmetrics-text"),
    )),
))]
pub async fn serve(State(app): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    let text = text(&app).await.map_err(|_| Problem::internal())?;
    let (kind, text) = by_accept(&headers, text);
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// All of it as OpenMetrics text.
pub async fn text(app: &Shared) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode(&mut text, &queue_gauges(app).await)?;
    let queue = text.trim_end().trim_end_matches("# EOF").to_owned();
    text.clear();
    encode(&mut text, &app.metrics.registry)?;
    Ok(queue + &text)
}

/// Read anew for each scrape; without a database there is only `pagehand_database_up 0`.
async fn queue_gauges(app: &Shared) -> Registry {
    let (depth, oldest, dead) = (
        Family::<TypeAndStatus, Gauge>::default(),
        Family::<Type, Seconds>::default(),
        Family::<Type, Gauge>::default(),
    );
    let up: Gauge = Gauge::default();
    let mut registry = Registry::default();
    registry.register("pagehand_database_up", "Whether Postgres answered this scrape", up.clone());
    let Ok(Ok(depths)) = tokio::time::timeout(QUEUE_LIMIT, app.queue.depths()).await else { return registry };
    up.set(1);
    for task_type in TASK_TYPES.into_iter().chain(["other"]) {
        let of_type = depths.iter().filter(|row| match task_type {
            "other" => !TASK_TYPES.contains(&row.task_type.as_str()),
            known => row.task_type == known,
        });
        let (mut pending, mut running, mut failed, mut waits) = (0, 0, 0, 0.0_f64);
        for row in of_type {
            pending += row.pending;
            running += row.running;
            failed += row.failed;
            waits = waits.max(row.oldest_ready_seconds);
        }
        depth.get_or_create(&TypeAndStatus { task_type, status: "pending" }).set(pending);
        depth.get_or_create(&TypeAndStatus { task_type, status: "running" }).set(running);
        dead.get_or_create(&Type { task_type }).set(failed);
        oldest.get_or_create(&Type { task_type }).set(waits);
    }
    registry.register("pagehand_queue_depth", "Tasks pending and running", depth);
    registry.register_with_unit("pagehand_queue_oldest_ready", "Longest wait of a ready task", Unit::Seconds, oldest);
    registry.register("pagehand_dead_letters", "Tasks whose status is failed", dead);
    registry
}
