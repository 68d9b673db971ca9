//! Every page of `tests/pages/`, on real Chrome: what kind it is of, which field is what, and which button sends it.
//!
//! `PAGE=part-of-a-name cargo test --test understanding` looks at some of them.

// Helpers outside `#[test]` functions fail the test by panicking.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use pagehand::automation::StepLimits;
use pagehand::automation::forms::Role;
use pagehand::automation::inspect::{Inspection, inspect, role_name};
use pagehand::browser::{BrowserPool, BrowserSettings, EgressPolicy, Tab, TabOptions, ThirdParties};
use pagehand::commands::inspect::SavedPages;
use pagehand::site::Origins;
use serde_json::json;

/// Pages that are open at the same time.
const AT_ONCE: usize = 4;
/// Roles that need no line: nothing that a task brings goes there.
const UNSAID: [Role; 5] = [Role::Other, Role::Honeypot, Role::Consent, Role::NewsletterOptIn, Role::Captcha];

/// What the head of a page says.
struct Expected {
    name: String,
    file: PathBuf,
    kind: String,
    /// Selectors by role; `submit` is one.
    parts: Vec<(String, String)>,
}

fn read(file: PathBuf) -> Expected {
    let name = file.file_stem().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(&file).unwrap();
    let head = text.strip_prefix("<!--").and_then(|rest| rest.split_once("-->"));
    let (head, _) = head.unwrap_or_else(|| panic!("{name} has no head"));
    let mut lines: BTreeMap<&str, &str> =
        head.lines().skip(1).filter(|line| !line.is_empty()).map(|line| line.split_once(": ").unwrap()).collect();
    let kind = lines.remove("kind").unwrap_or_else(|| panic!("{name} does not say its kind")).to_owned();
    let parts = lines.into_iter().map(|(role, css)| (role.to_owned(), css.to_owned())).collect();
    Expected { name, file, kind, parts }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_understood_as_its_head_says() {
    let wanted = std::env::var("PAGE").unwrap_or_default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files: BTreeSet<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "html")).collect();
    let pages: Vec<Expected> = files.into_iter().map(read).filter(|page| page.name.contains(&wanted)).collect();
    assert!(!pages.is_empty(), "no page has `{wanted}` in its name");
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let browsers =
        BrowserPool::new(BrowserSettings { state_dir: state.path().join("chrome"), ..BrowserSettings::default() });
    let saved = SavedPages::serve().await.unwrap();
    let faults: Vec<String> = futures::stream::iter(&pages)
        .map(|page| check(&browsers, &saved, page))
        .buffer_unordered(AT_ONCE)
        .concat()
        .await;
    browsers.shutdown().await;
    assert!(faults.is_empty(), "{} faults on {} pages:\n{}", faults.len(), pages.len(), faults.join("\n"));
}

async fn check(browsers: &BrowserPool, saved: &SavedPages, page: &Expected) -> Vec<String> {
    let shown = saved.put(&page.file, std::fs::read(&page.file).unwrap());
    let mut private = Origins::default();
    private.insert_this_machine();
    let policy = EgressPolicy {
        enrolled: None,
        third_parties: ThirdParties::Assets,
        private: Arc::new(private),
        max_bytes: 1 << 26,
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let tab = browsers.open(TabOptions { user_agent: None, proxy: None, policy, deadline }).await.unwrap();
    let inspection = inspect(&tab, shown.url(), false, &StepLimits::default()).await.unwrap();
    let faults = compare(&tab, page, &inspection).await;
    tab.close().await;
    faults.into_iter().map(|fault| format!("{}: {fault}", page.name)).collect()
}

async fn compare(tab: &Tab, page: &Expected, inspection: &Inspection) -> Vec<String> {
    let mut faults = Vec::new();
    if inspection.kind != page.kind {
        faults.push(format!("it is {}, taken for {}", page.kind, inspection.kind));
    }
    let mut told: BTreeMap<usize, (Role, &str)> = BTreeMap::new();
    let mut sends = Vec::new();
    for found in &inspection.forms {
        for (role, field) in found.fields() {
            for place in places(tab, &field.selector).await {
                told.insert(place, (role, &field.label));
            }
        }
        if let Some(button) = &found.form.submit {
            sends.extend(places(tab, &button.selector).await);
        }
    }
    for (role, css) in &page.parts {
        let wanted = places(tab, css).await;
        if wanted.is_empty() {
            faults.push(format!("nothing is `{css}`"));
        }
        for place in wanted {
            if role == "submit" {
                if !sends.contains(&place) {
                    faults.push(format!("`{css}` sends it, not known"));
                }
                continue;
            }
            match told.remove(&place) {
                Some((other, label)) if role_name(other) != role => {
                    faults.push(format!("`{css}` (“{label}”) is {role}, taken for {}", role_name(other)));
                }
                Some(_) => {}
                None => faults.push(format!("`{css}` is {role}, not listed")),
            }
        }
    }
    let rest = told.into_values().filter(|(role, _)| !UNSAID.contains(role));
    faults.extend(rest.map(|(role, label)| format!("“{label}” is taken for {}, and no line says so", role_name(role))));
    faults
}

/// Places of what a selector finds, among all elements of the document.
async fn places(tab: &Tab, css: &str) -> Vec<usize> {
    const PLACES: &str = "(ph, css) => { const all = [...document.querySelectorAll('*')]; \
        return [...document.querySelectorAll(css)].map(el => all.indexOf(el)); }";
    tab.call(&tab.main_frame(), PLACES, &[json!(css)], Duration::from_secs(10)).await.unwrap()
}
