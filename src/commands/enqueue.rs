//! `pagehand enqueue`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;

use anyhow::Context;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::{Database, Usage, print_json};
use crate::cli::{EnqueueArgs, EnqueueTask, TaskArgs};
use crate::config::{Config, SecretRef};
use crate::queue::{Enqueued, Queue};
use crate::site::not_enrolled;
use crate::task::{FieldError, NewTask};

/// Problems that are shown; the rest is counted.
const SHOWN_PROBLEMS: usize = 20;

/// Adds the tasks and prints their ids, one a line.
///
/// # Errors
/// [`Usage`] for a wrong flag; else a line that can't be taken, a site that is not enrolled, a Postgres that is away.
pub async fn run(config: Config, args: EnqueueArgs) -> anyhow::Result<()> {
    let (candidates, mut problems) = match (&args.file, args.task) {
        (Some(path), _) => read_file(path)?,
        (None, Some(task)) => (vec![(0, from_flags(task)?)], Vec::new()),
        (None, None) => {
            return Err(Usage("give --file FILE, or `comment` or `registration` with their flags".into()).into());
        }
    };
    let database = Database::open(&config).await?;
    let enqueued = enqueue(&database.queue, &config, candidates, &mut problems, args.skip_invalid).await;
    database.close().await;
    let enqueued = enqueued?;

    if args.json {
        let ids: Vec<_> = enqueued.iter().map(|task| task.id).collect();
        let deduplicated: Vec<_> = enqueued.iter().filter(|task| task.deduplicated).map(|task| task.id).collect();
        print_json(&json!({"ids": ids, "deduplicated": deduplicated, "skipped": problems.len()}))?;
    } else {
        let mut lines = String::new();
        for task in &enqueued {
            lines.push_str(&format!("{}\n", task.id));
        }
        std::io::Write::write_all(&mut std::io::stdout().lock(), lines.as_bytes())?;
    }
    if std::io::stderr().is_terminal() && enqueued.len() > 1 {
        eprintln!("{} tasks enqueued", enqueued.len());
    }
    Ok(())
}

async fn enqueue(
    queue: &Queue,
    config: &Config,
    candidates: Vec<(usize, NewTask)>,
    problems: &mut Vec<String>,
    skip_invalid: bool,
) -> anyhow::Result<Vec<Enqueued>> {
    let mut refusals: HashMap<String, Option<String>> = HashMap::new();
    let mut tasks = Vec::with_capacity(candidates.len());
    for (line, task) in candidates {
        if !refusals.contains_key(&task.site) {
            let refusal = match queue.enrolment(&task.site).await? {
                None => Some(not_enrolled(&task.site)),
                Some((enrolment, now)) => enrolment.check_active(now).err(),
            };
            refusals.insert(task.site.clone(), refusal);
        }
        match &refusals[&task.site] {
            Some(refusal) => problems.push(at_line(line, &format!("url: {refusal}"))),
            None => tasks.push(task),
        }
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| line_number(problem));
        let more = problems.len().saturating_sub(SHOWN_PROBLEMS);
        let mut shown = problems[..problems.len() - more].join("\n  ");
        if more > 0 {
            shown.push_str(&format!("\n  … and {more} more"));
        }
        anyhow::ensure!(
            skip_invalid,
            "{}\n  {shown}",
            if tasks.is_empty() {
                "nothing was enqueued"
            } else {
                "nothing was enqueued; --skip-invalid takes the good lines"
            }
        );
        eprintln!("skipped:\n  {shown}");
    }
    queue.enqueue(&tasks, config.retry.max_retries).await.context("nothing was enqueued")
}

/// The tasks of a file, each with the number of its line, and what is wrong with the other lines.
type Candidates = (Vec<(usize, NewTask)>, Vec<String>);

fn read_file(path: &Path) -> anyhow::Result<Candidates> {
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(path).map_err(|error| Usage(format!("--file {}: {error}", path.display())))?;
        Box::new(BufReader::new(file))
    };
    let (mut tasks, mut problems) = (Vec::new(), Vec::new());
    for (index, line) in reader.split(b'\n').enumerate() {
        let line = line.with_context(|| format!("can't read {}", path.display()))?;
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(value) => match NewTask::from_value(&value) {
                Ok(task) => tasks.push((index + 1, task)),
                Err(errors) => problems.extend(errors.iter().map(|error| at_line(index + 1, &error.to_string()))),
            },
            Err(error) => problems.push(at_line(index + 1, &format!("is no JSON: {error}; write one task a line"))),
        }
    }
    Ok((tasks, problems))
}

fn at_line(line: usize, problem: &str) -> String {
    if line == 0 { problem.to_owned() } else { format!("line {line}: {problem}") }
}

fn line_number(problem: &str) -> usize {
    let number = problem.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
    number.and_then(|(number, _)| number.parse().ok()).unwrap_or(0)
}

fn from_flags(task: EnqueueTask) -> anyhow::Result<NewTask> {
    let (task_type, args, fields) = match task {
        EnqueueTask::Comment { task, author, email, website, body } => (
            "comment",
            task,
            vec![("author", Some(author)), ("email", Some(email)), ("website", website), ("body", Some(body))],
        ),
        EnqueueTask::Registration { task, username, email, password, first_name, last_name } => {
            let password = match password.parse::<SecretRef>() {
                Ok(reference) => {
                    let secret = reference.resolve().map_err(|error| Usage(format!("--password: {error}")))?;
                    secret.expose_secret().to_owned()
                }
                Err(_) => password,
            };
            let fields = vec![
                ("username", Some(username)),
                ("email", Some(email)),
                ("password", Some(password)),
                ("first_name", first_name),
                ("last_name", last_name),
            ];
            ("registration", task, fields)
        }
    };
    let payload: Map<String, Value> =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
    let TaskArgs { page_url, url, campaign_id, max_retries, priority, run_at, dedupe_key } = args;
    let value = json!({
        "task_type": task_type,
        "url": url.or(page_url),
        "campaign_id": campaign_id,
        "payload": payload,
        "max_retries": max_retries,
        "priority": priority,
        "run_at": run_at,
        "dedupe_key": dedupe_key,
    });
    NewTask::from_value(&value).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(as_flag).collect();
        Usage(lines.join("\n       ")).into()
    })
}

fn as_flag(error: &FieldError) -> String {
    let name = error.field.rsplit('.').next().unwrap_or_default().replace('_', "-");
    format!("--{name} {}", error.problem)
}
