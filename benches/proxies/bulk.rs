//! What a megabyte costs that only passes through: rows of a SELECT, COPY out, COPY in.

use crate::Args;
use crate::measure::Usage;
use crate::peer;
use crate::peer::{Channel, Kind, Login, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use crate::wire::Dial;
use pgsteer::clock;

const FIGURES: [Figure; 3] =
    [Figure::compared("us/MB", 0), Figure::compared("of it user", 0), Figure::compared("MB/s", 0)];
const SELECT: &str = "SELECT * FROM bulk";
const COPY: &str = "COPY bulk TO STDOUT";

/// Both ways, through everything that passes bytes on.
pub(crate) fn bulk(site: &Site, args: &Args) -> Vec<Table> {
    let wanted = Wanted {
        pool: args.pool,
        login: Login::Trust,
        channel: Channel::Plain,
        prepares: Prepares::No,
    };
    let mut kinds = vec![Kind::PgBouncer, Kind::HaProxy];
    kinds.extend(peer::NAMED);
    kinds.extend([Kind::Pool, Kind::Again, Kind::Routed]);
    let targets = peer::start(site, &kinds, wanted);
    let mut tables = Vec::new();
    for (name, sql) in [("bulk SELECT, rows of 115 B", SELECT), ("bulk COPY out", COPY)] {
        let mut table = Table::new(name, peer::PEER, &FIGURES);
        rounds(&mut table, args, &targets, |running| one(site, running, (sql, args)));
        tables.push(table);
    }
    tables
}

fn one(site: &Site, running: &Running, (sql, args): (&str, &Args)) -> Result<Vec<f64>, String> {
    let pid = running.process.ok_or("no process of its own")?;
    let mut client = Dial::new(site, running.address, Channel::Plain)?.client()?;
    client.query(sql).map_err(|error| error.to_string())?;
    let (before, started) = (Usage::of(pid), clock::now());
    let end = started + args.length();
    let mut bytes = 0_u64;
    while clock::now() < end {
        bytes += client.query(sql).map_err(|error| error.to_string())?;
    }
    let used = Usage::of(pid).since(before);
    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a count")]
    let megabytes = bytes as f64 / 1e6;
    let seconds = clock::now().since(started).as_secs_f64();
    Ok(vec![used.sum() * 1e6 / megabytes, used.user * 1e6 / megabytes, megabytes / seconds])
}
