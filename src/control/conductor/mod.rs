//! Carries out what `failover::decide` decides: situation, decision, acts, again.
//!
//! One task a proxy. It wakes whenever the topology changed, an act came to its end, an operator
//! gave an order, or time went by; builds the situation anew from what was looked at and what is
//! recorded; and begins the acts that are decided on and not under way. Acts run on their own,
//! one at a time a server, each with a deadline; the record is written in between, and nothing
//! that counts on it is begun before it lies on the disk.
//!
//! Invariants:
//! - The record is changed by compare-and-swap only, and before what it announces. What can't be
//!   recorded is not begun, and an order for it is refused and forgotten.
//! - After a pause of this process, what was seen before it proves nobody's absence.
//! - What is published follows the record: while a change is under way nobody takes writes, and
//!   whoever somebody else made the primary takes none before he is recorded.
//!
//! Deliberately absent: any rule on what to do. Those are in `failover`.

mod act;
mod answer;
mod arming;
mod memory;
mod prepared;
mod scene;
mod wakeful;

use crate::clock;
use crate::clock::Moment;
use crate::control::conductor::act::Outcome;
use crate::control::conductor::memory::Memory;
use crate::control::conductor::prepared::Left;
use crate::control::conductor::wakeful::{Pause, Wakeful};
use crate::control::desk::Desk;
use crate::control::fold::{Book, Fold};
use crate::control::hands::{HandError, Hands};
use crate::control::steward::{Ask, Bulletin, Progress};
use crate::failover::{
    Act, Arming, Checkpoint, Fenced, Gate, Kind, Order, Phase, Policy, Promise, Record, Refusal,
    ServerView, Sight, Situation, Why, decide,
};
use crate::metrics::{Metrics, SwapResult};
use crate::store::{Revision, Store, SwapError};
use crate::timer;
use crate::topology::{NoPrimary, Primary, ServerId, Signals};
use arc_swap::ArcSwap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// How often time alone is looked at while nothing is under way, and while something is.
const TICK_IDLE: Duration = Duration::from_millis(100);
const TICK_BUSY: Duration = Duration::from_millis(10);
/// How often the witnesses are asked while the primary does not answer, and for how long: they
/// notice its end within some 150 ms.
const WITNESS_PACE: Duration = Duration::from_millis(20);
const WITNESSES_FOR: Duration = Duration::from_secs(2);
/// What is asked for longer than this many times that pace is asked less often.
const PATIENCE: u32 = 50;
/// The pause after a record that could not be written: a full disk is not made better by haste.
const WRITE_AGAIN: Duration = Duration::from_millis(250);
/// Records that may be written in one round: a change takes four.
const WRITES_MAX: usize = 8;

/// What the conductor is built from.
pub(crate) struct Parts {
    pub(crate) desk: Arc<Desk>,
    pub(crate) hands: Arc<Hands>,
    pub(crate) store: Store,
    pub(crate) signals: Arc<Signals>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    /// The servers' names, and how gladly each is promoted, by their ids.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) priorities: Vec<u32>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) bulletin: Arc<Bulletin>,
}

/// The conductor, and what it remembers from round to round.
pub(crate) struct Conductor {
    parts: Parts,
    record: Option<(Record, Revision)>,
    memory: Memory,
    left: Left,
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    order: Option<(Order, oneshot::Sender<Result<(), Refusal>>)>,
    /// How far the checkpoint is that the order begins with.
    checkpoint: Checkpoint,
    /// When the primary was last looked at because it restarts in the middle of a switchover.
    awaited: Moment,
    wakeful: Wakeful,
    phase_since: Moment,
    /// When the change under way was begun, as far as this process knows.
    change_since: Moment,
    proved: Option<Moment>,
    promised: Option<(Promise, Moment)>,
    last_automatic: Option<Moment>,
    /// When this process began.
    began: Moment,
    why: Option<Why>,
    /// Why the last record could not be written, and when that was tried.
    unwritten: Option<(Arc<str>, Moment)>,
    /// The primary does not answer, and the witnesses are asked.
    asking: bool,
}

/// Acts whose outcome was not looked at yet: one a server, and a few to spare.
const OUTCOMES_MAX: usize = 2 * crate::topology::MAX_SERVERS;

