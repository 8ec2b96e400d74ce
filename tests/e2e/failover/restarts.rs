//! pgsteer itself is killed in the middle of a change: the next one, with the same directory of
//! state, finds the truth again, and ends the change or calls it off.

use super::{WRITERS, await_armed, epoch, new_primary, ordered, primaries, quorum};
use crate::support::House;
use crate::support::await_that;
use crate::support::ledger;
use crate::support::ledger::Cut;
use crate::support::ledger::Ledger;
use crate::support::replaced;
use pgsteer::sandbox::Server;
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is tried to hit a phase that is over within milliseconds, and that a switchover
/// which is called off on a crowded machine never comes to.
const ATTEMPTS: usize = 15;
/// Between two looks at the record.
const PACE: Duration = Duration::from_millis(1);
/// For how long nobody is there to see to anything.
const ABSENT: Duration = Duration::from_millis(500);

/// The number of the last attempt and the phase that are written in the record, whoever may be
/// alive.
fn recorded(house: &House) -> (u64, String) {
    let dir = std::fs::read_dir(house.proxy.dir().join("state")).unwrap();
    let paths = dir.map(|entry| entry.unwrap().path());
    let record = paths.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "json"));
    let text = std::fs::read_to_string(record.unwrap()).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let record = &record["record"];
    let phase = record["phase"]["name"].as_str().unwrap().to_owned();
    (record["epoch"].as_u64().unwrap(), phase)
}

/// Kills pgsteer as soon as its record is in this phase, or it is over that it could be; whether
/// it died in it.
fn killed_in(house: &House, phase: &str, over: impl Fn() -> bool) -> bool {
    let began = pgsteer::clock::now();
    // Whether it is over is asked first: what comes then is of no attempt any more.
    while !over() && recorded(house).1 != phase {
        assert!(pgsteer::clock::now().since(began) < Duration::from_mins(1), "never {phase}");
        std::thread::sleep(PACE);
    }
    house.proxy.signal(Signal::KILL);
    house.proxy.await_end().unwrap();
    recorded(house).1 == phase
}

/// The same, where pgsteer acts by itself: it is over when the record is stable again.
fn killed_by_itself_in(house: &House, attempt: u64, phase: &str) -> bool {
    let over = || {
        let (now, phase) = recorded(house);
        now != attempt && phase == "stable"
    };
    killed_in(house, phase, over)
}

/// Whether a server takes writes of anybody now: it is no standby, and carries no fence.
fn is_writable(server: &Server) -> bool {
    let sql = "SELECT NOT pg_is_in_recovery() AND reset_val <> 'pgsteer_fence' FROM pg_settings \
               WHERE name = 'synchronous_standby_names'";
    server.is_running() && server.value(sql).is_ok_and(|value| value == "t")
}

/// All servers of a set.
const ALL: [&str; 3] = ["primary", "standby1", "standby2"];

/// Looks twice around, over and over: two that are writable both times were so at once.
fn two_at_once(house: &House, (names, stop): (&[&str], &AtomicBool)) -> Vec<String> {
    let mut found = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let around = || {
            let servers = names.iter().map(|name| house.server(name));
            servers.filter(|server| is_writable(server)).map(Server::name).collect::<Vec<_>>()
        };
        let (first, second) = (around(), around());
        let both: Vec<_> = first.iter().filter(|name| second.contains(name)).collect();
        if both.len() > 1 {
            found.push(format!("{both:?}"));
        }
    }
    found
}

/// Ends the looking around, also when the test panics: else it would hang instead of failing.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Starts pgsteer again, and waits until nothing is under way any more. These are the servers that
/// can be asked all the while.
fn restarted(house: &House, awake: &[&str], meanwhile: impl FnOnce(&House)) {
    let stop = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| two_at_once(house, (awake, &stop)));
        let until_the_end = Stop(&stop);
        std::thread::sleep(ABSENT);
        house.proxy.start().unwrap();
        house.proxy.await_ready().unwrap();
        meanwhile(house);
        await_that("the change is over", || {
            let status = house.status();
            status["primary"].is_string() && status["failover"]["phase"] == "stable"
        });
        drop(until_the_end);
        watcher.join().unwrap()
    });
    assert_eq!(found, [""; 0], "two servers took writes at once\n{}", house.proxy.log());
}

