//! What stands between us and a form: CAPTCHAs, overlays, block pages, closed comments, frames that can't be reached.
//!
//! An overlay is something that is hit in place of the page. It is told by what it says and by its structure what it wants
//! (consent, an address for a newsletter, an age); where there is a choice it is declined, else closed, else accepted. What
//! stays is only an obstacle if it lies over the form.
//!
//! A CAPTCHA is never touched: it ends the attempt before anything is filled in.

use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::forms::{ButtonFacts, Description, Dictionary, Form, FormKind, OverlayFacts, Role};
use super::look::{FrameView, View};
use super::{Context, failed};
use crate::browser::{ElementRef, Landed};
use crate::failure::mapper::{TextKind, map_status, map_text};
use crate::failure::{Failure, FailureReason};

/// Selectors of CAPTCHA widgets, by kind.
pub fn captcha_signs() -> &'static [(String, String)] {
    #[derive(Deserialize)]
    struct File {
        captcha: Vec<Rule>,
    }
    #[derive(Deserialize)]
    struct Rule {
        kind: String,
        css: Vec<String>,
    }
    static SIGNS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
        let file: File = toml::from_str(include_str!("obstacles.toml")).expect("the built-in list is valid TOML");
        let rules = file.captcha.into_iter();
        rules.flat_map(|rule| rule.css.into_iter().map(move |css| (rule.kind.clone(), css))).collect()
    });
    &SIGNS
}

/// What an overlay wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayKind {
    /// Consent to cookies and tracking.
    Consent,
    /// A mail address.
    Newsletter,
    /// A statement of age.
    Age,
    /// An account or a subscription.
    Login,
    /// Something else.
    Other,
}

impl OverlayKind {
    /// The name in records and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::Newsletter => "newsletter",
            Self::Age => "age",
            Self::Login => "login",
            Self::Other => "other",
        }
    }
}

/// Which CAPTCHA guards `form`, if one does: `recaptcha`, `hcaptcha`, `turnstile` or `other`.
pub fn captcha_of(page: &Description, form: &Form) -> Option<String> {
    let own = page.captchas.iter().find(|found| found.form == Some(form.index));
    let loose = page.captchas.iter().find(|found| found.form.is_none() && (found.shown || found.tag == "script"));
    let asked = form.fields.iter().any(|field| field.role == Role::Captcha && field.usable);
    own.or(loose).map(|found| found.kind.clone()).or_else(|| asked.then(|| "other".to_owned()))
}

/// The failure for a CAPTCHA of this kind.
pub fn captcha_present(kind: &str) -> Failure {
    let message = format!("a CAPTCHA ({kind}) stands before the form; a person has to look");
    Failure::terminal(FailureReason::CaptchaPresent, format!("captcha.{kind}"), message)
}

/// What the answer to the first request means by itself: a status that says no.
pub fn refused_by_status(landed: &Landed) -> Option<Failure> {
    landed.status.and_then(|status| map_status(status, landed.retry_after))
}

/// Whether the whole page turns us away, though its status is a good one: a block page, a "prove you are human" page. Only
/// asked where the page has no form of the kind that is wanted.
pub fn turned_away(view: &View) -> Option<Failure> {
    let page = &view.main().page;
    let said = map_text(&format!("{}\n{}", page.title, page.text), Some(TextKind::Page))?;
    let turned_away = matches!(said.reason, FailureReason::Blocked | FailureReason::CaptchaPresent);
    turned_away.then_some(said)
}

/// Why a page has no comment form for us, in its own words where it has some.
pub fn no_comment_form(view: &View) -> Failure {
    if let Some(failure) = turned_away(view) {
        return failure;
    }
    for frame in &view.frames {
        let lines = frame.page.notices.iter().map(|notice| notice.text.as_str()).chain(frame.page.text.lines());
        for line in lines.filter(|line| line.len() < 600) {
            let said = map_text(line, Some(TextKind::Page));
            if let Some(said) = said.filter(|said| said.reason == FailureReason::CommentFormNotFound) {
                return said;
            }
        }
    }
    if let Some(failure) = missed_frame(view, "kind.comment", "comment form") {
        return failure;
    }
    let captcha = view.frames.iter().flat_map(|frame| &frame.page.captchas).find(|captcha| captcha.shown);
    if let Some(captcha) = captcha.filter(|_| view.main().page.text_length < 1_500) {
        return captcha_present(&captcha.kind);
    }
    let seen = forms_seen(view);
    Failure::terminal(
        FailureReason::CommentFormNotFound,
        "comments.no_form",
        format!("the page has no comment form; {seen}"),
    )
}

