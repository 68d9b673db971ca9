//! What is known of a tab: its frames, its documents, what has been counted, and why it is of no use any more.
//!
//! [`observe`](super::observe) keeps it up to date, [`standing`](super::standing) answers what a page may ask; whoever
//! waits for something to become true waits in [`TabState::until`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::egress::{Denial, Guard};
use super::error::BrowserError;
use super::events::{NavigatedFrame, NetworkResponse};
use super::inline::Loads;
use super::log::Log;
use super::pass::SitePass;
use super::router::{Reply, Session, lock};
use super::standing::Windows;
use super::submit::Intercepted;
use super::types::{NetworkTrouble, TabCounters, TroubleKind};
use crate::failure::mapper;

/// So many troubles are kept.
const MOST_TROUBLE: usize = 64;
/// So many documents and watched requests are remembered.
const MOST_REMEMBERED: usize = 256;

/// A tab as its events show it.
pub(super) struct TabState {
    pub(super) inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    pub(super) me: Weak<TabState>,
    pub(super) windows: Arc<Windows>,
    opened: Instant,
    pub(super) user_agent: Option<String>,
    /// What may leave.
    pub(super) guard: Arc<Guard>,
}

/// What is under the lock.
pub(super) struct Inner {
    /// The page's own session, once it is attached.
    pub(super) page: Option<Session>,
    /// The main frame's id, which is the page's target id too.
    pub(super) main: String,
    /// Answers to the set-up calls, until somebody waits for them.
    pub(super) setting_up: Vec<Reply<IgnoredAny>>,
    /// All frames by id.
    pub(super) frames: HashMap<String, FrameState>,
    /// Documents by loader id, which is also the id of their request.
    pub(super) documents: HashMap<String, Document>,
    /// Requests whose course somebody wants to know, by id.
    pub(super) watched: HashMap<String, Course>,
    /// Where intercepted requests go while a submission is under way.
    pub(super) intercept: Option<mpsc::UnboundedSender<Intercepted>>,
    /// Where the main frame was kept from going, since it was last sent somewhere.
    pub(super) kept_from: Option<Denial>,
    /// Method and address of the request that submitted: not to be sent once more.
    pub(super) spent: Option<(String, String)>,
    /// What the site gives its testers.
    pub(super) pass: Option<SitePass>,
    /// A submission was given up before anything was let go: nothing that could be one may leave any more.
    pub(super) sealed: bool,
    /// What has been counted.
    pub(super) counters: TabCounters,
    /// What the first dialogs said.
    pub(super) dialogs: Vec<String>,
    /// Why this tab is of no use any more.
    pub(super) fault: Option<BrowserError>,
    /// When something was last asked of or answered by the network, or a frame moved on.
    pub(super) active: Instant,
    /// When the main frame was last asked to go somewhere.
    pub(super) leaving: Option<Instant>,
    remembered: VecDeque<String>,
    trouble: VecDeque<NetworkTrouble>,
    /// What the page said and asked for.
    pub(super) log: Log,
    /// What it has loaded to be shown.
    pub(super) loads: Loads,
    next_frame: u64,
}

/// One frame.
pub(super) struct FrameState {
    pub(super) parent: Option<String>,
    pub(super) url: String,
    pub(super) name: String,
    pub(super) loader: String,
    /// The address that could not be loaded, where Chrome shows its error page.
    pub(super) unreachable: Option<String>,
    /// The session of the process it lives in.
    pub(super) session: Session,
    /// Our isolated world in it, by Chrome's unique name.
    pub(super) world: Option<World>,
    /// Frames in the order they came.
    pub(super) order: u64,
}

/// An execution context.
#[derive(Clone)]
pub(super) struct World {
    pub(super) unique: String,
    pub(super) id: i64,
    pub(super) session: Option<String>,
}

/// One document's load.
#[derive(Default, Clone)]
pub(super) struct Document {
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<String>,
    pub(super) mime_type: Option<String>,
    pub(super) error: Option<String>,
    /// `net::ERR_…`, where what is shown is our proxy's word that the site can't be reached.
    pub(super) unreached: Option<String>,
    pub(super) committed: bool,
    pub(super) ready: bool,
    pub(super) loaded: bool,
    pub(super) download: bool,
}

/// One request's course.
#[derive(Default, Clone)]
pub(super) struct Course {
    pub(super) status: Option<u16>,
    retry_after: Option<String>,
    pub(super) location: Option<String>,
    pub(super) error: Option<String>,
    pub(super) finished: bool,
    pub(super) session: Option<Session>,
}

impl TabState {
    /// A tab that no page is attached to yet.
    pub(super) fn new(user_agent: Option<String>, guard: Arc<Guard>) -> Arc<TabState> {
        Arc::new_cyclic(|me| TabState {
            inner: Mutex::new(Inner {
                page: None,
                main: String::new(),
                setting_up: Vec::new(),
                frames: HashMap::new(),
                documents: HashMap::new(),
                watched: HashMap::new(),
                intercept: None,
                kept_from: None,
                spent: None,
                pass: None,
                sealed: false,
                counters: TabCounters::default(),
                dialogs: Vec::new(),
                fault: None,
                active: Instant::now(),
                leaving: None,
                remembered: VecDeque::new(),
                trouble: VecDeque::new(),
                log: Log::new(),
                loads: Loads::default(),
                next_frame: 0,
            }),
            changed: watch::channel(0).0,
            me: me.clone(),
            windows: Arc::default(),
            opened: Instant::now(),
            user_agent,
            guard,
        })
    }

