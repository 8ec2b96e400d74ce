//! What clients may wish for, and what transactions make of it.

use super::furnished;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use crate::support::quickly_enough;

const WHERE: &str = "SELECT pg_is_in_recovery() FROM items LIMIT 1";

/// One house for all that does not disturb each other.
#[test]
fn wishes_and_transactions_are_followed() {
    let house = furnished();
    hints_in_comments(&house);
    settings_of_pgsteer(&house);
    read_only_transactions(&house);
    transactions_that_are_not_for_a_standby(&house);
    functions_and_views(&house);
}

fn on_standby(wire: &mut Wire, sql: &str) -> bool {
    wire.value(sql) == "t"
}

fn hints_in_comments(house: &House) {
    let mut wire = house.wire();
    assert!(on_standby(&mut wire, WHERE));
    assert!(!on_standby(&mut wire, &format!("/* pgsteer: role=primary */ {WHERE}")));
    assert!(!on_standby(&mut house.wire(), &format!("{WHERE} /* pgsteer: consistency=primary */")));
    // A wish for a standby is heeded even where it was not known that one would do.
    let volatile = "SELECT bump() IS NULL FROM items";
    let reply = house.wire().query(&format!("/* pgsteer: role=standby */ {volatile}"));
    assert_eq!(reply.code(), "25006", "{reply:?}");
    // In a text it is no hint, and neither is it in the middle.
    let mut wire = house.wire();
    let quoted = "SELECT pg_is_in_recovery(), '/* pgsteer: role=primary */' FROM items LIMIT 1";
    assert!(on_standby(&mut wire, quoted));
    let middle = "SELECT pg_is_in_recovery() /* pgsteer: role=primary */ FROM items LIMIT 1";
    assert!(on_standby(&mut wire, middle));
    // One with a mistake in it counts for nothing, and `pgsteer route` says so.
    let mistaken = format!("/* pgsteer: role=master */ {WHERE}");
    assert!(on_standby(&mut house.wire(), &mistaken));
    let body = house.http(&format!("/route?sql={}", mistaken.replace(' ', "%20"))).body;
    assert!(body.contains("not known, so ignored: role=master"), "{body}");
    // By the extended protocol as well.
    let reply = house.wire().extended(&format!("/* pgsteer: role=primary */ {WHERE}"));
    assert_eq!(reply.value().as_deref(), Some("f"), "{reply:?}");
}

fn settings_of_pgsteer(house: &House) {
    let mut wire = house.wire();
    assert_eq!(wire.value("SHOW pgsteer.role"), "auto");
    assert_eq!(wire.value("SHOW pgsteer.consistency"), "session");
    wire.run("SET pgsteer.role = 'primary'");
    assert_eq!(wire.value("SHOW pgsteer.role"), "primary");
    assert!(!on_standby(&mut wire, WHERE));
    wire.run("RESET pgsteer.role");
    await_that("a read on a standby again", || on_standby(&mut wire, WHERE));
    wire.run("SET pgsteer.consistency = 'primary'");
    assert!(!on_standby(&mut wire, WHERE));
    wire.run("SET pgsteer.consistency TO eventual");
    assert!(on_standby(&mut wire, WHERE));
    let wrong = wire.query("SET pgsteer.role = 'master'");
    assert_eq!(wrong.code(), "22023", "{wrong:?}");
    assert_eq!(wrong.error().hint, "Available values: auto, primary, standby.");
    assert_eq!(wire.value("SHOW pgsteer.role"), "auto", "a wrong value changes nothing");
    let wrong = wire.query("SET pgsteer.rool = 'primary'");
    assert_eq!(wrong.code(), "42704", "{wrong:?}");
    assert!(wrong.error().hint.contains("pgsteer.role"), "{wrong:?}");

    // From the startup message, where drivers can set them.
    let address = house.proxy.address();
    let params = |options| [("user", "postgres"), ("database", "postgres"), ("options", options)];
    let mut wire = Wire::log_in_with(address, &params("-c pgsteer.role=primary")).unwrap();
    assert!(!on_standby(&mut wire, WHERE));
    wire.run("SET pgsteer.role = 'auto'");
    wire.run("RESET pgsteer.role");
    assert_eq!(wire.value("SHOW pgsteer.role"), "primary", "RESET goes back to the start");
    let refused = Wire::log_in_with(address, &params("-c pgsteer.role=no")).unwrap_err();
    assert_eq!((refused.code(), refused.ended), ("22023", Ended::Closed), "{refused:?}");
    assert_eq!(refused.error().severity, "FATAL");

    // A wish for a standby, and a write: a standby says no, and nothing is written.
    let mut wire = house.wire();
    wire.run("SET pgsteer.role = 'standby'");
    assert!(on_standby(&mut wire, WHERE));
    let refused = wire.query("INSERT INTO items (id) VALUES (4711)");
    assert_eq!(refused.code(), "25006", "{refused:?}");
    assert_eq!(refused.ended, Ended::Ready('I'));
    assert!(on_standby(&mut wire, WHERE));
}

