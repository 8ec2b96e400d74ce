//! What a session sets, is and has prepared is to it what a server of its own would make of it,
//! also across errors, savepoints and rollbacks: scripts that are played to both. Between any two
//! steps somebody else has the backend, and leaves it otherwise.

use super::alike::{Script, ready, told};
use crate::raw::{Answer, Raw, bind, close, describe, execute, parse, query};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::StatementLog;
use std::net::SocketAddr;

/// Everything that is looked at.
const LOOK: &str = "SELECT current_user, session_user, current_setting('role'), \
    current_setting('work_mem'), current_setting('DateStyle'), coalesce(current_setting('app.x', true), ''), \
    current_setting('statement_timeout'), current_setting('search_path'), \
    current_setting('is_superuser'), \
    current_setting('default_transaction_isolation'), current_setting('transaction_isolation')";

/// One statement a step, and a look behind each.
pub(super) fn looked_at(statements: &[&str]) -> Vec<super::alike::Step> {
    let mut steps = vec![ready(&[query(LOOK)])];
    for sql in statements {
        steps.push(ready(&[query(sql)]));
        steps.push(ready(&[query(LOOK)]));
    }
    steps
}

fn settings() -> Vec<Script> {
    let of = |what, statements: &[&str]| (what, looked_at(statements));
    vec![
        of(
            "set, reset, and set for one transaction",
            &[
                "SET work_mem = '5MB'",
                "BEGIN",
                "SET LOCAL work_mem = '6MB'",
                "SET app.x = 'inside'",
                "COMMIT",
                "BEGIN; SET work_mem = '7MB'; SET LOCAL work_mem = '8MB'",
                "COMMIT",
                "RESET work_mem",
                "SET LOCAL work_mem = '9MB'",
                "SET work_mem = DEFAULT",
                "SET TIME ZONE 'Europe/Paris'; SET TIME ZONE LOCAL",
                "SET app.x TO DEFAULT",
                "RESET app.x",
                "RESET ALL",
            ],
        ),
        of(
            "rolled back, to a savepoint or as a whole",
            &[
                "BEGIN; SET work_mem = '5MB'; SAVEPOINT a; SET work_mem = '6MB'",
                "ROLLBACK TO a",
                "SET app.x = 'behind'; RELEASE a",
                "COMMIT",
                "BEGIN; SAVEPOINT a; SET ROLE r1; SET LOCAL DateStyle = 'German'",
                "SELECT 1/0",
                "ROLLBACK TO a",
                "ROLLBACK",
                "BEGIN; SET work_mem = '7MB'; SELECT 1/0",
                "COMMIT",
                "SET work_mem = '8MB'; SELECT 1/0",
                "SET work_mem = 'nonsense'",
                "BEGIN; SET app.x = 'chained'; SET LOCAL work_mem = '9MB'",
                "COMMIT AND CHAIN",
                "SET app.x = 'gone'",
                "ROLLBACK AND CHAIN",
                "ROLLBACK",
            ],
        ),
    ]
}

fn settings_by_other_ways() -> Vec<Script> {
    let of = |what, statements: &[&str]| (what, looked_at(statements));
    vec![
        of(
            "by a function's name",
            &[
                "SELECT set_config('work_mem', '5MB', false)",
                "SELECT set_config('app.x', 'a', false), set_config('app.x', 'b', true)",
                "BEGIN; SELECT set_config('app.x', 'c', true)",
                "SELECT set_config('app.x', 'd', false)",
                "ROLLBACK",
                "SELECT set_config('role', 'r1', false)",
                "SELECT set_config('role', 'none', false)",
                "SELECT within('z')",
                "UPDATE pg_settings SET setting = '6000' WHERE name = 'work_mem'",
            ],
        ),
        of(
            "of transactions to come",
            &[
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "BEGIN",
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "COMMIT",
                "SET default_transaction_isolation = 'repeatable read'",
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "RESET default_transaction_isolation",
                "DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES",
                "BEGIN; DISCARD ALL",
                "ROLLBACK",
                "SET work_mem = '5MB'",
                "DISCARD ALL",
            ],
        ),
    ]
}

