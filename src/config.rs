//! The configuration: `config/pagehand.toml`, each key overridable as `PAGEHAND_SECTION__KEY`.
//!
//! Unknown keys and values out of bounds are errors that name the key, where it was set, and what may stand there.
//! Secrets are never written out: they are [`SecretRef`]s to the environment or to a file.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use crate::cost::{Budget, Prices};
use crate::retry::RetryPolicy;

mod mailbox;
mod secret;
mod sections;
mod variables;

pub use mailbox::{AddressPattern, Mailbox, Tls};
pub use secret::{SecretRef, SecretRefError};
pub use sections::{
    Browser, Data, Database, Egress, Llm, Logs, Metrics, Retry, Role, Runs, Seconds, Secrets, ThirdParties, Traces,
    Web, WebToken, Worker,
};
use variables::{PREFIX, RUNS_DIR, look_alikes, section_and_key};

/// Where the configuration is looked for when nothing else is said.
pub const DEFAULT_PATH: &str = "config/pagehand.toml";

/// Everything that can be set. `config/pagehand.toml` explains each key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where tasks are kept.
    pub database: Database,
    /// Where the program keeps what is its own.
    pub data: Data,
    /// How tasks are worked off.
    pub worker: Worker,
    /// When failed attempts are repeated.
    pub retry: Retry,
    /// Which Chrome, and how it is run.
    pub browser: Browser,
    /// Where Chrome's traffic may go.
    pub egress: Egress,
    /// Where the record goes.
    pub runs: Runs,
    /// How rows keep what tasks keep secret.
    pub secrets: Secrets,
    /// Where log lines go.
    pub logs: Logs,
    /// Where traces go.
    pub traces: Traces,
    /// Where metrics go, beside `/metrics`.
    pub metrics: Metrics,
    /// HTTP API and dashboard.
    pub web: Web,
    /// What things cost.
    pub prices: Prices,
    /// What may be spent.
    pub budget: Budget,
    /// The language model that is asked where the classifier finds no form.
    pub llm: Llm,
    /// Where the mails of a sign-up arrive, for sites whose profile names no mailbox of its own.
    pub mailbox: Mailbox,
    /// What is odd about the environment and keeps nobody from working.
    #[serde(skip)]
    pub advice: Vec<String>,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// Line, key and what may stand there.
        problem: String,
    },
    /// A variable names no key, or its value is of the wrong kind.
    #[error("environment variable {name}: {problem}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A key of `[mailbox]` that is missing or wrong.
    #[error("mailbox.{key}: {problem}")]
    Mailbox {
        /// The key inside the section.
        key: &'static str,
        /// What may stand there.
        problem: &'static str,
    },
    /// A value that is out of bounds.
    #[error("{key}: {problem}")]
    Bounds {
        /// The key, `section.key`.
        key: &'static str,
        /// What may stand there.
        problem: &'static str,
    },
}

