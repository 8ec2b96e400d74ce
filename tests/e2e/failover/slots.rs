//! Standbys that receive through slots: wherever one followed before, nothing keeps the log for it.

use super::switchovers::patient;
use super::{await_armed, epoch, new_primary};
use crate::support::House;
use crate::support::await_that;
use crate::support::handed_over;
use pgsteer::clock;
use pgsteer::sandbox::{Server, Shutdown};
use rustix::process::Signal;
use std::time::Duration;

/// Longer than it takes to look at all servers and to act on that.
const LONG: Duration = Duration::from_secs(4);

/// Each standby receives through a slot of its own.
fn slotted() -> House {
    let house = patient().build_after(|cluster| {
        let primary = cluster.primary();
        for (standby, slot) in [("standby1", "s1"), ("standby2", "s2")] {
            let make = format!("SELECT pg_create_physical_replication_slot('{slot}')");
            primary.rows(&make).unwrap();
            cluster.server(standby).unwrap().set("primary_slot_name", slot).unwrap();
        }
        primary.await_value(USED, "2", "receiving through slots").unwrap();
    });
    await_armed(&house, "quorum");
    house
}

const USED: &str = "SELECT count(*) FROM pg_replication_slots WHERE active";

/// Slots through which nobody receives, and which keep the log all the same.
const KEEP: &str = "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), 'none') \
     FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL";

/// Hands over to this server, however often that is called off on a crowded machine.
fn hand_over(house: &House, to: &Server) {
    let before = epoch(house);
    handed_over(house, &["switchover", "--to", &to.address(), "--yes"]);
    assert!(epoch(house) > before);
    assert_eq!(new_primary(house).name(), to.name());
}

#[test]
fn slots_that_a_switchover_leaves_behind_keep_no_log() {
    let house = slotted();
    let [first, second] = ["primary", "standby1"].map(|name| house.server(name));

    // Who is the primary now received through one of them; who follows it through the other.
    hand_over(&house, second);
    second.await_value(USED, "1", "receiving through a slot").unwrap();
    first.await_value(KEEP, "none", "left behind by the first").unwrap();

    // They are there, and serve again.
    hand_over(&house, first);
    first.await_value(USED, "2", "receiving through slots again").unwrap();
    second.await_value(KEEP, "none", "left behind by the second").unwrap();
}

/// A tool that keeps slots on standbys, too, would make them again and again.
#[test]
fn slots_of_a_primary_that_another_tool_has_replaced_are_left_alone() {
    let house = slotted();
    let [first, second] = ["primary", "standby1"].map(|name| house.server(name));
    house.proxy.signal(Signal::STOP);
    first.stop(Shutdown::Fast).unwrap();
    assert_eq!(second.value("SELECT pg_promote()").unwrap(), "t");
    std::fs::write(first.data().join("standby.signal"), "").unwrap();
    first.start().unwrap();
    house.proxy.signal(Signal::CONT);

    // It has both follow.
    await_that("it is followed", || house.status()["primary"] == *second.address());
    for server in [first, house.server("standby2")] {
        let port = second.address().rsplit(':').next().unwrap().to_owned();
        let from = "SELECT coalesce(min(sender_port), 0) FROM pg_stat_wal_receiver";
        server.await_value(from, &port, "receiving from the new one").unwrap();
    }
    // Who has left may be seen there for a while.
    first.await_value(KEEP, "s1 s2", "left by both").unwrap();
    let began = clock::now();
    while clock::now().since(began) < LONG {
        assert_eq!(first.value(KEEP).unwrap(), "s1 s2");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_slot_of_a_standby_that_is_away_keeps_its_log() {
    let house = slotted();
    let [first, second, third] = ["primary", "standby1", "standby2"].map(|name| house.server(name));
    third.kill9().unwrap();
    first.await_value(KEEP, "s2", "its standby is away").unwrap();

    hand_over(&house, second);
    first.await_value("SELECT pg_is_in_recovery()", "t", "following").unwrap();

    // The other one, of the primary of now, is emptied meanwhile.
    first.await_value(KEEP, "s2", "only the one that is away may want its log").unwrap();
}

/// It is there, and since PostgreSQL 18 nobody gets in through it.
#[test]
fn a_slot_that_has_lost_its_log_lets_its_standby_in_all_the_same() {
    let house = slotted();
    let [first, second] = ["primary", "standby1"].map(|name| house.server(name));
    second.set("wal_keep_size", "0").unwrap();
    second.set("max_slot_wal_keep_size", "1MB").unwrap();
    second.rows("SELECT pg_create_physical_replication_slot('s2', true)").unwrap();
    let lost = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'";
    await_that("its log is lost", || {
        first.rows("SELECT pg_switch_wal()").unwrap();
        first.rows("CHECKPOINT").unwrap();
        house.cluster.await_replay().unwrap();
        second.rows("CHECKPOINT").unwrap();
        second.value(lost).unwrap() == "1"
    });
    second.set("max_slot_wal_keep_size", "-1").unwrap();

    hand_over(&house, second);

    second.await_value(USED, "1", "receiving through it").unwrap();
    assert_eq!(second.value(lost).unwrap(), "0");
}
