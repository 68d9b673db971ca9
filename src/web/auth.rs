//! Who asks, what they may do, and whether a change comes from where it should.
//!
//! Default deny: what is not [`Access::Public`] in the router's table needs somebody known, an address that nobody serves
//! included; so the answer to a stranger does not depend on what exists. Without tokens everybody is `local`: then the
//! server listens on loopback only (`web.rs` sees to that).
//!
//! A change (any method but GET and HEAD) that does not carry a bearer token could be sent by another site in the
//! operator's browser. It is taken if (and only if)
//! - the browser says by `Sec-Fetch-Site` that it comes from our own pages or from the user, or
//! - it does not say, and `Origin` is ours, or
//! - it says neither, which no browser does with a form, and the body is JSON or there is none.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::negotiate::Wanted;
use super::problem::Problem;
use super::session::{self, Sessions};
use super::{AccessToken, App, Shared, router};
use crate::config::Role;

/// Failed log-ins from one address within [`WINDOW`], after which further ones are not looked at.
const MAX_FAILURES: u32 = 5;
/// The same from all addresses together.
const MAX_FAILURES_OF_ALL: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered.
const MAX_ADDRESSES: usize = 10_000;

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Public,
    /// Anybody who is known.
    Read,
    /// Somebody who may change things.
    Operate,
}

/// Who sent the request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name, or `local`.
    pub name: String,
    pub role: Role,
    /// Whether there is a session to log out of.
    pub by_cookie: bool,
}

impl Caller {
    /// Whether retry, cancel and enqueue are open to them.
    pub fn may_operate(&self) -> bool {
        self.role == Role::Operate
    }
}

/// The layer below has put it there; a route without it is not behind that layer.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::internal)
    }
}

struct Known {
    name: String,
    role: Role,
    digest: [u8; 32],
}

/// Tokens, sessions and failed log-ins.
pub struct Auth {
    tokens: Vec<Known>,
    pub sessions: Sessions,
    failures: Mutex<HashMap<Option<IpAddr>, (Instant, u32)>>,
}

impl Auth {
    pub fn new(tokens: &[AccessToken]) -> Auth {
        let known = |token: &AccessToken| Known {
            name: token.name.clone(),
            role: token.role,
            digest: Sha256::digest(token.secret.expose_secret().as_bytes()).into(),
        };
        Auth { tokens: tokens.iter().map(known).collect(), sessions: Sessions::default(), failures: Mutex::default() }
    }

    /// Whether everybody who can reach the server may do everything.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The place of the token that is shown. Takes the same time for each wrong one.
    pub fn token(&self, shown: &str) -> Option<usize> {
        let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        let mut found = u64::MAX;
        for (place, known) in (0..).zip(&self.tokens) {
            found.conditional_assign(&place, known.digest.ct_eq(&digest));
        }
        usize::try_from(found).ok().filter(|place| *place < self.tokens.len())
    }

    /// Whoever has this token.
    pub fn caller(&self, place: usize, by_cookie: bool) -> Option<Caller> {
        let known = self.tokens.get(place)?;
        Some(Caller { name: known.name.clone(), role: known.role, by_cookie })
    }

    /// Whether a log-in from this address may be tried now.
    ///
    /// # Errors
    /// In how many seconds.
    pub fn may_try(&self, address: IpAddr, now: Instant) -> Result<(), u64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for (who, most) in [(Some(network(address)), MAX_FAILURES), (None, MAX_FAILURES_OF_ALL)] {
            if let Some((since, n)) = failures.get(&who)
                && *n >= most
                && now.duration_since(*since) < WINDOW
            {
                return Err((WINDOW - now.duration_since(*since)).as_secs() + 1);
            }
        }
        Ok(())
    }

    /// Notes a failed log-in.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_ADDRESSES {
            failures.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        }
        for who in [Some(network(address)), None] {
            if failures.len() >= MAX_ADDRESSES && who.is_some() && !failures.contains_key(&who) {
                continue;
            }
            let entry = failures.entry(who).or_insert((now, 0));
            *entry = if now.duration_since(entry.0) < WINDOW { (entry.0, entry.1 + 1) } else { (now, 1) };
        }
    }
}

/// Who counts as one: an IPv4 address, or the network that one IPv6 customer has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Lets the request pass if it may.
pub async fn layer(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let renewed = match admit(&app, &mut request) {
        Ok(renewed) => renewed,
        Err(refused) => return *refused,
    };
    let mut response = next.run(request).await;
    if let Some(cookie) = renewed.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        // A handler that sets or clears the cookie itself knows better.
        response.headers_mut().entry(header::SET_COOKIE).or_insert(cookie);
    }
    response
}

/// A cookie to send back, if the session has got a new number.
fn admit(app: &App, request: &mut Request) -> Result<Option<String>, Box<Response>> {
    let refuse = |kind: &'static str, problem: Problem| {
        app.metrics.refused(kind);
        Box::new(problem.into_response())
    };
    let host = host(request).ok_or_else(|| refuse("host", foreign_host()))?;
    if !app.hosts.allows(&host) {
        return Err(refuse("host", foreign_host()));
    }
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let access = path.as_deref().and_then(|path| router::access(request.method(), path));
    let changes = !request.method().is_safe();

    if access == Some(Access::Public) {
        // Logging in needs a token, so a script may do it with a form; another site may not.
        if changes && !comes_from_us(request.headers(), &host, true) {
            return Err(refuse("cross_site", cross_site(request.headers())));
        }
        return Ok(None);
    }
    let (caller, renewed) = identify(app, request.headers()).map_err(|shown| {
        if shown {
            app.metrics.refused("credentials");
        }
        Box::new(stranger(request))
    })?;
    let by_bearer = !app.auth.is_open() && !caller.by_cookie;
    if changes && !by_bearer && !comes_from_us(request.headers(), &host, false) {
        return Err(refuse("cross_site", cross_site(request.headers())));
    }
    if access == Some(Access::Operate) && !caller.may_operate() {
        let detail = format!("the token `{}` may only read; this takes one with the role `operate`", caller.name);
        return Err(refuse("role", Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)));
    }
    request.extensions_mut().insert(caller);
    Ok(renewed)
}