fn users() -> Vec<Script> {
    let of = |what, statements: &[&str]| (what, looked_at(statements));
    vec![
        of(
            "a role",
            &[
                "SET ROLE r1",
                "RESET ALL",
                "SET ROLE nobody_like_it",
                "SET ROLE NONE",
                "SET LOCAL ROLE r1",
                "BEGIN; SET LOCAL ROLE r2",
                "COMMIT",
                "BEGIN; SET ROLE r1; SAVEPOINT a; RESET ROLE",
                "ROLLBACK TO a",
                "COMMIT",
                "SET SESSION ROLE r2",
                "DISCARD ALL",
                "SET ROLE r1; SELECT 1/0",
            ],
        ),
        of(
            "another user",
            &[
                "SET SESSION AUTHORIZATION r1",
                "SET ROLE r2",
                "RESET ALL",
                "RESET SESSION AUTHORIZATION",
                "SET SESSION AUTHORIZATION r2",
                "SET ROLE r1",
                "SET SESSION AUTHORIZATION DEFAULT",
                "BEGIN; SET LOCAL SESSION AUTHORIZATION r1",
                "SELECT 1/0",
                "ROLLBACK",
                "BEGIN; SET SESSION AUTHORIZATION r1",
                "COMMIT",
                "DISCARD ALL",
                "SET ROLE r1; SET SESSION AUTHORIZATION r2; RESET ROLE",
                "SET work_mem = '5MB'; RESET SESSION AUTHORIZATION",
            ],
        ),
    ]
}

fn statements() -> Vec<Script> {
    let run = |name: &str| [bind(name, &[]), execute()].concat();
    let sync = crate::raw::sync;
    vec![
        (
            "SQL and the protocol share the names",
            vec![
                ready(&[query("PREPARE a AS SELECT 'by SQL'")]),
                ready(&[run("a"), sync()]),
                ready(&[describe("a"), sync()]),
                ready(&[parse("b", "SELECT 'by the protocol'"), sync()]),
                ready(&[query("EXECUTE b")]),
                ready(&[query("EXPLAIN (COSTS OFF) EXECUTE b")]),
                ready(&[query("PREPARE b AS SELECT 1")]),
                ready(&[parse("a", "SELECT 1"), sync()]),
                ready(&[query("DEALLOCATE b; DEALLOCATE a")]),
                ready(&[run("a"), sync()]),
                ready(&[run("b"), sync()]),
                ready(&[query("EXECUTE b")]),
                ready(&[query("PREPARE \"A b\" (int) AS SELECT $1 + 1")]),
                ready(&[bind("A b", &[b"41"]), execute(), sync()]),
                ready(&[close("A b"), sync()]),
                ready(&[query("EXECUTE \"A b\" (1)")]),
            ],
        ),
        (
            "in a transaction that fails they are there all the same",
            vec![
                ready(&[query("BEGIN; PREPARE a AS SELECT 1")]),
                ready(&[parse("b", "SELECT 2"), sync()]),
                ready(&[query("SELECT 1/0")]),
                ready(&[parse("c", "SELECT 3"), sync()]),
                ready(&[query("ROLLBACK")]),
                ready(&[query("EXECUTE a")]),
                ready(&[run("b"), sync()]),
                ready(&[run("c"), sync()]),
                ready(&[query("DEALLOCATE ALL")]),
                ready(&[run("b"), sync()]),
                ready(&[query("BEGIN")]),
                ready(&[parse("d", "SELECT 4"), sync()]),
                ready(&[query("DEALLOCATE d; ROLLBACK")]),
                ready(&[run("d"), sync()]),
            ],
        ),
    ]
}

fn lasting() -> Vec<Script> {
    let sync = crate::raw::sync;
    vec![
        (
            "cursors of SQL and portals of the protocol share theirs",
            vec![
                ready(&[query("BEGIN; DECLARE c CURSOR FOR SELECT generate_series(1, 5)")]),
                ready(&[crate::raw::execute_portal("c", 2), sync()]),
                ready(&[query("FETCH 1 FROM c; MOVE 1 FROM c")]),
                ready(&[
                    parse("", "SELECT generate_series(1, 5)"),
                    crate::raw::bind_portal("p", "", &[]),
                    crate::raw::execute_portal("p", 1),
                    sync(),
                ]),
                ready(&[query("FETCH 2 FROM p; CLOSE p")]),
                ready(&[query("FETCH 1 FROM p")]),
                ready(&[query("COMMIT")]),
                ready(&[query("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT 1; COMMIT")]),
                ready(&[query("FETCH 1 FROM h")]),
                ready(&[query("CLOSE h")]),
                ready(&[query("FETCH 1 FROM h")]),
            ],
        ),
        (
            "what lasts beyond a statement is there, and gone with its end",
            vec![
                ready(&[query("CREATE TEMP TABLE t (i int) ON COMMIT DROP; SELECT i + 0 FROM t")]),
                ready(&[query("SELECT i + 0 FROM t")]),
                ready(&[query("CREATE TEMP TABLE t AS SELECT 1 AS i")]),
                ready(&[query("SELECT i + 0 FROM t")]),
                ready(&[query("DISCARD TEMP")]),
                ready(&[query("SELECT i + 0 FROM t")]),
                ready(&[query("SELECT pg_advisory_lock(5), pg_advisory_unlock(5)")]),
                ready(&[query("SELECT pg_advisory_lock(5)")]),
                ready(&[query("SELECT pg_advisory_unlock(5)")]),
                ready(&[query("SELECT pg_advisory_unlock(5)")]),
                ready(&[query("BEGIN; LISTEN one; SELECT * FROM pg_listening_channels()")]),
                ready(&[query("ROLLBACK")]),
                ready(&[query("SELECT * FROM pg_listening_channels()")]),
                ready(&[query("SELECT nextval('ids') > 0")]),
                ready(&[query("SELECT 1/0; SELECT currval('ids')")]),
            ],
        ),
    ]
}

