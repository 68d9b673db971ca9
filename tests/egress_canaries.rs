//! Pages that try every way to where they may not go, in real Chrome, against listeners that count who comes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use pagehand::browser::{BrowserError, BrowserPool, BrowserSettings, DenialKind, EgressPolicy, Tab, TabOptions};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

#[path = "support/database.rs"]
mod database;
#[path = "support/policy.rs"]
mod policy;
#[path = "support/program.rs"]
mod program;

const LIMIT: Duration = Duration::from_secs(20);

/// What nobody may reach: TCP and UDP on one port of loopback, in both families.
struct Canary {
    port: u16,
    hits: Arc<AtomicUsize>,
    datagrams: Arc<AtomicUsize>,
    /// First lines of what was asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Canary {
    async fn start() -> Canary {
        let tcp = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let hits = Arc::new(AtomicUsize::new(0));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let udp = UdpSocket::bind(("0.0.0.0", port)).await.unwrap();
        let v6 = TcpListener::bind(("::1", port)).await.ok();
        for listener in [Some(tcp), v6].into_iter().flatten() {
            let (hits, asked) = (hits.clone(), asked.clone());
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    hits.fetch_add(1, Ordering::SeqCst);
                    let asked = asked.clone();
                    tokio::spawn(async move {
                        use tokio::io::{AsyncReadExt, AsyncWriteExt};
                        // Whoever comes may ask, and has an answer: a page that got through would show it.
                        let mut request = [0; 4096];
                        let read = stream.read(&mut request).await.unwrap_or(0);
                        let text = String::from_utf8_lossy(&request[..read]).into_owned();
                        asked.lock().unwrap().extend(text.lines().next().map(str::to_owned));
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\nContent-Type: text/html\r\n\r\nCANARY";
                        let _ = stream.write_all(answer).await;
                    });
                }
            });
        }
        let datagrams = Arc::new(AtomicUsize::new(0));
        let counted = datagrams.clone();
        tokio::spawn(async move {
            while udp.recv_from(&mut [0; 2048]).await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Canary { port, hits, datagrams, asked }
    }

    /// Connections, and datagrams.
    fn hits(&self) -> (usize, usize) {
        (self.hits.load(Ordering::SeqCst), self.datagrams.load(Ordering::SeqCst))
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/", self.port)
    }
}

/// An enrolled site that has been broken into: shows what it is told to, and sends on to where it is told to.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    page: Arc<Mutex<String>>,
}

impl Site {
    async fn start() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Site { address: listener.local_addr().unwrap(), page: Arc::default() };
        let app = axum::Router::new()
            .route("/", get(|State(site): State<Site>| async move { Html(site.page.lock().unwrap().clone()) }))
            .route("/hop/{left}/{*to}", get(hop))
            // A worker is a file of its origin: it is sent where it is told to go.
            .route("/worker.js", get(worker))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        site
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn show(&self, html: impl Into<String>) {
        *self.page.lock().unwrap() = html.into();
    }
}

/// Sends on to itself until nothing is left, then to `to`.
async fn hop(Path((left, to)): Path<(u32, String)>) -> Response {
    match left {
        0 | 1 => Redirect::temporary(&format!("http://{to}")).into_response(),
        left => Redirect::temporary(&format!("/hop/{}/{to}", left - 1)).into_response(),
    }
}

/// A script that reaches for what its address names, as often as it is a worker of another kind.
async fn worker(
    axum::extract::Query(asked): axum::extract::Query<std::collections::HashMap<String, String>>,
) -> Response {
    let to = serde_json::to_string(&asked["to"]).unwrap();
    let script = format!(
        "const to = {to};
         const tried = fetch(to + 'service-worker', {{ mode: 'no-cors' }}).catch(() => 0);
         self.oninstall = event => event.waitUntil(tried);
         self.onconnect = event => tried.then(() => event.ports[0].postMessage(1));"
    );
    ([("content-type", "text/javascript")], script).into_response()
}

