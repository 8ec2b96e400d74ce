//! `EXECUTE name` of SQL, where the name was prepared by the protocol. To a server these are the
//! same names. A pooled backend knows the client's by none of its own, so for as long as its
//! transaction lasts it is lent the statement under the client's.

use crate::frontend::attached::{Attached, Deallocated, Segment};
use crate::frontend::own;
use crate::frontend::serve::Stop;
use crate::frontend::settle::Usable;
use crate::frontend::state::Serving;
use crate::session::Prepared;
use crate::sql::Touches;
use crate::wire::frame::TxStatus;
use std::collections::HashSet;
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
            let lent = thread.unless_cut(lending).await;
            attached.strays.push((name, None));
            let usable = self.after_own(lent.map(|lent| Ok(lent?.for_client))).await?;
            if usable != Usable::Yes {
                return Ok(usable);
            }
        }
        Ok(Usable::Yes)
    }

    /// Finds out which names an open transaction has taken away in which something has failed: they
    /// count as taken away, and perhaps they were not.
    pub(super) async fn regain_names(&mut self) -> Result<Usable, Stop> {
        let Some(mut attached) = self.attached.take() else { return Ok(Usable::Yes) };
        let thread = self.session.seat.thread();
        let regaining = self.take_back(&mut attached);
        let regained = thread.unless_cut(regaining).await;
        self.attached = Some(attached);
        self.after_own(regained.map(|regained| regained.map(|()| Vec::new()))).await
    }

    /// Takes the client's names off the backend that it was given for a while. One that the client
    /// has given by SQL meanwhile is its own; one that it was to take away and did not, for that
    /// failed, means what it meant.
    ///
    /// Names are told by their bytes: we know no letters but those of UTF-8.
    pub(super) async fn take_back(
        &mut self,
        attached: &mut Attached,
    ) -> Result<(), own::Unanswered> {
        const THERE: &str = "SELECT pg_catalog.encode(pg_catalog.convert_to(name, \
             pg_catalog.pg_client_encoding()), 'hex') \
             FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql";
        let strays = std::mem::take(&mut attached.strays);
        attached.deallocated = Deallocated::AsTold;
        let conn = &mut *attached.checkout;
        let reported = &mut self.client.reported;
        let there = match attached.status {
            TxStatus::Idle => own::run_unhurried(conn, THERE, reported).await?,
            TxStatus::Open | TxStatus::Failed => own::run(conn, THERE, reported).await?,
        };
        if there.error.is_some() {
            return Err(own::Unanswered);
        }
        self.client.out().extend_from_slice(&there.for_client);
        let there: HashSet<_> = there.rows.into_iter().flatten().flatten().collect();
        for (name, before) in strays {
            if !there.contains(&hex(&name)) {
                continue;
            }
            let closed = own::close(conn, &name, &mut self.client.reported).await?;
            self.client.out().extend_from_slice(&closed.for_client);
            if let Some(before) = before
                && self.session.names.get(&name).is_none()
            {
                self.session.names.insert(&name, before);
            }
        }
        Ok(())
    }
}

/// As the server writes it.
fn hex(bytes: &[u8]) -> String {
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    halves.filter_map(|half| char::from_digit(half.into(), 16)).collect()
}
