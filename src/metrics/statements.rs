//! Statements: how many, how long, where to and why.

use crate::metrics::catalogue;
use crate::metrics::family::{Builder, ByLabel, ByServer, by_label, by_labels};
use crate::metrics::label::{
    ErrorOrigin, GuardOutcome, QueryKind, ServedBy, SqlStateClass, WaitOutcome,
};
use crate::pg::SqlState;
use crate::route::Why;
use crate::topology::ServerId;
use prometheus::{Histogram, IntCounter};
use std::time::Duration;

/// What statements do.
#[derive(Debug)]
pub struct Statements {
    sent: ByServer<ByLabel<QueryKind, IntCounter>>,
    time: ByLabel<ServedBy, ByLabel<QueryKind, Histogram>>,
    errors: ByLabel<ErrorOrigin, ByLabel<SqlStateClass, IntCounter>>,
    routes: ByLabel<ServedBy, ByLabel<Why, IntCounter>>,
    lsn_wait: ByLabel<WaitOutcome, Histogram>,
    guards: ByLabel<GuardOutcome, IntCounter>,
    /// Reads that would have been too old where they were first considered.
    pub stale_prevented: IntCounter,
    /// Sessions that were warned that their last writes may be lost.
    pub positions_lost: IntCounter,
    /// Reads that were run again elsewhere.
    pub retries: IntCounter,
}

impl Statements {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            sent: build.by_server_and(&build.int_counters(&catalogue::QUERIES)?)?,
            time: by_labels(&build.histograms(&catalogue::QUERY_TIME)?)?,
            errors: by_labels(&build.int_counters(&catalogue::ERRORS)?)?,
            routes: by_labels(&build.int_counters(&catalogue::ROUTES)?)?,
            lsn_wait: by_label(&build.histograms(&catalogue::LSN_WAIT)?)?,
            guards: by_label(&build.int_counters(&catalogue::GUARDS)?)?,
            stale_prevented: build.int_counter(&catalogue::STALE_PREVENTED)?,
            positions_lost: build.int_counter(&catalogue::POSITIONS_LOST)?,
            retries: build.int_counter(&catalogue::READ_RETRIES)?,
        })
    }

    /// A group went to a server.
    pub fn sent(&self, server: ServerId, kind: QueryKind) {
        if let Some(kinds) = self.sent.get(server) {
            kinds.inc(kind);
        }
    }

    /// A group was answered so long after it had arrived.
    pub fn answered(&self, by: ServedBy, kind: QueryKind, time: Duration) {
        if let Some(kinds) = self.time.get(by) {
            kinds.observe(kind, time.as_secs_f64());
        }
    }

    /// A client was sent an error.
    pub fn failed(&self, origin: ErrorOrigin, code: SqlState) {
        if let Some(classes) = self.errors.get(origin) {
            classes.inc(SqlStateClass::of(code));
        }
    }

    /// A group was routed.
    pub fn routed(&self, target: ServedBy, why: Why) {
        if let Some(reasons) = self.routes.get(target) {
            reasons.inc(why);
        }
    }

    /// How many groups were routed there for this reason.
    pub fn count_routed(&self, target: ServedBy, why: Why) -> u64 {
        let reasons = self.routes.get(target);
        reasons.and_then(|reasons| reasons.get(why)).map_or(0, IntCounter::get)
    }

    /// A read waited for a standby to replay the session's floor.
    pub fn waited_for_replay(&self, outcome: WaitOutcome, time: Duration) {
        self.lsn_wait.observe(outcome, time.as_secs_f64());
    }

    /// A session moved from a standby to the primary under the guard.
    pub fn guarded(&self, outcome: GuardOutcome) {
        self.guards.inc(outcome);
    }
}
