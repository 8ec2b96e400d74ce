//! How messages flow: pipelines, `Flush`, COPY, errors in the middle, and things that are huge.

use crate::abandoned::{LONG_READ, await_known_reads, await_rid_of_it};
use crate::raw::{
    Answer, Message, Raw, bind, close, copy_data, copy_done, copy_fail, describe, execute, flush,
    goodbye, message_of, parse, query, sync,
};
use crate::support::{Blueprint, House, cluster, proxy};
use pgsteer::sandbox::{Plan, SUPERUSER};
use std::time::Duration;

/// A primary alone with two backends.
fn house() -> House {
    Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2").build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_a_pipeline_skips_its_own_batch_only() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int PRIMARY KEY)").await;
    let insert = |value: &str| {
        [parse("", "INSERT INTO t VALUES ($1)"), bind("", &[value.as_bytes()]), execute()].concat()
    };
    // Four batches in one write; the second fails at its second statement.
    let bytes = [
        insert("1"),
        sync(),
        insert("2"),
        insert("1"),
        insert("3"),
        sync(),
        insert("4"),
        sync(),
        query("SELECT count(*), sum(i) FROM t"),
    ];
    client.send(&bytes.concat()).await;
    assert_eq!(client.ready().await.tags(), "12CZ");
    let failed = client.ready().await;
    assert_eq!(failed.tags(), "12C12EZ");
    assert_eq!(failed.code().as_deref(), Some("23505"));
    assert_eq!(client.ready().await.tags(), "12CZ");
    let row = client.ready().await.rows().remove(0);
    assert_eq!(row, [Some("2".to_owned()), Some("5".to_owned())], "2 went back with its batch");
    // An error in a transaction: everything up to ROLLBACK is refused.
    let bytes = [query("BEGIN"), insert("1"), sync(), insert("9"), sync(), query("ROLLBACK")];
    client.send(&bytes.concat()).await;
    assert_eq!(client.ready().await.status(), 'T');
    assert_eq!(client.ready().await.status(), 'E');
    let refused = client.ready().await;
    assert_eq!(refused.code().as_deref(), Some("25P02"));
    assert_eq!(client.ready().await.status(), 'I');
    assert_eq!(client.query("").await.tags(), "IZ", "an empty query has its own answer");
    assert_eq!(client.batch(&[parse("", ""), bind("", &[]), execute()]).await.tags(), "12IZ");
    assert_eq!(client.batch(&[]).await.tags(), "Z", "a Sync alone");
}

/// Who asks and says goodbye at once may still listen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_before_a_goodbye_is_answered() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    await_known_reads(&house, &mut client).await;
    let primary = house.server("primary").address().parse().unwrap();
    let read = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    let batch = [parse("", read), bind("", &[]), execute(), sync()].concat();
    let in_a_block = [query("BEGIN"), query("SELECT pg_sleep(0.3)")].concat();
    let asked = [query(read), batch, query("SELECT pg_sleep(0.3)"), query("SELECT nothing")];
    for asks in asked.into_iter().chain([in_a_block]) {
        let login = [("user", SUPERUSER), ("database", "postgres")];
        let mut direct = Raw::connect(primary, &login).await.unwrap();
        let mut client = Raw::enter(&house).await;
        let asks = [asks, goodbye()].concat();
        let mut said = Vec::new();
        for one in [&mut direct, &mut client] {
            one.send(&asks).await;
            said.push(one.end().await.iter().map(Message::tag).collect::<String>());
        }
        assert_eq!(said[0], said[1]);
        assert!(said[0].ends_with('Z'), "{}", said[0]);
    }
}

