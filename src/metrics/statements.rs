//! Statements: how many, how long, where to and why.

use crate::metrics::catalogue;
use crate::metrics::cells::{Tally, Times};
use crate::metrics::each::Each;
use crate::metrics::family::{Builder, ByLabel, by_label, by_labels};
use crate::metrics::label::{
    CacheResult, ErrorOrigin, GuardOutcome, QueryKind, ServedBy, SqlStateClass, StatementSide,
    TransactionOutcome, WaitOutcome,
};
use crate::pg::SqlState;
use crate::route::Why;
use crate::topology::ServerId;
use prometheus::{Histogram, IntCounter, IntGauge};
use std::time::Duration;

/// What statements do.
#[derive(Debug)]
pub struct Statements {
    sent: Each<(ServerId, QueryKind), Tally>,
    time: Each<(ServedBy, QueryKind), Times>,
    errors: ByLabel<ErrorOrigin, ByLabel<SqlStateClass, IntCounter>>,
    routes: Each<(ServedBy, Why), Tally>,
    lsn_wait: ByLabel<WaitOutcome, Histogram>,
    guards: ByLabel<GuardOutcome, IntCounter>,
    server_time: Each<ServerId, Times>,
    transactions: Each<(ServerId, TransactionOutcome), Tally>,
    prepared: ByLabel<StatementSide, IntGauge>,
    prepared_cache: Each<CacheResult, Tally>,
    /// Reads that would have been too old where they were first considered.
    pub stale_prevented: Tally,
    /// Sessions that were warned that their last writes may be lost.
    pub positions_lost: IntCounter,
    /// Reads that were run again elsewhere.
    pub retries: IntCounter,
}

/// One who holds named statements; dropped, it holds none.
#[derive(Debug, Default)]
pub struct Holder {
    gauge: Option<IntGauge>,
    held: i64,
}

impl Holder {
    /// It holds so many now.
    pub fn hold(&mut self, statements: usize) {
        let now = i64::try_from(statements).unwrap_or(i64::MAX);
        if now != self.held
            && let Some(gauge) = &self.gauge
        {
            gauge.add(now - self.held);
            self.held = now;
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.hold(0);
    }
}

impl Statements {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            sent: build.tallies(&catalogue::QUERIES)?,
            time: build.times(&catalogue::QUERY_TIME)?,
            errors: by_labels(&build.int_counters(&catalogue::ERRORS)?)?,
            routes: build.tallies(&catalogue::ROUTES)?,
            lsn_wait: by_label(&build.histograms(&catalogue::LSN_WAIT)?)?,
            guards: by_label(&build.int_counters(&catalogue::GUARDS)?)?,
            server_time: build.times(&catalogue::SERVER_QUERY_TIME)?,
            transactions: build.tallies(&catalogue::TRANSACTIONS)?,
            prepared: by_label(&build.int_gauges(&catalogue::PREPARED)?)?,
            prepared_cache: build.tallies(&catalogue::PREPARED_CACHE)?,
            stale_prevented: build.tally(&catalogue::STALE_PREVENTED)?,
            positions_lost: build.int_counter(&catalogue::POSITIONS_LOST)?,
            retries: build.int_counter(&catalogue::READ_RETRIES)?,
        })
    }

    /// A group went to a server.
    pub fn sent(&self, server: ServerId, kind: QueryKind) {
        self.sent.inc((server, kind));
    }

    /// A group was answered so long after it had arrived.
    pub fn answered(&self, by: ServedBy, kind: QueryKind, time: Duration) {
        self.time.observe((by, kind), time);
    }

    /// A server answered a group so long after it was sent.
    pub fn served(&self, server: ServerId, time: Duration) {
        self.server_time.observe(server, time);
    }

    /// A transaction ended.
    pub fn ended(&self, server: ServerId, outcome: TransactionOutcome) {
        self.transactions.inc((server, outcome));
    }

    /// So many named statements were used whose backend held them, or not, or gave one up.
    pub fn prepared(&self, result: CacheResult, count: u32) {
        if count > 0 {
            self.prepared_cache.inc_by(result, u64::from(count));
        }
    }

    /// Counts the named statements of one client, or of one backend.
    pub fn holder(&self, side: StatementSide) -> Holder {
        Holder { gauge: self.prepared.get(side).cloned(), held: 0 }
    }

    /// A client was sent an error.
    pub fn failed(&self, origin: ErrorOrigin, code: SqlState) {
        if let Some(classes) = self.errors.get(origin) {
            classes.inc(SqlStateClass::of(code));
        }
    }

    /// A group was routed.
    pub fn routed(&self, target: ServedBy, why: Why) {
        self.routes.inc((target, why));
    }

    /// How many groups were routed there for this reason.
    pub fn count_routed(&self, target: ServedBy, why: Why) -> u64 {
        self.routes.get((target, why))
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
