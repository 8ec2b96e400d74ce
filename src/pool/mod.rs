//! Pooled backends: check out, release, limits and queues.
//!
//! A session takes a backend by value for one transaction, and gives it back through its guard.
//!
//! Invariants:
//! - A backend returns to its pool once, through [`Checkout::release`]; dropped, it is closed.
//! - There are never more backends of a pool than its limit, counting those that are being
//!   opened, over all shards. When the limit is lowered, none is opened until enough were closed.
//! - Those who wait are served in the order in which they came, and not for ever.

mod alone;
mod conn;
mod policy;
mod reports;
mod shard;
mod shared;

pub use alone::{Alone, Purpose};
pub use conn::{Conn, Drawn, Moved, Next, Running, Trust};
pub use policy::{Mode, Policy, Reset, UnnamedStatements};
pub use reports::{Defaults, Reports};
pub use shard::{Audit, Checkout, KEPT, ShardPool, ShardPools, Wanted};
pub use shared::{PoolKey, Shared};

use crate::auth::Keyring;
use crate::backend;
use crate::backend::{Backend, ConnectError, Login, Target};
use crate::clock;
use crate::clock::Moment;
use crate::metrics::{ConnectResult, DisconnectReason, Metrics};
use crate::session::Identity;
use crate::topology::{ServerId, Signals, Unseen};
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// All pools of the process, as far as the shards share them.
#[derive(Debug)]
pub struct Pools {
    policy: Arc<ArcSwap<Policy>>,
    targets: Box<[Target]>,
    keyring: Arc<Keyring>,
    connect_timeout: Duration,
    metrics: Arc<Metrics>,
    /// Guards the registry; locked when a shard meets a pool for the first time, and by sweeps.
    registry: Mutex<HashMap<PoolKey, Arc<Shared>>>,
    /// When the settings with which backends begin were changed last.
    renewed: AtomicU64,
    /// Guards what backends report, each once; locked when one is opened, and when one reports
    /// something else.
    defaults: Mutex<Vec<Arc<Defaults>>>,
    /// Who has backends out is the control plane's business, too.
    signals: Arc<Signals>,
    /// Where each shard hears that another waits for its idle backends.
    mailboxes: OnceLock<Box<[mpsc::Sender<Arc<Shared>>]>>,
}

/// Why a session got no backend.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// All are in use.
    #[error("no backend of {server} came free within {waited:?}; all {limit} are in use")]
    Exhausted {
        /// Of which server.
        server: Arc<str>,
        /// How many there may be.
        limit: u32,
        /// How long it was waited.
        waited: Duration,
    },
    /// A new one could not be opened.
    #[error("cannot open a backend of {server}: {error}")]
    Connect {
        /// Of which server.
        server: Arc<str>,
        /// Why.
        #[source]
        error: ConnectError,
    },
    /// There is no such server in this configuration.
    #[error("no such server")]
    NoSuchServer,
}

impl CheckoutError {
    /// Whether another try, or another server, would get the same answer.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Connect { error, .. } if error.is_final())
    }
}

impl Pools {
    /// No backends yet. `targets` are in the order of the [`ServerId`]s.
    pub fn new(
        policy: Policy,
        targets: Box<[Target]>,
        keyring: Arc<Keyring>,
        connect_timeout: Duration,
        (metrics, signals): (Arc<Metrics>, Arc<Signals>),
    ) -> Self {
        Self {
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            targets,
            keyring,
            connect_timeout,
            metrics,
            registry: Mutex::default(),
            renewed: AtomicU64::new(0),
            defaults: Mutex::default(),
            signals,
            mailboxes: OnceLock::new(),
        }
    }

    /// Tells every shard's mailbox; once, before the first check-out.
    pub fn set_mailboxes(&self, mailboxes: Box<[mpsc::Sender<Arc<Shared>>]>) {
        // A second call would find the same mailboxes: there is one set of shards.
        self.mailboxes.get_or_init(|| mailboxes);
    }

    /// What the operator chose. Shards ask [`ShardPools::policy`].
    pub fn policy(&self) -> Policy {
        **self.policy.load()
    }

    /// What the operator chose anew.
    pub fn set_policy(&self, policy: Policy) {
        let size = policy.size;
        self.policy.store(Arc::new(policy));
        for pool in self.all() {
            pool.set_limit(size);
        }
    }

    /// How a server is reached.
    pub fn target(&self, server: ServerId) -> Option<&Target> {
        self.targets.get(server.index())
    }

    /// How many servers there are.
    pub const fn servers(&self) -> usize {
        self.targets.len()
    }

    /// Checked-out backends of each server.
    pub fn loads(&self) -> impl Iterator<Item = u32> {
        let servers = (0_u16..).map(ServerId).take(self.targets.len());
        servers.map(|server| self.signals.load(server))
    }

