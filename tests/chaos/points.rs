//! Does something to a worker at every place that an attempt passes, each time that it passes it, and has others pick up the
//! pieces.
//!
//! The places are not a list: an undisturbed attempt is traced, and what it passed is what is gone through. In the second
//! round the attempt that looks after a crash behind the gate is treated so as well.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::Child;

use super::checker::{Findings, TaskRow};
use super::cluster::{Cluster, PATIENCE, ends, is_stopped, pid, signal};
use super::site::Manner;
use super::swarm::verdict;

/// Victims hold what they took until the harness says that their time is over: nobody interferes with the next one.
const LONG_LEASE: &str = "600";
/// How long one task is given where a guard may be missing.
const ONE_PATIENCE: Duration = Duration::from_secs(30);
/// Places that an idle worker passes too, again and again.
const IDLE: [&str; 4] = ["db.claim.", "db.renew.", "db.reap.", "db.steps."];
/// So often those are gone through.
const IDLE_PASSES: usize = 2;

/// What is done to a worker at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// It dies.
    Kill,
    /// It dies, and what it wrote and did not sync is gone.
    Power,
    /// It stops until somebody else has done its task, and then goes on.
    Stop,
    /// A write fails: the disk is full.
    Full,
    /// A write fails: the disk is broken.
    Broken,
    /// The connection to Postgres is lost.
    Gone,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Power => "power",
            Action::Stop => "stop",
            Action::Full => "ENOSPC",
            Action::Broken => "EIO",
            Action::Gone => "gone",
        }
    }

    /// Whether it makes a difference there.
    fn fits(self, place: &str) -> bool {
        match self {
            Action::Kill => true,
            Action::Power => place.starts_with("file.") || place.starts_with("attempt."),
            Action::Stop => !place.starts_with("file."),
            Action::Full | Action::Broken => place.starts_with("file."),
            Action::Gone => place.starts_with("db."),
        }
    }
}

/// Which attempt it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// A task's first.
    First,
    /// The one after a crash between the site's answer and its being put on record.
    Looking,
}

/// The `pass`th pass of a place, from 1.
#[derive(Debug, Clone)]
struct Stop {
    place: String,
    pass: usize,
}

/// One fault and what came of it.
pub struct Row {
    place: String,
    task: i64,
    reached: bool,
}

/// Does it everywhere, once for each pass whose place contains `only`.
pub async fn run(manner: Manner, round: Round, action: Action, only: &str) -> (Cluster, Findings, Vec<Row>) {
    let mut cluster = Cluster::start().await;
    let passed = trace(&mut cluster, manner, round).await;
    let stops: Vec<Stop> =
        stops(&passed).into_iter().filter(|stop| stop.place.contains(only) && action.fits(&stop.place)).collect();
    println!("{} passes, {} of them gone through", passed.len(), stops.len());
    let mut rows = Vec::new();
    for (n, stop) in stops.iter().enumerate() {
        let task = prepare(&mut cluster, manner, round, n).await;
        let skip = if stop.pass > 1 { format!("{}*off->", stop.pass - 1) } else { String::new() };
        let fault = format!("{}={skip}1*return({})", stop.place, action.word());
        let mut victim = victim(&cluster, &format!("victim{n}"), &fault, &[]);
        let process = pid(&victim);
        let reached = tokio::select! {
            ended = victim.wait() => ended.is_ok_and(|status| !status.success()),
            () = cluster.has_ended(task) => matches!(action, Action::Full | Action::Broken | Action::Gone),
            () = has_stopped(process) => true,
            () = tokio::time::sleep(PATIENCE) => false,
        };
        if action == Action::Stop && reached {
            // Harder than life: by its own clock it still holds what others have.
            cluster.end_leases("victim%").await;
            overtake(&cluster, &mut victim, n).await;
        }
        let _ = victim.kill().await;
        rows.push(Row { place: stop.place.clone(), task, reached });
        if n % 25 == 24 {
            println!("  {} of {}", n + 1, stops.len());
        }
    }
    let findings = rescue(&cluster, "", Duration::from_secs(3600)).await;
    (cluster, findings, rows)
}

/// Others do the task of a worker that stopped; then it goes on, as far as it gets.
async fn overtake(cluster: &Cluster, victim: &mut Child, n: usize) {
    let mut other = cluster.drainer(&format!("other{n}"));
    ends(&mut other).await;
    signal(pid(victim), rustix::process::Signal::CONT);
    // It ends what it was about before it ends itself.
    signal(pid(victim), rustix::process::Signal::TERM);
    ends(victim).await;
}

