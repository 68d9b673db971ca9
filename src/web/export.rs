//! Taking runs away: a list as lines of JSON or as CSV, and a run directory as a zip.
//!
//! Both are made while they are sent: memory does not grow with what is taken. What goes wrong on the way ends the
//! connection in the middle, so that half a file is not taken for a whole one.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderValue, header};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::artifacts;
use super::input::Query;
use super::problem::Problem;
use super::runs_api::{Segments, run_id};
use super::{Shared, wire};
use crate::queue::{Cursor, Queue, RunFilter, RunSummary};
use crate::task::TaskId;

/// Runs read at a time.
const PAGE: u32 = 200;
/// Bytes of a zip that are sent at once, and how many such pieces may wait for the connection.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 4;
/// Run directories that are packed at the same time: each takes a thread from those that read files.
static PACKING: Semaphore = Semaphore::const_new(8);
/// Who takes no piece of a zip for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(30);
const COLUMNS: [&str; 19] = [
    "id",
    "task_type",
    "status",
    "url",
    "site",
    "campaign_id",
    "priority",
    "retry_count",
    "max_retries",
    "failure_reason",
    "failure_code",
    "last_error",
    "created_at",
    "run_at",
    "started_at",
    "finished_at",
    "execution_time",
    "tokens",
    "cost_usd",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jsonl,
    Csv,
}

