//! Filling and clicking as a person would, in every frame.

// A helper that fails fails the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/chrome.rs"]
mod chrome;

use std::time::Duration;

use chrome::*;
use pagehand::browser::*;
use serde_json::json;
use tokio::time::Instant;

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
