//! Passwords of tasks at rest: encrypted where there is a key, forgotten when the task is done, readable for whoever has to
//! go on; nowhere else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::response::Html;
use axum::routing::{get, post};
use pagehand::queue::{Kept, Outcome, Queue, QueueError, Resealed};
use pagehand::seal::Keys;
use pagehand::task::{NewTask, TaskId};
use rustix::process::Signal;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

#[path = "support/database.rs"]
mod database;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/leaks.rs"]
mod leaks;
#[path = "support/program.rs"]
mod program;
#[path = "support/tasks.rs"]
mod tasks;

use database::TestDb;
use leaks::{Needles, dump};
use program::{Program, signal, text, until};
use tasks::{LEASE, SITE, claim_one, completed, dead, settle, site, worker};

const PASSWORD: &str = "Kanarie+77 &\"<ü>'/x";
const KEY: &str = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU=";
const OTHER_KEY: &str = "6f746865722d6b65792d6f662d7468652d74657374732d33322d62797465732e";

fn keys(current: &str, older: &[&str]) -> Keys {
    let older: Vec<SecretString> = older.iter().map(|key| SecretString::from(*key)).collect();
    Keys::new(&current.into(), &older).unwrap()
}

fn payload() -> Value {
    json!({"username": "ann", "email": "ann@example.org", "password": PASSWORD})
}

fn registration() -> NewTask {
    NewTask { task_type: "registration".to_owned(), payload: payload(), ..tasks::task() }
}

async fn add(queue: &Queue) -> TaskId {
    tasks::add(queue, &[registration()]).await[0]
}

async fn stored(db: &TestDb, id: TaskId) -> Value {
    sqlx::query_scalar("SELECT payload FROM tasks WHERE id = $1").bind(id.0).fetch_one(&db.pool).await.unwrap()
}

async fn assert_nowhere(db: &TestDb, when: &str) {
    let needles = Needles::of(&[("password", PASSWORD)]);
    for (table, rows) in dump(&db.pool).await {
        needles.assert_absent(rows.as_bytes(), &format!("table {table}, {when}"));
    }
}

#[tokio::test]
async fn a_password_is_in_no_table_whatever_becomes_of_its_task_and_opens_for_each_attempt() {
    let db = TestDb::new().await;
    let queue = db.queue().await.with_keys(keys(KEY, &[]));
    queue.add_site(&site(SITE, None, None)).await.unwrap();
    let id = add(&queue).await;
    assert_nowhere(&db, "enqueued").await;
    let open = |claimed: &pagehand::queue::Claimed| {
        queue.keys().open(claimed.task.id, &claimed.task.url, &claimed.task.payload).unwrap()
    };

    // Lost with its worker, failed for good, retried by hand: each attempt can open it.
    let claimed = claim_one(&queue).await;
    assert!(!claimed.task.payload.to_string().contains("Kanarie"), "{:?}", claimed.task.payload);
    assert_eq!(open(&claimed), payload());
    sqlx::query("UPDATE tasks SET lease_expires_at = now() - interval '1 s'").execute(&db.pool).await.unwrap();
    assert_eq!(queue.reap(10).await.unwrap().len(), 1);
    assert_nowhere(&db, "lost").await;
    let claimed = claim_one(&queue).await;
    assert_eq!(open(&claimed), payload());
    settle(&queue, claimed.lease(), dead()).await;
    assert_nowhere(&db, "failed").await;
    queue.retry(id, false).await.unwrap();
    let claimed = claim_one(&queue).await;
    assert_eq!(open(&claimed), payload());
    settle(&queue, claimed.lease(), completed()).await;
    assert_nowhere(&db, "completed").await;
    assert_eq!(stored(&db, id).await["password"], "***", "what is done is never done again");
    assert_eq!(stored(&db, id).await["username"], "ann");

    let called_off = add(&queue).await;
    queue.cancel(called_off).await.unwrap();
    let stopped = add(&queue).await;
    let claimed = claim_one(&queue).await;
    settle(&queue, claimed.lease(), Outcome::Cancelled).await;
    for id in [called_off, stopped] {
        assert_eq!(stored(&db, id).await["password"], "***");
    }
    assert_nowhere(&db, "cancelled").await;
}

