//! What happens in a run: the set, its settings, and what goes wrong when. All of it from a seed.

use super::chance::Chance;
use super::net::Way;
use pgsteer::failover::{
    CutOff, Demotable, Demotion, MaxLoss, Mode, Order, Policy, Profile, Rejoin, Tags,
};
use std::sync::Arc;
use std::time::Duration;

/// Faults begin before this, in milliseconds; then everything is healed.
pub(super) const QUIET: u64 = 7_000;
/// From then on it may take so long until all is well again.
pub(super) const SETTLE: u64 = 40_000;

/// Whom a fault hits, found out when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The recorded primary.
    Primary,
    /// One of the others.
    Other(usize),
    /// The one that was chosen, else one of the others.
    Chosen,
}

/// What goes wrong, and for how long (in milliseconds; `None`: for the rest of the run).
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// All processes of a server are killed.
    Crash(Whom, Option<u64>),
    /// One backend crashes, and the server restarts by itself.
    Relapse(Whom, u64),
    Stop(Whom, u64),
    /// Between the proxy and a server.
    CutOff(Whom, Way, u64),
    /// From the proxy to a server only; the answers come through.
    CutForth(Whom, u64),
    /// Between a server and all the others.
    Isolate(Whom, u64),
    /// Between a standby and the primary.
    CutStream(Whom, u64),
    /// A server answers every look with an error that proves that it lives.
    Full(Whom, u64),
    ProxyCrash(u64),
    ProxyPause(u64),
    Give(Order),
    /// Another tool promotes a server.
    PromoteOutside(Whom),
    /// Another tool makes the primary a standby of that server, which it promotes.
    HandOutside(Whom),
    /// Somebody changes how many must confirm a commit.
    Requorum(u16),
    /// A client keeps a transaction open.
    LongTransaction(u64),
    BadStore(u64),
    /// Every act on a server fails.
    BadHands(Whom, u64),
    Disarm(u64),
}

/// When something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(u64),
    /// So long after the record came into that phase.
    In(PhaseName, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PhaseName {
    Stable,
    Draining,
    Revoking,
    Promoting,
}

impl PhaseName {
    /// Its place in a list of all four.
    pub(super) const fn place(self) -> usize {
        match self {
            Self::Stable => 0,
            Self::Draining => 1,
            Self::Revoking => 2,
            Self::Promoting => 3,
        }
    }
}

/// Who writes past the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direct {
    Nobody,
    Clients,
    /// Their sessions can't be ended.
    Stubborn,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub servers: usize,
    /// How many must confirm a commit; `None`: asynchronous.
    pub quorum: Option<u16>,
    pub policy: Policy,
    pub tags: Vec<Tags>,
    pub keepalive: Vec<bool>,
    /// Longest time from receiving to replaying.
    pub replay_lag: Vec<u64>,
    /// How late a control file tells a new timeline.
    pub told_late: u64,
    pub direct: Direct,
    pub pause: u64,
    pub faults: Vec<(When, Fault)>,
}

impl Plan {
    /// Three servers, one of which must confirm; nothing goes wrong by itself.
    pub(super) fn plain(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let policy = Policy {
            mode: Mode::Auto,
            max_data_loss: MaxLoss::Bytes(0),
            gap: Duration::from_secs(5),
            ..policy(&mut chance)
        };
        let most = 4;
        Self {
            servers: 3,
            quorum: Some(1),
            policy,
            tags: vec![Tags::default(); most],
            keepalive: vec![true; most],
            replay_lag: vec![0; most],
            told_late: 0,
            direct: Direct::Clients,
            pause: 20,
            faults: Vec::new(),
        }
    }

    pub(super) fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let servers = chance.pick(&[2, 3, 3, 3, 3, 4, 4]);
        let standbys = u64::try_from(servers - 1).unwrap();
        let quorum = u16::try_from(chance.between(1, standbys)).unwrap();
        let quorum = chance.pick(&[None, Some(1), Some(1), Some(quorum)]);
        let mut plan = Self {
            servers,
            quorum,
            policy: policy(&mut chance),
            tags: (0..servers).map(|_| tags(&mut chance)).collect(),
            keepalive: (0..servers).map(|_| chance.percent(90)).collect(),
            replay_lag: (0..servers).map(|_| chance.pick(&[0, 0, 0, 20, 300])).collect(),
            told_late: chance.pick(&[0, 500, 2_000]),
            direct: chance.pick(&[Direct::Nobody, Direct::Clients, Direct::Stubborn]),
            pause: chance.pick(&[20, 60, 120]),
            faults: Vec::new(),
        };
        // Faults are over sooner than a profile loses its patience.
        let patience = if seed.is_multiple_of(2) { 150 } else { 1_000 };
        plan.policy.catch_up_patience = Duration::from_millis(patience);
        if plan.tags.iter().skip(1).all(|tags| !tags.may_lead()) {
            plan.tags[1] = Tags::default();
        }
        for _ in 0..chance.between(1, 7) {
            let when = when(&mut chance);
            plan.faults.push((when, fault(&mut chance, servers)));
        }
        if chance.percent(70) {
            let when = When::At(chance.between(300, 2_500));
            plan.faults.push((when, lost_primary(&mut chance)));
        } else {
            let when = When::At(chance.between(300, 2_500));
            let to = chance.percent(50).then(|| name(chance.place(servers)));
            plan.faults.push((when, Fault::Give(Order::Switchover { to })));
        }
        plan
    }
}

