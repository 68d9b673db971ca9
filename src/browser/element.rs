//! Acting on elements: only when a person could, and with a look afterwards whether it worked.
//!
//! All checks of one action are one call into the page, which repeats them by itself until they hold or time is over;
//! only the mouse is Chrome's own, so that the page sees trusted events with everything that follows from them.

use std::time::Duration;

use chromiumoxide::cdp::browser_protocol::input::{DispatchMouseEventParams, DispatchMouseEventType, MouseButton};
use chromiumoxide::cdp::js_protocol::runtime::CallArgument;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::BrowserError;
use super::frame::Place;
use super::tab::Tab;
use super::types::{ActionCheck, CoveringElement, ElementRef, FrameId};

/// What the page may take over the limit for its answer, before it counts as hung.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// What the page's functions answer.
#[derive(Deserialize)]
pub(super) struct Outcome {
    pub(super) ok: Option<Value>,
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    pub(super) missing: bool,
    differs: Option<String>,
    failed: Option<ActionCheck>,
    #[serde(default)]
    detail: String,
    covering: Option<Box<CoveringElement>>,
}

/// A point in a viewport.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Point {
    #[serde(default)]
    x: f64,
    #[serde(default)]
    y: f64,
    /// It is a form, and there is no point.
    #[serde(default)]
    pub(super) form: bool,
    /// Whether there are frames above that the page could not see into.
    #[serde(default)]
    above: bool,
}

impl Outcome {
    pub(super) fn into_result(self) -> Result<Value, BrowserError> {
        if self.stale {
            return Err(BrowserError::Stale);
        }
        if let Some(detail) = self.differs {
            return Err(BrowserError::NotFilled { detail });
        }
        if let Some(check) = self.failed {
            return Err(BrowserError::NotActionable { check, detail: self.detail, covering: self.covering });
        }
        self.ok.ok_or(BrowserError::Stale)
    }
}

/// Presses into a frame that may get lost before its element is asked to click itself.
const LOST_PRESSES: u32 = 3;
/// How long a new frame is given before it is pressed again; longer with each time.
const FRAME_SETTLES: Duration = Duration::from_millis(60);

impl Tab {
    /// Clicks the middle of the element, once it is visible, still, enabled, in the viewport, and nothing lies over it.
    ///
    /// # Errors
    /// [`BrowserError::NotActionable`] with the check that did not hold until `limit` and the element in the way,
    /// [`BrowserError::Stale`], and those of every call.
    pub async fn click(&self, element: &ElementRef, limit: Duration) -> Result<(), BrowserError> {
        let deadline = self.end_of(limit)?;
        self.unless_faulty(self.click_until(element, deadline)).await
    }

    /// Replaces the text of an input, a textarea or something contenteditable, as typing would, and sees that it is there.
    ///
    /// # Errors
    /// As [`Tab::click`]; [`BrowserError::NotFilled`] when the field holds something else afterwards.
    pub async fn fill(&self, element: &ElementRef, text: &str, limit: Duration) -> Result<(), BrowserError> {
        let deadline = self.end_of(limit)?;
        let text = [json!(text)];
        let fill = self.act(element, "(ph, n, limit, text) => ph.fill(n, text, limit)", &text, deadline);
        self.unless_faulty(fill).await.map(drop)
    }

    /// Ticks or unticks a checkbox or whatever plays one, or chooses a radio button: by a click on it, on its label
    /// where the control itself is hidden by its styling, else by the control's own means.
    ///
    /// # Errors
    /// As [`Tab::click`]; [`BrowserError::NotFilled`] when it did not change.
    pub async fn set_checked(&self, element: &ElementRef, checked: bool, limit: Duration) -> Result<(), BrowserError> {
        let deadline = self.end_of(limit)?;
        self.unless_faulty(self.set_checked_until(element, checked, deadline)).await
    }

