//! A private Postgres for whoever has none: run from the system's own binaries, under the data directory.
//!
//! Layout of `DATA_DIR/postgres/`: `data/` (the cluster), `postgres.log` (all that Postgres says), `socket/` (unless its
//! path is too long for a socket), `start.lock` (held while somebody starts the server), `users.lock` (held, shared, by
//! everybody who uses it). There is no TCP port; only the socket's owner and root can connect.
//!
//! The server belongs to no process in particular. Whoever comes first starts it; whoever comes later finds it running;
//! whoever leaves last, which is who can take `users.lock` alone, stops it. A process that is killed loses its lock and
//! cannot stop the server; the next one finds it running and takes it over. If the server was killed too, it leaves a
//! `postmaster.pid` whose number may belong to something else by now: such a file is removed, and Postgres recovers. A server
//! that is killed while it has users is started again by one of them ([`DevDb::revive`]).
//!
//! Postgres refuses to run as root. As root it is run as `postgres`, else `nobody`; if that user can't reach the data
//! directory, the cluster is under [`FALLBACK_DIR`] instead, and a file in the data directory says where.
//!
//! Rejected: a server that dies with whoever started it, because a second command must not lose its database when the
//! first one ends; `postgresql_embedded`, which fails as root.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};

use account::Account;
use server::{Server, Status};

mod account;
mod binaries;
mod server;

/// Where clusters are whose data directory Postgres' user can't reach.
pub const FALLBACK_DIR: &str = "/var/lib/pagehand";

/// How long somebody else may take to start or stop the server, and how long it may take to recover.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How long `initdb` may take.
const INIT_LIMIT: Duration = Duration::from_secs(120);
/// How long the server may take to stop before it is stopped the hard way.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Longest path of a socket (`sun_path`, without the NUL).
const MAX_SOCKET_PATH: usize = 107;
/// The log begins anew at a start when it is larger than this.
const MAX_LOG_BYTES: u64 = 10_000_000;
/// How often things that can only be looked at are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running private Postgres. Stops when the last user, in whichever process, has left.
#[derive(Debug)]
pub struct DevDb {
    cluster: Cluster,
    durability: Durability,
    /// Locked, shared; None once we have left.
    users: Option<File>,
}

/// How a private Postgres is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// What was committed survives a power failure.
    Full,
    /// Fast, and lost with the machine: for tests.
    None,
}

/// Why there is no private Postgres.
#[derive(Debug, thiserror::Error)]
pub enum DevDbError {
    /// The system has no Postgres.
    #[error(
        "no postgres binaries found in PG_BIN, `pg_config --bindir` or /usr/lib/postgresql/*/bin; install them with \
         `apt-get install postgresql`, or set DATABASE_URL to a postgres that runs elsewhere"
    )]
    NoBinaries,
    /// The cluster is of a version that is not installed.
    #[error(
        "the cluster in {path} is of postgres {version}, which is not installed; install it with `apt-get install \
         postgresql-{version}`, or move the directory away"
    )]
    OtherVersion {
        /// Where it is.
        path: PathBuf,
        /// Its major version.
        version: String,
    },
    /// Running as root, and there is nobody to run Postgres as.
    #[error("postgres refuses to run as root, and there is neither a user `postgres` nor `nobody` to run it as")]
    NoUser,
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    Init(String),
    /// The server ended at once, or was not ready in time.
    #[error("postgres did not start: {problem}; its log is {log}")]
    Start {
        /// What it said last.
        problem: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// Another process holds a lock for too long.
    #[error(
        "another process has been starting or stopping the postgres in {0} for over a minute; end it and try again"
    )]
    Busy(PathBuf),
    /// A directory for the socket that is not ours.
    #[error("{0} belongs to somebody else; remove it, or set XDG_RUNTIME_DIR")]
    ForeignSocketDir(PathBuf),
    /// A file or directory can't be used.
    #[error(
        "the private Postgres can't use {path}: {source}; set data.dir to a directory that this user can write, or \
         DATABASE_URL"
    )]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where everything is, and whom it belongs to.