/// A server's configured name.
pub(super) fn name(server: usize) -> Arc<str> {
    Arc::from(["a", "b", "c", "d"][server])
}

fn policy(chance: &mut Chance) -> Policy {
    Policy {
        mode: chance.pick(&[Mode::Auto, Mode::Auto, Mode::Auto, Mode::Manual]),
        max_data_loss: chance.pick(&[
            MaxLoss::Bytes(0),
            MaxLoss::Bytes(0),
            MaxLoss::Bytes(400),
            MaxLoss::Any,
        ]),
        restart_grace: Duration::from_millis(1_500),
        isolated_after: Duration::from_millis(1_500),
        gap: Duration::from_millis(chance.pick(&[1_000, 5_000])),
        drain_timeout: Duration::from_secs(1),
        demotion: chance.pick(&[Demotion::Fence, Demotion::CrashRestart]),
        rejoin: chance.pick(&[Rejoin::Restart, Rejoin::Fence]),
        ..Policy::of(Profile::Aggressive)
    }
}

fn tags(chance: &mut Chance) -> Tags {
    Tags {
        priority: u32::try_from(chance.pick(&[1, 1, 1, 2, 0])).unwrap(),
        delayed: chance.percent(5),
        demotable: Demotable::Perhaps,
        cut_off: CutOff::Not,
    }
}

fn when(chance: &mut Chance) -> When {
    if chance.percent(50) {
        return When::At(chance.between(200, QUIET - 1_000));
    }
    let phase = chance.pick(&[
        PhaseName::Draining,
        PhaseName::Revoking,
        PhaseName::Revoking,
        PhaseName::Promoting,
        PhaseName::Promoting,
        PhaseName::Stable,
    ]);
    When::In(phase, chance.pick(&[0, 5, 20, 50, 90, 150, 300]))
}

fn whom(chance: &mut Chance) -> Whom {
    let other = chance.place(4);
    chance.pick(&[Whom::Primary, Whom::Other(other), Whom::Other(other), Whom::Chosen])
}

/// How a primary is lost.
fn lost_primary(chance: &mut Chance) -> Fault {
    let primary = Whom::Primary;
    let long = chance.between(300, 5_000);
    match chance.below(8) {
        0 => Fault::Crash(primary, None),
        1..=3 => Fault::Crash(primary, Some(long)),
        4 => Fault::Stop(primary, long),
        5 => Fault::Isolate(primary, long),
        6 => Fault::Relapse(primary, chance.between(800, 2_600)),
        _ => Fault::CutOff(primary, Way::Silent, long),
    }
}

fn fault(chance: &mut Chance, servers: usize) -> Fault {
    let whom = whom(chance);
    let long = chance.between(100, 4_000);
    match chance.below(34) {
        0..=2 => Fault::Crash(whom, chance.percent(80).then_some(long)),
        3 => Fault::Relapse(whom, chance.between(800, 2_600)),
        4 | 5 => Fault::Stop(whom, long),
        6 | 7 => Fault::CutOff(whom, chance.pick(&[Way::Silent, Way::Refused]), long),
        8 => Fault::CutForth(whom, long),
        9 | 10 => Fault::Isolate(whom, long),
        11 | 12 => Fault::CutStream(whom, long),
        13 => Fault::Full(whom, long),
        14..=18 => Fault::ProxyCrash(chance.between(10, 800)),
        19 => Fault::ProxyPause(chance.between(100, 3_000)),
        20..=26 => Fault::Give(order(chance, servers)),
        27 => Fault::PromoteOutside(whom),
        28 => Fault::Requorum(u16::try_from(chance.between(1, 3)).unwrap()),
        29 => Fault::LongTransaction(long),
        30 => Fault::BadStore(chance.between(10, 600)),
        31 | 32 => Fault::BadHands(whom, long),
        _ => Fault::Disarm(long),
    }
}

fn order(chance: &mut Chance, servers: usize) -> Order {
    let to = chance.percent(40).then(|| name(chance.place(servers)));
    let accept = chance.pick(&[MaxLoss::Bytes(0), MaxLoss::Bytes(500), MaxLoss::Any]);
    match chance.below(5) {
        0 | 1 => Order::Failover { to, accept },
        2 | 3 => Order::Switchover { to },
        _ => Order::Abort,
    }
}
