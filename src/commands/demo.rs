//! `pagehand demo`: the main job, once, with everything it needs; with `--serve` also the dashboard over what it left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;

use super::worker::{browser_settings, new_life, open_runs, settings, stop_on_signals};
use super::{Database, print_json, print_line, table};
use crate::automation::Registry;
use crate::browser::BrowserPool;
use crate::cli::DemoArgs;
use crate::config::Config;
use crate::cost::Prices;
use crate::demo::{DemoSite, Expectation, Scenario, failed_run, scenarios};
use crate::queue::{Live, Queue, QueueError, RunSummary};
use crate::retry::RetryPolicy;
use crate::site::NewEnrolment;
use crate::task::{NewTask, TaskId, TaskStatus};
use crate::web::{Server, WebSettings};
use crate::worker::{Settings, Stop, Until, Worker};

mod story;

/// The demo's pages answer at once or never; who watches does not want to wait.
const TASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Where the only page stalls, and does so three times.
const SHORT_TIMEOUT: Duration = Duration::from_secs(8);
const RETRY: RetryPolicy = RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_secs(2) };
/// How often finished tasks are looked for, to show them.
const LOOK: Duration = Duration::from_millis(300);

/// How one task of the demo ended.
#[derive(Debug, Serialize)]
struct Row {
    task_id: i64,
    name: &'static str,
    task_type: String,
    status: String,
    failure_reason: Option<String>,
    failure_code: Option<String>,
    seconds: Option<f64>,
    record: String,
    /// Whether it ended as the page is made to make it end.
    as_expected: bool,
    note: &'static str,
}

/// Starts a private Postgres and the demo site, enrols it, works off a task of every outcome, and prints what came of them.
///
/// # Errors
/// Something is missing on the machine, or a task ended otherwise than it should.
pub async fn run(mut config: Config, args: DemoArgs) -> anyhow::Result<()> {
    if config.database_url().is_ok_and(|url| url.is_some()) {
        // Another database numbers its tasks from 1 as well: their records must not mix.
        config.runs.dir = config.data.dir.join("demo-runs");
    }
    let stop = stop_on_signals()?;
    let runs = open_runs(&config)?;
    eprintln!("starting a private Postgres in {}", config.data.dir.display());
    let database = Database::private(&config).await?;
    let browsers = BrowserPool::new(browser_settings(&config));
    let site = DemoSite::start().context("the demo site can't be started")?;
    eprintln!("the demo site is at {}", site.origin());

    if config.prices == Prices::default() {
        // Something to look at; not what anything costs anywhere.
        config.prices = Prices { version: "demo".to_owned(), browser_second_usd: 0.000_05, ..Prices::default() };
    }
    let web = args.serve.then(|| super::serve::web_settings(&config, None)).transpose()?;
    let task_timeout = if args.failed_run { SHORT_TIMEOUT } else { TASK_TIMEOUT };
    let settings = Settings { task_timeout, retry: RETRY, ..settings(&config, Some(args.concurrency)) };
    let identity = new_life(format!("demo-{}", std::process::id()));
    let queue = database.queue.clone();
    let shown = async {
        let presence = queue.be_present(&identity).await.context("the worker can't show that it is alive")?;
        let tasks = enqueue(&queue, &site, if args.failed_run { vec![failed_run()] } else { scenarios() }).await?;
        let worker = Worker::new(queue.clone(), identity, runs, browsers.clone(), Registry::standard(), settings);
        let worker = Arc::new(worker);
        let told = async {
            let rows = work_off(&queue, worker.clone(), &tasks, stop.clone(), &config.runs.dir, args.json).await?;
            let shown = match rows.first().filter(|_| args.failed_run) {
                Some(row) => story::tell(&queue, &worker, row, &config.runs.dir, &stop, &args).await,
                None => show(&rows, &config.runs.dir, args.json),
            };
            if let Some(web) = web {
                serve(web, &queue, worker.clone(), stop, &config.runs.dir).await?;
            }
            shown
        };
        let told = told.await;
        // Without their site they could only fail, and would keep the next demo from beginning.
        for id in tasks.keys() {
            match queue.cancel(*id).await {
                Ok(_) | Err(QueueError::Conflict(_) | QueueError::NoSuchTask(_)) => {}
                Err(error) => {
                    tracing::warn!(event = "demo.not_cancelled", %error, task_id = id.0, "a task is left over")
                }
            }
        }
        presence.end().await;
        told
    };
    let shown = shown.await;

    let _ = match site.origin().parse() {
        Ok(origin) => database.queue.remove_site(&origin, "the demo itself").await,
        Err(_) => Ok(false),
    };
    browsers.shutdown().await;
    site.stop().await;
    database.close().await;
    shown
}

/// Serves the dashboard over what the demo left, until stopped. The site and a worker stay up: what is retried is done.
async fn serve(web: WebSettings, queue: &Queue, worker: Arc<Worker>, stop: Stop, runs: &Path) -> anyhow::Result<()> {
    let server = Server::bind(web, queue.clone(), runs.to_owned()).await?;
    eprintln!("the dashboard is at http://{}; Ctrl-C ends it", server.address());
    let politely = stop.politely.clone();
    let (_, _) = tokio::join!(server.run(politely), worker.run(Until::Stopped, stop));
    Ok(())
}

