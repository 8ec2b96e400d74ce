//! Everything that a decision rests on.

use crate::clock::Moment;
use crate::failover::{Acknowledged, MaxLoss, Promise, Record};
use crate::pg::{Lsn, SystemId, Timeline};
use crate::topology::{History, ServerId};
use std::sync::Arc;
use std::time::Duration;

/// One moment of the set, as this proxy sees it.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// This moment.
    pub now: Moment,
    /// What was recorded last.
    pub record: &'a Record,
    /// Every configured server, by its id.
    pub servers: &'a [ServerView],
    /// Whether this proxy may act by itself.
    pub arming: &'a Arming,
    /// What an operator wants, if he wants something now.
    pub order: Option<&'a Order>,
    /// What would keep a switchover from coming to its end, in words with the remedy.
    pub obstacle: Option<&'a Arc<str>>,
    /// The checkpoint that a switchover begins with.
    pub checkpoint: Checkpoint,
    /// What the primary is known to have acknowledged.
    pub acknowledged: Acknowledged,
    /// Who still works on the old primary.
    pub gate: Gate,
    /// What the primary promises by its settings of now, and since when that was seen; `None`
    /// while it is not seen.
    pub promise: Option<(&'a Promise, Moment)>,
    /// When a commit was last proved to be confirmed as the settings demand.
    pub proved: Option<Moment>,
    /// Since when this process has been running without a pause: what it saw before a pause is
    /// no evidence.
    pub awake_since: Moment,
    /// When the phase of the record was entered, as far as this process knows.
    pub phase_since: Moment,
    /// When a failover was last completed by the evidence, by this process.
    pub last_automatic: Option<Moment>,
    /// When this process began.
    pub began: Moment,
}

/// Whether this proxy may act by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arming {
    /// Everything that `auto` needs is there.
    Armed,
    /// This is missing, in words with the remedy.
    Disarmed(Vec<Arc<str>>),
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// To replace a primary that is lost.
    Failover {
        /// By this server; else by the best.
        to: Option<Arc<str>>,
        /// What may be lost, whatever is configured.
        accept: MaxLoss,
    },
    /// To hand over while the primary is well.
    Switchover {
        /// To this server; else to the best.
        to: Option<Arc<str>>,
    },
    /// To call off what can still be called off.
    Abort,
}

/// How far the checkpoint is that is written before a switchover holds anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkpoint {
    /// None was asked for since the order was given.
    #[default]
    Wanted,
    /// It is being written.
    Underway,
    /// It was written, or can't be.
    Past,
}

/// Who still works on the old primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gate {
    /// Sessions of this proxy with a backend of the primary that they have not given back.
    pub busy: usize,
}

/// One server.
#[derive(Debug, Clone)]
pub struct ServerView {
    /// Its place in the configuration.
    pub id: ServerId,
    /// Its configured name.
    pub name: Arc<str>,
    /// What was seen of it.
    pub sight: Sight,
    /// What it answered last, while it does not answer; `None` if it never did, as far as this
    /// process knows.
    pub last: Option<Testimony>,
    /// The history of its timeline, where that could be read in full.
    pub history: Option<History>,
    /// It is a standby without an upstream now, by our doing; also where a process before this
    /// one did it, and it was found so. Not any more from the moment on at which an act is begun
    /// that would undo it, whatever comes of that.
    pub frozen: Option<Frozen>,
    /// Why it could not be cut off from its upstream when that was tried last; `None` once it was,
    /// and where it did not answer since.
    pub stuck: Option<Arc<str>>,
    /// When something that was to be done to it failed last, if nothing was done to it since: what
    /// was asked before that tells nothing of what came of it.
    pub failed: Option<Moment>,
    /// It was told to take over what another one holds more, in the failover under way.
    pub catching: Option<Catching>,
    /// It is a primary that takes no writes now, by our doing, or a standby that would take none
    /// if it were promoted; also where a process before this one did it, and it was found so.
    pub fenced: Option<Fenced>,
    /// What the operator, or its settings, say of it.
    pub tags: Tags,
    /// Whether its link to the primary is kept alive by messages at least twice in
    /// [`crate::failover::Policy::witness_fresh`], so that silence on it means something.
    pub keepalive: bool,
}

/// What was seen of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The first look is under way.
    Awaited,
    /// It answered.
    Answers(Testimony),
    /// It did not.
    Missing(Missing),
}

/// What a server answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Testimony {
    /// When the question was sent.
    pub at: Moment,
    /// Whose log it holds.
    pub system: SystemId,
    /// On which branch; `None` where our user can't see it.
    pub timeline: Option<Timeline>,
    /// What it is.
    pub role: Standing,
}

/// What a server is, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes writes.
    Primary {
        /// Up to where its log is flushed.
        flushed: Lsn,
    },
    /// It replays.
    Standby {
        /// The greater of what it received and what it replayed.
        received: Lsn,
        /// Up to where it has replayed.
        replayed: Lsn,
        /// Whether anything comes in.
        receiver: Receiver,
    },
}

/// A standby's walreceiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// There is none, or it waits.
    Idle,
    /// It streams from this server (`None`: from one that can't be told), and its last message
    /// is this old.
    Streams {
        /// From whom.
        from: Option<ServerId>,
        /// Age of the last message, by the standby's clock.
        heard: Duration,
        /// Up to where it has written what comes in: behind what it holds while the segment in
        /// which that ends is sent anew from its start, as each stream begins.
        written: Option<Lsn>,
    },
    /// Our user can't see it.
    Hidden,
}

