//! What operators see in numbers: every metric, registered once, in one place.
//!
//! Names and help stand together in the catalogue; labels are closed enums or the configured
//! names of servers, so the number of series is bounded by the types. Every child exists from
//! the start, at 0, and is resolved once: the hot path only adds.
//!
//! Deliberately absent: labels for users, databases and addresses of clients, whose number
//! nobody bounds; and averages, which can't be added up over several proxies.

mod backends;
mod catalogue;
mod cells;
mod clients;
mod each;
mod failover;
mod family;
mod health;
mod label;
mod log;
mod pinned;
mod process;
mod servers;
mod statements;

pub use backends::{Backends, Opening};
pub use catalogue::{ALL as CATALOGUE, Entry, Kind};
pub use cells::{Level, Tally, Times, claim_row};
pub use clients::{Clients, Presence};
pub use each::{Each, Key};
pub use failover::{Failover, Prerequisites};
pub use family::{ByLabel, ByServer};
pub(crate) use health::Condition;
pub use health::{Health, Requirement};
pub use label::{
    Admission, AuditResult, BackendState, Blocked, CacheResult, ChangeBy, ChangeKind, CheckResult,
    ClientState, ConnectResult, DisconnectReason, ErrorOrigin, FailoverMode, FailoverPhase,
    GuardOutcome, HoldOutcome, LISTS as LABEL_LISTS, Label, LineLevel, LostWork, PromiseKind,
    QueryKind, SeenRole, ServedBy, SqlStateClass, StatementSide, SwapResult, TransactionOutcome,
    Use, WaitOutcome, WalPoint,
};
pub use log::count_log_line;
pub use pinned::{Pinned, PinnedSession, PinnedSessions};
pub use process::Process;
pub use servers::Servers;
pub use statements::{Holder, Statements};

use crate::clock;
use crate::metrics::cells::Rows;
use crate::metrics::family::{Builder, by_label};
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Registry, TextEncoder};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Every metric of this process.
pub struct Metrics {
    registry: Registry,
    /// Clients.
    pub clients: Clients,
    /// Backends.
    pub backends: Backends,
    /// Sessions that keep theirs.
    pub pinned: PinnedSessions,
    /// Statements.
    pub statements: Statements,
    /// Servers.
    pub servers: Servers,
    /// Changes of the primary.
    pub failover: Failover,
    /// The process.
    pub process: Process,
    reload_ok: IntGauge,
    reload_time: Gauge,
    config_hash: IntGaugeVec,
    log_events: ByLabel<LineLevel, IntCounter>,
    tls_expiry: Gauge,
    draining: IntGauge,
    /// Fill in what is counted elsewhere, just before somebody looks.
    hooks: Mutex<Vec<Hook>>,
}

/// Sets gauges of things that are counted elsewhere.
type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Who we are, for `pgsteer_build_info`.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version in `Cargo.toml`.
    pub version: &'static str,
    /// The commit, or `unknown`.
    pub revision: &'static str,
    /// The compiler's version.
    pub rustc: &'static str,
}

impl Default for Build {
    fn default() -> Self {
        let revision = option_env!("PGSTEER_REVISION").unwrap_or("unknown");
        Self { version: env!("CARGO_PKG_VERSION"), revision, rustc: env!("PGSTEER_RUSTC") }
    }
}

/// The outcome of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The new configuration is in use.
    TakenOver,
    /// It is not; the old one still is.
    Refused,
}

