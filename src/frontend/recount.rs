//! What a backend holds under our names, asked of itself where code that nobody has read may have
//! taken something away: `DEALLOCATE` in a function, or in a text that is not looked into.
//!
//! Whoever is given a backend relies on what is noted of it; what is not there would be refused to
//! a client that has done nothing of the kind.

use crate::frontend::own;
use crate::frontend::params::Reported;
use crate::pool::Conn;
use crate::session::find_ours;
use std::collections::HashSet;

/// The names that the protocol has given there; the client's own are not among them any more.
const NAMES: &str = "SELECT name FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql";

/// Has what is noted of the backend be what it holds; what of the answer is the client's.
///
/// # Errors
/// [`own::Unanswered`] also if it holds what nobody knows of: it is to be closed.
pub(super) async fn recount(
    conn: &mut Conn,
    reported: &mut Reported,
) -> Result<Vec<u8>, own::Unanswered> {
    let answer = own::run_unhurried(conn, NAMES, reported).await?;
    if answer.error.is_some() {
        return Err(own::Unanswered);
    }
    let mut there = HashSet::new();
    for row in &answer.rows {
        let [Some(name)] = row.as_slice() else { return Err(own::Unanswered) };
        match find_ours(name.as_bytes()) {
            Some((place, id)) if place == (0..name.len()) => there.insert(id),
            Some(_) | None => return Err(own::Unanswered),
        };
    }
    conn.held.keep_only(&there);
    if conn.held.len() == there.len() { Ok(answer.for_client) } else { Err(own::Unanswered) }
}
