//! One attempt, from the claim to the settlement: record, carry out, record, settle.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::Utc;
use futures::FutureExt;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use super::Worker;
use super::enrolment::check_enrolment;
use super::gatekeeper::Gate;
use super::heartbeat::Held;
use super::outcomes::settle;
use super::robots::Way;
use super::support::Loaded;
use super::trace::Trace;
use super::verdict::{Ended, Submission, decide};
use crate::automation::{Automation, Context, Meter, OpenIntent, StepLimits};
use crate::browser::{Denial, DenialKind, TabOptions, UpstreamProxy};
use crate::failure::{Failure, FailureReason};
use crate::fault;
use crate::otlp::AttemptSpan;
use crate::queue::{Claimed, Outcome, Settled, Settlement};
use crate::record::rfc3339;
use crate::seal::OpenError;
use crate::site::{Enrolment, Origin};
use crate::task::{Lease, Payload, SECRET_FIELDS, Task, check_url};
use crate::telemetry::{
    Decided, FinalResult, Run, RunStart, SnapshotKind, finalize_run, init_run, log_failure, log_step, log_step_at,
    save_page_log,
};

/// How long each half of the last snapshot may take when the attempt is called off.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How long the browser may take to be told what a site gives its testers.
const PASS_LIMIT: Duration = Duration::from_secs(10);
/// How long a submission under way may go on when everything else has to stop.
const SUBMIT_GRACE: Duration = Duration::from_secs(10);

/// When the worker did what came before the record could begin; as times of the record's own clock once there is one, lest
/// the wall clock jump in between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// The round of the loop that found the task began.
    pub(super) started: Instant,
    /// The claim was sent.
    pub(super) locking: Instant,
    /// The claim was answered.
    pub(super) locked: Instant,
    /// What it is part of.
    pub(super) trace: Trace,
}

/// Carries out one claimed task and settles it.
pub(super) async fn attempt(worker: &Worker, claimed: Claimed, before: Before, held: Held) {
    let lease = Lease { task_id: claimed.task.id, fence: claimed.fence };
    let began = Instant::now();
    let _in_flight = worker.metrics.received(&claimed.task);
    fault::point!("attempt.begin");
    let held = Arc::new(held);
    let loaded = worker.load_support(&claimed.task).await;
    let payload = open_payload(worker, &claimed.task);
    let secrets = loaded.as_ref().map(|loaded| loaded.secrets.clone()).unwrap_or_default();
    let run = open_record(worker, &claimed, payload.as_ref().ok(), before, secrets).await;
    held.attach(&run);

    let gate = Arc::new(Gate {
        queue: worker.queue.clone(),
        run: run.clone(),
        lease,
        length: worker.settings.lease,
        held: held.clone(),
        let_go: AtomicBool::new(false),
        answered: AtomicBool::new(false),
    });
    let result =
        carry_out(worker, &claimed, payload, loaded, &run, &held, &gate).await.map_err(|ended| redacted(&run, ended));
    let result = result.map(|details| run.redactor().fields(&details));

    let execution_time = began.elapsed();
    let mut details = result.as_ref().ok().cloned().unwrap_or_default();
    let ended = result.as_ref().err().map(Ended::failure);
    let earlier = claimed.open_intent.as_ref().is_some_and(|intent| intent.let_go && !intent.awaits_mail());
    let open = gate.is_open() || (earlier && !gate.answered.load(Ordering::SeqCst));
    let open = open && fault::guard!("verdict.open");
    let submission = if open { Submission::Open } else { Submission::Settled };
    let outcome = decide(&claimed.task, result, submission, &worker.settings.retry);
    let Some(mut outcome) = outcome.filter(|_| !run.is_revoked()) else {
        worker.metrics.steps(&claimed.task, &run.steps());
        return abandon(worker, &run, lease);
    };
    // What is committed and what is in the files is the same.
    let failure = match &outcome {
        Outcome::Dead { failure } => Some(failure.clone()),
        _ => ended,
    };
    match &failure {
        None => log_step(&run, "result_success", json!({})),
        Some(failure) => log_failure(&run, "result_failed", failure, json!({})),
    }
    worker.metrics.steps(&claimed.task, &run.steps());
    log_outcome(&claimed.task, &outcome, execution_time);
    if let Some(traces) = &worker.settings.traces {
        traces.send(AttemptSpan {
            trace_id: before.trace.trace_id(),
            span_id: before.trace.span_id(),
            traceparent: claimed.task.traceparent.clone(),
            task_id: claimed.task.id.0,
            task_type: claimed.task.task_type.clone(),
            site: claimed.task.site.clone(),
            retry_count: claimed.task.retry_count,
            worker: worker.identity.name.clone(),
            started_at: run.at(before.locked.into()),
            finished_at: run.now(),
            failure: failure.as_ref().map(|failure| (failure.reason.as_str(), failure.code.to_string())),
            steps: run.steps(),
        });
    }
    flag_missing_evidence(&run, &mut details);
    let decided = Some(decided(&outcome, &worker.identity.incarnation));
    let result = FinalResult { completed_at: run.now(), execution_time, failure, details: details.clone(), decided };
    let artifacts = finalize_run(&run, result).await;
    fault::point!("attempt.recorded");
    if run.is_revoked() {
        return abandon(worker, &run, lease);
    }
    if !artifacts.iter().any(|file| file.kind == "result")
        && let Err(error) = worker.queue.owe_record(lease).await
    {
        worker.state.outage.failed("it is not on record that a final result is due", error);
    }
    if let Outcome::Completed { result } = &mut outcome {
        flag_missing_evidence(&run, &mut details);
        *result = Value::Object(details);
    }
    let steps = held.take_backlog();
    let blocked = matches!(&outcome, Outcome::Retry { failure, .. } | Outcome::Dead { failure } if failure.reason == FailureReason::Blocked);
    let settlement = Settlement { lease, outcome, execution_time, steps, artifacts };
    if settle(worker, &claimed.task.task_type, settlement).await == Some(Settled::Fenced) {
        run.revoke();
        tracing::warn!(
            event = "lease.lost",
            task_id = lease.task_id.0,
            attempt = lease.fence.0,
            "settlement refused by the fence"
        );
    } else if blocked && worker.settings.stop_after_blocked > 0 {
        worker.stop_if_blocked(&claimed.task).await;
    }
}

