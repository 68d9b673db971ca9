//! A way in for the fuzz targets, absent from every other build.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::egress::{EgressPolicy, Guard};
use super::router::{Events, Router};
use super::state::TabState;

/// Delivers messages as if they had come from Chrome, to a router with a tab that listens.
pub fn deliver<'a>(messages: impl Iterator<Item = &'a str>) {
    let (queue, _calls) = mpsc::unbounded_channel();
    let router = Router::new(queue);
    let tab: Arc<dyn Events> = TabState::new(None, Guard::new(EgressPolicy::default()));
    let events: Weak<dyn Events> = Arc::downgrade(&tab);
    router.listen(events.clone());
    router.attach("S", events);
    for message in messages {
        router.deliver(message);
    }
}
