//! Frames, and running scripts of ours in them.
//!
//! Scripts run in an isolated world: they share the page's DOM and nothing else. A frame in another process is spoken to
//! over a session of its own; callers don't see the difference.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::dom::{BackendNodeId, GetFrameOwnerParams, ResolveNodeParams};
use chromiumoxide::cdp::browser_protocol::page::CreateIsolatedWorldParams;
use chromiumoxide::cdp::js_protocol::runtime::{
    CallArgument, CallFunctionOnParams, EvaluateParams, ExecutionContextId, TerminateExecutionParams,
};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tokio::time::Instant;

use super::error::BrowserError;
use super::events::Evaluated;
use super::router::Session;
use super::setup;
use super::tab::Tab;
use super::types::{Frame, FrameId};

/// A page that does not answer the simplest question within this time hangs.
const PING_LIMIT: Duration = Duration::from_millis(700);
/// A script that has been told to end does so within this time, unless its whole process stands still.
const TERMINATE_LIMIT: Duration = Duration::from_millis(1500);
/// So long the world of a fresh document may take to come by itself.
const WORLD_GRACE: Duration = Duration::from_millis(250);

/// An execution context to call into.
pub(super) struct Place {
    pub(super) session: Session,
    pub(super) unique: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FrameOwner {
    backend_node_id: i64,
}

#[derive(Deserialize)]
struct Resolved {
    object: super::events::RemoteValue,
}

impl Tab {
    /// The frames of the page, the main frame first, then in the order they came.
    ///
    /// # Errors
    /// Those of every call. A frame that can't be looked into is no error: see [`Frame::reachable`].
    pub async fn frames(&self) -> Result<Vec<Frame>, BrowserError> {
        let deadline = self.end_of(Duration::from_secs(5))?;
        let mut frames = self.known_frames();
        let owners = frames.iter().map(|frame| async {
            let parent = frame.parent.as_ref()?;
            let place = self.place(parent, deadline).await.ok()?;
            let owner = self.owner_of(&frame.id, &place, deadline).await.ok()?;
            let about = "(ph, owner) => ({ css: ph.css(owner), name: owner.name || owner.id || '' })";
            self.run::<Owner>(&place, about, vec![owner], deadline).await.ok()
        });
        let owners = futures::future::join_all(owners).await;
        for (frame, owner) in frames.iter_mut().zip(owners) {
            if let Some(owner) = owner {
                frame.element = Some(owner.css);
                if frame.name.is_empty() {
                    frame.name = owner.name;
                }
            }
        }
        Ok(frames)
    }

    /// The same without asking Chrome: the frames lack the elements they are in, and names that only those have.
    pub fn known_frames(&self) -> Vec<Frame> {
        let mut known: Vec<(u64, Frame)> = self.state.with(|inner| {
            let frames = inner.frames.iter().filter(|(id, frame)| **id == inner.main || frame.parent.is_some());
            let frames = frames.map(|(id, frame)| {
                let document = inner.documents.get(&frame.loader);
                let error = frame.unreachable.as_ref().map(|url| {
                    let loading = document.and_then(|document| document.error.clone());
                    loading.unwrap_or_else(|| format!("{url} could not be loaded"))
                });
                // What stands in a frame that the proxy could not fill, or would not, is the proxy's own answer.
                let denied = || frame.parent.as_ref().and_then(|_| self.state.guard.denied_connection(&frame.url));
                let error = error
                    .or_else(|| denied().map(|denial| denial.to_string()))
                    .or_else(|| document.and_then(|document| document.unreached.clone()));
                let shown = Frame {
                    id: FrameId(id.clone()),
                    parent: frame.parent.clone().map(FrameId),
                    url: frame.unreachable.clone().unwrap_or_else(|| frame.url.clone()),
                    name: frame.name.clone(),
                    reachable: error.is_none(),
                    error,
                    element: None,
                };
                (frame.order, shown)
            });
            frames.collect()
        });
        known.sort_by_key(|(order, _)| *order);
        known.into_iter().map(|(_, frame)| frame).collect()
    }

    /// Runs a JavaScript function `(ph, ...args) => json` in the frame's isolated world and gives its result back,
    /// promises awaited. `ph` is our registry there: `ph.keep(element)` gives a number for an [`ElementRef`],
    /// `ph.get(number)` the element or null, `ph.deepQueryAll(css, root?)` all matches, open shadow roots included,
    /// `ph.css(element)` a selector.
    ///
    /// # Errors
    /// [`BrowserError::Exception`] with what it threw, [`BrowserError::Navigated`] when the document went away
    /// meanwhile, [`BrowserError::Decode`] when the result is no `T`, [`BrowserError::PageHung`] when the page's own
    /// scripts left no room (they have been stopped), [`BrowserError::Unresponsive`] when a promise did not settle.
    ///
    /// [`ElementRef`]: super::ElementRef
    pub async fn call<T: DeserializeOwned>(
        &self,
        frame: &FrameId,
        function: &str,
        args: &[Value],
        limit: Duration,
    ) -> Result<T, BrowserError> {
        let deadline = self.end_of(limit)?;
        self.unless_faulty(self.call_until(frame, function, args, deadline)).await
    }

