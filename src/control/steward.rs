//! What may be asked of whoever conducts changes of the primary: the handle that `admin` holds.
//!
//! Orders and previews go to the conductor as [`Ask`]s; everything else is read from the
//! [`Bulletin`], which the conductor puts up and nobody waits for.
//!
//! Invariants:
//! - An order is carried out by the conductor or not at all: what is here only passes it on, and
//!   remembers what became of it.
//! - What is remembered is bounded: the last orders, the last steps.

use crate::clock;
use crate::clock::Moment;
use crate::control::hands::Hands;
use crate::failover::{
    Branch, Change, Lost, Order, Policy, Prepared, Preview, Record, Refusal, Why,
};
use crate::metrics::{Metrics, Prerequisites};
use crate::pg::Timeline;
use crate::tasks;
use crate::timer;
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What an operator asks of the conductor.
#[derive(Debug)]
pub enum Ask {
    /// What an order would do; `None` while there is no record.
    Preview(Order, oneshot::Sender<Option<Preview>>),
    /// To carry an order out; what became of it comes when it is done with.
    Carry(Order, oneshot::Sender<Result<(), Refusal>>),
}

/// What everybody may know of the conductor, at any moment.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The record as it was written last.
    pub record: Option<Arc<Record>>,
    /// Why the last decision was taken, or what is waited for.
    pub why: Option<Why>,
    /// What `auto` lacks; empty: it is armed.
    pub lacking: Vec<Arc<str>>,
    /// The prepared transactions on the primary that somebody has to end.
    pub prepared: Arc<[Prepared]>,
    /// Why nothing can be recorded, and so nothing be changed.
    pub broken: Option<Arc<str>>,
}

/// Where the conductor puts up its progress, and how it came there.
#[derive(Debug)]
pub struct Bulletin {
    now: ArcSwap<Progress>,
    /// The last steps, oldest first, each with its number; guarded as one with the count.
    steps: Mutex<Steps>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Steps {
    last: VecDeque<(u64, Step)>,
    count: u64,
    /// When the phase was entered, and when the change under way was begun, as far as is known.
    phase_since: Moment,
    change_since: Moment,
}

/// One change of what is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Moment,
    /// The name of the phase that the record was in.
    pub phase: &'static str,
    /// The reason that was given, if it is a new one.
    pub why: Option<Why>,
}

/// Names an order, also to a command that asks after the proxy was restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// What became of an order so far.
#[derive(Debug, Clone)]
pub struct Account {
    /// What was ordered.
    pub order: Order,
    /// When.
    pub began: Moment,
    /// What was gone through since then, oldest first.
    pub steps: Vec<Step>,
    /// Its end.
    pub outcome: Outcome,
}

/// The end of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has not come yet.
    Underway,
    /// It was carried out; the change that it made, if it was to make one.
    Done {
        /// See above.
        change: Option<Change>,
        /// After so long.
        took: Duration,
    },
    /// It was not, for this reason; nothing is left undone.
    Refused(Refusal),
    /// Nobody can tell: the conductor has ended.
    Lost,
}

/// Why nothing can be ordered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StewardError {
    /// Nothing can be recorded.
    #[error("failover is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// No primary was seen yet.
    #[error("no primary was seen yet: there is nothing to change")]
    NoRecord,
    /// The conductor has ended, or does not come to it.
    #[error("no answer in time")]
    Silent,
}

/// The handle. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Steward {
    asks: Option<mpsc::Sender<Ask>>,
    bulletin: Arc<Bulletin>,
    policy: Arc<ArcSwap<Policy>>,
    orders: Arc<Mutex<Orders>>,
    /// Who knows where the servers' files are.
    hands: Option<Arc<Hands>>,
}

/// The last orders, oldest first.
#[derive(Debug, Default)]
struct Orders(VecDeque<Known>);

#[derive(Debug)]
struct Known {
    id: OrderId,
    order: Order,
    began: Moment,
    /// The number of the first step that is its own.
    first: u64,
    outcome: Outcome,
}

