//! The canonical task, ours and Playwright's, on the same browser and the same site: `cargo bench --bench canonical`.
//!
//! Fresh browsing context → an article (1 stylesheet, 1 script, 3 images) → DOM and PNG → author, e-mail and text →
//! submit, 303, new page → the comment is there → DOM and PNG → close. Ours runs through the real binary with all that
//! belongs to it: queue, leases, submit gate, telemetry. The two take turns, so that a slow moment hits both; the medians
//! of the rounds are printed. Time is taken from the first attempt's start to the last one's end.
//!
//! `cargo bench --bench canonical -- --tasks 60 --rounds 3 --at-once 1,4 --only playwright`; Playwright needs node and npm,
//! and `benches/playwright/run` fetches it the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use clap::Parser;
use pagehand::demo::{CANONICAL_ARTICLE, DemoSite, Ledger};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::Deserialize;
use serde_json::{Value, json};

/// No round takes longer, by far.
const ROUND_LIMIT: Duration = Duration::from_secs(600);
/// How often the worker's memory is looked at; its peak is kept by the kernel until the process ends.
const LOOK: Duration = Duration::from_millis(50);
/// USER_HZ, the unit of times in /proc: 100 on every architecture of Linux that Chrome runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Takes out the proxy that Chrome is pointed at, what it decides, and the look into robots.txt.
const WITHOUT_WAY_OUT: &str = "guard.egress.way_out=return(off);guard.robots=return(off)";

#[derive(Parser)]
struct Options {
    /// Tasks a round
    #[arg(long, default_value_t = 60)]
    tasks: usize,
    /// Rounds of each, of which the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many tasks at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    at_once: Vec<usize>,
    /// Only one of the two
    #[arg(long, value_parser = ["pagehand", "playwright"])]
    only: Option<String>,
    /// Ours with and without its way out (proxy, policy, robots.txt) instead; needs the feature `failpoints`
    #[arg(long)]
    guards: bool,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// One round of one driver.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Round {
    tasks_per_minute: f64,
    /// Of the driver's own process, without the browser.
    cpu_seconds_per_task: f64,
    peak_rss_bytes: u64,
}

/// The site, and where the rounds leave their files.
struct Bench {
    site: DemoSite,
    ledger: Ledger,
    dir: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.tasks > 0 && options.rounds > 0, "there must be at least one task and one round");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _inside = runtime.enter();
    let bench = Bench::prepare()?;
    let runs = |driver: &str| options.only.as_deref().is_none_or(|only| only == driver);
    if runs("pagehand") || options.guards {
        bench.enrol(*options.at_once.iter().max().context("--at-once names no number")?)?;
    }

    if options.guards {
        return bench.guards(&options);
    }
    println!("the canonical task, {} tasks a round, median of {} rounds\n", options.tasks, options.rounds);
    println!("{:<12} {:>7} {:>10} {:>14} {:>12}", "driver", "at once", "tasks/min", "own CPU s/task", "own peak RSS");
    for &at_once in &options.at_once {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            let label = format!("{at_once}-{round}");
            if runs("playwright") {
                theirs.push(bench.playwright(options.tasks, at_once, &label).context("Playwright's round")?);
            }
            if runs("pagehand") {
                ours.push(bench.pagehand(options.tasks, at_once, &label, "").context("our round")?);
            }
        }
        let theirs = show("playwright", at_once, &theirs);
        let ours = show("pagehand", at_once, &ours);
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            println!("{:<12} {:>7} {:>10.2}", "ratio", at_once, ours / theirs);
        }
    }
    Ok(())
}

