//! Sites: which origins may be acted on, who said so, and how gently.
//!
//! The one rule that keeps the robot honest is checked here: an enrolment is *active* if (and only if) it was not removed
//! and its time has not run out. Addresses inside one's own network are refused unless the enrolment says otherwise,
//! because a task's URL may come from anybody; what a name resolves to at enrolment is checked as well, and the browser
//! checks again what it connects to.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use url::{Host, Url};

use crate::record::{serialize_optional_time, serialize_time};

mod manners;
pub mod profile;
mod selector;

pub use manners::{Manners, QuietHours, Robots, check_contact};

/// How long a name may take to resolve.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Scheme, host and port of a site, in one spelling: `https://example.org`, `http://localhost:8080`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(String);

impl Origin {
    /// The origin of a page's address.
    ///
    /// # Errors
    /// Its scheme is neither http nor https.
    pub fn of(url: &Url) -> Result<Origin, String> {
        if matches!(url.scheme(), "http" | "https") {
            Ok(Origin(url.origin().ascii_serialization()))
        } else {
            Err(format!("has the scheme `{}`; only http and https sites can be enrolled", url.scheme()))
        }
    }

    /// As in rows and answers.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for all hosts under a name.
    pub fn is_wildcard(&self) -> bool {
        self.0.contains("://*.")
    }

    /// What this origin can be enrolled as: itself, or a wildcard over a name above it, the closest first.
    pub fn enrolled_as(&self) -> Vec<String> {
        let mut all = vec![self.0.clone()];
        if let Some((scheme, rest)) = self.0.split_once("://")
            && Url::parse(&self.0).is_ok_and(|url| url.domain().is_some())
        {
            let above = rest.match_indices('.').map(|(dot, _)| format!("{scheme}://*{}", &rest[dot..]));
            all.extend(above);
        }
        all
    }

    /// The host, and the port also where it is the scheme's own.
    fn host_and_port(&self) -> Option<(Host<String>, u16)> {
        let url = Url::parse(&self.0).ok()?;
        Some((url.host()?.to_owned(), url.port_or_known_default()?))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|error| match Url::parse(&format!("https://{text}")) {
            Ok(guess) if !text.is_empty() && !text.contains("://") => {
                format!("`{text}` has no scheme; write {}", guess.origin().ascii_serialization())
            }
            _ => format!("`{text}` is no origin ({error}); write it like https://example.org"),
        })?;
        let origin = Origin::of(&url).map_err(|problem| {
            // `localhost:8080` is read as a URL of the scheme `localhost`.
            if text.contains("://") {
                format!("`{text}` {problem}")
            } else {
                format!("`{text}` has no scheme; write http://{text} or https://{text}")
            }
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("`{origin}` was given with a user name or password; take it out"));
        }
        if let Some(host) = url.host_str().filter(|host| host.contains('*')) {
            check_wildcard(host)?;
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("`{text}` is the address of a page; a site is enrolled as a whole: write {origin}"));
        }
        Ok(origin)
    }
}

/// Whether all hosts under a name can be one site: they must be somebody's.
fn check_wildcard(host: &str) -> Result<(), String> {
    let above =
        host.strip_prefix("*.").filter(|above| !above.contains('*') && above.split('.').all(|label| !label.is_empty()));
    let above = above.ok_or_else(|| {
        format!("`{host}` can't be enrolled: `*` stands for the first labels of a name only, as in *.example.org")
    })?;
    // The list has public suffixes of registries and of those who give out names below their own, like github.io.
    match psl::domain_str(above) {
        Some(_) => Ok(()),
        None => Err(format!(
            "`{host}` can't be enrolled: the names under {above} belong to many owners; write *.NAME.{above}, the name being the \
             owner's"
        )),
    }
}

/// A set of enrolled sites, asked by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    sites: HashSet<String>,
    this_machine: bool,
}

impl Origins {
    /// Whether a page of this address belongs to one of them.
    pub fn contains(&self, url: &Url) -> bool {
        Origin::of(url).is_ok_and(|origin| origin.enrolled_as().iter().any(|site| self.sites.contains(site)))
    }

