//! The switchover: the primary is well, and hands over without losing or failing a statement.
//!
//! Until a server was chosen everything can be undone, and is undone rather than waited for. That
//! it is being undone is recorded first, so that no round in between goes on: a switchover that
//! names nobody any more is one that is called off. Once the old primary was made to restart as a
//! standby, "undone" means that it is promoted again.

use crate::failover::choose::{Chosen, behind, choose, outsider, revocation, standbys};
use crate::failover::decide::{abort, freeze, wanted};
use crate::failover::repair::former_primaries;
use crate::failover::{
    Act, By, Checkpoint, Choice, Decision, Demotion, Kind, Loss, MaxLoss, Mode, Operation, Order,
    Phase, Policy, Receiver, Refusal, ServerView, Sight, Situation, Standing, Verdict, Why,
    verdict,
};
use crate::pg::Lsn;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

/// Farther behind than this, a standby is not handed over to: the tail would take too long.
const BEHIND_MAX: u64 = 16 * 1024 * 1024;

/// Longest that the steps between the drain and the choice may take together. With the drain it
/// stays below what a statement is held for, so that even then none fails.
const HANDING_MAX: Duration = Duration::from_secs(4);

/// A primary that was told to restart as a standby is back after a second at most; one that is
/// away for longer than this will not come.
const DEMOTION_MAX: Duration = Duration::from_secs(2);

/// Longest that one which may have been told so is waited for when the switchover is called off. No
/// other server would take its place but by an order, and once it is back nobody would promote it.
/// For no longer is one waited for that is fenced, and of which nobody says what became of it.
pub(super) const RETURN_MAX: Duration = Duration::from_secs(10);

/// Checks an order for a switchover and begins it: with a checkpoint, for what the old primary
/// needs for its restart depends on how much was written since the last. Nobody waits meanwhile.
pub(super) fn begin(
    situation: &Situation<'_>,
    policy: &Policy,
    to: Option<&Arc<str>>,
    unix_now: u64,
) -> Result<Decision, Refusal> {
    let to = fit(situation, policy, to)?;
    if let Some(obstacle) = situation.obstacle {
        return Err(Refusal::Obstacle(Arc::clone(obstacle)));
    }
    match (situation.checkpoint, situation.primary()) {
        (Checkpoint::Wanted, Some(primary)) => {
            return Ok(Decision::act(Why::Checkpointing, vec![Act::Checkpoint(primary.id)]));
        }
        (Checkpoint::Underway, _) => {
            let fences = former_primaries(situation).collect();
            return Ok(Decision::act(Why::Checkpointing, fences));
        }
        (Checkpoint::Wanted, None) | (Checkpoint::Past, _) => {}
    }
    let operation = Operation {
        kind: Kind::Switchover,
        by: By::Operator,
        to: Some(Arc::clone(&to.name)),
        accepted: MaxLoss::Bytes(0),
        word: MaxLoss::Bytes(0),
        began: unix_now,
    };
    let why = Why::Draining { busy: situation.gate.busy };
    let record = situation.record.claimed(Phase::Draining(operation));
    Ok(Decision::act(why, vec![Act::Write(Box::new(record))]))
}

/// The standby to hand over to: the one that was named, else the best.
pub(super) fn fit<'a>(
    situation: &'a Situation<'_>,
    policy: &Policy,
    to: Option<&Arc<str>>,
) -> Result<&'a ServerView, Refusal> {
    let Some((_, flushed)) = situation.primary().and_then(ServerView::as_primary) else {
        return Err(Refusal::PrimaryLost);
    };
    let server = match to {
        Some(name) => named(situation, name, flushed)?,
        None => best(situation, flushed).ok_or(Refusal::NoCandidate)?,
    };
    if let Some(outsider) = outsider(situation, policy) {
        return Err(Refusal::PromotedElsewhere(Arc::clone(&outsider.name)));
    }
    enough_answer(situation, policy)?;
    Ok(server)
}

fn named<'a>(
    situation: &'a Situation<'_>,
    name: &Arc<str>,
    flushed: Lsn,
) -> Result<&'a ServerView, Refusal> {
    wanted(situation, name)?;
    let server = situation.named(name).filter(|server| follows(situation, server));
    let found =
        server.and_then(|server| bytes_behind(server, flushed).map(|bytes| (server, bytes)));
    let (server, bytes) = found.ok_or_else(|| Refusal::NotAStandby(Arc::clone(name)))?;
    if bytes > BEHIND_MAX {
        return Err(Refusal::TooFarBehind { server: Arc::clone(name), bytes });
    }
    Ok(server)
}

