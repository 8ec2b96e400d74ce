//! A server that reads its configuration again tells its clients what has changed for them.

use crate::raw::{Answer, Raw};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::Server;
use pgsteer::wire::message;

/// What is changed, and how the servers spell it when they tell it.
const TOLD: [(&str, &str); 2] = [("timezone", "TimeZone"), ("datestyle", "DateStyle")];

const FIRST: [&str; 2] = ["Asia/Tokyo", "German, DMY"];
const SECOND: [&str; 2] = ["America/New_York", "SQL, MDY"];

fn house(mode: &str) -> House {
    Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.size", "8")
        .set("pool.mode", mode)
        .build()
}

/// Has the server read these values; when this returns each of its processes has been told.
fn reload(server: &Server, values: [&str; 2]) {
    for ((name, _), value) in TOLD.iter().zip(values) {
        server.rows(&format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    }
    server.rows("SELECT pg_reload_conf()").unwrap();
    // Whoever is let in after the others were told begins with the new values.
    for ((name, _), value) in TOLD.iter().zip(values) {
        let shown = format!("SELECT current_setting('{name}')");
        server.await_value(&shown, value, "the new configuration").unwrap();
    }
}

fn believed(client: &Raw) -> [&str; 2] {
    TOLD.map(|(_, name)| &*client.params[name])
}

/// The parameters in an answer.
fn told(answer: &Answer) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let statuses = answer.0.iter().filter(|message| message.tag() == 'S');
    let read = |(name, value): (&[u8], &[u8])| (text(name), text(value));
    statuses.map(|status| read(message::read_parameter_status(&status.0).unwrap())).collect()
}

/// What servers before 14 tell again with each reload, though it has not changed.
const REPEATED: &str = "client_encoding";

/// Runs a statement behind which the client believes these values, and was told no others.
async fn believes_after(client: &mut Raw, sql: &str, values: [&str; 2], what: &str) {
    let repeated = client.params[REPEATED].clone();
    let answer = client.query(sql).await;
    assert_eq!(answer.code(), None, "{what}: {answer:?}");
    assert_eq!(believed(client), values, "{what}, behind {sql}");
    for (name, value) in told(&answer) {
        let expected = TOLD.iter().zip(values).find(|((_, told), _)| **told == *name);
        let expected = expected.map(|(_, value)| value);
        let expected = expected.or((name == REPEATED).then_some(&*repeated));
        assert_eq!(expected, Some(&*value), "{what}: {name}");
    }
}

