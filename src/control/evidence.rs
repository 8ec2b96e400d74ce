//! What the looks at one server add up to: an answer that still counts, or an absence whose
//! length and kind were measured.
//!
//! Invariants:
//! - An absence is as long as the attempts that were really made: its clock starts with the
//!   first failed attempt, not with the last answer, so a proxy that slept has seen nothing.
//! - An attempt that took longer than its own deadline says that *we* were late; it is no
//!   evidence against the server.
//! - A server that answers anything at all is not gone.

use crate::clock::Moment;
use crate::control::Policy;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::topology::Role;
use crate::topology::ServerId;
use crate::topology::Unseen;
use std::time::Duration;

/// What is known of one server now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// The first look is under way.
    Awaited,
    /// It answered.
    Seen(Testimony),
    /// It did not answer the last look.
    Missing(Absence),
}

/// What an answer says, as far as the choice of the primary goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// When the question was sent.
    pub at: Moment,
    /// In recovery or not.
    pub role: Role,
    /// Whose log it holds.
    pub system: SystemId,
    /// On which branch.
    pub timeline: Timeline,
    /// A standby: whether a walreceiver streams now; unknown without `pg_monitor`.
    pub streaming: Option<bool>,
    /// A standby: the configured server that it follows, where that is known.
    pub upstream: Option<ServerId>,
}

/// One failed attempt to look at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// When it was begun.
    pub began: Moment,
    /// When it had failed.
    pub ended: Moment,
    /// How.
    pub why: Unseen,
}

/// A run of failed attempts without an answer between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Absence {
    /// When the first attempt that failed was begun.
    pub since: Moment,
    /// How the last one failed.
    pub why: Unseen,
    /// Since when the attempts count as evidence: the first of them, or the end of our own pause.
    pub counts_from: Moment,
    /// When the last one had failed.
    last: Moment,
    /// Attempts that found nobody there, up to the last one without a gap.
    gone: Option<Run>,
    /// Attempts that got no sign of life, up to the last one without a gap.
    silent: Option<Run>,
}

/// Attempts that said the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: Moment,
    last: Moment,
    attempts: u32,
}

/// What a failed attempt says about the server behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Nobody is there to take a statement.
    Gone,
    /// Nothing came: dead, hung or cut off.
    Nothing,
    /// It lives, but can't be looked at.
    Life,
}

/// How much longer than its deadline an attempt may take before we blame ourselves.
const OVERRUN: Duration = Duration::from_millis(500);

impl Absence {
    /// The first failed attempt.
    pub(crate) fn begin(attempt: Attempt, policy: &Policy) -> Self {
        let mut absence = Self {
            since: attempt.began,
            why: attempt.why,
            counts_from: attempt.began,
            last: attempt.began,
            gone: None,
            silent: None,
        };
        absence.fail(attempt, policy);
        absence
    }

    /// One more failed attempt.
    pub(crate) fn fail(&mut self, attempt: Attempt, policy: &Policy) {
        self.why = attempt.why;
        let before = std::mem::replace(&mut self.last, attempt.ended);
        if attempt.ended.since(attempt.began) > policy.check_timeout + OVERRUN {
            // We stood still while it was under way. It says nothing, nor for how long.
            return self.void(attempt.ended);
        }
        if attempt.began.since(before) > policy.check_interval + policy.check_timeout + OVERRUN {
            self.void(attempt.began);
        }
        match sign(attempt.why) {
            Sign::Gone => {
                self.gone = Some(Run::extend(self.gone, attempt));
                self.silent = Some(Run::extend(self.silent, attempt));
            }
            Sign::Nothing => {
                self.gone = None;
                self.silent = Some(Run::extend(self.silent, attempt));
            }
            Sign::Life => {
                self.gone = None;
                self.silent = None;
            }
        }
    }

    /// We were not awake before this moment: what was seen until then proves nothing.
    pub(crate) fn void(&mut self, awake_since: Moment) {
        self.gone = None;
        self.silent = None;
        self.counts_from = awake_since;
    }

    /// Attempts in a row, up to the last one, that found nobody there.
    pub(crate) fn gone_attempts(&self) -> u32 {
        self.gone.map_or(0, |run| run.attempts)
    }

    /// How long there has been no sign of life in spite of attempts; `None` if there was one.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        self.silent.map(|run| run.last.since(run.first))
    }

    /// Whether nobody was there for `gone_after`, in at least two attempts.
    pub(crate) fn is_gone(&self, policy: &Policy) -> bool {
        self.gone.is_some_and(|run| run.lasted(policy.gone_after))
    }

    /// Whether there was no sign of life for `silent_after`, in at least two attempts.
    pub(crate) fn is_silent(&self, policy: &Policy) -> bool {
        self.silent.is_some_and(|run| run.lasted(policy.silent_after))
    }

    /// Whether the last attempt found that no statement can be run there now.
    pub(crate) fn refuses(&self) -> bool {
        sign(self.why) == Sign::Gone
    }
}

