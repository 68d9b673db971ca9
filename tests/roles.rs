//! The roles of `pagehand migrate --roles`: enough for what each process does, and nothing beyond.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::time::Duration;

use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::{NewProxy, Outcome, Queue, RunFilter, Settled, Settlement};
use pagehand::record::{ArtifactRecord, StepRecord};
use pagehand::web::{self, WebSettings};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use tokio_util::sync::CancellationToken;

use database::TestDb;
use http_client::send;
use tasks::{LEASE, SITE, enqueue, site, worker};

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/tasks.rs"]
mod tasks;

const JSON: (&str, &str) = ("content-type", "application/json");

struct Roles {
    db: TestDb,
    owner: Queue,
}

impl Roles {
    async fn new() -> Roles {
        let db = TestDb::new().await;
        let owner = db.queue().await;
        owner.grant_roles().await.unwrap();
        owner.add_site(&site(SITE, Some(5), Some(100))).await.unwrap();
        let proxy = NewProxy {
            url: "http://proxy.example:3128/".to_owned(),
            username: Some("ann".to_owned()),
            password_ref: Some("env:PROXY_PASSWORD".to_owned()),
            site: None,
        };
        owner.add_proxy(&proxy).await.unwrap();
        Roles { db, owner }
    }

    /// Everything that this connects to has the rights of `role`, from its first statement on.
    fn url(&self, role: &str) -> String {
        format!("{}&options[role]={role}", self.db.url)
    }

    async fn queue(&self, role: &str) -> Queue {
        Queue::connect(&self.url(role), 4).await.unwrap()
    }

    /// Holds that `role` may do none of these.
    async fn refuses(&self, role: &str, statements: &[&str]) {
        let pool = PgPool::connect(&self.url(role)).await.unwrap();
        let me: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&pool).await.unwrap();
        assert_eq!(me, role);
        for statement in statements {
            let refused = sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&pool).await;
            let code = refused.err().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()));
            assert_eq!(code.as_deref(), Some("42501"), "{role} may not: {statement}");
        }
        pool.close().await;
    }
}

/// What neither may do to schema, server and files.
const NOBODY_MAY: [&str; 12] = [
    "DROP TABLE tasks",
    "ALTER TABLE tasks ADD COLUMN mine text",
    "ALTER TABLE attempts DISABLE TRIGGER ALL",
    "CREATE TABLE mine (id int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION shown_payload(p_task bigint) RETURNS text LANGUAGE sql AS 'SELECT ''x'''",
    "TRUNCATE tasks",
    "DELETE FROM tasks",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY tasks (id) TO '/tmp/tasks'",
    "UPDATE audit SET who = 'nobody'",
    "UPDATE _sqlx_migrations SET success = false",
];

#[tokio::test]
async fn a_worker_does_all_of_its_work_and_nothing_beyond_it() {
    let roles = Roles::new().await;
    enqueue(&roles.owner, 3).await;
    let queue = roles.queue("pagehand_worker").await;
    queue.check_schema().await.unwrap();
    let me = worker("w");
    let _present = queue.be_present(&me).await.unwrap();
    queue.reap_previous_life(&me).await.unwrap();
    let claimed = queue.claim(&me, 2, LEASE).await.unwrap();
    assert_eq!(claimed.len(), 2);
    let lease = claimed[0].lease();
    queue.renew(&[lease], LEASE).await.unwrap();
    queue.enrolment(SITE).await.unwrap().unwrap();
    let proxy = queue.take_proxy(SITE).await.unwrap().unwrap();
    queue.proxy_failed(proxy.id, "dead").await.unwrap();
    queue.proxy_worked(proxy.id).await.unwrap();
    let step = StepRecord {
        seq: 1,
        name: "look".to_owned(),
        ok: true,
        started_at: claimed[0].locked_at,
        finished_at: claimed[0].locked_at,
        duration: Duration::ZERO,
        tokens: 1,
        cost_usd: 0.1,
        error: None,
        meta: json!({}),
    };
    queue.record_steps(lease, std::slice::from_ref(&step)).await.unwrap();
    queue.commit_intent(lease, &json!({"kind": "comment"}), LEASE).await.unwrap();
    queue.mark_let_go(lease).await.unwrap();
    queue.record_submit_outcome(lease, &json!({})).await.unwrap();
    let settlement = Settlement {
        lease,
        outcome: Outcome::Completed { result: json!({}) },
        execution_time: Duration::from_secs(1),
        steps: vec![StepRecord { seq: 2, ..step }],
        artifacts: vec![ArtifactRecord { name: "init.json".to_owned(), kind: "init", bytes: 2 }],
    };
    assert_eq!(queue.settle(&[settlement]).await.unwrap(), [Settled::Done]);
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 s' WHERE status = 'running'")
        .execute(&roles.db.pool)
        .await
        .unwrap();
    assert_eq!(queue.reap(10).await.unwrap().len(), 1);
    assert_eq!(queue.live().await.unwrap().pending, 2);
    queue.note("w", "test", "1", &json!({})).await.unwrap();

    roles.refuses("pagehand_worker", &NOBODY_MAY).await;
    let own = [
        "INSERT INTO sites (origin, authorized_by) VALUES ('https://evil.example', 'me')",
        "UPDATE sites SET authorized_until = NULL",
        "UPDATE sites SET allow_private = true",
        "UPDATE sites SET max_concurrency = NULL",
        "DELETE FROM audit",
        "DELETE FROM attempts",
        "DELETE FROM proxies",
    ];
    roles.refuses("pagehand_worker", &own).await;
}

