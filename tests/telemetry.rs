//! The record of a run, on real directories: its shapes, its snapshots, and what must not get into it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use chrono::{DateTime, TimeDelta, Utc};
use pagehand::failure::{Failure, FailureReason};
use pagehand::record::{ArtifactRecord, Console, ConsoleLine, Network, PageLog, RequestLine};
use pagehand::task::TaskId;
use pagehand::telemetry::{
    Recovered, RunsDir, Snapshot, SnapshotKind, Usage, finalize_run, init_run, log_failure, log_step, recover_run,
    save_page_log, save_snapshot, save_snapshot_meanwhile,
};
use serde_json::{Value, json};

#[path = "support/runs.rs"]
mod support;

use support::{PIXEL, clock, ended, lost, names, runs, snapshot, start, timeout};

#[tokio::test]
async fn the_three_json_files_have_the_documented_shapes() {
    let mut runs = runs();
    let (dir, now) = clock(runs.dir.clone());
    runs.dir = dir;
    let run = runs.attempt(1, 42).await;
    log_step(&run, "task_started", json!({}));
    now.fetch_add(250, Ordering::SeqCst);
    log_step(&run, "task_locked", json!({"worker": "w1"}));
    log_failure(&run, "automation_error", &timeout().caused_by(&std::io::Error::other("net")), Value::Null);
    save_snapshot(&run, SnapshotKind::Error, snapshot("<!doctype html><p>Hello</p>")).await;
    finalize_run(&run, ended(Some(timeout()))).await;

    insta::assert_snapshot!("init", runs.text("init.json"));
    insta::assert_snapshot!("steps", runs.text("steps.jsonl"));
    insta::assert_snapshot!("final_result", runs.text("final_result.json"));
    assert_eq!(
        runs.names(),
        [
            "dom_snapshot.html",
            "error_dom_20240115T103000373Z.html",
            "error_screenshot_20240115T103000373Z.png",
            "final_result.json",
            "init.json",
            "report.html",
            "screenshot.png",
            "steps.jsonl"
        ]
    );
}

#[tokio::test]
async fn on_success_the_failure_reason_is_null_and_details_can_not_replace_a_fixed_field() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    let mut step = run.start_step("ask", json!({"model": "m"}));
    step.note("answer", "yes");
    step.finish(Ok(()), Usage { tokens: 120, cost_usd: 0.25 });
    let mut result = ended(None);
    result.details.insert("outcome".to_owned(), "posted".into());
    result.details.insert("success".to_owned(), "hardly".into());
    finalize_run(&run, result).await;

    let result = &runs.json("final_result.json")["result"];
    assert_eq!(result["success"], true);
    assert_eq!(result["failure_reason"], Value::Null);
    assert!(result.as_object().unwrap().contains_key("failure_code"));
    assert_eq!(result["outcome"], "posted");
    assert_eq!((result["tokens"].as_i64(), result["cost_usd"].as_f64()), (Some(120), Some(0.25)));
    let line = &runs.lines()[0];
    assert_eq!(line["meta"], json!({"model": "m", "answer": "yes", "retry_count": 0}));
    assert_eq!((&line["status"], &line["tokens"]), (&json!("ok"), &json!(120)));
}

#[tokio::test]
async fn a_step_that_is_dropped_or_failed_says_so_and_steps_are_given_out_once() {
    let runs = runs();
    let run = runs.attempt(2, 1).await;
    drop(run.start_step("open_page", Value::Null));
    run.start_step("fill_form", json!("x")).finish(Err(&timeout()), Usage::default());
    let first = run.take_steps();
    log_step(&run, "result_failed", json!({"failure_reason": "timeout", "error": "too late"}));
    let second = run.take_steps();

    assert_eq!(first.iter().map(|step| (step.seq, step.ok)).collect::<Vec<_>>(), [(1, false), (2, false)]);
    assert_eq!(first[1].meta["failure_reason"], "timeout");
    assert_eq!(first[1].meta["value"], "x");
    assert_eq!((second.len(), second[0].seq, second[0].error.as_deref()), (1, 3, Some("too late")));
    assert!(run.take_steps().is_empty());
    for line in runs.lines() {
        assert!(line["meta"]["failure_reason"].is_string(), "{line}");
        assert_eq!(line["meta"]["retry_count"], 2);
    }
}

