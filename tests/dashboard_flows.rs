//! The pages as a person uses them, in a real Chrome: by mouse, by keyboard, without a script, and with a hostile capture.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: what fails here fails the test")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use chrono::TimeDelta;
use pagehand::browser::{BrowserPool, BrowserSettings, ElementRef, Tab, TabOptions};
use pagehand::queue::{Outcome, Settlement, WorkerIdentity};
use pagehand::record::StepRecord;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use app::{FORM, HTML, OPERATE, SAME_ORIGIN, TestApp};
use http_client::send;

#[path = "support/app.rs"]
mod app;
#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/policy.rs"]
mod policy;

const SOON: Duration = Duration::from_secs(15);

/// A Chrome that may look at the server, and nothing else.
struct Person {
    pool: BrowserPool,
    tab: Tab,
    base: String,
    _state_dir: tempfile::TempDir,
}

impl Person {
    async fn at(app: &TestApp) -> Person {
        Person::who_may_reach(app, &[]).await
    }

    /// As [`Person::at`], and Chrome may go to these addresses as well.
    async fn who_may_reach(app: &TestApp, others: &[&str]) -> Person {
        let state_dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state_dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = BrowserSettings { state_dir: state_dir.path().to_owned(), ..BrowserSettings::default() };
        let pool = BrowserPool::new(settings);
        let base = format!("http://{}", app.address);
        let policy = policy::of(&[&[base.as_str()], others].concat());
        let deadline = Instant::now() + Duration::from_secs(120);
        let tab = pool.open(TabOptions { user_agent: None, proxy: None, policy, deadline }).await.unwrap();
        Person { pool, tab, base, _state_dir: state_dir }
    }

    async fn opens(&self, path: &str) {
        self.tab.goto(&format!("{}{path}", self.base), SOON).await.unwrap();
    }

    /// Waits until there is such an element.
    async fn sees(&self, css: &str) -> ElementRef {
        let frame = self.tab.main_frame();
        let look = "(ph, css) => { const [found] = ph.deepQueryAll(css); return found ? ph.keep(found) : null; }";
        let handle: Option<u32> = self.tab.wait_for(&frame, look, &[json!(css)], SOON).await.unwrap();
        ElementRef { frame, handle: handle.unwrap_or_else(|| panic!("no {css}")) }
    }

    async fn clicks(&self, css: &str) {
        let element = self.sees(css).await;
        self.tab.click(&element, SOON).await.unwrap();
    }

