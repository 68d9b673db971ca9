//! A visitor without a browser: one connection a request, cookies kept, redirects not followed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Far more than any answer takes; a test that waits this long has failed.
const LIMIT: Duration = Duration::from_secs(10);

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of the first `name="…" … value="…"`.
    pub fn value_of(&self, name: &str) -> String {
        let from = self.text.find(&format!("name=\"{name}\"")).unwrap_or_else(|| panic!("no field {name}"));
        between(&self.text[from..], "value=\"", "\"")
    }
}

pub fn between(text: &str, start: &str, end: &str) -> String {
    let from = text.find(start).unwrap_or_else(|| panic!("no {start} in {text}")) + start.len();
    let to = text[from..].find(end).unwrap_or_else(|| panic!("no {end} after {start}"));
    text[from..from + to].to_owned()
}

pub struct Client {
    authority: String,
    cookies: BTreeMap<String, String>,
}

impl Client {
    pub fn of(origin: &str) -> Client {
        Client { authority: origin.strip_prefix("http://").unwrap().to_owned(), cookies: BTreeMap::new() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "", String::new()).await.unwrap()
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, path, "application/x-www-form-urlencoded", body).await.unwrap()
    }

    pub async fn post_json(&mut self, path: &str, value: serde_json::Value) -> Answer {
        self.send(Method::POST, path, "application/json", value.to_string()).await.unwrap()
    }

    async fn send(&mut self, method: Method, path: &str, kind: &str, body: String) -> Result<Answer, hyper::Error> {
        let response = self.open(method, path, kind, body).await?;
        for cookie in response.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = tokio::time::timeout(LIMIT, response.into_body().collect()).await.expect("the body never ended")?;
        Ok(Answer { status, headers, text: String::from_utf8(body.to_bytes().to_vec()).unwrap() })
    }

    /// Only the head of the answer to a GET: the body is the caller's to read.
    pub async fn begin(&self, path: &str) -> Result<http::Response<Incoming>, hyper::Error> {
        self.open(Method::GET, path, "", String::new()).await
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: String,
    ) -> Result<http::Response<Incoming>, hyper::Error> {
        let stream = TcpStream::connect(&self.authority).await.expect("the site accepts connections");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if !kind.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        tokio::time::timeout(LIMIT, sender.send_request(request)).await.expect("the site never answered")
    }
}
