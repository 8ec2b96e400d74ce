//! The process itself, read when somebody asks.

use crate::clock;
use crate::metrics::catalogue;
use crate::metrics::family::Builder;
use prometheus::{Counter, Gauge, IntGauge};

/// What the process uses.
#[derive(Debug)]
pub struct Process {
    cpu: Counter,
    memory: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    started: Gauge,
}

impl Process {
    pub(super) fn register(build: &Builder<'_>) -> prometheus::Result<Self> {
        let process = Self {
            cpu: build.counter(&catalogue::CPU)?,
            memory: build.int_gauge(&catalogue::MEMORY)?,
            open_fds: build.int_gauge(&catalogue::OPEN_FDS)?,
            max_fds: build.int_gauge(&catalogue::MAX_FDS)?,
            started: build.gauge(&catalogue::START_TIME)?,
        };
        process.started.set(clock::unix_seconds());
        Ok(process)
    }

    /// When it was started, as seconds since 1970.
    pub fn started(&self) -> f64 {
        self.started.get()
    }

    /// Reads everything anew. What can't be read keeps its last value.
    pub(super) fn refresh(&self) {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let seconds = u32::try_from(used.tv_sec).map_or(0.0, f64::from);
        let nanos = u32::try_from(used.tv_nsec).map_or(0.0, f64::from);
        let rise = seconds + nanos / 1e9 - self.cpu.get();
        if rise > 0.0 {
            self.cpu.inc_by(rise);
        }
        if let Some(bytes) = resident_bytes() {
            self.memory.set(bytes);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself is one of them.
            let count = entries.count().saturating_sub(1);
            self.open_fds.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds.set(limit.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX));
    }
}

/// `VmRSS`; the manual page proc(5) says that it is in kB of 1024 bytes.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
