//! `console_{TIMESTAMP}.json` and `network_{TIMESTAMP}.json`: what the page said and asked for during an attempt, without
//! secrets. Each attempt has its own, under its own stamp; what is empty has no file.

use std::io;

use super::Run;
use super::bounds::clean_text;
use super::run::{Attempt, json_file};
use super::snapshot::{Saved, give_name, stamp};
use crate::record::PageLog;

/// How the names of its two files begin, which are also their kinds.
pub(super) const KINDS: [&str; 2] = ["console", "network"];

/// Keeps the page's log for the report and writes its files, without waiting for the disk; `finalize_run` does then.
pub fn save_page_log(run: &Run, log: PageLog) {
    let stamp = stamp(run);
    let attempt = run.0.clone();
    let writing = tokio::spawn(async move {
        let job = attempt.clone();
        attempt.blocking("network", move || save(&job, stamp, log)).await;
    });
    run.0.with_state(|state| state.pending.push(writing));
}

fn save(attempt: &Attempt, stamp: i64, mut log: PageLog) {
    let redactor = attempt.redactor();
    let clean = |text: &mut String| *text = clean_text(&redactor, text);
    for line in &mut log.console.lines {
        clean(&mut line.text);
        clean(&mut line.url);
    }
    for request in &mut log.network.requests {
        clean(&mut request.url);
        if let Some(error) = &mut request.error {
            clean(error);
        }
    }
    let console = (!log.console.lines.is_empty()).then(|| json_file(&log.console));
    let network = (!log.network.requests.is_empty()).then(|| json_file(&log.network));
    attempt.with_state(|state| state.page_log = log);
    for (what, content) in KINDS.into_iter().zip([console, network]) {
        if let Some(content) = content
            && let Err(error) = content.and_then(|content| save_file(attempt, what, stamp, &content))
        {
            attempt.errors.note(what, &error);
        }
    }
}

fn save_file(attempt: &Attempt, what: &'static str, stamp: i64, content: &[u8]) -> io::Result<()> {
    let Some(disk) = attempt.disk() else { return Ok(()) };
    let temp = disk.dir.temp(&[content])?;
    attempt.commit(what, |_, state| {
        let (stamp, name) = give_name(&disk.dir, &temp, what, "json", stamp, None)?;
        state.last_stamp = state.last_stamp.max(stamp);
        let place = state.saved.partition_point(|saved| saved.stamp < stamp);
        state.saved.insert(place, Saved { stamp, what, kind: "page", name, bytes: temp.bytes });
        Ok(())
    });
    Ok(())
}