    /// Calls `function` (as in [`Tab::call`]) now and on every change of the document until it gives something other
    /// than null; `None` at `limit`. Goes on in the new document when the frame moves to another.
    ///
    /// # Errors
    /// As [`Tab::call`].
    pub async fn wait_for<T: DeserializeOwned>(
        &self,
        frame: &FrameId,
        function: &str,
        args: &[Value],
        limit: Duration,
    ) -> Result<Option<T>, BrowserError> {
        let deadline = self.end_of(limit)?;
        let watching = format!("(ph, limit, ...args) => ph.watch(() => ({function})(ph, ...args), limit)");
        let watch = async {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let mut all = Vec::with_capacity(args.len() + 1);
                all.push(Value::from(left.as_millis().min(600_000) as u64));
                all.extend_from_slice(args);
                // The page itself gives up at the limit; what comes later than that comes from a page that hangs.
                let grace = Instant::now() + left + Duration::from_millis(500);
                match self.call_until::<Option<T>>(frame, &watching, &all, grace).await {
                    Err(BrowserError::Navigated) if Instant::now() < deadline => {}
                    Err(BrowserError::Navigated) => return Ok(None),
                    done => return done,
                }
            }
        };
        self.unless_faulty(watch).await
    }

    pub(super) fn page(&self) -> Result<Session, BrowserError> {
        let gone = || BrowserError::TargetGone { why: "the tab has no page".to_owned() };
        self.state.with(|inner| inner.page.clone()).ok_or_else(gone)
    }

    /// [`Tab::call`] without the tab's own checks.
    pub(super) async fn call_until<T: DeserializeOwned>(
        &self,
        frame: &FrameId,
        function: &str,
        args: &[Value],
        deadline: Instant,
    ) -> Result<T, BrowserError> {
        let started = Instant::now();
        for _ in 0..3 {
            let place = self.place(frame, deadline).await?;
            let arguments = args.iter().map(|value| CallArgument::builder().value(value.clone()).build()).collect();
            match self.run(&place, function, arguments, deadline).await {
                // The context went away before the call came to it: nothing has run.
                Err(BrowserError::Protocol { message, .. }) if says_no_context(&message) => {
                    self.state.with(|inner| {
                        if let Some(known) = inner.frames.get_mut(frame.as_str())
                            && known.world.as_ref().is_some_and(|world| world.unique == place.unique)
                        {
                            known.world = None;
                        }
                    });
                }
                Err(BrowserError::Unresponsive { method, .. }) => {
                    let late = BrowserError::Unresponsive { method, after: started.elapsed() };
                    return Err(self.hung_or(&place.session, started, late).await);
                }
                done => return done,
            }
        }
        Err(BrowserError::Navigated)
    }

    /// Our world in a frame; made where the document has none yet.
    pub(super) async fn place(&self, frame: &FrameId, deadline: Instant) -> Result<Place, BrowserError> {
        let grace = deadline.min(Instant::now() + WORLD_GRACE);
        let id = frame.as_str();
        let ready = self.state.until(grace, |inner| match inner.frames.get(id) {
            None => Some(Err(BrowserError::FrameUnreachable { why: "it is not on the page any more".to_owned() })),
            Some(known) => known
                .world
                .as_ref()
                .map(|world| Ok(Place { session: known.session.clone(), unique: world.unique.clone() })),
        });
        if let Some(place) = ready.await? {
            return place;
        }
        let session = self.state.with(|inner| inner.frames.get(id).map(|known| known.session.clone()));
        let Some(session) = session else {
            return Err(BrowserError::FrameUnreachable { why: "it is not on the page any more".to_owned() });
        };
        let mut create = CreateIsolatedWorldParams::new(id.to_owned());
        create.world_name = Some(setup::WORLD.to_owned());
        let started = Instant::now();
        match session.call::<_, IgnoredAny>(&create, deadline).await {
            Ok(_) => {}
            Err(BrowserError::Protocol { message, .. }) => {
                return Err(BrowserError::FrameUnreachable { why: message });
            }
            Err(late @ BrowserError::Unresponsive { .. }) => return Err(self.hung_or(&session, started, late).await),
            Err(error) => return Err(error),
        }
        let made = self.state.until(deadline.min(Instant::now() + WORLD_GRACE), |inner| {
            let known = inner.frames.get(id)?;
            let world = known.world.as_ref()?;
            Some(Place { session: known.session.clone(), unique: world.unique.clone() })
        });
        made.await?.ok_or(BrowserError::Navigated)
    }

