//! A worker that can't prove its lease submits nothing, however often the page tries, and lets go of the page in time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, State};
use axum::response::Html;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

#[path = "support/database.rs"]
mod database;
#[path = "support/pg_line.rs"]
mod pg_line;
#[path = "support/program.rs"]
mod program;

use pg_line::PgLine;
use program::{Program, signal, until};
use rustix::process::Signal;
use tokio::process::Child;

#[derive(Clone, Default)]
struct Site {
    sent: Arc<Mutex<Vec<String>>>,
    tries: Arc<AtomicUsize>,
    cut: Arc<AtomicBool>,
    line: Arc<Mutex<Option<PgLine>>>,
}

#[derive(Deserialize)]
struct Sent {
    comment: String,
}

/// The button tells the site first, so that the line to Postgres can be cut; then the script tries until it is answered.
const SCRIPT: &str = r"
document.querySelector('form').addEventListener('submit', async event => {
  event.preventDefault();
  const body = new URLSearchParams(new FormData(event.target));
  await fetch('/pressed');
  for (;;) {
    try { const answer = await fetch('/send', { method: 'POST', body }); if (answer.ok) break; } catch { fetch('/tried'); }
    await new Promise(done => setTimeout(done, 200));
  }
  location.reload();
});";

async fn page(State(site): State<Site>) -> Html<String> {
    let shown: String =
        site.sent.lock().unwrap().iter().map(|text| format!("<li><b>Ann Example</b> says: <p>{text}</p>")).collect();
    Html(format!(
        "<!doctype html><title>Post</title><h1>A post</h1><p>Some words.</p><h2>Comments</h2><ol>{shown}</ol>
         <h3>Leave a comment</h3><form>
         <label>Name <input name=author required></label><label>Email <input name=email type=email required></label>
         <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>
         <script>{SCRIPT}</script>"
    ))
}

async fn pressed(State(site): State<Site>) -> &'static str {
    if !site.cut.swap(true, Ordering::SeqCst) {
        site.line.lock().unwrap().as_ref().unwrap().cut();
    }
    "so"
}

async fn tried(State(site): State<Site>) -> &'static str {
    site.tries.fetch_add(1, Ordering::SeqCst);
    "so"
}

/// Never answers, and from then on nobody can ask Postgres.
async fn slow(State(site): State<Site>) -> Html<String> {
    site.tries.fetch_add(1, Ordering::SeqCst);
    site.line.lock().unwrap().as_ref().unwrap().cut();
    std::future::pending().await
}

async fn send(State(site): State<Site>, Form(sent): Form<Sent>) -> &'static str {
    site.sent.lock().unwrap().push(sent.comment);
    "taken"
}

/// A worker that is about one task, on a line to Postgres that can be cut.
async fn at_work(path: &str) -> (Site, Program, i64, Child) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let site = Site::default();
    let router = Router::new()
        .route("/", get(page))
        .route("/pressed", get(pressed))
        .route("/tried", get(tried))
        .route("/send", post(send))
        .route("/slow", get(slow))
        .with_state(site.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let program = Program::new().await.with("PAGEHAND_WORKER__LEASE_SECONDS", "6");
    let line = PgLine::to(&program.db.url);
    let program = program.with("DATABASE_URL", &line.url);
    *site.line.lock().unwrap() = Some(line);
    program.enrol(&origin).await;
    let task = json!({"task_type": "comment", "url": format!("{origin}{path}"), "max_retries": 3,
                      "payload": {"author": "Ann Example", "email": "ann@example.org",
                                  "body": "Words that nobody else would write here, 4711."}});
    let id = program.enqueue(&[task]).await[0];
    let worker = program.worker(&["--instance", "first"]);
    (site, program, id, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_tries_again_and_again_submits_nothing_while_the_lease_can_not_be_proven() {
    let (site, program, id, mut worker) = at_work("/").await;
    // The script finds its request refused, and tries again, before its page is gone.
    until("the page has tried", async || site.tries.load(Ordering::SeqCst) > 0).await;
    until("the attempt is over", async || {
        program.log().contains("lease.lost") || program.log().contains("outcome.kept")
    })
    .await;
    assert_eq!(site.sent.lock().unwrap().len(), 0, "nothing has left");
    site.line.lock().unwrap().as_ref().unwrap().mend();
    until("the task is done", async || {
        let status = sqlx::query_scalar::<_, String>("SELECT status::text FROM tasks WHERE id = $1").bind(id);
        status.fetch_one(&program.db.pool).await.unwrap() == "completed"
    })
    .await;
    assert_eq!(site.sent.lock().unwrap().len(), 1);
    signal(&worker, Signal::TERM);
    assert!(worker.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_can_not_renew_leaves_the_page_before_somebody_else_may_have_the_task() {
    let (site, program, _, mut worker) = at_work("/slow").await;
    until("the page is asked for", async || site.tries.load(Ordering::SeqCst) > 0).await;
    until("the worker gives it up by itself", async || program.log().contains("lease.lost")).await;
    let line = program.log().lines().find(|line| line.contains("lease.lost")).unwrap().to_owned();
    assert!(line.contains("attempt abandoned"), "not because somebody told it: {line}");
    signal(&worker, Signal::KILL);
    worker.wait().await.unwrap();
}
