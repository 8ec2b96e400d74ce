//! What a session's reads must see: the read floor, and the moments that will become one.
//!
//! After every group that a server ran, the session holds a *mark*: the moment its
//! `ReadyForQuery` arrived. It costs nothing. Only when the session wants to read somewhere else
//! is the mark resolved, to the primary's position in the first sample *sent* after it. No
//! standby can show more than the primary has written, so that one rule serves both for what the
//! session wrote and for what it saw on a standby.
//!
//! Invariants:
//! - A mark is resolved only by samples of its own epoch; where none was taken before the primary
//!   changed, that is reported, and never satisfied by a number of the new one, unless that one
//!   was shown to have taken over the whole log.
//! - A session that stays on one standby, by a backend that was already open at its last read
//!   there, needs no floor: what that server shows only grows while it lives.

use crate::clock::Moment;
use crate::pg::Position;
use crate::topology::{Coverage, Epoch, ServerId, Topology};

/// What one session's reads must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floor {
    /// The lowest position that a server must have replayed.
    position: Option<Position>,
    /// The session may know more than `position` since then.
    mark: Option<Mark>,
    /// Where it learnt that.
    anchor: Anchor,
}

/// The moment a server's last answer arrived, and under which primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// When `ReadyForQuery` arrived.
    pub at: Moment,
    /// The epoch that it was sent in.
    pub epoch: Epoch,
}

/// Which server answered the session last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anchor {
    /// None yet.
    #[default]
    Nowhere,
    /// The primary.
    Primary,
    /// This standby, last at that moment.
    Standby(ServerId, Moment),
    /// This standby, last at that moment, by a backend that is gone: it may have restarted, and
    /// must prove itself as any other.
    Left(ServerId, Moment),
}

/// What the floor asks for at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: the session has neither written nor seen anything.
    Nothing,
    /// A server that has replayed this far.
    Position(Position),
    /// Not known yet: a sample of the primary sent after this moment will tell.
    Unresolved(Moment),
    /// Part of what the session knew is on a piece of log that a change of primary left behind,
    /// or can't be shown not to be. To be reported once; see [`Floor::accept_loss`].
    Lost,
}

/// What became of a mark.
enum Resolved {
    /// This position holds everything that was known at it.
    To(Position),
    /// A sample will tell.
    NotYet(Mark),
    /// Nobody will ever tell: its primary was replaced before it was asked.
    Never,
}

impl Floor {
    /// The server that answered last.
    pub const fn anchor(&self) -> Anchor {
        self.anchor
    }

    /// Takes note that the primary answered a group, sent in `epoch`, just now.
    pub const fn after_primary(&mut self, now: Moment, epoch: Epoch) {
        self.mark = Some(Mark { at: now, epoch });
        self.anchor = Anchor::Primary;
    }

    /// Takes note that a standby answered a read just now.
    pub const fn after_standby(&mut self, server: ServerId, now: Moment, epoch: Epoch) {
        self.mark = Some(Mark { at: now, epoch });
        self.anchor = Anchor::Standby(server, now);
    }

    /// Takes note that a standby answered that was not shown to hold all that the session knew.
    /// The session may have seen something there, but that it stays there proves nothing.
    pub const fn after_unproven(&mut self, server: ServerId, now: Moment, epoch: Epoch) {
        self.mark = Some(Mark { at: now, epoch });
        self.anchor = Anchor::Left(server, now);
    }

    /// What a server other than the anchor must have replayed. Resolves the mark if it can be.
    pub fn demand(&mut self, topology: &Topology) -> Demand {
        if let Some(mark) = self.mark {
            match self.resolved(mark, topology) {
                Resolved::To(position) => {
                    self.position = Some(position);
                    self.mark = None;
                }
                Resolved::NotYet(mark) => {
                    self.mark = Some(mark);
                    return Demand::Unresolved(mark.at);
                }
                Resolved::Never => return Demand::Lost,
            }
        }
        let Some(position) = self.position else { return Demand::Nothing };
        let newest = topology.samples.newest().map(|sample| sample.position);
        let primary = newest.unwrap_or(position);
        match topology.history.covers(primary, position) {
            Coverage::Covers | Coverage::Behind => Demand::Position(position),
            Coverage::Lost | Coverage::Diverged | Coverage::Unrelated => Demand::Lost,
        }
    }

