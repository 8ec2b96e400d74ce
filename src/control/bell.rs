//! What wakes the control plane when the data plane has a wish.

use crate::topology::Signals;
use std::sync::Arc;
use std::task::{Wake, Waker};
use tokio::sync::Notify;

/// Rung by [`Signals`], heard by the control plane.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Notify,
}

impl Bell {
    /// A bell, and the signals that ring it.
    pub fn with_signals() -> (Arc<Self>, Arc<Signals>) {
        let bell = Arc::new(Self::default());
        let signals = Signals::new(Waker::from(Arc::clone(&bell)));
        (bell, Arc::new(signals))
    }

    /// Waits until it was rung since the last wait.
    pub(crate) async fn heard(&self) {
        self.rung.notified().await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.notify_one();
    }
}
