//! A server's version.

use std::fmt;

/// A server's version, as `server_version_num` reports it: 150018 is 15.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// The first release that is supported, PostgreSQL 13.
    pub const OLDEST_SUPPORTED: Self = Self(130_000);

    /// The major version: 15 of 15.18.
    pub const fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Whether rights on settings, and on checkpoints, can be granted.
    ///
    /// Source: release notes of PostgreSQL 15, E.1.3.1.
    pub const fn grants_settings(self) -> bool {
        self.major() >= 15
    }

    /// Whether a change of `restore_command` takes effect without a restart.
    ///
    /// Source: release notes of PostgreSQL 14, E.1.3.1.
    pub const fn reloads_restore_command(self) -> bool {
        self.major() >= 14
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major(), self.0 % 10_000)
    }
}
