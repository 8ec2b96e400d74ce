//! A session that stays with its backend, and nevertheless has to wait: there is no primary now,
//! or it is about to hand over, and nothing new is to begin on the old one.
//!
//! Sessions without a backend wait where they look for one. These go on listening to theirs: it
//! may be lost meanwhile, or have something to say.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::attached::{Resting, Standing};
use crate::frontend::cancel::Cancelled;
use crate::frontend::exchange::Appetite;
use crate::frontend::memory::{Room, Share};
use crate::frontend::overdue::Doing;
use crate::frontend::report::No;
use crate::frontend::seat::{News, Ticket};
use crate::frontend::serve::Stop;
use crate::frontend::state::Serving;
use crate::metrics::{ClientState, HoldOutcome};
use crate::route::Refusal;
use crate::session::Group;
use crate::timer;
use crate::topology::NoPrimary;
use std::rc::Rc;
use std::sync::Arc;

/// A statement that waits beside its backend.
#[derive(Debug)]
pub(super) struct Held {
    since: Moment,
    ticket: Ticket,
    share: Share,
}

impl Serving {
    /// Whether what the client asks next has to wait although the session has a backend. A
    /// transaction that is open goes on.
    pub(super) fn must_hold(&mut self) -> bool {
        let Some(attached) = self.attached.as_deref_mut() else { return false };
        if attached.standing != Standing::Primary || !attached.is_free() {
            return false;
        }
        // First it counts as working, then the primary is looked at.
        attached.resting = None;
        match self.client.shard.may_write(clock::now()) {
            Ok(server) if server == attached.server => {
                if let Some(held) = self.session.held.take() {
                    self.count_hold(HoldOutcome::Went, held.since);
                }
                false
            }
            Ok(_) | Err(_) => {
                let signals = &self.client.shard.shared.signals;
                attached.resting = Some(Resting::new(signals, attached.server));
                true
            }
        }
    }

    /// Waits until something happens that may let the group go, or ends it.
    ///
    /// Not cancel-safe: the session could not be cancelled any more.
    pub(super) async fn hold_here(&mut self, group: &Group) -> Result<(), Stop> {
        let shard = Rc::clone(&self.client.shard);
        let reign = shard.reign();
        let Some(held) = self.session.held.take().or_else(|| self.queue()) else {
            self.refuse_group(group, &No::TooMuchHeld);
            return Ok(());
        };
        let Held { since, ticket, mut share } = *held;
        let now = clock::now();
        let left = (since + shard.live().routing.hold_max).since(now);
        let why = shard.may_write(now).err();
        if left.is_zero() {
            let why = why.unwrap_or(NoPrimary::Unseen);
            self.count_hold(HoldOutcome::Refused, since);
            let held = now.since(since);
            self.refuse_group(group, &No::Refused(Refusal::NoPrimary(why), held));
            return Ok(());
        }
        let room = share.grow(self.client.inbox().len());
        self.session.held = Some(Box::new(Held { since, ticket, share }));
        self.session.presence.turn(ClientState::Waiting);
        self.session.seat.turn(Doing::Waits, clock::now());
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        // What is held has not been sent: a cancel finds it here.
        let running = Arc::clone(&attached.checkout.running);
        attached.exchange.appetite = match room {
            Room::Yes => Appetite::OneGroup,
            Room::No => Appetite::Nothing,
        };
        self.session.cancel.detach();
        // Any word of the control plane may end its silence.
        let silent = why == Some(NoPrimary::Unwatched);
        let news = if silent { News::Any } else { News::Since(reign) };
        let happened = tokio::select! {
            biased;
            () = self.session.cancel.until_cancelled() => Happened::Cancelled,
            event = attached.exchange.next(
                &mut self.client,
                &mut attached.checkout,
                &self.session,
            ) => Happened::Event(event),
            () = shard.seats.news(ticket, news) => Happened::Nothing,
            () = timer::sleep(left) => Happened::Nothing,
        };
        self.session.cancel.attach(running);
        let cancelled = self.session.cancel.cancelled();
        match happened {
            Happened::Nothing if cancelled == Cancelled::No => {}
            Happened::Nothing | Happened::Cancelled => {
                self.count_hold(HoldOutcome::GivenUp, since);
                self.refuse_group(group, &No::Cancelled);
            }
            Happened::Event(event) => self.on_event(event).await?,
        }
        Ok(())
    }
}

impl Serving {
    fn count_hold(&self, outcome: HoldOutcome, since: Moment) {
        self.client.shard.shared.metrics.clients.held(outcome, clock::now().since(since));
    }

    /// A place among those who wait, if there is memory for one more.
    fn queue(&self) -> Option<Box<Held>> {
        let ticket = self.client.shard.seats.queue();
        let share = Share::take(&self.client.shard.shared, self.client.inbox().len())?;
        Some(Box::new(Held { since: clock::now(), ticket, share }))
    }
}

/// What ended a wait.
enum Happened {
    Nothing,
    Cancelled,
    Event(crate::frontend::exchange::Event),
}
