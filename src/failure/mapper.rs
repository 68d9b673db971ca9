//! What a text, a status or a network error means: errors of Chrome and its drivers, HTTP status lines, and what
//! pages say in eighteen languages, taken to a reason, a code and whether a retry can help.
//!
//! The patterns stand in data files beside the code (`pages.txt`, `markup.txt`, `exceptions.txt`), grouped by code and
//! ordered: the first that matches wins. How it can go wrong: a text nobody foresaw is `unknown`, and retried, unless
//! it is a page, which is then taken to show no failure. All matching is linear in the text, and the text is cut at
//! [`MAX_TEXT_BYTES`]. What a text says is never trusted further than to choose a code: an excerpt of it goes into the
//! message, with credentials in addresses blanked.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use regex::Regex;

use super::Failure;

mod codes;
mod html;
mod net;
mod page;
mod rules;
mod status;

use rules::Rules;

/// Longest text that is read, in bytes; of a longer one the first and the last half of this much.
pub const MAX_TEXT_BYTES: usize = 2 * 1024 * 1024;
/// Longest error text of a program that is read, in bytes: what matters stands at its beginning.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Longest excerpt of a text in a message, in characters.
const MAX_EXCERPT: usize = 200;

static ERRORS: LazyLock<Rules> = LazyLock::new(|| Rules::parse(include_str!("mapper/exceptions.txt")));

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// `net::ERR_…`
    Net,
    /// An answer of Chrome to a command.
    Cdp,
    /// An error's type and text, of a driver, a library or this program.
    Exception,
    /// A status line, with or without headers below it.
    Http,
    /// What a page shows: its text or its HTML.
    Page,
}

impl TextKind {
    /// All kinds with their names.
    pub const NAMES: [(&'static str, TextKind); 5] = [
        ("net", Self::Net),
        ("cdp", Self::Cdp),
        ("exception", Self::Exception),
        ("http", Self::Http),
        ("page", Self::Page),
    ];
}

/// What `text` means. `kind` None: a guess is made from its looks. None is the answer where it shows no failure, which
/// only a page, a status below 400 and a text of no known kind can do; an error that no rule knows is `unknown`.
pub fn map_text(text: &str, kind: Option<TextKind>) -> Option<Failure> {
    let text = &*cut(text);
    match kind {
        Some(TextKind::Net) => Some(map_net_error(text)),
        Some(TextKind::Cdp | TextKind::Exception) => {
            Some(map_error(text).unwrap_or_else(|| codes::OTHER.failure(text)))
        }
        Some(TextKind::Http) => status::map_text(text).unwrap_or_else(|| Some(codes::OTHER.failure(text))),
        Some(TextKind::Page) => page::map(text),
        None => guess(text),
    }
}

/// What `net::ERR_…` means; also without `net::`, and with text around it.
pub fn map_net_error(error: &str) -> Failure {
    let name = net::name_in(error).unwrap_or_else(|| error.trim());
    codes::class(net::code(name)).unwrap_or(&codes::OTHER).failure(error)
}

/// What an HTTP status means, code `http.NNN`; None where it is a success or a redirect. `retry_after` is kept where a
/// retry can help.
pub fn map_status(status: u16, retry_after: Option<Duration>) -> Option<Failure> {
    status::map(status, retry_after, "")
}

/// Reads a `Retry-After` header, seconds or an HTTP date relative to `now`. A date that has passed is no wait; None
/// where the value is neither.
pub fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    status::parse_retry_after(value, now)
}

/// What an error's text means, if a rule knows it.
fn map_error(text: &str) -> Option<Failure> {
    let text = text.get(..html::floor(text, MAX_ERROR_BYTES)).unwrap_or_default();
    let plain = page::plain(text);
    let hit = ERRORS.first(&plain);
    // An obstacle named in the same text (a dialog, a cover) is why the rest went wrong; else the network error is.
    let named = net::name_in(text);
    if let Some(name) = named
        && hit.as_ref().is_none_or(|hit| !hit.class.code.starts_with("popup."))
    {
        return codes::class(net::code(name)).map(|class| class.failure(text));
    }
    if let Some(status) = status::mentioned(&plain)
        && let Some(failure) = status::map(status, None, text)
    {
        return Some(failure);
    }
    hit.map(|hit| hit.class.failure(text))
}

static ERROR_LOOKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?x) ^ (?: [A-Za-z_$][\w.$:]* (?:Error|Exception|Timeout|Err) \b | Error: | Uncaught\b | Traceback\b | thread\ ' | Protocol\ error | (?:page|locator|frame|browser|browserType|elementHandle)\.\w+: )")
        .expect("the pattern is a constant")
});

/// Takes a text for what it looks like, and for a page if it looks like nothing in particular.
fn guess(text: &str) -> Option<Failure> {
    let trimmed = text.trim_start();
    if html::is_markup(trimmed) && trimmed.starts_with('<') {
        return page::map(text);
    }
    if trimmed.starts_with("net::ERR_") || trimmed.starts_with("ERR_") {
        return Some(map_net_error(text));
    }
    if trimmed.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http")) && status::of_line(text).is_some() {
        return status::map_text(text).flatten();
    }
    if net::name_in(text).is_some() || ERROR_LOOKS.is_match(trimmed) {
        // "Error: …" begins messages of pages as well.
        return map_error(text).or_else(|| page::map(text)).or_else(|| Some(codes::OTHER.failure(text)));
    }
    if let Some(failure) = page::map(text) {
        return Some(failure);
    }
    // One line that is no sentence of a page may still be an error without its type.
    let one_line = trimmed.len() <= 300 && !trimmed.trim_end().contains('\n');
    if one_line && status::of_line(text).is_some_and(|status| status >= 400) {
        return status::map_text(text).flatten();
    }
    if one_line { terse_error(text) } else { None }
}

/// An error without its type, told from prose by being short.
fn terse_error(text: &str) -> Option<Failure> {
    let words = text.split_whitespace().count();
    if words > 16 {
        return None;
    }
    let plain = page::plain(text);
    ERRORS
        .first(&plain)
        .filter(|hit| hit.start <= 40 && !hit.class.code.starts_with("captcha"))
        .map(|hit| hit.class.failure(text))
}

/// `text`, or its two ends where it is too long.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let head = &text[..html::floor(text, MAX_TEXT_BYTES / 2)];
    let tail = &text[html::floor(text, text.len() - MAX_TEXT_BYTES / 2)..];
    Cow::Owned(format!("{head}\n{tail}"))
}

static CREDENTIALS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"://[^/\s@]{1,200}@").expect("the pattern is a constant"));

/// The beginning of a text, for a message: one line, without credentials.
fn excerpt(text: &str) -> String {
    let head = &text[..html::floor(text, text.len().min(MAX_EXCERPT * 8))];
    let head = CREDENTIALS.replace_all(head, "://***@");
    let mut out = String::new();
    for word in head.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    match out.char_indices().nth(MAX_EXCERPT) {
        Some((at, _)) => format!("{}…", &out[..at]),
        None => out.trim_end_matches('.').to_owned(),
    }
}
