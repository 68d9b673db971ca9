//! Looks for the form: behind overlays and folds, behind a button or a link that brings it, further down, and a little
//! later. How long depends on the page: where nothing is left to come, not at all.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::super::forms::{Dictionary, Form, FormKind, Role, Words};
use super::super::look::{FrameView, View, scroll_through, wait_for_fields};
use super::super::{Context, failed, obstacles};
use super::Plan;
use crate::browser::ElementRef;
use crate::failure::{Failure, FailureReason};

/// A page with scripts on which nothing has moved and nothing was loaded for so long has drawn what it draws.
const QUIET_MS: f64 = 1_300.0;
/// Most things that are pressed to bring the form.
const MOST_PRESSED: usize = 6;
/// Most frames in which something to press is looked for.
const MOST_FRAMES: usize = 6;

/// Something that can be pressed, or followed.
#[derive(Debug, Deserialize)]
struct Way {
    handle: u32,
    css: String,
    text: String,
    /// Where it leads, if that is another page.
    href: Option<String>,
}

/// How far a page has come with drawing itself.
#[derive(Debug, Deserialize)]
struct Progress {
    loaded: bool,
    /// It has scripts that may draw something.
    scripts: bool,
    /// It shows that something is still to come.
    promises: bool,
    /// Milliseconds since it was loaded, last loaded something, or last changed since it is watched.
    quiet: f64,
}

/// The form to work with in this step, and its frame: the surest of its kind, else, in a later step, one that asks for
/// what is not filled yet.
pub(super) fn chosen<'v>(view: &'v View, plan: &Plan<'_>, done: &[Role]) -> Option<(&'v FrameView, &'v Form)> {
    if done.is_empty() {
        return view.best(plan.kind);
    }
    let forms = view.frames.iter().flat_map(|frame| frame.forms.iter().map(move |form| (frame, form)));
    let asks = |form: &Form| asks_for_more(form, plan, done);
    forms.filter(|(_, form)| asks(form) > 0).max_by_key(|(_, form)| (form.kind == plan.kind, asks(form)))
}

/// How many fields a form has for values that no earlier step has filled.
pub(super) fn asks_for_more(form: &Form, plan: &Plan<'_>, done: &[Role]) -> usize {
    let values = plan.values.iter().filter(|(role, value)| !value.is_empty() && !done.contains(role));
    values.filter(|(role, _)| form.field(*role).is_some_and(|field| !field.filled)).count()
}

/// Gives the page with the form on it.
///
/// # Errors
/// Why there is none.
pub(super) async fn find(ctx: &Context, plan: &Plan<'_>, done: &[Role]) -> Result<View, Failure> {
    let deadline = Instant::now() + ctx.limits.appear;
    let mut view = ctx.look().await?;
    // From here on it is known how long nothing has moved.
    let mut watched = chosen(&view, plan, done).is_none();
    if watched {
        progress(ctx, plan.kind).await?;
    }
    view = obstacles::clear_overlays(ctx, view, plan.kind).await?;
    let mut pressed: Vec<String> = Vec::new();
    let mut followed = false;
    let mut scrolled = false;
    loop {
        if chosen(&view, plan, done).is_some() {
            return Ok(view);
        }
        let missing = (plan.missing)(&view);
        let hopeless = matches!(missing.reason, FailureReason::Blocked | FailureReason::CaptchaPresent);
        let said_no = missing.reason == FailureReason::CommentFormNotFound && missing.code != "comments.no_form";
        if hopeless || said_no || Instant::now() >= deadline {
            return Err(missing);
        }
        if !watched {
            watched = true;
            progress(ctx, plan.kind).await?;
        }
        let (press, follow) = ways(ctx, &view, plan.kind, &pressed).await?;
        if let Some((element, css, text)) = press.filter(|_| pressed.len() < MOST_PRESSED) {
            pressed.push(css);
            // What can't be pressed is not the way; the form may still come by itself.
            let clicked = ctx.tab.click(&element, Duration::from_secs(2)).await;
            ctx.note("pressed_for_form", json!({ "text": text, "clicked": clicked.is_ok() }));
            wait_for_fields(&ctx.tab, &view, Duration::from_millis(800)).await;
        } else if let Some(url) = follow.filter(|_| !followed) {
            followed = true;
            watched = false;
            let landed = ctx.open("follow_link", &url).await?;
            if let Some(failure) = obstacles::refused(ctx, &landed).await {
                return Err(failure);
            }
            view = obstacles::clear_overlays(ctx, ctx.look().await?, plan.kind).await?;
            continue;
        } else if !scrolled {
            scrolled = true;
            scroll_through(&ctx.tab).await;
        } else {
            let progress = progress(ctx, plan.kind).await?;
            let over = progress.loaded && !progress.promises && (!progress.scripts || progress.quiet >= QUIET_MS);
            if over {
                return Err(missing);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            wait_for_fields(&ctx.tab, &view, left.min(next_look(&progress))).await;
        }
        view = ctx.look().await?;
        if !view.main().page.overlays.is_empty() {
            view = obstacles::clear_overlays(ctx, view, plan.kind).await?;
        }
    }
}

/// How long until it is worth looking again, if no field comes before: as soon as nothing has moved for long enough, where
/// nothing else is waited for.
fn next_look(progress: &Progress) -> Duration {
    let most = 500.0;
    let rest = if progress.loaded && !progress.promises { QUIET_MS - progress.quiet } else { most };
    Duration::from_millis(rest.clamp(50.0, most) as u64)
}

/// What may be pressed to bring the form, and which page may have it instead. A link is followed only within the site
/// of the task.
async fn ways(
    ctx: &Context,
    view: &View,
    kind: FormKind,
    pressed: &[String],
) -> Result<(Option<(ElementRef, String, String)>, Option<String>), Failure> {
    const WAYS: &str = r"(ph) => {
      const near = 'button,[role=button],[role=tab],[role=menuitem],summary,a,label[for],[onclick],[tabindex],[class*=tab i],[class*=comment i],[class*=reply i],[class*=more i],[class*=register i],[class*=signup i]';
      const found = [];
      for (const el of ph.deepQueryAll(near)) {
        if (found.length >= 400) break;
        const text = (el.innerText || el.getAttribute('aria-label') || el.title || el.value || '').replace(/\s+/g, ' ').trim();
        if (!text || text.length > 70 || el.querySelector('input,textarea,select,form,h1,h2,p,article,section') || el.closest('dialog:not([open])')) continue;
        if (!el.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || !el.getClientRects().length || el.matches(':disabled')) continue;
        // What belongs to a form with fields in it sends that form.
        const form = el.closest('form');
        if (form && form.querySelector('input:not([type=hidden]),textarea') && el.matches('button:not([type=button]),input[type=submit],input[type=image]')) continue;
        const link = el.closest('a[href]');
        const raw = link ? link.getAttribute('href') : '';
        const leads = link && /^https?:$/.test(link.protocol) && !raw.startsWith('#') && link.href.split('#')[0] !== location.href.split('#')[0] && !link.matches('[role=button],[role=tab]');
        found.push({ handle: ph.keep(el), css: ph.css(el), text: text.toWellFormed(), href: leads ? link.href : null });
      }
      return found;
    }";
    let dictionary = Dictionary::standard();
    let meaning = match kind {
        FormKind::Signup => "kind.signup",
        _ => "sign.reveal_comments",
    };
    let mut follow = None;
    for frame in view.frames.iter().take(MOST_FRAMES) {
        let main = frame.frame.parent.is_none();
        let ways: Result<Vec<Way>, _> = ctx.tab.call(&frame.frame.id, WAYS, &[], ctx.limits.look).await;
        let ways = match ways {
            Ok(ways) => ways,
            Err(error) if main => return Err(failed(error)),
            // A frame that is going away has nothing to press.
            Err(_) => continue,
        };
        for way in ways {
            let words = Words::of_text(&way.text);
            let brings = words.count() <= 7 && dictionary.in_text(meaning, &words) > 0;
            let unfolds = main && words.count() <= 5 && dictionary.in_text("sign.unfold", &words) > 0;
            match way.href {
                Some(href) if brings && follow.is_none() && in_site(&href, &ctx.task.site) => follow = Some(href),
                Some(_) => {}
                None if (brings || unfolds) && !pressed.contains(&way.css) => {
                    return Ok((Some((frame.element(way.handle), way.css, way.text)), follow));
                }
                None => {}
            }
        }
    }
    Ok((None, follow))
}

