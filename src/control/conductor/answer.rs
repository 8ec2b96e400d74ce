//! Operators' questions and orders.
//!
//! One order is carried out here: to take a server as it is that another tool promoted beside a
//! primary that went on, and that is gone now. Nothing is promoted for that; what it lacks is lost,
//! and an operator says that it may be.

use crate::control::conductor::Conductor;
use crate::control::steward::Ask;
use crate::failover::{Checkpoint, Loss, MaxLoss, Order, Phase, Preview, Refusal, preview};
use crate::topology::ServerId;

impl Conductor {
    /// Answers an operator, or remembers his order.
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Preview(order, reply) => {
                let record = self.record.as_ref().map(|(record, _)| record.clone());
                let told = record.map(|record| {
                    let views = self.views(&record);
                    let arming = self.arming(&record, &views);
                    let policy = self.parts.policy.load();
                    let obstacle = self.parts.hands.obstacle(&policy, &record.primary.server);
                    let means = (&arming, obstacle.as_ref());
                    let told = preview(&self.situation(&record, &views, means), &order, &policy);
                    self.as_it_is(&order, told)
                });
                // Whoever asked may have given up.
                reply.send(told).unwrap_or_default();
            }
            Ask::Carry(order, reply) => {
                let waiting = self.order.as_ref().map(|(waiting, _)| waiting);
                let phase = self.record.as_ref().map(|(record, _)| &record.phase);
                if let Err(refusal) = fits((&order, waiting), phase) {
                    reply.send(Err(refusal)).unwrap_or_default();
                    return;
                }
                if let Some(server) = self.taken_as_it_is(&order) {
                    self.parts.desk.consent(server);
                }
                let abort = order == Order::Abort;
                self.checkpoint = Checkpoint::Wanted;
                if let Some((_, earlier)) = self.order.replace((order, reply)) {
                    earlier.send(Err(Refusal::CalledOff)).unwrap_or_default();
                    // It had not begun: that was all that there was to call off.
                    if abort && !self.is_changing() {
                        self.finish(Ok(()));
                    }
                }
            }
        }
    }

    /// The server that this order takes as it is.
    fn taken_as_it_is(&self, order: &Order) -> Option<ServerId> {
        let Order::Failover { to: Some(name), accept: MaxLoss::Any } = order else {
            return None;
        };
        let at = self.parts.names.iter().position(|known| known == name)?;
        let server = u16::try_from(at).ok().map(ServerId)?;
        self.parts.desk.read(|fold| fold.lacks_consent(server)).then_some(server)
    }

    /// What such an order would do now; any other is told as it is.
    fn as_it_is(&self, order: &Order, told: Preview) -> Preview {
        let Some(server) = self.taken_as_it_is(order) else { return told };
        let to = self.parts.names.get(server.index()).cloned();
        Preview { to, loss: Loss::Unknown { at_least: 0 }, refusal: None, ..told }
    }

    /// The order is done with.
    pub(super) fn finish(&mut self, answer: Result<(), Refusal>) {
        if let Some((order, reply)) = self.order.take() {
            // Whoever calls something off has what he wants.
            let done = order == Order::Abort && answer == Err(Refusal::CalledOff);
            reply.send(if done { Ok(()) } else { answer }).unwrap_or_default();
        }
    }

    /// The order was to have a server lead that leads now, without our doing.
    pub(super) fn finish_if_taken(&mut self) {
        let Some((Order::Failover { to: Some(name), .. }, _)) = &self.order else { return };
        if self.record.as_ref().is_some_and(|(record, _)| record.primary.server == *name) {
            self.finish(Ok(()));
        }
    }
}

/// Whether an order can take the place of the one that waits, if one does. Once a server was chosen
/// nothing is called off: the one that waits is answered when that has come to its end.
fn fits((order, waiting): (&Order, Option<&Order>), phase: Option<&Phase>) -> Result<(), Refusal> {
    let Some(phase) = phase else { return Err(Refusal::Busy) };
    let chosen = matches!(phase, Phase::Promoting(..));
    match order {
        Order::Abort if chosen => Err(Refusal::TooLate),
        Order::Failover { .. } | Order::Switchover { .. } if waiting.is_some() => {
            Err(Refusal::Busy)
        }
        Order::Abort | Order::Failover { .. } | Order::Switchover { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::{By, Choice, Kind, Operation};
    use crate::pg::Lsn;

    /// Whoever gave the first order is told of its end, and not that it was called off.
    #[test]
    fn an_order_is_called_off_only_while_it_can_be() {
        let none = MaxLoss::Bytes(0);
        let (kind, by) = (Kind::Switchover, By::Operator);
        let operation = Operation { kind, by, to: None, accepted: none, word: none, began: 0 };
        let choice = Choice { server: "b".into(), at: Lsn(1), loss: Loss::None };
        let switchover = Order::Switchover { to: None };
        let failover = Order::Failover { to: None, accept: none };
        let phases = [
            (Phase::Stable, Ok(())),
            (Phase::Draining(operation.clone()), Ok(())),
            (Phase::Revoking(operation.clone()), Ok(())),
            (Phase::Promoting(operation, choice), Err(Refusal::TooLate)),
        ];
        for (phase, abort) in phases {
            for waiting in [None, Some(&switchover), Some(&failover)] {
                assert_eq!(fits((&Order::Abort, waiting), Some(&phase)), abort, "{phase:?}");
                let free = if waiting.is_none() { Ok(()) } else { Err(Refusal::Busy) };
                assert_eq!(fits((&switchover, waiting), Some(&phase)), free, "{phase:?}");
                assert_eq!(fits((&failover, waiting), Some(&phase)), free, "{phase:?}");
            }
        }
        assert_eq!(fits((&Order::Abort, None), None), Err(Refusal::Busy), "nothing is recorded");
    }
}