fn best<'a>(situation: &'a Situation<'_>, flushed: Lsn) -> Option<&'a ServerView> {
    let fit = situation
        .others()
        .filter(|server| server.tags.may_lead() && follows(situation, server))
        .filter_map(|server| bytes_behind(server, flushed).map(|bytes| (server, bytes)))
        .filter(|(_, bytes)| *bytes <= BEHIND_MAX);
    // Bytes change from look to look: only a whole page decides among equals.
    let rank = |(server, bytes): &(&ServerView, u64)| {
        (Reverse(server.tags.priority), bytes / 8192, server.id)
    };
    fit.min_by_key(rank).map(|(server, _)| server)
}

fn bytes_behind(server: &ServerView, flushed: Lsn) -> Option<u64> {
    let (received, replayed, _) = server.as_standby()?;
    Some(flushed.bytes_since(received.min(replayed)))
}

/// Whether it is a standby that streams this primary's log.
fn follows(situation: &Situation<'_>, server: &ServerView) -> bool {
    let Some(answer) = server.answer() else { return false };
    let streams = server.as_standby().is_some_and(|(_, _, receiver)| match receiver {
        Receiver::Streams { .. } | Receiver::Hidden => true,
        Receiver::Idle => false,
    });
    streams
        && !situation.is_astray(server)
        && answer.system == situation.record.primary.system
        && answer.timeline.is_none_or(|timeline| timeline == situation.record.primary.timeline)
}

/// Whether enough standbys answer that the old primary can be revoked: better to know before the
/// first statement waits. One that restarts as a standby needs no revocation.
fn enough_answer(situation: &Situation<'_>, policy: &Policy) -> Result<(), Refusal> {
    let promise = &situation.record.promise;
    let (Demotion::Fence, Some(needed)) = (policy.demotion, promise.revocation()) else {
        return Ok(());
    };
    let counts =
        |server: &&ServerView| server.as_standby().is_some() && !situation.is_astray(server);
    let answers = situation.others().filter(counts);
    let reached = answers.filter(|server| promise.counts(&server.name)).count();
    if reached < needed { Err(Refusal::TooFewStandbys { reached, needed }) } else { Ok(()) }
}

/// Why the order that waits is not what the switchover under way could fulfil.
fn not_this(situation: &Situation<'_>, operation: &Operation) -> Option<Decision> {
    let this = match situation.order? {
        Order::Abort => true,
        Order::Failover { .. } => false,
        Order::Switchover { to } => operation.to.is_some() && (to.is_none() || *to == operation.to),
    };
    let answer = vec![Act::Answer(Err(Refusal::Busy))];
    (!this).then(|| Decision::act(Why::Handing, answer))
}

/// New transactions wait; those that run may end.
pub(super) fn draining(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
) -> Decision {
    if let Some(decision) = not_this(situation, operation) {
        return decision;
    }
    let undoing = operation.to.is_none();
    if situation.order == Some(&Order::Abort) && !undoing {
        return abort(situation, policy, Refusal::CalledOff);
    }
    if is_awaited(situation) {
        return Decision::wait(Why::Draining { busy: situation.gate.busy });
    }
    if undoing {
        return undo(situation, policy, Refusal::CalledOff);
    }
    match verdict(situation, policy) {
        Verdict::Lives => {}
        // A link that broke, or an answer that is late, is not a primary that is lost.
        Verdict::Unsure | Verdict::Isolated(_) if !is_overdue(situation, policy) => {
            return Decision::wait(Why::Draining { busy: situation.gate.busy });
        }
        // Nothing was done to any server: if it is lost for good, that is a failover.
        Verdict::Dead
        | Verdict::Restarting
        | Verdict::Hung
        | Verdict::Demoted
        | Verdict::Stranger
        | Verdict::NoWitness
        | Verdict::Unsure
        | Verdict::Isolated(_) => return abort(situation, policy, Refusal::LostInBetween),
    }
    if let Err(refusal) = fit(situation, policy, operation.to.as_ref()) {
        return abort(situation, policy, refusal);
    }
    let busy = situation.gate.busy;
    // One that was held up, as by a full disk, is not carried out when nobody expects it any more.
    if busy == 0 && is_overdue(situation, policy) {
        return abort(situation, policy, Refusal::StepTimedOut);
    }
    if busy == 0 {
        let record = situation.record.in_phase(Phase::Revoking(operation.clone()));
        return Decision::act(Why::Handing, vec![Act::Write(Box::new(record))]);
    }
    if is_overdue(situation, policy) {
        return abort(situation, policy, Refusal::DrainTimedOut { busy });
    }
    Decision::wait(Why::Draining { busy })
}

/// Whether transactions had their time to end.
fn is_overdue(situation: &Situation<'_>, policy: &Policy) -> bool {
    situation.now.since(situation.phase_since) >= policy.drain_timeout
}

