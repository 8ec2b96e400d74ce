//! Prepared statements of the protocol in transaction mode: they belong to the session, whatever
//! backend it is on, and no session sees another's.

use crate::raw::{Answer, Raw, bind, close, describe, execute, flush, parse, query, sync};
use crate::support::{Blueprint, House};

/// A primary alone with so many backends.
fn house(backends: &str) -> House {
    Blueprint::new().servers(|plan| plan.standbys(0)).set("pool.size", backends).build()
}

async fn run(client: &mut Raw, name: &str) -> Answer {
    client.batch(&[bind(name, &[]), execute()]).await
}

/// What a backend holds; the client's names are not on it.
const HELD: &str = "SELECT count(*) FROM pg_prepared_statements";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_follow_their_session_to_another_backend() {
    let house = house("2");
    let mut client = Raw::enter(&house).await;
    let mut holder = Raw::enter(&house).await;
    let sql = "SELECT pg_backend_pid()";
    assert_eq!(client.batch(&[parse("s", sql), describe("s")]).await.tags(), "1tTZ");
    assert_eq!(client.batch(&[parse("", sql)]).await.tags(), "1Z");
    let first = run(&mut client, "s").await.value();
    // The holder takes the backend that was used last.
    assert_eq!(holder.query("BEGIN").await.status(), 'T');
    assert_eq!(holder.value(sql).await, first);

    let second = run(&mut client, "s").await;
    assert_eq!(second.tags(), "2DCZ", "the parse that was sent ahead is not the client's");
    assert_ne!(second.value(), first);
    let unnamed = run(&mut client, "").await;
    assert_ne!(unnamed.value(), first, "the statement without a name follows as well");
    assert_eq!(client.batch(&[describe("s")]).await.tags(), "tTZ");
    assert_eq!(client.batch(&[close("s")]).await.tags(), "3Z");
    assert_eq!(run(&mut client, "s").await.code().as_deref(), Some("26000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_name_means_each_sessions_own_text() {
    let house = house("1");
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = Raw::enter(&house).await;
        // A name of the kind that pgsteer itself uses is a name like any other.
        let name = if number == 4 { "pgsteer_0" } else { "s" };
        let sql = format!("SELECT {number}");
        assert_eq!(client.batch(&[parse(name, &sql)]).await.tags(), "1Z");
        clients.push((client, name));
    }
    for _ in 0..10 {
        for (number, (client, name)) in clients.iter_mut().enumerate() {
            assert_eq!(run(client, name).await.value(), number.to_string());
        }
    }
    // One who has prepared nothing has nothing.
    let mut stranger = Raw::enter(&house).await;
    for name in ["s", "pgsteer_0", "pgsteer_1"] {
        assert_eq!(run(&mut stranger, name).await.code().as_deref(), Some("26000"));
        assert_eq!(stranger.batch(&[describe(name)]).await.code().as_deref(), Some("26000"));
    }
    assert_eq!(stranger.value("SELECT 1").await, "1");
    // Away with one session's: the others keep theirs.
    for sql in ["DISCARD ALL", "DEALLOCATE ALL"] {
        assert_eq!(stranger.query(sql).await.code(), None);
        for (number, (client, name)) in clients.iter_mut().enumerate() {
            assert_eq!(run(client, name).await.value(), number.to_string(), "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_twice_and_a_name_unknown_leave_the_session_usable() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    client.batch(&[parse("s", "SELECT 1")]).await;
    let again = client.batch(&[parse("s", "SELECT 2"), describe("s")]).await;
    assert_eq!(again.tags(), "EZ");
    assert_eq!(again.code().as_deref(), Some("42P05"));
    assert_eq!(run(&mut client, "s").await.value(), "1", "the first one stays");
    assert_eq!(run(&mut client, "unknown").await.code().as_deref(), Some("26000"));
    assert_eq!(run(&mut client, "s").await.value(), "1");
    // In a transaction the error fails it.
    assert_eq!(client.query("BEGIN").await.status(), 'T');
    assert_eq!(client.batch(&[parse("s", "SELECT 2")]).await.status(), 'E');
    assert_eq!(client.query("ROLLBACK").await.status(), 'I');
    assert_eq!(run(&mut client, "s").await.value(), "1");
    // What made the server say so is gone again.
    let mut other = Raw::enter(&house).await;
    let names = "SELECT count(*) FROM pg_prepared_statements WHERE name = 's'";
    assert_eq!(other.value(names).await, "0");
    assert_eq!(other.batch(&[parse("s", "SELECT 5")]).await.tags(), "1Z");
    assert_eq!(run(&mut other, "s").await.value(), "5");
    // A text that does not parse leaves the name free.
    let failed = other.batch(&[parse("t", "SELEC 1"), describe("t")]).await;
    assert_eq!(failed.code().as_deref(), Some("42601"));
    assert_eq!(other.batch(&[parse("t", "SELECT 6")]).await.tags(), "1Z");
    assert_eq!(run(&mut other, "t").await.value(), "6");
    // A skipped `Parse` and a skipped `Close` did not happen.
    let skipped = [bind("unknown", &[]), parse("u", "SELECT 7"), close("t")];
    assert_eq!(other.batch(&skipped).await.tags(), "EZ");
    assert_eq!(run(&mut other, "u").await.code().as_deref(), Some("26000"));
    assert_eq!(run(&mut other, "t").await.value(), "6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discard_and_deallocate_free_every_name_at_once() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    for sql in ["DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL"] {
        client.batch(&[parse("s", "SELECT 1")]).await;
        assert_eq!(client.query(sql).await.code(), None);
        assert_eq!(run(&mut client, "s").await.code().as_deref(), Some("26000"), "{sql}");
        assert_eq!(client.batch(&[parse("s", "SELECT 2")]).await.tags(), "1Z", "{sql}");
        assert_eq!(run(&mut client, "s").await.value(), "2");
        client.batch(&[close("s")]).await;
    }
    // Also before the transaction ends.
    client.batch(&[parse("s", "SELECT 1")]).await;
    assert_eq!(client.query("BEGIN").await.status(), 'T');
    assert_eq!(client.query("DEALLOCATE ALL").await.code(), None);
    assert_eq!(client.batch(&[parse("s", "SELECT 3")]).await.tags(), "1Z");
    assert_eq!(run(&mut client, "s").await.value(), "3");
    assert_eq!(client.query("COMMIT").await.status(), 'I');
    assert_eq!(run(&mut client, "s").await.value(), "3");
    // One by its name, as drivers without a `Close` do.
    assert_eq!(client.query("DEALLOCATE s").await.code(), None);
    assert_eq!(run(&mut client, "s").await.code().as_deref(), Some("26000"));
    assert_eq!(client.batch(&[parse("s", "SELECT 4")]).await.tags(), "1Z");
    let sql = [parse("", "DEALLOCATE \"s\""), bind("", &[]), execute()];
    assert_eq!(client.batch(&sql).await.code(), None);
    assert_eq!(run(&mut client, "s").await.code().as_deref(), Some("26000"));
    assert_eq!(client.query("DEALLOCATE s").await.code().as_deref(), Some("26000"));
}

/// Before 14 a server tells what `DISCARD ALL` has reset also if it was that before.
fn without_settings(answer: &Answer) -> String {
    answer.tags().replace('S', "")
}

/// A driver that pipelines does not wait for `DEALLOCATE ALL` before it prepares anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_batch_prepares_behind_its_deallocation_is_there() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    for sql in ["DISCARD ALL", "DEALLOCATE ALL", "DEALLOCATE PREPARE ALL"] {
        client.batch(&[parse("s", "SELECT 1"), parse("t", "SELECT 2"), parse("d", sql)]).await;
        assert_eq!(run(&mut client, "s").await.value(), "1");
        let run_s = [bind("s", &[]), execute()].concat();
        let forget = [bind("d", &[]), execute()].concat();
        let anew = parse("s", "SELECT 1");
        let answer = client.batch(&[forget.clone(), anew.clone(), run_s.clone()]).await;
        let tags = without_settings(&answer);
        assert_eq!((tags.as_str(), answer.code()), ("2C12DCZ", None), "{sql}");
        assert_eq!(run(&mut client, "s").await.value(), "1", "{sql}");
        assert_eq!(run(&mut client, "t").await.code().as_deref(), Some("26000"), "{sql}");
        // Without a name and behind a Flush; what it fails behind stays.
        let nameless = [parse("", sql), bind("", &[]), execute(), flush()].concat();
        client.send(&nameless).await;
        assert_eq!(without_settings(&client.until('C').await), "12C");
        let answer = client.batch(&[anew, run_s.clone(), run_s.clone(), bind("t", &[])]).await;
        assert_eq!(answer.tags(), "12DC2DCEZ", "{sql}");
        assert_eq!(run(&mut client, "s").await.value(), "1", "{sql}");
        client.batch(&[close("s")]).await;
    }
    // One that fails has forgotten nothing, and of what is behind it nothing is prepared.
    client.batch(&[parse("s", "SELECT 1"), parse("d", "DISCARD ALL")]).await;
    client.query("BEGIN").await;
    let batch = [bind("d", &[]), execute(), parse("u", "SELECT 2")];
    assert_eq!(client.batch(&batch).await.code().as_deref(), Some("25001"));
    assert_eq!(client.query("ROLLBACK").await.status(), 'I');
    assert_eq!(run(&mut client, "s").await.value(), "1");
    assert_eq!(run(&mut client, "u").await.code().as_deref(), Some("26000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_statements_than_a_backend_holds() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    let name = |number: u32| format!("s{number}");
    for from in (0..1200).step_by(100) {
        let batch: Vec<_> = (from..from + 100)
            .map(|number| parse(&name(number), &format!("SELECT {number}")))
            .collect();
        assert_eq!(client.batch(&batch).await.code(), None);
    }
    for number in (0..1200).step_by(7).chain((0..1200).step_by(11)) {
        assert_eq!(run(&mut client, &name(number)).await.value(), number.to_string());
    }
    // All in one go: what was parsed at the start is evicted by what comes later.
    let all: Vec<_> = (0..1200).flat_map(|number| [bind(&name(number), &[]), execute()]).collect();
    let values: Vec<_> = client.batch(&all).await.rows().into_iter().flatten().flatten().collect();
    assert_eq!(values, (0..1200).map(|number| number.to_string()).collect::<Vec<_>>());
    let held: u32 = client.value(HELD).await.parse().unwrap();
    assert!(held <= 500, "{held} statements on one backend");

    // The server skips behind an error, so it has evicted nothing either.
    for round in 0..20 {
        let new = format!("SELECT 'new {round}'");
        let batch =
            [bind("unknown", &[]), parse(&format!("n{round}"), &new), bind("s1", &[]), execute()];
        assert_eq!(client.batch(&batch).await.tags(), "EZ");
    }
    for number in 0..1200 {
        assert_eq!(run(&mut client, &name(number)).await.value(), number.to_string());
    }
}

/// Until this is known to be a read: once what it reads from is known.
pub(crate) async fn await_known_read(house: &House, client: &mut Raw, sql: &str) {
    let counted = |line: &str| {
        line.starts_with("pgsteer_queries_total")
            && line.contains("kind=\"read\"")
            && !line.ends_with(" 0")
    };
    while !house.http("/metrics").body.lines().any(counted) {
        client.value(sql).await;
    }
}

/// As with a server alone: the old statement fails, and a new one of the same text works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_whose_result_changed_can_be_prepared_anew() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    let mut other = Raw::enter(&house).await;
    client.value("CREATE TABLE t AS SELECT 1 AS a").await;
    let sql = "SELECT * FROM t";
    assert_eq!(client.batch(&[parse("s", sql), describe("s")]).await.tags(), "1tTZ");
    assert_eq!(run(&mut client, "s").await.rows()[0].len(), 1);
    // From then on it is known that it could be run again, if its client did not mind.
    await_known_read(&house, &mut other, "SELECT count(*) FROM t").await;
    other.value("ALTER TABLE t ADD COLUMN b int").await;
    assert_eq!(run(&mut client, "s").await.code().as_deref(), Some("0A000"));
    // Drivers do this by themselves.
    assert_eq!(client.batch(&[close("s"), parse("s", sql), describe("s")]).await.tags(), "31tTZ");
    assert_eq!(run(&mut client, "s").await.rows()[0].len(), 2);

    // One who never saw the old result is not bothered with it.
    other.value("ALTER TABLE t ADD COLUMN c int").await;
    let fresh = other.batch(&[parse("fresh", sql), describe("fresh")]).await;
    assert_eq!(fresh.tags(), "1tTZ", "{:?}", fresh.error());
    assert_eq!(run(&mut other, "fresh").await.rows()[0].len(), 3);
}

/// What is asked of the backend in between destroys its unnamed statement, and the client is not
/// to notice: `\gdesc` of psql prepares in one group and describes in the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unnamed_statement_outlives_what_pgsteer_asks() {
    for mode in ["session", "transaction"] {
        let house = Blueprint::new().set("pool.mode", mode).build();
        let mut client = Raw::enter(&house).await;
        // In either mode the session stays, and is asked for what it left.
        client.query("PREPARE given AS SELECT 1 AS first").await;
        let parsed = client.batch(&[parse("", "EXECUTE given")]).await;
        assert_eq!(parsed.tags(), "1Z", "{mode}");
        let described = client.batch(&[describe("")]).await;
        assert_eq!(described.tags(), "tTZ", "{mode}");
        let executed = client.batch(&[bind("", &[]), execute()]).await;
        assert_eq!(executed.value(), "1", "{mode}");
    }
}

/// What a session has prepared without a name is nobody else's, and its own only until it asks
/// something by a simple query, as on a server. What is too long to be kept is gone with its
/// backend: it is refused, and what another has left there is not run in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_without_a_name_is_nobody_elses_and_ends_with_the_next_query() {
    let none = Some("26000");
    for mode in ["transaction", "session"] {
        let house = Blueprint::new()
            .servers(|plan| plan.standbys(0))
            .set("pool.size", if mode == "session" { "2" } else { "1" })
            .set("pool.mode", mode)
            .build();
        let mut owner = Raw::enter(&house).await;
        let mut stranger = Raw::enter(&house).await;
        for describes in [false, true] {
            assert_eq!(owner.batch(&[parse("", "SELECT 'the owner''s'")]).await.tags(), "1Z");
            if describes {
                let seen = stranger.batch(&[describe("")]).await;
                assert_eq!(seen.code().as_deref(), none, "{mode}: {seen:?}");
            }
            let seen = run(&mut stranger, "").await;
            assert_eq!(seen.code().as_deref(), none, "{mode}: {seen:?}");
            assert_eq!(run(&mut owner, "").await.value(), "the owner's", "{mode}");
        }
        // Closed, it is gone; and so it is behind a query, also one that fails.
        for ends in [close(""), query("SELECT 1"), query("SELECT nothing"), query("")] {
            owner.batch(&[parse("", "SELECT 'the owner''s'")]).await;
            stranger.batch(&[parse("", "SELECT 'the stranger''s'")]).await;
            if ends.first() == Some(&b'Q') {
                owner.send(&ends).await;
                owner.ready().await;
            } else {
                owner.batch(&[ends]).await;
            }
            let seen = run(&mut owner, "").await;
            assert_eq!(seen.code().as_deref(), none, "{mode}: {seen:?}");
            assert_eq!(run(&mut stranger, "").await.value(), "the stranger's", "{mode}");
        }
        // What the server has passed over is not prepared; `DISCARD ALL` leaves it.
        let passed_over = [bind("nobody", &[]), parse("", "SELECT 'passed over'")];
        assert_eq!(owner.batch(&passed_over).await.code().as_deref(), none, "{mode}");
        let seen = run(&mut owner, "").await;
        assert_eq!(seen.code().as_deref(), none, "{mode}: {seen:?}");
        let discard = [parse("", "DISCARD ALL"), bind("", &[]), execute()];
        assert_eq!(owner.batch(&discard).await.code(), None, "{mode}");
        // Servers before 14 tell again what they have set back.
        let seen = run(&mut owner, "").await.tags().replace('S', "");
        assert_eq!(seen, "2CZ", "{mode}");
        let long = format!("SELECT length('{}')", "x".repeat(2 * 1024 * 1024));
        assert_eq!(owner.batch(&[parse("", &long)]).await.tags(), "1Z", "{mode}");
        stranger.batch(&[parse("", "SELECT 'the stranger''s'")]).await;
        let seen = run(&mut owner, "").await;
        assert_eq!(seen.code().as_deref(), none, "{mode}: {seen:?}");
    }
}

/// Statements of ours on the only backend.
const OURS: &str = "SELECT name FROM pg_prepared_statements WHERE NOT from_sql LIMIT 1";

/// Code that is not in the text may take away what all share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_code_has_taken_away_is_prepared_anew_for_everybody() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    let mut other = Raw::enter(&house).await;
    client.value("CREATE TABLE t (i int)").await;
    let mut narrow = Raw::enter(&house).await;
    narrow.value("SET standard_conforming_strings = off").await;
    let texts = ["SELECT 41", "INSERT INTO t VALUES (1)", "SELECT 42"];
    for (number, text) in texts.iter().enumerate() {
        let name = number.to_string();
        assert_eq!(other.batch(&[parse(&name, text)]).await.tags(), "1Z");
    }
    let one = "DO $$DECLARE which text; BEGIN FOR which IN SELECT name FROM \
        pg_prepared_statements LOOP EXECUTE 'DEALLOCATE ' || which; END LOOP; END$$";
    for takes_away in ["DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$", one, "DEALLOCATE"] {
        for name in ["0", "1", "2"] {
            assert_eq!(run(&mut other, name).await.code(), None, "before {takes_away}");
        }
        if takes_away == "DEALLOCATE" {
            // A text that nobody looks into.
            let ours = narrow.value(OURS).await;
            assert_eq!(narrow.query(&format!("DEALLOCATE {ours}")).await.code(), None);
        } else {
            assert_eq!(client.query(takes_away).await.code(), None, "{takes_away}");
        }
        for name in ["1", "0", "2"] {
            let answer = run(&mut other, name).await;
            assert_eq!(answer.code(), None, "{takes_away}: {name}: {answer:?}");
        }
        // And for who prepares the same text only now.
        let mut third = Raw::enter(&house).await;
        let batch = [parse("s", texts[1]), bind("s", &[]), execute()];
        assert_eq!(third.batch(&batch).await.code(), None, "{takes_away}");
    }
}

