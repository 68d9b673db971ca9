//! Workers as processes, on real Postgres and real Chrome, against the demo site; its ledger says what was submitted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use pagehand::demo::{CANONICAL_ARTICLE, DemoSite};
use pagehand::queue::WorkerIdentity;
use rustix::process::Signal;
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/program.rs"]
mod program;

use program::{PATIENCE, Program, signal, still_alive, until};

/// A page that never answers.
const SILENT: &str = "/articles/quiet-coach";

fn comment(site: &DemoSite, path: &str, n: usize) -> Value {
    json!({"task_type": "comment", "url": format!("{}{path}", site.origin()),
           "payload": {"author": format!("Reader {n}"), "email": format!("reader{n}@example.org"),
                       "body": format!("Comment number {n}: what a fine piece, thank you. Grüße 😀 {}", n * 7919)}})
}

async fn set_up() -> (Program, DemoSite) {
    let (program, site) = (Program::new().await, DemoSite::start().unwrap());
    program.enrol(&site.origin()).await;
    (program, site)
}

async fn ended(child: &mut tokio::process::Child) -> ExitStatus {
    tokio::time::timeout(PATIENCE, child.wait()).await.expect("the worker ends").unwrap()
}

/// What must be there of a run that completed, whatever happened on the way.
fn assert_whole_record(program: &Program, id: i64) {
    let dir = program.runs().join(id.to_string());
    let result = program.file(id, "final_result.json");
    assert_eq!(result["task_id"], id);
    let ended = (&result["result"]["success"], &result["result"]["failure_reason"]);
    assert_eq!(ended, (&json!(true), &Value::Null), "{result}");
    assert!(result["execution_time"].as_f64().unwrap() > 0.0);
    assert_eq!(program.file(id, "init.json")["task_id"], id);
    let names: Vec<String> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for (start, end) in [
        ("initial_dom_", ".html"),
        ("initial_screenshot_", ".png"),
        ("final_dom_", ".html"),
        ("final_screenshot_", ".png"),
    ] {
        assert!(
            names.iter().any(|name| name.starts_with(start) && name.ends_with(end)),
            "{id}: no {start}…{end} in {names:?}"
        );
    }
    for name in ["dom_snapshot.html", "screenshot.png", "report.html"] {
        assert!(names.iter().any(|found| found == name), "{id}: no {name}");
    }
    assert!(!names.iter().any(|name| name.contains("tmp")), "{id}: left over: {names:?}");
    let png = std::fs::read(dir.join("screenshot.png")).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
}

