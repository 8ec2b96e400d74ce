//! What lives in one backend and is lost with it: told once, and the session goes on.

use super::*;
use crate::support::Ended;

#[test]
fn what_lived_in_a_killed_backend_is_told_once() {
    live_through(Loss::Killed);
}

#[test]
fn what_lived_in_a_hung_backend_is_told_once() {
    live_through(Loss::Hung);
}

fn live_through(how: Loss) {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let kinds = [
        ("CREATE TEMP TABLE mine (i int)", "temporary objects"),
        ("SELECT pg_advisory_lock(4711)", "advisory locks"),
        ("PREPARE mine AS SELECT 1", "statements of PREPARE"),
        ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "cursors WITH HOLD"),
        ("SELECT pg_advisory_lock(4712); LISTEN news", "advisory locks, LISTEN"),
    ];
    let mut wires = kinds.map(|(sql, lost)| {
        let mut wire = house.wire();
        wire.run(sql);
        wire.run("SET work_mem = '9MB'");
        (wire, lost)
    });
    // With an open transaction, and with a statement under way.
    let mut open = house.wire();
    open.run("CREATE TEMP TABLE mine (i int)");
    open.run("BEGIN");
    open.run("INSERT INTO mine VALUES (1)");
    let mut busy = house.wire();
    busy.run("SELECT pg_advisory_lock(4713)");
    let busy = ask(busy, query("INSERT INTO ledger SELECT 1 FROM pg_sleep(60) /* busy */"));
    let mut listens = house.wire();
    listens.run("LISTEN \"My News\"");
    await_that("it is busy", || scene.runs("primary", "/* busy */") > 0);
    scene.lose(how);
    let changed = scene.take_over();

    // The one that only listens does so at once, though it says nothing.
    await_that("it is told", || {
        let notice = listens.message().unwrap();
        assert_eq!(notice[0], b'N');
        String::from_utf8_lossy(&notice).contains("notifications may have been missed")
    });
    // On a crowded machine its new backend may be lost as well, which it is told again.
    let mut news = Vec::new();
    await_that("it hears what comes from then on", || {
        house.wire().run("NOTIFY \"My News\", 'hello'");
        news = listens.message().unwrap();
        news[0] != b'N' || !String::from_utf8_lossy(&news).contains("may have been missed")
    });
    assert_eq!(news[0], b'A', "{}", String::from_utf8_lossy(&news));
    assert_eq!(listens.value("SELECT * FROM pg_listening_channels()"), "My News");
    listens.run("UNLISTEN *");

    for (wire, lost) in &mut wires {
        let reply = wire.query("INSERT INTO ledger VALUES (2)");
        assert_eq!((reply.codes(), reply.ended), (vec!["57P01"], Ended::Ready('I')), "{reply:?}");
        assert_eq!(reply.error().severity, "ERROR");
        assert!(reply.error().detail.contains(&format!("Lost: {lost}. ")), "{reply:?}");
    }
    let reply = open.query("INSERT INTO ledger VALUES (2)");
    assert_eq!((reply.codes(), reply.ended), (vec!["57P01"], Ended::Ready('E')), "{reply:?}");
    assert_eq!(open.query("SELECT 1").codes(), ["25P02"]);
    open.run("ROLLBACK");
    // First what became of its statement, then what else it lost.
    let (reply, mut busy) = busy.end(changed);
    assert_eq!((reply.codes(), reply.ended), (vec!["08007"], Ended::Ready('I')), "{reply:?}");
    assert_eq!(busy.query("INSERT INTO ledger VALUES (2)").codes(), ["57P01"]);
    assert_eq!((scene.count(1), scene.count(2)), (0, 0), "what was refused was not executed");

    for (mut wire, _) in wires {
        wire.run("INSERT INTO ledger VALUES (3)");
        assert_eq!(wire.value("SHOW work_mem"), "9MB", "its settings are its own");
        wire.run("CREATE TEMP TABLE mine (i int)");
        wire.run("INSERT INTO mine VALUES (1)");
    }
    for mut wire in [open, busy, listens] {
        wire.run("INSERT INTO ledger VALUES (3)");
    }
    assert_eq!(scene.count(3), 8);
}

