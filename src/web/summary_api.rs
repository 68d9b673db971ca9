//! Numbers over a time range, dead letters in groups, and whether this server is well.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::auth::Caller;
use super::input::{Fields, Query};
use super::negotiate::Wanted;
use super::problem::{Problem, ProblemBody};
use super::{Shared, pages, wire};
use crate::queue::{FailureCount, FailureGroup, Part, StepSummary, Totals, WorkerNow};
use crate::record::rfc3339;
use crate::telemetry::shown_url;

/// How long `/readyz` waits for Postgres.
const READY_LIMIT: Duration = Duration::from_secs(2);
/// Hours counted anew before the numbers are given, how long that may take, and how many at once in the background.
const HOURS_AT_ONCE: u32 = 2;
const ROLL_UP_LIMIT: Duration = Duration::from_millis(300);
const HOURS_IN_BACKGROUND: u32 = 24;
const ROLL_UP_EVERY: Duration = Duration::from_secs(10);

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

    /// The runs of the period before, as `GET /runs` is asked for them.
    pub fn before(self) -> &'static str {
        match self {
            Range::Day => "since=48h&until=24h",
            Range::Week => "since=14d&until=7d",
            Range::Month => "since=60d&until=30d",
        }
    }

    /// As a part of a sentence: "the last 24 hours".
    pub fn in_words(self) -> &'static str {
        match self {
            Range::Day => "24 hours",
            Range::Week => "7 days",
            Range::Month => "30 days",
        }
    }

    /// What a bar of its chart stands for.
    pub fn part_in_words(self) -> &'static str {
        match self {
            Range::Day => "hour",
            Range::Week => "6 hours",
            Range::Month => "day",
        }
    }

    fn length(self) -> TimeDelta {
        match self {
            Range::Day => TimeDelta::hours(24),
            Range::Week => TimeDelta::days(7),
            Range::Month => TimeDelta::days(30),
        }
    }

    /// How long each bar of its chart is.
    pub fn part(self) -> TimeDelta {
        match self {
            Range::Day => TimeDelta::hours(1),
            Range::Week => TimeDelta::hours(6),
            Range::Month => TimeDelta::days(1),
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
    /// The same of the range before it.
    pub previous_failures: Vec<FailureCount>,
    /// The range in hours (24h), quarters of days (7d) or days (30d), UTC, the oldest first.
    pub series: Vec<Part>,
    /// `exact`, or `1%` where there are too many runs to read each.
    pub p95_accuracy: &'static str,
    /// Hours in which something has changed that is not in these numbers yet.
    pub stale_hours: i64,
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
#[utoipa::path(get, path = "/dashboard", tag = "watching",
    params(("range" = Option<String>, Query, description = "24h, 7d or 30d; 24h where nothing is said")),
    responses(
        (status = 200, description = "as `/metrics/summary`; as a page with how the queue stands now",
            content((Summary = "application/json"), (String = "text/html"))),
        (status = 400, description = "no such range", body = ProblemBody, content_type = "application/problem+json"),
    ))]
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
    let (summary, standing, workers) = tokio::join!(summarise(&app, range), app.queue.standing(), app.queue.workers());
    Ok(pages::dashboard::page(&caller, range, &summary?, standing?, &workers?).into_response())
}

async fn summarise(app: &Shared, range: Range) -> Result<Summary, Problem> {
    // Another process may be at it, or it may take too long: then the numbers say that they are not the newest.
    let rolled = tokio::time::timeout(ROLL_UP_LIMIT, app.queue.roll_up(HOURS_AT_ONCE)).await;
    let stale_hours = match rolled {
        Ok(Ok(Some(left))) => left,
        _ => 1,
    };
    let period = app.queue.last(range.length()).await?;
    let (now, before, steps) = tokio::try_join!(
        app.queue.numbers(period, range.part()),
        app.queue.numbers(period.before(), range.part()),
        app.queue.step_summaries(period),
    )?;
    let (since, until) = (rfc3339(period.since), rfc3339(period.until));
    Ok(Summary {
        range: range.as_str(),
        since,
        until,
        totals: now.totals,
        previous: before.totals,
        steps,
        failures: now.failures,
        previous_failures: before.failures,
        series: now.series,
        p95_accuracy: if now.exact { "exact" } else { "1%" },
        stale_hours: if now.exact { 0 } else { stale_hours },
    })
}

