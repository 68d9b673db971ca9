//! `pagehand doctor`.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::worker::{browser_settings, open_runs};
use super::{Database, print_json, print_line};
use crate::browser::{BrowserError, BrowserPool, SandboxReport};
use crate::cli::JsonArgs;
use crate::config::Config;
use crate::queue::{Queue, QueueError};

/// How far the clock may be from Postgres' before it is worth a word.
const CLOCK_SKEW: chrono::TimeDelta = chrono::TimeDelta::seconds(2);
const LIMIT: Duration = Duration::from_secs(40);
const USER_NAMESPACES: &str = "allow unprivileged user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1` \
                               (Debian), `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu)";

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What was found.
    found: String,
    /// How to mend it.
    mend: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, found: found.into(), mend: None }
    }

    fn bad(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, ok: false, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Checks everything a worker needs, prints what it found and how to mend what is not right.
///
/// # Errors
/// Something is not right.
pub async fn run(config: Config, args: JsonArgs) -> anyhow::Result<()> {
    let mut checks = check_chrome(&config).await;
    checks.extend(check_postgres(&config).await);
    checks.push(check_runs(&config));
    let bad = checks.iter().filter(|check| !check.ok).count();
    if args.json {
        print_json(&serde_json::json!({"ok": bad == 0, "checks": checks}))?;
    } else {
        for check in &checks {
            print_line(format_args!(
                "{} {:<10} {}",
                if check.ok { "ok  " } else { "FAIL" },
                check.name,
                super::plain(&check.found)
            ))?;
            if let Some(mend) = &check.mend {
                print_line(format_args!("                → {mend}"))?;
            }
        }
    }
    anyhow::ensure!(bad == 0, "{bad} of {} checks failed", checks.len());
    Ok(())
}

async fn check_chrome(config: &Config) -> Vec<Check> {
    let pool = BrowserPool::new(browser_settings(config));
    let install = "install it with `apt-get install chromium-headless-shell`, or set browser.executable";
    let mut checks = Vec::new();
    match timeout(LIMIT, pool.warm_up()).await {
        Err(_) => checks.push(Check::bad("chrome", "did not start in time", "see whether the machine is overloaded")),
        Ok(Err(error)) => {
            let mend = match &error {
                BrowserError::NotInstalled { .. } => install,
                BrowserError::SandboxUnavailable { .. } => USER_NAMESPACES,
                BrowserError::ConnectFailed { .. } => "start the Chrome of browser.endpoint, or unset it",
                _ => "see that this user can write data.dir and start Chrome; or set browser.executable to another",
            };
            checks.push(Check::bad("chrome", error.to_string(), mend));
        }
        Ok(Ok(version)) => {
            checks.push(Check::good("chrome", version.product));
            checks.extend(check_age(config, &pool));
            checks.push(check_sandbox(config, &pool).await);
        }
    }
    pool.shutdown().await;
    checks
}

/// An old Chrome is no fault, but worth a word.
fn check_age(config: &Config, pool: &BrowserPool) -> Option<Check> {
    let days = pool.program_age().ok()??.as_secs() / 86_400;
    let mut check = Check::good("chrome age", format!("built {days} days ago"));
    if days > config.browser.max_age_days {
        check.mend =
            Some("bring it up to date: `apt-get update && apt-get install chromium-headless-shell`".to_owned());
    }
    Some(check)
}

async fn check_sandbox(config: &Config, pool: &BrowserPool) -> Check {
    if config.browser.endpoint.is_some() {
        return Check::good("sandbox", "Chrome runs elsewhere: look there");
    }
    match timeout(LIMIT, pool.check_sandbox()).await {
        Err(_) => Check::bad("sandbox", "could not be looked at in time", "see whether the machine is overloaded"),
        Ok(Err(error)) => Check::bad("sandbox", error.to_string(), USER_NAMESPACES),
        Ok(Ok(report)) if report.is_sandboxed() => Check::good("sandbox", describe(&report)),
        Ok(Ok(report)) if !config.browser.sandbox => {
            Check::bad("sandbox", describe(&report), "take `sandbox = false` out of [browser]")
        }
        Ok(Ok(report)) => Check::bad("sandbox", describe(&report), USER_NAMESPACES),
    }
}

fn describe(report: &SandboxReport) -> String {
    let SandboxReport { renderer_pid, seccomp, own_user_namespace, uid } = report;
    let namespace = if *own_user_namespace { "own" } else { "no own" };
    format!("renderer {renderer_pid}: seccomp {seccomp} (2 is filtered), {namespace} user namespace, uid {uid}")
}

async fn check_postgres(config: &Config) -> Vec<Check> {
    let mend = "set DATABASE_URL, or leave it unset and `apt-get install postgresql` for a private one";
    let database = match timeout(LIMIT, Database::open(config)).await {
        Err(_) => return vec![Check::bad("postgres", "did not answer in time", mend)],
        Ok(Err(error)) => {
            let mend = match error.downcast_ref::<QueueError>() {
                Some(QueueError::Conflict(_)) => {
                    "bring the schema and this program to the same version: `pagehand migrate`"
                }
                Some(error) if error.lacks_rights() => {
                    "`pagehand migrate --roles` as the tables' owner; then GRANT pagehand_worker or pagehand_web to this user"
                }
                _ => mend,
            };
            return vec![Check::bad("postgres", super::chain(&error), mend)];
        }
        Ok(Ok(database)) => database,
    };
    let before = chrono::Utc::now();
    let mut checks = match database.queue.now().await {
        Err(error) => vec![Check::bad("postgres", error.to_string(), mend)],
        Ok(theirs) => {
            let ours = before + (chrono::Utc::now() - before) / 2;
            let skew = (theirs - ours).abs();
            let found = format!("{:.3} s from Postgres' clock", skew.num_milliseconds() as f64 / 1000.0);
            let clock = if skew > CLOCK_SKEW {
                Check::bad("clock", found, "set this machine's clock by NTP: `timedatectl set-ntp true`")
            } else {
                Check::good("clock", found)
            };
            vec![Check::good("postgres", "reachable, schema up to date"), clock]
        }
    };
    if checks.iter().all(|check| check.name != "postgres" || check.ok) {
        checks.push(check_secrets(&database.queue).await);
    }
    database.close().await;
    checks
}

/// How passwords of tasks are kept. In the clear is no fault, but worth a word.
async fn check_secrets(queue: &Queue) -> Check {
    let kept = match timeout(LIMIT, queue.kept_secrets()).await {
        Ok(Ok(kept)) => kept,
        Ok(Err(error)) => return Check::bad("passwords", error.to_string(), "see whether Postgres is overloaded"),
        Err(_) => return Check::bad("passwords", "could not be counted in time", "see whether Postgres is overloaded"),
    };
    let clear: i64 = kept.iter().filter(|kept| kept.key.is_none()).map(|kept| kept.tasks).sum();
    let sealed = kept.iter().filter_map(|kept| kept.key.as_deref().map(|key| (key, kept.tasks)));
    let (ours, foreign): (Vec<_>, Vec<_>) = sealed.partition(|(key, _)| queue.keys().has(key));
    let list = |keys: &[(&str, i64)]| {
        keys.iter().map(|(key, tasks)| format!("{tasks} under key {key}")).collect::<Vec<_>>().join(", ")
    };
    if !foreign.is_empty() {
        let mend = "set secrets.key to that key, or name it in secrets.older_keys";
        return Check::bad("passwords", format!("encrypted with a key that is missing here: {}", list(&foreign)), mend);
    }
    let reseal = "encrypt them too: `pagehand migrate --reseal`";
    match queue.keys().current() {
        None if ours.is_empty() => Check {
            mend: Some("`openssl rand -base64 32` makes a key; refer to it by secrets.key".to_owned()),
            ..Check::good("passwords", format!("stored in the clear ({clear} tasks have one)"))
        },
        Some(key) => {
            let found = format!(
                "encrypted with key {key} ({clear} in the clear{}{})",
                if ours.is_empty() { "" } else { ", " },
                list(&ours)
            );
            let behind = clear > 0 || ours.iter().any(|(other, _)| *other != key);
            Check { mend: behind.then(|| reseal.to_owned()), ..Check::good("passwords", found) }
        }
        None => Check::good("passwords", list(&ours)),
    }
}

fn check_runs(config: &Config) -> Check {
    let dir = std::path::absolute(&config.runs.dir).unwrap_or_else(|_| config.runs.dir.clone());
    let mend = format!("make {} a directory that this user can write, or set runs.dir", dir.display());
    match open_runs(config) {
        Err(error) => Check::bad("runs", super::chain(&error), mend),
        Ok(runs) => match runs.check_writable() {
            Err(error) => Check::bad("runs", error.to_string(), mend),
            Ok(()) => Check::good("runs", dir.display().to_string()),
        },
    }
}