#[tokio::test]
async fn rows_from_before_there_was_a_key_still_work_and_are_sealed_when_asked_for() {
    let db = TestDb::new().await;
    let clear = db.queue().await;
    clear.add_site(&site(SITE, None, None)).await.unwrap();
    let before = add(&clear).await;
    assert_eq!(stored(&db, before).await, payload());
    sqlx::query("INSERT INTO tasks (task_type, url, site, payload) VALUES ('comment', 'https://example.org/', $1, '[\"password\"]')")
        .bind(SITE)
        .execute(&db.pool)
        .await
        .unwrap();

    let first = db.queue().await.with_keys(keys(KEY, &[]));
    let sealed = add(&first).await;
    let claimed = first.claim(&worker("w"), 1, LEASE).await.unwrap();
    assert_eq!(first.keys().open(before, &claimed[0].task.url, &claimed[0].task.payload), Ok(payload()));
    assert_eq!(first.reseal().await.unwrap(), Resealed { sealed: 1, unreadable: 0 });
    assert_nowhere(&db, "sealed anew").await;

    let rotated = db.queue().await.with_keys(keys(OTHER_KEY, &[KEY]));
    assert_eq!(rotated.reseal().await.unwrap(), Resealed { sealed: 2, unreadable: 0 });
    assert_eq!(rotated.reseal().await.unwrap(), Resealed::default(), "once is enough");
    let id = rotated.keys().current().unwrap().to_owned();
    assert_eq!(rotated.sealing_keys().await.unwrap(), std::slice::from_ref(&id), "the older key is no longer needed");
    assert_eq!(rotated.kept_secrets().await.unwrap(), [Kept { key: Some(id), tasks: 2 }]);
    let alone = db.queue().await.with_keys(keys(OTHER_KEY, &[]));
    let url = format!("{SITE}/post");
    assert_eq!(alone.keys().open(sealed, &url, &stored(&db, sealed).await), Ok(payload()));
    let lost = db.queue().await.with_keys(keys(KEY, &[]));
    assert_eq!(lost.reseal().await.unwrap(), Resealed { sealed: 0, unreadable: 2 });
    assert_eq!(alone.keys().open(before, &url, &stored(&db, before).await), Ok(payload()), "left as they were");
}

#[tokio::test]
async fn once_passwords_are_encrypted_nobody_adds_one_in_the_clear() {
    let db = TestDb::new().await;
    let sealing = db.queue().await.with_keys(keys(KEY, &[]));
    sealing.add_site(&site(SITE, None, None)).await.unwrap();
    add(&sealing).await;
    let keyless = db.queue().await;
    let refused = keyless.enqueue(&[registration()], 3).await.unwrap_err();
    assert!(matches!(&refused, QueueError::NoKey(_)) && refused.to_string().contains("secrets.key"), "{refused}");
    keyless.enqueue(&[tasks::task()], 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_without_the_key_says_which_setting_is_missing() {
    let program = Program::new().await;
    program.enrol("http://127.0.0.1:9").await;
    let line = json!({"task_type": "registration", "url": "http://127.0.0.1:9/join", "payload": payload()});
    std::fs::write(program.path().join("tasks.jsonl"), line.to_string()).unwrap();
    let enqueue = ["enqueue", "--file", "tasks.jsonl"];
    let check = async |program: &Program| {
        let checks = program.run(&["doctor", "--json"]).await;
        let checks: Value = serde_json::from_slice(&checks.stdout).unwrap();
        let found = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == "passwords").cloned();
        found.unwrap_or_else(|| panic!("{checks}"))
    };

    let added = program.run(&enqueue).await;
    assert!(added.status.success() && text(&added.stderr).contains("set secrets.key"), "{added:?}");
    let clear = check(&program).await;
    assert!(clear["ok"] == true && clear["found"].as_str().unwrap().contains("in the clear (1 "), "{clear}");
    assert!(clear["mend"].as_str().unwrap().contains("secrets.key"), "{clear}");

    let program = program.with("SEAL", KEY).with("PAGEHAND_SECRETS__KEY", "env:SEAL");
    assert!(program.run(&enqueue).await.stderr.is_empty());
    let half = check(&program).await;
    assert!(half["ok"] == true && half["mend"].as_str().unwrap().contains("--reseal"), "{half}");
    let resealed = program.run(&["migrate", "--reseal"]).await;
    assert!(resealed.status.success() && text(&resealed.stderr).contains("1 passwords"), "{resealed:?}");
    let sealed = check(&program).await;
    assert_eq!((&sealed["ok"], &sealed["mend"]), (&json!(true), &Value::Null), "{sealed}");
    assert!(sealed["found"].as_str().unwrap().starts_with("encrypted with key "), "{sealed}");

    let program = program.with("PAGEHAND_SECRETS__KEY", "env:NOWHERE");
    let missing = program.run(&enqueue).await;
    assert!(!missing.status.success() && text(&missing.stderr).contains("secrets.key"), "{missing:?}");
    let program = program.with("SEAL", "hunter2hunter2").with("PAGEHAND_SECRETS__KEY", "env:SEAL");
    let wrong = text(&program.run(&enqueue).await.stderr);
    assert!(wrong.contains("secrets.key") && wrong.contains("openssl rand") && !wrong.contains("hunter2"), "{wrong}");

    let program = program.with("SEAL", OTHER_KEY);
    let foreign = check(&program).await;
    assert!(foreign["ok"] == false && foreign["mend"].as_str().unwrap().contains("secrets.older_keys"), "{foreign}");
    let stopped = program.run(&["worker", "--drain"]).await;
    assert!(!stopped.status.success() && text(&stopped.stderr).contains("set secrets.key"), "{stopped:?}");

    let program = program.without("PAGEHAND_SECRETS__KEY");
    for args in [&enqueue[..], &["worker", "--drain"]] {
        let refused = program.run(args).await;
        assert!(!refused.status.success() && text(&refused.stderr).contains("set secrets.key"), "{args:?} {refused:?}");
    }
    let server = program.with("PAGEHAND_WEB__LISTEN", "127.0.0.1:0");
    let (server, address) = serve(&server).await;
    let json = [("content-type", "application/json")];
    let refused = http_client::send(address, "POST", "/runs", &json, &line.to_string()).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("secrets.key"), "{}", refused.text());
    drop(server);
}