#[derive(Debug)]
struct Cluster {
    /// `DATA_DIR/postgres`, or its stand-in.
    base: PathBuf,
    socket_dir: PathBuf,
    /// Whom Postgres runs as; None: as ourselves.
    account: Option<Account>,
}

impl DevDb {
    /// Starts the private Postgres of `data_dir`, or joins those who use it already. The directory is created.
    ///
    /// # Errors
    /// See [`DevDbError`]; each says how to mend it.
    pub async fn start(data_dir: &Path) -> Result<DevDb, DevDbError> {
        DevDb::start_with(data_dir, Durability::Full).await
    }

    /// As [`DevDb::start`]; the durability is that of whoever starts the server.
    ///
    /// # Errors
    /// As for [`DevDb::start`].
    pub async fn start_with(data_dir: &Path, durability: Durability) -> Result<DevDb, DevDbError> {
        let cluster = Cluster::place(data_dir)?;
        let until = Instant::now() + START_LIMIT;
        // Before looking at the server: from here on nobody stops it.
        let users = cluster.lock("users.lock", FlockOperation::NonBlockingLockShared, until).await?;
        let starting = cluster.lock("start.lock", FlockOperation::NonBlockingLockExclusive, until).await?;
        let up = cluster.bring_up(durability, until).await;
        unlock(starting);
        if let Err(error) = up {
            unlock(users);
            return Err(error);
        }
        Ok(DevDb { cluster, durability, users: Some(users) })
    }

    /// Starts the server again if it has ended although we use it: somebody killed it, or the kernel did. True: it had,
    /// and it is up again.
    ///
    /// # Errors
    /// As for [`DevDb::start`].
    pub async fn revive(&self) -> Result<bool, DevDbError> {
        if Server::of(&self.cluster.data_dir()).is_some() {
            return Ok(false);
        }
        let until = Instant::now() + START_LIMIT;
        let starting = self.cluster.lock("start.lock", FlockOperation::NonBlockingLockExclusive, until).await?;
        // Another user may have been quicker; then this finds it running.
        let up = self.cluster.bring_up(self.durability, until).await;
        unlock(starting);
        up.map(|()| true)
    }

    /// An address for sqlx and psql.
    pub fn url(&self) -> String {
        let host: String = url::form_urlencoded::byte_serialize(self.cluster.socket_dir.as_os_str().as_encoded_bytes())
            .collect::<String>()
            .replace('+', "%20");
        format!("postgres://pagehand@localhost/postgres?host={host}")
    }

    /// Where Postgres writes what it has to say.
    pub fn log_path(&self) -> PathBuf {
        self.cluster.log_path()
    }

    /// Leaves; the last one to leave stops the server and waits until it has ended.
    pub async fn stop(mut self) {
        let Some(server) = self.leave() else { return };
        server.ask_to_stop();
        if timeout(STOP_LIMIT, ended(&server)).await.is_err() {
            server.stop_hard();
            let _ = timeout(STOP_LIMIT, ended(&server)).await;
        }
        self.cluster.remove_socket_dir();
        // Until here nobody could join: the lock was held alone.
        self.give_up_lock();
    }

    fn give_up_lock(&mut self) {
        if let Some(users) = self.users.take() {
            unlock(users);
        }
    }

    /// The server, if we are the last user: then `users.lock` is held alone.
    fn leave(&mut self) -> Option<Server> {
        let users = self.users.as_ref()?;
        if flock(users, FlockOperation::NonBlockingLockExclusive).is_err() {
            self.give_up_lock();
            return None;
        }
        Server::of(&self.cluster.data_dir())
    }
}

/// Closing alone is not enough: a process that is being started by another thread holds a copy for a moment.
fn unlock(file: File) {
    // It can't fail for a lock that is held, and if it did, closing would follow at once.
    let _ = flock(&file, FlockOperation::Unlock);
}

