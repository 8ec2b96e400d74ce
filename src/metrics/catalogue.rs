//! Every metric by name: the one place where a name, its help and its labels stand together.
//!
//! The help says what a rise means. `docs` and the tests compare themselves with [`ALL`].

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Its name, in base units.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it tells, and what a rise means.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// A distribution over these upper bounds, in seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the exposition format.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// What a client sees: 0.25 ms, a read by key on the local machine, to 60 s, a report; each
/// about 2.5 times the one before, so that a quantile is right within that factor.
const QUERY: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 60.0,
];

/// A wait in a queue: 1 ms to 30 s; the default deadline, 10 s, is a bound.
const QUEUE: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// A wait for replay: 1 ms doubling to 128 ms brackets its limit, 50 ms, and what operators make
/// of that; then 1 s.
const REPLAY: &[f64] = &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.25, 0.5, 1.0];

/// Opening a connection, and a look at a server: 0.5 ms (local) over 20 ms (TLS and SCRAM) to the
/// deadlines, 1 s and 5 s.
const CONNECT: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// A step of a failover: 10 ms, a compare-and-swap on a local disk, to 10 s, what clients wait;
/// the promises (freeze 90 ms, promote 130 ms, all of it 300 ms) lie between near bounds.
const FAILOVER: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0];

