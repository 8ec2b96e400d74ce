//! What the data plane reports to the control plane: small, bounded, and without waiting.

use crate::clock::Moment;
use crate::topology::ServerId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// How many servers one proxy can steer; a bound, so that signals are fixed arrays.
pub const MAX_SERVERS: usize = 64;

/// The wishes and the evidence of all sessions, folded into a few numbers. Writing one is an
/// atomic operation; the control plane is woken only when it sleeps.
#[derive(Debug)]
pub struct Signals {
    /// The newest moment for which a session wants a position of the primary, besides those that
    /// came with an acknowledgement.
    mark: AtomicU64,
    /// What each shard alone writes; the last is shared by those beyond.
    shards: Box<[ShardSignals]>,
    servers: Box<[ServerSignals]>,
    /// Databases whose catalog is wanted or has changed, and since when.
    catalogs: Mutex<BTreeMap<Arc<str>, Moment>>,
    /// Whether the reader sleeps and must be woken.
    asleep: AtomicBool,
    waker: Waker,
}

/// What one shard writes with every answer and every check-out: on lines of its own, and without a
/// locked instruction but for the one fence that the reader's answers to.
#[derive(Debug)]
#[repr(align(64))]
struct ShardSignals {
    /// When it passed on the primary's last word to a client.
    acknowledged: AtomicU64,
    /// The newest moment for which a session there wants a position of the primary.
    mark: AtomicU64,
    /// Backends of each server that its sessions hold.
    out: Box<[AtomicU32]>,
}

/// How many shards have a place of their own; more would share one.
const SHARDS: usize = 64;

/// Who else writes to a shard's place.
#[derive(Debug, Clone, Copy)]
enum Writers {
    OneThread,
    Any,
}

/// Whether a session wants the position that the primary had after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// No.
    None,
    /// Yes.
    Position,
}

/// The sessions that hold a backend of one server now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Busy {
    /// In a transaction, in the middle of a statement, or about to send one: they are waited for
    /// before the server may stop to be the primary.
    pub working: usize,
    /// Idle, and holding on to their backend only for what can't be moved: `LISTEN`, temporary
    /// tables, locks; or because of `pool.mode = "session"`. They never come to an end by
    /// themselves, and lose what lives there.
    pub resting: usize,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct ServerSignals {
    /// Backends whose session is idle and stays with them.
    resting: AtomicU32,
    /// The newest moment for which a session wants a sample of this standby.
    sample: AtomicU64,
    /// The newest moment up to which a session has seen this standby and now goes to the primary.
    visibility: AtomicU64,
    /// Backends that broke or could not be opened, ever.
    lost: AtomicU64,
}

impl Signals {
    /// No wishes yet; `waker` wakes the control plane's sampler.
    pub fn new(waker: Waker) -> Self {
        Self {
            mark: AtomicU64::new(0),
            shards: (0..=SHARDS).map(|_| ShardSignals::default()).collect(),
            servers: (0..MAX_SERVERS).map(|_| ServerSignals::default()).collect(),
            catalogs: Mutex::default(),
            asleep: AtomicBool::new(false),
            waker,
        }
    }

    /// A session wants a position of the primary that was asked for after `mark`.
    pub fn want_position(&self, mark: Moment) {
        self.mark.fetch_max(mark.nanos(), Ordering::Relaxed);
        self.wake();
    }

