//! Log-in and the page behind it, which show whether an account is what the sign-up said.

use std::sync::Arc;

use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::accounts::password_in;
use super::visitor::{Visitor, set_cookie};
use super::{Fields, field, layout};
use crate::demo::ledger::AccountState;
use crate::demo::site::Site;

/// What the log-in page is asked to say.
#[derive(Debug, Deserialize)]
pub(in crate::demo) struct LoginQuery {
    confirmed: Option<u8>,
}

/// `GET /login`
pub(in crate::demo) async fn form(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Query(query): Query<LoginQuery>,
) -> Response {
    let notice = query.confirmed.map(|_| "Your address is confirmed. You can log in now.");
    visitor.answer(page(&site.token("/login", &visitor.id), notice, None))
}

fn page(token: &str, notice: Option<&str>, problem: Option<&str>) -> Markup {
    layout::app(
        "Log in",
        html! {
            h1 { "Log in" }
            @if let Some(notice) = notice { p.notice role="status" { (notice) } }
            @if let Some(problem) = problem { ul.problems role="alert" { li { (problem) } } }
            form method="post" action="/login" {
                input type="hidden" name="_csrf" value=(token);
                p { label for="log" { "Username or email" } input #log name="login" autocomplete="username" required; }
                p { label for="pwd" { "Password" } input #pwd name="password" type="password" autocomplete="current-password" required; }
                button.primary type="submit" { "Log in" }
            }
            p.switch { "New here? " a href="/join" { "Create an account" } }
        },
    )
}

/// `POST /login`
pub(in crate::demo) async fn submit(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Form(fields): Form<Fields>,
) -> Response {
    let token = site.token("/login", &visitor.id);
    let (login, password) = (field(&fields, "login"), password_in(&fields, "password"));
    let account = site
        .ledger
        .accounts()
        .into_iter()
        .find(|account| account.username.eq_ignore_ascii_case(login) || account.email.eq_ignore_ascii_case(login));
    match account {
        Some(account) if field(&fields, "_csrf") == token && account.password == password => match account.state {
            AccountState::Active => {
                set_cookie(Redirect::to("/account").into_response(), "session", &session(&site, &account.username))
            }
            _ => page(&token, None, Some("Please confirm your email address first.")).into_response(),
        },
        _ => page(&token, None, Some("Wrong username or password.")).into_response(),
    }
}

/// The value of the session cookie: a name and the proof that we gave it.
pub(super) fn session(site: &Site, username: &str) -> String {
    format!("{username}.{}", site.token("session", username))
}

/// Whether the account page greets a newcomer.
#[derive(Debug, Deserialize)]
pub(in crate::demo) struct AccountQuery {
    welcome: Option<u8>,
}

/// `GET /account`
pub(in crate::demo) async fn account(
    State(site): State<Arc<Site>>,
    visitor: Visitor,
    Query(query): Query<AccountQuery>,
) -> Response {
    let cookie = visitor.cookie("session").unwrap_or_default();
    let account = cookie
        .rsplit_once('.')
        .filter(|(username, proof)| site.token("session", username) == *proof)
        .and_then(|(username, _)| site.ledger.account(username));
    let Some(account) = account else { return Redirect::to("/login").into_response() };
    layout::app(
        "Your account",
        html! {
            h1 { "Welcome, " (account.username) }
            @if query.welcome.is_some() { p.notice role="status" { "Thank you for registering, your account has been created." } }
            dl { dt { "Username" } dd { (account.username) } dt { "Email" } dd { (account.email) } dt { "Plan" } dd { "Free" } }
            p.switch { a href="/" { "Go to the magazine" } }
        },
    )
    .into_response()
}
