//! One connection to a browser and the sessions on it.
//!
//! Calls are matched to answers by number; every waiting call of a session fails at once, with the true cause, when its
//! page crashes, is detached or closed, or when the connection ends; later calls fail at once as well. Chrome itself
//! never answers those. Events go, in the order they came, straight from the reading task to the session's handler,
//! which may look at them, change its own state and send calls, but can't wait: so no slow consumer holds up the reader,
//! and whoever sees an answer also sees the state that the events before it made.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chromiumoxide::types::Command;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::BrowserError;
use super::json;

/// More calls than this waiting at once means that nobody answers.
const MOST_PENDING: usize = 10_000;

/// Takes a mutex even when a thread panicked while it had it: what we keep under them is valid at every instant.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is told of the events of a session, on the reading task: must be quick and must not block.
pub(super) trait Events: Send + Sync {
    /// One event. `params` is the JSON text of its parameters.
    fn event(&self, session: &Session, method: &str, params: &str);
    /// The session has ended; it has failed all its calls.
    fn ended(&self, session: &Session, cause: &BrowserError);
}

type Answer = Result<Box<RawValue>, BrowserError>;

struct Pending {
    session: Option<Arc<str>>,
    method: String,
    reply: oneshot::Sender<Answer>,
}

struct Entry {
    fault: Option<BrowserError>,
    events: Weak<dyn Events>,
}

#[derive(Default)]
struct State {
    pending: HashMap<u64, Pending>,
    sessions: HashMap<Arc<str>, Entry>,
    closed: Option<BrowserError>,
}

/// A connection to one browser. Clones share it.
#[derive(Clone)]
pub(super) struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    root: Mutex<Option<Weak<dyn Events>>>,
    next: AtomicU64,
    queue: mpsc::UnboundedSender<Vec<u8>>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("Router")
            .field("pending", &state.pending.len())
            .field("sessions", &state.sessions.len())
            .finish()
    }
}