    /// A session wants a sample of a standby that was asked for after `since`.
    pub fn want_sample(&self, server: ServerId, since: Moment) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.sample.fetch_max(since.nanos(), Ordering::Relaxed);
            self.wake();
        }
    }

    /// A session saw this standby last at `seen` and wants to be sure that the primary shows
    /// as much.
    pub fn want_visibility(&self, server: ServerId, seen: Moment) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.visibility.fetch_max(seen.nanos(), Ordering::Relaxed);
            self.wake();
        }
    }

    /// A session of this shard has a backend of this server from now on. Whoever saw it before its
    /// topology said that this server takes nothing new looks at the topology once more after this
    /// call.
    pub fn checked_out(&self, shard: usize, server: ServerId) {
        self.count_out(shard, server, 1);
        // Together with the reader's fence: either it counts this session, or the session's next
        // look finds the topology that was published before the count.
        fence(Ordering::SeqCst);
    }

    /// A session has given its backend back, or has closed it.
    pub fn given_back(&self, shard: usize, server: ServerId) {
        self.count_out(shard, server, u32::MAX);
    }

    /// Adds to the count of a shard, modulo 2^32.
    fn count_out(&self, shard: usize, server: ServerId, by: u32) {
        let (own, writers) = self.place(shard);
        let Some(out) = own.and_then(|own| own.out.get(server.index())) else { return };
        match writers {
            Writers::OneThread => {
                let count = out.load(Ordering::Relaxed).wrapping_add(by);
                out.store(count, Ordering::Release);
            }
            Writers::Any => {
                out.fetch_add(by, Ordering::Release);
            }
        }
    }

    fn place(&self, shard: usize) -> (Option<&ShardSignals>, Writers) {
        let writers = if shard < SHARDS { Writers::OneThread } else { Writers::Any };
        (self.shards.get(shard.min(SHARDS)), writers)
    }

    /// A session that stays with its backend is idle from now on.
    pub fn rests(&self, server: ServerId) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.resting.fetch_add(1, Ordering::Release);
        }
    }

    /// It is idle no more, or its backend is gone.
    pub fn rises(&self, server: ServerId) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.resting.fetch_sub(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// A shard is about to pass on that the primary is done with something, and its session may
    /// want the position after it. The topology is to be looked at after this call: what is not
    /// counted here must not be passed on.
    pub fn acknowledge(&self, shard: usize, now: Moment, wish: Wish) {
        let (Some(own), writers) = self.place(shard) else { return };
        writers.raise(&own.acknowledged, now);
        if wish == Wish::Position {
            writers.raise(&own.mark, now);
        }
        // For the reader of the acknowledgements, and for one that has just gone to sleep.
        fence(Ordering::SeqCst);
        if wish == Wish::Position {
            self.wake_sleeper();
        }
    }

    /// A backend of this server broke, or none could be opened: look at it now.
    pub fn lost_backend(&self, server: ServerId) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.lost.fetch_add(1, Ordering::Relaxed);
            self.wake();
        }
    }

    /// This database's catalog is wanted as of `since`, or was changed and must be read again.
    /// Backends that were opened there before `since` may have been watched by nobody.
    pub fn want_catalog(&self, database: &Arc<str>, since: Moment) {
        let mut wanted = self.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        let first = wanted.entry(Arc::clone(database)).or_insert(since);
        *first = since.min(*first);
        drop(wanted);
        self.wake();
    }

    /// The newest mark that wants a position.
    pub fn wanted_position(&self) -> Moment {
        let each = self.shards.iter().map(|own| own.mark.load(Ordering::Acquire));
        Moment::from_nanos(each.fold(self.mark.load(Ordering::Acquire), u64::max))
    }

    /// The newest moment for which a sample of this standby is wanted.
    pub fn wanted_sample(&self, server: ServerId) -> Moment {
        let wanted = self.servers.get(server.index());
        Moment::from_nanos(wanted.map_or(0, |signals| signals.sample.load(Ordering::Acquire)))
    }

    /// The newest moment up to which this standby's visibility on the primary is wanted.
    pub fn wanted_visibility(&self, server: ServerId) -> Moment {
        let wanted = self.servers.get(server.index());
        Moment::from_nanos(wanted.map_or(0, |signals| signals.visibility.load(Ordering::Acquire)))
    }

    /// The newest moment at which a client was told that the primary was done with something of
    /// its. Once a topology is published under which nothing more may be passed on, this is final:
    /// a position that was sampled after it covers everything that was acknowledged.
    pub fn last_acknowledged(&self) -> Moment {
        fence(Ordering::SeqCst);
        let each = self.shards.iter().map(|own| own.acknowledged.load(Ordering::SeqCst));
        Moment::from_nanos(each.max().unwrap_or(0))
    }

    /// The sessions that hold a backend of this server. Asked after the topology was published
    /// that holds new work, and found to be working no more, they stay so until the next one.
    pub fn busy(&self, server: ServerId) -> Busy {
        fence(Ordering::SeqCst);
        let Some(signals) = self.servers.get(server.index()) else { return Busy::default() };
        // In this order: a session that falls asleep between the two looks counts as working.
        let resting = count(&signals.resting);
        let out = usize::try_from(self.load(server)).unwrap_or(usize::MAX);
        Busy { working: out.saturating_sub(resting), resting }
    }

    /// How many backends of this server are checked out.
    pub fn load(&self, server: ServerId) -> u32 {
        let each = self.shards.iter().filter_map(|own| own.out.get(server.index()));
        each.fold(0, |sum, out| sum.wrapping_add(out.load(Ordering::SeqCst)))
    }

    /// How many backends of each server the sessions of one shard hold.
    pub fn loads_of(&self, shard: usize) -> impl Iterator<Item = u32> {
        let out = self.place(shard).0.map_or(&[][..], |own| &own.out);
        out.iter().map(|out| out.load(Ordering::Relaxed))
    }

    /// How many backends of this server were lost since the start.
    pub fn lost_backends(&self, server: ServerId) -> u64 {
        let signals = self.servers.get(server.index());
        signals.map_or(0, |signals| signals.lost.load(Ordering::Acquire))
    }

    /// Takes the databases whose catalog is to be read, and since when.
    pub fn take_catalogs(&self) -> BTreeMap<Arc<str>, Moment> {
        std::mem::take(&mut *self.catalogs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The reader is about to sleep: from now on a wish wakes it. It must look at every wish
    /// once more after this call, before it sleeps.
    pub fn about_to_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    fn wake(&self) {
        // The wish before this must be visible to a reader that has just gone to sleep.
        fence(Ordering::SeqCst);
        self.wake_sleeper();
    }

    fn wake_sleeper(&self) {
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.waker.wake_by_ref();
        }
    }
}

