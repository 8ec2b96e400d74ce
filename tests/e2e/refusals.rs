//! What pgsteer says by itself in the middle of a pipeline stands behind the answers to what was
//! sent before it, and only where a server would have come to it.

use crate::raw::{Answer, Raw, bind, execute, flush, parse, query, sync};
use crate::support::{Blueprint, House};
use pgsteer::session::GROUP_MAX;

const WHERE: &str = "SELECT pg_is_in_recovery() FROM items LIMIT 1";

fn house() -> House {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(1))
        .toml(
            "[limits]\nrules = [{ user = \"few\", max_prepared = 1 }, \
             { user = \"little\", max_memory = \"4kB\" }]",
        )
        .unhurried()
        .any_lag()
        .build();
    for sql in [
        "CREATE TABLE items AS SELECT 1 AS id",
        "CREATE SEQUENCE ids",
        "CREATE ROLE few LOGIN",
        "CREATE ROLE little LOGIN",
        "GRANT ALL ON items TO PUBLIC",
    ] {
        house.server("primary").rows(sql).unwrap();
    }
    house.await_catalog();
    house
}

fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), execute()].concat()
}

/// One way to be refused.
struct Refusal {
    what: &'static str,
    user: &'static str,
    begin: Option<&'static str>,
    group: Vec<u8>,
    code: &'static str,
}

/// Each of those that may meet a group behind another one without a `Sync` between.
fn refusals() -> Vec<Refusal> {
    let long = "x".repeat(5000);
    let prepares = [parse("one", "SELECT 1"), parse("two", "SELECT 2")].concat();
    let keeps = parse("long", &format!("SELECT '{long}'"));
    let wrong = run("SET pgsteer.role = 'master'");
    let of = |what, user, begin, group: &Vec<u8>, code| {
        let group = group.clone();
        Refusal { what, user, begin, group, code }
    };
    let draw = run("SELECT nextval('ids')");
    vec![
        of("not on a standby", "postgres", Some("BEGIN READ ONLY"), &draw, "25006"),
        of("too many statements", "few", Some("BEGIN"), &prepares, "53400"),
        of("too many statements alone", "few", None, &prepares, "53400"),
        of("too much memory", "little", Some("BEGIN"), &keeps, "53400"),
        of("a wrong wish", "postgres", Some("BEGIN"), &wrong, "22023"),
        of("a wrong wish on a standby", "postgres", Some("BEGIN READ ONLY"), &wrong, "22023"),
        of("a wrong wish alone", "postgres", None, &wrong, "22023"),
    ]
}

/// How the two groups come.
#[derive(Debug, Clone, Copy)]
enum Come {
    Together,
    /// The second when the first was answered.
    Apart,
}

/// A session in the transaction that the refusal needs.
async fn begun(house: &House, refusal: &Refusal) -> Raw {
    let mut client = Raw::enter_as(house, refusal.user).await;
    if let Some(begin) = refusal.begin {
        if begin.ends_with("ONLY") {
            while client.value(WHERE).await != "t" {}
        }
        client.query(begin).await;
        let standby = if begin.ends_with("ONLY") { "t" } else { "f" };
        assert_eq!(client.value(WHERE).await, standby, "{}", refusal.what);
    }
    client
}

/// Sends two groups, the first of which ends with `Flush`; all answers up to a `Z`.
async fn say(
    client: &mut Raw,
    first: &str,
    (second, end): (&[u8], &[u8]),
    (come, last): (Come, char),
) -> Answer {
    let first = [run(first), flush()].concat();
    let second = [second, end].concat();
    match come {
        Come::Together => {
            client.send(&[first, second].concat()).await;
            client.ready().await
        }
        Come::Apart => {
            client.send(&first).await;
            let mut answer = client.until(last).await;
            client.send(&second).await;
            answer.0.extend(client.ready().await.0);
            answer
        }
    }
}

/// Every refusal, as the second group behind `first`, whose answer comes up to `last`: what is
/// heard of it, by its tags and its code.
async fn each_behind(
    (first, last): (&str, char),
    expected: impl Fn(&Refusal) -> (&'static str, &'static str),
) {
    let house = house();
    for refusal in refusals() {
        let what = refusal.what;
        for end in [sync(), [flush(), sync()].concat()] {
            for come in [Come::Together, Come::Apart] {
                let mut client = begun(&house, &refusal).await;
                let second = (refusal.group.as_slice(), end.as_slice());
                let answer = say(&mut client, first, second, (come, last)).await;
                let status = if refusal.begin.is_some() { 'E' } else { 'I' };
                let heard = (answer.tags(), answer.code(), answer.status());
                let (tags, code) = expected(&refusal);
                let expected = (tags.to_owned(), Some(code.to_owned()), status);
                assert_eq!(heard, expected, "{what}, {come:?}: {answer:?}");
                goes_on(&mut client, &refusal).await;
            }
        }
    }
}

