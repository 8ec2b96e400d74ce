//! What a client sends in unusual pieces: messages that outgrow the buffer, batches that mix what
//! does not go together, connections that end between `Flush` and `Sync`.

use crate::abandoned::await_known_reads;
use crate::raw::{Raw, bind, describe, execute, flush, parse, query, sync};
use crate::support::{Blueprint, House, await_that, cluster, end_backends, proxy};
use pgsteer::sandbox::{Plan, SUPERUSER, eventually};
use pgsteer::tasks;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// A primary alone with one backend for everybody.
fn alone() -> House {
    Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "1").build()
}

/// Ends the backend that runs, or ran last, a statement with this marker.
fn terminate(house: &House, server: &str, marker: &str) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE query LIKE '%{marker}%' AND pid <> pg_backend_pid()"
    );
    let ended = || (house.server(server).value(&sql).unwrap() == "1").then_some(());
    eventually(Duration::from_secs(30), ended).unwrap_or_else(|| panic!("{marker} does not run"));
}

/// Parameters are anybody's data. The server frames what it passes over: if the start of a
/// message were dropped and its rest sent, that data would be read as messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_message_that_is_passed_over_never_reaches_the_server() {
    let house = alone();
    let mut client = Raw::enter(&house).await;
    client.send(&[parse("", "SELECT 1/0"), bind("", &[]), execute(), flush()].concat()).await;
    client.until('E').await;
    // Messages from end to end, at every distance from the place where the message is cut.
    let evil = [sync(), query("CREATE TABLE smuggled ()")].concat();
    let data = evil.repeat(2 * 1024 * 1024 / evil.len());
    let mut batch = [parse("", "SELECT length($1)"), bind("", &[&data]), execute()].concat();
    batch.extend(sync());
    client.send(&batch).await;
    assert_eq!(client.ready().await.tags(), "Z", "the batch had failed");
    let sql = "SELECT count(*) FROM pg_class WHERE relname = 'smuggled'";
    assert_eq!(client.value(sql).await, "0");
    // And likewise a `Query` before that `Sync`.
    client.send(&[parse("", "SELECT 1/0"), bind("", &[]), execute(), flush()].concat()).await;
    client.until('E').await;
    let text = format!("SELECT 1 /*{}*/", "x".repeat(2 * 1024 * 1024));
    client.send(&[query(&text), sync()].concat()).await;
    assert_eq!(client.ready().await.tags(), "Z");
    assert_eq!(client.value("SELECT 2").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_statement_can_be_prepared_within_a_transaction() {
    let house = alone();
    let mut client = Raw::enter(&house).await;
    client.query("BEGIN").await;
    let text = format!("SELECT 7 /*{}*/", "x".repeat(3 * 1024 * 1024));
    assert_eq!(client.batch(&[parse("long", &text)]).await.tags(), "1Z");
    assert_eq!(client.batch(&[bind("long", &[]), execute()]).await.value(), "7");
    // Half of such a message, and the client is gone: its backend must not stay with it.
    let half = parse("longer", &text);
    client.send(&half[..2 * 1024 * 1024]).await;
    drop(client);
    let mut next = Raw::enter(&house).await;
    assert_eq!(next.value("SELECT 1").await, "1");
}

/// What comes behind a `ROLLBACK` is a transaction of its own, which `Sync` commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_rollback_in_its_batch_is_in_doubt() {
    let house = alone();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int)").await;
    client.query("BEGIN").await;
    let run = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    let batch = [
        run("ROLLBACK"),
        run("INSERT INTO t VALUES (1)"),
        run("SELECT pg_sleep(60) /* doubted */"),
        sync(),
    ];
    client.send(&batch.concat()).await;
    terminate(&house, "primary", "doubted");
    let answer = client.ready().await;
    assert_eq!(answer.code().as_deref(), Some("08007"), "40001 would have it run again");
    // A ROLLBACK alone is none of that. With nothing but a read in it, the transaction would go on.
    client.query("BEGIN").await;
    client.query("INSERT INTO t VALUES (2)").await;
    client.send(&query("SELECT pg_sleep(60) /* known */")).await;
    terminate(&house, "primary", "known");
    assert_eq!(client.ready().await.code().as_deref(), Some("40001"));
    assert_eq!(client.query("ROLLBACK").await.status(), 'I');
}

/// Prepares as asyncpg does, and rests.
async fn prepared(house: &House) -> Raw {
    let mut client = Raw::enter(house).await;
    let prepare = [parse("s", "SELECT 3 /* resting */"), describe("s"), flush()];
    client.send(&prepare.concat()).await;
    client.until('T').await;
    client
}

/// As asyncpg leaves a connection at rest that has prepared a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_has_only_prepared_outlives_its_backend() {
    let house = alone();
    let server = house.server("primary");
    for write in [false, true] {
        let mut client = prepared(&house).await;
        // What it says of its end is known before anything that a client says later.
        assert_eq!(end_backends(server, CLIENTS), 1);
        let sql = if write { "CREATE TABLE t ()" } else { "SELECT 2" };
        assert_eq!(client.query(sql).await.code(), None, "{sql}");
        assert_eq!(client.batch(&[bind("s", &[]), execute()]).await.value(), "3");
    }
}

