//! The record of a run on disks that fail: full, read-only, not ours. The task must not notice.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pagehand::task::TaskId;
use pagehand::telemetry::{RunsDir, SnapshotKind, finalize_run, init_run, log_step, save_snapshot, write_errors_total};
use serde_json::{Value, json};

#[path = "support/runs.rs"]
mod support;

use support::{ended, names, snapshot, start};

/// A small file system of its own, gone when dropped.
struct Disk {
    place: tempfile::TempDir,
}

impl Disk {
    /// None, and a word about it, where this user may not mount one.
    fn of_kilobytes(size: u32) -> Option<Disk> {
        let place = tempfile::tempdir().unwrap();
        let options = format!("size={size}k,mode=0755");
        let mounted = mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], place.path());
        if !mounted {
            eprintln!("skipped: mounting a small tmpfs needs root and CAP_SYS_ADMIN");
        }
        mounted.then_some(Disk { place })
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("runs")
    }

    fn fill(&self) {
        let _ = fs::write(self.place.path().join("filler"), vec![b'x'; 8 << 20]);
    }

    fn make_room(&self) {
        fs::remove_file(self.place.path().join("filler")).unwrap();
    }

    fn has_reserve(&self) -> bool {
        self.path().join(".reserve").exists()
    }

    fn make_read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], self.place.path()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.place.path()).status();
    }
}

fn mount(arguments: &[&str], place: &Path) -> bool {
    Command::new("mount").args(arguments).arg(place).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test]
async fn on_a_full_disk_the_task_goes_on_its_result_fits_into_the_reserve_and_says_what_is_missing() {
    let Some(disk) = Disk::of_kilobytes(256) else { return };
    let dir = RunsDir::open(&disk.path()).unwrap();
    let run = init_run(&dir, start(0, 1)).await;
    log_step(&run, "task_started", Value::Null);
    disk.fill();
    assert_eq!(dir.free_bytes().unwrap(), 0);
    let refused = dir.check_writable().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    assert!(disk.has_reserve());

    for n in 0..20 {
        log_step(&run, "step", json!({"n": n, "text": "x".repeat(1_000)}));
    }
    save_snapshot(&run, SnapshotKind::Error, snapshot(&"<p>x</p>".repeat(10_000))).await;
    finalize_run(&run, ended(None)).await;

    let path = dir.run_path(TaskId(123));
    assert_eq!(names(&path), ["final_result.json", "init.json", "steps.jsonl"]);
    let result: Value = serde_json::from_str(&fs::read_to_string(path.join("final_result.json")).unwrap()).unwrap();
    for part in ["dom", "screenshot", "report"] {
        assert_eq!(result["artifacts"][part]["status"], "unavailable", "{result}");
    }
    assert_eq!(result["artifacts"]["steps"]["status"], "incomplete", "{result}");
    assert!(!disk.has_reserve());
    assert!(dir.check_writable().is_err(), "nothing is claimed until there is room for the reserve");
    for line in fs::read_to_string(path.join("steps.jsonl")).unwrap().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("half a line ({error}): {line}"));
    }
    let errors = run.write_errors();
    assert!(errors.disk_full() && !errors.read_only(), "{errors:?}");
    let failure = run.failure_of_writing().unwrap();
    assert_eq!((failure.code.as_ref(), failure.retryable), ("infra.disk_full", true));
    assert!(write_errors_total().iter().any(|error| (error.kind, error.errno) == ("dom", "ENOSPC")));
    assert_eq!(run.take_steps().len(), 21, "the database still gets every step");

    // With room again, the same run can still end its record: all its steps are there, and it says what is missing.
    disk.make_room();
    dir.check_writable().unwrap();
    assert!(disk.has_reserve());
    log_step(&run, "result_success", Value::Null);
    finalize_run(&run, ended(None)).await;
    let result: Value = serde_json::from_str(&fs::read_to_string(path.join("final_result.json")).unwrap()).unwrap();
    assert!(result["artifacts"]["dom"]["cause"].as_str().unwrap().starts_with("ENOSPC"), "{result}");
    assert_eq!(result["artifacts"]["steps"], Value::Null);
    let steps = fs::read_to_string(path.join("steps.jsonl")).unwrap();
    let numbers = steps.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64().unwrap());
    assert!(numbers.eq(1..=22), "{steps}");
}

#[tokio::test]
async fn an_earlier_attempt_that_can_not_be_moved_away_on_a_full_disk_is_not_overwritten() {
    let Some(disk) = Disk::of_kilobytes(256) else { return };
    let dir = RunsDir::open(&disk.path()).unwrap();
    let run = init_run(&dir, start(0, 1)).await;
    finalize_run(&run, ended(None)).await;
    let path = dir.run_path(TaskId(123));
    let before = fs::read(path.join("final_result.json")).unwrap();
    // A tmpfs always has room for a directory; a file in the place of `attempts` is as good.
    fs::write(path.join("attempts"), "in the way").unwrap();
    let next = init_run(&dir, start(1, 2)).await;
    finalize_run(&next, ended(None)).await;
    assert_eq!(fs::read(path.join("final_result.json")).unwrap(), before);
    assert!(next.failure_of_writing().is_some());
    // Out of the way again: both are on record.
    fs::remove_file(path.join("attempts")).unwrap();
    finalize_run(&next, ended(None)).await;
    assert_eq!(fs::read(path.join("attempts/0/final_result.json")).unwrap(), before);
    assert!(fs::read_to_string(path.join("final_result.json")).unwrap().contains("\"attempt\":2"));
}

#[tokio::test]
async fn a_disk_that_turns_read_only_in_the_middle_is_told_from_a_full_one() {
    let Some(disk) = Disk::of_kilobytes(1_024) else { return };
    let dir = RunsDir::open(&disk.path()).unwrap();
    {
        // What is open for writing keeps a file system from turning read-only.
        let run = init_run(&dir, start(0, 1)).await;
        finalize_run(&run, ended(None)).await;
    }
    disk.make_read_only();
    assert_eq!(dir.check_writable().unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let run = init_run(&dir, start(1, 2)).await;
    log_step(&run, "task_started", Value::Null);
    finalize_run(&run, ended(None)).await;
    let errors = run.write_errors();
    assert!(errors.read_only() && !errors.disk_full(), "{errors:?}");
    assert_eq!(run.failure_of_writing().unwrap().code, "infra.artifact_write");
    let refused = RunsDir::open(&disk.path()).unwrap_err().to_string();
    assert!(refused.contains("TELEMETRY_RUNS_DIR"), "{refused}");
}

const NOBODY: u32 = 65_534;
const AS_NOBODY: &str = "PAGEHAND_TEST_FOREIGN_RUNS_DIR";

/// As root every directory is writable: then the test runs itself again as nobody.
#[test]
fn a_directory_of_somebody_else_is_refused_with_advice() {
    if let Some(foreign) = std::env::var_os(AS_NOBODY) {
        let error = RunsDir::open(Path::new(&foreign)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("TELEMETRY_RUNS_DIR"), "{error}");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let runs = root.path().join("runs");
    fs::create_dir(&runs).unwrap();
    fs::set_permissions(&runs, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = root.path().join("test");
    // By another process: what another test starts just then would keep a file that is open for writing here busy.
    assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap().success());
    let mut again = Command::new(program);
    again.args(["--exact", "a_directory_of_somebody_else_is_refused_with_advice"]).env(AS_NOBODY, &runs);
    if rustix::process::geteuid().is_root() {
        again.uid(NOBODY).gid(NOBODY);
    }
    let output = again.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