    /// Whether a connection to this host and port, in the spelling of addresses, can be for one of them.
    pub fn has_host(&self, host: &str, port: u16) -> bool {
        if self.this_machine && is_this_machine(host) {
            return true;
        }
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        ["http", "https"]
            .iter()
            .filter_map(|scheme| Url::parse(&format!("{scheme}://{host}:{port}")).ok())
            .any(|url| self.contains(&url))
    }

    /// Adds one.
    pub fn insert(&mut self, origin: &Origin) {
        self.sites.insert(origin.0.clone());
    }

    /// Adds whatever listens on this machine's loopback addresses, by those or as `localhost`; only for [`Origins::has_host`].
    pub fn insert_this_machine(&mut self) {
        self.this_machine = true;
    }
}

/// Whether a host, in the spelling of addresses, means this machine: a loopback address or `localhost`.
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl<'a> FromIterator<&'a Origin> for Origins {
    fn from_iter<I: IntoIterator<Item = &'a Origin>>(origins: I) -> Self {
        Origins { sites: origins.into_iter().map(|origin| origin.0.clone()).collect(), this_machine: false }
    }
}

/// A site as it is to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnrolment {
    /// Which site.
    pub origin: Origin,
    /// Who allows it; a person or a contract.
    pub authorized_by: String,
    /// Until when; None: until it is removed.
    pub authorized_until: Option<DateTime<Utc>>,
    /// Whether it may be an address inside one's own network.
    pub allow_private: bool,
    /// Most tasks at the same time, over all workers; None: no limit.
    pub max_concurrency: Option<u32>,
    /// Most tasks begun in any 60 seconds, over all workers; None: no limit.
    pub per_minute: Option<u32>,
    /// Which types of task may be carried out there; None: every type.
    pub task_types: Option<Vec<String>>,
    /// How it wants to be visited.
    pub manners: Manners,
}

impl NewEnrolment {
    /// A public site, for as long as nobody removes it, at any pace and for any type of task.
    pub fn new(origin: Origin, authorized_by: &str) -> NewEnrolment {
        NewEnrolment {
            origin,
            authorized_by: authorized_by.to_owned(),
            authorized_until: None,
            allow_private: false,
            max_concurrency: None,
            per_minute: None,
            task_types: None,
            manners: Manners::default(),
        }
    }
}

/// An enrolled site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enrolment {
    /// Which site.
    pub origin: Origin,
    /// Who allows it.
    pub authorized_by: String,
    /// Until when; None: until it is removed.
    #[serde(serialize_with = "serialize_optional_time")]
    pub authorized_until: Option<DateTime<Utc>>,
    /// Whether it may be an address inside one's own network.
    pub allow_private: bool,
    /// Most tasks at the same time, over all workers; None: no limit.
    pub max_concurrency: Option<u32>,
    /// Most tasks begun in any 60 seconds, over all workers; None: no limit.
    pub per_minute: Option<u32>,
    /// Which types of task may be carried out there; None: every type.
    pub task_types: Option<Vec<String>>,
    /// How it wants to be visited.
    #[serde(flatten)]
    pub manners: Manners,
    /// Since when nothing is begun there, and running attempts submit nothing.
    #[serde(serialize_with = "serialize_optional_time")]
    pub stopped_at: Option<DateTime<Utc>>,
    /// Why.
    pub stopped_why: Option<String>,
    /// When it was first enrolled.
    #[serde(serialize_with = "serialize_time")]
    pub created_at: DateTime<Utc>,
    /// When it was removed.
    #[serde(serialize_with = "serialize_optional_time")]
    pub removed_at: Option<DateTime<Utc>>,
}

impl Enrolment {
    /// Whether the site may be acted on at `time`.
    ///
    /// # Errors
    /// Why not, and how to mend it.
    pub fn check_active(&self, time: DateTime<Utc>) -> Result<(), String> {
        let origin = &self.origin;
        if self.removed_at.is_some() {
            return Err(format!(
                "{origin} was removed; enrol it again with `pagehand site add {origin} --authorized-by WHO`"
            ));
        }
        match self.authorized_until {
            Some(until) if until <= time => Err(format!(
                "the authorisation of {origin} by {} ended at {}; renew it with `pagehand site add {origin} --authorized-by WHO --until DATE`",
                self.authorized_by,
                crate::record::rfc3339(until)
            )),
            _ => Ok(()),
        }
    }
}

