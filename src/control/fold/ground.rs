//! What the primary stands on: whether it may have restarted, who holds what it shows, and whether
//! it is on record.
//!
//! Invariant: where a record is kept, nobody is open before it was read, and one that takes
//! another's place not before that is recorded. A process that is started later would go by the
//! record, and lose what it wrote.

use super::{Fold, Report, Watched};
use crate::clock::Moment;
use crate::control::finding::Finding;
use crate::control::footing::{Footing, Quorum, Spoken};
use crate::pg::Lsn;
use crate::topology::{Epoch, History, NoPrimary, Primary, Role, ServerId};
use std::time::Duration;

/// Whether it is recorded who the primary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Book {
    /// One is kept, and what it says was not read yet: it may name another.
    Unread,
    /// There is no record, and none will be kept.
    Absent,
    /// It is, or there was none before it.
    Kept,
    /// Another one is recorded: this one took its place since.
    Behind,
}

/// What is remembered of the primary's footing.
#[derive(Debug)]
pub(super) struct Ground {
    footing: Footing,
    book: Book,
    pub(super) quorum: Option<Quorum>,
    /// What was opened until then is of no later incarnation than one that stood firm.
    vouched: Moment,
}

impl Ground {
    /// Nothing is known yet.
    pub(super) const fn new() -> Self {
        Self {
            footing: Footing::Unknown,
            book: Book::Absent,
            quorum: None,
            vouched: Moment::ORIGIN,
        }
    }

    /// Another primary, or the first one that is known.
    pub(super) fn begin_epoch(&mut self, before: Epoch) {
        let first = before == Epoch::default();
        self.footing = if first { Footing::Unknown } else { Footing::Appointed };
        self.vouched = Moment::ORIGIN;
        if !first && self.book == Book::Kept {
            self.book = Book::Behind;
        }
    }

    /// Who is the primary now is on record.
    pub(super) const fn recorded(&mut self) {
        match self.book {
            Book::Unread | Book::Behind => self.book = Book::Kept,
            Book::Absent | Book::Kept => {}
        }
    }

    /// We were not awake for so long.
    pub(super) fn awake(&mut self, now: Moment, asleep: Duration) {
        self.footing = self.footing.awake(now, asleep);
    }
}

impl Fold {
    /// Who confirms the primary's commits, as far as that is promised.
    pub(crate) fn pledge(&mut self, quorum: Option<Quorum>, now: Moment) {
        self.ground.quorum = quorum;
        self.reconsider(now);
    }

    /// What was pledged last.
    pub(crate) const fn quorum(&self) -> Option<&Quorum> {
        self.ground.quorum.as_ref()
    }

    /// A record is kept from now on, or is not.
    ///
    /// Once it was read, somebody may have been adopted already who is not on record.
    pub(crate) fn keep(&mut self, book: Book, now: Moment) {
        if !matches!((self.ground.book, book), (Book::Behind, Book::Kept)) {
            self.ground.book = book;
        }
        self.reconsider(now);
    }

    /// Whether what is on record is not known yet: nothing is decided before it is.
    pub(super) const fn is_unread(&self) -> bool {
        matches!(self.ground.book, Book::Unread)
    }

    /// Who is the primary while nothing was decided yet.
    pub(super) const fn undecided(&self) -> Primary {
        let why = if self.is_unread() { NoPrimary::Unrecorded } else { NoPrimary::NeverSeen };
        Primary::None { last: None, why }
    }

    /// Looks anew at what the recorded primary stands on.
    pub(super) fn stand(&mut self, now: Moment) {
        let Some(record) = self.adopted() else { return };
        let Some(primary) = self.servers.get(record.server.index()) else { return };
        // Without a connection nothing is learned, and what was vouched for stays so.
        let Some(spoken) = primary.spoken else { return };
        let of_record = primary.answer.as_ref().is_some_and(|answer| {
            answer.system == record.system && answer.look.timeline == Some(record.timeline)
        });
        if !of_record {
            return;
        }
        let held: Vec<_> = (0..)
            .map(ServerId)
            .zip(&self.servers)
            .filter(|(_, server)| !server.is_astray(&self.history))
            .filter_map(|(id, server)| Some((id, server.holds(record.system, record.timeline)?)))
            .collect();
        let ground = &mut self.ground;
        ground.footing = ground.footing.next(now, spoken, ground.quorum.as_ref(), &held);
        if ground.footing.is_open() {
            ground.vouched = ground.vouched.max(spoken.newest);
        }
    }

    /// The primary, if it is on record and its footing lets it be used.
    pub(super) const fn on_firm_ground(&self, decided: Primary) -> Primary {
        let Primary::Open { server, .. } = decided else { return decided };
        let why = match (self.ground.book, self.ground.footing) {
            (Book::Unread | Book::Behind, _) => NoPrimary::Unrecorded,
            (Book::Absent | Book::Kept, Footing::Settling { .. }) => NoPrimary::Settling,
            (Book::Absent | Book::Kept, _) => return decided,
        };
        Primary::None { last: Some(server), why }
    }

    /// When a backend of the primary must have been opened at the latest to be used.
    pub(super) fn vouched(&self) -> Option<Moment> {
        self.ground.quorum.as_ref().map(|_| self.ground.vouched)
    }

    /// What an operator must know of it.
    pub(super) fn unheld(&self) -> Option<Finding> {
        match self.ground.footing {
            Footing::Unheld { end, .. } => {
                let server = self.adopted()?.server;
                Some(Finding::Unheld { server, end })
            }
            Footing::Unknown
            | Footing::Appointed
            | Footing::Settling { .. }
            | Footing::Firm { .. } => None,
        }
    }
}

impl Watched {
    /// Keeps what the server says over its standing connection, as a primary.
    pub(super) fn hear(&mut self, report: &Report) {
        let (at, end) = match report {
            Report::Looked { look, .. } if look.role == Role::Primary => (look.sent_at, look.lsn),
            Report::PrimaryAt(at) => (at.sent_at, at.flush),
            Report::Looked { .. } | Report::LinkLost => {
                self.spoken = None;
                return;
            }
            Report::Failed(_) | Report::StandbyAt { .. } | Report::Visible { .. } => return,
        };
        let first = self.spoken.unwrap_or(Spoken { first: at, newest: at, end });
        self.spoken = Some(Spoken { newest: first.newest.max(at), ..first });
    }

    /// Whether it is on another line of descent than the primary, in spite of its number.
    fn is_astray(&self, primary: &History) -> bool {
        let own = self.answer.as_ref().and_then(|answer| answer.look.history.as_ref());
        own.is_some_and(|own| primary.contradicts(own))
    }

    /// Up to where a standby of this branch has flushed the log, at least.
    fn holds(&self, system: crate::pg::SystemId, timeline: crate::pg::Timeline) -> Option<Lsn> {
        let answer = self.answer.as_ref()?;
        let look = &answer.look;
        let same = answer.system == system && look.timeline == Some(timeline);
        let standby = look.role == Role::Standby && same;
        standby.then(|| look.received.unwrap_or_default().max(look.lsn))
    }
}
