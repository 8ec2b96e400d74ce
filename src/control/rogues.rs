//! Servers that were promoted beside a primary that went on.
//!
//! Whatever that one acknowledged after the promotion is not in their log. So none of them takes
//! its place by itself, also when it is gone later: an operator says whether what is lost by that
//! may be lost.
//!
//! Invariants:
//! - A claim counts as beside only if the primary answered a question that was asked after the
//!   claim had been seen, or was done with a statement of ours after that.
//! - It is forgotten only where the server follows the primary's branch again, is the primary
//!   itself, or an operator said so.
//!
//! Deliberately absent: a memory that outlives the process. Whoever starts while the primary is
//! gone can't tell such a claim from that of its rightful heir.

use crate::clock::Moment;
use crate::control::adopt::Record;
use crate::control::evidence::Testimony;
use crate::pg::Timeline;
use crate::topology::{History, Role, ServerId};
use std::collections::BTreeMap;

/// What was seen of those who say that they are the primary and are not the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rogues(BTreeMap<ServerId, Claim>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    timeline: Timeline,
    primary: Went,
}

/// What became of the primary after the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// It was not heard of since this moment, when the claim was seen first.
    NotSeenSince(Moment),
    /// It went on.
    On,
}

impl Rogues {
    /// Takes in the answers that still count, and who is on another branch of the primary's number.
    pub(crate) fn note<'a>(
        &mut self,
        record: &Record,
        answers: &(impl Iterator<Item = (ServerId, &'a Testimony)> + Clone),
        is_astray: impl Fn(ServerId) -> bool,
        now: Moment,
    ) {
        self.0.remove(&record.server);
        for (server, seen) in answers.clone().filter(|(_, seen)| seen.system == record.system) {
            if server == record.server {
                continue;
            }
            match seen.role {
                Role::Primary if seen.timeline > record.timeline => {
                    let first = Claim { timeline: seen.timeline, primary: Went::NotSeenSince(now) };
                    let claim = self.0.entry(server).or_insert(first);
                    // Promoted once more it still lacks what it lacked.
                    claim.timeline = seen.timeline;
                }
                Role::Standby if seen.timeline == record.timeline && !is_astray(server) => {
                    self.0.remove(&server);
                }
                Role::Primary | Role::Standby => {}
            }
        }
        let primary = answers.clone().find(|(server, seen)| {
            *server == record.server
                && seen.role == Role::Primary
                && seen.timeline == record.timeline
        });
        if let Some((_, primary)) = primary {
            self.went_on(primary.at);
        }
    }

    /// The primary lived at this moment.
    pub(crate) fn went_on(&mut self, at: Moment) {
        for claim in self.0.values_mut() {
            if matches!(claim.primary, Went::NotSeenSince(moment) if at > moment) {
                claim.primary = Went::On;
            }
        }
    }

    /// Since when it is to be found out if the primary goes on beside one of them, at the latest.
    pub(crate) fn unsettled_since(&self) -> Option<Moment> {
        let since = self.0.values().filter_map(|claim| match claim.primary {
            Went::NotSeenSince(moment) => Some(moment),
            Went::On => None,
        });
        since.max()
    }

    /// Whether the primary went on beside this server, or beside one that it descends from.
    pub(crate) fn lacks(&self, server: ServerId, history: Option<&History>) -> bool {
        let is_of = |(other, claim): (&ServerId, &Claim)| claim.is_of(*other, (server, history));
        self.0.iter().filter(|(_, claim)| claim.primary == Went::On).any(is_of)
    }

    /// An operator takes a server as it is.
    pub(crate) fn pardon(&mut self, server: ServerId, history: Option<&History>) {
        self.0.retain(|other, claim| !claim.is_of(*other, (server, history)));
    }
}

impl Claim {
    /// Whether it is this server's, or that of one whose branch it continues.
    fn is_of(&self, other: ServerId, (server, history): (ServerId, Option<&History>)) -> bool {
        let continues = |history: &History| {
            history.current() != Some(self.timeline) && history.knows(self.timeline)
        };
        other == server || history.is_some_and(continues)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Lsn, SystemId};
    use crate::topology::{Epoch, Fork};

