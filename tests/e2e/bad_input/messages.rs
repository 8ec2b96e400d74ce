//! Hostile clients beside well-behaved ones.

use crate::support::Blueprint;
use crate::support::Dice;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use crate::support::await_that;
use pgsteer::wire::frame;
use pgsteer::wire::message;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

/// Clients that must not feel anything.
const GOOD: usize = 20;
/// Connections that send nothing but chance.
const RANDOM: u64 = 150;
/// More memory than this, beyond what the proxy had, is a leak.
const GROWTH_MAX: f64 = 64.0 * 1024.0 * 1024.0;
pub(super) const MEMORY: &str = "process_resident_memory_bytes";

#[test]
fn twenty_good_clients_feel_nothing_of_hostile_ones() {
    let house = Blueprint::new().unhurried().build();
    house.server("primary").rows("CREATE TABLE notes (who int, n int)").unwrap();
    house.await_catalog();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let good: Vec<_> = (0..GOOD)
        .map(|who| {
            let (stop, done, wire) = (Arc::clone(&stop), Arc::clone(&done), house.wire());
            std::thread::spawn(move || behave(wire, who, &stop, &done))
        })
        .collect();
    await_that("they are at work", || done.load(Ordering::Relaxed) > 5 * GOOD);
    let (files, memory) = (files(&house), house.metric(MEMORY).unwrap());

    chance(&house);
    broken_messages(&house);
    leave_in_the_middle(&house);
    never_read(&house);

    assert!(house.metric(MEMORY).unwrap() < memory + GROWTH_MAX, "memory has grown");
    // Each open file is one of the good clients' or of a pool; some pools have grown meanwhile.
    await_that("their sockets are closed", || self::files(&house) <= files + 30);
    let now = done.load(Ordering::Relaxed);
    await_that("the good ones go on", || done.load(Ordering::Relaxed) > now + 5 * GOOD);
    stop.store(true, Ordering::Relaxed);
    for client in good {
        client.join().unwrap();
    }
    assert!(!house.proxy.log().contains("panicked"));
    await_that("nobody is left", || house.status()["clients"]["connected"] == 0);
}

