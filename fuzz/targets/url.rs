//! Addresses of tasks and sites: what is taken is http or https without user info, and an address is private in every
//! spelling and embedding if it is in one.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use pagehand::site::{Origin, private_kind};
use pagehand::task::check_url;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    if let Ok(url) = check_url(&text) {
        assert!(matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none());
        if let Ok(origin) = Origin::of(&url) {
            assert_eq!(origin.as_str().parse::<Origin>().as_ref(), Ok(&origin), "an origin reads as itself");
        }
        if let Some(url::Host::Ipv4(address)) = url.host() {
            check_embeddings(address);
        }
    }
    if let Ok(bytes) = <[u8; 4]>::try_from(data.get(..4).unwrap_or_default()) {
        check_embeddings(bytes.into());
    }
});

fn check_embeddings(address: Ipv4Addr) {
    if private_kind(IpAddr::V4(address)).is_none() {
        return;
    }
    let [a, b, c, d] = address.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    for embedded in [
        address.to_ipv6_mapped(),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 0),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
    ] {
        assert!(private_kind(IpAddr::V6(embedded)).is_some(), "{address} is private, {embedded} is not");
    }
}
