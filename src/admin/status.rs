//! What `pgsteer status` shows, as one value: made here, served as JSON, read by the command.

use crate::admin::report::FailoverReport;
use crate::clock::Moment;
use crate::metrics::{BackendState, ClientState, Metrics, PinnedSession, ServedBy};
use crate::route::{Consistency, LagLimit, Why};
use crate::topology::Observation;
use crate::topology::Primary;
use crate::topology::Role;
use crate::topology::Seen;
use crate::topology::Server;
use crate::topology::ServerId;
use crate::topology::Topology;
use crate::topology::Unfit;
use serde::{Deserialize, Serialize};

/// The state of the set and of this proxy. Unknown is absent, never zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Our version.
    pub version: String,
    /// How long we run.
    pub uptime_seconds: f64,
    /// The set's system identifier, as text: it does not fit a JSON number.
    pub system: Option<String>,
    /// The primary's release, else any server's.
    pub postgres: Option<String>,
    /// Number of primaries adopted since the start.
    pub epoch: u64,
    /// The server that takes writes.
    pub primary: Option<String>,
    /// Why none does.
    pub no_primary: Option<String>,
    /// What reads see, unless a session says otherwise (`routing.consistency`).
    pub consistency: String,
    /// How far behind a standby may be.
    pub max_lag: LimitReport,
    /// The servers, as configured.
    pub servers: Vec<ServerReport>,
    /// The clients.
    pub clients: ClientReport,
    /// The sessions that keep a backend although they are between two transactions.
    #[serde(default)]
    pub pinned: PinnedReport,
    /// Where reads went since the start.
    pub reads: ReadReport,
    /// How it stands with failover.
    pub failover: FailoverReport,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// `primary`, `standby`; absent while it does not answer.
    pub role: Option<String>,
    /// What it is up to.
    pub state: State,
    /// The configured server that it follows.
    pub upstream: Option<String>,
    /// Its branch of the log.
    pub timeline: Option<u32>,
    /// Flushed (primary) or replayed (standby) up to here.
    pub lsn: Option<String>,
    /// Received up to here, by a standby.
    pub received_lsn: Option<String>,
    /// Bytes of log that it has yet to replay.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest position that it has yet to replay.
    pub lag_seconds: Option<f64>,
    /// Our backends there.
    pub sessions: SessionReport,
    /// Its share of the reads.
    pub weight: u32,
    /// Whether it gets reads.
    pub reads: bool,
    /// Why it gets none.
    pub no_reads: Option<String>,
    /// Why it does not answer.
    pub unseen: Option<String>,
    /// For how long it has not answered; absent if it never did.
    pub unseen_seconds: Option<f64>,
    /// Its release.
    pub version: Option<String>,
    /// The commands that make it a standby of the primary again, if it can't be one by itself;
    /// for a shell, in this order.
    #[serde(default)]
    pub rejoin: Vec<String>,
}

/// What a server is up to, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The primary; it takes writes.
    Writable,
    /// A standby that serves reads and streams from the primary.
    Streaming,
    /// The same, from another standby.
    Cascading,
    /// A standby that serves reads; that it streams is not seen.
    Serving,
    /// A standby that is too far behind.
    Lagging,
    /// A standby of which it is not known how far it is behind.
    Unmeasured,
    /// A standby of weight 0.
    Drained,
    /// A server on a branch that was left behind.
    Diverged,
    /// A server whose branch can't be related to the primary's.
    Unrelated,
    /// A server that says that it is a primary, and is not ours.
    Cordoned,
    /// A server of another system.
    Stranger,
    /// It does not answer.
    Down,
}

/// Our backends on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// At work.
    pub active: i64,
    /// At rest.
    pub idle: i64,
    /// The most that there may be; 0 while there is no pool.
    pub limit: i64,
}

/// The clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientReport {
    /// All.
    pub connected: u64,
    /// With a statement that runs.
    pub active: u64,
    /// With a statement that waits.
    pub waiting: u64,
    /// In an open transaction, between two statements.
    pub in_transaction: u64,
}

/// The sessions that keep a backend although they are between two transactions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PinnedReport {
    /// How many there are.
    pub count: usize,
    /// Those that have kept it longest, 100 at most.
    pub oldest: Vec<PinnedSessionReport>,
}