fn all() -> Vec<Script> {
    [settings(), settings_by_other_ways(), users(), statements(), lasting()].concat()
}

/// What somebody else does with the backend in between.
const OTHERS: [&str; 3] = [
    "SET work_mem = '123kB'; SET DateStyle = 'SQL, DMY'; SET app.x = 'of another'; SET ROLE r2; \
     SET statement_timeout = '77s'; SET search_path = nowhere; \
     SET default_transaction_isolation = 'serializable'; SET TimeZone = 'Asia/Tokyo'",
    "SELECT 1",
    "DISCARD ALL",
];

/// A conversation with this address; somebody else comes in between, if there is one.
pub(super) async fn converse(
    (address, login): (SocketAddr, &[(&str, &str)]),
    (_, script): &Script,
    mut other: Option<&mut Raw>,
) -> Vec<Vec<String>> {
    let mut raw = Raw::connect(address, login).await.unwrap();
    let mut heard = Vec::new();
    for ((messages, last), turn) in script.iter().zip(0..) {
        raw.send(&messages.concat()).await;
        let Answer(answer) = raw.until(*last).await;
        // When a client hears of a parameter that changed is not said; that it does, is.
        let others = answer.iter().filter(|message| message.tag() != 'S');
        let mut step: Vec<String> = others.map(told).collect();
        if *messages == [query(LOOK)] {
            let mut params: Vec<_> = raw.params.iter().collect();
            params.sort();
            step.push(format!("{params:?}"));
        }
        heard.push(step);
        if let Some(other) = &mut other {
            let answer = other.query(OTHERS[turn % OTHERS.len()]).await;
            assert_eq!(answer.code(), None, "{answer:?}");
        }
    }
    raw.leave().await;
    heard
}

pub(super) fn house(mode: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::Off))
        .set("pool.mode", mode)
        .set("pool.size", "2")
        .build();
    for sql in [
        "CREATE ROLE r1",
        "CREATE ROLE r2",
        "CREATE SEQUENCE ids",
        "GRANT ALL ON SEQUENCE ids TO PUBLIC",
        "CREATE FUNCTION within(text) RETURNS text LANGUAGE plpgsql SET work_mem = '1MB' AS \
         'BEGIN RETURN set_config(''app.x'', $1, false) || current_setting(''work_mem''); END'",
        "ALTER ROLE postgres SET search_path = mine, public",
        "ALTER DATABASE postgres SET statement_timeout = '5min'",
    ] {
        house.server("primary").rows(sql).unwrap();
    }
    house
}

/// What a session hears of these scripts and would not hear of a server, or the other way round.
pub(super) fn differences(
    house: &House,
    login: &[(&str, &str)],
    scripts: &[Script],
) -> Vec<String> {
    let direct: SocketAddr = house.server("primary").address().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut found = Vec::new();
    for script in scripts {
        let (alone, heard) = runtime.block_on(async {
            let alone = converse((direct, login), script, None).await;
            let proxy = (house.proxy.address(), login);
            let mut other = Raw::connect(proxy.0, login).await.unwrap();
            (alone, converse(proxy, script, Some(&mut other)).await)
        });
        for ((heard, alone), (messages, _)) in heard.iter().zip(&alone).zip(&script.1) {
            let sent = String::from_utf8_lossy(&messages.concat()).into_owned();
            for (heard, alone) in heard.iter().zip(alone).filter(|(h, a)| h != a) {
                let what = script.0;
                found.push(format!("{login:?}, {what}: {sent:?}\n  {heard}\n  {alone}"));
            }
            if heard.len() != alone.len() {
                found.push(format!("{login:?}, {sent:?}: {heard:?}\n {alone:?}"));
            }
        }
    }
    found
}

#[test]
fn a_sessions_state_is_what_a_server_would_make_of_it() {
    let plain = [("user", "postgres"), ("database", "postgres")];
    let given = [
        plain[0],
        plain[1],
        ("DateStyle", "German"),
        ("options", "-c work_mem=3MB -c app.x=given"),
    ];
    let mut found = Vec::new();
    for mode in ["transaction", "session"] {
        let house = house(mode);
        for login in [&plain[..], &given] {
            let differences = differences(&house, login, &all());
            found.extend(differences.into_iter().map(|one| format!("{mode}, {one}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
