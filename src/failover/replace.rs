//! The chosen one is lost before it was admitted: another is promoted, or one that is a primary
//! already goes on. pgsteer sent nobody to the chosen one; whether it was promoted is not known.
//!
//! Invariants:
//! - Whoever follows the chosen one, or could, is frozen before anything else, and nobody is
//!   promoted who could take its timeline for his own.
//! - By itself only the old primary goes on, on its branch or on one that continues it, and only
//!   where nobody can have had a commit confirmed elsewhere. Anything else takes an order.
//! - What can't go on by itself says which order helps, or which server is missing.

use crate::failover::choose::{may_be_chosen, standbys};
use crate::failover::decide::{freeze, is_overridden, waits, with_order};
use crate::failover::promote::{New, Under, settled, too_late};
use crate::failover::{
    Act, Choice, Decision, Frozen, Loose, Loss, Mode, Operation, Order, Phase, Policy, Record,
    Refusal, ServerView, Situation, Why,
};
use crate::pg::{Lsn, Timeline};
use std::cmp::Reverse;
use std::sync::Arc;

/// Who is the primary instead of a chosen one that is lost.
#[derive(Debug)]
pub(super) enum Instead<'a> {
    /// This one is promoted.
    Promoted(Operation, Choice),
    /// This one is a primary already, and goes on by itself.
    Back(StandIn<'a>),
    /// The same, because an operator wants it.
    Taken(StandIn<'a>, Operation),
}

/// A primary on the recorded branch, or on one that continues it.
#[derive(Debug, Clone, Copy)]
pub(super) struct StandIn<'a> {
    pub server: &'a ServerView,
    timeline: Timeline,
    fork: Option<Lsn>,
    pub loss: Loss,
}

/// Puts another in the place of the chosen one.
pub(super) fn replace(
    situation: &Situation<'_>,
    policy: &Policy,
    (operation, choice): Under<'_>,
    unix_now: u64,
) -> Decision {
    let why = Why::ChosenLost(Arc::clone(&choice.server));
    let acts = freeze(standbys(situation).filter(|server| server.name != choice.server));
    if !acts.is_empty() {
        return Decision::act(why, acts);
    }
    let lost = || Act::Answer(Err(Refusal::ChosenLost(Arc::clone(&choice.server))));
    let (own, operation, answer, rivals) = match instead(situation, policy, (operation, choice)) {
        Err(why) => return waits(situation, why, Vec::new()),
        Ok(Instead::Promoted(operation, next)) => {
            let fits = too_late(situation.order, (&operation, &next)).is_none();
            let record = situation.record.claimed(Phase::Promoting(operation, next));
            let write = Act::Write(Box::new(record));
            let acts = std::iter::once(write).chain((!fits).then(lost)).collect();
            return Decision::act(why, acts);
        }
        Ok(Instead::Back(own)) => (own, operation.clone(), lost(), Vec::new()),
        Ok(Instead::Taken(own, by)) => {
            let rivals = rivals(situation, choice, own.server);
            (own, by, Act::Answer(Ok(())), rivals)
        }
    };
    take(situation, (own, rivals), (&operation, &choice.server), (why, answer), unix_now)
}