impl Enrolment {
    /// Whether a type of task may be carried out there.
    ///
    /// # Errors
    /// Which may, and how to change that.
    pub fn check_task_type(&self, task_type: &str) -> Result<(), String> {
        match &self.task_types {
            Some(allowed) if !allowed.iter().any(|one| one == task_type) => Err(format!(
                "{0} is enrolled for {1} only; `pagehand site add {0} --authorized-by WHO --task-type {task_type}` says otherwise",
                self.origin,
                allowed.join(", "),
            )),
            _ => Ok(()),
        }
    }
}

/// What to say of an origin that nobody enrolled.
pub fn not_enrolled(origin: &str) -> String {
    format!("{origin} is not enrolled; enrol it with `pagehand site add {origin} --authorized-by WHO`")
}

/// Refuses an origin that is, or resolves to, an address inside one's own network. A name that does not resolve now is
/// taken: the browser checks again.
///
/// # Errors
/// Which address, and how to allow it.
pub async fn check_public(origin: &Origin) -> Result<(), String> {
    let refused = |what: String| Err(format!("{origin} {what}; if that is meant, enrol it with --allow-private"));
    check_public_spelling(origin)?;
    if origin.is_wildcard() {
        return Ok(());
    }
    let Some((Host::Domain(name), port)) = origin.host_and_port() else { return Ok(()) };
    let resolved = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((name.as_str(), port))).await;
    let Ok(Ok(addresses)) = resolved else { return Ok(()) };
    for address in addresses {
        if let Some(kind) = private_kind(address.ip()) {
            return refused(format!("resolves to {}, {kind}", address.ip()));
        }
    }
    Ok(())
}

/// As [`check_public`], by what the origin says alone: nothing is resolved.
///
/// # Errors
/// What it is, and how to allow it.
pub fn check_public_spelling(origin: &Origin) -> Result<(), String> {
    let kind = match origin.host_and_port() {
        Some((Host::Ipv4(address), _)) => private_kind(address.into()),
        Some((Host::Ipv6(address), _)) => private_kind(address.into()),
        Some((Host::Domain(name), _)) => private_name(&name),
        None => None,
    };
    kind.map_or(Ok(()), |kind| Err(format!("{origin} is {kind}; if that is meant, enrol it with --allow-private")))
}

/// Says of a host name which part of one's own network it means by convention, if any.
pub fn private_name(name: &str) -> Option<&'static str> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    match last {
        "localhost" => Some("a name of this machine"),
        "local" | "internal" | "intranet" | "lan" | "home" | "corp" | "private" | "localdomain" => {
            Some("a name inside a private network")
        }
        "arpa" if name.ends_with("home.arpa") => Some("a name inside a private network"),
        _ if !name.contains('.') => Some("a name without a dot, which only a private network resolves"),
        _ => None,
    }
}

/// Says of an address which kind of not public it is, if it is.
pub fn private_kind(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => private_v4(address),
        IpAddr::V6(address) => private_v6(address),
    }
}

fn private_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("an address of this network"),
        (127, ..) => Some("a loopback address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("a private address"),
        (100, 64..=127, _) => Some("an address of a provider's own network"),
        (169, 254, _) => Some("a link-local address"),
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => {
            Some("a reserved address")
        }
        (224..=239, ..) => Some("a multicast address"),
        (240..=255, ..) => Some("a reserved address"),
        _ => None,
    }
}

