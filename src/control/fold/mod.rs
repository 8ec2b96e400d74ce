//! From reports to the topology: everything that the control plane remembers, in one value.
//!
//! Each report is folded in, and the topology is built anew from the whole state: no path can
//! forget to update a part of it. No clock, no socket; a test hands in reports and moments.
//!
//! Invariants:
//! - A failed look, or a lost connection, drops the standby's sample: it vouched for backends
//!   that may be gone (a crash restart reopens lower and shows it in nothing else).
//! - The positions of the primary are of one epoch and one timeline; a new epoch starts anew.

mod consent;
mod databases;
mod ground;
mod sight;

use crate::clock::Moment;
use crate::control::Policy;
use crate::control::adopt;
use crate::control::adopt::{Scene, Standing, Verdict, decide};
use crate::control::evidence::{Absence, Attempt, Sighting, Testimony};
use crate::control::finding::Finding;
use crate::control::fitness::{Candidate, PrimaryState, Yardstick, judge};
use crate::control::fold::ground::Ground;
use crate::control::footing::{Quorum, Spoken};
use crate::control::lag::LagRing;
use crate::control::look::Look;
use crate::control::right::Right;
use crate::control::rogues::Rogues;
use crate::pg::Lsn;
use crate::pg::Position;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::pg::Version;
use crate::sql::Catalog;
use crate::topology::Epoch;
use crate::topology::FormerSamples;
use crate::topology::History;
use crate::topology::Lag;
use crate::topology::NoPrimary;
use crate::topology::Observation;
use crate::topology::Primary;
use crate::topology::PrimarySample;
use crate::topology::PrimarySamples;
use crate::topology::Role;
use crate::topology::Seen;
use crate::topology::Server;
use crate::topology::ServerId;
use crate::topology::StandbySample;
use crate::topology::Succession;
use crate::topology::Topology;
use crate::topology::Unfit;
use crate::topology::Unseen;
pub(crate) use databases::Vacancy;
pub(crate) use ground::Book;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A standby whose timeline our role can't see stands on this one, which no history knows.
pub(crate) const UNKNOWN_TIMELINE: Timeline = Timeline(0);

/// What happened.
#[derive(Debug, Clone)]
pub(crate) enum Report {
    /// A server answered a look.
    Looked {
        /// Whose log it holds.
        system: SystemId,
        /// Its release.
        version: Version,
        /// What it said.
        look: Box<Look>,
    },
    /// A look failed.
    Failed(Attempt),
    /// The standing connection is gone.
    LinkLost,
    /// The primary said where it is.
    PrimaryAt(PrimaryAt),
    /// A standby said where it is.
    StandbyAt {
        /// When it was asked.
        sent_at: Moment,
        /// On which branch.
        timeline: Timeline,
        /// Where it had replayed to.
        replayed: Lsn,
    },
    /// Everything that the standby showed before this moment is visible on the primary.
    Visible {
        /// The moment.
        up_to: Moment,
        /// The epoch of that primary.
        epoch: Epoch,
    },
}

/// Where a primary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrimaryAt {
    /// When it was asked.
    pub sent_at: Moment,
    /// On which branch.
    pub timeline: Timeline,
    /// Its insert position, normalised.
    pub insert: Lsn,
    /// Its flush position.
    pub flush: Lsn,
}

/// A server as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Its name everywhere.
    pub name: Arc<str>,
    /// Host name, address or directory.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Where other servers reach it.
    pub reached: (Arc<str>, u16),
    /// Its share of the reads.
    pub weight: u32,
}

/// What our own failover recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appointment {
    /// The primary of the last completed change; `None`: none was recorded, or it is not
    /// configured any more.
    pub record: Option<adopt::Record>,
    /// A change is under way: writes are held, and nobody is adopted.
    pub changing: Option<NoPrimary>,
    /// The highest epoch that was ever claimed.
    pub epochs_used: Epoch,
    /// What the primary has of the one before it.
    pub succession: Succession,
    /// Who confirms its commits, as far as that is promised.
    pub quorum: Option<Quorum>,
}

