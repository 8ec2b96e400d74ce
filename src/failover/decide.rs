//! The decision: from a situation to the next acts.

use crate::failover::choose::{Chosen, choose, frozen, revocation};
use crate::failover::situation::Standing;
use crate::failover::{
    Act, Appointed, Arming, By, Change, Choice, Decision, Kind, Mode, Operation, Order, Phase,
    Policy, Promise, Refusal, ServerView, Sight, Situation, Verdict, WeakPromise, Why, planned,
    repair, verdict,
};
use std::sync::Arc;

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
            promoting(situation, policy, operation, choice, unix_now)
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
                began: unix_now,
            };
            claim(situation, operation, verdict)
        }
        Err(why) => Decision::wait(why),
    }
}

/// Whether the evidence alone is enough to act.
fn automatic(situation: &Situation<'_>, policy: &Policy, verdict: Verdict) -> Result<(), Why> {
    let quorum = situation.record.promise.revocation().is_some();
    let since = match situation.primary().map(|primary| &primary.sight) {
        Some(Sight::Missing(missing)) => missing.since,
        Some(Sight::Answers(_) | Sight::Awaited) | None => situation.now,
    };
    let waited = situation.now.since(since);
    match verdict {
        Verdict::Dead | Verdict::Hung | Verdict::Demoted => {}
        // After the crash of one backend it comes back by itself within seconds.
        Verdict::Restarting if waited >= policy.restart_grace => {}
        Verdict::Restarting => return Err(Why::Grace),
        Verdict::Isolated(_) if quorum && waited >= policy.isolated_after => {}
        Verdict::Lives
        | Verdict::Isolated(_)
        | Verdict::Unsure
        | Verdict::Stranger
        | Verdict::NoWitness => return Err(Why::Evidence(verdict)),
    }
    if let Arming::Disarmed(reasons) = situation.arming {
        return Err(Why::Disarmed(reasons.clone()));
    }
    let soon = situation.last_automatic.is_some_and(|last| situation.now.since(last) < policy.gap);
    if soon { Err(Why::TooSoon) } else { Ok(()) }
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
        Order::Failover { .. } if verdict == Verdict::Lives => Err(Refusal::PrimaryLives),
        Order::Failover { to, accept } => {
            if let Some(to) = to {
                wanted(situation, to)?;
            }
            let operation = Operation {
                kind: Kind::Failover,
                by: By::Operator,
                to: to.clone(),
                accepted: accept.or(policy.max_data_loss),
                began: unix_now,
            };
            Ok(claim(situation, operation, verdict))
        }
        Order::Switchover { .. } if verdict != Verdict::Lives => Err(Refusal::PrimaryLost),
        Order::Switchover { to } => planned::begin(situation, to.as_ref(), unix_now),
    }
}

