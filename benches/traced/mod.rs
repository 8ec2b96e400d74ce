//! A whole pgsteer under valgrind's callgrind, which counts the instructions of its shard.
//!
//! Instructions do not depend on what else the machine does, and hardly on when a packet comes; so
//! a change of one in a hundred is seen where no clock can show it. What the kernel does is not in
//! them. Everything that is only done once (logins, the first look at a statement) is taken out by
//! counting twice, with fewer and with more statements.

use pgsteer::sandbox::{Cluster, Proxy, SandboxError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A proxy whose instructions are counted.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) proxy: Proxy,
    dir: PathBuf,
    dumps: u32,
}

impl Traced {
    /// Starts `program` in front of the first `servers` of the cluster, in a directory of this
    /// name, with one shard and a pool of 16.
    pub(crate) fn start(
        program: &Path,
        (cluster, servers): (&Cluster, usize),
        name: &str,
        flags: &[&str],
    ) -> Result<Self, SandboxError> {
        let dir = cluster.workshop(name)?;
        let script = dir.join("traced.sh");
        let text = format!(
            "#!/bin/sh\nexec valgrind -q --tool=callgrind --instr-atstart=no \
             --separate-threads=yes --callgrind-out-file={} {} \"$@\"\n",
            dir.join("out").display(),
            program.display()
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        // All that is slow here is slow thirty times over.
        let patient = ["servers.check_timeout=1m", "routing.observation_age_max=10m"];
        let fixed = ["limits.shards=1", "pool.size=16"];
        let mut proxy = Proxy::new(script, dir.clone())?.args(flags);
        for setting in patient.iter().chain(&fixed) {
            proxy = proxy.args(["--set", setting]);
        }
        for server in cluster.servers().iter().take(servers) {
            proxy = proxy.args(["--server", &server.address()]);
        }
        proxy.start()?;
        proxy.await_ready()?;
        let traced = Self { proxy, dir, dumps: 0 };
        traced.control("--instr=on");
        Ok(traced)
    }

    /// The instructions of the thread that serves, while this happens.
    pub(crate) fn count(&mut self, happens: impl FnOnce()) -> u64 {
        self.control("--zero");
        happens();
        self.dumps += 1;
        self.control("--dump");
        let prefix = format!("out.{}-", self.dumps);
        let entries = std::fs::read_dir(&self.dir).unwrap().flatten();
        let of_this =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let totals = of_this.filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
        });
        // The control plane has little to do meanwhile.
        totals.max().unwrap_or(0)
    }

    fn control(&self, what: &str) {
        let pid = self.proxy.pid().unwrap_or(0).to_string();
        let done = Command::new("callgrind_control").args([what, &pid]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(said.contains("OK"), "callgrind_control {what}: {said}");
    }
}

/// Instructions of each of `more - fewer` statements; `run` runs so many.
pub(crate) fn each(
    traced: &mut Traced,
    (fewer, more): (u32, u32),
    mut run: impl FnMut(u32),
) -> u64 {
    let less = traced.count(|| run(fewer));
    let all = traced.count(|| run(more));
    all.saturating_sub(less) / u64::from(more - fewer)
}

/// Whether valgrind is there.
pub(crate) fn is_there() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|done| done.status.success())
}
