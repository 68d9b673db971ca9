//! How a site is visited: under which name it is enrolled, when it is left alone, what its robots.txt says, and how it knows
//! who comes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use pagehand::site::{Manners, NewEnrolment};
use serde_json::{Value, json};
use sha2::Sha256;

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;
#[path = "support/tasks.rs"]
mod tasks;

use database::TestDb;
use program::{Program, text};
use tasks::{LEASE, SITE, add, site, task_on, worker};

/// What a site answers when it is asked for its robots.txt.
#[derive(Clone, Copy)]
enum File {
    Says(&'static str),
    Missing,
    Broken,
    Silent,
    Endless,
}

#[derive(Clone)]
struct Site {
    origin: String,
    file: File,
    asked: Arc<Mutex<Vec<Request<()>>>>,
}

impl Site {
    async fn start(file: File) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { origin, file, asked: Arc::default() };
        let router = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn hits(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|request| request.uri().path() == path).count()
    }

    fn task(&self, path: &str) -> Value {
        json!({"task_type": "comment", "url": format!("{}{path}", self.origin), "max_retries": 0,
               "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}})
    }
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().to_owned();
    site.asked.lock().unwrap().push(Request::from_parts(parts, ()));
    match (path.as_str(), site.file) {
        ("/robots.txt", File::Says(text)) => text.into_response(),
        ("/robots.txt", File::Missing) => http::StatusCode::NOT_FOUND.into_response(),
        ("/robots.txt", File::Broken) => http::StatusCode::BAD_GATEWAY.into_response(),
        ("/robots.txt", File::Endless) => {
            let lines =
                futures::stream::repeat_with(|| Ok::<_, std::io::Error>("Disallow: /nowhere/at/all\n".repeat(1_000)));
            axum::body::Body::from_stream(lines).into_response()
        }
        ("/robots.txt", File::Silent) => std::future::pending().await,
        _ => {
            Html("<!doctype html><title>A page</title><h1>Nothing here</h1><link rel=icon href=data:,>").into_response()
        }
    }
}

async fn enrol(program: &Program, origin: &str, more: &[&str]) {
    let all = [&["site", "add", origin, "--authorized-by", "Ann", "--allow-private"], more].concat();
    let added = program.run(&all).await;
    assert!(added.status.success(), "{}", text(&added.stderr));
}

async fn code(program: &Program, id: i64) -> String {
    program.show(id).await["failure_code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_robots_txt_keeps_from_us_is_not_opened_and_the_file_is_fetched_once_for_all_workers() {
    let site = Site::start(File::Says("User-agent: *\nAllow: /\n\nUser-agent: pagehand\nDisallow: /kept/\n")).await;
    let program = Program::new().await;
    enrol(&program, &site.origin, &[]).await;
    let ids = program.enqueue(&[site.task("/kept/page"), site.task("/open"), site.task("/kept/other")]).await;
    program.drain().await;
    let kept = program.show(ids[0]).await;
    assert_eq!((&kept["status"], &kept["failure_reason"]), (&json!("failed"), &json!("blocked")), "{kept}");
    assert_eq!((&kept["failure_code"], &kept["retry_count"]), (&json!("policy.robots"), &json!(0)));
    let why = kept["last_error"].as_str().unwrap();
    assert!(why.contains("Ann allows it") && why.contains("--robots ignore"), "{why}");
    let steps = program.steps(ids[0]);
    assert_eq!(steps.last().unwrap(), "result_failed");
    assert!(!steps.contains(&"automation_context_entered".to_owned()), "{steps:?}");
    assert_eq!(code(&program, ids[1]).await, "comments.no_form");
    assert_eq!((site.hits("/kept/page"), site.hits("/kept/other"), site.hits("/open")), (0, 0, 1));

    // Another process, later.
    let again = program.enqueue(&[site.task("/kept/again")]).await[0];
    program.drain().await;
    assert_eq!(code(&program, again).await, "policy.robots");
    assert_eq!(site.hits("/robots.txt"), 1);

    enrol(&program, &site.origin, &["--robots", "ignore"]).await;
    let listed = program.json(&["site", "ls", "--json"]).await;
    assert_eq!(listed["sites"][0]["robots"], "ignore", "{listed}");
    let who: (String, Value) =
        sqlx::query_as("SELECT who, details FROM audit WHERE action = 'site.add' ORDER BY id DESC LIMIT 1")
            .fetch_one(&program.db.pool)
            .await
            .unwrap();
    assert_eq!((who.0.as_str(), &who.1["manners"]["robots"]), ("Ann", &json!("ignore")));
    let allowed = program.enqueue(&[site.task("/kept/page")]).await[0];
    program.drain().await;
    assert_eq!(code(&program, allowed).await, "comments.no_form");
    assert_eq!(site.hits("/kept/page"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_without_robots_txt_is_visited_and_one_that_does_not_answer_for_it_costs_one_short_wait() {
    let program = Program::new().await;
    for (file, at_least) in [(File::Missing, 0.0), (File::Broken, 0.0), (File::Endless, 0.0), (File::Silent, 3.0)] {
        let site = Site::start(file).await;
        enrol(&program, &site.origin, &[]).await;
        let first = program.enqueue(&[site.task("/a")]).await[0];
        program.drain().await;
        assert_eq!(code(&program, first).await, "comments.no_form");
        let took = |run: &Value| {
            let steps = run["attempts"][0]["steps"].as_array().unwrap();
            let at = |name: &str| {
                let step = steps.iter().find(|step| step["name"] == name).unwrap();
                step["started_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap()
            };
            (at("automation_context_entered") - at("starting_automation_execution")).as_seconds_f64()
        };
        let waited = took(&program.show(first).await);
        assert!(waited >= at_least && (at_least > 0.0 || waited < 3.0), "{waited}");
        let begun = Instant::now();
        let second = program.enqueue(&[site.task("/b")]).await[0];
        program.drain().await;
        assert!(took(&program.show(second).await) < 3.0, "after {:?}", begun.elapsed());
        assert_eq!((site.hits("/robots.txt"), site.hits("/a"), site.hits("/b")), (1, 1, 1));
        let kept: Option<i32> = sqlx::query_scalar("SELECT octet_length(body) FROM robots_txt WHERE origin = $1")
            .bind(&site.origin)
            .fetch_one(&program.db.pool)
            .await
            .unwrap();
        assert_eq!(kept, matches!(file, File::Endless).then_some(500 << 10), "500 KiB are read, not more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_sees_whom_it_may_ask_and_knows_its_own_checks_by_their_signature() {
    let site = Site::start(File::Missing).await;
    let program = Program::new().await.with("SIGNING", "shared with the site");
    std::fs::write(
        program.path().join("site.toml"),
        "[tester]\nsigning_key = \"env:SIGNING\"\nsigning_key_id = \"checks-1\"\n",
    )
    .unwrap();
    let contact = "https://example.org/our-checks";
    enrol(&program, &site.origin, &["--contact", contact, "--profile", "site.toml"]).await;
    let id = program.enqueue(&[site.task("/page?x=1")]).await[0];
    program.drain().await;
    assert_eq!(code(&program, id).await, "comments.no_form", "{}", program.log());
    let asked = site.asked.lock().unwrap();
    assert!(asked.len() >= 2, "{asked:?}");
    for request in asked.iter() {
        let of = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(of("user-agent"), format!("pagehand/{} (+{contact})", env!("CARGO_PKG_VERSION")));
        let (input, signature) = (of("signature-input"), of("signature"));
        let parameters = input.strip_prefix("pagehand=").unwrap();
        let created = parameters.split(";created=").nth(1).unwrap().split(';').next().unwrap();
        let age = chrono::Utc::now().timestamp() - created.parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{input}");
        assert!(parameters.ends_with(";keyid=\"checks-1\";alg=\"hmac-sha256\""), "{input}");
        let base = format!(
            "\"@method\": {}\n\"@authority\": {}\n\"@path\": {}\n\"@signature-params\": {parameters}",
            request.method(),
            of("host"),
            request.uri().path()
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(b"shared with the site").unwrap();
        mac.update(base.as_bytes());
        assert_eq!(signature, format!("pagehand=:{}:", STANDARD.encode(mac.finalize().into_bytes())), "{base}");
    }
}

#[tokio::test]
async fn nothing_is_begun_in_a_sites_quiet_hours_by_its_own_clocks() {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    let clock = async |shift: &str| -> String {
        let sql =
            format!("SELECT to_char(clock_timestamp() AT TIME ZONE 'Asia/Tokyo' + interval '{shift}', 'HH24:MI')");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&db.pool).await.unwrap()
    };
    let set = async |from: &str, to: &str| {
        let hours = format!("{}-{} Asia/Tokyo", clock(from).await, clock(to).await);
        let manners = Manners { quiet_hours: Some(hours.parse().unwrap()), ..Manners::default() };
        queue.add_site(&NewEnrolment { manners, ..site(SITE, None, None) }).await.unwrap();
    };
    add(&queue, &[task_on(SITE), task_on(SITE), task_on(SITE)]).await;
    let claims = async || queue.claim(&worker("w"), 1, LEASE).await.unwrap().len();
    // One of the spans goes over midnight, whatever time it is.
    for (from, to) in [("-1 hour", "1 hour"), ("-10 minutes", "13 hours"), ("-13 hours", "10 minutes")] {
        set(from, to).await;
        assert_eq!(claims().await, 0, "{from} to {to}");
    }
    for (from, to) in [("1 hour", "2 hours"), ("10 minutes", "13 hours"), ("-13 hours", "-10 minutes")] {
        set(from, to).await;
        assert_eq!(claims().await, 1, "{from} to {to}");
    }
    let nowhere = Manners { quiet_hours: Some("01:00-02:00 Mars/Olympus".parse().unwrap()), ..Manners::default() };
    let refused = queue.add_site(&NewEnrolment { manners: nowhere, ..site(SITE, None, None) }).await.unwrap_err();
    assert!(refused.to_string().contains("Mars/Olympus"), "{refused}");
}

#[tokio::test]
async fn a_wildcard_is_one_site_whose_limits_hold_for_all_of_its_hosts_together() {
    let program = Program::new().await;
    let add = async |origin: &str, more: &[&str]| {
        program.run(&[&["site", "add", origin, "--authorized-by", "Ann"], more].concat()).await
    };
    for (wrong, hint) in [
        ("https://*.co.uk", "co.uk belong to many"),
        ("https://*.github.io", "github.io belong to many"),
        ("https://a.*.org", "first labels"),
    ] {
        let refused = add(wrong, &[]).await;
        assert_eq!(refused.status.code(), Some(2), "{wrong}");
        assert!(text(&refused.stderr).contains(hint), "{}", text(&refused.stderr));
    }
    assert!(add("https://*.example.org", &["--max-concurrency", "2"]).await.status.success());
    assert!(add("https://own.example.org", &[]).await.status.success());
    let line = |host: &str| {
        json!({"task_type": "comment", "url": format!("https://{host}/post"),
               "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}})
    };
    let ids =
        program.enqueue(&["a.example.org", "b.example.org", "c.d.example.org", "own.example.org"].map(line)).await;
    for (id, site) in ids.iter().zip(["*.example.org", "*.example.org", "*.example.org", "own.example.org"]) {
        assert_eq!(program.show(*id).await["site"], format!("https://{site}"));
    }
    for stranger in ["example.org", "example.org.evil.example", "notexample.org", "a.example.com"] {
        std::fs::write(program.path().join("stranger.jsonl"), line(stranger).to_string()).unwrap();
        let refused = program.run(&["enqueue", "--file", "stranger.jsonl"]).await;
        assert!(text(&refused.stderr).contains("is not enrolled"), "{stranger}: {}", text(&refused.stderr));
    }
    let queue = program.db.queue().await;
    let claimed = queue.claim(&worker("w"), 10, LEASE).await.unwrap();
    let sites: Vec<&str> = claimed.iter().map(|claimed| claimed.task.site.as_str()).collect();
    assert_eq!(sites.iter().filter(|site| **site == "https://*.example.org").count(), 2, "{sites:?}");
    assert_eq!(sites.len(), 3);

    // The closest that may be acted on decides.
    let closest = async |origin: &str| queue.enrolment(origin).await.unwrap().map(|(site, _)| site.origin.to_string());
    assert_eq!(closest("https://own.example.org").await.as_deref(), Some("https://own.example.org"));
    assert!(program.run(&["site", "rm", "https://own.example.org"]).await.status.success());
    assert_eq!(closest("https://own.example.org").await.as_deref(), Some("https://*.example.org"));
    assert_eq!(closest("http://own.example.org").await, None, "another scheme is another site");
    assert!(program.run(&["site", "rm", "https://*.example.org"]).await.status.success());
    let (gone, now) = queue.enrolment("https://a.example.org").await.unwrap().unwrap();
    assert!(gone.check_active(now).is_err());
    // Whoever holds a lease on it submits nothing any more.
    let lease = claimed.iter().find(|claimed| claimed.task.site.contains('*')).unwrap().lease();
    let refused = queue.commit_intent(lease, &json!({}), LEASE).await.unwrap_err();
    assert!(refused.to_string().contains("removed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_acts_on_the_hosts_of_a_wildcard_and_not_on_a_row_that_goes_around_it() {
    let program = Program::new().await;
    let added = program.run(&["site", "add", "http://*.nowhere.example", "--authorized-by", "Ann"]).await;
    assert!(added.status.success(), "{}", text(&added.stderr));
    let line = json!({"task_type": "comment", "url": "http://a.nowhere.example/", "max_retries": 0,
                      "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}});
    let id = program.enqueue(std::slice::from_ref(&line)).await[0];
    let by_hand: i64 = sqlx::query_scalar(
        "INSERT INTO tasks (task_type, url, site, payload, ready) VALUES ('comment', $1, 'http://a.nowhere.example', $2, true) RETURNING id",
    )
    .bind(line["url"].as_str().unwrap())
    .bind(&line["payload"])
    .fetch_one(&program.db.pool)
    .await
    .unwrap();
    program.drain().await;
    assert_eq!(code(&program, id).await, "net.dns", "it was let out");
    assert_eq!(code(&program, by_hand).await, "policy.not_enrolled");
}
