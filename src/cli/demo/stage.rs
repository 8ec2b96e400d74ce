//! The servers and the proxy of a demo.

use crate::cli::args::Globals;
use crate::cli::demo::Args;
use crate::cli::demo::fail;
use crate::cli::exit::Exit;
use crate::cli::say;
use crate::sandbox::Cluster;
use crate::sandbox::Plan;
use crate::sandbox::Postgres;
use crate::sandbox::Proxy;
use crate::sandbox::Quorum;
use crate::sandbox::SUPERUSER;
use crate::sandbox::SandboxError;
use crate::sandbox::Server;
use crate::sandbox::Template;
use crate::sandbox::eventually;
use serde_json::Value;
use serde_json::json;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// The usual ports: PgBouncer's for clients, ours for HTTP.
const CLIENTS_PORT: u16 = 6432;
const HTTP_PORT: u16 = 9632;
/// Longest wait for the first read on a standby: the catalog's functions are read before it.
const WARM_MAX: Duration = Duration::from_secs(2);

/// The servers and the proxy; both end with it.
#[derive(Debug)]
pub(super) struct Stage {
    /// First, so that it is dropped first.
    pub(super) proxy: Proxy,
    pub(super) cluster: Cluster,
    postgres: Postgres,
}

impl Stage {
    /// Starts everything, and says so on the way.
    pub(super) fn set(args: &Args, globals: &Globals) -> Result<Self, Exit> {
        if !globals.server.is_empty() {
            say::talk("error: the demo makes its own servers; --server is for `pgsteer run`");
            return Err(Exit::Usage);
        }
        let listen = Wish::read(globals.listen.first().map(String::as_str), "--listen")?;
        let http = Wish::read(globals.http.as_deref(), "--http")?;
        let program = std::env::current_exe().map_err(|error| fail(&error))?;
        let stage = Self::build(args, globals, &program).map_err(|error| fail(&error))?;
        let stage = stage.at(listen, http);
        let started = stage.proxy.start().and_then(|()| stage.proxy.await_ready());
        started.map_err(|error| fail(&error))?;
        stage.warm_up();
        Ok(stage)
    }

    /// Waits until reads go to standbys, so that the newcomer's first one goes where the welcome
    /// says. Where the flags keep them from it the demo goes on after a moment.
    fn warm_up(&self) {
        if self.cluster.standbys().is_empty() {
            return;
        }
        let warm = || {
            let answer = self.proxy.get("/route?sql=SELECT%20inet_server_port()").ok()?;
            let route: Value = serde_json::from_str(&answer.body).ok()?;
            (route.get("target")?.as_str()? == "standby").then_some(())
        };
        eventually(WARM_MAX, warm).unwrap_or_default();
    }

    fn build(args: &Args, globals: &Globals, program: &Path) -> Result<Self, SandboxError> {
        let postgres = Postgres::find(args.pg_bin.as_deref())?;
        let (version, standbys) = (postgres.version(), args.standbys);
        let plural = if standbys == 1 { "standby" } else { "standbys" };
        say::talk(&format!("starting PostgreSQL {version}: a primary and {standbys} {plural}"));
        let template = Template::new(postgres.clone())?;
        let cluster = Cluster::start(&template, &plan(standbys.into()))?;
        let mut proxy = Proxy::new(program.to_owned(), cluster.workshop("pgsteer")?)?;
        for server in cluster.servers() {
            proxy = proxy.args(["--server", &server.address()]);
        }
        for set in &globals.set {
            proxy = proxy.args(["--set", set]);
        }
        // Never what lies in the working directory or in /etc: the demo is the same everywhere.
        let proxy = match &globals.config {
            Some(file) => {
                let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                proxy.args(["-c", &file.to_string_lossy()])
            }
            None => proxy.toml(TOML)?,
        };
        Ok(Self { proxy, cluster, postgres })
    }

