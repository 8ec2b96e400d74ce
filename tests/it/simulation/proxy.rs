//! The conductor of the simulation: it drives the production decider as the proxy's own does.
//!
//! Situation, decision, acts; one act a server at a time, each with a deadline; the record
//! changed by compare-and-swap, and nothing begun before it lies on the disk. All but the record
//! is lost when the process dies.

pub(super) use super::looks::Answer;

use super::acts::{Outcome, moment};
use super::arms::Arm;
use super::event::Event;
use super::faults::phase_name;
use super::looks::Seen;
use super::plan::name;
use super::store::Writing;
use super::world::World;
use pgsteer::failover::{
    Acknowledged, Act, Arming, Catching, Checkpoint, Fenced, Frozen, Gate, Order, Phase, Promise,
    Receiver, Record, Refusal, ServerView, Sight, Situation, Standing, Why, decide,
};
use pgsteer::pg::Lsn;
use pgsteer::topology::ServerId;
use std::sync::Arc;

/// How often time alone is looked at, in milliseconds.
const TICK_IDLE: u64 = 200;
const TICK_BUSY: u64 = 20;
/// A tick that is later than this was a pause of ours.
const PAUSE: u64 = 350;
/// After an act was carried out, the same is not done again before so long.
const AGAIN_AFTER: u64 = 1_000;
/// The pause after an act that failed.
const RETRY: u64 = 100;

/// What is remembered of what our acts did to a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Remembered {
    frozen: Option<(Frozen, u64)>,
    stuck: Option<Arc<str>>,
    /// Whom it was told to receive from; up to where it had the log when that moved last.
    catching: Option<(Catching, Lsn)>,
    fenced: Option<Fenced>,
    pub flying: Option<usize>,
    done: Option<(Act, u64)>,
    failed: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Proxy {
    /// What belongs to an earlier run of the process is void.
    pub run: u64,
    pub up: bool,
    pub paused: bool,
    pub inbox: Vec<Event>,
    pub record: Record,
    pub revision: u64,
    pub writing: Option<Writing>,
    /// A write that a process began and did not live to see.
    pub orphan: Option<Writing>,
    pub seen: Vec<Seen>,
    pub looks: u64,
    pub remembered: Vec<Remembered>,
    pub order: Option<Order>,
    pub checkpoint: Checkpoint,
    pub last_acknowledged: Option<u64>,
    /// The newest position of the primary: when it was asked for, and what it was.
    sample: Option<(u64, u64)>,
    pub why: Option<Why>,
    ended: u64,
    pub awake_since: u64,
    phase_since: u64,
    proved: Option<u64>,
    promised: Option<(Promise, u64)>,
    last_automatic: Option<u64>,
    began: u64,
    pub disarmed_until: u64,
    pub bad_hands: Vec<u64>,
    pub full: Vec<u64>,
}

impl Proxy {
    pub(super) fn new(servers: usize) -> Self {
        let nothing = super::store::Store::nothing();
        Self {
            run: 0,
            up: false,
            paused: false,
            inbox: Vec::new(),
            record: nothing,
            revision: 0,
            writing: None,
            orphan: None,
            seen: vec![Seen::awaited(); servers],
            looks: 0,
            remembered: vec![Remembered::default(); servers],
            order: None,
            checkpoint: Checkpoint::Wanted,
            last_acknowledged: None,
            sample: None,
            why: None,
            ended: 0,
            awake_since: 0,
            phase_since: 0,
            proved: None,
            promised: None,
            last_automatic: None,
            began: 0,
            disarmed_until: 0,
            bad_hands: vec![0; servers],
            full: vec![0; servers],
        }
    }
}

impl World {
    /// The process starts, and knows the record alone.
    pub(super) fn start_proxy(&mut self) {
        let now = self.now;
        let old = &self.proxy;
        self.proxy = Proxy {
            run: old.run + 1,
            up: true,
            orphan: old.orphan.clone(),
            record: self.store.record.clone(),
            revision: self.store.revision,
            looks: old.looks,
            ended: now,
            awake_since: now,
            phase_since: now,
            began: now,
            disarmed_until: old.disarmed_until,
            bad_hands: old.bad_hands.clone(),
            full: old.full.clone(),
            ..Proxy::new(self.servers.len())
        };
        let run = self.proxy.run;
        if run > 1 {
            self.judge.counts.restarts[phase_name(&self.proxy.record.phase).place()] += 1;
        }
        for server in 0..self.servers.len() {
            self.after(1, Event::LookDue { server, run });
        }
        self.after(1, Event::Tick { run });
        self.start_writers();
        self.tell(|_| "the proxy is up".to_owned());
    }

