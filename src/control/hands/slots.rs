//! Slots through which standbys receive: there before one is needed, and keeping nothing while none
//! is.
//!
//! One that was never used keeps nothing. So one that is used no more is taken away and made anew;
//! one through which somebody has come back meanwhile can't be. So is one that has lost what it
//! kept (`max_slot_wal_keep_size`): since PostgreSQL 18 nobody gets in through it any more.
//!
//! Source: `ReplicationSlotAcquire` in `replication/slot.c` of PostgreSQL.

use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::hands::setting::first;
use crate::pg::quote_literal;

/// What is said of the slot of this name, if it is there.
const STATUS: &str = "SELECT coalesce(s.wal_status, '') FROM pg_catalog.pg_replication_slots AS s \
     WHERE s.slot_type = 'physical' AND s.slot_name = ";

/// Sees to it that there is a slot of this name, and that it can be used.
pub(super) async fn make(line: &mut Line<'_>, slot: &str) -> Result<(), HandError> {
    let quoted = quote_literal(slot);
    let rows = line.ask(&format!("{STATUS}{quoted}")).await?;
    match first(&rows) {
        None => {}
        Some("lost") => take_away(line, &quoted, "true").await?,
        Some(_) => return Ok(()),
    }
    let create = format!("SELECT pg_catalog.pg_create_physical_replication_slot({quoted}, false)");
    line.ask(&create).await?;
    Ok(())
}

/// Has a slot of a standby keep nothing, unless it is in use.
pub(super) async fn empty(line: &mut Line<'_>, slot: &str) -> Result<(), HandError> {
    take_away(line, &quote_literal(slot), "pg_catalog.pg_is_in_recovery()").await?;
    make(line, slot).await
}

/// Takes a slot away that is not in use, if that is so.
async fn take_away(line: &mut Line<'_>, quoted: &str, so: &str) -> Result<(), HandError> {
    let drop = format!(
        "SELECT pg_catalog.pg_drop_replication_slot(s.slot_name) \
         FROM pg_catalog.pg_replication_slots AS s \
         WHERE s.slot_type = 'physical' AND s.slot_name = {quoted} AND NOT s.active AND {so}"
    );
    line.ask(&drop).await?;
    Ok(())
}
