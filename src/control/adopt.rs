//! Who is the primary: the deciding half of the control plane.
//!
//! pgsteer promotes nobody here. Others do (a person, Patroni, a cloud), and the question is
//! whose word to take. [`decide`] reads no clock and opens no socket: the same [`Scene`] always
//! gives the same [`Verdict`], and what it refuses is named by a [`Finding`].
//!
//! Invariants:
//! - A server takes the primary's place only on a timeline that is known to descend from the
//!   recorded one, and only when the recorded primary is in recovery or gone by the evidence.
//! - A server beside which the primary went on is not adopted when that is gone: it lacks what was
//!   acknowledged since.
//! - Silence alone is not enough while a standby still streams, or may stream, from it.
//! - The same primary on the same timeline keeps its epoch, however often it restarts.
//! - Two primaries at the start are nobody's primary, until only one is left.
//!
//! Deliberately absent: "the last one that said so", and the higher timeline as an argument.

use crate::clock::Moment;
use crate::control::Policy;
use crate::control::evidence::{Sighting, Testimony};
use crate::control::finding::{Finding, Refusal};
use crate::control::rogues::Rogues;
use crate::pg::Lsn;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::topology::Epoch;
use crate::topology::History;
use crate::topology::NoPrimary;
use crate::topology::Primary;
use crate::topology::Role;
use crate::topology::ServerId;
use std::collections::{BTreeMap, BTreeSet};

/// What was decided before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Standing {
    /// Nothing: no primary was seen yet.
    #[default]
    Fresh,
    /// These said at the start that they are the primary, each on its timeline.
    Disputed(BTreeMap<ServerId, Timeline>),
    /// This one was adopted.
    Adopted(Record),
}

/// The primary that was adopted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    /// Which server.
    pub server: ServerId,
    /// Whose log.
    pub system: SystemId,
    /// On which branch.
    pub timeline: Timeline,
    /// Where that branch left its parent, if that was ever seen.
    pub fork: Option<Lsn>,
    /// The number of this adoption.
    pub epoch: Epoch,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// This moment.
    pub now: Moment,
    /// Each server's sighting, by its id.
    pub sightings: &'a [Sighting],
    /// The history of each server's timeline, where it is known in full.
    pub histories: &'a [Option<History>],
    /// Who was promoted beside a primary that went on.
    pub rogues: &'a Rogues,
    /// The history of the recorded primary's branch, as far as it was ever seen.
    pub descent: &'a History,
    /// What the operator chose.
    pub policy: &'a Policy,
    /// A change of primary of our own is under way: nobody is adopted, and writes are held.
    pub changing: Option<NoPrimary>,
    /// Epochs up to this one are taken, by attempts of ours that came to nothing.
    pub epochs_used: Epoch,
}

/// What was decided, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// To be handed in with the next scene.
    pub standing: Standing,
    /// Where writes go.
    pub primary: Primary,
    /// The set's system, once a server was seen.
    pub system: Option<SystemId>,
    /// What an operator must know.
    pub findings: BTreeSet<Finding>,
}

/// Decides who the primary is.
#[must_use]
pub(crate) fn decide(standing: &Standing, scene: &Scene<'_>) -> Verdict {
    match (standing, scene.changing) {
        (Standing::Adopted(record), Some(why)) => changing(*record, why, scene),
        (Standing::Fresh | Standing::Disputed(_), Some(_)) | (_, None) => settled(standing, scene),
    }
}

/// Between two primaries: what becomes of it, the change itself says.
fn changing(record: Record, why: NoPrimary, scene: &Scene<'_>) -> Verdict {
    Verdict {
        standing: Standing::Adopted(record),
        primary: Primary::None { last: Some(record.server), why },
        system: Some(record.system),
        findings: scene.strangers(Some(record.system)),
    }
}

fn settled(standing: &Standing, scene: &Scene<'_>) -> Verdict {
    match standing {
        Standing::Adopted(record) => keep_or_follow(*record, scene),
        Standing::Fresh => first_primary(&BTreeMap::new(), scene),
        Standing::Disputed(earlier) => first_primary(earlier, scene),
    }
}