impl Run {
    fn extend(run: Option<Self>, attempt: Attempt) -> Self {
        match run {
            Some(run) => Self { last: attempt.ended, attempts: run.attempts + 1, ..run },
            None => Self { first: attempt.began, last: attempt.ended, attempts: 1 },
        }
    }

    fn lasted(self, limit: Duration) -> bool {
        self.attempts >= 2 && self.last.since(self.first) >= limit
    }
}

/// What a failure says. A server that starts up or shuts down (57P03) runs no statement for
/// anybody whose connection broke; one that is full, or refuses our login, lives.
const fn sign(why: Unseen) -> Sign {
    match why {
        Unseen::Refused | Unseen::Broken | Unseen::NotReady => Sign::Gone,
        Unseen::NotYet | Unseen::Silent | Unseen::Unresolved => Sign::Nothing,
        Unseen::LoginRefused
        | Unseen::Full
        | Unseen::NotPostgres
        | Unseen::Tls
        | Unseen::QueryFailed => Sign::Life,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// A name, the attempts (began, ended, how), and whether it is gone, and silent.
    type Case<'a> = (&'a str, &'a [(u64, u64, Unseen)], (bool, bool));

    fn absence(attempts: &[(u64, u64, Unseen)]) -> Absence {
        let policy = Policy::default();
        let mut attempts = attempts.iter().map(|&(began, ended, why)| Attempt {
            began: at(began),
            ended: at(ended),
            why,
        });
        let mut absence = Absence::begin(attempts.next().unwrap(), &policy);
        attempts.for_each(|attempt| absence.fail(attempt, &policy));
        absence
    }

    /// The defaults: gone after 500 ms, silent after 5 s, a look every 250 ms, 1 s for one.
    #[test]
    fn an_absence_is_what_was_attempted_and_failed() {
        use Unseen::{Broken, Full, LoginRefused, NotReady, Refused, Silent};
        let cases: &[Case<'_>] = &[
            ("one refusal, however long ago", &[(0, 1, Refused)], (false, false)),
            (
                "refused for too short a time",
                &[(0, 1, Refused), (400, 401, Refused)],
                (false, false),
            ),
            ("broken, then refused", &[(0, 1, Broken), (500, 501, Refused)], (true, false)),
            ("restarting counts", &[(0, 1, Broken), (500, 501, NotReady)], (true, false)),
            (
                "full between",
                &[(0, 1, Refused), (300, 301, Full), (600, 601, Refused)],
                (false, false),
            ),
            ("silence is not absence", &[(0, 1000, Silent), (1250, 2250, Silent)], (false, false)),
            (
                "silent for long",
                &[
                    (0, 1000, Silent),
                    (1250, 2250, Silent),
                    (2500, 3500, Silent),
                    (3750, 4750, Silent),
                    (4999, 5999, Silent),
                ],
                (false, true),
            ),
            (
                "we slept for an hour",
                &[(0, 1, Refused), (3_600_000, 3_600_001, Refused)],
                (false, false),
            ),
            ("we stalled in the attempt", &[(0, 1, Silent), (250, 9000, Silent)], (false, false)),
            ("it lives", &[(0, 1, LoginRefused), (5000, 5001, LoginRefused)], (false, false)),
        ];
        let policy = Policy::default();
        for (name, attempts, expected) in cases {
            let absence = absence(attempts);
            assert_eq!((absence.is_gone(&policy), absence.is_silent(&policy)), *expected, "{name}");
        }
    }

    /// Else a pause would count as a silence of the server, and as one that we have witnessed.
    #[test]
    fn an_attempt_in_which_we_stood_still_says_nothing_nor_for_how_long() {
        use Unseen::{Refused, Silent};
        for why in [Refused, Silent] {
            let seen = |attempts: &[(u64, u64, Unseen)]| {
                let absence = absence(attempts);
                (absence.gone_attempts(), absence.silent_for(), absence.counts_from)
            };
            let (first, stalled) = ((0, 1000, why), (1250, 9600, why));
            assert_eq!(seen(&[stalled]), (0, None, at(9600)), "{why:?}");
            assert_eq!(seen(&[first, stalled]), (0, None, at(9600)), "{why:?}");
            let after = (9700, 10_700, why);
            let gone = u32::from(why == Refused);
            let silent = Some(Duration::from_secs(1));
            assert_eq!(seen(&[first, stalled, after]), (gone, silent, at(9600)), "{why:?}");
        }
    }
}
