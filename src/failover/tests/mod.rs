//! One test a rule of the decider: what each rule forbids is in its own test, so that the rule's
//! removal turns that test red.

mod catching;
mod choosing;
mod claiming;
mod previewing;
mod promoting;
mod repairing;
mod replacing;
mod revoking;
mod switching;
mod undoing;
mod verdicts;

use crate::clock::Moment;
use crate::failover::{
    Acknowledged, Act, Appointed, Arming, By, Change, Checkpoint, Choice, Decision, Fenced, Frozen,
    Gate, Kind, Loose, Loss, MaxLoss, Missing, Mode, Operation, Order, Phase, Policy, Preview,
    Profile, Promise, Receiver, Record, Refusal, ServerView, Sight, Situation, Standing, Tags,
    Testimony, Verdict, Why, decide, preview, verdict,
};
use crate::pg::{Lsn, SystemId, Timeline};
use crate::topology::{Epoch, Fork, History, ServerId};
use std::sync::Arc;
use std::time::Duration;

const A: ServerId = ServerId(0);
const B: ServerId = ServerId(1);
const C: ServerId = ServerId(2);
const D: ServerId = ServerId(3);
const OURS: SystemId = SystemId(7);
const THEIRS: SystemId = SystemId(8);
/// The moment at which everything is decided, in milliseconds.
const NOW: u64 = 100_000;
/// When the phase was entered.
const ENTERED: u64 = 90_000;
/// Up to where everybody holds the log, if not said otherwise.
const END: u64 = 1_000;
/// Written for people.
const WALL: u64 = 1_700_000_000;

/// A situation that can be changed piece by piece.
#[derive(Debug, Clone)]
struct Scene {
    record: Record,
    servers: Vec<ServerView>,
    arming: Arming,
    order: Option<Order>,
    obstacle: Option<Arc<str>>,
    checkpoint: Checkpoint,
    acknowledged: Acknowledged,
    busy: usize,
    promise: Option<(Promise, Moment)>,
    proved: Option<Moment>,
    awake_since: Moment,
    phase_since: Moment,
    last_automatic: Option<Moment>,
    began: Moment,
    policy: Policy,
}

/// `a` is the primary on timeline 1, `b` and `c` stream from it, either confirms a commit; `auto`
/// is armed, and nothing is wrong.
fn scene() -> Scene {
    let primary = Appointed {
        server: Arc::from("a"),
        epoch: Epoch(4),
        system: OURS,
        timeline: Timeline(1),
        fork: None,
    };
    let promise = quorum(1, &["b", "c"]);
    let phase = Phase::Stable;
    let record = Record { epoch: Epoch(5), phase, primary, promise, changes: Vec::new() };
    Scene {
        record,
        servers: vec![
            server(A, "a", primary_on(1)),
            server(B, "b", follows(A)),
            server(C, "c", follows(A)),
        ],
        arming: Arming::Armed,
        order: None,
        obstacle: None,
        checkpoint: Checkpoint::Past,
        acknowledged: Acknowledged::UpTo(Lsn(END)),
        busy: 0,
        promise: None,
        proved: None,
        awake_since: ms(0),
        phase_since: ms(ENTERED),
        last_automatic: None,
        began: ms(ENTERED),
        policy: Policy { mode: Mode::Auto, ..Policy::of(Profile::Calm) },
    }
}

fn ms(at: u64) -> Moment {
    Moment::from_nanos(at * 1_000_000)
}

fn quorum(w: u16, cohort: &[&str]) -> Promise {
    Promise::Quorum { w, cohort: cohort.iter().map(|name| Arc::from(*name)).collect() }
}

fn asynchronous() -> Promise {
    Promise::Asynchronous(crate::failover::WeakPromise::NoNames)
}

fn server(id: ServerId, name: &str, sight: Sight) -> ServerView {
    ServerView {
        id,
        name: Arc::from(name),
        sight,
        last: None,
        history: None,
        frozen: None,
        stuck: None,
        failed: None,
        catching: None,
        fenced: None,
        tags: Tags::default(),
        keepalive: true,
    }
}

