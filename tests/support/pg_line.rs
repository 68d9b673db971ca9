//! A line to Postgres that can be cut: a socket of one's own that is forwarded to the server's.
#![allow(dead_code, reason = "not every test file uses everything")]
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

const SOCKET: &str = ".s.PGSQL.5432";

/// A line that works until it is cut, and again when it is mended.
pub struct PgLine {
    /// The address to give to the program.
    pub url: String,
    cut: Arc<(AtomicBool, Notify)>,
    _dir: TempDir,
}

impl PgLine {
    /// A line to the server at `url`.
    pub fn to(url: &str) -> PgLine {
        let options: PgConnectOptions = url.parse().unwrap();
        let server: PathBuf = options.get_socket().unwrap().join(SOCKET);
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let cut: Arc<(AtomicBool, Notify)> = Arc::default();
        let state = cut.clone();
        tokio::spawn(async move {
            loop {
                let Ok((mut client, _)) = listener.accept().await else { return };
                if state.0.load(Ordering::SeqCst) {
                    continue;
                }
                let (server, state) = (server.clone(), state.clone());
                tokio::spawn(async move {
                    let ended = state.1.notified();
                    let Ok(mut server) = UnixStream::connect(server).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = ended => {}
                    }
                });
            }
        });
        let path = dir.path().to_string_lossy().replace('/', "%2F");
        let database = options.get_database().unwrap();
        let url = format!("postgres://pagehand@localhost/{database}?host={path}");
        PgLine { url, cut, _dir: dir }
    }

    /// Ends all connections; new ones are closed at once.
    pub fn cut(&self) {
        self.cut.0.store(true, Ordering::SeqCst);
        self.cut.1.notify_waiters();
    }

    pub fn mend(&self) {
        self.cut.0.store(false, Ordering::SeqCst);
    }
}
