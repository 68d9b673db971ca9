//! A browser with a server of pages that misbehave, and the ways to an element that the tests of it share.

#![allow(dead_code, reason = "not every test file uses everything")]

#[path = "nasty.rs"]
pub mod nasty;
#[path = "policy.rs"]
pub mod policy;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

pub use nasty::Nasty;
use pagehand::browser::*;
use serde_json::json;
use tokio::time::Instant;

pub const SOON: Duration = Duration::from_secs(5);

pub struct Fixture {
    pub pool: BrowserPool,
    pub nasty: Nasty,
    pub state_dir: tempfile::TempDir,
}

impl Fixture {
    pub async fn new() -> Fixture {
        Fixture::with(|settings| settings).await
    }

    pub async fn with(change: impl FnOnce(BrowserSettings) -> BrowserSettings) -> Fixture {
        let state_dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state_dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = BrowserSettings { state_dir: state_dir.path().to_owned(), ..BrowserSettings::default() };
        let pool = BrowserPool::new(change(settings));
        Fixture { pool, nasty: Nasty::start().await, state_dir }
    }

    pub async fn tab(&self) -> Tab {
        self.pool.open(self.options()).await.unwrap()
    }

    /// A tab with a page that shows `html`.
    pub async fn showing(&self, html: &str) -> Tab {
        let tab = self.tab().await;
        let url = self.nasty.page("shown", html);
        tab.goto(&url, SOON).await.unwrap();
        tab
    }

    pub fn options(&self) -> TabOptions {
        let policy = policy::of(&[&self.nasty.url("/")]);
        TabOptions { user_agent: None, proxy: None, policy, deadline: Instant::now() + Duration::from_secs(60) }
    }
}

pub async fn find(tab: &Tab, css: &str) -> ElementRef {
    find_in(tab, &tab.main_frame(), css).await
}

pub async fn find_in(tab: &Tab, frame: &FrameId, css: &str) -> ElementRef {
    let look = "(ph, css) => { const [found] = ph.deepQueryAll(css); return found ? ph.keep(found) : null; }";
    let handle: Option<u32> = tab.wait_for(frame, look, &[json!(css)], SOON).await.unwrap();
    ElementRef { frame: frame.clone(), handle: handle.unwrap_or_else(|| panic!("no {css}")) }
}

pub async fn value(tab: &Tab, element: &ElementRef) -> String {
    let look = "(ph, n) => { const e = ph.get(n); return e.isContentEditable ? e.innerText : e.value; }";
    tab.call(&element.frame, look, &[json!(element.handle)], SOON).await.unwrap()
}

/// What the tests of submitting decide with.
pub struct Gate {
    pub admit: Result<(), String>,
    pub hold: &'static str,
    pub asked: std::sync::Mutex<Vec<HeldRequest>>,
    /// Looked at while the request is held.
    pub server: Option<(Nasty, &'static str)>,
}

impl Gate {
    pub fn admitting(hold: &'static str) -> Gate {
        Gate { admit: Ok(()), hold, asked: std::sync::Mutex::default(), server: None }
    }

    pub fn refusing(hold: &'static str) -> Gate {
        Gate { admit: Err("the lease is lost".to_owned()), ..Gate::admitting(hold) }
    }
}

impl SubmitGate for Gate {
    fn judge(&self, request: &HeldRequest) -> Judgement {
        if request.url.contains(self.hold) { Judgement::Hold } else { Judgement::Pass }
    }

    fn admit<'a>(&'a self, request: &'a HeldRequest) -> futures::future::BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(request.clone());
            if let Some((server, path)) = &self.server {
                // Time enough for a request that was not held to arrive.
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert_eq!(server.seen(path).len(), 0, "it left before it was admitted");
            }
            self.admit.clone()
        })
    }
}

/// Runs a test's body and fails it when it takes longer than it may.
pub async fn within<T>(seconds: u64, body: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), body).await.expect("the test took longer than it may")
}

pub fn group_of(pid: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        let group = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
        if group == Some(pid) {
            let line = std::fs::read(format!("/proc/{other}/cmdline")).unwrap_or_default();
            found.push((other, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Full chromium, which gives frames of other sites processes of their own; `None` where it is not installed.
pub async fn full_chromium() -> Option<Fixture> {
    let path = std::path::Path::new("/usr/bin/chromium");
    if !path.exists() {
        return None;
    }
    Some(Fixture::with(|settings| BrowserSettings { executable: Some(path.to_owned()), ..settings }).await)
}
