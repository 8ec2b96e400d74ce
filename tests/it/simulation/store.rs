//! The store of the record: compare-and-swap, a disk that takes its time, and answers that are
//! lost.

use super::event::Event;
use super::plan::{Plan, name};
use super::world::World;
use pgsteer::failover::{Act, Appointed, Phase, Promise, Record, WeakPromise};
use pgsteer::pg::{SystemId, Timeline};
use pgsteer::topology::Epoch;

/// The system identifier of the set.
pub(super) const SYSTEM: SystemId = SystemId(7);

#[derive(Debug)]
pub(super) struct Store {
    pub record: Record,
    pub revision: u64,
    /// Until then every write fails, some of them after they were done.
    pub bad_until: u64,
}

/// A write under way.
#[derive(Debug, Clone)]
pub(super) struct Writing {
    pub next: Record,
    pub expected: u64,
    /// What the same decision asks for after it.
    pub then: Vec<Act>,
}

impl Store {
    /// What a process knows before it has read anything.
    pub(super) fn nothing() -> Record {
        let promise = Promise::Asynchronous(WeakPromise::NotSeen);
        let (epoch, timeline) = (Epoch(0), Timeline(0));
        let primary = Appointed { server: name(0), epoch, system: SYSTEM, timeline, fork: None };
        Record { epoch, phase: Phase::Stable, primary, promise, changes: Vec::new() }
    }

    pub(super) fn new(plan: &Plan) -> Self {
        let promise = match plan.quorum {
            Some(w) => Promise::Quorum { w, cohort: (1..plan.servers).map(name).collect() },
            None => Promise::Asynchronous(WeakPromise::NoNames),
        };
        let primary = Appointed {
            server: name(0),
            epoch: Epoch(1),
            system: SYSTEM,
            timeline: Timeline(1),
            fork: None,
        };
        let phase = Phase::Stable;
        let record = Record { epoch: Epoch(1), phase, primary, promise, changes: Vec::new() };
        Self { record, revision: 1, bad_until: 0 }
    }
}

impl World {
    /// Puts a record in the place of the last one.
    pub(super) fn write(&mut self, next: Record, then: Vec<Act>) {
        let expected = self.proxy.revision;
        self.proxy.writing = Some(Writing { next, expected, then });
        let run = self.proxy.run;
        let fails = self.store.bad_until > self.now;
        let takes = self.chance.between(1, 6);
        self.after(takes, Event::Stored { run, fails });
    }

    /// It lies on the disk, or does not. A process that died after it asked has still asked.
    pub(super) fn stored(&mut self, run: u64, fails: bool) {
        let writing = if run == self.proxy.run {
            self.proxy.writing.clone()
        } else {
            self.proxy.orphan.take()
        };
        let Some(Writing { next, expected, .. }) = writing else { return };
        let lost = fails && self.chance.percent(50);
        if expected == self.store.revision && !lost {
            let before = std::mem::replace(&mut self.store.record, next);
            self.store.revision += 1;
            self.tell(|world| format!("recorded: {}", told(&world.store.record)));
            self.judge_record(&before);
            self.record_changed(&before);
        }
        if run == self.proxy.run {
            let takes = self.chance.between(0, 2);
            self.after(takes, Event::StoreAnswers { run, ok: !fails });
        }
    }
}

/// A record in a line of the trace.
fn told(record: &Record) -> String {
    let primary = &record.primary;
    format!(
        "epoch {} {:?}, primary {} on {}, {:?}",
        record.epoch, record.phase, primary.server, primary.timeline, record.promise
    )
}
