//! One server, as it was last seen.

use crate::clock::Moment;
use crate::pg::{Lsn, Position, SystemId, Timeline, Version};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A configured server, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u16);

impl ServerId {
    /// Its place in [`crate::topology::Topology::servers`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It says that it is not in recovery. Whether it is *the* primary, the topology says.
    Primary,
    /// It replays another server's log.
    Standby,
}

impl Role {
    /// The word for users, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// One configured server and the last that was seen of it.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its place in the configuration.
    pub id: ServerId,
    /// `host:port`, as configured; the label of its metrics.
    pub name: Arc<str>,
    /// Host name, address, or the directory of a unix socket.
    pub host: Arc<str>,
    /// TCP port, or the number in the unix socket's name.
    pub port: u16,
    /// Its share of the reads, relative to the others'; 0: never read from it.
    pub weight: u32,
    /// The last look at it.
    pub seen: Seen,
    /// Whether it is fit to serve reads now, apart from any session's floor; else why not.
    /// The age of the observation is not counted here: whoever routes checks that itself.
    pub reads: Result<(), Unfit>,
    /// The last position that it had replayed, if it is a standby.
    pub sample: Option<StandbySample>,
    /// Everything that this standby showed before this moment is visible on the primary too.
    pub visible_on_primary: Option<Moment>,
}

/// A standby's replay position. It vouches only for backends that were opened before
/// `sent_at` and are still alive: a crash restart may reopen the server at a lower position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbySample {
    /// When the question was sent: what it had replayed then is at least `position`.
    pub sent_at: Moment,
    /// Timeline and replay position, read consistently on one connection.
    pub position: Position,
}

/// The last look at a server.
#[derive(Debug, Clone)]
pub enum Seen {
    /// It answered.
    Answered(Observation),
    /// It did not, or not for too long.
    Not {
        /// Since when; `None` if it never answered.
        since: Option<Moment>,
        /// What came instead.
        why: Unseen,
    },
}

/// One answer of a server.
#[derive(Debug, Clone)]
pub struct Observation {
    /// When the question was sent.
    pub sent_at: Moment,
    /// In recovery or not.
    pub role: Role,
    /// Whose log it holds.
    pub system: SystemId,
    /// The branch that it replays or writes.
    pub timeline: Timeline,
    /// Its release.
    pub version: Version,
    /// Where its log was flushed (primary) or replayed (standby) to.
    pub lsn: Lsn,
    /// A standby: where it has received the log to.
    pub received: Option<Lsn>,
    /// A standby: whether a walreceiver streams now; unknown without `pg_monitor`.
    pub streaming: Option<bool>,
    /// A standby: `host:port` of the server it follows, where it says so.
    pub upstream: Option<Arc<str>>,
    /// A standby: how far behind the primary's flush position it has replayed.
    pub lag: Lag,
}

/// Replay lag, in both of its units; unknown is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Bytes of log between the primary's flush position and the standby's replay position.
    pub bytes: Option<u64>,
    /// Age, on our clock, of the newest primary position that the standby has replayed past.
    pub time: Option<Duration>,
}

/// Why a server was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unseen {
    /// Not asked yet.
    NotYet,
    /// The connection was refused: nothing listens there.
    Refused,
    /// No answer within the deadline.
    Silent,
    /// The connection broke.
    Broken,
    /// The host name has no address.
    Unresolved,
    /// The server refused our login.
    LoginRefused,
    /// The server is starting up, shutting down or recovering.
    NotReady,
    /// All of its connections are in use.
    Full,
    /// What listens there does not speak PostgreSQL's protocol.
    NotPostgres,
    /// TLS was asked for and is not to be had, or its certificate was refused.
    Tls,
    /// It answered our question with an error.
    QueryFailed,
}

impl Unseen {
    /// The reason, for `status`, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotYet => "not asked yet",
            Self::Refused => "connection refused",
            Self::Silent => "no answer in time",
            Self::Broken => "connection broken",
            Self::Unresolved => "host name not found",
            Self::LoginRefused => "login refused",
            Self::NotReady => "starting up or shutting down",
            Self::Full => "no connection slot free",
            Self::NotPostgres => "not a PostgreSQL server",
            Self::Tls => "TLS failed",
            Self::QueryFailed => "monitoring query failed",
        }
    }
}

/// Why a server gets no reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unfit {
    /// It was not seen, or not for too long.
    Unseen,
    /// It is the primary; whether that serves reads is `routing.reads`.
    IsPrimary,
    /// It holds another system's log.
    OtherSystem,
    /// It went a way of its own: its log holds what the primary's never will, or it says that
    /// it is a primary and is not the rightful one.
    Diverged,
    /// It says that it is a primary, and is not the one that was adopted.
    Cordoned,
    /// Its history relative to the primary's is not known.
    UnknownHistory,
    /// It is farther behind than `routing.max_lag` allows, in bytes.
    LagBytes,
    /// It is farther behind than `routing.max_lag` allows, in time.
    LagTime,
    /// How far behind it is was not measured.
    LagUnknown,
    /// Its weight is 0.
    Weight,
}

impl Unfit {
    /// The reason, for `status`, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unseen => "unseen",
            Self::IsPrimary => "is the primary",
            Self::OtherSystem => "another system",
            Self::Diverged => "diverged",
            Self::Cordoned => "cordoned",
            Self::UnknownHistory => "history unknown",
            Self::LagBytes => "lag in bytes",
            Self::LagTime => "lag in time",
            Self::LagUnknown => "lag unknown",
            Self::Weight => "weight is 0",
        }
    }
}

impl Server {
    /// The last answer, if the last look had one.
    pub const fn observation(&self) -> Option<&Observation> {
        match &self.seen {
            Seen::Answered(observation) => Some(observation),
            Seen::Not { .. } => None,
        }
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(out)
    }
}
