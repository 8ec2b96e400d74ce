//! What is put in order while the primary is well: nothing here is urgent, and nothing here
//! changes who the primary is.

use crate::failover::choose::standbys;
use crate::failover::promote::can_follow;
use crate::failover::{
    Act, Appointed, Astray, By, Change, CutOff, Decision, Demotable, Mode, Policy, Promise,
    Receiver, Record, Rejoin, ServerView, Situation, WeakPromise, Why,
};
use crate::pg::Timeline;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Puts in order what is out of it.
pub(super) fn in_order(situation: &Situation<'_>, policy: &Policy) -> Decision {
    let step = promise(situation);
    let mut why = if step.is_some() { Why::PromiseChanged } else { Why::AllWell };
    // What can't be written holds up nothing else: it comes last.
    let (mut acts, promise) = match step {
        Some(Step::Record(promise)) => (Vec::new(), Some(promise)),
        Some(Step::Prove(act)) => (vec![act], None),
        None => (Vec::new(), None),
    };
    let write = promise.map(|promise| Record { promise, ..situation.record.clone() });
    let write = completed(situation).or(write).map(|record| Act::Write(Box::new(record)));
    if policy.mode == Mode::Off {
        acts.extend(write);
        return Decision::act(why, acts);
    }
    // Whoever is missing may be the very one who is to confirm the proof.
    let repairs: Vec<_> = repairs(situation, policy).collect();
    let fences: Vec<_> = returned(situation, policy).collect();
    if !repairs.is_empty() {
        why = Why::Repairing(astray(situation, &repairs));
    }
    let cut_off: Vec<_> = cut_off(situation, &repairs).collect();
    if !cut_off.is_empty() {
        why = Why::CuttingOff(cut_off);
    }
    if !fences.is_empty() {
        why = Why::Fencing;
    }
    acts.extend(fences);
    acts.extend(repairs);
    acts.extend(write);
    Decision::act(why, acts)
}

/// The record with where the primary's branch began, which is known by its history alone: once the
/// primary is away, the record must tell those on that branch from those on another of its number.
fn completed(situation: &Situation<'_>) -> Option<Record> {
    let record = situation.record;
    let recorded = &record.primary;
    let primary = situation.primary().filter(|_| recorded.fork.is_none())?;
    let ours = primary.answer()?.system == recorded.system;
    let (timeline, _) = primary.as_primary().filter(|_| ours)?;
    let history = primary.history.as_ref()?;
    let current = timeline == Some(recorded.timeline) && history.current() == timeline;
    let fork = history.forks().last().filter(|_| current)?.at;
    let primary = Appointed { fork: Some(fork), ..recorded.clone() };
    Some(Record { primary, ..record.clone() })
}

/// Who is to follow the primary by these acts, and does not yet.
fn astray(situation: &Situation<'_>, repairs: &[Act]) -> Vec<Astray> {
    let sent = |server: &&ServerView| {
        repairs.iter().any(|act| matches!(act, Act::Repoint { server: id, .. } if *id == server.id))
    };
    let astray = |server: &ServerView| Astray {
        server: Arc::clone(&server.name),
        trouble: server.catching.as_ref().and_then(|told| told.trouble.clone()),
    };
    situation.servers.iter().filter(sent).map(astray).collect()
}

/// Who is cut off by these acts.
fn cut_off<'a>(
    situation: &'a Situation<'_>,
    repairs: &'a [Act],
) -> impl Iterator<Item = Arc<str>> + 'a {
    let cut = |server: &&ServerView| repairs.contains(&Act::Freeze(server.id));
    situation.servers.iter().filter(cut).map(|server| Arc::clone(&server.name))
}

fn repairs<'a>(situation: &'a Situation<'_>, policy: &'a Policy) -> impl Iterator<Item = Act> + 'a {
    let primary = situation.primary();
    let unfenced = primary.filter(|p| p.fenced.is_some()).map(|p| Act::Unfence(p.id));
    let followed = primary.into_iter().flat_map(move |primary| {
        let others = standbys(situation).filter(|server| server.id != primary.id);
        others.filter_map(move |server| lost_standby(situation, policy, (server, primary)))
    });
    unfenced.into_iter().chain(followed)
}

/// What is to be done about a promise that changed.
enum Step {
    Prove(Act),
    Record(Promise),
}

/// The record always demands at least what the primary may be using: as long as it does, a new
/// promise is recorded once a commit proved it. As soon as it does not, none is counted on.
fn promise(situation: &Situation<'_>) -> Option<Step> {
    let (seen, since) = situation.promise?;
    let recorded = &situation.record.promise;
    if seen == recorded {
        return None;
    }
    if matches!(seen, Promise::Asynchronous(_)) {
        return Some(Step::Record(seen.clone()));
    }
    if !still_covers(recorded, seen) {
        return Some(Step::Record(Promise::Asynchronous(WeakPromise::NotSeen)));
    }
    if situation.proved.is_some_and(|proved| proved >= since) {
        return Some(Step::Record(seen.clone()));
    }
    // Fenced, it confirms nothing.
    let primary = situation.primary().filter(|primary| primary.fenced.is_none())?;
    Some(Step::Prove(Act::Prove(primary.id)))
}

