//! One run of pgbench, and what the proxy used meanwhile.

use crate::target::Site;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What one run came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Transactions.
    pub(crate) transactions: u64,
    /// Transactions a second.
    pub(crate) tps: f64,
    /// Milliseconds that one in a hundred took longer than.
    pub(crate) p99: f64,
    /// Milliseconds that half of them took longer than.
    pub(crate) p50: f64,
}

/// Processor time of a process, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// In its own code.
    pub(crate) user: f64,
    /// In the kernel on its behalf.
    pub(crate) system: f64,
}

/// A run, and the proxy's processor time a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) run: Run,
    /// Microseconds a transaction: user, system.
    pub(crate) cost: Option<(f64, f64)>,
}

/// One in so many transactions is timed: all would be a load of its own.
const SAMPLED: f64 = 0.05;

/// Runs pgbench with so many clients for so long.
pub(crate) fn pgbench(
    site: &Site,
    address: SocketAddr,
    arguments: &[&str],
    (clients, length): (usize, Duration),
) -> Result<Run, String> {
    let dir = site.scratch().join(format!("run-{}", pgsteer::clock::now().nanos()));
    std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
    let done = std::process::Command::new(site.program("pgbench"))
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-U", "postgres", "-n", "-j", "2", "-c", &clients.to_string()])
        .args(["-T", &length.as_secs().to_string()])
        .args(["-l", "--sampling-rate", &SAMPLED.to_string()])
        .args(arguments)
        .arg("postgres")
        .current_dir(&dir)
        .output()
        .map_err(|error| format!("pgbench: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
    }
    let after = |label: &str| said.lines().find_map(|line| line.strip_prefix(label));
    let number = |text: &str| text.split(['/', ' ']).find_map(|word| word.parse::<f64>().ok());
    let transactions = after("number of transactions actually processed: ").and_then(number);
    let tps = after("tps = ").and_then(number);
    let (Some(transactions), Some(tps)) = (transactions, tps) else {
        return Err(format!("pgbench said: {said}"));
    };
    let times = latencies(&dir).map_err(|error| error.to_string())?;
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let transactions = transactions as u64;
    Ok(Run { transactions, tps, p99: quantile(&times, 0.99), p50: quantile(&times, 0.5) })
}

/// The times of a run's sampled transactions, sorted, in milliseconds.
fn latencies(dir: &std::path::Path) -> std::io::Result<Vec<f64>> {
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
    /// What a process has used so far (proc(5), `stat`: ticks of 10 ms).
    pub(crate) fn of(pid: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold blanks.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |at: usize| rest.split_whitespace().nth(at)?.parse::<f64>().ok();
        Self { user: field(11).unwrap_or(0.0) / 100.0, system: field(12).unwrap_or(0.0) / 100.0 }
    }

    /// What was used since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

impl Sample {
    /// Puts a run and the processor time of its proxy together.
    pub(crate) fn new(run: &Run, used: Option<Usage>) -> Self {
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a count")]
        let each = |seconds: f64| seconds * 1e6 / run.transactions as f64;
        Self { run: *run, cost: used.map(|used| (each(used.user), each(used.system))) }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.0} tps, p99 {:.2} ms", self.run.tps, self.run.p99)?;
        match self.cost {
            Some((user, system)) => write!(out, ", {user:.1} + {system:.1} us"),
            None => Ok(()),
        }
    }
}
