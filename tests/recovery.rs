//! After a crash behind the gate: where a comment is looked for, and how an account is found.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::{Program, signal, until};

const BODY: &str = "Words that nobody else would write here, 4711.";

/// What the site shows of what it took, and never answers.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Comments stand on the second page.
    OlderPage,
    /// The same, and it answers: with the page that does not show them.
    OlderPageSilently,
    /// Comments stand on no page.
    Nowhere,
    /// Accounts can log in.
    LogIn,
    /// Accounts sleep until a mail is answered; the log-in says so.
    Asleep,
    /// There is no account after all; the log-in says so.
    Lost,
    /// There is no log-in; the sign-up form says at once that an address is taken.
    SaysWhileTyping,
}

#[derive(Clone)]
struct Site {
    manner: Manner,
    origin: String,
    sent: Arc<Mutex<Vec<Value>>>,
}

impl Site {
    async fn start(manner: Manner) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { manner, origin, sent: Arc::default() };
        let router = Router::new()
            .route("/post", get(post_page).post(hang))
            .route("/join", get(join).post(hang))
            .route("/check", get(check))
            .route("/login", get(login).post(log_in))
            .route("/me", get(me))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    fn comment_task(&self) -> Value {
        json!({"task_type": "comment", "url": format!("{}/post", self.origin),
               "payload": {"author": "Ann Example", "email": "ann@example.org", "body": BODY}})
    }

    /// Has a worker submit the task and die before the answer; then another one takes over.
    async fn lose_one_worker(&self, task: Value) -> (Program, i64) {
        let program = Program::new().await.short_lease();
        program.enrol(&self.origin).await;
        let id = program.enqueue(&[task]).await[0];
        let mut worker = program.worker(&[]);
        until("it is sent", async || self.sent() == 1).await;
        signal(&worker, Signal::KILL);
        worker.wait().await.unwrap();
        program.drain().await;
        (program, id)
    }

    async fn comment(&self) -> (Program, i64) {
        self.lose_one_worker(self.comment_task()).await
    }

    async fn account(&self) -> (Program, i64) {
        let task = json!({"task_type": "registration", "url": format!("{}/join", self.origin),
                          "payload": {"username": "ann_4711", "email": "ann@example.org", "password": "Correct-horse-1"}});
        self.lose_one_worker(task).await
    }
}

async fn hang(State(site): State<Site>, Form(sent): Form<Value>) -> Response {
    site.sent.lock().unwrap().push(sent);
    if site.manner == Manner::OlderPageSilently {
        return Redirect::to("/post").into_response();
    }
    std::future::pending().await
}

#[derive(Deserialize)]
struct Page {
    cpage: Option<u32>,
}

async fn post_page(State(site): State<Site>, Query(page): Query<Page>) -> Html<String> {
    let older = page.cpage == Some(1);
    let shown = match site.manner {
        Manner::OlderPageSilently if older && site.sent() > 0 => format!("<li><b>Ann Example</b><p>{BODY}</p></li>"),
        Manner::OlderPage if older => {
            format!("<li><b>Ann Example</b><p>Your comment is awaiting moderation.</p><p>{BODY}</p></li>")
        }
        _ => "<li><b>Bob</b><p>Something else.</p></li>".to_owned(),
    };
    Html(format!(
        "<!doctype html><title>Post</title><h1>A post</h1><p>Some words.</p><h2>Comments</h2><ol>{shown}</ol>
         <nav><a href='/post?cpage=1'>Older comments</a> <a href='/post?replytocom=3'>Reply</a></nav>
         <h3>Leave a comment</h3><form method=post action=/post>
         <label>Name <input name=author required></label><label>Email <input name=email type=email required></label>
         <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>"
    ))
}

async fn join(State(site): State<Site>) -> Html<String> {
    let link =
        if site.manner == Manner::SaysWhileTyping { "" } else { "<p>Here before? <a href=/login>Log in</a></p>" };
    Html(format!(
        "<!doctype html><title>Join</title><h1>Create an account</h1><form method=post action=/join>
         <label>Username <input name=username required></label><label>Email <input name=email type=email required></label>
         <label>Password <input name=password type=password required></label><p id=said role=alert class=error></p>
         <button>Create account</button></form>{link}
         <script>document.querySelector('[name=email]').addEventListener('change', async event => {{
           document.getElementById('said').textContent = await (await fetch('/check?email=' + encodeURIComponent(event.target.value))).text();
         }});</script>"
    ))
}

