//! `FunctionCall`: old, and still what libpq's large objects are made of.

use crate::raw::{Answer, Raw, message_of, query};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::StatementLog;
use std::process::Command;

/// A call with text parameters, `None` for NULL, and a text result.
fn call(oid: u32, arguments: &[Option<&str>]) -> Vec<u8> {
    message_of(b'F', |out| {
        out.extend(oid.to_be_bytes());
        out.extend(0_u16.to_be_bytes());
        out.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
        for argument in arguments {
            let length = argument.map_or(-1, |text| i32::try_from(text.len()).unwrap());
            out.extend(length.to_be_bytes());
            out.extend(argument.unwrap_or_default().as_bytes());
        }
        out.extend(0_u16.to_be_bytes());
    })
}

/// The result of a call; `None` is NULL.
fn result(answer: &Answer) -> Option<String> {
    assert_eq!(answer.code(), None, "{answer:?}");
    let message = answer.0.iter().find(|message| message.tag() == 'V').expect("no result");
    let length = i32::from_be_bytes(message.0[5..9].try_into().unwrap());
    (length >= 0).then(|| String::from_utf8_lossy(&message.0[9..]).into_owned())
}

struct Caller(Raw);

impl Caller {
    async fn oid(&mut self, function: &str) -> u32 {
        self.0.value(&format!("SELECT '{function}'::regproc::oid")).await.parse().unwrap()
    }

    async fn call(&mut self, function: &str, arguments: &[Option<&str>]) -> Answer {
        let oid = self.oid(function).await;
        self.0.send(&call(oid, arguments)).await;
        self.0.ready().await
    }
}

fn house(mode: &str, reset: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1).log(StatementLog::Off))
        .set("pool.mode", mode)
        .set("pool.reset", reset)
        .set("pool.size", if mode == "session" { "4" } else { "2" })
        .any_lag()
        .unhurried()
        .build();
    let primary = house.server("primary");
    primary.rows("CREATE TABLE t (i int)").unwrap();
    for function in [
        "note(int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES ($1) RETURNING i'",
        "become(text) RETURNS text STABLE LANGUAGE sql \
         AS 'SELECT set_config(''work_mem'', $1, false)'",
        "hold(int) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock($1)'",
    ] {
        primary.rows(&format!("CREATE FUNCTION {function}")).unwrap();
    }
    match mode {
        "session" => house.cluster.await_replay().unwrap(),
        _ => house.await_catalog(),
    }
    house
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_call_runs_on_the_primary_and_is_owed_one_answer() {
    for mode in ["transaction", "session"] {
        let house = house(mode, "tracked");
        let mut caller = Caller(Raw::enter(&house).await);
        let standby =
            caller.0.value("SELECT pg_is_in_recovery() FROM t RIGHT JOIN (SELECT) s ON true").await;
        assert_eq!(standby == "t", mode == "transaction", "a read would go elsewhere");
        let answer = caller.call("pg_is_in_recovery", &[]).await;
        assert_eq!((answer.tags().as_str(), result(&answer).as_deref()), ("VZ", Some("f")));
        assert_eq!(result(&caller.call("int4pl", &[Some("40"), None]).await), None, "strict");

        // Each is owed its own answer, whatever stands around it.
        let (plus, divide) = (caller.oid("int4pl").await, caller.oid("int4div").await);
        let pair = |a, b| [Some(a), Some(b)];
        let calls = [
            call(plus, &pair("1", "2")),
            call(divide, &pair("1", "0")),
            call(u32::MAX, &[]),
            query("SELECT 'between'"),
            call(divide, &pair("8", "2")),
        ];
        caller.0.send(&calls.concat()).await;
        let mut heard = Vec::new();
        for _ in &calls {
            let answer = caller.0.ready().await;
            heard.push((answer.tags(), answer.code().unwrap_or_default()));
        }
        let heard: Vec<_> = heard.iter().map(|(tags, code)| (&**tags, &**code)).collect();
        let expected = [("VZ", ""), ("EZ", "22012"), ("EZ", "42883"), ("TDCZ", ""), ("VZ", "")];
        assert_eq!(heard, expected, "{mode}");

        // It writes, alone and in a transaction, and fails that.
        assert_eq!(result(&caller.call("note", &[Some("1")]).await).as_deref(), Some("1"));
        caller.0.query("BEGIN").await;
        let answer = caller.call("note", &[Some("2")]).await;
        assert_eq!((result(&answer).as_deref(), answer.status()), (Some("2"), 'T'));
        caller.0.query("ROLLBACK").await;
        caller.0.query("BEGIN").await;
        caller.0.send(&call(divide, &pair("1", "0"))).await;
        assert_eq!(caller.0.ready().await.status(), 'E', "{mode}");
        caller.0.send(&call(plus, &pair("1", "0"))).await;
        let answer = caller.0.ready().await;
        assert_eq!((answer.code().as_deref(), answer.status()), (Some("25P02"), 'E'), "{mode}");
        assert_eq!(caller.0.query("ROLLBACK").await.status(), 'I');
        assert_eq!(caller.0.value("SELECT array_agg(i) FROM t").await, "{1}", "{mode}");
    }
}

