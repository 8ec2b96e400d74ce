//! Sessions whose transactions are `SERIALIZABLE` by default: a standby refuses to read for them.

use crate::raw::Raw;
use crate::support::{Blueprint, House};
use pgsteer::clock;
use std::time::Duration;

/// Whether a standby has answered.
const READ: &str = "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1";

/// Nothing that it reads comes from a standby, and nothing fails.
async fn reads_on_the_primary(client: &mut Raw, whose: &str) {
    for sql in [READ, "SELECT 1", "SHOW work_mem"] {
        assert_eq!(client.query(sql).await.code(), None, "{whose}: {sql}");
    }
    for _ in 0..3 {
        assert_eq!(client.value(READ).await, "f", "{whose}");
    }
    client.value("BEGIN READ ONLY").await;
    assert_eq!(client.value(READ).await, "f", "{whose}");
    client.value("COMMIT").await;
    assert_eq!(client.value(READ).await, "f", "{whose}");
}

async fn await_standby(client: &mut Raw) {
    let began = clock::now();
    while client.value(READ).await != "t" {
        assert!(clock::now().since(began) < Duration::from_mins(1), "no standby answers");
        pgsteer::timer::sleep(Duration::from_millis(20)).await;
    }
}

fn house() -> House {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    let primary = house.server("primary");
    primary.rows("CREATE ROLE strict LOGIN").unwrap();
    primary.rows("ALTER ROLE strict SET default_transaction_isolation = 'serializable'").unwrap();
    house.await_catalog();
    house
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_serializable_by_default_runs_on_the_primary() {
    let house = house();
    for (user, name, value) in [
        ("postgres", "options", "-c default_transaction_isolation=serializable"),
        ("postgres", "default_transaction_isolation", "SERIALIZABLE"),
        ("strict", "application_name", "app"),
        ("strict", "work_mem", "5MB"),
    ] {
        for _ in 0..2 {
            let login = [("user", user), ("database", "postgres"), (name, value)];
            let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
            reads_on_the_primary(&mut client, value).await;
            client.leave().await;
        }
    }
    for (set, back) in [
        (
            "SET default_transaction_isolation = 'serializable'",
            "RESET default_transaction_isolation",
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ),
        ("SELECT set_config('default_transaction_isolation', 'serializable', false)", "RESET ALL"),
    ] {
        let mut client = Raw::enter(&house).await;
        await_standby(&mut client).await;
        assert_eq!(client.query(set).await.code(), None, "{set}");
        reads_on_the_primary(&mut client, set).await;
        // The opposite.
        assert_eq!(client.query(back).await.code(), None, "{back}");
        await_standby(&mut client).await;
        client.leave().await;
    }
}
