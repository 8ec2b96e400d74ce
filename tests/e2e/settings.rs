//! Settings that no probe lists, and what depends on settings without being one.

use crate::raw::{Raw, bind, execute, parse};
use crate::support::{Blueprint, House, await_that};
use pgsteer::clock;
use pgsteer::sandbox::eventually;
use std::time::Duration;

/// A primary alone with one backend for everybody.
fn house(mode: &str) -> House {
    Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.size", "1")
        .set("pool.mode", mode)
        .build()
}

/// A function that sets what the text of its call does not tell.
async fn teach(client: &mut Raw) {
    let sql = "CREATE FUNCTION enter(name text) RETURNS text VOLATILE LANGUAGE plpgsql \
               AS $$ BEGIN RETURN set_config('app.name', name, false); END $$";
    client.value(sql).await;
}

/// Until the proxy knows the function: of what it does not know it expects the worst.
fn await_catalog(house: &House) {
    let known = || {
        let said = house.http("/route?sql=SELECT%20enter(NULL)").body;
        said.contains("the function is volatile").then_some(())
    };
    eventually(Duration::from_secs(30), known).expect("the catalog was never loaded");
}

/// In session mode nobody else gets the backend, so nothing on it is to be reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_takes_no_settings_away_in_session_mode() {
    let house = house("session");
    let mut client = Raw::enter(&house).await;
    teach(&mut client).await;
    client.query("SET work_mem = '8MB'").await;
    assert_eq!(client.value("SELECT enter('me')").await, "me");
    assert_eq!(client.value("SHOW work_mem").await, "8MB");
    assert_eq!(client.value("SELECT current_setting('app.name')").await, "me");
    client.leave().await;
    let mut next = Raw::enter(&house).await;
    assert_eq!(next.value("SELECT current_setting('app.name', true)").await, "");
    assert_eq!(next.value("SHOW work_mem").await, "4MB");
}

/// What a function has set while the session was pinned is taken away when the pin goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pinned_session_left_reaches_nobody_when_the_pin_goes() {
    let house = house("transaction");
    let mut client = Raw::enter(&house).await;
    teach(&mut client).await;
    await_catalog(&house);
    let backend = client.value("SELECT pg_backend_pid()").await;
    client.query("BEGIN").await;
    client.query("DECLARE held CURSOR WITH HOLD FOR SELECT 1").await;
    client.query("COMMIT").await;
    assert_eq!(client.value("SELECT enter('me')").await, "me");
    assert_eq!(client.query("CLOSE held").await.code(), None);
    // Nothing that names the setting has run so far, so nobody could know of it.
    let mut next = Raw::enter(&house).await;
    assert_eq!(next.value("SELECT pg_backend_pid()").await, backend, "or nothing is tested");
    assert_eq!(next.value("SELECT current_setting('app.name', true)").await, "");
}

/// A server reads `'2024-01-01 00:00'::timestamptz` when it is prepared, and keeps that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_constant_is_read_in_its_own_sessions_time_zone() {
    let house = house("transaction");
    let zones = [("Asia/Tokyo", "1704034800"), ("America/New_York", "1704085200")];
    let mut clients = Vec::new();
    for (zone, expected) in zones {
        let login = [("user", "postgres"), ("database", "postgres"), ("TimeZone", zone)];
        let client = Raw::connect(house.proxy.address(), &login).await.unwrap();
        clients.push((client, expected));
    }
    let sql = "SELECT extract(epoch FROM '2024-01-01 00:00'::timestamptz)::int";
    for (client, _) in &mut clients {
        assert_eq!(client.batch(&[parse("s", sql)]).await.tags(), "1Z");
    }
    for _ in 0..3 {
        for (client, expected) in &mut clients {
            assert_eq!(client.batch(&[bind("s", &[]), execute()]).await.value(), *expected);
        }
    }
    // Set for one transaction only, and prepared in it.
    let [(tokyo, in_tokyo), (new_york, in_new_york)] = clients.as_mut_slice() else { panic!() };
    let sql = format!("{sql} + 0");
    tokyo.query("BEGIN").await;
    tokyo.query("SET LOCAL TimeZone = 'UTC'").await;
    let run = [parse("local", &sql), bind("local", &[]), execute()];
    assert_eq!(tokyo.batch(&run).await.value(), "1704067200");
    tokyo.query("COMMIT").await;
    assert_eq!(new_york.batch(&run).await.value(), *in_new_york);
    let run = [parse("again", &sql), bind("again", &[]), execute()];
    assert_eq!(tokyo.batch(&run).await.value(), *in_tokyo);
}

