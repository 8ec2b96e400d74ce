//! Making a live primary restart as a standby, by SQL alone. Only a superuser can, and only an
//! operator asks for it.
//!
//! It is told to be a standby at its next start (`standby.signal`), and one of its sessions ends
//! itself the hard way, which makes the postmaster restart everything. No shutdown checkpoint is
//! written, and nothing can write after it, so its end compares with its successor's. It costs
//! what a crash costs: recovery since the last checkpoint, the contents of unlogged tables.
//!
//! Source: `HandleChildCrash` in `postmaster/postmaster.c` and `readRecoverySignalFile` in
//! `access/transam/xlogrecovery.c` of PostgreSQL.

use crate::control::hands::HandError;
use crate::control::hands::freeze;
use crate::control::hands::line::Line;
use crate::control::hands::setting;
use crate::pg::quote_literal;
use crate::topology::Role;

/// Whether it would come back by itself, and where its files are; no row where our user may not
/// know that.
const FIT: &str = "SELECT s.setting, d.setting, u.usesuper \
     FROM pg_catalog.pg_settings AS s, pg_catalog.pg_settings AS d, pg_catalog.pg_user AS u \
     WHERE s.name = 'restart_after_crash' AND d.name = 'data_directory' \
     AND u.usename = CURRENT_USER";

/// Whether programs can be run at all: tried before anything is changed.
const TRIAL: &str = "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'";

/// The shell's parent is the session's own process.
const CRASH: &str = "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'";

/// Has a primary restart as a standby that follows `conninfo`. On return it is on its way down.
pub(super) async fn demote(line: &mut Line<'_>, conninfo: &str) -> Result<(), HandError> {
    let (role, _) = freeze::upstream(line).await?;
    if role == Role::Standby {
        return Ok(());
    }
    let rows = line.ask(FIT).await?;
    let row = rows.first().ok_or(HandError::Unfit(SUPERUSER))?;
    let text = |column: usize| row.get(column).and_then(Option::as_deref);
    if text(2) != Some("t") {
        return Err(HandError::Unfit(SUPERUSER));
    }
    if text(0) != Some("on") {
        return Err(HandError::Unfit("restart_after_crash is off: it would not come back"));
    }
    let directory = text(1).ok_or(HandError::Unfit(SUPERUSER))?.to_owned();
    line.ask(TRIAL).await?;
    setting::set(line, &[("primary_conninfo", Some(conninfo))]).await?;
    let file = quote_literal(&format!("{directory}/standby.signal"));
    if let Err(error) = line.ask(&format!("COPY (SELECT '') TO {file}")).await {
        // There may be a file all the same. If it is there too late, whoever frees it finds it.
        line.ask(&remove(&directory)).await.unwrap_or_default();
        return Err(error);
    }
    // Our session is the one that ends: there is no answer.
    match line.ask(CRASH).await {
        Err(HandError::Lost(_) | HandError::Late(_)) => Ok(()),
        Err(HandError::Refused(error)) if error.ends_connection => Ok(()),
        // It must not become a standby at some later start that nobody expects.
        Err(error) => {
            line.ask(&remove(&directory)).await?;
            Err(error)
        }
        Ok(_) => {
            line.ask(&remove(&directory)).await?;
            Err(HandError::Unfit("its session did not end itself"))
        }
    }
}

/// Has a primary that goes on forget that it was to be a standby at its next start. An attempt that
/// nobody waited for any more may have come to its end since; it has by now, for whoever holds the
/// lock has ended its session.
pub(super) async fn forget(line: &mut Line<'_>) -> Result<(), HandError> {
    let rows = line.ask(FIT).await?;
    let text = |column: usize| rows.first()?.get(column)?.as_deref();
    // Nobody else could have told it.
    let (Some(directory), Some("t")) = (text(1), text(2)) else { return Ok(()) };
    let remove = remove(directory);
    if setting::first(&line.ask(TOLD).await?).is_some() {
        line.ask(&remove).await?;
    }
    Ok(())
}

/// Whether it is to be a standby at its next start: then that file has a size.
const TOLD: &str = "SELECT (pg_catalog.pg_stat_file('standby.signal', true)).size";

fn remove(directory: &str) -> String {
    let shell = format!("'{}/standby.signal'", directory.replace('\'', "'\\''"));
    format!("COPY (SELECT 1) TO PROGRAM {}", quote_literal(&format!("rm -f {shell}")))
}

const SUPERUSER: &str = "only a superuser can make it restart as a standby";
