//! What the data plane reports to the control plane: small, bounded, and without waiting.

use crate::clock::Moment;
use crate::topology::ServerId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// How many servers one proxy can steer; a bound, so that signals are fixed arrays.
pub const MAX_SERVERS: usize = 64;

/// The wishes and the evidence of all sessions, folded into a few numbers. Writing one is an
/// atomic operation; the control plane is woken only when it sleeps.
#[derive(Debug)]
pub struct Signals {
    /// The newest moment for which a session wants a position of the primary.
    mark: AtomicU64,
    /// When each shard passed on the primary's last word to a client.
    acknowledged: Box<[Acknowledged]>,
    servers: Box<[ServerSignals]>,
    /// Databases whose catalog is wanted or has changed.
    catalogs: Mutex<BTreeSet<Arc<str>>>,
    /// Whether the reader sleeps and must be woken.
    asleep: AtomicBool,
    waker: Waker,
}

/// One shard's newest acknowledgement; on a line of its own, since every answer of the primary
/// writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Acknowledged(AtomicU64);

/// How many shards have a place of their own for what they acknowledged; more would share.
const SHARDS: usize = 64;

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
    /// Backends that a session holds.
    out: AtomicU32,
    /// Those of them whose session is idle and stays with its backend.
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
            acknowledged: (0..SHARDS).map(|_| Acknowledged::default()).collect(),
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

    /// A session has a backend of this server from now on. Whoever saw it before its topology
    /// said that this server takes nothing new looks at the topology once more after this call.
    pub fn checked_out(&self, server: ServerId) {
        if let Some(signals) = self.servers.get(server.index()) {
            // Together with the reader's fence: either it counts this session, or the session's
            // next look finds the topology that was published before the count.
            signals.out.fetch_add(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// A session has given its backend back, or has closed it.
    pub fn given_back(&self, server: ServerId) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.out.fetch_sub(1, Ordering::Release);
        }
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

    /// A shard is about to pass on that the primary is done with something. The topology is to be
    /// looked at after this call: what is not counted here must not be passed on.
    pub fn acknowledge(&self, shard: usize, now: Moment) {
        if let Some(own) = self.acknowledged.get(shard % SHARDS) {
            own.0.fetch_max(now.nanos(), Ordering::SeqCst);
            fence(Ordering::SeqCst);
        }
    }

    /// A backend of this server broke, or none could be opened: look at it now.
    pub fn lost_backend(&self, server: ServerId) {
        if let Some(signals) = self.servers.get(server.index()) {
            signals.lost.fetch_add(1, Ordering::Relaxed);
            self.wake();
        }
    }

    /// This database's catalog is wanted, or was changed and must be read again.
    pub fn want_catalog(&self, database: &Arc<str>) {
        let mut wanted = self.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.insert(Arc::clone(database));
        drop(wanted);
        self.wake();
    }

    /// The newest mark that wants a position.
    pub fn wanted_position(&self) -> Moment {
        Moment::from_nanos(self.mark.load(Ordering::Acquire))
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
        let each = self.acknowledged.iter().map(|own| own.0.load(Ordering::SeqCst));
        Moment::from_nanos(each.max().unwrap_or(0))
    }

    /// The sessions that hold a backend of this server. Asked after the topology was published
    /// that holds new work, and found to be working no more, they stay so until the next one.
    pub fn busy(&self, server: ServerId) -> Busy {
        fence(Ordering::SeqCst);
        let Some(signals) = self.servers.get(server.index()) else { return Busy::default() };
        // In this order: a session that falls asleep between the two looks counts as working.
        let resting = count(&signals.resting);
        let out = count(&signals.out);
        Busy { working: out.saturating_sub(resting), resting }
    }

    /// How many backends of this server are checked out.
    pub fn load(&self, server: ServerId) -> u32 {
        self.servers.get(server.index()).map_or(0, |server| server.out.load(Ordering::Relaxed))
    }

    /// How many backends of this server were lost since the start.
    pub fn lost_backends(&self, server: ServerId) -> u64 {
        let signals = self.servers.get(server.index());
        signals.map_or(0, |signals| signals.lost.load(Ordering::Acquire))
    }

    /// Takes the databases whose catalog is to be read.
    pub fn take_catalogs(&self) -> BTreeSet<Arc<str>> {
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
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.waker.wake_by_ref();
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
        for _ in 0..3 {
            signals.checked_out(SERVER);
        }
        signals.rests(SERVER);
        assert_eq!(signals.busy(SERVER), Busy { working: 2, resting: 1 });
        assert_eq!(signals.busy(ServerId(1)), Busy::default(), "another server");
        signals.rises(SERVER);
        signals.given_back(SERVER);
        assert_eq!(signals.busy(SERVER), Busy { working: 2, resting: 0 });
        assert_eq!(signals.load(SERVER), 2);
    }

    #[test]
    fn the_last_acknowledgement_is_the_newest_of_all_shards() {
        let signals = Signals::new(Waker::noop().clone());
        assert_eq!(signals.last_acknowledged(), Moment::ORIGIN);
        for (shard, at) in [(0, 30), (1, 50), (0, 40), (1, 20), (SHARDS + 1, 45)] {
            signals.acknowledge(shard, Moment::from_nanos(at));
        }
        assert_eq!(signals.last_acknowledged(), Moment::from_nanos(50));
    }
}
