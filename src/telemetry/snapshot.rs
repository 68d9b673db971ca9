//! What the page looked like: a DOM file and a PNG each time, and two names that always stand for the newest.
//!
//! The time in the names is also their order. Two snapshots never get the same one: a clock that stands still, or was
//! set back since an earlier attempt, is carried on by a millisecond beyond the newest name in the directory.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, Utc};
use sha2::{Digest as _, Sha256};

use super::Run;
use super::bounds::clean_text;
use super::dir::{Dir, Temp};
use super::inert::inert;
use super::run::Attempt;

/// Largest PNG, in bytes. The viewport's picture is a tenth of it.
const PNG_LIMIT: usize = 32 << 20;

/// Most snapshots of one run that wait for the disk at a time.
const MAX_PENDING: usize = 4;

/// The names that stand for the newest snapshot.
pub(super) const LATEST_DOM: &str = "dom_snapshot.html";
pub(super) const LATEST_SCREENSHOT: &str = "screenshot.png";

const STAMP: &str = "%Y%m%dT%H%M%S%3fZ";
/// 1 January 9000: a name that claims to be younger is none of ours.
const END_OF_TIME: i64 = 221_845_392_000_000;

/// When in the attempt a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotKind {
    /// After the first page has loaded.
    Initial,
    /// At the end.
    Final,
    /// On a failure with a live page.
    Error,
}

impl SnapshotKind {
    /// How the names of its files begin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Final => "final",
            Self::Error => "error",
        }
    }
}

/// The markup of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dom {
    /// As serialised by the browser, possibly cut.
    pub html: String,
    /// Size of the whole in bytes, where the browser cut it; None where it did not.
    pub full_bytes: Option<u64>,
}

impl From<String> for Dom {
    fn from(html: String) -> Dom {
        Dom { html, full_bytes: None }
    }
}

/// What the page looked like; in place of what could not be had, why.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The markup.
    pub dom: Result<Dom, String>,
    /// The picture, PNG.
    pub png: Result<Bytes, String>,
}

/// One file of a snapshot.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    pub(super) stamp: i64,
    /// `dom` or `screenshot`; `console` or `network`.
    pub(super) what: &'static str,
    /// `initial`, `final` or `error`; `page` for what it said and asked for.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Writes the two files of a snapshot, whole and on the disk when this returns, and makes `dom_snapshot.html` and
/// `screenshot.png` equal to them. What is missing is noted with its cause in the final result.
pub async fn save_snapshot(run: &Run, kind: SnapshotKind, snapshot: Snapshot) {
    let stamp = stamp(run);
    write(run.0.clone(), kind, stamp, snapshot).await;
}

/// As [`save_snapshot`], but leaves the writing to itself, so that the task does not wait for the disk; `finalize_run` does
/// then. Waits here only while [`MAX_PENDING`] earlier ones are not written yet.
pub async fn save_snapshot_meanwhile(run: &Run, kind: SnapshotKind, snapshot: Snapshot) {
    let stamp = stamp(run);
    let mut pending = run.0.with_state(|state| std::mem::take(&mut state.pending));
    pending.retain(|writing| !writing.is_finished());
    while pending.len() >= MAX_PENDING {
        // Err: it panicked, which the panic hook has logged.
        let _ = pending.remove(0).await;
    }
    pending.push(tokio::spawn(write(run.0.clone(), kind, stamp, snapshot)));
    run.0.with_state(|state| state.pending.append(&mut pending));
}

/// Waits for the snapshots that are being written.
pub(super) async fn all_written(run: &Run) {
    for writing in run.0.with_state(|state| std::mem::take(&mut state.pending)) {
        let _ = writing.await;
    }
}

/// The stamp of a snapshot that is taken now.
pub(super) fn stamp(run: &Run) -> i64 {
    let now = run.now().timestamp_millis();
    run.0.with_state(|state| {
        state.last_stamp = now.max(state.last_stamp + 1);
        state.last_stamp
    })
}

async fn write(attempt: Arc<Attempt>, kind: SnapshotKind, stamp: i64, snapshot: Snapshot) {
    let job = attempt.clone();
    attempt.blocking("dom", move || save(&job, kind, stamp, &snapshot)).await;
}

fn save(attempt: &Attempt, kind: SnapshotKind, stamp: i64, snapshot: &Snapshot) {
    let save_dom = || {
        let dom = snapshot.dom.as_ref().map(|dom| {
            let (head, page, end) = dom_file(attempt, dom);
            head + &page + &end
        });
        let dom = dom.as_ref().map(String::as_bytes).map_err(|cause| cause.as_str());
        save_file(attempt, "dom", "html", LATEST_DOM, kind, stamp, dom);
    };
    let save_png = || {
        let png = snapshot.png.as_ref().map_err(Clone::clone).and_then(|png| match png.len() {
            0..=PNG_LIMIT => Ok(png),
            size => Err(format!("the picture has {size} bytes; at most {PNG_LIMIT} are kept")),
        });
        let png = png.as_ref().map(|png| png.as_ref()).map_err(String::as_str);
        save_file(attempt, "screenshot", "png", LATEST_SCREENSHOT, kind, stamp, png);
    };
    // Side by side: a disk syncs two files in about the time of one.
    std::thread::scope(|scope| {
        let beside = std::thread::Builder::new().spawn_scoped(scope, save_png);
        save_dom();
        if beside.is_err() {
            save_png();
        }
    });
    if let Some(disk) = attempt.disk()
        && let Err(error) = disk.dir.sync()
    {
        attempt.errors.note("screenshot", &error);
    }
}

