//! Understands a page: `describe.js` turns each frame into a compact [`Description`] with one call, and [`classify`]
//! turns that into forms, their kinds and the roles of their fields, with the reasons.
//!
//! The classifier is pure: no I/O, no names of particular sites or programs. What it knows of words is in
//! `forms/dictionary.toml`, how much each piece of evidence counts in `forms/weights.toml`. A form is recognised by what
//! it asks for and what it says, so it is found too where the attributes are random or missing.
//!
//! How it can go wrong: a page in a language the dictionary lacks is judged by structure alone; a trap that is laid over
//! by another element is only seen when the fields are hit-tested, right before they are filled (`obstacles`).

use serde::Serialize;
use serde_json::{Value, json};

mod description;
mod dictionary;
mod fields;
mod kinds;

pub use description::*;
pub use dictionary::{Dictionary, Words, normalise, split_identifier};
pub use fields::Role;
pub use kinds::{Evidence, FormKind};

use fields::Guess;
use kinds::FormParts;

/// The JavaScript function that describes a frame; its argument is [`describe_signs`].
pub const DESCRIBE: &str = include_str!("forms/describe.js");

/// What [`DESCRIBE`] looks for beside forms: selectors of CAPTCHA widgets by kind.
pub fn describe_signs(captchas: &[(String, String)]) -> Value {
    let captchas: Vec<Value> = captchas.iter().map(|(kind, css)| json!({"kind": kind, "css": css})).collect();
    json!({ "captchas": captchas })
}

/// A form, understood.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Form {
    /// Index into [`Description::forms`].
    pub index: usize,
    /// What it is for.
    pub kind: FormKind,
    /// 0 to 1.
    pub confidence: f64,
    /// Selector of its element; ` >>> ` steps into a shadow root.
    pub selector: String,
    /// Handle of its element, in the frame that was described.
    #[serde(skip)]
    pub handle: u32,
    /// Whether it is a `<form>`, not a group of fields without one.
    pub is_form: bool,
    /// Where it is sent, resolved; empty where it does not say.
    pub action: String,
    /// Whether a person sees it.
    pub seen: bool,
    /// Its fields in document order.
    pub fields: Vec<Field>,
    /// What sends it.
    pub submit: Option<Control>,
    /// The evidence for its kind, heaviest first.
    pub reasons: Vec<String>,
    /// All that is true of it, by name, whatever it counts: what the weights are fitted to.
    #[serde(skip)]
    pub evidence: Evidence,
}

/// A field, understood.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// What it wants.
    pub role: Role,
    /// Selector of its element.
    pub selector: String,
    /// Handle of its element.
    #[serde(skip)]
    pub handle: u32,
    /// How much speaks for the role; above 5 is plain.
    pub score: f64,
    /// Whether it is seen, enabled and no trap: only such a field may be filled.
    pub usable: bool,
    /// Whether it can't be filled in now and is no trap: of a form that is folded away, of a later step, one that the
    /// browser may fill.
    pub later: bool,
    /// By what means it is hidden.
    pub hidden: Vec<String>,
    /// `input`, `textarea`, `select`, `editable` or `listbox`.
    pub tag: String,
    /// Type of an input.
    #[serde(rename = "type")]
    pub kind: String,
    /// What a person would call it.
    pub label: String,
    /// Whether the site insists on it.
    pub required: bool,
    /// Whether it holds something already.
    pub filled: bool,
    /// Most characters it takes.
    pub max: Option<u32>,
    /// The evidence for its role.
    pub reasons: Vec<String>,
}

/// A button.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// Selector of its element.
    pub selector: String,
    /// Handle of its element.
    #[serde(skip)]
    pub handle: u32,
    /// What is written on it.
    pub text: String,
    /// Can't be pressed now.
    pub disabled: bool,
}

impl Form {
    /// The field of `role` that may be filled, if there is one.
    pub fn field(&self, role: Role) -> Option<&Field> {
        self.fields.iter().find(|field| field.usable && field.role == role)
    }
}

/// The forms of a frame, in document order.
pub fn classify(page: &Description) -> Vec<Form> {
    (0..page.forms.len()).filter_map(|index| understand(page, index)).collect()
}

/// The form of `kind` to work with: one that a person sees, the surest, on a tie the one with more known fields.
pub fn best(forms: &[Form], kind: FormKind) -> Option<&Form> {
    let known = |form: &Form| form.fields.iter().filter(|f| f.usable && f.role != Role::Other).count();
    let rank = |form: &Form| (form.confidence * 20.0).round() / 20.0;
    forms
        .iter()
        .filter(|form| form.kind == kind && form.seen)
        .max_by(|a, b| rank(a).total_cmp(&rank(b)).then(known(a).cmp(&known(b))).then(b.index.cmp(&a.index)))
}

