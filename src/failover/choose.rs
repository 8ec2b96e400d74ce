//! Who is promoted: the one that holds most of the log, among those that may.

use crate::failover::{
    Frozen, Loose, Loss, MaxLoss, Promise, Receiver, ServerView, Sight, Situation, Why,
};
use crate::pg::Lsn;
use std::cmp::Reverse;
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

/// Chooses among the frozen standbys. Call it only when enough of them are.
pub(super) fn choose(situation: &Situation<'_>, to: Option<&str>, accepted: MaxLoss) -> Chosen {
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
    if held.at < farthest.at {
        // It takes over first what one that may not be promoted holds more.
        return Chosen::Nobody(Why::CatchingUp {
            server: Arc::clone(&server.name),
            from: Arc::clone(&source.name),
        });
    }
    let loss = loss(situation, *held);
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

/// The one that would be chosen, and the frozen one from which it must take over more before.
///
/// It is told by what is seen alone: while it catches up it is not frozen, and must not be. One
/// that could not be frozen may seem to hold most, and is not waited for: whether enough are frozen
/// without it, `revocation` tells.
pub(super) fn behind<'a>(
    situation: &'a Situation<'_>,
    to: Option<&str>,
) -> Option<(&'a ServerView, &'a ServerView)> {
    let (source, farthest) = frozen(situation).max_by_key(|(_, held)| held.at)?;
    let held = |server: &ServerView| {
        let frozen = server.frozen.map(|frozen| frozen.at);
        frozen.or_else(|| server.as_standby().map(|(received, _, _)| received))
    };
    let (best, at) = standbys(situation)
        .filter(|server| may_be_chosen(server, to) && is_on_branch(situation, server))
        .filter(|server| server.frozen.is_some() || server.stuck.is_none())
        .filter_map(|server| held(server).map(|at| (server, at)))
        .max_by_key(|(server, at)| (*at, server.tags.priority, Reverse(server.id)))?;
    (at < farthest.at && best.id != source.id).then_some((best, source))
}

/// Whether it is not known to be on another branch than the recorded one.
fn is_on_branch(situation: &Situation<'_>, server: &ServerView) -> bool {
    let seen = server.answer().and_then(|answer| answer.timeline);
    let timeline = server.frozen.map(|frozen| frozen.timeline).or(seen);
    timeline.is_none_or(|timeline| timeline == situation.record.primary.timeline)
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
        (held.timeline == timeline).then_some((server, held))
    })
}

/// How many of those that must be frozen are, how many must be, and who is missing.
pub(super) fn revocation(situation: &Situation<'_>) -> Result<(), Why> {
    let closed: Vec<_> = closed(situation).map(|server| Arc::clone(&server.name)).collect();
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

/// The standbys that can acknowledge nothing more for the old primary: frozen ones, and one that
/// takes over what a frozen one holds.
fn closed<'a>(situation: &'a Situation<'_>) -> impl Iterator<Item = &'a ServerView> {
    let is_frozen = move |id| frozen(situation).any(|(server, _)| server.id == id);
    standbys(situation).filter(move |server| {
        is_frozen(server.id)
            || match server.as_standby() {
                Some((_, _, Receiver::Streams { from: Some(from), .. })) => is_frozen(from),
                Some((_, _, _)) | None => false,
            }
    })
}

/// What is lost with a server that holds the log up to there.
fn loss(situation: &Situation<'_>, held: Frozen) -> Loss {
    match &situation.record.promise {
        // Enough are frozen, and none holds more: whatever was acknowledged is among it.
        Promise::Quorum { .. } if revocation(situation).is_ok() => Loss::None,
        Promise::Quorum { .. } | Promise::Asynchronous(_) => {
            Loss::of(situation.acknowledged, held.at)
        }
    }
}

/// Another server that says that it is the primary, on a branch that is newer than the recorded
/// one: somebody else promoted it. To promote another beside it would make two of that number.
pub(super) fn outsider<'a>(situation: &'a Situation<'_>) -> Option<&'a ServerView> {
    let recorded = &situation.record.primary;
    situation.others().find(|server| match &server.sight {
        Sight::Answers(seen) => {
            let newer = seen.timeline.is_some_and(|timeline| timeline > recorded.timeline);
            server.as_primary().is_some() && seen.system == recorded.system && newer
        }
        Sight::Awaited | Sight::Missing(_) => false,
    })
}
