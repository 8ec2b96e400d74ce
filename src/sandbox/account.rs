//! Who PostgreSQL runs as: it refuses root.

use crate::sandbox::SandboxError;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// The users that run PostgreSQL for root, the best first.
const SUBSTITUTES: [&str; 2] = ["postgres", "nobody"];

/// The user as whom PostgreSQL's programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Ourselves.
    Own,
    /// Another, because we are root.
    Other {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Account {
    /// The user for this process.
    ///
    /// # Errors
    /// [`SandboxError::NoAccount`] if we are root and no other user is known.
    pub fn of_this_process() -> Result<Self, SandboxError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = SUBSTITUTES.iter().find_map(|name| ids(&users, name));
        found.map(|(uid, gid)| Self::Other { uid, gid }).ok_or(SandboxError::NoAccount)
    }

    /// Lets this user run the command.
    pub(super) fn runs(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives this user the file or directory.
    pub(super) fn owns(self, path: &Path) -> Result<(), SandboxError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::lchown(path, Some(uid), Some(gid))
                .map_err(SandboxError::file("change the owner of", path)),
        }
    }
}

/// A user's ids in the text of `/etc/passwd`: `name:password:uid:gid:...`.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.next() == Some(name);
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (matches && uid != 0).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name_and_root_is_none() {
        let users =
            "root:x:0:0::/:\nbad\npostgres2:x:7:8::/:\npostgres:x:101:104::/:\nzero:x:0:1::/:";
        assert_eq!(ids(users, "postgres"), Some((101, 104)));
        assert_eq!(ids(users, "zero"), None);
        assert_eq!(ids(users, "nobody"), None);
    }
}
