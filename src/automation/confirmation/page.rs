//! What a page on the way to a confirmed address asks for, and what it says. Pure: a view in, findings out.

use crate::automation::forms::{ButtonFacts, Dictionary, Field, Form, FormKind, Role, Words};
use crate::automation::look::{FrameView, View};
use crate::automation::verdict::{Shown, saying};

/// What a page asks for.
pub(super) enum Asked<'a> {
    /// A password of one's own.
    Password(&'a FrameView, &'a Form),
    /// The code from the mail.
    Code(&'a FrameView, &'a Form),
    /// A press on a button that confirms.
    Confirm(&'a FrameView, &'a ButtonFacts),
    /// Nothing.
    Nothing,
}

/// What a page says of the address or the account.
pub(super) enum Says {
    /// Confirmed, in these words.
    Confirmed(String),
    /// Not confirmed: the link or code is none any more, in these words.
    Refused(String),
    /// Nothing of the kind.
    Nothing,
}

/// Whether a form asks for a code.
pub(super) fn asks_for_code(view: &View) -> bool {
    view.frames.iter().flat_map(|frame| &frame.forms).any(|form| !code_fields(form).is_empty())
}

/// The fields of a form into which the code goes: one, or one for each of its characters.
pub(super) fn code_fields(form: &Form) -> Vec<&Field> {
    form.fields.iter().filter(|field| field.usable && field.role == Role::OneTimeCode).collect()
}

pub(super) fn asked<'a>(view: &'a View, code: bool) -> Asked<'a> {
    let forms = || view.frames.iter().flat_map(|frame| frame.forms.iter().map(move |form| (frame, form)));
    if let Some((frame, form)) = forms().find(|(frame, form)| sets_password(frame, form)) {
        return Asked::Password(frame, form);
    }
    if code && let Some((frame, form)) = forms().find(|(_, form)| !code_fields(form).is_empty()) {
        return Asked::Code(frame, form);
    }
    view.frames
        .iter()
        .find_map(|frame| confirm_button(frame).map(|button| Asked::Confirm(frame, button)))
        .unwrap_or(Asked::Nothing)
}

/// A form that wants a password and does not want to know whose.
fn sets_password(frame: &FrameView, form: &Form) -> bool {
    let wants = |role: Role| form.fields.iter().any(|field| field.usable && field.role == role);
    if !wants(Role::Password) || form.kind == FormKind::Comment {
        return false;
    }
    let whose = form.fields.iter().any(|field| {
        field.usable && !field.filled && matches!(field.role, Role::Username | Role::Email | Role::FullName)
    });
    if whose {
        return false;
    }
    let new = frame.page.fields.iter().any(|field| {
        field.form == Some(form.index) && field.autocomplete.split_whitespace().any(|token| token == "new-password")
    });
    let dictionary = Dictionary::standard();
    let facts = frame.page.forms.get(form.index);
    let near =
        facts.map(|facts| format!("{} {} {}", facts.before, facts.headings.join(" "), facts.text)).unwrap_or_default();
    let button = form.submit.as_ref().map(|button| button.text.as_str()).unwrap_or_default();
    wants(Role::PasswordConfirm) || new || dictionary.says("sign.set_password", &format!("{near} {button}"))
}

/// A button that says it confirms, and does not belong to a form that wants something typed.
fn confirm_button(frame: &FrameView) -> Option<&ButtonFacts> {
    let dictionary = Dictionary::standard();
    let typed = |button: &ButtonFacts| {
        frame.forms.iter().any(|form| {
            Some(form.index) == button.form
                && form.fields.iter().any(|field| {
                    field.usable
                        && !field.filled
                        && !matches!(field.kind.as_str(), "checkbox" | "radio" | "submit" | "button")
                })
        })
    };
    let confirms = |button: &&ButtonFacts| {
        let text = if button.text.is_empty() { &button.label } else { &button.text };
        let words = Words::of_text(text);
        button.hidden.is_empty()
            && !button.disabled
            && words.count() <= 6
            && dictionary.in_text("button.confirm", &words) > 0
            && !typed(button)
    };
    frame.page.buttons.iter().find(confirms)
}

/// What the page says that it did not say before. `beyond_link`: a password was set, so that this counts as well.
pub(super) fn says(before: &Shown, after: &Shown, password_set: bool) -> Says {
    let news = after.news(before);
    let notices: Vec<String> =
        after.notices.iter().map(|(text, _)| text.clone()).filter(|text| news.contains(text)).collect();
    let confirmed = |lines: &[String]| {
        let said = saying(lines, "sign.confirmed").or_else(|| saying(lines, "sign.registered"));
        said.or_else(|| password_set.then(|| saying(lines, "sign.password_set")).flatten()).map(str::to_owned)
    };
    // What stands where sites put their messages counts before the rest of the page.
    for lines in [&notices, &news] {
        if let Some(words) = saying(lines, "sign.link_refused") {
            return Says::Refused(words.to_owned());
        }
        if let Some(words) = confirmed(lines) {
            return Says::Confirmed(words);
        }
    }
    match saying(&news, "sign.logged_in") {
        Some(words) => Says::Confirmed(words.to_owned()),
        None => Says::Nothing,
    }
}
