//! How fast lists, run pages and dashboards are with a long history: by default a million runs over thirty days, with fifteen
//! steps each.
//!
//! `cargo bench --bench history -- [--runs N] [--data-dir DIR]`: with DIR, the database is made there once and used again.
//! It takes about 4 kB of disk a run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pagehand::devdb::DevDb;
use pagehand::queue::Queue;
use pagehand::web::{Server, WebSettings};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Runs added in one transaction.
const CHUNK: i64 = 50_000;
/// How often each page is asked for; the middle and the slowest are reported.
const TIMES: usize = 21;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let runs: i64 = option("--runs").map_or(1_000_000, |n| n.parse().expect("--runs takes a number"));
    let kept = option("--data-dir").map(PathBuf::from);
    let data_dir =
        kept.clone().unwrap_or_else(|| Path::new("/tmp").join(format!("pagehand-history-{}", std::process::id())));

    let db = DevDb::start(&data_dir).await.expect("the private postgres starts");
    let queue = Queue::connect(&db.url(), 16).await.expect("it takes connections");
    queue.migrate().await.expect("the schema is made");
    let pool = PgPool::connect(&db.url()).await.expect("it takes connections");
    make(&pool, &queue, runs).await;
    measure(&queue, &pool).await;

    queue.close().await;
    pool.close().await;
    db.stop().await;
    if kept.is_none() {
        std::fs::remove_dir_all(&data_dir).expect("the cluster can be removed");
    }
}

/// Makes runs until there are `runs`, and counts their hours.
async fn make(pool: &PgPool, queue: &Queue, runs: i64) {
    let there: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tasks").fetch_one(pool).await.expect("tasks can be counted");
    let begun = Instant::now();
    let mut first = there + 1;
    while first <= runs {
        let last = (first + CHUNK - 1).min(runs);
        add(pool, first, last, runs).await.expect("runs can be added");
        first = last + 1;
        eprint!("\r{last} runs, {} s", begun.elapsed().as_secs());
    }
    if there < runs {
        eprintln!();
        sqlx::query("SELECT setval(pg_get_serial_sequence('tasks', 'id'), (SELECT max(id) FROM tasks))")
            .execute(pool)
            .await
            .expect("the sequence can be set");
        sqlx::query("INSERT INTO rollup_due SELECT DISTINCT date_trunc('hour', created_at, 'UTC') FROM tasks")
            .execute(pool)
            .await
            .expect("hours can be noted");
        for table in ["tasks", "attempts", "steps", "artifacts"] {
            let vacuum = sqlx::query(sqlx::AssertSqlSafe(format!("VACUUM (ANALYZE) {table}")));
            vacuum.execute(pool).await.expect("a table can be vacuumed");
        }
    }
    let counting = Instant::now();
    let mut hours = 0;
    while let Some(left) = queue.roll_up(10).await.expect("hours can be counted") {
        hours += 10;
        if left == 0 {
            break;
        }
    }
    println!("{runs} runs made in {:?}; up to {hours} hours counted in {:?}", begun.elapsed(), counting.elapsed());
}

