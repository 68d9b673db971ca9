//! What callers hand to a browser and get back from it: plain data, no behaviour.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use super::egress::{EgressPolicy, UpstreamProxy};

/// How Chrome is run.
#[derive(Debug, Clone)]
pub struct BrowserSettings {
    /// The program to start. `None`: chromium-headless-shell, else chromium, else Chrome, wherever they are installed.
    pub executable: Option<PathBuf>,
    /// `ws://` of a remote browser; nothing is started locally then.
    pub endpoint: Option<Url>,
    /// `false` runs Chrome without its sandbox: only where the configuration says so in as many words.
    pub sandbox: bool,
    /// Profiles and temporary directories live below it; those of dead owners are removed at start.
    pub state_dir: PathBuf,
    /// A browser that has carried this many tasks is replaced by a fresh one.
    pub recycle_after_tasks: u32,
    /// A browser whose process tree holds more resident memory than this many bytes is replaced by a fresh one.
    pub recycle_above_bytes: u64,
    /// Width and height of the page in CSS pixels.
    pub viewport: (u32, u32),
}

impl Default for BrowserSettings {
    fn default() -> Self {
        Self {
            executable: None,
            endpoint: None,
            sandbox: true,
            state_dir: std::env::temp_dir().join("pagehand"),
            recycle_after_tasks: 100,
            recycle_above_bytes: 1_500_000_000,
            viewport: (1280, 800),
        }
    }
}

/// What a browser says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct BrowserVersion {
    /// For example `HeadlessChrome/156.0.7977.3`.
    pub product: String,
    /// Version of the DevTools protocol.
    pub protocol_version: String,
    /// The User-Agent it sends when none is set.
    pub user_agent: String,
}

/// What the operating system says about a renderer process of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SandboxReport {
    /// The renderer that was looked at.
    pub renderer_pid: u32,
    /// `Seccomp` of `/proc/PID/status`: 2 means system calls are filtered.
    pub seccomp: u8,
    /// Whether it lives in a user namespace other than ours.
    pub own_user_namespace: bool,
    /// The user it runs as, seen from outside.
    pub uid: u32,
}

impl SandboxReport {
    /// Both layers are there.
    pub fn is_sandboxed(&self) -> bool {
        self.seccomp == 2 && self.own_user_namespace
    }
}

/// The pool at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// Browsers started so far.
    pub launches: u64,
    /// Browsers that ended without being asked to.
    pub crashes: u64,
    /// Launches that failed since the last one that did not.
    pub failed_launches_in_a_row: u32,
    /// Tabs open now.
    pub open_tabs: usize,
    /// Main processes of the browsers alive now, the spare and those that drain included.
    pub pids: Vec<u32>,
    /// Resident bytes of all their processes.
    pub rss_bytes: u64,
}

/// What a task wants of its browsing context.
#[derive(Debug, Clone)]
pub struct TabOptions {
    /// `None`: Chrome's own.
    pub user_agent: Option<String>,
    /// `None`: straight to the site.
    pub proxy: Option<UpstreamProxy>,
    /// Where its traffic may go.
    pub policy: EgressPolicy,
    /// End of the whole attempt: no call outlives it.
    pub deadline: Instant,
}

/// Where a navigation has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Landed {
    /// The document's address, after redirects.
    pub url: String,
    /// Status of the document's answer; `None` for `about:` and `data:` pages.
    pub status: Option<u16>,
    /// The site's wish from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The document's media type, for example `text/html`.
    pub mime_type: Option<String>,
    /// Chrome's name for this load.
    pub loader_id: String,
    /// `true`: the load event was seen. `false`: the document is there, something on it did not end within the limit.
    pub loaded: bool,
}

/// Names a frame of a tab; of a main frame and of one in another process alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameId(pub String);

impl FrameId {
    /// Chrome's identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for FrameId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A frame of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// To name it in calls.
    pub id: FrameId,
    /// `None` for the main frame.
    pub parent: Option<FrameId>,
    /// Address of its document.
    pub url: String,
    /// The `name` of its frame element, else its `id`, else empty.
    pub name: String,
    /// Whether its document can be looked into.
    pub reachable: bool,
    /// Why not, for example `net::ERR_BLOCKED_BY_RESPONSE`.
    pub error: Option<String>,
    /// CSS selector of its frame element in the parent document, where that is known.
    pub element: Option<String>,
}

/// An element that `ph.keep` has put into the registry of its frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElementRef {
    /// The frame it is in.
    pub frame: FrameId,
    /// The number `ph.keep` gave it.
    pub handle: u32,
}

/// Which of the checks before an action did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionCheck {
    /// It has a box and is not hidden.
    Visible,
    /// Its box was the same in two animation frames.
    Stable,
    /// It is not disabled.
    Enabled,
    /// It takes text: neither read-only nor of another kind.
    Editable,
    /// Its middle can be scrolled into the viewport.
    InViewport,
    /// A click there arrives at it and at nothing that lies over it.
    ReceivesEvents,
}

impl ActionCheck {
    /// The name in messages and step records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Visible => "visible",
            Self::Stable => "stable",
            Self::Enabled => "enabled",
            Self::Editable => "editable",
            Self::InViewport => "in_viewport",
            Self::ReceivesEvents => "receives_events",
        }
    }
}

