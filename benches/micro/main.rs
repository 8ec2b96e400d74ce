//! How long the steps of a statement's way take, for people: `cargo bench --bench micro`.
//!
//! Times of a busy machine mean little; what a change costs is better read from the instructions
//! that `make bench-check` counts, of the very same steps.

#![expect(clippy::unwrap_used, reason = "a tool that may stop")]

#[path = "../cases/mod.rs"]
mod cases;

use crate::cases::CASES;
use criterion::Criterion;
use pgsteer::sandbox::{Cluster, Plan, Postgres, Template};
use std::net::SocketAddr;

fn main() {
    let template = Template::new(Postgres::find(None).unwrap()).unwrap();
    let cluster = Cluster::start(&template, &Plan::new().standbys(0)).unwrap();
    let server: SocketAddr = cluster.primary().address().parse().unwrap();
    let mut criterion = Criterion::default().configure_from_args();
    for case in CASES {
        let mut step = (case.ready)(server);
        criterion.bench_function(case.name, |bencher| bencher.iter(&mut step));
    }
    criterion.final_summary();
}
