//! `pagehand inspect` on real Chrome. The site's own book says whether anything was sent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

#[path = "support/forms_site.rs"]
mod forms_site;
#[path = "support/policy.rs"]
mod policy;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use forms_site::Site;
use pagehand::browser::{BrowserPool, BrowserSettings, FrameId, Tab, TabOptions};
use pagehand::site::profile::SiteProfile;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

const COMMENT: &str = "<h1>Bread</h1><p>It rises.</p><h2>Leave a comment</h2><form method=post action=/submit/show/x>\
    <p><label>Comment <textarea name=t></textarea></label><p><label>Name <input name=n></label>\
    <p><label>E-mail <input type=email name=e></label><p style='position:absolute;left:-9999px'><label>Leave this field empty <input name=w></label>\
    <p><button type=button>Preview</button> <button>Post comment</button></form>";
const SIGNUP: &str = "<h1>Create your account</h1><form method=post action=/submit/welcome><p><label>User name <input name=u></label>\
    <p><label>E-mail <input type=email name=e></label><p><label>Password <input type=password name=p></label>\
    <p><label>Repeat password <input type=password name=q></label><p><button>Sign up</button></form>";
const COOKIES: &str = "<div id=cookies role=dialog aria-modal=true style='position:fixed;inset:0;background:#fff;z-index:99'>\
    <p>We use cookies. Do you accept?</p><button id=yes>Accept all</button> <button id=no>Reject all</button></div>";

struct Bench {
    dir: TempDir,
    site: Site,
}

