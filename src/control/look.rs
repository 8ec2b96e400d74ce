//! The questions that a look asks, and how their answers are read. Functions of text; the
//! asking is done in `link`.
//!
//! A standby's timeline and its replay position must belong together (a bare position of the
//! wrong branch would certify a lost write as readable). Where the control user may use the
//! replication protocol, `IDENTIFY_SYSTEM` frames the question on the same connection. Else
//! `pg_monitor` shows the walreceiver's timeline, which counts only while no newer history file
//! lies in `pg_wal`. Else the timeline is not known, and the standby serves no reads.

use crate::clock::Moment;
use crate::pg::Lsn;
use crate::pg::SystemId;
use crate::pg::Timeline;
use crate::pg::Version;
use crate::pg::WalLayout;
use crate::topology::History;
use crate::topology::Role;
use std::sync::Arc;
use std::time::Duration;

/// One row of an answer, as text.
pub(crate) type Row = Vec<Option<String>>;

/// What does not change while a connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whose log the server holds.
    pub system: SystemId,
    /// Its release.
    pub version: Version,
    /// Where page headers lie in its log.
    pub layout: WalLayout,
    /// Whether our role may see the statistics of others and list the log.
    pub statistics: Statistics,
}

/// What our role may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// It is a member of `pg_monitor`, or a superuser.
    Visible,
    /// It is neither.
    Hidden,
}

/// One look at a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// When the question was sent.
    pub sent_at: Moment,
    /// In recovery or not.
    pub role: Role,
    /// On which branch; `None` where our role can't see it.
    pub timeline: Option<Timeline>,
    /// A primary: where the next record goes, normalised.
    pub insert: Option<Lsn>,
    /// Where its log was flushed (primary) or replayed (standby) to.
    pub lsn: Lsn,
    /// A standby: where it has received the log to.
    pub received: Option<Lsn>,
    /// A standby: whether a walreceiver streams now.
    pub streaming: Option<bool>,
    /// A standby that streams: the age of the last message, by its own clock.
    pub heard: Option<Duration>,
    /// A standby that streams: up to where it has written what comes in.
    pub written: Option<Lsn>,
    /// A standby: the host and port of the server it follows.
    pub upstream: Option<(Arc<str>, u16)>,
    /// The history of its timeline, where that is known and it could be read.
    pub history: Option<History>,
}

/// What a session of ours is set to, whatever the role's defaults are: nothing of a user's may be
/// run, no question may hang, a kick waits for the local disk only, and is possible on a primary
/// that was fenced.
pub(crate) const SETTINGS: &str = "SET search_path = pg_catalog, pg_temp; SET statement_timeout = '5s'; \
     SET lock_timeout = '1s'; SET idle_in_transaction_session_timeout = '5s'; \
     SET default_transaction_isolation = 'read committed'; SET synchronous_commit = 'local'; \
     SET default_transaction_read_only = off; SET DateStyle = 'ISO'; SET client_min_messages = 'warning'";

/// Asks for [`Facts`].
pub(crate) const FACTS: &str = "SELECT s.system_identifier, \
     pg_catalog.current_setting('server_version_num'), \
     (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_block_size'), \
     (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'), \
     pg_catalog.pg_has_role(CURRENT_USER, 'pg_read_all_stats', 'USAGE') \
     AND pg_catalog.has_function_privilege('pg_catalog.pg_ls_waldir()', 'EXECUTE') \
     FROM pg_catalog.pg_control_system() AS s";

/// Asks a server of either role for everything. Columns are evaluated in order, and recovery
/// ends but never begins while a connection lives: equal first and last columns frame the rest.
pub(crate) const LOOK: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
          THEN pg_catalog.pg_current_wal_insert_lsn() END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
          ELSE pg_catalog.pg_current_wal_flush_lsn() END, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn() END, \
     CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_walfile_name(\
          pg_catalog.pg_current_wal_insert_lsn()) END, \
     CASE WHEN w.pid IS NULL THEN false ELSE w.status = 'streaming' END, \
     w.sender_host, w.sender_port, w.received_tli, \
     pg_catalog.pg_is_in_recovery(), \
     (extract(epoch FROM pg_catalog.clock_timestamp() - w.last_msg_receipt_time) * 1000)::bigint, \
     w.written_lsn \
     FROM (SELECT 1) AS one LEFT JOIN pg_catalog.pg_stat_wal_receiver AS w ON true";

/// Asks a standby, where `pg_monitor` allows it, for the timeline that its control file knows
/// and for the newest timeline of which a history file lies in `pg_wal`.
pub(crate) const TIMELINES: &str = "SELECT greatest(c.timeline_id, r.min_recovery_end_timeline), \
     (SELECT max(substr(name, 1, 8)) FROM pg_catalog.pg_ls_waldir() \
      WHERE name ~ '^[0-9A-F]{8}\\.history$') \
     FROM pg_catalog.pg_control_checkpoint() AS c, pg_catalog.pg_control_recovery() AS r";

