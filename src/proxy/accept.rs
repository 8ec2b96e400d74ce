//! One acceptor for each address deals the clients out to the least loaded shard.

use crate::frontend::Inlet;
use crate::net::{Detached, Listener};
use crate::tasks;
use crate::timer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The shards' doors, in their order.
#[derive(Debug, Clone)]
pub(super) struct Doors(Arc<[Door]>);

#[derive(Debug)]
struct Door {
    arrivals: mpsc::Sender<Arrival>,
    inside: Arc<AtomicUsize>,
}

/// A connection on its way to a shard.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The socket.
    pub socket: Detached,
    /// Where it came in.
    pub inlet: Inlet,
    /// Counts it at its shard.
    pub place: Place,
}

/// Counts a client at its shard for as long as it lives.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pause after an accept that failed, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Doors {
    /// The shards' inlets.
    pub(super) fn new(arrivals: Vec<mpsc::Sender<Arrival>>) -> Self {
        let door = |arrivals| Door { arrivals, inside: Arc::default() };
        Self(arrivals.into_iter().map(door).collect())
    }

    /// Through the door behind which the fewest are.
    fn deal(&self, socket: Detached, inlet: Inlet) {
        let least = self.0.iter().min_by_key(|door| door.inside.load(Ordering::Relaxed));
        if let Some(door) = least {
            door.inside.fetch_add(1, Ordering::Relaxed);
            let arrival = Arrival { socket, inlet, place: Place(Arc::clone(&door.inside)) };
            if door.arrivals.try_send(arrival).is_err() {
                warn!("a shard has no room for another connection; it was closed");
            }
        }
    }
}

/// Accepts until `stop` is set.
pub(super) fn start((listener, inlet): (Listener, Inlet), doors: Doors, stop: CancellationToken) {
    tasks::spawn("accept", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok(arrival) => doors.deal(arrival, inlet.clone()),
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    timer::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}
