//! A session and a backend come together: one is found, given the session's settings, and held.

use crate::clock;
use crate::clock::Moment;
use crate::frontend::attached::{
    Ahead, Attached, Computed, Deallocated, Doomed, Lasting, Reads, Segment, ShownData, Standing,
};
use crate::frontend::block::Block;
use crate::frontend::cancel::Cancelled;
use crate::frontend::exchange::Exchange;
use crate::frontend::obtain::{Obtained, Unobtained, Waited, obtain};
use crate::frontend::plan::{Plan, Taint};
use crate::frontend::processes::Processes;
use crate::frontend::report::No;
use crate::frontend::seat::CutOff;
use crate::frontend::serve::Stop;
use crate::frontend::settle;
use crate::frontend::state::{Resets, Serving};
use crate::frontend::withheld::TRIES_MAX;
use crate::route::Refusal;
use crate::session::{Pins, Strays, UnnamedThere};
use crate::wire::frame::TxStatus;
use std::sync::Arc;

impl Serving {
    /// Finds a backend and brings the session's settings to it.
    pub(super) async fn attach(&mut self, plan: &Plan) -> Result<Found, Stop> {
        self.attach_at(plan, clock::now()).await
    }

    /// The same, `now`.
    pub(super) async fn attach_at(&mut self, plan: &Plan, now: Moment) -> Result<Found, Stop> {
        let Self { client, session, retry, .. } = self;
        if let Some(listening) = &mut session.listening {
            listening.has_no_backend(client);
        }
        let obtained = match obtain(client, session, plan, (retry.as_ref(), now)).await {
            Ok(obtained) => obtained,
            Err(unobtained) => return unobtained.found(),
        };
        if obtained.waited == Waited::Yes && self.client.look().await.is_err() {
            return Err(obtained.unwanted());
        }
        if settle::is_ready(&self.client, &self.session, plan, &obtained) {
            return match self.hold(obtained) {
                Cancelled::No => Ok(Found::Backend),
                Cancelled::Yes => self.put_back_cancelled().await,
            };
        }
        // Boxed, as it is rare: every client would keep room for it.
        Box::pin(self.prepare_and_hold(plan, obtained)).await
    }

    /// Brings the session's settings to a backend, or to another that is found if that one fails.
    async fn prepare_and_hold(&mut self, plan: &Plan, found: Obtained) -> Result<Found, Stop> {
        let (mut obtained, mut plan, mut refused) = (found, *plan, 0);
        loop {
            let plan = &mut plan;
            if settle::is_ready(&self.client, &self.session, plan, &obtained) {
                return self.hold_wanted(obtained).await;
            }
            let thread = self.session.seat.thread();
            let bringing =
                settle::bring_settings(&mut self.client, &mut self.session, plan, obtained);
            match thread.unless_cut(bringing).await {
                // The settings took a round trip, and the primary may have changed meanwhile.
                Ok(Ok(obtained)) if self.has_ended(&obtained) => {}
                Ok(Ok(obtained)) => return self.hold_wanted(obtained).await,
                Ok(Err(settle::NotBrought::Refused(_))) if refused >= TRIES_MAX => {
                    let held = clock::now().since(plan.since);
                    return Ok(No::Refused(Refusal::NoServer, held).into());
                }
                Ok(Err(settle::NotBrought::Refused(by))) => {
                    refused += 1;
                    let thread = self.session.seat.thread();
                    if let Ok(Err(no)) = thread.unless_cut(self.on_refused(plan, *by)).await {
                        return Ok(no.into());
                    }
                }
                // That backend is gone; the next one may be well.
                Ok(Err(settle::NotBrought::Broken)) if self.has_held_long(plan) => {
                    let held = clock::now().since(plan.since);
                    return Ok(No::Refused(Refusal::NoServer, held).into());
                }
                Ok(Err(settle::NotBrought::Broken)) | Err(CutOff) => {}
            }
            let Self { client, session, retry, .. } = self;
            obtained = match obtain(client, session, plan, (retry.as_ref(), clock::now())).await {
                Ok(obtained) => obtained,
                Err(unobtained) => return unobtained.found(),
            };
        }
    }