/// A server that goes says so before it closes the connection, and may take its time for that. A
/// statement that came between would be in doubt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_has_said_goodbye_is_sent_nothing_more() {
    let cluster = cluster(&Plan::new().standbys(0));
    let server = cluster.primary();
    let relay = relay_that_never_closes(server.address().parse().unwrap()).await;
    let proxy = proxy(&cluster, "").args(["--server", &relay.to_string()]);
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    let login = [("user", SUPERUSER), ("database", "postgres")];
    let mut client = Raw::connect(proxy.address(), &login).await.unwrap();
    let prepare = [parse("s", "SELECT 3"), describe("s"), flush()];
    client.send(&prepare.concat()).await;
    client.until('T').await;
    assert_eq!(end_backends(server, CLIENTS), 1);
    // The relay may still have the news in its hands.
    let closed = |line: &str| {
        line.starts_with("pgsteer_server_disconnects_total")
            && line.contains("reason=\"error\"")
            && line.ends_with(" 1")
    };
    let let_go = || proxy.get("/metrics").unwrap().body.lines().any(closed);
    await_that("the proxy has let go of it", let_go);
    assert_eq!(client.query("CREATE TABLE t ()").await.code(), None);
    assert_eq!(client.batch(&[bind("s", &[]), execute()]).await.value(), "3");
}

/// Passes connections on to `server`, but not that the server has closed them.
async fn relay_that_never_closes(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(tasks::spawn("relay", async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(server).await.unwrap();
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                (near.into_split(), far.into_split());
            drop(tasks::spawn("there", async move {
                drop(tokio::io::copy(&mut near_in, &mut far_out).await);
            }));
            drop(tasks::spawn("back", async move {
                drop(tokio::io::copy(&mut far_in, &mut near_out).await);
                std::future::pending::<()>().await;
            }));
        }
    }));
    address
}

/// And when the backend ends only after the read was sent: what has shown nothing is run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_behind_a_flush_is_run_again_when_its_backend_ends() {
    let house = alone();
    let server = house.server("primary");
    server.rows("CREATE TABLE t (i int)").unwrap();
    await_known_reads(&house, &mut Raw::enter(&house).await).await;
    let read = "SELECT count(*) FROM t /* behind */";
    let batch = [parse("", read), bind("", &[]), execute(), sync()].concat();
    for (retries, sent) in [(1.0, query(read)), (2.0, batch)] {
        let mut client = prepared(&house).await;
        let mut holder = server.connect("postgres").unwrap();
        holder.rows("BEGIN").unwrap();
        holder.rows("LOCK TABLE t").unwrap();
        client.send(&sent).await;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND query LIKE '%behind%'";
        server.await_value(waits, "1", "waiting for the lock").unwrap();
        assert_eq!(end_backends(server, CLIENTS), 1);
        holder.rows("COMMIT").unwrap();
        let answer = client.ready().await;
        assert_eq!(answer.value(), "0", "{answer:?}");
        assert_eq!(house.metric("pgsteer_read_retries_total"), Some(retries), "run again, once");
        assert_eq!(client.batch(&[bind("s", &[]), execute()]).await.value(), "3");
    }
    // A write is not: it may have been done.
    let mut client = prepared(&house).await;
    let write = "INSERT INTO t SELECT count(*) FROM pg_sleep(60) /* once */";
    client.send(&query(write)).await;
    terminate(&house, "primary", "once");
    assert_eq!(client.ready().await.code().as_deref(), Some("08007"));
    assert_eq!(house.metric("pgsteer_read_retries_total"), Some(2.0));
}

/// The backends of the proxy's clients.
const CLIENTS: &str = "application_name = ''";

/// `eventual` takes what any standby shows. What is read next, without it, must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eventual_read_leaves_the_next_one_as_fresh_as_ever() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int)").await;
    house.cluster.await_replay().unwrap();
    house.server("standby1").pause_replay().unwrap();
    client.value("INSERT INTO t VALUES (1)").await;
    let hinted = "/* pgsteer: consistency=eventual */ SELECT count(*), pg_is_in_recovery() FROM t";
    let stale = eventually_async(async || {
        let row = client.query(hinted).await.rows().remove(0);
        (row[1].as_deref() == Some("t")).then_some(row)
    });
    assert_eq!(stale.await[0].as_deref(), Some("0"), "the standby was behind");
    assert_eq!(client.value("SELECT count(*) FROM t").await, "1");
    // And by the session's own setting.
    client.query("SET pgsteer.consistency = 'eventual'").await;
    assert_eq!(client.value("SELECT count(*) FROM t").await, "0");
    client.query("RESET pgsteer.consistency").await;
    assert_eq!(client.value("SELECT count(*) FROM t").await, "1");
    // A hint speaks for its own statement, not for the others of its batch.
    let run = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    let answer = client.batch(&[run(hinted), run("SELECT count(*) FROM t")]).await;
    assert_eq!(answer.rows()[1][0].as_deref(), Some("1"));
    let wish = "SELECT count(*) FROM t /* pgsteer: role=standby */";
    let answer = client.batch(&[run("INSERT INTO t VALUES (2)"), run(wish)]).await;
    assert_eq!(answer.code(), None);
    house.server("standby1").resume_replay().unwrap();
}

/// Asks until there is an answer.
async fn eventually_async<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(answer) = ask().await {
            return answer;
        }
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never came")
}
