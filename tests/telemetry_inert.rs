//! What happens when somebody opens captured files from disk, in the real browser: nothing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pagehand::failure::{Failure, FailureReason};
use pagehand::telemetry::{SnapshotKind, Usage, finalize_run, init_run, save_snapshot};
use serde_json::json;

#[path = "support/runs.rs"]
mod support;

use support::{ended, runs, snapshot, start};

const NOBODY: u32 = 65_534;

/// Counts connections.
struct Canary {
    port: u16,
    hits: Arc<AtomicUsize>,
}

fn canary() -> Canary {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    std::thread::spawn(move || {
        for _connection in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    Canary { port, hits }
}

/// A page that tries everything to be noticed.
fn hostile(port: u16) -> String {
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    format!(
        r#"<!DOCTYPE html><html><head>
        <link rel="preconnect" href="{preconnect}"><link rel="stylesheet" href="{css}"><link rel="icon" href="{icon}">
        <base href="{base}"><style>@import "{import}"; body {{ background: url({background}) }}</style>
        <script src="{script}"></script><script>fetch("{fetch}"); location = "{location}"</script></head>
        <body onload="location='{onload}'"><img src="{img}" onerror="location='{onerror}'"><iframe src="{frame}"></iframe>
        <iframe srcdoc="<img src='{srcdoc}'>"></iframe><object data="{object}"></object><embed src="{embed}">
        <svg onload="location='{svg}'"><image href="{image}"/></svg><video src="{video}" poster="{poster}"></video>
        <form id="f" action="{form}"></form><script>f.submit()</script></body></html>"#,
        preconnect = url("preconnect"),
        css = url("css"),
        icon = url("icon"),
        base = url("base/"),
        import = url("import"),
        background = url("background"),
        script = url("script"),
        fetch = url("fetch"),
        location = url("location"),
        onload = url("onload"),
        img = url("img"),
        onerror = url("onerror"),
        frame = url("frame"),
        srcdoc = url("srcdoc"),
        object = url("object"),
        embed = url("embed"),
        svg = url("svg"),
        image = url("image"),
        video = url("video"),
        poster = url("poster"),
        form = url("form"),
    )
}

/// Each of these leaves the page without any script.
fn refresh(port: u16) -> String {
    format!(r#"<!DOCTYPE html><META HTTP-EQUIV='Refresh' content="0; url=http://127.0.0.1:{port}/refresh"><p>x</p>"#)
}

/// Opens `page` from disk; false where there is no Chrome. As root, Chrome runs as nobody, in its sandbox.
fn open(page: &Path) -> bool {
    let Some(chrome) =
        ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"].iter().find(|path| Path::new(path).exists())
    else {
        eprintln!("skipped: neither chromium-headless-shell nor chromium is installed");
        return false;
    };
    let home = tempfile::Builder::new().prefix("inert").tempdir().unwrap();
    let mut command = Command::new(chrome);
    command.args(["--headless", "--virtual-time-budget=3000", "--window-size=800,600"]);
    command.arg(format!("--user-data-dir={}", home.path().join("profile").display()));
    command.arg(format!("--screenshot={}", home.path().join("x.png").display()));
    command.arg(format!("file://{}", page.display()));
    command.env_clear().env("HOME", home.path()).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.current_dir("/").process_group(0).spawn().unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("chrome did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success() && home.path().join("x.png").exists(), "chrome could not show the page: {status}");
    true
}

/// A copy that Chrome's user may read.
fn shown(directory: &Path, name: &str, content: &[u8]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn a_captured_page_opened_from_disk_runs_nothing_fetches_nothing_and_leads_nowhere() {
    let runs = runs();
    let run = init_run(&runs.dir, start(0, 1)).await;
    let place = tempfile::tempdir().unwrap();
    for (name, page) in [("hostile", hostile as fn(u16) -> String), ("refresh", refresh)] {
        let bare = canary();
        if !open(&shown(place.path(), &format!("{name}-bare.html"), page(bare.port).as_bytes())) {
            return;
        }
        assert!(bare.hits.load(Ordering::SeqCst) > 0, "{name}: as it came, the page is noticed");

        let kept = canary();
        save_snapshot(&run, SnapshotKind::Error, snapshot(&page(kept.port))).await;
        let file = fs::read(runs.path("dom_snapshot.html")).unwrap();
        assert!(open(&shown(place.path(), &format!("{name}-kept.html"), &file)));
        assert_eq!(kept.hits.load(Ordering::SeqCst), 0, "{name}: as it was kept, it is not");
    }
}

#[tokio::test]
async fn a_report_about_a_hostile_page_fetches_nothing() {
    let runs = runs();
    let canary = canary();
    let mut beginning = start(0, 1);
    beginning.meta.insert("url".to_owned(), hostile(canary.port).into());
    let run = init_run(&runs.dir, beginning).await;
    let failure = Failure::terminal(FailureReason::Unknown, "x", hostile(canary.port));
    run.start_step("open", json!({"title": hostile(canary.port)})).finish(Err(&failure), Usage::default());
    finalize_run(&run, ended(Some(failure))).await;
    let place = tempfile::tempdir().unwrap();
    let report = fs::read(runs.path("report.html")).unwrap();
    if open(&shown(place.path(), "report.html", &report)) {
        assert_eq!(canary.hits.load(Ordering::SeqCst), 0);
    }
}
