//! One shard's part of the pools: its idle backends, and the check-out of one.
//!
//! Nothing here is shared with another shard, so the common check-out and release take no lock.
//! Idle backends are used last in, first out: the warm ones stay warm, the others grow old and
//! are closed.

use super::conn::{Conn, Next};
use super::reports::{Defaults, Reports};
use super::shared::{Grant, Offered, PoolKey, Shared, Slot, Waiter};
use super::{CheckoutError, Policy, Pools, UnnamedStatements};
use crate::clock;
use crate::clock::Moment;
use crate::latest::Latest;
use crate::metrics::{DisconnectReason, StatementSide};
use crate::session::{Identity, SharedSettings};
use crate::tasks;
use crate::timer;
use crate::topology::ServerId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The pools as one shard sees them.
#[derive(Debug)]
pub struct ShardPools {
    /// Which shard this is.
    pub shard: usize,
    /// What all shards share.
    pub pools: Arc<Pools>,
    known: RefCell<HashMap<PoolKey, Rc<ShardPool>>>,
    policy: Rc<Latest<Policy>>,
}

/// One pool as one shard sees it.
#[derive(Debug)]
pub struct ShardPool {
    pub(super) shard: usize,
    pub(super) pools: Arc<Pools>,
    policy: Rc<Latest<Policy>>,
    pub(super) shared: Arc<Shared>,
    /// In the order in which they came to rest.
    #[expect(clippy::vec_box, reason = "each changes hands in its box")]
    idle: RefCell<Vec<Box<Conn>>>,
    /// With which identities, and until when, no new backend is tried where another server will do.
    avoided: RefCell<Vec<(Option<Arc<Identity>>, Moment)>>,
    /// Backends that came free here, and were found clean without a look, since the last audit.
    unaudited: Cell<u32>,
    /// How many may be audited until the next sweep.
    audits: Cell<u32>,
    /// Since when no sweep has seen it in use.
    unused_since: Cell<Option<Moment>>,
    keeps_time: Cell<KeepsTime>,
}

/// Whether a task of this shard looks for whose time is up among those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepsTime {
    Yes,
    No,
}

/// How often that task looks at least, and so by how much longer one may wait than he has patience:
/// a timer for each who waits would cost a part of each statement (`docs/decisions/0033`).
const TICK: Duration = Duration::from_millis(50);

/// How long a standby that has refused a login is not tried again for what the primary can do
/// as well: a replica is rarely further behind, and a login that is refused costs it a process.
const AVOIDED: Duration = Duration::from_secs(2);

/// How long a pool without backends is kept after its last use. Whoever was told of his settings by
/// one of its backends may still be remembered for so long, and is to be asked for anew when they
/// change (`Pools::renew`).
pub const KEPT: Duration = Duration::from_mins(2);

/// Most audits between two sweeps: one that is drawn, and the one behind it.
const AUDITS_MAX: u32 = 2;

/// Which backend a session asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The session's, with which a backend must have been opened.
    pub identity: Option<&'a Arc<Identity>>,
    /// The session's, which need not be brought to one that carries them.
    pub settings: &'a SharedSettings,
}

/// Whether a backend that comes free is audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// It is.
    Due,
    /// It is not.
    NotNow,
}

/// A backend that a session holds. Released, it rests in its pool; dropped, it is closed.
#[derive(Debug)]
pub struct Checkout {
    conn: Option<Box<Conn>>,
    home: Rc<ShardPool>,
}

impl ShardPools {
    /// No pools yet.
    pub fn new(shard: usize, pools: Arc<Pools>) -> Self {
        let policy = Rc::new(Latest::new(Arc::clone(&pools.policy)));
        Self { shard, pools, known: RefCell::default(), policy }
    }

    /// What the operator chose.
    pub fn policy(&self) -> Policy {
        self.policy.look(|policy| *policy)
    }

    /// What becomes of statements without a name.
    pub fn unnamed(&self) -> UnnamedStatements {
        self.policy.look(|policy| policy.unnamed)
    }

