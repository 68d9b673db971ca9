//! `pagehand demo --failed-run`: how a run fails, what is left of it, and how it is retried.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use serde_json::json;

use super::{Row, Stop, Until, Worker, print_json, print_line, table};
use crate::cli::DemoArgs;
use crate::queue::{Attempt, Queue, RunDetail};
use crate::task::{TaskId, TaskStatus};

/// Tells what became of the run, retries it and tells that; with `--serve` the retry is left to whoever looks at its page.
///
/// # Errors
/// It did not fail as it should, or the retry did not succeed.
pub(super) async fn tell(
    queue: &Queue,
    worker: &Arc<Worker>,
    row: &Row,
    runs: &Path,
    stop: &Stop,
    args: &DemoArgs,
) -> anyhow::Result<()> {
    ensure!(row.as_expected, "the run ended as {} and not as a dead letter with nav.timeout", row.status);
    let id = TaskId(row.task_id);
    let failed = queue.run(id).await?;
    if args.serve {
        if args.json {
            return print_json(&json!({"runs_dir": runs, "failed": failed}));
        }
        print_story(&failed, row)?;
        return print_line(format_args!("Open its page, /runs/{id}, and press Retry: this time the site answers."));
    }
    if !args.json {
        print_story(&failed, row)?;
        print_line(format_args!("Retrying it, as the button on its page and `pagehand runs retry {id}` do."))?;
    }
    queue.retry(id, false).await?;
    worker.clone().run(Until::Drained, stop.clone()).await;
    let run = queue.run(id).await?;
    if args.json {
        print_json(&json!({"runs_dir": runs, "failed": failed, "retried": run}))?;
    } else {
        print_line(format_args!("\n{}", attempts(&run)))?;
        print_line(format_args!(
            "Run {id} is {} in attempt {}; of ${:.6} in all, the failed attempts wasted ${:.6}.",
            run.run.status,
            run.attempts.len(),
            run.run.cost_usd,
            wasted(&run),
        ))?;
        print_line(format_args!("All of it is in {}/report.html", row.record))?;
    }
    ensure!(run.run.status == TaskStatus::Completed.as_str(), "the retry ended as {}", run.run.status);
    Ok(())
}

fn print_story(run: &RunDetail, row: &Row) -> anyhow::Result<()> {
    print_line(format_args!("\n{}", attempts(run)))?;
    print_line(format_args!(
        "Run {} is a dead letter: {} ({}). It cost ${:.6}, all of it wasted so far.",
        run.run.id,
        row.failure_reason.as_deref().unwrap_or_default(),
        run.run.last_error.as_deref().unwrap_or_default(),
        run.run.cost_usd,
    ))?;
    print_line(format_args!("  {}/report.html   what happened, with the picture", row.record))
}

/// A row for each attempt: what went well, where it failed, what it cost.
fn attempts(run: &RunDetail) -> String {
    let rows = run.attempts.iter().map(|attempt| {
        vec![
            (attempt.retry_count + 1).to_string(),
            attempt.status.clone(),
            well(attempt).to_string(),
            failed_step(attempt).unwrap_or_default(),
            attempt.failure_code.clone().unwrap_or_default(),
            attempt.execution_time.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            format!("${:.6}", attempt.cost_usd),
        ]
    });
    table(&["ATTEMPT", "RESULT", "STEPS THAT WENT WELL", "FAILED AT", "CODE", "SECONDS", "COST"], rows)
}

fn well(attempt: &Attempt) -> usize {
    attempt.steps.iter().take_while(|step| step.status == "ok").count()
}

fn failed_step(attempt: &Attempt) -> Option<String> {
    attempt.steps.iter().find(|step| step.status == "failed").map(|step| step.name.clone())
}

fn wasted(run: &RunDetail) -> f64 {
    run.attempts.iter().filter(|attempt| attempt.status == "failed").map(|attempt| attempt.cost_usd).sum()
}
