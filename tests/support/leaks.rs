//! Planted secrets, looked for in every encoding in which a page, a header, an error or a log may repeat them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not every test file uses everything; a test that cannot go on stops"
)]

use std::fmt::Write as _;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sqlx::{AssertSqlSafe, PgPool};

/// What must be nowhere, in all of its encodings.
pub struct Needles {
    names: Vec<String>,
    search: AhoCorasick,
}

impl Needles {
    /// Named secrets.
    pub fn of(secrets: &[(&str, &str)]) -> Needles {
        let all: Vec<(String, String)> = secrets
            .iter()
            .flat_map(|(name, secret)| {
                encodings(secret).into_iter().map(move |(how, encoded)| (format!("{name}, {how}"), encoded))
            })
            .collect();
        let (names, patterns): (Vec<String>, Vec<String>) = all.into_iter().unzip();
        let search = AhoCorasick::builder().ascii_case_insensitive(true).build(&patterns).unwrap();
        Needles { names, search }
    }

    /// Which of them are in these bytes.
    pub fn found(&self, bytes: &[u8]) -> Vec<String> {
        let context = |at: usize| {
            let (from, to) = (at.saturating_sub(120), (at + 60).min(bytes.len()));
            String::from_utf8_lossy(&bytes[from..to]).into_owned()
        };
        let found = self.search.find_iter(bytes);
        found
            .take(3)
            .map(|hit| format!("{}: …{}…", self.names[hit.pattern().as_usize()], context(hit.start())))
            .collect()
    }

    pub fn assert_absent(&self, bytes: &[u8], place: &str) {
        let found = self.found(bytes);
        assert!(found.is_empty(), "in {place}: {found:#?}");
    }
}

/// A text as pages, URLs, headers and errors repeat it, by the name of the way.
pub fn encodings(secret: &str) -> Vec<(&'static str, String)> {
    let each = |write: fn(&mut String, char)| {
        secret.chars().fold(String::new(), |mut all, character| {
            write(&mut all, character);
            all
        })
    };
    let percent_all: String = secret.bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "%{byte:02X}");
        all
    });
    let hex: String = secret.bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    });
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let json = serde_json::to_string(secret).unwrap();
    let json_ascii = each(|all, character| match character {
        ' '..='~' if !matches!(character, '"' | '\\' | '<' | '>' | '&' | '\'') => all.push(character),
        _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
            let _ = write!(all, "\\u{unit:04x}");
        }),
    });
    let mut all = vec![
        ("raw", secret.to_owned()),
        ("percent", url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>().replace('+', "%20")),
        ("form", url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()),
        ("percent, all of it", percent_all),
        ("html", html.clone()),
        ("html with apostrophes", html.replace('\'', "&#39;")),
        ("html, decimal", each(|all, character| write!(all, "&#{};", u32::from(character)).unwrap())),
        ("html, hexadecimal", each(|all, character| write!(all, "&#x{:x};", u32::from(character)).unwrap())),
        ("json", json.trim_matches('"').to_owned()),
        ("json, ascii", json_ascii),
        ("hex", hex),
    ];
    // Other signs than these have no zero byte beside them: what is left is no text that anybody writes.
    if secret.is_ascii() {
        all.push(("utf-16", each(|all, character| all.extend([character, '\0']))));
    }
    let utf16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut encoded = STANDARD_NO_PAD.encode(&utf16);
    encoded.truncate(encoded.len() - usize::from(!utf16.len().is_multiple_of(3)));
    all.push(("base64 of utf-16", encoded));
    for offset in 0..3 {
        let shifted = [vec![0; offset].as_slice(), secret.as_bytes()].concat();
        // What depends on the bytes around it is left out.
        let core = |text: String| text[[0, 2, 3][offset]..text.len() - usize::from(shifted.len() % 3 != 0)].to_owned();
        all.push(("base64", core(STANDARD_NO_PAD.encode(&shifted))));
        all.push(("base64 of URLs", core(URL_SAFE_NO_PAD.encode(&shifted))));
    }
    all
}

/// Every row of every table, as text, by table.
pub async fn dump(pool: &PgPool) -> Vec<(String, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut all = Vec::new();
    for table in tables {
        let rows = format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t");
        let rows: String = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(pool).await.unwrap();
        all.push((table, rows));
    }
    assert!(all.len() > 5, "{all:?}");
    all
}
