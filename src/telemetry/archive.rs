//! Whose a run directory is, and where what is not its own goes: an earlier attempt's files, the torn end of a line,
//! temporary files. Nothing that is valid is changed, and nothing is moved over anything.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use chrono::DateTime;
use serde_json::{Map, Value};

use super::dir::Dir;
use super::run::{INIT, RESULT, STEPS};
use crate::fault;

pub(super) const ATTEMPTS: &str = "attempts";
const TORN: &str = "steps.jsonl.torn";
/// Largest `init.json` or `final_result.json` that is read back.
pub(super) const JSON_LIMIT: u64 = 4 << 20;
/// Most directories that are tried for one archived attempt.
const ARCHIVE_NAMES: u32 = 10_000;

pub(super) fn read_json(dir: &Dir, name: &str) -> Option<Value> {
    serde_json::from_slice(&dir.read(name, JSON_LIMIT)?).ok()
}

/// The attempt that a directory's `init.json`, or else its `final_result.json`, is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) attempt: Option<i64>,
    pub(super) retry_count: Option<u64>,
    /// In milliseconds, as the database gave it; only an `init.json` has it.
    pub(super) locked_at: Option<i64>,
}

impl Owner {
    pub(super) fn of(dir: &Dir) -> Option<Owner> {
        let number = |document: &Value, pointer: &str| document.pointer(pointer).and_then(Value::as_i64);
        let (document, count) = match read_json(dir, INIT) {
            Some(init) => (init, "/meta/retry_count"),
            None => (read_json(dir, RESULT)?, "/result/retry_count"),
        };
        let retry_count = number(&document, count).and_then(|count| u64::try_from(count).ok());
        let locked_at = document
            .pointer("/meta/locked_at")
            .and_then(|text| DateTime::parse_from_rfc3339(text.as_str()?).ok().map(|time| time.timestamp_millis()));
        Some(Owner { attempt: number(&document, "/attempt"), retry_count, locked_at })
    }
}

/// Moves `init.json` and `final_result.json` of the attempt before to `attempts/{retry_count}/`. One that was released,
/// and so has the same count as the newcomer, goes to `attempts/{retry_count}-released-{k}/`; one that is in the way for
/// another reason (a run of the same number from another database) to `…-earlier-{k}/`.
pub(super) fn archive(dir: &Dir, newcomer: u32) -> io::Result<()> {
    send_home(dir)?;
    // The result first: an `init.json` without one can still get it from the reaper.
    let files: Vec<&str> = [RESULT, INIT].into_iter().filter(|name| dir.identity(name).is_some()).collect();
    if files.is_empty() {
        return Ok(());
    }
    let count = Owner::of(dir).and_then(|owner| owner.retry_count);
    let same = (count == Some(newcomer.into())).then(|| {
        let code = read_json(dir, RESULT).and_then(|result| result.pointer("/result/failure_code").cloned());
        if code.is_none_or(|code| code == "infra.shutdown") { "released" } else { "earlier" }
    });
    let (attempts, _) = dir.child_or_new(ATTEMPTS)?;
    let place = free_place(&attempts, &place_names(count, same), &files)?;
    for name in files {
        dir.move_new(name, &place, name)?;
    }
    place.sync()?;
    attempts.sync()?;
    dir.sync()
}

/// Moves a final result to the archived files of its attempt: whoever wrote it slept just before, and found the directory in
/// the hands of the next attempt.
pub(super) fn send_home(dir: &Dir) -> io::Result<()> {
    let about = |place: &Dir, name: &str| {
        let document = read_json(place, name)?;
        Some((document.get("attempt")?.as_i64()?, document.get("started_at")?.as_str()?.to_owned()))
    };
    let (Some(result), Some(init)) = (about(dir, RESULT), about(dir, INIT)) else { return Ok(()) };
    if result.0 == init.0 || !fault::guard!("recovery.send_home") {
        return Ok(());
    }
    let attempts = match dir.child(ATTEMPTS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        attempts => attempts?,
    };
    let mut places = attempts.names()?.into_iter().filter_map(|name| attempts.child(&name).ok());
    let home = places.find(|place| about(place, INIT).as_ref() == Some(&result) && place.identity(RESULT).is_none());
    let Some(home) = home else { return Ok(()) };
    dir.move_new(RESULT, &home, RESULT)?;
    home.sync()?;
    dir.sync()
}

/// Names for the directory of an archived attempt, best first. `same`: the plain one belongs to the newcomer.
pub(super) fn place_names(count: Option<u64>, same: Option<&str>) -> Vec<String> {
    let plain = count.map_or("unknown".to_owned(), |count| count.to_string());
    let label = same.unwrap_or("earlier");
    let numbered = (1..=ARCHIVE_NAMES).map(|k| format!("{plain}-{label}-{k}"));
    same.is_none().then(|| plain.clone()).into_iter().chain(numbered).collect()
}

/// The first of `names` in which none of `files` is there yet, made if it is missing.
pub(super) fn free_place(attempts: &Dir, names: &[String], files: &[&str]) -> io::Result<Dir> {
    for name in names {
        // A link or file of that name is in the way, as a directory with those files would be.
        if let Ok((place, _)) = attempts.child_or_new(name)
            && files.iter().all(|file| place.identity(file).is_none())
        {
            return Ok(place);
        }
    }
    Err(rustix::io::Errno::EXIST.into())
}

/// Sweeps temporary files and moves a torn last line of `steps.jsonl` out of the way.
pub(super) fn mend(dir: &Dir) -> io::Result<()> {
    dir.sweep()?;
    if let Ok(attempts) = dir.child(ATTEMPTS) {
        for name in attempts.names()? {
            if let Ok(place) = attempts.child(&name) {
                place.sweep()?;
            }
        }
    }
    match dir.file(STEPS, true) {
        Ok(mut steps) => mend_last_line(dir, &mut steps),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn mend_last_line(dir: &Dir, steps: &mut File) -> io::Result<()> {
    let length = steps.metadata()?.len();
    let whole = end_of_whole_lines(steps, length)?;
    if whole == length || !fault::guard!("steps.mend") {
        return Ok(());
    }
    steps.seek(SeekFrom::Start(whole))?;
    let mut last = Vec::new();
    steps.take(JSON_LIMIT).read_to_end(&mut last)?;
    if last.len() as u64 == length - whole && serde_json::from_slice::<Map<String, Value>>(&last).is_ok() {
        // Only its line feed is missing.
        return dir.append(STEPS)?.write_all(b"\n");
    }
    steps.seek(SeekFrom::Start(whole))?;
    let mut torn = dir.append(TORN)?;
    // A step of ours is shorter than this by far.
    io::copy(&mut steps.take(JSON_LIMIT), &mut torn)?;
    torn.write_all(b"\n")?;
    torn.sync_all()?;
    dir.sync()?;
    steps.set_len(whole)?;
    steps.sync_all()
}

/// Where the last whole line ends. Reads from the end, a block at a time: a torn line may be of any length.
fn end_of_whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut block = vec![0; 64 << 10];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..usize::try_from(end - start).unwrap_or_default()];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(position) = memchr::memrchr(b'\n', block) {
            return Ok(start + position as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
