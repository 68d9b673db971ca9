//! How much of a text or of a step's meta is kept: a page decides how long its title is, and the record must not.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::Redactor;

/// Longest text of a meta or an error, in bytes.
pub(super) const TEXT: usize = 8 << 10;
/// Longest text that is looked at for secrets before it is cut to [`TEXT`]: a secret must not be cut in two first.
const RAW_TEXT: usize = 64 << 10;
/// Deepest nesting of a meta.
const DEPTH: usize = 8;
/// Most fields or items of one level of a meta.
const ITEMS: usize = 200;
/// Largest meta of one step, in bytes of JSON.
const META: usize = 128 << 10;

/// `text` up to `limit` bytes, and how many are missing: `…(+12 bytes)`.
pub(super) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let kept = text.floor_char_boundary(limit);
    Cow::Owned(format!("{}…(+{} bytes)", &text[..kept], text.len() - kept))
}

/// `text` without secrets, without NUL (which no Postgres text can hold), and not longer than [`TEXT`].
pub(super) fn clean_text(redactor: &Redactor, text: &str) -> String {
    let raw = cut(text, RAW_TEXT);
    cut(&redactor.text(&raw), TEXT).replace('\0', "\u{fffd}")
}

/// The meta of a step or run as it is kept: an object, bounded in every direction, without secrets.
pub(super) fn clean_meta(redactor: &Redactor, meta: &Value) -> Map<String, Value> {
    let fields = match meta {
        Value::Null => Map::new(),
        Value::Object(fields) => redactor.fields(&bounded_fields(fields, DEPTH, RAW_TEXT)),
        other => redactor.fields(&Map::from_iter([("value".to_owned(), bounded(other, DEPTH, RAW_TEXT))])),
    };
    let fields = bounded_fields(&fields, DEPTH, TEXT);
    let size = serde_json::to_string(&fields).map_or(0, |text| text.len());
    if size > META { Map::from_iter([("left_out".to_owned(), json!(format!("{size} bytes")))]) } else { fields }
}

fn bounded(value: &Value, depth: usize, text_limit: usize) -> Value {
    match value {
        Value::String(text) => cut(text, text_limit).replace('\0', "\u{fffd}").into(),
        Value::Array(_) | Value::Object(_) if depth == 0 => "…(nested too deep)".into(),
        Value::Array(items) => {
            let mut kept: Vec<Value> =
                items.iter().take(ITEMS).map(|item| bounded(item, depth - 1, text_limit)).collect();
            if items.len() > ITEMS {
                kept.push(format!("…(+{} items)", items.len() - ITEMS).into());
            }
            kept.into()
        }
        Value::Object(fields) => Value::Object(bounded_fields(fields, depth - 1, text_limit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn bounded_fields(fields: &Map<String, Value>, depth: usize, text_limit: usize) -> Map<String, Value> {
    let field =
        |(key, value): (&String, &Value)| (cut(key, 200).replace('\0', "\u{fffd}"), bounded(value, depth, text_limit));
    let mut kept: Map<String, Value> = fields.iter().take(ITEMS).map(field).collect();
    if fields.len() > ITEMS {
        kept.insert("…".to_owned(), format!("(+{} fields)", fields.len() - ITEMS).into());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_by_how_much() {
        assert_eq!(cut("äöü", 3), "ä…(+4 bytes)");
        assert_eq!(cut("äöü", 6), "äöü");
        let text = clean_text(&Redactor::default(), &"x".repeat(10_000));
        assert!(text.ends_with("…(+1808 bytes)") && text.len() < TEXT + 20, "{}", text.len());
    }

    #[test]
    fn a_secret_at_the_place_of_the_cut_is_taken_out_first() {
        let redactor = Redactor::new(&["topsecret".into()]);
        let text = clean_text(&redactor, &format!("{}topsecret{}", "x".repeat(TEXT - 4), "y".repeat(100)));
        assert!(!text.contains("tops"), "{}", &text[TEXT - 10..]);
    }

    #[test]
    fn a_meta_that_nests_without_end_or_is_wide_is_bounded() {
        let mut deep = json!("bottom");
        for _ in 0..100 {
            deep = json!({ "d": deep });
        }
        let kept = Value::Object(clean_meta(&Redactor::default(), &json!({"deep": deep, "wide": vec![1; 5_000]})));
        assert!(kept.to_string().contains("nested too deep"));
        assert_eq!(kept["wide"].as_array().unwrap().len(), ITEMS + 1);
        let many: Map<String, Value> = (0..100).map(|n| (n.to_string(), "z".repeat(8_000).into())).collect();
        assert!(clean_meta(&Redactor::default(), &many.into())["left_out"].is_string());
    }

    #[test]
    fn no_nul_reaches_the_database() {
        let kept = Value::Object(clean_meta(&Redactor::default(), &json!({"a\0": ["b\0"]})));
        assert_eq!(kept, json!({"a\u{fffd}": ["b\u{fffd}"]}));
        assert_eq!(clean_text(&Redactor::default(), "\0"), "\u{fffd}");
    }
}
