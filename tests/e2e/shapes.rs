//! Statements that pgsteer shares between sessions mean what they would mean if each session had
//! a server of its own: also behind DDL, on a standby that lags, and beside temporary tables.
//!
//! Each promise is tried with the named statements that are always shared, and with statements
//! without a name under `pool.unnamed_statements = "reuse"`.

use crate::prepared::await_known_read;
use crate::raw::{Answer, Message, Raw, bind, describe, execute, parse, sync};
use crate::support::{Blueprint, House, await_that, synchronous};

const REUSE: (&str, &str) = ("pool.unnamed_statements", "reuse");
/// Both kinds of name; the second is none.
const NAMES: [&str; 2] = ["s", ""];
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;

/// A primary alone, with one backend that everybody shares.
fn house() -> House {
    let (key, value) = REUSE;
    Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "1").set(key, value).build()
}

/// So often a text without a name is sent before it is shared for certain: it comes twice first.
const OFTEN: usize = 4;

/// Prepares it and runs it in one batch, as drivers do.
async fn ask(client: &mut Raw, name: &str, sql: &str, parameters: &[&[u8]]) -> Answer {
    client.batch(&[parse(name, sql), describe(name), bind(name, parameters), execute()]).await
}

/// As often as it takes, by a session of its own each time, so that names are free.
async fn ask_often(house: &House, name: &str, sql: &str, parameters: &[&[u8]]) -> Answer {
    let mut last = None;
    for _ in 0..OFTEN {
        let mut client = Raw::enter(house).await;
        let answer = ask(&mut client, name, sql, parameters).await;
        assert!(answer.error().is_none(), "{sql}: {:?}", answer.error());
        last = Some(answer);
        client.leave().await;
    }
    last.unwrap()
}

/// The type of the statement's first parameter.
fn parameter(answer: &Answer) -> u32 {
    let told = answer.0.iter().find(|message| message.tag() == 't');
    let Message(bytes) = told.unwrap_or_else(|| panic!("{answer:?}"));
    u32::from_be_bytes(bytes[7..11].try_into().unwrap())
}

/// How many of our statements the one backend holds.
async fn held(house: &House) -> usize {
    let mut client = Raw::enter(house).await;
    let sql = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'pgsteer\\_%'";
    client.value(sql).await.parse().unwrap()
}

/// Makes tables, and waits until a read of one of them is known as such.
async fn set_up(house: &House, sql: &[&str], table: &str) {
    for sql in sql {
        house.server("primary").rows(sql).unwrap();
    }
    let mut client = Raw::enter(house).await;
    await_known_read(house, &mut client, &format!("SELECT count(*) FROM {table}")).await;
    client.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_without_a_name_is_prepared_once_a_backend() {
    let house = house();
    set_up(&house, &["CREATE TABLE items AS SELECT 7 AS id"], "items").await;
    let hits = || house.metric("pgsteer_prepared_cache_requests_total{result=\"hit\"}").unwrap();
    let before = hits();
    for number in 0..10 {
        let mut client = Raw::enter(&house).await;
        let answer = ask(&mut client, "", "SELECT id FROM items WHERE id = $1", &[b"7"]).await;
        assert_eq!(answer.tags(), "1tT2DCZ", "{number}");
        assert_eq!(answer.value(), "7");
        // In a group of its own, and described before it is bound.
        let alone = client.batch(&[parse("", "SELECT id + 1 FROM items"), describe("")]).await;
        assert_eq!(alone.tags(), "1tTZ");
        assert_eq!(client.batch(&[bind("", &[]), execute()]).await.value(), "8");
    }
    assert_eq!(held(&house).await, 2);
    assert!(hits() >= before + 16.0, "{before} {}", hits());

    // What comes once is not kept, nor what is read anew each time, or runs in a transaction.
    let mut client = Raw::enter(&house).await;
    for number in 0..50 {
        ask(&mut client, "", &format!("SELECT {number} FROM items"), &[]).await;
        ask(&mut client, "", "SELECT 'now'::timestamptz FROM items", &[]).await;
        ask(&mut client, "", "INSERT INTO items VALUES (1)", &[]).await;
        client.query("BEGIN").await;
        ask(&mut client, "", "SELECT max(id) FROM items", &[]).await;
        client.query("COMMIT").await;
    }
    assert_eq!(held(&house).await, 2);
}

/// `'now'` is the moment at which the text is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_goes_on_in_statements_without_a_name() {
    let house = house();
    set_up(&house, &["CREATE TABLE items AS SELECT 7 AS id"], "items").await;
    for sql in ["SELECT 'now'::timestamptz::text FROM items", "SELECT now()::text FROM items"] {
        let first = ask_often(&house, "", sql, &[]).await.value();
        assert_ne!(ask_often(&house, "", sql, &[]).await.value(), first, "{sql}");
    }
}

