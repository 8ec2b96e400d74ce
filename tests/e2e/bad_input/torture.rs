//! Two thousand hostile connections of every kind that we could think of, beside fifty clients that
//! must not feel them; and when they have gone, nothing of them is left.
//!
//! `HOSTILE=20000` makes it longer, as `make soak` does. What a hostile client does, and where in
//! it it stops, follows from a seed that is printed.

use super::messages::{MEMORY, files};
use crate::auth::postgres::certificates;
use crate::support::{Blueprint, Dice, Ended, House, Wire, await_that};
use pgsteer::sandbox::Scratch;
use pgsteer::wire::frame;
use pgsteer::wire::message;
use std::io::Read as _;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Clients that must not feel anything.
const GOOD: usize = 50;
/// Hostile connections in `make test`.
const HOSTILE: u64 = 2_000;
/// As many of them are there at a time, so that files last.
const WAVE: u64 = 250;
/// Backends of each server: more than the fifty of a wave that may keep one of the primary's each
/// (open transactions, COPY, pipelines and big messages without an end), so that some are left.
const POOL: u64 = WAVE / 4;
/// More memory than this, beyond what the proxy had while the good ones were at work, is a leak.
const GROWTH_MAX: f64 = 64.0 * 1024.0 * 1024.0;

const SSL: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];

#[test]
fn fifty_good_clients_feel_nothing_of_two_thousand_hostile_ones() {
    let (house, _papers) = build();
    house.server("primary").rows("CREATE TABLE notes (who int, n int)").unwrap();
    house.await_catalog();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let good: Vec<_> = (0..GOOD)
        .map(|who| {
            let (stop, done, wire) = (Arc::clone(&stop), Arc::clone(&done), house.wire());
            std::thread::spawn(move || behave(wire, who, &stop, &done))
        })
        .collect();
    await_that("they are at work", || done.load(Ordering::Relaxed) > 5 * GOOD);
    let (open, memory) = (files_of_clients(&house), house.metric(MEMORY).unwrap());

    let count = std::env::var("HOSTILE").map_or(HOSTILE, |count| count.parse().unwrap());
    let mut dice = Dice::from_env();
    let mut came = 0;
    while came < count {
        let there: Vec<_> = (0..WAVE).map(|one| hostile(&house, came + one, &mut dice)).collect();
        came += WAVE;
        // All of them wait, dawdle or don't listen, at once; and the good ones go on.
        let now = done.load(Ordering::Relaxed);
        await_that("the good ones go on", || done.load(Ordering::Relaxed) > now + GOOD);
        // Without the goodbye that a `Wire` says when it is dropped.
        for wire in &there {
            wire.stream.shutdown(Shutdown::Both).unwrap_or(());
        }
    }

    all_came_to_what_they_wanted(&house, count);
    // Some of the proxy's own come and go: its looks at the servers, and ours at its metrics.
    await_that("the sockets of the others are closed", || files_of_clients(&house) <= open + 10);
    await_that("nobody else is there", || house.status()["clients"]["connected"] == GOOD);
    let now = done.load(Ordering::Relaxed);
    await_that("the good ones go on", || done.load(Ordering::Relaxed) > now + 5 * GOOD);
    stop.store(true, Ordering::Relaxed);
    for client in good {
        client.join().unwrap();
    }
    nothing_is_left(&house, memory);
}

/// Open files but for those of the pools, which may have grown meanwhile.
fn files_of_clients(house: &House) -> usize {
    let pooled = ["login", "idle", "active"].map(|state| in_pools(house, state)).iter().sum();
    files(house).saturating_sub(pooled)
}

/// Backends in this state, of all pools.
fn in_pools(house: &House, state: &str) -> usize {
    let state = format!("state=\"{state}\"");
    let counted =
        |line: &str| line.starts_with("pgsteer_pool_connections{") && line.contains(&state);
    let body = house.http("/metrics").body;
    let values = body.lines().filter(|line| counted(line)).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<usize>().unwrap()).sum()
}

