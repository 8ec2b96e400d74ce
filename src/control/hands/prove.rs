//! Having a commit confirmed, as the settings of the primary demand.
//!
//! A commit whose wait for its standbys was broken off succeeds as well, with a warning as the
//! only sign; so a proof counts only if it came without one, and before we broke it off.
//!
//! Source: `SyncRepWaitForLSN` in `replication/syncrep.c` of PostgreSQL.

use crate::backend;
use crate::backend::{ServerError, Target};
use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::link::{Answer, LinkError};
use crate::timer;
use std::time::Duration;

/// A commit of its own. A message for nobody: it needs no table, and changes none.
const COMMIT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgsteer', 'proof')";

const WAIT_FOR_STANDBYS: &str = "SET synchronous_commit = 'on'";
const WAIT_FOR_DISK: &str = "SET synchronous_commit = 'local'";

/// What is kept of an act's time for breaking off a wait.
const BREAK_OFF: Duration = Duration::from_millis(250);

/// Has a commit confirmed.
pub(super) async fn prove(line: &mut Line<'_>, target: &Target) -> Result<(), HandError> {
    let left = line.left()?;
    let patience = left.saturating_sub(BREAK_OFF).max(left / 2);
    let asked = line.begin()?;
    let (pid, key) = asked.cancel_key();
    let answers = {
        let questions = [WAIT_FOR_STANDBYS, COMMIT, WAIT_FOR_DISK];
        let asking = asked.each_within(&questions, left + BREAK_OFF);
        tokio::pin!(asking);
        if let Ok(answers) = timer::timeout(patience, &mut asking).await {
            answers.map(confirmed)
        } else {
            // The commit is done, and is only waited for: this ends the wait, not the commit.
            match backend::cancel(target, pid, &key, BREAK_OFF).await {
                Ok(()) => asking.await.map(|_| Err(HandError::Unconfirmed)),
                Err(_) => Err(LinkError::Silent(left)),
            }
        }
    };
    line.end(answers)?
}

fn confirmed(answers: Vec<Result<Answer, ServerError>>) -> Result<(), HandError> {
    for answer in answers {
        if answer.map_err(HandError::Refused)?.warned {
            return Err(HandError::Unconfirmed);
        }
    }
    Ok(())
}
