//! The primary dies in the middle of commits.

use super::epoch;
use super::new_primary;
use super::primaries;
use super::settle;
use super::writing;
use super::{await_armed, quorum};
use crate::support::House;
use crate::support::await_that;

/// How many times it dies in each way; `make test-all` sets more.
pub fn rounds() -> usize {
    let wished = std::env::var("PGSTEER_KILLS").ok();
    wished.map_or(2, |wished| wished.parse().unwrap())
}

/// Ends the primary's postmaster alone: its backends may go on for a moment, and acknowledge.
fn postmaster(house: &House) {
    let pid = house.server("primary").pid().unwrap();
    pgsteer::sandbox::kill(pid);
}

/// Ends every process of the primary.
fn everything(house: &House) {
    house.server("primary").kill9().unwrap();
}

fn dies_amid_writers(kill: impl Fn(&House)) {
    for round in 0..rounds() {
        let house = quorum().build();
        await_armed(&house, "quorum");
        let before = epoch(&house);
        let ledger = writing(&house);
        let at_stake = ledger.in_flight();
        kill(&house);
        // What is left of the old one may acknowledge a good many writes until then.
        await_that("another takes over", || epoch(&house) > before);
        ledger.await_more(500);
        let book = settle(ledger, new_primary(&house));
        assert_eq!(epoch(&house), before + 1, "one change of primary");
        assert!(at_stake > 0, "nothing was at stake");
        eprintln!(
            "round {round}: {} acknowledged, {} in doubt, {} refused, {at_stake} in flight at the \
             kill, longest wait {:?}",
            book.acknowledged.len(),
            book.in_doubt.len(),
            book.refused.len(),
            book.longest
        );
        await_that("one primary is left", || primaries(&house).len() == 1);
    }
}

#[test]
fn no_acknowledged_write_is_lost_when_all_of_the_primary_is_killed() {
    dies_amid_writers(everything);
}

#[test]
fn no_acknowledged_write_is_lost_when_its_postmaster_is_killed() {
    dies_amid_writers(postmaster);
}
