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
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major(), self.0 % 10_000)
    }
}