async fn check(State(site): State<Site>) -> &'static str {
    if site.manner == Manner::SaysWhileTyping && site.sent() > 0 {
        "This email address is already registered."
    } else {
        ""
    }
}

fn login_page(said: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><title>Log in</title><h1>Log in</h1><p role=alert class=error>{said}</p><form method=post action=/login>
         <label>Username or email <input name=login required></label>
         <label>Password <input name=password type=password required></label><button>Log in</button></form>"
    ))
}

async fn login() -> Html<String> {
    login_page("")
}

#[derive(Deserialize)]
struct LogIn {
    login: String,
    password: String,
}

async fn log_in(State(site): State<Site>, Form(with): Form<LogIn>) -> Response {
    let right = with.login == "ann_4711" && with.password == "Correct-horse-1";
    match site.manner {
        Manner::LogIn if right => ([("set-cookie", "who=ann_4711")], Redirect::to("/me")).into_response(),
        Manner::Asleep if right => login_page("Your account is not activated yet.").into_response(),
        _ => login_page("Wrong username or password.").into_response(),
    }
}

async fn me(headers: HeaderMap) -> Html<String> {
    let who = headers.get("cookie").and_then(|cookie| cookie.to_str().ok()).unwrap_or_default();
    let who = who.strip_prefix("who=").unwrap_or("stranger").to_owned();
    Html(format!("<!doctype html><title>You</title><h1>Welcome, {who}</h1><p>Your page.</p>"))
}

fn result(program: &Program, id: i64) -> Value {
    program.file(id, "final_result.json")["result"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_is_found_on_a_further_page_with_the_notice_that_it_waits() {
    let site = Site::start(Manner::OlderPage).await;
    let (program, id) = site.comment().await;
    let result = result(&program, id);
    assert_eq!((&result["recovered"], &result["outcome"]), (&json!(true), &json!("held_for_moderation")), "{result}");
    assert!(result["comment_url"].as_str().unwrap().contains("cpage=1"), "{result}");
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_that_no_page_shows_is_left_to_a_person() {
    let site = Site::start(Manner::Nowhere).await;
    let (program, id) = site.comment().await;
    let result = result(&program, id);
    assert_eq!(result["failure_code"], "outcome.uncertain", "{result}");
    assert!(result["error"].as_str().unwrap().contains("none of 2 pages"), "{result}");
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_found_by_logging_in() {
    let site = Site::start(Manner::LogIn).await;
    let (program, id) = site.account().await;
    let result = result(&program, id);
    assert_eq!((&result["recovered"], &result["outcome"]), (&json!(true), &json!("registered")), "{result}");
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_has_to_be_confirmed_is_found_by_logging_in() {
    let site = Site::start(Manner::Asleep).await;
    let (program, id) = site.account().await;
    let result = result(&program, id);
    assert_eq!(
        (&result["recovered"], &result["outcome"]),
        (&json!(true), &json!("needs_email_confirmation")),
        "{result}"
    );
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_which_nobody_can_log_in_is_left_to_a_person_with_the_words_of_the_site() {
    let site = Site::start(Manner::Lost).await;
    let (program, id) = site.account().await;
    let result = result(&program, id);
    assert_eq!(result["failure_code"], "outcome.uncertain", "{result}");
    assert!(result["error"].as_str().unwrap().contains("Wrong username or password"), "{result}");
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_found_by_what_the_form_says_while_it_is_typed() {
    let site = Site::start(Manner::SaysWhileTyping).await;
    let (program, id) = site.account().await;
    let result = result(&program, id);
    assert_eq!((&result["recovered"], &result["outcome"]), (&json!(true), &json!("registered")), "{result}");
    assert!(result["evidence"].as_str().unwrap().contains("already registered"), "{result}");
    assert_eq!(site.sent(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_that_the_answer_does_not_show_is_found_on_a_further_page() {
    let site = Site::start(Manner::OlderPageSilently).await;
    let program = Program::new().await;
    program.enrol(&site.origin).await;
    let id = program.enqueue(&[site.comment_task()]).await[0];
    program.drain().await;
    let result = result(&program, id);
    assert_eq!((&result["outcome"], &result["retry_count"]), (&json!("posted"), &json!(0)), "{result}");
    assert!(result["comment_url"].as_str().unwrap().contains("cpage=1"), "{result}");
    assert_eq!(site.sent(), 1);
}
