//! Cutting a standby off from its upstream, giving it back, and giving it another.
//!
//! A standby without `primary_conninfo` and `restore_command` receives nothing, from nobody, and
//! so acknowledges nothing for the old primary, reachable or not. Up to where it holds the log is
//! known once no walreceiver runs, and none can be started by a process that has not heard of the
//! change yet (`setting`).
//!
//! That "the position does not move any more" would prove nothing: a standby may be slow. What
//! was received is final when the walreceiver has ended. Before one was ever started, only
//! "nothing is left to apply" tells how much lies there; when one is started, all of that has
//! been applied, so from then on the greater of the two positions is the end.
//!
//! A standby that is given another upstream is waited for until it streams from there, which it may
//! never do. That waiting is given up when something else is to be done here, the change of the
//! setting never. So what comes next can't be undone by what was given up: the change had come into
//! effect everywhere before the waiting began; while waiting nothing is sent that would change it;
//! the waiting ends between two questions, each of which was answered; and whoever comes next gets
//! the connection, and with it the server's lock (`lock`), only then.
//!
//! Before PostgreSQL 14 `restore_command` is what it was at the start of the server. A standby that
//! has one there can't be cut off, and is left as it is.
//!
//! A walreceiver whose branch has ended at its upstream stays, and waits for the startup process
//! to tell it what to receive next; nothing ends it, and without `primary_conninfo` it is told
//! nothing. It has written and confirmed all that it received, and counts as none. One whose state
//! our user may not see counts as one that receives.
//!
//! A walreceiver is not shown among those that receive before it is connected. The startup process
//! ends it once it takes the change in, and may be given no processor time until then: so as long
//! as its process is there it counts. Once it was told to end it will not receive any more, and
//! counts as none: it may take long to find that an address is not to be had. Without `pg_monitor`,
//! by which alone this can be seen, nothing tells of it.
//!
//! Source: `WaitForWALToBecomeAvailable` in `access/transam/xlogrecovery.c`,
//! `RequestXLogStreaming` and `ShutdownWalRcv` in `replication/walreceiverfuncs.c`,
//! `pg_stat_get_wal_receiver` and `WalRcvWaitForStartPosition` in `replication/walreceiver.c` of
//! PostgreSQL.

use crate::auth::Secret;
use crate::clock;
use crate::control::hands::HandError;
use crate::control::hands::hand::Hand;
use crate::control::hands::line::Line;
use crate::control::hands::setting;
use crate::control::hands::setting::{Change, RELOAD};
use crate::control::hands::way::Way;
use crate::control::look::Row;
use crate::failover::{Frozen, Upstream};
use crate::pg::{Conninfo, Lsn, Timeline, Version};
use crate::timer;
use crate::topology::Role;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a standby is told of where its log comes from.
pub(super) const UPSTREAM: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('primary_conninfo'), \
     pg_catalog.current_setting('restore_command'), \
     pg_catalog.current_setting('primary_slot_name')";

/// How a standby that was cut off stands: first, how many walreceivers try to receive, then, so
/// that none slips through in between, how many do.
const STAND: &str = "SELECT (SELECT count(a.pid) FROM pg_catalog.pg_stat_activity AS a \
                             WHERE a.backend_type = 'walreceiver' \
                             AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver AS w \
                                             WHERE w.pid = a.pid AND w.status = 'waiting') \
                             AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity AS s \
                                             WHERE s.backend_type = 'startup' \
                                             AND s.wait_event = 'WalReceiverExit')) \
     + (SELECT count(w.pid) FROM pg_catalog.pg_stat_wal_receiver AS w \
        WHERE w.status IS DISTINCT FROM 'waiting'), \
     pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn(), \
     (SELECT a.wait_event FROM pg_catalog.pg_stat_activity AS a \
      WHERE a.backend_type = 'startup'), pg_catalog.pg_is_in_recovery()";

/// From whom a standby receives now, and whether it was sent anything.
///
/// A walreceiver says that it streams as soon as it is connected, before it has asked for that, and
/// may be refused it then: for its slot is not there, or the log that it needs. The times of its
/// first message are alike until there is one, and that follows at once, for a standby asks for
/// the log from the beginning of a file.
///
/// Source: `WalReceiverMain` in `replication/walreceiver.c`, `RequestXLogStreaming` in
/// `replication/walreceiverfuncs.c` of PostgreSQL.
const RECEIVES: &str = "SELECT w.status, w.sender_host, w.sender_port, w.received_tli, w.pid, \
         w.last_msg_send_time IS DISTINCT FROM w.last_msg_receipt_time \
     FROM pg_catalog.pg_stat_wal_receiver AS w WHERE w.pid IS NOT NULL";

