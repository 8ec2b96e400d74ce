//! The control plane on a real primary and two standbys, without a data plane.

mod adoption;
mod eyes;
mod lag;
mod privileges;
mod wishes;

use crate::support::cluster;
use crate::support::quickly;
use crate::support::quickly_enough;
use pgsteer::backend::Secret;
use pgsteer::backend::{Security, TlsPolicy};
use pgsteer::board::Board;
use pgsteer::control::{Bell, Control, ControlConfig, Links, LiveControl, Policy, WatchedServer};
use pgsteer::failover;
use pgsteer::metrics::{Build, Metrics};
use pgsteer::route::LagLimit;
use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::SUPERUSER;
use pgsteer::sandbox::Server;
use pgsteer::sandbox::StatementLog;
use pgsteer::sandbox::eventually;
use pgsteer::sql::FunctionLists;
use pgsteer::store::Store;
use pgsteer::topology::Primary;
use pgsteer::topology::Role;
use pgsteer::topology::ServerId;
use pgsteer::topology::Signals;
use pgsteer::topology::Topology;
use pgsteer::vital::Vital;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PRIMARY: ServerId = ServerId(0);
const FIRST: ServerId = ServerId(1);
const SECOND: ServerId = ServerId(2);

/// Long enough for a busy machine; what must be quick is measured.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster under the eyes of a control plane in this process.
struct Watched {
    cluster: Cluster,
    board: Arc<Board>,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
    control: Control,
    shutdown: CancellationToken,
    /// Last, so that its tasks end before the servers do.
    _runtime: Runtime,
}

impl Watched {
    /// A primary and two standbys; every one was seen and serves.
    fn new() -> Self {
        let watched = Self::of(&plan(), SUPERUSER);
        watched.wait("all are seen", |topology| {
            topology.writable() == Some(PRIMARY) && reads(topology) == [FIRST, SECOND]
        });
        watched
    }

    /// The same, where no server is silent for too long: for what is not about silence.
    fn unhurried() -> Self {
        let watched = Self::over(cluster(&plan()), SUPERUSER, unhurried());
        watched.wait("all are seen", |topology| {
            topology.writable() == Some(PRIMARY) && reads(topology) == [FIRST, SECOND]
        });
        watched
    }

    /// What the plan says, looked at by this user.
    fn of(plan: &Plan, user: &str) -> Self {
        Self::over(cluster(plan), user, Policy::default())
    }

    fn over(cluster: Cluster, user: &str, policy: Policy) -> Self {
        let servers = cluster.servers().iter().map(watched_server).collect();
        Self::servers(cluster, servers, user, policy)
    }

    fn servers(cluster: Cluster, servers: Vec<WatchedServer>, user: &str, policy: Policy) -> Self {
        // What is tested here changes nothing about any server.
        let store = Err("no state is kept".into());
        Self::built(cluster, servers, (user, policy), (store, failover::Policy::default()))
    }

    fn built(
        cluster: Cluster,
        servers: Vec<WatchedServer>,
        (user, policy): (&str, Policy),
        (store, failover): (Result<Store, Arc<str>>, failover::Policy),
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let names: Vec<_> = servers.iter().map(|server| Arc::clone(&server.name)).collect();
        let (bell, signals) = Bell::with_signals();
        let links = Links {
            vital: Vital::default(),
            board: Arc::new(Board::new(Topology::unseen(Box::new([])))),
            signals: Arc::clone(&signals),
            bell,
            metrics: Arc::new(Metrics::new(&names, Build::default()).unwrap()),
        };
        let live = LiveControl {
            policy,
            failover,
            weights: vec![1; servers.len()],
            lists: FunctionLists::default(),
        };
        let (user, database) = (user.to_owned(), "postgres".to_owned());
        let tls = Security::load(TlsPolicy::default()).unwrap();
        let config = ControlConfig { servers, tls, user, database, store, live };
        let shutdown = CancellationToken::new();
        let entered = runtime.enter();
        let control = Control::start(config, &links, &shutdown).unwrap();
        drop(entered);
        let Links { board, metrics, .. } = links;
        Self { cluster, board, signals, metrics, control, shutdown, _runtime: runtime }
    }

    fn server(&self, id: ServerId) -> &Server {
        &self.cluster.servers()[id.index()]
    }

    fn now(&self) -> Arc<Topology> {
        self.board.load()
    }

    /// Waits until the published topology is like this, and returns it and how long it took.
    fn wait(&self, what: &str, like: impl Fn(&Topology) -> bool) -> (Arc<Topology>, Duration) {
        let began = pgsteer::clock::now();
        let found = eventually(PATIENCE, || Some(self.now()).filter(|topology| like(topology)));
        let Some(topology) = found else { panic!("never: {what}\n{:#?}", self.now()) };
        (topology, pgsteer::clock::now().since(began))
    }

    /// Fails if the published topology is ever unlike this for a while.
    fn always(&self, what: &str, like: impl Fn(&Topology) -> bool) {
        for _ in 0..100 {
            let topology = self.now();
            assert!(like(&topology), "not always: {what}\n{topology:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// By which nothing counts as late: for what is not about lateness.
fn calm() -> Policy {
    Policy {
        check_timeout: PATIENCE,
        max_lag: LagLimit { bytes: None, time: None },
        observation_age_max: 10 * PATIENCE,
        ..Policy::default()
    }
}

/// By which no server is silent for too long, as on a crowded machine any may be for longer than
/// the second that it has by default; a standby may be too far behind.
fn unhurried() -> Policy {
    let (check_timeout, observation_age_max) = (Duration::from_mins(1), Duration::from_mins(10));
    Policy { check_timeout, observation_age_max, ..Policy::default() }
}

fn plan() -> Plan {
    Plan::new().standbys(2).log(StatementLog::Off)
}

fn watched_server(server: &Server) -> WatchedServer {
    let address = server.address();
    let (host, port) = address.rsplit_once(':').unwrap();
    let password: Option<Secret> = None;
    WatchedServer {
        name: address.as_str().into(),
        host: host.into(),
        port: port.parse().unwrap(),
        password,
        replication_address: (host.into(), port.parse().unwrap()),
        priority: 1,
    }
}

/// The servers that get reads.
fn reads(topology: &Topology) -> Vec<ServerId> {
    let fit = topology.servers.iter().filter(|server| server.reads.is_ok());
    fit.map(|server| server.id).collect()
}

fn role(topology: &Topology, server: ServerId) -> Option<Role> {
    topology.server(server)?.observation().map(|seen| seen.role)
}

const fn is_open(topology: &Topology) -> bool {
    matches!(topology.primary, Primary::Open { .. })
}
