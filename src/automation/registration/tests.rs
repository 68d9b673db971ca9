use super::*;

fn shown(text: &str) -> Shown {
    Shown { url: "https://site.example/join".into(), text: text.to_owned(), ..Shown::default() }
}

fn sent(status: u16, answer: Option<&str>) -> Exchange {
    Exchange {
        method: "POST".into(),
        url: "https://site.example/join".into(),
        resource_type: "Fetch".into(),
        status: Some(status),
        retry_after: None,
        location: None,
        error: None,
        body_excerpt: answer.map(str::to_owned),
    }
}

fn verdict(text: &str, status: u16) -> Option<Result<Success, Failure>> {
    judge(
        &shown("Create an account\nPassword: at least 8 characters"),
        &shown(text),
        &sent(status, None),
        Some(status),
        false,
    )
}

#[test]
fn a_site_that_says_welcome_has_the_account() {
    for text in [
        "Your account has been created.",
        "Vielen Dank für Ihre Registrierung",
        "Votre compte a été créé",
        "Регистрация завершена",
        "Hello ann\nLog out",
    ] {
        let success = verdict(text, 200).unwrap().unwrap();
        assert_eq!(success.details["outcome"], "registered", "{text}");
    }
}

#[test]
fn a_site_that_has_sent_a_mail_waits_for_it() {
    for text in [
        "Registration complete. Please check your email, then visit the login page.",
        "Wir haben Ihnen eine Bestätigungsmail geschickt",
        "Revisa tu correo",
    ] {
        let success = verdict(text, 200).unwrap().unwrap();
        assert_eq!(success.details["outcome"], "needs_email_confirmation", "{text}");
    }
}

#[test]
fn a_refusal_is_registration_failed_in_the_site_s_words() {
    for text in [
        "Sorry, that username already exists!",
        "This password is too common.",
        "Error: Please fill the required fields.",
    ] {
        let failure = verdict(text, 200).unwrap().unwrap_err();
        assert_eq!(failure.reason, FailureReason::RegistrationFailed, "{text}");
        assert!(failure.message.contains(text), "{}", failure.message);
        assert!(!failure.retryable);
    }
}

#[test]
fn the_statuses_by_which_interfaces_refuse_a_value_are_refusals_too() {
    let failure = judge(&shown(""), &shown(""), &sent(422, Some("{}")), None, false).unwrap().unwrap_err();
    assert_eq!((failure.reason, failure.retryable), (FailureReason::RegistrationFailed, false));
    let failure = judge(&shown(""), &shown(""), &sent(503, None), None, false).unwrap().unwrap_err();
    assert!(failure.retryable, "{failure:?}");
}

#[test]
fn a_code_or_a_sleeping_account_needs_a_mailbox() {
    let asked = judge(&shown(""), &shown("Enter the verification code"), &sent(200, None), Some(200), true);
    assert_eq!(asked.unwrap().unwrap_err().code, "mail.no_mailbox");
    let asleep = verdict("Your account is inactive until you confirm it.", 200).unwrap().unwrap_err();
    assert_eq!(asleep.reason, FailureReason::EmailVerificationFailed);
}

#[test]
fn hints_that_were_there_before_say_nothing() {
    assert!(verdict("Create an account\nPassword: at least 8 characters", 200).is_none());
}
