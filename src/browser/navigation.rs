//! Going to an address, and knowing for certain that one is there.
//!
//! A load has a name, its loader id, in Chrome's answer to `Page.navigate` and on every event about it; so the old
//! page's events can't be taken for the new one's. The answer comes first: after a refused connection Chrome "loads" an
//! error page, after a download or a 204 it loads nothing at all.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::page::{NavigateParams, StopLoadingParams};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::error::BrowserError;
use super::state::Inner;
use super::tab::Tab;
use super::types::Landed;

/// Once the document is ready, what else it loads (pictures, trackers) may take so long and no longer.
const LOAD_GRACE: Duration = Duration::from_secs(10);
/// Going to another part of the same document takes no longer.
const WITHIN_DOCUMENT: Duration = Duration::from_millis(250);

/// Chrome's word for a CONNECT that the proxy refused.
const NO_TUNNEL: &str = "net::ERR_TUNNEL_CONNECTION_FAILED";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Navigated {
    loader_id: Option<String>,
    error_text: Option<String>,
    #[serde(default)]
    is_download: bool,
}

impl Tab {
    /// Loads `url` (http, https or `about:blank`) in the main frame.
    ///
    /// Ends when the load event was seen, or, when the document is ready by then, at `limit` or ten seconds after it
    /// became ready, whichever is earlier ([`Landed::loaded`] is `false` then).
    ///
    /// # Errors
    /// [`BrowserError::NavigationFailed`] with Chrome's `net::ERR_…`, [`BrowserError::Download`],
    /// [`BrowserError::NoContent`], [`BrowserError::NavigationTimeout`], [`BrowserError::PageHung`] and those of every call.
    /// A status of 400 or above is no error: see [`Landed::status`].
    pub async fn goto(&self, url: &str, limit: Duration) -> Result<Landed, BrowserError> {
        if !may_be_opened(url) {
            return Err(BrowserError::UrlDenied { url: url.to_owned() });
        }
        let deadline = self.end_of(limit)?;
        let started = Instant::now();
        let timeout = || BrowserError::NavigationTimeout { url: url.to_owned(), after: started.elapsed() };
        let page = self.page()?;
        self.state.with(|inner| {
            inner.leaving = Some(started);
            inner.kept_from = None;
        });
        let going = self.unless_faulty(page.call::<_, Navigated>(&NavigateParams::new(url), deadline)).await;
        let navigated = match going {
            Ok(navigated) => navigated,
            Err(BrowserError::Unresponsive { .. }) => {
                page.tell(&StopLoadingParams::default());
                return Err(timeout());
            }
            Err(error) => return Err(error),
        };
        if navigated.is_download {
            return Err(BrowserError::Download { url: url.to_owned() });
        }
        if let Some(error_text) = navigated.error_text {
            return Err(self.not_loaded(url, navigated.loader_id.as_deref(), error_text));
        }
        let Some(loader) = navigated.loader_id else {
            // Only the part after `#` is another; that is told a little later.
            let soon = deadline.min(Instant::now() + WITHIN_DOCUMENT);
            let there = |inner: &mut Inner| inner.main_frame().filter(|frame| frame.url == url).map(drop);
            self.state.until(soon, there).await?;
            return self.state.with(|inner| inner.landed()).ok_or_else(timeout);
        };
        match self.landing(&loader, deadline).await? {
            Some(landed) => Ok(landed),
            None => {
                page.tell(&StopLoadingParams::default());
                Err(self.hung_instead_of(timeout()).await)
            }
        }
    }

