//! In which of Prometheus' two text formats counters are served: OpenMetrics 1.0.0, in which they are counted, to whoever
//! prefers it, and 0.0.4, which everything reads, to everybody else.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::ACCEPT;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type that the request's `Accept` asks for, and `openmetrics` in it.
pub fn by_accept(request: &HeaderMap, openmetrics: String) -> (&'static str, String) {
    match prefers_openmetrics(request) {
        true => (OPENMETRICS, openmetrics),
        false => (TEXT, as_text(&openmetrics)),
    }
}

/// If (and only if) it is named, and no kind of plain text has a higher weight.
fn prefers_openmetrics(request: &HeaderMap) -> bool {
    let (mut openmetrics, mut text) = (0.0, 0.0);
    let accept = request.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in accept.flat_map(|value| value.split(',')) {
        let range = range.to_ascii_lowercase();
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
        match kind {
            "application/openmetrics-text" => openmetrics = weight.max(openmetrics),
            "text/plain" | "text/*" => text = weight.max(text),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= text
}

/// The same as 0.0.4 has it: a counter is declared by the name that its samples have, and there is neither a unit nor an end.
fn as_text(openmetrics: &str) -> String {
    let mut counters = Vec::new();
    for line in openmetrics.lines() {
        counters.extend(line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")));
    }
    let lines = openmetrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT "));
    let lines = lines.map(|line| {
        let declared = ["# HELP ", "# TYPE "].into_iter().find_map(|start| Some((start, line.strip_prefix(start)?)));
        match declared.and_then(|(start, rest)| Some((start, rest.split_once(' ')?))) {
            Some((start, (name, rest))) if counters.contains(&name) => {
                Cow::Owned(format!("{start}{name}_total {rest}"))
            }
            _ => Cow::Borrowed(line),
        }
    });
    lines.flat_map(|line| [line, Cow::Borrowed("\n")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this `Accept` is answered with OpenMetrics.
    fn openmetrics(accept: &str) -> bool {
        let request = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        by_accept(&request, "# EOF\n".to_owned()).0 == OPENMETRICS
    }

    #[test]
    fn prometheus_gets_openmetrics_and_whoever_does_not_name_it_plain_text() {
        // As Prometheus 2 and 3 ask.
        assert!(openmetrics(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(openmetrics(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ));
        // Prometheus told to speak the text format first, curl, a browser.
        assert!(!openmetrics("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5"));
        assert!(!openmetrics("*/*"));
        assert!(!openmetrics("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!openmetrics("application/openmetrics-text;q=0"));
        assert_eq!(by_accept(&HeaderMap::new(), "# EOF\n".to_owned()), (TEXT, String::new()));
    }

    #[test]
    fn in_plain_text_a_counter_is_declared_by_the_name_of_its_samples() {
        let both = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"# EOF\"} 2\n\
                    # HELP b Now.\n# TYPE b gauge\nb 1\n# EOF\n";
        let text = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"# EOF\"} 2\n\
                    # HELP b Now.\n# TYPE b gauge\nb 1\n";
        assert_eq!(as_text(both), text);
    }
}
