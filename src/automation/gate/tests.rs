use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::browser::FrameId;
use crate::failure::FailureReason;

const BODY: &str = "It's 100% \"good\" – really & truly\nsecond line, ünïcödé 😀";

#[derive(Default)]
struct Keeper {
    calls: Mutex<Vec<String>>,
    intent: Mutex<Value>,
    lose: AtomicBool,
    lose_late: AtomicBool,
}

impl GateKeeper for Keeper {
    fn commit<'a>(&'a self, intent: Value) -> BoxFuture<'a, Result<(), Failure>> {
        self.calls.lock().unwrap().push("commit".to_owned());
        *self.intent.lock().unwrap() = intent;
        let lost = self.lose.load(Ordering::SeqCst);
        Box::pin(async move { if lost { Err(lease_lost()) } else { Ok(()) } })
    }
    fn let_go<'a>(&'a self) -> BoxFuture<'a, Result<(), Failure>> {
        self.calls.lock().unwrap().push("let_go".to_owned());
        let lost = self.lose_late.load(Ordering::SeqCst);
        Box::pin(async move { if lost { Err(lease_lost()) } else { Ok(()) } })
    }
    fn outcome<'a>(&'a self, _: Value) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

fn lease_lost() -> Failure {
    Failure::terminal(FailureReason::Unknown, "infra.lease_lost", "the lease is lost")
}

fn comment() -> Submission {
    Submission {
        kind: "comment",
        site: "https://blog.example".into(),
        page_url: "https://blog.example/post".into(),
        action: Some("https://blog.example/wp-comments-post.php".into()),
        main: Some(BODY.into()),
        beside: vec!["Ann".into(), "ann@example.org".into()],
        fingerprint: fingerprint(&["Ann", BODY]),
    }
}

fn account() -> Submission {
    Submission {
        kind: "registration",
        main: None,
        action: None,
        beside: vec!["ann77".into(), "ann@example.org".into(), "s3cret+pass word".into()],
        ..comment()
    }
}

fn request(method: &str, resource_type: &str, url: &str, body: impl Into<Vec<u8>>) -> HeldRequest {
    HeldRequest {
        method: method.into(),
        url: url.into(),
        resource_type: resource_type.into(),
        frame: FrameId("F".into()),
        body: Some(body.into()),
        unread: false,
        headers: vec![],
    }
}

fn gate(submission: Submission) -> (Gate, Arc<Keeper>) {
    let keeper = Arc::new(Keeper::default());
    (Gate::new(submission, keeper.clone()), keeper)
}

