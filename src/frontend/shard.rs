//! What all clients of one shard share, and what all shards share.

use crate::auth::Keyring;
use crate::board::Board;
use crate::clock;
use crate::clock::Moment;
use crate::frontend::attached::EmptyHold;
use crate::frontend::cancel::Cancels;
use crate::frontend::introduction::Greetings;
use crate::frontend::login::Gate;
use crate::frontend::numbers::Numbers;
use crate::frontend::seat::{Reign, Seats};
use crate::latest::{Latest, Lent};
use crate::limits::{Counts, Rules};
use crate::metrics::Metrics;
use crate::notifications::Listeners;
use crate::pool::{Pools, ShardPools};
use crate::reactor::Late;
use crate::route;
use crate::session::{Library, Recall, Room, Shapes};
use crate::sql::FactsCache;
use crate::topology::{Epoch, NoPrimary, Primary, ServerId, Signals, Topology, Void};
use crate::vital::Vital;
use arc_swap::ArcSwap;
use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What all shards share.
#[derive(Debug)]
pub struct Shared {
    /// Where the topology is published.
    pub board: Arc<Board>,
    /// What is reported to the control plane.
    pub signals: Arc<Signals>,
    /// The backends.
    pub pools: Arc<Pools>,
    /// Every named prepared statement.
    pub library: Library,
    /// What the databases are like.
    pub shapes: Shapes,
    /// Who can be cancelled.
    pub cancels: Arc<Cancels>,
    /// What operators see.
    pub metrics: Arc<Metrics>,
    /// How clients log in.
    pub gate: ArcSwap<Gate>,
    /// Who listens for sessions that hold no backend.
    pub listeners: Listeners,
    /// What users prove themselves with.
    pub keyring: Arc<Keyring>,
    /// The policies that a reload can change.
    pub live: Arc<ArcSwap<Live>>,
    /// Bytes of statements that wait.
    pub held_bytes: AtomicU64,
    /// How many there are by each rule.
    pub counts: Arc<Counts>,
    /// How many clients are logged in or logging in.
    pub clients: AtomicU32,
    /// For those who come when there is no place: they may still want to cancel something.
    pub spare_places: Semaphore,
    /// Set when pgsteer shuts down: every shard closes then.
    pub drain: CancellationToken,
    /// What tells that a part has ended that nobody can do without.
    pub vital: Vital,
}

/// Of those for whom there is no place, so many at a time are heard.
const SPARE_PLACES: usize = 64;

impl Shared {
    /// All of [`Self::spare_places`], free.
    pub fn all_spare_places() -> Semaphore {
        Semaphore::new(SPARE_PLACES)
    }
}

/// The policies that a reload can change.
#[derive(Debug, Clone)]
pub struct Live {
    /// Where statements go.
    pub routing: route::Policy,
    /// How much single clients may take.
    pub limits: Arc<Rules>,
}

/// One shard's own.
pub struct Shard {
    /// What all shards share.
    pub shared: Arc<Shared>,
    /// This shard's idle backends.
    pub pools: ShardPools,
    /// Lent to whoever is readable; nobody keeps it over a wait.
    pub read_buffer: RefCell<Box<[u8]>>,
    /// What statements are.
    pub facts: RefCell<FactsCache>,
    /// The statements without a name that were asked for last.
    pub recall: RefCell<Recall>,
    /// What logins were told.
    pub(super) greetings: RefCell<Greetings>,
    /// For the keys of cancel requests.
    pub(super) numbers: Numbers,
    /// Where its sessions are found when the primary changes.
    pub(super) seats: Rc<Seats>,
    topology: Latest<Topology>,
    live: Latest<Live>,
    /// Buffers that nobody uses now.
    spare: RefCell<Vec<Vec<u8>>>,
    /// Likewise, for holds on backends and for the answers that these owe.
    holds: RefCell<Vec<EmptyHold>>,
    rooms: RefCell<Vec<Room>>,
    turn: Cell<u32>,
    loads: RefCell<Vec<u32>>,
}

/// The size of the buffer that a shard reads into, in bytes.
const READ_BUFFER: usize = 64 * 1024;
/// The size of a fresh spare buffer, in bytes.
const BUFFER: usize = 4 * 1024;
/// Buffers that grew beyond this are not kept, in bytes.
const BUFFER_KEPT_MAX: usize = 256 * 1024;
/// Most spare buffers.
const SPARE_MAX: usize = 256;