impl Config {
    /// Reads the file, lays the environment over it, and checks the bounds.
    ///
    /// `path` None: `PAGEHAND_CONFIG`, else [`DEFAULT_PATH`] where there is one, else nothing but defaults.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        let named = path.map(Path::to_owned).or_else(|| std::env::var_os("PAGEHAND_CONFIG").map(PathBuf::from));
        let file = match named {
            Some(path) => Some((read_file(&path)?, path)),
            None if Path::new(DEFAULT_PATH).exists() => {
                Some((read_file(Path::new(DEFAULT_PATH))?, DEFAULT_PATH.into()))
            }
            None => None,
        };
        Self::from_parts(
            file,
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
        )
    }

    fn from_parts(
        file: Option<(String, PathBuf)>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut table = toml::Table::new();
        if let Some((text, path)) = file {
            let problem =
                |error: toml::de::Error| ConfigError::File { path: path.clone(), problem: located(&text, &error) };
            toml::from_str::<Config>(&text).map_err(problem)?;
            table = toml::from_str(&text).map_err(problem)?;
        }
        let variables: Vec<_> = variables.collect();
        let names: Vec<String> = variables.iter().map(|(name, _)| name.clone()).collect();
        let mut variables: Vec<_> = variables
            .into_iter()
            // Empty: as good as not set, like DATABASE_URL.
            .filter(|(name, value)| name != RUNS_DIR || !value.is_empty())
            .filter_map(|(name, value)| Some((section_and_key(&name)?, name, value)))
            .collect();
        // Backwards, so that the older name of a key comes first and the key itself wins.
        variables.sort_by(|left, right| right.1.cmp(&left.1));
        for ((section, key), name, value) in variables {
            overlay(&mut table, &section, &key, &value).map_err(|problem| ConfigError::Variable { name, problem })?;
        }
        let references = table.to_string();
        let referred = |name: &str| references.contains(&format!("env:{name}\""));
        let advice = look_alikes(names.iter().map(String::as_str), referred)?;
        let config: Config = table.try_into().map_err(|error: toml::de::Error| ConfigError::Variable {
            name: PREFIX.into(),
            problem: error.to_string(),
        })?;
        Config { advice, ..config }.check()
    }

    fn check(self) -> Result<Config, ConfigError> {
        let seconds = |value: Seconds| value.duration().as_secs_f64();
        let bounds: [(&'static str, bool, &'static str); 12] = [
            ("runs.dir", !self.runs.dir.as_os_str().is_empty(), "must name a directory; leave it out for `runs`"),
            ("data.dir", !self.data.dir.as_os_str().is_empty(), "must name a directory; leave it out for `.pagehand`"),
            ("worker.concurrency", (1..=256).contains(&self.worker.concurrency), "must be from 1 to 256"),
            ("worker.lease_seconds", seconds(self.worker.lease_seconds) >= 1.0, "must be at least 1"),
            ("worker.task_timeout_seconds", seconds(self.worker.task_timeout_seconds) >= 1.0, "must be at least 1"),
            (
                "worker.poll_seconds",
                (0.01..=3600.0).contains(&seconds(self.worker.poll_seconds)),
                "must be from 0.01 to 3600",
            ),
            ("database.max_connections", (2..=1000).contains(&self.database.max_connections), "must be from 2 to 1000"),
            ("retry.max_retries", self.retry.max_retries <= 100, "must be from 0 to 100"),
            (
                "retry.max_seconds",
                self.retry.max_seconds.duration() >= self.retry.initial_seconds.duration(),
                "must not be less than retry.initial_seconds",
            ),
            (
                "metrics.interval_seconds",
                (0.1..=3600.0).contains(&seconds(self.metrics.interval_seconds)),
                "must be from 0.1 to 3600",
            ),
            ("egress.max_mib_per_task", self.egress.max_mib_per_task >= 1, "must be at least 1"),
            ("browser.recycle_after_tasks", self.browser.recycle_after_tasks >= 1, "must be at least 1"),
        ];
        let llm_url =
            self.llm.url.as_ref().is_none_or(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !llm_url {
            return Err(ConfigError::Bounds { key: "llm.url", problem: "must begin with https:// or http://" });
        }
        if self.llm.url.is_some() && self.llm.model.is_empty() {
            return Err(ConfigError::Bounds { key: "llm.model", problem: "must name a model where llm.url is set" });
        }
        let loopback = self.worker.metrics_listen.is_none_or(|address| address.ip().is_loopback());
        let amounts = [self.prices.wrong(), self.budget.wrong()].into_iter().flatten().next();
        if let Some(key) = amounts {
            return Err(ConfigError::Bounds { key, problem: "must be a number of US dollars, and not negative" });
        }
        for (key, endpoint) in
            [("traces.endpoint", &self.traces.endpoint), ("metrics.endpoint", &self.metrics.endpoint)]
        {
            if endpoint.as_ref().is_some_and(|url| url.scheme() != "http" || !url.has_host()) {
                let problem = "must be an http:// address, for example http://127.0.0.1:4318; encryption is the collector's business";
                return Err(ConfigError::Bounds { key, problem });
            }
        }
        if !loopback {
            let problem = "must be an address of loopback, for example 127.0.0.1:9100: it asks for no token";
            return Err(ConfigError::Bounds { key: "worker.metrics_listen", problem });
        }
        self.mailbox.check().map_err(|(key, problem)| ConfigError::Mailbox { key, problem })?;
        match bounds.into_iter().find(|(_, holds, _)| !holds) {
            Some((key, _, problem)) => Err(ConfigError::Bounds { key, problem }),
            None => Ok(self),
        }
    }

    /// The waits between attempts.
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy { initial: self.retry.initial_seconds.duration(), max: self.retry.max_seconds.duration() }
    }

    /// Address of Postgres: `database.url`, else `DATABASE_URL`, else None: the private one.
    ///
    /// # Errors
    /// `database.url` refers to something that is not there.
    pub fn database_url(&self) -> Result<Option<SecretString>, SecretRefError> {
        match &self.database.url {
            Some(reference) => reference.resolve().map(Some),
            None => Ok(std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()).map(SecretString::from)),
        }
    }
}