    async fn set_checked_until(
        &self,
        element: &ElementRef,
        checked: bool,
        deadline: Instant,
    ) -> Result<(), BrowserError> {
        let is_checked = || async {
            let now = self.act(element, "(ph, n) => ph.checked(n)", &[], deadline).await?;
            Ok::<bool, BrowserError>(now == "yes")
        };
        if is_checked().await? == checked {
            return Ok(());
        }
        let soon = deadline.min(Instant::now() + Duration::from_millis(400));
        let mut clicked = self.click_until(element, soon).await;
        if matches!(clicked, Err(BrowserError::NotActionable { .. })) {
            let args = [json!(element.handle)];
            let label: Option<u32> =
                self.call_until(&element.frame, "(ph, n) => ph.labelOf(n)", &args, deadline).await?;
            if let Some(handle) = label {
                let label = ElementRef { frame: element.frame.clone(), handle };
                let soon = deadline.min(Instant::now() + Duration::from_millis(400));
                clicked = self.click_until(&label, soon).await;
            }
        }
        if matches!(clicked, Err(BrowserError::NotActionable { .. })) || is_checked().await? != checked {
            self.act(element, "(ph, n) => ph.press(n)", &[], deadline).await?;
        }
        if is_checked().await? == checked {
            return Ok(());
        }
        let detail = if checked { "it can't be ticked" } else { "it can't be unticked" };
        Err(BrowserError::NotFilled { detail: detail.to_owned() })
    }

    pub(super) async fn click_until(&self, element: &ElementRef, deadline: Instant) -> Result<(), BrowserError> {
        let mut lost = 0;
        loop {
            let aim = self.aim(element, false, deadline).await?;
            match self.press(element, aim, deadline).await {
                // Chrome has not yet learnt where the frame of another process lies.
                Err(BrowserError::NotActionable { covering: None, .. }) if lost < LOST_PRESSES => {
                    lost += 1;
                    tokio::time::sleep(FRAME_SETTLES * lost).await;
                }
                Err(BrowserError::NotActionable { covering: None, .. }) => {
                    let click = "(ph, n) => { const element = ph.get(n); if (element) element.click(); }";
                    return match self.call_until::<()>(&element.frame, click, &[json!(element.handle)], deadline).await
                    {
                        Err(BrowserError::Navigated) => Ok(()),
                        done => done,
                    };
                }
                // It moved away between the look and the press, which was stopped: once more from the beginning.
                Err(BrowserError::NotActionable { .. }) if Instant::now() < deadline => {}
                done => return done,
            }
        }
    }

    /// Waits until the element can be clicked; where, in the viewport of the main frame. From then on the page stops a
    /// press that would go elsewhere. With `forms`, a form is not aimed at.
    pub(super) async fn aim(
        &self,
        element: &ElementRef,
        forms: bool,
        deadline: Instant,
    ) -> Result<Point, BrowserError> {
        let aim = "(ph, n, limit, forms) => ph.aim(n, limit, forms)";
        let found = self.act(element, aim, &[json!(forms)], deadline).await?;
        let mut point: Point = serde_json::from_value(found)
            .map_err(|error| BrowserError::Decode { what: "a point".to_owned(), message: error.to_string() })?;
        let mut frame = element.frame.clone();
        while point.above {
            // Into the frame element's own document, frame by frame; documents of one origin go in one step there.
            let (parent, crossed) = self.outer_frame(&frame)?;
            let place = self.place(&parent, deadline).await?;
            let owner = self.owner_of(&crossed, &place, deadline).await?;
            point = self.carry_out(&place, owner, point, deadline).await?;
            frame = parent;
        }
        Ok(point)
    }

    async fn carry_out(
        &self,
        place: &Place,
        owner: CallArgument,
        point: Point,
        deadline: Instant,
    ) -> Result<Point, BrowserError> {
        let out = "(ph, owner, x, y) => { \
             const here = ph.place(owner, x, y); \
             if (here.failed) return here; \
             const out = ph.outward(here.x, here.y); \
             return out.failed ? out : { ok: out }; }";
        let number = |value: f64| CallArgument::builder().value(json!(value)).build();
        let arguments = vec![owner, number(point.x), number(point.y)];
        let outcome: Outcome = self.run(place, out, arguments, deadline).await?;
        let value = outcome.into_result()?;
        serde_json::from_value(value)
            .map_err(|error| BrowserError::Decode { what: "a point".to_owned(), message: error.to_string() })
    }