impl Default for ShardSignals {
    fn default() -> Self {
        let out = (0..MAX_SERVERS).map(|_| AtomicU32::new(0)).collect();
        Self { acknowledged: AtomicU64::new(0), mark: AtomicU64::new(0), out }
    }
}

impl Writers {
    /// Makes it later, never earlier.
    fn raise(self, cell: &AtomicU64, now: Moment) {
        match self {
            Self::OneThread => {
                let latest = cell.load(Ordering::Relaxed).max(now.nanos());
                cell.store(latest, Ordering::Release);
            }
            Self::Any => {
                cell.fetch_max(now.nanos(), Ordering::Release);
            }
        }
    }
}

fn count(cell: &AtomicU32) -> usize {
    usize::try_from(cell.load(Ordering::SeqCst)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: ServerId = ServerId(2);

    #[test]
    fn who_rests_is_not_waited_for() {
        let signals = Signals::new(Waker::noop().clone());
        assert_eq!(signals.busy(SERVER), Busy::default());
        for shard in [0, 1, SHARDS + 1] {
            signals.checked_out(shard, SERVER);
        }
        signals.rests(SERVER);
        assert_eq!(signals.busy(SERVER), Busy { working: 2, resting: 1 });
        assert_eq!(signals.busy(ServerId(1)), Busy::default(), "another server");
        signals.rises(SERVER);
        signals.given_back(1, SERVER);
        assert_eq!(signals.busy(SERVER), Busy { working: 2, resting: 0 });
        assert_eq!(signals.load(SERVER), 2);
        assert_eq!(signals.loads_of(0).take(4).collect::<Vec<_>>(), [0, 0, 1, 0]);
        assert_eq!(signals.loads_of(1).sum::<u32>(), 0);
    }

    #[test]
    fn the_last_acknowledgement_is_the_newest_of_all_shards() {
        let signals = Signals::new(Waker::noop().clone());
        assert_eq!(signals.last_acknowledged(), Moment::ORIGIN);
        for (shard, at) in [(0, 30), (1, 50), (0, 40), (1, 20), (SHARDS + 1, 45)] {
            signals.acknowledge(shard, Moment::from_nanos(at), Wish::None);
        }
        assert_eq!(signals.last_acknowledged(), Moment::from_nanos(50));
        assert_eq!(signals.wanted_position(), Moment::ORIGIN);
        signals.acknowledge(1, Moment::from_nanos(45), Wish::Position);
        signals.want_position(Moment::from_nanos(44));
        assert_eq!(signals.wanted_position(), Moment::from_nanos(45));
        assert_eq!(signals.last_acknowledged(), Moment::from_nanos(50));
    }
}
