//! A standby dies, restarts, or cancels a read for a reason of its own.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::end_backends;
use pgsteer::sandbox::Server;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Clients that read at the same time.
const READERS: usize = 8;
/// A row that is far longer than what the sockets on its way hold, in bytes.
const LONG_ROW: usize = 64 * 1024 * 1024;
/// A read that lasts long enough to be in flight when its server dies.
const READ: &str = "SELECT current_setting('cluster_name'), count(*), pg_sleep(0.02) FROM items";
const RETRIES: &str = "pgsteer_read_retries_total";

#[test]
fn a_lost_standby_is_felt_by_no_read_that_had_shown_nothing() {
    let house = Blueprint::new()
        .servers(|plan| plan.setting("max_standby_streaming_delay", "0"))
        .unhurried()
        .any_lag()
        .build();
    furnish(&house);
    killed_amid_reads(&house);
    conflict_with_recovery(&house);
    shown_rows_are_not_shown_again(&house);
    half_a_row_is_not_filled_up(&house);
    what_may_do_more_than_read_is_in_doubt(&house);
    who_leaves_ends_nothing_that_may_do_more_than_read(&house);
    idle_backends_are_replaced_unseen(&house);
}

fn furnish(house: &House) {
    let mut primary = house.server("primary").connect("postgres").unwrap();
    for sql in [
        "CREATE TABLE items AS SELECT i FROM generate_series(1, 100) i",
        // Now: while a change of the catalog is taken in, reads go to the primary.
        "CREATE TABLE dead AS SELECT i FROM generate_series(1, 1000) i",
        // A notice makes the server send what it has: the row before it.
        "CREATE FUNCTION say(int) RETURNS int STABLE LANGUAGE plpgsql AS \
         'BEGIN RAISE NOTICE ''row %'', $1; IF $1 > 2 THEN PERFORM pg_sleep(60); END IF; \
          RETURN $1; END'",
        // It may write by a connection of its own.
        "CREATE FUNCTION lasts(float) RETURNS int VOLATILE LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep($1); RAISE LOG ''it went on''; RETURN 1; END'",
    ] {
        primary.rows(sql).unwrap();
    }
    house.await_catalog();
}

fn serves(house: &House, name: &str) -> bool {
    let served =
        |_| house.wire().value("SELECT current_setting('cluster_name') FROM items LIMIT 1");
    (0..10).map(served).any(|server| server == name)
}

