//! What a session has set, and a server does not take any more: no statement runs without it, and
//! the session is not lost over it.

use crate::raw::{Message, Raw, bind, execute, flush, parse, query, sync};
use crate::support::{Blueprint, House, await_that, end_backends};

/// A primary alone with one backend for everybody.
fn house() -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.size", "1")
        .set("routing.hold_max", "5s")
        .build();
    for sql in [
        "CREATE ROLE app LOGIN",
        "CREATE ROLE less",
        "CREATE ROLE other",
        "GRANT less, other TO app",
        "CREATE TEXT SEARCH CONFIGURATION mine (COPY = english)",
    ] {
        house.server("primary").rows(sql).unwrap();
    }
    house
}

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), execute()].concat()
}

/// The code of the answer, or its first value.
async fn heard(client: &mut Raw, sql: &str) -> String {
    let answer = client.query(sql).await;
    answer.code().unwrap_or_else(|| answer.value())
}

/// `temp_buffers` can't be changed where a temporary table was ever used: that was another's, and
/// any other backend takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_backend_refuses_for_what_another_did_there_is_brought_to_a_fresh_one() {
    let house = house();
    let mut first = Raw::enter_as(&house, "app").await;
    let mut other = Raw::enter_as(&house, "app").await;
    assert_eq!(first.query("SET temp_buffers = '64MB'").await.code(), None);
    let began = other.value("SELECT pg_backend_pid()").await;
    for sql in ["CREATE TEMP TABLE t AS SELECT 1 AS i", "SELECT i FROM t", "DROP TABLE t"] {
        assert_eq!(other.query(sql).await.code(), None, "{sql}");
    }
    assert_eq!(other.value("SELECT pg_backend_pid()").await, began, "or nothing is tested");

    assert_eq!(heard(&mut first, "SHOW temp_buffers").await, "64MB");

    assert_ne!(first.value("SELECT pg_backend_pid()").await, began);
    assert_eq!(other.value("SHOW temp_buffers").await, "8MB");
    assert_eq!(first.value("SHOW temp_buffers").await, "64MB");
}

/// A session of `app` that has set this, which was then undone on the server; and somebody else
/// has had the backend since.
async fn refused(house: &House, sets: &str, undone: &[&str]) -> Raw {
    let mut client = Raw::enter_as(house, "app").await;
    assert_eq!(client.query(sets).await.code(), None, "{sets}");
    for sql in undone {
        house.server("primary").rows(sql).unwrap();
    }
    let mut other = Raw::enter_as(house, "app").await;
    assert_eq!(other.value("SELECT current_user").await, "app");
    other.leave().await;
    client
}

const REVOKED: [&str; 1] = ["REVOKE less FROM app"];
const GRANTED: &str = "GRANT less TO app";
const WHO: &str = "SELECT current_user";

/// Whoever has taken a lesser role runs nothing with more rights, and learns what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_can_have_a_role_no_more_runs_nothing_without_it_until_it_is_reset() {
    let house = house();
    let ways = [
        ("RESET ROLE", "app"),
        ("SET ROLE NONE", "app"),
        ("SET ROLE other", "other"),
        ("DISCARD ALL", "app"),
        ("SET SESSION AUTHORIZATION DEFAULT", "app"),
    ];
    for (way, expected) in ways {
        for extended in [false, true] {
            let mut client = refused(&house, "SET ROLE less", &REVOKED).await;
            for _ in 0..2 {
                let answer = client.query(WHO).await;
                let error = answer.error().expect("it is refused").clone();
                assert_eq!(error.code().as_deref(), Some("42501"), "{answer:?}");
                let field = |field| error.field(field).unwrap();
                assert!(field(b'M').contains("\"less\""), "the server's words: {}", field(b'M'));
                assert!(field(b'D').contains("role"), "{}", field(b'D'));
                assert!(field(b'H').contains("RESET"), "{}", field(b'H'));
            }
            let answer =
                if extended { client.batch(&[run(way)]).await } else { client.query(way).await };
            assert_eq!(answer.code(), None, "{way}: {answer:?}");
            assert_eq!(heard(&mut client, WHO).await, expected, "{way}");
            client.leave().await;
            house.server("primary").rows(GRANTED).unwrap();
        }
    }
    // What the server takes again is there again.
    let mut client = refused(&house, "SET ROLE less", &REVOKED).await;
    assert_eq!(heard(&mut client, WHO).await, "42501");
    house.server("primary").rows(GRANTED).unwrap();
    assert_eq!(heard(&mut client, WHO).await, "less");
}