/// Each client has a backend at once, so that there are as many.
async fn spread(clients: [&mut Raw; 2]) {
    let [one, other] = clients;
    for sql in ["BEGIN", "SELECT 1", "COMMIT"] {
        one.query(sql).await;
        other.query(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_is_told_what_a_reload_has_changed() {
    for mode in ["transaction", "session"] {
        let house = house(mode);
        let server = house.server("primary");
        let direct = server.address().parse().unwrap();
        let login = [("user", "postgres"), ("database", "postgres")];
        let mut alone = Raw::connect(direct, &login).await.unwrap();
        let mut one = Raw::enter(&house).await;
        let mut other = Raw::enter(&house).await;
        let mut third = Raw::enter(&house).await;
        spread([&mut one, &mut other]).await;
        third.query("SELECT 1").await;
        for values in [FIRST, SECOND, FIRST] {
            reload(server, values);
            let what = format!("{mode}, {values:?}");
            believes_after(&mut alone, "SELECT 1", values, "direct").await;
            for client in [&mut one, &mut other, &mut third] {
                believes_after(client, "SELECT 1", values, &what).await;
            }
            // The backend on which nobody has said anything since.
            for sql in ["BEGIN", "SELECT 1", "COMMIT"] {
                for client in [&mut one, &mut other, &mut third] {
                    believes_after(client, sql, values, &what).await;
                }
            }
            for client in [&mut one, &mut other, &mut third] {
                assert_eq!(client.value("SHOW timezone").await, values[0], "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_later_is_told_what_a_reload_has_changed() {
    for mode in ["transaction", "session"] {
        let house = house(mode);
        let server = house.server("primary");
        let given = [("user", "postgres"), ("database", "postgres"), ("work_mem", "7MB")];
        let mut one = Raw::enter(&house).await;
        let mut other = Raw::connect(house.proxy.address(), &given).await.unwrap();
        spread([&mut one, &mut other]).await;
        for values in [FIRST, SECOND] {
            reload(server, values);
            one.query("SELECT 1").await;
            let late = Raw::enter(&house).await;
            let same = Raw::connect(house.proxy.address(), &given).await.unwrap();
            for mut late in [late, same] {
                assert_eq!(believed(&late), values, "{mode}");
                assert_eq!(late.value("SHOW timezone").await, values[0], "{mode}");
                assert_eq!(late.value("SHOW datestyle").await, values[1], "{mode}");
                assert_eq!(believed(&late), values, "{mode}");
            }
        }
    }
}

/// Its own value is nobody else's, and no reload takes it away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_set_a_parameter_is_told_nothing_of_its_default() {
    for mode in ["transaction", "session"] {
        let house = house(mode);
        let server = house.server("primary");
        let login = [("user", "postgres"), ("database", "postgres"), ("TimeZone", "Asia/Kabul")];
        let mut began = Raw::connect(house.proxy.address(), &login).await.unwrap();
        let mut sets = Raw::enter(&house).await;
        let mut plain = Raw::enter(&house).await;
        sets.query("SET timezone = 'Europe/Paris'").await;
        spread([&mut began, &mut sets]).await;
        for values in [FIRST, SECOND] {
            reload(server, values);
            for _ in 0..2 {
                believes_after(&mut began, "SELECT 1", ["Asia/Kabul", values[1]], mode).await;
                believes_after(&mut plain, "SELECT 1", values, mode).await;
                believes_after(&mut sets, "SELECT 1", ["Europe/Paris", values[1]], mode).await;
            }
            spread([&mut began, &mut sets]).await;
            assert_eq!(began.value("SHOW timezone").await, "Asia/Kabul", "{mode}");
            assert_eq!(sets.value("SHOW timezone").await, "Europe/Paris", "{mode}");
        }
        // What becomes the default while a backend carries just that, it does not tell.
        reload(server, ["Europe/Paris", SECOND[1]]);
        sets.query("SELECT 1").await;
        for client in [&mut plain, &mut sets] {
            believes_after(client, "SELECT 1", ["Europe/Paris", SECOND[1]], mode).await;
        }
        reload(server, FIRST);
        believes_after(&mut sets, "SELECT 1", ["Europe/Paris", FIRST[1]], mode).await;
        believes_after(&mut sets, "RESET timezone", FIRST, mode).await;
        believes_after(&mut plain, "SELECT 1", FIRST, mode).await;
    }
}

/// Whose server differs from the others is told what is so there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_configuration_is_believed_where_it_answers() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    let mut client = Raw::enter(&house).await;
    client.query("SELECT 1").await;
    reload(house.server("standby1"), FIRST);
    reload(house.server("primary"), SECOND);
    for _ in 0..3 {
        for (role, values) in [("standby", FIRST), ("primary", SECOND)] {
            let sql = format!("SELECT current_setting('timezone') /* pgsteer: role={role} */");
            believes_after(&mut client, &sql, values, role).await;
            assert_eq!(client.value(&sql).await, values[0], "{role}");
        }
    }
}

/// Has the servers read this, of which their clients learn with what they ask next.
fn reload_all(house: &House, name: &str, value: &str) {
    for server in ["primary", "standby1"].map(|name| house.server(name)) {
        let before = server.value("SELECT clock_timestamp()").unwrap();
        server.rows(&format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
        server.rows("SELECT pg_reload_conf()").unwrap();
        let loaded = format!("SELECT pg_conf_load_time() > '{before}'");
        server.await_value(&loaded, "t", "the new configuration").unwrap();
    }
}

/// Two strings, or one and what stands behind it, if a backslash is the start of an escape.
fn hiding(call: &str) -> String {
    format!("SELECT '\\' || ', {call}, ' --' FROM pg_class LIMIT 1")
}

/// The same, if two bytes of the letter before the backslash and that are a letter of SJIS.
fn hiding_in_letters(call: &str) -> String {
    format!("SELECT E'\u{3043}\\', {call}, ' --' FROM pg_class LIMIT 1")
}

/// A house in which a reload changes what the session's next text is, and sessions of it.
async fn misread_house(name: &str) -> (House, Raw, Raw) {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1))
        .set("pool.size", "2")
        .any_lag()
        .unhurried()
        .build();
    let primary = house.server("primary");
    primary.rows("CREATE TABLE noted (i int)").unwrap();
    primary
        .rows(
            "CREATE FUNCTION note() RETURNS int LANGUAGE sql AS \
             'INSERT INTO noted VALUES (1) RETURNING i'",
        )
        .unwrap();
    house.await_catalog();
    // Outside of a transaction a server turns only to letters that it had to turn to before.
    let login = [("user", "postgres"), ("database", "postgres"), ("client_encoding", "SJIS")];
    let mut letters = Raw::connect(house.proxy.address(), &login).await.unwrap();
    let (mut one, mut other) = (Raw::enter(&house).await, Raw::enter(&house).await);
    let read = "SELECT count(*) > 0 FROM pg_class";
    for role in ["primary", "standby"] {
        for client in [&mut letters, &mut one, &mut other] {
            let sql = format!("/* pgsteer: role={role} */ {read}");
            assert_eq!(client.value(&sql).await, "t");
        }
    }
    letters.leave().await;
    let value = if name == "client_encoding" { "SJIS" } else { "off" };
    reload_all(&house, name, value);
    (house, one, other)
}

/// How a call is hidden in a text.
type Hiding = fn(&str) -> String;

const MISREAD: [(&str, Hiding); 2] =
    [("standard_conforming_strings", hiding), ("client_encoding", hiding_in_letters)];

/// The first text of a session behind a reload is looked at as the session read before: what it
/// takes there stays the session's, and it is taken where it counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_makes_of_a_text_stays_with_its_session() {
    for (name, hiding) in MISREAD {
        let (house, mut one, mut other) = misread_house(name).await;
        let answer = one.query(&hiding("pg_advisory_lock(7)")).await;
        assert_eq!(answer.code(), None, "{name}: {answer:?}");
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";
        let locked = ["primary", "standby1"].map(|name| house.server(name).value(locks).unwrap());
        assert_eq!(locked, ["1", "0"], "{name}");
        let own = format!("{locks} AND pid = pg_backend_pid() /* pgsteer: role=primary */");
        for _ in 0..3 {
            assert_eq!(other.value(&own).await, "0", "{name}");
            assert_eq!(one.value(&own).await, "1", "{name}");
        }
    }
}

/// Likewise a setting: it is the session's, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_makes_of_a_text_is_no_setting_of_another() {
    for (name, hiding) in MISREAD {
        let (_house, mut one, mut other) = misread_house(name).await;
        let hint = "/* pgsteer: role=primary */";
        let sql = hiding("set_config($$work_mem$$, $$99kB$$, false)");
        let answer = one.query(&format!("{hint} {sql}")).await;
        assert_eq!(answer.code(), None, "{name}: {answer:?}");
        for _ in 0..3 {
            let shows = format!("SELECT current_setting('work_mem') {hint}");
            assert_eq!(other.value(&shows).await, "4MB", "{name}");
            assert_eq!(one.value(&shows).await, "99kB", "{name}");
        }
    }
}

/// And a write counts as one: the session reads no less than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_makes_of_a_text_is_read_by_its_session() {
    for (name, hiding) in MISREAD {
        let (house, mut one, _other) = misread_house(name).await;
        house.server("standby1").pause_replay().unwrap();
        let answer = one.query(&hiding("note()")).await;
        assert_eq!(answer.code(), None, "{name}: {answer:?}");
        for _ in 0..3 {
            assert_eq!(one.value("SELECT count(*) FROM noted").await, "1", "{name}");
        }
    }
}
