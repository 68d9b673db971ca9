//! What a page said on its console and asked of the network, in the shape that files and pages share. Pure: no I/O.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::serialize_time;

/// Most console lines kept of an attempt: the latest.
pub const MOST_LINES: usize = 1_000;
/// Most requests kept of an attempt: the first.
pub const MOST_REQUESTS: usize = 500;

/// What a page said and asked for during an attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PageLog {
    /// The console.
    pub console: Console,
    /// The network.
    pub network: Network,
}

/// A file of the kind `console`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Console {
    /// In the order in which they came: the latest [`MOST_LINES`].
    pub lines: Vec<ConsoleLine>,
    /// How many came before those.
    pub not_kept: u64,
}

/// A line of the console.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConsoleLine {
    /// When it came, UTC.
    #[serde(serialize_with = "serialize_time")]
    pub at: DateTime<Utc>,
    /// As Chrome names it: `log`, `info`, `warning`, `error`, …; `exception` for one that nobody caught.
    pub level: String,
    /// What it says.
    pub text: String,
    /// The script that it comes from, where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
}

impl ConsoleLine {
    /// Whether something went wrong.
    pub fn is_error(&self) -> bool {
        matches!(self.level.as_str(), "error" | "assert" | "exception")
    }
}

/// A file of the kind `network`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// In the order in which they were sent: the first [`MOST_REQUESTS`]. A redirect is one for each hop.
    pub requests: Vec<RequestLine>,
    /// How many were sent after those.
    pub not_kept: u64,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestLine {
    /// When it was sent, UTC.
    #[serde(serialize_with = "serialize_time")]
    pub at: DateTime<Utc>,
    /// `GET`, `POST`, …
    pub method: String,
    /// The address.
    pub url: String,
    /// What asked for it, as Chrome names it: `Document`, `Script`, `Image`, `XHR`, …
    pub resource: String,
    /// Of the answer; None if none came.
    pub status: Option<u16>,
    /// Received on the wire.
    pub bytes: u64,
    /// From when it was sent to its end, milliseconds; None if it had none.
    pub duration_ms: Option<f64>,
    /// `net::ERR_…`, or why it was kept from leaving.
    pub error: Option<String>,
}

impl RequestLine {
    /// Whether it failed: no answer, or one of 400 and above. What the page itself called off did not.
    pub fn failed(&self) -> bool {
        self.status.is_some_and(|status| status >= 400)
            || self.error.as_deref().is_some_and(|error| error != "net::ERR_ABORTED")
    }
}
