//! What a mail holds that may confirm an address: links, the likeliest first, and a code. Pure: bytes in, findings out.
//!
//! A link is told by what is written on it and just before it, by its address, and by what it is not: an unsubscribe link,
//! a policy, a logo. A code is told by standing alone, or near a word that announces one. The words are in `words.toml`.

use std::cmp::Reverse;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use html5gum::Tokenizer;
use html5gum::emitters::default::{DefaultEmitter, Token};
use mail_parser::{MessageParser, PartType};
use regex::Regex;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use url::Url;

use super::Letter;

/// So much of a text or HTML part is read, characters.
const LONGEST_PART: usize = 300_000;
/// So many links of a part are looked at.
const MOST_LINKS: usize = 300;
/// Longest address that is taken for a link.
const LONGEST_URL: usize = 4096;
/// A link with fewer points confirms nothing.
const ENOUGH: i32 = 4;

/// What a mail holds that may confirm an address.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    /// Links that may confirm it, the likeliest first.
    pub links: Vec<Link>,
    /// A code to type.
    pub code: Option<String>,
}

/// A link that may confirm an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Where it leads; http or https.
    pub url: Url,
    /// How much speaks for it.
    pub score: i32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    confirm: Vec<String>,
    password: Vec<String>,
    code: Vec<String>,
    other: Vec<String>,
    url_confirm: Vec<String>,
    url_other: Vec<String>,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let mut words: Words = toml::from_str(include_str!("words.toml")).expect("the built-in words are valid TOML");
    for list in [&mut words.confirm, &mut words.password, &mut words.code, &mut words.other] {
        for word in list {
            *word = plain(word);
        }
    }
    words
});

fn pattern(regex: &str) -> Regex {
    Regex::new(regex).expect("the patterns of this file are constants, and the tests compile each")
}

static ADDRESS: LazyLock<Regex> = LazyLock::new(|| pattern(r#"https?://[^\s<>"]+"#));
/// A long run of letters and digits, as tokens have it.
static TOKEN: LazyLock<Regex> = LazyLock::new(|| pattern(r"[A-Za-z0-9_-]{16,}"));
/// What may be a code: digits, in one run or two; or capitals and digits.
static CODE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b(?:\d{3}[ -]\d{3}|\d{4,8}|[A-Z0-9]{3,4}-[A-Z0-9]{3,4}|[A-Z0-9]{5,8})\b"));

/// Reads a mail that came by IMAP.
pub(super) fn letter(raw: &[u8], received_at: DateTime<Utc>) -> Letter {
    let message = MessageParser::default().parse(raw);
    let message = message.as_ref();
    let from = message.and_then(|message| message.from()?.first()?.address()).unwrap_or_default();
    let subject = message.and_then(|message| message.subject()).unwrap_or_default();
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect();
    Letter { received_at, from: short(from), subject: short(subject), content: read(raw) }
}

/// Finds what confirms an address in a mail, as it was sent. What is no mail holds nothing.
pub fn read(raw: &[u8]) -> Content {
    let Some(message) = MessageParser::default().parse(raw) else { return Content::default() };
    let mut links: Vec<Link> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    // The plain part comes first: in HTML a code may be drawn digit by digit.
    for part in &message.parts {
        match &part.body {
            PartType::Text(text) => {
                let text = cut(text);
                links.extend(links_of_text(text));
                texts.push(text.to_owned());
            }
            PartType::Html(html) => {
                let (found, text) = links_of_html(cut(html));
                links.extend(found);
                texts.push(text);
            }
            _ => {}
        }
    }
    links.retain(|link| link.score >= ENOUGH);
    links.sort_by_key(|link| Reverse(link.score));
    let mut kept: Vec<Link> = Vec::new();
    for link in links {
        if !kept.iter().any(|other| other.url == link.url) {
            kept.push(link);
        }
    }
    kept.truncate(10);
    let subject = message.subject().unwrap_or_default().to_owned();
    let code = texts.iter().chain([&subject]).find_map(|text| code_of(text, &subject));
    Content { links: kept, code }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(LONGEST_PART).map_or(text, |(end, _)| &text[..end])
}

/// Lower case without accents, blanks of all kinds as one.
fn plain(text: &str) -> String {
    let bare = text.nfkd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).flat_map(char::to_lowercase);
    let bare: String = bare.collect();
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn says(text: &str, words: &[String]) -> bool {
    words.iter().any(|word| text.contains(word.as_str()))
}

fn links_of_text(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let mut end_of_last = 0;
    for found in ADDRESS.find_iter(text).take(MOST_LINKS) {
        let address =
            found.as_str().trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '}', '\'', '*', '。', '」']);
        // What stands between two links announces the second.
        let before = &text[end_of_last.min(found.start())..found.start()];
        let before: String = last_chars(before, 220);
        end_of_last = found.end();
        links.extend(judged(address, "", &before));
    }
    links
}

/// A link of an HTML part, as far as it has been read.
struct Anchor {
    href: String,
    label: String,
    /// The text of its picture.
    alt: String,
    before: String,
}

