//! The decision: from a situation to the next acts.

use crate::failover::choose::{
    Behind, Chosen, Pace, behind, choose, leads_elsewhere, loss, outsider, revocation, standbys,
};
use crate::failover::promote::promoting;
use crate::failover::repair::former_primaries;
use crate::failover::verdict::ATTEMPTS;
use crate::failover::{
    Act, Arming, By, Checkpoint, Choice, Decision, Kind, Loss, MaxLoss, Mode, Operation, Order,
    Phase, Policy, Promise, Receiver, Refusal, ServerView, Sight, Situation, Verdict, Why, planned,
    repair, verdict,
};
use std::sync::Arc;
use std::time::Duration;

/// What is to be done now. `unix_now` is written into the record for people, and never compared.
#[must_use]
pub fn decide(situation: &Situation<'_>, policy: &Policy, unix_now: u64) -> Decision {
    match &situation.record.phase {
        Phase::Stable => stable(situation, policy, unix_now),
        Phase::Draining(operation) => planned::draining(situation, policy, operation),
        Phase::Revoking(operation) => match operation.kind {
            Kind::Failover => revoking(situation, policy, operation),
            Kind::Switchover => planned::handing_over(situation, policy, operation),
        },
        Phase::Promoting(operation, choice) => {
            promoting(situation, policy, (operation, choice), unix_now)
        }
    }
}

/// Nothing is under way.
fn stable(situation: &Situation<'_>, policy: &Policy, unix_now: u64) -> Decision {
    let verdict = verdict(situation, policy);
    if let Some(order) = situation.order {
        return match ordered(situation, policy, order, verdict, unix_now) {
            Ok(decision) => decision,
            Err(refusal) => Decision::act(Why::AllWell, vec![Act::Answer(Err(refusal))]),
        };
    }
    if verdict == Verdict::Lives {
        return repair::in_order(situation, policy);
    }
    let may_act = match policy.mode {
        Mode::Off => Err(Why::Off(verdict)),
        Mode::Manual => Err(Why::Manual(verdict)),
        Mode::Auto => automatic(situation, policy, verdict),
    };
    match may_act {
        Ok(()) => {
            let operation = Operation {
                kind: Kind::Failover,
                by: By::Evidence,
                to: None,
                accepted: policy.max_data_loss,
                word: MaxLoss::Bytes(0),
                began: unix_now,
            };
            claim(situation, operation, verdict)
        }
        Err(why) if policy.mode == Mode::Off => Decision::wait(why),
        // One that was replaced is no more the primary for who replaced it being lost.
        Err(why) => Decision::act(why, replaced(situation, policy).collect()),
    }
}

/// What keeps those that were replaced from taking writes while nobody is the primary. Not one that
/// somebody has promoted meanwhile: that may be the way out.
fn replaced<'a>(
    situation: &'a Situation<'_>,
    policy: &'a Policy,
) -> impl Iterator<Item = Act> + 'a {
    let promoted = |act: &Act| {
        let mut others = situation.others();
        others.any(|it| act.server() == Some(it.id) && leads_elsewhere(situation, policy, it))
    };
    former_primaries(situation).filter(move |act| !promoted(act))
}

/// Whether the evidence alone is enough to act.
fn automatic(situation: &Situation<'_>, policy: &Policy, verdict: Verdict) -> Result<(), Why> {
    let quorum = situation.record.promise.revocation().is_some();
    let missing = match situation.primary().map(|primary| primary.sight) {
        Some(Sight::Missing(missing)) => Some(missing),
        Some(Sight::Answers(_) | Sight::Awaited) | None => None,
    };
    let waited = missing.map_or(Duration::ZERO, |missing| situation.now.since(missing.since));
    // One that answers us, be it that it is full, is not cut off from us.
    let silent = missing.and_then(|missing| missing.silent).unwrap_or_default();
    match verdict {
        Verdict::Demoted if handed_over(situation, policy) => return Err(Why::HandedOver),
        Verdict::Dead | Verdict::Hung | Verdict::Demoted => {}
        // After the crash of one backend it comes back by itself within seconds.
        Verdict::Restarting if waited >= policy.restart_grace => {}
        Verdict::Restarting => return Err(Why::Grace),
        Verdict::Isolated(_) if quorum && silent >= policy.isolated_after => {}
        Verdict::Lives
        | Verdict::Isolated(_)
        | Verdict::Unsure
        | Verdict::Stranger
        | Verdict::NoWitness => return Err(Why::Evidence(verdict)),
    }
    if let Some(outsider) = outsider(situation, policy) {
        return Err(Why::PromotedElsewhere(Arc::clone(&outsider.name)));
    }
    if let Arming::Disarmed(reasons) = situation.arming {
        return Err(Why::Disarmed(reasons.clone()));
    }
    if is_soon(situation, policy) { Err(Why::TooSoon) } else { Ok(()) }
}

