//! A runs directory to record into, and what is recorded there. Each test file uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use pagehand::failure::{Failure, FailureReason};
use pagehand::task::{Fence, TaskId};
use pagehand::telemetry::{EndedAttempt, FinalResult, Run, RunStart, RunsDir, Snapshot, init_run};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// A PNG of one pixel.
pub const PIXEL: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0\x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82";

pub struct Runs {
    _root: TempDir,
    pub dir: RunsDir,
}

pub fn runs() -> Runs {
    let root = tempfile::tempdir().unwrap();
    let dir = RunsDir::open(&root.path().join("runs")).unwrap();
    Runs { _root: root, dir }
}

impl Runs {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.run_path(TaskId(123)).join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    pub fn lines(&self) -> Vec<Value> {
        self.text("steps.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn names(&self) -> Vec<String> {
        names(&self.dir.run_path(TaskId(123)))
    }

    pub async fn attempt(&self, retry_count: u32, fence: i64) -> Run {
        init_run(&self.dir, start(retry_count, fence)).await
    }
}

pub fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub fn start(retry_count: u32, fence: i64) -> RunStart {
    let Value::Object(meta) = json!({"task_type": "comment", "campaign_id": 1, "url": "https://example.org/post",
        "max_retries": 3})
    else {
        unreachable!()
    };
    RunStart {
        task_id: TaskId(123),
        fence: Fence(fence),
        retry_count,
        started_at: time("2024-01-15T10:30:00.123Z"),
        meta,
        secrets: vec!["correct horse & battery".into()],
    }
}

pub fn snapshot(html: &str) -> Snapshot {
    Snapshot { dom: Ok(html.to_owned().into()), png: Ok(PIXEL.into()) }
}

pub fn timeout() -> Failure {
    Failure::retryable(FailureReason::Timeout, "nav.timeout", "the page did not load within 30 s")
}

pub fn ended(failure: Option<Failure>) -> FinalResult {
    FinalResult {
        completed_at: time("2024-01-15T10:30:45.793Z"),
        execution_time: Duration::from_millis(45_670),
        failure,
        details: Map::new(),
        decided: None,
    }
}

pub fn lost(retry_count: u32, fence: i64) -> EndedAttempt {
    EndedAttempt {
        task_id: TaskId(123),
        fence: Fence(fence),
        retry_count,
        started_at: time("2024-01-15T10:30:00Z"),
        completed_at: time("2024-01-15T10:31:00Z"),
        execution_time: Duration::from_secs(60),
        failure: Some(Failure::retryable(FailureReason::Unknown, "infra.worker_lost", "the worker was lost")),
        details: Map::new(),
        meta: Map::new(),
    }
}

/// A clock that only moves when told.
pub fn clock(dir: RunsDir) -> (RunsDir, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(time("2024-01-15T10:30:00.123Z").timestamp_millis()));
    let read = now.clone();
    let dir = dir.with_clock(Arc::new(move || DateTime::from_timestamp_millis(read.load(Ordering::SeqCst)).unwrap()));
    (dir, now)
}

pub fn append(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}
