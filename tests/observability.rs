//! Logging as a process sets it up. One test: it can be set up once only.
#![allow(clippy::unwrap_used)]

use std::fs;

use pagehand::observability::{LogError, LogSettings, init};
use serde_json::Value;

#[test]
fn lines_reach_a_daily_file_panics_too_and_wrong_settings_are_refused_with_advice() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let wrong_filter = LogSettings { filter: "pagehand=loud".to_owned(), ..LogSettings::default() };
    let error = init(&wrong_filter).unwrap_err();
    assert!(matches!(error, LogError::Filter { .. }) && error.to_string().contains("`pagehand=loud`"), "{error}");
    let wrong_dir = LogSettings { dir: Some(root.path().join("file")), ..LogSettings::default() };
    let error = init(&wrong_dir).unwrap_err();
    assert!(matches!(error, LogError::Directory { .. }) && error.to_string().contains("logs.dir"), "{error}");

    let dir = root.path().join("logs/deep");
    // Older than any that this process writes.
    fs::create_dir_all(&dir).unwrap();
    for day in ["2020-01-01", "2020-01-02"] {
        fs::write(dir.join(format!("pagehand.{day}.log")), "").unwrap();
    }
    let settings = LogSettings { dir: Some(dir.clone()), keep_days: 2, json: true, ..LogSettings::default() };
    let guard = init(&settings).unwrap();
    assert!(matches!(init(&LogSettings::default()), Err(LogError::AlreadySet)));
    tracing::info!(event = "task.locked", task_id = 7, "a task was locked");
    tracing::debug!("not asked for");
    let secret = String::from("hunter2");
    let panicked = std::thread::spawn(move || panic!("payload {secret}")).join();
    assert!(panicked.is_err());
    drop(guard);

    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() <= 2, "{files:?}");
    let lines = fs::read_to_string(files.last().unwrap()).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["event"], &lines[0]["task_id"]), (&"task.locked".into(), &7.into()));
    assert_eq!(lines[1]["event"], "process.panic");
    assert!(lines[1]["code.location"].as_str().unwrap().contains("observability.rs"));
    assert!(!lines[1].to_string().contains("hunter2"));
}
