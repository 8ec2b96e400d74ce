//! The memory that waiting statements take, bounded for all clients together: while there is no
//! primary for ten seconds, ten thousand clients go on sending.
//!
//! When it is used up the newest is refused, rather than one that has waited long; and who waits
//! already is read no further, so that its socket holds it back.

use crate::frontend::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
