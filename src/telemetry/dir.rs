//! A directory held open, and the only ways in which this program changes files under `runs/`.
//!
//! Every call names one entry relative to the open directory and follows no symbolic link, so whoever can plant files
//! there (a captured page can't, but Chrome's user may) can't make the worker write elsewhere. A file appears whole:
//! it is written under a temporary name in the same directory, synced, and only then given its name.
//!
//! Modes are the upper bound, 0750 and 0640; a stricter umask makes them stricter.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::fault;

const DIR_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory held open: it stays the same one when its path is renamed or replaced.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

/// Which file a name stands for: device and inode.
pub(super) type Identity = (u64, u64);

/// A complete, synced file that has no name of its own yet. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Temp<'a> {
    dir: &'a Dir,
    name: String,
    pub(super) bytes: u64,
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        let _ = fs::unlinkat(&self.dir.0, &self.name, AtFlags::empty());
    }
}

/// A lock on a directory against other processes and other attempts; free again when dropped.
#[derive(Debug)]
pub(super) struct Locked<'a>(Option<&'a Dir>);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(dir) = self.0 {
            let _ = fs::flock(&dir.0, FlockOperation::Unlock);
        }
    }
}

impl Dir {
    /// Opens a directory by its path, which the operator chose: links in it are followed.
    pub(super) fn open(path: &Path) -> io::Result<Dir> {
        Ok(Dir(fs::open(path, OPEN_DIR, Mode::empty())?))
    }

