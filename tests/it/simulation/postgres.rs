//! What the fake servers do: stream, replay, confirm, crash, restart, promote.

use super::event::Event;
use super::log::Content;
use super::net::{Way, place};
use super::server::{Life, Role, Stream, Waiter};
use super::world::World;

/// A standby gives up a silent stream after this (`wal_receiver_timeout`), in milliseconds.
const RECEIVER_TIMEOUT: u64 = 3_000;
/// Pause between two attempts to connect (`wal_retrieve_retry_interval`).
const RETRY: u64 = 100;
/// A promotion that misses its signal sleeps this long when nobody nudges it.
const STALL: u64 = 5_000;

impl World {
    /// A standby without a stream tries to get one.
    pub(super) fn connect_soon(&mut self, server: usize) {
        let stream = self.servers[server].stream_count;
        let wait = self.chance.between(10, 60);
        self.after(wait, Event::Connect { server, stream });
    }

    pub(super) fn connect(&mut self, server: usize, stream: u64) {
        let own = &self.servers[server];
        let idle = own.stream.is_none() && own.stream_count == stream && !own.promoting;
        if own.life != Life::Up || own.role != Role::Standby || !idle {
            return;
        }
        let Some(from) = own.upstream else { return };
        if !self.can_stream(from, server) {
            self.after(RETRY, Event::Connect { server, stream });
            return;
        }
        let (timeline, forks) = {
            let source = &self.servers[from].log;
            (source.timeline, source.forks.clone())
        };
        let now = self.now;
        let late = self.plan.told_late;
        let own = &mut self.servers[server];
        own.log.partial = 0;
        let switched = own.log.timeline != timeline;
        if switched {
            own.told_timeline = (own.log.timeline, now + late);
        }
        own.log.timeline = timeline;
        own.log.forks = forks;
        own.says_received = own.log.segment();
        let sent = own.log.whole();
        own.stream = Some(Stream { from, sent, under_way: false, last_message: now });
        self.tell(|_| format!("server {server} streams from {from}"));
        if switched {
            self.end_streams_of(server);
        }
        self.confirm(server);
        self.pump(from);
    }

    /// Whether `from` can serve `to`: reached, far enough, and on a branch that goes on from it.
    fn can_stream(&self, from: usize, to: usize) -> bool {
        let (source, own) = (&self.servers[from], &self.servers[to]);
        if from == to || !source.is_awake() || !self.net.open(place(from), place(to)) {
            return false;
        }
        if !own.has_replayed() || own.log.whole() > source.log.whole() {
            return false;
        }
        if own.log.timeline == source.log.timeline {
            return true;
        }
        source.log.left(own.log.timeline).is_some_and(|fork| own.log.whole() <= fork)
    }

    /// Sends what the standbys of a server lack.
    pub(super) fn pump(&mut self, from: usize) {
        // A standby passes on the beginning of a record, too.
        let end = self.servers[from].log.end();
        for to in 0..self.servers.len() {
            let Some(stream) = self.servers[to].stream else { continue };
            if stream.from != from || stream.under_way || stream.sent >= end {
                continue;
            }
            // A message may end within a record.
            let upto = if self.chance.percent(8) {
                self.chance.between(stream.sent + 1, end)
            } else {
                end
            };
            let sending = Stream { sent: upto, under_way: true, ..stream };
            self.servers[to].stream = Some(sending);
            let stream = self.servers[to].stream_count;
            let event = Event::Received { server: to, stream, upto };
            self.send(place(from), place(to), event);
        }
    }

