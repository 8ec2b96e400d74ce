//! Others change who is the primary: what is believed, what is followed, and what clients see.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use pgsteer::sandbox::Server;
use pgsteer::sandbox::Shutdown;
use std::io::Write as _;
use std::time::Duration;

const READ: &str = "SELECT current_setting('cluster_name') FROM notes LIMIT 1";

fn write(number: i32) -> String {
    format!("INSERT INTO notes VALUES ({number}, current_setting('cluster_name'))")
}

/// Where writes go now, as the written row says.
fn writes_to(wire: &mut Wire) -> String {
    let sql = "INSERT INTO notes VALUES (0, current_setting('cluster_name')) RETURNING place";
    wire.query(sql).value().unwrap_or_default()
}

fn furnished(house: House) -> House {
    let sql = "CREATE TABLE notes AS SELECT -1 AS id, 'nowhere'::text AS place";
    house.server("primary").rows(sql).unwrap();
    house.await_catalog();
    house
}

fn house() -> House {
    let blueprint = Blueprint::new().toml("[routing]\nhold_max = \"50s\"");
    furnished(blueprint.unhurried().any_lag().build())
}

/// Makes it a standby of another, as of its next start.
fn demote(server: &Server, primary: &Server) {
    let data = server.data();
    let mut conf =
        std::fs::File::options().append(true).open(data.join("postgresql.auto.conf")).unwrap();
    let port = primary.port();
    writeln!(conf, "primary_conninfo = 'host=127.0.0.1 port={port} user=postgres'").unwrap();
    std::fs::write(data.join("standby.signal"), "").unwrap();
}

#[test]
fn a_promotion_after_the_primarys_death_is_followed_and_what_may_be_lost_is_said() {
    let house = house();
    // Of what these wrote last, nobody can say whether the new primary has it: they had not
    // been told a position yet, or were in the middle of something.
    let mut in_flight = house.wire();
    let mut calm = house.wire();
    calm.run(&write(1));
    await_that("what it wrote is on a standby", || calm.value(READ).starts_with("standby"));
    house.cluster.await_replay().unwrap();
    in_flight.run("BEGIN");
    in_flight.run(&write(2));
    house.server("primary").kill9().unwrap();
    let held = std::thread::spawn({
        let mut wire = house.wire();
        move || (writes_to(&mut wire), wire)
    });
    house.server("standby1").promote().unwrap();

    let (place, mut other) = held.join().unwrap();
    assert_eq!(place, "standby1", "the write that was held goes to the new primary");
    let lost = in_flight.query(&write(2));
    assert_eq!(lost.codes(), ["40001"]);
    let told = [lost, in_flight.run("ROLLBACK"), in_flight.run(READ)].map(|reply| reply.notices);
    let told = told.concat();
    let codes: Vec<_> = told.iter().map(|notice| notice.code.as_str()).collect();
    assert_eq!(codes, ["40003"], "{told:?}");
    assert_eq!(told[0].severity, "WARNING");
    assert!(told[0].message.contains("may be lost"), "{told:?}");
    assert!(in_flight.run(READ).notices.is_empty(), "it is said once");
    for wire in [&mut calm, &mut in_flight, &mut other] {
        assert_eq!(writes_to(wire), "standby1");
    }
    assert_eq!(calm.value("SELECT count(*) FROM notes WHERE id = 1"), "1");
    assert_eq!(calm.value("SELECT count(*) FROM notes WHERE id = 2"), "0");
    let status = house.status();
    assert_eq!(status["primary"], *house.server("standby1").address(), "{status}");
    assert_eq!(house.metric("pgsteer_epoch"), Some(2.0));

    // The old one is back, and knows nothing of it.
    house.server("primary").start().unwrap();
    await_that("it is cordoned", || house.status_of("primary")["state"] == "cordoned");
    assert!(house.proxy.log().contains("pg_rewind"), "the log says what to do");
    for _ in 0..20 {
        let mut wire = house.wire();
        assert_eq!(writes_to(&mut wire), "standby1");
        assert_ne!(house.wire().value(READ), "primary", "it gets no reads either");
    }
    let strange = "SELECT count(*) FROM notes WHERE place = 'standby1'";
    assert_eq!(house.server("primary").value(strange).unwrap(), "0");
    assert_eq!(house.metric("pgsteer_findings"), Some(1.0));
}