/// What does not get rid of the role leaves the session as it was, whether it succeeds or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_reset_a_refused_role_lets_nothing_past_it() {
    let house = house();
    let begins = |sql: &str| [run(sql), flush()].concat();
    let ways: Vec<(Vec<u8>, &str)> = vec![
        (query("RESET ALL"), ""),
        (query("COMMIT"), ""),
        (query("ROLLBACK"), ""),
        (query("SET work_mem = '5MB'"), "42501"),
        (query("SET ROLE nobody_like_it"), "22023"),
        (query("SET LOCAL ROLE other"), "42501"),
        (query("SELECT set_config('role', 'other', false)"), "42501"),
        (query("RESET ROLE; SELECT current_user"), "42501"),
        (query("COMMIT; SELECT current_user"), "42501"),
        (query("BEGIN"), "42501"),
        ([parse("", "RESET ROLE"), sync()].concat(), ""),
        ([begins("COMMIT"), run(WHO), sync()].concat(), "42501"),
        ([begins("RESET ROLE"), run(WHO), sync()].concat(), "42501"),
        ([run("RESET ROLE"), run(WHO), sync()].concat(), "42501"),
    ];
    for (messages, code) in ways {
        let what = String::from_utf8_lossy(&messages).into_owned();
        let mut client = refused(&house, "SET ROLE less", &REVOKED).await;
        assert_eq!(heard(&mut client, WHO).await, "42501", "{what}");
        client.send(&messages).await;
        let answer = client.ready().await;
        assert_eq!(answer.code().unwrap_or_default(), code, "{what}: {answer:?}");
        assert!(answer.rows().is_empty(), "{what}: {answer:?}");
        assert_eq!(heard(&mut client, WHO).await, "42501", "{what}");
        assert_eq!(client.query("RESET ROLE").await.code(), None, "{what}");
        assert_eq!(heard(&mut client, WHO).await, "app", "{what}");
        client.leave().await;
        house.server("primary").rows(GRANTED).unwrap();
    }
}

/// The same for any other setting, and for two at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_setting_that_is_refused_is_reset_and_no_other_is_lost() {
    const SETS: &str = "SET default_text_search_config = 'public.mine'; SET work_mem = '5MB'; \
                        SET ROLE less";
    const SHOWS: &str = "SELECT current_user || ' ' || current_setting('work_mem') || ' ' || \
                         current_setting('default_text_search_config')";
    let house = house();
    let undone = ["ALTER TEXT SEARCH CONFIGURATION mine RENAME TO yours", REVOKED[0]];
    let again = ["ALTER TEXT SEARCH CONFIGURATION yours RENAME TO mine", GRANTED];
    for (ways, expected) in [
        (["RESET ROLE", "RESET default_text_search_config"], "app 5MB pg_catalog.english"),
        (["SET default_text_search_config = 'public.yours'", "RESET ROLE"], "app 5MB public.yours"),
        (["SET ROLE other", "RESET ALL"], "other 4MB pg_catalog.english"),
        (["RESET ALL", "SET ROLE other"], "other 4MB pg_catalog.english"),
    ] {
        let mut client = refused(&house, SETS, &undone).await;
        for way in ways {
            let answer = client.query(SHOWS).await;
            assert!(answer.code().is_some(), "{way}: {answer:?}");
            let answer = client.query(way).await;
            assert_eq!(answer.code(), None, "{way}: {answer:?}");
        }
        let answer = client.query(SHOWS).await;
        assert_eq!(answer.code(), None, "{ways:?}: {answer:?}");
        let default = house.server("primary").value("SHOW default_text_search_config").unwrap();
        let expected = expected.replace("pg_catalog.english", &default);
        assert_eq!(answer.value(), expected, "{ways:?}");
        client.leave().await;
        for sql in again {
            house.server("primary").rows(sql).unwrap();
        }
    }
}

