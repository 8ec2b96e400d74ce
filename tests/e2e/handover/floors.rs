//! What a session knows is kept over a change of primary, or it is told that it may not be.

use super::*;
use pgsteer::pg::Lsn;

/// Sessions whose last writes the new primary has are not alarmed, however long ago they wrote;
/// those whose writes are gone are told so, once.
#[test]
fn only_who_may_have_lost_a_write_is_warned() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let insert = |id: i32| format!("INSERT INTO ledger VALUES ({id})");
    let count = |id: i32| format!("SELECT count(*) FROM ledger WHERE id = {id}");
    let mut calm = house.wire();
    calm.run(&insert(1));
    let mut reader = house.wire();
    reader.run("SELECT count(*) FROM ledger");
    house.cluster.await_replay().unwrap();
    // From then on it is known where that write lies.
    looked_at(house);
    scene.freeze();
    let mut resolved = house.wire();
    resolved.run(&insert(2));
    looked_at(house);
    let mut marked = house.wire();
    marked.run(&insert(3));
    scene.lose(Loss::Killed);
    scene.take_over();

    for wire in [&mut calm, &mut reader] {
        let reply = wire.run(&count(1));
        assert_eq!((reply.value().as_deref(), reply.notices), (Some("1"), vec![]));
    }
    for (wire, id) in [(&mut resolved, 2), (&mut marked, 3)] {
        let reply = wire.run(&count(id));
        assert_eq!(reply.value().as_deref(), Some("0"), "its write was at stake, and is gone");
        let codes: Vec<_> = reply.notices.iter().map(|notice| notice.code.as_str()).collect();
        assert_eq!(codes, ["40003"], "{reply:?}");
        assert!(wire.run(&count(id)).notices.is_empty(), "once");
        wire.run(&insert(4));
        assert_eq!(wire.value(&count(4)), (id - 1).to_string(), "it reads its own writes again");
    }
    assert_eq!(house.metric("pgsteer_positions_lost_total"), Some(2.0));
}

/// Waits for the periodic look at the primary that covers all that was written there by now.
fn looked_at(house: &House) {
    let end = house.server("primary").value("SELECT pg_current_wal_insert_lsn()").unwrap();
    let end: Lsn = end.parse().unwrap();
    await_that("that is looked at", || {
        let seen = house.status_of("primary")["lsn"].as_str().and_then(|lsn| lsn.parse().ok());
        seen.is_some_and(|seen: Lsn| seen >= end)
    });
}

/// What a session has read on the standby that is promoted can't be lost.
#[test]
fn who_read_on_the_promoted_standby_goes_on_there() {
    let scene = Scene::new("[routing]\nconsistency = \"session\"\n", &[]);
    let house = &scene.house;
    house.server("standby2").stop(pgsteer::sandbox::Shutdown::Fast).unwrap();
    let read = "SELECT current_setting('cluster_name') FROM ledger LIMIT 1";
    let mut wires = [(); 4].map(|()| house.wire());
    let mut inside = house.wire();
    for wire in &mut wires {
        await_that("a read there", || wire.value(read) == "standby1");
    }
    await_that("a transaction there", || {
        inside.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        let there = inside.value(read) == "standby1";
        if !there {
            inside.run("ROLLBACK");
        }
        there
    });
    let connects = format!(
        "pgsteer_server_connects_total{{result=\"ok\",server=\"{}\"}}",
        house.server("standby1").address()
    );
    let before = house.metric(&connects).unwrap();
    scene.lose(Loss::Killed);
    scene.take_over();
    for wire in &mut wires {
        let reply = wire.run("INSERT INTO ledger VALUES (1)");
        assert!(reply.notices.is_empty(), "{reply:?}");
        assert_eq!(wire.value(read), "standby1");
    }
    // Its snapshot, and its promise to write nothing, outlive the promotion.
    assert_eq!(inside.value("SELECT count(*) FROM ledger WHERE id = 1"), "0");
    assert_eq!(inside.query("INSERT INTO ledger VALUES (1)").codes(), ["25006"]);
    inside.run("ROLLBACK");
    assert_eq!(inside.value("SELECT count(*) FROM ledger WHERE id = 1"), "4");
    assert!(house.metric(&connects).unwrap() - before <= 1.0, "its backends serve on");
}
