//! Making a standby the primary, without the five seconds that it may sleep first.
//!
//! `pg_promote()` right after the primary was lost stalls in about a third of all cases: the
//! startup process sleeps for `wal_retrieve_retry_interval` and misses it (measured on 15, 17 and
//! 18: 9 of 26, each some 5 s). A reload wakes it, so one is sent every [`NUDGE`].

use crate::clock;
use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::hands::setting::{RELOAD, first};
use crate::control::hands::way::Way;
use crate::pg::{Lsn, Timeline};
use crate::topology::Role;
use std::time::Duration;

/// A standby became the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promoted {
    /// The branch that it writes.
    pub timeline: Timeline,
    /// Where that left its parent; `None` where our user can't read the history.
    pub fork: Option<Lsn>,
}

const IN_RECOVERY: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// Without waiting: with it, the answer comes in steps of 100 ms.
const PROMOTE: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_promote(false) END";

/// Between two questions whether it is done.
const PACE: Duration = Duration::from_millis(1);

/// Between two wakings of the startup process.
const NUDGE: Duration = Duration::from_millis(25);

/// Promotes a standby; one that is the primary already needs nothing. It replays whatever it has
/// received first, which takes its time.
///
/// Given up, the promotion may still happen.
pub(super) async fn promote(line: &mut Line<'_>) -> Result<Promoted, HandError> {
    // While replay is paused, promotion waits for the end of a sleep of one second.
    let mut way = Way::open(line).await?;
    line.ask(PROMOTE).await?;
    let mut nudged = clock::now();
    while first(&line.ask(IN_RECOVERY).await?) != Some("f") {
        if clock::now().since(nudged) >= NUDGE {
            line.ask(RELOAD).await?;
            nudged = clock::now();
        }
        way.clear(line).await?;
        line.pause(PACE).await?;
    }
    let look = line.look().await?;
    match (look.role, look.timeline) {
        (Role::Primary, Some(timeline)) => {
            let history = look.history.as_ref();
            let fork = history.and_then(|history| history.forks().last()).map(|fork| fork.at);
            Ok(Promoted { timeline, fork })
        }
        (Role::Primary | Role::Standby, _) => Err(HandError::Answer("look")),
    }
}
