//! `pagehand top` and `pagehand runs tail`: what goes on now.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Database, plain, print_json, print_line, table};
use crate::cli::TopArgs;
use crate::config::Config;
use crate::queue::{AttemptNews, Depth, Queue, RunFilter, RunSummary, WorkerNow};
use crate::record::rfc3339;
use crate::task::TaskStatus;

/// Failures shown.
const FAILURES: u32 = 10;
/// How often `tail` looks for news.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Attempts that are shown when `tail` begins.
const BEGIN_WITH: i64 = 10;

/// Shows workers, queue and last failures until stopped.
///
/// # Errors
/// Postgres is away.
pub async fn run(config: Config, args: TopArgs) -> anyhow::Result<()> {
    let database = Database::open(&config).await?;
    let done = show(&database.queue, &args).await;
    database.close().await;
    done
}

async fn show(queue: &Queue, args: &TopArgs) -> anyhow::Result<()> {
    loop {
        let filter = RunFilter { status: Some(TaskStatus::Failed), ..RunFilter::default() };
        let (now, workers, depths, failures) =
            tokio::try_join!(queue.now(), queue.workers(), queue.depths(), queue.runs(&filter, None, FAILURES))?;
        if args.json {
            return print_json(&json!({
                "now": rfc3339(now),
                "workers": workers,
                "queue": depths.iter().map(depth_json).collect::<Vec<_>>(),
                "failures": failures.runs,
            }));
        }
        let live = !args.once && std::io::stdout().is_terminal();
        let mut out = std::io::stdout().lock();
        if live {
            // To the upper left corner, and clear from there.
            write!(out, "\x1b[H\x1b[J")?;
        }
        writeln!(out, "{}\n", rfc3339(now))?;
        writeln!(out, "{}\n", worker_table(&workers, now))?;
        writeln!(out, "{}\n", queue_table(&depths))?;
        writeln!(out, "{}", failure_table(&failures.runs))?;
        out.flush()?;
        drop(out);
        if args.once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.every)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn depth_json(depth: &Depth) -> Value {
    json!({"task_type": depth.task_type, "pending": depth.pending, "running": depth.running, "failed": depth.failed,
           "oldest_ready_seconds": depth.oldest_ready_seconds})
}

fn worker_table(workers: &[WorkerNow], now: DateTime<Utc>) -> String {
    let rows = workers.iter().flat_map(|worker| {
        let state = match (worker.alive, worker.stopped_at) {
            (true, _) => "up",
            (false, Some(_)) => "stopped",
            (false, None) => "lost",
        };
        let name = |first: bool| if first { worker.name.clone() } else { String::new() };
        let idle = worker.tasks.is_empty().then(|| vec![worker.name.clone(), state.to_owned(), "idle".to_owned()]);
        let busy = worker.tasks.iter().enumerate().map(move |(n, task)| {
            let seconds = (now - task.started_at).as_seconds_f64().max(0.0);
            vec![
                name(n == 0),
                state.to_owned(),
                format!("{} {}", task.id, task.task_type),
                task.retry_count.to_string(),
                format!("{seconds:.0} s"),
                task.step.clone().unwrap_or_default(),
                task.url.clone(),
            ]
        });
        idle.into_iter().chain(busy).collect::<Vec<_>>()
    });
    table(&["WORKER", "", "TASK", "RETRY", "FOR", "STEP", "URL"], rows)
}

fn queue_table(depths: &[Depth]) -> String {
    let rows = depths.iter().map(|depth| {
        vec![
            depth.task_type.clone(),
            depth.pending.to_string(),
            depth.running.to_string(),
            depth.failed.to_string(),
            format!("{:.0} s", depth.oldest_ready_seconds),
        ]
    });
    table(&["QUEUE", "PENDING", "RUNNING", "FAILED", "OLDEST"], rows)
}

fn failure_table(runs: &[RunSummary]) -> String {
    let rows = runs.iter().map(|run| {
        vec![
            run.id.to_string(),
            run.finished_at.map(rfc3339).unwrap_or_default(),
            run.failure_code.clone().unwrap_or_default(),
            run.site.clone(),
            run.last_error.clone().unwrap_or_default().chars().take(80).collect(),
        ]
    });
    table(&["FAILED", "AT", "CODE", "SITE", "ERROR"], rows)
}

/// Prints attempts as they begin and end, until stopped.
///
/// # Errors
/// Postgres is away.
pub async fn tail(queue: &Queue, json: bool) -> anyhow::Result<()> {
    let mut last = (queue.pulse().await?.newest_attempt - BEGIN_WITH).max(0);
    let mut running: BTreeSet<i64> = BTreeSet::new();
    loop {
        let asked: Vec<i64> = running.iter().copied().collect();
        for news in queue.attempts_after(last, &asked).await? {
            let ended = news.finished_at.is_some();
            let known = running.contains(&news.attempt);
            last = last.max(news.attempt);
            match ended {
                true => running.remove(&news.attempt),
                false => running.insert(news.attempt),
            };
            if ended || !known {
                if json { print_json(&news)? } else { print_line(line(&news))? }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn line(news: &AttemptNews) -> String {
    let at = rfc3339(news.finished_at.unwrap_or(news.started_at));
    let took = news.execution_time.map(|seconds| format!(" after {seconds:.2} s")).unwrap_or_default();
    let why = match (&news.failure_code, &news.error) {
        (Some(code), Some(error)) => format!(": {code}: {error}"),
        _ => String::new(),
    };
    let line = format!(
        "{at} {} {} attempt {} by {} {}{took}{why} {}",
        news.id, news.task_type, news.retry_count, news.worker, news.status, news.url
    );
    plain(&line)
}