fn save_file(
    attempt: &Attempt,
    what: &'static str,
    extension: &str,
    latest: &str,
    kind: SnapshotKind,
    stamp: i64,
    content: Result<&[u8], &str>,
) {
    let kind = kind.as_str();
    let saved = match content {
        Ok(content) => attempt.disk().and_then(|disk| {
            let temp = disk.dir.temp(&[content]).map_err(|error| attempt.errors.note(what, &error)).ok()?;
            // The change that others see, and with it the check whether this attempt may still make it.
            attempt.commit(what, |_, state| {
                let newest = state.saved.iter().filter(|saved| saved.what == what).map(|saved| saved.stamp).max();
                let alias = newest.is_none_or(|newest| newest < stamp).then_some(latest);
                let (stamp, name) = give_name(&disk.dir, &temp, &format!("{kind}_{what}"), extension, stamp, alias)?;
                state.last_stamp = state.last_stamp.max(stamp);
                let place = state.saved.partition_point(|saved| saved.stamp < stamp);
                let saved = Saved { stamp, what, kind, name, bytes: temp.bytes };
                state.saved.insert(place, saved);
                state.missing.retain(|of, (missing, _, _)| *of != what || *missing > stamp);
                Ok(())
            })
        }),
        Err(_) => None,
    };
    if saved.is_none() {
        let cause = match content {
            Err(cause) => clean_text(&attempt.redactor(), cause),
            Ok(_) => {
                attempt.errors.cause_of(what).unwrap_or_else(|| "the run directory could not be opened".to_owned())
            }
        };
        attempt.with_state(|state| {
            if state.missing.get(what).is_none_or(|(older, _, _)| *older < stamp) {
                state.missing.insert(what, (stamp, kind, cause));
            }
        });
    }
}

/// Gives a file the first name from `stamp` on that is free.
pub(super) fn give_name(
    dir: &Dir,
    temp: &Temp<'_>,
    prefix: &str,
    extension: &str,
    mut stamp: i64,
    alias: Option<&str>,
) -> io::Result<(i64, String)> {
    loop {
        let name = format!("{prefix}_{}.{extension}", stamp_text(stamp));
        match dir.put_with_alias(temp, &name, alias) {
            Ok(()) => return Ok((stamp, name)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => stamp += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Head, page and end of a DOM file: without secrets, inert, and not longer than the limit but for the mark that says
/// what is missing.
fn dom_file(attempt: &Attempt, dom: &Dom) -> (String, String, String) {
    let limit = attempt.runs.dom_limit;
    // What lies far beyond the limit is not even looked at for secrets.
    let looked_at = &dom.html[..dom.html.floor_char_boundary(limit.saturating_mul(2))];
    let clean = attempt.redactor().text(looked_at);
    let (head, page) = inert(&clean);
    let kept = page.floor_char_boundary(limit.saturating_sub(head.len()));
    let full = dom.full_bytes.unwrap_or(dom.html.len() as u64);
    let end = if kept < page.len() || looked_at.len() < dom.html.len() || dom.full_bytes.is_some() {
        let digest: String = Sha256::digest(&dom.html).iter().map(|byte| format!("{byte:02x}")).collect();
        // Whatever the cut left open (a tag, a comment, a script) must not swallow the mark.
        format!(
            "\n<!-- \"'--></script></style></textarea></title><!-- pagehand: cut to {kept} of {full} bytes; sha256 of what was captured: {digest} -->\n"
        )
    } else {
        String::new()
    };
    (head, page[..kept].to_owned(), end)
}

/// The time in a file name, for example `20240115T103000123Z`.
fn stamp_text(stamp: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(stamp).unwrap_or_default().format(STAMP).to_string()
}

/// The stamp in the name of a snapshot's file; None for every other name.
pub(super) fn stamp_of(name: &str) -> Option<i64> {
    let (rest, _) = name.split_once('.')?;
    let (_, time) = rest.rsplit_once('_')?;
    let time = NaiveDateTime::parse_from_str(time, STAMP).ok().filter(|_| time.len() == 19)?;
    Some(time.and_utc().timestamp_millis()).filter(|stamp| *stamp < END_OF_TIME)
}

/// The newest stamp among `names`; 0 if there is none.
pub(super) fn newest_stamp(names: &[String]) -> i64 {
    names.iter().filter_map(|name| stamp_of(name)).max().unwrap_or(0)
}

/// The snapshot files among `names` that were taken at or after `since`, in order.
pub(super) fn saved_since(dir: &Dir, names: &[String], since: i64) -> Vec<Saved> {
    let mut saved: Vec<Saved> = names
        .iter()
        .filter_map(|name| {
            let stamp = stamp_of(name).filter(|stamp| *stamp >= since)?;
            let kinds = [SnapshotKind::Initial, SnapshotKind::Final, SnapshotKind::Error];
            let kind = kinds.into_iter().map(SnapshotKind::as_str).find(|kind| name.starts_with(kind))?;
            let what =
                ["dom", "screenshot"].into_iter().find(|what| name[kind.len()..].starts_with(&format!("_{what}_")))?;
            Some(Saved { stamp, what, kind, name: name.clone(), bytes: dir.size(name)?.unsigned_abs() })
        })
        .collect();
    saved.sort_by_key(|saved| saved.stamp);
    saved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_a_name_is_read_back() {
        let stamp = 1_705_314_600_123;
        assert_eq!(stamp_text(stamp), "20240115T103000123Z");
        assert_eq!(stamp_of("error_screenshot_20240115T103000123Z.png"), Some(stamp));
        for other in ["screenshot.png", "init.json", "error_dom_2024.html", "x_99991231T235959999Z.png", ".1-2.tmp"] {
            assert_eq!(stamp_of(other), None, "{other}");
        }
    }
}