    /// At the addresses that were wished for, else at the usual ones if they are free.
    fn at(mut self, listen: Wish, http: Wish) -> Self {
        if let Some(address) = listen.or_usual(CLIENTS_PORT, self.proxy.address()) {
            self.proxy = self.proxy.listen(address);
        }
        if let Some(address) = http.or_usual(HTTP_PORT, self.proxy.http_address()) {
            self.proxy = self.proxy.http(address);
        }
        self
    }

    /// What a newcomer reads first.
    pub(super) fn welcome(&self) -> String {
        let address = self.proxy.address();
        let (host, port) = (address.ip(), address.port());
        let http = self.proxy.http_address();
        let at = match http.port() {
            HTTP_PORT => String::new(),
            _ => format!(" --http {http}"),
        };
        format!(
            "\n  connect   psql -h {host} -p {port} -U {SUPERUSER}\n  \
             or        {}\n  \
             metrics   http://{}/metrics\n  \
             files     {}\n\n  \
             Writes go to the primary, reads to the standbys: try SELECT inet_server_port();\n  \
             In another terminal: pgsteer{at} switchover, or kill -9 a server and look here;\n  \
             what ended is brought back after a few seconds.\n  \
             Ctrl-C stops everything and leaves nothing behind.\n\n",
            self.uri(),
            self.proxy.http_address(),
            self.proxy.dir().parent().unwrap_or(self.proxy.dir()).display(),
        )
    }

    /// The same for scripts, in one line.
    pub(super) fn as_json(&self) -> Value {
        let server = |server: &Server| {
            // At the start the roles are as planned.
            let is_primary = server.name() == self.cluster.primary().name();
            json!({
                "name": server.name(),
                "uri": server.uri(),
                "role": if is_primary { "primary" } else { "standby" },
                "pid": server.pid(),
                "data": server.data(),
            })
        };
        let servers: Vec<Value> = self.cluster.servers().iter().map(server).collect();
        json!({
            "uri": self.uri(),
            "http": format!("http://{}", self.proxy.http_address()),
            "version": self.postgres.version().to_string(),
            "pid": self.proxy.pid(),
            "servers": servers,
        })
    }

    fn uri(&self) -> String {
        format!("postgresql://{SUPERUSER}@{}/postgres", self.proxy.address())
    }
}

/// What pgsteer is told: it may act by itself, and is the superuser of all servers.
const TOML: &str = "\
[failover]
mode = \"auto\"
demote = \"crash_restart\"
";

/// Servers as `auto` wants them. With a single standby no commit waits for it: if it did, writes
/// would stand still while either of the two is away.
fn plan(standbys: usize) -> Plan {
    let quorum = if standbys > 1 { Quorum::AnyOne } else { Quorum::None };
    Plan::new()
        .standbys(standbys)
        .quorum(quorum)
        .keepalive("2s")
        .setting("wal_retrieve_retry_interval", "100ms")
        .setting("wal_log_hints", "on")
}

/// Where something is to listen.
#[derive(Debug, Clone, Copy)]
enum Wish {
    /// At the usual port, if it is free.
    Usual,
    /// At any port that is free: `127.0.0.1:0`.
    Free,
    /// There.
    At(SocketAddr),
}

impl Wish {
    /// The wish in a flag: `ADDRESS:PORT`.
    fn read(flag: Option<&str>, name: &str) -> Result<Self, Exit> {
        let Some(text) = flag else { return Ok(Self::Usual) };
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => Ok(Self::Free),
            Ok(address) => Ok(Self::At(address)),
            Err(_) => {
                let form = "the demo takes ADDRESS:PORT, as in 127.0.0.1:6432";
                say::talk(&format!("error: {name} {text}: {form}"));
                Err(Exit::Usage)
            }
        }
    }

    /// Where that is; `None`: at the free port `instead`, which is said if it comes as a surprise.
    fn or_usual(self, usual: u16, instead: SocketAddr) -> Option<SocketAddr> {
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, usual));
        match self {
            Self::At(address) => Some(address),
            Self::Free => None,
            Self::Usual if TcpListener::bind(usual).is_ok() => Some(usual),
            Self::Usual => {
                say::talk(&format!("{usual} is in use by another program: taking {instead}"));
                None
            }
        }
    }
}
