//! `SHOW`, `SET` and `RESET` of `pgsteer.*` in the extended protocol: answered by pgsteer, and not
//! to be told from a server's answers.

use crate::raw::{
    Answer, Raw, bind, bind_portal, close, describe, execute, execute_portal, flush, message_of,
    parse, query, sync,
};
use crate::support::{Blueprint, House, await_that, connect};

const SHOW: &str = "SHOW pgsteer.role";
const WHERE: &str = "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1";

fn house() -> House {
    let house = Blueprint::new().servers(|plan| plan.standbys(1)).unhurried().any_lag().build();
    house.await_catalog();
    house
}

/// `Describe` of the unnamed portal.
fn describe_portal() -> Vec<u8> {
    message_of(b'D', |out| out.extend(b"P\0"))
}

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), describe_portal(), execute()].concat()
}

async fn role(client: &mut Raw) -> String {
    client.batch(&[run(SHOW)]).await.value()
}

/// Whatever way a driver takes, the messages are those that a server sends for a setting of its
/// own; and no server hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_looks_as_if_a_server_had_said_it() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    let binary = |name: &str| {
        message_of(b'B', |out| {
            out.extend([0]);
            out.extend(name.as_bytes());
            out.extend([0, 0, 0, 0, 0, 0, 1, 0, 1]);
        })
    };
    let ways: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("psql", vec![parse("", "$"), bind("", &[]), describe_portal(), execute()]),
        ("pgjdbc", vec![parse("S_1", "$"), bind("S_1", &[]), describe_portal(), execute()]),
        ("once more", vec![bind("S_1", &[]), describe_portal(), execute()]),
        ("tokio-postgres prepares", vec![parse("s0", "$"), describe("s0")]),
        ("and executes", vec![binary("s0"), describe_portal(), execute()]),
        ("and closes", vec![close("s0")]),
        ("asyncpg", vec![parse("a", "$"), describe("a"), flush(), bind("a", &[]), execute()]),
        ("its portal", vec![bind_portal("p", "a", &[]), execute_portal("p", 0)]),
        ("one row at a time", vec![bind("a", &[]), execute_portal("", 1), execute_portal("", 1)]),
        ("ten rows at a time", vec![bind("a", &[]), execute_portal("", 10)]),
        ("nothing but a name", vec![parse("b", "$")]),
        ("a name that is taken", vec![parse("b", "$")]),
        ("a statement that is gone", vec![bind("s0", &[]), execute()]),
        ("twice", vec![run("$"), run("$")]),
        ("between others", vec![run("SELECT 1"), run("$"), run("SELECT 2")]),
        ("behind an error", vec![run("SELECT 1/0"), run("$")]),
        ("before an error", vec![run("$"), run("SELECT 1/0")]),
        ("in one go with BEGIN", vec![run("BEGIN"), run("$")]),
        ("in a transaction", vec![run("$")]),
        ("behind a failure in it", vec![run("SELECT 1/0")]),
        ("in a failed transaction", vec![run("$")]),
        ("and out of it", vec![run("ROLLBACK")]),
    ];
    let say = |messages: &[Vec<u8>], sql: &str| -> Vec<Vec<u8>> {
        let (dollar, name) = (b"$".as_slice(), sql.as_bytes());
        let filled = |message: &Vec<u8>| refilled(message, dollar, name);
        messages.iter().map(filled).collect()
    };
    for (way, messages) in &ways {
        let ours = client.batch(&say(messages, SHOW)).await;
        let mut other = Raw::enter(&house).await;
        // The same history, up to this way.
        let mut theirs = None;
        for (earlier, messages) in &ways {
            theirs = Some(other.batch(&say(messages, "SHOW application_name")).await);
            if earlier == way {
                break;
            }
        }
        let theirs = theirs.unwrap();
        assert_eq!(shape(&ours), shape(&theirs), "{way}: {ours:?} {theirs:?}");
        let shown = ours.rows().iter().filter(|row| row[0].as_deref() == Some("auto")).count();
        let expected = theirs.rows().iter().filter(|row| row[0].as_deref() == Some("")).count();
        assert_eq!(shown, expected, "{way}: {ours:?}");
    }
    for server in house.cluster.servers() {
        assert!(!server.log().contains("unrecognized"), "a server was asked for it");
    }
}

/// Message by message, with the text of `Parse` replaced; lengths follow.
fn refilled(messages: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = messages;
    while let Some(header) = pgsteer::wire::frame::peek(rest).unwrap() {
        let (message, after) = rest.split_at(header.total);
        rest = after;
        let body = &message[5..];
        let parts: Vec<&[u8]> = body.splitn(3, |byte| *byte == 0).collect();
        if header.tag == b'P' && parts[1] == from {
            out.extend(message_of(b'P', |out| {
                out.extend_from_slice(parts[0]);
                out.push(0);
                out.extend_from_slice(to);
                out.push(0);
                out.extend_from_slice(parts[2]);
            }));
        } else {
            out.extend_from_slice(message);
        }
    }
    out
}

