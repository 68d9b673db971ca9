use super::*;

const BODY: &str = "A thoughtful remark about crumb and crust";

fn shown(text: &str) -> Shown {
    Shown { url: "https://blog.example/post".into(), text: text.to_owned(), ..Shown::default() }
}

fn sent(status: u16, answer: Option<&str>) -> Exchange {
    Exchange {
        method: "POST".into(),
        url: "https://blog.example/post".into(),
        resource_type: "Document".into(),
        status: Some(status),
        retry_after: None,
        location: None,
        error: None,
        body_excerpt: answer.map(str::to_owned),
    }
}

fn verdict(after: &Shown, exchange: &Exchange, landed: Option<u16>) -> Verdict {
    judge(&Needle::new(BODY), 0, &shown("Bread\nLeave a comment"), after, exchange, landed)
}

#[test]
fn a_text_that_is_new_on_the_page_is_a_posted_comment() {
    let after = shown(&format!("Bread\nAnn says:\n{BODY}\nLeave a comment"));
    assert_eq!(verdict(&after, &sent(302, None), Some(200)), Verdict::Posted);
}

#[test]
fn a_text_that_was_there_before_proves_nothing() {
    let before = shown(BODY);
    let silent = judge(&Needle::new(BODY), 1, &before, &before, &sent(200, None), Some(200));
    assert_eq!(silent, Verdict::Silent);
}

#[test]
fn a_notice_of_moderation_counts_for_more_than_the_text_that_stands_beside_it() {
    for notice in [
        "Your comment is awaiting moderation.",
        "Dein Kommentar wartet auf Freischaltung.",
        "Votre commentaire est en attente de modération.",
        "Tu comentario está pendiente de moderación.",
        "Il tuo commento è in attesa di moderazione.",
        "Seu comentário está aguardando moderação.",
        "Je reactie wacht op moderatie.",
        "Twój komentarz oczekuje na moderację.",
        "Ваш комментарий ожидает проверки.",
    ] {
        let after = shown(&format!("Bread\n{notice}\n{BODY}\nLeave a comment"));
        assert!(matches!(verdict(&after, &sent(302, None), Some(200)), Verdict::Held(_)), "{notice}");
    }
}

#[test]
fn an_address_that_says_unapproved_and_a_status_of_202_mean_held() {
    let mut after = shown("Bread");
    after.url = "https://blog.example/post?unapproved=3#comment-3".into();
    assert!(matches!(verdict(&after, &sent(302, None), Some(200)), Verdict::Held(_)));
    assert!(matches!(verdict(&shown("Bread"), &sent(202, None), None), Verdict::Held(_)));
}

#[test]
fn a_refusal_has_the_site_s_words_and_a_status_without_words_its_own() {
    let Verdict::Refused(failure) = verdict(
        &shown("Duplicate comment detected; it looks as though you’ve already said that!"),
        &sent(409, None),
        Some(409),
    ) else {
        panic!()
    };
    assert_eq!(failure.code, "form.duplicate");
    assert!(failure.message.contains("already said that"));
    let Verdict::Refused(failure) = verdict(&shown("Bread"), &sent(503, None), Some(503)) else { panic!() };
    assert!(failure.code.starts_with("http.5") && failure.retryable, "{failure:?}");
}

#[test]
fn a_script_s_answer_is_read_where_the_page_says_nothing() {
    let Verdict::Refused(failure) = verdict(
        &shown("Bread"),
        &sent(429, Some("{\"error\":\"You are posting comments too quickly. Slow down.\"}")),
        None,
    ) else {
        panic!()
    };
    assert_eq!(failure.code, "form.flood");
    assert_eq!(verdict(&shown("Bread"), &sent(200, Some("{}")), None), Verdict::Silent);
}

#[test]
fn the_key_of_a_held_comment_is_taken_out_of_its_address() {
    let url = "https://a.example/p/?unapproved=3&moderation-hash=abc#comment-3";
    assert_eq!(without_query_marks(url), "https://a.example/p/#comment-3");
    assert_eq!(without_query_marks("https://a.example/?p=3#comment-3"), "https://a.example/?p=3#comment-3");
}
