//! A session loses its server: what becomes of what it was doing.
//!
//! The table is in [`verdict`]; here it is carried out. The client stays connected in every case
//! but one: where it was given half of a long row, nothing that it could be told would be
//! understood.

mod state;
mod verdict;

pub(super) use state::{LostState, missed};

use crate::clock;
use crate::frontend::anew::Beginning;
use crate::frontend::attach::Found;
use crate::frontend::attached::{Attached, Doomed, Segment, Standing};
use crate::frontend::block::Repeats;
use crate::frontend::cancel::Cancelled;
use crate::frontend::exchange::{Shown, Word};
use crate::frontend::greet::own_plan;
use crate::frontend::local;
use crate::frontend::overdue::{Doing, rest_in};
use crate::frontend::own;
use crate::frontend::plan::Plan;
use crate::frontend::report::{Doubt, No};
use crate::frontend::serve::Stop;
use crate::frontend::state::{Serving, Skipping};
use crate::metrics::ClientState;
use crate::pg::SqlState;
use crate::route::Need;
use crate::session::{End, Group};
use crate::sql::{Chain, Transaction};
use crate::topology::Void;
use crate::wire::frame::TxStatus;
use crate::wire::message;
use verdict::{Around, Flight, Verdict, verdict};

/// In a server's own words.
const OUT_OF_SYNC: &str = "terminating connection because protocol synchronization was lost";

/// How a backend was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its connection broke; the code of what the server said last, if it said something.
    Broken(Option<SqlState>),
    /// Another server has become the primary, or is becoming it.
    Replaced,
    /// We stood still for so long that another server may have become it.
    Unwatched,
}

impl From<Void> for Loss {
    fn from(why: Void) -> Self {
        match why {
            Void::Replaced => Self::Replaced,
            Void::Unwatched => Self::Unwatched,
        }
    }
}

/// Whether the session's transaction was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostTransaction {
    /// No.
    #[default]
    No,
    /// Yes, and the client has not been told.
    Untold(Loss),
    /// Yes, and the client was told. To it the transaction has failed, and it has to end it;
    /// whatever it says before is refused, by a transaction that stands in for the lost one.
    Told,
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// Nothing.
    Nothing,
    /// `ReadyForQuery`.
    Ready,
    /// Nothing, until it sends `Sync`.
    Sync,
}

impl Serving {
    /// The backend is gone.
    pub(super) async fn on_server_gone(&mut self, loss: Loss) -> Result<(), Stop> {
        let Some(mut attached) = self.attached.take() else { return Ok(()) };
        self.note_loss(&attached, loss);
        if attached.exchange.is_mid_message() {
            // An error would be read as the rest of the row.
            self.let_go_of(attached.into_inner());
            return Err(Stop::Gone);
        }
        if loss == Loss::Broken(Some(SqlState::ADMIN_SHUTDOWN)) && self.ends_backends(&attached) {
            // Its own, as it seems: it is told what its server would tell it.
            self.let_go_of(attached.into_inner());
            return Err(Stop::from(No::Terminated));
        }
        if loss == Loss::Broken(Some(SqlState::PROTOCOL_VIOLATION)) && attached.sent.is_some() {
            // What it sent made no sense there, which ends a session at a server, too.
            self.let_go_of(attached.into_inner());
            return Err(Stop::from(No::Protocol(OUT_OF_SYNC.to_owned())));
        }
        self.note_lost_state(&attached);
        let (around, flight, owed) = (attached.around(), attached.flight(), attached.owed());
        let replies = &attached.exchange.replies;
        let (was_skipping, was_refused) = (replies.is_skipping(), replies.is_ours_next());
        let word = attached.exchange.word;
        // The rest of a message that was passing is passed over.
        self.client.take(std::mem::take(&mut attached.exchange.client_pass));
        let exchange = &mut attached.exchange;
        exchange.replies.abandon(&mut |undo| exchange.undone.push(undo));
        if was_skipping {
            // It was told of an error already, and waits for nothing before its `Sync`.
            self.session.skipping = Skipping::UntilSync;
            if around != Around::Nothing {
                self.session.lost_transaction = LostTransaction::Told;
            }
            self.let_go_of(attached.into_inner());
            return Ok(());
        }
        if was_refused {
            // It was told of an error, and waits for what is open to have failed, if not for more.
            self.let_go_of(attached.into_inner());
            if around != Around::Nothing {
                self.session.lost_transaction = LostTransaction::Told;
            }
            if self.session.skipping == Skipping::No {
                let status = self.resting_status();
                message::write_ready(self.client.out(), status);
            }
            return Ok(());
        }
        if word == Word::Replaced {
            // It was told that nobody knows, and waits for the end of that.
            self.client.take(attached.sent.map_or(0, |sent| sent.kept));
            self.let_go_of(attached.into_inner());
            local::end_transaction(&mut self.session);
            self.end_answer(owed);
            return Ok(());
        }
        let verdict = verdict(around, flight);
        if let (Flight::Kept, Verdict::RunAgain | Verdict::Reopen) = (flight, verdict) {
            let code = match loss {
                Loss::Broken(Some(code)) => code,
                Loss::Broken(None) | Loss::Replaced | Loss::Unwatched => {
                    SqlState::CONNECTION_FAILURE
                }
            };
            self.plan_retry(&mut attached, code);
        } else if let Some(sent) = attached.sent.take() {
            self.client.take(sent.kept);
            self.retry = None;
        }
        self.carry_out(verdict, (attached.into_inner(), owed, loss)).await
    }

