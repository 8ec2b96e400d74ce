//! Who is promoted: the one that holds most of the log, among those that may.

use crate::failover::{Frozen, Loss, MaxLoss, Promise, Record, ServerView, Situation, Why};
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
        at: crate::pg::Lsn,
        /// What is lost with the rest.
        loss: Loss,
    },
    /// This one, after it took over what the other holds more.
    CatchUp {
        /// Who is to be promoted.
        server: crate::topology::ServerId,
        /// Who holds more, and may not be.
        from: crate::topology::ServerId,
        /// For people.
        why: Why,
    },
    /// Nobody.
    Nobody(Why),
}

/// Chooses among the frozen standbys. Call it only when enough of them are.
pub(super) fn choose(situation: &Situation<'_>, to: Option<&str>, accepted: MaxLoss) -> Chosen {
    let frozen: Vec<_> = frozen(situation).collect();
    let Some(farthest) = frozen.iter().map(|(_, at)| rank(*at)).max() else {
        return Chosen::Nobody(Why::NoCandidate);
    };
    let best = frozen
        .iter()
        .filter(|(server, _)| server.tags.may_lead())
        .filter(|(server, _)| to.is_none_or(|wanted| *server.name == *wanted))
        .max_by_key(|(server, at)| (rank(*at), server.tags.priority, Reverse(server.id)));
    let Some((server, at)) = best else { return Chosen::Nobody(Why::NoCandidate) };
    if rank(*at) < farthest {
        // It takes over what one that may not lead, or was not wanted, holds more.
        let source = frozen.iter().find(|(_, at)| rank(*at) == farthest);
        let Some((source, _)) = source else { return Chosen::Nobody(Why::NoCandidate) };
        let (name, from) = (Arc::clone(&server.name), Arc::clone(&source.name));
        let why = Why::CatchingUp { server: name, from };
        return Chosen::CatchUp { server: server.id, from: source.id, why };
    }
    let loss = loss(situation, *at);
    if !accepted.allows(loss) {
        let candidate = Arc::clone(&server.name);
        return Chosen::Nobody(Why::TooMuchLoss { candidate, loss });
    }
    Chosen::Server { server: Arc::clone(&server.name), at: at.at, loss }
}

/// The standbys that are frozen for certain, and hold this set's log.
pub(super) fn frozen<'a>(
    situation: &'a Situation<'_>,
) -> impl Iterator<Item = (&'a ServerView, Frozen)> {
    let timeline = situation.record.primary.timeline;
    situation.others().filter_map(move |server| {
        let at = server.frozen?;
        // On a newer branch it follows somebody else; on an older one it may be behind a fork.
        (at.timeline == timeline && server.as_standby().is_some()).then_some((server, at))
    })
}

const fn rank(frozen: Frozen) -> u64 {
    frozen.at.0
}

/// How many of those that must be frozen are, how many must be, and who is missing.
pub(super) fn revocation(situation: &Situation<'_>) -> Result<(), Why> {
    let frozen: Vec<_> = frozen(situation).map(|(server, _)| Arc::clone(&server.name)).collect();
    let (needed, counting) = match &situation.record.promise {
        Promise::Quorum { cohort, .. } => {
            (situation.record.promise.revocation().unwrap_or(1), Some(cohort))
        }
        // The gate of this proxy is the fence; freezing serves the choice alone.
        Promise::Asynchronous(_) => (1, None),
    };
    let counts = |name: &Arc<str>| counting.is_none_or(|cohort| cohort.contains(name));
    let reached = frozen.iter().filter(|name| counts(name)).count();
    if reached >= needed {
        return Ok(());
    }
    let missing = match counting {
        Some(cohort) => cohort.iter().filter(|name| !frozen.contains(name)).cloned().collect(),
        None => situation.others().map(|server| Arc::clone(&server.name)).collect(),
    };
    Err(Why::NotRevoked { frozen: reached, needed, missing })
}

/// What is lost with a server that holds the log up to there.
pub(super) fn loss(situation: &Situation<'_>, at: Frozen) -> Loss {
    match &situation.record.promise {
        // Enough are frozen, and none holds more: whatever was acknowledged is among it.
        Promise::Quorum { .. } if is_revoked(situation.record, situation) => Loss::None,
        Promise::Quorum { .. } | Promise::Asynchronous(_) => {
            Loss::of(situation.acknowledged, at.at)
        }
    }
}

fn is_revoked(record: &Record, situation: &Situation<'_>) -> bool {
    record.promise.revocation().is_some() && revocation(situation).is_ok()
}