#[tokio::test]
async fn the_files_handed_to_the_database_are_those_on_the_disk() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    save_snapshot(&run, SnapshotKind::Initial, snapshot("<p>one</p>")).await;
    save_snapshot(&run, SnapshotKind::Final, snapshot("<p>two</p>")).await;
    log_step(&run, "result_success", Value::Null);
    let mut artifacts = finalize_run(&run, ended(None)).await;
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(artifacts.iter().map(|artifact| artifact.name.clone()).collect::<Vec<_>>(), runs.names());
    for ArtifactRecord { name, bytes, .. } in artifacts {
        assert_eq!(bytes as u64, fs::metadata(runs.path(&name)).unwrap().len(), "{name}");
    }
}

#[tokio::test]
async fn the_two_fixed_names_equal_the_newest_snapshot() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    for (kind, html) in [(SnapshotKind::Initial, "<p>one</p>"), (SnapshotKind::Error, "<p>two</p>")] {
        save_snapshot(&run, kind, snapshot(html)).await;
        let newest = runs.names().into_iter().find(|name| name.starts_with(&format!("{}_dom", kind.as_str()))).unwrap();
        assert_eq!(runs.text("dom_snapshot.html"), runs.text(&newest));
        assert!(runs.text("dom_snapshot.html").ends_with(html));
        assert_eq!(fs::read(runs.path("screenshot.png")).unwrap(), PIXEL);
    }
}

#[tokio::test]
async fn snapshots_that_are_written_meanwhile_are_all_on_the_disk_when_the_run_ends_and_in_order() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    // The later, the smaller: the last are written before the first.
    let pages: Vec<String> = (0..12).map(|n| format!("{}<p>{n}</p>", "<i>x</i>".repeat((11 - n) * 3_000))).collect();
    for page in &pages {
        save_snapshot_meanwhile(&run, SnapshotKind::Initial, snapshot(page)).await;
    }
    let artifacts = finalize_run(&run, ended(None)).await;
    assert_eq!(artifacts.iter().filter(|artifact| artifact.name.starts_with("initial_")).count(), 24);
    let doms = runs.names().into_iter().filter(|name| name.starts_with("initial_dom"));
    let found: Vec<String> = doms.map(|name| runs.text(&name).lines().last().unwrap().to_owned()).collect();
    assert_eq!(found, pages);
    assert!(runs.text("dom_snapshot.html").ends_with(&pages[11]));
    assert_eq!(runs.json("final_result.json")["artifacts"]["dom"]["status"], "ok");
}

#[tokio::test]
async fn names_of_snapshots_stay_unique_and_sorted_when_the_clock_stands_still_or_is_set_back() {
    let mut runs = runs();
    let (dir, now) = clock(runs.dir.clone());
    runs.dir = dir;
    let mut pages = Vec::new();
    for (attempt, moved) in [0, 0, -3_600_000, 5].into_iter().enumerate() {
        now.fetch_add(moved, Ordering::SeqCst);
        let run = runs.attempt(attempt as u32, attempt as i64).await;
        for n in 0..3 {
            now.fetch_sub(n, Ordering::SeqCst);
            let page = format!("<p>{attempt}.{n}</p>");
            save_snapshot(&run, SnapshotKind::Error, snapshot(&page)).await;
            pages.push(page);
        }
    }
    let sorted: Vec<String> = runs.names().into_iter().filter(|name| name.starts_with("error_dom")).collect();
    let found: Vec<String> = sorted.iter().map(|name| runs.text(name).lines().last().unwrap().to_owned()).collect();
    assert_eq!(found, pages);
    assert!(runs.text("dom_snapshot.html").ends_with(pages.last().unwrap()));
}

