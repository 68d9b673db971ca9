//! The demo site keeps the rules of real sites, and its ledger tells the truth.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test")]

use http::StatusCode;
use http_body_util::BodyExt;
use pagehand::demo::{AccountState, CANONICAL_ARTICLE, CommentState, DemoSite, Ledger, scenarios};
use serde_json::json;

#[path = "demo_site/client.rs"]
mod client;

use client::{Answer, Client, between};

fn start() -> (DemoSite, Client, Ledger) {
    let site = DemoSite::start().unwrap();
    let client = Client::of(&site.origin());
    let ledger = site.ledger();
    (site, client, ledger)
}

/// Opens the article and posts a comment with the token found there.
async fn comment(client: &mut Client, slug: &str, email: &str, text: &str) -> Answer {
    let nonce = client.get(&format!("/articles/{slug}")).await.value_of("nonce");
    let fields = [("comment", text), ("author", "Ada"), ("email", email), ("url", ""), ("nonce", &nonce)];
    client.post(&format!("/articles/{slug}/comments"), &fields).await
}

#[tokio::test]
async fn the_canonical_article_has_one_stylesheet_one_script_and_three_images_and_all_load() {
    let (_site, mut client, _) = start();
    let page = client.get(CANONICAL_ARTICLE).await;
    let body = &page.text;
    let count = |needle: &str| body.matches(needle).count();
    assert_eq!((count("rel=\"stylesheet\""), count("<script"), count("<img ")), (1, 1, 3));
    let images: Vec<_> = body.split("<img src=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    for path in images.into_iter().chain(["/assets/paper.css", "/assets/paper.js"]) {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.text.len() > 300, "{path}");
    }
}

#[tokio::test]
async fn a_comment_is_published_and_its_author_is_sent_to_it() {
    let (_site, mut client, ledger) = start();
    let text = "Naïve 東京 🌊\nsecond line <script>alert(1)</script>";
    let answer = comment(&mut client, "harbour-lights", "ada@example.org", text).await;

    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let taken = ledger.comments_on(CANONICAL_ARTICLE);
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].author.as_str(), taken[0].body.as_str()), ("Ada", text));
    assert_eq!(taken[0].state, CommentState::Published);
    let names: Vec<_> = taken[0].fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["comment", "author", "email", "url", "nonce"]);
    assert_eq!(answer.header("location"), format!("{CANONICAL_ARTICLE}?cpage=1#comment-{}", taken[0].id));
    let page = client.get(CANONICAL_ARTICLE).await.text;
    assert!(page.contains(&format!("id=\"comment-{}\"", taken[0].id)));
    assert!(page.contains("Naïve 東京 🌊<br>second line &lt;script&gt;"), "the text is shown, and as text");
    assert!(!page.contains("awaiting moderation"));
}

#[tokio::test]
async fn a_held_comment_is_seen_by_its_author_and_by_nobody_else() {
    let (site, mut client, ledger) = start();
    let answer = comment(&mut client, "night-market", "ada@example.org", "What about the dumplings?").await;

    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let taken = &ledger.comments()[0];
    assert_eq!(taken.state, CommentState::Held);
    let address = answer.header("location").to_owned();
    assert!(address.starts_with(&format!("/articles/night-market?unapproved={}&moderation-hash=", taken.id)));
    assert!(address.ends_with(&format!("#comment-{}", taken.id)));
    let address = address.split('#').next().unwrap();
    let preview = client.get(address).await.text;
    assert!(preview.contains("Your comment is awaiting moderation.") && preview.contains("the dumplings?"));
    let mut reader = Client::of(&site.origin());
    for path in ["/articles/night-market", &format!("/articles/night-market?unapproved={}&moderation-hash=0", taken.id)]
    {
        assert!(!reader.get(path).await.text.contains("the dumplings?"), "{path}");
    }
}

