//! Transactions that are `READ ONLY`: they go to a standby, and to the primary after all if what
//! they ask for first needs it.

use crate::raw::{Raw, bind, describe, execute, flush, parse, query};
use crate::support::{Blueprint, Ended, House, Wire, await_that};
use pgsteer::sandbox::Shutdown;

const WHERE: &str = "SELECT pg_is_in_recovery() FROM items LIMIT 1";

fn house() -> House {
    furnished(Blueprint::new())
}

fn furnished(blueprint: Blueprint) -> House {
    let house = blueprint.servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    let sql = "CREATE TABLE items AS SELECT 1 AS id; CREATE SEQUENCE ids; \
               CREATE FUNCTION volatile() RETURNS text LANGUAGE sql VOLATILE AS \
               'SELECT pg_is_in_recovery() || '' '' || current_setting(''work_mem'') || '' '' || \
               current_setting(''transaction_isolation'') || '' '' || \
               current_setting(''transaction_read_only'') || '' '' || current_user'; \
               CREATE ROLE other; GRANT ALL ON items TO other";
    house.server("primary").rows(sql).unwrap();
    house.await_catalog();
    house
}

/// A transaction that was put on the standby, as the log of its server says.
fn begun(house: &House, marker: &str) -> Wire {
    let mut wire = house.wire();
    assert_eq!(wire.run(&format!("BEGIN READ ONLY /* {marker} */")).ended, Ended::Ready('T'));
    assert_eq!(house.where_ran(marker), ["standby1"]);
    wire
}

/// Nobody is left in a transaction. A backend that pgsteer has closed may take a while to end.
fn await_none_in_transaction(house: &House) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    for server in ["primary", "standby1"] {
        await_that("none was left behind", || house.server(server).value(sql).unwrap() == "0");
    }
}

#[test]
fn one_that_has_only_begun_gets_every_statements_own_answer() {
    let house = house();
    for (at, (sql, code)) in [
        ("SELECT * FROM nosuch", "42P01"),
        ("SELECT nosuch()", "42883"),
        ("SELEC", "42601"),
        ("SELECT nextval('ids')", "25006"),
        ("INSERT INTO items VALUES (2)", "25006"),
        ("SELECT * FROM items FOR UPDATE", "25006"),
    ]
    .into_iter()
    .enumerate()
    {
        for extended in [false, true] {
            let mut wire = begun(&house, &format!("first{at}{extended}"));
            let told = if extended { wire.extended(sql) } else { wire.query(sql) };
            assert_eq!((told.codes(), told.ended), (vec![code], Ended::Ready('E')), "{told:?}");
            assert!(!told.error().message.contains("standby"), "the server's own: {told:?}");
            assert_eq!(wire.query(WHERE).code(), "25P02");
            assert_eq!(wire.run("ROLLBACK").ended, Ended::Ready('I'));
            assert_eq!(house.where_ran(&format!("first{at}{extended}")), ["primary", "standby1"]);
        }
    }
    for sql in [
        "SELECT volatile()",
        "SELECT pg_advisory_xact_lock(1)",
        "LISTEN a",
        "LOCK items IN ACCESS SHARE MODE",
    ] {
        let mut wire = begun(&house, sql.split('(').next().unwrap());
        assert!(wire.query(sql).is_good(), "{sql}");
        assert_eq!(wire.value(WHERE), "f", "it stays at the primary");
        assert_eq!(wire.run("COMMIT").ended, Ended::Ready('I'));
        wire.run("UNLISTEN *");
        await_that("the next read is on a standby", || wire.value(WHERE) == "t");
    }
    await_none_in_transaction(&house);
}

#[test]
fn one_that_begins_anew_is_what_it_said_it_would_be() {
    let house = house();
    let mut wire = house.wire();
    wire.run("SET work_mem = '5MB'");
    settled(&mut wire);
    wire.run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    assert_eq!(wire.value("SHOW work_mem"), "5MB");
    assert_eq!(wire.value("SELECT volatile()"), "false 5MB repeatable read on postgres");
    wire.run("COMMIT");

    settled(&mut wire);
    wire.run("BEGIN READ ONLY");
    wire.run("SET LOCAL work_mem = '6MB'");
    wire.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    wire.run("");
    wire.run("SET LOCAL ROLE other");
    assert_eq!(wire.value("SHOW work_mem"), "6MB");
    assert_eq!(wire.value("SELECT volatile()"), "false 6MB repeatable read on other");
    wire.run("ROLLBACK");
    assert_eq!(wire.value("SELECT volatile()"), "false 5MB read committed off postgres");

    // What is set for the session lasts if the transaction is committed, and only then.
    for (end, expected) in [("ROLLBACK", "5MB"), ("COMMIT", "7MB")] {
        settled(&mut wire);
        wire.run("BEGIN READ ONLY");
        wire.run("SET work_mem = '7MB'");
        assert!(wire.value("SELECT volatile()").contains("7MB"));
        wire.run(end);
        assert_eq!(wire.value("SHOW work_mem"), expected);
        await_that("also on a standby", || {
            let sql = "SELECT pg_is_in_recovery() || current_setting('work_mem') FROM items";
            wire.value(sql) == format!("true{expected}")
        });
    }
    // A standby can't let it write; the primary can.
    settled(&mut wire);
    wire.run("BEGIN READ ONLY");
    wire.run("SET TRANSACTION READ WRITE");
    wire.run("INSERT INTO items VALUES (7)");
    wire.run("COMMIT");
    assert_eq!(wire.value("SELECT count(*) FROM items WHERE id = 7"), "1");
    // And a wish is heeded, too.
    settled(&mut wire);
    wire.run("BEGIN READ ONLY");
    assert_eq!(wire.value(&format!("/* pgsteer: role=primary */ {WHERE}")), "f");
    wire.run("COMMIT");
}

