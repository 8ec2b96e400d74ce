//! Whether what the primary shows is held by those who confirm its commits.
//!
//! A commit that waits for its standbys is on the primary's disk already, and nobody sees it. If
//! the primary crashes in that moment, it forgets that the commit was waiting: after its restart
//! everybody sees it, though no standby may hold it. Whoever reads it then reads what the next
//! failover takes back. So after a restart, or whatever can't be told from one, a primary that
//! promises a quorum counts only once as many standbys as it promises have flushed its log up to
//! where it ended when it was looked at first.
//!
//! Nothing that PostgreSQL shows tells one crash restart from none
//! (`pg_postmaster_start_time()` stays), but no connection outlives one. So a *footing* is that of
//! one standing connection: as long as that answers, the server has not restarted.
//!
//! Invariants:
//! - Who does not promise a quorum is not waited for: what it shows was never promised to stay.
//! - The wait ends. After [`SETTLE_MAX`] the primary is used as it is, and that is a finding.
//!
//! Deliberately absent: a primary of our own making. What a promoted standby holds, it shows at
//! once; to wait for the others to follow it would be part of every failover.
//!
//! Source: `SyncRepWaitForLSN` in `replication/syncrep.c` and `HandleChildCrash` in
//! `postmaster/postmaster.c` of PostgreSQL; seen on 15.

use crate::clock::Moment;
use crate::pg::Lsn;
use crate::topology::ServerId;
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest that a primary is kept from its clients for what its standbys do not hold: a standby
/// whose upstream crashed tries again after `wal_retrieve_retry_interval`, by default 5 s, and
/// needs a moment to catch up. Shorter than the default of `routing.hold_max`: nobody is refused.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(6);

/// Who must confirm a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// How many.
    pub w: usize,
    /// Of whom.
    pub cohort: BTreeSet<ServerId>,
}

/// The primary's answers over one standing connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// When the first was asked for: which connection this is.
    pub first: Moment,
    /// When the newest was.
    pub newest: Moment,
    /// Where its log was flushed to at the first.
    pub end: Lsn,
}

/// What is known of the primary's footing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// It was not looked at since this process began: it may have restarted a moment before.
    Unknown,
    /// It has just become the primary, before our eyes.
    Appointed,
    /// It may have restarted before this connection, and too few are seen to hold its log.
    Settling {
        /// Which connection.
        on: Moment,
        /// Up to where it must be held.
        end: Lsn,
        /// Since when it is waited for.
        since: Moment,
    },
    /// The same; but it was waited for long enough.
    Unheld {
        /// Which connection.
        on: Moment,
        /// Up to where it must be held.
        end: Lsn,
    },
    /// As long as this connection lives, what it shows is held, or was never promised to be.
    Firm {
        /// Which connection.
        on: Moment,
    },
}

impl Footing {
    /// The footing of a primary that has spoken, where so much of its log is held by each of its
    /// standbys.
    #[must_use]
    pub(crate) fn next(
        self,
        now: Moment,
        spoken: Spoken,
        quorum: Option<&Quorum>,
        held: &[(ServerId, Lsn)],
    ) -> Self {
        let on = spoken.first;
        let (end, since) = match self {
            Self::Appointed => return Self::Firm { on },
            Self::Firm { on: known } if known == on => return self,
            Self::Settling { on: known, end, since } if known == on => (end, Some(since)),
            Self::Unheld { on: known, end } if known == on => (end, None),
            Self::Unknown | Self::Settling { .. } | Self::Unheld { .. } | Self::Firm { .. } => {
                (spoken.end, Some(now))
            }
        };
        let is_held = quorum.is_none_or(|quorum| {
            let holds = |at: &&(ServerId, Lsn)| at.1 >= end && quorum.cohort.contains(&at.0);
            held.iter().filter(holds).count() >= quorum.w
        });
        match since {
            _ if is_held => Self::Firm { on },
            Some(since) if now.since(since) < SETTLE_MAX => Self::Settling { on, end, since },
            Some(_) | None => Self::Unheld { on, end },
        }
    }

    /// We were not awake for so long, and did not wait meanwhile. What was waited before counts:
    /// where a process stands still again and again, the wait must end all the same.
    #[must_use]
    pub(crate) fn awake(self, now: Moment, asleep: Duration) -> Self {
        match self {
            Self::Settling { on, end, since } => {
                Self::Settling { on, end, since: now.min(since + asleep) }
            }
            Self::Unknown | Self::Appointed | Self::Unheld { .. } | Self::Firm { .. } => self,
        }
    }

