//! What a statement asks of the kernel: a receive and a send on either side, and part of a wait.
//! And what the kernel was asked for beforehand: to let whoever sends run on.

use crate::support::Blueprint;
use crate::support::House;
use crate::support::quickly_enough;
use crate::syscalls;
use crate::syscalls::Each;
use pgsteer::sandbox::Postgres;
use std::path::PathBuf;
use std::process::Command;

/// Clients: enough that packets come together, as they do where it matters, also on a machine that
/// has other work: with 16 a statement then takes more than a wait at times.
const CLIENTS: u32 = 64;
/// Statements of each of them, the first and the second time.
const TIMES: (u32, u32) = (25, 275);
/// What is none a statement: the control plane calls the kernel as well, by the clock.
const NONE: f64 = 0.01;

struct Bench {
    house: House,
    program: PathBuf,
}

impl Bench {
    fn build() -> Self {
        let house = Blueprint::new()
            .servers(|plan| plan.log(pgsteer::sandbox::StatementLog::Off))
            .unhurried()
            .set("pool.size", "16")
            .build();
        // Not every build of the servers has it; the system's will do.
        let program = Postgres::find(None).unwrap().bin().join("pgbench");
        let program = if program.exists() { program } else { "pgbench".into() };
        let bench = Self { house, program };
        let server = bench.house.cluster.primary().address();
        let (_, port) = server.rsplit_once(':').unwrap();
        let done = bench.command(port).args(["-i", "-q"]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        bench.house.await_catalog();
        bench
    }

    fn command(&self, port: &str) -> Command {
        let mut command = pgsteer::sandbox::Proxy::command(&self.program);
        command.args(["-h", "127.0.0.1", "-p", port, "-U", "postgres", "-d", "postgres", "-n"]);
        command
    }

    /// The calls of each transaction of pgbench with these arguments.
    fn each(&self, arguments: &[&str]) -> Each {
        let tool = syscalls::tool().expect("neither perf nor strace: scripts/setup.sh test");
        let port = self.house.proxy.address().port().to_string();
        let run = |times: u32| {
            let mut command = self.command(&port);
            command.args(["-c", &CLIENTS.to_string(), "-t", &times.to_string()]).args(arguments);
            command
        };
        // Backends are opened, statements are known.
        assert!(run(100).output().unwrap().status.success());
        let at = (tool, self.house.proxy.pid().unwrap(), self.house.proxy.dir());
        let times = (TIMES.0 * CLIENTS, TIMES.1 * CLIENTS);
        let each = syscalls::each(at, times, |all| run(all / CLIENTS)).unwrap();
        eprintln!("{arguments:?}: {each:?}");
        each
    }
}

#[test]
fn a_statement_takes_two_receives_two_sends_and_less_than_a_wait() {
    let bench = Bench::build();
    for protocol in ["simple", "extended", "prepared"] {
        // How many packets come together hangs on what else the machine does.
        quickly_enough(protocol, || {
            let each = bench.each(&["-S", "-M", protocol]);
            let two = |calls: f64| (calls - 2.0).abs() < NONE;
            let good = two(each.receives)
                && two(each.sends)
                && each.waits < 1.0
                && each.others < NONE
                && each.most.1 < NONE;
            if good { Ok(()) } else { Err(format!("{each:?}")) }
        });
    }
}

/// The opposite arm: three statements in a transaction are three times as many calls.
#[test]
fn more_calls_are_seen() {
    let bench = Bench::build();
    let script = bench.house.proxy.dir().join("three.sql");
    std::fs::write(&script, "BEGIN;\nSELECT 1;\nCOMMIT;\n").unwrap();
    let each = bench.each(&["-f", &script.to_string_lossy()]);
    assert!(each.receives > 5.9 && each.sends > 5.9, "{each:?}");
}

/// How `/proc/PID/task/TID/stat` names the policies (`sched(7)`).
const SCHED_OTHER: &str = "0";
const SCHED_BATCH: &str = "3";

/// Each thread's name and policy, of `proc_pid_stat(5)`.
fn policies(pid: u32) -> Vec<(String, String)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")));
    stats
        .map(|stat| {
            let stat = stat.unwrap();
            let (name, fields) = stat.rsplit_once(')').unwrap();
            let name = name.split_once('(').unwrap().1.to_owned();
            // The 41st field; the first two are before the parenthesis.
            (name, fields.split_whitespace().nth(38).unwrap().to_owned())
        })
        .collect()
}

/// Whoever sends is not pushed aside by the shard that it wakes; the control plane is never late.
#[test]
fn shards_are_batch_threads_and_nobody_else_is() {
    for (scheduling, of_shards) in [("batch", SCHED_BATCH), ("normal", SCHED_OTHER)] {
        let house = Blueprint::new().set("limits.shards", "2");
        let house = house.set("limits.scheduling", scheduling).build();
        let policies = policies(house.proxy.pid().unwrap());
        let (shards, others): (Vec<_>, Vec<_>) =
            policies.iter().partition(|(name, _)| name.starts_with("shard-"));
        assert!(shards.len() == 2 && !others.is_empty(), "{policies:?}");
        assert!(shards.iter().all(|(_, policy)| policy == of_shards), "{policies:?}");
        assert!(others.iter().all(|(_, policy)| policy == SCHED_OTHER), "{policies:?}");
    }
}