async fn enqueue(
    queue: &Queue,
    site: &DemoSite,
    scenarios: Vec<Scenario>,
) -> anyhow::Result<BTreeMap<TaskId, Scenario>> {
    let Live { pending, running } = queue.live().await?;
    ensure!(
        pending + running == 0,
        "{pending} pending and {running} running tasks are in this database, and the demo would work them off too; \
         finish them first, or set PAGEHAND_DATA__DIR to another directory"
    );
    let origin =
        site.origin().parse().map_err(|problem: String| anyhow::anyhow!("the demo site's origin {problem}"))?;
    let enrolment = NewEnrolment { allow_private: true, ..NewEnrolment::new(origin, "the demo itself") };
    queue.add_site(&enrolment).await.context("the demo site can't be enrolled")?;
    let tasks: Result<Vec<NewTask>, _> =
        scenarios.iter().map(|scenario| NewTask::from_value(&scenario.line(&site.origin()))).collect();
    let tasks = tasks.map_err(|errors| anyhow::anyhow!("a demo task is wrong: {errors:?}"))?;
    let enqueued = queue.enqueue(&tasks, 0).await?;
    Ok(enqueued.into_iter().map(|task| task.id).zip(scenarios).collect())
}

async fn work_off(
    queue: &Queue,
    worker: Arc<Worker>,
    tasks: &BTreeMap<TaskId, Scenario>,
    stop: Stop,
    runs: &Path,
    quiet: bool,
) -> anyhow::Result<Vec<Row>> {
    let tasks_word = if tasks.len() == 1 { "task" } else { "tasks" };
    eprintln!("working off {} {tasks_word}, {} at once", tasks.len(), worker.settings.concurrency);
    let mut working = tokio::spawn(worker.run(Until::Drained, stop));
    let mut done: BTreeMap<TaskId, Row> = BTreeMap::new();
    loop {
        let ended = tokio::time::timeout(LOOK, &mut working).await.is_ok();
        for (id, scenario) in tasks {
            if done.contains_key(id) {
                continue;
            }
            let run = queue.run(*id).await?.run;
            if !matches!(run.status.as_str(), "pending" | "running") {
                let row = row(run, scenario, runs);
                if !quiet {
                    let mark = if row.as_expected { "✓" } else { "✗" };
                    eprintln!("{mark} {:>3}/{}  {}: {}", done.len() + 1, tasks.len(), row.name, row.note);
                }
                done.insert(*id, row);
            }
        }
        if ended {
            ensure!(done.len() == tasks.len(), "stopped after {} of {} tasks", done.len(), tasks.len());
            return Ok(done.into_values().collect());
        }
    }
}

fn row(run: RunSummary, scenario: &Scenario, runs: &Path) -> Row {
    let as_expected = match scenario.expected {
        Expectation::Success => run.status == TaskStatus::Completed.as_str(),
        Expectation::Failure { reason, code } => {
            run.failure_reason.as_deref() == Some(reason.as_str())
                && code.is_none_or(|code| run.failure_code.as_deref() == Some(code))
        }
    };
    Row {
        task_id: run.id,
        name: scenario.name,
        task_type: run.task_type,
        status: run.status,
        failure_reason: run.failure_reason,
        failure_code: run.failure_code,
        seconds: run.execution_time,
        record: runs.join(run.id.to_string()).display().to_string(),
        as_expected,
        note: scenario.note,
    }
}

fn show(rows: &[Row], runs: &Path, json: bool) -> anyhow::Result<()> {
    let odd: Vec<&str> = rows.iter().filter(|row| !row.as_expected).map(|row| row.name).collect();
    if json {
        print_json(&json!({"runs_dir": runs, "tasks": rows}))?;
    } else {
        let cells = rows.iter().map(|row| {
            vec![
                row.task_id.to_string(),
                row.name.to_owned(),
                row.task_type.clone(),
                row.status.clone(),
                row.failure_reason.clone().unwrap_or_default(),
                row.failure_code.clone().unwrap_or_default(),
                row.seconds.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
                row.record.clone(),
            ]
        });
        print_line(format_args!(
            "\n{}",
            table(&["TASK", "SCENARIO", "TYPE", "RESULT", "REASON", "CODE", "SECONDS", "RECORD"], cells)
        ))?;
        if let Some(first) = rows.first() {
            print_line(format_args!(
                "\nEvery outcome above was made by a page of the built-in site. What to look at next:"
            ))?;
            print_line(format_args!("  {}/report.html   a run as a page: open it in a browser", first.record))?;
            print_line(format_args!("  {}/screenshot.png, steps.jsonl, final_result.json", first.record))?;
            print_line(format_args!("  pagehand runs ls, pagehand runs show {}", first.task_id))?;
            print_line(format_args!(
                "Then your own site: pagehand site add ORIGIN --authorized-by WHO, pagehand enqueue --help"
            ))?;
        }
    }
    ensure!(
        odd.is_empty(),
        "{} of {} tasks ended otherwise than they should: {}",
        odd.len(),
        rows.len(),
        odd.join(", ")
    );
    Ok(())
}