/// What a client is told at its login is what the server itself would tell it, its own startup
/// settings included, in either mode.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_told_what_the_server_would_tell() {
    for mode in ["session", "transaction"] {
        let house = house(mode);
        let login = [
            ("user", "postgres"),
            ("database", "postgres"),
            ("DateStyle", "Postgres, MDY"),
            ("application_name", "mine"),
        ];
        let direct = house.server("primary").address().parse().unwrap();
        let expected = Raw::connect(direct, &login).await.unwrap().params;
        let told = Raw::connect(house.proxy.address(), &login).await.unwrap().params;
        assert_eq!(told, expected, "{mode}");
        assert_eq!(told["DateStyle"], "Postgres, MDY", "{mode}");
    }
}

/// What a client gives at its login is refused in the server's own words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_refused_as_by_the_server() {
    for mode in ["transaction", "session"] {
        let house = house(mode);
        let server = house.server("primary");
        server.rows("CREATE ROLE low LOGIN").unwrap();
        for (user, name, value, code) in [
            ("postgres", "options", "-c nosuch=1", "42704"),
            ("postgres", "work_mem", "what", "22023"),
            ("postgres", "work_mem", "1XB", "22023"),
            ("postgres", "port", "5", "55P02"),
            ("low", "log_statement", "all", "42501"),
        ] {
            let login = [("user", user), ("database", "postgres"), (name, value)];
            let told = Raw::connect(house.proxy.address(), &login).await.unwrap_err();
            let direct = server.address().parse().unwrap();
            let expected = Raw::connect(direct, &login).await.unwrap_err();
            assert_eq!(told.code().as_deref(), Some(code), "{mode}: {told:?}");
            for field in *b"SVCMH" {
                assert_eq!(told.field(field), expected.field(field), "{mode}: {name} {value}");
            }
        }
    }
}

/// What one session drew from a sequence is not told to the next; within a transaction, or a text,
/// it is told as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_drew_from_a_sequence_is_not_told() {
    let house = house("transaction");
    let (mut one, mut two) = (Raw::enter(&house).await, Raw::enter(&house).await);
    one.query("CREATE SEQUENCE s").await;
    assert_eq!(one.value("SELECT nextval('s')").await, "1");
    for sql in ["SELECT currval('s')", "SELECT lastval()"] {
        assert_eq!(two.query(sql).await.code().as_deref(), Some("55000"), "{sql}");
        let prepared = [parse("", sql), bind("", &[]), execute()];
        assert_eq!(two.batch(&prepared).await.code().as_deref(), Some("55000"), "{sql}");
    }
    one.query("BEGIN").await;
    assert_eq!(one.value("SELECT nextval('s')").await, "2");
    assert_eq!(one.value("SELECT currval('s')").await, "2");
    one.query("COMMIT").await;
    let both = two.query("SELECT nextval('s'); SELECT lastval()").await;
    assert_eq!(both.rows(), [[Some("3".to_owned())], [Some("3".to_owned())]]);
}