/// What the startup process waits for when nothing that it could apply is left anywhere.
const NOTHING_LEFT: &str = "RecoveryRetrieveRetryInterval";

/// Between two questions how it stands.
const PACE: Duration = Duration::from_millis(2);

/// Between two wakings of a standby that does not stream yet: without one it would sleep for
/// `wal_retrieve_retry_interval`, 5 s by default, after each attempt that failed.
const NUDGE: Duration = Duration::from_millis(50);

/// Who is refused has ended by then: one that is still connected there after so long streams, also
/// if there was nothing to send it, as where the log ends with a file.
const SETTLED: Duration = Duration::from_secs(1);

/// What a standby is told now of where its log comes from.
pub(super) async fn upstream(line: &mut Line<'_>) -> Result<(Role, Upstream), HandError> {
    let rows = line.ask(UPSTREAM).await?;
    read_upstream(&rows).ok_or(HandError::Answer("settings"))
}

/// Whether a standby of this release can be cut off at all: asked before anything is noted or
/// changed.
pub(super) fn is_possible(version: Version, now: &Upstream) -> Result<(), HandError> {
    if version.reloads_restore_command() || now.restore_command.reveal().is_empty() {
        Ok(())
    } else {
        Err(HandError::Unfit("before PostgreSQL 14 its restore_command needs a restart to change"))
    }
}

/// Cuts a standby off; what undoes it must be durable by now.
pub(super) async fn freeze(line: &mut Line<'_>, now: &Upstream) -> Result<Frozen, HandError> {
    let connected = now.conninfo.as_ref().is_none_or(|conninfo| !conninfo.reveal().is_empty());
    let restores = !now.restore_command.reveal().is_empty();
    let mut changes: Vec<Change<'_>> = Vec::new();
    // First, so that nothing is done by halves where we may not change it.
    if restores {
        changes.push(("restore_command", Some("")));
    }
    if connected {
        changes.push(("primary_conninfo", Some("")));
    }
    if changes.is_empty() {
        setting::everywhere(line).await?;
    } else {
        setting::set(line, &changes).await?;
    }
    let way = Way::open(line).await?;
    let at = end_of_log(line, way).await?;
    let look = line.look().await?;
    if look.role == Role::Primary {
        return Err(HandError::IsA(Role::Primary));
    }
    let timeline = look.timeline.ok_or(HandError::NoEnd)?;
    Ok(Frozen { at, timeline })
}

/// Waits until nothing comes in any more, and tells up to where the log goes. The last bytes may
/// be the beginning of a record that never arrived; so compared, who has more bytes has all the
/// records of who has fewer.
async fn end_of_log(line: &mut Line<'_>, mut way: Way) -> Result<Lsn, HandError> {
    loop {
        let rows = line.ask(STAND).await?;
        let stand = read_stand(&rows).ok_or(HandError::Answer("stand"))?;
        if stand.role == Role::Primary {
            return Err(HandError::IsA(Role::Primary));
        }
        if let Some(at) = stand.end {
            return Ok(at);
        }
        way.clear(line).await?;
        if line.pause(PACE).await.is_err() {
            return Err(if stand.receives { line.late() } else { HandError::NoEnd });
        }
    }
}

/// Gives a standby its upstream of before back.
pub(super) async fn unfreeze(line: &mut Line<'_>, before: &Upstream) -> Result<(), HandError> {
    let conninfo = before.conninfo.as_ref();
    let conninfo = conninfo.ok_or(HandError::NothingNoted("primary_conninfo"))?;
    let changes = [
        ("primary_conninfo", Some(conninfo.reveal())),
        ("restore_command", Some(before.restore_command.reveal())),
    ];
    let (_, now) = upstream(line).await?;
    let restores = now.restore_command != before.restore_command;
    setting::set(line, changes.get(..if restores { 2 } else { 1 }).unwrap_or(&changes)).await
}

