//! A success arrives when the server that tells of it is the primary no more, or may not be: it
//! slept while it was replaced, or pgsteer did.

use super::*;
use crate::support::Ended;
use crate::support::HeldShard;
use crate::support::quickly_enough;
use pgsteer::sandbox::Sql;
use pgsteer::wire::frame;
use rustix::process::Signal;

/// The shard finds the old primary's success and the news of the new one together: the success is
/// worth nothing, in whatever pieces it comes.
#[test]
fn a_success_that_came_together_with_the_news_is_not_passed_on() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let (old, new) = (house.server("primary"), house.server("standby1"));
    let under_way = UnderWay::begin(house);

    let held = HeldShard::hold(&house.proxy);
    scene.lose(Loss::Hung);
    scene.freeze();
    new.rows("SELECT pg_promote(false)").unwrap();
    await_that("it is replaced", || house.status()["primary"] == *new.address());
    old.sigcont();
    let answered = under_way.answered();
    assert!(held.is_still());
    drop(held);

    for (reply, mut wire) in answered.map(|waits| waits.end(clock::now())) {
        assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
        assert!(reply.tags.is_empty(), "{reply:?}");
        wire.run("INSERT INTO ledger VALUES (3)");
    }
    assert_eq!([1, 2, 3].map(|id| scene.count(id)), [0, 0, 2]);
}

/// pgsteer stood still for longer than its right to write lasts, and another tool has made another
/// server the primary meanwhile: the old one's success is lost, and is found when pgsteer wakes up.
///
/// The old one hangs by then: one that still answers goes on as the primary, and its word counts.
/// A standby streams from it, so that pgsteer does not follow at once, for another reason.
#[test]
fn a_success_that_pgsteer_slept_through_is_not_passed_on() {
    let scene = Scene::new("", &[]);
    let (house, new) = (&scene.house, scene.house.server("standby1"));
    let under_way = UnderWay::begin(house);

    stop(house);
    assert_eq!(new.value("SELECT pg_promote()").unwrap(), "t");
    let answered = under_way.answered();
    scene.lose(Loss::Hung);
    std::thread::sleep(RIGHT);
    house.proxy.signal(Signal::CONT);

    for (reply, _) in answered.map(|waits| waits.end(clock::now())) {
        assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
        assert!(reply.tags.is_empty(), "{reply:?}");
        assert!(reply.error().message.contains("pgsteer stood still"), "{reply:?}");
    }
    assert_eq!([1, 2].map(|id| scene.count(id)), [0, 0], "it was lost");
}

/// The opposite arm: nothing but that right was at stake. A shorter pause takes nothing from
/// anybody, and nor does a longer one from who had nothing under way.
#[test]
fn a_pause_ends_nothing_that_it_did_not_outlast() {
    // On a crowded machine the shorter one may not be that short.
    quickly_enough("the pause is short", pauses);
}

fn pauses() -> Result<(), String> {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let [mut open, mut pinned, free] = [(); 3].map(|()| house.wire());
    pinned.run("SELECT pg_advisory_lock(4711)");
    let under_way = UnderWay::begin(house);

    let began = clock::now();
    stop(house);
    let answered = under_way.answered();
    house.proxy.signal(Signal::CONT);
    let paused = clock::now().since(began);
    for (reply, _) in answered.map(|waits| waits.end(clock::now())) {
        if !reply.is_good() && paused > SHORT {
            return Err(format!("after {paused:?}: {reply:?}"));
        }
        assert!(reply.is_good(), "{reply:?}");
    }

    open.run("BEGIN");
    open.run("INSERT INTO ledger VALUES (3)");
    stop(house);
    // It finds them when it wakes up, and lets them wait until it has looked at the primary.
    let insert = query("INSERT INTO ledger VALUES (4)");
    let late = [pinned, free].map(|wire| ask(wire, insert.clone()));
    std::thread::sleep(RIGHT);
    house.proxy.signal(Signal::CONT);
    for (reply, _) in late.map(|waits| waits.end(clock::now())) {
        assert_eq!(reply.tags, ["INSERT 0 1"], "{reply:?}");
    }
    open.run("INSERT INTO ledger VALUES (3)");
    assert_eq!(open.run("COMMIT").tags, ["COMMIT"]);
    Ok(())
}

