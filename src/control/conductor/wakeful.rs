//! Whether this process has been running all the while.
//!
//! One that stood still has seen nothing meanwhile, and what it saw before proves nothing any more.
//! It is found out by looking at the clock wherever time may have gone by: whoever only looks
//! between two rounds takes a pause within one for no pause at all.

use crate::clock::Moment;
use std::time::Duration;

/// What is later than expected by more than this was a pause of ours.
const PAUSE: Duration = Duration::from_millis(150);

/// Whether this process has stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    None,
    Noticed,
}

/// When the clock was looked at last, and since when nothing was wrong with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wakeful {
    looked: Moment,
    since: Moment,
}

impl Wakeful {
    /// It has only begun.
    pub(super) const fn new(now: Moment) -> Self {
        Self { looked: now, since: now }
    }

    /// Since when this process has been running without a pause.
    pub(super) const fn since(&self) -> Moment {
        self.since
    }

    /// Looks at the clock, when no more than this should have gone by. How long it stood still, if
    /// it did.
    pub(super) fn look(&mut self, now: Moment, expected: Duration) -> Option<Duration> {
        let gone_by = now.since(self.looked);
        self.looked = now;
        if gone_by <= expected + PAUSE {
            return None;
        }
        self.since = now;
        Some(gone_by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_comes_much_later_than_expected_comes_after_a_pause() {
        let mut wakeful = Wakeful::new(ms(1_000));
        let mut look = |now, expected| {
            let asleep = wakeful.look(ms(now), Duration::from_millis(expected));
            (asleep.map(|asleep| asleep.as_millis()), wakeful.since())
        };
        assert_eq!(look(1_250, 100), (None, ms(1_000)));
        // Within a round nothing is waited for.
        assert_eq!(look(1_400, 0), (None, ms(1_000)));
        assert_eq!(look(9_400, 0), (Some(8_000), ms(9_400)));
        assert_eq!(look(9_500, 100), (None, ms(9_400)));
        assert_eq!(look(9_751, 100), (Some(251), ms(9_751)));
    }
}
