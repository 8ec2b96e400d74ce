//! How far behind a standby is, in bytes and in time, by our own clock.
//!
//! The primary's flush position is noted at every look, with the moment. A standby's lag in
//! time is the age of the oldest noted position that it has not replayed. So an idle primary
//! shows no lag, a standby that is cut off shows a growing one, and no clock of another machine
//! is asked (`now() - pg_last_xact_replay_timestamp()` has both faults).
//!
//! The grain is the interval between two looks at the primary.
//!
//! Deliberately absent: a lag while the primary is unseen. Then nobody knows how far behind a
//! standby is, and what is shown is "unknown"; whether it may serve reads is judged against the
//! last known position of the primary, as of the moment when that was known.

use crate::clock::Moment;
use crate::pg::Lsn;
use std::time::Duration;

/// What was known of the primary's flush position, oldest first, both fields rising.
#[derive(Debug, Clone, Default)]
pub(crate) struct LagRing {
    entries: Vec<Entry>,
    /// When the newest position was last confirmed.
    confirmed: Option<Moment>,
}

/// A position, and the moment when it was first seen.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Moment,
    lsn: Lsn,
}

/// How far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Bytes to the newest position that was known.
    pub bytes: u64,
    /// The age of the oldest position that is missing.
    pub time: TimeBehind,
}

/// A lag in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeBehind {
    /// So much.
    Exactly(Duration),
    /// So much or more: what is missing is older than the oldest note.
    AtLeast(Duration),
}

/// How many positions are kept. When there are more, the one that is missed least is dropped, so
/// that the grain stays a small share of the age.
const KEPT: usize = 512;

/// The shortest distance between two notes: the sampler is faster than a lag has to be fine.
const GRAIN: Duration = Duration::from_millis(20);

impl LagRing {
    /// Notes the flush position that the primary answered to a question sent at `at`.
    ///
    /// After a gap longer than `gap_max`, what happened in between is not known and the notes
    /// start anew.
    pub(crate) fn note(&mut self, at: Moment, lsn: Lsn, gap_max: Duration) {
        let Some(last) = self.entries.last().copied() else {
            self.start(at, lsn);
            return;
        };
        let gap = self.confirmed.is_some_and(|confirmed| at.since(confirmed) > gap_max);
        if gap || lsn < last.lsn {
            self.start(at, lsn);
            return;
        }
        self.confirmed = self.confirmed.max(Some(at));
        if lsn == last.lsn || at.since(last.at) < GRAIN {
            return;
        }
        if self.entries.len() >= KEPT {
            self.thin(at);
        }
        self.entries.push(Entry { at, lsn });
    }

