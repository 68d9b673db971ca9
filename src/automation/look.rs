//! Looks at the page: all its frames, described and understood, and the whole text that is shown.

use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::forms::{self, Description, Form, FormKind};
use super::{Context, failed, obstacles, pins};
use crate::browser::{ElementRef, Frame, FrameId, Tab};
use crate::failure::Failure;

/// Most frames that are looked into: advertising puts dozens on a page.
const MAX_FRAMES: usize = 64;
/// Frames that are asked at the same time.
const FRAMES_AT_ONCE: usize = 8;

/// The page at one moment.
#[derive(Debug)]
pub struct View {
    /// Frames that could be looked into, the main frame first.
    pub frames: Vec<FrameView>,
    /// Frames that could not, and why.
    pub unreachable: Vec<(Frame, String)>,
}

/// One frame at one moment.
#[derive(Debug)]
pub struct FrameView {
    /// The frame.
    pub frame: Frame,
    /// What is there.
    pub page: Description,
    /// What it means.
    pub forms: Vec<Form>,
}

impl View {
    /// The main frame.
    pub fn main(&self) -> &FrameView {
        &self.frames[0]
    }

    /// The form of `kind` to work with, and its frame: the surest of all frames; the main frame's where they are alike.
    pub fn best(&self, kind: FormKind) -> Option<(&FrameView, &Form)> {
        let found = self.frames.iter().rev().filter_map(|view| Some((view, forms::best(&view.forms, kind)?)));
        found.max_by(|a, b| (a.1.confidence * 10.0).round().total_cmp(&(b.1.confidence * 10.0).round()))
    }
}

impl View {
    /// Reads a form to log in with that has another button to make an account of the same fields as what it also is.
    fn read_combined(&mut self) {
        for frame in &mut self.frames {
            for at in 0..frame.forms.len() {
                let combined = frame.forms[at].seen && frame.forms[at].kind == FormKind::Login;
                if let Some(form) =
                    combined.then(|| forms::read_as_signup(&frame.page, frame.forms[at].index)).flatten()
                {
                    frame.forms[at] = form;
                }
            }
        }
    }
}

impl FrameView {
    /// An element of this frame.
    pub fn element(&self, handle: u32) -> ElementRef {
        ElementRef { frame: self.frame.id.clone(), handle }
    }
}

/// The text of the page, in all frames that can be looked into.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct PageText {
    /// Address of the main frame.
    pub url: String,
    /// Title of the main frame.
    pub title: String,
    /// All text that is shown; fields' contents are not part of it.
    pub text: String,
}

/// Gives a document's text, open shadow roots included; argument: the most characters to give.
const TEXT: &str = r#"(ph, max) => {
  let text = String(document.body?.innerText ?? '');
  // What stands in an editor is typed, not shown: like the contents of any other field it does not count.
  for (const el of document.querySelectorAll('[contenteditable=""],[contenteditable="true"],[contenteditable="plaintext-only"]')) if (el.innerText?.trim()) text = text.replace(el.innerText.trim(), () => ' ');
  for (const el of ph.deepQueryAll('*')) {
    if (text.length > max) break;
    if (el.shadowRoot) for (const child of el.shadowRoot.children) if (!/^(style|script|template)$/i.test(child.localName)) text += '\n' + (child.innerText ?? child.textContent ?? '');
  }
  if (text.length > max) text = text.slice(0, max / 2) + '\n' + text.slice(-max / 2);
  return { url: location.href, title: document.title.slice(0, 300).toWellFormed(), text: text.toWellFormed() };
}"#;

