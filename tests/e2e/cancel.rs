//! A cancel hits the statement that its own client is running, or nothing.

use crate::prepared::await_known_read;
use crate::raw::{Raw, bind, cancel, execute, parse, query};
use crate::support::{Blueprint, House, Slowed, await_that, quickly_enough};
use pgsteer::sandbox::StatementLog;
use pgsteer::tasks;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn house(settings: &[(&str, &str)]) -> House {
    let mut blueprint = Blueprint::new().servers(|plan| plan.standbys(0).log(StatementLog::Off));
    for (key, value) in settings {
        blueprint = blueprint.set(key, value);
    }
    blueprint.build()
}

/// Waits until the server runs a statement that contains this.
fn await_running(house: &House, part: &str) {
    let sql = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' \
         AND pid <> pg_backend_pid() AND query LIKE '%{part}%'"
    );
    house.server("primary").await_value(&sql, "t", "running the statement").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_hits_its_own_clients_statement_only() {
    let house = house(&[("pool.size", "4")]);
    let (mut mine, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);
    let sleep = "SELECT pg_sleep(3600) /* mine */";
    for extended in [false, true] {
        other.send(&query("SELECT 'well' FROM pg_sleep(1.5)")).await;
        if extended {
            let batch = [parse("", sleep), bind("", &[]), execute(), crate::raw::sync()];
            mine.send(&batch.concat()).await;
        } else {
            mine.send(&query(sleep)).await;
        }
        await_running(&house, "mine */");
        // Somebody guesses: right process, wrong secret, and the other way round.
        let address = house.proxy.address();
        let mut wrong = mine.secret.clone();
        wrong[3] ^= 1;
        cancel(address, mine.pid, &wrong).await;
        cancel(address, mine.pid ^ 1, &mine.secret).await;
        cancel(address, mine.pid, &[]).await;
        await_running(&house, "mine */");
        mine.cancel().await;
        let answer = mine.ready().await;
        assert_eq!(answer.code().as_deref(), Some("57014"), "{answer:?}");
        assert_eq!(other.ready().await.value(), "well");
        assert_eq!(mine.value("SELECT 1").await, "1");
        // With nothing under way it does nothing, not even later.
        mine.cancel().await;
        assert_eq!(mine.value("SELECT 2 FROM pg_sleep(0.1)").await, "2");
    }
    // In a transaction it fails that.
    mine.query("BEGIN").await;
    mine.send(&query(sleep)).await;
    await_running(&house, "mine */");
    mine.cancel().await;
    assert_eq!(mine.ready().await.status(), 'E');
    assert_eq!(mine.query("ROLLBACK").await.status(), 'I');
}

