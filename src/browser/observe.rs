//! Events of a tab, taken in on the reading task, in the order they came.

use tokio::time::Instant;

use super::chrome::Attached;
use super::egress::Asked;
use super::error::BrowserError;
use super::events::*;
use super::router::{Events, Session, lock};
use super::state::{Inner, TabState, World};
use super::submit::Intercepted;
use super::types::TroubleKind;
use super::{json, setup, submit};

impl TabState {
    fn network(&self, inner: &mut Inner, session: &Session, method: &str, params: &str) {
        match method {
            "Network.requestWillBeSent" => {
                inner.counters.requests += 1;
                inner.active = Instant::now();
                let Ok(sent) = json::lenient::<RequestWillBeSent>(params) else { return };
                inner.log.sent(&sent);
                inner.loads.sent(&sent);
                if let (Some(answer), Some(course)) = (sent.redirect_response, inner.watched.get_mut(&sent.request_id))
                    && course.status.is_none()
                {
                    course.answered(&answer, session);
                }
            }
            "Network.responseReceived" => {
                inner.active = Instant::now();
                let Ok(received) = json::lenient::<ResponseReceived>(params) else { return };
                let answer = &received.response;
                if let Some(error) = self.guard.own_answer(answer.header("pagehand-egress")) {
                    inner.counters.failed_requests += 1;
                    inner.log.ended(&received.request_id, None, Some(error));
                    if received.r#type == "Document" {
                        inner.document(&received.request_id).unreached = Some(error.to_owned());
                    }
                    if let Some(course) = inner.watched.get_mut(&received.request_id)
                        && course.status.is_none()
                    {
                        course.error = Some(error.to_owned());
                        course.finished = true;
                    }
                    self.note(inner, TroubleKind::RequestFailed, &answer.url, None, error);
                    return;
                }
                inner.log.answered(&received.request_id, answer.status());
                inner.loads.answered(&received.request_id, answer.status(), answer.mime_type.as_deref());
                if received.r#type == "Document" {
                    let document = inner.document(&received.request_id);
                    document.status = answer.status();
                    document.retry_after = answer.header("retry-after").map(str::to_owned);
                    document.mime_type = answer.mime_type.clone();
                }
                if let Some(course) = inner.watched.get_mut(&received.request_id)
                    && course.status.is_none()
                {
                    course.answered(answer, session);
                }
                if let Some(status @ 400..) = answer.status() {
                    self.note(inner, TroubleKind::HttpStatus, &answer.url, Some(status), "");
                }
            }
            "Network.loadingFinished" => {
                inner.active = Instant::now();
                let Ok(finished) = serde_json::from_str::<LoadingFinished>(params) else { return };
                inner.counters.bytes_received += finished.encoded_data_length.max(0.0) as u64;
                inner.log.ended(&finished.request_id, Some(finished.encoded_data_length), None);
                inner.loads.ended(&finished.request_id, finished.encoded_data_length);
                if let Some(course) = inner.watched.get_mut(&finished.request_id) {
                    course.finished = true;
                }
            }
            "Network.loadingFailed" => {
                inner.active = Instant::now();
                let Ok(failed) = serde_json::from_str::<LoadingFailed>(params) else { return };
                inner.counters.failed_requests += 1;
                inner.log.ended(&failed.request_id, None, Some(&failed.error_text));
                inner.loads.ended(&failed.request_id, f64::INFINITY);
                if failed.r#type == "Document" {
                    inner.document(&failed.request_id).error = Some(failed.error_text.clone());
                }
                if let Some(course) = inner.watched.get_mut(&failed.request_id) {
                    course.error = Some(failed.error_text.clone());
                    course.finished = true;
                }
                if failed.error_text != "net::ERR_ABORTED" {
                    self.note(inner, TroubleKind::RequestFailed, "", None, &failed.error_text);
                }
            }
            _ => {}
        }
    }

    /// A document, a script's request or a beacon is about to leave.
    fn paused(&self, session: &Session, paused: Paused) {
        let mut inner = lock(&self.inner);
        let main_document = paused.resource_type == "Document" && paused.frame_id == inner.main;
        let (method, url) = (&paused.request.method, &paused.request.url);
        let denied = self.guard.judge(Asked { method, url, main_document }).err();
        if let Some(denial) = &denied {
            self.note(&mut inner, TroubleKind::RequestFailed, url, None, &denial.to_string());
            if main_document {
                // It stays where it is.
                inner.kept_from = Some(denial.clone());
                inner.leaving = None;
            }
        }
        let request = Intercepted { session: session.clone(), paused, denied };
        let unwatched = match &inner.intercept {
            Some(queue) => queue.send(request).err().map(|error| error.0),
            None => Some(request),
        };
        if let Some(Intercepted { paused, denied, .. }) = unwatched {
            if denied.is_some() {
                submit::refuse(session, &paused.request_id);
            } else if submit::after_submission(
                session,
                &paused,
                inner.spent.as_ref(),
                inner.sealed,
                inner.pass.as_ref(),
            ) {
                inner.counters.refused_repeats += 1;
            }
        }
    }

    fn page(&self, inner: &mut Inner, session: &Session, method: &str, params: &str) {
        match method {
            "Page.frameAttached" => {
                let Ok(attached) = serde_json::from_str::<FrameAttached>(params) else { return };
                inner.frame(&attached.frame_id, session).parent = Some(attached.parent_frame_id);
            }
            "Page.frameNavigated" => {
                let Ok(navigated) = json::lenient::<FrameNavigated>(params) else { return };
                inner.navigated(navigated.frame, session);
            }
            "Page.navigatedWithinDocument" => {
                let Ok(within) = json::lenient::<NavigatedWithin>(params) else { return };
                if let Some(frame) = inner.frames.get_mut(&within.frame_id) {
                    frame.url = within.url;
                }
                inner.active = Instant::now();
            }
            "Page.frameDetached" => {
                let Ok(detached) = serde_json::from_str::<FrameDetached>(params) else { return };
                match detached.reason.as_deref() {
                    // It goes on in another process.
                    Some("swap") => {
                        if let Some(frame) = inner.frames.get_mut(&detached.frame_id)
                            && frame.session.id() == session.id()
                        {
                            frame.world = None;
                        }
                    }
                    _ => inner.remove_frame(&detached.frame_id),
                }
            }
            "Page.lifecycleEvent" => {
                let Ok(event) = serde_json::from_str::<LifecycleEvent>(params) else { return };
                match event.name {
                    "DOMContentLoaded" => inner.document(event.loader_id).ready = true,
                    "load" => {
                        let document = inner.document(event.loader_id);
                        (document.ready, document.loaded) = (true, true);
                    }
                    _ => return,
                }
                inner.active = Instant::now();
            }
            "Page.frameRequestedNavigation" | "Page.frameStartedNavigating" => {
                let Ok(event) = serde_json::from_str::<OfFrame>(params) else { return };
                inner.active = Instant::now();
                if event.frame_id == inner.main {
                    inner.leaving = Some(Instant::now());
                }
            }
            "Page.frameStoppedLoading" if inner.kept_from.is_some() => {
                let Ok(event) = serde_json::from_str::<OfFrame>(params) else { return };
                // Chrome gives no load event to a page that was about to leave, and stays.
                let loader = inner.main_frame().map(|frame| frame.loader.clone());
                if let Some(loader) = loader.filter(|_| event.frame_id == inner.main) {
                    let document = inner.document(&loader);
                    (document.ready, document.loaded) = (document.committed, document.committed);
                }
            }
            "Page.fileChooserOpened" => inner.counters.file_choosers += 1,
            "Page.downloadWillBegin" => {
                let Ok(event) = serde_json::from_str::<OfFrame>(params) else { return };
                if let Some(frame) = inner.frames.get(&event.frame_id) {
                    let loader = frame.loader.clone();
                    inner.document(&loader).download = true;
                }
            }
            _ => {}
        }
    }

    fn runtime(&self, inner: &mut Inner, session: &Session, method: &str, params: &str) {
        match method {
            "Runtime.executionContextCreated" => {
                let Ok(created) = json::lenient::<ContextCreated>(params) else { return };
                let context = created.context;
                if context.name == setup::WORLD
                    && let Some(id) = context.aux_data.and_then(|aux| aux.frame_id)
                {
                    let session_id = session.id().map(str::to_owned);
                    let frame = inner.frame(&id, session);
                    frame.session = session.clone();
                    frame.world = Some(World { unique: context.unique_id, id: context.id, session: session_id });
                }
            }
            "Runtime.executionContextDestroyed" => {
                let Ok(gone) = serde_json::from_str::<ContextDestroyed>(params) else { return };
                inner.forget_worlds(session, |world| world.id == gone.execution_context_id);
            }
            "Runtime.executionContextsCleared" => inner.forget_worlds(session, |_| true),
            "Runtime.consoleAPICalled" => {
                let Ok(called) = json::lenient::<ConsoleCalled>(params) else { return };
                inner.log.said(&called.r#type, &called.text(), "");
                if called.r#type == "error" || called.r#type == "assert" {
                    inner.counters.console_errors += 1;
                    self.note(inner, TroubleKind::ConsoleError, "", None, &called.text());
                }
            }
            "Runtime.exceptionThrown" => {
                inner.counters.console_errors += 1;
                let Ok(thrown) = json::lenient::<ExceptionThrown>(params) else { return };
                let details = thrown.exception_details;
                let url = details.url.clone().unwrap_or_default();
                inner.log.said("exception", &details.message(), &url);
                self.note(inner, TroubleKind::Exception, &url, None, &details.message());
            }
            _ => {}
        }
    }
}

