//! One browser: its process or remote end, its connection, and the tabs on it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::browser::GetVersionParams;
use chromiumoxide::cdp::browser_protocol::target::{CloseTargetParams, FilterEntry, SetAutoAttachParams, TargetFilter};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::error::BrowserError;
use super::install;
use super::process::Process;
use super::profile::OwnerDir;
use super::router::{Events, Router, Session, lock};
use super::state::TabState;
use super::types::{BrowserSettings, BrowserVersion};
use super::wire::{self, Socket};

/// Chrome answers its first call within this time or has failed to start.
const LAUNCH_LIMIT: Duration = Duration::from_secs(20);

/// A browser that answers.
pub(super) struct Browser {
    pub(super) router: Router,
    process: Option<Process>,
    version: BrowserVersion,
    /// Tabs by their browsing context.
    tabs: Mutex<HashMap<String, Weak<TabState>>>,
    pub(super) open_tabs: AtomicUsize,
    pub(super) tasks: AtomicU32,
    /// No new tabs; ends when the last one is closed.
    pub(super) retired: AtomicBool,
    /// Told when a tab is closed or the browser ends.
    pub(super) changed: Notify,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").field("pid", &self.pid()).field("version", &self.version.product).finish()
    }
}

impl Browser {
    /// Starts a local Chrome and waits until it answers.
    pub(super) async fn launch(settings: &BrowserSettings, owner: &OwnerDir) -> Result<Arc<Browser>, BrowserError> {
        let installed = install::find(settings.executable.as_deref())?;
        let (process, pipes) = Process::start(&installed, settings, owner)?;
        let (queue, queued) = mpsc::unbounded_channel();
        let router = Router::new(queue);
        tokio::spawn(wire::write_pipe(pipes.to_chrome, queued));
        let (reading, exit, stderr) = (router.clone(), process.exit(), process.stderr());
        tokio::spawn(async move {
            let ended = wire::read_pipe(pipes.from_chrome, |message| reading.deliver(&message)).await;
            // The exit status comes at about the same time and says more.
            let mut exit = exit;
            let told = tokio::time::timeout(Duration::from_millis(100), exit.wait_for(Option::is_some)).await;
            let why = told.ok().and_then(|exit| exit.ok()?.clone()).unwrap_or(ended);
            reading.close(&BrowserError::BrowserGone { why, stderr: stderr.tail() });
        });
        let stderr = process.stderr();
        match Browser::greet(router, Some(process)).await {
            Ok(browser) => Ok(browser),
            Err(error) => {
                let said = stderr.tail();
                if said.contains("No usable sandbox") || said.contains("without --no-sandbox") {
                    return Err(BrowserError::SandboxUnavailable { stderr: said });
                }
                let message = match error {
                    BrowserError::BrowserGone { why, .. } => why,
                    BrowserError::Unresponsive { after, .. } => format!("no answer within {} s", after.as_secs()),
                    other => other.to_string(),
                };
                Err(BrowserError::LaunchFailed { message, stderr: said })
            }
        }
    }

    /// Connects to a browser that somebody else runs.
    pub(super) async fn connect(endpoint: &str) -> Result<Arc<Browser>, BrowserError> {
        let failed = |message: String| BrowserError::ConnectFailed { message };
        let connecting = tokio::time::timeout(LAUNCH_LIMIT, Socket::connect(endpoint)).await;
        let socket = connecting.map_err(|_| failed("no answer".to_owned()))?.map_err(failed)?;
        let (queue, queued) = mpsc::unbounded_channel();
        let router = Router::new(queue);
        let reading = router.clone();
        tokio::spawn(async move {
            let why = socket.run(queued, |message| reading.deliver(&message)).await;
            reading.close(&BrowserError::BrowserGone { why, stderr: String::new() });
        });
        Browser::greet(router, None).await
    }

