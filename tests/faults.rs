//! Pages and processes that misbehave, seen from outside: the reason, the code and the evidence of each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/nasty.rs"]
mod nasty;
#[path = "support/program.rs"]
mod program;

use nasty::Nasty;
use program::{Program, kill, until};

/// No attempt may take longer than this.
const TASK_TIMEOUT: Duration = Duration::from_secs(20);

struct Fault {
    program: Program,
    nasty: Nasty,
}

/// How a task ended.
struct Ended {
    reason: String,
    code: String,
    error_snapshot: bool,
    seconds: f64,
}

impl Fault {
    async fn new() -> Fault {
        let program =
            Program::new().await.with("PAGEHAND_WORKER__TASK_TIMEOUT_SECONDS", &TASK_TIMEOUT.as_secs().to_string());
        Fault { program, nasty: Nasty::start().await }
    }

    async fn enqueue(&self, url: &str) -> i64 {
        let origin = url.parse::<url::Url>().unwrap().origin().ascii_serialization();
        self.program.enrol(&origin).await;
        let line = json!({"task_type": "comment", "url": url, "max_retries": 0,
                          "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello there"}});
        self.program.enqueue(&[line]).await[0]
    }

    /// Works the page off and says what came of it.
    async fn at(&self, url: &str) -> Ended {
        let id = self.enqueue(url).await;
        self.program.drain().await;
        self.ended(id)
    }

    async fn at_page(&self, html: &str) -> Ended {
        let url = self.nasty.page("fault", html);
        self.at(&url).await
    }

    fn ended(&self, id: i64) -> Ended {
        let result = self.program.file(id, "final_result.json");
        let text = |field: &str| result["result"][field].as_str().unwrap_or_default().to_owned();
        let names = std::fs::read_dir(self.program.runs().join(id.to_string())).unwrap();
        let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let error_snapshot =
            ["error_dom_", "error_screenshot_"].iter().all(|start| names.iter().any(|name| name.starts_with(start)));
        assert_eq!(result["result"]["success"], Value::Bool(false));
        let seconds = result["execution_time"].as_f64().unwrap();
        Ended { reason: text("failure_reason"), code: text("failure_code"), error_snapshot, seconds }
    }
}

impl Ended {
    #[track_caller]
    fn is(&self, reason: &str, code: &str) -> &Self {
        assert_eq!((self.reason.as_str(), self.code.as_str()), (reason, code));
        // Its own time, and that for the evidence.
        assert!(self.seconds < TASK_TIMEOUT.as_secs_f64() + 13.0, "took {} s", self.seconds);
        self
    }

    #[track_caller]
    fn with_evidence(&self) {
        assert!(self.error_snapshot, "no error snapshot");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_never_comes_is_a_time_out() {
    let fault = Fault::new().await;
    fault.at(&fault.nasty.url("/never")).await.is("timeout", "nav.timeout").with_evidence();
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_without_end_are_a_dialog_loop() {
    let fault = Fault::new().await;
    let html = "<body>x<script>setTimeout(() => { for (;;) alert('again') }, 0)</script>";
    fault.at_page(html).await.is("popup_blocking", "dialog.loop").with_evidence();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_never_ends_is_ended_and_the_page_is_kept() {
    let fault = Fault::new().await;
    fault
        .at_page("<body>stuck<script>setTimeout(() => { for (;;) {} }, 50)</script>")
        .await
        .is("timeout", "page.hung")
        .with_evidence();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_page_is_told_apart() {
    let fault = Fault::new().await;
    fault.at(&fault.nasty.url("/nothing")).await.is("unknown", "nav.no_content");
    fault.at(&fault.nasty.url("/download")).await.is("unknown", "nav.download");
    fault.at(&fault.nasty.url("/loop")).await.is("unknown", "nav.redirect_loop").with_evidence();
    fault.at(&fault.nasty.url("/refused")).await.is("blocked", "http.429").with_evidence();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nobody_listens_is_a_network_fault() {
    let fault = Fault::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fault.at(&format!("http://127.0.0.1:{port}/")).await.is("unknown", "net.connect").with_evidence();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_proxy_is_named_and_rested() {
    let fault = Fault::new().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = format!("http://127.0.0.1:{port}");
    assert!(fault.program.run(&["proxy", "add", &proxy]).await.status.success());
    let url = fault.nasty.page("fault", "<p>never seen");
    fault.at(&url).await.is("unknown", "proxy.connect");
    let proxies = fault.program.json(&["proxy", "ls", "--json"]).await;
    assert_eq!(proxies["proxies"][0]["failures"], 1);
    assert!(proxies["proxies"][0]["resting_until"].is_string(), "{proxies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_process_dies_is_a_renderer_crash_and_the_worker_goes_on() {
    let fault = Fault::new().await;
    // Stays busy looking for a form that is drawn late.
    let url = fault.nasty.page("fault", "<body><p>wait");
    let id = fault.enqueue(&url).await;
    let mut worker = fault.program.worker(&["--drain"]);
    until("the page is open", async || fault.program.steps(id).contains(&"open_page".to_owned())).await;
    for (pid, line) in fault.program.chromes() {
        if line.contains("--type=renderer") {
            kill(pid);
        }
    }
    assert!(tokio::time::timeout(program::PATIENCE, worker.wait()).await.unwrap().unwrap().success());
    fault.ended(id).is("unknown", "browser.renderer_crashed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_is_killed_fails_its_tasks_at_once_and_the_next_have_a_new_one() {
    let fault = Fault::new().await;
    let id = fault.enqueue(&fault.nasty.url("/never")).await;
    let _worker = fault.program.worker(&[]);
    until("the page is asked for", async || fault.program.steps(id).contains(&"automation_context_entered".to_owned()))
        .await;
    let start = Instant::now();
    for (pid, line) in fault.program.chromes() {
        if !line.contains("--type=") {
            kill(pid);
        }
    }
    until("the attempt ends", async || fault.program.show(id).await["status"] == "failed").await;
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    fault.ended(id).is("unknown", "browser.crashed");
    let next = fault.enqueue(&fault.nasty.page("fault", "<p>No form here")).await;
    until("the next attempt ends", async || fault.program.show(next).await["status"] == "failed").await;
    fault.ended(next).is("comment_form_not_found", "comments.no_form").with_evidence();
}
