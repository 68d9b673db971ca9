//! A web server with a database and a directory of runs of its own, and what tests of it do again and again.
#![allow(dead_code, reason = "not every test file uses everything")]

use std::net::SocketAddr;
use std::time::Duration;

use chrono::TimeDelta;
use pagehand::config::Role;
use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::{Outcome, Queue, Settlement, WorkerIdentity};
use pagehand::record::{ArtifactRecord, StepRecord};
use pagehand::site::NewEnrolment;
use pagehand::task::{NewTask, TaskId};
use pagehand::web::{self, AccessToken, WebSettings};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::database::TestDb;
use crate::http_client::{Answer, send};

pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
pub const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");
pub const OPERATE: (&str, &str) = ("authorization", "Bearer operate-token-0001");
pub const READ: (&str, &str) = ("authorization", "Bearer read-token-0000001");
pub const HOSTILE: &str = "\"><img src=x onerror=alert(1)></script><script>alert(2)</script>";

/// A server on a free port, with a database and a directory of runs of its own.
pub struct TestApp {
    pub address: SocketAddr,
    pub queue: Queue,
    pub runs: tempfile::TempDir,
    pub db: TestDb,
    _stop: DropGuard,
}

impl TestApp {
    pub async fn open() -> TestApp {
        TestApp::start(Vec::new()).await
    }

    pub async fn with_tokens() -> TestApp {
        let token = |name: &str, role, secret: (&str, &str)| AccessToken {
            name: name.to_owned(),
            role,
            secret: secret.1.trim_start_matches("Bearer ").to_owned().into(),
        };
        TestApp::start(vec![token("ops", Role::Operate, OPERATE), token("eye", Role::Read, READ)]).await
    }

    pub async fn start(tokens: Vec<AccessToken>) -> TestApp {
        let db = TestDb::new().await;
        let queue = db.queue().await;
        let runs = tempfile::tempdir().unwrap();
        let site = NewEnrolment::new("https://example.org".parse().unwrap(), "Ann");
        queue.add_site(&site).await.unwrap();
        let server = web::Server::bind(settings("127.0.0.1:0", tokens), queue.clone(), runs.path().to_owned()).await;
        let server = server.unwrap();
        let address = server.address();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        TestApp { address, queue, runs, db, _stop: stop.drop_guard() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.address, "GET", path, &[], "").await
    }

    pub async fn page(&self, path: &str) -> Answer {
        send(self.address, "GET", path, &[HTML], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.address, "POST", path, &[JSON], &body.to_string()).await
    }

    pub async fn enqueue(&self, n: usize) -> Vec<i64> {
        let tasks: Vec<NewTask> = (0..n).map(|n| NewTask::from_value(&comment(&format!("p{n}"))).unwrap()).collect();
        self.queue.enqueue(&tasks, 0).await.unwrap().into_iter().map(|added| added.id.0).collect()
    }

    /// Works off what is ready, each task to a dead letter with this failure and one failed step.
    pub async fn fail_all(&self, failure: &Failure) {
        let worker = WorkerIdentity { name: format!("worker {HOSTILE}"), incarnation: "test".to_owned() };
        loop {
            let claimed = self.queue.claim(&worker, 50, Duration::from_secs(60)).await.unwrap();
            if claimed.is_empty() {
                return;
            }
            for task in claimed {
                let step = StepRecord {
                    seq: 1,
                    name: "submit".to_owned(),
                    ok: false,
                    started_at: task.locked_at,
                    finished_at: task.locked_at + TimeDelta::seconds(2),
                    duration: Duration::from_secs(2),
                    tokens: 10,
                    cost_usd: 0.5,
                    error: Some(failure.message.clone()),
                    meta: json!({"selector": HOSTILE, "password": "step-secret"}),
                };
                let artifact = ArtifactRecord { name: "init.json".to_owned(), kind: "init", bytes: 2 };
                let settlement = Settlement {
                    lease: task.lease(),
                    outcome: Outcome::Dead { failure: failure.clone() },
                    execution_time: Duration::from_secs(2),
                    steps: vec![step],
                    artifacts: vec![artifact],
                };
                self.queue.settle(&[settlement]).await.unwrap();
            }
        }
    }

    pub async fn failed(&self, n: usize) -> Vec<i64> {
        let ids = self.enqueue(n).await;
        self.fail_all(&timeout()).await;
        ids
    }

    pub async fn status(&self, id: i64) -> String {
        self.queue.run(TaskId(id)).await.unwrap().run.status
    }

    pub fn write(&self, id: i64, name: &str, content: &str) {
        let directory = self.runs.path().join(id.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), content).unwrap();
    }

    /// `n` dead letters in as many groups of `sites`, made by SQL; triggers included.
    pub async fn dead_letters(&self, n: i64, sites: i64) {
        sqlx::query(
            "INSERT INTO tasks (task_type, url, site, payload, status, created_at, finished_at, failure_reason, failure_code,
                                last_error)
             SELECT 'comment', 'https://s' || k % $2 || '.example/' || k, 'https://s' || k % $2 || '.example', '{}', 'failed',
                    now() - interval '1 hour' * (k % 300), now() - interval '1 hour' * (k % 300), 'timeout', 'nav.timeout',
                    repeat('the page did not answer ', 10)
             FROM generate_series(1, $1) k",
        )
        .bind(n)
        .bind(sites)
        .execute(&self.db.pool)
        .await
        .unwrap();
    }
}

pub fn settings(listen: &str, tokens: Vec<AccessToken>) -> WebSettings {
    WebSettings { listen: listen.parse().unwrap(), hosts: Vec::new(), tokens, default_max_retries: 3 }
}

pub fn timeout() -> Failure {
    Failure::terminal(FailureReason::Timeout, "nav.timeout", format!("the page did not answer {HOSTILE}"))
}

pub fn comment(path: &str) -> Value {
    json!({"task_type": "comment", "url": format!("https://example.org/{path}"),
           "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}})
}

/// A path that a route's pattern matches.
pub fn example(pattern: &str) -> String {
    pattern.replace("{id}", "1").replace("{name}", "init.json").replace("{n}", "0")
}

/// The hidden fields of the form that posts to `action`, as its button would send them.
pub fn fields(page: &str, action: &str) -> String {
    let form = page.split_once(&format!("action=\"{action}\"")).expect("such a form").1;
    let form = form.split("</form>").next().unwrap();
    let attribute = |tag: &str, name: &str| {
        tag.split_once(&format!("{name}=\"")).map(|(_, rest)| rest.split('"').next().unwrap().to_owned())
    };
    let inputs = form.split("<input ").skip(1).map(|rest| rest.split('>').next().unwrap());
    let pairs = inputs.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}
