//! The switchover: the primary is well, and hands over without losing or failing a statement.
//!
//! Until a server was chosen everything can be undone, and is undone rather than waited for.

use crate::failover::choose::{Chosen, choose, revocation};
use crate::failover::decide::{abort, freeze, wanted};
use crate::failover::{
    Act, By, Choice, Decision, Demotion, Kind, MaxLoss, Operation, Order, Phase, Policy, Refusal,
    ServerView, Situation, Verdict, Why, verdict,
};
use crate::pg::Lsn;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

/// Farther behind than this, a standby is not handed over to: the tail would take too long.
const BEHIND_MAX: u64 = 16 * 1024 * 1024;

/// Longest that the steps between the drain and the choice may take together.
const HANDING_MAX: Duration = Duration::from_secs(10);

/// Checks an order for a switchover and begins it.
pub(super) fn begin(
    situation: &Situation<'_>,
    to: Option<&Arc<str>>,
    unix_now: u64,
) -> Result<Decision, Refusal> {
    let to = fit(situation, to)?;
    let operation = Operation {
        kind: Kind::Switchover,
        by: By::Operator,
        to: Some(Arc::clone(&to.name)),
        accepted: MaxLoss::Bytes(0),
        began: unix_now,
    };
    let why = Why::Draining { busy: situation.gate.busy };
    let record = situation.record.claimed(Phase::Draining(operation));
    let checkpoint = situation.primary().map(|primary| Act::Checkpoint(primary.id));
    let acts = checkpoint.into_iter().chain([Act::Write(Box::new(record))]).collect();
    Ok(Decision::act(why, acts))
}

/// The standby to hand over to: the one that was named, else the best.
pub(super) fn fit<'a>(
    situation: &'a Situation<'_>,
    to: Option<&Arc<str>>,
) -> Result<&'a ServerView, Refusal> {
    let Some((_, flushed)) = situation.primary().and_then(ServerView::as_primary) else {
        return Err(Refusal::PrimaryLost);
    };
    let behind = |server: &ServerView| {
        let (received, replayed, _) = server.as_standby()?;
        Some(flushed.bytes_since(received.min(replayed)))
    };
    if let Some(name) = to {
        wanted(situation, name)?;
        let server = situation.named(name).filter(|server| follows(situation, server));
        let server = server.ok_or_else(|| Refusal::NotAStandby(Arc::clone(name)))?;
        let bytes = behind(server).ok_or_else(|| Refusal::NotAStandby(Arc::clone(name)))?;
        if bytes > BEHIND_MAX {
            return Err(Refusal::TooFarBehind { server: Arc::clone(name), bytes });
        }
        return Ok(server);
    }
    let fit = situation
        .others()
        .filter(|server| server.tags.may_lead() && follows(situation, server))
        .filter_map(|server| behind(server).map(|bytes| (server, bytes)))
        .filter(|(_, bytes)| *bytes <= BEHIND_MAX);
    // Bytes change from look to look: only a whole page decides among equals.
    fit.min_by_key(|(server, bytes)| (Reverse(server.tags.priority), bytes / 8192, server.id))
        .map(|(server, _)| server)
        .ok_or(Refusal::NoCandidate)
}

/// Whether it is a standby that streams this primary's log.
fn follows(situation: &Situation<'_>, server: &ServerView) -> bool {
    let Some(answer) = server.answer() else { return false };
    let streams = server.as_standby().is_some_and(|(_, _, receiver)| {
        matches!(
            receiver,
            crate::failover::Receiver::Streams { .. } | crate::failover::Receiver::Hidden
        )
    });
    streams
        && answer.system == situation.record.primary.system
        && answer.timeline.is_none_or(|timeline| timeline == situation.record.primary.timeline)
}

/// New transactions wait; those that run may end.
pub(super) fn draining(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
) -> Decision {
    if situation.order == Some(&Order::Abort) {
        return abort(situation, Refusal::CalledOff);
    }
    if verdict(situation, policy) != Verdict::Lives {
        // Nothing was done to any server: if it is lost for good, that is a failover.
        return abort(situation, Refusal::LostInBetween);
    }
    if let Err(refusal) = fit(situation, operation.to.as_ref()) {
        return abort(situation, refusal);
    }
    let busy = situation.gate.busy;
    if busy == 0 {
        let record = situation.record.in_phase(Phase::Revoking(operation.clone()));
        return Decision::act(Why::Handing, vec![Act::Write(Box::new(record))]);
    }
    if situation.now.since(situation.phase_since) >= policy.drain_timeout {
        return abort(situation, Refusal::DrainTimedOut { busy });
    }
    Decision::wait(Why::Draining { busy })
}