#[tokio::test]
async fn a_snapshot_that_could_not_be_taken_is_noted_with_its_cause_in_the_final_result() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    save_snapshot(&run, SnapshotKind::Initial, snapshot("<p>one</p>")).await;
    let gone = Snapshot { dom: Ok("<p>two</p>".to_owned().into()), png: Err("the browser is gone".to_owned()) };
    save_snapshot(&run, SnapshotKind::Error, gone).await;
    finalize_run(&run, ended(Some(timeout()))).await;
    let artifacts = &runs.json("final_result.json")["artifacts"];
    assert_eq!(
        artifacts["screenshot"],
        json!({"status": "unavailable", "snapshot": "error", "cause": "the browser is gone"})
    );
    assert_eq!(artifacts["dom"]["status"], "ok");
    assert!(runs.text("report.html").contains("the browser is gone"));
}

#[tokio::test]
async fn a_dom_beyond_the_limit_is_cut_and_says_so() {
    let mut runs = runs();
    runs.dir = runs.dir.with_dom_limit(10_000);
    let run = runs.attempt(0, 1).await;
    let html = format!("<!doctype html><script>/* {}", "ä".repeat(1_000_000));
    save_snapshot(&run, SnapshotKind::Final, snapshot(&html)).await;
    let kept = runs.text("dom_snapshot.html");
    assert!(kept.len() < 10_400, "{}", kept.len());
    let (_, mark) = kept.rsplit_once("<!-- ").unwrap();
    assert!(mark.contains(&format!("of {} bytes; sha256", html.len())), "{mark}");
}

#[tokio::test]
async fn a_symbolic_link_in_place_of_a_run_directory_is_refused_and_its_target_untouched() {
    let runs = runs();
    let target = tempfile::tempdir().unwrap();
    fs::write(target.path().join("init.json"), "{}").unwrap();
    symlink(target.path(), runs.dir.run_path(TaskId(123))).unwrap();
    let run = runs.attempt(0, 1).await;
    log_step(&run, "task_started", Value::Null);
    save_snapshot(&run, SnapshotKind::Error, snapshot("<p>x</p>")).await;
    assert!(finalize_run(&run, ended(None)).await.is_empty());

    let failure = run.failure_of_writing().unwrap();
    assert_eq!((failure.code.as_ref(), failure.retryable), ("policy.path", false));
    assert_eq!(run.write_errors().0[0].errno, "ELOOP");
    assert_eq!(names(target.path()), ["init.json"]);
    assert_eq!(run.take_steps().len(), 1, "the database still gets the steps");
    assert_eq!(recover_run(&runs.dir, lost(0, 1)).await, Recovered::Unwritable);
}

#[tokio::test]
async fn links_and_pipes_planted_inside_a_run_directory_lead_nowhere() {
    let runs = runs();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let path = runs.dir.run_path(TaskId(123));
    fs::create_dir_all(&path).unwrap();
    for name in ["steps.jsonl", "init.json", "final_result.json", "report.html", "dom_snapshot.html", "screenshot.png"]
    {
        symlink(&victim, path.join(name)).unwrap();
    }
    symlink(outside.path(), path.join("attempts")).unwrap();
    let run = runs.attempt(0, 1).await;
    log_step(&run, "task_started", Value::Null);
    save_snapshot(&run, SnapshotKind::Error, snapshot("<p>x</p>")).await;
    finalize_run(&run, ended(None)).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(names(outside.path()), ["victim"]);

    // A pipe that nobody reads would stop whoever opens it for writing.
    fs::remove_file(path.join("attempts")).unwrap();
    fs::remove_file(path.join("steps.jsonl")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path.join("steps.jsonl")).status().unwrap().success());
    let run = runs.attempt(1, 2).await;
    log_step(&run, "task_started", Value::Null);
    finalize_run(&run, ended(None)).await;
    let result = runs.json("final_result.json");
    assert_eq!(result["artifacts"]["steps"]["status"], "incomplete", "{result}");
}

