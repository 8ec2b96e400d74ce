//! Why an act was not carried out, by the cure.

use crate::backend::ServerError;
use crate::control::link::LinkError;
use crate::pg::InvalidConninfo;
use crate::topology::Role;
use std::time::Duration;

/// Why an act was not carried out. It may be asked for again: every act is idempotent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandError {
    /// No configured server has this id.
    #[error("there is no such server")]
    NoSuchServer,
    /// There is no connection, or it was lost: what was sent may have been done.
    #[error("no connection: {0}")]
    Lost(String),
    /// It was not done in time; it may still be.
    #[error("not done within {0:?}")]
    Late(Duration),
    /// The server refused.
    #[error("{0}")]
    Refused(#[source] ServerError),
    /// The server is something else than the act is for.
    #[error("it is a {0} now")]
    IsA(Role),
    /// A setting was changed, and the change does not come into effect: it stands on the command
    /// line of the server, or its postmaster does not answer.
    #[error("{0} was set and does not change")]
    NoEffect(&'static str),
    /// What undoes the act could not be stored; so it was not carried out.
    #[error("what undoes it could not be stored: {0}")]
    NotNoted(String),
    /// Nothing was stored that would undo it, and the server itself does not know any more.
    #[error("nothing is known of {0} as it was before")]
    NothingNoted(&'static str),
    /// A standby's connection string can't be read.
    #[error("its primary_conninfo is broken: {0}")]
    Conninfo(#[from] InvalidConninfo),
    /// The commit was not confirmed as the server's settings demand.
    #[error("the commit was not confirmed")]
    Unconfirmed,
    /// Standbys are named, and a commit was not seen to wait for them.
    #[error(
        "no commit was seen to wait for the standbys: synchronous_standby_names counts once the \
         server's checkpointer has taken it in, which may be busy with a checkpoint"
    )]
    Unwaited,
    /// Up to where a standby holds the log can't be told: it has not replayed all that it has.
    #[error("up to where it holds the log is not known yet")]
    NoEnd,
    /// A precondition on the server is missing.
    #[error("{0}")]
    Unfit(&'static str),
    /// A standby was told whom to receive from, and does not; what is seen of its walreceiver.
    #[error("it does not stream from the other server: {0}")]
    NoStream(&'static str),
    /// The same, because the other server has a place for none more, of so many.
    #[error(
        "its walreceiver gets no connection: all {0} places for WAL senders of the other server \
         are taken; end what else receives from there, or raise max_wal_senders (a restart)"
    )]
    NoPlace(u32),
    /// Something else is to be done with the server: what was stored stays, and is waited for no
    /// longer.
    #[error("something else is to be done there")]
    GaveWay,
    /// The answer is not what was asked for.
    #[error("unexpected answer to the {0} query")]
    Answer(&'static str),
}

impl From<LinkError> for HandError {
    fn from(error: LinkError) -> Self {
        use crate::backend::QueryError;
        match error {
            LinkError::Query(QueryError::Server(error)) => Self::Refused(error),
            LinkError::Answer(what) => Self::Answer(what),
            LinkError::Connect(_) | LinkError::Query(_) | LinkError::Silent(_) => {
                Self::Lost(error.to_string())
            }
        }
    }
}
