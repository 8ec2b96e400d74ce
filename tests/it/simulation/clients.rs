//! Those who write, through the proxy and past it, and the ledger of what they were told.

use super::arms::Arm;
use super::event::Event;
use super::log::Content;
use super::net::{CLIENTS, PROXY, place};
use super::plan::Direct;
use super::server::{Life, Waiter};
use super::world::World;
use pgsteer::failover::{By, Kind, Phase, Record};

/// Writers through the proxy.
const WRITERS: usize = 2;
/// How often a client that waits is looked at again, in milliseconds.
const HOLD: u64 = 40;

/// Which way a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Proxy { run: u64, epoch: u64, timeline: u32, writer: usize },
    Direct,
}

/// How far a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Outstanding,
    /// Its client was told of success.
    Acknowledged,
    /// Its client was told of an error, or of doubt.
    Unknown,
    /// It was acknowledged, and reported as lost.
    Excused,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub server: usize,
    pub via: Via,
    pub state: State,
    /// Where its record ends, once it is written.
    pub end: u64,
    /// A quorum had confirmed it when it was acknowledged.
    pub safe: bool,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    pub writes: Vec<Write>,
    /// What each writer waits for.
    waits_for: Vec<Option<u32>>,
    /// Until then a transaction is open that nobody ends.
    pub long_until: u64,
}

impl Clients {
    pub(super) fn write(&self, id: u32) -> &Write {
        &self.writes[usize::try_from(id).unwrap()]
    }

    pub(super) fn write_mut(&mut self, id: u32) -> &mut Write {
        &mut self.writes[usize::try_from(id).unwrap()]
    }

    fn add(&mut self, server: usize, via: Via) -> u32 {
        let id = u32::try_from(self.writes.len()).unwrap();
        self.writes.push(Write { server, via, state: State::Outstanding, end: 0, safe: false });
        id
    }
}

/// Whether what was begun on the primary in that epoch is cut off, as `Topology::has_ended` says:
/// another is the primary, or is about to be without waiting for this one.
fn has_ended(record: &Record, epoch: u64) -> bool {
    let replaced = record.operation().is_some_and(|operation| operation.kind == Kind::Failover);
    epoch != record.primary.epoch.0 || replaced
}

impl World {
    pub(super) fn start_clients(&mut self) {
        self.clients.waits_for = vec![None; WRITERS];
        if self.plan.direct != Direct::Nobody {
            self.after(50, Event::DirectDue);
        }
    }

    /// The writers begin, with each run of the proxy.
    pub(super) fn start_writers(&mut self) {
        let run = self.proxy.run;
        self.clients.waits_for.iter_mut().for_each(|waits| *waits = None);
        for writer in 0..WRITERS {
            let wait = self.chance.between(5, 60);
            self.after(wait, Event::WriterDue { writer, run });
        }
    }

    /// Sessions with a backend on the recorded primary.
    pub(super) fn busy(&self) -> usize {
        let waiting = self.clients.waits_for.iter().flatten().count();
        waiting + usize::from(self.clients.long_until > self.now)
    }

    /// Sessions past the proxy that can't be ended.
    pub(super) fn foreign(&self) -> usize {
        usize::from(self.plan.direct == Direct::Stubborn)
    }

    pub(super) fn writer_due(&mut self, writer: usize, run: u64) {
        if run != self.proxy.run || self.clients.waits_for[writer].is_some() {
            return;
        }
        let record = &self.proxy.record;
        let Some(server) = self.recorded().filter(|_| record.phase == Phase::Stable) else {
            self.after(HOLD, Event::WriterDue { writer, run });
            return;
        };
        let (epoch, timeline) = (record.primary.epoch.0, record.primary.timeline.0);
        let id = self.clients.add(server, Via::Proxy { run, epoch, timeline, writer });
        self.clients.waits_for[writer] = Some(id);
        if self.refuses(server) {
            self.after(2, Event::Acknowledged { write: id, good: false });
        } else {
            self.send(PROXY, place(server), Event::WriteArrives { write: id });
        }
    }