/// Steps that are remembered: a change takes a dozen.
const STEPS_MAX: usize = 512;
/// Orders that are remembered.
const ORDERS_MAX: usize = 32;
/// Longest wait for the conductor: it writes to a disk in between.
const ANSWER_MAX: Duration = Duration::from_secs(2);

impl Bulletin {
    /// Nothing is put up yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let now = clock::now();
        let (last, count) = (VecDeque::new(), 0);
        let steps = Steps { last, count, phase_since: now, change_since: now };
        Self { now: ArcSwap::default(), steps: Mutex::new(steps), metrics }
    }

    /// What is put up now.
    pub fn load(&self) -> Arc<Progress> {
        self.now.load_full()
    }

    /// Puts this up, and notes and counts what is new in it. The conductor alone does so.
    pub fn store(&self, next: Progress) {
        let next = Arc::new(next);
        let now = clock::now();
        let before = self.now.swap(Arc::clone(&next));
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(was), Some(is)) = (&before.record, &next.record) {
            steps.count_change(was, is, (&self.metrics, now));
        }
        let (was, is) = (phase(&before), phase(&next));
        let why = next.why.clone().filter(|why| before.why.as_ref() != Some(why));
        if was != is || why.is_some() {
            steps.push(Step { at: now, phase: is, why });
        }
        drop(steps);
        let metrics = &self.metrics.failover;
        let has =
            if next.lacking.is_empty() { Prerequisites::Complete } else { Prerequisites::Lacking };
        metrics.show(next.record.as_deref(), next.why.as_ref(), has);
        metrics.show_prepared(next.prepared.len());
        if next.broken.is_some() {
            metrics.unavailable();
        }
    }

    fn since(&self, first: u64) -> Vec<Step> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let own = steps.last.iter().filter(|(number, _)| *number >= first);
        own.map(|(_, step)| step.clone()).collect()
    }

    fn count(&self) -> u64 {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl Steps {
    /// Counts what happened between two records.
    fn count_change(&mut self, was: &Record, is: &Record, (metrics, now): (&Metrics, Moment)) {
        let metrics = &metrics.failover;
        if was.phase != is.phase {
            metrics.left_phase(&was.phase, now.since(self.phase_since));
            self.phase_since = now;
        }
        if was.operation().is_none() && is.operation().is_some() {
            self.change_since = now;
        }
        let newest = is.changes.last().filter(|newest| was.changes.last() != Some(newest));
        match (newest, was.operation()) {
            (Some(change), Some(_)) => {
                metrics.changed(change, Some(now.since(self.change_since)));
            }
            (Some(change), None) => metrics.changed(change, None),
            (None, Some(operation)) if is.operation().is_none() => {
                metrics.called_off(operation.kind);
            }
            (None, Some(_) | None) => {}
        }
    }

    fn push(&mut self, step: Step) {
        if self.last.len() >= STEPS_MAX {
            self.last.pop_front();
        }
        self.last.push_back((self.count, step));
        self.count = self.count.saturating_add(1);
    }
}

impl Steward {
    /// The handle of a conductor that takes its asks from the other end of this channel.
    pub fn new(
        asks: mpsc::Sender<Ask>,
        bulletin: Arc<Bulletin>,
        policy: Arc<ArcSwap<Policy>>,
    ) -> Self {
        Self { asks: Some(asks), bulletin, policy, orders: Arc::default(), hands: None }
    }

    /// The same, which can say how a server is made a standby again.
    #[must_use]
    pub fn with_hands(self, hands: &Arc<Hands>) -> Self {
        Self { hands: Some(Arc::clone(hands)), ..self }
    }

    /// The handle where there is no conductor, for this reason.
    pub fn unavailable(why: &str, policy: Arc<ArcSwap<Policy>>, metrics: Arc<Metrics>) -> Self {
        let bulletin = Arc::new(Bulletin::new(metrics));
        let broken = Some(Arc::from(why));
        bulletin.store(Progress { broken, ..Progress::default() });
        Self { asks: None, bulletin, policy, orders: Arc::default(), hands: None }
    }

    /// Tells what an order would do now.
    ///
    /// # Errors
    /// [`StewardError`]
    pub async fn preview(&self, order: Order) -> Result<Preview, StewardError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.ask(Ask::Preview(order, reply)).await?;
            answer.await.map_err(|_| StewardError::Silent)?.ok_or(StewardError::NoRecord)
        };
        timer::timeout(ANSWER_MAX, asked).await.unwrap_or(Err(StewardError::Silent))
    }

    /// Has an order carried out; what becomes of it is told by [`Steward::account`].
    ///
    /// # Errors
    /// [`StewardError`]: it was not given.
    pub async fn order(&self, order: Order) -> Result<OrderId, StewardError> {
        if self.bulletin.load().record.is_none() {
            return Err(self.cause().unwrap_or(StewardError::NoRecord));
        }
        let (reply, answer) = oneshot::channel();
        let id = self.remember(order.clone());
        let asked = timer::timeout(ANSWER_MAX, self.ask(Ask::Carry(order, reply))).await;
        if let Err(error) = asked.unwrap_or(Err(StewardError::Silent)) {
            self.end(id, Outcome::Lost);
            return Err(error);
        }
        let steward = self.clone();
        // It ends with the order, which the conductor brings to an end.
        drop(tasks::spawn("order", async move {
            let outcome = match answer.await {
                Ok(Ok(())) => steward.done(id),
                Ok(Err(refusal)) => Outcome::Refused(refusal),
                Err(_) => Outcome::Lost,
            };
            steward.end(id, outcome);
        }));
        Ok(id)
    }

    /// What became of an order; `None`: nobody remembers it.
    pub fn account(&self, id: OrderId) -> Option<Account> {
        let (known, first) = self.with(|orders| {
            let known = orders.0.iter().find(|known| known.id == id)?;
            let (order, began) = (known.order.clone(), known.began);
            let outcome = known.outcome.clone();
            Some((Account { order, began, steps: Vec::new(), outcome }, known.first))
        })?;
        Some(Account { steps: self.bulletin.since(first), ..known })
    }

    /// The changes that are remembered, oldest first.
    ///
    /// # Errors
    /// [`StewardError::Unavailable`]
    pub fn history(&self) -> Result<Vec<Change>, StewardError> {
        match self.bulletin.load().record.as_ref() {
            Some(record) => Ok(record.changes.clone()),
            None => self.cause().map_or(Ok(Vec::new()), Err),
        }
    }

    /// The last steps, oldest first, whoever began them.
    pub fn steps(&self) -> Vec<Step> {
        self.bulletin.since(0)
    }

    /// What is put up now.
    pub fn progress(&self) -> Arc<Progress> {
        self.bulletin.load()
    }

    /// The commands that make this server a standby of that primary again, which is on that branch,
    /// as far as is known.
    pub fn rejoin(
        &self,
        lost: Lost<'_>,
        (primary, timeline): (&str, Option<Timeline>),
    ) -> Vec<String> {
        let Some(hands) = &self.hands else { return Vec::new() };
        let progress = self.bulletin.load();
        let changes = progress.record.as_ref().map_or(&[][..], |record| &record.changes);
        hands.rejoin(lost.name, Branch::of(lost, timeline, changes), primary)
    }

    /// The servers that could not be made to restart as standbys, and what keeps each from it.
    pub fn unable_to_restart(&self) -> Vec<(Arc<str>, String)> {
        self.hands.as_ref().map_or_else(Vec::new, |hands| hands.unable_to_restart())
    }

    /// What the operator chose.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Why failover is unavailable, if it is.
    pub fn cause(&self) -> Option<StewardError> {
        self.bulletin.load().broken.clone().map(StewardError::Unavailable)
    }

    async fn ask(&self, ask: Ask) -> Result<(), StewardError> {
        let gone = || self.cause().unwrap_or(StewardError::Silent);
        let asks = self.asks.as_ref().ok_or_else(gone)?;
        asks.send(ask).await.map_err(|_| gone())
    }

    fn remember(&self, order: Order) -> OrderId {
        let (began, first) = (clock::now(), self.bulletin.count());
        self.with(|orders| {
            let last = orders.0.back().map_or(0, |known| known.id.0);
            let id = OrderId(began.nanos().max(last.saturating_add(1)));
            if orders.0.len() >= ORDERS_MAX {
                orders.0.pop_front();
            }
            orders.0.push_back(Known { id, order, began, first, outcome: Outcome::Underway });
            id
        })
    }

    fn done(&self, id: OrderId) -> Outcome {
        let known = |orders: &mut Orders| {
            let known = orders.0.iter().find(|known| known.id == id)?;
            Some((known.order.clone(), known.began))
        };
        let Some((order, began)) = self.with(known) else { return Outcome::Lost };
        let last = || self.bulletin.load().record.as_ref()?.changes.last().cloned();
        let change = match order {
            Order::Failover { .. } | Order::Switchover { .. } => last(),
            Order::Abort => None,
        };
        Outcome::Done { change, took: clock::now().since(began) }
    }

    fn end(&self, id: OrderId, outcome: Outcome) {
        self.with(|orders| {
            if let Some(known) = orders.0.iter_mut().find(|known| known.id == id) {
                known.outcome = outcome;
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Orders) -> T) -> T {
        act(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn phase(progress: &Progress) -> &'static str {
    progress.record.as_ref().map_or("unknown", |record| record.phase.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::{
        Appointed, By, Kind, Loss, MaxLoss, Mode, Operation, Phase, Promise, WeakPromise,
    };
    use crate::metrics::Build;
    use crate::pg::{SystemId, Timeline};
    use crate::topology::Epoch;

    fn metrics() -> Arc<Metrics> {
        Arc::new(Metrics::new(&[], Build::default()).unwrap())
    }

    fn record(phase: Phase, changes: Vec<Change>) -> Arc<Record> {
        Arc::new(Record {
            epoch: Epoch(1),
            phase,
            primary: Appointed {
                server: "a".into(),
                epoch: Epoch(1),
                system: SystemId(1),
                timeline: Timeline(1),
                fork: None,
            },
            promise: Promise::Asynchronous(WeakPromise::NotSeen),
            changes,
        })
    }

    fn up(bulletin: &Bulletin, record: Arc<Record>, why: Why) {
        bulletin.store(Progress { record: Some(record), why: Some(why), ..Progress::default() });
    }

    fn change() -> Change {
        Change {
            epoch: Epoch(2),
            kind: Kind::Switchover,
            by: By::Operator,
            from: Some("a".into()),
            to: "b".into(),
            timeline: Timeline(2),
            fork: None,
            loss: Loss::None,
            began: 1,
            ended: 2,
        }
    }

    /// An order's steps are those since it was given, and its end is the conductor's word.
    #[tokio::test]
    async fn an_order_is_followed_from_its_beginning_to_its_end() {
        let (asks, mut asked) = mpsc::channel(1);
        let bulletin = Arc::new(Bulletin::new(metrics()));
        let steward = Steward::new(asks, Arc::clone(&bulletin), Arc::default());
        up(&bulletin, record(Phase::Stable, Vec::new()), Why::AllWell);

        let id = steward.order(Order::Switchover { to: None }).await.unwrap();
        let Some(Ask::Carry(Order::Switchover { .. }, reply)) = asked.recv().await else {
            panic!("the conductor was not asked");
        };
        let operation = Operation {
            kind: Kind::Switchover,
            by: By::Operator,
            to: None,
            accepted: MaxLoss::Bytes(0),
            word: MaxLoss::Bytes(0),
            began: 1,
        };
        up(&bulletin, record(Phase::Draining(operation), Vec::new()), Why::Draining { busy: 1 });
        let underway = steward.account(id).unwrap();
        up(&bulletin, record(Phase::Stable, vec![change()]), Why::AllWell);
        reply.send(Ok(())).unwrap();
        let done = loop {
            let account = steward.account(id).unwrap();
            if account.outcome != Outcome::Underway {
                break account;
            }
            tokio::task::yield_now().await;
        };

        assert_eq!(underway.outcome, Outcome::Underway);
        let phases: Vec<_> = done.steps.iter().map(|step| step.phase).collect();
        assert_eq!(phases, ["draining", "stable"]);
        assert!(
            matches!(done.outcome, Outcome::Done { change: Some(made), .. } if made == change())
        );
        assert!(steward.account(OrderId(id.0 + 1)).is_none());
    }

    /// Without a conductor nothing can be ordered, and the reason is told.
    #[tokio::test]
    async fn without_a_conductor_every_answer_is_the_reason() {
        let steward = Steward::unavailable("no disk", Arc::default(), metrics());
        let reason = StewardError::Unavailable("no disk".into());

        assert_eq!(steward.order(Order::Abort).await.unwrap_err(), reason);
        assert_eq!(steward.preview(Order::Abort).await.unwrap_err(), reason);
        assert_eq!(steward.history().unwrap_err(), reason);
    }

    /// A conductor that has ended leaves no order without an end.
    #[tokio::test]
    async fn an_order_ends_with_the_conductor() {
        let (asks, mut asked) = mpsc::channel(1);
        let bulletin = Arc::new(Bulletin::new(metrics()));
        let steward = Steward::new(asks, Arc::clone(&bulletin), Arc::default());
        up(&bulletin, record(Phase::Stable, Vec::new()), Why::AllWell);

        let id = steward.order(Order::Abort).await.unwrap();
        drop(asked.recv().await);
        drop(asked);
        while steward.account(id).unwrap().outcome == Outcome::Underway {
            tokio::task::yield_now().await;
        }

        assert_eq!(steward.account(id).unwrap().outcome, Outcome::Lost);
        assert_eq!(steward.order(Order::Abort).await.unwrap_err(), StewardError::Silent);
    }

    /// What the conductor puts up is what is counted: a change with its time, an attempt that was
    /// undone, what is waited for.
    #[test]
    fn changes_and_their_phases_are_counted() {
        let metrics = metrics();
        let bulletin = Bulletin::new(Arc::clone(&metrics));
        let operation = Operation {
            kind: Kind::Switchover,
            by: By::Operator,
            to: None,
            accepted: MaxLoss::Bytes(0),
            word: MaxLoss::Bytes(0),
            began: 1,
        };
        let shows = |line: &str| {
            let exposed = metrics.expose().unwrap();
            assert!(exposed.contains(&format!("\n{line}\n")), "{line}\n{exposed}");
        };
        shows("pgsteer_failover_available 0");
        shows("pgsteer_failover_last_timestamp_seconds NaN");

        up(&bulletin, record(Phase::Stable, Vec::new()), Why::AllWell);
        shows("pgsteer_failover_available 1");
        shows("pgsteer_failover_armed 0");
        metrics.failover.set_mode(Mode::Auto);
        shows("pgsteer_failover_armed 1");
        metrics.failover.set_mode(Mode::Manual);
        shows("pgsteer_failover_armed 0");
        shows("pgsteer_failover_promise{promise=\"asynchronous\"} 1");
        let draining = || record(Phase::Draining(operation.clone()), Vec::new());
        up(&bulletin, draining(), Why::Draining { busy: 1 });
        shows("pgsteer_failover_phase{phase=\"draining\"} 1");
        up(&bulletin, record(Phase::Stable, Vec::new()), Why::AllWell);
        shows("pgsteer_failover_called_off_total{kind=\"switchover\"} 1");
        shows("pgsteer_failover_phase_seconds_count{phase=\"draining\"} 1");

        up(&bulletin, draining(), Why::NoCandidate(Vec::new()));
        shows("pgsteer_failover_blocked{reason=\"no_candidate\"} 1");
        up(&bulletin, record(Phase::Stable, vec![change()]), Why::AllWell);
        shows("pgsteer_failover_blocked{reason=\"no_candidate\"} 0");
        shows("pgsteer_failover_changes_total{by=\"operator\",kind=\"switchover\"} 1");
        shows("pgsteer_failover_called_off_total{kind=\"switchover\"} 1");
        shows("pgsteer_failover_seconds_count{kind=\"switchover\"} 1");
        shows("pgsteer_failover_last_timestamp_seconds 2");
        shows("pgsteer_failover_last_loss_bytes 0");
    }
}
