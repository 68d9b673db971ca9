//! An attempt that has finished is never done again because Postgres was away or its worker died at that moment.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, State};
use axum::response::Html;
use axum::routing::{get, post};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

#[path = "support/database.rs"]
mod database;
#[path = "support/pg_line.rs"]
mod pg_line;
#[path = "support/program.rs"]
mod program;

use pg_line::PgLine;
use program::{Program, signal, until};

/// A site that answers a comment when the test says so.
#[derive(Clone)]
struct Site {
    origin: String,
    sent: Arc<Mutex<Vec<String>>>,
    answers: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Sent {
    comment: String,
}

impl Site {
    async fn start() -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { origin, sent: Arc::default(), answers: Arc::new(Semaphore::new(0)) };
        let router = Router::new().route("/", get(page)).route("/send", post(send)).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    fn answer(&self) {
        self.answers.add_permits(1_000);
    }
}

async fn page(State(site): State<Site>) -> Html<String> {
    let shown: String =
        site.sent.lock().unwrap().iter().map(|text| format!("<li><b>Ann Example</b> says: <p>{text}</p>")).collect();
    Html(format!(
        "<!doctype html><title>Post</title><h1>A post</h1><p>Some words.</p><h2>Comments</h2><ol>{shown}</ol>
         <h3>Leave a comment</h3><form method=post action=/send>
         <label>Name <input name=author required></label><label>Email <input name=email type=email required></label>
         <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>"
    ))
}

async fn send(State(site): State<Site>, Form(sent): Form<Sent>) -> Html<String> {
    site.sent.lock().unwrap().push(sent.comment);
    site.answers.acquire().await.unwrap().forget();
    page(State(site)).await
}

/// A worker that has sent a comment, and whose line to Postgres was cut before the site answered.
struct Scene {
    program: Program,
    line: PgLine,
    site: Site,
    worker: tokio::process::Child,
    id: i64,
}

impl Scene {
    async fn new() -> Scene {
        let program = Program::new().await;
        let line = PgLine::to(&program.db.url);
        let program = program.with("DATABASE_URL", &line.url);
        let site = Site::start().await;
        program.enrol(&site.origin).await;
        let task = json!({"task_type": "comment", "url": format!("{}/", site.origin), "max_retries": 3,
                          "payload": {"author": "Ann Example", "email": "ann@example.org",
                                      "body": "Words that nobody else would write here, 4711."}});
        let id = program.enqueue(&[task]).await[0];
        let worker = program.worker(&["--instance", "first"]);
        until("the comment is sent", async || site.sent() == 1).await;
        line.cut();
        site.answer();
        Scene { program, line, site, worker, id }
    }

    fn kept(&self) -> Vec<String> {
        let names = fs::read_dir(self.program.runs().join(".outcomes"));
        names.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn has_result(&self) -> bool {
        self.program.runs().join(self.id.to_string()).join("final_result.json").exists()
    }

    async fn kill(&mut self) {
        signal(&self.worker, Signal::KILL);
        self.worker.wait().await.unwrap();
    }

    async fn completed(&self) -> Value {
        until("the task is completed", async || self.status().await == "completed").await;
        self.program.show(self.id).await
    }

    async fn status(&self) -> String {
        let status = sqlx::query_scalar("SELECT status::text FROM tasks WHERE id = $1").bind(self.id);
        status.fetch_one(&self.program.db.pool).await.unwrap()
    }

    /// Done once, by one attempt, and all of it on record.
    async fn assert_done_once(&self) {
        let shown = self.completed().await;
        let attempts = shown["attempts"].as_array().unwrap();
        assert_eq!((attempts.len(), &attempts[0]["status"]), (1, &json!("succeeded")), "{shown}");
        let steps = attempts[0]["steps"].as_array().unwrap();
        assert_eq!(steps.len(), self.program.steps(self.id).len(), "every step is in the database");
        assert!(!attempts[0]["artifacts"].as_array().unwrap().is_empty());
        assert_eq!(self.site.sent(), 1);
        until("the outcome is forgotten", async || self.kept().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_is_kept_while_postgres_is_away_and_delivered_when_it_is_back() {
    let mut scene = Scene::new().await;
    until("the outcome is kept", async || !scene.kept().is_empty()).await;
    assert_eq!(scene.status().await, "running");
    scene.line.mend();
    scene.assert_done_once().await;
    assert!(scene.worker.try_wait().unwrap().is_none(), "the worker lives on");
    scene.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_kept_by_a_worker_that_died_is_delivered_by_the_next() {
    let mut scene = Scene::new().await;
    until("the outcome is kept", async || !scene.kept().is_empty()).await;
    scene.kill().await;
    scene.line.mend();
    let mut next = scene.program.worker(&["--instance", "second"]);
    scene.assert_done_once().await;
    next.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_worker_that_died_before_it_could_settle_is_adopted() {
    let mut scene = Scene::new().await;
    until("the result is written", async || scene.has_result()).await;
    scene.kill().await;
    assert!(scene.kept().is_empty(), "it died before it could keep the outcome");
    scene.line.mend();
    let mut next = scene.program.worker(&["--instance", "first"]);
    scene.assert_done_once().await;
    assert!(scene.program.log().contains("outcome.adopted"), "{}", scene.program.log());
    next.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_an_attempt_of_another_database_left_is_not_adopted() {
    let mut scene = Scene::new().await;
    until("the result is written", async || scene.has_result()).await;
    scene.kill().await;
    let path = scene.program.runs().join(scene.id.to_string()).join("final_result.json");
    let mut result: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    result["decided"]["process"] = json!("somebody else");
    fs::write(&path, result.to_string()).unwrap();
    scene.line.mend();
    let mut next = scene.program.worker(&["--instance", "first"]);
    let shown = scene.completed().await;
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "the next attempt has looked for itself: {shown}");
    assert_eq!(scene.site.sent(), 1);
    next.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_postgres_that_is_not_there_and_says_so_once() {
    let program = Program::new().await;
    let line = PgLine::to(&program.db.url);
    let program = program.with("DATABASE_URL", &line.url);
    line.cut();
    let mut worker = program.worker(&[]);
    until("it says so", async || program.log().contains("postgres.away")).await;
    line.mend();
    until("it has started", async || program.log().contains("worker.started")).await;
    line.cut();
    until("it says so again", async || program.log().matches("postgres.away").count() == 2).await;
    line.mend();
    until("it is back", async || program.log().contains("postgres.back")).await;
    assert!(worker.try_wait().unwrap().is_none());
    assert_eq!(program.log().matches("postgres.away").count(), 2, "{}", program.log());
    signal(&worker, Signal::TERM);
    assert!(worker.wait().await.unwrap().success());
}