/// A run of looks that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// When the first look that failed was begun.
    pub since: Moment,
    /// Looks in a row, up to the last one, that found nobody there.
    pub gone: u32,
    /// The last look found it starting up or shutting down.
    pub restarting: bool,
    /// How long nothing was heard in spite of looks; `None` if it gave a sign of life.
    pub silent: Option<Duration>,
}

/// A standby that was cut off from its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// Up to where it holds the log, for certain.
    pub at: Lsn,
    /// On which branch.
    pub timeline: Timeline,
}

/// A standby that was told to take over what another one holds more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catching {
    /// From whom.
    pub from: ServerId,
    /// When it was seen to get on for the last time, be it with what it holds already; at first,
    /// when it was told. Later by as much as this process stood still since: nobody looked then.
    pub since: Moment,
    /// Why it does not stream from there, where that was found out.
    pub trouble: Option<Arc<str>>,
}

/// A primary that was made to take no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// Up to where its log goes.
    pub end: Lsn,
    /// Sessions that are not this proxy's and could still write.
    pub foreign: usize,
}

/// What the operator, or its settings, say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tags {
    /// The higher, the rather it is chosen among equals; 0: never promoted.
    pub priority: u32,
    /// It replays with a delay on purpose: never promoted.
    pub delayed: bool,
    /// Whether it lets itself be made a standby.
    pub demotable: Demotable,
    /// Whether it may be our doing that it has no upstream.
    pub cut_off: CutOff,
}

/// Whether a standby has no upstream by a freeze of ours, as was noted then: also where this
/// process does not take it for frozen any more, since it was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CutOff {
    /// It has one, or somebody else took it.
    #[default]
    Not,
    /// We did.
    ByUs,
}

/// Whether a primary lets itself be made to restart as a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demotable {
    /// Nothing speaks against it.
    #[default]
    Perhaps,
    /// It was tried, and can't be done: our user is no superuser, or it would not come back.
    No,
}

impl Default for Tags {
    fn default() -> Self {
        Self { priority: 1, delayed: false, demotable: Demotable::Perhaps, cut_off: CutOff::Not }
    }
}

impl Tags {
    /// Whether it may become the primary.
    pub const fn may_lead(self) -> bool {
        self.priority > 0 && !self.delayed
    }
}

impl Situation<'_> {
    /// The server of that name.
    pub fn named(&self, name: &str) -> Option<&ServerView> {
        self.servers.iter().find(|server| &*server.name == name)
    }

    /// The recorded primary, if it is still configured.
    pub fn primary(&self) -> Option<&ServerView> {
        self.named(&self.record.primary.server)
    }

    /// Whether it is on a branch of its own that has the number of the recorded one, or of one that
    /// leads there: promoted once, unknown to whoever promoted the primary. Nothing that it holds
    /// of that branch is the primary's, whatever it receives.
    pub fn is_astray(&self, server: &ServerView) -> bool {
        let recorded = &self.record.primary;
        let current = |known: &&History| known.current() == Some(recorded.timeline);
        let Some(own) = server.history.as_ref() else { return false };
        match self.primary().and_then(|primary| primary.history.as_ref()).filter(current) {
            Some(known) => known.contradicts(own),
            // While the primary is away, the record knows where its branch began.
            None => recorded.fork.is_some_and(|fork| current(&own) && !own.has_fork_at(fork)),
        }
    }

    /// Where a server's branch, which has that number, left the recorded one; `None` where it is
    /// not known to continue that one, be it that it comes by another of the recorded one's number.
    pub fn left_at(&self, server: &ServerView, timeline: Timeline) -> Option<Lsn> {
        let recorded = &self.record.primary;
        let own = server.history.as_ref().filter(|own| own.current() == Some(timeline))?;
        let left = own.end_of(recorded.timeline)?;
        recorded.fork.is_none_or(|fork| own.has_fork_at(fork)).then_some(left)
    }

    /// All servers but the recorded primary.
    pub fn others(&self) -> impl Iterator<Item = &ServerView> {
        self.servers.iter().filter(|server| server.name != self.record.primary.server)
    }
}

impl ServerView {
    /// Its answer, if it gave one.
    pub const fn answer(&self) -> Option<&Testimony> {
        match &self.sight {
            Sight::Answers(answer) => Some(answer),
            Sight::Awaited | Sight::Missing(_) => None,
        }
    }

    /// Its answer as a standby: received, replayed, receiver.
    pub const fn as_standby(&self) -> Option<(Lsn, Lsn, Receiver)> {
        match &self.sight {
            Sight::Answers(Testimony {
                role: Standing::Standby { received, replayed, receiver },
                ..
            }) => Some((*received, *replayed, *receiver)),
            Sight::Answers(_) | Sight::Awaited | Sight::Missing(_) => None,
        }
    }

    /// Its answer as a primary: its timeline and flush position.
    pub const fn as_primary(&self) -> Option<(Option<Timeline>, Lsn)> {
        match &self.sight {
            Sight::Answers(Testimony { timeline, role: Standing::Primary { flushed }, .. }) => {
                Some((*timeline, *flushed))
            }
            Sight::Answers(_) | Sight::Awaited | Sight::Missing(_) => None,
        }
    }
}
