//! The only place that spawns: every task has a name, and one that panics says so by it.
//!
//! A panic is a defect and ends only its own task: its client is disconnected, its backend is
//! closed by its guard, and nobody else notices.

use crate::reactor;
use std::future::Future;
use tokio::task::JoinHandle;
use tracing::error;

/// Starts a task on the runtime's threads.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this is the place that the lint points to")]
    tokio::spawn(async move {
        let _witness = Witness(name);
        future.await
    })
}

/// Starts a task on this shard's own thread. It ends with the shard at the latest.
pub fn spawn_local<F>(name: &'static str, future: F)
where
    F: Future<Output = ()> + 'static,
{
    reactor::spawn(name, future);
}

/// Names the task whose panic drops it.
struct Witness(&'static str);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(task = self.0, "task ended by a panic; this is a defect");
        }
    }
}