#[tokio::test]
async fn a_comment_needs_the_token_of_its_own_article_and_visitor() {
    let (site, mut client, ledger) = start();
    let mine = client.get(CANONICAL_ARTICLE).await.value_of("nonce");
    let theirs = Client::of(&site.origin()).get(CANONICAL_ARTICLE).await.value_of("nonce");
    let elsewhere = client.get("/articles/night-market").await.value_of("nonce");
    assert_ne!(mine, theirs);
    for nonce in ["", "0123456789abcdef", &theirs, &elsewhere] {
        let fields = [("comment", "Hello"), ("author", "Ada"), ("email", "ada@example.org"), ("nonce", nonce)];
        let answer = client.post(&format!("{CANONICAL_ARTICLE}/comments"), &fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(ledger.comments(), []);
}

#[tokio::test]
async fn a_comment_with_a_missing_or_wrong_field_gets_an_error_page_with_status_200() {
    let (_site, mut client, ledger) = start();
    let nonce = client.get(CANONICAL_ARTICLE).await.value_of("nonce");
    for (author, email, text, error) in [
        ("", "ada@example.org", "Hello", "fill the required fields"),
        ("Ada", "", "Hello", "fill the required fields"),
        ("Ada", "ada at home", "Hello", "enter a valid email address"),
        ("Ada", "ada@example.org", " \n ", "type your comment text"),
        ("Ada", "ada@example.org", &"x".repeat(70_000), "comment is too long"),
    ] {
        let fields = [("comment", text), ("author", author), ("email", email), ("nonce", &nonce)];
        let answer = client.post(&format!("{CANONICAL_ARTICLE}/comments"), &fields).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text.contains(error), "{error}");
    }
    assert_eq!(ledger.comments(), []);
}

#[tokio::test]
async fn the_same_comment_again_is_a_conflict_and_another_one_at_once_is_a_flood() {
    let (_site, mut client, ledger) = start();
    assert_eq!(comment(&mut client, "harbour-lights", "ada@example.org", "One").await.status, StatusCode::SEE_OTHER);
    let again = comment(&mut client, "harbour-lights", "Ada@example.org", "One").await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.text.contains("Duplicate comment detected"));
    let quick = comment(&mut client, "night-market", "ada@example.org", "Two").await;
    assert_eq!((quick.status, quick.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "15"));
    let other = comment(&mut client, "harbour-lights", "bo@example.org", "One").await;
    assert_eq!(other.status, StatusCode::SEE_OTHER, "somebody else may say the same");
    assert_eq!(ledger.comments().len(), 2);
}

#[tokio::test]
async fn a_long_thread_has_pages_and_the_author_is_sent_to_the_last() {
    let (_site, mut client, _) = start();
    for number in 1..=20 {
        comment(&mut client, "harbour-lights", &format!("a{number}@example.org"), &format!("Number {number}.")).await;
    }
    let answer = comment(&mut client, "harbour-lights", "a21@example.org", "Number 21.").await;
    assert!(answer.header("location").starts_with(&format!("{CANONICAL_ARTICLE}?cpage=2#comment-")));
    let newest = client.get(CANONICAL_ARTICLE).await.text;
    assert!(newest.contains("Number 21.") && !newest.contains("Number 20."));
    assert!(client.get(&format!("{CANONICAL_ARTICLE}?cpage=1")).await.text.contains("Number 20."));
}

