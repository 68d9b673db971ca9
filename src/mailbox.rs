//! The mailbox: waits for the mail that a site sends to one address, and reads out of it what confirms the address.
//!
//! A mail is ours if (and only if) the server took it in after the submission (its INTERNALDATE, with a margin for clocks
//! that differ) and one of its recipients is exactly the address: To, Cc, Delivered-To, X-Original-To, Envelope-To. The
//! folder is opened read-only: nothing is marked, moved or deleted, and several tasks may wait in it at once.
//!
//! How it can go wrong: the server can't be reached (`mail.connect`) or refuses the login (`mail.auth`); the connection is
//! lost while waiting (it is made anew until the time is over). What a mail says is hostile until its link has been held
//! against the enrolled sites, which is the caller's part.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::config;
use crate::failure::{Failure, FailureReason};
use imap::{Connection, Trouble};

mod imap;
mod letter;

pub use letter::{Content, Link, read};

/// A way in for the fuzz targets, absent from every other build.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::imap::is_to;
}

/// How far the clocks of the mail server and of Postgres may differ.
const CLOCK_MARGIN: chrono::TimeDelta = chrono::TimeDelta::seconds(120);
/// How often the folder is looked at where the server does not tell of new mail.
const POLL: Duration = Duration::from_secs(3);
/// How long one wait for the server's news may last before the folder is looked at all the same.
const LONGEST_IDLE: Duration = Duration::from_secs(20);
/// How long a lost connection is left alone before it is made anew.
const RECONNECT: Duration = Duration::from_secs(2);

/// A mailbox that serves some addresses.
#[derive(Debug, Clone)]
pub struct Mailbox {
    settings: config::Mailbox,
}

/// A mail to the address that was waited for.
#[derive(Debug, Clone)]
pub struct Letter {
    /// When the server took it in.
    pub received_at: DateTime<Utc>,
    /// Who it says it is from.
    pub from: String,
    /// Its subject.
    pub subject: String,
    /// What in it may confirm the address.
    pub content: Content,
}

/// A wait for mails to one address.
pub struct Watch {
    settings: config::Mailbox,
    address: String,
    since: DateTime<Utc>,
    connection: Option<Connection>,
    seen: HashSet<u32>,
    found: Vec<Letter>,
}

impl Mailbox {
    /// The mailbox of `settings`; None where they name none. They have been checked.
    pub fn new(settings: &config::Mailbox) -> Option<Mailbox> {
        settings.host.is_some().then(|| Mailbox { settings: settings.clone() })
    }

    /// Whether mails to `address` arrive here.
    pub fn serves(&self, address: &str) -> bool {
        self.settings.serves(address)
    }

    /// How long one attempt should wait.
    pub fn patience(&self) -> Duration {
        self.settings.wait_seconds.duration()
    }

    /// Logs in and opens the folder.
    ///
    /// # Errors
    /// `mail.auth`, `mail.connect`, `mail.folder`.
    pub async fn check(&self, address: &str, limit: Duration) -> Result<(), Failure> {
        match Connection::open(&self.settings, address, limit).await {
            Ok(mut connection) => connection.close().await,
            Err(Trouble::Folder(_)) if comes_with_its_first_mail(&self.settings) => {}
            Err(trouble) => return Err(trouble.into()),
        }
        Ok(())
    }

    /// Begins to wait for mails to `address` that were taken in after `since`; nothing is asked of the server yet.
    pub fn watch(&self, address: &str, since: DateTime<Utc>) -> Watch {
        Watch {
            settings: self.settings.clone(),
            address: address.to_owned(),
            since: since - CLOCK_MARGIN,
            connection: None,
            seen: HashSet::new(),
            found: Vec::new(),
        }
    }
}

impl Watch {
    /// The next mail, of several the newest; None when none came until `deadline`. Each mail is given once.
    ///
    /// # Errors
    /// `mail.auth` and `mail.folder` at once; `mail.connect` where the server could not be reached until `deadline`.
    pub async fn next(&mut self, deadline: Instant) -> Result<Option<Letter>, Failure> {
        loop {
            if let Some(letter) = self.found.pop() {
                return Ok(Some(letter));
            }
            let looked = self.look(deadline).await;
            let late = Instant::now() >= deadline;
            match looked {
                Ok(()) if !self.found.is_empty() => continue,
                Ok(()) if late => return Ok(None),
                Ok(()) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    if let Some(connection) = self.connection.take() {
                        // A connection that is lost meanwhile is made anew by the next look.
                        self.connection = connection.news(wait.min(LONGEST_IDLE), wait.min(POLL)).await.ok();
                    }
                }
                Err(Trouble::Folder(_)) if comes_with_its_first_mail(&self.settings) => {
                    if late {
                        return Ok(None);
                    }
                    tokio::time::sleep(RECONNECT.min(deadline.saturating_duration_since(Instant::now()))).await;
                }
                Err(trouble @ (Trouble::Auth(_) | Trouble::Folder(_) | Trouble::Settings(_))) => {
                    return Err(trouble.into());
                }
                Err(trouble) => {
                    self.connection = None;
                    if Instant::now() + RECONNECT >= deadline {
                        return Err(trouble.into());
                    }
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
    }

    async fn look(&mut self, deadline: Instant) -> Result<(), Trouble> {
        // Also at the deadline: what has come by then counts.
        let limit = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(5));
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.settings, &self.address, limit).await?);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let mut letters = connection.letters(&self.address, self.since, &mut self.seen).await?;
        letters.sort_by_key(|letter| letter.received_at);
        self.found = letters;
        Ok(())
    }
}

/// Where each address has an account of its own, some servers can open its INBOX only when there has been a mail.
fn comes_with_its_first_mail(settings: &config::Mailbox) -> bool {
    settings.folder.eq_ignore_ascii_case("INBOX")
        && settings.user.as_ref().is_some_and(|user| user.contains("{address}"))
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        let reason = FailureReason::EmailVerificationFailed;
        match trouble {
            Trouble::Connect(why) => {
                Failure::retryable(reason, "mail.connect", format!("the mailbox can't be reached: {why}"))
            }
            Trouble::Auth(why) => Failure::terminal(
                reason,
                "mail.auth",
                format!(
                    "the mailbox refuses the login: {why}; mend user and password of [mailbox], then retry the run"
                ),
            ),
            Trouble::Folder(why) => Failure::terminal(
                reason,
                "mail.folder",
                format!("the mailbox's folder can't be opened: {why}; mend folder of [mailbox], then retry the run"),
            ),
            Trouble::Settings(why) => Failure::terminal(
                reason,
                "mail.settings",
                format!("the mailbox can't be used: {why}; mend [mailbox], then retry the run"),
            ),
        }
    }
}
