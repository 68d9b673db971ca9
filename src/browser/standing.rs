//! The standing answers to what a page may ask.
//!
//! A page that opens a dialog stands still until somebody answers, so the answers are given on the reading task itself:
//! dialogs dismissed (`alert` accepted, and `confirm` while a form is sent), `beforeunload` left, windows closed before their first request, file choosers
//! cancelled, downloads denied. Each is counted; too many end the task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::fetch::EnableParams as FetchEnable;
use chromiumoxide::cdp::browser_protocol::page::HandleJavaScriptDialogParams;
use chromiumoxide::cdp::browser_protocol::target::{CloseTargetParams, DetachFromTargetParams};
use chromiumoxide::cdp::js_protocol::runtime::{RunIfWaitingForDebuggerParams, TerminateExecutionParams};
use tokio::time::Instant;

use super::chrome::Attached;
use super::error::BrowserError;
use super::events::{DialogOpening, PausedId};
use super::router::{Events, Router, Session, lock};
use super::state::{FrameState, TabState};
use super::{json, setup, submit};

/// So many dialogs' texts are kept.
const MOST_DIALOG_TEXTS: usize = 8;
/// More dialogs than this are a loop.
const MOST_DIALOGS: u32 = 20;
/// More windows than this are a storm.
const MOST_POPUPS: u32 = 5;
/// A window that asks for nothing is closed after this time.
const EMPTY_WINDOW: Duration = Duration::from_millis(200);

impl TabState {
    /// A page has been attached in this tab's browsing context: its own, or a window the page opened.
    pub(super) fn page_attached(&self, router: &Router, attached: &Attached) {
        let mut inner = lock(&self.inner);
        if inner.page.is_some() {
            inner.counters.popups += 1;
            if inner.counters.popups > MOST_POPUPS && inner.fault.is_none() {
                inner.fault = Some(BrowserError::TabsLimit { count: inner.counters.popups });
            }
            drop(inner);
            Windows::close(&self.windows, router, attached);
            self.touch();
            return;
        }
        let events: Weak<dyn Events> = self.me.clone();
        let session = router.attach(&attached.session_id, events);
        let id = attached.target_info.target_id.clone();
        let setting_up = setup::page(&session, self.user_agent.as_deref());
        inner.main = id.clone();
        inner.page = Some(session.clone());
        inner.setting_up = setting_up;
        let url = attached.target_info.url.clone();
        inner.frames.insert(
            id,
            FrameState {
                parent: None,
                url,
                name: String::new(),
                loader: String::new(),
                unreachable: None,
                session,
                world: None,
                order: 0,
            },
        );
        drop(inner);
        self.touch();
    }

    /// Chrome has denied a download.
    pub(super) fn download_denied(&self, url: &str) {
        let mut inner = lock(&self.inner);
        inner.counters.downloads += 1;
        inner.active = Instant::now();
        drop(inner);
        tracing::debug!(url, "download denied");
        self.touch();
    }

    /// Answers a dialog.
    pub(super) fn dialog(&self, session: &Session, dialog: &DialogOpening) {
        let mut inner = lock(&self.inner);
        // Whoever sends a form and is asked whether to, means it.
        let sending = dialog.r#type == "confirm" && inner.intercept.is_some();
        let accept = sending || matches!(dialog.r#type.as_str(), "alert" | "beforeunload");
        session.tell(&HandleJavaScriptDialogParams::new(accept));
        if inner.dialogs.len() < MOST_DIALOG_TEXTS && dialog.r#type != "beforeunload" {
            inner.dialogs.push(dialog.message.chars().take(500).collect());
        }
        if dialog.r#type == "beforeunload" {
            inner.counters.beforeunloads += 1;
        } else {
            inner.counters.dialogs += 1;
        }
        let count = inner.counters.dialogs + inner.counters.beforeunloads;
        if count > MOST_DIALOGS {
            if inner.fault.is_none() {
                inner.fault = Some(BrowserError::DialogLoop { count });
            }
            // A loop around the dialog would go on for ever.
            session.tell(&TerminateExecutionParams::default());
        }
    }

    /// A frame of this tab lives in a process of its own from now on.
    pub(super) fn child_attached(&self, session: &Session, attached: &Attached) {
        if attached.target_info.r#type != "iframe" {
            leave_alone(session.router(), attached);
            return;
        }
        let events: Weak<dyn Events> = self.me.clone();
        let child = session.router().attach(&attached.session_id, events);
        setup::frame(&child, self.user_agent.as_deref(), self.me.clone());
        let mut inner = lock(&self.inner);
        let id = attached.target_info.target_id.clone();
        let frame = inner.frame(&id, &child);
        frame.session = child;
        frame.world = None;
        frame.url.clone_from(&attached.target_info.url);
        frame.loader.clear();
    }
}

/// Closes the windows a page has opened, before they ask for anything.
///
/// A new window waits before its first script; but as long as it waits, so does the page that opened it. So it may go
/// on with all its requests intercepted: the first one is failed, and behind that the window is closed. Closing it while
/// the request is only paused would let it go.
#[derive(Default)]
pub(super) struct Windows {
    /// Targets by session.
    open: Mutex<HashMap<String, String>>,
}

impl Windows {
    fn close(this: &Arc<Windows>, router: &Router, attached: &Attached) {
        let id = attached.session_id.clone();
        lock(&this.open).insert(id.clone(), attached.target_info.target_id.clone());
        let events: Arc<dyn Events> = this.clone();
        let session = router.attach(&id, Arc::downgrade(&events));
        session.tell(&FetchEnable::default());
        session.tell(&RunIfWaitingForDebuggerParams::default());
        let this = this.clone();
        tokio::spawn(async move {
            tokio::time::sleep(EMPTY_WINDOW).await;
            this.shut(&session);
        });
    }

    fn shut(&self, session: &Session) {
        let target = session.id().and_then(|id| lock(&self.open).remove(id));
        if let Some(target) = target {
            session.router().root().tell(&CloseTargetParams::new(target));
        }
    }
}

impl Events for Windows {
    fn event(&self, session: &Session, method: &str, params: &str) {
        if method == "Fetch.requestPaused"
            && let Ok(paused) = json::lenient::<PausedId>(params)
        {
            submit::refuse(session, &paused.request_id);
            self.shut(session);
        }
    }

    fn ended(&self, session: &Session, _: &BrowserError) {
        if let Some(id) = session.id() {
            lock(&self.open).remove(id);
        }
    }
}

/// Hears nothing.
struct Nobody;

impl Events for Nobody {
    fn event(&self, _: &Session, _: &str, _: &str) {}
    fn ended(&self, _: &Session, _: &BrowserError) {}
}

/// Lets a target that is not ours run on without us.
pub(super) fn leave_alone(router: &Router, attached: &Attached) {
    let session = router.attach(&attached.session_id, Weak::<Nobody>::new());
    if attached.waiting_for_debugger {
        session.tell(&RunIfWaitingForDebuggerParams::default());
    }
    router.root().tell(&DetachFromTargetParams { session_id: Some(attached.session_id.clone().into()) });
}
