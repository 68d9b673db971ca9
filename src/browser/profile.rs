//! Where browsers keep their profiles and temporary files, and how nothing of it stays behind.
//!
//! Below the state directory each process of ours has a directory of its own with a file `owner` that it holds locked
//! for as long as it lives; the kernel gives the lock up however it dies. So whoever comes next can tell the leftovers
//! of the dead from what is in use, kills browsers that still run on such a profile, and removes it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::install::Unprivileged;
use super::process;

/// A directory that belongs to this process while it lives.
#[derive(Debug)]
pub(super) struct OwnerDir {
    path: PathBuf,
    user: Option<Unprivileged>,
    next: AtomicU32,
    _owner: File,
}

/// One browser's directory; removed with all that is in it when dropped.
#[derive(Debug)]
pub(super) struct BrowserDir {
    /// The directory itself.
    pub(super) path: PathBuf,
}

impl OwnerDir {
    /// Takes a directory below `state_dir` (or, where Chrome's user can't get there, below the system's temporary
    /// directory) and removes what dead owners left beside it.
    pub(super) fn take(state_dir: &Path, user: Option<Unprivileged>) -> io::Result<OwnerDir> {
        let mut tries = 0;
        let (root, _taking) = loop {
            let root = root_for(state_dir, user)?;
            if let Some(lock) = lock_root(&root, FlockOperation::LockExclusive) {
                break (root, lock);
            }
            tries += 1;
            if tries == 5 {
                return Err(io::Error::other(format!("can't lock {}", root.join(LOCK).display())));
            }
        };
        sweep(&root);
        let path = root.join(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
        fs::DirBuilder::new().mode(0o711).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        let owner = File::create(path.join("owner"))?;
        flock(&owner, FlockOperation::NonBlockingLockExclusive)?;
        Ok(OwnerDir { path, user, next: AtomicU32::new(1), _owner: owner })
    }

    /// A fresh directory for one browser: `profile`, `home` and `tmp` in it are its user's alone.
    pub(super) fn browser_dir(&self) -> io::Result<BrowserDir> {
        let path = self.path.join(format!("b{}", self.next.fetch_add(1, Ordering::Relaxed)));
        for dir in [&path, &path.join("profile"), &path.join("home"), &path.join("tmp")] {
            fs::DirBuilder::new().mode(0o700).create(dir)?;
            if let Some(user) = self.user {
                chown(dir, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(BrowserDir { path })
    }
}

impl Drop for OwnerDir {
    fn drop(&mut self) {
        remove(&self.path);
        if let Some(root) = self.path.parent()
            && let Some(_taking) = lock_root(root, FlockOperation::NonBlockingLockExclusive)
            && fs::read_dir(root).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == LOCK))
        {
            // Whoever waits for the lock sees that it has gone and makes a new one.
            let _ = fs::remove_file(root.join(LOCK));
            let _ = fs::remove_dir(root);
        }
    }
}

impl Drop for BrowserDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

const LOCK: &str = ".lock";

/// Locks the root against others that take or leave a directory in it; `None` if it was removed meanwhile.
fn lock_root(root: &Path, how: FlockOperation) -> Option<File> {
    let lock = File::create(root.join(LOCK)).ok()?;
    flock(&lock, how).ok()?;
    let still_there = fs::metadata(root.join(LOCK)).ok()?.ino() == lock.metadata().ok()?.ino();
    still_there.then_some(lock)
}

/// Removes a tree; a process that is just dying may still write into it, so it is tried for a while.
fn remove(path: &Path) {
    for pause in [0, 5, 20, 50, 100, 200] {
        std::thread::sleep(Duration::from_millis(pause));
        match fs::remove_dir_all(path) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => {}
        }
    }
    tracing::warn!(path = %path.display(), "a browser's directory could not be removed; remove it by hand");
}

fn root_for(state_dir: &Path, user: Option<Unprivileged>) -> io::Result<PathBuf> {
    let root = state_dir.join("chrome");
    fs::create_dir_all(state_dir)?;
    let state_dir = fs::canonicalize(state_dir)?;
    let Some(user) = user else {
        make_private(&root, 0o700)?;
        return fs::canonicalize(root);
    };
    if state_dir.ancestors().all(|dir| can_pass(dir, user)) {
        make_private(&root, 0o711)?;
        return fs::canonicalize(root);
    }
    let root = std::env::temp_dir().join("pagehand-chrome");
    make_private(&root, 0o711)?;
    fs::canonicalize(root)
}

fn can_pass(dir: &Path, user: Unprivileged) -> bool {
    fs::metadata(dir).is_ok_and(|meta| {
        let bit = if meta.uid() == user.uid {
            0o100
        } else if meta.gid() == user.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    })
}

/// Makes `dir` unless it is there, and makes sure that it is ours: in a shared directory anybody could have made it.
fn make_private(dir: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        let message = format!("{} belongs to somebody else; remove it", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Removes what dead owners left below `root`, their living browsers first.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for dir in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let dead = match File::open(dir.join("owner")) {
            Ok(owner) => flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok(),
            Err(_) => true,
        };
        if dead {
            process::kill_those_on(&dir);
            remove(&dir);
        }
    }
}
