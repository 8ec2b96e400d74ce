//! One was chosen: promote it, have the others follow it, prove it, admit it. If it dies before
//! it was admitted, another takes its place, or the old primary goes on.

use crate::failover::choose::{may_be_chosen, standbys};
use crate::failover::decide::{freeze, is_overridden, waits, with_order};
use crate::failover::repair::former_primaries;
use crate::failover::situation::Standing;
use crate::failover::verdict::is_gone;
use crate::failover::{
    Act, Appointed, Change, Choice, Decision, Frozen, Kind, Loss, MaxLoss, Mode, Operation, Order,
    Phase, Policy, Promise, Receiver, Record, Refusal, ServerView, Situation, WeakPromise, Why,
};
use crate::pg::{Lsn, Timeline};
use crate::topology::History;
use std::cmp::Reverse;
use std::sync::Arc;

/// What is under way, and who was chosen.
type Under<'a> = (&'a Operation, &'a Choice);

/// There is no way back from here but forward.
pub(super) fn promoting(
    situation: &Situation<'_>,
    policy: &Policy,
    under: Under<'_>,
    unix_now: u64,
) -> Decision {
    let (_, choice) = under;
    let name = Arc::clone(&choice.server);
    let Some(chosen) = situation.named(&choice.server) else {
        return Decision::wait(Why::ChosenLost(name));
    };
    let gone = is_gone(situation, policy, chosen);
    if let Some(refusal) = too_late(situation.order, under)
        && !(gone && matches!(situation.order, Some(Order::Failover { .. })))
    {
        return Decision::act(Why::Promoting(name), vec![Act::Answer(Err(refusal))]);
    }
    if gone {
        return replace(situation, policy, under, unix_now);
    }
    let mut acts: Vec<_> = followers(situation, chosen, choice).collect();
    acts.extend(fence_old(situation, chosen));
    let former = former_primaries(situation);
    acts.extend(former.filter(|act| act.server() != Some(chosen.id)));
    let system = situation.record.primary.system;
    let Some(answer) = chosen.answer().filter(|answer| answer.system == system) else {
        return Decision::act(Why::ChosenLost(name), acts);
    };
    let Standing::Primary { .. } = answer.role else {
        acts.push(Act::Promote(chosen.id));
        return Decision::act(Why::Promoting(name), acts);
    };
    let Some(timeline) = answer.timeline.filter(|new| *new > situation.record.primary.timeline)
    else {
        // A primary on the old branch is not the one that was promoted.
        return Decision::act(Why::ChosenLost(name), acts);
    };
    if chosen.fenced.is_some() {
        // What is left over from when it was the primary keeps it from taking writes.
        acts.push(Act::Unfence(chosen.id));
        return Decision::act(Why::Promoting(name), acts);
    }
    let unproved = situation.proved.is_none_or(|proved| proved < situation.phase_since);
    let patient = situation.now.since(situation.phase_since) < policy.prove_patience;
    let quorum = situation.record.promise.revocation().is_some();
    if quorum && unproved && patient {
        acts.push(Act::Prove(chosen.id));
        return Decision::act(Why::Proving(name), acts);
    }
    let history = chosen.history.as_ref();
    let fork = history.and_then(|known| known.end_of(situation.record.primary.timeline));
    let old = Arc::clone(&situation.record.primary.server);
    let new = New { from: old, to: name, timeline, fork, loss: choice.loss };
    let record = settled(situation.record, under.0, new, unix_now);
    let why = Why::Admitting(Arc::clone(&choice.server));
    Decision::act(why, vec![Act::Write(Box::new(record)), Act::Answer(Ok(()))])
}

/// Why the order that waits is not what the change under way will fulfil.
fn too_late(order: Option<&Order>, (operation, choice): Under<'_>) -> Option<Refusal> {
    let (kind, to) = match order? {
        Order::Abort => return Some(Refusal::TooLate),
        Order::Failover { to, .. } => (Kind::Failover, to),
        Order::Switchover { to } => (Kind::Switchover, to),
    };
    let this = kind == operation.kind && to.as_ref().is_none_or(|to| *to == choice.server);
    (!this).then_some(Refusal::Busy)
}

/// The other standbys follow the chosen one, as long as they can. One that does not is told so
/// again, frozen or not: a process that was restarted in between does not know what it froze.
fn followers<'a>(
    situation: &'a Situation<'_>,
    chosen: &'a ServerView,
    choice: &'a Choice,
) -> impl Iterator<Item = Act> + 'a {
    let others = standbys(situation).filter(|server| server.id != chosen.id);
    let left = others.filter(|server| server.frozen.is_some() || is_loose(situation, server));
    left.filter(move |server| {
        let promoted = chosen.as_primary().and_then(|(timeline, _)| timeline);
        match (promoted, &chosen.history) {
            (Some(timeline), Some(history)) if timeline > situation.record.primary.timeline => {
                can_follow(server, timeline, history)
            }
            // Not promoted yet: one that holds more than the chosen one can never follow it.
            (Some(_) | None, _) => is_within(situation, server, choice.at),
        }
    })
    .map(|server| Act::Repoint { server: server.id, to: chosen.id })
}

