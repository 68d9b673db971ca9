//! A Postgres, a site and a directory of one's own for a run of the harness, and workers as processes in it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use pagehand::devdb::{DevDb, Durability};
use pagehand::queue::Queue;
use pagehand::site::NewEnrolment;
use pagehand::task::NewTask;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::proxy::Proxy;
use super::site::{Manner, Site};

/// Nothing that is waited for may take longer without any progress: far more than a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The leases of all workers here.
pub const LEASE: Duration = Duration::from_secs(3);

pub struct Cluster {
    pub site: Site,
    pub pool: PgPool,
    pub queue: Queue,
    pub proxy: Proxy,
    pub tasks: Vec<Task>,
    server: Mutex<DevDb>,
    data_dir: PathBuf,
    dir: TempDir,
}

/// A task and what has to be found of it in the ledger.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: i64,
    pub manner: Manner,
    /// As in [`super::site::Submitted::text`].
    pub text: String,
    /// Must be in no file, log line or row of the record.
    pub secret: Option<String>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tempfile::Builder::new().prefix("chaos-").tempdir_in(place).expect("target can be written");
        // Chrome's own user has to get to its profile below.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        // The program as it is now, also when another build takes its place meanwhile.
        let program = dir.path().join("pagehand");
        fs::hard_link(env!("CARGO_BIN_EXE_pagehand"), &program)
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_pagehand"), &program).map(drop))
            .expect("the program is built");
        let server = DevDb::start_with(dir.path(), Durability::Full).await.expect("postgres starts");
        let queue = Queue::connect(&server.url(), 2).await.expect("postgres answers");
        queue.migrate().await.expect("the schema is made");
        let pool = PgPoolOptions::new().max_connections(2).connect(&server.url()).await.expect("postgres answers");
        let site = Site::start().await;
        let origin = site.origin.parse().expect("it is an origin");
        let enrolment = NewEnrolment { allow_private: true, ..NewEnrolment::new(origin, "the harness") };
        queue.add_site(&enrolment).await.expect("the site is enrolled");
        let proxy = Proxy::start(&server.url());
        let data_dir = server.log_path().parent().expect("a log is in a directory").join("data");
        Cluster { site, pool, queue, proxy, tasks: Vec::new(), server: Mutex::new(server), data_dir, dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn runs(&self) -> PathBuf {
        self.dir.path().join("runs")
    }

    /// Leaves everything on the disk, for whoever looks into a violation.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    /// Adds one task; `priority` decides who is claimed first.
    pub async fn enqueue(&mut self, manner: Manner, priority: i16) -> i64 {
        let n = self.tasks.len() + 1;
        let (text, secret, payload) = if manner == Manner::Registers {
            let (name, secret) = (format!("walker{n}x"), format!("Secret-{n}-{:08x}!", n.wrapping_mul(0x9e37_79b9)));
            let payload = json!({"username": name, "email": format!("{name}@example.org"), "password": secret});
            (format!("{name}\n{secret}"), Some(secret), payload)
        } else {
            let text = format!("Words that nobody else would write here, number {n} of the harness.");
            let payload = json!({"author": "Ann Example", "email": format!("ann{n}@example.org"), "body": text});
            (text, None, payload)
        };
        let task = NewTask {
            task_type: if manner == Manner::Registers { "registration" } else { "comment" }.to_owned(),
            url: self.site.url(manner, n),
            site: self.site.origin.clone(),
            campaign_id: None,
            payload,
            // Injected faults count as failures; what is looked for is what survives them.
            max_retries: Some(50),
            priority,
            run_at: None,
            dedupe_key: None,
            traceparent: None,
            request_id: None,
        };
        let id = self.queue.enqueue(&[task], 3).await.expect("it is added")[0].id.0;
        self.tasks.push(Task { id, manner, text, secret });
        id
    }

    /// A worker process, its Postgres behind the proxy, its log in `worker-NAME.log`.
    pub fn worker(&self, name: &str, concurrency: u32, faults: &str, extra: &[(&str, String)]) -> Child {
        self.command(name, concurrency, faults, extra).spawn().expect("the program can be run")
    }

    /// As [`Cluster::worker`], one that ends when there is nothing more to do.
    pub fn drainer(&self, name: &str) -> Child {
        self.command(name, 2, "", &[]).arg("--drain").spawn().expect("the program can be run")
    }

    fn command(&self, name: &str, concurrency: u32, faults: &str, extra: &[(&str, String)]) -> Command {
        let log = self.dir.path().join(format!("worker-{name}.log"));
        let log = File::options().create(true).append(true).open(log).expect("a log can be written");
        let mut command = Command::new(self.dir.path().join("pagehand"));
        command.args(["worker", "--instance", name, "--concurrency", &concurrency.to_string()]);
        command.current_dir(self.dir.path()).env_clear().kill_on_drop(true);
        for name in ["PATH", "HOME", "TMPDIR", "PG_BIN"] {
            command.envs(std::env::var(name).map(|value| (name, value)));
        }
        command
            .env("DATABASE_URL", self.proxy.url())
            .env("PAGEHAND_DATA__DIR", "data")
            .env("TELEMETRY_RUNS_DIR", "runs")
            .env("PAGEHAND_WORKER__LEASE_SECONDS", LEASE.as_secs().to_string())
            .env("PAGEHAND_WORKER__POLL_SECONDS", "0.2")
            .env("PAGEHAND_WORKER__DRAIN_SECONDS", "20")
            .env("PAGEHAND_WORKER__TASK_TIMEOUT_SECONDS", "60")
            .env("PAGEHAND_RETRY__INITIAL_SECONDS", "0.1")
            .env("PAGEHAND_RETRY__MAX_SECONDS", "0.5")
            .env("FAILPOINTS", faults)
            .envs(extra.iter().map(|(name, value)| (*name, value.clone())));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Stops Postgres the hard way, as a crash would, and starts it again after `pause`.
    pub async fn crash_postgres(&self, pause: Duration) {
        let pid = fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next().and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::QUIT);
            let gone = Instant::now();
            while kill_process(pid, Signal::CONT).is_ok() && gone.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(pause).await;
        let again = DevDb::start_with(self.dir.path(), Durability::Full).await.expect("postgres recovers");
        *self.server.lock().await = again;
    }

    /// Ends every connection to Postgres but our own.
    pub async fn end_connections(&self) {
        let ended = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pagehand%' AND pid <> pg_backend_pid()",
        );
        // Postgres itself may be away.
        let _ = ended.execute(&self.pool).await;
    }

    /// Processes of the workers' Chromes, with their command lines. The main ones name this directory; the others are in
    /// their groups.
    pub fn chromes(&self) -> Vec<(Pid, String)> {
        let place = self.dir.path().to_string_lossy().into_owned();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let all: Vec<(i32, i32, String)> = entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                let group = stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()?;
                line.contains("chrom").then_some((pid, group, line))
            })
            .collect();
        let mains: Vec<i32> = all.iter().filter(|(.., line)| line.contains(&place)).map(|(pid, ..)| *pid).collect();
        all.into_iter()
            .filter(|(pid, group, _)| mains.contains(group) || mains.contains(pid))
            .filter_map(|(pid, _, line)| Some((Pid::from_raw(pid)?, line)))
            .collect()
    }

    /// Ends the leases of all workers whose names are like that, as if their time had passed.
    pub async fn end_leases(&self, workers: &str) {
        let ended = "UPDATE tasks SET lease_expires_at = clock_timestamp() WHERE lease_owner LIKE $1";
        sqlx::query(ended).bind(workers).execute(&self.pool).await.expect("postgres answers");
    }

    /// Waits until a task has ended.
    pub async fn has_ended(&self, task: i64) {
        let ended = "SELECT status NOT IN ('pending', 'running') FROM tasks WHERE id = $1";
        while !sqlx::query_scalar(ended).bind(task).fetch_one(&self.pool).await.unwrap_or(false) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tasks that are not ended and records that are due, attempts made, steps written: whether anything goes on.
    pub async fn progress(&self) -> Option<(i64, i64, i64)> {
        let counted = sqlx::query_as(
            "SELECT (SELECT count(*) FROM tasks WHERE status IN ('pending', 'running')) + (SELECT count(*) FROM records_due),
                    (SELECT count(*) FROM attempts), (SELECT count(*) FROM steps)",
        );
        counted.fetch_one(&self.pool).await.ok()
    }

    /// Waits until every task has ended and has its record. False: nothing went on for [`PATIENCE`].
    pub async fn converges(&self) -> bool {
        let (mut seen, mut since) = (None, Instant::now());
        loop {
            let now = self.progress().await;
            if now.is_some_and(|(live, ..)| live == 0) {
                return true;
            }
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > PATIENCE {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Waits for a worker that was told to end; killed when it does not.
pub async fn ends(child: &mut Child) -> bool {
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_ok() {
        return true;
    }
    let _ = child.kill().await;
    false
}

pub fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

pub fn signal(pid: Option<Pid>, signal: Signal) {
    if let Some(pid) = pid {
        // It may just have ended.
        let _ = kill_process(pid, signal);
    }
}

/// Whether the process is stopped, as by SIGSTOP.
pub fn is_stopped(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