fn form_encoded(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[test]
fn the_form_s_own_document_request_is_the_submission_whatever_it_carries() {
    let (gate, _) = gate(comment());
    let posted = request("POST", "Document", "https://blog.example/wp-comments-post.php?x=1", "");
    assert_eq!(gate.judge(&posted), Judgement::Hold);
    let elsewhere = request("POST", "Document", "https://blog.example/?s=1", "s=bread");
    assert_eq!(gate.judge(&elsewhere), Judgement::Pass);
}

#[test]
fn the_text_is_found_in_every_encoding() {
    let pairs = [("c", BODY), ("a", "Ann")];
    let json = serde_json::json!({"comment": {"text": BODY, "name": "Ann"}}).to_string();
    let ascii: String = json
        .chars()
        .map(|c| {
            if c.is_ascii() {
                c.to_string()
            } else {
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
        })
        .collect();
    let multipart = format!(
        "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nAnn\r\n--X\r\nContent-Disposition: form-data; name=\"c\"\r\n\r\n{}\r\n--X--",
        BODY.replace('\n', "\r\n")
    );
    let html = serde_json::json!({"name": "Ann", "html": format!("<p>{}</p>", BODY.replace('&', "&amp;").replace('\n', "</p><p>"))}).to_string();
    let nested = form_encoded(&[("data", &json)]);
    for (name, body) in [
        ("form", form_encoded(&pairs)),
        ("form with CRLF", form_encoded(&[("c", &BODY.replace('\n', "\r\n")), ("a", "Ann")])),
        ("json", json.clone()),
        ("escaped json", ascii),
        ("multipart", multipart),
        ("html", html),
        ("json in a form", nested),
    ] {
        for kind in ["XHR", "Fetch"] {
            let (gate, _) = gate(comment());
            let posted = request("POST", kind, "https://api.elsewhere.example/v1", body.clone());
            assert_eq!(gate.judge(&posted), Judgement::Hold, "{name}: {body}");
        }
    }
}

#[test]
fn a_form_sent_by_get_is_known_by_its_query_and_reading_is_not() {
    let (gate, keeper) = gate(comment());
    let url = format!("https://blog.example/add?{}", form_encoded(&[("c", BODY), ("n", "Ann")]));
    assert_eq!(gate.judge(&request("GET", "Fetch", &url, "")), Judgement::Pass);
    let sent = request("GET", "Document", &url, "");
    assert_eq!(gate.judge(&sent), Judgement::Hold);
    futures::executor::block_on(gate.admit(&sent)).unwrap();
    assert_eq!(keeper.intent.lock().unwrap()["url"], "https://blog.example/add", "the payload stays out of the record");
}

#[test]
fn what_only_checks_or_counts_passes() {
    let (comment_gate, _) = gate(comment());
    let spelling = request("POST", "XHR", "https://spell.example/v2/text", form_encoded(&[("text", BODY)]));
    assert_eq!(comment_gate.judge(&spelling), Judgement::Pass, "the text alone is not the comment");
    let counter = request("POST", "Ping", "https://stats.example/c", form_encoded(&[("t", BODY), ("n", "Ann")]));
    assert_eq!(comment_gate.judge(&counter), Judgement::Pass);
    let draft =
        request("POST", "XHR", "https://blog.example/comments/autosave", form_encoded(&[("t", BODY), ("n", "Ann")]));
    assert_eq!(comment_gate.judge(&draft), Judgement::Pass);

    let (account_gate, _) = gate(account());
    for one in [form_encoded(&[("user", "ann77")]), "{\"email\":\"ann@example.org\"}".to_owned()] {
        let check = request("POST", "XHR", "https://blog.example/api", one);
        assert_eq!(account_gate.judge(&check), Judgement::Pass);
    }
}

#[test]
fn an_account_is_known_by_two_of_its_values() {
    for body in [
        form_encoded(&[("u", "ann77"), ("e", "ann@example.org")]),
        form_encoded(&[("e", "ann@example.org"), ("p", "s3cret+pass word")]),
        r#"{"login":"ann77","password":"s3cret+pass word"}"#.to_owned(),
    ] {
        let (gate, _) = gate(account());
        assert_eq!(
            gate.judge(&request("POST", "Fetch", "https://x.example/api/users", body.clone())),
            Judgement::Hold,
            "{body}"
        );
    }
}

#[test]
fn a_comment_without_name_and_address_is_known_by_its_text_alone() {
    let (gate, _) = gate(Submission { beside: vec![], ..comment() });
    let posted = request("POST", "Fetch", "https://x.example/api", form_encoded(&[("text", BODY)]));
    assert_eq!(gate.judge(&posted), Judgement::Hold);
}

#[tokio::test]
async fn the_intent_is_committed_before_the_request_is_let_go_and_a_second_one_is_refused() {
    let (gate, keeper) = gate(comment());
    let posted = request("POST", "Document", "https://blog.example/wp-comments-post.php", form_encoded(&[("c", BODY)]));
    assert_eq!(gate.judge(&posted), Judgement::Hold);
    gate.admit(&posted).await.unwrap();
    assert_eq!(*keeper.calls.lock().unwrap(), ["commit", "let_go"]);
    let intent = keeper.intent.lock().unwrap().clone();
    assert_eq!(intent["kind"], "comment");
    assert_eq!(intent["fingerprint"], fingerprint(&["Ann", BODY]));
    assert!(gate.let_go());
    assert_eq!(gate.judge(&posted), Judgement::Refuse);
    assert!(gate.admit(&posted).await.is_err());
    assert_eq!(keeper.calls.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_lost_lease_keeps_the_request_from_leaving() {
    for late in [false, true] {
        let (gate, keeper) = gate(comment());
        keeper.lose.store(!late, Ordering::SeqCst);
        keeper.lose_late.store(late, Ordering::SeqCst);
        let posted = request("POST", "Document", "https://blog.example/wp-comments-post.php", "");
        assert!(gate.admit(&posted).await.is_err());
        assert!(!gate.let_go());
        assert_eq!(gate.denied().unwrap().code, "infra.lease_lost");
        assert_eq!(gate.judge(&posted), Judgement::Refuse, "and it stays so");
    }
}

#[test]
fn values_that_only_look_alike_when_joined_have_different_fingerprints() {
    assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
}

/// Bytes that no text is encoded as.
fn cipher(length: usize) -> Vec<u8> {
    (0..length).map(|i| 0x80 | u8::try_from(i * 37 % 128).unwrap()).collect()
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn what_a_script_encrypts_for_the_site_is_suspected_and_what_counts_visits_is_not() {
    let (gate, _) = gate(comment());
    let judge = |url: &str, body: &[u8]| gate.judge(&request("POST", "Fetch", url, body));
    let sealed = format!("{{\"payload\":\"{}\"}}", base64(&cipher(120)));
    let form = form_encoded(&[("data", &base64(&cipher(120)))]);
    for body in [sealed.as_bytes(), &cipher(80), form.as_bytes(), base64(&cipher(90)).as_bytes()] {
        assert_eq!(judge("https://blog.example/api/secure", body), Judgement::Suspect);
        assert_eq!(judge("https://api.blog.example/v1", body), Judgement::Suspect);
        assert_eq!(judge("https://blog.example/stats/collect", body), Judgement::Pass);
        assert_eq!(judge("https://elsewhere.example/api", body), Judgement::Pass);
        assert_eq!(gate.judge(&request("POST", "Ping", "https://blog.example/b", body)), Judgement::Pass);
    }
    assert_eq!(
        judge("https://blog.example/api", b"{\"event\":\"click\",\"target\":\"button.primary\"}"),
        Judgement::Pass
    );
    let known = format!("{{\"user\":\"Ann\",\"token\":\"{}\"}}", base64(&cipher(90)));
    assert_eq!(judge("https://blog.example/api", known.as_bytes()), Judgement::Pass, "it asks about one value");
    let told =
        format!("{{\"token\":\"{}\"}}", base64(b"{\"name\":\"a text that can be read, and is not ours at all\"}"));
    assert_eq!(judge("https://blog.example/api", told.as_bytes()), Judgement::Pass);
    let blob = HeldRequest { body: None, unread: true, ..request("POST", "XHR", "https://blog.example/api", "") };
    assert_eq!(gate.judge(&blob), Judgement::Suspect);
}

#[test]
fn values_in_base64_are_the_submission() {
    let (gate, _) = gate(comment());
    let inner = serde_json::json!({"name": "Ann", "text": BODY}).to_string();
    let sealed = format!("{{\"data\":\"{}\"}}", base64(inner.as_bytes()));
    assert_eq!(gate.judge(&request("POST", "XHR", "https://blog.example/api", sealed)), Judgement::Hold);
}

#[tokio::test]
async fn after_an_encrypted_submission_the_same_again_is_refused_and_other_traffic_goes_on() {
    let (gate, keeper) = gate(comment());
    let sealed = request("POST", "Fetch", "https://blog.example/api/secure", base64(&cipher(120)));
    gate.admit(&sealed).await.unwrap();
    assert_eq!(gate.judge(&sealed), Judgement::Refuse);
    let other = request("POST", "Fetch", "https://blog.example/api/session", base64(&cipher(120)));
    assert_eq!(gate.judge(&other), Judgement::Pass);
    assert_eq!(*keeper.calls.lock().unwrap(), ["commit", "let_go"]);
}
