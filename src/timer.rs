//! Waits that end in time, also on a thread whose runtime keeps no time itself.
//!
//! A runtime that keeps time reads the clock and looks into its timers twice each time it has
//! nothing to do, which on a shard is about once a statement. Shards set a timer seldom, so theirs
//! are kept by the control plane's runtime, which wakes them.

use std::cell::RefCell;
use std::future::IntoFuture;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Interval, Sleep, Timeout};

thread_local! {
    static KEEPER: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// The timers of this thread are kept by that runtime, which must live longer.
pub fn kept_by(keeper: Handle) {
    KEEPER.set(Some(keeper));
}

/// Waits for `future`, at most so long. As cancel-safe as the future is.
pub fn timeout<F: IntoFuture>(most: Duration, future: F) -> Timeout<F::IntoFuture> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    within(|| tokio::time::timeout(most, future))
}

/// Waits so long.
pub fn sleep(time: Duration) -> Sleep {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    within(|| tokio::time::sleep(time))
}

/// Ticks that far apart, the first at once.
pub fn interval(pause: Duration) -> Interval {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    within(|| tokio::time::interval(pause))
}

fn within<R>(make: impl FnOnce() -> R) -> R {
    KEEPER.with_borrow(|keeper| {
        let _there = keeper.as_ref().map(Handle::enter);
        make()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_runtime_keeps_the_time() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let keeper = builder.worker_threads(1).enable_time().build().unwrap();
        let handle = keeper.handle().clone();
        let waited = std::thread::spawn(move || {
            kept_by(handle);
            let timeless = tokio::runtime::Builder::new_current_thread().build().unwrap();
            timeless.block_on(async {
                sleep(Duration::from_millis(1)).await;
                interval(Duration::from_secs(1)).tick().await;
                timeout(Duration::from_millis(1), std::future::pending::<()>()).await
            })
        });
        waited.join().unwrap().unwrap_err();
    }
}
