//! Kills, stops and cuts off workers, Chrome and Postgres at the worst moments, then asks: is anything lost, done twice,
//! or without its record? `make chaos SEED=1`; `ARCHITECTURE.md` says how to read it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

mod checker;
mod cluster;
mod plan;
mod proxy;
mod site;
mod swarm;

use plan::{Plan, Size};

/// Seeds of the swarm that once showed a fault, and those that every test run goes through.
const FIXED: [u64; 2] = [1, 2];

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
            None => {
                let size = Size { tasks: 8, workers: 2, lives: 2 };
                swarms(FIXED.into_iter(), size).await
            }
            Some(Mode::Swarm { seed, seeds, tasks, workers, lives }) => {
                let first = seed.unwrap_or_else(|| rand::random::<u64>() % 1_000_000);
                swarms(first..first + seeds, Size { tasks, workers, lives }).await
            }
        }
    });
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a swarm for each seed, and says what did not hold.
async fn swarms(seeds: impl Iterator<Item = u64>, size: Size) -> bool {
    let mut failed = Vec::new();
    for seed in seeds {
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
        for violation in &findings.violations {
            println!("  VIOLATION {violation}");
        }
        if findings.violations.is_empty() {
            println!("seed {seed}: everything holds");
        } else {
            println!("seed {seed}: see {}", cluster.keep().display());
            failed.push(seed);
        }
    }
    if !failed.is_empty() {
        println!("violations with the seeds {failed:?}");
    }
    failed.is_empty()
}
