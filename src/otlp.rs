//! Traces and metrics for a collector that speaks OTLP over HTTP, in JSON. An attempt is a span, its timed steps are spans
//! below it, its other steps are events of it; [`metrics`] are what Prometheus would read.
//!
//! The protocol is spoken here, without the SDK: a span is known only when it is over, so there is nothing to propagate and
//! nothing to sample, and what is left is one POST. Encryption and credentials are the business of a collector beside the
//! worker, as is usual for agents.
//!
//! Nothing waits for the collector. Attempts go into a bounded queue; what does not fit, and what could not be sent, is
//! counted and said once a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Method, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::record::StepRecord;

pub mod metrics;

/// Attempts that wait to be sent.
const MOST_WAITING: usize = 1_000;
/// Attempts in one request, and how long the first of them waits for others.
const BATCH: usize = 50;
const GATHER: Duration = Duration::from_secs(1);
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How often it is said that something is lost.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// `SpanKind` of the protocol.
const INTERNAL: u8 = 1;
const CONSUMER: u8 = 5;
/// `StatusCode` of the protocol.
const ERROR: u8 = 2;

/// An attempt that has ended.
#[derive(Debug, Clone)]
pub struct AttemptSpan {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// `traceparent` of whoever enqueued the task.
    pub traceparent: Option<String>,
    /// Number of the task.
    pub task_id: i64,
    /// Name of the automation.
    pub task_type: String,
    /// The origin.
    pub site: String,
    /// Attempts before this one.
    pub retry_count: u32,
    /// Name of the worker.
    pub worker: String,
    /// When it began, by this machine's clock.
    pub started_at: DateTime<Utc>,
    /// When it ended, by the same clock.
    pub finished_at: DateTime<Utc>,
    /// Reason and code, where it failed.
    pub failure: Option<(&'static str, String)>,
    /// Its steps, redacted.
    pub steps: Vec<StepRecord>,
}

enum Message {
    Attempt(Box<AttemptSpan>),
    /// Everything before it has been sent, or given up.
    Flush(oneshot::Sender<()>),
}

/// Sends attempts to a collector, by itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Message>,
    lost: Arc<AtomicU64>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

impl Exporter {
    /// Begins to send to the collector at `endpoint` (`http://HOST:PORT`, to which `/v1/traces` is added), as the process
    /// `instance`.
    pub fn start(endpoint: Url, instance: String) -> Exporter {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        tokio::spawn(send_all(endpoint, instance, waiting, lost.clone()));
        Exporter { queue, lost }
    }

    /// Hands an attempt over. Never waits.
    pub fn send(&self, attempt: AttemptSpan) {
        if self.queue.try_send(Message::Attempt(Box::new(attempt))).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was handed over is sent or given up, `limit` at most.
    pub async fn flush(&self, limit: Duration) {
        let (done, all_done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = all_done.await;
            }
        };
        let _ = timeout(limit, flushed).await;
    }

