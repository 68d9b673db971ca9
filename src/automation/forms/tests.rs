use serde_json::{Value, json};

use super::*;

/// A page with one form; `fields` and `buttons` say only what matters.
fn page(form: Value, fields: Value, buttons: Value) -> Description {
    let place = |list: Value, first: usize| -> Vec<Value> {
        let list = list.as_array().cloned().unwrap_or_default().into_iter().enumerate();
        list.map(|(i, mut item)| {
            let defaults = json!({"h": first + i, "at": first + i, "form": 0, "css": format!("#e{}", first + i)});
            for (key, value) in defaults.as_object().unwrap() {
                item.as_object_mut().unwrap().entry(key.clone()).or_insert(value.clone());
            }
            item
        })
        .collect()
    };
    let mut form = form;
    form["is_form"] = json!(true);
    form["css"] = json!("#form");
    let count = fields.as_array().map_or(0, Vec::len);
    serde_json::from_value(json!({
        "forms": [form], "fields": place(fields, 100), "buttons": place(buttons, 101 + count),
    }))
    .unwrap()
}

fn input(kind: &str, label: &str) -> Value {
    json!({"tag": "input", "type": kind, "labels": [{"via": "for", "text": label}]})
}

fn area(label: &str) -> Value {
    json!({"tag": "textarea", "type": "textarea", "labels": [{"via": "for", "text": label}]})
}

fn button(text: &str) -> Value {
    json!([{"tag": "button", "type": "submit", "text": text}])
}

fn only(page: &Description) -> Form {
    let mut forms = classify(page);
    assert_eq!(forms.len(), 1);
    forms.remove(0)
}

fn roles(form: &Form) -> Vec<&'static str> {
    form.fields.iter().map(|field| field.role.as_str()).collect()
}

#[test]
fn a_comment_form_without_any_names_is_known_in_every_language() {
    for (name, mail, site, text, heading, send) in [
        ("Name *", "Email *", "Website", "Comment *", "Leave a Reply", "Post Comment"),
        ("Name", "E-Mail-Adresse", "Webseite", "Kommentar", "Schreibe einen Kommentar", "Kommentar abschicken"),
        ("Nom", "Adresse e-mail", "Site web", "Commentaire", "Laisser un commentaire", "Laisser un commentaire"),
        ("Nombre", "Correo electrónico", "Web", "Comentario", "Deja una respuesta", "Publicar el comentario"),
        ("Nome", "Email", "Sito web", "Commento", "Lascia un commento", "Invia commento"),
        ("Nome", "E-mail", "Site", "Comentário", "Deixe um comentário", "Publicar comentário"),
        ("Naam", "E-mailadres", "Website", "Reactie", "Geef een reactie", "Reactie plaatsen"),
        ("Nazwa", "Adres e-mail", "Witryna internetowa", "Komentarz", "Dodaj komentarz", "Opublikuj komentarz"),
        ("Имя", "Email", "Сайт", "Комментарий", "Добавить комментарий", "Отправить комментарий"),
        ("Ім'я", "Електронна пошта", "Сайт", "Коментар", "Залишити коментар", "Опублікувати коментар"),
        ("Ad", "E-posta", "İnternet sitesi", "Yorum", "Bir yanıt yazın", "Yorum gönder"),
        ("Jméno", "E-mail", "Webová stránka", "Komentář", "Přidat komentář", "Odeslat komentář"),
        ("Namn", "E-post", "Webbplats", "Kommentar", "Lämna en kommentar", "Publicera kommentar"),
        ("名前", "メールアドレス", "サイト", "コメント", "コメントを残す", "コメントを送信"),
        ("名字", "电子邮件", "网站", "评论", "发表评论", "提交评论"),
        ("이름", "이메일", "웹사이트", "댓글", "댓글 남기기", "댓글 작성"),
        ("الاسم", "البريد الإلكتروني", "الموقع الإلكتروني", "التعليق", "اترك تعليقاً", "إرسال التعليق"),
    ] {
        let page = page(
            json!({"headings": [heading]}),
            json!([input("text", name), input("text", mail), input("text", site), area(text)]),
            button(send),
        );
        let form = only(&page);
        assert_eq!(form.kind, FormKind::Comment, "{heading}: {:?}", form.reasons);
        assert_eq!(roles(&form), ["author", "email", "website", "body"], "{heading}");
        assert!(form.confidence > 0.8, "{heading}: {}", form.confidence);
        assert_eq!(form.submit.unwrap().text, send);
    }
}