impl Bench {
    async fn new() -> Bench {
        let dir = TempDir::new().unwrap();
        // Chrome's own user has to get to its profile below.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Bench { dir, site: Site::start().await }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the program without a database: what it finds at the address would fail at once.
    async fn inspect(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagehand"));
        command.arg("inspect").args(args).current_dir(self.path()).env_clear().kill_on_drop(true);
        for name in ["PATH", "HOME", "TMPDIR"] {
            command.envs(std::env::var(name).map(|value| (name, value)));
        }
        command.env("DATABASE_URL", "postgres://127.0.0.1:1/none").env("PAGEHAND_DATA__DIR", "data");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::time::timeout(Duration::from_secs(90), command.output()).await.expect("it ends").unwrap()
    }

    async fn lines(&self, args: &[&str]) -> Vec<Value> {
        let all: Vec<&str> = args.iter().chain(&["--json"]).copied().collect();
        let output = self.inspect(&all).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines(&output)
    }
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn roles(form: &Value) -> Vec<&str> {
    form["fields"].as_array().unwrap().iter().map(|field| field["role"].as_str().unwrap()).collect()
}

/// A tab of the test's own, to resolve selectors in.
async fn tab(dir: &Path, url: &str) -> (BrowserPool, Tab) {
    let pool = BrowserPool::new(BrowserSettings { state_dir: dir.join("chrome"), ..BrowserSettings::default() });
    let deadline = Instant::now() + Duration::from_secs(60);
    let tab =
        pool.open(TabOptions { user_agent: None, proxy: None, policy: policy::of(&[url]), deadline }).await.unwrap();
    tab.goto(url, Duration::from_secs(20)).await.unwrap();
    (pool, tab)
}

/// Name attribute, or text, of everything that a selector finds.
async fn found(tab: &Tab, frame: &FrameId, selector: &Value) -> Vec<String> {
    const ALL: &str = "(ph, css) => [...document.querySelectorAll(css)].map(el => el.getAttribute('name') || el.localName + ':' + el.textContent.trim())";
    tab.call(frame, ALL, std::slice::from_ref(selector), Duration::from_secs(5)).await.unwrap()
}

#[tokio::test]
async fn a_comment_form_is_told_with_the_roles_of_its_fields_and_nothing_is_sent() {
    let bench = Bench::new().await;
    let url = bench.site.page("comment", COMMENT);
    let printed = bench.lines(&[&url]).await;
    let [line] = printed.as_slice() else { panic!("{printed:?}") };
    assert_eq!(keys(line), BTreeSet::from(["url", "forms", "captcha", "overlays", "blocked", "kind"]));
    assert_eq!((&line["url"], &line["kind"]), (&json!(url), &json!("comment")));
    assert_eq!((&line["captcha"], &line["overlays"], &line["blocked"]), (&Value::Null, &json!([]), &Value::Null));
    let form = &line["forms"][0];
    assert_eq!(keys(form), BTreeSet::from(["kind", "confidence", "frame", "selector", "fields", "submit"]));
    assert_eq!((&form["kind"], &form["frame"]), (&json!("comment"), &json!([])));
    assert!(form["confidence"].as_f64().unwrap() > 0.9, "{form}");
    assert_eq!(roles(form), ["body", "author", "email", "honeypot"]);
    let (pool, tab) = tab(bench.path(), &url).await;
    let main = tab.main_frame();
    for (field, name) in form["fields"].as_array().unwrap().iter().zip(["t", "n", "e", "w"]) {
        assert_eq!(found(&tab, &main, &field["selector"]).await, [name], "{field}");
    }
    assert_eq!(found(&tab, &main, &form["submit"]).await, ["button:Post comment"]);
    pool.shutdown().await;
    assert!(bench.site.posted().is_empty(), "{:?}", bench.site.posted());
}

#[tokio::test]
async fn a_code_that_a_mail_brings_is_none_of_the_fields_and_one_of_an_app_is() {
    let bench = Bench::new().await;
    let code = "<p><label>Verification code <input name=c maxlength=6></label>";
    let signup = bench.site.page("signup", &SIGNUP.replace("<p><button>", &format!("{code}<p><button>")));
    let login = "<h1>Log in</h1><form><label>User name <input name=u></label><label>Password <input type=password name=p></label>\
        <label>Authenticator code <input name=c></label><button>Log in</button></form>";
    let login = bench.site.page("login", login);
    let printed = bench.lines(&[&signup, &login]).await;
    let [signup, login] = [&printed[0]["forms"][0], &printed[1]["forms"][0]];
    assert_eq!(roles(signup), ["username", "email", "password", "password_confirm"]);
    assert_eq!(signup["codes"].as_array().map(Vec::len), Some(1), "{signup}");
    assert_eq!(roles(login), ["username", "password", "one_time_code"]);
    assert!(login.get("codes").is_none(), "{login}");
}

#[tokio::test]
async fn a_sign_up_in_frames_is_found_by_the_selectors_of_the_frames_around_it() {
    let bench = Bench::new().await;
    let inner = bench.site.elsewhere(&bench.site.page("inner", SIGNUP));
    let middle =
        bench.site.page("middle", &format!("<p>Members</p><iframe width=700 height=600 src='{inner}'></iframe>"));
    let ad = "<div><iframe srcdoc='<p>An advertisement'></iframe></div>";
    let url =
        bench.site.page("outer", &format!("{ad}<div><iframe width=800 height=700 src='{middle}'></iframe></div>"));
    let line = bench.lines(&[&url]).await.remove(0);
    assert_eq!(line["kind"], "signup");
    let form = &line["forms"][0];
    assert_eq!(roles(form), ["username", "email", "password", "password_confirm"]);
    let path = form["frame"].as_array().unwrap();
    assert_eq!(path.len(), 2, "{form}");
    let (pool, tab) = tab(bench.path(), &url).await;
    let frames = tab.frames().await.unwrap();
    let mut at = tab.main_frame();
    for css in path {
        assert_eq!(found(&tab, &at, css).await.len(), 1, "{css}");
        let next =
            frames.iter().find(|frame| frame.parent.as_ref() == Some(&at) && frame.element.as_deref() == css.as_str());
        at = next.unwrap().id.clone();
    }
    for (field, name) in form["fields"].as_array().unwrap().iter().zip(["u", "e", "p", "q"]) {
        assert_eq!(found(&tab, &at, &field["selector"]).await, [name]);
    }
    pool.shutdown().await;
    assert!(bench.site.posted().is_empty());
}

#[tokio::test]
async fn what_is_in_the_way_is_named_and_left_where_it_is() {
    let bench = Bench::new().await;
    let guarded = COMMENT.replace(
        "<p><button type=button>",
        "<div class=g-recaptcha data-sitekey=x style='width:300px;height:78px'></div><p><button type=button>",
    );
    let captcha = bench.site.page("captcha", &guarded);
    let counting = "<script>for (const b of document.querySelectorAll('#cookies button')) b.onclick = () => fetch('/submit/clicked', {method: 'POST'})</script>";
    let cookies = bench.site.page("cookies", &format!("{COMMENT}{COOKIES}{counting}"));
    let none = bench.site.page("none", "<h1>Bread</h1><p>It rises.</p>");
    let missing = none.replace("/none", "/missing");
    let printed = bench.lines(&[&captcha, &cookies, &none, &missing]).await;
    let urls: Vec<&str> = printed.iter().map(|line| line["url"].as_str().unwrap()).collect();
    assert_eq!(urls, [&captcha, &cookies, &none, &missing], "in the order of the arguments");
    assert_eq!((&printed[0]["captcha"], &printed[0]["kind"]), (&json!("recaptcha"), &json!("comment")));
    let overlays = printed[1]["overlays"].as_array().unwrap();
    assert_eq!(overlays.len(), 1, "{overlays:?}");
    assert_eq!((&overlays[0]["kind"], &overlays[0]["selector"]), (&json!("consent"), &json!("#cookies")));
    assert_eq!(overlays[0]["dismiss"], "#no");
    assert_eq!(printed[1]["kind"], "comment");
    assert_eq!((&printed[2]["kind"], &printed[2]["forms"]), (&json!("none"), &json!([])));
    assert!(printed[2]["blocked"].is_null());
    assert!(printed[3]["blocked"].as_str().unwrap().contains("404"), "{}", printed[3]);
    assert!(bench.site.posted().is_empty(), "{:?}", bench.site.posted());
}

#[tokio::test]
async fn a_form_that_a_script_draws_later_is_waited_for() {
    let bench = Bench::new().await;
    let html = serde_json::to_string(SIGNUP).unwrap();
    let late = format!(
        "<main></main><script>setTimeout(() => {{ document.querySelector('main').innerHTML = {html} }}, 700)</script>"
    );
    let url = bench.site.page("late", &late);
    assert_eq!(bench.lines(&[&url]).await[0]["kind"], "signup");
}

#[tokio::test]
async fn a_saved_page_is_judged_as_it_lies_there_without_scripts_and_without_network() {
    let bench = Bench::new().await;
    let beacon = bench.site.page("beacon", "");
    let saved = format!(
        "<!doctype html><title>x</title><body><script>document.body.innerHTML = ''</script><img src='{beacon}'>\
         <iframe src='{beacon}'></iframe><noscript>{COMMENT}</noscript><p>Żółć"
    );
    fs::write(bench.path().join("signup.html"), saved).unwrap();
    let line = bench.lines(&["signup.html"]).await.remove(0);
    assert_eq!((&line["url"], &line["kind"]), (&json!("signup.html"), &json!("comment")));
    assert_eq!(roles(&line["forms"][0]), ["body", "author", "email", "honeypot"]);
    assert_eq!(bench.site.asked_for("/beacon"), 0);
}

#[tokio::test]
async fn a_saved_page_may_be_named_by_its_file_address() {
    let bench = Bench::new().await;
    fs::write(bench.path().join("a page.html"), COMMENT).unwrap();
    let address = format!("file://{}/a%20page.html", bench.path().display());
    let printed = bench.lines(&[&address]).await;
    assert_eq!((&printed[0]["url"], &printed[0]["kind"]), (&json!(address), &json!("comment")));
}

#[tokio::test]
async fn a_page_that_fails_says_why_and_the_others_are_inspected_all_the_same() {
    let bench = Bench::new().await;
    let url = bench.site.page("comment", COMMENT);
    let output = bench.inspect(&["nowhere.html", "http://127.0.0.1:1/", &url, "--json"]).await;
    assert_eq!(output.status.code(), Some(1));
    let printed = lines(&output);
    assert_eq!(keys(&printed[0]), BTreeSet::from(["url", "error", "failure_reason", "failure_code"]));
    assert_eq!((&printed[0]["url"], &printed[0]["failure_code"]), (&json!("nowhere.html"), &json!("input.file")));
    assert!(printed[1]["failure_code"].as_str().unwrap().starts_with("net."), "{}", printed[1]);
    assert_eq!(printed[2]["kind"], "comment");
    assert_eq!(bench.inspect(&[]).await.status.code(), Some(2), "a page has to be named");
}

#[tokio::test]
async fn the_picture_shows_the_whole_page_and_the_table_gives_reasons() {
    let bench = Bench::new().await;
    let url = bench.site.page("long", &format!("<div style='height:2000px'>Bread</div>{COMMENT}"));
    let output = bench.inspect(&[&url, "--screenshot", "page.png"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["comment", "because textarea", "honeypot", "Post comment"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (width, height) = png_size(&fs::read(bench.path().join("page.png")).unwrap());
    assert_eq!(width, 1280);
    assert!((2000..4000).contains(&height), "{height}");

    let short = bench.site.page("short", COMMENT);
    let output = bench.inspect(&[&url, &short, "--screenshot", "two.png", "--json"]).await;
    assert!(output.status.success());
    assert!(bench.path().join("two-1.png").exists() && bench.path().join("two-2.png").exists());
    assert!(bench.site.posted().is_empty());
}

#[tokio::test]
async fn a_profile_to_start_from_is_printed_and_is_one() {
    let bench = Bench::new().await;
    let unknown = "<p><label>Invitation <input name=i required></label><p><button>Sign up</button>";
    let url = bench.site.page("join", &SIGNUP.replace("<p><button>Sign up</button>", unknown));
    let output = bench.inspect(&[&url, "--profile"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let profile = SiteProfile::parse(&printed).unwrap_or_else(|error| panic!("{error:?} in {printed}"));
    let (pool, tab) = tab(bench.path(), &url).await;
    let pinned = &profile.registration;
    for (role, name) in [("username", "u"), ("email", "e"), ("password", "p"), ("password_confirm", "q")] {
        assert_eq!(found(&tab, &tab.main_frame(), &json!(pinned.fields[role])).await, [name], "{printed}");
    }
    assert_eq!(found(&tab, &tab.main_frame(), &json!(pinned.extra[0].selector)).await, ["i"], "{printed}");
    assert_eq!(found(&tab, &tab.main_frame(), &json!(pinned.submit)).await, ["button:Sign up"]);
    tab.close().await;
    pool.shutdown().await;
    assert!(bench.site.posted().is_empty());
}

/// Width and height of a PNG, from its first chunk.
fn png_size(png: &[u8]) -> (u32, u32) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}