/// Asks a primary for its insert and flush positions.
pub(crate) const PRIMARY_SAMPLE: &str = "SELECT pg_catalog.pg_current_wal_insert_lsn(), \
     pg_catalog.pg_current_wal_flush_lsn()";

/// Asks a standby for its replay position.
pub(crate) const STANDBY_SAMPLE: &str =
    "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn()";

/// Makes a primary write its log out to disk, up to where it is now.
pub(crate) fn kick(version: Version) -> &'static str {
    /// The release whose `pg_logical_emit_message` can flush.
    const FLUSHES: u32 = 17;
    if version.major() >= FLUSHES {
        "SELECT pg_catalog.pg_logical_emit_message(false, 'pgsteer', '', true)"
    } else {
        // A transaction of its own, whose commit is flushed (`SETTINGS`).
        "SELECT pg_catalog.pg_logical_emit_message(true, 'pgsteer', '')"
    }
}

/// Asks for the history file of a timeline, without the replication protocol.
pub(crate) fn history_file(timeline: Timeline) -> String {
    format!("SELECT pg_catalog.pg_read_file('pg_wal/{:08X}.history')", timeline.0)
}

/// Reads the answer to [`FACTS`].
pub(crate) fn read_facts(rows: &[Row]) -> Option<Facts> {
    let row = rows.first()?;
    Some(Facts {
        system: SystemId(number(row, 0)?),
        version: Version(number(row, 1)?),
        layout: WalLayout { block_size: number(row, 2)?, segment_size: number(row, 3)? },
        statistics: if flag(row, 4)? { Statistics::Visible } else { Statistics::Hidden },
    })
}

/// Reads the answer to [`LOOK`], all but the history; a standby's timeline is the walreceiver's.
pub(crate) fn read_look(rows: &[Row], sent_at: Moment, layout: WalLayout) -> Option<Look> {
    let row = rows.first()?;
    let recovering = flag(row, 0)?;
    if flag(row, 9)? != recovering {
        return None;
    }
    let host: Option<Arc<str>> = text(row, 6).map(Arc::from);
    let received = lsn(row, 3).filter(|lsn| lsn.is_valid());
    Some(Look {
        sent_at,
        role: if recovering { Role::Standby } else { Role::Primary },
        timeline: if recovering { number(row, 8).map(Timeline) } else { Some(of_file(row, 4)?) },
        insert: lsn(row, 1).map(|insert| insert.normalised(layout)),
        // A standby that has replayed nothing since it started says NULL.
        lsn: if recovering { lsn(row, 2).unwrap_or_default() } else { lsn(row, 2)? },
        received,
        streaming: if recovering { flag(row, 5) } else { None },
        // By two readings of one clock; what came a moment after the first is new.
        heard: number::<i64>(row, 10)
            .map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
        written: lsn(row, 11),
        upstream: host.zip(number(row, 7)),
        history: None,
    })
}

/// Reads the answer to [`TIMELINES`]: the timeline of a standby whose walreceiver says
/// `receiving`, if that can be relied on.
pub(crate) fn read_timelines(rows: &[Row], receiving: Option<Timeline>) -> Option<Timeline> {
    let row = rows.first()?;
    let timeline = receiving.max(number(row, 0).map(Timeline))?;
    let newest = match text(row, 1) {
        Some(digits) => Timeline(u32::from_str_radix(digits, 16).ok()?),
        None => Timeline(1),
    };
    (newest <= timeline).then_some(timeline)
}

/// Reads the answer to `IDENTIFY_SYSTEM`.
pub(crate) fn read_identity(rows: &[Row]) -> Option<(SystemId, Timeline)> {
    let row = rows.first()?;
    Some((SystemId(number(row, 0)?), Timeline(number(row, 1)?)))
}

/// Reads the answer to [`PRIMARY_SAMPLE`]: insert (normalised) and flush position.
pub(crate) fn read_primary_sample(rows: &[Row], layout: WalLayout) -> Option<(Lsn, Lsn)> {
    let row = rows.first()?;
    Some((lsn(row, 0)?.normalised(layout), lsn(row, 1)?))
}

/// Reads the answer to [`STANDBY_SAMPLE`]; `None` if it is no standby any more.
pub(crate) fn read_standby_sample(rows: &[Row]) -> Option<Lsn> {
    let row = rows.first()?;
    if flag(row, 0)? { lsn(row, 1) } else { None }
}

