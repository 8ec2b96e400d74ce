//! Every key, once: name, type, default, meaning. The reader, the reference file and the manual's
//! page are made from this table.
//!
//! Defaults are those of the policies, which own them.

use crate::auth;
use crate::backend::ChannelBinding;
use crate::backend::SslMode;
use crate::backend::SslNegotiation;
use crate::config::choices::TlsMode;
use crate::config::hosts::Hosts;
use crate::config::hosts::Overrides;
use crate::config::key::AnyKey;
use crate::config::key::Counts::OnReload;
use crate::config::key::Counts::OnRestart;
use crate::config::key::Key;
use crate::config::listen::At;
use crate::config::listen::CLIENT_PORT;
use crate::config::listen::HTTP_PORT;
use crate::config::listen::Http;
use crate::config::listen::Listener;
use crate::config::listen::Listeners;
use crate::config::peers::PeerList;
use crate::config::problem::Place;
use crate::config::secret::SecretSource;
use crate::config::setting::Bytes;
use crate::config::setting::OrOff;
use crate::config::types::Cores;
use crate::config::types::Limits;
use crate::config::types::LogFormat;
use crate::config::types::LogLevel;
use crate::config::types::Observability;
use crate::config::types::Scheduling;
use crate::control;
use crate::failover;
use crate::limits::Rules;
use crate::pool;
use crate::route;
use crate::route::RoleWish;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $id:ident: $type:ty = $name:literal {
        default: $default:expr,
        $(example: $example:literal,)?
        $(check: $check:expr,)?
        counts: $counts:ident,
    })+) => {
        $(pub(super) static $id: Key<$type> = Key {
            name: $name,
            doc: concat!($($doc),+),
            default: || $default,
            example: concat!($($example)?),
            check: keys!(@check $($check)?),
            counts: $counts,
        };)+

        /// Every key, in the order of the reference.
        pub(super) static ALL: &[&dyn AnyKey] = &[$(&$id),+];
    };
    (@check) => { |_| Ok(()) };
    (@check $check:expr) => { $check };
}