/// A standby does not know yet whom the primary knows: what would be refused there is read at the
/// primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_standby_does_not_know_yet_is_read_at_the_primary() {
    const READ: &str = "SELECT current_user || ' ' || pg_is_in_recovery() FROM items";
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    let primary = house.server("primary");
    for sql in [
        "CREATE TABLE items AS SELECT 1 AS id",
        "GRANT ALL ON items TO PUBLIC",
        "CREATE ROLE app LOGIN",
    ] {
        primary.rows(sql).unwrap();
    }
    house.await_catalog();
    house.cluster.await_replay().unwrap();
    let mut client = Raw::enter_as(&house, "app").await;
    client.query("SET pgsteer.consistency = 'eventual'").await;
    while client.value(READ).await != "app true" {}
    house.server("standby1").pause_replay().unwrap();
    primary.rows("CREATE ROLE late; GRANT late TO app").unwrap();
    assert_eq!(client.query("SET ROLE late").await.code(), None);

    assert_eq!(heard(&mut client, READ).await, "late false");

    house.server("standby1").resume_replay().unwrap();
    house.cluster.await_replay().unwrap();
    while client.value(READ).await != "late true" {}
}

/// A backend that was to listen for a session, and was found to refuse its settings, listens for
/// nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_no_backend_that_listens() {
    let house = house();
    let primary = house.server("primary");
    let mut client = Raw::enter_as(&house, "app").await;
    for sql in ["LISTEN secrets", "SET ROLE less"] {
        assert_eq!(client.query(sql).await.code(), None, "{sql}");
    }
    primary.rows(REVOKED[0]).unwrap();
    // Only where a backend is opened for it.
    assert_eq!(end_backends(primary, "usename = 'app'"), 1);
    assert_eq!(client.query("CREATE TABLE mine (i int)").await.code(), Some("42501".to_owned()));

    let mut other = Raw::enter_as(&house, "app").await;
    assert_eq!(other.value("SELECT count(*) FROM pg_listening_channels()").await, "0");

    // Whom it was to listen for is listened for again, also behind a read.
    primary.rows(GRANTED).unwrap();
    assert_eq!(client.value("SELECT 1").await, "1");
    primary.rows("NOTIFY secrets, 'heard'").unwrap();
    client.until('A').await;
}

/// The backend that was to listen is closed over a setting, and somebody notifies before another
/// one is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_notified_while_another_backend_is_opened_is_told_or_warned_of() {
    let house = house();
    let primary = house.server("primary");
    let mut client = Raw::enter_as(&house, "app").await;
    for sql in ["LISTEN news", "SET temp_buffers = '64MB'"] {
        assert_eq!(client.query(sql).await.code(), None, "{sql}");
    }
    let mut other = Raw::enter_as(&house, "app").await;
    for sql in ["CREATE TEMP TABLE t AS SELECT 1 AS i", "SELECT i FROM t", "DROP TABLE t"] {
        assert_eq!(other.query(sql).await.code(), None, "{sql}");
    }
    // Nobody can log in meanwhile.
    let mut bars = primary.connect("postgres").unwrap();
    let mut notifies = primary.connect("postgres").unwrap();
    bars.rows("BEGIN").unwrap();
    bars.rows("LOCK TABLE pg_db_role_setting IN ACCESS EXCLUSIVE MODE").unwrap();
    client.send(&query("SELECT pg_notify('else', '')")).await;
    let refusal = "cannot be changed after any temporary tables";
    await_that("its backend has refused", || primary.logged(refusal) > 0);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                 AND relation = 'pg_db_role_setting'::regclass";
    await_that("another is opened", || notifies.rows(waits).unwrap()[0][0].as_deref() != Some("0"));
    notifies.rows("NOTIFY news, 'between'").unwrap();
    bars.rows("COMMIT").unwrap();

    let answer = client.ready().await;
    assert_eq!(answer.code(), None, "{answer:?}");
    let mut told = answer.0;
    notifies.rows("NOTIFY news, 'behind'").unwrap();
    let holds = |message: &Message, text: &[u8]| message.0.windows(text.len()).any(|at| at == text);
    while !told.last().is_some_and(|message| holds(message, b"behind")) {
        told.push(client.message().await.expect("it is still there"));
    }
    let warned = |message: &Message| message.tag() == 'N' && holds(message, b"missed");
    let is_told = |message: &Message| message.tag() == 'A' && holds(message, b"between");
    assert!(told.iter().any(|message| warned(message) || is_told(message)), "{told:?}");
}
