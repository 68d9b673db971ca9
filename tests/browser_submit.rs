//! The submitting request is held until it is admitted, and only that one.

// A helper that fails fails the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/chrome.rs"]
mod chrome;

use std::time::Duration;

use chrome::*;
use pagehand::browser::*;
use tokio::time::Instant;

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
async fn a_submission_that_was_refused_is_not_waited_for() {
    let fixture = Fixture::new().await;
    let tab = fixture.showing(FORM).await;
    let button = find(&tab, "button").await;
    // As long as the tab may live, and longer than this test has patience.
    let limit = Duration::from_secs(60);
    let report = within(30, tab.submit(&button, &Gate::refusing("/post"), limit)).await.unwrap();
    assert_eq!(report.refusal.as_deref(), Some("the lease is lost"));
    tab.close().await;
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
