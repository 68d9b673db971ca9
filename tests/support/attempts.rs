//! Carries one attempt out on real Chrome, with everything around it that a worker would give it.

#![allow(dead_code, reason = "not every test file uses everything")]

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use pagehand::automation::{Context, GateKeeper, Meter, OpenIntent, Registry, StepLimits, Success, Support};
use pagehand::browser::{BrowserPool, BrowserSettings, TabOptions};
use pagehand::failure::{Failure, FailureReason};
use pagehand::task::{Fence, Payload, Task, TaskId};
use pagehand::telemetry::{RunStart, RunsDir, init_run};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What the comments say.
pub const BODY: &str = "It's a \"good\" loaf & I like it –\nsecond line, ünïcödé 😀";

#[derive(Default)]
struct Keeper {
    calls: Mutex<Vec<&'static str>>,
    lease_lost: bool,
}

impl GateKeeper for Keeper {
    fn commit<'a>(&'a self, _: Value) -> BoxFuture<'a, Result<(), Failure>> {
        self.calls.lock().unwrap().push("commit");
        let lost = Failure::terminal(FailureReason::Unknown, "infra.lease_lost", "the lease is lost");
        Box::pin(async move { if self.lease_lost { Err(lost) } else { Ok(()) } })
    }
    fn let_go<'a>(&'a self) -> BoxFuture<'a, Result<(), Failure>> {
        self.calls.lock().unwrap().push("let_go");
        Box::pin(async { Ok(()) })
    }
    fn outcome<'a>(&'a self, _: Value) -> BoxFuture<'a, ()> {
        self.calls.lock().unwrap().push("outcome");
        Box::pin(async {})
    }
}

/// What a test changes of an ordinary attempt.
#[derive(Default)]
pub struct Attempt {
    pub lease_lost: bool,
    pub open_intent: Option<OpenIntent>,
    /// Over the ordinary payload of the task type.
    pub payload: Option<Value>,
    /// In place of [`limits`].
    pub limits: Option<StepLimits>,
}

/// How an attempt ended.
pub struct Ended {
    pub result: Result<Success, Failure>,
    pub calls: Vec<&'static str>,
    pub steps: Vec<String>,
    /// Address of the page it ended on.
    pub url: String,
}

impl Ended {
    pub fn outcome(&self) -> String {
        let success = self.result.as_ref().unwrap_or_else(|failure| panic!("{failure:?}; steps {:?}", self.steps));
        success.details["outcome"].as_str().unwrap().to_owned()
    }

    pub fn failure(&self) -> (FailureReason, String) {
        let failure = self.result.as_ref().unwrap_err();
        (failure.reason, failure.code.to_string())
    }

    pub fn message(&self) -> String {
        self.result.as_ref().unwrap_err().message.clone()
    }
}

/// A browser for attempts, with a directory of its own.
pub struct Browser {
    pool: BrowserPool,
    state: tempfile::TempDir,
}

/// Limits that fit pages of this machine.
pub fn limits() -> StepLimits {
    StepLimits {
        appear: Duration::from_secs(4),
        answer: Duration::from_secs(3),
        submit: Duration::from_secs(8),
        least_before_submit_stamped: Duration::from_secs(2),
        ..StepLimits::default()
    }
}

/// The payload of a task type.
pub fn payload(task_type: &str) -> Value {
    match task_type {
        "comment" => {
            json!({"author": "Ann Probe", "email": "ann@example.org", "website": "https://ann.example/", "body": BODY})
        }
        _ => {
            json!({"username": "ann77", "email": "ann@example.org", "password": "S3cret pass+word!", "first_name": "Ann", "last_name": "Probe"})
        }
    }
}

impl Browser {
    pub fn start() -> Browser {
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = BrowserSettings { state_dir: state.path().join("chrome"), ..BrowserSettings::default() };
        Browser { pool: BrowserPool::new(settings), state }
    }

    /// Carries out one attempt in a browsing context of its own.
    pub async fn attempt(&self, task_type: &str, url: &str, change: Attempt) -> Ended {
        let mut value = payload(task_type);
        for (key, other) in change.payload.iter().filter_map(Value::as_object).flatten() {
            value[key] = other.clone();
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        let policy = crate::policy::of(&[url]);
        let tab = self.pool.open(TabOptions { user_agent: None, proxy: None, policy, deadline }).await.unwrap();
        let directory = tempfile::tempdir_in(self.state.path()).unwrap();
        let runs = RunsDir::open(directory.path()).unwrap();
        let start = RunStart {
            task_id: TaskId(1),
            fence: Fence(1),
            retry_count: 0,
            started_at: chrono::Utc::now(),
            meta: Default::default(),
            secrets: vec![],
        };
        let run = init_run(&runs, start).await;
        let task = Task {
            id: TaskId(1),
            task_type: task_type.to_owned(),
            url: url.to_owned(),
            site: url::Url::parse(url).unwrap().origin().ascii_serialization(),
            campaign_id: None,
            payload: value.clone(),
            retry_count: 0,
            max_retries: 3,
            failures: 0,
            priority: 0,
            created_at: chrono::Utc::now(),
            traceparent: None,
            request_id: None,
        };
        let keeper = Arc::new(Keeper { lease_lost: change.lease_lost, ..Keeper::default() });
        let ctx = Context {
            payload: Payload::parse(task_type, &value).unwrap(),
            task,
            tab,
            run: run.clone(),
            gate: keeper.clone(),
            open_intent: change.open_intent,
            deadline,
            limits: change.limits.unwrap_or_else(limits),
            meter: Meter::start(Arc::default(), None, false),
            assistant: None,
            support: Support::default(),
        };
        let automation = Registry::standard().get(task_type).unwrap();
        let result = automation.run(&ctx).await;
        let steps = run.take_steps().into_iter().map(|step| step.name).collect();
        let url = ctx.tab.title_and_url().await.map(|(_, url)| url).unwrap_or_default();
        ctx.tab.close().await;
        let calls = keeper.calls.lock().unwrap().clone();
        Ended { result, calls, steps, url }
    }

    pub async fn close(self) {
        self.pool.shutdown().await;
    }
}
