//! The way out of one task's browsing context: a small forward proxy on 127.0.0.1 that Chrome is pointed at.
//!
//! Chrome can't authenticate to a SOCKS5 proxy, and whatever credentials it is given end up in its process and
//! protocol. So it gets an address on loopback without any, and this module speaks to the real proxy: HTTP or SOCKS5,
//! with user name and password. Without an upstream it connects to the sites itself: a name is resolved once, and the very
//! address that was looked at is dialled. Where traffic may go is [`policy`]'s to say; bytes are counted and bounded.
//!
//! How it can go wrong: the upstream is dead, slow, or refuses the password. Chrome then gets a 502 or 504 with a
//! short body, of which it shows a `net::ERR_TUNNEL_CONNECTION_FAILED` or a page; what it really was stays in
//! [`EgressProxy::last_failure`]. Every wait has a deadline, bodies are never held whole, and connections are bounded:
//! those beyond the bound wait in the kernel's queue.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

use crate::failure::Failure;

mod dial;
mod metered;
mod policy;
mod resolver;

use dial::{DialError, Target};
use metered::Metered;
pub(super) use policy::{Asked, Guard};
pub use policy::{Denial, DenialKind, EgressPolicy, ThirdParties};
pub use resolver::Resolver;

/// On answers that are ours and not the site's: a secret of the tab's, and what Chrome would have said.
pub(super) const OWN_ANSWER: HeaderName = HeaderName::from_static("pagehand-egress");

/// A proxy that belongs to somebody else, through which a task's traffic is to go.
#[derive(Debug, Clone)]
pub struct UpstreamProxy {
    /// `http://host:port` or `socks5://host:port`, without credentials. Names are resolved by the proxy.
    pub url: Url,
    /// Who we are to the proxy, if it asks.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

/// Deadlines and bounds of an [`EgressProxy`].
#[derive(Debug, Clone, Copy)]
pub struct EgressLimits {
    /// For a TCP connection to come about.
    pub connect: Duration,
    /// For the upstream to let us through to the site, after the connection.
    pub handshake: Duration,
    /// Without a byte in either direction, after which a connection is given up.
    pub idle: Duration,
    /// Connections of the browser at a time.
    pub connections: usize,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(20),
            idle: Duration::from_secs(120),
            connections: 256,
        }
    }
}

