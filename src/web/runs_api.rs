//! Runs: list, look at, enqueue, retry, cancel.

use std::collections::HashSet;
use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::input::{Fields, Input, Query};
use super::negotiate::Wanted;
use super::problem::{Problem, ProblemBody};
use super::request_id::RequestId;
use super::{Shared, artifacts, pages, wire};
use crate::queue::{Cursor, Once, QueueError, RequestKey, RunDetail, RunFilter, Step};
use crate::seal::masked;
use crate::task::{FieldError, NewTask, TaskId, TaskStatus};

/// Most runs on a page, and on one where nothing is said.
const MAX_PAGE: u32 = 200;
const PAGE: u32 = 50;
const MAX_KEY_BYTES: usize = 255;
/// How long the tabs' counts may take; a page without them is better than none.
const COUNT_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The variable pieces of a path, in order. What is not UTF-8 names nothing here.
pub struct Segments<const N: usize>(pub [String; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for Segments<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let missing = || Problem::not_found("such page");
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| missing())?;
        let values: Vec<String> = params.iter().map(|(_, value)| value.to_owned()).collect();
        values.try_into().map(Segments).map_err(|_| missing())
    }
}

/// The number of a run as it stands in a path.
pub fn run_id(text: &str) -> Result<TaskId, Problem> {
    let id = TaskId::from_str(text).ok().filter(|id| id.0 > 0 && id.to_string() == text);
    id.ok_or_else(|| Problem::not_found("such run; its number stands in the address, for example /runs/17"))
}