#[test]
fn a_promotion_beside_a_living_primary_is_cordoned_until_it_is_gone() {
    let house = house();
    let mut wire = house.wire();
    wire.run(&write(1));
    house.cluster.await_replay().unwrap();
    let mut inside = house.wire();
    inside.run("BEGIN");
    inside.run(&write(2));

    house.server("standby1").promote().unwrap();

    await_that("it is cordoned", || house.status_of("standby1")["state"] == "cordoned");
    await_that("the alarm", || house.metric("pgsteer_findings") == Some(1.0));
    assert_eq!(house.metric("pgsteer_primaries"), Some(2.0));
    let log = house.proxy.log();
    let line = log.lines().find(|line| line.contains("event=\"finding\"")).unwrap();
    assert!(line.contains("is cordoned") && line.contains("WARN"), "{line}");
    assert!(line.contains(&house.server("standby1").address()), "{line}");
    for _ in 0..20 {
        assert_eq!(writes_to(&mut wire), "primary");
        assert_eq!(writes_to(&mut house.wire()), "primary");
        assert_eq!(house.wire().value(READ), "standby2", "the rogue gets no reads");
    }
    inside.run("COMMIT");
    assert_eq!(house.server("standby1").value("SELECT max(id) FROM notes").unwrap(), "1");

    house.server("standby1").stop(Shutdown::Fast).unwrap();
    await_that("all clear", || house.metric("pgsteer_findings") == Some(0.0));
    assert_eq!(house.metric("pgsteer_primaries"), Some(1.0));
    assert!(house.proxy.log().contains("no longer:"));
    assert_eq!(writes_to(&mut wire), "primary");
}

#[test]
fn two_primaries_at_the_start_take_no_writes_until_one_is_left() {
    let blueprint = Blueprint::new().toml("[routing]\nhold_max = \"200ms\"").unhurried();
    let house = blueprint.build_after(|cluster| {
        let sql = "CREATE TABLE notes AS SELECT -1 AS id, 'nowhere'::text AS place";
        cluster.primary().rows(sql).unwrap();
        cluster.await_replay().unwrap();
        cluster.server("standby1").unwrap().promote().unwrap();
    });
    let mut wire = house.wire();
    let refused = wire.query(&write(1));
    assert_eq!((refused.codes(), refused.ended), (vec!["57P03"], Ended::Ready('I')));
    let message = &refused.error().message;
    assert!(message.contains("two servers say that they are the primary"), "{refused:?}");
    assert!(refused.error().hint.contains("Stop the server"), "{refused:?}");
    await_that("reads go to the standby", || {
        wire.query(READ).value().as_deref() == Some("standby2")
    });
    assert_eq!(house.status()["no_primary"], "two servers say that they are the primary");
    assert_eq!(house.http("/readyz").status, 200, "reads can be served");
    assert_eq!(house.http("/readyz?require=primary").status, 503);
    assert!(house.proxy.log().contains("ERROR"), "an operator must know");
    for server in ["primary", "standby1"] {
        let written = house.server(server).value("SELECT count(*) FROM notes").unwrap();
        assert_eq!(written, "1", "nothing was written to {server}");
    }

    house.server("standby1").stop(Shutdown::Fast).unwrap();
    await_that("the other takes writes", || writes_to(&mut wire) == "primary");
}

