//! One run of pgbench, and what processes used meanwhile.

use crate::peer::{Channel, Login};
use crate::site::{PASSWORD, Site};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Transactions.
    pub(crate) transactions: f64,
    /// Transactions a second.
    pub(crate) tps: f64,
    /// Milliseconds that half of them took longer than.
    pub(crate) p50: f64,
    /// Milliseconds that one in a hundred took longer than.
    pub(crate) p99: f64,
}

/// Processor time, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// In its own code.
    pub(crate) user: f64,
    /// In the kernel on its behalf.
    pub(crate) system: f64,
}

/// What pgbench is to do.
#[derive(Debug, Clone)]
pub(crate) struct Load<'a> {
    pub(crate) arguments: &'a [&'a str],
    pub(crate) clients: usize,
    pub(crate) length: Duration,
    pub(crate) login: Login,
    pub(crate) channel: Channel,
}

impl<'a> Load<'a> {
    /// Clients that are trusted, without TLS.
    pub(crate) fn plain(arguments: &'a [&'a str], clients: usize, length: Duration) -> Self {
        Self { arguments, clients, length, login: Login::Trust, channel: Channel::Plain }
    }
}

/// One in so many transactions is timed: all would be a load of its own.
const SAMPLED: f64 = 0.05;

/// Runs pgbench, in a session of its own: the kernel shares processors out by sessions, as by
/// services (`sched(7)`, autogroups), and no service runs in one with its clients.
pub(crate) fn pgbench(site: &Site, address: SocketAddr, load: &Load<'_>) -> Result<Run, String> {
    let dir = site.scratch().join(format!("run-{}", pgsteer::clock::now().nanos()));
    std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
    let mut command = pgsteer::sandbox::Proxy::command(Path::new("setsid"));
    command.arg(site.program("pgbench"));
    let tls = if load.channel == Channel::Tls { "require" } else { "disable" };
    command.env("PGSSLMODE", tls).env("PGGSSENCMODE", "disable");
    if load.login == Login::Scram {
        command.env("PGPASSWORD", PASSWORD);
    }
    let threads = load.clients.min(2).to_string();
    let done = command
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-U", "postgres", "-n", "-j", &threads, "-c", &load.clients.to_string()])
        .args(["-T", &load.length.as_secs().max(1).to_string()])
        .args(["-l", "--sampling-rate", &SAMPLED.to_string()])
        .args(load.arguments)
        .arg("postgres")
        .current_dir(&dir)
        .output()
        .map_err(|error| format!("pgbench: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        return Err(error.lines().next().unwrap_or("pgbench failed").to_owned());
    }
    let after = |label: &str| said.lines().find_map(|line| line.strip_prefix(label));
    let number = |text: &str| text.split(['/', ' ']).find_map(|word| word.parse::<f64>().ok());
    let transactions = after("number of transactions actually processed: ").and_then(number);
    let tps = after("tps = ").and_then(number);
    let (Some(transactions), Some(tps)) = (transactions, tps) else {
        return Err("pgbench does not say what it did".to_owned());
    };
    if transactions < 1.0 {
        return Err("not one transaction was done in time".to_owned());
    }
    let times = latencies(&dir).map_err(|error| error.to_string())?;
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    Ok(Run { transactions, tps, p50: quantile(&times, 0.5), p99: quantile(&times, 0.99) })
}

/// The times of a run's sampled transactions, sorted, in milliseconds.
fn latencies(dir: &Path) -> std::io::Result<Vec<f64>> {
    let mut times = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let text = std::fs::read_to_string(entry?.path())?;
        // client, transaction, microseconds, ...
        let micros = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
        times.extend(micros.map(|micros| micros / 1000.0));
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// A quantile of sorted values; NaN of none.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (part * sorted.len() as f64) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

impl Usage {
    /// What a process has used so far (proc(5), `stat`: ticks of 10 ms), with its children that
    /// have ended.
    pub(crate) fn of(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold blanks.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |at: usize| rest.split_whitespace().nth(at)?.parse::<f64>().ok();
        let ticks = |own: usize, of_children: usize| {
            (field(own).unwrap_or(0.0) + field(of_children).unwrap_or(0.0)) / 100.0
        };
        Self { user: ticks(11, 13), system: ticks(12, 14) }
    }

    /// What these have used together.
    pub(crate) fn of_all(pids: &[u32]) -> Self {
        pids.iter().map(|pid| Self::of(*pid)).fold(Self::default(), |sum, one| Self {
            user: sum.user + one.user,
            system: sum.system + one.system,
        })
    }

    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }

    /// Both.
    pub(crate) fn sum(self) -> f64 {
        self.user + self.system
    }
}

/// Processor time that a process's threads have used so far, in seconds, to the nanosecond: ticks
/// are too coarse for one that does next to nothing (kernel, `scheduler/sched-stats`).
pub(crate) fn busy(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}

/// What a process has of memory of its own, without the program's text that it has touched, in KiB
/// (proc(5), `smaps_rollup`: `Pss_Anon`).
pub(crate) fn memory(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(f64::NAN)
}
