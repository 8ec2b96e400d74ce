//! One acceptor for each address deals the clients out to the least loaded shard.
//!
//! It is on a shard itself: one that keeps a client need not wake another thread for it.

use crate::frontend;
use crate::frontend::{Inlet, Shard};
use crate::net::{Doorway, Listener, Newcomer};
use crate::proxy::shard::keep;
use crate::tasks;
use crate::timer;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// The shards' doors, in their order.
#[derive(Debug, Clone)]
pub(super) struct Doors(Arc<[Door]>);

#[derive(Debug)]
struct Door {
    arrivals: mpsc::Sender<Arrival>,
    posts: mpsc::Sender<Post>,
    inside: Arc<AtomicUsize>,
}

/// A place to accept at, on its way to a shard.
#[derive(Debug)]
pub(super) struct Post {
    listener: Listener,
    inlet: Inlet,
    doors: Doors,
    stop: CancellationToken,
    begun: oneshot::Sender<io::Result<()>>,
}

/// A connection on its way to a shard.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Whose.
    pub newcomer: Newcomer,
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
    pub(super) fn new(ways: Vec<(mpsc::Sender<Arrival>, mpsc::Sender<Post>)>) -> Self {
        let door = |(arrivals, posts)| Door { arrivals, posts, inside: Arc::default() };
        Self(ways.into_iter().map(door).collect())
    }

    /// Has one of the shards accept at the place of this number until `stop` is set; returns when
    /// it does.
    ///
    /// # Errors
    /// What the system said to it.
    pub(super) async fn open(
        &self,
        number: usize,
        (listener, inlet): (Listener, Inlet),
        stop: CancellationToken,
    ) -> io::Result<()> {
        let (begun, outcome) = oneshot::channel();
        let post = Post { listener, inlet, doors: self.clone(), stop, begun };
        let gone = || io::Error::other("the shard is gone");
        let door = self.0.iter().cycle().nth(number).ok_or_else(gone)?;
        door.posts.send(post).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// Through the door behind which the fewest are. Who stays at `here` is let in at once.
    fn deal(&self, here: &Rc<Shard>, newcomer: Newcomer, inlet: Inlet) {
        let inside = |(_, door): &(usize, &Door)| door.inside.load(Ordering::Relaxed);
        let open = self.0.iter().enumerate().filter(|(_, door)| !door.arrivals.is_closed());
        if let Some((number, door)) = open.min_by_key(inside) {
            door.inside.fetch_add(1, Ordering::Relaxed);
            let arrival = Arrival { newcomer, inlet, place: Place(Arc::clone(&door.inside)) };
            if number == here.pools.shard {
                arrival.enter(here);
            } else if door.arrivals.try_send(arrival).is_err() {
                warn!("a shard has no room for another connection; it was closed");
            }
        }
    }
}

impl Arrival {
    /// Lets it in at the shard that this is called on.
    pub(super) fn enter(self, shard: &Rc<Shard>) {
        let Self { newcomer, inlet, place } = self;
        let client = frontend::admit(Rc::clone(shard), (newcomer, inlet), place);
        tasks::spawn_local("client", client);
    }
}

impl Post {
    /// Accepts on this shard, which this is called on.
    pub(super) fn begin(self, shard: &Rc<Shard>) {
        let Self { listener, inlet, doors, stop, begun } = self;
        match listener.open() {
            Ok(doorway) => {
                keep("accept", shard, accept(Rc::clone(shard), (doorway, inlet), doors, stop));
                drop(begun.send(Ok(())));
            }
            Err(error) => drop(begun.send(Err(error))),
        }
    }
}

/// Accepts until `stop` is set.
async fn accept(
    shard: Rc<Shard>,
    (doorway, inlet): (Doorway, Inlet),
    doors: Doors,
    stop: CancellationToken,
) {
    // One for all: to begin to wait, and to end it, takes a lock.
    let mut stopped = pin!(stop.cancelled());
    loop {
        let accepted = tokio::select! {
            accepted = doorway.accept() => accepted,
            () = &mut stopped => return,
        };
        match accepted {
            Ok(arrival) => doors.deal(&shard, arrival, inlet.clone()),
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                timer::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
