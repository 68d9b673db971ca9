//! Evidence: the document as text and the picture of it, from a page in whatever state.
//!
//! Never longer than the budget. A page whose scripts run on without end is stopped first; an open dialog has been
//! answered already; a crashed page has nothing to show, and the error says so.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chromiumoxide::cdp::browser_protocol::page::{CaptureScreenshotFormat, CaptureScreenshotParams, Viewport};
use chromiumoxide::cdp::js_protocol::runtime::TerminateExecutionParams;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;

use super::error::BrowserError;
use super::tab::Tab;
use super::types::DomCapture;

/// HTML longer than this many UTF-16 units is cut off in the page, before it crosses to us.
const LONGEST_HTML: u32 = 5_000_000;

#[derive(Deserialize)]
struct Serialised {
    html: String,
    uses: Vec<String>,
    full: u64,
    truncated: bool,
}

#[derive(Deserialize)]
struct Screenshot {
    data: String,
}

/// What Chrome says of a call that was under way when scripts were stopped.
const TERMINATED: &str = "Execution was terminated";

impl Tab {
    /// The document as HTML: present values of fields as attributes (passwords and one-time codes blanked), open shadow
    /// roots as templates, frames of the same origin as `srcdoc`; cut at five million characters. Pictures and style sheets are
    /// in it, within bounds.
    ///
    /// # Errors
    /// [`BrowserError::RendererCrashed`], [`BrowserError::Unresponsive`] and the like: there is nothing to capture then.
    pub async fn dom(&self, budget: Duration) -> Result<DomCapture, BrowserError> {
        let deadline = Instant::now() + budget;
        // None that a page could know, and put in its text.
        let marks = format!("ph-{:032x}-", rand::random::<u128>());
        let args = [json!(LONGEST_HTML), json!(marks)];
        let captured = self.patiently(budget, |deadline| {
            self.call_until::<Serialised>(&self.main, "(ph, cap, marks) => ph.serialise(cap, marks)", &args, deadline)
        });
        let captured = within(deadline, "the document", captured).await?;
        // In a box: it stands below everything that an attempt does, and on the same stack.
        let html = Box::pin(self.with_what_it_shows(&captured.html, &marks, &captured.uses, deadline)).await;
        Ok(DomCapture { html, truncated: captured.truncated, full_bytes: captured.full })
    }

    /// A PNG of the viewport.
    ///
    /// # Errors
    /// As [`Tab::dom`].
    pub async fn screenshot(&self, budget: Duration) -> Result<Bytes, BrowserError> {
        let capture = CaptureScreenshotParams { optimize_for_speed: Some(true), ..CaptureScreenshotParams::default() };
        self.capture(capture, budget).await
    }

    /// A PNG of the page over its whole height, or of `highest` CSS pixels of it from `top` on where it is higher.
    ///
    /// # Errors
    /// As [`Tab::dom`].
    pub async fn picture(&self, top: f64, highest: f64, budget: Duration) -> Result<Bytes, BrowserError> {
        const SIZE: &str = "() => { const doc = document.documentElement; return [Math.max(doc.clientWidth, 1), Math.max(doc.scrollHeight, innerHeight, 1)]; }";
        let until = Instant::now() + budget;
        let (width, height) = self.call_until::<(f64, f64)>(&self.main, SIZE, &[], until).await?;
        let y = top.min(height - highest).max(0.0);
        let clip = Viewport { x: 0.0, y, width, height: height.min(highest), scale: 1.0 };
        let capture = CaptureScreenshotParams {
            clip: Some(clip),
            capture_beyond_viewport: Some(true),
            ..CaptureScreenshotParams::default()
        };
        self.capture(capture, budget).await
    }

