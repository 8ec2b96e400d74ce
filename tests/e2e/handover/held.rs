//! Statements that wait for a primary: for whom, how long, how many.

use super::*;
use crate::support::Ended;
use pgsteer::sandbox::StatementLog;
use std::net::Shutdown;

fn waiting(house: &House, clients: f64) {
    let series = r#"pgsteer_client_connections{state="waiting"}"#;
    await_that("they wait", || house.metric(series) == Some(clients));
}

/// A statement that waits is sent only for a client that is still there.
#[test]
fn a_client_that_has_left_or_cancelled_has_nothing_executed_for_it() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    scene.lose(Loss::Killed);
    await_that("the loss is seen", || house.status()["primary"].is_null());
    let mut wires = [(); 5].map(|()| house.wire());
    for (wire, id) in wires.iter_mut().zip(1..) {
        let insert = format!("INSERT INTO ledger VALUES ({id})");
        let bytes = if id % 2 == 0 { extended(&insert) } else { query(&insert) };
        wire.send(&bytes).unwrap();
    }
    waiting(house, 5.0);
    let [goes, closes, leaves, cancels, also_goes] = wires;
    drop(closes);
    leaves.stream.shutdown(Shutdown::Write).unwrap();
    cancels.cancel(house.proxy.address());
    let (reply, _cancels) = ask(cancels, Vec::new()).end(clock::now());
    assert_eq!((reply.codes(), reply.ended), (vec!["57014"], Ended::Ready('I')), "{reply:?}");
    let changed = scene.take_over();
    for wire in [goes, also_goes] {
        assert_eq!(ask(wire, Vec::new()).end(changed).0.tags, ["INSERT 0 1"]);
    }
    assert_eq!([1, 2, 3, 4, 5].map(|id| scene.count(id)), [1, 0, 0, 0, 1]);
    let held = |outcome: &str| {
        house.metric(&format!("pgsteer_hold_seconds_count{{outcome=\"{outcome}\"}}")).unwrap()
    };
    assert!(
        held("went") >= 2.0 && held("given_up") >= 3.0,
        "{} {}",
        held("went"),
        held("given_up")
    );
}

/// What waits takes a bounded memory: the newest is refused, and not one that waited before.
#[test]
fn the_newest_is_refused_when_too_much_waits() {
    let scene = Scene::new("[routing]\nhold_memory = \"64kB\"\n", &[]);
    let house = &scene.house;
    scene.lose(Loss::Killed);
    await_that("the loss is seen", || house.status()["primary"].is_null());
    let long = |id: i32| format!("INSERT INTO ledger VALUES ({id}) /*{}*/", "x".repeat(20_000));
    let early = [1, 2, 3].map(|id| ask(house.wire(), query(&long(id))));
    waiting(house, 3.0);
    assert!(house.metric("pgsteer_held_bytes").unwrap() > 60_000.0);
    for bytes in [query(&long(4)), extended(&long(4))] {
        let (reply, mut late) = ask(house.wire(), bytes).end(clock::now());
        assert_eq!((reply.codes(), reply.ended), (vec!["53400"], Ended::Ready('I')), "{reply:?}");
        assert!(reply.error().hint.contains("routing.hold_memory"), "{reply:?}");
        assert_eq!(late.value("SELECT count(*) FROM ledger WHERE id > 3"), "0", "reads go on");
    }
    let changed = scene.take_over();
    for waits in early {
        assert_eq!(waits.end(changed).0.tags, ["INSERT 0 1"]);
    }
    assert_eq!([1, 2, 3, 4].map(|id| scene.count(id)), [1, 1, 1, 0]);
    assert_eq!(house.metric("pgsteer_held_bytes"), Some(0.0), "all of it is given back");
}

