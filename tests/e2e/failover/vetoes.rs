//! What is no reason for a failover.

use super::epoch;
use super::settle;
use super::writing;
use super::{await_armed, new_primary, quorum};
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use rustix::process::Signal;
use std::time::Duration;

/// Longer than every limit after which a silent or lost primary is replaced.
const LONG: Duration = Duration::from_secs(8);

/// The primary is still the one of before, and nothing but that was ever decided.
fn nothing_changed(house: &House, before: u64) {
    assert_eq!(new_primary(house).name(), "primary", "{}", house.proxy.log());
    assert_eq!(epoch(house), before, "{}", house.proxy.log());
    assert!(!house.proxy.log().contains("revoking"), "{}", house.proxy.log());
}

#[test]
fn a_primary_whose_connections_are_all_in_use_is_not_replaced() {
    let house = quorum().servers(|plan| plan.setting("max_connections", "110")).build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    let address = house.server("primary").address().parse().unwrap();
    let mut crowd = Vec::new();
    while let Ok(wire) = Wire::log_in(address, "postgres") {
        crowd.push(wire);
    }
    assert!(crowd.len() > 10, "the server was full before");
    std::thread::sleep(LONG);
    drop(crowd);
    house.wire().run("CREATE TABLE after_the_crowd ()");
    nothing_changed(&house, before);
}

#[test]
fn a_primary_that_restarts_after_a_crash_of_one_backend_is_not_replaced() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    let ledger = writing(&house);
    let victim = house.server("primary").value(
        "SELECT pid FROM pg_stat_activity WHERE application_name = '' \
         AND backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1",
    );
    pgsteer::sandbox::kill(victim.unwrap().parse().unwrap());
    // It may be back before anybody but the clients has felt it.
    await_that("it restarts", || house.server("primary").logged("was terminated by signal 9") > 0);
    ledger.await_more(500);
    settle(ledger, house.server("primary"));
    nothing_changed(&house, before);
}

#[test]
fn a_lost_standby_a_late_probe_and_a_pause_of_pgsteer_replace_nobody() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    let ledger = writing(&house);

    house.server("standby1").kill9().unwrap();
    ledger.await_more(200);
    house.server("standby1").start().unwrap();

    // One probe is late: the primary is frozen for less than the limit.
    house.server("primary").sigstop();
    std::thread::sleep(Duration::from_millis(1500));
    house.server("primary").sigcont();
    ledger.await_more(200);

    house.proxy.signal(Signal::STOP);
    std::thread::sleep(LONG);
    house.proxy.signal(Signal::CONT);
    ledger.await_more(200);

    settle(ledger, house.server("primary"));
    nothing_changed(&house, before);
}
