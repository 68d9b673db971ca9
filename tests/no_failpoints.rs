//! The program that people run has no places where it can be told to die.

use std::fs;

#[test]
#[cfg_attr(feature = "failpoints", ignore = "this build has them")]
fn an_ordinary_build_has_no_failpoints() {
    let program = fs::read(env!("CARGO_BIN_EXE_pagehand")).expect("the program is built");
    let has = |text: &str| program.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    // So that the search itself is known to find something.
    assert!(has("TELEMETRY_RUNS_DIR"));
    for name in ["FAILPOINTS", "gate.let_go_marked", "attempt.recorded", "heartbeat.self_fence", "file.sync_dir"] {
        assert!(!has(name), "the program contains `{name}`");
    }
}