/// Whether a standby that is not frozen hears from nobody, or from the primary that is replaced.
fn is_loose(situation: &Situation<'_>, server: &ServerView) -> bool {
    let old = situation.primary().map(|old| old.id);
    match server.as_standby() {
        Some((_, _, Receiver::Idle)) => true,
        Some((_, _, Receiver::Streams { from, .. })) => from.is_some() && from == old,
        Some((_, _, Receiver::Hidden)) | None => false,
    }
}

/// On which branch a standby is, as far as that is known.
fn branch(server: &ServerView) -> Option<Timeline> {
    let seen = server.answer().and_then(|answer| answer.timeline);
    server.frozen.map(|frozen| frozen.timeline).or(seen)
}

/// Whether it holds nothing of the recorded branch beyond that point.
fn is_within(situation: &Situation<'_>, server: &ServerView, end: Lsn) -> bool {
    let received = server.as_standby().map(|(received, _, _)| received);
    let held = server.frozen.map(|frozen| frozen.at).or(received);
    branch(server) == Some(situation.record.primary.timeline) && held.is_some_and(|at| at <= end)
}

/// Whether a standby can follow a primary of that timeline and history.
///
/// What counts is what it has replayed: the rest of a record that it received in part is thrown
/// away. Source: `rescanLatestTimeLine` in `access/transam/xlogrecovery.c` of PostgreSQL.
pub(super) fn can_follow(server: &ServerView, timeline: Timeline, history: &History) -> bool {
    let Some((_, replayed, _)) = server.as_standby() else { return false };
    match branch(server) {
        Some(own) if own == timeline => true,
        Some(own) => history.end_of(own).is_some_and(|end| replayed <= end),
        None => false,
    }
}

/// The old primary, if it answers as one while another is made the primary.
fn fence_old(situation: &Situation<'_>, chosen: &ServerView) -> Option<Act> {
    let old = situation.primary().filter(|old| old.id != chosen.id)?;
    let ours = old.answer().is_some_and(|seen| seen.system == situation.record.primary.system);
    (ours && old.as_primary().is_some() && old.fenced.is_none()).then_some(Act::Fence(old.id))
}

/// The new primary of a change.
struct New {
    from: Arc<str>,
    to: Arc<str>,
    timeline: Timeline,
    fork: Option<Lsn>,
    loss: Loss,
}

fn settled(record: &Record, operation: &Operation, new: New, unix_now: u64) -> Record {
    let New { from, to, timeline, fork, loss } = new;
    let epoch = record.epoch;
    let primary =
        Appointed { server: Arc::clone(&to), epoch, system: record.primary.system, timeline, fork };
    let change = Change {
        epoch,
        kind: operation.kind,
        by: operation.by,
        from: Some(from),
        to,
        timeline,
        fork,
        loss,
        began: operation.began,
        ended: unix_now,
    };
    // What it promises is not known until its settings were seen.
    record.settled(primary, Promise::Asynchronous(WeakPromise::NotSeen), change)
}

/// The chosen one is gone before it was admitted. It may have been promoted: so whoever follows
/// it, or could, is frozen first, and nobody is promoted who could take its timeline for his own.
fn replace(
    situation: &Situation<'_>,
    policy: &Policy,
    (operation, choice): Under<'_>,
    unix_now: u64,
) -> Decision {
    let why = Why::ChosenLost(Arc::clone(&choice.server));
    let others = || standbys(situation).filter(|server| server.name != choice.server);
    let acts = freeze(others());
    if !acts.is_empty() {
        return Decision::act(why, acts);
    }
    let gone = Arc::clone(&choice.server);
    let answer = |fits: bool| {
        let refusal = Refusal::ChosenLost(Arc::clone(&gone));
        (!fits).then_some(Act::Answer(Err(refusal)))
    };
    let next = next_best(situation, policy, operation, choice);
    let back = way_back(situation, choice);
    if let Some((operation, next)) = next.filter(|_| back.is_none()) {
        let fits = too_late(situation.order, (&operation, &next)).is_none();
        let record = situation.record.claimed(Phase::Promoting(operation, next));
        let acts = [Act::Write(Box::new(record))].into_iter().chain(answer(fits)).collect();
        return Decision::act(why, acts);
    }
    let Some((old, loss)) = back.or_else(|| forced_back(situation)) else {
        return waits(situation, why, Vec::new());
    };
    if old.fenced.is_some() {
        return Decision::act(why, vec![Act::Unfence(old.id)]);
    }
    let Appointed { timeline, fork, .. } = situation.record.primary;
    let new = New { from: Arc::clone(&gone), to: Arc::clone(&old.name), timeline, fork, loss };
    let claimed = situation.record.claimed(situation.record.phase.clone());
    let record = settled(&claimed, operation, new, unix_now);
    let acts = [Act::Write(Box::new(record))].into_iter().chain(answer(false)).collect();
    Decision::act(why, acts)
}

