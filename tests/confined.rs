//! What a running worker, its Chrome and the web server look like from outside, in `/proc`: started by root and by a user.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use pagehand::record::is_hidden;
use rustix::process::{Signal, geteuid};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/program.rs"]
mod program;

use program::{Program, signal, text, until};

/// A site that takes a comment and never answers. What it says would be more than text to a terminal or a reader of lines.
async fn site() -> (String, Arc<AtomicUsize>) {
    async fn page() -> Html<&'static str> {
        Html(concat!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>a\u{1b}[31m\u{9b}2J\u{2028}b&#10;{\"level\":\"error\"}</title>",
            "<h2>Leave a reply</h2><form method=post action=/reply><label>Name <input name=author></label>",
            "<label>Email <input name=email type=email></label><label>Comment <textarea name=comment></textarea></label>",
            "<button>Post comment</button></form><script>console.error('\\u001b[2J\\u202e\\n{\"level\":\"error\"}')</script>",
        ))
    }
    async fn reply(State(came): State<Arc<AtomicUsize>>) {
        came.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
    let came = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/{*any}", get(page)).route("/reply", post(reply)).with_state(came.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (origin, came)
}

fn comment(url: &str) -> Value {
    json!({"task_type": "comment", "url": url, "max_retries": 0,
           "payload": {"author": "Ann", "email": "ann@example.org", "body": "A fine piece, thank you."}})
}

/// A line of `/proc/PID/status` without its name.
fn status(pid: i32, name: &str) -> String {
    let all = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim().to_owned()
}

fn dumps_no_core(pid: i32) -> bool {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    line.split_whitespace().filter(|word| *word == "0").count() == 2
}

/// What the process has open.
fn open_files(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned())).collect()
}

/// Local addresses, as the kernel writes them, on which the process waits for TCP connections.
fn listens_on(pid: i32) -> Vec<String> {
    let sockets: BTreeSet<String> = open_files(pid)
        .iter()
        .filter_map(|name| Some(name.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "0A" && sockets.contains(fields[9]))
        .map(|fields| fields[1].to_owned())
        .collect()
}

fn namespace(pid: i32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

/// The user that the private Postgres runs as: it lets nobody else in but root.
fn user_of_postgres(url: &str) -> u32 {
    let url: url::Url = url.parse().unwrap();
    let socket = url.query_pairs().find(|(name, _)| name == "host").unwrap().1.into_owned();
    fs::metadata(socket).unwrap().uid()
}

/// The program, as `user` runs it.
fn command(program: &Program, user: Option<u32>, args: &[&str]) -> Command {
    let Some(user) = user else { return program.command(args) };
    let mut command = program.command(args);
    command.uid(user).gid(user).env("HOME", program.path()).env_remove("TMPDIR");
    command
}

fn give(to: u32, place: &Path) {
    chown(place, Some(to), Some(to)).unwrap();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => give(to, &entry.path()),
            false => chown(entry.path(), Some(to), Some(to)).unwrap(),
        }
    }
}

fn started(mut command: Command, log: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(log).unwrap();
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Every line is one object, and has nothing in it that anybody but a reader of JSON would act on.
fn assert_plain_lines(log: &str) {
    assert!(log.lines().count() > 3, "{log}");
    for line in log.lines() {
        let object: Result<Value, _> = serde_json::from_str(line);
        assert!(object.is_ok_and(|object| object["ts"].is_string()) && !line.contains(is_hidden), "{line:?}");
    }
}

/// Who starts the worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Starts {
    Root,
    User,
}