/// The task is somebody else's now: nothing of this attempt is committed or written any more.
fn abandon(worker: &Worker, run: &Run, lease: Lease) {
    run.revoke();
    worker.metrics.lease_lost();
    tracing::warn!(
        event = "lease.lost",
        task_id = lease.task_id.0,
        attempt = lease.fence.0,
        "lease lost, attempt abandoned"
    );
}

/// A result says so when a part of its record could not be written.
fn flag_missing_evidence(run: &Run, details: &mut Map<String, Value>) {
    let errors = run.write_errors().0;
    if !errors.is_empty() {
        let errors = errors.iter().map(|error| json!({"part": error.kind, "errno": error.errno, "count": error.count}));
        details.insert("evidence_missing".to_owned(), errors.collect());
    }
}

/// What is about to be settled, for whoever may have to do it in our place.
fn decided(outcome: &Outcome, process: &str) -> Decided {
    let (outcome, delay) = match outcome {
        Outcome::Completed { .. } => ("completed", None),
        Outcome::Retry { delay, .. } => ("retry", Some(delay.as_secs_f64())),
        Outcome::Dead { .. } => ("dead", None),
        Outcome::Cancelled => ("cancelled", None),
        Outcome::Released { .. } => ("released", None),
    };
    Decided { outcome: outcome.to_owned(), delay_seconds: delay, process: process.to_owned() }
}

/// The site's own words go into rows and log lines as well as into files: without what the task keeps secret.
fn redacted(run: &Run, ended: Ended) -> Ended {
    let Ended::Failed(failure) = ended else { return ended };
    let clean = |text: String| run.redactor().text(&text).into_owned();
    let causes = failure.causes.into_iter().map(clean).collect();
    Ended::Failed(Failure { message: clean(failure.message), causes, ..failure })
}

/// The payload with its secrets in the clear. The task itself keeps them as they came.
fn open_payload(worker: &Worker, task: &Task) -> Result<Value, Failure> {
    worker.queue.keys().open(task.id, &task.url, &task.payload).map_err(|error| match &error {
        // Whoever starts the worker anew with the key lets the task go on.
        OpenError::NoKey { .. } => Failure::retryable(FailureReason::Unknown, "secrets.no_key", error.to_string()),
        OpenError::Unreadable { .. } => {
            Failure::terminal(FailureReason::Unknown, "secrets.unreadable", error.to_string())
        }
    })
}