/// The harm was tried: half of them were let in, and the others were stopped in every way that
/// there is. Who is not done with his login is sent away in time.
fn all_came_to_what_they_wanted(house: &House, count: u64) {
    let counted = |result: &str| {
        let series = format!("pgsteer_client_connections_total{{result=\"{result}\"}}");
        house.metric(&series).unwrap()
    };
    let each = f64::from(u32::try_from(count / 20).unwrap());
    let most = [
        ("accepted", 10.0 * each),
        ("tls_error", each),
        ("abandoned", each),
        ("protocol_error", each / 4.0),
        ("cancel", each / 2.0),
    ];
    for (result, least) in most {
        await_that(&format!("{least} are {result}"), || counted(result) >= least);
    }
}

/// TLS for who asks for it, and a user who must prove himself.
fn build() -> (House, Scratch) {
    let papers = Scratch::new().unwrap();
    certificates(papers.path());
    let file = |name: &str| papers.path().join(name).display().to_string();
    let rules = "host all prover all scram-sha-256\nhost all all all trust\n";
    std::fs::write(file("hba.conf"), rules).unwrap();
    let house = Blueprint::new()
        .unhurried()
        .servers(|plan| plan.standbys(1).setting("max_connections", "200"))
        .toml(&format!(
            "[tls]\nmode = \"prefer\"\ncert = {:?}\nkey = {:?}\n[auth]\nhba_file = {:?}\n\
             [limits]\nlogin_timeout = \"5s\"\n[pool]\nsize = {POOL}\n",
            file("server.crt"),
            file("server.key"),
            file("hba.conf"),
        ))
        .build();
    (house, papers)
}

/// Writes, reads what it wrote, by both protocols and by a statement that it prepared once.
fn behave(mut wire: Wire, who: usize, stop: &AtomicBool, done: &AtomicUsize) {
    let prepared = format!("SELECT max(n) FROM notes WHERE who = {who}");
    let mut parse = Vec::new();
    message::write_parse(&mut parse, b"mine", prepared.as_bytes());
    message::write_sync(&mut parse);
    assert!(wire.ask(&parse).is_good());
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        written += 1;
        let insert = format!("INSERT INTO notes VALUES ({who}, {written})");
        let reply = if written % 2 == 0 { wire.query(&insert) } else { wire.extended(&insert) };
        assert!(reply.is_good(), "{reply:?}");
        let mut run = framed(b'B', b"\0mine\0\0\0\0\0\0\0");
        message::write_execute(&mut run);
        message::write_sync(&mut run);
        let reply = wire.ask(&run);
        assert_eq!(reply.value(), Some(written.to_string()), "{reply:?}");
        done.fetch_add(1, Ordering::Relaxed);
        // They are to feel the others, not each other.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, tag, |out| out.extend_from_slice(body));
    bytes
}

fn startup(user: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    message::write_startup(&mut bytes, &[("user", user), ("database", "postgres")]).unwrap();
    bytes
}

fn noise(dice: &mut Dice, most: u64) -> Vec<u8> {
    (0..dice.below(most)).map(|_| dice.roll().to_le_bytes()[0]).collect()
}

/// So much of it as chance wants, but not all.
fn beginning(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let length = dice.below(u64::try_from(bytes.len()).unwrap());
    bytes[..usize::try_from(length).unwrap()].to_vec()
}

/// Comes, does harm, and stays as it is: the connection is closed with the value.
fn hostile(house: &House, kind: u64, dice: &mut Dice) -> Wire {
    if kind % 20 < 10 {
        before_the_login(house, kind % 10, dice)
    } else {
        behind_it(house, kind % 10, dice)
    }
}