#[tokio::test]
async fn the_web_server_shows_and_changes_runs_and_reads_no_payload_and_no_proxy() {
    let roles = Roles::new().await;
    let queue = roles.queue("pagehand_web").await;
    queue.check_schema().await.unwrap();
    let runs = tempfile::tempdir().unwrap();
    let settings = WebSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: Vec::new(),
        tokens: Vec::new(),
        default_max_retries: 0,
    };
    let server = web::Server::bind(settings, queue.clone(), runs.path().to_owned()).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    tokio::spawn(server.run(stop.clone()));
    let _stop = stop.drop_guard();

    let task = json!({"task_type": "registration", "url": format!("{SITE}/join"),
                      "payload": {"username": "ann", "email": "ann@example.org", "password": "hunter2hunter2"}});
    for key in ["a", "b"] {
        let added = send(address, "POST", "/runs", &[JSON, ("idempotency-key", key)], &task.to_string()).await;
        assert_eq!(added.status, 201, "{}", added.text());
    }
    let claimed = roles.owner.claim(&worker("w"), 1, LEASE).await.unwrap();
    let failure = Failure::terminal(FailureReason::Timeout, "nav.timeout", "too slow");
    roles.owner.settle(&[tasks::settlement(claimed[0].lease(), Outcome::Dead { failure })]).await.unwrap();
    let id = claimed[0].task.id.0;

    for (method, pattern) in web::routes() {
        if method != "GET" || pattern == "/events" {
            continue;
        }
        let path = pattern.replace("{id}", &id.to_string()).replace("{name}", "init.json").replace("{n}", "0");
        let answer = send(address, "GET", &path, &[], "").await;
        assert!(answer.status.as_u16() < 500, "{path}: {}", answer.text());
    }
    let shown = send(address, "GET", &format!("/runs/{id}"), &[], "").await;
    assert_eq!(shown.json()["payload"]["username"], "ann");
    assert_eq!(shown.json()["payload"]["password"], "***");
    for (path, body) in
        [(format!("/runs/{id}/retry"), "{}"), (format!("/runs/{id}/cancel"), "{}"), ("/runs/retry".to_owned(), "{}")]
    {
        let answer = send(address, "POST", &path, &[JSON], body).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(queue.runs(&RunFilter::default(), None, 10).await.unwrap().runs.len(), 2);
    let search = RunFilter { q: Some("/join".to_owned()), ..RunFilter::default() };
    assert_eq!(queue.runs(&search, None, 10).await.unwrap().runs.len(), 2);

    roles.refuses("pagehand_web", &NOBODY_MAY).await;
    let own = [
        "SELECT payload FROM tasks",
        "SELECT * FROM tasks",
        "SELECT t FROM tasks t",
        "SELECT password_ref FROM proxies",
        "SELECT url FROM proxies",
        "UPDATE tasks SET payload = '{}'",
        "UPDATE tasks SET url = 'https://evil.example/'",
        "UPDATE tasks SET lease_expires_at = now()",
        "UPDATE attempts SET intent_waived_at = now()",
        "UPDATE sites SET authorized_until = NULL",
        "INSERT INTO sites (origin, authorized_by) VALUES ('https://evil.example', 'me')",
        "INSERT INTO steps (attempt_id, seq, task_id, retry_count, name, ok, started_at, finished_at, duration_ms) VALUES (1, 9, 1, 0, 'x', true, now(), now(), 0)",
        "SELECT * FROM claim_tasks('w', 'w', 1, 60, '', 1)",
        "SELECT * FROM settle_attempts('[{\"task_id\":1,\"fence\":1}]', NULL, NULL)",
    ];
    roles.refuses("pagehand_web", &own).await;
}
