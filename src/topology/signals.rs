//! What the data plane reports to the control plane: small, bounded, and without waiting.

use crate::clock::Moment;
use crate::topology::ServerId;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    servers: Box<[ServerSignals]>,
    /// Databases whose catalog is wanted or has changed.
    catalogs: Mutex<BTreeSet<Arc<str>>>,
    /// Whether the reader sleeps and must be woken.
    asleep: AtomicBool,
    waker: Waker,
}

#[derive(Debug, Default)]
struct ServerSignals {
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
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.waker.wake_by_ref();
        }
    }
}
