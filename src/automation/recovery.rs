//! Looks for what an earlier attempt may have submitted, without submitting anything.
//!
//! An attempt that finds a submission let go and nothing known of its answer comes here instead of filling the form again.
//! A comment is looked for on the page and on its further pages; an account by logging in with it, which creates nothing,
//! or where no log-in can be found by what the sign-up form says of the address while it is typed and not sent.
//!
//! What is not seen may still be there: a comment that waits for approval, an account that is not ready yet. So nothing
//! found here is ever a reason to submit again; it ends as `outcome.uncertain`, for a person.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::Instant;

use super::comment::{address, see};
use super::filling::{Plan, prepare, uncertain};
use super::forms::{FormKind, Role};
use super::look::View;
use super::verdict::{Needle, Shown, refusal, said, saying};
use super::{Context, Success, failed};
use crate::browser::{HeldRequest, Judgement, SubmitGate};
use crate::failure::{Failure, FailureReason};
use crate::task::{CommentPayload, RegistrationPayload};

/// Most further pages of comments that are looked at.
const MOST_PAGES: usize = 12;
/// Most addresses at which the log-in form is looked for.
const MOST_LOGINS: usize = 3;
/// So many lines around a comment belong to it: who wrote it, and that it waits for approval.
const LINES_AROUND: usize = 6;

/// Looks for the comment of an earlier attempt, beginning with the page that is open.
///
/// # Errors
/// `outcome.uncertain`: it is not to be seen. Any other: the page could not be read, so nothing is known.
pub(super) async fn find_comment(ctx: &Context, payload: &CommentPayload) -> Result<Success, Failure> {
    let (found, pages) = look_for_comment(ctx, payload).await?;
    let pages =
        if pages == 1 { "the page does not show it".to_owned() } else { format!("none of {pages} pages shows it") };
    let missing = || uncertain(&format!("an earlier attempt let the comment go and was lost, and {pages}"));
    found.map(|found| found.with("recovered", true)).ok_or_else(missing)
}

/// What became of a comment by the page that is open and its further pages; None where none shows it. Also how many were
/// looked at.
///
/// # Errors
/// A page could not be read, so nothing is known.
pub(super) async fn look_for_comment(
    ctx: &Context,
    payload: &CommentPayload,
) -> Result<(Option<Success>, usize), Failure> {
    let needle = Needle::new(&payload.body);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = Vec::new();
    seen.insert(without_fragment(&ctx.task.url));
    let mut pages = 0;
    loop {
        let page = ctx.read_text().await?;
        seen.insert(without_fragment(&page.url));
        if shows(&page.text, &needle, payload) {
            let outcome = if awaits_approval(&page.text, &needle) { "held_for_moderation" } else { "posted" };
            let address = address(ctx, &needle, payload).await;
            return Ok((Some(Success::new(outcome).with("comment_url", address)), pages + 1));
        }
        pages += 1;
        let further = ctx.tab.call::<Vec<String>>(&ctx.tab.main_frame(), FURTHER, &[], ctx.limits.look).await;
        for url in further.unwrap_or_default() {
            if seen.insert(without_fragment(&url)) {
                next.push(url);
            }
        }
        if pages > MOST_PAGES || next.is_empty() {
            return Ok((None, pages));
        }
        let landed = ctx.open("look_at_further_page", &next.remove(0)).await?;
        if let Some(failure) = super::obstacles::refused_by_status(&landed).filter(|failure| failure.retryable) {
            // Not being let in now says nothing about the comment.
            return Err(failure);
        }
    }
}

fn shows(page: &str, needle: &Needle, payload: &CommentPayload) -> bool {
    needle.count(page) > 0 && (needle.is_telling() || Needle::new(&payload.author).count(page) > 0)
}

