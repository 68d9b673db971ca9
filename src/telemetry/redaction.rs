//! Secrets are taken out here and nowhere else: every text passes through [`Redactor`] before it is written to a file,
//! and the worker passes through it what goes into rows and logs.
//!
//! Two kinds are taken out. What is *known* to be secret (the account's password, the proxy's) is found in any mixture
//! of the ways in which a page, a URL or an error repeats it: as it is, percent-encoded once or twice, as HTML or JSON
//! escapes, as UTF-16, in base64 at any offset, in hex. What only *looks* secret (user info and token-like parameters
//! of URLs, credentials in headers) is found by its surroundings. The first kind is exact. The second takes rather too
//! much: an evidence file that says `***` once too often is still evidence.
//!
//! A secret of fewer than four characters is only taken out where it is a whole value: as part of longer texts it
//! would be found everywhere, and its places would tell it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::{Captures, Regex, RegexBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::fault;

const MASK: &str = "***";
/// Shorter ones are only masked as whole values.
const SHORT: usize = 4;
/// Compiled size that a set of secrets may have, bytes: a password of 256 characters takes about 2 MB.
const COMPILED_LIMIT: usize = 256 << 20;

/// Takes known secrets, and what looks like one, out of texts. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Matches any secret in any form.
    known: Option<Arc<Regex>>,
    /// Matches a short secret between the marks of a value; what stands before and after it are groups 1 and 2.
    short: Option<Arc<Regex>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor(***)")
    }
}

impl Redactor {
    /// A redactor that knows `secrets`, beside the patterns that every redactor knows. Empty secrets are ignored.
    pub fn new(secrets: &[SecretString]) -> Redactor {
        let mut secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose_secret()).collect();
        secrets.retain(|secret| !secret.trim().is_empty());
        // Where one begins with another, the longer must be tried first.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let (short, long): (Vec<&str>, Vec<&str>) =
            secrets.into_iter().partition(|secret| secret.chars().count() < SHORT);

        let known: Vec<String> = long.iter().flat_map(|secret| encodings(secret)).collect();
        let short: Vec<String> = short.iter().map(|secret| mixed_pattern(secret)).collect();
        let whole_value = format!(r#"(["'=>]|^)(?:{})(["'&<]|$)"#, short.join("|"));
        Redactor {
            known: (!known.is_empty()).then(|| Arc::new(compile(&known.join("|")))),
            short: (!short.is_empty()).then(|| Arc::new(compile(&whole_value))),
        }
    }

    /// `text` with `***` in place of every secret.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !fault::guard!("redact") {
            return Cow::Borrowed(text);
        }
        let mut text = self.known(text);
        replace(&mut text, &USER_INFO, |found| format!("{}{MASK}@", &found[1]));
        replace(&mut text, &PARAMETER, |found| format!("{}{MASK}", &found[1]));
        replace(&mut text, &HEADER, |found| format!("{}{MASK}", &found[1]));
        replace(&mut text, &CREDENTIALS, |found| match is_prose(&found[2]) {
            true => found[0].to_owned(),
            false => format!("{} {MASK}", &found[1]),
        });
        text
    }

    /// `text` with `***` in place of what is known to be secret, and nothing else changed.
    pub fn known<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if let Some(known) = &self.known {
            replace(&mut text, known, |_| MASK.to_owned());
        }
        if let Some(short) = &self.short {
            replace(&mut text, short, |found| format!("{}{MASK}{}", &found[1], &found[2]));
        }
        text
    }

    /// `value` with every text in it redacted, keys too; and `***` for a text whose key says that it is secret.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text).into_owned()),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => Value::Object(self.fields(fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// An object as [`Redactor::value`] returns it.
    pub fn fields(&self, fields: &Map<String, Value>) -> Map<String, Value> {
        let field = |(key, value): (&String, &Value)| {
            let value = match value {
                Value::String(text) if !text.is_empty() && SECRET_KEY.is_match(key) => MASK.into(),
                value => self.value(value),
            };
            (self.text(key).into_owned(), value)
        };
        fields.iter().map(field).collect()
    }
}

/// An address without user info and without what its parameters say that is secret.
pub fn shown_url(url: &str) -> Cow<'_, str> {
    Redactor::default().text(url)
}