/// The hooks of one attempt in the order of the contract, the automation's own steps left out.
const HOOKS: [&str; 13] = [
    "task_started",
    "locking_task",
    "task_locked",
    "status_set_to_running",
    "getting_automation_class",
    "automation_class_obtained",
    "getting_proxy",
    "no_proxy_available",
    "starting_automation_execution",
    "automation_context_entered",
    "automation_error",
    "automation_execution_completed",
    "result_failed",
];

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_do_each_of_many_tasks_once_and_record_each() {
    let (program, site) = set_up().await;
    let program = program.with("PAGEHAND_WORKER__CONCURRENCY", "2");
    let lines: Vec<Value> = (0..24).map(|n| comment(&site, CANONICAL_ARTICLE, n)).collect();
    let ids = program.enqueue(&lines).await;
    let mut workers: Vec<_> = (0..4).map(|_| program.worker(&["--drain"])).collect();
    for worker in &mut workers {
        assert!(ended(worker).await.success(), "{}", program.log());
    }
    let comments = site.ledger().comments();
    let emails: BTreeSet<&str> = comments.iter().map(|comment| comment.email.as_str()).collect();
    assert_eq!((comments.len(), emails.len()), (24, 24));
    for id in ids {
        assert_whole_record(&program, id);
        let steps = program.steps(id);
        let hooks: Vec<&str> = steps.iter().map(String::as_str).filter(|step| HOOKS.contains(step)).collect();
        let expected: Vec<&str> =
            HOOKS.into_iter().filter(|hook| !["automation_error", "result_failed"].contains(hook)).collect();
        assert_eq!(hooks, expected);
        assert_eq!(steps.last().unwrap(), "result_success");
        let shown = program.show(id).await;
        assert_eq!((&shown["status"], &shown["retry_count"]), (&json!("completed"), &json!(0)));
        assert_eq!(shown["attempts"][0]["steps"].as_array().unwrap().len(), steps.len());
    }
    assert!(program.chromes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_task_has_its_hooks_its_error_snapshot_and_its_reason() {
    let (program, site) = set_up().await;
    let closed = program.enqueue(&[comment(&site, "/articles/closed-season", 1)]).await[0];
    program.drain().await;
    let hooks: Vec<String> = program.steps(closed).into_iter().filter(|step| HOOKS.contains(&step.as_str())).collect();
    assert_eq!(hooks, HOOKS);
    let result = program.file(closed, "final_result.json");
    assert_eq!(result["result"]["failure_reason"], "comment_form_not_found");
    assert_eq!(result["result"]["success"], false);
    let names = std::fs::read_dir(program.runs().join(closed.to_string())).unwrap();
    let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("error_screenshot_")), "{names:?}");
    let shown = program.show(closed).await;
    assert_eq!((&shown["status"], &shown["failure_reason"]), (&json!("failed"), &json!("comment_form_not_found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_passes_is_retried_and_every_attempt_is_kept() {
    let (program, site) = set_up().await;
    let id = program.enqueue(&[comment(&site, "/articles/spring-tide", 1)]).await[0];
    program.drain().await;
    assert_whole_record(&program, id);
    assert_eq!(program.file(id, "init.json")["meta"]["retry_count"], 2);
    for earlier in 0..2 {
        let result = program.file(id, &format!("attempts/{earlier}/final_result.json"));
        assert_eq!(result["result"]["failure_code"], "http.503");
        assert_eq!(result["result"]["retry_count"], earlier);
    }
    let shown = program.show(id).await;
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(site.ledger().comments().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_task_is_finished_by_another_and_both_attempts_are_on_record() {
    let (program, site) = set_up().await;
    let program = program.short_lease();
    let ids = program.enqueue(&(0..6).map(|n| comment(&site, CANONICAL_ARTICLE, n)).collect::<Vec<_>>()).await;
    let mut first = program.worker(&["--concurrency", "2"]);
    until("an attempt is under way", async || {
        ids.iter().any(|id| program.steps(*id).contains(&"automation_context_entered".to_owned()))
    })
    .await;
    let chromes = program.chromes();
    assert!(chromes.iter().any(|(_, line)| line.contains("--type=renderer")), "{chromes:?}");
    signal(&first, Signal::KILL);
    ended(&mut first).await;
    until("the killed worker's Chrome is gone", async || still_alive(&chromes).is_empty()).await;
    program.drain().await;

    let mut lost = 0;
    for id in &ids {
        let shown = program.show(*id).await;
        assert_eq!(shown["status"], "completed", "{shown}");
        assert_whole_record(&program, *id);
        if shown["attempts"].as_array().unwrap().len() > 1 {
            lost += 1;
            let earlier = program.file(*id, "attempts/0/final_result.json");
            assert_eq!(earlier["result"]["failure_code"], "infra.worker_lost");
        }
    }
    assert!(lost > 0, "the kill hit no attempt");
    let emails: Vec<String> = site.ledger().comments().iter().map(|comment| comment.email.clone()).collect();
    let once: BTreeSet<&String> = emails.iter().collect();
    assert_eq!((emails.len(), once.len()), (6, 6), "each comment exactly once: {emails:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_through_its_lease_changes_nothing_when_it_wakes() {
    let (program, site) = set_up().await;
    let program = program.short_lease();
    let id = program.enqueue(&[comment(&site, CANONICAL_ARTICLE, 1)]).await[0];
    let sleeper = program.worker(&[]);
    until("the attempt is under way", async || program.steps(id).contains(&"automation_context_entered".to_owned()))
        .await;
    signal(&sleeper, Signal::STOP);
    program.drain().await;
    let result = program.file(id, "final_result.json");
    let steps = program.steps(id);
    signal(&sleeper, Signal::CONT);
    until("the sleeper learns of it", async || program.log().contains("lease.lost")).await;
    assert_eq!((program.file(id, "final_result.json"), program.steps(id)), (result, steps));
    assert_eq!(program.show(id).await["status"], "completed");
    assert_eq!(site.ledger().comments().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_gives_back_what_it_cannot_finish_and_charges_nothing() {
    let (program, site) = set_up().await;
    let program = program.with("PAGEHAND_WORKER__DRAIN_SECONDS", "0.3");
    let id = program.enqueue(&[comment(&site, SILENT, 1)]).await[0];
    let mut worker = program.worker(&[]);
    until("the attempt is under way", async || program.steps(id).contains(&"automation_context_entered".to_owned()))
        .await;
    signal(&worker, Signal::TERM);
    assert!(ended(&mut worker).await.success(), "{}", program.log());
    let shown = program.show(id).await;
    assert_eq!((&shown["status"], &shown["retry_count"]), (&json!("pending"), &json!(0)), "{shown}");
    assert_eq!(program.file(id, "final_result.json")["result"]["failure_code"], "infra.shutdown");
    assert!(program.chromes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_gives_back_at_once() {
    let (program, site) = set_up().await;
    let program = program.with("PAGEHAND_WORKER__DRAIN_SECONDS", "600");
    let id = program.enqueue(&[comment(&site, SILENT, 1)]).await[0];
    let mut worker = program.worker(&[]);
    until("the attempt is under way", async || program.steps(id).contains(&"automation_context_entered".to_owned()))
        .await;
    signal(&worker, Signal::TERM);
    until("the worker drains", async || program.log().contains("draining")).await;
    signal(&worker, Signal::TERM);
    assert!(ended(&mut worker).await.success(), "{}", program.log());
    assert_eq!(program.show(id).await["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_can_be_called_off() {
    let (program, site) = set_up().await;
    let id = program.enqueue(&[comment(&site, SILENT, 1)]).await[0];
    let worker = program.worker(&[]);
    until("the attempt is under way", async || program.steps(id).contains(&"automation_context_entered".to_owned()))
        .await;
    assert!(program.run(&["runs", "cancel", &id.to_string()]).await.status.success());
    until("it is cancelled", async || program.show(id).await["status"] == "cancelled").await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_written_by_hand_are_dead_letters_with_a_reason_and_harm_nobody() {
    let (program, site) = set_up().await;
    let good = program.enqueue(&[comment(&site, CANONICAL_ARTICLE, 1)]).await[0];
    let origin = site.origin();
    let mut expected = Vec::new();
    for (task_type, url, payload, code) in [
        ("teleport", format!("{origin}/"), json!({}), "input.unknown_task_type"),
        ("comment", format!("{origin}/"), json!({"author": 7}), "input.invalid_payload"),
        ("comment", format!("{origin}/"), json!(["x"]), "input.invalid_payload"),
        ("comment", "file:///etc/passwd".to_owned(), comment(&site, "/", 2)["payload"].clone(), "policy.url_denied"),
        (
            "comment",
            "https://stranger.example/".to_owned(),
            comment(&site, "/", 3)["payload"].clone(),
            "policy.not_enrolled",
        ),
    ] {
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO tasks (task_type, url, site, payload, max_retries, ready) VALUES ($1, $2, 'by hand', $3, 3, true) RETURNING id",
        )
        .bind(task_type)
        .bind(url)
        .bind(payload)
        .fetch_one(&program.db.pool)
        .await
        .unwrap();
        expected.push((id, code));
    }
    program.drain().await;
    for (id, code) in expected {
        let shown = program.show(id).await;
        assert_eq!(
            (&shown["status"], &shown["failure_code"], &shown["retry_count"]),
            (&json!("failed"), &json!(code), &json!(0))
        );
        let steps = program.steps(id);
        assert_eq!(&steps[4..], ["getting_automation_class", "result_failed"], "{code}");
        assert_eq!(program.file(id, "final_result.json")["result"]["failure_code"], code);
    }
    assert_whole_record(&program, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_uncertain_only_if_an_earlier_submission_may_have_left() {
    let (program, site) = set_up().await;
    let ids = program.enqueue(&[comment(&site, CANONICAL_ARTICLE, 1), comment(&site, CANONICAL_ARTICLE, 2)]).await;
    for (id, let_go) in ids.iter().zip([false, true]) {
        sqlx::query(
            "INSERT INTO attempts (task_id, site, retry_count, worker, incarnation, claim, status, started_at, finished_at,
                 failure_reason, failure_code, intent, intent_at, let_go_at)
             SELECT id, site, 0, 'lost', 'lost', 1, 'lost', now(), now(), 'unknown', 'infra.worker_lost', '{}', now(),
                 CASE WHEN $2 THEN now() END
             FROM tasks WHERE id = $1",
        )
        .bind(id)
        .bind(let_go)
        .execute(&program.db.pool)
        .await
        .unwrap();
    }
    assert!(program.run(&["site", "rm", &site.origin()]).await.status.success());
    program.drain().await;
    assert_eq!(program.show(ids[0]).await["failure_code"], "policy.not_enrolled");
    assert_eq!(program.show(ids[1]).await["failure_code"], "outcome.uncertain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_was_removed_is_not_acted_on() {
    let (program, site) = set_up().await;
    let id = program.enqueue(&[comment(&site, CANONICAL_ARTICLE, 1)]).await[0];
    assert!(program.run(&["site", "rm", &site.origin()]).await.status.success());
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(shown["failure_code"], "policy.not_enrolled");
    assert!(shown["last_error"].as_str().unwrap().contains("pagehand site add"), "{shown}");
    assert_eq!(site.ledger().comments().len(), 0);
    assert_eq!(site.ledger().hits("GET", CANONICAL_ARTICLE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_and_works_with_no_database_configured() {
    let (program, site) = (Program::new().await, DemoSite::start().unwrap());
    let run = async |args: &[&str]| {
        let output = tokio::time::timeout(PATIENCE, program.command(args).env_remove("DATABASE_URL").output()).await;
        let output = output.expect("it ends").unwrap();
        assert!(output.status.success(), "{args:?}: {}", program::text(&output.stderr));
        program::text(&output.stdout)
    };
    run(&["site", "add", &site.origin(), "--authorized-by", "the test", "--allow-private"]).await;
    let page = format!("{}{CANONICAL_ARTICLE}", site.origin());
    let id =
        run(&["enqueue", "comment", &page, "--author", "Ann", "--email", "ann@example.org", "--body", "Hello there"])
            .await;
    run(&["worker", "--drain"]).await;
    assert_whole_record(&program, id.trim().parse().unwrap());
    assert_eq!(site.ledger().comments().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_postgres_does_not_take_keeps_back_none_of_the_others() {
    let (program, site) = set_up().await;
    let ids = program.enqueue(&[comment(&site, CANONICAL_ARTICLE, 1), comment(&site, CANONICAL_ARTICLE, 2)]).await;
    let gone = WorkerIdentity { name: "gone".to_owned(), incarnation: "gone-1".to_owned() };
    let lost = program.db.queue().await.claim(&gone, 2, Duration::from_secs(60)).await.unwrap();
    let bad = lost.iter().map(|claimed| claimed.fence.0).min().unwrap();
    // Each is tried once in these minutes: what a later try brings would hide what the first one left.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON steps FOR EACH ROW WHEN (NEW.attempt_id = {bad}) EXECUTE FUNCTION refuse();
         CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.tries = 10; RETURN NEW; END $$;
         CREATE TRIGGER once BEFORE INSERT ON records_due FOR EACH ROW EXECUTE FUNCTION once();
         UPDATE tasks SET lease_expires_at = now()"
    )))
    .execute(&program.db.pool)
    .await
    .unwrap();
    program.drain().await;
    for id in ids {
        assert_eq!(program.show(id).await["status"], "completed");
    }
    let due: Vec<i64> =
        sqlx::query_scalar("SELECT attempt_id FROM records_due").fetch_all(&program.db.pool).await.unwrap();
    assert_eq!(due, [bad], "the other one has its record");

    // Slow, so that it goes on while the worker ends.
    sqlx::raw_sql(
        "DROP TRIGGER refuse ON steps;
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN OLD; END $$;
         CREATE TRIGGER slow BEFORE DELETE ON records_due FOR EACH ROW EXECUTE FUNCTION slow();
         UPDATE records_due SET due_at = now()",
    )
    .execute(&program.db.pool)
    .await
    .unwrap();
    program.drain().await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM records_due").fetch_one(&program.db.pool).await.unwrap();
    let rows = "SELECT name FROM steps WHERE attempt_id = $1";
    let steps: Vec<String> = sqlx::query_scalar(rows).bind(bad).fetch_all(&program.db.pool).await.unwrap();
    assert_eq!(
        (left, steps),
        (0, vec!["result_failed".to_owned()]),
        "what was written at the first try is stored at a later one"
    );
}

/// Where the worker of that name serves its counters.
async fn counters_of(program: &Program, name: &str) -> SocketAddr {
    let mut found = None;
    until("the worker serves its counters", async || {
        let lines = program.log();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["event"] == "worker.metrics_listening" && line["worker_id"] == name);
        found = line.and_then(|line| line["address"].as_str().unwrap().parse().ok());
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// A worker's counters by name and labels, those at 0 left out.
async fn counters(at: SocketAddr) -> BTreeMap<String, f64> {
    let text = http_client::send(at, "GET", "/metrics", &[], "").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap());
    lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).filter(|(_, value)| *value != 0.0).collect()
}

/// Those of that name.
fn named(counters: &BTreeMap<String, f64>, name: &str) -> BTreeMap<String, f64> {
    let prefix = format!("{name}{{");
    counters.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(key, n)| (key.clone(), *n)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_workers_count_is_what_the_rows_say() {
    let (program, site) = set_up().await;
    let program = program
        .short_lease()
        .with("PAGEHAND_WORKER__METRICS_LISTEN", "127.0.0.1:0")
        .with("PAGEHAND_WORKER__TASK_TIMEOUT_SECONDS", "8")
        .with("PAGEHAND_PRICES__BROWSER_SECOND_USD", "0.01");
    let mut silent = comment(&site, SILENT, 1);
    silent["max_retries"] = json!(1);
    let id = program.enqueue(&[silent]).await[0];
    let sleeper = program.worker(&["--instance", "sleeper"]);
    let sleeper_at = counters_of(&program, "sleeper").await;
    until("the attempt is under way", async || program.steps(id).contains(&"automation_context_entered".to_owned()))
        .await;
    signal(&sleeper, Signal::STOP);
    let pages = [CANONICAL_ARTICLE, CANONICAL_ARTICLE, "/articles/spring-tide", "/articles/closed-season"];
    program.enqueue(&pages.iter().enumerate().map(|(n, page)| comment(&site, page, n)).collect::<Vec<_>>()).await;
    let _other = program.worker(&["--instance", "other", "--concurrency", "2"]);
    let pool = program.db.pool.clone();
    let count = async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap() };
    until("all tasks have ended", async || {
        count("SELECT count(*) FROM tasks WHERE status IN ('pending', 'running')").await == 0
    })
    .await;
    signal(&sleeper, Signal::CONT);
    let lost = "pagehand_lease_lost_total";
    until("the sleeper has noticed", async || counters(sleeper_at).await.contains_key(lost)).await;
    let of_other = counters(counters_of(&program, "other").await).await;
    let of_sleeper = counters(sleeper_at).await;
    let mut all = of_other.clone();
    of_sleeper.iter().for_each(|(key, n)| *all.entry(key.clone()).or_default() += n);

    let rows = async |sql: &'static str| -> BTreeMap<String, f64> {
        let rows: Vec<(String, f64)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
        rows.into_iter().collect()
    };
    let attempts = rows(
        "SELECT format('pagehand_task_attempts_total{task_type=\"%s\",outcome=\"%s\",failure_reason=\"%s\"}', t.task_type,
                       a.status, a.failure_reason), count(*)::float8
         FROM attempts a JOIN tasks t ON t.id = a.task_id GROUP BY t.task_type, a.status, a.failure_reason",
    )
    .await;
    let outcomes = ["outcome=\"succeeded\"", "outcome=\"failed\"", "outcome=\"lost\""];
    assert!(outcomes.iter().all(|outcome| attempts.keys().any(|key| key.contains(outcome))), "{attempts:?}");
    assert_eq!(named(&all, "pagehand_task_attempts_total"), attempts);
    let received = rows(
        "SELECT format('pagehand_tasks_received_total{task_type=\"%s\"}', t.task_type), count(*)::float8
         FROM attempts a JOIN tasks t ON t.id = a.task_id GROUP BY t.task_type",
    )
    .await;
    assert_eq!(named(&all, "pagehand_tasks_received_total"), received);
    let dead = rows(
        "SELECT format('pagehand_tasks_dead_lettered_total{task_type=\"%s\",failure_reason=\"%s\"}', task_type,
                       failure_reason), count(*)::float8
         FROM tasks WHERE status = 'failed' GROUP BY task_type, failure_reason",
    )
    .await;
    assert_eq!(named(&all, "pagehand_tasks_dead_lettered_total"), dead);
    let sum = |name: &str| named(&all, name).values().sum::<f64>();
    let retries = count("SELECT sum(retry_count) FROM tasks").await as f64;
    assert_eq!((sum("pagehand_task_retries_scheduled_total"), retries > 2.0), (retries, true));
    let taken_back = count("SELECT count(*) FROM attempts WHERE status = 'lost'").await as f64;
    assert_eq!((all[lost], of_sleeper[lost]), (taken_back, 1.0));
    let timed = sum("pagehand_task_duration_seconds_count");
    assert_eq!(timed, count("SELECT count(*) FROM attempts WHERE status <> 'running'").await as f64);
    assert!(!all.contains_key("pagehand_tasks_in_flight"), "{all:?}");

    // What an attempt has done is counted where it was done.
    let steps = rows(
        "SELECT format('pagehand_steps_total{step=\"%s\",outcome=\"%s\"}', s.name, CASE WHEN s.ok THEN 'ok' ELSE 'failed' END),
                count(*)::float8
         FROM steps s JOIN attempts a ON a.id = s.attempt_id WHERE a.worker = 'other' GROUP BY s.name, s.ok",
    )
    .await;
    assert_eq!(named(&of_other, "pagehand_steps_total"), steps);
    let spent: f64 =
        sqlx::query_scalar("SELECT sum(cost_usd) FROM attempts WHERE worker = 'other'").fetch_one(&pool).await.unwrap();
    let counted = named(&of_other, "pagehand_cost_usd_total").values().sum::<f64>();
    assert!(spent > 0.0 && (counted - spent).abs() < 1e-9, "{counted} {spent}");
}