/// Whatever is in the temporary schema keeps its session, and is seen by nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_objects_of_any_kind_stay_with_their_session() {
    let made = [
        "CREATE STATISTICS pg_temp.mine ON a, b FROM data",
        "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE pg_temp.mine AS ENUM ('x')",
        "CREATE TEXT SEARCH DICTIONARY pg_temp.mine (template = simple)",
        "CREATE OPERATOR pg_temp.=== (leftarg = int, rightarg = int, function = int4eq)",
    ];
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2").build();
    let mut other = Raw::enter(&house).await;
    other.query("CREATE TABLE data (a int, b int)").await;
    for sql in made {
        let mut maker = Raw::enter(&house).await;
        assert_eq!(maker.query(sql).await.code(), None, "{sql}");
        let pid = maker.value("SELECT pg_backend_pid()").await;
        let theirs = other.value("SELECT pg_backend_pid()").await;
        assert_ne!(pid, theirs, "{sql}: its backend is its own");
        assert_eq!(maker.value("SELECT pg_backend_pid()").await, pid, "{sql}");
        maker.leave().await;
    }
}

/// `RESET` goes back to what the client gave at its login, also where the session keeps its
/// backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_goes_back_to_the_login() {
    for (mode, pin) in [("session", ""), ("transaction", ""), ("transaction", "LISTEN here")] {
        let house = house(mode);
        let login = [
            ("user", "postgres"),
            ("database", "postgres"),
            ("DateStyle", "German"),
            ("options", "-c work_mem=7MB"),
        ];
        let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
        client.query(pin).await;
        let null =
            "SELECT set_config('datestyle', NULL, false), set_config('work_mem', NULL, false)";
        for reset in ["RESET datestyle; RESET work_mem", "RESET ALL", "DISCARD ALL", null] {
            client.query("SET datestyle = 'SQL, MDY'").await;
            client.query("SET work_mem = '9MB'").await;
            client.query(reset).await;
            assert_eq!(client.value("SHOW work_mem").await, "7MB", "{mode} {pin} {reset}");
            assert_eq!(client.value("SHOW datestyle").await, "German, DMY", "{mode} {pin} {reset}");
            assert_eq!(client.params["DateStyle"], "German, DMY", "{mode} {pin} {reset}");
        }
    }
}

/// So it does where nobody has read that it is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_what_is_not_read_goes_back_to_the_login_too() {
    let pins = ["", "SELECT pg_advisory_lock(1)"];
    for (mode, pin) in [("session", ""), ("transaction", pins[0]), ("transaction", pins[1])] {
        let house = house(mode);
        let options = "-c search_path=tenant_a -c work_mem=7MB -c app.x=mine";
        let login = [("user", "postgres"), ("database", "postgres"), ("options", options)];
        let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
        client.query(pin).await;
        let resets = "RESET search_path; RESET work_mem;";
        let function = format!(
            "CREATE FUNCTION public.resets() RETURNS int LANGUAGE plpgsql AS \
             'BEGIN {resets} RETURN 1; END'"
        );
        client.value(&function).await;
        let long = format!("{resets} SELECT '{}'", "x".repeat(100_000));
        for reset in [
            format!("DO 'BEGIN {resets} END'"),
            "SELECT public.resets()".to_owned(),
            "DO 'BEGIN RESET ALL; END'".to_owned(),
            long,
        ] {
            let what = format!("{mode} {pin} {reset:.60}");
            client.query("SET work_mem = '9MB'").await;
            assert_eq!(client.query(&reset).await.code(), None, "{what}");
            assert_eq!(client.value("SHOW search_path").await, "tenant_a", "{what}");
            assert_eq!(client.value("SHOW work_mem").await, "7MB", "{what}");
        }
        // What was rolled back, or was for a transaction only, changes nothing.
        client.query("SET work_mem = '9MB'").await;
        for passing in [
            format!("BEGIN; DO 'BEGIN {resets} END'; ROLLBACK"),
            "BEGIN; SET LOCAL work_mem = '8MB'; DO 'BEGIN END'; COMMIT".to_owned(),
            "BEGIN; DO 'BEGIN SET LOCAL work_mem TO DEFAULT; END'; COMMIT".to_owned(),
        ] {
            assert_eq!(client.query(&passing).await.code(), None, "{mode} {pin} {passing}");
            assert_eq!(client.value("SHOW work_mem").await, "9MB", "{mode} {pin} {passing}");
            assert_eq!(client.value("SHOW search_path").await, "tenant_a", "{mode} {passing}");
        }
        // Nor is what was set behind it taken away.
        client.query("DO 'BEGIN RESET work_mem; SET work_mem = ''5MB''; END'").await;
        assert_eq!(client.value("SHOW work_mem").await, "5MB", "{mode} {pin}");
    }
}