/// Everything that is remembered.
#[derive(Debug)]
pub(crate) struct Fold {
    policy: Policy,
    servers: Vec<Watched>,
    standing: Standing,
    rogues: Rogues,
    /// A change of primary of our own is under way.
    changing: Option<NoPrimary>,
    /// The highest epoch that was ever claimed.
    epochs_used: Epoch,
    verdict: Option<Verdict>,
    history: History,
    ring: LagRing,
    samples: PrimarySamples,
    former: FormerSamples,
    catalogs: BTreeMap<Arc<str>, Arc<Catalog>>,
    vacated: BTreeSet<Arc<str>>,
    renewed: BTreeMap<(Arc<str>, Box<str>), Moment>,
    ground: Ground,
    right: Right,
}

/// What is remembered of one server.
#[derive(Debug)]
struct Watched {
    spec: Spec,
    sighting: Sighting,
    /// What was asked before this moment proves nobody's absence: we were not awake.
    awake_since: Moment,
    /// The last answer, as long as it counts.
    answer: Option<Answer>,
    ever_answered: bool,
    primary_at: Option<PrimaryAt>,
    sample: Option<StandbySample>,
    visible: Option<Moment>,
    spoken: Option<Spoken>,
}

#[derive(Debug)]
struct Answer {
    system: SystemId,
    version: Version,
    look: Look,
}

impl Fold {
    /// Nothing is known yet.
    pub(crate) fn new(policy: Policy, specs: Vec<Spec>) -> Self {
        let servers = specs.into_iter().map(Watched::new).collect();
        Self {
            policy,
            servers,
            standing: Standing::Fresh,
            rogues: Rogues::default(),
            changing: None,
            epochs_used: Epoch(0),
            verdict: None,
            history: History::default(),
            ring: LagRing::default(),
            samples: PrimarySamples::default(),
            former: FormerSamples::default(),
            catalogs: BTreeMap::new(),
            vacated: BTreeSet::new(),
            renewed: BTreeMap::new(),
            ground: Ground::new(),
            right: Right::new(),
        }
    }

    /// Takes one report of a server into account.
    pub(crate) fn take(&mut self, from: ServerId, report: Report, now: Moment) {
        let epoch = self.epoch();
        let specs: Vec<_> = self.servers.iter().map(|server| server.spec.clone()).collect();
        if let Some(server) = self.servers.get_mut(from.index()) {
            let resolve = |host: &str, port| resolve(&specs, host, port);
            server.hear(&report);
            server.take(report, epoch, &self.policy, resolve);
        }
        self.reconsider(now);
    }

    /// Takes another policy and other weights into use; the servers stay the same.
    pub(crate) fn adjust(&mut self, policy: Policy, weights: &[u32], now: Moment) {
        self.policy = policy;
        for (server, weight) in self.servers.iter_mut().zip(weights) {
            server.spec.weight = *weight;
        }
        self.reconsider(now);
    }

    /// Takes over what our own failover recorded: who is the primary, whether a change is under
    /// way, and which epochs are taken.
    pub(crate) fn appoint(&mut self, appointment: Appointment, now: Moment) {
        let before = self.epoch();
        self.changing = appointment.changing;
        self.ground.quorum = appointment.quorum;
        self.epochs_used = self.epochs_used.max(appointment.epochs_used);
        if let Some(record) = appointment.record {
            self.standing = Standing::Adopted(record);
            if self.epoch() != before {
                self.begin_epoch(before, appointment.succession);
            }
            self.ground.recorded();
        }
        self.reconsider(now);
    }

    /// What was seen before this moment proves nobody's absence: we were not awake for so long.
    pub(crate) fn void_evidence(&mut self, now: Moment, asleep: Duration) {
        self.ground.awake(now, asleep);
        for server in &mut self.servers {
            server.awake_since = now;
            if let Sighting::Missing(absence) = &mut server.sighting {
                absence.void(now);
            }
        }
    }