    const A: ServerId = ServerId(0);
    const B: ServerId = ServerId(1);
    const C: ServerId = ServerId(2);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    const RECORD: Record = Record {
        server: A,
        system: SystemId(7),
        timeline: Timeline(1),
        fork: None,
        epoch: Epoch(1),
    };

    /// Who answers, as what, on which branch, and when it was asked.
    fn seen(server: ServerId, role: Role, timeline: u32, asked: u64) -> (ServerId, Testimony) {
        let (system, timeline) = (SystemId(7), Timeline(timeline));
        let (at, streaming, upstream) = (at(asked), None, None);
        (server, Testimony { at, role, system, timeline, streaming, upstream })
    }

    fn noted(rogues: &mut Rogues, now: u64, answers: &[(ServerId, Testimony)]) {
        let answers = answers.iter().map(|(server, seen)| (*server, seen));
        rogues.note(&RECORD, &answers, |_| false, at(now));
    }

    #[test]
    fn a_claim_is_beside_the_primary_once_that_answers_behind_it() {
        use Role::{Primary, Standby};
        let claim = seen(B, Primary, 2, 100);
        let cases = [
            ("it is asked later, and goes on", vec![claim, seen(A, Primary, 1, 111)], true),
            ("it was asked before", vec![claim, seen(A, Primary, 1, 110)], false),
            ("it is a standby by then", vec![claim, seen(A, Standby, 1, 111)], false),
            ("it was promoted itself", vec![claim, seen(A, Primary, 3, 111)], false),
            ("it is not heard of", vec![claim], false),
        ];
        for (name, answers, lacks) in cases {
            let mut rogues = Rogues::default();
            noted(&mut rogues, 110, &[claim, seen(A, Primary, 1, 90)]);
            noted(&mut rogues, 120, &answers);
            assert_eq!(rogues.lacks(B, None), lacks, "{name}");
            assert!(!rogues.lacks(C, None), "{name}");
        }
    }

    /// A server that the primary went on beside.
    fn beside() -> Rogues {
        let mut rogues = Rogues::default();
        let answers = [seen(B, Role::Primary, 2, 100), seen(A, Role::Primary, 1, 200)];
        noted(&mut rogues, 110, &answers);
        rogues
    }

    #[test]
    fn it_is_unsettled_until_the_primary_answers_behind_the_last_of_them() {
        let mut rogues = Rogues::default();
        let claims = [seen(B, Role::Primary, 2, 100), seen(C, Role::Primary, 2, 200)];
        assert_eq!(rogues.unsettled_since(), None);
        noted(&mut rogues, 110, &claims[..1]);
        assert_eq!(rogues.unsettled_since(), Some(at(110)));
        noted(&mut rogues, 210, &claims);
        rogues.went_on(at(150));
        assert_eq!(rogues.unsettled_since(), Some(at(210)));
        rogues.went_on(at(211));
        assert_eq!(rogues.unsettled_since(), None);
    }

    #[test]
    fn it_is_forgotten_where_the_server_follows_again_and_not_before() {
        let cases = [
            ("out of sight", vec![], true),
            ("promoted once more", vec![seen(B, Role::Primary, 3, 300)], true),
            ("a standby on its own branch", vec![seen(B, Role::Standby, 2, 300)], true),
            ("a standby of the primary's", vec![seen(B, Role::Standby, 1, 300)], false),
        ];
        for (name, answers, lacks) in cases {
            let mut rogues = beside();
            noted(&mut rogues, 310, &answers);
            assert_eq!(rogues.lacks(B, None), lacks, "{name}");
        }
    }

    #[test]
    fn who_descends_from_it_lacks_the_same_until_an_operator_takes_him() {
        let fork = |timeline| Fork { timeline: Timeline(timeline), at: Lsn(100) };
        let of_it = History::new(Timeline(3), vec![fork(1), fork(2)]);
        let of_the_primary = History::new(Timeline(2), vec![fork(1)]);
        let mut rogues = beside();
        assert!(rogues.lacks(C, Some(&of_it)) && !rogues.lacks(C, Some(&of_the_primary)));
        rogues.pardon(C, Some(&of_the_primary));
        assert!(rogues.lacks(B, None));
        rogues.pardon(C, Some(&of_it));
        assert!(!rogues.lacks(C, Some(&of_it)) && !rogues.lacks(B, None));
    }
}
