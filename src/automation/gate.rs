//! The submit gate: knows the one request of a task that can't be taken back, holds it, and lets it go once its intent is
//! committed under the lease.
//!
//! The submission is known by what it carries, not by the button that was pressed: a request other than GET (or a GET of
//! the form itself) with the values that were filled in, however they are encoded; and any request other than GET that
//! loads the form's action as a document. What asks only about a single value (is the name free? is it spelt right?), and
//! what goes to a counter of visits, passes.
//!
//! How it can go wrong, and what comes of it:
//! - the lease is lost meanwhile: `commit` fails, the request is refused, nothing has left;
//! - a second request carries the same: refused, since one submission a task is all there ever is;
//! - a site encrypts what it sends by XHR before it leaves: a request to the site itself whose content can't be read, and
//!   that is no counter of visits by its address, is suspected; if nothing comes that surely is the submission, it is held
//!   as that.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::GateKeeper;
use crate::browser::{HeldRequest, Judgement, SubmitGate};
use crate::failure::Failure;
use crate::fault;
use crate::record::rfc3339;

/// What the submission of a task looks like on the wire.
#[derive(Debug, Clone, Default)]
pub struct Submission {
    /// `comment` or `registration`.
    pub kind: &'static str,
    /// Origin of the task's site.
    pub site: String,
    /// Address of the page that the form is on.
    pub page_url: String,
    /// Where the form says it is sent; `None` where it does not say, or is no `<form>`.
    pub action: Option<String>,
    /// The value that must be in the submission: the comment's text. `None`: any two of `beside` will do.
    pub main: Option<String>,
    /// The other values that were filled in and tell this task from others: name and address.
    pub beside: Vec<String>,
    /// [`fingerprint`] of what is submitted.
    pub fingerprint: String,
}

/// SHA-256, in hex, of the values that make two submissions the same one.
pub fn fingerprint(values: &[&str]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    /// One request is held while the keeper is asked.
    Held,
    /// It was let go.
    LetGo,
    /// The keeper said no: this is why.
    Denied(Failure),
}

/// The gate of one attempt.
pub struct Gate {
    submission: Submission,
    keeper: Arc<dyn GateKeeper>,
    state: Mutex<State>,
    /// Where the request that was held went.
    place: Mutex<Option<String>>,
}

/// What a request is to the gate.
enum Meaning {
    Submission,
    /// It goes to the site, and what it carries can't be read.
    Unreadable,
    Other,
}

impl Gate {
    /// A gate that waits for `submission`.
    pub fn new(submission: Submission, keeper: Arc<dyn GateKeeper>) -> Gate {
        Gate { submission, keeper, state: Mutex::default(), place: Mutex::default() }
    }

    /// Why the keeper did not let the submission go, if it was asked and said no.
    pub fn denied(&self) -> Option<Failure> {
        match &*self.state() {
            State::Denied(failure) => Some(failure.clone()),
            State::Closed | State::Held | State::LetGo => None,
        }
    }

    /// Whether the submission was let go.
    pub fn let_go(&self) -> bool {
        matches!(*self.state(), State::LetGo)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meaning(&self, request: &HeldRequest) -> Meaning {
        let wanted = &self.submission;
        let document = request.resource_type.eq_ignore_ascii_case("document");
        let reading = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        if reading && !document {
            return Meaning::Other;
        }
        if document && !reading && wanted.action.as_deref().is_some_and(|action| same_place(action, &request.url)) {
            return Meaning::Submission;
        }
        if !document && is_aside(request, &wanted.page_url) {
            return Meaning::Other;
        }
        let carried = Carried::of(request);
        let beside: usize = wanted.beside.iter().filter(|value| carried.has(value)).count();
        let main = wanted.main.as_ref().is_some_and(|main| carried.has(main));
        let ours = match &wanted.main {
            Some(_) => main && (beside > 0 || wanted.beside.is_empty()),
            None => beside >= 2.min(wanted.beside.len()) && beside > 0,
        };
        if ours {
            Meaning::Submission
        } else if !document && !main && beside == 0 && self.may_be_encrypted(request) {
            Meaning::Unreadable
        } else {
            Meaning::Other
        }
    }

    /// Whether a script of the page sends the site something that nobody but the two can read.
    fn may_be_encrypted(&self, request: &HeldRequest) -> bool {
        let wanted = &self.submission;
        let to_form = wanted.action.as_deref().is_some_and(|action| same_place(action, &request.url));
        let own = to_form || is_own(&request.url, &wanted.page_url) && !counts_visits(request);
        own && (request.unread || is_unreadable(request.body.as_deref().unwrap_or_default()))
    }
}

impl SubmitGate for Gate {
    fn judge(&self, request: &HeldRequest) -> Judgement {
        let again = || {
            let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            place.as_deref().is_some_and(|place| same_place(place, &request.url))
        };
        match (self.meaning(request), &*self.state()) {
            (Meaning::Other, _) => Judgement::Pass,
            (Meaning::Submission, _) if !fault::guard!("gate.hold") => Judgement::Pass,
            (Meaning::Submission, State::Closed) => Judgement::Hold,
            (Meaning::Submission, _) if !fault::guard!("gate.second") => Judgement::Pass,
            (Meaning::Submission, _) | (Meaning::Unreadable, State::Denied(_)) => Judgement::Refuse,
            (Meaning::Unreadable, State::Closed) => Judgement::Suspect,
            (Meaning::Unreadable, State::Held | State::LetGo) if again() => Judgement::Refuse,
            (Meaning::Unreadable, State::Held | State::LetGo) => Judgement::Pass,
        }
    }

