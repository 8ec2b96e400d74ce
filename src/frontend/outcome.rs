//! What the session makes of what happened to its backend: ready, withdrawn, lost.
//!
//! The question that everything here turns on: can the statement have been executed? Only where
//! it provably was not, or provably did nothing, is it sent again.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::abandon;
use crate::frontend::attached::{Attached, Proven, Relies, Segment, Sent, ShownData, Standing};
use crate::frontend::exchange::{Completed, Erred, Event, Reopened, Shown};
use crate::frontend::local;
use crate::frontend::overdue::rest_in;
use crate::frontend::plan::PureRead;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::state::{Afresh, NeedsPrimary, Retry, Serving, bit};
use crate::metrics::{ClientState, TransactionOutcome};
use crate::pg::SqlState;
use crate::route::Consistency;
use crate::session::{Executes, Undo};
use crate::wire::frame::TxStatus;

/// How often one group is sent: a read that five servers fail is not the servers' fault.
const TRIES_MAX: u32 = 5;
/// From this try on, the client is shown what comes of it.
pub(super) const TRIES_SHOWN: u32 = 2 * TRIES_MAX;

impl Serving {
    /// Deals with what the exchange stopped for.
    pub(super) async fn on_event(&mut self, event: Event) -> Result<(), Stop> {
        self.undo();
        self.go_on();
        match event {
            Event::ClientBytes => self.settle_if_free(clock::now()).await,
            Event::Ready(status) => self.on_ready(status).await,
            Event::Unconfirmed(status) => Box::pin(self.on_unconfirmed(status)).await,
            Event::Withdrawn(code, status) => Box::pin(self.on_withdrawn(code, status)).await,
            Event::ServerGone(loss) => Box::pin(self.on_server_gone(loss)).await,
            Event::OutOfStep => {
                self.attached = None;
                Err(Stop::from(No::OutOfStep))
            }
            Event::ClientEnded => self.on_client_ended(),
            Event::ClientGone => {
                self.abandon_read();
                Err(Stop::Gone)
            }
        }
    }