#[test]
fn a_sign_up_a_log_in_a_newsletter_a_search_and_a_contact_form_are_told_apart() {
    let cases: Vec<(FormKind, Value, Value, &str)> = vec![
        (
            FormKind::Signup,
            json!([
                input("text", "Username"),
                input("email", "Email"),
                input("password", "Password"),
                input("password", "Confirm password")
            ]),
            json!({}),
            "Create account",
        ),
        (
            FormKind::Signup,
            json!([input("text", "Username"), input("email", "Email")]),
            json!({"text": "Registration confirmation will be emailed to you."}),
            "Register",
        ),
        (
            FormKind::Signup,
            json!([input("email", "E-Mail"), input("password", "Passwort")]),
            json!({"headings": ["Konto erstellen"]}),
            "Registrieren",
        ),
        (
            FormKind::Login,
            json!([
                input("text", "Username or Email Address"),
                input("password", "Password"),
                input("checkbox", "Remember Me")
            ]),
            json!({}),
            "Log In",
        ),
        (
            FormKind::Login,
            json!([input("email", "Adresse e-mail"), input("password", "Mot de passe")]),
            json!({"links": ["Mot de passe oublié ?"]}),
            "Se connecter",
        ),
        (
            FormKind::Newsletter,
            json!([input("email", "Your e-mail")]),
            json!({"headings": ["Never miss a loaf"]}),
            "Subscribe",
        ),
        (
            FormKind::Search,
            json!([{"tag": "input", "type": "search", "placeholder": "Search…"}]),
            json!({"role": "search", "method": "get"}),
            "Search",
        ),
        (
            FormKind::Search,
            json!([{"tag": "input", "type": "text", "name": "s", "placeholder": "Suchen …"}]),
            json!({"method": "get"}),
            "Suchen",
        ),
        (
            FormKind::Contact,
            json!([
                input("text", "Name"),
                input("email", "E-mail"),
                input("tel", "Phone"),
                input("text", "Subject"),
                area("Message")
            ]),
            json!({"headings": ["Contact us"]}),
            "Send message",
        ),
        (
            FormKind::Other,
            json!([{"tag": "input", "type": "text", "name": "cc-number", "autocomplete": "cc-number", "labels": [{"via": "for", "text": "Card number"}]}]),
            json!({"headings": ["Payment"]}),
            "Place order",
        ),
    ];
    for (kind, fields, form, send) in cases {
        let form = only(&page(form, fields, button(send)));
        assert_eq!(form.kind, kind, "{send}: {:?}", form.reasons);
    }
}

#[test]
fn a_sign_up_s_fields_find_their_roles_and_the_newsletter_box_is_told_from_the_terms() {
    let form = only(&page(
        json!({"headings": ["Create your account"]}),
        json!([
            input("text", "First name"),
            input("text", "Last name"),
            input("text", "User name"),
            input("text", "E-mail"),
            input("text", "Repeat e-mail"),
            input("password", "Password"),
            input("password", "Again"),
            input("checkbox", "I agree to the terms of service and the privacy policy"),
            input("checkbox", "Send me the newsletter with special offers"),
        ]),
        button("Sign up"),
    ));
    assert_eq!(form.kind, FormKind::Signup);
    assert_eq!(
        roles(&form),
        [
            "first_name",
            "last_name",
            "username",
            "email",
            "email_confirm",
            "password",
            "password_confirm",
            "consent",
            "newsletter_opt_in"
        ]
    );
}

#[test]
fn a_field_that_a_person_does_not_see_is_never_usable() {
    for why in ["off_screen", "clipped", "transparent", "tiny", "aria_hidden", "tabindex", "not_rendered", "invisible"]
    {
        let mut trap = input("text", "Email");
        trap["hidden"] = json!([why]);
        let form = only(&page(
            json!({}),
            json!([trap, input("email", "Email"), input("text", "Name"), area("Comment")]),
            button("Post comment"),
        ));
        assert_eq!(form.fields[0].role, Role::Honeypot, "{why}");
        assert!(!form.fields[0].usable, "{why}");
        assert_eq!(form.field(Role::Email).unwrap().selector, "#e101", "{why}");
    }
}

