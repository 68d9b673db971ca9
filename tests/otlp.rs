//! Traces as a collector gets them: from the exporter, and from a worker that ran.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::{Json, Router, routing};
use chrono::Utc;
use pagehand::otlp::{AttemptSpan, Exporter};
use serde_json::{Value, json};

use program::Program;

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

type Got = Arc<Mutex<Vec<Value>>>;

/// A collector on a free port, and what it was sent.
async fn collector() -> (SocketAddr, Got) {
    let got = Got::default();
    let take = async |State(got): State<Got>, Json(body): Json<Value>| {
        got.lock().unwrap().push(body);
        Json(json!({}))
    };
    let app = Router::new().route("/v1/traces", routing::post(take)).with_state(got.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, got)
}

fn spans(got: &Got) -> Vec<Value> {
    let got = got.lock().unwrap();
    got.iter().flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
}

fn attempt(task_id: i64) -> AttemptSpan {
    AttemptSpan {
        trace_id: format!("{task_id:032x}"),
        span_id: format!("{task_id:016x}"),
        traceparent: None,
        task_id,
        task_type: "comment".to_owned(),
        site: "https://example.org".to_owned(),
        retry_count: 0,
        worker: "w".to_owned(),
        started_at: Utc::now(),
        finished_at: Utc::now(),
        failure: None,
        steps: Vec::new(),
    }
}

#[tokio::test]
async fn attempts_arrive_in_batches_and_a_flush_waits_for_them() {
    let (address, got) = collector().await;
    let exporter = Exporter::start(format!("http://{address}").parse().unwrap(), "me".to_owned());
    for n in 1..=120 {
        exporter.send(attempt(n));
    }
    exporter.flush(Duration::from_secs(10)).await;
    assert_eq!((spans(&got).len(), exporter.lost()), (120, 0));
    assert!(got.lock().unwrap().len() <= 4, "{} requests", got.lock().unwrap().len());
    let service = &got.lock().unwrap()[0]["resourceSpans"][0]["resource"]["attributes"];
    assert_eq!(service[2], json!({"key": "service.instance.id", "value": {"stringValue": "me"}}));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_the_traces_and_nothing_else() {
    let exporter = Exporter::start("http://127.0.0.1:9".parse().unwrap(), "me".to_owned());
    for n in 1..=3 {
        exporter.send(attempt(n));
    }
    exporter.flush(Duration::from_secs(10)).await;
    assert_eq!(exporter.lost(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_sends_the_attempts_that_it_made() {
    let (address, got) = collector().await;
    let program = Program::new().await.with("PAGEHAND_TRACES__ENDPOINT", &format!("http://{address}"));
    // Not enrolled, so that its attempt ends before a page is opened.
    sqlx::query(
        "INSERT INTO tasks (task_type, url, site, payload, max_retries, traceparent)
         VALUES ('comment', 'https://example.org/a', 'https://example.org',
                 '{\"author\": \"Ann\", \"email\": \"ann@example.org\", \"body\": \"Hello\"}', 0,
                 '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01')",
    )
    .execute(&program.db.pool)
    .await
    .unwrap();
    let output = program.run(&["worker", "--drain"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let spans = spans(&got);
    assert_eq!(spans[0]["name"], "process tasks");
    assert_eq!(spans[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(spans[0]["attributes"].to_string().contains("policy.not_enrolled"), "{spans:?}");
    assert!(spans[0]["events"].to_string().contains("result_failed"), "{spans:?}");
}
