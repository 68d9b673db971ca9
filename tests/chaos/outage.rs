//! Postgres is away for longer than everything else waits, while there is work to do.

use std::fs;
use std::time::Duration;

use super::checker::{Findings, Violation};
use super::cluster::{Cluster, ends, pid, signal};
use super::site::Manner;
use super::swarm::verdict;

/// Log lines that a worker may write in each minute without Postgres.
const LINES_A_MINUTE: usize = 6;
/// The share of a core that a worker may use meanwhile.
const BUSY: f64 = 0.05;

/// What the kernel and the log say of a worker.
#[derive(Clone, Copy)]
struct Spent {
    cpu_seconds: f64,
    lines: usize,
}

/// Stops Postgres under load for `length`; says what each worker spent meanwhile.
pub async fn run(length: Duration, tasks: usize) -> (Cluster, Findings, Vec<String>) {
    let mut cluster = Cluster::start().await;
    for n in 0..tasks {
        let manner = if n % 3 == 2 { Manner::Registers } else { Manner::Dawdles };
        cluster.enqueue(manner, 0).await;
    }
    let mut workers = ["w0", "w1"].map(|name| (name, cluster.worker(name, 2, "", &[])));
    while cluster.site.ledger.all().len() < tasks / 4 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut before = Vec::new();
    let away = cluster.crash_postgres(length);
    let meanwhile = async {
        // What was under way ends first.
        tokio::time::sleep(length / 4).await;
        before.extend(workers.iter().map(|(name, child)| spent(&cluster, name, pid(child))));
        tokio::time::sleep(length / 2).await;
        workers.iter().map(|(name, child)| spent(&cluster, name, pid(child))).collect::<Vec<_>>()
    };
    let ((), after) = futures::future::join(away, meanwhile).await;
    let mut lines = Vec::new();
    let mut violations = Vec::new();
    let half = length / 2;
    for (((name, child), before), after) in workers.iter_mut().zip(before).zip(after) {
        let (cpu, said) = (after.cpu_seconds - before.cpu_seconds, after.lines - before.lines);
        lines.push(format!("{name}: {cpu:.2} s of processor time and {said} log lines in {} s", half.as_secs()));
        let mut note = |evidence: String| violations.push(Violation { invariant: "outage", task: None, evidence });
        if !matches!(child.try_wait(), Ok(None)) {
            note(format!("{name} ended while Postgres was away"));
        }
        if cpu > BUSY * half.as_secs_f64() {
            note(format!("{name} was busy for {cpu:.2} s of {} s without Postgres", half.as_secs()));
        }
        if said > LINES_A_MINUTE * (half.as_secs() / 60 + 1) as usize {
            note(format!("{name} wrote {said} log lines in {} s without Postgres", half.as_secs()));
        }
    }
    let converged = cluster.converges().await;
    let mut ended = true;
    for (_, child) in &mut workers {
        signal(pid(child), rustix::process::Signal::TERM);
        ended &= ends(child).await;
    }
    let mut findings = verdict(&cluster, converged, ended).await;
    findings.violations.extend(violations);
    (cluster, findings, lines)
}

fn spent(cluster: &Cluster, name: &str, pid: Option<rustix::process::Pid>) -> Spent {
    let stat =
        pid.and_then(|pid| fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let ticks = |n: usize| fields.get(n).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    let log = fs::read_to_string(cluster.path().join(format!("worker-{name}.log"))).unwrap_or_default();
    // User and system time, in hundredths of a second on every Linux that Rust knows.
    Spent { cpu_seconds: (ticks(11) + ticks(12)) / 100.0, lines: log.lines().count() }
}
