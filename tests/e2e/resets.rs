//! `RESET` within a transaction: it goes back to what the client gave at its login.

use crate::raw::{Raw, bind, execute, parse, sync};
use crate::support::{Blueprint, House};

const LOGIN: [(&str, &str); 6] = [
    ("user", "postgres"),
    ("database", "postgres"),
    ("DateStyle", "German"),
    ("TimeZone", "Asia/Tokyo"),
    ("search_path", "Public, \"$user\", \"B, c\""),
    ("options", "-c work_mem=7MB -c app.tenant=7"),
];

const SHOWN: &str = "SELECT pg_catalog.concat_ws(' ', current_setting('work_mem'), \
                     current_setting('datestyle'), current_setting('timezone'), \
                     current_setting('search_path'), current_setting('app.tenant'))";

/// As a server shows what was given.
const GIVEN: &str = "7MB German, DMY Asia/Tokyo public, \"$user\", \"B, c\" 7";

fn house(mode: &str) -> House {
    Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.size", "1")
        .set("pool.mode", mode)
        .build()
}

async fn enter(house: &House) -> Raw {
    Raw::connect(house.proxy.address(), &LOGIN).await.unwrap()
}

/// What it began with was given as another text.
async fn shown(client: &mut Raw) -> String {
    client.value(SHOWN).await.replace("Public", "public")
}

const SET: &str = "SET work_mem = '9MB'; SET datestyle = 'SQL, MDY'; SET timezone = 'UTC'; \
                   SET search_path = pg_catalog; SET app.tenant = '8'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_a_transaction_it_goes_back_to_the_login_too() {
    const OTHER: &str = "9MB SQL, MDY UTC pg_catalog 8";
    for mode in ["session", "transaction"] {
        let house = house(mode);
        let mut client = enter(&house).await;
        assert_eq!(shown(&mut client).await, GIVEN, "{mode}");
        for end in ["COMMIT", "ROLLBACK"] {
            client.query(SET).await;
            client.query("BEGIN").await;
            client.query("RESET ALL").await;
            assert_eq!(shown(&mut client).await, GIVEN, "{mode} {end}");
            assert_eq!(client.params["DateStyle"], "German, DMY", "{mode}");
            assert_eq!(client.params["TimeZone"], "Asia/Tokyo", "{mode}");
            client.query(end).await;
            let expected = if end == "COMMIT" { GIVEN } else { OTHER };
            assert_eq!(shown(&mut client).await, expected, "{mode} {end}");
        }
        client.query("BEGIN").await;
        for (name, value) in [
            ("work_mem", "7MB"),
            ("datestyle", "German, DMY"),
            ("timezone", "Asia/Tokyo"),
            ("search_path", "public, \"$user\", \"B, c\""),
            ("app.tenant", "7"),
        ] {
            for reset in [
                format!("RESET {name}"),
                format!("SET {name} TO DEFAULT"),
                format!("SET LOCAL {name} TO DEFAULT"),
            ] {
                client.query(SET).await;
                client.query(&reset).await;
                assert_eq!(client.value(&format!("SHOW {name}")).await, value, "{mode} {reset}");
            }
        }
        client.query("ROLLBACK").await;
        assert_eq!(shown(&mut client).await, OTHER, "{mode}: what was local is gone");
    }
}

