//! What a client sends is answered message by message as by the server itself, whatever pgsteer
//! makes of it on the way: scripts that are played to both.

use crate::prepared::await_known_read;
use crate::raw::{
    Answer, Message, Raw, bind, bind_portal, close, copy_data, copy_done, copy_fail, describe,
    execute, execute_portal, flush, message_of, parse, query, sync,
};
use crate::support::{Blueprint, House};
use pgsteer::sandbox::{SUPERUSER, StatementLog};
use pgsteer::wire::frame;
use std::net::SocketAddr;

/// What is sent in one write, and what its answer ends with.
pub(super) type Step = (Vec<Vec<u8>>, char);

/// A conversation, from its login to its end.
pub(super) type Script = (&'static str, Vec<Step>);

fn close_portal(name: &str) -> Vec<u8> {
    message_of(b'C', |out| {
        out.push(b'P');
        frame::write_text(out, name.as_bytes());
    })
}

fn describe_portal(name: &str) -> Vec<u8> {
    message_of(b'D', |out| {
        out.push(b'P');
        frame::write_text(out, name.as_bytes());
    })
}

pub(super) fn ready(messages: &[Vec<u8>]) -> Step {
    (messages.to_vec(), 'Z')
}

const FIVE: &str = "SELECT i FROM generate_series(1, 5) AS i";
const LOUD: &str = "SELECT loud(i) FROM generate_series(1, 3) AS i";

fn portals() -> Vec<Script> {
    let portal = |rows| execute_portal("p", rows);
    let open = [parse("", FIVE), bind_portal("p", "", &[])].concat();
    vec![
        (
            "a limited portal goes on behind Flush, and behind Sync in a transaction",
            vec![
                ready(&[query("BEGIN")]),
                ([open.clone(), portal(2), flush()].to_vec(), 's'),
                ([portal(2), flush()].to_vec(), 's'),
                ready(&[portal(0), sync()]),
                ready(&[portal(0), sync()]),
                ready(&[portal(1), sync()]),
                ready(&[query("COMMIT")]),
            ],
        ),
        (
            "across Sync in a transaction, with others between",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[open.clone(), describe_portal("p"), portal(2), sync()]),
                ready(&[query("SELECT 'between'")]),
                ready(&[
                    parse("", FIVE),
                    bind_portal("q", "", &[]),
                    execute_portal("q", 1),
                    sync(),
                ]),
                ready(&[portal(2), execute_portal("q", 1), portal(2), sync()]),
                ready(&[close_portal("p"), portal(1), execute_portal("q", 1), sync()]),
                ready(&[query("ROLLBACK")]),
            ],
        ),
        (
            "outside of a transaction a portal ends with Sync",
            vec![
                ready(&[open.clone(), portal(2), portal(1), sync()]),
                ready(&[portal(1), sync()]),
                ready(&[query("SELECT 1")]),
            ],
        ),
        (
            "a portal that is there already, and one that is not",
            vec![
                ready(&[query("BEGIN")]),
                ready(&[open.clone(), open.clone(), sync()]),
                ready(&[query("ROLLBACK")]),
                ready(&[describe_portal("nowhere"), sync()]),
                ready(&[close_portal("nowhere"), sync()]),
            ],
        ),
        (
            "a statement without rows, with a limit",
            vec![ready(&[
                parse("", "CREATE TEMP TABLE t AS SELECT 1"),
                bind("", &[]),
                execute_portal("", 1),
                sync(),
            ])],
        ),
    ]
}

fn empty() -> Vec<Script> {
    vec![(
        "empty queries",
        vec![
            ready(&[query("")]),
            ready(&[query(";")]),
            ready(&[query(" ; ; ")]),
            ready(&[query("-- nothing")]),
            ready(&[query(";SELECT 1;;SELECT 2;")]),
            ready(&[parse("", ""), bind("", &[]), describe(""), execute(), sync()]),
            ready(&[parse("e", ";"), describe("e"), bind("e", &[]), execute_portal("", 1), sync()]),
            ready(&[close("e"), sync()]),
            ready(&[sync()]),
            ready(&[sync()]),
            ready(&[query("BEGIN")]),
            ready(&[query("")]),
            ready(&[query("SELECT 1/0")]),
            ready(&[query("")]),
            ready(&[parse("", ""), bind("", &[]), execute(), sync()]),
            ready(&[query("ROLLBACK")]),
        ],
    )]
}

