//! Freezing: what it stops, up to where a standby then is, and how it is undone.

use super::*;
use pgsteer::failover::Frozen;
use pgsteer::pg::{Lsn, Timeline};
use pgsteer::sandbox::StatementLog;
use pgsteer::store::Note;
use std::net::TcpListener;

/// Quick enough that a failover may wait for it; a busy machine gets a margin.
const QUICK: Duration = Duration::from_secs(1);

fn freeze_quickly(grip: &Grip, standby: ServerId) -> Frozen {
    let mut frozen = None;
    quickly("a freeze", QUICK, || {
        if frozen.is_some() {
            grip.done(|| grip.hands.unfreeze(standby));
        }
        let (done, took) = grip.time(|| grip.hands.freeze(standby));
        frozen = Some(done);
        took
    });
    frozen.unwrap()
}

#[test]
fn frozen_standbys_acknowledge_nothing_for_anybody() {
    let grip = Grip::on(&Plan::new().setting("synchronous_standby_names", QUORUM));
    let mut writer = Writer::of(grip.server(PRIMARY));
    assert!(writer.is_acknowledged(), "both standbys are there");

    let first = freeze_quickly(&grip, FIRST);
    assert!(writer.is_acknowledged(), "one frozen of two: the other one acknowledges");
    let (second, _) = grip.time(|| grip.hands.freeze(SECOND));

    assert!(writer.is_withheld(), "the primary lives, and acknowledges nothing");
    assert!(second.at > first.at, "the one that was frozen later holds more");
    assert_eq!(second.timeline, Timeline(1));
    let sent: Lsn =
        grip.server(PRIMARY).value("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap();
    assert!(second.at < sent, "the commit that hangs is on the primary alone");

    // It is still so after everything that a standby does by itself has been done.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(grip.done(|| grip.hands.freeze(SECOND)), second, "again is the same");
    assert!(!writer.hears());

    grip.done(|| grip.hands.unfreeze(FIRST));
    await_that("the commit is acknowledged after all", || writer.hears());
}

#[test]
fn a_hung_primary_keeps_nobody_from_freezing() {
    let grip = Grip::on(&Plan::new());
    let before = conninfo(grip.server(FIRST));
    grip.server(PRIMARY).sigstop();

    for standby in [FIRST, SECOND] {
        let frozen = freeze_quickly(&grip, standby);
        assert_eq!(frozen.at, held(grip.server(standby)));
        assert_eq!(conninfo(grip.server(standby)), "");
    }

    // What it sends when it wakes, nobody receives.
    grip.server(PRIMARY).sigcont();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!streams(grip.server(FIRST)));

    grip.done(|| grip.hands.unfreeze(FIRST));
    assert_eq!(conninfo(grip.server(FIRST)), before);
    await_that("it streams again", || streams(grip.server(FIRST)));
}

/// The password stands in `primary_conninfo` and nowhere else.
#[test]
fn what_undoes_a_freeze_is_stored_to_the_letter_before_it() {
    let grip = Grip::on(&Plan::new().standbys(1).auth(Auth::Password));
    let server = grip.server(FIRST);
    let odd = format!(
        "host='127.0.0.1' port={} user=postgres password='{SUPERUSER_PASSWORD}' \
         application_name='it\\'s \\\\ me' options='-c wal_sender_timeout=1s'",
        grip.server(PRIMARY).port()
    );
    server
        .rows(&format!("ALTER SYSTEM SET primary_conninfo = {}", pgsteer::pg::quote_literal(&odd)))
        .unwrap();
    // Where an archive can't be taken away, a standby that has one is not frozen at all.
    let archive = if server.version().reloads_restore_command() { "false %f %p" } else { "" };
    server.set("restore_command", archive).unwrap();
    await_that("it streams", || streams(server) && conninfo(server) == odd);

    grip.done(|| grip.hands.freeze(FIRST));
    assert_eq!(conninfo(server), "");
    assert_eq!(server.value("SHOW restore_command").unwrap(), "");
    let note: Note = grip.wait(grip.store.note(server.name())).unwrap().unwrap();
    assert_eq!(note.get("primary_conninfo"), Some(&*odd));
    assert_eq!(note.get("restore_command"), Some(archive));

    // A survey of the frozen standby notes nothing over it, and neither does freezing again.
    grip.survey(FIRST);
    grip.done(|| grip.hands.freeze(FIRST));
    assert_eq!(grip.wait(grip.store.note(server.name())).unwrap().unwrap(), note);

    // Another process, with the same store, undoes it.
    let heir = hands(&grip.cluster, SUPERUSER, Instance(2), &grip.store);
    grip.done(|| heir.unfreeze(FIRST));
    assert_eq!(conninfo(server), odd);
    assert_eq!(server.value("SHOW restore_command").unwrap(), archive);
    await_that("it streams again", || streams(server));
}

