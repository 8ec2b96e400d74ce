//! Whether a server may serve reads, apart from any session's floor.
//!
//! Invariants:
//! - Unknown is unfit, with one exception: with no primary in sight for a whole life, lag is
//!   not knowable, and the standbys that agree with each other serve.
//! - Losing the primary makes no standby unfit that was fit: it is judged against the last
//!   position that was known, as of the moment when it was.
//! - A position is compared with the primary's through the history, never as a bare number.

use crate::clock::Moment;
use crate::control::lag::{Behind, LagRing, TimeBehind};
use crate::pg::Lsn;
use crate::pg::Position;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::route::LagLimit;
use crate::topology::Coverage;
use crate::topology::History;
use crate::topology::Lag;
use crate::topology::Role;
use crate::topology::ServerId;
use crate::topology::Unfit;

/// What is known of one server that answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    /// Which.
    pub id: ServerId,
    /// In recovery or not.
    pub role: Role,
    /// Where it has replayed to.
    pub position: Position,
    /// When it was asked.
    pub asked: Moment,
    /// Its share of the reads.
    pub weight: u32,
    /// The history of its timeline, where that could be read.
    pub history: Option<&'a History>,
}

/// What it is measured against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yardstick<'a> {
    /// The set's system.
    pub system: Option<SystemId>,
    /// The adopted primary, seen or not.
    pub primary: Option<ServerId>,
    /// The history of its timeline.
    pub history: &'a History,
    /// Its flush positions.
    pub ring: &'a LagRing,
    /// Where its position is known now, or only was.
    pub state: PrimaryState,
    /// While no primary was ever adopted: the highest timeline of a standby, and the farthest
    /// position on it.
    pub peers: Option<(Timeline, Lsn)>,
    /// What the operator allows.
    pub max_lag: LagLimit,
}

/// What is known of the primary's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrimaryState {
    /// It is seen.
    Seen,
    /// It was seen.
    Lost,
}

/// The lag to be shown, and whether the server is fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fitness {
    /// How far behind.
    pub lag: Lag,
    /// Whether it serves reads, or why not.
    pub reads: Result<(), Unfit>,
}

/// Judges one server. Asks in the order in which a wrong answer hurts most.
#[must_use]
pub(crate) fn judge(candidate: &Candidate<'_>, against: &Yardstick<'_>) -> Fitness {
    let unknown = |unfit| Fitness { lag: Lag::default(), reads: Err(unfit) };
    if Some(candidate.position.system) != against.system {
        return unknown(Unfit::OtherSystem);
    }
    if candidate.role == Role::Primary {
        let adopted = Some(candidate.id) == against.primary
            && Some(candidate.position.timeline) == against.history.current();
        return unknown(if adopted { Unfit::IsPrimary } else { Unfit::Cordoned });
    }
    let fitness = match against.history.current() {
        Some(current) => by_history(candidate, current, against),
        None => by_peers(candidate, against),
    };
    match fitness.reads {
        Ok(()) if candidate.weight == 0 => Fitness { reads: Err(Unfit::Weight), ..fitness },
        Ok(()) | Err(_) => fitness,
    }
}

/// A primary was adopted: the standby must stand on its line of descent, and not too far back.
fn by_history(candidate: &Candidate<'_>, current: Timeline, against: &Yardstick<'_>) -> Fitness {
    let refuse = |unfit| Fitness { lag: Lag::default(), reads: Err(unfit) };
    let origin = Position {
        system: candidate.position.system,
        timeline: current,
        // Every place on the line of descent covers its beginning: only the branch is asked.
        lsn: Lsn(0),
    };
    match against.history.covers(candidate.position, origin) {
        Coverage::Covers | Coverage::Behind => {}
        Coverage::Diverged | Coverage::Lost => return refuse(Unfit::Diverged),
        Coverage::Unrelated => return refuse(Unfit::UnknownHistory),
    }
    if candidate.history.is_some_and(|own| against.history.contradicts(own)) {
        return refuse(Unfit::Diverged);
    }
    let then = match (against.state, against.ring.confirmed()) {
        (PrimaryState::Lost, Some(confirmed)) => candidate.asked.min(confirmed),
        (PrimaryState::Lost | PrimaryState::Seen, _) => candidate.asked,
    };
    let Some(behind) = against.ring.behind(candidate.position.lsn, then) else {
        return refuse(Unfit::LagUnknown);
    };
    let lag = match against.state {
        PrimaryState::Seen => shown(behind),
        PrimaryState::Lost => Lag::default(),
    };
    Fitness { lag, reads: within(behind, against.max_lag) }
}

