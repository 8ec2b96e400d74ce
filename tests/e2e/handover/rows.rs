//! The table of what becomes of a session's work, lived through row by row.

use super::*;
use crate::support::Ended;
use std::sync::Mutex;

#[test]
fn a_session_of_a_killed_primary_lives_on() {
    live_through(Loss::Killed);
}

#[test]
fn a_session_of_a_hung_primary_lives_on() {
    live_through(Loss::Hung);
}

/// Never granted on the old primary, and unknown to the new one.
const WAITS: &str = "(SELECT count(*) FROM locked)";

const TABLES: [&str; 5] = [
    "CREATE TABLE locked (i int)",
    "CREATE TABLE deferred (id int)",
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
     'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'",
    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION slow()",
    "CREATE PROCEDURE in_parts() LANGUAGE plpgsql AS \
     'BEGIN INSERT INTO ledger VALUES (70); COMMIT; PERFORM pg_sleep(60); END'",
];

fn live_through(how: Loss) {
    let scene = Scene::new("", &TABLES);
    let house = &scene.house;
    let primary = house.server("primary");
    let mut locker = primary.connect("postgres").unwrap();
    locker.rows("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").unwrap();

    let rows: [&dyn Row; 13] = [
        &InDoubt::new("INSERT INTO ledger SELECT 1 FROM pg_sleep(60)", 1),
        &InDoubt::new("INSERT INTO ledger VALUES (2) RETURNING pg_sleep(60)", 2),
        // Some of its rows are shown long before it is committed.
        &InDoubt::new(
            "INSERT INTO deferred SELECT 3 FROM generate_series(1, 5000) RETURNING repeat('x', 200)",
            3,
        ),
        &InDoubt::new("CALL in_parts()", 71),
        &InDoubt::new("BEGIN; INSERT INTO deferred VALUES (4); COMMIT", 4),
        &Commits,
        &RunAgain,
        &BreaksOff,
        &OnlyBegun(Mutex::new(None)),
        &Worked(Mutex::new(None)),
        &Working,
        &Copies(Mutex::new(None)),
        &Idles(Mutex::new(None)),
    ];
    let under_way: Vec<Vec<Waits>> = rows.iter().map(|row| row.before(&scene)).collect();
    scene.lose(how);
    let changed = scene.take_over();
    for (row, waits) in rows.iter().zip(under_way) {
        let mut wires =
            row.after(&scene, waits.into_iter().map(|waits| waits.end(changed)).collect());
        for wire in &mut wires {
            wire.run("INSERT INTO ledger VALUES (100) /* on the new one */");
        }
    }
    assert!(scene.count(100) > rows.len(), "every session goes on");
    if how == Loss::Hung {
        // What slept through it all is sent nothing more, though it would still take it.
        primary.sigcont();
        primary.rows("INSERT INTO ledger VALUES (-100)").unwrap();
        let mut wires: Vec<Wire> = (0..20).map(|_| house.wire()).collect();
        for wire in &mut wires {
            for _ in 0..10 {
                wire.run("INSERT INTO ledger VALUES (101) /* on the new one */");
            }
        }
        assert_eq!(scene.runs("primary", "on the new one"), 0);
        let old = primary.value("SELECT count(*) FROM ledger WHERE id >= 100").unwrap();
        assert_eq!((old.as_str(), scene.count(101)), ("0", 200));
    }
    drop(locker);
}

/// A line of the table.
trait Row {
    /// What the sessions do before the primary is lost; what is still under way then.
    fn before(&self, scene: &Scene) -> Vec<Waits>;

