//! What it costs to connect and log in: pgbench with a connection for each transaction, which asks
//! nothing.

use crate::Args;
use crate::measure::{Load, Usage, pgbench};
use crate::peer;
use crate::peer::{Channel, Kind, Login, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;

const FIGURES: [Figure; 3] = [
    Figure::compared("us a login", 0),
    Figure::compared("of it user", 0),
    Figure::compared("logins/s", 0),
];
/// Clients of pgbench.
const CLIENTS: usize = 4;

/// Without a proof, by SCRAM from stored keys, over TLS.
pub(crate) fn logins(site: &Site, args: &Args) -> Vec<Table> {
    let script = site.scratch().join("nothing.sql");
    std::fs::write(&script, "\\set nothing 1\n").unwrap();
    let script = script.to_string_lossy().into_owned();
    let arguments = ["-C", "-f", script.as_str()];
    let ways = [
        ("trust", Login::Trust, Channel::Plain),
        ("SCRAM from stored keys", Login::Scram, Channel::Plain),
        ("trust, over TLS", Login::Trust, Channel::Tls),
    ];
    let mut tables = Vec::new();
    for (name, login, channel) in ways {
        let wanted = Wanted { pool: args.pool, login, channel, prepares: Prepares::No };
        let targets =
            peer::start(site, &[Kind::PgBouncer, Kind::Pool, Kind::Again, Kind::Routed], wanted);
        let mut table = Table::new(&format!("log in: {name}"), peer::PEER, &FIGURES);
        let load = Load { login, channel, ..Load::plain(&arguments, CLIENTS, args.length()) };
        rounds(&mut table, args, &targets, |running| one(site, running, &load));
        tables.push(table);
    }
    tables
}

fn one(site: &Site, running: &Running, load: &Load<'_>) -> Result<Vec<f64>, String> {
    let pid = running.process.ok_or("no process of its own")?;
    let before = Usage::of(pid);
    let run = pgbench(site, running.address, load)?;
    let used = Usage::of(pid).since(before);
    let each = |seconds: f64| seconds * 1e6 / run.transactions;
    Ok(vec![each(used.sum()), each(used.user), run.tps])
}
