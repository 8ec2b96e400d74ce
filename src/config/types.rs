//! The checked configuration: plain types, filled once, read by everybody.

use crate::auth;
use crate::backend::Secret;
use crate::backend::TlsPolicy;
use crate::config::changes::Shown;
use crate::config::listen::suffix;
use crate::control;
use crate::failover;
use crate::limits::Rules;
use crate::pool;
use crate::route;
use crate::route::RoleWish;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that an operator chose, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<Listen>,
    /// Where metrics and health are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// TLS towards clients; `None`: none.
    pub tls: Option<ClientTls>,
    /// The servers, in the order of [`crate::topology::ServerId`]; at least one.
    pub servers: Vec<ServerConfig>,
    /// TLS towards servers.
    pub server_tls: TlsPolicy,
    /// Who the control plane logs in as.
    pub control_login: ControlLogin,
    /// How the servers are watched.
    pub control: control::Policy,
    /// How clients prove who they are.
    pub auth: auth::Policy,
    /// How backends are shared.
    pub pool: pool::Policy,
    /// Where statements go.
    pub routing: route::Policy,
    /// What happens when the primary is lost.
    pub failover: failover::Policy,
    /// Where the record of who is the primary lies; `None`: no place is known.
    pub state_dir: Option<PathBuf>,
    /// Who passes cancel requests on to whom; `None`: nobody.
    pub peers: Option<Peers>,
    /// Bounds.
    pub limits: Limits,
    /// What operators see.
    pub observability: Observability,
    /// Every key with its value and where that came from, in the order of the reference.
    pub sources: Vec<Shown>,
}

/// Where clients connect, and what their sessions wish for unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub at: ListenAt,
    /// `pgsteer.role` of its sessions.
    pub role: RoleWish,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAt {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket, `.s.PGSQL.PORT` in this directory, as libpq looks for it.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The number in the socket's name.
        port: u16,
    },
}

impl Listen {
    /// The socket's file; `None` for TCP.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match &self.at {
            ListenAt::Tcp(_) => None,
            ListenAt::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.at, suffix(self.role))
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix { directory, .. } => write!(out, "unix:{}", directory.display()),
        }
    }
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether a client may do without.
    pub mode: ClientTlsMode,
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authorities of clients' certificates, PEM; `None`: clients are asked for none.
    pub client_ca: Option<PathBuf>,
}

/// Whether a client may do without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// It may.
    Prefer,
    /// It may not, except over a unix socket.
    Require,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// `host:port`: its name in metrics, logs and `status`.
    pub name: Arc<str>,
    /// Host name, address, or the directory of a unix socket.
    pub host: Arc<str>,
    /// TCP port, or the number in the unix socket's name.
    pub port: u16,
    /// Its share of the reads, relative to the others'; 0: never read from it.
    pub weight: u32,
    /// The higher, the rather it is promoted among equals; 0: never.
    pub priority: u32,
    /// Where other servers reach it: host and port.
    pub replication_address: (Arc<str>, u16),
    /// What the password file says for the control user on this server; used only where
    /// [`ControlLogin::password`] is `None`.
    pub passfile_password: Option<Secret>,
}

/// Who the control plane logs in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlLogin {
    /// The role.
    pub user: String,
    /// Its password on every server; `None`: see [`Config::password_for`].
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
}

impl Config {
    /// The control user's password on a server, from the configuration or the password file.
    pub fn password_for<'c>(&'c self, server: &'c ServerConfig) -> Option<&'c Secret> {
        self.control_login.password.as_ref().or(server.passfile_password.as_ref())
    }
}

/// `[cancel]`: the pgsteers behind one address, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// Which one this is, from 1.
    pub own: u8,
    /// Host and port of all of them, in the order that they all have.
    pub all: Vec<(Arc<str>, u16)>,
    /// How they are reached.
    pub tls: TlsPolicy,
}

/// `[limits]`: bounds, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest time from a client's connect to its login, then it is closed.
    pub login_timeout: Duration,
    /// Longest wait for the refusal of a login, for who failed often.
    pub login_failure_delay: Duration,
    /// How much single clients may take.
    pub rules: Arc<Rules>,
    /// Threads that serve clients; `None`: by the number of cores.
    pub shards: Option<NonZeroUsize>,
    /// How the kernel schedules them.
    pub scheduling: Scheduling,
    /// Time from SIGTERM to the end of accepting, for load balancers to notice.
    pub drain_delay: Duration,
    /// Longest time that clients then get to finish their transactions.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_timeout: Duration::from_secs(30),
            login_failure_delay: Duration::from_secs(3),
            rules: Arc::default(),
            shards: None,
            scheduling: Scheduling::Batch,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// How the kernel schedules the threads that serve clients: `limits.scheduling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduling {
    /// Whoever wakes one runs on first.
    Batch,
    /// As it is when pgsteer is started.
    Normal,
}

/// `[observability]`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observability {
    /// The form of the log.
    pub log: LogFormat,
    /// What is logged.
    pub log_level: LogLevel,
    /// Whether the memory may be read: from a core, or by other programs of the same user.
    pub cores: Cores,
}

/// Whether a crash may leave a core: `observability.core_dumps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// No.
    Never,
    /// If the limits and the system have it so.
    Allowed,
}

impl Default for Observability {
    fn default() -> Self {
        Self { log: LogFormat::Text, log_level: LogLevel::Info, cores: Cores::Never }
    }
}

/// The form of the log: `observability.log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// What is logged: `observability.log_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What broke.
    Error,
    /// What may break.
    Warn,
    /// What changed.
    Info,
    /// What happened.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration and in `RUST_LOG`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
