//! Waits that end in time.
//!
//! Their timers are the control plane's runtime's, on every thread: one that keeps time reads the
//! clock and looks into its timers each time it has nothing to do, which on a shard is about once a
//! statement. A shard's thread has entered that runtime, which wakes its tasks.

use std::future::IntoFuture;
use std::time::Duration;
use tokio::time::{Interval, Sleep, Timeout};

/// Waits for `future`, at most so long. As cancel-safe as the future is.
pub fn timeout<F: IntoFuture>(most: Duration, future: F) -> Timeout<F::IntoFuture> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    tokio::time::timeout(most, future)
}

/// Waits so long.
pub fn sleep(time: Duration) -> Sleep {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    tokio::time::sleep(time)
}

/// Ticks that far apart, the first at once.
pub fn interval(pause: Duration) -> Interval {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    tokio::time::interval(pause)
}
