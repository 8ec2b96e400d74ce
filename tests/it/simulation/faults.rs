//! What goes wrong, carried out; and the end of it.

use super::event::Event;
use super::net::{PROXY, Way, place};
use super::plan::{Direct, Fault, PhaseName, SETTLE, When, Whom};
use super::server::{Life, Role};
use super::world::World;
use pgsteer::failover::{Phase, Record};

/// How often it is looked whether all is well again, in milliseconds.
const CHECK: u64 = 250;

/// A phase without what is in it.
pub(super) const fn phase_name(phase: &Phase) -> PhaseName {
    match phase {
        Phase::Stable => PhaseName::Stable,
        Phase::Draining(_) => PhaseName::Draining,
        Phase::Revoking(_) => PhaseName::Revoking,
        Phase::Promoting(..) => PhaseName::Promoting,
    }
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        for (when, fault) in self.plan.faults.clone() {
            if let When::At(at) = when {
                self.at(at, Event::Fault(fault));
            }
        }
    }

    /// The record came into another phase: what was to go wrong then goes wrong.
    pub(super) fn record_changed(&mut self, before: &Record) {
        let now = phase_name(&self.store.record.phase);
        if now == phase_name(&before.phase) || self.quiet {
            return;
        }
        let mut faults = std::mem::take(&mut self.plan.faults);
        let next =
            faults.iter().position(|(when, _)| matches!(when, When::In(in_, _) if *in_ == now));
        if let Some((When::In(_, delay), fault)) = next.map(|next| faults.remove(next)) {
            self.after(delay, Event::Fault(fault));
        }
        self.plan.faults = faults;
    }

    /// Which server that is now.
    fn whom(&self, whom: Whom) -> usize {
        let primary = self.recorded().unwrap_or(0);
        let count = self.servers.len();
        let other = |at: usize| (primary + 1 + at % (count - 1)) % count;
        match (whom, &self.store.record.phase) {
            (Whom::Primary, _) => primary,
            (Whom::Other(at), _) => other(at),
            (Whom::Chosen, Phase::Promoting(_, choice)) => {
                let name = super::plan::name;
                (0..count).find(|server| name(*server) == choice.server).unwrap_or(primary)
            }
            (Whom::Chosen, _) => other(0),
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.quiet {
            return;
        }
        self.tell(|_| format!("FAULT {fault:?}"));
        match fault {
            Fault::Crash(whom, back) => self.crash_for(whom, back),
            Fault::Relapse(whom, takes) => {
                let server = self.whom(whom);
                if self.servers[server].life == Life::Up {
                    self.watch_relapse(server);
                    self.crash(server);
                    self.boot(server, takes);
                }
            }
            Fault::Stop(whom, long) => self.stop(whom, long),
            Fault::CutOff(whom, way, long) => {
                let server = self.whom(whom);
                self.cut_way(PROXY, place(server), way, long);
                self.cut_way(place(server), PROXY, Way::Silent, long);
            }
            Fault::CutForth(whom, long) => {
                let server = self.whom(whom);
                self.cut_way(PROXY, place(server), Way::Silent, long);
            }
            Fault::Isolate(whom, long) => self.isolate(whom, long),
            Fault::CutStream(whom, long) => {
                let (server, primary) = (self.whom(whom), self.whom(Whom::Primary));
                if server != primary {
                    self.last_words(primary);
                    self.cut_way(place(server), place(primary), Way::Silent, long);
                    self.cut_way(place(primary), place(server), Way::Silent, long);
                }
            }
            Fault::Full(whom, long) => {
                let server = self.whom(whom);
                self.proxy.full[server] = self.now + long;
            }
            Fault::ProxyCrash(down) => {
                self.crash_proxy();
                self.after(down, Event::Restart);
            }
            Fault::ProxyPause(long) if self.proxy.up => {
                self.proxy.paused = true;
                let run = self.proxy.run;
                self.after(long, Event::Resume { run });
            }
            Fault::ProxyPause(_) => {}
            Fault::Give(order) => self.give(order),
            Fault::PromoteOutside(whom) => self.promote_outside(whom),
            Fault::HandOutside(whom) => {
                let (server, primary) = (self.whom(whom), self.whom(Whom::Primary));
                self.promote_outside(whom);
                self.restart_as_standby(primary, server);
            }
            Fault::Requorum(quorum) => self.requorum(quorum),
            Fault::LongTransaction(long) => self.clients.long_until = self.now + long,
            Fault::BadStore(long) => self.store.bad_until = self.now + long,
            Fault::BadHands(whom, long) => {
                let server = self.whom(whom);
                self.proxy.bad_hands[server] = self.now + long;
            }
            Fault::Disarm(long) => self.proxy.disarmed_until = self.now + long,
        }
    }

    fn crash_for(&mut self, whom: Whom, back: Option<u64>) {
        let server = self.whom(whom);
        if self.servers[server].life == Life::Down {
            return;
        }
        self.crash(server);
        match back {
            Some(wait) => {
                let boot = self.servers[server].boot;
                self.after(wait, Event::Start { server, boot });
            }
            // One server may be lost for good, not two.
            None if self.judge.lost_for_good.is_some() => {
                let boot = self.servers[server].boot;
                self.after(SETTLE / 20, Event::Start { server, boot });
            }
            None => self.judge.lost_for_good = Some(server),
        }
    }

    fn stop(&mut self, whom: Whom, long: u64) {
        let server = self.whom(whom);
        self.last_words(server);
        self.servers[server].stopped = self.servers[server].life == Life::Up;
        let boot = self.servers[server].boot;
        self.after(long, Event::Continue { server, boot });
    }

    fn cut_way(&mut self, from: usize, to: usize, way: Way, long: u64) {
        self.net.set(from, to, way);
        self.after(long, Event::Heal { from, to });
    }

    fn isolate(&mut self, whom: Whom, long: u64) {
        let server = self.whom(whom);
        self.last_words(server);
        for other in 0..self.servers.len() + 2 {
            // Clients beside it may still reach it.
            if other != place(server) && other != super::net::CLIENTS {
                self.cut_way(other, place(server), Way::Silent, long);
                self.cut_way(place(server), other, Way::Silent, long);
            }
        }
    }

    /// An operator asks for something.
    pub(super) fn give(&mut self, order: pgsteer::failover::Order) {
        let abort = order == pgsteer::failover::Order::Abort;
        if self.proxy.up && (self.proxy.order.is_none() || abort) {
            self.proxy.order = Some(order);
            self.proxy.checkpoint = pgsteer::failover::Checkpoint::Wanted;
        }
    }

    fn promote_outside(&mut self, whom: Whom) {
        let server = self.whom(whom);
        let own = &self.servers[server];
        if own.life == Life::Up && own.role == Role::Standby && !own.promoting {
            self.servers[server].rogue = true;
            self.judge.outside = true;
            self.begin_promotion(server);
        }
    }

    fn requorum(&mut self, quorum: u16) {
        let server = self.whom(Whom::Primary);
        if self.servers[server].quorum.is_some() && self.servers[server].life == Life::Up {
            let most = u16::try_from(self.servers.len() - 1).unwrap();
            self.servers[server].quorum = Some(quorum.min(most));
            // In the middle of a change nobody looks, and out of reach nobody can.
            self.judge.unseen |= self.store.record.phase != Phase::Stable;
            self.judge.watched.changed = true;
            self.judge.watched.calm = None;
            self.release(server);
        }
    }

    /// From now on nothing goes wrong any more.
    pub(super) fn end_faults(&mut self) {
        self.tell(|_| "QUIET: everything is healed".to_owned());
        self.quiet = true;
        self.net.heal();
        for (from, to, event) in std::mem::take(&mut self.cut) {
            self.send(from, to, event);
        }
        for server in 0..self.servers.len() {
            let boot = self.servers[server].boot;
            self.continue_server(server, boot);
            if self.servers[server].life == Life::Down && self.judge.lost_for_good != Some(server) {
                self.start_server(server, boot);
            }
            self.proxy.bad_hands[server] = 0;
            self.proxy.full[server] = 0;
        }
        let run = self.proxy.run;
        if self.proxy.paused {
            self.after(0, Event::Resume { run });
        }
        if !self.proxy.up {
            self.after(0, Event::Restart);
        }
        self.store.bad_until = 0;
        self.proxy.disarmed_until = 0;
        self.clients.long_until = 0;
        if self.plan.direct == Direct::Stubborn {
            self.plan.direct = Direct::Clients;
        }
        self.after(CHECK, Event::Check);
    }

    /// Looks again whether all is well, and helps as an operator would.
    pub(super) fn check_settled(&mut self) {
        if self.is_settled() {
            self.judge.settled = true;
            return;
        }
        self.help();
        self.after(CHECK, Event::Check);
    }
}
