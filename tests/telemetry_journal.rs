//! Outcomes that wait for Postgres beside the runs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use pagehand::task::Fence;
use serde_json::json;

#[path = "support/runs.rs"]
mod support;

use support::{names, runs};

#[test]
fn what_is_kept_stays_until_it_is_forgotten_also_for_other_processes() {
    let runs = runs();
    let journal = runs.dir.journal();
    assert!(journal.entries().unwrap().is_empty());
    journal.keep(Fence(7), "0123456789abcdef0123", &json!({"n": 1})).unwrap();
    journal.keep(Fence(8), "0123456789abcdef0123", &json!({"n": 2})).unwrap();
    // The same again takes the place of the first.
    journal.keep(Fence(8), "0123456789abcdef0123", &json!({"n": 3})).unwrap();
    let place = runs.dir.root().join(".outcomes");
    assert_eq!(names(&place), ["7-0123456789abcdef.json", "8-0123456789abcdef.json"]);
    let mode = fs::metadata(place.join("7-0123456789abcdef.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");

    let other = pagehand::telemetry::RunsDir::open(runs.dir.root()).unwrap().journal();
    let kept = other.entries().unwrap();
    assert_eq!(kept.iter().map(|one| one.entry["n"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    other.forget(&kept[0]).unwrap();
    journal.forget(&kept[0]).unwrap();
    assert_eq!(journal.entries().unwrap().len(), 1);
}

#[test]
fn a_damaged_entry_is_put_aside_and_harms_no_other() {
    let runs = runs();
    let journal = runs.dir.journal();
    journal.keep(Fence(1), "a", &json!({})).unwrap();
    let place = runs.dir.root().join(".outcomes");
    fs::write(place.join("2-a.json"), "{\"half").unwrap();
    assert_eq!(journal.entries().unwrap().len(), 1);
    assert_eq!(names(&place), ["1-a.json", "2-a.json.damaged"]);
}

#[test]
fn a_full_journal_takes_no_more() {
    let runs = runs();
    let journal = runs.dir.journal();
    journal.keep(Fence(1), "a", &json!({})).unwrap();
    assert!(!journal.is_full().unwrap());
    let place = runs.dir.root().join(".outcomes");
    for n in 2..=4_096 {
        fs::write(place.join(format!("{n}-a.json")), "{}").unwrap();
    }
    assert!(journal.is_full().unwrap());
    let refused = journal.keep(Fence(9_999), "a", &json!({})).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::QuotaExceeded);
}
