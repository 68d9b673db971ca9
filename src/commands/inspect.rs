//! `pagehand inspect`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use url::Url;

use super::worker::{browser_settings, egress_limits};
use super::{plain, print_json, print_line, profile, table};
use crate::automation::StepLimits;
use crate::automation::inspect::{InspectedForm, Inspection, inspect, picture, role_name};
use crate::browser::{BrowserPool, EgressPolicy, Tab, TabOptions, ThirdParties};
use crate::cli::InspectArgs;
use crate::config::Config;
use crate::failure::{Failure, FailureReason};
use crate::site::{Origin, Origins, check_public_spelling, is_this_machine};
use crate::worker::user_agent;

mod saved;

pub use saved::SavedPages;

/// Pages that are open at once.
const AT_ONCE: usize = 4;
/// All the time a page gets.
const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// One page's line.
#[derive(Serialize)]
struct Line<'a> {
    url: &'a str,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

/// What every page is inspected with.
struct Inspector {
    browsers: BrowserPool,
    saved: SavedPages,
    options: InspectArgs,
    user_agent: String,
    remote: bool,
    egress: (ThirdParties, u64),
}

/// Opens each page, says what is there and what is in the way, in the order of the arguments.
///
/// # Errors
/// A page could not be inspected; the others were.
pub async fn run(config: Config, args: InspectArgs) -> anyhow::Result<()> {
    let inspector = Inspector {
        browsers: BrowserPool::new(browser_settings(&config)),
        saved: SavedPages::serve().await.context("saved pages can't be served to Chrome")?,
        user_agent: user_agent(config.worker.contact.as_deref()),
        remote: config.browser.endpoint.is_some(),
        egress: egress_limits(&config),
        options: args,
    };
    let printed = inspector.all().await;
    inspector.browsers.shutdown().await;
    let (pages, failed) = printed?;
    anyhow::ensure!(failed == 0, "{failed} of {pages} pages could not be inspected");
    Ok(())
}

impl Inspector {
    /// How many pages there were, and how many failed.
    async fn all(&self) -> anyhow::Result<(usize, usize)> {
        let pages = &self.options.pages;
        let failed = AtomicUsize::new(0);
        let mut results = futures::stream::iter(pages.iter().enumerate())
            .map(|(number, page)| async move { (page, self.page(number, page).await) })
            .buffered(AT_ONCE);
        while let Some((page, result)) = results.next().await {
            failed.fetch_add(usize::from(result.is_err()), Ordering::Relaxed);
            match result {
                Ok(inspection) if self.options.json => print_json(&Line { url: page, inspection: &inspection })?,
                Ok(inspection) if self.options.profile => print_line(profile::draft(page, &inspection))?,
                Ok(inspection) => print_line(readable(page, &inspection))?,
                Err(failure) if self.options.json => print_json(&json!({
                    "url": page, "error": failure.message, "failure_reason": failure.reason, "failure_code": failure.code,
                }))?,
                Err(failure) => print_line(format_args!(
                    "{}\n  failed: {} ({})\n",
                    plain(page),
                    plain(&failure.message),
                    failure.code
                ))?,
            }
        }
        Ok((pages.len(), failed.into_inner()))
    }

    async fn page(&self, number: usize, page: &str) -> Result<Inspection, Failure> {
        let is_url = page.starts_with("http://") || page.starts_with("https://");
        let local = Url::parse(page).ok().filter(|url| url.scheme() == "file").and_then(|url| url.to_file_path().ok());
        let file = local.as_deref().unwrap_or(Path::new(page));
        let saved = if is_url { None } else { Some(self.saved_page(file).await?) };
        let url = saved.as_ref().map_or(page, |saved| saved.url());
        let deadline = Instant::now() + PAGE_LIMIT;
        let policy = self.policy(url)?;
        let options = TabOptions { user_agent: Some(self.user_agent.clone()), proxy: None, policy, deadline };
        let tab = self.browsers.open(options).await.map_err(|error| error.to_failure())?;
        let inspected = self.on_tab(&tab, number, url, is_url).await;
        tab.close().await;
        inspected
    }

