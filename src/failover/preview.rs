//! What an order would do, told before it is given.

use crate::failover::choose::{may_be_chosen, standbys};
use crate::failover::decide::{lost, wanted};
use crate::failover::{
    Kind, Loss, Mode, Order, Phase, Policy, Refusal, ServerView, Situation, Verdict, planned,
    verdict,
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
        refusal: (policy.mode == Mode::Off).then_some(Refusal::ModeOff),
    };
    let under_way = situation.record.operation().map(|operation| operation.kind);
    match order {
        Order::Switchover { to } => {
            let refusal = match under_way {
                Some(_) => Some(Refusal::Busy),
                None => (verdict != Verdict::Lives).then_some(Refusal::PrimaryLost),
            };
            let base = base(Kind::Switchover).refused(refusal);
            match planned::fit(situation, policy, to.as_ref()) {
                Ok(server) => Preview { to: Some(Arc::clone(&server.name)), ..base },
                Err(unfit) => base.refused(Some(unfit)),
            }
        }
        Order::Failover { to, .. } => {
            let refusal = match under_way {
                // An order adds its wishes to a failover that waits for them.
                Some(Kind::Failover) | None => lost(situation, verdict).err(),
                Some(Kind::Switchover) => Some(Refusal::Busy),
            };
            let unfit = to.as_ref().and_then(|to| wanted(situation, to).err());
            let base = base(Kind::Failover).refused(refusal).refused(unfit);
            failover(situation, to.as_deref(), base)
        }
        Order::Abort => {
            let refusal = match &situation.record.phase {
                Phase::Stable => Some(Refusal::Idle),
                Phase::Promoting(..) => Some(Refusal::TooLate),
                Phase::Draining(_) | Phase::Revoking(_) => None,
            };
            base(under_way.unwrap_or(Kind::Failover)).refused(refusal)
        }
    }
}

fn failover(situation: &Situation<'_>, to: Option<&str>, base: Preview) -> Preview {
    let held = |server: &ServerView| {
        let (received, replayed, _) = server.as_standby()?;
        Some(received.max(replayed))
    };
    let seen = || standbys(situation).filter_map(|server| held(server).map(|at| (server, at)));
    let best = seen()
        .filter(|(server, _)| may_be_chosen(server, to))
        .max_by_key(|(server, at)| (*at, server.tags.priority, Reverse(server.id)));
    // Whoever is promoted takes over first what another one holds more.
    let farthest = seen().map(|(_, at)| at).max();
    let (Some((server, _)), Some(at)) = (best, farthest) else {
        let refusal = match to {
            Some(name) => Refusal::NotAStandby(Arc::from(name)),
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
    let reached = standbys(situation).filter(|server| promise.counts(&server.name)).count();
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