fn asides() -> Vec<Script> {
    vec![
        (
            "notices between rows, before an error and before the end",
            vec![
                ready(&[query(LOUD)]),
                ready(&[parse("", LOUD), bind("", &[]), execute(), sync()]),
                ready(&[parse("", LOUD), bind("", &[]), execute_portal("", 1), execute(), sync()]),
                ready(&[query("SELECT loud(1), 1/0")]),
                ready(&[query("DO $$ BEGIN RAISE WARNING 'w'; RAISE EXCEPTION 'e'; END $$")]),
                ready(&[query("COMMIT")]),
            ],
        ),
        (
            "parameters and notifications in the middle",
            vec![
                ready(&[query(
                    "SET application_name = 'one'; SELECT 1; SET TimeZone = 'Asia/Tokyo'",
                )]),
                ready(&[query("BEGIN; SET LOCAL TimeZone = 'UTC'; SELECT 1/0")]),
                ready(&[query("ROLLBACK")]),
                ready(&[query("SET client_encoding = 'LATIN1'; SELECT 2")]),
                ready(&[query("LISTEN here; NOTIFY here, 'a'; SELECT 3")]),
                ready(&[query("BEGIN; NOTIFY here, 'b'; SELECT 4")]),
                ready(&[query("COMMIT")]),
            ],
        ),
    ]
}

fn turns() -> Vec<Script> {
    let open = [parse("s", "SELECT 'first'"), bind("s", &[]), execute()].concat();
    let copy = "COPY copied FROM STDIN";
    vec![
        (
            "a Query behind what no Sync has ended",
            vec![
                ready(&[open.clone(), query("SELECT 'second'")]),
                ready(&[close("s"), query("SELECT 'third'")]),
                ready(&[describe("s"), sync()]),
            ],
        ),
        (
            "which fails",
            vec![
                ready(&[parse("", "SELEC"), query("SELECT 'passed over'"), sync()]),
                ready(&[query("SELECT 'well'")]),
                ready(&[query("CREATE TEMP TABLE one (i int)")]),
                (
                    vec![
                        parse("", "INSERT INTO one VALUES (1)"),
                        bind("", &[]),
                        execute(),
                        query("SELECT 1/0"),
                    ],
                    'Z',
                ),
                ready(&[query("SELECT count(*) FROM one")]),
                ready(&[parse("", "SELEC"), flush(), query("SELECT 'passed over'"), sync()]),
            ],
        ),
        (
            "COPY data right behind Execute, and CopyFail",
            vec![
                ready(&[query("CREATE TEMP TABLE copied (i int)")]),
                ready(&[
                    parse("", copy),
                    bind("", &[]),
                    execute(),
                    copy_data(b"1\n2\n"),
                    copy_done(),
                    sync(),
                ]),
                ready(&[
                    parse("", copy),
                    bind("", &[]),
                    execute(),
                    copy_data(b"3\n"),
                    copy_fail("no"),
                    sync(),
                ]),
                ready(&[
                    parse("", "SELEC"),
                    bind("", &[]),
                    execute(),
                    copy_data(b"4\n"),
                    copy_done(),
                    sync(),
                ]),
                ready(&[query(copy), copy_data(b"5\n"), copy_done()]),
                ready(&[query("SELECT sum(i) FROM copied")]),
            ],
        ),
    ]
}

