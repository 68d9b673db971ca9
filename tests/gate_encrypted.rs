//! A site whose script encrypts the comment before it sends it: the gate knows it all the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::{Program, signal, until};

#[derive(Clone)]
struct Site {
    origin: String,
    comments: Arc<Mutex<Vec<String>>>,
    counted: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
}

impl Site {
    async fn start() -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { origin, comments: Arc::default(), counted: Arc::default(), hangs: Arc::default() };
        let router = Router::new()
            .route("/", get(page))
            .route("/api/sealed", post(take))
            .route("/api/hello", post(count))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn sent(&self) -> usize {
        self.comments.lock().unwrap().len()
    }
}

/// Every byte is turned by a key that comes with it, so that neither text nor base64 shows what it was.
const SCRIPT: &str = r"
const seal = value => {
  const plain = new TextEncoder().encode(JSON.stringify(value));
  const key = crypto.getRandomValues(new Uint8Array(plain.length));
  const sealed = new Uint8Array(plain.length * 2);
  plain.forEach((byte, i) => { sealed[i] = key[i]; sealed[plain.length + i] = byte ^ key[i]; });
  return JSON.stringify({ sealed: btoa(String.fromCharCode(...sealed)) });
};
const post = (path, value) => fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: seal(value) });
document.querySelector('form').addEventListener('submit', async event => {
  event.preventDefault();
  const form = event.target;
  post('/api/hello', { seen: 1 });
  const answer = await post('/api/sealed', { author: form.author.value, email: form.email.value, comment: form.comment.value });
  if (answer.ok) location.reload();
});";

async fn page(State(site): State<Site>) -> Html<String> {
    let shown: String = site
        .comments
        .lock()
        .unwrap()
        .iter()
        .map(|text| format!("<li><b>Ann Example</b> says: <p>{text}</p>"))
        .collect();
    Html(format!(
        "<!doctype html><title>Post</title><h1>A post</h1><p>Some words.</p><h2>Comments</h2><ol>{shown}</ol>
         <h3>Leave a comment</h3><form>
         <label>Name <input name=author required></label><label>Email <input name=email type=email required></label>
         <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>
         <script>{SCRIPT}</script>"
    ))
}

fn opened(sealed: &Value) -> Value {
    let bytes = STANDARD.decode(sealed["sealed"].as_str().unwrap()).unwrap();
    let (key, sealed) = bytes.split_at(bytes.len() / 2);
    let plain: Vec<u8> = key.iter().zip(sealed).map(|(key, byte)| key ^ byte).collect();
    serde_json::from_slice(&plain).unwrap()
}

async fn take(State(site): State<Site>, Json(sealed): Json<Value>) -> Response {
    site.comments.lock().unwrap().push(opened(&sealed)["comment"].as_str().unwrap().to_owned());
    if site.hangs.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    "taken".into_response()
}

async fn count(State(site): State<Site>, Json(_): Json<Value>) -> Response {
    site.counted.fetch_add(1, Ordering::SeqCst);
    "seen".into_response()
}

async fn enqueue(program: &Program, site: &Site) -> i64 {
    program.enrol(&site.origin).await;
    let task = json!({"task_type": "comment", "url": format!("{}/", site.origin), "max_retries": 3,
                      "payload": {"author": "Ann Example", "email": "ann@example.org",
                                  "body": "Words that nobody else would write here, 4711."}});
    program.enqueue(&[task]).await[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_that_a_script_encrypts_goes_through_the_gate() {
    let (program, site) = (Program::new().await, Site::start().await);
    let id = enqueue(&program, &site).await;
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(shown["status"], "completed", "{shown}");
    let steps = program.steps(id);
    assert_eq!(steps.iter().filter(|step| *step == "submit_let_go").count(), 1, "{steps:?}");
    let intent: String = sqlx::query_scalar("SELECT intent->>'url' FROM attempts WHERE task_id = $1")
        .bind(id)
        .fetch_one(&program.db.pool)
        .await
        .unwrap();
    assert!(intent.ends_with("/api/sealed"), "{intent}");
    assert_eq!((site.sent(), site.counted.load(Ordering::SeqCst)), (1, 1), "what is not the submission goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_comment_whose_worker_was_lost_is_found_and_not_sent_again() {
    let (program, site) = (Program::new().await.short_lease(), Site::start().await);
    site.hangs.store(true, Ordering::SeqCst);
    let id = enqueue(&program, &site).await;
    let mut worker = program.worker(&[]);
    until("the comment is sent", async || site.sent() == 1).await;
    signal(&worker, Signal::KILL);
    worker.wait().await.unwrap();
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!((&shown["status"], &shown["retry_count"]), (&json!("completed"), &json!(1)), "{shown}");
    assert_eq!(program.file(id, "final_result.json")["result"]["recovered"], true);
    assert_eq!(site.sent(), 1);
}
