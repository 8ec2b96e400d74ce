//! pgbench's statements through everything: processor time a statement, throughput, latency.

use crate::Args;
use crate::measure::{Load, Usage, pgbench};
use crate::peer;
use crate::peer::{Channel, Kind, Login, NAMED, Prepares, Running, Wanted};
use crate::report::{Figure, Table};
use crate::rounds::rounds;
use crate::site::Site;
use std::time::Duration;

/// What is shown of each.
const FIGURES: [Figure; 6] = [
    Figure::compared("us a statement", 1),
    Figure::compared("of it user", 1),
    Figure::compared("statements/s", 0),
    Figure::compared("p50 ms", 3),
    Figure::compared("p99 ms", 2),
    Figure::compared("us at the servers", 0),
];

/// What pgbench does.
#[derive(Debug, Clone, Copy)]
struct Workload {
    name: &'static str,
    arguments: &'static [&'static str],
    prepares: Prepares,
    clients: &'static [usize],
}

const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "select, simple",
        arguments: &["-S", "-M", "simple"],
        prepares: Prepares::No,
        clients: &[1, 16, 64],
    },
    Workload {
        name: "select, extended",
        arguments: &["-S", "-M", "extended"],
        prepares: Prepares::No,
        clients: &[16, 64],
    },
    Workload {
        name: "select, prepared",
        arguments: &["-S", "-M", "prepared"],
        prepares: Prepares::Yes,
        clients: &[1, 16, 64],
    },
    Workload {
        name: "tpc-b, simple",
        arguments: &["-M", "simple"],
        prepares: Prepares::No,
        clients: &[16],
    },
    Workload {
        name: "tpc-b, prepared",
        arguments: &["-M", "prepared"],
        prepares: Prepares::Yes,
        clients: &[16],
    },
];

/// All workloads at all numbers of clients.
pub(crate) fn queries(site: &Site, args: &Args) -> Vec<Table> {
    let mut tables = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(&args.only)) {
        let wanted = Wanted {
            pool: args.pool,
            login: Login::Trust,
            channel: Channel::Plain,
            prepares: workload.prepares,
        };
        let mut kinds = vec![Kind::Direct, Kind::PgBouncer, Kind::HaProxy];
        kinds.extend(NAMED);
        kinds.extend([Kind::Pool, Kind::Again, Kind::Routed]);
        if workload.arguments.contains(&"extended") {
            kinds.push(Kind::Reusing);
        }
        let targets = peer::start(site, &kinds, wanted);
        for clients in workload.clients {
            let title = format!("{}, {clients} clients on {}", workload.name, args.pool);
            let mut table = Table::new(&title, peer::peer(wanted), &FIGURES);
            let load = Load::plain(workload.arguments, *clients, args.length());
            let warm_up = Load { length: Duration::from_secs(1), ..load.clone() };
            for running in targets.iter().filter_map(|target| target.state.as_ref().ok()) {
                // What it can't do is told by the rounds.
                drop(pgbench(site, running.address, &warm_up));
            }
            rounds(&mut table, args, &targets, |running| one(site, running, &load));
            tables.push(table);
        }
    }
    tables
}

/// Prepared statements over TLS.
pub(crate) fn tls(site: &Site, args: &Args) -> Vec<Table> {
    let wanted = Wanted {
        pool: args.pool,
        login: Login::Trust,
        channel: Channel::Tls,
        prepares: Prepares::Yes,
    };
    let kinds = [Kind::PgBouncer, Kind::Pool, Kind::Again, Kind::Routed];
    let targets = peer::start(site, &kinds, wanted);
    let mut tables = Vec::new();
    for clients in [16, 64] {
        let title = format!("TLS, select, prepared, {clients} clients");
        let mut table = Table::new(&title, peer::peer(wanted), &FIGURES);
        let arguments = ["-S", "-M", "prepared"];
        let load =
            Load { channel: Channel::Tls, ..Load::plain(&arguments, clients, args.length()) };
        rounds(&mut table, args, &targets, |running| one(site, running, &load));
        tables.push(table);
    }
    tables
}

/// Two shards against one.
pub(crate) fn shards(site: &Site, args: &Args) -> Vec<Table> {
    let wanted = Wanted {
        pool: args.pool,
        login: Login::Trust,
        channel: Channel::Plain,
        prepares: Prepares::No,
    };
    let targets = peer::start(site, &[Kind::Shards(1), Kind::Again, Kind::Shards(2)], wanted);
    let mut tables = Vec::new();
    for (name, clients) in [("simple", 16), ("simple", 64), ("prepared", 16), ("prepared", 64)] {
        let title = format!("shards, select, {name}, {clients} clients");
        let mut table = Table::new(&title, "1 shard", &FIGURES);
        let arguments = ["-S", "-M", name];
        let load = Load::plain(&arguments, clients, args.length());
        rounds(&mut table, args, &targets, |running| one(site, running, &load));
        tables.push(table);
    }
    tables
}

/// One run.
fn one(site: &Site, running: &Running, load: &Load<'_>) -> Result<Vec<f64>, String> {
    let before = running.process.map(Usage::of);
    let servers_before = Usage::of_all(&site.server_processes());
    let run = pgbench(site, running.address, load)?;
    let servers = Usage::of_all(&site.server_processes()).since(servers_before);
    let used = running.process.zip(before).map(|(pid, before)| Usage::of(pid).since(before));
    let each = |seconds: f64| seconds * 1e6 / run.transactions;
    let own = |part: fn(Usage) -> f64| used.map_or(f64::NAN, |used| each(part(used)));
    Ok(vec![own(Usage::sum), own(|used| used.user), run.tps, run.p50, run.p99, each(servers.sum())])
}
