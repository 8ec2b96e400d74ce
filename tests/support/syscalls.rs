//! How often a process calls the kernel, and for what: by perf's counters where the system lets us,
//! else by strace, which slows what it counts. Of pgsteer only the shards count: its control plane
//! calls the kernel by the clock, whether anything is asked or not.

use pgsteer::sandbox::eventually;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `perf stat` on the kernel's own trace points: costs next to nothing.
    Perf,
    /// `strace -c`: each call stops the process twice.
    Strace,
}

/// Calls by name.
pub type Calls = BTreeMap<String, f64>;

/// Calls of one statement, sorted by what they are for.
#[derive(Debug, Clone, Default)]
pub struct Each {
    pub receives: f64,
    pub sends: f64,
    pub waits: f64,
    /// All others, and the most frequent of them.
    pub others: f64,
    pub most: (String, f64),
}

/// The calls that perf tells apart; the others are the rest.
const CALLS: [&str; 24] = [
    "recvfrom",
    "recvmsg",
    "read",
    "readv",
    "sendto",
    "sendmsg",
    "write",
    "writev",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_ctl",
    "futex",
    "madvise",
    "mmap",
    "munmap",
    "brk",
    "setsockopt",
    "close",
    "sched_yield",
];
/// How pgsteer's threads are called that serve clients.
const SHARD: &str = "shard-";
/// Far more than strace takes to take hold of a process, even on a crowded machine.
const TAKING_HOLD: Duration = Duration::from_mins(1);

/// The best one that works here.
pub fn tool() -> Option<Tool> {
    let works = |command: &mut Command| command.output().is_ok_and(|done| done.status.success());
    let perf = ["stat", "-e", "syscalls:sys_enter_read,raw_syscalls:sys_enter", "true"];
    if works(Command::new("perf").args(perf)) {
        Some(Tool::Perf)
    } else {
        works(Command::new("strace").arg("-V")).then_some(Tool::Strace)
    }
}

/// The calls of each of `more - fewer` statements of a process. `run` makes the command that has so
/// many of them asked; what it takes to log in is in both counts and so in none.
pub fn each(
    (tool, pid, scratch): (Tool, u32, &Path),
    (fewer, more): (u32, u32),
    run: impl Fn(u32) -> Command,
) -> Result<Each, String> {
    let less = count((tool, pid, scratch), run(fewer))?;
    let mut calls = count((tool, pid, scratch), run(more))?;
    for (name, count) in &mut calls {
        *count -= less.get(name).copied().unwrap_or(0.0);
        *count /= f64::from(more - fewer);
    }
    let mut each = Each::default();
    for (name, count) in calls {
        match name.as_str() {
            "recvfrom" | "recvmsg" | "read" | "readv" => each.receives += count,
            "sendto" | "sendmsg" | "write" | "writev" => each.sends += count,
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "poll" | "ppoll" | "select"
            | "pselect6" => each.waits += count,
            _ => {
                each.others += count;
                if count > each.most.1 {
                    each.most = (name, count);
                }
            }
        }
    }
    Ok(each)
}

/// The calls of a process while this command runs.
pub fn count((tool, pid, scratch): (Tool, u32, &Path), command: Command) -> Result<Calls, String> {
    let file = scratch.join("syscalls");
    let threads = threads(pid).map_err(|error| error.to_string())?;
    match tool {
        Tool::Perf => by_perf(&threads, &file, &command),
        Tool::Strace => by_strace(&threads, &file, command),
    }
}

/// The threads that serve: the shards, and of another program all.
fn threads(pid: u32) -> std::io::Result<Vec<String>> {
    let (mut all, mut shards) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let id = entry.file_name().to_string_lossy().into_owned();
        if std::fs::read_to_string(entry.path().join("comm"))?.starts_with(SHARD) {
            shards.push(id.clone());
        }
        all.push(id);
    }
    Ok(if shards.is_empty() { all } else { shards })
}

fn by_perf(threads: &[String], file: &Path, command: &Command) -> Result<Calls, String> {
    let mut perf = Command::new("perf");
    // Each of them takes its time to be set up, so not all of some hundreds.
    let events: Vec<_> = CALLS.iter().map(|name| format!("syscalls:sys_enter_{name}")).collect();
    let events = format!("raw_syscalls:sys_enter,{}", events.join(","));
    perf.args(["stat", "-x", ",", "-e", &events, "-t", &threads.join(","), "-o"]);
    perf.arg(file).arg("--").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => perf.env(name, value),
            None => perf.env_remove(name),
        };
    }
    succeed(perf)?;
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let call = |line: &str| {
        let (count, rest) = line.split_once(',')?;
        let name = rest.split(',').find_map(|part| part.split_once("sys_enter"))?.1;
        Some((name.trim_start_matches('_').to_owned(), count.parse().ok()?))
    };
    let mut calls: Calls = text.lines().filter_map(call).collect();
    let all = calls.remove("").unwrap_or(0.0);
    let rest = all - calls.values().sum::<f64>();
    calls.insert("rest".to_owned(), rest);
    Ok(calls)
}

fn by_strace(threads: &[String], file: &Path, command: Command) -> Result<Calls, String> {
    let mut strace = Command::new("strace");
    strace.args(["-c", "-o"]).arg(file).stderr(Stdio::null());
    for thread in threads {
        strace.args(["-p", thread]);
    }
    let mut strace = strace.spawn().map_err(|error| format!("strace: {error}"))?;
    let held = eventually(TAKING_HOLD, || threads.iter().all(|it| is_traced(it)).then_some(()));
    let done = match held {
        Some(()) => succeed(command),
        None => Err("strace has no hold of the process".to_owned()),
    };
    let id = i32::try_from(strace.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(id) = id {
        // It then tells what it has counted.
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap_or(());
    }
    drop(strace.wait());
    done?;
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let call = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (count, name) = (words.get(3)?.parse().ok()?, *words.last()?);
        (name != "total").then(|| (name.to_owned(), count))
    };
    Ok(text.lines().filter_map(call).collect())
}

/// Whether somebody traces this thread, as `proc_pid_status(5)` has it.
fn is_traced(thread: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status.contains("\nTracerPid:\t") && !status.contains("\nTracerPid:\t0\n")
}

fn succeed(mut command: Command) -> Result<(), String> {
    let done = command.output().map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&done.stderr).into_owned())
}
