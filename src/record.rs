//! What is recorded of an attempt, in the shape that rows, files and answers share. Pure: no I/O.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;

mod page_log;

pub use page_log::{Console, ConsoleLine, MOST_LINES, MOST_REQUESTS, Network, PageLog, RequestLine};

/// One step of an attempt: a row of `steps`, a line of `steps.jsonl`.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRecord {
    /// Position in the attempt, from 1, without gaps.
    pub seq: i32,
    /// Name, for example `task_locked` or `fill_form`.
    pub name: String,
    /// False where the step reports a failure.
    pub ok: bool,
    /// When it began, UTC.
    pub started_at: DateTime<Utc>,
    /// When it ended, UTC; equal to `started_at` for a step that only marks an instant.
    pub finished_at: DateTime<Utc>,
    /// By the monotonic clock: not always the difference of the two times.
    pub duration: Duration,
    /// Language-model tokens it used.
    pub tokens: i64,
    /// What it cost, US dollars.
    pub cost_usd: f64,
    /// What went wrong, redacted.
    pub error: Option<String>,
    /// Everything else, redacted.
    pub meta: Value,
}

/// Steps that report how an attempt ended or what it cost: none of them is where it went wrong.
pub const REPORTING_STEPS: [&str; 5] =
    ["automation_error", "automation_execution_completed", "unhandled_exception", "result_failed", "usage_charged"];

/// Where an attempt went wrong: its first failed step, because what follows only reports it; where nothing but reports failed,
/// the last step that took time before them. `told`: a step's name, whether it went well, and whether it took time.
pub fn place_of_failure<S>(steps: &[S], told: impl for<'s> Fn(&'s S) -> (&'s str, bool, bool)) -> Option<&S> {
    let reports = |step: &S| REPORTING_STEPS.contains(&told(step).0);
    let failed = steps.iter().position(|step| !told(step).1)?;
    let own = steps.iter().find(|step| !told(step).1 && !reports(step));
    own.or_else(|| steps[..failed].iter().rev().find(|step| told(step).2 && !reports(step)))
}

/// A file of a run directory: a row of `artifacts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// File name, relative to the run directory.
    pub name: String,
    /// `screenshot`, `dom`, `console`, `network`, `result`, `steps`, `init` or `report`.
    pub kind: &'static str,
    /// Size in bytes.
    pub bytes: i64,
}

/// Whether a terminal, or a reader of lines, acts on a character instead of showing it: controls, other ends of lines, and what
/// turns the direction of a text.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// RFC 3339, UTC, milliseconds: how every time is written in files and answers.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// For `#[serde(serialize_with)]`: a time as [`rfc3339`] writes it.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// As [`serialize_time`], null where there is none.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_optional_time<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(rfc3339).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_went_wrong_at_its_first_failed_step_or_at_the_last_one_before_the_reports() {
        let place = |steps: &[(&'static str, bool, bool)]| place_of_failure(steps, |step| *step).map(|step| step.0);
        let opened = ("open_page", true, true);
        let reports =
            [("automation_error", false, false), ("usage_charged", true, true), ("result_failed", false, false)];
        assert_eq!(
            place(&[opened, ("find_form", true, true), ("form_found", true, false), reports[0], reports[2]]),
            Some("find_form")
        );
        assert_eq!(place(&[opened, ("fill_form", false, true), ("other", false, true), reports[0]]), Some("fill_form"));
        assert_eq!(place(&[reports[1], reports[2]]), None);
        assert_eq!(place(&[opened]), None);
    }
}
