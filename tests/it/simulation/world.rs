//! The world of a run: its clock, its servers, the net between them, and what happens next.

use super::acts::Flight;
use super::arms::Arm;
use super::chance::Chance;
use super::clients::Clients;
use super::event::{Event, Queue, Whose};
use super::judge::Judge;
use super::net::{Net, PROXY, Way};
use super::plan::{Plan, QUIET, SETTLE};
use super::proxy::Proxy;
use super::server::{Life, Role, Server};
use super::store::Store;

/// Events after which a run is given up: none needs as many.
const EVENTS_MAX: u64 = 400_000;

#[derive(Debug)]
pub(super) struct World {
    /// Milliseconds since the run began.
    pub now: u64,
    pub queue: Queue,
    pub chance: Chance,
    pub plan: Plan,
    pub arm: Arm,
    pub servers: Vec<Server>,
    pub net: Net,
    /// Messages on a way that is cut.
    pub cut: Vec<(usize, usize, Event)>,
    pub proxy: Proxy,
    pub store: Store,
    pub flights: Vec<Flight>,
    pub clients: Clients,
    pub judge: Judge,
    /// Faults are over.
    pub quiet: bool,
    trace: Option<Vec<String>>,
}

/// Whether a run is told as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Silent,
    Traced,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, arm: Arm, telling: Telling) -> Self {
        let count = plan.servers;
        let role = |server| if server == 0 { Role::Primary } else { Role::Standby };
        let servers = (0..count).map(|server| Server::new(role(server), count, plan.quorum));
        let mut world = Self {
            now: 1_000,
            queue: Queue::default(),
            chance: Chance::of(seed ^ 0x5EED),
            arm,
            servers: servers.collect(),
            net: Net::new(count),
            cut: Vec::new(),
            proxy: Proxy::new(count),
            store: Store::new(&plan),
            flights: Vec::new(),
            clients: Clients::default(),
            judge: Judge::default(),
            quiet: false,
            trace: (telling == Telling::Traced).then(Vec::new),
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for server in 1..self.plan.servers {
            self.connect_soon(server);
        }
        self.plan_faults();
        self.start_proxy();
        self.start_clients();
        self.at(QUIET, Event::Quiet);
    }

    /// Runs to the end; what went wrong, if something did.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let mut events = 0;
        while let Some((at, event)) = self.queue.pop() {
            events += 1;
            if events > EVENTS_MAX {
                return Err("the run does not end".to_owned());
            }
            self.now = self.now.max(at);
            self.watch();
            if self.now > QUIET + SETTLE {
                return Err(format!(
                    "{} s after the last fault {}",
                    SETTLE / 1000,
                    self.unsettled()
                ));
            }
            match self.waits(&event) {
                Some(inbox) => inbox.push(event),
                None => self.happen(event),
            }
            if let Some(found) = self.judge.found.take() {
                return Err(found);
            }
            if self.judge.settled {
                return Ok(());
            }
        }
        Err("nothing happens any more".to_owned())
    }

    /// Where an event waits whose process is stopped.
    fn waits(&mut self, event: &Event) -> Option<&mut Vec<Event>> {
        match event.whose() {
            Whose::Server(server) => {
                let server = match event {
                    Event::ActArrives { flight } | Event::ActTakesEffect { flight, .. } => {
                        self.flights[*flight].server
                    }
                    Event::WriteArrives { write } => self.clients.write(*write).server,
                    _ => server,
                };
                let server = &mut self.servers[server];
                server.stopped.then_some(&mut server.inbox)
            }
            Whose::Proxy => self.proxy.paused.then_some(&mut self.proxy.inbox),
            Whose::Nobody => None,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.fault(fault),
            Event::Continue { server, boot } => self.continue_server(server, boot),
            Event::Start { server, boot } => self.start_server(server, boot),
            Event::Booted { server, boot } => self.booted(server, boot),
            Event::Heal { from, to } => self.heal(from, to),
            Event::Connect { server, stream } => self.connect(server, stream),
            Event::StreamLost { server, stream } => self.stream_lost(server, stream),
            Event::StreamSilent { server, stream } => self.stream_silent(server, stream),
            Event::Received { server, stream, upto } => self.received(server, stream, upto),
            Event::Confirmed { server, boot, by, at, stream } => {
                if self.servers[server].boot == boot && self.servers[by].stream_count == stream {
                    self.confirmed(server, by, at);
                }
            }
            Event::Replayed { server, boot, upto } => self.replayed(server, boot, upto),
            Event::Promoted { server, boot } => self.promoted(server, boot),
            Event::WriteArrives { write } => self.write_arrives(write),
            Event::LookArrives { server, look } => self.look_arrives(server, look),
            Event::ActArrives { flight } => self.act_arrives(flight),
            Event::ActTakesEffect { flight, boot } => self.act_takes_effect(flight, boot),
            Event::DirectDue => self.direct_due(),
            Event::DirectAcknowledged { write } => self.direct_acknowledged(write),
            Event::Quiet => self.end_faults(),
            Event::Check => self.check_settled(),
            of_proxy => self.proxy_event(of_proxy),
        }
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.queue.push(at.max(self.now), event);
    }

    pub(super) fn after(&mut self, wait: u64, event: Event) {
        self.queue.push(self.now + wait, event);
    }

    /// Sends a message. Now and then one is late.
    pub(super) fn send(&mut self, from: usize, to: usize, event: Event) {
        match self.net.way(from, to) {
            Way::Open => {
                let late = self.chance.below(400) == 0;
                let delay =
                    if late { self.chance.between(20, 400) } else { self.chance.between(1, 3) };
                self.after(delay, event);
            }
            Way::Silent => self.cut.push((from, to, event)),
            Way::Refused => {}
        }
    }

    /// A way is open again: what waited comes through.
    pub(super) fn heal(&mut self, from: usize, to: usize) {
        self.net.set(from, to, Way::Open);
        let (through, cut) =
            std::mem::take(&mut self.cut).into_iter().partition(|(a, b, _)| (*a, *b) == (from, to));
        self.cut = cut;
        for (from, to, event) in through {
            self.send(from, to, event);
        }
    }

    /// Whether a connection from the proxy to that server is taken.
    pub(super) fn refuses(&self, server: usize) -> bool {
        self.servers[server].life == Life::Down
            || self.net.way(PROXY, super::net::place(server)) == Way::Refused
    }

    pub(super) fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>6} ms  {}", self.now, line(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// What was told.
    pub(super) fn trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }
}