async fn has_stopped(process: Option<Pid>) {
    while !process.is_some_and(is_stopped) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a comment and a registration end as they should while a worker meets its end at one place, with `also` added to
/// what all workers are told. With a place that nobody passes nothing disturbs them.
pub async fn one(place: &str, action: &'static str, also: String) -> bool {
    let mut cluster = Cluster::start().await;
    for manner in [Manner::Shows, Manner::Registers] {
        let task = prepare(&mut cluster, manner, Round::First, 0).await;
        let faults = format!("{place}=1*return({action});{also}");
        let mut victim = cluster.worker(&format!("victim{task}"), 1, &faults, &[]);
        let process = pid(&victim);
        tokio::select! {
            _ = victim.wait() => {}
            () = cluster.has_ended(task) => {}
            () = has_stopped(process) => overtake(&cluster, &mut victim, cluster.tasks.len()).await,
            () = tokio::time::sleep(ONE_PATIENCE) => {}
        }
        let _ = victim.kill().await;
    }
    let findings = rescue(&cluster, &also, ONE_PATIENCE).await;
    let late = cluster.site.ledger.all().iter().any(|sent| {
        let held = findings.attempts.values().flatten().any(|attempt| {
            attempt.let_go_at.is_some_and(|let_go| let_go <= sent.at)
                && attempt.finished_at.is_some_and(|end| end >= sent.at)
        });
        !held
    });
    // One that stopped after "let go" can't be told from one that died there: that is a person's.
    let ends = |row: &TaskRow| {
        row.status == "completed" || (action == "stop" && row.failure_code.as_deref() == Some("outcome.uncertain"))
    };
    let all = findings.violations.is_empty() && !late && findings.rows.values().all(ends);
    if !all && also.is_empty() {
        println!("  with all guards in: late {late}, {:?} {:?}", findings.violations, findings.rows.values());
    }
    all
}

/// The place, and for each end of a task how many of the kills there came to it, with the submissions that arrived.
pub fn table(cluster: &Cluster, findings: &Findings, rows: &[Row]) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut table: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for row in rows {
        let task = cluster.tasks.iter().find(|task| task.id == row.task);
        let arrived =
            cluster.site.ledger.all().iter().filter(|sent| task.is_some_and(|task| task.text == sent.text)).count();
        let end =
            if row.reached { findings.end_of(row.task) } else { format!("{}, not reached", findings.end_of(row.task)) };
        *table.entry(row.place.clone()).or_default().entry(format!("{end}, {arrived} submitted")).or_default() += 1;
    }
    table
}

/// A task of its own for a kill, more urgent than all before it.
async fn prepare(cluster: &mut Cluster, manner: Manner, round: Round, n: usize) -> i64 {
    let task = cluster.enqueue(manner, i16::try_from(n + 1).unwrap_or(i16::MAX)).await;
    if round == Round::Looking {
        let mut first = victim(cluster, &format!("first{n}"), "db.outcome.before=1*return(kill)", &[]);
        let _ = tokio::time::timeout(PATIENCE, first.wait()).await;
        let _ = first.kill().await;
        cluster.end_leases(&format!("first{n}")).await;
    }
    task
}

/// The places that an undisturbed attempt passes, in order.
async fn trace(cluster: &mut Cluster, manner: Manner, round: Round) -> Vec<String> {
    let task = prepare(cluster, manner, round, 0).await;
    let path = cluster.path().join("trace");
    let mut worker = victim(cluster, "traced", "", &[("FAILPOINTS_TRACE", path.display().to_string())]);
    let in_time = tokio::time::timeout(PATIENCE, cluster.has_ended(task)).await;
    assert!(in_time.is_ok(), "an undisturbed task ends");
    signal(pid(&worker), rustix::process::Signal::TERM);
    ends(&mut worker).await;
    fs::read_to_string(path).expect("places were passed").lines().map(str::to_owned).collect()
}

fn stops(passed: &[String]) -> Vec<Stop> {
    let mut passes: HashMap<&str, usize> = HashMap::new();
    let mut stops = Vec::new();
    for place in passed.iter().filter(|place| !place.starts_with("guard.")) {
        let pass = passes.entry(place).or_default();
        *pass += 1;
        if *pass > IDLE_PASSES && IDLE.iter().any(|idle| place.starts_with(idle)) {
            continue;
        }
        stops.push(Stop { place: place.clone(), pass: *pass });
    }
    stops
}

fn victim(cluster: &Cluster, name: &str, fault: &str, extra: &[(&str, String)]) -> Child {
    let mut environment = vec![("PAGEHAND_WORKER__LEASE_SECONDS", LONG_LEASE.to_owned())];
    environment.extend(extra.iter().cloned());
    cluster.worker(name, 1, fault, &environment)
}

/// The time of all victims is over, and two workers that nothing disturbs take over.
async fn rescue(cluster: &Cluster, faults: &str, patience: Duration) -> Findings {
    let mut workers = [0, 1].map(|n| cluster.worker(&format!("rescuer{n}"), 2, faults, &[]));
    let converged = async {
        tokio::select! {
            converged = cluster.converges() => converged,
            () = end_victims(cluster) => false,
        }
    };
    let converged = tokio::time::timeout(patience, converged).await.unwrap_or(false);
    let mut ended = true;
    for worker in &mut workers {
        signal(pid(worker), rustix::process::Signal::TERM);
        ended &= ends(worker).await;
    }
    verdict(cluster, converged, ended).await
}

/// Ends the leases of all victims, for ever: a claim can arrive after the one who made it is dead.
async fn end_victims(cluster: &Cluster) {
    loop {
        cluster.end_leases("victim%").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
