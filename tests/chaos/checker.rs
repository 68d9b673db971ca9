//! Goes through rows, run directories, ledger, processes and profiles once everything has ended, and says what does not
//! hold.
//!
//! | invariant | what holds |
//! |---|---|
//! | `no_loss` | every task is there, and has ended |
//! | `one_record_an_attempt` | each attempt has one `init.json` and one `final_result.json`, and it says what the row says |
//! | `file_before_row` | no row tells of an end that no file tells of |
//! | `single_owner` | attempts of a task follow each other, and none follows a success |
//! | `fenced_files` | no line of `steps.jsonl` is of an attempt that was over when the line before it was written |
//! | `never_twice` | a task is submitted at most once, and once where it is completed |
//! | `gate` | what arrived at the site had its intent, and the mark that it was let go, on record before |
//! | `steps` | every line is whole; numbers are dense; times of an attempt do not go back; the rows have all lines |
//! | `nothing_left` | no Chrome, no profile, no temporary file |
//! | `no_panic` | no worker says that it panicked |
//! | `no_secret` | passwords stand in no file, log line or row but the payload's |
//! | `budgets` | losses are counted, the third ends the task; `retry_count` is that of the row |
//! | `evidence` | a success has its page and picture, or says which is missing and why |
//! | `artifacts` | files that rows name are there, with their sizes |

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, query_as};

use super::cluster::{Cluster, Task};
use super::site::Manner;

/// Something that does not hold, with the evidence.
#[derive(Debug, Clone)]
pub struct Violation {
    pub invariant: &'static str,
    pub task: Option<i64>,
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            Some(task) => write!(f, "{}: task {task}: {}", self.invariant, self.evidence),
            None => write!(f, "{}: {}", self.invariant, self.evidence),
        }
    }
}

#[derive(Debug, Clone, FromRow)]
pub struct TaskRow {
    pub id: i64,
    pub status: String,
    pub retry_count: i32,
    pub losses: i32,
    pub failure_code: Option<String>,
    pub cancel_requested: bool,
}

#[derive(Debug, Clone, FromRow)]
pub struct AttemptRow {
    pub id: i64,
    pub task_id: i64,
    pub retry_count: i32,
    pub status: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub failure_code: Option<String>,
    pub intent_at: Option<DateTime<Utc>>,
    pub let_go_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, FromRow)]
struct StepRow {
    attempt_id: i64,
    seq: i32,
}

#[derive(Debug, Clone, FromRow)]
struct ArtifactRow {
    attempt_id: i64,
    task_id: i64,
    name: String,
    bytes: i64,
}

/// Everything that is on record, and what does not hold of it.
pub struct Findings {
    pub rows: BTreeMap<i64, TaskRow>,
    pub attempts: BTreeMap<i64, Vec<AttemptRow>>,
    pub violations: Vec<Violation>,
}

impl Findings {
    fn note(&mut self, invariant: &'static str, task: i64, evidence: String) {
        self.violations.push(Violation { invariant, task: Some(task), evidence });
    }

    fn attempts_of(&self, task: i64) -> Vec<AttemptRow> {
        self.attempts.get(&task).cloned().unwrap_or_default()
    }

    /// How a task ended, for tables.
    pub fn end_of(&self, task: i64) -> String {
        self.rows.get(&task).map_or("gone".to_owned(), |row| match &row.failure_code {
            Some(code) => format!("{} {code}", row.status),
            None => row.status.clone(),
        })
    }
}

/// Checks everything. All workers must have ended.
pub async fn check(cluster: &Cluster) -> Findings {
    let tasks: Vec<TaskRow> =
        query_as("SELECT id, status::text, retry_count, losses, failure_code, cancel_requested FROM tasks ORDER BY id")
            .fetch_all(&cluster.pool)
            .await
            .expect("postgres answers");
    let attempts: Vec<AttemptRow> = query_as(
        "SELECT id, task_id, retry_count, status::text, started_at, finished_at, failure_code, intent_at, let_go_at
         FROM attempts ORDER BY id",
    )
    .fetch_all(&cluster.pool)
    .await
    .expect("postgres answers");
    let mut of_task: BTreeMap<i64, Vec<AttemptRow>> = BTreeMap::new();
    for attempt in attempts {
        of_task.entry(attempt.task_id).or_default().push(attempt);
    }
    let mut findings = Findings {
        rows: tasks.into_iter().map(|row| (row.id, row)).collect(),
        attempts: of_task,
        violations: Vec::new(),
    };
    let steps = query_as("SELECT attempt_id, seq FROM steps ORDER BY attempt_id, seq").fetch_all(&cluster.pool).await;
    let steps: Vec<StepRow> = steps.expect("postgres answers");
    for task in &cluster.tasks {
        ended(&mut findings, task);
        submitted(&mut findings, cluster, task);
        owners(&mut findings, task);
        record(&mut findings, cluster, task, &steps);
    }
    artifacts(&mut findings, cluster).await;
    left_over(&mut findings, cluster);
    panics(&mut findings, cluster);
    secrets(&mut findings, cluster).await;
    findings
}

