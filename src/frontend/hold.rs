//! A session that stays with its backend, and nevertheless has to wait: there is no primary now,
//! or it is about to hand over, and nothing new is to begin on the old one.
//!
//! Sessions without a backend wait where they look for one. These go on listening to theirs: it
//! may be lost meanwhile, or have something to say.

use crate::clock;
use crate::frontend::attached::{Resting, Standing};
use crate::frontend::report::No;
use crate::frontend::seat::News;
use crate::frontend::serve::Stop;
use crate::frontend::state::Serving;
use crate::metrics::ClientState;
use crate::route::Refusal;
use crate::session::Group;
use crate::topology::{NoPrimary, Primary};
use std::rc::Rc;
use std::sync::Arc;

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
        let (_, primary) = self.client.shard.reign();
        match primary {
            Primary::Open { server, .. } if server == attached.server => {
                self.session.held = None;
                false
            }
            Primary::Open { .. } | Primary::None { .. } => {
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
        let queue = || (clock::now(), shard.seats.queue());
        let (since, ticket) = *self.session.held.get_or_insert_with(queue);
        let left = (since + shard.live().routing.hold_max).since(clock::now());
        if left.is_zero() {
            let why = match reign.1 {
                Primary::None { why, .. } => why,
                Primary::Open { .. } => NoPrimary::Unseen,
            };
            let held = clock::now().since(since);
            self.refuse_group(group, &No::Refused(Refusal::NoPrimary(why), held));
            return Ok(());
        }
        self.presence.turn(ClientState::Waiting);
        let Some(attached) = self.attached.as_deref_mut() else { return Ok(()) };
        // What is held has not been sent: a cancel finds it here.
        let running = Arc::clone(&attached.checkout.running);
        self.session.cancel.detach();
        self.session.cancel.hold();
        let happened = tokio::select! {
            biased;
            () = self.session.cancel.cancelled_while_held() => Happened::Cancelled,
            event = attached.exchange.next(
                &mut self.client,
                &mut attached.checkout,
                &self.session.seat,
            ) => Happened::Event(event),
            () = shard.seats.news(ticket, News::Since(reign)) => Happened::Nothing,
            () = tokio::time::sleep(left) => Happened::Nothing,
        };
        self.session.cancel.attach(running);
        match happened {
            Happened::Nothing => {}
            Happened::Cancelled => self.refuse_group(group, &No::Cancelled),
            Happened::Event(event) => self.on_event(event).await?,
        }
        Ok(())
    }
}

/// What ended a wait.
enum Happened {
    Nothing,
    Cancelled,
    Event(crate::frontend::exchange::Event),
}