    /// Whether what runs on this backend asks for backends to be ended.
    fn ends_backends(&self, attached: &Attached) -> bool {
        let mut said = self.session.mentioned.iter().flatten().flat_map(|facts| facts.functions());
        attached.sent.is_some() && said.any(|function| &*function.name == "pg_terminate_backend")
    }

    async fn carry_out(
        &mut self,
        verdict: Verdict,
        (mut attached, owed, loss): (Attached, Owed, Loss),
    ) -> Result<(), Stop> {
        let block = std::mem::take(&mut attached.block);
        let carried = attached.carry();
        let again = attached.sent.map_or(Repeats::No, |sent| sent.repeats);
        self.let_go_of(attached);
        if let Some(work) = verdict.counts_as() {
            self.client.shard.shared.metrics.clients.lost(work);
        }
        match verdict {
            Verdict::Nothing | Verdict::RunAgain => {}
            Verdict::Reopen => {
                if let Some((sql, need)) = block.reopens(again) {
                    let sql = sql.to_owned();
                    return self.reopen(need, Beginning { sql, block, carried }, loss).await;
                }
                self.session.lost_transaction = LostTransaction::Untold(loss);
            }
            Verdict::RolledBackUntold => {
                self.session.lost_transaction = LostTransaction::Untold(loss);
            }
            Verdict::RolledBack => {
                let no = self.rolled_back(loss);
                self.session.lost_transaction = LostTransaction::Told;
                self.give_up(owed, &no);
            }
            Verdict::RolledBackWhole => self.give_up(owed, &No::TransactionLost(loss)),
            Verdict::BrokenOff => self.give_up(owed, &No::ReadBroken),
            Verdict::InDoubt => {
                local::end_transaction(&mut self.session);
                self.give_up(owed, &No::InDoubt(Doubt::Lost(loss)));
            }
            Verdict::StandIn => {
                self.session.lost_transaction = LostTransaction::Told;
                if owed != Owed::Nothing {
                    self.give_up(owed, &No::TransactionFailed);
                }
            }
        }
        Ok(())
    }