async fn open_record(
    worker: &Worker,
    claimed: &Claimed,
    payload: Option<&Value>,
    before: Before,
    mut secrets: Vec<SecretString>,
) -> Run {
    let task = &claimed.task;
    let mut meta = Map::new();
    meta.insert("task_type".into(), json!(task.task_type));
    meta.insert("campaign_id".into(), json!(task.campaign_id));
    meta.insert("failures".into(), json!(task.failures));
    meta.insert("max_retries".into(), json!(task.max_retries));
    meta.insert("url".into(), json!(task.url));
    meta.insert("site".into(), json!(task.site));
    meta.insert("worker".into(), json!(worker.identity.name));
    meta.insert("attempt_id".into(), json!(claimed.fence));
    meta.insert("locked_at".into(), json!(rfc3339(claimed.locked_at)));
    meta.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    meta.insert("sandbox".into(), json!(worker.settings.sandbox));
    meta.insert("trace_id".into(), json!(before.trace.trace_id()));
    meta.insert("span_id".into(), json!(before.trace.span_id()));
    meta.insert("request_id".into(), json!(task.request_id));
    // Also of a payload that is refused: its password may be the only thing about it that is right.
    let texts = payload.into_iter().flat_map(|payload| SECRET_FIELDS.map(|field| payload.get(field)?.as_str()));
    secrets.extend(texts.flatten().map(SecretString::from));
    let start = RunStart {
        task_id: task.id,
        fence: claimed.fence,
        retry_count: task.retry_count,
        started_at: Utc::now() - before.locked.elapsed(),
        meta,
        secrets,
    };
    let run = init_run(&worker.runs, start).await;
    let worker_name = &worker.identity.name;
    log_step_at(
        &run,
        "task_started",
        run.at(before.started.into()),
        json!({"task_type": task.task_type, "worker": worker_name}),
    );
    log_step_at(&run, "locking_task", run.at(before.locking.into()), json!({}));
    log_step_at(&run, "task_locked", run.at(before.locked.into()), json!({"attempt_id": claimed.fence}));
    // The statement that locks also sets the status: both are true from its commit on.
    log_step_at(
        &run,
        "status_set_to_running",
        run.at(before.locked.into()),
        json!({"lease_expires_at": rfc3339(claimed.lease_expires_at)}),
    );
    run
}