    /// The pool for this user in this database of this server.
    pub fn pool(&self, key: &PoolKey) -> Rc<ShardPool> {
        if let Some(pool) = self.known.borrow().get(key) {
            pool.unused_since.set(None);
            return Rc::clone(pool);
        }
        let pool = Rc::new(ShardPool {
            shard: self.shard,
            pools: Arc::clone(&self.pools),
            policy: Rc::clone(&self.policy),
            shared: self.pools.shared(key),
            idle: RefCell::default(),
            avoided: RefCell::default(),
            unaudited: Cell::new(0),
            audits: Cell::new(AUDITS_MAX),
            unused_since: Cell::new(None),
            keeps_time: Cell::new(KeepsTime::No),
        });
        self.known.borrow_mut().insert(key.clone(), Rc::clone(&pool));
        pool
    }

    /// Gives an idle backend of this shard to the first waiter of another.
    pub fn donate(&self, shared: &Arc<Shared>) {
        let pool = self.known.borrow().get(&shared.key).map(Rc::clone);
        if let Some(pool) = pool {
            pool.donate();
        }
    }

    /// Closes what has rested or lived too long, was closed by its server, or is more than there
    /// may be by now, serves waiters that a full mailbox has kept waiting, and forgets pools that
    /// nobody has used for long. To be called every second or so.
    pub fn sweep(&self, now: Moment) {
        let policy = self.policy();
        let mut pools: Vec<_> = self.known.borrow().values().map(Rc::clone).collect();
        pools.sort_by(|a, b| a.shared.key.cmp(&b.shared.key));
        for pool in pools {
            pool.shared.sweep(now);
            pool.audits.set(AUDITS_MAX);
            let mut closed = Vec::new();
            pool.idle.borrow_mut().retain_mut(|conn| {
                let why = pool.time_is_up(conn, now).or_else(|| {
                    if now.since(conn.rested_at) >= policy.idle_timeout {
                        Some(DisconnectReason::Idle)
                    } else {
                        (!conn.is_quiet()).then_some(DisconnectReason::Error)
                    }
                });
                closed.extend(why);
                why.is_none()
            });
            for why in closed {
                self.pools.closed(pool.server(), why);
            }
            if pool.shared.has_waiters() {
                pool.donate();
            }
        }
        self.known.borrow_mut().retain(|_, pool| pool.is_kept(now));
        self.pools.forget_unknown();
    }

    /// Closes every idle backend in this database.
    pub fn leave(&self, database: &str) {
        let known = self.known.borrow();
        let mut pools: Vec<_> = known.values().collect();
        pools.sort_by(|a, b| a.shared.key.cmp(&b.shared.key));
        for pool in pools.into_iter().filter(|pool| *pool.shared.key.database == *database) {
            for conn in std::mem::take(&mut *pool.idle.borrow_mut()) {
                self.pools.closed(conn.backend.server, DisconnectReason::Admin);
            }
        }
    }

    /// Closes every idle backend of a server that is the primary no more.
    pub fn desert(&self, server: ServerId) {
        let known = self.known.borrow();
        let mut pools: Vec<_> = known.values().collect();
        pools.sort_by(|a, b| a.shared.key.cmp(&b.shared.key));
        for pool in pools.into_iter().filter(|pool| pool.shared.key.server == server) {
            for conn in std::mem::take(&mut *pool.idle.borrow_mut()) {
                self.pools.closed(conn.backend.server, DisconnectReason::Failover);
            }
        }
    }
}

