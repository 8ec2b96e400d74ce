//! The primary hands over while clients are at work: no statement fails.

use super::{
    asynchronous, await_armed, epoch, new_primary, ordered, primaries, quorum, settle, turned_down,
    writing,
};
use crate::hands::rights::grant_everything;
use crate::support::Blueprint;
use crate::support::Door;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::changes;
use crate::support::handed_over;
use crate::support::quickly_enough;
use pgsteer::sandbox::Server;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use crate::support::CALLED_OFF;

/// How many times; `make test-all` sets more.
pub fn rounds() -> usize {
    let wished = std::env::var("PGSTEER_SWITCHOVERS").ok();
    wished.map_or(4, |wished| wished.parse().unwrap())
}

/// Somebody who reads, with a statement that he prepared, and must never see an error.
fn reader(
    house: &House,
    stop: &Arc<AtomicBool>,
) -> (std::thread::JoinHandle<()>, Arc<AtomicUsize>) {
    let answered = Arc::new(AtomicUsize::new(0));
    let (stop, count, mut wire) = (Arc::clone(stop), Arc::clone(&answered), house.wire());
    let thread = std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            let reply = wire.extended("SELECT count(*) FROM ledger");
            assert!(reply.is_good(), "{reply:?}");
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (thread, answered)
}

/// What waits for a switchover is to wait for it however long that takes on a crowded machine.
pub fn patient() -> Blueprint {
    quorum().set("routing.hold_max", "60s")
}

#[test]
fn switchovers_there_and_back_fail_no_statement() {
    let house = patient().build();
    await_armed(&house, "quorum");
    let ledger = writing(&house);
    let stop = Arc::new(AtomicBool::new(false));
    let (thread, answered) = reader(&house, &stop);
    for round in 0..rounds() {
        let (before, from) = (epoch(&house), new_primary(&house).name().to_owned());
        // One that is called off is no failure, if no client felt it.
        handed_over(&house, &["switchover", "--yes"]);
        // Attempts that were called off have numbers of their own.
        assert!(epoch(&house) > before, "round {round}");
        let changes = changes(&house);
        assert_eq!(changes.to_another, round + 1, "{changes:?}");
        let counted = r#"pgsteer_failover_changes_total{by="operator",kind="switchover"}"#;
        assert_eq!(house.metric(counted).unwrap().to_string(), changes.all.to_string());
        assert_ne!(new_primary(&house).name(), from, "round {round}");
        ledger.await_more(200);
        let read = answered.load(Ordering::SeqCst);
        await_that("reads go on", || answered.load(Ordering::SeqCst) > read + 10);
        await_that("the old primary follows", || {
            let servers = house.status()["servers"].as_array().unwrap().clone();
            servers.iter().filter(|server| server["state"] == "streaming").count() == 2
        });
        assert_eq!(primaries(&house).len(), 1);
    }
    stop.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    let book = settle(ledger, new_primary(&house));
    assert!(book.refused.is_empty() && book.in_doubt.is_empty(), "{:?}", book.refused);
    eprintln!(
        "{} switchovers; {} acknowledged, longest wait {:?}",
        rounds(),
        book.acknowledged.len(),
        book.longest
    );
}

#[test]
fn a_transaction_that_does_not_end_calls_the_switchover_off_and_feels_nothing() {
    let house = quorum().set("failover.drain_timeout", "1s").build();
    await_armed(&house, "quorum");
    let mut inside = house.wire();
    inside.run("CREATE TABLE kept (i int)");
    inside.run("BEGIN");
    inside.run("INSERT INTO kept VALUES (1)");

    let (code, said) = turned_down(&house, &["switchover", "--yes"]);

    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("still had a transaction open"), "{said}");
    assert_eq!(new_primary(&house).name(), "primary");
    inside.run("INSERT INTO kept VALUES (2)");
    inside.run("COMMIT");
    assert_eq!(house.server("primary").value("SELECT count(*) FROM kept").unwrap(), "2");
}