fn writing(house: &House) -> Ledger {
    house.wire().run(ledger::TABLE);
    let ledger = Ledger::open_with(house.proxy.address(), WRITERS, Cut::Returns);
    ledger.await_more(300);
    ledger
}

/// One is the primary, the others that run follow it, and nothing that was acknowledged is lost.
fn whole(house: &House, ledger: Ledger, standbys: usize) {
    ledger.await_more(300);
    await_that("the others follow", || {
        let servers = house.status()["servers"].as_array().unwrap().clone();
        servers.iter().filter(|server| server["state"] == "streaming").count() == standbys
    });
    let book = ledger.close();
    let rows = new_primary(house).rows("SELECT writer, number FROM ledger").unwrap();
    assert_eq!(book.judge(&rows), ledger::Verdict::default(), "{book:?}");
    assert!(book.disconnected > 0, "nobody was cut off");
    assert_eq!(primaries(house).len(), 1);
    eprintln!(
        "{} acknowledged, {} in doubt, {} refused, {} cut off; the primary is {}",
        book.acknowledged.len(),
        book.in_doubt.len(),
        book.refused.len(),
        book.disconnected,
        new_primary(house).name()
    );
}

/// An operator hands over, and pgsteer dies in that phase.
fn dies_in_a_switchover(phase: &str) {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let ledger = writing(&house);
    let hit = (0..ATTEMPTS).any(|attempt| {
        let hit = std::thread::scope(|scope| {
            // It asks for its order until there is somebody again, who does not know of it.
            let order = scope.spawn(|| ordered(&house, &["switchover", "--yes"]));
            let hit = killed_in(&house, phase, || order.is_finished());
            restarted(&house, &ALL, |_| ());
            hit
        });
        await_armed(&house, "quorum");
        eprintln!("attempt {attempt}: died in {phase}: {hit}, epoch {}", epoch(&house));
        hit
    });
    assert!(hit, "it never died in {phase}");
    whole(&house, ledger, 2);
}

#[test]
fn a_pgsteer_that_dies_while_it_drains_leaves_one_primary() {
    dies_in_a_switchover("draining");
}

#[test]
fn a_pgsteer_that_dies_while_it_hands_over_leaves_one_primary() {
    dies_in_a_switchover("revoking");
}

#[test]
fn a_pgsteer_that_dies_while_it_promotes_as_planned_leaves_one_primary() {
    dies_in_a_switchover("promoting");
}

/// The primary dies while one that may hold the last write stands still, so that the standbys
/// can't all be frozen before pgsteer dies as well.
#[test]
fn a_pgsteer_that_dies_while_it_revokes_goes_on_when_it_is_back() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    let ledger = writing(&house);
    let (attempt, _) = recorded(&house);
    house.server("standby2").sigstop();
    house.server("primary").kill9().unwrap();
    assert!(killed_by_itself_in(&house, attempt, "revoking"));

    restarted(&house, &ALL[..2], |house| {
        await_that("it goes on with what it finds", || {
            house.status()["failover"]["phase"] == "revoking"
        });
        assert!(house.server("standby1").is_standby().unwrap(), "it is promoted too early");
        house.server("standby2").sigcont();
    });

    assert_ne!(new_primary(&house).name(), "primary");
    assert!(epoch(&house) > before);
    whole(&house, ledger, 1);
}