    /// Forgets everything: another primary, or another branch of the log.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.confirmed = None;
    }

    /// When the primary's position was last seen.
    pub(crate) const fn confirmed(&self) -> Option<Moment> {
        self.confirmed
    }

    /// How far behind a standby was that had replayed up to `replayed` at the moment `then`;
    /// `None` if no position of the primary was ever noted.
    pub(crate) fn behind(&self, replayed: Lsn, then: Moment) -> Option<Behind> {
        let first = self.entries.first()?;
        // Positions that were noted after the standby was asked say nothing about that moment,
        // except where there are no others.
        let known = self.entries.partition_point(|entry| entry.at <= then).max(1);
        let newest = self.entries.get(known - 1)?;
        let missing = self.entries.iter().take(known).find(|entry| entry.lsn > replayed);
        let time = match missing {
            None => TimeBehind::Exactly(Duration::ZERO),
            Some(entry) if entry.lsn > first.lsn => TimeBehind::Exactly(then.since(entry.at)),
            Some(entry) => TimeBehind::AtLeast(then.since(entry.at)),
        };
        Some(Behind { bytes: newest.lsn.bytes_since(replayed), time })
    }

    fn start(&mut self, at: Moment, lsn: Lsn) {
        self.entries.clear();
        self.entries.push(Entry { at, lsn });
        self.confirmed = Some(at);
    }

    /// Drops the note that is missed least: the one whose neighbours lie closest together,
    /// measured by its age. Never the oldest nor the newest.
    fn thin(&mut self, now: Moment) {
        let mut least: Option<(usize, u128, u128)> = None;
        for (at, three) in self.entries.windows(3).enumerate() {
            let [before, entry, after] = three else { continue };
            let gap = after.at.since(before.at).as_nanos();
            let age = now.since(entry.at).as_nanos().max(1);
            // gap / age, compared without a division.
            if least.is_none_or(|(_, gap_min, age_min)| gap * age_min < gap_min * age) {
                least = Some((at + 1, gap, age));
            }
        }
        if let Some((at, _, _)) = least {
            self.entries.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn ring(notes: &[(u64, u64)]) -> LagRing {
        let mut ring = LagRing::default();
        for &(millis, lsn) in notes {
            ring.note(at(millis), Lsn(lsn), GAP);
        }
        ring
    }

    fn exactly(bytes: u64, millis: u64) -> Behind {
        Behind { bytes, time: TimeBehind::Exactly(Duration::from_millis(millis)) }
    }

    fn at_least(bytes: u64, millis: u64) -> Behind {
        Behind { bytes, time: TimeBehind::AtLeast(Duration::from_millis(millis)) }
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_position_that_is_missing() {
        let notes = [(1000, 100), (1250, 200), (1500, 300), (1750, 300), (2000, 400)];
        let cases = [
            ("all replayed", 400, 2000, exactly(0, 0)),
            ("ahead of the last note", 450, 2000, exactly(0, 0)),
            ("one missing", 300, 2000, exactly(100, 0)),
            ("growing while nothing is replayed", 300, 3500, exactly(100, 1500)),
            ("two missing", 250, 2000, exactly(150, 500)),
            ("asked before the last note", 300, 1900, exactly(0, 0)),
            ("what is missing is older than the notes", 50, 2000, at_least(350, 1000)),
            ("asked before any note", 50, 900, at_least(50, 0)),
        ];
        for (name, replayed, then, expected) in cases {
            let behind = ring(&notes).behind(Lsn(replayed), at(then));
            assert_eq!(behind, Some(expected), "{name}");
        }
        assert_eq!(LagRing::default().behind(Lsn(1), at(1)), None);
    }

    #[test]
    fn an_idle_primary_shows_no_lag() {
        let notes: Vec<_> = (0..100).map(|n| (n * 250, 500)).collect();
        assert_eq!(ring(&notes).behind(Lsn(500), at(24_750)), Some(exactly(0, 0)));
    }

    #[test]
    fn after_a_gap_or_a_step_back_the_past_is_not_known() {
        let gap = ring(&[(0, 100), (250, 200), (9000, 300)]);
        assert_eq!(gap.behind(Lsn(250), at(9000)), Some(at_least(50, 0)));
        let back = ring(&[(0, 100), (250, 200), (500, 150)]);
        assert_eq!(back.behind(Lsn(150), at(500)), Some(exactly(0, 0)));
    }

    #[test]
    fn the_ring_is_bounded_and_reaches_back() {
        let mut ring = LagRing::default();
        for n in 0..100_000_u64 {
            ring.note(at(n * 20), Lsn(1000 + n), GAP);
        }
        assert!(ring.entries.len() <= KEPT + 1);
        assert_eq!(ring.entries[0].lsn, Lsn(1000));
        let Some(Behind { time: TimeBehind::Exactly(old), .. }) =
            ring.behind(Lsn(1000 + 50_000), at(100_000 * 20))
        else {
            panic!("no exact lag")
        };
        let truth = Duration::from_secs(1000);
        assert!(old <= truth && old > truth * 9 / 10, "{old:?} for {truth:?}");
    }
}
