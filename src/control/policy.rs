//! What the operator chose about watching the servers.

use crate::route::LagLimit;
use std::time::Duration;

/// `[servers]` as far as watching goes, and the lag limits, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Pause between two looks at a server.
    pub check_interval: Duration,
    /// Longest wait for its answer.
    pub check_timeout: Duration,
    /// A primary that refuses connections, or is gone, for so long may be replaced by a
    /// promoted standby.
    pub gone_after: Duration,
    /// A primary that is merely silent for so long, and from which no standby streams, may be
    /// replaced by a promoted standby.
    pub silent_after: Duration,
    /// How far behind a standby may be and still serve reads.
    pub max_lag: LagLimit,
    /// Oldest observation that still counts.
    pub observation_age_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_millis(250),
            check_timeout: Duration::from_secs(1),
            gone_after: Duration::from_millis(500),
            silent_after: Duration::from_secs(5),
            max_lag: LagLimit { bytes: Some(16 * 1024 * 1024), time: Some(Duration::from_secs(1)) },
            observation_age_max: Duration::from_secs(2),
        }
    }
}
