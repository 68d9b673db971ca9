//! The way through that a site gives its testers: headers and cookies for one origin and for no other.
//!
//! Headers are added to each request of the origin where Chrome pauses it. Chrome does not carry them on to where a
//! redirect leads; a redirect that stays at the origin is paused again. What is added is in none of the requests that the
//! tab reports.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::fetch::{ContinueRequestParams, HeaderEntry, RequestPattern};
use chromiumoxide::cdp::browser_protocol::network::CookieParam;
use chromiumoxide::cdp::browser_protocol::storage::SetCookiesParams;
use secrecy::{ExposeSecret, SecretString};
use serde::de::IgnoredAny;

use super::error::BrowserError;
use super::events::Paused;
use super::router::Session;
use super::submit;
use super::tab::Tab;

/// What a site gives its testers.
#[derive(Debug, Clone, Default)]
pub struct SitePass {
    /// The only origin that gets it, like `https://example.org:8443`.
    pub origin: String,
    /// Headers by name.
    pub headers: Vec<(String, SecretString)>,
    /// Cookies by name. They go to every port of the host, as cookies do.
    pub cookies: Vec<(String, SecretString)>,
}

impl SitePass {
    /// The requests that get headers.
    pub(super) fn pattern(&self) -> Option<RequestPattern> {
        let wanted = !self.headers.is_empty();
        wanted.then(|| RequestPattern { url_pattern: Some(format!("{}/*", self.origin)), ..RequestPattern::default() })
    }

    fn is_for(&self, url: &str) -> bool {
        url.strip_prefix(self.origin.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The answer to a paused request of the tab: it may go, with our headers where it goes to the origin.
    pub(super) fn let_go(&self, paused: &Paused) -> ContinueRequestParams {
        let mut go = ContinueRequestParams::new(paused.request_id.clone());
        if self.headers.is_empty() || !self.is_for(&paused.request.url) {
            return go;
        }
        let ours = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let theirs = paused.request.headers.iter().filter(|(name, _)| !ours(name));
        let theirs =
            theirs.filter_map(|(name, value)| Some(HeaderEntry::new(name.clone(), value.as_str()?.to_owned())));
        let own =
            self.headers.iter().map(|(name, value)| HeaderEntry::new(name.clone(), value.expose_secret().to_owned()));
        go.headers = Some(theirs.chain(own).collect());
        go
    }
}

impl Tab {
    /// Gives the tab the way through of a site, before its first page.
    ///
    /// # Errors
    /// Chrome refuses a cookie, or does not answer within `limit`.
    pub async fn pass_as_tester(&self, pass: SitePass, limit: Duration) -> Result<(), BrowserError> {
        let deadline = self.end_of(limit)?;
        if !pass.cookies.is_empty() {
            let cookie = |(name, value): &(String, SecretString)| {
                let mut cookie = CookieParam::new(name.clone(), value.expose_secret().to_owned());
                cookie.url = Some(format!("{}/", pass.origin));
                cookie.secure = Some(pass.origin.starts_with("https:"));
                // Scripts of the page, and of whom it embeds, need not see it.
                cookie.http_only = Some(true);
                cookie
            };
            let mut set = SetCookiesParams::new(pass.cookies.iter().map(cookie).collect::<Vec<_>>());
            set.browser_context_id = Some(self.context_id().to_owned().into());
            let _: IgnoredAny = self.browser().router.root().call(&set, deadline).await?;
        }
        let pattern = pass.pattern();
        self.state.with(|inner| inner.pass = Some(pass));
        if let Some(pattern) = pattern {
            let mut enable = submit::patterns();
            enable.patterns.get_or_insert_default().push(pattern);
            // Frames that come later have their documents and calls paused in any case.
            if let Some(page) = self.state.with(|inner| inner.page.clone()) {
                page.send(&enable).of::<IgnoredAny>().until(deadline).await?;
            }
        }
        Ok(())
    }
}

/// Answers a paused request: it may go.
pub(super) fn let_go(session: &Session, paused: &Paused, pass: Option<&SitePass>) {
    match pass {
        Some(pass) => session.tell(&pass.let_go(paused)),
        None => submit::let_go(session, &paused.request_id),
    }
}