/// Whether another tool may have handed over to a server that we don't see: the recorded primary, a
/// standby now, hears from it, or has not come so far yet.
fn handed_over(situation: &Situation<'_>, policy: &Policy) -> bool {
    let hidden = situation.others().any(|other| match other.sight {
        Sight::Answers(_) => false,
        Sight::Awaited => true,
        Sight::Missing(missing) => missing.gone < ATTEMPTS,
    });
    let Some(primary) = situation.primary() else { return hidden };
    let Some((_, _, Receiver::Streams { from, heard, .. })) = primary.as_standby() else {
        return hidden;
    };
    let mut sources = situation.servers.iter().filter(|other| Some(other.id) == from);
    let seen = sources.any(|source| source.answer().is_some());
    // Silence on a link that is not known to be kept alive means nothing.
    let hears = heard <= policy.witness_fresh || !primary.keepalive;
    hidden || (!seen && hears)
}

/// Whether the last automatic failover was a moment ago. A process that has not seen one knows
/// from the record that there was one, and not when: it counts from its own beginning.
fn is_soon(situation: &Situation<'_>, policy: &Policy) -> bool {
    let recorded = situation.record.changes.iter().any(|change| change.by == By::Evidence);
    let known = situation.last_automatic.or(recorded.then_some(situation.began));
    known.is_some_and(|last| situation.now.since(last) < policy.gap)
}

/// An operator's order, while nothing is under way.
fn ordered(
    situation: &Situation<'_>,
    policy: &Policy,
    order: &Order,
    verdict: Verdict,
    unix_now: u64,
) -> Result<Decision, Refusal> {
    if policy.mode == Mode::Off {
        return Err(Refusal::ModeOff);
    }
    match order {
        Order::Abort => Err(Refusal::Idle),
        Order::Failover { to, accept } => {
            lost(situation, policy, verdict)?;
            if let Some(to) = to {
                wanted(situation, to)?;
            }
            let operation = Operation {
                kind: Kind::Failover,
                by: By::Operator,
                to: to.clone(),
                accepted: accept.or(policy.max_data_loss),
                word: *accept,
                began: unix_now,
            };
            Ok(claim(situation, operation, verdict))
        }
        // An answer that is late is not a primary that is lost: the disk is busy.
        Order::Switchover { .. }
            if situation.checkpoint == Checkpoint::Underway
                && matches!(verdict, Verdict::Unsure | Verdict::Isolated(_)) =>
        {
            Ok(Decision::wait(Why::Checkpointing))
        }
        Order::Switchover { .. } if verdict != Verdict::Lives => Err(Refusal::PrimaryLost),
        Order::Switchover { to } => planned::begin(situation, policy, to.as_ref(), unix_now),
    }
}

/// Whether an operator may have the primary replaced.
pub(super) fn lost(
    situation: &Situation<'_>,
    policy: &Policy,
    verdict: Verdict,
) -> Result<(), Refusal> {
    if verdict == Verdict::Lives {
        return Err(Refusal::PrimaryLives);
    }
    match outsider(situation, policy) {
        Some(outsider) => Err(Refusal::PromotedElsewhere(Arc::clone(&outsider.name))),
        None => Ok(()),
    }
}

