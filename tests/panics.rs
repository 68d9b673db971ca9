//! An automation that panics costs its own attempt and nothing else: it is on record, retried, and the worker goes on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use pagehand::automation::comment::Comment;
use pagehand::automation::{Automation, Context, Registry, Success};
use pagehand::browser::{BrowserPool, BrowserSettings};
use pagehand::commands;
use pagehand::config::Config;
use pagehand::demo::{CANONICAL_ARTICLE, DemoSite};
use pagehand::failure::Failure;
use pagehand::retry::RetryPolicy;
use pagehand::task::{NewTask, Payload};
use pagehand::telemetry::RunsDir;
use pagehand::worker::{Settings, Stop, Until, Worker};
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/tasks.rs"]
mod tasks;

use database::TestDb;

/// Comments as usual, but for the first attempt of the task whose author is `Panic`, which panics on its page.
struct Faulty;

impl Automation for Faulty {
    fn task_type(&self) -> &'static str {
        "comment"
    }

    fn run<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<Success, Failure>> {
        Box::pin(async move {
            let chosen = matches!(&ctx.payload, Payload::Comment(comment) if comment.author == "Panic");
            if ctx.task.retry_count == 0 && chosen {
                ctx.tab.goto(&ctx.task.url, Duration::from_secs(20)).await.unwrap();
                panic!("a fault of the automation");
            }
            Comment.run(ctx).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_automation_that_panics_is_on_record_and_retried_and_the_worker_goes_on() {
    let (db, site) = (TestDb::new().await, DemoSite::start().unwrap());
    let queue = db.queue().await;
    queue.add_site(&tasks::site(&site.origin(), None, None)).await.unwrap();
    let task = |author: &str| {
        let payload =
            json!({"author": author, "email": format!("{author}@example.org"), "body": format!("{author} was here")});
        let url = format!("{}{CANONICAL_ARTICLE}", site.origin());
        NewTask::from_value(&json!({"task_type": "comment", "url": url, "payload": payload})).unwrap()
    };
    let ids = tasks::add(&queue, &[task("Panic"), task("Calm")]).await;

    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let browsers = BrowserPool::new(BrowserSettings { state_dir: dir.path().join("chrome"), ..Default::default() });
    let mut registry = Registry::standard();
    registry.register(Arc::new(Faulty));
    let usual = commands::worker::settings(&Config::default(), Some(2));
    let retry = RetryPolicy { initial: Duration::from_millis(100), ..usual.retry };
    let settings = Settings { retry, ..usual };
    let runs = RunsDir::open(&dir.path().join("runs")).unwrap();
    let worker = Worker::new(queue, tasks::worker("w"), runs, browsers.clone(), registry, settings);
    let made = Arc::new(worker).run(Until::Drained, Stop::default()).await;
    let ended = sqlx::query_as::<_, (i64, String, Option<String>, Option<String>)>(
        "SELECT task_id, status::text, failure_code, error FROM attempts ORDER BY id",
    );
    assert_eq!(made, 3, "{:?}", ended.fetch_all(&db.pool).await);
    browsers.shutdown().await;

    let run = |id: usize| dir.path().join("runs").join(ids[id].to_string());
    let json = |id: usize, name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(run(id).join(name)).unwrap()).unwrap()
    };
    let failed = json(0, "attempts/0/final_result.json");
    let (result, artifacts) = (&failed["result"], &failed["artifacts"]);
    assert_eq!((&result["failure_reason"], &result["failure_code"]), (&json!("unknown"), &json!("infra.panic")));
    assert!(result["error"].as_str().unwrap().contains("a fault of the automation"), "{result}");
    assert!(artifacts["screenshot"]["name"].as_str().unwrap().starts_with("error_"), "{artifacts}");
    let steps = std::fs::read_to_string(run(0).join("steps.jsonl")).unwrap();
    let steps: Vec<Value> = steps.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entered = steps.iter().position(|step| step["step"] == "automation_context_entered").unwrap();
    let names: Vec<&str> = steps[entered + 1..].iter().map(|step| step["step"].as_str().unwrap()).collect();
    let hooks: Vec<&str> = names.into_iter().filter(|name| *name != "usage_charged").take(3).collect();
    assert_eq!(hooks, ["unhandled_exception", "automation_execution_completed", "result_failed"]);

    assert_eq!((json(0, "final_result.json")["result"]["retry_count"].as_u64()), Some(1));
    assert_eq!((json(1, "final_result.json")["result"]["retry_count"].as_u64()), Some(0));
    let mut authors: Vec<String> = site.ledger().comments().into_iter().map(|comment| comment.author).collect();
    authors.sort();
    assert_eq!(authors, ["Calm", "Panic"]);
}