    async fn capture(&self, mut capture: CaptureScreenshotParams, budget: Duration) -> Result<Bytes, BrowserError> {
        let deadline = Instant::now() + budget;
        capture.format = Some(CaptureScreenshotFormat::Png);
        let capture = &capture;
        let taken = self.patiently(budget, |deadline| async move {
            let page = self.page()?;
            page.call::<_, Screenshot>(capture, deadline).await
        });
        let taken = within(deadline, "a screenshot", taken).await?;
        let png = STANDARD.decode(taken.data.as_bytes());
        png.map(Bytes::from)
            .map_err(|error| BrowserError::Decode { what: "a screenshot".to_owned(), message: error.to_string() })
    }

    /// Title and address of the page.
    ///
    /// # Errors
    /// As [`Tab::dom`].
    pub async fn title_and_url(&self) -> Result<(String, String), BrowserError> {
        let deadline = Instant::now() + Duration::from_secs(2);
        let title = self.call_until::<String>(&self.main, "() => document.title.slice(0, 1000)", &[], deadline).await?;
        let url = self.state.with(|inner| inner.main_frame().map(|frame| frame.url.clone())).unwrap_or_default();
        Ok((title, url))
    }

    /// `act` with half of the budget; when it is not answered, the page's scripts are stopped and it is done once more.
    async fn patiently<T, F>(&self, budget: Duration, mut act: impl FnMut(Instant) -> F) -> Result<T, BrowserError>
    where
        F: Future<Output = Result<T, BrowserError>>,
    {
        let fault = || match self.state.with(|inner| inner.fault.clone()) {
            // The page still lives with these two, and its picture says more than any message.
            Some(BrowserError::DialogLoop { .. } | BrowserError::TabsLimit { .. }) | None => None,
            fault => fault,
        };
        if let Some(fault) = fault() {
            return Err(fault);
        }
        let started = Instant::now();
        match undisturbed(started + budget / 2, &mut act).await {
            Err(BrowserError::Unresponsive { .. } | BrowserError::PageHung { .. } | BrowserError::Navigated) => {
                let page = self.page()?;
                let stop = Instant::now() + budget / 8;
                if page.call::<_, IgnoredAny>(&TerminateExecutionParams::default(), stop).await.is_ok() {
                    self.state.with(|inner| inner.counters.scripts_stopped += 1);
                }
            }
            done => return done.map_err(|error| fault().unwrap_or(error)),
        }
        undisturbed(started + budget, &mut act).await.map_err(|error| fault().unwrap_or(error))
    }
}

/// `act` until it is not hit by the end of a script that was stopped before it: after each message box too many.
async fn undisturbed<T, F>(until: Instant, act: &mut impl FnMut(Instant) -> F) -> Result<T, BrowserError>
where
    F: Future<Output = Result<T, BrowserError>>,
{
    loop {
        match act(until).await {
            Err(BrowserError::Protocol { message, .. }) if message == TERMINATED && Instant::now() < until => {}
            done => return done,
        }
    }
}

async fn within<T>(
    deadline: Instant,
    what: &str,
    act: impl Future<Output = Result<T, BrowserError>>,
) -> Result<T, BrowserError> {
    let started = Instant::now();
    let late = |_| BrowserError::Unresponsive { method: what.to_owned(), after: started.elapsed() };
    tokio::time::timeout_at(deadline, act).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminated() -> BrowserError {
        BrowserError::Protocol { method: "m".to_owned(), code: -32000, message: TERMINATED.to_owned() }
    }

    #[tokio::test]
    async fn a_capture_that_the_end_of_a_stopped_script_hit_is_taken_again_until_its_time_is_over() {
        let until = Instant::now() + Duration::from_secs(60);
        let mut hits = 0;
        let mut act = |_| {
            hits += 1;
            std::future::ready(if hits > 2 { Ok(hits) } else { Err(terminated()) })
        };
        assert!(matches!(undisturbed(until, &mut act).await, Ok(3)));

        let mut acts = 0;
        let mut act = |_| {
            acts += 1;
            std::future::ready(Err::<(), _>(terminated()))
        };
        let failed = undisturbed(Instant::now(), &mut act).await;
        assert!(matches!(failed, Err(BrowserError::Protocol { .. })) && acts == 1);
    }
}
