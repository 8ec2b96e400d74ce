//! What a proxy costs: pgbench straight to the server, through PgBouncer and through pgsteer, in
//! turn, in one run.
//!
//! Figures of one machine on one day mean little; ratios measured side by side mean more, and only
//! if they are larger than what two runs of the very same thing differ by. So each round runs every
//! target once, in an order that is turned around each time, and pgsteer twice: the difference
//! between the two is the noise. A target that is not installed is `NOT MEASURED`, never left out.
//!
//!   make bench                       all of it, some minutes
//!   make bench ARGS="--rounds 2 --seconds 2"      a look
//!
//! Deliberately absent: a pass or a fail. What was reached is read in the table.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool that may stop")]

mod measure;
mod report;
mod target;

use crate::measure::Sample;
use crate::report::Report;
use crate::target::{Site, Target};
use clap::Parser as _;
use std::path::PathBuf;
use std::time::Duration;

/// How it is measured.
#[derive(Debug, Clone, clap::Parser)]
struct Args {
    /// Rounds; each runs every target once
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Clients of pgbench
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Backends of a pool
    #[arg(long, default_value_t = 16)]
    pool: usize,
    /// Where the results go, without the extension  [default: only shown]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// cargo bench adds this
    #[arg(long, hide = true)]
    bench: bool,
}

/// What pgbench does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Workload {
    name: &'static str,
    arguments: &'static [&'static str],
    prepares: Prepares,
}

/// Whether it needs prepared statements, which PgBouncer knows in transaction mode since 1.21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prepares {
    No,
    Yes,
}

const WORKLOADS: [Workload; 5] = [
    Workload { name: "select, simple", arguments: &["-S", "-M", "simple"], prepares: Prepares::No },
    Workload {
        name: "select, extended",
        arguments: &["-S", "-M", "extended"],
        prepares: Prepares::No,
    },
    Workload {
        name: "select, prepared",
        arguments: &["-S", "-M", "prepared"],
        prepares: Prepares::Yes,
    },
    Workload { name: "tpc-b, simple", arguments: &["-M", "simple"], prepares: Prepares::No },
    Workload { name: "tpc-b, prepared", arguments: &["-M", "prepared"], prepares: Prepares::Yes },
];

fn main() {
    let args = Args::parse();
    let site = Site::build(args.pool);
    let mut report = Report::new(&args, &site);
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(&args.only)) {
        let targets = Target::all();
        for target in targets {
            if let Ok(address) = site.address(*target, *workload) {
                warm_up(&site, address, workload);
            }
        }
        for round in 0..args.rounds {
            let mut order: Vec<_> = targets.to_vec();
            if round % 2 == 1 {
                order.reverse();
            }
            for target in order {
                let sample = one(&site, target, workload, &args);
                eprintln!("{}: {}: {}", workload.name, target.name(), told(sample.as_ref()));
                report.take(workload.name, target, sample);
            }
        }
    }
    println!("{}", report.markdown());
    if let Some(out) = &args.out {
        std::fs::write(out.with_extension("md"), report.markdown()).expect("the results' file");
        std::fs::write(out.with_extension("json"), report.json()).expect("the results' file");
    }
}

fn warm_up(site: &Site, address: std::net::SocketAddr, workload: &Workload) {
    let short = Duration::from_secs(1);
    measure::pgbench(site, address, workload.arguments, (4, short)).unwrap();
}

fn one(site: &Site, target: Target, workload: &Workload, args: &Args) -> Result<Sample, String> {
    let address = site.address(target, *workload)?;
    let process = site.process(target, *workload);
    let before = process.map(measure::Usage::of);
    let length = Duration::from_secs(args.seconds);
    let run = measure::pgbench(site, address, workload.arguments, (args.clients, length))?;
    let used = process.zip(before).map(|(pid, before)| measure::Usage::of(pid).since(before));
    Ok(Sample::new(&run, used))
}

fn told(sample: Result<&Sample, &String>) -> String {
    match sample {
        Ok(sample) => sample.to_string(),
        Err(why) => format!("NOT MEASURED: {why}"),
    }
}