fn at_least<T: PartialOrd>(value: &T, least: &T, must: &'static str) -> Result<(), &'static str> {
    if value >= least { Ok(()) } else { Err(must) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the type of `Key::check`")]
fn not_zero(value: &u32) -> Result<(), &'static str> {
    at_least(value, &1, "must be at least 1")
}

fn ten_millis(value: &Duration) -> Result<(), &'static str> {
    at_least(value, &Duration::from_millis(10), "must be at least \"10ms\"")
}

fn one_second(value: &Duration) -> Result<(), &'static str> {
    at_least(value, &Duration::from_secs(1), "must be at least \"1s\"")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn default_listeners() -> Listeners {
    Listeners(vec![Listener {
        at: At::Tcp(loopback(CLIENT_PORT)),
        role: RoleWish::Auto,
        place: Place::Nowhere,
    }])
}

keys! {
    /// Where clients connect: addresses, and directories of unix sockets.
    /// An address that is not loopback needs `auth.method = "scram-sha-256"`, or rules
    /// (`auth.hba_file`).
    /// Sessions that come by one with `?role=standby` begin with `pgsteer.role = standby`, and are
    /// told that they are on a standby (`in_hot_standby`).
    LISTEN: Listeners = "listen" {
        default: default_listeners(),
        example: "[\"0.0.0.0:6432\", \"0.0.0.0:6433?role=standby\", \"unix:/run/pgsteer\"]",
        check: |all| if all.0.is_empty() { Err("must name an address") } else { Ok(()) },
        counts: OnRestart,
    }
    /// Where `/metrics`, `/livez`, `/readyz`, `/status` and `/route` are served, and where
    /// `pgsteer status`, `route`, `failover`, `switchover`, `history` and `drill` ask. With `off`
    /// nobody can order a failover.
    HTTP: Http = "http" {
        default: Http(Some(loopback(HTTP_PORT))),
        counts: OnRestart,
    }

    /// TLS towards clients: `prefer` offers it once `cert` and `key` are set,
    /// `require` refuses TCP clients without it.
    TLS_MODE: TlsMode = "tls.mode" {
        default: TlsMode::Prefer,
        counts: OnReload,
    }
    /// The certificate chain that clients are shown, PEM.
    TLS_CERT: Option<PathBuf> = "tls.cert" {
        default: None,
        example: "\"/etc/pgsteer/tls/tls.crt\"",
        counts: OnReload,
    }
    /// Its private key, PEM; of mode 0640 or stricter.
    TLS_KEY: Option<PathBuf> = "tls.key" {
        default: None,
        example: "\"/etc/pgsteer/tls/tls.key\"",
        counts: OnReload,
    }
    /// The authorities whose certificates clients may show, PEM. A client without one is let in as
    /// far as the rules let it; one that shows a bad certificate is not.
    TLS_CLIENT_CA: Option<PathBuf> = "tls.client_ca" {
        default: None,
        example: "\"/etc/pgsteer/tls/clients.crt\"",
        counts: OnReload,
    }

    /// The servers, at most 64. Which one is the primary is discovered, never declared.
    HOSTS: Hosts = "servers.hosts" {
        default: Hosts(Vec::new()),
        example: "[\"db1:5432\", \"db2:5432\"]",
        counts: OnRestart,
    }
    /// Who pgsteer itself logs in as, to watch the servers.
    /// Unset: `PGUSER`, else the name of the operating system's user.
    USER: Option<String> = "servers.user" {
        default: None,
        example: "\"pgsteer\"",
        counts: OnRestart,
    }
    /// The password of that user.
    /// Unset: `PGPASSWORD`, else the password file (`PGPASSFILE`, `~/.pgpass`).
    PASSWORD: SecretSource = "servers.password" {
        default: SecretSource::None,
        example: "{ file = \"/run/secrets/pgsteer\" }",
        counts: OnRestart,
    }
    /// The database that it connects to. Unset: `PGDATABASE`, else `postgres`.
    DATABASE: Option<String> = "servers.database" {
        default: None,
        example: "\"postgres\"",
        counts: OnRestart,
    }
    /// TLS towards the servers, with libpq's meanings. Unset: `PGSSLMODE`, else `prefer`.
    SSLMODE: SslMode = "servers.sslmode" {
        default: SslMode::Prefer,
        counts: OnRestart,
    }
    /// The authorities whose certificates are trusted, PEM.
    /// Unset: `PGSSLROOTCERT`, else the system's.
    SSLROOTCERT: Option<PathBuf> = "servers.sslrootcert" {
        default: None,
        example: "\"/etc/pgsteer/tls/ca.crt\"",
        counts: OnRestart,
    }
    /// The certificate that servers are shown if they ask for one, PEM. Unset: `PGSSLCERT`.
    SSLCERT: Option<PathBuf> = "servers.sslcert" {
        default: None,
        example: "\"/etc/pgsteer/tls/pgsteer.crt\"",
        counts: OnRestart,
    }
    /// Its private key, PEM; of mode 0640 or stricter. Unset: `PGSSLKEY`.
    SSLKEY: Option<PathBuf> = "servers.sslkey" {
        default: None,
        example: "\"/etc/pgsteer/tls/pgsteer.key\"",
        counts: OnRestart,
    }
    /// Whether our proof by SCRAM counts on the one TLS connection only, so that nobody in between
    /// can pass it on; with libpq's meanings. `require` refuses servers that ask for no such proof.
    /// Unset: `PGCHANNELBINDING`, else `prefer`.
    CHANNEL_BINDING: ChannelBinding = "servers.channel_binding" {
        default: ChannelBinding::Prefer,
        counts: OnRestart,
    }
    /// How TLS begins: the server is asked for it (`postgres`), or the handshake comes at once
    /// (`direct`), for which it must be PostgreSQL 17 or later and `sslmode` at least `require`.
    /// The connections by which the catalogs of databases are read ask for it all the same.
    /// Unset: `PGSSLNEGOTIATION`, else `postgres`.
    SSLNEGOTIATION: SslNegotiation = "servers.sslnegotiation" {
        default: SslNegotiation::Postgres,
        counts: OnRestart,
    }
    /// Pause between two looks at a server.
    CHECK_INTERVAL: Duration = "servers.check_interval" {
        default: control::Policy::default().check_interval,
        check: ten_millis,
        counts: OnReload,
    }
    /// Longest wait for its answer.
    CHECK_TIMEOUT: Duration = "servers.check_timeout" {
        default: control::Policy::default().check_timeout,
        check: ten_millis,
        counts: OnReload,
    }
    /// A primary that refuses connections for so long may be replaced by a standby that
    /// somebody promoted.
    GONE_AFTER: Duration = "servers.gone_after" {
        default: control::Policy::default().gone_after,
        check: ten_millis,
        counts: OnReload,
    }
    /// A primary that is merely silent for so long, and from which no standby streams any more,
    /// may be replaced by a standby that somebody promoted.
    SILENT_AFTER: Duration = "servers.silent_after" {
        default: control::Policy::default().silent_after,
        check: ten_millis,
        counts: OnReload,
    }
    /// What differs for one server: `weight`, its share of the reads relative to the others' (1;
    /// with 0 it gets none); `priority`, how gladly it is promoted among equals (1; with 0 it
    /// never is); `replication_address`, where other servers reach it, if that is not its address
    /// here. Of these `weight` alone counts after a reload; the others need a restart.
    OVERRIDES: Overrides = "servers.overrides" {
        default: Overrides(Vec::new()),
        example: "{ \"db2:5432\" = { weight = 0, priority = 0 } }",
        counts: OnReload,
    }

    /// How clients prove who they are. `trust` believes them, and is allowed on loopback and
    /// unix sockets only.
    AUTH_METHOD: auth::Method = "auth.method" {
        default: auth::Method::Trust,
        counts: OnReload,
    }
    /// A file of rules in the syntax of `pg_hba.conf`: who may log in from where, and how it is
    /// proved (`trust`, `reject`, `scram-sha-256`, `md5`, `cert`, `peer`). The first line that fits
    /// decides, in the place of `auth.method`; if none does, nobody comes in.
    AUTH_HBA_FILE: Option<PathBuf> = "auth.hba_file" {
        default: None,
        example: "\"/etc/pgsteer/hba.conf\"",
        counts: OnReload,
    }
    /// A file of users and their SCRAM verifiers or passwords, in PgBouncer's format
    /// (`"name" "SCRAM-SHA-256$..."`).
    AUTH_FILE: Option<PathBuf> = "auth.file" {
        default: auth::Policy::default().file,
        example: "\"/etc/pgsteer/userlist.txt\"",
        counts: OnReload,
    }
    /// The query that finds a user's verifier on a server: `$1` is the name, and it returns the
    /// name and the verifier. `""`: only the file counts. The default needs a superuser as
    /// `servers.user`; a `SECURITY DEFINER` function of your own does not, and is named with its
    /// schema: `search_path` is `pg_catalog, pg_temp`.
    AUTH_QUERY: Option<String> = "auth.query" {
        default: auth::Policy::default().query,
        counts: OnReload,
    }
    /// How long its answer counts for further logins of the user from the same address, once one
    /// of them succeeded; all others ask. If a login fails by it, the servers are asked again, and
    /// the next one is held against that. `"0s"`: every login asks.
    AUTH_QUERY_CACHE: Duration = "auth.query_cache" {
        default: auth::Policy::default().query_cache,
        check: |age| {
            if *age <= Duration::from_hours(1) { Ok(()) } else { Err("must be at most \"1h\"") }
        },
        counts: OnReload,
    }

    /// How long a client keeps a backend: for a transaction, or until it leaves.
    POOL_MODE: pool::Mode = "pool.mode" {
        default: pool::Policy::default().mode,
        counts: OnReload,
    }
    /// Most backends for one server, database and user.
    POOL_SIZE: u32 = "pool.size" {
        default: pool::Policy::default().size,
        check: not_zero,
        counts: OnReload,
    }
    /// Most clients at a time; one more is refused with SQLSTATE 53300.
    MAX_CLIENTS: u32 = "pool.max_clients" {
        default: pool::Policy::default().max_clients,
        check: not_zero,
        counts: OnReload,
    }
    /// Longest wait for a backend to come free, then SQLSTATE 53300: up to 50 ms later than this.
    WAIT_TIMEOUT: Duration = "pool.wait_timeout" {
        default: pool::Policy::default().wait_timeout,
        check: ten_millis,
        counts: OnReload,
    }
    /// A backend that rested for so long is closed.
    IDLE_TIMEOUT: Duration = "pool.idle_timeout" {
        default: pool::Policy::default().idle_timeout,
        check: one_second,
        counts: OnReload,
    }
    /// A backend that lived for so long is closed when it comes free.
    MAX_LIFETIME: Duration = "pool.max_lifetime" {
        default: pool::Policy::default().max_lifetime,
        check: one_second,
        counts: OnReload,
    }
    /// What keeps one session's state from the next. Settings are followed, and a backend that was
    /// one client's own, as in session mode, is cleaned by `DISCARD ALL` when the client leaves
    /// (`tracked`, and `off`), or closed, so that everyone begins on a new one (`close`). Else
    /// `off` follows nothing and looks for nothing: it is only for applications that never change a
    /// session's state.
    RESET: pool::Reset = "pool.reset" {
        default: pool::Policy::default().reset,
        counts: OnReload,
    }
    /// What becomes of a statement that a client prepares without a name, as most drivers do for
    /// each query: it is prepared anew each time (`pass`), or not where the backend holds one of
    /// the same text already (`reuse`), which spares the server the work of reading and analysing
    /// it. Reused are only queries that are sent alone, outside of a transaction, without string
    /// constants, and came before; what they see, and when they fail, stays as it was. A server may
    /// choose a generic plan from the sixth time on, as for every prepared statement:
    /// `plan_cache_mode`.
    UNNAMED_STATEMENTS: pool::UnnamedStatements = "pool.unnamed_statements" {
        default: pool::Policy::default().unnamed,
        counts: OnReload,
    }
    /// A session may leave something on its backend that neither its statements nor the catalog
    /// tell. So one of so many backends that come free is probed behind its client's back, at most
    /// two a second for each pool; what is found is logged with the application that had it last,
    /// and the backend is closed. 0: none is. With `reset = "off"` nothing is looked for.
    AUDIT_EVERY: u32 = "pool.audit_every" {
        default: pool::Policy::default().audit_every,
        counts: OnReload,
    }

    /// Who serves reads: standbys (the primary only as `on_all_stale` says), any server, or the
    /// primary alone.
    READS: route::Reads = "routing.reads" {
        default: route::Policy::default().reads,
        counts: OnReload,
    }
    /// What a session's reads see at least: whatever a standby has (`eventual`), all that the
    /// session wrote and saw before (`session`), or the primary's own answer (`primary`).
    CONSISTENCY: route::Consistency = "routing.consistency" {
        default: route::Policy::default().consistency,
        counts: OnReload,
    }
    /// A standby that is further behind than this gets no reads until it has caught up.
    MAX_LAG_TIME: OrOff<Duration> = "routing.max_lag.time" {
        default: OrOff::from(route::Policy::default().max_lag.time),
        counts: OnReload,
    }
    /// The same in bytes of write-ahead log.
    MAX_LAG_BYTES: OrOff<Bytes> = "routing.max_lag.bytes" {
        default: OrOff::from(route::Policy::default().max_lag.bytes.map(Bytes)),
        counts: OnReload,
    }
    /// What happens to a read for which no standby qualifies: the primary answers it, it waits
    /// (up to `hold_max`), or it fails.
    ON_ALL_STALE: route::OnAllStale = "routing.on_all_stale" {
        default: route::Policy::default().on_all_stale,
        counts: OnReload,
    }
    /// How one of several standbys is picked: fewest statements under way relative to its weight
    /// (with more than four servers, of the session's own standby and two that chance picks), or
    /// by weight in turn.
    BALANCE: route::Balance = "routing.balance" {
        default: route::Policy::default().balance,
        counts: OnReload,
    }
    /// Longest wait for a standby to replay what the session wrote, before the read goes
    /// elsewhere. `"0s"` never waits.
    REPLAY_WAIT_MAX: Duration = "routing.replay_wait_max" {
        default: route::Policy::default().replay_wait_max,
        counts: OnReload,
    }
    /// Oldest observation of a standby that still counts, so that a silent one gets no reads.
    /// Must be longer than `servers.check_interval`.
    OBSERVATION_AGE_MAX: Duration = "routing.observation_age_max" {
        default: route::Policy::default().observation_age_max,
        check: ten_millis,
        counts: OnReload,
    }
    /// Longest that a statement is held while there is no primary, then SQLSTATE 57P03.
    HOLD_MAX: Duration = "routing.hold_max" {
        default: route::Policy::default().hold_max,
        counts: OnReload,
    }
    /// Most memory for statements that are held or queue for a backend, of all clients together;
    /// one more is refused with SQLSTATE 53400.
    HOLD_MEMORY: Bytes = "routing.hold_memory" {
        default: Bytes(route::Policy::default().hold_memory),
        counts: OnReload,
    }
    /// Functions that may run on a standby, whatever the catalog says of them.
    READ_FUNCTIONS: Vec<String> = "routing.read_functions" {
        default: route::Policy::default().read_functions,
        example: "[\"app.report\"]",
        counts: OnReload,
    }
    /// Functions that need the primary, whatever the catalog says of them.
    WRITE_FUNCTIONS: Vec<String> = "routing.write_functions" {
        default: route::Policy::default().write_functions,
        example: "[\"app.audit\"]",
        counts: OnReload,
    }

    /// Who may replace a primary that is lost: nobody, so that another tool does (`off`), an
    /// operator with `pgsteer failover` (`manual`), or pgsteer itself (`auto`), which acts only
    /// where `pgsteer doctor` finds that everything it needs is there.
    FAILOVER_MODE: failover::Mode = "failover.mode" {
        default: failover::Policy::default().mode,
        counts: OnReload,
    }
    /// How long a primary may be silent before it counts as lost, provided that every standby
    /// finds it silent, too: 3 s (`calm`) or 1 s (`aggressive`). One that is dead is replaced
    /// without a wait in either.
    FAILOVER_PROFILE: failover::Profile = "failover.profile" {
        default: failover::Profile::Calm,
        counts: OnReload,
    }
    /// Most of the acknowledged log that an automatic failover may lose; `any` is also more than
    /// is known, and without a quorum it is not known while clients write. With synchronous
    /// replication by quorum nothing is lost. What does not go through this pgsteer is not counted.
    MAX_DATA_LOSS: failover::MaxLoss = "failover.max_data_loss" {
        default: failover::Policy::default().max_data_loss,
        counts: OnReload,
    }
    /// In a switchover the transactions that run get so long to end; then it is called off.
    /// Shorter than `routing.hold_max`, or statements that wait for it fail.
    FAILOVER_DRAIN_TIMEOUT: Duration = "failover.drain_timeout" {
        default: failover::Policy::default().drain_timeout,
        check: ten_millis,
        counts: OnReload,
    }
    /// What becomes of the old primary of a switchover: it takes no writes any more and waits for
    /// its operator (`fence`), or it is made to restart as a standby by SQL alone
    /// (`crash_restart`), for which `servers.user` must be a superuser.
    DEMOTE: failover::Demotion = "failover.demote" {
        default: failover::Policy::default().demotion,
        counts: OnReload,
    }
    /// What becomes of a former primary that comes back as a primary, and holds nothing more than
    /// the new one, because it was stopped cleanly: it is made to restart as a standby by SQL alone
    /// (`restart`), for which `servers.user` must be a superuser, and which empties its unlogged
    /// tables, as with every standby. Or it takes no writes and waits for its operator (`fence`);
    /// so does every other former primary.
    REJOIN: failover::Rejoin = "failover.rejoin" {
        default: failover::Policy::default().rejoin,
        counts: OnReload,
    }
    /// The directory that holds who is the primary, for this pgsteer alone: on a disk that stays.
    /// Unset: `$STATE_DIRECTORY`, for root `/var/lib/pgsteer`, else `$XDG_STATE_HOME/pgsteer` or
    /// `~/.local/state/pgsteer`.
    STATE_DIR: Option<PathBuf> = "failover.state_dir" {
        default: None,
        example: "\"/var/lib/pgsteer\"",
        counts: OnRestart,
    }

    /// The pgsteers behind one address, this one among them, in the same order at each: whoever
    /// gets a cancel request for a session of another one passes it on there, once. `[]`: nobody.
    CANCEL_PEERS: PeerList = "cancel.peers" {
        default: PeerList(Vec::new()),
        example: "[\"10.0.0.1:6432\", \"10.0.0.2:6432\"]",
        counts: OnRestart,
    }
    /// Which of them this one is, counting from 1; each must say it. It is a part of clients' keys.
    CANCEL_NUMBER: u32 = "cancel.number" {
        default: 1,
        counts: OnRestart,
    }
    /// TLS towards the peers, with libpq's meanings, held against their `tls.cert`. With less than
    /// `verify-full`, who is on the way can read a client's key, and cancel its statements.
    CANCEL_SSLMODE: SslMode = "cancel.sslmode" {
        default: SslMode::Prefer,
        counts: OnRestart,
    }
    /// The authorities whose certificates are trusted of peers, PEM. Unset: the system's.
    CANCEL_SSLROOTCERT: Option<PathBuf> = "cancel.sslrootcert" {
        default: None,
        example: "\"/etc/pgsteer/tls/ca.crt\"",
        counts: OnRestart,
    }

    /// Longest time from a client's connect to its login. On Linux it begins with the first that a
    /// client says over TCP, or after a second in which it says nothing.
    LOGIN_TIMEOUT: Duration = "limits.login_timeout" {
        default: Limits::default().login_timeout,
        check: one_second,
        counts: OnReload,
    }
    /// Whoever fails to log in from an address again and again is refused later and later: after
    /// five failures by 100 ms, then twice that, up to this. Every ten seconds one is forgiven.
    /// Logins that succeed never wait. `"0s"`: refusals don't, either.
    LOGIN_FAILURE_DELAY: Duration = "limits.login_failure_delay" {
        default: Limits::default().login_failure_delay,
        check: |delay| {
            if *delay <= Duration::from_secs(30) { Ok(()) } else { Err("must be at most \"30s\"") }
        },
        counts: OnReload,
    }
    /// How much single clients may take, by user, database, address and listener (an entry of
    /// `listen`, without its role). Every rule counts that fits; of times and sizes the smallest.
    /// `each` counts connections apart for each `user`, `database`, `address` or `listener`.
    /// Limits: `connections`; `login_timeout`, `idle_timeout`, `idle_in_transaction_timeout`,
    /// `transaction_timeout`, `query_timeout` (looked at once a second); `max_message` and
    /// `max_statement`; `max_prepared`, named prepared statements of a session, and `max_memory`,
    /// what these and its settings take. Counts for sessions that log in afterwards.
    LIMIT_RULES: Rules = "limits.rules" {
        default: Rules::default(),
        example: "[{ each = \"address\", connections = 99 }, { user = \"bi\", query_timeout = \"5m\" }]",
        counts: OnReload,
    }
    /// Threads that serve clients, at most 256; 0: half as many as there are cores, or one.
    SHARDS: u32 = "limits.shards" {
        default: 0,
        check: |shards| if *shards > 256 { Err("must be at most 256") } else { Ok(()) },
        counts: OnRestart,
    }
    /// How the kernel schedules these threads. `batch`: on busy processors whoever wakes one runs
    /// on first; takes a quarter less processor time, and the slowest statements wait longer where
    /// other programs compute all the time. `normal`: as pgsteer was started.
    SCHEDULING: Scheduling = "limits.scheduling" {
        default: Limits::default().scheduling,
        counts: OnRestart,
    }
    /// After SIGTERM clients are still accepted for so long, for load balancers to notice.
    DRAIN_DELAY: Duration = "limits.drain_delay" {
        default: Limits::default().drain_delay,
        counts: OnReload,
    }
    /// Then transactions get so long to finish.
    DRAIN_TIMEOUT: Duration = "limits.drain_timeout" {
        default: Limits::default().drain_timeout,
        counts: OnReload,
    }

    /// The form of the log, which goes to standard error.
    LOG: LogFormat = "observability.log" {
        default: Observability::default().log,
        counts: OnRestart,
    }
    /// What is logged. `-v` and `-q`, and the directives in `RUST_LOG`, go before it.
    LOG_LEVEL: LogLevel = "observability.log_level" {
        default: Observability::default().log_level,
        counts: OnRestart,
    }
    /// Whether a crash may leave a core. It would hold passwords and the keys of users. `never`:
    /// none is written, and programs of pgsteer's own user (`gdb`, `perf`) can't read its memory;
    /// root can. `allowed`: as the limits and the system have it.
    CORE_DUMPS: Cores = "observability.core_dumps" {
        default: Observability::default().cores,
        counts: OnRestart,
    }
}

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static dyn AnyKey> {
    ALL.iter().find(|key| key.name() == name).copied()
}

/// The names one level below a prefix (`""`, `routing`, `routing.max_lag`), without repetition.
pub(super) fn below(prefix: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in ALL {
        let rest = if prefix.is_empty() {
            Some(key.name())
        } else {
            key.name().strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'))
        };
        let Some(rest) = rest else { continue };
        let name = rest.split_once('.').map_or(rest, |(first, _)| first);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
