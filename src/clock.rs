//! The only reader of time.
//!
//! Everything else takes a [`Moment`] as an argument, so that a decision can be tested at any
//! moment and a simulation can own the clock (`clippy.toml` refuses `Instant::now` elsewhere).
//! The clock is `CLOCK_BOOTTIME`: it never jumps back, and unlike `CLOCK_MONOTONIC` it goes on
//! while a laptop or a VM is suspended, so that nothing looks fresh after a sleep.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of this machine: nanoseconds since it was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The moment of the boot: earlier than everything that is ever observed.
    pub const ORIGIN: Self = Self(0);

    /// The moment so many nanoseconds after the boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the boot, for an atomic to carry.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long before `self` `earlier` was; zero if it was later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, before: Duration) -> Self {
        let nanos = u64::try_from(before.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

/// This moment.
pub fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The wall clock, for people and logs only: seconds since 1970, never to be compared.
pub fn unix_seconds() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "this module is the reader of time")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The same in whole seconds, for records.
pub fn whole_unix_seconds() -> u64 {
    Duration::try_from_secs_f64(unix_seconds()).map_or(0, |since| since.as_secs())
}
