//! What the operator chose about pooling.

use std::time::Duration;

/// `[pool]`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a session keeps a backend.
    pub mode: Mode,
    /// Most backends for one (server, database, user).
    pub size: u32,
    /// Most clients at a time; one more is refused with 53300.
    pub max_clients: u32,
    /// Longest wait for a backend to come free, then 53300.
    pub wait_timeout: Duration,
    /// A backend that rested so long is closed.
    pub idle_timeout: Duration,
    /// A backend that lived so long is closed when it comes free.
    pub max_lifetime: Duration,
    /// What keeps one session's state from the next.
    pub reset: Reset,
    /// What becomes of statements without a name.
    pub unnamed: UnnamedStatements,
    /// One of so many backends that were found clean without asking the server is asked about all
    /// the same; 0: none.
    pub audit_every: u32,
}

/// How long a session keeps a backend: `pool.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For one transaction.
    Transaction,
    /// Until the client leaves.
    Session,
}

/// What keeps one session's state from the next: `pool.reset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Settings are tracked and follow their session; what can't be moved pins it.
    Tracked,
    /// The same, and a backend that was one client's own ends with it: what a server keeps of a
    /// session cannot all be undone (`DISCARD ALL` unloads no library, nor does it forget that
    /// there were temporary tables).
    Close,
    /// Nothing: only for applications that never change a session's state.
    Off,
}

/// What becomes of statements without a name: `pool.unnamed_statements`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnnamedStatements {
    /// Each is prepared anew, as the client says.
    Pass,
    /// A backend that holds one of the same text, which means the same, is not asked to prepare
    /// it again.
    Reuse,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Transaction,
            size: 20,
            max_clients: 10_000,
            wait_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(10),
            max_lifetime: Duration::from_hours(1),
            reset: Reset::Tracked,
            unnamed: UnnamedStatements::Pass,
            audit_every: 100,
        }
    }
}
