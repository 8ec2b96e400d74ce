//! What the well-behaved notice of somebody who is not: the 99th percentile of 16 clients that ask
//! one thing at a time, alone and beside each kind of neighbour.
//!
//! There are twice the backends that are needed, so that nobody waits for one: what is looked at
//! is the proxy. The neighbours and the servers take processor time too, on the same machine, so
//! what a neighbour costs is read beside what it costs behind PgBouncer.

use crate::Args;
use crate::measure::{Load, pgbench};
use crate::peer;
use crate::peer::{Channel, Kind, Login, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use crate::wire::{Client, Dial};
use pgsteer::clock;
use pgsteer::wire::message;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FIGURES: [Figure; 4] = [
    Figure::plain("p99 ms alone", 2),
    Figure::compared("p99 ms beside it", 2),
    Figure::plain("times alone", 2),
    Figure::plain("its turns/s", 0),
];
/// Those who ask one thing at a time.
const CLIENTS: usize = 16;
/// A neighbour has begun by then.
const BEGINNING: Duration = Duration::from_millis(300);
/// Statements that the greedy one sends at once; it is one such batch ahead.
const BATCH: usize = 500;
/// What the slow one reads at a time, in bytes, and its pause behind that.
const SIP: (usize, Duration) = (4 * 1024, Duration::from_millis(10));
/// Connections at a time that shake hands.
const HANDSHAKES: usize = 4;
/// The length of the long statement, in bytes.
const LONG: usize = 64 * 1024;

/// A neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    /// Is always a batch of statements ahead of its answers.
    Greedy,
    /// Asks for 24 MB and reads them by the sip.
    Slow,
    /// Copies as fast as it can.
    Copies,
    /// Connects over TLS, and leaves.
    ShakesHands,
    /// Asks 64 kB at a time, another text each time.
    TalksLong,
}

/// Each neighbour by itself.
pub(crate) fn fairness(site: &Site, args: &Args) -> Vec<Table> {
    let neighbours = [
        ("a client that pipelines 500 statements", Neighbour::Greedy),
        ("a client that reads slowly", Neighbour::Slow),
        ("a bulk COPY out", Neighbour::Copies),
        ("4 connections at a time that shake hands over TLS", Neighbour::ShakesHands),
        ("a client whose statements have 64 kB", Neighbour::TalksLong),
    ];
    let kinds = [Kind::PgBouncer, Kind::Pool, Kind::Again, Kind::Routed];
    let mut tables = Vec::new();
    for (title, neighbour) in neighbours {
        let channel = match neighbour {
            Neighbour::ShakesHands => Channel::Tls,
            Neighbour::Greedy | Neighbour::Slow | Neighbour::Copies | Neighbour::TalksLong => {
                Channel::Plain
            }
        };
        let wanted = Wanted {
            pool: 2 * args.pool.max(CLIENTS),
            login: Login::Trust,
            channel,
            prepares: Prepares::No,
        };
        let targets = peer::start(site, &kinds, wanted);
        let mut table = Table::new(&format!("16 clients beside {title}"), peer::PEER, &FIGURES);
        rounds(&mut table, args, &targets, |running| {
            one(site, running, (neighbour, channel), args.length())
        });
        tables.push(table);
    }
    tables
}

fn one(
    site: &Site,
    running: &Running,
    (neighbour, channel): (Neighbour, Channel),
    length: Duration,
) -> Result<Vec<f64>, String> {
    let dial = Dial::new(site, running.address, channel)?;
    let load = Load::plain(&["-S"], CLIENTS, length);
    let alone = pgbench(site, running.address, &load)?;
    let over = AtomicBool::new(false);
    let many = if neighbour == Neighbour::ShakesHands { HANDSHAKES } else { 1 };
    let (beside, turns, lasted) = std::thread::scope(|scope| {
        let started = clock::now();
        let all: Vec<_> =
            (0..many).map(|_| scope.spawn(|| neighbour.behaves(&dial, &over))).collect();
        std::thread::sleep(BEGINNING);
        let beside = pgbench(site, running.address, &load);
        over.store(true, Ordering::Relaxed);
        let lasted = clock::now().since(started);
        let mut turns = 0;
        for one in all {
            turns += one.join().map_err(|_| "the neighbour panicked".to_owned())??;
        }
        Ok::<_, String>((beside?, turns, lasted))
    })?;
    let turns = f64::from(turns) / lasted.as_secs_f64();
    Ok(vec![alone.p99, beside.p99, beside.p99 / alone.p99, turns])
}

impl Neighbour {
    /// Does what it does until it is over; how often.
    fn behaves(self, dial: &Dial, over: &AtomicBool) -> Result<u32, String> {
        let said = |error: std::io::Error| format!("the neighbour: {error}");
        let mut turns = 0;
        let mut client = dial.client()?;
        if self == Self::Greedy {
            client.send(&batch()).map_err(said)?;
        }
        if self == Self::Slow {
            client.send(&query("SELECT * FROM bulk")).map_err(said)?;
        }
        while !over.load(Ordering::Relaxed) {
            match self {
                Self::Greedy => one_ahead(&mut client).map_err(said)?,
                Self::Slow => {
                    client.take(SIP.0).map_err(said)?;
                    std::thread::sleep(SIP.1);
                }
                Self::Copies => drop(client.query("COPY bulk TO STDOUT").map_err(said)?),
                Self::ShakesHands => drop(dial.client()?),
                Self::TalksLong => drop(client.query(&long(turns)).map_err(said)?),
            }
            turns += 1;
        }
        Ok(turns)
    }
}

fn one_ahead(client: &mut Client) -> std::io::Result<()> {
    client.send(&batch())?;
    client.await_ready(BATCH).map(drop)
}

fn batch() -> Vec<u8> {
    query("SELECT 1").repeat(BATCH)
}

fn long(number: u32) -> String {
    format!("SELECT length('{}'), {number}", "x".repeat(LONG))
}

fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    message::write_query(&mut out, sql);
    out
}