/// A frame that seems to hold the form and can't be looked into.
pub fn missed_frame(view: &View, meaning: &str, what: &str) -> Option<Failure> {
    let dictionary = Dictionary::standard();
    let frames: Vec<_> = view.frames.iter().flat_map(|frame| &frame.page.iframes).collect();
    for (frame, why) in &view.unreachable {
        let element = frames.iter().find(|facts| {
            frame.element.as_deref() == Some(facts.css.as_str())
                || (!frame.name.is_empty() && (facts.name == frame.name || facts.id == frame.name))
                || (!facts.src.is_empty() && frame.url.ends_with(facts.src.as_str()))
        });
        let mut words = format!("{} {}", frame.url, frame.name);
        if let Some(facts) = element {
            words = format!("{words} {} {} {} {} {}", facts.src, facts.title, facts.id, facts.class, facts.ancestry);
        }
        if dictionary.names(meaning, &words) || dictionary.says(meaning, &words) {
            let message =
                format!("the {what} seems to be inside the frame {}, which can't be reached: {why}", frame.url);
            return Some(Failure::terminal(FailureReason::IframeMissed, "frame.unreachable", message));
        }
    }
    None
}

/// What an overlay wants, by its words.
pub fn overlay_kind(overlay: &OverlayFacts) -> OverlayKind {
    let dictionary = Dictionary::standard();
    let names = format!("{} {} {}", overlay.id, overlay.class, overlay.names);
    let text = format!("{} {}", overlay.label, overlay.text);
    let kinds = [
        (OverlayKind::Age, "overlay.age"),
        (OverlayKind::Consent, "overlay.consent"),
        (OverlayKind::Login, "overlay.login"),
        (OverlayKind::Newsletter, "overlay.newsletter"),
    ];
    let said = kinds.iter().find(|(_, meaning)| dictionary.says(meaning, &text));
    let named = || kinds.iter().find(|(_, meaning)| dictionary.names(meaning, &names));
    said.or_else(named).map_or(OverlayKind::Other, |(kind, _)| *kind)
}

/// Whether an overlay is one to get rid of: not the site's own head, not a bar of tools, not the form we came for.
pub(super) fn in_the_way(overlay: &OverlayFacts, wanted: &[usize]) -> bool {
    if overlay.forms.iter().any(|form| wanted.contains(form)) {
        return false;
    }
    match overlay_kind(overlay) {
        OverlayKind::Consent | OverlayKind::Age => !overlay.navigation || overlay.modal,
        OverlayKind::Newsletter | OverlayKind::Login => {
            overlay.modal || overlay.share >= 0.1 || overlay.role.contains("dialog")
        }
        OverlayKind::Other => overlay.modal || (overlay.share >= 0.3 && !overlay.navigation),
    }
}

/// The buttons of an overlay that may take it away, the best first.
pub fn ways_out(overlay_kind: OverlayKind, buttons: &[ButtonFacts]) -> Vec<&ButtonFacts> {
    let dictionary = Dictionary::standard();
    let meanings: &[&str] = match overlay_kind {
        OverlayKind::Consent => &["button.decline", "button.close", "button.accept"],
        OverlayKind::Age => &["button.accept"],
        OverlayKind::Newsletter | OverlayKind::Login | OverlayKind::Other => {
            &["button.close", "button.decline", "button.accept"]
        }
    };
    let leads_away = |button: &ButtonFacts| {
        button.tag == "a"
            && !(button.href.is_empty() || button.href.starts_with('#') || button.href.starts_with("javascript:"))
    };
    let means = |button: &ButtonFacts, meaning: &str| {
        let text = if button.text.is_empty() { &button.label } else { &button.text };
        let words = super::forms::Words::of_text(text);
        let said = words.count() <= 7 && dictionary.in_text(meaning, &words) > 0;
        // A button that is told by its picture alone has only its names.
        said || words.count() == 0
            && dictionary.names(meaning, &format!("{} {} {}", button.id, button.class, button.label))
    };
    let usable: Vec<&ButtonFacts> =
        buttons.iter().filter(|button| button.hidden.is_empty() && !button.disabled && !leads_away(button)).collect();
    let mut out: Vec<&ButtonFacts> = Vec::new();
    for meaning in meanings {
        // Short texts first: "reject all" rather than a sentence in which the word occurs.
        let mut found: Vec<&ButtonFacts> = usable.iter().copied().filter(|button| means(button, meaning)).collect();
        found.sort_by_key(|button| button.text.len());
        out.extend(found.into_iter().filter(|button| !out.iter().any(|other| other.h == button.h)).collect::<Vec<_>>());
    }
    out
}

