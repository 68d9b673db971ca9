//! What a crash left in a run directory, or somebody wrote there: recovery mends it without a panic, keeps every whole
//! line, and leaves a final result that can be read.
#![no_main]

use std::cell::RefCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use pagehand::failure::{Failure, FailureReason};
use pagehand::task::{Fence, TaskId};
use pagehand::telemetry::{EndedAttempt, RunsDir, recover_run};

thread_local! {
    static PLACE: RefCell<(tempfile::TempDir, tokio::runtime::Runtime)> = RefCell::new((
        tempfile::tempdir().expect("a temporary directory"),
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
    ));
}

fuzz_target!(|data: &[u8]| {
    // init.json, final_result.json and steps.jsonl, parted by NUL; an empty one is not there.
    let mut parts = data.splitn(3, |byte| *byte == 0);
    PLACE.with_borrow(|(root, runtime)| {
        let run = root.path().join("1");
        let _ = fs::remove_dir_all(&run);
        fs::create_dir(&run).expect("the run directory is made");
        let mut steps = Vec::new();
        for name in ["init.json", "final_result.json", "steps.jsonl"] {
            let content = parts.next().unwrap_or_default();
            if !content.is_empty() {
                fs::write(run.join(name), content).expect("the file is written");
            }
            steps = content.to_vec();
        }
        let runs = RunsDir::open(root.path()).expect("the directory can be written");
        let lost = EndedAttempt {
            task_id: TaskId(1),
            fence: Fence(7),
            retry_count: 0,
            started_at: chrono::DateTime::UNIX_EPOCH,
            completed_at: chrono::DateTime::UNIX_EPOCH,
            execution_time: std::time::Duration::from_secs(1),
            failure: Some(Failure::retryable(FailureReason::Unknown, "infra.worker_lost", "the worker was lost")),
            details: serde_json::Map::new(),
            meta: serde_json::Map::new(),
        };
        runtime.block_on(recover_run(&runs, lost));
        let kept = fs::read(run.join("steps.jsonl")).unwrap_or_default();
        let whole = steps.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        assert!(kept.starts_with(&steps[..whole]), "a whole line was changed");
        assert!(kept.is_empty() || kept.ends_with(b"\n"), "a torn line was left");
        if let Ok(result) = fs::read(run.join("final_result.json")) {
            assert!(serde_json::from_slice::<serde_json::Value>(&result).is_ok(), "a damaged result was left");
        }
    });
});