/// Whatever comes between counts, and comes behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_behind_it_counts_and_what_is_undone_does_not() {
    let house = house("transaction");
    let mut client = enter(&house).await;
    let work_mem = "SHOW work_mem";
    client.query("SET work_mem = '9MB'").await;
    client.query("BEGIN").await;
    client.query("RESET work_mem").await;
    client.query("SET work_mem = '5MB'").await;
    assert_eq!(client.value(work_mem).await, "5MB");
    client.query("SAVEPOINT a").await;
    client.query("RESET work_mem").await;
    assert_eq!(client.value(work_mem).await, "7MB");
    client.query("ROLLBACK TO a").await;
    assert_eq!(client.value(work_mem).await, "5MB");
    client.query("RESET work_mem; SET work_mem = '6MB'").await;
    assert_eq!(client.value(work_mem).await, "6MB", "it has set it again in the same text");
    client.query("SAVEPOINT b").await;
    client.query("RESET work_mem").await;
    assert_eq!(client.query("SELECT 1 / 0").await.code().as_deref(), Some("22012"));
    client.query("ROLLBACK TO b").await;
    assert_eq!(client.value(work_mem).await, "6MB");
    client.query("ROLLBACK").await;
    assert_eq!(client.value(work_mem).await, "9MB");

    client.query("BEGIN").await;
    client.query("SET LOCAL work_mem = '5MB'").await;
    client.query("SET LOCAL work_mem TO DEFAULT").await;
    assert_eq!(client.value(work_mem).await, "7MB");
    client.query("COMMIT").await;
    assert_eq!(client.value(work_mem).await, "9MB");

    client.query("BEGIN").await;
    client.query("RESET work_mem").await;
    client.query("COMMIT AND CHAIN").await;
    assert_eq!(client.value(work_mem).await, "7MB", "in the one behind it");
    client.query("COMMIT").await;
    client.query("SET work_mem = '9MB'").await;

    for sql in ["BEGIN", "RESET work_mem"] {
        client.send(&[parse("", sql), bind("", &[]), execute(), sync()].concat()).await;
        client.ready().await;
    }
    assert_eq!(client.value(work_mem).await, "7MB", "by the protocol, too");
    client.query("COMMIT").await;
}

/// A statement of ours that takes a snapshot would settle both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transaction_can_still_say_how_it_is_isolated() {
    let house = house("transaction");
    let mut client = enter(&house).await;
    client.query("BEGIN").await;
    client.query("RESET ALL").await;
    let answer = client.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
    assert_eq!(answer.code(), None);
    assert_eq!(client.value("SHOW transaction_isolation").await, "serializable");
    client.query("COMMIT").await;
}

/// A transaction that has done nothing yet goes on on another backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_backend_is_lost_has_the_logins_values_on_the_next() {
    let house = house("transaction");
    let mut client = enter(&house).await;
    for said in [
        vec!["RESET work_mem"],
        vec!["RESET work_mem", "SET LOCAL app.tenant = '9'"],
        vec!["RESET work_mem", "RESET datestyle"],
        vec!["SET LOCAL work_mem TO DEFAULT", "SET TRANSACTION READ ONLY"],
    ] {
        client.query("SET work_mem = '9MB'; SET datestyle = 'SQL, MDY'").await;
        client.query("BEGIN").await;
        for sql in &said {
            client.query(sql).await;
        }
        let end = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity \
                   WHERE state = 'idle in transaction' AND datname = 'postgres'";
        assert_eq!(house.server("primary").value(end).unwrap(), "t");
        assert_eq!(client.value("SHOW work_mem").await, "7MB", "{said:?}");
        client.query("ROLLBACK").await;
        assert_eq!(client.value("SHOW work_mem").await, "9MB", "{said:?}");
    }
}

/// What it said on its standby is said again at the primary, and ours with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_moves_to_the_primary_has_the_logins_values_there() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    let sql = "CREATE FUNCTION volatile() RETURNS text LANGUAGE sql VOLATILE AS \
               'SELECT pg_is_in_recovery() || '' '' || current_setting(''work_mem'') || '' '' || \
               current_setting(''datestyle'')'";
    house.server("primary").rows(sql).unwrap();
    house.await_catalog();
    let mut client = enter(&house).await;
    for between in ["", "RESET datestyle"] {
        client.query("SET work_mem = '9MB'; SET datestyle = 'SQL, MDY'").await;
        client.query("BEGIN READ ONLY").await;
        client.query("RESET work_mem").await;
        client.query(between).await;
        let datestyle = if between.is_empty() { "SQL, MDY" } else { "German, DMY" };
        let told = client.value("SELECT volatile()").await;
        assert_eq!(told, format!("false 7MB {datestyle}"), "{between}");
        client.query("ROLLBACK").await;
    }
}