    /// Attempts that did not reach the collector so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn send_all(endpoint: Url, instance: String, mut waiting: mpsc::Receiver<Message>, lost: Arc<AtomicU64>) {
    let mut said: Option<Instant> = None;
    let (mut told, mut ended) = (0, false);
    while !ended {
        let (mut spans, mut attempts, mut flushed) = (Vec::new(), 0_u64, None);
        let mut until: Option<Instant> = None;
        while attempts < BATCH as u64 && flushed.is_none() && !ended {
            let next = match until {
                None => waiting.recv().await,
                Some(until) => match tokio::time::timeout_at(until, waiting.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Message::Attempt(attempt)) => {
                    until.get_or_insert_with(|| Instant::now() + GATHER);
                    attempts += 1;
                    spans.extend(spans_of(&attempt));
                }
                Some(Message::Flush(done)) => flushed = Some(done),
                None => ended = true,
            }
        }
        if !spans.is_empty() {
            let sent = timeout(LIMIT, post(&endpoint, "v1/traces", request(&instance, spans))).await;
            let problem = sent.unwrap_or_else(|_| Err("it does not answer".to_owned())).err();
            if let Some(problem) = problem {
                lost.fetch_add(attempts, Ordering::Relaxed);
                if said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    let all = lost.load(Ordering::Relaxed);
                    tracing::warn!(event = "traces.lost", attempts = all - told, problem, "traces could not be sent");
                    told = all;
                }
            }
        }
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

/// Sends `body` to the collector's address for one kind of signal.
async fn post(endpoint: &Url, signal: &str, body: Value) -> Result<(), String> {
    let host = endpoint.host_str().ok_or("the address has no host")?;
    let port = endpoint.port_or_known_default().unwrap_or(4318);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/{signal}", endpoint.path().trim_end_matches('/')))
        .header(header::HOST, endpoint.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("pagehand/", env!("CARGO_PKG_VERSION")))
        .body(Full::<Bytes>::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answers {status}")),
    }
}

fn request(instance: &str, spans: Vec<Value>) -> Value {
    json!({"resourceSpans": [{
        "resource": resource(instance),
        "scopeSpans": [{"scope": scope(), "spans": spans}],
    }]})
}

/// The process that all of it is about.
fn resource(instance: &str) -> Value {
    json!({"attributes": attributes([
        ("service.name", json!("pagehand")),
        ("service.version", json!(env!("CARGO_PKG_VERSION"))),
        ("service.instance.id", json!(instance)),
    ])})
}

fn scope() -> Value {
    json!({"name": "pagehand", "version": env!("CARGO_PKG_VERSION")})
}

/// The attempt's span, then those of its timed steps.
fn spans_of(attempt: &AttemptSpan) -> Vec<Value> {
    let (timed, marks): (Vec<_>, Vec<_>) = attempt.steps.iter().partition(|step| !step.duration.is_zero());
    let events: Vec<Value> =
        marks.iter().map(|mark| json!({"timeUnixNano": nanos(mark.finished_at), "name": mark.name})).collect();
    let mut whole = span(attempt, &attempt.span_id, "process tasks", CONSUMER, attempt.started_at, attempt.finished_at);
    let (reason, code) = match &attempt.failure {
        Some((reason, code)) => (json!(reason), json!(code)),
        None => (Value::Null, Value::Null),
    };
    whole["attributes"] = attributes([
        ("messaging.system", json!("postgresql")),
        ("messaging.operation.type", json!("process")),
        ("messaging.operation.name", json!("process")),
        ("messaging.destination.name", json!("tasks")),
        ("messaging.message.id", json!(attempt.task_id.to_string())),
        ("messaging.client.id", json!(attempt.worker)),
        ("pagehand.task.type", json!(attempt.task_type)),
        ("pagehand.task.attempt", json!(attempt.retry_count + 1)),
        ("pagehand.site", json!(attempt.site)),
        ("pagehand.failure_reason", reason),
        ("pagehand.failure_code", code.clone()),
        ("error.type", code),
    ]);
    whole["events"] = events.into();
    whole["links"] = attempt.traceparent.as_deref().and_then(link).into_iter().collect();
    if attempt.failure.is_some() {
        whole["status"] = json!({"code": ERROR});
    }
    let steps = timed.into_iter().map(|step| {
        // Its number makes it different from all others of this trace.
        let id = format!("{:016x}", fnv(&format!("{} {}", attempt.span_id, step.seq)));
        let name = format!("step {}", step.name);
        let mut one = span(attempt, &id, &name, INTERNAL, step.started_at, step.finished_at);
        one["parentSpanId"] = json!(attempt.span_id);
        let failed = (!step.ok).then(|| step.meta.get("failure_code").cloned().unwrap_or(json!("_OTHER")));
        one["attributes"] = attributes([
            ("pagehand.step.seq", json!(step.seq)),
            ("pagehand.step.name", json!(step.name)),
            ("pagehand.step.outcome", json!(if step.ok { "ok" } else { "failed" })),
            ("pagehand.tokens", if step.tokens > 0 { json!(step.tokens) } else { Value::Null }),
            ("pagehand.cost.usd", if step.cost_usd > 0.0 { json!(step.cost_usd) } else { Value::Null }),
            ("error.type", failed.unwrap_or_default()),
        ]);
        if !step.ok {
            one["status"] = json!({"code": ERROR, "message": step.error});
        }
        one
    });
    std::iter::once(whole).chain(steps).collect()
}

fn span(attempt: &AttemptSpan, id: &str, name: &str, kind: u8, from: DateTime<Utc>, to: DateTime<Utc>) -> Value {
    json!({"traceId": attempt.trace_id, "spanId": id, "name": name, "kind": kind,
           "startTimeUnixNano": nanos(from), "endTimeUnixNano": nanos(to.max(from))})
}

/// To the context that the task came with, if that is well-formed.
fn link(traceparent: &str) -> Option<Value> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, span) = (parts.next()?, parts.next()?);
    let fits = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (fits(trace, 32) && fits(span, 16)).then(|| json!({"traceId": trace, "spanId": span}))
}

