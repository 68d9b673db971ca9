//! Comments and registrations on real Chrome, against forms of every make. The site's own book is the judge.

// Helpers outside `#[test]` functions fail the test by panicking.
#![allow(clippy::unwrap_used)]

#[path = "support/attempts.rs"]
mod attempts;
#[path = "support/forms_site.rs"]
mod forms_site;
#[path = "support/policy.rs"]
mod policy;

use attempts::{Attempt, BODY, Browser, Ended};
use forms_site::Site;
use pagehand::automation::OpenIntent;
use pagehand::failure::FailureReason;
use serde_json::Value;

async fn comment(url: &str) -> Ended {
    attempt("comment", url, Attempt::default()).await
}

async fn register(url: &str) -> Ended {
    attempt("registration", url, Attempt::default()).await
}

async fn attempt(task_type: &str, url: &str, change: Attempt) -> Ended {
    let browser = Browser::start();
    let ended = browser.attempt(task_type, url, change).await;
    browser.close().await;
    ended
}

/// A form for comments with names that say nothing.
fn comment_form(behaviour: &str, page: &str, more: &str) -> String {
    format!(
        "<h1>Sourdough</h1><p>Bread is a staple food.</p><section>{{{{comments}}}}</section><h2>Leave a reply</h2>
         <form method=post action=/submit/{behaviour}/{page}>
         <p><label for=a>Name *</label> <input id=a name=n required></p><p><label for=b>E-mail *</label> <input id=b name=m required></p>
         <p><label for=c>Website</label> <input id=c name=w></p><p><label for=d>Comment *</label> <textarea id=d name=t required></textarea></p>
         {more}<button>Post comment</button></form>"
    )
}

