//! The lines of a worker's log: what they carry, and which calls of Chrome's they are about.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use pagehand::demo::{CANONICAL_ARTICLE, DemoSite};
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::Program;

/// A page on the way to which the connection is cut.
const CUT: &str = "/articles/cut-cable";

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_step_is_one_line_with_all_that_it_belongs_to_and_calls_of_chrome_are_there_at_debug() {
    let (program, site) = (Program::new().await, DemoSite::start().unwrap());
    program.enrol(&site.origin()).await;
    let program = program.with("PAGEHAND_LOGS__FILTER", "info,pagehand::browser=debug");
    let comment = |path: &str| {
        json!({"task_type": "comment", "url": format!("{}{path}", site.origin()), "max_retries": 0,
               "payload": {"author": "Ann", "email": "ann@example.org", "body": "A fine piece"}})
    };
    let ids = program.enqueue(&[comment(CANONICAL_ARTICLE), comment(CUT)]).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    sqlx::query("UPDATE tasks SET traceparent = $1, request_id = 'asked-1'")
        .bind(trace)
        .execute(&program.db.pool)
        .await
        .unwrap();
    program.drain().await;

    let log = program.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let finished = |id: i64| lines.iter().filter(move |line| line["event"] == "step.finished" && line["run_id"] == id);
    for id in &ids {
        let seqs: Vec<&Value> = finished(*id).map(|line| &line["step_seq"]).collect();
        let mut once = seqs.clone();
        once.dedup();
        assert!(seqs.len() > 1 && once.len() == seqs.len(), "{seqs:?}");
        for line in finished(*id) {
            for field in ["step", "duration_ms", "tokens", "cost_usd", "retry_count", "worker_id", "site", "attempt"] {
                assert!(!line[field].is_null(), "{field} is not in {line}");
            }
            assert_eq!((&line["request_id"], &line["task_id"]), (&json!("asked-1"), &json!(id)), "{line}");
            assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
        }
    }
    assert!(finished(ids[0]).all(|line| line["action"] == "step_completed"));
    let failed = finished(ids[1]).find(|line| line["action"] == "step_failed").expect("a step that failed");
    assert_eq!((&failed["failure_reason"], &failed["failure_code"]), (&json!("unknown"), &json!("net.connect")));

    let call = |method: &str| lines.iter().find(|line| line["event"] == "cdp.answered" && line["method"] == method);
    let navigate = call("Page.navigate").expect("a call of Chrome's");
    assert!(
        navigate["duration_ms"].as_f64().unwrap() > 0.0 && ids.contains(&navigate["task_id"].as_i64().unwrap()),
        "{navigate}"
    );
    assert_eq!(navigate["step"], "open_page", "it belongs to the step that made it: {navigate}");
}
