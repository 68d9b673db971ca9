//! A disk with no room, then with room again. Needs to mount a small file system of its own, so it runs as root only.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::checker::{Findings, Violation};
use super::cluster::{Cluster, PATIENCE, ends, pid, signal};
use super::site::Manner;
use super::swarm::verdict;

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    Bytes,
    Inodes,
}

/// Tasks that are worked off while the disk fills up, and after that.
const TASKS: usize = 12;

/// Mounted on a directory until it is dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Works tasks off on a disk that has no room for the records of all. None: this user may not mount anything.
pub async fn run(lack: Lack) -> Option<(Cluster, Findings)> {
    let mut cluster = Cluster::start().await;
    let runs = cluster.runs();
    fs::create_dir_all(&runs).expect("it is ours");
    let options = match lack {
        Lack::Bytes => "size=1m,mode=750",
        Lack::Inodes => "size=64m,nr_inodes=60,mode=750",
    };
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "pagehand"]).arg(&runs).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return None;
    }
    let mounted = Mounted(runs);
    for n in 0..TASKS {
        let manner = if n % 3 == 2 { Manner::Registers } else { Manner::Shows };
        cluster.enqueue(manner, 0).await;
    }
    let mut worker = cluster.worker("w0", 2, "", &[]);
    // It fills the disk by itself, and then takes nothing more.
    let stops = cluster.says("w0", "worker.not_claiming").await;
    let alive = matches!(worker.try_wait(), Ok(None));
    let grown = match lack {
        Lack::Bytes => "remount,size=200m",
        Lack::Inodes => "remount,nr_inodes=5000",
    };
    let _ = Command::new("mount").args(["-o", grown]).arg(&mounted.0).status();
    let converged = cluster.converges().await;
    signal(pid(&worker), rustix::process::Signal::TERM);
    let ended = ends(&mut worker).await;
    let mut findings = verdict(&cluster, converged, ended).await;
    for (held, evidence) in [
        (stops, "the worker went on claiming on a full disk, or did not say that it does not"),
        (alive, "the worker ended because the disk was full"),
    ] {
        if !held {
            findings.violations.push(Violation { invariant: "full_disk", task: None, evidence: evidence.to_owned() });
        }
    }
    // What is on it is gone with it, and may be wanted.
    let kept = cluster.path().join("runs-kept");
    let _ = Command::new("cp").arg("-r").arg(&mounted.0).arg(kept).status();
    drop(mounted);
    Some((cluster, findings))
}

impl Cluster {
    /// Waits until a worker's log has an event. False: it came to nothing for a while.
    async fn says(&self, worker: &str, event: &str) -> bool {
        let path = self.path().join(format!("worker-{worker}.log"));
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if fs::read_to_string(&path).is_ok_and(|log| log.contains(event)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }
}