    /// Opens the directory `name` inside this one.
    ///
    /// # Errors
    /// `ENOENT`; `ELOOP` for a symbolic link; `ENOTDIR` for anything else that is no directory.
    pub(super) fn child(&self, name: &str) -> io::Result<Dir> {
        match fs::openat(&self.0, name, OPEN_DIR | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Dir(fd)),
            Err(Errno::NOTDIR) if self.file_type(name)? == Some(FileType::Symlink) => Err(Errno::LOOP.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory `name` inside this one, making it if it is missing. True: it was made.
    pub(super) fn child_or_new(&self, name: &str) -> io::Result<(Dir, bool)> {
        let made = match fs::mkdirat(&self.0, name, DIR_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let child = self.child(name)?;
        if !made {
            child.close_to_others();
        }
        Ok((child, made))
    }

    /// Takes away what others than owner and group may do. One that belongs to somebody else stays as it is.
    fn close_to_others(&self) {
        if let Ok(stat) = fs::fstat(&self.0) {
            let mode = Mode::from_raw_mode(stat.st_mode);
            if mode.intersects(Mode::RWXO | Mode::WGRP) {
                let _ = fs::fchmod(&self.0, mode & DIR_MODE);
            }
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Names of all entries.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn file_type(&self, name: &str) -> io::Result<Option<FileType>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Which file `name` stands for; None if there is none.
    pub(super) fn identity(&self, name: &str) -> Option<Identity> {
        let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// Size of the regular file `name` in bytes; None if there is none.
    pub(super) fn size(&self, name: &str) -> Option<i64> {
        let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat.st_size)
    }

    /// When the content of `name` was last changed, by this machine's clock.
    pub(super) fn modified(&self, name: &str) -> Option<SystemTime> {
        let stat = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(
            UNIX_EPOCH + Duration::from_secs(stat.st_mtime.try_into().ok()?) + Duration::from_nanos(stat.st_mtime_nsec),
        )
    }

    /// Opens the regular file `name`, for reading, or for reading and writing.
    pub(super) fn file(&self, name: &str, write: bool) -> io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        // Without NONBLOCK, opening a pipe that somebody put there would wait for its other end.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.0, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::LOOP.into()) }
    }

    /// The content of the regular file `name`; None if it is missing, unreadable or larger than `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        let read = self.file(name, false).ok()?.take(limit + 1).read_to_end(&mut content).ok()?;
        (read as u64 <= limit).then_some(content)
    }

    /// Opens the regular file `name` for appending, making it if it is missing.
    pub(super) fn append(&self, name: &str) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.0, name, flags, FILE_MODE)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::LOOP.into()) }
    }

    /// Writes `content` under a temporary name and syncs it.
    pub(super) fn temp(&self, content: &[&[u8]]) -> io::Result<Temp<'_>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fault::may_fail!("file.create")?;
        let mut file = File::from(fs::openat(&self.0, &name, flags, FILE_MODE)?);
        let temp = Temp { dir: self, name, bytes: content.iter().map(|part| part.len() as u64).sum() };
        fault::may_fail!("file.write")?;
        for part in content {
            file.write_all(part)?;
        }
        fault::unsynced!(&file, true);
        fault::may_fail!("file.sync")?;
        if fault::guard!("file.sync") {
            file.sync_all()?;
            fault::unsynced!(&file, false);
        }
        fault::point!("file.synced");
        Ok(temp)
    }

    /// Gives `temp` its name, in place of whatever had it.
    pub(super) fn put(&self, temp: Temp<'_>, name: &str) -> io::Result<()> {
        fault::may_fail!("file.{name}.before")?;
        fs::renameat(&self.0, &temp.name, &self.0, name)?;
        fault::point!("file.{name}.after");
        Ok(())
    }

    /// Gives `temp` the name `name`, which must be free, and the name `alias`, in place of whatever had it.
    ///
    /// # Errors
    /// `EEXIST` where `name` is taken; then nothing has changed.
    pub(super) fn put_with_alias(&self, temp: &Temp<'_>, name: &str, alias: Option<&str>) -> io::Result<()> {
        fault::may_fail!("file.snapshot.before")?;
        match fs::linkat(&self.0, &temp.name, &self.0, name, AtFlags::empty()) {
            Ok(()) => {
                fault::may_fail!("file.snapshot.linked")?;
                if let Some(alias) = alias {
                    fs::renameat(&self.0, &temp.name, &self.0, alias)?;
                }
                Ok(())
            }
            Err(Errno::EXIST) => Err(Errno::EXIST.into()),
            // A file system without hard links: two copies.
            Err(_) => {
                let copy = match alias {
                    Some(alias) => {
                        let mut content = Vec::new();
                        self.file(&temp.name, false)?.read_to_end(&mut content)?;
                        Some((self.temp(&[&content])?, alias))
                    }
                    None => None,
                };
                self.move_new(&temp.name, self, name)?;
                if let Some((copy, alias)) = copy {
                    self.put(copy, alias)?;
                }
                Ok(())
            }
        }
    }

    /// Moves the entry `name` to `to_name` in `to`, where that name must be free.
    pub(super) fn move_new(&self, name: &str, to: &Dir, to_name: &str) -> io::Result<()> {
        fault::may_fail!("file.move.{name}.before")?;
        match fs::renameat_with(&self.0, name, &to.0, to_name, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag.
            Err(Errno::INVAL | Errno::NOSYS) if to.identity(to_name).is_none() => {
                Ok(fs::renameat(&self.0, name, &to.0, to_name)?)
            }
            done => Ok(done?),
        }
    }

    /// Removes the temporary files that a crash left.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let is_temp = |name: &String| name.starts_with('.') && name.ends_with(".tmp");
        for name in self.names()?.into_iter().filter(is_temp).filter(|_| fault::guard!("file.sweep")) {
            match fs::unlinkat(&self.0, &name, AtFlags::empty()) {
                // Gone by another hand, or a directory, which is none of ours.
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes names given and taken so far outlast a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        fault::may_fail!("file.sync_dir")?;
        Ok(fs::fsync(&self.0)?)
    }

    /// Bytes of the file system that are free to this user.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let stat = fs::fstatvfs(&self.0)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Locks the directory, alone or together with others who do not want it alone; None when that takes longer than
    /// `patience`. A file system without locks grants it.
    pub(super) fn lock(&self, alone: bool, patience: Duration) -> Option<Locked<'_>> {
        let operation =
            if alone { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        let begun = Instant::now();
        loop {
            match fs::flock(&self.0, operation) {
                Ok(()) => return Some(Locked(Some(self))),
                Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => return None,
                Err(_) => return Some(Locked(None)),
            }
        }
    }
}
