//! What is known of a database: it stays known while it is read again, and its reading is in
//! nobody's way.

use crate::support::Blueprint;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use pgsteer::clock;
use std::time::Duration;

/// True on a standby; judged by the catalog, for it names a relation.
const READ: &str = "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1";

#[test]
fn a_catalog_that_changes_stays_known_while_it_is_read_again() {
    let house = House::build();
    house.await_catalog();
    let mut reader = house.wire();
    let read_again = || house.proxy.log().matches("catalog read").count();
    let before = read_again();
    let (mut reads, mut on_primary) = (0, 0);
    for table in 0..3 {
        let sql = format!("CREATE TABLE t{table} (i int)");
        house.server("primary").rows(&sql).unwrap();
        let known = read_again();
        let began = clock::now();
        while read_again() == known {
            for _ in 0..50 {
                reads += 1;
                on_primary += i32::from(reader.value(READ) != "t");
            }
            assert!(clock::now().since(began) < Duration::from_mins(1), "it is not read again");
        }
    }
    assert_eq!(read_again() - before, 3);
    assert_eq!(on_primary, 0, "of {reads} reads while the catalog was read again");
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
    primary.rows("DROP DATABASE dropped").unwrap();
    primary.rows("ALTER DATABASE old RENAME TO new").unwrap();
    primary.rows("CREATE DATABASE copy TEMPLATE template").unwrap();
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
