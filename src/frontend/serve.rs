//! One client, from its login to its end: read a group, find it a backend, relay, release.
//!
//! The loop has two questions: is there a group that may be sent now, and if not, what happens
//! next. A group is kept in the inbox until the client has seen some of its answer, so that one
//! that showed nothing can be tried again.

use crate::clock;
use crate::frontend::attach::Found;
use crate::frontend::attached::{Attached, Segment, Standing};
use crate::frontend::cancel::Cancelled;
use crate::frontend::client::Gone;
use crate::frontend::exchange::Appetite;
use crate::frontend::listening;
use crate::frontend::local;
use crate::frontend::local::Answer;
use crate::frontend::lost::LostTransaction;
use crate::frontend::memory;
use crate::frontend::obtain::Waited;
use crate::frontend::overdue::Overdue;
use crate::frontend::own;
use crate::frontend::plan::{Material, Plan, plan};
use crate::frontend::report::No;
use crate::frontend::seat::{SentAway, Work};
use crate::frontend::settle;
use crate::frontend::settle::Usable;
use crate::frontend::state::{Serving, Session, Skipping};
use crate::pool::{Mode, Reset};
use crate::reactor;
use crate::route::{Consistency, Need, PrimaryReason};
use crate::session::{End, Executes, Group, Isolates, Reader, Scan, Violation, scan};
use crate::tasks;
use crate::topology::Wish;
use crate::wire::frame;
use crate::wire::frame::TxStatus;
use crate::wire::message;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tracing::info;

/// What takes so long to read, in bytes, that others' answers are not kept waiting for it.
const LONG: usize = 64 * 1024;

/// How the conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodbye {
    /// The client said so, or left.
    Client,
    /// pgsteer closed it, for a reason that the client was told.
    Refused,
}

/// Serves one client until it leaves. Whatever it holds is given back or closed by its guard.
pub async fn serve(serving: &mut Serving) -> Goodbye {
    // What is known between two waits is room in every client: so little is kept over one.
    let why = loop {
        if serving.is_to_take_its_answers()
            && let Err(why) = Box::pin(serving.relieve()).await
        {
            break why;
        }
        let next = match serving.next_group() {
            Ok(next) => next,
            Err(violation) => break Stop::from(violation),
        };
        let step = match next {
            Next::Group(group) => serving.dispatch(&group).await,
            Next::Skipped => Ok(()),
            Next::Nothing => serving.wait().await,
            Next::Terminate => return serving.goodbye().await,
        };
        if let Err(why) = step {
            break why;
        }
    };
    if let Stop::Refuse(no) = why {
        return Box::pin(serving.turn_out(*no)).await;
    }
    Goodbye::Client
}

/// Why the loop ends.
#[derive(Debug)]
pub(super) enum Stop {
    /// The client is gone.
    Gone,
    /// The client is told this and closed.
    Refuse(Box<No>),
}