    /// What they see afterwards. All of them go on.
    fn after(&self, scene: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire>;
}

/// Waits until the primary has begun to run what carries this marker.
fn await_run(scene: &Scene, marker: &str) {
    await_that(&format!("it runs: {marker}"), || scene.runs("primary", marker) > 0);
}

/// Nobody knows whether it was committed. It is never sent again.
struct InDoubt {
    sql: String,
    marker: String,
    id: i32,
}

impl InDoubt {
    fn new(sql: &str, id: i32) -> Self {
        let marker = format!("/* in doubt {id} */");
        Self { sql: format!("{sql} {marker}"), marker, id }
    }
}

impl Row for InDoubt {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let mut waits = vec![ask(scene.house.wire(), query(&self.sql))];
        if !self.sql.starts_with("BEGIN") {
            waits.push(ask(scene.house.wire(), extended(&self.sql)));
        }
        let all = waits.len();
        await_that(&self.marker, || scene.runs("primary", &self.marker) >= all);
        waits
    }

    fn after(&self, scene: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire> {
        for (reply, _) in &ended {
            assert_eq!(
                (reply.codes(), reply.ended),
                (vec!["08007"], Ended::Ready('I')),
                "{}",
                self.sql
            );
            assert!(reply.error().hint.contains("Check"), "{reply:?}");
            assert_eq!(self.id == 3, !reply.rows.is_empty(), "{}", self.sql);
        }
        assert_eq!(scene.runs("standby1", &self.marker), 0, "it was sent again: {}", self.sql);
        assert_eq!(scene.count(self.id), 0);
        ended.into_iter().map(|(_, wire)| wire).collect()
    }
}

/// The `COMMIT` itself is under way.
struct Commits;

impl Row for Commits {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let waits =
            [query("COMMIT /* commits */"), extended("COMMIT /* commits */")].map(|commit| {
                let mut wire = scene.house.wire();
                wire.run("BEGIN");
                wire.run("INSERT INTO deferred VALUES (5)");
                ask(wire, commit)
            });
        await_that("the commits", || scene.runs("primary", "/* commits */") >= 2);
        waits.into()
    }

    fn after(&self, scene: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire> {
        for (reply, _) in &ended {
            assert_eq!(
                (reply.codes(), reply.ended),
                (vec!["08007"], Ended::Ready('I')),
                "{reply:?}"
            );
        }
        assert_eq!(scene.runs("standby1", "/* commits */"), 0);
        ended.into_iter().map(|(_, wire)| wire).collect()
    }
}

/// A read that has shown nothing is run again, and its client sees no more than a delay.
struct RunAgain;

impl Row for RunAgain {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let sql = format!("SELECT {WAITS} /* again */");
        let waits = [query(&sql), extended(&sql)].map(|sql| {
            let mut wire = scene.house.wire();
            wire.run("SET pgsteer.role = 'primary'");
            ask(wire, sql)
        });
        // In a transaction that has done nothing yet, too.
        let mut wire = scene.house.wire();
        wire.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        let in_transaction = ask(wire, query(&sql));
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        scene.house.server("primary").await_value(sql, "3", "under way").unwrap();
        waits.into_iter().chain([in_transaction]).collect()
    }

    fn after(&self, scene: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire> {
        for (reply, _) in &ended {
            assert_eq!(reply.value().as_deref(), Some("0"), "{reply:?}");
        }
        assert_eq!(scene.runs("standby1", "/* again */"), 3);
        let mut wires: Vec<Wire> = ended.into_iter().map(|(_, wire)| wire).collect();
        assert_eq!(wires[2].value("SHOW transaction_isolation"), "repeatable read");
        wires[2].run("COMMIT");
        wires
    }
}

/// A read whose client has seen some of it breaks off.
struct BreaksOff;

impl Row for BreaksOff {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let sql = "SELECT repeat('x', 300) FROM generate_series(1, 5000) UNION ALL \
                   SELECT count(*)::text FROM generate_series(1, 2000000000) /* breaks off */";
        let waits = [query(sql), extended(sql)].map(|sql| {
            let mut wire = scene.house.wire();
            wire.run("SET pgsteer.role = 'primary'");
            wire.send(&sql).unwrap();
            let mut rows = 0;
            while rows < 1000 {
                rows += usize::from(wire.message().unwrap()[0] == b'D');
            }
            ask(wire, Vec::new())
        });
        waits.into()
    }