fn killed_amid_reads(house: &House) {
    let retries_before = house.metric(RETRIES).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let mut readers = Vec::new();
    for reader in 0..READERS {
        let mut wire = house.wire();
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        readers.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let reply = if reader % 2 == 0 { wire.query(READ) } else { wire.extended(READ) };
                assert!(reply.is_good(), "{reply:?}");
                assert_eq!(reply.rows.len(), 1, "the answer came once: {reply:?}");
                assert_eq!(reply.rows[0][1].as_deref(), Some("100"));
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let go_on = || {
        let now = done.load(Ordering::Relaxed);
        await_that("reads go on", || done.load(Ordering::Relaxed) > now + 4 * READERS);
    };
    go_on();
    house.server("standby1").kill9().unwrap();
    go_on();
    assert!(house.metric(RETRIES).unwrap() > retries_before, "no read was in flight at the kill");
    house.server("standby1").start().unwrap();
    await_that("standby1 is back by itself", || serves(house, "standby1"));
    go_on();
    // A stop in good order: every backend says FATAL 57P01 before it ends.
    house.server("standby2").stop(pgsteer::sandbox::Shutdown::Fast).unwrap();
    go_on();
    house.server("standby2").start().unwrap();
    await_that("standby2 is back by itself", || serves(house, "standby2"));
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

fn conflict_with_recovery(house: &House) {
    let retries_before = house.metric(RETRIES).unwrap();
    let conflicts = || -> usize {
        let standbys = house.cluster.standbys().iter();
        standbys.map(|server| server.logged("canceling statement due to conflict")).sum()
    };
    let before = conflicts();
    let mut primary = house.server("primary").connect("postgres").unwrap();
    // A standby of a crowded machine may apply it only when the read is done.
    for seconds in 1..=10 {
        let mut wire = house.wire();
        let slow = format!("SELECT pg_sleep({seconds}.5), count(*) FROM items /* conflicting */");
        let reader = std::thread::spawn(move || wire.query(&slow));
        let runs = || runs_at_a_standby(house, "conflicting").is_some();
        await_that("the read runs on a standby", || runs() || reader.is_finished());
        primary.rows("DELETE FROM dead").unwrap();
        primary.rows("VACUUM dead").unwrap();
        let reply = reader.join().unwrap();
        assert!(reply.is_good(), "{reply:?}");
        assert_eq!(reply.rows.len(), 1, "{reply:?}");
        if conflicts() > before {
            break;
        }
        primary.rows("INSERT INTO dead SELECT i FROM generate_series(1, 1000) i").unwrap();
    }
    assert!(conflicts() > before, "there was no conflict");
    assert!(house.metric(RETRIES).unwrap() > retries_before);
}

/// A read waits for a lock that replay holds, and replay for a page that the read looks at.
#[test]
fn a_read_that_a_standby_ends_to_end_a_deadlock_is_run_again() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).setting("max_standby_streaming_delay", "-1"))
        .unhurried()
        .any_lag()
        .build();
    let [mut primary, mut locker] =
        [(); 2].map(|()| house.server("primary").connect("postgres").unwrap());
    for sql in [
        "CREATE TABLE looked_at AS SELECT 1 AS i",
        "INSERT INTO looked_at VALUES (2)",
        "DELETE FROM looked_at WHERE i = 2",
        "CREATE TABLE locked (i int)",
    ] {
        primary.rows(sql).unwrap();
    }
    house.await_catalog();
    locker.rows("BEGIN; LOCK TABLE locked").unwrap();
    house.cluster.await_replay().unwrap();
    let deadlocks = || {
        let standbys = house.cluster.standbys().iter();
        standbys.map(|server| server.logged("caused buffer deadlock with recovery")).sum::<usize>()
    };
    let retries_before = house.metric(RETRIES).unwrap();
    let mut wire = house.wire();
    let sql = "SELECT pg_sleep(3), pg_relation_size('locked') FROM looked_at /* stuck */";
    let reader = std::thread::spawn(move || wire.query(sql));
    await_that("it runs on a standby", || runs_at_a_standby(&house, "stuck").is_some());
    primary.rows("VACUUM looked_at").unwrap();
    await_that("its server ends it", || deadlocks() > 0);
    locker.rows("ROLLBACK").unwrap();
    let reply = reader.join().unwrap();
    assert!(reply.is_good(), "{reply:?}");
    assert_eq!(reply.rows, [[Some(String::new()), Some("0".to_owned())]], "{reply:?}");
    assert!(house.metric(RETRIES).unwrap() > retries_before);
}

/// The standby on which a statement with this marker runs now.
fn runs_at_a_standby<'a>(house: &'a House, marker: &str) -> Option<&'a str> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{marker}%' \
         AND pid <> pg_backend_pid()"
    );
    let mut standbys = house.cluster.standbys().iter();
    standbys.find(|server| server.value(&sql).is_ok_and(|count| count != "0")).map(Server::name)
}

fn shown_rows_are_not_shown_again(house: &House) {
    let mut wire = house.wire();
    let sql = "SELECT say(i), current_setting('cluster_name') FROM generate_series(1, 5) i \
               /* shown */";
    send_query(&mut wire, sql);
    while wire.message().expect("a row arrives")[0] != b'D' {}
    let name = runs_at_a_standby(house, "shown").expect("it runs on a standby").to_owned();
    house.server(&name).kill9().unwrap();
    let reply = wire.reply();
    assert_eq!(reply.codes(), ["40001"], "{reply:?}");
    assert!(reply.error().hint.contains("Run it again"), "{reply:?}");
    assert_eq!(reply.ended, Ended::Ready('I'), "the client stays connected");
    assert!(wire.query(READ).is_good());
    house.server(&name).start().unwrap();
    await_that("it is back", || serves(house, &name));
}