/// Reads a history out of the answer to `TIMELINE_HISTORY` (name, content) or to
/// [`history_file`] (content): the last column.
pub(crate) fn read_history(rows: &[Row], timeline: Timeline) -> Option<History> {
    let content = rows.first()?.last()?.as_deref()?;
    let history = History::parse(timeline, content)?;
    let rising = history.forks().is_sorted_by(|a, b| a.timeline < b.timeline && a.at <= b.at);
    let below = history.forks().last().is_some_and(|fork| fork.timeline < timeline);
    (rising && below).then_some(history)
}

fn text(row: &Row, column: usize) -> Option<&str> {
    row.get(column)?.as_deref()
}

fn number<T: std::str::FromStr>(row: &Row, column: usize) -> Option<T> {
    text(row, column)?.parse().ok()
}

fn flag(row: &Row, column: usize) -> Option<bool> {
    match text(row, column)? {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

fn lsn(row: &Row, column: usize) -> Option<Lsn> {
    number(row, column)
}

/// The timeline in the name of a segment's file.
fn of_file(row: &Row, column: usize) -> Option<Timeline> {
    let digits = text(row, column)?.get(..8)?;
    u32::from_str_radix(digits, 16).ok().map(Timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: &[&str]) -> Vec<Row> {
        vec![columns.iter().map(|c| (*c != "-").then(|| (*c).to_owned())).collect()]
    }

    fn look(columns: &[&str]) -> Option<Look> {
        read_look(&rows(columns), Moment::from_nanos(5), WalLayout::default())
    }

    #[test]
    fn names_are_looked_for_where_nobody_can_put_any_before_anything_is_asked() {
        let first = format!("SET search_path = {};", crate::pg::SEARCH_PATH);
        assert!(SETTINGS.starts_with(&first), "{SETTINGS}");
    }

    #[test]
    fn a_primary_and_a_standby_are_read() {
        let primary = look(&[
            "f",
            "0/5000028",
            "0/5000000",
            "-",
            "000000020000000000000005",
            "f",
            "-",
            "-",
            "-",
            "f",
            "-",
        ]);
        let primary = primary.unwrap();
        assert_eq!((primary.role, primary.timeline), (Role::Primary, Some(Timeline(2))));
        assert_eq!(primary.insert, Some(primary.lsn), "an empty page header is no write");

        let standby = look(&[
            "t",
            "-",
            "0/5000000",
            "0/5000060",
            "-",
            "t",
            "db1",
            "5432",
            "2",
            "t",
            "7",
            "0/40",
        ]);
        let standby = standby.unwrap();
        assert_eq!(standby.written, Some(Lsn(0x40)));
        assert_eq!((standby.role, standby.timeline), (Role::Standby, Some(Timeline(2))));
        assert_eq!(standby.received, Some(Lsn(0x500_0060)));
        assert_eq!(standby.streaming, Some(true));
        assert_eq!(standby.heard, Some(Duration::from_millis(7)));
        assert_eq!(standby.upstream, Some((Arc::from("db1"), 5432)));
    }

    #[test]
    fn what_can_not_be_seen_is_not_made_up() {
        let hidden = look(&["t", "-", "0/5000000", "-", "-", "-", "-", "-", "-", "t"]).unwrap();
        assert_eq!((hidden.streaming, hidden.timeline, hidden.upstream), (None, None, None));
        let absent = look(&["t", "-", "-", "-", "-", "f", "-", "-", "-", "t"]).unwrap();
        assert_eq!((absent.streaming, absent.lsn), (Some(false), Lsn(0)));
    }

    #[test]
    fn a_promotion_in_the_middle_of_a_look_spoils_it() {
        assert_eq!(look(&["t", "-", "0/1", "-", "-", "f", "-", "-", "-", "f"]), None);
    }

    #[test]
    fn a_timeline_counts_only_while_no_newer_history_is_about() {
        let cases = [
            (["1", "-"], Some(1), Some(1)),
            (["1", "00000002"], Some(2), Some(2)),
            (["1", "00000002"], Some(1), None),
            (["2", "00000002"], None, Some(2)),
            (["1", "00000002"], None, None),
            (["-", "-"], None, None),
        ];
        for (answer, receiving, expected) in cases {
            let read = read_timelines(&rows(&answer), receiving.map(Timeline));
            assert_eq!(read, expected.map(Timeline), "{answer:?} {receiving:?}");
        }
    }

    #[test]
    fn a_history_that_does_not_rise_to_its_timeline_is_none() {
        let read = |content: &str| read_history(&rows(&["name", content]), Timeline(3));
        assert!(read("1\t0/100\tx\n2\t0/200\tx\n").is_some());
        assert_eq!(read("1\t0/300\tx\n2\t0/200\tx\n"), None);
        assert_eq!(read("3\t0/300\tx\n"), None);
        assert_eq!(read(""), None, "only timeline 1 has no parent");
    }
}