/// No primary was adopted yet: the only one that is seen is taken, once every server had its
/// first look; of two, none.
fn first_primary(earlier: &BTreeMap<ServerId, Timeline>, scene: &Scene<'_>) -> Verdict {
    if scene.sightings.contains(&Sighting::Awaited) {
        // Whose set this is depends on all of them, not on who answers first.
        return Verdict {
            standing: disputed(earlier.clone()),
            primary: Primary::None { last: None, why: NoPrimary::NeverSeen },
            system: None,
            findings: BTreeSet::new(),
        };
    }
    let system = scene.first_system();
    let none = |why, standing, findings| Verdict {
        standing,
        primary: Primary::None { last: None, why },
        system,
        findings,
    };
    let mut findings = scene.strangers(system);
    let mut claims: BTreeMap<ServerId, Timeline> = earlier.clone();
    claims.retain(|&server, &mut timeline| !scene.released(server, timeline));
    let seen: BTreeMap<_, _> = scene.claimants(system).collect();
    claims.extend(seen.iter().map(|(&id, seen)| (id, seen.timeline)));
    let (Some((&server, &timeline)), 1) = (claims.first_key_value(), claims.len()) else {
        if claims.is_empty() {
            return none(NoPrimary::NeverSeen, Standing::Fresh, findings);
        }
        findings.insert(Finding::Disputed {
            claims: claims.iter().map(|(&id, &timeline)| (id, timeline)).collect(),
        });
        return none(NoPrimary::Disputed, Standing::Disputed(claims), findings);
    };
    let Some(claimant) = seen.get(&server) else {
        // The other one gave up its claim; this one is not seen now.
        return none(NoPrimary::NeverSeen, Standing::Disputed(claims), findings);
    };
    if let Some((standby, newer)) = scene.standby_ahead_of(claimant) {
        findings.insert(Finding::LeftBehind { server, timeline, standby, newer });
        return none(NoPrimary::Disputed, Standing::Disputed(claims), findings);
    }
    let epoch = Epoch(scene.epochs_used.0 + 1);
    let fork = scene.fork(server, timeline);
    let record = Record { server, system: claimant.system, timeline, fork, epoch };
    open(record, findings)
}

/// A primary was adopted: it stays, or is proved to be gone and followed by a descendant.
fn keep_or_follow(record: Record, scene: &Scene<'_>) -> Verdict {
    let strangers = scene.strangers(Some(record.system));
    let sighting = scene.fresh(record.server);
    if sighting.is_some_and(|seen| record.is_its_primary(seen)) {
        let mut findings = strangers;
        findings.extend(scene.cordoned(&record, Refusal::RecordedAnswers));
        return open(record, findings);
    }
    match successor(&record, scene) {
        Ok(next) => {
            let mut findings = scene.strangers(Some(next.system));
            findings.extend(scene.cordoned(&next, Refusal::RecordedAnswers));
            open(next, findings)
        }
        Err(refusal) => {
            let mut findings = strangers;
            findings.extend(scene.cordoned(&record, refusal));
            without(record, scene, findings)
        }
    }
}

/// The one server that may take the recorded primary's place, or what speaks against it.
fn successor(record: &Record, scene: &Scene<'_>) -> Result<Record, Refusal> {
    let claimants: Vec<_> = scene.claimants(Some(record.system)).collect();
    let heirs: Vec<_> = claimants
        .iter()
        .filter(|(id, seen)| scene.descends(*id, seen.timeline, record) == Ok(()))
        .collect();
    let (server, seen) = match heirs.as_slice() {
        [heir] => **heir,
        [] => {
            let mut reasons = claimants.iter();
            let reason =
                reasons.find_map(|(id, seen)| scene.descends(*id, seen.timeline, record).err());
            return Err(reason.unwrap_or(Refusal::NotProvenGone));
        }
        [_, _, ..] => return Err(Refusal::SeveralNewcomers),
    };
    if server != record.server {
        scene.vacant(record.server, record.timeline)?;
        // One in recovery was made so by somebody, who knows what that gives up.
        let gone = scene.fresh(record.server).is_none();
        let history = scene.histories.get(server.index()).and_then(Option::as_ref);
        if gone && scene.rogues.lacks(server, history) {
            return Err(Refusal::WentOnBeside);
        }
    }
    let epoch = Epoch(record.epoch.max(scene.epochs_used).0 + 1);
    let fork = scene.fork(server, seen.timeline);
    Ok(Record { server, system: record.system, timeline: seen.timeline, fork, epoch })
}

