//! References to secrets. The secret itself is never part of the configuration, a row or a command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a secret is: `env:NAME`, or `file:PATH` (also a systemd credential).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In the environment variable of this name.
    Env(String),
    /// In this file, without the line break at its end. `${CREDENTIALS_DIRECTORY}` at the front is replaced.
    File(PathBuf),
}

/// Why a secret can't be had. Never tells anything of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretRefError {
    /// The text is no reference.
    #[error("is no reference to a secret; write env:NAME or file:PATH, never the secret itself")]
    NotAReference,
    /// The variable is not set, or empty.
    #[error("environment variable {0} is not set; set it or refer to a file")]
    NoVariable(String),
    /// The file can't be read.
    #[error("can't read the secret in {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SecretRef {
    /// Fetches the secret.
    ///
    /// # Errors
    /// The variable or file is not there.
    pub fn resolve(&self) -> Result<SecretString, SecretRefError> {
        match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(value.into()),
                _ => Err(SecretRefError::NoVariable(name.clone())),
            },
            Self::File(path) => {
                let path =
                    match (path.strip_prefix("${CREDENTIALS_DIRECTORY}"), std::env::var_os("CREDENTIALS_DIRECTORY")) {
                        (Ok(rest), Some(directory)) => PathBuf::from(directory).join(rest),
                        _ => path.clone(),
                    };
                match std::fs::read_to_string(&path) {
                    Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned().into()),
                    Err(source) => Err(SecretRefError::File { path, source }),
                }
            }
        }
    }
}

impl FromStr for SecretRef {
    type Err = SecretRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(SecretRefError::NotAReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