/// Takes away what lies over the page, as far as it lets itself be taken away, and gives the view after that.
///
/// # Errors
/// The page can't be looked at. An overlay that stays is no error here: see [`check_clear`].
pub async fn clear_overlays(ctx: &Context, mut view: View, wanted: FormKind) -> Result<View, Failure> {
    let mut tried: Vec<String> = Vec::new();
    for _ in 0..3 {
        let main = view.main();
        let ours: Vec<usize> = main.forms.iter().filter(|form| form.kind == wanted).map(|form| form.index).collect();
        let todo: Vec<&OverlayFacts> = main
            .page
            .overlays
            .iter()
            .filter(|overlay| in_the_way(overlay, &ours) && !tried.contains(&overlay.css))
            .collect();
        if todo.is_empty() {
            break;
        }
        let mut gone = false;
        for overlay in todo {
            tried.push(overlay.css.clone());
            gone |= take_away(ctx, &view, overlay).await?;
        }
        if !gone {
            break;
        }
        view = ctx.look().await?;
    }
    Ok(view)
}

async fn take_away(ctx: &Context, view: &View, overlay: &OverlayFacts) -> Result<bool, Failure> {
    const GONE: &str = r"(ph, overlay, button) => {
      const el = ph.get(overlay), pressed = ph.get(button);
      const shown = node => node?.isConnected && node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && node.getClientRects().length > 0;
      if (!shown(el)) return true;
      if (pressed && shown(pressed)) { const r = pressed.getBoundingClientRect(); if (r.bottom > 0 && r.right > 0 && r.top < innerHeight && r.left < innerWidth) return null; }
      const up = node => node.parentElement ?? node.getRootNode?.()?.host ?? null;
      for (let i = 0; i < 64; i++) {
        const hit = document.elementFromPoint(((i % 8) + 0.5) * innerWidth / 8, (Math.floor(i / 8) + 0.5) * innerHeight / 8);
        for (let node = hit; node; node = up(node)) if (node === el) return null;
      }
      return true;
    }";
    let kind = overlay_kind(overlay);
    let mut buttons: Vec<(ElementRef, String)> = ways_out(kind, &overlay.buttons)
        .into_iter()
        .map(|button| (view.main().element(button.h), button.text.clone()))
        .collect();
    if buttons.is_empty() && overlay.iframe {
        let framed = view
            .frames
            .iter()
            .skip(1)
            .filter(|frame| Dictionary::standard().says(&format!("overlay.{}", kind.as_str()), &frame.page.text));
        for frame in framed {
            buttons.extend(
                ways_out(kind, &frame.page.buttons)
                    .into_iter()
                    .map(|button| (frame.element(button.h), button.text.clone())),
            );
        }
    }
    let meta = json!({ "overlay": overlay.css, "kind": kind.as_str(), "share": overlay.share, "text": overlay.text.chars().take(120).collect::<String>(),
        "buttons": buttons.iter().map(|(_, text)| text.as_str()).take(3).collect::<Vec<_>>() });
    let main = view.main().frame.id.clone();
    ctx.step("dismiss_overlay", meta, async {
        // The first is pressed twice if need be: a script that has only just drawn it may not listen yet.
        for (button, text) in buttons.iter().take(1).chain(buttons.iter().take(3)) {
            let clicked = ctx.tab.click(button, Duration::from_secs(3)).await;
            ctx.note("overlay_button", json!({ "button": text, "clicked": clicked.is_ok(), "why_not": clicked.as_ref().err().map(ToString::to_string) }));
            if clicked.is_err() {
                continue;
            }
            // A button in another frame is not known in this one: then only the overlay itself counts.
            let pressed = if button.frame == main { button.handle } else { 0 };
            let args = [json!(overlay.h), json!(pressed)];
            let gone: Option<bool> = match ctx.tab.wait_for(&main, GONE, &args, Duration::from_millis(1500)).await {
                Ok(gone) => gone,
                // The click loaded the page anew: what was on it is gone with it.
                Err(error) if error.to_failure().code == "dom.stale" => Some(true),
                Err(error) => return Err(failed(error)),
            };
            if gone.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}

/// Something that would be hit in place of a control of the form.
#[derive(Debug, Clone, Deserialize)]
struct Covered {
    handle: u32,
    css: String,
    text: String,
    overlay: bool,
}

/// Scrolls each of the elements into view and says what would be hit in its place.
const HIT_TEST: &str = r"(ph, handles) => {
  const found = [];
  const up = el => el.parentElement ?? el.getRootNode?.()?.host ?? null;
  const holds = (outer, el) => { for (let node = el; node; node = up(node)) if (node === outer) return true; return false; };
  for (const handle of handles) {
    const el = ph.get(handle);
    if (!el || !el.isConnected) continue;
    el.scrollIntoView({ block: 'center', inline: 'nearest', behavior: 'instant' });
    const labels = [...(el.labels ?? [])];
    const r = el.getBoundingClientRect();
    let hit = document.elementFromPoint(r.left + r.width / 2, r.top + Math.min(r.height / 2, 40));
    while (hit?.shadowRoot) { const inner = hit.shadowRoot.elementFromPoint(r.left + r.width / 2, r.top + Math.min(r.height / 2, 40)); if (!inner || inner === hit) break; hit = inner; }
    if (!hit || holds(el, hit) || holds(hit, el) || labels.some(label => holds(label, hit) || holds(hit, label))) continue;
    let layer = hit, overlay = false;
    for (let node = hit; node && node !== document.body && !holds(node, el); node = up(node)) {
      layer = node;
      const s = getComputedStyle(node);
      if (s.position === 'fixed' || s.position === 'sticky' || node.localName === 'dialog' || node.getAttribute('aria-modal') === 'true') overlay = true;
      const box = node.getBoundingClientRect();
      if (s.position === 'absolute' && box.width * box.height > innerWidth * innerHeight * 0.3) overlay = true;
    }
    const name = layer.localName + (layer.id ? '#' + layer.id : '') + [...layer.classList].slice(0, 3).map(c => '.' + c).join('');
    found.push({ handle, css: name.slice(0, 200), text: String(layer.innerText ?? '').replace(/\s+/g, ' ').trim().slice(0, 100).toWellFormed(), overlay });
  }
  return found;
}";

/// Whether the controls of a form can be hit. Gives the handles of fields that something else of the form lies over: such a
/// field is a trap and is left alone.
///
/// # Errors
/// `popup_blocking`, naming the overlay, where one lies over a control.
pub async fn check_clear(ctx: &Context, frame: &FrameView, handles: &[u32]) -> Result<Vec<u32>, Failure> {
    let covered: Vec<Covered> =
        ctx.tab.call(&frame.frame.id, HIT_TEST, &[json!(handles)], ctx.limits.look).await.map_err(failed)?;
    if let Some(over) = covered.iter().find(|covered| covered.overlay) {
        return Err(popup_blocking(&over.css, &over.text));
    }
    Ok(covered.into_iter().map(|covered| covered.handle).collect())
}

/// The failure for an overlay that stays where it is.
pub fn popup_blocking(css: &str, text: &str) -> Failure {
    let text = if text.is_empty() { String::new() } else { format!(" (“{text}”)") };
    let message = format!("`{css}`{text} lies over the form and can't be removed");
    Failure::terminal(FailureReason::PopupBlocking, "popup.overlay", message)
}

/// Which forms a page has instead of the one looked for, for a message.
pub fn forms_seen(view: &View) -> String {
    let forms = view.frames.iter().flat_map(|frame| &frame.forms);
    let seen: Vec<String> = forms.map(|form| format!("{} ({})", form.kind.as_str(), form.selector)).collect();
    if seen.is_empty() { "it has no form at all".to_owned() } else { format!("its forms are {}", seen.join(", ")) }
}

#[cfg(test)]
mod tests;
