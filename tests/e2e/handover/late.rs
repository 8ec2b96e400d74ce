//! A primary that slept while it was replaced wakes up and answers, before those who wait for the
//! answer have heard that it is the primary no more.

use super::*;
use crate::support::Ended;
use crate::support::HeldShard;

/// The shard finds the old primary's success and the news of the new one together: the success is
/// worth nothing, in whatever pieces it comes.
#[test]
fn a_success_that_came_together_with_the_news_is_not_passed_on() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let (old, new) = (house.server("primary"), house.server("standby1"));
    let mut locker = old.connect("postgres").unwrap();
    let mut watcher = old.connect("postgres").unwrap();
    locker.rows("BEGIN; LOCK TABLE ledger").unwrap();
    // The one is passed on as a whole; in the other is something to be looked at.
    let whole = ask(house.wire(), query("INSERT INTO ledger VALUES (1)"));
    let pieces = "INSERT INTO ledger VALUES (2); SET application_name = 'other'; INSERT INTO ledger VALUES (2)";
    let pieces = ask(house.wire(), query(pieces));
    let those = "FROM pg_stat_activity WHERE query LIKE 'INSERT INTO ledger VALUES%'";
    let waiting = format!("SELECT count(*) {those} AND wait_event_type = 'Lock'");
    await_that("both are under way", || watcher.value(&waiting).unwrap() == "2");

    let held = HeldShard::hold(&house.proxy);
    scene.lose(Loss::Hung);
    scene.freeze();
    new.rows("SELECT pg_promote(false)").unwrap();
    await_that("it is replaced", || house.status()["primary"] == *new.address());
    old.sigcont();
    locker.rows("COMMIT").unwrap();
    // What waits for its client has sent all it had to say.
    let answered = format!("SELECT count(*) {those} AND wait_event = 'ClientRead'");
    await_that("both are answered", || watcher.value(&answered).unwrap() == "2");
    let there = "SELECT count(*) FROM ledger WHERE id > 0";
    assert_eq!(watcher.value(there).unwrap(), "3", "the success was at stake");
    assert!(held.is_still());
    drop(held);

    let changed = clock::now();
    for waits in [whole, pieces] {
        let (reply, mut wire) = waits.end(changed);
        assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
        assert!(reply.tags.is_empty(), "{reply:?}");
        wire.run("INSERT INTO ledger VALUES (3)");
    }
    assert_eq!([1, 2, 3].map(|id| scene.count(id)), [0, 0, 2]);
}