struct Bench {
    pool: BrowserPool,
    site: Site,
    canary: Canary,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = BrowserSettings { state_dir: dir.path().to_owned(), ..BrowserSettings::default() };
        Bench { pool: BrowserPool::new(settings), site: Site::start().await, canary: Canary::start().await, _dir: dir }
    }

    async fn tab(&self, policy: EgressPolicy) -> Tab {
        let deadline = Instant::now() + Duration::from_secs(90);
        self.pool.open(TabOptions { user_agent: None, proxy: None, policy, deadline }).await.unwrap()
    }

    /// The site itself and nothing else.
    fn policy(&self) -> EgressPolicy {
        policy::of(&[&self.site.url("/")])
    }

    /// Everything that a page can try without being asked; its title is `done` when all of it has been tried.
    fn attack(&self, host: &str) -> String {
        let (to, port) = (self.canary.url(host), self.canary.port);
        format!(
            r#"<!doctype html><title>trying</title>
<link rel=dns-prefetch href="{to}"><link rel=preconnect href="{to}"><link rel=preload as=image href="{to}preload">
<link rel=prefetch href="{to}prefetch"><link rel=modulepreload href="{to}module"><link rel=icon href="{to}icon">
<link rel=stylesheet href="{to}css"><style>@import url({to}import); body {{ background: url({to}background) }}</style>
<img src="{to}img"><iframe src="{to}frame"></iframe><object data="{to}object"></object><embed src="{to}embed">
<link rel=manifest href="{to}manifest"><link rel=preload as=font crossorigin href="{to}font">
<style>@font-face {{ font-family: x; src: url({to}face) }} p {{ font-family: x; cursor: url({to}cursor), auto }}</style><p>x</p>
<script type=speculationrules>{{"prefetch": [{{"urls": ["{to}speculated"]}}], "prerender": [{{"urls": ["{to}prerendered"]}}]}}</script>
<video src="{to}video"><track default src="{to}track"></video><img srcset="{to}srcset 1x"><input type=image src="{to}input"><audio src="{to}audio"></audio><script src="{to}script"></script>
<img src="/hop/2/{host}:{port}/redirected"><iframe src="/hop/1/{host}:{port}/redirected"></iframe>
<iframe name=hole></iframe><form id=form method=post action="{to}form" target=hole><input name=a value=b></form>
<svg><image href="{to}svg"/></svg><a id=link href="{to}ping" ping="{to}ping">x</a>
<script>
const to = "{to}";
const soon = new Promise(done => setTimeout(done, 3000));
const event = (what, ...names) => new Promise(done => names.forEach(name => what.addEventListener(name, done)));
const xhr = new XMLHttpRequest(); xhr.open("GET", to + "xhr");
const picture = new Image(); picture.src = to + "picture";
const tried = [
    fetch(to + "fetch"), fetch(to + "opaque", {{ mode: "no-cors" }}),
    fetch(to + "post", {{ method: "POST", mode: "no-cors", body: "x" }}),
    event(xhr, "loadend"), event(picture, "load", "error"),
    event(new WebSocket(to.replace("http", "ws") + "socket"), "open", "error"),
    event(new EventSource(to + "events"), "open", "error"),
    event(new Worker(URL.createObjectURL(new Blob([`fetch("${{to}}worker").catch(() => 0).then(() => postMessage(1))`]))), "message", "error"),
];
xhr.send();
const file = "/worker.js?to=" + encodeURIComponent(to);
const shared = new SharedWorker(file);
tried.push(event(shared.port, "message"), event(shared, "error"));
shared.port.start();
tried.push(navigator.serviceWorker.register(file).then(registered => new Promise(done => {{
    const installing = registered.installing;
    installing ? installing.onstatechange = done : done();
}})));
tried.push(import(to + "imported"));
try {{ tried.push(new WebTransport(to.replace("http:", "https:") + "transport").ready); }} catch {{}}
try {{ fetchLater(to + "later", {{ activateAfter: 0 }}); }} catch {{}}
navigator.sendBeacon(to + "beacon", "x");
try {{ window.open(to + "window"); }} catch {{}}
document.getElementById("form").submit();
try {{
    const peer = new RTCPeerConnection({{ iceServers: [{{ urls: "stun:{host}:{port}" }}] }});
    peer.createDataChannel("x");
    peer.createOffer().then(offer => peer.setLocalDescription(offer));
    tried.push(Promise.race([soon, new Promise(done => peer.onicecandidate = e => e.candidate || done())]));
}} catch {{}}
Promise.allSettled(tried.map(one => Promise.race([one, soon]))).then(() => {{ document.title = "done"; }});
</script>"#
        )
    }

    async fn has_tried(&self, tab: &Tab) {
        let look = "() => document.title === 'done' || null";
        let done: Option<bool> = tab.wait_for(&tab.main_frame(), look, &[], LIMIT).await.unwrap();
        assert_eq!(done, Some(true), "the page came to no end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reaches_nothing_inside_the_network_whatever_it_tries() {
    let bench = Bench::new().await;
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "0x7f.1"] {
        bench.site.show(bench.attack(host));
        let tab = bench.tab(bench.policy()).await;
        tab.goto(&bench.site.url("/"), LIMIT).await.unwrap();
        bench.has_tried(&tab).await;
        let denials = tab.denials();
        assert!(denials.iter().any(|one| one.kind == DenialKind::PrivateAddress), "{host}: {denials:?}");
        assert!(denials.iter().any(|one| one.kind == DenialKind::ThirdPartyWrite), "{host}: {denials:?}");
        assert!(!tab.dom(LIMIT).await.unwrap().html.contains("CANARY"));
        tab.close().await;
        assert_eq!(bench.canary.hits(), (0, 0), "{host}");
    }
    bench.pool.shutdown().await;
    assert_eq!(bench.canary.hits(), (0, 0));
}