/// The comment arrived once, as it was meant.
fn assert_posted_once(site: &Site) {
    let submitted = site.submitted();
    assert_eq!(submitted.len(), 1, "{submitted:?}");
    let fields = &submitted[0].fields;
    assert_eq!(fields["t"].replace("\r\n", "\n"), BODY);
    assert_eq!(fields["n"], "Ann Probe");
    assert_eq!(fields["m"], "ann@example.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_is_posted_once_and_found_on_the_page() {
    let site = Site::start().await;
    let url = site.page("post", &comment_form("show", "post", "<input type=hidden name=token value=x>"));
    let ended = comment(&url).await;
    assert_eq!(ended.outcome(), "posted");
    assert_posted_once(&site);
    assert_eq!(site.submitted()[0].fields["w"], "https://ann.example/");
    assert_eq!(site.submitted()[0].fields["token"], "x", "what the form itself carries is kept");
    assert_eq!(ended.result.unwrap().details["comment_url"], format!("{url}#comment-1"));
    assert_eq!(ended.calls, ["commit", "let_go", "outcome"]);
    assert_eq!(ended.steps, ["open_page", "find_form", "form_found", "fill_form", "submit_form", "verify_comment"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_comment_is_a_success_of_its_own_and_its_key_stays_out_of_the_record() {
    let site = Site::start().await;
    let url = site.page("post", &comment_form("hold", "post", ""));
    let ended = comment(&url).await;
    assert_eq!(ended.outcome(), "held_for_moderation");
    assert_posted_once(&site);
    let details = Value::Object(ended.result.unwrap().details).to_string();
    assert!(!details.contains("moderation-hash"), "{details}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traps_stay_empty_and_the_right_area_is_filled() {
    let site = Site::start().await;
    let traps = "<p style='position:absolute;left:-5000px'><label>E-mail <input name=trap1></label></p>
        <input name=trap2 placeholder='Your e-mail' style='opacity:0;position:absolute'><input name=trap3 tabindex=-1 aria-hidden=true>
        <label>Leave this field empty <input name=trap4></label><div style='height:0;overflow:hidden'><input name=website></div>
        <textarea name=comment id=comment style='clip:rect(1px,1px,1px,1px);position:absolute;height:1px;width:1px'></textarea>";
    let url = site.page("post", &comment_form("show", "post", traps));
    let ended = comment(&url).await;
    assert_eq!(ended.outcome(), "posted");
    assert_posted_once(&site);
    for trap in ["trap1", "trap2", "trap3", "trap4", "website", "comment"] {
        assert_eq!(site.submitted()[0].fields[trap], "", "{trap}");
    }
}

const FORMLESS: &str = "<h2>Kommentare</h2><div id=list></div><div class=box><input placeholder=Name id=n><input placeholder=E-Mail id=m>
    <div contenteditable=true id=t data-placeholder='Dein Kommentar' style='min-height:3em;border:1px solid'></div><button type=button id=go>Kommentar abschicken</button></div>
    <script>go.onclick=async()=>{const c={n:n.value,m:m.value,t:t.innerText};const r=await fetch('/submit/json/post',{method:'POST',headers:{'content-type':'application/json'},body:JSON.stringify(c)});
    if(r.ok){const d=document.createElement('div');d.id='c-'+42;d.innerText=c.n+': '+c.t;list.append(d);t.innerText=''}}</script>";

#[tokio::test(flavor = "multi_thread")]
async fn fields_without_a_form_that_are_sent_by_fetch_are_a_comment_too() {
    let site = Site::start().await;
    let ended = comment(&site.page("post", FORMLESS)).await;
    assert_eq!(ended.outcome(), "posted");
    assert_posted_once(&site);
    assert_eq!(ended.calls, ["commit", "let_go", "outcome"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_inside_a_frame_of_the_same_or_another_site_is_reached() {
    for other in [false, true] {
        let site = Site::start().await;
        let inner = site.page("inner", &comment_form("show", "inner", ""));
        let inner = if other { site.elsewhere(&inner) } else { inner };
        let url = site.page(
            "post",
            &format!("<h1>Bread</h1><iframe src='{inner}' width=800 height=700 title=comments></iframe>"),
        );
        let ended = comment(&url).await;
        assert_eq!(ended.outcome(), "posted", "another site: {other}");
        assert_posted_once(&site);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_inside_an_open_shadow_root_is_reached() {
    let site = Site::start().await;
    let form = comment_form("show", "post", "").replace('`', "").replace("{{comments}}", "");
    let url = site.page("post", &format!("{{{{comments}}}}<my-form></my-form><script>document.querySelector('my-form').attachShadow({{mode:'open'}}).innerHTML=`{form}`</script>"));
    let ended = comment(&url).await;
    assert_eq!(ended.outcome(), "posted");
    assert_posted_once(&site);
}

const WALL: &str = "<div id=wall style='position:fixed;inset:0;background:#000c;z-index:99'><div role=dialog style='background:#fff;margin:20vh auto;width:400px'>
    <h2>We value your privacy</h2><p>We and our partners use cookies.</p>
    <button onclick=\"away('accept')\">Accept all</button> <button onclick=\"away('settings')\">Settings</button> <button onclick=\"away('decline')\">Reject all</button></div></div>
    <script>function away(how){fetch('/clicked/'+how,{method:'POST'});wall.remove()}</script>";

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_wall_is_declined() {
    let site = Site::start().await;
    let ended = comment(&site.page("post", &format!("{}{WALL}", comment_form("show", "post", "")))).await;
    assert_eq!(ended.outcome(), "posted");
    assert_posted_once(&site);
    let clicked: Vec<_> =
        site.posted().into_iter().map(|posted| posted.path).filter(|path| path.starts_with("/clicked/")).collect();
    assert_eq!(clicked, ["/clicked/decline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_that_stays_is_named_and_nothing_is_sent() {
    let site = Site::start().await;
    let wall = "<div id=stays style='position:fixed;inset:0;background:#000c;z-index:99'><p style='color:#fff'>Our shop opens soon</p></div>";
    let ended = comment(&site.page("post", &format!("{}{wall}", comment_form("show", "post", "")))).await;
    assert_eq!(ended.failure().0, FailureReason::PopupBlocking);
    assert!(ended.message().contains("#stays"), "{}", ended.message());
    assert!(site.submitted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_popup_that_comes_up_while_the_form_is_filled_is_closed_before_sending() {
    let site = Site::start().await;
    let popup = "<div id=nl style='display:none;position:fixed;inset:0;background:#000a;z-index:99'><div role=dialog style='background:#fff;margin:20vh auto;width:400px'>
        <button type=button aria-label=Close onclick='nl.remove()'>&times;</button><h2>Never miss a loaf</h2><form action=/submit/subscribed method=post><input type=email name=e><button>Subscribe</button></form></div></div>
        <script>document.querySelector('textarea').addEventListener('input',()=>{nl.style.display='block'})</script>";
    let ended = comment(&site.page("post", &format!("{}{popup}", comment_form("show", "post", "")))).await;
    assert_eq!(ended.outcome(), "posted");
    assert_posted_once(&site);
    assert!(ended.steps.contains(&"dismiss_overlay".to_owned()), "{:?}", ended.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_without_a_button_is_not_sent() {
    let site = Site::start().await;
    let form = comment_form("show", "post", "").replace("<button>Post comment</button>", "");
    let ended = comment(&site.page("post", &form)).await;
    assert_eq!(ended.failure(), (FailureReason::ElementNotFound, "form.no_submit".to_owned()));
    assert!(site.submitted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_notes_when_it_was_opened_is_not_sent_at_once() {
    let site = Site::start().await;
    let now = chrono::Utc::now().timestamp();
    let ended = comment(
        &site.page("post", &comment_form("show", "post", &format!("<input type=hidden name=opened value={now}>"))),
    )
    .await;
    assert_eq!(ended.outcome(), "posted");
    assert!(ended.steps.contains(&"pause_before_submit".to_owned()), "{:?}", ended.steps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captcha_ends_the_attempt_before_anything_is_filled() {
    let site = Site::start().await;
    for (name, widget) in [
        ("re", "<div class=g-recaptcha data-sitekey=x></div>"),
        ("h", "<div class=h-captcha></div>"),
        ("ts", "<div class=cf-turnstile></div>"),
        ("sum", "<label>What is 3 + 4? <input name=q required></label>"),
    ] {
        let ended = comment(&site.page(name, &comment_form("show", name, widget))).await;
        assert_eq!(ended.failure().0, FailureReason::CaptchaPresent, "{name}");
        assert!(!ended.steps.contains(&"fill_form".to_owned()));
    }
    assert!(site.submitted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_site_s_refusal_is_reported_in_its_own_words_and_not_repeated() {
    let site = Site::start().await;
    let ended = comment(&site.page("a", &comment_form("duplicate", "a", ""))).await;
    assert_eq!(ended.failure(), (FailureReason::Unknown, "form.duplicate".to_owned()));
    assert!(ended.message().contains("already said that"), "{}", ended.message());
    let ended = comment(&site.page("b", &comment_form("flood", "b", ""))).await;
    assert_eq!(ended.failure(), (FailureReason::Blocked, "form.flood".to_owned()));
    assert_eq!(site.submitted().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_comments_and_pages_without_a_form_are_told_apart() {
    let site = Site::start().await;
    let ended = comment(&site.page("a", "<h1>Bread</h1><p>Comments are closed.</p>")).await;
    assert_eq!(ended.failure(), (FailureReason::CommentFormNotFound, "comments.closed".to_owned()));
    let ended = comment(
        &site.page("b", "<h1>Bread</h1><form role=search><input type=search name=q><button>Search</button></form>"),
    )
    .await;
    assert_eq!(ended.failure(), (FailureReason::CommentFormNotFound, "comments.no_form".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_field_that_nothing_is_known_for_is_named() {
    let site = Site::start().await;
    let more = "<label>Membership number <input name=x required></label>";
    let ended = comment(&site.page("post", &comment_form("show", "post", more))).await;
    assert_eq!(ended.failure().0, FailureReason::ElementNotFound);
    assert!(ended.message().contains("Membership number"), "{}", ended.message());
    assert!(site.submitted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_lease_nothing_leaves() {
    let site = Site::start().await;
    let url = site.page("post", &comment_form("show", "post", ""));
    let ended = attempt("comment", &url, Attempt { lease_lost: true, ..Attempt::default() }).await;
    assert_eq!(ended.failure().1, "infra.lease_lost");
    assert_eq!(ended.calls, ["commit"]);
    assert!(site.submitted().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_behind_the_gate_the_page_is_only_looked_at() {
    let site = Site::start().await;
    let url = site.page("post", &comment_form("show", "post", ""));
    let open =
        |let_go| Attempt { open_intent: Some(OpenIntent { let_go, ..OpenIntent::default() }), ..Attempt::default() };
    let ended = attempt("comment", &url, open(true)).await;
    assert_eq!(ended.failure(), (FailureReason::Unknown, "outcome.uncertain".to_owned()));
    assert!(!ended.result.unwrap_err().retryable);
    assert!(site.submitted().is_empty());

    site.add_comment("/post", "Ann Probe", BODY);
    let ended = attempt("comment", &url, open(true)).await;
    assert_eq!(ended.result.as_ref().unwrap().details["recovered"], true);
    assert_eq!(ended.outcome(), "posted");
    assert!(site.submitted().is_empty());

    let other = site.page("other", &comment_form("show", "other", ""));
    let ended = attempt("comment", &other, open(false)).await;
    assert_eq!(ended.outcome(), "posted", "what never left is sent now");
    assert_posted_once(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_nothing_is_uncertain_and_not_retryable() {
    let site = Site::start().await;
    let ended = comment(&site.page("post", &comment_form("silent", "post", ""))).await;
    assert_eq!(ended.failure(), (FailureReason::Unknown, "outcome.uncertain".to_owned()));
    assert!(!ended.result.unwrap_err().retryable);
    assert_posted_once(&site);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_comes_late_or_behind_a_button_is_waited_for() {
    let site = Site::start().await;
    let form = comment_form("show", "late", "").replace('`', "");
    let late = format!(
        "{{{{comments}}}}<div id=box></div><script>setTimeout(()=>{{box.innerHTML=`{}`}},1200)</script>",
        form.replace("{{comments}}", "")
    );
    assert_eq!(comment(&site.page("late", &late)).await.outcome(), "posted");
    let form = comment_form("show", "button", "").replace("{{comments}}", "");
    let behind = format!(
        "{{{{comments}}}}<div id=box></div><button type=button onclick='setTimeout(()=>{{box.innerHTML=document.querySelector(\"template\").innerHTML}},500)'>Leave a comment</button><template>{form}</template>"
    );
    assert_eq!(comment(&site.page("button", &behind)).await.outcome(), "posted");
    assert_eq!(site.submitted().len(), 2);
}

/// A form for accounts with names that say nothing.
fn account_form(behaviour: &str) -> String {
    format!(
        "<h1>Create an account</h1><form method=post action=/submit/{behaviour}>
         <label>First name <input name=a></label><label>Last name <input name=b></label><label>Username <input name=c required></label>
         <label>E-mail <input type=email name=d required></label><label>Repeat e-mail <input name=e></label>
         <label>Password <input type=password name=f required></label><label>Repeat password <input type=password name=g required></label>
         <label><input type=checkbox name=terms required> I agree to the terms of service</label>
         <label><input type=checkbox name=news> Send me the newsletter</label><input name=h style='display:none'>
         <button>Sign up</button></form>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_created_once_with_terms_ticked_and_the_newsletter_left_alone() {
    let site = Site::start().await;
    site.page("welcome", "<h1>Welcome to the bakery, ann77</h1><a href=/out>Log out</a>");
    let ended = register(&site.page("join", &account_form("welcome"))).await;
    assert_eq!(ended.outcome(), "registered");
    let [posted] = &site.submitted()[..] else { panic!("{:?}", site.submitted()) };
    let expected = [
        ("a", "Ann"),
        ("b", "Probe"),
        ("c", "ann77"),
        ("d", "ann@example.org"),
        ("e", "ann@example.org"),
        ("f", "S3cret pass+word!"),
        ("g", "S3cret pass+word!"),
        ("terms", "on"),
        ("h", ""),
    ];
    for (name, value) in expected {
        assert_eq!(posted.fields[name], value, "{name}");
    }
    assert!(!posted.fields.contains_key("news"));
    assert_eq!(ended.calls, ["commit", "let_go", "outcome"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_site_says_of_a_sign_up_is_told_apart() {
    let site = Site::start().await;
    let ended = register(&site.page("mail", &account_form("check-mail"))).await;
    assert_eq!(ended.outcome(), "needs_email_confirmation");
    let ended = register(&site.page("code", &account_form("code"))).await;
    assert_eq!(ended.failure(), (FailureReason::EmailVerificationFailed, "mail.no_mailbox".to_owned()));
    let ended = register(&site.page("taken", &account_form("taken"))).await;
    assert_eq!(ended.failure().0, FailureReason::RegistrationFailed);
    assert!(ended.message().contains("already exists"), "{}", ended.message());
    assert_eq!(site.submitted().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_that_the_page_itself_stops_is_a_refusal_and_nothing_left() {
    let site = Site::start().await;
    let script = "<div id=err role=alert class=error></div><script>document.querySelector('form').onsubmit=e=>{e.preventDefault();err.textContent='This password is too common.'}</script>";
    let ended = register(&site.page("weak", &format!("{}{script}", account_form("welcome")))).await;
    assert_eq!(ended.failure().0, FailureReason::RegistrationFailed);
    assert!(ended.message().contains("too common"), "{}", ended.message());
    assert!(site.submitted().is_empty());
    assert!(ended.calls.iter().all(|call| *call == "outcome"), "{:?}", ended.calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_that_was_let_go_by_a_lost_attempt_is_not_sent_again() {
    let site = Site::start().await;
    let url = site.page("join", &account_form("welcome"));
    let open =
        Attempt { open_intent: Some(OpenIntent { let_go: true, ..OpenIntent::default() }), ..Attempt::default() };
    let ended = attempt("registration", &url, open).await;
    assert_eq!(ended.failure(), (FailureReason::Unknown, "outcome.uncertain".to_owned()));
    assert!(site.submitted().is_empty());
}
