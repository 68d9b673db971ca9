//! Room for the last words: a file below the root of the run directories that holds some of the disk.
//!
//! When a write of an attempt's end finds the disk full, the reserve is given up, and the write tried again: so the final
//! result and the outcome fit although nothing else does. Nothing is claimed until the reserve could be taken anew
//! ([`RunsDir::check_writable`]), which is to say until there is room for a whole attempt.
//!
//! Processes that share the root share the reserve.

use std::io;

use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::RunsDir;
use super::dir::Dir;
use crate::fault;

const NAME: &str = ".reserve";
/// What is held where nothing else is said.
pub(super) const RESERVE: u64 = 64 << 20;
/// A disk that is small gives no more than this part of itself.
const PART: u64 = 16;

impl RunsDir {
    /// Writes; if the disk is full, gives the reserve up and writes again.
    pub(super) fn with_reserve<T>(&self, write: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if fault::guard!("reserve.give_up") && is_full(&error) && self.give_up_reserve() => write(),
            done => done,
        }
    }

    /// Makes the reserve as large as it should be.
    ///
    /// # Errors
    /// `ENOSPC` where there is no room for it.
    pub(super) fn hold_reserve(&self, root: &Dir) -> io::Result<()> {
        let wanted = self.reserve.min(root.total_bytes()? / PART);
        if wanted == 0 || root.size(NAME).is_some_and(|size| size.unsigned_abs() >= wanted) {
            return Ok(());
        }
        let file = root.open_file(NAME, OFlags::WRONLY | OFlags::CREATE)?;
        match fs::fallocate(&file, FallocateFlags::empty(), 0, wanted) {
            Ok(()) => Ok(()),
            // Not every file system can; then there is none, and the disk is looked at as before.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                drop(file);
                root.remove(NAME)
            }
            Err(error) => {
                // A part of it would look like all of it next time, and takes room from those who need it.
                let _ = root.remove(NAME);
                Err(error.into())
            }
        }
    }

    /// Whether there was one. The name goes with it: its inode may be what is missing.
    fn give_up_reserve(&self) -> bool {
        let Ok(root) = self.dir() else { return false };
        let given = root.size(NAME).is_some() && root.remove(NAME).is_ok();
        if given {
            tracing::warn!(
                event = "disk.reserve_given_up",
                "the disk of the runs directory is full; its reserve was given up so that results still fit"
            );
        }
        given
    }
}

fn is_full(error: &io::Error) -> bool {
    [Errno::NOSPC, Errno::DQUOT].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Dir {
    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<std::os::fd::OwnedFd> {
        Ok(fs::openat(self.fd(), name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::from_raw_mode(0o640))?)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(self.fd())?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    /// Removes the file `name`; one that is gone already is no error.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(self.fd(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
