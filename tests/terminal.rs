//! What goes on now, as a terminal and as a script are told.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::process::Stdio;
use std::time::Duration;

use pagehand::queue::WorkerIdentity;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::{PATIENCE, Program, text};

const SITE: &str = "https://blog.example.org";

#[tokio::test]
async fn top_and_tail_say_what_is_being_done() {
    let program = Program::new().await;
    program.enrol(SITE).await;
    let task = json!({"task_type": "comment", "url": format!("{SITE}/post"),
                      "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}});
    let id = program.enqueue(&[task]).await[0];
    let queue = program.db.queue().await;
    let worker = WorkerIdentity { name: "w1".to_owned(), incarnation: "i1".to_owned() };
    let _presence = queue.be_present(&worker).await.unwrap();
    let claimed = queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap();
    assert_eq!(claimed.len(), 1);

    let top = program.json(&["top", "--once", "--json"]).await;
    let now = &top["workers"][0];
    assert_eq!((&now["name"], &now["tasks"][0]["id"]), (&json!("w1"), &json!(id)), "{top}");
    let comments = top["queue"].as_array().unwrap().iter().find(|row| row["task_type"] == "comment").unwrap();
    assert_eq!((&comments["pending"], &comments["running"]), (&json!(0), &json!(1)));
    let shown = text(&program.run(&["top", "--once"]).await.stdout);
    assert!(shown.contains("w1") && shown.contains(SITE) && !shown.contains('\u{1b}'), "{shown}");

    let tail = program.command(&["runs", "tail", "--json"]).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let mut tail = tail.unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("it says what is running").unwrap();
    let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert_eq!(
        (&line["id"], &line["status"], &line["worker"]),
        (&json!(id), &json!("running"), &json!("w1")),
        "{line}"
    );
    tail.kill().await.unwrap();
}
