//! Until when writes may go by what is published.
//!
//! Whoever keeps the last topology of a control plane that stands still must not write on by it:
//! another server may be the primary by now. So each topology carries an end of the right to
//! write, and the data plane looks at it before it sends and again before it believes a success.
//!
//! Invariant: what was asked before a pause of ours gives the right back to nobody.

use crate::clock::Moment;
use std::time::Duration;

/// For so long writes go on by what was published. It is published ten times a second, whatever is
/// seen: a pause of this length is no busy machine.
const LASTS: Duration = Duration::from_secs(5);

/// The right to write.
#[derive(Debug)]
pub(crate) struct Right {
    until: Moment,
    renewed: Option<Moment>,
    state: State,
}

/// Whether we were awake all the while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Awake,
    /// We slept for longer than the right lasts, and woke up then: the primary is to be asked anew.
    Woken(Moment),
}

impl Right {
    /// Nothing was published yet.
    pub(crate) const fn new() -> Self {
        Self { until: Moment::ORIGIN, renewed: None, state: State::Awake }
    }

    /// Something is to be published. The primary's last answer is one to what was asked then.
    pub(crate) fn renew(&mut self, now: Moment, asked: Option<Moment>) {
        if self.renewed.is_some_and(|last| now.since(last) > LASTS) {
            self.state = State::Woken(now);
        }
        self.renewed = Some(now);
        if let State::Woken(since) = self.state
            && asked.is_some_and(|asked| asked >= since)
        {
            self.state = State::Awake;
        }
        if self.state == State::Awake {
            self.until = now + LASTS;
        }
    }

    /// Its last moment.
    pub(crate) const fn until(&self) -> Moment {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// Whoever keeps the topology of a control plane that stands still does not write on by it.
    #[test]
    fn it_ends_soon_after_the_last_word() {
        let mut right = Right::new();
        right.renew(ms(1_000), Some(ms(990)));
        assert_eq!(right.until(), ms(6_000));
        right.renew(ms(6_000), None);
        assert_eq!(right.until(), ms(11_000), "that a look fails takes it from nobody");
    }

    #[test]
    fn after_a_pause_it_comes_back_with_an_answer_to_what_was_asked_behind_it() {
        let mut right = Right::new();
        right.renew(ms(1_000), Some(ms(990)));
        for asked in [None, Some(ms(999)), Some(ms(8_999))] {
            right.renew(ms(9_000), asked);
            assert_eq!(right.until(), ms(6_000), "{asked:?}");
        }
        right.renew(ms(9_100), Some(ms(9_000)));
        assert_eq!(right.until(), ms(14_100));
    }
}
