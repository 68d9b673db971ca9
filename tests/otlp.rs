//! Traces as a collector gets them: from the exporter, and from a worker that ran.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::{Json, Router, routing};
use chrono::Utc;
use pagehand::otlp::{AttemptSpan, Exporter, metrics};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use program::{Program, signal, until};

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
    let app = Router::new()
        .route("/v1/traces", routing::post(take))
        .route("/v1/metrics", routing::post(take))
        .with_state(got.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, got)
}

fn spans(got: &Got) -> Vec<Value> {
    let got = got.lock().unwrap();
    got.iter().flat_map(|body| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
}

/// What each request said of a metric: its data points.
fn points(got: &Got, name: &str) -> Vec<Vec<Value>> {
    let of = |body: &Value| {
        let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array()?.clone();
        let metric = metrics.into_iter().find(|metric| metric["name"] == name)?;
        let kinds = ["sum", "gauge", "histogram"].into_iter();
        let points = kinds.filter_map(|kind| metric[kind]["dataPoints"].as_array().cloned());
        Some(points.flatten().collect())
    };
    got.lock().unwrap().iter().filter_map(of).collect()
}

/// The data point that has all of these labels.
fn of<'a>(points: &'a [Value], labels: &[&str]) -> &'a Value {
    let has =
        |point: &&Value| labels.iter().all(|label| point["attributes"].to_string().contains(&format!("\"{label}\"")));
    points.iter().find(has).unwrap()
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

#[tokio::test]
async fn metrics_arrive_every_so_often_and_with_a_flush_those_of_now() {
    let (address, got) = collector().await;
    let read = Arc::new(Mutex::new(0_u64));
    let counted = read.clone();
    let text = move || {
        let mut n = counted.lock().unwrap();
        *n += 1;
        std::future::ready(format!(
            "# HELP pagehand_x X.\n# TYPE pagehand_x counter\npagehand_x_total{{a=\"b\"}} {n}\n# EOF\n"
        ))
    };
    let endpoint: url::Url = format!("http://{address}/base/").parse().unwrap();
    let wrong = metrics::Exporter::start(endpoint, "me".to_owned(), Duration::from_secs(3_600), text.clone());
    // Not there: the round is over all the same.
    wrong.flush(Duration::from_secs(10)).await;
    assert_eq!(points(&got, "pagehand_x").len(), 0);
    drop(wrong);
    let endpoint: url::Url = format!("http://{address}").parse().unwrap();
    let exporter = metrics::Exporter::start(endpoint, "me".to_owned(), Duration::from_millis(20), text);
    until("three rounds arrive", async || points(&got, "pagehand_x").len() >= 3).await;
    exporter.flush(Duration::from_secs(10)).await;
    let values: Vec<u64> =
        points(&got, "pagehand_x").iter().map(|points| points[0]["asInt"].as_str().unwrap().parse().unwrap()).collect();
    assert!(
        values.windows(2).all(|pair| pair[0] < pair[1]) && values.last() == Some(&read.lock().unwrap()),
        "{values:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_and_web_server_send_what_they_counted_when_they_end() {
    let (address, got) = collector().await;
    let program = Program::new().await.with("PAGEHAND_METRICS__ENDPOINT", &format!("http://{address}"));
    sqlx::query(
        "INSERT INTO tasks (task_type, url, site, payload, max_retries)
         VALUES ('comment', 'https://example.org/a', 'https://example.org',
                 '{\"author\": \"Ann\", \"email\": \"ann@example.org\", \"body\": \"Hello\"}', 0)",
    )
    .execute(&program.db.pool)
    .await
    .unwrap();
    let output = program.run(&["worker", "--drain", "--instance", "w"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Its rounds are a minute apart: this one came with the end.
    let dead = points(&got, "pagehand_tasks_dead_lettered");
    let unknown = of(dead.last().unwrap(), &["comment", "unknown"]);
    assert_eq!((dead.len(), &unknown["asInt"]), (1, &json!("1")), "{dead:?}");
    let service = got.lock().unwrap()[0]["resourceMetrics"][0]["resource"]["attributes"][2].clone();
    assert_eq!(service, json!({"key": "service.instance.id", "value": {"stringValue": "w"}}));
    let waits = points(&got, "pagehand_queue_wait_seconds");
    assert!(waits[0].iter().any(|point| point["count"] == "1"), "{waits:?}");

    let mut web = program.command(&["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(web.stderr.take().unwrap()).lines();
    while let Some(line) = said.next_line().await.unwrap() {
        if line.contains("web.listening") {
            break;
        }
    }
    signal(&web, Signal::TERM);
    assert!(web.wait().await.unwrap().success());
    let depth = points(&got, "pagehand_dead_letters");
    assert_eq!(of(depth.last().unwrap(), &["comment"])["asInt"], json!("1"), "{depth:?}");
}