/// Whom a standby is to follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead<'l> {
    pub(super) host: &'l str,
    pub(super) port: u16,
    /// Its branch. One that left the standby's own behind the standby's position streams the
    /// common part as well, and is never followed on.
    pub(super) timeline: Timeline,
}

/// Makes a standby follow another server. See [`await_stream`].
///
/// `restore_command` stays as it is: while a standby is between two branches, an archive may hold
/// more of the old one than the new one has. See [`restore_archive`].
pub(super) async fn repoint(
    line: &mut Line<'_>,
    before: &Upstream,
    lead: &Lead<'_>,
) -> Result<(), HandError> {
    let (role, now) = upstream(line).await?;
    if role == Role::Primary {
        return Err(HandError::IsA(Role::Primary));
    }
    let conninfo = before.conninfo.as_ref();
    let conninfo = conninfo.ok_or(HandError::NothingNoted("primary_conninfo"));
    let noted = |text: &Secret| Conninfo::parse(text.reveal()).map_err(HandError::Conninfo);
    // What it is set to now may be newer than what was noted: a changed password, say.
    let own = now.read().map_or_else(|| conninfo.and_then(noted), Ok)?;
    let wanted = own.to_server(lead.host, lead.port);
    if now.read().as_ref() != Some(&wanted) {
        let text = wanted.text();
        setting::set(line, &[("primary_conninfo", Some(&text))]).await?;
    }
    Ok(())
}

/// Waits until a standby streams from the server that it follows now, the branch on which that one
/// is. Given up as soon as `elsewhere` is set: something else is to be done with the standby.
pub(super) async fn await_stream(
    line: &mut Line<'_>,
    (to, lead): (&Hand, Lead<'_>),
    elsewhere: &CancellationToken,
) -> Result<(), HandError> {
    let mut seen = trouble(&[]);
    match stream(line, (to, lead), elsewhere, &mut seen).await {
        Err(HandError::Late(_)) if seen == OUTSIDE => Err(shut_out(to, elsewhere).await),
        Err(HandError::Late(_)) => Err(HandError::NoStream(seen)),
        done => done,
    }
}

/// Why a walreceiver gets no connection there, as far as that can be seen from here.
async fn shut_out(to: &Hand, elsewhere: &CancellationToken) -> HandError {
    let full = tokio::select! {
        () = elsewhere.cancelled() => return HandError::GaveWay,
        full = timer::timeout(FULL_MAX, to.full()) => full,
    };
    match full {
        Ok(Ok(Some(places))) => HandError::NoPlace(places),
        Ok(Ok(None)) => HandError::NoStream(OUTSIDE_WITH_PLACE),
        Ok(Err(_)) | Err(_) => HandError::NoStream(OUTSIDE),
    }
}

/// Longest to ask whether there is a place.
const FULL_MAX: Duration = Duration::from_secs(1);

/// What may keep a walreceiver from its connection.
const OUTSIDE: &str = "its walreceiver gets no connection, or loses it at once; its log tells \
                       whether that is by pg_hba.conf or max_wal_senders of the other server, the \
                       password in its primary_conninfo, the network, or that the other server \
                       has no more of the log that it needs";
const OUTSIDE_WITH_PLACE: &str = "its walreceiver gets no connection, or loses it at once; its log \
                                  tells whether that is by pg_hba.conf of the other server, the \
                                  password in its primary_conninfo, the network, or that the \
                                  other server has no more of the log that it needs";

/// What the row of its walreceiver says of one that does not stream from where it should.
///
/// There is none while it connects, and where nobody lets it in, or what it asks for is gone: it
/// ends then, and the next one is begun.
///
/// Source: `pg_stat_get_wal_receiver` in `replication/walreceiver.c` of PostgreSQL.
fn trouble(rows: &[Row]) -> &'static str {
    let Some(row) = rows.first() else {
        return OUTSIDE;
    };
    match row.first().and_then(Option::as_deref) {
        Some("streaming") => "it streams something else, or from elsewhere",
        Some(_) | None => "its walreceiver waits; its log tells for what",
    }
}

