//! The record: the little that must survive every process, changed by compare-and-swap only.
//!
//! Whoever reads it knows who is the primary, under which epoch, what must be revoked before
//! there may be another, and how far an operation under way has come. It never says what a
//! server *is*: that is looked at.

use crate::failover::Loss;
use crate::pg::{Lsn, SystemId, Timeline};
use crate::topology::Epoch;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The state of one set of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The number of the last change of primary, or of the attempt that is under way.
    pub epoch: Epoch,
    /// How far that has come.
    pub phase: Phase,
    /// The primary of the last completed change.
    pub primary: Appointed,
    /// What that primary promises to those whose writes it acknowledges.
    pub promise: Promise,
    /// The last changes, oldest first; at most [`Record::CHANGES_MAX`].
    pub changes: Vec<Change>,
}

/// Who was made the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appointed {
    /// Its configured name.
    pub server: Arc<str>,
    /// The number of the change that made it the primary; attempts that were called off since
    /// then have raised [`Record::epoch`] and not this.
    pub epoch: Epoch,
    /// Whose log it writes.
    pub system: SystemId,
    /// The branch that it writes.
    pub timeline: Timeline,
    /// Where that branch left its parent; `None` if it was not seen to do so.
    pub fork: Option<Lsn>,
}

/// How far an operation has come. What each allows next is in `decide`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// None is under way: the primary takes writes.
    Stable,
    /// Planned: new transactions wait, those that run may end. Nothing was done to any server.
    Draining(Operation),
    /// Those who could acknowledge for the old primary are being frozen. It can still be undone.
    Revoking(Operation),
    /// One was chosen, and may have been promoted: there is no way back.
    Promoting(Operation, Choice),
}

/// A change of primary under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Planned or not.
    pub kind: Kind,
    /// Who wanted it.
    pub by: By,
    /// The one server that is to be promoted, if that was said.
    pub to: Option<Arc<str>>,
    /// What may be lost by it.
    pub accepted: crate::failover::MaxLoss,
    /// What of that an operator has said himself. What is configured is for a failover that finds
    /// enough frozen, and never does without.
    pub word: crate::failover::MaxLoss,
    /// When it was begun, in seconds since 1970: for people only, never compared.
    pub began: u64,
}

/// Planned or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The primary is lost.
    Failover,
    /// The primary is well, and hands over.
    Switchover,
}

/// Who wanted a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// pgsteer, by the evidence.
    Evidence,
    /// An operator.
    Operator,
    /// Somebody else promoted a server, and it was followed.
    Outside,
}

/// Who was chosen, and what that costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its configured name.
    pub server: Arc<str>,
    /// Up to where it holds the old primary's log.
    pub at: Lsn,
    /// What is lost with the rest.
    pub loss: Loss,
}

/// What the primary promises about a write that it acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// At least `w` of these standbys have flushed it.
    Quorum {
        /// How many must.
        w: u16,
        /// Which count, by their configured names.
        cohort: BTreeSet<Arc<str>>,
    },
    /// Only the primary's own disk need hold it.
    Asynchronous(WeakPromise),
}

/// Why a set counts as asynchronous (SAFETY of the quorum: every name must be one of ours).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeakPromise {
    /// Not looked at yet.
    NotSeen,
    /// Our user may not see the settings that say.
    Hidden,
    /// `synchronous_standby_names` is empty.
    NoNames,
    /// It lists `*`: any receiver that turns up would count.
    Anyone,
    /// It lists a name that none of the servers has.
    UnknownName(Arc<str>),
    /// A receiver that is none of the servers carries a listed name, or two carry the same.
    SharedName(Arc<str>),
    /// `synchronous_commit` is weaker than `on`.
    WeakCommit(Arc<str>),
    /// The list could not be read.
    Unreadable(Arc<str>),
}

/// A completed change of primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub epoch: Epoch,
    /// Planned or not.
    pub kind: Kind,
    /// Who wanted it.
    pub by: By,
    /// From which server; `None` for the first.
    pub from: Option<Arc<str>>,
    /// To which.
    pub to: Arc<str>,
    /// The branch that began with it.
    pub timeline: Timeline,
    /// Where that left its parent.
    pub fork: Option<Lsn>,
    /// What was lost.
    pub loss: Loss,
    /// When it was begun, and when it was done, in seconds since 1970: for people only.
    pub began: u64,
    /// See `began`.
    pub ended: u64,
}

impl Record {
    /// How many changes are remembered.
    pub const CHANGES_MAX: usize = 64;

    /// The operation under way.
    pub const fn operation(&self) -> Option<&Operation> {
        match &self.phase {
            Phase::Stable => None,
            Phase::Draining(operation)
            | Phase::Revoking(operation)
            | Phase::Promoting(operation, _) => Some(operation),
        }
    }

    /// The same record in another phase of the same epoch.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    /// The same record, claimed for the next epoch.
    #[must_use]
    pub fn claimed(&self, phase: Phase) -> Self {
        Self { epoch: Epoch(self.epoch.0.saturating_add(1)), phase, ..self.clone() }
    }

    /// The same record with a new primary and nothing under way.
    #[must_use]
    pub fn settled(&self, primary: Appointed, promise: Promise, change: Change) -> Self {
        let mut changes = self.changes.clone();
        changes.push(change);
        let surplus = changes.len().saturating_sub(Self::CHANGES_MAX);
        changes.drain(..surplus);
        Self { epoch: self.epoch, phase: Phase::Stable, primary, promise, changes }
    }
}

impl Promise {
    /// How many of the cohort must be frozen before another may be promoted: no acknowledgement
    /// is possible without one of them. `None`: freezing closes nothing, the fence is elsewhere.
    pub fn revocation(&self) -> Option<usize> {
        match self {
            Self::Quorum { w, cohort } => Some((cohort.len() + 1).saturating_sub(usize::from(*w))),
            Self::Asynchronous(_) => None,
        }
    }

    /// Whether a server may be the one that holds an acknowledged write.
    pub fn counts(&self, server: &str) -> bool {
        match self {
            Self::Quorum { cohort, .. } => cohort.contains(server),
            Self::Asynchronous(_) => false,
        }
    }
}

impl Phase {
    /// The word for users, metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Draining(_) => "draining",
            Self::Revoking(_) => "revoking",
            Self::Promoting(..) => "promoting",
        }
    }
}

impl Kind {
    /// The word for users, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Switchover => "switchover",
        }
    }
}

impl By {
    /// The word for users, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Operator => "operator",
            Self::Outside => "outside",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorum { w, cohort } => {
                write!(out, "{w} of ")?;
                let names: Vec<_> = cohort.iter().map(|name| &**name).collect();
                out.write_str(&names.join(", "))
            }
            Self::Asynchronous(why) => why.fmt(out),
        }
    }
}

impl fmt::Display for WeakPromise {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSeen => out.write_str("the primary's settings were not seen yet"),
            Self::Hidden => {
                out.write_str("pgsteer's user may not see the settings: grant pg_monitor")
            }
            Self::NoNames => out.write_str("synchronous_standby_names is empty"),
            Self::Anyone => out.write_str("synchronous_standby_names lists *, so anybody counts"),
            Self::UnknownName(name) => {
                write!(out, "synchronous_standby_names lists {name}, which is none of the servers")
            }
            Self::SharedName(name) => {
                write!(out, "more than the one server calls itself {name} in application_name")
            }
            Self::WeakCommit(level) => write!(out, "synchronous_commit is {level}"),
            Self::Unreadable(list) => {
                write!(out, "synchronous_standby_names is not understood: {list}")
            }
        }
    }
}
