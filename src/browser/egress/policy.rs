//! Where a page's traffic may go, and what was kept from going.
//!
//! The policy is asked in two places, because neither sees everything. The proxy sees every connection, but in TLS only
//! its host: it holds names, addresses and amounts. Chrome's interception sees documents, scripts' requests and beacons
//! whole, each hop of a redirect anew, before they leave: it holds where the main frame goes and what is written.
//!
//! | | enrolled site | other host, `assets` | other host, `strict` |
//! |---|---|---|---|
//! | main frame | yes | no | no |
//! | GET of a subresource or frame | yes | yes | no |
//! | anything that writes | yes | no | no |
//! | an address inside one's own network | only where the enrolment says so | no | no |

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use url::Url;

use super::resolver::Resolver;
use crate::fault;
use crate::site::{self, Origins};

/// So many different things that were kept from a page are remembered.
const MOST_DENIALS: usize = 64;
/// Stands for all targets beyond those.
const OTHERS: &str = "others";

/// What a page may load from hosts that nobody enrolled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThirdParties {
    /// Nothing.
    Strict,
    /// What it reads from public addresses: scripts, pictures, frames.
    #[default]
    Assets,
}

/// Where the traffic of one browsing context may go.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    /// Where the main frame may be and what is written may go. None, for a look at a page: anywhere public, and nothing
    /// is written at all.
    pub enrolled: Option<Arc<Origins>>,
    /// Hosts beyond those.
    pub third_parties: ThirdParties,
    /// These may have addresses inside one's own network; no other host and port may.
    pub private: Arc<Origins>,
    /// Most bytes to and fro.
    pub max_bytes: u64,
}

impl Default for EgressPolicy {
    /// Nowhere.
    fn default() -> Self {
        let third_parties = ThirdParties::Strict;
        Self { enrolled: Some(Arc::default()), third_parties, private: Arc::default(), max_bytes: 0 }
    }
}

/// Why something was kept from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialKind {
    /// Neither http nor https.
    Scheme,
    /// The main frame, or the submission, would have left the enrolled sites.
    NotEnrolled,
    /// Something written to a host that is not enrolled.
    ThirdPartyWrite,
    /// A host that is not enrolled, where only enrolled ones may be asked.
    ThirdParty,
    /// An address inside one's own network.
    PrivateAddress,
    /// More bytes than a task may move.
    Limit,
}

/// Something that was kept from a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Why.
    pub kind: DenialKind,
    /// An origin or `host:port` as the page named it, never what it resolved to.
    pub target: String,
    /// How often.
    pub count: u32,
}

impl DenialKind {
    /// All of them, each with its name in records and counters.
    pub const ALL: [(DenialKind, &'static str); 6] = [
        (Self::Scheme, "scheme"),
        (Self::NotEnrolled, "not_enrolled"),
        (Self::ThirdPartyWrite, "third_party_write"),
        (Self::ThirdParty, "third_party"),
        (Self::PrivateAddress, "private_address"),
        (Self::Limit, "limit"),
    ];

    /// The failure code where this ends a task.
    pub fn code(self) -> &'static str {
        match self {
            Self::Scheme => "policy.url_denied",
            Self::NotEnrolled => "policy.not_enrolled",
            Self::ThirdPartyWrite | Self::ThirdParty | Self::PrivateAddress => "policy.egress_denied",
            Self::Limit => "policy.egress_limit",
        }
    }

    /// Whether a page that tries this is worth an operator's look; counters of visits write to third parties every day.
    pub fn is_suspicious(self) -> bool {
        !matches!(self, Self::ThirdPartyWrite | Self::ThirdParty)
    }
}

impl Denial {
    pub(crate) fn new(kind: DenialKind, target: impl Into<String>) -> Denial {
        Denial { kind, target: target.into().chars().take(300).collect(), count: 1 }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.target;
        match self.kind {
            DenialKind::Scheme => write!(f, "`{target}` can't be opened: only http and https addresses can"),
            DenialKind::NotEnrolled => write!(f, "the page led to {target}: {}", site::not_enrolled(target)),
            DenialKind::ThirdPartyWrite => write!(f, "nothing may be sent to {target}: {}", site::not_enrolled(target)),
            DenialKind::ThirdParty => {
                write!(f, "{target} is not enrolled, and egress.third_parties = \"strict\" allows nothing else")
            }
            DenialKind::PrivateAddress => {
                write!(f, "{target} is inside a private network; if that is meant, enrol it with --allow-private")
            }
            DenialKind::Limit => {
                write!(f, "the page moved more bytes than a task may; see egress.max_mib_per_task")
            }
        }
    }
}

