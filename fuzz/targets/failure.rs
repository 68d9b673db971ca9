//! The failure mapper: any text of any kind gives one of the eleven reasons and a code that names no secret place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagehand::failure::mapper::{TextKind, map_net_error, map_status, map_text, parse_retry_after};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for kind in [TextKind::Net, TextKind::Cdp, TextKind::Exception, TextKind::Http, TextKind::Page] {
        if let Some(failure) = map_text(&text, Some(kind)) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            assert!(!failure.code.is_empty() && failure.code.chars().all(plain), "{:?}", failure.code);
        }
    }
    let _ = (map_text(&text, None), map_net_error(&text));
    let _ = parse_retry_after(&text, chrono::DateTime::UNIX_EPOCH);
    if let [high, low, ..] = data {
        let _ = map_status(u16::from_be_bytes([*high, *low]), None);
    }
});
