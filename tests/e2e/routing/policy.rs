//! Lag thresholds, weights, and what happens when no standby qualifies.
//!
//! One house; each step gives the proxy another configuration and a reload, so this is also a
//! test of what a reload takes over.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::held_for;
use pgsteer::clock;
use std::collections::BTreeMap;
use std::time::Duration;

const WHERE: &str = "SELECT current_setting('cluster_name') FROM pg_class LIMIT 1";
/// Longer than the limits of time that are set here.
const LONG: Duration = Duration::from_millis(900);

#[test]
fn lag_and_weights_decide_who_serves() {
    let house = Blueprint::new().unhurried().build();
    house.await_catalog();
    house.server("primary").rows("CREATE TABLE filling (i int, t text)").unwrap();
    house.cluster.await_replay().unwrap();

    bytes(&house);
    time(&house);
    when_none_qualifies(&house);
    weights(&house);
    least_active(&house);
}

/// Who answers reads of fresh sessions now.
fn readers(house: &House) -> BTreeMap<String, usize> {
    let mut readers = BTreeMap::new();
    for _ in 0..20 {
        *readers.entry(house.wire().value(WHERE)).or_default() += 1;
    }
    readers
}

fn only(house: &House, names: &[&str]) -> bool {
    let readers = readers(house);
    readers.keys().map(String::as_str).eq(names.iter().copied())
}

fn write(house: &House, bytes: usize) {
    // Text that does not compress, so that the log grows by as much.
    let sql = format!(
        "INSERT INTO filling SELECT 0, string_agg(md5(random()::text), '') \
         FROM generate_series(1, {})",
        bytes / 32
    );
    house.server("primary").rows(&sql).unwrap();
}

fn bytes(house: &House) {
    house.reload("[routing]\nmax_lag.bytes = \"1MB\"\nmax_lag.time = \"off\"\n");
    await_that("both serve", || only(house, &["standby1", "standby2"]));
    house.server("standby1").pause_replay().unwrap();
    write(house, 8 * 1024);
    std::thread::sleep(LONG);
    await_that("a little behind is allowed, however long", || {
        only(house, &["standby1", "standby2"])
    });

    write(house, 4 * 1024 * 1024);
    await_that("standby1 is too far behind", || only(house, &["standby2"]));
    house.server("standby1").resume_replay().unwrap();
    await_that("it is back by itself", || only(house, &["standby1", "standby2"]));
}

fn time(house: &House) {
    house.reload("[routing]\nmax_lag.bytes = \"off\"\nmax_lag.time = \"300ms\"\n");
    // An idle primary makes nobody late.
    house.server("standby2").pause_replay().unwrap();
    std::thread::sleep(LONG);
    await_that("nothing was written: nobody is behind", || only(house, &["standby1", "standby2"]));

    write(house, 100);
    await_that("standby2 is too late", || only(house, &["standby1"]));
    house.server("standby2").resume_replay().unwrap();
    await_that("it is back by itself", || only(house, &["standby1", "standby2"]));
}

fn when_none_qualifies(house: &House) {
    let limits = "[routing]\nmax_lag.bytes = \"off\"\nmax_lag.time = \"300ms\"\n";
    house.server("standby1").pause_replay().unwrap();
    house.server("standby2").pause_replay().unwrap();
    write(house, 100);
    await_that("the primary answers reads", || only(house, &["primary"]));

    house.reload(&format!("{limits}on_all_stale = \"error\"\n"));
    await_that("no standby is fit by the new rules", || {
        house.wire().query(WHERE).code() == "57P03"
    });
    let refused = house.wire().query(WHERE);
    assert_eq!(refused.codes(), ["57P03"], "{refused:?}");
    assert_eq!(refused.error().message, "no standby qualifies for this read");
    assert!(refused.error().hint.contains("routing.on_all_stale"), "{refused:?}");
    assert_eq!(refused.ended, Ended::Ready('I'), "the client stays connected");
    assert!(house.wire().query("CREATE TABLE written ()").is_good(), "writes go on");

    // Held, and answered by a standby as soon as one has caught up.
    house.reload(&format!("{limits}on_all_stale = \"wait\"\nhold_max = \"40s\"\n"));
    let mut waiting = house.wire();
    let waiter = std::thread::spawn(move || waiting.value(WHERE));
    await_that("the read is held", || {
        house.metric(r#"pgsteer_client_connections{state="waiting"}"#) == Some(1.0)
    });
    house.server("standby2").resume_replay().unwrap();
    assert_eq!(waiter.join().unwrap(), "standby2");

    // Held for as long as it may be.
    house.server("standby2").pause_replay().unwrap();
    write(house, 100);
    house.reload(&format!("{limits}on_all_stale = \"wait\"\nhold_max = \"500ms\"\n"));
    await_that("no standby is fit", || house.wire().query(WHERE).code() == "57P03");
    let began = clock::now();
    let refused = house.wire().query(WHERE);
    let held = clock::now().since(began);
    assert_eq!(refused.codes(), ["57P03"]);
    assert!(held >= Duration::from_millis(500), "it was held: {held:?}");
    assert!(held_for(&refused) >= 0.5, "{refused:?}");
    house.server("standby1").resume_replay().unwrap();
    house.server("standby2").resume_replay().unwrap();
}

fn weights(house: &House) {
    let [first, second] = ["standby1", "standby2"].map(|name| house.server(name).address());
    let balance = |rule: &str, one: u32, two: u32| {
        format!(
            "[routing]\nbalance = \"{rule}\"\nmax_lag.bytes = \"off\"\nmax_lag.time = \"off\"\n\
             [servers.overrides]\n\
             \"{first}\" = {{ weight = {one} }}\n\"{second}\" = {{ weight = {two} }}\n"
        )
    };
    house.reload(&balance("weighted", 3, 1));
    await_that("three of four go to standby1", || {
        let readers = readers(house);
        readers.get("standby1") == Some(&15) && readers.get("standby2") == Some(&5)
    });
    house.reload(&balance("weighted", 0, 1));
    await_that("none go to weight 0", || only(house, &["standby2"]));
    house.reload(&balance("least-active", 0, 0));
    await_that("none at all: the primary", || only(house, &["primary"]));
    house.reload(&balance("least-active", 1, 1));
    await_that("both again", || only(house, &["standby1", "standby2"]));
}

/// Whoever is busy gets no more than the others.
fn least_active(house: &House) {
    let mut holders: Vec<Wire> = Vec::new();
    let mut held = BTreeMap::new();
    for _ in 0..8 {
        let mut wire = house.wire();
        wire.run("BEGIN READ ONLY");
        *held.entry(wire.value(WHERE)).or_insert(0) += 1;
        holders.push(wire);
    }
    let even = BTreeMap::from([("standby1".to_owned(), 4), ("standby2".to_owned(), 4)]);
    assert_eq!(held, even, "transactions that last are spread evenly");
    // Those of standby1 end: it gets all until it has as many.
    for wire in &mut holders {
        if wire.value(WHERE) == "standby1" {
            wire.run("COMMIT");
        }
    }
    for _ in 0..4 {
        let mut wire = house.wire();
        wire.run("BEGIN READ ONLY");
        assert_eq!(wire.value(WHERE), "standby1");
        holders.push(wire);
    }
}
