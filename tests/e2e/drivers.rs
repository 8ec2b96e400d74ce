//! Drivers of other languages, tools and mappers, as their users have them: over TLS and SCRAM, in
//! transaction mode; those of Rust are in `rust_drivers`.
//!
//! `tests/drivers/run.sh` fetches them from their registries and runs them. Where it can't fetch
//! them the test fails, and says why: a driver that was not tried is not one that works. Those
//! that need packages of Debian's besides run with `PGSTEER_DRIVERS=all`
//! (`scripts/test-drivers.sh`).

use crate::auth::postgres::certificates;
use crate::support::{Blueprint, House, await_that};
use pgsteer::sandbox::{Auth, Plan, Scratch, Server};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the registries of Python and Node.js bring.
const FETCHED: [&str; 7] =
    ["psycopg3", "asyncpg", "node_pg", "postgres_js", "django", "sqlalchemy", "sequelize"];
/// What every mapper is tried with.
const MAPPED: [&str; 2] = ["migrations", "an application"];
/// PostgreSQL's own programs: those of this machine, which may be older than the servers of a test.
const OWN: &str = "libpq";
/// What Debian's packages bring.
const PACKAGED: [&str; 4] = ["jdbc", "dbd_pg", "ruby_pg", "pdo_pgsql"];
/// Of them all, those that are no drivers: they have checks of their own.
const MAPPERS: [&str; 3] = ["django", "sqlalchemy", "sequelize"];
/// The oldest PostgreSQL that Django 5.2 works with.
const DJANGO_FROM: u32 = 140_000;
/// What every driver is tried with.
const CHECKS: [&str; 9] = [
    "statements",
    "prepared statements",
    "own writes",
    "transactions",
    "copy",
    "cancel",
    "notifications",
    "errors",
    "large rows",
];

pub const PASSWORD: &str = "app-secret";

/// Servers and a proxy that demand SCRAM, the latter over TLS, with an application's own database.
pub struct Secured {
    pub house: House,
    pub files: Scratch,
}

impl Secured {
    /// With fewer backends than the drivers' own pools have connections.
    pub fn build(change: impl FnOnce(Blueprint) -> Blueprint) -> Self {
        let files = Scratch::new().unwrap();
        certificates(files.path());
        let at = |name: &str| files.path().join(name).display().to_string();
        let toml = format!(
            "[tls]\nmode = \"require\"\ncert = {:?}\nkey = {:?}\n[auth]\nmethod = \
             \"scram-sha-256\"",
            at("server.crt"),
            at("server.key"),
        );
        let plan =
            |plan: Plan| plan.auth(Auth::Password).setting("max_prepared_transactions", "20");
        let blueprint = Blueprint::new().servers(plan).toml(&toml).set("pool.size", "4");
        let house = change(blueprint).build();
        let primary = house.server("primary");
        primary.rows(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")).unwrap();
        primary.rows("CREATE DATABASE app OWNER app").unwrap();
        house.cluster.await_replay().unwrap();
        let secured = Self { house, files };
        await_that("reads of the application's database on standbys", || {
            secured.psql("SELECT pg_is_in_recovery() FROM pg_class LIMIT 1") == "t"
        });
        secured
    }

    pub fn psql(&self, sql: &str) -> String {
        let mut psql = Command::new("psql");
        let output = psql.args(["-XAtc", sql]).envs(self.variables()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Where its clients find it, as libpq's variables.
    pub fn variables(&self) -> [(&'static str, String); 7] {
        [
            ("PGHOST", "localhost".to_owned()),
            ("PGPORT", self.house.proxy.address().port().to_string()),
            ("PGUSER", "app".to_owned()),
            ("PGPASSWORD", PASSWORD.to_owned()),
            ("PGDATABASE", "app".to_owned()),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", self.files.path().join("ca.crt").display().to_string()),
        ]
    }

    /// Runs these drivers; what was said, and whether all went well.
    fn run(&self, drivers: &[&str]) -> (String, bool) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = Command::new("bash")
            .arg(root.join("tests/drivers/run.sh"))
            .args(drivers)
            .envs(self.variables())
            .current_dir(root)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&script.stdout) + &text(&script.stderr), script.status.success())
    }
}

/// Stops and resumes replay on the standbys in turn, until told to end: so that a standby is
/// often behind what a session wrote a moment ago.
pub fn stumble(house: &House, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        for standby in house.cluster.standbys() {
            standby.pause_replay().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            standby.resume_replay().unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn drivers_tools_and_mappers_work_unchanged() {
    let secured = Secured::build(|blueprint| blueprint);
    let mut drivers = FETCHED.to_vec();
    if std::env::var_os("PGSTEER_PG_BIN").is_none() {
        drivers.push(OWN);
    }
    if std::env::var("PGSTEER_DRIVERS").is_ok_and(|which| which == "all") {
        drivers.extend(PACKAGED);
    }
    let version = secured.house.cluster.primary().value("SHOW server_version_num").unwrap();
    if version.parse::<u32>().unwrap() < DJANGO_FROM {
        eprintln!("django NOT RUN: it refuses PostgreSQL {version}");
        drivers.retain(|driver| *driver != "django");
    }
    let done = AtomicBool::new(false);
    let (said, well) = std::thread::scope(|scope| {
        scope.spawn(|| stumble(&secured.house, &done));
        let ran = secured.run(&drivers);
        done.store(true, Ordering::Relaxed);
        ran
    });
    assert!(well, "{said}");
    eprintln!("{said}");

    // Each ran, and left nothing out.
    let mut parts = said.split("\n== ").map(|part| part.trim_start_matches("== "));
    for driver in drivers {
        let part = parts.next().unwrap();
        assert!(part.starts_with(&format!("{driver}\n")), "{driver} did not run: {said}");
        assert!(!part.contains("\nFAIL "), "{part}");
        let checks = if MAPPERS.contains(&driver) { &MAPPED[..] } else { &CHECKS };
        for check in checks {
            let passed =
                |line: &str| line.starts_with("PASS ") && line.ends_with(&format!(": {check}"));
            assert!(part.lines().any(passed), "{driver} ran no check of {check}: {part}");
        }
    }
    // What they had just written was read on the standbys, too, and not on the primary alone; on a
    // busy machine that may take a run in which no standby stumbles.
    let not_read_on = || {
        let mut servers = secured.house.cluster.servers().iter();
        servers.find(|server| server.logged("FROM drv_own_writes WHERE run") == 0)
    };
    for _ in 0..5 {
        if not_read_on().is_some() {
            assert!(secured.run(&FETCHED[..1]).1);
        }
    }
    let name = not_read_on().map(Server::name);
    assert_eq!(name, None, "no session read its own writes there");
}

/// The opposite: where reads may be of any age, the drivers' check of their own writes finds out.
#[test]
fn a_driver_notices_that_its_own_writes_are_not_read() {
    let secured = Secured::build(|b| b.any_lag().set("routing.consistency", "eventual"));
    secured.psql("CREATE TABLE drv_own_writes (run text, number int)");
    secured.house.cluster.await_replay().unwrap();
    for standby in secured.house.cluster.standbys() {
        standby.pause_replay().unwrap();
    }
    let (said, well) = secured.run(&["asyncpg"]);
    assert!(!well, "{said}");
    assert!(said.contains(": own writes: AssertionError: "), "{said}");
}