#[test]
fn what_a_paused_standby_has_received_counts() {
    let grip = Grip::on(&Plan::new());
    let server = grip.server(FIRST);
    server.pause_replay().unwrap();
    grip.server(PRIMARY).rows("CREATE TABLE t AS SELECT generate_series(1, 10000)").unwrap();
    let written: Lsn =
        grip.server(PRIMARY).value("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap();
    await_that("it has received that", || {
        server.value(&format!("SELECT pg_last_wal_receive_lsn() >= '{written}'")).unwrap() == "t"
    });

    let frozen = freeze_quickly(&grip, FIRST);

    assert!(frozen.at >= written, "{frozen:?} {written}");
}

/// A standby that was restarted without its primary says NULL of what it received; how far it is
/// is known when it has applied all that it has.
#[test]
fn a_standby_that_was_restarted_is_known_to_its_last_record() {
    let grip = Grip::on(&Plan::new());
    grip.server(PRIMARY).rows("CREATE TABLE t AS SELECT generate_series(1, 10000)").unwrap();
    grip.cluster.await_replay().unwrap();
    grip.server(PRIMARY).kill9().unwrap();
    let (before, _) = grip.time(|| grip.hands.freeze(FIRST));
    grip.server(FIRST).restart().unwrap();
    assert!(grip.server(FIRST).value("SELECT pg_last_wal_receive_lsn() IS NULL").unwrap() == "t");

    await_that("the hand has it again", || grip.wait(grip.hands.freeze(FIRST)).is_ok());
    let after: Frozen = grip.done(|| grip.hands.freeze(FIRST));

    assert_eq!(
        after.at,
        grip.server(FIRST).value("SELECT pg_last_wal_replay_lsn()").unwrap().parse().unwrap()
    );
    assert!(
        after.at <= before.at && before.at.bytes_since(after.at) < 8192,
        "{before:?} {after:?}"
    );
}

#[test]
fn a_hung_standby_is_late_and_holds_up_nobody() {
    let grip = Grip::on(&Plan::new());
    grip.server(FIRST).sigstop();

    quickly("the other one's freeze", QUICK, || {
        let other = async {
            let began = clock::now();
            // What is not done in its time is not quick.
            let frozen = grip.hands.freeze(SECOND).await;
            frozen.map_or(Duration::MAX, |_| clock::now().since(began))
        };
        let (hung, took) = grip.wait(async { tokio::join!(grip.hands.freeze(FIRST), other) });
        assert!(matches!(hung, Err(HandError::Late(_) | HandError::Lost(_))), "{hung:?}");
        grip.done(|| grip.hands.unfreeze(SECOND));
        took
    });
    grip.server(FIRST).sigcont();
    await_that("it can be frozen", || grip.wait(grip.hands.freeze(FIRST)).is_ok());
}

#[test]
fn a_primary_is_not_frozen() {
    let grip = Grip::on(&Plan::new().standbys(1));
    assert!(matches!(grip.wait(grip.hands.freeze(PRIMARY)), Err(HandError::IsA(_))));
    assert!(matches!(grip.wait(grip.hands.freeze(ServerId(9))), Err(HandError::NoSuchServer)));
}

/// A setting on the command line goes before everything that is set by SQL.
#[test]
fn a_postmaster_that_does_not_answer_makes_a_freeze_late() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let server = grip.server(FIRST);
    server.sigstop_process("/bin/postgres");

    let frozen = grip.wait(grip.hands.freeze(FIRST));

    assert!(matches!(frozen, Err(HandError::NoEffect(_) | HandError::Late(_))), "{frozen:?}");
    server.sigcont();
    await_that("it can be frozen", || grip.wait(grip.hands.freeze(FIRST)).is_ok());
}

/// While replay waits for a query, nothing else would end the walreceiver.
#[test]
fn a_query_that_keeps_replay_waiting_is_ended() {
    let plan = Plan::new().setting("max_standby_streaming_delay", "-1");
    let grip = Grip::on(&plan);
    let (primary, standby) = (grip.server(PRIMARY), grip.server(FIRST));
    primary.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
    grip.cluster.await_replay().unwrap();
    let mut reader = Writer::of(standby);
    reader.0.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t");
    let mut other = Writer::of(standby);
    primary.rows("DELETE FROM t").unwrap();
    primary.rows("VACUUM t").unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' \
                 AND wait_event = 'RecoveryConflictSnapshot'";
    standby.await_value(waits, "1", "in conflict").unwrap();

    // It would be late for ever.
    grip.done(|| grip.hands.freeze(FIRST));

    assert!(!streams(standby));
    assert_eq!(other.0.value("SELECT 1"), "1", "who is not in the way stays");
    assert!(!reader.0.query("SELECT 1").is_good());
}