    pub(super) fn received(&mut self, server: usize, stream: u64, upto: u64) {
        let Some(mut streaming) = self.servers[server].stream else { return };
        if self.servers[server].stream_count != stream {
            return;
        }
        let from = streaming.from;
        let mut log = std::mem::replace(&mut self.servers[server].log, super::log::Log::new());
        let fits = log.receive(&self.servers[from].log, upto);
        self.servers[server].log = log;
        if !fits && self.judge.outside {
            // Two branches of one number, one of them another tool's: PostgreSQL stops at the
            // first record that does not fit.
            self.servers[server].upstream = None;
            self.end_stream(server);
            return;
        }
        if !fits {
            self.judge.fail(format!(
                "server {server} receives from {from} what does not continue its own log"
            ));
            return;
        }
        streaming.under_way = false;
        streaming.last_message = self.now;
        let own = &mut self.servers[server];
        own.stream = Some(streaming);
        own.says_received = own.log.end();
        let (boot, upto) = (own.boot, own.log.whole());
        let lag = self.plan.replay_lag[server];
        if lag == 0 {
            own.replayed = upto;
        } else {
            let lag = self.chance.below(lag);
            self.after(lag, Event::Replayed { server, boot, upto });
        }
        self.confirm(server);
        self.pump(server);
        if self.servers[from].is_awake() {
            self.pump(from);
        }
    }

    pub(super) fn replayed(&mut self, server: usize, boot: u64, upto: u64) {
        let own = &mut self.servers[server];
        if own.boot == boot && own.role == Role::Standby {
            own.replayed = own.replayed.max(upto);
        }
    }

    /// Tells the upstream how far this standby has it on its disk.
    fn confirm(&mut self, server: usize) {
        let own = &self.servers[server];
        let Some(stream) = own.stream else { return };
        let (at, count) = (own.log.end(), own.stream_count);
        let to = stream.from;
        let boot = self.servers[to].boot;
        let event = Event::Confirmed { server: to, boot, by: server, at, stream: count };
        self.send(place(server), place(to), event);
    }

    pub(super) fn confirmed(&mut self, server: usize, by: usize, at: u64) {
        let own = &mut self.servers[server];
        // Of one connection, what was sent later counts, whatever came later.
        own.confirmed[by] = own.confirmed[by].max(Some(at));
        self.release(server);
    }

    /// Tells those whose commits are confirmed by now.
    pub(super) fn release(&mut self, server: usize) {
        for waiter in self.servers[server].released() {
            match waiter {
                Waiter::Write(write) => self.acknowledge(write),
                Waiter::Act(flight) => self.act_done(flight),
            }
        }
    }

    /// Writes a record on a primary.
    pub(super) fn append(&mut self, server: usize, content: Content) -> u64 {
        let bytes = self.chance.between(40, 300);
        let own = &mut self.servers[server];
        let end = own.log.append(content, bytes, server);
        own.replayed = end;
        own.says_received = end;
        self.pump(server);
        end
    }

    /// A stream ends, and the standby tries again if it has somebody to follow.
    pub(super) fn end_stream(&mut self, server: usize) {
        let own = &mut self.servers[server];
        let from = own.stream.take().map(|stream| stream.from);
        own.stream_count += 1;
        if let Some(from) = from {
            self.servers[from].confirmed[server] = None;
        }
        self.connect_soon(server);
    }

    pub(super) fn stream_lost(&mut self, server: usize, stream: u64) {
        if self.servers[server].stream_count == stream {
            self.end_stream(server);
        }
    }

    /// Nothing came for long: the standby gives up, if it is still so.
    pub(super) fn stream_silent(&mut self, server: usize, stream: u64) {
        let Some(streaming) = self.servers[server].stream else { return };
        if self.servers[server].stream_count == stream && !self.flows(streaming.from, server) {
            self.end_stream(server);
        }
    }

    /// Whether messages come through now.
    fn flows(&self, from: usize, to: usize) -> bool {
        self.servers[from].is_awake() && self.net.way(place(from), place(to)) == Way::Open
    }

    /// How long ago a standby heard from its upstream: messages come at least twice in the limit,
    /// if the link is kept alive.
    pub(super) fn heard(&self, server: usize, stream: Stream) -> u64 {
        let ago = self.now - stream.last_message.min(self.now);
        if self.flows(stream.from, server) { ago % self.keepalive(server) } else { ago }
    }

