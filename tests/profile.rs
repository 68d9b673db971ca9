//! Site profiles at work: what is pinned is used, and what a site gives its testers goes to that site alone and into no
//! record.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/program.rs"]
mod program;

use program::Program;

const HEADER: &str = "header-secret-41c7";
const COOKIE: &str = "cookie-secret-9d02";
const KEY: &str = "key-secret-77ab";

#[derive(Default)]
struct Book {
    /// Path, `X-Tester` and `Cookie` of each request.
    asked: Vec<(String, Option<String>, Option<String>)>,
    sent: Vec<HashMap<String, String>>,
}

#[derive(Clone)]
struct Site {
    origin: String,
    /// Of another origin, for pictures and redirects.
    other: String,
    book: Arc<Mutex<Book>>,
}

impl Site {
    async fn start(other: &str) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { origin, other: other.to_owned(), book: Arc::default() };
        let router = Router::new()
            .route("/", get(home))
            .route("/away.png", get(away))
            .route("/join", post(join))
            .fallback(anything)
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn note(&self, uri: &Uri, headers: &HeaderMap) {
        let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.book.lock().unwrap().asked.push((uri.path().to_owned(), of("x-tester"), of("cookie")));
    }
}

/// A sign-up that nobody finds alone: behind a tab, its fields nameless, one of them required and unknown, a CAPTCHA over it.
async fn home(State(site): State<Site>, uri: Uri, headers: HeaderMap) -> Html<String> {
    site.note(&uri, &headers);
    Html(format!(
        "<!doctype html><html lang=en><title>Club</title><h1>Club</h1><a href=# id=tab>For members</a>
         <img src=/away.png><img src='{}/pixel.png'>
         <form id=f method=post action=/join hidden><input id=a name=a><input id=b name=b><input id=c name=c type=password>
         <input id=d name=d required placeholder='Zxq'><input id=k name=k><div class=g-recaptcha data-sitekey=x>robot?</div>
         <button id=go>Zxq!</button></form>
         <script>document.getElementById('tab').onclick = () => {{ document.getElementById('f').hidden = false; }};</script>",
        site.other
    ))
}

/// A redirect away from the site must not take along what is meant for the site.
async fn away(State(site): State<Site>, uri: Uri, headers: HeaderMap) -> Response {
    site.note(&uri, &headers);
    Redirect::temporary(&format!("{}/redirected.png", site.other)).into_response()
}

async fn join(
    State(site): State<Site>,
    uri: Uri,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Html<String> {
    site.note(&uri, &headers);
    let said = format!("<p>Vrbl. Key {}, header {HEADER}, cookie {COOKIE}.</p>", form["k"]);
    site.book.lock().unwrap().sent.push(form);
    Html(format!("<!doctype html><title>Club</title><h1>Club</h1>{said}"))
}

async fn anything(State(site): State<Site>, uri: Uri, headers: HeaderMap) -> &'static str {
    site.note(&uri, &headers);
    ""
}

const PROFILE: &str = r##"
[registration]
steps = [{ click = "#tab" }, { wait_for = "#a" }]
form = "#f"
submit = "#go"
success = ["Vrbl"]
[registration.fields]
username = "#a"
email = "#b"
password = "#c"
[[registration.extra]]
selector = "#d"
value = "Head office"
[[registration.extra]]
selector = "#k"
secret = "env:TEST_KEY"
[tester]
captcha_passes = true
headers = { X-Tester = "env:TEST_HEADER" }
cookies = { tester = "env:TEST_COOKIE" }
"##;

async fn program() -> Program {
    Program::new().await.with("TEST_KEY", KEY).with("TEST_HEADER", HEADER).with("TEST_COOKIE", COOKIE)
}

