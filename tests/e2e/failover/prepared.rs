//! Transactions that were prepared on the old primary are on the new one, too, and hold their locks
//! there: the operator is told of each, and nothing waits for them.

use super::{await_armed, new_primary, ordered, quorum, turned_down};
use crate::support::Blueprint;
use crate::support::CALLED_OFF;
use crate::support::House;
use crate::support::await_that;
use crate::support::handed_over;
use pgsteer::wire::message;
use serde_json::Value;
use std::time::Duration;

/// Servers on which transactions can be prepared.
fn preparing(blueprint: Blueprint) -> Blueprint {
    blueprint.servers(|plan| plan.setting("max_prepared_transactions", "8"))
}

/// One client has prepared these, and is gone; each holds the lock of a row of its own.
fn prepare(house: &House, names: &[&str]) {
    let mut wire = house.wire();
    wire.run("CREATE TABLE IF NOT EXISTS kept (name text PRIMARY KEY, times int)");
    for name in names {
        wire.run(&format!("INSERT INTO kept VALUES ('{name}', 0)"));
        wire.run("BEGIN");
        wire.run(&format!("UPDATE kept SET times = times + 1 WHERE name = '{name}'"));
        wire.run(&format!("PREPARE TRANSACTION '{name}'"));
    }
}

/// What the status says of those that are left, once there are so many.
fn left(house: &House, count: usize) -> Vec<Value> {
    let now = || house.status()["failover"]["prepared"].as_array().cloned().unwrap_or_default();
    await_that(&format!("{count} are left"), || now().len() == count);
    now()
}

fn gauge(house: &House) -> Option<f64> {
    house.metric("pgsteer_failover_prepared_transactions")
}

fn told(house: &House) -> String {
    let (_, said) = ordered(house, &["status"]);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A standby may not show yet what another session has committed.
fn times(house: &House, name: &str) -> String {
    let sql = format!("SELECT times FROM kept WHERE name = '{name}'");
    new_primary(house).value(&sql).unwrap()
}

/// Until then they are in nobody's way; from then on each is named, until it is ended.
#[test]
fn what_was_prepared_before_a_failover_is_named_until_somebody_ends_it() {
    let house = preparing(quorum()).build();
    await_armed(&house, "quorum");
    prepare(&house, &["first", "it''s"]);
    assert_eq!(gauge(&house), Some(0.0));
    house.server("primary").kill9().unwrap();
    await_that("another takes over", || new_primary(&house).name() != "primary");

    let all = left(&house, 2);
    assert_eq!(all[0]["gid"], "first");
    assert_eq!((&all[0]["owner"], &all[0]["database"]), (&"postgres".into(), &"postgres".into()));
    assert_eq!(all[1]["gid"], "it's");
    assert_eq!(gauge(&house), Some(2.0));
    for text in [told(&house), house.proxy.log()] {
        for what in ["COMMIT PREPARED 'first'", "ROLLBACK PREPARED 'it''s'"] {
            assert!(text.contains(what), "{what}: {text}");
        }
    }
    let log = house.proxy.log();
    assert_eq!(log.matches("prepared_left").count(), 2, "each once: {log}");

    // What it says helps; and what is prepared now is its owner's.
    house.wire().run("COMMIT PREPARED 'first'");
    assert_eq!(left(&house, 1)[0]["gid"], "it's");
    house.wire().run("ROLLBACK PREPARED 'it''s'");
    prepare(&house, &["later"]);
    assert_eq!(left(&house, 0), [Value::Null; 0]);
    // Meanwhile the primary is surveyed.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((left(&house, 0), gauge(&house)), (Vec::new(), Some(0.0)));
    assert_eq!((&*times(&house, "first"), &*times(&house, "it''s")), ("1", "0"));
}

/// A switchover waits for sessions, and these have none.
#[test]
fn a_switchover_waits_for_nothing_that_is_prepared_and_names_it() {
    let house = preparing(quorum()).build();
    await_armed(&house, "quorum");
    prepare(&house, &["over"]);

    handed_over(&house, &["switchover", "--yes"]);

    assert_eq!(left(&house, 1)[0]["gid"], "over");
    house.wire().run("COMMIT PREPARED 'over'");
    assert_eq!(times(&house, "over"), "1");
    left(&house, 0);
}

/// Who waits for its lock is at work: the switchover is called off in its time, and he feels
/// nothing of it.
#[test]
fn who_waits_for_what_is_prepared_calls_a_switchover_off_and_goes_on() {
    let house = preparing(quorum()).set("failover.drain_timeout", "1s").build();
    await_armed(&house, "quorum");
    prepare(&house, &["locked"]);
    let mut waiting = house.wire();
    waiting.run("BEGIN");
    let mut update = Vec::new();
    message::write_query(&mut update, "UPDATE kept SET times = 7 WHERE name = 'locked'");
    waiting.send(&update).unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    house.server("primary").await_value(waits, "1", "waiting for the lock").unwrap();

    let (code, said) = turned_down(&house, &["switchover", "--yes"]);
    assert_eq!(code, CALLED_OFF, "{said}");

    house.wire().run("ROLLBACK PREPARED 'locked'");
    assert!(waiting.reply().is_good());
    waiting.run("COMMIT");
    assert_eq!((new_primary(&house).name(), &*times(&house, "locked")), ("primary", "7"));
}
