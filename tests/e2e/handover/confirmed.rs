//! A commit whose wait for the standbys was cut short is not told as a success.

use super::*;
use crate::support::Ended;
use crate::support::synchronous;
use pgsteer::sandbox::StatementLog;

/// One standby must have each commit, and none receives anything.
fn stalled() -> House {
    let house = Blueprint::new().servers(|plan| plan.standbys(1).log(StatementLog::All)).build();
    let primary = house.server("primary");
    primary.rows("CREATE TABLE ledger (id int)").unwrap();
    // A server sends two signals for each cancel, and the second may come after the first has had
    // its effect: so it is deaf until it is let go on, and also between one wait and the next.
    let deaf = "CREATE FUNCTION deaf() RETURNS int LANGUAGE plpgsql AS 'BEGIN LOOP BEGIN \
                LOOP BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN 1; \
                EXCEPTION WHEN query_canceled THEN END; END LOOP; \
                EXCEPTION WHEN query_canceled THEN END; END LOOP; END'";
    primary.rows(deaf).unwrap();
    house.await_catalog();
    house
}

const NAMES: &str = "ANY 1 (standby1)";

/// Waits until so many commits of clients wait for a standby. One of pgsteer's own may, too.
fn await_stalled(house: &House, commits: usize) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE wait_event = 'SyncRep' AND application_name !~ '^pgsteer'";
    house.server("primary").await_value(sql, &commits.to_string(), "waiting").unwrap();
}

fn cancel(house: &House, (pid, key): &(i32, Vec<u8>)) {
    let mut request = Vec::new();
    pgsteer::wire::message::write_cancel_request(&mut request, *pid, key);
    let mut wire = Wire::connect(house.proxy.address()).unwrap();
    wire.send(&request).unwrap();
    assert!(wire.message().is_none());
}

#[test]
fn a_cancelled_wait_for_a_standby_is_no_success() {
    let house = stalled();
    let primary = house.server("primary");
    synchronous(primary, NAMES);
    house.server("standby1").sigstop_process("walreceiver");
    let insert = |id: i32| format!("INSERT INTO ledger VALUES ({id})");
    let many = format!("BEGIN; {}; COMMIT; SELECT 1", insert(3));
    let cases = [
        (query(&insert(1)), None, 1),
        (extended(&insert(2)), None, 2),
        (query(&many), None, 3),
        (query("COMMIT"), Some(4), 4),
        (extended("COMMIT"), Some(5), 5),
    ];
    for hides in [false, true] {
        for (bytes, inside, id) in &cases {
            let mut wire = house.wire();
            if hides {
                // Then only the success is seen, as if nothing had happened.
                wire.run("SET client_min_messages = 'error'");
            }
            if let Some(id) = inside {
                wire.run("BEGIN");
                wire.run(&insert(*id));
            }
            let key = (wire.pid, wire.key.clone());
            let waits = ask(wire, bytes.clone());
            await_stalled(&house, 1);
            cancel(&house, &key);
            let (reply, mut wire) = waits.end(clock::now());
            let case = format!("{id}, hidden: {hides}: {reply:?}");
            assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{case}");
            assert!(reply.error().detail.contains("not confirmed by a standby"), "{case}");
            assert_eq!(reply.notices.is_empty(), hides, "the server's own warning: {case}");
            assert_eq!(wire.value("SELECT 1"), "1");
            let there = format!("SELECT count(*) FROM ledger WHERE id = {id}");
            let expected = if hides { "2" } else { "1" };
            assert_eq!(primary.value(&there).unwrap(), expected, "it was committed locally");
        }
    }
    // Somebody else cancels it, at the server itself.
    let waits = ask(house.wire(), query(&insert(6)));
    await_stalled(&house, 1);
    let cancels = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
                   WHERE wait_event = 'SyncRep' AND application_name !~ '^pgsteer'";
    assert_eq!(primary.value(cancels).unwrap(), "1");
    let (reply, _) = waits.end(clock::now());
    assert_eq!(reply.codes(), ["08007"], "{reply:?}");
    // A client without pgsteer is told that all is well: the promise was at stake.
    let direct: std::net::SocketAddr = primary.address().parse().unwrap();
    let mut wire = Wire::log_in(direct, "postgres").unwrap();
    wire.run("SET client_min_messages = 'error'");
    let waits = ask(wire, query(&insert(7)));
    await_stalled(&house, 1);
    assert_eq!(primary.value(cancels).unwrap(), "1");
    let (reply, _) = waits.end(clock::now());
    assert_eq!((reply.tags.as_slice(), reply.codes()), (&["INSERT 0 1".to_owned()][..], vec![]));
    assert!(reply.notices.is_empty());
    house.server("standby1").sigcont();
}

/// A cancel that comes too late, or to nothing that commits, takes no success back.
#[test]
fn a_cancel_that_cuts_nothing_short_changes_nothing() {
    let house = stalled();
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    let mut wire = house.wire();
    for names in ["", NAMES] {
        synchronous(primary, names);
        for extend in [false, true] {
            let send = |sql: &str| if extend { extended(sql) } else { query(sql) };
            let key = (wire.pid, wire.key.clone());
            let mut cancelled = |wire: Wire, sql: &str| {
                locker.rows("SELECT pg_advisory_lock(4711)").unwrap();
                let waits = ask(wire, send(sql));
                let running = "SELECT count(*) FROM pg_stat_activity \
                               WHERE wait_event IN ('PgSleep', 'advisory')";
                primary.await_value(running, "1", "waiting").unwrap();
                cancel(&house, &key);
                locker.rows("SELECT pg_advisory_unlock(4711)").unwrap();
                waits.end(clock::now())
            };
            // It is deaf to the cancel, and commits.
            let (reply, back) = cancelled(wire, "INSERT INTO ledger SELECT deaf()");
            let expected = if names.is_empty() { vec![] } else { vec!["08007"] };
            assert_eq!(reply.codes(), expected, "{names} {extend}: {reply:?}");
            // It is rolled back.
            let (reply, back) = cancelled(back, "INSERT INTO ledger SELECT 1 FROM pg_sleep(60)");
            assert_eq!((reply.codes(), reply.ended), (vec!["57014"], Ended::Ready('I')));
            // The next ones have nothing to do with it.
            wire = back;
            assert_eq!(wire.run("INSERT INTO ledger VALUES (2)").tags, ["INSERT 0 1"]);
            // In a transaction nothing is committed yet, and its end comes long after.
            wire.run("BEGIN");
            wire.run("SAVEPOINT a");
            let (reply, back) = cancelled(wire, "INSERT INTO ledger SELECT deaf()");
            assert_eq!(reply.tags, ["INSERT 0 1"], "{names} {extend}: {reply:?}");
            wire = back;
            assert_eq!(wire.run("COMMIT").tags, ["COMMIT"]);
        }
    }
}
