//! Changes of the primary: whether one may happen, how far one has come, what the last one cost.

use crate::failover;
use crate::failover::{By, Change, Kind, Loss, Mode, Phase, Promise, Record, Why};
use crate::metrics::catalogue;
use crate::metrics::family::{Builder, ByLabel, by_label, by_labels};
use crate::metrics::label::{
    Blocked, ChangeBy, ChangeKind, FailoverMode, FailoverPhase, Label, PromiseKind, SwapResult,
};
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What is seen of failovers.
#[derive(Debug)]
pub struct Failover {
    mode: ByLabel<FailoverMode, IntGauge>,
    available: IntGauge,
    armed: IntGauge,
    /// Whether it would be armed in mode `auto`.
    ready: AtomicBool,
    promise: ByLabel<PromiseKind, IntGauge>,
    phase: ByLabel<FailoverPhase, IntGauge>,
    blocked: ByLabel<Blocked, IntGauge>,
    changes: ByLabel<ChangeKind, ByLabel<ChangeBy, IntCounter>>,
    called_off: ByLabel<ChangeKind, IntCounter>,
    phase_time: ByLabel<FailoverPhase, Histogram>,
    change_time: ByLabel<ChangeKind, Histogram>,
    prepared: IntGauge,
    last: Gauge,
    last_loss: Gauge,
    swaps: ByLabel<SwapResult, Histogram>,
}

/// Whether `auto` has everything that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisites {
    /// It has.
    Complete,
    /// Something is missing.
    Lacking,
}

impl Failover {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        let failover = Self {
            mode: by_label(&build.int_gauges(&catalogue::FAILOVER_MODE)?)?,
            available: build.int_gauge(&catalogue::FAILOVER_AVAILABLE)?,
            armed: build.int_gauge(&catalogue::FAILOVER_ARMED)?,
            ready: AtomicBool::new(false),
            promise: by_label(&build.int_gauges(&catalogue::FAILOVER_PROMISE)?)?,
            phase: by_label(&build.int_gauges(&catalogue::FAILOVER_PHASE)?)?,
            blocked: by_label(&build.int_gauges(&catalogue::FAILOVER_BLOCKED)?)?,
            changes: by_labels(&build.int_counters(&catalogue::CHANGES)?)?,
            called_off: by_label(&build.int_counters(&catalogue::CALLED_OFF)?)?,
            phase_time: by_label(&build.histograms(&catalogue::PHASE_TIME)?)?,
            change_time: by_label(&build.histograms(&catalogue::CHANGE_TIME)?)?,
            prepared: build.int_gauge(&catalogue::PREPARED_LEFT)?,
            last: build.gauge(&catalogue::LAST_CHANGE)?,
            last_loss: build.gauge(&catalogue::LAST_LOSS)?,
            swaps: by_label(&build.histograms(&catalogue::STORE_TIME)?)?,
        };
        failover.set_mode(failover::Policy::default().mode);
        only(&failover.promise, Some(PromiseKind::Unknown));
        only(&failover.phase, Some(FailoverPhase::Stable));
        failover.show_last(None);
        Ok(failover)
    }

    /// The operator chose who may begin a failover.
    pub fn set_mode(&self, mode: Mode) {
        let mode = match mode {
            Mode::Off => FailoverMode::Off,
            Mode::Manual => FailoverMode::Manual,
            Mode::Auto => FailoverMode::Auto,
        };
        only(&self.mode, Some(mode));
        self.show_armed();
    }

    /// Shows how it stands: what is recorded, and why nothing more is done.
    pub fn show(&self, record: Option<&Record>, why: Option<&Why>, has: Prerequisites) {
        self.available.set(i64::from(record.is_some()));
        self.ready.store(record.is_some() && has == Prerequisites::Complete, Ordering::Relaxed);
        self.show_armed();
        let promise = record.map_or(PromiseKind::Unknown, |record| match record.promise {
            Promise::Quorum { .. } => PromiseKind::Quorum,
            Promise::Asynchronous(_) => PromiseKind::Asynchronous,
        });
        only(&self.promise, Some(promise));
        only(
            &self.phase,
            Some(record.map_or(FailoverPhase::Stable, |record| phase(&record.phase))),
        );
        only(&self.blocked, why.and_then(blocked));
        self.show_last(record.and_then(|record| record.changes.last()));
    }

    /// So many prepared transactions are left over on the primary.
    pub fn show_prepared(&self, count: usize) {
        self.prepared.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Nothing can be recorded any more.
    pub fn unavailable(&self) {
        self.available.set(0);
        self.ready.store(false, Ordering::Relaxed);
        self.show_armed();
    }

    /// A change spent so long in a phase.
    pub fn left_phase(&self, left: &Phase, after: Duration) {
        if *left != Phase::Stable {
            self.phase_time.observe(phase(left), after.as_secs_f64());
        }
    }

    /// A change was completed; `None`: others made it, and it is not known how long it took.
    pub fn changed(&self, change: &Change, took: Option<Duration>) {
        let by = match change.by {
            By::Evidence => ChangeBy::Evidence,
            By::Operator => ChangeBy::Operator,
            By::Outside => ChangeBy::Outside,
        };
        if let Some(counters) = self.changes.get(kind(change.kind)) {
            counters.inc(by);
        }
        if let Some(took) = took {
            self.change_time.observe(kind(change.kind), took.as_secs_f64());
        }
    }

    /// A change was begun, and undone.
    pub fn called_off(&self, what: Kind) {
        self.called_off.inc(kind(what));
    }

    /// A swap of the record came to its end after so long.
    pub fn swapped(&self, result: SwapResult, took: Duration) {
        self.swaps.observe(result, took.as_secs_f64());
    }

    fn show_armed(&self) {
        let is_auto = self.mode.get(FailoverMode::Auto).is_some_and(|auto| auto.get() == 1);
        self.armed.set(i64::from(is_auto && self.ready.load(Ordering::Relaxed)));
    }

    fn show_last(&self, change: Option<&Change>) {
        let seconds = |change: &Change| Duration::from_secs(change.ended).as_secs_f64();
        self.last.set(change.map_or(f64::NAN, seconds));
        self.last_loss.set(change.map_or(f64::NAN, |change| match change.loss {
            Loss::None => 0.0,
            Loss::AtMost(bytes) => float(bytes),
            Loss::Unknown { .. } => f64::NAN,
        }));
    }
}