impl From<No> for Stop {
    fn from(no: No) -> Self {
        Self::Refuse(Box::new(no))
    }
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<SentAway> for Stop {
    fn from(why: SentAway) -> Self {
        Self::from(match why {
            SentAway::Closing => No::ShuttingDown,
            SentAway::Overdue(overdue) => No::Overdue(overdue),
        })
    }
}

/// What can be done now.
enum Next {
    /// Send this group.
    Group(Group),
    /// Something was passed over: look again.
    Skipped,
    /// Wait.
    Nothing,
    /// The client says goodbye.
    Terminate,
}

impl Serving {
    /// The group that may be sent now, if one is there.
    fn next_group(&mut self) -> Result<Next, Violation> {
        if let Some(attached) = &mut self.attached {
            attached.exchange.appetite = Appetite::OneGroup;
            if attached.exchange.is_copying_in() || attached.exchange.client_pass > 0 {
                if attached.exchange.passes_on(&mut self.client) {
                    return Ok(Next::Nothing);
                }
                if attached.exchange.is_copying_in() {
                    return unexpected_in_copy(self.client.inbox());
                }
                // The rest of a message has gone; what comes behind it is looked at as ever.
            }
            if attached.may_have_to_leave() && !attached.exchange.replies.is_settled() {
                return Ok(Next::Nothing);
            }
            if !attached.may_send() || attached.sent.is_some_and(|sent| sent.kept > 0) {
                return Ok(Next::Nothing);
            }
            if attached.must_hear_first(self.client.inbox()) {
                return Ok(Next::Nothing);
            }
        }
        if self.session.skipping == Skipping::UntilSync {
            return self.skip();
        }
        if self.client.inbox().is_empty() {
            if let Some(attached) = &mut self.attached {
                attached.exchange.appetite = Appetite::WholeMessage;
            }
            return Ok(Next::Nothing);
        }
        if self.client.inbox().len() > LONG {
            reactor::send_now();
        }
        let dialect = self.client.reported.dialect();
        let facts = &self.client.shard.facts;
        let unnamed = self.session.unnamed.as_ref().map(|unnamed| &unnamed.facts);
        let mut mentioned = std::mem::take(&mut self.session.mentioned);
        let mut framed = self.client.framed;
        let scanned = scan(
            self.client.inbox(),
            &mut Reader {
                names: &self.session.names,
                unnamed,
                examine: &mut |sql| facts.borrow_mut().examine(sql, dialect),
                framed: &mut framed,
                most: self.session.most,
                mentioned: &mut mentioned,
            },
        );
        self.session.mentioned = mentioned;
        self.client.framed = framed;
        Ok(match scanned? {
            Scan::Incomplete => {
                if let Some(attached) = &mut self.attached {
                    attached.exchange.appetite = Appetite::WholeMessage;
                }
                Next::Nothing
            }
            Scan::Group(group) => Next::Group(group),
            Scan::Leftover(bytes) => {
                self.client.take(bytes);
                Next::Skipped
            }
            Scan::Terminate => Next::Terminate,
        })
    }

    /// Whether a client asks on that does not take its answers. What a server answers is held back
    /// there; what needs none would pile up here.
    fn is_to_take_its_answers(&self) -> bool {
        self.client.is_backed_up()
            && !self.client.inbox().is_empty()
            && !self.session.seat.is_cut()
            && self.attached.as_deref().is_none_or(|attached| {
                let exchange = &attached.exchange;
                exchange.replies.is_settled()
                    && !exchange.is_copying_in()
                    && exchange.client_pass == 0
            })
    }