    fn admit<'a>(&'a self, request: &'a HeldRequest) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            {
                let mut state = self.state();
                if !matches!(*state, State::Closed) {
                    return Err("a submission of this task has been let go already".to_owned());
                }
                *state = State::Held;
                *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.url.clone());
            }
            let wanted = &self.submission;
            let intent = json!({
                "kind": wanted.kind,
                "site": wanted.site,
                "page_url": wanted.page_url,
                "method": request.method,
                "url": without_values(&request.url),
                "fingerprint": wanted.fingerprint,
                "at": rfc3339(chrono::Utc::now()),
            });
            let asked = async {
                if fault::guard!("gate.intent") {
                    self.keeper.commit(intent).await?;
                }
                fault::point!("gate.intent_committed");
                if fault::guard!("gate.let_go") { self.keeper.let_go().await } else { Ok(()) }
            };
            match asked.await {
                Ok(()) => {
                    fault::point!("gate.let_go_marked");
                    *self.state() = State::LetGo;
                    Ok(())
                }
                Err(failure) => {
                    let why = failure.to_string();
                    *self.state() = State::Denied(failure);
                    Err(why)
                }
            }
        })
    }
}

/// The address without its query: what a form sends by GET is the payload, and stays out of the record.
fn without_values(url: &str) -> Value {
    url.split(['?', '#']).next().unwrap_or_default().into()
}

/// Same origin and path.
fn same_place(a: &str, b: &str) -> bool {
    without_values(a) == without_values(b)
}

/// Requests that carry what was typed but create nothing: counters of visits on other sites, and checks that say so.
fn is_aside(request: &HeldRequest, page_url: &str) -> bool {
    let (Ok(url), Ok(page)) = (url::Url::parse(&request.url), url::Url::parse(page_url)) else { return false };
    let beacon =
        matches!(request.resource_type.to_ascii_lowercase().as_str(), "ping" | "cspviolationreport" | "beacon");
    let foreign = url.host_str() != page.host_str();
    let checks = super::forms::split_identifier(url.path());
    let checks = [
        "validate",
        "validation",
        "check",
        "available",
        "availability",
        "spellcheck",
        "grammar",
        "autosave",
        "draft",
        "preview",
    ]
    .iter()
    .any(|word| checks.contains(&format!(" {word} ")));
    (beacon && foreign) || checks
}

/// Whether a request stays on the site of the page, subdomains included.
fn is_own(url: &str, page_url: &str) -> bool {
    let (Ok(url), Ok(page)) = (url::Url::parse(url), url::Url::parse(page_url)) else { return false };
    let host = |url: &url::Url| url.host_str().map(|host| host.trim_start_matches("www.").to_owned());
    let (Some(to), Some(from)) = (host(&url), host(&page)) else { return false };
    to == from || to.ends_with(&format!(".{from}")) || from.ends_with(&format!(".{to}"))
}

