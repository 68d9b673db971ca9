//! Looks at a page and says what is there, and touches nothing: which forms it has and of which kind, which field is
//! what, and what is in the way. The same eyes and the same judgement that tasks are carried out with, so that what is
//! seen here is what a task would meet on its first look.
//!
//! A task does more: it presses a button that brings the comments, and takes overlays away. So a form that is only drawn
//! after that is not found here; an overlay and the button that would dismiss it are.

use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::forms::{self, Control, Dictionary, Form, FormKind, Role};
use super::look::{self, FrameView, View};
use super::{StepLimits, failed, obstacles};
use crate::browser::{FrameId, Landed, Tab};
use crate::failure::Failure;

/// Kinds that name the page, where it has such a form; the rarer ones first.
const NAMING: [FormKind; 4] = [FormKind::Comment, FormKind::Signup, FormKind::Login, FormKind::Newsletter];
/// Kinds that a task can be there for: for no other one we wait.
const WORTH_WAITING: [FormKind; 3] = [FormKind::Comment, FormKind::Signup, FormKind::Login];
/// A picture higher than this many pixels shows the part with the surest form.
const HIGHEST_PICTURE: f64 = 8_000.0;

/// A page, judged.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Its forms, those of the main frame first, in document order.
    pub forms: Vec<InspectedForm>,
    /// The CAPTCHA that stands before one of its forms, or is the page: `recaptcha`, `hcaptcha`, `turnstile` or `other`.
    pub captcha: Option<String>,
    /// What lies over it and would have to go.
    pub overlays: Vec<Overlay>,
    /// How the site turns us away, if it does.
    #[serde(serialize_with = "message")]
    pub blocked: Option<Failure>,
    /// What the page is for: the kind of its surest form among comment, sign-up, log-in and newsletter; `other` where it
    /// has only others, `none` where it has none.
    pub kind: &'static str,
    /// Address after redirects.
    #[serde(skip)]
    pub landed: Landed,
    /// Addresses of frames that can't be looked into, and why.
    #[serde(skip)]
    pub unreachable: Vec<(String, String)>,
}

/// A form, judged, and where it is.
#[derive(Debug, Clone)]
pub struct InspectedForm {
    /// Selectors of the frame elements around it, the outermost first; empty in the main frame.
    pub frame: Vec<String>,
    /// What it is.
    pub form: Form,
    id: FrameId,
}

/// Something that lies over the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlay {
    /// `consent`, `newsletter`, `age`, `login` or `other`.
    pub kind: &'static str,
    /// Its element.
    pub selector: String,
    /// The beginning of its text.
    pub text: String,
    /// The button that a task would press first to be rid of it.
    pub dismiss: Option<String>,
}

impl Serialize for InspectedForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            kind: FormKind,
            confidence: f64,
            frame: &'a [String],
            selector: &'a str,
            fields: Vec<Field<'a>>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            codes: Vec<&'a str>,
            submit: Option<&'a str>,
        }
        #[derive(Serialize)]
        struct Field<'a> {
            role: &'static str,
            selector: &'a str,
            /// It can't be filled in as the page is now.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            later: bool,
        }
        let form = &self.form;
        Shape {
            kind: form.kind,
            confidence: (form.confidence * 1000.0).round() / 1000.0,
            frame: &self.frame,
            selector: &form.selector,
            fields: self
                .fields()
                .map(|(role, field)| Field { role: role_name(role), selector: &field.selector, later: field.later })
                .collect(),
            codes: self.codes().map(|field| field.selector.as_str()).collect(),
            submit: form.submit.as_ref().map(|button| button.selector.as_str()),
        }
        .serialize(serializer)
    }
}

impl InspectedForm {
    /// Each field that a task would fill or leave alone knowingly, and those it would find once the form is unfolded or a
    /// step further, with what it wants. What a person does not see otherwise, and is no trap, is not there; nor are
    /// [`Self::codes`].
    pub fn fields(&self) -> impl Iterator<Item = (Role, &forms::Field)> {
        let fields = self.listed().filter(|field| !self.awaits_a_code(field));
        fields.map(|field| (self.role(field), field))
    }

    /// Fields that wait for a code which a mail or message brings once the form was sent: nobody can fill them with it.
    pub fn codes(&self) -> impl Iterator<Item = &forms::Field> {
        self.listed().filter(|field| self.awaits_a_code(field))
    }

    fn listed(&self) -> impl Iterator<Item = &forms::Field> {
        self.form.fields.iter().filter(|field| field.usable || field.later || field.role == Role::Honeypot)
    }

