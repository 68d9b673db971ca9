//! One line in, what the mapper makes of it out: the heart of `pagehand map-failure`.

use serde_json::{Map, Value, json};

use super::mapper::{TextKind, map_text};

/// Reads a line, a bare text or `{"text":…,"kind":"net|cdp|exception|http|page"}` (`kind` may be missing or null), and
/// answers `{"text":…,"failure_reason":…|null,"failure_code":…|null,"retryable":…}`, with `retry_after` in seconds
/// where the text names a wait, and `message` for a person where there is a failure.
///
/// A line that begins with `{` and is a JSON object is taken for the latter form; any other is text.
///
/// # Errors
///
/// An object without `text`, with a kind that is none, or with a field of another name: which, and how to mend it.
pub fn answer_line(line: &str) -> Result<Value, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    let object = match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let (text, kind) = match &object {
        Some(object) => fields(object)?,
        None => (line, None),
    };
    let failure = map_text(text, kind);
    let mut answer = json!({
        "text": text,
        "failure_reason": failure.as_ref().map(|failure| failure.reason),
        "failure_code": failure.as_ref().map(|failure| &failure.code),
        "retryable": failure.as_ref().is_some_and(|failure| failure.retryable),
    });
    if let Some(failure) = failure {
        answer["message"] = failure.message.into();
        if let Some(wait) = failure.retry_after {
            answer["retry_after"] = wait.as_secs().into();
        }
    }
    Ok(answer)
}

/// The text and kind of an object.
fn fields(object: &Map<String, Value>) -> Result<(&str, Option<TextKind>), String> {
    let text = match object.get("text") {
        Some(Value::String(text)) => text,
        Some(other) => return Err(format!("`text` must be a string, not {other}")),
        None => return Err("`text` is missing; a line is {\"text\":\"…\",\"kind\":\"page\"} or a bare text".to_owned()),
    };
    let kind = match object.get("kind") {
        None | Some(Value::Null) => None,
        Some(given) => {
            let known = TextKind::NAMES.iter().find(|(name, _)| given.as_str() == Some(name));
            let names = TextKind::NAMES.map(|(name, _)| name).join(", ");
            Some(known.ok_or_else(|| format!("`kind` is {given}; use one of {names}, or leave it out"))?.1)
        }
    };
    Ok((text, kind))
}
