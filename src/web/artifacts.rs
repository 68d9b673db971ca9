//! `GET /runs/{id}/artifacts/{name}`: files of a run directory.
//!
//! What is in them was written under the eyes of a hostile page, and the directory may be one that somebody else can write
//! to. So a name must be one that the record has, the way there is opened piece by piece without following a link, only a
//! regular file is read, its type follows from its name alone, and HTML is sent with a policy under which nothing runs,
//! nothing is fetched and nothing is sent.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::Shared;
use super::headers::CAPTURE_POLICY;
use super::input::Query;
use super::problem::Problem;
use super::runs_api::{Segments, run_id};
use super::thumbnail::{self, Size};
use crate::queue::Artifact;
use crate::record::{PageLog, StepRecord};
use crate::task::TaskId;
use crate::telemetry::steps_of;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Most bytes read of a console or network file; telemetry writes less.
const MAX_LOG: u64 = 8 << 20;
/// Most entries of a directory that are looked at.
const MAX_FILES: usize = 10_000;
/// Names that each run has.
const FIXED: [&str; 6] =
    ["init.json", "steps.jsonl", "final_result.json", "dom_snapshot.html", "screenshot.png", "report.html"];
/// Kinds of snapshots and logs, as their names have them.
const KINDS: [&str; 4] = ["screenshot", "dom", "console", "network"];
/// Names that each earlier attempt has.
const OF_ATTEMPT: [&str; 2] = ["init.json", "final_result.json"];

/// A file of a run directory that may be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ArtifactName {
    /// `attempts/N/`, for an earlier attempt.
    attempt: Option<u32>,
    pub(super) name: String,
}

impl ArtifactName {
    /// Only names that `telemetry` writes.
    pub(super) fn parse(attempt: Option<&str>, name: &str) -> Option<ArtifactName> {
        let attempt = match attempt {
            Some(text) => Some(number(text)?),
            None => None,
        };
        let known = match attempt {
            Some(_) => OF_ATTEMPT.contains(&name),
            None => FIXED.contains(&name) || is_snapshot(name),
        };
        known.then(|| ArtifactName { attempt, name: name.to_owned() })
    }