fn in_site(href: &str, site: &str) -> bool {
    url::Url::parse(href).is_ok_and(|url| url.origin().ascii_serialization() == site)
}

async fn progress(ctx: &Context, kind: FormKind) -> Result<Progress, Failure> {
    const PROGRESS: &str = r"(ph, about) => {
      if (!ph.still) {
        const loaded = performance.getEntriesByType('navigation')[0]?.loadEventEnd;
        ph.still = { since: loaded || performance.now() };
        new MutationObserver(() => { ph.still.since = performance.now(); }).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      }
      const theirs = new RegExp(about, 'i');
      const scripts = [...document.scripts].filter(script => !script.type || /javascript|module/i.test(script.type));
      const shown = el => el.checkVisibility({ visibilityProperty: true }) && el.getClientRects().length > 0;
      const names = el => `${el.id} ${el.getAttribute('class') ?? ''} ${el.localName}`;
      const draws = text => /set(Timeout|Interval)|requestIdleCallback|IntersectionObserver|fetch\(|XMLHttpRequest|customElements/.test(text) && /form|textarea|input|innerHTML|append|insert|comment/i.test(text);
      const promises = [...document.querySelectorAll('[aria-busy=true],[class*=spinner i],[class*=loading i],[class*=loader i],[class*=skeleton i],[id*=loading i]')].some(shown)
        || [...document.querySelectorAll('div,section,main,aside,iframe')].some(el => theirs.test(names(el)) && shown(el) === (el.localName === 'iframe') && (el.innerText ?? '').trim().length < 40 && !el.querySelector('input,textarea'))
        || [...document.querySelectorAll('p,div,span')].some(el => el.childElementCount === 0 && /^(loading|please wait|wird geladen|chargement|cargando|caricamento|carregando|laden|ładowanie|загрузка|読み込み中|加载中)/i.test(el.textContent.trim()) && shown(el))
        || scripts.some(script => script.src ? theirs.test(script.src) : theirs.test(script.text) || draws(script.text));
      return { loaded: document.readyState === 'complete', scripts: scripts.length > 0, promises: promises && scripts.length > 0, quiet: performance.now() - Math.max(ph.still.since, ...performance.getEntriesByType('resource').slice(-300).map(one => one.responseEnd)) };
    }";
    let about = match kind {
        FormKind::Signup => "signup|sign-up|register|registration|auth-|account|^app |^root ",
        _ => {
            "comment|disqus|discuss|respond|isso|remark42|giscus|utteranc|cusdis|hyvor|commento|talkyard|coral|graphcomment"
        }
    };
    let main = ctx.tab.main_frame();
    ctx.tab.call(&main, PROGRESS, &[json!(about)], ctx.limits.look).await.map_err(failed)
}
