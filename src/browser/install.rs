//! Which program to start, as whom, and with which flags.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::BrowserError;
use super::types::BrowserSettings;

/// Full paths first: Debian's command of that name is a script that stays between us and the program.
const PLACES: [&str; 7] = [
    "/usr/lib/chromium/chromium-headless-shell",
    "/usr/lib64/chromium-browser/headless_shell",
    "/headless-shell/headless-shell",
    "/opt/chrome-headless-shell/chrome-headless-shell",
    "/usr/lib/chromium/chromium",
    "/opt/google/chrome/chrome",
    "/usr/lib/chromium-browser/chromium-browser",
];

const NAMES: [&str; 8] = [
    "chromium-headless-shell",
    "chrome-headless-shell",
    "headless-shell",
    "headless_shell",
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
];

/// A Chrome that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    /// The program.
    pub(super) path: PathBuf,
    /// Whether it is the small headless-only build, a quarter of the price of the full one.
    pub(super) headless_shell: bool,
}

/// Finds the program: the configured one, else headless-shell, else a full one.
pub(super) fn find(configured: Option<&Path>) -> Result<Installed, BrowserError> {
    let candidates: Vec<PathBuf> = match configured {
        Some(path) => vec![path.to_owned()],
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let named = NAMES.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
            let mut all: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).chain(named).collect();
            all.sort_by_key(|path| !is_headless_shell(path));
            all
        }
    };
    match candidates.iter().find(|path| is_program(path)) {
        Some(path) => {
            let path = behind_wrapper(path);
            Ok(Installed { headless_shell: is_headless_shell(&path), path })
        }
        None if configured.is_some() => Err(BrowserError::NotInstalled { looked: candidates }),
        None => Err(BrowserError::NotInstalled { looked: PLACES.iter().map(PathBuf::from).collect() }),
    }
}

fn is_headless_shell(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().replace('_', "-")).unwrap_or_default();
    name.contains("headless-shell")
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Debian's scripts in `/usr/bin` stand before a program of the same name: that program.
fn behind_wrapper(path: &Path) -> PathBuf {
    let in_usr_bin = path.parent() == Some(Path::new("/usr/bin"));
    let real = path.file_name().map(|name| Path::new("/usr/lib/chromium").join(name));
    match real {
        Some(real) if in_usr_bin && is_program(&real) => real,
        _ => path.to_owned(),
    }
}

/// The user Chrome runs as when we are root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unprivileged {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// `pagehand` if there is such a user, else `nobody`; `None` when we are not root ourselves.
pub(super) fn unprivileged_user() -> Option<Unprivileged> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            let user = Unprivileged { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
            (name == wanted && user.uid != 0).then_some(user)
        })
    };
    find("pagehand").or_else(|| find("nobody")).or(Some(Unprivileged { uid: 65534, gid: 65534 }))
}

/// The command line, the profile's place included.
pub(super) fn flags(installed: &Installed, settings: &BrowserSettings, profile: &Path) -> Vec<String> {
    let (width, height) = settings.viewport;
    let mut flags: Vec<String> = [
        // No port: only whoever has our two pipes can speak to it, and it ends by itself when they close.
        "--remote-debugging-pipe",
        // Nothing of its own accord.
        "--disable-background-networking",
        "--disable-breakpad",
        "--disable-client-side-phishing-detection",
        "--disable-component-update",
        "--disable-crash-reporter",
        "--disable-default-apps",
        "--disable-domain-reliability",
        "--disable-extensions",
        "--disable-search-engine-choice-screen",
        "--disable-sync",
        "--metrics-recording-only",
        "--no-default-browser-check",
        "--no-first-run",
        "--no-service-autorun",
        "--password-store=basic",
        // No way around a proxy.
        "--disable-quic",
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        // Names are the proxy's to resolve: not even a hint of a page's to look one up ahead leaves the machine.
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        // Tabs beside each other are all equally awake.
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-hang-monitor",
        "--disable-renderer-backgrounding",
        // The same picture everywhere.
        "--force-color-profile=srgb",
        "--hide-scrollbars",
        "--mute-audio",
        "--lang=en-US",
        "--no-startup-window",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.push(format!("--user-data-dir={}", profile.display()));
    flags.push(format!("--window-size={width},{height}"));
    let mut off = vec![
        "AcceptCHFrame",
        "AutofillServerCommunication",
        "CertificateTransparencyComponentUpdater",
        "DestroyProfileOnBrowserClose",
        "DialMediaRouteProvider",
        "GlobalMediaControls",
        "HttpsUpgrades",
        "InterestFeedContentSuggestions",
        "LensOverlay",
        "MediaRouter",
        "OptimizationHints",
        "PaintHolding",
        "Translate",
    ];
    if !installed.headless_shell {
        flags.push("--headless".to_owned());
        // Each window would start two pages of browser interface: half of the price of a tab.
        off.extend(["WebUIOmniboxPopup", "WebUIOmniboxAimPopup"]);
    }
    flags.push(format!("--disable-features={}", off.join(",")));
    flags.push("--enable-features=NetworkServiceInProcess2".to_owned());
    if shared_memory_is_small() {
        flags.push("--disable-dev-shm-usage".to_owned());
    }
    if !settings.sandbox {
        flags.push("--no-sandbox".to_owned());
    }
    flags
}

/// Containers have 64 MB in `/dev/shm` unless told otherwise, and pages crash when it is full.
fn shared_memory_is_small() -> bool {
    rustix::fs::statvfs("/dev/shm").map_or(true, |fs| fs.f_blocks.saturating_mul(fs.f_frsize) < 512 << 20)
}
