//! What Chrome sends, with whatever a page put into it: no message may panic, and none may lose the ones after it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    pagehand::browser::fuzzing::deliver(text.lines());
});
