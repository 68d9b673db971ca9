//! `pagehand proxy`.

use anyhow::Context;
use url::Url;

use super::{Database, Usage, print_json, print_line, table};
use crate::cli::{ProxyArgs, ProxyCommand};
use crate::config::{Config, SecretRef};
use crate::queue::{NewProxy, ProxyId};
use crate::record::rfc3339;
use crate::site::Origin;

/// Adds, lists or removes proxies.
///
/// # Errors
/// [`Usage`] for an address that is none, or one that carries a password; else Postgres is away.
pub async fn run(config: Config, args: ProxyArgs) -> anyhow::Result<()> {
    let ProxyArgs { command, json } = args;
    match command {
        ProxyCommand::Add { url, site, password } => {
            let proxy = read(&url, site.as_deref(), password)?;
            let database = Database::open(&config).await?;
            let added = database.queue.add_proxy(&proxy).await;
            database.close().await;
            let added = added.context("the proxy was not added")?;
            if json { print_json(&serde_json::json!({"id": added})) } else { print_line(added.0) }
        }
        ProxyCommand::Ls => {
            let database = Database::open(&config).await?;
            let proxies = database.queue.proxies().await;
            database.close().await;
            let proxies = proxies?;
            if json {
                return print_json(&serde_json::json!({"proxies": proxies}));
            }
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
            let rows = proxies.into_iter().map(|proxy| {
                vec![
                    proxy.id.0.to_string(),
                    proxy.url,
                    or_dash(proxy.username),
                    or_dash(proxy.password_ref),
                    or_dash(proxy.site),
                    proxy.failures.to_string(),
                    or_dash(proxy.resting_until.map(rfc3339)),
                ]
            });
            print_line(table(&["ID", "URL", "USER", "PASSWORD", "SITE", "FAILURES", "RESTING UNTIL"], rows))
        }
        ProxyCommand::Rm { id } => {
            let database = Database::open(&config).await?;
            let removed = database.queue.remove_proxy(ProxyId(id)).await;
            database.close().await;
            anyhow::ensure!(removed?, "there is no proxy {id}; `pagehand proxy ls` lists what is");
            if json {
                print_json(&serde_json::json!({"removed": id}))
            } else {
                print_line(format_args!("proxy {id} removed"))
            }
        }
    }
}

fn read(text: &str, site: Option<&str>, password: Option<String>) -> Result<NewProxy, Usage> {
    let usage = |problem: &str| Usage(format!("URL {problem}; write it like http://user@proxy.example:3128"));
    let mut url = Url::parse(text).map_err(|error| usage(&format!("is none ({error})")))?;
    if url.password().is_some() {
        return Err(usage(
            "carries a password, which others can see; put it into the environment or a file and give --password env:NAME or file:PATH",
        ));
    }
    if !matches!(url.scheme(), "http" | "socks5") {
        return Err(usage("must begin with http:// or socks5://"));
    }
    if url.host_str().is_none_or(str::is_empty) || url.port_or_known_default().is_none() {
        return Err(usage("names no host or port"));
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(usage("has more than host and port"));
    }
    let username = Some(url.username().to_owned()).filter(|name| !name.is_empty());
    // Err only for addresses that can't have a user name, which http and socks5 can.
    let _ = url.set_username("");
    let password_ref: Option<SecretRef> = match password {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| Usage(format!("--password {error}")))?),
    };
    let site = match site {
        None => None,
        Some(text) => Some(text.parse::<Origin>().map_err(|error| Usage(format!("--site {error}")))?),
    };
    Ok(NewProxy {
        url: url.as_str().trim_end_matches('/').to_owned(),
        username,
        password_ref: password_ref.map(|reference| reference.to_string()),
        site,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_on_the_command_line_is_refused() {
        let error = read("http://ann:hunter2@proxy.example:3128", None, None).unwrap_err();
        assert!(error.0.contains("--password env:NAME") && !error.0.contains("hunter2"), "{error}");
        let error = read("http://ann@proxy.example:3128", None, Some("hunter2".into())).unwrap_err();
        assert!(!error.0.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_user_is_taken_out_of_the_address() {
        let proxy = read("socks5://ann@proxy.example:1080", Some("https://example.org"), Some("env:P".into())).unwrap();
        assert_eq!(proxy.url, "socks5://proxy.example:1080");
        assert_eq!(proxy.username.as_deref(), Some("ann"));
        assert_eq!(proxy.password_ref.as_deref(), Some("env:P"));
    }
}
