//! A standby answers and can't be frozen: nobody is promoted past what only it may hold, and the
//! operator is told who it is, why, and what helps.

use super::{asynchronous, await_armed, epoch, new_primary, quorum, turned_down};
use super::{settle, tells, writing};
use crate::support::House;
use crate::support::await_that;
use crate::support::replaced;
use pgsteer::sandbox::Server;
use std::path::PathBuf;

/// A server on which `ALTER SYSTEM` fails, until this is dropped.
struct Stuck(PathBuf);

impl Stuck {
    fn new(server: &Server) -> Self {
        // PostgreSQL writes the settings to a file of this name first.
        let taken = server.data().join("postgresql.auto.conf.tmp");
        std::fs::create_dir(&taken).unwrap();
        Self(taken)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).unwrap();
    }
}

/// Waits until `pgsteer status` names the standby that is stuck, and why, and says these words.
fn await_told(house: &House, words: &[&str]) {
    let address = house.server("standby2").address();
    let named = format!("waiting for {address} (it answers, and can't be frozen: ");
    let words = [&[named.trim_end(), "postgresql.auto.conf.tmp"], words].concat();
    await_that(&format!("it says {words:?}"), || tells(house, &words));
}

/// Whatever is configured: that is no order.
#[test]
fn with_a_quorum_nobody_is_promoted_past_one_that_can_not_be_frozen() {
    let house = quorum().set("failover.max_data_loss", "any").build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    let ledger = writing(&house);
    let stuck = Stuck::new(house.server("standby2"));
    house.server("primary").kill9().unwrap();

    await_told(&house, &["1 of the 2 standbys", "--accept-loss any"]);
    let to = house.server("standby1").address();
    let (code, said) = turned_down(&house, &["failover", "--to", &to, "--yes"]);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("--accept-loss any"), "{said}");
    assert_eq!(epoch(&house), before, "nobody was promoted");
    assert!(house.server("standby1").is_standby().unwrap());

    drop(stuck);
    ledger.await_more(300);
    settle(ledger, new_primary(&house));
}

/// What it says helps.
#[test]
fn an_operator_goes_on_without_one_that_can_not_be_frozen() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let stuck = Stuck::new(house.server("standby2"));
    house.server("primary").kill9().unwrap();
    await_told(&house, &["--accept-loss any"]);

    replaced(&house, &["failover", "--accept-loss", "any", "--yes"]);
    assert_eq!(new_primary(&house).name(), "standby1");
    // It demands a confirmation, too, and the one that could give it is not made to follow yet.
    drop(stuck);
    house.wire().run("CREATE TABLE taken ()");
}

/// Without a quorum it is one that may hold more, and what it may hold is weighed.
#[test]
fn without_a_quorum_one_that_can_not_be_frozen_holds_up_nobody() {
    let house = asynchronous().set("failover.max_data_loss", "any").build();
    await_armed(&house, "asynchronous");
    let _stuck = Stuck::new(house.server("standby2"));
    house.server("primary").kill9().unwrap();
    await_that("the other one is promoted", || new_primary(&house).name() == "standby1");
    house.wire().run("CREATE TABLE taken ()");
}