async fn stream(
    line: &mut Line<'_>,
    (to, mut lead): (&Hand, Lead<'_>),
    elsewhere: &CancellationToken,
    seen: &mut &'static str,
) -> Result<(), HandError> {
    let mut nudged = clock::now();
    let mut connected = (Row::new(), nudged);
    loop {
        if elsewhere.is_cancelled() {
            return Err(HandError::GaveWay);
        }
        let now = clock::now();
        let due = now.since(nudged) >= NUDGE;
        let rows = line.ask(RECEIVES).await?;
        *seen = trouble(&rows);
        if link_of(&rows) != connected.0 {
            connected = (link_of(&rows).to_vec(), now);
        }
        match receives(&rows, &lead, now.since(connected.1)) {
            Receives::Something => return Ok(()),
            // It may have been promoted meanwhile.
            Receives::Branch(received) if received == lead.timeline || due => {
                let now = branch_of(to, elsewhere).await?;
                lead.timeline = now.unwrap_or(lead.timeline);
                if received == lead.timeline {
                    return Ok(());
                }
            }
            Receives::Branch(_) | Receives::Nothing => {}
        }
        if due {
            line.ask(RELOAD).await?;
            nudged = clock::now();
        }
        line.pause(PACE).await?;
    }
}

/// On which branch that server is now, if it says so. Nothing is asked of the standby meanwhile.
async fn branch_of(
    to: &Hand,
    elsewhere: &CancellationToken,
) -> Result<Option<Timeline>, HandError> {
    tokio::select! {
        () = elsewhere.cancelled() => Err(HandError::GaveWay),
        timeline = to.lead("") => Ok(timeline.ok().flatten()),
    }
}

/// Gives a server that was promoted its `primary_conninfo` of before back. To a primary it means
/// nothing, and it holds the server's name, which a command beside us finds nowhere else.
pub(super) async fn restore_link(line: &mut Line<'_>, conninfo: &Secret) -> Result<(), HandError> {
    let (role, now) = upstream(line).await?;
    let emptied = now.conninfo.is_some_and(|now| now.reveal().is_empty());
    if role == Role::Standby || !emptied {
        return Ok(());
    }
    setting::set(line, &[("primary_conninfo", Some(conninfo.reveal()))]).await
}

/// Gives a standby that follows its new upstream the archive of before back.
pub(super) async fn restore_archive(
    line: &mut Line<'_>,
    before: &Upstream,
) -> Result<(), HandError> {
    setting::set(line, &[("restore_command", Some(before.restore_command.reveal()))]).await
}

/// How a standby that was cut off stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stand {
    role: Role,
    receives: bool,
    /// Up to where it holds the log, if that is certain.
    end: Option<Lsn>,
}

fn read_stand(rows: &[Row]) -> Option<Stand> {
    let row = rows.first()?;
    let text = |column: usize| row.get(column)?.as_deref();
    let lsn = |column: usize| text(column)?.parse::<Lsn>().ok().filter(|lsn| lsn.is_valid());
    let receiving = text(0)? != "0";
    let (received, replayed) = (lsn(1), lsn(2).unwrap_or_default());
    let known = received.is_some() || text(3) == Some(NOTHING_LEFT);
    let end = (!receiving && known).then(|| received.unwrap_or_default().max(replayed));
    Some(Stand { role: role(text(4)?), receives: receiving, end })
}

fn read_upstream(rows: &[Row]) -> Option<(Role, Upstream)> {
    let row = rows.first()?;
    let text = |column: usize| row.get(column)?.as_deref();
    let upstream = Upstream {
        conninfo: Some(Secret::new(text(1)?.to_owned())),
        restore_command: Secret::new(text(2)?.to_owned()),
        slot: text(3)?.into(),
    };
    Some((role(text(0)?), upstream))
}

fn role(in_recovery: &str) -> Role {
    if in_recovery == "t" { Role::Standby } else { Role::Primary }
}

/// What a standby receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receives {
    /// Nothing from there.
    Nothing,
    /// This branch from there.
    Branch(Timeline),
    /// Something that our user can't see.
    Something,
}

/// Which process it is, and where it is connected: not yet anywhere, as long as it tries.
fn link_of(rows: &[Row]) -> &[Option<String>] {
    rows.first().and_then(|row| row.get(..5)).unwrap_or_default()
}