    /// Waits until the main frame shows the document of `loader`, or one that it was sent on to, and that is loaded.
    /// `None`: there is no usable document at `deadline`.
    pub(super) async fn landing(&self, loader: &str, deadline: Instant) -> Result<Option<Landed>, BrowserError> {
        let ready = self.state.until(deadline, |inner| {
            let current = inner.main_frame()?.loader.clone();
            // Sent on by a script or a refresh before it was loaded: the next document counts.
            let committed = current == loader || inner.documents.get(loader).is_some_and(|document| document.committed);
            (committed && inner.documents.get(&current).is_some_and(|document| document.ready)).then_some(())
        });
        if ready.await?.is_none() {
            return Ok(None);
        }
        let (failed, url) = self.state.with(|inner| {
            let url = inner.main_frame().map(|frame| frame.unreachable.clone().unwrap_or_else(|| frame.url.clone()));
            (inner.error_page(), url)
        });
        if let Some(denial) = url.and_then(|url| self.state.guard.denied_connection(&url)) {
            return Err(BrowserError::Denied(denial));
        }
        if let Some(failed) = failed {
            return Err(self.behind_the_tunnel(failed));
        }
        let patience = deadline.min(Instant::now() + LOAD_GRACE);
        let loaded = self.state.until(patience, |inner| {
            let current = inner.main_frame()?.loader.clone();
            inner.documents.get(&current).is_some_and(|document| document.loaded).then(|| inner.landed()).flatten()
        });
        match loaded.await? {
            Some(landed) => Ok(Some(landed)),
            None => Ok(self.state.with(|inner| inner.landed())),
        }
    }

    fn not_loaded(&self, url: &str, loader: Option<&str>, error_text: String) -> BrowserError {
        let kept_from = self.state.with(|inner| inner.kept_from.clone());
        if let Some(denial) = kept_from.or_else(|| self.state.guard.denied_connection(url)) {
            return BrowserError::Denied(denial);
        }
        let url = url.to_owned();
        if error_text == "net::ERR_ABORTED" {
            let document = self
                .state
                .with(|inner| loader.and_then(|loader| inner.documents.get(loader).cloned()))
                .unwrap_or_default();
            match document.status {
                Some(204 | 205) => return BrowserError::NoContent { url },
                _ if document.download => return BrowserError::Download { url },
                _ => {}
            }
        }
        self.behind_the_tunnel(BrowserError::NavigationFailed { url, error_text })
    }

    /// Chrome knows only that the proxy gave it no tunnel; the proxy knows why.
    fn behind_the_tunnel(&self, failed: BrowserError) -> BrowserError {
        match failed {
            BrowserError::NavigationFailed { url, error_text } => {
                let error_text = self.why_unreached(&url, error_text);
                BrowserError::NavigationFailed { url, error_text }
            }
            other => other,
        }
    }

    /// What stands behind an error of Chrome's at `url`.
    pub(super) fn why_unreached(&self, url: &str, error_text: String) -> String {
        let why = (error_text == NO_TUNNEL).then(|| self.state.guard.why_unreached(url)).flatten();
        why.map_or(error_text, str::to_owned)
    }
}

impl Inner {
    /// The failure that Chrome's own page in the main frame stands for, if it is such a page.
    fn error_page(&self) -> Option<BrowserError> {
        let frame = self.main_frame()?;
        let document = self.documents.get(&frame.loader);
        if let Some(error_text) = document.and_then(|document| document.unreached.clone()) {
            return Some(BrowserError::NavigationFailed { url: frame.url.clone(), error_text });
        }
        let url = frame.unreachable.clone()?;
        let error = document.and_then(|document| document.error.clone());
        Some(BrowserError::NavigationFailed { url, error_text: error.unwrap_or_else(|| "net::ERR_FAILED".to_owned()) })
    }

    /// Where the main frame is.
    pub(super) fn landed(&self) -> Option<Landed> {
        let frame = self.main_frame()?;
        let document = self.documents.get(&frame.loader).cloned().unwrap_or_default();
        Some(Landed {
            url: frame.url.clone(),
            status: document.status,
            retry_after: document.retry_after(),
            mime_type: document.mime_type,
            loader_id: frame.loader.clone(),
            loaded: document.loaded,
        })
    }
}

fn may_be_opened(url: &str) -> bool {
    url == "about:blank" || Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}
