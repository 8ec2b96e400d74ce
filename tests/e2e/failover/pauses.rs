//! The primary stands still, is replaced, and wakes up again.

use super::new_primary;
use super::settle;
use super::writing;
use super::{asynchronous, await_armed, quorum};
use crate::support::Door;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use pgsteer::sandbox::StatementLog;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Somebody who writes to the old primary past pgsteer, whatever happens.
fn direct(house: &House, stop: &Arc<AtomicBool>) -> Arc<AtomicUsize> {
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let address = house.server("primary").address().parse().unwrap();
    let mut wire = Wire::log_in(address, "postgres").unwrap();
    wire.run("CREATE TABLE direct (number int)");
    let (stop, count) = (Arc::clone(stop), Arc::clone(&acknowledged));
    std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            let reply = wire.query("INSERT INTO direct VALUES (1)");
            if !reply.is_good() {
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    acknowledged
}

#[test]
fn a_primary_that_wakes_up_after_it_was_replaced_acknowledges_nothing() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = direct(&house, &stop);
    let ledger = writing(&house);
    await_that("it acknowledges", || acknowledged.load(Ordering::SeqCst) > 10);

    house.server("primary").sigstop();
    let before = acknowledged.load(Ordering::SeqCst);
    ledger.await_more(500);
    assert_ne!(new_primary(&house).name(), "primary");
    house.server("primary").sigcont();
    // It is awake, fenced and cordoned, and others go on.
    await_that("the old primary is seen", || house.status_of("primary")["state"] != "down");
    ledger.await_more(500);

    stop.store(true, Ordering::SeqCst);
    // One answer may have been on its way when it was stopped.
    let after = acknowledged.load(Ordering::SeqCst);
    assert!(after <= before + 1, "it acknowledged {} writes", after - before);
    assert!(!house.server("primary").log().contains("PANIC"));
    let kept = kept(&house);
    assert!(kept >= after, "{after} writes were acknowledged past pgsteer, and {kept} are there");
    settle(ledger, new_primary(&house));
}

/// How many of the direct writes are there now.
fn kept(house: &House) -> usize {
    new_primary(house).value("SELECT count(*) FROM direct").unwrap().parse().unwrap()
}

/// The opposite arm: without a quorum, and where pgsteer can't come in to fence it, a primary that
/// wakes up acknowledges what is lost, to whoever goes past pgsteer.
#[test]
fn without_a_quorum_a_primary_that_wakes_up_acknowledges_what_is_lost() {
    let house = asynchronous().set("failover.max_data_loss", "any").build();
    await_armed(&house, "asynchronous");
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = direct(&house, &stop);
    await_that("it acknowledges", || acknowledged.load(Ordering::SeqCst) > 10);
    let old = house.server("primary");
    let door = Door::shut(old, "host all all all");

    old.sigstop();
    let before = acknowledged.load(Ordering::SeqCst);
    await_that("it is replaced", || new_primary(&house).name() != "primary");
    old.sigcont();

    await_that("it acknowledges", || acknowledged.load(Ordering::SeqCst) > before + 100);
    stop.store(true, Ordering::SeqCst);
    assert!(kept(&house) < acknowledged.load(Ordering::SeqCst) - 90, "they are not lost");
    door.open();
}

/// Without a quorum whoever goes past pgsteer may be told a success that is lost: pgsteer's own
/// clients are not.
#[test]
fn a_primary_that_wakes_up_is_sent_no_write_without_a_quorum_either() {
    let house = asynchronous()
        .servers(|plan| plan.log(StatementLog::All))
        .set("failover.max_data_loss", "any")
        .build();
    await_armed(&house, "asynchronous");
    let ledger = writing(&house);
    let old = house.server("primary");

    old.sigstop();
    await_that("it is replaced", || {
        let status = house.status();
        status["primary"].is_string()
            && status["primary"] != old.address()
            && status["failover"]["phase"] == "stable"
    });
    // From here on a write of a client says so.
    let mut wires: Vec<_> = (0..4).map(|_| house.wire()).collect();
    wires[0].run("CREATE TABLE late (number int)");
    let mut write = |times: usize| {
        for number in 0..times {
            for wire in &mut wires {
                wire.run(&format!("INSERT INTO late VALUES ({number})"));
            }
        }
    };
    write(10);
    old.sigcont();
    await_that("the old primary is seen", || house.status_of("primary")["state"] != "down");
    write(200);

    let book = ledger.close();
    let log = old.log();
    assert!(log.contains("INSERT INTO ledger"), "it logs what it is sent");
    assert!(!log.contains("late"), "it was sent a write:\n{log}");
    assert_eq!(book.disconnected, 0, "clients keep their connection");
    assert_eq!(new_primary(&house).value("SELECT count(*) FROM late").unwrap(), "840");
}