    /// Calls a function with `ph` and `arguments` in a world.
    pub(super) async fn run<T: DeserializeOwned>(
        &self,
        place: &Place,
        function: &str,
        arguments: Vec<CallArgument>,
        deadline: Instant,
    ) -> Result<T, BrowserError> {
        let mut call = CallFunctionOnParams::new(format!(
            "function (...args) {{ const ph = globalThis.__pagehand; if (!ph) throw '{MISSING}'; return ({function})(ph, ...args); }}"
        ));
        call.unique_context_id = Some(place.unique.clone());
        call.arguments = Some(arguments);
        call.return_by_value = Some(true);
        call.await_promise = Some(true);
        self.state.with(|inner| inner.counters.calls += 1);
        let mut answer = place.session.call::<_, Evaluated>(&call, deadline).await.map_err(gone_or)?;
        if answer.exception_details.as_ref().is_some_and(|details| details.message().contains(MISSING)) {
            let mut install = EvaluateParams::new(setup::SCRIPT);
            install.unique_context_id = Some(place.unique.clone());
            place.session.tell(&install);
            answer = place.session.call::<_, Evaluated>(&call, deadline).await.map_err(gone_or)?;
        }
        if let Some(details) = answer.exception_details {
            return Err(BrowserError::Exception { message: details.message() });
        }
        let value = answer.result.value.unwrap_or(Value::Null);
        serde_json::from_value(value)
            .map_err(|error| BrowserError::Decode { what: "a script".to_owned(), message: error.to_string() })
    }

    /// The frame element of `frame`, as an argument for calls in its parent's world.
    pub(super) async fn owner_of(
        &self,
        frame: &FrameId,
        parent: &Place,
        deadline: Instant,
    ) -> Result<CallArgument, BrowserError> {
        let ask = GetFrameOwnerParams::new(frame.as_str().to_owned());
        let owner: FrameOwner = parent.session.call(&ask, deadline).await?;
        let context = self.state.with(|inner| {
            let frames = inner.frames.values();
            frames.filter_map(|frame| frame.world.as_ref()).find(|world| world.unique == parent.unique).map(|w| w.id)
        });
        let context = context.ok_or(BrowserError::Navigated)?;
        let resolve = ResolveNodeParams {
            backend_node_id: Some(BackendNodeId::new(owner.backend_node_id)),
            execution_context_id: Some(ExecutionContextId::new(context)),
            ..ResolveNodeParams::default()
        };
        let resolved: Resolved = parent.session.call(&resolve, deadline).await?;
        let object = resolved.object.object_id.ok_or(BrowserError::Stale)?;
        Ok(CallArgument::builder().object_id(object).build())
    }

    /// After a call was not answered: was it the page's own scripts? Then they are stopped, so that evidence can be taken.
    pub(super) async fn hung_or(&self, session: &Session, started: Instant, late: BrowserError) -> BrowserError {
        if self.answers(session).await {
            return late;
        }
        let stop = Instant::now() + TERMINATE_LIMIT;
        match session.call::<_, IgnoredAny>(&TerminateExecutionParams::default(), stop).await {
            Ok(_) => {
                self.state.with(|inner| inner.counters.scripts_stopped += 1);
                BrowserError::PageHung { after: started.elapsed() }
            }
            Err(BrowserError::Unresponsive { .. }) => {
                // Not a script but the whole process stands still: it may stay behind when the tab is closed.
                self.browser().retire();
                BrowserError::Unresponsive { method: "anything".to_owned(), after: started.elapsed() }
            }
            Err(error) => error,
        }
    }

    /// `late`, or [`BrowserError::PageHung`] where the page's own scripts are the reason.
    pub(super) async fn hung_instead_of(&self, late: BrowserError) -> BrowserError {
        match self.page() {
            Ok(page) => self.hung_or(&page, Instant::now(), late).await,
            Err(_) => late,
        }
    }

    async fn answers(&self, session: &Session) -> bool {
        let ping = session.call::<_, IgnoredAny>(&EvaluateParams::new("1"), Instant::now() + PING_LIMIT).await;
        !matches!(ping, Err(BrowserError::Unresponsive { .. }))
    }
}

const MISSING: &str = "pagehand is not installed here";

#[derive(Deserialize)]
struct Owner {
    css: String,
    name: String,
}

fn says_no_context(message: &str) -> bool {
    message.contains("uniqueContextId not found") || message.contains("Cannot find context")
}

/// Chrome says in several ways that the document went away while a script ran in it.
fn gone_or(error: BrowserError) -> BrowserError {
    match &error {
        BrowserError::Protocol { message, .. }
            if message.contains("context was destroyed") || message.contains("navigated or closed") =>
        {
            BrowserError::Navigated
        }
        _ => error,
    }
}
