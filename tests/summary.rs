//! The numbers of a time range: from rows where there are few, from counted hours and days where there are many, and the
//! same as what plain SQL says of the rows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::{EXACT_RUNS, Numbers, Outcome, Period, Queue, Settled, Settlement, StepSummary, WorkerIdentity};
use pagehand::task::{NewTask, TaskId};
use pagehand::telemetry::{FinalResult, RunStart, RunsDir, Usage, finalize_run, init_run, log_step};
use pagehand::web::{Server, WebSettings};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use database::TestDb;

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;

/// `n` runs over the 40 days before `until`, every fourth a dead letter after two attempts, every ninth cancelled, each
/// attempt with three steps; and one hour's worth of them in the last hour.
async fn history(pool: &PgPool, n: i64, until: DateTime<Utc>) {
    let mut transaction = pool.begin().await.unwrap();
    for statement in [
        "INSERT INTO tasks (task_type, url, site, payload, status, created_at, finished_at, execution_time, tokens, cost_usd,
                            failure_reason, failure_code, retry_count)
         SELECT CASE k % 3 WHEN 0 THEN 'registration' ELSE 'comment' END, 'https://example.org/' || k, 'https://example.org',
                '{}', (CASE WHEN k % 9 = 0 THEN 'cancelled' WHEN k % 4 = 0 THEN 'failed' ELSE 'completed' END)::task_status,
                $2 - interval '40 days' * (k - 0.5) / $1, $2, CASE WHEN k % 9 <> 0 THEN 1 + (k * 7919 % 1000) / 100.0 END,
                CASE k % 4 WHEN 0 THEN 30 ELSE 10 END, CASE k % 4 WHEN 0 THEN 0.03 ELSE 0.01 END,
                (CASE WHEN k % 9 = 0 OR k % 4 <> 0 THEN NULL WHEN k % 8 = 0 THEN 'timeout' ELSE 'blocked' END)::failure_reason,
                CASE WHEN k % 9 <> 0 AND k % 4 = 0 THEN 'x.y' END, CASE WHEN k % 4 = 0 THEN 1 ELSE 0 END
         FROM generate_series(1, $1) k",
        "INSERT INTO attempts (task_id, site, retry_count, worker, incarnation, claim, status, started_at, finished_at,
                               failure_reason, failure_code, tokens, cost_usd)
         SELECT t.id, t.site, r, 'w', 'i', t.id,
                (CASE WHEN t.status = 'completed' AND r = t.retry_count THEN 'succeeded' ELSE 'failed' END)::attempt_status,
                $2, $2, 'timeout', 'x.y', 10 + r * 10, 0.01 + r * 0.01
         FROM tasks t, generate_series(0, t.retry_count) r WHERE $1 > 0",
        "INSERT INTO steps (attempt_id, seq, task_id, retry_count, name, ok, started_at, finished_at, duration_ms, tokens,
                            cost_usd)
         SELECT a.id, s, a.task_id, a.retry_count, (ARRAY['open', 'fill', 'submit'])[s], a.status = 'succeeded' OR s < 3, $2,
                $2, CASE s WHEN 1 THEN 0 ELSE (a.id * 7919 % 997) * 1.7 + s END, CASE s WHEN 3 THEN a.tokens ELSE 0 END,
                CASE s WHEN 3 THEN a.cost_usd ELSE 0 END
         FROM attempts a, generate_series(1, 3) s WHERE $1 > 0",
    ] {
        sqlx::query(statement).bind(n).bind(until).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

async fn roll_up_all(queue: &Queue) {
    while queue.roll_up(100).await.unwrap() != Some(0) {}
}

fn month(until: DateTime<Utc>) -> Period {
    Period { since: until - TimeDelta::days(30), until }
}

/// What plain SQL says of the rows: runs, completed, failed, tokens, dollars, wasted dollars, 95th percentile in ms.
async fn of_rows(pool: &PgPool, period: Period) -> (i64, i64, i64, i64, f64, f64, f64) {
    sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
                sum(tokens)::bigint, sum(cost_usd),
                (SELECT sum(a.cost_usd) FROM attempts a JOIN tasks u ON u.id = a.task_id
                 WHERE u.created_at >= $1 AND u.created_at < $2 AND a.status = 'failed'),
                percentile_cont(0.95) WITHIN GROUP (ORDER BY execution_time) FILTER (WHERE status IN ('completed', 'failed'))
                    * 1000
         FROM tasks WHERE created_at >= $1 AND created_at < $2",
    )
    .bind(period.since)
    .bind(period.until)
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn agrees(queue: &Queue, pool: &PgPool, period: Period, part: TimeDelta) -> (Numbers, Vec<StepSummary>) {
    let numbers = queue.numbers(period, part).await.unwrap();
    let (runs, completed, failed, tokens, cost, wasted, p95) = of_rows(pool, period).await;
    let totals = &numbers.totals;
    assert_eq!((totals.total_runs, totals.completed, totals.failed, totals.tokens), (runs, completed, failed, tokens));
    assert!((totals.total_cost_usd - cost).abs() < 1e-6, "{} {cost}", totals.total_cost_usd);
    assert!((totals.wasted_cost_usd - wasted).abs() < 1e-6, "{} {wasted}", totals.wasted_cost_usd);
    let found = totals.p95_latency_ms.unwrap();
    let off = if numbers.exact { 1e-9 } else { 0.011 };
    assert!((found / p95 - 1.0).abs() <= off, "{found} {p95}");
    let in_parts: i64 = numbers.series.iter().map(|part| part.completed + part.failed + part.other).sum();
    assert_eq!(in_parts, runs);
    let by_reason: i64 = numbers.series.iter().flat_map(|part| part.failures.values()).sum();
    assert_eq!((by_reason, numbers.failures.iter().map(|count| count.n).sum()), (failed, failed));

    let steps = queue.step_summaries(period).await.unwrap();
    assert_eq!(steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["open", "fill", "submit"]);
    assert_eq!(steps.iter().map(|step| step.tokens).sum::<i64>(), tokens_of_attempts(pool, period).await);
    (numbers, steps)
}

async fn tokens_of_attempts(pool: &PgPool, period: Period) -> i64 {
    sqlx::query_scalar(
        "SELECT sum(a.tokens)::bigint FROM attempts a JOIN tasks t ON t.id = a.task_id
         WHERE t.created_at >= $1 AND t.created_at < $2",
    )
    .bind(period.since)
    .bind(period.until)
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn counted_hours_and_days_say_the_same_as_the_rows() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let now = queue.now().await.unwrap();
    history(&db.pool, EXACT_RUNS + 2_000, now).await;
    roll_up_all(&queue).await;
    let period = month(now);
    for part in [TimeDelta::days(1), TimeDelta::hours(6)] {
        let (numbers, steps) = agrees(&queue, &db.pool, period, part).await;
        assert!(!numbers.exact);
        let exact: f64 = sqlx::query_scalar(
            "SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY s.duration_ms) FROM steps s JOIN tasks t ON t.id = s.task_id
             WHERE s.name = 'submit' AND t.created_at >= $1 AND t.created_at < $2",
        )
        .bind(period.since)
        .bind(period.until)
        .fetch_one(&db.pool)
        .await
        .unwrap();
        let found = steps[2].p95_ms.unwrap();
        assert!((found / exact - 1.0).abs() < 0.011, "{found} {exact}");
        assert_eq!(steps[0].p95_ms, Some(0.0));
    }
    let day = Period { since: now - TimeDelta::days(1), until: now };
    assert!(agrees(&queue, &db.pool, day, TimeDelta::hours(1)).await.0.exact);
}

#[tokio::test]
async fn what_changes_an_old_run_counts_its_hour_anew() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let now = queue.now().await.unwrap();
    history(&db.pool, EXACT_RUNS + 2_000, now).await;
    roll_up_all(&queue).await;
    let failed: Vec<i64> = sqlx::query_scalar("SELECT id FROM tasks WHERE status = 'failed' ORDER BY id LIMIT 40")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    let before = queue.numbers(month(now), TimeDelta::days(1)).await.unwrap().totals;
    // Into days that were counted as a whole.
    sqlx::query("UPDATE tasks SET created_at = created_at - interval '10 days' WHERE id = ANY ($1)")
        .bind(&failed[20..])
        .execute(&db.pool)
        .await
        .unwrap();
    sqlx::query("INSERT INTO rollup_due SELECT DISTINCT date_trunc('hour', created_at, 'UTC') + d FROM tasks, (VALUES (interval '0'), (interval '10 days')) v (d) WHERE id = ANY ($1)")
        .bind(&failed[20..])
        .execute(&db.pool)
        .await
        .unwrap();
    roll_up_all(&queue).await;
    for id in &failed[20..] {
        queue.retry(TaskId(*id), false).await.unwrap();
    }
    assert!(queue.roll_up(0).await.unwrap().unwrap() > 0, "the retries are noted");
    roll_up_all(&queue).await;
    let (after, _) = agrees(&queue, &db.pool, month(now), TimeDelta::days(1)).await;
    assert_eq!(after.totals.failed, before.failed - 20);

    sqlx::query("DELETE FROM tasks WHERE id = ANY ($1)").bind(&failed[30..]).execute(&db.pool).await.unwrap();
    roll_up_all(&queue).await;
    agrees(&queue, &db.pool, month(now), TimeDelta::days(1)).await;
}

