//! Who may share what is prepared now: only those for whom its text means the same.
//!
//! Invariants:
//! - A statement that is prepared behind a change of the database's objects, by anybody's account
//!   that this pgsteer has, is never answered with one that was prepared before it.
//! - A standby that may not have replayed the last change yet shares nothing.
//! - A session with temporary objects shares nothing: its names mean others.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::attached::{Attached, Reads, Standing};
use crate::frontend::shard::Shard;
use crate::frontend::state::Session;
use crate::pool::{Mode, UnnamedStatements};
use crate::session::{Pin, Shape};
use crate::sql::{Facts, Transaction};
use crate::topology::{Coverage, ServerId, Topology};
use std::sync::Arc;

/// What a group may be answered with that others have prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nothing: it was tried, and did not fit.
    Nothing,
    /// What it gives a name.
    Named,
    /// Also what it gives none: it is run again if it fails by that.
    All,
}

/// Where a group goes, as far as it counts here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    server: ServerId,
    standing: Standing,
    own: OwnObjects,
    /// When the backend was opened.
    opened_at: Moment,
}

/// Whether the session may see objects on its backend that others don't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnObjects {
    No,
    Maybe,
}

impl Place {
    /// The backend in hand.
    pub(super) fn of(attached: &Attached) -> Self {
        let (server, standing) = (attached.server, attached.standing);
        let pins = attached.pins;
        let own = match attached.reads {
            Reads::AsCarried if !pins.has(Pin::Temporary) && !pins.has(Pin::Unknown) => {
                OwnObjects::No
            }
            Reads::AsCarried | Reads::Otherwise => OwnObjects::Maybe,
        };
        Self { server, standing, own, opened_at: attached.checkout.backend.opened_at }
    }
}

/// The shape of the database where what is prepared now may be shared; `None`: it may not.
pub(super) fn shape_to_share(
    shard: &Shard,
    place: Place,
    (shape, database): (&Shape, &str),
    sharing: Sharing,
) -> Option<u64> {
    let alone = shard.pools.policy().mode == Mode::Session;
    if alone || sharing == Sharing::Nothing || place.own == OwnObjects::Maybe {
        return None;
    }
    let topology = shard.topology();
    if let Some(catalog) = topology.catalog(database) {
        shape.note_catalog(catalog.id(), clock::now);
    }
    let (number, changed) = shape.now();
    let there = match place.standing {
        Standing::Primary => true,
        Standing::Standby => has_replayed(&topology, place, changed),
    };
    there.then_some(number)
}

/// Whether a standby is known to have replayed all that the primary had done by then. A sample
/// vouches only for backends that were open: after a crash a standby may begin further back.
fn has_replayed(topology: &Topology, place: Place, by: Moment) -> bool {
    let sample = topology.server(place.server).and_then(|server| server.sample);
    let (Some(sample), Some(wanted)) = (sample, topology.samples.resolve(by)) else {
        return false;
    };
    place.opened_at <= sample.sent_at
        && topology.history.covers(sample.position, wanted) == Coverage::Covers
}

/// Whether statements without a name are found again. Without a catalog nobody would notice that
/// objects were changed behind pgsteer's back.
pub(super) fn recalls(shard: &Shard, database: &str, sharing: Sharing) -> bool {
    sharing == Sharing::All
        && shard.pools.unnamed() == UnnamedStatements::Reuse
        && shard.topology().catalog(database).is_some()
}

/// Notes it if the session's present group may change what others' statements mean.
pub(super) fn note_reshaping(noted: &mut Option<Reshapes>, session: &Session) {
    let shape = &session.shape;
    let may = |facts: &Facts| {
        let finishes = facts.transaction() == Transaction::FinishPrepared;
        facts.may_reshape() || finishes && shape.may_have_prepared()
    };
    let any = |is: &dyn Fn(&Facts) -> bool| {
        session.mentioned.iter().any(|facts| facts.as_ref().is_none_or(|facts| is(facts)))
    };
    if noted.is_none() && any(&may) {
        *noted = Some(Reshapes(Arc::clone(shape)));
    }
    // What it did is there only when somebody commits it.
    let prepares =
        |facts: &Facts| matches!(facts.transaction(), Transaction::Prepare | Transaction::Mixed);
    if noted.is_some() && any(&prepares) {
        shape.note_prepared();
    }
}

/// That a transaction may change what others' statements mean: the change is noted when this is
/// dropped, once the transaction is known to have ended, or nothing will be known of it.
#[derive(Debug)]
pub struct Reshapes(Arc<Shape>);

impl Drop for Reshapes {
    fn drop(&mut self) {
        self.0.note_change(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Lsn, Position, SystemId, Timeline};
    use crate::topology::{History, PrimarySample, Seen, Server, StandbySample, Unfit, Unseen};

    /// After a crash a standby may show less than it did; only what was open then shows as much.
    #[test]
    fn a_sample_vouches_for_backends_only_that_were_open_when_it_was_asked_for() {
        let at = Moment::from_nanos;
        let position = |lsn| Position { system: SystemId(1), timeline: Timeline(1), lsn: Lsn(lsn) };
        let world = |replayed| {
            let standby = Server {
                id: ServerId(0),
                name: Arc::from("s"),
                host: Arc::from("s"),
                port: 5432,
                weight: 1,
                seen: Seen::Not { since: None, why: Unseen::NotYet },
                reads: Err(Unfit::IsPrimary),
                sample: Some(StandbySample { sent_at: at(50), position: position(replayed) }),
                visible_on_primary: None,
            };
            let mut topology = Topology::unseen(Box::new([standby]));
            topology.history = History::new(Timeline(1), vec![]);
            let sample = PrimarySample { sent_at: at(20), position: position(100) };
            topology.samples = topology.samples.with(sample);
            topology
        };
        let place = |opened_at| Place {
            server: ServerId(0),
            standing: Standing::Standby,
            own: OwnObjects::No,
            opened_at: at(opened_at),
        };
        assert!(has_replayed(&world(100), place(50), at(10)));
        assert!(!has_replayed(&world(100), place(51), at(10)), "it was opened later");
        assert!(!has_replayed(&world(99), place(50), at(10)), "it has not come so far");
        assert!(!has_replayed(&world(100), place(50), at(20)), "nobody knows how far that is");
    }
}