/// Counts anew, as long as this server runs, the hours in which something has changed.
pub async fn roll_up_for_ever(app: Shared, shutdown: CancellationToken) {
    let work = async {
        loop {
            let wait = match app.queue.roll_up(HOURS_IN_BACKGROUND).await {
                Ok(Some(left)) if left > 0 => Duration::from_millis(200),
                Ok(_) => ROLL_UP_EVERY,
                Err(error) => {
                    tracing::warn!(event = "web.rollup_failed", err.msg = %error, "hours could not be counted");
                    ROLL_UP_EVERY * 6
                }
            };
            tokio::time::sleep(wait).await;
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// The dead letters in groups.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failures {
    pub groups: Vec<FailureGroup>,
}

/// `GET /failures`
#[utoipa::path(get, path = "/failures", tag = "watching", responses(
    (status = 200, description = "the dead letters grouped by reason, code, step and site, the largest group first, at most 150",
        content((Failures = "application/json"), (String = "text/html"))),
))]
pub async fn failures(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(fields): Query,
) -> Result<Response, Problem> {
    fields.finish().map_err(Problem::parameters)?;
    let groups = app.queue.failure_groups().await?;
    Ok(match wanted {
        Wanted::Json => Json(Failures { groups }).into_response(),
        Wanted::Html => pages::failures::page(&caller, &groups).into_response(),
    })
}

/// The workers there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workers {
    pub workers: Vec<WorkerNow>,
}

/// `GET /workers`
#[utoipa::path(get, path = "/workers", tag = "watching", responses(
    (status = 200, description = "those that were there within the last hour, and what each is doing",
        content((Workers = "application/json"), (String = "text/html"))),
))]
pub async fn workers(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(fields): Query,
) -> Result<Response, Problem> {
    fields.finish().map_err(Problem::parameters)?;
    let mut workers = app.queue.workers().await?;
    for task in workers.iter_mut().flat_map(|worker| &mut worker.tasks) {
        task.url = shown_url(&task.url).into_owned();
    }
    Ok(match wanted {
        Wanted::Json => Json(Workers { workers }).into_response(),
        Wanted::Html => pages::workers::page(&caller, &workers).into_response(),
    })
}

/// What was done by hand.
#[derive(Debug, Serialize, ToSchema)]
pub struct Audit {
    pub entries: Vec<wire::AuditEntry>,
}

/// `GET /audit`
#[utoipa::path(get, path = "/audit", tag = "watching",
    params(("limit" = Option<u32>, Query, description = "1 to 1000; 100 where nothing is said", minimum = 1, maximum = 1000)),
    responses(
        (status = 200, description = "the newest first", content((Audit = "application/json"), (String = "text/html"))),
        (status = 400, description = "a parameter can't be taken", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn audit(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(mut fields): Query,
) -> Result<Response, Problem> {
    let limit = fields.number("limit", 1..=1_000).unwrap_or(100);
    fields.finish().map_err(Problem::parameters)?;
    let entries = app.queue.audit(limit).await?;
    Ok(match wanted {
        Wanted::Json => {
            Json(Audit { entries: entries.into_iter().map(wire::AuditEntry::from).collect() }).into_response()
        }
        Wanted::Html => pages::audit::page(&caller, &entries, limit).into_response(),
    })
}

/// `GET /healthz`: the process runs.
#[utoipa::path(get, path = "/healthz", tag = "watching", security(()), responses((status = 200, description = "it runs", body = Value)))]
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
