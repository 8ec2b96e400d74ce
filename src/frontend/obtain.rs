//! From a plan to a backend: decide, wait, check out, and decide again until it holds.
//!
//! The decision is a pure function; what is here only carries it out. Every wait ends when the
//! topology changes, when its time is up, when the client leaves or when it cancels.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::attached::{Proven, Standing};
use crate::frontend::cancel::Cancelled;
use crate::frontend::client::{Client, Gone};
use crate::frontend::memory::{Room, Share};
use crate::frontend::plan::Plan;
use crate::frontend::report::No;
use crate::frontend::seat::{News, Taken, Ticket};
use crate::frontend::state::{NeedsPrimary, Retry, Session, bit};
use crate::latest::Lent;
use crate::metrics::{ClientState, GuardOutcome, HoldOutcome, WaitOutcome};
use crate::pg::SqlState;
use crate::pool::{Checkout, CheckoutError, Wanted};
use crate::route;
use crate::route::{
    Ask, Consistency, Need, Patience, PrimaryReason, Proof, Refusal, Request, Route, Why, decide,
};
use crate::session::{Anchor, Demand, GROUP_MAX};
use crate::timer;
use crate::topology::{Epoch, NoPrimary, ServerId, Topology};
use crate::wire::message;
use crate::wire::message::ErrorReport;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

/// A backend for a group.
#[derive(Debug)]
pub(super) struct Obtained {
    /// The backend.
    pub checkout: Checkout,
    /// What its server was.
    pub standing: Standing,
    /// Whether it was shown to hold all that the session knew.
    pub proven: Proven,
    /// Under which primary.
    pub epoch: Epoch,
    /// Tells the session's seat of it, if it is the primary's.
    pub taken: Option<Taken>,
    /// Whether it was waited for.
    pub waited: Waited,
    /// When it was there.
    pub at: Moment,
}

/// Whether a group had to wait for its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// No.
    No,
    /// Yes: its client may have left meanwhile.
    Yes,
}

/// Why a group got no backend.
#[derive(Debug)]
pub(super) enum Unobtained {
    /// The client is to be told.
    No(Box<No>),
    /// The client is gone.
    Gone,
}

impl From<No> for Unobtained {
    fn from(no: No) -> Self {
        Self::No(Box::new(no))
    }
}

impl From<Gone> for Unobtained {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Pause before a server that could not be reached is tried once more.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What is tried for one group.
struct Attempt<'a> {
    client: &'a mut Client,
    session: &'a mut Session,
    plan: Plan,
    failed: u64,
    /// A standby whose sample did not vouch for the backend that came: no reads from it before a
    /// newer one.
    unproven: u32,
    last_error: Option<CheckoutError>,
    /// Its place among those who wait; taken at the first wait.
    ticket: Option<Ticket>,
    /// Its share of the memory for those who wait; likewise.
    share: Option<Share>,
    /// Since when it waits for a primary.
    held: Option<Moment>,
}

/// What comes next for a group.
enum Next {
    /// It has its backend.
    Got(Obtained),
    /// It is decided again.
    Again,
    /// It waits.
    Wait(Wait),
}

/// What a group waits for.
enum Wait {
    /// A backend of this server, to come free or to be opened.
    CheckOut(Choice),
    /// A newer word of this backend's server: the backend is younger than what speaks for it.
    Sample(Checkout),
    /// The same, of the primary.
    Footing(Checkout),
    /// Anything that may lead to another decision.
    News(Duration, News),
}

/// A decision for a server.
struct Choice {
    server: ServerId,
    why: Why,
    proof: Proof,
    topology: Lent<Topology>,
    now: Moment,
}

/// Finds a backend for a group, as of `now`.
///
/// Not cancel-safe: dropped, a backend that was granted meanwhile is closed.
pub(super) async fn obtain(
    client: &mut Client,
    session: &mut Session,
    plan: &Plan,
    (retry, now): (Option<&Retry>, Moment),
) -> Result<Obtained, Unobtained> {
    let mut plan = *plan;
    if let Some(retry) = retry {
        plan.since = retry.since;
        if retry.needs_primary == NeedsPrimary::Yes {
            plan.need = Need::Primary(PrimaryReason::Statement);
        }
    }
    // Nearly always a backend is free. Room for all that may be waited for otherwise is not kept
    // in every client: it is in a box, and what leads to that ends before it is waited for.
    let waiting = {
        let mut attempt = Attempt {
            client,
            session,
            plan,
            failed: retry.map_or(0, |retry| retry.failed),
            unproven: 0,
            last_error: None,
            ticket: None,
            share: None,
            held: None,
        };
        let wait = match attempt.decide_next(now)? {
            Next::Got(obtained) => return Ok(obtained),
            Next::Again => None,
            Next::Wait(wait) => Some(wait),
        };
        Box::pin(attempt.go_on(wait, now))
    };
    waiting.await
}