impl ShardPool {
    /// A backend, if one is at hand and nobody waits longer; one that carries the session's
    /// settings before others, for the others need a round trip first.
    pub fn try_check_out(self: &Rc<Self>, wanted: Wanted<'_>) -> Option<Checkout> {
        if self.shared.has_waiters() {
            return None;
        }
        loop {
            let mut conn = {
                let mut idle = self.idle.borrow_mut();
                let fits = |conn: &Conn| conn.identity.as_ref() == wanted.identity;
                let is_ready =
                    |conn: &Conn| Arc::ptr_eq(&conn.carried, wanted.settings) && fits(conn);
                if idle.last().is_some_and(|conn| is_ready(conn)) {
                    idle.pop()?
                } else {
                    let ready = idle.iter().rposition(|conn| is_ready(conn));
                    let at = ready.or_else(|| idle.iter().rposition(|conn| fits(conn)))?;
                    idle.remove(at)
                }
            };
            if self.shared.is_outdated(conn.backend.opened_at) {
                self.pools.closed(conn.backend.server, DisconnectReason::Reload);
                continue;
            }
            if conn.is_quiet() {
                return Some(self.lend(conn));
            }
            self.pools.closed(conn.backend.server, DisconnectReason::Error);
        }
    }

    /// A backend: one at hand, else a new one, which may be in the place of one that rests and was
    /// opened with another identity, else the first to come free.
    ///
    /// Not cancel-safe in one harmless way: a backend that is granted just as the caller gives up
    /// is closed.
    ///
    /// # Errors
    /// [`CheckoutError`] if none came free within `patience` of `now`, or none could be opened.
    pub async fn check_out(
        self: &Rc<Self>,
        wanted: Wanted<'_>,
        (now, patience): (Moment, Duration),
    ) -> Result<Checkout, CheckoutError> {
        if let Some(checkout) = self.try_check_out(wanted) {
            return Ok(checkout);
        }
        let identity = wanted.identity;
        if let Some(slot) = self.slot_at_hand() {
            return Box::pin(self.open(slot, identity)).await;
        }
        match self.granted(identity, (now, patience)).await? {
            Grant::Here(conn) => Ok(self.lend(conn)),
            Grant::Elsewhere(moved) => match moved.attach() {
                Ok(conn) => Ok(self.lend(conn)),
                Err(slot) => Box::pin(self.open(slot, identity)).await,
            },
            Grant::Slot(slot) => Box::pin(self.open(slot, identity)).await,
        }
    }

    /// The right to open a backend, in the place of one that rests if there are enough.
    pub(super) async fn slot(self: &Rc<Self>, patience: Duration) -> Result<Slot, CheckoutError> {
        if let Some(slot) = self.slot_at_hand() {
            return Ok(slot);
        }
        Ok(match self.granted(None, (clock::now(), patience)).await? {
            Grant::Here(conn) => {
                self.pools.closed(self.server(), DisconnectReason::Room);
                conn.into_slot()
            }
            Grant::Elsewhere(moved) => {
                self.pools.closed(self.server(), DisconnectReason::Room);
                moved.into_slot()
            }
            Grant::Slot(slot) => slot,
        })
    }

    /// The same if nobody waits longer and nothing must be waited for.
    fn slot_at_hand(&self) -> Option<Slot> {
        if self.shared.has_waiters() {
            return None;
        }
        self.shared.try_slot().or_else(|| self.make_room())
    }

    /// The place of the one that has rested longest here, which is closed.
    fn make_room(&self) -> Option<Slot> {
        loop {
            let mut idle = self.idle.borrow_mut();
            let oldest = (!idle.is_empty()).then(|| idle.remove(0));
            drop(idle);
            let slot = oldest?.into_slot();
            self.pools.closed(self.server(), DisconnectReason::Room);
            if !self.shared.is_over() {
                return Some(slot);
            }
        }
    }

    /// What comes free, in the order of those who wait for it.
    async fn granted(
        self: &Rc<Self>,
        identity: Option<&Arc<Identity>>,
        (since, patience): (Moment, Duration),
    ) -> Result<Grant, CheckoutError> {
        let (grant, granted) = oneshot::channel();
        let (identity, until) = (identity.map(Arc::clone), since + patience);
        self.shared.wait(Waiter { shard: self.shard, since, until, identity, grant });
        self.keep_time();
        // Those before it may have left, and what rests here was kept for them.
        self.donate();
        self.pools.call_for(&self.shared, self.shard);
        let exhausted = || CheckoutError::Exhausted {
            server: self.pools.name(self.shared.key.server),
            limit: self.shared.limit(),
            waited: clock::now().since(since),
        };
        granted.await.map_err(|_| exhausted())
    }