/// Texts of some sessions are never read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_of_a_session_whose_texts_are_not_read_goes_back_to_the_login() {
    for (name, value) in [("standard_conforming_strings", "off"), ("client_encoding", "SJIS")] {
        for (mode, pin) in [("session", 0), ("transaction", 0), ("transaction", 1)] {
            let house = house(mode);
            let mut given = vec![("user", "postgres"), ("database", "postgres"), (name, value)];
            given.extend([("search_path", "tenant_a"), ("work_mem", "7MB")]);
            let mut client = Raw::connect(house.proxy.address(), &given).await.unwrap();
            if pin == 1 {
                client.query("SELECT pg_advisory_lock(1)").await;
            }
            let own = format!("RESET {name}");
            for reset in ["RESET search_path", own.as_str(), "RESET ALL", "DISCARD ALL"] {
                let what = format!("{mode} {pin} {name} {reset}");
                assert_eq!(client.query(reset).await.code(), None, "{what}");
                assert_eq!(client.value("SHOW search_path").await, "tenant_a", "{what}");
                assert_eq!(client.value("SHOW work_mem").await, "7MB", "{what}");
                assert_eq!(client.value(&format!("SHOW {name}")).await, value, "{what}");
                assert_eq!(client.params[name], value, "{what}");
            }
        }
    }
}

/// A setting under a name that only the server has seen stays with its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_under_a_computed_name_stays_with_its_session() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2").build();
    let (mut one, mut two) = (Raw::enter(&house).await, Raw::enter(&house).await);
    let set = "SELECT set_config('app.' || word, 'mine', false) FROM (VALUES ('hidden')) v (word)";
    assert_eq!(one.value(set).await, "mine");
    let shown = "SELECT current_setting('app.' || 'hid' || 'den', true)";
    for _ in 0..5 {
        assert_eq!(two.value(shown).await, "");
        assert_eq!(one.value(shown).await, "mine");
    }
}

/// Who acts as another user does so alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_session_user_stays_with_its_session() {
    let house = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2").build();
    let (mut one, mut two) = (Raw::enter(&house).await, Raw::enter(&house).await);
    one.query("CREATE ROLE app LOGIN").await;
    assert_eq!(one.query("SET SESSION AUTHORIZATION app").await.code(), None);
    for _ in 0..5 {
        assert_eq!(two.value("SELECT session_user").await, "postgres");
        assert_eq!(one.value("SELECT session_user").await, "app");
    }
    one.leave().await;
    for mut next in [Raw::enter(&house).await, Raw::enter(&house).await] {
        assert_eq!(next.value("SELECT session_user").await, "postgres");
        next.query("BEGIN").await;
    }
}

/// A session is not held at a standby for what it leaves there; nobody else finds it either.
#[test]
fn what_is_left_on_a_standby_ends_with_its_backend() {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    house.await_catalog();
    let standby = house.server("standby1");
    let mut wire = house.wire();
    for sql in ["SELECT pg_advisory_lock(7)", "SELECT pg_advisory_lock(8)"] {
        wire.run(&format!("{sql} /* pgsteer: role=standby */"));
        assert!(standby.logged(sql) > 0, "it ran there");
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid IN (7, 8)";
        standby.await_value(held, "0", "rid of the lock").unwrap();
    }
}