/// A key of protocol 3.2 is long, names its pgsteer, and counts as a whole or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_key_cancels_by_all_of_its_bytes() {
    for mode in ["transaction", "session"] {
        let house = house(&[("pool.mode", mode), ("pool.size", "4")]);
        let address = house.proxy.address();
        let login = [("user", "postgres"), ("database", "postgres")];
        let fancy = [login[0], login[1], ("_pq_.fancy", "on")];
        let mut long = Raw::connect_by(address, 2, &login).await.unwrap();
        let offered = Raw::connect_by(address, 9999, &fancy).await.unwrap();
        let short = Raw::connect_by(address, 0, &fancy).await.unwrap();
        assert_eq!(long.negotiated, None);
        let told = |raw: &Raw| raw.negotiated.as_ref().unwrap().0[5..].to_vec();
        assert_eq!(told(&offered), b"\0\x03\0\x02\0\0\0\x01_pq_.fancy\0", "{mode}");
        assert_eq!(told(&short), b"\0\x03\0\0\0\0\0\x01_pq_.fancy\0", "{mode}");
        let lengths = [&long, &offered, &short].map(|raw| raw.secret.len());
        assert_eq!(lengths, [32, 32, 4], "{mode}");
        assert_eq!(long.secret[..8], offered.secret[..8], "{mode}: one pgsteer");
        assert_ne!(long.secret[8..], offered.secret[8..], "{mode}");

        long.send(&query("SELECT pg_sleep(3600) /* mine */")).await;
        await_running(&house, "mine */");
        let mut wrong = long.secret.clone();
        wrong[31] ^= 1;
        let longer = [&*long.secret, &[0]].concat();
        let guesses = [&wrong, &long.secret[..4], &long.secret[8..], &long.secret[..31], &longer];
        for guess in guesses {
            cancel(address, long.pid, guess).await;
        }
        cancel(address, short.pid, &long.secret).await;
        await_running(&house, "mine */");
        long.cancel().await;
        assert_eq!(long.ready().await.code().as_deref(), Some("57014"), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_held_is_cancelled_where_it_waits() {
    let house = house(&[("pool.size", "1"), ("pool.wait_timeout", "1m")]);
    let (mut holder, mut waiter) = (Raw::enter(&house).await, Raw::enter(&house).await);
    holder.query("CREATE TABLE t (i int)").await;
    holder.query("BEGIN").await;
    waiter.send(&query("INSERT INTO t VALUES (1)")).await;
    let waiting = "pgsteer_client_connections{state=\"waiting\"}";
    await_that("it is held", || house.metric(waiting) == Some(1.0));
    waiter.cancel().await;
    let answer = waiter.ready().await;
    assert_eq!(answer.code().as_deref(), Some("57014"));
    assert!(answer.error().unwrap().field(b'D').unwrap().contains("held"), "{answer:?}");
    holder.query("COMMIT").await;
    // It was never sent, and the next one is a new one.
    assert_eq!(waiter.value("SELECT count(*) FROM t").await, "0");
    assert_eq!(waiter.query("INSERT INTO t VALUES (2)").await.code(), None);
    assert_eq!(waiter.value("SELECT count(*) FROM t").await, "1");
}

/// A server was asked to cancel a read, and is lost before it does: the read is not run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_read_whose_server_is_lost_is_over() {
    let house = house(&[("pool.size", "4")]);
    let primary = house.server("primary");
    primary.rows("CREATE TABLE items (i int)").unwrap();
    let mut client = Raw::enter(&house).await;
    await_known_read(&house, &mut client, "SELECT count(*) FROM items").await;
    let mut locker = primary.connect("postgres").unwrap();
    let mut watcher = primary.connect("postgres").unwrap();
    for cancels in [false, true] {
        locker.rows("BEGIN; LOCK TABLE items").unwrap();
        client.send(&query("SELECT count(*) FROM items")).await;
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        await_that("it waits for the table", || watcher.value(waits).unwrap() == "1");
        let backend = watcher.value("SELECT pid FROM pg_locks WHERE NOT granted").unwrap();
        let process = Pid::from_raw(backend.parse().unwrap()).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        if cancels {
            client.cancel().await;
        }
        watcher.rows(&format!("SELECT pg_terminate_backend({backend})")).unwrap();
        kill_process(process, Signal::CONT).unwrap();
        if cancels {
            assert_eq!(client.ready().await.code().as_deref(), Some("57014"));
            assert_eq!(watcher.value(waits).unwrap(), "0");
            locker.rows("COMMIT").unwrap();
        } else {
            let again = format!("{waits} AND pid <> {backend}");
            await_that("it runs again", || watcher.value(&again).unwrap() == "1");
            locker.rows("COMMIT").unwrap();
            assert_eq!(client.ready().await.value(), "0");
        }
    }
    assert_eq!(client.value("SELECT count(*) FROM items").await, "0", "the next one is a new one");
}

/// A read was cancelled, and ended by its server for a reason of the server's own before that had
/// heard of the cancel. Its client sees nothing of such an end, as it is run again; not this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_read_that_its_server_ends_otherwise_is_not_run_again() {
    for mode in ["session", "transaction"] {
        for cancels in [Cancels::Nothing, Cancels::First] {
            ended_otherwise(mode, cancels).await;
        }
    }
}

