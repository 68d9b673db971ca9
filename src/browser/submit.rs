//! Submitting: the one request that can't be taken back is held at the moment it would leave.
//!
//! Chrome pauses every document request, XHR, fetch and beacon of every frame for as long as a tab lives, because the
//! policy on where traffic may go looks at them. While a submission is under way, what can't be the submission goes on at
//! once; the rest is shown to the [`SubmitGate`]. The one it holds is let go when, and only when, [`SubmitGate::admit`]
//! says so; a second one that matches is refused, and so is one that would go where the policy forbids. Whatever ends the
//! call — an error, its limit, its being dropped — fails what is still held. What it only suspects waits for a moment, in
//! case something comes that surely is the submission. After an admitted submission the tab goes on refusing the same
//! request (a script that tries again, a double click) until it is closed or submits again. One in which nothing was
//! admitted is sealed: whatever could submit anything is refused until then.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chromiumoxide::cdp::browser_protocol::fetch::{
    ContinueRequestParams, EnableParams, FailRequestParams, RequestPattern,
};
use chromiumoxide::cdp::browser_protocol::network::{ErrorReason, GetResponseBodyParams, ResourceType};
use futures::future::{BoxFuture, OptionFuture};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::egress::{Denial, DenialKind};
use super::error::BrowserError;
use super::events::Paused;
use super::pass::{self, SitePass};
use super::router::Session;
use super::state::{Course, Inner};
use super::tab::Tab;
use super::types::{ElementRef, Exchange, FrameId, HeldRequest, Judgement, SubmitGate, SubmitReport};
use crate::fault;

/// Nothing asked of the network for so long after the click: there will be no submission.
const QUIET: Duration = Duration::from_millis(1500);
/// So long a request that may be the submission waits for one that surely is.
const SUSPECTED_FOR: Duration = Duration::from_millis(700);
/// A script that has its answer goes elsewhere within this time, or stays.
const FOLLOW_UP: Duration = Duration::from_millis(100);
/// So much of a script's answer is kept.
const LONGEST_EXCERPT: usize = 64 << 10;
/// So many requests that passed are reported.
const MOST_OTHERS: usize = 32;

/// Answers a paused request: it may go.
pub(super) fn let_go(session: &Session, request: &str) {
    session.tell(&ContinueRequestParams::new(request.to_owned()));
}

/// Answers a paused request: it must not go.
pub(super) fn refuse(session: &Session, request: &str) {
    session.tell(&FailRequestParams::new(request.to_owned(), ErrorReason::Aborted));
}

/// A request that Chrome holds while a submission is under way.
pub(super) struct Intercepted {
    pub(super) session: Session,
    pub(super) paused: Paused,
    /// The policy forbids it.
    pub(super) denied: Option<Denial>,
}

/// What is paused.
pub(super) fn patterns() -> EnableParams {
    let kinds = [ResourceType::Document, ResourceType::Xhr, ResourceType::Fetch, ResourceType::Ping];
    let pattern = |kind| RequestPattern { resource_type: Some(kind), ..RequestPattern::default() };
    EnableParams { patterns: Some(kinds.map(pattern).to_vec()), handle_auth_requests: None }
}

/// What to do with a request that is paused while no submission is under way: the same again is refused, and in a tab that
/// is sealed all that could submit anything. Whether it was refused.
pub(super) fn after_submission(
    session: &Session,
    paused: &Paused,
    spent: Option<&(String, String)>,
    sealed: bool,
    pass: Option<&SitePass>,
) -> bool {
    let again = paused.redirected_request_id.is_none()
        && spent.is_some_and(|(method, url)| *method == paused.request.method && *url == paused.request.url);
    let again = again || (sealed && may_submit(paused));
    if again {
        refuse(session, &paused.request_id);
    } else {
        pass::let_go(session, paused, pass);
    }
    again
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    body: String,
    #[serde(default)]
    base64_encoded: bool,
}

/// Interception for as long as it lives.
struct Watch<'a> {
    tab: &'a Tab,
    gate: &'a dyn SubmitGate,
    queue: mpsc::UnboundedReceiver<Intercepted>,
    held: Option<(Session, Paused)>,
    pass: Option<SitePass>,
    suspects: Vec<Suspect>,
    admitted: bool,
}

