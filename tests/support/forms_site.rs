//! A site with forms of every make. What it wrote down of the requests it got is the judge of a test, not what a page
//! shows.

#![allow(dead_code, reason = "not every test file uses everything")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

/// One request that was not a GET.
#[derive(Debug, Clone)]
pub struct Posted {
    pub path: String,
    pub fields: HashMap<String, String>,
}

#[derive(Default)]
struct Book {
    pages: HashMap<String, String>,
    answers: HashMap<String, (StatusCode, Vec<(String, String)>)>,
    posted: Vec<Posted>,
    asked: HashMap<String, u32>,
    comments: HashMap<String, Vec<(String, String)>>,
}

/// The site. It ends with the runtime of the test.
#[derive(Clone)]
pub struct Site {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl Site {
    pub async fn start() -> Site {
        let book = Arc::new(Mutex::new(Book::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(book.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Site { address, book }
    }

    /// Puts a page up and gives its address. `{{comments}}` in it becomes the comments it got so far.
    pub fn page(&self, name: &str, body: &str) -> String {
        let html = if body.contains("<html") || body.trim_start().starts_with('{') {
            body.to_owned()
        } else {
            format!("<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><body>{body}")
        };
        self.book.lock().unwrap().pages.insert(format!("/{name}"), html);
        format!("http://{}/{name}", self.address)
    }

    /// The status and headers that a page is answered with.
    pub fn answer_with(&self, name: &str, status: u16, headers: Vec<(String, String)>) {
        let status = StatusCode::from_u16(status).unwrap();
        self.book.lock().unwrap().answers.insert(format!("/{name}"), (status, headers));
    }

    /// `http://127.0.0.1:PORT`
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same site under another name: to the browser another site.
    pub fn elsewhere(&self, url: &str) -> String {
        url.replace("127.0.0.1", "localhost")
    }

    /// Everything that was posted to `/submit/…`.
    pub fn submitted(&self) -> Vec<Posted> {
        self.posted().into_iter().filter(|posted| posted.path.starts_with("/submit/")).collect()
    }

    /// Everything that was posted.
    pub fn posted(&self) -> Vec<Posted> {
        self.book.lock().unwrap().posted.clone()
    }

    /// How often a page was asked for.
    pub fn asked_for(&self, path: &str) -> u32 {
        self.book.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    /// Puts a comment on a page, as if it had been there before.
    pub fn add_comment(&self, page: &str, author: &str, text: &str) {
        self.book
            .lock()
            .unwrap()
            .comments
            .entry(page.to_owned())
            .or_default()
            .push((author.to_owned(), text.to_owned()));
    }
}

/// Puts the comment that was sent on a page; how many it has now.
fn take_for(book: &mut Book, page: &str, fields: &HashMap<String, String>) -> usize {
    let list = book.comments.entry(page.to_owned()).or_default();
    list.push((fields.get("n").cloned().unwrap_or_default(), fields.get("t").cloned().unwrap_or_default()));
    list.len()
}

fn dress(response: &mut Response, answer: Option<&(StatusCode, Vec<(String, String)>)>) {
    let Some((status, headers)) = answer else { return };
    *response.status_mut() = *status;
    for (name, value) in headers {
        response.headers_mut().insert(header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

async fn answer(
    State(book): State<Arc<Mutex<Book>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    if method == Method::GET && !path.starts_with("/submit/") {
        let mut book = book.lock().unwrap();
        *book.asked.entry(path.clone()).or_default() += 1;
        let Some(html) = book.pages.get(&path) else {
            return (StatusCode::NOT_FOUND, Html("<title>404</title><h1>Not found</h1>")).into_response();
        };
        let comments: String = book
            .comments
            .get(&path)
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(i, (name, text))| {
                format!("<article id=comment-{}><b>{}</b> says:<p>{}</p></article>", i + 1, escape(name), escape(text))
            })
            .collect();
        let notice =
            if query.contains("unapproved=") { "<p><em>Your comment is awaiting moderation.</em></p>" } else { "" };
        let mut response = Html(html.replace("{{comments}}", &format!("{comments}{notice}"))).into_response();
        dress(&mut response, book.answers.get(&path));
        return response;
    }
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let source = if method == Method::GET { query.clone().into() } else { body.to_vec() };
    let fields: HashMap<String, String> = if json {
        serde_json::from_slice::<HashMap<String, serde_json::Value>>(&body)
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned()))
            .collect()
    } else {
        url::form_urlencoded::parse(&source).into_owned().collect()
    };
    let mut book = book.lock().unwrap();
    book.posted.push(Posted { path: path.clone(), fields: fields.clone() });
    let mut parts = path.trim_start_matches("/submit/").splitn(2, '/');
    let (behaviour, page) = (parts.next().unwrap_or_default(), format!("/{}", parts.next().unwrap_or_default()));
    let say = |status: StatusCode, text: &str| {
        (status, Html(format!("<!doctype html><title>Answer</title><body><p>{text}</p>"))).into_response()
    };
    match behaviour {
        "show" => {
            let n = take_for(&mut book, &page, &fields);
            Redirect::to(&format!("{page}#comment-{n}")).into_response()
        }
        "hold" => Redirect::to(&format!("{page}?unapproved=7&moderation-hash=abc#comment-7")).into_response(),
        "json" => {
            take_for(&mut book, &page, &fields);
            (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], "{\"ok\":true}").into_response()
        }
        "duplicate" => {
            say(StatusCode::CONFLICT, "Duplicate comment detected; it looks as though you&#8217;ve already said that!")
        }
        "flood" => say(StatusCode::TOO_MANY_REQUESTS, "You are posting comments too quickly. Slow down."),
        "silent" => say(StatusCode::OK, "Bread is a staple food."),
        "welcome" => Redirect::to("/welcome").into_response(),
        "check-mail" => {
            say(StatusCode::OK, "Registration complete. Please check your email, then visit the login page.")
        }
        "code" => say(
            StatusCode::OK,
            "We have sent you a code.<form method=post action=/submit/confirm><label>Enter the verification code <input name=code autocomplete=one-time-code></label><button>Verify</button></form>",
        ),
        "goto" => Redirect::to(&page).into_response(),
        "show-then" => {
            let name = page.clone();
            take_for(&mut book, "/post", &fields);
            Redirect::to(&name).into_response()
        }
        "answer" => {
            let html = book.pages.get(&page).cloned().unwrap_or_default();
            let json = html.trim_start().starts_with('{');
            let kind = if json { "application/json" } else { "text/html; charset=utf-8" };
            let mut response = ([(header::CONTENT_TYPE, kind)], html).into_response();
            dress(&mut response, book.answers.get(&page));
            response
        }
        "taken" => say(StatusCode::OK, "<div class=error role=alert>Sorry, that username already exists!</div>"),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}