/// A session that keeps its backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinnedSessionReport {
    /// What its client called itself when it began.
    pub application: String,
    /// Who.
    pub user: String,
    /// In which database.
    pub database: String,
    /// On which server.
    pub server: Option<String>,
    /// The server's process.
    pub pid: i32,
    /// Why, in words.
    pub because: String,
    /// For how long.
    pub seconds: f64,
}

/// Most pinned sessions that are told one by one.
const PINNED_MAX: usize = 100;

/// Where reads went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadReport {
    /// To standbys.
    pub on_standbys: u64,
    /// To the primary, because no standby qualified or had replayed enough.
    pub on_primary: u64,
    /// That would have been too old, and were not served so.
    pub stale_prevented: u64,
}

/// How far behind a standby may be; absent: any.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LimitReport {
    /// `routing.max_lag.bytes`.
    pub bytes: Option<u64>,
    /// `routing.max_lag.time`.
    pub seconds: Option<f64>,
}

/// The settings that the status names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// `routing.consistency`.
    pub consistency: Consistency,
    /// `routing.max_lag`.
    pub max_lag: LagLimit,
}

impl StatusReport {
    /// The state as of now.
    pub fn new(
        topology: &Topology,
        metrics: &Metrics,
        (shown, failover): (Shown, FailoverReport),
        now: Moment,
    ) -> Self {
        metrics.refresh();
        let name = |id: ServerId| topology.server(id).map(|server| server.name.to_string());
        let (primary, no_primary) = match topology.primary {
            Primary::Open { server, .. } => (name(server), None),
            Primary::None { why, .. } => (None, Some(why.as_str().to_owned())),
        };
        let versions = || topology.servers.iter().filter_map(Server::observation);
        let of_primary = topology.writable().and_then(|id| topology.server(id)?.observation());
        let version = of_primary.or_else(|| versions().next()).map(|seen| seen.version);
        let uptime = crate::clock::unix_seconds() - metrics.process.started();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: uptime.max(0.0),
            system: topology.system.map(|system| system.to_string()),
            postgres: version.map(|version| version.to_string()),
            epoch: topology.epoch.0,
            primary,
            no_primary,
            consistency: consistency(shown.consistency).to_owned(),
            max_lag: LimitReport {
                bytes: shown.max_lag.bytes,
                seconds: shown.max_lag.time.map(|time| time.as_secs_f64()),
            },
            servers: topology
                .servers
                .iter()
                .map(|server| ServerReport::new(server, topology, metrics, now))
                .collect(),
            clients: clients(metrics),
            pinned: pinned(metrics, name, now),
            reads: reads(metrics),
            failover,
        }
    }
}

impl ServerReport {
    fn new(server: &Server, topology: &Topology, metrics: &Metrics, now: Moment) -> Self {
        let seen = server.observation();
        let (unseen, unseen_seconds) = match &server.seen {
            Seen::Answered(_) => (None, None),
            Seen::Not { since, why } => {
                (Some(why.as_str().to_owned()), since.map(|since| now.since(since).as_secs_f64()))
            }
        };
        let upstream = seen.and_then(|seen| upstream(server, seen, topology));
        Self {
            name: server.name.to_string(),
            role: seen.map(|seen| seen.role.as_str().to_owned()),
            state: state(server, upstream, topology),
            upstream: upstream.and_then(|id| topology.server(id)).map(|up| up.name.to_string()),
            // 0 is no timeline: our role can't see which it is.
            timeline: seen.map(|seen| seen.timeline.0).filter(|timeline| *timeline > 0),
            lsn: seen.map(|seen| seen.lsn.to_string()),
            received_lsn: seen.and_then(|seen| seen.received).map(|lsn| lsn.to_string()),
            lag_bytes: seen.and_then(|seen| seen.lag.bytes),
            lag_seconds: seen.and_then(|seen| seen.lag.time).map(|time| time.as_secs_f64()),
            sessions: SessionReport {
                active: metrics.backends.count(server.id, BackendState::Active),
                idle: metrics.backends.count(server.id, BackendState::Idle),
                limit: metrics.backends.limit(server.id),
            },
            weight: server.weight,
            reads: server.reads.is_ok(),
            no_reads: server.reads.err().map(|why| why.as_str().to_owned()),
            unseen,
            unseen_seconds,
            version: seen.map(|seen| seen.version.to_string()),
            rejoin: Vec::new(),
        }
    }
}