/// A request that may be the submission, and waits for one that surely is.
struct Suspect {
    session: Session,
    paused: Paused,
    request: Arc<HeldRequest>,
    since: Instant,
}

/// A request that was shown to the gate, to be followed.
struct Followed {
    request: Arc<HeldRequest>,
    id: String,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // In this order: nothing held may go, what came meanwhile is judged, and only then is the rest looked at alone.
        if let Some((session, paused)) = self.held.take() {
            refuse(&session, &paused.request_id);
        }
        for suspect in self.suspects.drain(..) {
            refuse(&suspect.session, &suspect.paused.request_id);
        }
        self.queue.close();
        while let Ok(Intercepted { session, paused, denied }) = self.queue.try_recv() {
            let held = may_submit(&paused) && is_kept_back(self.gate.judge(&described(&paused)));
            if held || denied.is_some() {
                refuse(&session, &paused.request_id);
            } else {
                pass::let_go(&session, &paused, self.pass.as_ref());
            }
        }
        // A script that tries again, or only now gets to it, must not submit what nobody answers for.
        let sealed = !self.admitted && self.gate.guards() && fault::guard!("tab.seal");
        self.tab.state.with(|inner| {
            inner.intercept = None;
            inner.sealed = sealed;
        });
    }
}

impl Tab {
    /// The press that submitted nothing has brought a further step of the form: requests are no longer taken for a late
    /// submission.
    pub fn unseal(&self) {
        self.state.with(|inner| inner.sealed = false);
    }

    /// Clicks `trigger` (a `<form>` is asked to submit itself instead) and shows each request that may carry the
    /// submission to `gate`: documents other than GET, GET documents with a query, and XHR, fetch and beacons other than
    /// GET, of any frame. Ends with the answer to the one that was held and admitted, and with the page that followed;
    /// without either as soon as nothing has been asked of the network for 1.5 s.
    ///
    /// # Errors
    /// As [`Tab::click`], for the trigger. What becomes of the requests is in the report, not an error; a crash after
    /// one was admitted is an error, and [`SubmitGate::admit`] has been called by then.
    pub async fn submit(
        &self,
        trigger: &ElementRef,
        gate: &dyn SubmitGate,
        limit: Duration,
    ) -> Result<SubmitReport, BrowserError> {
        let deadline = self.end_of(limit)?;
        self.unless_faulty(self.submit_until(trigger, gate, deadline)).await
    }