#[test]
fn a_pgsteer_that_dies_while_it_promotes_goes_on_when_it_is_back() {
    let hit = (0..ATTEMPTS).any(|_| {
        let house = quorum().build();
        await_armed(&house, "quorum");
        let before = epoch(&house);
        let ledger = writing(&house);
        let (attempt, _) = recorded(&house);
        house.server("primary").kill9().unwrap();
        let hit = killed_by_itself_in(&house, attempt, "promoting");
        restarted(&house, &ALL, |_| ());
        assert!(epoch(&house) > before);
        assert_ne!(new_primary(&house).name(), "primary");
        whole(&house, ledger, 1);
        hit
    });
    assert!(hit, "it never died in that phase");
}

/// It was never on the primary, where another pgsteer may have held the lock.
#[test]
fn a_pgsteer_that_comes_after_the_primary_died_replaces_nobody_and_says_what_helps() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let before = epoch(&house);
    let ledger = writing(&house);
    house.proxy.signal(Signal::KILL);
    house.proxy.await_end().unwrap();
    house.server("primary").kill9().unwrap();

    restarted(&house, &ALL, |house| {
        await_that("it says what helps", || {
            let why = house.status()["failover"]["why"].to_string();
            why.contains("since pgsteer was started") && why.contains("`pgsteer failover`")
        });
        // What may be lost is known once all were asked.
        for standby in ["standby1", "standby2"] {
            await_that("it is seen", || !house.status_of(standby)["role"].is_null());
        }
        assert_eq!(epoch(house), before);
        replaced(house, &["failover", "--yes"]);
    });

    assert_ne!(new_primary(&house).name(), "primary");
    whole(&house, ledger, 1);
}

/// The old primary comes back to life while pgsteer is dead in the middle of replacing it.
#[test]
fn a_primary_that_is_back_before_pgsteer_is_goes_on_or_stays_replaced() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let ledger = writing(&house);
    let (attempt, _) = recorded(&house);
    house.server("standby2").sigstop();
    house.server("primary").kill9().unwrap();
    assert!(killed_by_itself_in(&house, attempt, "revoking"));
    house.server("primary").start().unwrap();
    house.server("standby2").sigcont();

    restarted(&house, &ALL, |_| ());

    whole(&house, ledger, 2);
}

/// The chosen one is lost for good before it was admitted, pgsteer with it, and another tool makes
/// the old primary one again: that one goes on, by itself or by an order that `status` names.
#[test]
fn an_old_primary_that_another_tool_promoted_goes_on_when_the_chosen_one_is_lost() {
    let hit = (0..ATTEMPTS).any(|_| {
        let house = quorum().build();
        await_armed(&house, "quorum");
        let ledger = writing(&house);
        let (old, chosen) = (house.server("primary"), house.server("standby1"));
        let to = chosen.address();
        std::thread::scope(|scope| {
            let order = scope.spawn(|| ordered(&house, &["switchover", "--to", &to, "--yes"]));
            if !killed_in(&house, "promoting", || order.is_finished()) {
                restarted(&house, &ALL, |_| ());
                return false;
            }
            chosen.kill9().unwrap();
            await_that("the old primary is a standby", || old.is_standby().is_ok_and(|is| is));
            assert_eq!(old.value("SELECT pg_promote()").unwrap(), "t");
            restarted(&house, &["primary", "standby2"], |house| goes_on(house, old));
            assert_eq!(primaries(&house), ["primary"]);
            assert_eq!(new_primary(&house).name(), "primary");
            whole(&house, ledger, 1);
            true
        })
    });
    assert!(hit, "it never died in that phase");
}

/// It does so by itself where the chosen one can't have been promoted; else an order is needed.
fn goes_on(house: &House, old: &Server) {
    let needed = || house.status()["failover"]["why"].to_string().contains("pgsteer failover");
    let is_back = || house.status()["primary"] == *old.address();
    await_that("it goes on, or says what helps", || is_back() || needed());
    let to = old.address();
    let order = ["failover", "--to", &to, "--accept-loss", "any", "--yes"];
    await_that("it goes on", || {
        if !is_back() {
            eprintln!("{:?}", ordered(house, &order));
        }
        is_back()
    });
}