/// Nor is it another session's moment where the text has a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_goes_on_in_statements_that_sessions_name() {
    let house = house();
    set_up(&house, &["CREATE TABLE items AS SELECT 7 AS id"], "items").await;
    for sql in ["SELECT 'now'::timestamptz::text", "SELECT ('{NOW}'::timestamptz[])[1]::text"] {
        let first = ask_often(&house, "s", sql, &[]).await.value();
        assert_ne!(ask_often(&house, "s", sql, &[]).await.value(), first, "{sql}");
    }
    // The opposite: what has no such string is prepared once for all.
    let before = held(&house).await;
    ask_often(&house, "s", "SELECT 'then', now()", &[]).await;
    assert_eq!(held(&house).await, before + 1);
}

/// A parameter has the type that its column has now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_behind_ddl_is_read_anew() {
    let house = house();
    set_up(&house, &["CREATE TABLE items (name text, at date)"], "items").await;
    let changes: [&[&str]; 4] = [
        &["ALTER TABLE items ALTER at TYPE timestamp"],
        &["BEGIN", "ALTER TABLE items ALTER at TYPE timestamp", "SELECT 1", "COMMIT"],
        &["DO 'BEGIN ALTER TABLE items ALTER at TYPE timestamp; END'"],
        &["ALTER TABLE items ALTER at TYPE timestamp; SELECT 1"],
    ];
    for name in NAMES {
        for change in changes {
            let sql = "SELECT count(*) FROM items WHERE at > $1";
            let before = ask_often(&house, name, sql, &[b"2024-01-01 10:00"]).await;
            assert_eq!(parameter(&before), DATE, "{change:?}");
            let mut other = Raw::enter(&house).await;
            for sql in change {
                assert_eq!(other.query(sql).await.code(), None, "{sql}");
            }
            let after = ask(&mut other, name, sql, &[b"2024-01-01 10:00"]).await;
            assert_eq!(parameter(&after), TIMESTAMP, "{name:?} {change:?}");
            assert_eq!(other.query("ALTER TABLE items ALTER at TYPE date").await.code(), None);
            other.leave().await;
        }
    }
}

/// Others hear of it at once, whenever it gives its backend back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ddl_of_a_session_that_keeps_its_backend_counts_at_once() {
    let (key, value) = REUSE;
    let plan = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2");
    let house = plan.set(key, value).build();
    set_up(&house, &["CREATE TABLE items (name text, at date)"], "items").await;
    let mut keeper = Raw::enter(&house).await;
    assert_eq!(keeper.query("CREATE TEMP TABLE mine (i int)").await.code(), None);
    for name in NAMES {
        let sql = "SELECT count(*) FROM items WHERE at > $1";
        let before = ask_often(&house, name, sql, &[b"2024-01-01 10:00"]).await;
        assert_eq!(parameter(&before), DATE, "{name:?}");
        keeper.query("ALTER TABLE items ALTER at TYPE timestamp").await;
        let after = ask_often(&house, name, sql, &[b"2024-01-01 10:00"]).await;
        assert_eq!(parameter(&after), TIMESTAMP, "{name:?}");
        keeper.query("ALTER TABLE items ALTER at TYPE date").await;
    }
}

/// A name means the first of its kind on the path, also if that came last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hides_another_is_found() {
    let house = house();
    let (schema, things) = ("CREATE SCHEMA early", "CREATE TABLE things AS SELECT 1 AS n");
    set_up(&house, &[schema, things], "things").await;
    for name in NAMES {
        let sql = "SELECT n FROM things";
        let mut client = Raw::enter(&house).await;
        client.query("SET search_path = early, public").await;
        for _ in 0..OFTEN {
            assert_eq!(ask(&mut client, "", sql, &[]).await.value(), "1");
        }
        if !name.is_empty() {
            assert_eq!(ask(&mut client, "before", sql, &[]).await.value(), "1");
        }
        let mut other = Raw::enter(&house).await;
        other.query("CREATE TABLE early.things AS SELECT 2 AS n").await;
        assert_eq!(ask(&mut client, name, sql, &[]).await.value(), "2", "{name:?}");
        assert_eq!(other.query("DROP TABLE early.things").await.code(), None);
        assert_eq!(ask(&mut other, name, sql, &[]).await.value(), "1", "{name:?}");
    }
}

