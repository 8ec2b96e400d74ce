//! The decision itself: a pure function of a moment, a request, the topology and the policy.
//!
//! Asks in the order in which a wrong answer hurts most. There is no state between calls: a
//! request that must wait is asked again when the topology changes or its time is up, and gets
//! the answer of that moment.
//!
//! Invariants (the tests below and `tests/it` hold them under every input):
//! - What needs the primary never goes to a standby.
//! - A read with a floor goes to no standby that has not been seen to have replayed it on the
//!   same history.
//! - A server that was not seen recently enough gets no reads.
//! - Nothing goes to the primary by a topology whose right to write has ended.

use crate::clock::Moment;
use crate::route::policy::{Balance, Consistency, OnAllStale, Policy, Reads};
use crate::session::{Anchor, Demand};
use crate::topology::{Coverage, NoPrimary, Primary, Server, ServerId, Topology};

/// What a group of statements asks of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The primary, and nothing else.
    Primary(PrimaryReason),
    /// Any server that is fit to serve this session's reads.
    Read,
    /// A standby, by the client's own wish; never the primary.
    Standby,
    /// Any server at all: the group reads and writes no data.
    Anywhere,
}

/// Why a group needs the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrimaryReason {
    /// It is not known to be a pure read.
    Statement,
    /// The client asked for it: `pgsteer.role`, or a hint.
    Wish,
    /// The consistency mode, or `routing.reads`, says so.
    Mode,
}

/// One group, as far as routing goes.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What it asks of a server.
    pub need: Need,
    /// What its reads must see.
    pub consistency: Consistency,
    /// What the session's floor demands of a server that is not its anchor.
    pub demand: Demand,
    /// Which server answered the session last.
    pub anchor: Anchor,
    /// When the group arrived.
    pub since: Moment,
    /// Servers that failed this very group, as bits by [`ServerId`].
    pub failed: u64,
    /// Statements under way on each server, by [`ServerId`].
    pub load: &'a [u32],
    /// Turns the choice among equals; any number.
    pub turn: u32,
    /// Whether the group waits a little for a standby before it takes the primary.
    pub patience: Patience,
}

/// Whether a read whose floor no standby has reached yet waits for one.
///
/// The first read after a write does not: the primary answers at once. But each read on the
/// primary raises the floor again, so a session that went on like that would never leave it.
/// The next ones wait for a standby, once and for a few milliseconds, and stay there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It takes the primary at once.
    None,
    /// It waits, up to `replay_wait_max`.
    Some,
}

/// Where a group goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this server, now.
    Go {
        /// Which.
        server: ServerId,
        /// Why there.
        why: Why,
        /// What makes the choice sound; see [`Proof::holds`].
        proof: Proof,
    },
    /// Nowhere yet: ask for this, and decide again when the topology changes, at the latest at
    /// that moment.
    Wait {
        /// What would help.
        ask: Ask,
        /// The latest moment to decide again.
        until: Moment,
    },
    /// Nowhere, any more.
    Refuse(Refusal),
}

/// What is asked of the control plane while a group waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing in particular.
    Nothing,
    /// Nothing: only another primary would help.
    Primary,
    /// A position of the primary, sampled after this moment.
    Position(Moment),
    /// Newer samples of the standbys.
    Samples,
    /// Certainty that the primary shows what this standby showed up to this moment.
    Visibility(ServerId, Moment),
}

/// What makes it sound to read from a server; to be held against the backend in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is demanded.
    NoneNeeded,
    /// The session read there before, last at this moment: a backend that was open then shows
    /// at least as much.
    Anchored(Moment),
    /// A sample, sent at this moment, covers the floor: it vouches for backends that were open
    /// then.
    Sampled(Moment),
    /// The primary was seen not to have restarted, or to be held by its standbys, up to this
    /// moment: a backend that was opened later may be of a server that was not.
    Vouched(Moment),
}

impl Proof {
    /// Whether it vouches for a backend that was opened at `opened_at` and is still alive.
    pub fn holds(self, opened_at: Moment) -> bool {
        match self {
            Self::NoneNeeded => true,
            Self::Anchored(at) | Self::Sampled(at) | Self::Vouched(at) => opened_at <= at,
        }
    }
}

