//! The invariants, checked against what really is on the servers.

use super::arms::Arm;
use super::clients::{State, Via};
use super::faults::phase_name;
use super::plan::{PhaseName, QUIET, name};
use super::server::{Life, Role};
use super::watch::Watched;
use super::world::World;
use pgsteer::failover::{
    Act, By, Change, Choice, Kind, Loss, MaxLoss, Mode, Operation, Order, Phase, Promise, Record,
    Verdict, Why, preview,
};
use std::sync::Arc;

/// How long nobody helps after the last fault, and how often then.
const HELP_AFTER: u64 = 3_000;
const HELP_EVERY: u64 = 4_000;
/// How often nobody is helped before there is nothing left to be done.
const HELPS: usize = 3;

/// What a set of runs had in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub acknowledged: usize,
    pub direct: usize,
    pub in_flight: usize,
    pub failovers: usize,
    pub switchovers: usize,
    pub aborted: usize,
    pub rechosen: usize,
    pub gone_back: usize,
    pub promoted_again: usize,
    pub outside: usize,
    /// Failovers that reported a loss, and those that had one.
    pub reported: usize,
    pub lost: usize,
    pub overridden: usize,
    pub answers: usize,
    pub helped: usize,
    pub hopeless: usize,
    /// Claims because of what the primary says of itself, while nobody else is seen.
    pub by_its_own_word: usize,
    /// Restarts of the proxy while the record was in each phase.
    pub restarts: [usize; 4],
}

impl Counts {
    pub(super) fn add(&mut self, run: Self) {
        self.acknowledged += run.acknowledged;
        self.direct += run.direct;
        self.in_flight += run.in_flight;
        self.failovers += run.failovers;
        self.switchovers += run.switchovers;
        self.aborted += run.aborted;
        self.rechosen += run.rechosen;
        self.gone_back += run.gone_back;
        self.promoted_again += run.promoted_again;
        self.outside += run.outside;
        self.reported += run.reported;
        self.lost += run.lost;
        self.overridden += run.overridden;
        self.answers += run.answers;
        self.helped += run.helped;
        self.hopeless += run.hopeless;
        self.by_its_own_word += run.by_its_own_word;
        for (sum, more) in self.restarts.iter_mut().zip(run.restarts) {
            *sum += more;
        }
    }

    /// A check that nothing was at stake proves nothing.
    pub(super) fn assert_at_stake(&self, runs: u64) {
        let least = |share: usize| usize::try_from(runs).unwrap() / share;
        let enough = self.acknowledged > least(1) * 50
            && self.direct > least(1)
            && self.in_flight > least(10)
            && self.failovers > least(5)
            && self.switchovers > least(20)
            && self.aborted > least(10)
            && self.rechosen > least(300)
            && self.gone_back > least(300)
            && self.promoted_again > least(500)
            && self.outside > least(300)
            && self.reported > least(50)
            && self.lost > 0
            && self.overridden > least(100)
            && self.restarts.iter().all(|times| *times > least(500));
        assert!(enough, "too little happened in {runs} runs: {self:?}");
    }
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    /// What is wrong.
    pub found: Option<String>,
    /// All is well at the end.
    pub settled: bool,
    pub counts: Counts,
    /// When the first failover was completed.
    pub first_failover: Option<u64>,
    /// The server that never comes back.
    pub lost_for_good: Option<usize>,
    /// Another tool had its hands in it.
    pub outside: bool,
    /// The settings of the primary may have been others than those that were seen.
    pub unseen: bool,
    /// What was really to be seen.
    pub watched: Watched,
    /// Each epoch's server, as acknowledgements came.
    epochs: Vec<(u64, usize)>,
    pub last_automatic: Option<u64>,
    last_ack: u64,
    last_help: u64,
    help_given: usize,
}

impl Judge {
    pub(super) fn fail(&mut self, what: String) {
        self.found.get_or_insert(what);
    }
}