/// What lies over an element.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct CoveringElement {
    /// A CSS selector for it, good enough for a person to find it.
    pub css: String,
    /// The beginning of its text.
    pub text: String,
    /// Its computed `z-index`.
    pub z_index: String,
    /// x, y, width and height in CSS pixels of its frame's viewport.
    pub rect: [f64; 4],
}

/// The document as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomCapture {
    /// HTML with the fields' present values; passwords and one-time codes are blanked.
    pub html: String,
    /// Whether the end is missing because of the cap.
    pub truncated: bool,
    /// Length without the cap, in UTF-16 units as the page counts them.
    pub full_bytes: u64,
}

/// What has happened on a tab, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TabCounters {
    /// `alert`, `confirm` and `prompt` that were answered for the page.
    pub dialogs: u32,
    /// `beforeunload` questions answered with leave.
    pub beforeunloads: u32,
    /// Downloads denied.
    pub downloads: u32,
    /// Windows the page opened, closed again.
    pub popups: u32,
    /// File choosers cancelled.
    pub file_choosers: u32,
    /// Scripts that never ended, stopped so that the page could be looked at.
    pub scripts_stopped: u32,
    /// Requests like the one that submitted, refused after it.
    pub refused_repeats: u32,
    /// Messages of level error and uncaught exceptions.
    pub console_errors: u32,
    /// Requests sent.
    pub requests: u32,
    /// Requests that failed below HTTP.
    pub failed_requests: u32,
    /// Bytes received on the wire.
    pub bytes_received: u64,
    /// Protocol calls made.
    pub calls: u64,
}

/// What kind of trouble a [`NetworkTrouble`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// No HTTP answer.
    RequestFailed,
    /// A status of 400 or above.
    HttpStatus,
    /// A console message of level error.
    ConsoleError,
    /// An exception that nobody caught.
    Exception,
}

/// One thing that went wrong on the page. Of the latest 64 a tab keeps record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkTrouble {
    /// Since the tab was opened.
    #[serde(serialize_with = "as_millis")]
    pub after: Duration,
    /// Which kind.
    pub kind: TroubleKind,
    /// The address it is about, cut to 512 characters; may be empty.
    pub url: String,
    /// Status of the answer.
    pub status: Option<u16>,
    /// `net::ERR_…`, or the message, cut to 512 characters.
    pub text: String,
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What is to happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Not the submission: let it go at once.
    Pass,
    /// The submission: hold it and ask [`SubmitGate::admit`].
    Hold,
    /// May be the submission, if none comes that surely is: hold it for a moment, then as [`Judgement::Hold`].
    Suspect,
    /// Must not be sent.
    Refuse,
}

/// Decides about each request that may carry the submission.
pub trait SubmitGate: Send + Sync {
    /// What is to happen to `request`. Pure and quick: everything on the page waits for it.
    fn judge(&self, request: &HeldRequest) -> Judgement;
    /// Whether something that can't be taken back is at stake, so that nothing may leave after the submission was given up.
    fn guards(&self) -> bool {
        true
    }
    /// Called while a request that was judged [`Judgement::Hold`] is held. `Ok` lets it go; `Err(why)` fails it.
    fn admit<'a>(&'a self, request: &'a HeldRequest) -> BoxFuture<'a, Result<(), String>>;
}

/// A request that has not left yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// The whole address.
    pub url: String,
    /// `Document`, `XHR`, `Fetch`, `Ping`, as Chrome names them.
    pub resource_type: String,
    /// The frame it comes from.
    pub frame: FrameId,
    /// What it carries, as far as Chrome shows it: files and blobs are left out.
    pub body: Option<Vec<u8>>,
    /// Whether it carries something that Chrome does not show.
    pub unread: bool,
    /// Its headers, without cookies.
    pub headers: Vec<(String, String)>,
}

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exchange {
    /// `GET`, `POST`, …
    pub method: String,
    /// The whole address.
    pub url: String,
    /// `Document`, `XHR`, `Fetch`, `Ping`, as Chrome names them.
    pub resource_type: String,
    /// Status of its own answer, a redirect's included.
    pub status: Option<u16>,
    /// The site's wish from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Where its answer redirects to.
    pub location: Option<String>,
    /// Why there is no answer: `net::ERR_…`.
    pub error: Option<String>,
    /// The beginning of an XHR's or fetch's answer, at most 64 kB.
    pub body_excerpt: Option<String>,
}

/// What came of a click that submits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SubmitReport {
    /// The request that was held and let go, with its answer. `None`: nothing matched, or it was refused.
    pub admitted: Option<Exchange>,
    /// Requests refused: by the gate, or because one had been admitted already.
    pub refused: u32,
    /// Why [`SubmitGate::admit`] did not let the held request go.
    pub refusal: Option<String>,
    /// The navigation of the main frame that followed.
    pub landed: Option<Landed>,
    /// Why the navigation that followed did not end on a page.
    pub landing_error: Option<String>,
    /// Requests that passed, with their answers, at most 32.
    pub others: Vec<Exchange>,
}