    /// Finds a backend for a plan of ours, or why there is none.
    pub(super) async fn attach_or_no(&mut self, plan: &Plan) -> Result<Result<(), No>, Stop> {
        Ok(match self.attach(plan).await? {
            Found::Backend => Ok(()),
            Found::Nothing(no) => Err(*no),
        })
    }

    /// Holds a backend, if it is still wanted: a statement that waited is sent only for a client
    /// that is there, and that has not cancelled it.
    async fn hold_wanted(&mut self, obtained: Obtained) -> Result<Found, Stop> {
        if obtained.waited == Waited::Yes && self.client.look().await.is_err() {
            return Err(obtained.unwanted());
        }
        match self.hold(obtained) {
            Cancelled::No => Ok(Found::Backend),
            Cancelled::Yes => self.put_back_cancelled().await,
        }
    }

    /// The statement was cancelled before it was sent.
    async fn put_back_cancelled(&mut self) -> Result<Found, Stop> {
        self.settle(clock::now()).await?;
        // In session mode it stays, for the next statement.
        Ok(No::Cancelled.into())
    }

    fn hold(&mut self, obtained: Obtained) -> Cancelled {
        let Obtained { mut checkout, standing, proven, epoch, taken, at, waited: _ } = obtained;
        self.session.cancel.attach(Arc::clone(&checkout.running));
        let cancelled = self.session.cancel.heed(self.client.inbox());
        let server = checkout.server();
        let (backend, client) = (checkout.running.pid, self.session.cancel.pid);
        let processes = Processes { server, backend, client, since: at };
        checkout.unnamed_there = UnnamedThere::No;
        let room = (self.client.shard.take_buffer(), self.client.shard.take_room());
        let mut exchange = Exchange::new(room, processes);
        if !self.client.reported.is_in_step(&checkout.reports) {
            let reported = &mut self.client.reported;
            exchange.to_tell = reported.compare(&checkout.reports, &self.session.settings);
        }
        // What it listens to itself is looked for when it is done.
        let listens = self.session.listening.as_ref().is_some_and(|here| here.is_on_backend());
        exchange.epoch = (standing == Standing::Primary).then_some(epoch);
        let attached = Attached {
            server,
            checkout,
            exchange,
            standing,
            proven,
            epoch,
            at,
            taken,
            status: TxStatus::Idle,
            sent: None,
            segment: Segment::Closed,
            ahead: Ahead::May,
            taint: if listens { Taint::Visible } else { Taint::None },
            left: Taint::None,
            reads: Reads::AsCarried,
            resets: Resets::default(),
            behind_reset: None,
            strays: Strays::default(),
            deallocated: Deallocated::AsTold,
            renamed: Vec::new(),
            pins: Pins::default(),
            pinned: None,
            channels: Vec::new(),
            resting: None,
            block: Block::default(),
            doomed: Doomed::No,
            computed: Computed::No,
            lasting: Lasting::No,
            shown: ShownData::No,
            noted: None,
            defaults: (Vec::new(), 0),
        };
        self.attached = Some(self.client.shard.take_hold().fill(attached));
        cancelled
    }

    /// Whether backends fail it one after another, for longer than a statement may be held.
    fn has_held_long(&self, plan: &Plan) -> bool {
        clock::now() >= plan.since + self.client.shard.live().routing.hold_max
    }

    fn has_ended(&self, obtained: &Obtained) -> bool {
        obtained.standing == Standing::Primary && self.client.shard.has_lost(obtained.epoch)
    }
}

impl Obtained {
    /// Gives it back, for its client is gone.
    fn unwanted(self) -> Stop {
        drop(self.taken);
        self.checkout.release(clock::now());
        Stop::Gone
    }
}

impl Unobtained {
    fn found(self) -> Result<Found, Stop> {
        match self {
            Self::No(no) => Ok(Found::Nothing(no)),
            Self::Gone => Err(Stop::Gone),
        }
    }
}

/// Whether a backend was found.
pub(super) enum Found {
    Backend,
    Nothing(Box<No>),
}

impl From<No> for Found {
    fn from(no: No) -> Self {
        Self::Nothing(Box::new(no))
    }
}
