//! W3C trace context: an attempt is a span of the trace that its task came with, or the first of one of its own.

use std::fmt;

/// The trace that an attempt belongs to, and its own span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace {
    trace_id: u128,
    span_id: u64,
}

impl Trace {
    /// A new span, in the trace of `traceparent` if that is one.
    pub(super) fn of(traceparent: Option<&str>) -> Trace {
        let trace_id = traceparent.and_then(trace_id).unwrap_or_else(|| rand::random::<u128>().max(1));
        Trace { trace_id, span_id: rand::random::<u64>().max(1) }
    }

    /// 32 hexadecimal digits.
    pub(super) fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// 16 hexadecimal digits.
    pub(super) fn span_id(self) -> String {
        format!("{:016x}", self.span_id)
    }
}

/// As the header `traceparent` has it.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

/// The trace of a well-formed `traceparent`; None of version `ff`, or with an id that is all zeros.
fn trace_id(traceparent: &str) -> Option<u128> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return None };
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !(hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2)) || version.eq_ignore_ascii_case("ff") {
        return None;
    }
    let span_is_set = u64::from_str_radix(span, 16).is_ok_and(|id| id != 0);
    u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0 && span_is_set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_goes_on_with_the_trace_of_whoever_enqueued() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::of(Some(given));
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(trace.span_id(), "00f067aa0ba902b7");
        assert_eq!(trace_id(&trace.to_string()), Some(trace.trace_id));
    }

    #[test]
    fn what_is_no_trace_context_begins_a_new_trace() {
        for bad in [
            "",
            "x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
        assert_ne!(Trace::of(None), Trace::of(None));
    }
}
