//! The primary's recent positions: what turns a mark into a read floor.

use crate::clock::Moment;
use crate::pg::Position;
use crate::topology::Epoch;
use std::sync::Arc;

/// One position of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrimarySample {
    /// When the question was sent. Whatever was acknowledged before it lies at or below
    /// `position`.
    pub sent_at: Moment,
    /// The insert position, normalised; or the flush position where nothing is unflushed.
    pub position: Position,
}

/// The samples of one epoch and timeline, oldest first, both fields rising.
///
/// A mark is resolved by the *first* sample that was sent after it: a later one would be sound
/// too, but asks a standby for more than the session has seen.
#[derive(Debug, Clone, Default)]
pub struct PrimarySamples {
    ring: Arc<[PrimarySample]>,
}

/// The samples of the last epochs that have ended, oldest first: a session that was idle while
/// the primary changed may learn from them where its last write lies, and so whether the new
/// primary has it.
#[derive(Debug, Clone, Default)]
pub struct FormerSamples {
    epochs: Arc<[(Epoch, PrimarySamples, Succession)]>,
}

/// What a primary has of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Succession {
    /// The whole log, to its end: nothing that anybody knew under the one before is lost.
    Whole,
    /// That was not shown.
    #[default]
    Unproven,
}

/// How many epochs are remembered.
const EPOCHS_KEPT: usize = 8;

/// How many samples are kept. At the fastest pace of one in 5 ms this is 2.5 s; older ones are
/// thinned out first, so the ring reaches back much further at a coarser grain.
const KEPT: usize = 512;

impl PrimarySamples {
    /// The first position sampled after `mark`, if one was.
    pub fn resolve(&self, mark: Moment) -> Option<Position> {
        let later = self.ring.partition_point(|sample| sample.sent_at <= mark);
        self.ring.get(later).map(|sample| sample.position)
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<PrimarySample> {
        self.ring.last().copied()
    }

    /// These samples and one more. A sample of another timeline, or one that goes back, starts
    /// the ring anew: a mark is resolved only within one history.
    #[must_use]
    pub fn with(&self, sample: PrimarySample) -> Self {
        let continues = self.ring.last().is_none_or(|last| {
            last.position.timeline == sample.position.timeline
                && last.position.system == sample.position.system
                && last.position.lsn <= sample.position.lsn
                && last.sent_at < sample.sent_at
        });
        if !continues {
            return Self { ring: Arc::new([sample]) };
        }
        let thin = self.ring.len() >= KEPT;
        let half = self.ring.len() / 2;
        let kept = self.ring.iter().enumerate();
        let kept = kept.filter(|(at, _)| !thin || *at >= half || at % 2 == 1).map(|(_, s)| *s);
        Self { ring: kept.chain(std::iter::once(sample)).collect() }
    }
}

impl FormerSamples {
    /// The first position of that epoch's primary that was sampled after `mark`, if one was.
    pub fn resolve(&self, epoch: Epoch, mark: Moment) -> Option<Position> {
        let of_epoch = self.epochs.iter().find(|(known, ..)| *known == epoch);
        of_epoch.and_then(|(_, samples, _)| samples.resolve(mark))
    }

    /// Whether the present primary has all of that epoch's log, by way of all those in between.
    pub fn succeeded_wholly(&self, epoch: Epoch) -> bool {
        let at = self.epochs.iter().position(|(known, ..)| *known == epoch);
        let since = at.and_then(|at| self.epochs.get(at..)).unwrap_or_default();
        !since.is_empty() && since.iter().all(|(.., succession)| *succession == Succession::Whole)
    }

    /// These, and those of an epoch that has just ended, by such a succession.
    #[must_use]
    pub fn with(&self, epoch: Epoch, samples: PrimarySamples, succession: Succession) -> Self {
        let surplus = (self.epochs.len() + 1).saturating_sub(EPOCHS_KEPT);
        let kept = self.epochs.iter().skip(surplus).cloned();
        Self { epochs: kept.chain(std::iter::once((epoch, samples, succession))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Lsn, SystemId, Timeline};

    fn sample(at: u64, timeline: u32, lsn: u64) -> PrimarySample {
        PrimarySample {
            sent_at: Moment::from_nanos(at),
            position: Position { system: SystemId(1), timeline: Timeline(timeline), lsn: Lsn(lsn) },
        }
    }

    #[test]
    fn the_first_sample_sent_after_a_mark_resolves_it() {
        let samples = PrimarySamples::default()
            .with(sample(10, 1, 100))
            .with(sample(20, 1, 200))
            .with(sample(30, 1, 300));
        let at = |mark| samples.resolve(Moment::from_nanos(mark)).map(|p| p.lsn.0);
        assert_eq!(at(5), Some(100));
        assert_eq!(at(10), Some(200), "a sample sent at the mark may have missed the write");
        assert_eq!(at(29), Some(300));
        assert_eq!(at(30), None);
    }

    #[test]
    fn a_change_of_timeline_forgets_the_old_samples() {
        let samples = PrimarySamples::default().with(sample(10, 1, 100)).with(sample(20, 2, 90));
        assert_eq!(samples.resolve(Moment::from_nanos(0)).map(|p| p.timeline), Some(Timeline(2)));
    }

    #[test]
    fn the_ring_is_bounded_and_still_resolves_old_marks() {
        let mut samples = PrimarySamples::default();
        for at in 1..20_000 {
            samples = samples.with(sample(at, 1, at));
        }
        assert!(samples.ring.len() <= KEPT + 1);
        let newest = samples.newest().map(|s| s.sent_at);
        assert_eq!(newest, Some(Moment::from_nanos(19_999)));
        assert!(samples.resolve(Moment::from_nanos(1)).is_some(), "a later sample is sound");
    }

    #[test]
    fn an_epoch_that_has_ended_still_tells_where_a_mark_lies() {
        let mut former = FormerSamples::default();
        for epoch in 1..=10 {
            let at = 100 * epoch;
            former = former.with(
                Epoch(epoch),
                PrimarySamples::default().with(sample(at, 1, at + 5)),
                Succession::Unproven,
            );
        }
        let at = |epoch, mark| former.resolve(Epoch(epoch), Moment::from_nanos(mark));
        assert_eq!(at(9, 899).map(|p| p.lsn.0), Some(905));
        assert_eq!(at(9, 900), None, "it was not sampled after that");
        assert_eq!((at(2, 0), at(11, 0)), (None, None), "forgotten, and not yet");
    }

    #[test]
    fn an_epoch_is_kept_only_if_every_succession_since_was_whole() {
        let next = |former: &FormerSamples, epoch, succession| {
            former.with(Epoch(epoch), PrimarySamples::default(), succession)
        };
        let lossy = next(&FormerSamples::default(), 1, Succession::Unproven);
        let whole = next(&next(&lossy, 2, Succession::Whole), 3, Succession::Whole);
        let kept = |former: &FormerSamples| [1, 2, 3, 4].map(|e| former.succeeded_wholly(Epoch(e)));
        assert_eq!(kept(&whole), [false, true, true, false]);
        assert_eq!(kept(&next(&whole, 4, Succession::Unproven)), [false; 4]);
    }
}