/// Who keeps its backend waits beside it, for as long as anybody may be held, and stays with it.
#[test]
fn who_keeps_a_backend_is_held_and_refused_as_anybody_else() {
    let house = quorum().set("failover.drain_timeout", "30s").set("routing.hold_max", "1s").build();
    await_armed(&house, "quorum");
    let (mut inside, mut keeps) = (house.wire(), house.wire());
    inside.run("CREATE TABLE kept (i int)");
    keeps.run("CREATE TEMP TABLE own AS SELECT 7 AS i");
    inside.run("BEGIN");
    inside.run("INSERT INTO kept VALUES (1)");

    std::thread::scope(|scope| {
        let order = scope.spawn(|| ordered(&house, &["switchover", "--yes"]));
        await_that("it drains", || house.status()["failover"]["phase"] == "draining");
        for refused in [keeps.query("INSERT INTO own VALUES (8)"), keeps.extended("TABLE own")] {
            assert_eq!(refused.codes(), ["57P03"], "{refused:?}");
            assert_eq!(refused.ended, Ended::Ready('I'), "{refused:?}");
            assert!(refused.error().detail.contains("was not sent"), "{refused:?}");
            assert!(refused.error().hint.contains("routing.hold_max"), "{refused:?}");
        }
        let (code, said) = ordered(&house, &["failover", "--abort"]);
        assert_eq!((code, said.contains("refused")), (Some(0), false), "{said}");
        let (code, said) = order.join().unwrap();
        assert_eq!((code, said.contains("an operator called it off")), (Some(4), true), "{said}");
    });

    assert_eq!(keeps.value("SELECT sum(i) FROM own"), "7", "it has its backend still");
    inside.run("COMMIT");
    let held = house.metric(r#"pgsteer_hold_seconds_count{outcome="refused"}"#);
    assert_eq!(held, Some(2.0));
}

/// It is still on its way to the primary of before, where it does not come in.
#[test]
fn a_standby_that_waits_for_its_stream_does_not_hold_up_the_next_switchover() {
    let house = asynchronous().build();
    await_armed(&house, "asynchronous");
    let [first, second, third] = ["primary", "standby1", "standby2"].map(|name| house.server(name));
    first.rows("CREATE ROLE third REPLICATION LOGIN").unwrap();
    house.cluster.await_replay().unwrap();
    let link = format!("host=127.0.0.1 port={} user=third application_name=standby2", first.port());
    third.set("primary_conninfo", &link).unwrap();
    let follows = "SELECT count(*) FROM pg_stat_replication WHERE usename = 'third'";
    first.await_value(follows, "1", "following as another user").unwrap();
    let door = Door::shut(second, "host replication third all");
    let handed = |to: &Server| {
        let fits = || ordered(&house, &["switchover", "--to", &to.address(), "--dry-run"]).0;
        await_that("it can be handed over to", || fits() == Some(0));
        let order = ["-o", "json", "switchover", "--to", &to.address(), "--yes"];
        let answer = handed_over(&house, &order);
        if !answer.is_heard() {
            return Err("how long it took was not heard".to_owned());
        }
        let account: Value = serde_json::from_str(&answer.out).unwrap();
        Ok(account["seconds"].as_f64().unwrap())
    };
    let gave_way = || house.proxy.log().matches("repoint gave way").count();

    // Between two of its attempts there is nothing that could give way; and a crowded machine takes
    // its time for the rest. What is not given way to lasts three seconds.
    quickly_enough("it gives way, and the switchover is done within 2 s", || {
        handed(second).unwrap_or_default();
        let told = format!("{}", second.port());
        await_that("it is sent there", || {
            third.value("SHOW primary_conninfo").unwrap().contains(&told)
        });
        let before = gave_way();
        let seconds = handed(first)?;
        let times = gave_way() - before;
        if times > 0 && seconds < 2.0 { Ok(()) } else { Err(format!("{seconds} s, {times} times")) }
    });

    first.await_value(follows, "1", "following again").unwrap();
    door.open();
}

/// Its sessions could go on writing, and a control user that is no superuser can't end them.
#[test]
fn a_switchover_beside_a_superusers_session_is_refused_before_anything_is_done() {
    let granted = quorum().set("servers.user", "pgsteer").set("failover.demote", "fence");
    let house = granted.build_after(|cluster| {
        grant_everything(cluster.primary());
        cluster.await_replay().unwrap();
    });
    let primary = house.server("primary");
    if !primary.version().grants_settings() {
        // Nobody but a superuser can hand over there.
        return;
    }
    await_that("it is known", || house.status()["failover"]["promise"] == "quorum");
    let superuser = primary.connect("postgres").unwrap();
    let address = primary.address().parse().unwrap();
    let params = [("user", "app"), ("database", "postgres")];
    let mut client = Wire::log_in_with(address, &params).unwrap();
    let speaks_against_it = || {
        let (_, said) = ordered(&house, &["switchover", "--dry-run"]);
        said.contains("1 sessions of superusers")
    };
    await_that("it is seen", speaks_against_it);
    let (code, said) = turned_down(&house, &["switchover", "--yes"]);
    assert_eq!(code, CALLED_OFF, "{said}");
    assert_eq!(client.run("SELECT 1").rows.len(), 1, "nobody's session was ended");

    drop(superuser);
    await_that("nothing speaks against it", || !speaks_against_it());
    handed_over(&house, &["switchover", "--yes"]);
    assert_ne!(new_primary(&house).name(), "primary");
}
