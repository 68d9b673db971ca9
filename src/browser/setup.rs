//! What is put into place in every page and frame before its first script runs, in one go.

use std::sync::Weak;
use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::emulation::SetFocusEmulationEnabledParams;
use chromiumoxide::cdp::browser_protocol::inspector::EnableParams as InspectorEnable;
use chromiumoxide::cdp::browser_protocol::network::{
    EnableParams as NetworkEnable, SetBypassServiceWorkerParams, SetUserAgentOverrideParams,
};
use chromiumoxide::cdp::browser_protocol::page::{
    AddScriptToEvaluateOnNewDocumentParams, EnableParams as PageEnable, GetFrameTreeParams,
    SetInterceptFileChooserDialogParams, SetLifecycleEventsEnabledParams,
};
use chromiumoxide::cdp::browser_protocol::target::{FilterEntry, SetAutoAttachParams, TargetFilter};
use chromiumoxide::cdp::js_protocol::runtime::{EnableParams as RuntimeEnable, RunIfWaitingForDebuggerParams};
use chromiumoxide::types::Command;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::events::{FrameTree, FrameTreeAnswer};
use super::router::{Reply, Session};
use super::state::TabState;
use super::submit;

/// The name of our isolated world.
pub(super) const WORLD: &str = "pagehand";

/// What runs there.
pub(super) const SCRIPT: &str = concat!(
    "(() => {\nif (globalThis.__pagehand) return;\n",
    include_str!("page/registry.js"),
    include_str!("page/actions.js"),
    include_str!("page/lists.js"),
    include_str!("page/capture.js"),
    "\nglobalThis.__pagehand = ph;\n})();"
);

/// Sets a page up; gives back the answers to wait for.
pub(super) fn page(session: &Session, user_agent: Option<&str>) -> Vec<Reply<IgnoredAny>> {
    let mut sent = Sent { session, replies: Vec::with_capacity(12) };
    common(&mut sent, user_agent);
    let mut choosers = SetInterceptFileChooserDialogParams::new(true);
    choosers.cancel = Some(true);
    sent.send(&choosers);
    sent.send(&RunIfWaitingForDebuggerParams::default());
    sent.replies
}

/// Sets up a frame that lives in a process of its own, and learns of the frames inside it.
pub(super) fn frame(session: &Session, user_agent: Option<&str>, tab: Weak<TabState>) {
    let mut sent = Sent { session, replies: Vec::with_capacity(12) };
    common(&mut sent, user_agent);
    let tree = session.send(&GetFrameTreeParams::default()).of::<FrameTreeAnswer>();
    session.tell(&RunIfWaitingForDebuggerParams::default());
    let (session, replies) = (session.clone(), sent.replies);
    tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(10);
        let tree = tree.until(deadline).await;
        if let (Ok(answer), Some(tab)) = (tree, tab.upgrade()) {
            tab.with(|inner| {
                let mut left = vec![answer.frame_tree];
                while let Some(FrameTree { frame, child_frames }) = left.pop() {
                    // Where an event was quicker, it knows better.
                    if inner.frames.get(&frame.id).is_none_or(|known| known.loader.is_empty()) {
                        inner.navigated(frame, &session);
                    }
                    left.extend(child_frames);
                }
            });
        }
        for reply in replies {
            let _ = reply.until(deadline).await;
        }
    });
}

struct Sent<'a> {
    session: &'a Session,
    replies: Vec<Reply<IgnoredAny>>,
}

impl Sent<'_> {
    fn send<C: Command>(&mut self, call: &C) {
        self.replies.push(self.session.send(call).of());
    }
}

fn common(sent: &mut Sent<'_>, user_agent: Option<&str>) {
    // First of all: without it nobody could answer a dialog.
    sent.send(&PageEnable::default());
    // Nothing that a frame asks for leaves unseen: see `egress` for where it may go, `submit` for what is held.
    sent.send(&submit::patterns());
    sent.send(&SetLifecycleEventsEnabledParams::new(true));
    sent.send(&NetworkEnable {
        max_total_buffer_size: Some(8 << 20),
        max_resource_buffer_size: Some(2 << 20),
        ..NetworkEnable::default()
    });
    // Requests that a service worker would answer or send could neither be seen nor held.
    sent.send(&SetBypassServiceWorkerParams::new(true));
    sent.send(&InspectorEnable::default());
    sent.send(&RuntimeEnable::default());
    let mut script = AddScriptToEvaluateOnNewDocumentParams::new(SCRIPT);
    script.world_name = Some(WORLD.to_owned());
    script.run_immediately = Some(true);
    sent.send(&script);
    // Otherwise only one page of a browser has the focus, and keys and clicks in the others go nowhere.
    sent.send(&SetFocusEmulationEnabledParams::new(true));
    if let Some(user_agent) = user_agent {
        sent.send(&SetUserAgentOverrideParams::new(user_agent));
    }
    let mut attach = SetAutoAttachParams::new(true, true);
    attach.flatten = Some(true);
    attach.filter =
        Some(TargetFilter::new(vec![FilterEntry { r#type: Some("iframe".to_owned()), exclude: Some(false) }]));
    sent.send(&attach);
}
