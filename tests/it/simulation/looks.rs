//! What the proxy sees of the servers: looks with a deadline, and what they add up to.

use super::acts::moment;
use super::arms::Arm;
use super::event::Event;
use super::net::{PROXY, place};
use super::server::Life;
use super::store::SYSTEM;
use super::world::World;
use pgsteer::failover::{Fenced, Missing, Promise, Receiver, Sight, Standing, Testimony};
use pgsteer::pg::{Lsn, Timeline};
use pgsteer::topology::{Fork, History, ServerId};
use std::time::Duration;

/// Longest wait for an answer, in milliseconds.
const LOOK_MAX: u64 = 600;
/// Pause between two looks, while all is well and while it is not.
const PAUSE_IDLE: u64 = 200;
const PAUSE_BUSY: u64 = 40;

/// What a server answers.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub kind: Kind,
    pub fenced: Option<Fenced>,
    /// What it promises as a primary.
    pub promise: Option<Promise>,
    pub history: Option<History>,
}

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Role {
        timeline: Option<u32>,
        standing: Standing,
    },
    /// Refused, or it broke.
    Gone,
    /// It starts up.
    NotReady,
    /// Nothing came.
    Silent,
    /// It lives, and can't be looked at.
    Full,
}

/// What is known of one server.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub sight: Sight,
    /// What it answered before it did not.
    pub last: Option<Testimony>,
    pub answer: Option<Answer>,
    /// The look that is under way, and when it was begun.
    pub look: Option<(u64, u64)>,
    /// Since when the attempts say the same: gone, silent.
    gone: Option<u32>,
    silent: Option<u64>,
}

impl Seen {
    pub(super) fn awaited() -> Self {
        let (sight, last, answer) = (Sight::Awaited, None, None);
        Self { sight, last, answer, look: None, gone: None, silent: None }
    }

    /// One more attempt that found no server to answer. What was under way in a pause of ours
    /// proves nobody's absence; the next one counts.
    fn fail(&mut self, (began, now): (u64, u64), kind: Kind, awake_since: u64) {
        let since = match self.sight {
            Sight::Missing(missing) => missing.since,
            Sight::Answers(_) | Sight::Awaited => {
                (self.gone, self.silent) = (None, None);
                if let Sight::Answers(answer) = self.sight {
                    self.last = Some(answer);
                }
                moment(began)
            }
        };
        match kind {
            Kind::Gone | Kind::NotReady => {
                self.gone = Some(self.gone.unwrap_or(0) + 1);
                self.silent = self.silent.or(Some(began));
            }
            Kind::Silent => {
                self.gone = None;
                self.silent = self.silent.or(Some(began));
            }
            Kind::Full | Kind::Role { .. } => (self.gone, self.silent) = (None, None),
        }
        self.answer = None;
        self.sight = Sight::Missing(Missing {
            since,
            gone: self.gone.unwrap_or(0),
            restarting: kind == Kind::NotReady,
            silent: self.silent.map(|since| Duration::from_millis(now - since)),
        });
        if began < awake_since {
            self.void(awake_since);
        }
    }

    /// What was seen before a pause of ours proves nobody's absence.
    pub(super) fn void(&mut self, now: u64) {
        if let Sight::Missing(missing) = &mut self.sight {
            (self.gone, self.silent) = (None, None);
            *missing = Missing { since: moment(now), gone: 0, silent: None, ..*missing };
        }
    }
}

impl World {
    pub(super) fn look_due(&mut self, server: usize, run: u64) {
        if run != self.proxy.run || self.proxy.seen[server].look.is_some() {
            return;
        }
        self.look_at(server);
    }

    fn look_at(&mut self, server: usize) {
        self.proxy.looks += 1;
        let look = self.proxy.looks;
        self.proxy.seen[server].look = Some((look, self.now));
        self.after(LOOK_MAX, Event::LookLate { server, look });
        if self.refuses(server) {
            let wait = self.chance.between(1, 3);
            let answer = Box::new(Answer::failed(Kind::Gone));
            self.after(wait, Event::LookBack { server, look, answer });
        } else {
            self.send(PROXY, place(server), Event::LookArrives { server, look });
        }
    }

