//! What the shards share of one pool: how many backends there may be, and who waits for one.
//!
//! The limit is global and exact: a backend holds a [`Slot`] from before its connection is opened
//! until after it is closed. Waiters are served first come, first served, across all shards: as
//! long as one waits, nobody else takes a backend that came free.
//!
//! What its user gave at the login of who he is to be makes a backend fit for some of them only.
//! All count together, for nobody is to have more of them by being many: one that comes free while
//! the first who waits needs another is closed in his favour.

use super::conn::{Conn, Moved};
use crate::clock::Moment;
use crate::session::Identity;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

use crate::topology::ServerId;

/// Which backends count together: those of one user in one database of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// Where.
    pub server: ServerId,
    /// In which database.
    pub database: Arc<str>,
    /// As whom.
    pub user: Arc<str>,
}

/// One pool, as far as all shards share it.
pub struct Shared {
    /// Whose backends these are.
    pub key: PoolKey,
    limit: AtomicU32,
    open: AtomicU32,
    /// How many wait, so that a release needs no lock while nobody does.
    waiting: AtomicU32,
    /// Backends that were opened until then began with other settings than a new one would.
    renewed: AtomicU64,
    /// Whether there ever was a backend.
    opened: AtomicBool,
    /// Guards the queue; held for a push or a pop only.
    queue: Mutex<VecDeque<Waiter>>,
}

/// The right to have one backend open. Dropped, it is passed to the first waiter.
#[derive(Debug)]
pub struct Slot {
    shared: Option<Arc<Shared>>,
}

/// What a waiter is given.
#[derive(Debug)]
pub enum Grant {
    /// A backend that came free on its own shard.
    Here(Box<Conn>),
    /// A backend that came free on another shard.
    Elsewhere(Box<Moved>),
    /// The right to open one.
    Slot(Slot),
}

/// One who waits.
#[derive(Debug)]
pub struct Waiter {
    /// On which shard.
    pub shard: usize,
    /// Since when.
    pub since: Moment,
    /// Until when.
    pub until: Moment,
    /// For a backend that was opened with this.
    pub identity: Option<Arc<Identity>>,
    /// Where the grant goes.
    pub grant: oneshot::Sender<Grant>,
}

/// What became of a backend that was offered to those who wait.
#[derive(Debug)]
pub enum Offered {
    /// Nobody waits.
    Kept(Box<Conn>),
    /// Somebody has it, or had it and left.
    Given,
    /// It was closed: who waits opens another one in its place.
    Replaced,
}

impl Shared {
    /// A pool without backends.
    pub fn new(key: PoolKey, limit: u32) -> Arc<Self> {
        Arc::new(Self {
            key,
            limit: AtomicU32::new(limit),
            open: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            renewed: AtomicU64::new(0),
            opened: AtomicBool::new(false),
            queue: Mutex::default(),
        })
    }

    /// The right to open a backend, if the limit allows one more.
    pub fn try_slot(self: &Arc<Self>) -> Option<Slot> {
        let more = |open| (open < self.limit()).then_some(open + 1);
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then(|| Slot { shared: Some(Arc::clone(self)) })
    }