impl World {
    /// One writer in an epoch, and epochs never go back.
    pub(super) fn judge_acknowledgement(&mut self, epoch: u64, server: usize) {
        self.judge.counts.acknowledged += 1;
        self.judge.last_ack = self.now;
        match self.judge.epochs.last() {
            Some((last, by)) if *last == epoch && *by != server => {
                let by = *by;
                self.judge.fail(format!("in epoch {epoch} both {by} and {server} acknowledged"));
            }
            Some((last, _)) if *last > epoch => {
                let last = *last;
                self.judge.fail(format!("epoch {epoch} acknowledges after epoch {last}"));
            }
            Some((last, _)) if *last == epoch => {}
            Some(_) | None => self.judge.epochs.push((epoch, server)),
        }
    }

    /// Nobody is promoted who is not recorded as chosen.
    pub(super) fn judge_act(&mut self, act: &Act) {
        if let Act::Promote(server) = act {
            let chosen = match &self.store.record.phase {
                Phase::Promoting(_, choice) => Some(&choice.server),
                Phase::Stable | Phase::Draining(_) | Phase::Revoking(_) => None,
            };
            if chosen != Some(&name(server.index())) {
                self.judge.fail(format!("{act:?} while {chosen:?} is recorded as chosen"));
            }
        }
    }

    /// A record was written: it follows from the last one, and what it says is true.
    pub(super) fn judge_record(&mut self, before: &Record) {
        let after = self.store.record.clone();
        if after.epoch < before.epoch || after.primary.epoch < before.primary.epoch {
            self.judge.fail(format!("the epoch went back from {}", before.epoch));
        }
        let (from, to) = (phase_name(&before.phase), phase_name(&after.phase));
        let same = after.epoch == before.epoch;
        match (from, to) {
            (PhaseName::Stable, PhaseName::Stable) => self.judge_quiet_change(before, &after),
            (PhaseName::Stable, PhaseName::Draining) if !same => self.watch_begin(),
            (PhaseName::Stable, PhaseName::Revoking) if !same => self.judge_claim(&after),
            (
                PhaseName::Draining | PhaseName::Revoking,
                PhaseName::Draining | PhaseName::Revoking,
            ) if same => {}
            (PhaseName::Draining | PhaseName::Revoking, PhaseName::Stable)
                if same && after.primary == before.primary =>
            {
                self.judge.counts.aborted += 1;
            }
            (PhaseName::Draining | PhaseName::Revoking, PhaseName::Promoting) if same => {
                self.judge_choice(before, &after);
            }
            (PhaseName::Promoting, PhaseName::Promoting) if !same => {
                if let Phase::Promoting(operation, choice) = &after.phase {
                    self.judge_terms(operation, choice);
                }
                self.judge.counts.rechosen += 1;
            }
            (PhaseName::Promoting, PhaseName::Stable) => self.judge_admission(before, &after),
            _ => self.judge.fail(format!("from {from:?} to {to:?}, epoch the same: {same}")),
        }
    }

    fn judge_quiet_change(&mut self, before: &Record, after: &Record) {
        if after.primary != before.primary {
            let outside = after.changes.last().is_some_and(|change| change.by == By::Outside);
            if !outside {
                self.judge.fail("another primary without a change".to_owned());
            }
            self.judge.counts.outside += 1;
            // What another tool lost is not ours to report.
            self.excuse(&name_of(after));
        }
    }

