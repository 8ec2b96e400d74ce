//! A whole set: real servers and a real pgsteer process in front of them.

use crate::support::Wire;
use crate::support::cluster;
use crate::support::program;
use pgsteer::sandbox::Answer;
use pgsteer::sandbox::Auth;
use pgsteer::sandbox::Cluster;
use pgsteer::sandbox::Plan;
use pgsteer::sandbox::Proxy;
use pgsteer::sandbox::SUPERUSER;
use pgsteer::sandbox::SUPERUSER_PASSWORD;
use pgsteer::sandbox::Server;
use pgsteer::sandbox::StatementLog;
use pgsteer::sandbox::eventually;
use rustix::process::Signal;
use std::time::Duration;
use tokio_postgres::NoTls;

/// Far more than anything takes, even on a crowded machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a house is to be like.
#[derive(Debug, Clone)]
pub struct Blueprint {
    plan: Plan,
    toml: String,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    strangers: Vec<String>,
    /// Keys of a server's own, by its name.
    own: Vec<(String, String)>,
}

/// Servers and a proxy; everything ends with this value, also when the test panics.
#[derive(Debug)]
pub struct House {
    /// First, so that it is dropped first.
    pub proxy: Proxy,
    pub cluster: Cluster,
}

impl Blueprint {
    /// A primary and two standbys that log every statement, and a proxy with its defaults.
    pub fn new() -> Self {
        let plan = Plan::new().log(StatementLog::All);
        Self {
            plan,
            toml: String::new(),
            flags: Vec::new(),
            env: Vec::new(),
            strangers: Vec::new(),
            own: Vec::new(),
        }
    }

    /// Other servers: `|plan| plan.standbys(1)`.
    pub fn servers(mut self, change: impl FnOnce(Plan) -> Plan) -> Self {
        self.plan = change(self.plan);
        self
    }

    /// More text for the proxy's configuration file; addresses and servers are there already.
    pub fn toml(mut self, text: &str) -> Self {
        self.toml.push_str(text);
        self.toml.push('\n');
        self
    }

    /// A key of the proxy's configuration: `.set("pool.size", "10")`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.extend(["--set".to_owned(), format!("{key}={value}")]);
        self
    }

    /// The proxy never promotes this server.
    pub fn never_leads(mut self, server: &str) -> Self {
        self.own.push((server.to_owned(), "priority = 0".to_owned()));
        self
    }

    /// The other servers reach this one there, and the proxy knows it.
    pub fn reached_at(mut self, server: &str, address: &str) -> Self {
        self.own.push((server.to_owned(), format!("replication_address = \"{address}\"")));
        self
    }

    /// One more address where the proxy listens: `127.0.0.1:7000?role=standby`.
    pub fn listen(mut self, address: &str) -> Self {
        self.flags.extend(["--listen".to_owned(), address.to_owned()]);
        self
    }

    /// A proxy to which no server is silent for too long, for tests of something else: on a
    /// crowded machine one may well be for longer than the second or two that it has by default,
    /// and then its reads go elsewhere.
    pub fn unhurried(self) -> Self {
        self.set("servers.check_timeout", "1m").set("routing.observation_age_max", "10m")
    }

    /// And to which no standby is too far behind.
    pub fn any_lag(self) -> Self {
        self.set("routing.max_lag.time", "off").set("routing.max_lag.bytes", "off")
    }

    /// The proxy is told of this server as well, which is none of the cluster's.
    pub fn stranger(mut self, address: &str) -> Self {
        self.strangers.push(address.to_owned());
        self
    }

    /// A variable of the proxy's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Builds it: every standby streams, and the proxy is ready.
    pub fn build(self) -> House {
        self.build_after(|_| ())
    }

    /// The same, but this happens to the servers before the proxy is started.
    pub fn build_after(self, happens: impl FnOnce(&Cluster)) -> House {
        let cluster = cluster(&self.plan);
        happens(&cluster);
        let mut proxy = proxy(&cluster, &self.toml).args(&self.flags);
        if cluster.auth() == Auth::Password {
            proxy = proxy.env("PGPASSWORD", SUPERUSER_PASSWORD);
        }
        for server in cluster.servers() {
            proxy = proxy.args(["--server", &server.address()]);
        }
        let own = |server: &Server| {
            let keys = self.own.iter().filter(|(name, _)| name == server.name());
            let keys: Vec<_> = keys.map(|(_, key)| key.as_str()).collect();
            let own = format!("\"{}\" = {{ {} }}", server.address(), keys.join(", "));
            (!keys.is_empty()).then_some(own)
        };
        let own: Vec<_> = cluster.servers().iter().filter_map(own).collect();
        if !own.is_empty() {
            let overrides = format!("servers.overrides={{ {} }}", own.join(", "));
            proxy = proxy.args(["--set", &overrides]);
        }
        for address in &self.strangers {
            proxy = proxy.args(["--server", address]);
        }
        for (name, value) in &self.env {
            proxy = proxy.env(name, value);
        }
        proxy.start().unwrap();
        proxy.await_ready().unwrap_or_else(|error| panic!("{error}"));
        House { proxy, cluster }
    }
}

