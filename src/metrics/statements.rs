//! Statements: how many, how long, where to and why.

use crate::metrics::catalogue;
use crate::metrics::cells::{Tally, Times};
use crate::metrics::family::{Builder, ByLabel, ByServer, by_label, by_labels};
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
    sent: ByServer<ByLabel<QueryKind, Tally>>,
    time: ByLabel<ServedBy, ByLabel<QueryKind, Times>>,
    errors: ByLabel<ErrorOrigin, ByLabel<SqlStateClass, IntCounter>>,
    routes: ByLabel<ServedBy, ByLabel<Why, Tally>>,
    lsn_wait: ByLabel<WaitOutcome, Histogram>,
    guards: ByLabel<GuardOutcome, IntCounter>,
    server_time: ByServer<Times>,
    transactions: ByServer<ByLabel<TransactionOutcome, Tally>>,
    prepared: ByLabel<StatementSide, IntGauge>,
    prepared_cache: ByLabel<CacheResult, Tally>,
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
            sent: build.server_tallies(&catalogue::QUERIES)?,
            time: build.times_by(&catalogue::QUERY_TIME)?,
            errors: by_labels(&build.int_counters(&catalogue::ERRORS)?)?,
            routes: build.tallies_by(&catalogue::ROUTES)?,
            lsn_wait: by_label(&build.histograms(&catalogue::LSN_WAIT)?)?,
            guards: by_label(&build.int_counters(&catalogue::GUARDS)?)?,
            server_time: build.server_times(&catalogue::SERVER_QUERY_TIME)?,
            transactions: build.server_tallies(&catalogue::TRANSACTIONS)?,
            prepared: by_label(&build.int_gauges(&catalogue::PREPARED)?)?,
            prepared_cache: build.tallies(&catalogue::PREPARED_CACHE)?,
            stale_prevented: build.tally(&catalogue::STALE_PREVENTED)?,
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
            kinds.observe(kind, time);
        }
    }

    /// A server answered a group so long after it was sent.
    pub fn served(&self, server: ServerId, time: Duration) {
        if let Some(times) = self.server_time.get(server) {
            times.observe(time);
        }
    }

    /// A transaction ended.
    pub fn ended(&self, server: ServerId, outcome: TransactionOutcome) {
        if let Some(outcomes) = self.transactions.get(server) {
            outcomes.inc(outcome);
        }
    }

    /// So many named statements were used whose backend held them, or not, or gave one up.
    pub fn prepared(&self, result: CacheResult, count: u32) {
        if let Some(counter) = self.prepared_cache.get(result).filter(|_| count > 0) {
            counter.inc_by(u64::from(count));
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
        if let Some(reasons) = self.routes.get(target) {
            reasons.inc(why);
        }
    }

    /// How many groups were routed there for this reason.
    pub fn count_routed(&self, target: ServedBy, why: Why) -> u64 {
        let reasons = self.routes.get(target);
        reasons.and_then(|reasons| reasons.get(why)).map_or(0, Tally::get)
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
