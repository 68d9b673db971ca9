//! Signed requests, by which a site knows its own checks: HTTP message signatures (RFC 9421) with a shared key.
//!
//! Method, authority and path of each request to the site are signed, with the time: a site that wants to be sure refuses
//! what is older than some minutes. Any library that knows the standard can verify them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use url::Url;

/// The name under which our signature stands among others.
const LABEL: &str = "pagehand";

/// What requests are signed with.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Tells the site which key it is.
    pub key_id: String,
    /// Any text, the same at both ends.
    pub key: SecretString,
}

impl Signer {
    /// The two headers of a request. `created`: seconds since 1970.
    pub(super) fn headers(&self, method: &str, url: &Url, created: i64) -> Vec<(String, String)> {
        let host = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let parts = [("@method", method), ("@authority", authority.as_str()), ("@path", url.path())];
        let id: String = self.key_id.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
        let parameters = parameters(&parts, &format!("created={created};keyid=\"{id}\";alg=\"hmac-sha256\""));
        let signature = sign(self.key.expose_secret().as_bytes(), &parts, &parameters);
        vec![
            ("Signature-Input".to_owned(), format!("{LABEL}={parameters}")),
            ("Signature".to_owned(), format!("{LABEL}=:{signature}:")),
        ]
    }
}

fn parameters(parts: &[(&str, &str)], rest: &str) -> String {
    let names: Vec<String> = parts.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    format!("({});{rest}", names.join(" "))
}

/// The signature over the parts and its own parameters, in base64.
fn sign(key: &[u8], parts: &[(&str, &str)], parameters: &str) -> String {
    let lines: String = parts.iter().map(|(name, value)| format!("\"{name}\": {value}\n")).collect();
    let base = format!("{lines}\"@signature-params\": {parameters}");
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(base.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9421, appendix B.2.5.
    #[test]
    fn it_signs_as_the_standard_does() {
        let key = STANDARD
            .decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
            .unwrap();
        let parts = [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
        ];
        let parameters = parameters(&parts, "created=1618884473;keyid=\"test-shared-secret\"");
        assert_eq!(sign(&key, &parts, &parameters), "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=");
    }

    #[test]
    fn method_host_path_and_time_are_signed_and_the_key_is_not_shown() {
        let signer = Signer { key_id: "checks\"1".to_owned(), key: "s3cret".into() };
        let headers = |method: &str, url: &str, at: i64| signer.headers(method, &url.parse().unwrap(), at);
        let one = headers("GET", "https://example.org:8443/a?b=c", 1_700_000_000);
        assert_eq!(
            one[0].1,
            "pagehand=(\"@method\" \"@authority\" \"@path\");created=1700000000;keyid=\"checks1\";alg=\"hmac-sha256\""
        );
        for other in [
            headers("POST", "https://example.org:8443/a?b=c", 1_700_000_000),
            headers("GET", "https://example.org/a?b=c", 1_700_000_000),
            headers("GET", "https://example.org:8443/b", 1_700_000_000),
            headers("GET", "https://example.org:8443/a", 1_700_000_001),
        ] {
            assert_ne!(one[1], other[1]);
        }
        assert!(!format!("{signer:?}{one:?}").contains("s3cret"));
    }
}