    /// Sees to it that nobody waits for longer than he has patience, as long as somebody waits.
    fn keep_time(self: &Rc<Self>) {
        if !self.shared.has_waiters() || self.keeps_time.replace(KeepsTime::Yes) == KeepsTime::Yes {
            return;
        }
        let pool = Rc::clone(self);
        tasks::spawn_local("pool waits", async move {
            while pool.shared.has_waiters() {
                let patience = pool.policy.look(|policy| policy.wait_timeout);
                timer::sleep(TICK.min(patience)).await;
                pool.shared.sweep(clock::now());
            }
            pool.keeps_time.set(KeepsTime::No);
        });
    }

    /// Whether it is still of use as of this sweep: anybody who is let in can name any database,
    /// and has a pool before a server says that there is none.
    fn is_kept(self: &Rc<Self>, now: Moment) -> bool {
        let is_used = Rc::strong_count(self) > 1 || !self.idle.borrow().is_empty();
        if is_used || self.shared.has_waiters() {
            self.unused_since.set(None);
            return true;
        }
        let since = self.unused_since.get().unwrap_or(now);
        self.unused_since.set(Some(since));
        now.since(since) < if self.shared.had_backends() { KEPT } else { AVOIDED }
    }

    /// The server has refused this login just now.
    pub fn avoid(&self, identity: Option<&Arc<Identity>>, now: Moment) {
        let mut avoided = self.avoided.borrow_mut();
        avoided.retain(|(_, until)| now < *until);
        avoided.push((identity.map(Arc::clone), now + AVOIDED));
    }

    /// Whether the server has refused this login a moment ago.
    pub fn is_avoided(&self, identity: Option<&Arc<Identity>>, now: Moment) -> bool {
        let avoided = self.avoided.borrow();
        avoided.iter().any(|(who, until)| who.as_ref() == identity && now < *until)
    }

    /// The server whose backends these are.
    pub fn server(&self) -> ServerId {
        self.shared.key.server
    }

    async fn open(
        self: &Rc<Self>,
        slot: Slot,
        identity: Option<&Arc<Identity>>,
    ) -> Result<Checkout, CheckoutError> {
        let begun = clock::now();
        let identity = identity.map(Arc::clone);
        let open = || self.pools.open(&self.shared.key, identity.as_deref());
        let (mut backend, mut target) = open().await?;
        if self.shared.is_outdated(begun) {
            // It may have begun before its settings changed.
            (backend, target) = open().await?;
        }
        self.shared.note_opened();
        let holder = self.pools.metrics.statements.holder(StatementSide::Server);
        let params = backend.params.iter().map(|(name, value)| (&**name, &**value));
        let reports = Reports::new(self.pools.same_defaults(Defaults::new(params)));
        Ok(self.lend(Conn::new((backend, reports), (identity, target), slot, holder)))
    }

    /// Why a backend that is free goes, however warm it is; `None`: it may stay.
    fn time_is_up(&self, conn: &Conn, now: Moment) -> Option<DisconnectReason> {
        if self.shared.is_over() || self.shared.is_outdated(conn.backend.opened_at) {
            Some(DisconnectReason::Reload)
        } else if now.since(conn.backend.opened_at)
            >= self.policy.look(|policy| policy.max_lifetime)
        {
            Some(DisconnectReason::Lifetime)
        } else {
            None
        }
    }

    fn lend(self: &Rc<Self>, mut conn: Box<Conn>) -> Checkout {
        conn.trust.holders = conn.trust.holders.saturating_add(1);
        self.pools.signals.checked_out(self.shard, self.shared.key.server);
        Checkout { conn: Some(conn), home: Rc::clone(self) }
    }