    /// Enough are frozen, or an operator's word for it is recorded.
    fn judge_choice(&mut self, before: &Record, after: &Record) {
        let Phase::Promoting(operation, choice) = &after.phase else { return };
        let old = (0..self.servers.len()).find(|server| name(*server) == before.primary.server);
        let Some(old) = old else { return };
        if name(old) == choice.server {
            self.judge.counts.promoted_again += 1;
            return;
        }
        self.judge_terms(operation, choice);
        if operation.kind == Kind::Switchover {
            self.judge_handover(old, choice);
        }
        if is_overridden(operation) {
            self.judge.counts.overridden += 1;
            return;
        }
        // What comes of it is to be found where it hurts.
        if matches!(self.arm, Arm::FreezeSkipped | Arm::RevocationSkipped) {
            return;
        }
        let promised = matches!(before.promise, Promise::Quorum { .. });
        let (true, Some(w), false) = (promised, self.servers[old].quorum, self.judge.unseen) else {
            return;
        };
        let others = (0..self.servers.len()).filter(|server| *server != old);
        let closed = others
            .filter(|server| {
                let own = &self.servers[*server];
                own.upstream != Some(old) && own.stream.is_none_or(|stream| stream.from != old)
            })
            .count();
        let needed = self.servers.len() - usize::from(w);
        let demoted = self.servers[old].role == Role::Standby;
        if closed < needed && !demoted {
            self.judge.fail(format!(
                "{} is chosen while {closed} of {needed} are cut off from {}",
                choice.server, before.primary.server
            ));
        }
    }

    /// Who was chosen may lead, and at a loss that may be taken.
    fn judge_terms(&mut self, operation: &Operation, choice: &Choice) {
        let Choice { server, loss, .. } = choice;
        let chosen = (0..self.servers.len()).find(|at| name(*at) == *server);
        if !chosen.is_some_and(|chosen| self.plan.tags[chosen].may_lead()) {
            self.judge.fail(format!("{server} is chosen and may not lead"));
        }
        let most = match operation.by {
            By::Evidence => self.plan.policy.max_data_loss,
            By::Operator | By::Outside => operation.accepted,
        };
        if !most.allows(*loss) {
            self.judge.fail(format!("{loss:?} is more than may be lost: {most:?}"));
        }
    }

    /// The old primary takes no writes any more, from anybody.
    fn judge_handover(&mut self, old: usize, choice: &Choice) {
        let (own, server) = (&self.servers[old], &choice.server);
        let (primary, fenced) = (own.is_primary(), own.fenced);
        if primary && !fenced {
            self.judge.fail(format!("{server} is chosen, and server {old} still takes writes"));
        }
        if primary && self.foreign() > 0 {
            self.judge.fail(format!("{server} is chosen while others still write to {old}"));
        }
    }

    /// What was acknowledged is there, or was reported as lost.
    fn judge_admission(&mut self, before: &Record, after: &Record) {
        let Some(change) = after.changes.last().cloned() else {
            self.judge.fail("a change that is not told".to_owned());
            return;
        };
        let Phase::Promoting(operation, choice) = &before.phase else { return };
        match (change.kind, change.to == choice.server) {
            (_, false) => self.judge.counts.gone_back += 1,
            (Kind::Failover, true) => {
                self.judge.counts.failovers += 1;
                self.judge.first_failover.get_or_insert(self.now);
            }
            (Kind::Switchover, true) => self.judge.counts.switchovers += 1,
        }
        if change.by == By::Evidence {
            self.judge.last_automatic = Some(self.now);
        }
        let server = (0..self.servers.len()).find(|server| name(*server) == after.primary.server);
        let Some(server) = server else { return };
        let log = &self.servers[server].log;
        if log.timeline != after.primary.timeline.0 || !self.servers[server].is_primary() {
            self.judge.fail(format!("{} is admitted and is not the primary", after.primary.server));
            return;
        }
        let held = if change.to == choice.server { choice.at.0 } else { log.whole() };
        let promised = matches!(before.promise, Promise::Quorum { .. });
        let promised = promised && !is_overridden(operation) && !self.judge.unseen;
        self.judge_loss(&change, held, promised.then_some(server));
        self.excuse(&after.primary.server);
    }