/// Has one go on that is a primary already: once the other ones are fenced, and it takes writes.
fn take(
    situation: &Situation<'_>,
    (own, rivals): (StandIn<'_>, Vec<Act>),
    (by, from): (&Operation, &Arc<str>),
    (why, answer): (Why, Act),
    unix_now: u64,
) -> Decision {
    if !rivals.is_empty() {
        return Decision::act(why, rivals);
    }
    if own.server.fenced.is_some() {
        return Decision::act(why, vec![Act::Unfence(own.server.id)]);
    }
    let record = own.settled(situation.record, (by, from), unix_now);
    Decision::act(why, vec![Act::Write(Box::new(record)), answer])
}

/// Another tool has promoted one before the chosen one was: nobody is promoted beside it. If it is
/// stopped, the chosen one goes on; if it is to stay, an order takes it at what it lacks. Until
/// then `fences` keep all others from taking writes.
pub(super) fn barred(
    situation: &Situation<'_>,
    under: Under<'_>,
    (outsider, fences): (&ServerView, Vec<Act>),
    unix_now: u64,
) -> Decision {
    let (operation, choice) = under;
    let why = why_barred(choice, outsider);
    let taken = match situation.order {
        Some(Order::Failover { to: Some(to), accept }) if *to == outsider.name => {
            claim(situation, choice, outsider).filter(|own| accept.allows(own.loss))
        }
        Some(Order::Failover { .. } | Order::Switchover { .. } | Order::Abort) | None => None,
    };
    match taken {
        Some(own) => {
            let rivals = rivals(situation, choice, outsider);
            let by = with_order(situation, operation);
            let from = &situation.record.primary.server;
            take(situation, (own, rivals), (&by, from), (why, Act::Answer(Ok(()))), unix_now)
        }
        None => waits(situation, why, fences),
    }
}

pub(super) fn why_barred(choice: &Choice, outsider: &ServerView) -> Why {
    Why::Barred { chosen: Arc::clone(&choice.server), by: Arc::clone(&outsider.name) }
}

/// What one that another tool promoted could be taken for.
pub(super) fn claim<'a>(
    situation: &'a Situation<'_>,
    choice: &Choice,
    outsider: &ServerView,
) -> Option<StandIn<'a>> {
    stand_ins(situation, choice).into_iter().find(|own| own.server.id == outsider.id)
}

impl StandIn<'_> {
    /// The record in which it took over from that one.
    fn settled(
        self,
        record: &Record,
        (operation, from): (&Operation, &Arc<str>),
        unix_now: u64,
    ) -> Record {
        let Self { server, timeline, fork, loss } = self;
        let (from, to) = (Arc::clone(from), Arc::clone(&server.name));
        let new = New { from, to, timeline, fork, loss };
        settled(&record.claimed(record.phase.clone()), operation, new, unix_now)
    }
}

/// The other primaries that could be taken, and are not fenced: an order goes by a name, and the
/// one that it names shall be the only one that takes writes.
fn rivals(situation: &Situation<'_>, choice: &Choice, own: &ServerView) -> Vec<Act> {
    let others = stand_ins(situation, choice).into_iter().map(|other| other.server);
    let loose = others.filter(|other| other.id != own.id && other.fenced.is_none());
    loose.map(|other| Act::Fence(other.id)).collect()
}

/// Who is the primary instead, or what is waited for. Call it once every standby is frozen.
pub(super) fn instead<'a>(
    situation: &'a Situation<'_>,
    policy: &Policy,
    (operation, choice): Under<'_>,
) -> Result<Instead<'a>, Why> {
    let all = stand_ins(situation, choice);
    if let Some(own) = going_back(situation, &all) {
        return Ok(Instead::Back(own));
    }
    let why = match next_best(situation, policy, operation, choice) {
        Ok((operation, next)) => return Ok(Instead::Promoted(operation, next)),
        Err(why) => why,
    };
    let Some(Order::Failover { to, accept }) = situation.order else {
        // Where an order is all that is missing, the one that is promoted goes before others.
        return Err(if matches!(why, Why::ChosenLost(_)) { why } else { untaken(&all, why) });
    };
    let wanted = |own: &StandIn<'_>| to.as_ref().is_none_or(|to| *to == own.server.name);
    let wanted: Vec<_> = all.into_iter().filter(wanted).collect();
    match wanted.as_slice() {
        [own] if accept.allows(own.loss) => {
            Ok(Instead::Taken(*own, with_order(situation, operation)))
        }
        _ => Err(untaken(&wanted, why)),
    }
}