/// A session that is listened for wants a backend that listens itself, and the primary hangs while
/// that one is made to.
#[test]
fn who_is_listened_for_hears_again_after_a_primary_that_hung_while_it_was_to_listen() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let mut listens = house.wire();
    listens.run("LISTEN news");
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE application_name !~ '^pgsteer' \
                AND backend_type = 'client backend' AND state = 'idle'";
    await_that("a backend rests", || house.server("primary").value(idle).unwrap() != "0");
    scene.lose(Loss::Hung);
    let held = ask(listens, query("INSERT INTO ledger VALUES (7)"));
    let changed = scene.take_over();
    let (reply, mut listens) = held.end(changed);
    assert_eq!((reply.tags.as_slice(), scene.count(7)), (["INSERT 0 1".into()].as_slice(), 1));

    let mut told: String = reply.notices.iter().map(|notice| notice.message.as_str()).collect();
    // Until its listener has moved, too, what is missed is only warned of.
    await_that("it hears again", || {
        house.wire().run("NOTIFY news, 'hello'");
        told += &String::from_utf8_lossy(&listens.unasked(Duration::from_millis(50)));
        told.contains("hello")
    });
    assert!(told.contains("notifications may have been missed"), "{told}");
    assert_eq!(listens.value("SELECT * FROM pg_listening_channels()"), "news");
}

/// In session mode nothing need be lost: whoever had nothing but settings does not notice.
#[test]
fn in_session_mode_a_session_moves_with_its_settings() {
    let scene = Scene::new("[pool]\nmode = \"session\"\n", &[]);
    let mut plain = scene.house.wire();
    plain.run("SET work_mem = '9MB'");
    let mut holds = scene.house.wire();
    holds.run("CREATE TEMP TABLE mine (i int)");
    scene.lose(Loss::Hung);
    await_that("the loss is seen", || scene.house.status()["primary"].is_null());
    let held = ask(plain, query("INSERT INTO ledger VALUES (1)"));
    let changed = scene.take_over();
    let (reply, mut plain) = held.end(changed);
    assert_eq!(reply.tags, ["INSERT 0 1"], "{reply:?}");
    assert_eq!(plain.value("SHOW work_mem"), "9MB");
    assert_eq!(holds.query("INSERT INTO mine VALUES (1)").codes(), ["57P01"]);
    holds.run("CREATE TEMP TABLE mine (i int)");
    assert_eq!(scene.count(1), 1);
}

/// A session with a backend of its own is held like any other when there is no primary, and is
/// cancelled where it waits.
#[test]
fn a_session_that_stays_with_its_backend_is_held_like_the_others() {
    let scene = Scene::new("", &[]);
    let house = &scene.house;
    let wires = [(); 3].map(|()| {
        let mut wire = house.wire();
        wire.run("SELECT pg_advisory_lock_shared(4711)");
        wire
    });
    let cancels = [&wires[0], &wires[1]].map(|wire| (wire.pid, wire.key.clone()));
    scene.lose(Loss::Hung);
    await_that("the loss is seen", || house.status()["primary"].is_null());
    let [cancelled, first, second] =
        wires.map(|wire| ask(wire, query("INSERT INTO ledger VALUES (1)")));
    let waiting = r#"pgsteer_client_connections{state="waiting"}"#;
    await_that("they wait", || house.metric(waiting) == Some(3.0));
    let now = clock::now();
    let (pid, key) = &cancels[0];
    let mut request = Vec::new();
    pgsteer::wire::message::write_cancel_request(&mut request, *pid, key);
    let mut wire = Wire::connect(house.proxy.address()).unwrap();
    wire.send(&request).unwrap();
    let (reply, _cancelled) = cancelled.end(now);
    assert_eq!((reply.codes(), reply.ended), (vec!["57014"], Ended::Ready('I')), "{reply:?}");
    scene.house.server("primary").sigcont();
    for waits in [first, second] {
        let (reply, _) = waits.end(clock::now());
        assert_eq!(reply.tags, ["INSERT 0 1"], "{reply:?}");
    }
    let ran = house.server("primary").value("SELECT count(*) FROM ledger WHERE id = 1").unwrap();
    assert_eq!(ran, "2", "the cancelled one was never sent");
}
