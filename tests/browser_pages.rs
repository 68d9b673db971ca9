//! Pages that misbehave while they are loaded, looked at and captured.

// A helper that fails fails the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/chrome.rs"]
mod chrome;

use std::time::Duration;

use chrome::*;
use pagehand::browser::*;
use tokio::time::Instant;

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
async fn a_captured_page_looks_as_it_did_without_asking_for_anything_again() {
    let fixture = Fixture::new().await;
    let nasty = &fixture.nasty;
    let picture = |more: &str| format!("<svg xmlns='http://www.w3.org/2000/svg' width='3' height='2'>{more}</svg>");
    nasty.file("dot.svg", "image/svg+xml", picture(""));
    nasty.file("huge.svg", "image/svg+xml", picture(&"<g/>".repeat(100_000)));
    nasty.file("style.css", "text/css", "p { color: rgb(1, 2, 3); background-image: url(dot.svg) } /* </style> */");
    let html = format!(
        "<!doctype html><link rel=stylesheet href={}><p id=p>p</p><b id=b style='background-image: url(/file/dot.svg)'>b</b>
         <img id=i src=/file/none srcset='/file/dot.svg 1x'><img src=/file/huge.svg><style id=s></style>
         <script>s.sheet.insertRule('b {{ color: rgb(4, 5, 6) }}')</script>",
        nasty.other_site("/file/style.css")
    );
    let url = nasty.page("styled", html);
    let tab = fixture.tab().await;
    tab.goto(&url, SOON).await.unwrap();
    let first = tab.dom(SOON).await.unwrap().html;
    assert_eq!(tab.dom(SOON).await.unwrap().html, first, "a second capture is made from what the first has kept");
    assert!(first.contains(&format!("src=\"{}\"", nasty.url("/file/huge.svg"))), "too large to be kept: {first}");

    let asked = |name: &str| nasty.seen(&format!("/file/{name}")).len();
    let before = (asked("dot.svg"), asked("style.css"));
    assert_eq!(before, (2, 1), "once under either name, and not again for the captures");
    let again = fixture.showing(&first).await;
    let look = "() => { const style = (id) => getComputedStyle(document.getElementById(id));
        return [style('p').color, style('b').color, String(document.getElementById('i').naturalWidth),
                style('p').backgroundImage.slice(0, 15), style('b').backgroundImage.slice(0, 15)]; }";
    let seen: Vec<String> = again.call(&again.main_frame(), look, &[], SOON).await.unwrap();
    assert_eq!(seen, ["rgb(1, 2, 3)", "rgb(4, 5, 6)", "3", "url(\"data:image", "url(\"data:image"]);
    assert_eq!((asked("dot.svg"), asked("style.css")), before);
    fixture.pool.shutdown().await;
}
