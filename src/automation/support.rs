//! What an automation is given beside its task: what is pinned for the site, the mailbox, and the book of enrolled sites.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::failure::{Failure, FailureReason};
use crate::mailbox::Mailbox;
use crate::site::profile::{FormProfile, SiteProfile};

/// Knows which sites may be acted on.
pub trait Sites: Send + Sync {
    /// Whether pages of `origin` may be opened and acted on now.
    ///
    /// # Errors
    /// `policy.not_enrolled` or `policy.expired`, or that nobody could say.
    fn check<'a>(&'a self, origin: &'a str) -> BoxFuture<'a, Result<(), Failure>>;
}

/// No site at all.
struct Nowhere;

impl Sites for Nowhere {
    fn check<'a>(&'a self, origin: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        let message = crate::site::not_enrolled(origin);
        Box::pin(async move { Err(Failure::terminal(FailureReason::Unknown, "policy.not_enrolled", message)) })
    }
}

/// What an automation is given beside its task.
#[derive(Clone)]
pub struct Support {
    /// What is pinned for the site.
    pub profile: Arc<SiteProfile>,
    /// Where mails to the task's address arrive, if anywhere.
    pub mailbox: Option<Mailbox>,
    /// Which sites may be acted on.
    pub sites: Arc<dyn Sites>,
}

impl Default for Support {
    fn default() -> Self {
        Self { profile: Arc::default(), mailbox: None, sites: Arc::new(Nowhere) }
    }
}

impl Support {
    /// What is pinned for forms of tasks of this type.
    pub fn form(&self, task_type: &str) -> Option<&FormProfile> {
        self.profile.form(task_type)
    }
}