/// Describes and understands every frame; `limit` is for one of them.
///
/// # Errors
/// The main frame can't be looked into.
pub async fn look(tab: &Tab, limit: Duration) -> Result<View, Failure> {
    let signs = forms::describe_signs(obstacles::captcha_signs());
    let mut view = View { frames: Vec::new(), unreachable: Vec::new() };
    let frames = tab.frames().await.map_err(failed)?;
    let looks = futures::stream::iter(frames.into_iter().take(MAX_FRAMES)).map(|frame| {
        let signs = std::slice::from_ref(&signs);
        async move {
            let page: Option<Result<Description, _>> = match frame.reachable {
                true => Some(tab.call(&frame.id, forms::DESCRIBE, signs, limit).await),
                false => None,
            };
            (frame, page)
        }
    });
    let mut looks = looks.buffered(FRAMES_AT_ONCE).enumerate();
    while let Some((i, (frame, page))) = looks.next().await {
        match page {
            Some(Ok(page)) => {
                let forms = forms::classify(&page);
                view.frames.push(FrameView { frame, page, forms });
            }
            Some(Err(error)) if i == 0 => return Err(failed(error)),
            Some(Err(error)) => view.unreachable.push((frame, error.to_string())),
            None => {
                let why = frame.error.clone().unwrap_or_else(|| "it can't be looked into".to_owned());
                view.unreachable.push((frame, why));
            }
        }
    }
    if view.frames.is_empty() {
        let message = "the page has no document that can be looked into";
        return Err(Failure::retryable(crate::failure::FailureReason::Unknown, "page.no_document", message));
    }
    Ok(view)
}

/// Has everything drawn that waits until it comes into view: the page is gone through from top to bottom.
pub async fn scroll_through(tab: &Tab) {
    const SCROLL: &str = r"async (ph) => {
      const drawn = () => new Promise(resolve => { requestAnimationFrame(() => requestAnimationFrame(resolve)); setTimeout(resolve, 80); });
      const step = Math.max(300, innerHeight * 0.8);
      for (let y = 0, n = 0; n < 24 && y < document.documentElement.scrollHeight; y += step, n++) { scrollTo({ top: y, behavior: 'instant' }); await drawn(); }
      scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' });
      await drawn();
      return true;
    }";
    // Only a help for lazy pages: what it is for is looked for again in any case.
    let _: Result<bool, _> = tab.call(&tab.main_frame(), SCROLL, &[], Duration::from_secs(4)).await;
}

/// Waits until the page has more or fewer fields or frames than `view` shows, or `limit` is over.
pub async fn wait_for_fields(tab: &Tab, view: &View, limit: Duration) {
    const MORE: &str = "(ph, fields, frames) => ph.deepQueryAll('input:not([type=hidden]),textarea,select,[contenteditable=\"true\"]').length !== fields || document.querySelectorAll('iframe').length !== frames ? true : null";
    let main = view.main();
    let args = [json!(main.page.fields.len()), json!(main.page.iframes.len())];
    let _: Result<Option<bool>, _> = tab.wait_for(&main.frame.id, MORE, &args, limit).await;
}

impl Context {
    /// Describes and understands every frame, with what is pinned for the site laid over it.
    ///
    /// # Errors
    /// The main frame can't be looked into.
    pub async fn look(&self) -> Result<View, Failure> {
        let mut view = look(&self.tab, self.limits.look).await?;
        pins::apply(self, &mut view).await?;
        if self.task.task_type == "registration" && view.best(FormKind::Signup).is_none() {
            view.read_combined();
        }
        Ok(view)
    }

    /// All text that the page shows.
    ///
    /// # Errors
    /// The main frame can't be read.
    pub async fn read_text(&self) -> Result<PageText, Failure> {
        let main = self.tab.main_frame();
        let mut page: PageText =
            self.tab.call(&main, TEXT, &[json!(600_000)], self.limits.look).await.map_err(failed)?;
        let inner =
            self.tab.known_frames().into_iter().filter(|frame| frame.id != main && frame.reachable).take(MAX_FRAMES);
        let inner = futures::stream::iter(inner).map(|frame| async move {
            self.tab.call::<PageText>(&frame.id, TEXT, &[json!(100_000)], self.limits.look).await
        });
        let mut inner = inner.buffered(FRAMES_AT_ONCE);
        while let Some(text) = inner.next().await {
            if let Ok(inner) = text {
                page.text.push('\n');
                page.text.push_str(&inner.text);
            }
        }
        // What a message box said is said by the page, too.
        for said in self.tab.dialog_texts() {
            page.text.push('\n');
            page.text.push_str(&said);
        }
        Ok(page)
    }

    /// Waits until the text of a frame is another than that of `length` UTF-16 units, or `limit` is over.
    pub async fn text_changes(&self, frame: &FrameId, length: u64, limit: Duration) {
        const CHANGED: &str =
            "(ph, length) => document.body && document.body.innerText.length !== length ? true : null";
        // A frame that went away meanwhile has changed too.
        let _: Result<Option<bool>, _> = self.tab.wait_for(frame, CHANGED, &[Value::from(length)], limit).await;
    }
}