#[tokio::test]
async fn a_line_that_the_disk_did_not_take_comes_before_the_next_one() {
    let runs = runs();
    let steps = runs.dir.run_path(TaskId(123)).join("steps.jsonl");
    fs::create_dir_all(&steps).unwrap();
    let run = runs.attempt(0, 1).await;
    log_step(&run, "task_started", Value::Null);
    log_step(&run, "locking_task", Value::Null);
    fs::remove_dir(&steps).unwrap();
    log_step(&run, "task_locked", Value::Null);
    let lines = fs::read_to_string(&steps).unwrap();
    let numbers: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    finalize_run(&run, ended(None)).await;
    assert_eq!(runs.json("final_result.json")["artifacts"]["steps"], Value::Null);
}

#[tokio::test]
async fn run_directories_and_files_are_closed_to_other_users_whatever_the_umask_is() {
    let runs = runs();
    // A directory that somebody made by hand under a loose umask.
    fs::create_dir(runs.dir.run_path(TaskId(123))).unwrap();
    fs::set_permissions(runs.dir.run_path(TaskId(123)), fs::Permissions::from_mode(0o777)).unwrap();
    let run = runs.attempt(0, 1).await;
    save_snapshot(&run, SnapshotKind::Final, snapshot("<p>x</p>")).await;
    finalize_run(&run, ended(None)).await;
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(runs.dir.run_path(TaskId(123))), 0o750);
    for name in runs.names() {
        assert_eq!(mode(runs.path(&name)) & !0o640, 0, "{name}");
    }
    drop(runs.attempt(1, 2).await);
    assert_eq!(mode(runs.path("attempts/0")) & !0o750, 0);
}

#[test]
fn a_runs_directory_that_is_a_file_is_refused_with_advice() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("runs"), "").unwrap();
    let error = RunsDir::open(&root.path().join("runs")).unwrap_err().to_string();
    assert!(error.contains("TELEMETRY_RUNS_DIR") && error.contains("/runs"), "{error}");
}

#[tokio::test]
async fn no_secret_reaches_any_file_in_any_encoding() {
    let runs = runs();
    let secret = "correct horse & battery";
    let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret);
    let forms = [secret.to_owned(), encoded, base64, secret.replace('&', "&amp;"), secret.replace('&', "\\u0026")];
    let all = forms.join(" | ");

    let mut beginning = start(0, 1);
    beginning.meta.insert("note".to_owned(), all.clone().into());
    let run = init_run(&runs.dir, beginning).await;
    log_step(&run, "filled", json!({"text": all, (all.as_str()): [all]}));
    let failure = Failure::terminal(FailureReason::RegistrationFailed, "form.rejected", all.clone())
        .caused_by(&std::io::Error::other(all.clone()));
    run.start_step("submit", json!({"password": "anything"})).finish(Err(&failure), Usage::default());
    save_snapshot(&run, SnapshotKind::Initial, snapshot(&format!("<p>{all}</p>"))).await;
    let gone = Snapshot { dom: Err(all.clone()), png: Err(all.clone()) };
    save_snapshot(&run, SnapshotKind::Error, gone).await;
    let mut result = ended(Some(failure));
    result.details.insert("answer".to_owned(), all.clone().into());
    finalize_run(&run, result).await;

    for name in runs.names() {
        let text = String::from_utf8_lossy(&fs::read(runs.path(&name)).unwrap()).into_owned();
        for form in &forms {
            assert!(!text.contains(form.as_str()), "{form} in {name}: {text}");
        }
        assert!(name.ends_with(".png") || text.contains("***"), "{name} had nothing to hide");
    }
    assert!(run.take_steps().iter().all(|step| !format!("{step:?}").contains(secret)));
}

#[tokio::test]
async fn hostile_texts_stay_texts_in_the_report_and_one_line_in_the_steps() {
    let runs = runs();
    let hostile = "\"><img src=x onerror=alert(1)></script><script>alert(1)</script>\r\n\u{1b}[31m\u{2028}";
    let mut beginning = start(0, 1);
    for key in ["url", "site", "task_type", "worker"] {
        beginning.meta.insert(key.to_owned(), hostile.into());
    }
    let run = init_run(&runs.dir, beginning).await;
    let failure = Failure::terminal(FailureReason::Unknown, "x", hostile);
    run.start_step(hostile, json!({(hostile): hostile})).finish(Err(&failure), Usage::default());
    finalize_run(&run, ended(Some(failure))).await;
    assert_eq!(runs.lines().len(), 1);
    assert!(!runs.text("steps.jsonl").contains('\u{1b}'));
    let report = runs.text("report.html");
    assert!(!report.contains("<img src=x") && !report.contains("<script"), "{report}");
    assert!(report.contains("default-src 'none'"));
}