    /// Whether anybody waits.
    pub fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Since when the first of those who wait has waited.
    pub fn oldest(&self) -> Option<Moment> {
        if !self.has_waiters() {
            return None;
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there = queue.iter().filter(|waiter| !waiter.grant.is_closed());
        there.next().map(|waiter| waiter.since)
    }

    /// How many backends are open or being opened.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Allows more, which those who wait are told at once, or fewer: then some are closed as they
    /// come free.
    pub fn set_limit(self: &Arc<Self>, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
        self.offer_slots();
    }

    /// Whether there are more than there may be, since the limit was lowered.
    pub fn is_over(&self) -> bool {
        self.open() > self.limit()
    }

    /// What was opened until then is not to be given to anybody any more.
    pub fn renew(&self, at: Moment) {
        self.renewed.fetch_max(at.nanos(), Ordering::AcqRel);
    }

    /// Whether a backend that was opened then is of no more use.
    pub fn is_outdated(&self, opened: Moment) -> bool {
        opened.nanos() <= self.renewed.load(Ordering::Acquire)
    }

    /// A server has let somebody in.
    pub fn note_opened(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Whether there ever was a backend.
    pub fn had_backends(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Joins the end of the queue.
    pub fn wait(self: &Arc<Self>, waiter: Waiter) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(waiter);
        self.count_queue(&queue);
        drop(queue);
        // A slot may have come free between the caller's look and now.
        self.offer_slots();
    }

    /// Gives a free backend to the first waiter, or its place if that one needs another; hands it
    /// back if nobody waits.
    pub fn offer(&self, conn: Box<Conn>, shard: usize) -> Offered {
        let mut conn = conn;
        while let Some(waiter) = self.next_waiter() {
            let (grant, given) = if waiter.identity != conn.identity {
                (Grant::Slot(conn.into_slot()), Offered::Replaced)
            } else if waiter.shard == shard {
                (Grant::Here(conn), Offered::Given)
            } else {
                match conn.detach() {
                    Ok(moved) => (Grant::Elsewhere(Box::new(moved)), Offered::Given),
                    Err(slot) => (Grant::Slot(slot), Offered::Replaced),
                }
            };
            conn = match waiter.grant.send(grant) {
                Err(Grant::Here(conn)) => conn,
                // Taken; or the waiter left, and a detached backend is not worth bringing back:
                // dropped, its slot goes to the next one.
                Ok(()) | Err(Grant::Elsewhere(_) | Grant::Slot(_)) => return given,
            };
        }
        Offered::Kept(conn)
    }

    /// With which identity the first who waits wants a backend; `None` if nobody waits.
    pub fn first_wants(&self) -> Option<Option<Arc<Identity>>> {
        if !self.has_waiters() {
            return None;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while queue.front().is_some_and(|waiter| waiter.grant.is_closed()) {
            queue.pop_front();
        }
        self.count_queue(&queue);
        queue.front().map(|waiter| waiter.identity.clone())
    }

    /// Gives free slots to waiters, as long as there are both.
    fn offer_slots(self: &Arc<Self>) {
        while self.has_waiters() {
            let Some(mut slot) = self.try_slot() else { return };
            match self.next_waiter() {
                Some(waiter) => {
                    if let Err(Grant::Slot(mut refused)) = waiter.grant.send(Grant::Slot(slot)) {
                        refused.give_back();
                    }
                }
                None => slot.give_back(),
            }
        }
    }

    fn next_waiter(&self) -> Option<Waiter> {
        if !self.has_waiters() {
            return None;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = loop {
            match queue.pop_front() {
                Some(waiter) if waiter.grant.is_closed() => {}
                next => break next,
            }
        };
        self.count_queue(&queue);
        next
    }

    /// Takes those who left out of the count, and sends away whose time is up.
    pub fn sweep(&self, now: Moment) {
        if self.has_waiters() {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.retain(|waiter| !waiter.grant.is_closed() && now < waiter.until);
            self.count_queue(&queue);
        }
    }

    fn count_queue(&self, queue: &VecDeque<Waiter>) {
        let length = u32::try_from(queue.len()).unwrap_or(u32::MAX);
        self.waiting.store(length, Ordering::Release);
    }
}

impl Slot {
    /// The pool that it belongs to.
    pub const fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
    }

    /// Counts it out without looking for a waiter.
    fn give_back(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.open.fetch_sub(1, Ordering::AcqRel);
            shared.offer_slots();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared")
            .field("key", &self.key)
            .field("open", &self.open())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot::error::TryRecvError;

    #[test]
    fn whose_time_is_up_is_sent_away_and_nobody_else() {
        let (database, user) = (Arc::from("d"), Arc::from("u"));
        let shared = Shared::new(PoolKey { server: ServerId(0), database, user }, 0);
        let since = Moment::ORIGIN;
        // The time that one may wait can be changed while others wait.
        let mut waits = [3, 1, 2].map(|seconds| {
            let (grant, granted) = oneshot::channel();
            let until = since + Duration::from_secs(seconds);
            shared.wait(Waiter { shard: 0, since, until, identity: None, grant });
            granted
        });
        let mut left = |millis: u64| {
            shared.sweep(since + Duration::from_millis(millis));
            let waits = waits.each_mut().map(|wait| wait.try_recv().unwrap_err());
            (waits.map(|why| why == TryRecvError::Empty), shared.waiting())
        };
        assert_eq!(left(999), ([true, true, true], 3));
        assert_eq!(left(1_000), ([true, false, true], 2));
        assert_eq!(left(2_999), ([true, false, false], 1));
        assert_eq!(left(3_000), ([false, false, false], 0));
    }
}