/// The first group has failed: a server passes over all that comes before `Sync`, and so nobody
/// is refused anything, nor is anything heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_what_has_failed_nothing_is_refused() {
    each_behind(("SELECT 1/0", 'E'), |_| ("1EZ", "22012")).await;
}

/// The first group has succeeded: its answers go first, and the refusal fails what both are in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_stands_behind_the_answers_to_what_came_before() {
    each_behind(("SELECT 7", 'C'), |refusal| ("12DCEZ", refusal.code)).await;
}

/// What was refused has failed its transaction, and the next one is a new one.
async fn goes_on(client: &mut Raw, refusal: &Refusal) {
    let what = refusal.what;
    if refusal.begin.is_some() {
        let failed = client.batch(&[run("SELECT 1")]).await;
        assert_eq!(failed.code().as_deref(), Some("25P02"), "{what}");
        assert_eq!(client.query("ROLLBACK").await.status(), 'I', "{what}");
    }
    assert_eq!(client.batch(&[run("SELECT 1")]).await.value(), "1", "{what}");
    assert_eq!(client.value("SHOW pgsteer.role").await, "auto", "{what}");
}

/// What was done without a `Sync` is undone by a refusal behind it, as by any error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_undoes_the_batch_that_it_ends() {
    let house = house();
    for end in [sync(), [flush(), sync()].concat()] {
        for come in [Come::Together, Come::Apart] {
            let mut client = Raw::enter(&house).await;
            let wrong = run("SET pgsteer.role = 'master'");
            let second = (wrong.as_slice(), end.as_slice());
            let insert = "INSERT INTO items VALUES (9)";
            let answer = say(&mut client, insert, second, (come, 'C')).await;
            assert_eq!((answer.tags().as_str(), answer.status()), ("12CEZ", 'I'), "{come:?}");
            let count = "SELECT count(*) FROM items WHERE id = 9";
            assert_eq!(house.server("primary").value(count).unwrap(), "0", "{come:?}");
        }
    }
}

/// A batch that outgrows what is buffered is sent in parts, and nobody has asked for the answers to
/// the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_waits_for_a_part_that_ended_without_flush() {
    let house = house();
    let long = format!("SELECT 7 /* {} */", "x".repeat(300_000));
    let mut client = Raw::enter(&house).await;
    client.query("BEGIN").await;
    let part = [run(&long), run(&long), run(&long), run(&long)].concat();
    let answer = client.batch(&[part, run("SET pgsteer.role = 'master'")]).await;
    let tags = answer.tags();
    assert!(tags.starts_with("12DC12DC") && tags.ends_with("EZ"), "{tags}");
    assert_eq!((answer.code().as_deref(), answer.status()), (Some("22023"), 'E'));
    assert_eq!(client.query("ROLLBACK").await.status(), 'I');
}

/// A query behind a batch that was cut right before it waits for what comes of that: if it fails,
/// the server passes over the query, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_behind_a_batch_that_was_cut_is_passed_over_if_that_fails() {
    let house = house();
    let rest = [bind("", &[]), execute()].concat();
    for (sql, tags) in [("SELECT 1/0", "1EZ"), ("SELECT 7", "12DCTDCZ")] {
        let text = |more: usize| format!("{sql} /* {} */", "x".repeat(more));
        // It is cut where its last message ends.
        let missing = GROUP_MAX - parse("", &text(0)).len() - rest.len();
        let batch = [parse("", &text(missing)), rest.clone()].concat();
        assert_eq!(batch.len(), GROUP_MAX);
        for asked in ["SELECT 8", "SHOW pgsteer.role"] {
            let mut client = Raw::enter(&house).await;
            // What has failed is passed over up to there.
            let end = if tags == "1EZ" { sync() } else { Vec::new() };
            client.send(&[batch.clone(), query(asked), end].concat()).await;
            assert_eq!(client.ready().await.tags(), tags, "{sql}, {asked}");
            assert_eq!(client.value("SELECT 9").await, "9", "{sql}, {asked}");
        }
    }
}
