//! Sign-up and its confirmation by mail: the web app *Almanac*.

use std::sync::Arc;

use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;
use http::StatusCode;
use maud::{Markup, html};

use super::login::session;
use super::visitor::{Visitor, set_cookie};
use super::{Fields, article, field, is_email, layout};
use crate::demo::ledger::{Account, AccountState, Mail};
use crate::demo::site::Site;

/// Names that were taken before anybody came.
const TAKEN: [&str; 4] = ["admin", "editor", "harbourmaster", "root"];
/// Shortest password, in characters.
const MIN_PASSWORD: usize = 8;

/// The ways to an account, one page each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Active at once.
    Direct,
    /// By the link in a mail.
    ByLink,
    /// By the code in a mail.
    ByCode,
    /// Behind a CAPTCHA.
    Guarded,
}

impl Way {
    fn path(self) -> &'static str {
        match self {
            Self::Direct => "/join",
            Self::ByLink => "/join/by-mail",
            Self::ByCode => "/join/code",
            Self::Guarded => "/join/guarded",
        }
    }

    fn state(self) -> AccountState {
        match self {
            Self::Direct | Self::Guarded => AccountState::Active,
            Self::ByLink => AccountState::AwaitingLink,
            Self::ByCode => AccountState::AwaitingCode,
        }
    }

    fn lead(self) -> &'static str {
        match self {
            Self::Direct => "Free for one harbour, one garden and up to five people.",
            Self::ByLink => "We send you a link to make sure that the address is yours.",
            Self::ByCode => "We send you a six-digit code to make sure that the address is yours.",
            Self::Guarded => "Places are limited, so we check that you are a person.",
        }
    }
}

/// `GET /join`
pub(in crate::demo) async fn join(State(site): State<Arc<Site>>, visitor: Visitor) -> Response {
    sign_up(&site, &visitor, Way::Direct)
}

/// `GET /join/by-mail`
pub(in crate::demo) async fn by_mail(State(site): State<Arc<Site>>, visitor: Visitor) -> Response {
    sign_up(&site, &visitor, Way::ByLink)
}

/// `GET /join/code`
pub(in crate::demo) async fn by_code(State(site): State<Arc<Site>>, visitor: Visitor) -> Response {
    sign_up(&site, &visitor, Way::ByCode)
}

/// `GET /join/guarded`
pub(in crate::demo) async fn guarded(State(site): State<Arc<Site>>, visitor: Visitor) -> Response {
    sign_up(&site, &visitor, Way::Guarded)
}

/// `POST /join`
pub(in crate::demo) async fn join_submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Form(fields): Form<Fields>,
) -> Response {
    submit(&site, &visitor, Way::Direct, fields, |username| {
        set_cookie(Redirect::to("/account?welcome=1").into_response(), "session", &session(&site, username))
    })
}

/// `POST /join/by-mail`
pub(in crate::demo) async fn by_mail_submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Form(fields): Form<Fields>,
) -> Response {
    submit(&site, &visitor, Way::ByLink, fields, |_| Redirect::to("/join/check-your-email").into_response())
}

/// `POST /join/code`
pub(in crate::demo) async fn by_code_submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Form(fields): Form<Fields>,
) -> Response {
    submit(&site, &visitor, Way::ByCode, fields, |username| {
        set_cookie(Redirect::to("/join/code/verify").into_response(), "pending", username)
    })
}

/// `POST /join/guarded`: refused, whoever asks; the CAPTCHA has no answer here.
pub(in crate::demo) async fn guarded_submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Form(fields): Form<Fields>,
) -> Response {
    refused(&site, &visitor, Way::Guarded, &fields, &["Incorrect or missing CAPTCHA."])
}

fn sign_up(site: &Site, visitor: &Visitor, way: Way) -> Response {
    visitor.answer(form(&site.token(way.path(), &visitor.id), way, &[], &[]))
}

fn refused(site: &Site, visitor: &Visitor, way: Way, fields: &Fields, problems: &[&str]) -> Response {
    form(&site.token(way.path(), &visitor.id), way, fields, problems).into_response()
}