/// What this row says of a walreceiver that has been connected there for so long.
fn receives(rows: &[Row], lead: &Lead<'_>, age: Duration) -> Receives {
    let Some(row) = rows.first() else { return Receives::Nothing };
    let text = |column: usize| row.get(column).and_then(Option::as_deref);
    let number = |column: usize| text(column)?.parse::<u32>().ok();
    let Some(status) = text(0) else { return Receives::Something };
    let there = text(1) == Some(lead.host) && number(2) == Some(lead.port.into());
    let is_let_in = text(5) == Some("t") || age >= SETTLED;
    match number(3) {
        Some(timeline) if status == "streaming" && there && is_let_in => {
            Receives::Branch(Timeline(timeline))
        }
        Some(_) | None => Receives::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_connected_and_was_sent_nothing_does_not_stream_yet() {
        let lead = Lead { host: "db2", port: 5433, timeline: Timeline(3) };
        let row = |row: [&str; 6]| -> [Row; 1] {
            [row.iter().map(|text| (*text != "-").then(|| (*text).to_owned())).collect()]
        };
        let (young, old) = (Duration::from_millis(2), SETTLED);
        let streams = Receives::Branch(Timeline(3));
        for (row, age, expected) in [
            (row(["streaming", "db2", "5433", "3", "9", "t"]), young, streams),
            (row(["streaming", "db2", "5433", "3", "9", "f"]), young, Receives::Nothing),
            (row(["streaming", "db2", "5433", "3", "9", "f"]), old, streams),
            (row(["waiting", "db2", "5433", "3", "9", "t"]), old, Receives::Nothing),
            (row(["streaming", "db1", "5433", "3", "9", "t"]), old, Receives::Nothing),
            (row(["-", "-", "-", "-", "9", "-"]), young, Receives::Something),
        ] {
            assert_eq!(receives(&row, &lead, age), expected, "{row:?} {age:?}");
        }
        let link = |row: [Row; 1]| link_of(&row).to_vec();
        let there = link(row(["streaming", "db2", "5433", "3", "9", "f"]));
        assert_eq!(there, link(row(["streaming", "db2", "5433", "3", "9", "t"])));
        for other in [
            row(["streaming", "-", "-", "3", "9", "f"]),
            row(["streaming", "db2", "5433", "3", "8", "f"]),
        ] {
            assert_ne!(there, link(other), "it is connected only now");
        }
        assert_eq!(receives(&[], &lead, old), Receives::Nothing);
    }

    #[test]
    fn the_end_is_certain_or_not_told() {
        let stand = |row: [&str; 5]| {
            let row = row.iter().map(|text| (*text != "-").then(|| (*text).to_owned())).collect();
            read_stand(&[row]).unwrap().end.map(|lsn| lsn.to_string())
        };
        let slept = NOTHING_LEFT;
        let cases = [
            ("it still receives", ["1", "0/5000100", "0/5000000", slept, "t"], None),
            (
                "more received than applied",
                ["0", "0/5000100", "0/5000000", "-", "t"],
                Some("0/5000100"),
            ),
            (
                "received starts at a segment",
                ["0", "0/5000000", "0/5000200", slept, "t"],
                Some("0/5000200"),
            ),
            ("restarted, and applies", ["0", "-", "0/5000000", "-", "t"], None),
            ("restarted, and has applied", ["0", "-", "0/5000000", slept, "t"], Some("0/5000000")),
        ];
        for (name, row, expected) in cases {
            assert_eq!(stand(row).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn whom_it_follows_is_told_by_address_and_branch() {
        let lead = Lead { host: "a", port: 5, timeline: Timeline(2) };
        let rows = |row: &[&str]| {
            vec![row.iter().map(|text| (*text != "-").then(|| (*text).to_owned())).collect::<Row>()]
        };
        let received = |row: [&str; 4]| receives(&rows(&row), &lead, SETTLED);
        assert_eq!(received(["streaming", "a", "5", "2"]), Receives::Branch(Timeline(2)));
        assert_eq!(received(["streaming", "a", "5", "1"]), Receives::Branch(Timeline(1)));
        for row in
            [["waiting", "a", "5", "2"], ["streaming", "b", "5", "2"], ["streaming", "a", "6", "2"]]
        {
            assert_eq!(received(row), Receives::Nothing, "{row:?}");
        }
        assert_eq!(received(["-"; 4]), Receives::Something, "what can't be seen");
        assert_eq!(receives(&[], &lead, SETTLED), Receives::Nothing);
    }
}