/// `GET /runs`
#[utoipa::path(get, path = "/runs", tag = "runs",
    params(
        ("status" = Option<String>, Query, description = "pending, running, completed, failed or cancelled"),
        wire::FilterParams,
        wire::PageParams,
    ),
    responses(
        (status = 200, description = "newest first", content((wire::RunPage = "application/json"), (String = "text/html"))),
        (status = 400, description = "a parameter can't be taken", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn list(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(mut fields): Query,
) -> Result<Response, Problem> {
    let filter = fields.filter();
    page(&app, &caller, wanted, filter, fields).await
}

/// `GET /runs/failed`
#[utoipa::path(get, path = "/runs/failed", tag = "runs",
    params(
        wire::FilterParams,
        wire::PageParams,
    ),
    responses(
        (status = 200, description = "the dead letters, newest first", content((wire::RunPage = "application/json"), (String = "text/html"))),
        (status = 400, description = "a parameter can't be taken", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn failed(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Query(mut fields): Query,
) -> Result<Response, Problem> {
    let filter = only_failed(fields.filter(), Problem::parameters)?;
    page(&app, &caller, wanted, filter, fields).await
}

/// The filter with the status `failed`; an error if it names another.
pub fn only_failed(filter: RunFilter, problem: fn(Vec<FieldError>) -> Problem) -> Result<RunFilter, Problem> {
    match filter.status {
        None | Some(TaskStatus::Failed) => Ok(RunFilter { status: Some(TaskStatus::Failed), ..filter }),
        Some(_) => Err(problem(vec![FieldError::new("status", "is `failed` here; leave it out")])),
    }
}

async fn page(
    app: &Shared,
    caller: &Caller,
    wanted: Wanted,
    filter: RunFilter,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let limit = fields.number("limit", 1..=MAX_PAGE);
    let cursor = fields.read("cursor", Cursor::from_str);
    fields.finish().map_err(Problem::parameters)?;
    if wanted == Wanted::Json {
        let runs = app.queue.runs(&filter, cursor, limit.unwrap_or(PAGE)).await?;
        return Ok(Json(wire::RunPage::from(runs)).into_response());
    }
    // A number that was pasted into the search leads straight to its run.
    if let Some(id) = filter.q.as_deref().and_then(|q| run_id(q.trim().trim_end_matches('/').rsplit('/').next()?).ok())
        && app.queue.run(id).await.is_ok()
    {
        return Ok(Redirect::to(&format!("/runs/{id}")).into_response());
    }
    let counting = tokio::time::timeout(COUNT_LIMIT, app.queue.status_counts(&filter));
    let (runs, counts) = tokio::join!(app.queue.runs(&filter, cursor, limit.unwrap_or(PAGE)), counting);
    let runs = runs?;
    let ids: Vec<i64> = runs.runs.iter().map(|run| run.id).collect();
    // A list without pictures is better than none.
    let screenshots = app.queue.screenshots(&ids).await.unwrap_or_default();
    let counts = counts.ok().and_then(Result::ok);
    let list = pages::runs::List { filter: &filter, runs: &runs, screenshots: &screenshots, counts, limit, cursor };
    Ok(pages::runs::page(caller, &list).into_response())
}

/// `GET /runs/{id}`
#[utoipa::path(get, path = "/runs/{id}", tag = "runs", params(
        ("id" = i64, Path, description = "number of the run"),
        ("attempt" = Option<i64>, Query, description = "the page shows this attempt, by its id; JSON has all of them"),
        ("compare" = Option<i64>, Query, description = "the page compares it with this one"),
    ),
    responses(
        (status = 200, description = "everything on record", content((wire::RunDetail = "application/json"), (String = "text/html"))),
        (status = 404, description = "no such run", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn detail(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    Segments([id]): Segments<1>,
    Query(mut fields): Query,
) -> Result<Response, Problem> {
    let id = run_id(&id)?;
    let view =
        pages::run::View { attempt: fields.read("attempt", str::parse), compare: fields.read("compare", str::parse) };
    fields.finish().map_err(Problem::parameters)?;
    let (run, trail) = tokio::join!(app.queue.run(id), app.queue.trail(id));
    let (mut run, trail) = (run?, trail?);
    under_way(&app, &mut run).await;
    Ok(match wanted {
        Wanted::Json => Json(wire::RunDetail::new(run, trail)).into_response(),
        Wanted::Html => {
            let names: Vec<String> = pages::run::shown(&run, view)
                .map(|attempt| attempt.artifacts.iter().map(|file| file.name.clone()).collect())
                .unwrap_or_default();
            let root = app.runs_dir.clone();
            let log = tokio::task::spawn_blocking(move || artifacts::page_log(&root, id, &names)).await;
            pages::run::page(&caller, &run, &trail, view, &log.unwrap_or_default()).into_response()
        }
    })
}

/// Adds what an attempt under way has left so far. It comes on record now and then, and in full when it ends; the directory
/// has it at once.
async fn under_way(app: &Shared, run: &mut RunDetail) {
    let (id, root) = (TaskId(run.run.id), app.runs_dir.clone());
    let known = run.attempts.iter().flat_map(|attempt| &attempt.artifacts).map(|file| file.name.clone());
    let known: HashSet<String> = known.collect();
    let Some(attempt) = run.attempts.last_mut().filter(|attempt| attempt.status == "running") else { return };
    let fence = attempt.fence;
    let look = move || (artifacts::snapshots_beside(&root, id, &known), artifacts::steps_so_far(&root, id, fence));
    let (files, steps) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    attempt.artifacts.extend(files);
    let last = attempt.steps.last().map_or(0, |step| step.seq);
    for step in steps.into_iter().filter(|step| step.seq > last) {
        attempt.tokens += step.tokens;
        attempt.cost_usd += step.cost_usd;
        attempt.steps.push(Step::of_attempt(attempt.retry_count, step));
    }
}

/// `POST /runs`
#[utoipa::path(post, path = "/runs", tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header, description = "the same key within a day adds no second task")),
    request_body(content = Value, content_type = "application/json", description = "a line of `pagehand enqueue --file`"),
    responses(
        (status = 200, description = "a live task with the same dedupe key was there already", body = wire::Enqueued),
        (status = 201, description = "enqueued", body = wire::Enqueued),
        (status = 400, description = "not JSON", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "a field can't be taken, the site is not enrolled, or the key was used for something else", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn enqueue(
    State(app): State<Shared>,
    caller: Caller,
    axum::Extension(RequestId(request_id)): axum::Extension<RequestId>,
    headers: HeaderMap,
    input: Input,
) -> Result<Response, Problem> {
    let body = match input {
        Input::Json(body) => body,
        Input::Form(_) => return Err(Problem::not_json()),
        Input::Empty => {
            let detail = "the body is empty; send a task as JSON, for example {\"task_type\":\"comment\",\"url\":…,\"payload\":{…}}";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-json", detail));
        }
    };
    let mut task = NewTask::from_value(&body).map_err(Problem::fields)?;
    if task.run_at.is_some_and(|at| !(1970..=9999).contains(&chrono::Datelike::year(&at))) {
        return Err(Problem::fields(vec![FieldError::new("run_at", "must lie between the years 1970 and 9999")]));
    }
    let key = read_key(&headers)?;
    // A site may be many hosts: its limits hold for all of them together.
    task.site = check_enrolled(&app, &task).await?;
    task.request_id = Some(request_id);
    task.traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);

    let Some(key) = key else {
        let added = app.queue.enqueue(&[task], app.default_max_retries).await?;
        let added = added.first().ok_or_else(Problem::internal)?;
        let status = if added.deduplicated { StatusCode::OK } else { StatusCode::CREATED };
        return Ok(enqueued(status, added.id, added.deduplicated));
    };
    // Not of its secrets: they could be guessed from it.
    let mut shown = body;
    if let Some(payload) = shown.get_mut("payload") {
        *payload = masked(payload);
    }
    let fingerprint: [u8; 32] = Sha256::digest(shown.to_string().as_bytes()).into();
    let request = RequestKey { who: &caller.name, key: &key, fingerprint: &fingerprint };
    match app.queue.enqueue_once(&task, app.default_max_retries, request).await? {
        Once::Added(added) if added.deduplicated => Ok(enqueued(StatusCode::OK, added.id, true)),
        Once::Added(added) => Ok(enqueued(StatusCode::CREATED, added.id, false)),
        Once::Again(id) => {
            Ok(([(IDEMPOTENCY_REPLAYED, "true")], enqueued(StatusCode::CREATED, id, false)).into_response())
        }
        Once::Mismatch => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "this idempotency key came with another body before; use a new key for a new task",
        )),
    }
}

fn enqueued(status: StatusCode, id: TaskId, deduplicated: bool) -> Response {
    let location = [(header::LOCATION, format!("/runs/{id}"))];
    (status, location, Json(wire::Enqueued { id: id.0, deduplicated })).into_response()
}

fn read_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if !key.trim().is_empty() && key.len() <= MAX_KEY_BYTES => Ok(Some(key.trim().to_owned())),
        _ => {
            let problem = format!("must have 1 to {MAX_KEY_BYTES} printable ASCII characters");
            Err(Problem::parameters(vec![FieldError::new("Idempotency-Key", problem)]))
        }
    }
}

async fn check_enrolled(app: &Shared, task: &NewTask) -> Result<String, Problem> {
    let (field, code, problem) = match app.queue.enrolment(&task.site).await? {
        Some((enrolment, now)) => {
            let active = enrolment.check_active(now).map_err(|problem| {
                let code = if enrolment.removed_at.is_some() { "policy.not_enrolled" } else { "policy.expired" };
                ("url", code, problem)
            });
            let allowed = || enrolment.check_task_type(&task.task_type);
            match active.and_then(|()| allowed().map_err(|problem| ("task_type", "policy.task_type", problem))) {
                Ok(()) => return Ok(enrolment.origin.to_string()),
                Err(refused) => refused,
            }
        }
        None => {
            let problem = format!(
                "{0} is not enrolled; whoever may allow it enrols it with `pagehand site add {0} --authorized-by WHO`",
                task.site
            );
            ("url", "policy.not_enrolled", problem)
        }
    };
    let errors = vec![FieldError::new(field, problem.clone())];
    let refusal = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not-enrolled", problem).with_code(code);
    Err(Problem { errors, ..refusal })
}

/// `POST /runs/{id}/retry`
#[utoipa::path(post, path = "/runs/{id}/retry", tag = "runs", params(("id" = i64, Path, description = "number of the run")),
    request_body(content = Option<Value>, content_type = "application/json", description = "nothing, or `{\"confirm_uncertain\":true}`"),
    responses(
        (status = 202, description = "pending again", body = wire::Changed),
        (status = 404, description = "no such run", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "not failed, or it may have been done already and that was not confirmed", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "a field can't be taken", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn retry(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    axum::Extension(RequestId(request_id)): axum::Extension<RequestId>,
    Segments([id]): Segments<1>,
    input: Input,
) -> Result<Response, Problem> {
    let id = run_id(&id)?;
    let source = source(&input);
    let mut fields = input.into_fields()?;
    let confirmed = fields.flag("confirm_uncertain");
    fields.finish().map_err(Problem::fields)?;
    match app.queue.retry(id, confirmed).await {
        Err(QueueError::NeedsConfirmation(_)) if wanted == Wanted::Html => {
            return Ok((StatusCode::CONFLICT, pages::confirm::uncertain(&caller, id)).into_response());
        }
        other => other?,
    }
    app.metrics.retried(source, 1);
    let details = json!({"source": source, "confirm_uncertain": confirmed, "request_id": request_id});
    note(&app, &caller, "run.retry", &id.to_string(), &details).await;
    Ok(changed(wanted, id, TaskStatus::Pending))
}

/// `POST /runs/{id}/cancel`
#[utoipa::path(post, path = "/runs/{id}/cancel", tag = "runs", params(("id" = i64, Path, description = "number of the run")),
    responses(
        (status = 202, description = "cancelled, now or before, or its worker has been asked", body = wire::Changed),
        (status = 404, description = "no such run", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "it has completed or failed already", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn cancel(
    State(app): State<Shared>,
    caller: Caller,
    wanted: Wanted,
    axum::Extension(RequestId(request_id)): axum::Extension<RequestId>,
    Segments([id]): Segments<1>,
    input: Input,
) -> Result<Response, Problem> {
    let id = run_id(&id)?;
    let source = source(&input);
    input.into_fields()?.finish().map_err(Problem::fields)?;
    let status = app.queue.cancel(id).await?;
    note(&app, &caller, "run.cancel", &id.to_string(), &json!({"source": source, "request_id": request_id})).await;
    Ok(changed(wanted, id, status))
}

fn changed(wanted: Wanted, id: TaskId, status: TaskStatus) -> Response {
    let location = format!("/runs/{id}");
    match wanted {
        Wanted::Html => Redirect::to(&location).into_response(),
        Wanted::Json => {
            let body = Json(wire::Changed { id: id.0, status: status.as_str() });
            (StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response()
        }
    }
}

/// For the audit trail and the metrics: a form is a page of ours.
pub fn source(input: &Input) -> &'static str {
    if matches!(input, Input::Form(_)) { "ui" } else { "api" }
}

/// A note that can't be written does not undo what was done: it is logged instead.
pub async fn note(app: &Shared, caller: &Caller, action: &'static str, subject: &str, details: &Value) {
    tracing::info!(event = "web.changed", who = caller.name, action, subject, %details, "a person changed the queue");
    if let Err(error) = app.queue.note(&caller.name, action, subject, details).await {
        tracing::error!(event = "web.audit_failed", %error, action, subject, "the audit trail could not be written");
    }
}
