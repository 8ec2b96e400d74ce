//! What a decision asks for.

use crate::failover::{Record, Refusal, Why};
use crate::topology::ServerId;

/// What is to be done now, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Each is idempotent; all of them may be under way at the same time.
    pub acts: Vec<Act>,
    /// The reason, or what is waited for.
    pub why: Why,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Put this in the record's place, if nobody was faster. Never beside another act that
    /// counts on it.
    Write(Box<Record>),
    /// Cut a standby off from its upstream, and find out up to where it holds the log.
    Freeze(ServerId),
    /// Give a standby its upstream of before back.
    Unfreeze(ServerId),
    /// Make a standby follow another server.
    Repoint {
        /// Which.
        server: ServerId,
        /// Whom it follows from now on.
        to: ServerId,
    },
    /// Make a standby the primary.
    Promote(ServerId),
    /// Have a commit confirmed as the settings of this primary demand.
    Prove(ServerId),
    /// Make a primary that is none any more take no writes, from anybody.
    Fence(ServerId),
    /// Undo that.
    Unfence(ServerId),
    /// Make a fenced primary restart as a standby of this one.
    Demote {
        /// Which.
        server: ServerId,
        /// Whom it follows.
        to: ServerId,
    },
    /// Write a checkpoint, so that what follows is quick.
    Checkpoint(ServerId),
    /// The order is done with.
    Answer(Result<(), Refusal>),
}

impl Decision {
    /// Nothing is to be done.
    pub const fn wait(why: Why) -> Self {
        Self { acts: Vec::new(), why }
    }

    /// This is to be done.
    pub const fn act(why: Why, acts: Vec<Act>) -> Self {
        Self { acts, why }
    }
}

impl Act {
    /// The server that it concerns; `None` for the record and the order.
    pub const fn server(&self) -> Option<ServerId> {
        match self {
            Self::Freeze(server)
            | Self::Unfreeze(server)
            | Self::Repoint { server, .. }
            | Self::Promote(server)
            | Self::Prove(server)
            | Self::Fence(server)
            | Self::Unfence(server)
            | Self::Demote { server, .. }
            | Self::Checkpoint(server) => Some(*server),
            Self::Write(_) | Self::Answer(_) => None,
        }
    }
}
