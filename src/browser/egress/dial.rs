//! How a connection outwards comes about: through the upstream, or to the site itself.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{HeaderValue, PROXY_AUTHENTICATE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

use super::{Metered, State, UpstreamProxy};
use crate::failure::{Failure, FailureReason};

/// Longest answer to a CONNECT, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Where all traffic of a proxy goes.
pub(super) enum Route {
    Direct,
    Http { host: String, port: u16, credentials: Option<HeaderValue> },
    Socks { host: String, port: u16, credentials: Option<(String, SecretString)> },
}

impl Route {
    /// Takes the upstream's address apart; says what is wrong with it without repeating it.
    pub(super) fn new(upstream: Option<UpstreamProxy>) -> io::Result<Route> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let Some(UpstreamProxy { url, username, password }) = upstream else { return Ok(Route::Direct) };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("the proxy's address holds credentials; give user name and password beside it"));
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("the proxy's address has no host; use http://host:port"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let credentials = username.map(|username| (username, password.unwrap_or_default()));
        match url.scheme() {
            "http" => {
                let credentials = credentials.map(|(username, password)| {
                    let pair = format!("{username}:{}", password.expose_secret());
                    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
                        .expect("base64 is fit for a header");
                    value.set_sensitive(true);
                    value
                });
                Ok(Route::Http { host, port: url.port().unwrap_or(80), credentials })
            }
            "socks5" | "socks5h" => Ok(Route::Socks { host, port: url.port().unwrap_or(1080), credentials }),
            _ => Err(wrong("the proxy's address must begin with http:// or socks5://")),
        }
    }

    pub(super) fn speaks_http(&self) -> bool {
        matches!(self, Route::Http { .. })
    }

    pub(super) fn basic_credentials(&self) -> Option<HeaderValue> {
        match self {
            Route::Http { credentials, .. } => credentials.clone(),
            _ => None,
        }
    }
}

/// Host and port of a site; empty for an HTTP upstream, which takes requests to any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    host: String,
    port: u16,
}

