//! Servers whose names stand in their links alone, and all of which have the same `cluster_name`:
//! a freeze empties the link, and who it was is known all the same.

use super::{
    armed, await_armed, await_told_to_end, epoch, new_primary, settle, stop_receiving, writing,
};
use crate::support::Blueprint;
use crate::support::House;
use crate::support::await_that;
use crate::support::handed_over;
use crate::support::replaced_by_and_by;
use pgsteer::sandbox::Naming;
use pgsteer::sandbox::Quorum;
use pgsteer::sandbox::Server;
use rustix::process::Signal;
use std::time::Duration;

/// Every server waits for any one of all, itself included.
fn one_list() -> Blueprint {
    let names = "ANY 1 (primary, standby1, standby2)";
    armed(&[("synchronous_standby_names", names)]).servers(|plan| plan.naming(Naming::Links))
}

/// Each of them waits for any one of the others.
fn lists_of_others() -> Blueprint {
    armed(&[]).servers(|plan| plan.naming(Naming::Links).quorum(Quorum::AnyOne))
}

fn await_all_follow(house: &House) {
    await_that("the others follow", || {
        let servers = house.status()["servers"].as_array().unwrap().clone();
        servers.iter().filter(|server| server["state"] == "streaming").count() == 2
    });
}

/// Hands over, however often that is called off on a crowded machine.
fn hand_over(house: &House, to: &Server) {
    handed_over(house, &["switchover", "--to", &to.address(), "--yes"]);
    assert_eq!(new_primary(house).name(), to.name());
}

/// A failover, a switchover, and another failover: each primary promises what the first one did,
/// and nothing keeps pgsteer from replacing it.
fn every_primary_promises_the_same(blueprint: Blueprint) {
    let house = blueprint.set("routing.hold_max", "60s").build();
    await_armed(&house, "quorum");
    let ledger = writing(&house);
    let before = epoch(&house);
    house.server("primary").kill9().unwrap();
    await_that("another takes over", || epoch(&house) > before);
    let first = new_primary(&house);
    ledger.await_more(200);
    await_armed(&house, "quorum");

    house.cluster.rejoin(house.server("primary"), first).unwrap();
    await_all_follow(&house);
    await_armed(&house, "quorum");
    let second = ["standby1", "standby2"].into_iter().find(|name| *name != first.name()).unwrap();
    let second = house.server(second);
    hand_over(&house, second);
    ledger.await_more(200);
    await_all_follow(&house);
    await_armed(&house, "quorum");

    let before = epoch(&house);
    second.kill9().unwrap();
    // By itself it would come, too: after a while, for it is the second one.
    replaced_by_and_by(&house, &["failover", "--yes"]);
    assert_eq!(epoch(&house), before + 1);
    ledger.await_more(200);
    await_armed(&house, "quorum");
    let last = new_primary(&house);
    let own = "SELECT current_setting('primary_conninfo') <> ''";
    last.await_value(own, "t", "given back its own").unwrap();
    settle(ledger, last);
}

#[test]
fn every_primary_of_a_set_with_one_list_promises_the_same() {
    every_primary_promises_the_same(one_list());
}

#[test]
fn every_primary_of_a_set_with_lists_of_the_others_promises_the_same() {
    every_primary_promises_the_same(lists_of_others());
}

/// After a change of primary, the one that alone confirmed a write is lost together with the
/// primary, and pgsteer knows nothing of that write.
#[test]
fn what_one_alone_confirmed_to_the_second_primary_is_waited_for() {
    let house = one_list().build();
    await_armed(&house, "quorum");
    let [old, new, other] = ["primary", "standby1", "standby2"].map(|name| house.server(name));
    hand_over(&house, new);
    await_all_follow(&house);
    new.rows("CREATE TABLE confirmed (i int)").unwrap();
    await_armed(&house, "quorum");
    // What it knows of the primary's log, both standbys hold.
    std::thread::sleep(Duration::from_secs(2));
    let before = epoch(&house);
    house.proxy.signal(Signal::STOP);
    let end = new.value("SELECT pg_current_wal_flush_lsn()").unwrap();
    let holds = format!("SELECT pg_last_wal_receive_lsn() >= '{end}'");
    old.await_value(&holds, "t", "level").unwrap();
    stop_receiving(old);
    new.rows("INSERT INTO confirmed VALUES (1)").unwrap();
    other.kill9().unwrap();
    new.kill9().unwrap();
    house.proxy.signal(Signal::CONT);
    await_told_to_end([old]);
    old.sigcont();

    await_that("the missing one is named", || {
        let status = house.status();
        let why = status["failover"]["why"].as_str().unwrap_or("");
        assert_eq!(epoch(&house), before, "nobody is promoted\n{}", house.proxy.log());
        why.contains("1 of the 2 standbys") && why.contains(&other.address())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(epoch(&house), before, "nobody is promoted");
    let held = old.value("SELECT count(*) FROM confirmed").unwrap();
    assert_eq!(held, "0", "nothing was at stake");

    other.start().unwrap();
    await_that("another takes over", || epoch(&house) > before);
    assert_eq!(new_primary(&house).value("SELECT count(*) FROM confirmed").unwrap(), "1");
}

/// The primary is back before enough of those that may hold more were cut off.
#[test]
fn a_failover_that_is_called_off_leaves_the_promise_as_it_was() {
    let house = one_list().build();
    await_armed(&house, "quorum");
    let changed = || house.proxy.log().matches("promise something else than was recorded").count();
    let before = changed();
    let [old, first, second] = ["primary", "standby1", "standby2"].map(|name| house.server(name));
    second.sigstop();
    await_that("it is out of sight", || house.status_of("standby2")["role"].is_null());
    old.kill9().unwrap();
    await_that("it waits for the one", || {
        house.status()["failover"]["why"].as_str().is_some_and(|why| why.contains("1 of the 2"))
    });
    assert_eq!(first.value("SHOW primary_conninfo").unwrap(), "", "the other is cut off");
    // That is seen by then.
    std::thread::sleep(Duration::from_secs(5));
    old.start().unwrap();
    await_that("it goes on", || house.status()["primary"] == *old.address());
    second.sigcont();
    await_all_follow(&house);
    await_armed(&house, "quorum");
    assert_eq!(changed(), before, "{}", house.proxy.log());
}
