//! What a proxy costs: the same work straight at the server, through PgBouncer, through other
//! peers and through pgsteer, in turn, in one run.
//!
//! Figures of one machine on one day mean little; ratios measured side by side mean more, and only
//! if they are larger than what two runs of the very same thing differ by. So each round runs every
//! target once, in an order that is turned around each time, and pgsteer twice: the difference
//! between the two is the noise. A target that is not installed is `NOT MEASURED`, never left out.
//!
//!   make bench                                    all of it, some hours
//!   make bench ARGS="queries --rounds 2 --seconds 2"      a look at one section
//!
//! Deliberately absent: a pass or a fail. What was reached is read in the tables.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool that may stop")]
#![expect(clippy::format_push_string, reason = "tables are short")]

mod bulk;
mod crowded;
mod crowds;
mod fairness;
mod floods;
mod growth;
mod kernel;
mod logins;
mod measure;
mod peer;
mod queries;
mod report;
mod rounds;
mod site;
mod wire;

#[expect(unreachable_pub, reason = "the tests share it")]
#[path = "../../tests/support/syscalls.rs"]
mod syscalls;
#[path = "../place/mod.rs"]
mod place;
#[path = "../traced/mod.rs"]
mod traced;

use crate::report::{Report, Table};
use crate::site::Site;
use clap::Parser as _;
use std::path::PathBuf;
use std::time::Duration;

/// How it is measured.
#[derive(Debug, Clone, clap::Parser)]
struct Args {
    /// Which sections; none: all
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Rounds; each runs every target once
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Backends of a pool
    #[arg(long, default_value_t = 16)]
    pool: usize,
    /// Idle clients; a fifth of them over TLS
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Clients of the section `crowded`
    #[arg(long, default_value_t = 20_000)]
    crowd: usize,
    /// Seconds of the section `crowded`, for each target
    #[arg(long, default_value_t = 600)]
    crowd_time: u64,
    /// Largest number of anything in the section on growth
    #[arg(long, default_value_t = 100_000)]
    most: usize,
    /// Where the results go, without the extension  [default: only shown]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Of the section `queries` only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// cargo bench adds this
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the report, which can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// Processor time a statement, throughput, latency
    Queries,
    /// System calls a statement
    Kernel,
    /// Prepared statements over TLS
    Tls,
    /// Two shards against one
    Shards,
    /// Connecting and logging in
    Logins,
    /// Megabytes that pass through
    Bulk,
    /// Thousands of clients that do nothing
    Crowds,
    /// What 16 clients notice of a greedy, slow, bulky or new neighbour
    Fairness,
    /// 20,000 clients on 20 backends for ten minutes: whether memory grows
    Crowded,
    /// Memory under rows of a gigabyte and clients that do not read
    Floods,
    /// Instructions a statement where there is much of everything
    Growth,
}

impl Section {
    const ALL: [Self; 11] = [
        Self::Queries,
        Self::Kernel,
        Self::Tls,
        Self::Shards,
        Self::Logins,
        Self::Bulk,
        Self::Crowds,
        Self::Fairness,
        Self::Crowded,
        Self::Floods,
        Self::Growth,
    ];

    fn measure(self, site: &Site, args: &Args) -> (&'static str, Vec<Table>) {
        match self {
            Self::Queries => ("Statements; x is against PgBouncer", queries::queries(site, args)),
            Self::Kernel => ("System calls", kernel::calls(site, args)),
            Self::Tls => ("TLS to the client; x is against PgBouncer", queries::tls(site, args)),
            Self::Shards => ("Shards; x is against one", queries::shards(site, args)),
            Self::Logins => ("Logins; x is against PgBouncer", logins::logins(site, args)),
            Self::Bulk => ("Bulk; x is against PgBouncer", bulk::bulk(site, args)),
            Self::Crowds => ("Idle clients; x is against PgBouncer", crowds::crowds(site, args)),
            Self::Fairness => ("Fairness; x is against PgBouncer", fairness::fairness(site, args)),
            Self::Crowded => {
                ("Many clients, few backends; x is against PgBouncer", crowded::crowded(site, args))
            }
            Self::Floods => ("Floods; x is against PgBouncer", floods::floods(site, args)),
            Self::Growth => ("Growth; x is against the smallest", growth::growth(site, args)),
        }
    }
}

impl Args {
    const fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() {
    let args = Args::parse();
    crowds::allow_files();
    let site = Site::build();
    let words: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let command = format!("make bench ARGS=\"{}\"", words.join(" "));
    let mut report = Report::new(&command, peer::versions(&site));
    for section in Section::ALL {
        if args.sections.is_empty() || args.sections.contains(&section) {
            let (about, tables) = section.measure(&site, &args);
            report.take(about, tables);
            // What was measured so far is not lost if a later section fails.
            write(&args, &report);
        }
    }
    println!("{}", report.markdown());
}

fn write(args: &Args, report: &Report) {
    if let Some(out) = &args.out {
        std::fs::write(out.with_extension("md"), report.markdown()).expect("the results' file");
        std::fs::write(out.with_extension("json"), report.json()).expect("the results' file");
    }
}
