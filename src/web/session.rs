//! Log-ins by cookie. The cookie holds a random number, the server its digest: what is in memory opens nothing. Sessions end
//! after twelve hours, with the process, and at log-out; their number changes every hour, the old one holds for a minute
//! more because requests under way still send it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const COOKIE: &str = "pagehand_session";
const LIFE: Duration = Duration::from_secs(12 * 3600);
const ROTATE_AFTER: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(60);
/// Sessions at the same time; the oldest goes first.
const MAX_SESSIONS: usize = 1_000;

type Id = [u8; 32];

#[derive(Debug, Clone, Copy)]
struct Session {
    /// Which token it was opened with: its place in the list.
    token: usize,
    /// Its cookie is not to be sent over plain HTTP.
    secure: bool,
    opened: Instant,
    numbered: Instant,
    /// Set when it has got a new number.
    ends: Option<Instant>,
}

/// All sessions of this process.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<Id, Session>>);

/// Who a cookie stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Place of the token.
    pub token: usize,
    /// A cookie with a new number, to be sent back.
    pub renewed: Option<String>,
}

impl Sessions {
    /// Opens a session and gives its cookie. `secure`: not to be sent over plain HTTP, now or later.
    pub fn open(&self, token: usize, secure: bool, now: Instant) -> String {
        self.insert(Session { token, secure, opened: now, numbered: now, ends: None }, now)
    }

    /// Who the number stands for, if anybody.
    pub fn find(&self, number: &str, now: Instant) -> Option<Found> {
        let id = digest(number);
        let session = *self.lock().get(&id)?;
        if !is_open(&session, now) {
            return None;
        }
        let renew = session.ends.is_none() && now.duration_since(session.numbered) >= ROTATE_AFTER;
        let renewed = renew.then(|| {
            if let Some(old) = self.lock().get_mut(&id) {
                old.ends = Some(now + GRACE);
            }
            self.insert(Session { numbered: now, ..session }, now)
        });
        Some(Found { token: session.token, renewed })
    }

    /// Ends the session with this number.
    pub fn close(&self, number: &str) {
        self.lock().remove(&digest(number));
    }

    fn insert(&self, session: Session, now: Instant) -> String {
        let number = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let mut all = self.lock();
        all.retain(|_, session| is_open(session, now));
        if all.len() >= MAX_SESSIONS
            && let Some(oldest) = all.iter().min_by_key(|(_, session)| session.opened).map(|(id, _)| *id)
        {
            all.remove(&oldest);
        }
        all.insert(digest(&number), session);
        cookie(&number, session.secure)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_open(session: &Session, now: Instant) -> bool {
    now.duration_since(session.opened) < LIFE && session.ends.is_none_or(|end| now < end)
}

fn digest(number: &str) -> Id {
    Sha256::digest(number.as_bytes()).into()
}

/// The number in a Cookie header.
pub fn number_in(cookies: &str) -> Option<&str> {
    cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// The Set-Cookie header that keeps the number.
fn cookie(number: &str, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={number}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", LIFE.as_secs())
}

/// The Set-Cookie header that forgets it.
pub fn no_cookie(secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a session for a token and says its number.
    fn open(sessions: &Sessions, token: usize, now: Instant) -> String {
        number(&sessions.open(token, false, now))
    }

    fn number(cookie: &str) -> String {
        number_in(cookie).unwrap().to_owned()
    }

    #[test]
    fn a_session_gets_a_new_number_every_hour_and_the_old_one_ends_soon_after() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let first = open(&sessions, 3, start);
        assert_eq!(sessions.find(&first, start), Some(Found { token: 3, renewed: None }));
        let later = start + ROTATE_AFTER;
        let second = number(&sessions.find(&first, later).and_then(|found| found.renewed).unwrap());
        assert_ne!(first, second);
        assert_eq!(sessions.find(&first, later), Some(Found { token: 3, renewed: None }));
        assert_eq!(sessions.find(&first, later + GRACE), None);
        assert_eq!(sessions.find(&second, later + GRACE).map(|found| found.token), Some(3));
    }

    #[test]
    fn a_session_ends_after_its_life_however_often_it_is_used() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let mut current = open(&sessions, 0, start);
        for hour in 1..12 {
            let found = sessions.find(&current, start + ROTATE_AFTER * hour);
            current = number(&found.and_then(|found| found.renewed).unwrap());
        }
        assert_eq!(sessions.find(&current, start + LIFE), None);
    }

    #[test]
    fn a_cookie_that_must_not_be_sent_over_plain_http_stays_so() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        for secure in [true, false] {
            let first = sessions.open(0, secure, start);
            let second = sessions.find(&number(&first), start + ROTATE_AFTER).and_then(|found| found.renewed).unwrap();
            for cookie in [first, second] {
                assert_eq!(cookie.contains("; Secure"), secure, "{cookie}");
                assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
            }
        }
    }

    #[test]
    fn a_closed_session_and_a_guessed_number_open_nothing() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let number = open(&sessions, 0, now);
        sessions.close(&number);
        assert_eq!(sessions.find(&number, now), None);
        assert_eq!(sessions.find("", now), None);
    }

    #[test]
    fn there_are_never_more_sessions_than_the_bound() {
        let sessions = Sessions::default();
        let now = Instant::now();
        for _ in 0..MAX_SESSIONS + 10 {
            open(&sessions, 0, now);
        }
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
    }

    #[test]
    fn the_number_is_found_among_other_cookies() {
        assert_eq!(number_in("a=b; pagehand_session=xyz; c=d"), Some("xyz"));
        assert_eq!(number_in("xpagehand_session=1; pagehand_sessions=2"), None);
    }
}
