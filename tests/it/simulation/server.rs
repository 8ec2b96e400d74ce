//! A fake PostgreSQL server: what of it survives a crash, and what does not.
//!
//! It is modelled on what was measured on real ones: positions that end within a record, a
//! receive position that begins anew with a stream, a timeline that is known late, commits that
//! wait for ever, settings that outlive a restart.

use super::event::Event;
use super::log::Log;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Standby,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Up,
    Down,
    /// It starts up, and refuses everybody meanwhile.
    Booting,
}

/// The stream that a standby receives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub from: usize,
    /// Up to where the other side has sent.
    pub sent: u64,
    pub under_way: bool,
    pub last_message: u64,
}

/// Who waits until a position is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Write(u32),
    Act(usize),
}

#[derive(Debug)]
pub(super) struct Server {
    pub log: Log,
    pub role: Role,
    /// Whom it follows; durable.
    pub upstream: Option<usize>,
    /// What a freeze took away; durable, and ours.
    pub undo: Option<usize>,
    /// It takes no writes; durable.
    pub fenced: bool,
    /// How many of the others must confirm a commit; durable.
    pub quorum: Option<u16>,
    pub life: Life,
    /// What was begun in an earlier life is void.
    pub boot: u64,
    pub stopped: bool,
    pub inbox: Vec<Event>,
    pub stream: Option<Stream>,
    /// What belongs to an earlier stream is void.
    pub stream_count: u64,
    /// Its own word on how far it received: begins anew with each stream.
    pub says_received: u64,
    pub replayed: u64,
    /// The timeline that its control file tells, and since when another one is the true one.
    pub told_timeline: (u32, u64),
    /// As an upstream: how far each of the others has confirmed.
    pub confirmed: Vec<Option<u64>>,
    pub waiting: Vec<(u64, Waiter)>,
    pub promoting: bool,
    /// Somebody else promoted it: what it acknowledges is not ours.
    pub rogue: bool,
}

impl Server {
    pub(super) fn new(role: Role, servers: usize, quorum: Option<u16>) -> Self {
        let log = Log::new();
        Self {
            replayed: log.whole(),
            says_received: log.whole(),
            log,
            role,
            upstream: (role == Role::Standby).then_some(0),
            undo: None,
            fenced: false,
            quorum,
            life: Life::Up,
            boot: 0,
            stopped: false,
            inbox: Vec::new(),
            stream: None,
            stream_count: 0,
            told_timeline: (1, 0),
            confirmed: vec![None; servers],
            waiting: Vec::new(),
            promoting: false,
            rogue: false,
        }
    }

    /// It runs, and is not stopped.
    pub(super) fn is_awake(&self) -> bool {
        self.life == Life::Up && !self.stopped
    }

    /// It takes writes, or would if anybody reached it.
    pub(super) fn is_primary(&self) -> bool {
        self.role == Role::Primary
    }

    /// How far it received, by its own word.
    pub(super) fn received(&self) -> u64 {
        self.says_received.max(self.replayed)
    }

    /// All that it holds was replayed.
    pub(super) fn has_replayed(&self) -> bool {
        self.replayed >= self.log.whole()
    }

    /// Whether so many confirmed it as its settings demand; a fenced one waits for a name that
    /// nobody has.
    pub(super) fn is_confirmed(&self, lsn: u64) -> bool {
        let Some(quorum) = self.quorum else { return !self.fenced };
        let count = self.confirmed.iter().flatten().filter(|at| **at >= lsn).count();
        !self.fenced && count >= usize::from(quorum)
    }

    /// The waiters whose turn it is.
    pub(super) fn released(&mut self) -> Vec<Waiter> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut released = Vec::new();
        waiting.retain(|(lsn, waiter)| {
            let done = self.is_confirmed(*lsn);
            if done {
                released.push(*waiter);
            }
            !done
        });
        self.waiting = waiting;
        released
    }

    /// What does not outlive its processes.
    pub(super) fn lose_memory(&mut self) {
        self.boot += 1;
        self.stream = None;
        self.stream_count += 1;
        self.log.partial = 0;
        self.says_received = 0;
        self.replayed = self.log.whole();
        self.confirmed.iter_mut().for_each(|confirmed| *confirmed = None);
        self.waiting.clear();
        self.promoting = false;
        self.stopped = false;
        self.inbox.clear();
    }
}
