//! Whole statements: pgbench through a pgsteer under callgrind.

use crate::baseline::Counted;
use crate::traced;
use crate::traced::Traced;
use pgsteer::sandbox::{Cluster, Postgres, Proxy};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Clients of pgbench: with several, how many packets come together is chance, and some hundredths.
const CLIENTS: u32 = 1;
/// Statements of each client before it is counted, and when it is counted the first and the
/// second time.
const TIMES: (u32, u32, u32) = (500, 1_000, 5_000);
/// What is said to pgsteer where it is to be nothing but a pool: one server, any read anywhere.
const ONLY_POOL: [&str; 4] =
    ["--set", "routing.reads=primary", "--set", "routing.consistency=eventual"];

/// One kind of statement through one kind of set.
struct Kind {
    name: &'static str,
    servers: usize,
    flags: &'static [&'static str],
}

const KINDS: [Kind; 2] = [
    Kind { name: "routed", servers: 3, flags: &[] },
    Kind { name: "pooled", servers: 1, flags: &ONLY_POOL },
];
const PROTOCOLS: [&str; 3] = ["simple", "extended", "prepared"];

/// Counts each kind of statement.
pub(crate) fn count(cluster: &Cluster, postgres: &Postgres, only: &str, counted: &mut Counted) {
    let name = |kind: &Kind, protocol: &str| format!("statement/{}, {protocol}", kind.name);
    let wanted = |name: &str| name.contains(only);
    let program = postgres.bin().join("pgbench");
    let mut filled = false;
    for kind in KINDS {
        if !PROTOCOLS.iter().any(|protocol| wanted(&name(&kind, protocol))) {
            continue;
        }
        if !filled {
            fill(&program, cluster);
            filled = true;
        }
        let built = || PathBuf::from(env!("CARGO_BIN_EXE_pgsteer"));
        let binary = std::env::var_os("PGSTEER_BENCH_BINARY").map_or_else(built, PathBuf::from);
        let at = (cluster, kind.servers);
        let mut traced = Traced::start(&binary, at, kind.name, kind.flags).unwrap();
        for protocol in PROTOCOLS {
            let name = name(&kind, protocol);
            if wanted(&name) {
                let each = measure(&program, &mut traced, protocol);
                counted.take(&name, each);
            }
        }
    }
}

fn measure(program: &Path, traced: &mut Traced, protocol: &str) -> u64 {
    let (warm_up, fewer, more) = TIMES;
    let address = traced.proxy.address();
    let run = |times: u32| {
        let done = Command::new(program)
            .args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-U", "postgres"])
            .args(["-n", "-S", "-M", protocol, "-c", &CLIENTS.to_string()])
            .args(["-t", &times.to_string(), "postgres"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(warm_up);
    let each = traced::each(traced, (fewer, more), run);
    each / u64::from(CLIENTS)
}

fn fill(program: &Path, cluster: &Cluster) {
    let server: std::net::SocketAddr = cluster.primary().address().parse().unwrap();
    let mut command = Proxy::command(program);
    let port = server.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-i", "-q", "-s", "1"]);
    let done = command.arg("postgres").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    cluster.await_replay().unwrap();
}