/// Why a group went where it went; the same word in metrics, logs and explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// It is not known to be a pure read.
    Write,
    /// The client asked for it.
    Wish,
    /// The mode, or `routing.reads`, says so.
    Mode,
    /// A read, to a standby that shows all that the session knows.
    Read,
    /// A read, to the primary: no standby has replayed the session's floor yet.
    Floor,
    /// A read, to the primary: no standby is fit (lag, unseen, weight 0).
    NoStandby,
    /// It reads and writes no data.
    Anywhere,
    /// It belongs to a transaction that is already open on that server.
    InTransaction,
    /// The session is pinned to its backend.
    Pinned,
}

impl Why {
    /// Every reason, for the metrics.
    pub const ALL: [Self; 9] = [
        Self::Write,
        Self::Wish,
        Self::Mode,
        Self::Read,
        Self::Floor,
        Self::NoStandby,
        Self::Anywhere,
        Self::InTransaction,
        Self::Pinned,
    ];

    /// The word for users.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Wish => "hint",
            Self::Mode => "mode",
            Self::Read => "read",
            Self::Floor => "lsn",
            Self::NoStandby => "no_standby",
            Self::Anywhere => "anywhere",
            Self::InTransaction => "in_transaction",
            Self::Pinned => "session_pin",
        }
    }
}

/// Why a group goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no primary, and the group was held as long as it may be.
    NoPrimary(NoPrimary),
    /// No standby qualifies, and the policy, or the client's wish, rules the primary out.
    NoStandby,
    /// No server at all can be reached.
    NoServer,
    /// What the session saw on a standby is not visible on the primary in time.
    NotVisible,
}

/// Longest wait for the primary to show what a standby, which can't be asked any more, showed.
const VISIBILITY_OF_A_LOST_STANDBY_MAX: std::time::Duration = std::time::Duration::from_millis(100);

/// Where a group goes at this moment.
#[must_use]
pub fn decide(now: Moment, request: &Request<'_>, topology: &Topology, policy: &Policy) -> Route {
    match request.need {
        Need::Primary(reason) => {
            let why = match reason {
                PrimaryReason::Statement => Why::Write,
                PrimaryReason::Wish => Why::Wish,
                PrimaryReason::Mode => Why::Mode,
            };
            to_primary(now, request, topology, policy, why)
        }
        Need::Read if policy.reads == Reads::Primary => {
            to_primary(now, request, topology, policy, Why::Mode)
        }
        Need::Read if request.consistency == Consistency::Primary => {
            to_primary(now, request, topology, policy, Why::Mode)
        }
        Need::Read => read(now, request, topology, policy),
        Need::Standby => match pick(now, request, topology, policy) {
            Pick::Server(server, proof) => Route::Go { server, why: Why::Wish, proof },
            Pick::Unresolved(mark) => {
                wait_or(now, request, policy, Ask::Position(mark), Refusal::NoStandby)
            }
            Pick::NotYet | Pick::NoneFit => {
                let ask = request.asks_position();
                wait_or(now, request, policy, ask, Refusal::NoStandby)
            }
        },
        Need::Anywhere => anywhere(now, request, topology, policy),
    }
}

