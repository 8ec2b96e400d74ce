//! The hands on real servers: each act, what it does, and what it does when it can't.

mod fencing;
mod following;
mod freezing;
mod locking;
mod names;
mod promoting;
mod proving;
pub(crate) mod rights;
mod surveys;

use crate::support::Wire;
use crate::support::await_that;
use crate::support::cluster;
use crate::support::quickly;
use crate::support::quickly_enough;
use arc_swap::ArcSwap;
use pgsteer::backend::{Login, LoginSecret, Secret, Target, TlsPolicy};
use pgsteer::clock;
use pgsteer::control::hands::{Address, HandError, Hands, Reach};
use pgsteer::failover::{Instance, Mode, Policy, Survey};
use pgsteer::sandbox::{Auth, Cluster, Plan, SUPERUSER, SUPERUSER_PASSWORD, Server, eventually};
use pgsteer::store::{MemoryStore, Store};
use pgsteer::topology::ServerId;
use pgsteer::wire::message;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PRIMARY: ServerId = ServerId(0);
const FIRST: ServerId = ServerId(1);
const SECOND: ServerId = ServerId(2);

/// Both standbys count, and one of them is waited for.
const QUORUM: &str = "ANY 1 (standby1, standby2)";

/// A cluster with a hand on each of its servers, which are kept as in a proxy.
struct Grip {
    hands: Arc<Hands>,
    store: Store,
    cluster: Cluster,
    shutdown: CancellationToken,
    runtime: Runtime,
}

impl Grip {
    /// Of a cluster like this plan, as the superuser; every server was surveyed.
    fn on(plan: &Plan) -> Self {
        Self::over(cluster(plan), SUPERUSER)
    }

    fn over(cluster: Cluster, user: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store = Store::Memory(MemoryStore::default());
        let hands = hands(&cluster, user, Instance(0xabcd_0001), &store);
        let shutdown = CancellationToken::new();
        {
            let _entered = runtime.enter();
            hands.keep(&policy(Mode::Manual), &shutdown);
        }
        let grip = Self { hands, store, cluster, shutdown, runtime };
        await_that("every server was surveyed", || {
            (0..grip.cluster.servers().len())
                .all(|at| grip.hands.survey(ServerId(u16::try_from(at).unwrap())).is_some())
        });
        grip
    }

    fn server(&self, id: ServerId) -> &Server {
        &self.cluster.servers()[id.index()]
    }

    /// Waits for an act.
    fn wait<T>(&self, act: impl Future<Output = T>) -> T {
        self.runtime.block_on(act)
    }

    /// Has an act done that is not what is tested: each has little time, which on a crowded machine
    /// may be over before it is done, and then it is asked for again.
    fn done<T, F>(&self, act: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, HandError>>,
    {
        let done = eventually(Duration::from_mins(1), || match self.wait(act()) {
            Err(HandError::Late(_) | HandError::Lost(_) | HandError::NoEffect(_)) => None,
            // Somebody else who acts there has ended the session.
            Err(HandError::Refused(error)) if error.ends_connection => None,
            ended => Some(ended),
        });
        done.expect("it is never done in time").unwrap()
    }

    /// The same, and tells how long it took: what had to be asked for again is not quick.
    fn time<T, F>(&self, act: impl Fn() -> F) -> (T, Duration)
    where
        F: Future<Output = Result<T, HandError>>,
    {
        let began = clock::now();
        let done = self.done(act);
        (done, clock::now().since(began))
    }

    /// Has a standby follow another server.
    fn lead(&self, standby: ServerId, to: ServerId) {
        await_that("it follows", || {
            self.wait(self.hands.repoint(standby, to, &to_the_end())).is_ok()
        });
    }

    /// Waits until a commit of this server is confirmed.
    fn prove(&self, server: ServerId) {
        await_that("a commit is confirmed", || self.wait(self.hands.prove(server)).is_ok());
    }

    /// A survey that was taken after this call.
    fn survey(&self, id: ServerId) -> Arc<Survey> {
        let now = clock::now();
        self.hands.survey_soon(id);
        await_that("a new survey", || self.hands.survey(id).unwrap().asked > now);
        self.hands.survey(id).unwrap()
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

const WRITE: &str = "SELECT pg_logical_emit_message(true, 'test', 'x')";

/// A client of a server, past any proxy, that writes and waits for as long as it likes.
struct Writer(Wire);

impl Writer {
    fn of(server: &Server) -> Self {
        Self::named(server, SUPERUSER)
    }

    fn named(server: &Server, user: &str) -> Self {
        let login = [("user", user), ("database", "postgres")];
        Self(Wire::log_in_with(server.address().parse().unwrap(), &login).unwrap())
    }

    /// Writes, and returns whether that is acknowledged, however long that takes.
    fn is_acknowledged(&mut self) -> bool {
        // A closed connection acknowledges nothing.
        self.0.query(WRITE).is_good()
    }

    /// Writes, and returns whether that is not acknowledged within a moment.
    fn is_withheld(&mut self) -> bool {
        let mut query = Vec::new();
        message::write_query(&mut query, WRITE);
        self.0.send(&query).unwrap_or_default();
        !self.hears()
    }

    /// Whether something comes within a moment that is not the end of the session.
    fn hears(&mut self) -> bool {
        let said = self.0.unasked(MOMENT);
        // What was acknowledged ends in `ReadyForQuery`.
        said.ends_with(b"Z\0\0\0\x05I")
    }
}

/// Nothing else is to be done.
fn to_the_end() -> CancellationToken {
    CancellationToken::new()
}

/// Much longer than a commit takes.
const MOMENT: Duration = Duration::from_millis(500);

fn hands(cluster: &Cluster, user: &str, instance: Instance, store: &Store) -> Arc<Hands> {
    let reach = |(server, id): (&Server, u16)| reach(cluster, server, ServerId(id), user);
    Arc::new(Hands::new(cluster.servers().iter().zip(0..).map(reach).collect(), instance, store))
}

fn policy(mode: Mode) -> Arc<ArcSwap<Policy>> {
    Arc::new(ArcSwap::from_pointee(Policy { mode, ..Policy::default() }))
}

fn reach(cluster: &Cluster, server: &Server, id: ServerId, user: &str) -> Reach {
    let secret = match cluster.auth() {
        Auth::Password => LoginSecret::Password(Secret::new(SUPERUSER_PASSWORD.to_owned()).into()),
        Auth::Trust | Auth::Listed => LoginSecret::None,
    };
    let login = Login::new(user, "postgres", secret);
    let tls = TlsPolicy::default();
    let target = Target::alone(id, server.name(), "127.0.0.1", server.port(), &tls).unwrap();
    Reach { target, login, address: Address { host: "127.0.0.1".into(), port: server.port() } }
}

fn streams(server: &Server) -> bool {
    server.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'").unwrap()
        == "1"
}

fn conninfo(server: &Server) -> String {
    server.value("SHOW primary_conninfo").unwrap()
}
