//! What a client says in any order is answered as by a server: conversations drawn at random are
//! played to both. Between any two steps somebody else has the backend.

use super::alike::{Script, Step, ready};
use super::states::{converse, house};
use crate::raw::{
    Raw, bind_portal, close, describe, execute_portal, flush, message_of, parse, query, sync,
};
use crate::support::{Dice, House};
use pgsteer::wire::frame;
use std::net::SocketAddr;

/// Said as a `Query`. Those that name no statement are prepared as well: one that takes away the
/// statement that it is itself is another matter.
const TEXTS: [&str; 31] = [
    "SELECT 1",
    "SELECT $1::int + 1",
    "SELECT generate_series(1, 5)",
    "SELECT count(*) FROM t",
    "INSERT INTO t VALUES (1)",
    "INSERT INTO t VALUES (2) RETURNING i",
    "SELECT 1/0",
    "SELEC",
    "",
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "PREPARE a AS SELECT 'by SQL'",
    "EXECUTE a",
    "EXECUTE b",
    "DEALLOCATE a",
    "DEALLOCATE b",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DECLARE p CURSOR FOR SELECT generate_series(1, 5)",
    "FETCH 2 FROM p",
    "CLOSE p",
    "SET work_mem = '5MB'",
    "SET LOCAL work_mem = '6MB'",
    "RESET work_mem",
    "SHOW work_mem",
    "SET ROLE r1",
    "RESET ROLE",
];

/// Said as a `Query`.
const SEVERAL: [&str; 12] = [
    "BEGIN; SELECT 1/0",
    "BEGIN; SAVEPOINT s; INSERT INTO t VALUES (3)",
    "SELECT 1; SELECT 2; SELECT 1/0; SELECT 3",
    "INSERT INTO t VALUES (4); COMMIT; SELECT 1/0",
    "ROLLBACK TO s; EXECUTE a",
    "ROLLBACK; EXECUTE b; EXECUTE a",
    "DEALLOCATE a; SELECT 1/0",
    "PREPARE b AS SELECT 2; EXECUTE b",
    "SET work_mem = '7MB'; SELECT 1/0",
    "SET work_mem = '8MB'; BEGIN; SET LOCAL work_mem = '9MB'; SHOW work_mem",
    "EXECUTE a; DEALLOCATE a; EXECUTE a",
    ";; SELECT 1;",
];

const NAMES: [&str; 4] = ["", "a", "b", "a"];
/// Not the one without a name: run behind a text that has failed it ends PostgreSQL itself, which
/// has thrown away by then what that was to run.
const PORTALS: [&str; 2] = ["p", "q"];

/// How many conversations there are, and how long one is, in steps.
const CONVERSATIONS: u64 = 25;
const STEPS: usize = 20;
/// Most messages in one batch, without its `Sync`.
const BATCH_MAX: u64 = 7;

fn one<'a>(dice: &mut Dice, of: &[&'a str]) -> &'a str {
    let limit = u64::try_from(of.len()).unwrap();
    of[usize::try_from(dice.below(limit)).unwrap()]
}

fn of_portal(tag: u8, portal: &str) -> Vec<u8> {
    message_of(tag, |out| {
        out.push(b'P');
        frame::write_text(out, portal.as_bytes());
    })
}

/// One that can be prepared under this name, and run from whatever place: none that names a
/// statement; none of a savepoint, which before a batch's `Sync` ends the backend with XX000
/// outside of a transaction; by a name none that begins or ends a transaction, for the same becomes
/// of `EXECUTE` of it behind another statement of a text.
fn prepared(dice: &mut Dice, name: &str) -> &'static str {
    const NEVER: [&str; 5] = ["PREPARE", "EXECUTE", "DEALLOCATE", "SAVEPOINT", "ROLLBACK TO"];
    const NAMELESS: [&str; 3] = ["BEGIN", "COMMIT", "ROLLBACK"];
    loop {
        let text = one(dice, &TEXTS);
        let begins = |other: &&str| text.starts_with(*other);
        if !NEVER.iter().any(begins) && (name.is_empty() || !NAMELESS.iter().any(begins)) {
            return text;
        }
    }
}

/// One of a batch in which anything may fail. What becomes of the statement without a name is not
/// told then.
fn message(dice: &mut Dice) -> Vec<u8> {
    let (name, portal) = (one(dice, &["a", "b"]), one(dice, &PORTALS));
    let few = u32::try_from(dice.below(3)).unwrap();
    match dice.below(12) {
        0..3 => parse(name, prepared(dice, name)),
        3..6 => bind_portal(portal, name, &[]),
        6..9 => execute_portal(portal, few),
        9 => describe(name),
        10 => of_portal(b'D', portal),
        _ => match dice.below(3) {
            0 => close(name),
            1 => of_portal(b'C', portal),
            _ => flush(),
        },
    }
}