fn answers(timeline: u32, role: Standing) -> Sight {
    let timeline = Some(Timeline(timeline));
    Sight::Answers(Testimony { at: ms(NOW - 50), system: OURS, timeline, role })
}

fn primary_on(timeline: u32) -> Sight {
    answers(timeline, Standing::Primary { flushed: Lsn(END) })
}

fn standby(held: u64, receiver: Receiver) -> Sight {
    let held = Lsn(held);
    answers(1, Standing::Standby { received: held, replayed: held, receiver })
}

/// A standby that heard from that server a moment ago.
fn follows(from: ServerId) -> Sight {
    standby(END, streams(from, 10))
}

/// A standby to which nothing comes in.
fn idle(held: u64) -> Sight {
    standby(held, Receiver::Idle)
}

fn streams(from: ServerId, heard: u64) -> Receiver {
    Receiver::Streams { from: Some(from), heard: Duration::from_millis(heard), written: None }
}

/// Refused for a second, by so many looks.
fn gone(looks: u32) -> Sight {
    let silent = Some(Duration::from_secs(1));
    Sight::Missing(Missing { since: ms(NOW - 1_000), gone: looks, restarting: false, silent })
}

/// Without a sign of life for so many milliseconds.
fn silent(millis: u64) -> Sight {
    let silent = Some(Duration::from_millis(millis));
    Sight::Missing(Missing { since: ms(NOW - millis), gone: 0, restarting: false, silent })
}

/// Not to be looked at for so many milliseconds, and alive.
fn full(millis: u64) -> Sight {
    let since = ms(NOW - millis);
    Sight::Missing(Missing { since, gone: 0, restarting: false, silent: None })
}

/// It has been starting up for so many milliseconds.
fn restarting(millis: u64) -> Sight {
    let silent = Some(Duration::from_millis(millis));
    Sight::Missing(Missing { since: ms(NOW - millis), gone: 5, restarting: true, silent })
}

fn operation(kind: Kind, by: By) -> Operation {
    let none = MaxLoss::Bytes(0);
    Operation { kind, by, to: None, accepted: none, word: none, began: WALL }
}

/// A failover by the evidence.
fn failover() -> Operation {
    operation(Kind::Failover, By::Evidence)
}

/// A switchover to `b`.
fn switchover() -> Operation {
    Operation { to: Some(Arc::from("b")), ..operation(Kind::Switchover, By::Operator) }
}

fn failover_order(to: Option<&str>, accept: MaxLoss) -> Order {
    Order::Failover { to: to.map(Arc::from), accept }
}

fn switchover_order(to: Option<&str>) -> Order {
    Order::Switchover { to: to.map(Arc::from) }
}

/// A completed change of that kind, on timeline 1.
fn change(by: By, from: &str, to: &str) -> Change {
    Change {
        epoch: Epoch(4),
        kind: Kind::Failover,
        by,
        from: Some(Arc::from(from)),
        to: Arc::from(to),
        timeline: Timeline(1),
        fork: None,
        loss: Loss::None,
        began: WALL,
        ended: WALL,
    }
}

/// Timeline 1 was left there for timeline 2.
fn left_at(end: u64) -> History {
    History::new(Timeline(2), vec![Fork { timeline: Timeline(1), at: Lsn(end) }])
}

impl Scene {
    fn at(&mut self, id: ServerId) -> &mut ServerView {
        &mut self.servers[id.index()]
    }

    fn see(mut self, id: ServerId, sight: Sight) -> Self {
        self.at(id).sight = sight;
        self
    }

    /// The same, and what it answered before counts until it is known to be stopped.
    fn lose(mut self, id: ServerId, sight: Sight) -> Self {
        self.at(id).last = self.at(id).answer().copied();
        self.see(id, sight)
    }

    /// It is frozen, and holds the log up to there, on timeline 1.
    fn freeze(mut self, id: ServerId, at: u64) -> Self {
        self.at(id).sight = idle(at);
        self.at(id).frozen = Some(Frozen { at: Lsn(at), timeline: Timeline(1) });
        self
    }

