//! A shard of a proxy that stands still while the rest of the process goes on: so a test decides
//! what the shard learns at the same time.

use crate::support::await_that;
use pgsteer::sandbox::Proxy;
use std::fs::read_dir;
use std::fs::read_to_string;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

/// How the kernel calls the wait for whatever comes next, here or there.
const WAITS: &str = "?epoll_wait,?epoll_pwait";
/// In microseconds: longer than any test.
const DELAY: u64 = 300_000_000;

/// It stands still, as long as this lives, right before it asks the kernel for what has come. Then
/// it finds at once all that has come meanwhile.
#[derive(Debug)]
pub struct HeldShard {
    strace: Child,
    thread: PathBuf,
}

impl HeldShard {
    /// Holds the only shard of this proxy.
    pub fn hold(proxy: &Proxy) -> Self {
        let threads = read_dir(format!("/proc/{}/task", proxy.pid().unwrap())).unwrap();
        let mut shards: Vec<_> = threads
            .map(|thread| thread.unwrap().path())
            .filter(|thread| read_to_string(thread.join("comm")).unwrap().starts_with("shard-"))
            .collect();
        assert_eq!(shards.len(), 1, "{shards:?}");
        let thread = shards.remove(0);
        let mut strace = Command::new("strace");
        strace.args(["-o", "/dev/null", "-e", &format!("trace={WAITS}")]);
        strace.args(["-e", &format!("inject={WAITS}:delay_enter={DELAY}")]);
        strace.arg("-p").arg(thread.file_name().unwrap()).stderr(Stdio::null());
        let strace = strace.spawn().expect("no strace: scripts/setup.sh test");
        let held = Self { strace, thread };
        await_that("the shard stands still", || held.is_still());
        held
    }

    /// Whether it stands still.
    pub fn is_still(&self) -> bool {
        let status = read_to_string(self.thread.join("status")).unwrap();
        status.contains("\nState:\tt (tracing stop)")
    }
}

impl Drop for HeldShard {
    /// The kernel lets go of what strace held.
    fn drop(&mut self) {
        self.strace.kill().unwrap_or(());
        drop(self.strace.wait());
    }
}