fn step(dice: &mut Dice) -> Step {
    match dice.below(20) {
        0..7 => ready(&[query(one(dice, &TEXTS))]),
        7..10 => ready(&[query(one(dice, &SEVERAL))]),
        // What drivers say.
        10..15 => {
            let (name, few) = (one(dice, &NAMES), u32::try_from(dice.below(3)).unwrap());
            let text = prepared(dice, name);
            let run = [bind_portal("", name, &[]), execute_portal("", few), sync()].concat();
            if dice.below(2) == 0 {
                ready(&[run])
            } else {
                ready(&[parse(name, text), describe(name), run])
            }
        }
        _ => {
            let many = 1 + dice.below(BATCH_MAX);
            let mut messages: Vec<_> = (0..many).map(|_| message(dice)).collect();
            messages.push(sync());
            ready(&messages)
        }
    }
}

/// Whether two answers to the same step are alike. Of two reasons to refuse a message either may
/// be told; and in a transaction that has failed nothing can be prepared, so that a statement which
/// a backend does not hold is refused where another one describes or binds it.
fn alike(heard: &[String], alone: &[String], began: &str) -> bool {
    const REFUSALS: [&str; 7] =
        ["E 42P05", "E 25P02", "E 42601", "E 26000", "E 55000", "E 34000", "E 08P01"];
    let masked = |said: &String| {
        let refused = REFUSALS.iter().any(|code| said.starts_with(code));
        if refused { "E refused".into() } else { said.clone() }
    };
    let failed = |said: &String| said.starts_with("E 25P02");
    let masked = |answer: &[String]| answer.iter().map(masked).collect::<Vec<_>>();
    masked(heard) == masked(alone)
        || began.starts_with("Z \"E")
            && heard.iter().chain(alone).any(failed)
            && heard.last() == alone.last()
}

/// The first step that is answered otherwise, with all that was said before.
fn first_difference(house: &House, script: &Script) -> Option<String> {
    let login = [("user", "postgres"), ("database", "postgres")];
    let direct: SocketAddr = house.server("primary").address().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (alone, heard) = runtime.block_on(async {
        house.server("primary").rows("TRUNCATE t").unwrap();
        let alone = converse((direct, &login), script, None).await;
        house.server("primary").rows("TRUNCATE t").unwrap();
        let proxy = house.proxy.address();
        let mut other = Raw::connect(proxy, &login).await.unwrap();
        let heard = converse((proxy, &login), script, Some(&mut other)).await;
        other.leave().await;
        (alone, heard)
    });
    let began = |at: usize| at.checked_sub(1).and_then(|at| Some(&**alone[at].last()?));
    let differs = |at: &usize| !alike(&heard[*at], &alone[*at], began(*at).unwrap_or_default());
    let at = (0..heard.len()).find(differs)?;
    let said = script.1[..=at].iter().zip(&alone).map(|((messages, _), alone)| {
        let each = messages.iter().map(|message| message.escape_ascii().to_string());
        format!("{}\n    {}", each.collect::<Vec<_>>().join(" | "), alone.join(" | "))
    });
    let said = said.collect::<Vec<_>>().join("\n  ");
    Some(format!("  {said}\nheard instead\n    {}", heard[at].join(" | ")))
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

/// Each conversation is drawn from its number, so that it can be played again alone:
/// `FROM=429 PGSTEER_CONVERSATIONS=1`.
fn play(mode: &str) {
    let house = house(mode);
    let sql = "CREATE TABLE t (i int); GRANT ALL ON t TO PUBLIC";
    house.server("primary").rows(sql).unwrap();
    let first = from_env("FROM").unwrap_or(0);
    for number in first..first + from_env("PGSTEER_CONVERSATIONS").unwrap_or(CONVERSATIONS) {
        let mut dice = Dice::new(number);
        let script = ("drawn", (0..STEPS).map(|_| step(&mut dice)).collect());
        let found = first_difference(&house, &script);
        assert!(found.is_none(), "{mode}, conversation {number}:\n{}", found.unwrap_or_default());
    }
}

#[test]
fn what_is_said_in_any_order_is_answered_as_by_a_server() {
    play("transaction");
}

#[test]
fn what_is_said_in_any_order_is_answered_as_by_a_server_in_session_mode() {
    play("session");
}
