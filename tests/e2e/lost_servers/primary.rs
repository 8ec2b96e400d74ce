//! The primary dies: reads go on, writes are held, and nothing is done twice.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::held_for;
use pgsteer::sandbox::Shutdown;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering;

const WRITE: &str = "INSERT INTO ledger VALUES (0)";
const READ: &str = "SELECT current_setting('cluster_name') FROM ledger LIMIT 1";
/// Clients that write at the same time.
const WRITERS: usize = 8;

fn house() -> House {
    let house = Blueprint::new().toml("[routing]\nhold_max = \"1s\"").unhurried().any_lag().build();
    // No unique index: what is done twice must be seen.
    house.server("primary").rows("CREATE TABLE ledger (id int)").unwrap();
    house.server("primary").rows("INSERT INTO ledger VALUES (-1)").unwrap();
    house.await_catalog();
    house
}

fn waiting(house: &House, clients: f64) -> bool {
    house.metric(r#"pgsteer_client_connections{state="waiting"}"#) == Some(clients)
}

fn await_primary(house: &House) {
    await_that("writes go through", || house.wire().query(WRITE).is_good());
}

#[test]
fn without_a_primary_reads_go_on_and_writes_are_held() {
    let house = house();
    held_writes(&house);
    open_transactions(&house);
    pinned_sessions(&house);
}

fn held_writes(house: &House) {
    let mut reader = house.wire();
    let mut writer = house.wire();
    reader.run(READ);
    writer.run(WRITE);
    house.server("primary").stop(Shutdown::Fast).unwrap();

    for wire in [&mut reader, &mut house.wire()] {
        let served = wire.value(READ);
        assert!(served.starts_with("standby"), "{served}");
    }
    // One that wrote reads on, too: standbys that have replayed it do.
    house.cluster.standbys().iter().for_each(|standby| assert!(standby.is_running()));
    let refused = writer.query(WRITE);
    assert_eq!(refused.codes(), ["57P03"], "{refused:?}");
    assert!(refused.error().message.starts_with("there is no primary"), "{refused:?}");
    assert!(held_for(&refused) >= 1.0, "{refused:?}");
    assert!(refused.error().detail.contains("was not sent"), "{refused:?}");
    assert!(refused.error().hint.contains("routing.hold_max"), "{refused:?}");
    assert_eq!(refused.ended, Ended::Ready('I'), "the client stays connected");
    assert_eq!(writer.extended(WRITE).codes(), ["57P03"], "in the extended protocol as well");

    // Logins need no primary, not even the first one of its kind.
    let address = house.proxy.address();
    for (user, database) in [("postgres", "postgres"), ("postgres", "template1")] {
        let params = [
            ("user", user),
            ("database", database),
            ("application_name", "fresh"),
            ("DateStyle", "German"),
        ];
        let wire = Wire::log_in_with(address, &params);
        let mut wire = wire.unwrap_or_else(|why| panic!("{why:?}"));
        assert_eq!(wire.value("SHOW application_name"), "fresh");
    }

    house.reload("[routing]\nhold_max = \"50s\"");
    let holder = std::thread::spawn(move || (writer.query(WRITE), writer));
    await_that("the write is held", || waiting(house, 1.0));
    house.server("primary").start().unwrap();
    let (reply, mut writer) = holder.join().unwrap();
    assert_eq!(reply.tags, ["INSERT 0 1"], "the write goes through: {reply:?}");
    writer.run(WRITE);
}

/// Told once that the transaction is gone; then it has failed, until the client says so.
fn open_transactions(house: &House) {
    for how in [Some(Shutdown::Fast), Some(Shutdown::Immediate), None] {
        let mut wires: Vec<Wire> = (0..3).map(|_| house.wire()).collect();
        for wire in &mut wires {
            wire.run("BEGIN");
            wire.run("INSERT INTO ledger VALUES (-7)");
        }
        match how {
            Some(how) => house.server("primary").stop(how).unwrap(),
            None => house.server("primary").kill9().unwrap(),
        }
        let [goes_on, rolls_back, commits] = &mut wires[..] else { unreachable!() };
        for wire in [&mut *goes_on, rolls_back, commits] {
            let heard = wire.unasked(std::time::Duration::from_millis(50));
            // A notice may come at any time; an error would end a driver's connection.
            assert_ne!(heard.first(), Some(&b'E'), "{how:?}: {}", String::from_utf8_lossy(&heard));
        }
        // Also what pgsteer answers by itself must not hide the loss.
        let lost = goes_on.query(if how.is_none() { "SHOW pgsteer.role" } else { WRITE });
        assert_eq!((lost.codes(), lost.ended), (vec!["40001"], Ended::Ready('E')), "{lost:?}");
        for _ in 0..2 {
            let failed = goes_on.extended(READ);
            assert_eq!((failed.code(), failed.ended), ("25P02", Ended::Ready('E')), "{failed:?}");
        }
        assert_eq!(goes_on.run("ROLLBACK").ended, Ended::Ready('I'));
        assert!(rolls_back.query("ROLLBACK").is_good(), "that is what it wanted");
        let commit = commits.query("COMMIT");
        assert_eq!(
            (commit.codes(), commit.ended),
            (vec!["40001"], Ended::Ready('I')),
            "{commit:?}"
        );
        house.server("primary").start().unwrap();
        await_primary(house);
        for wire in &mut wires {
            wire.run(WRITE);
        }
    }
    let left = house.server("primary").value("SELECT count(*) FROM ledger WHERE id = -7").unwrap();
    assert_eq!(left, "0", "nothing of them was committed");
}

/// A standby that was only asked for what any server can answer does not become one that may
/// be read from: what the session wrote is still not there.
#[test]
fn a_session_without_a_primary_is_not_shown_less_than_it_wrote() {
    let house = house();
    let mut wires: Vec<Wire> = (0..3).map(|_| house.wire()).collect();
    for standby in house.cluster.standbys() {
        standby.pause_replay().unwrap();
    }
    let [sets, rolls_back, loses] = &mut wires[..] else { unreachable!() };
    for wire in [&mut *sets, rolls_back, loses] {
        wire.run("INSERT INTO ledger VALUES (1)");
    }
    loses.run("BEGIN");
    loses.run(WRITE);
    house.server("primary").kill9().unwrap();
    await_that("the loss is seen", || house.wire().query(WRITE).code() == "57P03");

    sets.run("SET work_mem = '5MB'");
    rolls_back.run("ROLLBACK");
    assert_eq!(loses.query(WRITE).codes(), ["40001"]);
    loses.run("ROLLBACK");
    for wire in [&mut *sets, rolls_back, loses] {
        for _ in 0..2 {
            let stale = wire.query("SELECT count(*) FROM ledger");
            assert_eq!(stale.codes(), ["57P03"], "no standby has what it wrote: {stale:?}");
        }
    }
    house.server("primary").start().unwrap();
    for wire in [&mut *sets, rolls_back, loses] {
        await_that("the primary answers", || wire.query(READ).is_good());
        assert_eq!(wire.value("SELECT count(*) FROM ledger WHERE id = 1"), "3");
    }
}

/// What lives in one backend is lost with it: the session says so, once, and goes on.
fn pinned_sessions(house: &House) {
    let mut temporary = house.wire();
    temporary.run("CREATE TEMP TABLE mine (i int)");
    let mut locker = house.wire();
    locker.run("SELECT pg_advisory_lock(4711)");
    house.server("primary").stop(Shutdown::Fast).unwrap();
    for wire in [&mut temporary, &mut locker] {
        let reply = wire.query("SELECT 1");
        assert_eq!((reply.codes(), reply.ended), (vec!["57P01"], Ended::Ready('I')), "{reply:?}");
        assert_eq!(reply.error().severity, "ERROR");
        assert!(reply.error().detail.starts_with("Lost: "), "{reply:?}");
        // It goes on. What it wrote has a position only if that was learnt before the end.
        let read = wire.query(READ);
        assert!(read.is_good() || read.codes() == ["57P03"], "{read:?}");
        assert_eq!(read.ended, Ended::Ready('I'), "{read:?}");
    }
    house.server("primary").start().unwrap();
    await_primary(house);
    temporary.run("CREATE TEMP TABLE mine (i int)");
}

/// Every insert has a number of its own: acknowledged ones are there, and none is there twice.
#[test]
fn what_was_in_flight_is_never_executed_twice() {
    let house = house();
    house.reload("[routing]\nhold_max = \"50s\"");
    let next = Arc::new(AtomicI32::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (next, stop) = (Arc::clone(&next), Arc::clone(&stop));
        let mut wire = house.wire();
        writers.push(std::thread::spawn(move || {
            let (mut acknowledged, mut in_doubt) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let id = next.fetch_add(1, Ordering::Relaxed);
                // Lost before its commit, or behind it.
                let early = format!("INSERT INTO ledger SELECT {id} FROM pg_sleep(0.005)");
                let late = format!(
                    "BEGIN; INSERT INTO ledger VALUES ({id}); COMMIT; SELECT pg_sleep(0.005)"
                );
                let reply = match writer % 4 {
                    0 => wire.query(&early),
                    1 => wire.extended(&early),
                    _ => wire.query(&late),
                };
                match reply.codes()[..] {
                    [] => acknowledged.push(id),
                    ["08007"] => in_doubt.push(id),
                    _ => panic!("{reply:?}"),
                }
                assert_eq!(reply.ended, Ended::Ready('I'), "{reply:?}");
            }
            (acknowledged, in_doubt)
        }));
    }
    let go_on = || {
        let now = next.load(Ordering::Relaxed);
        await_that("writes go on", || next.load(Ordering::Relaxed) > now + 100);
    };
    for how in [None, Some(Shutdown::Fast), Some(Shutdown::Immediate), None] {
        go_on();
        match how {
            Some(how) => house.server("primary").stop(how).unwrap(),
            None => house.server("primary").kill9().unwrap(),
        }
        house.server("primary").start().unwrap();
    }
    go_on();
    stop.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut in_doubt) = (BTreeSet::new(), BTreeSet::new());
    for writer in writers {
        let (sure, unsure) = writer.join().unwrap();
        acknowledged.extend(sure);
        in_doubt.extend(unsure);
    }

    let rows = house.server("primary").rows("SELECT id FROM ledger WHERE id > 0").unwrap();
    let present: Vec<i32> =
        rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect();
    let once: BTreeSet<i32> = present.iter().copied().collect();
    assert_eq!(present.len(), once.len(), "some were executed twice");
    let lost: Vec<_> = acknowledged.difference(&once).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    let strange: Vec<_> = once.iter().filter(|id| !acknowledged.contains(id)).collect();
    assert!(strange.iter().all(|id| in_doubt.contains(id)), "nobody sent these: {strange:?}");
    assert!(!strange.is_empty(), "none was committed and not acknowledged: nothing was at stake");
    assert!(in_doubt.len() >= WRITERS, "too few were in flight at the kills: {in_doubt:?}");
}

/// What a login is told is remembered: who came before is let in while no server answers.
#[test]
fn who_came_before_is_let_in_without_any_server() {
    let house = Blueprint::new().toml("[routing]\nhold_max = \"1s\"").unhurried().build();
    house.wire().run("SELECT 1");
    for server in house.cluster.servers() {
        server.stop(Shutdown::Immediate).unwrap();
    }
    await_that("the loss is seen", || {
        let status = house.status();
        let mut servers = status["servers"].as_array().unwrap().iter();
        servers.all(|server| server["role"].is_null())
    });
    let mut wire = house.wire();
    let refused = wire.query(WRITE);
    assert_eq!((refused.codes(), refused.ended), (vec!["57P03"], Ended::Ready('I')));
}