/// One session: a page, a frame in a process of its own, or (without an id) the browser itself.
#[derive(Clone, Debug)]
pub(super) struct Session {
    router: Router,
    id: Option<Arc<str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a, C> {
    id: u64,
    method: &'a str,
    params: &'a C,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming<'a> {
    id: Option<u64>,
    session_id: Option<String>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    result: Option<Box<RawValue>>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

impl Router {
    /// A router that puts what it sends into `queue`.
    pub(super) fn new(queue: mpsc::UnboundedSender<Vec<u8>>) -> Router {
        Router {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                root: Mutex::new(None),
                next: AtomicU64::new(1),
                queue,
            }),
        }
    }

    /// The browser's own session.
    pub(super) fn root(&self) -> Session {
        Session { router: self.clone(), id: None }
    }

    /// Who is told of the browser's own events.
    pub(super) fn listen(&self, events: Weak<dyn Events>) {
        *lock(&self.shared.root) = Some(events);
    }

    /// A session that Chrome has just told us of.
    pub(super) fn attach(&self, id: &str, events: Weak<dyn Events>) -> Session {
        let id: Arc<str> = id.into();
        lock(&self.shared.state).sessions.insert(id.clone(), Entry { fault: None, events });
        Session { router: self.clone(), id: Some(id) }
    }

    /// The session has ended: fails its calls, those to come included once it is forgotten.
    pub(super) fn detach(&self, id: &str, cause: &BrowserError) {
        let mut state = lock(&self.shared.state);
        let entry = state.sessions.remove(id);
        let failed = take_pending(&mut state, id);
        drop(state);
        fail(failed, cause);
        if let Some(events) = entry.and_then(|entry| entry.events.upgrade()) {
            events.ended(&Session { router: self.clone(), id: Some(id.into()) }, cause);
        }
    }

    /// The session is still there but answers no more: fails its calls, those to come included.
    pub(super) fn poison(&self, id: &str, cause: &BrowserError) {
        let mut state = lock(&self.shared.state);
        let events = state.sessions.get_mut(id).and_then(|entry| {
            entry.fault = Some(cause.clone());
            entry.events.upgrade()
        });
        let failed = take_pending(&mut state, id);
        drop(state);
        fail(failed, cause);
        if let Some(events) = events {
            events.ended(&Session { router: self.clone(), id: Some(id.into()) }, cause);
        }
    }

    /// The connection has ended: fails everything, for good.
    pub(super) fn close(&self, cause: &BrowserError) {
        let mut state = lock(&self.shared.state);
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(cause.clone());
        let failed: Vec<_> = state.pending.drain().map(|(_, pending)| pending).collect();
        let sessions: Vec<_> = state.sessions.drain().collect();
        drop(state);
        fail(failed, cause);
        for (id, entry) in sessions {
            if let Some(events) = entry.events.upgrade() {
                events.ended(&Session { router: self.clone(), id: Some(id) }, cause);
            }
        }
        let root = lock(&self.shared.root).as_ref().and_then(Weak::upgrade);
        if let Some(root) = root {
            root.ended(&self.root(), cause);
        }
    }

    /// Why the connection has ended, if it has.
    pub(super) fn closed(&self) -> Option<BrowserError> {
        lock(&self.shared.state).closed.clone()
    }

    /// Takes one message from the wire.
    pub(super) fn deliver(&self, text: &str) {
        let parsed = serde_json::from_str::<Incoming>(text);
        let Ok(message) = parsed else {
            // Cut off or no JSON: whoever waits for it is told so.
            if let Some(pending) = leading_id(text).and_then(|id| lock(&self.shared.state).pending.remove(&id)) {
                let message = "the answer is too long or no JSON".to_owned();
                let _ = pending.reply.send(Err(BrowserError::Decode { what: pending.method, message }));
            }
            return;
        };
        match (message.id, message.method) {
            (Some(id), _) => {
                let Some(pending) = lock(&self.shared.state).pending.remove(&id) else { return };
                let answer = match (message.error, message.result) {
                    (Some(refusal), _) => Err(refusal_of(&pending.method, refusal)),
                    (None, Some(result)) => Ok(result),
                    (None, None) => Ok(RawValue::NULL.to_owned()),
                };
                let _ = pending.reply.send(answer);
            }
            (None, Some(method)) => {
                let params = message.params.map_or("{}", RawValue::get);
                self.dispatch(message.session_id.as_deref(), &method, params);
            }
            (None, None) => {}
        }
    }

    fn dispatch(&self, session: Option<&str>, method: &str, params: &str) {
        let (events, session) = match session {
            None => (lock(&self.shared.root).clone(), self.root()),
            Some(id) => {
                let state = lock(&self.shared.state);
                let Some((id, entry)) = state.sessions.get_key_value(id) else { return };
                (Some(entry.events.clone()), Session { router: self.clone(), id: Some(id.clone()) })
            }
        };
        if method == "Target.detachedFromTarget"
            && let Ok(gone) = serde_json::from_str::<Detached>(params)
        {
            let why = "its session was detached".to_owned();
            self.detach(&gone.session_id, &BrowserError::TargetGone { why });
        }
        if method == "Inspector.targetCrashed"
            && let Some(id) = &session.id
        {
            self.poison(id, &BrowserError::RendererCrashed);
        }
        if let Some(events) = events.as_ref().and_then(Weak::upgrade) {
            events.event(&session, method, params);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detached {
    session_id: String,
}

fn take_pending(state: &mut State, session: &str) -> Vec<Pending> {
    let ids: Vec<u64> = state
        .pending
        .iter()
        .filter(|(_, pending)| pending.session.as_deref() == Some(session))
        .map(|(id, _)| *id)
        .collect();
    ids.iter().filter_map(|id| state.pending.remove(id)).collect()
}

fn fail(pending: Vec<Pending>, cause: &BrowserError) {
    for call in pending {
        let _ = call.reply.send(Err(cause.clone()));
    }
}

fn leading_id(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("{\"id\":")?;
    digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

fn refusal_of(method: &str, refusal: Refusal) -> BrowserError {
    if refusal.code == -32001 {
        return BrowserError::TargetGone { why: "its session does not exist any more".to_owned() };
    }
    BrowserError::Protocol { method: method.to_owned(), code: refusal.code, message: refusal.message }
}

impl Session {
    /// Chrome's name for it; `None` for the browser itself.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The connection it is on.
    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Sends a call at once; the answer is in what it gives back. Calls go out in the order of these.
    pub(super) fn send<C: Command>(&self, call: &C) -> Reply<serde_json::Value> {
        let method = call.identifier().into_owned();
        let (reply, answer) = oneshot::channel();
        let shared = &self.router.shared;
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let sent = Outgoing { id, method: &method, params: call, session_id: self.id.as_deref() };
        let refused = match serde_json::to_vec(&sent) {
            Err(error) => Some(BrowserError::Decode { what: method.clone(), message: error.to_string() }),
            Ok(message) => {
                let mut state = lock(&shared.state);
                match self.fault(&state) {
                    Some(fault) => Some(fault),
                    None => {
                        let pending = Pending { session: self.id.clone(), method: method.clone(), reply };
                        state.pending.insert(id, pending);
                        // Under the lock, so that the wire has them in the order of their numbers.
                        let _ = shared.queue.send(message);
                        None
                    }
                }
            }
        };
        Reply { router: self.router.clone(), id, method, answer, refused, kind: PhantomData }
    }

    /// Sends a call whose answer nobody waits for.
    pub(super) fn tell<C: Command>(&self, call: &C) {
        let shared = &self.router.shared;
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let sent = Outgoing { id, method: &call.identifier(), params: call, session_id: self.id.as_deref() };
        if let Ok(message) = serde_json::to_vec(&sent) {
            let state = lock(&shared.state);
            if self.fault(&state).is_none() {
                let _ = shared.queue.send(message);
            }
        }
    }

    /// Sends a call and waits for its answer until `deadline`.
    pub(super) async fn call<C: Command, T: DeserializeOwned>(
        &self,
        call: &C,
        deadline: Instant,
    ) -> Result<T, BrowserError> {
        self.send(call).of::<T>().until(deadline).await
    }

    fn fault(&self, state: &State) -> Option<BrowserError> {
        if let Some(closed) = &state.closed {
            return Some(closed.clone());
        }
        if state.pending.len() >= MOST_PENDING {
            return Some(BrowserError::Unresponsive { method: "anything".to_owned(), after: Duration::ZERO });
        }
        let id = self.id.as_ref()?;
        match state.sessions.get(id) {
            Some(entry) => entry.fault.clone(),
            None => Some(BrowserError::TargetGone { why: "its session has ended".to_owned() }),
        }
    }
}

/// An answer to come. Dropping it forgets the call.
#[must_use = "an answer that nobody waits for: use `tell`"]
pub(super) struct Reply<T> {
    router: Router,
    id: u64,
    method: String,
    answer: oneshot::Receiver<Answer>,
    refused: Option<BrowserError>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        lock(&self.router.shared.state).pending.remove(&self.id);
    }
}

impl<T: DeserializeOwned> Reply<T> {
    /// The same answer, read as another type.
    pub(super) fn of<U>(mut self) -> Reply<U> {
        let (_, nothing) = oneshot::channel();
        let taken = Reply {
            router: self.router.clone(),
            id: self.id,
            method: std::mem::take(&mut self.method),
            answer: std::mem::replace(&mut self.answer, nothing),
            refused: self.refused.take(),
            kind: PhantomData,
        };
        // What is left of `self` must not forget the call.
        self.id = 0;
        taken
    }

    /// Waits for it until `deadline`.
    pub(super) async fn until(mut self, deadline: Instant) -> Result<T, BrowserError> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        let started = Instant::now();
        let raw = match tokio::time::timeout_at(deadline, &mut self.answer).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(BrowserError::TargetGone { why: "the call was given up".to_owned() }),
            Err(_) => {
                let method = std::mem::take(&mut self.method);
                return Err(BrowserError::Unresponsive { method, after: started.elapsed() });
            }
        };
        let duration_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        tracing::debug!(event = "cdp.answered", method = self.method, duration_ms, "chrome answered");
        json::lenient(raw.get()).map_err(|error| BrowserError::Decode {
            what: std::mem::take(&mut self.method),
            message: error.to_string(),
        })
    }
}
