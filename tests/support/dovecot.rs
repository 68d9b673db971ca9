//! A real IMAP server of a test's own: Dovecot on loopback, with and without TLS, in a directory that goes with it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not every test file uses everything; a test that cannot go on stops"
)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

/// The password of every account.
pub const PASSWORD: &str = "only-for-tests-7f3a";

/// The server. It ends with its value.
pub struct Dovecot {
    dir: TempDir,
    child: Child,
    /// Without TLS; STARTTLS is offered.
    pub port: u16,
    /// With TLS from the first byte.
    pub tls_port: u16,
    owner: Option<(u32, u32)>,
    delivered: AtomicU32,
}

impl Dovecot {
    /// Starts it; None, with a message, where no Dovecot that this knows is installed.
    pub fn start() -> Option<Dovecot> {
        let version = Command::new("dovecot").arg("--version").output().ok();
        let version = version.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        if !version.starts_with("2.3") {
            println!("skipped: Dovecot 2.3 is not installed; apt-get install dovecot-imapd");
            return None;
        }
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let owner = rustix::process::geteuid().is_root().then(nobody);
        let (port, tls_port) = (free_port(), free_port());
        let place = dir.path().display();
        certify(dir.path());
        let me = owner.map_or_else(whoami, |_| "nobody".to_owned());
        let group = Command::new("id").args(["-gn", &me]).output().unwrap();
        let group = String::from_utf8_lossy(&group.stdout).trim().to_owned();
        let (uid, gid) = owner.unwrap_or((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
        let config = format!(
            "base_dir = {place}/base\nstate_dir = {place}/state\nlog_path = {place}/log\nprotocols = imap\nlisten = 127.0.0.1\n\
             ssl = yes\nssl_cert = <{place}/cert.pem\nssl_key = <{place}/key.pem\ndisable_plaintext_auth = no\n\
             mail_location = maildir:{place}/mail/%u:INDEX=MEMORY\nfirst_valid_uid = 0\nfirst_valid_gid = 0\n\
             default_login_user = {me}\ndefault_internal_user = {me}\ndefault_internal_group = {group}\n\
             passdb {{\n driver = static\n args = password={PASSWORD}\n}}\n\
             userdb {{\n driver = static\n args = uid={uid} gid={gid} home={place}/mail/%u\n}}\n\
             service imap-login {{\n chroot =\n inet_listener imap {{\n address = 127.0.0.1\n port = {port}\n }}\n\
             inet_listener imaps {{\n address = 127.0.0.1\n port = {tls_port}\n ssl = yes\n }}\n}}\n\
             service anvil {{\n chroot =\n}}\nservice auth {{\n user = {me}\n}}\nservice stats {{\n chroot =\n}}\n"
        );
        let file = dir.path().join("dovecot.conf");
        fs::write(&file, config).unwrap();
        fs::create_dir(dir.path().join("mail")).unwrap();
        if let Some((uid, gid)) = owner {
            chown(dir.path().join("mail"), Some(uid), Some(gid)).unwrap();
        }
        let mut start = Command::new("dovecot");
        start.arg("-F").arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = start.spawn().unwrap();
        let server = Dovecot { dir, child, port, tls_port, owner, delivered: AtomicU32::new(0) };
        server.wait_until_it_listens();
        Some(server)
    }

    fn wait_until_it_listens(&self) {
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(30), "Dovecot does not listen:\n{log}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The certificate to trust.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// From now on a box can't be opened before there has been a mail for it.
    pub fn make_no_boxes(&self) {
        self.let_boxes_be_made(0o555);
    }

    fn let_boxes_be_made(&self, mode: u32) {
        fs::set_permissions(self.dir.path().join("mail"), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Puts a mail into the box of `user` as if it had been taken in at `time`.
    pub fn deliver_at(&self, user: &str, mail: &str, time: SystemTime) {
        let new = self.dir.path().join("mail").join(user).join("new");
        let parts = ["new", "cur", "tmp"].map(|part| new.with_file_name(part));
        self.let_boxes_be_made(0o755);
        for part in &parts {
            fs::create_dir_all(part).unwrap();
        }
        let number = self.delivered.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}.M{number}P{}.test",
            time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(),
            std::process::id()
        );
        let written = parts[2].join(&name);
        fs::write(&written, mail.replace("\r\n", "\n")).unwrap();
        fs::File::options().write(true).open(&written).unwrap().set_modified(time).unwrap();
        if let Some((uid, gid)) = self.owner {
            for path in parts.iter().map(PathBuf::as_path).chain([new.parent().unwrap(), &written]) {
                chown(path, Some(uid), Some(gid)).unwrap();
            }
        }
        fs::rename(written, new.join(name)).unwrap();
    }

    /// Puts a mail into the box of `user` now.
    pub fn deliver(&self, user: &str, mail: &str) {
        self.deliver_at(user, mail, SystemTime::now());
    }

    /// Names of the files of a box, flags in them.
    pub fn files(&self, user: &str) -> Vec<String> {
        let place = self.dir.path().join("mail").join(user);
        let of = |part: &str| fs::read_dir(place.join(part)).into_iter().flatten().flatten().collect::<Vec<_>>();
        ["new", "cur"]
            .iter()
            .flat_map(|part| of(part))
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn whoami() -> String {
    String::from_utf8_lossy(&Command::new("id").arg("-un").output().unwrap().stdout).trim().to_owned()
}

/// Ids of the account that owns nothing.
fn nobody() -> (u32, u32) {
    let id = |what: &str| {
        let out = Command::new("id").args([what, "nobody"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse().unwrap()
    };
    (id("-u"), id("-g"))
}

fn certify(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