/// Ways to ask what was drawn from the sequence `s` without saying so in the text, or after the
/// backend was taken.
const ASKED_BEHIND: [(&str, &str); 4] = [
    ("", "INSERT INTO by_default DEFAULT VALUES RETURNING drawn"),
    ("", "INSERT INTO by_trigger VALUES (0) RETURNING drawn"),
    ("", "SELECT drawn()"),
    ("BEGIN; SELECT 1", "SELECT currval('s')"),
];

/// What the second of two clients is told after the first has drawn; `None`: a number.
async fn asks_behind(house: &House) -> Vec<Option<String>> {
    let (mut one, mut two) = (Raw::enter(house).await, Raw::enter(house).await);
    let made = "CREATE SEQUENCE s;
        CREATE FUNCTION drawn() RETURNS bigint LANGUAGE sql AS $$ SELECT currval('s') $$;
        CREATE FUNCTION takes() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.drawn := currval('s'); RETURN NEW; END $$;
        CREATE TABLE by_default (drawn bigint DEFAULT currval('s'));
        CREATE TABLE by_trigger (drawn bigint);
        CREATE TRIGGER t BEFORE INSERT ON by_trigger FOR EACH ROW EXECUTE FUNCTION takes()";
    assert_eq!(one.query(made).await.code(), None);
    let mut codes = Vec::new();
    for (before, sql) in ASKED_BEHIND {
        one.value("SELECT nextval('s')").await;
        two.query(before).await;
        codes.push(two.query(sql).await.code());
        two.query("ROLLBACK").await;
    }
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_drew_is_not_told_to_code_behind_a_statement_either() {
    let house = house("transaction");

    let refused = Some("55000".to_owned());
    assert_eq!(asks_behind(&house).await, vec![refused; ASKED_BEHIND.len()]);
}

/// The opposite: each of them would be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_reset_what_another_drew_is_told() {
    let blueprint = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "1");
    let house = blueprint.set("pool.reset", "off").build();

    assert_eq!(asks_behind(&house).await, vec![None; ASKED_BEHIND.len()]);
}

/// Before PL/pgSQL is loaded a backend takes any setting under its prefix; behind that, since
/// PostgreSQL 15, none that there is not. A server that loads it takes such a one away, and warns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_under_a_prefix_that_is_reserved_elsewhere_is_taken_away_with_a_warning() {
    let house = house("transaction");
    let mut first = Raw::enter(&house).await;
    assert_eq!(first.query("SET plpgsql.nosuch = 'a'").await.code(), None);
    assert_eq!(first.query("SET plpgsql.variable_conflict = 'use_column'").await.code(), None);
    assert_eq!(first.query("SET work_mem = '5MB'").await.code(), None);
    let mut other = Raw::enter(&house).await;
    other.query("DO 'BEGIN END'").await;

    let answer = first.query("SELECT current_setting('plpgsql.nosuch', true)").await;

    assert_eq!(answer.code(), None, "{answer:?}");
    let reserves =
        !["13.", "14."].iter().any(|old| first.params["server_version"].starts_with(old));
    let warned = answer.0.iter().filter(|message| message.tag() == 'N');
    let warned: Vec<_> = warned.map(|message| message.field(b'M').unwrap()).collect();
    if reserves {
        let words = "invalid configuration parameter name \"plpgsql.nosuch\", removing it";
        assert_eq!(warned, [words]);
    } else {
        assert_eq!((answer.value().as_str(), warned.len()), ("a", 0));
    }
    // The others are there still, and it is told once.
    assert_eq!(first.query("SHOW plpgsql.variable_conflict").await.tags(), "TDCZ");
    assert_eq!(first.value("SHOW plpgsql.variable_conflict").await, "use_column");
    assert_eq!(first.value("SHOW work_mem").await, "5MB");
}

