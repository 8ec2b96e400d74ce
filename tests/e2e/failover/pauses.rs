//! The primary stands still, is replaced, and wakes up again.

use super::new_primary;
use super::primaries;
use super::settle;
use super::writing;
use super::{asynchronous, await_armed, quorum};
use crate::support::Wire;
use crate::support::await_that;
use pgsteer::sandbox::StatementLog;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Somebody who writes to the old primary past pgsteer, whatever happens.
fn direct(house: &crate::support::House, stop: &Arc<AtomicBool>) -> Arc<AtomicUsize> {
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
    let numbers = house.server("primary").log();
    assert!(!numbers.contains("PANIC"), "{numbers}");
    settle(ledger, new_primary(&house));
    assert!(primaries(&house).len() <= 2);
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