fn held(server: &Server) -> Lsn {
    let sql = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())";
    server.value(sql).unwrap().parse().unwrap()
}

/// One that is about to be connected shows itself to nobody. The process that is to end it may
/// hear of that late: until then it could go on to receive, and confirm.
#[test]
fn a_walreceiver_that_is_not_connected_yet_is_waited_for() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let server = grip.server(FIRST);
    let _mute = connects_to_nobody(server);
    server.sigstop_process("startup");

    let frozen = grip.wait(grip.hands.freeze(FIRST));

    assert_eq!(server.value(CONNECTING).unwrap(), "1", "it is still at it");
    assert!(matches!(frozen, Err(HandError::Late(_))), "{frozen:?}");
    server.sigcont();
    await_that("it can be frozen", || grip.wait(grip.hands.freeze(FIRST)).is_ok());
    assert_eq!(server.value(CONNECTING).unwrap(), "0");
}

/// The opposite arm: that it takes long to end keeps nobody waiting.
#[test]
fn one_that_is_not_connected_yet_and_was_told_to_end_is_not_waited_for() {
    let grip = Grip::on(&Plan::new().standbys(1));
    let server = grip.server(FIRST);
    if server.version().major() < 14 {
        // It is not told there whether it was.
        return;
    }
    let _mute = connects_to_nobody(server);
    server.sigstop_process("walreceiver");

    grip.done(|| grip.hands.freeze(FIRST));

    assert_eq!(server.value(CONNECTING).unwrap(), "1", "it has not ended");
    server.sigcont();
}

/// How many walreceivers are about to be connected.
const CONNECTING: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE backend_type = 'walreceiver' AND NOT EXISTS (SELECT FROM pg_stat_wal_receiver)";

/// A standby that is let in, and never hears a word.
fn connects_to_nobody(server: &Server) -> TcpListener {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    server.set("primary_conninfo", &format!("host=127.0.0.1 port={port} user=postgres")).unwrap();
    server.await_value(CONNECTING, "1", "connecting").unwrap();
    mute
}

/// A server may log statements for the time that they take, or some at random.
#[test]
fn no_sample_in_the_log_holds_the_password_with_which_a_freeze_is_undone() {
    const PASSWORD: &str = "a-word-for-nobody-4718";
    let grip = Grip::on(&Plan::new().standbys(1).log(StatementLog::Off));
    let standby = grip.server(FIRST);
    let with_password = format!("{} password={PASSWORD}", conninfo(standby));
    standby.set("primary_conninfo", &with_password).unwrap();
    await_that("it is set", || conninfo(standby) == with_password);
    // The server itself says, whoever changes it, to what a setting was changed.
    let leaks = || {
        let own = "parameter \"primary_conninfo\" changed to";
        let log = standby.log();
        let lines = log.lines().filter(|line| line.contains(PASSWORD) && !line.contains(own));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let samples =
        [("log_min_duration_sample", "0", "-1"), ("log_transaction_sample_rate", "1", "0")];
    for (name, on, off) in samples {
        standby.set(name, on).unwrap();
        let others = format!("SELECT 'others by {name}'");
        await_that("others' statements are logged", || {
            standby.value(&others).unwrap();
            standby.logged(&others) > 0
        });
        grip.done(|| grip.hands.freeze(FIRST));
        grip.done(|| grip.hands.unfreeze(FIRST));
        assert_eq!(conninfo(standby), with_password);
        standby.set(name, off).unwrap();
        assert_eq!(leaks(), [""; 0], "{name}");
    }
}

/// What undoes a freeze holds a password, and so does the statement by which it is undone.
#[test]
fn no_extension_keeps_the_password_with_which_a_freeze_is_undone() {
    let grip = Grip::on(&Plan::new().setting("shared_preload_libraries", "pg_stat_statements"));
    grip.server(PRIMARY).rows("CREATE EXTENSION pg_stat_statements").unwrap();
    grip.cluster.await_replay().unwrap();
    let standby = grip.server(FIRST);
    // From PostgreSQL 16 on it keeps the statement without the value.
    let kept = || {
        let sql = "SELECT count(*) FROM pg_stat_statements \
                   WHERE query ~* 'alter system set.*primary_[c]onninfo'";
        standby.value(sql).unwrap()
    };
    let with_password = format!("{} password=very-secret", conninfo(standby));
    standby.set("primary_conninfo", &with_password).unwrap();
    await_that("others' statements are kept", || kept() == "1");
    standby.rows("SELECT pg_stat_statements_reset()").unwrap();
    await_that("it is noted", || {
        grip.done(|| grip.hands.freeze(FIRST));
        grip.done(|| grip.hands.unfreeze(FIRST));
        conninfo(standby).contains("very-secret")
    });
    assert_eq!(kept(), "0");
}
