//! A database for one test: a copy of a migrated template, in a private Postgres that all tests of a process share.
#![allow(dead_code, reason = "not every test file uses everything")]
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::path::Path;
use std::sync::{Arc, Weak};

use pagehand::devdb::{DevDb, Durability};
use pagehand::queue::Queue;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::Mutex;

#[path = "unguarded.rs"]
mod unguarded;

/// The server of this process, while a test uses it.
static SERVER: Mutex<Weak<DevDb>> = Mutex::const_new(Weak::new());

/// An empty, migrated database of one's own. Dropped with its value.
pub struct TestDb {
    /// Its address.
    pub url: String,
    /// For statements that the queue has no function for.
    pub pool: PgPool,
    name: String,
    server: Arc<DevDb>,
}

impl TestDb {
    pub async fn new() -> TestDb {
        let server = server().await;
        let template = template(&server).await;
        let name = format!("test_{:016x}", rand::random::<u64>());
        let mut admin = admin(&server.url()).await;
        run(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        admin.close().await.unwrap();
        let url = server.url().replace("/postgres?", &format!("/{name}?"));
        let pool = PgPool::connect(&url).await.unwrap();
        unguarded::take_out(&mut pool.acquire().await.unwrap()).await;
        TestDb { url, pool, name, server }
    }

    /// A queue with connections of its own, as each worker process has.
    pub async fn queue(&self) -> Queue {
        Queue::connect(&self.url, 8).await.unwrap()
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let url = self.server.url();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // Not on the test's own runtime, which may be the one that is being shut down.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut admin = admin(&url).await;
                let _ = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await;
            });
        });
        let _ = dropped.join();
    }
}

async fn server() -> Arc<DevDb> {
    let mut current = SERVER.lock().await;
    if let Some(server) = current.upgrade() {
        return server;
    }
    let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("database");
    let server = Arc::new(DevDb::start_with(&data_dir, Durability::None).await.unwrap());
    *current = Arc::downgrade(&server);
    server
}

/// A migrated database to copy. Its name has the checksums of the migrations, so that a change of them makes a new one.
async fn template(server: &DevDb) -> String {
    // Names in Postgres have 63 bytes at most, so it is a checksum of the checksums.
    let checksums: Vec<u8> = sqlx::migrate!().iter().flat_map(|step| step.checksum.iter().copied()).collect();
    let digest = Sha256::digest(&checksums);
    let name = digest.iter().take(16).fold("template_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    let mut admin = admin(&server.url()).await;
    // One at a time, over all processes: the lock ends with the connection.
    run(&mut admin, "SELECT pg_advisory_lock(4711)".to_owned()).await;
    let there = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)");
    if !there.bind(&name).fetch_one(&mut admin).await.unwrap() {
        let half = format!("half_{name}");
        run(&mut admin, format!("DROP DATABASE IF EXISTS {half} WITH (FORCE)")).await;
        run(&mut admin, format!("CREATE DATABASE {half}")).await;
        let queue = Queue::connect(&server.url().replace("/postgres?", &format!("/{half}?")), 1).await.unwrap();
        queue.migrate().await.unwrap();
        queue.close().await;
        run(&mut admin, format!("ALTER DATABASE {half} RENAME TO {name}")).await;
    }
    admin.close().await.unwrap();
    name
}

async fn admin(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

async fn run(connection: &mut PgConnection, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}