impl Event {
    /// Whose process it happens in. The server of an act or a write is looked up.
    fn whose(&self) -> Whose {
        match self {
            Self::Fault(_)
            | Self::Continue { .. }
            | Self::Start { .. }
            | Self::Heal { .. }
            | Self::Resume { .. }
            | Self::Restart
            | Self::DirectDue
            | Self::DirectAcknowledged { .. }
            | Self::Quiet
            | Self::Check
            // The other end of the wire, or the disk.
            | Self::Stored { .. } => Whose::Nobody,
            Self::Booted { server, .. }
            | Self::Connect { server, .. }
            | Self::StreamLost { server, .. }
            | Self::StreamSilent { server, .. }
            | Self::Received { server, .. }
            | Self::Confirmed { server, .. }
            | Self::Replayed { server, .. }
            | Self::Promoted { server, .. }
            | Self::LookArrives { server, .. } => Whose::Server(*server),
            Self::WriteArrives { .. } | Self::ActArrives { .. } | Self::ActTakesEffect { .. } => {
                Whose::Server(0)
            }
            Self::LookDue { .. }
            | Self::LookBack { .. }
            | Self::LookLate { .. }
            | Self::ConnectionLost { .. }
            | Self::ActBack { .. }
            | Self::ActLate { .. }
            | Self::StoreAnswers { .. }
            | Self::Tick { .. }
            | Self::WriterDue { .. }
            | Self::Acknowledged { .. } => Whose::Proxy,
        }
    }
}
