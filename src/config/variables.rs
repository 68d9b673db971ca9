//! The environment's variables: which key each sets, and which of those that set none were meant to.

use super::{Config, ConfigError};

pub(super) const PREFIX: &str = "PAGEHAND_";
/// An older name of `PAGEHAND_RUNS__DIR`.
pub(super) const RUNS_DIR: &str = "TELEMETRY_RUNS_DIR";
/// Variables with the prefix that are not keys of the configuration.
const NOT_KEYS: [&str; 1] = ["PAGEHAND_CONFIG"];
/// Keys that refer to a secret: a variable that is called like one may be where the secret is kept.
const REFERENCES: [&str; 5] = ["database.url", "secrets.key", "secrets.older_keys", "llm.key", "mailbox.password"];
/// So many letters may be wrong in a name that is taken for another one.
const NEAR: usize = 2;

/// `PAGEHAND_WORKER__LEASE_SECONDS` → `("worker", "lease_seconds")`; `TELEMETRY_RUNS_DIR` is an older name of `runs.dir`.
pub(super) fn section_and_key(name: &str) -> Option<(String, String)> {
    if name == RUNS_DIR {
        return Some(("runs".to_owned(), "dir".to_owned()));
    }
    if NOT_KEYS.contains(&name) {
        return None;
    }
    let (section, key) = name.strip_prefix(PREFIX)?.split_once("__")?;
    Some((section.to_lowercase(), key.to_lowercase()))
}

/// Advice on variables that set nothing and look as if they should. Others with the prefix are somebody's own: the program is
/// called by scripts, and its secrets are kept in variables of any name; those that the configuration refers to are `referred`.
///
/// # Errors
/// One is a key's name but for its underscores.
pub(super) fn look_alikes<'a>(
    names: impl Iterator<Item = &'a str>,
    referred: impl Fn(&str) -> bool,
) -> Result<Vec<String>, ConfigError> {
    let others = names.filter(|name| name.starts_with(PREFIX) && !NOT_KEYS.contains(name) && !name.contains("__"));
    let others: Vec<&str> = others.filter(|name| !referred(name)).collect();
    // Seldom any, and only then is it asked which keys there are.
    let keys = if others.is_empty() { Vec::new() } else { keys() };
    let mut advice = Vec::new();
    for name in others {
        let letters = letters(name.strip_prefix(PREFIX).unwrap_or(name));
        let near = keys.iter().map(|key| (strsim::levenshtein(&letters, &self::letters(key)), key)).min();
        let Some((distance, key)) = near.filter(|(distance, _)| *distance <= NEAR) else { continue };
        let problem = format!("sets nothing; `{key}` is {}", variable_of(key));
        if distance == 0 && !REFERENCES.contains(&key.as_str()) {
            return Err(ConfigError::Variable { name: name.to_owned(), problem });
        }
        advice.push(format!("environment variable {name}: {problem}"));
    }
    Ok(advice)
}

fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Every `section.key` that there is, by asking for one that there isn't.
fn keys() -> Vec<String> {
    let sections = known("_ = 0");
    let keys = sections.iter().map(|section| (section, known(&format!("[{section}]\n_ = 0"))));
    keys.flat_map(|(section, keys)| keys.into_iter().map(move |key| format!("{section}.{key}"))).collect()
}

/// The names in "unknown field `_`, expected one of `a`, `b`".
fn known(toml: &str) -> Vec<String> {
    let problem = toml::from_str::<Config>(toml).err().map(|error| error.message().to_owned()).unwrap_or_default();
    problem.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(name: &str) -> Result<Vec<String>, String> {
        look_alikes([name].into_iter(), |name| name == "PAGEHAND_LLM_KEY").map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_of_the_shipped_file_is_known() {
        let keys = keys();
        let mut section = "";
        for line in include_str!("../../config/pagehand.toml").lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
                assert!(keys.contains(&format!("{section}.{key}")), "{section}.{key} is not among {keys:?}");
            }
        }
        assert!(REFERENCES.iter().all(|key| keys.iter().any(|known| known == key)), "{keys:?}");
    }

    #[test]
    fn a_name_that_lacks_an_underscore_is_refused_with_the_right_one() {
        for name in ["PAGEHAND_WORKER_CONCURRENCY", "PAGEHAND_WORKERCONCURRENCY", "PAGEHAND_worker_concurrency"] {
            let problem = advice(name).unwrap_err();
            assert!(problem.contains(name) && problem.contains("PAGEHAND_WORKER__CONCURRENCY"), "{problem}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_warned_about() {
        let [problem] = <[String; 1]>::try_from(advice("PAGEHAND_WORKER_LEASE_SECOND").unwrap()).unwrap();
        assert!(problem.contains("PAGEHAND_WORKER__LEASE_SECONDS"), "{problem}");
        assert_eq!(advice("PAGEHAND_MAILBOX_PASSWORD").unwrap().len(), 1, "a profile may refer to it");
    }

    #[test]
    fn what_is_somebody_elses_is_left_alone() {
        for name in
            ["PAGEHAND_CONFIG", "PAGEHAND_TOKEN", "PAGEHAND_LLM_KEY", "PAGEHAND_WEB_SERVICE_HOST", "WORKER_CONCURRENCY"]
        {
            assert_eq!(advice(name), Ok(Vec::new()), "{name}");
        }
    }
}
