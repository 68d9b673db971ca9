//! The private Postgres: shared by processes, stopped by the last, recovered after a kill.
#![allow(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::fs;
use std::path::Path;

use pagehand::devdb::{DevDb, Durability};
use sqlx::{Connection, PgConnection};

async fn start(dir: &Path) -> DevDb {
    DevDb::start_with(dir, Durability::None).await.unwrap()
}

async fn works(db: &DevDb) -> bool {
    let Ok(mut connection) = PgConnection::connect(&db.url()).await else { return false };
    sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut connection).await.is_ok_and(|one| one == 1)
}

/// Under `/tmp`, where Postgres' user can go too.
fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn postmaster(dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(dir.join("postgres/data/postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok()
}

fn kill(number: i32) {
    let pid = rustix::process::Pid::from_raw(number).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while fs::read_link(format!("/proc/{number}/cwd")).is_ok() {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn it_starts_from_nothing_and_is_gone_when_stopped() {
    let dir = data_dir();
    let db = start(dir.path()).await;
    assert!(works(&db).await);
    let pid = postmaster(dir.path()).unwrap();
    db.stop().await;
    assert_eq!(postmaster(dir.path()), None);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn what_was_written_is_there_after_the_next_start() {
    let dir = data_dir();
    let db = start(dir.path()).await;
    let mut connection = PgConnection::connect(&db.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t AS SELECT 7 AS n").execute(&mut connection).await.unwrap();
    drop(connection);
    db.stop().await;
    let db = start(dir.path()).await;
    let mut connection = PgConnection::connect(&db.url()).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT n FROM t").fetch_one(&mut connection).await.unwrap(), 7);
    db.stop().await;
}

#[tokio::test]
async fn a_second_user_keeps_it_running_when_the_first_leaves() {
    let dir = data_dir();
    let first = start(dir.path()).await;
    let second = start(dir.path()).await;
    assert_eq!(first.url(), second.url());
    first.stop().await;
    assert!(works(&second).await);
    second.stop().await;
    assert_eq!(postmaster(dir.path()), None);
}

#[tokio::test]
async fn many_who_start_at_the_same_time_share_one_server() {
    let dir = data_dir();
    let all = futures::future::join_all((0..6).map(|_| start(dir.path()))).await;
    let pid = postmaster(dir.path());
    for db in all {
        assert!(works(&db).await);
        assert_eq!(postmaster(dir.path()), pid);
        db.stop().await;
    }
    assert_eq!(postmaster(dir.path()), None);
}

#[tokio::test]
async fn dropping_the_last_user_stops_it_too() {
    let dir = data_dir();
    drop(start(dir.path()).await);
    assert_eq!(postmaster(dir.path()), None);
    let db = start(dir.path()).await;
    assert!(works(&db).await);
    db.stop().await;
}

#[tokio::test]
async fn a_server_that_was_killed_is_recovered() {
    let dir = data_dir();
    let db = start(dir.path()).await;
    kill(postmaster(dir.path()).unwrap());
    let again = start(dir.path()).await;
    assert!(works(&again).await);
    again.stop().await;
    assert!(postmaster(dir.path()).is_some(), "the other user is still there");
    db.stop().await;
    assert_eq!(postmaster(dir.path()), None);
}

#[tokio::test]
async fn a_pid_file_whose_number_belongs_to_something_else_does_not_keep_it_from_starting() {
    let dir = data_dir();
    start(dir.path()).await.stop().await;
    let cluster = dir.path().join("postgres/data");
    fs::write(cluster.join("postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let db = start(dir.path()).await;
    assert!(works(&db).await);
    db.stop().await;
}

#[tokio::test]
async fn a_half_made_cluster_is_made_again() {
    let dir = data_dir();
    fs::create_dir_all(dir.path().join("postgres/data.new/base")).unwrap();
    let db = start(dir.path()).await;
    assert!(works(&db).await);
    db.stop().await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let dir = data_dir();
    let deep = dir.path().join("a".repeat(60)).join("b'\" ü%+".repeat(8));
    let db = start(&deep).await;
    assert!(works(&db).await, "{}", db.url());
    db.stop().await;
    assert_eq!(postmaster(&deep), None);
}

#[tokio::test]
async fn a_data_directory_out_of_reach_of_postgres_user_is_no_obstacle() {
    use std::os::unix::fs::PermissionsExt;
    let dir = data_dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let db = start(dir.path()).await;
    assert!(works(&db).await);
    let note = dir.path().join("postgres/moved-to.txt");
    if rustix::process::geteuid().is_root() {
        let moved = db.log_path().parent().unwrap().to_owned();
        assert!(fs::read_to_string(note).unwrap().contains(moved.to_str().unwrap()));
        db.stop().await;
        fs::remove_dir_all(moved).unwrap();
    } else {
        assert!(!note.exists());
        db.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_can_not_start_says_why() {
    let dir = data_dir();
    start(dir.path()).await.stop().await;
    fs::write(dir.path().join("postgres/data/postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let error = DevDb::start(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("no_such_setting") && error.contains("postgres.log"), "{error}");
}

#[tokio::test]
async fn a_cluster_of_a_version_that_is_not_installed_is_left_alone() {
    let dir = data_dir();
    let cluster = dir.path().join("postgres/data");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("PG_VERSION"), "9\n").unwrap();
    let error = DevDb::start(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("postgresql-9"), "{error}");
}

#[tokio::test]
async fn one_that_was_killed_under_its_user_is_started_again_with_all_that_was_written() {
    let dir = data_dir();
    let db = DevDb::start(dir.path()).await.unwrap();
    let mut connection = PgConnection::connect(&db.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t AS SELECT 7 AS n").execute(&mut connection).await.unwrap();
    assert!(!db.revive().await.unwrap(), "it runs");
    let killed = postmaster(dir.path()).unwrap();
    kill(killed);
    assert!(db.revive().await.unwrap());
    assert_ne!(postmaster(dir.path()), Some(killed));
    let mut connection = PgConnection::connect(&db.url()).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT n FROM t").fetch_one(&mut connection).await.unwrap(), 7);
    drop(connection);
    db.stop().await;
    assert_eq!(postmaster(dir.path()), None);
}
