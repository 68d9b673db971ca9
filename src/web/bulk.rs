//! Retries of many: what they would take, and what they came to.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::auth::Caller;
use super::input::{Fields, Input, Query, as_query};
use super::negotiate::Wanted;
use super::problem::{Problem, ProblemBody};
use super::request_id::RequestId;
use super::runs_api::{note, only_failed, source};
use super::{Shared, pages, wire};
use crate::queue::{BulkRetry, Cursor, QueueError, RunFilter};
use crate::task::{FieldError, TaskId, TaskStatus};

/// Most runs named by id in one request.
const MAX_IDS: usize = 200;
/// Dead letters that a page retries before it says how far it is.
const PART: i64 = 1_000;

/// What the parts before this one came to: a page carries it from one to the next, and it is shown, nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoFar {
    pub retried: u64,
    pub need_confirmation: u64,
    pub conflicts: u64,
    /// How many there were in the beginning.
    pub of: u64,
}

impl SoFar {
    fn read(fields: &mut Fields) -> SoFar {
        let mut number = |name| fields.number(name, 0..=u32::MAX).map_or(0, u64::from);
        SoFar {
            retried: number("retried"),
            need_confirmation: number("need_confirmation"),
            conflicts: number("conflicts"),
            of: number("of"),
        }
    }

    /// As [`SoFar::read`] takes them.
    pub fn fields(&self) -> [(&'static str, u64); 4] {
        [
            ("retried", self.retried),
            ("need_confirmation", self.need_confirmation),
            ("conflicts", self.conflicts),
            ("of", self.of),
        ]
    }

    fn and(self, part: &wire::BulkReport) -> SoFar {
        SoFar {
            retried: self.retried + part.retried,
            need_confirmation: self.need_confirmation + part.skipped.need_confirmation,
            conflicts: self.conflicts + part.skipped.conflicts,
            of: self.of,
        }
    }

    /// The report of the last part with the sums of all.
    fn report(self, last: wire::BulkReport) -> wire::BulkReport {
        let skipped =
            wire::Skipped { need_confirmation: self.need_confirmation, conflicts: self.conflicts, ..last.skipped };
        wire::BulkReport { retried: self.retried, skipped, ..last }
    }
}

fn of_bulk(bulk: BulkRetry) -> wire::BulkReport {
    let skipped = wire::Skipped {
        need_confirmation: bulk.need_confirmation,
        conflicts: bulk.conflicts,
        ..wire::Skipped::default()
    };
    wire::BulkReport { retried: bulk.retried, skipped, details: Vec::new() }
}

/// `GET /runs/retry`: what `POST` to the same address would retry.
#[utoipa::path(get, path = "/runs/retry", tag = "runs",
    params(
        wire::FilterParams,
    ),
    responses(
        (status = 200, description = "how many", content((wire::BulkPreview = "application/json"), (String = "text/html"))),
        (status = 400, description = "a parameter can't be taken", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn preview_retry(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(mut fields): Query,
) -> Result<Response, Problem> {
    let filter = fields.filter();
    fields.finish().map_err(Problem::parameters)?;
    let filter = only_failed(filter, Problem::parameters)?;
    let counts = app.queue.status_counts(&filter).await?;
    Ok(match wanted {
        Wanted::Json => Json(wire::BulkPreview { matching: counts.of(TaskStatus::Failed), more: counts.cut.is_some() })
            .into_response(),
        Wanted::Html => pages::confirm::bulk(&caller, &filter, &counts).into_response(),
    })
}

/// `POST /runs/retry`
#[utoipa::path(post, path = "/runs/retry", tag = "runs",
    request_body(content = Option<Value>, content_type = "application/json",
        description = "the filters of GET /runs (here or in the address), or `{\"ids\":[1,2]}`; and `confirm_uncertain`"),
    responses(
        (status = 200, description = "what was retried, and what was left and why", body = wire::BulkReport),
        (status = 400, description = "not JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "a field can't be taken", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn retry_many(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    axum::Extension(RequestId(request_id)): axum::Extension<RequestId>,
    Query(query): Query,
    input: Input,
) -> Result<Response, Problem> {
    let source = source(&input);
    let mut fields = input.into_fields()?.and(query);
    let ids = fields.ids("ids", MAX_IDS);
    let filter = fields.filter();
    let confirmed = fields.flag("confirm_uncertain");
    let so_far = SoFar::read(&mut fields);
    let after = fields.read("after", Cursor::from_str);
    if ids.is_some() && filter != RunFilter::default() {
        return Err(Problem::fields(vec![FieldError::new("ids", "can't be combined with a filter; send one of both")]));
    }
    fields.finish().map_err(Problem::fields)?;
    let filter = only_failed(filter, Problem::fields)?;

    let (report, next) = match &ids {
        Some(ids) => (retry_named(&app, ids, confirmed).await?, None),
        // A person sees how far it is; a program waits for the whole.
        None if wanted == Wanted::Html => {
            let (part, next) = app.queue.retry_part(&filter, confirmed, after, PART).await?;
            (of_bulk(part), next)
        }
        None => (of_bulk(app.queue.retry_all(&filter, confirmed).await?), None),
    };
    app.metrics.retried(source, report.retried);
    let details = json!({
        "source": source, "filter": as_query(&filter), "ids": ids, "confirm_uncertain": confirmed,
        "retried": report.retried, "request_id": request_id,
    });
    note(&app, &caller, "runs.retry", "runs", &details).await;
    if wanted == Wanted::Json {
        return Ok(Json(report).into_response());
    }
    let so_far = so_far.and(&report);
    Ok(match next {
        Some(next) => pages::confirm::progress(&caller, &filter, &so_far, next).into_response(),
        None => pages::confirm::report(&caller, &filter, &so_far.report(report)).into_response(),
    })
}

/// One by one: each commits by itself, and each that is left has its own reason.
async fn retry_named(app: &Shared, ids: &[TaskId], confirmed: bool) -> Result<wire::BulkReport, Problem> {
    let mut report = wire::BulkReport { retried: 0, skipped: wire::Skipped::default(), details: Vec::new() };
    for id in ids {
        let error = match app.queue.retry(*id, confirmed).await {
            Ok(()) => {
                report.retried += 1;
                continue;
            }
            Err(error) => error,
        };
        let skipped = &mut report.skipped;
        match &error {
            QueueError::NeedsConfirmation(_) => skipped.need_confirmation += 1,
            QueueError::NoSuchTask(_) => skipped.not_found += 1,
            QueueError::Conflict(why) if why.contains("dedupe key") => skipped.conflicts += 1,
            QueueError::Conflict(_) => skipped.not_failed += 1,
            _ => return Err(error.into()),
        }
        report.details.push(wire::SkippedRun { id: id.0, why: error.to_string() });
    }
    Ok(report)
}
