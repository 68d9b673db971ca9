//! Where the system has its Postgres.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::DevDbError;

/// The directory with `initdb` and `postgres`: of major version `version` if that is given, else the first of `PG_BIN`,
/// `pg_config --bindir` and the newest under `/usr/lib/postgresql`.
pub fn find(version: Option<&str>, cluster: &Path) -> Result<PathBuf, DevDbError> {
    let mut places: Vec<PathBuf> = std::env::var_os("PG_BIN").map(PathBuf::from).into_iter().collect();
    places.extend(pg_config());
    places.extend(packaged(Path::new("/usr/lib/postgresql")));
    places.retain(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file());
    if places.is_empty() {
        return Err(DevDbError::NoBinaries);
    }
    let fits = |dir: &PathBuf| version.is_none_or(|wanted| major_version(dir).is_some_and(|found| found == wanted));
    places.into_iter().find(fits).ok_or_else(|| DevDbError::OtherVersion {
        path: cluster.to_owned(),
        version: version.unwrap_or_default().to_owned(),
    })
}

/// The directories `VERSION/bin`, newest first.
fn packaged(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

fn pg_config() -> Option<PathBuf> {
    said_by(Command::new("pg_config").arg("--bindir")).map(PathBuf::from)
}

/// `postgres (PostgreSQL) 15.4 (Debian …)` is of major version `15`.
fn major_version(dir: &Path) -> Option<String> {
    let said = said_by(Command::new(dir.join("postgres")).arg("--version"))?;
    let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(number.chars().take_while(char::is_ascii_digit).collect())
}

fn said_by(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_the_packaged_versions_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9", "17", "common", "15"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let found: Vec<_> = packaged(root.path());
        assert_eq!(found, ["17", "15", "9"].map(|version| root.path().join(version).join("bin")));
    }
}