/// What is between two rows is not shown; but a very long row is passed on as it comes, and words
/// of ours behind half of it would become a part of it.
fn half_a_row_is_not_filled_up(house: &House) {
    let mut wire = house.wire();
    // PostgreSQL fills a buffer of 8 kB and sends that, so it has sent half of the second row when
    // it sleeps. From 17 on it does so only if what is left of the row is shorter than the buffer.
    let short = "SELECT repeat('x', 12000), CASE WHEN i < 3 THEN NULL ELSE pg_sleep(60) END \
                 FROM generate_series(1, 5) i /* half */";
    send_query(&mut wire, short);
    while wire.message().expect("a row arrives")[0] != b'D' {}
    let name = runs_at_a_standby(house, "half").expect("it runs on a standby").to_owned();
    house.server(&name).kill9().unwrap();
    let reply = wire.reply();
    assert_eq!((reply.codes(), reply.ended), (vec!["40001"], Ended::Ready('I')));
    assert!(reply.rows.iter().all(|row| row[0].as_ref().unwrap().len() == 12_000));
    house.server(&name).start().unwrap();
    await_that("it is back", || serves(house, &name));

    // Longer than all that the sockets hold: as long as nobody reads, it is not sent whole.
    let long = format!("SELECT repeat('x', {LONG_ROW}) /* long */");
    send_query(&mut wire, &long);
    let mut row = vec![0; 1024 * 1024];
    wire.stream.read_exact(&mut row).unwrap();
    let name = runs_at_a_standby(house, "long").expect("it runs on a standby").to_owned();
    house.server(&name).kill9().unwrap();
    wire.stream.read_to_end(&mut row).unwrap_or_default();
    assert!(row.len() < LONG_ROW, "half a row was there: {}", row.len());
    let text = String::from_utf8_lossy(&row[1024..]);
    assert!(
        text.chars().all(|letter| letter == 'x'),
        "something else came: {:.9000}",
        text.trim_start_matches('x')
    );
    house.server(&name).start().unwrap();
    await_that("it is back", || serves(house, &name));
}

/// Who wishes for a standby is given it for anything, also for what can change something elsewhere.
fn what_may_do_more_than_read_is_in_doubt(house: &House) {
    let ways = [
        ("SELECT lasts(60) /* in doubt */", "08007"),
        ("DO 'BEGIN PERFORM lasts(60); END' /* in doubt */", "08007"),
        ("SELECT say(i) FROM generate_series(1, 5) i /* in doubt */", "40001"),
    ];
    for (sql, code) in ways {
        let mut wire = house.wire();
        wire.run("SET pgsteer.role = 'standby'");
        send_query(&mut wire, sql);
        await_that("it runs on a standby", || runs_at_a_standby(house, "in doubt").is_some());
        if code == "40001" {
            while wire.message().expect("a row arrives")[0] != b'D' {}
        }
        let name = runs_at_a_standby(house, "in doubt").expect("it runs there still").to_owned();
        house.server(&name).kill9().unwrap();
        let reply = wire.reply();
        assert_eq!((reply.codes(), reply.ended), (vec![code], Ended::Ready('I')), "{sql}");
        house.server(&name).start().unwrap();
        await_that("it is back", || serves(house, &name));
    }
}

fn who_leaves_ends_nothing_that_may_do_more_than_read(house: &House) {
    let went_on = || -> usize {
        let standbys = house.cluster.standbys().iter();
        standbys.map(|server| server.logged("LOG:  it went on")).sum()
    };
    let before = went_on();
    let mut wire = house.wire();
    wire.run("SET pgsteer.role = 'standby'");
    send_query(&mut wire, "SELECT lasts(10) /* alone */");
    await_that("it runs on a standby", || runs_at_a_standby(house, "alone").is_some());
    drop(wire);
    await_that("it is done or ended", || runs_at_a_standby(house, "alone").is_none());
    assert_eq!(went_on(), before + 1);
}

fn idle_backends_are_replaced_unseen(house: &House) {
    let mut clients: Vec<Wire> = (0..4).map(|_| house.wire()).collect();
    for wire in &mut clients {
        wire.run(READ);
        wire.run("CREATE TABLE IF NOT EXISTS written ()");
    }
    for round in 0..5 {
        let mut ended = 0;
        for server in house.cluster.servers() {
            ended += end_backends(server, "application_name !~ '^pgsteer (control|watch)'");
        }
        assert!(ended > 0, "round {round}: no backend rested anywhere");
        for wire in &mut clients {
            assert_eq!(wire.unasked(Duration::from_millis(20)), b"", "nobody hears of it");
            wire.run(READ);
            wire.run("DROP TABLE IF EXISTS nothing");
            assert_eq!(wire.extended("SELECT txid_current() > 0").codes(), [""; 0]);
        }
    }
}

fn send_query(wire: &mut Wire, sql: &str) {
    let mut bytes = Vec::new();
    pgsteer::wire::message::write_query(&mut bytes, sql);
    wire.send(&bytes).unwrap();
}
