//! Clients: how many, what they do, what they wait for.

use crate::metrics::catalogue;
use crate::metrics::cells::{Level, Tally};
use crate::metrics::each::Each;
use crate::metrics::family::{Builder, ByLabel, by_label};
use crate::metrics::label::{Admission, ClientState, HoldOutcome, LostWork};
use crate::metrics::statements::Holder;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use std::time::Duration;

/// What clients do.
#[derive(Debug)]
pub struct Clients {
    states: Each<ClientState, Level>,
    admissions: ByLabel<Admission, IntCounter>,
    wait: Histogram,
    hold: ByLabel<HoldOutcome, Histogram>,
    lost_work: ByLabel<LostWork, IntCounter>,
    /// Bytes of statements that wait.
    pub held_bytes: IntGauge,
    oldest_wait: Gauge,
    /// Bytes from clients.
    pub received: Tally,
    /// Bytes to clients.
    pub sent: Tally,
    /// Most clients at a time.
    pub limit: IntGauge,
}

/// One logged-in client, counted in the state that it is in as long as this lives.
#[derive(Debug)]
pub struct Presence {
    states: Each<ClientState, Level>,
    state: ClientState,
    /// Counts its prepared statements.
    pub prepared: Holder,
}

impl Clients {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            states: build.levels(&catalogue::CLIENTS)?,
            admissions: by_label(&build.int_counters(&catalogue::ADMISSIONS)?)?,
            hold: by_label(&build.histograms(&catalogue::HOLD)?)?,
            lost_work: by_label(&build.int_counters(&catalogue::LOST_WORK)?)?,
            held_bytes: build.int_gauge(&catalogue::HELD_BYTES)?,
            wait: build.histogram(&catalogue::CLIENT_WAIT)?,
            oldest_wait: build.gauge(&catalogue::CLIENT_OLDEST_WAIT)?,
            received: build.tally(&catalogue::RECEIVED)?,
            sent: build.tally(&catalogue::SENT)?,
            limit: build.int_gauge(&catalogue::CLIENT_LIMIT)?,
        })
    }

    /// A client's connection began, and how.
    pub fn admit(&self, how: Admission) {
        self.admissions.inc(how);
    }

    /// A client is logged in.
    pub fn arrive(&self, prepared: Holder) -> Presence {
        let states = self.states.clone();
        let presence = Presence { states, state: ClientState::Idle, prepared };
        presence.shift(1);
        presence
    }

    /// A statement queued so long for a backend.
    pub fn waited(&self, time: Duration) {
        self.wait.observe(time.as_secs_f64());
    }

    /// A statement was held so long for want of a primary.
    pub fn held(&self, outcome: HoldOutcome, time: Duration) {
        self.hold.observe(outcome, time.as_secs_f64());
    }

    /// A session's server was lost, and this became of what it did.
    pub fn lost(&self, work: LostWork) {
        self.lost_work.inc(work);
    }

    /// The first of those who queue for a backend has waited so long.
    pub fn set_oldest_wait(&self, time: Duration) {
        self.oldest_wait.set(time.as_secs_f64());
    }

    /// How many are in a state.
    pub fn count(&self, state: ClientState) -> u64 {
        u64::try_from(self.states.get(state)).unwrap_or(0)
    }
}

impl Presence {
    /// It does something else now; what it did before.
    pub fn turn(&mut self, state: ClientState) -> ClientState {
        let before = self.state;
        if state != before {
            self.shift(-1);
            self.state = state;
            self.shift(1);
        }
        before
    }

    fn shift(&self, by: i64) {
        self.states.add(self.state, by);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shift(-1);
    }
}