/// Whether freezing what the recorded promise demands leaves too few to confirm a commit as it
/// is promised now.
fn still_covers(recorded: &Promise, seen: &Promise) -> bool {
    let (Promise::Quorum { cohort, .. }, Promise::Quorum { w, cohort: now }) = (recorded, seen)
    else {
        // Nothing is counted on already.
        return true;
    };
    let strangers = |of: &BTreeSet<Arc<str>>, to: &BTreeSet<Arc<str>>| of.difference(to).count();
    let needed = recorded.revocation().unwrap_or(0);
    let frozen = needed.saturating_sub(strangers(cohort, now));
    now.len().saturating_sub(frozen) < usize::from(*w)
}

/// What keeps former primaries from taking writes; the recorded one is not among them.
pub(super) fn former_primaries<'a>(situation: &'a Situation<'_>) -> impl Iterator<Item = Act> + 'a {
    situation.others().filter_map(|server| former_primary(situation, server))
}

/// Former primaries that are back: made to follow at once, where that can be done to them and they
/// hold nothing that the primary has not; else fenced. A fence would write to their log, and within
/// seconds so does any primary of itself: only what is done at once saves them from a rewind.
fn returned<'a>(situation: &'a Situation<'_>, policy: &Policy) -> impl Iterator<Item = Act> + 'a {
    let to = situation.primary().filter(|_| policy.rejoin == Rejoin::Restart);
    situation.others().filter_map(move |server| {
        let fence = former_primary(situation, server)?;
        let (Some(to), (timeline, flushed)) = (to, server.as_primary()?) else {
            return Some(fence);
        };
        let fork = timeline.zip(to.history.as_ref()).and_then(|(own, known)| known.end_of(own));
        let own = timeline.is_some_and(|timeline| led(situation.record, server, timeline));
        let can = server.tags.demotable == Demotable::Perhaps;
        if can && own && fork.is_some_and(|fork| flushed <= fork) {
            return Some(Act::Demote { server: server.id, to: to.id });
        }
        Some(fence)
    })
}

/// Whether that branch is the one that this server was the recorded primary of. One that was chosen
/// and lost may have been promoted later, to a branch of its own that has the number of another.
fn led(record: &Record, server: &ServerView, timeline: Timeline) -> bool {
    let changes = &record.changes;
    let made = changes.iter().any(|made| made.timeline == timeline && made.to == server.name);
    let began = changes.first().is_some_and(|first| {
        first.from.as_ref() == Some(&server.name) && timeline < first.timeline
    });
    made || began
}

/// A server that still takes itself for the primary on a branch that was left by our doing, or
/// that was chosen once and lost; what another tool changed, it puts in order itself.
fn former_primary(situation: &Situation<'_>, server: &ServerView) -> Option<Act> {
    let (timeline, _) = server.as_primary()?;
    let last = situation.record.changes.last().filter(|change| change.by != By::Outside)?;
    let answer = server.answer()?;
    let ours = answer.system == situation.record.primary.system;
    let older = timeline.is_some_and(|timeline| timeline <= situation.record.primary.timeline);
    let former = older || last.from.as_ref() == Some(&server.name);
    (ours && former && server.fenced.is_none()).then_some(Act::Fence(server.id))
}

/// A standby that does not follow the primary, and can. One on a branch of its own with the same
/// number never will, and what it says that it has received confirms commits: it is cut off.
fn lost_standby(
    situation: &Situation<'_>,
    policy: &Policy,
    (server, primary): (&ServerView, &ServerView),
) -> Option<Act> {
    if situation.is_astray(server) {
        return server.frozen.is_none().then_some(Act::Freeze(server.id));
    }
    if server.frozen.is_none()
        && (stays(situation, server, primary) || !is_ours(situation, policy, server))
    {
        return None;
    }
    let current = situation.record.primary.timeline;
    let timeline = server.frozen.map(|frozen| frozen.timeline).or(server.answer()?.timeline)?;
    let history = primary.history.as_ref();
    let follows =
        timeline == current || history.is_some_and(|history| can_follow(server, current, history));
    follows.then_some(Act::Repoint { server: server.id, to: primary.id })
}

/// Whether its upstream is what it should be, as far as can be seen.
fn stays(situation: &Situation<'_>, server: &ServerView, primary: &ServerView) -> bool {
    let Some((_, _, receiver)) = server.as_standby() else { return true };
    match receiver {
        Receiver::Idle => false,
        Receiver::Streams { from: Some(from), .. } if from != primary.id => {
            // Behind another standby it is as good as behind the primary, unless its word counts
            // for the quorum.
            let relayed = standbys(situation).any(|other| other.id == from);
            let seen = situation.promise.is_some_and(|(seen, _)| seen.counts(&server.name));
            relayed && !seen && !situation.record.promise.counts(&server.name)
        }
        Receiver::Streams { .. } | Receiver::Hidden => true,
    }
}

/// Whether its upstream is our business: in `manual` only where it may be our doing that it hears
/// from nobody. A change of ours left it behind, or dropped it; or an attempt that was called off
/// since froze it, and it did not answer when the others were freed. That it was frozen is noted,
/// and known also where another tool has changed the primary since.
fn is_ours(situation: &Situation<'_>, policy: &Policy, server: &ServerView) -> bool {
    match policy.mode {
        Mode::Off => false,
        Mode::Auto => true,
        Mode::Manual => {
            let record = situation.record;
            let seen = server.answer().and_then(|answer| answer.timeline);
            let left = seen.is_some_and(|timeline| timeline < record.primary.timeline);
            let last = record.changes.last().filter(|change| change.by != By::Outside);
            let dropped = |last: &Change| last.from.as_ref() == Some(&server.name);
            record.epoch > record.primary.epoch
                || last.is_some_and(|last| left || dropped(last))
                || server.tags.cut_off == CutOff::ByUs
        }
    }
}
