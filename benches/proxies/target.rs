//! What is measured: one server, and the proxies in front of it.

use crate::{Prepares, Workload};
use pgsteer::sandbox::{Cluster, Plan, Port, Postgres, Proxy, Template, eventually};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// No proxy.
    Direct,
    /// PgBouncer, as the distribution has it.
    PgBouncer,
    /// pgsteer with its defaults: routing and session positions on.
    Pgsteer,
    /// The same process once more: what differs is noise.
    PgsteerAgain,
}

/// Everything that runs meanwhile.
#[derive(Debug)]
pub(crate) struct Site {
    pgsteer: Proxy,
    transaction: Result<Bouncer, String>,
    session: Result<Bouncer, String>,
    postgres: Postgres,
    cluster: Cluster,
    scratch: PathBuf,
}

/// A PgBouncer.
#[derive(Debug)]
struct Bouncer {
    child: Child,
    port: Port,
    version: String,
}

/// Rows of pgbench's tables: a scale at which everything fits into memory.
const SCALE: &str = "10";
/// Longest for anything to start.
const PATIENCE: Duration = Duration::from_secs(30);

impl Target {
    /// All of them, in the order of the table.
    pub(crate) const fn all() -> &'static [Self] {
        &[Self::Direct, Self::PgBouncer, Self::Pgsteer, Self::PgsteerAgain]
    }

    /// The column's heading.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer => "PgBouncer",
            Self::Pgsteer => "pgsteer",
            Self::PgsteerAgain => "pgsteer again",
        }
    }
}

impl Site {
    /// A primary and two standbys, filled, with the proxies in front of them.
    pub(crate) fn build(pool: usize) -> Self {
        let postgres = Postgres::find(None).unwrap();
        let template = Template::new(postgres.clone()).unwrap();
        let plan = Plan::new().setting("shared_buffers", "128MB").setting("max_wal_size", "2GB");
        let cluster = Cluster::start(&template, &plan).unwrap();
        let server: SocketAddr = cluster.primary().address().parse().unwrap();
        let scratch = cluster.workshop("bench").unwrap();
        // PgBouncer runs as another user if we are root, and reads its file there.
        std::fs::set_permissions(&scratch, std::fs::Permissions::from_mode(0o755)).unwrap();
        let done = Command::new(program(&postgres, "pgbench"))
            .args(["-h", "127.0.0.1", "-p", &server.port().to_string(), "-U", "postgres"])
            .args(["-i", "-q", "-s", SCALE, "postgres"])
            .output()
            .expect("pgbench is missing: it comes with PostgreSQL's server packages");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        cluster.await_replay().unwrap();
        let bouncer = |mode: &str| Bouncer::start(&postgres, &scratch, server, (mode, pool));
        let (transaction, session) = (bouncer("transaction"), bouncer("session"));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_pgsteer"));
        let dir = cluster.workshop("pgsteer").unwrap();
        let size = format!("pool.size={pool}");
        let mut pgsteer = Proxy::new(program, dir).unwrap().args(["--set", &size]);
        for server in cluster.servers() {
            pgsteer = pgsteer.args(["--server", &server.address()]);
        }
        pgsteer.start().unwrap();
        pgsteer.await_ready().unwrap();
        Self { pgsteer, transaction, session, postgres, cluster, scratch }
    }

    /// Where a target listens.
    pub(crate) fn address(&self, target: Target, workload: Workload) -> Result<SocketAddr, String> {
        match target {
            Target::Direct => Ok(self.cluster.primary().address().parse().unwrap()),
            Target::PgBouncer => {
                let bouncer = self.bouncer(workload)?;
                Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, bouncer.port.number())))
            }
            Target::Pgsteer | Target::PgsteerAgain => Ok(self.pgsteer.address()),
        }
    }

    /// The proxy's process.
    pub(crate) fn process(&self, target: Target, workload: Workload) -> Option<u32> {
        match target {
            Target::Direct => None,
            Target::PgBouncer => self.bouncer(workload).ok().map(|bouncer| bouncer.child.id()),
            Target::Pgsteer | Target::PgsteerAgain => self.pgsteer.pid(),
        }
    }

    /// PgBouncer in the mode that can do it; which is told in the table.
    fn bouncer(&self, workload: Workload) -> Result<&Bouncer, String> {
        let transaction = self.transaction.as_ref().map_err(Clone::clone)?;
        match workload.prepares {
            Prepares::Yes if !transaction.prepares() => self.session.as_ref().map_err(Clone::clone),
            Prepares::Yes | Prepares::No => Ok(transaction),
        }
    }

    /// What runs, for the table.
    pub(crate) fn versions(&self) -> Vec<String> {
        let bouncer = match &self.transaction {
            Ok(bouncer) if bouncer.prepares() => bouncer.version.clone(),
            Ok(bouncer) => format!("{} (prepared: session mode)", bouncer.version),
            Err(why) => format!("PgBouncer: NOT MEASURED ({why})"),
        };
        vec![format!("PostgreSQL {}", self.postgres.version()), bouncer]
    }

    /// A program of PostgreSQL.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        program(&self.postgres, name)
    }

    /// Where runs may leave files.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }
}

fn program(postgres: &Postgres, name: &str) -> PathBuf {
    let own = postgres.bin().join(name);
    if own.exists() { own } else { name.into() }
}

/// The program: the one that is named, else the distribution's.
fn pgbouncer() -> String {
    const USUAL: [&str; 2] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
    let named = std::env::var("PGSTEER_BENCH_PGBOUNCER").ok();
    let usual = || USUAL.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned);
    named.or_else(usual).unwrap_or_else(|| "pgbouncer".to_owned())
}

impl Bouncer {
    fn start(
        postgres: &Postgres,
        scratch: &Path,
        server: SocketAddr,
        (mode, pool): (&str, usize),
    ) -> Result<Self, String> {
        let program = pgbouncer();
        let said = Command::new(&program).arg("--version").output();
        let said = said.map_err(|error| format!("{program}: {error}"))?;
        let text = String::from_utf8_lossy(&said.stdout);
        let version = text.lines().next().unwrap_or("PgBouncer").to_owned();
        let port = Port::free().map_err(|error| error.to_string())?;
        let file = scratch.join(format!("{mode}.ini"));
        let text = format!(
            "[databases]\npostgres = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nauth_type = any\npool_mode = {mode}\nmax_client_conn = 1000\n\
             default_pool_size = {pool}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.ip(),
            server.port(),
            port.number(),
        );
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        // It refuses root, as PostgreSQL does, and takes the same other user. Its log is dropped.
        let mut command = postgres.command(&program, scratch);
        let child = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let bouncer = Self { child, port, version };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, bouncer.port.number()));
        let listens = eventually(PATIENCE, || TcpStream::connect(address).ok());
        listens.map(drop).ok_or_else(|| "it does not start".to_owned())?;
        Ok(bouncer)
    }

    /// Whether it knows prepared statements in transaction mode (since 1.21).
    fn prepares(&self) -> bool {
        let minor =
            self.version.split(['.', ' ']).filter_map(|word| word.parse::<u32>().ok()).nth(1);
        minor.is_some_and(|minor| minor >= 21)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.child.kill().unwrap_or(());
        drop(self.child.wait());
    }
}