/// `GET /runs/export`
#[utoipa::path(get, path = "/runs/export", tag = "runs",
    params(
        ("format" = Option<String>, Query, description = "jsonl or csv; jsonl where nothing is said"),
        ("status" = Option<String>, Query, description = "as for GET /runs, like all its filters"),
        wire::FilterParams,
    ),
    responses(
        (status = 200, description = "a run a line, as in the list, newest first", content(
            (String = "application/x-ndjson"), (String = "text/csv"),
        )),
        (status = 400, description = "a parameter can't be taken", body = super::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn runs(State(app): State<Shared>, Query(mut fields): Query) -> Result<Response, Problem> {
    let format = fields.read("format", |text| match text {
        "jsonl" => Ok(Format::Jsonl),
        "csv" => Ok(Format::Csv),
        _ => Err("must be jsonl or csv"),
    });
    let filter = fields.filter();
    fields.finish().map_err(Problem::parameters)?;
    let format = format.unwrap_or(Format::Jsonl);
    let first = page(&app.queue, &filter, None, format, true).await?;
    let pages = stream::try_unfold((first.1, Some(first.0), filter), move |(next, ready, filter)| {
        let queue = app.queue.clone();
        async move {
            let (text, next) = match (ready, next) {
                (Some(text), next) => (text, next),
                (None, None) => return Ok(None),
                (None, cursor) => {
                    page(&queue, &filter, cursor, format, false).await.map_err(|_| io::Error::other("cut off"))?
                }
            };
            Ok::<_, io::Error>(Some((Bytes::from(text), (next, None, filter))))
        }
    });
    let (kind, name) = match format {
        Format::Jsonl => ("application/x-ndjson", "runs.jsonl"),
        Format::Csv => ("text/csv; charset=utf-8", "runs.csv"),
    };
    Ok(download(Body::from_stream(pages), kind, name))
}

/// A page of runs as text, and where the next one begins.
async fn page(
    queue: &Queue,
    filter: &RunFilter,
    cursor: Option<Cursor>,
    format: Format,
    with_header: bool,
) -> Result<(Vec<u8>, Option<Cursor>), Problem> {
    let page = queue.runs(filter, cursor, PAGE).await?;
    let next = page.next;
    let text = match format {
        Format::Jsonl => lines(page.runs.into_iter().map(wire::Run::from)),
        Format::Csv => csv(page.runs, with_header),
    };
    Ok((text.map_err(|_| Problem::internal())?, next))
}

fn lines(runs: impl Iterator<Item = wire::Run>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for run in runs {
        serde_json::to_writer(&mut text, &run)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Runs as a table for a spreadsheet, in which no text is taken for a formula.
///
/// # Errors
/// A run can't be written as JSON, which does not happen.
pub fn csv(runs: Vec<RunSummary>, with_header: bool) -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if with_header {
        writer.write_record(COLUMNS)?;
    }
    for run in runs {
        let value = serde_json::to_value(wire::Run::from(run))?;
        writer.write_record(COLUMNS.map(|name| match &value[name] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => inert(text),
            other => other.to_string(),
        }))?;
    }
    writer.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

/// A text that a spreadsheet does not take for a formula.
fn inert(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

/// `GET /runs/{id}/export`
#[utoipa::path(get, path = "/runs/{id}/export", tag = "runs", params(("id" = i64, Path, description = "number of the run")),
    responses(
        (status = 200, description = "the run directory, with run.json: what GET /runs/{id} answers", content_type = "application/zip", body = String),
        (status = 404, description = "no such run", body = super::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "too many runs are packed already", body = super::problem::ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn run_directory(
    State(app): State<Shared>,
    Segments([id]): Segments<1>,
    Query(fields): Query,
) -> Result<Response, Problem> {
    let id = run_id(&id)?;
    fields.finish().map_err(Problem::parameters)?;
    let (run, trail) = tokio::join!(app.queue.run(id), app.queue.trail(id));
    let detail = wire::RunDetail::new(run?, trail?);
    let detail = serde_json::to_vec_pretty(&detail).map_err(|_| Problem::internal())?;
    let place = PACKING.try_acquire();
    let place =
        place.map_err(|_| Problem::unavailable("8 runs are being packed already; try again when one is done"))?;
    let (sender, pieces) = mpsc::channel(PIECES);
    let (root, runtime) = (app.runs_dir.clone(), Handle::current());
    let packed = tokio::task::spawn_blocking(move || {
        let _place = place;
        let pieces = Pieces { sender, runtime, patience: PATIENCE };
        pack(BufWriter::with_capacity(PIECE, pieces), root, id, &detail)
    });
    let body = stream::unfold((pieces, Some(packed)), async |(mut pieces, packed)| {
        if let Some(piece) = pieces.recv().await {
            return Some((Ok(piece), (pieces, packed)));
        }
        let outcome = packed?.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        outcome.err().map(|error| (Err(error), (pieces, None)))
    });
    Ok(download(Body::from_stream(body), "application/zip", &format!("run-{id}.zip")))
}

/// What is written, on its way to the connection.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    runtime: Handle,
    /// So long one piece may wait.
    patience: Duration,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.sender.send(Bytes::copy_from_slice(bytes));
        match self.runtime.block_on(timeout(self.patience, sent)) {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pack(out: impl Write, root: PathBuf, id: TaskId, detail: &[u8]) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(out);
    let plain = SimpleFileOptions::default().unix_permissions(0o644);
    let packed = plain.compression_method(zip::CompressionMethod::Deflated);
    zip.start_file(format!("run-{id}/run.json"), packed)?;
    zip.write_all(detail)?;
    // A run that has not begun has no directory.
    for name in artifacts::list(&root, id).unwrap_or_default() {
        let Ok((file, size)) = artifacts::open(&root, id, &name) else { continue };
        let options =
            if name.name.ends_with(".png") { plain.compression_method(zip::CompressionMethod::Stored) } else { packed };
        zip.start_file(format!("run-{id}/{}", name.path()), options)?;
        io::copy(&mut io::Read::take(file, size), &mut zip)?;
    }
    zip.finish()?.into_inner().flush()
}

fn download(body: Body, kind: &'static str, name: &str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(value) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_formula_is_only_text() {
        for formula in ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", "\r=1"] {
            assert!(inert(formula).starts_with("'"), "{formula}");
        }
        assert_eq!(inert("a = b"), "a = b");
    }

    #[tokio::test]
    async fn who_takes_nothing_of_a_zip_is_cut_off() {
        let (sender, _pieces) = mpsc::channel(1);
        let mut out = Pieces { sender, runtime: Handle::current(), patience: Duration::from_millis(1) };
        let written = tokio::task::spawn_blocking(move || out.write_all(b"1").and_then(|()| out.write_all(b"2"))).await;
        assert_eq!(written.expect("no panic").map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }
}
