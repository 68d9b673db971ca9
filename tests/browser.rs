//! Chrome as the worker uses it, against pages that misbehave.

// A helper that fails fails the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/nasty.rs"]
mod nasty;
#[path = "support/policy.rs"]
mod policy;

use std::time::Duration;

use nasty::Nasty;
use pagehand::browser::*;
use serde_json::json;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(5);

struct Fixture {
    pool: BrowserPool,
    nasty: Nasty,
    state_dir: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Fixture {
        Fixture::with(|settings| settings).await
    }

    async fn with(change: impl FnOnce(BrowserSettings) -> BrowserSettings) -> Fixture {
        let state_dir = tempfile::tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(state_dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let settings = BrowserSettings { state_dir: state_dir.path().to_owned(), ..BrowserSettings::default() };
        let pool = BrowserPool::new(change(settings));
        Fixture { pool, nasty: Nasty::start().await, state_dir }
    }

    async fn tab(&self) -> Tab {
        self.pool.open(self.options()).await.unwrap()
    }

    /// A tab with a page that shows `html`.
    async fn showing(&self, html: &str) -> Tab {
        let tab = self.tab().await;
        let url = self.nasty.page("shown", html);
        tab.goto(&url, SOON).await.unwrap();
        tab
    }

    fn options(&self) -> TabOptions {
        let policy = policy::of(&[&self.nasty.url("/")]);
        TabOptions { user_agent: None, proxy: None, policy, deadline: Instant::now() + Duration::from_secs(60) }
    }
}

async fn find(tab: &Tab, css: &str) -> ElementRef {
    find_in(tab, &tab.main_frame(), css).await
}

async fn find_in(tab: &Tab, frame: &FrameId, css: &str) -> ElementRef {
    let look = "(ph, css) => { const [found] = ph.deepQueryAll(css); return found ? ph.keep(found) : null; }";
    let handle: Option<u32> = tab.wait_for(frame, look, &[json!(css)], SOON).await.unwrap();
    ElementRef { frame: frame.clone(), handle: handle.unwrap_or_else(|| panic!("no {css}")) }
}

async fn value(tab: &Tab, element: &ElementRef) -> String {
    let look = "(ph, n) => { const e = ph.get(n); return e.isContentEditable ? e.innerText : e.value; }";
    tab.call(&element.frame, look, &[json!(element.handle)], SOON).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_loaded_filled_clicked_and_captured() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing("<!doctype html><title>t</title><input id=a><button onclick=\"this.textContent='pressed'\">b</button>")
        .await;
    let field = find(&tab, "#a").await;
    tab.fill(&field, "Grüße 😀", SOON).await.unwrap();
    assert_eq!(value(&tab, &field).await, "Grüße 😀");
    let button = find(&tab, "button").await;
    tab.click(&button, SOON).await.unwrap();
    let dom = tab.dom(SOON).await.unwrap();
    assert!(dom.html.contains("value=\"Grüße 😀\"") && dom.html.contains(">pressed</button>"), "{}", dom.html);
    let png = tab.screenshot(SOON).await.unwrap();
    assert_eq!(png[..4], *b"\x89PNG");
    assert_eq!(tab.title_and_url().await.unwrap().0, "t");
    tab.close().await;
    fixture.pool.shutdown().await;
    assert_eq!(std::fs::read_dir(fixture.state_dir.path()).unwrap().count(), 0);
}

/// What the tests of submitting decide with.
struct Gate {
    admit: Result<(), String>,
    hold: &'static str,
    asked: std::sync::Mutex<Vec<HeldRequest>>,
    /// Looked at while the request is held.
    server: Option<(Nasty, &'static str)>,
}

impl Gate {
    fn admitting(hold: &'static str) -> Gate {
        Gate { admit: Ok(()), hold, asked: std::sync::Mutex::default(), server: None }
    }

    fn refusing(hold: &'static str) -> Gate {
        Gate { admit: Err("the lease is lost".to_owned()), ..Gate::admitting(hold) }
    }
}

impl SubmitGate for Gate {
    fn judge(&self, request: &HeldRequest) -> Judgement {
        if request.url.contains(self.hold) { Judgement::Hold } else { Judgement::Pass }
    }

    fn admit<'a>(&'a self, request: &'a HeldRequest) -> futures::future::BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(request.clone());
            if let Some((server, path)) = &self.server {
                // Time enough for a request that was not held to arrive.
                tokio::time::sleep(Duration::from_millis(200)).await;
                assert_eq!(server.seen(path).len(), 0, "it left before it was admitted");
            }
            self.admit.clone()
        })
    }
}

/// Runs a test's body and fails it when it takes longer than it may.
async fn within<T>(seconds: u64, body: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), body).await.expect("the test took longer than it may")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renderer_crash_fails_the_call_under_way_and_all_that_follow() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>x</p>").await;
    let frame = tab.main_frame();
    let pool = fixture.pool.clone();
    let crash = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill_renderers(&pool);
        Instant::now()
    };
    let waiting = tab.call::<()>(&frame, "() => new Promise(() => {})", &[], Duration::from_secs(30));
    let (failed, crashed) = tokio::join!(within(10, waiting), crash);
    assert!(matches!(failed, Err(BrowserError::RendererCrashed)), "{failed:?}");
    assert!(crashed.elapsed() < Duration::from_secs(2));
    let started = Instant::now();
    let later = tab.call::<()>(&frame, "() => null", &[], SOON).await;
    assert!(matches!(later, Err(BrowserError::RendererCrashed)), "{later:?}");
    assert!(matches!(tab.screenshot(SOON).await, Err(BrowserError::RendererCrashed)));
    assert!(matches!(tab.dom(SOON).await, Err(BrowserError::RendererCrashed)));
    assert!(started.elapsed() < Duration::from_millis(500));
    // Others are not concerned.
    let other = fixture.showing("<p>y</p>").await;
    assert!(other.dom(SOON).await.is_ok());
    fixture.pool.shutdown().await;
}

