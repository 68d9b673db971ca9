//! `index.html`: all runs of a directory on one page that opens from disk, newest first, each with a link to its report.
//!
//! It is written when somebody asks for it, from the files alone: the directory may be a copy from elsewhere.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use super::super::archive::read_json;
use super::super::dir::Dir;
use super::super::run::REPORT;
use super::{INIT, RESULT, head, human};
use crate::task::TaskId;

const INDEX: &str = "index.html";
/// Most runs on the page; the newest are there.
const MOST: usize = 10_000;

/// The page that was written.
#[derive(Debug)]
pub struct Index {
    /// Where it is.
    pub path: PathBuf,
    /// Runs on it.
    pub runs: usize,
    /// Older runs that had no room.
    pub left_out: usize,
}

/// A run as its files tell of it.
struct Entry {
    id: TaskId,
    init: Option<Value>,
    result: Option<Value>,
    has_report: bool,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Completed,
    Failed,
    /// Cancelled, waiting for another attempt, or under way.
    Other(&'static str),
}

/// Writes `index.html` into a runs directory, in place of an earlier one. Blocks on the disk.
///
/// # Errors
/// The directory is not there, or can't be written to.
pub fn write_index(root: &Path) -> io::Result<Index> {
    let dir = Dir::open(root)?;
    let mut ids: Vec<i64> = dir.names()?.iter().filter_map(|name| id_of(name)).collect();
    ids.sort_unstable_by(|left, right| right.cmp(left));
    let left_out = ids.len().saturating_sub(MOST);
    let entries: Vec<Entry> = ids.into_iter().take(MOST).filter_map(|id| Entry::read(&dir, id)).collect();
    dir.put(dir.temp(&[page(&entries, left_out).as_bytes()])?, INDEX)?;
    Ok(Index { path: root.join(INDEX), runs: entries.len(), left_out })
}

fn id_of(name: &str) -> Option<i64> {
    name.parse().ok().filter(|id: &i64| *id > 0 && id.to_string() == name)
}

impl Entry {
    /// None for something of that name that is no run.
    fn read(root: &Dir, id: i64) -> Option<Entry> {
        let dir = root.child(&id.to_string()).ok()?;
        let has_report = dir.size(REPORT).is_some();
        Some(Entry { id: TaskId(id), init: read_json(&dir, INIT), result: read_json(&dir, RESULT), has_report })
    }

    fn meta(&self, key: &str) -> Option<&str> {
        self.init.as_ref()?.get("meta")?.get(key)?.as_str()
    }

    fn said(&self, key: &str) -> Option<&str> {
        self.result.as_ref()?.get("result")?.get(key)?.as_str()
    }

    fn standing(&self) -> Standing {
        let Some(result) = &self.result else { return Standing::Other("without a result") };
        if result.pointer("/result/success").and_then(Value::as_bool) == Some(true) {
            return Standing::Completed;
        }
        match result.pointer("/decided/outcome").and_then(Value::as_str) {
            Some("retry") => Standing::Other("to be retried"),
            Some("released") => Standing::Other("given back"),
            Some("cancelled") => Standing::Other("cancelled"),
            _ => Standing::Failed,
        }
    }
}

fn page(entries: &[Entry], left_out: usize) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        let word = match entry.standing() {
            Standing::Completed => "completed",
            Standing::Failed => "failed",
            Standing::Other(word) => word,
        };
        *counts.entry(word).or_default() += 1;
    }
    html! {
        (DOCTYPE)
        html lang="en" {
            (head("Runs", include_str!("index.css")))
            body {
                main {
                    h1 { (entries.len()) @if entries.len() == 1 { " run" } @else { " runs" } }
                    p.chips { @for (word, n) in &counts { span.chip { (n) " " (word) } } }
                    @if left_out > 0 { p.dim { (left_out) " older runs have no room here." } }
                    div.index {
                        table {
                            thead {
                                tr { @for name in ["Run", "Started", "Task", "Result", "Attempt", "Took", "Error"] { th scope="col" { (name) } } }
                            }
                            tbody { @for entry in entries { (row(entry)) } }
                        }
                    }
                }
                footer { "Recorded by Pagehand. Times are UTC." }
            }
        }
    }
    .into_string()
}