fn private_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [w, x] = high.to_be_bytes();
        let [y, z] = low.to_be_bytes();
        private_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0) if g == 0 && h <= 1 => Some("a loopback or unspecified address"),
        // Mapped, compatible, translated (RFC 6052, 8215) and 6to4: the address inside decides.
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        (0x64, 0xff9b, 1, ..) => Some("an address of a private network"),
        (0x2002, high, low, ..) => embedded(high, low),
        (0xfc00..=0xfdff, ..) => Some("a private address"),
        (0xfe80..=0xfebf, ..) => Some("a link-local address"),
        (0xfec0..=0xfeff, ..) => Some("a private address"),
        (0xff00..=0xffff, ..) => Some("a multicast address"),
        (0x2001, 0x0..=0x1ff | 0xdb8, ..) | (0x3fff, 0x0..=0xfff, ..) => Some("a reserved address"),
        // ISATAP: the address inside decides as well.
        (.., 0x0 | 0x200, 0x5efe) => embedded(g, h),
        // Nothing else has been given out to the public (IANA's global unicast space).
        (0x2000..=0x3fff, ..) => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_has_one_spelling() {
        for (given, kept) in [
            ("https://Example.ORG:443/", "https://example.org"),
            ("http://example.org:8080", "http://example.org:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            (" http://127.1 ", "http://127.0.0.1"),
            ("https://*.Example.ORG", "https://*.example.org"),
            ("https://*.shop.example.co.uk:8443", "https://*.shop.example.co.uk:8443"),
        ] {
            assert_eq!(origin(given).as_str(), kept);
        }
    }

    #[test]
    fn what_is_no_origin_is_answered_with_what_to_write() {
        for (given, hint) in [
            ("example.org", "write https://example.org"),
            ("localhost:8080", "http://localhost:8080"),
            ("https://example.org/blog", "write https://example.org"),
            ("ftp://example.org", "only http and https"),
            ("https://*.co.uk", "belong to many owners"),
            ("https://*.github.io", "belong to many owners"),
            ("https://*.com", "belong to many owners"),
            ("https://*", "first labels"),
            ("https://a.*.example.org", "first labels"),
            ("https://*.*.example.org", "first labels"),
            ("https://u:p@example.org", "take it out"),
            ("", "https://example.org"),
            ("https://", "https://example.org"),
        ] {
            let error = given.parse::<Origin>().unwrap_err();
            assert!(error.contains(hint), "{given}: {error}");
        }
    }

    #[tokio::test]
    async fn a_private_address_is_refused_in_every_spelling() {
        for given in [
            "http://127.0.0.1",
            "http://127.1",
            "http://2130706433",
            "http://0x7f000001",
            "http://0177.0.0.1",
            "http://0",
            "http://[::1]",
            "http://[::ffff:127.0.0.1]",
            "http://[::ffff:7f00:1]",
            "http://[64:ff9b::a00:1]",
            "http://[2002:a00:1::]",
            "http://10.1.2.3",
            "http://172.31.0.1",
            "http://192.168.0.1",
            "http://169.254.169.254",
            "http://100.64.0.1",
            "http://[fd00::1]",
            "http://[fe80::1]",
            "http://localhost",
            "http://LOCALHOST.",
            "http://a.localhost:81",
            "http://printer.local",
            "http://intranet",
            "http://１２７.０.０.１",
        ] {
            let error = check_public(&origin(given)).await.unwrap_err();
            assert!(error.contains("--allow-private"), "{given}: {error}");
        }
    }

    #[tokio::test]
    async fn a_public_address_is_taken() {
        for given in ["http://93.184.216.34", "http://172.32.0.1", "http://[2606:2800:220:1::1]", "http://100.128.0.1"]
        {
            assert_eq!(check_public(&origin(given)).await, Ok(()), "{given}");
        }
    }

    #[test]
    fn an_enrolment_ends_at_its_time_and_when_it_is_removed() {
        let now = Utc::now();
        let mut enrolment = Enrolment {
            origin: origin("https://example.org"),
            authorized_by: "Ann".to_owned(),
            authorized_until: Some(now + Duration::from_secs(1)),
            allow_private: false,
            max_concurrency: None,
            per_minute: None,
            task_types: Some(vec!["comment".to_owned()]),
            manners: Manners::default(),
            stopped_at: None,
            stopped_why: None,
            created_at: now,
            removed_at: None,
        };
        assert_eq!(enrolment.check_active(now), Ok(()));
        assert!(enrolment.check_active(now + Duration::from_secs(1)).unwrap_err().contains("--until"));
        assert_eq!(enrolment.check_task_type("comment"), Ok(()));
        assert!(enrolment.check_task_type("registration").unwrap_err().contains("--task-type registration"));
        enrolment.removed_at = Some(now);
        assert!(enrolment.check_active(now).unwrap_err().contains("site add"));
    }
}