/// What nobody needs to be anybody for.
fn before_the_login(house: &House, kind: u64, dice: &mut Dice) -> Wire {
    let mut wire = Wire::connect(house.proxy.address()).unwrap();
    // The beginning of a handshake: a record of 512 bytes, of which little comes.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &noise(dice, 400)].concat();
    let bytes = match kind {
        0 => Vec::new(),
        1 => beginning(&startup("postgres"), dice),
        2 => SSL.to_vec(),
        3 | 4 => {
            let mut direct = hello;
            if kind == 3 {
                wire.send(SSL).unwrap();
                let mut answer = [0];
                wire.stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer[0], b'S');
                direct = beginning(&direct, dice);
            }
            direct
        }
        // What was slipped in behind the wish for TLS is never looked at.
        5 => {
            wire.send(&[SSL, &*startup("postgres")].concat()).unwrap();
            let reply = wire.reply();
            assert_eq!(reply.ended, Ended::Closed, "{reply:?}");
            return wire;
        }
        6 => [GSSENC, &*noise(dice, 100)].concat(),
        7 => {
            wire.send(&startup("prover")).unwrap();
            let asked = wire.message().unwrap();
            assert_eq!((asked[0], asked[8]), (b'R', 10), "{asked:?}");
            let first = framed(b'p', b"SCRAM-SHA-256\0\0\0\0\x0Bn,,n=,r=abcd");
            if dice.below(2) == 0 {
                beginning(&first, dice)
            } else {
                [first, noise(dice, 40)].concat()
            }
        }
        8 => {
            let mut cancel = Vec::new();
            let pid = i32::from_be_bytes(dice.roll().to_be_bytes()[..4].try_into().unwrap());
            message::write_cancel_request(&mut cancel, pid, &dice.roll().to_be_bytes()[..4]);
            cancel
        }
        _ => noise(dice, 300),
    };
    // The proxy may close while we still send.
    wire.send(&bytes).unwrap_or(());
    wire
}

/// What only who has logged in can do.
fn behind_it(house: &House, kind: u64, dice: &mut Dice) -> Wire {
    let mut wire = house.wire();
    let query = |sql: &str| framed(b'Q', &[sql.as_bytes(), b"\0"].concat());
    let sync = frame::SYNC;
    let bytes = match kind {
        0 => beginning(&query("SELECT 'never whole'"), dice),
        1 => noise(dice, 400),
        // It fits, so that what is inside is looked at.
        2 => {
            let tag = b"QPBEDCSHFdcfpX"[usize::try_from(dice.below(14)).unwrap()];
            [framed(tag, &noise(dice, 200)), sync.to_vec()].concat()
        }
        3 => {
            vec![b"QPBDEdp"[usize::try_from(dice.below(7)).unwrap()], 0x3f, 0xff, 0xff, 0xff, b'S']
        }
        // Never reads.
        4 => query("SELECT repeat('x', 100000) FROM generate_series(1, 100)"),
        5 => [query("SELECT 1"), framed(b'd', b"1\n"), framed(b'c', b"")].concat().repeat(50),
        6 => sync.repeat(2_000),
        // Goes in the middle of a transaction that holds a lock which nobody else needs.
        7 => query("BEGIN; INSERT INTO notes VALUES (-1, -1); SAVEPOINT a"),
        8 => {
            let batch = framed(b'P', b"\0SELECT 1\0\0\0").repeat(200);
            [batch, framed(b'B', b"\0none\0\0\0\0\0\0\0")].concat()
        }
        _ => [query("COPY notes FROM STDIN"), framed(b'd', b"not a row"), noise(dice, 50)].concat(),
    };
    wire.send(&bytes).unwrap_or(());
    wire
}

/// Everybody has gone: so has all that was theirs.
fn nothing_is_left(house: &House, memory: f64) {
    await_that("nobody is left", || house.status()["clients"]["connected"] == 0);
    let states = ["active", "idle", "in_transaction", "waiting"];
    let clients = states.map(|state| format!("pgsteer_client_connections{{state=\"{state}\"}}"));
    for gauge in clients.iter().map(String::as_str).chain(["pgsteer_held_bytes"]) {
        await_that(gauge, || house.metric(gauge).unwrap_or(0.0) == 0.0);
    }
    await_that("all backends are free", || in_pools(house, "active") == 0);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
               AND state <> 'idle' AND pid <> pg_backend_pid()";
    for server in house.cluster.servers() {
        server.await_value(sql, "0", "what nobody waits for has ended").unwrap();
    }
    let left = "SELECT count(*) FROM notes WHERE who = -1";
    assert_eq!(house.server("primary").value(left).unwrap(), "0");
    let now = house.metric(MEMORY).unwrap();
    assert!(now < memory + GROWTH_MAX, "memory has grown from {memory} to {now}");
    let log = house.proxy.log();
    assert!(!log.contains("panicked"), "a panic");
    assert!(!log.contains("ERROR"), "{}", log.lines().find(|line| line.contains("ERROR")).unwrap());
    assert_eq!(house.wire().value("SELECT 'alive'"), "alive");
}