/// As asyncpg does: it prepares with `Flush`, waits, and goes on in the same implicit transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_brings_answers_and_a_write_may_follow_a_read() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).build();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int)").await;
    house.cluster.await_replay().unwrap();
    // Until the catalog is known, reads go to the primary.
    let mut on_standby = 0;
    let mut round = 0;
    while on_standby < 5 {
        round += 1;
        // Who has written nothing yet is sent to a standby, and prepares there.
        let mut fresh = Raw::enter(&house).await;
        let read = format!("SELECT count(*) FROM t /* round {round} */");
        fresh.send(&[parse("r", &read), describe("r"), flush()].concat()).await;
        assert_eq!(fresh.until('T').await.tags(), "1tT");
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = '";
        let seen = house.server("standby1").value(&format!("{sql}{read}'")).unwrap();
        on_standby += usize::from(seen != "0");
        let write = parse("w", "INSERT INTO t VALUES (1)");
        fresh.send(&[write, describe("w"), flush()].concat()).await;
        assert_eq!(fresh.until('n').await.tags(), "1tn");
        let count = house.server("primary").value("SELECT count(*) FROM t").unwrap();
        let before: usize = count.parse().unwrap();
        let done = fresh.batch(&[bind("w", &[]), execute()]).await;
        assert_eq!(done.tags(), "2CZ", "{:?}", done.error());
        // A read that is executed, waited for, and followed by a write.
        fresh.send(&[bind("r", &[]), execute(), flush()].concat()).await;
        let read = fresh.until('C').await;
        assert_eq!(read.rows()[0][0], Some((before + 1).to_string()));
        assert_eq!(fresh.batch(&[bind("w", &[]), execute()]).await.tags(), "2CZ");
        assert_eq!(fresh.batch(&[close("r"), close("w")]).await.tags(), "33Z");
    }
    // An error, and what is skipped after it.
    client.send(&[parse("e", "SELEC"), flush()].concat()).await;
    assert_eq!(client.until('E').await.tags(), "E");
    client.send(&[parse("f", "SELECT 1"), flush()].concat()).await;
    assert_eq!(client.batch(&[]).await.tags(), "Z");
    assert_eq!(client.value("SELECT 1").await, "1");
}

/// Rows enough for many reads of a socket.
const ROWS: usize = 40_000;

async fn begin_copy(client: &mut Raw) {
    client.send(&query("COPY t FROM STDIN")).await;
    assert_eq!(client.until('G').await.tags(), "G");
}

fn lines(from: usize, to: usize) -> Vec<u8> {
    (from..to).flat_map(|number| copy_data(format!("{number}\tsome text\n").as_bytes())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_goes_both_ways_and_may_fail_on_either_side() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int PRIMARY KEY, x text)").await;
    begin_copy(&mut client).await;
    client.send(&lines(0, ROWS)).await;
    client.send(&copy_done()).await;
    assert_eq!(client.ready().await.tags(), "CZ");
    let out = client.query("COPY t TO STDOUT").await;
    assert_eq!(out.tags(), format!("H{}cCZ", "d".repeat(ROWS)));

    // The client gives up.
    begin_copy(&mut client).await;
    client.send(&lines(ROWS, 2 * ROWS)).await;
    client.send(&copy_fail("no more")).await;
    assert_eq!(client.ready().await.code().as_deref(), Some("57014"));
    // The server gives up while much more is on its way.
    begin_copy(&mut client).await;
    client.send(&lines(ROWS, ROWS + 10)).await;
    client.send(&copy_data(b"not a number\tx\n")).await;
    client.send(&lines(ROWS + 10, 2 * ROWS)).await;
    client.send(&copy_done()).await;
    assert_eq!(client.ready().await.code().as_deref(), Some("22P02"));
    // It gives up in the middle of what it sends.
    let out = client.query("COPY (SELECT 1 / (i - 30000) FROM t ORDER BY i) TO STDOUT").await;
    assert_eq!(out.code().as_deref(), Some("22012"));
    assert!(out.0.len() > 20_000, "some of it had gone out");
    assert_eq!(client.value("SELECT count(*) FROM t").await, ROWS.to_string());

    // In the extended protocol, with the Sync before the data and after it.
    let ask = [parse("", "COPY t FROM STDIN"), bind("", &[]), execute()];
    client.send(&[ask.concat(), flush()].concat()).await;
    assert_eq!(client.until('G').await.tags(), "12G");
    client.send(&[lines(ROWS, ROWS + 100), copy_done(), sync()].concat()).await;
    assert_eq!(client.ready().await.tags(), "CZ");
    client.send(&[ask.concat(), sync()].concat()).await;
    assert_eq!(client.until('G').await.tags(), "12G");
    client.send(&[lines(ROWS + 100, ROWS + 200), copy_done(), sync()].concat()).await;
    assert_eq!(client.ready().await.tags(), "CZ");
    client.send(&[ask.concat(), sync()].concat()).await;
    assert_eq!(client.until('G').await.tags(), "12G");
    client.send(&[copy_data(b"x\n"), copy_data(b"y\n"), copy_done(), sync()].concat()).await;
    assert_eq!(client.ready().await.code().as_deref(), Some("22P02"));
    assert_eq!(client.value("SELECT count(*) FROM t").await, (ROWS + 200).to_string());
}

