//! What belongs to a task's site beside the task: its profile, its mailbox, and what must stay out of every record.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::SecretString;
use url::Url;

use super::enrolment::check_enrolment;
use super::{Worker, database};
use crate::automation::{Sites, Support};
use crate::browser::{Signer, SitePass};
use crate::config::SecretRef;
use crate::failure::{Failure, FailureReason};
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::site::Origin;
use crate::site::profile::SiteProfile;
use crate::task::Task;

/// What was loaded for one attempt.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) support: Support,
    /// To be kept out of every record.
    pub(super) secrets: Vec<SecretString>,
    /// What the site gives its testers.
    pub(super) pass: Option<SitePass>,
}

/// The enrolled sites, as Postgres has them.
struct Enrolled(Queue);

impl Sites for Enrolled {
    fn check<'a>(&'a self, origin: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            let refuse = |problem| Failure::terminal(FailureReason::Unknown, "policy.url_denied", problem);
            let origin: Origin = origin.parse().map_err(refuse)?;
            check_enrolment(&self.0, &origin).await.map(|_| ())
        }
        .boxed()
    }
}

impl Worker {
    /// Loads what belongs to the task's site. A profile that can't be used is a failure of the attempt, with a record: what
    /// comes with the failure are the secrets that could be had.
    pub(super) async fn load_support(&self, task: &Task) -> Result<Loaded, Failure> {
        let profile = match self.queue.profile(&task.site).await.map_err(database)? {
            None => SiteProfile::default(),
            Some(source) => SiteProfile::parse(&source).map_err(|error| {
                let message = format!(
                    "the profile of {} can't be used: {error}; mend it with `pagehand site profile {} FILE`",
                    task.site, task.site
                );
                Failure::terminal(FailureReason::Unknown, "profile.invalid", message)
            })?,
        };
        let secret = |reference: &SecretRef| {
            reference.resolve().map_err(|error| {
                let message = format!("a secret of the profile of {} can't be had: {error}", task.site);
                Failure::retryable(FailureReason::Unknown, "profile.secret", message)
            })
        };
        let mut secrets = profile.secrets().into_iter().map(secret).collect::<Result<Vec<_>, _>>()?;
        // What a mail server or a language model says may repeat these. One that can't be had can't be repeated either.
        let mailboxes = [&profile.mailbox, &self.settings.mailbox].into_iter().filter_map(|one| one.password.as_ref());
        secrets.extend(mailboxes.filter_map(|password| password.resolve().ok()));
        secrets.extend(self.settings.assistant.as_ref().and_then(|assistant| assistant.key().cloned()));
        let named = |named: &BTreeMap<String, SecretRef>| {
            named
                .iter()
                .map(|(name, reference)| Ok((name.clone(), secret(reference)?)))
                .collect::<Result<Vec<_>, Failure>>()
        };
        // Of a site that is many hosts, the one that the task is on.
        let host = Url::parse(&task.url).map(|url| url.origin().ascii_serialization());
        let signer = match &profile.tester.signing_key {
            None => None,
            Some(key) => {
                let key_id = profile.tester.signing_key_id.clone().unwrap_or_else(|| "pagehand".to_owned());
                Some(Signer { key_id, key: secret(key)? })
            }
        };
        let pass = match profile.tester.is_empty() {
            true => None,
            false => Some(SitePass {
                origin: host.unwrap_or_else(|_| task.site.clone()),
                headers: named(&profile.tester.headers)?,
                cookies: named(&profile.tester.cookies)?,
                signer,
            }),
        };
        let mailbox = Mailbox::new(&profile.mailbox).or_else(|| Mailbox::new(&self.settings.mailbox));
        let sites = Arc::new(Enrolled(self.queue.clone()));
        Ok(Loaded { support: Support { profile: Arc::new(profile), mailbox, sites }, secrets, pass })
    }
}