    /// Every pool, for the metrics and `status`.
    pub fn all(&self) -> Vec<Arc<Shared>> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = registry.values().map(Arc::clone).collect();
        drop(registry);
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// Sessions of this user, or of all, in this database, or in all, begin with other settings
    /// since `at`: backends that were opened before are closed instead of being given to anybody.
    pub fn renew(&self, whose: (Option<&str>, Option<&str>), at: Moment) {
        self.renew_each(iter::once((whose, at)));
    }

    /// The same of many.
    pub fn renew_each<'a>(
        &self,
        told: impl Iterator<Item = ((Option<&'a str>, Option<&'a str>), Moment)>,
    ) {
        let mut told = told.peekable();
        let all = if told.peek().is_some() { self.all() } else { Vec::new() };
        for ((user, database), at) in told {
            let concerned = |key: &PoolKey| {
                user.is_none_or(|user| *key.user == *user)
                    && database.is_none_or(|database| *key.database == *database)
            };
            let mut found = false;
            for pool in all.iter().filter(|pool| concerned(&pool.key)) {
                pool.renew(at);
                found = true;
            }
            // Of somebody who never had a backend, or had none for so long that his pool was
            // forgotten, nobody has been told anything that is remembered.
            if found {
                self.note_change(at);
            }
        }
    }

    /// A session that begins now may have other settings than one that began before `at`.
    fn note_change(&self, at: Moment) {
        self.renewed.fetch_max(at.nanos(), Ordering::AcqRel);
    }

    /// When the settings of any were changed last.
    pub fn renewed(&self) -> Moment {
        Moment::from_nanos(self.renewed.load(Ordering::Acquire))
    }

    fn name(&self, server: ServerId) -> Arc<str> {
        self.target(server).map_or_else(|| Arc::from("?"), |target| Arc::clone(&target.name))
    }

    fn shared(&self, key: &PoolKey) -> Arc<Shared> {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.policy.load().size;
        let entry = registry.entry(key.clone());
        Arc::clone(entry.or_insert_with(|| Shared::new(key.clone(), limit)))
    }

    /// Forgets the pools that no shard knows any more.
    fn forget_unknown(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Each shard's part holds one, and each backend.
        registry.retain(|_, shared| Arc::strong_count(shared) > 1);
    }

    /// Asks the other shards for an idle backend.
    fn call_for(&self, shared: &Arc<Shared>, caller: usize) {
        let mailboxes = self.mailboxes.get().map_or(&[][..], |mailboxes| mailboxes);
        for (other, mailbox) in mailboxes.iter().enumerate() {
            if other != caller && mailbox.try_send(Arc::clone(shared)).is_err() {
                tracing::debug!(shard = other, "a full mailbox; its sweep will serve the waiter");
            }
        }
    }

    /// Opens a backend: logs in as the user, with what is known to prove it.
    async fn open(
        &self,
        key: &PoolKey,
        identity: Option<&Identity>,
    ) -> Result<(Backend, Target), CheckoutError> {
        let given = identity.into_iter().flat_map(Identity::params);
        let params = given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.open_for(key, Purpose { params, ..Purpose::default() }).await
    }

    /// The same for something else than a pool.
    async fn open_for(
        &self,
        key: &PoolKey,
        purpose: Purpose,
    ) -> Result<(Backend, Target), CheckoutError> {
        let target = self.target(key.server).ok_or(CheckoutError::NoSuchServer)?;
        let login = Login::new(&key.user, &key.database, self.keyring.secret_for(&key.user));
        let Purpose { replication, params } = purpose;
        let login = Login { replication, params, ..login };
        let started = clock::now();
        let _opening = self.metrics.backends.opening(key.server);
        let connected = backend::connect(target, &login, self.connect_timeout).await;
        let result = match &connected {
            Ok(_) => ConnectResult::Ok,
            Err(error) => result_of(error),
        };
        self.metrics.backends.connected(key.server, result, clock::now().since(started));
        match connected {
            Ok(backend) => Ok((backend, target.clone())),
            Err(error) => {
                if let ConnectError::LoginRefused(_) = &error {
                    self.keyring.forget_keys(&key.user);
                }
                let server = Arc::clone(&target.name);
                Err(CheckoutError::Connect { server, error })
            }
        }
    }

    /// A backend was closed.
    fn closed(&self, server: ServerId, reason: DisconnectReason) {
        self.metrics.backends.disconnected(server, reason);
    }
}

/// How an opening that failed counts.
fn result_of(error: &ConnectError) -> ConnectResult {
    match error.unseen() {
        Unseen::Refused => ConnectResult::Refused,
        Unseen::Silent => ConnectResult::Timeout,
        Unseen::LoginRefused => ConnectResult::Auth,
        Unseen::Tls => ConnectResult::Tls,
        Unseen::Full => ConnectResult::TooMany,
        Unseen::NotYet
        | Unseen::Broken
        | Unseen::Unresolved
        | Unseen::NotReady
        | Unseen::NotPostgres
        | Unseen::QueryFailed => ConnectResult::Error,
    }
}