/// Backends log in as the user, so its defaults are the servers' business; what a client says at
/// its start goes before them, and `RESET` goes back to that, or to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_of_a_role_and_of_a_database_are_there_and_reset_goes_back_to_them() {
    const LOOK: &str = "SELECT concat_ws('; ', current_setting('work_mem'), \
        current_setting('search_path'), current_setting('lock_timeout'), \
        current_setting('statement_timeout'))";
    const SET: &str = "SET work_mem = '1MB'; SET search_path = b; SET lock_timeout = 0; \
        SET statement_timeout = 0";
    let house = house("transaction");
    for sql in [
        "CREATE ROLE app LOGIN",
        "ALTER ROLE app SET work_mem = '9MB'",
        "ALTER ROLE app SET search_path = a, public",
        "ALTER DATABASE postgres SET lock_timeout = '7s'",
        "ALTER ROLE app IN DATABASE postgres SET statement_timeout = '8min'",
    ] {
        house.server("primary").rows(sql).unwrap();
    }
    let login = [("user", "app"), ("database", "postgres")];
    let with_own = [login[0], login[1], ("options", "-c work_mem=3MB -c lock_timeout=1s")];
    let direct = house.server("primary").address().parse().unwrap();
    for login in [&login[..], &with_own[..]] {
        let mut seen = Vec::new();
        for address in [house.proxy.address(), direct] {
            let mut client = Raw::connect(address, login).await.unwrap();
            let mut other =
                Raw::connect(address, &[("user", "app"), ("database", "postgres")]).await.unwrap();
            let mut looks = vec![client.value(LOOK).await];
            for sql in [SET, "RESET work_mem; RESET search_path", "RESET ALL", SET, "DISCARD ALL"] {
                assert_eq!(client.query(sql).await.code(), None);
                looks.push(client.value(LOOK).await);
                looks.push(other.value(LOOK).await);
            }
            seen.push(looks);
        }
        assert_eq!(seen[0], seen[1]);
        let first =
            if login.len() == 2 { "9MB; a, public; 7s; 8min" } else { "3MB; a, public; 1s; 8min" };
        assert_eq!(seen[0][0], first);
    }
}

/// Backends for a few, one role, and a session that has used them.
async fn with_role(house: &House) -> Raw {
    let server = house.server("primary");
    server.rows("CREATE ROLE tenant LOGIN").unwrap();
    server.rows("CREATE ROLE other LOGIN").unwrap();
    let mut client = Raw::enter_as(house, "tenant").await;
    client.value("SELECT count(*) FROM pg_class").await;
    client
}

/// What a session sees that begins now.
async fn seen_anew(house: &House, setting: &str) -> String {
    let mut client = Raw::enter_as(house, "tenant").await;
    let told = client.params.get(setting).cloned();
    let value = client.value(&format!("SELECT current_setting('{setting}')")).await;
    assert!(told.is_none_or(|told| told == value), "it is told the same at its login");
    client.leave().await;
    value
}