/// The rest of a batch is found together with the news that its beginning was lost: it belongs to
/// what has failed, and is run nowhere.
#[test]
fn what_goes_on_with_a_batch_that_was_lost_is_passed_over() {
    let scene = Scene::new("", &[]);
    let (house, new) = (&scene.house, scene.house.server("standby1"));
    let mut wire = house.wire();
    let insert = |id| extended(&format!("INSERT INTO ledger VALUES ({id})"));
    let begins = insert(3);
    let batch = begins.strip_suffix(frame::SYNC).unwrap();
    wire.send(&[batch, frame::FLUSH].concat()).unwrap();
    while wire.message().is_some_and(|message| message[0] != b'C') {}

    let held = HeldShard::hold(&house.proxy);
    scene.lose(Loss::Hung);
    scene.freeze();
    new.rows("SELECT pg_promote(false)").unwrap();
    await_that("it is replaced", || house.status()["primary"] == *new.address());
    wire.send(&insert(4)).unwrap();
    assert!(held.is_still());
    drop(held);

    let reply = wire.reply();
    assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
    assert!(reply.tags.is_empty(), "{reply:?}");
    wire.run("INSERT INTO ledger VALUES (5)");
    assert_eq!([3, 4, 5].map(|id| scene.count(id)), [0, 0, 1]);
}

/// A server is lost that is to fail what a refusal is in. Outside of a transaction that is nothing.
#[test]
fn a_refusal_whose_server_is_lost_fails_no_transaction_where_there_is_none() {
    let scene = Scene::new("", &[]);
    let [mut open, mut pinned] = [(); 2].map(|()| scene.house.wire());
    pinned.run("SELECT pg_advisory_lock(4711)");
    open.run("BEGIN");
    open.run("INSERT INTO ledger VALUES (3)");
    scene.lose(Loss::Hung);
    for wire in [&mut open, &mut pinned] {
        wire.send(&query("SET pgsteer.role = 'master'")).unwrap();
        assert_eq!(wire.message().unwrap()[0], b'E');
    }
    scene.lose(Loss::Killed);
    assert_eq!(open.reply().ended, Ended::Ready('E'));
    assert_eq!(pinned.reply().ended, Ended::Ready('I'));
}

/// pgsteer stands still from here on: a thread that is under way may take a moment to.
fn stop(house: &House) {
    house.proxy.signal(Signal::STOP);
    let threads = format!("/proc/{}/task", house.proxy.pid().unwrap());
    await_that("pgsteer stands still", || {
        std::fs::read_dir(&threads).unwrap().all(|thread| {
            let status = std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            status.contains("\nState:\tT")
        })
    });
}

/// Longer than writes may go by what the control plane said last.
const RIGHT: Duration = Duration::from_secs(6);

/// Much less than that.
const SHORT: Duration = Duration::from_secs(2);

/// Two writes that wait at the primary for somebody else's lock.
struct UnderWay {
    locker: Sql,
    watcher: Sql,
    waits: [Waits; 2],
}

/// Their sessions at the server.
const THOSE: &str = "FROM pg_stat_activity WHERE query ~ '^INSERT INTO ledger VALUES .[12]'";

impl UnderWay {
    fn begin(house: &House) -> Self {
        let old = house.server("primary");
        let [mut locker, mut watcher] = [(); 2].map(|()| old.connect("postgres").unwrap());
        locker.rows("BEGIN; LOCK TABLE ledger").unwrap();
        // The one is passed on as a whole; in the other is something to be looked at.
        let pieces = "INSERT INTO ledger VALUES (2); SET application_name = 'other'; \
                      INSERT INTO ledger VALUES (2)";
        let sqls = ["INSERT INTO ledger VALUES (1)", pieces];
        let waits = sqls.map(|sql| ask(house.wire(), query(sql)));
        let waiting = format!("SELECT count(*) {THOSE} AND wait_event_type = 'Lock'");
        await_that("both are under way", || watcher.value(&waiting).unwrap() == "2");
        Self { locker, watcher, waits }
    }

    /// Lets them go. What waits for its client has sent all it had to say.
    fn answered(mut self) -> [Waits; 2] {
        self.locker.rows("COMMIT").unwrap();
        let answered = format!("SELECT count(*) {THOSE} AND wait_event = 'ClientRead'");
        await_that("both are answered", || self.watcher.value(&answered).unwrap() == "2");
        let there = "SELECT count(*) FROM ledger WHERE id IN (1, 2)";
        assert_eq!(self.watcher.value(there).unwrap(), "3", "the success was at stake");
        self.waits
    }
}
