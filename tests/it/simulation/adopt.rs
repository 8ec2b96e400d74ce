//! What another tool did is followed, as the control plane does: once the recorded primary is in
//! recovery or gone for certain.

use super::plan::name;
use super::world::World;
use pgsteer::failover::{
    Appointed, By, Change, Kind, Loss, Phase, Promise, Record, Sight, Standing, WeakPromise,
};
use pgsteer::pg::Timeline;
use pgsteer::topology::Epoch;
use std::sync::Arc;
use std::time::Duration;

/// A primary that is gone for so long may be followed by one that another tool promoted.
const GONE_AFTER: Duration = Duration::from_millis(500);

impl World {
    /// What a primary promises, by its settings.
    pub(super) fn promise_of(&self, server: usize) -> Promise {
        let own = &self.servers[server];
        if own.fenced {
            return Promise::Asynchronous(WeakPromise::UnknownName(Arc::from("fence")));
        }
        let others = (0..self.servers.len()).filter(|other| *other != server);
        match own.quorum {
            Some(w) => Promise::Quorum { w, cohort: others.map(name).collect() },
            None => Promise::Asynchronous(WeakPromise::NoNames),
        }
    }

    /// Records a primary that somebody else made, if there is one to follow.
    pub(super) fn adopted(&mut self) -> bool {
        let record = &self.proxy.record;
        if record.phase != Phase::Stable || !self.is_vacant() {
            return false;
        }
        let recorded = record.primary.timeline;
        let mut heirs = (0..self.servers.len()).filter_map(|server| {
            let seen = &self.proxy.seen[server];
            let Sight::Answers(answer) = &seen.sight else { return None };
            let Standing::Primary { .. } = answer.role else { return None };
            let timeline = answer.timeline.filter(|timeline| *timeline > recorded)?;
            let history = seen.answer.as_ref()?.history.as_ref()?;
            history.knows(recorded).then_some((server, timeline))
        });
        let (Some((server, timeline)), None) = (heirs.next(), heirs.next()) else { return false };
        let next = self.followed(server, timeline);
        self.tell(|_| format!("server {server} was promoted by another tool"));
        self.write(next, Vec::new());
        true
    }

    fn is_vacant(&self) -> bool {
        let Some(primary) = self.recorded() else { return true };
        match &self.proxy.seen[primary].sight {
            Sight::Awaited => false,
            Sight::Answers(answer) => match answer.role {
                Standing::Standby { .. } => true,
                // It was promoted anew.
                Standing::Primary { .. } => {
                    answer.timeline > Some(self.proxy.record.primary.timeline)
                }
            },
            Sight::Missing(missing) => {
                missing.gone >= 2 && missing.silent.is_some_and(|silent| silent >= GONE_AFTER)
            }
        }
    }

    fn followed(&self, server: usize, timeline: Timeline) -> Record {
        let earlier = &self.proxy.record;
        let epoch = Epoch(earlier.epoch.0 + 1);
        let primary = Appointed {
            server: name(server),
            epoch,
            system: earlier.primary.system,
            timeline,
            fork: None,
        };
        let change = Change {
            epoch,
            kind: Kind::Failover,
            by: By::Outside,
            from: Some(Arc::clone(&earlier.primary.server)),
            to: name(server),
            timeline,
            fork: None,
            loss: Loss::Unknown { at_least: 0 },
            began: self.now,
            ended: self.now,
        };
        let promise = Promise::Asynchronous(WeakPromise::NotSeen);
        Record { epoch, ..earlier.settled(primary, promise, change) }
    }
}
