//! Keeps the catalogs of the databases in use: reads them, notices changes, reads them again.
//!
//! One task a database. While a catalog is published, its fingerprint is compared every second.
//! One that changed is read again, and stays up while that is a matter of milliseconds: to take
//! it down first would send every read to the primary whenever a table is created. A database
//! that nobody used in a while is forgotten; one in use never is.
//!
//! The connection stands, so that a server's log is not filled with ours, and gets out of the
//! way: whoever wants to drop or to rename the database waits a few seconds for its connections
//! to end, and is seen waiting.
//!
//! Invariants:
//! - A catalog that was found to be out of date is relied on for [`REREAD_MAX`] more at most.
//! - A catalog that could not be compared for [`TRUSTED_MAX`] is taken down, unless no server
//!   answers at all; then nothing can change it either.

use crate::backend::{SslMode, TlsPolicy};
use crate::clock;
use crate::clock::Moment;
use crate::control::catalog;
use crate::control::catalog::CatalogError;
use crate::control::config::{ControlConfig, LiveControl};
use crate::control::desk::Desk;
use crate::control::fold::Vacancy;
use crate::failover::Instance;
use crate::pg::{SEARCH_PATH, SqlState};
use crate::sql::Catalog;
use crate::sql::FunctionLists;
use crate::tasks;
use crate::timer;
use crate::topology::ServerId;
use crate::topology::Signals;
use arc_swap::ArcSwap;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Between two comparisons of a catalog with its server.
const COMPARE: Duration = Duration::from_secs(1);

/// Between two attempts that failed.
const RETRY: Duration = Duration::from_millis(250);

/// Longest wait for a lock, as a setting. To tell what a view reads, a server locks it; who changes
/// several of these tables may wait for us while we wait for him. We give way long before a server
/// looks for a deadlock (`deadlock_timeout`, 1 s) and ends him.
const LOCK_MAX: &str = "100ms";

/// Longest time for reading one catalog.
const LOAD_MAX: Duration = Duration::from_secs(30);

/// Longest time for connecting, and for comparing.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A catalog that could not be compared for so long is not relied on.
const TRUSTED_MAX: Duration = Duration::from_secs(5);

/// How long a catalog that has changed is relied on while it is read again. A thousand objects
/// take some 20 ms; a change is noticed only within a second anyway.
const REREAD_MAX: Duration = Duration::from_millis(500);

/// A database is forgotten so long after its last statement.
const FORGET: Duration = Duration::from_mins(10);

/// How long we stay away from a database that somebody wants for himself: long enough for every
/// shard to close its idle backends, which it looks after every second. PostgreSQL waits for 5 s
/// (`CountOtherDBBackends` in `storage/ipc/procarray.c`), and lets nobody in meanwhile.
const ASIDE: Duration = Duration::from_secs(2);

/// Who a role is that may connect no more.
const NOBODY: i64 = 0;

/// Most databases whose catalogs are kept.
const DATABASES_MAX: usize = 256;

/// What a loader needs.
pub(crate) struct Loader {
    pub(crate) config: Arc<ControlConfig>,
    pub(crate) instance: Instance,
    pub(crate) live: Arc<ArcSwap<LiveControl>>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) signals: Arc<Signals>,
    /// Rung when there may be wishes.
    pub(crate) poke: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
}

impl Loader {
    /// Starts a task for every database that is wanted.
    pub(crate) async fn run(self) {
        let mut wanted: BTreeMap<Arc<str>, Arc<Notify>> = BTreeMap::new();
        let mut told = Told::No;
        loop {
            wanted.retain(|_, poke| Arc::strong_count(poke) > 1);
            if wanted.len() < DATABASES_MAX {
                told = Told::No;
            }
            for (database, since) in self.signals.take_catalogs() {
                if let Some(poke) = wanted.get(&database) {
                    poke.notify_one();
                } else if wanted.len() < DATABASES_MAX {
                    wanted.insert(Arc::clone(&database), self.start(database, since));
                } else if std::mem::replace(&mut told, Told::Yes) == Told::No {
                    warn!(%database, "too many databases: its functions are not known");
                }
            }
            self.poke.notified().await;
        }
    }