    /// Looks at or changes what is known.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut lock(&self.inner))
    }

    /// Waits until `check` gives something; `None` at `deadline`, the tab's fault as soon as it has one.
    pub(super) async fn until<T>(
        &self,
        deadline: Instant,
        mut check: impl FnMut(&mut Inner) -> Option<T>,
    ) -> Result<Option<T>, BrowserError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let mut inner = lock(&self.inner);
                if let Some(found) = check(&mut inner) {
                    return Ok(Some(found));
                }
                if let Some(fault) = &inner.fault {
                    return Err(fault.clone());
                }
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    /// Ends as soon as the tab has a fault.
    pub(super) async fn faulty(&self) -> BrowserError {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(fault) = &lock(&self.inner).fault {
                return fault.clone();
            }
            if changed.changed().await.is_err() {
                return BrowserError::TargetGone { why: "the tab is closed".to_owned() };
            }
        }
    }

    /// The latest troubles, oldest first.
    pub(super) fn trouble(&self) -> Vec<NetworkTrouble> {
        lock(&self.inner).trouble.iter().cloned().collect()
    }

    /// Whether a frame is this tab's.
    pub(super) fn has_frame(&self, id: &str) -> bool {
        lock(&self.inner).frames.contains_key(id)
    }

    /// Wakes all that wait in [`TabState::until`].
    pub(super) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Keeps a trouble, the oldest forgotten.
    pub(super) fn note(&self, inner: &mut Inner, kind: TroubleKind, url: &str, status: Option<u16>, text: &str) {
        if inner.trouble.len() == MOST_TROUBLE {
            inner.trouble.pop_front();
        }
        let cut = |text: &str| text.chars().take(512).collect::<String>();
        let trouble = NetworkTrouble { after: self.opened.elapsed(), kind, url: cut(url), status, text: cut(text) };
        inner.trouble.push_back(trouble);
    }
}

impl Inner {
    /// A frame, new or known.
    pub(super) fn frame(&mut self, id: &str, session: &Session) -> &mut FrameState {
        self.next_frame += 1;
        let order = self.next_frame;
        self.frames.entry(id.to_owned()).or_insert_with(|| FrameState {
            parent: None,
            url: String::new(),
            name: String::new(),
            loader: String::new(),
            unreachable: None,
            session: session.clone(),
            world: None,
            order,
        })
    }

    /// A frame shows another document.
    pub(super) fn navigated(&mut self, to: NavigatedFrame, session: &Session) {
        let frame = self.frame(&to.id, session);
        if to.parent_id.is_some() {
            frame.parent = to.parent_id;
        }
        frame.session = session.clone();
        frame.url = to.url + to.url_fragment.as_deref().unwrap_or("");
        frame.name = to.name.unwrap_or_default();
        frame.loader.clone_from(&to.loader_id);
        frame.unreachable = to.unreachable_url;
        self.active = Instant::now();
        self.document(&to.loader_id).committed = true;
        if to.id == self.main {
            self.leaving = None;
            // The old document's frames go with it; Chrome does not always say so when the process changes.
            self.frames.retain(|id, _| *id == to.id);
        }
    }

    /// Makes sure the document of `loader` is remembered, the oldest forgotten.
    pub(super) fn document(&mut self, loader: &str) -> &mut Document {
        if !self.documents.contains_key(loader) {
            self.remember(loader);
        }
        self.documents.entry(loader.to_owned()).or_default()
    }

    fn remember(&mut self, id: &str) {
        if self.remembered.len() == MOST_REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.documents.remove(&oldest);
        }
        self.remembered.push_back(id.to_owned());
    }

    /// The main frame.
    pub(super) fn main_frame(&self) -> Option<&FrameState> {
        self.frames.get(&self.main)
    }

    /// A frame is gone, and those inside it.
    pub(super) fn remove_frame(&mut self, id: &str) {
        self.frames.remove(id);
        let below: Vec<String> = self
            .frames
            .iter()
            .filter(|(_, frame)| frame.parent.as_deref() == Some(id))
            .map(|(below, _)| below.clone())
            .collect();
        for id in below {
            self.remove_frame(&id);
        }
    }

    /// Worlds of a session are gone.
    pub(super) fn forget_worlds(&mut self, session: &Session, which: impl Fn(&World) -> bool) {
        for frame in self.frames.values_mut() {
            if frame.world.as_ref().is_some_and(|world| world.session.as_deref() == session.id() && which(world)) {
                frame.world = None;
            }
        }
    }
}

impl Course {
    /// The site's wish when to come back.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        wish(self.retry_after.as_deref())
    }

    /// Its answer has begun.
    pub(super) fn answered(&mut self, answer: &NetworkResponse, session: &Session) {
        self.status = answer.status();
        self.retry_after = answer.header("retry-after").map(str::to_owned);
        self.location = answer.header("location").map(str::to_owned);
        self.session = Some(session.clone());
    }
}

impl Document {
    /// The site's wish when to come back.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        wish(self.retry_after.as_deref())
    }
}

fn wish(retry_after: Option<&str>) -> Option<Duration> {
    mapper::parse_retry_after(retry_after?, chrono::Utc::now())
}
