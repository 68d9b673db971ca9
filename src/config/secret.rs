//! References to secrets. The secret itself is never part of the configuration, a row or a command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a secret is: `env:NAME`, `file:PATH`, or `cred:NAME`, a credential that systemd hands to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In the environment variable of this name.
    Env(String),
    /// In the file of this name in `$CREDENTIALS_DIRECTORY`, without the line break at its end.
    Credential(String),
    /// In this file, without the line break at its end. `${CREDENTIALS_DIRECTORY}` at the front is replaced.
    File(PathBuf),
}

/// Why a secret can't be had. Never tells anything of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretRefError {
    /// The text is no reference.
    #[error("is no reference to a secret; write env:NAME, file:PATH or cred:NAME, never the secret itself")]
    NotAReference,
    /// The variable is not set, or empty.
    #[error("environment variable {0} is not set; set it or refer to a file")]
    NoVariable(String),
    /// systemd has handed over no credentials.
    #[error("there is no credential {0}: systemd handed over none; put LoadCredential={0}:PATH into the unit")]
    NoCredentials(String),
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
            Self::Credential(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(directory) => read(PathBuf::from(directory).join(name)),
                None => Err(SecretRefError::NoCredentials(name.clone())),
            },
            Self::File(path) => {
                let path =
                    match (path.strip_prefix("${CREDENTIALS_DIRECTORY}"), std::env::var_os("CREDENTIALS_DIRECTORY")) {
                        (Ok(rest), Some(directory)) => PathBuf::from(directory).join(rest),
                        _ => path.clone(),
                    };
                read(path)
            }
        }
    }
}

fn read(path: PathBuf) -> Result<SecretString, SecretRefError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned().into()),
        Err(source) => Err(SecretRefError::File { path, source }),
    }
}

impl FromStr for SecretRef {
    type Err = SecretRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            // A name, never a way out of the directory.
            Some(("cred", name)) if !name.is_empty() && !name.contains('/') && name != ".." => {
                Ok(Self::Credential(name.to_owned()))
            }
            _ => Err(SecretRefError::NotAReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "cred:{name}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_name_and_no_path() {
        assert_eq!("cred:token".parse::<SecretRef>().unwrap().to_string(), "cred:token");
        for wrong in ["cred:", "cred:..", "cred:../token", "cred:/etc/passwd", "token"] {
            assert!(wrong.parse::<SecretRef>().is_err(), "{wrong}");
        }
    }
}
