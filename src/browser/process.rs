//! A local Chrome: started with our two pipes as its only door, ended with all its children.
//!
//! It is a process group of its own. When we die it sees its pipe close and ends by itself; when we end it the whole
//! group is killed and waited for, and its directory removed. Children that outlive their parent are reparented to us
//! (we are a subreaper while we run browsers), so none stays as a zombie.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::error::BrowserError;
use super::install::{self, Installed};
use super::profile::{BrowserDir, OwnerDir};
use super::router::lock;
use super::types::{BrowserSettings, SandboxReport};

/// So much of stderr is kept.
const STDERR_LINES: usize = 20;

/// A running Chrome. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    exit: watch::Receiver<Option<String>>,
    stderr: Stderr,
    dir: Mutex<Option<BrowserDir>>,
}

/// Our ends of its pipes.
pub(super) struct Pipes {
    pub(super) to_chrome: pipe::Sender,
    pub(super) from_chrome: pipe::Receiver,
}

/// The latest lines that it wrote to stderr.
#[derive(Debug, Clone, Default)]
pub(super) struct Stderr(Arc<Mutex<VecDeque<String>>>);

impl Stderr {
    fn push(&self, line: &str) {
        let mut lines = lock(&self.0);
        if lines.len() == STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(300).collect());
    }

    /// The lines that may explain an end: not what it always complains about on a machine without a desktop.
    pub(super) fn tail(&self) -> String {
        let lines = lock(&self.0);
        let telling = lines.iter().filter(|line| {
            !["dbus", "bluez", "gcm", "vaapi", "DevTools listening"].iter().any(|noise| line.contains(noise))
        });
        let telling: Vec<&str> = telling.map(String::as_str).collect();
        telling[telling.len().saturating_sub(5)..].join(" | ")
    }
}

impl Process {
    /// Starts it. That it answers has still to be seen.
    pub(super) fn start(
        installed: &Installed,
        settings: &BrowserSettings,
        owner: &OwnerDir,
    ) -> Result<(Process, Pipes), BrowserError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| BrowserError::LaunchFailed {
            message: format!("{what}: {error}"),
            stderr: String::new(),
        };
        // Orphans of a killed browser come to us and can be waited for.
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::debug!(%error, "can't become a subreaper");
        }
        let dir = owner.browser_dir().map_err(|error| failed("can't make its directory", &error))?;
        let (to_chrome, child_in) = pipe::pipe().map_err(|error| failed("can't make a pipe", &error))?;
        let (child_out, from_chrome) = pipe::pipe().map_err(|error| failed("can't make a pipe", &error))?;
        let child_in = child_in.into_blocking_fd().map_err(|error| failed("can't make a pipe", &error))?;
        let child_out = child_out.into_blocking_fd().map_err(|error| failed("can't make a pipe", &error))?;

        let mut command = Command::new(&installed.path);
        command
            .args(install::flags(installed, settings, &dir.path.join("profile")))
            .env_clear()
            .env("HOME", dir.path.join("home"))
            .env("TMPDIR", dir.path.join("tmp"))
            .env("LANG", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin")
            .current_dir(dir.path.join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(user) = install::unprivileged_user() {
            // With a user given, the standard library also drops all supplementary groups.
            command.uid(user.uid).gid(user.gid);
        }
        let mappings =
            vec![FdMapping { parent_fd: child_in, child_fd: 3 }, FdMapping { parent_fd: child_out, child_fd: 4 }];
        command.fd_mappings(mappings).map_err(|error| failed("can't hand over the pipes", &error))?;
        let started = command.spawn();
        // Our copies of Chrome's ends live in the command: they must go, or its end would not be seen.
        drop(command);
        let mut child = started.map_err(|error| failed(&installed.path.display().to_string(), &error))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
            .ok_or_else(|| failed("it ended at once", &"no process id"))?;
        let no_core = Rlimit { current: Some(0), maximum: Some(0) };
        if let Err(error) = rustix::process::prlimit(Some(pid), Resource::Core, no_core) {
            tracing::debug!(%error, "can't turn core dumps off for chrome");
        }

        let stderr = Stderr::default();
        if let Some(from) = child.stderr.take() {
            let ring = stderr.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::with_capacity(4096, from);
                let mut line = Vec::new();
                while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
                    ring.push(String::from_utf8_lossy(&line).trim());
                    line.clear();
                }
            });
        }
        let (ended, exit) = watch::channel(None);
        tokio::spawn(watch_over(child, ended));
        Ok((Process { pid, exit, stderr, dir: Mutex::new(Some(dir)) }, Pipes { to_chrome, from_chrome }))
    }

    /// The main process.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// What it wrote to stderr of late.
    pub(super) fn stderr(&self) -> Stderr {
        self.stderr.clone()
    }

    /// To learn how it ended.
    pub(super) fn exit(&self) -> watch::Receiver<Option<String>> {
        self.exit.clone()
    }

    /// All its processes.
    pub(super) fn tree(&self) -> Vec<u32> {
        group_members(self.pid)
    }

    /// Bytes that its processes hold for themselves or share with each other; the program's own text is left out.
    pub(super) fn rss_bytes(&self) -> u64 {
        self.tree().into_iter().map(anonymous_bytes).sum()
    }

    /// Kills all of it, waits for it, and removes its directory.
    pub(super) async fn kill(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        let mut exit = self.exit.clone();
        let _ = tokio::time::timeout(Duration::from_secs(5), exit.wait_for(Option::is_some)).await;
        for _ in 0..100 {
            if reap_group(self.pid) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let dir = lock(&self.dir).take();
        // Thousands of small files at times: off the runtime's threads.
        let _ = tokio::task::spawn_blocking(move || drop(dir)).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if lock(&self.dir).is_some() {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            reap_group(self.pid);
        }
    }
}