    fn after(&self, _: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire> {
        for (reply, _) in &ended {
            assert_eq!((reply.codes(), reply.ended), (vec!["40001"], Ended::Ready('I')));
            let whole = |row: &Vec<Option<String>>| row[0].as_ref().unwrap().len() == 300;
            assert!(reply.rows.iter().all(whole), "half a row");
        }
        ended.into_iter().map(|(_, wire)| wire).collect()
    }
}

/// Nothing was done in it yet: it goes on as if nothing had happened.
struct OnlyBegun(Mutex<Option<[Wire; 3]>>);

impl Row for OnlyBegun {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let mut wires = [(); 3].map(|()| scene.house.wire());
        wires[0].run("BEGIN");
        wires[1].run("BEGIN ISOLATION LEVEL REPEATABLE READ -- with a comment");
        wires[1].run("SET LOCAL work_mem = '7MB'");
        wires[1].run("SET app.tenant = 'seven'");
        assert!(wires[2].extended("BEGIN").is_good());
        *self.0.lock().unwrap() = Some(wires);
        Vec::new()
    }

    fn after(&self, scene: &Scene, _: Vec<(Reply, Wire)>) -> Vec<Wire> {
        let mut wires = self.0.lock().unwrap().take().unwrap();
        assert_eq!(wires[1].value("SHOW work_mem"), "7MB");
        assert_eq!(wires[1].value("SHOW transaction_isolation"), "repeatable read");
        for wire in &mut wires {
            assert_eq!(wire.run("INSERT INTO ledger VALUES (30)").ended, Ended::Ready('T'));
            assert_eq!(wire.run("COMMIT").tags, ["COMMIT"]);
        }
        assert_eq!(scene.count(30), 3);
        assert_eq!(wires[1].value("SHOW app.tenant"), "seven", "it is the session's from then on");
        assert_ne!(wires[1].value("SHOW work_mem"), "7MB");
        wires.into()
    }
}

/// Something was done in it: it is gone, and the client is told with its next statement.
struct Worked(Mutex<Option<[Wire; 5]>>);

impl Row for Worked {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let mut wires = [(); 5].map(|()| scene.house.wire());
        for wire in &mut wires {
            wire.run("BEGIN");
            wire.run("INSERT INTO ledger VALUES (40)");
        }
        *self.0.lock().unwrap() = Some(wires);
        Vec::new()
    }

    fn after(&self, scene: &Scene, _: Vec<(Reply, Wire)>) -> Vec<Wire> {
        let mut wires = self.0.lock().unwrap().take().unwrap();
        let lost = |reply: Reply, ended| {
            assert_eq!(
                (reply.codes(), reply.ended),
                (vec!["40001"], Ended::Ready(ended)),
                "{reply:?}"
            );
        };
        lost(wires[0].query("INSERT INTO ledger VALUES (40)"), 'E');
        for _ in 0..2 {
            let failed = wires[0].extended("INSERT INTO ledger VALUES (40)");
            assert_eq!((failed.code(), failed.ended), ("25P02", Ended::Ready('E')), "{failed:?}");
        }
        wires[0].run("ROLLBACK");
        wires[1].run("ROLLBACK");
        lost(wires[2].query("COMMIT"), 'I');
        // Told, it says `COMMIT` nevertheless: that ends it, and commits nothing.
        lost(wires[3].extended("SELECT 1"), 'E');
        assert_eq!(wires[3].run("COMMIT").tags, ["ROLLBACK"]);
        // In a pipeline up to `Flush`: the error at once, and the rest after `Sync`.
        let mut bytes = extended("INSERT INTO ledger VALUES (40)");
        bytes.truncate(bytes.len() - 5);
        bytes.extend_from_slice(b"H\0\0\0\x04");
        wires[4].send(&bytes).unwrap();
        assert_eq!(wires[4].message().unwrap()[0], b'E');
        assert_eq!(wires[4].ask(b"S\0\0\0\x04").ended, Ended::Ready('E'));
        wires[4].run("ROLLBACK");
        assert_eq!(scene.count(40), 0);
        wires.into()
    }
}

/// A statement is under way in it that can't have committed it.
struct Working;

