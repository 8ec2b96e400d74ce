//! Drivers of other languages, as their users have them: psycopg 3, asyncpg, node-postgres.
//!
//! `scripts/test-drivers.sh` fetches them from their registries and runs `tests/drivers/*`. Where
//! it can't fetch them the test fails, and says why: a driver that was not tried is not one that
//! works.

use crate::support::Blueprint;
use std::path::Path;
use std::process::Command;

#[test]
fn psycopg_asyncpg_and_node_postgres_work_unchanged() {
    // Fewer backends than clients of the drivers' own pools.
    let house = Blueprint::new().set("pool.size", "4").build();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = Command::new("bash")
        .arg(root.join("scripts/test-drivers.sh"))
        .arg(house.proxy_uri("postgres", "postgres"))
        .current_dir(root)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&script.stdout);
    let complained = String::from_utf8_lossy(&script.stderr);
    assert!(script.status.success(), "{said}\n{complained}");
    for driver in ["psycopg 3", "asyncpg", "node-postgres"] {
        assert!(said.contains(&format!("== {driver}")), "{driver} did not run: {said}");
    }
    // Their statements were served by all three, not by one that would have done for all.
    for server in house.cluster.servers() {
        assert!(server.logged("execute pgsteer_") > 0, "nothing ran on {}", server.name());
    }
}