    pub(super) fn crash_proxy(&mut self) {
        self.proxy.run += 1;
        self.proxy.up = false;
        self.proxy.paused = false;
        self.proxy.inbox.clear();
        // Whether it was written, the disk knows.
        self.proxy.orphan = self.proxy.writing.take();
        for flight in &mut self.flights {
            flight.over = true;
        }
        self.tell(|_| "the proxy is down".to_owned());
    }

    pub(super) fn proxy_event(&mut self, event: Event) {
        let run = self.proxy.run;
        match event {
            Event::Restart => {
                if !self.proxy.up {
                    self.start_proxy();
                }
            }
            Event::Resume { run: of } => {
                if of == run && self.proxy.paused {
                    self.proxy.paused = false;
                    self.tell(|_| "the proxy goes on".to_owned());
                    for event in std::mem::take(&mut self.proxy.inbox) {
                        self.after(0, event);
                    }
                }
            }
            Event::Stored { run, fails } => self.stored(run, fails),
            _ if !self.proxy.up => {}
            Event::LookDue { server, run } => self.look_due(server, run),
            Event::LookBack { server, look, answer } => self.look_back(server, look, *answer),
            Event::LookLate { server, look } => self.look_late(server, look),
            Event::ConnectionLost { server, run: of } => {
                if of == run {
                    self.writes_lost(server);
                    self.look_now(server);
                }
            }
            Event::ActBack { flight, outcome } => self.act_ends(flight, outcome),
            Event::ActLate { flight } => self.act_ends(flight, Outcome::Failed),
            Event::StoreAnswers { run: of, ok } => {
                if of == run {
                    self.store_answers(ok);
                }
            }
            Event::Tick { run: of } => {
                if of == run {
                    self.tick();
                }
            }
            Event::WriterDue { writer, run } => self.writer_due(writer, run),
            Event::Acknowledged { write, good } => self.acknowledged(write, good),
            other => panic!("nobody handles {other:?}"),
        }
    }

    /// A server died: whoever was connected to it notices.
    pub(super) fn lose_connections(&mut self, server: usize) {
        let wait = self.chance.between(12, 128);
        let run = self.proxy.run;
        self.after(wait, Event::ConnectionLost { server, run });
        self.acts_lost(server, wait);
    }

    /// Something is under way, or somebody is missing.
    pub(super) fn is_restless(&self) -> bool {
        self.proxy.record.phase != Phase::Stable
            || self.proxy.seen.iter().any(|seen| !matches!(seen.sight, Sight::Answers(_)))
    }

    fn tick(&mut self) {
        let run = self.proxy.run;
        let wait = if self.is_restless() { TICK_BUSY } else { TICK_IDLE };
        self.after(wait, Event::Tick { run });
        self.round();
    }

    /// The server that is recorded as the primary.
    pub(super) fn recorded(&self) -> Option<usize> {
        let primary = &self.proxy.record.primary.server;
        (0..self.servers.len()).find(|server| name(*server) == *primary)
    }

    /// A look came to its end.
    pub(super) fn looked(&mut self, server: usize, began: u64) {
        let seen = &self.proxy.seen[server];
        if self.recorded() == Some(server)
            && let Sight::Answers(answer) = &seen.sight
            && let Standing::Primary { flushed } = answer.role
        {
            let promise = seen.answer.as_ref().and_then(|answer| answer.promise.clone());
            if self.proxy.promised.as_ref().map(|(promise, _)| promise) != promise.as_ref() {
                self.proxy.promised = promise.map(|promise| (promise, self.now));
            }
            if answer.timeline == Some(self.proxy.record.primary.timeline) {
                self.proxy.sample = Some((began, flushed.0));
            }
        }
        self.forget(server);
        self.round();
    }

    /// What our acts did is past once a newer look shows otherwise.
    fn forget(&mut self, server: usize) {
        let remembered = &mut self.proxy.remembered[server];
        match &self.proxy.seen[server].sight {
            // It may restart, and then holds less for certain.
            Sight::Missing(_) => {
                remembered.frozen = None;
                remembered.stuck = None;
                self.forget_catching(Some(server));
            }
            Sight::Awaited => {}
            Sight::Answers(answer) => {
                if let (Standing::Standby { received, .. }, Some((catching, before))) =
                    (answer.role, &mut remembered.catching)
                    && *before < received
                {
                    catching.since = catching.since.max(answer.at);
                    *before = received;
                }
                let loose = match answer.role {
                    Standing::Primary { .. } => true,
                    Standing::Standby { receiver, .. } => receiver != Receiver::Idle,
                };
                let newer = |since: u64| answer.at > moment(since);
                if loose && remembered.frozen.is_some_and(|(_, since)| newer(since)) {
                    remembered.frozen = None;
                }
            }
        }
    }

