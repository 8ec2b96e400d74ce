//! Fencing a live primary, undoing it, and making it a standby.

use super::*;
use pgsteer::control::hands::Ending;
use pgsteer::pg::Lsn;
use std::process::Command;

#[test]
fn a_fenced_primary_takes_no_writes_and_is_as_before_afterwards() {
    let grip = Grip::on(&Plan::new().setting("synchronous_standby_names", QUORUM));
    let server = grip.server(PRIMARY);
    let (mut idle, mut open) = (Writer::of(server), Writer::of(server));
    open.0.run("BEGIN; CREATE TABLE t ()");

    let mut fenced = None;
    quickly("it is fenced", Duration::from_secs(1), || {
        if fenced.is_some() {
            grip.done(|| grip.hands.unfence(PRIMARY));
        }
        let (done, took) = grip.time(|| grip.hands.fence(PRIMARY, &[]));
        fenced = Some(done);
        took
    });
    let fenced = fenced.unwrap();

    assert_eq!(fenced.foreign, 0);
    assert!(!idle.is_acknowledged() && !open.is_acknowledged(), "their sessions are over");
    assert!(Writer::of(server).is_withheld(), "a new one waits for nobody");
    let mut late = Writer::of(server);
    assert_eq!(late.0.query("CREATE TABLE t ()").code(), "25006", "or may only read");
    let (again, _) = grip.time(|| grip.hands.fence(PRIMARY, &[]));
    assert!(again.end >= fenced.end);

    // The standbys follow all along, and hold what was acknowledged.
    assert!(streams(grip.server(FIRST)));
    let held = |id| grip.server(id).value("SELECT pg_last_wal_receive_lsn()").unwrap();
    await_that("a standby holds all of it", || held(FIRST).parse::<Lsn>().unwrap() >= again.end);

    grip.done(|| grip.hands.unfence(PRIMARY));
    assert_eq!(server.value("SHOW synchronous_standby_names").unwrap(), QUORUM);
    assert_eq!(server.value("SHOW default_transaction_read_only").unwrap(), "off");
    assert!(Writer::of(server).is_acknowledged());
    grip.done(|| grip.hands.unfence(PRIMARY));
}

#[test]
fn our_own_sessions_are_spared_and_the_rest_is_counted() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let server = grip.server(PRIMARY);
    let (mut ours, _theirs, mut busy) =
        (Writer::of(server), Writer::of(server), Writer::of(server));
    busy.0.run("BEGIN; CREATE TABLE t ()");
    let own = [ours.0.pid];

    assert_eq!(grip.done(|| grip.hands.foreign(PRIMARY, &own)), 2);
    assert_eq!(grip.done(|| grip.hands.end_sessions(PRIMARY, Ending::Writers, &own)), 0);
    assert_eq!(grip.done(|| grip.hands.foreign(PRIMARY, &own)), 1, "the one that is idle");
    assert_eq!(grip.done(|| grip.hands.fence(PRIMARY, &own)).foreign, 0);
    assert_eq!(ours.0.value("SELECT 1"), "1");
}

#[test]
fn the_end_of_the_log_covers_what_was_acknowledged_without_a_flush() {
    let plan = Plan::new().standbys(1).setting("wal_writer_delay", "10s");
    let grip = Grip::on(&plan);
    let server = grip.server(PRIMARY);
    let mut sql = server.connect("postgres").unwrap();
    sql.rows("SET synchronous_commit = off; CREATE TABLE t ()").unwrap();
    let written: Lsn = sql.value("SELECT pg_current_wal_insert_lsn()").unwrap().parse().unwrap();

    let end = grip.done(|| grip.hands.position(PRIMARY));

    assert!(end >= written, "{end} {written}");
}

/// Planned, by SQL alone: fence, wait for the tail, freeze, promote, and the old primary follows.
#[test]
fn a_live_primary_restarts_as_a_standby_and_follows() {
    let grip = Grip::on(
        &Plan::new().setting("synchronous_standby_names", "ANY 1 (primary, standby1, standby2)"),
    );
    grip.server(PRIMARY).rows("CREATE TABLE t AS SELECT 1").unwrap();
    grip.done(|| grip.hands.checkpoint(PRIMARY));

    let fenced = grip.done(|| grip.hands.fence(PRIMARY, &[]));
    // It may be asked for again, also once it is one.
    await_that("it is a standby", || {
        let is_demoted = grip.wait(grip.hands.demote(PRIMARY, FIRST)).is_ok();
        is_demoted && grip.server(PRIMARY).is_standby().unwrap_or(false)
    });
    let end: Lsn =
        grip.server(PRIMARY).value("SELECT pg_last_wal_replay_lsn()").unwrap().parse().unwrap();
    assert!(end >= fenced.end, "{end} {fenced:?}");
    await_that("the successor holds all of it", || {
        let at = grip.server(FIRST).value("SELECT pg_last_wal_receive_lsn()").unwrap();
        at.parse::<Lsn>().unwrap() >= end
    });
    for standby in [FIRST, SECOND] {
        grip.done(|| grip.hands.freeze(standby));
    }
    grip.done(|| grip.hands.promote(FIRST));
    grip.lead(SECOND, FIRST);
    grip.lead(PRIMARY, FIRST);

    assert!(Writer::of(grip.server(FIRST)).is_acknowledged());
    grip.server(FIRST).rows("CREATE TABLE u ()").unwrap();
    let seen = "SELECT count(*) FROM pg_class WHERE relname = 'u'";
    grip.server(PRIMARY).await_value(seen, "1", "following").unwrap();
    let name = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'primary'";
    assert_eq!(grip.server(FIRST).value(name).unwrap(), "1", "under its own name");
    grip.wait(grip.hands.unfence(PRIMARY)).unwrap_err();
    // As a standby it carries no fence: the primary again one day, it would wait for nobody.
    let names = "SHOW synchronous_standby_names";
    let before = "ANY 1 (primary, standby1, standby2)";
    grip.server(PRIMARY).await_value(names, before, "without its fence").unwrap();
    let read_only = "SHOW default_transaction_read_only";
    grip.server(PRIMARY).await_value(read_only, "off", "without its fence").unwrap();
}

/// Its disk stalls in the middle of it; once that is over the server goes on where it was, and
/// nobody expects it any more.
#[test]
fn a_primary_that_goes_on_does_not_become_a_standby_at_its_next_start() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let server = grip.server(PRIMARY);
    let signal = server.data().join("standby.signal");
    // Whoever opens it to write waits for somebody who reads.
    let made = Command::new("mkfifo").args(["-m", "666"]).arg(&signal).status().unwrap();
    assert!(made.success());
    grip.done(|| grip.hands.fence(PRIMARY, &[]));
    let late = grip.wait(grip.hands.demote(PRIMARY, FIRST)).unwrap_err();
    assert!(matches!(late, HandError::Late(_)), "{late}");
    std::fs::read(&signal).unwrap();

    await_that("it goes on", || grip.wait(grip.hands.unfence(PRIMARY)).is_ok());

    assert!(Writer::of(server).is_acknowledged());
    assert!(!signal.exists(), "it will be a standby");
    server.restart().unwrap();
    assert!(!server.is_standby().unwrap());
}