async fn watch_over(mut child: Child, ended: watch::Sender<Option<String>>) {
    let how = match child.wait().await {
        Ok(status) => describe(status),
        Err(error) => format!("it can't be waited for: {error}"),
    };
    let _ = ended.send(Some(how));
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with status {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Collects ended children of ours that are in `group`; `true` when there are no more of them, alive or dead.
fn reap_group(group: Pid) -> bool {
    loop {
        match rustix::process::waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn group_members(group: Pid) -> Vec<u32> {
    let group = group.as_raw_nonzero().get().to_string();
    let in_group = |pid: &u32| {
        // `pid (name) state ppid pgrp …`; the name may hold anything, so from its closing parenthesis on.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.nth(2).is_some_and(|pgrp| pgrp == group)
    };
    processes().filter(in_group).collect()
}

fn anonymous_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    (kilobytes("RssAnon:") + kilobytes("RssShmem:")) * 1024
}

/// The command line, arguments separated by NUL.
pub(super) fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Kills browsers whose profile is below `dir`, and waits a little until they are gone.
pub(super) fn kill_those_on(dir: &Path) {
    let mut wanted = b"--user-data-dir=".to_vec();
    wanted.extend_from_slice(dir.as_os_str().as_bytes());
    wanted.push(b'/');
    let on_it = |pid: &u32| command_line(*pid).split(|byte| *byte == 0).any(|argument| argument.starts_with(&wanted));
    for pause in [0, 10, 50, 100, 200] {
        std::thread::sleep(Duration::from_millis(pause));
        let found: Vec<u32> = processes().filter(on_it).collect();
        if found.is_empty() {
            return;
        }
        for pid in found.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // Its group if it leads one, so that its helpers go with it.
            let group = rustix::process::getpgid(Some(pid)).ok().filter(|group| *group == pid);
            let _ = match group {
                Some(group) => rustix::process::kill_process_group(group, Signal::KILL),
                None => rustix::process::kill_process(pid, Signal::KILL),
            };
        }
    }
}

/// What the operating system says about `pid`, if it is a renderer.
pub(super) fn sandbox_of(pid: u32) -> Option<SandboxReport> {
    let arguments = command_line(pid);
    let is_renderer =
        arguments.split(|byte| *byte == 0 || *byte == b' ').any(|argument| argument == b"--type=renderer");
    if !is_renderer {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
    };
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user"));
    let own_user_namespace = match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(theirs), Ok(ours)) => theirs != ours,
        // Not ours to see: then the map of its users tells.
        _ => {
            let map = |pid: &str| fs::read_to_string(format!("/proc/{pid}/uid_map"));
            matches!((map(&pid.to_string()), map("self")), (Ok(theirs), Ok(ours)) if theirs != ours)
        }
    };
    Some(SandboxReport {
        renderer_pid: pid,
        seccomp: field("Seccomp:")?.parse().ok()?,
        own_user_namespace,
        uid: field("Uid:")?.parse().ok()?,
    })
}
