//! What lasts on a backend and no reset takes back: it is its session's for good, and nobody's
//! behind it.

use crate::raw::{Raw, parse};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::{StatementLog, eventually};
use std::time::Duration;

/// A primary alone with two backends for everybody.
fn house(mode: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::Off))
        .set("pool.size", "2")
        .set("limits.shards", "1")
        .set("pool.mode", mode)
        .build();
    house.server("primary").rows("CREATE ROLE app LOGIN SUPERUSER").unwrap();
    house
}

/// How a backup is begun and ended, which has other names since PostgreSQL 15.
fn backup(house: &House) -> (&'static str, &'static str) {
    let sql = "SELECT current_setting('server_version_num')::int >= 150000";
    if house.server("primary").value(sql).unwrap() == "t" {
        ("SELECT pg_backup_start('x', true)", "SELECT lsn FROM pg_backup_stop(false)")
    } else {
        ("SELECT pg_start_backup('x', true, false)", "SELECT lsn FROM pg_stop_backup(false, false)")
    }
}

async fn backend(client: &mut Raw) -> String {
    client.value("SELECT pg_backend_pid()").await
}

/// Waits until a server's process is gone.
fn await_end(house: &House, pid: &str, what: &str) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    let primary = house.server("primary");
    let gone =
        eventually(Duration::from_secs(30), || (primary.value(&sql).unwrap() == "0").then_some(()));
    gone.unwrap_or_else(|| panic!("the backend outlives its session: {what}"));
}

/// The sessions that are pinned for this, as `pgsteer status` and the metrics tell.
fn pinned(house: &House) -> (usize, Option<f64>) {
    let status = house.status();
    let told = status["pinned"]["oldest"].as_array().unwrap().iter();
    let lasting = told.filter(|session| {
        session["because"].as_str().unwrap().contains("what no reset takes back")
    });
    (lasting.count(), house.metric("pgsteer_pinned_sessions{reason=\"lasting\"}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_reset_takes_back_keeps_its_session_and_ends_with_it() {
    let house = house("transaction");
    house.server("primary").rows("SELECT pg_replication_origin_create('o')").unwrap();
    let slot = "SELECT pg_create_physical_replication_slot('s', false, true)";
    let copied = "SELECT pg_copy_physical_replication_slot('p', 'c', true)";
    let permanent = "SELECT pg_create_physical_replication_slot('p', true)";
    house.server("primary").rows(permanent).unwrap();
    for lasting in [
        "SELECT setseed(0.5)",
        "SET seed = 0.5",
        "SELECT set_config('seed', '0.5', false)",
        "SELECT pg_replication_origin_session_setup('o')",
        slot,
        copied,
        "LOAD 'plpgsql'",
        backup(&house).0,
        // What fails has done it before, perhaps.
        "SELECT setseed(0.5), 1/0",
        "BEGIN; SELECT setseed(0.5); ROLLBACK",
    ] {
        let mut client = Raw::enter_as(&house, "app").await;
        client.query(lasting).await;
        let own = backend(&mut client).await;
        assert_eq!(pinned(&house), (1, Some(1.0)), "{lasting}");
        // No reset takes it back.
        assert_eq!(client.query("DISCARD ALL").await.code(), None, "{lasting}");
        assert_eq!(backend(&mut client).await, own, "{lasting}");
        assert_eq!(pinned(&house), (1, Some(1.0)), "{lasting}");
        let mut other = Raw::enter_as(&house, "app").await;
        assert_ne!(backend(&mut other).await, own, "{lasting}");
        client.leave().await;
        await_end(&house, &own, lasting);
        assert_ne!(backend(&mut other).await, own, "{lasting}");
        let free = eventually(Duration::from_secs(30), || {
            (pinned(&house) == (0, Some(0.0))).then_some(())
        });
        assert!(free.is_some(), "{lasting}: {:?}", pinned(&house));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_seeds_random_numbers_seeds_nobody_elses() {
    let house = house("transaction");
    let mut direct = house.server("primary").connect("postgres").unwrap();
    direct.value("SELECT setseed(0.5)").unwrap();
    let drawn = [(); 2].map(|()| direct.value("SELECT random()").unwrap());
    let mut client = Raw::enter_as(&house, "app").await;
    let mut next = Raw::enter_as(&house, "app").await;
    client.value("SELECT setseed(0.5)").await;
    assert_ne!(next.value("SELECT random()").await, drawn[0]);
    for drawn in &drawn {
        assert_eq!(client.value("SELECT random()").await, *drawn);
    }
}

/// Given at login it does nothing at a server, and nothing to who comes next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_is_given_at_login_seeds_nobody() {
    let house = house("transaction");
    let login = [("user", "app"), ("database", "postgres"), ("options", "-c seed=0.5")];
    let mut direct = house.server("primary").connect("postgres").unwrap();
    direct.value("SELECT setseed(0.5)").unwrap();
    let drawn = direct.value("SELECT random()").unwrap();
    let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
    assert_ne!(client.value("SELECT random()").await, drawn);
    let mut next = Raw::enter_as(&house, "app").await;
    assert_eq!(next.query("SELECT random()").await.code(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_origin_is_its_sessions_alone() {
    let house = house("transaction");
    house.server("primary").rows("SELECT pg_replication_origin_create('o')").unwrap();
    let is_set_up = "SELECT pg_replication_origin_session_is_setup()";
    let set_up = "SELECT pg_replication_origin_session_setup('o')";
    let mut client = Raw::enter_as(&house, "app").await;
    client.value(set_up).await;
    let mut other = Raw::enter_as(&house, "app").await;
    // In a transaction, so that they don't share.
    other.query("BEGIN").await;
    assert_eq!(other.value(is_set_up).await, "f");
    assert_eq!(client.value(is_set_up).await, "t");
    assert_eq!(other.query("COMMIT").await.code(), None);
    let own = backend(&mut client).await;
    client.leave().await;
    await_end(&house, &own, set_up);
    assert_eq!(other.query(set_up).await.code(), None, "still active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_ended_where_it_was_begun() {
    let house = house("transaction");
    let (start, stop) = backup(&house);
    let mut client = Raw::enter_as(&house, "app").await;
    assert_eq!(client.query(start).await.code(), None);
    let mut other = Raw::enter_as(&house, "app").await;
    other.query("BEGIN").await;
    assert_eq!(client.query(stop).await.code(), None);
    // Nor does anybody inherit one.
    assert_eq!(other.query("COMMIT").await.code(), None);
    let mut third = Raw::enter_as(&house, "app").await;
    for client in [&mut other, &mut third] {
        assert_eq!(client.query(stop).await.code().as_deref(), Some("55000"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_mode_it_ends_with_its_session_too() {
    let house = house("session");
    for lasting in ["SELECT setseed(0.5)", backup(&house).0] {
        let mut client = Raw::enter_as(&house, "app").await;
        assert_eq!(client.query(lasting).await.code(), None);
        let own = backend(&mut client).await;
        client.leave().await;
        await_end(&house, &own, lasting);
    }
    // One that left nothing of the kind leaves its backend to the next.
    let mut client = Raw::enter_as(&house, "app").await;
    let own = backend(&mut client).await;
    client.leave().await;
    let mut next = Raw::enter_as(&house, "app").await;
    assert_eq!(backend(&mut next).await, own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_prepared_keeps_nobody() {
    let house = house("transaction");
    let mut client = Raw::enter_as(&house, "app").await;
    assert_eq!(client.batch(&[parse("s", "SELECT setseed(0.5)")]).await.code(), None);
    assert_eq!(client.value("SELECT 1").await, "1");
    assert_eq!(pinned(&house).0, 0);
}