/// Nobody works on the primary any more: fence it, wait for the tail, freeze, choose.
pub(super) fn handing_over(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
) -> Decision {
    if situation.order == Some(&Order::Abort) {
        return abort(situation, Refusal::CalledOff);
    }
    let late = situation.now.since(situation.phase_since) >= HANDING_MAX;
    if late {
        return abort(situation, Refusal::StepTimedOut);
    }
    let Some(old) = situation.primary() else {
        return abort(situation, Refusal::LostInBetween);
    };
    let Some(to) = operation.to.as_ref().and_then(|to| situation.named(to)) else {
        return abort(situation, Refusal::NoCandidate);
    };
    let end = match end_of_old(old, to, policy) {
        Ok(end) => end,
        Err(Step::Do(act)) => return Decision::act(Why::Handing, vec![act]),
        Err(Step::Wait) => return Decision::wait(Why::Handing),
        Err(Step::Abort(refusal)) => return abort(situation, refusal),
    };
    let held = to.frozen.map(|frozen| frozen.at);
    let received = held.or_else(|| to.as_standby().map(|(received, _, _)| received));
    match received {
        Some(received) if received >= end => {}
        Some(_) if to.frozen.is_none() => return Decision::wait(Why::Tail(Arc::clone(&to.name))),
        Some(_) => return abort(situation, Refusal::StepTimedOut),
        None => return abort(situation, Refusal::NotAStandby(Arc::clone(&to.name))),
    }
    let acts = freeze(situation);
    if !acts.is_empty() {
        return Decision::act(Why::Freezing, acts);
    }
    // As a standby it acknowledges nothing; fenced by settings alone, it might be freed again.
    let demoted = old.as_standby().is_some();
    if let Err(why) = revocation(situation)
        && !demoted
    {
        return Decision::wait(why);
    }
    match choose(situation, Some(&to.name), MaxLoss::Bytes(0)) {
        Chosen::Server { server, at, .. } if at >= end => {
            let why = Why::Chosen(Arc::clone(&server));
            // Nobody was busy, and it holds the fenced primary's log to its end.
            let loss = crate::failover::Loss::None;
            let phase = Phase::Promoting(operation.clone(), Choice { server, at, loss });
            let record = situation.record.in_phase(phase);
            Decision::act(why, vec![Act::Write(Box::new(record))])
        }
        Chosen::Server { .. } => abort(situation, Refusal::StepTimedOut),
        Chosen::CatchUp { .. } | Chosen::Nobody(_) => abort(situation, Refusal::NoCandidate),
    }
}

/// What is to be done before the old primary's end is known.
enum Step {
    Do(Act),
    Wait,
    Abort(Refusal),
}

/// Where the log of the old primary ends, once nobody can write there.
fn end_of_old(old: &ServerView, to: &ServerView, policy: &Policy) -> Result<Lsn, Step> {
    let demoted = old.as_standby();
    match (policy.demotion, old.fenced, demoted) {
        // It restarted as a standby: what it replayed is all there is.
        (Demotion::CrashRestart, Some(_), Some((received, replayed, _))) => {
            Ok(received.max(replayed))
        }
        (_, None, _) if old.as_primary().is_some() => Err(Step::Do(Act::Fence(old.id))),
        (_, None, _) => Err(Step::Abort(Refusal::LostInBetween)),
        (_, Some(fenced), None) if fenced.foreign > 0 => {
            Err(Step::Abort(Refusal::ForeignWriters(fenced.foreign)))
        }
        (Demotion::CrashRestart, Some(_), None) => {
            // It is away for a moment while it restarts.
            if old.as_primary().is_some() {
                Err(Step::Do(Act::Demote { server: old.id, to: to.id }))
            } else {
                Err(Step::Wait)
            }
        }
        (Demotion::Fence, Some(fenced), _) => Ok(fenced.end),
    }
}
