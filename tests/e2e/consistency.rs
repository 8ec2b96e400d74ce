//! You read your writes, and never less than you have read: ten thousand pairs an arm.
//!
//! Each arm stages one accident. The opposite arm takes the floor away and must find stale
//! reads, or these tests would prove nothing.

use crate::support::{Blueprint, House};
use pgsteer::clock;
use pgsteer::tasks;
use std::time::Duration;
use tokio_postgres::Client;

/// Clients that write and read at the same time.
const CLIENTS: i32 = 16;
/// Pairs of a write and a read, in one arm.
const PAIRS: i32 = 10_000;

/// How often a share of standbys is measured before it is taken for what it is.
const ATTEMPTS: u32 = 5;
/// Writes, each followed by a read that is to reach a standby, beside an idle primary.
const IDLE_WRITES: i32 = 40;
/// Longest time for that. An idle primary writes something by itself every 15 s, and standbys
/// that need that would serve few reads within so short a part of it.
const STANDBY_MAX: Duration = Duration::from_secs(2);

/// What an arm counted.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    pairs: i32,
    /// Reads that showed less than their own session had written, or had read before.
    stale: i32,
    /// Reads that a standby served.
    on_standby: i32,
}

/// Between a write and its read.
#[derive(Debug, Clone, Copy)]
enum Pause {
    None,
    For(Duration),
}

async fn prepare(house: &House) {
    let client = house.client().await;
    client
        .batch_execute(
            "CREATE TABLE pairs (id int PRIMARY KEY, v int NOT NULL); \
             INSERT INTO pairs SELECT i, 0 FROM generate_series(0, 15) i",
        )
        .await
        .unwrap();
    house.cluster.await_replay().unwrap();
    // Until the catalog is known, reads go to the primary.
    let started = clock::now();
    loop {
        let row = client.query_one("SELECT v, pg_is_in_recovery() FROM pairs WHERE id = 0", &[]);
        if row.await.unwrap().get(1) {
            return;
        }
        assert!(
            clock::now().since(started) < Duration::from_mins(1),
            "no read ever reached a standby"
        );
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
}

async fn pairs(house: &House, pairs: i32, pause: Pause) -> Seen {
    let mut running = Vec::new();
    for id in 0..CLIENTS {
        let client = house.client().await;
        running.push(tasks::spawn("pairs", one_client(client, id, pairs / CLIENTS, pause)));
    }
    let mut total = Seen::default();
    for client in running {
        let seen = client.await.unwrap();
        total.pairs += seen.pairs;
        total.stale += seen.stale;
        total.on_standby += seen.on_standby;
    }
    total
}

async fn one_client(client: Client, id: i32, pairs: i32, pause: Pause) -> Seen {
    let mut seen = Seen::default();
    let write = client.prepare("UPDATE pairs SET v = $2 WHERE id = $1").await.unwrap();
    let read = "SELECT v, pg_is_in_recovery() FROM pairs WHERE id = $1";
    let prepared = client.prepare(read).await.unwrap();
    for v in 1..=pairs {
        client.execute(&write, &[&id, &v]).await.unwrap();
        if let Pause::For(time) = pause {
            pgsteer::timer::sleep(time).await;
        }
        // In turn: a prepared statement, and the simple protocol.
        let (value, standby) = if v % 2 == 0 {
            let row = client.query_one(&prepared, &[&id]).await.unwrap();
            (row.get::<_, i32>(0), row.get::<_, bool>(1))
        } else {
            simple(&client, &read.replace("$1", &id.to_string())).await
        };
        seen.pairs += 1;
        seen.stale += i32::from(value < v);
        seen.on_standby += i32::from(standby);
    }
    seen
}

async fn simple(client: &Client, sql: &str) -> (i32, bool) {
    let answer = client.simple_query(sql).await.unwrap();
    for message in answer {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return (row.get(0).unwrap().parse().unwrap(), row.get(1) == Some("t"));
        }
    }
    panic!("no row");
}