/// Prints the medians; returns that of tasks a minute.
fn show(driver: &str, at_once: usize, rounds: &[Round]) -> Option<f64> {
    let rate = median(rounds.iter().map(|round| round.tasks_per_minute))?;
    let cpu = median(rounds.iter().map(|round| round.cpu_seconds_per_task))?;
    let rss = rounds.iter().map(|round| round.peak_rss_bytes).max()?;
    println!("{driver:<12} {at_once:>7} {rate:>10.1} {cpu:>14.4} {:>9.1} MB", rss as f64 / 1e6);
    Some(rate)
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

impl Bench {
    fn prepare() -> Result<Bench> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("canonical");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("{} is left from before", dir.display()))?;
        }
        fs::create_dir_all(&dir)?;
        let site = DemoSite::start()?;
        Ok(Bench { ledger: site.ledger(), site, dir })
    }

    /// A command of ours on a private Postgres and default settings, whatever the caller's environment says.
    fn command(&self, runs_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagehand"));
        let foreign = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_str().is_some_and(|name| name.starts_with("PAGEHAND_") || name == "DATABASE_URL"));
        for name in foreign {
            command.env_remove(name);
        }
        command
            .env("PAGEHAND_DATA__DIR", self.dir.join("data"))
            .env("TELEMETRY_RUNS_DIR", runs_dir)
            .env("PAGEHAND_LOGS__FILTER", "warn")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    fn enrol(&self, at_once: usize) -> Result<()> {
        let mut command = self.command(&self.dir.join("runs"));
        command.args(["site", "add", &self.site.origin(), "--authorized-by", "bench", "--allow-private"]);
        command.args(["--max-concurrency", &at_once.to_string(), "--per-minute", "1000000"]);
        succeed(command, "pagehand site add")
    }

    /// What the way out costs: the two take turns, and the median of the rounds' ratios counts.
    fn guards(&self, options: &Options) -> Result<()> {
        ensure!(cfg!(feature = "failpoints"), "guards can only be taken out of a build with --features failpoints");
        println!("the canonical task with and without its way out, {} tasks a round\n", options.tasks);
        println!("{:<12} {:>7} {:>10} {:>14} {:>12}", "", "at once", "tasks/min", "own CPU s/task", "own peak RSS");
        for &at_once in &options.at_once {
            let (mut with, mut without) = (Vec::new(), Vec::new());
            for round in 0..options.rounds {
                let label = |what: &str| format!("{what}-{at_once}-{round}");
                with.push(self.pagehand(options.tasks, at_once, &label("with"), "").context("the round with")?);
                without.push(
                    self.pagehand(options.tasks, at_once, &label("without"), WITHOUT_WAY_OUT)
                        .context("the round without")?,
                );
            }
            show("with", at_once, &with);
            show("without", at_once, &without);
            let ratios =
                with.iter().zip(&without).map(|(with, without)| without.tasks_per_minute / with.tasks_per_minute);
            if let Some(ratio) = median(ratios) {
                println!("{:<12} {:>7} {:>10.3}", "time, ratio", at_once, ratio);
            }
        }
        Ok(())
    }

    fn pagehand(&self, tasks: usize, at_once: usize, label: &str, failpoints: &str) -> Result<Round> {
        let runs_dir = self.dir.join(format!("runs-{label}"));
        let file = self.dir.join(format!("tasks-{label}.jsonl"));
        let lines = (1..=tasks).map(|number| self.line(number, label).to_string() + "\n");
        fs::write(&file, lines.collect::<String>())?;
        let mut enqueue = self.command(&runs_dir);
        enqueue.arg("enqueue").arg("--file").arg(&file);
        succeed(enqueue, "pagehand enqueue")?;

        let before = self.taken();
        let mut worker = self.command(&runs_dir);
        worker.args(["worker", "--drain", "--concurrency", &at_once.to_string()]).stdout(Stdio::null());
        if !failpoints.is_empty() {
            worker.env("FAILPOINTS", failpoints);
        }
        let usage = watch(worker.spawn().context("the worker can't be started")?)?;

        let (first, last) = span(&runs_dir, tasks)?;
        ensure!(self.taken() - before == tasks, "the site took {} comments of {tasks}", self.taken() - before);
        let seconds = (last - first).as_seconds_f64();
        ensure!(seconds > 0.0, "{tasks} tasks in no time: the records can't be right");
        Ok(Round {
            tasks_per_minute: 60.0 * tasks as f64 / seconds,
            cpu_seconds_per_task: usage.cpu_seconds / tasks as f64,
            peak_rss_bytes: usage.peak_rss_bytes,
        })
    }

    fn line(&self, number: usize, label: &str) -> Value {
        json!({
            "task_type": "comment",
            "url": format!("{}{CANONICAL_ARTICLE}", self.site.origin()),
            "max_retries": 0,
            "payload": {
                "author": "Bench Mark",
                "email": format!("pagehand-{label}-{number}@example.org"),
                "body": format!("pagehand says: comment number {number} of round {label}."),
            },
        })
    }

    fn playwright(&self, tasks: usize, at_once: usize, label: &str) -> Result<Round> {
        let before = self.taken();
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/playwright/run"));
        command.args(["--url", &format!("{}{CANONICAL_ARTICLE}", self.site.origin())]);
        command.args(["--tasks", &tasks.to_string(), "--concurrency", &at_once.to_string()]);
        command.args(["--label", &format!("playwright-{label}")]).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().context("benches/playwright/run can't be started")?;
        ensure!(output.status.success(), "benches/playwright/run ended with {}", output.status);
        let warm_up = 1;
        ensure!(
            self.taken() - before == tasks + warm_up,
            "the site took {} comments of {tasks}",
            self.taken() - before
        );
        serde_json::from_slice(&output.stdout).context("benches/playwright/run printed no JSON")
    }

    fn taken(&self) -> usize {
        self.ledger.comments_on(CANONICAL_ARTICLE).len()
    }
}