/// What comes behind a COPY in its batch is out of place where the server wants data. It ends the
/// connection; pgsteer waited for a `Sync` that had been sent, and its client for ever. Before 14
/// a server goes on behind the `Sync`, and so does its client's connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_data_ends_a_copy_and_its_connection() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int PRIMARY KEY, x text)").await;
    let copy = [parse("", "COPY t FROM STDIN"), bind("", &[]), execute()].concat();
    for behind in [parse("", "SELECT 1"), describe(""), close("s")] {
        let mut client = Raw::enter(&house).await;
        client.send(&[copy.clone(), behind, sync()].concat()).await;
        if house.server("primary").version().major() < 14 {
            let answer = client.until('Z').await;
            assert_eq!((answer.code().as_deref(), answer.status()), (Some("08P01"), 'I'));
            assert_eq!(client.value("SELECT 1").await, "1");
            continue;
        }
        let told = client.end().await;
        let fatal = told.last().unwrap();
        assert_eq!(
            (fatal.code().as_deref(), fatal.field(b'S').as_deref()),
            (Some("08P01"), Some("FATAL"),)
        );
    }
    assert_eq!(client.value("SELECT count(*) FROM t").await, "0");
}

/// Whoever leaves in the middle takes his backend along; the others notice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_in_the_middle_leaves_nothing_behind() {
    let house = house();
    let mut stays = Raw::enter(&house).await;
    stays.value("CREATE TABLE t (i int, x text)").await;
    await_known_reads(&house, &mut stays).await;
    for round in 0..12 {
        let mut goes = Raw::enter(&house).await;
        match round % 6 {
            0 => {
                begin_copy(&mut goes).await;
                goes.send(&lines(0, 500)).await;
            }
            1 => {
                goes.send(&query("COPY (SELECT generate_series(1, 1000000)) TO STDOUT")).await;
                goes.until('d').await;
            }
            2 => drop(goes.query("BEGIN; INSERT INTO t VALUES (1, 'uncommitted')").await),
            3 => goes.send(&query(LONG_READ)).await,
            4 => goes.send(&query("SELECT 1")[..7]).await,
            _ => {
                goes.send(&[parse("a", "SELECT 1"), bind("a", &[]), execute(), flush()].concat())
                    .await;
                goes.until('C').await;
            }
        }
        drop(goes);
        for _ in 0..3 {
            assert_eq!(stays.value("SELECT count(*) FROM t").await, "0");
        }
    }
    await_rid_of_it(&house);
}

/// What is moved at a time in the tests of memory, in bytes.
const HUGE: usize = 50 * 1024 * 1024;

/// How long a row is, in bytes. `PGSTEER_ROW=1000000000` is about as long as a server can make it.
fn row_size() -> usize {
    std::env::var("PGSTEER_ROW").map_or(HUGE, |bytes| bytes.parse().unwrap())
}
/// What the proxy may need for it beyond what it has, in kB: its buffers, and some air.
const GROWTH_MAX: usize = 16 * 1024;

/// The most memory that the proxy ever had, in kB.
fn peak(house: &House) -> usize {
    let path = format!("/proc/{}/status", house.proxy.pid().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_rows_and_huge_parameters_pass_in_little_memory() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    client.value("CREATE TABLE t (x text)").await;
    // What comes with the first statements of each kind is there before the measuring begins.
    let mut before = 0;
    while before != peak(&house) {
        before = peak(&house);
        client.query("SELECT repeat('x', 1000000)").await;
        client.batch(&[parse("", "SELECT $1::text"), bind("", &[b"x"]), execute()]).await;
        pgsteer::timer::sleep(Duration::from_secs(1)).await;
    }
    let row_size = row_size();
    let row = client.query(&format!("SELECT repeat('x', {row_size})")).await;
    assert_eq!(row.value().len(), row_size);
    // A client that takes its time must not make the proxy hoard.
    client.send(&query(&format!("SELECT repeat('y', {row_size})"))).await;
    pgsteer::timer::sleep(Duration::from_millis(300)).await;
    assert_eq!(client.ready().await.value().len(), row_size);

    let huge = vec![b'z'; HUGE];
    let sql = "SELECT length($1::text), left($1, 2)";
    let answer = client.batch(&[parse("s", sql), bind("s", &[&huge]), execute()]).await;
    assert_eq!(answer.rows()[0], [Some(HUGE.to_string()), Some("zz".to_owned())]);
    let answer = client.batch(&[bind("s", &[&huge]), execute()]).await;
    assert_eq!(answer.value(), HUGE.to_string());
    let literal = String::from_utf8(huge).unwrap();
    let answer = client.query(&format!("SELECT length('{literal}')")).await;
    assert_eq!(answer.value(), HUGE.to_string());
    let data = [copy_data(&vec![b'c'; HUGE]), copy_data(b"\n"), copy_done()].concat();
    client.send(&query("COPY t FROM STDIN")).await;
    client.until('G').await;
    client.send(&data).await;
    assert_eq!(client.ready().await.tags(), "CZ");
    let out = client.query("COPY t TO STDOUT").await;
    assert!(out.0.iter().map(|message| message.0.len()).sum::<usize>() > HUGE);

    let after = peak(&house);
    eprintln!("peak before {before} kB, after {after} kB");
    assert!(after < before + GROWTH_MAX, "from {before} kB to {after} kB");
}

/// The answer of a standby, which is kept until something of it is shown, is not kept for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_rows_of_a_standby_pass_in_little_memory() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    house.await_catalog();
    let mut client = Raw::enter(&house).await;
    let mut before = 0;
    while before != peak(&house) {
        before = peak(&house);
        client.query("SELECT repeat('x', 1000000)").await;
        pgsteer::timer::sleep(Duration::from_secs(1)).await;
    }
    let size = row_size();
    let asked = [
        query(&format!("SELECT repeat('x', {size}) /* huge */")),
        [
            parse("", &format!("SELECT repeat('x', {size}) /* huge */")),
            bind("", &[]),
            execute(),
            sync(),
        ]
        .concat(),
    ];
    for bytes in asked {
        client.send(&bytes).await;
        pgsteer::timer::sleep(Duration::from_millis(300)).await;
        assert_eq!(client.ready().await.value().len(), size);
    }
    assert_eq!(house.where_ran("/* huge */"), ["standby1"]);
    let after = peak(&house);
    assert!(after < before + GROWTH_MAX, "from {before} kB to {after} kB");
}