/// Whether a request counts visits or reports on the page, by how it is sent and by the words of its address.
fn counts_visits(request: &HeldRequest) -> bool {
    if matches!(request.resource_type.to_ascii_lowercase().as_str(), "ping" | "cspviolationreport" | "beacon") {
        return true;
    }
    let Ok(url) = url::Url::parse(&request.url) else { return false };
    let words = super::forms::split_identifier(url.path());
    [
        "analytics",
        "beacon",
        "collect",
        "count",
        "events",
        "heartbeat",
        "impression",
        "log",
        "logs",
        "matomo",
        "metrics",
        "ping",
        "piwik",
        "pixel",
        "rum",
        "stats",
        "telemetry",
        "track",
        "tracking",
    ]
    .iter()
    .any(|word| words.contains(&format!(" {word} ")))
}

/// Shortest run of letters and digits that is taken for something encoded.
const SHORTEST_CODE: usize = 40;

/// Whether a body is neither text nor an encoding of text.
fn is_unreadable(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return body.len() >= SHORTEST_CODE / 2 };
    let decoded = percent_decoded(&text.replace('+', "%2B"));
    let codes: Vec<&str> = codes(&decoded).filter(|code| code.len() >= SHORTEST_CODE).collect();
    let length: usize = codes.iter().map(|code| code.len()).sum();
    length * 2 >= decoded.len() && codes.iter().any(|code| text_in(code).is_none())
}

/// Runs of the characters of base64 and of hexadecimal numbers.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '-' | '_' | '=')))
}

/// The text that a run encodes, if it does.
fn text_in(code: &str) -> Option<String> {
    if code.len().is_multiple_of(2) && code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let pairs = code.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
        let bytes: Vec<u8> = pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
        return String::from_utf8(bytes).ok();
    }
    let bytes = BASE64.decode(code.replace('-', "+").replace('_', "/").trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok()
}

/// Base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request carries, decoded in every way that forms and scripts encode.
struct Carried {
    forms: Vec<String>,
}

impl Carried {
    fn of(request: &HeldRequest) -> Carried {
        let query =
            url::Url::parse(&request.url).ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default();
        let body = String::from_utf8_lossy(request.body.as_deref().unwrap_or_default());
        let raw = format!("{query}\n{body}");
        let decoded = percent_decoded(&raw);
        let unescaped = unescaped(&decoded);
        let exact = percent_decoded(&raw.replace('+', "%2B"));
        let coded: Vec<String> = codes(&exact).filter(|code| code.len() >= 12).filter_map(text_in).collect();
        let coded = coded.join("\n");
        let inner = self::unescaped(&coded);
        let forms = [raw, decoded, unescaped, coded, inner].iter().map(|text| squeezed(text)).collect();
        Carried { forms }
    }

    /// Whether every line of `value` is there: editors send each line in a paragraph of its own.
    fn has(&self, value: &str) -> bool {
        let lines: Vec<String> = value.lines().map(squeezed).filter(|line| !line.is_empty()).collect();
        !lines.is_empty() && self.forms.iter().any(|form| lines.iter().all(|line| form.contains(line.as_str())))
    }
}

/// Blanks of all kinds as one.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let source = text.as_bytes();
    let mut i = 0;
    while i < source.len() {
        let hex = (source[i] == b'%').then(|| source.get(i + 1..i + 3)).flatten();
        let hex =
            hex.and_then(|pair| std::str::from_utf8(pair).ok()).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (hex, source[i]) {
            (Some(byte), _) => {
                bytes.push(byte);
                i += 2;
            }
            (None, b'+') => bytes.push(b' '),
            (None, byte) => bytes.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Undoes the escapes of JSON strings and the entities of HTML, wherever they stand.
fn unescaped(text: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let mut push = |c: char| units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        if c != '\\' {
            push(c);
            continue;
        }
        match rest.next() {
            Some('n' | 'r' | 't') => push(' '),
            Some('u') => {
                let hex: String = rest.clone().take(4).collect();
                match u16::from_str_radix(&hex, 16) {
                    Ok(unit) if hex.len() == 4 => {
                        units.push(unit);
                        rest.nth(3);
                    }
                    _ => push('u'),
                }
            }
            Some(other) => push(other),
            None => push('\\'),
        }
    }
    let mut plain = String::from_utf16_lossy(&units);
    for (entity, c) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ] {
        plain = plain.replace(entity, c);
    }
    plain
}

#[cfg(test)]
mod tests;