    /// Decides anew who the primary is; time alone can change that.
    pub(crate) fn reconsider(&mut self, now: Moment) {
        self.forget_renewed(now);
        if self.is_unread() {
            return;
        }
        let before = self.epoch();
        let sightings: Vec<_> = self.servers.iter().map(|s| s.sighting.clone()).collect();
        let histories: Vec<_> = self.servers.iter().map(Watched::history).collect();
        let mut rogues = std::mem::take(&mut self.rogues);
        let scene = Scene {
            now,
            sightings: &sightings,
            histories: &histories,
            rogues: &Rogues::default(),
            descent: &self.history,
            policy: &self.policy,
            changing: self.changing,
            epochs_used: self.epochs_used,
        };
        if let (Standing::Adopted(record), None) = (&self.standing, self.changing) {
            rogues.note(record, &scene.answers(), |server| scene.is_astray(server), now);
        }
        let scene = Scene { rogues: &rogues, ..scene };
        let verdict = decide(&self.standing, &scene);
        self.standing = verdict.standing.clone();
        self.rogues = rogues;
        if self.epoch() != before {
            self.begin_epoch(before, Succession::Unproven);
        }
        if let Primary::Open { server, timeline } = verdict.primary {
            self.follow(server, timeline);
        }
        self.right.renew(now, self.asked(verdict.primary));
        self.verdict = Some(verdict);
        self.stand(now);
    }

    /// Positions of the epoch before say nothing in this one; only what they say of that epoch
    /// stays known.
    fn begin_epoch(&mut self, before: Epoch, succession: Succession) {
        self.ring.clear();
        self.ground.begin_epoch(before);
        self.former = self.former.with(before, std::mem::take(&mut self.samples), succession);
        self.history = History::default();
        self.servers.iter_mut().for_each(|server| server.visible = None);
    }

    /// Takes over what the adopted primary said of its history and its position.
    fn follow(&mut self, server: ServerId, timeline: Timeline) {
        let Some(primary) = self.servers.get(server.index()) else { return };
        match primary.history() {
            Some(history) if history.current() == Some(timeline) => self.history = history,
            // Not to be read: then only servers on the very same branch can be compared.
            Some(_) | None if self.history.current() != Some(timeline) => {
                self.history = History::new(timeline, Vec::new());
            }
            Some(_) | None => {}
        }
        let Some(at) = primary.primary_at.filter(|at| at.timeline == timeline) else { return };
        let Some(system) = primary.answer.as_ref().map(|answer| answer.system) else { return };
        if self.samples.newest().is_none_or(|newest| newest.sent_at < at.sent_at) {
            let position = Position { system, timeline, lsn: at.insert };
            self.samples = self.samples.with(PrimarySample { sent_at: at.sent_at, position });
            self.ring.note(at.sent_at, at.flush, self.policy.observation_age_max);
        }
    }

    /// What the operator chose.
    pub(crate) const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The topology as of now.
    pub(crate) fn topology(&self, now: Moment) -> Topology {
        let (primary, system) = match &self.verdict {
            Some(verdict) => (self.on_firm_ground(verdict.primary), verdict.system),
            None => (self.undecided(), None),
        };
        let yardstick = Yardstick {
            system,
            primary: self.recorded(),
            history: &self.history,
            ring: &self.ring,
            state: self.primary_state(now),
            peers: self.peers(system),
            max_lag: self.policy.max_lag,
        };
        let servers = self.servers.iter().zip(0..);
        Topology {
            epoch: self.epoch(),
            system,
            primary,
            servers: servers.map(|(server, id)| server.show(ServerId(id), &yardstick)).collect(),
            history: self.history.clone(),
            samples: self.samples.clone(),
            former: self.former.clone(),
            catalogs: self.catalogs.clone(),
            vacated: self.vacated.clone(),
            renewed: self.renewed.clone(),
            vouched: self.vouched(),
            writes_until: self.right.until(),
        }
    }

    /// The primary that was adopted last.
    pub(crate) fn adopted(&self) -> Option<adopt::Record> {
        match &self.standing {
            Standing::Fresh | Standing::Disputed(_) => None,
            Standing::Adopted(record) => Some(*record),
        }
    }

