//! Where state lies if nobody says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// For the superuser of the machine, as the Filesystem Hierarchy Standard has it (5.8).
const SYSTEM: &str = "/var/lib/pgsteer";
/// Our own directory within somebody else's.
const OURS: &str = "pgsteer";

/// Who runs pgsteer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runner {
    /// The superuser of the machine.
    Root,
    /// Anybody else.
    Other,
}

impl Runner {
    /// This process.
    pub(super) fn of_process() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::Other }
    }
}

/// The directory of state: the one that systemd made for us (`StateDirectory=`), else the usual
/// one. `None`: not even a home is known.
///
/// Source: systemd.exec(5), `StateDirectory=`; XDG Base Directory Specification, "Variables".
pub(super) fn directory(env: &BTreeMap<String, String>, runner: Runner) -> Option<PathBuf> {
    // Each is a path from the root, or is to be ignored.
    let path = |name: &str| env.get(name).map(Path::new).filter(|path| path.is_absolute());
    let of_systemd = env.get("STATE_DIRECTORY").and_then(|list| list.split(':').next());
    let of_systemd = of_systemd.map(Path::new).filter(|path| path.is_absolute());
    let usual = || match runner {
        Runner::Root => Some(PathBuf::from(SYSTEM)),
        Runner::Other => {
            let home = || path("HOME").map(|home| home.join(".local/state"));
            let base = path("XDG_STATE_HOME").map(Path::to_owned).or_else(home);
            base.map(|base| base.join(OURS))
        }
    };
    of_systemd.map(Path::to_owned).or_else(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_lies_where_the_system_or_the_user_keeps_it() {
        let (root, other) = (Runner::Root, Runner::Other);
        let cases = [
            ("STATE_DIRECTORY=/var/lib/a:/var/lib/b", other, Some("/var/lib/a")),
            ("STATE_DIRECTORY=/s HOME=/root", root, Some("/s")),
            ("HOME=/root", root, Some("/var/lib/pgsteer")),
            ("HOME=/home/u XDG_STATE_HOME=/x", other, Some("/x/pgsteer")),
            ("HOME=/u XDG_STATE_HOME=relative", other, Some("/u/.local/state/pgsteer")),
            ("", other, None),
        ];
        for (env, runner, expected) in cases {
            let pairs = env.split_whitespace().filter_map(|pair| pair.split_once('='));
            let env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(directory(&env, runner).as_deref(), expected.map(Path::new), "{env:?}");
        }
    }
}
