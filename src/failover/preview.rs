//! What an order would do, told before it is given.

use crate::failover::choose::{
    Pace, behind, is_on_branch, loss, may_be_chosen, standbys, unfrozen,
};
use crate::failover::decide::{lost, wanted};
use crate::failover::promote::{Under, beside, is_lost, too_late};
use crate::failover::replace::{Instead, claim, instead, why_barred};
use crate::failover::{
    Kind, Loss, MaxLoss, Mode, Order, Phase, Policy, Refusal, ServerView, Situation, Verdict, Why,
    planned, verdict,
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
                Ok(server) => {
                    let obstacle = situation.obstacle.cloned().map(Refusal::Obstacle);
                    Preview { to: Some(Arc::clone(&server.name)), ..base }.refused(obstacle)
                }
                Err(unfit) => base.refused(Some(unfit)),
            }
        }
        Order::Failover { to, accept } => {
            if let Phase::Promoting(operation, choice) = &situation.record.phase {
                let wish = (to, *accept);
                return replacing(
                    situation,
                    policy,
                    (operation, choice),
                    wish,
                    base(Kind::Failover),
                );
            }
            let refusal = match under_way {
                // An order adds its wishes to a failover that waits for them.
                Some(Kind::Failover) | None => lost(situation, policy, verdict).err(),
                Some(Kind::Switchover) => Some(Refusal::Busy),
            };
            let unfit = to.as_ref().and_then(|to| wanted(situation, to).err());
            let base = base(Kind::Failover).refused(refusal).refused(unfit);
            failover(situation, policy, to.as_deref(), base)
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

fn failover(
    situation: &Situation<'_>,
    policy: &Policy,
    to: Option<&str>,
    base: Preview,
) -> Preview {
    let stalled = behind(situation, policy, to).filter(|behind| behind.pace == Pace::Stalled);
    if let Some(behind) = stalled {
        let loss = loss(situation, behind.server, behind.at);
        return Preview { to: Some(Arc::clone(&behind.server.name)), loss, ..base };
    }
    let held = |server: &ServerView| {
        let (received, replayed, _) = server.as_standby()?;
        Some(received.max(replayed))
    };
    let seen = || free(situation).filter_map(|server| held(server).map(|at| (server, at)));
    let best = seen()
        .filter(|(server, _)| may_be_chosen(server, to))
        .max_by_key(|(server, at)| (*at, server.tags.priority, Reverse(server.id)));
    // Whoever is promoted takes over first what another one holds more.
    let farthest = seen().map(|(_, at)| at).max();
    let (Some((server, _)), Some(at)) = (best, farthest) else {
        let loose = unfrozen(situation, to);
        let refusal = match to {
            _ if loose.iter().any(|loose| loose.stuck.is_some()) => {
                Refusal::Waits(Box::new(Why::NoCandidate(loose)))
            }
            Some(name) => Refusal::NotAStandby(Arc::from(name)),
            None => Refusal::NoCandidate,
        };
        return Preview { loss: Loss::Unknown { at_least: 0 }, ..base }.refused(Some(refusal));
    };
    let loss = expected_loss(situation, at);
    Preview { to: Some(Arc::clone(&server.name)), loss, ..base }
}

/// Somebody was chosen already: an order is about who takes his place, if he is lost.
fn replacing(
    situation: &Situation<'_>,
    policy: &Policy,
    under: Under<'_>,
    (to, accept): (&Option<Arc<str>>, MaxLoss),
    base: Preview,
) -> Preview {
    let order = |accept| Order::Failover { to: to.clone(), accept };
    let (given, any) = (order(accept), order(MaxLoss::Any));
    let (_, choice) = under;
    if !is_lost(situation, policy, choice, Some(&given))
        && let Some(outsider) = beside(situation, policy, choice)
    {
        let taken = claim(situation, choice, outsider);
        return match taken.filter(|_| to.as_ref() == Some(&outsider.name)) {
            Some(own) => Preview { to: to.clone(), loss: own.loss, ..base },
            None => base.refused(Some(Refusal::Waits(Box::new(why_barred(choice, outsider))))),
        };
    }
    if !is_lost(situation, policy, choice, Some(&given)) {
        let refusal = too_late(Some(&given), under);
        let to = Some(Arc::clone(&choice.server));
        return Preview { to, loss: choice.loss, ..base }.refused(refusal);
    }
    let by = |order| told(&Situation { order: Some(order), ..situation.clone() }, policy, under);
    // What an order lacks is told, if it is a loss that it does not take.
    let told = by(&given).or_else(|why| match by(&any) {
        Ok((name, loss)) if !accept.or(policy.max_data_loss).allows(loss) => Ok((name, loss)),
        Ok(_) | Err(_) => Err(why),
    });
    match told {
        Ok((name, loss)) => Preview { to: Some(name), loss, ..base },
        Err(why) => base.refused(Some(Refusal::Waits(Box::new(why)))),
    }
}

/// Who would be the primary instead of the chosen one, and what would be lost.
fn told(
    situation: &Situation<'_>,
    policy: &Policy,
    under: Under<'_>,
) -> Result<(Arc<str>, Loss), Why> {
    let (name, loss) = match instead(situation, policy, under)? {
        Instead::Promoted(_, next) => (next.server, next.loss),
        Instead::Back(own) | Instead::Taken(own, _) => (Arc::clone(&own.server.name), own.loss),
    };
    Ok((name, loss))
}

/// The standbys whose log is the primary's, and that are not known not to let themselves be frozen.
fn free<'a>(situation: &'a Situation<'_>) -> impl Iterator<Item = &'a ServerView> {
    let own = |server: &&ServerView| server.stuck.is_none() && is_on_branch(situation, server);
    standbys(situation).filter(own)
}

/// What would be lost, if every standby that answers now, and is not known not to let itself be
/// frozen, can be.
fn expected_loss(situation: &Situation<'_>, at: Lsn) -> Loss {
    let promise = &situation.record.promise;
    let reached = free(situation).filter(|server| promise.counts(&server.name)).count();
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
