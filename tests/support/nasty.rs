//! Pages that misbehave, on a server of our own that counts what reaches it.

// A helper that fails fails the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{any, get};
use futures::stream;

/// A request as the server saw it.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub body: String,
    pub user_agent: String,
    pub cookie: String,
}

/// A running server.
#[derive(Clone)]
pub struct Nasty {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    pages: Arc<Mutex<HashMap<String, String>>>,
    files: Arc<Mutex<HashMap<String, (&'static str, String)>>>,
}

#[allow(dead_code)]
impl Nasty {
    /// Starts it on a free port of loopback, both families where there are both.
    pub async fn start() -> Nasty {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let nasty = Nasty { port, seen: Arc::default(), pages: Arc::default(), files: Arc::default() };
        let app = router().with_state(nasty.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        nasty
    }

    /// The address of a path on `127.0.0.1`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The same server under another site's name.
    pub fn other_site(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    /// Serves `html` under `/page/NAME` and gives its address.
    pub fn page(&self, name: &str, html: impl Into<String>) -> String {
        self.pages.lock().unwrap().insert(name.to_owned(), html.into());
        self.url(&format!("/page/{name}"))
    }

    /// Serves `content` of this kind under `/file/NAME`.
    pub fn file(&self, name: &str, kind: &'static str, content: impl Into<String>) {
        self.files.lock().unwrap().insert(name.to_owned(), (kind, content.into()));
    }

    /// What reached the server at `path`.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }
}

fn router() -> Router<Nasty> {
    Router::new()
        .route("/page/{name}", get(page))
        .route("/file/{name}", get(file))
        .route("/nothing", get(|| async { StatusCode::NO_CONTENT }))
        .route("/download", get(download))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/slow-body", get(slow_body))
        .route("/never", get(never))
        .route("/refused", get(|| async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "slow down") }))
        .route(
            "/private",
            get(|| async { (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=x")], "who?") }),
        )
        .route("/locked", get(locked))
        .route("/worker.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], "") }))
        .route("/framed-not", get(|| async { ([("x-frame-options", "DENY")], Html("<p>no frames</p>")) }))
        .route("/echo/{*rest}", any(echo))
        .route("/post", any(post))
        .route("/answer", any(answer))
        .fallback(|| async { StatusCode::NOT_FOUND })
}

async fn note(nasty: &Nasty, method: &Method, uri: &OriginalUri, headers: &HeaderMap, body: &Bytes) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    nasty.seen.lock().unwrap().push(Seen {
        method: method.to_string(),
        path: uri.path().to_owned(),
        body: String::from_utf8_lossy(body).into_owned(),
        user_agent: text(header::USER_AGENT),
        cookie: text(header::COOKIE),
    });
}

/// For whoever shows `ann:pw`.
async fn locked(headers: HeaderMap) -> Response {
    match headers.get(header::AUTHORIZATION).is_some_and(|shown| shown.as_bytes() == b"Basic YW5uOnB3") {
        true => StatusCode::OK.into_response(),
        false => (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=locked")]).into_response(),
    }
}

async fn file(State(nasty): State<Nasty>, Path(name): Path<String>, uri: OriginalUri, headers: HeaderMap) -> Response {
    note(&nasty, &Method::GET, &uri, &headers, &Bytes::new()).await;
    match nasty.files.lock().unwrap().get(&name) {
        Some((kind, content)) => ([(header::CONTENT_TYPE, *kind)], content.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn page(State(nasty): State<Nasty>, Path(name): Path<String>, uri: OriginalUri, headers: HeaderMap) -> Response {
    note(&nasty, &Method::GET, &uri, &headers, &Bytes::new()).await;
    match nasty.pages.lock().unwrap().get(&name) {
        Some(html) => Html(html.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn download() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/zip"), (header::CONTENT_DISPOSITION, "attachment; filename=a.zip")];
    (headers, vec![0_u8; 1000]).into_response()
}

async fn slow_body() -> Response {
    let start = "<!doctype html><title>slow</title><form><input id=a></form>".to_owned();
    let drops = stream::unfold(Some(start), |next| async move {
        let now = next?;
        if now == " " {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Some((Ok::<_, Infallible>(Bytes::from(now)), Some(" ".to_owned())))
    });
    ([(header::CONTENT_TYPE, "text/html")], Body::from_stream(drops)).into_response()
}

async fn never() -> Response {
    std::future::pending().await
}

async fn echo(
    State(nasty): State<Nasty>,
    method: Method,
    uri: OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    note(&nasty, &method, &uri, &headers, &body).await;
    Html(format!("<!doctype html><title>echo</title><p id=said>{}</p>", String::from_utf8_lossy(&body)))
}

async fn post(
    State(nasty): State<Nasty>,
    method: Method,
    uri: OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    note(&nasty, &method, &uri, &headers, &body).await;
    Redirect::to("/echo/done").into_response()
}

async fn answer(
    State(nasty): State<Nasty>,
    method: Method,
    uri: OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    note(&nasty, &method, &uri, &headers, &body).await;
    (StatusCode::CREATED, axum::Json(serde_json::json!({"id": 7, "said": String::from_utf8_lossy(&body)})))
        .into_response()
}
