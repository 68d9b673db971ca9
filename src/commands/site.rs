//! `pagehand site`.

use anyhow::Context;

use super::{Database, Usage, plain, print_json, print_line, profile, table};
use crate::cli::{RobotsRule, SiteArgs, SiteCommand};
use crate::config::Config;
use crate::queue::Queue;
use crate::record::rfc3339;
use crate::site::{Manners, NewEnrolment, Origin, Robots, check_public, not_enrolled};

/// Enrols, lists or removes sites.
///
/// # Errors
/// [`Usage`] for an origin that is none, or that is private without `--allow-private`; else Postgres is away.
pub async fn run(config: Config, args: SiteArgs) -> anyhow::Result<()> {
    let SiteArgs { command, json } = args;
    let usage = |problem: String| Usage(format!("ORIGIN: {problem}"));
    match command {
        SiteCommand::Add {
            origin,
            authorized_by,
            until,
            allow_private,
            max_concurrency,
            per_minute,
            task_types,
            contact,
            quiet_hours,
            robots,
            profile,
        } => {
            let origin: Origin = origin.parse().map_err(usage)?;
            if authorized_by.trim().is_empty() {
                return Err(Usage("--authorized-by is empty; name who allowed Pagehand to act there".into()).into());
            }
            if until.is_some_and(|until| until <= chrono::Utc::now()) {
                return Err(Usage("--until is in the past; name a day to come".into()).into());
            }
            if !allow_private {
                check_public(&origin).await.map_err(usage)?;
            }
            let source = profile.as_deref().map(profile::read).transpose()?;
            let site = NewEnrolment {
                origin,
                authorized_by,
                authorized_until: until,
                allow_private,
                max_concurrency,
                per_minute,
                task_types: Some(task_types).filter(|types| !types.is_empty()),
                manners: Manners {
                    contact,
                    quiet_hours,
                    robots: match robots {
                        RobotsRule::Respect => Robots::Respect,
                        RobotsRule::Ignore => Robots::Ignore,
                    },
                },
            };
            let database = Database::open(&config).await?;
            let added = database.queue.add_site(&site).await;
            let stored = match (&added, &source) {
                (Ok(()), Some(source)) => database.queue.set_profile(&site.origin, source, &site.authorized_by).await,
                _ => Ok(()),
            };
            database.close().await;
            added.context("the site was not enrolled")?;
            stored.context("the site was enrolled, but its profile was not stored")?;
            if json {
                print_json(&serde_json::json!({"enrolled": site.origin}))
            } else {
                print_line(format_args!("{} is enrolled", site.origin))
            }
        }
        SiteCommand::Profile { origin, file } => {
            let origin: Origin = origin.parse().map_err(usage)?;
            let source = file.as_deref().map(profile::read).transpose()?;
            let database = Database::open(&config).await?;
            let done = store_or_show(&database.queue, &origin, source.as_deref()).await;
            database.close().await;
            match done? {
                Some(shown) if json => print_json(&serde_json::json!({"origin": origin, "profile": shown})),
                Some(shown) => print_line(shown.trim_end()),
                None if json => print_json(&serde_json::json!({"profiled": origin})),
                None => print_line(format_args!("the profile of {origin} is stored")),
            }
        }
        SiteCommand::Ls => {
            let database = Database::open(&config).await?;
            let sites = database.queue.sites().await;
            let now = database.queue.now().await;
            database.close().await;
            let (sites, now) = (sites?, now?);
            if json {
                return print_json(&serde_json::json!({"sites": sites}));
            }
            let number = |n: Option<u32>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
            let rows = sites.iter().map(|site| {
                vec![
                    site.origin.to_string(),
                    site.authorized_by.clone(),
                    site.authorized_until.map_or_else(|| "–".to_owned(), rfc3339),
                    if site.allow_private { "yes" } else { "no" }.to_owned(),
                    number(site.max_concurrency),
                    number(site.per_minute),
                    site.manners.quiet_hours.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string),
                    if site.manners.robots == Robots::Ignore { "ignored" } else { "respected" }.to_owned(),
                    site.task_types.as_ref().map_or_else(|| "all".to_owned(), |types| types.join(", ")),
                    match &site.stopped_why {
                        _ if site.check_active(now).is_err() => "expired".to_owned(),
                        Some(why) => format!("stopped: {why}"),
                        None => "open".to_owned(),
                    },
                ]
            });
            print_line(table(
                &[
                    "ORIGIN",
                    "AUTHORIZED BY",
                    "UNTIL",
                    "PRIVATE",
                    "AT ONCE",
                    "A MINUTE",
                    "QUIET",
                    "ROBOTS.TXT",
                    "TASKS",
                    "STATE",
                ],
                rows,
            ))
        }
        SiteCommand::Stop { origin, why } => {
            let origin: Origin = origin.parse().map_err(usage)?;
            let database = Database::open(&config).await?;
            let stopped = database.queue.stop_site(&origin, &operator(), &why).await;
            database.close().await;
            anyhow::ensure!(
                stopped?,
                "{} is not enrolled, or is stopped already; `pagehand site ls` says which",
                plain(origin.as_str())
            );
            if json {
                print_json(&serde_json::json!({"stopped": origin.as_str()}))
            } else {
                print_line(format_args!("{origin} is stopped; `pagehand site resume {origin}` lets its tasks go on"))
            }
        }
        SiteCommand::Resume { origin } => {
            let origin: Origin = origin.parse().map_err(usage)?;
            let database = Database::open(&config).await?;
            let resumed = database.queue.resume_site(&origin, &operator()).await;
            database.close().await;
            anyhow::ensure!(resumed?, "{} is not stopped; `pagehand site ls` lists what is", plain(origin.as_str()));
            if json {
                print_json(&serde_json::json!({"resumed": origin.as_str()}))
            } else {
                print_line(format_args!("{origin} goes on"))
            }
        }
        SiteCommand::Rm { origin } => {
            let origin: Origin = origin.parse().map_err(usage)?;
            let database = Database::open(&config).await?;
            let removed = database.queue.remove_site(&origin, &operator()).await;
            database.close().await;
            anyhow::ensure!(removed?, "{} is not enrolled; `pagehand site ls` lists what is", plain(origin.as_str()));
            if json {
                print_json(&serde_json::json!({"removed": origin.as_str()}))
            } else {
                print_line(format_args!("{origin} is no longer enrolled"))
            }
        }
    }
}

/// Who runs the command, for the audit.
fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    named
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Stores `source`, or gives what is stored.
async fn store_or_show(queue: &Queue, origin: &Origin, source: Option<&str>) -> anyhow::Result<Option<String>> {
    let enrolled =
        queue.enrolment(origin.as_str()).await?.filter(|(site, _)| site.removed_at.is_none() && site.origin == *origin);
    let (site, _) = enrolled.with_context(|| not_enrolled(origin.as_str()))?;
    match source {
        Some(source) => queue.set_profile(origin, source, &site.authorized_by).await.map(|()| None),
        None => queue.profile(origin.as_str()).await.map(|source| Some(source.unwrap_or_default())),
    }
    .context("the profile can't be stored or read")
}