/// A forward proxy on a free port of 127.0.0.1. It stops, and ends its connections, when dropped.
pub struct EgressProxy {
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressProxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl EgressProxy {
    /// Starts with [`EgressLimits::default`]. `None` for the upstream: connects to the sites itself. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    ///
    /// No port is to be had, or the upstream's address is not one of the two forms.
    pub fn start(upstream: impl Into<Option<UpstreamProxy>>, policy: EgressPolicy) -> io::Result<EgressProxy> {
        Self::start_with(upstream, policy, EgressLimits::default())
    }

    /// As [`EgressProxy::start`], with other limits.
    ///
    /// # Errors
    ///
    /// As [`EgressProxy::start`].
    pub fn start_with(
        upstream: impl Into<Option<UpstreamProxy>>,
        policy: EgressPolicy,
        limits: EgressLimits,
    ) -> io::Result<EgressProxy> {
        Self::guarded(upstream.into(), Guard::new(policy), limits)
    }

    /// As [`EgressProxy::start_with`], with names resolved by `resolver`.
    ///
    /// # Errors
    ///
    /// As [`EgressProxy::start`].
    pub fn start_resolving(
        upstream: impl Into<Option<UpstreamProxy>>,
        policy: EgressPolicy,
        limits: EgressLimits,
        resolver: Resolver,
    ) -> io::Result<EgressProxy> {
        Self::guarded(upstream.into(), Guard::with_resolver(policy, resolver), limits)
    }

    pub(super) fn guarded(
        upstream: Option<UpstreamProxy>,
        guard: Arc<Guard>,
        limits: EgressLimits,
    ) -> io::Result<EgressProxy> {
        let route = dial::Route::new(upstream)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let state = Arc::new(State {
            route,
            guard,
            limits,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            last_failure: Mutex::new(None),
            stop: stop.clone(),
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(EgressProxy { address, state, _stop: stop.drop_guard() })
    }

    /// Where it listens: what Chrome is to use as its proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the upstream last failed: `proxy.connect`, `proxy.auth`, `proxy.slow`. A site that can't be reached through
    /// a working upstream is none of these.
    pub fn last_failure(&self) -> Option<Failure> {
        self.state.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was kept from going out, the first 64 kinds and targets of it.
    pub fn denials(&self) -> Vec<Denial> {
        self.state.guard.denials()
    }

    /// Bytes sent out and received, as they passed to and from the upstream or the sites.
    pub fn bytes(&self) -> (u64, u64) {
        (self.state.up.load(Ordering::Relaxed), self.state.down.load(Ordering::Relaxed))
    }
}

/// What the connections of one proxy share.
struct State {
    route: dial::Route,
    guard: Arc<Guard>,
    limits: EgressLimits,
    up: AtomicU64,
    down: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
    stop: CancellationToken,
}

impl State {
    /// Counts what has moved.
    ///
    /// # Errors
    /// It was more than may.
    fn moved(&self, up: usize, down: usize) -> io::Result<()> {
        let up = self.up.fetch_add(up as u64, Ordering::Relaxed) + up as u64;
        let down = self.down.fetch_add(down as u64, Ordering::Relaxed) + down as u64;
        if up + down > self.guard.max_bytes() {
            self.guard.note(DenialKind::Limit, "all hosts");
            return Err(io::Error::other("more bytes than a task may move"));
        }
        Ok(())
    }

    fn note(&self, error: &DialError) {
        if let Some(failure) = error.failure(&self.route) {
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

/// An HTTP connection outwards that may serve the next request as well, and where it leads.
type Kept = Arc<Mutex<Option<(Target, SendRequest<Body>)>>>;

/// A connection's share of the bound; a tunnel keeps it after the connection's HTTP has ended.
type Slot = Arc<OwnedSemaphorePermit>;

async fn accept(listener: tokio::net::TcpListener, state: Arc<State>) {
    let slots = Arc::new(Semaphore::new(state.limits.connections));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = state.stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: they come back when connections end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let kept = Kept::default();
            let slot = Arc::new(slot);
            let service = hyper::service::service_fn(|request| {
                let (state, kept, slot) = (Arc::clone(&state), Arc::clone(&kept), Arc::clone(&slot));
                async move { Ok::<_, std::convert::Infallible>(serve(&state, &kept, slot, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(state.limits.idle)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                // A browser that hangs up in the middle is no fault.
                _ = connection => {}
                () = state.stop.cancelled() => {}
            }
        });
    }
}

async fn serve(state: &Arc<State>, kept: &Kept, slot: Slot, request: Request<Incoming>) -> Response<Body> {
    let target = Target::of_authority(request.uri()).ok();
    let answer = if request.method() == Method::CONNECT {
        tunnel(state, slot, request).await
    } else {
        forward(state, kept, request).await
    };
    answer.unwrap_or_else(|error| {
        state.note(&error);
        if let Some(target) = target {
            state.guard.note_unreached(target.name(), error.net_error());
        }
        let status = match error {
            DialError::BadRequest(_) => StatusCode::BAD_REQUEST,
            DialError::Forbidden => StatusCode::FORBIDDEN,
            DialError::Timeout(_) | DialError::Slow(_) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        };
        let mut answer = say(status, format!("{error}\n"));
        if let Ok(mark) = HeaderValue::from_str(&state.guard.mark(error.net_error())) {
            answer.headers_mut().insert(OWN_ANSWER, mark);
        }
        answer
    })
}

/// CONNECT: bytes to and fro, whatever they are.
async fn tunnel(state: &Arc<State>, slot: Slot, request: Request<Incoming>) -> Result<Response<Body>, DialError> {
    let target = Target::of_authority(request.uri())?;
    // What goes through it can't be seen; Chrome's interception has looked at it.
    dial::admit(state, &target, true).await?;
    let mut outward = dial::tunnel(state, &target).await?;
    let state = Arc::clone(state);
    tokio::spawn(async move {
        // Within the deadline the browser has our 200; if not, it is gone.
        let Ok(Ok(inward)) = timeout(state.limits.connect, hyper::upgrade::on(request)).await else { return };
        let mut inward = TokioIo::new(inward);
        tokio::select! {
            // Either end may break off at any time; nobody is left to be told.
            _ = tokio::io::copy_bidirectional(&mut inward, &mut outward) => {}
            () = state.stop.cancelled() => {}
        }
        drop(slot);
    });
    Ok(say(StatusCode::OK, String::new()))
}

/// A plain HTTP request, `GET http://host/path`.
async fn forward(state: &Arc<State>, kept: &Kept, mut request: Request<Incoming>) -> Result<Response<Body>, DialError> {
    if request.uri().scheme_str() != Some("http") {
        return Err(DialError::BadRequest("this is a proxy: ask it for an http:// address or CONNECT"));
    }
    let target = Target::of_authority(request.uri())?;
    dial::admit(state, &target, matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)).await?;
    remove_hop_by_hop(request.headers_mut());
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
    request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|_| DialError::BadRequest("bad host"))?);
    // One connection to an HTTP upstream serves every site; any other leads to one.
    let destination = if state.route.speaks_http() { Target::default() } else { target };
    if state.route.speaks_http() {
        if let Some(credentials) = state.route.basic_credentials() {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials);
        }
    } else {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = Uri::try_from(path).map_err(|_| DialError::BadRequest("bad path"))?;
    }
    let response = exchange(state, kept, &destination, request).await?;
    if state.route.speaks_http() && dial::refuses_credentials(response.status(), response.headers()) {
        return Err(DialError::Auth);
    }
    let (mut head, body) = response.into_parts();
    remove_hop_by_hop(&mut head.headers);
    Ok(Response::from_parts(head, body.boxed()))
}

/// Sends a request over the connection that is there, or a new one; keeps the connection if it can be.
async fn exchange(
    state: &Arc<State>,
    kept: &Kept,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, DialError> {
    let old = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    // A kept connection may have been closed just now, which shows only when it is used. What may be repeated is then
    // sent once more; all else, a comment above all, gets a new connection from the start.
    let repeatable = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
    if let Some((leads_to, mut sender)) = old
        && leads_to == *target
        && repeatable
        && sender.ready().await.is_ok()
        && let Ok(response) = sender.send_request(copy_of(&request)).await
    {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((leads_to, sender));
        return Ok(response);
    }
    let stream = dial::for_http(state, target).await?;
    // As lenient with sites as Chrome is.
    let handshake = hyper::client::conn::http1::Builder::new()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .http09_responses(true)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(|error| dial::of_exchange(&error))?;
    let stop = state.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            // Its error reaches the request as well.
            _ = connection => {}
            () = stop.cancelled() => {}
        }
    });
    let response = sender.send_request(request.map(BodyExt::boxed)).await.map_err(|error| dial::of_exchange(&error))?;
    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((target.clone(), sender));
    Ok(response)
}

/// The same request without a body, which it has none of.
fn copy_of(request: &Request<Incoming>) -> Request<Body> {
    let mut copy = Request::new(nothing());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Removes what concerns one connection only: the listed headers, and those that `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        headers.remove(name);
    }
}

fn say(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}
