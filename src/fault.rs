//! Places at which a test kills, stops or fails this process, and guards that it can take out.
//!
//! They exist in builds with the cargo feature `failpoints` only; in all others each macro here is nothing, and a test
//! looks for their names in the program to prove it. What happens where is said by `FAILPOINTS`, in the language of the
//! `fail` crate: `step.task_locked.after=return(kill);db.settle.after=2*off->1*return(gone)`.
//!
//! | action | what it does |
//! |---|---|
//! | `return(kill)` | the process dies as by SIGKILL |
//! | `return(power)` | the same, and what was written and not synced is gone, as when the power is cut |
//! | `return(stop)` | the process stops as by SIGSTOP, until somebody continues it |
//! | `return(gone)`, `return(ENOSPC)`, `return(EIO)` | at a place that can fail: it fails so |
//! | `return(off)` | at a guard: it is taken out |
//! | `sleep(ms)` | the thread sleeps |
//!
//! With `FAILPOINTS_TRACE` the name of each place that is passed is appended to that file.

/// A place where the process may end or stop. The arguments are those of `format!`.
macro_rules! point {
    ($($name:tt)*) => {{
        #[cfg(feature = "failpoints")]
        $crate::fault::enabled::pass(&format!($($name)*));
        // Never called, so never compiled: the name is used and is not in the program.
        #[cfg(not(feature = "failpoints"))]
        let _ = || drop(format!($($name)*));
    }};
}

/// A place where what comes next may also fail: an `io::Result<()>`.
macro_rules! may_fail {
    ($($name:tt)*) => {{
        #[cfg(feature = "failpoints")]
        let passed = $crate::fault::enabled::may_fail(&format!($($name)*));
        #[cfg(not(feature = "failpoints"))]
        let (passed, _) = (Ok::<(), std::io::Error>(()), || drop(format!($($name)*)));
        passed
    }};
}

/// Whether a guard is in force: true, unless a test has taken it out.
macro_rules! guard {
    ($name:literal) => {{
        #[cfg(feature = "failpoints")]
        let in_force = $crate::fault::enabled::guard($name);
        #[cfg(not(feature = "failpoints"))]
        let in_force = true;
        in_force
    }};
}

/// Says of an open file that it was written and is not synced yet, or (`false`) that it is.
macro_rules! unsynced {
    ($file:expr, $unsynced:expr) => {{
        #[cfg(feature = "failpoints")]
        $crate::fault::enabled::unsynced($file, $unsynced);
    }};
}

pub(crate) use {guard, may_fail, point, unsynced};

#[cfg(feature = "failpoints")]
pub(crate) mod enabled {
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::os::fd::AsFd;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    /// Where passed places are noted.
    static TRACE: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
        let path = std::env::var_os("FAILPOINTS_TRACE")?;
        File::options().create(true).append(true).open(path).ok().map(Mutex::new)
    });

    /// Read once, at the first place.
    static CONFIGURED: LazyLock<()> = LazyLock::new(|| {
        for entry in std::env::var("FAILPOINTS").unwrap_or_default().split(';').filter(|entry| !entry.is_empty()) {
            let set = entry.split_once('=').ok_or_else(|| "no `=`".to_owned());
            if let Err(problem) = set.and_then(|(name, actions)| fail::cfg(name, actions)) {
                tracing::error!(entry, problem, "FAILPOINTS can't be read");
            }
        }
    });

    /// Files that a power cut would empty.
    static UNSYNCED: Mutex<Vec<(u64, File)>> = Mutex::new(Vec::new());

    fn act(name: &str) -> Option<String> {
        LazyLock::force(&CONFIGURED);
        if let Some(trace) = &*TRACE {
            let mut file = trace.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all(format!("{name}\n").as_bytes());
        }
        let action = fail::eval(name, Option::unwrap_or_default)?;
        match action.as_str() {
            "kill" => end(Signal::KILL),
            "stop" => {
                end(Signal::STOP);
                // Another thread may take the signal, and this one would get a bit further.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            "power" => {
                for (_, file) in UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    let _ = file.set_len(0);
                }
                end(Signal::KILL);
            }
            _ => return Some(action),
        }
        None
    }

    fn end(signal: Signal) {
        let _ = kill_process(getpid(), signal);
    }

    pub(crate) fn pass(name: &str) {
        act(name);
    }

    pub(crate) fn may_fail(name: &str) -> io::Result<()> {
        match act(name).as_deref() {
            None => Ok(()),
            Some("ENOSPC") => Err(rustix::io::Errno::NOSPC.into()),
            Some("EIO") => Err(rustix::io::Errno::IO.into()),
            Some(_) => Err(io::Error::new(io::ErrorKind::ConnectionReset, format!("the test cut {name}"))),
        }
    }

    pub(crate) fn guard(name: &str) -> bool {
        act(&format!("guard.{name}")).is_none()
    }

    pub(crate) fn unsynced(file: &File, unsynced: bool) {
        let Ok(stat) = rustix::fs::fstat(file.as_fd()) else { return };
        let mut all = UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(inode, _)| *inode != stat.st_ino);
        if unsynced && let Ok(file) = file.try_clone() {
            all.push((stat.st_ino, file));
        }
    }
}