    /// Whether what is opened on this connection's server while it lives may be used.
    pub(crate) const fn is_open(self) -> bool {
        match self {
            Self::Firm { .. } | Self::Unheld { .. } => true,
            Self::Unknown | Self::Appointed | Self::Settling { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(2);
    const STRANGER: ServerId = ServerId(3);
    const END: Lsn = Lsn(100);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn spoken(first: u64) -> Spoken {
        Spoken { first: at(first), newest: at(first + 50), end: END }
    }

    fn any(w: usize) -> Quorum {
        Quorum { w, cohort: BTreeSet::from([A, B]) }
    }

    const NOW: u64 = 1_000;

    fn settling() -> Footing {
        Footing::Settling { on: at(900), end: END, since: at(NOW) }
    }

    fn firm() -> Footing {
        Footing::Firm { on: at(900) }
    }

    type Case<'a> = (&'a str, Footing, Option<Quorum>, &'a [(ServerId, Lsn)], Footing);

    #[test]
    fn after_a_new_connection_as_many_must_hold_the_log_as_are_promised() {
        let earlier = Footing::Firm { on: at(100) };
        let cases: &[Case<'_>] = &[
            ("nobody holds it", earlier, Some(any(1)), &[], settling()),
            ("too little", earlier, Some(any(1)), &[(A, Lsn(99)), (B, Lsn(99))], settling()),
            ("one does", earlier, Some(any(1)), &[(A, Lsn(99)), (B, END)], firm()),
            ("one of two", earlier, Some(any(2)), &[(A, Lsn(99)), (B, END)], settling()),
            ("two of two", earlier, Some(any(2)), &[(A, END), (B, END)], firm()),
            ("one who confirms nothing", earlier, Some(any(1)), &[(STRANGER, END)], settling()),
            ("no quorum", earlier, None, &[], firm()),
            ("at our start", Footing::Unknown, Some(any(1)), &[], settling()),
            ("just promoted", Footing::Appointed, Some(any(1)), &[], firm()),
            ("the same connection", firm(), Some(any(1)), &[], firm()),
            ("it broke while waited for", settling(), Some(any(1)), &[(A, END)], firm()),
        ];
        for (name, before, quorum, held, expected) in cases {
            let next = before.next(at(NOW), spoken(900), quorum.as_ref(), held);
            assert_eq!(next, *expected, "{name}");
        }
    }

    /// The end of the log moves on while direct clients write; what is waited for does not.
    #[test]
    fn what_is_waited_for_is_the_end_at_the_first_look() {
        let quorum = any(1);
        let later = Spoken { end: Lsn(900), ..spoken(900) };
        let next = settling().next(at(NOW + 10), later, Some(&quorum), &[(A, Lsn(99))]);
        assert_eq!(next, settling());
        assert_eq!(settling().next(at(NOW + 10), later, Some(&quorum), &[(A, END)]), firm());

        let again = Spoken { first: at(950), ..later };
        let next = settling().next(at(NOW + 10), again, Some(&quorum), &[(A, END)]);
        let anew = Footing::Settling { on: at(950), end: Lsn(900), since: at(NOW + 10) };
        assert_eq!(next, anew, "it crashed once more");
    }

    #[test]
    fn the_wait_ends_and_what_is_not_held_stays_known() {
        let quorum = any(1);
        let limit = NOW + 6_000;
        let on = |footing: Footing, now, held: &[_]| {
            footing.next(at(now), spoken(900), Some(&quorum), held)
        };
        assert_eq!(on(settling(), limit - 1, &[]), settling());
        let unheld = Footing::Unheld { on: at(900), end: END };
        assert_eq!(on(settling(), limit, &[]), unheld);
        assert!(unheld.is_open());
        assert_eq!(on(unheld, limit + 10, &[]), unheld);
        assert_eq!(on(unheld, limit + 10, &[(B, END)]), firm());

        let slept = settling().awake(at(limit + 500), Duration::from_millis(6_400));
        assert_eq!(on(slept, limit + 510, &[]), slept, "we slept meanwhile");
        assert!(!slept.is_open());
        // A hundred milliseconds were waited before.
        assert_eq!(on(slept, limit + 6_399, &[]), slept);
        assert_eq!(on(slept, limit + 6_400, &[]), unheld);

        let began_while_asleep = settling().awake(at(NOW + 10), Duration::from_mins(1));
        assert_eq!(
            began_while_asleep,
            Footing::Settling { on: at(900), end: END, since: at(NOW + 10) }
        );
    }

    #[test]
    fn the_wait_ends_where_we_stand_still_again_and_again() {
        let (pause, between) = (Duration::from_millis(200), 800);
        let mut footing = settling();
        let mut now = NOW;
        for _ in 0..8 {
            now += between + 200;
            footing = footing.awake(at(now), pause);
            footing = footing.next(at(now), spoken(900), Some(&any(1)), &[]);
        }
        assert_eq!(footing, Footing::Unheld { on: at(900), end: END }, "at {now}");
    }
}
