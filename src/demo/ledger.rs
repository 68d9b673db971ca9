//! What was submitted to the demo site. The server writes it, pages render from it, tests judge by it.
//!
//! Nothing is forgotten while the site runs: a demo, a test or a bench submits thousands, not millions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

/// Whether readers see a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommentState {
    /// On the page for everybody.
    Published,
    /// In the queue for moderation: only its author sees it, by the address he was sent to.
    Held,
}

/// A comment the site took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Its number; the page marks it up as `#comment-ID`.
    pub id: u64,
    /// Path of the article, for example `/articles/harbour-lights`.
    pub page: String,
    /// Who signed it.
    pub author: String,
    /// The address left with it.
    pub email: String,
    /// The web page left with it, if any.
    pub website: Option<String>,
    /// The text as it came, line ends as `\n`.
    pub body: String,
    /// Whether readers see it.
    pub state: CommentState,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Every field of the submission in its order, traps and tokens included.
    pub fields: Vec<(String, String)>,
}

/// How far a registration has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountState {
    /// Can log in.
    Active,
    /// Until the link in its mail has been opened and confirmed, nobody can log in.
    AwaitingLink,
    /// Until the code in its mail has been typed, nobody can log in.
    AwaitingCode,
}

/// A registration the site took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub id: u64,
    /// Path of the sign-up page, for example `/join`.
    pub page: String,
    /// Name to log in with.
    pub username: String,
    /// Its address.
    pub email: String,
    /// The password as it was typed: this is a site for tests.
    pub password: String,
    /// How far it has come.
    pub state: AccountState,
    /// When it came.
    pub received_at: DateTime<Utc>,
    /// Every field of the submission in its order.
    pub fields: Vec<(String, String)>,
}

/// A mail the site would have sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Receiver.
    pub to: String,
    /// Subject line.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// Path of the link to open, if it has one.
    pub link: Option<String>,
    /// The code to type, if it has one.
    pub code: Option<String>,
}

/// The site's memory, shared: a clone sees what the others see.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Records>>);

/// What is under the lock.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub comments: Vec<Comment>,
    pub trapped: Vec<Comment>,
    pub accounts: Vec<Account>,
    pub mails: Vec<Mail>,
    hits: HashMap<(String, String), u64>,
    last_id: u64,
}

/// Distinct method and path pairs that are counted; the site itself has under a hundred.
const MAX_COUNTED_PATHS: usize = 1_000;

impl Ledger {
    /// All comments taken, oldest first.
    pub fn comments(&self) -> Vec<Comment> {
        self.lock().comments.clone()
    }

    /// The comments taken for the article at `path`, oldest first.
    pub fn comments_on(&self, path: &str) -> Vec<Comment> {
        self.lock().comments.iter().filter(|comment| comment.page == path).cloned().collect()
    }

    /// Submissions that filled a trap: their senders were told of a success that is none.
    pub fn trapped(&self) -> Vec<Comment> {
        self.lock().trapped.clone()
    }

    /// All registrations taken, whatever their state, oldest first.
    pub fn accounts(&self) -> Vec<Account> {
        self.lock().accounts.clone()
    }

    /// The registration of `username`, in any state.
    pub fn account(&self, username: &str) -> Option<Account> {
        self.lock().accounts.iter().find(|account| account.username.eq_ignore_ascii_case(username)).cloned()
    }

    /// Mails to `address`, oldest first.
    pub fn mails_to(&self, address: &str) -> Vec<Mail> {
        self.lock().mails.iter().filter(|mail| mail.to.eq_ignore_ascii_case(address)).cloned().collect()
    }

    /// Requests so far with this method for this path, without its query, whatever the answer was.
    pub fn hits(&self, method: &str, path: &str) -> u64 {
        self.lock().hits.get(&(method.to_owned(), path.to_owned())).copied().unwrap_or(0)
    }

    pub(super) fn count(&self, method: &str, path: &str) -> u64 {
        let mut records = self.lock();
        if records.hits.len() >= MAX_COUNTED_PATHS && !records.hits.contains_key(&(method.to_owned(), path.to_owned()))
        {
            return 0;
        }
        let hits = records.hits.entry((method.to_owned(), path.to_owned())).or_default();
        *hits += 1;
        *hits
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    /// A number never given before; the comments that come with the articles have the lower ones.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.max(400) + 1;
        self.last_id
    }
}