#[test]
fn a_field_that_asks_to_be_left_empty_is_never_usable_though_it_is_seen() {
    for label in [
        "Leave this field empty",
        "Bitte leer lassen",
        "Ne pas remplir",
        "Оставьте это поле пустым",
        "If you are human, leave this blank",
    ] {
        let form = only(&page(
            json!({}),
            json!([input("text", label), input("text", "Name"), area("Comment")]),
            button("Post comment"),
        ));
        assert_eq!(form.fields[0].role, Role::Honeypot, "{label}");
        assert!(!form.fields[0].usable, "{label}");
    }
}

#[test]
fn a_decoy_area_with_the_right_name_loses_against_the_one_that_is_seen() {
    let decoy = json!({"tag": "textarea", "type": "textarea", "name": "comment", "id": "comment", "hidden": ["clipped", "aria_hidden", "tabindex"]});
    let real = json!({"tag": "textarea", "type": "textarea", "name": "cd3ef72c2b"});
    let form = only(&page(
        json!({"headings": ["Leave a Reply"]}),
        json!([real, decoy, input("text", "Name"), input("email", "Email")]),
        button("Post Comment"),
    ));
    assert_eq!(form.kind, FormKind::Comment);
    assert_eq!(roles(&form), ["body", "honeypot", "author", "email"]);
}

#[test]
fn a_box_that_is_drawn_by_its_label_can_be_ticked() {
    let mut terms = input("checkbox", "I agree to the terms");
    terms["hidden"] = json!(["transparent", "tiny"]);
    terms["label_shown"] = json!(true);
    let form = only(&page(
        json!({}),
        json!([input("email", "Email"), input("password", "Password"), terms]),
        button("Sign up"),
    ));
    assert!(form.field(Role::Consent).is_some());
}

#[test]
fn a_question_for_people_is_a_captcha_and_not_the_text() {
    for label in
        ["What is 3 + 4 ?", "7 x 2 =", "Captcha", "Sicherheitsfrage: Wie viel ist 5 plus 2?", "Сколько будет 2 + 2 ="]
    {
        let form = only(&page(
            json!({}),
            json!([input("text", "Name"), area("Comment"), input("text", label)]),
            button("Post comment"),
        ));
        assert_eq!(form.fields[2].role, Role::Captcha, "{label}: {:?}", form.fields[2].reasons);
    }
}

#[test]
fn the_button_that_sends_is_told_from_those_that_do_not() {
    let buttons = json!([
        {"tag": "button", "type": "submit", "text": "Log in with Google"},
        {"tag": "button", "type": "button", "text": "Preview"},
        {"tag": "button", "type": "submit", "text": "Post comment"},
        {"tag": "button", "type": "reset", "text": "Cancel"},
    ]);
    let form = only(&page(json!({}), json!([input("text", "Name"), area("Comment")]), buttons));
    assert_eq!(form.submit.unwrap().text, "Post comment");
}

#[test]
fn the_surest_form_that_is_seen_is_worked_with() {
    let mut page = page(json!({}), json!([area("Comment"), input("text", "Name")]), button("Post comment"));
    let mut hidden = page.forms[0].clone();
    hidden.css = "#edit".into();
    page.forms.insert(0, hidden);
    for field in &mut page.fields {
        field.form = Some(1);
    }
    for button in &mut page.buttons {
        button.form = Some(1);
    }
    page.fields.insert(
        0,
        FieldFacts {
            form: Some(0),
            tag: "textarea".into(),
            hidden: vec!["not_rendered".into()],
            css: "#old".into(),
            ..FieldFacts::default()
        },
    );
    let forms = classify(&page);
    assert_eq!(forms.len(), 2);
    assert_eq!(best(&forms, FormKind::Comment).unwrap().selector, "#form");
}

#[test]
fn a_page_of_random_words_makes_nobody_panic() {
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&(".{0,60}", ".{0,60}", ".{0,60}"), |(a, b, c)| {
            let field = json!({"tag": "input", "type": a.clone(), "name": b.clone(), "placeholder": c.clone(), "autocomplete": a, "labels": [{"via": "for", "text": b}]});
            classify(&page(json!({"id": c.clone()}), json!([field]), button(&c)));
            Ok(())
        })
        .unwrap();
}