    fn start(&self, database: Arc<str>, since: Moment) -> Arc<Notify> {
        let poke = Arc::new(Notify::new());
        let keeper = Keeper {
            database,
            config: Arc::clone(&self.config),
            instance: self.instance,
            live: Arc::clone(&self.live),
            desk: Arc::clone(&self.desk),
            poke: Arc::clone(&poke),
            connection: None,
            published: None,
            defaults: None,
            admitted: None,
            since,
            compared: clock::now(),
        };
        let ending = self.shutdown.clone();
        // The task ends by itself, or with everything else.
        drop(tasks::spawn("catalog", async move {
            tokio::select! {
                () = ending.cancelled() => {}
                () = keeper.run() => {}
            }
        }));
        poke
    }
}

/// Whether it was said that there are too many databases: each statement in one that is left out
/// asks again.
#[derive(PartialEq, Eq)]
enum Told {
    No,
    Yes,
}

/// Keeps one database's catalog.
struct Keeper {
    database: Arc<str>,
    config: Arc<ControlConfig>,
    instance: Instance,
    live: Arc<ArcSwap<LiveControl>>,
    desk: Arc<Desk>,
    poke: Arc<Notify>,
    connection: Option<(ServerId, PgConnection)>,
    published: Option<Arc<Catalog>>,
    /// With which settings roles begin, when it was asked last.
    defaults: Option<BTreeMap<String, String>>,
    /// Who might connect when it was asked last, and by what a change of that is seen.
    admitted: Option<(String, BTreeMap<String, i64>)>,
    /// Since when it is wanted. What was opened before may be as it was at any time.
    since: Moment,
    /// When the catalog was last read or found unchanged.
    compared: Moment,
}

/// What came of a round.
enum Round {
    /// The catalog is known, as it is now.
    Current,
    /// Somebody wants the database for himself; we have left it.
    Aside,
}

impl Keeper {
    async fn run(mut self) {
        let mut used = clock::now();
        while clock::now().since(used) < FORGET {
            let pause = match self.round().await {
                Ok(Round::Current) => COMPARE,
                Ok(Round::Aside) => {
                    self.stand_aside().await;
                    Duration::ZERO
                }
                Err(error) if error.is_gone() => break,
                Err(error) => {
                    debug!(database = %self.database, %error, "catalog not read");
                    self.connection = None;
                    self.distrust();
                    // Not again and again in the way of who waits for what we hold.
                    if error.is_locked_out() { COMPARE } else { RETRY }
                }
            };
            tokio::select! {
                () = timer::sleep(pause) => {}
                () = self.poke.notified() => used = clock::now(),
            }
            if self.published.as_ref().is_some_and(|catalog| catalog.take_use()) {
                used = clock::now();
            }
        }
        self.publish(None);
    }

    /// Compares, and reads again what changed.
    async fn round(&mut self) -> Result<Round, LoadError> {
        self.connect().await?;
        // Given back only when all went well: one that was left half-way is of no more use.
        let Some((server, mut connection)) = self.connection.take() else {
            return Err(LoadError::NoServer);
        };
        let looking = catalog::somebody_waits(&mut connection);
        if timer::timeout(ANSWER_MAX, looking).await?? {
            return Ok(Round::Aside);
        }
        let asking = catalog::defaults(&mut connection);
        let defaults = timer::timeout(ANSWER_MAX, asking).await??;
        self.compare_defaults(defaults);
        let comparing = self.compare_admission(&mut connection);
        timer::timeout(ANSWER_MAX, comparing).await??;
        let comparing = catalog::fingerprint(&mut connection);
        let current = timer::timeout(ANSWER_MAX, comparing).await??;
        let lists = self.live.load().lists.clone();
        let known = self.published.as_ref();
        if known.is_some_and(|known| known.fingerprint() == current && *known.lists() == lists) {
            self.compared = clock::now();
        } else {
            self.read(&mut connection, lists).await?;
        }
        self.connection = Some((server, connection));
        Ok(Round::Current)
    }

