//! One task's browsing context with its page.
//!
//! Acting on a page ends at the earliest of the call's limit, the task's deadline, and a fault of the tab (a crash, a
//! dialog loop, a storm of windows); on a page that does not answer, up to four seconds later, spent on finding out why
//! and on stopping its scripts, so that evidence can be taken. Taking evidence (`dom`, `screenshot`, `title_and_url`) and closing have budgets of
//! their own and may outlive the task's deadline: a task that ran out of time wants its picture most of all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::browser::{SetDownloadBehaviorBehavior, SetDownloadBehaviorParams};
use chromiumoxide::cdp::browser_protocol::target::{
    CreateBrowserContextParams, CreateTargetParams, DisposeBrowserContextParams,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::chrome::Browser;
use super::egress::{Denial, EgressLimits, EgressProxy, Guard};
use super::error::BrowserError;
use super::inline::Shown;
use super::state::TabState;
use super::types::{FrameId, NetworkTrouble, TabCounters, TabOptions};
use crate::failure::Failure;
use crate::fault;
use crate::record::PageLog;

/// Opening a tab takes milliseconds; longer than this and the browser is of no use.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// So long a context may take to be gone.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// One task's browsing context with its page. Dropping it disposes of the context, in the background.
pub struct Tab {
    pub(super) state: Arc<TabState>,
    pub(super) deadline: Instant,
    pub(super) main: FrameId,
    /// What its captures have shown so far.
    pub(super) shown: Shown,
    context: Context,
    proxy: EgressProxy,
}

/// A browsing context; disposed of when dropped.
struct Context {
    browser: Arc<Browser>,
    id: String,
    open: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewContext {
    browser_context_id: String,
}

impl std::fmt::Debug for Tab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tab").field("main", &self.main).field("browser", &self.context.browser).finish()
    }
}

impl Tab {
    pub(super) async fn open(
        browser: &Arc<Browser>,
        options: TabOptions,
        viewport: (u32, u32),
    ) -> Result<Tab, BrowserError> {
        let deadline = options.deadline.min(Instant::now() + OPEN_LIMIT);
        let guard = Guard::new(options.policy);
        let proxy = EgressProxy::guarded(options.proxy, guard.clone(), EgressLimits::default()).map_err(|error| {
            let message = format!("the way out can't be opened: {error}");
            BrowserError::Proxy(Failure::retryable(crate::failure::FailureReason::Unknown, "proxy.connect", message))
        })?;
        let root = browser.router.root();
        let mut create =
            CreateBrowserContextParams { dispose_on_detach: Some(true), ..CreateBrowserContextParams::default() };
        if fault::guard!("egress.way_out") {
            create.proxy_server = Some(format!("http://{}", proxy.address()));
            // Otherwise what is on this machine would be reached directly.
            create.proxy_bypass_list = Some("<-loopback>".to_owned());
        }
        let created: NewContext = root.call(&create, deadline).await?;
        browser.open_tabs.fetch_add(1, Ordering::Relaxed);
        let context = Context { browser: browser.clone(), id: created.browser_context_id, open: true };
        let state = TabState::new(options.user_agent, guard);
        browser.register(&context.id, &state);

        let mut downloads = SetDownloadBehaviorParams::new(SetDownloadBehaviorBehavior::Deny);
        downloads.browser_context_id = Some(context.id.clone().into());
        downloads.events_enabled = Some(true);
        let downloads = root.send(&downloads).of::<IgnoredAny>();
        let mut target = CreateTargetParams::new("about:blank");
        target.browser_context_id = Some(context.id.clone().into());
        target.width = Some(viewport.0.into());
        target.height = Some(viewport.1.into());
        let target = root.send(&target).of::<IgnoredAny>();

        let attached = state.until(deadline, |inner| {
            inner.page.is_some().then(|| (inner.main.clone(), std::mem::take(&mut inner.setting_up)))
        });
        // A refused call would otherwise be waited for until the deadline.
        let opened = async {
            target.until(deadline).await?;
            attached.await
        };
        let late = || BrowserError::Unresponsive { method: "Target.createTarget".to_owned(), after: OPEN_LIMIT };
        let (main, setting_up) = opened.await?.ok_or_else(late)?;
        for reply in setting_up {
            reply.until(deadline).await?;
        }
        downloads.until(deadline).await?;
        Ok(Tab { state, deadline: options.deadline, main: FrameId(main), shown: Shown::default(), context, proxy })
    }

    /// The main frame.
    pub fn main_frame(&self) -> FrameId {
        self.main.clone()
    }

    /// What has happened so far.
    pub fn counters(&self) -> TabCounters {
        self.state.with(|inner| inner.counters)
    }

    /// What the page's message boxes said, the first eight, oldest first.
    pub fn dialog_texts(&self) -> Vec<String> {
        self.state.with(|inner| inner.dialogs.clone())
    }

    /// The latest troubles, at most 64, oldest first.
    pub fn trouble(&self) -> Vec<NetworkTrouble> {
        self.state.trouble()
    }

    /// What the page said on its console and asked of the network so far, within bounds. With secrets, if it had any.
    pub fn log(&self) -> PageLog {
        self.state.with(|inner| inner.log.so_far())
    }

    /// The latest failure of the task's proxy itself, as opposed to the site's.
    pub fn proxy_failure(&self) -> Option<Failure> {
        self.proxy.last_failure()
    }

    /// Bytes sent out and received so far.
    pub fn traffic(&self) -> (u64, u64) {
        self.proxy.bytes()
    }

    /// What the page was kept from, the first 64 kinds and targets of it.
    pub fn denials(&self) -> Vec<Denial> {
        self.state.guard.denials()
    }

    /// Disposes of the context and waits for it, three seconds at most.
    pub async fn close(mut self) {
        let gone = self.context.dispose();
        if let Some(reply) = gone {
            let _ = reply.until(Instant::now() + CLOSE_LIMIT).await;
        }
    }

    /// The browser it is on.
    pub(super) fn browser(&self) -> &Browser {
        &self.context.browser
    }

    /// Chrome's name of its browsing context.
    pub(super) fn context_id(&self) -> &str {
        &self.context.id
    }

    /// When a call that starts now and may take `limit` has to be over.
    pub(super) fn end_of(&self, limit: Duration) -> Result<Instant, BrowserError> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(BrowserError::DeadlinePassed);
        }
        if let Some(fault) = self.state.with(|inner| inner.fault.clone()) {
            return Err(fault);
        }
        Ok(self.deadline.min(now + limit))
    }

    /// `act`, unless the tab gets a fault before it ends.
    pub(super) async fn unless_faulty<T>(
        &self,
        act: impl Future<Output = Result<T, BrowserError>>,
    ) -> Result<T, BrowserError> {
        tokio::select! {
            biased;
            done = act => match done {
                // The calls of a page that crashed or loops fail in several ways: the tab knows the cause.
                Err(error) => Err(self.state.with(|inner| inner.fault.clone()).unwrap_or(error)),
                done => done,
            },
            fault = self.state.faulty() => Err(fault),
        }
    }
}

impl Context {
    fn dispose(&mut self) -> Option<super::router::Reply<IgnoredAny>> {
        if !std::mem::take(&mut self.open) {
            return None;
        }
        self.browser.forget(&self.id);
        let reply = self.browser.router.root().send(&DisposeBrowserContextParams::new(self.id.clone()));
        self.browser.open_tabs.fetch_sub(1, Ordering::Relaxed);
        self.browser.changed.notify_waiters();
        Some(reply.of())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Sent all the same; the answer is not waited for.
        drop(self.dispose());
    }
}
