//! A known secret of four characters or more is in no text that has passed the redactor, whatever stands around it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pagehand::telemetry::Redactor;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Some((secret, rest)) = text.split_once('\n') else { return };
    // Long ones take seconds to compile; a mask that is itself a secret can't be taken out.
    if !(4..=24).contains(&secret.chars().count()) || secret.trim().is_empty() || "***".contains(secret.trim()) {
        return;
    }
    let redactor = Redactor::new(&[secret.to_owned().into()]);
    let (before, after) =
        rest.split_at(rest.len() / 2 + (0..4).find(|at| rest.is_char_boundary(rest.len() / 2 + at)).unwrap_or(0));
    for form in [secret.to_owned(), url::form_urlencoded::byte_serialize(secret.as_bytes()).collect()] {
        let clean = redactor.text(&format!("{before}{form}{after}")).into_owned();
        let masked = before.contains(&form) || after.contains(&form) || form.contains('*');
        assert!(masked || !clean.contains(&form), "{form:?} is still there: {clean:?}");
    }
    let value = serde_json::json!({"page": rest, secret: [secret]});
    let _ = redactor.value(&value);
});
