//! Statements of each kind, many times over.

use crate::counting;
use crate::inside::BACKENDS;
use crate::inside::Client;
use crate::inside::Inside;
use pgsteer::wire::message;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Clients at a time.
const CLIENTS: u32 = 4;
/// Rounds of each client before it is counted.
const WARM_UP: u32 = 500;
/// Rounds of each client that are counted, of reads.
const READS: u32 = 5_000;
/// Rounds of what the primary has to write down.
const WRITES: u32 = 1_250;
/// Rounds that are looked at closely, to name the places.
const TRACED: u32 = 3;
/// Requests that do not count, a round: what a shard does once a second, whoever is there.
const BESIDES: f64 = 0.02;
/// How often it is counted before it is too much: on a crowded machine seconds are short.
const ATTEMPTS: usize = 6;

/// Clients that do nothing, and how often so many come.
const IDLE: i64 = 30;
const IDLE_ROUNDS: usize = 5;
/// Bytes that one of them may take; the aim is 1 KiB.
const IDLE_BYTES_MAX: i64 = 2 * 1024;
/// The same over TLS.
const TLS_BYTES_MAX: i64 = 10 * 1024;

/// One kind of statement.
struct Kind {
    name: &'static str,
    /// What is asked in each round, one request after the other.
    round: fn(u32) -> Vec<Vec<u8>>,
    rounds: u32,
    /// Requests for memory that a round may make, until it makes none.
    most: f64,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "simple",
        round: |_| vec![query("SELECT value FROM notes WHERE id = 1")],
        rounds: READS,
        most: 0.0,
    },
    Kind {
        name: "simple, another literal each time",
        round: |number| vec![query(&format!("SELECT value FROM notes WHERE id = {number}"))],
        rounds: READS,
        most: 0.0,
    },
    Kind {
        name: "extended, unnamed",
        round: |number| vec![extended(number)],
        rounds: READS,
        most: 0.0,
    },
    Kind { name: "prepared", round: |number| vec![prepared(number)], rounds: READS, most: 0.0 },
    Kind {
        name: "simple, a write",
        round: |_| vec![query("UPDATE notes SET value = 1 WHERE id = 1")],
        rounds: WRITES,
        most: 0.0,
    },
    Kind {
        name: "a transaction of three statements",
        round: |_| ["BEGIN", "UPDATE notes SET value = 1 WHERE id = 1", "COMMIT"].map(query).into(),
        rounds: WRITES,
        most: 0.0,
    },
];

/// Many of them at a time.
const MANY: u32 = 64;
/// Writes are slow enough for most of them to wait.
const WAITING: Kind = Kind {
    name: "a write that waits for a backend",
    round: |number| {
        let id = number % 1_000 + 1;
        vec![query(&format!("UPDATE notes SET value = value WHERE id = {id}"))]
    },
    rounds: 200,
    most: 2.5,
};

/// What can't go without: each text is a new one, and its facts are kept.
const NEW_TEXTS: Kind = Kind {
    name: "simple, another text each time",
    round: |number| {
        vec![query(&format!("SELECT value AS column_{number} FROM notes WHERE id = 1"))]
    },
    rounds: WRITES,
    most: f64::INFINITY,
};

/// One for all tests, one at a time: what is counted is counted for the whole process.
static INSIDE: LazyLock<Mutex<Inside>> = LazyLock::new(|| Mutex::new(Inside::start()));

#[test]
fn a_statement_in_steady_state_asks_for_no_more_memory_than_is_known() {
    let inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut worse = Vec::new();
    for kind in KINDS {
        let (each, places) = measure(&inside, &kind);
        eprintln!("{}: {each:.3} a round, {} allowed{places}", kind.name, kind.most);
        if each > kind.most + BESIDES {
            worse.push(format!("{}: {each:.3} a round, not {}{places}", kind.name, kind.most));
        }
    }
    assert!(worse.is_empty(), "requests for memory: {}", worse.join("\n"));
}

/// Half of it is the future of the client's task; the states of what it rarely waits for are in
/// boxes, so that they are not part of it. A build for release has about the same.
#[test]
fn an_idle_client_takes_no_more_memory_than_is_known() {
    let inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let (each, most) = idle(&|| Some(inside.client())).unwrap();
    eprintln!("{each} bytes an idle client, {IDLE_BYTES_MAX} allowed");
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes an idle client");
    assert!(most > 100, "{most} bytes an idle client: they are not counted");
}

/// The same over TLS: what is more is rustls's, and so are the four kilobytes into which it reads.
#[test]
fn an_idle_client_over_tls_takes_no_more_memory_than_is_known() {
    let inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let came = idle(&|| inside.tls_client());
    let (each, _) = came.expect("no client came over TLS; scripts/setup.sh test installs openssl");
    eprintln!("{each} bytes an idle client over TLS, {TLS_BYTES_MAX} allowed");
    assert!(each <= TLS_BYTES_MAX, "{each} bytes an idle client");
}

