//! Outcomes that Postgres does not have yet: a file each, in `.outcomes/` below the root of the run directories.
//!
//! An entry is on the disk when [`Journal::keep`] returns, and stays until somebody forgets it: the process that kept it,
//! a later life of it, or any other that has the same root. What an entry says is the caller's; entries are read in the
//! order in which they were kept.

use std::io;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::RunsDir;
use super::dir::Dir;
use super::run::json_file;
use crate::task::Fence;

const PLACE: &str = ".outcomes";
/// Most entries that are kept. Far more than there ever are: nothing is claimed while Postgres is away.
const MOST: usize = 4_096;
/// Largest entry, in bytes.
const LARGEST: u64 = 32 << 20;

/// The outcomes below one root.
#[derive(Debug, Clone)]
pub struct Journal(RunsDir);

/// One outcome that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its file, for [`Journal::forget`].
    pub name: String,
    /// What was kept.
    pub entry: Value,
    /// How long ago.
    pub age: Duration,
}

impl RunsDir {
    /// The outcomes that are kept beside the runs.
    pub fn journal(&self) -> Journal {
        Journal(self.clone())
    }
}

impl Journal {
    /// Keeps the outcome of an attempt. `process` tells it from attempts of the same number in another database.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The disk refuses it, or the journal is full (`QuotaExceeded`).
    pub fn keep(&self, fence: Fence, process: &str, entry: &Value) -> io::Result<()> {
        let place = self.place()?;
        if self.is_full()? {
            let problem = "too many outcomes wait for postgres already";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, problem));
        }
        let process: String = process.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        let name = format!("{fence}-{process}.json");
        self.0.with_reserve(|| place.put(place.temp(&[&json_file(entry)?])?, &name))?;
        place.sync()
    }

    /// All that is kept, the oldest first. What can't be read is put aside as `….damaged`. Blocks on the disk.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn entries(&self) -> io::Result<Vec<Kept>> {
        let Some(place) = self.existing()? else { return Ok(Vec::new()) };
        let mut kept = Vec::new();
        for name in place.names()?.into_iter().filter(|name| is_entry(name)) {
            let Some(content) = place.read(&name, LARGEST) else { continue };
            let age = place.modified(&name).and_then(|time| SystemTime::now().duration_since(time).ok());
            match serde_json::from_slice(&content) {
                Ok(entry) => kept.push(Kept { name, entry, age: age.unwrap_or_default() }),
                Err(_) => {
                    tracing::error!(event = "outcome.damaged", file = name, "an outcome that was kept can't be read");
                    place.move_new(&name, &place, &format!("{name}.damaged"))?;
                }
            }
        }
        kept.sort_by_key(|one| std::cmp::Reverse(one.age));
        Ok(kept)
    }

    /// The outcome of `kept` has arrived, or is no use any more. Blocks on the disk.
    ///
    /// # Errors
    /// The file can't be removed; that somebody else has removed it is none.
    pub fn forget(&self, kept: &Kept) -> io::Result<()> {
        match self.existing()? {
            Some(place) => place.remove(&kept.name),
            None => Ok(()),
        }
    }

    /// Whether no more outcomes can be kept. Blocks on the disk.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn is_full(&self) -> io::Result<bool> {
        let Some(place) = self.existing()? else { return Ok(false) };
        Ok(place.names()?.iter().filter(|name| is_entry(name)).count() >= MOST)
    }

    fn place(&self) -> io::Result<Dir> {
        let root = self.0.dir()?;
        let (place, made) = root.child_or_new(PLACE)?;
        if made {
            root.sync()?;
        }
        Ok(place)
    }

    fn existing(&self) -> io::Result<Option<Dir>> {
        match self.0.dir()?.child(PLACE) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_entry(name: &str) -> bool {
    !name.starts_with('.') && name.ends_with(".json")
}