/// What is cancelled while its transaction moves to the primary is cancelled, wherever that is:
/// where it waits for a backend, and where the transaction is begun anew.
#[test]
fn what_is_cancelled_while_its_transaction_moves_is_not_run() {
    let house = house();
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    let mut watcher = primary.connect("postgres").unwrap();
    let begins = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'BEGIN%'";
    for cancels in [false, true] {
        let mut wire = begun(&house, &format!("moves {cancels}"));
        wire.run("SET LOCAL default_tablespace = 'pg_default'");
        // Who sets that looks for the tablespace.
        locker.rows("BEGIN; LOCK TABLE pg_tablespace IN ACCESS EXCLUSIVE MODE").unwrap();
        wire.send(&query("SELECT volatile() /* moved */")).unwrap();
        let count = format!("SELECT count(*) {begins}");
        await_that("it begins anew", || watcher.value(&count).unwrap() == "1");
        if cancels {
            wire.cancel(house.proxy.address());
            let told = wire.reply();
            assert_eq!((told.codes(), told.ended), (vec!["57014"], Ended::Ready('E')), "{told:?}");
            assert_eq!(watcher.value(&count).unwrap(), "0", "nobody begins it for him");
            locker.rows("COMMIT").unwrap();
            assert_eq!(wire.query(WHERE).code(), "25P02");
            assert_eq!(wire.run("COMMIT").tags, ["ROLLBACK"]);
            assert_eq!(wire.value("SELECT 1"), "1", "the next one is a new one");
        } else {
            locker.rows("COMMIT").unwrap();
            assert_eq!(
                wire.reply().value().as_deref(),
                Some("false 4MB read committed on postgres")
            );
            assert_eq!(wire.run("COMMIT").tags, ["COMMIT"]);
        }
    }
    assert_eq!(house.runs("/* moved */").iter().sum::<usize>(), 1);
    await_none_in_transaction(&house);
}

/// Nothing but the answers: no parameter, no second `ReadyForQuery`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_sees_nothing_of_it() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    assert_eq!(client.query("BEGIN READ ONLY").await.tags(), "CZ");
    assert_eq!(client.query("SET LOCAL statement_timeout = 0").await.tags(), "CZ");
    assert_eq!(client.query("SELECT volatile()").await.tags(), "TDCZ");
    assert_eq!(client.query("COMMIT").await.tags(), "CZ");

    // Prepared long before, as drivers do; described before it is run; with Flush, as asyncpg.
    let prepared = [parse("b", "BEGIN READ ONLY"), parse("v", "SELECT volatile()")];
    assert_eq!(client.batch(&prepared).await.tags(), "11Z");
    assert_eq!(client.batch(&[bind("b", &[]), execute()]).await.tags(), "2CZ");
    assert_eq!(client.batch(&[describe("v")]).await.tags(), "tTZ");
    let answer = client.batch(&[bind("v", &[]), execute()]).await;
    assert_eq!((answer.tags().as_str(), answer.status()), ("2DCZ", 'T'));
    assert!(answer.value().starts_with("false"), "{answer:?}");
    client.query("ROLLBACK").await;

    client.batch(&[bind("b", &[]), execute()]).await;
    client.send(&[parse("w", "SELECT nextval('ids')"), describe("w"), flush()].concat()).await;
    assert_eq!(client.until('T').await.tags(), "1tT");
    let refused = client.batch(&[bind("w", &[]), execute()]).await;
    assert_eq!((refused.code().as_deref(), refused.status()), (Some("25006"), 'E'));
    client.query("ROLLBACK").await;

    // Once it has read, the same is refused, and the client goes on.
    while client.value(WHERE).await != "t" {}
    client.batch(&[bind("b", &[]), execute()]).await;
    assert_eq!(client.value(WHERE).await, "t");
    client.send(&[parse("x", "SELECT nextval('ids')"), describe("x"), flush()].concat()).await;
    let refused = client.until('E').await;
    assert_eq!(refused.error().unwrap().code().as_deref(), Some("25006"));
    let passed_over = client.batch(&[bind("x", &[]), execute()]).await;
    assert_eq!((passed_over.tags().as_str(), passed_over.status()), ("Z", 'E'));
    assert_eq!(client.query(WHERE).await.code().as_deref(), Some("25P02"));
    assert_eq!(client.query("ROLLBACK").await.status(), 'I');
    assert_eq!(client.value(WHERE).await, "t");
}

