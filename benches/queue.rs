//! How fast the queue is, on a private Postgres of its own that writes as safely as in earnest.
//!
//! `cargo bench --bench queue -- [--finished N]`: with N, also what a claim costs when N finished tasks lie behind it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pagehand::devdb::DevDb;
use pagehand::queue::{Outcome, Queue, Settled, Settlement, WorkerIdentity};
use pagehand::site::NewEnrolment;
use pagehand::task::NewTask;
use serde_json::json;
use sqlx::PgPool;

const LEASE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let finished = arguments.iter().position(|word| word == "--finished").and_then(|at| arguments.get(at + 1));
    let finished: i64 = finished.map_or(0, |n| n.parse().expect("--finished takes a number"));

    let data_dir = Path::new("/tmp").join(format!("pagehand-bench-{}", std::process::id()));
    let db = DevDb::start(&data_dir).await.expect("the private postgres starts");
    let queue = Queue::connect(&db.url(), 16).await.expect("it takes connections");
    queue.migrate().await.expect("the schema is made");
    let pool = PgPool::connect(&db.url()).await.expect("it takes connections");

    measure(&queue, &pool, finished).await;

    queue.close().await;
    pool.close().await;
    db.stop().await;
    std::fs::remove_dir_all(&data_dir).expect("the cluster can be removed");
}

async fn measure(queue: &Queue, pool: &PgPool, finished: i64) {
    enrol(queue, "https://free.example", None).await;

    let tasks = tasks(100_000, |_| "https://free.example".to_owned());
    let start = Instant::now();
    queue.enqueue(&tasks, 3).await.expect("they are added");
    report("enqueue 100,000 tasks", start.elapsed(), 100_000);

    for (claimers, batch) in [(1, 200), (2, 200), (4, 200), (8, 64)] {
        work_off(queue, claimers, batch, 25_000).await;
    }
    queue.enqueue(&tasks[..4_000], 3).await.expect("they are added");
    work_off(queue, 8, 1, 4_000).await;

    for n in 0..200 {
        enrol(queue, &format!("https://site-{n}.example"), Some(8)).await;
    }
    let spread = self::tasks(40_000, |n| format!("https://site-{}.example", n % 200));
    queue.enqueue(&spread, 3).await.expect("they are added");
    println!("200 sites of at most 8 at once:");
    work_off(queue, 4, 200, 40_000).await;

    if finished > 0 {
        vacuum(pool).await;
        let few = claim_cost(queue).await;
        history(pool, finished).await;
        vacuum(pool).await;
        let many = claim_cost(queue).await;
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("claim and settle of one: {few:?} before, {many:?} with {finished} finished tasks: {ratio:.2} times");
    }
}

/// Claims and settles `n` tasks with `claimers` loops that take up to `batch` at a time.
async fn work_off(queue: &Queue, claimers: usize, batch: u32, n: usize) {
    let done = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let loops = (0..claimers).map(|number| {
        let (queue, done) = (queue.clone(), done.clone());
        tokio::spawn(async move {
            let worker = WorkerIdentity { name: format!("w{number}"), incarnation: format!("i{number}") };
            while done.load(Ordering::Relaxed) < n {
                let claimed = queue.claim(&worker, batch, LEASE).await.expect("a claim works");
                if claimed.is_empty() {
                    break;
                }
                let settlements: Vec<Settlement> = claimed.iter().map(|task| settlement(task.lease())).collect();
                let settled = queue.settle(&settlements).await.expect("a settlement works");
                assert!(settled.iter().all(|one| *one == Settled::Done));
                done.fetch_add(settled.len(), Ordering::Relaxed);
            }
        })
    });
    for one in futures::future::join_all(loops).await {
        one.expect("no claimer panics");
    }
    let name = format!("claim and settle, {claimers} claimers, up to {batch} at a time");
    report(&name, start.elapsed(), done.load(Ordering::Relaxed));
}

/// The middle one of many claims and settlements of a single task.
async fn claim_cost(queue: &Queue) -> Duration {
    queue.enqueue(&tasks(300, |_| "https://free.example".to_owned()), 3).await.expect("they are added");
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "i".to_owned() };
    let mut times = Vec::new();
    for _ in 0..300 {
        let start = Instant::now();
        let claimed = queue.claim(&worker, 1, LEASE).await.expect("a claim works");
        queue.settle(&[settlement(claimed[0].lease())]).await.expect("a settlement works");
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

async fn history(pool: &PgPool, n: i64) {
    let start = Instant::now();
    sqlx::query(
        "INSERT INTO tasks (task_type, url, site, payload, status, finished_at, created_at)
         SELECT 'comment', 'https://free.example/', 'https://free.example', '{\"body\": \"x\"}', 'completed', now(), now()
         FROM generate_series(1, $1)",
    )
    .bind(n)
    .execute(pool)
    .await
    .expect("they are added");
    report("(history)", start.elapsed(), usize::try_from(n).unwrap_or(0));
}

async fn vacuum(pool: &PgPool) {
    sqlx::query("VACUUM (ANALYZE) tasks").execute(pool).await.expect("a table can be vacuumed");
    sqlx::query("CHECKPOINT").execute(pool).await.expect("a checkpoint can be made");
}

async fn enrol(queue: &Queue, origin: &str, max_concurrency: Option<u32>) {
    let origin = origin.parse().expect("an origin");
    let site = NewEnrolment { max_concurrency, ..NewEnrolment::new(origin, "the benchmark") };
    queue.add_site(&site).await.expect("a site can be enrolled");
}

fn tasks(n: usize, site: impl Fn(usize) -> String) -> Vec<NewTask> {
    let task = |n| NewTask {
        task_type: "comment".to_owned(),
        url: format!("{}/post-{n}", site(n)),
        site: site(n),
        campaign_id: None,
        payload: json!({"author": "Ann", "email": "ann@example.org", "body": "A comment of ordinary length, as they are."}),
        max_retries: None,
        priority: 0,
        run_at: None,
        dedupe_key: None,
        traceparent: None,
        request_id: None,
    };
    (0..n).map(task).collect()
}

fn settlement(lease: pagehand::task::Lease) -> Settlement {
    Settlement {
        lease,
        outcome: Outcome::Completed { result: json!({"outcome": "posted"}) },
        execution_time: Duration::from_millis(1),
        steps: Vec::new(),
        artifacts: Vec::new(),
    }
}

fn report(what: &str, time: Duration, n: usize) {
    let per_second = n as f64 / time.as_secs_f64();
    println!("{what}: {:.2} s, {per_second:.0}/s", time.as_secs_f64());
}
