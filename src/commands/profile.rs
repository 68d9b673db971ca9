//! `pagehand site add … --profile`, `pagehand site profile`, and the profile that `pagehand inspect --profile` prints.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use super::Usage;
use crate::automation::forms::{FormKind, Role};
use crate::automation::inspect::{Inspection, role_name};
use crate::site::profile::{ROLES, SiteProfile};

/// The text of a profile file, checked.
///
/// # Errors
/// [`Usage`] with everything that is wrong with it.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    SiteProfile::parse(&text).map_err(|error| {
        let problems: Vec<String> = error.0.iter().map(|problem| format!("{}: {problem}", path.display())).collect();
        Usage(problems.join("\n"))
    })?;
    Ok(text)
}

/// A profile to start from: what the classifier found, pinned.
pub fn draft(page: &str, inspection: &Inspection) -> String {
    let mut out = format!(
        "# {}\n# Take out what is found without it; see config/site-profile.toml for every key.\n",
        page.replace('\n', " ")
    );
    for (section, kind) in [("comment", FormKind::Comment), ("registration", FormKind::Signup)] {
        let forms = inspection.forms.iter().filter(|found| found.form.kind == kind && found.form.seen);
        let Some(found) = forms.max_by(|a, b| a.form.confidence.total_cmp(&b.form.confidence)) else { continue };
        let form = &found.form;
        let _ = writeln!(out, "\n[{section}]\nform = {}", quoted(&form.selector));
        if let Some(button) = &form.submit {
            let _ = writeln!(out, "submit = {}", quoted(&button.selector));
        }
        let _ = writeln!(out, "# success = [\"…\"]\n# waiting = [\"…\"]\n# failure = [\"…\"]\n\n[{section}.fields]");
        let mut pinned: Vec<Role> = Vec::new();
        for field in &form.fields {
            let name = role_name(field.role);
            if (field.usable || field.role == Role::Honeypot) && ROLES.contains(&name) && !pinned.contains(&field.role)
            {
                pinned.push(field.role);
                let _ = writeln!(out, "{name} = {}", quoted(&field.selector));
            }
        }
        for field in form.fields.iter().filter(|field| field.usable && field.required && field.role == Role::Other) {
            let label = field.label.replace(['\n', '\r'], " ");
            let _ = writeln!(
                out,
                "\n# “{label}” is required and unknown.\n[[{section}.extra]]\nselector = {}\nvalue = \"\"",
                quoted(&field.selector)
            );
        }
    }
    if inspection.captcha.is_some() {
        out.push_str("\n# A CAPTCHA stands before a form. Where the site lets testers through:\n# [tester]\n# captcha_passes = true\n");
    }
    out
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