/// Everything between the lock and the result, with its step hooks.
async fn carry_out(
    worker: &Worker,
    claimed: &Claimed,
    payload: Result<Value, Failure>,
    loaded: Result<Loaded, Failure>,
    run: &Run,
    held: &Arc<Held>,
    gate: &Arc<Gate>,
) -> Result<Map<String, Value>, Ended> {
    let task = &claimed.task;
    log_step(run, "getting_automation_class", json!({"task_type": task.task_type}));
    let (automation, payload, enrolment) = admit(worker, task, payload).await.map_err(Ended::Failed)?;
    log_step(run, "automation_class_obtained", json!({"automation": automation.task_type()}));
    let Loaded { support, pass, .. } = loaded.map_err(Ended::Failed)?;

    log_step(run, "getting_proxy", json!({"site": task.site}));
    let proxy = worker.take_proxy(&task.site).await.map_err(Ended::Failed)?;
    match &proxy {
        Some(proxy) => {
            // A proxy may repeat it in what it says, and in the pages that pass through it.
            proxy.upstream.password.iter().for_each(|password| run.hide(password.clone()));
            log_step(run, "proxy_obtained", json!({"proxy_id": proxy.id.0, "proxy": proxy.upstream.url.as_str()}))
        }
        None => log_step(run, "no_proxy_available", json!({})),
    }

    let budget = worker.left_for(task.id).await.map_err(Ended::Failed)?;
    log_step(run, "starting_automation_execution", json!({}));
    let deadline = Instant::now() + worker.settings.task_timeout;
    let upstream: Option<UpstreamProxy> = proxy.as_ref().map(|proxy| proxy.upstream.clone());
    let policy = worker.egress_policy(&enrolment).await.map_err(Ended::Failed)?;
    let user_agent = match &enrolment.manners.contact {
        Some(contact) => super::user_agent(Some(contact)),
        None => worker.settings.user_agent.clone(),
    };
    let way = Way {
        policy: policy.clone(),
        upstream: upstream.clone(),
        pass: pass.as_ref(),
        user_agent: &user_agent,
        redactor: run.redactor(),
    };
    let options = TabOptions { user_agent: Some(user_agent.clone()), proxy: upstream, policy, deadline };
    let (opening, asking) = (worker.open_tab(options), worker.check_robots(&enrolment, &task.url, way));
    // At the same time; a tab that is not wanted after all is closed when it is dropped.
    let (tab, ()) = tokio::select! {
        ended = held.stopped() => return Err(ended),
        ready = futures::future::try_join(opening, asking) => ready.map_err(Ended::Failed)?,
    };
    if let Some(pass) = pass {
        let given = tab.pass_as_tester(pass, PASS_LIMIT).await;
        given.map_err(|error| Ended::Failed(error.to_failure()))?;
    }
    log_step(run, "automation_context_entered", json!({}));
    let open_intent = claimed.open_intent.as_ref().map(|open| OpenIntent {
        intent: open.intent.clone(),
        let_go: open.let_go,
        committed_at: Some(open.committed_at),
        outcome: open.outcome.clone(),
    });
    let mut context = Context {
        task: task.clone(),
        payload,
        tab,
        run: run.clone(),
        gate: gate.clone(),
        open_intent,
        deadline,
        limits: limits(worker.settings.task_timeout),
        meter: Meter::start(worker.settings.prices.clone(), budget, proxy.is_some()),
        assistant: worker.settings.assistant.clone(),
        support,
    };

    let result = supervise(automation.as_ref(), &context, held, gate, deadline).await;
    let result = match (result, context.tab.proxy_failure()) {
        (Err((Ended::Failed(_), panicked)), Some(failure)) => Err((Ended::Failed(failure), panicked)),
        (result, _) => result,
    };
    if matches!(result, Err((Ended::LeaseLost, _))) {
        // Before anything else: what its page goes on to do is nobody's any more.
        let Context { tab, .. } = context;
        tab.close().await;
        return Err(Ended::LeaseLost);
    }
    let denials = context.tab.denials();
    let result = result.map_err(|(ended, panicked)| (because_of(ended, &denials), panicked));
    if !denials.is_empty() {
        log_step(run, "egress_denied", json!({"denied": denials}));
        worker.metrics.denied(&denials);
        worker.report_denials(task, &denials).await;
    }
    if let Err((ended, panicked)) = &result {
        let hook = if *panicked { "unhandled_exception" } else { "automation_error" };
        log_failure(run, hook, &ended.failure(), json!({}));
        if matches!(ended, Ended::Shutdown | Ended::Cancelled) {
            // Somebody waits for the end.
            context.limits.snapshot = LAST_LOOK;
        }
        // The lease can run out here as well.
        tokio::select! {
            () = context.snapshot(SnapshotKind::Error) => {}
            () = held.lease_lost() => {}
        }
    }
    context.charge_rest();
    let (bytes_sent, bytes_received) = context.tab.traffic();
    let traffic =
        |success: bool| json!({"success": success, "bytes_sent": bytes_sent, "bytes_received": bytes_received});
    match &result {
        Ok(_) => log_step(run, "automation_execution_completed", traffic(true)),
        Err((ended, _)) => log_failure(run, "automation_execution_completed", &ended.failure(), traffic(false)),
    }
    let result = match &proxy {
        Some(proxy) => worker.return_proxy(proxy, &task.site, result).await,
        None => result,
    };
    save_page_log(run, context.tab.log());
    let Context { tab, .. } = context;
    // Nobody waits for the disposal; what hangs is killed with the browser.
    tokio::spawn(tab.close());
    result.map_err(|(ended, _)| ended)
}

/// A page that was kept from where it led may well lack what was looked for.
fn because_of(ended: Ended, denials: &[Denial]) -> Ended {
    let Ended::Failed(mut failure) = ended else { return ended };
    let led_away = |denial: &&Denial| denial.kind == DenialKind::NotEnrolled;
    if !failure.code.starts_with("policy.")
        && let Some(denial) = denials.iter().find(led_away)
    {
        failure.causes.push(denial.to_string());
    }
    Ended::Failed(failure)
}

/// The usual limits, none of them so long that one slow step takes all the time of the task.
fn limits(task_timeout: Duration) -> StepLimits {
    let usual = StepLimits::default();
    let part = task_timeout / 2;
    StepLimits {
        navigation: usual.navigation.min(part),
        look: usual.look.min(part),
        action: usual.action.min(part),
        submit: usual.submit.min(part),
        ..usual
    }
}