    /// Has the backends of those renewed that begin with other settings by now.
    fn compare_defaults(&mut self, current: BTreeMap<String, String>) {
        if let Some(known) = &self.defaults {
            let both = known.keys().chain(current.keys());
            let changed: BTreeSet<&String> =
                both.filter(|role| known.get(*role) != current.get(*role)).collect();
            if !changed.is_empty() {
                let roles = changed.into_iter().map(|role| role.as_str().into()).collect();
                self.desk.renew(&self.database, roles, clock::now());
            }
        }
        self.defaults = Some(current);
    }

    /// Has the backends of those closed who may connect no more, or who are somebody else by now:
    /// a server asks for the right when a backend is opened, and not when one is used again. At the
    /// first look that may be anybody, and the settings with which he begins may be others, too.
    async fn compare_admission(&mut self, connection: &mut PgConnection) -> Result<(), LoadError> {
        let begun = clock::now();
        let admission = catalog::admission(connection).await?;
        if self.admitted.as_ref().is_some_and(|(known, _)| *known == admission) {
            return Ok(());
        }
        let mut current = catalog::admitted(connection).await?;
        if let Some((_, known)) = self.admitted.take() {
            let other = known.into_iter().filter(|(role, who)| current.get(role) != Some(who));
            let other: BTreeMap<_, _> = other.collect();
            if !other.is_empty() {
                let roles = other.keys().map(|role| role.as_str().into()).collect();
                self.desk.renew(&self.database, roles, clock::now());
            }
            // One that was let in again may have been shut out again before this look.
            for (role, _) in other.into_iter().filter(|(_, who)| *who != NOBODY) {
                current.entry(role).or_insert(NOBODY);
            }
        } else {
            let roles = vec!["".into()];
            self.desk.renew(&self.database, roles, unwatched_until(self.since, begun));
        }
        self.admitted = Some((admission, current));
        Ok(())
    }

    async fn read(
        &mut self,
        connection: &mut PgConnection,
        lists: FunctionLists,
    ) -> Result<(), LoadError> {
        let changed = self.published.is_some();
        let started = clock::now();
        let mut loading = std::pin::pin!(catalog::load(connection, lists));
        let soon = timer::timeout(REREAD_MAX, &mut loading).await;
        let loaded = if let Ok(loaded) = soon {
            loaded?
        } else {
            self.publish(None);
            timer::timeout(LOAD_MAX, loading).await??
        };
        // What is read may change at once: it is as old as the question.
        self.compared = started;
        let took = clock::now().since(started);
        info!(event = "catalog", database = %self.database, changed, ?took, "catalog read");
        self.publish(Some(Arc::new(loaded)));
        Ok(())
    }

    /// Stays away from the database, and has the idle backends in it closed.
    async fn stand_aside(&self) {
        info!(
            event = "aside",
            database = %self.database,
            "somebody wants the database for himself: idle backends in it are closed"
        );
        self.desk.vacate(&self.database, Vacancy::Wanted);
        timer::sleep(ASIDE).await;
        self.desk.vacate(&self.database, Vacancy::NotWanted);
    }

    /// A connection to the primary, or to a standby while there is none.
    async fn connect(&mut self) -> Result<(), LoadError> {
        let topology = self.desk.topology();
        let standby = || {
            let mut servers = topology.servers.iter();
            servers.find(|server| server.reads.is_ok()).map(|server| server.id)
        };
        let server = topology.writable().or_else(standby).ok_or(LoadError::NoServer)?;
        if self.connection.as_ref().is_some_and(|(connected, _)| *connected == server) {
            return Ok(());
        }
        self.connection = None;
        let options = self.options(server).ok_or(LoadError::NoServer)?;
        let connecting = PgConnection::connect_with(&options);
        let connection = timer::timeout(ANSWER_MAX, connecting).await??;
        self.connection = Some((server, connection));
        Ok(())
    }