/// Whether a server that an operator named may be promoted at all.
pub(super) fn wanted(situation: &Situation<'_>, name: &Arc<str>) -> Result<(), Refusal> {
    let server = situation.named(name).ok_or_else(|| Refusal::NoSuchServer(Arc::clone(name)))?;
    if server.name == situation.record.primary.server && server.as_standby().is_none() {
        return Err(Refusal::IsPrimary(Arc::clone(name)));
    }
    if !server.tags.may_lead() {
        return Err(Refusal::MayNotLead(Arc::clone(name)));
    }
    Ok(())
}

fn claim(situation: &Situation<'_>, operation: Operation, verdict: Verdict) -> Decision {
    let record = situation.record.claimed(Phase::Revoking(operation));
    Decision::act(Why::Claiming(verdict), vec![Act::Write(Box::new(record))])
}

/// Claimed: freeze, then choose.
fn revoking(situation: &Situation<'_>, policy: &Policy, operation: &Operation) -> Decision {
    if let Some(refusal) = not_this(situation, operation) {
        return Decision::act(Why::Freezing, vec![Act::Answer(Err(refusal))]);
    }
    if situation.order == Some(&Order::Abort) {
        return abort(situation, policy, Refusal::CalledOff);
    }
    // It may be well after all, and nobody was named in its place yet.
    if verdict(situation, policy) == Verdict::Lives {
        return abort(situation, policy, Refusal::PrimaryBack);
    }
    if let Some(outsider) = outsider(situation, policy) {
        let refusal = Refusal::PromotedElsewhere(Arc::clone(&outsider.name));
        return abort(situation, policy, refusal);
    }
    let wished = with_order(situation, operation);
    if wished != *operation {
        let record = situation.record.in_phase(Phase::Revoking(wished));
        return Decision::act(Why::Freezing, vec![Act::Write(Box::new(record))]);
    }
    let to = operation.to.as_deref();
    let behind = behind(situation, policy, to);
    let given_up = behind.filter(|behind| goes_without(situation, operation, behind));
    let behind = if given_up.is_none() { behind } else { None };
    let catching = behind.map(|behind| behind.server.id);
    let mut acts = freeze(standbys(situation).filter(|server| Some(server.id) != catching));
    let pending = !acts.is_empty();
    acts.extend(behind.map(|it| Act::Repoint { server: it.server.id, to: it.source.id }));
    acts.extend(former_primaries(situation));
    if given_up.is_some_and(|behind| behind.server.frozen.is_none()) {
        return Decision::act(Why::Freezing, acts);
    }
    let elapsed = situation.now.since(situation.phase_since);
    let patient = elapsed < policy.freeze_patience;
    if let Err(why) = revocation(situation, catching)
        && !is_overridden(operation)
    {
        // One that answers will most likely be frozen in a moment.
        let soon = patient || pending && elapsed < policy.answer_patience;
        return if soon { Decision::act(why, acts) } else { waits(situation, why, acts) };
    }
    if pending && patient {
        // One that answers may hold more than those that are frozen.
        return Decision::act(Why::Freezing, acts);
    }
    if let Some(behind) = behind {
        return match behind.pace {
            Pace::GetsOn => Decision::act(behind.catching_up(), acts),
            Pace::Stalled => waits(situation, behind.cannot_catch_up(situation), acts),
        };
    }
    match choose(situation, to, operation.accepted, given_up.map(|behind| behind.server.id)) {
        Chosen::Server { server, at, loss } => {
            let why = Why::Chosen(Arc::clone(&server));
            let phase = Phase::Promoting(operation.clone(), Choice { server, at, loss });
            let record = situation.record.in_phase(phase);
            Decision::act(why, vec![Act::Write(Box::new(record))])
        }
        Chosen::Nobody(why) => waits(situation, why, acts),
    }
}

