//! What an attacker sends to the HTTP API, and what must not come of it, over real connections on a real Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: what fails here fails the test")]

use std::net::SocketAddr;
use std::time::Duration;

use pagehand::failure::{Failure, FailureReason};
use pagehand::queue::{Outcome, Queue, Settlement, WorkerIdentity};
use pagehand::site::NewEnrolment;
use pagehand::task::NewTask;
use pagehand::web::{self, WebSettings};
use rand::prelude::*;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::{CancellationToken, DropGuard};

use database::TestDb;
use http_client::send;

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;

const JSON: (&str, &str) = ("content-type", "application/json");
const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

struct TestApp {
    address: SocketAddr,
    db: TestDb,
    runs: tempfile::TempDir,
    _stop: DropGuard,
}

/// A server with one dead letter and one task that waits.
async fn start() -> TestApp {
    let db = TestDb::new().await;
    let queue = db.queue().await;
    fill(&queue).await;
    let runs = tempfile::tempdir().unwrap();
    let settings = WebSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        hosts: Vec::new(),
        tokens: Vec::new(),
        default_max_retries: 3,
    };
    let server = web::Server::bind(settings, queue, runs.path().to_owned()).await.unwrap();
    let address = server.address();
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    TestApp { address, db, runs, _stop: stop.drop_guard() }
}

async fn fill(queue: &Queue) {
    let site = NewEnrolment::new("https://example.org".parse().unwrap(), "Ann");
    queue.add_site(&site).await.unwrap();
    let task = NewTask::from_value(&comment()).unwrap();
    queue.enqueue(std::slice::from_ref(&task), 0).await.unwrap();
    let worker = WorkerIdentity { name: "w".to_owned(), incarnation: "w1".to_owned() };
    let claimed = queue.claim(&worker, 1, Duration::from_secs(60)).await.unwrap();
    let failure = Failure::terminal(FailureReason::Timeout, "nav.timeout", "too slow");
    let settlement = Settlement {
        lease: claimed[0].lease(),
        outcome: Outcome::Dead { failure },
        execution_time: Duration::from_secs(1),
        steps: Vec::new(),
        artifacts: Vec::new(),
    };
    queue.settle(&[settlement]).await.unwrap();
    queue.enqueue(&[task], 0).await.unwrap();
}