    pub(super) fn direct_due(&mut self) {
        let wait = self.chance.between(30, 150);
        self.after(wait, Event::DirectDue);
        let server = self.chance.place(self.servers.len());
        if self.servers[server].is_primary() && self.net.open(CLIENTS, place(server)) {
            let id = self.clients.add(server, Via::Direct);
            self.send(CLIENTS, place(server), Event::WriteArrives { write: id });
        }
    }

    pub(super) fn write_arrives(&mut self, id: u32) {
        let Write { server, via, .. } = *self.clients.write(id);
        let own = &self.servers[server];
        if own.life != Life::Up {
            return self.answer_write(id, false);
        }
        // A backend is taken only if it shows the recorded timeline.
        let fits = match via {
            Via::Proxy { timeline, .. } => own.log.timeline == timeline,
            Via::Direct => true,
        };
        if !own.is_primary() || own.fenced || !fits {
            return self.answer_write(id, false);
        }
        let end = self.append(server, Content::Write(id));
        self.clients.write_mut(id).end = end;
        self.servers[server].waiting.push((end, Waiter::Write(id)));
        self.release(server);
    }

    /// A primary says that a write is done.
    pub(super) fn acknowledge(&mut self, id: u32) {
        let server = self.clients.write(id).server;
        let own = &self.servers[server];
        let safe = own.quorum.is_some() && !own.rogue;
        self.clients.write_mut(id).safe = safe;
        self.answer_write(id, true);
    }

    fn answer_write(&mut self, id: u32, good: bool) {
        let Write { server, via, .. } = *self.clients.write(id);
        match via {
            Via::Proxy { .. } => {
                self.send(place(server), PROXY, Event::Acknowledged { write: id, good });
            }
            Via::Direct if good => {
                self.send(place(server), CLIENTS, Event::DirectAcknowledged { write: id });
            }
            Via::Direct => {}
        }
    }

    pub(super) fn direct_acknowledged(&mut self, id: u32) {
        // Without a quorum nothing is promised to those who go past the proxy.
        if self.clients.write(id).safe {
            self.clients.write_mut(id).state = State::Acknowledged;
            self.judge.counts.direct += 1;
        }
    }

    /// The answer to a write is at the proxy.
    pub(super) fn acknowledged(&mut self, id: u32, good: bool) {
        let Write { via, state, server, .. } = *self.clients.write(id);
        let Via::Proxy { run, epoch, writer, .. } = via else { return };
        let unchecked = self.arm == Arm::EpochUnchecked;
        if run != self.proxy.run || (state != State::Outstanding && !unchecked) {
            return;
        }
        let ended = has_ended(&self.proxy.record, epoch);
        if good && (!ended || unchecked) {
            self.clients.write_mut(id).state = State::Acknowledged;
            self.proxy.last_acknowledged = Some(self.now);
            self.judge_acknowledgement(epoch, server);
        } else {
            self.clients.write_mut(id).state = State::Unknown;
        }
        if self.clients.waits_for[writer] == Some(id) {
            self.clients.waits_for[writer] = None;
            let wait = self.chance.between(self.plan.pause / 2, self.plan.pause);
            self.after(wait, Event::WriterDue { writer, run });
        }
    }

    /// Whatever is still under way on a former primary is cut off.
    pub(super) fn cut_off_writes(&mut self) {
        let record = self.proxy.record.clone();
        let outside = record.changes.last().is_some_and(|change| change.by == By::Outside);
        if self.arm == Arm::SessionsKept && outside {
            return;
        }
        let ended = |write: &Write| match write.via {
            Via::Proxy { epoch, .. } => has_ended(&record, epoch),
            Via::Direct => false,
        };
        self.judge.counts.in_flight += self.drop_writes(ended);
    }

    /// A server died: its clients are told that they can't know.
    pub(super) fn writes_lost(&mut self, server: usize) {
        self.drop_writes(|write| write.server == server);
    }

    fn drop_writes(&mut self, which: impl Fn(&Write) -> bool) -> usize {
        let run = self.proxy.run;
        let mut dropped = 0;
        for writer in 0..WRITERS {
            let Some(id) = self.clients.waits_for[writer] else { continue };
            if which(self.clients.write(id)) {
                self.clients.write_mut(id).state = State::Unknown;
                self.clients.waits_for[writer] = None;
                self.after(HOLD, Event::WriterDue { writer, run });
                dropped += 1;
            }
        }
        dropped
    }
}