/// To the primary, once it shows all that the session has seen elsewhere.
fn to_primary(
    now: Moment,
    request: &Request<'_>,
    topology: &Topology,
    policy: &Policy,
    why: Why,
) -> Route {
    let server = match topology.may_write(now) {
        Ok(server) => server,
        Err(why) => {
            // The next word of the control plane will do if it was its silence.
            let ask = if why == NoPrimary::Unwatched { Ask::Nothing } else { Ask::Primary };
            return wait_or(now, request, policy, ask, Refusal::NoPrimary(why));
        }
    };
    if request.has_failed(server) {
        let refusal = Refusal::NoPrimary(NoPrimary::Unseen);
        return wait_or(now, request, policy, Ask::Nothing, refusal);
    }
    let go = Route::Go { server, why, proof: of_primary(topology) };
    let (Anchor::Standby(standby, seen) | Anchor::Left(standby, seen)) = request.anchor else {
        return go;
    };
    if request.consistency == Consistency::Eventual || standby == server {
        return go;
    }
    let known = topology.server(standby);
    if known.and_then(|standby| standby.visible_on_primary).is_some_and(|until| until >= seen) {
        return go;
    }
    let lost = known.is_none_or(|standby| standby.observation().is_none());
    let patience = if lost { VISIBILITY_OF_A_LOST_STANDBY_MAX } else { policy.hold_max };
    let until = request.since + patience;
    match (now < until, lost) {
        (true, _) => Route::Wait { ask: Ask::Visibility(standby, seen), until },
        (false, true) => go,
        (false, false) => Route::Refuse(Refusal::NotVisible),
    }
}

/// To a standby that shows all that the session knows, else as the policy says.
fn read(now: Moment, request: &Request<'_>, topology: &Topology, policy: &Policy) -> Route {
    let (ask, why) = match pick(now, request, topology, policy) {
        Pick::Server(server, proof) => {
            let on_primary = topology.writable() == Some(server);
            let why = if on_primary { Why::Mode } else { Why::Read };
            return Route::Go { server, why, proof };
        }
        Pick::Unresolved(mark) => (Ask::Position(mark), Why::Floor),
        Pick::NotYet => (request.asks_position(), Why::Floor),
        Pick::NoneFit => (Ask::Nothing, Why::NoStandby),
    };
    let primary_answers = match policy.on_all_stale {
        OnAllStale::Primary => true,
        // The floor is met within milliseconds where a standby is fit at all: the primary
        // answers meanwhile, whatever is to happen when none is fit.
        OnAllStale::Wait | OnAllStale::Error => false,
    };
    if primary_answers {
        let soon = request.since + policy.replay_wait_max;
        if request.patience == Patience::Some && why == Why::Floor && now < soon {
            return Route::Wait { ask, until: soon };
        }
        if topology.writable().is_some_and(|server| !request.has_failed(server)) {
            return to_primary(now, request, topology, policy, why);
        }
        let refusal = match topology.primary {
            Primary::None { why, .. } => Refusal::NoPrimary(why),
            Primary::Open { .. } => Refusal::NoServer,
        };
        return wait_or(now, request, policy, ask, refusal);
    }
    let patience = match (policy.on_all_stale, why) {
        (OnAllStale::Error, Why::NoStandby) => return Route::Refuse(Refusal::NoStandby),
        (OnAllStale::Error, _) => policy.replay_wait_max,
        (OnAllStale::Wait | OnAllStale::Primary, _) => policy.hold_max,
    };
    let until = request.since + patience;
    if now < until { Route::Wait { ask, until } } else { Route::Refuse(Refusal::NoStandby) }
}

/// To whatever server answers, the session's own first.
fn anywhere(now: Moment, request: &Request<'_>, topology: &Topology, policy: &Policy) -> Route {
    let usable = |server: &&Server| {
        server.observation().is_some() && !request.has_failed(server.id) && server.weight > 0
    };
    let anchored = match request.anchor {
        Anchor::Standby(standby, _) => topology.server(standby),
        Anchor::Nowhere | Anchor::Primary | Anchor::Left(..) => None,
    };
    let primary = topology.writable().and_then(|server| topology.server(server));
    let any_standby = topology.servers.iter().filter(|server| server.reads.is_ok());
    let candidates = anchored.into_iter().chain(primary).chain(any_standby);
    match candidates.into_iter().find(usable) {
        Some(server) => {
            Route::Go { server: server.id, why: Why::Anywhere, proof: Proof::NoneNeeded }
        }
        None => wait_or(now, request, policy, Ask::Nothing, Refusal::NoServer),
    }
}

/// The outcome of looking for a server that may serve a read.
enum Pick {
    /// This one may.
    Server(ServerId, Proof),
    /// The floor is not known yet.
    Unresolved(Moment),
    /// Some are fit, but none has replayed the floor.
    NotYet,
    /// None is fit.
    NoneFit,
}