/// Whether the site says beside the comment that it waits for approval.
fn awaits_approval(page: &str, needle: &Needle) -> bool {
    let lines: Vec<String> = page.lines().map(str::to_owned).filter(|line| !line.trim().is_empty()).collect();
    let Some(at) =
        (0..lines.len()).find(|&i| needle.count(&lines[i..lines.len().min(i + LINES_AROUND)].join("\n")) > 0)
    else {
        return false;
    };
    let from = at.saturating_sub(LINES_AROUND);
    let until = lines.len().min(at + 2 * LINES_AROUND);
    saying(&lines[from..until], "sign.moderation").is_some()
}

/// Looks for an account, beginning with the sign-up page that is open.
///
/// # Errors
/// `outcome.uncertain`: the site does not say that it is there. Any other: the site could not be asked.
pub(super) async fn find_account(
    ctx: &Context,
    payload: &RegistrationPayload,
    signup: &Plan<'_>,
) -> Result<Success, Failure> {
    let lost = "an earlier attempt let the sign-up go and was lost";
    if let Some(answer) = Box::pin(log_in(ctx, payload)).await? {
        return match answer {
            LogIn::In(words) => Ok(found("registered", &words)),
            LogIn::Asleep(words) => Ok(found("needs_email_confirmation", &words)),
            LogIn::Refused(words) => {
                Err(uncertain(&format!("{lost}, and the log-in with its account failed: {words}")))
            }
            LogIn::Silent => Err(uncertain(&format!("{lost}, and the site does not say whether the log-in worked"))),
        };
    }
    match Box::pin(said_while_typing(ctx, signup)).await? {
        Some(words) => Ok(found("registered", &words)),
        None => Err(uncertain(&format!("{lost}, and the site has no log-in form that could tell whether it is there"))),
    }
}

fn found(outcome: &str, words: &str) -> Success {
    Success::new(outcome).with("recovered", true).with("evidence", words)
}

/// What the site made of a log-in.
#[derive(Debug, Clone, PartialEq)]
enum LogIn {
    /// It worked: the words that say so.
    In(String),
    /// The account is there and waits to be confirmed: the site's words.
    Asleep(String),
    /// It failed: the site's words.
    Refused(String),
    /// The site says nothing that is understood.
    Silent,
}

/// Logs in with the account; None where there is no form for it.
async fn log_in(ctx: &Context, payload: &RegistrationPayload) -> Result<Option<LogIn>, Failure> {
    let plan = Plan {
        kind: FormKind::Login,
        values: vec![
            (Role::Username, &payload.username),
            (Role::Email, &payload.email),
            (Role::Password, payload.password.expose_secret()),
        ],
        needed: &[&[Role::Password], &[Role::Username, Role::Email]],
        missing: no_login_form,
    };
    if !has_login(&ctx.look().await?) && !go_to_login(ctx).await? {
        return Ok(None);
    }
    let filled = Box::pin(prepare(ctx, &plan, &[])).await?;
    let before = see(ctx).await?;
    let sent = ctx.step("log_in", json!({ "form": filled.form.selector }), async {
        let report = ctx.tab.submit(&filled.trigger, &Unguarded, ctx.limits.submit).await;
        report.map_err(failed)
    });
    sent.await?;
    let deadline = Instant::now() + ctx.limits.answer;
    loop {
        let (view, text) = (ctx.look().await?, ctx.read_text().await?);
        let length = text.text.encode_utf16().count() as u64;
        let after = Shown::new(&view, text);
        let answer = answer(payload, &before, &after, has_login(&view));
        if answer != LogIn::Silent || Instant::now() >= deadline {
            return Ok(Some(answer));
        }
        ctx.text_changes(&ctx.tab.main_frame(), length, std::time::Duration::from_millis(700)).await;
    }
}

/// A form with a password that is no sign-up form: where an account is made, nothing may be sent again.
fn has_login(view: &View) -> bool {
    view.best(FormKind::Login).is_some_and(|(_, form)| {
        form.field(Role::Password).is_some()
            && [Role::PasswordConfirm, Role::EmailConfirm].iter().all(|role| form.field(*role).is_none())
    })
}

fn no_login_form(_: &View) -> Failure {
    let message = "the page has no log-in form";
    Failure::terminal(FailureReason::ElementNotFound, "login.no_form", message)
}