/// The one host that the request names; None if it names none or two.
fn host(request: &Request) -> Option<String> {
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = named.next()?.to_str().ok()?;
    let in_uri = request.uri().authority().map(http::uri::Authority::as_str);
    (named.next().is_none() && in_uri.is_none_or(|uri| uri.eq_ignore_ascii_case(host))).then(|| host.to_owned())
}

/// Who it is, with a cookie to send back. The error says whether anything was shown.
fn identify(app: &App, headers: &HeaderMap) -> Result<(Caller, Option<String>), bool> {
    let auth = &app.auth;
    if auth.is_open() {
        return Ok((Caller { name: "local".to_owned(), role: Role::Operate, by_cookie: false }, None));
    }
    if let Some(shown) = headers.get(header::AUTHORIZATION) {
        let shown = shown.to_str().map_err(|_| true)?;
        let (scheme, token) = shown.split_once(' ').ok_or(true)?;
        let place = auth.token(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer")).ok_or(true)?;
        return Ok((auth.caller(place, false).ok_or(true)?, None));
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let number = cookies.into_iter().find_map(session::number_in).ok_or(false)?;
    let found = auth.sessions.find(number, Instant::now()).ok_or(true)?;
    Ok((auth.caller(found.token, true).ok_or(true)?, found.renewed))
}

/// A browser that looks is sent to the log-in page; everybody else is told what to send.
fn stranger(request: &Request) -> Response {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if looks && Wanted::by(request.headers()) == Wanted::Html {
        let to = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let next: String = url::form_urlencoded::byte_serialize(to.as_bytes()).collect();
        return Redirect::to(&format!("/login?next={next}")).into_response();
    }
    let detail = "this takes a token: send the header `authorization: Bearer TOKEN`, or log in at /login";
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    ([(header::WWW_AUTHENTICATE, "Bearer realm=\"pagehand\"")], problem).into_response()
}

fn comes_from_us(headers: &HeaderMap, host: &str, forms_of_scripts: bool) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    if let Some(origin) = text("origin") {
        let ours = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        return ours.is_some_and(|ours| ours.eq_ignore_ascii_case(host));
    }
    let kind = text("content-type").unwrap_or_default().to_ascii_lowercase();
    forms_of_scripts || kind.is_empty() || kind.starts_with("application/json") || kind.contains("+json")
}

fn foreign_host() -> Problem {
    let detail = "this server is not known under the name in the header `host`; if it should be, add it to web.hosts";
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", detail)
}

/// A browser says where it comes from. Who says nothing is told what a program has to send: no page elsewhere can send that.
fn cross_site(headers: &HeaderMap) -> Problem {
    if !headers.contains_key("sec-fetch-site") && !headers.contains_key(header::ORIGIN) {
        return Problem::not_json();
    }
    let detail = "changes are taken from this server's own pages, as JSON from programs, or with a bearer token";
    Problem::new(StatusCode::FORBIDDEN, "cross-site", detail)
}

/// The address of whoever is at the other end of the connection.
pub struct Peer(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Peer, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        peer.map(|ConnectInfo(address)| Peer(address.ip())).ok_or_else(Problem::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn auth() -> Auth {
        let token = |name: &str, secret: &str| AccessToken {
            name: name.to_owned(),
            role: Role::Read,
            secret: secret.to_owned().into(),
        };
        Auth::new(&[token("a", "first-secret"), token("b", "second-secret")])
    }

    #[test]
    fn a_token_is_found_by_its_whole_text_only() {
        let auth = auth();
        assert_eq!(auth.token("first-secret"), Some(0));
        assert_eq!(auth.token("second-secret"), Some(1));
        for wrong in ["", "first", "first-secret ", "FIRST-SECRET", "third-secret"] {
            assert_eq!(auth.token(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_change_is_taken_from_our_pages_and_from_programs_only() {
        let from = |pairs: &[(&'static str, &'static str)]| comes_from_us(&headers(pairs), "localhost:8080", false);
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert!(from(&[("sec-fetch-site", "same-origin"), form]));
        assert!(from(&[("origin", "http://localhost:8080"), form]));
        assert!(from(&[("content-type", "application/json")]));
        assert!(from(&[]));
        for site in ["cross-site", "same-site", "", "SAME-ORIGIN"] {
            assert!(!from(&[("sec-fetch-site", site), ("content-type", "application/json")]), "{site}");
        }
        for origin in ["null", "http://evil.example", "http://localhost:8081", "http://localhost:8080.evil.example"] {
            assert!(!from(&[("origin", origin), form]), "{origin}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            assert!(!from(&[("content-type", kind)]), "{kind}");
        }
    }

    #[test]
    fn after_five_failures_an_address_waits_and_others_do_not() {
        let auth = auth();
        let now = Instant::now();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..MAX_FAILURES {
            assert_eq!(auth.may_try(one, now), Ok(()));
            auth.failed(one, now);
        }
        assert!(auth.may_try(one, now).is_err());
        assert_eq!(auth.may_try(other, now), Ok(()));
        assert_eq!(auth.may_try(one, now + WINDOW), Ok(()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::ffff".parse().unwrap()));
        assert_ne!(network("2001:db8:0:1::1".parse().unwrap()), network("2001:db8::1".parse().unwrap()));
    }
}
