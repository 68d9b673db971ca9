//! Encrypts what a task keeps secret before it becomes a row, and opens it again in the worker that has claimed the task.
//!
//! A sealed field is `{"sealed":"1.KEY.TEXT"}`: the version, the id of the key, and in base64 the nonce followed by what
//! XChaCha20-Poly1305 makes of the text. Task, field and the origin of the task's page are authenticated with it, so a
//! sealed password that is copied into another task, or whose task is turned to another site, can't be opened.
//!
//! A field that is a text is in the clear: rows from before there was a key, and of queues without one. The id of a key is
//! a part of its digest; it tells which key is needed, and nothing of the key.
//!
//! To rotate: the new key becomes `secrets.key`, the old one goes into `secrets.older_keys`, everywhere; then `pagehand
//! migrate --reseal` seals anew what is still needed, and the old key can go. Considered and rejected: sealing whole
//! payloads (a dead letter whose key is lost could then not even be looked at).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::fault;
use crate::task::{SECRET_FIELDS, TaskId};

const VERSION: &str = "1";
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;

/// The key under which secrets are sealed, and those under which they once were. Cheap to share, never printed.
#[derive(Default)]
pub struct Keys {
    current: Option<Key>,
    older: Vec<Key>,
}

struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
}

/// Why a key can't be used. Never tells anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no key: it must be {KEY_BYTES} bytes in base64 or hex; `openssl rand -base64 {KEY_BYTES}` makes one")]
pub struct KeyError;

/// Why a secret of a task can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// This process does not have the key.
    #[error(
        "payload.{field} is encrypted under the key {key}, which this process does not have; set secrets.key to it, or name \
         it in secrets.older_keys"
    )]
    NoKey {
        /// Which secret.
        field: &'static str,
        /// Id of the key.
        key: String,
    },
    /// It is not what was sealed for this task.
    #[error("payload.{field} can't be decrypted: it was changed, or sealed for another task or site")]
    Unreadable {
        /// Which secret.
        field: &'static str,
    },
}

impl Keys {
    /// Keys from their texts, each of 32 bytes in base64 or hex.
    ///
    /// # Errors
    /// One of them is no key.
    pub fn new(current: &SecretString, older: &[SecretString]) -> Result<Keys, KeyError> {
        let older = older.iter().map(Key::read).collect::<Result<_, _>>()?;
        Ok(Keys { current: Some(Key::read(current)?), older })
    }

    /// Id of the key under which secrets are sealed; None: they stay in the clear.
    pub fn current(&self) -> Option<&str> {
        self.current.as_ref().map(|key| key.id.as_str())
    }

    /// Whether this is the id of one of the keys.
    pub fn has(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &str) -> Option<&Key> {
        self.current.iter().chain(&self.older).find(|key| key.id == id)
    }

    /// The payload with its secrets sealed for this task; None where there is nothing to seal, or no key.
    pub fn seal(&self, task: TaskId, url: &str, payload: &Value) -> Option<Value> {
        let (key, fields) = (self.current.as_ref()?, payload.as_object()?);
        let sealed: Map<String, Value> = SECRET_FIELDS
            .iter()
            .filter_map(|field| {
                let text = fields.get(*field)?.as_str()?;
                Some(((*field).to_owned(), json!({"sealed": key.seal(&bound_to(task, url, field), text)})))
            })
            .collect();
        if sealed.is_empty() {
            return None;
        }
        let mut all = fields.clone();
        all.extend(sealed);
        Some(Value::Object(all))
    }

    /// The payload of a task with its secrets in the clear.
    ///
    /// # Errors
    /// A key is missing, or what was sealed was changed.
    pub fn open(&self, task: TaskId, url: &str, payload: &Value) -> Result<Value, OpenError> {
        let mut payload = payload.clone();
        for field in SECRET_FIELDS {
            let Some(sealed) = payload.get(field).and_then(Value::as_object).and_then(sealed_text) else { continue };
            let unreadable = || OpenError::Unreadable { field };
            let (id, text) = sealed
                .strip_prefix(VERSION)
                .and_then(|rest| rest.strip_prefix('.')?.split_once('.'))
                .ok_or_else(unreadable)?;
            let key = self.find(id).ok_or_else(|| OpenError::NoKey { field, key: shown(id) })?;
            let clear = key.open(&bound_to(task, url, field), text).ok_or_else(unreadable)?;
            payload[field] = Value::String(clear);
        }
        Ok(payload)
    }
}

/// Whether a payload has a secret in it.
pub fn has_secret(payload: &Value) -> bool {
    SECRET_FIELDS.iter().any(|field| payload.get(field).is_some())
}

/// The payload with `***` in place of its secrets.
pub fn masked(payload: &Value) -> Value {
    let mut payload = payload.clone();
    for field in SECRET_FIELDS {
        if let Some(secret) = payload.get_mut(field) {
            *secret = "***".into();
        }
    }
    payload
}

fn sealed_text(fields: &Map<String, Value>) -> Option<String> {
    match fields.get("sealed") {
        Some(Value::String(text)) if fields.len() == 1 => Some(text.clone()),
        _ => None,
    }
}

/// What is authenticated beside the secret.
fn bound_to(task: TaskId, url: &str, field: &str) -> Vec<u8> {
    let origin = Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    let origin = if fault::guard!("seal.site") { origin } else { String::new() };
    format!("pagehand\n{VERSION}\n{task}\n{origin}\n{field}").into_bytes()
}