impl Target {
    pub(super) fn of_authority(uri: &Uri) -> Result<Target, DialError> {
        let host =
            uri.host().filter(|host| !host.is_empty()).ok_or(DialError::BadRequest("the address has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        // Without a scheme it is a CONNECT, which always names its port.
        let port = uri.port_u16().or(uri.scheme().map(|_| 80));
        Ok(Target { host, port: port.ok_or(DialError::BadRequest("the address has no port"))? })
    }
}

impl Target {
    /// As the policy names it.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("refused by the worker's policy")]
    Forbidden,
    #[error("could not connect: {1}")]
    Connect(&'static str, String),
    #[error("could not connect within {0:?}")]
    Timeout(std::time::Duration),
    #[error("the proxy did not accept the user name and password")]
    Auth,
    #[error("no answer came in time: {0}")]
    Slow(&'static str),
    #[error("the connection broke off: {1}")]
    Broken(&'static str, String),
    #[error("the proxy could not reach the site: {0}")]
    Site(String),
}

impl DialError {
    /// What Chrome would have said, had it gone this way itself.
    pub(super) fn net_error(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "net::ERR_INVALID_URL",
            Self::Forbidden => "net::ERR_BLOCKED_BY_CLIENT",
            Self::Connect(net, _) | Self::Broken(net, _) => net,
            Self::Timeout(_) => "net::ERR_CONNECTION_TIMED_OUT",
            Self::Auth => "net::ERR_PROXY_AUTH_REQUESTED",
            Self::Slow(_) => "net::ERR_TIMED_OUT",
            Self::Site(_) => "net::ERR_TUNNEL_CONNECTION_FAILED",
        }
    }

    /// The failure of the upstream that this is; None where it is not the upstream's.
    pub(super) fn failure(&self, route: &Route) -> Option<Failure> {
        if matches!(route, Route::Direct) {
            return None;
        }
        let message = format!("{self}; check that the proxy is up and its settings are right");
        match self {
            Self::BadRequest(_) | Self::Forbidden | Self::Site(_) => None,
            Self::Auth => Some(Failure::terminal(
                FailureReason::Unknown,
                "proxy.auth",
                "the proxy did not accept the user name and password; correct them",
            )),
            Self::Connect(..) | Self::Timeout(_) | Self::Broken(..) => {
                Some(Failure::retryable(FailureReason::Unknown, "proxy.connect", message))
            }
            Self::Slow(_) => Some(Failure::retryable(FailureReason::Timeout, "proxy.slow", message)),
        }
    }
}

/// What an error of an HTTP exchange is.
pub(super) fn of_exchange(error: &hyper::Error) -> DialError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(one) = one.downcast_ref::<io::Error>() {
            return match one.kind() {
                io::ErrorKind::TimedOut => DialError::Slow("the request was not answered"),
                _ => DialError::Broken(net_error(one), error.to_string()),
            };
        }
        cause = one.source();
    }
    let net = if error.is_parse() { "net::ERR_INVALID_HTTP_RESPONSE" } else { "net::ERR_EMPTY_RESPONSE" };
    DialError::Broken(net, error.to_string())
}

/// What Chrome would have said, had it connected itself.
fn net_error(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "net::ERR_CONNECTION_REFUSED",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "net::ERR_CONNECTION_RESET",
        io::ErrorKind::TimedOut => "net::ERR_CONNECTION_TIMED_OUT",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "net::ERR_ADDRESS_UNREACHABLE",
        io::ErrorKind::UnexpectedEof => "net::ERR_EMPTY_RESPONSE",
        _ => "net::ERR_CONNECTION_FAILED",
    }
}

/// Whether an answer is the upstream's refusal of our credentials. Some proxies say 401 for a wrong password and name
/// themselves in the realm; a site's own 401 has another.
pub(super) fn refuses_credentials(status: StatusCode, headers: &HeaderMap) -> bool {
    let own_realm = || {
        let challenge = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        challenge.is_some_and(|challenge| challenge.to_ascii_lowercase().contains("proxy"))
    };
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => true,
        StatusCode::UNAUTHORIZED => headers.contains_key(PROXY_AUTHENTICATE) || own_realm(),
        _ => false,
    }
}

/// Asks the policy about a host before anything is done for it. The addresses of a host that is dialled from here are
/// looked at when they are known.
pub(super) async fn admit(state: &State, target: &Target, reads: bool) -> Result<(), DialError> {
    let Target { host, port } = target;
    state.guard.admits_host(host, *port, reads).map_err(|_| DialError::Forbidden)?;
    if matches!(state.route, Route::Direct) {
        return Ok(());
    }
    let asked = timeout(state.limits.connect, state.guard.admits_for_upstream(host, *port)).await;
    // A resolver that does not answer here says nothing of the upstream's.
    asked.unwrap_or(Ok(())).map_err(|_| DialError::Forbidden)
}

/// A connection over which bytes reach `target` as they are.
pub(super) async fn tunnel(state: &Arc<State>, target: &Target) -> Result<Metered, DialError> {
    match &state.route {
        Route::Direct => Ok(Metered::new(direct(state, target).await?, Arc::clone(state))),
        Route::Http { host, port, credentials } => {
            let stream = connect(state, host, *port).await?;
            let mut stream = Metered::new(stream, Arc::clone(state));
            let asked = ask_for_tunnel(&mut stream, target, credentials.as_ref());
            timeout(state.limits.handshake, asked).await.map_err(|_| DialError::Slow("CONNECT was not answered"))??;
            Ok(stream)
        }
        Route::Socks { host, port, credentials } => {
            let stream = connect(state, host, *port).await?;
            let address = (target.host.as_str(), target.port);
            let asked = async {
                match credentials {
                    Some((username, password)) => {
                        let password = password.expose_secret();
                        Socks5Stream::connect_with_password_and_socket(stream, address, username, password).await
                    }
                    None => Socks5Stream::connect_with_socket(stream, address).await,
                }
            };
            let stream = timeout(state.limits.handshake, asked)
                .await
                .map_err(|_| DialError::Slow("the SOCKS request was not answered"))?
                .map_err(of_socks)?;
            Ok(Metered::new(stream.into_inner(), Arc::clone(state)))
        }
    }
}

