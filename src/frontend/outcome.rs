//! What the session makes of what happened to its backend: ready, withdrawn, lost.
//!
//! The question that everything here turns on: can the statement have been executed? Only where
//! it provably was not, or provably did nothing, is it sent again.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::abandon;
use crate::frontend::attached::{Attached, Doomed, Proven, Segment, Sent, ShownData, Standing};
use crate::frontend::exchange::{Completed, Event, Reopened, Shown};
use crate::frontend::local;
use crate::frontend::obtain::bit;
use crate::frontend::plan::{MayCommit, Plan, PureRead, Taint};
use crate::frontend::refuse::fail_transaction;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::state::{NeedsPrimary, Retry, Serving, Skipping};
use crate::metrics::ClientState;
use crate::pg::SqlState;
use crate::pool::Mode;
use crate::route::Consistency;
use crate::route::Need;
use crate::session::{End, Undo};
use crate::sql::Effects;
use crate::wire::frame::TxStatus;
use crate::wire::message;

/// How often one group is sent: a read that five servers fail is not the servers' fault.
const TRIES_MAX: u32 = 5;
/// From this try on, the client is shown what comes of it.
pub(super) const TRIES_SHOWN: u32 = 2 * TRIES_MAX;

impl Serving {
    /// Deals with what the exchange stopped for.
    pub(super) async fn on_event(&mut self, event: Event) -> Result<(), Stop> {
        self.undo();
        self.reopen();
        match event {
            Event::ClientBytes => self.settle_if_free().await,
            Event::Ready(status) => self.on_ready(status).await,
            Event::Withdrawn(code, status) => self.on_withdrawn(code, status).await,
            Event::ServerGone(farewell) => self.on_server_gone(farewell).await,
            Event::OutOfStep => {
                self.attached = None;
                Err(Stop::Refuse(No::OutOfStep))
            }
            Event::ClientEnded => self.on_client_ended(),
            Event::ClientGone => {
                self.abandon_read();
                Err(Stop::Gone)
            }
        }
    }

