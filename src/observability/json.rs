//! Events as lines of JSON.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;

use chrono::Utc;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::record::{is_hidden, rfc3339};

/// Longest text of one field, in bytes.
const TEXT: usize = 8 << 10;
/// Names that a field of an event can't take over.
const FIXED: [&str; 6] = ["ts", "level", "service.name", "service.version", "pid", "worker_id"];

/// Known only after logging has begun.
static WORKER: OnceLock<String> = OnceLock::new();

pub(super) fn name_worker(name: &str) {
    let _ = WORKER.set(name.to_owned());
}

/// Writes each event as a line of JSON to all of its writers.
pub(super) struct JsonLines {
    writers: Vec<BoxMakeWriter>,
    /// The fields that are the same on every line, as JSON with a comma before them.
    same: String,
}

/// The fields of a span, kept with it.
struct SpanFields(Map<String, Value>);

impl JsonLines {
    pub(super) fn new(writers: Vec<BoxMakeWriter>) -> Self {
        let mut same = String::new();
        push(&mut same, "service.name", &"pagehand".into());
        push(&mut same, "service.version", &env!("CARGO_PKG_VERSION").into());
        push(&mut same, "pid", &std::process::id().into());
        Self { writers, same }
    }

    fn line(&self, event: &Event<'_>, mut fields: Map<String, Value>) -> String {
        event.record(&mut Fields(&mut fields));
        let mut line = String::with_capacity(512);
        let ts = Value::from(rfc3339(Utc::now()));
        let _ = write!(line, "{{\"ts\":{ts}");
        push(&mut line, "level", &event.metadata().level().as_str().to_ascii_lowercase().into());
        push(&mut line, "msg", &fields.remove("message").unwrap_or_default());
        let name = fields.remove("event").unwrap_or_else(|| event.metadata().target().into());
        push(&mut line, "event", &name);
        line.push_str(&self.same);
        if let Some(name) = WORKER.get() {
            push(&mut line, "worker_id", &name.as_str().into());
        }
        for (key, value) in fields.iter().filter(|(key, _)| !FIXED.contains(&key.as_str())) {
            push(&mut line, key, value);
        }
        line.push_str("}\n");
        line
    }
}

/// Adds `,"key":value`. What JSON allows in a text but a terminal or a reader of lines acts on is escaped too.
fn push(line: &mut String, key: &str, value: &Value) {
    let _ = write!(line, ",{}:", Value::from(key));
    for character in value.to_string().chars() {
        if is_hidden(character) {
            let _ = write!(line, "\\u{:04x}", u32::from(character));
        } else {
            line.push(character);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Map::new();
        attributes.record(&mut Fields(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Fields(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Map::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(SpanFields(outer)) = span.extensions().get() {
                fields.extend(outer.clone());
            }
        }
        let line = self.line(event, fields);
        for writer in &self.writers {
            // One call a line: lines of several threads, or processes, don't mix.
            let _ = writer.make_writer().write_all(line.as_bytes());
        }
    }
}

/// Takes up the fields of a span or event.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Fields of tracing have no lists: a chain comes as one in JSON.
        if field.name().ends_with(".chain")
            && let Ok(Value::Array(causes)) = serde_json::from_str(value)
        {
            let causes = causes.iter().take(20).map(|cause| cut(cause.as_str().unwrap_or_default()).into());
            return self.set(field, causes.collect::<Vec<Value>>());
        }
        self.set(field, cut(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field, cut(&value.to_string()));
        let causes: Vec<Value> = std::iter::successors(value.source(), |error| error.source())
            .take(20)
            .map(|error| cut(&error.to_string()).into())
            .collect();
        if !causes.is_empty() {
            self.0.insert(format!("{}.chain", field.name()), causes.into());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, cut(&format!("{value:?}")));
    }
}

fn cut(text: &str) -> String {
    if text.len() <= TEXT {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(TEXT);
    format!("{}…(+{} bytes)", &text[..kept], text.len() - kept)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(events: impl FnOnce()) -> Vec<String> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let lines = JsonLines::new(vec![BoxMakeWriter::new(move || writer.clone())]);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), events);
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn parsed(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_line_has_the_fixed_fields_then_those_of_event_and_spans_of_which_the_innermost_wins() {
        name_worker("w1");
        let lines = logged(|| {
            let outer = tracing::info_span!("attempt", task_id = 7, attempt = 0, site = tracing::field::Empty);
            outer.record("site", "https://example.org");
            let _outer = outer.entered();
            let _inner = tracing::info_span!("step", step = "open", attempt = 1).entered();
            tracing::warn!(event = "task.failed", duration_ms = 12.5, pid = 1, retryable = true, "the task failed");
        });
        let line = parsed(&lines[0]);
        assert!(lines[0].starts_with("{\"ts\":\"20") && lines[0].contains("Z\",\"level\":\"warn\",\"msg\":\"the task failed\",\"event\":\"task.failed\",\"service.name\":\"pagehand\""), "{}", lines[0]);
        let expected = json!({"task_id": 7, "attempt": 1, "site": "https://example.org", "step": "open",
            "duration_ms": 12.5, "retryable": true, "worker_id": "w1", "pid": std::process::id()});
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&line[key], value, "{key}");
        }
        assert_eq!(lines[0].matches("\"pid\"").count(), 1);
    }

    #[test]
    fn hostile_text_stays_one_line_without_a_control_character() {
        let hostile = "a\r\nb\u{1b}[31m\u{7f}\u{2028}\u{2029}\u{2066}\u{85}\u{9b}\u{202e}\"}{";
        let lines = logged(|| tracing::info!(title = hostile, "x"));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].chars().all(|character| !is_hidden(character)), "{}", lines[0]);
        assert_eq!(parsed(&lines[0])["title"], hostile);
    }

    #[test]
    fn a_long_text_is_cut_and_says_by_how_much() {
        let lines = logged(|| tracing::info!(text = "x".repeat(10_000), "x"));
        assert!(parsed(&lines[0])["text"].as_str().unwrap().ends_with("x…(+1808 bytes)"));
    }

    #[test]
    fn a_chain_is_a_list() {
        let causes = serde_json::json!(["above", "below\n"]).to_string();
        let lines = logged(|| tracing::info!(err.chain = causes, "x"));
        assert_eq!(parsed(&lines[0])["err.chain"], json!(["above", "below\n"]));
    }

    #[test]
    fn an_error_comes_with_its_causes() {
        let error = io::Error::other(io::Error::other("below"));
        let lines = logged(|| tracing::info!(err = &error as &(dyn std::error::Error + 'static), "x"));
        assert_eq!(parsed(&lines[0])["err"], "below");
    }
}
