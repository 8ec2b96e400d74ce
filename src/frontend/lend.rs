//! `EXECUTE name` of SQL, where the name was prepared by the protocol. To a server these are the
//! same names. A pooled backend knows the client's by none of its own, so for as long as its
//! transaction lasts it is lent the statement under the client's.

use crate::frontend::attached::Segment;
use crate::frontend::cancel::Cancelled;
use crate::frontend::lost::Loss;
use crate::frontend::own;
use crate::frontend::seat::CutOff;
use crate::frontend::serve::Stop;
use crate::frontend::settle::Usable;
use crate::frontend::state::Serving;
use crate::session::Prepared;
use crate::sql::Touches;
use crate::wire::frame::TxStatus;
use std::sync::Arc;

impl Serving {
    /// Whether the present group executes by SQL what was prepared by the protocol.
    pub(super) fn must_lend(&self) -> bool {
        !self.session.names.is_empty() && self.executed().next().is_some()
    }

    /// The statements of the protocol that the present group executes by SQL, by their names.
    fn executed(&self) -> impl Iterator<Item = (&[u8], &Arc<Prepared>)> {
        let names = self.session.mentioned.iter().flatten().flat_map(|facts| facts.prepared());
        names.filter(|(touches, _)| *touches == Touches::Runs).filter_map(|(_, name)| {
            self.session.names.get(name).map(|statement| (&**name, statement))
        })
    }

    /// Lends them to the backend in hand. What can't be prepared any more is not there, and the
    /// client is told so.
    pub(super) async fn lend(&mut self) -> Result<Usable, Stop> {
        let wanted: Vec<(Box<[u8]>, Arc<Prepared>)> =
            self.executed().map(|(name, statement)| (name.into(), Arc::clone(statement))).collect();
        for (name, statement) in wanted {
            let thread = self.session.seat.thread();
            let Some(attached) = self.attached.as_deref_mut() else { break };
            let can = attached.status != TxStatus::Failed && attached.segment == Segment::Closed;
            if !can || !attached.exchange.replies.is_settled() {
                break;
            }
            let reported = &mut self.client.reported;
            let lending = own::lend(&mut attached.checkout, (&name, &statement), reported);
            let loss = match thread.unless_cut(lending).await {
                Ok(Ok(answer)) => {
                    self.client.out().extend_from_slice(&answer.for_client);
                    attached.strays.push((name, None));
                    continue;
                }
                Ok(Err(own::Unanswered)) => Loss::Broken(None),
                Err(CutOff) => Loss::Replaced,
            };
            return self.lost_before_sending(loss).await;
        }
        Ok(match self.session.cancel.cancelled() {
            Cancelled::No => Usable::Yes,
            Cancelled::Yes => Usable::Cancelled,
        })
    }
}
