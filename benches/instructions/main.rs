//! How many instructions the steps of a statement's way take, and a whole statement through
//! pgsteer, against what is written down in `benches/baseline.json`: `make bench-check`.
//!
//! A clock says little on a busy machine; valgrind counts the same instructions each time, to a
//! few in a thousand. More than the tolerance above the baseline fails. Much less is told, so that
//! what was won is written down (`ARGS=update`) and can't be lost again unseen.
//!
//! Another compiler or another processor takes other instructions: then compare with a baseline of
//! your own, made from the commit before.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool that may stop")]

#[path = "../cases/mod.rs"]
mod cases;
#[path = "../traced/mod.rs"]
mod traced;

mod baseline;
mod relay;
mod steps;

use crate::baseline::Counted;
use clap::Parser as _;
use pgsteer::sandbox::{Cluster, Plan, Postgres, Template};
use std::process::ExitCode;

/// What is counted.
#[derive(Debug, Clone, clap::Parser)]
struct Args {
    /// Only what has this in its name
    #[arg(long, default_value = "")]
    only: String,
    /// What becomes of the counts
    #[arg(value_enum, default_value_t = Action::Compare)]
    action: Action,
    /// Only do this step, so many times; how it counts itself
    #[arg(long, hide = true, num_args = 3, value_names = ["STEP", "TIMES", "SERVER"])]
    step: Option<Vec<String>>,
    /// cargo bench adds this
    #[arg(long, hide = true)]
    bench: bool,
}

/// What becomes of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// They are compared with the baseline.
    Compare,
    /// They become the baseline.
    Update,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some([step, times, server]) = args.step.as_deref() {
        steps::run(step, times.parse().unwrap(), server.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if !traced::is_there() {
        eprintln!("valgrind is missing: scripts/setup.sh bench");
        return ExitCode::FAILURE;
    }
    let postgres = Postgres::find(None).unwrap();
    let template = Template::new(postgres.clone()).unwrap();
    let cluster = Cluster::start(&template, &Plan::new()).unwrap();
    let mut counted = Counted::new();
    steps::count(&cluster, &args.only, &mut counted);
    relay::count(&cluster, &postgres, &args.only, &mut counted);
    match args.action {
        Action::Update => counted.write(),
        Action::Compare if counted.compare() => {}
        Action::Compare => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}