    /// The position that holds everything the session knew at `mark`.
    fn resolved(&self, mark: Mark, topology: &Topology) -> Resolved {
        let of_now = |mark: Mark| match topology.samples.resolve(mark.at) {
            Some(position) => Resolved::To(position),
            None => Resolved::NotYet(mark),
        };
        if mark.epoch == topology.epoch {
            return of_now(mark);
        }
        // The standby that showed the session all it knew has become the primary itself: then
        // nothing of it is lost, and whatever it samples now lies above it.
        if let Anchor::Standby(server, _) = self.anchor
            && topology.writable() == Some(server)
        {
            return of_now(Mark { at: mark.at, epoch: topology.epoch });
        }
        // A position of the old primary, which the history then says to be kept, or lost.
        match topology.former.resolve(mark.epoch, mark.at) {
            Some(position) => Resolved::To(position),
            // Nothing of that epoch is lost, and whatever its primary wrote lies below what the
            // present one samples now.
            None if topology.former.succeeded_wholly(mark.epoch) => {
                of_now(Mark { at: mark.at, epoch: topology.epoch })
            }
            None => Resolved::Never,
        }
    }

    /// The backend by which the session saw a standby is gone: that standby must prove itself as
    /// any other.
    pub const fn leave_anchor(&mut self) {
        self.anchor = match self.anchor {
            Anchor::Standby(server, seen) => Anchor::Left(server, seen),
            Anchor::Nowhere | Anchor::Primary | Anchor::Left(..) => self.anchor,
        };
    }

    /// The client was told that what it knew may be lost: from now on the present primary's
    /// present state counts.
    pub const fn accept_loss(&mut self, now: Moment, epoch: Epoch) {
        self.position = None;
        self.mark = Some(Mark { at: now, epoch });
        self.anchor = Anchor::Nowhere;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Lsn, SystemId, Timeline};
    use crate::topology::{Fork, History, Primary, PrimarySample, PrimarySamples, Succession};

    fn moment(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { system: SystemId(1), timeline: Timeline(timeline), lsn: Lsn(lsn) }
    }

    fn topology(epoch: u64, samples: &[(u64, Position)], history: History) -> Topology {
        let mut topology = Topology::unseen(Box::default());
        topology.epoch = Epoch(epoch);
        topology.history = history;
        for (sent_at, position) in samples {
            let sample = PrimarySample { sent_at: moment(*sent_at), position: *position };
            topology.samples = topology.samples.with(sample);
        }
        topology
    }

    #[test]
    fn a_session_that_knows_nothing_demands_nothing() {
        let topology = topology(1, &[], History::default());
        assert_eq!(Floor::default().demand(&topology), Demand::Nothing);
    }

    #[test]
    fn a_mark_waits_for_a_sample_that_was_sent_after_it() {
        let mut floor = Floor::default();
        floor.after_primary(moment(20), Epoch(1));
        let history = History::new(Timeline(1), vec![]);
        let early = topology(1, &[(20, at(1, 100))], history.clone());
        assert_eq!(floor.demand(&early), Demand::Unresolved(moment(20)));

        let later = topology(1, &[(20, at(1, 100)), (21, at(1, 150))], history);
        assert_eq!(floor.demand(&later), Demand::Position(at(1, 150)));
        assert_eq!(floor.demand(&early), Demand::Position(at(1, 150)), "once resolved, it stays");
    }

    #[test]
    fn a_standby_that_was_not_proven_is_no_anchor() {
        let mut floor = Floor::default();
        floor.after_primary(moment(20), Epoch(1));
        floor.after_unproven(ServerId(1), moment(30), Epoch(1));
        assert_eq!(floor.anchor(), Anchor::Left(ServerId(1), moment(30)));
        let history = History::new(Timeline(1), vec![]);
        let early = topology(1, &[(25, at(1, 100))], history);
        assert_eq!(floor.demand(&early), Demand::Unresolved(moment(30)));
    }