#[tokio::test]
async fn a_loop_of_steps_does_not_fill_the_disk() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    for _ in 0..10_100 {
        log_step(&run, "again", Value::Null);
    }
    finalize_run(&run, ended(None)).await;
    assert_eq!(runs.lines().len(), 10_000);
    assert_eq!(runs.json("final_result.json")["artifacts"]["steps"]["missing"], 100);
}

#[tokio::test]
async fn the_time_of_a_run_does_not_go_back() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    let times: Vec<DateTime<Utc>> = (0..100).map(|_| run.now()).collect();
    assert!(times.is_sorted());
    assert!((Utc::now() - times[0]).abs() < TimeDelta::minutes(1));
}

/// A page that said one thing and asked for two, of which one failed.
fn page_log(secret: &str) -> PageLog {
    let at: DateTime<Utc> = "2024-01-15T10:30:01Z".parse().unwrap();
    let request = |url: String, status, error: Option<&str>| RequestLine {
        at,
        method: "GET".to_owned(),
        url,
        resource: "Script".to_owned(),
        status,
        bytes: 10,
        duration_ms: Some(4.2),
        error: error.map(str::to_owned),
    };
    PageLog {
        console: Console {
            lines: vec![ConsoleLine {
                at,
                level: "error".to_owned(),
                text: format!("<b>no</b> {secret}"),
                url: String::new(),
            }],
            not_kept: 3,
        },
        network: Network {
            requests: vec![
                request("https://example.org/a.js".to_owned(), Some(200), None),
                request(format!("https://example.org/b.js?p={secret}"), None, Some("net::ERR_FAILED")),
            ],
            not_kept: 0,
        },
    }
}

#[tokio::test]
async fn what_the_page_said_and_asked_for_is_kept_of_each_attempt_without_secrets() {
    let runs = runs();
    let secret = "correct-horse-battery";
    let mut files = Vec::new();
    for retry_count in 0..2 {
        let mut start = start(retry_count, i64::from(retry_count) + 1);
        start.secrets.push(secret.to_owned().into());
        let run = init_run(&runs.dir, start).await;
        save_page_log(&run, page_log(secret));
        files.push(finalize_run(&run, ended(Some(timeout()))).await);
    }
    let name = |n: usize, kind: &str| files[n].iter().find(|file| file.kind == kind).unwrap().name.clone();
    for n in 0..2 {
        let console = runs.json(&name(n, "console"));
        assert_eq!((&console["not_kept"], &console["lines"][0]["level"]), (&json!(3), &json!("error")));
        let network = runs.json(&name(n, "network"));
        assert_eq!(network["requests"].as_array().unwrap().len(), 2);
        assert_eq!(network["requests"][1]["error"], "net::ERR_FAILED");
        assert!(!runs.text(&name(n, "console")).contains(secret) && !runs.text(&name(n, "network")).contains(secret));
    }
    assert_ne!(name(0, "network"), name(1, "network"));
    let report = runs.text("report.html");
    assert!(report.contains("2 requests") && report.contains(", 1 failed") && !report.contains(secret), "{report}");
    assert!(report.contains("&lt;b&gt;no&lt;/b&gt;"), "{report}");
}

#[tokio::test]
async fn an_attempt_without_a_page_leaves_neither_console_nor_network() {
    let runs = runs();
    let run = runs.attempt(0, 1).await;
    save_page_log(&run, PageLog::default());
    finalize_run(&run, ended(None)).await;
    assert!(!runs.names().iter().any(|name| name.starts_with("console") || name.starts_with("network")));
}
