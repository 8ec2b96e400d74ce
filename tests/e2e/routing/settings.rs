//! What stands behind a `SET` in the same text goes where it would go by itself, and is run as
//! often.

use crate::raw::{Raw, query};
use crate::support::{Blueprint, House, end_backends};
use std::time::Duration;

/// `enqueue` writes, and counts how often it was run in a way that no rollback takes back.
fn house() -> House {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    for sql in [
        "CREATE TABLE jobs (i int)",
        "CREATE SEQUENCE runs",
        "CREATE FUNCTION enqueue() RETURNS int LANGUAGE plpgsql AS 'BEGIN \
         PERFORM nextval(''runs''); INSERT INTO jobs VALUES (1); \
         PERFORM pg_advisory_xact_lock_shared(4711); RETURN 1; END'",
    ] {
        house.server("primary").rows(sql).unwrap();
    }
    house.await_catalog();
    house
}

/// Until a standby has answered last, to which the session then keeps.
async fn await_standby(client: &mut Raw) {
    for _ in 0..3000 {
        if client.value("SELECT pg_is_in_recovery() FROM pg_class LIMIT 1").await == "t" {
            return;
        }
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
    panic!("no read went to a standby");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_called_behind_a_setting_goes_where_it_can_write() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    for (number, sql) in [
        "SET statement_timeout = '50s'; SELECT enqueue()",
        "SET LOCAL lock_timeout = '50s'; SELECT pg_advisory_xact_lock(7)",
        "RESET work_mem; SELECT pg_is_in_recovery() FROM jobs LIMIT 1",
    ]
    .into_iter()
    .enumerate()
    {
        await_standby(&mut client).await;
        let answer = client.query(&format!("{sql} /* run {number} */")).await;
        assert_eq!(answer.code(), None, "{sql}: {answer:?}");
        assert_eq!(house.where_ran(&format!("run {number}")), ["primary"], "{sql}");
    }
    // Settings alone go with the session, wherever that is.
    await_standby(&mut client).await;
    assert_eq!(client.query("SET a.b = 1; RESET a.b /* alone */").await.code(), None);
    assert_eq!(house.where_ran("alone"), ["standby1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_called_behind_a_setting_is_never_run_twice() {
    let house = house();
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    locker.rows("SELECT pg_advisory_lock(4711)").unwrap();
    for wish in ["primary", "auto"] {
        let drawn = primary.value("SELECT nextval('runs')").unwrap().parse::<u64>().unwrap();
        let mut client = Raw::enter(&house).await;
        client.query(&format!("SET pgsteer.role = '{wish}'")).await;
        client.send(&query("SET lock_timeout = '50s'; SELECT enqueue()")).await;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
        primary.await_value(waits, "1", "waiting").unwrap();
        assert_eq!(end_backends(primary, "wait_event = 'advisory'"), 1);
        // If it were run again, it would wait again.
        let answer = client.ready().await;
        assert_eq!(answer.code(), Some("08007".to_owned()), "{wish}: {answer:?}");
        let now = primary.value("SELECT nextval('runs')").unwrap().parse::<u64>().unwrap();
        assert_eq!(now, drawn + 2, "{wish}");
    }
}
