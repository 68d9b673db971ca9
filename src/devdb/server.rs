//! The server that runs a cluster, as far as can be told from outside: from its `postmaster.pid` and from `/proc`.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// Name of the socket; the number is no TCP port.
pub const SOCKET: &str = ".s.PGSQL.5432";

/// A server process.
#[derive(Debug, Clone)]
pub struct Server {
    pid: Pid,
    data_dir: PathBuf,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Connections are taken.
    Ready,
    /// Not yet, or not any more.
    Other,
}

impl Server {
    /// The server that runs the cluster in `data_dir`. A process that has the number in its `postmaster.pid` but is none
    /// is not taken for it.
    pub fn of(data_dir: &Path) -> Option<Server> {
        let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)?;
        let server = Server { pid, data_dir: data_dir.canonicalize().ok()? };
        server.runs().then_some(server)
    }

    /// Whether it has not ended. A server's working directory is its cluster.
    pub fn runs(&self) -> bool {
        fs::read_link(format!("/proc/{}/cwd", self.pid.as_raw_pid())).is_ok_and(|dir| dir == self.data_dir)
    }

    /// The eighth line of `postmaster.pid`.
    pub fn status(&self) -> Status {
        let text = fs::read_to_string(self.data_dir.join("postmaster.pid")).unwrap_or_default();
        match text.lines().nth(7).map(str::trim) {
            Some("ready") => Status::Ready,
            _ => Status::Other,
        }
    }

    /// Fast shutdown: connections are closed, everything is written.
    pub fn ask_to_stop(&self) {
        let _ = kill_process(self.pid, Signal::INT);
    }

    /// Immediate shutdown: the next start recovers.
    pub fn stop_hard(&self) {
        let _ = kill_process(self.pid, Signal::QUIT);
    }
}

/// Whether any process works in a cluster: a server, or what is still there of one that was killed. Two servers at once
/// would destroy it.
pub fn is_in_use(data_dir: &Path) -> bool {
    let Ok(data_dir) = data_dir.canonicalize() else { return false };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|process| process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .any(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|dir| dir == data_dir))
}

/// Removes what a server that was killed left behind and what Postgres would take for another server if the process number
/// has been given to something else since. Only to be called when the cluster is not in use.
pub fn remove_leftovers(data_dir: &Path, socket_dir: &Path) {
    for leftover in
        [data_dir.join("postmaster.pid"), socket_dir.join(SOCKET), socket_dir.join(format!("{SOCKET}.lock"))]
    {
        // Nearly always there is none.
        let _ = fs::remove_file(leftover);
    }
}
