//! `robots.txt`: what a site keeps from robots is kept from this one, unless whoever authorised the enrolment says otherwise.
//!
//! It is fetched by the way that the task's own traffic takes, at most once an hour by all workers together, and while the
//! tab is being opened, so a task hardly waits for it. A site that does not answer for it has not refused anything: its
//! owner has let us in by the enrolment. Then what it last said counts for a day; after that, and where the answer is 4xx,
//! everything is allowed (RFC 9309 says so for 4xx; for a site that is down it would have us stay away, but then its pages
//! don't answer either, and the attempt fails by itself). Pace is what the enrolment says; `Crawl-delay` is not read.
//!
//! The page of the task is held against it. What that page loads, and where its own forms and links lead, is the site's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use texting_robots::Robot;
use tokio::time::Instant;
use url::Url;

use super::{Worker, database};
use crate::browser::{EgressPolicy, Fetch, SitePass, UpstreamProxy, fetch};
use crate::failure::{Failure, FailureReason};
use crate::fault;
use crate::queue::KeptRobots;
use crate::site::{Enrolment, Origin, Robots};
use crate::telemetry::Redactor;

/// As groups in the file name us.
const NAME: &str = "pagehand";
/// How long an answer counts, and how long one that did not come is not asked for again.
const FRESH: Duration = Duration::from_secs(3_600);
const ASK_AGAIN: Duration = Duration::from_secs(300);
/// How long the last answer counts of a site that no longer gives one.
const STALE: Duration = Duration::from_secs(86_400);
/// The longest that fetching it may take; a task waits no longer.
const FETCH_LIMIT: Duration = Duration::from_secs(3);
/// The longest that reading it, and looking a page up in it, may take.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// So much of it is read: what RFC 9309 asks for.
const MAX_BYTES: usize = 500 << 10;
/// Lines of it that count, the longest of them, and the most stars in one.
const MOST_LINES: usize = 1_000;
const LONGEST_LINE: usize = 500;
const MOST_STARS: usize = 8;
/// Sites remembered in this process.
const MOST_KNOWN: usize = 1_000;

/// What this process knows of sites' files, by origin. A site's lock is held while its file is fetched: the others wait.
#[derive(Default)]
pub(super) struct KnownRobots(Mutex<HashMap<String, Site>>);

type Site = Arc<tokio::sync::Mutex<Option<Known>>>;

#[derive(Clone)]
struct Known {
    /// None: everything is allowed.
    rules: Option<Arc<Robot>>,
    until: Instant,
}

/// By which way it is fetched.
pub(super) struct Way<'a> {
    pub(super) policy: EgressPolicy,
    pub(super) upstream: Option<UpstreamProxy>,
    pub(super) pass: Option<&'a SitePass>,
    pub(super) user_agent: &'a str,
    /// Takes out of the file what the site was shown and repeats in it.
    pub(super) redactor: Redactor,
}

impl KnownRobots {
    fn site(&self, origin: &str) -> Site {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sites.len() >= MOST_KNOWN && !sites.contains_key(origin) {
            sites.clear();
        }
        sites.entry(origin.to_owned()).or_default().clone()
    }
}

