//! Having a commit confirmed, as the settings of the primary demand.
//!
//! A commit whose wait for its standbys was broken off succeeds as well, with a warning as the
//! only sign; so a proof counts only if it came without one, and before we broke it off.
//!
//! One that waited for nobody succeeds just the same. A server shows the names of its standbys
//! before any commit heeds them: none does until the checkpointer has told all processes, which it
//! does between two checkpoints, or while it paces one. So the proof is a wait that was seen, on a
//! second connection; and then another commit: what waited for nobody had been written by the time
//! of that wait, and who holds the later commit holds that as well.
//!
//! Source: `SyncRepWaitForLSN` and `SyncRepUpdateSyncStandbysDefined` in `replication/syncrep.c`,
//! `HandleCheckpointerInterrupts` in `postmaster/checkpointer.c` of PostgreSQL.

use crate::backend;
use crate::backend::{Login, ServerError, Target};
use crate::clock;
use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::hands::setting::first;
use crate::control::link::{Answer, Link, LinkError};
use crate::timer;
use std::time::Duration;

/// Whom commits are to wait for, by the settings.
const NAMES: &str = "SELECT pg_catalog.current_setting('synchronous_standby_names')";

/// A commit of its own. A message for nobody: it needs no table, and changes none.
const COMMIT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgsteer', 'proof')";

const WAIT_FOR_STANDBYS: &str = "SET synchronous_commit = 'on'";
const WAIT_FOR_DISK: &str = "SET synchronous_commit = 'local'";

/// What is kept of an act's time for breaking off a wait.
const BREAK_OFF: Duration = Duration::from_millis(250);

/// How many commits are made in one go, each time that none was seen to wait. Where standbys
/// confirm within a moment, a single one seldom waits in the very moment that it is looked at.
const GOES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// No further ones are begun after so long: twice as many may take twice as long.
const GOES_MAX: Duration = Duration::from_millis(250);

/// Has a commit confirmed.
pub(super) async fn prove(
    line: &mut Line<'_>,
    (target, login): (&Target, &Login),
) -> Result<(), HandError> {
    // Without names every commit is as good as is demanded.
    if first(&line.ask(NAMES).await?) != Some("") {
        see_one_wait(line, (target, login)).await?;
    }
    commit(line, target, 1).await
}

/// Makes commits until one was seen to wait for standbys, and was confirmed.
async fn see_one_wait(
    line: &mut Line<'_>,
    (target, login): (&Target, &Login),
) -> Result<(), HandError> {
    let within = line.left()?;
    let pid = line.pid()?;
    let mut watcher = Link::open_plain(target, login, within).await?;
    let watching = watch(&mut watcher, pid, within);
    tokio::pin!(watching);
    let began = clock::now();
    for count in GOES {
        if clock::now().since(began) > GOES_MAX {
            break;
        }
        let committing = commit(line, target, count);
        tokio::pin!(committing);
        tokio::select! {
            biased;
            seen = &mut watching => {
                // Given up, it would cost the connection.
                let committed = committing.await;
                seen?;
                return committed;
            }
            committed = &mut committing => committed?,
        }
    }
    Err(HandError::Unwaited)
}

/// Watches a session of ours until it waits for standbys.
async fn watch(watcher: &mut Link, pid: i32, within: Duration) -> Result<(), LinkError> {
    let looks = looks(pid);
    while watcher.ask_within(&looks, within).await?.is_empty() {}
    Ok(())
}

/// Many looks in one question, for a wait may be shorter than the way there and back. What a
/// session waits for is read anew with each, and may be seen by whoever is of its role.
fn looks(pid: i32) -> String {
    format!(
        "SELECT 1 FROM pg_catalog.generate_series(1, 100) AS g (look) \
         CROSS JOIN LATERAL pg_catalog.pg_stat_get_activity({pid} + 0 * g.look) AS a \
         WHERE a.wait_event = 'SyncRep' LIMIT 1"
    )
}

/// Makes so many commits, one after the other, and has each confirmed.
async fn commit(line: &mut Line<'_>, target: &Target, count: usize) -> Result<(), HandError> {
    let left = line.left()?;
    let patience = left.saturating_sub(BREAK_OFF).max(left / 2);
    let asked = line.begin()?;
    let (pid, key) = asked.cancel_key();
    let answers = {
        let mut questions = vec![COMMIT; count];
        questions.insert(0, WAIT_FOR_STANDBYS);
        questions.push(WAIT_FOR_DISK);
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
