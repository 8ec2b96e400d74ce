//! Many clients on few backends for a long time: whether anything grows.
//!
//! All of them ask in turn, a few hundred at a time, so that there is always somebody who waits
//! for a backend and everybody has waited many times. They come from several addresses of this
//! machine: one has not the ports for all of them.

use crate::Args;
use crate::crowds::allow_files;
use crate::measure::memory;
use crate::peer;
use crate::peer::{Channel, Kind, Login, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use crate::wire::{Client, Dial};
use pgsteer::clock;
use pgsteer::clock::Moment;
use pgsteer::wire::message;
use std::net::Ipv4Addr;
use std::time::Duration;

const FIGURES: [Figure; 4] = [
    Figure::compared("MiB at the start", 1),
    Figure::compared("MiB at the end", 1),
    Figure::plain("% grown", 1),
    Figure::compared("statements/s", 0),
];
const BACKENDS: usize = 20;
/// Threads of this program, and how many clients of each ask at a time.
const ASKING: (usize, usize) = (8, 40);
/// Clients that come from one address.
const OF_AN_ADDRESS: usize = 5_000;
const STATEMENT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 1";

/// Each target by itself, in a fresh process.
pub(crate) fn crowded(site: &Site, args: &Args) -> Vec<Table> {
    allow_files();
    let wanted = Wanted {
        pool: BACKENDS,
        login: Login::Trust,
        channel: Channel::Plain,
        prepares: Prepares::No,
    };
    let title = format!("{} clients on {BACKENDS} backends for {} s", args.crowd, args.crowd_time);
    let mut table = Table::new(&title, peer::PEER, &FIGURES);
    let once = Args { rounds: 1, ..args.clone() };
    for kind in [Kind::PgBouncer, Kind::Pool, Kind::Routed] {
        let targets = peer::start(site, &[kind], wanted);
        rounds(&mut table, &once, &targets, |running| one(site, running, args));
    }
    vec![table]
}

fn one(site: &Site, running: &Running, args: &Args) -> Result<Vec<f64>, String> {
    let pid = running.process.ok_or("no process of its own")?;
    let dial = Dial::new(site, running.address, Channel::Plain)?;
    let mut clients = Vec::with_capacity(args.crowd);
    for number in 0..args.crowd {
        let client = dial.clone().coming_from(address(number)).client();
        clients.push(client.map_err(|error| format!("client {number}: {error}"))?);
    }
    // Every one has asked, and every backend is there, before it is counted.
    all_ask(&mut clients, None)?;
    all_ask(&mut clients, None)?;
    let (before, started) = (memory(pid), clock::now());
    let asked = all_ask(&mut clients, Some(started + Duration::from_secs(args.crowd_time)))?;
    let (after, took) = (memory(pid), clock::now().since(started));
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a count")]
    let each_second = asked as f64 / took.as_secs_f64();
    let grown = (after / before - 1.0) * 100.0;
    Ok(vec![before / 1024.0, after / 1024.0, grown, each_second])
}

/// One of this machine's own addresses, for so many clients each.
fn address(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number / OF_AN_ADDRESS).map_or(250, |address| address.min(248) + 2);
    Ipv4Addr::new(127, 0, 0, last)
}

/// Every client asks once, or in turn until then; how often it was asked.
fn all_ask(clients: &mut [Client], until: Option<Moment>) -> Result<usize, String> {
    let mut query = Vec::new();
    message::write_query(&mut query, STATEMENT);
    let each = clients.len().div_ceil(ASKING.0).max(1);
    std::thread::scope(|scope| {
        let parts = clients.chunks_mut(each);
        let all: Vec<_> = parts.map(|part| scope.spawn(|| in_turn(part, &query, until))).collect();
        let mut asked = 0;
        for one in all {
            asked += one.join().map_err(|_| "a client panicked".to_owned())??;
        }
        Ok(asked)
    })
}

fn in_turn(clients: &mut [Client], query: &[u8], until: Option<Moment>) -> Result<usize, String> {
    let mut asked = 0;
    loop {
        for few in clients.chunks_mut(ASKING.1) {
            for client in &mut *few {
                client.send(query).map_err(|error| error.to_string())?;
            }
            for client in &mut *few {
                client.await_ready(1).map_err(|error| error.to_string())?;
            }
            asked += few.len();
            if until.is_some_and(|until| clock::now() >= until) {
                return Ok(asked);
            }
        }
        if until.is_none() {
            return Ok(asked);
        }
    }
}
