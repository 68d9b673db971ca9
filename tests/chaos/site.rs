//! The judge: a site that takes everything, as often as it is sent, and remembers each submission when it arrives.
//!
//! It refuses no duplicate and no second registration, as a strict site would: what is sent twice shows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What a page does with a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Shows it at once.
    Shows,
    /// Takes it, and answers a little later.
    Dawdles,
    /// Holds it back, and says so to its sender only.
    HoldsBack,
    /// Takes it, shows it, and answers 500.
    KeepsAndFails,
    /// A form to register at, and one to log in.
    Registers,
}

impl Manner {
    pub const ALL: [Manner; 5] =
        [Manner::Shows, Manner::Dawdles, Manner::HoldsBack, Manner::KeepsAndFails, Manner::Registers];

    fn word(self) -> &'static str {
        match self {
            Manner::Shows => "shows",
            Manner::Dawdles => "dawdles",
            Manner::HoldsBack => "holds-back",
            Manner::KeepsAndFails => "keeps-and-fails",
            Manner::Registers => "join",
        }
    }
}

/// One submission that arrived.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Path of the page.
    pub page: String,
    /// The comment's text, or the user name.
    pub text: String,
    /// By the machine's clock, which is Postgres' too.
    pub at: DateTime<Utc>,
}

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Submitted>>>);

impl Ledger {
    pub fn all(&self) -> Vec<Submitted> {
        self.lock().clone()
    }

    fn add(&self, page: String, text: &str) {
        self.lock().push(Submitted { page, text: text.to_owned(), at: Utc::now() });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Submitted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running site.
pub struct Site {
    pub origin: String,
    pub ledger: Ledger,
    server: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Deserialize)]
struct Comment {
    comment: String,
}

#[derive(Deserialize)]
struct Account {
    username: String,
    password: String,
}

impl Site {
    pub async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
        let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
        let ledger = Ledger::default();
        let router = Router::new()
            .route("/join/{n}", get(join).post(register))
            .route("/login", get(login).post(log_in))
            .route("/{manner}/{n}", get(article).post(comment))
            .with_state(ledger.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it is served");
        });
        Site { origin, ledger, server }
    }

    /// Address of page `n` of a manner.
    pub fn url(&self, manner: Manner, n: usize) -> String {
        format!("{}/{}/{n}", self.origin, manner.word())
    }
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><title>{title}</title><link rel=icon href=data:,><h1>{title}</h1>{body}"
    ))
}

fn article_page(ledger: &Ledger, path: &str, said: &str) -> Html<String> {
    let hidden = path.contains(Manner::HoldsBack.word());
    let shown: String = ledger
        .all()
        .iter()
        .filter(|sent| sent.page == path && !hidden)
        .map(|sent| format!("<li><b>Ann Example</b> says: <p>{}</p>", sent.text))
        .collect();
    page(
        "A post",
        &format!(
            "<p>Some words.</p>{said}<h2>Comments</h2><ol>{shown}</ol><h3>Leave a comment</h3>
             <form method=post action=\"{path}\"><label>Name <input name=author required></label>
             <label>Email <input name=email type=email required></label>
             <label>Comment <textarea name=comment required></textarea></label><button>Post comment</button></form>"
        ),
    )
}

async fn article(State(ledger): State<Ledger>, Path((manner, n)): Path<(String, String)>) -> Html<String> {
    article_page(&ledger, &format!("/{manner}/{n}"), "")
}

async fn comment(
    State(ledger): State<Ledger>,
    Path((manner, n)): Path<(String, String)>,
    Form(sent): Form<Comment>,
) -> Response {
    let path = format!("/{manner}/{n}");
    ledger.add(path.clone(), &sent.comment);
    let manner = Manner::ALL.into_iter().find(|known| known.word() == manner).unwrap_or(Manner::Shows);
    match manner {
        Manner::KeepsAndFails => (StatusCode::INTERNAL_SERVER_ERROR, "the database went away").into_response(),
        Manner::HoldsBack => {
            article_page(&ledger, &path, "<p>Your comment is awaiting moderation.</p>").into_response()
        }
        Manner::Dawdles => {
            tokio::time::sleep(Duration::from_millis(700)).await;
            Redirect::to(&path).into_response()
        }
        Manner::Shows | Manner::Registers => Redirect::to(&path).into_response(),
    }
}

async fn join(Path(n): Path<String>) -> Html<String> {
    page(
        "Create an account",
        &format!(
            "<form method=post action=\"/join/{n}\"><label>Username <input name=username required></label>
             <label>Email <input name=email type=email required></label>
             <label>Password <input name=password type=password autocomplete=new-password required></label>
             <button>Create account</button></form><p>Registered already? <a href=/login>Log in</a></p>"
        ),
    )
}

async fn register(State(ledger): State<Ledger>, Path(n): Path<String>, Form(sent): Form<Account>) -> Html<String> {
    // The judge keeps the password too: log-ins are checked against it.
    ledger.add(format!("/join/{n}"), &format!("{}\n{}", sent.username, sent.password));
    page("Welcome", "<p>Thank you for registering. Your account is ready.</p>")
}

async fn login() -> Html<String> {
    login_page("")
}

fn login_page(said: &str) -> Html<String> {
    page(
        "Log in",
        &format!(
            "{said}<form method=post action=/login><label>Username <input name=username required></label>
             <label>Password <input name=password type=password autocomplete=current-password required></label>
             <button>Log in</button></form>"
        ),
    )
}

async fn log_in(State(ledger): State<Ledger>, Form(sent): Form<Account>) -> Html<String> {
    let wanted = format!("{}\n{}", sent.username, sent.password);
    if ledger.all().iter().any(|known| known.text == wanted) {
        page("Your account", "<p>Hello. <a href=/logout>Log out</a></p>")
    } else {
        login_page("<p role=alert>Incorrect username or password.</p>")
    }
}