/// `ALTER ROLE ... SET` and its like, through pgsteer: whoever logs in behind it begins so, in
/// either mode, as with a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_begins_after_a_change_of_its_defaults_has_them() {
    for mode in ["transaction", "session"] {
        let house = Blueprint::new()
            .servers(|plan| plan.standbys(0))
            .set("pool.size", "4")
            .set("pool.mode", mode)
            .build();
        with_role(&house).await.leave().await;
        let mut admin = Raw::enter(&house).await;
        for (change, setting, expected) in [
            ("ALTER ROLE tenant SET work_mem = '5MB'", "work_mem", "5MB"),
            ("ALTER USER tenant IN DATABASE postgres SET work_mem TO '6MB'", "work_mem", "6MB"),
            ("ALTER DATABASE postgres SET statement_timeout = '77s'", "statement_timeout", "77s"),
            ("ALTER ROLE ALL SET lock_timeout = '78s'", "lock_timeout", "78s"),
            (
                "BEGIN; ALTER ROLE tenant SET TimeZone = 'Asia/Tokyo'; COMMIT",
                "TimeZone",
                "Asia/Tokyo",
            ),
            ("ALTER ROLE tenant IN DATABASE postgres RESET work_mem", "work_mem", "5MB"),
            ("ALTER ROLE tenant RESET ALL", "work_mem", "4MB"),
        ] {
            seen_anew(&house, setting).await;
            assert_eq!(admin.query(change).await.code(), None, "{change}");
            admin.value("SELECT 1").await;
            assert_eq!(seen_anew(&house, setting).await, expected, "{mode}: {change}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_roles_defaults_close_nobodys_backend() {
    let house = house("transaction");
    let mut client = with_role(&house).await;
    let mine = client.value("SELECT pg_backend_pid()").await;
    let mut admin = Raw::enter(&house).await;
    admin.query("ALTER ROLE other SET work_mem = '5MB'").await;
    admin.query("ALTER ROLE tenant CONNECTION LIMIT 50").await;
    admin.value("SELECT 1").await;
    assert_eq!(client.value("SELECT pg_backend_pid()").await, mine);
    admin.query("ALTER ROLE tenant SET work_mem = '5MB'").await;
    admin.value("SELECT 1").await;
    assert_ne!(client.value("SELECT pg_backend_pid()").await, mine, "the opposite");
}

/// Waits until pgsteer has looked at the roles of a database that is in use once more.
async fn another_look(house: &House) {
    let looks = || house.server("primary").logged("WHERE s.setdatabase = 0");
    // One that is under way now may have asked before; with the beginning of the next but one the
    // next is over.
    let enough = looks() + 2;
    let began = clock::now();
    while looks() < enough {
        assert!(clock::now().since(began) < Duration::from_mins(1), "it looks no more");
        pgsteer::timer::sleep(Duration::from_millis(50)).await;
    }
}

/// Past pgsteer: that is noticed within a few seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_defaults_past_pgsteer_is_noticed() {
    let house = house("transaction");
    let mut client = with_role(&house).await;
    let mine = client.value("SELECT pg_backend_pid()").await;
    // Until the catalog was read once there is nothing to compare with.
    another_look(&house).await;
    let server = house.server("primary");
    server.rows("ALTER ROLE other SET work_mem = '7MB'").unwrap();
    another_look(&house).await;
    assert_eq!(client.value("SELECT pg_backend_pid()").await, mine, "another's: the opposite");
    server.rows("ALTER ROLE tenant SET work_mem = '7MB'").unwrap();
    let began = clock::now();
    while seen_anew(&house, "work_mem").await != "7MB" {
        assert!(clock::now().since(began) < Duration::from_mins(1), "it is not noticed");
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }
}

/// The right to connect is asked for when a backend is opened. Taken away, it counts for those that
/// are there, too, and nobody is who another one of his name was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_connect_no_more_is_served_by_no_backend_that_is_left() {
    let house = house("transaction");
    let mut client = with_role(&house).await;
    let mine = client.value("SELECT pg_backend_pid()").await;
    // Until it was asked once there is nothing to compare with.
    another_look(&house).await;
    let server = house.server("primary");
    server.rows("ALTER ROLE other NOLOGIN; CREATE ROLE more LOGIN; GRANT more TO other").unwrap();
    another_look(&house).await;
    assert_eq!(client.value("SELECT pg_backend_pid()").await, mine, "another's: the opposite");
    for (taken, given, told) in [
        ("ALTER ROLE tenant NOLOGIN", "ALTER ROLE tenant LOGIN", "28000"),
        (
            "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC",
            "GRANT CONNECT ON DATABASE postgres TO PUBLIC",
            "42501",
        ),
        ("ALTER ROLE tenant RENAME TO former", "CREATE ROLE tenant LOGIN", "28000"),
    ] {
        server.rows(taken).unwrap();
        await_answer(&mut client, "SELECT 1", told).await;
        server.rows(given).unwrap();
        await_answer(&mut client, "SELECT session_user", "tenant").await;
    }
    server.rows("ALTER ROLE tenant RENAME TO former2; CREATE ROLE tenant LOGIN").unwrap();
    await_answer(&mut client, "SELECT session_user", "tenant").await;
}

