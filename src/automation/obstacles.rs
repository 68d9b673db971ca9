//! What stands between us and a form: CAPTCHAs, overlays, block pages, closed comments, frames that can't be reached.
//!
//! An overlay is something that is hit in place of the page. It is told by what it says and by its structure what it wants
//! (consent, an address for a newsletter, an age); where there is a choice it is declined, else closed, else accepted. What
//! stays is only an obstacle if it lies over the form.
//!
//! A CAPTCHA is never touched: it ends the attempt before anything is filled in.

use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::json;

use super::forms::{Description, Dictionary, Field, Form, Role};
use super::look::{FrameView, View};
use super::{Context, failed};
use crate::browser::Landed;
use crate::failure::mapper::{TextKind, map_status, map_text};
use crate::failure::{Failure, FailureReason};

mod overlays;

pub(super) use overlays::in_the_way;
pub use overlays::{OverlayKind, clear_overlays, overlay_kind, ways_out};

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

/// Which CAPTCHA guards `form`, if one does: `recaptcha`, `hcaptcha`, `turnstile` or `other`.
pub fn captcha_of(page: &Description, form: &Form) -> Option<String> {
    let own = page.captchas.iter().find(|found| found.form == Some(form.index));
    let loose = page.captchas.iter().find(|found| found.form.is_none() && (found.shown || found.tag == "script"));
    let asked = form.fields.iter().any(|field| field.usable && (field.role == Role::Captcha || asks_a_person(field)));
    own.or(loose).map(|found| found.kind.clone()).or_else(|| asked.then(|| "other".to_owned()))
}

/// Whether a field asks what only a person is supposed to know: a sum in words, a question against spam.
fn asks_a_person(field: &Field) -> bool {
    static ASKS: LazyLock<Regex> = LazyLock::new(|| {
        let sum = r"\d{1,3}\s*(?:\+|-|−|–|\*|×|x|÷|plus|minus|times|mal|durch|fois|moins|más|menos|por|più|meno|mais|vezes|plus|min|keer|razy|плюс|минус|умножить на|プラス|加|더하기)\s*\d{1,3}";
        let spam = r"anti-?spam|spam ?(?:check|schutz|protection|question|prüfung)|security question|sicherheitsfrage|sicherheitsabfrage|question de sécurité|pregunta de seguridad|domanda di sicurezza|are you (?:a )?(?:human|robot)|prove (?:that )?you(?:'re| are) (?:a )?human|bist du ein mensch|êtes-vous (?:un )?humain|проверка на спам|вы не робот|защита от спама";
        Regex::new(&format!("(?i){sum}|{spam}")).expect("the pattern is a constant")
    });
    let line = field.tag == "input" && matches!(field.kind.as_str(), "text" | "number" | "tel");
    line && field.role == Role::Other && ASKS.is_match(&field.label)
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

/// Why the first answer is no: its status, and what its page says beyond that.
pub async fn refused(ctx: &Context, landed: &Landed) -> Option<Failure> {
    let by_status = refused_by_status(landed)?;
    // A number alone does not tell a challenge from a ban.
    if !matches!(landed.status, Some(403 | 405 | 406 | 409 | 429 | 444 | 503 | 999)) {
        return Some(by_status);
    }
    let said = ctx.look().await.ok().and_then(|view| turned_away(&view));
    let retry_after = by_status.retry_after;
    Some(
        said.filter(|said| !matches!(said.code.as_ref(), "block.page" | "block.rate_limit" | "form.flood"))
            .map_or(by_status, |said| said.after(retry_after)),
    )
}

/// Whether the whole page turns us away, though its status is a good one: a block page, a "prove you are human" page. Only
/// asked where the page has no form of the kind that is wanted.
pub fn turned_away(view: &View) -> Option<Failure> {
    let page = &view.main().page;
    let captcha = view.frames.iter().flat_map(|frame| &frame.page.captchas).find(|captcha| captcha.shown);
    let said = map_text(&format!("{}\n{}", page.title, page.text), Some(TextKind::Page))?;
    let turned_away = matches!(said.reason, FailureReason::Blocked | FailureReason::CaptchaPresent);
    match captcha {
        // A page that only asks whether one is human: a person can get past that.
        Some(captcha) if turned_away && said.code == "block.page" && page.text_length < 1_500 => {
            Some(captcha_present(&captcha.kind))
        }
        _ => turned_away.then_some(said),
    }
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
    // What nobody sees hides nothing from a person, unless it lies over the whole page.
    const unseen = node => { let opacity = 1; for (let at = node; at; at = up(at)) opacity *= parseFloat(getComputedStyle(at).opacity || '1'); return opacity < 0.06; };
    if (hit && hit.matches('input,textarea,select') && unseen(hit)) continue;
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