/// A server that takes in less than its client sends never takes all that there is. At a unix
/// socket, whose buffer does not grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_server_has_taken_is_not_kept() {
    let cluster = cluster(&Plan::new().standbys(0));
    let primary = cluster.primary();
    let (dir, port) = (primary.socket_dir().display(), primary.port());
    let uri = format!("postgresql:///postgres?host={dir}&port={port}");
    let proxy = proxy(&cluster, "").args(["--server", &uri]);
    proxy.start().unwrap();
    proxy.await_ready().unwrap();
    let house = House { proxy, cluster };
    let mut client = Raw::enter(&house).await;
    client.query("CREATE TABLE t (x text)").await;
    let slow = "BEGIN PERFORM pg_sleep(0.001); RETURN NULL; END";
    client
        .query(&format!("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS '{slow}'"))
        .await;
    client
        .query("CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()")
        .await;
    let row = [vec![b'c'; 64 * 1024 - 1], b"\n".to_vec()].concat();
    let copy = async |client: &mut Raw, rows| {
        client.send(&query("COPY t FROM STDIN")).await;
        client.until('G').await;
        client.send(&[copy_data(&row).repeat(rows), copy_done()].concat()).await;
        assert_eq!(client.ready().await.tags(), "CZ");
    };
    copy(&mut client, 100).await;
    let before = peak(&house);
    copy(&mut client, 1_000).await;
    let after = peak(&house);
    assert!(after < before + GROWTH_MAX, "from {before} kB to {after} kB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_call_message_is_answered() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    let oid: u32 = client.value("SELECT 'int4pl'::regproc::oid").await.parse().unwrap();
    let call = message_of(b'F', |out| {
        out.extend(oid.to_be_bytes());
        out.extend([0, 0]);
        out.extend(2_u16.to_be_bytes());
        for value in [b"40", b"02"] {
            out.extend(2_u32.to_be_bytes());
            out.extend(value);
        }
        out.extend([0, 0]);
    });
    client.send(&call).await;
    let answer = client.ready().await;
    assert_eq!(answer.tags(), "VZ");
    assert_eq!(&answer.0[0].0[9..], b"42");
    assert_eq!(client.value("SELECT 1").await, "1");
}

/// A client tells its own notifications from others' by the process that it was told at its login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_carries_the_process_that_its_client_knows() {
    for mode in ["session", "transaction"] {
        let house =
            Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.mode", mode).build();
        let (mut one, mut two) = (Raw::enter(&house).await, Raw::enter(&house).await);
        one.query("LISTEN here").await;
        let backend: i32 = one.value("SELECT pg_backend_pid()").await.parse().unwrap();
        assert_eq!(backend == one.pid, mode == "session", "whose process a client is told");
        let sender = |answer: &Answer| {
            let told = answer.0.iter().find(|message| message.tag() == 'A').expect("none came");
            i32::from_be_bytes(told.0[5..9].try_into().unwrap())
        };
        let own = one.query("NOTIFY here").await;
        assert_eq!(sender(&own), one.pid, "{mode}");
        two.query("NOTIFY here").await;
        let others = one.until('A').await;
        assert_ne!(sender(&others), one.pid, "{mode}");
    }
}
