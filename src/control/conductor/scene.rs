//! From what is remembered to the situation that `failover::decide` is given. Pure.

use crate::clock::Moment;
use crate::control::adopt;
use crate::control::fold::Appointment;
use crate::control::footing::Quorum;
use crate::failover::{
    Acknowledged, Appointed, By, Change, Kind, Loss, Phase, Promise, Record, WeakPromise,
};
use crate::topology::{NoPrimary, PrimarySample, ServerId, Succession};
use std::sync::Arc;

/// The primary that `control` found before anything was recorded, or that somebody else made.
pub(super) fn recorded(
    earlier: Option<&Record>,
    found: adopt::Record,
    server: &Arc<str>,
    unix_now: u64,
) -> Record {
    let primary = Appointed {
        server: Arc::clone(server),
        epoch: found.epoch,
        system: found.system,
        timeline: found.timeline,
        fork: found.fork,
    };
    let promise = Promise::Asynchronous(WeakPromise::NotSeen);
    let Some(earlier) = earlier else {
        let phase = Phase::Stable;
        return Record { epoch: found.epoch, phase, primary, promise, changes: Vec::new() };
    };
    let change = Change {
        epoch: found.epoch,
        kind: Kind::Failover,
        by: By::Outside,
        from: Some(Arc::clone(&earlier.primary.server)),
        to: Arc::clone(server),
        timeline: found.timeline,
        fork: found.fork,
        loss: Loss::Unknown { at_least: 0 },
        began: unix_now,
        ended: unix_now,
    };
    Record { epoch: found.epoch, ..earlier.settled(primary, promise, change) }
}

/// What the rest of the control plane is to know of a record.
pub(super) fn appointment(
    before: Option<&Record>,
    record: &Record,
    seen: Option<&Promise>,
    names: &[Arc<str>],
) -> Appointment {
    let at = names.iter().position(|name| *name == record.primary.server);
    let server = at.and_then(|at| u16::try_from(at).ok()).map(ServerId);
    let changing = record.operation().map(|operation| match operation.kind {
        Kind::Failover => NoPrimary::Failover,
        Kind::Switchover => NoPrimary::Switchover,
    });
    Appointment {
        record: server.map(|server| adopt::Record {
            server,
            system: record.primary.system,
            timeline: record.primary.timeline,
            fork: record.primary.fork,
            epoch: record.primary.epoch,
        }),
        changing,
        epochs_used: record.epoch,
        succession: before.map_or(Succession::Unproven, |before| succession(before, record)),
        quorum: quorum(seen, &record.promise, names),
    }
}

/// Who confirms the primary's commits: by its settings of now, else as it was recorded.
pub(super) fn quorum(
    seen: Option<&Promise>,
    recorded: &Promise,
    names: &[Arc<str>],
) -> Option<Quorum> {
    let of = |promise: &Promise| match promise {
        Promise::Quorum { w, cohort } => {
            let ids = (0..).map(ServerId).zip(names);
            let cohort = ids.filter(|(_, name)| cohort.contains(*name)).map(|(id, _)| id);
            Some(Quorum { w: usize::from(*w), cohort: cohort.collect() })
        }
        Promise::Asynchronous(_) => None,
    };
    seen.and_then(of).or_else(|| of(recorded))
}

/// Whether the present primary has the whole log of the one before.
///
/// Only a switchover shows that: nobody worked any more, the log was at its end, and whoever was
/// promoted held it to there. After a failover what was not asked for in time stays unknown.
fn succession(before: &Record, record: &Record) -> Succession {
    let Some((last, earlier)) = record.changes.split_last() else { return Succession::Unproven };
    let planned = last.kind == Kind::Switchover && last.by != By::Outside;
    let next = last.epoch == record.primary.epoch
        && last.from.as_ref() == Some(&before.primary.server)
        && earlier.last() == before.changes.last();
    if planned && next && last.loss == Loss::None {
        Succession::Whole
    } else {
        Succession::Unproven
    }
}

/// What the primary is known to have acknowledged: a position that was asked for after the last
/// acknowledgement covers it.
pub(super) fn acknowledged(
    record: &Record,
    newest: Option<PrimarySample>,
    last: Moment,
) -> Acknowledged {
    let Some(sample) = newest else { return Acknowledged::Unknown };
    let position = sample.position;
    if position.timeline != record.primary.timeline || position.system != record.primary.system {
        return Acknowledged::Unknown;
    }
    if sample.sent_at > last {
        Acknowledged::UpTo(position.lsn)
    } else {
        Acknowledged::Beyond(position.lsn)
    }
}

/// A record in a line of the log.
pub(super) fn told(record: &Record) -> String {
    let epoch = record.epoch;
    let phase = match &record.phase {
        Phase::Stable => {
            let primary = &record.primary;
            return format!(
                "epoch {epoch}: {} is the primary on timeline {}",
                primary.server, primary.timeline
            );
        }
        Phase::Draining(_) => "draining".to_owned(),
        Phase::Revoking(_) => "revoking".to_owned(),
        Phase::Promoting(_, choice) => {
            format!("promoting {} (loss: {})", choice.server, choice.loss)
        }
    };
    let kind = record.operation().map_or("change", |operation| operation.kind.as_str());
    format!("epoch {epoch}, {kind}: {phase}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Lsn, SystemId, Timeline};
    use crate::topology::Epoch;

    /// Once that primary is away, nothing else tells its branch from another of its number.
    #[test]
    fn where_the_branch_of_a_primary_that_was_found_began_is_recorded() {
        let found = |server, timeline, fork, epoch| adopt::Record {
            server: ServerId(server),
            system: SystemId(7),
            timeline: Timeline(timeline),
            fork: Some(fork),
            epoch: Epoch(epoch),
        };
        let (a, b) = (Arc::from("a"), Arc::from("b"));
        let first = recorded(None, found(0, 2, Lsn(150), 1), &a, 5);
        assert_eq!(first.primary.fork, Some(Lsn(150)));
        let next = recorded(Some(&first), found(1, 3, Lsn(200), 2), &b, 6);
        assert_eq!(next.primary.fork, Some(Lsn(200)));
        assert_eq!(next.changes.last().and_then(|change| change.fork), Some(Lsn(200)));
    }
}
