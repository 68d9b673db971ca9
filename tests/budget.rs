//! What may be spent: a worker stops before it is exceeded, for a task and for the day.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use pagehand::demo::{CANONICAL_ARTICLE, DemoSite};
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::{Program, until};

/// A page that never answers.
const SILENT: &str = "/articles/quiet-coach";

fn comment(site: &DemoSite, path: &str, n: usize) -> Value {
    json!({"task_type": "comment", "url": format!("{}{path}", site.origin()), "max_retries": 0,
           "payload": {"author": format!("Reader {n}"), "email": format!("reader{n}@example.org"), "body": format!("Fine {n}")}})
}

/// A second of the browser costs a dollar.
async fn set_up(budget: &str, usd: &str) -> (Program, DemoSite) {
    let (program, site) = (Program::new().await, DemoSite::start().unwrap());
    program.enrol(&site.origin()).await;
    let program = program.with("PAGEHAND_PRICES__BROWSER_SECOND_USD", "1").with(budget, usd);
    (program.with("PAGEHAND_WORKER__CONCURRENCY", "1"), site)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_stopped_when_its_browser_has_cost_what_it_may() {
    let (program, site) = set_up("PAGEHAND_BUDGET__TASK_USD", "2").await;
    let id = program.enqueue(&[comment(&site, SILENT, 1)]).await[0];
    program.drain().await;
    let run = program.show(id).await;
    assert_eq!((&run["status"], &run["failure_code"]), (&json!("failed"), &json!("budget.exceeded")), "{run}");
    assert!(run["last_error"].as_str().unwrap().contains("budget.task_usd"), "{run}");
    assert!(run["cost_usd"].as_f64().unwrap() >= 1.0, "what was spent until then stays on the bill: {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_is_taken_when_the_days_budget_is_used_up() {
    let (program, site) = set_up("PAGEHAND_BUDGET__DAY_USD", "0.000001").await;
    let ids = program.enqueue(&[comment(&site, CANONICAL_ARTICLE, 1), comment(&site, CANONICAL_ARTICLE, 2)]).await;
    let _worker = program.worker(&[]);
    until("it says why it takes no more", async || program.log().contains("budget.day_usd")).await;
    let mut ended = Vec::new();
    for id in ids {
        ended.push(program.show(id).await["status"].as_str().unwrap().to_owned());
    }
    ended.sort();
    assert_eq!(ended, ["completed", "pending"], "{}", program.log());
    assert_eq!(site.ledger().comments().len(), 1);
}