    async fn submit_until(
        &self,
        trigger: &ElementRef,
        gate: &dyn SubmitGate,
        deadline: Instant,
    ) -> Result<SubmitReport, BrowserError> {
        let mut report = SubmitReport::default();
        let mut watch = self.watch(gate);
        let before = self.state.with(|inner| inner.main_frame().map(|frame| frame.loader.clone())).unwrap_or_default();
        let mut trigger = OptionFuture::from(Some(Box::pin(self.set_off(trigger, deadline))));
        let mut admit: OptionFuture<BoxFuture<'_, Result<(), String>>> = None.into();
        let mut asked: Option<Followed> = None;
        let mut admitted: Option<Followed> = None;
        let mut others: Vec<Followed> = Vec::new();
        let mut quiet_since: Option<Instant> = None;
        let mut hold: Option<Suspect> = None;
        loop {
            let suspected = || if asked.is_some() || admitted.is_some() { None } else { watch.ripe() };
            if let Some(found) = hold.take().or_else(suspected) {
                // What waited beside it is not the submission.
                for other in watch.suspects.drain(..) {
                    others.push(self.follow(other.request, &other.paused));
                    pass::let_go(&other.session, &other.paused, watch.pass.as_ref());
                }
                let Suspect { session, paused, request, .. } = found;
                asked = Some(self.follow(request.clone(), &paused));
                watch.held = Some((session, paused));
                let asking: BoxFuture<'_, _> = Box::pin(async move { gate.admit(&request).await });
                admit = Some(asking).into();
            }
            // From here on there is one, if there was none before.
            let taken = asked.is_some() || admitted.is_some();
            let tick = Instant::now() + Duration::from_millis(100);
            let ends = admitted.as_ref().map(|followed| {
                let (id, document) = (followed.id.clone(), followed.request.resource_type == "Document");
                self.state.until(deadline, move |inner| inner.has_ended(&id, document).then_some(()))
            });
            let mut ends = std::pin::pin!(OptionFuture::from(ends));
            tokio::select! {
                biased;
                Some(Intercepted { session, paused, denied }) = watch.queue.recv() => {
                    if !may_submit(&paused) {
                        match denied {
                            None => pass::let_go(&session, &paused, watch.pass.as_ref()),
                            Some(_) => refuse(&session, &paused.request_id),
                        }
                        continue;
                    }
                    let request = Arc::new(described(&paused));
                    if let Some(denial) = denied {
                        refuse(&session, &paused.request_id);
                        if gate.judge(&request) == Judgement::Hold {
                            let kind = DenialKind::NotEnrolled;
                            let kind = if denial.kind == DenialKind::ThirdPartyWrite { kind } else { denial.kind };
                            return Err(BrowserError::Denied(Denial { kind, ..denial }));
                        }
                        continue;
                    }
                    match gate.judge(&request) {
                        Judgement::Suspect if !taken => {
                            let suspect = Suspect { session, paused, request, since: Instant::now() };
                            watch.suspects.push(suspect);
                        }
                        Judgement::Pass | Judgement::Suspect => {
                            if others.len() < MOST_OTHERS {
                                others.push(self.follow(request, &paused));
                            }
                            pass::let_go(&session, &paused, watch.pass.as_ref());
                        }
                        Judgement::Hold if !taken => {
                            hold = Some(Suspect { session, paused, request, since: Instant::now() });
                        }
                        Judgement::Hold | Judgement::Refuse => {
                            refuse(&session, &paused.request_id);
                            report.refused += 1;
                        }
                    }
                }
                Some(verdict) = &mut admit => {
                    admit = None.into();
                    let Some((session, request)) = watch.held.take() else { continue };
                    match verdict {
                        Ok(()) => {
                            pass::let_go(&session, &request, watch.pass.as_ref());
                            watch.admitted = true;
                            fault::point!("gate.released");
                            admitted = asked.take();
                        }
                        Err(why) => {
                            refuse(&session, &request.request_id);
                            report.refused += 1;
                            report.refusal = Some(why);
                            break;
                        }
                    }
                }
                Some(done) = &mut trigger => {
                    trigger = None.into();
                    quiet_since = Some(Instant::now());
                    // A click whose answer went under with its page has done its work all the same.
                    if let Err(error) = done && asked.is_none() && admitted.is_none() {
                        return Err(error);
                    }
                }
                Some(ended) = &mut ends => {
                    ended?;
                    break;
                }
                () = tokio::time::sleep_until(tick.min(deadline)) => {
                    if Instant::now() >= deadline {
                        break;
                    }
                    let Some(since) = quiet_since else { continue };
                    if asked.is_some() || admitted.is_some() {
                        continue;
                    }
                    let (moved, leaving, active) = self.state.with(|inner| {
                        let here = inner.main_frame().map(|frame| frame.loader.clone()).unwrap_or_default();
                        (here != before, inner.leaving.is_some(), inner.active)
                    });
                    if moved || (!leaving && since.max(active).elapsed() >= QUIET) {
                        break;
                    }
                }
            }
        }
        if let Some(followed) = &admitted {
            let spent = (followed.request.method.clone(), followed.request.url.clone());
            self.state.with(|inner| inner.spent = Some(spent));
        }
        // What was refused leads nowhere, and Chrome does not say that it has given up going there.
        let refused = report.refusal.is_some();
        let follow_up = async {
            if refused {
                return;
            }
            match &admitted {
                Some(followed) if followed.request.resource_type == "Document" => {}
                Some(_) => {
                    let soon = deadline.min(Instant::now() + FOLLOW_UP);
                    let _ = self.state.until(soon, |inner| inner.is_elsewhere(&before).then_some(())).await;
                }
                None => {}
            }
            match self.moved_on(&before, deadline).await {
                Ok(None) => report.landing_error = self.kept_from(),
                Ok(landed) => report.landed = landed,
                Err(BrowserError::NavigationFailed { error_text, .. }) => report.landing_error = Some(error_text),
                Err(error) => report.landing_error = Some(error.to_string()),
            }
        };
        // The page that follows asks for documents too: they must not wait for us.
        tokio::select! {
            () = follow_up => {}
            () = watch.pass_on(&mut report.refused) => {}
        }
        if let Some(followed) = &admitted {
            report.admitted = Some(self.exchange(followed, deadline).await);
        }
        for followed in &others {
            report.others.push(self.exchange(followed, deadline).await);
        }
        drop(watch);
        self.state.with(|inner| inner.watched.clear());
        Ok(report)
    }

