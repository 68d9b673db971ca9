//! Section `[mailbox]`, in the configuration and in a site's profile: where the mails of a sign-up arrive.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{Seconds, SecretRef};

/// An IMAP mailbox. Without `host` there is none.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mailbox {
    /// Name or address of the IMAP server.
    pub host: Option<String>,
    /// None: 993 with implicit TLS, else 143.
    pub port: Option<u16>,
    /// How the connection is protected.
    pub tls: Tls,
    /// A file of PEM certificates to trust besides the usual roots.
    pub ca_file: Option<PathBuf>,
    /// Who logs in; `{address}` in it stands for the address that is waited for.
    pub user: Option<String>,
    /// Where the password is.
    pub password: Option<SecretRef>,
    /// The folder that is looked into; it is never changed.
    pub folder: String,
    /// Which addresses arrive there.
    pub addresses: Vec<AddressPattern>,
    /// How long one attempt waits for a mail.
    pub wait_seconds: Seconds,
}

/// How a connection to a mailbox is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// From the first byte.
    Implicit,
    /// After `STARTTLS`; a server that does not offer it is not logged in to.
    Starttls,
    /// Not at all: for a server on this machine or in a private network only.
    None,
}

/// Addresses by one `*`: `*@checks.example.org` is a catch-all domain, `ann+*@example.org` plus addressing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPattern(String);

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            host: None,
            port: None,
            tls: Tls::Implicit,
            ca_file: None,
            user: None,
            password: None,
            folder: "INBOX".to_owned(),
            addresses: Vec::new(),
            wait_seconds: Seconds::of(60),
        }
    }
}

impl Mailbox {
    /// Checks what one key alone can't say.
    ///
    /// # Errors
    /// The key inside the section, and what may stand there.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let Some(host) = &self.host else {
            return match self.user.is_some() || self.password.is_some() || !self.addresses.is_empty() {
                true => Err(("host", "is missing; name the IMAP server")),
                false => Ok(()),
            };
        };
        let wait = self.wait_seconds.duration().as_secs_f64();
        let checks = [
            ("host", !host.trim().is_empty(), "is empty; name the IMAP server"),
            ("user", self.user.as_ref().is_some_and(|user| !user.is_empty()), "is missing; say who logs in"),
            ("password", self.password.is_some(), "is missing; write env:NAME or file:PATH"),
            (
                "addresses",
                !self.addresses.is_empty(),
                "is missing; say which addresses arrive there, like [\"*@example.org\"]",
            ),
            ("folder", !self.folder.is_empty(), "is empty; the usual one is INBOX"),
            ("wait_seconds", (1.0..=3600.0).contains(&wait), "must be from 1 to 3600"),
            (
                "tls",
                self.tls != Tls::None || is_near(host),
                "may be \"none\" only for a server on this machine or at a private address; use \"implicit\" or \"starttls\"",
            ),
        ];
        checks.into_iter().find(|(_, holds, _)| !holds).map_or(Ok(()), |(key, _, problem)| Err((key, problem)))
    }

    /// Whether mails to `address` arrive here.
    pub fn serves(&self, address: &str) -> bool {
        self.host.is_some() && self.addresses.iter().any(|pattern| pattern.matches(address))
    }
}

/// Whether a connection to `host` stays on this machine or in a private network.
fn is_near(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

impl AddressPattern {
    /// Whether `address` is one of them, upper and lower case alike.
    pub fn matches(&self, address: &str) -> bool {
        let (pattern, address) = (self.0.to_lowercase(), address.to_lowercase());
        match pattern.split_once('*') {
            None => pattern == address,
            Some((head, tail)) => {
                let inside = address.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
                inside.is_some_and(|inside| !inside.is_empty() && !inside.contains('@'))
            }
        }
    }
}

impl FromStr for AddressPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = text
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains(['@', '*']));
        if whole && text.matches('*').count() <= 1 && !text.contains(char::is_whitespace) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("`{text}` is no address pattern; write *@example.org, ann+*@example.org or ann@example.org"))
        }
    }
}

impl<'de> Deserialize<'de> for AddressPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Result<Mailbox, String> {
        let mailbox: Mailbox = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        mailbox.check().map(|()| mailbox).map_err(|(key, problem)| format!("{key} {problem}"))
    }

    #[test]
    fn a_pattern_takes_a_catch_all_domain_plus_addresses_and_a_single_one() {
        let pattern = |text: &str| text.parse::<AddressPattern>().unwrap();
        assert!(pattern("*@checks.example.org").matches("Ann.7@Checks.example.org"));
        assert!(!pattern("*@checks.example.org").matches("ann@evil.org@checks.example.org"));
        assert!(!pattern("*@checks.example.org").matches("ann@example.org"));
        assert!(pattern("ann+*@example.org").matches("ann+t12@example.org"));
        assert!(!pattern("ann+*@example.org").matches("bob+t12@example.org"));
        assert!(pattern("ann@example.org").matches("ANN@example.org"));
        for wrong in ["*", "ann", "ann@*", "*@*.org", "a b@example.org", "@example.org"] {
            assert!(wrong.parse::<AddressPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_connection_without_tls_stays_near() {
        let with = |host: &str, tls: &str| {
            mailbox(&format!(
                "host = \"{host}\"\ntls = \"{tls}\"\nuser = \"u\"\npassword = \"env:P\"\naddresses = [\"*@example.org\"]"
            ))
        };
        assert!(with("127.0.0.1", "none").is_ok());
        assert!(with("192.168.3.4", "none").is_ok());
        assert!(with("imap.example.org", "none").unwrap_err().starts_with("tls"));
        assert!(with("imap.example.org", "implicit").is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(mailbox("").is_ok(), "none at all");
        assert!(mailbox("user = \"u\"").unwrap_err().starts_with("host"));
        assert!(mailbox("host = \"h\"\nuser = \"u\"").unwrap_err().starts_with("password"));
        assert!(mailbox("host = \"h\"\nuser = \"u\"\npassword = \"hunter2\"").unwrap_err().contains("env:NAME"));
    }
}
