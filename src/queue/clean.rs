//! What Postgres can't store is taken out before it gets there: NUL in texts and JSON, and numbers that are none.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

/// The text without NUL.
pub fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { Cow::Borrowed(text) }
}

/// The value without NUL in its texts and names.
pub fn json(value: &Value) -> Value {
    match value {
        Value::String(string) => Value::String(text(string).into_owned()),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (text(name).into_owned(), json(member))).collect()
        }
        other => other.clone(),
    }
}

/// An amount that can be added up: neither infinite nor NaN nor negative.
pub fn amount(amount: f64) -> f64 {
    if amount.is_finite() { amount.max(0.0) } else { 0.0 }
}

/// Seconds for `make_interval`, at most about thirty years.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().min(1e9)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_nul_is_left_at_any_depth() {
        let dirty = json!({"a\0b": ["x\0", {"c": "\0"}], "n": 1});
        assert_eq!(json(&dirty), json!({"ab": ["x", {"c": ""}], "n": 1}));
    }

    #[test]
    fn a_backslash_before_the_escape_is_kept() {
        let written = json!("\\u0000");
        assert_eq!(json(&written), written);
    }
}
