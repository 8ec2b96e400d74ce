//! What a glance at one of the server's messages tells.

use crate::frontend::overdue::Allowed;
use crate::pg::SqlState;
use crate::session::find_ours;
use crate::wire::frame;
use crate::wire::message;

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
            | SqlState::DEADLOCK_DETECTED
            | SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
    )
}

/// Whether an error in answer to `Bind` or `Describe` may say that what was prepared does not fit
/// the database any more, or the parameters not what was prepared. A cancel, a time limit, a lock
/// that was not had or a server that ends says nothing of the kind.
///
/// Source: PostgreSQL manual, Appendix A "PostgreSQL Error Codes".
pub(super) fn may_not_fit(code: SqlState) -> bool {
    // Protocol violation (the length of a binary value), not supported, data, schema, syntax.
    matches!(code.class(), "08" | "0A" | "22" | "3F" | "42")
}

/// The server's word that a statement was cancelled, with a hint to the rule that had it so.
pub(super) fn cancelled_as_overdue(message: &[u8], allowed: Allowed) -> Option<Vec<u8>> {
    let fields = message::read_error(message).ok()?;
    if fields.code != SqlState::QUERY_CANCELED || fields.hint.is_some() {
        return None;
    }
    let Allowed { limit, key } = allowed;
    let hint = format!("A rule of limits.rules allows {limit:?}; raise {key} in it.");
    let said = message.get(frame::HEADER..)?.strip_suffix(&[0])?;
    let mut told = Vec::new();
    frame::write(&mut told, b'E', |out| {
        out.extend_from_slice(said);
        out.push(b'H');
        frame::write_text(out, hint.as_bytes());
        out.push(0);
    });
    Some(told)
}

/// An error that names a statement as the servers know it, as the client would be told it by a
/// server of its own.
///
/// Source: `exec_bind_message` in `tcop/postgres.c`, the only one that names a statement that is
/// there.
pub(super) fn by_clients_names<'a>(
    message: &[u8],
    name_of: impl Fn(u64) -> Option<&'a [u8]>,
) -> Option<Vec<u8>> {
    let fields = message::read_error(message).ok()?;
    if fields.code != SqlState::PROTOCOL_VIOLATION {
        return None;
    }
    let said = message.get(frame::HEADER..)?;
    let (place, id) = find_ours(said)?;
    let name = name_of(id)?;
    let mut told = Vec::new();
    frame::write(&mut told, b'E', |out| {
        out.extend_from_slice(said.get(..place.start).unwrap_or(&[]));
        out.extend_from_slice(name);
        out.extend_from_slice(said.get(place.end..).unwrap_or(&[]));
    });
    Some(told)
}
