//! Who is promoted: the one that holds most of the log, among those that may.

use crate::failover::situation::Standing;
use crate::failover::verdict::is_stopped;
use crate::failover::{
    Frozen, Loose, Loss, MaxLoss, Policy, Promise, Receiver, ServerView, Sight, Situation, Why,
};
use crate::pg::Lsn;
use crate::topology::ServerId;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What came of choosing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chosen {
    /// This one, which holds the log up to `at`, at this loss.
    Server {
        /// Its name.
        server: Arc<str>,
        /// Up to where it holds the log.
        at: Lsn,
        /// What is lost with the rest.
        loss: Loss,
    },
    /// Nobody.
    Nobody(Why),
}

/// Chooses among the frozen standbys. Call it only when enough of them are. `given_up` does not
/// get what another one holds more, and goes without.
pub(super) fn choose(
    situation: &Situation<'_>,
    to: Option<&str>,
    accepted: MaxLoss,
    given_up: Option<ServerId>,
) -> Chosen {
    let frozen: Vec<_> = frozen(situation).collect();
    let nobody = || Chosen::Nobody(Why::NoCandidate(unfrozen(situation, to)));
    let Some((source, farthest)) = frozen.iter().max_by_key(|(_, held)| held.at) else {
        return nobody();
    };
    let best = frozen
        .iter()
        .filter(|(server, _)| may_be_chosen(server, to))
        .max_by_key(|(server, held)| (held.at, server.tags.priority, Reverse(server.id)));
    let Some((server, held)) = best else { return nobody() };
    if held.at < farthest.at && given_up != Some(server.id) {
        // It takes over first what one that may not be promoted holds more.
        return Chosen::Nobody(Why::CatchingUp {
            server: Arc::clone(&server.name),
            from: Arc::clone(&source.name),
        });
    }
    let loss = loss(situation, server, held.at);
    if !accepted.allows(loss) {
        let candidate = Arc::clone(&server.name);
        return Chosen::Nobody(Why::TooMuchLoss { candidate, loss });
    }
    Chosen::Server { server: Arc::clone(&server.name), at: held.at, loss }
}

/// Whether it may become the primary: by its tags, and by the operator's wish.
pub(super) fn may_be_chosen(server: &ServerView, to: Option<&str>) -> bool {
    server.tags.may_lead() && to.is_none_or(|wanted| *server.name == *wanted)
}

/// Who could be chosen if it was frozen: those that are known not to let themselves be, and the one
/// that is wanted.
pub(super) fn unfrozen(situation: &Situation<'_>, to: Option<&str>) -> Vec<Loose> {
    let loose = |server: &&ServerView| {
        server.frozen.is_none() && (server.stuck.is_some() || Some(&*server.name) == to)
    };
    let others = situation.servers.iter().filter(|server| may_be_chosen(server, to));
    others.filter(loose).map(|server| Loose::of(situation, &server.name)).collect()
}

/// One that would be chosen, and must take over more before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind<'a> {
    /// Which.
    pub server: &'a ServerView,
    /// The frozen one that holds more.
    pub source: &'a ServerView,
    /// Up to where it holds the log, as far as is seen.
    pub at: Lsn,
    /// Whether it gets on.
    pub pace: Pace,
}

impl Behind<'_> {
    /// It is waited for.
    pub(super) fn catching_up(&self) -> Why {
        let (server, from) = (Arc::clone(&self.server.name), Arc::clone(&self.source.name));
        Why::CatchingUp { server, from }
    }

    /// It does not get on, and what it lacks may not be lost.
    pub(super) fn cannot_catch_up(&self, situation: &Situation<'_>) -> Why {
        Why::CannotCatchUp {
            server: Arc::clone(&self.server.name),
            from: Arc::clone(&self.source.name),
            // An operator named another one than this.
            instead: self.source.tags.may_lead(),
            loss: loss(situation, self.server, self.at),
            trouble: self.server.catching.as_ref().and_then(|told| told.trouble.clone()),
        }
    }
}