fn succeed(mut command: Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{what} can't be started"))?;
    ensure!(
        output.status.success(),
        "{what} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// What a process took for itself: neither its browser nor its Postgres.
struct Usage {
    cpu_seconds: f64,
    peak_rss_bytes: u64,
}

/// Waits until the process has ended. Its times are read after that and before it is reaped, when they are complete and still there.
fn watch(mut child: Child) -> Result<Usage> {
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let pid = Pid::from_child(&child);
    let started = Instant::now();
    let mut peak_rss_bytes = 0;
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if waitid(WaitId::Pid(pid), options)?.is_some() {
            break;
        }
        peak_rss_bytes = peak_rss(&proc).unwrap_or(0).max(peak_rss_bytes);
        if started.elapsed() > ROUND_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the worker did not drain the queue within {} s", ROUND_LIMIT.as_secs());
        }
        std::thread::sleep(LOOK);
    }
    let stat = fs::read_to_string(proc.join("stat")).context("times of the ended worker")?;
    let status = child.wait()?;
    ensure!(status.success(), "the worker ended with {status}");
    // The name before the closing parenthesis may hold anything; utime and stime are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("times in /proc/PID/stat")?;
    Ok(Usage { cpu_seconds: (user + system) / TICKS_PER_SECOND, peak_rss_bytes })
}

/// None once the process has ended.
fn peak_rss(proc: &Path) -> Option<u64> {
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// When the first attempt started and the last one ended, by the run directories; each of `tasks` must have succeeded.
fn span(runs_dir: &Path, tasks: usize) -> Result<(DateTime<Utc>, DateTime<Utc>)> {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(runs_dir).with_context(|| format!("{} can't be read", runs_dir.display()))? {
        let run = entry?.path();
        if !run.join("init.json").exists() {
            continue;
        }
        let result = read_json(&run.join("final_result.json"))?;
        ensure!(result["result"]["success"] == true, "{} did not succeed: {}", run.display(), result["result"]);
        starts.push(time(&read_json(&run.join("init.json"))?["started_at"])?);
        ends.push(time(&result["completed_at"])?);
    }
    ensure!(ends.len() == tasks, "{} has {} finished runs of {tasks}", runs_dir.display(), ends.len());
    starts.into_iter().min().zip(ends.into_iter().max()).context("no task was run")
}

fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("{} can't be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}

fn time(value: &Value) -> Result<DateTime<Utc>> {
    value.as_str().and_then(|text| text.parse().ok()).with_context(|| format!("{value} is no time"))
}