fn ended(findings: &mut Findings, task: &Task) {
    let Some(row) = findings.rows.get(&task.id).cloned() else {
        return findings.note("no_loss", task.id, "the row is gone".to_owned());
    };
    let attempts = findings.attempts_of(task.id);
    if !["completed", "failed", "cancelled"].contains(&row.status.as_str()) || row.cancel_requested {
        findings.note("no_loss", task.id, format!("{row:?}"));
    }
    if row.status == "failed" && row.failure_code.is_none() {
        findings.note("no_loss", task.id, format!("a dead letter without a reason: {row:?}"));
    }
    let lost = attempts.iter().filter(|attempt| attempt.status == "lost").count();
    if usize::try_from(row.losses) != Ok(lost) {
        findings.note("budgets", task.id, format!("{} losses counted of {lost}: {attempts:?}", row.losses));
    }
    if lost > 3 {
        findings.note("budgets", task.id, format!("{lost} workers were lost with it: {attempts:?}"));
    }
    if attempts.last().is_some_and(|last| last.retry_count != row.retry_count) {
        findings.note("budgets", task.id, format!("{row:?} after {attempts:?}"));
    }
}

fn submitted(findings: &mut Findings, cluster: &Cluster, task: &Task) {
    let arrived: Vec<_> = cluster.site.ledger.all().into_iter().filter(|sent| sent.text == task.text).collect();
    let status = findings.rows.get(&task.id).map(|row| row.status.clone()).unwrap_or_default();
    let attempts = findings.attempts_of(task.id);
    if arrived.len() > 1 {
        findings.note("never_twice", task.id, format!("submitted {} times: {arrived:?}; {attempts:?}", arrived.len()));
    }
    if status == "completed" && arrived.is_empty() {
        findings.note("never_twice", task.id, format!("completed, and never submitted: {attempts:?}"));
    }
    for sent in arrived {
        let on_record = attempts.iter().any(|attempt| {
            attempt
                .intent_at
                .is_some_and(|intent| attempt.let_go_at.is_some_and(|let_go| intent <= let_go && let_go <= sent.at))
        });
        if !on_record {
            findings.note("gate", task.id, format!("arrived {} and is not on record: {attempts:?}", sent.at));
        }
    }
}

fn owners(findings: &mut Findings, task: &Task) {
    let attempts = findings.attempts_of(task.id);
    for pair in attempts.windows(2) {
        let [first, second] = pair else { continue };
        if first.finished_at.is_none_or(|finished| finished > second.started_at) || first.status == "succeeded" {
            findings.note("single_owner", task.id, format!("{first:?} is not over when {second:?} begins"));
        }
        let counted = if first.status == "released" { 0 } else { 1 };
        if second.retry_count != first.retry_count + counted {
            findings.note("budgets", task.id, format!("{second:?} follows {first:?}"));
        }
    }
    let succeeded = attempts.last().is_some_and(|last| last.status == "succeeded");
    let completed = findings.rows.get(&task.id).is_some_and(|row| row.status == "completed");
    if succeeded != completed {
        findings.note("single_owner", task.id, format!("completed: {completed}, by {attempts:?}"));
    }
}