    /// Waits until the client has taken enough of its answers, or is to be told that it lost its
    /// backend.
    async fn relieve(&mut self) -> Result<(), Stop> {
        let Self { client, session, .. } = self;
        let seat = &session.seat;
        let relief =
            poll_fn(
                |context| {
                    if seat.is_cut() { Poll::Ready(Ok(())) } else { client.poll_relief(context) }
                },
            );
        match seat.unless_sent_away(Work::Some, relief).await {
            Ok(relieved) => Ok(relieved?),
            // Nothing runs that could be cancelled.
            Err(SentAway::Overdue(Overdue::Statement(_))) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// Passes over messages up to `Sync`, which is answered.
    fn skip(&mut self) -> Result<Next, Violation> {
        let Some(header) = frame::peek(self.client.inbox())? else { return Ok(Next::Nothing) };
        match header.tag {
            b'X' => return Ok(Next::Terminate),
            b'S' => {
                self.session.skipping = Skipping::No;
                self.client.take(header.total);
                let status = self
                    .attached
                    .as_ref()
                    .map_or_else(|| self.resting_status(), |held| held.status);
                message::write_ready(self.client.out(), status);
            }
            _ => self.client.take(header.total),
        }
        Ok(Next::Skipped)
    }

    /// Waits for whatever comes next.
    async fn wait(&mut self) -> Result<(), Stop> {
        if self.is_to_listen() {
            // It waits for no answer, so there is nothing to cancel. More may come meanwhile.
            self.session.cancel.begin();
            return Box::pin(self.listen_again()).await;
        }
        let Some(attached) = self.attached.as_deref_mut() else {
            let work = if self.client.inbox().is_empty() { Work::None } else { Work::Some };
            return self.rest(work).await;
        };
        let seat = &self.session.seat;
        let rests = attached.is_free() && self.client.inbox().is_empty();
        let work = if rests { Work::None } else { Work::Some };
        let (client, conn) = (&mut self.client, &mut attached.checkout);
        let next = attached.exchange.next(client, conn, &self.session);
        match seat.unless_sent_away(work, next).await {
            Ok(event) => self.on_event(event).await,
            Err(SentAway::Overdue(overdue @ Overdue::Statement(allowed))) => {
                if attached.exchange.overdue.is_some() && self.client.is_backed_up() {
                    // It does not read, and a server that waits for it heeds no cancel.
                    self.drop_backend();
                    return Err(Stop::from(No::Overdue(overdue)));
                }
                attached.exchange.overdue = Some(allowed);
                self.cancel_overdue(allowed.limit);
                Ok(())
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Cancels what runs too long, as its client could: its answer says so, or that it was done.
    fn cancel_overdue(&self, limit: Duration) {
        let Session { user, database, cancel, .. } = &self.session;
        info!(event = "overdue", %user, %database, ?limit, "a statement is cancelled");
        let (cancels, pid) = (Arc::clone(&self.client.shard.shared.cancels), cancel.pid);
        let secret = cancel.secret.clone();
        tasks::spawn_local("overdue statement", async move {
            cancels.cancel(pid, &secret).await;
        });
    }

    /// Sends a group, to the backend in hand or to one that is found for it.
    async fn dispatch(&mut self, group: &Group) -> Result<(), Stop> {
        if self.attached.as_deref().is_some_and(Attached::passes_over) {
            return Box::pin(self.pass_over(group)).await;
        }
        if !self.has_waited() {
            self.session.cancel.begin();
        } else if self.session.cancel.cancelled() == Cancelled::Yes {
            self.refuse_cancelled(group);
            return Ok(());
        }
        match self.answer(group)? {
            Answer::Here => return Ok(()),
            Answer::Elsewhere => {}
            Answer::No(no) => return self.refuse(group, no).await,
        }
        self.leave_replaced().await?;
        if self.session.skipping == Skipping::UntilSync {
            return Ok(()); // It goes on with what was lost there, as its client was told.
        }
        if self.must_hold() {
            return Box::pin(self.hold_here(group)).await;
        }
        if self.has_lost() && Box::pin(self.tell_of_loss(group)).await? {
            return Ok(());
        }
        let plan = self.plan(group);
        let mut now = plan.since;
        if self.must_leave(&plan) {
            Box::pin(self.leave()).await?;
            now = clock::now();
        }
        if self.must_begin_anew(&plan) {
            if let Err(no) = Box::pin(self.move_to_primary(&plan)).await? {
                self.session.lost_transaction = LostTransaction::Told;
                self.refuse_group(group, &no);
                return Ok(());
            }
            if self.session.cancel.cancelled() == Cancelled::Yes {
                self.refuse_cancelled(group);
                return Ok(());
            }
        }
        if self.attached.is_none() {
            match self.attach_at(&plan, now).await? {
                // What was held beside a backend that was lost has another now.
                Found::Backend => self.session.held = None,
                Found::Nothing(no) => {
                    self.refuse_group(group, &no);
                    return Ok(());
                }
            }
        } else if let Some(no) = self.unfit_for_present(&plan) {
            return self.refuse(group, no).await;
        }
        match self.make_usable(group, &plan).await? {
            Usable::Yes => {}
            // What comes in parts can't be refused, and nobody waits for it yet.
            Usable::Cancelled if matches!(group.end, End::Cut { .. }) => {}
            Usable::Gone => return Ok(()),
            Usable::Cancelled => return self.refuse(group, Box::new(No::Cancelled)).await,
        }
        if let Some(attached) = self.attached.as_deref_mut() {
            listening::tell_what_backend_heard(&mut self.client, attached);
            listening::note_sender(&self.client, attached, &plan);
            attached.exchange.wish = match self.session.wishes.consistency {
                Consistency::Session => Wish::Position,
                Consistency::Eventual | Consistency::Primary => Wish::None,
            };
        }
        self.send(group, &plan)
    }

    /// Whether the group has waited for anything before: then a cancel may have been for it.
    fn has_waited(&mut self) -> bool {
        let unseen = std::mem::replace(&mut self.session.waited, Waited::No);
        unseen == Waited::Yes || self.retry.is_some() || self.session.held.is_some()
    }

    /// What can be said to a group without a server.
    fn answer(&mut self, group: &Group) -> Result<Answer, Stop> {
        if self.session.withheld.is_some() {
            self.want_again();
        }
        if self.attached.is_none() && self.session.listening.is_some() {
            self.tell_all_heard();
        }
        let taken = self.attached.as_deref().map_or(0, |attached| attached.strays.bytes());
        let no = memory::too_much_kept(&self.session, taken, group)?;
        let no = no.or_else(|| self.names_ours(group));
        if let Some(no) = no.or_else(|| self.note_settings(group)) {
            return Ok(Answer::No(Box::new(no)));
        }
        let attached = self.attached.as_deref_mut();
        Ok(local::answer(&mut self.client, &mut self.session, group, attached))
    }

    /// Notes the settings that a group may leave on its backend; why it can't be sent if they are
    /// too many to be followed.
    fn note_settings(&mut self, group: &Group) -> Option<No> {
        let tracks = || self.client.shard.pools.policy().reset != Reset::Off;
        let noted = match group.executes {
            Executes::Something => self.session.note_settings(),
            Executes::Nothing => Ok(()),
        };
        if noted.is_ok() || !tracks() {
            return None;
        }
        // What was refused before may have left names, of which no probe tells.
        if self.attached.is_none() {
            self.session.forget_names(&BTreeSet::new());
        }
        self.session.note_settings().is_err().then_some(No::TooManyCustom)
    }

    pub(super) fn plan(&mut self, group: &Group) -> Plan {
        let topology = self.client.shard.topology();
        let (catalog, now) = (topology.catalog(&self.session.database), clock::now());
        match catalog {
            _ if self.session.mentioned.is_empty() => {}
            Some(catalog) => catalog.note_use(),
            None => self.client.shard.shared.signals.want_catalog(&self.session.database, now),
        }
        let mut planned = plan(&Material {
            mentioned: &self.session.mentioned,
            catalog: catalog.map(|catalog| &**catalog),
            wishes: self.session.wishes,
            end: group.end,
            executes: group.executes,
            now,
        });
        // A session that keeps its backend must be able to write on it.
        if self.client.shard.pools.policy().mode == Mode::Session
            && matches!(planned.need, Need::Read | Need::Anywhere)
        {
            planned.need = Need::Primary(PrimaryReason::Mode);
        }
        if matches!(planned.need, Need::Read | Need::Anywhere)
            && self.session.isolates() == Isolates::OnPrimary
        {
            planned.need = Need::Primary(PrimaryReason::Statement);
        }
        planned
    }

    /// Whether statements were only prepared on a standby, and now comes one that it can't run.
    fn must_leave(&self, plan: &Plan) -> bool {
        let leavable = self.attached.as_ref().is_some_and(|attached| attached.may_have_to_leave());
        leavable && plan.unfit.is_some()
    }

    /// Ends the implicit transaction on a standby, in which nothing was executed, and gives the
    /// backend back: what was prepared there follows the session.
    async fn leave(&mut self) -> Result<(), Stop> {
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        attached.segment = Segment::Closed;
        attached.sent = None;
        let reported = &mut self.client.reported;
        let Ok(answer) = own::run(&mut attached.checkout, ";", reported).await else {
            self.drop_backend();
            return Ok(());
        };
        self.client.out().extend_from_slice(&answer.for_client);
        self.settle(clock::now()).await
    }

    /// Why the group can't be sent to the backend in hand.
    fn unfit_for_present(&self, plan: &Plan) -> Option<Box<No>> {
        let attached = self.attached.as_ref()?;
        match (attached.standing, plan.forbidden) {
            (Standing::Standby, Some(why)) if attached.status == TxStatus::Open => {
                Some(Box::new(No::NotOnStandby(why)))
            }
            _ => None,
        }
    }

    /// The client says goodbye: what it holds is given back if it is clean, else closed.
    async fn goodbye(&mut self) -> Goodbye {
        if let Some(attached) = self.attached.take_if(|attached| attached.is_free()) {
            let reset = self.client.shard.pools.policy().reset;
            let released =
                settle::release_at_end((&self.session, &self.client), reset, attached.into_inner());
            Box::pin(released).await;
        }
        self.abandon_read();
        // What it asked before is answered, as by a server.
        if self.client.has_output() {
            Box::pin(self.client.farewell()).await;
        }
        Goodbye::Client
    }
}

/// A message other than COPY data while the server copies in.
fn unexpected_in_copy(inbox: &[u8]) -> Result<Next, Violation> {
    match frame::peek(inbox)? {
        Some(header) if header.tag == b'X' => Ok(Next::Terminate),
        Some(header) if !matches!(header.tag, b'd' | b'c' | b'f' | b'S' | b'H') => {
            Err(Violation::Unexpected { tag: char::from(header.tag) })
        }
        _ => Ok(Next::Nothing),
    }
}