fn report(arm: &str, seen: Seen) {
    eprintln!("{arm}: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_set_shows_nothing_stale() {
    let house = Blueprint::new().unhurried().any_lag().build();
    prepare(&house).await;
    let seen = pairs(&house, PAIRS, Pause::None).await;
    report("healthy", seen);
    assert_eq!(seen.stale, 0);

    // The figure is of a machine that has time for its servers: on one that is starved for some
    // seconds the standbys are behind, and the primary answers. So they are given more time; but
    // less than until the next look, which would resolve every floor by itself.
    for attempt in 1..=ATTEMPTS {
        let pause = attempt * Duration::from_millis(100);
        let calm = pairs(&house, 640, Pause::For(pause)).await;
        report(&format!("healthy, {pause:?} between"), calm);
        assert_eq!(calm.stale, 0);
        if calm.on_standby * 10 >= calm.pairs * 9 {
            return;
        }
        assert!(attempt < ATTEMPTS, "at least 90 % on standbys: {calm:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_replay_paused_the_primary_answers() {
    let house = Blueprint::new().unhurried().any_lag().build();
    prepare(&house).await;
    house.server("standby1").pause_replay().unwrap();
    house.server("standby2").pause_replay().unwrap();
    let seen = pairs(&house, PAIRS, Pause::None).await;
    report("paused", seen);
    assert_eq!(seen.stale, 0);
    // A session that has written nothing may read there: the standbys are not out of use.
    let other = house.client().await;
    let row = other.query_one("SELECT pg_is_in_recovery() FROM pairs WHERE id = 0", &[]);
    assert!(row.await.unwrap().get::<_, bool>(0), "the standbys still serve those who may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_delayed_standbys_nothing_is_stale_and_without_the_floor_much_is() {
    let house = Blueprint::new()
        .servers(|plan| {
            let plan = plan.server_setting("standby1", "recovery_min_apply_delay", "300ms");
            plan.server_setting("standby2", "recovery_min_apply_delay", "300ms")
        })
        .set("routing.max_lag.time", "off")
        .set("routing.max_lag.bytes", "off")
        .build();
    prepare(&house).await;
    let seen = pairs(&house, PAIRS, Pause::None).await;
    report("delayed", seen);
    assert_eq!(seen.stale, 0);
    // With a pause longer than the delay the standbys do serve: the promise was at stake.
    let calm = pairs(&house, 160, Pause::For(Duration::from_millis(600))).await;
    report("delayed, 600 ms between", calm);
    assert_eq!(calm.stale, 0);
    assert!(calm.on_standby > 0, "no read ever went to a standby: {calm:?}");

    // The opposite arm: the same sessions without a floor.
    let client = house.client().await;
    client.batch_execute("SET pgsteer.consistency = 'eventual'").await.unwrap();
    let seen = one_client(client, 0, 200, Pause::None).await;
    report("delayed, floor off", seen);
    assert!(seen.stale > 0, "without the floor this test must find stale reads: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_asynchronous_commit_with_a_slow_wal_writer_is_not_missed() {
    let house = Blueprint::new()
        .servers(|plan| {
            let plan = plan.server_setting("primary", "synchronous_commit", "off");
            plan.server_setting("primary", "wal_writer_delay", "10s")
        })
        .build();
    prepare(&house).await;
    let seen = pairs(&house, PAIRS, Pause::None).await;
    report("synchronous_commit=off", seen);
    assert_eq!(seen.stale, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_primary_at_a_page_boundary_stalls_nobody() {
    let house = House::build();
    prepare(&house).await;
    let client = house.client().await;
    let mut on_standby = 0;
    for v in 1..=IDLE_WRITES {
        client.execute("UPDATE pairs SET v = $1 WHERE id = 0", &[&v]).await.unwrap();
        // The floor stands at the new segment's first page, on which nothing is written.
        house.server("primary").rows("SELECT pg_switch_wal()").unwrap();
        on_standby += i32::from(reaches_a_standby(&client, v).await);
    }
    eprintln!("after pg_switch_wal(): {on_standby} of {IDLE_WRITES} on standbys");
    assert!(on_standby >= 30, "an idle primary must not keep reads off the standbys");
    let seen = pairs(&house, PAIRS, Pause::None).await;
    report("after pg_switch_wal()", seen);
    assert_eq!(seen.stale, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_on_an_idle_primary_stalls_nobody() {
    let house = House::build();
    prepare(&house).await;
    let holder = house.client().await;
    holder.batch_execute("CREATE TABLE other (i int)").await.unwrap();
    holder.batch_execute("BEGIN; INSERT INTO other VALUES (1)").await.unwrap();
    let client = house.client().await;
    let mut on_standby = 0;
    for v in 1..=IDLE_WRITES {
        client.execute("UPDATE pairs SET v = $1 WHERE id = 0", &[&v]).await.unwrap();
        // Written and not flushed: the insert position is ahead of all that a standby can get.
        holder.batch_execute("INSERT INTO other VALUES (2)").await.unwrap();
        on_standby += i32::from(reaches_a_standby(&client, v).await);
    }
    eprintln!("beside an open transaction: {on_standby} of {IDLE_WRITES} on standbys");
    assert!(on_standby >= 30, "an open transaction must not keep reads off the standbys");
    assert_kicked(&house);
    let seen = pairs(&house, PAIRS, Pause::None).await;
    report("open transaction", seen);
    assert_eq!(seen.stale, 0);
}

/// Reads until a standby answers; whether one did in time. Whoever answers has what was written.
async fn reaches_a_standby(client: &Client, written: i32) -> bool {
    let started = clock::now();
    while clock::now().since(started) < STANDBY_MAX {
        let read = "SELECT v, pg_is_in_recovery() FROM pairs WHERE id = 0";
        let (value, standby) = simple(client, read).await;
        assert_eq!(value, written);
        if standby {
            return true;
        }
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// The primary was made to flush, in the way of its version, and did not object.
fn assert_kicked(house: &House) {
    let primary = house.server("primary");
    let kicks = format!("pgsteer_server_flush_kicks_total{{server=\"{}\"}}", primary.address());
    assert!(house.metric(&kicks).unwrap() > 0.0, "nobody asked for a flush");
    let sql = match primary.value("SHOW server_version_num").unwrap().parse::<u32>().unwrap() {
        ..170_000 => "pg_logical_emit_message(true, 'pgsteer', '')",
        170_000.. => "pg_logical_emit_message(false, 'pgsteer', '', true)",
    };
    assert!(primary.logged(sql) > 0, "{sql}");
    assert_eq!(primary.log().matches("ERROR:").count(), 0, "{}", primary.log());
}
