//! The parts of a running proxy, in the order in which they are built.

use crate::admin::{AdminError, Health, Listening, Operators, Shown, Sources};
use crate::auth::{Failures, Keyring, UserlistError};
use crate::backend;
use crate::backend::{Login, LoginSecret, Lookup, Security, Target};
use crate::board::Board;
use crate::clock;
use crate::config::{ClientTlsMode, Config, Limits, ListenAt, ServerConfig};
use crate::control;
use crate::control::{Bell, Control, ControlConfig, Links, LiveControl, WatchedServer};
use crate::frontend;
use crate::frontend::login::{Gate, Plaintext};
use crate::frontend::{Cancels, Inlet, Live, Peers};
use crate::metrics::{BackendState, Build, Metrics, Reload};
use crate::net::{BindError, Listener, TlsError};
use crate::notifications::Listeners;
use crate::pg::SEARCH_PATH;
use crate::pool::Pools;
use crate::proxy::accept::Doors;
use crate::proxy::explain::explainer;
use crate::proxy::files::{client_tls, userlist};
use crate::proxy::shard;
use crate::proxy::shard::Inlets;
use crate::proxy::state::{State, salts};
use crate::session::{Library, Shapes};
use crate::sql::FunctionLists;
use crate::store::Store;
use crate::tasks;
use crate::timer;
use crate::topology::{Seen, Server, ServerId, Topology, Unfit, Unseen};
use crate::vital::Vital;
use arc_swap::ArcSwap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A proxy that serves.
#[derive(Debug)]
pub(super) struct Parts {
    shared: Arc<frontend::Shared>,
    /// How the servers are reached, by all parts.
    security: Security,
    control: Control,
    health: Arc<Health>,
    shards: Vec<JoinHandle<()>>,
    addresses: Vec<String>,
    http: Option<SocketAddr>,
    shown: Arc<ArcSwap<Shown>>,
    /// The configuration, as commands are told it.
    settings: Arc<ArcSwap<String>>,
    /// Ends the acceptors.
    accepting: CancellationToken,
    /// Ends the shards and the control plane.
    serving: CancellationToken,
}

