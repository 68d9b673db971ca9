//! A mail as anybody may have sent it: what is taken out of it is a few web addresses and a short code, and only an
//! address that stands among its recipients is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagehand::mailbox::{self, fuzzing};

fuzz_target!(|data: &[u8]| {
    let content = mailbox::read(data);
    assert!(content.links.len() <= 10, "{content:?}");
    for link in &content.links {
        assert!(matches!(link.url.scheme(), "http" | "https") && link.url.has_host(), "{link:?}");
    }
    if let Some(code) = content.code {
        assert!((4..=12).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{code:?}");
    }
    let address = "ann+7@example.org";
    let named = data.to_ascii_lowercase().windows(address.len()).any(|found| found == address.as_bytes());
    // Words in another encoding than ASCII can be an address too.
    let encoded = data.windows(2).any(|found| found == b"=?");
    assert!(named || encoded || !fuzzing::is_to(data, address), "not a recipient");
});
