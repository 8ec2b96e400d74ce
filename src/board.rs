//! The notice board between the planes: the control plane publishes the topology, the data plane
//! reads it without a lock and may wait for the next one.
//!
//! Deliberately absent: a queue. Whoever looks sees the last topology; what was between is gone.

use crate::topology::Topology;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::watch;

/// The last published [`Topology`].
#[derive(Debug)]
pub struct Board {
    current: Arc<ArcSwap<Topology>>,
    changed: watch::Sender<u64>,
}

impl Board {
    /// A board that shows `first`.
    pub fn new(first: Topology) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(first)), changed: watch::Sender::new(0) }
    }

    /// Shows `next` from now on and wakes all who wait.
    pub fn publish(&self, next: Arc<Topology>) {
        self.current.store(next);
        self.changed.send_modify(|version| *version += 1);
    }

    /// What is shown now.
    pub fn load(&self) -> Arc<Topology> {
        self.current.load_full()
    }

    /// The cell itself, for a shard's [`arc_swap::Cache`].
    pub fn cell(&self) -> Arc<ArcSwap<Topology>> {
        Arc::clone(&self.current)
    }

    /// Wakes whenever something new is shown. Subscribe *before* looking, or a change between
    /// the look and the wait is missed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
