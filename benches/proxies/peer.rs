//! The programs that are measured, each started for a section in the way that it needs.

use crate::site::Site;
use pgsteer::sandbox::{Port, Proxy, eventually};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a section asks of its targets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Backends of a pool.
    pub(crate) pool: usize,
    pub(crate) login: Login,
    pub(crate) channel: Channel,
    /// Whether the statements are prepared by name.
    pub(crate) prepares: Prepares,
}

/// How clients log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    Trust,
    /// SCRAM, from stored keys.
    Scram,
}

/// How clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Plain,
    Tls,
}

/// Whether prepared statements are needed, which PgBouncer knows in transaction mode since 1.21.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prepares {
    No,
    Yes,
}

/// Which program, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No proxy.
    Direct,
    PgBouncer,
    /// A program that the environment names.
    Named(&'static str, &'static str),
    /// Passes bytes on, and pools nothing.
    HaProxy,
    /// In front of the primary alone: nothing but a pool, like PgBouncer.
    Pool,
    /// The same process as the one before it once more: what differs is noise.
    Again,
    /// In front of all servers, with its defaults: reads at the standbys, positions of sessions.
    Routed,
    /// As [`Kind::Pool`], with so many shards.
    Shards(u32),
    /// pgsteer in front of the primary, with what has no name prepared once a backend.
    Reusing,
}

/// A target that runs, or the reason why not.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) state: Result<Running, String>,
}

/// Where it listens, and the process that is measured.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// `None`: there is none, or many.
    pub(crate) process: Option<u32>,
    _program: Option<Program>,
}

/// Ends with its value.
#[derive(Debug)]
enum Program {
    Pgsteer { _proxy: Box<Proxy> },
    Other { child: Child, _port: Port },
}

/// Peers that the environment may name, as programs that are called with three arguments: the
/// port to listen on, the server's port, the size of the pool.
pub(crate) const NAMED: [Kind; 3] = [
    Kind::Named("Odyssey", "PGSTEER_BENCH_ODYSSEY"),
    Kind::Named("PgCat", "PGSTEER_BENCH_PGCAT"),
    Kind::Named("PgDog", "PGSTEER_BENCH_PGDOG"),
];
/// The row that all ratios refer to.
pub(crate) const PEER: &str = "PgBouncer";
/// Longest for anything to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts these, in this order.
pub(crate) fn start(site: &Site, kinds: &[Kind], wanted: Wanted) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    for kind in kinds {
        let state = match (kind, targets.last()) {
            (Kind::Again, Some(before)) => again(before),
            _ => one(site, *kind, wanted),
        };
        let name = name(*kind, wanted);
        targets.push(Target { name, state });
    }
    targets
}

/// The pgsteer that is measured: the one that was built for this, or one that is named.
pub(crate) fn binary() -> PathBuf {
    let built = || PathBuf::from(env!("CARGO_BIN_EXE_pgsteer"));
    std::env::var_os("PGSTEER_BENCH_BINARY").map_or_else(built, PathBuf::from)
}

fn name(kind: Kind, wanted: Wanted) -> String {
    match kind {
        Kind::Direct => "direct".to_owned(),
        Kind::PgBouncer if pools_sessions(wanted) => "PgBouncer, session mode".to_owned(),
        Kind::PgBouncer => PEER.to_owned(),
        Kind::Named(name, _) => name.to_owned(),
        Kind::HaProxy => "HAProxy".to_owned(),
        Kind::Pool => "pgsteer, pool only".to_owned(),
        Kind::Again => "pgsteer again".to_owned(),
        Kind::Routed => "pgsteer, routing".to_owned(),
        Kind::Reusing => "pgsteer, unnamed reused".to_owned(),
        Kind::Shards(1) => "1 shard".to_owned(),
        Kind::Shards(count) => format!("{count} shards"),
    }
}

/// The name of PgBouncer's row under these wishes.
pub(crate) fn peer(wanted: Wanted) -> &'static str {
    if pools_sessions(wanted) { "PgBouncer, session mode" } else { PEER }
}

fn again(before: &Target) -> Result<Running, String> {
    let before = before.state.as_ref().map_err(Clone::clone)?;
    Ok(Running { address: before.address, process: before.process, _program: None })
}