fn replace(text: &mut Cow<'_, str>, pattern: &Regex, with: impl Fn(&Captures<'_>) -> String) {
    if let Cow::Owned(changed) = pattern.replace_all(text, with) {
        *text = Cow::Owned(changed);
    }
}

fn compile(pattern: &str) -> Regex {
    let built = RegexBuilder::new(pattern).size_limit(COMPILED_LIMIT).dfa_size_limit(8 << 20).build();
    // Every character is escaped, so only the size can be refused; and then a record without any text is better than
    // one with secrets.
    built.unwrap_or_else(|_| constant("(?s)()().+"))
}

fn constant(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the patterns of this file are constants, and the tests compile each")
}

/// `user:password@` of a URL, up to the last `@` before the path: a password may hold one itself.
static USER_INFO: LazyLock<Regex> =
    LazyLock::new(|| constant(r#"([a-zA-Z][a-zA-Z0-9+.-]*:(?:\\?/){2})[^\s/?#"'<>\\]+@"#));

/// A parameter of a query or fragment whose name says that it is secret, also inside an encoded URL.
static PARAMETER: LazyLock<Regex> = LazyLock::new(|| {
    constant(concat!(
        r"(?i)((?:[?&#;]|&amp;|%3[bf]|%26|%23|\\u0026)",
        r"(?:[a-z0-9_.-]*(?:token|secret|password|passwd|signature|jwt|sess(?:ion)?[_-]?id)",
        r"|(?:[a-z0-9_.-]*[_.-])?(?:(?:api|access|private)?[_-]?key|pwd|pass|auth|authorization|sig|otp|code",
        r"|sid|session))",
        r#"(?:=|%3d))[^&#\s"'<>\\]+"#
    ))
});

/// A header that carries credentials, up to the end of its line or text.
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    constant(concat!(
        r"(?i)(\b(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token)",
        r#"\\*["']?\s*[:=]\s*\\*["']?)[^\r\n"'<\\]+"#
    ))
});

/// The value of an `Authorization` header without its name.
static CREDENTIALS: LazyLock<Regex> = LazyLock::new(|| constant(r"(?i)\b(basic|bearer)\s+([a-z0-9+/_.~=-]{8,})"));

/// A key of an object whose text is secret whatever it looks like.
static SECRET_KEY: LazyLock<Regex> = LazyLock::new(|| {
    constant(concat!(
        r"(?i)^(?:[a-z0-9_.-]*[_.-])?(?:password|passwd|pwd|passphrase|secret|(?:access|refresh|id)?[_-]?token",
        r"|(?:api|private)[_-]?key|authorization|(?:set-)?cookie|credentials?|jwt)(?:[_-]?confirm(?:ation)?)?$"
    ))
});

/// Patterns that together match `secret` in every encoding.
fn encodings(secret: &str) -> Vec<String> {
    let utf16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16_big: Vec<u8> = secret.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let hex: String = secret.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let mut patterns = vec![mixed_pattern(secret), format!("(?i:{hex})")];
    for bytes in [secret.as_bytes(), &utf16, &utf16_big] {
        patterns.extend(base64_patterns(bytes));
    }
    patterns
}

/// Matches `secret` with each character written in any of the usual ways, independently of the others, and with or
/// without the zero bytes of UTF-16 between them.
fn mixed_pattern(secret: &str) -> String {
    let mut pattern = String::new();
    for character in secret.chars() {
        // The character as it is comes last: what is left of a longer way would tell something.
        let mut ways: Vec<String> = named_ways(character).iter().map(|way| (*way).to_owned()).collect();
        let mut percent = String::new();
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            let _ = write!(percent, "%(?:25)?{byte:02x}");
        }
        ways.push(format!("(?i:{percent})"));
        let code = u32::from(character);
        ways.push(format!("&#0*{code};|(?i:&#x0*{code:x};)"));
        let mut units = String::new();
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(units, r"\\+u{unit:04x}");
        }
        ways.push(format!("(?i:{units})"));
        ways.push(regex::escape(character.encode_utf8(&mut [0; 4])));
        let _ = write!(pattern, r"(?:{})\x00?", ways.join("|"));
    }
    pattern
}