/// Why the proxy could not be started, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address can't be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The metrics could not be registered.
    #[error("the metrics could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The HTTP port could not be taken.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The control plane could not be started.
    #[error(transparent)]
    Control(#[from] control::StartError),
    /// The users' file can't be read.
    #[error("{path}: {source} (auth.file)")]
    UserlistRead {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The users' file says something that can't be understood.
    #[error("{path}:{source} (auth.file)")]
    Userlist {
        /// Which file.
        path: PathBuf,
        /// Where, and what.
        source: UserlistError,
    },
    /// A thread could not be started, or the system failed us.
    #[error("the system failed: {0}")]
    System(#[from] io::Error),
    /// It ran, until a part ended by a defect.
    #[error("a part has ended that pgsteer can't do without; the log names it")]
    Failed,
}

impl RunError {
    /// Whether the configuration, or a file that it names, has to be mended first: another start
    /// would fail in the same way.
    pub const fn is_configured(&self) -> bool {
        match self {
            Self::Tls(_) | Self::UserlistRead { .. } | Self::Userlist { .. } => true,
            Self::Bind(_)
            | Self::Metrics(_)
            | Self::Admin(_)
            | Self::Control(_)
            | Self::System(_)
            | Self::Failed => false,
        }
    }
}

/// By which a server's own views know the connections that listen for sessions.
const LISTENER_NAME: &str = "pgsteer listener";
/// Longest wait for a server to take a login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks at who is still there while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// Permissions of a unix socket: as PostgreSQL's own, anybody may connect and must log in.
const SOCKET_MODE: u32 = 0o777;

impl Parts {
    /// Builds everything; when it returns, clients can connect.
    ///
    /// # Errors
    /// [`RunError`]; nothing is left running.
    pub(super) async fn build(config: &Config) -> Result<Self, RunError> {
        let http = match config.http {
            Some(address) => Some(Listening::bind(address).await?),
            None => None,
        };
        let listeners = listen(config)?;
        let addresses = listeners.iter().map(|(address, ..)| address.clone()).collect();
        let links = links(config)?;
        let security = Security::load(config.server_tls.clone())?;
        let shared = Arc::new(shared(config, &links, &security)?);
        show_pools(&shared);
        show_config(&shared, config);
        let accepting = CancellationToken::new();
        let serving = CancellationToken::new();
        let state = State::open(config);
        let control =
            Control::start(control_config(config, &security, state.store), &links, &serving)?;
        let health = Arc::new(Health::new(shard_count(&config.limits)));
        let (shards, doors) = start_shards(&shared, &config.limits, (&health, &serving))?;
        let shown = Arc::new(ArcSwap::from_pointee(shown(config)));
        let settings = Arc::new(ArcSwap::from_pointee(config.told()));
        let operators = Operators {
            steward: control.steward(),
            token: state.token,
            settings: Arc::clone(&settings),
        };
        let http =
            http.map(|http| start_http(http, (&shared, &health), (&shown, operators), &serving));
        for (number, (address, listener, inlet)) in listeners.into_iter().enumerate() {
            let opened = doors.open(number, (listener, inlet), accepting.clone());
            opened.await.map_err(|source| BindError::Io { address, source })?;
        }
        health.listening();
        Ok(Self {
            shared,
            security,
            control,
            health,
            shards,
            addresses,
            http,
            shown,
            settings,
            accepting,
            serving,
        })
    }

    /// Where clients connect.
    pub(super) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Where HTTP is answered.
    pub(super) fn http(&self) -> Option<String> {
        self.http.map(|http| http.to_string())
    }

    /// How many threads serve.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What tells that a part has ended that can't be done without.
    pub(super) fn vital(&self) -> Vital {
        self.shared.vital.clone()
    }

    /// Takes over what a reload may change, all of it or, with an error, nothing.
    pub(super) fn apply(&self, config: &Config) -> Result<(), RunError> {
        let file = userlist(config)?;
        let targets = targets(config, &self.security);
        let failures = Arc::clone(&self.shared.gate.load().failures);
        let gate = gate(config, (&self.shared.keyring, &failures), &targets, &self.shared.board)?;
        // The last that can fail.
        self.shared.cancels.reload()?;
        self.security.reload()?;
        self.shared.keyring.replace_file(file);
        self.shared.gate.store(Arc::new(gate));
        self.shared.live.store(Arc::new(live(config)));
        self.shared.pools.set_policy(config.pool);
        self.shown.store(Arc::new(shown(config)));
        self.settings.store(Arc::new(config.told()));
        self.control.adjust(live_control(config));
        self.shared.metrics.reloaded(Reload::TakenOver);
        show_config(&self.shared, config);
        Ok(())
    }

    /// A reload failed.
    pub(super) fn reload_failed(&self) {
        self.shared.metrics.reloaded(Reload::Refused);
    }

    /// Lets clients finish: goes on accepting for `delay`, so that load balancers notice, then
    /// ends sessions as they become idle, for `timeout` at most. How many are left.
    pub(super) async fn drain(&self, delay: Duration, timeout: Duration) -> u32 {
        self.shared.metrics.drain();
        self.health.draining();
        timer::sleep(delay).await;
        self.accepting.cancel();
        self.shared.drain.cancel();
        let left = || self.shared.clients.load(Ordering::Relaxed);
        let waited = timer::timeout(timeout, async {
            while left() > 0 {
                timer::sleep(DRAIN_LOOK).await;
            }
        });
        if waited.await.is_ok() { 0 } else { left() }
    }

    /// Ends what is left.
    pub(super) async fn stop(self) {
        self.accepting.cancel();
        self.serving.cancel();
        for shard in self.shards {
            let joined = tokio::task::spawn_blocking(move || shard.join());
            if !matches!(joined.await, Ok(Ok(()))) {
                tracing::error!("a shard did not end as it should");
            }
        }
    }
}

fn listen(config: &Config) -> Result<Vec<(String, Listener, Inlet)>, RunError> {
    let mut listeners = Vec::new();
    for listen in &config.listen {
        let listener = match &listen.at {
            ListenAt::Tcp(address) => Listener::tcp(*address)?,
            ListenAt::Unix { directory, port } => Listener::unix(directory, *port, SOCKET_MODE)?,
        };
        let address = match (listener.local_addr(), &listen.at) {
            (Some(address), _) => address.to_string(),
            (None, ListenAt::Tcp(address)) => address.to_string(),
            (None, ListenAt::Unix { directory, port }) => {
                format!("{}/.s.PGSQL.{port}", directory.display())
            }
        };
        let inlet = Inlet { name: listen.at.to_string().into(), role: listen.role };
        listeners.push((address, listener, inlet));
    }
    Ok(listeners)
}

fn shared(
    config: &Config,
    links: &Links,
    security: &Security,
) -> Result<frontend::Shared, RunError> {
    let targets = targets(config, security);
    let keyring = Arc::new(Keyring::new(userlist(config)?, salts(config)?));
    let gate = gate(config, (&keyring, &Arc::default()), &targets, &links.board)?;
    let logins = config.servers.iter().map(|server| {
        let mut login = control_login(config, server);
        login.params.push(("application_name".to_owned(), LISTENER_NAME.to_owned()));
        login
    });
    let listening = targets.iter().cloned().zip(logins).collect();
    let listeners = Listeners::new(listening, Arc::clone(&links.board))?;
    let pools = Pools::new(
        config.pool,
        targets.into_boxed_slice(),
        Arc::clone(&keyring),
        CONNECT_TIMEOUT,
        (Arc::clone(&links.metrics), Arc::clone(&links.signals)),
    );
    Ok(frontend::Shared {
        board: Arc::clone(&links.board),
        signals: Arc::clone(&links.signals),
        pools: Arc::new(pools),
        library: Library::default(),
        shapes: Shapes::default(),
        cancels: Arc::new(match &config.peers {
            Some(peers) => Cancels::among(Peers::new(peers.own, &peers.all, peers.tls.clone())?),
            None => Cancels::new(backend::random()?),
        }),
        metrics: Arc::clone(&links.metrics),
        gate: ArcSwap::from_pointee(gate),
        listeners,
        keyring,
        live: Arc::new(ArcSwap::from_pointee(live(config))),
        held_bytes: AtomicU64::new(0),
        counts: Arc::default(),
        clients: AtomicU32::new(0),
        spare_places: frontend::Shared::all_spare_places(),
        drain: CancellationToken::new(),
        vital: links.vital.clone(),
    })
}

/// The policies of the data plane that a reload can change.
fn live(config: &Config) -> Live {
    Live { routing: config.routing.clone(), limits: Arc::clone(&config.limits.rules) }
}

/// Brings the pools' figures into the metrics whenever they are read.
fn show_pools(shared: &Arc<frontend::Shared>) {
    let pools = Arc::clone(&shared.pools);
    let all = Arc::downgrade(shared);
    shared.metrics.before_exposition(Box::new(move |metrics| {
        let held = all.upgrade().map_or(0, |shared| shared.held_bytes.load(Ordering::Relaxed));
        metrics.clients.held_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
        metrics.clients.limit.set(i64::from(pools.policy().max_clients));
        let all = pools.all();
        for (server, load) in (0_u16..).zip(pools.loads()) {
            let server = ServerId(server);
            let of_server = all.iter().filter(|pool| pool.key.server == server);
            let (open, limit) = of_server.fold((0, 0), |(open, limit), pool| {
                (open + i64::from(pool.open()), limit + i64::from(pool.limit()))
            });
            let active = i64::from(load);
            metrics.backends.set(server, BackendState::Active, active);
            let login = metrics.backends.count(server, BackendState::Login);
            metrics.backends.set(server, BackendState::Idle, (open - active - login).max(0));
            metrics.backends.set_limit(server, limit);
        }
        let now = clock::now();
        let waits = all.iter().filter_map(|pool| pool.oldest()).map(|since| now.since(since));
        metrics.clients.set_oldest_wait(waits.max().unwrap_or_default());
    }));
}

/// Brings what is in use into the metrics.
fn show_config(shared: &frontend::Shared, config: &Config) {
    shared.metrics.configured(&config.fingerprint());
    let gate = shared.gate.load();
    shared.metrics.secured(gate.tls.as_ref().and_then(|tls| tls.valid_until()));
}

/// Answers over HTTP from now on.
fn start_http(
    http: Listening,
    (shared, health): (&Arc<frontend::Shared>, &Arc<Health>),
    (shown, operators): (&Arc<ArcSwap<Shown>>, Operators),
    stop: &CancellationToken,
) -> SocketAddr {
    let address = http.address();
    let sources = Arc::new(Sources {
        board: Arc::clone(&shared.board),
        metrics: Arc::clone(&shared.metrics),
        health: Arc::clone(health),
        shown: Arc::clone(shown),
        explain: explainer(shared, &shared.live),
        operators,
    });
    tasks::spawn("http", http.serve(sources, stop.clone()));
    address
}

/// The settings that the status names.
fn shown(config: &Config) -> Shown {
    Shown { consistency: config.routing.consistency, max_lag: config.routing.max_lag }
}

/// What joins the planes.
fn links(config: &Config) -> Result<Links, RunError> {
    let names: Vec<_> = config.servers.iter().map(|server| Arc::clone(&server.name)).collect();
    let metrics = Arc::new(Metrics::new(&names, Build::default())?);
    let (bell, signals) = Bell::with_signals();
    let board = Arc::new(Board::new(Topology::unseen(servers(config))));
    Ok(Links { board, signals, bell, metrics, vital: Vital::default() })
}

/// How clients log in.
pub(super) fn gate(
    config: &Config,
    (keyring, failures): (&Arc<Keyring>, &Arc<Failures>),
    targets: &[Target],
    board: &Arc<Board>,
) -> Result<Gate, RunError> {
    let lookup = config.auth.query.as_ref().map(|query| {
        let logins = config.servers.iter().map(|server| control_login(config, server));
        let servers = targets.iter().cloned().zip(logins).collect();
        Arc::new(Lookup::new(servers, query.clone(), Arc::clone(board)))
    });
    Ok(Gate {
        access: config.auth.access.clone(),
        keyring: Arc::clone(keyring),
        lookup,
        lookup_age_max: config.auth.query_cache,
        tls: client_tls(config)?,
        plaintext: match config.tls.as_ref().map(|tls| tls.mode) {
            Some(ClientTlsMode::Require) => Plaintext::Refused,
            Some(ClientTlsMode::Prefer) | None => Plaintext::Allowed,
        },
        timeout: config.limits.login_timeout,
        failures: Arc::clone(failures),
        failure_delay: config.limits.login_failure_delay,
    })
}

/// How the control user logs in to a server to ask for verifiers, or to listen.
fn control_login(config: &Config, server: &ServerConfig) -> Login {
    let password = config.password_for(server);
    let secret = password.map_or(LoginSecret::None, |it| LoginSecret::Password(it.clone().into()));
    let mut login = Login::new(&config.control_login.user, &config.control_login.database, secret);
    // Not the role's or the database's, which others may have set.
    login.params.push(("search_path".to_owned(), SEARCH_PATH.to_owned()));
    login
}

/// What the control plane is told.
pub(crate) fn control_config(
    config: &Config,
    security: &Security,
    store: Result<Store, Arc<str>>,
) -> ControlConfig {
    let watched = |server: &ServerConfig| WatchedServer {
        name: Arc::clone(&server.name),
        host: Arc::clone(&server.host),
        port: server.port,
        password: config.password_for(server).cloned(),
        replication_address: server.replication_address.clone(),
        priority: server.priority,
    };
    ControlConfig {
        servers: config.servers.iter().map(watched).collect(),
        tls: security.clone(),
        user: config.control_login.user.clone(),
        database: config.control_login.database.clone(),
        store,
        live: live_control(config),
    }
}

/// What a reload can change for the control plane.
pub(super) fn live_control(config: &Config) -> LiveControl {
    LiveControl {
        policy: config.control.clone(),
        failover: config.failover.clone(),
        weights: config.servers.iter().map(|server| server.weight).collect(),
        lists: FunctionLists::new(&config.routing.read_functions, &config.routing.write_functions),
    }
}

fn targets(config: &Config, security: &Security) -> Vec<Target> {
    let numbered = (0_u16..).zip(&config.servers);
    let target = |(id, server): (u16, &ServerConfig)| {
        Target::new(ServerId(id), &server.name, &server.host, server.port, security)
    };
    numbered.map(target).collect()
}

/// The configured servers, of which nothing is known yet.
fn servers(config: &Config) -> Box<[Server]> {
    let numbered = (0_u16..).zip(&config.servers);
    numbered
        .map(|(id, server)| Server {
            id: ServerId(id),
            name: Arc::clone(&server.name),
            host: Arc::clone(&server.host),
            port: server.port,
            weight: server.weight,
            seen: Seen::Not { since: None, why: Unseen::NotYet },
            reads: Err(Unfit::Unseen),
            sample: None,
            visible_on_primary: None,
        })
        .collect()
}

/// Threads that serve clients: one where there are two cores or fewer, for the servers or the
/// clients need the other one, else half of the cores.
fn shard_count(limits: &Limits) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    limits.shards.map_or(if cores <= 2 { 1 } else { cores / 2 }, std::num::NonZero::get)
}

type Started = (Vec<JoinHandle<()>>, Doors);

fn start_shards(
    shared: &Arc<frontend::Shared>,
    limits: &Limits,
    (health, stop): (&Arc<Health>, &CancellationToken),
) -> Result<Started, RunError> {
    let mut shards = Vec::new();
    let mut doors = Vec::new();
    let mut mailboxes = Vec::new();
    for index in 0..shard_count(limits) {
        let (door, arrivals) = mpsc::channel(shard::ARRIVALS_MAX);
        let (place, posts) = mpsc::channel(1);
        let (mailbox, calls) = mpsc::channel(shard::CALLS_MAX);
        doors.push((door, place));
        mailboxes.push(mailbox);
        let inlets = (Inlets { arrivals, posts, calls }, limits.scheduling);
        shards.push(shard::start(
            index,
            (Arc::clone(shared), Arc::clone(health)),
            inlets,
            stop.clone(),
        )?);
    }
    shared.pools.set_mailboxes(mailboxes.into_boxed_slice());
    Ok((shards, Doors::new(doors)))
}