    /// A code of an app or a token is there when one logs in; one that proves the address or number that the form asks for
    /// is not there yet.
    fn awaits_a_code(&self, field: &forms::Field) -> bool {
        let form = &self.form;
        let has = |roles: &[Role]| form.fields.iter().any(|field| roles.contains(&field.role));
        let proves = has(&[Role::Email, Role::Phone]) && !has(&[Role::Password]);
        let named = || Dictionary::standard().names("role.email", &field.selector);
        field.role == Role::OneTimeCode && (form.kind == FormKind::Signup || proves || named())
    }

    /// Only a comment has a text that is published, and only who leaves one, or has an account or a wish, gives a site of
    /// their own: elsewhere a task has nothing for either.
    fn role(&self, field: &forms::Field) -> Role {
        let kind = self.form.kind;
        let own_site = matches!(kind, FormKind::Comment | FormKind::Signup | FormKind::Contact);
        match field.role {
            Role::Body if kind != FormKind::Comment => Role::Other,
            Role::Website if !own_site => Role::Other,
            role => role,
        }
    }
}

/// The name of a role in answers: the answer to a CAPTCHA is nothing that anybody here fills.
pub fn role_name(role: Role) -> &'static str {
    if role == Role::Captcha { "other" } else { role.as_str() }
}

fn message<S: Serializer>(failure: &Option<Failure>, serializer: S) -> Result<S::Ok, S::Error> {
    failure.as_ref().map(|failure| failure.message.as_str()).serialize(serializer)
}

/// Opens `url` and judges what is there. Presses, fills and sends nothing. With `patience`, a page without a form that a
/// task could be there for is looked at again for up to [`StepLimits::appear`], and scrolled to its end meanwhile; it
/// takes the page's own scripts to wait.
///
/// # Errors
/// The page did not come, or can't be looked into. A page that turns us away is no error: see [`Inspection::blocked`].
pub async fn inspect(tab: &Tab, url: &str, patience: bool, limits: &StepLimits) -> Result<Inspection, Failure> {
    let landed = tab.goto(url, limits.navigation).await.map_err(failed)?;
    let patience = if patience { limits.appear } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    let mut view = look::look(tab, limits.look).await?;
    while !WORTH_WAITING.iter().any(|kind| view.best(*kind).is_some()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || obstacles::refused_by_status(&landed).is_some() || obstacles::turned_away(&view).is_some()
        {
            break;
        }
        look::scroll_through(tab).await;
        look::wait_for_fields(tab, &view, left.min(Duration::from_millis(1500))).await;
        view = look::look(tab, limits.look).await?;
    }
    Ok(judge(&view, landed))
}

fn judge(view: &View, landed: Landed) -> Inspection {
    let forms: Vec<InspectedForm> = view
        .frames
        .iter()
        .flat_map(|frame| {
            let path = path_to(view, frame);
            frame.forms.iter().map(move |form| InspectedForm {
                frame: path.clone(),
                form: form.clone(),
                id: frame.frame.id.clone(),
            })
        })
        .collect();
    let wanted = |kind: FormKind| view.best(kind).is_some();
    let turned_away = || {
        // On a page that has the form, words like these are somebody's comment.
        let needless = wanted(FormKind::Comment) || wanted(FormKind::Signup);
        if needless { None } else { obstacles::turned_away(view) }
    };
    Inspection {
        captcha: captcha(view),
        overlays: overlays(view),
        blocked: obstacles::refused_by_status(&landed).or_else(turned_away),
        kind: page_kind(&forms),
        landed,
        unreachable: view.unreachable.iter().map(|(frame, why)| (frame.url.clone(), why.clone())).collect(),
        forms,
    }
}

/// Selectors of the frame elements that lead to `frame`, the outermost first.
fn path_to(view: &View, frame: &FrameView) -> Vec<String> {
    let mut path = Vec::new();
    let mut at = Some(frame);
    while let Some(frame) = at {
        // Where Chrome does not name the element, an unusable path is better than one that leads elsewhere.
        let Some(parent) = &frame.frame.parent else { break };
        path.push(frame.frame.element.clone().unwrap_or_else(|| "iframe:not(*)".to_owned()));
        at = view.frames.iter().find(|view| view.frame.id == *parent);
    }
    path.reverse();
    path
}