/// What a client does before its server ends its read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancels {
    Nothing,
    First,
}

async fn ended_otherwise(mode: &'static str, cancels: Cancels) {
    let case = format!("{mode} {cancels:?}");
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).setting("max_standby_streaming_delay", "0"))
        .unhurried()
        .any_lag()
        .set("pool.mode", mode)
        .build();
    let (primary, standby) = (house.server("primary"), house.server("standby1"));
    primary.rows("CREATE TABLE items (i int)").unwrap();
    house.cluster.await_replay().unwrap();
    let mut other = Raw::enter(&house).await;
    await_known_read(&house, &mut other, "SELECT count(*) FROM items").await;
    let options = ("options", "-c pgsteer.role=standby");
    let login = [("user", "postgres"), ("database", "postgres"), options];
    let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
    client.send(&query("SELECT pg_sleep(3600), count(*) FROM items /* mine */")).await;
    await_that("it runs", || standby.logged("statement: SELECT pg_sleep(3600)") == 1);
    let postmaster = Pid::from_raw(standby.pid().unwrap().try_into().unwrap()).unwrap();
    let mut late = None;
    if cancels == Cancels::First {
        // What its postmaster does not deliver hits nothing.
        kill_process(postmaster, Signal::STOP).unwrap();
        let (address, pid, secret) = (house.proxy.address(), client.pid, client.secret.clone());
        late = Some(tasks::spawn("late", async move { cancel(address, pid, &secret).await }));
        let under_way = "pgsteer_client_connections_total{result=\"cancel\"}";
        await_that("the cancel is under way", || house.metric(under_way) == Some(1.0));
    }
    primary.rows("BEGIN; LOCK TABLE items; COMMIT").unwrap();
    let conflict = "canceling statement due to conflict with recovery";
    await_that("its server ends it", || standby.logged(conflict) == 1);
    let Some(late) = late else {
        await_that("it is run again", || standby.logged("statement: SELECT pg_sleep(3600)") == 2);
        client.cancel().await;
        assert_eq!(client.ready().await.code().as_deref(), Some("57014"), "{case}");
        return;
    };
    kill_process(postmaster, Signal::CONT).unwrap();
    late.await.unwrap();
    let answer = client.ready().await;
    assert_eq!((answer.code().as_deref(), answer.status()), (Some("57014"), 'I'), "{case}");
    assert_eq!(client.value("SELECT count(*) FROM items").await, "0", "{case}: a new one");
    assert!(!primary.log().contains("/* mine */"), "{case}");
}

