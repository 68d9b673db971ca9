//! The submit gate before pages that make it hard: one that sends everything twice, and sign-ups over several pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, Path, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use rustix::process::Signal;
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::{Program, signal, until};

const BODY: &str = "Words that nobody else would write here, 4711.";

#[derive(Clone)]
struct Site {
    origin: String,
    /// What was sent, in order.
    sent: Arc<Mutex<Vec<Value>>>,
    /// The step whose answer never comes; 0: none.
    hangs_at: Arc<AtomicU8>,
}

impl Site {
    async fn start() -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { origin, sent: Arc::default(), hangs_at: Arc::default() };
        let router = Router::new()
            .route("/twice", get(post_page).post(take_comment))
            .route("/join/{step}", get(step_page).post(take_step))
            .route("/login", get(login).post(log_in))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn sent(&self) -> Vec<Value> {
        self.sent.lock().unwrap().clone()
    }

    fn accounts(&self) -> usize {
        self.sent().iter().filter(|sent| sent.get("password").is_some()).count()
    }
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><title>{title}</title><link rel=icon href=data:,><h1>{title}</h1>{body}"
    ))
}

/// The script sends what was typed twice in one tick, once more when it is answered, and lets the form go as well.
const TWICE: &str = "
const form = document.querySelector('form');
form.addEventListener('submit', () => {
  const send = () => fetch('/twice', { method: 'POST', body: new URLSearchParams(new FormData(form)), keepalive: true }).catch(() => 0);
  send(); send();
  setTimeout(send, 50);
});";

async fn post_page(State(site): State<Site>) -> Html<String> {
    let shown: String = site
        .sent()
        .iter()
        .map(|sent| format!("<li><b>Ann Example</b> says: <p>{}</p>", sent["comment"].as_str().unwrap()))
        .collect();
    let form = "<form method=post action=/twice><label>Name <input name=author required></label>
         <label>Email <input name=email type=email required></label>
         <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>";
    page(
        "A post",
        &format!(
            "<p>Some words.</p><h2>Comments</h2><ol>{shown}</ol><h3>Leave a comment</h3>{form}<script>{TWICE}</script>"
        ),
    )
}

async fn take_comment(State(site): State<Site>, Form(sent): Form<Value>) -> Html<String> {
    site.sent.lock().unwrap().push(sent);
    post_page(State(site)).await
}

/// First the address, then the name, then the password.
async fn step_page(Path(step): Path<u8>) -> Html<String> {
    let (fields, button) = match step {
        1 => ("<label>Email <input name=email type=email required></label>", "Continue"),
        2 => ("<label>Username <input name=username required></label>", "Continue"),
        _ => (
            "<label>Password <input name=password type=password autocomplete=new-password required></label>",
            "Create account",
        ),
    };
    page(
        "Create your account",
        &format!(
            "<p>Sign up, step {step} of 3</p><form method=post action=/join/{step}>{fields}<button>{button}</button></form>
             <p>Registered already? <a href=/login>Log in</a></p>"
        ),
    )
}

async fn take_step(State(site): State<Site>, Path(step): Path<u8>, Form(sent): Form<Value>) -> Response {
    site.sent.lock().unwrap().push(sent);
    if site.hangs_at.load(Ordering::SeqCst) == step {
        std::future::pending::<()>().await;
    }
    match step {
        3 => page("Welcome", "<p>Thank you for registering. Your account is ready.</p>").into_response(),
        _ => step_page(Path(step + 1)).await.into_response(),
    }
}

async fn login() -> Html<String> {
    page(
        "Log in",
        "<form method=post action=/login><label>Username or email <input name=login required></label>
         <label>Password <input name=password type=password autocomplete=current-password required></label>
         <button>Log in</button></form>",
    )
}

async fn log_in(State(site): State<Site>, Form(form): Form<Value>) -> Html<String> {
    if site.sent().iter().any(|sent| sent.get("password").is_some() && sent["password"] == form["password"]) {
        page("Your account", "<p>Hello ann_4711. <a href=/logout>Log out</a></p>")
    } else {
        page("Log in", "<p role=alert>Incorrect username or password.</p>")
    }
}

async fn enqueue(program: &Program, site: &Site, kind: &str, path: &str, payload: Value) -> i64 {
    program.enrol(&site.origin).await;
    let task = json!({"task_type": kind, "url": format!("{}{path}", site.origin), "payload": payload});
    program.enqueue(&[task]).await[0]
}

async fn join(program: &Program, site: &Site) -> i64 {
    let payload = json!({"username": "ann_4711", "email": "ann@example.org", "password": "Correct-horse-1"});
    enqueue(program, site, "registration", "/join/1", payload).await
}

/// The worker dies while the answer to a step is awaited, and another one takes over.
async fn die_at(step: u8) -> (Program, Site, i64) {
    let (program, site) = (Program::new().await.short_lease(), Site::start().await);
    site.hangs_at.store(step, Ordering::SeqCst);
    let id = join(&program, &site).await;
    let mut worker = program.worker(&[]);
    until("the step is sent", async || site.sent().len() == usize::from(step)).await;
    signal(&worker, Signal::KILL);
    worker.wait().await.unwrap();
    site.hangs_at.store(0, Ordering::SeqCst);
    program.drain().await;
    (program, site, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_submits_everything_several_times_gets_it_once() {
    let (program, site) = (Program::new().await, Site::start().await);
    let payload = json!({"author": "Ann Example", "email": "ann@example.org", "body": BODY});
    let id = enqueue(&program, &site, "comment", "/twice", payload).await;
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(shown["status"], "completed", "{shown}");
    assert_eq!(site.sent().len(), 1, "{:?}", site.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_over_three_pages_passes_the_gate_at_each() {
    let (program, site) = (Program::new().await, Site::start().await);
    let id = join(&program, &site).await;
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(shown["status"], "completed", "{shown}");
    let steps = program.steps(id);
    assert_eq!(steps.iter().filter(|step| *step == "submit_let_go").count(), 3, "{steps:?}");
    assert_eq!((site.sent().len(), site.accounts()), (3, 1), "{:?}", site.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_that_was_cut_off_at_its_last_page_is_found_and_not_done_again() {
    let (program, site, id) = die_at(3).await;
    let shown = program.show(id).await;
    assert_eq!((&shown["status"], &shown["retry_count"]), (&json!("completed"), &json!(1)), "{shown}");
    assert_eq!(program.file(id, "final_result.json")["result"]["recovered"], true);
    assert_eq!(site.accounts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_that_was_cut_off_at_an_earlier_page_is_left_to_a_person() {
    for step in [1, 2] {
        let (program, site, id) = die_at(step).await;
        let shown = program.show(id).await;
        assert_eq!(
            (&shown["status"], &shown["failure_code"]),
            (&json!("failed"), &json!("outcome.uncertain")),
            "{shown}"
        );
        assert_eq!((site.sent().len(), site.accounts()), (usize::from(step), 0), "step {step}");
    }
}