fn behave(mut wire: Wire, who: usize, stop: &AtomicBool, done: &AtomicUsize) {
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        written += 1;
        let insert = format!("INSERT INTO notes VALUES ({who}, {written})");
        let reply = if written % 2 == 0 { wire.query(&insert) } else { wire.extended(&insert) };
        assert!(reply.is_good(), "{reply:?}");
        let read = format!("SELECT max(n) FROM notes WHERE who = {who}");
        assert_eq!(wire.query(&read).value(), Some(written.to_string()));
        done.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) fn files(house: &House) -> usize {
    let pid = house.proxy.pid().unwrap();
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Random bytes before a login, and behind one.
fn chance(house: &House) {
    let mut dice = Dice::from_env();
    for round in 0..RANDOM {
        let mut wire = if round % 2 == 0 {
            Wire::connect(house.proxy.address()).unwrap()
        } else {
            house.wire()
        };
        let length = dice.below(400);
        let mut bytes: Vec<u8> = (0..length).map(|_| dice.roll().to_le_bytes()[0]).collect();
        if round % 3 == 0 && bytes.len() > 5 {
            // A length that fits, so that what is inside is looked at.
            bytes[0] = b"QPBEDCSHFdcfpX"[usize::try_from(dice.below(14)).unwrap()];
            let size = u32::try_from(bytes.len() - 1).unwrap();
            bytes[1..5].copy_from_slice(&size.to_be_bytes());
        }
        // The proxy may close while we still send.
        wire.send(&bytes).unwrap_or(());
    }
}

/// Whole messages that nobody should send: an error, and the session goes on or ends.
fn broken_messages(house: &House) {
    let framed = |tag: u8, body: &[u8]| {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, tag, |out| out.extend_from_slice(body));
        bytes
    };
    let sync = framed(b'S', b"");
    let fatal = [
        vec![b'Q', 0x7f, 0xff, 0xff, 0xff, b'S'],
        vec![b'Q', 0xff, 0xff, 0xff, 0xff, b'S'],
        vec![b'Q', 0, 0, 0, 3],
        vec![b'Q', 0, 0, 0, 0],
        framed(b'y', b"what"),
        framed(0, b""),
        framed(b'Z', b"I"),
    ];
    for bytes in fatal {
        let mut wire = house.wire();
        let reply = wire.ask(&bytes);
        let (code, ended) = (reply.code(), reply.ended);
        assert_eq!((code, ended), ("08P01", Ended::Closed), "{bytes:?}: {reply:?}");
        assert_eq!(reply.error().severity, "FATAL", "{bytes:?}: {reply:?}");
    }
    let either = [
        framed(b'Q', b"SELECT 1"),
        framed(b'P', b"no end"),
        framed(b'P', b"name\0SELECT 1\0\x7f\xff"),
        framed(b'B', b"\0nothing\0\0\0\0\0\0\0"),
        framed(b'B', b"\0\0\x7f\xff"),
        framed(b'D', b"Xunheard\0"),
        framed(b'D', b""),
        framed(b'E', b"nothing\0\0\0\0\0"),
        framed(b'C', b"Qwhat\0"),
        framed(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
    ];
    for bytes in either {
        let mut wire = house.wire();
        let reply = wire.ask(&[bytes.clone(), sync.clone()].concat());
        assert!(!reply.errors.is_empty(), "{bytes:?}: {reply:?}");
        if let Ended::Ready(status) = reply.ended {
            assert_eq!(status, 'I', "{bytes:?}: {reply:?}");
            // Some have a `ReadyForQuery` of their own, before that of our Sync.
            let next = wire.ask(&framed(b'Q', b"SELECT 'alive'\0"));
            let next = if next.rows.is_empty() { wire.reply() } else { next };
            assert_eq!(next.value().as_deref(), Some("alive"), "{bytes:?}: {next:?}");
        }
    }
    // COPY data that nobody asked for is passed over, as PostgreSQL does.
    let mut wire = house.wire();
    let mut bytes = framed(b'd', b"1\n");
    message::write_query(&mut bytes, "SELECT 'alive'");
    assert_eq!(wire.ask(&bytes).value().as_deref(), Some("alive"));
}

/// Clients that vanish in the middle of something.
fn leave_in_the_middle(house: &House) {
    let long = "SELECT pg_sleep(30)";
    for sql in [long, "SELECT pg_sleep(30) FROM notes", "BEGIN; INSERT INTO notes VALUES (-1, -1)"]
    {
        for cut in [3, sql.len()] {
            let mut bytes = Vec::new();
            message::write_query(&mut bytes, sql);
            let mut wire = house.wire();
            wire.send(&bytes[..cut]).unwrap();
            wire.stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }
    // Says that it will ask nothing more, while something runs that leaves a transaction open.
    let mut bytes = Vec::new();
    message::write_query(
        &mut bytes,
        "BEGIN; INSERT INTO notes VALUES (-1, -1); SELECT pg_sleep(1)",
    );
    let mut listens = house.wire();
    listens.send(&bytes).unwrap();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' \
                AND pid <> pg_backend_pid()";
    let primary = house.server("primary");
    primary.await_value(open, "1", "its statement runs").unwrap();
    listens.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(listens.reply().ended, Ended::Ready('T'), "it is told what came of it");
    primary.await_value(open, "0", "its transaction has ended").unwrap();
    await_that("their statements have ended", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' \
                   AND state = 'active' AND pid <> pg_backend_pid()";
        house.cluster.servers().iter().all(|server| server.value(sql).unwrap() == "0")
    });
    let left = "SELECT count(*) FROM notes WHERE who = -1";
    assert_eq!(house.server("primary").value(left).unwrap(), "0");
}

/// A result of 200 MB that nobody takes stays where it is.
fn never_read(house: &House) {
    let mut lazy = Vec::new();
    let before = house.metric(MEMORY).unwrap();
    for _ in 0..3 {
        let mut wire = house.wire();
        let mut bytes = Vec::new();
        let big = "SELECT repeat('x', 100000) FROM generate_series(1, 2000)";
        message::write_query(&mut bytes, big);
        wire.send(&bytes).unwrap();
        lazy.push(wire);
    }
    await_that("the servers are stopped by it", || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
        let servers = house.cluster.servers().iter();
        servers.map(|server| server.value(waits).unwrap().parse::<u32>().unwrap()).sum::<u32>() >= 3
    });
    let grown = house.metric(MEMORY).unwrap() - before;
    assert!(grown < GROWTH_MAX / 2.0, "the proxy keeps it: {grown} bytes");
    // One does read it after all.
    let reply = lazy[0].reply();
    assert_eq!((reply.rows.len(), reply.ended), (2000, Ended::Ready('I')));
}
