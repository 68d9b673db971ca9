//! The page's console and network as its events tell them, within bounds: a page decides how much it says and asks for.

use std::collections::{HashMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::events::RequestWillBeSent;
use crate::record::{Console, ConsoleLine, MOST_LINES, MOST_REQUESTS, Network, PageLog, RequestLine};

/// Longest text of a line, and longest address, in characters.
const LONGEST_TEXT: usize = 2_000;
const LONGEST_URL: usize = 1_000;

/// What has been said and asked for so far.
pub(super) struct Log {
    /// This machine's clock when the tab was opened, carried on by the monotonic one.
    opened: (DateTime<Utc>, Instant),
    lines: VecDeque<ConsoleLine>,
    lines_before: u64,
    requests: Vec<RequestLine>,
    requests_after: u64,
    /// Requests that have not ended, by Chrome's id.
    under_way: HashMap<String, (usize, Instant)>,
}

impl Log {
    pub(super) fn new() -> Log {
        Log {
            opened: (Utc::now(), Instant::now()),
            lines: VecDeque::new(),
            lines_before: 0,
            requests: Vec::new(),
            requests_after: 0,
            under_way: HashMap::new(),
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.opened.0 + TimeDelta::from_std(self.opened.1.elapsed()).unwrap_or_default()
    }

    pub(super) fn said(&mut self, level: &str, text: &str, url: &str) {
        if self.lines.len() == MOST_LINES {
            self.lines.pop_front();
            self.lines_before += 1;
        }
        let line = ConsoleLine {
            at: self.now(),
            level: cut(level, 20),
            text: cut(text, LONGEST_TEXT),
            url: cut(url, LONGEST_URL),
        };
        self.lines.push_back(line);
    }

    pub(super) fn sent(&mut self, sent: &RequestWillBeSent) {
        if let Some(redirect) = &sent.redirect_response {
            self.answered(&sent.request_id, redirect.status());
            self.ended(&sent.request_id, None, None);
        }
        let Some(request) = &sent.request else { return };
        // What is in the page already is not asked of the network.
        if request.url.starts_with("data:") {
            return;
        }
        if self.requests.len() == MOST_REQUESTS {
            self.requests_after += 1;
            return;
        }
        self.under_way.insert(sent.request_id.clone(), (self.requests.len(), Instant::now()));
        self.requests.push(RequestLine {
            at: self.now(),
            method: cut(&request.method, 20),
            url: cut(&request.url, LONGEST_URL),
            resource: cut(sent.r#type.as_deref().unwrap_or("Other"), 20),
            status: None,
            bytes: 0,
            duration_ms: None,
            error: None,
        });
    }

    pub(super) fn answered(&mut self, id: &str, status: Option<u16>) {
        if let Some((n, _)) = self.under_way.get(id) {
            self.requests[*n].status = status;
        }
    }

    pub(super) fn ended(&mut self, id: &str, bytes: Option<f64>, error: Option<&str>) {
        let Some((n, sent)) = self.under_way.remove(id) else { return };
        let request = &mut self.requests[n];
        request.duration_ms = Some((sent.elapsed().as_secs_f64() * 1e6).round() / 1e3);
        request.bytes = bytes.map_or(0, |bytes| bytes.max(0.0) as u64);
        request.error = error.map(|error| cut(error, LONGEST_TEXT));
    }

    pub(super) fn so_far(&self) -> PageLog {
        PageLog {
            console: Console { lines: self.lines.iter().cloned().collect(), not_kept: self.lines_before },
            network: Network { requests: self.requests.clone(), not_kept: self.requests_after },
        }
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, url: &str) -> RequestWillBeSent {
        let event = serde_json::json!({"requestId": id, "request": {"method": "GET", "url": url}, "type": "Image"});
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_page_that_never_stops_talking_and_asking_fills_no_memory() {
        let mut log = Log::new();
        for n in 0..3_000 {
            log.said("log", &"x".repeat(5_000), "");
            log.sent(&sent(&n.to_string(), "https://example.org/"));
        }
        let log = log.so_far();
        assert_eq!((log.console.lines.len(), log.console.not_kept), (1_000, 2_000));
        assert_eq!((log.network.requests.len(), log.network.not_kept), (500, 2_500));
        assert_eq!(log.console.lines[0].text.len(), 2_000);
    }

    #[test]
    fn each_request_has_its_own_end() {
        let mut log = Log::new();
        for id in ["a", "b", "c"] {
            log.sent(&sent(id, &format!("https://example.org/{id}")));
        }
        log.answered("b", Some(404));
        log.ended("b", Some(120.0), None);
        log.ended("a", None, Some("net::ERR_FAILED"));
        log.ended("unknown", None, None);
        let requests = log.so_far().network.requests;
        assert_eq!(requests.iter().map(RequestLine::failed).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!((requests[1].status, requests[1].bytes, requests[2].duration_ms), (Some(404), 120, None));
    }
}
