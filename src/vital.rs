//! What pgsteer can't do without, and what follows when such a part ends by a defect.
//!
//! A panic ends its own task. Where that is a client's, nobody else notices. But a proxy whose
//! acceptor, shard or conductor has ended looks alive, and serves nobody, or by what it knew hours
//! ago, until somebody looks. So those parts are kept here: if one of them ends by a panic, the
//! process ends with an error, and whoever watches over it starts it again.
//!
//! Deliberately absent: a second try within the process. What a panic has left half done is not
//! known; what a start finds is.

use std::future::Future;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// By which the parts tell that one of them has ended. All clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Vital(CancellationToken);

impl Vital {
    /// Runs a part; if it panics, pgsteer ends.
    pub async fn keep<T>(self, name: &'static str, part: impl Future<Output = T>) -> T {
        let _witness = Witness { vital: self, name };
        part.await
    }

    /// This part has ended, and can't be done without.
    pub fn fail(&self, name: &str) {
        error!(
            event = "failed",
            part = name,
            "a part has ended that pgsteer can't do without: it stops, to be started again; this \
             is a defect"
        );
        self.0.cancel();
    }

    /// Waits until a part has ended. Cancel-safe.
    pub async fn failed(&self) {
        self.0.cancelled().await;
    }
}

/// Dropped by a panic, it tells.
struct Witness {
    vital: Vital,
    name: &'static str,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.vital.fail(self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor;
    use crate::tasks;

    #[tokio::test]
    async fn a_part_that_panics_is_told_of_and_one_that_ends_or_is_ended_is_not() {
        let vital = Vital::default();
        assert_eq!(vital.clone().keep("whole", async { 7 }).await, 7);
        let endless = vital.clone().keep("endless", std::future::pending::<()>());
        let endless = tasks::spawn("endless", endless);
        endless.abort();
        drop(endless.await);
        assert!(!vital.0.is_cancelled());
        let broken =
            tasks::spawn("broken", vital.clone().keep("broken", async { panic!("broken") }));
        drop(broken.await);
        assert!(vital.0.is_cancelled());
    }

    #[test]
    fn so_is_one_on_a_shard_and_not_one_that_ends_with_its_shard() {
        let vital = Vital::default();
        let seen = reactor::run(async {
            let endless = vital.clone().keep("endless", std::future::pending::<()>());
            tasks::spawn_local("endless", endless);
            tasks::spawn_local("client", async { panic!("a client's") });
            turns().await;
        });
        seen.unwrap();
        assert!(!vital.0.is_cancelled());
        let seen = reactor::run(async {
            tasks::spawn_local("broken", vital.clone().keep("broken", async { panic!("broken") }));
            vital.failed().await;
        });
        seen.unwrap();
    }

    /// Lets everybody else have a turn.
    async fn turns() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }
}
