//! The memory that clients make us keep.
//!
//! What waiting statements take is bounded for all clients together: while there is no primary for
//! ten seconds, ten thousand clients go on sending. When it is used up the newest is refused,
//! rather than one that has waited long; and who waits already is read no further, so that its
//! socket holds it back.
//!
//! What stays with a session, its named statements, its settings and the names of those that it may
//! have set, is bounded for each by
//! `limits.rules`, where a rule says so.

use crate::frontend::Shared;
use crate::frontend::report::No;
use crate::frontend::serve::Stop;
use crate::frontend::state::Session;
use crate::session::{Group, KeepLimits, Parses};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a group that prepares statements can't be sent, if more would be kept than may be.
///
/// # Errors
/// The settings alone take more: nothing can be refused to take them back.
///
/// `taken` is what is kept of statements whose names a transaction has taken away.
pub(super) fn too_much_kept(
    session: &Session,
    taken: usize,
    group: &Group,
) -> Result<Option<No>, Stop> {
    let KeepLimits { statements, memory } = session.keeps;
    let Parses { named, bytes, closed } = group.parses;
    if memory == usize::MAX && (named == 0 || statements == usize::MAX) {
        return Ok(None);
    }
    let settings = session.settings.bytes() + session.custom.bytes();
    if settings > memory {
        let what = format!(
            "the session's settings take {settings} bytes, more than max_memory of {memory} bytes \
             (limits.rules)"
        );
        return Err(Stop::from(No::OverLimit(what)));
    }
    let no = if named == 0 {
        None
    } else if (session.names.len() + named).saturating_sub(closed) > statements {
        Some(Kept::Statements(statements))
    } else if settings + session.names.bytes() + taken + bytes > memory {
        Some(Kept::Memory(memory))
    } else {
        None
    };
    Ok(no.map(No::TooMuchKept))
}

/// Of what a session has as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// So many named prepared statements.
    Statements(usize),
    /// So many bytes of them and of its settings.
    Memory(usize),
}

/// A waiting client's share, for as long as this lives.
#[derive(Debug)]
pub(super) struct Share {
    shared: Arc<Shared>,
    bytes: u64,
}

/// Whether a share may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    No,
    Yes,
}

impl Share {
    /// A share of so many bytes, unless they are too many.
    pub(super) fn take(shared: &Arc<Shared>, bytes: usize) -> Option<Self> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let limit = shared.live.load().routing.hold_memory;
        let more = |held: u64| held.checked_add(bytes).filter(|all| *all <= limit);
        let taken = shared.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Self { shared: Arc::clone(shared), bytes })
    }

    /// What the client has sent meanwhile counts, too; whether there is room for more.
    pub(super) fn grow(&mut self, bytes: usize) -> Room {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        let before = self.shared.held_bytes.fetch_add(more, Ordering::Relaxed);
        let limit = self.shared.live.load().routing.hold_memory;
        if before + more < limit { Room::Yes } else { Room::No }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shared.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