    /// The server is done with a group.
    pub(super) async fn on_ready(&mut self, status: TxStatus) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        attached.status = status;
        let now = attached.exchange.answered.take().unwrap_or_else(clock::now);
        self.session.presence.turn(match status {
            TxStatus::Idle => ClientState::Idle,
            TxStatus::Open | TxStatus::Failed => ClientState::InTransaction,
        });
        self.session.seat.turn(rest_in(status), now);
        if let Some(sent) = attached.sent.take() {
            self.client.take(sent.kept);
            if self.session.withheld.is_some() {
                self.session.settle_withheld(&sent, attached.exchange.erred);
            }
            let took = now.since(sent.since);
            let statements = &self.client.shard.shared.metrics.statements;
            statements.answered(attached.standing.served_by(), sent.kind, took);
            statements.served(attached.server, now.since(sent.at));
            if let Some(outcome) = ending(&sent, status, attached.exchange.erred) {
                statements.ended(attached.server, outcome);
            }
        }
        attached.settle_runs();
        attached.exchange.erred = Erred::No;
        attached.exchange.overdue = None;
        self.retry = None;
        if status == TxStatus::Idle {
            local::end_transaction(&mut self.session);
        }
        self.forget_deallocated();
        self.session.presence.prepared.hold(self.session.names.len());
        self.note_position(now);
        self.settle_if_free(now).await
    }

    /// `DISCARD ALL` and `DEALLOCATE ALL` count at once, also within a transaction.
    fn forget_deallocated(&mut self) {
        let Some(attached) = self.attached.as_deref_mut() else { return };
        if std::mem::take(&mut attached.exchange.completed) == Completed::AllDeallocated {
            attached.checkout.held.clear();
            self.session.names.clear();
        }
    }

    /// Gives the backend back, unless something is owed or keeps it.
    pub(super) async fn settle_if_free(&mut self, now: Moment) -> Result<(), Stop> {
        let free = self.attached.as_ref().is_some_and(|attached| attached.is_free());
        if free { self.settle(now).await } else { Ok(()) }
    }

    /// Takes the mark that every answer of a server leaves.
    fn note_position(&mut self, now: Moment) {
        let Some(attached) = &self.attached else { return };
        match attached.standing {
            Standing::Primary => {
                self.session.floor.after_primary(now, attached.epoch);
                let wishes = self.session.wishes.consistency == Consistency::Session;
                if attached.status == TxStatus::Idle && wishes && attached.exchange.wished < now {
                    self.client.shard.shared.signals.want_position(now);
                }
            }
            // The session stays with a standby for what it saw there. One that was only asked
            // for what any server can answer may lack what the session wrote.
            Standing::Standby if attached.shown == ShownData::No => {}
            Standing::Standby => match attached.proven {
                Proven::Yes => {
                    self.session.floor.after_standby(attached.server, now, attached.epoch);
                }
                // `eventual` took whatever was there; the next read may be another's.
                Proven::No => {
                    self.session.floor.after_unproven(attached.server, now, attached.epoch);
                }
            },
        }
    }

    /// A read failed before the client saw anything of it, and may be run again.
    async fn on_withdrawn(&mut self, code: SqlState, status: TxStatus) -> Result<(), Stop> {
        let Some(mut attached) = self.attached.take() else { return Ok(()) };
        attached.status = status;
        self.plan_retry(&mut attached, code);
        attached.sent = None;
        attached.exchange.shown = Shown::Yes;
        self.attached = Some(attached);
        if self.attached.as_ref().is_some_and(|attached| attached.is_free()) {
            self.settle(clock::now()).await
        } else {
            self.drop_backend();
            Ok(())
        }
    }

    /// Notes that the group in the inbox is tried again, elsewhere.
    pub(super) fn plan_retry(&mut self, attached: &mut Attached, code: SqlState) {
        self.session.rename_back(std::mem::take(&mut attached.renamed));
        let since = attached.sent.map_or_else(clock::now, |sent| sent.since);
        let before = self.retry.unwrap_or(Retry {
            since,
            failed: 0,
            tries: 0,
            needs_primary: NeedsPrimary::No,
            afresh: Afresh::No,
        });
        let refused = code == SqlState::READ_ONLY_TRANSACTION;
        let tries = before.tries + 1;
        self.client.shard.shared.metrics.statements.retries.inc();
        self.retry = Some(Retry {
            since: before.since,
            failed: match attached.exchange.relies {
                // The same server will do.
                Relies::InVain => before.failed,
                Relies::No | Relies::Yes => before.failed | bit(attached.server),
            },
            afresh: match attached.exchange.relies {
                Relies::InVain => Afresh::Yes,
                Relies::No | Relies::Yes => before.afresh,
            },
            tries,
            needs_primary: if refused || tries >= TRIES_MAX {
                NeedsPrimary::Yes
            } else {
                before.needs_primary
            },
        });
    }

    /// The client has closed its side. What only reads for it is stopped; what may write is
    /// left to end as it would have without us.
    fn on_client_ended(&mut self) -> Result<(), Stop> {
        let Some(attached) = &self.attached else { return Err(Stop::Gone) };
        let reads = attached.sent.is_some_and(|sent| sent.read == PureRead::Yes);
        let idle = attached.exchange.replies.is_settled() && attached.segment == Segment::Closed;
        if idle || reads || attached.exchange.is_copying_in() || attached.segment == Segment::Open {
            self.abandon_read();
            return Err(Stop::Gone);
        }
        Ok(())
    }

    /// The backend is closed. Nobody waits any more for what is under way on it: if it only
    /// reads, it is ended.
    pub(super) fn abandon_read(&mut self) {
        let Some(attached) = self.attached.take() else { return };
        let reads = attached.sent.is_some_and(|sent| sent.read == PureRead::Yes);
        if reads && !attached.exchange.replies.is_settled() {
            self.session.cancel.detach();
            abandon::end(attached.into_inner().checkout);
        }
    }

    /// A batch goes on whose `Sync` the server has passed over: before anything else is decided,
    /// for its backend is not free.
    fn go_on(&mut self) {
        if let Some(attached) = self.attached.as_deref_mut()
            && std::mem::take(&mut attached.exchange.reopened) == Reopened::Yes
        {
            attached.segment = Segment::Open;
        }
    }

    /// Undoes what was noted of messages that the server skipped.
    fn undo(&mut self) {
        let Some(attached) = self.attached.as_deref_mut() else { return };
        for undo in std::mem::take(&mut attached.exchange.undone) {
            self.session.undo(undo, &mut attached.checkout);
        }
    }

    /// The backend is closed; what was noted of it is undone.
    pub(super) fn let_go_of(&mut self, mut attached: Attached) {
        let undone: Vec<Undo> = std::mem::take(&mut attached.exchange.undone);
        for undo in undone {
            self.session.undo(undo, &mut attached.checkout);
        }
        self.session.cancel.detach();
        self.client.shard.give_buffer(attached.exchange.to_server);
    }

    pub(super) fn drop_backend(&mut self) {
        if let Some(attached) = self.attached.take() {
            self.let_go_of(attached.into_inner());
        }
    }
}

/// How the transaction ended that a group was answered in; `None` if it did not, or if none was
/// begun.
fn ending(sent: &Sent, status: TxStatus, erred: Erred) -> Option<TransactionOutcome> {
    if status != TxStatus::Idle {
        return None;
    }
    match (erred, sent.before, sent.executes) {
        (Erred::Yes, ..) | (Erred::No, TxStatus::Failed, _) => Some(TransactionOutcome::Aborted),
        (Erred::No, TxStatus::Idle | TxStatus::Open, Executes::Something) => Some(sent.ends),
        (Erred::No, TxStatus::Idle | TxStatus::Open, Executes::Nothing) => None,
    }
}