/// The links of an HTML part, and its text as a person sees it, a line a block.
fn links_of_html(html: &str) -> (Vec<Link>, String) {
    const BLOCKS: [&[u8]; 14] =
        [b"p", b"div", b"td", b"th", b"tr", b"table", b"br", b"li", b"h1", b"h2", b"h3", b"h4", b"pre", b"center"];
    const UNSEEN: [&[u8]; 3] = [b"style", b"script", b"title"];
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut text = String::new();
    let mut links = Vec::new();
    let mut anchor: Option<Anchor> = None;
    let mut end_of_last = 0;
    let mut unseen = false;
    for token in Tokenizer::new_with_emitter(html, emitter).flatten() {
        match token {
            Token::StartTag(tag) => {
                let name: &[u8] = &tag.name;
                let attribute = |name: &[u8]| {
                    tag.attributes.get(name).map(|value| String::from_utf8_lossy(value).trim().to_owned())
                };
                if BLOCKS.contains(&name) {
                    text.push('\n');
                }
                unseen |= UNSEEN.contains(&name);
                match (name, &mut anchor) {
                    (b"a", _) => {
                        links.extend(anchor.take().and_then(Anchor::judged));
                        if links.len() < MOST_LINKS
                            && let Some(href) = attribute(b"href")
                        {
                            let before = last_chars(&text[end_of_last..], 220);
                            anchor = Some(Anchor { href, label: String::new(), alt: String::new(), before });
                        }
                    }
                    (b"img", Some(anchor)) => anchor.alt.extend(attribute(b"alt")),
                    _ => {}
                }
            }
            Token::EndTag(tag) => {
                let name: &[u8] = &tag.name;
                if BLOCKS.contains(&name) {
                    text.push('\n');
                }
                unseen &= !UNSEEN.contains(&name);
                if name == b"a"
                    && let Some(done) = anchor.take()
                {
                    links.extend(done.judged());
                    end_of_last = text.len();
                }
            }
            Token::String(words) if !unseen => {
                let words = String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ");
                for to in [Some(&mut text), anchor.as_mut().map(|anchor| &mut anchor.label)].into_iter().flatten() {
                    to.push_str(&words);
                    to.push(' ');
                }
            }
            _ => {}
        }
    }
    links.extend(anchor.and_then(Anchor::judged));
    (links, text)
}

impl Anchor {
    fn judged(self) -> Option<Link> {
        let label = if self.label.trim().is_empty() { &self.alt } else { &self.label };
        judged(&self.href, label, &self.before)
    }
}

/// A link with its points; None for what is no link into the web.
fn judged(address: &str, label: &str, around: &str) -> Option<Link> {
    if address.len() > LONGEST_URL {
        return None;
    }
    let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let words = &*WORDS;
    let (label, around) = (plain(label), plain(around));
    let lower = url.as_str().to_lowercase();
    let path = url.path().to_lowercase();
    let mut score = 0;
    if says(&label, &words.confirm) || says(&label, &words.password) {
        score += 4;
    }
    if says(&label, &words.other) {
        score -= 8;
    }
    if says(&around, &words.confirm) || says(&around, &words.password) {
        score += 2;
    }
    // Beside a button there may be a sentence for those who did not ask for the mail.
    if label.is_empty()
        && says(&around, &words.other)
        && !says(&around, &words.confirm)
        && !says(&around, &words.password)
    {
        score -= 4;
    }
    if words.url_confirm.iter().any(|word| lower.contains(word.as_str())) {
        score += 2;
    }
    if words.url_other.iter().any(|word| lower.contains(word.as_str())) {
        score -= 6;
    }
    let query = url.query().unwrap_or_default();
    let fragment = url.fragment().unwrap_or_default();
    let token = |text: &str| TOKEN.find_iter(text).any(|run| run.as_str().bytes().any(|byte| byte.is_ascii_digit()));
    if token(query) || token(url.path()) || token(fragment) {
        score += 2;
    } else if url.query_pairs().any(|(_, value)| value.len() >= 6 && value.bytes().any(|byte| byte.is_ascii_digit())) {
        score += 1;
    }
    if path == "/" && query.is_empty() && fragment.is_empty() {
        score -= 6;
    }
    if [".png", ".jpg", ".jpeg", ".gif", ".svg", ".css", ".pdf"].iter().any(|end| path.ends_with(end)) {
        score -= 6;
    }
    Some(Link { url, score })
}

/// The code that a text announces.
fn code_of(text: &str, subject: &str) -> Option<String> {
    let words = &*WORDS;
    // An address is full of digits that mean nothing.
    let text = ADDRESS.replace_all(text, " ");
    let announced = says(&plain(subject), &words.code) || says(&plain(&text), &words.code);
    if !announced {
        return None;
    }
    let mut best: Option<(i32, String)> = None;
    for found in CODE.find_iter(&text).take(400) {
        let raw = found.as_str();
        let code: String = raw.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
        let digits = code.chars().filter(char::is_ascii_digit).count();
        if digits == 0 || (digits < code.len() && digits * 4 < code.len()) {
            continue;
        }
        let before = last_chars(&text[..found.start()], 80);
        let after: String = text[found.end()..].chars().take(40).collect();
        let line_before = before.rsplit('\n').next().unwrap_or_default().trim();
        let line_after = after.split('\n').next().unwrap_or_default().trim();
        let mut score = 0;
        if says(&plain(&before), &words.code) {
            score += 4;
        }
        if says(&plain(line_after), &words.code) {
            score += 2;
        }
        if line_before.is_empty() && line_after.is_empty() {
            score += 4;
        }
        if digits == code.len() && code.len() == 6 {
            score += 2;
        }
        let year = digits == 4 && (code.starts_with("19") || code.starts_with("20"));
        let part_of_more =
            line_before.ends_with(['+', '#', '/', '.', '@', '$', '€', '©']) || line_after.starts_with(['/', '@', '%']);
        if year || part_of_more {
            score -= 4;
        }
        // As it is to be typed: a form that wants the dash has it in its code.
        let typed = if digits == code.len() { code } else { raw.to_owned() };
        if score >= 4 && best.as_ref().is_none_or(|(most, _)| score > *most) {
            best = Some((score, typed));
        }
    }
    best.map(|(_, code)| code)
}

fn last_chars(text: &str, count: usize) -> String {
    let skip = text.chars().count().saturating_sub(count);
    text.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests;