/// Why none of these goes on.
fn untaken(all: &[StandIn<'_>], otherwise: Why) -> Why {
    let name = |own: &StandIn<'_>| Arc::clone(&own.server.name);
    match all {
        [] => otherwise,
        [own] => Why::NotTaken { candidate: name(own), loss: own.loss },
        several => Why::SeveralPrimaries(several.iter().map(name).collect()),
    }
}

/// The old primary, if it can go on without a question: it has all that it ever acknowledged, and
/// nobody else is the primary of a branch that continues the recorded one.
fn going_back<'a>(situation: &Situation<'_>, all: &[StandIn<'a>]) -> Option<StandIn<'a>> {
    let recorded = &situation.record.primary;
    all.iter().copied().find(|own| {
        let alone = all.len() == 1 || own.timeline == recorded.timeline;
        own.server.name == recorded.server && own.loss == Loss::None && alone
    })
}

/// All primaries on the recorded branch, or on one that continues it: the old one, and whoever
/// another tool promoted since then.
fn stand_ins<'a>(situation: &'a Situation<'_>, choice: &Choice) -> Vec<StandIn<'a>> {
    let recorded = &situation.record.primary;
    let held = held(situation, choice);
    let onward = held.iter().any(|(_, frozen)| frozen.timeline > recorded.timeline);
    // If enough could follow the chosen one to confirm a commit, somebody may have gone there
    // past us.
    let elsewhere = onward || !is_revoked(situation, choice, &held);
    let others = situation.servers.iter().filter(|server| server.name != choice.server);
    let all = others.filter_map(|server| {
        let (timeline, _) = server.as_primary()?;
        let timeline = timeline?;
        let ours = server.answer().is_some_and(|answer| answer.system == recorded.system);
        let old = timeline == recorded.timeline && server.name == recorded.server;
        let left = situation.left_at(server, timeline);
        let fork = if old { recorded.fork } else { left };
        // What was acknowledged lies below the choice, if that loses nothing.
        let whole = left.is_some_and(|left| left >= choice.at) && choice.loss == Loss::None;
        let loss =
            if !elsewhere && (old || whole) { Loss::None } else { Loss::Unknown { at_least: 0 } };
        (ours && (old || left.is_some())).then_some(StandIn { server, timeline, fork, loss })
    });
    all.collect()
}

/// Who is promoted instead of a chosen one that is gone.
fn next_best(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
    choice: &Choice,
) -> Result<(Operation, Choice), Why> {
    let wished = consent(situation, policy, operation)
        .ok_or_else(|| Why::ChosenLost(Arc::clone(&choice.server)))?;
    let recorded = situation.record.primary.timeline;
    let held = held(situation, choice);
    let newest = held
        .iter()
        .map(|(_, frozen)| frozen.timeline)
        .max()
        .ok_or_else(|| Why::NoCandidate(Vec::new()))?;
    let unseen = unseen(situation, choice);
    if newest == recorded && !unseen.is_empty() {
        // One that is not seen may follow the chosen one on the very timeline that would begin.
        return Err(Why::MayFollow { chosen: Arc::clone(&choice.server), unseen });
    }
    if !is_revoked(situation, choice, &held) && !is_overridden(&wished) {
        return Err(not_revoked(situation, choice, &held));
    }
    let left =
        |(server, frozen): &(&ServerView, Frozen)| situation.left_at(server, frozen.timeline);
    let on_newest = held.iter().filter(|(_, frozen)| frozen.timeline == newest);
    // Positions on two branches can't be compared: the one that left later has all of the choice.
    let latest = on_newest.clone().map(left).max().flatten();
    let candidates = on_newest.filter(|held| left(held) == latest);
    let farthest = candidates.clone().map(|(_, frozen)| frozen.at).max();
    let (server, frozen) = candidates
        .filter(|(server, frozen)| {
            may_be_chosen(server, wished.to.as_deref()) && Some(frozen.at) == farthest
        })
        .max_by_key(|(server, _)| (server.tags.priority, Reverse(server.id)))
        .ok_or_else(|| Why::NoCandidate(Vec::new()))?;
    let loss = if newest > recorded {
        loss_beyond(situation, choice, &held)
    } else {
        choice.loss.plus(choice.at.bytes_since(frozen.at))
    };
    let candidate = Arc::clone(&server.name);
    if !wished.accepted.allows(loss) {
        return Err(Why::TooMuchLoss { candidate, loss });
    }
    Ok((wished, Choice { server: candidate, at: frozen.at, loss }))
}

/// What is lost with one that is on a newer branch than the recorded one. That is the chosen one's,
/// unless it left the recorded one before the choice, or there are two: then one of them was begun
/// by somebody else, whichever, and what was acknowledged may lie on the other one.
fn loss_beyond(situation: &Situation<'_>, choice: &Choice, held: &[(&ServerView, Frozen)]) -> Loss {
    let recorded = situation.record.primary.timeline;
    let beyond = held.iter().filter(|(_, frozen)| frozen.timeline > recorded);
    let mut left = beyond.map(|(server, frozen)| situation.left_at(server, frozen.timeline));
    match left.next().flatten() {
        Some(end) if left.all(|other| other == Some(end)) => {
            choice.loss.plus(choice.at.bytes_since(end))
        }
        Some(_) | None => Loss::Unknown { at_least: 0 },
    }
}

/// The frozen standbys but the chosen one, on the recorded branch or on a newer one.
fn held<'a>(situation: &'a Situation<'_>, choice: &Choice) -> Vec<(&'a ServerView, Frozen)> {
    let recorded = situation.record.primary.timeline;
    standbys(situation)
        .filter(|server| server.name != choice.server && !situation.is_astray(server))
        .filter_map(|server| server.frozen.map(|frozen| (server, frozen)))
        .filter(|(_, frozen)| frozen.timeline >= recorded)
        .collect()
}

/// Whether another than the chosen one may be promoted without asking: who is wanted then, and
/// what may be lost.
fn consent(situation: &Situation<'_>, policy: &Policy, operation: &Operation) -> Option<Operation> {
    match situation.order {
        Some(Order::Failover { .. }) => Some(with_order(situation, operation)),
        Some(Order::Switchover { .. } | Order::Abort) | None => {
            let free = policy.mode == Mode::Auto || operation.to.is_none();
            free.then(|| Operation { to: None, ..operation.clone() })
        }
    }
}

/// Those that may follow the chosen one on a branch of its own: neither frozen on the recorded
/// one, nor a primary that was there before.
fn unseen(situation: &Situation<'_>, choice: &Choice) -> Vec<Arc<str>> {
    let recorded = situation.record.primary.timeline;
    let follows_not = |server: &&ServerView| {
        let before = |(timeline, _): (Option<Timeline>, Lsn)| {
            timeline.is_some_and(|timeline| timeline <= recorded)
        };
        let frozen = server.frozen.is_some_and(|frozen| frozen.timeline == recorded);
        server.as_primary().is_some_and(before) || (server.as_standby().is_some() && frozen)
    };
    let others = situation.others().filter(|server| server.name != choice.server);
    others.filter(|server| !follows_not(server)).map(|server| Arc::clone(&server.name)).collect()
}

/// Whether enough are frozen that the chosen one, if it was promoted, could have nothing
/// confirmed: it was frozen itself when it was chosen.
fn is_revoked(situation: &Situation<'_>, choice: &Choice, held: &[(&ServerView, Frozen)]) -> bool {
    let (closed, needed) = closed(situation, choice, held);
    closed >= needed
}

/// How many of those that must be frozen are, and how many must be.
fn closed(
    situation: &Situation<'_>,
    choice: &Choice,
    held: &[(&ServerView, Frozen)],
) -> (usize, usize) {
    let promise = &situation.record.promise;
    let own = usize::from(promise.counts(&choice.server));
    let others = held.iter().filter(|(server, _)| promise.counts(&server.name)).count();
    (own + others, promise.revocation().unwrap_or(0))
}

fn not_revoked(situation: &Situation<'_>, choice: &Choice, held: &[(&ServerView, Frozen)]) -> Why {
    let (frozen, needed) = closed(situation, choice, held);
    let counts = |server: &&ServerView| situation.record.promise.counts(&server.name);
    let is_held = |server: &ServerView| held.iter().any(|(other, _)| other.id == server.id);
    let missing = situation.servers.iter().filter(counts);
    let missing = missing.filter(|server| server.name != choice.server && !is_held(server));
    let missing = missing.map(|server| Loose::of(situation, &server.name)).collect();
    Why::NotRevoked { frozen, needed, missing }
}
