//! Reads whose client is gone are ended at their server, however the client went and whatever
//! the server was doing then.

use crate::raw::{Raw, bind, execute, flush, goodbye, parse, query, sync};
use crate::support::{Blueprint, House, await_that};
use rustix::process::{Pid, Signal, kill_process};

/// A read that would take an hour.
pub(crate) const LONG_READ: &str =
    "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 10000000) b";

/// Waits until reads are known to be reads: once the functions in them are known.
pub(crate) async fn await_known_reads(house: &House, client: &mut Raw) {
    let counted = |line: &str| {
        line.starts_with("pgsteer_queries_total")
            && line.contains("kind=\"read\"")
            && !line.ends_with(" 0")
    };
    while !house.http("/metrics").body.lines().any(counted) {
        client.value("SELECT count(*) FROM generate_series(1, 2)").await;
    }
}

/// Waits until nobody runs [`LONG_READ`].
pub(crate) fn await_rid_of_it(house: &House) {
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' \
                AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
                AND query LIKE '%10000000%'";
    house.server("primary").await_value(busy, "0", "rid of what nobody waits for").unwrap();
}

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It closes its connection.
    Closes,
    /// Its machine resets the connection.
    Resets,
    /// It says goodbye behind a read that it did not wait for.
    Terminates,
}

/// A server may be asked to cancel before it has begun with what is to be cancelled. It forgets
/// the request and begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_its_server_begins_only_after_the_cancel_is_ended_all_the_same() {
    let house = Blueprint::new()
        // Says when it is asked to cancel.
        .servers(|plan| plan.standbys(0).setting("log_min_messages", "debug2"))
        .set("pool.size", "1")
        // One that is stopped in the middle of an audit is closed, and the read goes to another.
        .set("pool.audit_every", "0")
        .build();
    let mut first = Raw::enter(&house).await;
    await_known_reads(&house, &mut first).await;
    for way in [Way::Closes, Way::Resets, Way::Terminates] {
        let mut goes = Raw::enter(&house).await;
        let pid = goes.value("SELECT pg_backend_pid()").await.parse().unwrap();
        let cancel = format!("processing cancel request: sending SIGINT to process {pid}");
        let signal = |signal| kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        signal(Signal::STOP);
        match way {
            Way::Closes | Way::Resets => goes.send(&query(LONG_READ)).await,
            Way::Terminates => {
                let read = [parse("", LONG_READ), bind("", &[]), execute(), flush()];
                goes.send(&read.concat()).await;
            }
        }
        // What is under way with a reset is lost with it.
        let active = "pgsteer_client_connections{state=\"active\"}";
        await_that("the read was sent", || house.metric(active) == Some(1.0));
        match way {
            Way::Closes => drop(goes),
            Way::Resets => goes.reset(),
            Way::Terminates => goes.leave().await,
        }
        await_that("the cancel has come", || house.server("primary").logged(&cancel) > 0);
        signal(Signal::CONT);
        await_rid_of_it(&house);
        // Its place in the pool, the only one, is free again.
        assert_eq!(first.value("SELECT 1").await, "1", "{way:?}");
    }
}

/// Who is told something and is not there any more is found out, as by a server without a proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_procedure_that_talks_on_to_nobody_is_ended() {
    const TALKS: &str = "DO $$ BEGIN FOR i IN 1..100000 LOOP \
                         RAISE NOTICE 'still there?'; PERFORM pg_sleep(0.05); END LOOP; END $$";
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).build();
    for way in [Way::Closes, Way::Resets] {
        let mut goes = Raw::enter(&house).await;
        goes.send(&query(TALKS)).await;
        assert_eq!(goes.message().await.unwrap().tag(), 'N');
        match way {
            Way::Closes | Way::Terminates => drop(goes),
            Way::Resets => goes.reset(),
        }
        let talks = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' \
                     AND pid <> pg_backend_pid() AND query LIKE 'DO %'";
        house.server("primary").await_value(talks, "0", "rid of it").unwrap();
    }
}

/// What may write is left to end, as it would be without a proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_client_is_gone_ends_by_itself() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).build();
    let mut stays = Raw::enter(&house).await;
    stays.value("CREATE TABLE t (i int)").await;
    await_known_reads(&house, &mut stays).await;
    for way in [Way::Closes, Way::Resets, Way::Terminates] {
        let mut goes = Raw::enter(&house).await;
        let write = format!("INSERT INTO t SELECT 1 FROM pg_sleep(0.5) /* {way:?} */");
        match way {
            Way::Closes | Way::Resets => goes.send(&query(&write)).await,
            Way::Terminates => {
                let batch = [parse("", &write), bind("", &[]), execute(), sync(), goodbye()];
                goes.send(&batch.concat()).await;
            }
        }
        let begun = || house.server("primary").logged(&write) > 0;
        await_that("the write has begun", begun);
        match way {
            Way::Closes | Way::Terminates => drop(goes),
            Way::Resets => goes.reset(),
        }
    }
    house.server("primary").await_value("SELECT count(*) FROM t", "3", "written").unwrap();
}
