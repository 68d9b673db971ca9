//! A proxy between the workers and Postgres that loses answers after the commit and lets connections go silent.
//!
//! It understands as much of the protocol as it needs to know which statement is under way on a connection.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SOCKET: &str = ".s.PGSQL.5432";

pub struct Proxy {
    dir: tempfile::TempDir,
    rules: Arc<Mutex<Vec<Loss>>>,
    silent: watch::Sender<bool>,
    server: JoinHandle<()>,
}

/// The answer to the statement that contains `part` is lost, the `skip` first times excepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub part: &'static str,
    pub skip: u32,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Proxy {
    /// In front of the server at `url`, whose `host` is a directory.
    pub fn start(url: &str) -> Proxy {
        let host = url::Url::parse(url).expect("an address is a URL");
        let host = host.query_pairs().find(|(name, _)| name == "host").map(|(_, value)| value.into_owned());
        let upstream = PathBuf::from(host.expect("it has a socket")).join(SOCKET);
        // A short path: those of sockets may not be long.
        let dir = tempfile::Builder::new().prefix("ph-").tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(dir.path().join(SOCKET)).expect("a socket can be made");
        let (silent, _) = watch::channel(false);
        let rules: Arc<Mutex<Vec<Loss>>> = Arc::default();
        let (known, silence) = (rules.clone(), silent.clone());
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), known.clone(), silence.subscribe()));
            }
        });
        Proxy { dir, rules, silent, server }
    }

    pub fn url(&self) -> String {
        let host: String =
            url::form_urlencoded::byte_serialize(self.dir.path().as_os_str().as_encoded_bytes()).collect();
        format!("postgres://pagehand@localhost/postgres?host={host}")
    }

    pub fn lose(&self, loss: Loss) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(loss);
    }

    /// While silent nothing passes, and nobody is told; the connections of that time are closed when it ends.
    pub fn be_silent(&self, silent: bool) {
        self.silent.send_replace(silent);
    }
}

async fn serve(client: UnixStream, upstream: PathBuf, rules: Arc<Mutex<Vec<Loss>>>, mut silent: watch::Receiver<bool>) {
    if *silent.borrow() {
        let _ = silent.wait_for(|silent| !silent).await;
        return;
    }
    let Ok(server) = UnixStream::connect(upstream).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let losing = AtomicBool::new(false);
    tokio::select! {
        () = requests(&mut from_client, &mut to_server, &rules, &losing) => return,
        () = answers(&mut from_server, &mut to_client, &losing) => return,
        _ = silent.wait_for(|silent| *silent) => {}
    }
    // Both ends stay open, and hear nothing.
    let _ = silent.wait_for(|silent| !silent).await;
}

async fn requests(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, rules: &Mutex<Vec<Loss>>, losing: &AtomicBool) {
    let mut reader = Reader::default();
    let mut block = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut block).await else { return };
        for statement in reader.take(&block[..read]) {
            let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = rules.iter().position(|loss| statement.contains(loss.part)) {
                if rules[at].skip == 0 {
                    rules.remove(at);
                    losing.store(true, Ordering::SeqCst);
                } else {
                    rules[at].skip -= 1;
                }
            }
        }
        if to.write_all(&block[..read]).await.is_err() {
            return;
        }
    }
}

async fn answers(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, losing: &AtomicBool) {
    let mut block = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut block).await else { return };
        if losing.load(Ordering::SeqCst) {
            // "Ready for query": the statement has committed, and nobody hears of it.
            if block[..read].windows(5).any(|bytes| bytes == [b'Z', 0, 0, 0, 5]) {
                return;
            }
        } else if to.write_all(&block[..read]).await.is_err() {
            return;
        }
    }
}

/// Reads what a client sends, as far as it says which statement is carried out.
#[derive(Default)]
struct Reader {
    begun: bool,
    rest: Vec<u8>,
    prepared: HashMap<Vec<u8>, String>,
}

impl Reader {
    /// The statements that these bytes have carried out.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut done = Vec::new();
        loop {
            let kind_length = usize::from(self.begun);
            let Some(length) = self.rest.get(kind_length..kind_length + 4) else { return done };
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize + kind_length;
            if self.rest.len() < length {
                return done;
            }
            let message: Vec<u8> = self.rest.drain(..length).collect();
            if !self.begun {
                // Asking for TLS comes before the start, and is refused on a socket.
                self.begun = message[4..] != 80_877_103_u32.to_be_bytes();
                continue;
            }
            let mut texts = message[5..].split(|byte| *byte == 0);
            match message[0] {
                b'P' => {
                    let name = texts.next().unwrap_or_default().to_vec();
                    let statement = String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
                    self.prepared.insert(name, statement);
                }
                b'B' => {
                    let name = texts.nth(1).unwrap_or_default();
                    done.extend(self.prepared.get(name).cloned());
                }
                _ => {}
            }
        }
    }
}