/// No primary was ever adopted: those that agree with the farthest standby serve.
fn by_peers(candidate: &Candidate<'_>, against: &Yardstick<'_>) -> Fitness {
    let reads = match against.peers {
        Some((timeline, farthest)) if timeline == candidate.position.timeline => {
            let bytes = farthest.bytes_since(candidate.position.lsn);
            let over = against.max_lag.bytes.is_some_and(|limit| bytes > limit);
            if over { Err(Unfit::LagBytes) } else { Ok(()) }
        }
        Some(_) | None => Err(Unfit::UnknownHistory),
    };
    Fitness { lag: Lag::default(), reads }
}

/// Whether a lag is within the limits.
fn within(behind: Behind, limit: LagLimit) -> Result<(), Unfit> {
    if limit.bytes.is_some_and(|most| behind.bytes > most) {
        return Err(Unfit::LagBytes);
    }
    let Some(longest) = limit.time else { return Ok(()) };
    match behind.time {
        TimeBehind::Exactly(time) | TimeBehind::AtLeast(time) if time > longest => {
            Err(Unfit::LagTime)
        }
        TimeBehind::Exactly(_) => Ok(()),
        TimeBehind::AtLeast(_) => Err(Unfit::LagUnknown),
    }
}

/// The lag as it is shown: a lower bound of nothing is unknown, not zero.
fn shown(behind: Behind) -> Lag {
    let time = match behind.time {
        TimeBehind::Exactly(time) => Some(time),
        TimeBehind::AtLeast(time) => (!time.is_zero()).then_some(time),
    };
    Lag { bytes: Some(behind.bytes), time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Fork;
    use std::time::Duration;

    const OURS: SystemId = SystemId(7);
    const LIMIT: LagLimit = LagLimit { bytes: Some(1000), time: Some(Duration::from_secs(1)) };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn standby(timeline: u32, lsn: u64, asked: u64) -> Candidate<'static> {
        Candidate {
            id: ServerId(1),
            role: Role::Standby,
            position: Position { system: OURS, timeline: Timeline(timeline), lsn: Lsn(lsn) },
            asked: at(asked),
            weight: 1,
            history: None,
        }
    }

    /// The primary flushed 5000 at 1 s, 5100 at 2 s and 5200 at 3 s; timeline 1 ended at 4000.
    fn ring() -> LagRing {
        let mut ring = LagRing::default();
        for (millis, lsn) in [(1000, 5000), (2000, 5100), (3000, 5200)] {
            ring.note(at(millis), Lsn(lsn), Duration::from_secs(2));
        }
        ring
    }

    fn history() -> History {
        History::new(Timeline(2), vec![Fork { timeline: Timeline(1), at: Lsn(4000) }])
    }

    fn yardstick<'a>(ring: &'a LagRing, history: &'a History) -> Yardstick<'a> {
        Yardstick {
            system: Some(OURS),
            primary: Some(ServerId(0)),
            history,
            ring,
            state: PrimaryState::Seen,
            peers: None,
            max_lag: LIMIT,
        }
    }

    #[test]
    fn a_standby_is_fit_on_the_right_branch_and_within_both_limits() {
        let other = Position { system: SystemId(8), ..standby(2, 5200, 3000).position };
        let primary = Candidate { role: Role::Primary, ..standby(2, 5200, 3000) };
        let left_at =
            |at| History::new(Timeline(2), vec![Fork { timeline: Timeline(1), at: Lsn(at) }]);
        let (same, other_branch) = (left_at(4000), left_at(3999));
        let with = |history| Candidate { history: Some(history), ..standby(2, 5200, 3000) };
        let cases = [
            ("caught up", standby(2, 5200, 3000), Ok(())),
            ("a little behind", standby(2, 5100, 3500), Ok(())),
            ("behind in time", standby(2, 5100, 4500), Err(Unfit::LagTime)),
            ("behind in bytes", standby(2, 4100, 3000), Err(Unfit::LagBytes)),
            ("longer than the notes", standby(2, 4900, 1100), Err(Unfit::LagUnknown)),
            ("on the old branch before the fork", standby(1, 3900, 3000), Err(Unfit::LagBytes)),
            ("on the old branch past the fork", standby(1, 4001, 3000), Err(Unfit::Diverged)),
            ("on a branch nobody knows", standby(3, 5200, 3000), Err(Unfit::UnknownHistory)),
            ("on the very branch", with(&same), Ok(())),
            ("on another of the same number", with(&other_branch), Err(Unfit::Diverged)),
            ("no weight", Candidate { weight: 0, ..standby(2, 5200, 3000) }, Err(Unfit::Weight)),
            (
                "no weight and late",
                Candidate { weight: 0, ..standby(1, 4001, 3000) },
                Err(Unfit::Diverged),
            ),
            (
                "a stranger",
                Candidate { position: other, ..standby(2, 5200, 3000) },
                Err(Unfit::OtherSystem),
            ),
            ("the primary", Candidate { id: ServerId(0), ..primary }, Err(Unfit::IsPrimary)),
            ("a second primary", primary, Err(Unfit::Cordoned)),
        ];
        for (name, candidate, expected) in cases {
            let (ring, history) = (ring(), history());
            assert_eq!(judge(&candidate, &yardstick(&ring, &history)).reads, expected, "{name}");
        }
    }

    #[test]
    fn reads_go_on_without_a_primary_and_its_lag_is_not_made_up() {
        let (ring, history) = (ring(), history());
        let lost = Yardstick { state: PrimaryState::Lost, ..yardstick(&ring, &history) };
        let hours_later = 9_000_000;
        let cases = [
            ("had everything", standby(2, 5200, hours_later), Ok(())),
            ("was a little behind", standby(2, 5150, hours_later), Ok(())),
            ("was far behind", standby(2, 4100, hours_later), Err(Unfit::LagBytes)),
        ];
        for (name, candidate, expected) in cases {
            let fitness = judge(&candidate, &lost);
            assert_eq!((fitness.reads, fitness.lag), (expected, Lag::default()), "{name}");
        }
    }

    #[test]
    fn standbys_that_never_saw_a_primary_are_measured_by_each_other() {
        let (ring, history) = (LagRing::default(), History::default());
        let alone = Yardstick {
            primary: None,
            peers: Some((Timeline(2), Lsn(5200))),
            ..yardstick(&ring, &history)
        };
        let cases = [
            ("the farthest", standby(2, 5200, 1), Ok(())),
            ("near it", standby(2, 4200, 1), Ok(())),
            ("far from it", standby(2, 4199, 1), Err(Unfit::LagBytes)),
            ("on another branch", standby(1, 5200, 1), Err(Unfit::UnknownHistory)),
        ];
        for (name, candidate, expected) in cases {
            assert_eq!(judge(&candidate, &alone).reads, expected, "{name}");
        }
    }

    #[test]
    fn lag_is_shown_in_both_units() {
        let (ring, history) = (ring(), history());
        let fitness = judge(&standby(2, 5100, 3500), &yardstick(&ring, &history));
        let time = Some(Duration::from_millis(500));
        assert_eq!(fitness.lag, Lag { bytes: Some(100), time });
    }
}
