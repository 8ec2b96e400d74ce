//! What lives in one backend and is lost with it: the client is told once, and goes on.
//!
//! A channel can be listened to again on the next primary, so that is done, at once and also for
//! a client that only waits. What was sent in between is not heard; a warning says so.

use crate::clock;
use crate::frontend::attach::Found;
use crate::frontend::attached::Attached;
use crate::frontend::lost::LostTransaction;
use crate::frontend::own;
use crate::frontend::plan::Taint;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::state::{Serving, Skipping};
use crate::metrics::LostWork;
use crate::pg::{SqlState, quote_identifier};
use crate::pool::{Mode, Reset};
use crate::route::{Need, PrimaryReason};
use crate::session::{Group, Pin, Pins};
use crate::wire::message;
use crate::wire::message::ErrorReport;
use std::collections::BTreeSet;

/// What a session lost with its backend, and was not told of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::frontend) struct LostState {
    pins: Pins,
    /// The channels that it listened to.
    channels: Vec<String>,
}

impl LostState {
    /// What the client has to be told of; from then on it is told.
    pub(super) fn take_told(&mut self) -> Option<Pins> {
        if self.pins.is_empty() || self.listens_only() {
            return None;
        }
        Some(std::mem::take(self).pins)
    }

    /// It listened to these, and they are not listened to any more.
    pub(in crate::frontend) fn listen_to(&mut self, channels: BTreeSet<Box<str>>) {
        self.pins.add(Pin::Listen);
        self.channels.extend(channels.into_iter().map(String::from));
    }

    fn listens_only(&self) -> bool {
        !self.channels.is_empty() && self.pins == Pins::of(Pin::Listen)
    }

    /// Whether there is nothing.
    pub(super) const fn is_empty(&self) -> bool {
        self.pins.is_empty()
    }
}

/// How often it is tried to listen again.
const TRIES_MAX: u32 = 5;

impl Serving {
    /// Takes note of what lived in a backend that is gone.
    pub(in crate::frontend) fn note_lost_state(&mut self, attached: &Attached) {
        let policy = self.client.shard.pools.policy();
        let mut pins = attached.pins;
        if !pins.is_empty() {
            self.client.shard.shared.metrics.clients.lost(LostWork::State);
        }
        if policy.mode == Mode::Session && policy.reset == Reset::Off {
            // Nobody has ever asked what there was.
            pins.add(Pin::Unknown);
        }
        self.session.lost_state.pins.add_all(pins);
        self.session.lost_state.channels.extend_from_slice(&attached.channels);
    }

    /// What the session has just left on a backend that is gone was not found out.
    pub(in crate::frontend) fn note_unknown_state(&mut self) {
        self.session.lost_state.pins.add(Pin::Unknown);
    }

    /// Tells the client what it lost in place of an answer; whether there was something to tell.
    pub(super) fn tell_of_lost_state(&mut self, group: &Group) -> bool {
        match self.session.lost_state.take_told() {
            Some(what) => {
                self.refuse_group(group, &No::StateLost(what));
                true
            }
            None => false,
        }
    }

    /// Whether the session listened on a backend that is gone, and can listen on another.
    pub(in crate::frontend) fn is_to_listen(&self) -> bool {
        self.session.lost_state.listens_only()
            && self.attached.is_none()
            && self.session.lost_transaction == LostTransaction::No
            && self.session.skipping == Skipping::No
    }

    /// Listens on the present primary to what the session listened to on the last one.
    pub(in crate::frontend) async fn listen_again(&mut self) -> Result<(), Stop> {
        let LostState { channels, .. } = std::mem::take(&mut self.session.lost_state);
        let mut sql = String::new();
        for channel in &channels {
            sql.push_str("LISTEN ");
            sql.push_str(&quote_identifier(channel));
            sql.push(';');
        }
        let plan = self.plan_of_ours(Need::Primary(PrimaryReason::Statement));
        for _ in 0..TRIES_MAX {
            match self.attach(&plan).await? {
                Found::Backend => {}
                Found::Nothing(no) if matches!(*no, No::Cancelled) => {
                    // What the client asks next finds it as it was.
                    self.session.lost_state = LostState { pins: Pins::of(Pin::Listen), channels };
                    return Ok(());
                }
                Found::Nothing(_) => break,
            }
            let thread = self.session.seat.thread();
            let Some(attached) = self.attached.as_deref_mut() else { continue };
            let reported = &mut self.client.reported;
            let listening = own::run_unhurried(&mut attached.checkout, &sql, reported);
            match thread.unless_cut(listening).await {
                Ok(Ok(answer)) if answer.error.is_none() => {
                    attached.pins.add(Pin::Listen);
                    attached.channels = channels;
                    // So that it is looked whether it can be listened for again.
                    attached.taint = Taint::Visible;
                    message::write_notice(self.client.out(), &missed());
                    self.client.out().extend_from_slice(&answer.for_client);
                    return self.settle(clock::now()).await;
                }
                Ok(Ok(_)) => {
                    self.drop_backend();
                    break;
                }
                Ok(Err(_)) | Err(_) => self.drop_backend(),
            }
        }
        // It is told after all, with what it says next.
        self.session.lost_state.pins.add(Pin::Listen);
        Ok(())
    }
}

/// What a client is told whose notifications may not all have been heard.
pub(in crate::frontend) fn missed() -> ErrorReport {
    ErrorReport::warning(
        SqlState::WARNING,
        "LISTEN goes on at another server; notifications may have been missed",
    )
    .with_detail("The server connection that listened was lost.")
    .with_hint("Look at what the notifications are about.")
}