    /// From now on what is paused comes to us.
    fn watch<'a>(&'a self, gate: &'a dyn SubmitGate) -> Watch<'a> {
        let (sender, queue) = mpsc::unbounded_channel();
        let pass = self.state.with(|inner| {
            inner.intercept = Some(sender);
            inner.spent = None;
            inner.sealed = false;
            inner.kept_from = None;
            inner.watched.clear();
            inner.pass.clone()
        });
        Watch { tab: self, gate, queue, held: None, pass, suspects: Vec::new(), admitted: false }
    }

    /// Where the main frame was kept from going, in words.
    fn kept_from(&self) -> Option<String> {
        self.state.with(|inner| inner.kept_from.as_ref().map(ToString::to_string))
    }

    /// Clicks the button, or has the form submit itself.
    async fn set_off(&self, trigger: &ElementRef, deadline: Instant) -> Result<(), BrowserError> {
        let aim = self.aim(trigger, true, deadline).await?;
        if !aim.form {
            return match self.press(trigger, aim, deadline).await {
                Err(BrowserError::NotActionable { .. }) => self.click_until(trigger, deadline).await,
                done => done,
            };
        }
        let ask = "(ph, n) => { ph.get(n).requestSubmit(); }";
        match self.call_until::<()>(&trigger.frame, ask, &[json!(trigger.handle)], deadline).await {
            Err(BrowserError::Navigated) => Ok(()),
            done => done,
        }
    }

    /// From now on the course of this request is kept.
    fn follow(&self, request: Arc<HeldRequest>, paused: &Paused) -> Followed {
        let id = paused.network_id.clone().unwrap_or_else(|| paused.request_id.clone());
        self.state.with(|inner| inner.watched.insert(id.clone(), Course::default()));
        Followed { request, id }
    }

    async fn exchange(&self, followed: &Followed, deadline: Instant) -> Exchange {
        let course = self.state.with(|inner| inner.watched.get(&followed.id).cloned()).unwrap_or_default();
        let mut exchange = Exchange {
            method: followed.request.method.clone(),
            url: followed.request.url.clone(),
            resource_type: followed.request.resource_type.clone(),
            status: course.status,
            retry_after: course.retry_after(),
            location: course.location,
            error: course.error.map(|error| self.why_unreached(&followed.request.url, error)),
            body_excerpt: None,
        };
        if matches!(exchange.resource_type.as_str(), "XHR" | "Fetch")
            && course.finished
            && let Some(session) = course.session
        {
            let soon =
                deadline.max(Instant::now() + Duration::from_millis(200)).min(Instant::now() + Duration::from_secs(2));
            let answer = session.call::<_, Body>(&GetResponseBodyParams::new(followed.id.clone()), soon).await;
            exchange.body_excerpt = answer.ok().map(excerpt);
        }
        exchange
    }

