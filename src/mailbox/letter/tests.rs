#![allow(clippy::unwrap_used)]

use super::*;

fn text(subject: &str, body: &str) -> Content {
    read(format!("Subject: {subject}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}").as_bytes())
}

fn html(body: &str) -> Content {
    read(format!("Subject: Hi\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{body}").as_bytes())
}

fn first(content: &Content) -> &str {
    content.links.first().map_or("", |link| link.url.as_str())
}

#[test]
fn the_link_that_sets_the_password_is_chosen_and_not_the_log_in() {
    let content = text(
        "[Bench] Login Details",
        "Username: ann\r\n\r\nTo set your password, visit the following address:\r\n\r\nhttp://blog.example/wp-login.php?action=rp&key=Zq0dC8u5gYlT2AAxPiaU&login=ann\r\n\r\nhttp://blog.example/wp-login.php\r\n",
    );
    assert_eq!(first(&content), "http://blog.example/wp-login.php?action=rp&key=Zq0dC8u5gYlT2AAxPiaU&login=ann");
    assert_eq!(content.links.len(), 1, "{content:?}");
}

#[test]
fn unsubscribing_policies_logos_and_home_pages_are_never_chosen() {
    let content = html(
        "<a href='https://s.example/'><img src=logo.png alt='Confirm Inc'></a><p>Hello! Please confirm your address.</p>\
         <a href='https://s.example/go/9f8e7d6c5b4a39281706f5e4'>Confirm my email</a>\
         <p>Not you? <a href='https://s.example/report/9f8e7d6c5b4a39281706f5e4'>Report this</a></p>\
         <a href='https://s.example/unsubscribe?token=9f8e7d6c5b4a39281706f5e4'>Unsubscribe</a>\
         <a href='https://s.example/privacy'>Privacy</a><a href='mailto:help@s.example'>Help</a>",
    );
    assert_eq!(first(&content), "https://s.example/go/9f8e7d6c5b4a39281706f5e4");
    assert!(content.links.iter().all(|link| !link.url.as_str().contains("unsubscribe")), "{content:?}");
    assert!(content.links.iter().all(|link| link.url.path() != "/"), "{content:?}");
}

#[test]
fn the_button_is_found_in_every_language() {
    for label in [
        "Confirm your email",
        "E-Mail-Adresse bestätigen",
        "Confirmer mon adresse",
        "Confirmar correo",
        "Conferma il tuo indirizzo",
        "Confirmar e-mail",
        "Bevestig je e-mailadres",
        "Potwierdź adres e-mail",
        "Подтвердить адрес",
        "Підтвердити адресу",
        "E-postanı doğrula",
        "Potvrdit e-mail",
        "Bekräfta din e-post",
        "メールアドレスを確認する",
        "验证邮箱",
        "이메일 인증하기",
        "تأكيد البريد الإلكتروني",
        "ईमेल की पुष्टि करें",
    ] {
        let content = html(&format!(
            "<p>…</p><a href='https://s.example/a/b?x=1'>{label}</a> <a href='https://s.example/c/d'>…</a>"
        ));
        assert_eq!(first(&content), "https://s.example/a/b?x=1", "{label}");
    }
}

#[test]
fn a_code_is_found_alone_on_its_line_or_beside_its_word() {
    let code = |subject: &str, body: &str| text(subject, body).code;
    assert_eq!(code("Hi", "Your verification code is 482913. It ends at 10:30.").as_deref(), Some("482913"));
    assert_eq!(
        code("Hi", "Enter this code:\r\n\r\n  4829 \r\n\r\n© 2024 Example, 12345 Town").as_deref(),
        Some("4829")
    );
    assert_eq!(code("123456 is your code", "Welcome.").as_deref(), Some("123456"));
    assert_eq!(code("Hi", "Ihr Bestätigungscode lautet: 739 204").as_deref(), Some("739204"));
    assert_eq!(code("Hi", "認証コード：582013").as_deref(), Some("582013"));
    assert_eq!(code("Hi", "您的验证码是 582013，").as_deref(), Some("582013"));
    assert_eq!(code("Hi", "Code:\r\nK7P-2XQ\r\n").as_deref(), Some("K7P-2XQ"));
    assert_eq!(code("Hi", "Order 482913 has been shipped in 2024."), None, "no word for a code");
    assert_eq!(code("Hi", "The code of conduct is new since 2024."), None);
    assert_eq!(code("Hi", "Your code: https://s.example/482913"), None);
}

#[test]
fn a_code_drawn_in_html_is_read() {
    assert_eq!(
        html("<p>Your code</p><table><tr><td><b>482913</b></td></tr></table><p>Bye</p>").code.as_deref(),
        Some("482913")
    );
}

#[test]
fn a_hostile_mail_costs_little_and_yields_nothing() {
    let nested = format!("{}x{}", "<div>".repeat(20_000), "</div>".repeat(20_000));
    assert!(html(&nested).links.is_empty());
    assert!(html("<a href='javascript:alert(1)'>Confirm</a><a href='file:///etc/passwd'>Verify</a>").links.is_empty());
    assert!(html(&format!("<a href='https://s.example/{}'>Confirm</a>", "a".repeat(5000))).links.is_empty());
    assert_eq!(read(b"\xff\xfe\x00garbage"), Content::default());
}