/// Whether this process has just started, and has not yet seen every server.
fn is_awaited(situation: &Situation<'_>) -> bool {
    let awaited = situation.servers.iter().any(|server| server.sight == Sight::Awaited);
    awaited && situation.now.since(situation.phase_since) < HANDING_MAX
}

/// Nobody works on the primary any more: fence it, wait for the tail, freeze, choose.
pub(super) fn handing_over(
    situation: &Situation<'_>,
    policy: &Policy,
    operation: &Operation,
) -> Decision {
    if let Some(decision) = not_this(situation, operation) {
        return decision;
    }
    if is_awaited(situation) {
        return Decision::wait(Why::Handing);
    }
    let step = next_step(situation, policy, operation);
    match step {
        _ if situation.order == Some(&Order::Abort) => undo(situation, policy, Refusal::CalledOff),
        Step::Abort(refusal) => undo(situation, policy, refusal),
        Step::Choose(choice) => {
            let why = Why::Chosen(Arc::clone(&choice.server));
            let phase = Phase::Promoting(operation.clone(), choice);
            let record = situation.record.in_phase(phase);
            Decision::act(why, vec![Act::Write(Box::new(record))])
        }
        Step::Do(..) | Step::Wait(_)
            if situation.now.since(situation.phase_since) >= HANDING_MAX =>
        {
            undo(situation, policy, Refusal::StepTimedOut)
        }
        Step::Do(why, acts) => Decision::act(why, acts),
        Step::Wait(why) => Decision::wait(why),
    }
}

/// What comes next in handing over.
enum Step {
    Do(Why, Vec<Act>),
    Wait(Why),
    Choose(Choice),
    Abort(Refusal),
}

fn next_step(situation: &Situation<'_>, policy: &Policy, operation: &Operation) -> Step {
    let Some(old) = situation.primary() else { return Step::Abort(Refusal::LostInBetween) };
    let Some(to) = operation.to.as_ref().and_then(|to| situation.named(to)) else {
        return Step::Abort(Refusal::NoCandidate);
    };
    if let Some(outsider) = outsider(situation, policy) {
        return Step::Abort(Refusal::PromotedElsewhere(Arc::clone(&outsider.name)));
    }
    let end = match end_of_old(situation, policy, (old, to)) {
        Ok(end) => end,
        Err(step) => return step,
    };
    match to.frozen.map(|frozen| frozen.at).or(to.as_standby().map(|(received, _, _)| received)) {
        Some(held) if held >= end => {}
        // It was frozen before it had the tail, by a process that was restarted.
        Some(_) if to.frozen.is_some() => {
            return Step::Do(Why::Tail(Arc::clone(&to.name)), vec![Act::Unfreeze(to.id)]);
        }
        Some(_) => return Step::Wait(Why::Tail(Arc::clone(&to.name))),
        None => return Step::Abort(Refusal::NotAStandby(Arc::clone(&to.name))),
    }
    let behind = behind(situation, policy, Some(&to.name));
    let catching = behind.map(|behind| behind.server.id);
    // Of others' sets nobody is touched.
    let others = standbys(situation).filter(|server| server.id != old.id);
    let mut acts = freeze(others.filter(|server| Some(server.id) != catching));
    if let Some(behind) = behind {
        acts.push(Act::Repoint { server: to.id, to: behind.source.id });
        return Step::Do(behind.catching_up(), acts);
    }
    if !acts.is_empty() {
        return Step::Do(Why::Freezing, acts);
    }
    // As a standby it acknowledges nothing; fenced by settings alone, it might be freed again.
    if let Err(Why::NotRevoked { frozen, needed, .. }) = revocation(situation, None)
        && old.as_standby().is_none()
    {
        return Step::Abort(Refusal::TooFewStandbys { reached: frozen, needed });
    }
    // Nobody was busy, and it holds the fenced primary's log to its end: nothing is lost.
    match choose(situation, Some(&to.name), MaxLoss::Any, None) {
        Chosen::Server { server, at, .. } if at >= end => {
            Step::Choose(Choice { server, at, loss: Loss::None })
        }
        Chosen::Server { .. } | Chosen::Nobody(_) => Step::Abort(Refusal::NoCandidate),
    }
}