    /// Its path below the run directory.
    pub(super) fn path(&self) -> String {
        match self.attempt {
            Some(attempt) => format!("attempts/{attempt}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether what is under this name never changes.
    fn is_final(&self) -> bool {
        is_snapshot(&self.name)
    }

    fn content_type(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("png") => "image/png",
            Some("html") => "text/html; charset=utf-8",
            Some("json") => "application/json",
            // Lines of JSON; as text a browser shows them instead of saving them.
            _ => "text/plain; charset=utf-8",
        }
    }
}

/// `{initial,final,error}_dom_{TIMESTAMP}.html`, `…_screenshot_{TIMESTAMP}.png`, `{console,network}_{TIMESTAMP}.json`;
/// TIMESTAMP like `20240115T103000123Z`.
fn is_snapshot(name: &str) -> bool {
    let is_stamp = |stamp: &str| {
        stamp.len() == 19
            && stamp.bytes().enumerate().all(|(n, byte)| match n {
                8 => byte == b'T',
                18 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            })
    };
    let stamped = |rest: &str| {
        let stamp = rest.strip_prefix("dom_").and_then(|rest| rest.strip_suffix(".html"));
        let stamp = stamp.or_else(|| rest.strip_prefix("screenshot_")?.strip_suffix(".png"));
        stamp.is_some_and(is_stamp)
    };
    let log = |kind: &str| name.strip_prefix(kind)?.strip_suffix(".json");
    ["initial_", "final_", "error_"].iter().any(|kind| name.strip_prefix(kind).is_some_and(stamped))
        || ["console_", "network_"].iter().any(|kind| log(kind).is_some_and(is_stamp))
}

/// A number as a directory's name has it.
fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

/// `GET /runs/{id}/artifacts/{name}`
#[utoipa::path(get, path = "/runs/{id}/artifacts/{name}", tag = "runs",
    params(
        ("id" = i64, Path, description = "number of the run"),
        ("name" = String, Path, description = "as in `artifacts` of an attempt"),
        ("download" = Option<bool>, Query, description = "to be saved, not shown"),
        ("size" = Option<String>, Query, description = "small or large: of a screenshot, a JPEG of its upper part"),
    ),
    responses(
        (status = 200, description = "the file", content(
            (serde_json::Value = "application/json"), (String = "text/plain"), (String = "text/html"), (String = "image/png"),
            (String = "image/jpeg"),
        )),
        (status = 404, description = "no such run or file", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get(
    State(app): State<Shared>,
    Segments([id, name]): Segments<2>,
    Query(fields): Query,
) -> Result<Response, Problem> {
    serve(&app, &id, None, &name, fields).await
}

/// `GET /runs/{id}/artifacts/attempts/{n}/{name}`
#[utoipa::path(get, path = "/runs/{id}/artifacts/attempts/{n}/{name}", tag = "runs",
    params(
        ("id" = i64, Path, description = "number of the run"),
        ("n" = u32, Path, description = "`retry_count` of the earlier attempt"),
        ("name" = String, Path, description = "`init.json` or `final_result.json`"),
        ("download" = Option<bool>, Query, description = "to be saved, not shown"),
    ),
    responses(
        (status = 200, description = "the file", content((serde_json::Value = "application/json"))),
        (status = 404, description = "no such run or file", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get_of_attempt(
    State(app): State<Shared>,
    Segments([id, attempt, name]): Segments<3>,
    Query(fields): Query,
) -> Result<Response, Problem> {
    serve(&app, &id, Some(&attempt), &name, fields).await
}

async fn serve(
    app: &Shared,
    id: &str,
    attempt: Option<&str>,
    name: &str,
    mut fields: super::input::Fields,
) -> Result<Response, Problem> {
    let id = run_id(id)?;
    let missing = || Problem::not_found(format_args!("file of this name in the record of run {id}"));
    let name = ArtifactName::parse(attempt, name).ok_or_else(missing)?;
    let download = fields.flag("download");
    let size = fields.read("size", Size::read).filter(|_| name.name.ends_with(".png"));
    fields.finish().map_err(Problem::parameters)?;

    let root = app.runs_dir.clone();
    let opened = tokio::task::spawn_blocking(move || open(&root, id, &name).map(|(file, size)| (file, size, name)));
    let (file, bytes, name) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(%error, run = id.0, "no such artifact");
            return Err(missing());
        }
        Err(_) => return Err(Problem::internal()),
    };
    if let Some(size) = size {
        return thumbnail::serve(file, size).await;
    }
    // A file that grows while it is sent ends where it ended when it was opened.
    let body = Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(bytes), CHUNK));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(name.content_type()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CAPTURE_POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let kind = if download { "attachment" } else { "inline" };
    // The name has nothing but letters, digits, dots and underscores.
    if let Ok(value) = HeaderValue::try_from(format!("{kind}; filename=\"run-{id}-{}\"", name.name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    let caching = if name.is_final() { "private, max-age=86400, immutable" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    Ok(response)
}

/// What the page of an attempt said and asked for, as its files of these names have it; empty where they can't be read.
pub(super) fn page_log(root: &Path, id: TaskId, names: &[String]) -> PageLog {
    fn read<T: DeserializeOwned + Default>(root: &Path, id: TaskId, name: Option<&String>) -> T {
        let read = || {
            let name = ArtifactName::parse(None, name?)?;
            let (file, _) = open(root, id, &name).ok()?;
            serde_json::from_reader(std::io::BufReader::new(file.take(MAX_LOG))).ok()
        };
        read().unwrap_or_default()
    }
    let name = |kind: &str| names.iter().find(|name| name.starts_with(kind));
    PageLog { console: read(root, id, name("console_")), network: read(root, id, name("network_")) }
}

/// The snapshots and logs of a run directory that are not among `known`: what an attempt under way has left so far.
pub(super) fn snapshots_beside(root: &Path, id: TaskId, known: &HashSet<String>) -> Vec<Artifact> {
    let kind = |name: &str| name.split('_').find(|word| KINDS.contains(word)).map(str::to_owned);
    let beside = |file: &ArtifactName| file.is_final() && !known.contains(&file.name);
    let files = list(root, id).unwrap_or_default().into_iter().filter(beside);
    files
        .filter_map(|file| {
            let kind = kind(&file.name)?;
            let (_, bytes) = open(root, id, &file).ok()?;
            Some(Artifact { kind, bytes: i64::try_from(bytes).ok()?, name: file.name })
        })
        .collect()
}

/// What an attempt under way has written down of its steps; none where that can't be read, or is too long to be read now and again.
pub(super) fn steps_so_far(root: &Path, id: TaskId, fence: i64) -> Vec<StepRecord> {
    let read = || {
        let (file, _) =
            open(root, id, &ArtifactName::parse(None, "steps.jsonl")?).ok().filter(|(_, bytes)| *bytes <= MAX_LOG)?;
        let mut lines = Vec::new();
        file.take(MAX_LOG).read_to_end(&mut lines).ok()?;
        Some(steps_of(fence, &String::from_utf8_lossy(&lines)))
    };
    read().unwrap_or_default()
}

/// The files that a run directory has, of those that may be asked for.
pub(super) fn list(root: &Path, id: TaskId) -> io::Result<Vec<ArtifactName>> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let names = |at: &OwnedFd| -> io::Result<Vec<String>> {
        let entries = rustix::fs::Dir::read_from(at)?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
        let mut names: Vec<String> = names.take(MAX_FILES).collect();
        names.sort();
        Ok(names)
    };
    let root = openat(CWD, root, directory - OFlags::NOFOLLOW, Mode::empty())?;
    let run = openat(&root, id.to_string(), directory, Mode::empty())?;
    let mut found: Vec<ArtifactName> = names(&run)?.iter().filter_map(|name| ArtifactName::parse(None, name)).collect();
    if let Ok(attempts) = openat(&run, "attempts", directory, Mode::empty()) {
        for attempt in names(&attempts)? {
            if let Ok(at) = openat(&attempts, attempt.as_str(), directory, Mode::empty()) {
                found.extend(names(&at)?.iter().filter_map(|name| ArtifactName::parse(Some(&attempt), name)));
            }
        }
    }
    Ok(found)
}

/// Opens a file of a run and says its size. No piece of the way may be a link, and the file no device or pipe.
pub(super) fn open(root: &Path, id: TaskId, name: &ArtifactName) -> io::Result<(File, u64)> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The root itself is the operator's word: it may be a link.
    let mut at = openat(CWD, root, directory - OFlags::NOFOLLOW, Mode::empty())?;
    at = openat(&at, id.to_string(), directory, Mode::empty())?;
    if let Some(attempt) = name.attempt {
        at = openat(&at, "attempts", directory, Mode::empty())?;
        at = openat(&at, attempt.to_string(), directory, Mode::empty())?;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&at, name.name.as_str(), flags, Mode::empty())?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_record_has_are_taken() {
        for good in [
            "init.json",
            "steps.jsonl",
            "error_screenshot_20240115T103000123Z.png",
            "network_20240115T103000123Z.json",
            "final_dom_20240115T103000123Z.html",
        ] {
            assert!(ArtifactName::parse(None, good).is_some(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../init.json",
            "attempts/0/init.json",
            "/etc/passwd",
            "init.json\0",
            "INIT.JSON",
            "error_screenshot_20240115T103000123Z.html",
            "error_screenshot_2024.png",
            "console_2024.json",
            "console_20240115T103000123Z.html",
            "error_dom_20240115T10300012३Z.html",
            ".1-2.tmp",
            "steps.jsonl.torn",
        ] {
            assert_eq!(ArtifactName::parse(None, bad), None, "{bad}");
        }
        assert!(ArtifactName::parse(Some("0"), "init.json").is_some());
        for (attempt, name) in [("00", "init.json"), ("-1", "init.json"), ("..", "init.json"), ("0", "screenshot.png")]
        {
            assert_eq!(ArtifactName::parse(Some(attempt), name), None, "{attempt}/{name}");
        }
    }

    #[test]
    fn links_and_devices_on_the_way_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("7");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("init.json"), "{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", run.join("report.html")).unwrap();
        std::os::unix::fs::symlink(&run, root.path().join("8")).unwrap();
        std::fs::create_dir(run.join("screenshot.png")).unwrap();
        let name = |name: &str| ArtifactName::parse(None, name).unwrap();
        assert_eq!(open(root.path(), TaskId(7), &name("init.json")).unwrap().1, 2);
        assert!(open(root.path(), TaskId(7), &name("report.html")).is_err());
        assert!(open(root.path(), TaskId(7), &name("screenshot.png")).is_err());
        assert!(open(root.path(), TaskId(8), &name("init.json")).is_err());
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outside.path().join("0")).unwrap();
        std::fs::write(outside.path().join("0/init.json"), "{}").unwrap();
        let earlier = ArtifactName::parse(Some("0"), "init.json").unwrap();
        for attempts in ["attempts", "attempts/0"] {
            let (link, to) =
                (run.join(attempts), outside.path().join(attempts.trim_start_matches("attempts").trim_matches('/')));
            std::os::unix::fs::symlink(to, &link).unwrap();
            assert!(open(root.path(), TaskId(7), &earlier).is_err(), "{attempts}");
            assert!(list(root.path(), TaskId(7)).unwrap().iter().all(|name| name.attempt.is_none()), "{attempts}");
            std::fs::remove_file(link).unwrap();
            if attempts == "attempts" {
                std::fs::create_dir(run.join("attempts")).unwrap();
            }
        }
    }
}
