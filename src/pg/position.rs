//! Where a server stands in a history: the system, the branch of its log, and the place on it.

use crate::pg::Lsn;
use std::fmt;

/// The number that `initdb` gave a set of servers: equal for a primary and all its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

/// A branch of the write-ahead log. Each promotion starts a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

/// A place in one history. Deliberately not `Ord`: after a promotion a larger LSN on the new
/// timeline may lack a write that a smaller one on the old timeline held, so two positions are
/// only ever compared through a [`crate::topology::History`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Whose log.
    pub system: SystemId,
    /// Which branch of it.
    pub timeline: Timeline,
    /// How far.
    pub lsn: Lsn,
}

impl fmt::Display for SystemId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.timeline, self.lsn)
    }
}
