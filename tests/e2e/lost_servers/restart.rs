//! A server crashes and recovers by itself: `kill -9` of one backend makes PostgreSQL start all
//! over, and it may come back with less than it had shown.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::await_that;
use pgsteer::sandbox;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Clients that write and read at the same time, each its own row.
const CLIENTS: usize = 6;

/// What a session wrote or has seen, it sees from then on, whichever server crashes.
#[test]
fn crash_restarts_show_nobody_less_than_before() {
    let house = Blueprint::new().toml("[routing]\nhold_max = \"50s\"").build();
    let sql = "CREATE TABLE pairs AS SELECT i AS id, 0 AS v FROM generate_series(0, 9) i";
    house.server("primary").rows(sql).unwrap();
    house.await_catalog();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let on_standby = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for id in 0..CLIENTS {
        let mut wire = house.wire();
        let (stop, done, on_standby) =
            (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&on_standby));
        clients.push(std::thread::spawn(move || {
            let mut known = 0;
            let mut v = 0;
            while !stop.load(Ordering::Relaxed) {
                v += 1;
                let reply = wire.query(&format!("UPDATE pairs SET v = {v} WHERE id = {id}"));
                match reply.codes()[..] {
                    [] => known = v,
                    ["08007"] => {}
                    _ => panic!("{reply:?}"),
                }
                for _ in 0..3 {
                    let sql = format!("SELECT v, pg_is_in_recovery() FROM pairs WHERE id = {id}");
                    let reply = wire.query(&sql);
                    // One whose row was out when its server crashed breaks off, and is told so.
                    let broken = reply.codes() == ["40001"] && reply.rows.len() == 1;
                    let closed = reply.ended == Ended::Closed;
                    assert!(!closed && (broken || reply.is_good()), "{reply:?}");
                    let seen: i32 = reply.rows[0][0].as_deref().unwrap().parse().unwrap();
                    assert!(seen >= known, "{seen} after {known} was known");
                    known = seen;
                    let standby = reply.rows[0][1].as_deref() == Some("t");
                    on_standby.fetch_add(usize::from(standby), Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let go_on = || {
        let now = done.load(Ordering::Relaxed);
        await_that("pairs go on", || done.load(Ordering::Relaxed) > now + 60);
    };
    for name in ["primary", "standby1", "primary", "standby2"] {
        go_on();
        crash(&house, name);
    }
    go_on();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert!(on_standby.load(Ordering::Relaxed) > 0, "no read was ever at stake");
}

/// `kill -9` of one of a server's backends; waits until the server has started all over.
pub(super) fn crash(house: &House, name: &str) {
    let server = house.server(name);
    let started = "all server processes terminated; reinitializing";
    let before = server.logged(started);
    // A backend of the proxy, not ours. It may have ended before it is killed.
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' \
               AND pid <> pg_backend_pid() LIMIT 1";
    await_that("it starts all over", || {
        let over = server.logged(started) > before;
        if !over && let Ok(pid) = server.value(sql) {
            sandbox::kill(pid.parse().unwrap());
        }
        over
    });
    await_that("it answers", || server.value("SELECT 1").is_ok());
}
