//! Operators' questions and orders.
//!
//! One order is carried out here: to take a server as it is that another tool promoted beside a
//! primary that went on, and that is gone now. Nothing is promoted for that; what it lacks is lost,
//! and an operator says that it may be.

use crate::control::conductor::Conductor;
use crate::control::steward::Ask;
use crate::failover::{Checkpoint, Loss, MaxLoss, Order, Preview, Refusal, preview};
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
                let busy = self.order.is_some() && order != Order::Abort;
                if busy || self.record.is_none() {
                    reply.send(Err(Refusal::Busy)).unwrap_or_default();
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

    /// The order was to have a server lead that leads now, without our doing.
    pub(super) fn finish_if_taken(&mut self) {
        let Some((Order::Failover { to: Some(name), .. }, _)) = &self.order else { return };
        if self.record.as_ref().is_some_and(|(record, _)| record.primary.server == *name) {
            self.finish(Ok(()));
        }
    }
}
