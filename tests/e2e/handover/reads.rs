//! More rows of the table: transactions that have only read, data on its way to the client, and
//! transactions that are prepared for a commit in two phases.

use super::*;
use crate::support::Ended;

#[test]
fn who_read_copied_or_prepared_at_a_killed_primary_is_told_what_became_of_it() {
    live_through(Loss::Killed);
}

#[test]
fn who_read_copied_or_prepared_at_a_hung_primary_is_told_what_became_of_it() {
    live_through(Loss::Hung);
}

const TABLES: [&str; 3] = [
    "CREATE TABLE deferred (id int)",
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
     'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION slow()",
];

/// A session of the primary that has read in a transaction, in this way.
fn has_read(scene: &Scene, how: fn(&mut Wire, &str) -> Reply) -> Wire {
    let mut wire = scene.house.wire();
    assert!(how(&mut wire, "BEGIN").is_good());
    let read = how(&mut wire, "SELECT count(*) FROM ledger");
    assert!(read.is_good(), "{read:?}");
    wire
}

/// A `COPY` of which the client has seen a part, and which goes on for ever.
fn copies(scene: &Scene) -> Waits {
    let mut wire = scene.house.wire();
    wire.run("SET pgsteer.role = 'primary'");
    let rows = "SELECT repeat('x', 300) FROM generate_series(1, 5000) UNION ALL \
                SELECT count(*)::text FROM generate_series(1, 2000000000)";
    wire.send(&query(&format!("COPY ({rows}) TO STDOUT /* copies out */"))).unwrap();
    let mut seen = 0;
    while seen < 1000 {
        seen += usize::from(wire.message().unwrap()[0] == b'd');
    }
    ask(wire, Vec::new())
}

/// One transaction that was prepared, and one that is being prepared.
fn prepares(scene: &Scene) -> Waits {
    let mut wire = scene.house.wire();
    wire.run("BEGIN");
    wire.run("INSERT INTO ledger VALUES (90)");
    wire.run("PREPARE TRANSACTION 'kept'");
    scene.house.cluster.await_replay().unwrap();
    wire.run("BEGIN");
    wire.run("INSERT INTO deferred VALUES (1)");
    let waits = ask(wire, query("PREPARE TRANSACTION 'doubt' /* prepares */"));
    await_that("it prepares", || scene.runs("primary", "/* prepares */") > 0);
    waits
}

fn live_through(how: Loss) {
    let scene = Scene::new("", &TABLES);
    let mut readers = [has_read(&scene, Wire::query), has_read(&scene, Wire::extended)].into_iter();
    let (mut reads, mut ends) = (readers.next().unwrap(), readers.next().unwrap());
    let (copying, preparing) = (copies(&scene), prepares(&scene));
    scene.lose(how);
    let changed = scene.take_over();

    // What it read is of the old primary: it goes on from there nowhere else.
    let lost = reads.query("SELECT count(*) FROM ledger");
    assert_eq!((lost.codes(), lost.ended), (vec!["40001"], Ended::Ready('E')), "{lost:?}");
    assert_eq!(reads.query("SELECT 1").codes(), ["25P02"]);
    reads.run("ROLLBACK");
    ends.run("ROLLBACK");

    let (reply, copying) = copying.end(changed);
    assert_eq!((reply.codes(), reply.ended), (vec!["40001"], Ended::Ready('I')), "{reply:?}");

    let (reply, mut preparing) = preparing.end(changed);
    assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
    assert_eq!(scene.runs("standby1", "/* prepares */"), 0, "it was sent again");
    let left = preparing.run("SELECT gid FROM pg_prepared_xacts ORDER BY gid").rows;
    assert_eq!(left, [[Some("kept".to_owned())]], "what was prepared before outlives the primary");
    preparing.run("COMMIT PREPARED 'kept'");
    assert_eq!(scene.count(90), 1);

    for mut wire in [reads, ends, copying, preparing] {
        wire.run("INSERT INTO ledger VALUES (91)");
    }
    assert_eq!(scene.count(91), 4);
}

/// It has nothing to commit, so nothing is lost with its primary.
#[test]
fn the_commit_of_a_transaction_that_only_read_succeeds() {
    let scene = Scene::new("", &[]);
    let readers = [Wire::query, Wire::extended].map(|how| has_read(&scene, how));
    scene.lose(Loss::Hung);
    let mut bytes = [query("COMMIT"), extended("COMMIT")].into_iter();
    let waits = readers.map(|wire| ask(wire, bytes.next().unwrap()));
    let changed = scene.take_over();
    for waits in waits {
        let (reply, mut wire) = waits.end(changed);
        assert_eq!((reply.codes(), reply.ended), (vec![], Ended::Ready('I')), "{reply:?}");
        assert_eq!(reply.tags, ["COMMIT"]);
        wire.run("INSERT INTO ledger VALUES (92)");
    }
    assert_eq!(scene.count(92), 2);
}

/// Its `COMMIT` has something to do all the same: others are told, or a cursor is run to its end.
#[test]
fn a_transaction_that_read_and_says_or_keeps_something_is_in_doubt() {
    let scene = Scene::new("", &[]);
    let ends = ["NOTIFY news", "DECLARE kept CURSOR WITH HOLD FOR SELECT txid_current()"];
    let wires = ends.map(|sql| {
        let mut wire = has_read(&scene, Wire::query);
        wire.run(sql);
        wire
    });
    scene.lose(Loss::Hung);
    let waits = wires.map(|wire| ask(wire, query("COMMIT")));
    let changed = scene.take_over();
    for waits in waits {
        let (reply, mut wire) = waits.end(changed);
        assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
        wire.run("INSERT INTO ledger VALUES (93)");
    }
    assert_eq!(scene.count(93), 2);
}