fn json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn record(findings: &mut Findings, cluster: &Cluster, task: &Task, steps: &[StepRow]) {
    let dir = cluster.runs().join(task.id.to_string());
    let mut places = vec![dir.clone()];
    places.extend(fs::read_dir(dir.join("attempts")).into_iter().flatten().flatten().map(|entry| entry.path()));
    let mut results: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
    let mut inits: BTreeMap<i64, usize> = BTreeMap::new();
    for place in &places {
        for name in ["init.json", "final_result.json"] {
            let path = place.join(name);
            if !path.exists() {
                continue;
            }
            let Some(document) = json(&path) else {
                findings.note("one_record_an_attempt", task.id, format!("{} is no JSON", path.display()));
                continue;
            };
            let attempt = document["attempt"].as_i64().unwrap_or_default();
            if name == "init.json" {
                *inits.entry(attempt).or_default() += 1;
            } else {
                results.entry(attempt).or_default().push(document);
            }
        }
    }
    let lines = lines(findings, &dir, task);
    for attempt in findings.attempts_of(task.id) {
        let files = results.remove(&attempt.id).unwrap_or_default();
        let [file] = files.as_slice() else {
            let evidence = format!("{} final results of {attempt:?}", files.len());
            findings.note(
                if files.is_empty() { "file_before_row" } else { "one_record_an_attempt" },
                task.id,
                evidence,
            );
            continue;
        };
        let written = inits.get(&attempt.id).copied().unwrap_or(0);
        if written != 1 {
            findings.note("one_record_an_attempt", task.id, format!("{written} init.json of {attempt:?}"));
        }
        let result = &file["result"];
        let success = result["success"].as_bool() == Some(true);
        let code = result["failure_code"].as_str();
        let same = match attempt.status.as_str() {
            "succeeded" => success,
            "cancelled" => !success,
            _ => !success && code == attempt.failure_code.as_deref(),
        };
        if !same || result["retry_count"].as_i64() != Some(attempt.retry_count.into()) {
            findings.note("one_record_an_attempt", task.id, format!("{attempt:?}, and its file says {result}"));
        }
        for part in ["dom", "screenshot"].iter().filter(|_| success) {
            let part = &file["artifacts"][part];
            let there = part["name"].as_str().is_some_and(|name| dir.join(name).is_file());
            if !there && part["cause"].is_null() {
                findings.note("evidence", task.id, format!("{attempt:?}: {part}"));
            }
        }
        let incomplete = !file["artifacts"]["steps"].is_null();
        rows_have_lines(findings, task, &attempt, &lines, steps, incomplete);
    }
    for (attempt, _) in results {
        findings.note("one_record_an_attempt", task.id, format!("a final result of attempt {attempt}, which is none"));
    }
}

/// Attempt, number and time of each line of `steps.jsonl`.
fn lines(findings: &mut Findings, dir: &Path, task: &Task) -> Vec<(i64, i64, String)> {
    let text = fs::read_to_string(dir.join("steps.jsonl")).unwrap_or_default();
    let mut lines: Vec<(i64, i64, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        let Some(step) = serde_json::from_str::<Value>(line).ok().filter(|_| line.ends_with('\n')) else {
            findings.note("steps", task.id, format!("a torn line: {line}"));
            continue;
        };
        let attempt = step["attempt"].as_i64().unwrap_or_default();
        if let Some((before, ..)) = lines.last()
            && *before > attempt
        {
            findings.note("fenced_files", task.id, format!("attempt {attempt} wrote after attempt {before}: {line}"));
        }
        let time = step["timestamp"].as_str().unwrap_or_default().to_owned();
        if let Some((before, seq, earlier)) = lines.last()
            && *before == attempt
            && (step["seq"].as_i64().is_none_or(|next| next <= *seq) || time < *earlier)
        {
            findings.note("steps", task.id, format!("not in order after {seq} of {earlier}: {line}"));
        }
        lines.push((attempt, step["seq"].as_i64().unwrap_or_default(), time));
    }
    lines
}

fn rows_have_lines(
    findings: &mut Findings,
    task: &Task,
    attempt: &AttemptRow,
    lines: &[(i64, i64, String)],
    steps: &[StepRow],
    incomplete: bool,
) {
    let in_file: Vec<i64> = lines.iter().filter(|line| line.0 == attempt.id).map(|line| line.1).collect();
    let in_rows: Vec<i64> =
        steps.iter().filter(|step| step.attempt_id == attempt.id).map(|step| step.seq.into()).collect();
    let dense = |numbers: &[i64]| numbers.iter().zip(1..).all(|(number, wanted)| *number == wanted);
    if !incomplete && !dense(&in_file) {
        findings.note("steps", task.id, format!("the lines of {attempt:?} are not dense: {in_file:?}"));
    }
    if attempt.status == "lost" {
        return;
    }
    // What was settled has all its steps in rows.
    if !dense(&in_rows) || (!incomplete && in_file.len() != in_rows.len()) {
        let evidence = format!("{} lines, {} rows of {attempt:?}", in_file.len(), in_rows.len());
        findings.note("steps", task.id, evidence);
    }
}

