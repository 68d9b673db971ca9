//! The forward proxy that a browsing context goes out through, against real proxies.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pagehand::browser::{EgressLimits, EgressProxy, UpstreamProxy};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(20);
const PASSWORD: &str = "correct-horse-7f3a";

/// A proxy program that ends with the test.
struct Program {
    child: Child,
    port: u16,
    _config: Option<tempfile::NamedTempFile>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

async fn started(mut command: Command, port: u16, config: Option<tempfile::NamedTempFile>) -> Option<Program> {
    let name = command.get_program().to_owned();
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {} is not installed", name.display());
            return None;
        }
        Err(error) => panic!("{}: {error}", name.display()),
    };
    let program = Program { child, port, _config: config };
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        assert!(Instant::now() < until, "{} does not listen", name.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some(program)
}

async fn tinyproxy() -> Option<Program> {
    let port = free_port();
    let mut config = tempfile::NamedTempFile::new().unwrap();
    write!(config, "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 30\nBasicAuth robot {PASSWORD}\n").unwrap();
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(config.path());
    started(command, port, Some(config)).await
}

async fn microsocks() -> Option<Program> {
    let port = free_port();
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-u", "robot", "-P", PASSWORD]);
    started(command, port, None).await
}

fn upstream(scheme: &str, port: u16, password: &str) -> UpstreamProxy {
    UpstreamProxy {
        url: format!("{scheme}://127.0.0.1:{port}").parse().unwrap(),
        username: Some("robot".to_owned()),
        password: Some(SecretString::from(password)),
    }
}

/// A site that answers with the request line, its headers and the length of the body.
async fn site() -> SocketAddr {
    async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        let length = request.into_body().collect().await?.to_bytes().len();
        text += &format!("body {length}\n");
        let response = Response::builder().header("connection", "x-of-this-hop").header("x-of-this-hop", "1");
        Ok(response.body(Full::from(text)).unwrap())
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(async move {
                // The client ends it when it likes.
                let _ = serving.await;
            });
        }
    });
    address
}

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A server that takes connections and never says a word.
async fn mute() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    (listener.local_addr().unwrap(), listener)
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

async fn connected(proxy: &EgressProxy) -> Sender {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(
    sender: &mut Sender,
    request: http::request::Builder,
    body: Vec<u8>,
) -> (StatusCode, http::HeaderMap, String) {
    sender.ready().await.unwrap();
    let response = sender.send_request(request.body(Full::from(body)).unwrap());
    let response = timeout(DEADLINE, response).await.expect("an answer in time").unwrap();
    let (head, body) = response.into_parts();
    let text = timeout(DEADLINE, body.collect()).await.expect("a body in time").unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(text.to_vec()).unwrap())
}

/// Opens a tunnel; the status, and the stream behind it.
async fn tunnelled(proxy: &EgressProxy, target: SocketAddr) -> (u16, String, TcpStream) {
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(DEADLINE, reading).await.expect("an answer to CONNECT in time");
    let head = String::from_utf8(head).unwrap();
    (head[9..12].parse().unwrap(), head, stream)
}

async fn carries_requests_and_tunnels(proxy: &EgressProxy) {
    let site = site().await;
    let mut sender = connected(proxy).await;
    // All over the same connection, and one with a body larger than any buffer.
    let requests = [("GET", "/a?b=c", 0_usize), ("GET", "/again", 0), ("POST", "/upload", 3_000_000), ("GET", "/", 0)];
    for (method, path, length) in requests {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{site}{path}"))
            .header("x-kept", "yes")
            .header("connection", "keep-alive, x-dropped")
            .header("x-dropped", "no")
            .header("proxy-connection", "keep-alive");
        let (status, headers, text) = ask(&mut sender, request, vec![b'x'; length]).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(text.starts_with(&format!("{method} {path}\n")), "{text}");
        assert!(text.contains("x-kept: yes") && text.contains(&format!("host: {site}")), "{text}");
        assert!(!text.contains("x-dropped") && !text.contains("proxy-"), "{text}");
        assert!(text.ends_with(&format!("body {length}\n")), "{text}");
        assert!(!headers.contains_key("x-of-this-hop"));
    }
    let (status, _, mut stream) = tunnelled(proxy, echo().await).await;
    assert_eq!(status, 200);
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut got = vec![0; sent.len()];
    let exchanged = async { tokio::try_join!(write.write_all(&sent), read.read_exact(&mut got)) };
    timeout(DEADLINE, exchanged).await.expect("the echo in time").unwrap();
    assert!(got == sent, "the tunnel changed the bytes");
    let (up, down) = proxy.bytes();
    assert!(up >= 3_200_000 && down >= 200_000, "{up} up, {down} down");
    assert_eq!(proxy.last_failure(), None);
}

async fn reports_wrong_password(proxy: &EgressProxy, password: &str) {
    let site = site().await;
    let (status, _, text) = ask(&mut connected(proxy).await, Request::get(format!("http://{site}/")), vec![]).await;
    let failure = proxy.last_failure().expect("the refusal is remembered");
    assert_eq!((status, failure.code.as_ref(), failure.retryable), (StatusCode::BAD_GATEWAY, "proxy.auth", false));
    let (status, head, _) = tunnelled(proxy, site).await;
    assert_eq!(status, 502);
    let failure = proxy.last_failure().unwrap();
    assert_eq!(failure.code, "proxy.auth");
    for told in [text, head, format!("{failure:?}"), format!("{proxy:?}")] {
        assert!(!told.contains(password) && !told.contains("robot"), "{told}");
    }
}