fn task(site: &Site) -> Value {
    json!({"task_type": "registration", "url": format!("{}/", site.origin), "max_retries": 0,
        "payload": {"username": "ann7", "email": "ann@example.org", "password": "Own-Passw0rd"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_is_used_and_no_secret_leaves_the_site_or_enters_the_record() {
    let other = Site::start("http://127.0.0.1:1").await;
    // To Chrome another host, so that the cookie is not its either.
    let site = Site::start(&other.origin.replace("127.0.0.1", "localhost")).await;
    let program = program().await;
    // Enrolled, so that nothing keeps the page from it.
    program.enrol(&site.other).await;
    std::fs::write(program.path().join("site.toml"), PROFILE).unwrap();
    let add = ["site", "add", &site.origin, "--authorized-by", "the test", "--allow-private", "--profile", "site.toml"];
    let added = program.run(&add).await;
    assert!(added.status.success(), "{}", program::text(&added.stderr));
    let id = program.enqueue(&[task(&site)]).await[0];
    program.drain().await;

    let shown = program.show(id).await;
    assert_eq!(shown["status"], "completed", "{shown}\n{}", program.log());
    {
        let book = site.book.lock().unwrap();
        let sent = &book.sent[0];
        let of = |name: &str| sent[name].as_str();
        assert_eq!((of("a"), of("b"), of("c")), ("ann7", "ann@example.org", "Own-Passw0rd"));
        assert_eq!((of("d"), of("k")), ("Head office", KEY));
        for (path, header, cookie) in &book.asked {
            assert_eq!(header.as_deref(), Some(HEADER), "{path}");
            assert_eq!(cookie.as_deref(), Some(format!("tester={COOKIE}").as_str()), "{path}");
        }
        let elsewhere = other.book.lock().unwrap();
        let paths: Vec<&str> = elsewhere.asked.iter().map(|(path, ..)| path.as_str()).collect();
        assert!(paths.contains(&"/pixel.png") && paths.contains(&"/redirected.png"), "{paths:?}");
        assert!(
            elsewhere.asked.iter().all(|(_, header, cookie)| header.is_none() && cookie.is_none()),
            "{:?}",
            elsewhere.asked
        );
    }
    for secret in [HEADER, COOKIE, KEY] {
        for file in files(&program.runs()) {
            let bytes = std::fs::read(&file).unwrap();
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", file.display());
        }
        assert!(!shown.to_string().contains(secret) && !program.log().contains(secret));
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_profile_the_same_sign_up_is_not_found() {
    let site = Site::start("http://127.0.0.1:1").await;
    let program = program().await;
    program.enrol(&site.origin).await;
    let id = program.enqueue(&[task(&site)]).await[0];
    program.drain().await;
    assert_eq!(program.show(id).await["status"], "failed");
    assert!(site.book.lock().unwrap().sent.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_is_wrong_is_refused_with_its_keys_and_a_missing_secret_is_named() {
    let site = Site::start("http://127.0.0.1:1").await;
    let program = Program::new().await;
    program.enrol(&site.origin).await;
    std::fs::write(
        program.path().join("wrong.toml"),
        "[registration]\nform = \"#f[\"\n[registration.fields]\nmail = \"#b\"\n",
    )
    .unwrap();
    let refused = program.run(&["site", "profile", &site.origin, "wrong.toml"]).await;
    let said = program::text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("registration.form") && said.contains("registration.fields.mail"), "{said}");

    std::fs::write(program.path().join("site.toml"), PROFILE).unwrap();
    assert!(program.run(&["site", "profile", &site.origin, "site.toml"]).await.status.success());
    let printed = program.run(&["site", "profile", &site.origin]).await;
    assert_eq!(program::text(&printed.stdout).trim(), PROFILE.trim());
    let id = program.enqueue(&[task(&site)]).await[0];
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(shown["failure_code"], "profile.secret", "{shown}");
    assert!(shown["last_error"].as_str().unwrap().contains("TEST_"), "{shown}");
    assert!(site.book.lock().unwrap().asked.is_empty(), "nothing was opened");
}