/// The configured server that a standby follows: by its address, or by its port alone where both
/// are on this machine, whose names are many.
fn upstream(server: &Server, seen: &Observation, topology: &Topology) -> Option<ServerId> {
    let (host, port) = seen.upstream.as_ref()?.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let others = || topology.servers.iter().filter(|other| other.id != server.id);
    let same = others().find(|other| other.port == port && &*other.host == host);
    let local = || others().find(|other| other.port == port && is_local(&other.host));
    same.or_else(|| if is_local(host) { local() } else { None }).map(|other| other.id)
}

fn is_local(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1") || host.starts_with('/')
}

fn state(server: &Server, upstream: Option<ServerId>, topology: &Topology) -> State {
    let Some(seen) = server.observation() else { return State::Down };
    match server.reads {
        Ok(()) => match (seen.streaming, upstream) {
            (Some(true), Some(up)) if topology.writable() != Some(up) => State::Cascading,
            (Some(true), _) => State::Streaming,
            (Some(false) | None, _) => State::Serving,
        },
        Err(Unfit::IsPrimary) if topology.writable() == Some(server.id) => State::Writable,
        Err(Unfit::Cordoned | Unfit::IsPrimary) => State::Cordoned,
        Err(Unfit::OtherSystem) => State::Stranger,
        Err(Unfit::Diverged) => State::Diverged,
        Err(Unfit::UnknownHistory) => State::Unrelated,
        Err(Unfit::LagBytes | Unfit::LagTime) => State::Lagging,
        Err(Unfit::LagUnknown) => State::Unmeasured,
        Err(Unfit::Weight) => State::Drained,
        Err(Unfit::Unseen) => State::Down,
    }
}

fn clients(metrics: &Metrics) -> ClientReport {
    let count = |state| metrics.clients.count(state);
    let (active, waiting) = (count(ClientState::Active), count(ClientState::Waiting));
    let in_transaction = count(ClientState::InTransaction);
    let connected = count(ClientState::Idle) + active + waiting + in_transaction;
    ClientReport { connected, active, waiting, in_transaction }
}

fn pinned(
    metrics: &Metrics,
    name: impl Fn(ServerId) -> Option<String>,
    now: Moment,
) -> PinnedReport {
    let (count, oldest) = metrics.pinned.oldest(PINNED_MAX);
    let report = |session: PinnedSession| PinnedSessionReport {
        application: session.application.into(),
        user: session.user.to_string(),
        database: session.database.to_string(),
        server: name(session.server),
        pid: session.pid,
        because: session.pins.told(),
        seconds: now.since(session.since).as_secs_f64(),
    };
    PinnedReport { count, oldest: oldest.into_iter().map(report).collect() }
}

fn reads(metrics: &Metrics) -> ReadReport {
    let statements = &metrics.statements;
    let to_primary = |why| statements.count_routed(ServedBy::Primary, why);
    let to_standby = |why| statements.count_routed(ServedBy::Standby, why);
    ReadReport {
        on_standbys: to_standby(Why::Read),
        on_primary: to_primary(Why::Read) + to_primary(Why::Floor) + to_primary(Why::NoStandby),
        stale_prevented: statements.stale_prevented.get(),
    }
}

const fn consistency(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Eventual => "eventual",
        Consistency::Session => "session",
        Consistency::Primary => "primary",
    }
}

impl StatusReport {
    /// The same, with what `commands` (of a server and its primary) says for each server that
    /// can't be a standby again by itself.
    #[must_use]
    pub fn with_rejoin(
        mut self,
        commands: impl Fn(&ServerReport, &ServerReport) -> Vec<String>,
    ) -> Self {
        let is_primary = |server: &&ServerReport| Some(&server.name) == self.primary.as_ref();
        let Some(primary) = self.servers.iter().find(is_primary).cloned() else { return self };
        let lost =
            |server: &&mut ServerReport| matches!(server.state, State::Cordoned | State::Diverged);
        for server in self.servers.iter_mut().filter(lost) {
            server.rejoin = commands(server, &primary);
        }
        self
    }
}

/// The role of a server, for whoever draws the tree.
impl ServerReport {
    /// Whether it says that it is a primary.
    pub fn is_primary(&self) -> bool {
        self.role.as_deref() == Some(Role::Primary.as_str())
    }
}