async fn artifacts(findings: &mut Findings, cluster: &Cluster) {
    let rows = query_as("SELECT attempt_id, task_id, name, bytes FROM artifacts").fetch_all(&cluster.pool).await;
    let rows: Vec<ArtifactRow> = rows.expect("postgres answers");
    for row in rows {
        let path = cluster.runs().join(row.task_id.to_string()).join(&row.name);
        // The others are replaced, or go on growing, with the next attempt.
        if !["initial_", "final_dom", "final_screenshot", "error_"].iter().any(|start| row.name.starts_with(start)) {
            continue;
        }
        let size = fs::metadata(&path).ok().and_then(|file| i64::try_from(file.len()).ok());
        if size != Some(row.bytes) {
            let evidence = format!("{} of attempt {}: {size:?} of {} bytes", row.name, row.attempt_id, row.bytes);
            findings.note("artifacts", row.task_id, evidence);
        }
    }
}

fn files(place: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}

fn left_over(findings: &mut Findings, cluster: &Cluster) {
    let mut note = |evidence| findings.violations.push(Violation { invariant: "nothing_left", task: None, evidence });
    for (pid, line) in cluster.chromes() {
        note(format!("process {}: {line}", pid.as_raw_pid()));
    }
    for entry in fs::read_dir(cluster.path().join("data/chrome")).into_iter().flatten().flatten() {
        note(format!("profile {}", entry.path().display()));
    }
    for path in files(&cluster.runs()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".tmp") {
            note(format!("temporary file {}", path.display()));
        }
    }
}

/// Workers say why they end.
fn panics(findings: &mut Findings, cluster: &Cluster) {
    for path in files(cluster.path()).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")) {
        let log = fs::read_to_string(&path).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains("panicked at")) {
            let evidence = format!("{}: {line}", path.display());
            findings.violations.push(Violation { invariant: "no_panic", task: None, evidence });
        }
    }
}

async fn secrets(findings: &mut Findings, cluster: &Cluster) {
    let secrets: Vec<&String> = cluster.tasks.iter().filter_map(|task| task.secret.as_ref()).collect();
    if secrets.is_empty() {
        return;
    }
    let mut places = files(&cluster.runs());
    places.extend(files(cluster.path()).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")));
    for path in places.iter().filter(|path| !path.ends_with("postgres.log")) {
        let content = fs::read(path).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        if secrets.iter().any(|secret| content.contains(secret.as_str())) {
            let evidence = format!("a password stands in {}", path.display());
            findings.violations.push(Violation { invariant: "no_secret", task: None, evidence });
        }
    }
    let rows: Vec<(String,)> = query_as(
        "SELECT coalesce(error, '') || meta::text FROM steps UNION ALL
         SELECT coalesce(error, '') || coalesce(failure::text, '') || coalesce(intent::text, '') || coalesce(submit_outcome::text, '') FROM attempts UNION ALL
         SELECT coalesce(last_error, '') || coalesce(error::text, '') || coalesce(result::text, '') FROM tasks",
    )
    .fetch_all(&cluster.pool)
    .await
    .expect("postgres answers");
    if rows.iter().any(|(row,)| secrets.iter().any(|secret| row.contains(secret.as_str()))) {
        let evidence = "a password stands in a row".to_owned();
        findings.violations.push(Violation { invariant: "no_secret", task: None, evidence });
    }
}

/// How many tasks of each manner ended how.
pub fn summary(cluster: &Cluster, findings: &Findings) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for task in &cluster.tasks {
        let manner = match task.manner {
            Manner::Registers => "registration".to_owned(),
            manner => format!("comment, {manner:?}"),
        };
        *counts.entry((manner, findings.end_of(task.id))).or_default() += 1;
    }
    counts
}
