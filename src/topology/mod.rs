//! What is known of the servers, as one immutable value, and what the data plane reports back.
//!
//! The control plane observes, builds a [`Topology`] and publishes it; the data plane routes by
//! the last one that it saw. Upwards flows [`Signals`]. The two planes share nothing else, so
//! each can be tested alone, and the data plane goes on while the control plane stalls, within
//! the ages that it checks itself.
//!
//! Invariants:
//! - Unknown is a value: a lag that was not measured is `None`, never zero.
//! - An observation that failed, or that is too old, counts as unseen.
//! - Positions of two timelines are compared through [`History`] or not at all.
//!
//! Deliberately absent: a clock, a socket, a runtime; and any opinion on what to do next.

mod history;
mod samples;
mod server;
mod signals;

pub use history::{Coverage, Fork, History};
pub use samples::{FormerSamples, PrimarySample, PrimarySamples, Succession};
pub use server::{Lag, Observation, Role, Seen, Server, ServerId, StandbySample, Unfit, Unseen};
pub use signals::{Busy, MAX_SERVERS, Signals, Wish};

use crate::clock::Moment;
use crate::pg::{SystemId, Timeline};
use crate::sql::Catalog;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The number of a change of primary: each adoption of another server as the primary is a new
/// one. Every write is sent under an epoch. It changes together with the primary and not before:
/// while a switchover waits for those who work on the old one, theirs goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// What is known of the set of servers at one moment.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Which change of primary this belongs to.
    pub epoch: Epoch,
    /// The set's system identifier, once a first server was seen.
    pub system: Option<SystemId>,
    /// Where writes go, or why they go nowhere.
    pub primary: Primary,
    /// Every configured server, indexed by [`ServerId`].
    pub servers: Box<[Server]>,
    /// The branches of the log that lead to the primary's timeline.
    pub history: History,
    /// The primary's recent positions, of this epoch only.
    pub samples: PrimarySamples,
    /// Those of epochs that have ended.
    pub former: FormerSamples,
    /// What each database's functions and views do, by database name; absent until loaded.
    pub catalogs: BTreeMap<Arc<str>, Arc<Catalog>>,
    /// Databases that somebody waits to have for himself, to drop or to rename them: idle backends
    /// in them are closed.
    pub vacated: BTreeSet<Arc<str>>,
    /// Since when sessions begin with other settings, by database and role (`""`: all roles): older
    /// backends are closed.
    pub renewed: BTreeMap<(Arc<str>, Box<str>), Moment>,
    /// Where the primary promises a quorum: only its backends that were opened until then are
    /// used. A later one may be of a server that has restarted and shows what nobody else holds.
    pub vouched: Option<Moment>,
    /// The right to write by this, which ends with this moment: who published it has stood still
    /// since, and somebody else may have made another server the primary.
    pub writes_until: Moment,
}

/// Where writes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Primary {
    /// This server takes writes, on this timeline.
    Open {
        /// Which server.
        server: ServerId,
        /// Its timeline: a backend that reports another does not belong to this epoch.
        timeline: Timeline,
    },
    /// No server takes writes now; they are held, then refused.
    None {
        /// The server that took them last.
        last: Option<ServerId>,
        /// Why none does.
        why: NoPrimary,
    },
}

/// Why no server takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoPrimary {
    /// No server that is not in recovery was seen since the start.
    NeverSeen,
    /// The primary does not answer, and nobody took its place.
    Unseen,
    /// The primary went into recovery, and nobody took its place.
    Demoted,
    /// Two servers say that they are the primary and neither is known to be the rightful one.
    Disputed,
    /// The primary may have restarted, and shows what too few of its standbys hold yet.
    Settling,
    /// Another tool made another server the primary, and that is not recorded yet: what is written
    /// there would be lost if the one on record came back. Or what is recorded was not read yet.
    Unrecorded,
    /// Another server is being made the primary because this one is gone: whatever is still
    /// under way on the old one is cut off at once.
    Failover,
    /// Another server is being made the primary as planned: what runs on the old one goes on
    /// until it is done, and nothing new begins.
    Switchover,
    /// There may be one: our own control plane has not said so lately.
    Unwatched,
}

/// Why what the primary says is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Void {
    /// Another server is the primary, or is about to be.
    Replaced,
    /// Another may be: our own control plane has not said anything lately.
    Unwatched,
}

impl NoPrimary {
    /// The reason for logs, metrics, `status` and a client's DETAIL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverSeen => "no primary was seen since the start",
            Self::Unseen => "the primary does not answer",
            Self::Demoted => "the primary went into recovery",
            Self::Disputed => "two servers say that they are the primary",
            Self::Settling => "the primary is back, and its standbys do not hold its log yet",
            Self::Unrecorded => "a primary was found, and it is not known to be on record yet",
            Self::Failover => "a failover is under way",
            Self::Switchover => "a switchover is under way",
            Self::Unwatched => "pgsteer itself does not get round to watching the servers",
        }
    }
}

impl Topology {
    /// What is known before the first look: nothing.
    pub fn unseen(servers: Box<[Server]>) -> Self {
        Self {
            epoch: Epoch(0),
            system: None,
            primary: Primary::None { last: None, why: NoPrimary::NeverSeen },
            servers,
            history: History::default(),
            samples: PrimarySamples::default(),
            former: FormerSamples::default(),
            catalogs: BTreeMap::new(),
            vacated: BTreeSet::new(),
            renewed: BTreeMap::new(),
            vouched: None,
            writes_until: Moment::from_nanos(u64::MAX), // there is nothing to write to
        }
    }

    /// The server that takes writes.
    pub const fn writable(&self) -> Option<ServerId> {
        match self.primary {
            Primary::Open { server, .. } => Some(server),
            Primary::None { .. } => None,
        }
    }

    /// Where a write may be sent now, or why nowhere.
    ///
    /// # Errors
    /// [`NoPrimary`].
    pub fn may_write(&self, now: Moment) -> Result<ServerId, NoPrimary> {
        match self.primary {
            Primary::Open { server, .. } if now <= self.writes_until => Ok(server),
            Primary::Open { .. } => Err(NoPrimary::Unwatched),
            Primary::None { why, .. } => Err(why),
        }
    }

    /// Whether what was begun on the primary in that epoch is cut off: another primary has taken
    /// its place, or is about to take it without waiting for this one.
    ///
    /// A primary that merely does not answer us, or that is about to hand over, still ends what it
    /// has begun.
    pub const fn has_ended(&self, epoch: Epoch) -> bool {
        self.epoch.0 != epoch.0
            || matches!(self.primary, Primary::None { why: NoPrimary::Failover, .. })
    }

    /// Whether it counts now what the primary says of something that was sent in that epoch.
    ///
    /// # Errors
    /// [`Void`]: it does not, and why.
    pub fn counts(&self, epoch: Epoch, now: Moment) -> Result<(), Void> {
        if self.has_ended(epoch) {
            Err(Void::Replaced)
        } else if now > self.writes_until {
            Err(Void::Unwatched)
        } else {
            Ok(())
        }
    }

    /// The server with this id; `None` only for an id of another configuration.
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.index())
    }

    /// Whether any server answered when it was looked at last.
    pub fn any_answers(&self) -> bool {
        self.servers.iter().any(|server| server.observation().is_some())
    }

    /// What is known of a database's functions and views.
    pub fn catalog(&self, database: &str) -> Option<&Arc<Catalog>> {
        self.catalogs.get(database)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
