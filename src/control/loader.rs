//! Keeps the catalogs of the databases in use: reads them, notices changes, reads them again.
//!
//! One task a database. While a catalog is published, its fingerprint is compared every second;
//! one that changed is taken down first and read again then, so that no statement is judged by
//! it any longer. A database that nobody asked for in a while is forgotten.
//!
//! Invariant: a catalog that could not be compared for [`TRUSTED_MAX`] is taken down, unless no
//! server answers at all; then nothing can change it either.

use crate::backend::{SslMode, TlsPolicy};
use crate::clock;
use crate::clock::Moment;
use crate::control::catalog;
use crate::control::config::{APPLICATION_NAME, ControlConfig, LiveControl};
use crate::control::desk::Desk;
use crate::sql::Catalog;
use crate::tasks;
use crate::topology::ServerId;
use crate::topology::Signals;
use arc_swap::ArcSwap;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Between two comparisons of a catalog with its server.
const COMPARE: Duration = Duration::from_secs(1);

/// Between two attempts that failed.
const RETRY: Duration = Duration::from_millis(250);

/// Longest time for reading one catalog.
const LOAD_MAX: Duration = Duration::from_secs(30);

/// Longest time for connecting, and for comparing.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A catalog that could not be compared for so long is not relied on.
const TRUSTED_MAX: Duration = Duration::from_secs(5);

/// A database is forgotten so long after it was asked for; one that is in use is asked for anew
/// by its next statement. Until then our connection keeps it from being dropped, as an idle
/// backend does for as long (`pool.idle_timeout`).
const FORGET: Duration = Duration::from_mins(10);

/// Most databases whose catalogs are kept.
const DATABASES_MAX: usize = 256;

/// What a loader needs.
pub(crate) struct Loader {
    pub(crate) config: Arc<ControlConfig>,
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
        loop {
            wanted.retain(|_, poke| Arc::strong_count(poke) > 1);
            for database in self.signals.take_catalogs() {
                if let Some(poke) = wanted.get(&database) {
                    poke.notify_one();
                } else if wanted.len() < DATABASES_MAX {
                    wanted.insert(Arc::clone(&database), self.start(database));
                } else {
                    warn!(%database, "too many databases: its functions are not known");
                }
            }
            self.poke.notified().await;
        }
    }

    fn start(&self, database: Arc<str>) -> Arc<Notify> {
        let poke = Arc::new(Notify::new());
        let keeper = Keeper {
            database,
            config: Arc::clone(&self.config),
            live: Arc::clone(&self.live),
            desk: Arc::clone(&self.desk),
            poke: Arc::clone(&poke),
            connection: None,
            published: None,
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

/// Keeps one database's catalog.
struct Keeper {
    database: Arc<str>,
    config: Arc<ControlConfig>,
    live: Arc<ArcSwap<LiveControl>>,
    desk: Arc<Desk>,
    poke: Arc<Notify>,
    connection: Option<(ServerId, PgConnection)>,
    published: Option<Arc<Catalog>>,
    /// When the catalog was last read or found unchanged.
    compared: Moment,
}

impl Keeper {
    async fn run(mut self) {
        let mut asked = clock::now();
        while clock::now().since(asked) < FORGET {
            let pause = match self.round().await {
                Ok(()) => COMPARE,
                Err(error) => {
                    debug!(database = %self.database, %error, "catalog not read");
                    self.connection = None;
                    self.distrust();
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.poke.notified() => asked = clock::now(),
            }
        }
        self.publish(None);
    }

    /// Compares, and reads again what changed.
    async fn round(&mut self) -> Result<(), LoadError> {
        self.connect().await?;
        let Some((_, connection)) = &mut self.connection else { return Ok(()) };
        let current = tokio::time::timeout(ANSWER_MAX, catalog::fingerprint(connection)).await??;
        let lists = self.live.load().lists.clone();
        if let Some(published) = &self.published
            && published.fingerprint() == current
            && *published.lists() == lists
        {
            self.compared = clock::now();
            return Ok(());
        }
        let changed = self.published.is_some();
        self.publish(None);
        let Some((_, connection)) = &mut self.connection else { return Ok(()) };
        let loaded = tokio::time::timeout(LOAD_MAX, catalog::load(connection, lists)).await??;
        self.compared = clock::now();
        info!(event = "catalog", database = %self.database, changed, "catalog read");
        self.publish(Some(Arc::new(loaded)));
        Ok(())
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
        let connection = tokio::time::timeout(ANSWER_MAX, connecting).await??;
        self.connection = Some((server, connection));
        Ok(())
    }

    fn options(&self, server: ServerId) -> Option<PgConnectOptions> {
        let server = self.config.servers.get(server.index())?;
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(server.port)
            .username(&self.config.user)
            .database(&self.database)
            .application_name(APPLICATION_NAME)
            .ssl_mode(ssl_mode(&self.config.tls))
            .statement_cache_capacity(0)
            .options([("statement_timeout", "30s"), ("lock_timeout", "5s")])
            .disable_statement_logging();
        options = if server.host.starts_with('/') {
            options.socket(&*server.host)
        } else {
            options.host(&server.host)
        };
        if let Some(authority) = &self.config.tls.root_cert {
            options = options.ssl_root_cert(authority);
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

/// Why a catalog is not known.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("no server answers")]
    NoServer,
    #[error(transparent)]
    Connect(#[from] sqlx::Error),
    #[error(transparent)]
    Read(#[from] catalog::CatalogError),
    #[error("no answer in time")]
    Silent(#[from] tokio::time::error::Elapsed),
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
