//! Style, script and icon: part of the program, so that a page needs nothing from elsewhere.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header;
use sha2::{Digest, Sha256};

/// Paths of the three.
pub const STYLE: &str = "/assets/pagehand.css";
pub const SCRIPT: &str = "/assets/pagehand.js";
pub const ICON: &str = "/assets/icon.svg";

const STYLE_TEXT: &str = include_str!("assets/pagehand.css");
const SCRIPT_TEXT: &str = include_str!("assets/pagehand.js");
const ICON_TEXT: &str = include_str!("assets/icon.svg");

/// Changes with what is in them: pages ask for `PATH?v=VERSION`, so that a new program is not shown in an old style.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest([STYLE_TEXT, SCRIPT_TEXT, ICON_TEXT].concat().as_bytes());
    digest.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
});

pub async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE_TEXT)
}

pub async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT_TEXT)
}

pub async fn icon() -> Response {
    asset("image/svg+xml", ICON_TEXT)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")], text).into_response()
}
