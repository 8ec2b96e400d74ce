//! What is known of a database: it stays known while it is read again, and its reading is in
//! nobody's way.

use crate::support::Blueprint;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::quickly_enough;
use pgsteer::clock;
use std::time::Duration;

/// True on a standby; judged by the catalog, for it names a relation.
const READ: &str = "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1";

#[test]
fn a_catalog_that_changes_stays_known_while_it_is_read_again() {
    let house = Blueprint::new().unhurried().any_lag().build();
    house.await_catalog();
    let mut reader = house.wire();
    let read_again = || house.proxy.log().matches("catalog read").count();
    let mut tables = 0;
    // That takes some 20 ms. After 500 ms it would count as unknown.
    quickly_enough("no read goes to the primary meanwhile", || {
        let before = read_again();
        let (mut reads, mut on_primary) = (0, 0);
        for _ in 0..3 {
            tables += 1;
            let sql = format!("CREATE TABLE t{tables} (i int)");
            let known = read_again();
            house.server("primary").rows(&sql).unwrap();
            let began = clock::now();
            while read_again() == known {
                for _ in 0..50 {
                    reads += 1;
                    on_primary += i32::from(reader.value(READ) != "t");
                }
                assert!(clock::now().since(began) < Duration::from_mins(1), "not read again");
            }
        }
        assert_eq!(read_again() - before, 3);
        if on_primary == 0 { Ok(()) } else { Err(format!("{on_primary} of {reads}")) }
    });
}

/// Backends of ours in a database, idle or not.
fn ours_in(house: &House, database: &str) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    house.server("primary").value(&sql).unwrap()
}

/// Somebody used it through pgsteer a moment ago: our idle backends are in it, and the connection
/// by which its catalog is compared.
fn used(house: &House, database: &str) {
    let mut wire = Wire::log_in(house.proxy.address(), database).unwrap();
    wire.run("CREATE TABLE t (i int)");
    wire.run("INSERT INTO t VALUES (1)");
    drop(wire);
    await_that("its catalog is read", || ours_in(house, database) == "2");
}

#[test]
fn a_database_that_somebody_wants_for_himself_is_left() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).build();
    let primary = house.server("primary");
    for database in ["old", "dropped", "template"] {
        primary.rows(&format!("CREATE DATABASE {database}")).unwrap();
        house.cluster.await_replay().unwrap();
        used(&house, database);
    }
    // Each of them waits for at most 5 s until the others have left, and fails then.
    for wants in [
        "DROP DATABASE dropped",
        "ALTER DATABASE old RENAME TO new",
        "CREATE DATABASE copy TEMPLATE template",
    ] {
        quickly_enough(wants, || primary.rows(wants).map(drop).map_err(|error| error.to_string()));
    }
    // What was only copied or renamed serves on.
    for database in ["new", "template", "copy"] {
        let mut wire = Wire::log_in(house.proxy.address(), database).unwrap();
        assert_eq!(wire.value("SELECT sum(i) FROM t"), "1", "{database}");
    }
    await_that("who is gone is not asked for any more", || {
        Wire::log_in(house.proxy.address(), "dropped")
            .map(|mut wire| wire.query("SELECT 1"))
            .map_or_else(|reply| reply.code() == "3D000", |reply| reply.code() == "3D000")
    });
}
