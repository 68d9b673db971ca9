//! What is shipped for watching names only metrics that there are.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn rules_and_dashboards_name_only_metrics_that_there_are() {
    let made: BTreeSet<String> = ["src/web/metrics.rs", "src/worker/metrics.rs"]
        .iter()
        .flat_map(|file| names(&fs::read_to_string(root().join(file)).unwrap()))
        .collect();
    assert!(made.len() > 20, "{made:?}");
    let mut used = 0;
    for file in files(&root().join("ops")) {
        let text = fs::read_to_string(&file).unwrap();
        if file.extension().is_some_and(|extension| extension == "json") {
            let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(dashboard["uid"].as_str().is_some_and(|uid| uid.starts_with("pagehand-")), "{}", file.display());
        }
        for name in names(&text) {
            let plain = ["_total", "_seconds_bucket", "_seconds"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            assert!(made.contains(plain) || made.contains(&name), "{}: {name}", file.display());
            used += 1;
        }
    }
    assert!(used > 20, "{used}");
}

/// Words that begin with `pagehand_`.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("pagehand_") && !word.ends_with("_token")).map(str::to_owned).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