    fn judge_loss(&mut self, change: &Change, held: u64, promised: Option<usize>) {
        let server = (0..self.servers.len()).find(|server| name(*server) == change.to);
        let Some(server) = server else { return };
        let log = &self.servers[server].log;
        let mut farthest = 0;
        for (id, write) in (0..).zip(&self.clients.writes) {
            if write.state != State::Acknowledged || log.holds(id) {
                continue;
            }
            let direct = write.via == Via::Direct;
            if promised.is_some() && write.safe && change.loss == Loss::None {
                self.judge.found.get_or_insert(format!(
                    "write {id} ({}) was confirmed by a quorum, and {} does not hold it",
                    if direct { "direct" } else { "through the proxy" },
                    change.to
                ));
            }
            if !direct {
                farthest = farthest.max(write.end);
            }
        }
        let real = farthest.saturating_sub(held);
        let reported = match change.loss {
            Loss::None => 0,
            Loss::AtMost(bytes) => bytes,
            Loss::Unknown { .. } => u64::MAX,
        };
        self.judge.counts.reported += usize::from(change.loss != Loss::None);
        self.judge.counts.lost += usize::from(real > 0);
        if farthest > 0 && (real > reported || change.loss == Loss::None) {
            self.judge.fail(format!("{real} bytes are lost, and {:?} is reported", change.loss));
        }
    }

    /// What is lost, and was reported, is not held against anybody later.
    fn excuse(&mut self, primary: &str) {
        let Some(server) = (0..self.servers.len()).find(|server| &*name(*server) == primary) else {
            return;
        };
        let log = &self.servers[server].log;
        for (id, write) in (0..).zip(&mut self.clients.writes) {
            if write.state == State::Acknowledged && !log.holds(id) {
                write.state = State::Excused;
            }
        }
    }

    /// Whether there is one primary that takes writes, and everybody follows who can.
    pub(super) fn is_settled(&mut self) -> bool {
        match self.lacking() {
            None => true,
            Some(_) if self.is_hopeless() => {
                self.judge.counts.hopeless += 1;
                true
            }
            Some(_) => false,
        }
    }

    /// What is missing until all is well.
    pub(super) fn lacking(&self) -> Option<String> {
        let record = &self.store.record;
        if record.phase != Phase::Stable || !self.proxy.up {
            return Some(format!("the record is in {:?}", phase_name(&record.phase)));
        }
        let Some(primary) = self.recorded() else { return Some("no primary".to_owned()) };
        let own = &self.servers[primary];
        if !own.is_awake() || !own.is_primary() || own.log.timeline != record.primary.timeline.0 {
            return Some(format!("{} is not the primary", record.primary.server));
        }
        if own.fenced {
            return Some("the primary is fenced".to_owned());
        }
        let others = (0..self.servers.len()).filter(|server| *server != primary);
        if let Some(out) = others.clone().find(|server| !self.is_in_order(*server, primary)) {
            return Some(format!("server {out} is out of order"));
        }
        let direct = others.filter(|server| {
            let own = &self.servers[*server];
            own.is_awake() && own.stream.is_some_and(|stream| stream.from == primary)
        });
        let enough = own.quorum.is_none_or(|w| direct.count() >= usize::from(w));
        if enough && own.quorum.is_some() && record.promise.revocation().is_none() {
            return Some("the promise of the primary is not recorded".to_owned());
        }
        let written = self.judge.last_ack + 1_000 > self.now;
        (enough && !written).then(|| "nothing is acknowledged".to_owned())
    }

    fn is_in_order(&self, server: usize, primary: usize) -> bool {
        let (own, log) = (&self.servers[server], &self.servers[primary].log);
        let record = &self.store.record;
        let ours = record.changes.last().is_some_and(|change| change.by != By::Outside);
        if own.life != Life::Up {
            return own.life == Life::Down;
        }
        if own.is_primary() {
            // Another tool's newer one is cordoned, and named.
            return own.fenced || !ours || own.log.timeline > log.timeline;
        }
        // A standby that turned to a timeline does not go back to an older one, also if it holds
        // nothing of it: its receiver refuses ("highest timeline of the primary is behind").
        let diverged = !own.log.leads_to(log) || own.log.timeline > log.timeline;
        let left_alone = self.plan.policy.mode == Mode::Manual
            && record.epoch == record.primary.epoch
            && (!ours || own.log.timeline == log.timeline);
        diverged || own.stream.is_some() || left_alone || self.judge.outside
    }