#[test]
fn first_steps_of_a_sign_up_are_known_by_what_is_said_over_and_beside_them() {
    let said_over = json!({"lead": ["Create your account"]});
    let month =
        json!({"tag": "select", "type": "select-one", "labels": [{"via": "for", "text": "Month"}], "option_count": 13});
    let year = json!({"tag": "select", "type": "select-one", "labels": [{"via": "for", "text": "Year"}], "option_count": 120,
        "options": ["Year", "2022", "2021", "2020", "2019", "2018", "2017", "2016", "2015", "2014"]});
    let form =
        only(&page(said_over, json!([input("text", "Name"), input("tel", "Phone"), month, year]), button("Next")));
    assert_eq!(form.kind, FormKind::Signup, "{:?}", form.reasons);
    assert_eq!(roles(&form), ["full_name", "phone", "birthdate", "birthdate"]);

    let asks = json!({"text": "Email Already have an account?", "links": ["Sign in"]});
    let form = only(&page(asks, json!([input("email", "Email"), input("password", "Password")]), button("Continue")));
    assert_eq!(form.kind, FormKind::Signup, "{:?}", form.reasons);

    let beside = json!([
        {"tag": "button", "type": "button", "text": "Next"},
        {"tag": "button", "type": "button", "text": "Create account"},
    ]);
    let forgot = json!({"text": "Forgot your password?"});
    let form = only(&page(forgot, json!([input("email", "Email address")]), beside));
    assert_eq!(form.kind, FormKind::Login, "{:?}", form.reasons);
    assert_eq!(form.submit.unwrap().text, "Next");
}

#[test]
fn what_a_later_step_asks_for_is_known_and_not_filled_and_a_trap_is_told_from_it() {
    let undrawn = |mut field: Value| {
        field["hidden"] = json!(["not_rendered"]);
        field
    };
    let fields = json!([
        input("email", "Email"),
        undrawn(input("password", "Password")),
        undrawn(input("text", "Username")),
        undrawn(input("text", "Email")),
    ]);
    let form = only(&page(json!({"headings": ["Sign up"]}), fields, button("Continue")));
    assert_eq!(form.kind, FormKind::Signup);
    assert_eq!(roles(&form), ["email", "password", "username", "honeypot"]);
    let later: Vec<bool> = form.fields.iter().map(|field| field.later).collect();
    assert_eq!(later, [false, true, true, false]);
    assert!(form.fields[1..].iter().all(|field| !field.usable));

    let alone = json!([input("text", "Name"), area("Comment"), undrawn(input("text", "Website"))]);
    let form = only(&page(json!({}), alone, button("Post comment")));
    assert!(!form.fields[2].later && !form.fields[2].usable);
}

#[test]
fn a_line_of_dots_is_a_password_and_one_that_may_stay_empty_is_no_user_name() {
    let dots = json!({"tag": "input", "type": "text", "name": "inp_password", "placeholder": "password"});
    let referral = input("text", "Referral ID (optional)");
    let fields = json!([input("email", "Email"), dots, referral]);
    let form = only(&page(json!({"headings": ["Sign up"]}), fields, button("Sign up")));
    assert_eq!(roles(&form), ["email", "password", "other"]);
}

#[test]
fn the_button_is_found_past_a_part_that_has_none_of_its_own_and_among_many_that_choose() {
    let choices: Vec<Value> =
        (0..60).map(|n| json!({"tag": "a", "text": format!("Choice {n}"), "at": 10 + n})).collect();
    let send = json!({"tag": "a", "text": "Continue", "at": 300});
    let buttons: Vec<Value> = choices.into_iter().chain([send]).collect();
    let form =
        only(&page(json!({}), json!([input("text", "Card number"), input("text", "Name on card")]), json!(buttons)));
    assert_eq!(form.submit.unwrap().text, "Continue");

    let mut two = page(
        json!({}),
        json!([input("text", "Card number"), {"tag": "input", "type": "text", "form": 1, "labels": [{"via": "for", "text": "First name"}]}]),
        json!([{"tag": "button", "type": "submit", "text": "Complete purchase", "form": null}]),
    );
    two.buttons[0].form = None;
    two.forms.push(FormFacts { css: "#second".into(), ..FormFacts::default() });
    for form in classify(&two) {
        assert_eq!(form.submit.unwrap().text, "Complete purchase");
    }
}