    fn donate(&self) {
        // Nearly always who waits does so because nothing rests here.
        if self.idle.borrow().is_empty() {
            return;
        }
        while let Some(identity) = self.shared.first_wants() {
            let mut idle = self.idle.borrow_mut();
            if idle.is_empty() {
                return;
            }
            // One that is of no use to him gives its place: then the warm ones stay.
            let at = idle.iter().rposition(|conn| conn.identity == identity).unwrap_or(0);
            let mut conn = idle.remove(at);
            drop(idle);
            if !conn.is_quiet()
                || self.shared.is_over()
                || self.shared.is_outdated(conn.backend.opened_at)
            {
                // Its slot goes to the first waiter.
                self.pools.closed(conn.backend.server, DisconnectReason::Error);
                continue;
            }
            if let Some(conn) = self.offer(conn) {
                self.idle.borrow_mut().insert(at, conn);
                return;
            }
        }
    }

    /// Offers it to those who wait; hands it back if nobody does.
    fn offer(&self, conn: Box<Conn>) -> Option<Box<Conn>> {
        match self.shared.offer(conn, self.shard) {
            Offered::Kept(conn) => return Some(conn),
            Offered::Given => {}
            Offered::Replaced => self.pools.closed(self.server(), DisconnectReason::Room),
        }
        None
    }
}

impl Checkout {
    /// Gives the backend back. Only for one on which nothing is owed, no transaction is open and
    /// no state is left that is not recorded in it.
    pub fn release(mut self, now: Moment) {
        self.give_back(now);
    }

    /// The same where it stands, for who drops it next: there is no backend in it any more.
    pub fn give_back(&mut self, now: Moment) {
        let Some(mut conn) = self.conn.take() else { return };
        self.home.pools.signals.given_back(self.home.shard, self.home.server());
        conn.rested_at = now;
        conn.drawn = conn.drawn.left();
        conn.look_through_reports(&self.home.pools);
        if let Some(why) = self.home.time_is_up(&conn, now) {
            self.home.pools.closed(conn.backend.server, why);
            return;
        }
        if self.home.shared.has_waiters() {
            let Some(kept) = self.home.offer(conn) else { return };
            conn = kept;
        }
        self.home.idle.borrow_mut().push(conn);
    }

    /// Draws whether a backend is audited that comes free and is believed to be clean: one in
    /// `every`, and the next release of the same backend, so that what is found then was left by
    /// one session alone. A counter and no clock: it is asked in each transaction.
    pub fn draw_audit(&mut self, every: u32) -> Audit {
        let count = self.home.unaudited.get().saturating_add(1);
        self.home.unaudited.set(count);
        let next = std::mem::take(&mut self.trust.next);
        let drawn = every != 0 && (count >= every || next == Next::Audited);
        let left = self.home.audits.get();
        if !drawn || left == 0 || self.trust.holders == 0 {
            return Audit::NotNow;
        }
        self.home.unaudited.set(0);
        self.home.audits.set(left - 1);
        Audit::Due
    }

    /// Closes it, and opens another in its place.
    ///
    /// # Errors
    /// [`CheckoutError`] if that could not be opened.
    pub async fn anew(mut self) -> Result<Self, CheckoutError> {
        let home = Rc::clone(&self.home);
        let taken = self.conn.take().map(|conn| {
            home.pools.signals.given_back(home.shard, home.server());
            home.pools.closed(home.server(), DisconnectReason::Error);
            let identity = conn.identity.clone();
            (conn.into_slot(), identity)
        });
        match taken {
            Some((slot, identity)) => Box::pin(home.open(slot, identity.as_ref())).await,
            None => Err(CheckoutError::NoSuchServer),
        }
    }

    /// Closes it, for this reason.
    pub fn close(mut self, why: DisconnectReason) {
        if self.conn.take().is_some() {
            self.home.pools.signals.given_back(self.home.shard, self.home.server());
            self.home.pools.closed(self.home.server(), why);
        }
    }

    /// The server that it is connected to.
    pub fn server(&self) -> ServerId {
        self.home.server()
    }
}