impl House {
    /// A primary and two standbys that log every statement, and a proxy with its defaults.
    pub fn build() -> Self {
        Blueprint::new().build()
    }

    /// The server of this name: `primary`, `standby1`, ...
    pub fn server(&self, name: &str) -> &Server {
        self.cluster.server(name).unwrap()
    }

    /// The address of a database through the proxy.
    pub fn proxy_uri(&self, user: &str, database: &str) -> String {
        let password = match self.cluster.auth() {
            Auth::Trust | Auth::Listed => String::new(),
            Auth::Password => format!(":{SUPERUSER_PASSWORD}"),
        };
        format!("postgresql://{user}{password}@{}/{database}", self.proxy.address())
    }

    /// A client of the proxy: the superuser, in the database `postgres`.
    pub async fn client(&self) -> tokio_postgres::Client {
        connect(&self.proxy_uri(SUPERUSER, "postgres")).await
    }

    /// A client that sees every message: the superuser, in the database `postgres`.
    pub fn wire(&self) -> Wire {
        Wire::log_in(self.proxy.address(), "postgres").unwrap_or_else(|why| panic!("{why:?}"))
    }

    /// Waits until the functions and tables of the database `postgres` are known, as they are
    /// now: from then on its reads go to standbys.
    pub fn await_catalog(&self) {
        self.cluster.await_replay().unwrap();
        let mut wire = self.wire();
        await_that("the first read on a standby", || {
            wire.value("SELECT pg_is_in_recovery() FROM pg_class LIMIT 1") == "t"
        });
    }

    /// Reads the configuration file, with this text, anew; waits until that was done, well or
    /// not.
    pub fn reload(&self, toml: &str) {
        std::fs::write(self.proxy.file(), toml).unwrap();
        let done = || self.proxy.log().matches("reloaded").count();
        let before = done();
        self.proxy.signal(Signal::HUP);
        await_that("the reload", || done() > before);
    }

    /// What `pgsteer status -o json` is made of.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.http("/status").body).unwrap()
    }

    /// The part of the status that is about this server.
    pub fn status_of(&self, server: &str) -> serde_json::Value {
        self.status_at(&self.server(server).address())
    }

    /// The part of the status that is about the server at this address.
    pub fn status_at(&self, address: &str) -> serde_json::Value {
        let status = self.status();
        let mut servers = status["servers"].as_array().unwrap().iter();
        servers.find(|server| server["name"] == *address).unwrap().clone()
    }

    /// A value of `/metrics`: `metric(r#"pgsteer_server_up{server="a"}"#)`.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let body = self.http("/metrics").body;
        let mut lines = body.lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(name, _)| *name == series).map(|(_, value)| value.parse().unwrap())
    }

    /// What the proxy's HTTP port says.
    pub fn http(&self, path: &str) -> Answer {
        self.proxy.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// The servers whose logs contain the marker, in the cluster's order: with a marker in a
    /// comment of the statement, those that executed it.
    pub fn where_ran(&self, marker: &str) -> Vec<&str> {
        let servers = self.cluster.servers().iter();
        servers.filter(|server| server.logged(marker) > 0).map(Server::name).collect()
    }

    /// How often each server's log contains the marker: primary, standby1, ...
    pub fn runs(&self, marker: &str) -> Vec<usize> {
        self.cluster.servers().iter().map(|server| server.logged(marker)).collect()
    }
}