/// The web server in the background, and where it listens.
async fn serve(program: &Program) -> (tokio::process::Child, std::net::SocketAddr) {
    let log = program.path().join("serve.log");
    let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
    let child = program.command(&["serve"]).stderr(file).spawn().unwrap();
    let mut address = None;
    until("the server listens", async || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let named = regex::Regex::new(r"127\.0\.0\.1:([1-9]\d+)").unwrap();
        address = named.find(&log).and_then(|found| found.as_str().parse().ok());
        address.is_some()
    })
    .await;
    (child, address.unwrap())
}

#[tokio::test]
async fn a_worker_that_cannot_open_a_password_says_so_in_the_failure() {
    let db = TestDb::new().await;
    let queue = db.queue().await.with_keys(keys(KEY, &[]));
    queue.add_site(&site(SITE, None, None)).await.unwrap();
    add(&queue).await;
    let claimed = claim_one(&queue).await;
    let keyless = keys(OTHER_KEY, &[]);
    let missing = keyless.open(claimed.task.id, &claimed.task.url, &claimed.task.payload).unwrap_err().to_string();
    assert!(missing.contains("secrets.key") && missing.contains(queue.keys().current().unwrap()), "{missing}");
    let moved = queue.keys().open(claimed.task.id, "https://evil.example/", &claimed.task.payload).unwrap_err();
    assert!(moved.to_string().contains("another task or site"), "{moved}");
}

/// Secrets of every kind, each with characters that every encoding writes otherwise.
const PLANTED: [(&str, &str); 11] = [
    ("task's password", PASSWORD),
    ("tester's header", "hdr-Kanarie/81 &\"<9>"),
    ("tester's cookie", "ck-Kanarie+99_zz"),
    ("proxy's password", "px-Kanarie&11 <y>"),
    ("mailbox's password", "mb-Kanarie 12&z"),
    ("api token", "tk-Kanarie13+/q~"),
    ("address's token", "ut-Kanarie15"),
    ("fragment's token", "ft-Kanarie16"),
    ("database's password", "db-Kanarie17"),
    ("model's key", "llm-Kanarie14+/w"),
    ("sealing key", KEY),
];

fn planted(name: &str) -> &'static str {
    PLANTED.iter().find(|(planted, _)| *planted == name).unwrap().1
}

/// A site, a proxy, a mail server and a language model that repeat every secret they are shown, in all encodings.
#[derive(Clone)]
struct Parrot {
    hung: Arc<AtomicUsize>,
    /// What it was sent as a collector of traces.
    traces: Arc<Mutex<Vec<u8>>>,
}