impl Events for TabState {
    fn event(&self, session: &Session, method: &str, params: &str) {
        let domain = method.split_once('.').map_or("", |(domain, _)| domain);
        match (domain, method) {
            (_, "Page.javascriptDialogOpening") => {
                let Ok(dialog) = json::lenient::<DialogOpening>(params) else { return };
                self.dialog(session, &dialog);
            }
            (_, "Target.attachedToTarget") => {
                let Ok(attached) = serde_json::from_str::<Attached>(params) else { return };
                self.child_attached(session, &attached);
            }
            (_, "Fetch.requestPaused") => {
                let Ok(paused) = json::lenient::<Paused>(params) else {
                    // Unreadable, so nobody can say that it may go; but it must be answered.
                    if let Ok(id) = json::lenient::<PausedId>(params) {
                        submit::refuse(session, &id.request_id);
                    }
                    return;
                };
                self.paused(session, paused);
            }
            ("Network", _) => self.network(&mut lock(&self.inner), session, method, params),
            ("Page", _) => self.page(&mut lock(&self.inner), session, method, params),
            ("Runtime", _) => self.runtime(&mut lock(&self.inner), session, method, params),
            _ => return,
        }
        self.touch();
    }

    fn ended(&self, session: &Session, cause: &BrowserError) {
        let mut inner = lock(&self.inner);
        if inner.page.as_ref().is_some_and(|page| page.id() == session.id()) {
            inner.fault.get_or_insert_with(|| cause.clone());
        } else {
            inner.forget_worlds(session, |_| true);
        }
        drop(inner);
        self.touch();
    }
}