impl Worker {
    /// Whether the task's page may be opened.
    ///
    /// # Errors
    /// The site's robots.txt keeps it from us, or Postgres can't be asked what it says.
    pub(super) async fn check_robots(&self, enrolment: &Enrolment, url: &str, way: Way<'_>) -> Result<(), Failure> {
        let Ok(url) = Url::parse(url) else { return Ok(()) };
        let Ok(origin) = Origin::of(&url) else { return Ok(()) };
        if enrolment.manners.robots == Robots::Ignore || !fault::guard!("robots") {
            return Ok(());
        }
        let site = self.state.robots.site(origin.as_str());
        let mut known = site.lock().await;
        let rules = match known.as_ref().filter(|known| known.until > Instant::now()) {
            Some(known) => known.rules.clone(),
            None => {
                let learned = self.learn_robots(&origin, way).await?;
                let rules = learned.rules.clone();
                *known = Some(learned);
                rules
            }
        };
        let allowed = match rules {
            None => true,
            Some(rules) => {
                let page = url.to_string();
                in_time(move || rules.allowed(&page)).await.unwrap_or(true)
            }
        };
        match allowed {
            false => Err(Failure::terminal(
                FailureReason::Blocked,
                "policy.robots",
                format!(
                    "the robots.txt of {origin} keeps {} from this robot ({NAME}); have it changed, or, if {} allows it all the \
                     same, `pagehand site add {} --robots ignore` says so",
                    url.path(),
                    enrolment.authorized_by,
                    enrolment.origin
                ),
            )),
            true => Ok(()),
        }
    }

    /// From Postgres, or from the site and into Postgres.
    async fn learn_robots(&self, origin: &Origin, way: Way<'_>) -> Result<Known, Failure> {
        let kept = self.queue.robots(origin.as_str()).await.map_err(database)?;
        if let Some(kept) = &kept
            && let Some(left) = lasts(kept)
        {
            return Ok(Known { rules: rules(said(kept)).await, until: Instant::now() + left });
        }
        let answer = tokio::time::timeout(FETCH_LIMIT, ask(origin, way)).await.ok().flatten();
        let (noted, body, lasts) = match answer {
            Some(body) => (self.queue.keep_robots(origin.as_str(), body.as_deref()).await, body, FRESH),
            None => {
                let before = kept.as_ref().and_then(said).map(str::to_owned);
                (self.queue.robots_unanswered(origin.as_str()).await, before, ASK_AGAIN)
            }
        };
        if let Err(error) = noted {
            tracing::warn!(event = "robots.not_kept", site = origin.as_str(), error = %error, "robots.txt not kept");
        }
        Ok(Known { rules: rules(body.as_deref()).await, until: Instant::now() + lasts })
    }
}

/// How long what is kept need not be asked for again, if at all.
fn lasts(kept: &KeptRobots) -> Option<Duration> {
    let lasts = if kept.answered { FRESH } else { ASK_AGAIN };
    lasts.checked_sub(kept.asked).filter(|left| !left.is_zero())
}

/// What counts of what is kept.
fn said(kept: &KeptRobots) -> Option<&str> {
    kept.fetched.filter(|age| *age < STALE).and(kept.body.as_deref())
}

/// What the site says: Some(None) that it has no such file, None nothing.
async fn ask(origin: &Origin, way: Way<'_>) -> Option<Option<String>> {
    let url = Url::parse(origin.as_str()).ok()?.join("/robots.txt").ok()?;
    let Way { policy, upstream, pass, user_agent, redactor } = way;
    match fetch(Fetch { url, user_agent, policy, upstream, pass, max_bytes: MAX_BYTES }).await {
        Ok((200..=299, body)) => {
            // Postgres takes no zero bytes: without them, what was hidden between them would be there.
            let text = String::from_utf8_lossy(&body).replace('\0', "");
            Some(Some(redactor.known(&text).into_owned()))
        }
        Ok((429, _)) => None,
        Ok((400..=499, _)) => Some(None),
        Ok((status, _)) => {
            tracing::debug!(origin = origin.as_str(), status, "no robots.txt");
            None
        }
        Err(error) => {
            tracing::debug!(origin = origin.as_str(), %error, "robots.txt can't be fetched");
            None
        }
    }
}

/// The rules in a file that may be of any kind, away from what must not wait. None: everything is allowed.
async fn rules(body: Option<&str>) -> Option<Arc<Robot>> {
    let body = within_bounds(body?);
    in_time(move || Robot::new(NAME, body.as_bytes()).ok()).await.flatten().map(Arc::new)
}