impl Row for Working {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let sql = "INSERT INTO ledger SELECT 50 FROM pg_sleep(60) /* working */";
        let waits = [query(sql), extended(sql)].map(|sql| {
            let mut wire = scene.house.wire();
            wire.run("BEGIN");
            ask(wire, sql)
        });
        await_that("they work", || scene.runs("primary", "/* working */") >= 2);
        waits.into()
    }

    fn after(&self, scene: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire> {
        let mut wires = Vec::new();
        for (reply, mut wire) in ended {
            assert_eq!(
                (reply.codes(), reply.ended),
                (vec!["40001"], Ended::Ready('E')),
                "{reply:?}"
            );
            assert_eq!(wire.query("SELECT 1").codes(), ["25P02"]);
            assert_eq!(wire.query("ROLLBACK TO SAVEPOINT a").codes(), ["3B001"]);
            wire.run("ROLLBACK");
            wires.push(wire);
        }
        assert_eq!((scene.count(50), scene.runs("standby1", "/* working */")), (0, 0));
        wires
    }
}

/// The client's data is on its way: without its end nothing of it can have been committed.
struct Copies(Mutex<Option<Wire>>);

/// Half of a message, and what is behind it.
const HALF: &[u8] = b"d\0\0\0\x0760\nd\0\0\0\x07";
const REST: &[u8] = b"61\nc\0\0\0\x04";

impl Row for Copies {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let sql = "COPY ledger FROM STDIN /* copies */";
        let [simple, batch] = [query(sql), extended(sql)].map(|copy| {
            let mut wire = scene.house.wire();
            wire.send(&copy).unwrap();
            while wire.message().unwrap()[0] != b'G' {}
            wire
        });
        let mut batch = batch;
        batch.send(HALF).unwrap();
        *self.0.lock().unwrap() = Some(batch);
        vec![ask(simple, HALF.to_vec())]
    }

    fn after(&self, scene: &Scene, ended: Vec<(Reply, Wire)>) -> Vec<Wire> {
        let mut wires = Vec::new();
        for (reply, mut wire) in ended {
            assert_eq!(
                (reply.codes(), reply.ended),
                (vec!["40001"], Ended::Ready('I')),
                "{reply:?}"
            );
            wire.send(REST).unwrap();
            assert_eq!(wire.value("SELECT 1"), "1", "what came too late is passed over");
            wires.push(wire);
        }
        let mut batch = self.0.lock().unwrap().take().unwrap();
        assert_eq!(batch.message().unwrap()[0], b'E');
        let reply = batch.ask(&[REST, b"S\0\0\0\x04"].concat());
        assert_eq!((reply.codes(), reply.ended), (vec![], Ended::Ready('I')), "{reply:?}");
        assert_eq!((scene.count(60), scene.count(61)), (0, 0));
        wires.push(batch);
        wires
    }
}

/// It has nothing under way, and keeps what can be kept.
struct Idles(Mutex<Option<Wire>>);

impl Row for Idles {
    fn before(&self, scene: &Scene) -> Vec<Waits> {
        let mut wire = scene.house.wire();
        wire.run("SET work_mem = '9MB'");
        let mut bytes = Vec::new();
        pgsteer::wire::message::write_parse(&mut bytes, b"mine", b"INSERT INTO ledger VALUES (80)");
        pgsteer::wire::message::write_sync(&mut bytes);
        assert!(wire.ask(&bytes).is_good());
        *self.0.lock().unwrap() = Some(wire);
        Vec::new()
    }

    fn after(&self, scene: &Scene, _: Vec<(Reply, Wire)>) -> Vec<Wire> {
        let mut wire = self.0.lock().unwrap().take().unwrap();
        assert_eq!(wire.value("SHOW work_mem"), "9MB");
        let bind = b"B\0\0\0\x10\0mine\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
        let reply = wire.ask(bind);
        assert_eq!(reply.tags, ["INSERT 0 1"], "{reply:?}");
        assert_eq!(scene.count(80), 1);
        vec![wire]
    }
}