/// Fields and buttons of a form; none where it has no field.
fn parts(page: &Description, index: usize) -> Option<(Vec<Guess<'_>>, Vec<&ButtonFacts>)> {
    let mut guesses: Vec<Guess<'_>> =
        page.fields.iter().filter(|field| field.form == Some(index)).map(Guess::of).collect();
    if guesses.is_empty() {
        return None;
    }
    clear_common_tabindex(&mut guesses);
    fields::compare(&mut guesses);
    Some((guesses, page.buttons.iter().filter(|button| button.form == Some(index)).collect()))
}

fn understand(page: &Description, index: usize) -> Option<Form> {
    let (guesses, buttons) = parts(page, index)?;
    let facts = &page.forms[index];
    let judged =
        kinds::judge(&FormParts { page, form: facts, fields: guesses.iter().collect(), buttons: buttons.clone() });
    finish_form(page, index, guesses, buttons, judged)
}

/// The form as one to sign up with, if it has a button of its own for that: some sites log in and make accounts with the
/// same fields.
pub fn read_as_signup(page: &Description, index: usize) -> Option<Form> {
    let (guesses, buttons) = parts(page, index)?;
    let dictionary = Dictionary::standard();
    let sends = |button: &&&ButtonFacts| matches!(button.kind.as_str(), "submit" | "image") && button.hidden.is_empty();
    let says = |kind: &str, button: &ButtonFacts| {
        let text = if button.text.is_empty() { &button.label } else { &button.text };
        dictionary.says_mostly(kind, text)
    };
    let signs_up = |button: &&&ButtonFacts| says("kind.signup", button) && !says("kind.login", button);
    buttons.iter().filter(sends).find(signs_up)?;
    let facts = &page.forms[index];
    let mut judged =
        kinds::judge(&FormParts { page, form: facts, fields: guesses.iter().collect(), buttons: buttons.clone() });
    judged.kind = FormKind::Signup;
    judged.reasons.insert(0, "a button of its own to sign up with".to_owned());
    finish_form(page, index, guesses, buttons, judged)
}

fn finish_form(
    page: &Description,
    index: usize,
    mut guesses: Vec<Guess<'_>>,
    buttons: Vec<&ButtonFacts>,
    judged: kinds::Judgement,
) -> Option<Form> {
    let facts = &page.forms[index];
    let kind = judged.kind;
    fields::settle(&mut guesses, kind);
    let parts = FormParts { page, form: facts, fields: guesses.iter().collect(), buttons };
    let submit = kinds::submit_button(&parts, Some(kind)).map(|button| {
        let text = if button.text.is_empty() { button.label.clone() } else { button.text.clone() };
        Control { selector: button.css.clone(), handle: button.h, text, disabled: button.disabled }
    });
    Some(Form {
        index,
        kind,
        confidence: judged.sure,
        selector: facts.css.clone(),
        handle: facts.h,
        is_form: facts.is_form,
        action: facts.action.clone(),
        seen: guesses.iter().any(|guess| guess.usable),
        fields: guesses.iter().map(|guess| finish(guess, fields::later(guess, &guesses, kind))).collect(),
        submit,
        reasons: judged.reasons,
        evidence: judged.evidence,
    })
}

/// Where every field of a form is out of the tab order, that is the page's habit and no trap.
fn clear_common_tabindex(guesses: &mut [Guess<'_>]) {
    let only_tabindex = |guess: &Guess<'_>| guess.facts.hidden == ["tabindex"];
    if guesses.iter().all(|guess| guess.facts.hidden.iter().any(|why| why == "tabindex")) {
        for guess in guesses.iter_mut().filter(|guess| only_tabindex(guess)) {
            let (role, score) =
                guess.scores.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or((Role::Other, 0.0), |(r, s)| (*r, *s));
            (guess.role, guess.score, guess.seen) = (role, score, true);
            guess.usable = !guess.facts.disabled && !guess.facts.readonly && role != Role::Honeypot;
        }
    }
}

fn finish(guess: &Guess<'_>, later: bool) -> Field {
    let facts = guess.facts;
    let label = facts.labels.iter().map(|label| &label.text);
    let label = label.chain([&facts.aria, &facts.placeholder, &facts.name]).find(|text| !text.is_empty());
    Field {
        role: guess.role,
        selector: facts.css.clone(),
        handle: facts.h,
        score: guess.score,
        usable: guess.usable,
        later,
        hidden: facts.hidden.clone(),
        tag: facts.tag.clone(),
        kind: facts.kind.clone(),
        label: label.map(|text| text.chars().take(80).collect()).unwrap_or_default(),
        required: facts.required,
        filled: facts.filled && !asks_to_choose(facts),
        max: facts.max,
        reasons: guess.reasons.clone(),
    }
}

/// Whether a drawn list shows that nothing is chosen yet.
fn asks_to_choose(facts: &FieldFacts) -> bool {
    facts.tag == "listbox" && Dictionary::standard().says_mostly("sign.choose", &facts.value)
}

#[cfg(test)]
mod tests;