/// What a client takes that has asked once, in bytes: the median of a few rounds, and the most. A
/// table that grows is in one of them, and a shard also gives back what others have asked for,
/// such as what was published to it.
fn idle(client: &dyn Fn() -> Option<Client>) -> Option<(i64, i64)> {
    let mut kept = Vec::new();
    let mut round = || {
        let before = counting::live();
        for _ in 0..IDLE {
            let mut client = client()?;
            client.ask(&query("SELECT 1"));
            kept.push(client);
        }
        Some((counting::live() - before) / IDLE)
    };
    // What is needed once is there after the first.
    round()?;
    let mut each: Vec<_> = (0..IDLE_ROUNDS).filter_map(|_| round()).collect();
    each.sort_unstable();
    // They stay: who leaves gives back what the next test would count.
    std::mem::forget(kept);
    Some((*each.get(each.len() / 2)?, *each.last()?))
}

/// Many clients on few backends: who waits asks for a box to wait in and for a way to be told, and
/// now and then for room in the queue.
#[test]
fn a_wait_for_a_backend_asks_for_no_more_memory_than_is_known() {
    let inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let (each, places) = measure_with(&inside, &WAITING, MANY);
    eprintln!("{}: {each:.3} a round, {} allowed{places}", WAITING.name, WAITING.most);
    assert!(each <= WAITING.most, "{each:.3} a round{places}");
}

/// The opposite arm: the counter sees an allocation, and says where it was made.
#[test]
fn what_asks_for_memory_is_seen_with_its_place() {
    let inside = INSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    let (each, places) = measure(&inside, &NEW_TEXTS);
    assert!(each > 3.0 + BESIDES, "{each:.3} a round{places}");
    assert!(places.contains("src/sql/cache.rs"), "{places}");
}

/// The requests for memory a round, and the places where some were made.
fn measure(inside: &Inside, kind: &Kind) -> (f64, String) {
    measure_with(inside, kind, CLIENTS)
}

/// The same, with so many clients.
fn measure_with(inside: &Inside, kind: &Kind, many: u32) -> (f64, String) {
    let mut clients: Vec<_> = (0..many).map(|_| inside.client()).collect();
    for client in &mut clients {
        client.ask(&prepare());
    }
    // However many of them are served at a time later, each finds what one needs.
    if many <= BACKENDS {
        for sql in ["BEGIN", "COMMIT"] {
            for client in &mut clients {
                client.ask(&query(sql));
            }
        }
    }
    let mut from = 0;
    let mut all = |rounds: u32| {
        let before = counting::requests();
        std::thread::scope(|scope| {
            for (client, turn) in clients.iter_mut().zip(0..) {
                let begin = from + turn * rounds;
                scope.spawn(move || run(client, kind, begin..begin + rounds));
            }
        });
        from += rounds * many;
        let requests = u32::try_from(counting::requests() - before).unwrap();
        f64::from(requests) / f64::from(rounds * many)
    };
    all(WARM_UP);
    let mut least = f64::INFINITY;
    for _ in 0..ATTEMPTS {
        least = least.min(all(kind.rounds));
        if least <= kind.most + BESIDES {
            break;
        }
    }
    counting::trace();
    all(TRACED);
    let mut places = String::new();
    for (place, times) in counting::places() {
        write!(places, "\n  {times} times: {place}").unwrap();
    }
    std::mem::forget(clients);
    (least, places)
}

fn run(client: &mut Client, kind: &Kind, numbers: Range<u32>) {
    for number in numbers {
        for request in (kind.round)(number) {
            client.ask(&request);
        }
    }
}

fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::write_query(&mut out, sql);
    out
}

fn extended(number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    message::write_parse(&mut out, b"", b"SELECT value FROM notes WHERE id = $1");
    message::write_bind_text(&mut out, &[&number.to_string()]);
    message::write_execute(&mut out);
    message::write_sync(&mut out);
    out
}

fn prepare() -> Vec<u8> {
    let mut out = Vec::new();
    message::write_parse(&mut out, b"by_id", b"SELECT value FROM notes WHERE id = $1");
    message::write_sync(&mut out);
    out
}

fn prepared(number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    bind(&mut out, b"by_id", number.to_string().as_bytes());
    message::write_execute(&mut out);
    message::write_sync(&mut out);
    out
}

/// `Bind` of a named statement with one parameter, as text.
fn bind(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut body = vec![0];
    body.extend_from_slice(name);
    body.extend_from_slice(&[0, 0, 0, 0, 1]);
    body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend_from_slice(value);
    body.extend_from_slice(&[0, 0]);
    out.push(b'B');
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(&body);
}
