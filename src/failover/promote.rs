//! One was chosen: promote it, have the others follow it, prove it, admit it. If it dies before
//! it was admitted, `replace` says who is the primary instead.

use crate::failover::choose::{leads_elsewhere, standbys};
use crate::failover::repair::former_primaries;
use crate::failover::replace::{barred, replace};
use crate::failover::situation::Standing;
use crate::failover::verdict::is_gone;
use crate::failover::{
    Act, Appointed, Change, Choice, Decision, Kind, Loss, Operation, Order, Policy, Promise,
    Receiver, Record, Refusal, ServerView, Sight, Situation, WeakPromise, Why,
};
use crate::pg::{Lsn, Timeline};
use crate::topology::{History, ServerId};
use std::sync::Arc;

/// What is under way, and who was chosen.
pub(super) type Under<'a> = (&'a Operation, &'a Choice);

/// There is no way back from here but forward.
pub(super) fn promoting(
    situation: &Situation<'_>,
    policy: &Policy,
    under: Under<'_>,
    unix_now: u64,
) -> Decision {
    let (_, choice) = under;
    let name = Arc::clone(&choice.server);
    let lost = is_lost(situation, policy, choice, situation.order);
    if let Some(outsider) = beside(situation, policy, choice).filter(|_| !lost) {
        let fences = fences(situation, choice).filter(|act| act.server() != Some(outsider.id));
        return barred(situation, under, (outsider, fences.collect()), unix_now);
    }
    if let Some(refusal) = too_late(situation.order, under)
        && !(lost && matches!(situation.order, Some(Order::Failover { .. })))
    {
        return Decision::act(Why::Promoting(name), vec![Act::Answer(Err(refusal))]);
    }
    if lost {
        return replace(situation, policy, under, unix_now);
    }
    let Some(chosen) = situation.named(&choice.server) else {
        return Decision::wait(Why::ChosenLost(name));
    };
    let mut acts: Vec<_> = followers(situation, chosen, choice).collect();
    acts.extend(fences(situation, choice));
    let system = situation.record.primary.system;
    let Some(answer) = chosen.answer().filter(|answer| answer.system == system) else {
        return Decision::act(Why::ChosenLost(name), acts);
    };
    let Standing::Primary { .. } = answer.role else {
        // Each may be one that another tool has promoted, until it was looked at once.
        if situation.servers.iter().all(|server| server.sight != Sight::Awaited) {
            acts.push(Act::Promote(chosen.id));
        }
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

/// Whether the chosen one does not take over any more: by the evidence, or because an operator took
/// it out of the configuration and orders a failover.
pub(super) fn is_lost(
    situation: &Situation<'_>,
    policy: &Policy,
    choice: &Choice,
    order: Option<&Order>,
) -> bool {
    match situation.named(&choice.server) {
        Some(chosen) => is_gone(situation, policy, chosen),
        None => matches!(order, Some(Order::Failover { .. })),
    }
}

/// One that another tool has promoted, while the chosen one was not yet: both would be primaries of
/// one number. It may be the old primary, which had become a standby.
pub(super) fn beside<'a>(
    situation: &'a Situation<'_>,
    policy: &Policy,
    choice: &Choice,
) -> Option<&'a ServerView> {
    let waits = situation.named(&choice.server)?.as_standby().is_some();
    let mut others = situation.servers.iter().filter(|server| server.name != choice.server);
    others.find(|server| leads_elsewhere(situation, policy, server)).filter(|_| waits)
}

/// What keeps the old primary, and those before it, from taking writes beside the chosen one.
fn fences<'a>(situation: &'a Situation<'_>, choice: &Choice) -> impl Iterator<Item = Act> + 'a {
    let chosen = situation.named(&choice.server).map(|chosen| chosen.id);
    let old = chosen.and_then(|chosen| fence_old(situation, chosen));
    let former = former_primaries(situation);
    old.into_iter().chain(former.filter(move |act| act.server() != chosen))
}

/// Why the order that waits is not what the change under way will fulfil.
pub(super) fn too_late(order: Option<&Order>, (operation, choice): Under<'_>) -> Option<Refusal> {
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
    let others =
        standbys(situation).filter(|server| server.id != chosen.id && !situation.is_astray(server));
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
    if server.history.as_ref().is_some_and(|own| history.contradicts(own)) {
        return false;
    }
    match branch(server) {
        Some(own) if own == timeline => true,
        Some(own) => history.end_of(own).is_some_and(|end| replayed <= end),
        None => false,
    }
}

/// The old primary, if it answers as one while another is made the primary.
fn fence_old(situation: &Situation<'_>, chosen: ServerId) -> Option<Act> {
    let old = situation.primary().filter(|old| old.id != chosen)?;
    let ours = old.answer().is_some_and(|seen| seen.system == situation.record.primary.system);
    (ours && old.as_primary().is_some() && old.fenced.is_none()).then_some(Act::Fence(old.id))
}

/// The new primary of a change.
pub(super) struct New {
    pub from: Arc<str>,
    pub to: Arc<str>,
    pub timeline: Timeline,
    pub fork: Option<Lsn>,
    pub loss: Loss,
}

/// The record of a completed change.
pub(super) fn settled(record: &Record, operation: &Operation, new: New, unix_now: u64) -> Record {
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