/// Where nobody asks what is left on a backend, it is noticed when it is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_what_was_taken_away_unseen_is_prepared_anew() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .set("pool.size", "1")
        .set("pool.reset", "off")
        .build();
    let mut client = Raw::enter(&house).await;
    let mut other = Raw::enter(&house).await;
    assert_eq!(other.batch(&[parse("s", "SELECT 41")]).await.tags(), "1Z");
    assert_eq!(other.batch(&[parse("t", "SELECT 42")]).await.tags(), "1Z");
    client.query("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$").await;
    assert_eq!(run(&mut other, "s").await.value(), "41");
    assert_eq!(run(&mut other, "t").await.value(), "42");
    client.query("DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$").await;
    let batch = [parse("u", "SELECT 41"), bind("u", &[]), execute()];
    assert_eq!(other.batch(&batch).await.value(), "41");
}

/// What a backend holds under our names is there for nobody who speaks SQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_ours_stands_for_nothing_in_sql() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    let mut other = Raw::enter(&house).await;
    assert_eq!(other.batch(&[parse("s", "SELECT 'of the other'")]).await.tags(), "1Z");
    assert_eq!(other.batch(&[parse("w", "CREATE TABLE IF NOT EXISTS u ()")]).await.tags(), "1Z");
    for name in ["s", "w"] {
        assert_eq!(run(&mut other, name).await.code(), None);
    }
    let ours = client.value(OURS).await;
    for names in ["EXECUTE", "DEALLOCATE", "DEALLOCATE PREPARE", "SELECT 1; DEALLOCATE"] {
        let sql = format!("{names} {ours}");
        let answer = client.query(&sql).await;
        assert_eq!(answer.code().as_deref(), Some("26000"), "{sql}");
        assert_eq!(answer.status(), 'I', "{sql}");
        let told = answer.error().unwrap().field(b'M').unwrap();
        assert_eq!(told, format!("prepared statement \"{ours}\" does not exist"), "{sql}");
        // In a transaction it fails as a server's own does.
        client.query("BEGIN").await;
        let answer = client.query(&sql).await;
        assert_eq!((answer.code().as_deref(), answer.status()), (Some("26000"), 'E'), "{sql}");
        assert_eq!(client.query("ROLLBACK").await.status(), 'I', "{sql}");
        if !names.contains(';') {
            let batch = [parse("", &sql), bind("", &[]), execute()];
            assert_eq!(client.batch(&batch).await.code().as_deref(), Some("26000"), "{sql}");
        }
    }
    let prepare = format!("PREPARE {ours} AS SELECT 'of SQL'");
    assert_eq!(client.query(&prepare).await.code().as_deref(), Some("26000"));
    // By the protocol it is a name like any other; nor does SQL mix the two up.
    let given = [parse(&ours, "SELECT 'of the client'"), bind(&ours, &[]), execute()];
    assert_eq!(client.batch(&given).await.value(), "of the client");
    assert_eq!(client.query(&format!("EXECUTE {ours}")).await.code().as_deref(), Some("26000"));
    assert_eq!(run(&mut client, &ours).await.value(), "of the client");
    for name in ["w", "s"] {
        let answer = run(&mut other, name).await;
        assert_eq!(answer.code(), None, "{name}: {answer:?}");
    }
    assert_eq!(run(&mut other, "s").await.value(), "of the other");
    // A name that only begins alike is the client's.
    assert_eq!(client.batch(&[parse("pgsteer_mine", "SELECT 'mine'")]).await.tags(), "1Z");
    assert_eq!(client.value("EXECUTE pgsteer_mine").await, "mine");
    assert_eq!(client.query("DEALLOCATE pgsteer_mine").await.code(), None);
    assert_eq!(run(&mut client, "pgsteer_mine").await.code().as_deref(), Some("26000"));
}