/// Where the log of the old primary ends, once nobody can write there.
fn end_of_old(
    situation: &Situation<'_>,
    policy: &Policy,
    (old, to): (&ServerView, &ServerView),
) -> Result<Lsn, Step> {
    let gone_for = match &old.sight {
        // What answers in its place is another.
        _ if verdict(situation, policy) == Verdict::Stranger => {
            return Err(Step::Abort(Refusal::LostInBetween));
        }
        Sight::Answers(seen) => match seen.role {
            // It restarted as a standby: what it replayed is all there is.
            Standing::Standby { received, replayed, .. } => return Ok(received.max(replayed)),
            Standing::Primary { .. } => None,
        },
        Sight::Missing(missing) => Some(situation.now.since(missing.since)),
        Sight::Awaited => Some(Duration::ZERO),
    };
    let restarts = policy.demotion == Demotion::CrashRestart
        && gone_for.is_some_and(|gone| gone < DEMOTION_MAX);
    let Some(fenced) = old.fenced else {
        return Err(match gone_for {
            None => Step::Do(Why::Handing, vec![Act::Fence(old.id)]),
            // A process before this one may have told it to.
            Some(_) if restarts => Step::Wait(Why::Handing),
            Some(_) => Step::Abort(Refusal::LostInBetween),
        });
    };
    if fenced.foreign > 0 {
        return Err(Step::Abort(Refusal::ForeignWriters(fenced.foreign)));
    }
    match (policy.demotion, gone_for) {
        (Demotion::CrashRestart, None) => {
            let demote = Act::Demote { server: old.id, to: to.id };
            Err(Step::Do(Why::Handing, vec![demote]))
        }
        // It is away for a moment while it restarts.
        (Demotion::CrashRestart, Some(_)) if restarts => Err(Step::Wait(Why::Handing)),
        (Demotion::Fence, _) | (Demotion::CrashRestart, Some(_)) => Ok(fenced.end),
    }
}

/// Back to the old primary: as it was, or promoted again if it is a standby by now. Where another
/// tool has promoted one meanwhile, nobody is promoted beside it: it may take the place, which is
/// vacant as long as the old one is a standby. One that lacks what the old one wrote does not get
/// it so: the old one is chosen, and promoted once the other is stopped.
fn undo(situation: &Situation<'_>, policy: &Policy, refusal: Refusal) -> Decision {
    let elsewhere = outsider(situation, policy);
    let refusal = elsewhere.map_or(refusal, |it| Refusal::PromotedElsewhere(Arc::clone(&it.name)));
    let (Some(old), Some(operation)) = (situation.primary(), situation.record.operation()) else {
        return abort(situation, policy, refusal);
    };
    if elsewhere.is_some_and(|it| it.answer().is_none()) {
        // It shows soon what it holds, or that it is stopped.
        return Decision::wait(Why::Aborting(refusal));
    }
    let gives_way = elsewhere.is_some_and(|it| has_all(situation, it, old));
    let phase = match old.as_standby() {
        Some((received, replayed, _))
            if !gives_way && verdict(situation, policy) == Verdict::Demoted =>
        {
            let server = Arc::clone(&old.name);
            let at = received.max(replayed);
            let operation = Operation { to: Some(Arc::clone(&server)), ..operation.clone() };
            Phase::Promoting(operation, Choice { server, at, loss: Loss::None })
        }
        Some(_) | None if operation.to.is_none() => {
            return if !gives_way && may_come_back(situation, policy, old) {
                Decision::wait(Why::Aborting(refusal))
            } else {
                abort(situation, policy, refusal)
            };
        }
        Some(_) | None => Phase::Draining(Operation { to: None, ..operation.clone() }),
    };
    let record = situation.record.in_phase(phase);
    let acts = vec![Act::Write(Box::new(record)), Act::Answer(Err(refusal.clone()))];
    Decision::act(Why::Aborting(refusal), acts)
}

/// Whether one that another tool promoted is known to hold all that the old primary wrote.
fn has_all(situation: &Situation<'_>, outsider: &ServerView, old: &ServerView) -> bool {
    let timeline = outsider.as_primary().and_then(|(timeline, _)| timeline);
    let left = timeline.and_then(|timeline| situation.left_at(outsider, timeline));
    // As a standby it has not replayed to its end yet, maybe.
    let replayed = old.as_standby().map(|(_, replayed, _)| replayed);
    let end = replayed.max(old.fenced.map(|fenced| fenced.end));
    left.zip(end).is_some_and(|(left, end)| left >= end)
}

/// Whether the old primary may be on its way back as a standby. That it was told to be one may not
/// be known any more, and an answer of before does not tell either.
fn may_come_back(situation: &Situation<'_>, policy: &Policy, old: &ServerView) -> bool {
    let may = match old.sight {
        Sight::Answers(seen) => {
            old.fenced.is_none() && old.failed.is_some_and(|failed| seen.at <= failed)
        }
        Sight::Missing(missing) => {
            // Nobody is there who could come back by himself, and `auto` knows what to do.
            let dead = policy.mode == Mode::Auto && verdict(situation, policy) == Verdict::Dead;
            situation.now.since(missing.since) < RETURN_MAX && !dead
        }
        Sight::Awaited => false,
    };
    may && policy.demotion == Demotion::CrashRestart
}
