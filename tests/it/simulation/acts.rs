//! Acts on their way to a server, there, and back.

use super::arms::Arm;
use super::event::Event;
use super::log::Content;
use super::net::{PROXY, Way, place};
use super::server::{Life, Role, Waiter};
use super::world::World;
use pgsteer::clock::Moment;
use pgsteer::failover::{Act, Fenced, Frozen};
use pgsteer::pg::{Lsn, Timeline};
use pgsteer::topology::ServerId;

/// Longest for one act, in milliseconds; the conductor's own limit is 5 s.
const ACT_MAX: u64 = 2_000;

/// What an act came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Frozen(Frozen),
    Fenced(Fenced),
    Plain,
    Failed,
}

/// One act under way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub act: Act,
    pub server: usize,
    pub began: u64,
    /// It has reached the server, and has not come to its end there.
    pub there: bool,
    /// Nobody waits for it any more.
    pub over: bool,
}

/// A moment of the simulation.
pub(super) const fn moment(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

impl World {
    /// Sends an act on its way.
    pub(super) fn launch(&mut self, act: Act) {
        let Some(server) = act.server().map(ServerId::index) else { return };
        self.tell(|_| format!("act: {act:?}"));
        self.judge_act(&act);
        let flight = self.flights.len();
        let began = self.now;
        self.flights.push(Flight { act, server, began, there: false, over: false });
        self.after(ACT_MAX, Event::ActLate { flight });
        if self.refuses(server) {
            self.after(2, Event::ActBack { flight, outcome: Outcome::Failed });
        } else {
            self.send(PROXY, place(server), Event::ActArrives { flight });
        }
    }

    pub(super) fn act_arrives(&mut self, flight: usize) {
        let Flight { server, over, ref act, .. } = self.flights[flight];
        // A promotion that was sent is carried out even if nobody waits any more.
        if over && !matches!(act, Act::Promote(_)) {
            return;
        }
        if self.servers[server].life != Life::Up || self.proxy.bad_hands[server] > self.now {
            self.act_back(flight, Outcome::Failed);
            return;
        }
        let (low, high) = match act {
            Act::Freeze(_) => (20, 90),
            Act::Fence(_) => (8, 30),
            Act::Checkpoint(_) => (10, 100),
            Act::Unfreeze(_) | Act::Repoint { .. } | Act::Unfence(_) => (5, 20),
            Act::Promote(_) | Act::Prove(_) | Act::Demote { .. } => (1, 3),
            Act::Write(_) | Act::Answer(_) => (0, 0),
        };
        self.flights[flight].there = true;
        let takes = self.chance.between(low, high);
        let boot = self.servers[server].boot;
        self.after(takes, Event::ActTakesEffect { flight, boot });
    }

    pub(super) fn act_takes_effect(&mut self, flight: usize, boot: u64) {
        let Flight { server, over, ref act, .. } = self.flights[flight];
        if self.servers[server].boot != boot || (over && !matches!(act, Act::Promote(_))) {
            return;
        }
        let act = act.clone();
        let standby = self.servers[server].role == Role::Standby;
        match act {
            Act::Freeze(_) if standby => self.freeze(flight),
            Act::Unfreeze(_) if standby => {
                if let Some(upstream) = self.servers[server].undo.take() {
                    self.follow(server, Some(upstream));
                }
                self.act_back(flight, Outcome::Plain);
            }
            Act::Repoint { to, .. } if standby => {
                self.servers[server].undo = None;
                self.follow(server, Some(to.index()));
                self.act_back(flight, Outcome::Plain);
            }
            Act::Promote(_) if standby => self.begin_promotion(server),
            Act::Prove(_) if !standby => {
                let at = self.append(server, Content::Filler);
                self.servers[server].waiting.push((at, Waiter::Act(flight)));
                self.release(server);
            }
            Act::Fence(_) if !standby => self.fence(flight),
            Act::Unfence(_) if !standby => {
                self.servers[server].fenced = false;
                self.release(server);
                self.act_back(flight, Outcome::Plain);
            }
            Act::Demote { to, .. } if !standby => self.demote(flight, to.index()),
            Act::Promote(_) | Act::Checkpoint(_) => self.act_back(flight, Outcome::Plain),
            Act::Freeze(_)
            | Act::Unfreeze(_)
            | Act::Repoint { .. }
            | Act::Prove(_)
            | Act::Fence(_)
            | Act::Unfence(_)
            | Act::Demote { .. }
            | Act::Write(_)
            | Act::Answer(_) => self.act_back(flight, Outcome::Failed),
        }
    }

    /// From now on a standby follows that server, or nobody.
    fn follow(&mut self, server: usize, upstream: Option<usize>) {
        self.servers[server].upstream = upstream;
        self.end_stream(server);
    }

    fn freeze(&mut self, flight: usize) {
        let server = self.flights[flight].server;
        if self.arm != Arm::FreezeSkipped && self.servers[server].upstream.is_some() {
            self.servers[server].undo = self.servers[server].upstream;
            self.follow(server, None);
        }
        let own = &self.servers[server];
        let (at, timeline) = (Lsn(own.received()), Timeline(own.log.timeline));
        self.act_back(flight, Outcome::Frozen(Frozen { at, timeline }));
    }

    fn fence(&mut self, flight: usize) {
        let server = self.flights[flight].server;
        if !matches!(self.arm, Arm::FenceSkipped | Arm::HandoverUnfenced) {
            self.servers[server].fenced = true;
        }
        let end = Lsn(self.servers[server].log.whole());
        let foreign = if self.arm == Arm::ForeignIgnored { 0 } else { self.foreign() };
        self.act_back(flight, Outcome::Fenced(Fenced { end, foreign }));
    }

    /// It crashes, and its own restart brings it back as a standby.
    fn demote(&mut self, flight: usize, to: usize) {
        let server = self.flights[flight].server;
        self.act_back(flight, Outcome::Plain);
        self.restart_as_standby(server, to);
    }

    pub(super) fn restart_as_standby(&mut self, server: usize, to: usize) {
        self.crash(server);
        let own = &mut self.servers[server];
        own.role = Role::Standby;
        own.upstream = Some(to);
        own.undo = None;
        let takes = self.chance.between(115, 256);
        self.boot(server, takes);
    }

    /// A commit that an act waited for is confirmed.
    pub(super) fn act_done(&mut self, flight: usize) {
        self.act_back(flight, Outcome::Plain);
    }

    /// Whoever asked for this promotion is told.
    pub(super) fn promotions_done(&mut self, server: usize) {
        for flight in 0..self.flights.len() {
            let asked = &self.flights[flight];
            if asked.server == server && asked.there && matches!(asked.act, Act::Promote(_)) {
                self.act_back(flight, Outcome::Plain);
            }
        }
    }

    /// A server died: what was under way there ends, as soon as it is noticed.
    pub(super) fn acts_lost(&mut self, server: usize, wait: u64) {
        for flight in 0..self.flights.len() {
            let lost = &mut self.flights[flight];
            if lost.server == server && lost.there {
                lost.there = false;
                self.after(wait, Event::ActBack { flight, outcome: Outcome::Failed });
            }
        }
    }

    fn act_back(&mut self, flight: usize, outcome: Outcome) {
        let Flight { server, ref mut there, .. } = self.flights[flight];
        *there = false;
        if self.net.way(place(server), PROXY) != Way::Refused {
            self.send(place(server), PROXY, Event::ActBack { flight, outcome });
        }
    }
}