fn read_only_transactions(house: &House) {
    for begin in ["BEGIN READ ONLY", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"]
    {
        let mut wire = house.wire();
        wire.run(begin);
        assert!(on_standby(&mut wire, WHERE), "{begin}");
        assert_eq!(wire.run("COMMIT").tags, ["COMMIT"]);
    }
    // What a standby would get wrong is refused, and fails the transaction.
    for unfit in ["SELECT pg_advisory_lock(1)", "SELECT nextval('ids')", "SELECT * FROM numbers"] {
        for extended in [false, true] {
            let mut wire = house.wire();
            wire.run("BEGIN READ ONLY");
            assert!(on_standby(&mut wire, WHERE));
            let refused = if extended { wire.extended(unfit) } else { wire.query(unfit) };
            assert_eq!(refused.codes(), ["25006"], "{unfit}: {refused:?}");
            assert!(refused.error().detail.contains("has read already"), "{unfit}: {refused:?}");
            assert!(refused.error().hint.contains("pgsteer.role"), "{unfit}: {refused:?}");
            assert_eq!(refused.ended, Ended::Ready('E'), "{unfit}");
            let failed = wire.query(WHERE);
            assert_eq!((failed.code(), failed.ended), ("25P02", Ended::Ready('E')), "{failed:?}");
            assert_eq!(wire.run("ROLLBACK").ended, Ended::Ready('I'));
            assert!(wire.query(unfit).is_good(), "on the primary it runs: {unfit}");
            wire.run("SELECT pg_advisory_unlock_all()");
        }
    }
}

fn transactions_that_are_not_for_a_standby(house: &House) {
    let begins = [
        "BEGIN",
        "BEGIN READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
    ];
    for begin in begins {
        let mut wire = house.wire();
        wire.run(begin);
        assert!(!on_standby(&mut wire, WHERE), "{begin}");
        wire.run("ROLLBACK");
    }
    // One that is made read-only later stays where it began, and can write if it is undone.
    let mut wire = house.wire();
    wire.run("BEGIN");
    wire.run("SET TRANSACTION READ ONLY");
    assert!(!on_standby(&mut wire, WHERE));
    assert_eq!(wire.query("INSERT INTO items (id) VALUES (1000)").code(), "25006");
    wire.run("ROLLBACK");
    // A standby can't be made to write.
    wire = house.wire();
    wire.run("BEGIN READ ONLY");
    assert!(on_standby(&mut wire, WHERE));
    let refused = wire.query("SET TRANSACTION READ WRITE");
    assert_eq!(refused.code(), "25006", "{refused:?}");
    assert_eq!(refused.ended, Ended::Ready('E'));
    wire.run("ROLLBACK");
    wire.run("BEGIN READ WRITE; INSERT INTO items (id) VALUES (1001); COMMIT");
}

fn functions_and_views(house: &House) {
    let mut wire = house.wire();
    // A new function is not known until the catalog is read again: the primary, to be sure. On a
    // crowded machine that may be read before the function is asked for.
    let mut primary = house.server("primary").connect("postgres").unwrap();
    let (mut number, mut read) = (0, String::new());
    quickly_enough("unknown means primary", || {
        number += 1;
        let stable = "RETURNS bool STABLE LANGUAGE sql AS 'SELECT pg_is_in_recovery()'";
        primary.rows(&format!("CREATE FUNCTION fresh{number}() {stable}")).unwrap();
        read = format!("SELECT fresh{number}() FROM items LIMIT 1");
        let first = wire.query(&read);
        if first.value().as_deref() == Some("t") {
            return Err(format!("it is known: {first:?}"));
        }
        assert_eq!(first.value().as_deref(), Some("f"), "{first:?}");
        Ok(())
    });
    house.cluster.await_replay().unwrap();
    await_that("the new function is known", || {
        let mut wire = house.wire();
        wire.query(&read).value().as_deref() == Some("t")
    });
    // It is replaced by one that writes. Until that is known a standby may be asked; it says no,
    // and its word is passed on: what an unknown function did before cannot be told.
    primary
        .rows(&format!(
            "CREATE OR REPLACE FUNCTION fresh{number}() RETURNS bool VOLATILE LANGUAGE sql \
             AS 'SELECT nextval(''ids'') IS NULL'"
        ))
        .unwrap();
    house.cluster.await_replay().unwrap();
    for _ in 0..20 {
        let reply = house.wire().query(&read);
        let refused = reply.code() == "25006";
        assert!(refused || reply.value().as_deref() == Some("f"), "{reply:?}");
    }
    await_that("it is known to write", || {
        let marker = format!("fresh{}", house.proxy.log().len());
        house.wire().query(&format!("{read} /* {marker} */"));
        house.where_ran(&marker) == ["primary"]
    });
}
