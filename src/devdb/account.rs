//! Whom Postgres runs as.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::DevDbError;

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// `postgres`, else `nobody`, if we are root; None if we are not.
    pub fn for_postgres() -> Result<Option<Account>, DevDbError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account = ["postgres", "nobody"].into_iter().find_map(|name| Account::in_passwd(&users, name));
        account.map(Some).ok_or(DevDbError::NoUser)
    }

    fn in_passwd(users: &str, name: &str) -> Option<Account> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (found, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (found == name && uid != 0).then(|| Account { name: name.to_owned(), uid, gid })
        })
    }

    /// Whether it may pass through all directories above `path`.
    pub fn can_reach(&self, path: &Path) -> bool {
        path.ancestors().skip(1).all(|dir| {
            fs::metadata(dir).is_ok_and(|dir| {
                let bits = if dir.uid() == self.uid {
                    dir.mode() >> 6
                } else if dir.gid() == self.gid {
                    dir.mode() >> 3
                } else {
                    dir.mode()
                };
                bits & 1 == 1
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/x\nbroken\npostgres:x:0:0::/:\n";

    #[test]
    fn an_account_is_read_from_the_list_of_users_and_is_never_root() {
        let nobody = Account::in_passwd(USERS, "nobody").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (65534, 65533));
        assert_eq!(Account::in_passwd(USERS, "postgres"), None);
        assert_eq!(Account::in_passwd(USERS, "broken"), None);
    }

    #[test]
    fn a_directory_that_others_may_not_enter_is_out_of_reach() {
        use std::os::unix::fs::PermissionsExt;
        let stranger = Account { name: "stranger".to_owned(), uid: 4_000_000_000, gid: 4_000_000_000 };
        let outer = tempfile::tempdir_in("/tmp").unwrap();
        let inner = outer.path().join("a");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(stranger.can_reach(&inner));
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!stranger.can_reach(&inner));
    }
}