/// What a prepared transaction has made is there when somebody commits it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_prepared_counts_when_it_is_committed() {
    let (key, value) = REUSE;
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0).setting("max_prepared_transactions", "10"))
        .set("pool.size", "1")
        .set(key, value)
        .build();
    let (schema, things) = ("CREATE SCHEMA early", "CREATE TABLE things AS SELECT 1 AS n");
    set_up(&house, &[schema, things], "things").await;
    for name in NAMES {
        let mut other = Raw::enter(&house).await;
        let hides = "CREATE TABLE early.things AS SELECT 2 AS n";
        for sql in ["BEGIN", hides, "PREPARE TRANSACTION 'later'"] {
            assert_eq!(other.query(sql).await.code(), None, "{sql}");
        }
        let sql = "SELECT n FROM things";
        let mut client = Raw::enter(&house).await;
        client.query("SET search_path = early, public").await;
        for _ in 0..OFTEN {
            assert_eq!(ask(&mut client, "", sql, &[]).await.value(), "1");
        }
        assert_eq!(ask(&mut client, "before", sql, &[]).await.value(), "1");
        assert_eq!(other.query("COMMIT PREPARED 'later'").await.code(), None);
        assert_eq!(ask(&mut client, name, sql, &[]).await.value(), "2", "{name:?}");
        assert_eq!(other.query("DROP TABLE early.things").await.code(), None);
    }
}

/// DDL that its client is told to be in doubt was committed: it counts from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ddl_that_is_in_doubt_counts_at_once() {
    let (key, value) = REUSE;
    let plan = Blueprint::new().servers(|plan| plan.standbys(1)).set("pool.size", "2");
    let house = plan.set(key, value).build();
    set_up(&house, &["CREATE TABLE items (name text, at date)"], "items").await;
    let primary = house.server("primary");
    let mut keeper = Raw::enter(&house).await;
    assert_eq!(keeper.query("CREATE TEMP TABLE mine (i int)").await.code(), None);
    let sql = "/* pgsteer: role=primary */ SELECT count(*) FROM items WHERE at > $1";
    synchronous(primary, "ANY 1 (standby1)");
    house.server("standby1").sigstop_process("walreceiver");
    for (name, kind, there) in [("s", "timestamp", TIMESTAMP), ("", "date", DATE)] {
        let before = ask_often(&house, name, sql, &[b"2024-01-01"]).await;
        assert_ne!(parameter(&before), there, "{name:?}");
        let change = format!("ALTER TABLE items ALTER at TYPE {kind}");
        keeper.send(&crate::raw::query(&change)).await;
        let waits = "SELECT count(*) FROM pg_stat_activity \
                     WHERE wait_event = 'SyncRep' AND query LIKE 'ALTER TABLE items%'";
        primary.await_value(waits, "1", "waiting for its standby").unwrap();
        keeper.cancel().await;
        assert_eq!(keeper.ready().await.code().as_deref(), Some("08007"), "{name:?}");
        let after = ask_often(&house, name, sql, &[b"2024-01-01"]).await;
        assert_eq!(parameter(&after), there, "{name:?}");
    }
    house.server("standby1").sigcont();
}

/// So does a temporary table, to its own session only; on a backend that had some before, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_table_hides_another_from_its_session_only() {
    let house = house();
    set_up(&house, &["CREATE TABLE things AS SELECT 1 AS n"], "things").await;
    for name in NAMES {
        let sql = "SELECT n FROM things";
        for round in 0..2 {
            let mut first = Raw::enter(&house).await;
            first.query("CREATE TEMP TABLE passing AS SELECT 1").await;
            assert_eq!(first.query("DROP TABLE passing").await.code(), None);
            first.leave().await;
            assert_eq!(ask_often(&house, name, sql, &[]).await.value(), "1");

            let mut own = Raw::enter(&house).await;
            own.query("CREATE TEMP TABLE things AS SELECT 2 AS n").await;
            assert_eq!(ask(&mut own, name, sql, &[]).await.value(), "2", "{name:?} {round}");
            assert_eq!(own.query("DROP TABLE pg_temp.things").await.code(), None);
            own.leave().await;
            assert_eq!(ask_often(&house, name, sql, &[]).await.value(), "1", "{name:?} {round}");
        }
    }
}

