//! What an order would do, told before it is given.

use crate::failover::{
    Kind, Loss, Order, Policy, Refusal, ServerView, Situation, Verdict, planned, verdict,
};
use crate::pg::Lsn;
use std::cmp::Reverse;
use std::sync::Arc;

/// What an order would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Planned or not.
    pub kind: Kind,
    /// What the evidence says of the primary.
    pub verdict: Verdict,
    /// Who is the primary now.
    pub from: Arc<str>,
    /// Who would be, as far as can be told before the standbys are frozen.
    pub to: Option<Arc<str>>,
    /// What would be lost with him.
    pub loss: Loss,
    /// Sessions with work under way on the primary.
    pub busy: usize,
    /// What speaks against it.
    pub refusal: Option<Refusal>,
}

/// Tells what `order` would do now.
#[must_use]
pub fn preview(situation: &Situation<'_>, order: &Order, policy: &Policy) -> Preview {
    let verdict = verdict(situation, policy);
    let base = |kind| Preview {
        kind,
        verdict,
        from: Arc::clone(&situation.record.primary.server),
        to: None,
        loss: Loss::None,
        busy: situation.gate.busy,
        refusal: None,
    };
    match order {
        Order::Switchover { to } => {
            let refusal = (verdict != Verdict::Lives).then_some(Refusal::PrimaryLost);
            match planned::fit(situation, to.as_ref()) {
                Ok(server) => Preview {
                    to: Some(Arc::clone(&server.name)),
                    refusal,
                    ..base(Kind::Switchover)
                },
                Err(unfit) => {
                    Preview { refusal: refusal.or(Some(unfit)), ..base(Kind::Switchover) }
                }
            }
        }
        Order::Failover { to, .. } => {
            let refusal = (verdict == Verdict::Lives).then_some(Refusal::PrimaryLives);
            failover(situation, to.as_ref(), base(Kind::Failover)).refused(refusal)
        }
        Order::Abort => base(Kind::Failover).refused(Some(Refusal::Idle)),
    }
}

fn failover(situation: &Situation<'_>, to: Option<&Arc<str>>, base: Preview) -> Preview {
    let held = |server: &ServerView| {
        let (received, replayed, _) = server.as_standby()?;
        Some(received.max(replayed))
    };
    let best = situation
        .others()
        .filter(|server| server.tags.may_lead() && to.is_none_or(|to| *to == server.name))
        .filter_map(|server| held(server).map(|at| (server, at)))
        .max_by_key(|(server, at)| (*at, server.tags.priority, Reverse(server.id)));
    let Some((server, at)) = best else {
        let refusal = match to {
            Some(name) => Refusal::NotAStandby(Arc::clone(name)),
            None => Refusal::NoCandidate,
        };
        return Preview { loss: Loss::Unknown { at_least: 0 }, ..base }.refused(Some(refusal));
    };
    let loss = expected_loss(situation, at);
    Preview { to: Some(Arc::clone(&server.name)), loss, ..base }
}

/// What would be lost, if every standby that answers now can be frozen.
fn expected_loss(situation: &Situation<'_>, at: Lsn) -> Loss {
    let promise = &situation.record.promise;
    let answers = situation.others().filter(|server| server.as_standby().is_some());
    let reached = answers.filter(|server| promise.counts(&server.name)).count();
    match promise.revocation() {
        Some(needed) if reached >= needed => Loss::None,
        Some(_) | None => Loss::of(situation.acknowledged, at),
    }
}

impl Preview {
    /// The same, refused, unless it was refused already.
    fn refused(mut self, refusal: Option<Refusal>) -> Self {
        self.refusal = self.refusal.or(refusal);
        self
    }
}