    #[test]
    fn a_mark_of_another_epoch_is_never_resolved() {
        let mut floor = Floor::default();
        floor.after_primary(moment(20), Epoch(1));
        let next = topology(2, &[(30, at(2, 900))], History::new(Timeline(2), vec![]));
        assert_eq!(floor.demand(&next), Demand::Lost);
        floor.accept_loss(moment(31), Epoch(2));
        assert_eq!(floor.demand(&next), Demand::Unresolved(moment(31)));
    }

    #[test]
    fn a_mark_of_an_epoch_that_has_ended_is_resolved_by_the_samples_of_that_epoch() {
        let fork = |lsn| {
            let forks = vec![Fork { timeline: Timeline(1), at: Lsn(lsn) }];
            let mut next = topology(2, &[(90, at(2, 900))], History::new(Timeline(2), forks));
            let old = topology(1, &[(10, at(1, 100)), (30, at(1, 150))], History::default());
            next.former = next.former.with(Epoch(1), old.samples, Succession::Unproven);
            next
        };
        let marked = |nanos| {
            let mut floor = Floor::default();
            floor.after_primary(moment(nanos), Epoch(1));
            floor
        };
        assert_eq!(marked(20).demand(&fork(150)), Demand::Position(at(1, 150)), "proved kept");
        assert_eq!(marked(20).demand(&fork(149)), Demand::Lost, "it may lie behind the fork");
        assert_eq!(marked(30).demand(&fork(200)), Demand::Lost, "nobody asked after it");
    }

    #[test]
    fn nothing_is_lost_to_a_primary_that_has_the_whole_log() {
        let after = |succession| {
            let mut next = topology(2, &[(40, at(2, 900))], History::new(Timeline(2), vec![]));
            next.former = next.former.with(Epoch(1), PrimarySamples::default(), succession);
            next
        };
        let marked = |nanos| {
            let mut floor = Floor::default();
            floor.after_primary(moment(nanos), Epoch(1));
            floor
        };
        assert_eq!(marked(20).demand(&after(Succession::Whole)), Demand::Position(at(2, 900)));
        let late = marked(50).demand(&after(Succession::Whole));
        assert_eq!(late, Demand::Unresolved(moment(50)), "nobody asked after it yet");
        assert_eq!(marked(20).demand(&after(Succession::Unproven)), Demand::Lost);
    }

    #[test]
    fn what_the_promoted_standby_itself_has_shown_is_not_lost() {
        let mut next = topology(2, &[(40, at(2, 900))], History::new(Timeline(2), vec![]));
        let server = ServerId(1);
        next.primary = Primary::Open { server, timeline: Timeline(2) };
        let mut floor = Floor::default();
        floor.after_primary(moment(20), Epoch(1));
        floor.after_standby(server, moment(30), Epoch(1));
        assert_eq!(floor.demand(&next), Demand::Position(at(2, 900)));

        let mut another = Floor::default();
        another.after_standby(ServerId(2), moment(30), Epoch(1));
        assert_eq!(another.demand(&next), Demand::Lost);
        let mut unproven = Floor::default();
        unproven.after_unproven(server, moment(30), Epoch(1));
        assert_eq!(unproven.demand(&next), Demand::Lost);
    }

    #[test]
    fn a_position_behind_a_fork_is_lost_though_the_new_log_is_longer() {
        let mut floor = Floor::default();
        floor.after_primary(moment(20), Epoch(1));
        let old = topology(1, &[(21, at(1, 150))], History::new(Timeline(1), vec![]));
        assert_eq!(floor.demand(&old), Demand::Position(at(1, 150)));

        let fork = |lsn| {
            let forks = vec![Fork { timeline: Timeline(1), at: Lsn(lsn) }];
            topology(2, &[(30, at(2, 900))], History::new(Timeline(2), forks))
        };
        assert_eq!(floor.demand(&fork(140)), Demand::Lost);
        assert_eq!(floor.demand(&fork(150)), Demand::Position(at(1, 150)), "it was carried over");
    }
}