/// Those who wait are let in in the order in which they came, through a small pool, and no
/// client's connection suffers.
#[test]
fn those_who_waited_longest_go_first() {
    let scene = Scene::with_pool("", &["CREATE TABLE turns (id int, turn serial)"], 1);
    let house = &scene.house;
    scene.lose(Loss::Killed);
    await_that("the loss is seen", || house.status()["primary"].is_null());
    let mut waits = Vec::new();
    for id in 0..40 {
        let insert = format!("INSERT INTO turns (id) VALUES ({id})");
        waits.push(ask(house.wire(), query(&insert)));
        waiting(house, f64::from(id + 1));
    }
    let changed = scene.take_over();
    for waits in waits {
        assert_eq!(waits.end(changed).0.tags, ["INSERT 0 1"]);
    }
    let sql = "SELECT string_agg(id::text, ' ' ORDER BY turn) FROM turns";
    let expected: Vec<String> = (0..40).map(|id: i32| id.to_string()).collect();
    assert_eq!(house.server("standby1").value(sql).unwrap(), expected.join(" "));
}

/// A primary with a table `ledger`, and one backend for all.
fn one_backend() -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::All))
        .unhurried()
        .set("pool.size", "1")
        .set("pool.wait_timeout", "1m")
        .build();
    house.server("primary").rows("CREATE TABLE ledger (id int)").unwrap();
    house
}

/// A statement got its backend, and its client left or cancelled while its settings were brought
/// there: it is not sent.
#[test]
fn nothing_is_sent_for_who_goes_while_its_settings_are_brought() {
    let house = one_backend();
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    let mut watcher = primary.connect("postgres").unwrap();
    let waits = || {
        let series = r#"pgsteer_client_connections{state="waiting"}"#;
        await_that("it waits", || house.metric(series) == Some(1.0));
    };
    for (id, cancels) in [(1, true), (2, false)] {
        let (mut holder, mut goes) = (house.wire(), house.wire());
        goes.run("SET default_tablespace = 'pg_default'");
        holder.run("BEGIN");
        holder.run("INSERT INTO ledger VALUES (0)");
        goes.send(&query(&format!("INSERT INTO ledger VALUES ({id})"))).unwrap();
        waits();
        // Who sets that looks for the tablespace.
        locker.rows("BEGIN; LOCK TABLE pg_tablespace IN ACCESS EXCLUSIVE MODE").unwrap();
        holder.run("COMMIT");
        let brought = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND query LIKE '%''default_tablespace''%'";
        await_that("it is brought", || watcher.value(brought).unwrap() == "1");
        if cancels {
            goes.cancel(house.proxy.address());
            locker.rows("COMMIT").unwrap();
            assert_eq!(goes.reply().codes(), ["57014"]);
        } else {
            goes.stream.shutdown(Shutdown::Both).unwrap();
            locker.rows("COMMIT").unwrap();
        }
        // Behind it in the queue for the only backend.
        holder.run("INSERT INTO ledger VALUES (0)");
        let there = format!("SELECT count(*) FROM ledger WHERE id = {id}");
        assert_eq!(holder.value(&there), "0", "cancelled: {cancels}");
    }
}

/// A statement was cancelled while its settings were brought to a backend, which is lost over
/// that: it does not go to the next one.
#[test]
fn a_cancel_counts_although_the_backend_is_lost_to_which_settings_are_brought() {
    let house = one_backend();
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    let mut watcher = primary.connect("postgres").unwrap();
    let (mut other, mut goes) = (house.wire(), house.wire());
    goes.run("SET default_tablespace = 'pg_default'");
    other.run("INSERT INTO ledger VALUES (0)");
    // Who sets that looks for the tablespace.
    locker.rows("BEGIN; LOCK TABLE pg_tablespace IN ACCESS EXCLUSIVE MODE").unwrap();
    goes.send(&query("INSERT INTO ledger VALUES (1)")).unwrap();
    let brought = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE '%''default_tablespace''%'";
    let counted = format!("SELECT count(*) {brought}");
    await_that("it is brought", || watcher.value(&counted).unwrap() == "1");
    goes.cancel(house.proxy.address());
    let ends = format!("SELECT count(pg_terminate_backend(pid)) {brought}");
    assert_eq!(watcher.value(&ends).unwrap(), "1");
    assert_eq!(goes.reply().codes(), ["57014"]);
    locker.rows("COMMIT").unwrap();
    assert_eq!(goes.value("SELECT count(*) FROM ledger WHERE id = 1"), "0");
}