/// A request that Chrome has paused, as far as the policy looks at it.
#[derive(Debug, Clone, Copy)]
pub(in crate::browser) struct Asked<'a> {
    pub(in crate::browser) method: &'a str,
    pub(in crate::browser) url: &'a str,
    /// The document of the main frame.
    pub(in crate::browser) main_document: bool,
}

/// The policy of one browsing context, and what it denied so far.
#[derive(Debug)]
pub(in crate::browser) struct Guard {
    policy: EgressPolicy,
    denials: Mutex<Vec<Denial>>,
    /// Hosts and ports that could not be reached, the latest last, and what Chrome would have said.
    unreached: Mutex<VecDeque<(String, &'static str)>>,
    /// Tells the proxy's own answers from a site's.
    secret: String,
    resolver: Resolver,
}

impl Guard {
    pub(in crate::browser) fn new(policy: EgressPolicy) -> Arc<Guard> {
        Self::with_resolver(policy, Resolver::default())
    }

    pub(super) fn with_resolver(policy: EgressPolicy, resolver: Resolver) -> Arc<Guard> {
        let secret = format!("{:032x}", rand::random::<u128>());
        Arc::new(Guard { policy, denials: Mutex::default(), unreached: Mutex::default(), secret, resolver })
    }

    /// The addresses of a host, asked for once: what is dialled is what was looked at.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.resolver.resolve(host, port).await
    }

    /// For the head of an answer that is the proxy's own.
    pub(super) fn mark(&self, net_error: &str) -> String {
        format!("{} {net_error}", self.secret)
    }