/// Whether a server that an operator named may be promoted at all.
pub(super) fn wanted(situation: &Situation<'_>, name: &Arc<str>) -> Result<(), Refusal> {
    let server = situation.named(name).ok_or_else(|| Refusal::NoSuchServer(Arc::clone(name)))?;
    if server.name == situation.record.primary.server {
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
    if situation.order == Some(&Order::Abort) {
        return abort(situation, Refusal::CalledOff);
    }
    // It may be well after all, and nobody was named in its place yet.
    if operation.by == By::Evidence && verdict(situation, policy) == Verdict::Lives {
        return abort(situation, Refusal::PrimaryBack);
    }
    let mut acts = freeze(situation);
    acts.extend(fence_old(situation));
    let pending = acts.iter().any(|act| matches!(act, Act::Freeze(_)));
    if let Err(why) = revocation(situation) {
        return Decision::act(why, acts);
    }
    if pending && situation.now.since(situation.phase_since) < policy.freeze_patience {
        // One that answers may hold more than those that are frozen.
        return Decision::act(Why::Freezing, acts);
    }
    // An order that came later may accept more.
    let (to, accepted) = match situation.order {
        Some(Order::Failover { to, accept }) => {
            (to.as_ref().or(operation.to.as_ref()), accept.or(operation.accepted))
        }
        Some(Order::Switchover { .. } | Order::Abort) | None => {
            (operation.to.as_ref(), operation.accepted)
        }
    };
    match choose(situation, to.map(|name| &**name), accepted) {
        Chosen::Server { server, at, loss } => {
            let why = Why::Chosen(Arc::clone(&server));
            let operation = Operation { accepted, ..operation.clone() };
            let phase = Phase::Promoting(operation, Choice { server, at, loss });
            let record = situation.record.in_phase(phase);
            Decision::act(why, vec![Act::Write(Box::new(record))])
        }
        Chosen::CatchUp { server, from, why } => {
            acts.retain(|act| act.server() != Some(server));
            acts.push(Act::Repoint { server, to: from });
            Decision::act(why, acts)
        }
        Chosen::Nobody(why) => Decision::act(why, acts),
    }
}

/// Every standby that answers and is not frozen.
pub(super) fn freeze(situation: &Situation<'_>) -> Vec<Act> {
    let loose = situation.others().filter(|server| {
        server.as_standby().is_some()
            && server.frozen.is_none()
            && server.answer().is_some_and(|seen| seen.system == situation.record.primary.system)
    });
    loose.map(|server| Act::Freeze(server.id)).collect()
}

/// The old primary, if it answers as one in the middle of a failover.
fn fence_old(situation: &Situation<'_>) -> Option<Act> {
    let old = situation.primary()?;
    (old.as_primary().is_some() && old.fenced.is_none()).then_some(Act::Fence(old.id))
}

/// Back to the primary of before: possible until one was chosen.
pub(super) fn abort(situation: &Situation<'_>, refusal: Refusal) -> Decision {
    let undo: Vec<_> = situation
        .primary()
        .filter(|old| old.fenced.is_some())
        .map(|old| Act::Unfence(old.id))
        .into_iter()
        .chain(
            situation
                .others()
                .filter(|server| server.frozen.is_some())
                .map(|server| Act::Unfreeze(server.id)),
        )
        .collect();
    let why = Why::Aborting(refusal.clone());
    if !undo.is_empty() {
        return Decision::act(why, undo);
    }
    let record = situation.record.in_phase(Phase::Stable);
    Decision::act(why, vec![Act::Write(Box::new(record)), Act::Answer(Err(refusal))])
}

/// One was chosen: promote it, have the others follow it, prove it, admit it.
fn promoting(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
    choice: &Choice,
    unix_now: u64,
) -> Decision {
    if situation.order == Some(&Order::Abort) {
        return Decision::act(
            Why::Promoting(Arc::clone(&choice.server)),
            vec![Act::Answer(Err(Refusal::TooLate))],
        );
    }
    let Some(chosen) = situation.named(&choice.server) else {
        return Decision::wait(Why::ChosenLost(Arc::clone(&choice.server)));
    };
    let mut acts: Vec<_> = followers(situation, chosen).collect();
    if operation.kind == Kind::Failover {
        acts.extend(fence_old(situation));
    }
    let name = Arc::clone(&chosen.name);
    let Some(answer) = chosen.answer() else {
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
    let unproved = situation.proved.is_none_or(|proved| proved < situation.phase_since);
    let patient = situation.now.since(situation.phase_since) < policy.prove_patience;
    let quorum = situation.record.promise.revocation().is_some();
    if quorum && unproved && patient {
        acts.push(Act::Prove(chosen.id));
        return Decision::act(Why::Proving(name), acts);
    }
    let fork = chosen
        .history
        .as_ref()
        .and_then(|history| history.end_of(situation.record.primary.timeline));
    let change = Change {
        epoch: situation.record.epoch,
        kind: operation.kind,
        by: operation.by,
        from: Some(Arc::clone(&situation.record.primary.server)),
        to: Arc::clone(&name),
        timeline,
        fork,
        loss: choice.loss,
        began: operation.began,
        ended: unix_now,
    };
    let system = situation.record.primary.system;
    let epoch = situation.record.epoch;
    let primary = Appointed { server: Arc::clone(&name), epoch, system, timeline, fork };
    // What it promises is not known until its settings were seen.
    let promise = Promise::Asynchronous(WeakPromise::NotSeen);
    let record = situation.record.settled(primary, promise, change);
    Decision::act(Why::Admitting(name), vec![Act::Write(Box::new(record)), Act::Answer(Ok(()))])
}

/// The frozen standbys that are not the chosen one follow it, as long as they can.
fn followers<'a>(
    situation: &'a Situation<'_>,
    chosen: &'a ServerView,
) -> impl Iterator<Item = Act> + 'a {
    let holds = chosen.frozen.map(|frozen| frozen.at);
    frozen(situation)
        .filter(move |(server, at)| {
            // One that holds more than the chosen one can never follow it.
            server.id != chosen.id && holds.is_none_or(|holds| at.at <= holds)
        })
        .map(|(server, _)| Act::Repoint { server: server.id, to: chosen.id })
}