/// One backend for all: whoever is next after a cancelled client gets the very backend that a
/// late cancel would hit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_cancels_that_race_with_the_end_hit_nobody_else() {
    let house = house(&[("pool.size", "2"), ("pool.wait_timeout", "1m")]);
    let stop = Arc::new(AtomicBool::new(false));
    let innocent = Arc::new(AtomicU64::new(0));
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut client = Raw::enter(&house).await;
        let (stop, innocent) = (Arc::clone(&stop), Arc::clone(&innocent));
        others.push(tasks::spawn("innocent", async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = client.query("SELECT 'well' FROM pg_sleep(0.001)").await;
                assert_eq!(answer.value(), "well");
                innocent.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let mut hit = 0;
    let mut racer = Raw::enter(&house).await;
    for round in 0..200_u64 {
        let marked = format!("SET app.round = '{round}'; SELECT pg_sleep(0.003)");
        racer.send(&query(&marked)).await;
        // From well before the end to well after it.
        pgsteer::timer::sleep(Duration::from_micros(400 * (round % 20))).await;
        let (pid, secret) = (racer.pid, racer.secret.clone());
        let address = house.proxy.address();
        let late = tasks::spawn("late", async move { cancel(address, pid, &secret).await });
        let answer = racer.ready().await;
        match answer.code().as_deref() {
            Some("57014") => hit += 1,
            None => {
                // It was told that this was done: no cancel may undo it. One that is late may
                // hit what it asks next, as with a server alone.
                let show = loop {
                    let answer = racer.query("SHOW app.round").await;
                    match answer.code().as_deref() {
                        Some("57014") => hit += 1,
                        _ => break answer.value(),
                    }
                };
                assert_eq!(show, round.to_string());
            }
            other => panic!("{other:?}"),
        }
        late.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.await.unwrap();
    }
    let innocent = innocent.load(Ordering::Relaxed);
    eprintln!("of 200 cancels {hit} hit; {innocent} statements of others were untouched");
    assert!(hit > 10, "the race was lost by all cancels: {hit}");
    assert!(innocent > 200, "nobody was there to be hit: {innocent}");
}

/// How long a postmaster hangs before it delivers a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hangs {
    /// Not so long that pgsteer gives the cancel up.
    Shortly,
    /// Longer than that: nobody knows any more when it comes.
    Long,
}

/// A postmaster that hangs delivers a cancel when it goes on, and not before: whoever is next on
/// that backend must not be there yet.
#[test]
fn a_cancel_that_its_server_is_slow_to_deliver_hits_nobody_else() {
    std::thread::scope(|scope| {
        for mode in ["transaction", "session"] {
            for hangs in [Hangs::Shortly, Hangs::Long] {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Runtime::new().unwrap();
                    quickly_enough("the cancel gets through", || {
                        runtime.block_on(delivered_late(mode, hangs))
                    });
                });
            }
        }
    });
}

/// An error if it hung for so long that pgsteer gave the cancel up, where it was not to.
async fn delivered_late(mode: &'static str, hangs: Hangs) -> Result<(), String> {
    let house = Blueprint::new()
        // Says when it is asked to cancel.
        .servers(|plan| plan.standbys(0).setting("log_min_messages", "debug2"))
        .unhurried()
        .set("pool.mode", mode)
        .set("pool.size", "1")
        .set("pool.wait_timeout", "1m")
        .build();
    let primary = house.server("primary");
    let mut goes = Raw::enter(&house).await;
    let mut watcher = primary.connect("postgres").unwrap();
    watcher.rows("SELECT pg_advisory_lock(4711)").unwrap();
    let postmaster = Pid::from_raw(primary.pid().unwrap().try_into().unwrap()).unwrap();
    let backend = goes.value("SELECT pg_backend_pid()").await;
    // In session mode it has nothing under way when it cancels, and says goodbye at once.
    if mode == "transaction" {
        // It ends when it is let go on, which is after the cancel was asked for.
        let fails = "DO $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RAISE 'ended'; END $$ \
                     /* goes */";
        goes.send(&query(fails)).await;
        await_running(&house, "goes */");
    }
    kill_process(postmaster, Signal::STOP).unwrap();
    let (address, pid, secret) = (house.proxy.address(), goes.pid, goes.secret.clone());
    let late = tasks::spawn("late", async move { cancel(address, pid, &secret).await });
    let under_way = "pgsteer_client_connections_total{result=\"cancel\"}";
    await_that("the cancel is under way", || house.metric(under_way) == Some(1.0));
    watcher.rows("SELECT pg_advisory_unlock(4711)").unwrap();
    let ended = format!("SELECT state = 'idle' FROM pg_stat_activity WHERE pid = {backend}");
    await_that("it has ended", || watcher.value(&ended).unwrap() == "t");
    let leaves = tasks::spawn("leaves", async move {
        if mode == "transaction" {
            assert_eq!(goes.ready().await.code().as_deref(), Some("P0001"));
        }
        goes.leave().await;
    });
    let login = [("user", "postgres"), ("database", "postgres")];
    let next = tasks::spawn("next", async move {
        let mut next = Raw::connect(address, &login).await.unwrap();
        next.query("SELECT pg_backend_pid() FROM pg_sleep(1)").await
    });
    if hangs == Hangs::Long {
        await_that("it is given up", || house.proxy.log().contains("did not get through"));
    }
    // Time enough to begin on that backend, if it could.
    pgsteer::timer::sleep(Duration::from_millis(500)).await;
    kill_process(postmaster, Signal::CONT).unwrap();
    late.await.unwrap();
    leaves.await.unwrap();
    let runs_on = next.await.unwrap().value();
    if hangs == Hangs::Shortly && house.proxy.log().contains("did not get through") {
        return Err("it was given up".to_owned());
    }
    let case = format!("{mode}, {hangs:?}");
    assert_eq!(runs_on == backend, hangs == Hangs::Shortly, "{case}: where it was to be hit");
    let sent = format!("processing cancel request: sending SIGINT to process {backend}");
    if hangs == Hangs::Shortly {
        assert_eq!(primary.logged(&sent), 1, "{case}: the cancel was at stake");
    }
    Ok(())
}