/// Patterns for the escapes of `character` that have names of their own.
fn named_ways(character: char) -> &'static [&'static str] {
    match character {
        ' ' => &[r"\+", "&nbsp;"],
        '&' => &["&amp;(?:amp;)?", "%26amp%3[bB]"],
        '<' => &["&(?:amp;)?lt;"],
        '>' => &["&(?:amp;)?gt;"],
        '"' => &["&(?:amp;)?quot;", r#"\\+""#],
        '\'' => &["&(?:amp;)?apos;", r"\\+'"],
        '/' => &[r"\\+/"],
        '\\' => &[r"\\\\+"],
        '\n' => &[r"\\+n", "\r\n", "%0[dD]%0[aA]"],
        '\r' => &[r"\\+r"],
        '\t' => &[r"\\+t"],
        '\u{a0}' => &["&nbsp;"],
        _ => &[],
    }
}

/// Matches the base64 of any bytes that contain `bytes`, in both alphabets: for each of the three offsets that a
/// group of three bytes has, the characters that depend on `bytes`.
fn base64_patterns(bytes: &[u8]) -> Vec<String> {
    let mut patterns = Vec::new();
    for offset in 0..3 {
        let mut shifted = vec![0; offset];
        shifted.extend_from_slice(bytes);
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            // The first and last characters may also hold bits of what stands around the secret: any will do there.
            let head = [0, 2, 3][offset];
            let tail = usize::from(shifted.len() % 3 != 0);
            let core = &encoded[head..encoded.len() - tail];
            if core.len() >= SHORT {
                let core = core.replace('+', r"(?:\+|%2[bB])").replace('/', r"(?:\\?/|%2[fF])");
                let before = if offset == 0 { "" } else { "[A-Za-z0-9+/_-]?" };
                let after = if tail == 0 { "" } else { "[A-Za-z0-9+/_-]?(?:=|%3[dD]){0,2}" };
                patterns.push(format!("{before}{core}{after}"));
            }
        }
    }
    patterns.dedup();
    patterns
}