fn misfits() -> Vec<Script> {
    let two = "SELECT $1::int, $2::int";
    let one = |name| bind(name, &[b"1"]);
    vec![(
        "an error names a statement as its client does",
        vec![
            ready(&[parse("s", two), one("s"), execute(), sync()]),
            ready(&[one("s"), sync()]),
            ready(&[parse("", "SELECT $1::text, $2::text"), one(""), sync()]),
            ready(&[one(""), sync()]),
            ready(&[parse("pgsteer_0", "SELECT $1::date, $2::date"), one("pgsteer_0"), sync()]),
            ready(&[query("BEGIN")]),
            ready(&[parse("a statement", "SELECT $1::int"), bind("a statement", &[]), sync()]),
            ready(&[query("ROLLBACK")]),
            ready(&[bind("s", &[b"1", b"2"]), execute(), sync()]),
            ready(&[query("CREATE TEMP TABLE misfits (i int)")]),
            // A write is shown as it comes, with what was answered before it.
            ready(&[
                parse("w", "INSERT INTO misfits VALUES ($1)"),
                bind("w", &[b"1", b"2"]),
                execute(),
                sync(),
            ]),
            ready(&[
                parse("r", "SELECT $1::int"),
                bind("r", &[b"1"]),
                execute(),
                bind("r", &[b"1", b"2"]),
                execute(),
                sync(),
            ]),
        ],
    )]
}

/// What a client can tell of a message: a server's own numbers and places in its source aside.
pub(super) fn told(message: &Message) -> String {
    match message.tag() {
        'E' | 'N' => {
            let field = |field| message.field(field).unwrap_or_default();
            format!("{} {} {}", message.tag(), field(b'C'), field(b'M'))
        }
        // The process is another one.
        'A' => format!("A {:?}", String::from_utf8_lossy(&message.0[9..])),
        _ => format!("{} {:?}", message.tag(), String::from_utf8_lossy(&message.0[5..])),
    }
}

async fn play(address: SocketAddr, script: &[Step]) -> Vec<Vec<String>> {
    let login = [("user", SUPERUSER), ("database", "postgres")];
    let mut raw = Raw::connect(address, &login).await.unwrap();
    let mut heard = Vec::new();
    for (messages, last) in script {
        raw.send(&messages.concat()).await;
        let Answer(answer) = raw.until(*last).await;
        heard.push(answer.iter().map(told).collect());
    }
    raw.leave().await;
    heard
}

fn house(mode: &str, unnamed: &str) -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).log(StatementLog::Off))
        .set("pool.mode", mode)
        .set("pool.unnamed_statements", unnamed)
        .build();
    house
        .server("primary")
        .rows(
            "CREATE FUNCTION loud(i int) RETURNS int LANGUAGE plpgsql AS \
             'BEGIN RAISE NOTICE ''row %'', i; RETURN i; END'",
        )
        .unwrap();
    house
}

/// How often a script is played: what comes again may be answered with what was prepared before.
const TIMES: usize = 4;

#[test]
fn every_script_is_answered_as_by_the_server_itself() {
    let run = |mode: &'static str, unnamed: &'static str| {
        let house = house(mode, unnamed);
        let primary = house.server("primary").address().parse().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut client = Raw::enter(&house).await;
            await_known_read(&house, &mut client, "SELECT count(*) FROM pg_class").await;
            client.leave().await;
        });
        for (what, script) in [portals(), empty(), asides(), turns(), misfits()].concat() {
            let expected = runtime.block_on(play(primary, &script));
            for _ in 0..TIMES {
                let heard = runtime.block_on(play(house.proxy.address(), &script));
                for (step, (heard, expected)) in heard.iter().zip(&expected).enumerate() {
                    assert_eq!(heard, expected, "{mode}, {unnamed}: {what}, step {step}");
                }
            }
            assert!(expected.iter().flatten().count() > script.len(), "{what}: {expected:?}");
        }
        let hits = house.metric("pgsteer_prepared_cache_requests_total{result=\"hit\"}");
        eprintln!("{mode}, {unnamed}: {hits:?} statements were at hand");
    };
    std::thread::scope(|scope| {
        for (mode, unnamed) in
            [("transaction", "pass"), ("transaction", "reuse"), ("session", "pass")]
        {
            scope.spawn(move || run(mode, unnamed));
        }
    });
}