/// The probe behind a statement runs under the session's own settings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_statement_timeout_loses_nothing_and_is_felt_by_nobody_else() {
    let house = house(&[("pool.size", "1")]);
    let (mut hasty, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);
    for round in 0..30 {
        let sql = format!("SET statement_timeout = 1; SET app.round = '{round}'");
        // Its second half runs under the first: a millisecond may be too short for that, and then
        // nothing of it was done.
        while let Some(code) = hasty.query(&sql).await.code() {
            assert_eq!(code, "57014");
        }
        assert_eq!(other.value("SELECT 'well' FROM pg_sleep(0.01)").await, "well");
        assert_eq!(other.value("SHOW statement_timeout").await, "0");
        let answer = hasty.query("SELECT pg_sleep(1)").await;
        assert_eq!(answer.code().as_deref(), Some("57014"), "its own setting holds");
        // A millisecond may be too short for this one as well, as with a server alone.
        while let Some(code) = hasty.query("SET statement_timeout = '1min'").await.code() {
            assert_eq!(code, "57014");
        }
        assert_eq!(hasty.value("SHOW app.round").await, round.to_string());
        assert_eq!(hasty.query("RESET statement_timeout").await.code(), None);
    }
}

/// What pgsteer asks behind a statement, and before the next one, is ended by the session's own
/// `statement_timeout`: it is asked again, and no backend is lost by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_statement_timeout_ends_of_our_own_is_asked_again() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::All))
        .unhurried()
        .set("pool.size", "1")
        .build();
    let primary = house.server("primary");
    let hides = "CREATE FUNCTION hides() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'";
    primary.rows(hides).unwrap();
    let (mut hasty, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);
    let backend = other.value("SELECT pg_backend_pid()").await;
    for every in [4, 5, 7] {
        // It logs a statement when its time has begun, and an error when that is over: so what is
        // ended once is not ended the next time.
        let delay = format!("delay_exit=20000:when=1+{every}");
        let slowed = Slowed::begin(backend.parse().unwrap(), "write", &delay);
        for _ in 0..8 {
            for sql in ["SET statement_timeout = '10ms'", "SELECT hides()"] {
                while let Some(code) = hasty.query(sql).await.code() {
                    assert_eq!(code, "57014", "{sql}");
                }
                assert_eq!(other.value("SHOW statement_timeout").await, "0");
                assert_eq!(other.value("SELECT pg_backend_pid()").await, backend, "it stays");
            }
        }
        drop(slowed);
    }
    for ours in ["RESET ALL", "RESET \"statement_timeout\"", "SELECT 'set', name"] {
        assert!(primary.logged(&format!("STATEMENT:  {ours}")) > 0, "{ours} was at stake");
    }
}