/// Whether what follows `Basic` or `Bearer` is a word, as in "basic authentication required".
fn is_prose(word: &str) -> bool {
    word.chars().skip(1).all(|character| character.is_ascii_lowercase() || character == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = r#"Kanarie+77 &"<ü>'/\"#;

    fn redactor(secret: &str) -> Redactor {
        Redactor::new(&[SecretString::from(secret)])
    }

    fn percent(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    #[test]
    fn a_known_secret_is_found_in_every_encoding() {
        let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let html = SECRET.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let json = serde_json::to_string(SECRET).unwrap();
        let json = json.trim_matches('"').to_owned();
        let utf16: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let forms = [
            ("raw", SECRET.to_owned()),
            ("percent", percent(SECRET)),
            ("percent, lower case", percent(SECRET).to_lowercase()),
            ("percent, twice", percent(SECRET).replace('%', "%25")),
            ("form", form),
            ("html text", html.clone()),
            ("html attribute", html.replace('"', "&quot;").replace('\'', "&#39;")),
            ("html, hex", html.replace('"', "&#x22;").replace('\'', "&#x27;")),
            ("html, twice", html.replace('&', "&amp;")),
            ("json", json.clone()),
            ("json, ascii only", json.replace('ü', "\\u00fc").replace('&', "\\u0026").replace('<', "\\u003C")),
            ("json, slashes", json.replace('/', "\\/")),
            ("json in json", json.replace('\\', "\\\\").replace('"', "\\\"")),
            ("hex", SECRET.bytes().map(|byte| format!("{byte:02X}")).collect()),
            ("utf-16 read as bytes", SECRET.replace('ü', "u").chars().flat_map(|c| [c, '\0']).collect()),
            ("base64 of utf-16", STANDARD_NO_PAD.encode(utf16)),
        ];
        for (name, form) in forms {
            let secret = if name == "utf-16 read as bytes" { SECRET.replace('ü', "u") } else { SECRET.to_owned() };
            let text = format!("before {form} after");
            let clean = redactor(&secret).text(&text).into_owned();
            assert!(clean.starts_with("before ***") && clean.ends_with(" after"), "{name}: {clean}");
            assert!(clean.len() <= "before *** after".len() + 2, "{name}: {clean}");
        }
    }

    #[test]
    fn a_known_secret_is_found_inside_longer_base64_at_every_offset() {
        for before in ["", "u", "us", "user:"] {
            for after in ["", "x", "xy", ":next"] {
                let text = format!("{before}correct horse~battery{after}");
                for encoded in [
                    STANDARD_NO_PAD.encode(&text),
                    URL_SAFE_NO_PAD.encode(&text),
                    base64::engine::general_purpose::STANDARD.encode(&text),
                ] {
                    let clean = redactor("correct horse~battery").text(&encoded).into_owned();
                    assert!(clean.contains("***") && clean.len() < 20, "{text}: {clean}");
                }
            }
        }
    }

    #[test]
    fn a_short_secret_is_only_masked_as_a_whole_value() {
        let redactor = redactor("ab");
        assert_eq!(redactor.text("ab"), "***");
        assert_eq!(redactor.text(r#"<input value="ab"> about"#), r#"<input value="***"> about"#);
        assert_eq!(redactor.text("/?x=ab&y=abc"), "/?x=***&y=abc");
        assert_eq!(redactor.value(&serde_json::json!({"x": "ab", "y": "cab ab"}))["x"], "***");
    }

    #[test]
    fn an_empty_secret_masks_nothing() {
        assert_eq!(redactor("").text("as it was"), "as it was");
        assert_eq!(redactor("  ").text("as  it was"), "as  it was");
    }

    #[test]
    fn of_two_secrets_where_one_begins_with_the_other_no_rest_is_left() {
        let redactor = Redactor::new(&["hunter".into(), "hunter2hunter".into()]);
        assert_eq!(redactor.text("hunter2hunter hunter"), "*** ***");
    }

    #[test]
    fn credentials_in_urls_and_headers_are_masked_without_being_known() {
        let cases = [
            ("see https://ann:s3c@ret@example.org/a?b=c", "see https://***@example.org/a?b=c"),
            ("socks5://u:p@10.0.0.1:1080", "socks5://***@10.0.0.1:1080"),
            (r"https:\/\/ann:pw@example.org", r"https:\/\/***@example.org"),
            ("https://a/?x=1&token=abc&y=2", "https://a/?x=1&token=***&y=2"),
            ("https://a/#access_token=abc", "https://a/#access_token=***"),
            ("<a href=\"/r?id=1&amp;key=abc\">", "<a href=\"/r?id=1&amp;key=***\">"),
            ("/login?to=https%3A%2F%2Fb%2F%3Fapi_key%3Dabc", "/login?to=https%3A%2F%2Fb%2F%3Fapi_key%3D***"),
            ("Authorization: Digest username=\"x\"", "Authorization: ***\"x\""),
            ("cookie: a=b; c=d\nhost: x", "cookie: ***\nhost: x"),
            (r#"{"Set-Cookie":"sid=1; Path=/"}"#, r#"{"Set-Cookie":"***"}"#),
            ("got Bearer eyJhbGciOi.J9", "got Bearer ***"),
            ("Basic dXNlcjpwYXNz", "Basic ***"),
        ];
        for (text, clean) in cases {
            assert_eq!(Redactor::default().text(text), clean);
        }
        for innocent in [
            "basic authentication required",
            "https://example.org/@ann/post?monkey=1&page=2#top",
            "mail ann@example.org about https://example.org",
            "the keyword=value pair",
        ] {
            assert_eq!(Redactor::default().text(innocent), innocent);
        }
    }

    #[test]
    fn a_text_under_a_key_that_says_it_is_secret_is_masked_and_a_number_is_not() {
        let value =
            serde_json::json!({"password": "x y", "tokens": 12, "proxy-authorization": "z", "a": [{"api_key": "k"}]});
        let clean = serde_json::json!({"password": "***", "tokens": 12, "proxy-authorization": "***", "a": [{"api_key": "***"}]});
        assert_eq!(Redactor::default().value(&value), clean);
    }

    #[test]
    fn the_longest_password_compiles() {
        let secret: String = "pä\"/".chars().cycle().take(200).collect();
        assert_eq!(redactor(&secret).text(&format!("x{secret}y")), "x***y");
    }

    proptest::proptest! {
        #[test]
        fn no_secret_survives_in_any_text(before in ".{0,20}", secret in "[ -~äß€😀]{4,20}", after in ".{0,20}") {
            proptest::prop_assume!(!secret.trim().is_empty());
            let clean = redactor(&secret).text(&format!("{before}{secret}{after}")).into_owned();
            // A secret of asterisks can't be told from its mask.
            proptest::prop_assert!(!clean.contains(&secret) || secret.contains("***"));
        }
    }
}