    fn options(&self, server: ServerId) -> Option<PgConnectOptions> {
        let server = self.config.servers.get(server.index())?;
        let tls = self.config.tls.policy();
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(server.port)
            .username(&self.config.user)
            .database(&self.database)
            .application_name(&self.instance.watching_name())
            .ssl_mode(ssl_mode(tls))
            .statement_cache_capacity(0)
            .options([
                ("search_path", SEARCH_PATH),
                ("statement_timeout", "30s"),
                ("lock_timeout", LOCK_MAX),
            ])
            .disable_statement_logging();
        options = if server.host.starts_with('/') {
            options.socket(&*server.host)
        } else {
            options.host(&server.host)
        };
        if let Some(authority) = &tls.root_cert {
            options = options.ssl_root_cert(authority);
        }
        if let Some(identity) = &tls.identity {
            let shown = options.ssl_client_cert(&identity.certificate);
            options = shown.ssl_client_key(&identity.key);
        }
        if let Some(password) = &server.password {
            options = options.password(password.reveal());
        }
        Some(options)
    }

    /// Takes down what could not be compared for too long.
    fn distrust(&mut self) {
        let old = clock::now().since(self.compared) > TRUSTED_MAX;
        let alone = self.desk.topology().servers.iter().all(|s| s.observation().is_none());
        if self.published.is_some() && old && !alone {
            warn!(event = "catalog", database = %self.database, "catalog can't be compared");
            self.publish(None);
        }
    }

    fn publish(&mut self, catalog: Option<Arc<Catalog>>) {
        if self.published.is_some() || catalog.is_some() {
            self.desk.catalog(&self.database, catalog.clone());
        }
        self.published = catalog;
    }
}

/// Until when nobody has watched a database that is wanted since `since`, and was first looked at
/// in a round that was `begun` then. There is nothing to compare that look with, so backends of
/// before are not relied on. Whoever has a database looked at does so by opening the first backend
/// there, which is to be of use for more than a moment: if the look came soon, it counts as
/// watched.
fn unwatched_until(since: Moment, begun: Moment) -> Moment {
    const INSTANT: Duration = Duration::from_nanos(1);
    if begun.since(since) < ANSWER_MAX { since - INSTANT } else { begun }
}

/// Why a catalog is not known.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("no server answers")]
    NoServer,
    #[error(transparent)]
    Connect(#[from] sqlx::Error),
    #[error(transparent)]
    Read(#[from] CatalogError),
    #[error("no answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
}

impl LoadError {
    /// Whether there is no such database, or no more.
    fn is_gone(&self) -> bool {
        let code = match self {
            Self::Connect(sqlx::Error::Database(error)) => error.code(),
            Self::NoServer | Self::Connect(_) | Self::Read(_) | Self::Silent(_) => None,
        };
        code.is_some_and(|code| *code == *SqlState::INVALID_CATALOG_NAME.as_str())
    }

    /// Whether somebody else has locked what is to be read.
    fn is_locked_out(&self) -> bool {
        let code = match self {
            Self::Read(CatalogError::Query(sqlx::Error::Database(error))) => error.code(),
            Self::NoServer | Self::Connect(_) | Self::Read(_) | Self::Silent(_) => None,
        };
        code.is_some_and(|code| *code == *SqlState::LOCK_NOT_AVAILABLE.as_str())
    }
}

const fn ssl_mode(tls: &TlsPolicy) -> PgSslMode {
    match tls.mode {
        SslMode::Disable => PgSslMode::Disable,
        SslMode::Allow => PgSslMode::Allow,
        SslMode::Prefer => PgSslMode::Prefer,
        SslMode::Require => PgSslMode::Require,
        SslMode::VerifyCa => PgSslMode::VerifyCa,
        SslMode::VerifyFull => PgSslMode::VerifyFull,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_before_anybody_looked_is_not_relied_on() {
        const WANTED: Moment = Moment::from_nanos(1_000_000_000_000);
        let late = WANTED + ANSWER_MAX;
        for (begun, until, what) in [
            (WANTED, WANTED - Duration::from_nanos(1), "at once"),
            (WANTED + COMPARE, WANTED - Duration::from_nanos(1), "soon"),
            (late, late, "no server answered for a while"),
            (late + FORGET, late + FORGET, "nor for long"),
        ] {
            assert_eq!(unwatched_until(WANTED, begun), until, "{what}");
        }
    }
}