impl Drop for DevDb {
    /// For whoever does not come to call [`DevDb::stop`]: blocks for a moment if we are the last.
    fn drop(&mut self) {
        let Some(server) = self.leave() else { return };
        server.ask_to_stop();
        for _ in 0..250 {
            if !server.runs() {
                self.cluster.remove_socket_dir();
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.give_up_lock();
    }
}

async fn ended(server: &Server) {
    while server.runs() {
        sleep(LOOK_EVERY).await;
    }
}

impl Cluster {
    fn place(data_dir: &Path) -> Result<Cluster, DevDbError> {
        let wanted = data_dir.join("postgres");
        fs::create_dir_all(&wanted).map_err(at(&wanted))?;
        let wanted = wanted.canonicalize().map_err(at(&wanted))?;
        let account = Account::for_postgres()?;
        let base = match &account {
            Some(account) if !account.can_reach(&wanted) => {
                let base = Path::new(FALLBACK_DIR).join(short_name(&wanted));
                fs::create_dir_all(&base).map_err(at(&base))?;
                let note = wanted.join("moved-to.txt");
                let text = format!(
                    "The user `{}`, as whom postgres runs, can't reach this directory. The cluster is in {}\n",
                    account.name,
                    base.display()
                );
                fs::write(&note, text).map_err(at(&note))?;
                tracing::info!(cluster = %base.display(), user = account.name, "the data directory is out of postgres' reach");
                base
            }
            _ => wanted,
        };
        if let Some(account) = &account {
            chown(&base, Some(account.uid), Some(account.gid)).map_err(at(&base))?;
        }
        Ok(Cluster { socket_dir: socket_dir(&base, account.is_some()), base, account })
    }

    fn data_dir(&self) -> PathBuf {
        self.base.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.base.join("postgres.log")
    }

    /// Opens and locks a file, waiting for whoever has it.
    async fn lock(&self, name: &str, how: FlockOperation, until: Instant) -> Result<File, DevDbError> {
        let path = self.base.join(name);
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(at(&path))?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < until => {
                    sleep(LOOK_EVERY).await;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(DevDbError::Busy(self.base.clone())),
                Err(errno) => return Err(at(&path)(errno.into())),
            }
        }
    }

    async fn bring_up(&self, durability: Durability, until: Instant) -> Result<(), DevDbError> {
        // One that runs is ready, or on its way up, or on its way down because its last user was in a hurry.
        while server::is_in_use(&self.data_dir()) {
            match Server::of(&self.data_dir()).map(|server| server.status()) {
                Some(Status::Ready) if self.answers() => return Ok(()),
                _ if Instant::now() > until => {
                    return Err(self.start_failed("it neither gets ready nor ends".to_owned()));
                }
                _ => sleep(LOOK_EVERY).await,
            }
        }
        self.create_socket_dir()?;
        server::remove_leftovers(&self.data_dir(), &self.socket_dir);
        let version_file = self.data_dir().join("PG_VERSION");
        let version = fs::read_to_string(version_file).ok().map(|text| text.trim().to_owned());
        let binaries = binaries::find(version.as_deref(), &self.data_dir())?;
        if version.is_none() {
            self.init(&binaries).await?;
        }
        self.run(&binaries, durability, until).await
    }

    /// Creates the cluster beside its place and then moves it there: one that was left half done is never taken for whole.
    async fn init(&self, binaries: &Path) -> Result<(), DevDbError> {
        let half = self.base.join("data.new");
        let mut said = String::new();
        for locale in ["C.UTF-8", "C"] {
            let _ = fs::remove_dir_all(&half);
            let mut command = tokio::process::Command::from(self.command(&binaries.join("initdb")));
            command.arg("-D").arg(&half).args(["-U", "pagehand", "-A", "trust", "-E", "UTF8", "--no-sync"]);
            command.arg(format!("--locale={locale}")).kill_on_drop(true);
            let output = timeout(INIT_LIMIT, command.output())
                .await
                .map_err(|_| DevDbError::Init(format!("it took over {} s", INIT_LIMIT.as_secs())))?
                .map_err(at(&binaries.join("initdb")))?;
            if output.status.success() {
                let place = self.data_dir();
                let _ = fs::remove_dir_all(&place);
                return fs::rename(&half, &place).map_err(at(&place));
            }
            said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        }
        Err(DevDbError::Init(said))
    }

    async fn run(&self, binaries: &Path, durability: Durability, until: Instant) -> Result<(), DevDbError> {
        let path = self.log_path();
        let fresh = fs::metadata(&path).is_ok_and(|log| log.len() > MAX_LOG_BYTES);
        let log = OpenOptions::new().create(true).append(!fresh).write(true).truncate(fresh).open(&path);
        let log = log.map_err(at(&path))?;
        let mut command = self.command(&binaries.join("postgres"));
        command.arg("-D").arg(self.data_dir());
        let mut settings = vec![
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", quoted_list_item(&self.socket_dir)),
            "unix_socket_permissions=0700".to_owned(),
            "max_connections=200".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            "lc_messages=C".to_owned(),
        ];
        if durability == Durability::None {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
        }
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(at(&path))?).stderr(log);
        // Control-C is for us; the server may have other users.
        command.process_group(0);
        let program = binaries.join("postgres");
        let mut child = command.spawn().map_err(at(&program))?;
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(self.start_failed(format!("it ended with {status}: {}", tail(&path))));
            }
            if Server::of(&self.data_dir()).is_some_and(|server| server.status() == Status::Ready) && self.answers() {
                break;
            }
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(self.start_failed(format!("it was not ready in time: {}", tail(&path))));
            }
            sleep(LOOK_EVERY).await;
        }
        // It may outlive us. If it does not, somebody has to take its exit status.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.current_dir(&self.base).env("LC_ALL", "C").env_remove("NOTIFY_SOCKET");
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid).env("HOME", &self.base);
        }
        command
    }

    fn answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket_dir.join(server::SOCKET)).is_ok()
    }

    /// Ours alone: where others can write, somebody may have been there before us.
    fn create_socket_dir(&self) -> Result<(), DevDbError> {
        let dir = &self.socket_dir;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => {
                if let Some(account) = &self.account {
                    chown(dir, Some(account.uid), Some(account.gid)).map_err(at(dir))?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(dir)(error)),
        }
        let found = fs::symlink_metadata(dir).map_err(at(dir))?;
        let owner = self.account.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid);
        if found.is_dir() && found.uid() == owner && found.permissions().mode() & 0o077 == 0 {
            Ok(())
        } else {
            Err(DevDbError::ForeignSocketDir(dir.clone()))
        }
    }

    fn remove_socket_dir(&self) {
        // Only if it is empty; it is made again when it is needed.
        let _ = fs::remove_dir(&self.socket_dir);
    }

    fn start_failed(&self, problem: String) -> DevDbError {
        DevDbError::Start { problem, log: self.log_path() }
    }
}

/// Where the socket is: in the cluster's directory if that path is short enough.
fn socket_dir(base: &Path, root: bool) -> PathBuf {
    let near = base.join("socket");
    if near.as_os_str().len() + 1 + server::SOCKET.len() <= MAX_SOCKET_PATH {
        return near;
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|dir| !root && dir.is_absolute() && dir.as_os_str().len() < 60);
    runtime.unwrap_or_else(|| PathBuf::from("/tmp")).join(format!("pagehand-{}", short_name(base)))
}

/// A name that stands for a path.
fn short_name(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// A path as an item of a comma-separated setting.
fn quoted_list_item(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('"', "\"\""))
}

/// The last lines of the log.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
}

/// Names the path an error is about.
fn at(path: &Path) -> impl Fn(io::Error) -> DevDbError {
    let path = path.to_owned();
    move |source| DevDbError::Io { path: path.clone(), source }
}