impl Deref for Checkout {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        #[expect(
            clippy::expect_used,
            reason = "only `give_back` and `drop` take it, which end `self`"
        )]
        self.conn.as_deref().expect("a check-out holds its backend until it ends")
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut Conn {
        #[expect(
            clippy::expect_used,
            reason = "only `give_back` and `drop` take it, which end `self`"
        )]
        self.conn.as_deref_mut().expect("a check-out holds its backend until it ends")
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.home.pools.signals.given_back(self.home.shard, self.home.server());
            self.home.pools.closed(conn.backend.server, DisconnectReason::Error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Keyring, Userlist};
    use crate::metrics::{Build, Metrics};
    use crate::topology::Signals;
    use std::task::Waker;

    fn pools() -> ShardPools {
        let metrics = Metrics::new(&[Arc::from("a")], Build::default()).unwrap();
        let signals = Signals::new(Waker::noop().clone());
        let pools = Pools::new(
            Policy::default(),
            Box::default(),
            Arc::new(Keyring::new(Userlist::parse("").unwrap(), [1; 32])),
            Duration::from_secs(1),
            (Arc::new(metrics), Arc::new(signals)),
        );
        ShardPools::new(0, Arc::new(pools))
    }

    fn key(database: &str) -> PoolKey {
        let (server, user) = (ServerId(0), Arc::from("bob"));
        PoolKey { server, database: Arc::from(database), user }
    }

    /// How many a shard knows, and the process.
    fn known(pools: &ShardPools) -> (usize, usize) {
        (pools.known.borrow().len(), pools.pools.all().len())
    }

    const START: Moment = Moment::from_nanos(1_000_000_000_000);

    #[test]
    fn names_of_databases_do_not_fill_the_memory() {
        let pools = pools();
        let held = pools.pool(&key("held"));
        for number in 0..1_000 {
            pools.pool(&key(&format!("x{number}")));
        }
        pools.sweep(START);
        assert_eq!(known(&pools), (1_001, 1_001), "a standby that refuses is avoided meanwhile");
        pools.sweep(START + AVOIDED);
        assert_eq!(known(&pools), (1, 1));
        assert!(Arc::ptr_eq(&pools.pool(&key("held")).shared, &held.shared));
        drop(held);
        pools.sweep(START + AVOIDED);
        pools.sweep(START + 2 * AVOIDED);
        assert_eq!(known(&pools), (0, 0));
    }

    /// What was told of such a backend may still be told to others.
    #[test]
    fn a_pool_that_had_backends_is_kept_for_longer_than_what_they_said() {
        let pools = pools();
        pools.pool(&key("shop")).shared.note_opened();
        pools.sweep(START);
        // A login on the way: it counts from the next sweep on.
        pools.sweep(START + KEPT / 2);
        pools.pool(&key("shop"));
        let again = START + KEPT;
        pools.sweep(again);
        pools.sweep(again + KEPT - Duration::from_nanos(1));
        pools.pools.renew((None, Some("shop")), again);
        assert_eq!(pools.pools.renewed(), again, "whoever was told is asked for anew");
        pools.sweep(again + KEPT);
        assert_eq!(known(&pools), (0, 0));
        pools.pools.renew((None, Some("shop")), again + KEPT);
        assert_eq!(pools.pools.renewed(), again, "there is nobody left who was told");
    }

    #[test]
    fn a_pool_is_forgotten_by_all_shards_before_it_is_another() {
        let one = pools();
        let other = ShardPools::new(1, Arc::clone(&one.pools));
        let slot = one.pool(&key("shop")).shared.try_slot().unwrap();
        other.pool(&key("shop"));
        for pools in [&one, &other] {
            pools.sweep(START);
            pools.sweep(START + AVOIDED);
        }
        // A backend on its way from one to the other.
        assert_eq!((known(&one), known(&other)), ((0, 1), (0, 1)));
        assert_eq!(one.pool(&key("shop")).shared.open(), 1);
        drop(slot);
        assert_eq!(one.pool(&key("shop")).shared.open(), 0);
    }
}
