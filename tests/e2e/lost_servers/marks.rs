//! Whatever the primary ran for a session, and whatever it read, leaves a mark: its next read
//! shows no less, wherever that is.

use crate::support::Blueprint;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::end_backends;
use pgsteer::sandbox::Shutdown;
use pgsteer::wire::message;

const COUNT: &str = "SELECT count(*) FROM ledger";
const SERVED: &str = "SELECT current_setting('cluster_name'), count(*) FROM ledger";

fn house() -> House {
    let house = Blueprint::new().unhurried().any_lag().build();
    house.server("primary").rows("CREATE TABLE ledger (id int)").unwrap();
    house.await_catalog();
    house
}

/// What a session does first.
type Does = fn(&House, &mut Wire);

/// Both standbys stay where they are: who knows more is answered by the primary, however he came
/// to know it.
#[test]
fn every_group_of_the_primary_leaves_a_mark() {
    let house = house();
    for standby in house.cluster.standbys() {
        standby.pause_replay().unwrap();
    }
    let cases: [(&str, Does); 6] = [
        ("a write", |_, wire| drop(wire.run("INSERT INTO ledger VALUES (1)"))),
        ("an error behind a commit", |_, wire| {
            let reply = wire.query("BEGIN; INSERT INTO ledger VALUES (2); COMMIT; SELECT 1/0");
            assert_eq!(reply.codes(), ["22012"]);
        }),
        ("an error in a transaction that goes on", |_, wire| {
            wire.run("BEGIN; INSERT INTO ledger VALUES (3); SAVEPOINT a");
            assert_eq!(wire.query("SELECT 1/0").codes(), ["22012"]);
            wire.run("ROLLBACK TO a; COMMIT");
        }),
        ("a loss behind a commit", |house, wire| {
            let sql =
                "BEGIN; INSERT INTO ledger VALUES (4); COMMIT; SELECT pg_sleep(60) /* loses */";
            let mut bytes = Vec::new();
            message::write_query(&mut bytes, sql);
            wire.send(&bytes).unwrap();
            let primary = house.server("primary");
            let there = "SELECT count(*) FROM ledger WHERE id = 4";
            primary.await_value(there, "1", "done with the commit").unwrap();
            assert_eq!(end_backends(primary, "query LIKE '%/* loses */'"), 1);
            assert_eq!(wire.reply().codes(), ["08007"]);
        }),
        ("a read", |house, wire| {
            house.server("primary").rows("INSERT INTO ledger VALUES (5)").unwrap();
            wire.run(&format!("{COUNT} /* pgsteer: role=primary */"));
        }),
        ("a read that fails", |house, wire| {
            house.server("primary").rows("INSERT INTO ledger VALUES (6)").unwrap();
            let sql = "SELECT 1 / (count(*) - count(*)) FROM ledger /* pgsteer: role=primary */";
            assert_eq!(wire.query(sql).codes(), ["22012"]);
        }),
    ];
    for (known, (what, does)) in (1..).zip(cases) {
        let mut wire = house.wire();
        assert_eq!(wire.value(COUNT), "0", "{what}: who knows nothing is shown what is there");
        let mut wire = house.wire();
        does(&house, &mut wire);
        for _ in 0..3 {
            assert_eq!(wire.value(COUNT), known.to_string(), "{what}");
        }
    }
}

/// One standby is ahead of the other. Who has read there is shown no less when it is gone.
#[test]
fn what_was_read_on_a_standby_is_not_unread_on_another() {
    let house = house();
    let (ahead, behind) = (house.server("standby1"), house.server("standby2"));
    behind.pause_replay().unwrap();
    house.server("primary").rows("INSERT INTO ledger VALUES (1)").unwrap();
    ahead.await_value(COUNT, "1", "ahead").unwrap();
    let mut wires: Vec<Wire> = Vec::new();
    await_that("three who read there", || {
        let mut wire = house.wire();
        let row = wire.run(SERVED).rows.remove(0);
        if row[0].as_deref() == Some("standby1") {
            assert_eq!(row[1].as_deref(), Some("1"));
            wires.push(wire);
        }
        wires.len() == 3
    });
    ahead.stop(Shutdown::Immediate).unwrap();
    for mut wire in wires {
        let row = wire.run(SERVED).rows.remove(0);
        assert_eq!(row[1].as_deref(), Some("1"), "on {:?}", row[0]);
    }
    let row = house.wire().run(SERVED).rows.remove(0);
    assert_eq!(row, ["standby2", "0"].map(|value| Some(value.to_owned())), "the other serves");
}
