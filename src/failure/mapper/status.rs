//! HTTP statuses, status lines and `Retry-After`.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use regex::Regex;

use super::super::{Failure, FailureReason};
use super::excerpt;

/// The status of a text such as `HTTP/1.1 503 Service Unavailable`, `status code: 429` or `404 Not Found`.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?ix) ^ \s* (?: (?:http(?:s|/\d(?:\.\d)?)?) [\s:]* )? (?: (?:error|status(?:[\s_-]?code)?|code) [\s:=]* )* (\d{3}) \b")
        .expect("the pattern is a constant")
});
static MENTION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?ix) \b (?: status(?:[\s_-]?code)? (?:\s(?:is|was|of))? | http(?:/\d(?:\.\d)?|\s?error|\s?status)? | (?:returned|responded\s with|response)(?:\s code)? ) [\s:=(]* ([1-5]\d\d) \b")
        .expect("the pattern is a constant")
});
/// A reason phrase that stands without its number.
static PHRASES: &[(&str, u16)] = &[
    ("bad request", 400),
    ("unauthorized", 401),
    ("payment required", 402),
    ("forbidden", 403),
    ("not found", 404),
    ("method not allowed", 405),
    ("not acceptable", 406),
    ("proxy authentication required", 407),
    ("request timeout", 408),
    ("conflict", 409),
    ("gone", 410),
    ("length required", 411),
    ("precondition failed", 412),
    ("payload too large", 413),
    ("content too large", 413),
    ("request entity too large", 413),
    ("uri too long", 414),
    ("unsupported media type", 415),
    ("range not satisfiable", 416),
    ("expectation failed", 417),
    ("i'm a teapot", 418),
    ("misdirected request", 421),
    ("unprocessable entity", 422),
    ("unprocessable content", 422),
    ("locked", 423),
    ("failed dependency", 424),
    ("too early", 425),
    ("upgrade required", 426),
    ("precondition required", 428),
    ("too many requests", 429),
    ("request header fields too large", 431),
    ("unavailable for legal reasons", 451),
    ("internal server error", 500),
    ("not implemented", 501),
    ("bad gateway", 502),
    ("service unavailable", 503),
    ("service temporarily unavailable", 503),
    ("gateway timeout", 504),
    ("gateway time-out", 504),
    ("http version not supported", 505),
    ("variant also negotiates", 506),
    ("insufficient storage", 507),
    ("loop detected", 508),
    ("bandwidth limit exceeded", 509),
    ("not extended", 510),
    ("network authentication required", 511),
];

/// The status that a status line begins with, or whose phrase it is.
pub(super) fn of_line(text: &str) -> Option<u16> {
    if let Some(found) = LINE.captures(text) {
        return found[1].parse().ok().filter(|status| (100..=999).contains(status));
    }
    let first = text.lines().next().unwrap_or_default().trim().trim_end_matches(['.', '!']);
    PHRASES.iter().find(|(phrase, _)| first.eq_ignore_ascii_case(phrase)).map(|(_, status)| *status)
}

/// The status that an error's text mentions.
pub(super) fn mentioned(text: &str) -> Option<u16> {
    MENTION.captures(text).and_then(|found| found[1].parse().ok())
}

/// Whether a line of a page is nothing but a status and its phrase, as servers print it: `502 Bad Gateway`.
pub(super) fn of_heading(line: &str) -> Option<u16> {
    let rest = line.trim_start_matches("error").trim_start_matches("http").trim_start_matches([' ', ':']);
    let (number, phrase) = rest.split_at_checked(3)?;
    let number: u16 = number.parse().ok().filter(|number| (400..=599).contains(number))?;
    let phrase = phrase.trim_matches([' ', ':', '-', '–', '|', '.', '!']);
    let known = PHRASES.iter().any(|(known, status)| *status == number && phrase == *known);
    (known || phrase == "error").then_some(number)
}

/// A status and its headers, as one text. `None` if it holds none.
pub(super) fn map_text(text: &str) -> Option<Option<Failure>> {
    let status = of_line(text).or_else(|| mentioned(text))?;
    let header = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    // Against the server's own clock: this module has none.
    let now = header("date").and_then(http_date).unwrap_or(DateTime::UNIX_EPOCH);
    let wish = header("retry-after").and_then(|value| match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) if now == DateTime::UNIX_EPOCH => None,
        Err(_) => parse_retry_after(value, now),
    });
    let challenge = header("cf-mitigated").is_some_and(|value| value.eq_ignore_ascii_case("challenge"));
    if challenge && status < 400 {
        return Some(super::codes::class("block.challenge").map(|class| class.failure(text)));
    }
    Some(map(status, wish, text))
}

/// What a status means; None where it is none of failure.
pub(super) fn map(status: u16, retry_after: Option<Duration>, evidence: &str) -> Option<Failure> {
    use FailureReason::{Blocked, CommentFormNotFound, Timeout, Unknown};
    let (reason, retryable, says) = match status {
        0..=399 => return None,
        401 => (Blocked, false, "the site wants a login for this page"),
        403 => (Blocked, false, "the site forbids this page"),
        404 | 410 => (CommentFormNotFound, false, "the page does not exist"),
        406 => (Blocked, false, "the site refused the request"),
        407 => return super::codes::class("proxy.auth").map(|class| class.failure(evidence)),
        408 => (Timeout, true, "the site gave up waiting for the request"),
        425 => (Unknown, true, "the site was not ready for the request"),
        429 => (Blocked, true, "the site says there were too many requests"),
        444 | 999 => (Blocked, false, "the site refused the request"),
        451 => (Blocked, false, "the page is not available for legal reasons"),
        400..=499 => (Unknown, false, "the site found fault with the request"),
        504 | 522 | 524 | 598 | 599 => (Timeout, true, "the site's own server did not answer in time"),
        525 | 526 => (Unknown, false, "the site's own TLS set-up is broken; its owner has to mend it"),
        501 | 505 | 506 | 510 => (Unknown, false, "the site can't do what was asked"),
        500..=599 => (Unknown, true, "the site has a fault"),
        _ => (Unknown, false, "the site answered with a status that is none of HTTP's"),
    };
    let evidence = excerpt(evidence);
    let message = if evidence.is_empty() { format!("{says}: HTTP {status}") } else { format!("{says}: {evidence}") };
    let failure = if retryable { Failure::retryable } else { Failure::terminal };
    // Only where a retry is to be had does the site's wish matter.
    Some(failure_of(failure, reason, status, message).after(retry_after.filter(|_| retryable)))
}

fn failure_of(
    make: fn(FailureReason, std::borrow::Cow<'static, str>, String) -> Failure,
    reason: FailureReason,
    status: u16,
    message: String,
) -> Failure {
    make(reason, format!("http.{status}").into(), message)
}

/// Seconds, or an HTTP date relative to `now`; a date in the past is no wait.
pub(super) fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    Some((http_date(value)? - now).to_std().unwrap_or(Duration::ZERO))
}

/// The three forms of RFC 9110, 5.6.7.
fn http_date(value: &str) -> Option<DateTime<Utc>> {
    if let Ok(date) = DateTime::parse_from_rfc2822(value) {
        return Some(date.to_utc());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(value, form).ok())
        .map(|date| date.and_utc())
}