    /// A look: anything public may be read, nothing is written. Inside one's own network it is the page's own origin that
    /// may be asked, and that only where the caller says so; all of this very machine where the caller names it.
    fn policy(&self, url: &str) -> Result<EgressPolicy, Failure> {
        let refuse = |problem| Failure::terminal(FailureReason::Unknown, "policy.url_denied", problem);
        let parsed = Url::parse(url).map_err(|error| refuse(format!("`{url}` is no URL ({error})")))?;
        let origin = Origin::of(&parsed).map_err(refuse)?;
        let mut private = Origins::default();
        let here = parsed.host_str().is_some_and(is_this_machine);
        if here {
            // A page of this machine has its frames and scripts on other ports of it.
            private.insert_this_machine();
        }
        if here || self.options.allow_private {
            private.insert(&origin);
        } else {
            check_public_spelling(&origin).map_err(|problem| refuse(problem.replace("enrol it with", "give")))?;
        }
        let (third_parties, max_bytes) = self.egress;
        Ok(EgressPolicy { enrolled: None, third_parties, private: Arc::new(private), max_bytes })
    }

    async fn on_tab(&self, tab: &Tab, number: usize, url: &str, scripted: bool) -> Result<Inspection, Failure> {
        let limits = StepLimits::default();
        let inspection = inspect(tab, url, scripted, &limits).await?;
        if let Some(out) = &self.options.screenshot {
            let png = picture(tab, &inspection, &limits).await?;
            let out = if self.options.pages.len() == 1 { out.clone() } else { numbered(out, number + 1) };
            tokio::fs::write(&out, &png).await.map_err(|error| cannot("write", &out, &error))?;
        }
        Ok(inspection)
    }

    async fn saved_page(&self, path: &Path) -> Result<saved::Saved<'_>, Failure> {
        if self.remote {
            let message = "a file can't be shown to a Chrome that runs elsewhere; unset browser.endpoint";
            return Err(Failure::terminal(FailureReason::Unknown, "input.file", message));
        }
        let content = tokio::fs::read(path).await.map_err(|error| cannot("read", path, &error))?;
        Ok(self.saved.put(path, content))
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let hint = if what == "read" { "; a page is a file or an address with http:// or https://" } else { "" };
    let message = format!("can't {what} {}: {error}{hint}", path.display());
    Failure::terminal(FailureReason::Unknown, "input.file", message)
}

/// `out.png` of the second page is `out-2.png`.
fn numbered(out: &Path, number: usize) -> PathBuf {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let name = match out.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    out.with_file_name(name)
}

fn readable(page: &str, inspection: &Inspection) -> String {
    let mut lines = vec![format!("{}  {}", plain(page), inspection.kind)];
    let mut say = |name: &str, text: &str| lines.push(format!("  {name:<9} {}", plain(text)));
    if inspection.landed.url != page && page.starts_with("http") {
        say("landed", &inspection.landed.url);
    }
    if let Some(failure) = &inspection.blocked {
        say("blocked", &format!("{} ({})", failure.message, failure.code));
    }
    if let Some(captcha) = &inspection.captcha {
        say("captcha", captcha);
    }
    for overlay in &inspection.overlays {
        let out =
            overlay.dismiss.as_ref().map_or("no button to dismiss it".to_owned(), |css| format!("dismissed by {css}"));
        say("overlay", &format!("{} {} ({out}): {}", overlay.kind, overlay.selector, overlay.text));
    }
    for (url, why) in &inspection.unreachable {
        say("unseen", &format!("frame {url}: {why}"));
    }
    lines.extend(inspection.forms.iter().map(readable_form));
    lines.push(String::new());
    lines.join("\n")
}

fn readable_form(found: &InspectedForm) -> String {
    let form = &found.form;
    let place: String = found.frame.iter().map(|frame| format!(" in {frame}")).collect();
    let unseen = if form.seen { "" } else { " (not seen)" };
    let mut lines =
        vec![plain(&format!("  {} {:.3}  {}{place}{unseen}", form.kind.as_str(), form.confidence, form.selector))];
    lines.push(plain(&format!("    because {}", form.reasons.join(", "))));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for field in &form.fields {
        let why = if field.hidden.is_empty() {
            field.reasons.join(", ")
        } else {
            format!("hidden: {}", field.hidden.join(", "))
        };
        let why: String = why.chars().take(140).collect();
        let role = role_name(field.role).to_owned();
        rows.push(vec![format!("    {role}"), field.selector.clone(), field.label.clone(), why]);
    }
    if let Some(button) = &form.submit {
        rows.push(vec!["    submit".to_owned(), button.selector.clone(), button.text.clone(), String::new()]);
    }
    lines.push(table(&["    ROLE", "SELECTOR", "LABEL", "WHY"], rows));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_several_pages_are_numbered_before_the_extension() {
        assert_eq!(numbered(Path::new("a/out.png"), 2), Path::new("a/out-2.png"));
        assert_eq!(numbered(Path::new("out"), 1), Path::new("out-1"));
    }
}