fn group_of(pid: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        let group = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)?.parse::<u32>().ok());
        if group == Some(pid) {
            let line = std::fs::read(format!("/proc/{other}/cmdline")).unwrap_or_default();
            found.push((other, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn kill_renderers(pool: &BrowserPool) {
    for pid in pool.stats().pids {
        group_of(pid).iter().filter(|(_, line)| line.contains("--type=renderer")).for_each(|(pid, _)| kill(*pid));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_browser_fails_what_waits_at_once_and_the_next_tab_gets_a_new_one() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>x</p>").await;
    let frame = tab.main_frame();
    let pids = fixture.pool.stats().pids;
    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill(pids[0]);
        Instant::now()
    };
    let waiting = tab.call::<()>(&frame, "() => new Promise(() => {})", &[], Duration::from_secs(30));
    let (failed, killed) = tokio::join!(within(10, waiting), end);
    let told = killed.elapsed();
    match &failed {
        Err(BrowserError::BrowserGone { why, .. }) => assert_eq!(why, "it was killed by signal 9"),
        other => panic!("{other:?}"),
    }
    assert!(told < Duration::from_secs(1), "{told:?}");
    drop(tab);
    let again = fixture.showing("<p>again</p>").await;
    assert!(again.dom(SOON).await.unwrap().html.contains("again"));
    let stats = fixture.pool.stats();
    assert_eq!((stats.launches, stats.crashes), (2, 1));
    again.close().await;
    fixture.pool.shutdown().await;
    assert_eq!(group_of(pids[0]), [], "nothing of it is left, not even as a zombie");
    assert_eq!(std::fs::read_dir(fixture.state_dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_opens_dialogs_without_end_is_given_up_and_can_still_be_seen() {
    let fixture = Fixture::new().await;
    let tab = fixture.tab().await;
    let url = fixture.nasty.page("alerts", "<p id=p>loop</p><script>for (;;) alert('again')</script>");
    let failed = within(10, tab.goto(&url, SOON)).await;
    assert!(matches!(failed, Err(BrowserError::DialogLoop { .. })), "{failed:?}");
    assert!(tab.dom(SOON).await.unwrap().html.contains("loop"));
    assert!(tab.screenshot(SOON).await.is_ok());
    assert!(tab.counters().dialogs > 20);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dialogs_are_answered_and_counted() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing("<button onclick=\"alert(1); document.title = [confirm('?'), prompt('?', 'x')].join()\">b</button>")
        .await;
    let button = find(&tab, "button").await;
    within(5, tab.click(&button, SOON)).await.unwrap();
    assert_eq!(tab.title_and_url().await.unwrap().0, "false,");
    assert_eq!(tab.counters().dialogs, 3);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_without_end_is_stopped_and_named() {
    let fixture = Fixture::new().await;
    let tab = fixture.tab().await;
    let url = fixture.nasty.page("forever", "<p>hung</p><script>for (;;);</script>");
    let failed = within(8, tab.goto(&url, Duration::from_secs(2))).await;
    assert!(matches!(failed, Err(BrowserError::PageHung { .. })), "{failed:?}");
    assert!(tab.dom(SOON).await.unwrap().html.contains("hung"));
    assert!(tab.screenshot(SOON).await.is_ok());

    let tab = fixture.showing("<p>hangs later</p><script>setTimeout(() => { for (;;); }, 300)</script>").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let frame = tab.main_frame();
    let failed = within(8, tab.call::<u8>(&frame, "() => 1", &[], Duration::from_secs(1))).await;
    assert!(matches!(failed, Err(BrowserError::PageHung { .. })), "{failed:?}");
    assert_eq!(tab.call::<u8>(&frame, "() => 1", &[], SOON).await.unwrap(), 1);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_page_is_captured_within_the_budget() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>hangs later</p><script>setTimeout(() => { for (;;); }, 200)</script>").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    assert!(tab.screenshot(Duration::from_secs(3)).await.is_ok());
    assert!(tab.dom(Duration::from_secs(3)).await.unwrap().html.contains("hangs later"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_picture_never_comes_counts_as_landed_at_the_limit() {
    let fixture = Fixture::new().await;
    let tab = fixture.tab().await;
    let url = fixture.nasty.page("endless", "<p>here</p><img src=/never>");
    let landed = within(5, tab.goto(&url, Duration::from_secs(1))).await.unwrap();
    assert!(!landed.loaded);
    assert_eq!(landed.status, Some(200));
    assert!(tab.dom(SOON).await.unwrap().html.contains("here"));
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_and_headers_that_never_come_are_timeouts() {
    let fixture = Fixture::new().await;
    let tab = fixture.tab().await;
    for path in ["/slow-body", "/never"] {
        let started = Instant::now();
        let failed = within(5, tab.goto(&fixture.nasty.url(path), Duration::from_secs(1))).await;
        assert!(matches!(failed, Err(BrowserError::NavigationTimeout { .. })), "{path}: {failed:?}");
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(tab.screenshot(SOON).await.is_ok(), "{path}");
    }
    // Loading was stopped: the tab goes on.
    let url = fixture.nasty.page("next", "<p>next</p>");
    assert!(tab.goto(&url, SOON).await.unwrap().loaded);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_page_says_what_it_is() {
    let fixture = Fixture::new().await;
    let refused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nasty = &fixture.nasty;
    let policy = policy::of(&[
        &nasty.url("/"),
        &format!("http://{refused}/"),
        "http://no-such-host.invalid/",
        "https://no-such-host.invalid/",
    ]);
    let tab = fixture.pool.open(TabOptions { policy, ..fixture.options() }).await.unwrap();
    tab.goto(&nasty.page("start", "<p>start</p>"), SOON).await.unwrap();
    let started = Instant::now();
    let failed = tab.goto(&nasty.url("/nothing"), SOON).await;
    assert!(matches!(failed, Err(BrowserError::NoContent { .. })), "{failed:?}");
    let failed = tab.goto(&nasty.url("/download"), SOON).await;
    assert!(matches!(failed, Err(BrowserError::Download { .. })), "{failed:?}");
    for (url, expected) in [
        (format!("http://{refused}/"), "net::ERR_CONNECTION_REFUSED"),
        (nasty.url("/loop"), "net::ERR_TOO_MANY_REDIRECTS"),
        ("http://no-such-host.invalid/".to_owned(), "net::ERR_NAME_NOT_RESOLVED"),
        ("https://no-such-host.invalid/".to_owned(), "net::ERR_NAME_NOT_RESOLVED"),
    ] {
        match tab.goto(&url, SOON).await {
            Err(BrowserError::NavigationFailed { error_text, .. }) => assert_eq!(error_text, expected),
            other => panic!("{url}: {other:?}"),
        }
    }
    for url in [
        "file:///etc/hostname",
        "FILE:///etc/hostname",
        "chrome://version",
        "view-source:http://a/",
        "javascript:1",
        "x",
    ] {
        let failed = tab.goto(url, SOON).await;
        assert!(matches!(failed, Err(BrowserError::UrlDenied { .. })), "{failed:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(6));
    tokio::time::timeout(SOON, async {
        while tab.counters().downloads != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_sends_itself_on_is_followed_to_the_end() {
    let fixture = Fixture::new().await;
    let tab = fixture.tab().await;
    fixture.nasty.page("end", "<title>end</title>");
    let url = fixture.nasty.page("start", "<script>location = '/page/end'</script>");
    let landed = tab.goto(&url, SOON).await.unwrap();
    assert!(landed.url.ends_with("/page/end"), "{landed:?}");
    assert_eq!(landed.status, Some(200));
    let same = tab.goto(&format!("{}#part", landed.url), SOON).await.unwrap();
    assert!(same.url.ends_with("/page/end#part"), "{same:?}");
    assert_eq!(same.loader_id, landed.loader_id);
    let missing = tab.goto(&fixture.nasty.url("/page/none"), SOON).await.unwrap();
    assert_eq!(missing.status, Some(404));
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_does_not_want_to_be_left_is_left() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing("<button>b</button><script>onbeforeunload = (e) => { e.preventDefault(); return 'stay' }</script>")
        .await;
    let button = find(&tab, "button").await;
    tab.click(&button, SOON).await.unwrap();
    let next = fixture.nasty.page("next", "<p>next</p>");
    within(5, tab.goto(&next, SOON)).await.unwrap();
    assert_eq!(tab.counters().beforeunloads, 1);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_the_page_opens_are_closed_before_they_run_and_a_storm_ends_the_task() {
    let fixture = Fixture::new().await;
    fixture.nasty.page("popup", "<script>fetch('/echo/popup-ran', { method: 'POST' })</script>");
    let tab = fixture.showing("<button onclick=\"window.open('/page/popup')\">b</button>").await;
    let button = find(&tab, "button").await;
    tab.click(&button, SOON).await.unwrap();
    within(5, async {
        while tab.counters().popups == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(tab.dom(SOON).await.is_ok());
    let mut ended = Ok(());
    for _ in 0..12 {
        ended = tab.click(&button, SOON).await;
        if ended.is_err() {
            break;
        }
    }
    assert!(matches!(ended, Err(BrowserError::TabsLimit { .. })), "{ended:?}");
    assert!(tab.screenshot(SOON).await.is_ok());
    assert_eq!(fixture.nasty.seen("/page/popup").len(), 0, "not even asked for");
    assert_eq!(fixture.nasty.seen("/echo/popup-ran").len(), 0);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_unicode_goes_into_every_kind_of_field_as_real_input() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<input id=input value=old><textarea id=area>old</textarea><div id=rich contenteditable>old</div>
             <div id=host></div>
             <script>
               host.attachShadow({ mode: 'open' }).innerHTML = '<input id=inner>';
               window.trusted = 0;
               document.addEventListener('input', (e) => { if (e.isTrusted) trusted++ }, true);
             </script>",
        )
        .await;
    let texts = ["plain", "Grüße 👩‍👩‍👧‍👦 é", "שלום עולם مرحبا", "日本語テキスト", "a\u{0301}\u{200d}\u{fe0f}", ""];
    for css in ["#input", "#area", "#rich", "#inner"] {
        let field = find(&tab, css).await;
        for text in texts {
            tab.fill(&field, text, SOON).await.unwrap_or_else(|error| panic!("{css} {text}: {error}"));
            assert_eq!(value(&tab, &field).await.trim_end_matches('\n'), text, "{css}");
        }
    }
    let area = find(&tab, "#area").await;
    tab.fill(&area, "one\r\ntwo\n\nthree", SOON).await.unwrap();
    assert_eq!(value(&tab, &area).await, "one\ntwo\n\nthree");
    let long = "0123456789abcde\n".repeat(6000);
    tab.fill(&area, &long, SOON).await.unwrap();
    assert_eq!(value(&tab, &area).await.len(), long.len());
    tab.close().await;
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_does_not_take_what_is_put_in_says_so() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<input id=short maxlength=3><input id=stubborn oninput=\"this.value='no'\"><input id=off disabled>
             <input id=fixed readonly><input id=date type=date><input id=box type=checkbox>",
        )
        .await;
    let brief = Duration::from_millis(300);
    for (css, expected) in [("#short", "3"), ("#stubborn", "2")] {
        let field = find(&tab, css).await;
        match tab.fill(&field, "12345", brief).await {
            Err(BrowserError::NotFilled { detail }) => assert!(detail.contains(expected), "{detail}"),
            other => panic!("{css}: {other:?}"),
        }
    }
    for (css, expected) in
        [("#off", ActionCheck::Enabled), ("#fixed", ActionCheck::Editable), ("#box", ActionCheck::Editable)]
    {
        let field = find(&tab, css).await;
        match tab.fill(&field, "12345", brief).await {
            Err(BrowserError::NotActionable { check, .. }) => assert_eq!(check, expected),
            other => panic!("{css}: {other:?}"),
        }
    }
    let date = find(&tab, "#date").await;
    tab.fill(&date, "2026-02-28", SOON).await.unwrap();
    assert_eq!(value(&tab, &date).await, "2026-02-28");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_boxes_are_set_and_seen_to_be() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<select id=list><option value=''>choose<option value=de>Germany<option value=fr>France</select>
             <input id=box type=checkbox>
             <label><input id=styled type=checkbox style='position:absolute;opacity:0;width:0;height:0'><span>agree</span></label>
             <div id=aria role=checkbox aria-checked=false tabindex=0
                  onclick=\"this.setAttribute('aria-checked', this.getAttribute('aria-checked') !== 'true')\">x</div>
             <input id=gone type=checkbox style='display:none'>
             <script>list.addEventListener('change', () => document.title = list.value)</script>",
        )
        .await;
    let list = find(&tab, "#list").await;
    tab.select(&list, " germany ", SOON).await.unwrap();
    assert_eq!(tab.title_and_url().await.unwrap().0, "de");
    tab.select(&list, "fr", SOON).await.unwrap();
    assert_eq!(value(&tab, &list).await, "fr");
    let failed = tab.select(&list, "Atlantis", Duration::from_millis(200)).await;
    assert!(matches!(failed, Err(BrowserError::NoSuchOption { .. })), "{failed:?}");
    for css in ["#box", "#styled", "#aria", "#gone"] {
        let one = find(&tab, css).await;
        for wanted in [true, true, false] {
            tab.set_checked(&one, wanted, SOON).await.unwrap_or_else(|error| panic!("{css}: {error}"));
        }
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_under_another_is_not_clicked_and_the_other_is_named() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<button onclick=\"document.title='clicked'\">b</button>
             <div id=cookies style='position:fixed;inset:0;z-index:99;background:#fff'><b>We use cookies</b></div>",
        )
        .await;
    let button = find(&tab, "button").await;
    let started = Instant::now();
    match tab.click(&button, Duration::from_millis(700)).await {
        Err(BrowserError::NotActionable { check: ActionCheck::ReceivesEvents, covering: Some(covering), .. }) => {
            assert_eq!((covering.css.as_str(), covering.text.as_str()), ("#cookies", "We use cookies"));
            assert_eq!(covering.z_index, "99");
        }
        other => panic!("{other:?}"),
    }
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_ne!(tab.title_and_url().await.unwrap().0, "clicked");
    let frame = tab.main_frame();
    let later = "() => { setTimeout(() => document.querySelector('#cookies').remove(), 300); }";
    tab.call::<()>(&frame, later, &[], SOON).await.unwrap();
    tab.click(&button, SOON).await.unwrap();
    assert_eq!(tab.title_and_url().await.unwrap().0, "clicked");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_that_moves_is_clicked_when_it_rests_and_hidden_or_removed_ones_never() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<style>@keyframes go { from { left: 0 } to { left: 600px } }
               #moving { position: absolute; top: 3000px; animation: go .7s linear forwards }</style>
             <button id=moving onclick=\"document.title = 'at ' + this.getBoundingClientRect().left\">b</button>
             <button id=hidden style='visibility:hidden'>h</button><button id=off disabled>o</button><button id=gone>g</button>",
        )
        .await;
    let moving = find(&tab, "#moving").await;
    tab.click(&moving, SOON).await.unwrap();
    assert_eq!(tab.title_and_url().await.unwrap().0, "at 600");
    for (css, expected) in [("#hidden", ActionCheck::Visible), ("#off", ActionCheck::Enabled)] {
        let one = find(&tab, css).await;
        match tab.click(&one, Duration::from_millis(200)).await {
            Err(BrowserError::NotActionable { check, .. }) => assert_eq!(check, expected),
            other => panic!("{css}: {other:?}"),
        }
    }
    let gone = find(&tab, "#gone").await;
    tab.call::<()>(&gone.frame, "(ph, n) => { ph.get(n).remove() }", &[json!(gone.handle)], SOON).await.unwrap();
    let failed = tab.click(&gone, SOON).await;
    assert!(matches!(failed, Err(BrowserError::Stale)), "{failed:?}");
    fixture.pool.shutdown().await;
}

async fn frames_are_filled_and_clicked(fixture: &Fixture) {
    let inner = "<body style='margin:0'><div style='height:900px'></div><input id=field><button onclick=\"field.value += '!'\">b</button>";
    let nasty = &fixture.nasty;
    nasty.page("inner", inner);
    nasty.page(
        "middle",
        format!(
            "<p>m</p><iframe id=deep style='border:7px solid;padding:3px' src='{}'></iframe>",
            nasty.url("/page/inner")
        ),
    );
    for (what, src) in [
        ("same site", nasty.url("/page/inner")),
        ("another site", nasty.other_site("/page/inner")),
        ("a frame in a frame of another site", nasty.other_site("/page/middle")),
    ] {
        let tab = fixture
            .showing(&format!("<div style='height:1500px'></div><iframe id=outer name=named style='margin-left:90px' src='{src}'></iframe>"))
            .await;
        let wanted = if src.ends_with("middle") { 3 } else { 2 };
        let frames = within(5, async {
            loop {
                let frames = tab.frames().await.unwrap();
                let there = frames.len() == wanted && frames.iter().all(|frame| frame.url.contains("/page/"));
                if there && frames[1].element.is_some() {
                    return frames;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(frames[0].id, tab.main_frame());
        assert_eq!(frames[1].parent, Some(tab.main_frame()));
        assert_eq!((frames[1].name.as_str(), frames[1].element.as_deref()), ("named", Some("#outer")), "{what}");
        assert!(frames.iter().all(|frame| frame.reachable));
        let last = frames.iter().find(|frame| frame.url.ends_with("/page/inner")).unwrap();
        let field = find_in(&tab, &last.id, "#field").await;
        tab.fill(&field, "in a frame", SOON).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let button = find_in(&tab, &last.id, "button").await;
        tab.click(&button, SOON).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(value(&tab, &field).await, "in a frame!", "{what}");
        tab.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_the_same_and_of_another_site_are_filled_and_clicked_alike() {
    let fixture = Fixture::new().await;
    within(30, frames_are_filled_and_clicked(&fixture)).await;
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_in_other_processes_are_filled_and_clicked_alike() {
    let Some(fixture) = full_chromium().await else { return };
    within(60, frames_are_filled_and_clicked(&fixture)).await;
    fixture.pool.shutdown().await;
}

/// Full chromium, which gives frames of other sites processes of their own; `None` where it is not installed.
async fn full_chromium() -> Option<Fixture> {
    let path = std::path::Path::new("/usr/bin/chromium");
    if !path.exists() {
        return None;
    }
    Some(Fixture::with(|settings| BrowserSettings { executable: Some(path.to_owned()), ..settings }).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_refuses_to_be_framed_is_flagged() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<iframe src=/framed-not></iframe><iframe src=/page/none></iframe>").await;
    let frames = tab.frames().await.unwrap();
    assert_eq!(frames.len(), 3, "{frames:?}");
    assert!(!frames[1].reachable && frames[1].url.ends_with("/framed-not"), "{frames:?}");
    assert!(frames[1].error.as_deref().unwrap().contains("net::ERR_BLOCKED_BY_RESPONSE"), "{frames:?}");
    assert!(frames[2].reachable);
    fixture.pool.shutdown().await;
}

const FORM: &str = "<form method=post action=/post><input name=a value='ä b'><input name=b type=hidden value=2><button>send</button></form>";

#[tokio::test(flavor = "multi_thread")]
async fn the_forms_post_is_held_until_it_is_admitted_and_its_answer_is_reported() {
    let fixture = Fixture::new().await;
    for by_form in [false, true] {
        let fresh = Nasty::start().await;
        let policy = policy::of(&[&fresh.url("/")]);
        let tab = fixture.pool.open(TabOptions { policy, ..fixture.options() }).await.unwrap();
        tab.goto(&fresh.page("form", FORM), SOON).await.unwrap();
        let trigger = find(&tab, if by_form { "form" } else { "button" }).await;
        let gate = Gate { server: Some((fresh.clone(), "/post")), ..Gate::admitting("/post") };
        let report = within(10, tab.submit(&trigger, &gate, SOON)).await.unwrap();
        let asked = gate.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].body.as_deref(), Some(b"a=%C3%A4+b&b=2".as_slice()));
        assert_eq!((asked[0].method.as_str(), asked[0].resource_type.as_str()), ("POST", "Document"));
        let admitted = report.admitted.unwrap();
        assert_eq!((admitted.status, admitted.location.as_deref()), (Some(303), Some("/echo/done")));
        let landed = report.landed.unwrap();
        assert_eq!((landed.status, landed.loaded), (Some(200), true));
        assert!(landed.url.ends_with("/echo/done"));
        assert_eq!(fresh.seen("/post").len(), 1);
        assert_eq!(report.refused, 0);
        tab.close().await;
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_is_refused_never_reaches_the_server() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing(FORM).await;
    let button = find(&tab, "button").await;
    let report = within(10, tab.submit(&button, &Gate::refusing("/post"), SOON)).await.unwrap();
    assert_eq!(report.admitted, None);
    assert_eq!((report.refused, report.refusal.as_deref()), (1, Some("the lease is lost")));
    // Nor by another way afterwards: nobody answers for it.
    let again = "async () => { try { await fetch('/answer', { method: 'POST', body: 'a' }); return 'sent' } catch { return 'refused' } }";
    assert_eq!(tab.call::<String>(&tab.main_frame(), again, &[], SOON).await.unwrap(), "refused");
    assert_eq!(fixture.nasty.seen("/answer").len(), 0);
    let next = fixture.nasty.page("next", "<p>next</p>");
    tab.goto(&next, SOON).await.unwrap();
    assert_eq!(fixture.nasty.seen("/post").len(), 0);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_post_does_not_leave_when_the_call_is_dropped_or_the_tab_is_closed() {
    let fixture = Fixture::new().await;
    struct Never;
    impl SubmitGate for Never {
        fn judge(&self, _: &HeldRequest) -> Judgement {
            Judgement::Hold
        }
        fn admit<'a>(&'a self, _: &'a HeldRequest) -> futures::future::BoxFuture<'a, Result<(), String>> {
            Box::pin(std::future::pending())
        }
    }
    for close in [false, true] {
        let tab = fixture.showing(FORM).await;
        let button = find(&tab, "button").await;
        let given_up = tokio::time::timeout(Duration::from_secs(1), tab.submit(&button, &Never, SOON)).await;
        assert!(given_up.is_err());
        if close {
            tab.close().await;
        } else {
            let next = fixture.nasty.page("next", "<p>next</p>");
            tab.goto(&next, SOON).await.unwrap();
        }
        // A round trip through the same server: had the post left, it would have come before.
        fixture.showing("<p>other</p>").await.close().await;
        assert_eq!(fixture.nasty.seen("/post").len(), 0);
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_submitting_request_of_a_script_is_held_and_a_second_one_is_refused() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<button onclick=go()>send</button><script>
             async function go() {
               await fetch('/echo/check-name', { method: 'POST', body: 'free?' });
               const both = ['{\"n\":1}', '{\"n\":2}'].map((body) => fetch('/answer', { method: 'POST', body }));
               const [first] = await Promise.allSettled(both);
               document.title = (await first.value.json()).id;
             }
             window.again = () => { const r = new XMLHttpRequest(); r.open('POST', '/answer'); r.send('3') };
             </script>",
        )
        .await;
    let button = find(&tab, "button").await;
    let gate = Gate { server: Some((fixture.nasty.clone(), "/answer")), ..Gate::admitting("/answer") };
    let report = within(10, tab.submit(&button, &gate, SOON)).await.unwrap();
    let admitted = report.admitted.unwrap();
    // Chrome calls a fetch by the older name while it is held.
    assert_eq!((admitted.status, admitted.resource_type.as_str()), (Some(201), "XHR"));
    assert!(admitted.body_excerpt.as_deref().unwrap().contains("\"id\":7"), "{admitted:?}");
    assert_eq!(report.refused, 1);
    assert_eq!((report.others.len(), report.others[0].status), (1, Some(200)));
    assert_eq!(report.landed, None);
    // Nor later on, by whatever way.
    let frame = tab.main_frame();
    tab.call::<()>(
        &frame,
        "() => { const s = document.createElement('script'); s.textContent = 'again()'; document.body.append(s); }",
        &[],
        SOON,
    )
    .await
    .unwrap();
    within(5, async {
        while tab.counters().refused_repeats == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fixture.nasty.seen("/answer").len(), 1);
    assert_eq!(fixture.nasty.seen("/echo/check-name").len(), 1);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beacons_get_forms_and_posts_of_frames_are_held_as_well() {
    let fixture = Fixture::new().await;
    let nasty = &fixture.nasty;
    nasty.page("inner", "<form method=post action=/echo/inner><input name=a><button>send</button></form>");
    for (what, path, html) in [
        (
            "beacon",
            "/echo/beacon",
            "<button onclick=\"navigator.sendBeacon('/echo/beacon', 'x')\">b</button>".to_owned(),
        ),
        ("get form", "/echo/get", "<form action=/echo/get><input name=q value=1><button>b</button></form>".to_owned()),
        ("frame", "/echo/inner", "<iframe src=/page/inner></iframe>".to_owned()),
        (
            "frame of another site",
            "/echo/inner",
            format!("<iframe src='{}'></iframe>", nasty.other_site("/page/inner")),
        ),
    ] {
        let tab = fixture.showing(&html).await;
        let before = nasty.seen(path).len();
        let frame = tab.frames().await.unwrap().pop().unwrap();
        let button = find_in(&tab, &frame.id, "button").await;
        let report = within(10, tab.submit(&button, &Gate::refusing(path), SOON)).await.unwrap();
        assert_eq!(report.refused, 1, "{what}");
        assert_eq!(nasty.seen(path).len(), before, "{what}");
        tab.close().await;
        let tab = fixture.showing(&html).await;
        let frame = tab.frames().await.unwrap().pop().unwrap();
        let button = find_in(&tab, &frame.id, "button").await;
        let report = within(10, tab.submit(&button, &Gate::admitting(path), SOON)).await.unwrap();
        assert_eq!(report.admitted.unwrap().status, Some(200), "{what}");
        assert_eq!(nasty.seen(path).len(), before + 1, "{what}");
        tab.close().await;
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_post_of_a_frame_in_another_process_is_held() {
    let Some(fixture) = full_chromium().await else { return };
    let nasty = &fixture.nasty;
    nasty.page("inner", "<form method=post action=/echo/inner><input name=a><button>send</button></form>");
    let tab = fixture.showing(&format!("<iframe src='{}'></iframe>", nasty.other_site("/page/inner"))).await;
    let frame = tab.frames().await.unwrap().pop().unwrap();
    let button = find_in(&tab, &frame.id, "button").await;
    let report = within(20, tab.submit(&button, &Gate::refusing("/echo/inner"), SOON)).await.unwrap();
    assert_eq!(report.refused, 1);
    assert_eq!(nasty.seen("/echo/inner").len(), 0);
    let tab = fixture.showing(&format!("<iframe src='{}'></iframe>", nasty.other_site("/page/inner"))).await;
    let frame = tab.frames().await.unwrap().pop().unwrap();
    let button = find_in(&tab, &frame.id, "button").await;
    let report = within(20, tab.submit(&button, &Gate::admitting("/echo/inner"), SOON)).await.unwrap();
    assert_eq!(report.admitted.unwrap().status, Some(200));
    assert_eq!(nasty.seen("/echo/inner").len(), 1);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_the_browser_finds_incomplete_ends_soon_with_nothing_sent() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<form method=post action=/post><input name=a required><button>b</button></form>").await;
    let button = find(&tab, "button").await;
    let started = Instant::now();
    let report = tab.submit(&button, &Gate::admitting("/post"), Duration::from_secs(20)).await.unwrap();
    assert_eq!(report, SubmitReport::default());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_surrogate_on_a_page_costs_nothing_but_itself() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing("<p id=p></p><script>p.textContent = 'a\\ud800b'; document.title = '\\udfff'; console.error('\\ud800')</script>")
        .await;
    assert!(tab.dom(SOON).await.unwrap().html.contains("a\u{fffd}b"));
    assert_eq!(tab.title_and_url().await.unwrap().0, "\u{fffd}");
    assert_eq!(tab.counters().console_errors, 1);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_captured_document_shows_what_is_there_but_no_password() {
    let fixture = Fixture::new().await;
    fixture.nasty.page("inner", "<p>inside the frame</p>");
    let tab = fixture
        .showing(
            "<input id=a><input id=p type=password><input id=otp autocomplete=one-time-code><textarea id=t></textarea>
             <select id=s><option>one<option>two</select><input id=c type=checkbox><div id=host></div>
             <iframe src=/page/inner></iframe><script>const x = '</p>' && 1 < 2;</script>
             <script>host.attachShadow({ mode: 'open' }).innerHTML = '<p>in the shadow</p>'</script>",
        )
        .await;
    for (css, text) in [("#a", "say \"hi\" <b>"), ("#p", "s3cret-password"), ("#otp", "424242"), ("#t", "a < b")] {
        tab.fill(&find(&tab, css).await, text, SOON).await.unwrap();
    }
    tab.select(&find(&tab, "#s").await, "two", SOON).await.unwrap();
    tab.set_checked(&find(&tab, "#c").await, true, SOON).await.unwrap();
    // "Show password": it is one all the same, and the picture does not show it either.
    tab.call::<()>(&tab.main_frame(), "() => { document.querySelector('#p').type = 'text' }", &[], SOON).await.unwrap();
    let html = tab.dom(SOON).await.unwrap().html;
    for wanted in [
        "value=\"say &quot;hi&quot; &lt;b&gt;\"",
        "a &lt; b</textarea>",
        "<option selected=\"\">two",
        "id=\"c\" type=\"checkbox\" checked=\"\"",
        "<template shadowrootmode=\"open\"><p>in the shadow</p></template>",
        "srcdoc=\"&lt;html&gt;",
        "inside the frame",
        "1 < 2;",
    ] {
        assert!(html.contains(wanted), "{wanted} is not in {html}");
    }
    assert!(!html.contains("s3cret") && !html.contains("424242"), "{html}");
    let look =
        "() => ['#p', '#otp', '#a'].map(css => getComputedStyle(document.querySelector(css)).webkitTextSecurity)";
    let covered: Vec<String> = tab.call(&tab.main_frame(), look, &[], SOON).await.unwrap();
    assert_eq!(covered, ["disc", "disc", "none"]);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_document_is_cut_before_it_reaches_us() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<pre id=p></pre><script>p.textContent = 'x'.repeat(8e6)</script>").await;
    let dom = tab.dom(Duration::from_secs(8)).await.unwrap();
    assert!(dom.truncated && dom.full_bytes > 8_000_000 && dom.html.len() < 5_100_000);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renderers_are_sandboxed_and_the_profile_is_not_ours() {
    let fixture = Fixture::new().await;
    let report = fixture.pool.check_sandbox().await.unwrap();
    assert!(report.is_sandboxed(), "{report:?}");
    assert_ne!(report.uid, 0);
    let pid = fixture.pool.stats().pids[0];
    let line = group_of(pid).into_iter().find(|(one, _)| *one == pid).unwrap().1;
    assert!(!line.contains("--no-sandbox"), "{line}");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).replace('\0', " ");
    assert!(!environment.contains("CARGO"), "{environment}");
    assert!(fixture.pool.stats().rss_bytes > 10_000_000);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chrome_listens_on_no_port() {
    let fixture = Fixture::new().await;
    fixture.pool.warm_up().await.unwrap();
    let pid = fixture.pool.stats().pids[0];
    let mut inodes = Vec::new();
    for (member, _) in group_of(pid) {
        for entry in std::fs::read_dir(format!("/proc/{member}/fd")).into_iter().flatten().flatten() {
            if let Ok(to) = std::fs::read_link(entry.path())
                && let Some(inode) = to.to_string_lossy().strip_prefix("socket:[")
            {
                inodes.push(inode.trim_end_matches(']').to_owned());
            }
        }
    }
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert!(!(fields[3] == "0A" && inodes.iter().any(|inode| inode == fields[9])), "{line}");
        }
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_share_nothing() {
    let fixture = Fixture::new().await;
    let url = fixture.nasty.page("jar", "<p>jar</p>");
    let (a, b) = (fixture.tab().await, fixture.tab().await);
    a.goto(&url, SOON).await.unwrap();
    let put = "() => { document.cookie = 'c=1'; localStorage.l = 1; return 1 }";
    a.call::<u8>(&a.main_frame(), put, &[], SOON).await.unwrap();
    b.goto(&url, SOON).await.unwrap();
    let look = "() => document.cookie + (localStorage.l || '')";
    assert_eq!(b.call::<String>(&b.main_frame(), look, &[], SOON).await.unwrap(), "");
    a.goto(&url, SOON).await.unwrap();
    assert_eq!(a.call::<String>(&a.main_frame(), look, &[], SOON).await.unwrap(), "c=11");
    let cookies: Vec<String> = fixture.nasty.seen("/page/jar").into_iter().map(|seen| seen.cookie).collect();
    assert_eq!(cookies, ["", "", "c=1"]);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_agent_is_the_one_asked_for() {
    let fixture = Fixture::new().await;
    let tab =
        fixture.pool.open(TabOptions { user_agent: Some("pagehand/9".to_owned()), ..fixture.options() }).await.unwrap();
    tab.goto(&fixture.nasty.page("ua", "<p>ua</p>"), SOON).await.unwrap();
    assert_eq!(fixture.nasty.seen("/page/ua")[0].user_agent, "pagehand/9");
    let seen: String = tab.call(&tab.main_frame(), "() => navigator.userAgent", &[], SOON).await.unwrap();
    assert_eq!(seen, "pagehand/9");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_outlives_the_tasks_deadline_but_the_picture_is_still_taken() {
    let fixture = Fixture::new().await;
    let deadline = Instant::now() + Duration::from_secs(3);
    let tab = fixture.pool.open(TabOptions { deadline, ..fixture.options() }).await.unwrap();
    tab.goto(&fixture.nasty.page("p", "<p>p</p>"), SOON).await.unwrap();
    let failed = tab.call::<()>(&tab.main_frame(), "() => new Promise(() => {})", &[], Duration::from_secs(60)).await;
    assert!(failed.is_err());
    assert!(deadline.elapsed() < Duration::from_secs(3), "{:?}", deadline.elapsed());
    let failed = tab.goto(&fixture.nasty.url("/page/p"), SOON).await;
    assert!(matches!(failed, Err(BrowserError::DeadlinePassed)), "{failed:?}");
    assert!(tab.screenshot(SOON).await.is_ok());
    assert!(tab.dom(SOON).await.unwrap().html.contains("<p>p</p>"));
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_browser_drains_and_its_spare_takes_over() {
    let fixture = Fixture::with(|settings| BrowserSettings { recycle_after_tasks: 2, ..settings }).await;
    let first = fixture.tab().await;
    let old = fixture.pool.stats().pids[0];
    drop(fixture.tab().await);
    let third = fixture.tab().await;
    assert!(first.goto(&fixture.nasty.page("p", "<p>p</p>"), SOON).await.is_ok(), "tabs of the old one go on");
    drop(first);
    within(10, async {
        while fixture.pool.stats().pids.contains(&old) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(group_of(old), []);
    assert!(third.goto(&fixture.nasty.url("/page/p"), SOON).await.is_ok());
    let stats = fixture.pool.stats();
    assert_eq!((stats.crashes, stats.open_tabs), (0, 1));
    fixture.pool.shutdown().await;
    fixture.pool.shutdown().await;
    assert_eq!(std::fs::read_dir(fixture.state_dir.path()).unwrap().count(), 0);
    let refused = fixture.pool.open(fixture.options()).await;
    assert!(matches!(refused, Err(BrowserError::ShuttingDown)), "{refused:?}");
}

/// A process that does nothing, with `argument` on its command line.
fn waiting_with(argument: &str) -> tokio::process::Child {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "read _", argument]).stdin(std::process::Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_owner_left_is_removed_with_its_browser() {
    let fixture = Fixture::new().await;
    let dead = fixture.state_dir.path().join("chrome/1-dead");
    std::fs::create_dir_all(dead.join("b1/profile")).unwrap();
    std::fs::write(dead.join("owner"), "").unwrap();
    let profile = format!("--user-data-dir={}/b1/profile", dead.canonicalize().unwrap().display());
    let mut left = waiting_with(&profile);
    let mut stranger = waiting_with("--user-data-dir=/home/somebody/b1/profile");
    fixture.pool.warm_up().await.unwrap();
    assert!(!dead.exists());
    assert!(!within(5, left.wait()).await.unwrap().success());
    assert!(stranger.try_wait().unwrap().is_none(), "somebody else's process was killed");
    // One that is in use stays.
    let other = BrowserPool::new(BrowserSettings {
        state_dir: fixture.state_dir.path().to_owned(),
        ..BrowserSettings::default()
    });
    other.warm_up().await.unwrap();
    assert!(fixture.tab().await.goto(&fixture.nasty.page("p", "<p>p</p>"), SOON).await.is_ok());
    other.shutdown().await;
    fixture.pool.shutdown().await;
    stranger.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_does_not_start_says_why_and_the_pool_rests_after_five() {
    let fixture = Fixture::with(|settings| BrowserSettings { executable: Some("/bin/false".into()), ..settings }).await;
    for _ in 0..7 {
        let failed = fixture.pool.open(fixture.options()).await;
        assert!(matches!(failed, Err(BrowserError::LaunchFailed { .. })), "{failed:?}");
    }
    assert_eq!(fixture.pool.stats().failed_launches_in_a_row, 5);
    let fixture = Fixture::with(|settings| BrowserSettings { executable: Some("/no/such".into()), ..settings }).await;
    let failed = fixture.pool.warm_up().await;
    assert!(matches!(failed, Err(BrowserError::NotInstalled { .. })), "{failed:?}");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_is_told_apart_from_a_script_and_goes_with_its_browser() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing("<p>x</p>").await;
    let old = fixture.pool.stats().pids[0];
    for (pid, line) in group_of(old) {
        if line.contains("--type=renderer") {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        }
    }
    let frame = tab.main_frame();
    let failed = within(8, tab.call::<u8>(&frame, "() => 1", &[], Duration::from_millis(500))).await;
    assert!(matches!(failed, Err(BrowserError::Unresponsive { .. })), "{failed:?}");
    let started = Instant::now();
    assert!(tab.screenshot(Duration::from_secs(2)).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(3));
    let other = fixture.showing("<p>y</p>").await;
    assert!(other.dom(SOON).await.is_ok());
    within(10, tab.close()).await;
    within(10, async {
        while !group_of(old).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_gets_no_permission_and_no_file_and_is_not_kept_waiting_for_them() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<input type=file id=f><button onclick=go()>b</button><script>
             async function go() {
               const seen = [await Notification.requestPermission()];
               seen.push(await new Promise((yes) => navigator.geolocation.getCurrentPosition(() => yes('here'), (e) => yes(e.code))));
               f.addEventListener('cancel', () => { document.title = seen.join() + ',' + f.files.length });
               f.click();
             }</script>",
        )
        .await;
    let button = find(&tab, "button").await;
    tab.click(&button, SOON).await.unwrap();
    let ended = "() => document.title || null";
    let title: Option<String> = tab.wait_for(&tab.main_frame(), ended, &[], SOON).await.unwrap();
    assert_eq!(title.as_deref(), Some("default,1,0"));
    assert_eq!(tab.counters().file_choosers, 1);
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_come_back_later_and_a_demand_for_a_password_are_passed_on() {
    let fixture = Fixture::new().await;
    let tab = fixture.tab().await;
    let landed = tab.goto(&fixture.nasty.url("/refused"), SOON).await.unwrap();
    assert_eq!((landed.status, landed.retry_after), (Some(429), Some(Duration::from_secs(7))));
    let trouble = tab.trouble();
    assert_eq!((trouble[0].kind, trouble[0].status), (TroubleKind::HttpStatus, Some(429)));
    match within(5, tab.goto(&fixture.nasty.url("/private"), SOON)).await {
        Ok(landed) => assert_eq!(landed.status, Some(401)),
        Err(BrowserError::NavigationFailed { error_text, .. }) => {
            assert_eq!(error_text, "net::ERR_INVALID_AUTH_CREDENTIALS");
        }
        other => panic!("{other:?}"),
    }
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_says_and_asks_for_is_known_with_what_failed() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<script>console.warn('careful', {a: 1}); console.log('\\ud800 half'); setTimeout(() => { throw new Error('lost') })
             </script><img src=/private><img src='data:image/gif;base64,R0lGOD'>",
        )
        .await;
    let look = "() => document.images[0].complete || null";
    let _: Option<bool> = tab.wait_for(&tab.main_frame(), look, &[], SOON).await.unwrap();
    let log = tab.log();
    let said: Vec<(&str, &str)> =
        log.console.lines.iter().map(|line| (line.level.as_str(), line.text.lines().next().unwrap())).collect();
    assert_eq!(said, [("warning", "careful Object"), ("log", "\u{fffd} half"), ("exception", "Error: lost")]);
    let requests: Vec<_> =
        log.network.requests.iter().map(|line| (line.resource.as_str(), line.status, line.failed())).collect();
    assert_eq!(requests, [("Document", Some(200), false), ("Image", Some(401), true)], "{:?}", log.network.requests);
    assert!(log.network.requests.iter().all(|request| request.duration_ms.is_some()));
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_never_stops_talking_and_asking_is_heard_within_bounds() {
    let fixture = Fixture::new().await;
    let tab = fixture
        .showing(
            "<script>for (let n = 0; n < 1500; n++) console.log('line ' + n + 'x'.repeat(5000));
             const asked = Array.from({ length: 600 }, (_, n) => fetch('/echo/' + n).catch(() => 0));
             Promise.all(asked).then(() => { document.title = 'all' });</script>",
        )
        .await;
    let _: Option<bool> = tab
        .wait_for(&tab.main_frame(), "() => document.title === 'all' || null", &[], Duration::from_secs(40))
        .await
        .unwrap();
    let log = tab.log();
    assert_eq!((log.console.lines.len(), log.network.requests.len()), (1_000, 500));
    assert!(log.console.lines.last().unwrap().text.starts_with("line 1499x"));
    assert!(log.console.lines.iter().all(|line| line.text.chars().count() <= 2_001));
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_goes_on_in_the_next_document_and_ends_at_its_limit() {
    let fixture = Fixture::new().await;
    fixture
        .nasty
        .page("second", "<script>setTimeout(() => { document.body.innerHTML = '<i>late</i>' }, 200)</script><body>");
    let tab = fixture.showing("<script>setTimeout(() => { location = '/page/second' }, 200)</script>").await;
    let look = "(ph) => { const [i] = ph.deepQueryAll('i'); return i ? i.textContent : null; }";
    let found: Option<String> = within(6, tab.wait_for(&tab.main_frame(), look, &[], SOON)).await.unwrap();
    assert_eq!(found.as_deref(), Some("late"));
    let started = Instant::now();
    let none: Option<u8> =
        tab.wait_for(&tab.main_frame(), "() => null", &[], Duration::from_millis(400)).await.unwrap();
    assert_eq!(none, None);
    assert!((350..1500).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    let thrown = tab.call::<u8>(&tab.main_frame(), "() => { throw new Error('boom') }", &[], SOON).await;
    assert!(matches!(&thrown, Err(BrowserError::Exception { message }) if message.contains("boom")), "{thrown:?}");
    let odd = tab.call::<u8>(&tab.main_frame(), "() => 'text'", &[], SOON).await;
    assert!(matches!(odd, Err(BrowserError::Decode { .. })), "{odd:?}");
    fixture.pool.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_somebody_else_runs_is_used_over_its_websocket() {
    let home = tempfile::tempdir().unwrap();
    let program = "/usr/lib/chromium/chromium-headless-shell";
    if !std::path::Path::new(program).exists() {
        return;
    }
    let mut command = tokio::process::Command::new(program);
    command
        .args(["--remote-debugging-port=0", "--no-first-run"])
        .arg(format!("--user-data-dir={}/p", home.path().display()));
    command.env("HOME", home.path()).stderr(std::process::Stdio::piped()).kill_on_drop(true).process_group(0);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(home.path(), Some(65534), Some(65534)).unwrap();
        command.uid(65534).gid(65534);
    }
    let mut remote = command.spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(remote.stderr.take().unwrap()));
    let endpoint = within(20, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            if let Some(endpoint) = line.strip_prefix("DevTools listening on ") {
                return url::Url::parse(endpoint).unwrap();
            }
        }
    })
    .await;
    let fixture = Fixture::with(|settings| BrowserSettings { endpoint: Some(endpoint), ..settings }).await;
    let tab = fixture.showing("<title>\u{e4}</title><form method=post action=/post><input name=a><button>b</button></form><script>document.title += '\\ud800'</script>").await;
    let field = find(&tab, "input").await;
    tab.fill(&field, "from afar 😀", SOON).await.unwrap();
    assert_eq!(tab.title_and_url().await.unwrap().0, "ä\u{fffd}");
    assert!(tab.screenshot(SOON).await.is_ok());
    let button = find(&tab, "button").await;
    let report = within(10, tab.submit(&button, &Gate::admitting("/post"), SOON)).await.unwrap();
    assert_eq!(report.landed.unwrap().status, Some(200));
    let frame = tab.main_frame();
    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        remote.start_kill().unwrap();
    };
    let waiting = tab.call::<()>(&frame, "() => new Promise(() => {})", &[], Duration::from_secs(30));
    let (failed, ()) = tokio::join!(within(10, waiting), end);
    assert!(matches!(failed, Err(BrowserError::BrowserGone { .. })), "{failed:?}");
    let refused = fixture.pool.open(fixture.options()).await;
    assert!(matches!(refused, Err(BrowserError::ConnectFailed { .. })), "{refused:?}");
    fixture.pool.shutdown().await;
    let _ = remote.wait().await;
}

#[test]
fn everything_can_be_used_from_any_thread() {
    fn sent<T: Send>(_: T) {}
    let pool = BrowserPool::new(BrowserSettings::default());
    let policy = EgressPolicy::default();
    sent(pool.open(TabOptions { user_agent: None, proxy: None, policy, deadline: Instant::now() }));
    sent(pool.shutdown());
    sent(pool.warm_up());
    fn all(tab: &Tab, element: &ElementRef, gate: &dyn SubmitGate) {
        sent(tab.goto("", SOON));
        sent(tab.call::<()>(&element.frame, "", &[], SOON));
        sent(tab.submit(element, gate, SOON));
        sent(tab.screenshot(SOON));
        sent(tab.dom(SOON));
        sent(tab.frames());
    }
    let _ = all;
}

#[tokio::test(flavor = "multi_thread")]
async fn chrome_is_not_disguised() {
    let fixture = Fixture::new().await;
    let page = "<!doctype html><title>x</title><script>
        const native = (object, name) => {
            const found = Object.getOwnPropertyDescriptor(object, name);
            return Boolean(found && found.get && Function.prototype.toString.call(found.get).includes('[native code]'));
        };
        document.title = JSON.stringify({
            own: Object.getOwnPropertyNames(navigator),
            native: ['webdriver', 'userAgent', 'plugins', 'languages', 'platform', 'hardwareConcurrency']
                .map(name => native(Navigator.prototype, name)),
            ours: Object.keys(window).filter(name => /pagehand|cdc_|playwright|puppeteer/i.test(name)),
            agent: navigator.userAgent,
        });
    </script>";
    let user_agent = Some("pagehand/9 (+https://example.org/who)".to_owned());
    let tab = fixture.pool.open(TabOptions { user_agent, ..fixture.options() }).await.unwrap();
    tab.goto(&fixture.nasty.page("who", page), SOON).await.unwrap();
    let (title, _) = tab.title_and_url().await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&title).unwrap();
    let expected = json!({"own": [], "native": [true, true, true, true, true, true], "ours": [],
                          "agent": "pagehand/9 (+https://example.org/who)"});
    assert_eq!(seen, expected);
    fixture.pool.shutdown().await;
}
