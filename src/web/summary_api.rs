//! Numbers over a time range, dead letters in groups, and whether this server is well.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::auth::Caller;
use super::input::{Fields, Query};
use super::negotiate::Wanted;
use super::problem::{Problem, ProblemBody};
use super::{Shared, pages};
use crate::queue::{FailureCount, Part, StepSummary, Totals};
use crate::record::rfc3339;

/// How long `/readyz` waits for Postgres.
const READY_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// The time ranges that numbers are given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The last 24 hours.
    Day,
    /// The last 7 days.
    Week,
    /// The last 30 days.
    Month,
}

impl Range {
    pub const ALL: [Range; 3] = [Range::Day, Range::Week, Range::Month];

    pub fn as_str(self) -> &'static str {
        match self {
            Range::Day => "24h",
            Range::Week => "7d",
            Range::Month => "30d",
        }
    }

    fn length(self) -> TimeDelta {
        match self {
            Range::Day => TimeDelta::hours(24),
            Range::Week => TimeDelta::days(7),
            Range::Month => TimeDelta::days(30),
        }
    }

    /// In how many bars its chart shows it: hours, or days.
    fn parts(self) -> i32 {
        match self {
            Range::Day => 24,
            Range::Week => 7,
            Range::Month => 30,
        }
    }

    fn read(fields: &mut Fields) -> Option<Range> {
        fields.read("range", |text| {
            Range::ALL.into_iter().find(|range| range.as_str() == text).ok_or("must be 24h, 7d or 30d")
        })
    }
}

/// What a range came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Summary {
    /// `24h`, `7d` or `30d`.
    pub range: &'static str,
    pub since: String,
    pub until: String,
    #[serde(flatten)]
    pub totals: Totals,
    /// The same of the range of this length before it.
    pub previous: Totals,
    pub steps: Vec<StepSummary>,
    /// Dead letters by reason.
    pub failures: Vec<FailureCount>,
    /// The range in equal parts, the oldest first.
    pub series: Vec<Part>,
}

/// `GET /metrics/summary`
#[utoipa::path(get, path = "/metrics/summary", tag = "watching",
    params(("range" = Option<String>, Query, description = "24h, 7d or 30d; 24h where nothing is said")),
    responses(
        (status = 200, description = "the runs enqueued in the range", body = Summary),
        (status = 400, description = "no such range", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn summary(State(app): State<Shared>, Query(mut fields): Query) -> Result<Json<Summary>, Problem> {
    let range = Range::read(&mut fields);
    fields.finish().map_err(Problem::parameters)?;
    summarise(&app, range.unwrap_or(Range::Day)).await.map(Json)
}

/// `GET /dashboard`
pub async fn dashboard(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(mut fields): Query,
) -> Result<Response, Problem> {
    let range = Range::read(&mut fields).unwrap_or(Range::Day);
    fields.finish().map_err(Problem::parameters)?;
    if wanted == Wanted::Json {
        return Ok(Json(summarise(&app, range).await?).into_response());
    }
    let (summary, pulse) = tokio::join!(summarise(&app, range), app.queue.pulse());
    Ok(pages::dashboard::page(&caller, range, &summary?, pulse?).into_response())
}

async fn summarise(app: &Shared, range: Range) -> Result<Summary, Problem> {
    let period = app.queue.last(range.length()).await?;
    let (totals, previous, steps, failures, series) = tokio::try_join!(
        app.queue.totals(period),
        app.queue.totals(period.before()),
        app.queue.step_summaries(period),
        app.queue.failure_counts(period),
        app.queue.parts(period, range.parts()),
    )?;
    let (since, until) = (rfc3339(period.since), rfc3339(period.until));
    Ok(Summary { range: range.as_str(), since, until, totals, previous, steps, failures, series })
}

/// `GET /failures`
pub async fn failures(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(fields): Query,
) -> Result<Response, Problem> {
    fields.finish().map_err(Problem::parameters)?;
    let groups = app.queue.failure_groups().await?;
    Ok(match wanted {
        Wanted::Json => Json(json!({ "groups": groups })).into_response(),
        Wanted::Html => pages::failures::page(&caller, &groups).into_response(),
    })
}

/// `GET /healthz`: the process runs.
#[utoipa::path(get, path = "/healthz", tag = "watching", responses((status = 200, description = "it runs", body = Value)))]
pub async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /readyz`: it can do its work.
#[utoipa::path(get, path = "/readyz", tag = "watching", responses(
    (status = 200, description = "Postgres answers", body = Value),
    (status = 503, description = "it does not", body = ProblemBody, content_type = "application/problem+json"),
))]
pub async fn readyz(State(app): State<Shared>) -> Result<Json<Value>, Problem> {
    match tokio::time::timeout(READY_LIMIT, app.queue.now()).await {
        Ok(Ok(_)) => Ok(Json(json!({"status": "ready"}))),
        _ => Err(Problem::unavailable("postgres does not answer; see DATABASE_URL and `pagehand doctor`")),
    }
}
