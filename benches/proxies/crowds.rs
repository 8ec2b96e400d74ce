//! What thousands of clients cost that do nothing: memory each, and processor time.

use crate::Args;
use crate::measure::{Usage, busy, memory};
use crate::peer;
use crate::peer::{Channel, Kind, Login, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use crate::wire::Dial;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

const FIGURES: [Figure; 4] = [
    Figure::compared("KiB a client", 2),
    Figure::plain("% of a processor without them", 2),
    Figure::plain("with them", 2),
    Figure::compared("us to open one", 0),
];
/// Files that are enough.
const FILES: u64 = 65_536;
/// How long they do nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Before that, what was begun may end.
const SETTLING: Duration = Duration::from_secs(2);

/// Clients that have each asked one query, plain and over TLS.
pub(crate) fn crowds(site: &Site, args: &Args) -> Vec<Table> {
    allow_files();
    let mut tables = Vec::new();
    for (channel, clients) in [(Channel::Plain, args.idle), (Channel::Tls, args.idle / 5)] {
        let wanted =
            Wanted { pool: args.pool, login: Login::Trust, channel, prepares: Prepares::No };
        let title = match channel {
            Channel::Plain => format!("{clients} idle clients"),
            Channel::Tls => format!("{clients} idle clients over TLS"),
        };
        let mut table = Table::new(&title, peer::PEER, &FIGURES);
        // Memory that was used once is not given back: each needs a fresh process.
        let once = Args { rounds: 1, ..args.clone() };
        for _ in 0..args.rounds.min(3) {
            for kind in [Kind::PgBouncer, Kind::Pool, Kind::Routed] {
                let targets = peer::start(site, &[kind], wanted);
                rounds(&mut table, &once, &targets, |running| {
                    one(site, running, (channel, clients))
                });
            }
        }
        tables.push(table);
    }
    tables
}

fn one(
    site: &Site,
    running: &Running,
    (channel, clients): (Channel, usize),
) -> Result<Vec<f64>, String> {
    let pid = running.process.ok_or("no process of its own")?;
    let dial = Dial::new(site, running.address, channel)?;
    // What is only needed once is there before it is counted.
    let mut first = (0..20).map(|_| dial.client()).collect::<Result<Vec<_>, _>>()?;
    for client in &mut first {
        client.query("SELECT 1").map_err(|error| error.to_string())?;
    }
    // What it does by itself, as for its servers, is not its clients' cost.
    let without = idle(pid);
    let (before, used) = (memory(pid), Usage::of(pid));
    let mut all = Vec::with_capacity(clients);
    for number in 0..clients {
        let mut client = dial.client().map_err(|error| format!("client {number}: {error}"))?;
        client.query("SELECT 1").map_err(|error| format!("client {number}: {error}"))?;
        all.push(client);
    }
    let opening = Usage::of(pid).since(used).sum();
    let with = idle(pid);
    let grown = memory(pid) - before;
    let clients = f64::from(u32::try_from(clients).unwrap_or(u32::MAX));
    Ok(vec![grown / clients, without, with, opening * 1e6 / clients])
}

/// How much of a processor this uses while nothing is asked of it, in percent.
fn idle(pid: u32) -> f64 {
    std::thread::sleep(SETTLING);
    let used = busy(pid);
    std::thread::sleep(IDLE);
    (busy(pid) - used) / IDLE.as_secs_f64() * 100.0
}

/// Lets this process and those that it starts have as many files as thousands of clients need, or
/// as the system lets them.
pub(crate) fn allow_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: Some(FILES), maximum: Some(FILES.max(maximum.unwrap_or(0))) };
    // Only root may have more than the maximum.
    let set = setrlimit(Resource::Nofile, enough)
        .or_else(|_| setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }));
    if let Err(error) = set {
        eprintln!("the number of open files stays as it is: {error}");
    }
}