    /// Presses a key, as the page's script hears it.
    async fn presses(&self, key: &str) {
        let press = "(ph, key) => (document.activeElement ?? document.body)
            .dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }))";
        let _: bool = self.tab.call(&self.tab.main_frame(), press, &[json!(key)], SOON).await.unwrap();
    }

    /// Waits until the address ends so.
    async fn is_at(&self, path: &str) {
        let look = "(ph, path) => (location.pathname + location.search).endsWith(path) || null";
        let there: Option<bool> = self.tab.wait_for(&self.tab.main_frame(), look, &[json!(path)], SOON).await.unwrap();
        assert!(there.is_some(), "not at {path} but at {:?}", self.tab.title_and_url().await);
    }

    async fn leaves(self) {
        self.tab.close().await;
        self.pool.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_found_by_the_filter_and_retried_by_click() {
    let app = TestApp::open().await;
    let ids = app.failed(2).await;
    app.enqueue(1).await;
    let person = Person::at(&app).await;
    person.opens("/").await;
    person.clicks("nav[aria-label=Status] a[href*='status=failed']").await;
    person.sees("nav[aria-label=Status] a[aria-current][href*='status=failed']").await;
    person.clicks(".filters summary").await;
    let field = person.sees("input[name=failed_step]").await;
    person.tab.fill(&field, "submit", SOON).await.unwrap();
    person.clicks(".fields button").await;
    person.sees(".chosen strong").await;
    person.clicks(&format!("tr[data-run='{}'] .id a", ids[0])).await;
    person.is_at(&format!("/runs/{}", ids[0])).await;
    person.clicks("#retry").await;
    person.sees(".verdict.wait, .verdict.warn").await;
    assert_eq!(app.status(ids[0]).await, "pending");
    assert_eq!(app.status(ids[1]).await, "failed");
    person.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_retried_with_the_keyboard_alone() {
    let app = TestApp::open().await;
    let ids = app.failed(2).await;
    let person = Person::at(&app).await;
    person.opens("/runs?status=failed").await;
    person.sees("#live:not([hidden])").await;
    person.presses("j").await;
    person.presses("j").await;
    person.sees(&format!("tr.at[data-run='{}']", ids[0])).await;
    person.presses("r").await;
    person.sees(&format!("tr[data-run='{}'] button:focus", ids[0])).await;
    // Enter on a button that has the focus is a click, which Chrome makes of it and not the page.
    person.clicks("button:focus").await;
    person.is_at(&format!("/runs/{}", ids[0])).await;
    assert_eq!(app.status(ids[0]).await, "pending");
    person.presses("Escape").await;
    person.is_at("/runs").await;
    person.presses("/").await;
    person.sees("#q:focus").await;
    person.leaves().await;
}

#[tokio::test]
async fn a_failed_run_is_retried_without_a_script() {
    let app = TestApp::open().await;
    let id = app.failed(1).await[0];
    let list = app.page("/runs?status=failed&failure_reason=timeout").await.text();
    let action = format!("/runs/{id}/retry");
    let body = app::fields(&list, &action);
    let sent = send(app.address, "POST", &action, &[HTML, FORM, SAME_ORIGIN], &body).await;
    assert_eq!((sent.status.as_u16(), sent.header("location")), (303, format!("/runs/{id}").as_str()));
    assert_eq!(app.status(id).await, "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_seen_without_loading_the_page_anew() {
    let app = TestApp::open().await;
    app.failed(1).await;
    let person = Person::at(&app).await;
    person.opens("/").await;
    person.sees("#live:not([hidden])").await;
    // Would be gone with the page.
    let mark = "() => { document.body.dataset.same = 'yes'; return true; }";
    let _: bool = person.tab.call(&person.tab.main_frame(), mark, &[], SOON).await.unwrap();
    let id = app.enqueue(1).await[0];
    person.sees(&format!("body[data-same=yes] tr[data-run='{id}'] .badge.wait")).await;
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "i".to_owned() };
    app.queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap();
    person.sees(&format!("body[data-same=yes] tr[data-run='{id}'] .badge.busy")).await;
    person.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_under_way_is_followed_step_by_step() {
    let app = TestApp::open().await;
    let id = app.enqueue(1).await[0];
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "i".to_owned() };
    let task = app.queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap().remove(0);
    let step = |seq, name: &str| StepRecord {
        seq,
        name: name.to_owned(),
        ok: true,
        started_at: task.locked_at,
        finished_at: task.locked_at + TimeDelta::milliseconds(120),
        duration: Duration::from_millis(120),
        tokens: 0,
        cost_usd: 0.25,
        error: None,
        meta: json!({"n": seq}),
    };
    let person = Person::at(&app).await;
    person.opens(&format!("/runs/{id}")).await;
    person.sees("#live:not([hidden])").await;
    let mark = "() => { document.body.dataset.same = 'yes'; return true; }";
    let _: bool = person.tab.call(&person.tab.main_frame(), mark, &[], SOON).await.unwrap();

    // The page as it was when it had loaded is there before anything of it is on record.
    app.write(id, "initial_screenshot_20240115T103000123Z.png", "a picture");
    app.queue.record_steps(task.lease(), &[step(1, "open_page")]).await.unwrap();
    person.sees("body[data-same=yes] .steps tr:nth-child(2).now").await;
    person.sees(".verdict .shot img").await;
    // What somebody has unfolded stays so when further steps come in.
    person.clicks(".steps details.meta summary").await;
    person.sees(".steps tr:nth-child(1) details[open]").await;
    // The file is ahead of the rows, and has the lines of every attempt.
    let line = |fence: i64, seq, name: &str| {
        json!({"timestamp": "2024-01-15T10:30:01.000Z", "step": name, "meta": {}, "attempt": fence, "seq": seq,
               "started_at": "2024-01-15T10:30:00.000Z", "duration_ms": 120.0, "cost_usd": 0.25})
    };
    let fence = task.lease().fence.0;
    let lines = [line(fence, 1, "open_page"), line(fence, 2, "find_form"), line(fence + 1, 3, "not_of_this_one")];
    app.write(id, "steps.jsonl", &(lines.map(|line| line.to_string()).join("\n") + "\n{\"torn"));
    person.sees("body[data-same=yes] .steps tr:nth-child(3).now").await;
    person.sees(".steps tr:nth-child(1) details[open]").await;
    let page = app.page(&format!("/runs/{id}")).await.text();
    assert!(
        page.replace("<wbr>", "").contains("running, past step find_form")
            && page.contains("$0.500<span class=\"quiet\"> so far")
            && !page.contains("not_of_this_one"),
        "{page}"
    );

    let (execution_time, steps, artifacts) = (Duration::from_secs(1), Vec::new(), Vec::new());
    let outcome = Outcome::Dead { failure: app::timeout() };
    let settlement = Settlement { lease: task.lease(), outcome, execution_time, steps, artifacts };
    app.queue.settle(&[settlement]).await.unwrap();
    person.sees("body[data-same=yes] .verdict.bad").await;
    person.sees("#run:not([data-progress]) .steps tbody:not(:has(.now))").await;
    person.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_many_goes_on_by_itself() {
    let app = TestApp::open().await;
    app.dead_letters(2_100, 1).await;
    let person = Person::at(&app).await;
    person.opens("/failures").await;
    person.clicks(".group .count .button").await;
    person.clicks("form[action='/runs/retry'] button").await;
    person.sees(".notice.good").await;
    assert_eq!(app.get("/runs/retry").await.json()["matching"], 0);
    person.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_token_logs_in_and_is_led_on() {
    let app = TestApp::with_tokens().await;
    let person = Person::at(&app).await;
    person.opens("/failures").await;
    person.is_at("/login?next=%2Ffailures").await;
    for (token, then) in [("wrong", ".login [role=alert]"), (OPERATE.1.trim_start_matches("Bearer "), ".who form")] {
        let field = person.sees("#token").await;
        person.tab.fill(&field, token, SOON).await.unwrap();
        person.clicks(".login button").await;
        person.sees(then).await;
    }
    person.is_at("/failures").await;
    person.clicks(".who form button").await;
    person.sees("#token").await;
    person.leaves().await;
}

/// A server that tells whenever somebody comes.
async fn canary() -> (String, watch::Receiver<u32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (came, hits) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            came.send_modify(|hits| *hits += 1);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            });
        }
    });
    (address, hits)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_capture_neither_runs_nor_leaves_on_its_run_page_or_opened_directly() {
    let app = TestApp::open().await;
    let (elsewhere, mut hits) = canary().await;
    let id = app.failed(1).await[0];
    let dom = "error_dom_20240115T103000123Z.html";
    // As a page would have it: what is taken out at capture is not relied on here.
    let hostile = format!(
        "<!doctype html><title>captured</title><base href='{elsewhere}/base/'><link rel=stylesheet href='{elsewhere}/css'>
         <link rel=preconnect href='{elsewhere}'><link rel=icon href='{elsewhere}/icon'>
         <meta http-equiv=refresh content='1;url={elsewhere}/refresh'><style>body {{ background: url({elsewhere}/image) }}</style>
         <script>document.title = 'ran'; fetch('{elsewhere}/fetch'); top.location = '{elsewhere}/top'</script>
         <body onload=\"location='{elsewhere}/onload'\"><img src='{elsewhere}/img' onerror=\"document.title = 'ran'\">
         <iframe src='{elsewhere}/frame'></iframe><object data='{elsewhere}/object'></object><video poster='{elsewhere}/poster'></video>
         <form id=f action='{elsewhere}/form'></form><script>f.submit(); new Image().src = '{elsewhere}/beacon'; alert(1)</script>
         <p id=seen>seen</p>"
    );
    app.write(id, dom, &hostile);
    sqlx::query("INSERT INTO artifacts SELECT id, $2, task_id, 'dom', 1 FROM attempts WHERE task_id = $1")
        .bind(id)
        .bind(dom)
        .execute(&app.db.pool)
        .await
        .unwrap();
    let person = Person::who_may_reach(&app, &[&elsewhere]).await;
    // Longer than the refresh would take.
    let quiet = Duration::from_secs(2);
    person.opens(&format!("/runs/{id}")).await;
    let open = "(ph) => { const [frame] = ph.deepQueryAll('iframe.dom'); frame.closest('details').open = true;
                frame.scrollIntoView(); return true; }";
    let _: bool = person.tab.call(&person.tab.main_frame(), open, &[], SOON).await.unwrap();
    assert!(tokio::time::timeout(quiet, hits.changed()).await.is_err(), "the capture called home from the run's page");
    let (title, url) = person.tab.title_and_url().await.unwrap();
    assert_eq!((title, url), (format!("Run {id} · Pagehand"), format!("{}/runs/{id}", person.base)));

    person.opens(&format!("/runs/{id}/artifacts/{dom}")).await;
    person.sees("#seen").await;
    assert!(tokio::time::timeout(quiet, hits.changed()).await.is_err(), "the capture called home");
    let (title, url) = person.tab.title_and_url().await.unwrap();
    assert_eq!((title.as_str(), url), ("captured", format!("{}/runs/{id}/artifacts/{dom}", person.base)));
    assert_eq!(person.tab.counters().dialogs, 0);
    // The way there was open.
    person.tab.goto(&format!("{elsewhere}/"), SOON).await.unwrap();
    assert!(hits.has_changed().unwrap());
    person.leaves().await;
}