impl Metrics {
    /// All metrics, for these servers.
    ///
    /// # Errors
    /// If a name is registered twice, or two servers have one name.
    pub fn new(servers: &[Arc<str>], program: Build) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = Builder { registry: &registry, servers, rows: Rows::new() };
        let info = build.int_gauges(&catalogue::BUILD_INFO)?;
        let labels = [program.version, program.revision, program.rustc];
        info.get_metric_with_label_values(&labels)?.set(1);
        let metrics = Self {
            clients: Clients::register(&build)?,
            backends: Backends::register(&build)?,
            pinned: PinnedSessions::register(&build)?,
            statements: Statements::register(&build)?,
            servers: Servers::register(&build)?,
            failover: Failover::register(&build)?,
            process: Process::register(&build)?,
            reload_ok: build.int_gauge(&catalogue::RELOAD_OK)?,
            reload_time: build.gauge(&catalogue::RELOAD_TIME)?,
            config_hash: build.int_gauges(&catalogue::CONFIG_HASH)?,
            log_events: by_label(&build.int_counters(&catalogue::LOG_EVENTS)?)?,
            tls_expiry: build.gauge(&catalogue::TLS_EXPIRY)?,
            draining: build.int_gauge(&catalogue::DRAINING)?,
            hooks: Mutex::default(),
            registry,
        };
        metrics.reloaded(Reload::TakenOver);
        metrics.configured("none");
        metrics.secured(None);
        Ok(metrics)
    }

    /// `hook` is run before every exposition; it must not block.
    pub fn before_exposition(&self, hook: Hook) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    }

    /// A configuration was taken over, or refused.
    pub fn reloaded(&self, outcome: Reload) {
        match outcome {
            Reload::TakenOver => {
                self.reload_ok.set(1);
                self.reload_time.set(clock::unix_seconds());
            }
            Reload::Refused => self.reload_ok.set(0),
        }
    }

    /// The configuration in use has this hash.
    pub fn configured(&self, hash: &str) {
        self.config_hash.reset();
        self.config_hash.with_label_values(&[hash]).set(1);
    }

    /// The certificate that clients see runs out then, as seconds since 1970.
    pub fn secured(&self, until: Option<i64>) {
        let seconds = until.and_then(|until| u64::try_from(until).ok());
        let seconds = seconds.map(|until| Duration::from_secs(until).as_secs_f64());
        self.tls_expiry.set(seconds.unwrap_or(f64::NAN));
    }

    /// pgsteer shuts down.
    pub fn drain(&self) {
        self.draining.set(1);
    }

    /// Runs the hooks and reads the process anew.
    pub fn refresh(&self) {
        // Held to the end: two who look at a time must not count a line twice.
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        for hook in hooks.iter() {
            hook(self);
        }
        self.process.refresh();
        for level in LineLevel::ALL {
            if let Some(counter) = self.log_events.get(*level) {
                counter.inc_by(log::log_lines(*level).saturating_sub(counter.get()));
            }
        }
    }

    /// Everything, in the text format of Prometheus, version 0.0.4.
    ///
    /// # Errors
    /// If a metric can't be written; that would be a defect.
    pub fn expose(&self) -> prometheus::Result<String> {
        self.refresh();
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::pg::SqlState;
    use crate::session::{Pin, Pins};
    use crate::topology::ServerId;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn metrics() -> Metrics {
        Metrics::new(&[Arc::from("db1:5432"), Arc::from("db2:5432")], Build::default()).unwrap()
    }

    #[test]
    fn what_is_exposed_and_the_catalogue_are_the_same() {
        let metrics = metrics();
        let exposed = metrics.expose().unwrap();
        let families = metrics.registry.gather();
        let names: BTreeSet<_> =
            families.iter().map(prometheus::proto::MetricFamily::name).collect();
        let known: BTreeSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        assert_eq!(names, known, "every child exists from the start");
        for entry in CATALOGUE {
            let line = format!("# TYPE {} {}\n", entry.name, entry.kind.text());
            assert!(exposed.contains(&line), "{line}");
        }
    }

    #[test]
    fn unknown_is_not_a_number_and_never_zero() {
        let exposed = metrics().expose().unwrap();
        let line = "pgsteer_server_replay_lag_seconds{server=\"db1:5432\"} NaN";
        assert!(exposed.contains(line), "{exposed}");
    }

    #[test]
    fn clients_are_counted_where_they_are() {
        let metrics = metrics();
        let mut presence = metrics.clients.arrive(Holder::default());
        presence.turn(ClientState::Waiting);
        assert_eq!(metrics.clients.count(ClientState::Waiting), 1);
        assert_eq!(metrics.clients.count(ClientState::Idle), 0);
        drop(presence);
        assert_eq!(metrics.clients.count(ClientState::Waiting), 0);
    }

    #[test]
    fn who_is_pinned_is_known_as_long_as_it_is() {
        let metrics = metrics();
        let session = |application: &str, pin| PinnedSession {
            application: application.into(),
            user: "app".into(),
            database: "db".into(),
            server: ServerId(0),
            pid: 7,
            pins: Pins::of(pin),
            since: Moment::from_nanos(1),
        };
        let counted = |pin: &str| {
            let series = format!("pgsteer_pinned_sessions{{reason=\"{pin}\"}} ");
            let exposed = metrics.expose().unwrap();
            exposed.lines().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned()
        };

        let first = metrics.pinned.add(session("first", Pin::Temporary));
        let mut second = metrics.pinned.add(session("second", Pin::Temporary));
        assert_eq!((counted("temporary"), counted("advisory")), ("2".to_owned(), "0".to_owned()));
        second.turn(Pins::of(Pin::Advisory));
        assert_eq!((counted("temporary"), counted("advisory")), ("1".to_owned(), "1".to_owned()));
        assert_eq!(metrics.pinned.oldest(1), (2, vec![session("first", Pin::Temporary)]));

        drop(first);
        assert_eq!(metrics.pinned.oldest(9), (1, vec![session("second", Pin::Advisory)]));
        drop(second);
        assert_eq!((counted("temporary"), counted("advisory")), ("0".to_owned(), "0".to_owned()));
        assert_eq!(metrics.pinned.oldest(9), (0, vec![]));
    }

    /// Series are bounded by the types: using a metric adds none.
    #[test]
    fn no_use_adds_a_series() {
        let metrics = metrics();
        let series =
            |exposed: String| exposed.lines().filter(|line| !line.starts_with('#')).count();
        let before = series(metrics.expose().unwrap());
        for code in [*b"40001", *b"ZZZZZ", *b"\xff\xff\xff\xff\xff"] {
            metrics.statements.failed(ErrorOrigin::Server, SqlState(code));
        }
        let second = Duration::from_secs(1);
        metrics.statements.answered(ServedBy::Standby, QueryKind::Read, second);
        metrics.backends.connected(ServerId(9), ConnectResult::Ok, second);
        metrics.backends.connected(ServerId(0), ConnectResult::Ok, second);
        assert_eq!(series(metrics.expose().unwrap()), before);
    }
}