    /// The same on timeline 2.
    fn freeze_on_2(mut self, id: ServerId, at: u64) -> Self {
        let held = Lsn(at);
        let role = Standing::Standby { received: held, replayed: held, receiver: Receiver::Idle };
        self.at(id).sight = answers(2, role);
        self.at(id).frozen = Some(Frozen { at: held, timeline: Timeline(2) });
        self
    }

    fn fence(mut self, id: ServerId, foreign: usize) -> Self {
        self.at(id).fenced = Some(Fenced { end: Lsn(END), foreign });
        self
    }

    fn phase(mut self, phase: Phase) -> Self {
        self.record.phase = phase;
        self
    }

    fn promise(mut self, promise: Promise) -> Self {
        self.record.promise = promise;
        self
    }

    fn order(mut self, order: Order) -> Self {
        self.order = Some(order);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn asked<T>(&self, ask: impl FnOnce(&Situation<'_>) -> T) -> T {
        ask(&Situation {
            now: ms(NOW),
            record: &self.record,
            servers: &self.servers,
            arming: &self.arming,
            order: self.order.as_ref(),
            obstacle: self.obstacle.as_ref(),
            checkpoint: self.checkpoint,
            acknowledged: self.acknowledged,
            gate: Gate { busy: self.busy },
            promise: self.promise.as_ref().map(|(promise, since)| (promise, *since)),
            proved: self.proved,
            awake_since: self.awake_since,
            phase_since: self.phase_since,
            last_automatic: self.last_automatic,
            began: self.began,
        })
    }

    fn decide(&self) -> Decision {
        self.asked(|situation| decide(situation, &self.policy, WALL))
    }

    fn acts(&self) -> Vec<Act> {
        self.decide().acts
    }

    fn why(&self) -> Why {
        self.decide().why
    }

    fn verdict(&self) -> Verdict {
        self.asked(|situation| verdict(situation, &self.policy))
    }

    fn preview(&self, order: &Order) -> Preview {
        self.asked(|situation| preview(situation, order, &self.policy))
    }

    /// The record that is to be written.
    fn written(&self) -> Option<Record> {
        self.acts().into_iter().find_map(|act| {
            let Act::Write(record) = act else { return None };
            Some(*record)
        })
    }

    /// Who is chosen now, at which loss.
    fn chosen(&self) -> Option<(Arc<str>, Loss)> {
        match self.written()?.phase {
            Phase::Promoting(_, choice) => Some((choice.server, choice.loss)),
            Phase::Stable | Phase::Draining(_) | Phase::Revoking(_) => None,
        }
    }

    /// What the operator is told.
    fn answer(&self) -> Option<Result<(), Refusal>> {
        self.acts().into_iter().find_map(|act| {
            let Act::Answer(answer) = act else { return None };
            Some(answer)
        })
    }
}

/// `a` is dead, and its place is claimed.
fn revoking() -> Scene {
    scene().see(A, gone(5)).phase(Phase::Revoking(failover()))
}

/// `a` is dead, both standbys are frozen, `b` was chosen at [`END`].
fn promoting() -> Scene {
    let choice = Choice { server: Arc::from("b"), at: Lsn(END), loss: Loss::None };
    revoking().freeze(B, END).freeze(C, END).phase(Phase::Promoting(failover(), choice))
}

/// The same, and `b` was promoted just now.
fn promoted() -> Scene {
    let mut scene = promoting().see(B, primary_on(2));
    scene.phase_since = ms(NOW - 100);
    scene.at(B).frozen = None;
    scene.at(B).history = Some(left_at(END));
    scene
}

/// `a` hands over to `b`, and nobody works on it any more.
fn handing() -> Scene {
    let mut scene = scene().phase(Phase::Revoking(switchover()));
    scene.phase_since = ms(NOW - 100);
    scene
}

/// One that is to be frozen, and of which no more is known.
fn loose(server: &str) -> Loose {
    Loose { server: Arc::from(server), stuck: None }
}

fn lsn(at: u64) -> Lsn {
    Lsn(at)
}