/// What an operator does by hand: stop the primary, promote a standby, start the old one as a
/// standby of it. And once more, the other way round in time: demoted first, promoted then.
#[test]
fn a_switchover_by_hand_is_followed() {
    let house = house();
    let [old, new, last] = ["primary", "standby1", "standby2"].map(|name| house.server(name));
    let mut wire = house.wire();
    let mut inside = house.wire();
    wire.run(&write(1));
    inside.run("BEGIN");
    inside.run(&write(2));
    old.stop(Shutdown::Fast).unwrap();
    new.promote().unwrap();
    demote(old, new);
    old.start().unwrap();
    assert_eq!(writes_to(&mut wire), "standby1");
    assert_eq!(inside.query("COMMIT").codes(), ["40001"]);
    assert_eq!(writes_to(&mut inside), "standby1");
    await_that("the old one serves reads", || house.wire().value(READ) == "primary");
    assert_eq!(wire.value("SELECT count(*) FROM notes WHERE id = 1"), "1");

    // Demoted first: its sessions are told nothing wrong, and hold.
    let followers = [old, last].map(|server| (server, "primary_conninfo"));
    new.stop(Shutdown::Fast).unwrap();
    demote(new, old);
    new.start().unwrap();
    await_that("there is no primary", || house.status()["no_primary"].is_string());
    let held = std::thread::spawn(move || writes_to(&mut wire));
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", old.port());
    for (server, setting) in followers.iter().skip(1) {
        server.set(setting, &conninfo).unwrap();
    }
    old.promote().unwrap();
    assert_eq!(held.join().unwrap(), "primary");
    assert_eq!(writes_to(&mut inside), "primary");
    await_that("both others serve", || {
        house.status_of("standby1")["reads"] == true && house.status_of("standby2")["reads"] == true
    });
    assert_eq!(house.metric("pgsteer_findings"), Some(0.0));
    assert_eq!(house.metric("pgsteer_epoch"), Some(3.0));
}

/// The old primary was only frozen. When it wakes, the transactions that were open on it must
/// not write any more.
#[test]
fn an_open_transaction_on_a_replaced_primary_cannot_go_on() {
    let house = furnished(
        Blueprint::new()
            .servers(|plan| plan.standbys(1))
            .toml("servers.silent_after = \"1s\"\n[routing]\nhold_max = \"50s\"")
            .build(),
    );
    let mut wires: Vec<Wire> = (0..3).map(|_| house.wire()).collect();
    for wire in &mut wires {
        wire.run("BEGIN");
        wire.run(&write(7));
    }
    let mut unanswered = house.wire();
    unanswered.run(&write(0));
    house.server("primary").sigstop();
    let asked = std::thread::spawn(move || unanswered.query(&write(9)));
    house.server("standby1").promote().unwrap();
    let mut fresh = house.wire();
    assert_eq!(writes_to(&mut fresh), "standby1");
    house.server("primary").sigcont();
    await_that("the old one is cordoned", || house.status_of("primary")["state"] == "cordoned");
    // The old one executes it once it wakes; its success is worth nothing any more.
    let told = asked.join().unwrap();
    assert_eq!(told.codes(), ["08007"], "{told:?}");

    let commit = wires[0].query("COMMIT");
    assert_eq!((commit.codes(), commit.ended), (vec!["40001"], Ended::Ready('I')), "{commit:?}");
    let more = wires[1].query(&write(8));
    assert_eq!((more.codes(), more.ended), (vec!["40001"], Ended::Ready('E')), "{more:?}");
    wires[1].run("ROLLBACK");
    assert!(wires[2].query("ROLLBACK").is_good());
    for wire in &mut wires {
        assert_eq!(writes_to(wire), "standby1");
    }
    std::thread::sleep(Duration::from_millis(200));
    for server in ["primary", "standby1"] {
        let written = "SELECT count(*) FROM notes WHERE id BETWEEN 1 AND 8";
        assert_eq!(house.server(server).value(written).unwrap(), "0", "on {server}");
    }
}