    /// What standbys were told to take over from that one, or from anybody, is past.
    fn forget_catching(&mut self, from: Option<usize>) {
        for remembered in &mut self.proxy.remembered {
            let told = remembered.catching.as_ref().map(|(catching, _)| catching.from.index());
            if from.is_none() || told == from {
                remembered.catching = None;
            }
        }
    }

    fn views(&self) -> Vec<ServerView> {
        let ids = (0..).map(ServerId);
        ids.zip(self.proxy.seen.iter().zip(&self.proxy.remembered))
            .map(|(id, (seen, remembered))| {
                let answer = seen.answer.as_ref();
                // A fence outlives the process that put it up; while one hands over, it is put
                // up anew.
                let anew = matches!(self.proxy.record.phase, Phase::Revoking(_))
                    || self.arm == Arm::FenceForgotten;
                let found = answer.and_then(|answer| answer.fenced).filter(|_| !anew);
                ServerView {
                    id,
                    name: name(id.index()),
                    sight: seen.sight,
                    last: seen.last.filter(|_| matches!(seen.sight, Sight::Missing(_))),
                    history: answer.and_then(|answer| answer.history.clone()),
                    frozen: remembered.frozen.map(|(frozen, _)| frozen),
                    stuck: remembered.stuck.clone(),
                    failed: remembered.failed.map(moment),
                    catching: remembered.catching.as_ref().map(|(catching, _)| catching.clone()),
                    fenced: remembered.fenced.or(found),
                    tags: self.plan.tags[id.index()],
                    keepalive: self.plan.keepalive[id.index()],
                }
            })
            .collect()
    }

    /// What the primary is known to have acknowledged.
    fn what_was_acknowledged(&self) -> Acknowledged {
        let last = self.proxy.last_acknowledged.unwrap_or(0);
        match self.proxy.sample {
            Some((sent, at)) if sent > last => Acknowledged::UpTo(Lsn(at)),
            Some((_, at)) => Acknowledged::Beyond(Lsn(at)),
            None => Acknowledged::Unknown,
        }
    }

