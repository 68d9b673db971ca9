//! Carries a plan out: workers live and die by it, then everything has to converge, then it is checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::sync::watch;

use super::checker::{Findings, Violation, check};
use super::cluster::{Cluster, LEASE, PATIENCE, ends, is_stopped, pid, signal};
use super::plan::{Around, Life, Outside, Plan};

/// When the clock of a worker jumps, after its start.
const JUMP_AFTER: Duration = Duration::from_millis(1_500);
/// Tasks at once in each worker.
const CONCURRENCY: u32 = 2;

/// Runs the plan on a fresh cluster.
pub async fn run(plan: &Plan) -> (Cluster, Findings) {
    let mut cluster = Cluster::start().await;
    for manner in &plan.tasks {
        cluster.enqueue(*manner, 0).await;
    }
    let findings = disturb(&cluster, plan).await;
    (cluster, findings)
}

async fn disturb(cluster: &Cluster, plan: &Plan) -> Findings {
    let (over, done) = watch::channel(false);
    let (quiet, mut quietened) = watch::channel(0);
    let slots = plan.workers.iter().enumerate().map(|(n, lives)| {
        let n = if plan.namesakes && n == 1 { 0 } else { n };
        slot(cluster, format!("w{n}"), lives, quiet.clone(), done.clone())
    });
    let converged = async {
        around(cluster, &plan.around).await;
        let _ = quietened.wait_for(|quiet| *quiet == plan.workers.len()).await;
        let converged = cluster.converges().await;
        over.send_replace(true);
        converged
    };
    let (ended, converged) = join(join_all(slots), converged).await;
    verdict(cluster, converged, ended.into_iter().all(|ended| ended)).await
}

/// Checks, once what is dying has died and one more worker has come and gone: it removes what the dead left.
pub async fn verdict(cluster: &Cluster, converged: bool, ended: bool) -> Findings {
    let mut last = cluster.drainer("last");
    let ended = ends(&mut last).await && ended;
    let since = Instant::now();
    while !cluster.chromes().is_empty() && since.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut findings = check(cluster).await;
    let mut note = |invariant, evidence: &str| {
        findings.violations.push(Violation { invariant, task: None, evidence: evidence.to_owned() });
    };
    if !converged {
        note("converges", &format!("nothing went on for {} s, and not all tasks have ended", PATIENCE.as_secs()));
    }
    if !ended {
        note("converges", &format!("a worker did not end {} s after SIGTERM", PATIENCE.as_secs()));
    }
    findings
}

/// One worker through its lives. True: the last one ended when it was asked to.
async fn slot(
    cluster: &Cluster,
    name: String,
    lives: &[Life],
    quiet: watch::Sender<usize>,
    mut done: watch::Receiver<bool>,
) -> bool {
    for life in lives {
        let clock = Clock::of(cluster, &name);
        let mut child = cluster.worker(&name, CONCURRENCY, &life.faults, &clock.environment());
        tokio::select! {
            () = live(cluster, &mut child, life) => {}
            () = clock.jump(life.skew) => {}
        }
    }
    quiet.send_modify(|quiet| *quiet += 1);
    loop {
        let mut child = cluster.worker(&name, CONCURRENCY, "", &[]);
        tokio::select! {
            _ = done.wait_for(|done| *done) => {
                signal(pid(&child), Signal::TERM);
                return ends(&mut child).await;
            }
            // Postgres was not there when it began: a service manager starts it again.
            _ = child.wait() => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}

async fn live(cluster: &Cluster, child: &mut Child, life: &Life) {
    let Some(pid) = pid(child) else { return };
    let outside = async {
        for (after, what) in &life.outside {
            tokio::time::sleep(*after).await;
            act(cluster, pid, *what);
        }
        // The last one ends it.
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        _ = child.wait() => return,
        () = outside => {}
        () = wake(pid) => {}
    }
    let _ = child.kill().await;
}

/// Continues a process that stopped, or was stopped, when its leases are surely over.
async fn wake(pid: Pid) {
    loop {
        if is_stopped(pid) {
            tokio::time::sleep(LEASE + LEASE / 2).await;
            signal(Some(pid), Signal::CONT);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn act(cluster: &Cluster, worker: Pid, what: Outside) {
    let kill = |wanted: fn(&str) -> bool, most: usize| {
        for (pid, _) in cluster.chromes().into_iter().filter(|(_, line)| wanted(line)).take(most) {
            signal(Some(pid), Signal::KILL);
        }
    };
    match what {
        Outside::Kill => signal(Some(worker), Signal::KILL),
        Outside::Term => signal(Some(worker), Signal::TERM),
        Outside::Stop => signal(Some(worker), Signal::STOP),
        Outside::KillChrome => kill(|line| !line.contains("--type="), usize::MAX),
        Outside::KillRenderer => kill(|line| line.contains("--type=renderer"), 1),
    }
}

async fn around(cluster: &Cluster, faults: &[(Duration, Around)]) {
    for (after, fault) in faults {
        tokio::time::sleep(*after).await;
        match fault {
            Around::CrashPostgres(pause) => cluster.crash_postgres(*pause).await,
            Around::EndConnections => cluster.end_connections().await,
            Around::Silence(length) => {
                cluster.proxy.be_silent(true);
                tokio::time::sleep(*length).await;
                cluster.proxy.be_silent(false);
            }
            Around::Lose(loss) => cluster.proxy.lose(loss.clone()),
        }
    }
}

/// The wall clock of a process, if the machine has libfaketime; the monotonic one is left alone.
struct Clock {
    library: Option<&'static str>,
    file: PathBuf,
}

impl Clock {
    fn of(cluster: &Cluster, name: &str) -> Clock {
        let places = [
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/faketime/libfaketimeMT.so.1",
        ];
        let clock = Clock {
            library: places.into_iter().find(|path| Path::new(path).exists()),
            file: cluster.path().join(format!("clock-{name}")),
        };
        clock.set(0);
        clock
    }

    fn set(&self, seconds: i64) {
        fs::write(&self.file, format!("{seconds:+}s\n")).expect("the directory can be written");
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(library) = self.library else { return Vec::new() };
        vec![
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Jumps while there is work under way; never returns.
    async fn jump(&self, seconds: i64) {
        tokio::time::sleep(JUMP_AFTER).await;
        self.set(seconds);
        std::future::pending().await
    }
}
