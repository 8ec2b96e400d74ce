//! Changing a setting of a running server, and being sure that every process of it was told.
//!
//! `pg_reload_conf()` returns before anything happened: the postmaster reads the files and then
//! signals its children one after the other. When our own backend has the new value, the loop
//! that told it may still be under way. So a second reload is asked for: once that one has
//! reached us, the postmaster, which does one thing at a time, is done with the first. A process
//! that was signalled takes the change in before it does anything new.
//!
//! Source: `process_pm_reload_request` in `postmaster/postmaster.c` of PostgreSQL.

use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::look::Row;
use crate::pg::quote_literal;
use std::time::Duration;

/// A setting, and what it is to be; `None`: what the server's own files say.
pub(super) type Change<'c> = (&'static str, Option<&'c str>);

/// Between two questions whether a change has come into effect.
const PACE: Duration = Duration::from_millis(1);

/// Has the server read its files again.
pub(super) const RELOAD: &str = "SELECT pg_catalog.pg_reload_conf()";

/// When this session took in its settings last.
const LOADED: &str = "SELECT pg_catalog.pg_conf_load_time()";

/// Changes settings. On return every process of the server has been told.
///
/// Cancelled or failed, some of it may have been done; the same call completes it.
pub(super) async fn set(line: &mut Line<'_>, changes: &[Change<'_>]) -> Result<(), HandError> {
    let mut questions: Vec<_> = changes.iter().map(alter).collect();
    questions.push(RELOAD.to_owned());
    let questions: Vec<_> = questions.iter().map(String::as_str).collect();
    line.all(&questions).await?;
    for (name, value) in changes {
        if let Some(value) = value {
            await_value(line, name, value).await?;
        }
    }
    everywhere(line).await
}

/// Returns once every process was told of what this session knows already.
pub(super) async fn everywhere(line: &mut Line<'_>) -> Result<(), HandError> {
    let before = line.all(&[LOADED, RELOAD]).await?.into_iter().next();
    let before = before.as_deref().and_then(first).map(str::to_owned);
    loop {
        let now = line.ask(LOADED).await?;
        if first(&now) != before.as_deref() {
            return Ok(());
        }
        if line.pause(PACE).await.is_err() {
            return Err(HandError::NoEffect("the configuration"));
        }
    }
}

async fn await_value(
    line: &mut Line<'_>,
    name: &'static str,
    value: &str,
) -> Result<(), HandError> {
    // What sessions begin with: our own may have set itself to something else.
    let sql =
        format!("SELECT s.reset_val FROM pg_catalog.pg_settings AS s WHERE s.name = '{name}'");
    loop {
        let rows = line.ask(&sql).await?;
        if first(&rows) == Some(value) {
            return Ok(());
        }
        if line.pause(PACE).await.is_err() {
            return Err(HandError::NoEffect(name));
        }
    }
}

fn alter((name, value): &Change<'_>) -> String {
    match value {
        Some(value) => format!("ALTER SYSTEM SET {name} = {}", quote_literal(value)),
        None => format!("ALTER SYSTEM RESET {name}"),
    }
}

/// The first value of an answer.
pub(super) fn first(rows: &[Row]) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}
