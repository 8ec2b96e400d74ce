//! The table of what becomes of a session's work, lived through row by row.

use super::Loss;
use super::Scene;
use super::ask;
use super::extended;
use super::query;
use crate::support::Ended;
use crate::support::await_that;

#[test]
fn a_session_of_a_killed_primary_lives_on() {
    live_through(Loss::Killed);
}

#[test]
fn a_session_of_a_hung_primary_lives_on() {
    live_through(Loss::Hung);
}

fn live_through(how: Loss) {
    let scene = Scene::new("");
    let house = &scene.house;
    // In doubt: under way, and nobody knows how far.
    let slow = |id: i32| format!("INSERT INTO ledger SELECT {id} FROM pg_sleep(60) /* m{id} */");
    let in_doubt = [ask(house.wire(), query(&slow(1))), ask(house.wire(), extended(&slow(2)))];
    for id in [1, 2] {
        await_that("it runs", || scene.runs("primary", &format!("/* m{id} */")) > 0);
    }
    scene.lose(how);
    // Sent while there is no primary: held.
    let held = ask(house.wire(), query("INSERT INTO ledger VALUES (3)"));
    let changed = scene.take_over();
    for waits in in_doubt {
        let (reply, mut wire) = waits.end(changed);
        assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
        wire.run("INSERT INTO ledger VALUES (4)");
    }
    let (reply, mut wire) = held.end(changed);
    assert_eq!(reply.tags, ["INSERT 0 1"], "{reply:?}");
    wire.run("INSERT INTO ledger VALUES (4)");
    assert_eq!([1, 2, 3, 4].map(|id| scene.count(id)), [0, 0, 1, 3]);
}