    /// Asks about all that is seen now.
    pub(super) fn asked<T>(&self, ask: impl FnOnce(&Situation<'_>) -> T) -> T {
        let arming = if self.proxy.disarmed_until > self.now {
            Arming::Disarmed(vec![Arc::from("a lock")])
        } else {
            Arming::Armed
        };
        let views = self.views();
        ask(&Situation {
            now: moment(self.now),
            record: &self.proxy.record,
            servers: &views,
            arming: &arming,
            order: self.proxy.order.as_ref(),
            obstacle: None,
            checkpoint: self.proxy.checkpoint,
            acknowledged: self.what_was_acknowledged(),
            gate: Gate { busy: self.busy() },
            promise: self.proxy.promised.as_ref().map(|(promise, at)| (promise, moment(*at))),
            proved: self.proxy.proved.map(moment),
            awake_since: moment(self.proxy.awake_since),
            phase_since: moment(self.proxy.phase_since),
            last_automatic: self.proxy.last_automatic.map(moment),
            began: moment(self.proxy.began),
        })
    }

    /// Decides once, and begins what was decided.
    pub(super) fn round(&mut self) {
        let now = self.now;
        if now > self.proxy.ended + PAUSE {
            self.proxy.awake_since = now;
            let asleep = moment(now).since(moment(self.proxy.ended));
            let remembered = self.proxy.remembered.iter_mut();
            for (catching, _) in remembered.filter_map(|own| own.catching.as_mut()) {
                catching.since = moment(now).min(catching.since + asleep);
            }
            if self.arm != Arm::PauseCounts {
                self.proxy.seen.iter_mut().for_each(|seen| seen.void(now));
            }
        }
        self.proxy.ended = now;
        if self.proxy.writing.is_some() || self.adopted() {
            return;
        }
        let policy = &self.plan.policy;
        let decision = self.asked(|situation| match self.arm {
            Arm::Sound => decide(situation, policy, now),
            arm => arm.decide(situation, policy, now),
        });
        if self.proxy.why.as_ref() != Some(&decision.why) {
            self.tell(|_| format!("why: {}", decision.why));
            self.proxy.why = Some(decision.why);
        }
        let mut acts = decision.acts.into_iter();
        while let Some(act) = acts.next() {
            match act {
                Act::Write(next) => return self.write(*next, acts.collect()),
                Act::Answer(answer) => self.finish(answer),
                other => self.begin_act(other),
            }
        }
    }

    fn finish(&mut self, answer: Result<(), Refusal>) {
        if self.proxy.order.take().is_some() {
            self.judge.counts.answers += 1;
            self.tell(|_| match answer {
                Ok(()) => "the order is carried out".to_owned(),
                Err(refusal) => format!("the order is refused: {refusal}"),
            });
        }
    }

    fn begin_act(&mut self, act: Act) {
        let Some(server) = act.server().map(ServerId::index) else { return };
        if let Act::Checkpoint(_) = act {
            // On a connection of its own, beside whatever else is under way there.
            self.proxy.checkpoint = Checkpoint::Underway;
            return self.launch(act);
        }
        let remembered = &mut self.proxy.remembered[server];
        let resting = remembered.failed.is_some_and(|at| self.now < at + RETRY);
        let fresh = remembered
            .done
            .as_ref()
            .is_some_and(|(done, at)| *done == act && self.now < at + AGAIN_AFTER);
        if remembered.flying.is_some() || resting || fresh {
            return;
        }
        remembered.flying = Some(self.flights.len());
        // From now on it is not certain any more, whatever comes of the act.
        let frees = matches!(act, Act::Unfreeze(_) | Act::Repoint { .. } | Act::Promote(_));
        if frees && self.arm != Arm::FreeingCounts {
            remembered.frozen = None;
        }
        if frees {
            remembered.stuck = None;
        }
        if let Act::Repoint { to: from, .. } = act
            && remembered.catching.as_ref().is_none_or(|(catching, _)| catching.from != from)
        {
            let received = match self.proxy.seen[server].sight {
                Sight::Answers(answer) => match answer.role {
                    Standing::Standby { received, .. } => received,
                    Standing::Primary { .. } => Lsn(0),
                },
                Sight::Awaited | Sight::Missing(_) => Lsn(0),
            };
            let catching = Catching { from, since: moment(self.now), trouble: None };
            remembered.catching = Some((catching, received));
        }
        self.launch(act);
    }

    fn act_ends(&mut self, flight: usize, outcome: Outcome) {
        let flown = &mut self.flights[flight];
        if flown.over {
            return;
        }
        flown.over = true;
        let (act, server, began) = (flown.act.clone(), flown.server, flown.began);
        let now = self.now;
        if outcome == Outcome::Failed {
            self.tell(|_| format!("failed: {act:?}"));
        }
        if let Act::Checkpoint(_) = act {
            self.proxy.checkpoint = Checkpoint::Past;
            return self.round();
        }
        let remembered = &mut self.proxy.remembered[server];
        remembered.flying = None;
        if let Act::Freeze(_) = act {
            remembered.stuck = (outcome == Outcome::Failed).then(|| Arc::from("it refuses"));
        }
        if outcome == Outcome::Failed {
            remembered.failed = Some(now);
        } else {
            remembered.failed = None;
            remembered.done = Some((act.clone(), now));
        }
        match (&act, outcome) {
            (_, Outcome::Frozen(frozen)) => remembered.frozen = Some((frozen, now)),
            (_, Outcome::Fenced(fenced)) => remembered.fenced = Some(fenced),
            (Act::Unfence(_), Outcome::Plain | Outcome::Failed) => remembered.fenced = None,
            (Act::Unfreeze(_) | Act::Repoint { .. }, Outcome::Plain) => remembered.frozen = None,
            (Act::Prove(_), Outcome::Plain) => self.proxy.proved = Some(began),
            (_, Outcome::Plain | Outcome::Failed) => {}
        }
        self.look_now(server);
        self.round();
    }

    fn store_answers(&mut self, ok: bool) {
        let Some(Writing { next, expected, then }) = self.proxy.writing.take() else { return };
        let before = self.proxy.record.clone();
        if ok && self.store.revision == expected + 1 {
            self.proxy.record = next;
        } else {
            // Somebody else wrote, or the answer was lost: what is there counts.
            self.proxy.record = self.store.record.clone();
        }
        self.proxy.revision = self.store.revision;
        self.taken(&before);
        for act in then {
            match act {
                Act::Answer(answer) => self.finish(answer),
                Act::Write(_) => {}
                other => self.begin_act(other),
            }
        }
        self.round();
    }

    /// What follows from a new record.
    fn taken(&mut self, before: &Record) {
        let record = &self.proxy.record;
        if before.phase != record.phase {
            self.proxy.phase_since = self.now;
            if !matches!(before.phase, Phase::Revoking(_)) {
                self.forget_catching(None);
            }
        }
        let record = &self.proxy.record;
        if before.primary != record.primary {
            self.proxy.sample = None;
            self.proxy.promised = None;
            // What was done to it as something else is past.
            if let Some(primary) =
                (0..self.servers.len()).find(|at| name(*at) == record.primary.server)
            {
                let remembered = &mut self.proxy.remembered[primary];
                (remembered.frozen, remembered.fenced) = (None, None);
            }
            let last = self.proxy.record.changes.last();
            if last.is_some_and(|change| change.by == pgsteer::failover::By::Evidence) {
                self.proxy.last_automatic = Some(self.now);
            }
        }
        self.cut_off_writes();
    }
}