fn comment() -> Value {
    json!({"task_type": "comment", "url": "https://example.org/post",
           "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}})
}

/// Everything in the tables that a request could change, as text.
async fn contents(db: &TestDb) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["tasks", "attempts", "steps", "artifacts", "sites", "proxies", "audit", "idempotency_keys"] {
        let rows = sqlx::AssertSqlSafe(format!(
            "SELECT coalesce(string_agg(t::text, '\n' ORDER BY t::text), '') FROM {table} t"
        ));
        all.push(sqlx::query_scalar::<_, String>(rows).fetch_one(&db.pool).await.unwrap());
    }
    all
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What breaks out of quotes, patterns, numbers and encodings.
const METACHARACTERS: [&str; 22] = [
    "'",
    "''",
    "';DROP TABLE tasks;--",
    "' OR '1'='1",
    "\" OR \"\"=\"",
    "\\",
    "\\'",
    "%",
    "_",
    "%%%%",
    "$1",
    "$$;SELECT pg_sleep(9);$$",
    "1;SELECT pg_sleep(9)",
    "1) UNION SELECT payload::text FROM tasks--",
    "/*",
    "--",
    "\u{0}",
    "\r\nx: y",
    "\u{2028}",
    "(?:a+)+$",
    "ＤＲＯＰ＇",
    "\u{202e}\u{feff}😀",
];

/// What each list takes in its query, by path: as the interface says, so that none is forgotten.
async fn parameters(app: &TestApp) -> Vec<(String, Vec<String>)> {
    let interface = send(app.address, "GET", "/openapi.json", &[], "").await.json();
    let paths = interface["paths"].as_object().unwrap();
    let lists = paths.iter().filter(|(path, _)| !path.contains('{') && !matches!(path.as_str(), "/events" | "/login"));
    let named = lists.filter_map(|(path, methods)| {
        let parameters = methods["get"]["parameters"].as_array()?;
        let in_query = parameters.iter().filter(|parameter| parameter["in"] == "query");
        let names: Vec<String> = in_query.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        (!names.is_empty()).then(|| (path.clone(), names))
    });
    named.collect()
}

/// Whether a filter of that name looks for any text.
fn takes_text(name: &str) -> bool {
    ["q", "failure_code", "task_type", "site", "failed_step", "step", "stuck_at"]
        .contains(&name.trim_start_matches("not_"))
}

#[tokio::test]
async fn whatever_stands_in_a_filter_it_is_only_text() {
    let app = start().await;
    let before = contents(&app.db).await;
    let lists = parameters(&app).await;
    let of_runs = &lists.iter().find(|(path, _)| path == "/runs").expect("it is described").1;
    assert!(of_runs.len() > 15 && lists.len() > 5, "{lists:?}");
    for (page, filters) in &lists {
        for filter in filters {
            for text in METACHARACTERS {
                let path = format!("{page}?{filter}={}", encoded(text));
                let answer = send(app.address, "GET", &path, &[], "").await;
                assert!(
                    matches!(answer.status.as_u16(), 200 | 400 | 404 | 422),
                    "{path}: {} {}",
                    answer.status,
                    answer.text()
                );
                if page == "/runs" && answer.status == 200 {
                    let found = answer.json()["runs"].as_array().unwrap().len();
                    let left_out = filter.starts_with("not_") && found == 2;
                    let held = filter == "q" && "https://example.org/post".contains(text.trim());
                    let blank = text.trim().is_empty() && found == 2;
                    assert!(takes_text(filter) && (found == 0 || left_out || held) || blank, "{path}: {found}");
                }
            }
        }
    }
    for filter in of_runs {
        for text in METACHARACTERS {
            let body = json!({ filter: text }).to_string();
            let answer = send(app.address, "POST", "/runs/retry", &[JSON], &body).await;
            assert!(answer.status.as_u16() < 500, "{body}: {}", answer.text());
            let all = filter == "q" || filter.starts_with("not_");
            assert!(answer.status != 200 || answer.json()["retried"] == 0 || all, "{body}: {}", answer.text());
        }
    }
    assert_eq!(contents(&app.db).await[1..6], before[1..6]);
}

/// `REQUESTS` says how many (500).
#[tokio::test]
async fn filters_that_are_mixed_at_random_break_nothing() {
    let app = start().await;
    let before = contents(&app.db).await;
    let lists = parameters(&app).await;
    let requests = std::env::var("REQUESTS").map_or(500, |n| n.parse().expect("REQUESTS is a number"));
    let mut random = StdRng::seed_from_u64(41);
    for _ in 0..requests {
        let (page, filters) = lists.choose(&mut random).unwrap();
        let pairs: Vec<String> = (0..random.random_range(1..5))
            .map(|_| {
                let parts = random.random_range(1..4);
                let text: String = METACHARACTERS.sample(&mut random, parts).copied().collect();
                format!("{}={}", filters.choose(&mut random).unwrap(), encoded(&text))
            })
            .collect();
        let path = format!("{page}?{}", pairs.join("&"));
        let answer = send(app.address, "GET", &path, &[], "").await;
        assert!(answer.status.as_u16() < 500, "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(contents(&app.db).await, before);
}

/// Addresses with what lists show of them as `***`, and some in which there is nothing to hide.
const ADDRESSES: [&str; 25] = [
    "https://example.org/post",
    "https://example.org:8443/a:b/c",
    "https://example.org/?p=123&page=2#comments",
    "https://example.org/join?invite_token=Kanarie-11&lang=en",
    "https://example.org/join?lang=en&Api_Key=Kanarie-12",
    "https://example.org/join#access_token=Kanarie-13&state=x",
    "https://example.org/join?a=b&amp;password=Kanarie-14",
    "https://example.org/go?to=https%3A%2F%2Fa.example%2F%3Ftoken%3DKanarie-15%26x%3D1",
    "https://example.org/?session-id=Kanarie-16",
    "https://example.org/?PHPSESSID=Kanarie-17",
    "https://example.org/a;jsessionid=Kanarie-31?b=c",
    "https://example.org/?user.sid=Kanarie-18&tokens=many",
    "https://example.org/?code=Kanarie-19&scope=all",
    "https://example.org/?otp=123456",
    "https://ann:Kanarie-20@example.org/x",
    "https://ann:p@ss:Kanarie-21@example.org/x?y=z@w",
    "ftp://Kanarie-22@example.org",
    "http:\\/\\/ann:Kanarie-23@example.org\\/x",
    "https://example.org/?x=cookie:%20Kanarie-24",
    "https://example.org/authorization:Kanarie-25/x",
    "https://example.org/?set-cookie=Kanarie-26",
    "https://example.org/?next=bearer Kanarie-27aaaa",
    "https://example.org/?monkey=1&keys=2&passage=3&author=4&design=5",
    "https://example.org/?x-amz-signature=Kanarie-28&jwt=Kanarie-29",
    "https://example.org/?q=<b>'token'=1</b>&\\u0026secret=Kanarie-30",
];

#[tokio::test]
async fn a_search_finds_nothing_of_an_address_that_is_not_shown() {
    let app = start().await;
    for url in ADDRESSES {
        let shown: String =
            sqlx::query_scalar("SELECT shown_address($1)").bind(url).fetch_one(&app.db.pool).await.unwrap();
        assert_eq!(shown, pagehand::telemetry::shown_url(url), "as the dashboard shows it");
        assert!(!shown.contains("Kanarie"), "{shown}");
        sqlx::query(
            "INSERT INTO tasks (task_type, url, site, payload, status, finished_at, failure_reason, failure_code, last_error)
             VALUES ('comment', $1, 'https://example.org', '{}', 'failed', now(), 'unknown', 'x', 'y')",
        )
        .bind(url)
        .execute(&app.db.pool)
        .await
        .unwrap();
    }
    let found = async |path: &str, text: &str| {
        let answer = send(app.address, "GET", &format!("{path}{}", encoded(text)), &[], "").await;
        assert_eq!(answer.status, 200, "{path}{text}: {}", answer.text());
        answer
    };
    for text in [
        "Kanarie",
        "kanarie-1",
        "token=k",
        "token=kanarie-11",
        "ann:k",
        "Kanarie-20@",
        "sid=k",
        "=Kanarie-12",
        "123456",
    ] {
        for path in ["/runs?q=", "/runs/failed?q=", "/runs?status=failed&q="] {
            assert_eq!(found(path, text).await.json()["runs"], json!([]), "{path}{text}");
        }
        assert_eq!(found("/runs/retry?q=", text).await.json()["matching"], 0, "{text}");
        assert_eq!(found("/runs/export?q=", text).await.text(), "", "{text}");
        let all = send(app.address, "POST", "/runs/retry", &[JSON], &json!({ "q": text }).to_string()).await;
        assert_eq!(all.json()["retried"], 0, "{text}: {}", all.text());
    }
    for (text, n) in
        [("invite_token=", 1), ("p=123", 1), ("INVITE_token", 1), ("/authorization:", 1), ("example.org/join", 4)]
    {
        let runs = found("/runs?q=", text).await.json();
        assert_eq!(runs["runs"].as_array().unwrap().len(), n, "{text}: {runs}");
    }
}

#[tokio::test]
async fn an_id_is_a_number_of_a_run_and_nothing_else() {
    let app = start().await;
    let before = contents(&app.db).await;
    let long = "9".repeat(4096);
    let ids = [
        "0",
        "-1",
        "+1",
        "01",
        "1e3",
        "1.0",
        "0x1",
        "９",
        "9223372036854775808",
        "99999999999999999999999",
        &long,
        "..",
        "%2e%2e",
        "%00",
        "1%00",
        "1;2",
        "1%20",
        "%c0%af",
        "%ff",
        "..%2f..%2fetc%2fpasswd",
        "..%5c",
        "1'",
        "1--",
        "%2F",
        "null",
        "true",
        "*",
    ];
    for id in ids {
        for (method, rest) in [("GET", ""), ("GET", "/artifacts/init.json"), ("POST", "/retry"), ("POST", "/cancel")] {
            let id = encoded_once(id);
            let answer = send(app.address, method, &format!("/runs/{id}{rest}"), &[JSON], "{}").await;
            assert!(matches!(answer.status.as_u16(), 400 | 404 | 405), "{method} /runs/{id}{rest}: {}", answer.status);
        }
    }
    for ids in [
        json!([9_223_372_036_854_775_807_i64]),
        json!(["x"]),
        json!([1.5]),
        json!([-1]),
        json!("x"),
        json!({"1": 1}),
        json!(vec![1; 100_000]),
    ] {
        let answer = send(app.address, "POST", "/runs/retry", &[JSON], &json!({ "ids": ids }).to_string()).await;
        assert!(answer.status.as_u16() < 500, "{}", answer.text());
        assert!(answer.status != 200 || answer.json()["retried"] == 0, "{}", answer.text());
    }
    assert_eq!(contents(&app.db).await[0], before[0]);
}

/// What an address can't carry as it is.
fn encoded_once(text: &str) -> String {
    if text.is_ascii() && !text.contains(['*', '\'']) { text.to_owned() } else { encoded(text) }
}

#[tokio::test]
async fn no_number_or_size_is_taken_without_a_bound() {
    let app = start().await;
    for query in [
        "limit=0",
        "limit=-1",
        "limit=1000000000",
        "limit=1e9",
        "limit=99999999999999999999",
        "since=-1",
        "since=99999999999d",
        "since=0000-00-00",
        "until=9999999999999999",
        "cursor=99999999999999999999",
        "refresh=0.000001",
    ] {
        let answer = send(app.address, "GET", &format!("/runs?{query}"), &[], "").await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    for range in ["0", "-24h", "1e9d", "99999999d", "all", "24h,7d"] {
        assert_eq!(
            send(app.address, "GET", &format!("/metrics/summary?range={range}"), &[], "").await.status,
            400,
            "{range}"
        );
    }
    for (field, value) in [
        ("max_retries", json!(1_000_000)),
        ("max_retries", json!(-1)),
        ("priority", json!(100_000)),
        ("priority", json!("1")),
        ("campaign_id", json!(1e30)),
        ("run_at", json!("275760-09-13T00:00:00Z")),
        ("run_at", json!(-1)),
        ("task_type", json!("x".repeat(9999))),
        ("dedupe_key", json!("x".repeat(100_000))),
        ("url", json!(format!("https://example.org/{}", "x".repeat(65_536)))),
    ] {
        let mut task = comment();
        task[field] = value;
        let answer = send(app.address, "POST", "/runs", &[JSON], &task.to_string()).await;
        assert!(matches!(answer.status.as_u16(), 400 | 413 | 422), "{field}: {} {}", answer.status, answer.text());
    }
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    for path in ["/runs", "/runs/retry", "/runs/1/retry"] {
        assert_eq!(send(app.address, "POST", path, &[JSON], &deep).await.status.as_u16() / 100, 4, "{path}");
    }
    let wide = format!("/runs?{}", "q=a&".repeat(10_000));
    let status = raw(app.address, &format!("GET {wide} HTTP/1.1\r\nhost: {}\r\n\r\n", app.address)).await;
    // 400: it came in one piece, and its parameter is given too often.
    assert!(matches!(status.as_str(), "" | "400" | "414" | "431"), "{status}");
}

#[tokio::test]
async fn reading_changes_nothing() {
    let app = start().await;
    let before = contents(&app.db).await;
    for (_, pattern) in web::routes().into_iter().filter(|(_, path)| *path != "/events") {
        let path = pattern.replace("{id}", "1").replace("{name}", "init.json").replace("{n}", "0");
        for method in ["GET", "HEAD"] {
            for query in ["", "?confirm_uncertain=true", "?_method=POST", "?status=failed"] {
                let overriding = ("x-http-method-override", "POST");
                let answer = send(app.address, method, &format!("{path}{query}"), &[HTML, overriding], "").await;
                assert!(answer.status.as_u16() < 500, "{method} {path}{query}");
            }
        }
        for method in ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "OPTIONS", "PROPFIND"] {
            if method != "CONNECT" {
                let answer = send(app.address, method, &path, &[JSON], "{}").await;
                assert!(matches!(answer.status.as_u16(), 403..=405), "{method} {path}: {}", answer.status);
                assert_eq!(answer.header("access-control-allow-methods"), "");
            }
        }
    }
    assert_eq!(contents(&app.db).await, before);
}

#[tokio::test]
async fn nothing_that_a_client_sends_becomes_a_header_of_the_answer() {
    let app = start().await;
    let hostile = ["a b", "\"<script>", "x;y", "é"];
    for id in hostile {
        let text =
            format!("GET /runs HTTP/1.1\r\nhost: {}\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n", app.address);
        let mut stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let head = String::from_utf8_lossy(&answer).split("\r\n\r\n").next().unwrap().to_owned();
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        assert!(!head.contains(id), "{head}");
    }
    for next in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/%0d%0aset-cookie:%20a=b",
        "javascript:alert(1)",
        "/\u{9}/evil",
    ] {
        let form = format!("token=x&next={}", encoded(next));
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin"), HTML];
        let answer = send(app.address, "POST", "/login", &headers, &form).await;
        assert_eq!(answer.status, 303);
        let to = answer.header("location");
        assert!(
            to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/\\") && !to.contains(['\r', '\n']),
            "{next}: {to}"
        );
        assert_eq!(answer.header("set-cookie"), "", "{next}");
    }
}

#[tokio::test]
async fn a_request_that_is_not_plain_http_is_refused_and_the_server_stays() {
    let app = start().await;
    let host = app.address;
    let many = "x: y\r\n".repeat(20_000);
    for text in [
        "\u{0}\u{1}\u{2}\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: {host}\r\nhost: evil.example\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: {host}\r\n{many}\r\n"),
        format!(
            "POST /runs HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("POST /runs HTTP/1.1\r\nhost: {host}\r\ncontent-length: -1\r\n\r\n"),
        format!("POST /runs HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        "GET http://169.254.169.254/ HTTP/1.1\r\nhost: 169.254.169.254\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let status = raw(app.address, &text).await;
        assert!(status.is_empty() || status.starts_with('4'), "{:?}: {status}", text.get(..60));
    }
    assert_eq!(send(app.address, "GET", "/healthz", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_client_that_dawdles_over_its_headers_is_cut_off() {
    let app = start().await;
    let mut slow = tokio::net::TcpStream::connect(app.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still connected");
}

#[tokio::test]
async fn clients_that_take_nothing_of_their_zips_hold_only_so_many_threads() {
    const PICTURE: &str = "final_screenshot_20260101T120000000Z.png";
    let app = start().await;
    let run = app.runs.path().join("1");
    std::fs::create_dir(&run).unwrap();
    // More than the buffers of a connection hold.
    std::fs::File::create(run.join(PICTURE)).unwrap().set_len(256 << 20).unwrap();
    let mut dawdling = Vec::new();
    for _ in 0..8 {
        let mut client = tokio::net::TcpStream::connect(app.address).await.unwrap();
        client.write_all(b"GET /runs/1/export HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        dawdling.push(client);
    }
    let refused = send(app.address, "GET", "/runs/1/export", &[], "").await;
    assert_eq!(refused.status, 503);
    assert_eq!(send(app.address, "GET", &format!("/runs/1/artifacts/{PICTURE}"), &[], "").await.status, 200);
    drop(dawdling);
    let again = async {
        while send(app.address, "HEAD", "/runs/1/export", &[], "").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("the places are given back");
}

/// The status of the answer to these very bytes; empty where the connection was closed without one.
async fn raw(to: SocketAddr, text: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    // The server may answer and close before it has read all.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no end of the answer to {:?}", text.get(..60));
    let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}