fn row(entry: &Entry) -> Markup {
    let either = entry.init.as_ref().or(entry.result.as_ref());
    let started = either.and_then(|file| file.get("started_at")?.as_str()).unwrap_or_default();
    // To the second: there is little room.
    let started = started.chars().take(19).collect::<String>().replace('T', " ");
    let count = |file: &Option<Value>, at: &str| file.as_ref()?.pointer(at)?.as_u64();
    let retries = count(&entry.init, "/meta/retry_count").or_else(|| count(&entry.result, "/result/retry_count"));
    let took = entry.result.as_ref().and_then(|result| result.get("execution_time")?.as_f64());
    let took = took.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(human).unwrap_or_default();
    let link = if entry.has_report { format!("{}/{REPORT}", entry.id) } else { format!("{}/", entry.id) };
    html! {
        tr {
            td.number { a href=(link) { (entry.id) } }
            td.time { (started) }
            td.task { (entry.meta("task_type").unwrap_or_default()) " " span.dim { (entry.meta("url").unwrap_or_default()) } }
            td {
                @match entry.standing() {
                    Standing::Completed => span.chip.good { "completed" },
                    Standing::Failed => span.chip.strong { (entry.said("failure_reason").unwrap_or("failed")) },
                    Standing::Other(word) => span.chip { (word) },
                }
                @if let Some(code) = entry.said("failure_code") { " " code { (code) } }
            }
            td.number data-label="attempt" { @if let Some(retries) = retries { (retries + 1) } }
            td.number data-label="took" { (took) }
            td.error { (entry.said("error").unwrap_or_default()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(root: &Path, id: i64, url: &str, result: Option<Value>) {
        let dir = root.join(id.to_string());
        std::fs::create_dir(&dir).unwrap();
        let init = serde_json::json!({"task_id": id, "started_at": "2024-01-15T10:30:00.123Z",
                                      "meta": {"task_type": "comment", "url": url, "retry_count": 1}});
        std::fs::write(dir.join(INIT), init.to_string()).unwrap();
        if let Some(result) = result {
            std::fs::write(dir.join(RESULT), result.to_string()).unwrap();
            std::fs::write(dir.join(REPORT), "").unwrap();
        }
    }

    #[test]
    fn each_run_stands_on_it_with_its_result_and_a_link_and_texts_of_pages_are_only_text() {
        let root = tempfile::tempdir().unwrap();
        let failed = serde_json::json!({"execution_time": 45.67, "decided": {"outcome": "dead"},
            "result": {"success": false, "failure_reason": "timeout", "failure_code": "nav.timeout",
                       "error": "<script>alert(1)</script>"}});
        run(root.path(), 9, "https://example.org/nine", Some(failed));
        run(root.path(), 10, "https://example.org/ten", Some(serde_json::json!({"result": {"success": true}})));
        run(root.path(), 11, "https://example.org/eleven", None);
        for other in ["012", "notes", ".outcomes"] {
            std::fs::create_dir(root.path().join(other)).unwrap();
        }
        std::fs::write(root.path().join("12"), "no directory").unwrap();

        let index = write_index(root.path()).unwrap();
        assert_eq!((index.runs, index.left_out), (3, 0));
        let page = std::fs::read_to_string(&index.path).unwrap();
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}\n{page}"));
        assert!(
            at("href=\"11/\"") < at("href=\"10/report.html\"")
                && at("href=\"10/report.html\"") < at("href=\"9/report.html\"")
        );
        for text in
            ["3 runs", "1 completed", "1 failed", "1 without a result", "nav.timeout", "45.7 s", "&lt;script&gt;"]
        {
            at(text);
        }
        assert!(!page.contains("<script>"));
        // A second one takes its place.
        assert_eq!(write_index(root.path()).unwrap().runs, 3);
    }

    #[test]
    fn a_link_in_place_of_a_run_is_not_followed() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(elsewhere.path(), 1, "https://secret.example/", None);
        std::os::unix::fs::symlink(elsewhere.path().join("1"), root.path().join("1")).unwrap();
        assert_eq!(write_index(root.path()).unwrap().runs, 0);
    }
}
