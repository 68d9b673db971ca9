//! One text from a site, by the same way out as its pages: through a guarded proxy, the task's upstream included.

use std::io;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::egress::{EgressPolicy, EgressProxy, OWN_ANSWER, UpstreamProxy};
use super::pass::SitePass;
use crate::tls;

/// Redirects that are followed, as RFC 9309 asks for.
const REDIRECTS: usize = 5;
/// Longest answer to our CONNECT: our own proxy's.
const MAX_HEAD: usize = 4 << 10;

/// What is to be fetched, and how.
pub struct Fetch<'a> {
    /// http or https.
    pub url: Url,
    /// Who asks.
    pub user_agent: &'a str,
    /// Where the request, and redirects, may go.
    pub policy: EgressPolicy,
    /// None: straight to the site.
    pub upstream: Option<UpstreamProxy>,
    /// For requests to its origin.
    pub pass: Option<&'a SitePass>,
    /// What lies beyond is not read.
    pub max_bytes: usize,
}

/// Fetches by GET, through redirects; status and body of the last answer. Has no deadline of its own.
///
/// # Errors
/// The site can't be reached, or may not be; or it sends in a circle.
pub async fn fetch(what: Fetch<'_>) -> io::Result<(u16, Vec<u8>)> {
    let proxy = EgressProxy::start(what.upstream, what.policy)?;
    let mut url = what.url;
    for _ in 0..=REDIRECTS {
        let headers = what.pass.map(|pass| pass.headers_for("GET", url.as_str())).unwrap_or_default();
        let response = get(&proxy, &url, what.user_agent, &headers).await?;
        if response.headers().contains_key(OWN_ANSWER) {
            return Err(io::Error::other(format!("refused or not reached ({})", response.status())));
        }
        let status = response.status();
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        match location.filter(|_| status.is_redirection()).and_then(|to| url.join(to).ok()) {
            Some(next) if matches!(next.scheme(), "http" | "https") => url = next,
            _ => return Ok((status.as_u16(), read(response.into_body(), what.max_bytes).await?)),
        }
    }
    Err(io::Error::other("it sends from one address to the next"))
}

async fn get(
    proxy: &EgressProxy,
    url: &Url,
    user_agent: &str,
    headers: &[(String, String)],
) -> io::Result<http::Response<hyper::body::Incoming>> {
    let wrong = |error: http::Error| io::Error::other(error.to_string());
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let stream = TcpStream::connect(proxy.address()).await?;
    let secure = url.scheme() == "https";
    // A proxy is asked for whole addresses, a site for paths.
    let target = if secure {
        &url[url::Position::BeforePath..url::Position::AfterQuery]
    } else {
        &url[..url::Position::AfterQuery]
    };
    let mut request = Request::get(target)
        .header(header::HOST, &authority)
        .header(header::USER_AGENT, user_agent)
        .header(header::ACCEPT, "text/plain,*/*;q=0.5");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(wrong)?;
    match secure {
        false => send(stream, request).await,
        true => {
            let stream = tunnel(stream, &format!("{host}:{}", url.port().unwrap_or(443))).await?;
            let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            send(tls::connector(tls::roots()).connect(name, stream).await?, request).await
        }
    }
}

async fn tunnel(mut stream: TcpStream, target: &str) -> io::Result<TcpStream> {
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::other("the proxy's answer has no end"));
        }
        // A byte at a time: the next byte after it is the site's.
        head.push(stream.read_u8().await?);
    }
    match head.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(stream),
        false => Err(io::Error::other("refused or not reached")),
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> io::Result<http::Response<hyper::body::Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the answer's body.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

async fn read(mut body: hyper::body::Incoming, max: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            all.extend_from_slice(&data[..data.len().min(max - all.len())]);
        }
        if all.len() == max {
            break;
        }
    }
    Ok(all)
}