    fn keepalive(&self, server: usize) -> u64 {
        if self.plan.keepalive[server] { 250 } else { 8_000 }
    }

    /// Before something that ends the messages of a server: when the last of them came.
    pub(super) fn last_words(&mut self, from: usize) {
        for server in 0..self.servers.len() {
            let Some(stream) = self.servers[server].stream.filter(|s| s.from == from) else {
                continue;
            };
            let last_message = self.now - self.heard(server, stream);
            self.servers[server].stream = Some(Stream { last_message, ..stream });
            let stream = self.servers[server].stream_count;
            self.after(RECEIVER_TIMEOUT, Event::StreamSilent { server, stream });
        }
    }

    /// All processes are gone at once.
    pub(super) fn crash(&mut self, server: usize) {
        self.last_words(server);
        self.servers[server].lose_memory();
        self.servers[server].life = Life::Down;
        self.tell(|_| format!("server {server} is down"));
        for standby in 0..self.servers.len() {
            self.servers[standby].confirmed[server] = None;
            if self.servers[standby].stream.is_some_and(|stream| stream.from == server) {
                let stream = self.servers[standby].stream_count;
                let wait = self.chance.between(12, 143);
                self.after(wait, Event::StreamLost { server: standby, stream });
            }
        }
        self.lose_connections(server);
    }

    /// It starts again, as what it was.
    pub(super) fn boot(&mut self, server: usize, takes: u64) {
        let own = &mut self.servers[server];
        own.life = Life::Booting;
        let boot = own.boot;
        self.after(takes, Event::Booted { server, boot });
    }

    pub(super) fn start_server(&mut self, server: usize, boot: u64) {
        if self.servers[server].boot == boot && self.servers[server].life == Life::Down {
            let takes = self.chance.between(200, 900);
            self.boot(server, takes);
        }
    }

    pub(super) fn booted(&mut self, server: usize, boot: u64) {
        if self.servers[server].boot != boot {
            return;
        }
        self.servers[server].life = Life::Up;
        self.tell(|world| format!("server {server} is up: {:?}", world.servers[server].role));
        self.connect_soon(server);
    }

    pub(super) fn continue_server(&mut self, server: usize, boot: u64) {
        if self.servers[server].boot != boot || !self.servers[server].stopped {
            return;
        }
        self.tell(|_| format!("server {server} goes on"));
        self.servers[server].stopped = false;
        for event in std::mem::take(&mut self.servers[server].inbox) {
            self.after(0, event);
        }
        if self.servers[server].life == Life::Up {
            self.pump(server);
        }
    }

    /// The signal to promote came.
    pub(super) fn begin_promotion(&mut self, server: usize) {
        if std::mem::replace(&mut self.servers[server].promoting, true) {
            return;
        }
        let own = &mut self.servers[server];
        own.stream = None;
        own.stream_count += 1;
        let boot = own.boot;
        let stalls = self.chance.percent(3);
        let takes = if stalls { STALL } else { self.chance.between(30, 130) };
        self.after(takes, Event::Promoted { server, boot });
    }

    pub(super) fn promoted(&mut self, server: usize, boot: u64) {
        let own = &mut self.servers[server];
        if own.boot != boot || !own.promoting {
            return;
        }
        own.promoting = false;
        own.replayed = own.log.whole();
        own.log.fork();
        own.role = Role::Primary;
        own.confirmed.iter_mut().for_each(|confirmed| *confirmed = None);
        self.append(server, Content::Filler);
        self.tell(|world| {
            let log = &world.servers[server].log;
            format!("server {server} is a primary: timeline {} at {}", log.timeline, log.whole())
        });
        self.end_streams_of(server);
        self.promotions_done(server);
    }

    /// A server goes on on another branch: those who stream from it begin anew.
    fn end_streams_of(&mut self, server: usize) {
        for standby in 0..self.servers.len() {
            if self.servers[standby].stream.is_some_and(|stream| stream.from == server) {
                self.end_stream(standby);
            }
        }
    }
}