/// Goes where the site says its log-in is; whether a form is there.
async fn go_to_login(ctx: &Context) -> Result<bool, Failure> {
    let places = ctx.tab.call::<Vec<String>>(&ctx.tab.main_frame(), LOGIN_LINKS, &[], ctx.limits.look).await;
    for url in places.map_err(failed)?.into_iter().take(MOST_LOGINS) {
        ctx.open("look_for_log_in", &url).await?;
        let deadline = Instant::now() + ctx.limits.appear;
        loop {
            let view = ctx.look().await?;
            if has_login(&view) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            super::look::wait_for_fields(&ctx.tab, &view, left.min(std::time::Duration::from_millis(1500))).await;
        }
    }
    Ok(false)
}

fn answer(payload: &RegistrationPayload, before: &Shown, after: &Shown, form_left: bool) -> LogIn {
    let news = after.news(before);
    for sign in ["sign.inactive", "sign.check_mail"] {
        if let Some(words) = saying(&news, sign) {
            return LogIn::Asleep(said(words));
        }
    }
    if form_left {
        return match refusal(before, after, false) {
            Some(failure) => LogIn::Refused(failure.message),
            None => LogIn::Silent,
        };
    }
    if let Some(words) = saying(&news, "sign.logged_in").or_else(|| saying(&news, "sign.registered")) {
        return LogIn::In(said(words));
    }
    let ours = [&payload.username, &payload.email].into_iter().find(|name| {
        let name = Needle::new(name);
        news.iter().any(|line| name.count(line) > 0)
    });
    match ours {
        Some(name) => LogIn::In(format!("after the log-in the page speaks of {name}")),
        None => LogIn::Silent,
    }
}

/// Fills the sign-up form and sends nothing: many say at once that an address has an account.
async fn said_while_typing(ctx: &Context, signup: &Plan<'_>) -> Result<Option<String>, Failure> {
    ctx.open("open_sign_up_again", &ctx.task.url).await?;
    let before = see(ctx).await?;
    match Box::pin(prepare(ctx, signup, &[])).await {
        Ok(_) => {}
        // Without the form there is nothing that could say anything.
        Err(failure) if !failure.retryable => return Ok(None),
        Err(failure) => return Err(failure),
    }
    let deadline = Instant::now() + ctx.limits.answer;
    loop {
        let after = see(ctx).await?;
        if let Some(failure) =
            refusal(&before, &after, false).filter(|failure| failure.code == "registration.email_taken")
        {
            return Ok(Some(failure.message));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        let length = after.text.encode_utf16().count() as u64;
        ctx.text_changes(&ctx.tab.main_frame(), length, std::time::Duration::from_millis(700)).await;
    }
}

/// A log-in may be repeated: nothing of it is held.
struct Unguarded;

impl SubmitGate for Unguarded {
    fn judge(&self, _: &HeldRequest) -> Judgement {
        Judgement::Pass
    }

    fn guards(&self) -> bool {
        false
    }

    fn admit<'a>(&'a self, _: &'a HeldRequest) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(futures::future::ready(Err("a log-in is not held".to_owned())))
    }
}

fn without_fragment(url: &str) -> String {
    url.split('#').next().unwrap_or_default().to_owned()
}

/// Addresses, on this site, of further pages of the same page's comments.
const FURTHER: &str = r"(ph) => {
  const here = new URL(location.href);
  const plain = path => path.replace(/\/(comment-page|page)-?\/?\d+\/?$/i, '/').replace(/\/+$/, '');
  const words = /comment|kommentar|commentaire|comentario|comentário|commenti|reactie|komentar|komentář|коммент|комент|yorum|コメント|评论|評論|댓글/i;
  const found = new Set();
  for (const a of ph.deepQueryAll('a[href],link[rel][href]')) {
    let url;
    try { url = new URL(a.href, here); } catch { continue; }
    if (url.origin !== here.origin) continue;
    url.hash = '';
    const same = plain(url.pathname) === plain(here.pathname);
    if (!same || url.href === here.href.split('#')[0]) continue;
    const rel = String(a.rel ?? '').toLowerCase().split(/\s+/);
    const numbered = /[?&](cpage|comments?[-_]?page|page|paged|p|offset|start)=\d+/i.test(url.search) || /\/(comment-page|page)-?\/?\d+\/?$/i.test(url.pathname);
    const said = `${a.textContent ?? ''} ${a.getAttribute('aria-label') ?? ''} ${a.title ?? ''}`.slice(0, 200);
    const asks = /replytocom|moderat|delete|edit|report|like|share/i.test(url.search);
    if (!asks && (numbered || rel.includes('next') || rel.includes('prev') || words.test(said) && url.search !== here.search)) found.add(url.href);
  }
  return [...found].slice(0, 40);
}";