/// The proof that the attack is one: where the canary may be reached, it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_page_reaches_a_host_that_was_enrolled() {
    let bench = Bench::new().await;
    bench.site.show(bench.attack("127.0.0.1"));
    let open = policy::of(&[&bench.site.url("/"), &bench.canary.url("127.0.0.1")]);
    let tab = bench.tab(open).await;
    tab.goto(&bench.site.url("/"), LIMIT).await.unwrap();
    bench.has_tried(&tab).await;
    let (connections, _) = bench.canary.hits();
    assert!(connections > 15, "{connections} connections only");
    let asked = bench.canary.asked.lock().unwrap().join("\n");
    for way in ["css", "frame", "fetch", "form", "beacon", "service-worker", "imported", "face", "redirected"] {
        assert!(asked.contains(&format!("/{way} ")), "{way} is no way:\n{asked}");
    }
    bench.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_frame_does_not_leave_the_enrolled_sites() {
    let bench = Bench::new().await;
    let to = bench.canary.url("localhost");
    let tab = bench.tab(bench.policy()).await;
    // Told to go there, and sent on to there by any number of hops: an error that says what to do.
    let hops = [1, 2, 5].map(|left| bench.site.url(&format!("/hop/{left}/localhost:{}/", bench.canary.port)));
    for url in hops.iter().chain([&to]) {
        match tab.goto(url, LIMIT).await {
            Err(error @ BrowserError::Denied(_)) => {
                let failure = error.to_failure();
                assert_eq!((failure.code.as_ref(), failure.retryable), ("policy.not_enrolled", false));
                assert!(failure.message.contains("pagehand site add http://localhost:"), "{}", failure.message);
            }
            other => panic!("{url}: {other:?}"),
        }
    }
    // Left by the page itself: it stays where it was.
    let ways = [
        format!("<script>location = '{to}'</script>"),
        format!("<meta http-equiv=refresh content='0;url={to}'>"),
        format!("<form method=post action='{to}'></form><script>document.forms[0].submit()</script>"),
        format!("<form action='{to}'><input name=q></form><script>document.forms[0].submit()</script>"),
        format!("<iframe srcdoc=\"<script>top.location='{to}'</script>\"></iframe>"),
        "<script>location = 'file:///etc/passwd'</script>".to_owned(),
        "<script>location = 'view-source:file:///etc/passwd'</script>".to_owned(),
        "<script>location = 'chrome://version'</script>".to_owned(),
        "<script>location = 'data:text/html,CANARY'</script>".to_owned(),
        "<iframe src='file:///etc/passwd'></iframe>".to_owned(),
    ];
    for way in ways {
        bench.site.show(format!("<!doctype html><title>here</title><p>still here</p>{way}"));
        let before: u32 = tab.denials().iter().map(|denial| denial.count).sum();
        tab.goto(&bench.site.url("/"), LIMIT).await.unwrap_or_else(|error| panic!("{way}: {error}"));
        if way.contains(&to) {
            let until = Instant::now() + LIMIT;
            while tab.denials().iter().map(|denial| denial.count).sum::<u32>() == before {
                assert!(Instant::now() < until, "{way}: nothing was denied");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let html = tab.dom(LIMIT).await.unwrap().html;
        assert!(html.contains("still here") && !html.contains("root:"), "{way}: {html}");
    }
    for url in [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "view-source:http://127.0.0.1/",
        "chrome://version",
        "javascript:1",
    ] {
        let denied = tab.goto(url, LIMIT).await;
        assert!(matches!(denied, Err(BrowserError::UrlDenied { .. })), "{url}: {denied:?}");
    }
    bench.pool.shutdown().await;
    assert_eq!(bench.canary.hits(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_name_that_leads_inside_is_refused_and_says_nothing_of_where() {
    let bench = Bench::new().await;
    // Enrolled as a public site; then its name was pointed at this machine.
    let policy = EgressPolicy { private: Arc::default(), ..policy::of(&[&bench.canary.url("localhost")]) };
    let tab = bench.tab(policy).await;
    let denied = tab.goto(&bench.canary.url("localhost"), LIMIT).await.unwrap_err();
    let failure = denied.to_failure();
    assert_eq!(failure.code, "policy.egress_denied");
    assert!(!failure.message.contains("127.0.0") && !failure.message.contains("::1"), "{}", failure.message);
    bench.pool.shutdown().await;
    assert_eq!(bench.canary.hits(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_page_leads_away_fails_with_what_to_do_and_an_operator_can_see_it() {
    let (site, canary) = (Site::start().await, Canary::start().await);
    let program = program::Program::new().await.with("PAGEHAND_WORKER__METRICS_LISTEN", "127.0.0.1:0");
    program.enrol(&site.url("")).await;
    let url = site.url(&format!("/hop/2/localhost:{}/", canary.port));
    let payload = serde_json::json!({"author": "Ann", "email": "ann@example.org", "body": "A fine piece, thank you."});
    let ids = program.enqueue(&[serde_json::json!({"task_type": "comment", "url": url, "payload": payload})]).await;
    let worker = program.worker(&[]);
    program::until("the task has failed", async || program.show(ids[0]).await["status"] == "failed").await;
    let run = program.show(ids[0]).await;
    assert_eq!(run["failure_code"], "policy.not_enrolled", "{run}");
    assert!(run["last_error"].as_str().unwrap().contains("pagehand site add"), "{run}");
    assert!(program.steps(ids[0]).contains(&"egress_denied".to_owned()));
    assert!(program.log().contains("egress.denied"), "{}", program.log());
    let audit = program.db.queue().await.audit(10).await.unwrap();
    let entry = audit.iter().find(|entry| entry.action == "egress.denied").expect("a line in the audit");
    assert_eq!(entry.details["task_id"], ids[0]);
    assert_eq!(canary.hits(), (0, 0));
    let log = program.log();
    let address = log.lines().find(|line| line.contains("worker.metrics_listening")).unwrap();
    let address: serde_json::Value = serde_json::from_str(address).unwrap();
    let counted = metrics_of(address["address"].as_str().unwrap()).await;
    assert!(counted.contains("pagehand_egress_denied_total{kind=\"not_enrolled\"} 1"), "{counted}");
    drop(worker);
}

/// What a worker counts.
async fn metrics_of(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_tells_third_parties_of_a_visit_is_in_the_audit_once_a_day() {
    let site = Site::start().await;
    site.show("<h1>Nothing</h1><script>navigator.sendBeacon('http://counter.example/hit', 'x')</script>");
    let program = program::Program::new().await;
    program.enrol(&site.url("")).await;
    let payload = serde_json::json!({"author": "Ann", "email": "ann@example.org", "body": "A fine piece, thank you."});
    let line = serde_json::json!({"task_type": "comment", "url": site.url("/"), "max_retries": 0, "payload": payload});
    let ids = program.enqueue(&[line.clone(), line]).await;
    program.drain().await;
    for id in ids {
        assert!(program.steps(id).contains(&"egress_denied".to_owned()), "{:?}", program.steps(id));
    }
    let audit = program.db.queue().await.audit(20).await.unwrap();
    let of_it: Vec<_> = audit.iter().filter(|entry| entry.subject.contains("counter.example")).collect();
    assert_eq!(of_it.len(), 1, "{audit:?}");
    assert_eq!(of_it[0].details["kind"], "third_party_write");
}