    async fn greet(router: Router, process: Option<Process>) -> Result<Arc<Browser>, BrowserError> {
        let deadline = Instant::now() + LAUNCH_LIMIT;
        let answers = async {
            let version = router.root().send(&GetVersionParams::default()).of::<BrowserVersion>();
            // Pages only; each waits before its first script until we have put ourselves in place.
            let mut attach = SetAutoAttachParams::new(true, true);
            attach.flatten = Some(true);
            attach.filter =
                Some(TargetFilter::new(vec![FilterEntry { r#type: Some("page".to_owned()), exclude: Some(false) }]));
            let attached = router.root().send(&attach);
            let version = version.until(deadline).await?;
            attached.until(deadline).await?;
            Ok(version)
        };
        match answers.await {
            Ok(version) => {
                let browser = Arc::new(Browser {
                    router,
                    process,
                    version,
                    tabs: Mutex::default(),
                    open_tabs: AtomicUsize::new(0),
                    tasks: AtomicU32::new(0),
                    retired: AtomicBool::new(false),
                    changed: Notify::new(),
                });
                let events: Arc<dyn Events> = browser.clone();
                browser.router.listen(Arc::downgrade(&events));
                Ok(browser)
            }
            Err(error) => {
                if let Some(process) = process {
                    process.kill().await;
                }
                Err(error)
            }
        }
    }

    pub(super) fn version(&self) -> &BrowserVersion {
        &self.version
    }

    /// The main process; `None` for a remote browser.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// All its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.process.as_ref().map(Process::tree).unwrap_or_default()
    }

    /// What its processes hold in memory.
    pub(super) fn rss_bytes(&self) -> u64 {
        self.process.as_ref().map_or(0, Process::rss_bytes)
    }

    /// No new tabs from now on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Events of pages in browsing context `context` go to `tab` from now on.
    pub(super) fn register(&self, context: &str, tab: &Arc<TabState>) {
        lock(&self.tabs).insert(context.to_owned(), Arc::downgrade(tab));
    }

    /// Undoes [`Browser::register`].
    pub(super) fn forget(&self, context: &str) {
        lock(&self.tabs).remove(context);
    }

    /// Fails all that wait, kills the processes and removes the profile.
    pub(super) async fn end(&self, cause: &BrowserError) {
        self.router.close(cause);
        if let Some(process) = &self.process {
            process.kill().await;
        }
    }

    fn tab_of(&self, context: &str) -> Option<Arc<TabState>> {
        lock(&self.tabs).get(context).and_then(Weak::upgrade)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attached {
    pub(super) session_id: String,
    pub(super) target_info: TargetInfo,
    #[serde(default)]
    pub(super) waiting_for_debugger: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TargetInfo {
    pub(super) target_id: String,
    pub(super) r#type: String,
    #[serde(default)]
    pub(super) browser_context_id: Option<String>,
    #[serde(default)]
    pub(super) url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DownloadBegins {
    frame_id: String,
    url: String,
}

impl Events for Browser {
    fn event(&self, session: &Session, method: &str, params: &str) {
        match method {
            "Target.attachedToTarget" => {
                let Ok(attached) = serde_json::from_str::<Attached>(params) else { return };
                let info = &attached.target_info;
                let tab = info.browser_context_id.as_deref().and_then(|context| self.tab_of(context));
                match tab {
                    Some(tab) if info.r#type == "page" => tab.page_attached(&self.router, &attached),
                    // Nobody's: a page of a remote browser's other users, or one whose task has ended.
                    _ if self.process.is_some() => session.tell(&CloseTargetParams::new(info.target_id.clone())),
                    _ => super::standing::leave_alone(&self.router, &attached),
                }
            }
            "Browser.downloadWillBegin" => {
                let Ok(begins) = serde_json::from_str::<DownloadBegins>(params) else { return };
                let tabs: Vec<_> = lock(&self.tabs).values().filter_map(Weak::upgrade).collect();
                if let Some(tab) = tabs.iter().find(|tab| tab.has_frame(&begins.frame_id)) {
                    tab.download_denied(&begins.url);
                }
            }
            _ => {}
        }
    }

    fn ended(&self, _session: &Session, _cause: &BrowserError) {
        self.changed.notify_waiters();
    }
}
