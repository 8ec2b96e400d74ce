//! What our own acts did to the servers, as far as it is still so.
//!
//! Nothing here must survive a restart: every act is idempotent, and what it did is found out by
//! doing it again.

use crate::clock::Moment;
use crate::failover::{Act, Fenced, Frozen, Receiver, ServerView};
use crate::topology::ServerId;
use std::time::Duration;

/// After an act was carried out, the same is not done again before the server was looked at.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The first pause after an act that failed; doubled with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What an act came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// The standby is cut off, and holds the log up to there.
    Frozen(Frozen),
    /// The primary takes no writes.
    Fenced(Fenced),
    /// It is as it was asked for.
    Plain,
}

/// What is remembered of each server.
#[derive(Debug)]
pub(super) struct Memory {
    servers: Vec<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    frozen: Option<(Frozen, Moment)>,
    fenced: Option<(Fenced, Moment)>,
    /// What is under way there.
    flying: Option<Act>,
    /// What was carried out last, and when.
    done: Option<(Act, Moment)>,
    /// How many acts in a row failed, and when the last one did.
    failed: Option<(u32, Moment)>,
}

impl Memory {
    /// Nothing was done yet.
    pub(super) fn new(servers: usize) -> Self {
        Self { servers: (0..servers).map(|_| Remembered::default()).collect() }
    }

    /// Adds to a view what our acts did.
    pub(super) fn complete(&mut self, view: &mut ServerView) {
        let Some(server) = self.servers.get_mut(view.id.index()) else { return };
        let asked = view.answer().map(|answer| answer.at);
        let newer = |since: Moment| asked.is_some_and(|at| at > since);
        if let Some((frozen, since)) = server.frozen {
            let follows = matches!(view.as_standby(), Some((_, _, Receiver::Streams { .. })));
            if newer(since) && (follows || view.as_primary().is_some()) {
                server.frozen = None;
            } else {
                view.frozen = Some(frozen);
            }
        }
        if let Some((fenced, _)) = server.fenced {
            view.fenced = Some(fenced);
        }
    }

    /// Whether this act is to be begun now: nothing is under way there, it did not just succeed,
    /// and did not just fail.
    pub(super) fn may_begin(&self, act: &Act, now: Moment) -> bool {
        let Some(server) = act.server().and_then(|id| self.servers.get(id.index())) else {
            return false;
        };
        let resting = server.failed.is_some_and(|(times, at)| {
            let pause = RETRY_FIRST * 2_u32.saturating_pow(times.min(8).saturating_sub(1));
            now.since(at) < pause.min(RETRY_MAX)
        });
        let fresh = server
            .done
            .as_ref()
            .is_some_and(|(done, at)| done == act && now.since(*at) < AGAIN_AFTER);
        server.flying.is_none() && !resting && !fresh
    }

    /// An act is under way.
    pub(super) fn begin(&mut self, act: &Act) {
        if let Some(server) = act.server().and_then(|id| self.servers.get_mut(id.index())) {
            server.flying = Some(act.clone());
        }
    }

    /// An act came to its end.
    pub(super) fn end(&mut self, act: &Act, outcome: Option<Done>, now: Moment) {
        let Some(server) = act.server().and_then(|id| self.servers.get_mut(id.index())) else {
            return;
        };
        server.flying = None;
        let Some(done) = outcome else {
            let times = server.failed.map_or(0, |(times, _)| times).saturating_add(1);
            server.failed = Some((times, now));
            return;
        };
        server.failed = None;
        server.done = Some((act.clone(), now));
        match (act, done) {
            (Act::Freeze(_), Done::Frozen(frozen)) => server.frozen = Some((frozen, now)),
            (Act::Fence(_), Done::Fenced(fenced)) => server.fenced = Some((fenced, now)),
            (Act::Unfreeze(_) | Act::Repoint { .. }, _) => server.frozen = None,
            (Act::Unfence(_), _) => server.fenced = None,
            (
                Act::Write(_)
                | Act::Freeze(_)
                | Act::Fence(_)
                | Act::Promote(_)
                | Act::Prove(_)
                | Act::Demote { .. }
                | Act::Checkpoint(_)
                | Act::Answer(_),
                _,
            ) => {}
        }
    }

    /// This server is the primary now: what was done to it as something else is past.
    pub(super) fn appointed(&mut self, server: ServerId) {
        if let Some(server) = self.servers.get_mut(server.index()) {
            server.frozen = None;
            server.fenced = None;
        }
    }
}