impl Shard {
    /// A shard with no clients.
    pub fn new(index: usize, shared: Arc<Shared>) -> Self {
        Self {
            pools: ShardPools::new(index, Arc::clone(&shared.pools)),
            read_buffer: RefCell::new(vec![0; READ_BUFFER].into_boxed_slice()),
            facts: RefCell::default(),
            recall: RefCell::default(),
            greetings: RefCell::default(),
            numbers: Numbers::default(),
            seats: Seats::new(),
            topology: Latest::new(shared.board.cell()),
            live: Latest::new(Arc::clone(&shared.live)),
            spare: RefCell::default(),
            holds: RefCell::default(),
            rooms: RefCell::default(),
            turn: Cell::new(0),
            loads: RefCell::default(),
            shared,
        }
    }

    /// The last topology that was published.
    pub fn topology(&self) -> Lent<Topology> {
        self.topology.get()
    }

    /// Whether a backend that was taken as the primary's in that epoch is so no more: another
    /// server has become the primary, or is being made it in this one's absence.
    pub fn has_lost(&self, epoch: Epoch) -> bool {
        self.topology.look(|topology| topology.has_ended(epoch))
    }

    /// Whether it counts now what the primary says of something that was sent in that epoch.
    ///
    /// # Errors
    /// [`Void`]: it does not, and why.
    pub fn counts(&self, epoch: Epoch, now: Moment) -> Result<(), Void> {
        self.topology.look(|topology| topology.counts(epoch, now))
    }

    /// Where a write may be sent now, or why nowhere.
    ///
    /// # Errors
    /// [`NoPrimary`].
    pub(super) fn may_write(&self, now: Moment) -> Result<ServerId, NoPrimary> {
        self.topology.look(|topology| topology.may_write(now))
    }

    /// Whether servers may still be sent what was written for them a while ago. Whoever was the
    /// primary then may have been replaced while this thread stood still.
    pub fn late(&self) -> Late {
        if self.may_write(clock::now()).is_ok() { Late::Send } else { Late::HangUp }
    }

    /// The primary of now, and its epoch.
    pub(super) fn reign(&self) -> Reign {
        self.topology.look(|topology| (topology.epoch, topology.primary))
    }

    /// A topology was published: those who wait for it are called, and nobody waits any longer for
    /// a server that is the primary no more.
    pub fn on_news(&self) {
        let topology = self.topology();
        let Some((epoch, primary)) = self.seats.look(&topology) else { return };
        let old = match primary {
            Primary::Open { server, .. } => Some(server),
            Primary::None { last, .. } => last,
        };
        if let Some(old) = old
            && topology.has_ended(epoch)
            && topology.writable() != Some(old)
        {
            self.pools.desert(old);
        }
    }

    /// Looks for sessions, transactions and statements that last too long.
    pub fn look_at_times(&self, now: Moment) {
        self.seats.look_at_times(now);
    }

    /// pgsteer shuts down: sessions end when they have nothing to do.
    pub fn close(&self) {
        self.seats.close();
    }

    /// The policies of now.
    pub fn live(&self) -> Lent<Live> {
        self.live.get()
    }

    /// A number that is another one at each call.
    pub fn turn(&self) -> u32 {
        let turn = self.turn.get().wrapping_add(1);
        self.turn.set(turn);
        turn
    }

    /// Statements of this shard under way on each server.
    pub fn loads(&self) -> Ref<'_, [u32]> {
        let mut loads = self.loads.borrow_mut();
        loads.clear();
        let servers = self.shared.pools.servers();
        loads.extend(self.shared.signals.loads_of(self.pools.shard).take(servers));
        drop(loads);
        Ref::map(self.loads.borrow(), Vec::as_slice)
    }

    /// A box for a session's hold on a backend.
    pub fn take_hold(&self) -> EmptyHold {
        self.holds.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives one back.
    pub fn give_hold(&self, hold: EmptyHold) {
        let mut holds = self.holds.borrow_mut();
        if holds.len() < SPARE_MAX {
            holds.push(hold);
        }
    }

    /// Room for the answers that a backend owes.
    pub fn take_room(&self) -> Room {
        self.rooms.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives it back.
    pub fn give_room(&self, room: Room) {
        let mut rooms = self.rooms.borrow_mut();
        if room.is_worth_keeping() && rooms.len() < SPARE_MAX {
            rooms.push(room);
        }
    }

    /// An empty buffer.
    pub fn take_buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    /// Gives a buffer back.
    pub fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if buffer.capacity() > 0 && buffer.capacity() <= BUFFER_KEPT_MAX && spare.len() < SPARE_MAX
        {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Shard").field("index", &self.pools.shard).finish_non_exhaustive()
    }
}
