//! Reads the pages of `tests/fixtures/` and what must come of each. `tests/fixtures/README.md` says how they are written.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// One page, with the pages beside it and what must come of it.
#[derive(Debug)]
pub struct Fixture {
    /// `area/name`.
    pub name: String,
    /// `comment` or `registration`.
    pub task: String,
    /// The outcome, or the failure's reason and maybe its code.
    pub expect: Vec<String>,
    /// What the message or the evidence must contain.
    pub says: Vec<String>,
    /// Fields of the last submission: name and value.
    pub sent: Vec<(String, String)>,
    /// Fields that must be empty or missing in it.
    pub unsent: Vec<String>,
    /// How many submissions the site must have got.
    pub submissions: usize,
    /// Paths below `/clicked/` that must have been asked for.
    pub clicked: Vec<String>,
    /// Paths below `/clicked/` that must not.
    pub unclicked: Vec<String>,
    /// Steps that must have been taken.
    pub steps: Vec<String>,
    /// Whether the failure must be retryable.
    pub retryable: Option<bool>,
    /// Over the ordinary payload.
    pub payload: Option<Value>,
    /// Page by name; the first is `post` and is where the task goes.
    pub pages: Vec<Page>,
}

/// A page as it is answered.
#[derive(Debug)]
pub struct Page {
    pub name: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub html: String,
}

/// All fixtures below `directory`, sorted by name.
pub fn read_all(directory: &Path) -> Vec<Fixture> {
    let mut all = Vec::new();
    for area in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(&area).unwrap().map(|entry| entry.unwrap().path()) {
            let name = format!("{}/{}", stem(&area), stem(&file));
            all.push(read(&name, &std::fs::read_to_string(&file).unwrap()));
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

fn read(name: &str, source: &str) -> Fixture {
    let rest = source.strip_prefix("<!--\n").unwrap_or_else(|| panic!("{name}: no head"));
    let (head, body) = rest.split_once("-->\n").unwrap_or_else(|| panic!("{name}: the head does not end"));
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in head.lines().skip(1) {
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: `{line}`"));
        lines.entry(key).or_default().push(value.to_owned());
    }
    let mut take = |key: &str| lines.remove(key).unwrap_or_default();
    let expect: Vec<String> = take("expect").first().unwrap().split_whitespace().map(str::to_owned).collect();
    let succeeds = is_outcome(&expect[0]);
    let pair = |line: String| {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), value.to_owned())
    };
    let status = take("status").first().map_or(200, |status| status.parse().unwrap());
    let headers = take("header").into_iter().map(|line| line.split_once(": ").map(own).unwrap()).collect();
    let mut parts = body.split("<!-- page: ");
    let mut pages = vec![Page { name: "post".to_owned(), status, headers, html: parts.next().unwrap().to_owned() }];
    for part in parts {
        let (head, html) = part.split_once(" -->").unwrap();
        let mut words = head.split_whitespace();
        let name = words.next().unwrap().to_owned();
        let status = words.next().map_or(200, |status| status.parse().unwrap());
        pages.push(Page { name, status, headers: Vec::new(), html: html.to_owned() });
    }
    let fixture = Fixture {
        name: name.to_owned(),
        task: take("task").pop().unwrap_or_else(|| "comment".to_owned()),
        says: take("says"),
        sent: take("sent").into_iter().map(pair).collect(),
        unsent: take("unsent"),
        submissions: take("submissions").first().map_or(usize::from(succeeds), |count| count.parse().unwrap()),
        clicked: take("clicked"),
        unclicked: take("unclicked"),
        steps: take("step"),
        retryable: take("retryable").first().map(|value| value == "yes"),
        payload: take("payload").first().map(|value| serde_json::from_str(value).unwrap()),
        expect,
        pages,
    };
    assert!(lines.is_empty(), "{name}: unknown lines {:?}", lines.keys());
    fixture
}

/// Whether a word is the outcome of a success.
pub fn is_outcome(word: &str) -> bool {
    ["posted", "held_for_moderation", "registered", "needs_email_confirmation"].contains(&word)
}

fn own((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}
