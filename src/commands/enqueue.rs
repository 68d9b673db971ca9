//! `pagehand enqueue`.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;

use anyhow::Context;
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Database, Usage, print_json};
use crate::cli::{EnqueueArgs, EnqueueTask, TaskArgs};
use crate::config::{Config, SecretRef};
use crate::queue::{Enqueued, Queue};
use crate::seal::has_secret;
use crate::site::{Enrolment, not_enrolled};
use crate::task::{FieldError, NewTask};

/// Problems that are shown to a person; the rest is counted.
const SHOWN_PROBLEMS: usize = 1_000;

/// Something that keeps a task from being taken.
#[derive(Debug, Serialize)]
struct Problem {
    /// Line of the file, from 1; null for a task from flags.
    line: Option<usize>,
    #[serde(flatten)]
    error: FieldError,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

/// Adds the tasks and prints their ids, one a line.
///
/// # Errors
/// [`Usage`] for a wrong flag; else a line that can't be taken, a site that is not enrolled, a Postgres that is away.
pub async fn run(config: Config, args: EnqueueArgs) -> anyhow::Result<()> {
    let (candidates, mut problems) = match (&args.file, args.task) {
        (Some(path), _) => read_file(path)?,
        (None, Some(task)) => (vec![(None, from_flags(task)?)], Vec::new()),
        (None, None) => {
            return Err(Usage("give --file FILE, or `comment` or `registration` with their flags".into()).into());
        }
    };
    let database = Database::open(&config).await?;
    let in_the_clear =
        database.queue.keys().current().is_none() && candidates.iter().any(|(_, task)| has_secret(&task.payload));
    let enqueued = enqueue(&database.queue, &config, candidates, &mut problems, args.skip_invalid).await;
    database.close().await;
    let enqueued = enqueued?;

    problems.sort_by_key(|problem| problem.line);
    if in_the_clear && !enqueued.is_empty() {
        eprintln!("note: passwords are stored in the clear; set secrets.key to have them encrypted");
    }
    let refused = !problems.is_empty() && !args.skip_invalid;
    if args.json {
        let ids: Vec<_> = enqueued.iter().map(|task| task.id).collect();
        let deduplicated: Vec<_> = enqueued.iter().filter(|task| task.deduplicated).map(|task| task.id).collect();
        let lines: BTreeSet<_> = problems.iter().map(|problem| problem.line).collect();
        let report = json!({"ids": ids, "deduplicated": deduplicated, "skipped": lines.len(), "errors": problems});
        print_json(&report)?;
    } else {
        let lines: String = enqueued.iter().map(|task| format!("{}\n", task.id)).collect();
        std::io::Write::write_all(&mut std::io::stdout().lock(), lines.as_bytes())?;
    }
    if refused {
        let advice = if args.file.is_some() { "; --skip-invalid takes the good lines of a file" } else { "" };
        anyhow::bail!("nothing was enqueued{advice}\n  {}", list(&problems));
    }
    if !problems.is_empty() {
        eprintln!("skipped:\n  {}", list(&problems));
    }
    if std::io::stderr().is_terminal() && enqueued.len() > 1 {
        eprintln!("{} tasks enqueued", enqueued.len());
    }
    Ok(())
}

async fn enqueue(
    queue: &Queue,
    config: &Config,
    candidates: Vec<(Option<usize>, NewTask)>,
    problems: &mut Vec<Problem>,
    skip_invalid: bool,
) -> anyhow::Result<Vec<Enqueued>> {
    let mut sites: HashMap<String, Result<Enrolment, String>> = HashMap::new();
    let mut tasks = Vec::with_capacity(candidates.len());
    for (line, mut task) in candidates {
        if !sites.contains_key(&task.site) {
            let site = match queue.enrolment(&task.site).await? {
                None => Err(not_enrolled(&task.site)),
                Some((enrolment, now)) => enrolment.check_active(now).map(|()| enrolment),
            };
            sites.insert(task.site.clone(), site);
        }
        let allowed = match &sites[&task.site] {
            Ok(enrolment) => enrolment.check_task_type(&task.task_type).map_err(|problem| ("task_type", problem)),
            Err(refusal) => Err(("url", refusal.clone())),
        };
        match allowed {
            Err((field, problem)) => problems.push(Problem { line, error: FieldError::new(field, problem) }),
            Ok(()) => {
                // A site may be many hosts: its limits hold for all of them together.
                if let Ok(enrolment) = &sites[&task.site] {
                    task.site = enrolment.origin.to_string();
                }
                tasks.push(task);
            }
        }
    }
    if !problems.is_empty() && !skip_invalid {
        return Ok(Vec::new());
    }
    queue.enqueue(&tasks, config.retry.max_retries).await.context("nothing was enqueued")
}

/// The tasks of a file, each with the number of its line, and what is wrong with the other lines.
type Candidates = (Vec<(Option<usize>, NewTask)>, Vec<Problem>);

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
        // Some editors begin a file with a byte order mark.
        let line = if index == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let number = Some(index + 1);
        let read = serde_json::from_slice::<Value>(line).map_err(|error| {
            let (what, column) = (error.to_string(), error.column());
            // serde counts lines too, and here there is but one.
            let what = what.split(" at line ").next().unwrap_or_default();
            vec![FieldError::new("task", format!("is no JSON ({what}, column {column}); write one task a line"))]
        });
        match read.and_then(|value| NewTask::from_value(&value)) {
            Ok(task) => tasks.push((number, task)),
            Err(errors) => problems.extend(errors.into_iter().map(|error| Problem { line: number, error })),
        }
    }
    Ok((tasks, problems))
}

fn list(problems: &[Problem]) -> String {
    let mut shown: Vec<String> = problems.iter().take(SHOWN_PROBLEMS).map(ToString::to_string).collect();
    if problems.len() > SHOWN_PROBLEMS {
        shown.push(format!("… and {} more", problems.len() - SHOWN_PROBLEMS));
    }
    shown.join("\n  ")
}

fn from_flags(task: EnqueueTask) -> anyhow::Result<NewTask> {
    let (task_type, args, fields) = match task {
        EnqueueTask::Comment { task, author, email, website, body } => (
            "comment",
            task,
            vec![("author", Some(author)), ("email", Some(email)), ("website", website), ("body", Some(body))],
        ),
        EnqueueTask::Registration {
            task,
            username,
            email,
            password,
            first_name,
            last_name,
            phone,
            birthdate,
            country,
        } => {
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
                ("phone", phone),
                ("birthdate", birthdate),
                ("country", country),
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
