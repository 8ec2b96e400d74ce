//! Single steps: this very program, under callgrind, does one some times and then more times.

use crate::baseline::Counted;
use crate::cases::CASES;
use pgsteer::sandbox::Cluster;
use std::net::SocketAddr;
use std::process::Command;

/// How often a step is done: what differs between the two is so many steps and nothing else.
const TIMES: (u64, u64) = (500, 2_500);

/// Does a step so many times.
pub(crate) fn run(name: &str, times: u64, server: SocketAddr) {
    let case = CASES.iter().find(|case| case.name == name).expect("a known step");
    let mut step = (case.ready)(server);
    for _ in 0..times {
        step();
    }
}

/// Counts each step.
pub(crate) fn count(cluster: &Cluster, only: &str, counted: &mut Counted) {
    let server = cluster.primary().address();
    for case in CASES.iter().filter(|case| case.name.contains(only)) {
        let (fewer, more) = TIMES;
        let both = collected(case.name, more, &server)
            .and_then(|all| Ok((all, collected(case.name, fewer, &server)?)));
        match both {
            Ok((all, some)) => {
                counted.take(case.name, all.saturating_sub(some) / (more - fewer));
            }
            // rustix reads the vDSO where valgrind has hidden it; a build for release mostly does not.
            Err(why) => eprintln!("{}: NOT COUNTED: {why}", case.name),
        }
    }
}

/// The instructions of a whole run.
fn collected(name: &str, times: u64, server: &str) -> Result<u64, String> {
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--step", name, &times.to_string(), server])
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        let why = said.lines().find(|line| line.contains("panicked") || line.contains("signal"));
        return Err(why.unwrap_or("it failed").to_owned());
    }
    let line = said.lines().find_map(|line| line.split_once("Collected : "));
    let number = line.and_then(|(_, number)| number.trim().parse().ok());
    number.ok_or_else(|| "callgrind does not tell what it has collected".to_owned())
}