/// Whether a standby gets what another one holds more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// It was told to, and has received nothing for too long.
    Stalled,
    /// It receives, or has only just been told, or not yet.
    GetsOn,
}

/// The one that would be chosen, and the frozen one from which it must take over more before.
///
/// It is told by what is seen alone: while it catches up it is not frozen, and must not be. One
/// that could not be frozen may seem to hold most, and is not waited for: whether enough are frozen
/// without it, `revocation` tells. Where one does not get on, the next one may.
pub(super) fn behind<'a>(
    situation: &'a Situation<'_>,
    policy: &Policy,
    to: Option<&str>,
) -> Option<Behind<'a>> {
    let (source, farthest) = frozen(situation).max_by_key(|(_, held)| held.at)?;
    let held = |server: &ServerView| {
        let frozen = server.frozen.map(|frozen| frozen.at);
        frozen.or_else(|| server.as_standby().map(|(received, _, _)| received))
    };
    let pace = |server: &ServerView, at: Lsn| {
        let told = server.catching.as_ref().filter(|told| told.from == source.id);
        let idle = told.map(|told| situation.now.since(told.since));
        let stalled = at < farthest.at && idle.is_some_and(|idle| idle >= policy.catch_up_patience);
        if stalled { Pace::Stalled } else { Pace::GetsOn }
    };
    let (server, at, pace) = standbys(situation)
        .filter(|server| may_be_chosen(server, to) && is_on_branch(situation, server))
        .filter(|server| server.frozen.is_some() || server.stuck.is_none())
        .filter_map(|server| held(server).map(|at| (server, at, pace(server, at))))
        .max_by_key(|(server, at, pace)| (*pace, *at, server.tags.priority, Reverse(server.id)))?;
    let is_behind = at < farthest.at && server.id != source.id;
    is_behind.then_some(Behind { server, source, at, pace })
}

/// Whether it is not known to be on another branch than the recorded one.
pub(super) fn is_on_branch(situation: &Situation<'_>, server: &ServerView) -> bool {
    let seen = server.answer().and_then(|answer| answer.timeline);
    let timeline = server.frozen.map(|frozen| frozen.timeline).or(seen);
    let number = timeline.is_none_or(|timeline| timeline == situation.record.primary.timeline);
    number && !situation.is_astray(server)
}

/// Every server that answers as a standby of this system; the recorded primary, too, once it is
/// in recovery.
pub(super) fn standbys<'a>(situation: &'a Situation<'_>) -> impl Iterator<Item = &'a ServerView> {
    let system = situation.record.primary.system;
    situation.servers.iter().filter(move |server| {
        server.as_standby().is_some() && server.answer().is_some_and(|seen| seen.system == system)
    })
}

/// The standbys that are frozen for certain, and hold this set's log.
pub(super) fn frozen<'a>(
    situation: &'a Situation<'_>,
) -> impl Iterator<Item = (&'a ServerView, Frozen)> {
    let timeline = situation.record.primary.timeline;
    standbys(situation).filter_map(move |server| {
        let held = server.frozen?;
        // On a newer branch it follows somebody else; on an older one it may be behind a fork.
        let ours = held.timeline == timeline && !situation.is_astray(server);
        ours.then_some((server, held))
    })
}

/// How many of those that must be frozen are, how many must be, and who is missing. `catching`
/// counts: it takes over what a frozen one holds, and nobody is chosen before it is frozen again.
pub(super) fn revocation(situation: &Situation<'_>, catching: Option<ServerId>) -> Result<(), Why> {
    let closed: Vec<_> = standbys(situation)
        .filter(|server| Some(server.id) == catching || is_closed(situation, server))
        .map(|server| Arc::clone(&server.name))
        .collect();
    let (needed, counting) = match &situation.record.promise {
        Promise::Quorum { cohort, .. } => {
            (situation.record.promise.revocation().unwrap_or(1), Some(cohort))
        }
        // The gate of this proxy is the fence; freezing serves the choice alone.
        Promise::Asynchronous(_) => (1, None),
    };
    let counts = |name: &Arc<str>| counting.is_none_or(|cohort| cohort.contains(name));
    let reached = closed.iter().filter(|name| counts(name)).count();
    if reached >= needed {
        return Ok(());
    }
    let loose = |name: &Arc<str>| Loose::of(situation, name);
    let missing = match counting {
        Some(cohort) => cohort.iter().filter(|name| !closed.contains(name)).map(loose).collect(),
        None => situation.others().map(|server| loose(&server.name)).collect(),
    };
    Err(Why::NotRevoked { frozen: reached, needed, missing })
}

