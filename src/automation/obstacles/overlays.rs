//! What lies over a page: what it wants, and how to be rid of it.

use std::time::Duration;

use serde_json::json;

use super::super::forms::{ButtonFacts, Dictionary, FormKind, OverlayFacts, Words};
use super::super::look::View;
use super::super::{Context, failed};
use crate::browser::{ElementRef, FrameId};
use crate::failure::Failure;

/// So long the button that closes an advertisement may take to come.
const CROSS_COMES: Duration = Duration::from_secs(4);

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
pub(in crate::automation) fn in_the_way(overlay: &OverlayFacts, wanted: &[usize]) -> bool {
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
        let words = Words::of_text(text);
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
    // An overlay is tried again when it has other buttons than before.
    let mut tried: Vec<(String, usize)> = Vec::new();
    for _ in 0..4 {
        let main = view.main();
        let ours: Vec<usize> = main.forms.iter().filter(|form| form.kind == wanted).map(|form| form.index).collect();
        let todo: Vec<&OverlayFacts> = main
            .page
            .overlays
            .iter()
            .filter(|overlay| {
                in_the_way(overlay, &ours) && !tried.contains(&(overlay.css.clone(), overlay.buttons.len()))
            })
            .collect();
        if todo.is_empty() {
            break;
        }
        let mut gone = false;
        for overlay in todo {
            tried.push((overlay.css.clone(), overlay.buttons.len()));
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
        leave_by_itself(ctx, &main, overlay, kind).await
    })
    .await
}

/// Overlays without a button go away with the escape key, or by a press beside them; the cross of others comes after some
/// seconds. What has to be answered is not left that way.
async fn leave_by_itself(
    ctx: &Context,
    main: &FrameId,
    overlay: &OverlayFacts,
    kind: OverlayKind,
) -> Result<bool, Failure> {
    const LEAVE: &str = r"async (ph, overlay) => {
      const el = ph.get(overlay);
      const gone = () => !el?.isConnected || !el.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || !el.getClientRects().length;
      const drawn = () => new Promise(resolve => setTimeout(resolve, 120));
      if (gone()) return true;
      const dialog = el.matches('dialog') ? el : el.querySelector('dialog[open]');
      if (dialog?.requestClose) { dialog.requestClose(); await drawn(); if (gone()) return true; }
      const key = kind => new KeyboardEvent(kind, { key: 'Escape', code: 'Escape', keyCode: 27, which: 27, bubbles: true, cancelable: true, composed: true });
      const focused = el.contains(document.activeElement) ? document.activeElement : el;
      for (const kind of ['keydown', 'keyup']) focused.dispatchEvent(key(kind));
      await drawn();
      if (gone()) return true;
      // Only where the overlay itself is what lies beside the box in its middle.
      const hit = document.elementFromPoint(4, innerHeight - 4);
      if (hit === el || (hit && el.contains(hit) && hit.childElementCount === 0 && !hit.innerText?.trim())) {
        for (const kind of ['pointerdown', 'mousedown', 'pointerup', 'mouseup', 'click']) hit.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true, composed: true, clientX: 4, clientY: innerHeight - 4 }));
        await drawn();
      }
      return gone();
    }";
    const MORE: &str = r"(ph, overlay, buttons) => { const el = ph.get(overlay); return !el || !el.checkVisibility({ visibilityProperty: true }) || ph.deepQueryAll('button,[role=button],a', el).filter(one => one.getClientRects().length).length !== buttons ? true : null; }";
    const COUNT: &str = r"(ph, overlay) => { const el = ph.get(overlay); return el ? ph.deepQueryAll('button,[role=button],a', el).filter(one => one.getClientRects().length).length : 0; }";
    if matches!(kind, OverlayKind::Consent | OverlayKind::Age) {
        return Ok(false);
    }
    let left: bool = ctx.tab.call(main, LEAVE, &[json!(overlay.h)], ctx.limits.look).await.map_err(failed)?;
    if left || kind == OverlayKind::Other {
        return Ok(left);
    }
    let buttons: u32 = ctx.tab.call(main, COUNT, &[json!(overlay.h)], ctx.limits.look).await.map_err(failed)?;
    let more: Option<bool> =
        ctx.tab.wait_for(main, MORE, &[json!(overlay.h), json!(buttons)], CROSS_COMES).await.map_err(failed)?;
    Ok(more.is_some())
}
