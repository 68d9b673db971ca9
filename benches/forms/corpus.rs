//! Reads a labelled corpus, and hides names.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use pagehand::automation::forms::Role;
use regex::bytes::{Captures, Regex};
use serde::Deserialize;

/// All pages, in the order of the manifest.
pub struct Corpus {
    pub pages: Vec<Page>,
}

/// A page and what it has.
pub struct Page {
    pub name: String,
    pub file: PathBuf,
    /// None where nobody says.
    pub kind: Option<String>,
    /// Label and place.
    pub fields: Vec<(String, usize)>,
    pub submit: Vec<usize>,
    /// What nobody fills.
    pub not_fields: Vec<usize>,
}

#[derive(Deserialize)]
struct Line {
    page: String,
    kind: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, Vec<usize>>,
    #[serde(default)]
    submit: Vec<usize>,
    #[serde(default)]
    not_fields: Vec<usize>,
}

impl Corpus {
    /// # Errors
    /// There is no manifest, or a line of it is not as it should be.
    pub fn read(dir: &Path) -> Result<Corpus> {
        let manifest = dir.join("manifest.jsonl");
        let text = fs::read_to_string(&manifest).with_context(|| format!("can't read {}", manifest.display()))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let pages = lines.map(|(number, line)| {
            let line: Line =
                serde_json::from_str(line).with_context(|| format!("{} line {}", manifest.display(), number + 1))?;
            let fields = line.fields.into_iter();
            Ok(Page {
                file: dir.join("data").join(&line.page),
                name: line.page,
                kind: line.kind,
                fields: fields.flat_map(|(label, at)| at.into_iter().map(move |at| (label.clone(), at))).collect(),
                submit: line.submit,
                not_fields: line.not_fields,
            })
        });
        Ok(Corpus { pages: pages.collect::<Result<_>>()? })
    }
}

impl Page {
    /// The saved page; with `hide` each name and id is another, and what refers to one refers to it still.
    ///
    /// # Errors
    /// It can't be read.
    pub fn content(&self, hide: bool) -> Result<Vec<u8>> {
        let content = fs::read(&self.file).with_context(|| format!("can't read {}", self.file.display()))?;
        Ok(if hide { hide_names(&content) } else { content })
    }
}

/// Which of our roles a label may be called. What is of no use to us may go without one.
pub fn accepted(label: &str) -> Vec<Role> {
    let own = |name: &str| serde_json::from_value::<Role>(name.into()).ok();
    match label {
        "name" => vec![Role::Author],
        "url" => vec![Role::Website],
        "login" => vec![Role::Username, Role::Email],
        "otp" => vec![Role::OneTimeCode],
        "email" => vec![Role::Email, Role::EmailConfirm],
        "password" => vec![Role::Password, Role::PasswordConfirm],
        "addressCountryCode" => vec![Role::Country, Role::Address, Role::Other],
        "addressPostalCode" => vec![Role::PostalCode, Role::Address, Role::Other],
        _ if label.starts_with("birthday") => vec![Role::Birthdate],
        _ if ["address", "card", "expiration"].iter().any(|start| label.starts_with(start)) => {
            vec![Role::Address, Role::Other]
        }
        _ => vec![own(label).unwrap_or(Role::Other)],
    }
}

fn hide_names(html: &[u8]) -> Vec<u8> {
    static TAG: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?s)<[a-zA-Z][^<>]*>"#).expect("valid"));
    static NAME: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?i)(\s(?:name|id|for|form|list|aria-labelledby|aria-describedby|aria-controls)\s*=\s*)("[^"]*"|'[^']*'|[^\s"'>]+)"#)
            .expect("valid")
    });
    let mut given: HashMap<Vec<u8>, String> = HashMap::new();
    TAG.replace_all(html, |tag: &Captures| {
        if tag[0].get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"<meta")) {
            return tag[0].to_vec();
        }
        NAME.replace_all(&tag[0], |found: &Captures| {
            let value = found[2].to_vec();
            let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(&value);
            let value = value.strip_suffix(b"\"").or(value.strip_suffix(b"'")).unwrap_or(value);
            let words: Vec<String> = value
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty())
                .map(|word| {
                    given.entry(word.to_vec()).or_insert_with(|| format!("x{:08x}", rand::random::<u32>())).clone()
                })
                .collect();
            [&found[1], b"\"", words.join(" ").as_bytes(), b"\""].concat()
        })
        .into_owned()
    })
    .into_owned()
}