#[tokio::test]
async fn a_note_of_a_change_that_is_not_committed_yet_is_not_lost() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let now = queue.now().await.unwrap();
    history(&db.pool, 10, now).await;
    let mut open = db.pool.begin().await.unwrap();
    sqlx::query("UPDATE tasks SET status = 'pending', finished_at = NULL WHERE id = (SELECT min(id) FROM tasks)")
        .execute(&mut *open)
        .await
        .unwrap();
    roll_up_all(&queue).await;
    open.commit().await.unwrap();
    assert_eq!(queue.roll_up(0).await.unwrap(), Some(1));
}

/// Works off all tasks without a browser: each attempt leaves three steps with their costs in files and rows. Tasks with an
/// even number fail once and then succeed, those that end in 3 and 9 are dead letters.
async fn work_off(queue: &Queue, runs: &RunsDir) {
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "i".to_owned() };
    loop {
        let claimed = queue.claim(&worker, 10, Duration::from_secs(60)).await.unwrap();
        if claimed.is_empty() {
            return;
        }
        for task in claimed {
            let (id, retry_count) = (task.task.id.0, task.task.retry_count);
            let start = RunStart {
                task_id: task.task.id,
                fence: task.fence,
                retry_count,
                started_at: task.locked_at,
                meta: serde_json::Map::new(),
                secrets: Vec::new(),
            };
            let run = init_run(runs, start).await;
            log_step(&run, "task_locked", json!({}));
            let failure = Failure::retryable(FailureReason::Timeout, "nav.timeout", "it took too long");
            let fails = (id % 2 == 0 && retry_count == 0) || id % 6 == 3;
            for (n, name) in ["open_page", "find_form", "submit"].into_iter().enumerate() {
                let usage = Usage { tokens: id * 7 + n as i64, cost_usd: 0.001 * (n + 1) as f64 + id as f64 / 1e4 };
                let outcome = if fails && n == 2 { Err(&failure) } else { Ok(()) };
                run.start_step(name, json!({})).finish(outcome, usage);
            }
            let execution_time = Duration::from_millis(1_000 + id.unsigned_abs());
            let outcome = match fails {
                true if retry_count == 0 && id % 2 == 0 => {
                    Outcome::Retry { failure: failure.clone(), delay: Duration::ZERO }
                }
                true => Outcome::Dead { failure: failure.clone() },
                false => Outcome::Completed { result: json!({}) },
            };
            let failed = fails.then_some(failure);
            let result = FinalResult {
                decided: None,
                completed_at: run.now(),
                execution_time,
                failure: failed,
                details: serde_json::Map::new(),
            };
            let artifacts = finalize_run(&run, result).await;
            let settlement =
                Settlement { lease: task.lease(), outcome, execution_time, steps: run.take_steps(), artifacts };
            assert_eq!(queue.settle(&[settlement]).await.unwrap(), [Settled::Done]);
        }
    }
}