    /// What the loss means for what the session may read next.
    fn note_loss(&mut self, attached: &Attached, loss: Loss) {
        if let Loss::Broken(_) = loss {
            self.client.shard.shared.signals.lost_backend(attached.server);
        }
        match (attached.standing, attached.flight()) {
            (Standing::Standby, _) => self.session.floor.leave_anchor(),
            (Standing::Primary, Flight::None | Flight::Kept) => {}
            // It may have been committed, or seen: the floor must be above it.
            (Standing::Primary, Flight::CopyingIn(_) | Flight::Sent(..)) => {
                self.session.floor.after_primary(clock::now(), attached.epoch);
            }
        }
    }

    /// What the client is told of its lost transaction. What else was lost with the backend goes
    /// first: who is told to run it again would do so without.
    fn rolled_back(&mut self, loss: Loss) -> No {
        match self.session.lost_state.take_told() {
            Some(what) => No::StateLost(what),
            None => No::TransactionLost(loss),
        }
    }

    /// Answers what was under way with an error of ours.
    fn give_up(&mut self, owed: Owed, no: &No) {
        self.client.report(&no.report());
        self.end_answer(owed);
    }

    /// Ends the answer to what was under way.
    fn end_answer(&mut self, owed: Owed) {
        self.retry = None;
        let status = self.resting_status();
        match owed {
            Owed::Nothing => {}
            Owed::Ready => message::write_ready(self.client.out(), status),
            Owed::Sync => self.session.skipping = Skipping::UntilSync,
        }
        self.session.presence.turn(match status {
            TxStatus::Idle => ClientState::Idle,
            TxStatus::Open | TxStatus::Failed => ClientState::InTransaction,
        });
        self.session.seat.turn(rest_in(status), clock::now());
    }

    /// What a client without a backend believes of its transaction.
    pub(super) const fn resting_status(&self) -> TxStatus {
        match self.session.lost_transaction {
            LostTransaction::No | LostTransaction::Untold(_) => TxStatus::Idle,
            LostTransaction::Told => TxStatus::Failed,
        }
    }

    /// Whether the client is still to be told of something that was lost.
    pub(super) fn has_lost(&self) -> bool {
        self.session.lost_transaction != LostTransaction::No || !self.session.lost_state.is_empty()
    }

    /// Tells the client of what was lost, in place of an answer; whether that was all there is to
    /// say to its statement.
    pub(super) async fn tell_of_loss(&mut self, group: &Group) -> Result<bool, Stop> {
        if self.session.lost_transaction != LostTransaction::No {
            return self.tell_of_lost_transaction(group).await;
        }
        if self.is_to_listen() {
            self.listen_again().await?;
            if self.session.cancel.cancelled() == Cancelled::Yes {
                self.refuse_cancelled(group);
                return Ok(true);
            }
        }
        Ok(self.attached.is_none() && self.tell_of_lost_state(group))
    }

    /// A statement of a session whose transaction was lost. `ROLLBACK` gets what it wants, a
    /// `COMMIT` ends in an error, and anything else is refused until then. Whether that was all.
    async fn tell_of_lost_transaction(&mut self, group: &Group) -> Result<bool, Stop> {
        let ends = match self.session.mentioned.as_slice() {
            [Some(facts)] => facts.transaction(),
            _ => Transaction::None,
        };
        if ends == Transaction::Rollback(Chain::Ends) && group.end == End::Query {
            self.session.lost_transaction = LostTransaction::No;
            local::end_transaction(&mut self.session);
            self.client.take(group.bytes);
            message::write_command_complete(self.client.out(), "ROLLBACK");
            message::write_ready(self.client.out(), TxStatus::Idle);
            self.session.presence.turn(ClientState::Idle);
            self.session.seat.turn(Doing::Rests, clock::now());
            return Ok(true);
        }
        match self.session.lost_transaction {
            LostTransaction::No => Ok(false),
            LostTransaction::Untold(loss) if ends != Transaction::Rollback(Chain::Ends) => {
                let no = self.rolled_back(loss);
                self.session.lost_transaction = match ends {
                    Transaction::Commit(Chain::Ends) => {
                        local::end_transaction(&mut self.session);
                        LostTransaction::No
                    }
                    Transaction::None
                    | Transaction::Begin { .. }
                    | Transaction::Commit(Chain::Continues)
                    | Transaction::Rollback(_)
                    | Transaction::Savepoint
                    | Transaction::Set { .. }
                    | Transaction::Prepare
                    | Transaction::FinishPrepared
                    | Transaction::Mixed => LostTransaction::Told,
                };
                self.refuse_group(group, &no);
                Ok(true)
            }
            LostTransaction::Untold(_) | LostTransaction::Told => match self.stand_in().await? {
                Ok(()) => Ok(false),
                Err(no) => {
                    self.session.lost_transaction = LostTransaction::Told;
                    self.refuse_group(group, &no);
                    Ok(true)
                }
            },
        }
    }