/// Addresses, on this site, where a log-in form may be: the likeliest first.
const LOGIN_LINKS: &str = r"(ph) => {
  const here = new URL(location.href);
  const words = /\b(log[ -]?in|sign[ -]?in|log on)\b|anmelden|einloggen|se connecter|connexion|iniciar sesi[oó]n|acceder|accedi|fazer login|entrar|inloggen|zaloguj|войти|увійти|přihlásit|logga in|log ind|logg inn|kirjaudu|giriş|ログイン|サインイン|登录|登入|로그인|تسجيل الدخول/i;
  const places = /(^|[\/_.?=&-])(log-?in|sign-?in|log-?on|session\/new|anmelden|connexion)([\/_.?=&-]|$)/i;
  const other = /log-?out|sign-?out|register|sign-?up|lost-?password|forgot|reset|google|facebook|github|apple|oauth|sso/i;
  const found = new Map();
  for (const a of ph.deepQueryAll('a[href]')) {
    let url;
    try { url = new URL(a.href, here); } catch { continue; }
    if (url.origin !== here.origin) continue;
    url.hash = '';
    const path = url.pathname + url.search;
    if (other.test(path) || url.href === here.href.split('#')[0]) continue;
    const said = `${a.textContent ?? ''} ${a.getAttribute('aria-label') ?? ''}`.trim().slice(0, 100);
    const score = (words.test(said) ? 2 : 0) + (places.test(path) ? 1 : 0);
    if (score) found.set(url.href, Math.max(score, found.get(url.href) ?? 0));
  }
  return [...found].sort((a, b) => b[1] - a[1]).map(([url]) => url).slice(0, 10);
}";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Shown {
        Shown { text: text.to_owned(), ..Shown::default() }
    }

    fn payload() -> RegistrationPayload {
        let value = json!({"username": "ann_4711", "email": "ann@example.org", "password": "correct horse 1"});
        match crate::task::Payload::parse("registration", &value) {
            Ok(crate::task::Payload::Registration(payload)) => payload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_log_in_is_taken_to_have_worked_only_where_the_page_says_so() {
        let before = shown("Log in\nUsername\nPassword");
        let answer = |text: &str, form_left| answer(&payload(), &before, &shown(text), form_left);
        assert!(matches!(answer("Hello\nLog out", false), LogIn::In(_)));
        assert!(matches!(answer("Welcome back, ann_4711!", false), LogIn::In(_)));
        assert_eq!(answer("Something else entirely", false), LogIn::Silent);
        assert_eq!(answer("Log in\nUsername\nPassword", true), LogIn::Silent);
        assert!(matches!(answer("Your account is not activated", true), LogIn::Asleep(_)));
        let refused = Shown {
            notices: vec![("Wrong username or password.".into(), "alert problems error".into())],
            ..shown("Log in\nUsername\nPassword\nWrong username or password.")
        };
        assert!(matches!(super::answer(&payload(), &before, &refused, true), LogIn::Refused(_)));
    }

    #[test]
    fn a_notice_beside_the_comment_says_that_it_waits() {
        let needle = Needle::new("Words that nobody else would write");
        let page = "A post\nAnn says:\nYour comment is awaiting moderation.\nWords that nobody else would write\nReply";
        assert!(awaits_approval(page, &needle));
        assert!(!awaits_approval("A post\nAnn says:\nWords that nobody else would write\nReply", &needle));
    }
}
