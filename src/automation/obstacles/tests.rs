use serde_json::json;

use super::super::forms::{ButtonFacts, CaptchaFacts, FormFacts, OverlayFacts, classify};
use super::*;
use crate::browser::{Frame, FrameId};

fn overlay(text: &str, buttons: &[&str]) -> OverlayFacts {
    let buttons = buttons.iter().enumerate().map(|(i, text)| ButtonFacts {
        h: i as u32,
        tag: "button".into(),
        text: (*text).into(),
        ..ButtonFacts::default()
    });
    OverlayFacts {
        css: "#o".into(),
        text: text.into(),
        share: 1.0,
        buttons: buttons.collect(),
        ..OverlayFacts::default()
    }
}

fn first_way(overlay: &OverlayFacts) -> Option<&str> {
    ways_out(overlay_kind(overlay), &overlay.buttons).first().map(|button| button.text.as_str())
}

#[test]
fn consent_is_declined_where_there_is_a_choice() {
    for (text, buttons, expected) in [
        ("We use cookies", vec!["Accept all", "Manage", "Reject all"], "Reject all"),
        (
            "Wir verwenden Cookies",
            vec!["Alle akzeptieren", "Einstellungen", "Nur notwendige Cookies"],
            "Nur notwendige Cookies",
        ),
        ("Nous utilisons des cookies", vec!["Tout accepter", "Continuer sans accepter"], "Continuer sans accepter"),
        ("Usamos cookies", vec!["Aceptar todo", "Rechazar"], "Rechazar"),
        ("Utilizziamo i cookie", vec!["Accetta tutto", "Rifiuta tutto"], "Rifiuta tutto"),
        ("Używamy plików cookie", vec!["Akceptuję", "Odrzuć wszystkie"], "Odrzuć wszystkie"),
        ("Мы используем файлы cookie", vec!["Принять", "Отклонить"], "Отклонить"),
        ("This website uses cookies", vec!["Learn more", "Got it!"], "Got it!"),
        ("Cookies", vec!["Settings", "Accept"], "Accept"),
    ] {
        let overlay = overlay(text, &buttons);
        assert_eq!(overlay_kind(&overlay), OverlayKind::Consent, "{text}");
        assert_eq!(first_way(&overlay), Some(expected), "{text}");
    }
}

#[test]
fn a_newsletter_is_closed_and_never_subscribed_to() {
    let asking = overlay("Never miss a loaf", &["Subscribe", "×"]);
    assert_eq!(overlay_kind(&asking), OverlayKind::Newsletter);
    assert_eq!(first_way(&asking), Some("×"));
    assert_eq!(first_way(&overlay("Join our newsletter", &["Subscribe", "No thanks"])), Some("No thanks"));
    assert_eq!(first_way(&overlay("Join our newsletter", &["Subscribe"])), None);
}

#[test]
fn a_link_that_leads_away_is_no_way_out() {
    let mut wall = overlay("We use cookies", &["Reject all"]);
    wall.buttons[0].tag = "a".into();
    wall.buttons[0].href = "/privacy".into();
    assert_eq!(first_way(&wall), None);
}

#[test]
fn the_site_s_own_head_and_the_form_itself_are_not_in_the_way() {
    let head = OverlayFacts { navigation: true, share: 0.1, ..overlay("Home News Contact", &["Menu"]) };
    assert!(!in_the_way(&head, &[]));
    let dialog = OverlayFacts { modal: true, forms: vec![2], ..overlay("Leave a comment", &["Close"]) };
    assert!(in_the_way(&dialog, &[]));
    assert!(!in_the_way(&dialog, &[2]));
}

fn page_with_form() -> Description {
    serde_json::from_value(json!({
        "forms": [{"css": "#f", "is_form": true}, {"css": "#g", "is_form": true}],
        "fields": [{"form": 0, "tag": "textarea", "name": "comment"}, {"form": 0, "tag": "input", "type": "text", "name": "author"}],
        "buttons": [{"form": 0, "tag": "button", "type": "submit", "text": "Post comment"}],
    }))
    .unwrap()
}

#[test]
fn a_captcha_counts_where_it_guards_the_form() {
    let mut page = page_with_form();
    let form = classify(&page).remove(0);
    assert_eq!(captcha_of(&page, &form), None);
    for (owner, shown, tag, expected) in [
        (Some(0), false, "div", true),
        (Some(1), true, "div", false),
        (None, true, "iframe", true),
        (None, false, "div", false),
        (None, false, "script", true),
    ] {
        page.captchas = vec![CaptchaFacts {
            kind: "hcaptcha".into(),
            form: owner,
            shown,
            tag: tag.into(),
            ..CaptchaFacts::default()
        }];
        assert_eq!(captcha_of(&page, &form).is_some(), expected, "{owner:?} {shown} {tag}");
    }
    assert_eq!(captcha_present("hcaptcha").reason, FailureReason::CaptchaPresent);
}

fn view(page: Description, unreachable: &[(&str, &str)]) -> View {
    let frame = |url: &str, reachable| Frame {
        id: FrameId(url.into()),
        parent: None,
        url: url.into(),
        name: String::new(),
        reachable,
        error: None,
        element: None,
    };
    let forms = classify(&page);
    View {
        frames: vec![FrameView { frame: frame("https://a.example/", true), page, forms }],
        unreachable: unreachable.iter().map(|(url, why)| (frame(url, false), (*why).to_owned())).collect(),
    }
}

#[test]
fn why_there_is_no_comment_form_is_told_apart() {
    let saying =
        |text: &str| Description { text: text.into(), text_length: text.len() as u64, ..Description::default() };
    let long = "Bread is a staple food. ".repeat(100);
    let cases = [
        (saying(&format!("{long}\nComments are closed.")), FailureReason::CommentFormNotFound, "comments.closed"),
        (
            saying(&format!("{long}\nYou must be logged in to post a comment.")),
            FailureReason::CommentFormNotFound,
            "login_required",
        ),
        (saying(&long), FailureReason::CommentFormNotFound, "comments.no_form"),
    ];
    for (page, reason, code) in cases {
        let failure = no_comment_form(&view(page, &[]));
        assert_eq!((failure.reason, failure.code.as_ref()), (reason, code));
    }
    let blocked = saying(
        "Access to this page has been denied because we believe you are using automation tools to browse the website.",
    );
    assert_eq!(no_comment_form(&view(blocked, &[])).reason, FailureReason::Blocked);
}

#[test]
fn a_comment_frame_that_can_t_be_reached_is_a_missed_frame_and_another_is_not() {
    let missed = no_comment_form(&view(
        Description::default(),
        &[("https://talk.example/embed/comments", "net::ERR_BLOCKED_BY_RESPONSE")],
    ));
    assert_eq!(missed.reason, FailureReason::IframeMissed);
    assert!(missed.message.contains("ERR_BLOCKED_BY_RESPONSE"));
    let advert = no_comment_form(&view(Description::default(), &[("https://ads.example/banner", "x")]));
    assert_eq!(advert.reason, FailureReason::CommentFormNotFound);
}

#[test]
fn a_page_of_forms_names_what_it_has() {
    let mut page = page_with_form();
    page.fields.clear();
    page.forms.push(FormFacts::default());
    assert!(no_comment_form(&view(page, &[])).message.contains("no form at all"));
}