/// One that guards a form that a task could be there for; else one that a person sees anywhere.
fn captcha(view: &View) -> Option<String> {
    let guarding = view.frames.iter().find_map(|frame| {
        let forms = frame.forms.iter().filter(|form| WORTH_WAITING.contains(&form.kind) && form.seen);
        forms.filter_map(|form| obstacles::captcha_of(&frame.page, form)).next()
    });
    let shown = || {
        let found = view.frames.iter().flat_map(|frame| &frame.page.captchas).find(|captcha| captcha.shown);
        found.map(|captcha| captcha.kind.clone())
    };
    guarding.or_else(shown)
}

fn overlays(view: &View) -> Vec<Overlay> {
    let main = view.main();
    let wanted = [FormKind::Comment, FormKind::Signup];
    let ours: Vec<usize> =
        main.forms.iter().filter(|form| wanted.contains(&form.kind)).map(|form| form.index).collect();
    let in_the_way = main.page.overlays.iter().filter(|overlay| obstacles::in_the_way(overlay, &ours));
    in_the_way
        .map(|overlay| {
            let kind = obstacles::overlay_kind(overlay);
            Overlay {
                kind: kind.as_str(),
                selector: overlay.css.clone(),
                text: overlay.text.chars().take(120).collect::<String>().trim().to_owned(),
                dismiss: obstacles::ways_out(kind, &overlay.buttons).first().map(|button| button.css.clone()),
            }
        })
        .collect()
}

fn page_kind(forms: &[InspectedForm]) -> &'static str {
    match surest(forms) {
        Some(found) => found.form.kind.as_str(),
        None if forms.is_empty() => "none",
        None => "other",
    }
}

/// The form that names the page: the surest. Among those that are as good as alike, the rarer kind: a page has a log-in or
/// a newsletter beside what it is for, not the other way round. What nobody sees comes after what is seen, but for
/// comments, which many sites fold away.
fn surest(forms: &[InspectedForm]) -> Option<&InspectedForm> {
    let rank = |found: &&InspectedForm| {
        let form = &found.form;
        let place = NAMING.iter().position(|kind| *kind == form.kind)?;
        let unseen = i64::from(!form.seen && form.kind != FormKind::Comment);
        Some(((form.confidence * 4.0).round() as i64 - unseen, std::cmp::Reverse((place, form.index))))
    };
    forms.iter().filter(|found| rank(found).is_some()).max_by_key(rank)
}

/// A PNG of the page with its forms and their fields boxed and named. The boxes stay on the page.
///
/// # Errors
/// The page can't be drawn on or pictured.
pub async fn picture(tab: &Tab, inspection: &Inspection, limits: &StepLimits) -> Result<Bytes, Failure> {
    let mut frames: Vec<&FrameId> = inspection.forms.iter().map(|found| &found.id).collect();
    frames.dedup();
    for frame in frames {
        let forms = inspection.forms.iter().filter(|found| found.id == *frame);
        let boxes: Vec<Value> = forms.flat_map(boxes).collect();
        let drawn: Result<bool, _> =
            tab.call(frame, include_str!("inspect/boxes.js"), &[json!(boxes)], limits.look).await;
        if let Err(error) = drawn
            && *frame == tab.main_frame()
        {
            return Err(failed(error));
        }
    }
    let top = surest(&inspection.forms).filter(|found| found.frame.is_empty()).map_or(0, |found| found.form.handle);
    const TOP: &str =
        "(ph, handle) => { const el = ph.get(handle); return el ? el.getBoundingClientRect().top + scrollY : 0; }";
    let top: f64 = tab.call(&tab.main_frame(), TOP, &[json!(top)], limits.look).await.map_err(failed)?;
    tab.picture(top - HIGHEST_PICTURE / 4.0, HIGHEST_PICTURE, limits.snapshot).await.map_err(failed)
}

fn boxes(found: &InspectedForm) -> Vec<Value> {
    let form = &found.form;
    let title = format!("{} {:.0} %", form.kind.as_str(), form.confidence * 100.0);
    let submit =
        form.submit.iter().map(|Control { handle, .. }| json!({"h": handle, "name": "submit", "of": form.kind}));
    let fields = form.fields.iter().filter(|field| field.usable || field.role == Role::Honeypot);
    let fields = fields.map(|field| {
        let of = if field.role == Role::Honeypot { "honeypot" } else { form.kind.as_str() };
        json!({"h": field.handle, "name": role_name(found.role(field)), "of": of})
    });
    let outer = json!({"h": form.handle, "name": title, "of": form.kind, "outer": true});
    std::iter::once(outer).chain(fields).chain(submit).collect()
}
