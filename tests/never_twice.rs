//! A submission that left is never sent again: what the next attempt does when the answer did not come.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::{Program, signal, until};
use rustix::process::Signal;

/// What the site does with a comment that is sent.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Takes it, shows it, and answers 500.
    KeepsAndFails,
    /// Takes it, holds it back without a word, and answers 500.
    HidesAndFails,
    /// Takes it, shows it, and never answers.
    KeepsAndHangs,
}

#[derive(Clone)]
struct Site {
    manner: Manner,
    sent: Arc<Mutex<Vec<String>>>,
    origin: String,
}

#[derive(Deserialize)]
struct Sent {
    comment: String,
}

impl Site {
    async fn start(manner: Manner) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { manner, sent: Arc::default(), origin };
        let router = Router::new().route("/", get(page)).route("/send", post(send)).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }
}

async fn page(State(site): State<Site>) -> Html<String> {
    let shown = match site.manner {
        Manner::HidesAndFails => String::new(),
        _ => {
            site.sent.lock().unwrap().iter().map(|text| format!("<li><b>Ann Example</b> says: <p>{text}</p>")).collect()
        }
    };
    Html(format!(
        "<!doctype html><title>Post</title><h1>A post</h1><p>Some words.</p><h2>Comments</h2><ol>{shown}</ol>
         <h3>Leave a comment</h3><form method=post action=/send>
         <label>Name <input name=author required></label><label>Email <input name=email type=email required></label>
         <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>"
    ))
}

async fn send(State(site): State<Site>, Form(sent): Form<Sent>) -> Response {
    site.sent.lock().unwrap().push(sent.comment);
    if site.manner == Manner::KeepsAndHangs {
        std::future::pending::<()>().await;
    }
    (StatusCode::INTERNAL_SERVER_ERROR, "the database went away").into_response()
}

async fn enqueue(program: &Program, site: &Site) -> i64 {
    program.enrol(&site.origin).await;
    let line = json!({"task_type": "comment", "url": format!("{}/", site.origin), "max_retries": 3,
                      "payload": {"author": "Ann Example", "email": "ann@example.org", "body": "Words that nobody else would write here, 4711."}});
    program.enqueue(&[line]).await[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_that_was_taken_before_the_server_failed_is_found_and_not_sent_again() {
    let (program, site) = (Program::new().await, Site::start(Manner::KeepsAndFails).await);
    let id = enqueue(&program, &site).await;
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!((&shown["status"], &shown["retry_count"]), (&json!("completed"), &json!(1)), "{shown}");
    assert_eq!(program.file(id, "final_result.json")["result"]["recovered"], true);
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_of_which_nothing_can_be_seen_is_left_to_a_person() {
    let (program, site) = (Program::new().await, Site::start(Manner::HidesAndFails).await);
    let id = enqueue(&program, &site).await;
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!((&shown["status"], &shown["failure_code"]), (&json!("failed"), &json!("outcome.uncertain")), "{shown}");
    assert_eq!(site.sent(), 1);

    let id = id.to_string();
    let refused = program.run(&["runs", "retry", &id]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(program::text(&refused.stderr).contains("--confirm-uncertain"));
    assert!(program.run(&["runs", "retry", &id, "--confirm-uncertain"]).await.status.success());
    program.drain().await;
    assert_eq!(site.sent(), 2, "a person has looked, and wants it sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_waits_for_the_answer_leaves_a_comment_that_is_found() {
    let (program, site) = (Program::new().await.short_lease(), Site::start(Manner::KeepsAndHangs).await);
    let id = enqueue(&program, &site).await;
    let mut worker = program.worker(&[]);
    until("the comment is sent", async || site.sent() == 1).await;
    signal(&worker, Signal::KILL);
    worker.wait().await.unwrap();
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!((&shown["status"], &shown["retry_count"]), (&json!("completed"), &json!(1)), "{shown}");
    assert_eq!(program.file(id, "final_result.json")["result"]["recovered"], true);
    assert_eq!(program.file(id, "attempts/0/final_result.json")["result"]["failure_code"], "infra.worker_lost");
    let steps = &shown["attempts"][0]["steps"];
    let named = |name: &str| steps.as_array().unwrap().iter().any(|step| step["name"] == name);
    assert!(named("submit_let_go") && named("result_failed"), "what it did not live to send is on record: {steps}");
    assert_eq!(site.sent(), 1);
}
