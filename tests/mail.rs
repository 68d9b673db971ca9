//! From "check your mail" to a confirmed address, with a real IMAP server; and that no crash and no late mail signs
//! anybody up twice. The site's own book is the judge.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Form, Path, State};
use axum::response::Html;
use axum::routing::get;
use pagehand::config;
use pagehand::mailbox::Mailbox;
use serde_json::{Value, json};

#[path = "support/database.rs"]
mod database;
#[path = "support/dovecot.rs"]
mod dovecot;
#[path = "support/program.rs"]
mod program;

use dovecot::{Dovecot, PASSWORD};
use program::{Program, signal, until};
use rustix::process::Signal;

const BOX: &str = "checks";
const ADDRESS: &str = "ann+7@checks.example.org";
const TOKEN: &str = "9f8e7d6c5b4a39281706f5e4d3c2b1a0";
const OWN_PASSWORD: &str = "Own-Passw0rd-for-tests";

/// What the site wants of a new account.
#[derive(Clone, Copy, PartialEq)]
enum Wants {
    /// A press on a button behind the mailed link.
    Button,
    /// A password behind the mailed link, and none before.
    Password,
    /// A code on the page after the sign-up.
    Code,
    /// Nothing but the link.
    Link,
}

#[derive(Default)]
struct Book {
    signed_up: Vec<HashMap<String, String>>,
    confirmed: Vec<HashMap<String, String>>,
    opened: u32,
}

#[derive(Clone)]
struct Site {
    wants: Wants,
    origin: String,
    book: Arc<Mutex<Book>>,
}