impl Conductor {
    /// A conductor that has done nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        let now = clock::now();
        Self {
            memory: Memory::new(parts.names.len()),
            left: Left::default(),
            parts,
            record: None,
            outcomes: mpsc::channel(OUTCOMES_MAX),
            order: None,
            checkpoint: Checkpoint::Wanted,
            awaited: Moment::ORIGIN,
            wakeful: Wakeful::new(now),
            phase_since: now,
            change_since: now,
            proved: None,
            promised: None,
            last_automatic: None,
            began: now,
            why: None,
            unwritten: None,
            asking: false,
        }
    }

    /// Conducts for ever. A store that can't be read leaves everything as it is.
    pub(crate) async fn run(mut self) {
        match self.parts.store.load().await {
            Ok(Some((record, revision))) => {
                info!(
                    event = "record_loaded",
                    epoch = record.epoch.0,
                    "found {}",
                    scene::told(&record)
                );
                self.take(record, revision);
            }
            Ok(None) => {}
            Err(problem) => {
                // Nobody is to be without a primary for that.
                self.parts.desk.keep(Book::Absent);
                return self.broken(&problem.to_string());
            }
        }
        // What it says was taken in: from here on somebody may be open.
        self.parts.desk.keep(Book::Kept);
        let mut changed = self.parts.desk.subscribe();
        loop {
            let busy = self.is_changing() || self.asking;
            let wait = if busy { TICK_BUSY } else { TICK_IDLE };
            tokio::select! {
                // A board that is gone ends this task, too.
                _ = changed.changed() => {}
                Some(outcome) = self.outcomes.1.recv() => self.note(outcome),
                Some(ask) = self.parts.asks.recv() => self.answer(ask),
                () = timer::sleep(wait) => {}
            }
            while let Ok(outcome) = self.outcomes.1.try_recv() {
                self.note(outcome);
            }
            self.look_at_the_clock(wait);
            self.rounds().await;
        }
    }

    /// Looks whether this process has stood still: no more than this should have gone by.
    fn look_at_the_clock(&mut self, expected: Duration) -> Pause {
        let now = clock::now();
        let Some(asleep) = self.wakeful.look(now, expected) else { return Pause::None };
        warn!(event = "paused", "this process stood still for {asleep:?}");
        self.parts.desk.void_evidence(asleep);
        self.memory.slept(asleep, now);
        Pause::Noticed
    }

    /// Decides and acts until nothing more is to be written.
    async fn rounds(&mut self) {
        for _ in 0..WRITES_MAX {
            self.look_at_the_clock(Duration::ZERO);
            if let Some(found) = self.found() {
                if !self.write(found).await {
                    return;
                }
                self.finish_if_taken();
            }
            let Some((record, _)) = self.record.clone() else { return };
            self.ask_whether_it_goes_on();
            let views = self.views(&record);
            let witnesses = self.ask_witnesses(&record, &views);
            self.asking = self.ask_confirmers(&views) || witnesses;
            let arming = self.arming(&record, &views);
            self.promised(&record);
            self.pledge(&record);
            self.left.look(self.parts.hands.survey_of(&record.primary.server).as_deref());
            let policy = self.parts.policy.load();
            let obstacle = self.parts.hands.obstacle(&policy, &record.primary.server);
            let means = (&arming, obstacle.as_ref());
            let unix_now = clock::whole_unix_seconds();
            let decision = decide(&self.situation(&record, &views, means), &policy, unix_now);
            if self.look_at_the_clock(Duration::ZERO) == Pause::Noticed {
                // It was decided by what was seen before.
                continue;
            }
            self.tell(&decision.why, &arming);
            let mut written = false;
            for act in decision.acts {
                match act {
                    Act::Write(next) => {
                        written = self.write(*next).await;
                        if !written {
                            // What comes behind it counts on it.
                            return;
                        }
                    }
                    Act::Answer(answer) => self.finish(answer),
                    Act::Freeze(_)
                    | Act::Unfreeze(_)
                    | Act::Repoint { .. }
                    | Act::Promote(_)
                    | Act::Prove(_)
                    | Act::Fence(_)
                    | Act::Unfence(_)
                    | Act::Demote { .. }
                    | Act::Checkpoint(_) => self.begin(act),
                }
            }
            if !written {
                return;
            }
        }
    }

    /// A primary that is to be recorded because nothing was, or because somebody else made it.
    fn found(&self) -> Option<Record> {
        let found = self.parts.desk.read(Fold::adopted)?;
        let now = clock::whole_unix_seconds();
        let name = self.parts.names.get(found.server.index())?;
        let Some((record, _)) = &self.record else {
            return Some(scene::recorded(None, found, name, now));
        };
        let newer = record.phase == Phase::Stable && found.epoch > record.primary.epoch;
        newer.then(|| scene::recorded(Some(record), found, name, now))
    }

    fn views(&mut self, record: &Record) -> Vec<ServerView> {
        let fresh = self.parts.policy.load().witness_fresh;
        let ids = (0..).map(ServerId).take(self.parts.names.len());
        let mut views: Vec<_> =
            self.parts.desk.read(|fold| ids.filter_map(|id| fold.view(id)).collect());
        for (view, priority) in views.iter_mut().zip(&self.parts.priorities) {
            view.tags.priority = *priority;
            self.memory.complete(view);
            self.parts.hands.complete(view, &record.primary.server, fresh);
            self.recall(view, record);
        }
        views
    }

    /// A fence outlives the process that put it up. While one is handing over it is put up anew:
    /// who was ended by it, and where the log then ended, only the act can tell.
    fn recall(&self, view: &mut ServerView, record: &Record) {
        let Some((_, flushed)) = view.as_primary() else { return };
        let anew = matches!(record.phase, Phase::Revoking(_));
        if view.fenced.is_none() && !anew && self.parts.hands.is_fenced(view.id) {
            view.fenced = Some(Fenced { end: flushed, foreign: 0 });
        }
    }

    /// Has the standbys looked at while the primary was lost a moment ago, and itself where it was
    /// told to restart: whether it was.
    fn ask_witnesses(&mut self, record: &Record, views: &[ServerView]) -> bool {
        let now = clock::now();
        let primary = views.iter().find(|view| view.name == record.primary.server);
        let Some(Sight::Missing(missing)) = primary.map(|primary| primary.sight) else {
            return false;
        };
        if now.since(missing.since) > WITNESSES_FOR {
            return false;
        }
        self.look_again(views);
        // Clients wait for it: it is to be seen as soon as it is back.
        let restarts = match &record.phase {
            Phase::Revoking(it) => it.kind == Kind::Switchover,
            Phase::Draining(it) => it.to.is_none(),
            Phase::Stable | Phase::Promoting(..) => false,
        };
        if let Some(primary) = primary.filter(|_| restarts)
            && now.since(self.awaited) >= WITNESS_PACE
        {
            self.awaited = now;
            self.parts.desk.look_at(primary.id);
        }
        true
    }

    /// Finds out whether the primary goes on beside one that another tool promoted.
    fn ask_whether_it_goes_on(&mut self) {
        let Some((primary, since)) = self.parts.desk.read(Fold::unsettled) else { return };
        self.parts.desk.went_on(self.parts.signals.last_acknowledged());
        let now = clock::now();
        // It may stay so for days: the longer it was not found out, the less a moment matters.
        let pace = WITNESS_PACE.max(now.since(since) / PATIENCE);
        if now.since(self.awaited) >= pace {
            self.awaited = now;
            self.parts.desk.look_at(primary);
        }
    }

    /// Has the standbys looked at while the primary is kept from its clients until enough of them
    /// hold its log: whether it is.
    fn ask_confirmers(&self, views: &[ServerView]) -> bool {
        let primary = self.parts.desk.topology().primary;
        if !matches!(primary, Primary::None { why: NoPrimary::Settling, .. }) {
            return false;
        }
        self.look_again(views);
        true
    }

    fn look_again(&self, views: &[ServerView]) {
        let now = clock::now();
        for view in views {
            if view.answer().is_some_and(|seen| now.since(seen.at) >= WITNESS_PACE) {
                self.parts.desk.look_at(view.id);
            }
        }
    }

    fn arming(&self, record: &Record, views: &[ServerView]) -> Arming {
        let prerequisites = self.parts.hands.lacking(&self.parts.policy.load());
        arming::arming(record, views, |server| self.parts.hands.survey(server), prerequisites)
    }

    /// Takes in what the primary promises by its settings of now.
    fn promised(&mut self, record: &Record) {
        let seen = self.parts.hands.promise(&record.primary.server, &record.promise);
        if self.promised.as_ref().map(|(promise, _)| promise) != seen.as_ref() {
            self.promised = seen.map(|promise| (promise, clock::now()));
        }
    }

    /// Tells the desk who confirms commits.
    fn pledge(&self, record: &Record) {
        let seen = self.promised.as_ref().map(|(promise, _)| promise);
        let quorum = scene::quorum(seen, &record.promise, &self.parts.names);
        if self.parts.desk.read(|fold| fold.quorum() != quorum.as_ref()) {
            self.parts.desk.pledge(quorum);
        }
    }

    fn situation<'a>(
        &'a self,
        record: &'a Record,
        servers: &'a [ServerView],
        (arming, obstacle): (&'a Arming, Option<&'a Arc<str>>),
    ) -> Situation<'a> {
        let now = clock::now();
        let primary = servers.iter().find(|server| server.name == record.primary.server);
        let last = self.parts.signals.last_acknowledged();
        let newest = self.parts.desk.read(Fold::newest_sample);
        Situation {
            now,
            record,
            servers,
            arming,
            order: self.order.as_ref().map(|(order, _)| order),
            obstacle,
            checkpoint: self.checkpoint,
            acknowledged: scene::acknowledged(record, newest, last),
            gate: Gate { busy: primary.map_or(0, |p| self.parts.signals.busy(p.id).working) },
            promise: self.promised.as_ref().map(|(promise, since)| (promise, *since)),
            proved: self.proved,
            awake_since: self.wakeful.since(),
            phase_since: self.phase_since,
            last_automatic: self.last_automatic,
            began: self.began,
        }
    }

    /// Begins an act. While another is under way there it is not begun, but that one is told.
    fn begin(&mut self, act: Act) {
        let now = clock::now();
        if let Act::Checkpoint(_) = act {
            // One that is under way for an earlier order does as well.
            self.checkpoint = Checkpoint::Underway;
        }
        if !self.memory.may_begin(&act, now) {
            return;
        }
        let elsewhere = self.memory.begin(&act, now);
        act::carry_out(act, elsewhere, &self.parts.hands, self.outcomes.0.clone());
    }

    /// Takes in what came of an act.
    fn note(&mut self, outcome: Outcome) {
        let Outcome { act, began, result } = outcome;
        let now = clock::now();
        let took = now.since(began);
        let server = act.server();
        let name = server.map_or("?", |id| self.parts.desk.name(id));
        match &result {
            Ok(_) => info!(event = "act", "{name}: {} after {took:?}", act::told(&act)),
            Err(HandError::GaveWay) => {
                info!(event = "act_gave_way", "{name}: {} gave way", act::told(&act));
            }
            Err(error) => {
                warn!(event = "act_failed", "{name}: {} failed: {error}", act::told(&act));
            }
        }
        if let Act::Checkpoint(_) = act {
            self.checkpoint = Checkpoint::Past;
        }
        if let (Act::Prove(_), Ok(_)) = (&act, &result) {
            self.proved = Some(began);
        }
        if let (Act::Demote { server, .. }, Err(error)) = (&act, &result) {
            self.memory.resisted(*server, error);
        }
        self.memory.end(&act, &result, now);
        if let Some(server) = server {
            self.parts.desk.look_at(server);
        }
    }

    /// Puts a record in the place of the last one; whether that is done.
    async fn write(&mut self, next: Record) -> bool {
        if let Some((problem, at)) = self.unwritten.clone()
            && clock::now().since(at) < WRITE_AGAIN
        {
            self.refuse_unwritten(problem);
            return false;
        }
        let expected = self.record.as_ref().map(|(_, revision)| *revision);
        let began = clock::now();
        let store = self.parts.store.clone();
        let swapped = self.wide_awake(store.swap(expected, &next)).await;
        let took = clock::now().since(began);
        let result = match &swapped {
            Ok(_) => SwapResult::Ok,
            Err(SwapError::Raced) => SwapResult::Raced,
            Err(SwapError::Failed(_) | SwapError::Unsure(_)) => SwapResult::Failed,
        };
        self.parts.metrics.failover.swapped(result, took);
        match swapped {
            Ok(revision) => {
                self.unwritten = None;
                self.take(next, revision);
                true
            }
            Err(problem) => {
                self.not_written(&problem.to_string()).await;
                false
            }
        }
    }

    /// Waits for this, and notices if this process stands still meanwhile: that a disk is slow is
    /// another thing.
    async fn wide_awake<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let done = timer::timeout(TICK_IDLE, &mut work).await;
            self.look_at_the_clock(TICK_IDLE);
            if let Ok(done) = done {
                return done;
            }
        }
    }

    /// Somebody else wrote, or the disk is full: looks at what is there.
    async fn not_written(&mut self, problem: &str) {
        let is_new = self.unwritten.as_ref().is_none_or(|(before, _)| **before != *problem);
        if is_new {
            error!(event = "record_not_written", "{problem}");
            self.broken(problem);
        }
        let problem: Arc<str> = problem.into();
        self.unwritten = Some((Arc::clone(&problem), clock::now()));
        let store = self.parts.store.clone();
        if let Ok(Some((record, revision))) = self.wide_awake(store.load()).await
            && self.record.as_ref().is_none_or(|(_, known)| *known != revision)
        {
            self.take(record, revision);
        }
        self.refuse_unwritten(problem);
    }

    /// An order that could not be written down is not kept: whoever gave it would not expect it
    /// to be carried out once the disk has room again.
    fn refuse_unwritten(&mut self, problem: Arc<str>) {
        let refusal = if self.is_changing() {
            Refusal::NotContinued(problem)
        } else {
            Refusal::NotRecorded(problem)
        };
        self.finish(Err(refusal));
    }

    /// This is the record from now on.
    fn take(&mut self, record: Record, revision: Revision) {
        let now = clock::now();
        let before = self.record.as_ref().map(|(before, _)| before);
        let began = record.operation().is_some()
            && before.is_none_or(|before| before.operation().is_none());
        if began {
            self.change_since = now;
        }
        if before.is_none_or(|before| before.phase != record.phase) {
            self.phase_since = now;
            let revokes = |record: &Record| matches!(record.phase, Phase::Revoking(_));
            if !before.is_some_and(revokes) {
                self.memory.forget_catching(|_| true);
            }
            let since = now.since(self.change_since);
            let told = scene::told(&record);
            info!(event = "phase", epoch = record.epoch.0, "{told} after {since:?}");
        }
        // What is added to what is known of the same primary is no change.
        let epoch = record.primary.epoch;
        let changed = before.is_some_and(|before| before.primary.epoch != epoch);
        if changed {
            self.left.changed(now);
        }
        if changed && let Some(change) = record.changes.last() {
            if change.by == crate::failover::By::Evidence {
                self.last_automatic = Some(now);
            }
            let at = self.parts.names.iter().position(|name| *name == record.primary.server);
            if let Some(id) = at.and_then(|at| u16::try_from(at).ok()) {
                self.memory.appointed(ServerId(id));
            }
        }
        let seen = self.promised.as_ref().map(|(promise, _)| promise);
        self.parts.desk.appoint(scene::appointment(before, &record, seen, &self.parts.names));
        self.record = Some((record, revision));
        self.publish(None);
    }

    fn is_changing(&self) -> bool {
        self.record.as_ref().is_some_and(|(record, _)| record.phase != Phase::Stable)
    }

    /// Says why, once, when it changes.
    fn tell(&mut self, why: &Why, arming: &Arming) {
        if self.why.as_ref() != Some(why) {
            info!(event = "decision", "{why}");
            self.why = Some(why.clone());
        }
        let lacking = match arming {
            Arming::Armed => Vec::new(),
            Arming::Disarmed(lacking) => lacking.clone(),
        };
        if self.parts.bulletin.load().lacking != lacking {
            for what in &lacking {
                info!(event = "disarmed", "auto is not armed: {what}");
            }
        }
        self.publish(Some(lacking));
    }

    fn publish(&self, lacking: Option<Vec<Arc<str>>>) {
        let before = self.parts.bulletin.load();
        let record = self.record.as_ref().map(|(record, _)| Arc::new(record.clone()));
        let lacking = lacking.unwrap_or_else(|| before.lacking.clone());
        let (why, prepared) = (self.why.clone(), self.left.now());
        let same = before.record == record && before.why == why;
        if same && before.lacking == lacking && before.prepared == prepared {
            return;
        }
        self.parts.bulletin.store(Progress { record, why, lacking, prepared, broken: None });
    }

    /// Nothing can be recorded: so nothing is changed.
    fn broken(&self, why: &str) {
        error!(event = "failover_unavailable", "{why}");
        let before = self.parts.bulletin.load();
        let broken = Some(Arc::from(why));
        self.parts.bulletin.store(Progress { broken, ..(*before).clone() });
    }
}
