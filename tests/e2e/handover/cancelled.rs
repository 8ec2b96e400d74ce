//! A cancel while a transaction is begun anew on another server: it is for the statement that its
//! client waits for, and for nothing if it waits for none.

use super::*;
use crate::support::Ended;

/// What its client waits for when the primary is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// A read that is under way, and is kept to be run again.
    Before,
    /// One that is asked for only when the primary is lost.
    After,
    /// Nothing: it thinks.
    Never,
}

/// The transaction of this one has only begun, so that it begins anew.
fn begun(scene: &Scene) -> Wire {
    let mut wire = scene.house.wire();
    wire.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    wire
}

#[test]
fn a_cancel_while_a_transaction_begins_anew_is_for_what_its_client_waits_for() {
    let scene = Scene::new("", &["CREATE TABLE locked (i int)"]);
    let (house, primary) = (&scene.house, scene.house.server("primary"));
    let address = house.proxy.address();
    let mut locker = primary.connect("postgres").unwrap();
    locker.rows("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").unwrap();
    let read = query("SELECT count(*) FROM locked /* read */");
    let mut cases: Vec<(Asks, bool, Wire)> = Vec::new();
    for asks in [Asks::Before, Asks::After, Asks::Never] {
        for cancels in [true, false] {
            cases.push((asks, cancels, begun(&scene)));
        }
    }
    for (_, _, wire) in cases.iter_mut().filter(|(asks, ..)| *asks == Asks::Before) {
        wire.send(&read).unwrap();
    }
    primary
        .await_value("SELECT count(*) FROM pg_locks WHERE NOT granted", "2", "it waits")
        .unwrap();
    scene.lose(Loss::Killed);
    let waiting = r#"pgsteer_client_connections{state="waiting"}"#;
    await_that("they begin anew", || house.metric(waiting) == Some(6.0));
    for (_, _, wire) in cases.iter_mut().filter(|(asks, ..)| *asks == Asks::After) {
        wire.send(&read).unwrap();
    }
    // It is taken in while it waits.
    let all = f64::from(u32::try_from(4 * read.len()).unwrap());
    await_that("it is there", || house.metric("pgsteer_held_bytes") == Some(all));
    for (asks, _, wire) in cases.iter_mut().filter(|(_, cancels, _)| *cancels) {
        wire.cancel(address);
        if *asks == Asks::Never {
            let said = wire.unasked(Duration::from_millis(200));
            assert!(said.is_empty(), "{said:?}");
            continue;
        }
        let told = wire.reply();
        let expected = (vec!["57014"], Ended::Ready('E'));
        assert_eq!((told.codes(), told.ended), expected, "{asks:?}: {told:?}");
        assert!(told.error().detail.contains("held"), "{asks:?}: {told:?}");
    }
    drop(locker);
    scene.take_over();
    for (asks, cancels, mut wire) in cases {
        if cancels && asks != Asks::Never {
            // To the client it is in a transaction that has failed, as with a server alone.
            assert_eq!(wire.query("SELECT 1").code(), "25P02", "{asks:?}");
            assert_eq!(wire.run("COMMIT").tags, ["ROLLBACK"], "{asks:?}");
        } else {
            if asks == Asks::Never {
                wire.send(&read).unwrap();
            }
            let told = wire.reply();
            assert_eq!(told.value().as_deref(), Some("0"), "{asks:?} {cancels}: {told:?}");
            assert_eq!(wire.value("SHOW transaction_isolation"), "repeatable read", "{asks:?}");
            assert_eq!(wire.run("COMMIT").tags, ["COMMIT"], "{asks:?}");
        }
        wire.run("INSERT INTO ledger VALUES (1)");
    }
    assert_eq!(scene.runs("standby1", "/* read */"), 4, "none that was cancelled");
    assert_eq!(scene.count(1), 6, "every session goes on");
}
