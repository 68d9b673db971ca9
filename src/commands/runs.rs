//! `pagehand runs`.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use futures::StreamExt;
use serde_json::json;

use super::{Database, json_line, plain, print_json, print_line, table};
use crate::cli::{ExportFormat, FilterArgs, RunsArgs, RunsCommand};
use crate::config::Config;
use crate::queue::{Queue, QueueError, RunDetail, RunFilter, RunSummary, Without};
use crate::record::rfc3339;
use crate::task::{TaskId, TaskStatus};
use crate::telemetry::{shown_url, write_index};
use crate::web::csv;

/// Runs read at a time by an export.
const PAGE: u32 = 200;
/// Of them at once.
const AT_ONCE: usize = 8;
const UNCERTAIN: &str = "it may have been submitted already; look at the site, then retry with --confirm-uncertain";

/// Lists, shows, retries, cancels or exports runs.
///
/// # Errors
/// There is no such run, it can't be retried or cancelled, or Postgres is away.
pub async fn run(config: Config, args: RunsArgs) -> anyhow::Result<()> {
    if let RunsCommand::Index { dir } = &args.command {
        return index(dir.as_deref().unwrap_or(&config.runs.dir), args.json);
    }
    let database = Database::open(&config).await?;
    let done = dispatch(&database.queue, &config, args).await;
    database.close().await;
    done
}

async fn dispatch(queue: &Queue, config: &Config, args: RunsArgs) -> anyhow::Result<()> {
    let json = args.json;
    match args.command {
        RunsCommand::Ls { filter, limit, cursor } => {
            let mut page = queue.runs(&as_filter(filter), cursor, limit).await?;
            page.runs = page.runs.into_iter().map(shown_summary).collect();
            if json {
                return print_json(&page);
            }
            print_line(list(&page.runs))?;
            if let Some(cursor) = page.next {
                eprintln!("more with --cursor {cursor}");
            }
            Ok(())
        }
        RunsCommand::Show { id } => {
            let run = match queue.run(id).await {
                Err(QueueError::NoSuchTask(_)) => anyhow::bail!(no_run(id)),
                run => shown(run?),
            };
            if json { print_json(&run) } else { show(&run, config) }
        }
        RunsCommand::Retry { ids, all, filter, confirm_uncertain } => {
            if all {
                return retry_all(queue, as_filter(filter), confirm_uncertain, json).await;
            }
            each(&ids, json, "retried", async |id| {
                queue.retry(id, confirm_uncertain).await?;
                let details = json!({"source": "cli", "confirm_uncertain": confirm_uncertain});
                queue.note(&operator(), "run.retry", &id.to_string(), &details).await
            })
            .await
        }
        // Needs no database, and was done before one was opened.
        RunsCommand::Index { .. } => Ok(()),
        RunsCommand::Tail => super::top::tail(queue, json).await,
        RunsCommand::Cancel { ids } => {
            each(&ids, json, "cancelled", async |id| {
                let status = queue.cancel(id).await?;
                queue.note(&operator(), "run.cancel", &id.to_string(), &json!({"source": "cli"})).await?;
                if status == TaskStatus::Running {
                    eprintln!("{id} is running: its worker has been asked to stop before it submits");
                }
                Ok(())
            })
            .await
        }
        RunsCommand::Export { filter, format, output } => {
            let out: Box<dyn Write> = match &output {
                Some(path) => {
                    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
                    Box::new(BufWriter::new(file))
                }
                None => Box::new(BufWriter::new(std::io::stdout().lock())),
            };
            export(queue, &as_filter(filter), format, out).await
        }
    }
}

fn index(dir: &Path, json: bool) -> anyhow::Result<()> {
    let refused = || {
        format!("the runs directory {} can't be indexed; name one that is there and can be written to", dir.display())
    };
    let index = write_index(dir).with_context(refused)?;
    if json {
        return print_json(&json!({"index": index.path, "runs": index.runs, "left_out": index.left_out}));
    }
    print_line(index.path.display())
}