/// Looks at a worker while its Chrome shows a page. Reading other users' processes takes root.
async fn look_at_a_worker(who: Starts) {
    let (origin, came) = site().await;
    let program = Program::new().await.with("PAGEHAND_LOGS__FILTER", "info,pagehand=debug");
    program.enrol(&origin).await;
    let ids = program.enqueue(&[comment(&format!("{origin}/%0d%0a%1b%5b31m%e2%80%a8?a=%0a"))]).await;
    let user = (who == Starts::User).then(|| user_of_postgres(&program.db.url));
    let (log, runs_as) = (program.path().join("worker.log"), user.unwrap_or(geteuid().as_raw()));
    if let Some(user) = user {
        give(user, program.path());
    }
    let mut worker = started(command(&program, user, &["worker"]), &log);
    until("its comment is on the way", async || came.load(Ordering::SeqCst) > 0).await;

    let pid = i32::try_from(worker.id().unwrap()).unwrap();
    assert_eq!(status(pid, "Uid").split_whitespace().next(), Some(runs_as.to_string().as_str()));
    assert!(dumps_no_core(pid));
    for address in listens_on(pid) {
        assert!(address.starts_with("0100007F:"), "the worker listens on {address}");
    }

    let chromes = program.chromes();
    let (main, line) = chromes.iter().find(|(_, line)| !line.contains("--type=")).unwrap();
    let flags: Vec<&str> = line.split('\0').collect();
    for flag in ["--remote-debugging-pipe", "--disable-quic", "--disable-crash-reporter", "--disable-breakpad"] {
        assert!(flags.contains(&flag), "{flag}: {line}");
    }
    assert!(flags.contains(&"--force-webrtc-ip-handling-policy=disable_non_proxied_udp"), "{line}");
    let profile = flags.iter().find_map(|flag| flag.strip_prefix("--user-data-dir=")).map(PathBuf::from).unwrap();
    let chrome_user = fs::metadata(format!("/proc/{main}")).unwrap().uid();
    assert_ne!(chrome_user, 0);
    let stat = fs::metadata(&profile).unwrap();
    assert_eq!((stat.mode() & 0o777, stat.uid()), (0o700, chrome_user), "{}", profile.display());
    let environment = fs::read(format!("/proc/{main}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let names: BTreeSet<&str> = environment.split_terminator('\0').map(|one| one.split('=').next().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["HOME", "LANG", "PATH", "TMPDIR"]));

    let mut renderers = 0;
    for (one, line) in &chromes {
        for forbidden in [
            "--no-sandbox",
            "--disable-setuid-sandbox",
            "--single-process",
            "--remote-debugging-port",
            "--remote-allow-origins",
        ] {
            assert!(!line.contains(forbidden), "{line}");
        }
        let ids = ["Uid", "Gid"].map(|name| status(*one, name));
        assert!(
            ids.iter().all(|ids| ids.split_whitespace().all(|id| id == chrome_user.to_string())),
            "{ids:?}: {line}"
        );
        assert!(user.is_some() || status(*one, "Groups").is_empty(), "{line}");
        assert!(dumps_no_core(*one), "{line}");
        assert_eq!(listens_on(*one), Vec::<String>::new(), "{line}");
        let strange = ["/worker.log", "/runs/", "/data/postgres", "/pagehand.toml"];
        let open = open_files(*one);
        assert!(!open.iter().any(|file| strange.iter().any(|name| file.contains(name))), "{open:?}");
        if line.contains("--type=renderer") {
            renderers += 1;
            assert_eq!((status(*one, "Seccomp"), status(*one, "NoNewPrivs")), ("2".to_owned(), "1".to_owned()));
            assert_eq!(status(*one, "CapEff").trim_matches('0'), "");
            for kind in ["user", "pid", "net"] {
                assert_ne!(namespace(*one, kind), namespace(pid, kind), "{kind}");
            }
        }
    }
    assert!(renderers > 0, "{chromes:?}");

    signal(&worker, Signal::TERM);
    signal(&worker, Signal::TERM);
    worker.wait().await.unwrap();
    until("its Chrome is gone", async || program::still_alive(&chromes).is_empty()).await;
    assert!(!profile.exists(), "{} is still there", profile.display());
    assert_plain_lines(&program.log());
    for args in [vec!["runs", "ls"], vec!["runs", "show", &ids[0].to_string()], vec!["runs", "ls", "--json"]] {
        let shown = text(&program.run(&args).await.stdout);
        assert!(shown.contains("comment") && !shown.replace('\n', "").contains(is_hidden), "{args:?}: {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_root_started_has_a_chrome_without_its_rights_its_files_and_any_port() {
    if !geteuid().is_root() {
        eprintln!("skipped: this takes root");
        return;
    }
    look_at_a_worker(Starts::Root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_a_user_started_has_a_chrome_without_its_files_and_any_port() {
    if !geteuid().is_root() {
        eprintln!("skipped: the processes of a sandbox are root's to look at");
        return;
    }
    look_at_a_worker(Starts::User).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_server_dumps_no_core_and_logs_a_line_for_a_request_whatever_is_in_it() {
    let program = Program::new()
        .await
        .with("PAGEHAND_WEB__LISTEN", "127.0.0.1:0")
        .with("PAGEHAND_LOGS__FILTER", "info,pagehand=trace");
    let log = program.path().join("worker.log");
    let server = started(command(&program, None, &["serve"]), &log);
    let mut address = None;
    until("the server listens", async || {
        let named = regex::Regex::new(r"127\.0\.0\.1:([1-9]\d+)").unwrap();
        address = named.find(&program.log()).and_then(|found| found.as_str().parse().ok());
        address.is_some()
    })
    .await;
    assert!(dumps_no_core(i32::try_from(server.id().unwrap()).unwrap()));
    let before = program.log().lines().count();
    for path in
        ["/a%0d%0a%7b%22level%22:%22error%22%7d", "/%1b%5b31m%c2%9b2J", "/runs?q=%e2%80%a8%e2%80%ae%0a", "/runs/%00%0a"]
    {
        let agent = ("user-agent", "x\u{9b}31m\u{2028}\t{\"level\":\"error\"}");
        let answer = http_client::send(address.unwrap(), "GET", path, &[agent, ("x-request-id", "a b")], "").await;
        assert!(answer.status.as_u16() < 500, "{path}");
        assert!(!answer.text().replace('\n', "").contains(is_hidden), "{path}: {:?}", answer.text());
    }
    until("the requests are logged", async || program.log().lines().count() >= before + 4).await;
    assert_plain_lines(&program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_reaches_the_options_of_chrome_the_proxy_or_the_model() {
    let (origin, came) = site().await;
    let program = Program::new().await;
    program.enrol(&origin).await;
    let reached = [
        "args",
        "extra_args",
        "launch_args",
        "executable",
        "user_data_dir",
        "proxy",
        "upstream",
        "sandbox",
        "headers",
        "cookies",
        "user_agent",
        "llm_url",
        "model",
        "allow_private",
        "profile",
        "artifact_path",
        "env",
    ];
    let mut by_hand = Vec::new();
    for name in reached {
        let (mut beside, mut inside) = (comment(&format!("{origin}/x")), comment(&format!("{origin}/x")));
        beside[name] = json!(["--no-sandbox"]);
        inside["payload"][name] = json!({"bypass": "*", "url": "http://127.0.0.1:1"});
        for line in [beside, inside.clone()] {
            fs::write(program.path().join("line.jsonl"), line.to_string()).unwrap();
            let refused = program.run(&["enqueue", "--file", "line.jsonl"]).await;
            let said = text(&refused.stderr);
            assert!(!refused.status.success() && said.contains(name), "{line}: {said}");
        }
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO tasks (task_type, url, site, payload, max_retries, ready) VALUES ('comment', $1, $2, $3, 0, true) RETURNING id",
        )
        .bind(format!("{origin}/x"))
        .bind(&origin)
        .bind(&inside["payload"])
        .fetch_one(&program.db.pool)
        .await
        .unwrap();
        by_hand.push(id);
    }
    program.drain().await;
    for id in by_hand {
        let run = program.show(id).await;
        assert_eq!(
            (&run["status"], &run["failure_code"]),
            (&json!("failed"), &json!("input.invalid_payload")),
            "{run}"
        );
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}
