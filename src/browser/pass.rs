//! The way through that a site gives its testers: headers and cookies for one origin and for no other.
//!
//! Headers are added to each request of the origin where Chrome pauses it. Chrome does not carry them on to where a
//! redirect leads; a redirect that stays at the origin is paused again. What is added is in none of the requests that the
//! tab reports.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::fetch::{ContinueRequestParams, HeaderEntry, RequestPattern};
use chromiumoxide::cdp::browser_protocol::network::CookieParam;
use chromiumoxide::cdp::browser_protocol::storage::SetCookiesParams;
use chrono::Utc;
use secrecy::{ExposeSecret, SecretString};
use serde::de::IgnoredAny;
use url::Url;

use super::error::BrowserError;
use super::events::Paused;
use super::router::Session;
use super::signature::Signer;
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
    /// Signs each request.
    pub signer: Option<Signer>,
}

impl SitePass {
    /// The requests that get headers.
    pub(super) fn pattern(&self) -> Option<RequestPattern> {
        let wanted = self.adds_headers();
        wanted.then(|| RequestPattern { url_pattern: Some(format!("{}/*", self.origin)), ..RequestPattern::default() })
    }

    fn adds_headers(&self) -> bool {
        !self.headers.is_empty() || self.signer.is_some()
    }

    /// What a request of Chrome gets; nothing where it goes to another origin.
    fn added(&self, method: &str, url: &str) -> Vec<(String, String)> {
        let parsed = Url::parse(url).ok().filter(|_| self.is_for(url));
        let Some(parsed) = parsed else { return Vec::new() };
        let own = self.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
        let signed = self.signer.iter().flat_map(|signer| signer.headers(method, &parsed, Utc::now().timestamp()));
        own.chain(signed).collect()
    }

    /// What a request that Chrome does not send gets: the cookies too.
    pub(super) fn headers_for(&self, method: &str, url: &str) -> Vec<(String, String)> {
        let mut all = self.added(method, url);
        if self.is_for(url) && !self.cookies.is_empty() {
            let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={}", value.expose_secret()));
            all.push(("Cookie".to_owned(), cookies.collect::<Vec<_>>().join("; ")));
        }
        all
    }

    fn is_for(&self, url: &str) -> bool {
        url.strip_prefix(self.origin.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The answer to a paused request of the tab: it may go, with our headers where it goes to the origin.
    pub(super) fn let_go(&self, paused: &Paused) -> ContinueRequestParams {
        let mut go = ContinueRequestParams::new(paused.request_id.clone());
        let added = self.added(&paused.request.method, &paused.request.url);
        if added.is_empty() {
            return go;
        }
        let ours = |name: &str| added.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let theirs = paused.request.headers.iter().filter(|(name, _)| !ours(name));
        let theirs = theirs
            .filter_map(|(name, value)| Some(HeaderEntry::new(name.clone(), value.as_str()?.to_owned())))
            .collect::<Vec<_>>();
        let own = added.into_iter().map(|(name, value)| HeaderEntry::new(name, value));
        go.headers = Some(theirs.into_iter().chain(own).collect());
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
