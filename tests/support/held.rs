//! Processes and threads that are slow where a test wants them to be, by strace: so it decides what
//! comes first, and what too late.

use crate::support::await_that;
use pgsteer::sandbox::Proxy;
use std::fs::read_dir;
use std::fs::read_to_string;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// One thread whose system calls take longer, as long as this lives.
#[derive(Debug)]
pub struct Slowed {
    strace: Child,
    thread: u32,
}

impl Slowed {
    /// Has these calls of a thread delayed as `strace -e inject` puts it: `delay_exit=500`.
    pub fn begin(thread: u32, calls: &str, delay: &str) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-o", "/dev/null", "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{delay}"), "-p", &thread.to_string()]);
        let strace = strace.stderr(Stdio::null()).spawn();
        let slowed = Self { strace: strace.expect("no strace: scripts/setup.sh test"), thread };
        await_that("strace is there", || !slowed.status().contains("\nTracerPid:\t0\n"));
        slowed
    }

    fn status(&self) -> String {
        read_to_string(format!("/proc/{}/status", self.thread)).unwrap()
    }
}

impl Drop for Slowed {
    /// The kernel lets go of what strace held.
    fn drop(&mut self) {
        self.strace.kill().unwrap_or(());
        drop(self.strace.wait());
    }
}

/// The only shard of a proxy stands still, as long as this lives, right before it asks the kernel
/// for what has come, while the rest of the process goes on. Then it finds at once all that has
/// come meanwhile.
#[derive(Debug)]
pub struct HeldShard(Slowed);

impl HeldShard {
    /// Holds it.
    pub fn hold(proxy: &Proxy) -> Self {
        let threads = read_dir(format!("/proc/{}/task", proxy.pid().unwrap())).unwrap();
        let shards: Vec<u32> = threads
            .map(|thread| thread.unwrap().path())
            .filter(|thread| read_to_string(thread.join("comm")).unwrap().starts_with("shard-"))
            .map(|thread| thread.file_name().unwrap().to_str().unwrap().parse().unwrap())
            .collect();
        let [shard] = shards.as_slice() else { panic!("not one shard: {shards:?}") };
        // The one call or the other, by the machine; for longer than any test.
        let held = Slowed::begin(*shard, "?epoll_wait,?epoll_pwait", "delay_enter=300000000");
        let held = Self(held);
        await_that("the shard stands still", || held.is_still());
        held
    }

    /// Whether it stands still.
    pub fn is_still(&self) -> bool {
        self.0.status().contains("\nState:\tt (tracing stop)")
    }
}