    /// A plan for what pgsteer says for the session. A floor of the old primary's is reported on
    /// the way, not forgotten.
    pub(super) fn plan_of_ours(&self, need: Need) -> Plan {
        let mut plan = own_plan(need);
        plan.consistency = self.session.wishes.consistency;
        plan
    }

    /// Opens a transaction that has failed, for the client to end.
    async fn stand_in(&mut self) -> Result<Result<(), No>, Stop> {
        let plan = self.plan_of_ours(Need::Anywhere);
        loop {
            match self.attach(&plan).await? {
                Found::Backend => {}
                Found::Nothing(no) => return Ok(Err(*no)),
            }
            let thread = self.session.seat.thread();
            let Some(attached) = self.attached.as_deref_mut() else { continue };
            let reported = &mut self.client.reported;
            let sql = format!("BEGIN; {}", own::FAILING);
            let failing = own::run(&mut attached.checkout, &sql, reported);
            // Its time may be up before the transaction is open.
            if let Ok(Ok(own::Answer { status: Some(TxStatus::Failed), for_client, .. })) =
                thread.unless_cut(failing).await
            {
                self.client.out().extend_from_slice(&for_client);
                attached.doomed = Doomed::Yes;
                attached.status = TxStatus::Failed;
                // Nothing comes of it, whoever is the primary.
                attached.exchange.epoch = None;
                self.session.lost_transaction = LostTransaction::No;
                return Ok(Ok(()));
            }
            self.drop_backend();
        }
    }

    /// A backend of a server that is the primary no more must not be sent anything.
    pub(super) async fn leave_replaced(&mut self) -> Result<(), Stop> {
        let ended = self.attached.as_deref().is_some_and(|attached| {
            attached.standing == Standing::Primary && self.client.shard.has_lost(attached.epoch)
        });
        if ended { Box::pin(self.on_server_gone(Loss::Replaced)).await } else { Ok(()) }
    }
}

impl Attached {
    fn around(&self) -> Around {
        if self.doomed == Doomed::Yes {
            return Around::StandIn;
        }
        let before = self.sent.map_or(self.status, |sent| sent.before);
        let again = self.sent.map_or(Repeats::No, |sent| sent.repeats);
        match before {
            TxStatus::Idle => Around::Nothing,
            TxStatus::Open if self.pins.is_empty() && self.block.reopens(again).is_some() => {
                Around::Opened
            }
            TxStatus::Open | TxStatus::Failed => Around::Worked,
        }
    }

    fn flight(&self) -> Flight {
        let Some(sent) = self.sent.filter(|_| !self.has_only_prepared()) else {
            return Flight::None;
        };
        if sent.kept > 0 && !matches!(self.exchange.shown, Shown::Yes) {
            Flight::Kept
        } else if self.exchange.is_copying_in() {
            Flight::CopyingIn(sent.commits)
        } else {
            Flight::Sent(sent.commits, sent.read)
        }
    }

    fn owed(&self) -> Owed {
        match (self.sent, self.segment) {
            (None, _) => Owed::Nothing,
            (Some(_), _) if self.has_only_prepared() => Owed::Nothing,
            (Some(_), Segment::Open) => Owed::Sync,
            (Some(_), Segment::Closed) => Owed::Ready,
        }
    }
}
