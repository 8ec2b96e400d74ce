//! Another tool changes the primary, and pgsteer is not asked: it promotes nobody beside that one.

use super::{asynchronous, await_armed, ordered, primaries, quorum, turned_down};
use crate::support::Door;
use crate::support::House;
use crate::support::await_that;
use crate::support::replaced;
use pgsteer::sandbox::{Server, Shutdown};
use rustix::process::Signal;
use std::time::Duration;

/// Much longer than pgsteer takes to replace a primary.
const LONG: Duration = Duration::from_secs(4);

/// What it says while it waits for that.
const UNSEEN: &str = "a server that is not seen may be the primary now";

/// The clients of a server have to leave, and come in no more; standbys do.
fn hidden(server: &Server) -> Door<'_> {
    let door = Door::shut(server, "host all all all");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE application_name LIKE 'pgsteer%' AND pid <> pg_backend_pid()";
    server.rows(end).unwrap();
    door
}

/// What pgsteer says that it waits for.
fn why(house: &House) -> String {
    house.status()["failover"]["why"].as_str().unwrap_or_default().to_owned()
}

/// For as long as pgsteer would need, this one alone takes itself for the primary.
fn stays_alone(house: &House, name: &str) {
    let began = pgsteer::clock::now();
    while pgsteer::clock::now().since(began) < LONG {
        assert_eq!(primaries(house), [name], "{}\n{}", why(house), house.proxy.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn await_adopted(house: &House, name: &str) {
    let address = house.server(name).address();
    await_that("it is followed", || house.status()["primary"] == *address);
    assert_eq!(primaries(house), [name]);
}

fn promoted_by_hand(server: &Server) {
    assert_eq!(server.value("SELECT pg_promote()").unwrap(), "t");
}

/// Whoever can't be frozen may have confirmed commits, or be the primary by now: enough of them
/// must be.
#[test]
fn nobody_is_promoted_beside_one_that_another_tool_promoted_out_of_sight() {
    let house = quorum().build();
    await_armed(&house, "quorum");
    let hid = house.server("standby1");
    let door = hidden(hid);
    await_that("it is out of sight", || house.status_of("standby1")["role"].is_null());
    assert_eq!(house.status()["failover"]["armed"], true, "nothing else keeps it");

    promoted_by_hand(hid);
    house.server("primary").kill9().unwrap();

    await_that("it wants to act", || house.status()["failover"]["phase"] == "revoking");
    stays_alone(&house, "standby1");
    assert!(why(&house).contains(&hid.address()), "{}", why(&house));
    assert!(house.status()["primary"].is_null(), "nobody takes writes");

    door.open();
    await_adopted(&house, "standby1");
}

/// The same where no commit waits for a standby, and it can be seen once pgsteer looks.
#[test]
fn one_that_another_tool_promoted_before_the_primary_died_is_followed() {
    let house = asynchronous().build();
    await_armed(&house, "asynchronous");
    house.proxy.signal(Signal::STOP);

    promoted_by_hand(house.server("standby1"));
    house.server("primary").kill9().unwrap();
    house.proxy.signal(Signal::CONT);

    await_adopted(&house, "standby1");
    stays_alone(&house, "standby1");
    let change = house.status()["failover"]["last_change"].clone();
    assert!(change["fork_lsn"].is_string(), "where its branch began is recorded: {change}");
    house.wire().run("CREATE TABLE taken ()");
}

/// Another tool hands over while pgsteer stands still, to a server that only pgsteer can't see; the
/// old primary does not follow yet.
fn handed_over_unseen() -> House {
    let house = asynchronous().build();
    await_armed(&house, "asynchronous");
    let (old, new) = (house.server("primary"), house.server("standby1"));
    // It is shut for as long as the house stands.
    let _door = hidden(new);
    await_that("it is out of sight", || house.status_of("standby1")["role"].is_null());
    house.proxy.signal(Signal::STOP);
    old.stop(Shutdown::Fast).unwrap();
    promoted_by_hand(new);
    std::fs::write(old.data().join("standby.signal"), "").unwrap();
    old.start().unwrap();
    house.proxy.signal(Signal::CONT);
    house
}

#[test]
fn nobody_is_promoted_while_another_tool_may_have_handed_over_out_of_sight() {
    let house = handed_over_unseen();
    await_that("it says why", || why(&house).contains(UNSEEN));
    stays_alone(&house, "standby1");
    assert_eq!(house.status()["failover"]["phase"], "stable", "nothing was begun");
}

/// The opposite arm: nothing but that keeps it from acting. One that is gone hides nobody.
#[test]
fn once_the_unseen_one_is_gone_another_is_promoted() {
    let house = handed_over_unseen();
    await_that("it says why", || why(&house).contains(UNSEEN));

    house.server("standby1").kill9().unwrap();

    await_that("another is the primary", || house.status()["primary"].is_string());
    let taken = primaries(&house);
    assert!(taken.len() == 1 && taken[0] != "standby1", "{taken:?}");
}

/// It waits for one that is out of sight, and is out of sight itself when it is to be freed.
#[test]
fn one_that_was_cut_off_follows_whom_another_tool_promotes_meanwhile() {
    let house = quorum().set("failover.mode", "manual").build();
    await_that("it is known", || house.status()["failover"]["promise"] == "quorum");
    let (first, second) = (house.server("standby1"), house.server("standby2"));
    let unseen = |name: &str| {
        await_that("it is out of sight", || house.status_of(name)["role"].is_null());
    };
    let door = hidden(second);
    unseen("standby2");
    house.server("primary").kill9().unwrap();
    unseen("primary");
    let (code, said) = ordered(&house, &["failover", "--yes"]);
    assert_eq!(code, Some(5), "{said}");
    await_that("it waits", || why(&house).contains("1 of the 2 standbys"));
    let other_door = hidden(first);
    unseen("standby1");
    assert_eq!(first.value("SHOW primary_conninfo").unwrap(), "", "it is cut off");

    promoted_by_hand(second);
    door.open();
    await_adopted(&house, "standby2");
    other_door.open();
    await_that("it follows", || house.status_of("standby1")["state"] == "streaming");
}

/// Another tool promotes the first standby while the primary is well, which goes on, and dies: what
/// it acknowledged meanwhile only the second standby holds.
fn promoted_beside_one_that_dies() -> House {
    let house = quorum().build();
    await_armed(&house, "quorum");
    promoted_by_hand(house.server("standby1"));
    await_that("it is cordoned", || house.status_of("standby1")["role"] == "primary");
    house.wire().run("CREATE TABLE acknowledged ()");
    house.server("primary").kill9().unwrap();
    let beside = "what it acknowledged since is not there";
    await_that("it is gone for certain", || house.proxy.log().contains(beside));
    house
}

#[test]
fn one_that_was_promoted_beside_a_primary_that_went_on_does_not_follow_it() {
    let house = promoted_beside_one_that_dies();
    stays_alone(&house, "standby1");
    assert!(house.status()["primary"].is_null(), "{}", house.proxy.log());
    let (code, said) = turned_down(&house, &["failover", "--accept-loss", "any", "--yes"]);
    assert_eq!(code, Some(4), "{said}");

    // Once it is gone, the one that holds everything is promoted; an order says that no other can
    // have confirmed more.
    house.server("standby1").kill9().unwrap();
    // One look that finds nobody is no proof of that.
    await_that("it is known to be stopped", || {
        ordered(&house, &["failover", "--accept-loss", "any", "--dry-run"]).0 == Some(0)
    });
    replaced(&house, &["failover", "--accept-loss", "any", "--yes"]);
    await_adopted(&house, "standby2");
    house.wire().run("TABLE acknowledged");
}

#[test]
fn an_operator_takes_one_that_was_promoted_beside_a_primary_that_went_on() {
    let house = promoted_beside_one_that_dies();
    let address = house.server("standby1").address();
    let wanted = ["failover", "--to", &address, "--yes"];
    let (code, said) = turned_down(&house, &wanted);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("--accept-loss any"), "{said}");

    // A busy machine may have to make sure once more that the other one is gone.
    let accepts = [&wanted[..], &["--accept-loss", "any"]].concat();
    await_that("it is taken", || {
        house.status()["primary"] == *address || ordered(&house, &accepts).0 == Some(0)
    });
    await_adopted(&house, "standby1");
    let mut client = house.wire();
    // Nobody is left to confirm: the other standby holds what this one lacks.
    client.run("SET synchronous_commit = 'local'");
    client.run("CREATE TABLE taken ()");
    let (_, history) = ordered(&house, &["history"]);
    assert_eq!(history.lines().count(), 1, "{history}");
}

/// How long this process has worked, of all threads.
fn worked(house: &House) -> Duration {
    let stat = format!("/proc/{}/stat", house.proxy.pid().unwrap());
    let stat = std::fs::read_to_string(stat).unwrap();
    // Behind the name, which may hold anything: `utime` and `stime` of `proc_pid_stat(5)`.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    // A tick of these is a hundredth of a second (`USER_HZ`).
    Duration::from_millis(ticks * 10)
}

/// Two were promoted, and which one follows the dead primary nobody can tell: that may stay so for
/// days.
#[test]
fn whoever_waits_for_a_word_on_two_newcomers_does_no_work_meanwhile() {
    let house = asynchronous().build();
    await_armed(&house, "asynchronous");
    house.proxy.signal(Signal::STOP);
    promoted_by_hand(house.server("standby1"));
    promoted_by_hand(house.server("standby2"));
    house.server("primary").kill9().unwrap();
    house.proxy.signal(Signal::CONT);
    await_that("both are seen", || {
        ["standby1", "standby2"].iter().all(|name| house.status_of(name)["role"] == "primary")
    });
    assert!(house.status()["primary"].is_null(), "{}", house.proxy.log());

    let (before, began) = (worked(&house), pgsteer::clock::now());
    std::thread::sleep(LONG);
    let worked = worked(&house).checked_sub(before).unwrap();
    let went_by = pgsteer::clock::now().since(began);

    assert!(house.status()["primary"].is_null(), "{}", house.proxy.log());
    assert!(worked < went_by / 4, "{worked:?} of {went_by:?}\n{}", house.proxy.log());
}
