//! JSON or a page? A browser says that it prefers HTML; everything else gets JSON.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::ACCEPT;
use http::request::Parts;

/// In which form an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A page.
    Html,
    /// JSON.
    Json,
}

impl Wanted {
    /// HTML if (and only if) `Accept` names it and names JSON with no higher weight. `*/*` alone is a program.
    pub fn by(headers: &HeaderMap) -> Wanted {
        let mut html = 0.0;
        let mut json = 0.0;
        let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in accept.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
                .map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
            match kind.as_str() {
                "text/html" | "text/*" | "application/xhtml+xml" => html = weight.max(html),
                "application/json" | "application/*" | "application/problem+json" => json = weight.max(json),
                _ => {}
            }
        }
        if html > 0.0 && html >= json { Wanted::Html } else { Wanted::Json }
    }
}

impl<S: Sync> FromRequestParts<S> for Wanted {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Wanted, Infallible> {
        Ok(Wanted::by(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(accept: &str) -> Wanted {
        Wanted::by(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]))
    }

    #[test]
    fn a_browser_gets_a_page_and_a_program_json() {
        assert_eq!(by("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Wanted::Html);
        assert_eq!(by("*/*"), Wanted::Json);
        assert_eq!(by("application/json, text/plain, */*"), Wanted::Json);
        assert_eq!(by("application/json, text/html;q=0.5"), Wanted::Json);
        assert_eq!(by("text/html;q=0"), Wanted::Json);
        assert_eq!(by("text/*"), Wanted::Html);
        assert_eq!(by("text/*;q=0.5, application/*"), Wanted::Json);
        assert_eq!(Wanted::by(&HeaderMap::new()), Wanted::Json);
    }
}
