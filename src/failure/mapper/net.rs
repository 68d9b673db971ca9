//! Chrome's network errors, all of `net_error_list.h`: by name where one stands out, else by family.

use std::sync::LazyLock;

use regex::Regex;

static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\bERR_[A-Z0-9]+(?:_[A-Z0-9]+)*\b").expect("the pattern is a constant"));

/// The first name of a network error in a text, `ERR_…`.
pub(super) fn name_in(text: &str) -> Option<&str> {
    NAME.find(text).map(|found| found.as_str())
}

/// The code of a network error, by its name with or without `net::`.
pub(super) fn code(name: &str) -> &'static str {
    let name = name.strip_prefix("net::").unwrap_or(name);
    let name = name.strip_prefix("ERR_").unwrap_or(name);
    let one = |names: &[&str]| names.contains(&name);
    let within = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let begins = |parts: &[&str]| parts.iter().any(|part| name.starts_with(part));

    if one(&["TIMED_OUT", "CONNECTION_TIMED_OUT", "QUIC_HANDSHAKE_TIMED_OUT"]) {
        "net.timeout"
    } else if name == "DNS_TIMED_OUT" {
        "net.dns_timeout"
    } else if name == "DNS_CACHE_MISS" || begins(&["NAME_", "DNS_", "ICANN_NAME_COLLISION"]) {
        "net.dns"
    } else if one(&["INTERNET_DISCONNECTED", "NETWORK_IO_SUSPENDED"]) {
        "net.offline"
    } else if one(&["PROXY_CERTIFICATE_INVALID", "HTTPS_PROXY_TUNNEL_RESPONSE_REDIRECT"]) {
        "proxy.tls"
    } else if within(&["PROXY_AUTH"]) {
        "proxy.auth"
    } else if begins(&["PROXY_", "SOCKS_", "TUNNEL_", "MANDATORY_PROXY_", "NO_SUPPORTED_PROXIES", "PAC_"])
        || within(&["_PROXY_", "PROXY_DELEGATE"])
    {
        "proxy.connect"
    } else if within(&["CLIENT_AUTH", "CLIENT_CERT"]) {
        "net.tls_client_cert"
    } else if within(&["BLOCKED_BY_RESPONSE", "BLOCKED_BY_CSP"]) {
        "frame.refused"
    } else if begins(&["BLOCKED_", "CLEARTEXT_NOT_PERMITTED", "NETWORK_ACCESS_DENIED", "NETWORK_ACCESS_REVOKED"])
        || one(&["ACCESS_DENIED", "CONTEXT_SHUT_DOWN", "DISALLOWED_BY_POLICY"])
        || within(&["PRIVATE_NETWORK_ACCESS", "LOCAL_NETWORK_ACCESS"])
    {
        "net.blocked_locally"
    } else if one(&["TOO_MANY_REDIRECTS"]) {
        "nav.redirect_loop"
    } else if one(&["UNSAFE_REDIRECT", "INVALID_REDIRECT"]) {
        "nav.redirect_unsafe"
    } else if one(&["ABORTED", "TOO_MANY_ACCEPT_CH_RESTARTS"]) {
        "nav.aborted"
    } else if one(&["HTTP_RESPONSE_CODE_FAILURE"]) {
        "net.http_status"
    } else if one(&["INVALID_AUTH_CREDENTIALS", "MISSING_AUTH_CREDENTIALS", "MISCONFIGURED_AUTH_ENVIRONMENT"])
        || within(&["AUTH_SCHEME", "SECURITY_LIBRARY_STATUS"])
    {
        "net.http_auth"
    } else if begins(&["SSL_", "CERT_", "CERTIFICATE_", "BAD_SSL_", "ECH_", "PINNED_KEY"])
        || within(&["_CERT_", "_SSL_", "TLS13", "ENCRYPTED_CLIENT_HELLO", "IMPORT_"])
    {
        "net.tls"
    } else if begins(&["CACHE_"]) {
        "net.cache"
    } else if begins(&["FILE_", "UPLOAD_FILE_", "DIRECTORY_", "INVALID_HANDLE", "ADD_USER_CERT", "TRUST_TOKEN"]) {
        "net.file"
    } else if begins(&["UPLOAD_"]) {
        "net.upload"
    } else if one(&[
        "INVALID_URL",
        "DISALLOWED_URL_SCHEME",
        "UNKNOWN_URL_SCHEME",
        "UNSAFE_PORT",
        "METHOD_NOT_SUPPORTED",
    ]) {
        "net.url"
    } else if one(&["OUT_OF_MEMORY", "INSUFFICIENT_RESOURCES", "NO_BUFFER_SPACE", "WINSOCK_UNEXPECTED_WRITTEN_BYTES"]) {
        "net.resources"
    } else if one(&["TEMPORARILY_THROTTLED"]) {
        "net.throttled"
    } else if begins(&[
        "CONNECTION_",
        "SOCKET_",
        "ADDRESS_",
        "NETWORK_",
        "EMPTY_RESPONSE",
        "HOST_",
        "PRECONNECT_",
        "EARLY_DATA_",
        "WS_",
        "TCP_",
    ]) {
        "net.connect"
    } else if begins(&["HTTP2_", "QUIC_", "SPDY_", "HTTP_1_1_REQUIRED", "ALPN_", "NPN_"]) {
        "net.protocol"
    } else if begins(&[
        "INVALID_",
        "CONTENT_",
        "INCOMPLETE_",
        "RESPONSE_",
        "REQUEST_RANGE_",
        "UNEXPECTED",
        "MALFORMED_",
        "SYN_REPLY_",
        "MSG_TOO_BIG",
        "DICTIONARY_",
        "ZSTD_",
        "MISMATCHED_",
    ]) {
        "net.response"
    } else {
        "net.other"
    }
}