#[tokio::test]
async fn dashboard_rows_and_files_say_the_same() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let dir = tempfile::tempdir().unwrap();
    let runs = RunsDir::open(dir.path()).unwrap();
    let task = |n: usize| {
        let payload = json!({"author": "Ann", "email": "ann@example.org", "body": "Hello"});
        let task = json!({"task_type": "comment", "url": format!("https://example.org/{n}"), "payload": payload});
        NewTask::from_value(&task).unwrap()
    };
    let tasks: Vec<NewTask> = (0..40).map(task).collect();
    queue.enqueue(&tasks, 3).await.unwrap();
    work_off(&queue, &runs).await;

    let settings = WebSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: Vec::new(),
        tokens: Vec::new(),
        default_max_retries: 3,
    };
    let server = Server::bind(settings, queue.clone(), dir.path().to_owned()).await.unwrap();
    let address = server.address();
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    let _stop = stop.drop_guard();
    let summary = http_client::send(address, "GET", "/metrics/summary?range=24h", &[], "").await.json();

    // From the files: every line of every run.
    let (mut tokens, mut cost, mut wasted) = (0, 0.0, 0.0);
    let mut by_step: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for run in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let text = std::fs::read_to_string(run.join("steps.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            let spent = line["cost_usd"].as_f64().unwrap();
            let failed = lines.iter().any(|other| other["attempt"] == line["attempt"] && other["status"] == "failed");
            tokens += line["tokens"].as_i64().unwrap();
            cost += spent;
            wasted += if failed { spent } else { 0.0 };
            let step = by_step.entry(line["step"].as_str().unwrap().to_owned()).or_default();
            step.0 += 1;
            step.1 += line["tokens"].as_i64().unwrap();
        }
    }
    assert!(tokens > 0 && wasted > 0.0 && wasted < cost);
    let near = |field: &Value, expected: f64| {
        let found = field.as_f64().unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    };
    assert_eq!(summary["total_runs"], 40);
    assert_eq!(summary["tokens"], tokens);
    near(&summary["total_cost_usd"], cost);
    near(&summary["wasted_cost_usd"], wasted);
    near(&summary["avg_tokens_per_run"], tokens as f64 / 40.0);
    near(&summary["avg_cost_usd_per_run"], cost / 40.0);
    for step in summary["steps"].as_array().unwrap() {
        let (n, tokens) = by_step.remove(step["name"].as_str().unwrap()).unwrap();
        assert_eq!((step["n"].as_i64(), step["tokens"].as_i64()), (Some(n), Some(tokens)), "{step}");
    }
    assert!(by_step.is_empty(), "{by_step:?}");
    let list = http_client::send(address, "GET", "/runs?limit=200", &[], "").await.json();
    let listed: f64 = list["runs"].as_array().unwrap().iter().map(|run| run["cost_usd"].as_f64().unwrap()).sum();
    assert!((listed - cost).abs() < 1e-9, "{listed} {cost}");
    let page = http_client::send(address, "GET", "/dashboard?range=24h", &[("accept", "text/html")], "").await.text();
    let page = page.replace("<wbr>", "");
    for (tile, expected, precision) in [
        ("Runs", 40.0, 0.0),
        ("Success rate", summary["success_rate"].as_f64().unwrap() * 100.0, 0.051),
        ("Dead letters", summary["failed"].as_f64().unwrap(), 0.0),
        ("Tokens per run", tokens as f64 / 40.0, 0.5),
        ("Cost", cost, 0.0051),
        ("Cost per run", cost / 40.0, 0.0006),
    ] {
        let shown = tile_of(&page, tile);
        assert!((shown - expected).abs() <= precision, "{tile}: {shown} {expected}");
    }
    for step in summary["steps"].as_array().unwrap().iter().filter(|step| step["cost_usd"].as_f64() > Some(0.0)) {
        let row = page.split_once(&format!("<th scope=\"row\">{}</th>", step["name"].as_str().unwrap())).unwrap().1;
        let cells: Vec<f64> = row.split("</tr>").next().unwrap().split("<td").skip(1).map(number_in).collect();
        let expected = ["n", "tokens", "cost_usd"].map(|field| step[field].as_f64().unwrap());
        assert_eq!((cells[0], cells[5]), (expected[0], expected[1]), "{step}");
        assert!((cells[6] - expected[2]).abs() < 0.0051, "{step}: {cells:?}");
    }
    // And in SQL.
    let (runs, in_rows, dollars): (i64, i64, f64) =
        sqlx::query_as("SELECT count(*), sum(tokens)::bigint, sum(cost_usd) FROM tasks")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!((runs, in_rows), (40, tokens));
    assert!((dollars - cost).abs() < 1e-9, "{dollars} {cost}");
}

/// The number of a tile of the dashboard.
fn tile_of(page: &str, name: &str) -> f64 {
    let tile = page.split_once(&format!("<span class=\"name\">{name}</span>")).expect("such a tile").1;
    number_in(tile.split_once("class=\"value\"").unwrap().1.split("<span class=\"note\"").next().unwrap())
}

/// The number in the text of a piece of markup that begins within a tag; 0 where there is none.
fn number_in(markup: &str) -> f64 {
    let (mut text, mut inside) = (String::new(), true);
    for c in markup.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside && (c.is_ascii_digit() || c == '.') => text.push(c),
            _ => {}
        }
    }
    text.parse().unwrap_or(0.0)
}
