//! Keeping a live primary from taking writes, from anybody; and undoing that.
//!
//! Three things together, by SQL alone: commits wait for a standby that does not exist, so none
//! is acknowledged; transactions begin read-only; sessions that are not ours are ended. Each
//! alone is soft (a session can set itself free of the first two). What is left over is counted
//! and told.

use crate::clock;
use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::hands::setting;
use crate::control::hands::setting::first;
use crate::control::look::Row;
use crate::failover::{FENCE, Fenced};
use crate::pg::{Lsn, quote_literal};
use crate::topology::Role;
use std::fmt::Write as _;
use std::time::Duration;

/// What a primary was set to before it was fenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfenced {
    /// `synchronous_standby_names`.
    pub(super) names: String,
    /// `default_transaction_read_only`.
    pub(super) read_only: String,
}

/// Which sessions are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All that are not control connections.
    All,
    /// Those that have written something that they have not committed yet.
    Writers,
}

/// What a primary is set to now.
const NOW: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     s.reset_val, r.reset_val FROM pg_catalog.pg_settings AS s, pg_catalog.pg_settings AS r \
     WHERE s.name = 'synchronous_standby_names' AND r.name = 'default_transaction_read_only'";

/// A flush of whatever was acknowledged without one, and where the log then ends.
const FLUSH: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgsteer', '')";
const END: &str = "SELECT pg_catalog.pg_current_wal_flush_lsn()";

/// Sessions that can write, and are no control connections; their name alone would be no proof. A
/// subscription's workers write, too.
const SESSIONS: &str = "SELECT a.pid FROM pg_catalog.pg_stat_activity AS a \
     WHERE (a.backend_type = 'client backend' OR a.backend_type LIKE 'logical replication%worker') \
     AND a.pid <> pg_catalog.pg_backend_pid() \
     AND NOT (a.usename = CURRENT_USER \
              AND a.application_name ~ '^pgsteer (control|watch|visit)')";

const AND_WROTE: &str = " AND a.backend_xid IS NOT NULL";

/// Between two questions whether the sessions have ended.
const PACE: Duration = Duration::from_millis(2);

/// How long sessions get to end, once they were told to.
const ENDING_PATIENCE: Duration = Duration::from_millis(500);

/// Sessions that are told to end in one go.
const BATCH: usize = 256;

/// What a primary is set to now; `None` for one that is fenced.
pub(super) async fn settings(line: &mut Line<'_>) -> Result<Option<Unfenced>, HandError> {
    let rows = line.ask(NOW).await?;
    let row = rows.first().ok_or(HandError::Answer("settings"))?;
    let text = |column: usize| row.get(column).and_then(Option::as_deref).unwrap_or_default();
    if text(0) != "f" {
        return Err(HandError::IsA(Role::Standby));
    }
    if text(1) == FENCE {
        return Ok(None);
    }
    Ok(Some(Unfenced { names: text(1).to_owned(), read_only: text(2).to_owned() }))
}

/// Fences a primary; what undoes it must be stored by now. `ours` are sessions of this proxy.
pub(super) async fn fence(line: &mut Line<'_>, ours: &[i32]) -> Result<Fenced, HandError> {
    let settings =
        [("synchronous_standby_names", Some(FENCE)), ("default_transaction_read_only", Some("on"))];
    setting::set(line, &settings).await?;
    let foreign = end_sessions(line, Ending::All, ours).await?;
    let end = end_of_log(line).await?;
    Ok(Fenced { end, foreign })
}

/// Lets a primary take writes again.
pub(super) async fn unfence(line: &mut Line<'_>, before: &Unfenced) -> Result<(), HandError> {
    let settings = [
        ("default_transaction_read_only", Some(before.read_only.as_str())),
        ("synchronous_standby_names", Some(before.names.as_str())),
    ];
    setting::set(line, &settings).await
}

/// Whether a server, whatever it is, carries the fence.
const CARRIES: &str = "SELECT s.reset_val FROM pg_catalog.pg_settings AS s \
     WHERE s.name = 'synchronous_standby_names'";

/// Takes the fence off a server that was fenced as a primary and is a standby now: made the
/// primary again, it would wait for ever for a standby that does not exist. What it was set to
/// before is given back, else what its own files say.
pub(super) async fn lift(line: &mut Line<'_>, before: Option<&Unfenced>) -> Result<(), HandError> {
    if first(&line.ask(CARRIES).await?) != Some(FENCE) {
        return Ok(());
    }
    let settings = [
        ("default_transaction_read_only", before.map(|before| before.read_only.as_str())),
        ("synchronous_standby_names", before.map(|before| before.names.as_str())),
    ];
    setting::set(line, &settings).await
}

/// Where the log of a primary ends that takes no writes: with everything that was acknowledged.
pub(super) async fn end_of_log(line: &mut Line<'_>) -> Result<Lsn, HandError> {
    let answers = line.all(&[FLUSH, END]).await?;
    let end = answers.last().and_then(|rows| first(rows)?.parse().ok());
    end.ok_or(HandError::Answer("position"))
}

/// Ends sessions, and returns how many are still there in spite of it: our user may not end
/// those of a superuser unless it is one.
pub(super) async fn end_sessions(
    line: &mut Line<'_>,
    which: Ending,
    spared: &[i32],
) -> Result<usize, HandError> {
    let began = clock::now();
    let sql = sessions(which, spared);
    loop {
        let pids = pids(&line.ask(&sql).await?);
        if pids.is_empty() || clock::now().since(began) >= ENDING_PATIENCE {
            return Ok(pids.len());
        }
        for batch in pids.chunks(BATCH) {
            let questions: Vec<_> = batch.iter().map(|pid| end(*pid)).collect();
            let questions: Vec<_> = questions.iter().map(String::as_str).collect();
            // One that may not be ended does not keep the others.
            line.each(&questions).await?;
        }
        line.pause(PACE).await?;
    }
}

/// How many sessions could write that are not this proxy's.
pub(super) async fn foreign(line: &mut Line<'_>, ours: &[i32]) -> Result<usize, HandError> {
    Ok(pids(&line.ask(&sessions(Ending::All, ours)).await?).len())
}

fn sessions(which: Ending, spared: &[i32]) -> String {
    let mut sql = SESSIONS.to_owned();
    match which {
        Ending::All => {}
        Ending::Writers => sql.push_str(AND_WROTE),
    }
    if !spared.is_empty() {
        let list: Vec<_> = spared.iter().map(ToString::to_string).collect();
        let list = quote_literal(&format!("{{{}}}", list.join(",")));
        // Writing to a String can't fail.
        write!(sql, " AND a.pid <> ALL ({list}::int[])").unwrap_or_default();
    }
    sql
}

fn end(pid: i32) -> String {
    format!("SELECT pg_catalog.pg_terminate_backend({pid})")
}

fn pids(rows: &[Row]) -> Vec<i32> {
    rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect()
}