/// Nobody told pgsteer: the statement does not fit any more, and is prepared and run once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_any_more_is_prepared_anew() {
    let house = house();
    set_up(&house, &["CREATE TABLE items AS SELECT 7 AS id"], "items").await;
    let primary = house.server("primary");
    for name in NAMES {
        for (there, back) in [
            ("ALTER TABLE items ALTER id TYPE text", "ALTER TABLE items ALTER id TYPE int USING 7"),
            ("ALTER TABLE items ADD COLUMN more int", "ALTER TABLE items DROP COLUMN more"),
        ] {
            let sql = "SELECT * FROM items WHERE id = $1";
            let before = ask_often(&house, name, sql, &[b"7"]).await;
            assert_eq!(before.rows()[0].len(), 1);
            primary.rows(there).unwrap();
            let mut client = Raw::enter(&house).await;
            let after = ask(&mut client, name, sql, &[b"7"]).await;
            assert_eq!(after.tags(), "1tT2DCZ", "{name:?} {there}: {:?}", after.error());
            assert_eq!(after.value(), "7");
            primary.rows(back).unwrap();
            let again =
                ask(&mut client, if name.is_empty() { "" } else { "t" }, sql, &[b"7"]).await;
            assert_eq!(again.tags(), "1tT2DCZ", "{name:?} {back}: {:?}", again.error());
            client.leave().await;
        }
    }
    // An error that is the client's own is told once, and nothing else of it.
    let mut client = Raw::enter(&house).await;
    for _ in 0..OFTEN {
        let sql = "SELECT * FROM items WHERE id = $1";
        let wrong = ask(&mut client, "", sql, &[b"none"]).await;
        assert_eq!((wrong.tags(), wrong.code()), ("1tTEZ".to_owned(), Some("22P02".to_owned())));
        assert_eq!(ask(&mut client, "", sql, &[b"7"]).await.value(), "7");
        assert_eq!(ask(&mut client, "", "SELEC 1", &[]).await.code().as_deref(), Some("42601"));
    }
}

/// A cancel is no sign that the statement does not fit: it is not run again behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_while_it_is_planned_is_over() {
    let (key, value) = REUSE;
    let plan = Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", "2");
    let house = plan.set(key, value).build();
    set_up(&house, &["CREATE TABLE items AS SELECT 7 AS id"], "items").await;
    let primary = house.server("primary");
    for name in NAMES {
        let mut holder = Raw::enter(&house).await;
        assert_eq!(holder.query("BEGIN; SELECT 1").await.status(), 'T');
        let sql = "SELECT count(*) FROM items WHERE id = $1";
        ask_often(&house, name, sql, &[b"7"]).await;
        assert_eq!(holder.query("LOCK TABLE items").await.code(), None);
        let mut client = Raw::enter(&house).await;
        let batch = [parse(name, sql), bind(name, &[b"7"]), execute(), sync()].concat();
        client.send(&batch).await;
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        primary.await_value(waits, "1", "it waits for the table").unwrap();
        client.cancel().await;
        primary.await_value(waits, "0", "it is not run again").unwrap();
        let answer = client.ready().await;
        assert_eq!(answer.code().as_deref(), Some("57014"), "{name:?} {answer:?}");
        assert_eq!(holder.query("ROLLBACK").await.code(), None);
        holder.leave().await;
        client.leave().await;
    }
}

/// A standby reads a text as its database was before the change, until it has replayed it: that is
/// nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lags_shares_nothing_that_it_may_read_otherwise_later() {
    let (key, value) = REUSE;
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1))
        .set("pool.size", "1")
        .set("routing.consistency", "eventual")
        .set(key, value)
        .any_lag()
        .unhurried()
        .build();
    set_up(&house, &["CREATE TABLE items (name text, at date)"], "items").await;
    let standby = house.server("standby1");
    let sql = "SELECT count(*) FROM items WHERE at > $1";
    for name in NAMES {
        await_that("the standby has what the primary has", || {
            standby.value("SELECT count(*) FROM items").is_ok()
        });
        let before = ask_often(&house, name, sql, &[b"2024-01-01 10:00"]).await;
        assert_eq!(parameter(&before), DATE, "{name:?}");
        standby.pause_replay().unwrap();
        let mut other = Raw::enter(&house).await;
        let change = "ALTER TABLE items ALTER at TYPE timestamp";
        assert_eq!(other.query(change).await.code(), None);
        // It serves, and reads it the old way.
        let meanwhile = ask_often(&house, name, sql, &[b"2024-01-01 10:00"]).await;
        assert_eq!(parameter(&meanwhile), DATE, "{name:?}: the accident was never at stake");
        standby.resume_replay().unwrap();
        let kind = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'items'::regclass \
                    AND attname = 'at' AND atttypid = 'timestamp'::regtype";
        standby.await_value(kind, "1", "the change is replayed").unwrap();
        let after = ask_often(&house, name, sql, &[b"2024-01-01 10:00"]).await;
        assert_eq!(parameter(&after), TIMESTAMP, "{name:?}");
        assert_eq!(other.query("ALTER TABLE items ALTER at TYPE date").await.code(), None);
        let kind = kind.replace("timestamp", "date");
        standby.await_value(&kind, "1", "the change back is replayed").unwrap();
        other.leave().await;
    }
}