    /// The server is done with a group.
    async fn on_ready(&mut self, status: TxStatus) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        attached.status = status;
        let now = attached.exchange.answered.take().unwrap_or_else(clock::now);
        self.presence.turn(match status {
            TxStatus::Idle => ClientState::Idle,
            TxStatus::Open | TxStatus::Failed => ClientState::InTransaction,
        });
        if let Some(sent) = attached.sent.take() {
            self.client.take(sent.kept);
            let took = now.since(sent.since);
            let statements = &self.client.shard.shared.metrics.statements;
            statements.answered(attached.standing.served_by(), sent.kind, took);
        }
        self.retry = None;
        if status == TxStatus::Idle {
            local::end_transaction(&mut self.session);
        }
        self.forget_deallocated();
        self.note_position(now);
        self.settle_if_free().await
    }

    /// `DISCARD ALL` and `DEALLOCATE ALL` count at once, also within a transaction.
    fn forget_deallocated(&mut self) {
        let Some(attached) = self.attached.as_deref_mut() else { return };
        if std::mem::take(&mut attached.exchange.completed) == Completed::AllDeallocated {
            attached.checkout.held.clear();
            self.session.names.clear();
            self.session.unnamed = None;
        }
    }

    /// Gives the backend back, unless something is owed or keeps it.
    async fn settle_if_free(&mut self) -> Result<(), Stop> {
        let free = self.attached.as_ref().is_some_and(|attached| attached.is_free());
        if free { self.settle().await } else { Ok(()) }
    }

    /// Takes the mark that every answer of a server leaves.
    fn note_position(&mut self, now: Moment) {
        let Some(attached) = &self.attached else { return };
        match attached.standing {
            Standing::Primary => {
                self.session.floor.after_primary(now, attached.epoch);
                if attached.status == TxStatus::Idle
                    && self.session.wishes.consistency == Consistency::Session
                {
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

    /// A transaction on a server that is the primary no more must not go on: nothing more is sent
    /// there, and it is rolled back with its connection.
    pub(super) fn leave_cordoned(&mut self) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref() else { return Ok(()) };
        let topology = self.client.shard.topology();
        let same = !topology.has_ended(attached.epoch);
        if same || attached.standing != Standing::Primary || attached.doomed == Doomed::Yes {
            return Ok(());
        }
        let (pinned, status) = (!attached.pins.is_empty(), attached.status);
        self.drop_backend();
        if pinned || self.client.shard.shared.pools.policy().mode == Mode::Session {
            return Err(Stop::Refuse(No::StateLost));
        }
        if status != TxStatus::Idle {
            self.session.lost_transaction = LostTransaction::Yes;
        }
        Ok(())
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
            self.settle().await
        } else {
            self.drop_backend();
            Ok(())
        }
    }

    /// Notes that the group in the inbox is tried again, elsewhere.
    fn plan_retry(&mut self, attached: &mut Attached, code: SqlState) {
        self.session.rename_back(std::mem::take(&mut attached.renamed));
        let since = attached.sent.map_or_else(clock::now, |sent| sent.since);
        let before = self.retry.unwrap_or(Retry {
            since,
            failed: 0,
            tries: 0,
            needs_primary: NeedsPrimary::No,
        });
        let refused = code == SqlState::READ_ONLY_TRANSACTION;
        let tries = before.tries + 1;
        self.client.shard.shared.metrics.statements.retries.inc();
        self.retry = Some(Retry {
            since: before.since,
            failed: if code == SqlState::FEATURE_NOT_SUPPORTED {
                // A stale statement: the same server will do.
                before.failed
            } else {
                before.failed | bit(attached.server)
            },
            tries,
            needs_primary: if refused || tries >= TRIES_MAX {
                NeedsPrimary::Yes
            } else {
                before.needs_primary
            },
        });
    }

    /// The backend is gone.
    async fn on_server_gone(&mut self, farewell: Option<SqlState>) -> Result<(), Stop> {
        let Some(mut attached) = self.attached.take() else { return Ok(()) };
        self.client.shard.shared.signals.lost_backend(attached.server);
        if attached.standing == Standing::Primary {
            // What was under way may have been committed: the floor must be above it.
            self.session.floor.after_primary(clock::now(), attached.epoch);
        } else {
            self.session.floor.leave_anchor();
        }
        let mid_message = attached.exchange.is_mid_message();
        let shown = matches!(attached.exchange.shown, Shown::Yes);
        let stands_in = attached.exchange.replies.is_ours_next();
        let sent = attached.sent.filter(|_| attached.owed() && !attached.has_only_prepared());
        let exchange = &mut attached.exchange;
        exchange.replies.abandon(&mut |undo| exchange.undone.push(undo));
        if let Some(sent) = sent
            && sent.kept > 0
            && !shown
        {
            let code = farewell.unwrap_or(SqlState::CONNECTION_FAILURE);
            self.plan_retry(&mut attached, code);
            self.let_go_of(*attached);
            return Ok(());
        }
        let status = attached.status;
        let stays = !attached.pins.is_empty()
            || self.client.shard.shared.pools.policy().mode == Mode::Session;
        self.let_go_of(*attached);
        if mid_message {
            // An error would be read as the rest of the row.
            return Err(Stop::Gone);
        }
        if stays {
            return Err(Stop::Refuse(No::StateLost));
        }
        if stands_in {
            // The transaction that was to stand in for a lost one is lost, too, and with it the
            // answer that the client waits for.
            return Err(Stop::Refuse(No::TransactionLost));
        }
        let Some(sent) = sent else {
            return match status {
                TxStatus::Idle => Ok(()),
                TxStatus::Open | TxStatus::Failed => {
                    self.session.lost_transaction = LostTransaction::Yes;
                    Ok(())
                }
            };
        };
        let in_transaction = sent.before != TxStatus::Idle;
        match (in_transaction, sent.commits, sent.read) {
            (true, MayCommit::No, _) => {
                self.client.take(sent.kept);
                self.fail_lost_transaction(sent.end).await
            }
            (false, _, PureRead::Yes) => self.give_up(sent, &No::ReadBroken),
            (true, MayCommit::Maybe, _) | (false, _, PureRead::No) => {
                self.give_up(sent, &No::InDoubt)
            }
        }
    }

    /// Ends a group with an error of ours; no transaction is open any more.
    fn give_up(&mut self, sent: Sent, no: &No) -> Result<(), Stop> {
        self.retry = None;
        local::end_transaction(&mut self.session);
        self.client.take(sent.kept);
        self.client.report(&no.report());
        match sent.end {
            End::Query | End::Sync => message::write_ready(self.client.out(), TxStatus::Idle),
            End::Flush => self.session.skipping = Skipping::UntilSync,
            // What is still to come of the message is passed over; then comes `Sync`.
            End::Cut { .. } => return Err(Stop::Refuse(No::InDoubt)),
        }
        Ok(())
    }

    /// The client's transaction is gone with its server. The client is told, and gets a
    /// transaction that has failed, as if the server had failed it: until it says `ROLLBACK`,
    /// nothing that it still sends is executed.
    pub(super) async fn fail_lost_transaction(&mut self, end: End) -> Result<(), Stop> {
        self.session.lost_transaction = LostTransaction::No;
        self.fail_transaction_of(end, No::TransactionLost).await
    }

    /// The client's transaction has no backend any more, for this reason.
    pub(super) async fn fail_transaction_of(&mut self, end: End, no: No) -> Result<(), Stop> {
        self.retry = None;
        if !matches!(end, End::Query | End::Sync) {
            return Err(Stop::Refuse(no));
        }
        self.client.report(&no.report());
        let plan = Plan {
            need: Need::Anywhere,
            // A floor of the old primary's is reported, not forgotten.
            consistency: self.session.wishes.consistency,
            unfit: None,
            forbidden: None,
            effects: Effects::NONE,
            taint: Taint::None,
            again: crate::frontend::plan::Again::MustNot,
            commits: MayCommit::No,
            read: PureRead::No,
            since: clock::now(),
        };
        if self.attach_or_no(&plan).await?.is_err() {
            return Err(Stop::Refuse(No::TransactionLost));
        }
        if let Some(attached) = self.attached.as_deref_mut() {
            attached.doomed = Doomed::Yes;
            // Nothing comes of it, whoever is the primary.
            attached.exchange.epoch = None;
            fail_transaction(attached, "BEGIN; SELECT 1/0");
        }
        Ok(())
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
            abandon::end(attached.checkout);
        }
    }

    /// A batch goes on whose `Sync` the server has passed over: before anything else is decided,
    /// for its backend is not free.
    fn reopen(&mut self) {
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
            self.session.undo(undo, &mut attached.checkout.held);
        }
    }

    /// The backend is closed; what was noted of it is undone.
    fn let_go_of(&mut self, mut attached: Attached) {
        let undone: Vec<Undo> = std::mem::take(&mut attached.exchange.undone);
        for undo in undone {
            self.session.undo(undo, &mut attached.checkout.held);
        }
        self.session.cancel.detach();
        self.session.reported = attached.exchange.reported;
        self.client.shard.give_buffer(attached.exchange.to_server);
    }

    pub(super) fn drop_backend(&mut self) {
        if let Some(attached) = self.attached.take() {
            self.let_go_of(*attached);
        }
    }
}

/// Whether the session's transaction was lost between two of its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostTransaction {
    /// No.
    #[default]
    No,
    /// Yes, and the client has not been told.
    Yes,
}