/// How often a backend may turn out to be younger than the sample that speaks for its server.
const UNPROVEN_MAX: u32 = 20;

impl Attempt<'_> {
    /// Waits and decides until there is a backend, or none is to be had. What is waited for first
    /// was decided at `now`.
    async fn go_on(mut self, wait: Option<Wait>, now: Moment) -> Result<Obtained, Unobtained> {
        let (mut wait, mut now) = (wait, now);
        let obtained = loop {
            let next = if let Some(wait) = wait.take() {
                self.wait_for(wait, now).await
            } else {
                now = clock::now();
                self.decide_next(now)
            };
            match next {
                Ok(Next::Got(obtained)) => break Ok(obtained),
                Ok(Next::Again) => {}
                Ok(Next::Wait(next)) => wait = Some(next),
                Err(unobtained) => break Err(unobtained),
            }
        };
        self.count_hold(&obtained);
        obtained
    }

    async fn wait_for(&mut self, wait: Wait, decided: Moment) -> Result<Next, Unobtained> {
        match wait {
            Wait::CheckOut(choice) => {
                let came = self.check_out(&choice).await?;
                return Ok(match came {
                    Some(checkout) => self.weigh(choice, checkout),
                    None => Next::Again,
                });
            }
            Wait::Sample(checkout) => self.wait_for_sample(checkout).await?,
            Wait::Footing(checkout) => self.wait_for_footing(checkout).await?,
            Wait::News(pause, news) => {
                self.wait(pause, news).await?;
                if self.failed != 0 && clock::now().since(decided) >= RECONNECT_PAUSE {
                    self.failed = 0;
                }
            }
        }
        Ok(Next::Again)
    }

    /// Decides, and takes a backend that is free.
    fn decide_next(&mut self, now: Moment) -> Result<Next, Unobtained> {
        let topology = self.client.shard.topology();
        let demand = self.demand(now, &topology);
        let live = self.client.shard.live();
        let route = self.decide(now, demand, &topology, &live.routing);
        match route {
            Route::Go { server, why, proof } => {
                let choice = Choice { server, why, proof, topology, now };
                let pool = self.session.pool(self.client, server);
                Ok(match pool.try_check_out(self.session.wanted()) {
                    Some(checkout) => self.weigh(choice, checkout),
                    None => Next::Wait(Wait::CheckOut(choice)),
                })
            }
            Route::Wait { ask, until } => {
                if ask == Ask::Primary {
                    self.held.get_or_insert(now);
                }
                self.ask(ask);
                let pause = until.since(clock::now());
                // A server that failed this group may be back: it is tried again in a moment.
                let pause = if self.failed == 0 { pause } else { pause.min(RECONNECT_PAUSE) };
                let news = match ask {
                    Ask::Primary => News::Since((topology.epoch, topology.primary)),
                    Ask::Nothing | Ask::Position(_) | Ask::Samples | Ask::Visibility(..) => {
                        News::Any
                    }
                };
                Ok(Next::Wait(Wait::News(pause, news)))
            }
            Route::Refuse(refusal) => Err(self.refuse(refusal, now)),
        }
    }

    /// Whether the backend that came is one that was decided for.
    fn weigh(&mut self, choice: Choice, checkout: Checkout) -> Next {
        let Choice { server, why, proof, topology, now } = choice;
        let standing = Standing::of(server, &topology);
        let taken = self.take(standing, topology.epoch);
        if !self.still_holds(&topology) {
            // The primary has changed while the backend was waited for.
            drop(taken);
            give_back(checkout, standing);
            return Next::Again;
        }
        if is_demoted(&checkout, standing, now) {
            self.client.shard.shared.signals.lost_backend(server);
            self.failed |= bit(server);
            return Next::Again;
        }
        if !proof.holds(checkout.backend.opened_at) {
            drop(taken);
            return Next::Wait(match proof {
                Proof::Vouched(_) => Wait::Footing(checkout),
                Proof::NoneNeeded | Proof::Anchored(_) | Proof::Sampled(_) => {
                    Wait::Sample(checkout)
                }
            });
        }
        self.count(standing, why, now);
        // The second read in a row that the floor drives to the primary waits.
        self.session.patience = if why == Why::Floor { Patience::Some } else { Patience::None };
        let (proven, epoch) = (self.proven(&checkout), topology.epoch);
        let (waited, at) = match self.share {
            Some(_) => (Waited::Yes, clock::now()),
            None => (Waited::No, now),
        };
        Next::Got(Obtained { checkout, standing, proven, epoch, taken, waited, at })
    }

    /// Whether this backend was shown to hold all that the session knows: by the decision, or by
    /// having shown it to the session before.
    fn proven(&self, checkout: &Checkout) -> Proven {
        let anchored = matches!(
            self.session.floor.anchor(),
            Anchor::Standby(server, seen)
                if server == checkout.server() && checkout.backend.opened_at <= seen
        );
        let read = matches!(self.plan.need, Need::Read | Need::Standby);
        if anchored || (read && self.plan.consistency != Consistency::Eventual) {
            Proven::Yes
        } else {
            Proven::No
        }
    }

    /// Counts a route, and what the session's promises have cost it.
    fn count(&self, standing: Standing, why: Why, now: Moment) {
        let statements = &self.client.shard.shared.metrics.statements;
        statements.routed(standing.served_by(), why);
        let bound = self.plan.consistency != Consistency::Eventual;
        let moved = matches!(self.session.floor.anchor(), Anchor::Standby(..) | Anchor::Left(..));
        if standing == Standing::Primary && moved && bound {
            statements.guarded(GuardOutcome::Passed);
        }
        let waited = now.since(self.plan.since);
        match (why, self.session.patience) {
            (Why::Floor, Patience::Some) => {
                statements.waited_for_replay(WaitOutcome::Fallback, waited);
            }
            (Why::Read, Patience::Some) => {
                statements.waited_for_replay(WaitOutcome::Reached, waited);
            }
            _ => {}
        }
        if why == Why::Floor {
            statements.stale_prevented.inc();
        }
    }

    /// Counts a hold for want of a primary, if there was one.
    fn count_hold(&self, obtained: &Result<Obtained, Unobtained>) {
        let Some(since) = self.held else { return };
        let outcome = match obtained {
            Ok(_) => HoldOutcome::Went,
            Err(Unobtained::Gone) => HoldOutcome::GivenUp,
            Err(Unobtained::No(no)) if matches!(**no, No::Cancelled) => HoldOutcome::GivenUp,
            Err(Unobtained::No(_)) => HoldOutcome::Refused,
        };
        self.client.shard.shared.metrics.clients.held(outcome, clock::now().since(since));
    }

    /// What the floor demands; a loss is reported and accepted, once.
    fn demand(&mut self, now: Moment, topology: &Topology) -> Demand {
        if self.plan.consistency != Consistency::Session {
            return Demand::Nothing;
        }
        match self.session.floor.demand(topology) {
            demand @ (Demand::Nothing | Demand::Position(_) | Demand::Unresolved(_)) => demand,
            Demand::Lost => {
                self.session.floor.accept_loss(now, topology.epoch);
                self.client.shard.shared.metrics.statements.positions_lost.inc();
                let warning = ErrorReport::warning(
                    SqlState::COMPLETION_UNKNOWN,
                    "the primary has changed; what this session wrote last may be lost",
                )
                .with_detail("Its position could not be shown to be part of the new primary's log.")
                .with_hint("Check your last writes.");
                message::write_notice(self.client.out(), &warning);
                self.session.floor.demand(topology)
            }
        }
    }

    fn decide(
        &self,
        now: Moment,
        demand: Demand,
        topology: &Topology,
        policy: &route::Policy,
    ) -> Route {
        let shard = &self.client.shard;
        let request = Request {
            need: self.need(),
            consistency: self.plan.consistency,
            demand,
            anchor: self.session.floor.anchor(),
            since: self.plan.since,
            failed: self.failed,
            load: &shard.loads(),
            turn: shard.turn(),
            patience: self.session.patience,
        };
        decide(now, &request, topology, policy)
    }

    fn need(&self) -> Need {
        // A standby that is never proven is one that never answers the sampler.
        if self.plan.need == Need::Read && self.unproven >= UNPROVEN_MAX {
            return Need::Primary(PrimaryReason::Mode);
        }
        self.plan.need
    }

    /// Tells the session's seat that it holds a backend of the primary.
    fn take(&self, standing: Standing, epoch: Epoch) -> Option<Taken> {
        (standing == Standing::Primary).then(|| self.session.seat.take(epoch))
    }

    /// Whether the primary is still the one by which it was decided. To be asked after the
    /// check-out was counted: then whoever waits for the last to leave has waited for us.
    fn still_holds(&self, decided: &Topology) -> bool {
        self.client.shard.reign() == (decided.epoch, decided.primary)
    }

    /// Whether the primary may let in whom this standby does not: a role, its password and a
    /// database are known there before they are replayed.
    fn primary_may_do(&self, server: ServerId, decided: &Topology) -> bool {
        let primary = decided.writable().filter(|primary| *primary != server);
        let free = matches!(self.plan.need, Need::Read | Need::Anywhere);
        free && primary.is_some_and(|primary| self.failed & bit(primary) == 0)
    }

    /// A backend of this server, where none is free; `None` if it could not be had and something
    /// else may do.
    async fn check_out(&mut self, choice: &Choice) -> Result<Option<Checkout>, Unobtained> {
        let &Choice { server, topology: ref decided, now: started, .. } = choice;
        let pool = self.session.pool(self.client, server);
        let elsewhere = self.primary_may_do(server, decided);
        let identity = self.session.identity.clone();
        if elsewhere && pool.is_avoided(identity.as_ref(), started) {
            self.failed |= bit(server);
            return Ok(None);
        }
        let patience = self.client.shard.pools.policy().wait_timeout;
        let settings = std::sync::Arc::clone(&self.session.settings);
        let wanted = Wanted { identity: identity.as_ref(), settings: &settings };
        let seats = Rc::clone(&self.client.shard.seats);
        let ticket = self.ticket();
        let reign = (decided.epoch, decided.primary);
        // A server that hangs would be waited for in vain while another is the primary already.
        let coming = async {
            tokio::select! {
                biased;
                came = pool.check_out(wanted, (started, patience)) => Some(came),
                () = seats.news(ticket, News::Since(reign)) => None,
            }
        };
        let came = self.while_there(pin!(coming)).await?;
        self.client.shard.shared.metrics.clients.waited(clock::now().since(started));
        let Some(came) = came else { return Ok(None) };
        match came {
            Ok(checkout) => Ok(Some(checkout)),
            Err(error @ CheckoutError::Connect { .. }) if elsewhere && error.is_final() => {
                tracing::debug!(%error, server = %server, "a standby does not let this user in");
                pool.avoid(identity.as_ref(), clock::now());
                self.failed |= bit(server);
                self.last_error = Some(error);
                Ok(None)
            }
            Err(CheckoutError::Connect { server, error }) if error.is_final() => {
                Err(No::Checkout(CheckoutError::Connect { server, error }).into())
            }
            Err(error @ CheckoutError::Connect { .. }) => {
                tracing::debug!(%error, server = %server, "no backend could be opened");
                self.client.shard.shared.signals.lost_backend(server);
                self.failed |= bit(server);
                self.last_error = Some(error);
                Ok(None)
            }
            Err(error @ (CheckoutError::Exhausted { .. } | CheckoutError::NoSuchServer)) => {
                Err(No::Checkout(error).into())
            }
        }
    }

    /// The backend is younger than what speaks for its server: asks for a sample that is not.
    async fn wait_for_sample(&mut self, checkout: Checkout) -> Result<(), Unobtained> {
        let (server, opened_at) = (checkout.server(), checkout.backend.opened_at);
        checkout.release(clock::now());
        self.unproven += 1;
        if let Anchor::Standby(anchor, _) = self.session.floor.anchor()
            && anchor == server
        {
            // The session's backend there is gone; what it showed must be proved anew.
            self.session.floor.leave_anchor();
        }
        self.client.shard.shared.signals.want_sample(server, opened_at);
        let patience = self.client.shard.live().routing.replay_wait_max;
        self.wait(patience, News::Any).await
    }

    /// The primary's backend is younger than what is known of the primary: it may have restarted
    /// since, and show what none of its standbys holds. Asks for a newer word of it.
    async fn wait_for_footing(&mut self, checkout: Checkout) -> Result<(), Unobtained> {
        let (server, opened_at) = (checkout.server(), checkout.backend.opened_at);
        let now = clock::now();
        checkout.release(now);
        if now >= self.plan.since + self.client.shard.live().routing.hold_max {
            return Err(self.refuse(Refusal::NoPrimary(NoPrimary::Settling), now));
        }
        self.client.shard.shared.signals.want_sample(server, opened_at);
        self.wait(RECONNECT_PAUSE, News::Any).await
    }

    /// Waits for news, at most for `pause`, as long as the client is there. Nothing may be waited
    /// for between the look at the topology and this.
    async fn wait(&mut self, pause: Duration, of: News) -> Result<(), Unobtained> {
        let seats = Rc::clone(&self.client.shard.seats);
        let news = seats.news(self.ticket(), of);
        // Both ends of the wait lead to the same: another decision.
        let timed = async { timer::timeout(pause, news).await.is_ok() };
        self.while_there(pin!(timed)).await.map(|_| ())
    }

    /// The group's place among those who wait, which it keeps.
    fn ticket(&mut self) -> Ticket {
        *self.ticket.get_or_insert_with(|| self.client.shard.seats.queue())
    }

    fn ask(&self, ask: Ask) {
        let signals = &self.client.shard.shared.signals;
        match ask {
            Ask::Nothing | Ask::Primary => {}
            Ask::Position(mark) => signals.want_position(mark),
            Ask::Samples => {
                let now = clock::now();
                let topology = self.client.shard.topology();
                for server in topology.servers.iter().filter(|server| server.reads.is_ok()) {
                    signals.want_sample(server.id, now);
                }
            }
            Ask::Visibility(server, seen) => signals.want_visibility(server, seen),
        }
    }

    fn refuse(&mut self, refusal: Refusal, now: Moment) -> Unobtained {
        if refusal == Refusal::NotVisible {
            self.client.shard.shared.metrics.statements.guarded(GuardOutcome::Timeout);
        }
        if let Some(error) = self.last_error.take()
            && matches!(refusal, Refusal::NoServer)
        {
            return No::Checkout(error).into();
        }
        No::Refused(refusal, now.since(self.plan.since)).into()
    }

    /// Waits for `future`, as long as the client is there and has not cancelled.
    async fn while_there<T>(
        &mut self,
        future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Unobtained> {
        if self.share.is_none() {
            let share = Share::take(&self.client.shard.shared, self.client.inbox().len());
            self.share = Some(share.ok_or(No::TooMuchHeld)?);
        }
        let before = self.session.presence.turn(ClientState::Waiting);
        let came = self.listening(future).await;
        self.session.presence.turn(before);
        came
    }

    async fn listening<T>(
        &mut self,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Unobtained> {
        let mut room = Room::Yes;
        poll_fn(|context| {
            // Who cancels wakes the session, and so do the others.
            if self.session.cancel.heed(self.client.inbox()) == Cancelled::Yes {
                return Poll::Ready(Err(No::Cancelled.into()));
            }
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            while room == Room::Yes && self.client.inbox().len() < GROUP_MAX {
                ready!(self.client.poll_more(context))?;
                if let Some(share) = &mut self.share {
                    room = share.grow(self.client.inbox().len());
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// A backend that is not needed after all. The primary's may be of one that is none any more.
fn give_back(checkout: Checkout, standing: Standing) {
    match standing {
        Standing::Primary => drop(checkout),
        Standing::Standby => checkout.release(clock::now()),
    }
}

/// Whether the primary itself has just told us that it is none: its role changed, and the control
/// plane has not seen it yet. What it told before it became the primary does not count.
fn is_demoted(checkout: &Checkout, standing: Standing, decided: Moment) -> bool {
    standing == Standing::Primary
        && checkout.backend.opened_at > decided
        && checkout.backend.param("in_hot_standby") == Some(b"on")
}