    /// What is wrong now.
    pub(crate) fn findings(&self) -> BTreeSet<Finding> {
        let of_verdict = self.verdict.iter().flat_map(|verdict| verdict.findings.clone());
        of_verdict.chain(self.unheld()).collect()
    }

    fn epoch(&self) -> Epoch {
        match &self.standing {
            Standing::Fresh | Standing::Disputed(_) => Epoch::default(),
            Standing::Adopted(record) => record.epoch,
        }
    }

    fn recorded(&self) -> Option<ServerId> {
        match &self.standing {
            Standing::Fresh | Standing::Disputed(_) => None,
            Standing::Adopted(record) => Some(record.server),
        }
    }

    fn primary_state(&self, now: Moment) -> PrimaryState {
        let confirmed = self.ring.confirmed();
        let known = confirmed.is_some_and(|at| now.since(at) <= self.policy.observation_age_max);
        let open = self.verdict.as_ref().map(|verdict| verdict.primary);
        match open {
            Some(Primary::Open { .. }) if known => PrimaryState::Seen,
            Some(Primary::Open { .. } | Primary::None { .. }) | None => PrimaryState::Lost,
        }
    }

    /// The highest timeline of a standby, and the farthest position on it.
    fn peers(&self, system: Option<SystemId>) -> Option<(Timeline, Lsn)> {
        let answers = self.servers.iter().filter_map(|server| server.answer.as_ref());
        let standbys = answers
            .filter(|answer| answer.look.role == Role::Standby && Some(answer.system) == system);
        standbys.filter_map(|answer| Some((answer.look.timeline?, answer.look.lsn))).max()
    }
}

impl Watched {
    fn new(spec: Spec) -> Self {
        Self {
            spec,
            sighting: Sighting::Awaited,
            awake_since: Moment::from_nanos(0),
            answer: None,
            ever_answered: false,
            primary_at: None,
            sample: None,
            visible: None,
            spoken: None,
        }
    }

    fn take(
        &mut self,
        report: Report,
        epoch: Epoch,
        policy: &Policy,
        resolve: impl Fn(&str, u16) -> Option<ServerId>,
    ) {
        match report {
            Report::Looked { system, version, look } => {
                self.looked(system, version, *look, resolve);
            }
            Report::Failed(attempt) => self.failed(attempt, policy),
            Report::LinkLost => self.forget_samples(),
            Report::PrimaryAt(at) => self.primary_at = Some(at),
            Report::StandbyAt { sent_at, timeline, replayed } => {
                self.sampled(sent_at, timeline, replayed);
            }
            Report::Visible { up_to, epoch: of } if of == epoch => {
                self.visible = self.visible.max(Some(up_to));
            }
            Report::Visible { .. } => {}
        }
    }

    fn looked(
        &mut self,
        system: SystemId,
        version: Version,
        look: Look,
        resolve: impl Fn(&str, u16) -> Option<ServerId>,
    ) {
        let timeline = look.timeline.unwrap_or(UNKNOWN_TIMELINE);
        let upstream = look.upstream.as_ref();
        self.sighting = Sighting::Seen(Testimony {
            at: look.sent_at,
            role: look.role,
            system,
            timeline,
            streaming: look.streaming,
            upstream: upstream.and_then(|(host, port)| resolve(host, *port)),
        });
        let (sent_at, role, lsn, insert) = (look.sent_at, look.role, look.lsn, look.insert);
        self.answer = Some(Answer { system, version, look });
        self.ever_answered = true;
        match role {
            Role::Primary => {
                self.forget_samples();
                let at = insert.map(|insert| PrimaryAt { sent_at, timeline, insert, flush: lsn });
                self.primary_at = at;
            }
            Role::Standby => {
                self.primary_at = None;
                self.sampled(sent_at, timeline, lsn);
            }
        }
    }