/// The recorded primary does not answer as such, and nobody may take its place.
fn without(record: Record, scene: &Scene<'_>, mut findings: BTreeSet<Finding>) -> Verdict {
    let several = findings.iter().filter(|finding| finding.is_refused_heir()).count() > 1;
    let why = match scene.fresh(record.server) {
        _ if several => NoPrimary::Disputed,
        Some(seen) if seen.system == record.system => NoPrimary::Demoted,
        Some(_) | None => NoPrimary::Unseen,
    };
    if several {
        findings.insert(Finding::Disputed {
            claims: scene.claimants(Some(record.system)).map(|(id, s)| (id, s.timeline)).collect(),
        });
    }
    let alone = scene.claimants(Some(record.system)).next().is_none();
    let primary = if why == NoPrimary::Unseen && alone && scene.grace(record.server) {
        Primary::Open { server: record.server, timeline: record.timeline }
    } else {
        Primary::None { last: Some(record.server), why }
    };
    let system = Some(record.system);
    Verdict { standing: Standing::Adopted(record), primary, system, findings }
}

fn open(record: Record, findings: BTreeSet<Finding>) -> Verdict {
    Verdict {
        standing: Standing::Adopted(record),
        primary: Primary::Open { server: record.server, timeline: record.timeline },
        system: Some(record.system),
        findings,
    }
}

fn disputed(claims: BTreeMap<ServerId, Timeline>) -> Standing {
    if claims.is_empty() { Standing::Fresh } else { Standing::Disputed(claims) }
}

impl Record {
    /// Whether this answer is the adopted primary's own.
    fn is_its_primary(&self, seen: &Testimony) -> bool {
        seen.role == Role::Primary && seen.system == self.system && seen.timeline == self.timeline
    }
}