/// The lines that matter, no more and none wilder than a site has that means what it says: a pattern costs what its stars
/// make it cost.
fn within_bounds(body: &str) -> String {
    let matters = |line: &&str| {
        let key = line.split(':').next().unwrap_or_default().trim();
        line.len() <= LONGEST_LINE
            && line.matches('*').count() <= MOST_STARS
            && ["user-agent", "allow", "disallow"].iter().any(|known| key.eq_ignore_ascii_case(known))
    };
    let lines: Vec<&str> = body.split(['\n', '\r']).map(str::trim).filter(matters).take(MOST_LINES).collect();
    lines.join("\n")
}

/// A file may be made to take long to read. One that does says nothing.
async fn in_time<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::time::timeout(READ_LIMIT, tokio::task::spawn_blocking(read)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(asked: u64, answered: bool, fetched: Option<u64>) -> KeptRobots {
        let body = fetched.map(|_| "User-agent: *\nDisallow: /".to_owned());
        KeptRobots { asked: Duration::from_secs(asked), answered, body, fetched: fetched.map(Duration::from_secs) }
    }

    #[test]
    fn an_answer_counts_for_an_hour_and_for_a_day_when_no_other_comes() {
        assert!(lasts(&kept(3_599, true, Some(3_599))).is_some());
        assert_eq!(lasts(&kept(3_600, true, Some(3_600))), None);
        assert!(lasts(&kept(299, false, None)).is_some());
        assert_eq!(lasts(&kept(300, false, None)), None);
        assert!(said(&kept(10, false, Some(86_399))).is_some());
        assert_eq!(said(&kept(10, false, Some(86_400))), None);
        assert_eq!(said(&kept(10, false, None)), None);
    }

    #[tokio::test]
    async fn a_file_that_is_made_to_take_long_is_read_within_bounds() {
        let wild = format!("User-agent: *\nDisallow: /{}\n", "*a".repeat(200)).repeat(100);
        let many = (0..20_000).fold("User-agent: *\n".to_owned(), |all, n| format!("{all}Disallow: /{n}*x$\n"));
        let groups = "User-agent: *\nUser-agent: pagehand\n".repeat(10_000);
        for file in [wild, many, groups] {
            let kept = within_bounds(&file);
            assert!(kept.lines().count() <= MOST_LINES, "{}", kept.lines().count());
            assert!(kept.lines().all(|line| line.matches('*').count() <= MOST_STARS));
        }
        let usual =
            "# all\r\nUser-Agent: *\r\nCrawl-delay: 5\r\n disallow : /a*b$\r\nSitemap: https://example.org/s.xml\r\n";
        assert_eq!(within_bounds(usual), "User-Agent: *\ndisallow : /a*b$");
        let wildest = format!("User-agent: *\nDisallow: /{}$\n", "*a".repeat(MOST_STARS)).repeat(MOST_LINES / 2);
        let rules = rules(Some(&wildest)).await.unwrap();
        let page = format!("https://example.org/{}b", "a".repeat(4_000));
        assert!(in_time(move || rules.allowed(&page)).await.is_some(), "in time");
    }

    #[tokio::test]
    async fn a_group_that_names_us_goes_before_the_one_for_all_and_nonsense_keeps_nothing() {
        let file = "User-agent: *\nDisallow: /\n\nUser-agent: Pagehand\nDisallow: /private/\nAllow: /private/ok$\n";
        let rules = rules(Some(file)).await.unwrap();
        let allowed = |path: &str| rules.allowed(&format!("https://example.org{path}"));
        assert!(allowed("/") && allowed("/private") && allowed("/private/ok"));
        assert!(!allowed("/private/") && !allowed("/private/okay"));
        for nonsense in ["", "<html>", "Disallow", "User-agent: *\nDisallow:", "\u{0}\u{0}: :::\n*****"] {
            let rules = super::rules(Some(nonsense)).await;
            assert!(rules.is_none_or(|rules| rules.allowed("https://example.org/x")), "{nonsense}");
        }
    }
}
