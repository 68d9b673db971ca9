//! Kills, stops and cuts off workers, Chrome and Postgres at the worst moments, then asks: is anything lost, done twice,
//! or without its record? `make chaos SEED=1`; `ARCHITECTURE.md` says how to read it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

mod checker;
mod cluster;
mod disk;
mod guards;
mod outage;
mod plan;
mod points;
mod proxy;
mod site;
mod swarm;

use checker::Findings;
use cluster::Cluster;
use disk::Lack;
use plan::{Plan, Size};
use points::{Action, Round};
use site::Manner;

/// Seeds of the swarm that once showed a fault, each with the size at which it did.
const FIXED: [(u64, Size); 16] = {
    let (small, large) = (Size { tasks: 8, workers: 2, lives: 2 }, Size { tasks: 12, workers: 3, lives: 2 });
    [
        (2, small),
        (9, large),
        (11, large),
        (12, large),
        (13, large),
        (14, large),
        (22, large),
        (23, large),
        (24, large),
        (26, large),
        (31, large),
        (33, large),
        (117, large),
        (120, large),
        (149, large),
        (183, large),
    ]
};

/// So many of them are a part of every test run, which has two minutes for it.
const SHORT: usize = 3;

#[derive(Debug, Parser)]
#[command(about = "Disturbs workers in every way there is, and checks what must hold all the same")]
struct Args {
    #[command(subcommand)]
    mode: Option<Mode>,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Many tasks, some workers, faults chosen by a seed
    Swarm {
        /// The first seed; the same one stands for the same plan. Without it a random one
        #[arg(long)]
        seed: Option<u64>,
        /// How many seeds, counted up from the first
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        #[arg(long, default_value_t = 24)]
        tasks: usize,
        #[arg(long, default_value_t = 3)]
        workers: usize,
        /// Lives of each worker before its last one
        #[arg(long, default_value_t = 3)]
        lives: usize,
    },
    /// The seeds that ever showed a fault
    Fixed,
    /// A disk without room, then with room again
    Disk,
    /// Postgres is away for longer than everything else waits, under load
    Outage {
        /// For so many seconds
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        #[arg(long, default_value_t = 60)]
        tasks: usize,
    },
    /// Each guard is taken out, and has to be missed
    Guards {
        /// Only guards whose names contain this
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Something is done to a worker at every place that an attempt passes, for comments and registrations
    Points {
        /// Only places whose names contain this
        #[arg(long, default_value = "")]
        only: String,
        /// The attempt that looks after a crash behind the gate, instead of the first one
        #[arg(long)]
        looking: bool,
        /// What is done there
        #[arg(long, value_enum, default_values = ["kill", "power", "stop", "full", "broken", "gone"], value_delimiter = ',')]
        action: Vec<Action>,
    },
}

fn main() -> ExitCode {
    let program = std::fs::read(env!("CARGO_BIN_EXE_pagehand")).expect("the program is built");
    assert!(
        program.windows(16).any(|bytes| bytes == b"FAILPOINTS_TRACE"),
        "the program is built without the feature `failpoints`; run `make chaos`"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let clean = runtime.block_on(async {
        match Args::parse().mode {
            None => swarms(FIXED.into_iter().take(SHORT)).await,
            Some(Mode::Swarm { seed, seeds, tasks, workers, lives }) => {
                let first = seed.unwrap_or_else(|| rand::random::<u64>() % 1_000_000);
                swarms((first..first + seeds).map(|seed| (seed, Size { tasks, workers, lives }))).await
            }
            Some(Mode::Fixed) => swarms(FIXED.into_iter()).await,
            Some(Mode::Disk) => full_disks().await,
            Some(Mode::Outage { seconds, tasks }) => {
                let (mut cluster, findings, spent) = outage::run(Duration::from_secs(seconds), tasks).await;
                for line in spent {
                    println!("  {line}");
                }
                report(&mut cluster, &findings)
            }
            Some(Mode::Guards { only }) => guards::run(&only).await,
            Some(Mode::Points { only, looking, action }) => {
                let round = if looking { Round::Looking } else { Round::First };
                let mut clean = true;
                for action in action {
                    for manner in [Manner::Shows, Manner::Registers] {
                        clean &= all_points(manner, round, action, &only).await;
                    }
                }
                clean
            }
        }
    });
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn full_disks() -> bool {
    let mut clean = true;
    for lack in [Lack::Bytes, Lack::Inodes] {
        println!("a disk without {lack:?}");
        match disk::run(lack).await {
            Some((mut cluster, findings)) => clean &= report(&mut cluster, &findings),
            None => println!("  skipped: this user may not mount a file system"),
        }
    }
    clean
}

/// Does something to a worker everywhere with tasks of one manner; says what came of it and what did not hold.
async fn all_points(manner: Manner, round: Round, action: Action, only: &str) -> bool {
    println!("{action:?}: {manner:?}, {round:?} attempt");
    let (mut cluster, findings, rows) = points::run(manner, round, action, only).await;
    for (place, ends) in points::table(&cluster, &findings, &rows) {
        let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} x {end}")).collect();
        println!("  {place:44} {}", ends.join("; "));
    }
    println!("  {} faults, {} submissions", rows.len(), cluster.site.ledger.all().len());
    report(&mut cluster, &findings)
}

/// Prints what does not hold, and keeps the evidence.
fn report(cluster: &mut Cluster, findings: &Findings) -> bool {
    for violation in &findings.violations {
        println!("  VIOLATION {violation}");
    }
    if findings.violations.is_empty() {
        println!("  everything holds");
    } else {
        println!("  see {}", cluster.keep().display());
    }
    findings.violations.is_empty()
}

/// Runs a swarm for each seed, and says what did not hold.
async fn swarms(seeds: impl Iterator<Item = (u64, Size)>) -> bool {
    let mut failed = Vec::new();
    for (seed, size) in seeds {
        let (plan, begun) = (Plan::of(seed, size), Instant::now());
        println!("seed {seed}: {} tasks, {} workers with {} lives", size.tasks, size.workers, size.lives);
        for (n, lives) in plan.workers.iter().enumerate() {
            for life in lives {
                println!("  worker {n}: {:?} {:?} clock {:+} s", life.faults, life.outside, life.skew);
            }
        }
        println!("  around: {:?}{}", plan.around, if plan.namesakes { "; two workers of one name" } else { "" });
        let (mut cluster, findings) = swarm::run(&plan).await;
        for ((manner, end), count) in checker::summary(&cluster, &findings) {
            println!("  {count:4} {manner}: {end}");
        }
        let attempts = findings.attempts.values().flatten();
        let lost = attempts.clone().filter(|attempt| attempt.status == "lost").count();
        let (made, took) = (attempts.count(), begun.elapsed().as_secs());
        println!("  {made} attempts, {lost} of them lost, {} submissions, {took} s", cluster.site.ledger.all().len());
        if !report(&mut cluster, &findings) {
            failed.push(seed);
        }
    }
    if !failed.is_empty() {
        println!("violations with the seeds {failed:?}");
    }
    failed.is_empty()
}