/// What does not depend on which setting it is: tags, types and formats, codes, the status.
fn shape(answer: &Answer) -> Vec<String> {
    let parts = answer.0.iter().map(|message| match message.tag() {
        // Behind the name: table, column, type, size, modifier, format.
        'T' if message.0.len() > 24 => {
            format!("T{:?}{:?}", &message.0[5..7], &message.0[message.0.len() - 18..])
        }
        'D' => "D".to_owned(),
        'E' => format!("E{}", message.code().unwrap()),
        tag => format!("{tag}{:?}", &message.0[5..]),
    });
    parts.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_in_a_batch_counts() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    let on_standby = "t";
    assert_eq!(client.value(WHERE).await, on_standby);
    let set = |value: &str| run(&format!("SET pgsteer.role = '{value}'"));
    assert_eq!(client.batch(&[set("primary")]).await.tags(), "12nCZ");
    assert_eq!(role(&mut client).await, "primary");
    assert_eq!(client.value(WHERE).await, "f");
    // Together with the statement that it is for, in whatever order.
    assert_eq!(client.batch(&[set("standby"), run(WHERE)]).await.value(), on_standby);
    assert_eq!(client.batch(&[run("BEGIN"), set("primary"), run(WHERE)]).await.value(), "f");
    assert_eq!(client.batch(&[run("COMMIT")]).await.status(), 'I');
    assert_eq!(client.batch(&[run("RESET pgsteer.role")]).await.tags(), "12nCZ");
    assert_eq!(role(&mut client).await, "auto");
    // What is only prepared does not count.
    let prepared = [parse("p", "SET pgsteer.role = 'primary'"), describe("p")];
    assert_eq!(client.batch(&prepared).await.tags(), "1tnZ");
    assert_eq!(role(&mut client).await, "auto");
    assert_eq!(client.batch(&[bind("p", &[]), execute()]).await.tags(), "2CZ");
    assert_eq!(role(&mut client).await, "primary");

    // A wrong value is refused, and the rest of the batch passed over.
    let wrong = client.batch(&[set("master"), run("SELECT 1")]).await;
    assert_eq!((wrong.code().as_deref(), wrong.status()), (Some("22023"), 'I'), "{wrong:?}");
    assert!(wrong.rows().is_empty(), "{wrong:?}");
    client.send(&[set("master"), flush()].concat()).await;
    assert_eq!(client.until('E').await.code().as_deref(), Some("22023"));
    assert_eq!(client.batch(&[run("SELECT 1")]).await.tags(), "Z");
    client.query("BEGIN").await;
    let wrong = client.batch(&[set("master")]).await;
    assert_eq!((wrong.code().as_deref(), wrong.status()), (Some("22023"), 'E'), "{wrong:?}");
    client.query("ROLLBACK").await;
    assert_eq!(role(&mut client).await, "primary");

    // What resets the session resets this, too.
    for reset in ["RESET ALL", "DISCARD ALL"] {
        client.batch(&[set("primary")]).await;
        assert_eq!(client.batch(&[run(reset)]).await.code(), None);
        assert_eq!(role(&mut client).await, "auto", "{reset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_locally_ends_with_the_transaction() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    let local = "SET LOCAL pgsteer.role = 'primary'";
    // Outside of one it is nothing, and that is said.
    let answer = client.query(local).await;
    assert_eq!(answer.tags(), "NCZ");
    assert_eq!(answer.0[0].field(b'C').as_deref(), Some("25P01"), "{answer:?}");
    assert_eq!(client.batch(&[run(local)]).await.tags(), "N12nCZ");
    assert_eq!(role(&mut client).await, "auto");
    for end in ["COMMIT", "ROLLBACK"] {
        client.query("BEGIN").await;
        client.query(local).await;
        assert_eq!(role(&mut client).await, "primary");
        client.query("SET pgsteer.consistency = 'eventual'").await;
        client.query(end).await;
        assert_eq!(role(&mut client).await, "auto", "{end}");
        assert_eq!(client.value("SHOW pgsteer.consistency").await, "eventual");
    }
    client.batch(&[run("BEGIN"), run(local), run("SELECT 1")]).await;
    assert_eq!(role(&mut client).await, "primary");
    client.query("SELECT 1/0").await;
    client.query("ROLLBACK").await;
    assert_eq!(role(&mut client).await, "auto");
}

/// A prepared statement that was left without `Sync`, as asyncpg does, does not keep pgsteer from
/// answering.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_a_server_has_begun_is_ended_there() {
    let house = house();
    let mut client = Raw::enter(&house).await;
    for sql in ["SELECT 1", "CREATE TABLE t (i int)"] {
        client.send(&[parse("a", sql), describe("a"), flush()].concat()).await;
        client.until(if sql.starts_with('S') { 'T' } else { 'n' }).await;
        client.send(&[parse("b", SHOW), describe("b"), flush()].concat()).await;
        assert_eq!(client.until('T').await.tags(), "1tT");
        let shown = client.batch(&[bind("b", &[]), execute()]).await;
        assert_eq!((shown.value().as_str(), shown.status()), ("auto", 'I'));
        client.batch(&[close("a"), close("b")]).await;
    }
    let pipeline = [run(SHOW), sync(), run("SELECT 1"), sync(), query(SHOW), run(SHOW), sync()];
    client.send(&pipeline.concat()).await;
    for expected in ["auto", "1", "auto", "auto"] {
        assert_eq!(client.ready().await.value(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_get_along_with_it() {
    let house = house();
    let client = connect(&house.proxy_uri("postgres", "postgres")).await;
    client.execute("SET pgsteer.role = 'primary'", &[]).await.unwrap();
    let row = client.query_one(SHOW, &[]).await.unwrap();
    assert_eq!((row.columns()[0].name(), row.get::<_, &str>(0)), ("pgsteer.role", "primary"));
    client.execute("RESET pgsteer.role", &[]).await.unwrap();
    let statement = client.prepare(SHOW).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.query_one(&statement, &[]).await.unwrap().get::<_, &str>(0), "auto");
    }
    drop(statement);
    await_that("nothing is in the way", || house.status()["clients"]["active"] == 0);
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

/// A `Query` ends what was begun without `Sync`, and commits it, whoever it is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_of_its_own_ends_what_was_begun_without_sync() {
    let house = house();
    let primary = house.server("primary");
    let table = "CREATE TABLE once (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
    primary.rows(table).unwrap();
    let there = || primary.value("SELECT count(*) FROM once").unwrap();
    let begins = |sql: &str| [run(sql), flush()].concat();
    let asks = [(SHOW, "TDCZ"), ("SET pgsteer.role = 'auto'", "CZ"), ("RESET pgsteer.role", "CZ")];
    for (sql, tags) in asks {
        let mut client = Raw::enter(&house).await;
        client.send(&begins("INSERT INTO once VALUES (1)")).await;
        client.until('C').await;
        let answer = client.query(sql).await;
        assert_eq!((answer.tags().as_str(), answer.status()), (tags, 'I'), "{answer:?}");
        assert_eq!(there(), "1", "{sql}");
        client.leave().await;
        // All in one go.
        let mut client = Raw::enter(&house).await;
        let insert = begins("INSERT INTO once VALUES (2)");
        client.send(&[insert, query(sql), query("SELECT 7")].concat()).await;
        let mut heard = client.until('C').await;
        assert!(heard.tags().starts_with("12"), "{heard:?}");
        heard = client.ready().await;
        assert!(heard.tags().ends_with(tags), "{heard:?}");
        assert_eq!(client.ready().await.value(), "7");
        assert_eq!(there(), "2", "{sql}");
        // What can't be committed is told before the end, and nothing else is.
        client.send(&begins("INSERT INTO once VALUES (1)")).await;
        client.until('C').await;
        let answer = client.query(sql).await;
        let heard = (answer.code(), answer.tags(), answer.status());
        assert_eq!(heard, (Some("23505".to_owned()), "EZ".to_owned(), 'I'), "{answer:?}");
        // In a transaction nothing is committed, and the status says that there is one.
        client.send(&begins("BEGIN")).await;
        client.until('C').await;
        assert_eq!(client.query(sql).await.status(), 'T');
        client.send(&begins("INSERT INTO once VALUES (5)")).await;
        client.until('C').await;
        let answer = client.query(sql).await;
        assert_eq!((answer.tags().as_str(), answer.status()), (tags, 'T'));
        assert_eq!(client.query("ROLLBACK").await.status(), 'I');
        assert_eq!(there(), "2", "{sql}");
        // What was only prepared, and what has failed.
        client.send(&[parse("a", "SELECT 1"), describe("a"), flush()].concat()).await;
        client.until('T').await;
        assert_eq!(client.query(sql).await.tags(), tags);
        assert_eq!(client.batch(&[bind("a", &[]), execute()]).await.value(), "1");
        client.send(&begins("SELECT 1/0")).await;
        client.until('E').await;
        client.send(&[query(sql), sync()].concat()).await;
        assert_eq!(client.ready().await.tags(), "Z", "it is passed over");
        assert_eq!(role(&mut client).await, "auto");
        primary.rows("DELETE FROM once").unwrap();
    }
}