/// As many servers are all compared. Of more, two that chance picks are, and the session's own: the
/// less busy of two is hardly ever among the busiest, and the cost does not grow with the servers.
///
/// Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
const ALL_COMPARED_MAX: usize = 4;

fn pick(now: Moment, request: &Request<'_>, topology: &Topology, policy: &Policy) -> Pick {
    let mut any_fit = false;
    let mut choice = Choice::new(policy.balance, request);
    let mut candidates =
        topology.servers.iter().filter(|server| is_fit(now, server, request, policy));
    let few = topology.servers.len() <= ALL_COMPARED_MAX;
    // Shares in proportion to the weights take a look at each.
    if few || policy.balance == Balance::Weighted {
        for server in candidates {
            any_fit = true;
            if let Some(proof) = proof_for(server, request, topology) {
                choice.offer(server, proof);
            }
        }
    } else {
        any_fit = candidates.next().is_some();
        offer_some(now, request, (topology, policy), &mut choice);
    }
    if policy.reads == Reads::Any && request.need == Need::Read {
        offer_primary(request, topology, &mut choice);
    }
    match (choice.best, any_fit, request.demand) {
        (Some((server, proof, _)), ..) => Pick::Server(server, proof),
        (None, true, Demand::Unresolved(mark)) => Pick::Unresolved(mark),
        (None, true, _) => Pick::NotYet,
        (None, false, _) => Pick::NoneFit,
    }
}

/// Offers the session's own server, and two others from where chance falls.
fn offer_some(
    now: Moment,
    request: &Request<'_>,
    (topology, policy): (&Topology, &Policy),
    choice: &mut Choice<'_>,
) {
    let mut offer = |server: &Server| {
        let fit = is_fit(now, server, request, policy);
        let proof = if fit { proof_for(server, request, topology) } else { None }?;
        choice.offer(server, proof);
        Some(server.id)
    };
    let anchored = match request.anchor {
        Anchor::Standby(standby, _) => topology.server(standby).and_then(&mut offer),
        Anchor::Nowhere | Anchor::Primary | Anchor::Left(..) => None,
    };
    let first = offer_one(request.lot(1), topology, [anchored; 2], &mut offer);
    offer_one(request.lot(2), topology, [anchored, first], &mut offer);
}

/// Offers the first that takes part, from where the lot falls; which.
fn offer_one(
    lot: u64,
    topology: &Topology,
    but: [Option<ServerId>; 2],
    offer: &mut impl FnMut(&Server) -> Option<ServerId>,
) -> Option<ServerId> {
    let count = u64::try_from(topology.servers.len()).unwrap_or(u64::MAX);
    let start = usize::try_from(lot.checked_rem(count)?).ok()?;
    let (before, behind) = topology.servers.split_at_checked(start)?;
    let mut others = behind.iter().chain(before).filter(|server| !but.contains(&Some(server.id)));
    others.find_map(offer)
}

/// What shows that this standby has all that is demanded; `None` if nothing does.
fn proof_for(server: &Server, request: &Request<'_>, topology: &Topology) -> Option<Proof> {
    if request.consistency == Consistency::Eventual {
        return Some(Proof::NoneNeeded);
    }
    if let Anchor::Standby(anchor, seen) = request.anchor
        && anchor == server.id
    {
        return Some(Proof::Anchored(seen));
    }
    match request.demand {
        Demand::Nothing => Some(Proof::NoneNeeded),
        Demand::Unresolved(_) | Demand::Lost => None,
        Demand::Position(wanted) => {
            let sample = server.sample?;
            let covers = topology.history.covers(sample.position, wanted) == Coverage::Covers;
            covers.then_some(Proof::Sampled(sample.sent_at))
        }
    }
}