    /// The nearest frame around `frame` whose document `frame`'s can't see into, and the frame it is seen as there.
    fn outer_frame(&self, frame: &FrameId) -> Result<(FrameId, FrameId), BrowserError> {
        self.state.with(|inner| {
            let mut crossed = frame.as_str().to_owned();
            loop {
                let parent = inner.frames.get(&crossed).and_then(|known| known.parent.clone());
                let Some(parent) = parent else {
                    return Err(BrowserError::FrameUnreachable { why: "its parent is not known".to_owned() });
                };
                let origin = |id: &str| {
                    let url = inner.frames.get(id).map(|known| known.url.as_str())?;
                    url::Url::parse(url).ok().map(|url| url.origin()).filter(url::Origin::is_tuple)
                };
                let (inside, outside) = (origin(&crossed), origin(&parent));
                if inside.is_none() || inside != outside {
                    return Ok((FrameId(parent), FrameId(crossed)));
                }
                crossed = parent;
            }
        })
    }

    /// Presses and releases the mouse there; the page stops the press when it would not go to the element.
    pub(super) async fn press(
        &self,
        element: &ElementRef,
        point: Point,
        deadline: Instant,
    ) -> Result<(), BrowserError> {
        let page = self.page()?;
        let mouse = |kind| {
            let mut event = DispatchMouseEventParams::new(kind, point.x, point.y);
            if !matches!(event.r#type, DispatchMouseEventType::MouseMoved) {
                event.button = Some(MouseButton::Left);
                event.click_count = Some(1);
            }
            page.send(&event).of::<IgnoredAny>()
        };
        let moved = mouse(DispatchMouseEventType::MouseMoved);
        let pressed = mouse(DispatchMouseEventType::MousePressed);
        let released = mouse(DispatchMouseEventType::MouseReleased);
        let started = Instant::now();
        for event in [moved, pressed, released] {
            match event.until(deadline).await {
                Ok(_) => {}
                Err(late @ BrowserError::Unresponsive { .. }) => return Err(self.hung_or(&page, started, late).await),
                // The click closed or replaced the page that would have answered.
                Err(BrowserError::TargetGone { .. } | BrowserError::Protocol { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let seen = "(ph) => ({ ok: ph.pressed ? ph.pressed() : true })";
        let hit: Result<Outcome, _> = self.call_until(&element.frame, seen, &[], deadline).await;
        match hit.map(|outcome| outcome.ok) {
            // What was pressed says who it was when it was not the element.
            Ok(Some(other)) if other.is_object() => {
                let covering: Option<Box<CoveringElement>> = serde_json::from_value(other).ok();
                let what = covering.as_ref().map_or("something", |covering| covering.css.as_str());
                let detail = format!("the press went to {what}");
                Err(BrowserError::NotActionable { check: ActionCheck::ReceivesEvents, detail, covering })
            }
            // No press came to the frame, or no click of it. In the main frame that only says that the page keeps it from us.
            Ok(hit) if element.frame != self.main && hit.as_ref().is_none_or(Value::is_string) => {
                let detail = "the press did not arrive in the frame".to_owned();
                Err(BrowserError::NotActionable { check: ActionCheck::ReceivesEvents, detail, covering: None })
            }
            // Also when the page has gone on to another document: the click did what it should.
            Ok(_) | Err(BrowserError::Navigated | BrowserError::FrameUnreachable { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Calls one of the page's functions with the element's number and the time it has.
    pub(super) async fn act(
        &self,
        element: &ElementRef,
        function: &str,
        more: &[Value],
        deadline: Instant,
    ) -> Result<Value, BrowserError> {
        self.act_raw(element, function, more, deadline).await?.into_result()
    }

    pub(super) async fn act_raw(
        &self,
        element: &ElementRef,
        function: &str,
        more: &[Value],
        deadline: Instant,
    ) -> Result<Outcome, BrowserError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut args = vec![json!(element.handle), json!(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))];
        args.extend_from_slice(more);
        match self.call_until(&element.frame, function, &args, deadline + ANSWER_GRACE).await {
            Err(BrowserError::Navigated) => Err(BrowserError::Stale),
            done => done,
        }
    }
}
