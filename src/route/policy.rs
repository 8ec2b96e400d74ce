//! What the operator chose about routing.

use std::time::Duration;

/// `[routing]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Who serves reads.
    pub reads: Reads,
    /// What a session's reads must see, unless the session says otherwise.
    pub consistency: Consistency,
    /// How far behind a standby may be and still serve reads. Applied by the control plane.
    pub max_lag: LagLimit,
    /// What happens to a read for which no standby qualifies.
    pub on_all_stale: OnAllStale,
    /// How one of several qualified standbys is picked.
    pub balance: Balance,
    /// Longest wait for a standby to replay up to a session's floor, or for a floor to be
    /// resolved, before the read goes elsewhere (`on_all_stale`).
    pub replay_wait_max: Duration,
    /// Oldest observation of a standby that still counts.
    pub observation_age_max: Duration,
    /// Longest that a statement is held for want of a primary (or of any server), then 57P03.
    pub hold_max: Duration,
    /// Most memory for statements that wait, of all clients together, in bytes; one more is
    /// refused with 53400.
    pub hold_memory: u64,
    /// Functions that may run on a standby whatever the catalog says, lower case.
    pub read_functions: Vec<String>,
    /// Functions that need the primary whatever the catalog says, lower case.
    pub write_functions: Vec<String>,
}

/// Who serves reads: `routing.reads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Standbys; the primary only as `on_all_stale` says.
    Standby,
    /// Standbys and the primary alike.
    Any,
    /// The primary only.
    Primary,
}

/// What a read must see: `routing.consistency`, `pgsteer.consistency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consistency {
    /// Whatever a standby within `max_lag` has replayed.
    Eventual,
    /// At least everything that this session wrote and saw before.
    Session,
    /// The primary's own answer.
    Primary,
}

/// What a session wished for: `pgsteer.role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RoleWish {
    /// As the statement demands.
    #[default]
    Auto,
    /// Everything to the primary.
    Primary,
    /// Reads to a standby; what is no read is refused.
    Standby,
}

/// How far behind a standby may be: past either limit it gets no reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LagLimit {
    /// Bytes of log between the primary's flush position and its replay position.
    pub bytes: Option<u64>,
    /// Age of the newest primary position that it has replayed past.
    pub time: Option<Duration>,
}

/// What happens when no standby qualifies: `routing.on_all_stale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAllStale {
    /// The primary answers.
    Primary,
    /// The read waits for one, up to `hold_max`.
    Wait,
    /// The read fails at once.
    Error,
}

/// How a standby is picked: `routing.balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest statements under way, relative to its weight.
    LeastActive,
    /// By weight alone, in turn.
    Weighted,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reads: Reads::Standby,
            consistency: Consistency::Session,
            max_lag: LagLimit { bytes: Some(16 * 1024 * 1024), time: Some(Duration::from_secs(1)) },
            on_all_stale: OnAllStale::Primary,
            balance: Balance::LeastActive,
            replay_wait_max: Duration::from_millis(50),
            observation_age_max: Duration::from_secs(2),
            hold_max: Duration::from_secs(10),
            hold_memory: 128 * 1024 * 1024,
            read_functions: Vec::new(),
            write_functions: Vec::new(),
        }
    }
}