fn one(site: &Site, kind: Kind, wanted: Wanted) -> Result<Running, String> {
    match kind {
        Kind::Direct => Ok(Running { address: site.primary(), process: None, _program: None }),
        Kind::PgBouncer => pgbouncer(site, wanted),
        Kind::Named(_, variable) => named(site, variable, wanted),
        Kind::HaProxy => haproxy(site),
        Kind::Pool => pgsteer(site, 1, (0, &[]), wanted),
        Kind::Again => Err("nothing to repeat".to_owned()),
        Kind::Routed => pgsteer(site, site.cluster.servers().len(), (0, &[]), wanted),
        Kind::Reusing => pgsteer(site, 1, (0, &["pool.unnamed_statements=reuse"]), wanted),
        Kind::Shards(count) => pgsteer(site, 1, (count, &[]), wanted),
    }
}

/// pgsteer in front of the first so many servers; with 0 shards, as many as it finds right. Some
/// settings are the target's own.
fn pgsteer(
    site: &Site,
    servers: usize,
    (shards, own): (u32, &[&str]),
    wanted: Wanted,
) -> Result<Running, String> {
    let name = format!("pgsteer-{servers}-{}", pgsteer::clock::now().nanos());
    let dir = site.cluster.workshop(&name).map_err(|error| error.to_string())?;
    let program = binary();
    let mut proxy = Proxy::new(program, dir).map_err(|error| error.to_string())?;
    let mut settings =
        vec![format!("pool.size={}", wanted.pool), "pool.max_clients=30000".to_owned()];
    settings.push(format!("limits.shards={shards}"));
    settings.extend(own.iter().map(|setting| (*setting).to_owned()));
    if wanted.login == Login::Scram {
        settings.push("auth.method=scram-sha-256".to_owned());
        settings.push(format!("auth.file={}", site.userlist.display()));
    }
    if wanted.channel == Channel::Tls {
        settings.push(format!("tls.cert={}", site.certificate().display()));
        settings.push(format!("tls.key={}", site.key().display()));
    }
    if servers == 1 {
        // What a pool is: no catalog decides, no position is waited for.
        settings.push("routing.reads=primary".to_owned());
        settings.push("routing.consistency=eventual".to_owned());
    }
    for setting in &settings {
        proxy = proxy.args(["--set", setting]);
    }
    for server in site.cluster.servers().iter().take(servers) {
        proxy = proxy.args(["--server", &server.address()]);
    }
    proxy.start().map_err(|error| error.to_string())?;
    proxy.await_ready().map_err(|error| error.to_string())?;
    let (address, process) = (proxy.address(), proxy.pid());
    Ok(Running { address, process, _program: Some(Program::Pgsteer { _proxy: Box::new(proxy) }) })
}

/// Where PgBouncer lies: as the environment says, else where the distribution puts it.
fn pgbouncer_program() -> String {
    const USUAL: [&str; 2] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
    let named = std::env::var("PGSTEER_BENCH_PGBOUNCER").ok();
    let usual = || USUAL.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned);
    named.or_else(usual).unwrap_or_else(|| "pgbouncer".to_owned())
}

/// Whether PgBouncer must give each client a backend of its own, since it is asked for prepared
/// statements and is older than 1.21.
fn pools_sessions(wanted: Wanted) -> bool {
    let version = said(&pgbouncer_program(), "--version").unwrap_or_default();
    let minor = version.split(['.', ' ']).filter_map(|word| word.parse::<u32>().ok()).nth(1);
    wanted.prepares == Prepares::Yes && minor.is_none_or(|minor| minor < 21)
}