macro_rules! catalogue {
    ($($id:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) const $id: Entry =
            Entry { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order in which the page about them is written.
        pub const ALL: &[Entry] = &[$($id),*];
    };
}

catalogue! {
    BUILD_INFO: Kind::Gauge, "pgsteer_build_info", ["version", "revision", "rustc"],
        "Always 1; the labels say what runs";
    CPU: Kind::Counter, "process_cpu_seconds_total", [],
        "Processor time used; its rate is the number of cores in use";
    MEMORY: Kind::Gauge, "process_resident_memory_bytes", [],
        "Memory in use; a steady rise at a steady number of clients is a leak";
    OPEN_FDS: Kind::Gauge, "process_open_fds", [],
        "Open files and sockets; near process_max_fds new clients are turned away";
    MAX_FDS: Kind::Gauge, "process_max_fds", [], "Most open files and sockets";
    START_TIME: Kind::Gauge, "process_start_time_seconds", [],
        "When pgsteer was started, as seconds since 1970; a rise is a restart";
    RELOAD_OK: Kind::Gauge, "pgsteer_config_last_reload_successful", [],
        "Whether the last reload was taken over; 0: the old configuration is still in use";
    RELOAD_TIME: Kind::Gauge, "pgsteer_config_last_reload_success_timestamp_seconds", [],
        "When a configuration was last taken over, as seconds since 1970";
    CONFIG_HASH: Kind::Gauge, "pgsteer_config_hash_info", ["hash"],
        "Always 1; proxies with another hash have another configuration (secrets left out)";
    LOG_EVENTS: Kind::Counter, "pgsteer_log_events_total", ["level"],
        "Lines written to the log; a rise of error or warn is worth a look into it";
    TLS_EXPIRY: Kind::Gauge, "pgsteer_tls_certificate_expiry_timestamp_seconds", [],
        "When the certificate that clients see runs out, as seconds since 1970; NaN without one";
    DRAINING: Kind::Gauge, "pgsteer_draining", [],
        "1 while pgsteer shuts down and lets clients finish";
    CLIENTS: Kind::Gauge, "pgsteer_client_connections", ["state"],
        "Clients by what they do; a rise of waiting means that backends or a primary are missing";
    CLIENT_LIMIT: Kind::Gauge, "pgsteer_client_limit_connections", [],
        "Most clients at a time (pool.max_clients)";
    ADMISSIONS: Kind::Counter, "pgsteer_client_connections_total", ["result"],
        "Connections of clients by how they began; a rise of anything but accepted and cancel is trouble";
    HOLD: Kind::Histogram(QUEUE), "pgsteer_hold_seconds", ["outcome"],
        "Time that a statement was held for want of a primary, by how that ended";
    HELD_BYTES: Kind::Gauge, "pgsteer_held_bytes", [],
        "Memory of statements that wait; at routing.hold_memory new ones are refused";
    LOST_WORK: Kind::Counter, "pgsteer_lost_servers_work_total", ["outcome"],
        "What became of what sessions did on a server that was lost or replaced; in_doubt are answers that nobody has";
    CLIENT_WAIT: Kind::Histogram(QUEUE), "pgsteer_client_wait_seconds", [],
        "Time that a statement queued for a backend; a rise means that pool.size is too small";
    CLIENT_OLDEST_WAIT: Kind::Gauge, "pgsteer_client_oldest_wait_seconds", [],
        "How long the first of those who queue for a backend has waited; near pool.wait_timeout clients get 53300";
    RECEIVED: Kind::Counter, "pgsteer_client_received_bytes_total", [], "Bytes from clients";
    SENT: Kind::Counter, "pgsteer_client_sent_bytes_total", [], "Bytes to clients";
    POOL: Kind::Gauge, "pgsteer_pool_connections", ["server", "state"],
        "Backends by what they do; active at the limit means that clients queue";
    POOL_LIMIT: Kind::Gauge, "pgsteer_pool_limit_connections", ["server"],
        "Most backends of the pools that exist now";
    PINNED: Kind::Gauge, "pgsteer_pinned_sessions", ["reason"],
        "Sessions that keep their backend in transaction mode, by what they have there; pgsteer status names the applications";
    CONNECTS: Kind::Counter, "pgsteer_server_connects_total", ["server", "result"],
        "Backends opened, by result; a rise of ok is churn, of anything else trouble";
    CONNECT_TIME: Kind::Histogram(CONNECT), "pgsteer_server_connect_seconds", ["server"],
        "Time to open a backend, login included; a rise means a slow or full server";
    DISCONNECTS: Kind::Counter, "pgsteer_server_disconnects_total", ["server", "reason"],
        "Backends closed, by reason; a rise of error means a server or a network that breaks";
    AUDITS: Kind::Counter, "pgsteer_pool_audits_total", ["result"],
        "Backends that were probed although they were believed to be clean, by what was found; after a leak the log names the application";
    QUERIES: Kind::Counter, "pgsteer_queries_total", ["server", "kind"],
        "Groups of statements sent, by server and kind";
    QUERY_TIME: Kind::Histogram(QUERY), "pgsteer_query_seconds", ["role", "kind"],
        "Time from a group's arrival to its last answer, all waits included";
    SERVER_QUERY_TIME: Kind::Histogram(QUERY), "pgsteer_server_query_seconds", ["server"],
        "Time from sending a group to a server to its last answer; pgsteer_query_seconds has the waits, too";
    TRANSACTIONS: Kind::Counter, "pgsteer_transactions_total", ["server", "outcome"],
        "Transactions by how they ended, single statements included; a rise of aborted means errors";
    PREPARED: Kind::Gauge, "pgsteer_prepared_statements", ["side"],
        "Named prepared statements now; a steady rise on the client's side is a driver that closes none";
    PREPARED_CACHE: Kind::Counter, "pgsteer_prepared_cache_requests_total", ["result"],
        "Statements that are shared, used by clients, by whether their backend held them; each miss is a Parse more";
    ERRORS: Kind::Counter, "pgsteer_errors_total", ["origin", "sqlstate_class"],
        "Errors that clients were sent, by who raised them and the first two characters of SQLSTATE";
    ROUTES: Kind::Counter, "pgsteer_routing_decisions_total", ["target", "reason"],
        "Groups by where they went and why; reads at the primary for lsn or no_standby mean lag";
    LSN_WAIT: Kind::Histogram(REPLAY), "pgsteer_lsn_wait_seconds", ["outcome"],
        "Time that a read waited for a standby to replay the session's floor; what reading your own writes costs";
    STALE_PREVENTED: Kind::Counter, "pgsteer_stale_reads_prevented_total", [],
        "Reads that a fit standby would have answered too old and that went elsewhere or waited";
    READ_RETRIES: Kind::Counter, "pgsteer_read_retries_total", [],
        "Reads that were run again elsewhere, unseen by the client; a rise means failing standbys or recovery conflicts";
    POSITIONS_LOST: Kind::Counter, "pgsteer_positions_lost_total", [],
        "Sessions that were warned after a change of primary: what they wrote last could not be shown to be kept";
    GUARDS: Kind::Counter, "pgsteer_visibility_guards_total", ["outcome"],
        "Moves of a session from a standby to the primary that had to be checked";
    PRIMARIES: Kind::Gauge, "pgsteer_primaries", [],
        "Servers of the set that say that they are the primary: 1 is health, 0 means no writes, 2 a split";
    EPOCH: Kind::Gauge, "pgsteer_epoch", [],
        "Number of primaries adopted since the start; a rise is a change of primary";
    FAILOVER_MODE: Kind::Gauge, "pgsteer_failover_mode", ["mode"],
        "1 for who may begin a failover (failover.mode), 0 for the others";
    FAILOVER_AVAILABLE: Kind::Gauge, "pgsteer_failover_available", [],
        "Whether a change of primary can be recorded; 0: the directory of state can't be used, and the log says why";
    FAILOVER_ARMED: Kind::Gauge, "pgsteer_failover_armed", [],
        "Whether pgsteer would replace a lost primary by itself; 0 in mode auto: status says what is missing";
    FAILOVER_PROMISE: Kind::Gauge, "pgsteer_failover_promise", ["promise"],
        "1 for what the primary promises of acknowledged writes; asynchronous: a failover may lose some";
    FAILOVER_PHASE: Kind::Gauge, "pgsteer_failover_phase", ["phase"],
        "1 for how far a change of primary has come; stable: none is under way";
    FAILOVER_BLOCKED: Kind::Gauge, "pgsteer_failover_blocked", ["reason"],
        "1 for what keeps a lost primary from being replaced now";
    CHANGES: Kind::Counter, "pgsteer_failover_changes_total", ["kind", "by"],
        "Completed changes of primary, by what they were and who wanted them";
    CALLED_OFF: Kind::Counter, "pgsteer_failover_called_off_total", ["kind"],
        "Changes of primary that were begun and undone; history and log say why";
    PHASE_TIME: Kind::Histogram(FAILOVER), "pgsteer_failover_phase_seconds", ["phase"],
        "Time that a change of primary spent in a phase";
    CHANGE_TIME: Kind::Histogram(FAILOVER), "pgsteer_failover_seconds", ["kind"],
        "Time from the claim of a change of primary to the admission of writes";
    LAST_CHANGE: Kind::Gauge, "pgsteer_failover_last_timestamp_seconds", [],
        "When the primary was last changed, as seconds since 1970; NaN: no change is remembered";
    LAST_LOSS: Kind::Gauge, "pgsteer_failover_last_loss_bytes", [],
        "Most of the acknowledged log that the last change lost; NaN while that is not known";
    PREPARED_LEFT: Kind::Gauge, "pgsteer_failover_prepared_transactions", [],
        "Prepared transactions on the primary from before its last change, or a minute old (of very many, 100): each holds its locks until somebody ends it; status and log name them";
    STORE_TIME: Kind::Histogram(FAILOVER), "pgsteer_store_swap_seconds", ["result"],
        "Time to put a record in the place of another, durably; a rise is a slow disk, and slows failovers";
    FINDINGS: Kind::Gauge, "pgsteer_findings", [],
        "What is wrong with the set now (cordoned, disputed or foreign servers, a primary whose log too few standbys hold); the log names each";
    SERVER_UP: Kind::Gauge, "pgsteer_server_up", ["server"], "Whether the last look had an answer";
    SERVER_ROLE: Kind::Gauge, "pgsteer_server_role", ["server", "role"],
        "1 for what the server says that it is, 0 for the others";
    SERVER_USABLE: Kind::Gauge, "pgsteer_server_usable", ["server", "for"],
        "Whether the server gets reads or writes, by role, history, lag and weight";
    SERVER_TIMELINE: Kind::Gauge, "pgsteer_server_timeline", ["server"],
        "Branch of the log; NaN while it is not known; a rise is a promotion";
    WAL_POSITION: Kind::Gauge, "pgsteer_server_wal_position_bytes", ["server", "point"],
        "Place in the log; NaN while it is not known; its rate at the primary is what is written";
    LAG_BYTES: Kind::Gauge, "pgsteer_server_replay_lag_bytes", ["server"],
        "Log that a standby has yet to replay; NaN while it is not known";
    LAG_SECONDS: Kind::Gauge, "pgsteer_server_replay_lag_seconds", ["server"],
        "Age of the oldest position that a standby has yet to replay; NaN while it is not known";
    CHECKS: Kind::Counter, "pgsteer_server_checks_total", ["server", "result"],
        "Looks at a server; a rise of anything but ok is trouble";
    CHECK_TIME: Kind::Histogram(CONNECT), "pgsteer_server_check_seconds", ["server"],
        "Time that a look took; a rise means a slow server or network";
    SAMPLES: Kind::Counter, "pgsteer_server_position_samples_total", ["server"],
        "Positions asked for because a session wanted one; what reading your own writes costs the server";
    KICKS: Kind::Counter, "pgsteer_server_flush_kicks_total", ["server"],
        "Times that the primary was made to flush its log because sessions waited for it";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for entry in ALL {
            let counter = entry.kind == Kind::Counter;
            assert_eq!(entry.name.ends_with("_total"), counter, "{}", entry.name);
            assert!(!entry.help.ends_with('.'), "{}", entry.name);
            let once = ALL.iter().filter(|other| other.name == entry.name).count();
            assert_eq!(once, 1, "{}", entry.name);
            if let Kind::Histogram(bounds) = entry.kind {
                assert!(bounds.is_sorted() && entry.name.ends_with("_seconds"), "{}", entry.name);
            }
        }
    }
}
