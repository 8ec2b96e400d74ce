//! `RESET` within a transaction: it goes back to what the client gave at its login.

use crate::raw::{Raw, bind, execute, parse, sync};
use crate::support::{Blueprint, House, end_backends};

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

/// The same login, with this besides.
async fn enter_with(house: &House, option: &str) -> Raw {
    let options = format!("-c work_mem=7MB -c app.tenant=7 {option}");
    let login = LOGIN.map(|(name, value)| match name {
        "options" => (name, options.as_str()),
        _ => (name, value),
    });
    Raw::connect(house.proxy.address(), &login).await.unwrap()
}

/// Ends the backend that the client has.
fn lose_backend(house: &House) {
    let which = "state = 'idle in transaction' AND application_name NOT LIKE 'pgsteer%'";
    assert_eq!(end_backends(house.server("primary"), which), 1);
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
        lose_backend(&house);
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

/// To a server a setting of one's own that was reset shows as one that was emptied: which it was is
/// known by what was said, where the backend was not told the login's value of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_emptied_beside_it_stays_empty() {
    let house = house("transaction");
    let mut client = enter(&house).await;
    let tenant = "SELECT current_setting('app.tenant')";
    for said in [
        vec!["BEGIN", "RESET app.tenant", "SET app.tenant = ''", "COMMIT"],
        vec!["BEGIN", "RESET app.tenant", "SELECT 1", "SET app.tenant = ''", "COMMIT"],
        vec!["RESET app.tenant; SET app.tenant = ''"],
        vec!["RESET ALL; SET app.tenant = ''"],
        vec!["SET app.tenant = ''", "BEGIN", "RESET app.tenant", "ROLLBACK"],
        vec!["SET app.tenant = ''", "BEGIN", "RESET ALL", "ROLLBACK"],
        vec!["SET app.tenant = ''", "BEGIN", "RESET app.tenant", "SELECT 1", "ROLLBACK"],
        vec![
            "SET app.tenant = ''",
            "BEGIN",
            "SAVEPOINT a",
            "RESET app.tenant",
            "ROLLBACK TO a",
            "COMMIT",
        ],
        vec!["SET app.tenant = ''", "BEGIN", "SELECT 1 / 0", "RESET app.tenant", "ROLLBACK"],
        vec!["SET app.tenant = ''", "RESET app.tenant; SELECT 1 / 0"],
        vec![
            "SET app.tenant = ''",
            "BEGIN",
            "SET LOCAL app.tenant TO DEFAULT; SET work_mem = '9MB'",
            "COMMIT",
        ],
    ] {
        client.query("RESET app.tenant").await;
        assert_eq!(client.value(tenant).await, "7", "before {said:?}");
        for sql in &said {
            client.query(sql).await;
        }
        assert_eq!(client.value(tenant).await, "", "{said:?}");
    }
    for said in ["RESET app.tenant", "SET app.tenant = ''; RESET app.tenant", "RESET ALL"] {
        client.query("SET app.tenant = ''").await;
        client.query(&format!("BEGIN; {said}; COMMIT")).await;
        assert_eq!(client.value(tenant).await, "7", "{said}");
    }
    // Only prepared.
    client.query("SET app.tenant = ''").await;
    client.query("BEGIN").await;
    client.send(&[parse("", "RESET app.tenant"), sync()].concat()).await;
    client.ready().await;
    client.query("SET work_mem = '9MB'; COMMIT").await;
    assert_eq!(client.value(tenant).await, "");
}

/// The role of the moment may lack the right to what the one that logged in gave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_to_what_was_given_is_the_logins() {
    for mode in ["session", "transaction"] {
        let house = house(mode);
        house.server("primary").rows("CREATE ROLE \"a plain one\"").unwrap();
        let mut client = enter_with(&house, "-c deadlock_timeout=3s").await;
        for role in ["SET LOCAL ROLE \"a plain one\"", "SET ROLE \"a plain one\""] {
            client.query("BEGIN").await;
            client.query(role).await;
            assert_eq!(client.query("RESET ALL").await.code(), None);
            assert_eq!(shown(&mut client).await, GIVEN, "{mode} {role}");
            assert_eq!(client.value("SHOW deadlock_timeout").await, "3s", "{mode} {role}");
            assert_eq!(client.value("SELECT current_user").await, "a plain one", "{mode}");
            client.query("COMMIT").await;
            let expected = if role.contains("LOCAL") { "postgres" } else { "a plain one" };
            assert_eq!(client.value("SELECT current_user").await, expected, "{mode} {role}");
            client.query("RESET ROLE").await;
        }
    }
}

/// What a server refuses, it refuses alone: as another user the session has no more the right to
/// what was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_takes_nothing_else_away() {
    let house = house("transaction");
    house.server("primary").rows("CREATE ROLE plain").unwrap();
    let mut client = enter_with(&house, "-c deadlock_timeout=3s").await;
    client.query("BEGIN").await;
    client.query("SET LOCAL SESSION AUTHORIZATION plain").await;
    assert_eq!(client.query("RESET ALL").await.code(), None);
    assert_eq!(shown(&mut client).await, GIVEN);
    assert_eq!(client.value("SHOW deadlock_timeout").await, "1s", "to the server's default");
    client.query("COMMIT").await;
    assert_eq!(client.value("SHOW deadlock_timeout").await, "3s");
}

/// A lock is in the way of what is told: of a statement that can't have what the login gave it is
/// not known what it would do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_where_there_was_no_time_to_tell() {
    let house = house("transaction");
    let option = "-c default_tablespace=pg_default";
    let server = house.server("primary").address().parse().unwrap();
    let shown = "SELECT current_setting('default_tablespace')";
    for (limit, code) in [("statement_timeout", "57014"), ("lock_timeout", "55P03")] {
        let mut client = enter_with(&house, option).await;
        let mut other = Raw::connect(server, &LOGIN).await.unwrap();
        client.query("BEGIN").await;
        client.query(&format!("SET LOCAL {limit} = '1s'")).await;
        client.query("RESET default_tablespace").await;
        other.query("BEGIN; LOCK TABLE pg_catalog.pg_tablespace").await;
        assert_eq!(client.query(shown).await.code().as_deref(), Some(code), "{limit}");
        assert_eq!(client.query(shown).await.code().as_deref(), Some("25P02"), "{limit}");
        other.query("ROLLBACK").await;
        client.query("ROLLBACK").await;
        client.query("BEGIN").await;
        client.query("RESET default_tablespace").await;
        assert_eq!(client.value(shown).await, "pg_default", "{limit}");
        client.query("COMMIT").await;
    }
}

/// What is bound is not run yet, and is run where it is executed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_bound_has_reset_nothing() {
    let house = house("transaction");
    let mut client = enter(&house).await;
    let work_mem = "SHOW work_mem";
    client.query("BEGIN").await;
    client.query("SET work_mem = '9MB'").await;
    client.send(&[parse("", "RESET work_mem"), bind("", &[]), sync()].concat()).await;
    client.ready().await;
    assert_eq!(client.value(work_mem).await, "9MB");
    client.query("COMMIT").await;
    assert_eq!(client.value(work_mem).await, "9MB");
    // Nor is it said where the transaction begins anew.
    client.query("BEGIN").await;
    client.send(&[parse("", "SET work_mem = '5MB'"), bind("", &[]), sync()].concat()).await;
    client.ready().await;
    lose_backend(&house);
    let answer = client.query(work_mem).await;
    assert_eq!(answer.code().as_deref(), Some("40001"), "what was bound can't be had again");
    client.query("ROLLBACK").await;
}