/// The runs `first` to `last` of `runs`, spread evenly over thirty days: 78 % completed, 20 % dead letters, of which each
/// second needed two attempts, and 2 % cancelled.
async fn add(pool: &PgPool, first: i64, last: i64, runs: i64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // Neither foreign keys nor triggers: they cost more than the rows.
    sqlx::query("SET LOCAL session_replication_role = replica").execute(&mut *transaction).await?;
    for statement in [
        "INSERT INTO tasks (id, task_type, url, site, payload, status, created_at, run_at, started_at, finished_at,
                            execution_time, tokens, cost_usd, failure_reason, failure_code, last_error, retry_count, stuck_at)
         SELECT k, CASE k % 5 WHEN 0 THEN 'registration' ELSE 'comment' END,
                'https://site-' || k % 200 || '.example/post-' || k, 'https://site-' || k % 200 || '.example',
                '{\"author\": \"Ann\", \"email\": \"ann@example.org\", \"body\": \"A comment of ordinary length, as they are.\"}',
                state::task_status, at, at, at, at + interval '5 seconds', CASE state WHEN 'cancelled' THEN NULL ELSE ms / 1e3 END,
                k % 500, (k % 100) / 1e5, reason::failure_reason,
                CASE WHEN reason IS NOT NULL THEN 'code.' || reason END,
                CASE WHEN reason IS NOT NULL THEN 'the page did not do what was expected of it: ' || reason END, k % 2,
                CASE WHEN reason IS NOT NULL THEN 'step_10' END
         FROM (SELECT k, now() - interval '30 days' * (1 - k / $3::float8) AS at, 800 + (k::bigint * 7919 % 9973) AS ms,
                      CASE WHEN k % 50 = 0 THEN 'cancelled' WHEN k % 5 = 1 THEN 'failed' ELSE 'completed' END AS state,
                      CASE WHEN k % 50 <> 0 AND k % 5 = 1
                          THEN (ARRAY['timeout', 'blocked', 'captcha_present', 'comment_form_not_found', 'unknown'])[k % 3 + 1]
                          END AS reason
               FROM generate_series($1, $2) k) made",
        "INSERT INTO attempts (task_id, site, retry_count, worker, incarnation, claim, status, started_at, finished_at,
                               execution_time, failure_reason, failure_code, error, tokens, cost_usd)
         SELECT t.id, t.site, r, 'worker-' || t.id % 8, 'i', t.id,
                (CASE WHEN t.status = 'completed' AND r = t.retry_count THEN 'succeeded' ELSE 'failed' END)::attempt_status,
                t.created_at, t.finished_at, t.execution_time,
                (CASE WHEN t.status = 'completed' AND r = t.retry_count THEN NULL ELSE 'timeout' END)::failure_reason,
                CASE WHEN t.status = 'completed' AND r = t.retry_count THEN NULL ELSE 'nav.timeout' END, t.last_error,
                t.tokens / (t.retry_count + 1), t.cost_usd / (t.retry_count + 1)
         FROM tasks t, generate_series(0, t.retry_count) r
         WHERE t.id BETWEEN $1 AND $2 AND t.status <> 'cancelled' AND $3 > 0",
        "INSERT INTO steps (attempt_id, seq, task_id, retry_count, name, ok, started_at, finished_at, duration_ms, tokens,
                            cost_usd, meta)
         SELECT a.id, s, a.task_id, a.retry_count, 'step_' || s, a.status = 'succeeded' OR s < 10, a.started_at, a.started_at,
                CASE WHEN s % 3 = 0 THEN 0 ELSE 5 + (a.id * 7919 + s * 104729) % 3001 END, CASE s WHEN 7 THEN a.tokens ELSE 0 END,
                CASE s WHEN 7 THEN a.cost_usd ELSE 0 END, '{\"retry_count\": 0}'
         FROM attempts a, generate_series(1, 10) s WHERE a.task_id BETWEEN $1 AND $2 AND $3 > 0",
        "INSERT INTO artifacts (attempt_id, name, task_id, kind, bytes)
         SELECT a.id, f || '_' || a.id || '.png', a.task_id, 'screenshot', 1000
         FROM attempts a, unnest(ARRAY['initial_screenshot', 'error_screenshot']) f WHERE a.task_id BETWEEN $1 AND $2 AND $3 > 0",
    ] {
        sqlx::query(statement).bind(first).bind(last).bind(runs).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

async fn measure(queue: &Queue, pool: &PgPool) {
    let (runs, steps): (i64, i64) =
        sqlx::query_as("SELECT count(*), (SELECT reltuples::bigint FROM pg_class WHERE relname = 'steps') FROM tasks")
            .fetch_one(pool)
            .await
            .expect("tasks can be counted");
    println!("{runs} runs, about {steps} steps");

    let settings = WebSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        hosts: Vec::new(),
        tokens: Vec::new(),
        default_max_retries: 3,
    };
    let server = Server::bind(settings, queue.clone(), std::env::temp_dir()).await.expect("an address is free");
    let address = server.address();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone()));
    println!("{:<62} {:>10} {:>10} {:>9}", "first byte, ms", "median", "slowest", "bytes");
    for (path, html) in [
        ("/runs", true),
        ("/runs", false),
        ("/runs?since=30d", true),
        ("/runs?status=failed&since=7d", true),
        ("/runs?status=cancelled", true),
        ("/runs?status=running", true),
        ("/runs?status=pending", true),
        ("/runs?failed_step=step_10&since=30d", true),
        ("/runs?stuck_at=step_10", true),
        ("/runs?stuck_at=none&since=30d", true),
        ("/runs?step=step_5&since=30d", true),
        ("/runs?step=no_such_step&since=30d", true),
        ("/runs?only=wasted&since=30d", true),
        ("/runs?only=executed&since=30d", true),
        ("/runs?only=ready", true),
        ("/runs?min_retries=1&since=30d", true),
        ("/runs?min_retries=9&since=30d", true),
        ("/runs?since=30d&until=15d", true),
        ("/runs?until=2024-01-01", true),
        ("/runs?task_type=registration", true),
        ("/runs?failure_code=code.blocked", true),
        ("/runs?failure_code=no.such.code", true),
        ("/runs?not_status=completed,failed", true),
        ("/runs?status=failed&not_failure_reason=timeout,blocked", true),
        ("/runs?not_site=https%3A%2F%2Fsite-7.example&not_task_type=comment", true),
        ("/runs?site=https%3A%2F%2Fsite-7.example", true),
        ("/runs?status=failed&failure_reason=blocked", true),
        ("/runs?q=post-999", true),
        ("/runs?q=nothing-has-this", true),
        ("/runs/777777", true),
        ("/runs/777777", false),
        ("/runs/retry?failure_reason=timeout&since=30d", true),
        ("/failures", true),
        ("/workers", true),
        ("/audit", true),
        ("/dashboard?range=24h", true),
        ("/dashboard?range=7d", true),
        ("/dashboard?range=30d", true),
        ("/metrics/summary?range=30d", false),
        ("/metrics", false),
    ] {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..TIMES {
            let (took, size) = first_byte(address, path, html).await.expect("the server answers");
            times.push(took);
            bytes = size;
        }
        times.sort();
        let ms = |time: &Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let name = format!("{path}{}", if html { " (page)" } else { "" });
        println!("{name:<62} {:>10} {:>10} {bytes:>9}", ms(&times[TIMES / 2]), ms(&times[TIMES - 1]));
    }
    stop.cancel();
    serving.await.expect("the server ends");
}

async fn first_byte(address: SocketAddr, path: &str, html: bool) -> std::io::Result<(Duration, usize)> {
    let accept = if html { "text/html" } else { "application/json" };
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 1];
    stream.read_exact(&mut answer).await?;
    let took = begun.elapsed();
    stream.read_to_end(&mut answer).await?;
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{path}: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(300)])
    );
    Ok((took, answer.len()))
}
