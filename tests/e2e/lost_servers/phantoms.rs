//! A commit waits for its standbys while the primary crashes. After its restart the primary shows
//! it to everybody, and nobody else has it: the next failover takes back what was read.

use super::restart::crash;
use crate::support::Blueprint;
use crate::support::House;
use crate::support::Reply;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::quickly;
use pgsteer::clock;
use pgsteer::clock::Moment;
use rustix::process::Signal;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Longest that the primary is kept from its clients; the same as in `control::footing`.
const SETTLE_MAX: Duration = Duration::from_secs(6);
/// Enough for a statement to reach a pgsteer that stands still.
const ON_ITS_WAY: Duration = Duration::from_millis(200);
/// Far less than that, and enough for whoever would answer.
const A_WHILE: Duration = Duration::from_secs(2);

const COUNT: &str = "SELECT count(*) FROM ledger";

/// One of two standbys must confirm each commit.
fn quorum() -> House {
    let house = Blueprint::new()
        .servers(|plan| {
            plan.setting("synchronous_standby_names", "ANY 1 (standby1, standby2)")
                .setting("wal_retrieve_retry_interval", "100ms")
        })
        .unhurried()
        .any_lag()
        .set("routing.hold_max", "50s")
        .build();
    house.server("primary").rows("CREATE TABLE ledger (id int)").unwrap();
    house.await_catalog();
    await_that("the promise is known", || house.status()["failover"]["promise"] == "quorum");
    house
}

fn on_primary(house: &House) -> Wire {
    let mut wire = house.wire();
    wire.run("SET pgsteer.role = 'primary'");
    wire
}

/// What pgsteer does while the primary crashes.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    /// It sees it happen.
    Awake,
    /// It stands still, and finds a primary that answers, and statements that wait for it.
    Asleep,
}

/// A statement that is on its way, and its reply.
fn ask(mut wire: Wire, sql: &'static str) -> Receiver<(Reply, Moment)> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let reply = wire.query(sql);
        sender.send((reply, clock::now())).unwrap_or(());
    });
    receiver
}

/// A commit that no standby has is on the primary's disk, and the primary crashes; a client was
/// idle all the while, and another comes after it. Both ask for what the primary shows. Also, when
/// it was about to crash.
fn haunted(house: &House, proxy: Meanwhile) -> ([Receiver<(Reply, Moment)>; 2], Moment) {
    let primary = house.server("primary");
    let mut idle = on_primary(house);
    assert_eq!(idle.value(COUNT), "0");
    for standby in ["standby1", "standby2"] {
        house.server(standby).sigstop_process("walreceiver");
    }
    let commits = ask(house.wire(), "INSERT INTO ledger VALUES (1)");
    let waits = "SELECT count(*) FROM pg_stat_activity \
                 WHERE wait_event = 'SyncRep' AND application_name !~ '^pgsteer'";
    primary.await_value(waits, "1", "waiting").unwrap();
    assert_eq!(idle.value(COUNT), "0", "nobody sees it yet");
    let crashed = clock::now();
    let reads = match proxy {
        Meanwhile::Awake => {
            crash(house, "primary");
            [ask(idle, COUNT), ask(on_primary(house), COUNT)]
        }
        Meanwhile::Asleep => {
            let other = on_primary(house);
            house.proxy.signal(Signal::STOP);
            crash(house, "primary");
            let reads = [ask(idle, COUNT), ask(other, COUNT)];
            std::thread::sleep(ON_ITS_WAY);
            house.proxy.signal(Signal::CONT);
            reads
        }
    };
    assert_eq!(primary.value(COUNT).unwrap(), "1", "without pgsteer everybody sees it now");
    let (reply, _) = commits.recv().unwrap();
    assert_eq!(reply.codes(), ["08007"], "nobody was told that it is done: {reply:?}");
    (reads, crashed)
}

#[test]
fn what_no_standby_holds_is_not_read_after_a_crash() {
    is_not_read(Meanwhile::Awake);
}

#[test]
fn what_no_standby_holds_is_not_read_after_a_crash_that_pgsteer_slept_through() {
    is_not_read(Meanwhile::Asleep);
}

/// A crowded machine may need longer to look than the primary is kept from its clients.
fn is_not_read(proxy: Meanwhile) {
    let in_time = (0..5).any(|_| was_not_read(proxy));
    assert!(in_time, "it was never looked at in time");
}

/// Whether it was looked at in time; fails if it was read.
fn was_not_read(proxy: Meanwhile) -> bool {
    let house = quorum();
    let (reads, crashed) = haunted(&house, proxy);

    for read in &reads {
        if let Ok((reply, at)) = read.recv_timeout(A_WHILE / 2) {
            let waited = at.since(crashed);
            assert!(waited >= SETTLE_MAX, "{waited:?}: {reply:?}\n{}", house.proxy.log());
            return false;
        }
    }
    let status = house.status();
    if clock::now().since(crashed) >= SETTLE_MAX {
        return false;
    }
    assert!(status["primary"].is_null(), "{status}");
    assert!(house.proxy.log().contains("its standbys do not hold its log yet"));
    assert_eq!(house.wire().value(COUNT), "0", "standbys go on serving reads");

    house.server("standby2").sigcont();
    for read in reads {
        let (reply, _) = read.recv().unwrap();
        assert_eq!(reply.value().as_deref(), Some("1"), "{reply:?}");
    }
    // What was read stays: a standby has it, whatever becomes of the primary.
    house.server("primary").kill9().unwrap();
    house.server("standby2").await_value(COUNT, "1", "replayed").unwrap();
    house.server("standby1").sigcont();
    true
}

#[test]
fn what_no_standby_ever_takes_is_read_after_a_while_and_an_operator_is_told() {
    let house = quorum();
    let findings = || house.metric("pgsteer_findings").unwrap();
    assert!(findings().abs() < f64::EPSILON);
    let began = clock::now();
    let (reads, _) = haunted(&house, Meanwhile::Awake);

    for read in reads {
        let (reply, at) = read.recv().unwrap();
        assert_eq!(reply.value().as_deref(), Some("1"), "{reply:?}");
        let waited = at.since(began);
        assert!(waited >= SETTLE_MAX, "after {waited:?}");
    }
    assert!(house.proxy.log().contains("too few standbys hold its log"));
    assert!(findings() > 0.0);
    for standby in ["standby1", "standby2"] {
        house.server(standby).sigcont();
    }
    await_that("they hold it", || findings().abs() < f64::EPSILON);
}

/// Only the connection over which pgsteer watches breaks: nobody notices much.
#[test]
fn a_primary_that_is_merely_watched_anew_is_used_on() {
    let house = quorum();
    let mut wire = on_primary(&house);
    let mut rows = 0;
    let mut round = || {
        wire.run("INSERT INTO ledger VALUES (1)");
        let ends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE backend_type = 'walsender' AND application_name LIKE 'pgsteer%'";
        await_that("its watch is ended", || house.server("primary").value(ends).unwrap() != "0");
        let began = clock::now();
        wire.run("INSERT INTO ledger VALUES (1)");
        rows += 2;
        assert_eq!(on_primary(&house).query(COUNT).value(), Some(rows.to_string()));
        clock::now().since(began)
    };
    for _ in 0..5 {
        quickly("it is used on", A_WHILE, &mut round);
    }
}