/// Whether one that does not get what another holds more goes without: where that loses nothing
/// that may not be lost. With a quorum only an operator's own word allows a loss.
fn goes_without(situation: &Situation<'_>, operation: &Operation, behind: &Behind<'_>) -> bool {
    let Behind { server, at, pace, .. } = *behind;
    let loss = loss(situation, server, at);
    let enough = is_overridden(operation) || revocation(situation, Some(server.id)).is_ok();
    let counts = match situation.record.promise {
        Promise::Quorum { .. } => loss == Loss::None || operation.word.allows(loss),
        Promise::Asynchronous(_) => true,
    };
    pace == Pace::Stalled && enough && counts && operation.accepted.allows(loss)
}

/// It can't go on by itself: whoever ordered it is told what it waits for, and does not wait too.
pub(super) fn waits(situation: &Situation<'_>, why: Why, mut acts: Vec<Act>) -> Decision {
    if situation.order.is_some() {
        acts.push(Act::Answer(Err(Refusal::Waits(Box::new(why.clone())))));
    }
    Decision::act(why, acts)
}

/// The failover as it was begun, and what an order that came later changes of it.
pub(super) fn with_order(situation: &Situation<'_>, operation: &Operation) -> Operation {
    match situation.order {
        Some(Order::Failover { to, accept }) => Operation {
            by: By::Operator,
            to: to.clone(),
            accepted: accept.or(operation.accepted),
            word: accept.or(operation.word),
            ..operation.clone()
        },
        Some(Order::Switchover { .. } | Order::Abort) | None => operation.clone(),
    }
}

/// An operator takes whatever loss there is: then nobody has to be frozen but the one that is
/// promoted. What is configured for automatic failovers never means that.
pub(super) fn is_overridden(operation: &Operation) -> bool {
    operation.word == MaxLoss::Any
}

/// Why the order that waits is not what the failover under way could fulfil.
fn not_this(situation: &Situation<'_>, operation: &Operation) -> Option<Refusal> {
    match (situation.order?, operation.kind) {
        (Order::Abort, _) | (Order::Switchover { .. }, Kind::Switchover) => None,
        (Order::Failover { to, .. }, Kind::Failover) => {
            to.as_ref().and_then(|to| wanted(situation, to).err())
        }
        (Order::Failover { .. }, Kind::Switchover) | (Order::Switchover { .. }, Kind::Failover) => {
            Some(Refusal::Busy)
        }
    }
}

/// Every one of these that is not frozen.
pub(super) fn freeze<'a>(servers: impl Iterator<Item = &'a ServerView>) -> Vec<Act> {
    let loose = servers.filter(|server| server.frozen.is_none());
    loose.map(|server| Act::Freeze(server.id)).collect()
}

/// Back to the primary of before: possible until one was chosen.
///
/// Only what would stop the primary from taking writes is waited for, and not for ever: a fence is
/// lifted later, too. A standby that does not answer stays as it is, and is put in order when it
/// comes back.
pub(super) fn abort(situation: &Situation<'_>, policy: &Policy, refusal: Refusal) -> Decision {
    let why = Why::Aborting(refusal.clone());
    let fenced = situation.primary().filter(|old| old.fenced.is_some());
    if let Some(old) = fenced.filter(|old| old.as_primary().is_some()) {
        return Decision::act(why, vec![Act::Unfence(old.id)]);
    }
    let may_return = |old: &ServerView| match old.sight {
        Sight::Missing(missing) => situation.now.since(missing.since) < planned::RETURN_MAX,
        Sight::Awaited | Sight::Answers(_) => true,
    };
    if fenced.is_some_and(may_return) && verdict(situation, policy) == Verdict::Unsure {
        return Decision::wait(why);
    }
    // A process before this one may have frozen whoever hears from nobody.
    let loose = |server: &&ServerView| {
        let idle = matches!(server.as_standby(), Some((_, _, Receiver::Idle)));
        let other = server.name != situation.record.primary.server;
        (server.frozen.is_some() || (idle && other)) && !situation.is_astray(server)
    };
    let frozen = standbys(situation).filter(loose);
    let mut acts: Vec<_> = frozen.map(|server| Act::Unfreeze(server.id)).collect();
    acts.push(Act::Write(Box::new(situation.record.in_phase(Phase::Stable))));
    acts.push(Act::Answer(Err(refusal)));
    Decision::act(why, acts)
}
