//! Memory where a lot of data meets a little of it: a row of a gigabyte, a client that stops
//! reading, one that goes on asking and never reads.

use crate::Args;
use crate::measure::memory;
use crate::peer;
use crate::peer::{Channel, Kind, Login, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use crate::wire::Dial;
use pgsteer::wire::message;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FIGURES: [Figure; 1] = [Figure::compared("KiB a connection, at most", 0)];
/// Pause between two looks at the memory.
const LOOK: Duration = Duration::from_millis(20);
/// How long a client that does not read is looked at.
const STALL: Duration = Duration::from_secs(3);
/// A row that is as long as PostgreSQL can make one.
const HUGE_ROW: &str = "SELECT repeat('x', 1000000000)";
const LARGE_RESULT: &str = "SELECT * FROM bulk";

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    ReadsAHugeRow,
    StopsReading,
    AsksOn,
}

/// Each by itself, in a fresh process.
pub(crate) fn floods(site: &Site, args: &Args) -> Vec<Table> {
    let wanted = Wanted {
        pool: args.pool,
        login: Login::Trust,
        channel: Channel::Plain,
        prepares: Prepares::No,
    };
    let cases = [
        ("a row of 1 GB", Doing::ReadsAHugeRow),
        ("16 clients that do not read 24 MB", Doing::StopsReading),
        ("16 clients that go on asking and never read", Doing::AsksOn),
    ];
    let mut tables = Vec::new();
    let once = Args { rounds: 1, ..args.clone() };
    for (title, doing) in cases {
        let mut table = Table::new(title, peer::PEER, &FIGURES);
        for kind in [Kind::PgBouncer, Kind::Pool, Kind::Routed] {
            let targets = peer::start(site, &[kind], wanted);
            rounds(&mut table, &once, &targets, |running| one(site, running, doing));
        }
        tables.push(table);
    }
    tables
}

fn one(site: &Site, running: &Running, doing: Doing) -> Result<Vec<f64>, String> {
    let pid = running.process.ok_or("no process of its own")?;
    let dial = Dial::new(site, running.address, Channel::Plain)?;
    let count: u16 = if doing == Doing::ReadsAHugeRow { 1 } else { 16 };
    let mut clients = (0..count).map(|_| dial.client()).collect::<Result<Vec<_>, _>>()?;
    for client in &mut clients {
        client.query("SELECT 1").map_err(|error| error.to_string())?;
    }
    let before = memory(pid);
    let over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut most = before;
            while !over.load(Ordering::Relaxed) {
                most = memory(pid).max(most);
                std::thread::sleep(LOOK);
            }
            most
        });
        let mut query = Vec::new();
        message::write_query(&mut query, LARGE_RESULT);
        let done = clients.iter_mut().try_for_each(|client| match doing {
            Doing::ReadsAHugeRow => client.query(HUGE_ROW).map(drop),
            Doing::StopsReading => client.send(&query),
            Doing::AsksOn => client.send_what_goes(&query),
        });
        if doing != Doing::ReadsAHugeRow {
            std::thread::sleep(STALL);
        }
        over.store(true, Ordering::Relaxed);
        let most = looks.join().map_err(|_| "the look at the memory failed".to_owned())?;
        done.map_err(|error| error.to_string()).map(|()| most)
    })?;
    Ok(vec![(most - before) / f64::from(count)])
}