    /// What the mark of an answer says, if it is ours: there was no connection, or it broke off.
    pub(in crate::browser) fn own_answer<'a>(&self, mark: Option<&'a str>) -> Option<&'a str> {
        mark?.strip_prefix(&self.secret)?.strip_prefix(' ')
    }

    pub(super) fn note_unreached(&self, target: String, net_error: &'static str) {
        let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        unreached.retain(|(known, _)| *known != target);
        if unreached.len() == MOST_DENIALS {
            unreached.pop_front();
        }
        unreached.push_back((target, net_error));
    }

    /// What stands behind Chrome's "no tunnel" to the host of `url`.
    pub(in crate::browser) fn why_unreached(&self, url: &str) -> Option<&'static str> {
        let target = target_of(url)?;
        let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        unreached.iter().find(|(known, _)| *known == target).map(|(_, why)| *why)
    }

    /// Whether a paused request may go on; what it may not is noted.
    pub(in crate::browser) fn judge(&self, asked: Asked<'_>) -> Result<(), Denial> {
        self.look_at(asked).map_err(|(kind, target)| self.note(kind, target))
    }

    fn look_at(&self, asked: Asked<'_>) -> Result<(), (DenialKind, String)> {
        let Ok(url) = Url::parse(asked.url) else { return Err((DenialKind::Scheme, asked.url.to_owned())) };
        match url.scheme() {
            "http" | "https" => {}
            "about" | "blob" | "data" if !asked.main_document => return Ok(()),
            scheme => return Err((DenialKind::Scheme, format!("{scheme}:"))),
        }
        let origin = || url.origin().ascii_serialization();
        let reads = matches!(asked.method, "GET" | "HEAD" | "OPTIONS");
        match &self.policy.enrolled {
            None if reads => Ok(()),
            None => Err((DenialKind::ThirdPartyWrite, origin())),
            Some(enrolled) if enrolled.contains(&url) => Ok(()),
            Some(_) if asked.main_document => Err((DenialKind::NotEnrolled, origin())),
            Some(_) if !reads => Err((DenialKind::ThirdPartyWrite, origin())),
            Some(_) if self.policy.third_parties == ThirdParties::Strict => Err((DenialKind::ThirdParty, origin())),
            Some(_) => Ok(()),
        }
    }

    /// Whether anything may be asked of this host, by its name or literal address alone; `reads`: nothing but reading, as
    /// far as can be seen.
    pub(super) fn admits_host(&self, host: &str, port: u16, reads: bool) -> Result<(), Denial> {
        let target = || format!("{host}:{port}");
        let literal = host.parse::<IpAddr>().ok().and_then(site::private_kind);
        if literal.or_else(|| site::private_name(host)).is_some() && !self.policy.private.has_host(host, port) {
            return Err(self.note(DenialKind::PrivateAddress, target()));
        }
        match &self.policy.enrolled {
            None if reads => Ok(()),
            Some(enrolled) if enrolled.has_host(host, port) => Ok(()),
            _ if !reads => Err(self.note(DenialKind::ThirdPartyWrite, target())),
            _ if self.policy.third_parties == ThirdParties::Strict => Err(self.note(DenialKind::ThirdParty, target())),
            _ => Ok(()),
        }
    }

    /// Whether `address`, which `host` stands for, may be connected to.
    pub(super) fn admits_address(&self, host: &str, address: SocketAddr) -> bool {
        site::private_kind(address.ip()).is_none()
            || self.policy.private.has_host(host, address.port())
            || !fault::guard!("egress.address")
    }

    /// The addresses among these that may be connected to.
    ///
    /// # Errors
    /// There are some, but none of them may.
    pub(super) fn admitted(
        &self,
        host: &str,
        port: u16,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, Denial> {
        let (mut admitted, mut refused) = (Vec::new(), false);
        for address in addresses {
            if self.admits_address(host, address) {
                admitted.push(address);
            } else {
                refused = true;
            }
        }
        if admitted.is_empty() && refused {
            return Err(self.note(DenialKind::PrivateAddress, format!("{host}:{port}")));
        }
        Ok(admitted)
    }

    /// As [`Guard::admitted`], for a host that an upstream resolves: every address that it has here is looked at. A name that does not resolve here is the upstream's to judge.
    pub(super) async fn admits_for_upstream(&self, host: &str, port: u16) -> Result<(), Denial> {
        if self.policy.private.has_host(host, port) {
            return Ok(());
        }
        match self.resolve(host, port).await {
            Ok(addresses) => match addresses.into_iter().find(|address| site::private_kind(address.ip()).is_some()) {
                Some(_) => Err(self.note(DenialKind::PrivateAddress, format!("{host}:{port}"))),
                None => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.policy.max_bytes
    }

    /// What was denied of this host and port by the proxy, where Chrome only knows that there was no connection.
    pub(in crate::browser) fn denied_connection(&self, url: &str) -> Option<Denial> {
        let target = target_of(url)?;
        let ends_it = |one: &&Denial| match one.kind {
            DenialKind::PrivateAddress | DenialKind::ThirdParty => one.target == target,
            DenialKind::Limit => true,
            _ => false,
        };
        self.lock().iter().find(ends_it).cloned()
    }

    /// All that was denied so far, the first 64 kinds and targets of it.
    pub(in crate::browser) fn denials(&self) -> Vec<Denial> {
        self.lock().clone()
    }

    pub(super) fn note(&self, kind: DenialKind, target: impl Into<String>) -> Denial {
        let denial = Denial::new(kind, target);
        let mut denials = self.lock();
        let known = denials.iter().position(|one| one.kind == kind && one.target == denial.target);
        // Beyond the bound only the kind is remembered.
        let known = known.or_else(|| {
            let others = |one: &Denial| one.kind == kind && one.target == OTHERS;
            (denials.len() >= MOST_DENIALS).then(|| denials.iter().position(others)).flatten()
        });
        match known {
            Some(known) => denials[known].count = denials[known].count.saturating_add(1),
            None if denials.len() < MOST_DENIALS => denials.push(denial.clone()),
            None => denials.push(Denial::new(kind, OTHERS)),
        }
        denial
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Denial>> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `host:port` of an address.
fn target_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    Some(format!("{host}:{}", url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(third_parties: ThirdParties) -> Arc<Guard> {
        let enrolled = ["https://example.org", "http://10.0.0.7:8080"].map(|text| text.parse().unwrap());
        let policy = EgressPolicy {
            enrolled: Some(Arc::new(Origins::from_iter(&enrolled))),
            third_parties,
            private: Arc::new(Origins::from_iter(&enrolled[1..])),
            max_bytes: 1,
        };
        Guard::new(policy)
    }

    fn kind(guard: &Guard, method: &str, url: &str, main_document: bool) -> Option<DenialKind> {
        guard.judge(Asked { method, url, main_document }).err().map(|denial| denial.kind)
    }

    #[test]
    fn the_main_frame_and_what_is_written_stay_on_enrolled_sites() {
        let guard = guard(ThirdParties::Assets);
        for (method, url, main, expected) in [
            ("GET", "https://example.org/a", true, None),
            ("POST", "https://example.org/a", true, None),
            ("GET", "http://example.org/a", true, Some(DenialKind::NotEnrolled)),
            ("GET", "https://www.example.org/", true, Some(DenialKind::NotEnrolled)),
            ("GET", "https://example.org.evil.example/", true, Some(DenialKind::NotEnrolled)),
            ("GET", "https://example.org@evil.example/", true, Some(DenialKind::NotEnrolled)),
            ("GET", "https://cdn.example/x.js", false, None),
            ("POST", "https://cdn.example/x", false, Some(DenialKind::ThirdPartyWrite)),
            ("PUT", "https://cdn.example/x", false, Some(DenialKind::ThirdPartyWrite)),
            ("GET", "file:///etc/passwd", true, Some(DenialKind::Scheme)),
            ("GET", "FILE:///etc/passwd", false, Some(DenialKind::Scheme)),
            ("GET", "view-source:https://example.org", true, Some(DenialKind::Scheme)),
            ("GET", "chrome://settings", true, Some(DenialKind::Scheme)),
            ("GET", "data:text/html,x", true, Some(DenialKind::Scheme)),
            ("GET", "data:image/png;base64,AA", false, None),
        ] {
            assert_eq!(kind(&guard, method, url, main), expected, "{method} {url}");
        }
    }

    #[test]
    fn under_strict_no_other_host_is_asked_at_all() {
        let guard = guard(ThirdParties::Strict);
        assert_eq!(kind(&guard, "GET", "https://cdn.example/x.js", false), Some(DenialKind::ThirdParty));
        assert!(guard.admits_host("cdn.example", 443, true).is_err());
        assert!(guard.admits_host("example.org", 443, true).is_ok());
        assert!(guard.admits_host("example.org", 80, true).is_err());
    }

    #[test]
    fn a_look_at_a_page_writes_nothing() {
        let policy =
            EgressPolicy { enrolled: None, third_parties: ThirdParties::Assets, private: Arc::default(), max_bytes: 1 };
        let guard = Guard::new(policy);
        assert_eq!(kind(&guard, "GET", "https://anywhere.example/", true), None);
        assert_eq!(kind(&guard, "POST", "https://anywhere.example/", false), Some(DenialKind::ThirdPartyWrite));
    }

    #[test]
    fn private_addresses_are_for_the_very_host_and_port_that_were_enrolled_so() {
        let guard = guard(ThirdParties::Assets);
        let admits = |host: &str, address: &str| guard.admits_address(host, address.parse().unwrap());
        assert!(admits("10.0.0.7", "10.0.0.7:8080"));
        assert!(!admits("10.0.0.7", "10.0.0.7:8081"));
        assert!(!admits("10.0.0.8", "10.0.0.8:8080"));
        assert!(!admits("example.org", "10.0.0.7:8080"));
        assert!(!admits("::ffff:10.0.0.7", "[::ffff:10.0.0.7]:8080"));
        assert!(admits("example.org", "93.184.216.34:443"));
    }

    #[test]
    fn denials_are_counted_bounded_and_never_name_what_a_name_resolved_to() {
        let guard = guard(ThirdParties::Assets);
        for port in 1..200 {
            for _ in 0..2 {
                let secret = format!("172.16.99.1:{port}").parse().unwrap();
                let denial = guard.admitted("inside.example", port, std::iter::once(secret)).unwrap_err();
                assert!(!denial.to_string().contains("172.16"), "{denial}");
            }
        }
        let denials = guard.denials();
        assert_eq!((denials.len(), denials[0].count), (MOST_DENIALS + 1, 2));
        let others = &denials[MOST_DENIALS];
        assert_eq!((others.target.as_str(), others.count), (OTHERS, 2 * (199 - MOST_DENIALS as u32)));
    }
}
