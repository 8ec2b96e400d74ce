//! What a statement asks of the kernel, by perf's counters, else by strace.

use crate::Args;
use crate::peer;
use crate::peer::{Channel, Kind, Login, NAMED, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use crate::syscalls;
use crate::syscalls::Tool;
use pgsteer::sandbox::Proxy;

const FIGURES: [Figure; 5] = [
    Figure::plain("receives", 3),
    Figure::plain("sends", 3),
    Figure::plain("waits", 3),
    Figure::plain("all others", 3),
    Figure::plain("of them the most frequent", 3),
];
/// Clients of pgbench.
const CLIENTS: u32 = 16;
/// Statements of each of them, the first and the second time.
const TIMES: (u32, u32) = (500, 3_000);

/// Calls a statement, by each protocol.
pub(crate) fn calls(site: &Site, args: &Args) -> Vec<Table> {
    let tool = syscalls::tool();
    let by = match tool {
        Some(Tool::Perf) => "by perf stat",
        Some(Tool::Strace) => "by strace, which slows the proxy: waits are too few",
        None => "with nothing",
    };
    let mut tables = Vec::new();
    for (name, prepares) in
        [("simple", Prepares::No), ("extended", Prepares::No), ("prepared", Prepares::Yes)]
    {
        let wanted =
            Wanted { pool: args.pool, login: Login::Trust, channel: Channel::Plain, prepares };
        let mut kinds = vec![Kind::PgBouncer, Kind::HaProxy];
        kinds.extend(NAMED);
        kinds.extend([Kind::Pool, Kind::Again, Kind::Routed]);
        let targets = peer::start(site, &kinds, wanted);
        let title = format!("system calls a statement, select, {name}, counted {by}");
        let mut table = Table::new(&title, peer::peer(wanted), &FIGURES);
        let fewer = Args { rounds: args.rounds.min(3), ..args.clone() };
        rounds(&mut table, &fewer, &targets, |running| {
            let tool = tool.ok_or("neither perf nor strace works here")?;
            one(site, running, (tool, name))
        });
        tables.push(table);
    }
    tables
}

fn one(site: &Site, running: &Running, (tool, name): (Tool, &str)) -> Result<Vec<f64>, String> {
    let pid = running.process.ok_or("no process of its own")?;
    let port = running.address.port().to_string();
    let run = |all: u32| {
        let mut command = Proxy::command(&site.program("pgbench"));
        let clients = CLIENTS.to_string();
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-n", "-S", "-j", "2"]);
        command.args(["-M", name, "-c", &clients, "-t", &(all / CLIENTS).to_string(), "postgres"]);
        command
    };
    // Backends are opened, statements are known.
    run(100 * CLIENTS).output().map_err(|error| error.to_string())?;
    let times = (TIMES.0 * CLIENTS, TIMES.1 * CLIENTS);
    let each = syscalls::each((tool, pid, site.scratch()), times, run)?;
    Ok(vec![each.receives, each.sends, each.waits, each.others, each.most.1])
}
