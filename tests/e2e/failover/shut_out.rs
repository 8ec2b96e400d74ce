//! The new primary does not let its standby in: the failover comes to its end all the same, nothing
//! that was acknowledged is lost, and the operator is told who is shut out, why, and what helps.

use super::{await_armed, new_primary, ordered, quorum, settle, writing};
use crate::support::Blueprint;
use crate::support::Door;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Only the first standby may lead, and only the second can confirm what is committed there.
fn pair() -> Blueprint {
    quorum().never_leads("standby2")
}

/// Waits until `pgsteer status` names the second standby and the cause; what it says.
fn told(house: &House, cause: &str) -> String {
    let address = house.server("standby2").address();
    let why = || house.status()["failover"]["why"].as_str().unwrap_or_default().to_owned();
    await_that(&format!("{address} is named, and {cause}"), || {
        let why = why();
        why.contains(&address) && why.contains(cause)
    });
    let log = house.proxy.log();
    let line = log.lines().find(|line| line.contains(&address) && line.contains(cause));
    assert!(line.is_some(), "{log}");
    let (_, said) = ordered(house, &["status"]);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Others take every place that a server has, for connections or for receivers.
pub struct Crowd {
    leaves: Arc<AtomicBool>,
    comes: JoinHandle<()>,
}

impl Crowd {
    /// As receivers of the log.
    pub fn come(house: &House, server: &str) -> Self {
        Self::come_as(house, server, &[("replication", "true")])
    }

    /// Returns when there is no place left. One that becomes free is taken at once: on a crowded
    /// machine pgsteer may lose a connection of its own.
    pub fn come_as(house: &House, server: &str, more: &[(&'static str, &'static str)]) -> Self {
        let address = house.server(server).address().parse().unwrap();
        let params = [&[("user", "postgres"), ("database", "postgres")], more].concat();
        let next = move || Wire::log_in_with(address, &params).ok();
        let mut inside: Vec<_> = std::iter::from_fn(&next).collect();
        assert!(!inside.is_empty(), "there was no place");
        let leaves = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&leaves);
        let comes = std::thread::spawn(move || {
            while !left.load(Ordering::SeqCst) {
                inside.extend(next());
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { leaves, comes }
    }

    pub fn leave(self) {
        self.leaves.store(true, Ordering::SeqCst);
        self.comes.join().unwrap();
    }
}

#[test]
fn without_a_place_for_its_standby_the_new_primary_takes_over_and_the_operator_is_told() {
    let house = pair().servers(|plan| plan.setting("max_wal_senders", "10")).build();
    await_armed(&house, "quorum");
    let ledger = writing(&house);
    let crowd = Crowd::come(&house, "standby1");
    house.server("primary").kill9().unwrap();

    await_that("it takes over", || new_primary(&house).name() == "standby1");
    let said = told(&house, "all 10 places");
    assert!(said.contains("max_wal_senders"), "{said}");

    // What it says helps.
    crowd.leave();
    ledger.await_more(300);
    settle(ledger, house.server("standby1"));
    let why = || house.status()["failover"]["why"].clone();
    await_that("nothing is left to be told", || why().is_null());
}

#[test]
fn with_a_wrong_password_for_its_standby_the_new_primary_takes_over_and_the_operator_is_told() {
    let house = pair().build_after(|cluster| {
        let (first, second) = (cluster.primary(), cluster.server("standby2").unwrap());
        first.rows("CREATE ROLE third REPLICATION LOGIN PASSWORD 'right'").unwrap();
        cluster.await_replay().unwrap();
        // The primary of now asks nobody for a password.
        second.set("primary_conninfo", &link(first.port(), "wrong")).unwrap();
        let follows = "SELECT count(*) FROM pg_stat_replication WHERE usename = 'third'";
        first.await_value(follows, "1", "following as another user").unwrap();
    });
    await_armed(&house, "quorum");
    let first = house.server("standby1");
    let _door = Door::guard(first, "host replication third all scram-sha-256");
    let ledger = writing(&house);
    house.server("primary").kill9().unwrap();

    await_that("it takes over", || new_primary(&house).name() == "standby1");
    let said = told(&house, "password");
    assert!(said.contains("pg_hba.conf") && said.contains("primary_conninfo"), "{said}");
    assert!(!said.contains("max_wal_senders"), "there is room: {said}");

    house.server("standby2").set("primary_conninfo", &link(first.port(), "right")).unwrap();
    ledger.await_more(300);
    settle(ledger, first);
}

fn link(port: u16, password: &str) -> String {
    format!("host=127.0.0.1 port={port} user=third password={password} application_name=standby2")
}