/// Checks what can be checked before Chrome is asked for anything: again, because the row may have been written by hand.
async fn admit(
    worker: &Worker,
    task: &Task,
    payload: Result<Value, Failure>,
) -> Result<(Arc<dyn Automation>, Payload, Enrolment), Failure> {
    let refuse = |code: &'static str, message: String| Failure::terminal(FailureReason::Unknown, code, message);
    let automation = worker.registry.get(&task.task_type).ok_or_else(|| {
        let known = worker.registry.task_types().join(", ");
        refuse("input.unknown_task_type", format!("task type `{}` is unknown; known are {known}", task.task_type))
    })?;
    let url = check_url(&task.url).map_err(|problem| refuse("policy.url_denied", format!("url: {problem}")))?;
    let payload = Payload::parse(&task.task_type, &payload?).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        refuse("input.invalid_payload", errors.join("; "))
    })?;
    let origin = Origin::of(&url).map_err(|problem| refuse("policy.url_denied", format!("url: {problem}")))?;
    let enrolment = check_enrolment(&worker.queue, &origin).await?;
    if enrolment.origin.is_wildcard() && task.site != enrolment.origin.as_str() {
        // The gate and the limits go by the task's site.
        let message = format!(
            "the task was added for {}, which is not enrolled any more, though {} is; add it anew",
            task.site, enrolment.origin
        );
        return Err(refuse("policy.not_enrolled", message));
    }
    enrolment.check_task_type(&task.task_type).map_err(|problem| refuse("policy.task_type", problem))?;
    Ok((automation, payload, enrolment))
}

/// Runs the automation until it ends, panics, runs out of time or has to stop; says whether it panicked.
async fn supervise(
    automation: &dyn Automation,
    context: &Context,
    held: &Held,
    gate: &Gate,
    deadline: Instant,
) -> Result<Map<String, Value>, (Ended, bool)> {
    let running = AssertUnwindSafe(timeout_at(deadline, automation.run(context))).catch_unwind();
    let mut running = std::pin::pin!(running);
    let done = tokio::select! {
        done = &mut running => done,
        ended = held.stopped() => {
            let submitted = gate.let_go.load(Ordering::SeqCst) && !matches!(ended, Ended::LeaseLost);
            match submitted {
                // What has left can't be called back: a short while to learn what came of it.
                true => match timeout(SUBMIT_GRACE, running).await {
                    Ok(done) => done,
                    Err(_) => return Err((ended, false)),
                },
                false => return Err((ended, false)),
            }
        }
    };
    match done {
        Ok(Ok(Ok(success))) => Ok(success.details),
        // Only the gate says so; by then the heartbeat has stopped the record as well.
        Ok(Ok(Err(failure))) if failure.code == "infra.lease_lost" => Err((Ended::LeaseLost, false)),
        Ok(Ok(Err(failure))) => Err((Ended::Failed(failure), false)),
        Ok(Err(_)) => {
            let message = "the time for the task was over before it was done";
            Err((Ended::Failed(Failure::retryable(FailureReason::Timeout, "task.timeout", message)), false))
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            let message = format!("the automation panicked: {text}");
            Err((Ended::Failed(Failure::retryable(FailureReason::Unknown, "infra.panic", message)), true))
        }
    }
}

/// A failure is logged here, once.
fn log_outcome(task: &Task, outcome: &Outcome, took: Duration) {
    let (task_id, retry_count) = (task.id.0, task.retry_count);
    let duration_ms = took.as_millis() as u64;
    let failed = |event: &str, failure: &Failure, message: &str| {
        tracing::warn!(
            event,
            task_id,
            retry_count,
            duration_ms,
            task_type = task.task_type,
            site = task.site,
            failure_reason = failure.reason.as_str(),
            failure_code = &*failure.code,
            retryable = failure.retryable,
            err.msg = failure.message,
            err.chain = json!(failure.causes).to_string(),
            "{message}"
        );
    };
    match outcome {
        Outcome::Completed { .. } => {
            tracing::info!(
                event = "task.completed",
                task_id,
                retry_count,
                duration_ms,
                task_type = task.task_type,
                site = task.site,
                "task completed"
            );
        }
        Outcome::Retry { failure, .. } => failed("task.retry_scheduled", failure, "attempt failed, retry scheduled"),
        Outcome::Dead { failure } => failed("task.dead_lettered", failure, "task failed"),
        Outcome::Released { failure } => failed("task.released", failure, "task given back"),
        Outcome::Cancelled => {
            tracing::info!(event = "task.cancelled", task_id, retry_count, duration_ms, "task cancelled");
        }
    }
}