#[tokio::test]
async fn requests_and_tunnels_pass_through_an_http_proxy_with_a_password() {
    let Some(program) = tinyproxy().await else { return };
    let proxy = EgressProxy::start(upstream("http", program.port, PASSWORD)).unwrap();
    carries_requests_and_tunnels(&proxy).await;
}

#[tokio::test]
async fn requests_and_tunnels_pass_through_a_socks_proxy_with_a_password() {
    let Some(program) = microsocks().await else { return };
    let proxy = EgressProxy::start(upstream("socks5", program.port, PASSWORD)).unwrap();
    carries_requests_and_tunnels(&proxy).await;
}

#[tokio::test]
async fn without_an_upstream_it_connects_by_itself() {
    let proxy = EgressProxy::start(None).unwrap();
    carries_requests_and_tunnels(&proxy).await;
}

#[tokio::test]
async fn a_password_that_an_http_proxy_refuses_is_a_failure_of_the_proxy_and_never_shown() {
    let Some(program) = tinyproxy().await else { return };
    let proxy = EgressProxy::start(upstream("http", program.port, "wrong-staple-11")).unwrap();
    reports_wrong_password(&proxy, "wrong-staple-11").await;
}

#[tokio::test]
async fn a_password_that_a_socks_proxy_refuses_is_a_failure_of_the_proxy_and_never_shown() {
    let Some(program) = microsocks().await else { return };
    let proxy = EgressProxy::start(upstream("socks5", program.port, "wrong-staple-11")).unwrap();
    reports_wrong_password(&proxy, "wrong-staple-11").await;
}

#[tokio::test]
async fn a_dead_upstream_is_a_failed_connection_of_the_proxy() {
    for scheme in ["http", "socks5"] {
        let proxy = EgressProxy::start(upstream(scheme, free_port(), PASSWORD)).unwrap();
        let (status, _, text) = ask(&mut connected(&proxy).await, Request::get("http://a.example/"), vec![]).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{text}");
        let failure = proxy.last_failure().unwrap();
        assert_eq!((failure.code.as_ref(), failure.retryable), ("proxy.connect", true));
        assert!(!text.contains(PASSWORD) && !format!("{failure:?}").contains(PASSWORD));
        let (status, ..) = tunnelled(&proxy, "192.0.2.1:443".parse().unwrap()).await;
        assert_eq!(status, 502);
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_slow() {
    let (address, _held) = mute().await;
    let short = Duration::from_millis(300);
    let limits = EgressLimits { handshake: short, idle: short, ..EgressLimits::default() };
    for scheme in ["http", "socks5"] {
        let proxy = EgressProxy::start_with(upstream(scheme, address.port(), PASSWORD), limits).unwrap();
        let (status, ..) = tunnelled(&proxy, "192.0.2.1:443".parse().unwrap()).await;
        assert_eq!(status, 504, "{scheme}");
        assert_eq!(proxy.last_failure().unwrap().code, "proxy.slow");
        let proxy = EgressProxy::start_with(upstream(scheme, address.port(), PASSWORD), limits).unwrap();
        let (status, ..) = ask(&mut connected(&proxy).await, Request::get("http://a.example/"), vec![]).await;
        assert_eq!((status, proxy.last_failure().unwrap().code.as_ref()), (StatusCode::GATEWAY_TIMEOUT, "proxy.slow"));
    }
}

#[tokio::test]
async fn a_site_that_refuses_is_no_failure_of_the_upstream() {
    let Some(program) = microsocks().await else { return };
    let proxy = EgressProxy::start(upstream("socks5", program.port, PASSWORD)).unwrap();
    let (status, ..) = tunnelled(&proxy, SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))).await;
    assert_eq!((status, proxy.last_failure()), (502, None));
}

#[tokio::test]
async fn an_idle_tunnel_is_closed_at_its_deadline() {
    let (address, _held) = mute().await;
    let limits = EgressLimits { idle: Duration::from_millis(300), ..EgressLimits::default() };
    let proxy = EgressProxy::start_with(None, limits).unwrap();
    let (status, _, mut stream) = tunnelled(&proxy, address).await;
    assert_eq!(status, 200);
    let ended = timeout(DEADLINE, stream.read(&mut [0; 1])).await.expect("the end in time");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_ends() {
    let limits = EgressLimits { connections: 1, ..EgressLimits::default() };
    let proxy = EgressProxy::start_with(None, limits).unwrap();
    let echo = echo().await;
    let (_, _, held) = tunnelled(&proxy, echo).await;
    let mut second = std::pin::pin!(tunnelled(&proxy, echo));
    assert!(timeout(Duration::from_millis(300), &mut second).await.is_err(), "the second was let in");
    drop(held);
    let (status, ..) = timeout(DEADLINE, second).await.expect("the second's turn");
    assert_eq!(status, 200);
}

#[tokio::test]
async fn dropping_it_ends_the_tunnels_and_closes_the_port() {
    let proxy = EgressProxy::start(None).unwrap();
    let address = proxy.address();
    let (_, _, mut stream) = tunnelled(&proxy, echo().await).await;
    drop(proxy);
    let ended = timeout(DEADLINE, stream.read(&mut [0; 1])).await.expect("the end in time");
    assert!(matches!(ended, Ok(0) | Err(_)));
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < until, "the port is still open");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_address_it_cannot_use_is_refused_at_once_without_repeating_it() {
    for url in ["http://robot:secret-9@127.0.0.1:1", "ftp://127.0.0.1:1", "https://127.0.0.1:1"] {
        let upstream = UpstreamProxy { url: url.parse().unwrap(), username: None, password: None };
        let error = EgressProxy::start(upstream).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(!error.to_string().contains("secret-9"), "{error}");
    }
    let proxy = EgressProxy::start(None).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"GET /not-for-a-proxy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