/// The message with its place. Not the line itself, which may hold a secret that should not be there.
fn located(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    line.map_or_else(|| error.message().to_owned(), |line| format!("line {line}: {}", error.message()))
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// Sets `section.key` to `text`, read as JSON or TOML where the key takes that, else as the text that it is.
fn overlay(table: &mut toml::Table, section: &str, key: &str, text: &str) -> Result<(), String> {
    let json = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|v| toml::Value::try_from(v).ok());
    let as_toml = toml::from_str::<toml::Table>(&format!("value = {text}")).ok().and_then(|mut t| t.remove("value"));
    let candidates = [json, as_toml, Some(toml::Value::String(text.to_owned()))];
    let mut problem = String::new();
    for value in candidates.into_iter().flatten() {
        let mut tried = table.clone();
        let entry = tried.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(keys) = entry else { return Err(format!("`{section}` is no section")) };
        keys.insert(key.to_owned(), value);
        match tried.clone().try_into::<Config>() {
            Ok(_) => {
                *table = tried;
                return Ok(());
            }
            Err(error) if problem.is_empty() => problem = error.to_string(),
            Err(_) => {}
        }
    }
    Err(problem.trim_end().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::from_parts(Some((file.to_owned(), "pagehand.toml".into())), variables)
    }

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let shipped = load(include_str!("../config/pagehand.toml"), &[]).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_variable_overrides_the_file_whatever_its_type() {
        let config = load(
            "[worker]\nconcurrency = 2\n",
            &[
                ("PAGEHAND_WORKER__CONCURRENCY", "7"),
                ("PAGEHAND_WORKER__LEASE_SECONDS", "2.5"),
                ("PAGEHAND_RUNS__DIR", "123"),
                ("PAGEHAND_BROWSER__SANDBOX", "false"),
                ("PAGEHAND_WEB__LISTEN", "127.0.0.1:0"),
                ("PAGEHAND_WEB__TOKENS", r#"[{"name":"ops","role":"operate","token":"env:OPS"}]"#),
            ],
        )
        .unwrap();
        assert_eq!(config.worker.concurrency, 7);
        assert_eq!(config.worker.lease_seconds.duration(), Duration::from_millis(2_500));
        assert_eq!(config.runs.dir, PathBuf::from("123"));
        assert!(!config.browser.sandbox);
        assert_eq!(config.web.tokens[0].role, Role::Operate);
    }

    #[test]
    fn the_older_name_of_the_runs_directory_still_works_and_the_new_one_wins() {
        let old = ("TELEMETRY_RUNS_DIR", "/var/old");
        assert_eq!(load("", &[old]).unwrap().runs.dir, PathBuf::from("/var/old"));
        assert_eq!(load("", &[("PAGEHAND_RUNS__DIR", "/var/new"), old]).unwrap().runs.dir, PathBuf::from("/var/new"));
        assert_eq!(load("", &[("TELEMETRY_RUNS_DIR", "")]).unwrap().runs.dir, PathBuf::from("runs"));
    }

    #[test]
    fn unknown_keys_are_errors_that_name_them() {
        let file = load("[worker]\nconcurency = 2\n", &[]).unwrap_err().to_string();
        assert!(file.contains("concurency") && file.contains("concurrency"), "{file}");
        let variable = load("", &[("PAGEHAND_WORKER__CONCURENCY", "2")]).unwrap_err().to_string();
        assert!(variable.contains("PAGEHAND_WORKER__CONCURENCY") && variable.contains("concurency"), "{variable}");
        let section = load("", &[("PAGEHAND_WORKERS__CONCURRENCY", "2")]).unwrap_err().to_string();
        assert!(section.contains("workers"), "{section}");
        let underscore = load("", &[("PAGEHAND_WORKER_CONCURRENCY", "2")]).unwrap_err().to_string();
        assert!(underscore.contains("PAGEHAND_WORKER__CONCURRENCY"), "{underscore}");
    }

    #[test]
    fn a_variable_that_the_configuration_refers_to_is_no_misspelt_key() {
        let secret = ("PAGEHAND_WEB_TOKEN", "s");
        let token = r#"[{"name":"ops","role":"operate","token":"env:PAGEHAND_WEB_TOKEN"}]"#;
        assert_eq!(load("", &[secret]).unwrap().advice.len(), 1);
        assert_eq!(load("", &[secret, ("PAGEHAND_WEB__TOKENS", token)]).unwrap().advice, Vec::<String>::new());
    }

    #[test]
    fn values_out_of_bounds_are_errors_that_name_the_key() {
        for (name, value) in [
            ("PAGEHAND_WORKER__CONCURRENCY", "0"),
            ("PAGEHAND_WORKER__LEASE_SECONDS", "0.2"),
            ("PAGEHAND_WORKER__LEASE_SECONDS", "-1"),
            ("PAGEHAND_WORKER__LEASE_SECONDS", "nan"),
            ("PAGEHAND_RETRY__MAX_SECONDS", "1"),
            ("PAGEHAND_RUNS__DIR", ""),
            ("PAGEHAND_DATA__DIR", ""),
        ] {
            let error = load("", &[(name, value)]).unwrap_err().to_string().to_lowercase();
            let key = name.strip_prefix(PREFIX).unwrap().to_lowercase();
            assert!(error.contains(&key) || error.contains(&key.replace("__", ".")), "{name}={value}: {error}");
        }
    }

    #[test]
    fn a_secret_written_out_is_refused() {
        let error = load("[database]\nurl = \"postgres://u:hunter2@h/d\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("env:NAME") && error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }
}