/// With `reads = "any"` the primary competes with the standbys, unless the session has just seen
/// a standby and would have to wait for the primary to show as much.
fn offer_primary(request: &Request<'_>, topology: &Topology, choice: &mut Choice<'_>) {
    let free = match request.anchor {
        Anchor::Standby(..) | Anchor::Left(..) => request.consistency == Consistency::Eventual,
        Anchor::Nowhere | Anchor::Primary => true,
    };
    let primary = topology.writable().and_then(|server| topology.server(server));
    if let Some(primary) = primary
        && free
        && !request.has_failed(primary.id)
        && primary.weight > 0
    {
        choice.offer(primary, of_primary(topology));
    }
}

/// What shows that the primary's standbys hold what it shows, where that is promised.
fn of_primary(topology: &Topology) -> Proof {
    topology.vouched.map_or(Proof::NoneNeeded, Proof::Vouched)
}

/// Whether a server may serve reads at all, now.
fn is_fit(now: Moment, server: &Server, request: &Request<'_>, policy: &Policy) -> bool {
    let fresh = server
        .observation()
        .is_some_and(|seen| now.since(seen.sent_at) <= policy.observation_age_max);
    fresh && server.reads.is_ok() && server.weight > 0 && !request.has_failed(server.id)
}

/// One of several servers that would all do, picked in one pass.
struct Choice<'a> {
    balance: Balance,
    request: &'a Request<'a>,
    best: Option<(ServerId, Proof, u64)>,
    /// The weights of all that were offered so far.
    weights: u64,
    offers: u32,
}

/// By how many statements a session's own standby may be busier than another before the session
/// moves: a move costs a proof, and often a wait.
const LOYALTY: u64 = 2;

impl<'a> Choice<'a> {
    const fn new(balance: Balance, request: &'a Request<'a>) -> Self {
        Self { balance, request, best: None, weights: 0, offers: 0 }
    }

    fn offer(&mut self, server: &Server, proof: Proof) {
        let weight = u64::from(server.weight.max(1));
        self.weights += weight;
        self.offers += 1;
        let load = self.request.load.get(server.id.index()).copied().unwrap_or(0);
        let load = match proof {
            Proof::Anchored(_) => u64::from(load).saturating_sub(LOYALTY),
            Proof::Sampled(_) | Proof::Vouched(_) | Proof::NoneNeeded => u64::from(load),
        };
        // Scaled, so that a weight of 3 bears three times the load before it looks as busy.
        let rank = (load + 1) * 1_000_000 / weight;
        let better = match (self.best, self.balance) {
            (None, _) => true,
            (Some((_, Proof::Anchored(_), _)), Balance::Weighted) => false,
            (Some((_, _, least)), Balance::LeastActive) if rank != least => rank < least,
            (Some(_), Balance::LeastActive) => self.lot().is_multiple_of(u64::from(self.offers)),
            // A reservoir: each offer wins with its share of the weights so far.
            (Some(_), Balance::Weighted) => {
                matches!(proof, Proof::Anchored(_)) || self.lot() % self.weights < weight
            }
        };
        if better {
            self.best = Some((server.id, proof, rank));
        }
    }

    fn lot(&self) -> u64 {
        self.request.lot(self.offers)
    }
}

/// Waits until the group was held as long as it may be, then refuses.
fn wait_or(
    now: Moment,
    request: &Request<'_>,
    policy: &Policy,
    ask: Ask,
    refusal: Refusal,
) -> Route {
    let until = request.since + policy.hold_max;
    if now < until { Route::Wait { ask, until } } else { Route::Refuse(refusal) }
}

impl Request<'_> {
    /// A number that differs from turn to turn and from draw to draw, without shared state.
    fn lot(&self, draw: u32) -> u64 {
        let seed = u64::from(self.turn) << 8 | u64::from(draw);
        let mixed = (seed ^ (seed >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        (mixed ^ (mixed >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53) >> 20
    }

    fn has_failed(&self, server: ServerId) -> bool {
        1_u64.checked_shl(u32::from(server.0)).is_some_and(|bit| self.failed & bit != 0)
    }

    fn asks_position(&self) -> Ask {
        match self.demand {
            Demand::Unresolved(mark) => Ask::Position(mark),
            Demand::Position(_) => Ask::Samples,
            Demand::Nothing | Demand::Lost => Ask::Nothing,
        }
    }
}

#[cfg(test)]
mod tests;
