//! What is wrong with the set, in words that name the remedy.
//!
//! A finding is logged once when it appears and once when it is gone, and counted while it
//! lasts; the text is the same everywhere.

use crate::pg::Lsn;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::topology::ServerId;
use std::fmt;
use std::sync::Arc;

/// Something that an operator must know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Finding {
    /// A server holds another system's log.
    OtherSystem {
        /// Which.
        server: ServerId,
        /// Whose log it holds.
        found: SystemId,
        /// Whose it should hold.
        expected: SystemId,
    },
    /// A server says that it is the primary and was not adopted.
    Rogue {
        /// Which.
        server: ServerId,
        /// On which branch.
        timeline: Timeline,
        /// The recorded primary.
        primary: ServerId,
        /// What speaks against it.
        refusal: Refusal,
    },
    /// A former primary is back and still says that it is one.
    Returned {
        /// Which.
        server: ServerId,
        /// On which branch.
        timeline: Timeline,
        /// The branch that writes go to now.
        recorded: Timeline,
    },
    /// Several servers say that they are the primary, and neither is known to be the rightful one.
    Disputed {
        /// Which, and on which branches.
        claims: Vec<(ServerId, Timeline)>,
    },
    /// The only primary is on an older branch than a standby.
    LeftBehind {
        /// The primary.
        server: ServerId,
        /// Its branch.
        timeline: Timeline,
        /// The standby.
        standby: ServerId,
        /// Its branch.
        newer: Timeline,
    },
    /// The primary may have restarted, and shows commits that too few standbys hold.
    Unheld {
        /// The primary.
        server: ServerId,
        /// Up to where its log should be held.
        end: Lsn,
    },
}

/// Why a server that says that it is the primary is not adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Refusal {
    /// The recorded primary answers.
    RecordedAnswers,
    /// The recorded primary is not proved to be gone, or not yet.
    NotProvenGone,
    /// The recorded primary is silent, but this standby still streams from it.
    StillStreams(ServerId),
    /// The recorded primary is silent, and whether this standby streams from it can't be seen.
    StreamingUnknown(ServerId),
    /// This server may stream from it, and is not seen, but for no longer than may be a mishap.
    StandbyUnseen(ServerId),
    /// The history of its timeline could not be read.
    HistoryUnknown,
    /// Its timeline does not continue the recorded one.
    NotADescendant,
    /// It is on the recorded primary's own timeline.
    SameTimeline,
    /// Several servers could take the place.
    SeveralNewcomers,
    /// The recorded primary is gone, and had gone on beside it.
    WentOnBeside,
}

impl Finding {
    /// Whether a server was refused only because there is another one like it.
    pub(crate) const fn is_refused_heir(&self) -> bool {
        matches!(self, Self::Rogue { refusal: Refusal::SeveralNewcomers, .. })
    }

    /// Whether it may pass by itself within a moment, as in every change of primary.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Rogue { refusal: Refusal::NotProvenGone, .. })
    }

    /// The finding as one sentence with its remedy.
    pub(crate) fn text<'a>(&'a self, names: &'a [Arc<str>]) -> impl fmt::Display + 'a {
        Text { finding: self, names }
    }
}

struct Text<'a> {
    finding: &'a Finding,
    names: &'a [Arc<str>],
}

impl Text<'_> {
    fn name(&self, server: ServerId) -> &str {
        self.names.get(server.index()).map_or("?", |name| name)
    }

    fn refusal(&self, refusal: Refusal, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match refusal {
            Refusal::RecordedAnswers => out.write_str("the recorded primary answers"),
            Refusal::NotProvenGone => {
                out.write_str("the recorded primary is not proved to be gone")
            }
            Refusal::StillStreams(standby) => {
                write!(out, "{} still streams from the recorded primary", self.name(standby))
            }
            Refusal::StreamingUnknown(standby) => write!(
                out,
                "whether {} still streams from the recorded primary is not known (grant \
                 pg_monitor to the control user)",
                self.name(standby)
            ),
            Refusal::StandbyUnseen(standby) => write!(
                out,
                "{} may still stream from the recorded primary, and is not seen either",
                self.name(standby)
            ),
            Refusal::HistoryUnknown => out.write_str(
                "the history of its timeline can't be read (give the control user REPLICATION)",
            ),
            Refusal::NotADescendant => {
                out.write_str("its timeline does not continue the recorded one")
            }
            Refusal::SameTimeline => out.write_str(
                "it is on the recorded primary's own timeline: a copy, or the same server twice",
            ),
            Refusal::SeveralNewcomers => out.write_str("several servers could take the place"),
            Refusal::WentOnBeside => out.write_str(
                "that one went on beside it, and what it acknowledged since is not there; to take \
                 it all the same, name it to `pgsteer failover --accept-loss any --to`",
            ),
        }
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finding {
            Finding::OtherSystem { server, found, expected } => write!(
                out,
                "{} belongs to another system ({found}, expected {expected}): it gets no \
                 statements; remove it from the servers. If all of them were replaced on purpose, \
                 stop pgsteer, remove the record that it named at its start, and start it again",
                self.name(*server)
            ),
            Finding::Rogue { server, timeline, primary, refusal } => {
                write!(
                    out,
                    "{} says that it is the primary (timeline {timeline})",
                    self.name(*server)
                )?;
                write!(out, " beside {}, and is cordoned: ", self.name(*primary))?;
                self.refusal(*refusal, out)?;
                out.write_str("; stop the one that is wrong")
            }
            Finding::Returned { server, timeline, recorded } => write!(
                out,
                "{} is back as a primary on the old timeline {timeline} (now {recorded}), and is \
                 cordoned: rewind it with pg_rewind and start it as a standby",
                self.name(*server)
            ),
            Finding::Disputed { claims } => {
                out.write_str("several servers say that they are the primary:")?;
                for (server, timeline) in claims {
                    write!(out, " {} (timeline {timeline})", self.name(*server))?;
                }
                let mut timelines = claims.iter().map(|(_, timeline)| timeline);
                let first = timelines.next();
                if first.is_some_and(|first| timelines.all(|other| other == first)) {
                    out.write_str(", perhaps the same one twice")?;
                }
                out.write_str("; no writes until only one is left: stop the others")
            }
            Finding::LeftBehind { server, timeline, standby, newer } => write!(
                out,
                "{} is a primary on timeline {timeline}, but the standby {} is already on {newer}: \
                 no writes; start the newer primary, or rewind that standby",
                self.name(*server),
                self.name(*standby)
            ),
            Finding::Unheld { server, end } => write!(
                out,
                "{} may have restarted, and too few standbys hold its log up to {end}: what it \
                 shows may be lost with it; see that its synchronous standbys stream",
                self.name(*server)
            ),
        }
    }
}