/// The sign-up form. Passwords are never sent back: after an error they have to be typed again.
fn form(token: &str, way: Way, refill: &[(String, String)], problems: &[&str]) -> Markup {
    layout::app(
        "Create your account",
        html! {
            h1 { "Create your account" }
            p.lead { (way.lead()) }
            @if !problems.is_empty() {
                ul.problems role="alert" { @for problem in problems { li { (problem) } } }
            }
            form #signup method="post" action=(way.path()) {
                input type="hidden" name="_csrf" value=(token);
                p { label for="username" { "Username" } input #username name="username" autocomplete="username" autocapitalize="none" spellcheck="false" value=(field(refill, "username")) required; }
                p { label for="email" { "Email address" } input #email name="email" type="email" autocomplete="email" value=(field(refill, "email")) required; }
                div.pair {
                    p { label for="password" { "Password" } input #password name="password" type="password" autocomplete="new-password" minlength=(MIN_PASSWORD) required; }
                    p { label for="password2" { "Repeat password" } input #password2 name="password2" type="password" autocomplete="new-password" required; }
                }
                p.hint { "At least " (MIN_PASSWORD) " characters; not your username." }
                @if way == Way::Guarded {
                    div.h-captcha data-sitekey="a1b2c3d4-0000-4000-8000-tidewater0001" {
                        iframe title="Widget containing checkbox for hCaptcha security challenge" src="/recaptcha/api2/anchor?hcaptcha=1" width="303" height="78" {}
                        textarea name="h-captcha-response" hidden {}
                    }
                }
                p.check { input #terms name="terms" type="checkbox" value="1" required; label for="terms" { "I agree to the " a href="/join#terms" { "terms of service" } " and the " a href="/join#privacy" { "privacy notice" } "." } }
                p.check { input #news name="news" type="checkbox" value="1"; label for="news" { "Send me the tide letter once a month." } }
                button.primary type="submit" { "Create account" }
            }
            p.switch { "Already have an account? " a href="/login" { "Log in" } }
        },
    )
}

fn submit(site: &Site, visitor: &Visitor, way: Way, fields: Fields, done: impl FnOnce(&str) -> Response) -> Response {
    if field(&fields, "_csrf") != site.token(way.path(), &visitor.id) {
        let page = layout::bare(
            "Forbidden",
            html! { h1 { "Forbidden" } p { "CSRF verification failed. Reload the form and try again." } },
        );
        return (StatusCode::FORBIDDEN, page).into_response();
    }
    let problems = problems(&fields);
    if !problems.is_empty() {
        return refused(site, visitor, way, &fields, &problems);
    }
    match enter(site, way, &fields) {
        Ok(()) => done(field(&fields, "username")),
        Err(problem) => refused(site, visitor, way, &fields, &[problem]),
    }
}

fn problems(fields: &Fields) -> Vec<&'static str> {
    let username = field(fields, "username");
    let (password, again) = (password_in(fields, "password"), password_in(fields, "password2"));
    let mut problems = Vec::new();
    if username.len() < 3
        || username.len() > 30
        || !username.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    {
        problems.push("Usernames have 3 to 30 letters, digits, dots, dashes or underscores.");
    }
    if !is_email(field(fields, "email")) {
        problems.push("Enter a valid email address.");
    }
    if password.chars().count() < MIN_PASSWORD {
        problems.push("This password is too short. It must contain at least 8 characters.");
    } else if password.eq_ignore_ascii_case(username) {
        problems.push("Your password must be different from your username.");
    }
    if password != again {
        problems.push("The two password fields didn’t match.");
    }
    if field(fields, "terms").is_empty() {
        problems.push("You must accept the terms of service.");
    }
    problems
}

/// A password is taken as it was typed, white space included.
pub(super) fn password_in<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Enters the registration into the ledger and sends the mail that belongs to it.
fn enter(site: &Site, way: Way, fields: &Fields) -> Result<(), &'static str> {
    let (username, email) = (field(fields, "username"), field(fields, "email"));
    let mut records = site.ledger.lock();
    if TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(username))
        || records.accounts.iter().any(|account| account.username.eq_ignore_ascii_case(username))
    {
        return Err("Sorry, that username already exists!");
    }
    if records.accounts.iter().any(|account| account.email.eq_ignore_ascii_case(email)) {
        if way == Way::Direct {
            return Err("Sorry, that email address is already used!");
        }
        // Whoever asks must not learn who has an account: the page looks like success, only the mail tells.
        records.mails.push(Mail {
            to: email.to_owned(),
            subject: "You already have an account".to_owned(),
            text: "Somebody tried to register with this address. If it was you, log in instead.".to_owned(),
            link: None,
            code: None,
        });
        return Ok(());
    }
    let id = records.next_id();
    records.accounts.push(Account {
        id,
        page: way.path().to_owned(),
        username: username.to_owned(),
        email: email.to_owned(),
        password: password_in(fields, "password").to_owned(),
        state: way.state(),
        received_at: Utc::now(),
        fields: fields.clone(),
    });
    let (link, code) = match way {
        Way::ByLink => (Some(format!("/confirm/{}", site.token("confirm", username))), None),
        Way::ByCode => (None, Some(code_for(site, username))),
        Way::Direct | Way::Guarded => (None, None),
    };
    let text = match (&link, &code) {
        (Some(link), _) => format!("Open this link to confirm your address: {link}"),
        (_, Some(code)) => format!("Your code is {code}. It is good for ten minutes."),
        _ => "Welcome to Almanac.".to_owned(),
    };
    records.mails.push(Mail { to: email.to_owned(), subject: "Almanac: your account".to_owned(), text, link, code });
    Ok(())
}

/// Six digits.
fn code_for(site: &Site, username: &str) -> String {
    let token = site.token("code", username);
    let digits: String = token.chars().map(|c| char::from(b'0' + (c as u8) % 10)).take(6).collect();
    digits
}

/// `GET /join/check-your-email`
pub(in crate::demo) async fn check_your_email() -> Markup {
    layout::app(
        "Check your email",
        html! {
            h1 { "Check your email" }
            p.lead role="status" { "We have sent an email to you for verification. Follow the link provided to finalize the signup process." }
            p { "Nothing there after five minutes? Look in the spam folder, or " a href="/join/by-mail" { "start again" } "." }
        },
    )
}

/// `GET /confirm/{token}`: opening the link is not enough, a button has to be pressed.
pub(in crate::demo) async fn confirm(State(site): State<Arc<Site>>, Path(token): Path<String>) -> Response {
    let Some(email) = with_pending(&site, &token, |account| account.email.clone()) else {
        return article::not_found().await.into_response();
    };
    layout::app(
        "Confirm your address",
        html! {
            h1 { "Confirm your address" }
            p.lead { "Please confirm that " strong { (email) } " is your address." }
            form method="post" { button.primary type="submit" { "Confirm" } }
        },
    )
    .into_response()
}

/// `POST /confirm/{token}`
pub(in crate::demo) async fn confirm_submit(State(site): State<Arc<Site>>, Path(token): Path<String>) -> Response {
    match with_pending(&site, &token, |account| account.state = AccountState::Active) {
        Some(()) => Redirect::to("/login?confirmed=1").into_response(),
        None => article::not_found().await.into_response(),
    }
}

fn with_pending<T>(site: &Site, token: &str, act: impl FnOnce(&mut Account) -> T) -> Option<T> {
    let mut records = site.ledger.lock();
    let waiting = |account: &&mut Account| {
        account.state == AccountState::AwaitingLink && site.token("confirm", &account.username) == token
    };
    records.accounts.iter_mut().find(waiting).map(act)
}

/// `GET /join/code/verify`
pub(in crate::demo) async fn verify(State(site): State<Arc<Site>>, visitor: Visitor) -> Response {
    match pending_email(&site, &visitor) {
        Some(email) => code_form(&email, None).into_response(),
        None => Redirect::to("/join/code").into_response(),
    }
}

/// `POST /join/code/verify`
pub(in crate::demo) async fn verify_submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Form(fields): Form<Fields>,
) -> Response {
    let Some(email) = pending_email(&site, &visitor) else { return Redirect::to("/join/code").into_response() };
    let username = visitor.cookie("pending").unwrap_or_default();
    if field(&fields, "code") != code_for(&site, &username) {
        return code_form(&email, Some("Incorrect code.")).into_response();
    }
    let mut records = site.ledger.lock();
    for account in records.accounts.iter_mut().filter(|account| account.username == username) {
        account.state = AccountState::Active;
    }
    drop(records);
    set_cookie(Redirect::to("/account?welcome=1").into_response(), "session", &session(&site, &username))
}

fn pending_email(site: &Site, visitor: &Visitor) -> Option<String> {
    let username = visitor.cookie("pending")?;
    site.ledger.account(&username).filter(|a| a.state == AccountState::AwaitingCode).map(|a| a.email)
}

fn code_form(email: &str, problem: Option<&str>) -> Markup {
    layout::app(
        "Enter your code",
        html! {
            h1 { "Enter your code" }
            p.lead { "We have sent a six-digit verification code to " strong { (email) } ". Your account will be activated once you enter it." }
            @if let Some(problem) = problem { ul.problems role="alert" { li { (problem) } } }
            form method="post" action="/join/code/verify" {
                p { label for="code" { "Verification code" } input #code .code name="code" inputmode="numeric" autocomplete="one-time-code" maxlength="6" required; }
                button.primary type="submit" { "Verify" }
            }
        },
    )
}
