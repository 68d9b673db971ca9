//! The program itself, run as a person or systemd runs it, in a directory and on a database of its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not every test file uses everything; a test that cannot go on stops"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::database::TestDb;

/// No test waits longer for anything; far more than a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A place to run the program in.
pub struct Program {
    pub db: TestDb,
    dir: TempDir,
    env: Vec<(String, String)>,
}

impl Program {
    pub async fn new() -> Program {
        let dir = TempDir::new().unwrap();
        // Chrome's own user has to get to its profile below.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut program = Program { db: TestDb::new().await, dir, env: Vec::new() };
        for (name, value) in [
            ("PAGEHAND_WORKER__LEASE_SECONDS", "20"),
            ("PAGEHAND_WORKER__POLL_SECONDS", "0.2"),
            ("PAGEHAND_WORKER__TASK_TIMEOUT_SECONDS", "30"),
            ("PAGEHAND_RETRY__INITIAL_SECONDS", "0.1"),
            ("PAGEHAND_RETRY__MAX_SECONDS", "0.5"),
        ] {
            program = program.with(name, value);
        }
        program
    }

    /// With a lease whose end can be waited for. On a busy machine it may run out under a worker that lives.
    #[must_use]
    pub fn short_lease(self) -> Program {
        self.with("PAGEHAND_WORKER__LEASE_SECONDS", "3")
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Program {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Program {
        self.env.retain(|(known, _)| known != name);
        self
    }

    pub fn runs(&self) -> PathBuf {
        self.dir.path().join("runs")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagehand"));
        command.args(args).current_dir(self.dir.path()).env_clear().kill_on_drop(true);
        for name in ["PATH", "HOME", "TMPDIR", "FAILPOINTS"] {
            command.envs(std::env::var(name).map(|value| (name, value)));
        }
        command.env("DATABASE_URL", &self.db.url).env("PAGEHAND_DATA__DIR", "data").env("TELEMETRY_RUNS_DIR", "runs");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub async fn run(&self, args: &[&str]) -> Output {
        let output = tokio::time::timeout(PATIENCE, self.command(args).output()).await;
        output.unwrap_or_else(|_| panic!("pagehand {args:?} did not end")).unwrap()
    }

    /// Runs a command that must succeed, and reads what it prints.
    pub async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args).await;
        assert!(output.status.success(), "pagehand {args:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", text(&output.stdout)))
    }

    pub async fn enrol(&self, origin: &str) {
        let added = self.run(&["site", "add", origin, "--authorized-by", "the test", "--allow-private"]).await;
        assert!(added.status.success(), "{}", text(&added.stderr));
    }

    /// Enqueues tasks by a file and returns their ids.
    pub async fn enqueue(&self, lines: &[Value]) -> Vec<i64> {
        let file = self.dir.path().join("tasks.jsonl");
        fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let printed = self.json(&["enqueue", "--file", "tasks.jsonl", "--json"]).await;
        printed["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
    }

    /// A worker in the background, its log in a file so that it never waits for a reader.
    pub fn worker(&self, args: &[&str]) -> Child {
        let all: Vec<&str> = ["worker"].iter().chain(args).copied().collect();
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("worker.log")).unwrap();
        self.command(&all).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Works off everything.
    pub async fn drain(&self) {
        let mut worker = self.worker(&["--drain"]);
        let status = tokio::time::timeout(PATIENCE, worker.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the worker did not drain:\n{}", self.log())).unwrap();
        assert!(status.success(), "{}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("worker.log")).unwrap_or_default()
    }

    pub async fn show(&self, id: i64) -> Value {
        self.json(&["runs", "show", &id.to_string(), "--json"]).await
    }

    pub fn file(&self, id: i64, name: &str) -> Value {
        let path = self.runs().join(id.to_string()).join(name);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.log()));
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Names of the steps in `steps.jsonl`, in order; every line must be whole.
    pub fn steps(&self, id: i64) -> Vec<String> {
        let path = self.runs().join(id.to_string()).join("steps.jsonl");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Processes of this program's Chrome, with what they were started with. The first of each is its main process.
    pub fn chromes(&self) -> Vec<(i32, String)> {
        let place = self.dir.path().to_string_lossy().into_owned();
        let all: Vec<(i32, i32, String)> = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = String::from_utf8_lossy(&fs::read(entry.path().join("cmdline")).ok()?).into_owned();
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                let group = stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()?;
                line.contains("chrom").then_some((pid, group, line))
            })
            .collect();
        let mains: Vec<i32> = all.iter().filter(|(_, _, line)| line.contains(&place)).map(|(pid, ..)| *pid).collect();
        all.into_iter()
            .filter(|(pid, group, _)| mains.contains(group) || mains.contains(pid))
            .map(|(pid, _, line)| (pid, line))
            .collect()
    }
}

/// Those of the processes that still run. A zombie does not.
pub fn still_alive(processes: &[(i32, String)]) -> Vec<i32> {
    let same = |pid: i32, line: &str| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|now| String::from_utf8_lossy(&now) == *line)
    };
    processes.iter().filter(|(pid, line)| same(*pid, line)).map(|(pid, _)| *pid).collect()
}

pub fn kill(pid: i32) {
    // It may be gone already.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

pub fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().expect("it still runs")).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits for something that has to become true.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
