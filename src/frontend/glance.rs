//! What a glance at one of the server's messages tells.

use crate::pg::SqlState;
use crate::wire::frame;

/// Messages that may be long and that nobody needs to look into.
pub(super) const fn is_bulk(tag: u8) -> bool {
    matches!(tag, b'D' | b'd' | b'T' | b'V' | b't')
}

/// Whether a `CommandComplete` says that all prepared statements are gone.
pub(super) fn is_deallocation(message: &[u8]) -> bool {
    matches!(message.get(frame::HEADER..), Some(b"DISCARD ALL\0" | b"DEALLOCATE ALL\0"))
}

/// Whether the error says that a prepared statement has another result by now. The routine that
/// raises it is named, untranslated, in every version since 9.1.
///
/// Source: `RevalidateCachedQuery` in `utils/cache/plancache.c`.
pub(super) fn is_stale(error: &[u8]) -> bool {
    error.split(|byte| *byte == 0).any(|field| field == b"RRevalidateCachedQuery")
}

/// Whether the notice says that the server did not wait for its synchronous standbys: it has
/// committed, and now reports success for what a failover may lose.
///
/// Source: `SyncRepWaitForLSN` in `replication/syncrep.c`.
pub(super) fn gave_up_waiting(notice: &[u8]) -> bool {
    notice.split(|byte| *byte == 0).any(|field| field == b"RSyncRepWaitForLSN")
}

/// Errors after which a read that has shown nothing is run again elsewhere: the server refused
/// it, or cancelled it for reasons of its own, and it can have changed nothing.
pub(super) fn may_run_again(code: SqlState) -> bool {
    matches!(
        code,
        SqlState::READ_ONLY_TRANSACTION
            | SqlState::SERIALIZATION_FAILURE
            | SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
    )
}
