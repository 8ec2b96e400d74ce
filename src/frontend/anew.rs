//! A transaction that has said no more than how it is to be begins anew on another server, and
//! its client sees nothing of it: where its server was lost, and where one that was declared
//! `READ ONLY` went to a standby and then needs the primary.
//!
//! What it has said is kept word for word, see [`crate::frontend::block`]. Once it has asked for
//! anything else it stays where it is: it may have read, and what it read must not change under
//! it.

use crate::clock;
use crate::frontend::attached::{Attached, Carried, Segment, Standing};
use crate::frontend::block::{Block, Repeats};
use crate::frontend::lost::{Loss, LostTransaction};
use crate::frontend::obtain::Waited;
use crate::frontend::own;
use crate::frontend::plan::Plan;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::state::Serving;
use crate::pg::SqlState;
use crate::route::{Need, PrimaryReason};
use crate::session::End;
use crate::wire::frame::TxStatus;

/// A transaction that is to begin anew.
pub(super) struct Beginning {
    /// What it has said, as SQL.
    pub sql: String,
    pub block: Block,
    pub carried: Carried,
}

/// How often a server may be lost while it is told.
const TRIES_MAX: u32 = 5;

impl Serving {
    /// Whether the transaction must go on at the primary, and can.
    pub(super) fn must_begin_anew(&self, plan: &Plan) -> bool {
        let wanted = plan.forbidden.is_some() || plan.need == Need::Primary(PrimaryReason::Wish);
        let can = |attached: &Attached| {
            attached.standing == Standing::Standby
                && attached.status == TxStatus::Open
                && attached.segment == Segment::Closed
                && attached.exchange.replies.is_settled()
                && attached.pins.is_empty()
                && attached.block.reopens(Repeats::No).is_some()
        };
        wanted && plan.need != Need::Standby && self.attached.as_deref().is_some_and(can)
    }

    /// Ends the transaction on its standby, where nothing came of it, and says again at the
    /// primary what it has said; if that fails, no transaction is open any more, and this is why.
    ///
    /// Not cancel-safe: dropped, its backend must be closed.
    pub(super) async fn move_to_primary(&mut self, plan: &Plan) -> Result<Result<(), No>, Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(Ok(())) };
        let block = std::mem::take(&mut attached.block);
        let Some((sql, _)) = block.reopens(Repeats::No) else { return Ok(Ok(())) };
        let sql = sql.to_owned();
        let carried = attached.carry();
        self.roll_back().await?;
        let need = Need::Primary(PrimaryReason::Statement);
        // What is said first is not what its client has just said.
        let plan = Plan { need, end: End::Flush, since: clock::now(), ..*plan };
        self.begin_anew(&plan, Beginning { sql, block, carried }).await
    }

    /// The server of a transaction was lost in which nothing was done yet: it goes on elsewhere.
    /// If it can't, the client is told that it is lost.
    pub(super) async fn reopen(
        &mut self,
        need: Need,
        beginning: Beginning,
        loss: Loss,
    ) -> Result<(), Stop> {
        let plan = self.plan_of_ours(need);
        // If the client waits for nothing, an earlier cancel was for what has been answered.
        self.session.cancel.heed(self.client.inbox());
        if self.begin_anew(&plan, beginning).await?.is_err() {
            self.retry = None;
            self.session.lost_transaction = LostTransaction::Untold(loss);
        }
        // What the client asked meanwhile may have been cancelled by now.
        self.session.waited = Waited::Yes;
        Ok(())
    }

    /// Finds a backend and says there what the transaction has said; else why it can't be said.
    async fn begin_anew(
        &mut self,
        plan: &Plan,
        beginning: Beginning,
    ) -> Result<Result<(), No>, Stop> {
        let Beginning { sql, mut block, carried } = beginning;
        for _ in 0..TRIES_MAX {
            if let Err(no) = self.attach_or_no(plan).await? {
                return Ok(Err(no));
            }
            let thread = self.session.seat.thread();
            let Some(attached) = self.attached.as_deref_mut() else { continue };
            let reported = &mut self.client.reported;
            let saying = own::run(&mut attached.checkout, &sql, reported);
            match thread.unless_cut(saying).await {
                Ok(Ok(own::Answer { error: None, for_client, .. })) => {
                    attached.status = TxStatus::Open;
                    block.was_reopened(plan.need);
                    attached.block = block;
                    attached.take_over(carried);
                    self.client.out().extend_from_slice(&for_client);
                    return Ok(Ok(()));
                }
                // A time limit of the session's was too short for it, this time; or the client has
                // cancelled what it waits for, which is seen before the next try.
                Ok(Ok(own::Answer { error: Some(error), .. })) => {
                    self.drop_backend();
                    if error.code != SqlState::QUERY_CANCELED {
                        return Ok(Err(No::Settings(error)));
                    }
                }
                // That server was lost, or replaced; nothing has happened there.
                Ok(Err(_)) | Err(_) => self.drop_backend(),
            }
        }
        Ok(Err(No::TransactionLost(Loss::Broken(None))))
    }

    /// The client does not hear of it: what its settings seem to be is what they will be again.
    async fn roll_back(&mut self) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        let mut unheard = self.client.reported.clone();
        let answer = own::run(&mut attached.checkout, "ROLLBACK", &mut unheard).await;
        if !answer.is_ok_and(|answer| answer.error.is_none()) {
            self.drop_backend();
            return Ok(());
        }
        attached.status = TxStatus::Idle;
        attached.take_over(Carried::default());
        self.settle(clock::now()).await
    }
}