/// Its next transaction is for a standby again.
fn settled(wire: &mut Wire) {
    await_that("a read on the standby", || wire.value(WHERE) == "t");
}

#[test]
fn several_statements_at_a_time_may_end_it() {
    let house = house();
    let mut wire = house.wire();
    for (sql, tags, ended) in [
        (format!("{WHERE}; COMMIT"), vec!["SELECT 1", "COMMIT"], 'I'),
        (format!("{WHERE}; ROLLBACK"), vec!["SELECT 1", "ROLLBACK"], 'I'),
        (format!("{WHERE}; COMMIT AND CHAIN"), vec!["SELECT 1", "COMMIT"], 'T'),
        (format!("SAVEPOINT a; {WHERE}; RELEASE a"), vec!["SAVEPOINT", "SELECT 1", "RELEASE"], 'T'),
        (format!("SET LOCAL work_mem = 64; {WHERE}; END"), vec!["SET", "SELECT 1", "COMMIT"], 'I'),
    ] {
        settled(&mut wire);
        wire.run("BEGIN READ ONLY");
        assert_eq!(wire.value(WHERE), "t");
        let reply = wire.query(&sql);
        assert_eq!(reply.tags, tags, "{reply:?}");
        assert_eq!(reply.ended, Ended::Ready(ended), "{reply:?}");
        assert_eq!(reply.rows[0][0].as_deref(), Some("t"), "{sql}");
        wire.run("ROLLBACK");
    }
    // What comes behind a COMMIT is not in the transaction, and what needs the primary stays so.
    let volatile = "SELECT nextval('ids'); COMMIT";
    for sql in ["COMMIT; INSERT INTO items VALUES (3)", volatile, "COMMIT; BEGIN; SELECT 1"] {
        settled(&mut wire);
        wire.run("BEGIN READ ONLY");
        assert_eq!(wire.value(WHERE), "t");
        let refused = wire.query(sql);
        assert_eq!((refused.code(), refused.ended), ("25006", Ended::Ready('E')), "{refused:?}");
        wire.run("ROLLBACK");
    }
    let nothing = "SELECT count(*) FROM items WHERE id = 3";
    assert_eq!(house.server("primary").value(nothing).unwrap(), "0");
}

#[test]
fn without_a_primary_it_is_told_so_and_goes_on_when_it_is_rolled_back() {
    let house = furnished(Blueprint::new().set("routing.hold_max", "1s"));
    let mut wire = begun(&house, "alone");
    house.server("primary").stop(Shutdown::Immediate).unwrap();
    let refused = wire.query("SELECT * FROM nosuch");
    assert_eq!((refused.codes(), refused.ended), (vec!["57P03"], Ended::Ready('E')), "{refused:?}");
    assert_eq!(wire.query(WHERE).code(), "25P02");
    assert_eq!(wire.run("ROLLBACK").ended, Ended::Ready('I'));
    wire.run("BEGIN READ ONLY");
    assert_eq!(wire.value(WHERE), "t");
    assert!(wire.run(&format!("{WHERE}; COMMIT")).is_good());
}

/// A function that says of itself that it only reads, and writes: a standby refuses that, and
/// nobody knows what it did before. It is not tried on the primary.
#[test]
fn what_lies_about_itself_is_not_run_again() {
    let house = Blueprint::new().unhurried().any_lag().build();
    let primary = house.server("primary");
    primary.rows("CREATE SEQUENCE ids").unwrap();
    let lies = "CREATE FUNCTION lies() RETURNS bigint STABLE LANGUAGE plpgsql AS \
                'BEGIN RETURN nextval(''ids''); END'";
    primary.rows(lies).unwrap();
    house.cluster.await_replay().unwrap();
    let mut wire = house.wire();
    // Until it is known to be STABLE, it is for the primary.
    await_that("it is sent to a standby", || wire.query("SELECT lies()").codes() == ["25006"]);
    let drawn = primary.value("SELECT last_value FROM ids").unwrap();
    for _ in 0..5 {
        assert_eq!(house.wire().query("SELECT lies()").codes(), ["25006"]);
        assert_eq!(house.wire().extended("SELECT lies()").codes(), ["25006"]);
    }
    assert_eq!(primary.value("SELECT last_value FROM ids").unwrap(), drawn);
}
