//! Which Host headers are ours.
//!
//! A site that an operator visits can make its own name resolve to this server (DNS rebinding); the browser then believes
//! that the answers are that site's to read. Its name is still in the Host header. Addresses can't be rebound.

use std::net::{IpAddr, SocketAddr};

/// The names under which this server may be asked.
#[derive(Debug)]
pub struct Hosts {
    /// None: listening on all addresses, so any address is ours.
    address: Option<IpAddr>,
    names: Vec<String>,
}

impl Hosts {
    /// For a server that listens on `listen` and is reached under `names` as well.
    pub fn new(listen: SocketAddr, names: &[String]) -> Hosts {
        let address = (!listen.ip().is_unspecified()).then(|| listen.ip());
        Hosts { address, names: names.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    /// Whether a Host header means this server. The port is not looked at: a proxy may have another.
    pub fn allows(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || self.address.is_none_or(|ours| ours == address),
            Err(_) => is_loopback(&name) || self.names.contains(&name),
        }
    }
}

/// Whether a Host header is a name or address of this machine for itself.
pub fn is_loopback(host: &str) -> bool {
    name_of(host).is_some_and(|name| {
        name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// The name in lower case without the port; None if it is no host.
fn name_of(host: &str) -> Option<String> {
    let (name, port) = match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, ""),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    let good = !name.is_empty() && name.chars().all(plain) && port.chars().all(|c| c.is_ascii_digit());
    good.then(|| name.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_the_address_itself_and_configured_names_are_ours() {
        let hosts = Hosts::new(([10, 0, 0, 5], 8080).into(), &["Pagehand.example.org".to_owned()]);
        for ours in ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:80", "10.0.0.5", "pagehand.example.org:443"] {
            assert!(hosts.allows(ours), "{ours}");
        }
        for foreign in
            ["evil.example", "10.0.0.6", "127.0.0.1.evil.example", "localhost.evil.example", "", ":80", "a b"]
        {
            assert!(!hosts.allows(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_server_on_all_addresses_is_reached_by_any_address_but_not_by_any_name() {
        let hosts = Hosts::new(([0, 0, 0, 0], 8080).into(), &[]);
        assert!(hosts.allows("192.168.1.7:8080"));
        assert!(!hosts.allows("rebound.example:8080"));
    }
}
