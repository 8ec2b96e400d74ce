//! `initdb` once for all tests of a process.

use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::Postgres;
use pgsteer::sandbox::Template;
use std::sync::LazyLock;

/// Ends with the process: its guard sees to that.
static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let postgres = Postgres::find(None).unwrap_or_else(|error| panic!("{error}"));
    Template::new(postgres).unwrap_or_else(|error| panic!("{error}"))
});

/// A cluster like this plan, on the PostgreSQL that `PGSTEER_PG_BIN` names or this machine has.
pub fn cluster(plan: &Plan) -> Cluster {
    Cluster::start(&TEMPLATE, plan).unwrap_or_else(|error| panic!("{error}"))
}