    fn failed(&mut self, attempt: Attempt, policy: &Policy) {
        match &mut self.sighting {
            Sighting::Missing(absence) => absence.fail(attempt, policy),
            Sighting::Awaited | Sighting::Seen(_) => {
                self.sighting = Sighting::Missing(Absence::begin(attempt, policy));
            }
        }
        let asleep = attempt.began < self.awake_since;
        if let Sighting::Missing(absence) = &mut self.sighting
            && asleep
        {
            // It was under way meanwhile. The next one counts.
            absence.void(self.awake_since);
        }
        self.answer = None;
        self.primary_at = None;
        self.forget_samples();
    }

    fn sampled(&mut self, sent_at: Moment, timeline: Timeline, lsn: Lsn) {
        let Some(answer) = &mut self.answer else { return };
        if timeline == UNKNOWN_TIMELINE || answer.look.role != Role::Standby {
            return;
        }
        let position = Position { system: answer.system, timeline, lsn };
        if self.sample.is_none_or(|sample| sample.sent_at < sent_at) {
            self.sample = Some(StandbySample { sent_at, position });
        }
    }

    fn forget_samples(&mut self) {
        self.sample = None;
        self.visible = None;
    }

    /// The history of its timeline, if it is known in full.
    fn history(&self) -> Option<History> {
        self.answer.as_ref()?.look.history.clone()
    }

    fn show(&self, id: ServerId, against: &Yardstick<'_>) -> Server {
        let (seen, reads) = match (&self.answer, &self.sighting) {
            (Some(answer), _) => answer.show(id, self, against),
            (None, Sighting::Missing(absence)) => {
                let since = self.ever_answered.then_some(absence.since);
                (Seen::Not { since, why: absence.why }, Err(Unfit::Unseen))
            }
            (None, Sighting::Awaited | Sighting::Seen(_)) => {
                (Seen::Not { since: None, why: Unseen::NotYet }, Err(Unfit::Unseen))
            }
        };
        Server {
            id,
            name: Arc::clone(&self.spec.name),
            host: Arc::clone(&self.spec.host),
            port: self.spec.port,
            weight: self.spec.weight,
            seen,
            reads,
            sample: self.sample,
            visible_on_primary: self.visible,
        }
    }
}

impl Answer {
    fn show(
        &self,
        id: ServerId,
        watched: &Watched,
        against: &Yardstick<'_>,
    ) -> (Seen, Result<(), Unfit>) {
        let look = &self.look;
        let timeline = look.timeline.unwrap_or(UNKNOWN_TIMELINE);
        // A sample between two looks is newer than the look.
        let newest = watched.sample.filter(|sample| sample.sent_at > look.sent_at);
        let (asked, timeline, lsn) = newest.map_or((look.sent_at, timeline, look.lsn), |sample| {
            (sample.sent_at, sample.position.timeline, sample.position.lsn)
        });
        let lsn = match watched.primary_at {
            Some(at) if look.role == Role::Primary => at.flush.max(lsn),
            Some(_) | None => lsn,
        };
        let position = Position { system: self.system, timeline, lsn };
        let weight = watched.spec.weight;
        let history = look.history.as_ref().filter(|known| known.current() == Some(timeline));
        let fitness =
            judge(&Candidate { id, role: look.role, position, asked, weight, history }, against);
        let upstream = look.upstream.as_ref();
        let observation = Observation {
            sent_at: look.sent_at,
            role: look.role,
            system: self.system,
            timeline,
            version: self.version,
            lsn,
            received: look.received,
            streaming: look.streaming,
            upstream: upstream.map(|(host, port)| Arc::from(format!("{host}:{port}"))),
            lag: if look.role == Role::Standby { fitness.lag } else { Lag::default() },
        };
        (Seen::Answered(observation), fitness.reads)
    }
}

/// The configured server at this very address, ours or that of other servers; other names of the
/// same machine are not tried, since a wrong guess would silence a witness.
fn resolve(specs: &[Spec], host: &str, port: u16) -> Option<ServerId> {
    let is = |(own, at): (&str, u16)| (own, at) == (host, port);
    let at = specs
        .iter()
        .position(|spec| is((&*spec.host, spec.port)) || is((&*spec.reached.0, spec.reached.1)))?;
    u16::try_from(at).ok().map(ServerId)
}

#[cfg(test)]
mod tests;