/// As the protocol has them; what is null is left out.
fn attributes<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    let value = |value: &Value| match value {
        Value::String(text) => json!({"stringValue": text}),
        Value::Bool(flag) => json!({"boolValue": flag}),
        // 64-bit integers are texts in the protocol's JSON.
        Value::Number(number) if number.is_i64() || number.is_u64() => json!({"intValue": number.to_string()}),
        Value::Number(number) => json!({"doubleValue": number}),
        other => json!({"stringValue": other.to_string()}),
    };
    let some = pairs.iter().filter(|(_, value)| !value.is_null());
    some.map(|(key, one)| json!({"key": key, "value": value(one)})).collect()
}

fn nanos(time: DateTime<Utc>) -> String {
    time.timestamp_nanos_opt().unwrap_or_default().to_string()
}

/// FNV-1a: 64 bits of a text, never 0.
fn fnv(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn attempt() -> AttemptSpan {
        let at: DateTime<Utc> = "2024-01-15T10:30:00Z".parse().unwrap();
        let step = |seq, name: &str, ms: u64, ok: bool| StepRecord {
            seq,
            name: name.to_owned(),
            ok,
            started_at: at,
            finished_at: at + TimeDelta::milliseconds(ms as i64),
            duration: Duration::from_millis(ms),
            tokens: if ms > 0 { 12 } else { 0 },
            cost_usd: 0.0,
            error: (!ok).then(|| "too late".to_owned()),
            meta: json!({"failure_code": "nav.timeout"}),
        };
        AttemptSpan {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            span_id: "00f067aa0ba902b7".to_owned(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01".to_owned()),
            task_id: 7,
            task_type: "comment".to_owned(),
            site: "https://example.org".to_owned(),
            retry_count: 1,
            worker: "w1".to_owned(),
            started_at: at,
            finished_at: at + TimeDelta::seconds(2),
            failure: Some(("timeout", "nav.timeout".to_owned())),
            steps: vec![step(1, "task_locked", 0, true), step(2, "open_page", 1_500, false)],
        }
    }

    #[test]
    fn an_attempt_is_a_span_with_its_steps_below_it_and_its_marks_as_events() {
        let spans = spans_of(&attempt());
        assert_eq!(spans.len(), 2);
        let (whole, step) = (&spans[0], &spans[1]);
        assert_eq!((&whole["name"], &whole["kind"]), (&json!("process tasks"), &json!(5)));
        assert_eq!(whole["events"][0]["name"], "task_locked");
        assert_eq!(whole["links"][0]["spanId"], "1111111111111111");
        assert_eq!(whole["endTimeUnixNano"], "1705314602000000000");
        let attribute = |span: &Value, key: &str| {
            let all = span["attributes"].as_array().unwrap().iter();
            all.filter(|one| one["key"] == key).map(|one| one["value"].clone()).next()
        };
        assert_eq!(attribute(whole, "pagehand.task.attempt"), Some(json!({"intValue": "2"})));
        assert_eq!(attribute(whole, "error.type"), Some(json!({"stringValue": "nav.timeout"})));
        assert_eq!((&step["name"], &step["parentSpanId"]), (&json!("step open_page"), &whole["spanId"]));
        assert_eq!(step["status"], json!({"code": 2, "message": "too late"}));
        assert_eq!(attribute(step, "pagehand.tokens"), Some(json!({"intValue": "12"})));
        assert_eq!(attribute(step, "pagehand.cost.usd"), None);
    }

    #[test]
    fn an_attempt_that_succeeded_has_no_error_and_a_broken_traceparent_no_link() {
        let mut attempt = attempt();
        (attempt.failure, attempt.steps, attempt.traceparent) = (None, Vec::new(), Some("00-xyz".to_owned()));
        let whole = &spans_of(&attempt)[0];
        assert_eq!((&whole["status"], &whole["links"]), (&Value::Null, &json!([])));
        assert!(!whole["attributes"].to_string().contains("error.type"));
    }
}
