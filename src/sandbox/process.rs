//! The processes of a server: found by where they work, never by name.
//!
//! Every process of PostgreSQL has its data directory as its working directory, so
//! `/proc/PID/cwd` tells whose it is without trusting a pid file. Linux only, like the clock.

use rustix::process::Pid;
use rustix::process::Signal;
use std::path::Path;
use std::path::PathBuf;

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its process id.
    pub pid: u32,
    /// What it calls itself, as `ps` shows it:
    /// `postgres: standby1: walreceiver streaming 0/3000060`.
    pub title: String,
}

/// The processes whose working directory is `dir` or lies beneath it.
pub fn working_in(dir: &Path) -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let cwd = std::fs::read_link(of(*pid, "cwd")).unwrap_or_default();
        cwd.starts_with(dir)
    })
    .map(|pid| Found { pid, title: title(pid) })
    .collect()
}

/// Ends one process of a server with SIGKILL; one that is gone already needs none.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal; a process that is gone already needs none.
pub(super) fn signal(pid: u32, signal: Signal) {
    let Ok(pid) = i32::try_from(pid) else { return };
    if let Some(pid) = Pid::from_raw(pid) {
        rustix::process::kill_process(pid, signal).unwrap_or(());
    }
}

/// Whether none of its threads runs any more. One that is told to stop goes on until its turn has
/// come to hear of it, and on a busy machine the others run meanwhile.
pub(super) fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(of(pid, "task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // Its name stands in brackets, and may hold some itself.
        let state = stat.rsplit(") ").next().unwrap_or_default();
        state.is_empty() || state.starts_with(['T', 't', 'Z', 'X'])
    })
}

fn title(pid: u32) -> String {
    let raw = std::fs::read(of(pid, "cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim().to_owned()
}

fn of(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}
