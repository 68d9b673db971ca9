//! Reading Chrome's JSON without ever losing a message to what a page put into it.
//!
//! A page can make Chrome send half a surrogate pair (`"\ud800"`), which is no Unicode and which `serde_json` refuses
//! together with the whole message. Such escapes are replaced by U+FFFD, only when a first attempt has failed.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// Parses `text`; where that fails, once more with broken surrogates replaced.
pub(super) fn lenient<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| match mend_surrogates(text) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(mended) => serde_json::from_str(&mended),
    })
}

/// Replaces each `\uD8xx`–`\uDFxx` escape that is not half of a pair by `\ufffd`.
fn mend_surrogates(text: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let start = at + found;
        at = match unit_at(text, start) {
            None => (start + 2).min(text.len()),
            Some(0xD800..=0xDBFF) if matches!(unit_at(text, start + 6), Some(0xDC00..=0xDFFF)) => start + 12,
            Some(0xD800..=0xDFFF) => {
                let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
                out.push_str(&text[copied..start]);
                out.push_str("\\ufffd");
                copied = start + 6;
                copied
            }
            Some(_) => start + 6,
        };
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.push_str(&text[copied..]);
            Cow::Owned(out)
        }
    }
}

/// The code unit of the `\uXXXX` escape at `at`, if there is one.
fn unit_at(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        for (wire, read) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udc00""#, "\u{fffd}"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\\ud800 \ud800""#, "\\ud800 \u{fffd}"),
            (r#""\ud800é""#, "\u{fffd}é"),
        ] {
            assert_eq!(lenient::<String>(wire).unwrap(), read, "{wire}");
        }
    }

    proptest! {
        #[test]
        fn every_string_of_utf_16_units_can_be_read(units in prop::collection::vec(any::<u16>(), 0..20)) {
            let wire: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(lenient::<String>(&format!("\"{wire}\"")).unwrap(), String::from_utf16_lossy(&units));
        }
    }
}
