//! Bounds of what comes from outside that no other test has: `SECURITY.md` lists all of them.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use pagehand::site::profile::{MAX_PROFILE_BYTES, SiteProfile};
use pagehand::task::{MAX_PAYLOAD_BYTES, MAX_URL_BYTES, NewTask, check_url};
use pagehand::telemetry::{Snapshot, SnapshotKind, save_snapshot};
use serde_json::json;

#[path = "support/database.rs"]
mod database;
#[path = "support/runs.rs"]
mod runs;
#[path = "support/tasks.rs"]
mod tasks;

use database::TestDb;
use tasks::SITE;

#[test]
fn an_address_and_a_payload_are_bounded_where_they_come_in() {
    let url = |length: usize| format!("{SITE}/{}", "a".repeat(length - SITE.len() - 1));
    assert!(check_url(&url(MAX_URL_BYTES)).is_ok());
    assert!(check_url(&url(MAX_URL_BYTES + 1)).unwrap_err().contains("8192"));
    // Every field has a bound of its own; what is left is a payload of unknown fields.
    let line = json!({"task_type": "comment", "url": SITE,
        "payload": {"author": "Ann", "email": "ann@example.org", "body": "x".repeat(65_526)}});
    assert_eq!(NewTask::from_value(&line).unwrap_err()[0].field, "payload.body");
    let line = json!({"task_type": "comment", "url": SITE, "payload": {"body": "x".repeat(MAX_PAYLOAD_BYTES)}});
    assert!(NewTask::from_value(&line).unwrap_err()[0].problem.contains("1000000"));
}

#[tokio::test]
async fn a_row_by_hand_can_hold_no_larger_payload() {
    let db = TestDb::new().await;
    let insert = "INSERT INTO tasks (task_type, url, site, payload) VALUES ('comment', $1, $1, $2)";
    for (bytes, fits) in [(1_000_000, true), (1_048_600, false)] {
        let payload = json!({"body": "x".repeat(bytes)});
        let added = sqlx::query(insert).bind(SITE).bind(payload).execute(&db.pool).await;
        assert_eq!(added.is_ok(), fits, "{bytes}");
    }
}

#[test]
fn a_profile_is_bounded() {
    let text = format!("# {}\n", "x".repeat(MAX_PROFILE_BYTES));
    assert!(SiteProfile::parse(&text).is_err());
    assert!(SiteProfile::parse(&text[..1_000]).is_ok());
}

/// Most memory that this process has had so far, bytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_step_of_a_gigabyte_is_put_aside_within_bounds_of_memory_and_disk() {
    let runs = runs::runs();
    drop(runs.attempt(0, 1).await);
    let whole = std::fs::read(runs.path("steps.jsonl")).unwrap_or_default().len() as u64;
    let file = std::fs::File::options().append(true).create(true).open(runs.path("steps.jsonl")).unwrap();
    // It has no line feed, and takes no room on the disk.
    file.set_len(whole + (1 << 30)).unwrap();
    let before = most_memory();
    let run = runs.attempt(1, 2).await;
    pagehand::telemetry::log_step(&run, "task_started", json!({}));
    pagehand::telemetry::finalize_run(&run, runs::ended(None)).await;
    // The other tests of this file take some as well.
    assert!(most_memory() - before < 512 << 20, "{} MiB more", (most_memory() - before) >> 20);
    assert!(std::fs::metadata(runs.path("steps.jsonl")).unwrap().len() < whole + 100_000);
    assert!(std::fs::metadata(runs.path("steps.jsonl.torn")).unwrap().len() < 8 << 20);
    assert_eq!(runs.json("final_result.json")["result"]["success"], true);
}

#[tokio::test]
async fn a_picture_beyond_the_limit_is_not_kept_and_the_record_says_so() {
    let runs = runs::runs();
    let run = runs.attempt(0, 1).await;
    let png = [runs::PIXEL, &vec![0; (32 << 20) + 1]].concat();
    save_snapshot(&run, SnapshotKind::Final, Snapshot { dom: Ok("<p>x".to_owned().into()), png: Ok(png.into()) }).await;
    let names = runs.names();
    assert!(names.iter().any(|name| name.starts_with("final_dom_")), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with(".png")), "{names:?}");
    pagehand::telemetry::finalize_run(&run, runs::ended(None)).await;
    assert!(runs.text("final_result.json").contains("screenshot"), "{}", runs.text("final_result.json"));
}