/// An id from a row, which may be anything.
fn shown(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(16).collect()
}

impl Key {
    fn read(text: &SecretString) -> Result<Key, KeyError> {
        let text = text.expose_secret().trim();
        let decoders = [&STANDARD, &URL_SAFE, &STANDARD_NO_PAD, &URL_SAFE_NO_PAD];
        let bytes = match text.len() {
            64 => from_hex(text),
            _ => decoders.iter().find_map(|decoder| decoder.decode(text).ok()),
        };
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES).ok_or(KeyError)?;
        let mut digest = Sha256::new();
        digest.update(b"pagehand key id\n");
        digest.update(&bytes);
        let id = digest.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Key { id, cipher: XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| KeyError)? })
    }

    fn seal(&self, bound_to: &[u8], text: &str) -> String {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: text.as_bytes(), aad: bound_to });
        let sealed = sealed.expect("a text that fits into a payload is far below what the cipher takes");
        format!("{VERSION}.{}.{}", self.id, URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    fn open(&self, bound_to: &[u8], text: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
        let clear = self.cipher.decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: bound_to }).ok()?;
        String::from_utf8(clear).ok()
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.current.iter().chain(&self.older).map(|key| key.id.as_str()).collect();
        f.debug_tuple("Keys").field(&ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://example.org/join";

    fn text(seed: u8) -> SecretString {
        STANDARD.encode([seed; KEY_BYTES]).into()
    }

    fn keys(current: u8, older: &[u8]) -> Keys {
        let older: Vec<SecretString> = older.iter().map(|seed| text(*seed)).collect();
        Keys::new(&text(current), &older).unwrap()
    }

    fn payload() -> Value {
        json!({"username": "ann", "password": "Kanarie +77 ü"})
    }

    #[test]
    fn what_was_sealed_for_a_task_is_opened_for_it_and_for_no_other_and_no_other_site() {
        let keys = keys(1, &[]);
        let sealed = keys.seal(TaskId(7), PAGE, &payload()).unwrap();
        assert!(!sealed.to_string().contains("Kanarie"), "{sealed}");
        assert_eq!(sealed["username"], "ann");
        assert_eq!(keys.open(TaskId(7), PAGE, &sealed), Ok(payload()));
        assert_eq!(keys.open(TaskId(7), "https://example.org/other", &sealed), Ok(payload()));
        let refused = Err(OpenError::Unreadable { field: "password" });
        assert_eq!(keys.open(TaskId(8), PAGE, &sealed), refused);
        assert_eq!(keys.open(TaskId(7), "https://evil.example/join", &sealed), refused);
        let again = keys.seal(TaskId(7), PAGE, &payload()).unwrap();
        assert_ne!(sealed, again, "the same password looks different each time");
    }

    #[test]
    fn what_was_changed_is_refused() {
        let keys = keys(1, &[]);
        let sealed = keys.seal(TaskId(7), PAGE, &payload()).unwrap();
        let text = sealed["password"]["sealed"].as_str().unwrap();
        for at in [0, 2, 12, text.len() / 2, text.len() - 1] {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = json!({"password": {"sealed": String::from_utf8(changed).unwrap()}});
            assert!(keys.open(TaskId(7), PAGE, &changed).is_err(), "{at}: {changed}");
        }
        for broken in ["", "1", "1..", "2.a.b", "1.x"] {
            assert!(keys.open(TaskId(7), PAGE, &json!({"password": {"sealed": broken}})).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_older_key_opens_and_does_not_seal_and_a_missing_one_is_named_with_the_setting() {
        let sealed = keys(1, &[]).seal(TaskId(7), PAGE, &payload()).unwrap();
        let rotated = keys(2, &[1]);
        assert_eq!(rotated.open(TaskId(7), PAGE, &sealed), Ok(payload()));
        let anew = rotated.seal(TaskId(7), PAGE, &payload()).unwrap();
        let missing = keys(1, &[]).open(TaskId(7), PAGE, &anew).unwrap_err().to_string();
        assert!(missing.contains("secrets.key") && missing.contains(rotated.current().unwrap()), "{missing}");
        assert!(Keys::default().open(TaskId(7), PAGE, &anew).is_err());
    }

    #[test]
    fn what_is_in_the_clear_stays_readable_and_what_is_not_ours_stays_as_it_is() {
        for value in [payload(), json!({"body": "x"}), json!([1]), json!({"password": {"sealed": "1.a.b", "x": 1}})] {
            assert_eq!(Keys::default().open(TaskId(1), PAGE, &value), Ok(value));
        }
        assert_eq!(Keys::default().seal(TaskId(1), PAGE, &payload()), None);
        assert_eq!(keys(1, &[]).seal(TaskId(1), PAGE, &json!({"body": "x"})), None);
    }

    #[test]
    fn a_key_is_thirty_two_bytes_in_base64_or_hex_and_is_never_printed() {
        let hex: String = [7u8; KEY_BYTES].iter().map(|byte| format!("{byte:02X}")).collect();
        let named = Keys::new(&hex.clone().into(), &[]).unwrap();
        assert_eq!(named.current(), keys(7, &[]).current());
        assert!(!format!("{named:?}").contains(&hex));
        for wrong in ["", "hunter2", "c2hvcnQ=", &hex[..62], &"g".repeat(64)] {
            assert_eq!(Keys::new(&wrong.into(), &[]).unwrap_err(), KeyError, "{wrong}");
        }
    }
}
