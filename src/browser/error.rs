//! What can go wrong between us and a page: one variant a cause, and what each means for the task.

use std::path::PathBuf;
use std::time::Duration;

use super::egress::Denial;
use super::types::{ActionCheck, CoveringElement};
use crate::failure::{Failure, FailureReason, mapper};

/// A fault of the browser, the page or our dealings with it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrowserError {
    /// No program to start.
    #[error("no Chrome found; install chromium-headless-shell or set browser.executable (looked at {})", list(.looked))]
    NotInstalled {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// It did not start, or not in time.
    #[error("chrome did not start: {message}{}", tail(.stderr))]
    LaunchFailed {
        /// What happened.
        message: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// It refuses to run without a sandbox and can't make one here.
    #[error(
        "chrome can't set up its sandbox here; allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
         kernel.apparmor_restrict_unprivileged_userns=0) or run it where they are allowed{}", tail(.stderr)
    )]
    SandboxUnavailable {
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The remote browser can't be reached.
    #[error("the remote browser can't be reached: {message}; check browser.endpoint")]
    ConnectFailed {
        /// What happened.
        message: String,
    },
    /// The browser ended, or the connection to it did.
    #[error("the browser is gone: {why}{}", tail(.stderr))]
    BrowserGone {
        /// How that was noticed.
        why: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The page's process crashed.
    #[error("the page's renderer process crashed")]
    RendererCrashed,
    /// The tab, frame or context was closed under us.
    #[error("the page is gone: {why}")]
    TargetGone {
        /// How that was noticed.
        why: String,
    },
    /// The pool was shut down.
    #[error("the browser is being shut down")]
    ShuttingDown,
    /// A call was not answered.
    #[error("chrome did not answer {method} within {:.1} s", .after.as_secs_f64())]
    Unresponsive {
        /// The call.
        method: String,
        /// How long we waited.
        after: Duration,
    },
    /// A script of the page's did not let us in.
    #[error("a script on the page ran on without end; the page did not answer for {:.1} s", .after.as_secs_f64())]
    PageHung {
        /// How long we waited.
        after: Duration,
    },
    /// The attempt's own time is over.
    #[error("the task's time was over")]
    DeadlinePassed,
    /// No usable document in time.
    #[error("no page from {url} within {:.1} s", .after.as_secs_f64())]
    NavigationTimeout {
        /// Where to.
        url: String,
        /// How long we waited.
        after: Duration,
    },
    /// Chrome could not load the address.
    #[error("{url} can't be loaded: {error_text}")]
    NavigationFailed {
        /// Where to.
        url: String,
        /// `net::ERR_…`
        error_text: String,
    },
    /// The address is none that may be opened.
    #[error("`{url}` can't be opened: only http and https addresses can")]
    UrlDenied {
        /// The address.
        url: String,
    },
    /// The policy keeps the page, or what it would submit, from going there.
    #[error("{0}")]
    Denied(Denial),
    /// The address is a file to be saved.
    #[error("{url} is a download, not a page")]
    Download {
        /// Where to.
        url: String,
    },
    /// The server answered with nothing to show.
    #[error("{url} answered without a page (204 or 205)")]
    NoContent {
        /// Where to.
        url: String,
    },
    /// The page asks without end.
    #[error("the page opened {count} dialogs")]
    DialogLoop {
        /// How many.
        count: u32,
    },
    /// The page opens windows without end.
    #[error("the page opened {count} windows")]
    TabsLimit {
        /// How many.
        count: u32,
    },
    /// An element can't be acted on.
    #[error("the element is not {}: {detail}", .check.as_str())]
    NotActionable {
        /// The check that did not hold until the limit.
        check: ActionCheck,
        /// What was seen.
        detail: String,
        /// What lies over it.
        covering: Option<Box<CoveringElement>>,
    },
    /// The element is no longer in the document, or the document is another.
    #[error("the element is no longer on the page")]
    Stale,
    /// The document was replaced by another while a script ran in it.
    #[error("the page moved on to another document meanwhile")]
    Navigated,
    /// The list has no such entry.
    #[error("the list has no entry `{wanted}`")]
    NoSuchOption {
        /// The value or label asked for.
        wanted: String,
    },
    /// The page changed or refused what was put in.
    #[error("the field does not hold what was put in: {detail}")]
    NotFilled {
        /// How it differs; never the value itself.
        detail: String,
    },
    /// The frame is not there or can't be looked into.
    #[error("the frame can't be reached: {why}")]
    FrameUnreachable {
        /// Why.
        why: String,
    },
    /// A script of ours threw.
    #[error("script failed: {message}")]
    Exception {
        /// What it threw.
        message: String,
    },
    /// An answer was not what it should be.
    #[error("unexpected answer to {what}: {message}")]
    Decode {
        /// The call.
        what: String,
        /// What does not fit.
        message: String,
    },
    /// Chrome refused a call.
    #[error("{method}: {message} ({code})")]
    Protocol {
        /// The call.
        method: String,
        /// Chrome's number.
        code: i64,
        /// Chrome's text.
        message: String,
    },
    /// The proxy for this task can't be used.
    #[error("{0}")]
    Proxy(Failure),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn tail(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it said: {stderr}") }
}

impl BrowserError {
    /// What this means for the task.
    pub fn to_failure(&self) -> Failure {
        use FailureReason as R;
        let message = self.to_string();
        match self {
            Self::NotInstalled { .. } | Self::LaunchFailed { .. } | Self::SandboxUnavailable { .. } => {
                Failure::retryable(R::Unknown, "browser.launch_failed", message)
            }
            Self::ConnectFailed { .. } => Failure::retryable(R::Unknown, "browser.connect_failed", message),
            Self::BrowserGone { .. } => Failure::retryable(R::Unknown, "browser.crashed", message),
            Self::RendererCrashed => Failure::retryable(R::Unknown, "browser.renderer_crashed", message),
            Self::TargetGone { .. } => Failure::retryable(R::Unknown, "browser.target_closed", message),
            Self::ShuttingDown => Failure::retryable(R::Unknown, "infra.shutdown", message),
            Self::Unresponsive { .. } => Failure::retryable(R::Timeout, "browser.unresponsive", message),
            Self::PageHung { .. } => Failure::retryable(R::Timeout, "page.hung", message),
            Self::DeadlinePassed => Failure::retryable(R::Timeout, "task.deadline", message),
            Self::NavigationTimeout { .. } => Failure::retryable(R::Timeout, "nav.timeout", message),
            Self::NavigationFailed { error_text, .. } => {
                let mapped = mapper::map_net_error(error_text);
                Failure { message, ..mapped }
            }
            Self::UrlDenied { .. } => Failure::terminal(R::Unknown, "policy.url_denied", message),
            Self::Denied(denial) => Failure::terminal(R::Unknown, denial.kind.code(), message),
            Self::Download { .. } => Failure::terminal(R::Unknown, "nav.download", message),
            Self::NoContent { .. } => Failure::terminal(R::Unknown, "nav.no_content", message),
            Self::DialogLoop { .. } => Failure::terminal(R::PopupBlocking, "dialog.loop", message),
            Self::TabsLimit { .. } => Failure::terminal(R::PopupBlocking, "tabs.limit", message),
            Self::NotActionable { check: ActionCheck::ReceivesEvents, .. } => {
                Failure::terminal(R::PopupBlocking, "dom.covered", message)
            }
            Self::NotActionable { check, .. } => {
                let code = match check {
                    ActionCheck::Visible => "dom.not_visible",
                    ActionCheck::Stable => "dom.not_stable",
                    ActionCheck::Enabled => "dom.disabled",
                    ActionCheck::Editable => "dom.not_editable",
                    ActionCheck::InViewport => "dom.outside_viewport",
                    ActionCheck::ReceivesEvents => "dom.covered",
                };
                Failure::retryable(R::ElementNotFound, code, message)
            }
            Self::Stale => Failure::retryable(R::ElementNotFound, "dom.stale", message),
            Self::Navigated => Failure::retryable(R::ElementNotFound, "dom.navigated", message),
            Self::NoSuchOption { .. } => Failure::terminal(R::ElementNotFound, "dom.no_such_option", message),
            Self::NotFilled { .. } => Failure::retryable(R::Unknown, "dom.not_filled", message),
            Self::FrameUnreachable { .. } => Failure::terminal(R::IframeMissed, "frame.unreachable", message),
            Self::Exception { .. } => Failure::retryable(R::Unknown, "script.exception", message),
            Self::Decode { .. } => Failure::retryable(R::Unknown, "browser.bad_answer", message),
            Self::Protocol { .. } => Failure::retryable(R::Unknown, "browser.protocol", message),
            Self::Proxy(failure) => failure.clone(),
        }
    }
}