impl Drop for House {
    /// A failed test leaves its logs where they can be read.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let test = std::thread::current().name().unwrap_or("test").replace("::", ".");
        let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        std::fs::create_dir_all(&place).unwrap_or(());
        let servers = self.cluster.servers().iter();
        let mut logs: Vec<(String, String)> =
            servers.map(|server| (server.name().to_owned(), server.log())).collect();
        logs.push(("pgsteer".to_owned(), self.proxy.log()));
        for (name, log) in logs {
            std::fs::write(place.join(format!("{name}.log")), log).unwrap_or(());
        }
        eprintln!("logs of this test: {}", place.display());
    }
}

/// A proxy in front of nothing yet, with a configuration file of this text.
pub fn proxy(cluster: &Cluster, toml: &str) -> Proxy {
    proxy_at(cluster, "pgsteer", toml)
}

/// The same, one of several, in a directory of this name.
pub fn proxy_at(cluster: &Cluster, name: &str, toml: &str) -> Proxy {
    let dir = cluster.workshop(name).unwrap();
    Proxy::new(program(), dir).unwrap().toml(toml).unwrap()
}

/// Waits until it holds; fails if it never does.
pub fn await_that(what: &str, holds: impl FnMut() -> bool) {
    let mut holds = holds;
    let waited = eventually(PATIENCE, || holds().then_some(()));
    assert!(waited.is_some(), "not within {PATIENCE:?}: {what}");
}

/// Ends the backends of a server that fit this condition on `pg_stat_activity`, and waits until
/// they have ended: each has said so to its client before it is off that list. How many they were.
pub fn end_backends(server: &Server, which: &str) -> usize {
    let these = format!(
        "FROM pg_stat_activity WHERE backend_type = 'client backend' \
         AND coalesce(state, 'starting') <> 'starting' AND pid <> pg_backend_pid() AND {which}"
    );
    let ended = server.rows(&format!("SELECT pid, pg_terminate_backend(pid) {these}")).unwrap();
    let pids: Vec<String> = ended.into_iter().filter_map(|mut row| row.swap_remove(0)).collect();
    if !pids.is_empty() {
        let left = format!("SELECT count(*) {these} AND pid IN ({})", pids.join(", "));
        server.await_value(&left, "0", "rid of the backends that were ended").unwrap();
    }
    pids.len()
}

/// Commits of this server wait for these standbys from now on. It shows its new setting before it
/// heeds it: a commit waits for nobody until the checkpointer has taken that in, which it does
/// before it begins a checkpoint; so when the second one is done, it has.
///
/// Source: `SyncRepWaitForLSN` in `replication/syncrep.c` and `CheckpointerMain` in
/// `postmaster/checkpointer.c` of PostgreSQL.
pub fn synchronous(server: &Server, names: &str) {
    server.set("synchronous_standby_names", names).unwrap();
    server.await_value("SHOW synchronous_standby_names", names, "taken over").unwrap();
    for _ in 0..2 {
        server.rows("CHECKPOINT").unwrap();
    }
}

/// A client of whatever listens there.
pub async fn connect(uri: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(uri, NoTls).await.unwrap_or_else(|error| panic!("{uri}: {error}"));
    // It ends when the client is dropped, or with an error that the client's next call reports.
    drop(pgsteer::tasks::spawn("test client", connection));
    client
}