impl Site {
    async fn start(wants: Wants) -> Site {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let site = Site { wants, origin, book: Arc::default() };
        let router = Router::new()
            .route("/join", get(join).post(joined))
            .route("/confirm/{token}", get(opened).post(confirmed))
            .route("/code", axum::routing::post(code))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn signed_up(&self) -> usize {
        self.book.lock().unwrap().signed_up.len()
    }

    fn confirmed(&self) -> Vec<HashMap<String, String>> {
        self.book.lock().unwrap().confirmed.clone()
    }

    fn letter(&self, to: &str) -> String {
        format!(
            "From: Site <noreply@site.example>\r\nTo: {to}\r\nSubject: Confirm your account\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
             Hello Ann, please confirm your address:\r\n{0}/confirm/{TOKEN}\r\nUnsubscribe: {0}/unsubscribe/{TOKEN}\r\n\
             --b\r\nContent-Type: text/html\r\n\r\n<a href=\"{0}/\"><img alt=\"Site\" src=\"{0}/logo.png\"></a>\
             <a href=\"{0}/confirm/{TOKEN}\">Confirm my account</a><a href=\"{0}/unsubscribe/{TOKEN}\">Unsubscribe</a>\r\n--b--\r\n",
            self.origin
        )
    }
}

fn page(body: &str) -> Html<String> {
    Html(format!("<!doctype html><html lang=en><meta charset=utf-8><title>Site</title><h1>Site</h1>{body}"))
}

async fn join(State(site): State<Site>) -> Html<String> {
    let password = match site.wants {
        Wants::Password => "",
        _ => "<label>Password <input type=password name=password autocomplete=new-password required></label>",
    };
    page(&format!(
        "<h2>Create an account</h2><form method=post><label>Username <input name=username required></label>
         <label>Email <input type=email name=email required></label>{password}<button>Sign up</button></form>"
    ))
}

async fn joined(State(site): State<Site>, Form(form): Form<HashMap<String, String>>) -> Html<String> {
    site.book.lock().unwrap().signed_up.push(form);
    match site.wants {
        Wants::Code => page(
            "<p>Enter the verification code we sent you.</p><form method=post action=/code>
             <label>Verification code <input name=code autocomplete=one-time-code required></label><button>Verify</button></form>",
        ),
        _ => page("<p role=status>Thank you. Please check your email and follow the link in it.</p>"),
    }
}

async fn opened(State(site): State<Site>, Path(token): Path<String>) -> Html<String> {
    site.book.lock().unwrap().opened += 1;
    if token != TOKEN {
        return page("<p role=alert>This link is invalid.</p>");
    }
    match site.wants {
        Wants::Password => page(
            "<h2>Set your password</h2><form method=post><label>New password <input type=password name=new1 autocomplete=new-password value=made-up></label>
             <label>Repeat it <input type=password name=new2 autocomplete=new-password></label><button>Save password</button></form>",
        ),
        Wants::Link => {
            site.book.lock().unwrap().confirmed.push(HashMap::new());
            page("<p>Your email has been confirmed.</p>")
        }
        _ => page("<p>One more step.</p><form method=post><button>Confirm my address</button></form>"),
    }
}

async fn confirmed(State(site): State<Site>, Form(form): Form<HashMap<String, String>>) -> Html<String> {
    site.book.lock().unwrap().confirmed.push(form);
    match site.wants {
        Wants::Password => page("<p role=status>Your password has been set. You can now log in.</p>"),
        _ => page("<p role=status>Your email address has been confirmed.</p>"),
    }
}

async fn code(State(site): State<Site>, Form(form): Form<HashMap<String, String>>) -> Html<String> {
    if form.get("code").map(String::as_str) != Some("482913") {
        return page("<p role=alert>Wrong code.</p>");
    }
    site.book.lock().unwrap().confirmed.push(form);
    page("<p role=status>Your account is now active. Welcome!</p>")
}

/// The program with a mailbox in its configuration.
async fn program(server: &Dovecot, wait: &str) -> Program {
    Program::new()
        .await
        .with("PAGEHAND_MAILBOX__HOST", "127.0.0.1")
        .with("PAGEHAND_MAILBOX__PORT", &server.port.to_string())
        .with("PAGEHAND_MAILBOX__TLS", "none")
        .with("PAGEHAND_MAILBOX__USER", BOX)
        .with("PAGEHAND_MAILBOX__PASSWORD", "env:TEST_MAILBOX")
        .with("PAGEHAND_MAILBOX__ADDRESSES", r#"["*@checks.example.org"]"#)
        .with("PAGEHAND_MAILBOX__WAIT_SECONDS", wait)
        .with("TEST_MAILBOX", PASSWORD)
}

fn task(site: &Site) -> Value {
    json!({"task_type": "registration", "url": format!("{}/join", site.origin),
        "payload": {"username": "ann7", "email": ADDRESS, "password": OWN_PASSWORD}})
}

async fn enqueue(program: &Program, site: &Site) -> i64 {
    program.enrol(&site.origin).await;
    program.enqueue(&[task(site)]).await[0]
}

/// Works the task off, and puts `mail` into the box when the site has the sign-up.
async fn with_mail(program: &Program, site: &Site, server: &Dovecot, mail: &str) -> (i64, Value) {
    let id = enqueue(program, site).await;
    let delivered = async {
        until("somebody signs up", async || site.signed_up() > 0).await;
        server.deliver(BOX, mail);
    };
    tokio::join!(program.drain(), delivered);
    (id, program.show(id).await)
}

fn result(program: &Program, id: i64) -> Value {
    program.file(id, "final_result.json")["result"].clone()
}

fn failure(shown: &Value) -> (&str, &str) {
    (shown["failure_reason"].as_str().unwrap_or_default(), shown["failure_code"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_button_behind_the_mailed_link_is_pressed_and_the_token_is_in_no_step() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "20").await, Site::start(Wants::Button).await);
    let (id, shown) = with_mail(&program, &site, &server, &site.letter(ADDRESS)).await;
    assert_eq!(shown["status"], "completed", "{shown}\n{}", program.log());
    let result = result(&program, id);
    assert_eq!((&result["outcome"], &result["email_verified"]), (&json!("registered"), &json!(true)), "{result}");
    assert_eq!((site.signed_up(), site.confirmed().len()), (1, 1));
    let steps = program.steps(id);
    let at = |name: &str| steps.iter().position(|step| step == name).unwrap_or_else(|| panic!("{name} in {steps:?}"));
    let order = [
        "verify_registration",
        "waiting_for_email",
        "email_received",
        "opening_verification_link",
        "confirming_address",
    ];
    assert!(order.map(at).is_sorted(), "{steps:?}");
    let written = std::fs::read_to_string(program.runs().join(id.to_string()).join("steps.jsonl")).unwrap();
    assert!(!written.contains(TOKEN) && !written.contains(PASSWORD), "{written}");
    assert!(
        server.files(BOX).iter().all(|name| !name.contains(":2,") || name.ends_with(":2,")),
        "nothing is marked as read"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_our_own_is_set_behind_the_mailed_link() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "20").await, Site::start(Wants::Password).await);
    let (id, shown) = with_mail(&program, &site, &server, &site.letter(ADDRESS)).await;
    assert_eq!(shown["status"], "completed", "{shown}\n{}", program.log());
    assert_eq!(result(&program, id)["password_set"], true);
    let set = &site.confirmed()[0];
    assert_eq!((set["new1"].as_str(), set["new2"].as_str()), (OWN_PASSWORD, OWN_PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailed_code_is_typed_on_the_page_that_asks_for_it() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "20").await, Site::start(Wants::Code).await);
    let mail = format!("To: {ADDRESS}\r\nSubject: Your code\r\n\r\nYour verification code is\r\n\r\n482913\r\n");
    let (id, shown) = with_mail(&program, &site, &server, &mail).await;
    assert_eq!(shown["status"], "completed", "{shown}\n{}", program.log());
    assert_eq!(result(&program, id)["verified_by"], "code");
    assert!(program.steps(id).contains(&"typing_code".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_mail_is_taken_by_the_next_attempt_and_nobody_signs_up_twice() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "1").await, Site::start(Wants::Link).await);
    let id = enqueue(&program, &site).await;
    let late = async {
        until("the first attempt gave up", async || program.show(id).await["retry_count"] == 1).await;
        server.deliver(BOX, &site.letter(ADDRESS));
    };
    tokio::join!(program.drain(), late);
    let shown = program.show(id).await;
    assert_eq!(shown["status"], "completed", "{shown}\n{}", program.log());
    assert_eq!(failure(&shown["attempts"][0]), ("email_verification_failed", "mail.timeout"), "{shown}");
    assert_eq!((site.signed_up(), site.confirmed().len()), (1, 1));
    assert_eq!(result(&program, id)["recovered"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_waits_for_the_mail_signs_nobody_up_again() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "10").await.short_lease(), Site::start(Wants::Button).await);
    let id = enqueue(&program, &site).await;
    let mut worker = program.worker(&[]);
    until("the site's answer is on record", async || {
        let noted: Option<Value> = sqlx::query_scalar("SELECT submit_outcome FROM attempts WHERE task_id = $1")
            .bind(id)
            .fetch_optional(&program.db.pool)
            .await
            .unwrap()
            .flatten();
        noted.is_some_and(|noted| noted["outcome"] == "needs_email_confirmation")
    })
    .await;
    signal(&worker, Signal::KILL);
    worker.wait().await.unwrap();
    server.deliver(BOX, &site.letter(ADDRESS));
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(
        (&shown["status"], &shown["retry_count"]),
        (&json!("completed"), &json!(1)),
        "{shown}\n{}",
        program.log()
    );
    assert_eq!((site.signed_up(), site.confirmed().len()), (1, 1));
    assert_eq!(result(&program, id)["email_verified"], true);
    assert!(
        !program.steps(id).iter().skip_while(|step| *step != "waiting_for_email").any(|step| step == "submit_form")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_site_that_is_not_enrolled_is_not_opened() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "20").await, Site::start(Wants::Link).await);
    let elsewhere = Site::start(Wants::Link).await;
    let (_, shown) = with_mail(&program, &site, &server, &elsewhere.letter(ADDRESS)).await;
    assert_eq!(failure(&shown), ("email_verification_failed", "mail.link_not_enrolled"), "{shown}");
    assert!(shown["last_error"].as_str().unwrap().contains("pagehand site add"), "{shown}");
    assert_eq!(elsewhere.book.lock().unwrap().opened, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_to_others_and_from_before_are_not_ours() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (program(&server, "2").await, Site::start(Wants::Link).await);
    server.deliver_at(BOX, &site.letter(ADDRESS), SystemTime::now() - Duration::from_secs(3600));
    program.enrol(&site.origin).await;
    let mut once = task(&site);
    once["max_retries"] = json!(0);
    let id = program.enqueue(&[once]).await[0];
    server.deliver(BOX, &site.letter("bob@checks.example.org"));
    server.deliver(BOX, &site.letter("joann+7@checks.example.org"));
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(failure(&shown), ("email_verification_failed", "mail.timeout"), "{shown}");
    assert_eq!(site.book.lock().unwrap().opened, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_a_profile_names_is_tried_before_anybody_signs_up() {
    let Some(server) = Dovecot::start() else { return };
    let (program, site) = (Program::new().await.with("TEST_WRONG", "not-the-password"), Site::start(Wants::Link).await);
    let id = enqueue(&program, &site).await;
    let profile = format!(
        "[mailbox]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"{BOX}\"\npassword = \"env:TEST_WRONG\"\naddresses = [\"*@checks.example.org\"]\n",
        server.port
    );
    std::fs::write(program.path().join("profile.toml"), profile).unwrap();
    let stored = program.run(&["site", "profile", &site.origin, "profile.toml"]).await;
    assert!(stored.status.success(), "{}", program::text(&stored.stderr));
    program.drain().await;
    let shown = program.show(id).await;
    assert_eq!(failure(&shown), ("email_verification_failed", "mail.auth"), "{shown}");
    assert_eq!(site.signed_up(), 0, "an account that can't be confirmed is not created");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mailbox_the_task_ends_where_the_mail_is_asked_for() {
    let (program, site) = (Program::new().await, Site::start(Wants::Button).await);
    let id = enqueue(&program, &site).await;
    program.drain().await;
    assert_eq!(result(&program, id)["outcome"], "needs_email_confirmation");
}

fn settings(server: &Dovecot, tls: config::Tls) -> config::Mailbox {
    let secret = server.certificate().with_file_name("password");
    std::fs::write(&secret, PASSWORD).unwrap();
    config::Mailbox {
        host: Some("localhost".to_owned()),
        port: Some(if tls == config::Tls::Implicit { server.tls_port } else { server.port }),
        tls,
        ca_file: Some(server.certificate()),
        user: Some(BOX.to_owned()),
        password: Some(config::SecretRef::File(secret)),
        addresses: vec!["*@checks.example.org".parse().unwrap()],
        ..config::Mailbox::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_roots_and_the_host() {
    let Some(server) = Dovecot::start() else { return };
    let check = async |settings: config::Mailbox| {
        let checked = Mailbox::new(&settings).unwrap().check(ADDRESS, Duration::from_secs(10)).await;
        checked.map_err(|failure| (failure.code.to_string(), failure.retryable, failure.message))
    };
    for tls in [config::Tls::Implicit, config::Tls::Starttls] {
        check(settings(&server, tls)).await.unwrap();
        let stranger = check(config::Mailbox { ca_file: None, ..settings(&server, tls) }).await.unwrap_err();
        assert_eq!((stranger.0.as_str(), stranger.1), ("mail.connect", true), "{stranger:?}");
    }
    let folder =
        check(config::Mailbox { folder: "Nowhere".to_owned(), ..settings(&server, config::Tls::Implicit) }).await;
    assert_eq!(folder.unwrap_err().0, "mail.folder");
    let nobody = check(config::Mailbox { port: Some(1), ..settings(&server, config::Tls::Implicit) }).await;
    assert_eq!(nobody.unwrap_err().0, "mail.connect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_comes_with_its_first_mail_is_waited_for() {
    let Some(server) = Dovecot::start() else { return };
    let address = "ann@checks.example.org";
    server.make_no_boxes();
    let shared = settings(&server, config::Tls::Implicit);
    let limit = Duration::from_secs(10);
    let refused = Mailbox::new(&shared).unwrap().check(address, limit).await.unwrap_err();
    assert_eq!(refused.code, "mail.folder", "one box for all must be there");
    let mailbox = Mailbox::new(&config::Mailbox { user: Some("{address}".to_owned()), ..shared }).unwrap();
    mailbox.check(address, limit).await.unwrap();
    let mut watch = mailbox.watch(address, chrono::Utc::now());
    let none = watch.next(tokio::time::Instant::now() + Duration::from_millis(300)).await;
    assert!(none.unwrap().is_none());
    server.deliver(address, &format!("To: {address}\r\nSubject: s\r\n\r\nYour code: 4711\r\n"));
    let letter = watch.next(tokio::time::Instant::now() + Duration::from_secs(30)).await;
    assert_eq!(letter.unwrap().unwrap().content.code.as_deref(), Some("4711"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_comes_while_we_wait_is_given_once_and_at_once() {
    let Some(server) = Dovecot::start() else { return };
    let mailbox = Mailbox::new(&settings(&server, config::Tls::Implicit)).unwrap();
    let mut watch = mailbox.watch(ADDRESS, chrono::Utc::now());
    let later = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.deliver(
            BOX,
            &format!("X-Original-To: {ADDRESS}\r\nTo: undisclosed:;\r\nSubject: s\r\n\r\nYour code: 4711\r\n"),
        );
    };
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    let (letter, ()) = tokio::join!(watch.next(end), later);
    assert_eq!(letter.unwrap().unwrap().content.code.as_deref(), Some("4711"));
    let again = watch.next(tokio::time::Instant::now() + Duration::from_millis(300)).await;
    assert!(again.unwrap().is_none());
}