    /// Where the main frame is if that is not where it was; waits for it to get there if it is on its way.
    async fn moved_on(&self, before: &str, deadline: Instant) -> Result<Option<super::types::Landed>, BrowserError> {
        if !self.state.with(|inner| inner.is_elsewhere(before)) {
            return Ok(None);
        }
        let arrived = self.state.until(deadline, |inner| {
            let loader = &inner.main_frame()?.loader;
            // A navigation can also end in nothing: a download, a 204.
            let gave_up = inner.leaving.is_none() && loader == before;
            (loader != before || gave_up).then(|| loader.clone())
        });
        match arrived.await? {
            Some(loader) if loader != before => self.landing(&loader, deadline).await,
            _ => Ok(None),
        }
    }
}

impl Watch<'_> {
    /// The request that has been suspected for long enough; of several the one that carries most.
    fn ripe(&mut self) -> Option<Suspect> {
        self.suspects.iter().find(|suspect| suspect.since.elapsed() >= SUSPECTED_FOR)?;
        let size = |suspect: &Suspect| suspect.request.body.as_ref().map_or(usize::MAX, Vec::len);
        let largest = (0..self.suspects.len()).max_by_key(|&i| size(&self.suspects[i]))?;
        Some(self.suspects.swap_remove(largest))
    }

    /// Answers what is paused after the submission was decided; never ends.
    async fn pass_on(&mut self, refused: &mut u32) {
        while let Some(Intercepted { session, paused, denied }) = self.queue.recv().await {
            if denied.is_some() {
                refuse(&session, &paused.request_id);
            } else if may_submit(&paused) && is_kept_back(self.gate.judge(&described(&paused))) {
                refuse(&session, &paused.request_id);
                *refused += 1;
            } else {
                pass::let_go(&session, &paused, self.pass.as_ref());
            }
        }
        std::future::pending().await
    }
}

impl Inner {
    /// Whether all that can be learnt of a request has been.
    fn has_ended(&self, id: &str, document: bool) -> bool {
        let course = self.watched.get(id).cloned().unwrap_or_default();
        if document {
            let shown = self.documents.get(id).is_some_and(|document| document.committed);
            return shown || course.error.is_some() || matches!(course.status, Some(204 | 205));
        }
        course.finished
    }

    /// Whether the main frame has left the document of `loader`, or is about to.
    fn is_elsewhere(&self, loader: &str) -> bool {
        self.leaving.is_some() || self.main_frame().is_some_and(|frame| frame.loader != loader)
    }
}

/// Whether a request must not go where none is admitted any more.
fn is_kept_back(judgement: Judgement) -> bool {
    matches!(judgement, Judgement::Hold | Judgement::Refuse)
}

/// Whether a request may carry a submission at all; where a redirect leads was decided with the request redirected.
fn may_submit(paused: &Paused) -> bool {
    let get = matches!(paused.request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
    paused.redirected_request_id.is_none()
        && match paused.resource_type.as_str() {
            "Document" => !get || paused.request.url.contains('?'),
            _ => !get,
        }
}

fn described(paused: &Paused) -> HeldRequest {
    let request = &paused.request;
    let entries = request.post_data_entries.iter().filter_map(|entry| STANDARD.decode(entry.bytes.as_deref()?).ok());
    let body = entries.reduce(|mut all, more| {
        all.extend(more);
        all
    });
    let shown = |(name, value): (&String, &serde_json::Value)| {
        let secret =
            ["cookie", "authorization", "proxy-authorization"].iter().any(|one| name.eq_ignore_ascii_case(one));
        (!secret).then(|| Some((name.clone(), value.as_str()?.to_owned()))).flatten()
    };
    let body = body.or_else(|| request.post_data.clone().map(String::into_bytes));
    let unread = request.post_data_entries.iter().any(|entry| entry.bytes.is_none())
        || (request.has_post_data && body.is_none());
    HeldRequest {
        method: request.method.clone(),
        url: request.url.clone(),
        resource_type: paused.resource_type.clone(),
        frame: FrameId(paused.frame_id.clone()),
        body,
        unread,
        headers: request.headers.iter().filter_map(shown).collect(),
    }
}

fn excerpt(answer: Body) -> String {
    let mut text = if answer.base64_encoded {
        String::from_utf8_lossy(&STANDARD.decode(answer.body).unwrap_or_default()).into_owned()
    } else {
        answer.body
    };
    let mut end = LONGEST_EXCERPT.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