impl Scene<'_> {
    /// A server's answer, if it still counts.
    fn fresh(&self, server: ServerId) -> Option<&Testimony> {
        match self.sightings.get(server.index())? {
            Sighting::Seen(seen) => {
                let fresh = self.now.since(seen.at) <= self.policy.observation_age_max;
                fresh.then_some(seen)
            }
            Sighting::Awaited | Sighting::Missing(_) => None,
        }
    }

    /// Every answer that still counts.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (ServerId, &Testimony)> + Clone {
        let ids = (0..self.sightings.len()).filter_map(|at| u16::try_from(at).ok()).map(ServerId);
        ids.filter_map(|id| self.fresh(id).map(|seen| (id, seen)))
    }

    /// The servers of this system that say that they are the primary.
    fn claimants(&self, system: Option<SystemId>) -> impl Iterator<Item = (ServerId, &Testimony)> {
        self.answers()
            .filter(move |(_, seen)| seen.role == Role::Primary && Some(seen.system) == system)
    }

    /// Before a primary was adopted: the first primary's system, else that of the most servers,
    /// else the first configured server's.
    fn first_system(&self) -> Option<SystemId> {
        if let Some((_, seen)) = self.answers().find(|(_, seen)| seen.role == Role::Primary) {
            return Some(seen.system);
        }
        let votes = |system| self.answers().filter(|(_, seen)| seen.system == system).count();
        let mut best: Option<(usize, SystemId)> = None;
        for (_, seen) in self.answers() {
            let count = votes(seen.system);
            if best.is_none_or(|(most, _)| count > most) {
                best = Some((count, seen.system));
            }
        }
        best.map(|(_, system)| system)
    }

    /// The servers that hold another system's log.
    fn strangers(&self, expected: Option<SystemId>) -> BTreeSet<Finding> {
        let Some(expected) = expected else { return BTreeSet::new() };
        self.answers()
            .filter(|(_, seen)| seen.system != expected)
            .map(|(server, seen)| Finding::OtherSystem { server, found: seen.system, expected })
            .collect()
    }

    /// The servers that say that they are the primary and are not `record`'s.
    fn cordoned(&self, record: &Record, refusal: Refusal) -> BTreeSet<Finding> {
        let record = *record;
        self.claimants(Some(record.system))
            .filter(|(server, seen)| *server != record.server || seen.timeline != record.timeline)
            .map(|(server, seen)| {
                let (timeline, recorded) = (seen.timeline, record.timeline);
                if timeline < recorded {
                    return Finding::Returned { server, timeline, recorded };
                }
                let own = self.descends(server, timeline, &record).err();
                let refusal = own.unwrap_or(refusal);
                Finding::Rogue { server, timeline, primary: record.server, refusal }
            })
            .collect()
    }

    /// Whether `server`'s timeline is known to continue the recorded one.
    fn descends(
        &self,
        server: ServerId,
        timeline: Timeline,
        record: &Record,
    ) -> Result<(), Refusal> {
        if timeline == record.timeline {
            return Err(Refusal::SameTimeline);
        }
        let history = self.histories.get(server.index()).and_then(Option::as_ref);
        let Some(history) = history.filter(|known| known.current() == Some(timeline)) else {
            return Err(Refusal::HistoryUnknown);
        };
        // A number alone tells no branch. Where the recorded one began is known from the record
        // also to a process that was started while its primary was away.
        let continues = history.knows(record.timeline)
            && !history.contradicts(self.descent)
            && record.fork.is_none_or(|fork| history.has_fork_at(fork));
        if continues { Ok(()) } else { Err(Refusal::NotADescendant) }
    }

    /// Where a server's branch, which has that number, left its parent, if that is known.
    fn fork(&self, server: ServerId, timeline: Timeline) -> Option<Lsn> {
        let history = self.histories.get(server.index()).and_then(Option::as_ref);
        let own = history.filter(|known| known.current() == Some(timeline))?;
        own.forks().last().map(|fork| fork.at)
    }

    /// Whether it is on another branch than the recorded one, or one that leads there, in spite of
    /// its number.
    pub(crate) fn is_astray(&self, server: ServerId) -> bool {
        let history = self.histories.get(server.index()).and_then(Option::as_ref);
        history.is_some_and(|own| self.descent.contradicts(own))
    }

    /// Whether the recorded primary's place is free: it is in recovery, or gone.
    fn vacant(&self, server: ServerId, timeline: Timeline) -> Result<(), Refusal> {
        if let Some(seen) = self.fresh(server) {
            return match seen.role {
                Role::Standby => Ok(()),
                Role::Primary => Err(Refusal::RecordedAnswers),
            };
        }
        let Some(Sighting::Missing(absence)) = self.sightings.get(server.index()) else {
            return Err(Refusal::NotProvenGone);
        };
        if absence.is_gone(self.policy) {
            return Ok(());
        }
        if !absence.is_silent(self.policy) {
            return Err(Refusal::NotProvenGone);
        }
        self.witness(server, timeline).map_or(Ok(()), Err)
    }

    /// Whether a server gave up its claim to `timeline`.
    fn released(&self, server: ServerId, timeline: Timeline) -> bool {
        self.vacant(server, timeline).is_ok()
    }

    /// A standby that still streams, or may stream, from a server that we can't see.
    ///
    /// One that follows another server of ours says nothing: what it gets may come from that
    /// server's own log.
    fn witness(&self, server: ServerId, timeline: Timeline) -> Option<Refusal> {
        let standbys = self.answers().filter(|(_, seen)| {
            seen.role == Role::Standby
                && seen.timeline == timeline
                && seen.upstream.is_none_or(|upstream| upstream == server)
        });
        let mut doubt = None;
        for (standby, seen) in standbys {
            match seen.streaming {
                Some(true) => return Some(Refusal::StillStreams(standby)),
                None => doubt = doubt.or(Some(Refusal::StreamingUnknown(standby))),
                Some(false) => {}
            }
        }
        doubt.or_else(|| self.unseen_witness(server))
    }

    /// A server that may be such a standby and is not seen. One that has not been for as long as a
    /// primary must be silent says no more than that one does; one late answer proves nothing.
    fn unseen_witness(&self, server: ServerId) -> Option<Refusal> {
        let is_out_of_sight = |(id, sighting): (ServerId, &Sighting)| match sighting {
            _ if id == server => false,
            Sighting::Awaited => false,
            Sighting::Seen(_) => self.fresh(id).is_none(),
            Sighting::Missing(gone) => {
                let long = self.now.since(gone.counts_from) >= self.policy.silent_after;
                !long && !gone.is_gone(self.policy)
            }
        };
        let mut servers = self.sightings.iter().zip(0..).map(|(it, id)| (ServerId(id), it));
        servers
            .find(|(id, it)| is_out_of_sight((*id, it)))
            .map(|(id, _)| Refusal::StandbyUnseen(id))
    }

    /// A standby of the same system on a higher timeline than a primary's: somebody was promoted
    /// past that primary before we came.
    fn standby_ahead_of(&self, claimant: &Testimony) -> Option<(ServerId, Timeline)> {
        let mut standbys = self.answers().filter(|(_, seen)| {
            seen.role == Role::Standby
                && seen.system == claimant.system
                && seen.timeline > claimant.timeline
        });
        standbys.next().map(|(id, seen)| (id, seen.timeline))
    }

    /// Whether an unseen primary may still take writes: its last look failed in a way that says
    /// nothing about it, its absence is still short, and (asked before) nobody else claims.
    fn grace(&self, server: ServerId) -> bool {
        match self.sightings.get(server.index()) {
            Some(Sighting::Missing(absence)) => {
                let short = self.now.since(absence.since) <= self.policy.observation_age_max;
                short && !absence.refuses()
            }
            Some(Sighting::Awaited | Sighting::Seen(_)) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::evidence::{Absence, Attempt};
    use crate::pg::Lsn;
    use crate::topology::Fork;
    use crate::topology::Unseen;

    const NOW: u64 = 100_000;
    const OURS: SystemId = SystemId(7);
    const A: ServerId = ServerId(0);
    const B: ServerId = ServerId(1);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    fn seen(role: Role, timeline: u32) -> Testimony {
        Testimony {
            at: at(NOW),
            role,
            system: OURS,
            timeline: Timeline(timeline),
            streaming: None,
            upstream: None,
        }
    }

    fn primary(timeline: u32) -> Sighting {
        Sighting::Seen(seen(Role::Primary, timeline))
    }

    fn standby(timeline: u32) -> Sighting {
        Sighting::Seen(Testimony { streaming: Some(false), ..seen(Role::Standby, timeline) })
    }

    fn streaming(timeline: u32, streaming: Option<bool>) -> Sighting {
        Sighting::Seen(Testimony { streaming, ..seen(Role::Standby, timeline) })
    }

    fn missing(why: Unseen, millis: u64) -> Sighting {
        let policy = Policy::default();
        let mut began = NOW - millis;
        let first = Attempt { began: at(began), ended: at(began + 1), why };
        let mut absence = Absence::begin(first, &policy);
        while began + 250 < NOW {
            began += 250;
            absence.fail(Attempt { began: at(began), ended: at(began + 1), why }, &policy);
        }
        absence.fail(Attempt { began: at(NOW - 1), ended: at(NOW), why }, &policy);
        Sighting::Missing(absence)
    }

    /// Timeline `n` descends from all before it; 9 is a stranger's.
    fn history(timeline: Timeline) -> History {
        let forks = (1..timeline.0).map(|n| Fork { timeline: Timeline(n), at: Lsn(100) });
        let forks = if timeline == Timeline(9) { Vec::new() } else { forks.collect() };
        History::new(timeline, forks)
    }

    fn judge(standing: &Standing, sightings: &[Sighting]) -> Verdict {
        let histories: Vec<_> = sightings
            .iter()
            .map(|sighting| match sighting {
                Sighting::Seen(seen) => Some(history(seen.timeline)),
                Sighting::Awaited | Sighting::Missing(_) => None,
            })
            .collect();
        let policy = Policy::default();
        let scene = Scene {
            now: at(NOW),
            sightings,
            histories: &histories,
            rogues: &Rogues::default(),
            descent: &History::default(),
            policy: &policy,
            changing: None,
            epochs_used: Epoch(0),
        };
        decide(standing, &scene)
    }

    /// Whoever answers first may be a stranger.
    #[test]
    fn nobody_is_a_stranger_before_every_server_was_asked() {
        let foreign = Testimony { system: SystemId(9), ..seen(Role::Primary, 1) };
        let first = judge(&Standing::Fresh, &[Sighting::Awaited, Sighting::Seen(foreign)]);
        assert_eq!((first.system, first.findings.len()), (None, 0), "{first:?}");
        let foreign = Testimony { system: SystemId(9), ..seen(Role::Primary, 1) };
        let both = judge(&Standing::Fresh, &[primary(1), Sighting::Seen(foreign)]);
        assert_eq!((both.system, both.findings.len()), (Some(OURS), 1), "{both:?}");
    }

    fn adopted(server: ServerId, timeline: u32, epoch: u64) -> Standing {
        Standing::Adopted(Record {
            server,
            system: OURS,
            timeline: Timeline(timeline),
            fork: None,
            epoch: Epoch(epoch),
        })
    }

    const fn open(server: ServerId, timeline: u32) -> Primary {
        Primary::Open { server, timeline: Timeline(timeline) }
    }

    const fn none(why: NoPrimary) -> Primary {
        Primary::None { last: Some(A), why }
    }

    #[test]
    fn at_the_start_one_primary_is_taken_and_of_two_none() {
        let never = Primary::None { last: None, why: NoPrimary::NeverSeen };
        let disputed = Primary::None { last: None, why: NoPrimary::Disputed };
        let refused = || missing(Unseen::Refused, 10);
        let cases = [
            ("nobody", vec![refused(), standby(1)], never),
            ("not everybody was asked", vec![primary(1), Sighting::Awaited], never),
            ("one", vec![standby(1), primary(1)], open(B, 1)),
            ("one, the other is down", vec![refused(), primary(3)], open(B, 3)),
            ("two", vec![primary(1), primary(2), standby(1)], disputed),
            ("two of one timeline", vec![primary(1), primary(1)], disputed),
            ("a standby is on a newer timeline", vec![primary(1), standby(2)], disputed),
            ("a standby is on an older timeline", vec![primary(2), standby(1)], open(A, 2)),
        ];
        for (name, sightings, expected) in cases {
            assert_eq!(judge(&Standing::Fresh, &sightings).primary, expected, "{name}");
        }
    }

    #[test]
    fn a_dispute_at_the_start_ends_when_one_gives_up_and_not_before() {
        let start = judge(&Standing::Fresh, &[primary(1), primary(2)]);
        assert!(matches!(start.standing, Standing::Disputed(_)));
        let why = NoPrimary::Disputed;
        let cases = [
            ("a blip", vec![primary(1), missing(Unseen::Silent, 1500)], None),
            ("full", vec![primary(1), missing(Unseen::Full, 60_000)], None),
            ("gone", vec![primary(1), missing(Unseen::Refused, 700)], Some(open(A, 1))),
            ("in recovery", vec![standby(1), primary(2)], Some(open(B, 2))),
        ];
        for (name, sightings, expected) in cases {
            let verdict = judge(&start.standing, &sightings);
            let expected = expected.unwrap_or(Primary::None { last: None, why });
            assert_eq!(verdict.primary, expected, "{name}");
        }
    }

    #[test]
    fn a_newcomer_is_adopted_only_when_the_recorded_primary_is_gone() {
        use Unseen::{Broken, Full, LoginRefused, Refused, Silent};
        let gone = |why, millis| missing(why, millis);
        let unseen = none(NoPrimary::Unseen);
        let cases = [
            ("alive", vec![primary(1), primary(2)], open(A, 1)),
            ("in recovery", vec![standby(1), primary(2)], open(B, 2)),
            ("refused for long", vec![gone(Refused, 600), primary(2)], open(B, 2)),
            ("broken for long", vec![gone(Broken, 600), primary(2)], open(B, 2)),
            ("refused a moment ago", vec![gone(Refused, 200), primary(2)], unseen),
            ("silent for long", vec![gone(Silent, 6000), primary(2)], open(B, 2)),
            ("silent for too short", vec![gone(Silent, 3000), primary(2)], unseen),
            ("full", vec![gone(Full, 60_000), primary(2)], unseen),
            ("our login is refused", vec![gone(LoginRefused, 60_000), primary(2)], unseen),
            ("of a foreign history", vec![gone(Refused, 600), primary(9)], unseen),
            ("on the same timeline", vec![gone(Refused, 600), primary(1)], unseen),
            (
                "two newcomers",
                vec![gone(Refused, 600), primary(2), primary(3)],
                none(NoPrimary::Disputed),
            ),
        ];
        check(&cases);
    }

    #[test]
    fn a_primary_is_not_silent_while_a_standby_hears_or_may_hear_from_it() {
        use Unseen::{Full, LoginRefused, Refused, Silent};
        let gone = |why, millis| missing(why, millis);
        let witness = |state| streaming(1, state);
        let unseen = none(NoPrimary::Unseen);
        check(&[
            (
                "silent, but a standby streams from it",
                vec![gone(Silent, 60_000), primary(2), witness(Some(true))],
                unseen,
            ),
            (
                "silent, and whether a standby streams is not known",
                vec![gone(Silent, 60_000), primary(2), witness(None)],
                unseen,
            ),
            (
                "silent, and no standby streams",
                vec![gone(Silent, 60_000), primary(2), witness(Some(false))],
                open(B, 2),
            ),
            (
                "silent, and the other standby follows the newcomer",
                vec![gone(Silent, 60_000), primary(2), streaming(2, Some(true))],
                open(B, 2),
            ),
            (
                "silent, and a standby missed a look",
                vec![gone(Silent, 60_000), primary(2), gone(Silent, 1_500)],
                unseen,
            ),
            (
                "silent, and a standby is full for a moment",
                vec![gone(Silent, 60_000), primary(2), gone(Full, 1_500)],
                unseen,
            ),
            (
                "silent, and a standby has refused our login for long",
                vec![gone(Silent, 60_000), primary(2), gone(LoginRefused, 6_000)],
                open(B, 2),
            ),
            (
                "silent, and so is a standby for as long",
                vec![gone(Silent, 60_000), primary(2), gone(Silent, 6_000)],
                open(B, 2),
            ),
            (
                "silent, and a standby is gone",
                vec![gone(Silent, 60_000), primary(2), gone(Refused, 600)],
                open(B, 2),
            ),
            (
                "refused, while a standby is not seen",
                vec![gone(Refused, 600), primary(2), gone(Silent, 1_500)],
                open(B, 2),
            ),
            (
                "refused, while a cut-off standby still waits for it",
                vec![gone(Refused, 600), primary(2), witness(Some(true))],
                open(B, 2),
            ),
        ]);
    }

    /// Each case: its name, what is seen, and who takes writes then.
    fn check(cases: &[(&str, Vec<Sighting>, Primary)]) {
        for (name, sightings, expected) in cases {
            let verdict = judge(&adopted(A, 1, 4), sightings);
            assert_eq!(verdict.primary, *expected, "{name}");
            let epoch = if *expected == open(B, 2) { 5 } else { 4 };
            let Standing::Adopted(record) = verdict.standing else { panic!("{name}: forgotten") };
            assert_eq!(record.epoch, Epoch(epoch), "{name}");
        }
    }

    /// The primary is away since before this process was started: the record alone tells its branch
    /// from another of its number.
    #[test]
    fn who_descends_from_another_branch_of_the_recorded_number_is_no_heir() {
        let sightings = [missing(Unseen::Refused, 600), primary(3)];
        let judged = |fork| {
            let Standing::Adopted(record) = adopted(A, 2, 4) else { panic!("it is adopted") };
            judge(&Standing::Adopted(Record { fork, ..record }), &sightings)
        };
        assert_eq!(judged(None).primary, open(B, 3));
        assert_eq!(judged(Some(Lsn(100))).primary, open(B, 3));
        let other = judged(Some(Lsn(80)));
        assert_eq!(other.primary, none(NoPrimary::Unseen));
        let refusal = Refusal::NotADescendant;
        let rogue = Finding::Rogue { server: B, timeline: Timeline(3), primary: A, refusal };
        assert!(other.findings.contains(&rogue), "{:?}", other.findings);
    }

    #[test]
    fn a_newcomer_of_unknown_history_waits() {
        let sightings = [missing(Unseen::Refused, 600), primary(2)];
        let policy = Policy::default();
        let scene = Scene {
            now: at(NOW),
            sightings: &sightings,
            histories: &[None, None],
            rogues: &Rogues::default(),
            descent: &History::default(),
            policy: &policy,
            changing: None,
            epochs_used: Epoch(0),
        };
        let verdict = decide(&adopted(A, 1, 1), &scene);
        assert_eq!(verdict.primary, none(NoPrimary::Unseen));
        let refusal = Refusal::HistoryUnknown;
        let rogue = Finding::Rogue { server: B, timeline: Timeline(2), primary: A, refusal };
        assert!(verdict.findings.contains(&rogue), "{:?}", verdict.findings);
    }

    #[test]
    fn the_same_primary_keeps_its_epoch_and_loses_its_writes_while_unseen() {
        let unseen = none(NoPrimary::Unseen);
        let cases = [
            ("there", primary(1), open(A, 1)),
            ("refused", missing(Unseen::Refused, 100), unseen),
            ("silent for a moment", missing(Unseen::Silent, 1500), open(A, 1)),
            ("silent", missing(Unseen::Silent, 3000), unseen),
            ("full for a moment", missing(Unseen::Full, 1500), open(A, 1)),
            ("in recovery", standby(1), none(NoPrimary::Demoted)),
            ("back after a week", primary(1), open(A, 1)),
        ];
        for (name, sighting, expected) in cases {
            let verdict = judge(&adopted(A, 1, 3), &[sighting, standby(1)]);
            assert_eq!(verdict.primary, expected, "{name}");
            assert_eq!(verdict.standing, adopted(A, 1, 3), "{name}");
        }
    }

    #[test]
    fn a_primary_that_was_promoted_anew_is_a_new_epoch() {
        let verdict = judge(&adopted(A, 1, 3), &[primary(2), standby(1)]);
        let Standing::Adopted(record) = adopted(A, 2, 4) else { panic!("it is adopted") };
        let record = Standing::Adopted(Record { fork: Some(Lsn(100)), ..record });
        assert_eq!((verdict.primary, verdict.standing), (open(A, 2), record));
    }

    #[test]
    fn an_old_answer_counts_as_none() {
        let old = Testimony { at: at(NOW - 5000), ..seen(Role::Primary, 1) };
        let verdict = judge(&adopted(A, 1, 1), &[Sighting::Seen(old), primary(2)]);
        assert_eq!(verdict.primary, none(NoPrimary::Unseen), "and it is no evidence either");
    }

    #[test]
    fn who_comes_back_or_is_a_stranger_is_named() {
        let verdict = judge(&adopted(B, 2, 2), &[primary(1), primary(2)]);
        let timeline = Timeline(1);
        let back = Finding::Returned { server: A, timeline, recorded: Timeline(2) };
        assert_eq!(verdict.findings, BTreeSet::from([back]));
        assert_eq!(verdict.primary, open(B, 2));

        let other = Sighting::Seen(Testimony { system: SystemId(8), ..seen(Role::Primary, 1) });
        let verdict = judge(&Standing::Fresh, &[primary(1), other, standby(1)]);
        let (found, expected) = (SystemId(8), OURS);
        let stranger = Finding::OtherSystem { server: B, found, expected };
        assert_eq!(verdict.findings, BTreeSet::from([stranger]));
        assert_eq!(verdict.primary, open(A, 1));
    }

    #[test]
    fn without_a_primary_the_system_is_the_majoritys() {
        let other = Sighting::Seen(Testimony { system: SystemId(8), ..seen(Role::Standby, 1) });
        let verdict = judge(&Standing::Fresh, &[other.clone(), standby(1), standby(1)]);
        assert_eq!(verdict.system, Some(OURS));
        assert_eq!(judge(&Standing::Fresh, &[other, standby(1)]).system, Some(SystemId(8)));
    }
}