/// However often a transaction says by SQL what the protocol has prepared, that is one name to be
/// taken off its backend; and one for each encoding in which it was said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_a_transaction_says_again_and_again_is_taken_back_once() {
    let house = house("1");
    let mut client = Raw::enter(&house).await;
    for (name, encodings, names) in [("s", 1, 1), ("é", 1, 1), ("é", 3, 2)] {
        let looked_for = [0, 1, 2].map(|number| format!("({number},pg_catalog.convert_from("));
        let asked = || looked_for.each_ref().map(|row| house.server("primary").logged(row));
        assert_eq!(client.batch(&[parse(name, "SELECT 'it'")]).await.code(), None);
        let before = asked();
        assert_eq!(client.query("BEGIN").await.status(), 'T');
        for encoding in ["UTF8", "LATIN1", "UTF8"].into_iter().take(encodings) {
            client.query(&format!("SET client_encoding = {encoding}")).await;
            for _ in 0..3 {
                assert_eq!(client.value(&format!("EXECUTE \"{name}\"")).await, "it");
            }
        }
        assert_eq!(client.query("COMMIT").await.status(), 'I');
        let behind = asked();
        for (number, (before, behind)) in before.into_iter().zip(behind).enumerate() {
            let expected = usize::from(number < names);
            assert_eq!(behind - before, expected, "{name} in {encodings}: {number}");
        }
        assert_eq!(run(&mut client, name).await.value(), "it", "it is its client's as it was");
        assert_eq!(client.batch(&[close(name)]).await.tags(), "3Z");
    }
}