/// Nor where nobody has asked anything since he came: that is seen from the first backend on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_right_to_connect_before_the_first_statement_is_not_served() {
    let house = house("transaction");
    let server = house.server("primary");
    server.rows("CREATE ROLE tenant LOGIN").unwrap();
    server.rows("CREATE DATABASE shop").unwrap();
    let login = [("user", "tenant"), ("database", "shop")];
    let mut client = Raw::connect(house.proxy.address(), &login).await.unwrap();
    let is_read = |line: &str| line.contains("catalog read") && line.contains("shop");
    await_that("somebody watches", || house.proxy.log().lines().any(is_read));
    server.rows("REVOKE CONNECT ON DATABASE shop FROM PUBLIC").unwrap();
    await_answer(&mut client, "SELECT 1", "42501").await;
}

/// Asks until this is the answer, or the code of the error.
async fn await_answer(client: &mut Raw, sql: &str, expected: &str) {
    let began = clock::now();
    loop {
        let answer = client.query(sql).await;
        let heard = answer.code().unwrap_or_else(|| answer.value());
        if heard == expected {
            return;
        }
        let late = clock::now().since(began) > Duration::from_mins(1);
        assert!(!late, "{sql}: {answer:?} in place of {expected}");
        pgsteer::timer::sleep(Duration::from_millis(100)).await;
    }
}

/// Who may do so has every idle backend renewed; who may not is refused, in a transaction or not,
/// and nobody else feels it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_change_defaults_renews_no_backend() {
    const WHERE: &str = "SELECT pg_backend_pid() FROM pg_notify('x', '')";
    let house = house("transaction");
    house.server("primary").rows("CREATE ROLE low LOGIN").unwrap();
    let mut owner = Raw::enter(&house).await;
    let mut low = Raw::enter_as(&house, "low").await;
    let before = owner.value(WHERE).await;
    let change = "ALTER DATABASE postgres SET work_mem = '5MB'";
    for ways in [vec![change], vec!["BEGIN", change, "ROLLBACK"], vec!["BEGIN; SELECT 1", change]] {
        for sql in &ways {
            let expected = (*sql == change).then(|| "42501".to_owned());
            assert_eq!(low.query(sql).await.code(), expected, "{sql}");
        }
        low.query("ROLLBACK").await;
        assert_eq!(owner.value(WHERE).await, before, "{ways:?}");
    }
    owner.query(change).await;
    assert_ne!(owner.value(WHERE).await, before, "it had the right to it");
}

/// Letters are brought to a backend in UTF-8, which not every database can read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_settings_cannot_be_brought_anywhere_is_told_so() {
    let plan = Blueprint::new().servers(|plan| plan.standbys(0));
    let house = plan.unhurried().set("routing.hold_max", "1s").build();
    let sql = "CREATE DATABASE mule ENCODING 'MULE_INTERNAL' LOCALE 'C' TEMPLATE template0";
    house.server("primary").rows(sql).unwrap();
    let login = [("user", "postgres"), ("database", "mule"), ("my.name", "\u{e9}")];
    let refused = Raw::connect(house.proxy.address(), &login).await.unwrap_err();
    assert_eq!(refused.code().as_deref(), Some("57P03"), "{refused:?}");
    let ascii = [("user", "postgres"), ("database", "mule"), ("my.name", "e")];
    let mut client = Raw::connect(house.proxy.address(), &ascii).await.unwrap();
    assert_eq!(client.value("SHOW my.name").await, "e");
}