/// What the next session on this backend finds set, and the caller, after a call in between.
async fn leaks(house: &House) -> (String, String) {
    let mut caller = Caller(Raw::enter(house).await);
    let mut other = Raw::enter(house).await;
    assert_eq!(result(&caller.call("become", &[Some("7MB")]).await).as_deref(), Some("7MB"));
    // On the primary, where the call was.
    let write = "WITH w AS (INSERT INTO t VALUES (0)) SELECT current_setting('work_mem')";
    (other.value(write).await, caller.0.value(write).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_called_function_leaves_behind_is_found() {
    let tracked = house("transaction", "tracked");
    assert_eq!(leaks(&tracked).await, ("4MB".into(), "7MB".into()));
    // Unless nobody looks: then the next one has what the last one had.
    assert_eq!(leaks(&house("transaction", "off")).await.0, "7MB");

    // A lock of the session's own keeps its backend for it.
    let (mut holder, mut other) = (Caller(Raw::enter(&tracked).await), Raw::enter(&tracked).await);
    holder.call("hold", &[Some("7")]).await;
    let backend = holder.0.value("SELECT pg_backend_pid() FROM t LIMIT 1").await;
    for _ in 0..5 {
        let write = "WITH w AS (INSERT INTO t VALUES (0)) SELECT pg_backend_pid()";
        assert_ne!(other.value(write).await, backend);
    }
    assert_eq!(holder.0.value("SELECT pg_advisory_unlock(7)").await, "t");
}

/// libpq's own calls: `PQfn`, for large objects.
#[test]
fn large_objects_go_in_and_out_by_psql() {
    for mode in ["transaction", "session"] {
        let house = house(mode, "tracked");
        let place = house.cluster.workshop("large").unwrap();
        let (file, copy) = (place.join("in"), place.join("out"));
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&file, &bytes).unwrap();
        let psql = |commands: &[String]| {
            let mut psql = Command::new("psql");
            psql.args([
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                &house.proxy_uri("postgres", "postgres"),
            ]);
            for command in commands {
                psql.args(["-c", command]);
            }
            let done = psql.output().unwrap();
            assert!(done.status.success(), "{mode}: {}", String::from_utf8_lossy(&done.stderr));
        };
        psql(&[format!("\\lo_import {}", file.display())]);
        let oid = house.server("primary").value("SELECT oid FROM pg_largeobject_metadata").unwrap();
        psql(&[format!("\\lo_export {oid} {}", copy.display()), format!("\\lo_unlink {oid}")]);
        assert!(std::fs::read(&copy).unwrap() == bytes, "{mode}: other bytes came back");
        let left = "SELECT count(*) FROM pg_largeobject_metadata";
        assert_eq!(house.server("primary").value(left).unwrap(), "0", "{mode}");
    }
}
