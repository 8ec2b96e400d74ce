//! What is put in order while the primary is well: nothing here is urgent, and nothing here
//! changes who the primary is.

use crate::failover::{
    Act, By, Decision, Mode, Policy, Promise, Receiver, Record, ServerView, Situation, Why,
};
use crate::topology::ServerId;

/// Puts in order what is out of it.
pub(super) fn in_order(situation: &Situation<'_>, policy: &Policy) -> Decision {
    if let Some(decision) = promise(situation) {
        return decision;
    }
    if policy.mode == Mode::Off {
        return Decision::wait(Why::AllWell);
    }
    let fences: Vec<_> =
        situation.others().filter_map(|server| former_primary(situation, server)).collect();
    if !fences.is_empty() {
        return Decision::act(Why::Fencing, fences);
    }
    let primary = situation.primary();
    let unfence = primary.filter(|p| p.fenced.is_some()).map(|p| Act::Unfence(p.id));
    let repairs: Vec<_> = primary
        .into_iter()
        .flat_map(|primary| {
            situation
                .others()
                .filter_map(move |server| lost_standby(situation, policy, server, primary.id))
        })
        .chain(unfence)
        .collect();
    if repairs.is_empty() {
        Decision::wait(Why::AllWell)
    } else {
        Decision::act(Why::Repairing, repairs)
    }
}

/// The record always demands at least what the primary may be using: a weaker promise is taken
/// down at once, a stronger one once a commit proved it.
fn promise(situation: &Situation<'_>) -> Option<Decision> {
    let (seen, since) = situation.promise?;
    let recorded = &situation.record.promise;
    if seen == recorded {
        return None;
    }
    let weaker = matches!(seen, Promise::Asynchronous(_));
    if !weaker && situation.proved.is_none_or(|proved| proved < since) {
        let primary = situation.primary()?;
        return Some(Decision::act(Why::PromiseChanged, vec![Act::Prove(primary.id)]));
    }
    let record = Record { promise: seen.clone(), ..situation.record.clone() };
    Some(Decision::act(Why::PromiseChanged, vec![Act::Write(Box::new(record))]))
}

/// A server that still takes itself for the primary on a branch that was left by our doing; what
/// another tool changed, it puts in order itself.
fn former_primary(situation: &Situation<'_>, server: &ServerView) -> Option<Act> {
    let (timeline, _) = server.as_primary()?;
    situation.record.changes.last().filter(|change| change.by != By::Outside)?;
    let answer = server.answer()?;
    let ours = answer.system == situation.record.primary.system;
    let older = timeline.is_some_and(|timeline| timeline < situation.record.primary.timeline);
    (ours && older && server.fenced.is_none()).then_some(Act::Fence(server.id))
}

/// A standby that hears from nobody, and can follow the primary.
fn lost_standby(
    situation: &Situation<'_>,
    policy: &Policy,
    server: &ServerView,
    primary: ServerId,
) -> Option<Act> {
    let (holds, _, receiver) = server.as_standby()?;
    let answer = server.answer()?;
    if answer.system != situation.record.primary.system {
        return None;
    }
    if policy.mode != Mode::Auto && server.frozen.is_none() {
        // Whom it follows is the operator's business.
        return None;
    }
    let stays = match receiver {
        Receiver::Idle => false,
        Receiver::Streams { from, .. } => from.is_none_or(|from| from == primary),
        Receiver::Hidden => true,
    };
    if stays && server.frozen.is_none() {
        return None;
    }
    let current = situation.record.primary.timeline;
    let timeline = answer.timeline?;
    if timeline == current {
        return Some(Act::Repoint { server: server.id, to: primary });
    }
    // It may still follow if it holds nothing beyond the point where its branch was left.
    let history = situation.primary()?.history.as_ref()?;
    let end = history.end_of(timeline)?;
    (holds <= end).then_some(Act::Repoint { server: server.id, to: primary })
}