const fn kind(kind: Kind) -> ChangeKind {
    match kind {
        Kind::Failover => ChangeKind::Failover,
        Kind::Switchover => ChangeKind::Switchover,
    }
}

const fn phase(phase: &Phase) -> FailoverPhase {
    match phase {
        Phase::Stable => FailoverPhase::Stable,
        Phase::Draining(_) => FailoverPhase::Draining,
        Phase::Revoking(_) => FailoverPhase::Revoking,
        Phase::Promoting(..) => FailoverPhase::Promoting,
    }
}

/// What is waited for, where that keeps a lost primary from being replaced.
const fn blocked(why: &Why) -> Option<Blocked> {
    Some(match why {
        Why::Manual(_) => Blocked::Manual,
        Why::Off(_) => Blocked::Off,
        Why::Disarmed(_) => Blocked::Disarmed,
        Why::Evidence(_) | Why::HandedOver => Blocked::Evidence,
        Why::Grace => Blocked::Grace,
        Why::TooSoon => Blocked::TooSoon,
        Why::PromotedElsewhere(_) | Why::Barred { .. } => Blocked::PromotedElsewhere,
        Why::NotRevoked { .. } => Blocked::NotRevoked,
        Why::NoCandidate(_) => Blocked::NoCandidate,
        Why::TooMuchLoss { .. } => Blocked::TooMuchLoss,
        Why::CannotCatchUp { .. } => Blocked::CannotCatchUp,
        Why::ChosenLost(_)
        | Why::MayFollow { .. }
        | Why::NotTaken { .. }
        | Why::SeveralPrimaries(_) => Blocked::ChosenLost,
        Why::AllWell
        | Why::PromiseChanged
        | Why::Repairing(_)
        | Why::Fencing
        | Why::CuttingOff(_)
        | Why::Claiming(_)
        | Why::Freezing
        | Why::CatchingUp { .. }
        | Why::Chosen(_)
        | Why::Promoting(_)
        | Why::Proving(_)
        | Why::Admitting(_)
        | Why::Checkpointing
        | Why::Draining { .. }
        | Why::Handing
        | Why::Tail(_)
        | Why::Aborting(_) => return None,
    })
}

/// 1 for this value, 0 for all others.
fn only<L: Label + PartialEq>(gauges: &ByLabel<L, IntGauge>, is: Option<L>) {
    for value in L::ALL {
        gauges.set(*value, i64::from(Some(*value) == is));
    }
}

/// Prometheus knows only this kind of number; past 2^53 bytes it loses the last digits.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "the format has no other")]
const fn float(number: u64) -> f64 {
    number as f64
}
