//! One pgsteer at a time acts on a server: a session lock, taken ahead, and taken over by force.
//!
//! A process that was paused, or whose connection was cut, must not come back in the middle of
//! another's work: before a hand acts it holds this lock, and who held it before has lost his
//! session, with whatever that was about to do. Servers in recovery take such locks, too; they
//! are not in the log.
//!
//! Whoever may act shows that by the name of his connection, too: so each sees the others, whatever
//! database they look at. One whose `failover.mode` is `off` does neither.
//!
//! Source: PostgreSQL manual, 13.3.5 "Advisory Locks", 9.28.10 "Advisory Lock Functions".

use crate::control::hands::HandError;
use crate::control::hands::line::{Line, Stance};
use crate::control::look::Row;
use crate::failover::Instance;
use crate::pg::quote_literal;
use std::time::Duration;
use tracing::warn;

/// Asks for the lock: two numbers of 32 bits, `pgst` and the kind. Such a lock belongs to one
/// database, so all instances must look at the same one; `others` in a survey sees the rest.
const TRY: &str = "SELECT pg_catalog.pg_try_advisory_lock(1885827956, 1)";

const UNLOCK: &str = "SELECT pg_catalog.pg_advisory_unlock_all()";

/// Asks who holds it.
const HOLDER: &str = "SELECT l.pid, a.application_name FROM pg_catalog.pg_locks AS l \
     LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.classid = 1885827956 AND l.objid = 1 \
     AND l.objsubid = 2 AND l.granted AND l.pid <> pg_catalog.pg_backend_pid() \
     AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d \
                       WHERE d.datname = pg_catalog.current_database())";

/// Between two attempts while the session of before ends.
const PACE: Duration = Duration::from_millis(2);

/// Takes the lock if it is free. An earlier session of this process gives way.
pub(super) async fn take_if_free(line: &mut Line<'_>, own: Instance) -> Result<bool, HandError> {
    ready(line, own).await?;
    if attempt(line).await? {
        return Ok(true);
    }
    let holders = line.ask(HOLDER).await?;
    let own = own.application_name();
    let ours = |row: &Row| row.get(1).and_then(Option::as_deref) == Some(&*own);
    if !holders.iter().any(ours) {
        return Ok(false);
    }
    end(line, &holders).await?;
    line.pause(PACE).await?;
    attempt(line).await
}

/// Gives the lock back, and shows that this process only looks.
pub(super) async fn give_back(line: &mut Line<'_>, own: Instance) -> Result<(), HandError> {
    if line.stance() != Stance::Watching {
        let name = quote_literal(&own.watching_name());
        line.all(&[UNLOCK, &format!("SET application_name = {name}")]).await?;
        line.stands(Stance::Watching);
    }
    Ok(())
}

async fn ready(line: &mut Line<'_>, own: Instance) -> Result<(), HandError> {
    if line.stance() == Stance::Watching {
        let name = quote_literal(&own.application_name());
        line.ask(&format!("SET application_name = {name}")).await?;
        line.stands(Stance::Ready);
    }
    Ok(())
}

/// Takes the lock, whoever holds it: his session is ended.
pub(super) async fn take(
    line: &mut Line<'_>,
    own: Instance,
    server: &str,
) -> Result<(), HandError> {
    ready(line, own).await?;
    let mut told = false;
    while !attempt(line).await? {
        let holders = line.ask(HOLDER).await?;
        if !told {
            let name = |row: &Row| row.get(1).cloned().flatten().unwrap_or_default();
            let names: Vec<_> = holders.iter().map(name).collect();
            warn!(event = "took_over", "{server}: taking over from {}", names.join(", "));
            told = true;
        }
        end(line, &holders).await?;
        line.pause(PACE).await?;
    }
    Ok(())
}

async fn attempt(line: &mut Line<'_>) -> Result<bool, HandError> {
    if line.stance() == Stance::Locked {
        return Ok(true);
    }
    let rows = line.ask(TRY).await?;
    let taken = rows.first().and_then(|row| row.first()?.as_deref()) == Some("t");
    if taken {
        line.stands(Stance::Locked);
    }
    Ok(taken)
}

async fn end(line: &mut Line<'_>, holders: &[Row]) -> Result<(), HandError> {
    for pid in holders.iter().filter_map(|row| row.first()?.as_deref()?.parse::<i32>().ok()) {
        line.ask(&format!("SELECT pg_catalog.pg_terminate_backend({pid})")).await?;
    }
    Ok(())
}