impl Parrot {
    /// On a port of its own; it is a forward proxy as well, for whoever asks it by whole addresses.
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/join", get(sign_up).post(signed_up))
            .route("/llm/chat/completions", post(model))
            .route("/v1/traces", post(collect))
            .fallback(nothing_here)
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        address
    }
}

/// A page that says what it was told in its text, its attributes, its address, its title and on the console.
fn repeat(headers: &HeaderMap, told: &[&str], body: &str) -> Html<String> {
    let of = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let shown: Vec<String> = ["x-tester", "cookie", "proxy-authorization"].into_iter().filter_map(of).collect();
    let mut texts: Vec<String> = told.iter().map(|text| (*text).to_owned()).chain(shown).collect();
    if headers.contains_key("proxy-authorization") {
        texts.push(planted("proxy's password").to_owned());
    }
    let said: Vec<String> = texts.iter().flat_map(|text| leaks::encodings(text)).map(|(_, encoded)| encoded).collect();
    let attributes = said.iter().map(|text| format!("<i title=\"{}\"></i>", text.replace('"', "&quot;")));
    let lines = serde_json::to_string(&said).unwrap().replace('<', "\\u003c");
    let text = texts.join(" ").replace('&', "&amp;").replace('<', "&lt;");
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Club {text}</title><h1>Club</h1>{body}<p>{text}</p>
         <pre>{}</pre>{}<script>const all = {lines}; for (const one of all) {{ console.log(one); console.error(one); }}
         history.replaceState(null, '', '?back=' + encodeURIComponent(all[0]));</script>",
        said.join("\n").replace('<', "&lt;"),
        attributes.collect::<String>()
    ))
}

async fn sign_up(headers: HeaderMap) -> Html<String> {
    repeat(
        &headers,
        &[],
        "<h2>Create an account</h2><form method=post action=/join><label>Username <input name=username required></label>
         <label>Email <input type=email name=email required></label>
         <label>Password <input type=password name=password autocomplete=new-password required></label>
         <button>Sign up</button></form>",
    )
}

async fn signed_up(
    State(parrot): State<Parrot>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Html<String> {
    let password = form["password"].as_str();
    assert_eq!(password, PASSWORD, "the site gets it as it is");
    let shown = password.replace('&', "&amp;").replace('<', "&lt;");
    match form["username"].as_str() {
        "good" => repeat(&headers, &[password], "<p role=status>Welcome! Your account has been created.</p>"),
        "mail" => repeat(
            &headers,
            &[password],
            "<p role=status>Thank you. Please check your email and follow the link in it.</p>",
        ),
        "hang" => {
            parrot.hung.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
        _ => repeat(
            &headers,
            &[password],
            &format!("<p role=alert class=error>Error: the password {shown} is too common.</p>"),
        ),
    }
}

async fn collect(State(parrot): State<Parrot>, body: axum::body::Bytes) -> &'static str {
    parrot.traces.lock().unwrap().extend_from_slice(&body);
    "{}"
}

async fn nothing_here(headers: HeaderMap) -> Html<String> {
    repeat(&headers, &[], "<p>Nothing to see.</p>")
}

async fn model(headers: HeaderMap) -> (http::StatusCode, String) {
    let key = headers.get("authorization").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    (http::StatusCode::UNAUTHORIZED, format!("{{\"error\":\"no such key: {}\"}}", key.unwrap_or_default()))
}

/// Refuses every log-in with the words of the log-in.
async fn mail_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let _ = stream.write_all(b"* OK ready\r\n").await;
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let (tag, said) = line.trim().split_once(' ').unwrap_or_default();
                let answer = format!("{tag} NO wrong: {said} {}\r\n", planted("mailbox's password"));
                let _ = stream.write_all(answer.as_bytes()).await;
                line.clear();
            }
        }
    });
    port
}