/// The old primary, if it can go on, and what is lost by it.
///
/// It has all that it ever acknowledged, and the chosen one was never admitted. But if enough
/// could follow the chosen one to confirm a commit, somebody may have gone there past us.
fn way_back<'a>(situation: &'a Situation<'_>, choice: &Choice) -> Option<(&'a ServerView, Loss)> {
    let old = going_on(situation)?;
    let recorded = situation.record.primary.timeline;
    let held: Vec<_> = held(situation, choice);
    let onward = held.iter().any(|(_, frozen)| frozen.timeline > recorded);
    (!onward && is_revoked(situation, choice, &held)).then_some((old, Loss::None))
}

/// The same, if an operator takes whatever loss there is.
fn forced_back<'a>(situation: &'a Situation<'_>) -> Option<(&'a ServerView, Loss)> {
    let Some(Order::Failover { accept: MaxLoss::Any, .. }) = situation.order else { return None };
    going_on(situation).map(|old| (old, Loss::Unknown { at_least: 0 }))
}

/// The old primary, if it still answers as what was recorded.
fn going_on<'a>(situation: &'a Situation<'_>) -> Option<&'a ServerView> {
    let recorded = &situation.record.primary;
    situation.primary().filter(|old| {
        let (timeline, _) = old.as_primary().unwrap_or_default();
        timeline == Some(recorded.timeline)
            && old.answer().is_some_and(|answer| answer.system == recorded.system)
    })
}

/// Who is promoted instead of a chosen one that is gone.
fn next_best(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
    choice: &Choice,
) -> Option<(Operation, Choice)> {
    let wished = consent(situation, policy, operation)?;
    let recorded = situation.record.primary.timeline;
    let held = held(situation, choice);
    let newest = held.iter().map(|(_, frozen)| frozen.timeline).max()?;
    if newest == recorded && !all_frozen(situation, choice) {
        // One that is not seen may follow the chosen one on the very timeline that would begin.
        return None;
    }
    if !is_revoked(situation, choice, &held) && !is_overridden(&wished) {
        return None;
    }
    let candidates = held.iter().filter(|(_, frozen)| frozen.timeline == newest);
    let farthest = candidates.clone().map(|(_, frozen)| frozen.at).max()?;
    let (server, frozen) = candidates
        .filter(|(server, frozen)| {
            may_be_chosen(server, wished.to.as_deref()) && frozen.at == farthest
        })
        .max_by_key(|(server, _)| (server.tags.priority, Reverse(server.id)))?;
    let loss = if newest > recorded {
        choice.loss
    } else {
        choice.loss.plus(choice.at.bytes_since(frozen.at))
    };
    let next = Choice { server: Arc::clone(&server.name), at: frozen.at, loss };
    wished.accepted.allows(loss).then_some((wished, next))
}

/// The frozen standbys but the chosen one, on the recorded branch or on a newer one, which they
/// have from the chosen one.
fn held<'a>(situation: &'a Situation<'_>, choice: &Choice) -> Vec<(&'a ServerView, Frozen)> {
    let recorded = situation.record.primary.timeline;
    standbys(situation)
        .filter(|server| server.name != choice.server)
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

/// Whether every standby but the chosen one is frozen where it was.
fn all_frozen(situation: &Situation<'_>, choice: &Choice) -> bool {
    let recorded = situation.record.primary.timeline;
    situation.others().filter(|server| server.name != choice.server).all(|server| {
        server.as_standby().is_some()
            && server.frozen.is_some_and(|frozen| frozen.timeline == recorded)
    })
}

/// Whether enough are frozen that the chosen one, if it was promoted, could have nothing
/// confirmed: it was frozen itself when it was chosen.
fn is_revoked(situation: &Situation<'_>, choice: &Choice, held: &[(&ServerView, Frozen)]) -> bool {
    let promise = &situation.record.promise;
    let own = usize::from(promise.counts(&choice.server));
    let others = held.iter().filter(|(server, _)| promise.counts(&server.name)).count();
    promise.revocation().is_none_or(|needed| own + others >= needed)
}
