//! The names of custom settings, which no server lists: what is kept of them is what they are
//! needed for.

use crate::raw::{Raw, bind, execute, flush, parse, query};
use crate::support::{Blueprint, House};
use std::fmt::Write;

/// A primary alone with one backend for everybody.
fn house(rules: &str) -> House {
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "1");
    let house = match rules {
        "" => blueprint.build(),
        rules => blueprint.set("limits.rules", &format!("[{rules}]")).build(),
    };
    house.server("primary").rows("CREATE ROLE app LOGIN").unwrap();
    house
}

/// How often a server was asked for a setting of this name.
fn asked(house: &House, name: &str) -> usize {
    house.server("primary").logged(&format!("'{name}'"))
}

/// Has the backend probed.
async fn probe(client: &mut Raw) {
    client.query("SET work_mem = '5MB'").await;
    // What is asked next comes behind that.
    client.value("SELECT 1").await;
}

/// `SET` of so many names.
fn sets(names: std::ops::Range<u32>) -> String {
    names.fold(String::new(), |mut sql, number| {
        write!(sql, "SET many.n{number} = 1;").unwrap();
        sql
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_of_a_custom_setting_is_forgotten_with_its_value() {
    let house = house("");
    let mut client = Raw::enter_as(&house, "app").await;
    // Only prepared.
    assert_eq!(client.batch(&[parse("", "SET pile.parsed = 1")]).await.tags(), "1Z");
    probe(&mut client).await;
    assert_eq!(asked(&house, "pile.parsed"), 0);
    for (name, sql) in [
        ("pile.rolled_back", "BEGIN; SET pile.rolled_back = 1; ROLLBACK"),
        ("pile.failed", "SET pile.failed = 1; SELECT 1/0"),
        ("pile.reset", "SET pile.reset = 1; RESET pile.reset"),
    ] {
        client.query(sql).await;
        probe(&mut client).await;
        let before = asked(&house, name);
        probe(&mut client).await;
        probe(&mut client).await;
        assert_eq!(asked(&house, name), before, "{sql}");
    }
    // What has a value is asked for each time, or it would be lost.
    client.query("SET pile.kept = 'mine'").await;
    for _ in 0..3 {
        probe(&mut client).await;
    }
    assert!(asked(&house, "pile.kept") >= 3);
    let mut other = Raw::enter_as(&house, "app").await;
    let shown = "SELECT current_setting('pile.kept', true)";
    assert_eq!(other.value(shown).await, "");
    assert_eq!(client.value(shown).await, "mine");
    // So is what was given at the login, for it may be set again.
    let login = [("user", "app"), ("database", "postgres"), ("options", "-c pile.given=1")];
    let mut given = Raw::connect(house.proxy.address(), &login).await.unwrap();
    given.query("RESET pile.given").await;
    assert_eq!(given.value("SHOW pile.given").await, "1");
    given.query("DO $$BEGIN PERFORM set_config('pile.' || 'given', '2', false); END$$").await;
    assert_eq!(given.value("SHOW pile.given").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_settings_beyond_what_is_followed_are_refused() {
    let house = house("");
    let mut client = Raw::enter_as(&house, "app").await;
    let refused = client.query(&sets(0..1001)).await;
    assert_eq!(refused.code().as_deref(), Some("53400"));
    assert_eq!(refused.error().unwrap().field(b'D').unwrap(), "The statement was not sent.");
    // Nothing of it counts.
    assert_eq!(client.query(&sets(0..1000)).await.code(), None);
    assert_eq!(client.query("SET many.n7 = 'seven'").await.code(), None);
    assert_eq!(client.query("SET many.more = 1").await.code().as_deref(), Some("53400"));
    let mut other = Raw::enter_as(&house, "app").await;
    assert_eq!(other.value("SELECT current_setting('many.n7', true)").await, "");
    assert_eq!(client.value("SHOW many.n7").await, "seven");
    assert_eq!(client.value("SHOW many.n999").await, "1");
    assert_eq!(client.query("RESET ALL").await.code(), None);
    assert_eq!(client.query("SET many.more = 'more'").await.code(), None);
    assert_eq!(client.value("SHOW many.more").await, "more");
    // Within a transaction, which fails by it.
    client.query("BEGIN").await;
    assert_eq!(client.query(&sets(0..600)).await.code(), None);
    let refused = client.query(&sets(600..1200)).await;
    assert_eq!((refused.code().as_deref(), refused.status()), (Some("53400"), 'E'));
    assert_eq!(client.query("ROLLBACK").await.status(), 'I');
    assert_eq!(client.query("SET many.again = 'again'").await.code(), None);
    assert_eq!(client.value("SHOW many.again").await, "again");
    assert_eq!(client.value("SHOW many.more").await, "more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_custom_settings_count_as_memory() {
    let house = house(r#"{ user = "app", max_memory = "64kB" }"#);
    let mut client = Raw::enter_as(&house, "app").await;
    client.query("BEGIN").await;
    for letter in ["a", "b", "c"] {
        let name = letter.repeat(30_000);
        let sql = format!("SELECT set_config('x.{name}', '', false)");
        assert_eq!(client.query(&sql).await.code(), None);
    }
    client.send(&query("SELECT 1")).await;
    let last = client.end().await.into_iter().filter_map(|message| message.code()).next_back();
    assert_eq!(last.as_deref(), Some("54000"));
}

/// What pgsteer does between a group's arrival and its sending probes the backend, too: here it
/// listens again, for a session that was told too much at once while it had to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_behind_what_was_missed_goes_to_nobody_else() {
    let house = house("");
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    locker.rows("SELECT pg_advisory_lock(4711)").unwrap();
    let mut client = Raw::enter_as(&house, "app").await;
    let mut witness = Raw::enter_as(&house, "app").await;
    for one in [&mut client, &mut witness] {
        assert_eq!(one.query("LISTEN news").await.code(), None);
    }
    // Both at once: what sets something has come when what it listens to is lost.
    let waits = query("SELECT pg_advisory_xact_lock(4711)");
    client.send(&[waits, query("SET app.tenant = '7'")].concat()).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";
    primary.await_value(waiting, "1", "waiting").unwrap();
    for _ in 0..3 {
        let many = "SELECT count(pg_notify('news', i::text)) FROM generate_series(1, 400) AS i";
        primary.rows(many).unwrap();
        for _ in 0..400 {
            witness.until('A').await;
        }
    }
    locker.rows("SELECT pg_advisory_unlock(4711)").unwrap();
    client.ready().await;
    let answer = client.ready().await;
    assert!(answer.tags().contains('N'), "it is told that it missed something: {answer:?}");

    let shown = "SELECT current_setting('app.tenant', true)";
    assert_eq!(witness.value(shown).await, "");
    assert_eq!(client.value(shown).await, "7");
}

/// A batch whose beginning is on a standby, and is taken from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_leaves_a_standby_goes_to_nobody_else() {
    let house = Blueprint::new().set("pool.size", "1").unhurried().any_lag().build();
    house.server("primary").rows("CREATE TABLE made (i int)").unwrap();
    house.await_catalog();
    let mut client = Raw::enter(&house).await;
    assert_eq!(
        client.value("SELECT pg_is_in_recovery() FROM pg_class LIMIT 1").await,
        "t",
        "reads leave the primary"
    );
    client.send(&[parse("s", "SET app.tenant = '7'"), flush()].concat()).await;
    client.until('1').await;
    let write = [parse("", "INSERT INTO made VALUES (1)"), bind("", &[]), execute()].concat();
    let answer = client.batch(&[bind("s", &[]), execute(), write]).await;
    assert_eq!(answer.code(), None, "{answer:?}");

    let shown = "/* pgsteer: role=primary */ SELECT current_setting('app.tenant', true)";
    let mut other = Raw::enter(&house).await;
    assert_eq!(other.value(shown).await, "");
    assert_eq!(client.value(shown).await, "7");
}
