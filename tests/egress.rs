//! The forward proxy that a browsing context goes out through, against real proxies.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/policy.rs"]
mod policy;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pagehand::browser::{DenialKind, EgressLimits, EgressPolicy, EgressProxy, Resolver, UpstreamProxy};
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

/// The addresses may be asked.
fn to(addresses: &[SocketAddr]) -> EgressPolicy {
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}/")).collect();
    policy::of(&urls.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn carries_requests_and_tunnels(upstream: Option<UpstreamProxy>) {
    let (site, echo) = (site().await, echo().await);
    let proxy = &EgressProxy::start(upstream, to(&[site, echo])).unwrap();
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
    let (status, _, mut stream) = tunnelled(proxy, echo).await;
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

async fn reports_wrong_password(upstream: UpstreamProxy, password: &str) {
    let site = site().await;
    let proxy = &EgressProxy::start(upstream, to(&[site])).unwrap();
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
    carries_requests_and_tunnels(Some(upstream("http", program.port, PASSWORD))).await;
}

#[tokio::test]
async fn requests_and_tunnels_pass_through_a_socks_proxy_with_a_password() {
    let Some(program) = microsocks().await else { return };
    carries_requests_and_tunnels(Some(upstream("socks5", program.port, PASSWORD))).await;
}

#[tokio::test]
async fn without_an_upstream_it_connects_by_itself() {
    carries_requests_and_tunnels(None).await;
}

#[tokio::test]
async fn a_password_that_an_http_proxy_refuses_is_a_failure_of_the_proxy_and_never_shown() {
    let Some(program) = tinyproxy().await else { return };
    reports_wrong_password(upstream("http", program.port, "wrong-staple-11"), "wrong-staple-11").await;
}

#[tokio::test]
async fn a_password_that_a_socks_proxy_refuses_is_a_failure_of_the_proxy_and_never_shown() {
    let Some(program) = microsocks().await else { return };
    reports_wrong_password(upstream("socks5", program.port, "wrong-staple-11"), "wrong-staple-11").await;
}

#[tokio::test]
async fn a_dead_upstream_is_a_failed_connection_of_the_proxy() {
    for scheme in ["http", "socks5"] {
        let proxy = EgressProxy::start(upstream(scheme, free_port(), PASSWORD), policy::of(&[])).unwrap();
        let (status, _, text) = ask(&mut connected(&proxy).await, Request::get("http://a.example/"), vec![]).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{text}");
        let failure = proxy.last_failure().unwrap();
        assert_eq!((failure.code.as_ref(), failure.retryable), ("proxy.connect", true));
        assert!(!text.contains(PASSWORD) && !format!("{failure:?}").contains(PASSWORD));
        let (status, ..) = tunnelled(&proxy, "93.184.216.34:443".parse().unwrap()).await;
        assert_eq!(status, 502);
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_slow() {
    let (address, _held) = mute().await;
    let short = Duration::from_millis(300);
    let limits = EgressLimits { handshake: short, idle: short, ..EgressLimits::default() };
    for scheme in ["http", "socks5"] {
        let proxy =
            EgressProxy::start_with(upstream(scheme, address.port(), PASSWORD), policy::of(&[]), limits).unwrap();
        let (status, ..) = tunnelled(&proxy, "93.184.216.34:443".parse().unwrap()).await;
        assert_eq!(status, 504, "{scheme}");
        assert_eq!(proxy.last_failure().unwrap().code, "proxy.slow");
        let proxy =
            EgressProxy::start_with(upstream(scheme, address.port(), PASSWORD), policy::of(&[]), limits).unwrap();
        let (status, ..) = ask(&mut connected(&proxy).await, Request::get("http://a.example/"), vec![]).await;
        assert_eq!((status, proxy.last_failure().unwrap().code.as_ref()), (StatusCode::GATEWAY_TIMEOUT, "proxy.slow"));
    }
}

#[tokio::test]
async fn a_site_that_refuses_is_no_failure_of_the_upstream() {
    let Some(program) = microsocks().await else { return };
    let closed = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let proxy = EgressProxy::start(upstream("socks5", program.port, PASSWORD), to(&[closed])).unwrap();
    let (status, ..) = tunnelled(&proxy, closed).await;
    assert_eq!((status, proxy.last_failure()), (502, None));
}

#[tokio::test]
async fn an_idle_tunnel_is_closed_at_its_deadline() {
    let (address, _held) = mute().await;
    let limits = EgressLimits { idle: Duration::from_millis(300), ..EgressLimits::default() };
    let proxy = EgressProxy::start_with(None, to(&[address]), limits).unwrap();
    let (status, _, mut stream) = tunnelled(&proxy, address).await;
    assert_eq!(status, 200);
    let ended = timeout(DEADLINE, stream.read(&mut [0; 1])).await.expect("the end in time");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_one_ends() {
    let limits = EgressLimits { connections: 1, ..EgressLimits::default() };
    let echo = echo().await;
    let proxy = EgressProxy::start_with(None, to(&[echo]), limits).unwrap();
    let (_, _, held) = tunnelled(&proxy, echo).await;
    let mut second = std::pin::pin!(tunnelled(&proxy, echo));
    assert!(timeout(Duration::from_millis(300), &mut second).await.is_err(), "the second was let in");
    drop(held);
    let (status, ..) = timeout(DEADLINE, second).await.expect("the second's turn");
    assert_eq!(status, 200);
}

#[tokio::test]
async fn dropping_it_ends_the_tunnels_and_closes_the_port() {
    let echo = echo().await;
    let proxy = EgressProxy::start(None, to(&[echo])).unwrap();
    let address = proxy.address();
    let (_, _, mut stream) = tunnelled(&proxy, echo).await;
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
        let error = EgressProxy::start(upstream, policy::of(&[])).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(!error.to_string().contains("secret-9"), "{error}");
    }
    let proxy = EgressProxy::start(None, policy::of(&[])).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"GET /not-for-a-proxy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// Counts connections.
async fn canary(address: &str) -> Option<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind(address).await.ok()?;
    let (address, hits) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = hits.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    Some((address, hits))
}

#[tokio::test]
async fn no_spelling_of_a_private_address_gets_through() {
    let (v4, hits_v4) = canary("0.0.0.0:0").await.unwrap();
    let v6 = canary(&format!("[::]:{}", v4.port())).await;
    let proxy = EgressProxy::start(None, policy::of(&["https://enrolled.example/"])).unwrap();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "0.0.0.0",
        "0",
        "localhost",
        "LOCALHOST.",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[::ffff:0:127.0.0.1]",
        "[2001:db8::5efe:7f00:1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
        "198.18.0.1",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
    ];
    for host in hosts {
        let target = format!("{host}:{}", v4.port());
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("an answer in time").unwrap();
        assert_eq!(&answer[9..], b"403", "{host}");
        let (status, _, text) =
            ask(&mut connected(&proxy).await, Request::get(format!("http://{target}/")), vec![]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{host}");
        assert!(!text.contains("127."), "{text}");
    }
    let hits = hits_v4.load(Ordering::SeqCst) + v6.map_or(0, |(_, hits)| hits.load(Ordering::SeqCst));
    assert_eq!(hits, 0, "connections arrived");
    let denials = proxy.denials();
    assert!(denials.iter().all(|denial| denial.kind == DenialKind::PrivateAddress && denial.count == 2), "{denials:?}");
    assert_eq!(denials.len(), hosts.len());
}

#[tokio::test]
async fn an_upstream_is_not_asked_for_private_addresses_either() {
    let (upstream_address, hits) = canary("127.0.0.1:0").await.unwrap();
    for scheme in ["http", "socks5"] {
        let proxy = EgressProxy::start(upstream(scheme, upstream_address.port(), PASSWORD), policy::of(&[])).unwrap();
        for host in ["127.0.0.1", "localhost", "10.0.0.1", "metadata.google.internal", "[::ffff:10.0.0.1]"] {
            let (status, ..) = ask(&mut connected(&proxy).await, Request::get(format!("http://{host}/")), vec![]).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{host}");
        }
        assert_eq!(proxy.last_failure(), None, "the upstream is not to blame");
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0, "the upstream was asked");
}

#[tokio::test]
async fn only_reading_is_forwarded_to_hosts_that_are_not_enrolled() {
    let site = site().await;
    let elsewhere = EgressPolicy { enrolled: Some(Arc::default()), ..to(&[site]) };
    let proxy = EgressProxy::start(None, elsewhere).unwrap();
    for (method, expected) in [("GET", 200), ("POST", 403), ("PUT", 403), ("DELETE", 403)] {
        let request = Request::builder().method(method).uri(format!("http://{site}/"));
        let (status, ..) = ask(&mut connected(&proxy).await, request, vec![]).await;
        assert_eq!(status.as_u16(), expected, "{method}");
    }
}

#[tokio::test]
async fn a_task_that_moves_more_than_it_may_is_cut_off() {
    let echo = echo().await;
    let small = EgressPolicy { max_bytes: 100_000, ..to(&[echo]) };
    let proxy = EgressProxy::start(None, small).unwrap();
    let (status, _, mut stream) = tunnelled(&proxy, echo).await;
    assert_eq!(status, 200);
    let (mut read, mut write) = stream.split();
    let (sent, mut got) = (vec![0; 1 << 20], Vec::new());
    let sending = async {
        // It is cut off in the middle.
        let _ = write.write_all(&sent).await;
    };
    let reading = async {
        let _ = read.read_to_end(&mut got).await;
    };
    timeout(DEADLINE, async { tokio::join!(sending, reading) }).await.expect("the end in time");
    assert!(got.len() < 100_000, "{} bytes came back", got.len());
    assert_eq!(proxy.denials()[0].kind, DenialKind::Limit);
}

/// A resolver that says one thing and then another; how often it was asked.
fn lying(answers: Vec<Vec<&'static str>>) -> (Resolver, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let resolver = Resolver::new(move |_, port| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        let answer = &answers[n.min(answers.len() - 1)];
        let addresses = answer.iter().map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect();
        Box::pin(async move { Ok(addresses) })
    });
    (resolver, asked)
}

#[tokio::test]
async fn a_name_whose_answers_change_or_lead_inside_by_an_alias_reaches_nothing_there() {
    let (address, hits) = canary("127.0.0.1:0").await.unwrap();
    let policy = || EgressPolicy {
        private: Arc::default(),
        ..policy::of(&[&format!("http://rebind.example:{}/", address.port())])
    };
    let limits = EgressLimits { connect: Duration::from_millis(800), ..EgressLimits::default() };
    let get = format!("http://rebind.example:{}/", address.port());
    let connect = format!("CONNECT rebind.example:{0} HTTP/1.1\r\nHost: rebind.example:{0}\r\n\r\n", address.port());
    // A public address where nobody answers; what an alias leads to is all that a resolver says.
    const PUBLIC: &str = "2606:2800:220:1:248:1893:25c8:1946";
    for (what, answers, refused) in [
        ("public, then inside", vec![vec![PUBLIC], vec!["127.0.0.1"]], [false, true]),
        ("both in one answer", vec![vec![PUBLIC, "127.0.0.1"]], [false, false]),
        ("both, the other way around", vec![vec!["127.0.0.1", PUBLIC]], [false, false]),
        ("an alias of an inner name", vec![vec!["127.0.0.1"]], [true, true]),
        ("an inner address inside another", vec![vec!["::ffff:127.0.0.1"], vec!["64:ff9b::7f00:1"]], [true, true]),
    ] {
        let (resolver, asked) = lying(answers);
        let proxy = EgressProxy::start_resolving(None, policy(), limits, resolver).unwrap();
        for (n, refused) in refused.into_iter().enumerate() {
            let (status, _, text) = ask(&mut connected(&proxy).await, Request::get(&get), vec![]).await;
            assert_eq!(status == StatusCode::FORBIDDEN, refused, "{what}, request {n}: {status} {text}");
            assert!(!text.contains("127.0.0.1"), "{text}");
            assert_eq!(asked.load(Ordering::SeqCst), n + 1, "{what}: asked once a connection");
        }
        let (mut stream, mut head) = (TcpStream::connect(proxy.address()).await.unwrap(), vec![0; 12]);
        stream.write_all(connect.as_bytes()).await.unwrap();
        timeout(DEADLINE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        assert_ne!(&head[9..], b"200", "{what}");
        assert_eq!(
            proxy.denials().iter().any(|one| one.kind == DenialKind::PrivateAddress),
            refused.contains(&true),
            "{what}"
        );
    }
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_upstream_is_not_asked_for_a_name_that_leads_inside_here() {
    let Some(program) = tinyproxy().await else { return };
    let (address, hits) = canary("127.0.0.1:0").await.unwrap();
    let url = format!("http://inside.example:{}/", address.port());
    let policy = EgressPolicy { private: Arc::default(), ..policy::of(&[&url]) };
    let (resolver, _) = lying(vec![vec!["93.184.216.34", "10.0.0.1"]]);
    let upstream = upstream("http", program.port, PASSWORD);
    let proxy = EgressProxy::start_resolving(upstream, policy, EgressLimits::default(), resolver).unwrap();
    let (status, ..) = ask(&mut connected(&proxy).await, Request::get(&url), vec![]).await;
    assert_eq!((status, hits.load(Ordering::SeqCst)), (StatusCode::FORBIDDEN, 0));
}

#[tokio::test]
async fn whatever_a_page_tries_only_so_many_denials_are_kept_and_all_are_counted() {
    let proxy = EgressProxy::start(None, policy::of(&["http://enrolled.example/"])).unwrap();
    let mut sender = connected(&proxy).await;
    for n in 0..200 {
        let (status, ..) = ask(&mut sender, Request::get(format!("http://10.0.{}.{n}/", n % 7)), vec![]).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let denials = proxy.denials();
    assert!(denials.len() <= 70, "{}", denials.len());
    assert_eq!(denials.iter().map(|one| one.count).sum::<u32>(), 200);
    assert!(denials.iter().any(|one| one.target == "others"));
}
