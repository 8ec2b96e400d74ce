//! What can't be written down is not done, is told, and is not done later behind anybody's back.

use super::{asynchronous, await_armed, epoch, new_primary, ordered, quorum, turned_down};
use crate::support::House;
use crate::support::await_that;
use crate::support::changes;
use crate::support::handed_over;
use crate::support::replaced;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// What an order exits with that was refused.
const REFUSED: Option<i32> = Some(4);
/// And one that is begun and waits.
const WAITS: Option<i32> = Some(5);
/// Many rounds of whoever decides, which takes one every tenth of a second.
const ROUNDS: Duration = Duration::from_secs(2);

/// Nothing can be written in the place of the record: its draft has the name of a directory. It
/// holds also for the superuser of the machine.
struct Obstacle(PathBuf);

impl Obstacle {
    fn put(house: &House) -> Self {
        let dir = std::fs::read_dir(house.proxy.dir().join("state")).unwrap();
        let mut paths = dir.map(|entry| entry.unwrap().path());
        let record = paths.find(|path| path.extension().is_some_and(|kind| kind == "json"));
        let draft = record.unwrap().with_extension("json.new");
        // Not while one is being written.
        await_that("the draft is none", || std::fs::create_dir(&draft).is_ok());
        Self(draft)
    }

    fn remove(self) {
        std::fs::remove_dir(self.0).unwrap();
    }
}

/// For many rounds nothing changes.
fn nothing_comes_of_it(house: &House, before: u64) {
    let began = pgsteer::clock::now();
    while pgsteer::clock::now().since(began) < ROUNDS {
        let status = house.status();
        assert_eq!(status["failover"]["phase"], "stable", "{}", house.proxy.log());
        assert_eq!(epoch(house), before, "it was carried out after all");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_switchover_that_cannot_be_recorded_is_refused_and_forgotten() {
    let house = quorum().set("failover.mode", "manual").build();
    await_that("it is known", || house.status()["failover"]["promise"] == "quorum");
    let before = epoch(&house);

    let obstacle = Obstacle::put(&house);
    let (code, said) = turned_down(&house, &["switchover", "--yes"]);
    assert_eq!(code, REFUSED, "{said}");
    assert!(said.contains("could not be recorded") && said.contains("json.new"), "{said}");
    house.wire().run("CREATE TABLE still_here ()");
    obstacle.remove();
    nothing_comes_of_it(&house, before);

    handed_over(&house, &["switchover", "--yes"]);
    assert_eq!(house.status()["failover"]["unavailable"], serde_json::Value::Null);
    assert_eq!(changes(&house).to_another, 1);
}

#[test]
fn a_failover_that_cannot_be_recorded_is_refused_and_forgotten() {
    let house = quorum().set("failover.mode", "manual").build();
    await_that("it is known", || house.status()["failover"]["promise"] == "quorum");
    let before = house.status()["failover"]["epoch"].clone();
    house.server("primary").kill9().unwrap();
    await_that("an operator is asked for", || {
        house.status()["failover"]["why"].as_str().is_some_and(|why| why.contains("is dead"))
    });

    let obstacle = Obstacle::put(&house);
    let (code, said) = turned_down(&house, &["failover", "--yes"]);
    assert_eq!(code, REFUSED, "{said}");
    assert!(said.contains("could not be recorded"), "{said}");
    obstacle.remove();
    let began = pgsteer::clock::now();
    while pgsteer::clock::now().since(began) < ROUNDS {
        assert_eq!(house.status()["failover"]["epoch"], before, "it was carried out after all");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(house.cluster.standbys().iter().all(|server| server.is_standby().unwrap()));

    replaced(&house, &["failover", "--yes"]);
    house.wire().run("CREATE TABLE after_all ()");
}

/// What is written on a server whose promotion is recorded nowhere is lost with the next start of
/// pgsteer, if the old primary is back by then: that is the one on record.
#[test]
fn one_that_another_tool_promoted_takes_no_writes_before_that_is_recorded() {
    let house = asynchronous().set("routing.hold_max", "500ms").build();
    await_armed(&house, "asynchronous");
    let (mut client, before) = (house.wire(), epoch(&house));
    let obstacle = Obstacle::put(&house);
    house.proxy.signal(Signal::STOP);
    let newcomer = house.server("standby1");
    newcomer.promote().unwrap();
    house.server("primary").kill9().unwrap();
    house.proxy.signal(Signal::CONT);
    await_that("it is found", || epoch(&house) > before);

    let told = client.query("CREATE TABLE too_early ()");
    assert_eq!(told.code(), "57P03", "{told:?}\n{}", house.proxy.log());
    assert!(house.status()["primary"].is_null(), "{}", house.status());
    assert_eq!(newcomer.value("SELECT to_regclass('too_early') IS NULL").unwrap(), "t");

    obstacle.remove();
    assert_eq!(new_primary(&house).name(), "standby1");
    client.run("CREATE TABLE in_time ()");
}

/// The disk is full in the middle: the operator is told at once; once it can be written again, a
/// switchover that is long overdue is called off.
#[test]
fn a_switchover_that_cannot_go_on_is_told_and_called_off_later() {
    let house =
        quorum().set("failover.drain_timeout", "10s").set("routing.hold_max", "60s").build();
    await_armed(&house, "quorum");
    let mut inside = house.wire();
    inside.run("CREATE TABLE kept (i int)");
    inside.run("BEGIN");
    inside.run("INSERT INTO kept VALUES (1)");

    std::thread::scope(|scope| {
        let order = scope.spawn(|| ordered(&house, &["switchover", "--yes"]));
        await_that("it drains", || house.status()["failover"]["phase"] == "draining");
        let obstacle = Obstacle::put(&house);
        inside.run("COMMIT");
        let held = scope.spawn(|| house.wire().run("INSERT INTO kept VALUES (2)"));
        let (code, said) = order.join().unwrap();
        assert_eq!(code, WAITS, "{said}");
        assert!(said.contains("could not be recorded"), "{said}");
        // Long after it was to be done.
        std::thread::sleep(Duration::from_secs(12));
        obstacle.remove();
        held.join().unwrap();
    });

    await_that("it is over", || house.status()["failover"]["phase"] == "stable");
    assert_eq!(new_primary(&house).name(), "primary", "{}", house.proxy.log());
    assert_eq!(house.server("primary").value("SELECT count(*) FROM kept").unwrap(), "2");
    let failures = house.proxy.log().matches("record_not_written").count();
    assert!(failures < 20, "the log is flooded: {failures} lines");
}