/// Whether a standby can acknowledge nothing more for the old primary: a frozen one, and one that
/// takes over what a frozen one holds.
fn is_closed(situation: &Situation<'_>, server: &ServerView) -> bool {
    let is_frozen = |id| frozen(situation).any(|(server, _)| server.id == id);
    is_frozen(server.id)
        || match server.as_standby() {
            Some((_, _, Receiver::Streams { from: Some(from), .. })) => is_frozen(from),
            Some((_, _, _)) | None => false,
        }
}

/// What is lost with this server, which holds the log up to there.
pub(super) fn loss(situation: &Situation<'_>, server: &ServerView, at: Lsn) -> Loss {
    let confirmed = match &situation.record.promise {
        Promise::Quorum { w, cohort } => confirmed(situation, (*w, cohort), (server, at)),
        Promise::Asynchronous(_) => None,
    };
    match confirmed.map(|end| end.bytes_since(at)) {
        Some(bytes) => Loss::None.plus(bytes),
        None => Loss::of(situation.acknowledged, at),
    }
}

/// Up to where commits can have been confirmed by as many as must; `None`: that can't be told, for
/// too many are not frozen. Whatever was acknowledged lies below what that many hold.
fn confirmed(
    situation: &Situation<'_>,
    (w, cohort): (u16, &BTreeSet<Arc<str>>),
    (own, at): (&ServerView, Lsn),
) -> Option<Lsn> {
    let farthest = frozen(situation).map(|(_, held)| held.at).max();
    let held = |name: &Arc<str>| {
        let server = situation.named(name)?;
        if server.id == own.id {
            return Some(at);
        }
        let certain = frozen(situation).find(|(other, _)| other.id == server.id);
        let certain = certain.map(|(_, held)| held.at);
        // One that takes over what a frozen one holds has no more than that one.
        certain.or_else(|| farthest.filter(|_| is_closed(situation, server)))
    };
    let (known, unknown): (Vec<_>, Vec<_>) = cohort.iter().map(held).partition(Option::is_some);
    let mut known: Vec<_> = known.into_iter().flatten().collect();
    known.sort_unstable_by_key(|at| Reverse(*at));
    // Whoever is not known may hold whatever there is.
    let rank = usize::from(w).checked_sub(unknown.len() + 1)?;
    known.get(rank).copied()
}

/// Another server that says that it is the primary, on a branch that is newer than the recorded
/// one: somebody else promoted it. To promote another beside it would make two of that number.
pub(super) fn outsider<'a>(
    situation: &'a Situation<'_>,
    policy: &Policy,
) -> Option<&'a ServerView> {
    situation.others().find(|server| leads_elsewhere(situation, policy, server))
}

/// Whether it says that it is the primary, on a branch that is newer than the recorded one. That
/// it does not say so any more means nothing before it is known to be stopped.
pub(super) fn leads_elsewhere(
    situation: &Situation<'_>,
    policy: &Policy,
    server: &ServerView,
) -> bool {
    let recorded = &situation.record.primary;
    let said = match &server.sight {
        Sight::Answers(seen) => Some(seen),
        Sight::Missing(missing) if !is_stopped(*missing, policy) => server.last.as_ref(),
        Sight::Awaited | Sight::Missing(_) => None,
    };
    said.is_some_and(|seen| {
        let leads = matches!(seen.role, Standing::Primary { .. });
        let newer = seen.timeline.is_some_and(|timeline| timeline > recorded.timeline);
        leads && seen.system == recorded.system && newer
    })
}