#[tokio::test]
async fn the_thread_sent_by_fetch_answers_with_json_and_its_errors_with_their_status() {
    let (_site, mut client, ledger) = start();
    let page = client.get("/articles/slow-trains").await.text;
    let token = between(&page, "data-token=\"", "\"");
    let path = "/api/articles/slow-trains/comments";
    let mut fields = json!({"comment": "Choo", "author": "Ada", "email": "nowhere", "url": "", "nonce": token});
    assert_eq!(client.post_json(path, fields.clone()).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    fields["email"] = json!("ada@example.org");
    let answer = client.post_json(path, fields.clone()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(answer.text.contains("\"status\":\"published\""));
    assert_eq!(ledger.comments_on("/articles/slow-trains")[0].body, "Choo");
    assert_eq!(client.post_json(path, fields).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn the_form_in_a_frame_posts_inside_the_frame() {
    let (_site, mut client, ledger) = start();
    let outside = client.get("/articles/salt-roads").await.text;
    assert!(outside.contains("<iframe class=\"thread\" title=\"Comments\" src=\"/embed/salt-roads\""));
    assert!(!outside.contains("<textarea"));
    let nonce = client.get("/embed/salt-roads").await.value_of("nonce");
    let fields = [("comment", "Blisters!"), ("author", "Ada"), ("email", "ada@example.org"), ("nonce", &nonce)];
    let answer = client.post("/embed/salt-roads", &fields).await;
    assert!(answer.header("location").starts_with("/embed/salt-roads?cpage=1#comment-"));
    assert_eq!(ledger.comments_on("/articles/salt-roads").len(), 1);
    assert!(client.get("/embed/salt-roads").await.text.contains("Blisters!"));
}

#[tokio::test]
async fn frames_of_another_site_work_without_cookies_or_refuse_as_their_article_says() {
    let (site, mut client, ledger) = start();
    let widgets = site.widget_origin();
    assert!(widgets.starts_with("http://localhost:"), "another site for a browser, not only another port");
    for slug in ["two-shores", "second-opinion"] {
        let page = client.get(&format!("/articles/{slug}")).await.text;
        assert!(page.contains(&format!("src=\"{widgets}/threads/{slug}\"")), "{slug}");
    }
    let mut widget = Client::of(&widgets);
    let refusing = widget.get("/threads/second-opinion").await;
    assert_eq!(refusing.header("x-frame-options"), "DENY");
    let nonce = widget.get("/threads/two-shores").await.value_of("nonce");
    let fields = [("comment", "Ahoy"), ("author", "Ada"), ("email", "ada@example.org"), ("nonce", &nonce)];
    let answer = Client::of(&widgets).post("/threads/two-shores", &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(ledger.comments_on("/articles/two-shores").len(), 1);

    let page = client.get("/articles/dead-letter-office").await.text;
    let dead = between(&page, "src=\"http://", "/threads/dead-letter-office\"");
    let error = tokio::net::TcpStream::connect(&dead).await.expect_err("nobody listens there");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn the_form_in_a_shadow_root_takes_comments_and_the_thread_is_shown_in_there() {
    let (_site, mut client, ledger) = start();
    assert_eq!(comment(&mut client, "tide-clocks", "ada@example.org", "Tick").await.status, StatusCode::SEE_OTHER);
    let page = client.get("/articles/tide-clocks").await.text;
    let shadow = between(&page, "<template shadowrootmode=\"open\">", "</template>");
    assert!(shadow.contains("Tick") && shadow.contains("<textarea"));
    assert_eq!(ledger.comments().len(), 1);
}

#[tokio::test]
async fn among_traps_only_the_real_fields_make_a_comment() {
    let (_site, mut client, ledger) = start();
    let page = client.get("/articles/paper-boats").await;
    let nonce = page.value_of("nonce");
    let text = between(&page.text, "<p class=\"field-text\"><label for=\"", "\"");
    let mail = between(&page.text, "<p class=\"field-mail\"><label for=\"", "\"");
    let path = "/articles/paper-boats/comments";
    let good = [("nonce", nonce.as_str()), (&text, "It floats"), ("author", "Ada"), (&mail, "ada@example.org")];

    for trap in ["comment", "email", "phone", "homepage", "edit"] {
        let mut fields = good.to_vec();
        fields.push((trap, "x"));
        let answer = client.post(path, &fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{trap}: looks like success");
        let address = answer.header("location").split('#').next().unwrap().to_owned();
        let page = client.get(&address).await.text;
        assert!(page.contains("It floats") && page.contains("awaiting moderation"), "{trap}: shows like success");
        assert_eq!(ledger.comments(), [], "{trap}: is none");
    }
    assert_eq!(ledger.trapped().len(), 5);

    assert_eq!(client.post(path, &good).await.status, StatusCode::SEE_OTHER);
    assert_eq!(ledger.comments_on("/articles/paper-boats")[0].body, "It floats");
}

#[tokio::test]
async fn articles_without_a_form_take_no_comment_that_is_posted_all_the_same() {
    let (_site, mut client, ledger) = start();
    for (slug, says) in [("closed-season", "Comments are closed."), ("members-letter", "to post a comment.")] {
        let page = client.get(&format!("/articles/{slug}")).await.text;
        assert!(page.contains(says) && !page.contains("<textarea"), "{slug}");
        let fields = [("comment", "Hello"), ("author", "Ada"), ("email", "ada@example.org")];
        let answer = client.post(&format!("/articles/{slug}/comments"), &fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{slug}");
    }
    assert_eq!(ledger.comments(), []);
}

#[tokio::test]
async fn a_missing_captcha_answer_is_refused_and_the_form_keeps_what_was_typed() {
    let (_site, mut client, ledger) = start();
    let shown = client.get("/articles/ask-the-editor").await.text;
    assert!(shown.contains("class=\"g-recaptcha\"") && shown.contains("<iframe title=\"reCAPTCHA\""));
    assert!(
        !client.get("/articles/reader-poll").await.text.to_lowercase().contains("captcha"),
        "nothing to see before"
    );
    for slug in ["ask-the-editor", "reader-poll"] {
        let answer = comment(&mut client, slug, "ada@example.org", "The one by the lock").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text.contains("Incorrect or missing CAPTCHA."), "{slug}");
        assert!(answer.text.contains(">The one by the lock</textarea>"), "{slug}");
        assert_eq!(answer.value_of("email"), "ada@example.org");
    }
    assert_eq!(ledger.comments(), []);
}

#[tokio::test]
async fn forms_that_cannot_be_completed_lack_a_button_or_ask_for_a_number_nobody_has() {
    let (_site, mut client, ledger) = start();
    let page = client.get("/articles/broken-press").await.text;
    let form = between(&page, "<form class=\"comment-form\"", "</form>");
    assert!(form.contains("<textarea") && !form.contains("<button") && !form.contains("type=\"submit\""));
    let page = client.get("/articles/wine-notes").await.text;
    assert!(page.contains("name=\"subscriber_no\"") && page.contains("pattern=\"[0-9]{8}\""));
    let answer = comment(&mut client, "wine-notes", "ada@example.org", "Corked").await;
    assert!(answer.text.contains("We know no subscriber with this number."));
    assert_eq!(ledger.comments(), []);
}

#[tokio::test]
async fn servers_in_trouble_answer_with_their_status() {
    let (_site, mut client, _) = start();
    let denied = client.get("/articles/archive-1911").await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert!(denied.text.contains("Access denied"));
    let throttled = client.get("/articles/opening-day").await;
    assert_eq!((throttled.status, throttled.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "2"));
    for _ in 0..3 {
        assert_eq!(client.get("/articles/misprint").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(client.get("/articles/no-such-story").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_server_that_recovers_answers_503_twice_and_then_takes_comments() {
    let (_site, mut client, ledger) = start();
    for _ in 0..2 {
        let answer = client.get("/articles/spring-tide").await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    }
    let answer = comment(&mut client, "spring-tide", "ada@example.org", "Worth the wait").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(ledger.comments().len(), 1);
    assert_eq!(ledger.hits("GET", "/articles/spring-tide"), 3);
}

#[tokio::test]
async fn a_cut_connection_ends_without_an_answer() {
    let (_site, client, ledger) = start();
    let error = client.begin("/articles/cut-cable").await.expect_err("no answer");
    assert!(error.is_incomplete_message(), "{error:?}");
    assert_eq!(ledger.hits("GET", "/articles/cut-cable"), 1);
}

#[tokio::test]
async fn an_endless_page_sends_its_first_half_and_ends_only_with_the_site() {
    let (site, client, _) = start();
    let mut response = client.begin("/articles/long-exposure").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(first.to_vec()).unwrap();
    assert!(text.contains("Long exposure") && !text.contains("</html>"));
    let rest = tokio::spawn(async move { response.body_mut().frame().await });
    assert_eq!(client.begin("/").await.unwrap().status(), StatusCode::OK, "others are served meanwhile");
    assert!(!rest.is_finished());
    site.stop().await;
    assert!(rest.await.unwrap().unwrap().is_err(), "the body breaks off");
}

#[tokio::test]
async fn a_silent_server_takes_the_request_and_says_nothing_until_the_site_stops() {
    let (site, client, ledger) = start();
    let origin = site.origin();
    let waiting = tokio::spawn(async move { client.begin("/articles/quiet-coach").await.map(|_| ()) });
    while ledger.hits("GET", "/articles/quiet-coach") == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    site.stop().await;
    assert!(waiting.await.unwrap().is_err());
    let authority = origin.strip_prefix("http://").unwrap();
    assert!(tokio::net::TcpStream::connect(authority).await.is_err(), "nobody listens any more");
}

/// Opens a sign-up page and sends its form.
async fn register(client: &mut Client, path: &str, username: &str, email: &str, password: &str) -> Answer {
    let token = client.get(path).await.value_of("_csrf");
    let fields = [
        ("_csrf", token.as_str()),
        ("username", username),
        ("email", email),
        ("password", password),
        ("password2", password),
        ("terms", "1"),
    ];
    client.post(path, &fields).await
}

async fn log_in(client: &mut Client, login: &str, password: &str) -> Answer {
    let token = client.get("/login").await.value_of("_csrf");
    client.post("/login", &[("_csrf", &token), ("login", login), ("password", password)]).await
}

#[tokio::test]
async fn a_new_account_is_active_at_once_and_can_log_in_with_what_was_typed() {
    let (site, mut client, ledger) = start();
    let answer = register(&mut client, "/join", "ada", "ada@example.org", " deep water ").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/account?welcome=1"));
    assert!(client.get("/account?welcome=1").await.text.contains("your account has been created"));
    let account = ledger.account("Ada").unwrap();
    assert_eq!((account.state, account.password.as_str()), (AccountState::Active, " deep water "));
    assert_eq!(account.fields.len(), 6);

    let mut later = Client::of(&site.origin());
    assert_eq!(later.get("/account").await.header("location"), "/login");
    assert!(log_in(&mut later, "ada", "deep water").await.text.contains("Wrong username or password."));
    assert_eq!(log_in(&mut later, "ada@example.org", " deep water ").await.header("location"), "/account");
    assert!(later.get("/account").await.text.contains("Welcome, ada"));
}

#[tokio::test]
async fn a_registration_is_refused_with_every_reason_and_without_sending_passwords_back() {
    let (_site, mut client, ledger) = start();
    for username in ["harbourmaster", "Editor"] {
        let answer = register(&mut client, "/join", username, "a@example.org", "deep water").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text.contains("Sorry, that username already exists!"), "{username}");
        assert!(answer.text.contains("value=\"a@example.org\"") && !answer.text.contains("deep water"));
    }
    let token = client.get("/join").await.value_of("_csrf");
    let fields =
        [("_csrf", token.as_str()), ("username", "a b"), ("email", "x"), ("password", "short"), ("password2", "shirt")];
    let answer = client.post("/join", &fields).await;
    for problem in ["Usernames have", "valid email", "too short", "didn’t match", "terms of service."] {
        assert!(answer.text.contains(problem), "{problem}");
    }
    let answer = client.post("/join", &[("username", "ada")]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "no token");
    assert_eq!(ledger.accounts(), []);
}

#[tokio::test]
async fn a_name_and_an_address_can_be_registered_once() {
    let (_site, mut client, ledger) = start();
    register(&mut client, "/join", "ada", "ada@example.org", "deep water").await;
    let name = register(&mut client, "/join", "ADA", "other@example.org", "deep water").await;
    assert!(name.text.contains("that username already exists"));
    let address = register(&mut client, "/join", "other", "ada@example.org", "deep water").await;
    assert!(address.text.contains("that email address is already used"));
    assert_eq!(ledger.accounts().len(), 1);
}

#[tokio::test]
async fn a_mailed_link_confirms_an_account_only_when_its_button_is_pressed() {
    let (_site, mut client, ledger) = start();
    let answer = register(&mut client, "/join/by-mail", "ada", "ada@example.org", "deep water").await;
    assert_eq!(answer.header("location"), "/join/check-your-email");
    assert!(client.get("/join/check-your-email").await.text.contains("We have sent an email to you"));
    assert!(log_in(&mut client, "ada", "deep water").await.text.contains("confirm your email address first"));

    let link = ledger.mails_to("ada@example.org")[0].link.clone().unwrap();
    assert!(client.get(&link).await.text.contains("Confirm</button>"));
    assert_eq!(ledger.account("ada").unwrap().state, AccountState::AwaitingLink, "opening it is not enough");
    assert_eq!(client.post("/confirm/0123456789abcdef", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ledger.account("ada").unwrap().state, AccountState::AwaitingLink, "another link does nothing");
    assert_eq!(client.post(&link, &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(ledger.account("ada").unwrap().state, AccountState::Active);
    assert_eq!(log_in(&mut client, "ada", "deep water").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_known_address_gets_the_same_page_as_a_new_one_and_only_the_mail_tells() {
    let (_site, mut client, ledger) = start();
    register(&mut client, "/join", "ada", "ada@example.org", "deep water").await;
    let answer = register(&mut client, "/join/by-mail", "ada2", "ada@example.org", "deep water").await;
    assert_eq!(answer.header("location"), "/join/check-your-email");
    assert_eq!(ledger.account("ada2"), None);
    assert_eq!(ledger.mails_to("ada@example.org").last().unwrap().subject, "You already have an account");
}

#[tokio::test]
async fn a_mailed_code_activates_an_account_and_a_wrong_one_does_not() {
    let (_site, mut client, ledger) = start();
    let answer = register(&mut client, "/join/code", "ada", "ada@example.org", "deep water").await;
    assert_eq!(answer.header("location"), "/join/code/verify");
    let form = client.get("/join/code/verify").await.text;
    assert!(form.contains("autocomplete=\"one-time-code\"") && form.contains("ada@example.org"));
    let code = ledger.mails_to("ada@example.org")[0].code.clone().unwrap();
    assert_eq!(code.len(), 6);
    let wrong = client.post("/join/code/verify", &[("code", "x")]).await;
    assert!(wrong.text.contains("Incorrect code."));
    assert_eq!(ledger.account("ada").unwrap().state, AccountState::AwaitingCode);
    assert_eq!(client.post("/join/code/verify", &[("code", &code)]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(ledger.account("ada").unwrap().state, AccountState::Active);
}

#[tokio::test]
async fn the_guarded_sign_up_shows_its_captcha_and_takes_nobody() {
    let (_site, mut client, ledger) = start();
    assert!(client.get("/join/guarded").await.text.contains("class=\"h-captcha\""));
    let answer = register(&mut client, "/join/guarded", "ada", "ada@example.org", "deep water").await;
    assert!(answer.text.contains("Incorrect or missing CAPTCHA."));
    assert_eq!(ledger.accounts(), []);
}

#[tokio::test]
async fn every_scenario_and_every_link_of_the_front_page_leads_to_a_page_that_exists() {
    let (_site, mut client, _) = start();
    let silent = ["/articles/long-exposure", "/articles/quiet-coach", "/articles/cut-cable"];
    let front = client.get("/").await.text;
    let links = front.split("href=\"/").skip(1).map(|rest| format!("/{}", rest.split('"').next().unwrap()));
    let paths: Vec<_> = scenarios().iter().map(|scenario| scenario.path().to_owned()).chain(links).collect();
    assert!(paths.len() > 40);
    for path in paths.iter().filter(|path| !silent.contains(&path.as_str())) {
        assert_ne!(client.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}
