//! Calls that don't look like any: behind a dot, as columns do, or by an operator. They are taken
//! for what they are: what they leave on a backend reaches nobody else, and no standby.

use crate::raw::Raw;
use crate::support::{Blueprint, House};
use pgsteer::sandbox::{SUPERUSER, StatementLog};

/// What is left on the backend that answers.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' \
    AND pid = pg_backend_pid()) || ',' || current_setting('work_mem')";

/// Who has the lock at a server, whoever it is.
const LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";

const SETUP: [&str; 5] = [
    "CREATE OPERATOR ### (rightarg = bigint, function = pg_try_advisory_lock)",
    "CREATE AGGREGATE sets(text, boolean) (sfunc = set_config, stype = text, initcond = work_mem)",
    "CREATE FUNCTION sneaks(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS \
     'BEGIN RETURN set_config(''work_mem'', ''1234kB'', false); END'",
    "CREATE TABLE locks (i int, got boolean DEFAULT (### 7::bigint))",
    "CREATE TABLE things AS SELECT 1 AS i",
];

fn house() -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).log(StatementLog::Off))
        .unhurried()
        .any_lag()
        .set("pool.size", "1")
        .build();
    for sql in SETUP {
        house.server("primary").rows(sql).unwrap();
    }
    house.await_catalog();
    house
}

async fn enter(house: &House, options: &str) -> Raw {
    let login = [("user", SUPERUSER), ("database", "postgres"), ("options", options)];
    Raw::connect(house.proxy.address(), &login).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_taken_in_disguise_is_the_primarys_and_its_sessions() {
    let house = house();
    let [primary, standby] = ["primary", "standby1"].map(|name| house.server(name));
    for sql in [
        "SELECT (7).pg_try_advisory_lock",
        "SELECT g.pg_try_advisory_lock FROM generate_series(7, 7) AS g",
        "SELECT generate_series.pg_try_advisory_lock FROM generate_series(7, 7)",
        "SELECT ### 7::bigint",
        "INSERT INTO locks (i) VALUES (1) RETURNING got",
    ] {
        let mut holder = enter(&house, "").await;
        assert_eq!(holder.value(sql).await, "t", "{sql}");
        let mut other = enter(&house, "-c pgsteer.role=standby").await;
        assert_eq!(other.value(LEFT).await, "0,4MB", "{sql}");
        assert_eq!(standby.value(LOCKS).unwrap(), "0", "{sql}");
        assert_eq!(primary.value(LOCKS).unwrap(), "1", "{sql}");
        // The only backend is its session's, which says that nobody has the lock but itself.
        assert_eq!(holder.value(LEFT).await, "1,4MB", "{sql}");
        drop(holder);
        let mut next = enter(&house, "-c pgsteer.role=primary").await;
        assert_eq!(next.value(LEFT).await, "0,4MB", "{sql}");
        // A backend that was closed takes a moment to end at its server.
        primary.await_value(LOCKS, "0", "let go of").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_is_made_in_disguise_is_felt_by_nobody_else() {
    let house = house();
    for (sql, options) in [
        ("SELECT (1).sneaks", "-c pgsteer.role=standby"),
        ("SELECT g.sneaks FROM generate_series(1, 1) AS g", "-c pgsteer.role=standby"),
        ("SELECT (1).sneaks", "-c pgsteer.role=primary"),
        ("SELECT sets('1234kB', false) FROM things", "-c pgsteer.role=primary"),
    ] {
        let mut one = enter(&house, options).await;
        let mut other = enter(&house, options).await;
        one.value(sql).await;
        assert_eq!(other.value(LEFT).await, "0,4MB", "{sql}");
        assert_eq!(one.value("SHOW work_mem").await, "1234kB", "{sql}");
    }
}