fn pgbouncer(site: &Site, wanted: Wanted) -> Result<Running, String> {
    let program = pgbouncer_program();
    said(&program, "--version")?;
    let port = Port::free().map_err(|error| error.to_string())?;
    let file = site.scratch().join(format!("pgbouncer-{}.ini", port.number()));
    let server = site.primary();
    // A client each has its own backend in session mode; no pool of 16 would serve 64 of them.
    let (mode, pool) =
        if pools_sessions(wanted) { ("session", 200) } else { ("transaction", wanted.pool) };
    let login = match wanted.login {
        Login::Trust => "auth_type = any\n".to_owned(),
        Login::Scram => {
            format!("auth_type = scram-sha-256\nauth_file = {}\n", site.userlist.display())
        }
    };
    let channel = match wanted.channel {
        Channel::Plain => String::new(),
        Channel::Tls => format!(
            "client_tls_sslmode = allow\nclient_tls_key_file = {}\nclient_tls_cert_file = {}\n",
            site.foreign_key().display(),
            site.certificate().display()
        ),
    };
    let text = format!(
        "[databases]\npostgres = host={} port={} user=postgres\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {}\npool_mode = {mode}\n\
         max_client_conn = 30000\ndefault_pool_size = {pool}\nmax_prepared_statements = 200\n\
         unix_socket_dir =\nignore_startup_parameters = extra_float_digits\n{login}{channel}",
        server.ip(),
        server.port(),
        port.number(),
    );
    let text = if said(&program, "--version")?.contains(" 1.1") {
        text.replace("max_prepared_statements = 200\n", "")
    } else {
        text
    };
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    // It refuses root, as PostgreSQL does, and takes the same other user. Its log is dropped.
    let mut command = site.postgres.command(&program, site.scratch());
    command.arg(&file);
    other(command, port)
}

fn haproxy(site: &Site) -> Result<Running, String> {
    let program = std::env::var("PGSTEER_BENCH_HAPROXY").unwrap_or_else(|_| "haproxy".to_owned());
    said(&program, "-v")?;
    let port = Port::free().map_err(|error| error.to_string())?;
    let file = site.scratch().join("haproxy.cfg");
    let text = format!(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\nlisten postgresql\n  bind 127.0.0.1:{}\n  server primary {}\n",
        port.number(),
        site.primary(),
    );
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("-f").arg(&file).arg("-db");
    other(command, port)
}

fn named(site: &Site, variable: &str, wanted: Wanted) -> Result<Running, String> {
    if wanted.login != Login::Trust || wanted.channel != Channel::Plain {
        return Err(format!("{variable} is asked for trust and no TLS only"));
    }
    let program = std::env::var(variable).map_err(|_| format!("{variable} names no program"))?;
    let port = Port::free().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args([port.number(), site.primary().port()].map(|port| port.to_string()));
    command.arg(wanted.pool.to_string()).current_dir(site.scratch());
    other(command, port)
}

fn other(mut command: Command, port: Port) -> Result<Running, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.map_err(|error| format!("{program}: {error}"))?;
    let process = Some(child.id());
    let running =
        Running { address, process, _program: Some(Program::Other { child, _port: port }) };
    let listens = eventually(PATIENCE, || TcpStream::connect(address).ok());
    listens.map(|_| running).ok_or_else(|| format!("{program} does not start"))
}

fn said(program: &str, argument: &str) -> Result<String, String> {
    let done = Command::new(program).arg(argument).output();
    let done = done.map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout);
    Ok(text.lines().next().unwrap_or("").to_owned())
}

/// What runs, for the report.
pub(crate) fn versions(site: &Site) -> Vec<String> {
    let named = NAMED.iter().filter_map(|kind| match kind {
        Kind::Named(name, variable) => Some((*name, std::env::var(variable).ok()?)),
        Kind::Direct
        | Kind::PgBouncer
        | Kind::HaProxy
        | Kind::Pool
        | Kind::Again
        | Kind::Routed
        | Kind::Shards(_)
        | Kind::Reusing => None,
    });
    let mut all = vec![format!("PostgreSQL {}", site.postgres.version())];
    if std::env::var_os("PGSTEER_BENCH_BINARY").is_some() {
        let path = binary();
        let within = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&path);
        all.push(format!("pgsteer: {}", within.display()));
    }
    all.extend(said(&pgbouncer_program(), "--version"));
    all.extend(said("haproxy", "-v"));
    all.extend(named.map(|(name, path)| format!("{name}: {path}")));
    all
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Self::Other { child, .. } = self {
            child.kill().unwrap_or(());
            drop(child.wait());
        }
    }
}
