//! What a page's own elements say of themselves: any description is classified, and only fields that are there have a role.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagehand::automation::forms::{self, Description};

fuzz_target!(|data: &[u8]| {
    let Ok(page) = serde_json::from_slice::<Description>(data) else { return };
    for form in forms::classify(&page) {
        assert!((0.0..=1.0).contains(&form.confidence), "{form:?}");
    }
});