/// A connection that takes the HTTP request for `target`.
pub(super) async fn for_http(state: &Arc<State>, target: &Target) -> Result<Metered, DialError> {
    match &state.route {
        Route::Http { host, port, .. } => Ok(Metered::new(connect(state, host, *port).await?, Arc::clone(state))),
        Route::Direct | Route::Socks { .. } => tunnel(state, target).await,
    }
}

/// To the upstream, whose address is the operator's choice.
async fn connect(state: &State, host: &str, port: u16) -> Result<TcpStream, DialError> {
    timeout(state.limits.connect, TcpStream::connect((host, port)))
        .await
        .map_err(|_| DialError::Timeout(state.limits.connect))?
        .and_then(prompt)
        .map_err(|error| DialError::Connect(net_error(&error), error.to_string()))
}

/// To a site, at each of its addresses that is allowed until one answers.
async fn direct(state: &State, target: &Target) -> Result<TcpStream, DialError> {
    let dialed = async {
        let addresses = state.guard.resolve(&target.host, target.port).await;
        let addresses =
            addresses.map_err(|error| DialError::Connect("net::ERR_NAME_NOT_RESOLVED", error.to_string()))?;
        let mut last = DialError::Connect("net::ERR_NAME_NOT_RESOLVED", "the name has no address".to_owned());
        let admitted = state.guard.admitted(&target.host, target.port, addresses.into_iter());
        for address in admitted.map_err(|_| DialError::Forbidden)? {
            match TcpStream::connect(address).await.and_then(prompt) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = DialError::Connect(net_error(&error), error.to_string()),
            }
        }
        Err(last)
    };
    timeout(state.limits.connect, dialed).await.map_err(|_| DialError::Timeout(state.limits.connect))?
}

fn prompt(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// CONNECT, by hand: what follows the answer is the site's, and must not be read into a buffer of ours.
async fn ask_for_tunnel(
    stream: &mut Metered,
    target: &Target,
    credentials: Option<&HeaderValue>,
) -> Result<(), DialError> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => DialError::Slow("CONNECT was not answered"),
        _ => DialError::Broken(net_error(&error), error.to_string()),
    };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(credentials) = credentials {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(broken)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(DialError::Broken(
                "net::ERR_TUNNEL_CONNECTION_FAILED",
                "its answer to CONNECT has no end".to_owned(),
            ));
        }
        // A byte at a time: it is short, and the next byte after it is not ours.
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        // Nobody but the proxy can have said this.
        Some(401 | 407) => Err(DialError::Auth),
        Some(status) => Err(DialError::Site(format!("its answer to CONNECT is {status}"))),
        None => {
            Err(DialError::Broken("net::ERR_TUNNEL_CONNECTION_FAILED", "its answer to CONNECT is not HTTP".to_owned()))
        }
    }
}

fn of_socks(error: tokio_socks::Error) -> DialError {
    use tokio_socks::Error;
    match error {
        Error::PasswordAuthFailure(_)
        | Error::AuthorizationRequired
        | Error::NoAcceptableAuthMethods
        | Error::UnknownAuthMethod
        | Error::InvalidAuthValues(_) => DialError::Auth,
        Error::GeneralSocksServerFailure
        | Error::ConnectionNotAllowedByRuleset
        | Error::NetworkUnreachable
        | Error::HostUnreachable
        | Error::ConnectionRefused
        | Error::TtlExpired
        | Error::InvalidTargetAddress(_)
        | Error::AddressTypeNotSupported => DialError::Site(error.to_string()),
        other => DialError::Broken("net::ERR_SOCKS_CONNECTION_FAILED", other.to_string()),
    }
}
