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

/// For so long a catalog that has changed is relied on while it is read again, less a margin.
const RELIED_ON: Duration = Duration::from_millis(400);

/// How long each reading of a catalog took so far, in milliseconds.
fn readings(house: &House) -> Vec<f64> {
    let log = house.proxy.log();
    let lines = log.lines().filter(|line| line.contains("catalog read"));
    lines.map(|line| milliseconds(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// `took` in a line of the log: `20.5ms`, `1.2s`, `900µs`.
fn milliseconds(line: &str) -> Option<f64> {
    let told = line.split_once("took=")?.1;
    let unit = told.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = told.split_at(unit);
    let thousandths = if unit.starts_with("ms") {
        1.0
    } else if unit.starts_with('s') {
        1000.0
    } else {
        0.001
    };
    Some(number.parse::<f64>().ok()? * thousandths)
}

/// Statements that went to the primary as those do that may write, which is all that is known of a
/// read while the catalog is not known. Reads go there for other reasons, too.
fn suspected(house: &House) -> f64 {
    let series = "pgsteer_routing_decisions_total{reason=\"write\",target=\"primary\"}";
    house.metric(series).unwrap()
}

/// Reading it takes some 20 ms. On a crowded machine it may take so long that nobody may rely on
/// the old one any more; such a reading judges nothing.
#[test]
fn a_catalog_that_changes_stays_known_while_it_is_read_again() {
    let house = Blueprint::new().unhurried().any_lag().build();
    house.await_catalog();
    let mut reader = house.wire();
    let (mut judged, mut tables) = (0, 0);
    while judged < 3 {
        tables += 1;
        assert!(tables < 200, "all were slow: {:?}", readings(&house));
        // After one that was slow it may not be in use yet.
        await_that("reads go to standbys", || reader.value(READ) == "t");
        let (known, before) = (readings(&house).len(), suspected(&house));
        let sql = format!("CREATE TABLE t{tables} (i int)");
        house.server("primary").rows(&sql).unwrap();
        let began = clock::now();
        let mut reads = 0;
        while readings(&house).len() == known {
            for _ in 0..50 {
                reads += 1;
                reader.value(READ);
            }
            assert!(clock::now().since(began) < Duration::from_mins(1), "not read again");
        }
        let (took, suspected) = (readings(&house)[known], suspected(&house) - before);
        eprintln!("{suspected} of {reads} reads were suspected while it took {took} ms");
        if took < RELIED_ON.as_secs_f64() * 1000.0 {
            assert!(suspected.abs() < f64::EPSILON, "{suspected} of {reads} within {took} ms");
            judged += 1;
        }
    }
}

/// To tell what views read, a server locks all of it until the reading ends. Who changes two of
/// these tables must not be ended because the reading waits for the one and holds the other.
#[test]
fn whoever_changes_what_views_read_is_not_ended_by_a_deadlock_with_the_reading() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).setting("deadlock_timeout", "2s"))
        .unhurried()
        .any_lag()
        .build();
    let primary = house.server("primary");
    let sql = "CREATE TABLE first (i int); CREATE TABLE second (i int); \
               CREATE VIEW of_first AS SELECT i FROM first; \
               CREATE VIEW of_second AS SELECT i FROM second";
    primary.rows(sql).unwrap();
    house.await_catalog();
    let known = readings(&house).len();
    let mut owner = primary.connect("postgres").unwrap();
    owner.rows("BEGIN; LOCK TABLE second").unwrap();
    primary.rows("CREATE TABLE changed (i int)").unwrap();
    await_that("the reading has given way several times", || {
        // Whoever looks for a deadlock is ended by it: the reading has looked by then, if it waits.
        std::thread::sleep(Duration::from_secs(3));
        owner.rows("SAVEPOINT a; LOCK TABLE first; ROLLBACK TO a").unwrap();
        primary.log().matches("canceling statement due to lock timeout").count() >= 3
    });
    owner.rows("COMMIT").unwrap();
    await_that("it is read", || readings(&house).len() > known);
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