    /// Nobody is left who could be promoted, and it is said so.
    fn is_hopeless(&self) -> bool {
        let Some(primary) = self.recorded() else { return true };
        if self.servers[primary].life == Life::Up && self.servers[primary].is_primary() {
            return false;
        }
        let record = &self.store.record;
        let fit = (0..self.servers.len()).any(|server| {
            let own = &self.servers[server];
            own.life != Life::Down
                && own.role == Role::Standby
                && self.plan.tags[server].may_lead()
                && own.log.timeline == record.primary.timeline.0
        });
        let chosen_lost = match &record.phase {
            Phase::Promoting(_, choice) => {
                self.judge.lost_for_good.is_some_and(|lost| name(lost) == choice.server)
            }
            Phase::Stable | Phase::Draining(_) | Phase::Revoking(_) => false,
        };
        // Of two that another tool promoted, a person must say which it is.
        let rivals = self.servers.iter().filter(|own| own.rogue && own.is_primary()).count();
        // Whoever could still go on does so by an order: it is for nothing only where nobody is.
        let helped = self.judge.help_given >= HELPS;
        (!fit || (chosen_lost && helped) || rivals > 1) && self.names_a_step()
    }

    /// Whether the reason that is told names what an operator is to do.
    fn names_a_step(&self) -> bool {
        match &self.proxy.why {
            Some(
                Why::Manual(_)
                | Why::TooMuchLoss { .. }
                | Why::CannotCatchUp { .. }
                | Why::NotRevoked { .. }
                | Why::NoCandidate(_)
                | Why::ChosenLost(_)
                | Why::MayFollow { .. }
                | Why::NotTaken { .. }
                | Why::SeveralPrimaries(_)
                | Why::Evidence(_)
                | Why::HandedOver
                | Why::PromotedElsewhere(_)
                | Why::Barred { .. }
                | Why::CatchingUp { .. },
            ) => true,
            Some(_) | None => false,
        }
    }

    /// An operator reads what is missing, and gives the order that it names.
    pub(super) fn help(&mut self) {
        let due = self.now > QUIET + HELP_AFTER && self.now > self.judge.last_help + HELP_EVERY;
        if due && self.proxy.why == Some(Why::Evidence(Verdict::Unsure)) {
            self.judge.fail("nothing changes any more, and it is still not sure".to_owned());
        }
        if due && self.names_a_step() && self.proxy.order.is_none() {
            self.judge.last_help = self.now;
            self.judge.help_given += 1;
            let to = match &self.proxy.why {
                Some(Why::NotTaken { candidate, .. }) => Some(Arc::clone(candidate)),
                Some(Why::SeveralPrimaries(primaries)) => primaries.first().cloned(),
                Some(Why::Barred { by, .. }) => Some(Arc::clone(by)),
                Some(_) | None => None,
            };
            let order = Order::Failover { to, accept: MaxLoss::Any };
            // The command asks first, and gives no order that would be refused.
            let told = self.asked(|situation| preview(situation, &order, &self.plan.policy));
            self.tell(|_| format!("an operator helps: {:?}, {:?}", told.to, told.refusal));
            if told.refusal.is_none() {
                self.judge.counts.helped += 1;
                self.give(order);
            }
        }
    }

    pub(super) fn unsettled(&self) -> String {
        let why = self.proxy.why.as_ref().map(ToString::to_string);
        format!("{}; why: {why:?}", self.lacking().unwrap_or_default())
    }
}

fn is_overridden(operation: &Operation) -> bool {
    operation.word == MaxLoss::Any
}

fn name_of(record: &Record) -> Arc<str> {
    Arc::clone(&record.primary.server)
}
