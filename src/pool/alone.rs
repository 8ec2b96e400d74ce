//! A backend that is nobody else's: opened for one session, and closed with it.
//!
//! It counts against the limit of the pool of its user in its database, and is never in it.

use super::CheckoutError;
use super::conn::Running;
use super::shard::ShardPool;
use super::shared::Slot;
use crate::backend::{Backend, Replication};
use crate::metrics::DisconnectReason;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What a backend is opened for.
#[derive(Debug, Clone, Default)]
pub struct Purpose {
    /// Whether it takes replication commands.
    pub replication: Replication,
    /// The settings that it starts with.
    pub params: Vec<(String, String)>,
}

/// A backend of one session. Dropped, it is closed.
///
/// The control plane counts it as one that rests: what it does has no end that a switchover could
/// wait for.
#[derive(Debug)]
pub struct Alone {
    /// The connection.
    pub backend: Backend,
    /// How a cancel finds it.
    pub running: Arc<Running>,
    home: Rc<ShardPool>,
    _slot: Slot,
}

impl ShardPool {
    /// Opens a backend for one session, when the limit allows it.
    ///
    /// Not cancel-safe: dropped, a backend that is being opened is closed.
    ///
    /// # Errors
    /// [`CheckoutError`] if none came free within `patience`, or none could be opened.
    pub async fn open_alone(
        self: &Rc<Self>,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<Alone, CheckoutError> {
        let slot = self.slot(patience).await?;
        let (backend, target) = self.pools.open_for(&self.shared.key, purpose).await?;
        let running = Arc::new(Running::new(target, backend.pid, backend.key.clone()));
        self.pools.signals.checked_out(self.shard, self.server());
        self.pools.signals.rests(self.server());
        Ok(Alone { backend, running, home: Rc::clone(self), _slot: slot })
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let signals = &self.home.pools.signals;
        signals.rises(self.home.server());
        signals.given_back(self.home.shard, self.home.server());
        self.home.pools.closed(self.home.server(), DisconnectReason::Admin);
    }
}
