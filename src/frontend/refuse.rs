//! Saying no: to a group that goes nowhere, and to one within a transaction, which fails by it.

use crate::clock;
use crate::frontend::attached::{Ahead, Attached, Segment};
use crate::frontend::exchange::Shown;
use crate::frontend::lost::{Loss, LostTransaction};
use crate::frontend::overdue::rest_in;
use crate::frontend::own;
use crate::frontend::report::No;
use crate::frontend::seat::CutOff;
use crate::frontend::serve::{Goodbye, Stop};
use crate::frontend::state::{HasOwn, Serving, Skipping};
use crate::metrics::ClientState;
use crate::session::{Cut, End, Expect, Group, UnnamedThere, Violation};
use crate::wire::frame::TxStatus;
use crate::wire::message;

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        let why = violation.to_string();
        Self::from(match violation {
            Violation::OverLimit { .. } => No::OverLimit(why),
            Violation::Frame(_) | Violation::Unexpected { .. } | Violation::TooLong { .. } => {
                No::Protocol(why)
            }
        })
    }
}

impl Serving {
    /// The client is told why it is closed.
    pub(super) async fn turn_out(&mut self, no: No) -> Goodbye {
        self.abandon_read();
        let mut report = no.report();
        report.severity = message::Severity::Fatal;
        self.client.report(&report);
        self.client.farewell().await;
        Goodbye::Refused
    }

    /// Answers a group that found no backend.
    pub(super) fn refuse_group(&mut self, group: &Group, no: &No) {
        self.retry = None;
        self.session.held = None;
        self.session.presence.turn(ClientState::Idle);
        self.session.seat.turn(rest_in(self.resting_status()), clock::now());
        self.client.report(&no.report());
        self.client.take(group.bytes);
        let status = self.resting_status();
        match group.end {
            End::Query | End::Sync => message::write_ready(self.client.out(), status),
            End::Flush => self.session.skipping = Skipping::UntilSync,
            End::Cut { rest, of } => {
                self.client.take(rest);
                match of {
                    Cut::Query => message::write_ready(self.client.out(), status),
                    Cut::Batch => self.session.skipping = Skipping::UntilSync,
                }
            }
        }
    }

    /// Refuses a group that was cancelled before it was sent, or before it was sent again. A
    /// transaction around it has only begun anew: it ends, and to the client it has failed.
    pub(super) fn refuse_cancelled(&mut self, group: &Group) {
        if self.attached.as_deref().is_some_and(|attached| attached.status != TxStatus::Idle) {
            self.drop_backend();
            self.session.lost_transaction = LostTransaction::Told;
        }
        if let LostTransaction::Untold(_) = self.session.lost_transaction {
            self.session.lost_transaction = LostTransaction::Told;
        }
        self.refuse_group(group, &No::Cancelled);
    }

    /// Refuses a group, with its transaction if it has one. It is what the server would come to
    /// only when it is done with what was sent before.
    pub(super) async fn refuse(&mut self, group: &Group, no: Box<No>) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else {
            self.refuse_group(group, &no);
            return Ok(());
        };
        if attached.exchange.replies.is_settled() {
            attached.ahead = Ahead::May;
            return Box::pin(self.refuse_in_transaction(group, no)).await;
        }
        attached.hear_first();
        Ok(())
    }

    /// Sends of a group only the `Sync` at its end: the server, which has failed its batch, passes
    /// over the rest. It is neither judged nor heard, for it is not run.
    pub(super) async fn pass_over(&mut self, group: &Group) -> Result<(), Stop> {
        self.leave_replaced().await?;
        self.session.mentioned.clear();
        self.session.own = HasOwn::Yes;
        let plan = self.plan(group);
        self.send(group, &plan)
    }

    /// Refuses a group inside a transaction, which fails by it: the server is made to fail it,
    /// so that it and the client agree.
    async fn refuse_in_transaction(&mut self, group: &Group, no: Box<No>) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        self.client.report(&no.report());
        self.client.take(group.bytes);
        match group.end {
            End::Query | End::Sync => fail_transaction(attached, own::FAILING),
            End::Flush => return self.fail_before_sync().await,
            End::Cut { .. } => {
                return Err(Stop::from(No::Protocol(
                    "a statement that was sent in pieces can't be refused in a transaction".into(),
                )));
            }
        }
        Ok(())
    }

    /// The same before the client has sent `Sync`, which gets the `ReadyForQuery`.
    async fn fail_before_sync(&mut self) -> Result<(), Stop> {
        let thread = self.session.seat.thread();
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        self.session.skipping = Skipping::UntilSync;
        (attached.segment, attached.sent) = (Segment::Closed, None);
        let reported = &mut self.client.reported;
        let failing = own::run(&mut attached.checkout, own::FAILING, reported);
        let loss = match thread.unless_cut(failing).await {
            Ok(Ok(answer)) => {
                self.client.out().extend_from_slice(&answer.for_client);
                if attached.status == TxStatus::Open {
                    attached.status = TxStatus::Failed;
                }
                return self.settle_if_free(clock::now()).await;
            }
            Ok(Err(own::Unanswered)) => Loss::Broken(None),
            Err(CutOff) => Loss::Replaced,
        };
        attached.exchange.replies.expect(Expect::OwnFailure);
        self.on_server_gone(loss).await
    }
}

/// Makes the server run something that fails, whose `ReadyForQuery` is the client's.
fn fail_transaction(attached: &mut Attached, sql: &str) {
    attached.exchange.replies.expect(Expect::OwnFailure);
    attached.exchange.shown = Shown::Yes;
    attached.checkout.unnamed_there = UnnamedThere::No;
    (attached.segment, attached.sent) = (Segment::Closed, None);
    message::write_query(&mut attached.exchange.to_server, sql);
}
