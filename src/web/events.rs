//! `GET /events`: says within two seconds that something in the queue has changed, so that a page can look again.
//!
//! One task asks Postgres once a second while anybody listens. A listener that is slow misses what lies between: it is only
//! ever told the latest. A stream ends after an hour, so that whoever has lost the right to listen is found out; browsers
//! come back by themselves.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::problem::Problem;
use crate::queue::Pulse;

const MAX_LISTENERS: usize = 64;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A sign of life on a quiet stream: proxies cut off what is silent, and a listener that is gone is found out.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(3600);

/// The latest pulse, and who listens.
#[derive(Debug)]
pub struct Events {
    pulse: watch::Sender<Option<Pulse>>,
    slots: Arc<Semaphore>,
}

impl Events {
    pub fn new() -> Events {
        Events { pulse: watch::Sender::new(None), slots: Arc::new(Semaphore::new(MAX_LISTENERS)) }
    }
}

/// Looks for changes while anybody listens; ends all streams at `shutdown`.
pub async fn watch(app: Shared, shutdown: CancellationToken) {
    let look = async {
        loop {
            if app.events.pulse.receiver_count() > 0
                && let Ok(pulse) = app.queue.pulse().await
            {
                app.events.pulse.send_if_modified(|last| last.replace(pulse) != Some(pulse));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = look => {}
    }
    app.events.slots.close();
    app.events.pulse.send_replace(None);
}

struct Listener {
    pulse: watch::Receiver<Option<Pulse>>,
    slots: Arc<Semaphore>,
    /// Gives the place back when the stream ends, however it does.
    _slot: OwnedSemaphorePermit,
    until: Instant,
    greeted: bool,
}

/// `GET /events`
#[utoipa::path(get, path = "/events", tag = "watching", responses(
    (status = 200, description = "server-sent events `changed`, each with the depth of the queue", content_type = "text/event-stream", body = String),
    (status = 503, description = "too many listen already", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
))]
pub async fn listen(State(app): State<Shared>) -> Result<Response, Problem> {
    let slot = app.events.slots.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Problem::unavailable("too many listen already; close other pages, or poll instead"))?;
    let listener = Listener {
        pulse: app.events.pulse.subscribe(),
        slots: app.events.slots.clone(),
        _slot: slot,
        until: Instant::now() + LONGEST,
        greeted: false,
    };
    let body = Body::from_stream(stream::unfold(listener, |mut listener| async move {
        let text = next(&mut listener).await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), listener))
    }));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response())
}

/// The next event, or a sign of life; None ends the stream.
async fn next(listener: &mut Listener) -> Option<String> {
    if !listener.greeted {
        listener.greeted = true;
        return Some("retry: 3000\n: listening\n\n".to_owned());
    }
    if listener.slots.is_closed() || Instant::now() >= listener.until {
        return None;
    }
    match timeout_at(listener.until.min(Instant::now() + SIGN_OF_LIFE), listener.pulse.changed()).await {
        Ok(Ok(())) => {
            let pulse = (*listener.pulse.borrow_and_update())?;
            let data = serde_json::to_string(&pulse).ok()?;
            Some(format!("event: changed\nid: {}\ndata: {data}\n\n", pulse.newest_attempt))
        }
        Ok(Err(_)) => None,
        Err(_) => Some(": still here\n\n".to_owned()),
    }
}
