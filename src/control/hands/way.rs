//! What stands in the way of a standby's replay while it is to be frozen or promoted.
//!
//! Only the startup process ends a walreceiver, and only between two records; and a promotion
//! replays whatever was received first. So a replay that was paused, or that waits for a query
//! which it conflicts with (for `max_standby_streaming_delay`, 30 s by default or for ever), keeps
//! the standby receiving, and acknowledging, all the while. A paused replay is resumed; sessions
//! that it waits for are ended, one after the other, oldest snapshot first. Readers through
//! pgsteer are served elsewhere then.
//!
//! Source: `recoveryPausesHere` and `WaitForWALToBecomeAvailable` in
//! `access/transam/xlogrecovery.c`, `ResolveRecoveryConflictWithSnapshot` in
//! `storage/ipc/standby.c` of PostgreSQL.

use crate::clock;
use crate::clock::Moment;
use crate::control::hands::HandError;
use crate::control::hands::line::Line;
use crate::control::hands::setting::{RELOAD, first};
use crate::control::look::Row;
use std::time::Duration;
use tracing::warn;

const PAUSED: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
     THEN pg_catalog.pg_is_wal_replay_paused() END";

const RESUME: &str = "SELECT pg_catalog.pg_wal_replay_resume()";

/// The session that replay waits for: the holder of a lock, or the one with the oldest snapshot.
const OBSTACLE: &str = "WITH startup AS MATERIALIZED ( \
         SELECT a.pid, a.wait_event_type, a.wait_event FROM pg_catalog.pg_stat_activity AS a \
         WHERE a.backend_type = 'startup') \
     SELECT c.pid, s.wait_event FROM startup AS s, pg_catalog.pg_stat_activity AS c \
     WHERE c.backend_type = 'client backend' AND c.pid <> pg_catalog.pg_backend_pid() \
     AND NOT (c.usename = CURRENT_USER \
              AND c.application_name ~ '^pgsteer (control|watch|visit)') \
     AND CASE WHEN s.wait_event_type = 'Lock' THEN EXISTS ( \
             SELECT FROM pg_catalog.pg_locks AS wanted JOIN pg_catalog.pg_locks AS held \
                 ON held.database = wanted.database AND held.relation = wanted.relation \
             WHERE wanted.pid = s.pid AND NOT wanted.granted \
             AND held.pid = c.pid AND held.granted) \
         WHEN s.wait_event_type = 'BufferPin' OR s.wait_event LIKE 'RecoveryConflict%' \
         THEN c.backend_xmin IS NOT NULL ELSE false END \
     ORDER BY pg_catalog.age(c.backend_xmin) DESC NULLS LAST, c.query_start LIMIT 1";

/// How long a conflict is left to itself: most are over in no time.
const PATIENCE: Duration = Duration::from_millis(50);

/// Between two sessions that are ended.
const PACE: Duration = Duration::from_millis(10);

/// Sees to it that replay goes on.
#[derive(Debug)]
pub(super) struct Way {
    /// When it is looked at again.
    due: Moment,
}

impl Way {
    /// Resumes a replay that was paused; what else is in the way is looked at by and by.
    pub(super) async fn open(line: &mut Line<'_>) -> Result<Self, HandError> {
        if first(&line.ask(PAUSED).await?) == Some("t") {
            warn!(
                event = "resumed",
                "replay was paused, and is resumed: it keeps from failing over"
            );
            // Before PostgreSQL 14 a paused replay sleeps for a second at a time; a signal wakes
            // it.
            line.all(&[RESUME, RELOAD]).await?;
        }
        Ok(Self { due: clock::now() + PATIENCE })
    }

    /// Ends a session that replay waits for, if it has waited for long enough.
    pub(super) async fn clear(&mut self, line: &mut Line<'_>) -> Result<(), HandError> {
        if clock::now() < self.due {
            return Ok(());
        }
        self.due = clock::now() + PACE;
        let rows = line.ask(OBSTACLE).await?;
        let text = |row: &Row, column: usize| row.get(column).cloned().flatten();
        let Some((pid, why)) = rows.first().and_then(|row| text(row, 0).zip(text(row, 1))) else {
            return Ok(());
        };
        let Ok(pid) = pid.parse::<i32>() else { return Err(HandError::Answer("obstacle")) };
        warn!(event = "ended_session", pid, "replay waits for a session ({why}), which is ended");
        line.ask(&format!("SELECT pg_catalog.pg_terminate_backend({pid})")).await?;
        Ok(())
    }
}