/// All files below, but for what the test itself wrote there.
fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let all = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    all.filter(|path| !path.ends_with("tasks.jsonl")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_nowhere_after_success_failure_and_a_killed_worker() {
    let parrot = Parrot { hung: Arc::default(), traces: Arc::default() };
    let (site, proxy, mail) = (parrot.start().await, parrot.start().await, mail_server().await);
    let origin = format!("http://{site}");
    let token = json!([{"name": "ops", "role": "operate", "token": "env:API_TOKEN"}]).to_string();
    let program = Program::new().await.short_lease();
    // Postgres asks nobody for a password on its socket, so it takes any.
    let database = program.db.url.replace("pagehand@", &format!("pagehand:{}@", planted("database's password")));
    assert_ne!(database, program.db.url);
    let program = program
        .with("DATABASE_URL", &database)
        .with("SEAL", KEY)
        .with("PAGEHAND_SECRETS__KEY", "env:SEAL")
        .with("TESTER_HEADER", planted("tester's header"))
        .with("TESTER_COOKIE", planted("tester's cookie"))
        .with("PROXY_PASSWORD", planted("proxy's password"))
        .with("MAIL_PASSWORD", planted("mailbox's password"))
        .with("API_TOKEN", planted("api token"))
        .with("MODEL_KEY", planted("model's key"))
        .with("PAGEHAND_MAILBOX__HOST", "127.0.0.1")
        .with("PAGEHAND_MAILBOX__PORT", &mail.to_string())
        .with("PAGEHAND_MAILBOX__TLS", "none")
        .with("PAGEHAND_MAILBOX__USER", "checks")
        .with("PAGEHAND_MAILBOX__PASSWORD", "env:MAIL_PASSWORD")
        .with("PAGEHAND_MAILBOX__ADDRESSES", r#"["*@checks.example.org"]"#)
        .with("PAGEHAND_LLM__URL", &format!("{origin}/llm"))
        .with("PAGEHAND_LLM__MODEL", "m")
        .with("PAGEHAND_LLM__KEY", "env:MODEL_KEY")
        .with("PAGEHAND_WEB__LISTEN", "127.0.0.1:0")
        .with("PAGEHAND_WEB__TOKENS", &token)
        .with("PAGEHAND_TRACES__ENDPOINT", &origin)
        .with("PAGEHAND_LOGS__DIR", "logs")
        .with("PAGEHAND_LOGS__FILTER", "info,pagehand=trace")
        .with("PAGEHAND_WORKER__TASK_TIMEOUT_SECONDS", "15")
        .with("PAGEHAND_WORKER__METRICS_LISTEN", "127.0.0.1:0");
    std::fs::write(
        program.path().join("site.toml"),
        "[tester]\nheaders = { X-Tester = \"env:TESTER_HEADER\" }\ncookies = { tester = \"env:TESTER_COOKIE\" }\n",
    )
    .unwrap();
    let add = ["site", "add", &origin, "--authorized-by", "the test", "--allow-private", "--profile", "site.toml"];
    let added = program.run(&add).await;
    assert!(added.status.success(), "{}", text(&added.stderr));
    let way_out = format!("http://robot@{proxy}");
    let added = program.run(&["proxy", "add", &way_out, "--site", &origin, "--password", "env:PROXY_PASSWORD"]).await;
    assert!(added.status.success(), "{}", text(&added.stderr));
    let line = |username: &str, email: &str| {
        json!({"task_type": "registration", "url": format!("{origin}/join?api_token={}#access_token={}", planted("address's token"), planted("fragment's token")), "max_retries": 0,
               "payload": {"username": username, "email": email, "password": PASSWORD}})
    };
    let needles = Needles::of(&PLANTED);

    // Killed while its submission waits for an answer.
    let hang = program.enqueue(&[line("hang", "ann@example.org")]).await[0];
    let mut killed = program.worker(&[]);
    until("the submission has left", async || parrot.hung.load(Ordering::SeqCst) > 0).await;
    let chromes = program.chromes();
    assert!(chromes.len() > 1, "{chromes:?}");
    for (pid, command) in chromes {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        needles.assert_absent(command.as_bytes(), "the command line of Chrome");
        needles.assert_absent(&environment, "the environment of Chrome");
    }
    signal(&killed, Signal::KILL);
    killed.wait().await.unwrap();

    let comment = json!({"task_type": "comment", "url": format!("{origin}/nowhere"), "max_retries": 0,
        "payload": {"author": "Ann", "email": "ann@example.org", "body": "Hello"}});
    let ids = program
        .enqueue(&[
            line("good", "ann@example.org"),
            line("bad", "ann@example.org"),
            line("mail", "a@checks.example.org"),
            comment,
        ])
        .await;
    program.drain().await;
    let shown = async |id: i64| {
        let run = program.show(id).await;
        (run["status"].as_str().unwrap().to_owned(), run["failure_code"].as_str().unwrap_or_default().to_owned(), run)
    };
    let (status, _, run) = shown(ids[0]).await;
    assert_eq!(status, "completed", "{run}\n{}", program.log());
    for (id, reason) in
        [(ids[1], "registration_failed"), (ids[2], "email_verification_failed"), (ids[3], "comment_form_not_found")]
    {
        let (_, _, run) = shown(id).await;
        assert_eq!(run["failure_reason"], reason, "{run}\n{}", program.log());
    }
    let (status, code, run) = shown(hang).await;
    assert_eq!((status.as_str(), code.as_str()), ("failed", "outcome.uncertain"), "{run}");

    let (server, address) = serve(&program).await;
    let authorization = format!("Bearer {}", planted("api token"));
    let mut paths: Vec<String> = [
        "/runs",
        "/runs/failed",
        "/failures",
        "/dashboard",
        "/metrics",
        "/metrics/summary?range=24h",
        "/audit",
        "/workers",
        "/runs/export?format=jsonl",
        "/runs/export?format=csv",
        "/openapi.json",
        "/no/such/page",
    ]
    .map(str::to_owned)
    .into();
    for id in ids.iter().chain([&hang]) {
        paths.push(format!("/runs/{id}"));
        for artifact in std::fs::read_dir(program.runs().join(id.to_string())).unwrap() {
            paths.push(format!("/runs/{id}/artifacts/{}", artifact.unwrap().file_name().into_string().unwrap()));
        }
    }
    for path in &paths {
        for accept in ["application/json", "text/html"] {
            let headers = [("authorization", authorization.as_str()), ("accept", accept)];
            let answer = http_client::send(address, "GET", path, &headers, "").await;
            assert!(answer.status.as_u16() < 500 && answer.status != 401, "{path}: {}", answer.text());
            needles.assert_absent(&answer.body, &format!("the answer to {path} ({accept})"));
        }
    }
    let bearer = [("authorization", authorization.as_str())];
    for id in ids.iter().chain([&hang]) {
        let packed = http_client::send(address, "GET", &format!("/runs/{id}/export"), &bearer, "").await;
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(packed.body.to_vec())).unwrap();
        assert!(zip.len() > 3);
        for n in 0..zip.len() {
            let (mut file, mut content) = (zip.by_index(n).unwrap(), Vec::new());
            std::io::Read::read_to_end(&mut file, &mut content).unwrap();
            needles.assert_absent(&content, &format!("{} of the export of run {id}", file.name()));
        }
        let id = id.to_string();
        for args in [vec!["runs", "show", &id], vec!["runs", "show", &id, "--json"]] {
            needles.assert_absent(&program.run(&args).await.stdout, &args.join(" "));
        }
    }
    for args in [vec!["runs", "ls"], vec!["runs", "ls", "--json"], vec!["runs", "export"], vec!["doctor"]] {
        let output = program.run(&args).await;
        assert!(output.stdout.len() > 100, "{args:?}");
        needles.assert_absent(&output.stdout, &args.join(" "));
        needles.assert_absent(&output.stderr, &args.join(" "));
    }
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    for (path, body) in [
        (
            "/runs".to_owned(),
            json!({"task_type": "registration", "password": PASSWORD, "payload": {"password": [PASSWORD]}}),
        ),
        (format!("/runs/{hang}/retry"), json!({})),
        (format!("/runs/{}/retry", ids[1]), json!({})),
    ] {
        let answer = http_client::send(address, "POST", &path, &headers, &body.to_string()).await;
        needles.assert_absent(&answer.body, &format!("the answer to POST {path}: {}", answer.status));
    }
    let wrong = [("authorization", format!("Bearer {}x", planted("api token")))];
    let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(http_client::send(address, "GET", "/runs", &wrong, "").await.status, 401);
    drop(server);

    let traces = parrot.traces.lock().unwrap().clone();
    assert!(String::from_utf8_lossy(&traces).contains("submit_form"), "{} bytes of traces", traces.len());
    needles.assert_absent(&traces, "the traces");
    for (table, rows) in dump(&program.db.pool).await {
        // Where the page is has to be known to whoever opens it.
        let addressed = ["address's token", "fragment's token"].map(planted);
        let rows =
            if table == "tasks" { addressed.iter().fold(rows, |rows, token| rows.replace(token, "")) } else { rows };
        needles.assert_absent(rows.as_bytes(), &format!("table {table}"));
    }
    let files = files(program.path());
    assert!(files.len() > 30, "{files:?}");
    for file in files {
        needles.assert_absent(&std::fs::read(&file).unwrap(), &file.display().to_string());
    }
}
