//! What PostgreSQL defines: its words for places, histories, errors and versions, as types.
//!
//! Everything above speaks in these types, so that a byte count is never taken for a timeline
//! and a bare LSN is never compared across two histories. Nothing here does I/O, reads a clock
//! or knows that a proxy exists.

mod conninfo;
mod lsn;
mod name;
mod position;
mod sqlstate;
mod version;

pub use conninfo::{Conninfo, InvalidConninfo};
pub use lsn::{InvalidLsn, Lsn, WalLayout};
pub use name::{SEARCH_PATH, quote_identifier, quote_literal};
pub use position::{Position, SystemId, Timeline};
pub use sqlstate::SqlState;
pub use version::Version;
