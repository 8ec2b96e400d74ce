//! What becomes of a session's work when its server is lost: a table.
//!
//! The question that everything turns on: can what was sent have been committed? Only where it
//! provably was not is it rolled back in our words, and only where it provably did nothing, and
//! the client saw nothing of it, is it sent again.

use crate::frontend::plan::{MayCommit, PureRead};
use crate::metrics::LostWork;

/// What was open around the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    /// No transaction.
    Nothing,
    /// One that can be opened anew: nothing was done in it.
    Opened,
    /// One in which something was done, or which has failed.
    Worked,
    /// One of ours, which stands in for another that was lost before.
    StandIn,
}

/// What was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flight {
    /// Nothing.
    None,
    /// Something that is kept and of which the client saw nothing: it may be sent again.
    Kept,
    /// The server was still taking in the client's data for a COPY: without its end nothing of
    /// this is committed.
    CopyingIn(MayCommit),
    /// Anything else.
    Sent(MayCommit, PureRead),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was lost.
    Nothing,
    /// It is run again elsewhere.
    RunAgain,
    /// The transaction is opened anew elsewhere; what was kept is run again in it.
    Reopen,
    /// The transaction was rolled back. The client is told at its next statement.
    RolledBackUntold,
    /// The transaction was rolled back. The client is told now, and has to end it.
    RolledBack,
    /// What stood by itself was rolled back. The client is told now.
    RolledBackWhole,
    /// A read broke off: the client has seen some of it, and nothing was changed.
    BrokenOff,
    /// Nobody knows.
    InDoubt,
    /// Another one has to stand in.
    StandIn,
}

impl Verdict {
    /// How it is counted.
    pub(super) const fn counts_as(self) -> Option<LostWork> {
        match self {
            Self::Nothing | Self::StandIn => None,
            Self::RunAgain => Some(LostWork::RunAgain),
            Self::Reopen => Some(LostWork::Reopened),
            Self::RolledBackUntold | Self::RolledBack | Self::RolledBackWhole => {
                Some(LostWork::RolledBack)
            }
            Self::BrokenOff => Some(LostWork::BrokenOff),
            Self::InDoubt => Some(LostWork::InDoubt),
        }
    }
}

/// What becomes of a session's work.
pub(super) const fn verdict(around: Around, flight: Flight) -> Verdict {
    match (around, flight) {
        (Around::StandIn, _) => Verdict::StandIn,
        (Around::Nothing, Flight::None) => Verdict::Nothing,
        (Around::Nothing, Flight::Kept) => Verdict::RunAgain,
        (Around::Opened, Flight::None | Flight::Kept) => Verdict::Reopen,
        (Around::Worked, Flight::None) => Verdict::RolledBackUntold,
        (Around::Nothing, Flight::CopyingIn(MayCommit::No)) => Verdict::RolledBackWhole,
        (Around::Nothing, Flight::Sent(_, PureRead::Yes)) => Verdict::BrokenOff,
        (
            Around::Opened | Around::Worked,
            Flight::CopyingIn(MayCommit::No) | Flight::Sent(MayCommit::No, _),
        ) => Verdict::RolledBack,
        // A transaction that can't be opened anew keeps nothing; if it did, this is the safe side.
        (Around::Worked, Flight::Kept)
        | (Around::Nothing, Flight::Sent(_, PureRead::No))
        | (Around::Opened | Around::Worked, Flight::Sent(MayCommit::Maybe, _))
        | (_, Flight::CopyingIn(MayCommit::Maybe)) => Verdict::InDoubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHTS: [Flight; 8] = [
        Flight::None,
        Flight::Kept,
        Flight::CopyingIn(MayCommit::No),
        Flight::CopyingIn(MayCommit::Maybe),
        Flight::Sent(MayCommit::No, PureRead::Yes),
        Flight::Sent(MayCommit::No, PureRead::No),
        Flight::Sent(MayCommit::Maybe, PureRead::Yes),
        Flight::Sent(MayCommit::Maybe, PureRead::No),
    ];

    #[test]
    fn each_state_has_its_verdict() {
        use Verdict::*;
        let table = [
            (
                Around::Nothing,
                [
                    Nothing,
                    RunAgain,
                    RolledBackWhole,
                    InDoubt,
                    BrokenOff,
                    InDoubt,
                    BrokenOff,
                    InDoubt,
                ],
            ),
            (
                Around::Opened,
                [Reopen, Reopen, RolledBack, InDoubt, RolledBack, RolledBack, InDoubt, InDoubt],
            ),
            (
                Around::Worked,
                [
                    RolledBackUntold,
                    InDoubt,
                    RolledBack,
                    InDoubt,
                    RolledBack,
                    RolledBack,
                    InDoubt,
                    InDoubt,
                ],
            ),
            (Around::StandIn, [StandIn; 8]),
        ];
        for (around, row) in table {
            for (flight, expected) in FLIGHTS.into_iter().zip(row) {
                assert_eq!(verdict(around, flight), expected, "{around:?} {flight:?}");
            }
        }
    }

    /// Who is told that it was rolled back runs it again: that must never be what may have been
    /// committed. And nothing is run again that the client has seen, or that may have done more
    /// than read.
    #[test]
    fn what_may_have_been_committed_is_in_doubt() {
        for around in [Around::Nothing, Around::Opened, Around::Worked] {
            for flight in FLIGHTS {
                let commits = match (around, flight) {
                    (_, Flight::None | Flight::Kept) => false,
                    // Alone, it commits by itself.
                    (Around::Nothing, Flight::Sent(_, read)) => read == PureRead::No,
                    (_, Flight::CopyingIn(commits) | Flight::Sent(commits, _)) => {
                        commits == MayCommit::Maybe
                    }
                };
                let decided = verdict(around, flight);
                if commits {
                    assert_eq!(decided, Verdict::InDoubt, "{around:?} {flight:?}");
                }
                let again = matches!(decided, Verdict::RunAgain | Verdict::Reopen);
                let kept = matches!(flight, Flight::None | Flight::Kept);
                assert!(!again || kept, "{around:?} {flight:?}");
            }
        }
    }
}