/// Does one thing to each run, reports each, and fails if any could not be done.
async fn each(
    ids: &[TaskId],
    json: bool,
    done: &str,
    action: impl AsyncFn(TaskId) -> Result<(), QueueError>,
) -> anyhow::Result<()> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for id in ids {
        match action(*id).await {
            Ok(()) => good.push(*id),
            Err(QueueError::NoSuchTask(_)) => bad.push((*id, no_run(*id))),
            Err(QueueError::NeedsConfirmation(_)) => bad.push((*id, UNCERTAIN.to_owned())),
            Err(error @ QueueError::Conflict(_)) => bad.push((*id, error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    if json {
        let skipped: Vec<_> = bad.iter().map(|(id, why)| json!({"id": id, "why": why})).collect();
        print_json(&json!({done: good, "skipped": skipped}))?;
    } else {
        for id in &good {
            print_line(format_args!("{id} {done}"))?;
        }
    }
    anyhow::ensure!(
        bad.is_empty(),
        "{}",
        bad.iter().map(|(id, why)| format!("{id}: {why}")).collect::<Vec<_>>().join("\n  ")
    );
    Ok(())
}

async fn retry_all(queue: &Queue, filter: RunFilter, confirm_uncertain: bool, json: bool) -> anyhow::Result<()> {
    let shown = std::io::stderr().is_terminal();
    let report = queue.retry_all_reporting(&filter, confirm_uncertain, |sums| {
        if shown {
            eprint!("\r{} retried", sums.retried);
        }
    });
    let report = report.await?;
    if shown {
        eprintln!();
    }
    let details = json!({"source": "cli", "filter": format!("{filter:?}"), "retried": report.retried,
                         "confirm_uncertain": confirm_uncertain});
    queue.note(&operator(), "runs.retry", "runs", &details).await?;
    if json {
        return print_json(&report);
    }
    print_line(format_args!("{} retried", report.retried))?;
    if report.need_confirmation > 0 {
        print_line(format_args!("{} skipped: {UNCERTAIN}", report.need_confirmation))?;
    }
    if report.conflicts > 0 {
        print_line(format_args!("{} skipped: a live task has the same dedupe key", report.conflicts))?;
    }
    Ok(())
}

async fn export(queue: &Queue, filter: &RunFilter, format: ExportFormat, mut out: impl Write) -> anyhow::Result<()> {
    let (mut cursor, mut written) = (None, 0);
    loop {
        let mut page = queue.runs(filter, cursor, PAGE).await?;
        if format == ExportFormat::Csv {
            let runs = std::mem::take(&mut page.runs);
            let first = cursor.is_none();
            written += runs.len();
            out.write_all(&csv(runs, first)?)?;
        }
        let mut details = futures::stream::iter(page.runs).map(|run| queue.run(TaskId(run.id))).buffered(AT_ONCE);
        while let Some(run) = details.next().await {
            match run {
                // Deleted meanwhile.
                Err(QueueError::NoSuchTask(_)) => {}
                run => {
                    writeln!(out, "{}", json_line(&shown(run?))?)?;
                    written += 1;
                }
            }
        }
        drop(details);
        if std::io::stderr().is_terminal() {
            eprint!("\r{written} runs");
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(out.flush()?);
        }
    }
}

/// A run as it may be handed on: its address without what is secret in it.
fn shown(run: RunDetail) -> RunDetail {
    RunDetail { run: shown_summary(run.run), ..run }
}

fn shown_summary(run: RunSummary) -> RunSummary {
    RunSummary { url: shown_url(&run.url).into_owned(), ..run }
}

/// Who it is, for the audit trail.
fn operator() -> String {
    let name = std::env::var("USER").ok().filter(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

fn no_run(id: TaskId) -> String {
    format!("there is no run {id}; `pagehand runs ls` lists what is")
}

fn as_filter(args: FilterArgs) -> RunFilter {
    RunFilter {
        status: args.status,
        failure_reason: args.failure_reason,
        failure_code: args.failure_code,
        task_type: args.task_type,
        site: args.site.map(|origin| origin.to_string()),
        since: args.since,
        until: args.until,
        q: args.q,
        min_retries: args.min_retries,
        failed_step: args.failed_step,
        step: args.step,
        stuck_at: args.stuck_at,
        only: args.only,
        without: Without {
            status: args.not_status,
            failure_reason: args.not_failure_reason,
            failure_code: args.not_failure_code,
            task_type: args.not_task_type,
            site: args.not_site.iter().map(ToString::to_string).collect(),
        },
    }
}

fn list(runs: &[RunSummary]) -> String {
    let rows = runs.iter().map(|run| {
        vec![
            run.id.to_string(),
            run.task_type.clone(),
            run.status.clone(),
            run.failure_reason.clone().unwrap_or_default(),
            run.failure_code.clone().unwrap_or_default(),
            format!("{}/{}", run.retry_count, run.max_retries),
            run.execution_time.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            rfc3339(run.created_at),
            run.url.clone(),
        ]
    });
    table(&["ID", "TYPE", "STATUS", "REASON", "CODE", "RETRIES", "SECONDS", "CREATED", "URL"], rows)
}

fn show(run: &RunDetail, config: &Config) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let summary = &run.run;
    writeln!(out, "run {}: {} on {}", summary.id, plain(&summary.task_type), plain(&summary.url))?;
    let verdict = match (&summary.failure_reason, &summary.last_error) {
        (Some(reason), Some(error)) => {
            let code = summary.failure_code.as_deref().unwrap_or_default();
            format!("{}: {reason} ({}): {}", summary.status, plain(code), plain(error))
        }
        _ => summary.status.clone(),
    };
    writeln!(out, "{verdict}")?;
    writeln!(out, "record: {}", config.runs.dir.join(summary.id.to_string()).display())?;
    for attempt in &run.attempts {
        writeln!(out, "\nattempt {} by {}: {}", attempt.retry_count, plain(&attempt.worker), attempt.status)?;
        let rows = attempt.steps.iter().map(|step| {
            vec![
                step.seq.to_string(),
                step.name.clone(),
                step.status.to_string(),
                format!("{:.1}", step.duration_ms),
                step.error.clone().unwrap_or_default(),
            ]
        });
        writeln!(out, "{}", table(&["#", "STEP", "", "MS", "ERROR"], rows))?;
    }
    Ok(())
}
