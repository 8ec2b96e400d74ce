//! Neither pgsteer nor its servers keep what clients have said: memory is flat over any number of
//! distinct statements. A million of them are said by `PGSTEER_STATEMENTS=1000000`.
//!
//! The opposite arm prepares as many and closes none, which a session may do, and which must be
//! seen by the same measure.

use crate::raw::{Raw, bind, close, execute, parse, query, sync};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::{StatementLog, eventually};
use pgsteer::tasks;
use std::time::Duration;

/// Distinct statements after which every bounded store is full: twice what a shard remembers.
const WARM_UP: u64 = 32 * 1024;
/// Clients that say them.
const CLIENTS: u64 = 4;
/// Statements that are sent in one go.
const AT_ONCE: u64 = 64;
/// What memory may rise by, whatever their number: for the allocator's holes.
const RISE_MAX: u64 = 8 << 20;
/// How often it may rise by more before it is a leak.
const SPANS: u32 = 3;
/// Most statements that one backend holds for us.
const HELD_MAX: u64 = 500;

/// Whether a client closes what it has prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closes {
    All,
    Nothing,
}

fn house() -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).log(StatementLog::Off))
        .set("pool.size", "2")
        .set("pool.wait_timeout", "1m")
        .set("limits.shards", "1")
        .build();
    house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
    house.await_catalog();
    house
}

/// The statement of that number, in one of four ways; one `ReadyForQuery` answers it.
fn statement(number: u64, closes: Closes) -> Vec<u8> {
    let run = |name: &str, sql: &str| [parse(name, sql), bind(name, &[b"1"]), execute()].concat();
    match (closes, number % 4) {
        // A number, which pgsteer leaves out of what it remembers; a text, which it doesn't.
        (Closes::All, 0) => query(&format!("SELECT {number}")),
        (Closes::All, 1) => query(&format!("SELECT 'text {number}'")),
        (Closes::All, 2) => {
            let mut batch = run("", &format!("SELECT $1::text AS unnamed_{number}"));
            batch.extend(sync());
            batch
        }
        _ => {
            let name = format!("s{number}");
            let mut batch = run(&name, &format!("SELECT $1::int AS named_{number}"));
            if closes == Closes::All {
                batch.extend(close(&name));
            }
            batch.extend(sync());
            batch
        }
    }
}

/// Has all clients say these.
async fn say(clients: Vec<Raw>, numbers: std::ops::Range<u64>, closes: Closes) -> Vec<Raw> {
    let each = (numbers.end - numbers.start) / CLIENTS;
    let mut running = Vec::new();
    for (mut raw, at) in clients.into_iter().zip(0..) {
        let first = numbers.start + at * each;
        running.push(tasks::spawn("talker", async move {
            let mut next = first;
            while next < first + each {
                let last = (next + AT_ONCE).min(first + each);
                let bytes: Vec<u8> = (next..last).flat_map(|n| statement(n, closes)).collect();
                raw.send(&bytes).await;
                for number in next..last {
                    let answer = raw.ready().await;
                    assert_eq!(answer.code(), None, "statement {number}: {answer:?}");
                }
                next = last;
            }
            raw
        }));
    }
    let mut clients = Vec::new();
    for talker in running {
        clients.push(talker.await.unwrap());
    }
    clients
}

/// Memory of the proxy, and of the fattest of its backends, in bytes.
fn memory(house: &House) -> (u64, u64) {
    let body = house.http("/metrics").body;
    let line = body.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let servers = house.cluster.servers().iter();
    let pids = servers.flat_map(|server| {
        server.rows("SELECT pid FROM pg_stat_activity WHERE usename = 'app'").unwrap()
    });
    let fattest = pids.flatten().flatten().filter_map(|pid| private_bytes(&pid)).max();
    (line.unwrap().parse().unwrap(), fattest.unwrap())
}

/// What a process has for itself, without what servers share; `None` if it has ended.
pub(crate) fn private_bytes(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn prepared(house: &House, side: &str) -> u64 {
    let series = format!("pgsteer_prepared_statements{{side=\"{side}\"}} ");
    let body = house.http("/metrics").body;
    body.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

/// How many distinct statements follow the warm-up.
fn statements() -> u64 {
    let told = std::env::var("PGSTEER_STATEMENTS").ok();
    told.map_or(64 * 1024, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_over_any_number_of_distinct_statements() {
    let house = house();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Raw::enter_as(&house, "app").await);
    }
    let mut clients = say(clients, 0..WARM_UP, Closes::All).await;
    let mut said = WARM_UP;
    let mut before = memory(&house);
    // What leaks rises each time; what the allocator has holes for rises once.
    for attempt in 1..=SPANS {
        clients = say(clients, said..said + statements(), Closes::All).await;
        said += statements();
        let after = memory(&house);
        eprintln!("{} statements: {before:?} bytes before, {after:?} after", statements());
        if after.0 < before.0 + RISE_MAX && after.1 < before.1 + RISE_MAX {
            break;
        }
        assert!(attempt < SPANS, "pgsteer, a backend: {before:?} -> {after:?}");
        before = after;
    }
    assert_eq!(prepared(&house, "client"), 0);
    for server in house.cluster.servers() {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        let backends: u64 = server.value(count).unwrap().parse().unwrap();
        assert!(backends <= 2, "{backends} backends on {}", server.name());
    }
    let held = prepared(&house, "server");
    assert!((1..=4 * HELD_MAX).contains(&held), "{held} on the servers");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_not_closed_are_seen_in_memory_and_their_backends_hold_few() {
    const KEPT: u64 = 32 * 1024;
    let house = house();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Raw::enter_as(&house, "app").await);
    }
    let clients = say(clients, 0..AT_ONCE * CLIENTS, Closes::Nothing).await;
    let before = memory(&house);

    let clients = say(clients, AT_ONCE * CLIENTS..KEPT, Closes::Nothing).await;

    let after = memory(&house);
    eprintln!("{KEPT} kept: {before:?} bytes before, {after:?} after");
    assert!(after.0 > before.0 + RISE_MAX, "kept, and not seen: {before:?} -> {after:?}");
    assert!(after.1 < before.1 + RISE_MAX, "a backend: {before:?} -> {after:?}");
    assert_eq!(prepared(&house, "client"), KEPT);
    assert!(prepared(&house, "server") <= 4 * HELD_MAX);
    for client in clients {
        client.leave().await;
    }
    let gone =
        eventually(Duration::from_mins(1), || (prepared(&house, "client") == 0).then_some(()));
    assert!(gone.is_some(), "{} are still counted", prepared(&house, "client"));
}