    /// Looks at once, unless a look is under way.
    pub(super) fn look_now(&mut self, server: usize) {
        if self.proxy.seen[server].look.is_none() {
            self.look_at(server);
        }
    }

    pub(super) fn look_arrives(&mut self, server: usize, look: u64) {
        let kind = match self.servers[server].life {
            Life::Down => Kind::Gone,
            Life::Booting => Kind::NotReady,
            Life::Up if self.proxy.full[server] > self.now => Kind::Full,
            Life::Up => self.role_of(server),
        };
        let answer = match kind {
            Kind::Role { .. } => self.answer(server, kind),
            Kind::Gone | Kind::NotReady | Kind::Silent | Kind::Full => Answer::failed(kind),
        };
        let back = Event::LookBack { server, look, answer: Box::new(answer) };
        self.send(place(server), PROXY, back);
    }

    fn role_of(&self, server: usize) -> Kind {
        let own = &self.servers[server];
        if own.is_primary() {
            let standing = Standing::Primary { flushed: Lsn(own.log.whole()) };
            return Kind::Role { timeline: Some(own.log.timeline), standing };
        }
        let receiver = match own.stream {
            None => Receiver::Idle,
            Some(stream) => Receiver::Streams {
                from: u16::try_from(stream.from).ok().map(ServerId),
                heard: Duration::from_millis(self.heard(server, stream)),
                // Nothing is sent anew here.
                written: None,
            },
        };
        let (told, until) = own.told_timeline;
        let timeline = if self.now < until { told } else { own.log.timeline };
        let standing = Standing::Standby {
            received: Lsn(own.received()),
            replayed: Lsn(own.replayed),
            receiver,
        };
        Kind::Role { timeline: Some(timeline), standing }
    }

    fn answer(&self, server: usize, kind: Kind) -> Answer {
        let own = &self.servers[server];
        let end = Lsn(own.log.whole());
        let promise = own.is_primary().then(|| self.promise_of(server));
        let forks = own.log.forks.iter();
        let forks =
            forks.map(|(timeline, at)| Fork { timeline: Timeline(*timeline), at: Lsn(*at) });
        let history = Some(History::new(Timeline(own.log.timeline), forks.collect()));
        let fenced =
            (own.fenced && own.is_primary()).then(|| Fenced { end, foreign: self.foreign() });
        Answer { kind, fenced, promise, history }
    }

    pub(super) fn look_back(&mut self, server: usize, look: u64, answer: Answer) {
        let counts = matches!(self.arm, Arm::PauseCounts | Arm::PauseLasts);
        let awake_since = if counts { 0 } else { self.proxy.awake_since };
        let seen = &mut self.proxy.seen[server];
        let Some((current, began)) = seen.look else { return };
        if current != look {
            return;
        }
        seen.look = None;
        let now = self.now;
        match answer.kind {
            Kind::Role { timeline, standing } => {
                seen.sight = Sight::Answers(Testimony {
                    at: moment(began),
                    system: SYSTEM,
                    timeline: timeline.map(Timeline),
                    role: standing,
                });
                seen.answer = Some(answer);
            }
            kind @ (Kind::Gone | Kind::NotReady | Kind::Silent | Kind::Full) => {
                seen.fail((began, now), kind, awake_since);
            }
        }
        self.looked(server, began);
        let wait = if self.is_restless() { PAUSE_BUSY } else { PAUSE_IDLE };
        let run = self.proxy.run;
        self.after(wait, Event::LookDue { server, run });
    }

    pub(super) fn look_late(&mut self, server: usize, look: u64) {
        self.look_back(server, look, Answer::failed(Kind::Silent));
    }
}

impl Answer {
    fn failed(kind: Kind) -> Self {
        Self { kind, fenced: None, promise: None, history: None }
    }
}
